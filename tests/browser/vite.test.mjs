/** The Vite plugin, on Vite 7 and 8: real builds, real dev servers. What comes out is run, not read. */

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import {
    mkdtempSync,
    mkdirSync,
    readdirSync,
    readFileSync,
    realpathSync,
    rmSync,
    writeFileSync,
} from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { SourceMap } from "node:module";
import { tmpdir } from "node:os";
import { dirname, extname, join } from "node:path";
import { after, before, beforeEach, describe, it } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import vm from "node:vm";

import vectr0 from "../../service/browser/vite.js";
import { load } from "../app/build.mjs";

const run = promisify(execFile);
const BUILD = fileURLToPath(new URL("../app/build.mjs", import.meta.url));

const STAMP = {
    app: "web",
    environment: "production",
    version: "1.4.0",
    commit: "3f2c1ab9d8e7f6a5b4c3d2e1f0a9b8c7d6e5f4a3",
    buildNumber: 128,
    buildTime: 1_763_800_000_000,
    tag: "v1.4.0",
};
const STAMPED = {
    appName: "web",
    version: "1.4.0",
    gitCommit: "3f2c1ab",
    buildNumber: 128,
    buildTime: 1_763_800_000_000,
    environment: "production",
    gitTag: "v1.4.0",
};

/** The machine that runs the tests may be a CI system: the environment holds only what a test puts there. */
const CLEAN = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => ["PATH", "HOME", "TMPDIR"].includes(name)),
);
beforeEach(() => {
    process.env = { ...CLEAN }; // Vite leaves its NODE_ENV behind
});

const folders = [];

/** A project in a folder of its own. */
function project(files) {
    const root = realpathSync(mkdtempSync(join(tmpdir(), "vectr0-vite-")));
    folders.push(root);
    for (const [name, text] of Object.entries({ "package.json": '{"name":"@acme/web","version":"0.1.0"}', ...files })) {
        mkdirSync(dirname(join(root, name)), { recursive: true });
        writeFileSync(join(root, name), text);
    }
    return root;
}

after(() => folders.forEach((folder) => rmSync(folder, { recursive: true })));

function filesIn(folder) {
    return readdirSync(folder, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(folder.length + 1))
        .sort();
}

function read(...path) {
    return readFileSync(join(...path), "utf8");
}

function decode(text) {
    const characters = { quot: '"', lt: "<", gt: ">", "#39": "'", amp: "&" };
    return text.replace(/&(quot|lt|gt|#39|amp);/g, (_, name) => characters[name]);
}

/** The `<meta>` of a page. */
function metaOf(html) {
    return JSON.parse(decode(/<meta name="vectr0" content="([^"]*)"/.exec(html)[1]));
}

/** A logger that keeps the warnings. */
function listener() {
    const warnings = [];
    const warn = (message) => warnings.push(message);
    const silent = () => {};
    const logger = { info: silent, warn, warnOnce: warn, error: silent, clearScreen: silent, hasErrorLogged: silent };
    return { warnings, logger: { ...logger, hasWarned: false } };
}

/** Serve a folder with a strict Content-Security-Policy. */
async function serve(folder) {
    const types = { ".html": "text/html", ".js": "text/javascript", ".json": "application/json" };
    const server = createHttpServer((request, response) => {
        const path = request.url === "/" ? "/index.html" : request.url;
        response.setHeader("Content-Type", types[extname(path)] ?? "text/plain");
        response.setHeader("Content-Security-Policy", "default-src 'self'; require-trusted-types-for 'script'");
        try {
            response.end(readFileSync(join(folder, path)));
        } catch {
            response.writeHead(404).end();
        }
    });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    return server;
}

/** What Chromium makes of a page, as soon as its title says that it is ready. Only tests "in a browser" may ask. */
async function visit(url) {
    const folder = project({});
    const browser = spawn(
        "chromium",
        [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            `--user-data-dir=${folder}`,
            "--virtual-time-budget=20000",
            "--timeout=20000",
            "--dump-dom",
            url,
        ],
        { stdio: ["ignore", "pipe", "ignore"] },
    );
    let html = "";
    for await (const text of browser.stdout.setEncoding("utf8")) {
        html += text;
    }
    if (browser.exitCode === null) {
        await new Promise((resolve) => browser.once("exit", resolve));
    }
    return html;
}

for (const [major, name] of [
    [7, "vite7"],
    [8, "vite"],
]) {
    describe(`Vite ${major}`, { concurrency: false }, () => {
        let vite;
        before(async () => {
            vite = await load(name);
            assert.equal(Number.parseInt(vite.version, 10), major);
        });

        /** Build a project, and give the folder with the result; `input` are names of its files. */
        async function build(files, { plugins = [vectr0(STAMP)], input, output, ...config } = {}) {
            const root = project(files);
            await vite.build({
                root,
                plugins,
                configFile: false,
                logLevel: "silent",
                ...config,
                build: {
                    rollupOptions: { input: input?.map((name) => join(root, name)), output },
                    ...config.build,
                },
            });
            return join(root, "dist");
        }

        /** Build scripts, run their entry in node, and give what it put into `globalThis.seen`. */
        async function runBuilt(files, { meta = STAMPED, ...config } = {}) {
            const dist = await build(files, {
                input: ["main.js"],
                output: { entryFileNames: "main.mjs" },
                ...config,
            });
            globalThis.seen = [];
            if (meta) {
                const content = JSON.stringify(meta);
                globalThis.document = { querySelector: (query) => query === 'meta[name="vectr0"]' && { content } };
            }
            try {
                await import(pathToFileURL(join(dist, "main.mjs")).href);
                return globalThis.seen;
            } finally {
                delete globalThis.document;
                delete globalThis.seen;
            }
        }

        describe("the sample application", () => {
            const outs = {};
            const shared = { APP_NAME: "web", ENVIRONMENT: "production" };
            const one = { ...shared, VERSION: "1.0.0", GITHUB_SHA: "1".repeat(40), GITHUB_RUN_NUMBER: "1" };
            const two = { ...shared, VERSION: "2.0.0", GITHUB_SHA: "2".repeat(40), GITHUB_RUN_NUMBER: "2" };

            before(async () => {
                const parameters = major === 7 ? ["--vite7"] : [];
                const builds = {
                    one: [{ ...one, VECTR0_URL: "https://ci:secret@hub.example/vectr0" }, []],
                    two: [{ ...two, GIT_TAG: "v2.0.0", ENVIRONMENT: "staging" }, []],
                    three: [two, ["--source", "another", "--base", "/app/"]],
                };
                for (const [key, [env, more]] of Object.entries(builds)) {
                    outs[key] = project({});
                    await run(process.execPath, [BUILD, "--out", outs[key], ...parameters, ...more], {
                        env: { ...CLEAN, ...env },
                    });
                }
            });

            it("has the same names for all chunks in two builds of one source, and the same bytes", () => {
                const files = filesIn(outs.one);
                const scripts = files.filter((file) => file.endsWith(".js"));

                assert.deepEqual(files, filesIn(outs.two));
                for (const chunk of ["index", "vendor", "Details", "worker"]) {
                    assert.equal(scripts.filter((file) => file.startsWith(`assets/${chunk}-`)).length, 1, chunk);
                }
                for (const file of scripts) {
                    assert.equal(read(outs.one, file), read(outs.two, file), file);
                }
            });

            it("has another name for the chunk whose source is another", () => {
                const [before, then] = [outs.two, outs.three].map((out) =>
                    filesIn(out).filter((file) => file.startsWith("assets/Details")),
                );

                assert.notDeepEqual(before, then);
            });

            it("has the stamp in version.json, and first in the head, with hub and base", () => {
                const html = read(outs.one, "index.html");
                const version = JSON.parse(read(outs.one, "version.json"));
                const { buildTime, ...rest } = version;

                assert.deepEqual(rest, {
                    appName: "web",
                    version: "1.0.0",
                    gitCommit: "1111111",
                    buildNumber: 1,
                    environment: "production",
                    gitTag: null,
                });
                assert.ok(Math.abs(Date.now() - buildTime) < 600_000);
                assert.match(html, /<head>\s*<meta name="vectr0"/);
                assert.deepEqual(metaOf(html), { ...version, hub: "https://hub.example/vectr0", base: "/" });
                assert.doesNotMatch(html, /<script(?![^>]* src=)/);
            });

            it("leaves the hub out where none is named", () => {
                const meta = metaOf(read(outs.two, "index.html"));

                assert.ok(!("hub" in meta));
                assert.equal(meta.environment, "staging");
                assert.equal(meta.gitTag, "v2.0.0");
                assert.equal(metaOf(read(outs.three, "index.html")).base, "/app/");
            });

            it("holds none of the stamp in its scripts", () => {
                for (const file of filesIn(outs.three).filter((path) => /\.js(\.map)?$/.test(path))) {
                    assert.doesNotMatch(read(outs.three, file), /2222222|2\.0\.0"/);
                }
            });
        });

        describe("the constants", () => {
            it("have the page's values wherever a module mentions them", async () => {
                const seen = await runBuilt(
                    {
                        "main.js": `
                        import "./plain.js"; import "./typed.ts"; import "./element.tsx";
                        import "./shapes.js"; import "./page.sfc"; import "./short.js";
                    `,
                        "plain.js":
                            "seen.push(['all', __APP_NAME__, __ENVIRONMENT__, __APP_VERSION__, __GIT_COMMIT__," +
                            " __BUILD_NUMBER__, __BUILD_TIME__, __GIT_TAG__]);",
                        "typed.ts":
                            "declare const __APP_VERSION__: string;\n" +
                            "const version: string = __APP_VERSION__ as string;\nseen.push(['ts', version]);",
                        "element.tsx":
                            "/** @jsxRuntime classic @jsx h */\n" +
                            "function h(tag: string, _: null, ...children: string[]) " +
                            "{ return [tag, ...children]; }\nseen.push(['tsx', ...<b>{__APP_VERSION__}</b>]);",
                        "shapes.js":
                            "/* 🚀 ünïcode before */ const shorthand = { __GIT_TAG__ };\n" +
                            "seen.push(['typeof', typeof __APP_VERSION__, typeof __BUILD_NUMBER__]," +
                            "['short', shorthand]," +
                            " ['template', `v${__APP_VERSION__}`]);",
                        "page.sfc": "<template>none</template>\n<script>seen.push(['sfc', __APP_VERSION__])</script>",
                        "short.js": "import { a } from './a.js';seen.push(['one line', a, __APP_VERSION__])",
                        "a.js": "export const a = 'a'",
                    },
                    {
                        plugins: [
                            {
                                name: "sfc",
                                transform: (code, id) =>
                                    id.endsWith(".sfc") ? /<script>(.*)<\/script>/.exec(code)[1] : null,
                            },
                            vectr0(STAMP),
                        ],
                    },
                );

                assert.deepEqual(seen, [
                    [
                        "all",
                        ...["appName", "environment", "version", "gitCommit", "buildNumber", "buildTime", "gitTag"].map(
                            (field) => STAMPED[field],
                        ),
                    ],
                    ["ts", "1.4.0"],
                    ["tsx", "b", "1.4.0"],
                    ["typeof", "string", "number"],
                    ["short", { __GIT_TAG__: "v1.4.0" }],
                    ["template", "v1.4.0"],
                    ["sfc", "1.4.0"],
                    ["one line", "a", "1.4.0"],
                ]);
            });

            it("leave a name alone that a module declares itself", async () => {
                const seen = await runBuilt({
                    "main.js": `
                        import "./top.js"; import "./imported.js"; import "./pattern.js"; import "./hoisted.js";
                        import "./inner.js"; import "./function.js"; import "./default.js";
                        import data from "./data.json";
                        import { __GIT_TAG__ as own } from "./top.js";
                        seen.push(["json", data.__APP_VERSION__], ["renamed", own]);
                    `,
                    "top.js":
                        "const __APP_VERSION__ = 'mine';\nexport const __GIT_TAG__ = 'mine';\n" +
                        "seen.push(['top', __APP_VERSION__, __GIT_COMMIT__]);",
                    "imported.js": "import { __GIT_TAG__ } from './top.js';\nseen.push(['imported', __GIT_TAG__]);",
                    "pattern.js":
                        "const { a: [__APP_VERSION__, , ...__GIT_TAG__], b = __GIT_COMMIT__ } = { a: [1, 2, 3] };\n" +
                        "seen.push(['pattern', __APP_VERSION__, __GIT_TAG__, b]);",
                    "hoisted.js":
                        "for (const x of [1]) { if (x) { var __APP_VERSION__ = 'hoisted'; } }\n" +
                        "seen.push(['hoisted', __APP_VERSION__]);",
                    "inner.js":
                        "function f(__APP_VERSION__) {\n" +
                        "var __GIT_TAG__ = 2; return [__APP_VERSION__, __GIT_TAG__]; }\n" +
                        "seen.push(['inner', ...f(1), __APP_VERSION__, __GIT_TAG__]);",
                    "function.js":
                        "export function __APP_VERSION__() {}\nclass __GIT_TAG__ {}\n" +
                        "seen.push(['function', typeof __APP_VERSION__, typeof __GIT_TAG__]);",
                    "default.js":
                        "export default function __APP_NAME__() {}\nseen.push(['default', typeof __APP_NAME__]);",
                    "data.json": '{"__APP_VERSION__": "of the file"}',
                });

                assert.deepEqual(seen, [
                    ["top", "mine", "3f2c1ab"],
                    ["imported", "mine"],
                    ["pattern", 1, [3], "3f2c1ab"],
                    ["hoisted", "hoisted"],
                    ["inner", 1, 2, "1.4.0", "v1.4.0"],
                    ["function", "function", "function"],
                    ["default", "function"],
                    ["json", "of the file"],
                    ["renamed", "mine"],
                ]);
            });

            it("are no import where only a text or a comment mentions them", async () => {
                const dist = await build({
                    "index.html": '<script type="module" src="/main.js"></script>',
                    "main.js": "// __APP_VERSION__\nconsole.log('__APP_VERSION__ or `__GIT_TAG__`');",
                });

                const [script] = filesIn(dist).filter((file) => file.endsWith(".js"));
                assert.doesNotMatch(read(dist, script), /meta\[name/);
            });

            it("are there before anything that an import starts, also where modules import each other", async () => {
                const seen = await runBuilt({
                    "main.js":
                        "import './b.js';\nexport function version() { return __APP_VERSION__; }\n" +
                        "seen.push(['main', version()]);",
                    "b.js": "import { version } from './main.js';\nimport './c.js';\nseen.push(['b', version()]);",
                    "c.js": "seen.push(['c']);",
                });

                assert.deepEqual(seen, [["c"], ["b", "1.4.0"], ["main", "1.4.0"]]);
            });

            it("are there in a script that stands in the page", async () => {
                const seen = await runBuilt(
                    { "index.html": '<script type="module">globalThis.seen.push(__APP_VERSION__);</script>' },
                    { input: ["index.html"], build: { modulePreload: false } },
                );

                assert.deepEqual(seen, ["1.4.0"]);
            });

            it("are unknown where there is no document, or none with a stamp", async () => {
                const files = {
                    "main.js":
                        "seen.push(__APP_NAME__, __ENVIRONMENT__, __APP_VERSION__, __GIT_COMMIT__," +
                        " __BUILD_NUMBER__, __BUILD_TIME__, __GIT_TAG__);",
                };

                assert.deepEqual(await runBuilt(files, { meta: null }), [
                    "unknown",
                    "unknown",
                    "unknown",
                    "unknown",
                    0,
                    0,
                    null,
                ]);
            });

            for (const format of ["es", "iife"]) {
                it(`are unknown in a worker (${format})`, async () => {
                    const dist = await build(
                        {
                            "index.html": '<script type="module" src="/main.js"></script>',
                            "main.js": "new Worker(new URL('./worker.js', import.meta.url), { type: 'module' })",
                            "worker.js": "import { tell } from './tell.js';\ntell(__APP_VERSION__, __BUILD_NUMBER__);",
                            "tell.js": "export const tell = (...said) => postMessage([__GIT_COMMIT__, ...said]);",
                        },
                        { worker: { format } },
                    );
                    const [worker] = filesIn(dist).filter((file) => /worker.*\.js$/.test(file));
                    const said = [];

                    vm.runInNewContext(read(dist, worker), { postMessage: (message) => said.push(...message) });

                    assert.deepEqual(said, ["unknown", "unknown", 0]);
                    assert.equal(filesIn(dist).filter((file) => file.endsWith("version.json")).length, 1);
                });
            }

            it("are not given to packages, which may have a name like these of their own", async () => {
                const seen = await runBuilt({
                    "main.js": "import 'other';\nseen.push(__APP_VERSION__);",
                    "node_modules/other/package.json": '{"name":"other","main":"index.js","type":"module"}',
                    "node_modules/other/index.js": "seen.push(typeof __APP_VERSION__);",
                });

                assert.deepEqual(seen, ["undefined", "1.4.0"]);
            });

            const skipsConverted = { skip: major === 7 && "Vite 7 makes an ES module of it" };
            it("are not given to CommonJS, which an import would break, and this is said", skipsConverted, async () => {
                const { warnings, logger } = listener();
                await build(
                    {
                        "main.js": "import './old.cjs';",
                        "old.cjs": "exports.version = typeof __APP_VERSION__;",
                    },
                    { input: ["main.js"], customLogger: logger },
                );

                assert.match(warnings.join(), /vectr0: .*old\.cjs is no ES module, and isn't given __APP_VERSION__/);
            });

            it("leave source maps true, to the column", async () => {
                const files = {
                    "main.js":
                        "// first\nimport { a } from './a.js';\nimport { b } from './b.js';\n\n" +
                        "console.log(a, b, __APP_VERSION__);\n   throw new Error('marked main');\n",
                    "a.js": "\nexport const a = () => __APP_VERSION__ + 'marked a';\n",
                    "b.js": "import { c } from './c.js';export const b = () => __APP_VERSION__ + c + 'marked b';",
                    "c.js": "export const c = String(globalThis.c) + 'marked c';",
                };
                const dist = await build(files, {
                    input: ["main.js"],
                    output: { entryFileNames: "main.js" },
                    build: { sourcemap: true },
                });
                const code = read(dist, "main.js");
                const map = new SourceMap(JSON.parse(read(dist, "main.js.map")));

                for (const [file, source] of Object.entries(files)) {
                    const mark = `marked ${file.replace(".js", "")}`;
                    const place = map.findEntry(...placeOf(code, mark));
                    assert.match(place.originalSource, new RegExp(`${file}$`));
                    assert.deepEqual([place.originalLine, place.originalColumn], placeOf(source, mark), file);
                }
            });
        });

        describe("what is stamped", () => {
            const page = {
                "index.html": '<head><meta charset="utf-8"></head><script type="module" src="/main.js"></script>',
            };

            it("is what version.json and the page say, as the hub takes it", async () => {
                const dist = await build(
                    { ...page, "main.js": "console.log(1)" },
                    { plugins: [vectr0({ ...STAMP, hub: "/hub" })] },
                );

                assert.deepEqual(JSON.parse(read(dist, "version.json")), STAMPED);
                assert.deepEqual(metaOf(read(dist, "index.html")), { ...STAMPED, hub: "/hub", base: "/" });
            });

            it("survives quotes and tags in the page", async () => {
                const version = `1.0 "a" <script> & 'b' </head>`;
                const dist = await build({ ...page, "main.js": "" }, { plugins: [vectr0({ ...STAMP, version })] });

                assert.equal(metaOf(read(dist, "index.html")).version, version);
                assert.doesNotMatch(read(dist, "index.html"), /content="[^"]*</);
            });

            for (const [base, expected] of [
                ["/app/", "/app/"],
                ["./", "./"],
                ["", "./"],
                ["https://cdn.example/a/", "https://cdn.example/a/"],
            ]) {
                it(`has the base ${JSON.stringify(base)}`, async () => {
                    const dist = await build({ ...page, "main.js": "" }, { base });

                    assert.equal(metaOf(read(dist, "index.html")).base, expected);
                });
            }

            it("is the same for all pages of a build", async () => {
                const dist = await build(
                    { ...page, "main.js": "console.log(__BUILD_TIME__)", "other/index.html": page["index.html"] },
                    {
                        plugins: [vectr0({ ...STAMP, buildTime: undefined })],
                        input: ["index.html", "other/index.html"],
                    },
                );
                const [one, other] = ["index.html", "other/index.html"].map((file) => metaOf(read(dist, file)));

                assert.deepEqual(one, other);
                assert.equal(one.buildTime, JSON.parse(read(dist, "version.json")).buildTime);
            });

            it("is an error where the hub would refuse it, which names field, value and rule", async () => {
                const plugins = [vectr0({ ...STAMP, environment: "eu/production" })];

                await assert.rejects(
                    build({ ...page, "main.js": "" }, { plugins }),
                    /vectr0: environment \(from the option environment\) must be 1 to 64 .* not "eu\/production"/,
                );
            });

            it("is an error without an environment, whatever NODE_ENV and mode say", async () => {
                process.env.NODE_ENV = "production";
                const plugins = [vectr0({ ...STAMP, environment: undefined })];

                await assert.rejects(
                    build({ ...page, "main.js": "" }, { plugins, mode: "production" }),
                    /vectr0: environment is missing: .*VECTR0_ENVIRONMENT/,
                );
            });

            for (const hub of ["ftp://hub.example", "http://", "javascript:alert(1)"]) {
                it(`is an error with the hub ${hub}`, async () => {
                    await assert.rejects(
                        build({ ...page, "main.js": "" }, { plugins: [vectr0({ ...STAMP, hub })] }),
                        /vectr0: hub must be an http or https address, or a path, not/,
                    );
                });
            }

            it("is asked of git in a build that nothing else says the commit of", async () => {
                // With the byte order mark that some editors write, which npm and Vite pass over as well.
                const manifest = '\uFEFF{"name":"@acme/web","version":"0.1.0"}';
                const root = project({ ...page, "main.js": "", "package.json": manifest });
                const git = (...parameters) =>
                    run("git", [
                        "-C",
                        root,
                        "-c",
                        "user.name=T",
                        "-c",
                        "user.email=t@example.org",
                        "-c",
                        "commit.gpgsign=false",
                        "-c",
                        "tag.gpgsign=false",
                        ...parameters,
                    ]);
                await git("init", "--quiet");
                await git("commit", "--quiet", "--allow-empty", "--message", "One");
                await git("tag", "v0.1.0");
                await git("tag", "other");
                const { stdout } = await git("rev-parse", "HEAD");

                await vite.build({
                    root,
                    configFile: false,
                    logLevel: "silent",
                    plugins: [vectr0({ environment: "staging" })],
                });

                const { appName, version, gitCommit, gitTag } = JSON.parse(read(root, "dist/version.json"));
                assert.deepEqual([appName, version, gitTag], ["web", "0.1.0", "v0.1.0"]);
                assert.equal(gitCommit, stdout.slice(0, 7));
            });
        });

        describe("the original's `define`", () => {
            const page = {
                "index.html": '<script type="module" src="/main.js"></script>',
                "main.js": "console.log(__APP_VERSION__, __GIT_COMMIT__, __OWN__)",
            };
            const lines = (commit) => ({
                __APP_VERSION__: '"9.9.9"',
                __GIT_COMMIT__: JSON.stringify(commit),
                __OWN__: '"own"',
            });

            it("is left out, with a warning that says which lines to remove", async () => {
                const { warnings, logger } = listener();
                const [one, two] = await Promise.all(
                    ["one", "two"].map((commit) => build(page, { define: lines(commit), customLogger: logger })),
                );

                assert.equal(warnings.length, 2, warnings.join());
                assert.match(
                    warnings[0],
                    /vectr0: left out of `define`: __APP_VERSION__, __GIT_COMMIT__\. Please remove/,
                );
                assert.deepEqual(filesIn(one), filesIn(two));
                const [script] = filesIn(one).filter((file) => file.endsWith(".js"));
                assert.match(read(one, script), /own/);
                assert.doesNotMatch(read(one, script), /9\.9\.9/);
            });

            it("is found where another plugin adds it, and in an environment's own configuration", async () => {
                const { warnings, logger } = listener();
                const other = { name: "other", config: () => ({ define: { __APP_VERSION__: '"9.9.9"' } }) };
                const dist = await build(page, {
                    plugins: [vectr0(STAMP), other],
                    environments: { client: { define: { __GIT_COMMIT__: '"pasted"' } } },
                    define: { __OWN__: "1" },
                    customLogger: logger,
                });

                const [script] = filesIn(dist).filter((file) => file.endsWith(".js"));
                assert.doesNotMatch(read(dist, script), /9\.9\.9|pasted/);
                assert.match(warnings.join(), /__APP_VERSION__, __GIT_COMMIT__/);
            });
        });

        it("warns of a build that nothing tells from others", async () => {
            const { warnings, logger } = listener();
            const page = { "index.html": "<title>Shop</title>" };
            const { commit, tag, ...rest } = STAMP;
            await build(page, { plugins: [vectr0({ ...rest, commit: "unknown" })], customLogger: logger });
            assert.match(warnings.join(), /vectr0: neither the commit nor the tag is known/);

            warnings.length = 0;
            await build(page, { plugins: [vectr0({ ...rest, commit: "unknown", tag })], customLogger: logger });
            assert.equal(warnings.filter((text) => text.includes("vectr0")).length, 0);
        });

        describe("on a server", () => {
            const files = {
                "index.html": '<script type="module" src="/main.js"></script>',
                "main.js": "console.log(__BUILD_TIME__)",
                "server.js":
                    "import { meta } from 'virtual:vectr0/stamp';\n" +
                    "export const stamp = [__APP_VERSION__, __BUILD_TIME__, __GIT_TAG__];\nexport { meta };",
            };

            it("the constants are the values themselves, and version.json is the client's alone", async () => {
                const dist = await build(files, {
                    output: { entryFileNames: "server.mjs" },
                    build: { ssr: "server.js" },
                });
                const server = await import(pathToFileURL(join(dist, "server.mjs")).href);

                assert.deepEqual(server.stamp, ["1.4.0", 1_763_800_000_000, "v1.4.0"]);
                assert.deepEqual(JSON.parse(server.meta), { ...STAMPED, base: "/" });
                assert.deepEqual(filesIn(dist), ["server.mjs"]);
            });

            it("they are the same as the client's where one process builds both", async () => {
                const root = project(files);
                const plugin = new URL("../../service/browser/vite.js", import.meta.url).href;
                writeFileSync(
                    join(root, "vite.config.mjs"),
                    `import vectr0 from ${JSON.stringify(plugin)};
                    const define = { __APP_VERSION__: "1" };
                    const plugins = [vectr0({ environment: "staging", commit: "3f2c1ab" })];
                    export default { define, plugins, builder: {} };`,
                );
                const { warnings, logger } = listener();
                const builder = await vite.createBuilder({
                    root,
                    customLogger: logger,
                    environments: {
                        client: { build: { outDir: "dist/client" } },
                        ssr: {
                            build: {
                                outDir: "dist/server",
                                ssr: true,
                                rollupOptions: { input: join(root, "server.js") },
                            },
                        },
                    },
                });
                await builder.build(builder.environments.client);
                await builder.build(builder.environments.ssr);
                const server = await import(pathToFileURL(join(root, "dist/server/server.mjs")).href);

                const { buildTime } = JSON.parse(read(root, "dist/client/version.json"));
                assert.equal(server.stamp[1], buildTime);
                assert.equal(metaOf(read(root, "dist/client/index.html")).buildTime, buildTime);
                assert.equal(warnings.filter((text) => text.includes("left out of `define`")).length, 1);
            });
        });

        describe("the dev server", () => {
            const files = {
                "index.html":
                    "<!doctype html><html><head><title>none</title></head><body>" +
                    '<script type="module" src="/main.js"></script></body></html>',
                "main.js":
                    "import { a } from './a.js';\n" +
                    "document.title = [__APP_NAME__, __APP_VERSION__, __GIT_COMMIT__, a].join();",
                "a.js": "export const a = 'a';",
                "unit.js": "export const unit = [__APP_NAME__, __APP_VERSION__, __GIT_COMMIT__, __ENVIRONMENT__];",
                "node_modules/react/package.json": '{"name":"react"}',
                "node_modules/react/jsx-dev-runtime.js": "export const jsxDEV = (...element) => element;",
                "component.jsx": "export default function Component() { return <b>{__APP_VERSION__}</b>; }",
            };

            /** Start a dev server, and end it with the test. */
            async function start(t, config = {}) {
                const root = project(files);
                const server = await vite.createServer({
                    root,
                    configFile: false,
                    logLevel: "silent",
                    optimizeDeps: { noDiscovery: true },
                    ...config,
                    plugins: [vectr0(), ...(config.plugins ?? [])],
                    server: { port: 0, host: "127.0.0.1", ...config.server },
                });
                t.after(() => server.close());
                return server;
            }

            it("serves version.json below the base, fresh, and a build that nobody is prompted for", async (t) => {
                const server = await start(t, { base: "/app/" });
                await server.listen();
                const { port } = server.httpServer.address();
                const get = (path) => fetch(`http://127.0.0.1:${port}${path}`);

                const response = await get("/app/version.json?abc");
                const { buildTime, ...version } = await response.json();
                assert.deepEqual(version, {
                    appName: "web",
                    version: "0.1.0",
                    gitCommit: "dev",
                    buildNumber: 0,
                    environment: "development",
                    gitTag: null,
                });
                assert.match(response.headers.get("content-type"), /^application\/json/);
                assert.equal(response.headers.get("cache-control"), "no-store");
                assert.deepEqual(metaOf(await (await get("/app/")).text()), { ...version, buildTime, base: "/app/" });
                assert.notEqual((await get("/app/other/version.json")).headers.get("content-type"), "application/json");
            });

            it("serves modules that import the stamp, and a stamp that reads the page", async (t) => {
                const server = await start(t);
                const { code } = await server.transformRequest("/main.js");
                const [, url] = /import \{ [^}]* \} from "(\/@id\/[^"]*stamp)"/.exec(code);
                const stamp = await server.transformRequest(url.replace("/@id/__x00__", "\0"));

                assert.match(stamp.code, /querySelector/);
                assert.doesNotMatch(stamp.code, /0\.1\.0/);
            });

            it("runs unit tests and servers with the values themselves", async (t) => {
                const server = await start(t);

                assert.deepEqual((await server.ssrLoadModule("/unit.js")).unit, ["web", "0.1.0", "dev", "development"]);
            });

            it(
                "leaves hot replacement of components as it is",
                { skip: major === 7 && "plugin-react needs Vite 8" },
                async (t) => {
                    const { default: react } = await load("@vitejs/plugin-react", "dist/index.js");
                    const server = await start(t, { plugins: [react()] });
                    const { code } = await server.transformRequest("/component.jsx");
                    const module = await server.environments.client.moduleGraph.getModuleByUrl("/component.jsx");

                    assert.match(code, /virtual:vectr0\/stamp/);
                    assert.equal(module.isSelfAccepting, true);
                    assert.ok([...module.importedModules].some(({ id }) => id === "\0virtual:vectr0/stamp"));
                },
            );

            it("shows the constants in a browser", async (t) => {
                const server = await start(t);
                await server.listen();

                const html = await visit(`http://127.0.0.1:${server.httpServer.address().port}/`);

                assert.match(html, /<title>web,0\.1\.0,dev,a<\/title>/);
            });
        });

        it("builds a page that shows its constants in a browser under a strict policy", async () => {
            const dist = await build({
                "index.html":
                    "<!doctype html><html><head><title>none</title></head><body>" +
                    '<script type="module" src="/main.js"></script></body></html>',
                "main.js":
                    "const { lazy } = await import('./lazy.js');\n" +
                    "document.title = [__APP_VERSION__, lazy].join();",
                "lazy.js": "export const lazy = [__GIT_TAG__, __BUILD_NUMBER__].join();",
            });
            const server = await serve(dist);
            try {
                assert.match(
                    await visit(`http://127.0.0.1:${server.address().port}/`),
                    /<title>1\.4\.0,v1\.4\.0,128<\/title>/,
                );
            } finally {
                server.close();
            }
        });
    });
}

/** Where the literal stands that begins with a text: line and column from 0. */
function placeOf(code, text) {
    const position = new RegExp(`["'\`]${text}["'\`]`).exec(code).index;
    const lines = code.slice(0, position).split("\n");
    return [lines.length - 1, lines.at(-1).length];
}
