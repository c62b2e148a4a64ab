/** The stamp of a build: the seven fields that it is known by, from its options, its environment, npm and git. */

import { said } from "./ci.js";

const NAME = [
    matches(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/),
    "1 to 64 of A-Z a-z 0-9 . _ -, starting with a letter or digit",
];
const COMMIT = [matches(/^[A-Za-z0-9._-]{1,64}$/), "1 to 64 of A-Z a-z 0-9 . _ -"];
const TEXT = [matches(/^[\p{L}\p{M}\p{N}\p{P}\p{S} ]{1,128}$/u), "1 to 128 printable characters"];
const INTEGER = [(value) => Number.isSafeInteger(value) && value >= 0, `an integer from 0 to ${2 ** 53 - 1}`];

/** What the hub takes, in the order of its records. */
const RULES = {
    appName: NAME,
    version: TEXT,
    gitCommit: COMMIT,
    buildNumber: INTEGER,
    buildTime: [INTEGER[0], `${INTEGER[1]}, milliseconds since 1970`],
    environment: NAME,
    gitTag: [(value) => value === null || TEXT[0](value), `null or ${TEXT[1]}`],
};

const OPTIONS = {
    appName: "app",
    version: "version",
    gitCommit: "commit",
    buildNumber: "buildNumber",
    buildTime: "buildTime",
    environment: "environment",
    gitTag: "tag",
};

const MISSING = {
    appName: "name it with the option `app`, the variable APP_NAME or package.json's `name`",
    version: "give it with the option `version`, the variable VERSION or package.json's `version`",
    environment:
        "name it with the option `environment`, or the variable VECTR0_ENVIRONMENT or ENVIRONMENT. It is never taken " +
        "from NODE_ENV or Vite's mode, which are `production` for a staging build, too",
};

/**
 * Stamp a build. Reads nothing but what it is given.
 * @param {object} known
 * @param {import("./vite.js").Options} [known.options]
 * @param {Record<string, string | undefined>} [known.env]
 * @param {{ name?: string, version?: string }} [known.manifest] the application's package.json
 * @param {boolean} known.isBuild false in a dev server, which always gets a stamp
 * @param {number} known.now milliseconds since 1970
 * @param {(...parameters: string[]) => string} [known.git] runs git and gives what it prints; nothing where it fails
 * @param {(path: string) => any} [known.readJSON] gives undefined for what can't be read
 * @returns {import("./vite.js").Stamp}
 * @throws {Error} with every rule of the hub that a value breaks
 */
export function stamp({ options = {}, env = {}, manifest = {}, isBuild, now, git = nothing, readJSON = nothing }) {
    const known = Object.fromEntries(
        Object.keys(RULES).map((field) => [field, given(field, options) ?? said(field, env, readJSON)]),
    );
    if (isBuild && !known.gitCommit) {
        Object.assign(known, askGit(known, git, known.version?.value ?? manifest.version));
    }
    known.appName ??= { value: manifest.name?.split("/").pop(), from: "package.json" };
    known.version ??= { value: manifest.version, from: "package.json" };
    const defaults = { ...(isBuild ? BUILD : DEVELOPMENT), buildTime: now };
    const fields = Object.fromEntries(
        Object.keys(RULES).map((field) => [field, known[field]?.value ?? defaults[field]]),
    );
    fields.gitCommit = shorten(fields.gitCommit);
    fields.buildNumber = number(fields.buildNumber);
    fields.buildTime = number(fields.buildTime);
    check(fields, known);
    return Object.freeze(fields);
}

const BUILD = { gitCommit: "unknown", buildNumber: 0, gitTag: null };
/** With these a page is never prompted: `dev` is no build that could be replaced. */
const DEVELOPMENT = { ...BUILD, appName: "unknown", version: "0.0.0", gitCommit: "dev", environment: "development" };

function nothing() {
    return undefined;
}

function given(field, options) {
    const option = OPTIONS[field];
    const value = options[option] ?? "";
    return value === "" ? undefined : { value, from: `the option ${option}` };
}

/** Nothing else says which commit this is. A tag is the build's where it names the version, or is the only one. */
function askGit({ gitTag }, git, version) {
    const commit = git("rev-parse", "HEAD");
    if (!commit) {
        return {};
    }
    const tags = (git("tag", "--points-at", "HEAD") ?? "").split("\n").filter(Boolean);
    const tag = tags.find((name) => name === version || name === `v${version}`) ?? (tags.length === 1 ? tags[0] : null);
    return { gitCommit: { value: commit, from: "git" }, gitTag: gitTag ?? { value: tag, from: "git" } };
}

/** As the original has it; the whole hash of SHA-1 or SHA-256, so that no number or name is cut. */
function shorten(commit) {
    return /^([0-9a-f]{40}|[0-9a-f]{64})$/i.test(commit) ? commit.slice(0, 7) : commit;
}

function number(value) {
    return /^\d+$/.test(value) ? Number(value) : value;
}

function check(fields, known) {
    const errors = Object.entries(RULES)
        .filter(([field, [isRight]]) => !isRight(fields[field]))
        .map(([field, [, rule]]) => explain(field, fields[field], rule, known[field]?.from));
    if (errors.length > 0) {
        throw new Error(`vectr0: ${errors.join("\nvectr0: ")}`);
    }
}

function explain(field, value, rule, from) {
    return value === undefined
        ? `${field} is missing: ${MISSING[field]}`
        : `${field} (from ${from}) must be ${rule}, not ${JSON.stringify(value)}`;
}

function matches(pattern) {
    return (value) => typeof value === "string" && pattern.test(value);
}
