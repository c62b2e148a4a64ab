/** How the hub itself is: asked now and then, because its streams go on from memory when its Redis is away. */

import { ask } from "./ask.js";

const INTERVAL = 10_000;
/** Ten seconds would be long for who has just typed the first command. */
const INTERVAL_AT_FIRST = 2_000;

export class Health {
    #url;
    #callbacks;
    #timer;
    #isClosed = false;

    /**
     * @param {string} hub its address, with a slash at the end
     * @param {object} callbacks onHealth(health), with what /readyz says; isEager(), whether somebody waits for it;
     *     isVisible()
     */
    constructor(hub, callbacks) {
        this.#url = `${hub}readyz`;
        this.#callbacks = callbacks;
        this.ask();
    }

    /** Ask now. */
    async ask() {
        clearTimeout(this.#timer);
        if (this.#callbacks.isVisible()) {
            // Where no answer comes, the stream's own state tells that the hub can't be reached.
            const health = await ask(this.#url);
            if (!this.#isClosed && health?.relay) {
                this.#callbacks.onHealth(health);
            }
        }
        clearTimeout(this.#timer);
        if (!this.#isClosed) {
            this.#timer = setTimeout(() => this.ask(), this.#callbacks.isEager() ? INTERVAL_AT_FIRST : INTERVAL);
        }
    }

    close() {
        this.#isClosed = true;
        clearTimeout(this.#timer);
    }
}
