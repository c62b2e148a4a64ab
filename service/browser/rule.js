/** The rule: does a deployment differ from the build that a page runs? No DOM, no clock, no network. */

const HEXADECIMAL = /^[0-9a-f]{7,}$/i;

/**
 * Tell whether two builds are the same: the same commit and, where both have one, the same build number (where neither
 * has, the same build time).
 *
 * Where a commit is unknown their tags decide; where these can't either, nothing shows a difference, and they count as
 * the same: a prompt needs a reason.
 * @param {import("./vectr0.js").Build} a
 * @param {import("./vectr0.js").Build} b
 * @returns {boolean}
 */
export function isSame(a, b) {
    if (isUnknown(a) || isUnknown(b)) {
        return !a.gitTag || !b.gitTag || tag(a) === tag(b);
    }
    return isSameCommit(a.gitCommit, b.gitCommit) && isSameRun(a, b);
}

/**
 * Tell whether a channel's newest deployment is an update for a page.
 *
 * The hub gives the order, so that "differs" is enough: after a rollback, too, and those who run the newest see nothing.
 * @param {import("./vectr0.js").Build | null} current what the page runs
 * @param {import("./vectr0.js").Build | null} deployment the newest
 * @returns {boolean}
 */
export function isUpdate(current, deployment) {
    return Boolean(current && deployment) && ![current, deployment].some(isDevelopment) && !isSame(current, deployment);
}

function isUnknown({ gitCommit }) {
    return !gitCommit || gitCommit === "unknown";
}

function isDevelopment(build) {
    return build.gitCommit === "dev" || (isUnknown(build) && !build.gitTag);
}

function isSameCommit(a, b) {
    if (!HEXADECIMAL.test(a) || !HEXADECIMAL.test(b)) {
        return a === b;
    }
    const [one, other] = [a.toLowerCase(), b.toLowerCase()];
    return one.startsWith(other) || other.startsWith(one);
}

/** 0 is what the field holds where a build has no number, or no time. */
function isSameRun(a, b) {
    const field = a.buildNumber || b.buildNumber ? "buildNumber" : "buildTime";
    return !a[field] || !b[field] || a[field] === b[field];
}

function tag({ gitTag }) {
    return gitTag.replace(/^v/, "");
}
