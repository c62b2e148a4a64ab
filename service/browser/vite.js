/**
 * The Vite plugin: stamps a build once, gives the stamp to the application as constants, and to the hub as
 * `version.json`.
 *
 * Values that are pasted into the code rename its chunks at every build. So the chunks hold none: the values stand in a
 * `<meta>` of index.html, and a module that never changes reads them from there. Who mentions a constant imports it.
 */

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";

import { stamp } from "./stamp.js";

const CONSTANTS = {
    __APP_VERSION__: "version",
    __GIT_COMMIT__: "gitCommit",
    __BUILD_NUMBER__: "buildNumber",
    __BUILD_TIME__: "buildTime",
    __APP_NAME__: "appName",
    __ENVIRONMENT__: "environment",
    __GIT_TAG__: "gitTag",
};
const NAMES = Object.keys(CONSTANTS);
const STAMP = "virtual:vectr0/stamp";
const UNKNOWN = {
    appName: "unknown",
    version: "unknown",
    gitCommit: "unknown",
    buildNumber: 0,
    buildTime: 0,
    environment: "unknown",
    gitTag: null,
};

/**
 * Stamp the build, as the options, the environment of the CI system, package.json and git say.
 * @param {import("./vite.js").Options} [options]
 * @returns {import("vite").Plugin[]}
 */
export function vectr0(options = {}) {
    const state = {};
    return [files(options, state), constants(state)];
}

export default vectr0;

/** index.html's `<meta>`, and version.json. */
function files(options, state) {
    let pasted = [];
    return {
        name: "vectr0",
        sharedDuringBuild: true,
        api: state,

        config: {
            order: "post",
            handler(config) {
                pasted = [config, ...Object.values(config.environments ?? {})].flatMap(takeOut);
                return { worker: { plugins: () => [constants(state)] } };
            },
        },

        configResolved({ root, command, base, logger }) {
            if (pasted.length > 0) {
                logger.warn(
                    `vectr0: left out of \`define\`: ${[...new Set(pasted)].join(", ")}. Please remove these lines ` +
                        "from the Vite configuration: the plugin gives the constants, and pasted into the code they " +
                        "would rename its chunks at every build.",
                );
                pasted = [];
            }
            const { env } = process;
            state.stamp ??= stamp({
                options,
                env,
                manifest: manifest(root),
                isBuild: command === "build",
                now: Date.now(),
                git: (...parameters) => git(root, parameters),
                readJSON,
            });
            if (command === "build" && state.stamp.gitCommit === "unknown" && !state.stamp.gitTag) {
                logger.warn(
                    "vectr0: neither the commit nor the tag is known, so that nothing tells this build from others, and " +
                        "its pages will never prompt. Name one: the option `commit`, or the variable GITHUB_SHA.",
                );
            }
            state.meta = JSON.stringify({
                ...state.stamp,
                hub: address(options.hub || env.VECTR0_URL),
                base: base || "./",
            });
        },

        transformIndexHtml: {
            order: "post",
            handler() {
                const { meta: content } = configured(this) ?? state;
                return [{ tag: "meta", attrs: { name: "vectr0", content }, injectTo: "head-prepend" }];
            },
        },

        generateBundle() {
            if (this.environment.config.consumer === "client") {
                this.emitFile({ type: "asset", fileName: "version.json", source: file(state.stamp) });
            }
        },

        configureServer({ config, middlewares }) {
            middlewares.use((request, response, next) => {
                if (request.url?.split("?", 1)[0] === `${config.base}version.json`) {
                    response.setHeader("Content-Type", "application/json");
                    response.setHeader("Cache-Control", "no-store");
                    response.end(file(state.stamp));
                } else {
                    next();
                }
            });
        },
    };
}

/** The constants: an import in each module of the application that mentions one. */
function constants(state) {
    return {
        name: "vectr0:constants",
        enforce: "post",
        sharedDuringBuild: true,

        resolveId: {
            order: "pre",
            filter: { id: new RegExp(`^${STAMP}$`) },
            handler: () => `\0${STAMP}`,
        },

        load: {
            filter: { id: new RegExp(`^\0${STAMP}$`) },
            handler() {
                const isServer = this.environment.config.consumer === "server";
                const code = isServer ? valuesModule(configured(this) ?? state) : READING_MODULE;
                return { code, moduleSideEffects: false };
            },
        },

        transform: {
            filter: { id: { exclude: [/\/node_modules\//, /^\0/] }, code: new RegExp(`\\b(${NAMES.join("|")})\\b`) },
            handler(code, id) {
                const tree = parse(this, code);
                const names = tree ? mentionedNames(tree) : [];
                if (names.length === 0) {
                    return null;
                }
                if (isCommonJS(tree)) {
                    this.warn(`vectr0: ${id} is no ES module, and isn't given ${names.join(", ")}`);
                    return null;
                }
                return { code: withImport(code, tree, names), map: null };
            },
        },
    };
}

/**
 * Give the state of the plugin that was configured. Where one process builds several environments, Vite reads the
 * configuration anew for each, and takes some hooks from the copies of the plugin that this makes.
 */
function configured({ environment }) {
    return environment?.config.plugins.find(({ name }) => name === "vectr0")?.api;
}

/** What a browser gets: the same in every build. A worker has no document, and a unit test no `<meta>`. */
const READING_MODULE = `
export const meta = globalThis.document?.querySelector('meta[name="vectr0"]')?.content ?? null;
const stamp = meta ? JSON.parse(meta) : ${JSON.stringify(UNKNOWN)};
${exported((field) => `stamp.${field}`)}
`;

/** What a server gets: it sends no chunks. */
function valuesModule({ meta, stamp: values }) {
    return `export const meta = ${JSON.stringify(meta)};\n${exported((field) => JSON.stringify(values[field]))}\n`;
}

function exported(value) {
    return NAMES.map((name) => `export const ${name} = ${value(CONSTANTS[name])};`).join("\n");
}

function parse(context, code) {
    try {
        return context.parse(code);
    } catch {
        return null; // Vite will say it, with the place.
    }
}

/** An import would make an ES module of it, in which `module` and `exports` are nothing. */
function isCommonJS(tree) {
    let exports = false;
    visit(tree, ({ type, name }) => {
        exports ||= type === "Identifier" && (name === "module" || name === "exports");
        return true;
    });
    return exports && !tree.body.some(({ type }) => /^(Import|Export)/.test(type));
}

/** The constants that a module mentions and doesn't declare itself. To mention one as a property does no harm. */
function mentionedNames(tree) {
    const mentioned = new Set();
    const declared = new Set();
    visit(tree, (node) => {
        if (node.type === "Identifier" && node.name in CONSTANTS) {
            mentioned.add(node.name);
        }
        return true;
    });
    for (const statement of mentioned.size > 0 ? tree.body : []) {
        declare(statement.declaration ?? statement, declared);
    }
    return NAMES.filter((name) => mentioned.has(name) && !declared.has(name));
}

/** Add the names that a statement of a module's top level declares; a `var` counts wherever it stands in it. */
function declare(statement, declared) {
    for (const { local } of statement.type === "ImportDeclaration" ? statement.specifiers : []) {
        declared.add(local.name);
    }
    visit(statement, (node) => {
        if (/^(Function|Class)/.test(node.type)) {
            if (node === statement) {
                declared.add(node.id?.name);
            }
            return false;
        }
        if (node.type === "VariableDeclaration" && (node === statement || node.kind === "var")) {
            node.declarations.forEach(({ id }) => bind(id, declared));
        }
        return node.type !== "ArrowFunctionExpression";
    });
}

/** Add the names of a pattern, but nothing of its default values. */
function bind(pattern, declared) {
    if (pattern?.type === "Identifier") {
        declared.add(pattern.name);
    } else if (pattern) {
        const { properties, elements, value, left, argument } = pattern;
        [...(properties ?? elements ?? []), value, left, argument].forEach((inner) => bind(inner, declared));
    }
}

/** Call with each node, outer ones first, and go into those for which it returns true. */
function visit(node, enter) {
    if (Array.isArray(node)) {
        node.forEach((child) => visit(child, enter));
    } else if (typeof node?.type === "string" && enter(node)) {
        Object.values(node).forEach((child) => visit(child, enter));
    }
}

/**
 * Add the import where it moves nothing that source maps point to: before the first import, so that the values are
 * there for whatever the others start, or at the end where there is none or more on its line.
 */
function withImport(code, { body }, names) {
    const statement = `import { ${names.join(", ")} } from "${STAMP}";`;
    const first = body.find(({ source }) => source);
    return first && /^[^\S\n]*(\/\/.*)?$/.test(lineAfter(code, first.end))
        ? `${code.slice(0, first.start)}${statement} ${code.slice(first.start)}`
        : `${code}\n${statement}\n`;
}

function lineAfter(code, position) {
    return code.slice(position).split("\n", 1)[0];
}

/** Take the constants out of a `define`, and give their names. */
function takeOut(config) {
    const names = NAMES.filter((name) => name in (config.define ?? {}));
    if (names.length > 0) {
        config.define = Object.fromEntries(Object.entries(config.define).filter(([name]) => !names.includes(name)));
    }
    return names;
}

/** The hub's address for pages; a name and password in it are the CI's. */
function address(hub) {
    if (!hub) {
        return undefined;
    }
    if (!URL.canParse(hub, "https://page.invalid/") || !/^https?:/.test(new URL(hub, "https://page.invalid/").href)) {
        throw new Error(`vectr0: hub must be an http or https address, or a path, not ${JSON.stringify(hub)}`);
    }
    return hub.replace(/^(https?:\/\/)[^/?#]*@/i, "$1");
}

function file(values) {
    return `${JSON.stringify(values, null, 2)}\n`;
}

/** The package.json of the application: the nearest one. */
function manifest(folder) {
    const parent = dirname(folder);
    return readJSON(join(folder, "package.json")) ?? (parent === folder ? {} : manifest(parent));
}

function readJSON(path) {
    try {
        return JSON.parse(readFileSync(path, "utf8").replace(/^\uFEFF/, ""));
    } catch {
        return undefined;
    }
}

function git(folder, parameters) {
    try {
        const stdio = ["ignore", "pipe", "ignore"];
        return execFileSync("git", parameters, { cwd: folder, encoding: "utf8", stdio, timeout: 10_000 }).trim();
    } catch {
        return undefined;
    }
}
