/** What a search found: where it is live, where it was, and which channels are called so. */

import { element } from "./dom.js";
import { ago, count, duration, exactTime, percent, shortCommit, versionName } from "./words.js";

const SHOWN = 50;
const NOTHING = "A channel keeps its ten newest deployments; older ones aren’t known here.";

/**
 * Show what was found.
 * @param {string} query
 * @param {ReturnType<typeof import("./search.js").search>} found
 * @param {number} now
 * @param {string} doubt what may be missing, or nothing
 */
export function results(query, { live, past, named }, now, doubt) {
    const isNothing = !live.length && !past.length && !named.length;
    return element(
        "section",
        { class: "results", "aria-labelledby": "results-title" },
        element("h1", { id: "results-title" }, ...answer(query, live, past, named)),
        ...(isNothing ? [element("p", { class: "lead" }, NOTHING)] : []),
        ...(doubt ? [element("p", { class: "lead" }, doubt)] : []),
        ...group("Live now", live, (hit) => liveRow(hit, now)),
        ...group("Was live", past, (hit) => pastRow(hit, now)),
        ...group("Called so", named, (hit) => namedRow(hit, now)),
    );
}

/** Say in a sentence what was found; it is read aloud, too. */
export function answerText(query, { live, past, named }) {
    return answer(query, live, past, named)
        .map((part) => part.textContent ?? part)
        .join("");
}

function answer(query, live, past, named) {
    const what = element("q", {}, query.trim());
    if (live.length) {
        const was = past.length ? `, and was in ${past.length}` : "";
        return [what, ` is live in ${count(live.length, "place")}${was}.`];
    }
    if (past.length) {
        return [what, ` is live nowhere; it was in ${count(past.length, "place")}.`];
    }
    return named.length ? [what, ` is part of ${count(named.length, "name")}.`] : [what, " isn’t known."];
}

function group(title, hits, row) {
    if (!hits.length) {
        return [];
    }
    const more = hits.length > SHOWN ? [element("p", { class: "help" }, `and ${hits.length - SHOWN} more`)] : [];
    return [element("h2", {}, title), element("ul", {}, ...hits.slice(0, SHOWN).map(row)), ...more];
}

function liveRow({ channel, deployment }, now) {
    const { adoption } = channel;
    const isCounted = adoption?.since === deployment.deployedAt && adoption.share !== null;
    const share = isCounted ? [` · ${percent(adoption.share)} of ${count(adoption.streams, "browser")} run it`] : [];
    return row(channel, deployment, ["since ", ago(now - deployment.deployedAt).replace(/ ago$/, ""), ...share]);
}

function pastRow({ channel, deployment, replaced }, now) {
    const long = duration(replaced.deployedAt - deployment.deployedAt);
    const end = `until ${ago(now - replaced.deployedAt)}, when ${versionName(replaced)} came`;
    return row(channel, deployment, [`for ${long}, ${end}`]);
}

function namedRow({ channel }, now) {
    const [newest] = channel.deployments;
    return row(channel, newest, [ago(now - newest.deployedAt)]);
}

function row(channel, deployment, said) {
    const { deployedAt, gitCommit, buildNumber, rollback } = deployment;
    const build = [shortCommit(gitCommit), buildNumber ? `#${buildNumber}` : ""].filter(Boolean).join(" ");
    return element(
        "li",
        {},
        element(
            "a",
            { href: `#/${channel.name}` },
            element("span", { class: "where" }, channel.name),
            " ",
            element("strong", { class: "version" }, versionName(deployment)),
            " ",
            ...(rollback ? [element("span", { class: "mark" }, "Rolled back"), " "] : []),
            element("code", {}, build),
            " ",
            element("span", { class: "said", title: exactTime(deployedAt) }, ...said),
        ),
    );
}
