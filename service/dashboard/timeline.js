/** A channel's deployments on a time line: what each brought, how long it was live, and how fast the tabs followed. */

import { entry } from "./curve.js";
import { arrange, element, write } from "./dom.js";
import { ago, count, duration, exactTime, machineTime, shortCommit, time, versionName } from "./words.js";

const SHARES = [50, 90, 99];

export class Timeline {
    element = element("ol", { class: "timeline" });
    #items = new Map();

    /** Show deployments, the newest first; `adoption` is of the channel, or null. */
    update(deployments, adoption, now) {
        const known = new Map(adoption?.deployments.map((one) => [one.deployedAt, one]));
        for (const id of this.#items.keys()) {
            if (!deployments.some(({ deployedAt }) => deployedAt === id)) {
                this.#items.delete(id);
            }
        }
        const items = deployments.map((deployment, at) => {
            const item = this.#items.get(deployment.deployedAt) ?? new Item(deployment);
            this.#items.set(deployment.deployedAt, item);
            item.update(deployments[at + 1], deployments[at - 1], known.get(deployment.deployedAt), adoption, now);
            return item;
        });
        arrange(
            this.element,
            items.map((item) => item.element),
        );
    }

    tick(now) {
        for (const item of this.#items.values()) {
            item.tick(now);
        }
    }
}

class Item {
    element = element("li");
    #deployment;
    #replaced;
    #from = element("span", { class: "from" });
    #live = element("span", { class: "live" });
    #when = element("time");
    #levels = element("ul", { class: "levels" });
    #key = "";
    #fill = element("span", { class: "fill" });
    #bar = element("span", { class: "bar", "aria-hidden": "true" }, this.#fill);
    #browsers = element("span", { class: "browsers" });
    #running = element("p", { class: "running" }, this.#bar, this.#browsers);

    constructor(deployment) {
        this.#deployment = deployment;
        const { gitCommit, buildNumber, rollback, deployedAt } = deployment;
        this.#when.dateTime = machineTime(deployedAt);
        this.#when.title = exactTime(deployedAt);
        this.element.append(
            element(
                "p",
                { class: "step" },
                this.#from,
                element("strong", { class: "version" }, versionName(deployment)),
                ...(rollback ? [" ", element("span", { class: "mark" }, "Rolled back")] : []),
            ),
            element(
                "p",
                { class: "build" },
                element("code", {}, shortCommit(gitCommit)),
                buildNumber ? ` #${buildNumber}` : "",
            ),
            element("p", { class: "times" }, this.#when, " · ", this.#live),
            this.#levels,
            this.#running,
        );
    }

    update(before, after, own, adoption, now) {
        const { previous } = this.#deployment;
        this.#replaced = after?.deployedAt;
        write(this.#from, before ? `${versionName(before)} → ` : previous === null ? "First: " : "… → ");
        this.element.classList.toggle("newest", !after);
        // Those of the newest stand below its curve.
        this.#follow(after ? own?.reached : null);
        this.#running.hidden = !own || (own.streams === 0 && Boolean(after));
        if (own) {
            const still = after ? " still on it" : "";
            write(this.#browsers, `${count(own.streams, "browser")}${still}`);
            const known = adoption.streams - adoption.unknown;
            this.#fill.style.setProperty("--share", known ? own.streams / known : 0);
        }
        // The longer it was live, the longer its piece of the line, as far as that can be looked at.
        const hours = ((this.#replaced ?? now) - this.#deployment.deployedAt) / 3_600_000;
        this.element.style.setProperty("--length", Math.min(1, Math.log1p(hours) / Math.log1p(24 * 30)).toFixed(2));
        this.tick(now);
    }

    tick(now) {
        const { deployedAt } = this.#deployment;
        write(this.#when, this.#replaced ? time(deployedAt, now) : ago(now - deployedAt));
        const long = duration((this.#replaced ?? Math.max(now, deployedAt)) - deployedAt);
        write(this.#live, this.#replaced ? `live for ${long}` : `since ${time(deployedAt, now)}`);
    }

    #follow(reached) {
        const known = SHARES.filter((share) => typeof reached?.[share] === "number");
        this.#levels.hidden = known.length === 0;
        const key = known.map((share) => reached[share]).join(" ");
        if (key !== this.#key) {
            this.#key = key;
            this.#levels.replaceChildren(...known.map((share) => entry(share, reached[share])));
        }
    }
}
