/**
 * What is really served: the page's own `version.json`, fetched past all caches.
 *
 * The hub says when to look; this says what a reload would give.
 */

import { fetchJSON } from "./request.js";

const FIRST_LOOK = 500;
const LOOKS = [1_000, 2_000, 5_000, 15_000, 60_000];
const THEN = 300_000;
const LONGEST = 3_600_000;

export class Served {
    /** The build that the server gave last, or null. */
    build = null;
    /** Whether there is a file to check; undefined until that is known. */
    hasCheck;
    #url;
    #app;
    #lock;
    #callbacks;
    #timer;
    #looks = 0;
    #since = 0;
    #isLooking = false;

    /**
     * @param {string} base below which the application is served, as a URL
     * @param {string} app its name: another application's file is no check
     * @param {string} lock the name of what only one tab at a time does
     * @param {object} callbacks post(message), to tell the other tabs; onChange(), when more is known
     */
    constructor(base, app, lock, callbacks) {
        this.#url = new URL("version.json", base).href;
        this.#app = app;
        this.#lock = lock;
        this.#callbacks = callbacks;
    }

    /** Look until stopped: soon, then ever more slowly. */
    start() {
        this.#looks = 0;
        this.#isLooking = true;
        this.#since = Date.now();
        this.#later(Math.random() * FIRST_LOOK);
    }

    stop() {
        clearTimeout(this.#timer);
        this.#isLooking = false;
    }

    /** Know nothing of what is served now: what was seen was about another deployment. */
    forget() {
        this.stop();
        this.build = null;
        this.hasCheck ||= undefined;
    }

    /** The page can be seen again: look now, if there is something to look for. */
    wake() {
        if (this.#isLooking) {
            this.#since = Date.now();
            this.#later(0);
        }
    }

    /** Look once, whoever else does. Resolves to the build, null where there is none, undefined where none can tell. */
    async look() {
        const build = await this.#fetch();
        if (build !== undefined) {
            this.#callbacks.post({ served: { url: this.#url, build } });
            this.#take(build);
        }
        return build;
    }

    /** Take what another tab found; that was this tab's look, too. */
    hear({ url, build }) {
        if (url === this.#url && this.#isLooking) {
            this.#later(this.#pause());
            this.#take(build);
        }
    }

    #take(build) {
        // What comes late was about another deployment.
        if (!this.#isLooking) {
            return;
        }
        // A file that was there doesn't vanish but for a moment, while the new version is rolled out.
        if (build || !this.hasCheck) {
            this.build = build;
            this.hasCheck = Boolean(build);
        }
        this.#callbacks.onChange();
    }

    #later(milliseconds) {
        clearTimeout(this.#timer);
        this.#timer = setTimeout(() => this.#turn(), milliseconds);
    }

    #turn() {
        if (Date.now() - this.#since < LONGEST) {
            const isFirst = this.#looks === 0;
            this.#later(this.#pause());
            if (isFirst || !document.hidden) {
                this.#lookAlone();
            }
        }
    }

    #pause() {
        return (LOOKS[this.#looks++] ?? THEN) * (0.5 + Math.random());
    }

    /** Look, unless another tab is at it; its answer comes by `hear`. */
    async #lookAlone() {
        try {
            await navigator.locks.request(this.#lock, { ifAvailable: true }, (lock) => lock && this.look());
        } catch {
            // There are no locks, or not here.
            this.look();
        }
    }

    async #fetch() {
        // The query is for the caches between, which `no-store` doesn't reach.
        const [status, build] = await fetchJSON(`${this.#url}?${Date.now()}`, "no-store");
        if (!status || status >= 500 || status === 429) {
            return undefined;
        }
        return status < 300 && build?.appName === this.#app && build.gitCommit ? build : null;
    }
}
