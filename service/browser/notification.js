/** `<update-notification>`: tells a visitor that another version was deployed, and lets them have it. */

import { adopt } from "./look.js";
import { shareWatch } from "./shared.js";
import { ago, speak } from "./texts.js";

const ATTRIBUTES = "hub app environment base version commit build time tag caches lang".split(" ");
const TICK = 10_000;

/** Make the element known to the document, once, however many copies of this module it loads. */
export function define() {
    const elements = globalThis.customElements;
    if (elements && !elements.get("update-notification")) {
        elements.define("update-notification", UpdateNotificationElement);
    }
}

/** On a server there is nothing to extend, and importing this must do no harm. */
export class UpdateNotificationElement extends (globalThis.HTMLElement ?? Object) {
    static observedAttributes = ATTRIBUTES;

    /** The page's own words; perhaps given before this class was known. */
    texts = this.texts;

    #root = this.attachShadow({ mode: "open" });
    #parts = {};
    #watch;
    #leave = () => {};
    #key;
    #isBusy;
    #ticks;
    #cameFrom;

    constructor() {
        super();
        const make = (part, name, ...children) => {
            const element = document.createElement(name);
            element.part = part;
            element.append(...children);
            return (this.#parts[part] = element);
        };
        const status = make("status", "div");
        const card = make(
            "card",
            "section",
            make("header", "div", ...["title", "badge", "note"].map((part) => make(part, "span"))),
            make("details", "div", ...["build", "time", "commit"].map((part) => make(part, "span"))),
            make("buttons", "div", make("refresh", "button"), make("later", "button")),
            make("close", "button"),
        );
        adopt(this.#root);
        this.#root.append(status, card);
        status.setAttribute("role", "status");
        card.hidden = true;
        card.onclick = ({ target }) => this.#press(target);
        card.onkeydown = (event) => {
            if (event.key === "Escape") {
                // It is for the card, and not also for a dialog around it.
                event.stopPropagation();
                this.#press(this.#parts.later);
            }
        };
        card.addEventListener("focusin", ({ relatedTarget }) => {
            if (!card.contains(relatedTarget)) {
                this.#cameFrom = relatedTarget ?? this.#cameFrom;
            }
        });
        this.#setBusy(false);
    }

    connectedCallback() {
        // An element that is moved leaves and comes back at once, and attributes change together: look after that.
        queueMicrotask(() => this.#follow());
    }

    disconnectedCallback() {
        this.connectedCallback();
    }

    attributeChangedCallback() {
        this.connectedCallback();
    }

    #follow() {
        const options = this.isConnected && this.#read();
        const key = JSON.stringify(options);
        if (key !== this.#key) {
            this.#key = key;
            this.#leave();
            if (options) {
                this.#join(options);
            }
        }
        this.#render();
    }

    #join(options) {
        try {
            const [watch, release] = shareWatch(options);
            const unsubscribe = watch.subscribe(() => this.#render());
            this.#watch = watch;
            this.#leave = () => {
                unsubscribe();
                release();
                this.#watch = null;
            };
        } catch (error) {
            console.error(error.message);
        }
    }

    #read() {
        const [hub, app, environment, base, version, gitCommit, build, time, gitTag, caches] = ATTRIBUTES.map(
            (name) => this.getAttribute(name) ?? undefined,
        );
        const buildNumber = Number(build) || 0;
        const buildTime = Number(time) || Date.parse(time) || 0;
        // A version alone is nothing that two builds could be told apart by.
        const current = gitCommit || gitTag ? { version, gitCommit, buildNumber, buildTime, gitTag } : undefined;
        return { hub, app, environment, base, current, caches: caches?.split(/\s+/).filter(Boolean) };
    }

    #render() {
        const { hasUpdate, updateInfo, isRollingOut } = this.#watch?.snapshot ?? {};
        const { card } = this.#parts;
        const isNew = hasUpdate && card.hidden;
        if (hasUpdate) {
            this.#fill(updateInfo, isRollingOut);
        }
        if (isNew) {
            this.#show();
        } else if (!hasUpdate && !card.hidden) {
            this.#hide();
        }
    }

    #fill({ version, gitTag, gitCommit, buildNumber, deployedAt, rollback }, isRollingOut) {
        const nearest = this.closest("[lang]") ?? document.documentElement;
        const [lang, words] = speak([`${nearest.lang}`, ...navigator.languages]);
        const texts = { build: "Build #{}", ...words, ...this.texts };
        const time = ago(this.#watch.now() - deployedAt, lang);
        const { card, status, close } = this.#parts;
        const title = rollback ? texts.rollback : texts.title;
        this.#write("title", title);
        this.#write("badge", gitTag || `v${version}`);
        this.#write("build", buildNumber && texts.build.replace("{}", buildNumber));
        this.#write("time", time && texts.time.replace("{}", time));
        this.#write("commit", gitCommit !== "unknown" && gitCommit.replace(/^([0-9a-f]{7})[0-9a-f]+$/i, "$1"));
        this.#write("note", isRollingOut && texts.note);
        this.#write("refresh", texts.refresh);
        this.#write("later", texts.later);
        close.setAttribute("aria-label", texts.close);
        card.setAttribute("aria-label", title);
        card.lang = status.lang = lang;
    }

    /** What is read aloud, or selected, isn't disturbed by the same text again. */
    #write(part, text) {
        const element = this.#parts[part];
        element.hidden = !text;
        if (element.textContent !== text) {
            element.textContent = text || "";
        }
    }

    #show() {
        const { card, status, title, badge } = this.#parts;
        // A deployment after this one changes the card in silence: it is the same piece of news.
        status.textContent = `${title.textContent} ${badge.textContent}`;
        // Where the page has no scheme, the visitor's is right.
        const hasScheme = document.querySelector("meta[name=color-scheme]");
        card.classList.toggle("auto", !hasScheme && getComputedStyle(this).colorScheme === "normal");
        card.hidden = false;
        this.#ticks = setInterval(() => this.#render(), TICK);
    }

    #hide() {
        const { card, status } = this.#parts;
        const hadFocus = this.#root.activeElement;
        clearInterval(this.#ticks);
        card.hidden = true;
        status.textContent = "";
        if (hadFocus) {
            this.#cameFrom?.focus({ preventScroll: true });
        }
    }

    async #press({ part }) {
        if (this.#isBusy) {
            return;
        }
        if (part.contains("refresh")) {
            this.#setBusy(true);
            const isReloading = await this.#watch.refreshApp();
            // The visitor may still prevent it ("Leave site?").
            setTimeout(() => this.#setBusy(false), isReloading ? TICK : 0);
        } else if (part.contains("later") || part.contains("close")) {
            this.#watch.dismissUpdate();
        }
    }

    /** A button that is really disabled would lose the focus. */
    #setBusy(isBusy) {
        this.#isBusy = isBusy;
        this.#parts.card.setAttribute("aria-busy", isBusy);
        for (const button of this.#root.querySelectorAll("button")) {
            button.type = "button";
            button.setAttribute("aria-disabled", isBusy);
        }
    }
}
