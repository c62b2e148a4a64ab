/** The adoption curve: how the share of the browsers that run the newest deployment grew since it was recorded. */

import { element, shape } from "./dom.js";
import { count, duration, percent } from "./words.js";

/** In pixels, where a letter has 16; on a wall, where letters are larger, so is all of this. */
const HEIGHT = 240;
const INSET = { top: 12, right: 14, bottom: 30, left: 46 };
const LETTER = 16;
const LEVELS = [0, 0.5, 0.9, 1];
/** Times that a scale may name, in seconds. */
const TIMES = [
    1, 5, 15, 30, 60, 120, 300, 900, 1800, 3600, 10_800, 21_600, 43_200, 86_400, 259_200, 604_800, 2_592_000,
];
/** The beginning is stretched: the first thirtieth of the time takes a fifth of the width. */
const STRETCH = 30;
const ROWS = 12;
/** Marks of a shape each, so that nobody needs colours to tell them apart. */
const MARKS = { 50: "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z", 90: "M-5-5h10v10h-10z", 99: "M0-7l7 7-7 7-7-7z" };

/**
 * Give the points of the step curve: the time since the deployment, and the share. A sample holds until the next, and
 * the last count until now, unless it is a stale one.
 * @param {object} adoption with its `samples`
 * @param {number} now
 * @returns {{ at: number, share: number | null, newest: number, streams: number }[]}
 */
export function points({ since, asOf, stale, samples = [], newest, streams, unknown }, now) {
    const last = asOf ? [{ at: stale ? asOf : Math.max(asOf, now), newest, streams, unknown }] : [];
    return [...samples, ...last]
        .filter(({ at }) => at >= since)
        .sort((a, b) => a.at - b.at)
        .map((sample) => ({
            at: sample.at - since,
            share: sample.streams > sample.unknown ? sample.newest / (sample.streams - sample.unknown) : null,
            newest: sample.newest,
            streams: sample.streams,
        }));
}

/** Choose few rows of many for a table: the first, the last, and those where the share changed the most. */
export function rows(all, limit = ROWS) {
    if (all.length <= limit) {
        return all;
    }
    const kept = new Set([0, all.length - 1]);
    for (let step = 1; step < limit - 1; step += 1) {
        const level = (all[0].share ?? 0) + (((all.at(-1).share ?? 0) - (all[0].share ?? 0)) * step) / (limit - 1);
        kept.add(all.findIndex(({ share }) => share !== null && share >= level));
    }
    return [...kept]
        .filter((at) => at >= 0)
        .sort((a, b) => a - b)
        .map((at) => all[at]);
}

export class Curve {
    element;
    #figure = element("div", { class: "drawing" });
    #legend = element("ul", { class: "levels" });
    #rows = element("tbody");
    #state = null;
    #width = 0;
    #drawn = 0;

    constructor() {
        const head = ["After", "Run it", "Browsers"].map((title) => element("th", { scope: "col" }, title));
        const table = element(
            "table",
            {},
            element("caption", { class: "unseen" }, "The share of the browsers that run the newest deployment"),
            element("thead", {}, element("tr", {}, ...head)),
            this.#rows,
        );
        this.element = element(
            "figure",
            { class: "curve" },
            this.#figure,
            this.#legend,
            element("details", {}, element("summary", {}, "As a table"), table),
        );
        new ResizeObserver(([{ contentRect }]) => {
            if (Math.round(contentRect.width) !== this.#width) {
                this.#width = Math.round(contentRect.width);
                this.#draw();
            }
        }).observe(this.#figure);
    }

    /** Draw what is known; `name` is what the newest deployment is called. */
    update(name, adoption, now) {
        if (adoption !== this.#state?.adoption || name !== this.#state.name) {
            this.#show(name, adoption, now);
        }
    }

    /** Let the curve go on, when that can be seen. */
    tick(now) {
        const { name, adoption } = this.#state ?? {};
        if (adoption && !adoption.stale && now - adoption.since > this.#drawn * 1.02 + 1000) {
            this.#show(name, adoption, now);
        }
    }

    #show(name, adoption, now) {
        const { reached } = adoption.deployments[0];
        this.#state = { name, adoption, reached: reached ?? {}, all: points(adoption, now) };
        this.#drawn = now - adoption.since;
        this.#draw();
        this.#legend.replaceChildren(...Object.entries(this.#state.reached).map(([level, at]) => entry(level, at)));
        this.#rows.replaceChildren(
            ...rows(this.#state.all).map(({ at, share, newest, streams }) =>
                element(
                    "tr",
                    {},
                    element("th", { scope: "row" }, duration(at)),
                    element("td", {}, share === null ? "nobody says" : percent(share)),
                    element("td", {}, `${newest} of ${count(streams, "browser")}`),
                ),
            ),
        );
    }

    #draw() {
        if (this.#state && this.#width) {
            this.#figure.replaceChildren(draw(this.#state, this.#width));
        }
    }
}

/** Say when a share was reached, with its mark. */
export function entry(level, at) {
    const drawing = shape("svg", { viewBox: "-9 -9 18 18", width: 18, height: 18, "aria-hidden": "true" });
    drawing.append(shape("path", { class: "mark-shape", d: MARKS[level] }));
    const isReached = typeof at === "number";
    const said = isReached ? `${level}% after ${duration(at)}` : `${level}% not yet`;
    return element("li", { class: isReached ? undefined : "yet" }, drawing, said);
}

function draw({ name, adoption, reached, all }, width) {
    const scale = parseFloat(getComputedStyle(document.documentElement).fontSize) / LETTER;
    const span = Math.max(all.at(-1)?.at ?? 0, 10_000);
    const [left, right] = [INSET.left * scale, width - INSET.right * scale];
    const [top, bottom] = [INSET.top * scale, (HEIGHT - INSET.bottom) * scale];
    const x = (at) => left + (right - left) * (Math.log1p((at / span) * STRETCH) / Math.log1p(STRETCH));
    const y = (share) => bottom - (bottom - top) * share;
    const height = HEIGHT * scale;
    const below = height - 8 * scale;
    const said = summary(name, adoption, reached);
    const drawing = shape(
        "svg",
        { role: "img", "aria-label": said, width, height, viewBox: `0 0 ${width} ${height}` },
        ...LEVELS.map((level) => shape("path", { class: "level", d: `M${left} ${y(level)}H${right}` })),
        ...LEVELS.map((level) => label(percent(level), left - 8 * scale, y(level) + 4 * scale, "end")),
        ...ticks(span, x, 58 * scale).map(({ text, at }) => label(text, at, below, "middle")),
        label("0", left, below, "middle"),
    );
    if (all.some(({ share }) => share !== null)) {
        drawing.append(
            shape("path", { class: "area", d: area(all, x, y, bottom) }),
            shape("path", { class: "line", d: path(all, x, y) }),
        );
    }
    for (const [level, at] of Object.entries(reached)) {
        if (typeof at === "number" && at <= span) {
            const place = `translate(${x(at).toFixed(1)} ${y(level / 100).toFixed(1)}) scale(${scale})`;
            drawing.append(shape("path", { class: "mark-shape", d: MARKS[level], transform: place }));
        }
    }
    return drawing;
}

/** A step curve: it goes on level, and then up or down; where nobody says what it runs, it is broken. */
function path(all, x, y) {
    let isDown = false;
    return all
        .map(({ at, share }) => {
            if (share === null) {
                isDown = false;
                return "";
            }
            const [to, height] = [x(at).toFixed(1), y(share).toFixed(1)];
            const step = isDown ? `H${to}V${height}` : `M${to} ${height}`;
            isDown = true;
            return step;
        })
        .join("");
}

function area(all, x, y, bottom) {
    const known = all.filter(({ share }) => share !== null);
    const line = path(known, x, y);
    return `${line}V${bottom}H${x(known[0].at).toFixed(1)}Z`;
}

function ticks(span, x, apart) {
    const found = [];
    for (const seconds of TIMES) {
        const at = x(seconds * 1000);
        const isApart = at - (found.at(-1)?.at ?? x(0)) > apart;
        if (seconds * 1000 <= span && isApart) {
            found.push({ text: duration(seconds * 1000), at: Math.min(at, x(span) - apart / 7) });
        }
    }
    return found;
}

function label(text, x, y, anchor) {
    return shape("text", { x, y, "text-anchor": anchor }, text);
}

function summary(name, { share, streams }, reached) {
    const steps = Object.entries(reached)
        .filter(([, at]) => typeof at === "number")
        .map(([level, at]) => `${level}% after ${duration(at)}`);
    const now = share === null ? "nobody says what it runs" : `now ${percent(share)} of ${count(streams, "browser")}`;
    return [`The share of the browsers that run ${name}:`, [...steps, now].join(", ")].join(" ");
}
