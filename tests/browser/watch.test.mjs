import assert from "node:assert/strict";
import { test } from "node:test";
import { APP, build, HUB, inWorld, MINUTE, SECOND, versionJson } from "./world.mjs";

/** Deploy a build and serve it, and let the tabs see both. */
async function release(world, number, fields = {}) {
    world.served = number;
    const deployment = await world.hub.deploy(number, fields);
    await world.pass(SECOND);
    return deployment;
}

function prompts(...tabs) {
    return tabs.map(({ snapshot }) => snapshot.hasUpdate);
}

test("watch: from deployed to the prompt", inWorld(async (world) => {
    await world.hub.deploy(1);
    const tab = await world.page();
    const before = tab.snapshot;
    assert.deepEqual(before, {
        hasUpdate: false,
        updateInfo: null,
        currentVersion: build(1),
        connection: "live",
        isRollingOut: false,
    });
    const deployment = await release(world, 2);

    assert.deepEqual(tab.snapshot, { ...before, hasUpdate: true, updateInfo: deployment });
}));

test("watch: the snapshot is frozen, and the same object until something changes", inWorld(async (world) => {
    await world.hub.deploy(1);
    const tab = await world.page();
    const seen = [tab.snapshot];
    tab.last.subscribe(() => seen.push(tab.snapshot));
    await world.pass(10 * MINUTE);
    assert.equal(tab.snapshot, seen[0]);
    assert.equal(seen.length, 1);
    await release(world, 2);

    assert.equal(seen.length, 2);
    assert.equal(seen[1], tab.snapshot);
    assert.notEqual(seen[1], seen[0]);
    for (const snapshot of seen) {
        assert.ok(Object.isFrozen(snapshot) && Object.isFrozen(snapshot.currentVersion));
        assert.throws(() => (snapshot.hasUpdate = false), TypeError);
    }
}));

test("watch: who subscribed twice, or no longer, is told so often", inWorld(async (world) => {
    await world.hub.deploy(1);
    const tab = await world.page();
    let told = 0;
    const undo = tab.last.subscribe(() => told++);
    const other = tab.last.subscribe(() => (told += 10));
    undo();
    await release(world, 2);
    assert.equal(told, 10);
    other();
    await release(world, 3);

    assert.equal(told, 10);
}));

test("watch: each step is an event of the window and a callback, with the same details", inWorld(async (world) => {
    await world.hub.deploy(1);
    const called = [];
    const callback = (step) => (detail) => called.push([step, detail]);
    const tab = await world.page({}, {
        onDeployment: callback("deployment"),
        onUpdate: callback("update"),
        onDismiss: callback("dismiss"),
        onState: callback("state"),
        onRefresh: callback("refresh"),
    });
    const deployment = await release(world, 2);
    tab.run(() => tab.last.dismissUpdate());
    tab.run(() => tab.last.refreshApp());
    await world.settle();

    const names = tab.steps.map(([step]) => step);
    assert.deepEqual(names, ["deployment", "state", "deployment", "update", "dismiss", "refresh"]);
    assert.deepEqual(tab.steps.slice(-3), ["update", "dismiss", "refresh"].map((step) => [step, deployment]));
    assert.deepEqual(called, tab.steps);
}));

test("watch: whoever is told of a step finds it in the snapshot", inWorld(async (world) => {
    await world.hub.deploy(1);
    const tab = world.tab();
    const found = [];
    const look = () => found.push({ ...tab.snapshot });
    tab.watch({ onState: look, onUpdate: look, onDismiss: look });
    await world.settle();
    await release(world, 2);
    tab.run(() => tab.last.dismissUpdate());

    assert.deepEqual(found.map(({ connection, hasUpdate }) => [connection, hasUpdate]), [
        ["live", false],
        ["live", true],
        ["live", false],
    ]);
}));

test("watch: a callback, an event's listener or a subscriber that throws breaks nothing", inWorld(async (world) => {
    await world.hub.deploy(1);
    const fail = () => {
        throw new Error("not my day");
    };
    const names = ["onDeployment", "onUpdate", "onState", "onDismiss", "onBeforeRefresh", "onRefresh"];
    const tab = await world.page({}, Object.fromEntries(names.map((name) => [name, fail])));
    let told = 0;
    tab.last.subscribe(fail);
    tab.last.subscribe(() => told++);
    tab.window.addEventListener("vectr0:update", fail);
    await release(world, 2);
    assert.deepEqual(prompts(tab), [true]);
    assert.equal(told, 1);
    tab.run(() => tab.last.dismissUpdate());
    assert.deepEqual(prompts(tab), [false]);
    assert.equal(await tab.run(() => tab.last.refreshApp()), true);

    assert.ok(world.errors.splice(0).every(({ message }) => message === "not my day"));
}));

test("watch: the hub's clock is told by its pings, in all tabs", inWorld(async (world) => {
    world.hub.ahead = 3 * 60 * MINUTE;
    await world.hub.deploy(1);
    const [one, two] = [await world.page(), await world.page()];
    await world.pass(16 * SECOND);
    const late = await world.page();

    for (const tab of [one, two, late]) {
        assert.equal(tab.run(() => tab.last.now()), world.hub.now);
    }
}));

test("watch: several deployments in a row are one prompt, about the newest", inWorld(async (world) => {
    const tab = await world.page();
    await world.hub.deploy(2);
    await world.hub.deploy(3);
    const newest = await release(world, 4);

    assert.deepEqual([tab.snapshot.hasUpdate, tab.snapshot.updateInfo], [true, newest]);
    assert.deepEqual(tab.heard("update"), [newest]);
    const another = await release(world, 5);
    assert.deepEqual(tab.snapshot.updateInfo, another);
    assert.deepEqual(tab.heard("update"), [newest, another]);
}));

test("watch: another record of an id is another deployment", inWorld(async (world) => {
    const tab = await world.page();
    const lost = await release(world, 2);
    const other = await release(world, 3, { deployedAt: lost.deployedAt });

    assert.deepEqual(tab.snapshot.updateInfo, other);
    assert.deepEqual(tab.heard("deployment"), [lost, other]);
}));

test("watch: the prompt goes away by itself when the newest is again what the page runs", inWorld(async (world) => {
    const tab = await world.page();
    await release(world, 2);
    assert.deepEqual(prompts(tab), [true]);
    await release(world, 1, { rollback: true });

    assert.deepEqual([tab.snapshot.hasUpdate, tab.snapshot.updateInfo], [false, null]);
}));

test("watch: who runs the newest isn't prompted, who doesn't is: a rollback", inWorld(async (world) => {
    world.served = 2;
    const [old, bad] = [await world.page(), await world.page({}, { current: build(2) })];
    await world.hub.deploy(2);
    await world.pass(SECOND);
    assert.deepEqual(prompts(old, bad), [true, false]);
    const back = await release(world, 1, { rollback: true });

    assert.deepEqual(prompts(old, bad), [false, true]);
    assert.equal(bad.snapshot.updateInfo, bad.heard("update")[0]);
    assert.deepEqual(bad.snapshot.updateInfo, back);
}));

test("watch: the name of what tabs share holds the hub, the channel and the words' version", inWorld(async (world) => {
    const names = new Set();
    for (const options of [{}, { hub: `${HUB}other` }, { app: "admin" }, { environment: "staging" }]) {
        const tab = await world.page({}, options);
        names.add([...tab.channels][0].name);
        assert.equal(world.locks.heldBy(tab)[0], [...tab.channels][0].name);
    }

    assert.equal(names.size, 4);
    assert.match([...names][0], /^vectr0:\d+:https:\/\/hub\.example\/:web\/production$/);
}));

test("tabs: one connection per browser, and all are prompted", inWorld(async (world) => {
    await world.hub.deploy(1);
    const tabs = [await world.page(), await world.page(), await world.page()];
    assert.equal(world.streams.length, 1);
    const deployment = await release(world, 2);

    assert.deepEqual(prompts(...tabs), [true, true, true]);
    tabs.forEach((tab) => {
        assert.deepEqual(tab.heard("update"), [deployment]);
        assert.equal(tab.snapshot.connection, "live");
    });
    await world.pass(10 * MINUTE);
    assert.equal(world.streams.length, 1);
}));

test("tabs: each decides for itself", inWorld(async (world) => {
    world.served = 2;
    const [old, fresh] = [await world.page(), await world.page({}, { current: build(2) })];
    await world.hub.deploy(2);
    await world.pass(SECOND);

    assert.deepEqual(prompts(old, fresh), [true, false]);
}));

test("tabs: one that joins gets the newest from the lead", inWorld(async (world) => {
    await world.page();
    const deployment = await release(world, 2);
    const tab = await world.page();
    await world.pass(SECOND);

    assert.deepEqual([tab.snapshot.hasUpdate, tab.snapshot.updateInfo], [true, deployment]);
    assert.equal(tab.snapshot.connection, "live");
    assert.equal(world.streams.length, 1);
}));

test("tabs: when the lead closes another takes over, from the newest on, and misses nothing", inWorld(async (world) => {
    await world.hub.deploy(1);
    const [lead, one, two] = [await world.page(), await world.page(), await world.page()];
    world.hub.mode = "mute";
    await lead.close();
    world.served = 2;
    const missed = await world.hub.deploy(2);
    world.hub.mode = "well";
    world.hub.connect(world.open[0]);
    await world.pass(SECOND);

    assert.equal(world.open.length, 1);
    assert.equal(world.open[0].tab, one);
    assert.equal(world.open[0].id, `${world.hub.kept[0].deployedAt}`);
    assert.deepEqual(prompts(one, two), [true, true]);
    assert.deepEqual(two.snapshot.updateInfo, missed);
}));

test("tabs: when the lead crashes another takes over", inWorld(async (world) => {
    const [lead, one, two] = [await world.page(), await world.page(), await world.page()];
    await lead.crash();
    await release(world, 2);

    assert.equal(world.open.length, 1);
    assert.deepEqual(prompts(one, two), [true, true]);
}));

test("tabs: a frozen lead is replaced after 40 s, until it is heard again", inWorld(async (world) => {
    await world.hub.deploy(1);
    const [lead, one] = [await world.page(), await world.page()];
    await world.pass(MINUTE);
    lead.freeze();
    await world.pass(MINUTE);
    assert.equal(one.streams.length, 1);
    const meanwhile = await release(world, 2);
    assert.deepEqual(prompts(one), [true]);
    await lead.thaw();
    await world.pass(MINUTE);

    assert.deepEqual([lead.streams.length, one.streams.length], [1, 0]);
    assert.deepEqual(prompts(lead, one), [true, true]);
    assert.deepEqual(lead.snapshot.updateInfo, meanwhile);
}));

test("tabs: a thawed lead that knows only the past takes nothing back", inWorld(async (world) => {
    await release(world, 2);
    const [lead, one] = [await world.page(), await world.page()];
    await world.pass(SECOND);
    lead.freeze();
    lead.streams[0].readyState = 0;
    await world.pass(MINUTE);
    const newest = await release(world, 3);
    assert.deepEqual(one.snapshot.updateInfo, newest);
    world.hub.mode = "mute";
    await lead.thaw();
    const two = await world.page();
    await world.pass(SECOND);

    assert.deepEqual(one.heard("deployment").map(({ version }) => version), ["2.0.0", "3.0.0"]);
    assert.deepEqual(one.snapshot.updateInfo, newest);
    assert.deepEqual(two.snapshot.updateInfo?.version, "2.0.0");
    world.hub.mode = "well";
    await world.pass(2 * MINUTE);
    assert.deepEqual([lead, one, two].map(({ snapshot }) => snapshot.updateInfo), [newest, newest, newest]);
}));

test("tabs: what the hub itself says counts, even if it is older", inWorld(async (world) => {
    const first = await release(world, 2);
    const tabs = [await world.page(), await world.page()];
    await release(world, 3);
    world.open[0].say("deployment", first);
    await world.settle();

    assert.deepEqual(tabs.map(({ snapshot }) => snapshot.updateInfo), [first, first]);
}));

for (const missing of ["BroadcastChannel", "locks"]) {
    test(`tabs: without ${missing} each has its own connection`, inWorld(async (world) => {
        const tabs = [await world.page({ without: [missing] }), await world.page({ without: [missing] })];
        await release(world, 2);

        assert.equal(world.open.length, 2);
        assert.deepEqual(prompts(...tabs), [true, true]);
        tabs[0].run(() => tabs[0].last.dismissUpdate());
        await world.settle();
        assert.deepEqual(prompts(...tabs), [false, false], "by the storage event");
    }));
}

test("tabs: where locks are refused each connects, and they don't talk without end", inWorld(async (world) => {
    world.locks.refuse = new DOMException("not here", "SecurityError");
    const tabs = [await world.page(), await world.page(), await world.page()];
    await release(world, 2);
    assert.equal(world.open.length, 3);
    assert.deepEqual(prompts(...tabs), [true, true, true]);
    const before = world.messages;
    await world.pass(MINUTE);

    assert.ok(world.messages - before < 200, `${world.messages - before} messages in a minute`);
}));

test("tabs: three of them say only a few words a minute", inWorld(async (world) => {
    await Promise.all([world.page(), world.page(), world.page()]);
    const before = world.messages;
    await world.pass(MINUTE);

    assert.ok(world.messages - before < 100, `${world.messages - before} messages in a minute`);
}));

test("tabs: while any of them can be seen, a lead that can't polls on", inWorld(async (world) => {
    await world.hub.deploy(1);
    world.hub.mode = "held";
    const [lead, seen] = [await world.page({ visible: false }), await world.page()];
    await world.pass(30 * SECOND);
    assert.equal(seen.snapshot.connection, "polling");
    await release(world, 2);
    await world.pass(80 * SECOND);
    assert.deepEqual(prompts(lead, seen), [true, true]);
    await seen.close();
    await world.pass(3 * MINUTE);
    const before = world.polls.length;
    await world.pass(10 * MINUTE);

    assert.equal(world.polls.length, before);
}));

test("tabs: one that is seen again wakes the lead", inWorld(async (world) => {
    await world.hub.deploy(1);
    const [lead, other] = [await world.page({ visible: false }), await world.page({ visible: false })];
    world.hub.mode = "refusing";
    lead.streams[0].refuse();
    await world.pass(10 * MINUTE);
    world.hub.mode = "well";
    await other.show();

    assert.equal(lead.streams.length, 1);
    assert.equal(other.snapshot.connection, "live");
}));

test("later: it is remembered for that deployment, in all tabs and after a reload", inWorld(async (world) => {
    const [one, two] = [await world.page(), await world.page()];
    const deployment = await release(world, 2);
    two.run(() => two.last.dismissUpdate());
    await world.settle();
    assert.deepEqual(prompts(one, two), [false, false]);
    assert.deepEqual(two.heard("dismiss"), [deployment]);
    assert.deepEqual(one.snapshot.updateInfo, deployment, "it is still an update");
    const reloaded = await one.reload();
    reloaded.watch();
    const fresh = await world.page();
    await world.pass(10 * MINUTE);
    assert.deepEqual(prompts(reloaded, two, fresh), [false, false, false]);
    await release(world, 3);

    assert.deepEqual(prompts(reloaded, two, fresh), [true, true, true]);
}));

test("later: where nothing is prompted there is nothing to dismiss", inWorld(async (world) => {
    const tab = await world.page();
    await world.hub.deploy(2);
    tab.run(() => tab.last.dismissUpdate());
    world.served = 2;
    await world.pass(MINUTE);

    assert.deepEqual(tab.heard("dismiss"), []);
    assert.deepEqual(prompts(tab), [true]);
}));

test("later: it is heard by tabs that watch without channels, and by those without storage", inWorld(async (world) => {
    const tabs = [await world.page(), await world.page({ without: ["BroadcastChannel"] })];
    const unable = await world.page({ without: ["localStorage", "sessionStorage"] });
    await release(world, 2);
    tabs[0].run(() => tabs[0].last.dismissUpdate());
    await world.settle();

    assert.deepEqual(prompts(...tabs, unable), [false, false, false]);
}));

test("later: another application's storage is not mistaken for it", inWorld(async (world) => {
    const [web, admin] = [await world.page(), await world.page({}, { app: "admin" })];
    await release(world, 2);
    admin.run(() => admin.last.dismissUpdate());
    await world.settle();

    assert.deepEqual(prompts(web), [true]);
}));

test("storage that throws breaks nothing", inWorld(async (world) => {
    const tab = await world.page({ without: ["localStorage", "sessionStorage"] });
    await release(world, 2);
    tab.run(() => tab.last.dismissUpdate());
    assert.deepEqual(prompts(tab), [false]);
    await tab.fire("storage");
    assert.deepEqual(prompts(tab), [false]);
    await release(world, 3);
    assert.deepEqual(prompts(tab), [true]);

    assert.equal(await tab.run(() => tab.last.refreshApp()), true);
}));

test("back/forward cache: pagehide closes, pageshow opens again, from the newest on", inWorld(async (world) => {
    await world.hub.deploy(1);
    const tab = await world.page();
    await tab.away();
    assert.deepEqual([tab.streams.length, tab.channels.size, world.locks.heldBy(tab)], [0, 0, []]);
    world.served = 2;
    await world.hub.deploy(2);
    await tab.back();
    await world.pass(SECOND);

    assert.equal(tab.streams.length, 1);
    assert.equal(tab.streams[0].id, `${world.hub.kept[0].deployedAt}`);
    assert.deepEqual(prompts(tab), [true]);
}));

test("back/forward cache: the other tabs go on, and tell who comes back", inWorld(async (world) => {
    const [one, two] = [await world.page(), await world.page()];
    await one.away();
    await release(world, 2);
    assert.deepEqual(prompts(two), [true]);
    two.run(() => two.last.dismissUpdate());
    await one.back();
    await world.pass(MINUTE);

    assert.equal(world.open.length, 1);
    assert.deepEqual(prompts(one), [false], "dismissed meanwhile");
    assert.equal(one.snapshot.updateInfo.buildNumber, 2);
}));

test("back/forward cache: who left before the new version was served looks on when back", inWorld(async (world) => {
    const tab = await world.page();
    await world.hub.deploy(2);
    await world.pass(2 * SECOND);
    await tab.away();
    await world.pass(10 * MINUTE);
    world.served = 2;
    await tab.back();
    await world.pass(MINUTE);

    assert.deepEqual(prompts(tab), [true]);
}));

test("back/forward cache: who left not knowing what the page runs learns it when back", inWorld(async (world) => {
    world.served = [502, ""];
    const tab = await world.page({}, { current: null });
    await world.pass(SECOND);
    await tab.away();
    world.served = 1;
    await tab.back();
    await world.pass(MINUTE);

    assert.deepEqual(tab.snapshot.currentVersion, build(1));
}));

test("back/forward cache: a first showing is no coming back", inWorld(async (world) => {
    const tab = await world.page();
    await tab.fire("pageshow", { persisted: false });

    assert.equal(world.streams.length, 1);
}));

test("freeze and resume are as leaving and coming back", inWorld(async (world) => {
    const [tab, other] = [await world.page({ visible: false }), await world.page()];
    await tab.fire("freeze", {}, tab.document.target);
    assert.deepEqual([tab.streams.length, other.streams.length], [0, 1]);
    await release(world, 2);
    await tab.fire("resume", {}, tab.document.target);
    await world.pass(SECOND);

    assert.deepEqual(prompts(tab, other), [true, true]);
    assert.equal(world.open.length, 1);
}));

test("freeze and resume inside the back/forward cache are one coming back", inWorld(async (world) => {
    const tab = await world.page();
    await tab.fire("pagehide", { persisted: true });
    await tab.fire("freeze", {}, tab.document.target);
    await tab.fire("resume", {}, tab.document.target);
    await tab.fire("pageshow", { persisted: true });

    assert.equal(tab.streams.length, 1);
    assert.equal(world.streams.length, 2);
}));

test("connection: it is told as it is, to the lead and to who follows", inWorld(async (world) => {
    await world.hub.deploy(1);
    const tabs = [await world.page(), await world.page()];
    const states = () => tabs.map(({ snapshot }) => snapshot.connection);
    assert.deepEqual(states(), ["live", "live"]);
    tabs[0].globals.navigator.onLine = false;
    await tabs[0].fire("offline");
    assert.deepEqual(states(), ["offline", "offline"]);
    world.hub.mode = "mute";
    tabs[0].globals.navigator.onLine = true;
    await tabs[0].fire("online");
    assert.deepEqual(states(), ["connecting", "connecting"]);
    world.hub.mode = "well";
    await world.pass(MINUTE);
    assert.deepEqual(states(), ["live", "live"]);
}));

test("warnings: a channel without deployments is one warning, however often it connects", inWorld(async (world) => {
    const tab = await world.page();
    await tab.fire("online");
    await tab.away();
    await tab.back();
    await tab.fire("online");

    assert.deepEqual(world.warnings, ["vectr0: no deployment of web/production; is its name right?"]);
}));

test("warnings: something else than a hub is one warning, and a 502 none", inWorld(async (world) => {
    world.hub.mode = "refusing";
    await world.page();
    await world.pass(5 * MINUTE);
    assert.deepEqual(world.warnings, []);
    world.hub.answer = () => [200, "<title>Shop</title>"];
    const tab = await world.page({}, { environment: "staging" });
    await world.pass(5 * MINUTE);
    await tab.away();
    await tab.back();
    await world.pass(MINUTE);

    assert.equal(world.warnings.filter((warning) => warning.includes("staging")).length, 1);
    assert.match(world.warnings[0], /^vectr0: .*unlike a hub/);
}));

/** Watch without a listener of the test's own, so that all that stays is the watch's. */
async function bare(world, options = {}) {
    const tab = world.tab();
    tab.start(options);
    await world.settle();
    return tab;
}

for (const [name, happen] of [
    ["at once", () => {}],
    ["while it is live", (world) => world.pass(MINUTE)],
    ["while it looks", (world) => world.hub.deploy(2)],
    ["while it looks slowly", async (world) => (await world.hub.deploy(2), await world.pass(MINUTE))],
    ["while it prompts", (world) => release(world, 2)],
    ["while a failed refresh rests", async (world, tab) => {
        await release(world, 2);
        await tab.run(() => tab.last.refreshApp());
        tab.run(() => tab.last.close());
        tab.start();
        await world.pass(10 * SECOND);
        assert.deepEqual([tab.snapshot.hasUpdate, tab.snapshot.isRollingOut], [false, true]);
    }],
    ["while a look is under way", async (world) => {
        world.served = "never";
        await world.hub.deploy(2);
        await world.pass(SECOND / 2);
    }],
    ["while the hub refuses", async (world, tab) => {
        world.hub.mode = "refusing";
        tab.streams[0].refuse();
    }],
    ["while it is away", (world, tab) => tab.fire("pagehide", { persisted: true })],
]) {
    test(`close: it leaves nothing: ${name}`, inWorld(async (world) => {
        const tab = await bare(world);
        await bare(world, { app: "other" });
        await happen(world, tab);
        const { length } = world.requests;
        tab.run(() => tab.last.close());
        await world.settle();
        await tab.fire("visibilitychange", {}, tab.document.target);
        await tab.fire("pageshow", { persisted: true });
        // A refresh's own time limits end by themselves.
        await world.pass(5 * SECOND);
        assert.equal(tab.timers, 0);
        await world.pass(10 * MINUTE);

        assert.deepEqual([tab.timers, tab.listening, tab.streams.length, tab.channels.size], [0, [], 0, 0]);
        assert.deepEqual(world.locks.heldBy(tab), []);
        assert.ok(world.requests.slice(length).every((request) => request.tab !== tab));
    }));
}

test("close: what was under way comes to nothing: no step, no prompt, no timer", inWorld(async (world) => {
    for (const current of [build(1), null]) {
        const steps = [];
        const tab = await bare(world, { current, onUpdate: () => steps.push("update") });
        let answer;
        const site = world.fetch;
        world.fetch = () => new Promise((resolve) => (answer = () => resolve(Response.json(versionJson(2)))));
        await world.hub.deploy(2);
        await world.pass(SECOND);
        const before = tab.snapshot;
        tab.run(() => tab.last.close());
        answer();
        await world.settle();
        world.fetch = site;

        assert.deepEqual([tab.timers, steps], [0, []]);
        assert.equal(tab.snapshot, before);
        await tab.close();
    }
}));

for (const step of ["onState", "onDeployment", "onUpdate", "onDismiss"]) {
    test(`close: it may be closed in ${step}`, inWorld(async (world) => {
        const tab = world.tab();
        const other = await world.page();
        await world.hub.deploy(1);
        tab.watch({ [step]: () => tab.last.close() });
        await world.settle();
        await release(world, 2);
        tab.run(() => tab.last.dismissUpdate());
        await other.close();
        await world.pass(MINUTE);

        assert.deepEqual([tab.timers, tab.streams.length, tab.channels.size], [0, 0, 0]);
    }));

    test(`close: it may be closed in ${step}, by the lead`, inWorld(async (world) => {
        const tab = world.tab();
        await world.hub.deploy(1);
        tab.watch({ [step]: () => tab.last.close() });
        await world.settle();
        await release(world, 2);
        tab.run(() => tab.last.dismissUpdate());
        await world.pass(MINUTE);

        assert.deepEqual([tab.timers, tab.streams.length, tab.channels.size], [0, 0, 0]);
    }));
}

test("close: after it was closed in a callback, no other step comes", inWorld(async (world) => {
    await world.hub.deploy(1);
    const steps = [];
    const tab = world.tab();
    const onDeployment = ({ buildNumber }) => buildNumber === 3 && tab.last.close();
    tab.watch({ onDeployment, onUpdate: ({ buildNumber }) => steps.push(buildNumber) });
    await world.settle();
    await release(world, 2);
    await release(world, 3);

    assert.deepEqual(steps, [2]);
}));

test("close: twice is once", inWorld(async (world) => {
    const tab = await world.page();
    tab.run(() => tab.last.close());
    tab.run(() => tab.last.close());

    assert.equal(tab.timers, 0);
}));

test("shareWatch: users of equal options share one watch, which closes after the last", inWorld(async (world) => {
    const tab = world.tab();
    const [one, releaseOne] = tab.share(APP);
    const [two, releaseTwo] = tab.share({ ...APP });
    await world.settle();
    assert.equal(one, two);
    assert.equal(world.streams.length, 1);
    tab.run(releaseOne);
    await world.pass(SECOND);
    assert.equal(tab.streams.length, 1);
    tab.run(releaseTwo);
    await world.pass(SECOND);

    assert.deepEqual([tab.streams.length, tab.timers, tab.listening], [0, 0, []]);
    const [three, releaseThree] = tab.share(APP);
    assert.notEqual(three, one);
    tab.run(releaseThree);
    await world.pass(SECOND);
}));

test("shareWatch: letting go and taking again at once keeps the watch", inWorld(async (world) => {
    const tab = world.tab();
    const [one, releaseOne] = tab.share(APP);
    tab.run(releaseOne);
    const [two, releaseTwo] = tab.share(APP);
    await world.pass(SECOND);

    assert.equal(one, two);
    assert.equal(world.streams.length, 1);
    assert.equal(tab.streams.length, 1);
    tab.run(releaseTwo);
    await world.pass(SECOND);
    assert.equal(tab.streams.length, 0);
}));

test("shareWatch: who lets go twice lets go for nobody else", inWorld(async (world) => {
    const tab = world.tab();
    const [, releaseOne] = tab.share(APP);
    const [, releaseTwo] = tab.share(APP);
    tab.run(releaseOne);
    tab.run(releaseOne);
    await world.pass(SECOND);
    assert.equal(tab.streams.length, 1);
    tab.run(releaseTwo);
    await world.pass(SECOND);

    assert.equal(tab.streams.length, 0);
}));

test("shareWatch: other options are another watch; what can't be watched is said each time", inWorld(async (world) => {
    const tab = world.tab();
    const [one, releaseOne] = tab.share(APP);
    const [two, releaseTwo] = tab.share({ ...APP, environment: "staging" });
    assert.notEqual(one, two);
    assert.throws(() => tab.share({ app: "web" }), TypeError);
    assert.throws(() => tab.share({ app: "web" }), TypeError);
    tab.run(releaseOne);
    tab.run(releaseTwo);
    await world.pass(SECOND);
}));

// What the hub is told that runs here

/** What the open stream tells. */
function told(world) {
    assert.equal(world.open.length, 1);
    return new URL(world.open[0].url).searchParams.get("running");
}

test("running: the stream tells what the page runs", inWorld(async (world) => {
    await world.page();

    assert.equal(told(world), "1111111~1");
}));

test("running: a build without a number has the number 0", inWorld(async (world) => {
    await world.page({}, { current: build(1, { buildNumber: 0 }) });

    assert.equal(told(world), "1111111~0");
}));

test("running: whatever a commit is called, the hub hears it as it is", inWorld(async (world) => {
    await world.page({}, { current: build(1, { gitCommit: "feature/a&b #1" }) });

    assert.equal(told(world), "feature/a&b #1~1");
}));

test("running: of several tabs the oldest build is told, and anew when that tab is gone", inWorld(async (world) => {
    await world.hub.deploy(2);
    world.served = 2;
    const lead = await world.page({}, { current: build(2) });
    assert.equal(told(world), "2222222~2");
    const old = await world.page({}, { current: build(1) });
    const other = await world.page({}, { current: build(2) });
    await world.pass(11 * SECOND);
    assert.equal(told(world), "1111111~1");
    await world.pass(10 * MINUTE);
    assert.equal(world.streams.length, 2);
    await old.crash();
    await world.pass(16 * SECOND);

    assert.equal(told(world), "2222222~2");
    assert.equal(world.streams.length, 3);
    assert.deepEqual([lead, other].map((tab) => tab.snapshot.connection), ["live", "live"]);
}));

test("running: without build times the lowest number is the oldest", inWorld(async (world) => {
    await world.page({}, { current: build(2, { buildTime: 0 }) });
    await world.page({}, { current: build(1, { buildTime: 0 }) });
    await world.pass(11 * SECOND);

    assert.equal(told(world), "1111111~1");
}));

test("running: a tab that takes the lead tells the oldest build soon", inWorld(async (world) => {
    const lead = await world.page({}, { current: build(1) });
    await world.page({}, { current: build(2) });
    await world.page({}, { current: build(1) });
    await lead.close();
    await world.pass(11 * SECOND);

    assert.equal(told(world), "1111111~1");
    assert.ok(world.streams.length <= 3);
}));

test("running: telling it anew prompts nobody twice, and misses nothing", inWorld(async (world) => {
    await world.hub.deploy(1);
    const [lead, other] = [await world.page({}, { current: build(2) }), await world.page({}, { current: build(2) })];
    world.served = 3;
    await world.hub.deploy(3);
    await world.pass(MINUTE);
    assert.deepEqual([lead, other].map((tab) => tab.heard("update").length), [1, 1]);
    const old = await world.page({}, { current: build(1) });
    await world.pass(MINUTE);
    assert.equal(told(world), "1111111~1");
    world.served = 4;
    await world.hub.deploy(4);
    await world.pass(MINUTE);

    assert.deepEqual([lead, other].map((tab) => tab.heard("update").length), [2, 2]);
    assert.deepEqual([lead, other, old].map((tab) => tab.heard("deployment").length), [3, 3, 2]);
    assert.equal(lead.heard("state").filter((state) => state !== "live").length, 0);
}));

test("running: where neither the page nor a version.json tells, one stream is enough", inWorld(async (world) => {
    world.served = [404, ""];
    await world.page({}, { current: null });
    await world.pass(MINUTE);

    assert.equal(told(world), "");
    assert.equal(world.streams.length, 1);
    world.warnings.length = 0;
}));

test("running: what only version.json tells is told when that is known", inWorld(async (world) => {
    await world.page({}, { current: null });
    await world.pass(6 * SECOND);

    assert.equal(told(world), "1111111~1");
}));

for (const missing of ["BroadcastChannel", "locks"]) {
    test(`running: without ${missing} each tab tells its own`, inWorld(async (world) => {
        for (const number of [1, 2]) {
            await world.page({ without: [missing] }, { current: build(number) });
        }
        await world.pass(MINUTE);

        assert.deepEqual(
            world.streams.map(({ url }) => new URL(url).searchParams.get("running")),
            ["1111111~1", "2222222~2"],
        );
    }));
}
