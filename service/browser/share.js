/** One connection per browser: of the tabs of an origin one leads, and tells the others what it hears. */

const BEAT = 5_000;
const PATIENCE = 40_000;

export class Share {
    /** Whether this tab speaks for all: it has the lock, or needs none. */
    leads = false;
    #callbacks;
    #channel;
    #request = new AbortController();
    #resign = () => {};
    #isAlone = false;
    /** Who joins hears from a lead at once, or has none that could speak. */
    #patience = Date.now() + BEAT;
    #beats;

    /**
     * @param {string} name the same for all tabs that can share
     * @param {object} callbacks onLead() and onFollow(), when this tab's part changes (it starts as a follower);
     *     onMessage(message), for what another tab posted
     */
    constructor(name, callbacks) {
        this.#callbacks = callbacks;
        if (!globalThis.BroadcastChannel || !navigator.locks) {
            this.#lead();
            return;
        }
        this.#channel = new BroadcastChannel(name);
        this.#channel.onmessage = ({ data }) => this.#hear(data);
        navigator.locks
            .request(name, { signal: this.#request.signal }, () => this.#leadUntilClosed())
            // A document that may not use locks leads itself; an aborted request is a closed share.
            .catch(() => this.#channel && this.#lead());
        this.#beats = setInterval(() => this.#beat(), BEAT);
        this.post({ hello: true });
    }

    /** Tell all other tabs. */
    post(message) {
        this.#channel?.postMessage({ ...message, lead: this.leads });
    }

    close() {
        clearInterval(this.#beats);
        this.#channel?.close();
        this.#channel = null;
        this.#request.abort();
        this.#resign();
    }

    #leadUntilClosed() {
        if (this.#channel) {
            this.#lead();
            return new Promise((resolve) => (this.#resign = resolve));
        }
    }

    #lead() {
        const isConnected = this.#isAlone;
        this.leads = true;
        this.#isAlone = false;
        if (!isConnected) {
            this.#callbacks.onLead();
        }
        this.post();
    }

    /** The lead is heard even while its hub isn't; a follower that hears nothing connects by itself (a frozen lead). */
    #beat() {
        if (this.leads) {
            this.post();
        } else if (!this.#isAlone && Date.now() > this.#patience) {
            this.#isAlone = true;
            this.#callbacks.onLead();
        }
    }

    #hear(message) {
        if (message.lead) {
            this.#patience = Date.now() + PATIENCE;
            if (this.#isAlone) {
                this.#isAlone = false;
                this.#callbacks.onFollow();
            }
        }
        this.#callbacks.onMessage(message);
    }
}
