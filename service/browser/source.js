/**
 * One channel's deployments from the hub, or those of all channels: over an EventSource that is opened anew where the
 * browser gives up or hears nothing, and by polling where streams can't get through.
 */

import { fetchJSON } from "./request.js";

const SILENCE = 40_000;
/** Longer than the longest `retry:` of a full hub, which the browser waits out by itself. */
const SILENCE_WHILE_CONNECTING = 90_000;
/** More than the 15 s between two pings: who comes back to the page shouldn't wait out the whole silence. */
const SILENCE_ON_WAKING = 20_000;
/** The hub's first event comes at once, so that one that doesn't is held back on the way. */
const HELD_BACK = 15_000;
const POLLING = 60_000;
const LONGEST_BACKOFF = 60_000;
const LONGEST_BACKOFF_WHILE_POLLING = 300_000;

/** How long to wait before an attempt: a random part of a time that doubles (full jitter), in milliseconds. */
export function backoff(attempt, longest = LONGEST_BACKOFF) {
    return Math.random() * Math.min(longest, 1_000 * 2 ** attempt);
}

export class Source {
    #stream;
    #latest;
    #callbacks;
    #events = null;
    #attempt = 0;
    #hasHeard = false;
    #isPolling = false;
    #since = 0;
    #retry;
    #poll;
    #running;
    #checks = setInterval(() => {
        this.#check(SILENCE);
        this.#report();
    }, 5_000);
    #closing = new AbortController();

    /**
     * @param {string} hub its address, with a slash at the end
     * @param {string} channel such as "/web/production"; "" for all
     * @param {object} callbacks onMessage(message), with `deployment`, the hub's `now` or the connection's `state`;
     *     onProblem(text), newestId(), isVisible(), running(), which gives what the hub is told that runs here;
     *     onStream(events), if there, takes each EventSource, to listen to more of it. For all channels the
     *     `deployment` that polling brings is a list of them: `{ deployments }`
     */
    constructor(hub, channel, callbacks) {
        this.#stream = `${hub}events${channel}`;
        this.#latest = `${hub}deployments${channel && `${channel}/latest`}`;
        this.#callbacks = callbacks;
        this.#running = callbacks.running();
        const { signal } = this.#closing;
        const online = () => {
            this.#shut();
            this.wake();
        };
        const offline = () => {
            this.#shut();
            this.#tell({ state: "offline" });
        };
        addEventListener("online", online, { signal });
        addEventListener("offline", offline, { signal });
        this.#open();
    }

    /** Look after the line at once: the page can be seen again, and who knows how long it slept. */
    wake() {
        if (this.#isPolling) {
            this.#ask();
        }
        if (this.#events) {
            this.#check(SILENCE_ON_WAKING);
        } else if (navigator.onLine) {
            this.#open();
        }
    }

    close() {
        this.#shut();
        clearTimeout(this.#poll);
        clearInterval(this.#checks);
        this.#closing.abort();
        this.#callbacks = null;
    }

    #tell(message) {
        this.#callbacks?.onMessage(message);
    }

    /** Tell the hub what runs here when that has changed, over another stream; but first it has to be heard. */
    #report() {
        const running = this.#callbacks.running();
        if (running !== this.#running && this.#hasHeard && this.#events?.readyState === EventSource.OPEN) {
            this.#running = running;
            this.#open();
        }
    }

    #open() {
        // In place of a stream that is well it opens without a word.
        if (!this.#events) {
            this.#connect();
        }
        this.#shut();
        const id = this.#callbacks.newestId();
        const events = new EventSource(
            `${this.#stream}?running=${encodeURIComponent(this.#running)}${id ? `&lastEventId=${id}` : ""}`,
        );
        this.#events = events;
        this.#hasHeard = false;
        this.#since = Date.now();
        events.onopen = () => this.#wait();
        // [spec] An EventSource tries again by itself after a lost line, and never after an answer that isn't a stream.
        events.onerror = () => {
            this.#wait();
            if (events.readyState === EventSource.CLOSED) {
                this.#giveUp();
            }
            this.#connect();
        };
        events.addEventListener("deployment", ({ data }) => {
            this.#tell({ deployment: JSON.parse(data) });
            this.#hear();
        });
        events.addEventListener("ping", ({ data }) => {
            // A stream that starts with a ping has nothing for those who have nothing: is the channel's name right?
            if (!this.#hasHeard && !id) {
                this.#ask();
            }
            this.#tell({ now: JSON.parse(data).now });
            this.#hear();
        });
        this.#callbacks.onStream?.(events);
    }

    #shut() {
        clearTimeout(this.#retry);
        this.#events?.close();
        this.#events = null;
    }

    #connect() {
        if (!this.#isPolling) {
            this.#tell({ state: "connecting" });
        }
    }

    /** What the line does by itself is no silence, unless it never brought anything. */
    #wait() {
        if (this.#hasHeard) {
            this.#since = Date.now();
        }
    }

    #hear() {
        this.#since = Date.now();
        this.#hasHeard = true;
        this.#attempt = 0;
        this.#isPolling = false;
        clearTimeout(this.#poll);
        this.#tell({ state: "live" });
    }

    #check(silence) {
        const isOpen = this.#events?.readyState === EventSource.OPEN;
        const patience = !this.#hasHeard ? HELD_BACK : isOpen ? silence : SILENCE_WHILE_CONNECTING;
        if (this.#events && Date.now() - this.#since > patience) {
            this.#giveUp();
        }
    }

    /** Try another stream later, and see whether the hub can be had without one. */
    #giveUp() {
        this.#shut();
        if (!this.#hasHeard && !this.#isPolling) {
            this.#ask();
        }
        const longest = this.#isPolling ? LONGEST_BACKOFF_WHILE_POLLING : LONGEST_BACKOFF;
        this.#retry = setTimeout(() => this.#open(), backoff(this.#attempt++, longest));
    }

    #pollLater() {
        clearTimeout(this.#poll);
        this.#poll = setTimeout(
            () => (this.#callbacks.isVisible() ? this.#ask() : this.#pollLater()),
            POLLING * (0.75 + Math.random() / 2),
        );
    }

    /** Ask for the newest deployment; where no stream brings it, that is polling. */
    async #ask() {
        // The browser's own cache sends the ETag: a header set here would cost a preflight each time.
        const [status, body] = await fetchJSON(this.#latest, "no-cache");
        if (!this.#callbacks) {
            return;
        }
        const isHub = status === 200 ? (body?.deployedAt ?? body?.deployments) : status === 404 && body?.detail;
        if (!isHub && status < 500) {
            this.#callbacks.onProblem(`${this.#latest} answers unlike a hub (${status})`);
        } else if (status === 404) {
            this.#callbacks.onProblem(`${body.detail}; is its name right?`);
        }
        if (this.#hasHeard || !(isHub || this.#isPolling)) {
            return;
        }
        this.#pollLater();
        if (isHub) {
            this.#isPolling = true;
            this.#tell({ state: "polling" });
            if (status === 200) {
                this.#tell({ deployment: body });
            }
        }
    }
}
