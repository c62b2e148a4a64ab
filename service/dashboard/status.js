/** How far what the board shows can be trusted: the state of its stream, and of the hub's Redis. */

import { element, write } from "./dom.js";
import { time } from "./words.js";

/**
 * Say it in a word and, where there is more to say, in a sentence.
 * @param {object} state `connection`, as the source has it; `health`, what /readyz says, or null; `heardAt`, when the
 *     hub was heard last, or 0
 * @param {number} now
 * @returns {{ level: "good" | "wait" | "bad", label: string, detail: string, isOld: boolean }}
 */
export function describe({ connection, health, heardAt }, now) {
    const from = heardAt ? `What you see is from ${time(heardAt, now)}.` : "";
    if (connection === "offline") {
        return { level: "bad", label: "Offline", detail: from, isOld: true };
    }
    if (connection === "connecting") {
        return { level: "wait", label: heardAt ? "Reconnecting" : "Connecting", detail: from, isOld: heardAt > 0 };
    }
    if (health?.relay.state === "down") {
        const since = time(health.relay.since, now);
        return { level: "bad", label: "Redis is away", detail: `What you see is from ${since}.`, isOld: true };
    }
    if (connection === "polling") {
        return { level: "wait", label: "Polling", detail: `No stream gets through. ${from}`.trim(), isOld: false };
    }
    if (health?.relay.state === "polling") {
        return { level: "wait", label: "Live, late", detail: "News takes some seconds.", isOld: false };
    }
    return { level: "good", label: "Live", detail: "", isOld: false };
}

export class Status {
    element;
    #label = element("strong");
    #detail = element("span");

    constructor() {
        this.element = element("p", { class: "status", role: "status" }, this.#label, " ", this.#detail);
    }

    update(state, now) {
        const { level, label, detail, isOld } = describe(state, now);
        this.element.dataset.level = level;
        write(this.#label, label);
        write(this.#detail, detail);
        document.documentElement.classList.toggle("old", isOld);
    }
}
