/** A channel on the board: what is live there, since when, and how many open browsers run it. */

import { arrange, element, write } from "./dom.js";
import { ago, count, exactTime, machineTime, percent, shortCommit, time, versionName } from "./words.js";

/** How long a change stays highlighted; as long as the animation in board.css. */
const HIGHLIGHT = 4_000;
const LONG = 11;

export class Card {
    element;
    #where = element("span", { class: "where" });
    #version = element("strong", { class: "version" });
    #mark = element("span", { class: "mark" }, "Rolled back");
    #commit = element("code");
    #build = element("span");
    #age = element("time", { class: "age" });
    #fill = element("span", { class: "fill" });
    #share = element("span", { class: "number" });
    #run = element("span", { class: "word" }, " run it");
    #browsers = element("span", { class: "number" });
    #noun = element("span", { class: "word" });
    #tabs;
    #deployment = null;
    #highlight;

    /** @param {import("./model.js").Channel} channel */
    constructor(channel) {
        this.#tabs = element(
            "span",
            { class: "tabs" },
            element("span", { class: "bar", "aria-hidden": "true" }, this.#fill),
            element("span", { class: "share" }, this.#share, this.#run),
            " ",
            element("span", { class: "browsers" }, this.#browsers, this.#noun),
        );
        const environment = element("span", { class: "environment" }, channel.environment);
        this.#where.append(element("span", { class: "app" }, `${channel.app} / `), environment);
        this.element = element(
            "a",
            { class: "card", href: `#/${channel.name}` },
            this.#where,
            " ",
            element("span", { class: "what" }, this.#version, " ", this.#mark),
            " ",
            element("span", { class: "build" }, this.#commit, " ", this.#build),
            " ",
            this.#age,
            " ",
            this.#tabs,
        );
    }

    /** Show what is known of the channel. */
    update({ deployments: [newest], adoption }, now) {
        if (newest && newest !== this.#deployment) {
            this.#deployment = newest;
            this.#show(newest);
        }
        this.#count(adoption?.since === newest?.deployedAt ? adoption : null, adoption, now);
        this.tick(now);
    }

    /** Say again how long ago that was. */
    tick(now) {
        write(this.#age, ago(now - this.#deployment.deployedAt));
    }

    /** Let people see that this has just changed. */
    highlight() {
        clearTimeout(this.#highlight);
        this.element.classList.remove("changed");
        // In another frame, or an animation that runs would not begin anew.
        requestAnimationFrame(() => this.element.classList.add("changed"));
        this.#highlight = setTimeout(() => this.element.classList.remove("changed"), HIGHLIGHT);
    }

    #show(newest) {
        const name = versionName(newest);
        write(this.#version, name);
        this.#version.classList.toggle("long", name.length > LONG);
        this.#mark.hidden = !newest.rollback;
        write(this.#commit, shortCommit(newest.gitCommit));
        write(this.#build, newest.buildNumber ? `#${newest.buildNumber}` : "");
        this.#age.dateTime = machineTime(newest.deployedAt);
        this.#age.title = exactTime(newest.deployedAt);
    }

    /** The last count may be of the deployment before: then only how many browsers there are is known. */
    #count(current, last, now) {
        this.#tabs.hidden = !last;
        if (!last) {
            return;
        }
        const share = current?.share;
        this.#fill.style.setProperty("--share", share ?? 0);
        this.#tabs.classList.toggle("all", share === 1);
        this.#tabs.classList.toggle("old", last.stale);
        const { streams, stale, asOf } = last;
        write(this.#share, shareText(current, streams));
        this.#run.hidden = share === undefined || share === null;
        const [number, noun] = count(streams, "browser").split(" ");
        write(this.#browsers, number);
        // No template within a template: what leaves white space out for the browser takes the inner one for code.
        const when = stale ? ` at ${time(asOf, now)}` : "";
        write(this.#noun, ` ${noun}${when}`);
    }
}

/** Fill cells with the cards that they have, and say so where there is none. */
export function fillCell(cell, cards) {
    const nothing = () => element("span", { class: "unseen" }, "Nothing deployed");
    arrange(cell, cards.length ? cards.map((card) => card.element) : [cell.querySelector(".unseen") ?? nothing()]);
}

function shareText(current, streams) {
    if (streams === 0) {
        return "";
    }
    if (!current) {
        return "counting";
    }
    return current.share === null ? "unknown" : percent(current.share);
}
