/** "Where is v1.4.0?": finds deployments by tag, version and commit, and channels by their names. No DOM. */

const HEXADECIMAL = /^[0-9a-f]{4,64}$/;

/**
 * Search what the board knows.
 *
 * Where something is called exactly what was asked for, what only begins so is left out: who asks for v1.4.0 doesn't
 * mean v1.4.0-rc.1, who asks for v1.4 means both.
 * @param {string} query
 * @param {Iterable<import("./model.js").Channel>} channels
 * @returns {{ live: object[], past: object[], named: object[] }} `{ channel, deployment }` each, the newest first; in
 *     `past` with the deployment that `replaced` it, and in `named` the channel alone
 */
export function search(query, channels) {
    const wanted = query.trim().toLowerCase();
    const live = [];
    const past = [];
    const named = [];
    if (!wanted) {
        return { live, past, named };
    }
    const all = [...channels];
    const isExact = all.some(({ deployments }) => deployments.some((deployment) => grade(deployment, wanted) === 2));
    for (const channel of all) {
        channel.deployments.forEach((deployment, at) => {
            if (grade(deployment, wanted) >= (isExact ? 2 : 1)) {
                const replaced = channel.deployments[at - 1];
                (replaced ? past : live).push({ channel, deployment, replaced });
            }
        });
        if (channel.name.toLowerCase().includes(wanted)) {
            named.push({ channel });
        }
    }
    live.sort(newestFirst);
    past.sort(newestFirst);
    named.sort((a, b) => a.channel.name.localeCompare(b.channel.name, "en", { numeric: true }));
    return { live, past, named };
}

/** 2 for what is called so, 1 for what begins so, 0 for the rest. */
function grade({ gitTag, version, gitCommit }, wanted) {
    const names = [gitTag ?? "", version].map((name) => name.toLowerCase());
    const bare = wanted.replace(/^v(?=\d)/, "");
    if (names.some((name) => name === wanted || name.replace(/^v(?=\d)/, "") === bare)) {
        return 2;
    }
    const commit = gitCommit.toLowerCase();
    if (HEXADECIMAL.test(wanted) && (commit.startsWith(wanted) || isShortFor(commit, wanted))) {
        return 2;
    }
    return names.some((name) => name.startsWith(wanted) || name.startsWith(bare)) || commit === wanted ? 1 : 0;
}

/** Who pastes a whole hash means a commit that was recorded with its first seven digits, too. */
function isShortFor(commit, wanted) {
    return commit.length >= 7 && wanted.startsWith(commit);
}

function newestFirst(a, b) {
    return b.deployment.deployedAt - a.deployment.deployedAt;
}
