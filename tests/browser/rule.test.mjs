/** The rule, as a table of cases; what the original design's rule says of each stands beside it. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { isSame, isUpdate } from "../../service/browser/vectr0.js";

const RUNS = { version: "1.4.0", gitCommit: "3f2c1ab", buildNumber: 128, buildTime: 1_000_000, gitTag: null };
const OTHER = { ...RUNS, version: "1.5.0", gitCommit: "9e8d7c6", buildNumber: 129, buildTime: 2_000_000 };
const FULL = "3f2c1ab0123456789abcdef0123456789abcdef0";
const PLAIN = { buildNumber: 0, buildTime: 0 };

/** The rule of the original design's `useVersionCheck`, word for word. */
function originally(current, deployment) {
    return deployment.environment === "production" && deployment.gitTag
        ? deployment.gitTag !== current.gitTag
        : deployment.gitCommit !== current.gitCommit ||
              deployment.buildNumber > current.buildNumber ||
              deployment.buildTime > current.buildTime;
}

/** [case, what the page runs, the deployment, whether it is an update, by the original's rule, why they differ] */
const CASES = [
    ["the same build", {}, {}, false, false],
    ["another commit", {}, OTHER, true, true],
    ["the same commit in full in the record", {}, { gitCommit: FULL }, false, true, "seven characters do"],
    ["the same commit in full in the page", { gitCommit: FULL }, {}, false, true, "the same the other way round"],
    ["the same commit in capitals", {}, { gitCommit: "3F2C1AB" }, false, true, "hexadecimal has no case"],
    ["a full commit that only ends alike", { gitCommit: "c1ab012" }, { gitCommit: FULL }, true, true],
    ["six equal characters", { gitCommit: "3f2c1a" }, { gitCommit: FULL }, true, true, "too few to name a commit"],
    ["a commit that isn't hexadecimal", { gitCommit: "release-7" }, { gitCommit: "release-7" }, false, false],
    ["the beginning of one that isn't", { gitCommit: "release-7" }, { gitCommit: "release-71" }, true, true],
    ["one that isn't, in capitals", { gitCommit: "release-7" }, { gitCommit: "RELEASE-7" }, true, true],
    ["the commit built again", {}, { buildNumber: 129, buildTime: 2_000_000 }, true, true],
    ["an older run of the commit", {}, { buildNumber: 127 }, true, false, "the hub gives the order: it differs"],
    ["a number only in the record", { buildNumber: 0 }, {}, false, true, "0 is none, and none is no difference"],
    ["a number only in the page", {}, { buildNumber: 0 }, false, false],
    ["the same run with a later time", {}, { buildTime: 2_000_000 }, false, true, "built once: the run decides"],
    ["no numbers and a later time", { buildNumber: 0 }, { buildNumber: 0, buildTime: 2_000_000 }, true, true],
    ["no number, earlier time", { buildNumber: 0 }, { buildNumber: 0, buildTime: 500_000 }, true, false, "the order"],
    ["no numbers and no time in the page", PLAIN, { buildNumber: 0 }, false, true, "0 is no time"],
    ["no numbers and no time in the record", { buildNumber: 0 }, PLAIN, false, false],
    ["neither numbers nor times", PLAIN, PLAIN, false, false],
    ["a rollback to an older build", OTHER, { ...RUNS, rollback: true }, true, true],
    ["a rollback to an older run of the commit", { buildNumber: 129 }, { rollback: true }, true, false, "they need it"],
    ["a page from a laptop", { gitCommit: "dev" }, OTHER, false, true, "nobody wants prompts at work"],
    ["a deployment from a laptop", {}, { gitCommit: "dev" }, false, true, "a development build replaces nothing"],
    ["a laptop with a tag", { gitCommit: "dev", gitTag: "v1" }, { ...OTHER, gitTag: "v2" }, false, true, "the same"],
    ["an unknown page", { gitCommit: "unknown" }, OTHER, false, true, "nothing shows a difference"],
    ["a page without a commit", { gitCommit: "" }, OTHER, false, true, "the same"],
    ["an unknown deployment", {}, { gitCommit: "unknown" }, false, true, "the same"],
    ["both unknown", { gitCommit: "unknown" }, { gitCommit: "unknown" }, false, false],
    ["unknown commits and other tags", tagged("unknown", "v1"), tagged("unknown", "v2"), true, true],
    ["unknown commits and equal tags", tagged("unknown", "v1"), tagged("unknown", "v1"), false, false],
    ["an unknown page with another tag", tagged("unknown", "v1"), tagged("9e8d7c6", "v2"), true, true],
    ["an unknown page with the same tag", tagged("unknown", "v1"), tagged("3f2c1ab", "v1"), false, false],
    ["an unknown deployment with another tag", tagged("3f2c1ab", "v1"), tagged("unknown", "v2"), true, true],
    ["an unknown page with a tag, no other", tagged("unknown", "v1"), OTHER, false, true, "no tag is no difference"],
    ["a tag with v, one without", tagged("unknown", "v1.4.0"), tagged("unknown", "1.4.0"), false, true, "v is taste"],
    ["tags that differ by more than one v", tagged("unknown", "vv1"), tagged("unknown", "1"), true, true],
    ["a tag in the record only", {}, { gitTag: "v1.4.0" }, false, true, "tagged later; the commit is known"],
    ["another tag on the same commit", { gitTag: "v1" }, { gitTag: "v2" }, false, true, "the same files"],
    ["the tag moved to another commit", { gitTag: "v1" }, { ...OTHER, gitTag: "v1" }, true, false, "a hotfix is news"],
    ["the same build in staging, later", {}, { environment: "staging", buildTime: 2_000_000 }, false, true, "one run"],
];

function tagged(gitCommit, gitTag) {
    return { gitCommit, gitTag };
}

for (const [name, page, record, ours, theirs, why] of CASES) {
    test(`rule: ${name}${why ? `: ${why}` : ""}`, () => {
        const current = { ...RUNS, ...page };
        const deployment = { environment: "production", ...RUNS, ...record };

        assert.equal(isUpdate(current, deployment), ours);
        assert.equal(originally(current, deployment), theirs);
        assert.ok(ours === theirs || why, "a difference needs its reason");
        assert.equal(isSame(current, deployment), isSame(deployment, current));
        assert.ok(!(ours && isSame(current, deployment)), "no update is the same");
    });
}

test("rule: nothing known is no update", () => {
    assert.equal(isUpdate(null, OTHER), false);
    assert.equal(isUpdate(RUNS, null), false);
});

test("rule: builds whose commits begin alike for seven characters and then differ aren't the same", () => {
    assert.equal(isSame({ ...RUNS, gitCommit: "3f2c1ab0" }, { ...RUNS, gitCommit: "3f2c1ab1" }), false);
});
