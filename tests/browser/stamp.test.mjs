/**
 * The stamp of a build, from options and environment.
 *
 * The table of tests/ci-cases.json is read by all that stamp a build, whatever their language; a case has
 *   name      what the test is called;
 *   env       the environment variables, and no others;
 *   manifest  the application's package.json, where there is one;
 *   git       what git would say where it is asked: commit, and the tags of that commit;
 *   event     the contents of the file that GITHUB_EVENT_PATH names (written EVENT in the table);
 *   expected  the fields to look at (null: there is none), or
 *   error     the field that is named in the refusal.
 * All of them are builds: a dev server has other defaults.
 */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";

import { stamp } from "../../service/browser/stamp.js";

const CASES = JSON.parse(readFileSync(new URL("../ci-cases.json", import.meta.url), "utf8"));
const NOW = 1_763_800_000_000;
const ENOUGH = { APP_NAME: "web", VERSION: "1.0.0", ENVIRONMENT: "production", GITHUB_SHA: "3f2c1ab" };

function answering({ commit, tags } = {}) {
    const answers = { "rev-parse HEAD": commit, "tag --points-at HEAD": tags?.join("\n") };
    return (...parameters) => {
        assert.ok(parameters.join(" ") in answers, `git ${parameters.join(" ")} is more than may be asked`);
        return answers[parameters.join(" ")];
    };
}

describe("the table of cases", () => {
    for (const { name, env, manifest, git, event, expected, error } of CASES) {
        it(name, () => {
            const run = () =>
                stamp({
                    env,
                    manifest,
                    isBuild: true,
                    now: NOW,
                    git: answering(git),
                    readJSON: (path) => (path === "EVENT" ? event : undefined),
                });

            if (error) {
                assert.throws(run, new RegExp(`^Error: vectr0: ${error} `));
            } else {
                const stamped = run();
                const looked = Object.fromEntries(Object.keys(expected).map((field) => [field, stamped[field]]));
                assert.deepEqual(looked, expected);
            }
        });
    }
});

describe("stamp", () => {
    it("gives the fields of a record in their order, and no others", () => {
        const stamped = stamp({ env: ENOUGH, isBuild: true, now: NOW });

        assert.deepEqual(Object.entries(stamped), [
            ["appName", "web"],
            ["version", "1.0.0"],
            ["gitCommit", "3f2c1ab"],
            ["buildNumber", 0],
            ["buildTime", NOW],
            ["environment", "production"],
            ["gitTag", null],
        ]);
        assert.ok(Object.isFrozen(stamped));
    });

    it("takes options before everything else", () => {
        const options = {
            app: "admin",
            environment: "staging",
            version: "2.0.0",
            commit: "4444444444444444444444444444444444444444",
            buildNumber: 7,
            buildTime: 1,
            tag: "v2.0.0",
        };
        const env = { ...ENOUGH, GITHUB_RUN_NUMBER: "128", GIT_TAG: "v1.0.0", VECTR0_ENVIRONMENT: "production" };

        assert.deepEqual(stamp({ options, env, isBuild: true, now: NOW }), {
            appName: "admin",
            version: "2.0.0",
            gitCommit: "4444444",
            buildNumber: 7,
            buildTime: 1,
            environment: "staging",
            gitTag: "v2.0.0",
        });
    });

    it("takes an empty option for none, and a number that is written as text", () => {
        const options = { app: "", tag: null, version: undefined, buildNumber: "12", buildTime: String(NOW) };
        const stamped = stamp({ options, env: ENOUGH, isBuild: true, now: 1 });

        assert.equal(stamped.appName, "web");
        assert.equal(stamped.version, "1.0.0");
        assert.equal(stamped.gitTag, null);
        assert.equal(stamped.buildNumber, 12);
        assert.equal(stamped.buildTime, NOW);
    });

    it("takes 0 for a build number", () => {
        const env = { ...ENOUGH, GITHUB_RUN_NUMBER: "128" };

        assert.equal(stamp({ options: { buildNumber: 0 }, env, isBuild: true, now: NOW }).buildNumber, 0);
    });

    it("always has a stamp for a dev server, which never asks git and never prompts", () => {
        const git = () => assert.fail("git was asked");

        assert.deepEqual(stamp({ isBuild: false, now: NOW, git }), {
            appName: "unknown",
            version: "0.0.0",
            gitCommit: "dev",
            buildNumber: 0,
            buildTime: NOW,
            environment: "development",
            gitTag: null,
        });
    });

    it("takes what is known for a dev server, too", () => {
        const manifest = { name: "@acme/web", version: "1.2.3" };
        const { appName, version, environment } = stamp({
            env: { ENVIRONMENT: "staging" },
            manifest,
            isBuild: false,
            now: NOW,
        });

        assert.deepEqual([appName, version, environment], ["web", "1.2.3", "staging"]);
    });

    it("names field, source, rule and value of everything that the hub would refuse", () => {
        const options = { app: "-web", buildNumber: -1, buildTime: 1.5, tag: "x".repeat(129) };
        const env = { ...ENOUGH, VERSION: "1\t0", GITHUB_SHA: "a/b", ENVIRONMENT: "eu/production" };

        assert.throws(
            () => stamp({ options, env, isBuild: true, now: NOW }),
            ({ message }) => {
                assert.deepEqual(message.split("\n"), [
                    "vectr0: appName (from the option app) must be 1 to 64 of A-Z a-z 0-9 . _ -, starting with a " +
                        'letter or digit, not "-web"',
                    'vectr0: version (from VERSION) must be 1 to 128 printable characters, not "1\\t0"',
                    'vectr0: gitCommit (from GITHUB_SHA) must be 1 to 64 of A-Z a-z 0-9 . _ -, not "a/b"',
                    "vectr0: buildNumber (from the option buildNumber) must be an integer from 0 to " +
                        "9007199254740991, not -1",
                    "vectr0: buildTime (from the option buildTime) must be an integer from 0 to 9007199254740991, " +
                        "milliseconds since 1970, not 1.5",
                    "vectr0: environment (from ENVIRONMENT) must be 1 to 64 of A-Z a-z 0-9 . _ -, starting with a " +
                        'letter or digit, not "eu/production"',
                    "vectr0: gitTag (from the option tag) must be null or 1 to 128 printable characters, not " +
                        `"${"x".repeat(129)}"`,
                ]);
                return true;
            },
        );
    });

    it("says how to name the environment", () => {
        const { ENVIRONMENT, ...env } = ENOUGH;

        assert.throws(
            () => stamp({ env: { ...env, NODE_ENV: "production" }, isBuild: true, now: NOW }),
            /^Error: vectr0: environment is missing: .*`environment`.*VECTR0_ENVIRONMENT.*NODE_ENV/,
        );
    });
});
