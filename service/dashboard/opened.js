/** A channel opened up: what is live, how the browsers followed, and what came before it. */

import { ask } from "./ask.js";
import { codeBlock, commands } from "./commands.js";
import { Curve } from "./curve.js";
import { element, write } from "./dom.js";
import { Timeline } from "./timeline.js";
import { ago, count, exactTime, machineTime, percent, shortCommit, time, versionName } from "./words.js";

/** When the hub has counted a new deployment's first browsers. */
const COUNTED = 3_000;
const RETRY = 5_000;
/** A board that is left open for weeks asks the hub for fewer, which thins them out. */
const MANY_SAMPLES = 800;

export class Opened {
    element;
    name;
    #hub;
    #onHistory;
    #adoption = null;
    #newest = null;
    #shown;
    #timer = null;
    #isLoading = false;
    #isClosed = false;
    #timeline = new Timeline();
    #curve = new Curve();
    #heading = element("h1", { id: "opened-title", tabindex: "-1" });
    #version = element("span", { class: "version" });
    #mark = element("span", { class: "mark" }, "Rolled back");
    #build = element("p", { class: "build" });
    #age = element("time");
    #share = element("strong", { class: "share" });
    #sentence = element("p", { class: "sentence" });
    #others = element("p", { class: "others" });
    #known;
    #unknown;

    /**
     * @param {string} hub its address, with a slash at the end
     * @param {string} name such as "web/production"
     * @param {object} options onHistory(deployments), with what the hub keeps of it; token, for commands
     */
    constructor(hub, name, { onHistory, token }) {
        this.#hub = hub;
        this.name = name;
        this.#onHistory = onHistory;
        const [app, environment] = name.split("/");
        this.#heading.append(
            element("span", { class: "where" }, `${app} / ${environment}`),
            " ",
            this.#version,
            " ",
            this.#mark,
        );
        this.#known = element(
            "div",
            { class: "columns" },
            element(
                "section",
                { class: "adoption", "aria-labelledby": "adoption-title" },
                element("h2", { id: "adoption-title" }, "Who runs it"),
                this.#sentence,
                this.#curve.element,
            ),
            element(
                "section",
                { class: "history", "aria-labelledby": "history-title" },
                element("h2", { id: "history-title" }, "What came when"),
                this.#timeline.element,
                this.#others,
            ),
        );
        const { record } = commands(hub, token, app, environment);
        this.#unknown = element(
            "div",
            { class: "start" },
            element("p", { class: "lead" }, "Nothing has been recorded here, or nothing is left. This page waits."),
            codeBlock("Record a deployment", record),
        );
        this.element = element(
            "article",
            { class: "opened", "aria-labelledby": "opened-title" },
            element("p", { class: "crumbs" }, element("a", { href: "#/" }, "← All applications")),
            this.#heading,
            this.#build,
            this.#known,
            this.#unknown,
        );
        this.update(undefined, 0);
        this.load();
    }

    /** Show what is known of the channel, perhaps nothing. */
    update(channel, now) {
        const newest = channel?.deployments[0] ?? null;
        this.#known.hidden = this.#build.hidden = !newest;
        this.#unknown.hidden = Boolean(newest) || this.#isLoading;
        this.#mark.hidden = !newest?.rollback;
        write(this.#version, newest ? versionName(newest) : "");
        if (!newest) {
            return;
        }
        if (newest.deployedAt !== this.#newest?.deployedAt) {
            this.#show(newest);
        }
        this.#take(channel.adoption);
        const current = this.#adoption?.since === newest.deployedAt ? this.#adoption : null;
        if (current !== this.#shown) {
            this.#shown = current;
            this.#count(current, now);
        }
        this.#timeline.update(channel.deployments, this.#adoption, now);
        this.tick(now);
    }

    tick(now) {
        if (this.#newest) {
            write(this.#age, ago(now - this.#newest.deployedAt));
            this.#timeline.tick(now);
            this.#curve.tick(now);
        }
    }

    focus() {
        this.#heading.focus({ preventScroll: true });
    }

    close() {
        this.#isClosed = true;
        clearTimeout(this.#timer);
    }

    /** Ask for the history and the curve; again later where the hub can't be had. */
    async load() {
        clearTimeout(this.#timer);
        this.#timer = null;
        this.#isLoading = true;
        const channel = `${this.#hub}deployments/${this.name}`;
        const [list, adoption] = await Promise.all([ask(channel), ask(`${channel}/adoption`)]);
        this.#isLoading = false;
        if (this.#isClosed) {
            return;
        }
        if (adoption?.since) {
            this.#adoption = adoption;
            this.#followUp();
        }
        this.#onHistory(list?.deployments ?? []);
        if (!list) {
            this.#later(RETRY);
        }
    }

    #later(milliseconds) {
        this.#timer ??= setTimeout(() => this.load(), milliseconds);
    }

    #show(newest) {
        const isAnother = this.#newest !== null;
        this.#newest = newest;
        this.#age.dateTime = machineTime(newest.deployedAt);
        this.#age.title = exactTime(newest.deployedAt);
        const number = newest.buildNumber ? [` · build #${newest.buildNumber}`] : [];
        const built = newest.buildTime ? [` · built ${exactTime(newest.buildTime)}`] : [];
        const commit = element("code", { title: newest.gitCommit }, shortCommit(newest.gitCommit));
        this.#build.replaceChildren(commit, ...number, ...built, " · deployed ", this.#age);
        if (isAnother) {
            this.#later(COUNTED);
        }
    }

    /** Add what the stream counted to what is known: it is the curve's next piece. */
    #take(counted) {
        const known = this.#adoption;
        if (!counted || !known || !(counted.asOf > known.asOf || counted.stale !== known.stale)) {
            return;
        }
        if (counted.since !== known.since) {
            this.#later(COUNTED);
            return;
        }
        const { asOf: at, newest, streams, unknown } = counted;
        const sample = { at, newest, streams, unknown };
        const streamsOf = new Map(counted.deployments.map((one) => [one.deployedAt, one.streams]));
        const deployments = known.deployments.map((one) => ({ ...one, streams: streamsOf.get(one.deployedAt) ?? 0 }));
        this.#adoption = { ...known, ...counted, deployments, samples: [...known.samples, sample] };
        this.#followUp();
    }

    /** Ask again where a share has been reached and the hub hasn't said yet when. */
    #followUp() {
        const { share, stale, deployments } = this.#adoption;
        const { reached } = deployments[0];
        if (this.#adoption.samples.length > MANY_SAMPLES) {
            this.#later(COUNTED);
        }
        if (!stale && Object.entries(reached).some(([level, after]) => after === null && share >= level / 100)) {
            this.#later(COUNTED);
        }
    }

    #count(adoption, now) {
        this.#curve.element.hidden = !adoption?.asOf;
        if (!adoption) {
            this.#sentence.replaceChildren("Counting the open browsers …");
            write(this.#others, "");
            return;
        }
        const { share, streams, newest, other, unknown, stale, asOf } = adoption;
        const old = stale ? [` It was so at ${time(asOf, now)}; Redis is away since.`] : [];
        const known = streams - unknown;
        if (streams === 0) {
            this.#sentence.replaceChildren("No browser has it open.", ...old);
        } else if (share === null) {
            this.#sentence.replaceChildren(`${count(streams, "browser")} open; none says what it runs.`, ...old);
        } else {
            write(this.#share, percent(share));
            const rest = ` ${newest} of ${count(known, "open browser")} run it.`;
            this.#sentence.replaceChildren(this.#share, rest, ...old);
        }
        this.#sentence.classList.toggle("old", stale);
        const parts = [
            other ? `${count(other, "browser")} on a build that isn’t among these` : "",
            unknown ? `${count(unknown, "browser")} that ${unknown === 1 ? "doesn’t" : "don’t"} say` : "",
        ].filter(Boolean);
        write(this.#others, parts.length ? `And ${parts.join("; ")}.` : "");
        if (adoption.asOf) {
            this.#curve.update(versionName(this.#newest), adoption, now);
        }
    }
}
