/** The cases that the hub's own rule (service/build.py) is held against, too. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { isSame } from "../../service/browser/vectr0.js";

const CASES = JSON.parse(readFileSync(new URL("../build-cases.json", import.meta.url), "utf8"));

for (const [name, one, other, same] of CASES) {
    test(`build: ${name}: ${same ? "the same" : "another"}`, () => {
        const [a, b] = [one, other].map(([gitCommit, buildNumber]) => ({ gitCommit, buildNumber, buildTime: 0 }));

        assert.deepEqual([isSame(a, b), isSame(b, a)], [same, same]);
    });
}
