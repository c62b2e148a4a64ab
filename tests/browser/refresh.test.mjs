import assert from "node:assert/strict";
import { test } from "node:test";
import { build, inWorld, MINUTE, SECOND, versionJson } from "./world.mjs";

const SERVED_2 = versionJson(2);

/** A page that prompts for build 2. */
async function prompting(world, page = {}, options = {}) {
    const tab = await world.page(page, options);
    world.served = 2;
    await world.hub.deploy(2);
    await world.pass(SECOND);
    assert.equal(tab.snapshot.hasUpdate, true);
    return tab;
}

/** Refresh, and say what came of it: whether it reloads, and after how long. */
async function refreshing(world, tab, longest = 10 * SECOND) {
    const start = world.now;
    let answer;
    tab.run(() => tab.last.refreshApp()).then((value) => (answer = { reloads: value, after: world.now - start }));
    await world.settle();
    while (!answer && world.now - start < longest) {
        await world.pass(SECOND / 10);
    }
    return answer;
}

/** A cache storage whose deletions take a while; what was deleted is in `deleted`. */
function cacheStorage(world, tab, names, milliseconds = 0) {
    const deleted = [];
    tab.globals.caches = {
        keys: async () => names,
        delete: (name) =>
            new Promise((resolve) => {
                world.systemTimer(milliseconds, () => resolve(deleted.push(name)));
            }),
    };
    return deleted;
}

/** A service worker that waits, and takes over some time after it was asked; or never. */
function serviceWorker(world, tab, { takesOverAfter, waiting = true } = {}) {
    const listeners = [];
    const said = [];
    const postMessage = (message) => {
        said.push(message);
        if (takesOverAfter !== undefined) {
            world.systemTimer(takesOverAfter, () => listeners.forEach((listener) => listener()));
        }
    };
    tab.globals.navigator.serviceWorker = {
        getRegistration: async () => ({ waiting: waiting ? { postMessage } : null }),
        addEventListener: (type, listener) => type === "controllerchange" && listeners.push(listener),
    };
    return said;
}

test("refresh: the page is reloaded, with its query and hash", inWorld(async (world) => {
    const tab = await prompting(world);

    assert.deepEqual(await refreshing(world, tab), { reloads: true, after: 0 });
    assert.equal(tab.reloads, 1);
    assert.equal(tab.heard("refresh").length, 1);
}));

test("refresh: it may be asked for without an update", inWorld(async (world) => {
    const tab = await world.page();

    assert.deepEqual(await refreshing(world, tab), { reloads: true, after: 0 });
    assert.deepEqual(tab.heard("refresh"), [null]);
}));

test("refresh: a canceled beforerefresh keeps the page", inWorld(async (world) => {
    const tab = await prompting(world);
    const deleted = cacheStorage(world, tab, ["v1"]);
    let asked;
    tab.window.addEventListener("vectr0:beforerefresh", (event) => {
        asked = event.detail.deployment;
        event.preventDefault();
    });

    assert.deepEqual(await refreshing(world, tab), { reloads: false, after: 0 });
    assert.deepEqual([tab.reloads, deleted, tab.heard("refresh")], [0, [], []]);
    assert.deepEqual(asked, tab.snapshot.updateInfo);
    await world.pass(10 * MINUTE);
    assert.deepEqual([tab.snapshot.hasUpdate, tab.snapshot.isRollingOut], [true, false]);
}));

test("refresh: waitUntil delays it until all is saved", inWorld(async (world) => {
    let save;
    const onBeforeRefresh = ({ waitUntil }) => waitUntil(new Promise((resolve) => (save = resolve)));
    const tab = await prompting(world, {}, { onBeforeRefresh });
    tab.window.addEventListener("vectr0:beforerefresh", ({ detail }) => detail.waitUntil(Promise.resolve()));
    const refresh = refreshing(world, tab, 30 * SECOND);
    await world.pass(20 * SECOND);
    assert.equal(tab.reloads, 0);
    save();

    assert.equal((await refresh).reloads, true);
    assert.equal(tab.reloads, 1);
}));

test("refresh: what can't be saved keeps the page, and is said", inWorld(async (world) => {
    const onBeforeRefresh = ({ waitUntil }) => waitUntil(Promise.reject(new Error("no space left")));
    const tab = await prompting(world, {}, { onBeforeRefresh });

    assert.deepEqual(await refreshing(world, tab), { reloads: false, after: 0 });
    assert.equal(tab.reloads, 0);
    assert.match(world.warnings.at(-1), /no space left/);
    assert.deepEqual([tab.snapshot.hasUpdate, tab.snapshot.isRollingOut], [true, false]);
}));

test("refresh: asked for twice it happens once, and both get its answer", inWorld(async (world) => {
    let asked = 0;
    let fail;
    const onBeforeRefresh = ({ waitUntil }) => {
        asked++;
        waitUntil(new Promise((_, reject) => (fail = reject)));
    };
    const tab = await prompting(world, {}, { onBeforeRefresh });
    const both = tab.run(() => Promise.all([tab.last.refreshApp(), tab.last.refreshApp()]));
    await world.settle();
    fail(new Error("no"));

    assert.deepEqual(await both, [false, false]);
    assert.equal(asked, 1);
    tab.run(() => tab.last.refreshApp());
    assert.equal(asked, 2, "after that it may be asked for again");
}));

test("refresh: a waiting service worker is asked to take over, and waited for", inWorld(async (world) => {
    const tab = await prompting(world);
    const said = serviceWorker(world, tab, { takesOverAfter: SECOND });

    assert.deepEqual(await refreshing(world, tab), { reloads: true, after: SECOND });
    assert.deepEqual(said, [{ type: "SKIP_WAITING" }]);
    assert.equal(tab.reloads, 1);
}));

test("refresh: a service worker that doesn't take over gets three seconds", inWorld(async (world) => {
    const tab = await prompting(world);
    serviceWorker(world, tab);

    assert.deepEqual(await refreshing(world, tab), { reloads: true, after: 3 * SECOND });
}));

test("refresh: without a service worker that waits there is nothing to wait for", inWorld(async (world) => {
    const tab = await prompting(world);
    const said = serviceWorker(world, tab, { waiting: false });

    assert.deepEqual(await refreshing(world, tab), { reloads: true, after: 0 });
    assert.deepEqual(said, []);
}));

test("refresh: all caches are deleted after the service worker's turn, before the reload", inWorld(async (world) => {
    const tab = await prompting(world);
    serviceWorker(world, tab, { takesOverAfter: SECOND });
    const deleted = cacheStorage(world, tab, ["v1", "images"], SECOND);
    const refresh = refreshing(world, tab);
    await world.pass(1.5 * SECOND);
    assert.deepEqual([deleted, tab.reloads], [[], 0]);

    assert.deepEqual(await refresh, { reloads: true, after: 2 * SECOND });
    assert.deepEqual(deleted, ["v1", "images"]);
}));

for (const [caches, expected] of [[["v1"], ["v1"]], [[], []]]) {
    test(`refresh: with the list ${JSON.stringify(caches)} only those caches are deleted`, inWorld(async (world) => {
        const tab = await prompting(world, {}, { caches });
        const deleted = cacheStorage(world, tab, ["v1", "images"]);
        await refreshing(world, tab);

        assert.deepEqual([deleted, tab.reloads], [expected, 1]);
    }));
}

test("refresh: caches that take too long hold it up for three seconds", inWorld(async (world) => {
    const tab = await prompting(world);
    cacheStorage(world, tab, ["v1"], MINUTE);

    assert.deepEqual(await refreshing(world, tab), { reloads: true, after: 3 * SECOND });
}));

test("refresh: a cache that can't be deleted doesn't keep the others", inWorld(async (world) => {
    const tab = await prompting(world);
    const deleted = cacheStorage(world, tab, ["broken", "v1"], SECOND);
    const remove = tab.globals.caches.delete;
    tab.globals.caches.delete = async (name) => (name === "broken" ? Promise.reject(new Error("no")) : remove(name));

    assert.deepEqual(await refreshing(world, tab), { reloads: true, after: SECOND });
    assert.deepEqual(deleted, ["v1"]);
}));

for (const [name, break_] of [
    ["the service worker", (tab) => Object.defineProperty(tab.globals.navigator, "serviceWorker", { get: refuse })],
    ["the caches", (tab) => Object.defineProperty(tab.globals, "caches", { get: refuse })],
    ["the session", (tab) => tab.throwing("sessionStorage")],
]) {
    test(`refresh: where a browser refuses ${name} the page is reloaded all the same`, inWorld(async (world) => {
        const tab = await prompting(world);
        break_(tab);

        assert.equal((await refreshing(world, tab)).reloads, true);
        assert.equal(tab.reloads, 1);
    }));
}

function refuse() {
    throw new DOMException("not here", "SecurityError");
}

test("refresh: it works, and the next page is quiet", inWorld(async (world) => {
    const tab = await prompting(world);
    await refreshing(world, tab);
    const next = await tab.reload();
    next.watch({ current: build(2) });
    await world.pass(10 * MINUTE);

    assert.deepEqual([next.snapshot.hasUpdate, next.snapshot.isRollingOut], [false, false]);
}));

test("refresh: the prompt stays until the page is gone", inWorld(async (world) => {
    const tab = await prompting(world);
    serviceWorker(world, tab);
    const refresh = refreshing(world, tab);
    await world.pass(SECOND);
    await tab.fire("storage");

    assert.deepEqual([tab.snapshot.hasUpdate, tab.snapshot.isRollingOut], [true, false]);
    await refresh;
    // The visitor may say no to "Leave this page?".
    await world.pass(MINUTE);
    assert.deepEqual([tab.snapshot.hasUpdate, tab.snapshot.isRollingOut], [true, false]);
}));

test("refresh: after one in vain it prompts after 1, 5, 30 and 30 minutes, and says why", inWorld(async (world) => {
    let tab = await prompting(world);
    for (const minutes of [1, 5, 30, 30]) {
        await refreshing(world, tab);
        tab = await tab.reload();
        tab.watch();
        await world.pass(SECOND);
        assert.deepEqual([tab.snapshot.hasUpdate, tab.snapshot.isRollingOut], [false, true]);
        assert.equal(tab.snapshot.updateInfo.buildNumber, 2);
        await world.pass(minutes * MINUTE - 3 * SECOND);
        assert.equal(tab.snapshot.hasUpdate, false, `after less than ${minutes} minutes`);
        await world.pass(3 * SECOND);
        assert.deepEqual([tab.snapshot.hasUpdate, tab.snapshot.isRollingOut], [true, true]);
        assert.equal(tab.heard("update").length, 1);
    }
}));

test("refresh: after one that gave the old version it prompts when version.json changes", inWorld(async (world) => {
    let tab = await prompting(world);
    await refreshing(world, tab);
    tab = await tab.reload();
    tab.watch();
    await world.pass(5 * SECOND);
    assert.equal(tab.snapshot.hasUpdate, false);
    world.served = { ...SERVED_2, buildTime: SERVED_2.buildTime + 1 };
    await world.pass(25 * SECOND);

    assert.deepEqual([tab.snapshot.hasUpdate, tab.snapshot.isRollingOut], [true, false]);
}));

test("refresh: after one that gave the old version the next deployment prompts at once", inWorld(async (world) => {
    let tab = await prompting(world);
    await refreshing(world, tab);
    tab = await tab.reload();
    tab.watch();
    await world.pass(SECOND);
    await world.hub.deploy(3);
    await world.pass(SECOND);

    assert.deepEqual([tab.snapshot.hasUpdate, tab.snapshot.isRollingOut], [true, false]);
}));

test("refresh: where the session can't be kept, one in vain prompts again", inWorld(async (world) => {
    let tab = await prompting(world, { without: ["sessionStorage"] });
    await refreshing(world, tab);
    tab = await tab.reload({ without: ["sessionStorage"] });
    tab.watch();
    await world.pass(SECOND);

    assert.equal(tab.snapshot.hasUpdate, true);
}));

test("refresh: another tab's refresh is its own", inWorld(async (world) => {
    const tab = await prompting(world);
    const other = await world.page();
    await world.pass(SECOND);
    await refreshing(world, tab);
    await world.pass(SECOND);

    assert.deepEqual([other.snapshot.hasUpdate, other.snapshot.isRollingOut], [true, false]);
}));

test("vite:preloadError: where something newer is served the page is reloaded", inWorld(async (world) => {
    const tab = await world.page();
    world.served = 2;
    await tab.fire("vite:preloadError");

    assert.equal(tab.reloads, 1);
    assert.match(world.looks[0].url, /version\.json/);
}));

test("vite:preloadError: several at once are one reload", inWorld(async (world) => {
    const tab = await world.page();
    world.served = 2;
    await Promise.all([tab.fire("vite:preloadError"), tab.fire("vite:preloadError"), tab.fire("vite:preloadError")]);

    assert.equal(tab.reloads, 1);
}));

test("vite:preloadError: at most one reload for what is served, and another for the next", inWorld(async (world) => {
    let tab = await world.page();
    world.served = 2;
    await tab.fire("vite:preloadError");
    tab = await tab.reload();
    tab.watch();
    await tab.fire("vite:preloadError");
    assert.equal(tab.reloads, 0);
    world.served = 3;
    await tab.fire("vite:preloadError");

    assert.equal(tab.reloads, 1);
}));

test("vite:preloadError: where it can't be remembered the page isn't reloaded", inWorld(async (world) => {
    const tab = await world.page({ without: ["sessionStorage"] });
    world.served = 2;
    await tab.fire("vite:preloadError");

    assert.equal(tab.reloads, 0);
}));

test("vite:preloadError: where the same is served there is nothing to gain", inWorld(async (world) => {
    const tab = await world.page();
    await tab.fire("vite:preloadError");

    assert.equal(tab.reloads, 0);
}));

test("vite:preloadError: without a check the hub's word is enough", inWorld(async (world) => {
    world.served = [404, ""];
    const tab = await world.page();
    await tab.fire("vite:preloadError");
    assert.equal(tab.reloads, 0);
    await world.hub.deploy(2);
    await world.pass(SECOND);
    await tab.fire("vite:preloadError");

    assert.equal(tab.reloads, 1);
}));

for (const [name, served] of [["a 502", [502, ""]], ["no network", new TypeError("Failed to fetch")]]) {
    test(`vite:preloadError: with ${name} a reload would lose the page`, inWorld(async (world) => {
        const tab = await prompting(world);
        world.served = served;
        await tab.fire("vite:preloadError");

        assert.equal(tab.reloads, 0);
    }));

    test(`vite:preloadError: with ${name} and nothing known any more it does nothing`, inWorld(async (world) => {
        const tab = await prompting(world);
        world.served = 1;
        await world.hub.deploy(1, { rollback: true });
        world.served = served;
        await tab.fire("vite:preloadError");

        assert.equal(tab.reloads, 0);
    }));
}

test("vite:preloadError: an editor with unsaved work can say no to that, too", inWorld(async (world) => {
    const tab = await world.page();
    tab.window.addEventListener("vectr0:beforerefresh", (event) => event.preventDefault());
    world.served = 2;
    await tab.fire("vite:preloadError");

    assert.equal(tab.reloads, 0);
}));

test("vite:preloadError: a watch that was closed meanwhile doesn't reload", inWorld(async (world) => {
    const tab = await world.page();
    world.served = 2;
    const fire = tab.fire("vite:preloadError");
    tab.run(() => tab.last.close());
    await fire;
    await world.pass(MINUTE);

    assert.equal(tab.reloads, 0);
}));
