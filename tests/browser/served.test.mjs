import assert from "node:assert/strict";
import { test } from "node:test";
import { build, inWorld, MINUTE, SECOND, versionJson } from "./world.mjs";

const HOUR = 60 * MINUTE;
const INDEX_HTML = [200, "<!doctype html><title>Shop</title>"];

/** When it was looked, in seconds since then. */
function looksSince(world, start) {
    return world.looks.filter(({ at }) => at >= start).map(({ at }) => (at - start) / SECOND);
}

function pauses(world, start) {
    const times = looksSince(world, start);
    return times.slice(1).map((time, index) => time - times[index]);
}

test("served: what is served is asked below the base, past all caches", inWorld(async (world) => {
    const tab = await world.page({}, { base: "/shop" });
    world.served = 2;
    await world.hub.deploy(2);
    await world.pass(SECOND);
    const [{ url, cache }] = world.looks;

    assert.match(url, /^https:\/\/app\.example\/shop\/version\.json\?\w+$/);
    assert.equal(cache, "no-store");
    assert.equal(tab.snapshot.hasUpdate, true);
    world.served = 1;
    await world.hub.deploy(1, { rollback: true });
    await world.hub.deploy(3);
    await world.pass(SECOND);
    assert.notEqual(world.looks.at(-1).url, url);
}));

test("served: while all is as the page runs it, nothing is asked", inWorld(async (world) => {
    await world.hub.deploy(1);
    await world.page();
    await world.pass(HOUR);

    assert.deepEqual(world.looks, []);
}));

test("served: the first look comes after a random moment of up to half a second", inWorld(async (world) => {
    for (const [part, seconds] of [[0, 0], [0.5, 0.25], [0.999, 0.4995]]) {
        const tab = await world.page({}, { app: `web${part}` });
        world.random = () => part;
        const start = world.now;
        tab.streams[0].say("deployment", { ...versionJson(2), deployedAt: start });
        await world.settle();
        await world.pass(SECOND / 2);

        assert.equal(looksSince(world, start)[0], seconds);
        await tab.close();
    }
}));

for (const [part, factor] of [[0, 0.5], [0.5, 1], [0.999, 1.499]]) {
    test(`served: at luck ${part} it looks ever more slowly, for an hour`, inWorld(async (world) => {
        const tab = await world.page();
        world.random = () => part;
        const start = world.now;
        await world.hub.deploy(2);
        await world.pass(5 * HOUR);
        const found = pauses(world, start);

        assert.equal(tab.snapshot.hasUpdate, false);
        const expected = [1, 2, 5, 15, 60, 300, 300].map((seconds) => seconds * factor);
        found.slice(0, 7).forEach((pause, index) => assert.ok(Math.abs(pause - expected[index]) < 0.01, `${found}`));
        assert.ok(looksSince(world, start).at(-1) <= HOUR / SECOND);
        assert.ok(looksSince(world, start).at(-1) > (HOUR - 8 * MINUTE) / SECOND);
    }));
}

test("served: no prompt before the new version is served, and then soon", inWorld(async (world) => {
    const tab = await world.page();
    const deployment = await world.hub.deploy(2);
    await world.pass(9 * SECOND);
    assert.deepEqual([tab.snapshot.hasUpdate, tab.snapshot.updateInfo, tab.heard("update")], [false, null, []]);
    world.served = 2;
    await world.pass(25 * SECOND);

    assert.deepEqual([tab.snapshot.hasUpdate, tab.snapshot.updateInfo], [true, deployment]);
    assert.deepEqual(tab.heard("update"), [deployment]);
    const before = world.looks.length;
    await world.pass(HOUR);
    assert.equal(world.looks.length, before);
}));

test("served: a hidden page looks once, and again when it can be seen", inWorld(async (world) => {
    const tab = await world.page({ visible: false });
    await world.hub.deploy(2);
    await world.pass(10 * MINUTE);
    assert.equal(world.looks.length, 1);
    world.served = 2;
    await tab.show();
    await world.pass(0);

    assert.equal(tab.snapshot.hasUpdate, true);
}));

test("served: after an hour it looks no more until the page is seen again", inWorld(async (world) => {
    const tab = await world.page();
    await world.hub.deploy(2);
    await world.pass(2 * HOUR);
    const before = world.looks.length;
    await world.pass(2 * HOUR);
    assert.equal(world.looks.length, before);
    await tab.hide();
    await tab.show();
    await world.pass(20 * MINUTE);

    assert.ok(world.looks.length > before + 2);
}));

test("served: one tab of a browser asks, and all know", inWorld(async (world) => {
    const tabs = [await world.page(), await world.page(), await world.page()];
    let luck = 0;
    world.random = () => (luck = (luck + 0.37) % 1);
    const start = world.now;
    await world.hub.deploy(2);
    await world.pass(30 * SECOND);
    // As often as one tab would, whose pauses may be as short as the luckiest of three.
    assert.ok(looksSince(world, start).length <= 8, `${looksSince(world, start)}`);
    world.served = 2;
    await world.pass(2 * MINUTE);

    assert.deepEqual(tabs.map(({ snapshot }) => snapshot.hasUpdate), [true, true, true]);
}));

test("served: tabs that look at the same moment ask once", inWorld(async (world) => {
    const answers = [];
    world.fetch = () => new Promise((resolve) => answers.push(() => resolve(Response.json(versionJson(2)))));
    const tabs = [await world.page(), await world.page(), await world.page()];
    tabs[0].streams[0].say("deployment", { ...versionJson(2), deployedAt: world.now });
    await world.pass(SECOND / 2);
    const asked = answers.length;
    answers.at(-1)();
    await world.settle();

    assert.equal(answers.length, asked);
    assert.deepEqual(tabs.map(({ snapshot }) => snapshot.hasUpdate), [true, true, true]);
}));

test("served: without locks each tab asks for itself", inWorld(async (world) => {
    const tabs = [await world.page({ without: ["locks"] }), await world.page({ without: ["locks"] })];
    world.served = 2;
    await world.hub.deploy(2);
    await world.pass(SECOND);

    assert.deepEqual(tabs.map(({ snapshot }) => snapshot.hasUpdate), [true, true]);
}));

test("served: where locks are refused it asks all the same", inWorld(async (world) => {
    world.locks.refuse = new DOMException("not here", "SecurityError");
    const tab = await world.page();
    world.served = 2;
    await world.hub.deploy(2);
    await world.pass(SECOND);

    assert.equal(tab.snapshot.hasUpdate, true);
}));

test("served: another base of the same application is another matter", inWorld(async (world) => {
    const shop = await world.page({}, { base: "/shop/" });
    const other = await world.page({}, { base: "/other/" });
    const site = world.fetch;
    world.fetch = (tab, url, options) => {
        world.served = url.includes("/shop/") ? 2 : 1;
        return site.call(world, tab, url, options);
    };
    await world.hub.deploy(2);
    await world.pass(10 * SECOND);

    assert.deepEqual([shop.snapshot.hasUpdate, other.snapshot.hasUpdate], [true, false]);
}));

for (const [name, served] of [
    ["404", [404, "<h1>Not Found</h1>"]],
    ["403", [403, ""]],
    ["the index page for all addresses", INDEX_HTML],
    ["another application's", versionJson(2, { appName: "admin" })],
    ["one without a commit", { appName: "web", version: "2.0.0" }],
    ["other JSON", { name: "web", version: "2.0.0" }],
    ["null", [200, "null"]],
    ["a number", [200, "7"]],
]) {
    test(`served: ${name} is no check: the hub's word is enough`, inWorld(async (world) => {
        world.served = served;
        const tab = await world.page();
        await world.hub.deploy(2);
        await world.pass(SECOND);

        assert.equal(tab.snapshot.hasUpdate, true);
    }));

    test(`served: ${name} is not believed where the file has been read before`, inWorld(async (world) => {
        const tab = await world.page();
        await world.hub.deploy(2);
        await world.pass(4 * SECOND);
        assert.ok(world.looks.length > 1);
        world.served = served;
        await world.pass(10 * SECOND);
        assert.equal(tab.snapshot.hasUpdate, false);
        world.served = 2;
        await world.pass(2 * MINUTE);

        assert.equal(tab.snapshot.hasUpdate, true);
    }));
}

for (const [name, served] of [
    ["a 502", [502, "<h1>Bad Gateway</h1>"]],
    ["a 503 with JSON", [503, versionJson(2)]],
    ["a 429", [429, ""]],
    ["no network", new TypeError("Failed to fetch")],
    ["no answer", "never"],
]) {
    test(`served: after ${name} it isn't known yet, and it looks again`, inWorld(async (world) => {
        world.served = served;
        const tab = await world.page();
        await world.hub.deploy(2);
        await world.pass(20 * SECOND);
        assert.equal(tab.snapshot.hasUpdate, false);
        world.served = 2;
        await world.pass(2 * MINUTE);

        assert.equal(tab.snapshot.hasUpdate, true);
    }));
}

test("served: a 404 once the page has prompted takes nothing back", inWorld(async (world) => {
    const tab = await world.page();
    world.served = 2;
    await world.hub.deploy(2);
    await world.pass(SECOND);
    world.served = [404, ""];
    await world.hub.deploy(3);
    await world.pass(MINUTE);

    assert.equal(tab.snapshot.hasUpdate, true);
}));

test("served: without a check a deployment built before the page doesn't prompt", inWorld(async (world) => {
    world.served = [404, ""];
    const tab = await world.page({}, { current: build(2) });
    await world.hub.deploy(1);
    await world.pass(MINUTE);
    assert.equal(tab.snapshot.hasUpdate, false);
    await world.hub.deploy(3);
    await world.pass(MINUTE);

    assert.equal(tab.snapshot.hasUpdate, true);
}));

test("served: without a check a rollback prompts, though it was built before the page", inWorld(async (world) => {
    world.served = [404, ""];
    const tab = await world.page({}, { current: build(2) });
    await world.hub.deploy(1, { rollback: true });
    await world.pass(MINUTE);

    assert.equal(tab.snapshot.hasUpdate, true);
}));

for (const [name, page, record] of [["page", { buildTime: 0 }, {}], ["deployment", {}, { buildTime: 0 }]]) {
    test(`served: without a check, and without a build time of the ${name}, it prompts`, inWorld(async (world) => {
        world.served = [404, ""];
        const tab = await world.page({}, { current: build(1, page) });
        await world.hub.deploy(2, record);
        await world.pass(MINUTE);

        assert.equal(tab.snapshot.hasUpdate, true);
    }));
}

test("served: with a check a rollback prompts when it is served, and not before", inWorld(async (world) => {
    world.served = 2;
    const tab = await world.page({}, { current: build(2) });
    await world.hub.deploy(1, { rollback: true });
    await world.pass(5 * SECOND);
    assert.equal(tab.snapshot.hasUpdate, false);
    world.served = 1;
    await world.pass(MINUTE);

    assert.equal(tab.snapshot.hasUpdate, true);
}));

test("served: what was seen for a deployment that was taken back is no longer known", inWorld(async (world) => {
    await world.hub.deploy(1);
    const tab = await world.page();
    world.served = 2;
    await world.hub.deploy(2);
    await world.pass(SECOND);
    assert.equal(tab.snapshot.hasUpdate, true);
    world.served = 1;
    await world.hub.deploy(1, { rollback: true });
    await world.hub.deploy(3);
    await world.pass(MINUTE);
    assert.equal(tab.snapshot.hasUpdate, false);
    world.served = 3;
    await world.pass(10 * MINUTE);

    assert.equal(tab.snapshot.hasUpdate, true);
}));

test("served: where there was no check there may be one at the next deployment", inWorld(async (world) => {
    await world.hub.deploy(1);
    world.served = [404, ""];
    const tab = await world.page();
    await world.hub.deploy(2);
    await world.pass(SECOND);
    assert.equal(tab.snapshot.hasUpdate, true);
    await world.hub.deploy(1, { rollback: true });
    world.served = 1;
    await world.hub.deploy(3);
    assert.equal(tab.snapshot.hasUpdate, false);
    await world.pass(MINUTE);

    assert.equal(tab.snapshot.hasUpdate, false);
}));

test("served: an answer that comes after a deployment was taken back is about that one", inWorld(async (world) => {
    await world.hub.deploy(1);
    const tab = await world.page();
    let answer;
    const site = world.fetch;
    world.fetch = () => new Promise((resolve) => (answer = () => resolve(Response.json(versionJson(2)))));
    await world.hub.deploy(2);
    await world.pass(SECOND / 2);
    world.fetch = site;
    await world.hub.deploy(1, { rollback: true });
    answer();
    await world.settle();
    await world.hub.deploy(3);

    assert.equal(tab.snapshot.hasUpdate, false);
}));

test("served: what a tab with another version saw is no longer known at the next deployment", inWorld(async (world) => {
    world.served = 2;
    const old = await world.page();
    const other = await world.page({}, { current: build(2) });
    await world.hub.deploy(2);
    await world.pass(SECOND);
    assert.equal(old.snapshot.hasUpdate, true);
    const { length } = world.looks;
    await world.hub.deploy(1, { rollback: true });
    await world.pass(30 * SECOND);
    assert.ok(world.looks.length > length + 3);
    assert.ok(world.looks.slice(length).every(({ tab }) => tab === other));
    await other.close();
    const before = world.looks.length;
    await world.pass(10 * MINUTE);
    assert.equal(world.looks.length, before);
    world.served = 1;
    await world.hub.deploy(3);

    assert.equal(old.snapshot.hasUpdate, false);
    await world.pass(MINUTE);
    assert.equal(old.snapshot.hasUpdate, false);
}));

test("served: what isn't served for a second deployment either keeps the first one's prompt", inWorld(async (world) => {
    const tab = await world.page();
    world.served = 2;
    await world.hub.deploy(2);
    await world.pass(SECOND);
    const third = await world.hub.deploy(3);

    assert.deepEqual([tab.snapshot.hasUpdate, tab.snapshot.updateInfo], [true, third]);
}));

test("served: without a stamp the page runs what version.json said when it was loaded", inWorld(async (world) => {
    await world.hub.deploy(1);
    const tab = await world.page({}, { current: undefined });
    assert.equal(tab.snapshot.currentVersion, null);
    await world.pass(SECOND);
    assert.deepEqual(tab.snapshot.currentVersion, build(1));
    assert.equal(tab.snapshot.hasUpdate, false);
    world.served = 2;
    await world.hub.deploy(2);
    await world.pass(SECOND);

    assert.deepEqual([tab.snapshot.hasUpdate, tab.snapshot.currentVersion], [true, build(1)]);
    assert.deepEqual(world.warnings, []);
}));

test("served: without a stamp, a deployment that comes first waits for what the page runs", inWorld(async (world) => {
    const tab = world.tab();
    await world.hub.deploy(2);
    tab.watch({ current: null });
    await world.pass(3 * SECOND);
    assert.deepEqual([tab.snapshot.hasUpdate, tab.snapshot.currentVersion], [false, build(1)]);
    world.served = 2;
    await world.pass(MINUTE);

    assert.equal(tab.snapshot.hasUpdate, true);
}));

for (const [name, served] of [
    ["a 502", [502, ""]],
    ["no network", new TypeError("Failed to fetch")],
    ["no answer", "never"],
]) {
    test(`served: without a stamp, and with ${name} at the start, it is asked again`, inWorld(async (world) => {
        world.served = served;
        const [one, two] = await Promise.all([world.page({}, { current: null }), world.page({}, { current: null })]);
        await world.hub.deploy(1);
        await world.pass(2 * SECOND);
        world.served = 1;
        await world.pass(MINUTE);
        assert.deepEqual([one.snapshot.currentVersion, two.snapshot.currentVersion], [build(1), build(1)]);
        world.served = 2;
        await world.hub.deploy(2);
        await world.pass(5 * SECOND);

        assert.deepEqual([one.snapshot.hasUpdate, two.snapshot.hasUpdate], [true, true]);
    }));
}

test("served: with neither a stamp nor a version.json that is said once, andno prompt comes", inWorld(async (world) => {
    world.served = INDEX_HTML;
    const tab = await world.page({}, { current: null });
    await world.hub.deploy(1);
    await world.pass(SECOND);
    await world.page({}, { current: null });
    await world.pass(MINUTE);
    // Whatever is served from now on, it isn't what this page runs.
    world.served = 2;
    await world.hub.deploy(2);
    await world.page({}, { current: null });
    await world.pass(MINUTE);

    assert.deepEqual([tab.snapshot.hasUpdate, tab.snapshot.currentVersion], [false, null]);
    const lost = world.warnings.filter((warning) => warning.includes("nothing says what this page runs"));
    assert.equal(lost.length, 2, "one for each page that doesn't know");
}));
