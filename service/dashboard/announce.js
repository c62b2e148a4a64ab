/** Tells of changes those who don't look: a screen reader's user, and who has the board in a tab behind another. */

import { element } from "./dom.js";
import { versionName } from "./words.js";

/** What comes within a second is told in one sentence. */
const GATHER = 1_000;
/** More than these are counted. */
const NAMED = 3;

export class Announcer {
    element = element("div", { class: "unseen", role: "status", "aria-live": "polite" });
    #title = document.title;
    #news = "";
    #gathered = [];
    #timer = null;

    constructor() {
        document.addEventListener("visibilitychange", () => {
            if (document.visibilityState === "visible") {
                this.#news = "";
            }
            this.#show();
        });
    }

    /** Give the page its title, which news come before. */
    setTitle(title) {
        this.#title = title;
        this.#show();
    }

    tell(channel) {
        const said = sentence(channel);
        this.#gathered.push(said);
        this.#timer ??= setTimeout(() => this.#say(), GATHER);
        if (document.visibilityState !== "visible") {
            this.#news = said;
            this.#show();
        }
    }

    /** Say something at once. */
    say(text) {
        this.element.replaceChildren(text);
    }

    #say() {
        const count = this.#gathered.length;
        this.say(count > NAMED ? `${count} deployments` : this.#gathered.join(". "));
        this.#gathered = [];
        this.#timer = null;
    }

    #show() {
        document.title = this.#news ? `${this.#news} · ${this.#title}` : this.#title;
    }
}

/** Say what happened, the version first: a tab shows no more than that. */
export function sentence({ name, deployments: [newest] }) {
    return `${versionName(newest)} ${newest.rollback ? "is back on" : "on"} ${name}`;
}
