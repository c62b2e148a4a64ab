/** The hook and the component, bundled as an application's bundler does: on a server, and in a browser's tabs. */

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { load } from "../app/build.mjs";
import { APP, build, HUB, inWorld, SECOND, versionJson } from "./world.mjs";

const INSTALLED = fileURLToPath(new URL("../npm/node_modules", import.meta.url));
const OPTIONS = { ...APP, current: build(1) };
const META = { ...versionJson(1), hub: HUB, base: "/" };

globalThis.IS_REACT_ACT_ENVIRONMENT = true;
const folder = mkdtempSync(join(tmpdir(), "vectr0-react-"));
after(() => rmSync(folder, { recursive: true }));
symlinkSync(INSTALLED, join(folder, "node_modules"));
const { default: esbuild } = await load("esbuild", "lib/main.js");
await esbuild.build({
    entryPoints: [fileURLToPath(new URL("../../service/browser/react.js", import.meta.url))],
    bundle: true,
    external: ["react"],
    format: "esm",
    outfile: join(folder, "react.mjs"),
});
const require = createRequire(join(folder, "react.mjs"));
const { act, createElement, StrictMode } = require("react");
const { createRoot } = require("react-dom/client");
const { renderToString } = require("react-dom/server");

/** Give what a page has loaded: each test, as each page, has modules of its own. */
let pages = 0;
function loaded() {
    return import(`${pathToFileURL(join(folder, "react.mjs")).href}?${pages++}`);
}

/** As much of a DOM as React wants for a tree that shows nothing. */
function container() {
    const ignore = { addEventListener() {}, removeEventListener() {} };
    const ownerDocument = { ...ignore, nodeType: 9, nodeName: "#document", activeElement: null };
    return { ...ignore, nodeType: 1, nodeName: "DIV", tagName: "DIV", ownerDocument, textContent: "" };
}

/** A tab with React in it, and with a component that writes down what its hook gave. */
class Application {
    results = [];
    #world;
    #useVersionCheck;
    #root;

    constructor(world, { useVersionCheck }, options) {
        // What React asks a browser's window for.
        globalThis.window = { HTMLIFrameElement: class {} };
        this.#world = world;
        this.#useVersionCheck = useVersionCheck;
        this.tab = world.tab(options);
        this.tab.globals.console.timeStamp = () => {};
        this.#root = this.tab.run(() => createRoot(container()));
    }

    get last() {
        return this.results.at(-1);
    }

    /** Render one hook for each of these functions, which give the options; in StrictMode, where all is done twice. */
    async render(...hooks) {
        this.component ??= ({ options }) => {
            this.results.push(this.#useVersionCheck(options?.()));
            return null;
        };
        const children = hooks.map((options, key) => createElement(this.component, { key, options }));
        await this.act(() => this.#root.render(createElement(StrictMode, null, children)));
    }

    async unmount() {
        await this.act(() => this.#root.unmount());
    }

    async deploy(number) {
        this.#world.served = number;
        await this.act(async () => {
            await this.#world.hub.deploy(number);
            await this.#world.pass(SECOND);
        });
    }

    /** React does its work where its `act` is awaited, so that this has to be in the tab, too. */
    act(work) {
        return this.tab.run(async () => {
            await act(async () => {
                await work();
                await this.#world.pass(1);
            });
            await act(() => this.#world.pass(1));
        });
    }
}

function inApplication(test, options) {
    return inWorld(async (world) => {
        try {
            await test(new Application(world, await loaded(), options), world);
        } finally {
            delete globalThis.window;
        }
    });
}

/** Render on a server, and give what the hook gave there, and the HTML. */
async function onServer(render) {
    assert.equal(globalThis.document, undefined);
    assert.equal(globalThis.window, undefined);
    const { useVersionCheck, UpdateNotification } = await loaded();
    let result;
    const Component = ({ options }) => {
        result = useVersionCheck(options);
        return null;
    };
    const html = renderToString(render(Component, UpdateNotification));
    return { result, html };
}

test("react: a server renders what it knows, and makes no watch", async () => {
    const { result } = await onServer((Component) => createElement(Component, { options: OPTIONS }));

    const { refreshApp, dismissUpdate, ...state } = result;
    assert.deepEqual(state, { hasUpdate: false, updateInfo: null, currentVersion: build(1) });
    assert.deepEqual([typeof refreshApp, typeof dismissUpdate], ["function", "function"]);
});

test("react: a server renders the hook without options, though it has no page that says any", async () => {
    const { result } = await onServer((Component) => createElement(Component));

    assert.deepEqual([result.hasUpdate, result.currentVersion], [false, null]);
});

test("react: a server renders the element with all that it has to know", async () => {
    const { html } = await onServer((_, UpdateNotification) =>
        createElement(UpdateNotification, { ...OPTIONS, lang: "de", className: "low", caches: ["a", "b"] }),
    );

    assert.equal(
        html,
        `<update-notification lang="de" class="low" hub="${HUB}" app="web" environment="production" version="1.0.0" ` +
            `commit="1111111" build="1" time="${build(1).buildTime}" tag="v1.0.0" caches="a b"></update-notification>`,
    );
});

test("react: without options a server renders the bare element", async () => {
    const { html } = await onServer((_, UpdateNotification) => createElement(UpdateNotification));

    assert.equal(html, "<update-notification></update-notification>");
});

test("react: the hook gives exactly what the original's did", inApplication(async (application) => {
    await application.render(() => OPTIONS);
    await application.deploy(2);

    const { hasUpdate, updateInfo, currentVersion, refreshApp, dismissUpdate, ...others } = application.last;
    assert.deepEqual([hasUpdate, updateInfo.version, currentVersion], [true, "2.0.0", build(1)]);
    assert.deepEqual([typeof refreshApp, typeof dismissUpdate], ["function", "function"]);
    assert.deepEqual(others, {});
}));

test("react: what the page runs is known in the very first render", inApplication(async (application) => {
    await application.render(undefined);

    assert.deepEqual(application.results[0].currentVersion, build(1));
}, { meta: META }));

test("react: later is later", inApplication(async (application) => {
    await application.render(() => OPTIONS);
    await application.deploy(2);
    await application.act(() => application.last.dismissUpdate());

    assert.deepEqual([application.last.hasUpdate, application.last.updateInfo.version], [false, "2.0.0"]);
}));

test("react: refreshApp reloads, also as the listener of a click", inApplication(async (application) => {
    await application.render(() => OPTIONS);
    await application.deploy(2);
    await application.act(async () => assert.equal(await application.last.refreshApp({ type: "click" }), true));

    assert.equal(application.tab.reloads, 1);
}));

test("react: ten hooks share one watch, and the last to go closes it", inApplication(async (application, world) => {
    const ten = Array.from({ length: 10 }, () => () => ({ ...OPTIONS }));
    await application.render(...ten);

    assert.equal(world.streams.length, 1);
    await application.render(...ten.slice(1));
    assert.equal(world.open.length, 1);
    await application.unmount();
    assert.equal(world.open.length, 0);
    assert.equal(world.streams.length, 1);
    assert.deepEqual(application.tab.listening, []);
}));

test("react: equal options are the same watch, however they are written", inApplication(async (application, world) => {
    const { app, environment, current } = OPTIONS;
    await application.render(
        undefined,
        () => OPTIONS,
        () => ({ current: { ...current, appName: "web" }, environment, app, hub: "https://hub.example" }),
        () => ({ base: "/", current: { gitTag: current.gitTag, ...current } }),
    );

    assert.equal(world.streams.length, 1);
    assert.equal(application.tab.channels.size, 1);
}, { meta: META }));

test("react: the functions stay the same from render to render", inApplication(async (application) => {
    const options = () => ({ ...OPTIONS, current: { ...OPTIONS.current }, caches: ["a"] });
    await application.render(options);
    const before = application.last;
    await application.render(() => options());
    await application.deploy(2);

    assert.notEqual(application.last, before);
    assert.equal(application.last.refreshApp, before.refreshApp);
    assert.equal(application.last.dismissUpdate, before.dismissUpdate);
}));

test("react: other options are another watch, the one before closed", inApplication(async (application, world) => {
    await application.render(() => OPTIONS);
    await application.render(() => ({ ...OPTIONS, environment: "staging" }));

    assert.deepEqual(world.open.map(({ url }) => new URL(url).pathname), ["/events/web/staging"]);
}));

test("react: options that can't work are one error in the console, and the tree stays", inApplication(
    async (application, world) => {
        await application.render(...Array.from({ length: 2 }, () => () => ({ hub: HUB })));

        assert.equal(application.last.hasUpdate, false);
        await application.act(async () => assert.equal(await application.last.refreshApp(), false));
        assert.match(world.errors.pop(), /^vectr0: app is not given/);
        assert.deepEqual(world.errors, []);
    },
));
