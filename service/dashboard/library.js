/** The histories of all channels, which the stream doesn't bring: asked for on each connect, and for a search. */

import { ask } from "./ask.js";
import { isWhole } from "./model.js";

/** The most that the hub gives at once. */
const MOST = 1000;

export class Library {
    /** Whether it was had once: from then on, what the stream brings is news. */
    isLoaded = false;
    #url;
    #model;
    #loading = null;
    #completing = null;

    constructor(hub, model) {
        this.#url = `${hub}deployments`;
        this.#model = model;
    }

    /** Ask for everything. Resolves to whether it was had. */
    load() {
        this.#loading ??= this.#load().finally(() => (this.#loading = null));
        return this.#loading;
    }

    /** Ask, an application after the other, for what was more than the hub gives at once. */
    complete() {
        this.#completing ??= this.#complete();
        return this.#completing;
    }

    async #complete() {
        const channels = [...this.#model.channels.values()].filter((channel) => !isWhole(channel));
        for (const app of new Set(channels.map((channel) => channel.app))) {
            const found = await ask(`${this.#url}?limit=${MOST}&appName=${app}`);
            this.#model.load(found?.deployments ?? []);
        }
    }

    async #load() {
        const found = (await ask(`${this.#url}?limit=${MOST}`))?.deployments;
        if (found) {
            const isAll = found.length < MOST;
            this.#model.load(found, isAll);
            this.#completing = isAll ? Promise.resolve() : null;
            this.isLoaded = true;
        }
        return Boolean(found);
    }
}
