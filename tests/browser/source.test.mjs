import assert from "node:assert/strict";
import { test } from "node:test";
import { backoff, Source } from "../../service/browser/source.js";
import { HUB, inWorld, MINUTE, SECOND, versionJson } from "./world.mjs";

const PROBLEM = [404, { status: 404, title: "Not Found", detail: "no deployment of web/production is known" }];
const HTML = [200, "<!doctype html><title>Shop</title>"];

/** Open a source in a tab of its own. What it says is in `deployments`, `pings` and `states`. */
async function listening(world, { visible = true, hub = HUB, running = "", ...page } = {}) {
    const tab = world.tab(page);
    const heard = { tab, running, isVisible: visible, deployments: [], pings: [], states: [], problems: [] };
    heard.source = tab.run(
        () =>
            new Source(hub, "/web/production", {
                onMessage: ({ deployment, now, state }) => {
                    if (deployment) heard.deployments.push(deployment);
                    if (now) heard.pings.push(now);
                    if (state) heard.states.push(state);
                },
                onProblem: (problem) => heard.problems.push(problem),
                newestId: () => heard.deployments.at(-1)?.deployedAt,
                isVisible: () => heard.isVisible,
                running: () => heard.running,
            }),
    );
    Object.defineProperty(heard, "state", { get: () => heard.states.at(-1) });
    await world.settle();
    return heard;
}

/** Time until another EventSource is opened. */
async function untilOpened(world, longest = 10 * MINUTE) {
    const before = world.streams.length;
    const start = world.now;
    while (world.streams.length === before && world.now - start < longest) {
        await world.pass(SECOND / 10);
    }
    return world.now - start;
}

test("backoff: it is any part of a time that doubles up to a minute", inWorld(async (world) => {
    const tab = world.tab();
    for (const [attempt, most] of [[0, 1], [1, 2], [2, 4], [5, 32], [6, 60], [7, 60], [50, 60], [2000, 60]]) {
        for (const part of [0, 0.25, 0.999]) {
            world.random = () => part;

            assert.equal(tab.run(() => backoff(attempt)), part * most * SECOND);
            assert.equal(tab.run(() => backoff(attempt, SECOND / 2)), (part * SECOND) / 2);
        }
    }
}));

test("source: without a channel it is all, and more can be listened to of each stream", inWorld(async (world) => {
    const taken = [];
    const nothing = () => undefined;
    const source = world.tab().run(
        () =>
            new Source(HUB, "", {
                onMessage: nothing,
                onProblem: nothing,
                onStream: (events) => taken.push(events),
                newestId: nothing,
                isVisible: nothing,
                running: () => "",
            }),
    );
    await world.settle();
    source.close();

    assert.equal(taken.length, 1);
    assert.equal(taken[0], world.streams[0]);
    assert.equal(new URL(world.streams[0].url).pathname, "/events");
    assert.equal(world.requests[0]?.url, `${HUB}deployments`);
}));

test("source: the newest deployment comes when it opens, others when they are recorded", inWorld(async (world) => {
    const first = await world.hub.deploy(1);
    const heard = await listening(world);
    const second = await world.hub.deploy(2);

    assert.deepEqual(heard.deployments, [first, second]);
    assert.deepEqual([heard.states[0], heard.state], ["connecting", "live"]);
    assert.equal(world.streams[0].url, `${HUB}events/web/production?running=`);
    assert.equal(world.requests.length, 0);
}));

test("source: pings carry the hub's clock", inWorld(async (world) => {
    world.hub.ahead = 5 * MINUTE;
    await world.hub.deploy(1);
    const heard = await listening(world);
    await world.pass(16 * SECOND);

    assert.equal(heard.pings.length, 1);
    assert.ok(heard.pings[0] - world.now > 4 * MINUTE);
}));

test("source: a hub behind a path prefix is asked below it", inWorld(async (world) => {
    world.hub.mode = "refusing";
    await listening(world, { hub: `${HUB}vectr0/` });

    assert.equal(world.streams[0].url, `${HUB}vectr0/events/web/production?running=`);
    assert.equal(world.polls[0].url, `${HUB}vectr0/deployments/web/production/latest`);
}));

test("source: one that is closed for good is opened again, ever later, until it is heard", inWorld(async (world) => {
    await world.hub.deploy(1);
    world.hub.mode = "refusing";
    const heard = await listening(world);
    const waits = [];
    for (let attempt = 0; attempt < 8; attempt++) {
        waits.push(await untilOpened(world));
    }

    assert.deepEqual(waits, [0.5, 1, 2, 4, 8, 16, 30, 30].map((seconds) => seconds * SECOND));
    assert.equal(heard.state, "connecting");
    world.hub.mode = "well";
    await world.pass(MINUTE);
    assert.equal(heard.state, "live");
    world.open[0].refuse();
    assert.equal(await untilOpened(world), 0.5 * SECOND);
    assert.equal(world.open.length, 1);
}));

test("source: a lost line is the browser's to mend", inWorld(async (world) => {
    await world.hub.deploy(1);
    const heard = await listening(world);
    world.open[0].lose();
    assert.equal(heard.state, "connecting");
    await world.pass(MINUTE);
    world.open[0].accept();
    world.open[0].say("ping", { now: world.now });
    await world.settle();

    assert.equal(world.streams.length, 1);
    assert.equal(heard.state, "live");
}));

test("source: 40 s of silence on an open line and it is opened anew, from the newest on", inWorld(async (world) => {
    const { deployedAt } = await world.hub.deploy(1);
    const heard = await listening(world);
    world.hub.mode = "silent";
    await world.pass(39 * SECOND);
    assert.equal(world.streams.length, 1);
    await world.pass(7 * SECOND);

    assert.equal(world.streams.length, 2);
    assert.equal(world.open.length, 1);
    assert.equal(world.open[0].url, `${HUB}events/web/production?running=&lastEventId=${deployedAt}`);
    assert.equal(heard.deployments.length, 1);
}));

test("source: each ping ends the silence", inWorld(async (world) => {
    await world.hub.deploy(1);
    await listening(world);
    await world.pass(10 * MINUTE);

    assert.equal(world.streams.length, 1);
}));

test("source: a full hub's retry of a minute is not silence", inWorld(async (world) => {
    await world.hub.deploy(1);
    const heard = await listening(world);
    world.open[0].lose();
    await world.pass(60 * SECOND);
    assert.equal(world.streams.length, 1);
    world.open[0].accept();
    // Between the answer's head and its first event there is no reason to be impatient.
    await world.pass(10 * SECOND);
    assert.equal(world.streams.length, 1);
    world.open[0].say("ping", { now: world.now });
    await world.pass(SECOND);

    assert.equal(heard.state, "live");
}));

test("source: an EventSource that connects for ever is not trusted", inWorld(async (world) => {
    await world.hub.deploy(1);
    await listening(world);
    world.open[0].lose();
    world.hub.mode = "mute";
    await world.pass(90 * SECOND);
    assert.equal(world.streams.length, 1);
    await world.pass(10 * SECOND);

    assert.equal(world.streams.length, 2);
}));

test("source: a stream that is held back is given up for polling, and that says so", inWorld(async (world) => {
    const deployment = await world.hub.deploy(1);
    world.hub.mode = "held";
    const heard = await listening(world);
    await world.pass(14 * SECOND);
    assert.deepEqual(world.polls, []);
    await world.pass(7 * SECOND);

    assert.equal(heard.state, "polling");
    assert.deepEqual(heard.deployments, [deployment]);
    assert.equal(world.streams[0].readyState, 2);
}));

test("source: a poll lets the browser send the ETag, without a preflight", inWorld(async (world) => {
    await world.hub.deploy(1);
    world.hub.mode = "held";
    await listening(world);
    await world.pass(20 * SECOND);

    assert.equal(world.polls[0].cache, "no-cache");
    assert.equal(world.polls[0].headers, undefined);
}));

for (const [part, seconds] of [[0, 45], [0.5, 60], [0.999, 75]]) {
    test(`source: it polls about once a minute: at luck ${part} every ${seconds} s`, inWorld(async (world) => {
        await world.hub.deploy(1);
        world.hub.mode = "held";
        const heard = await listening(world);
        await world.pass(20 * SECOND);
        world.random = () => part;
        await world.pass(5 * MINUTE);
        const times = world.polls.slice(-2).map(({ at }) => at);

        assert.ok(Math.abs(times[1] - times[0] - seconds * SECOND) < SECOND);
        const next = await world.hub.deploy(2);
        await world.pass(80 * SECOND);
        assert.deepEqual(heard.deployments.at(-1), next);
    }));
}

test("source: it doesn't poll while nobody sees the page, and at once when somebody does", inWorld(async (world) => {
    await world.hub.deploy(1);
    world.hub.mode = "held";
    const heard = await listening(world);
    await world.pass(20 * SECOND);
    heard.isVisible = false;
    const before = world.polls.length;
    await world.pass(4 * MINUTE);
    assert.equal(world.polls.length, before);
    heard.isVisible = true;
    heard.tab.run(() => heard.source.wake());
    await world.settle();

    assert.equal(world.polls.length, before + 1);
}));

test("source: from polling it goes back to the stream when that gets through", inWorld(async (world) => {
    await world.hub.deploy(1);
    world.hub.mode = "held";
    const heard = await listening(world);
    await world.pass(60 * MINUTE);
    assert.equal(heard.state, "polling");
    const tries = world.streams.map(({ at }) => at);
    assert.deepEqual([tries[1] - tries[0], tries.at(-1) - tries.at(-2)], [20.5 * SECOND, 170 * SECOND]);
    world.hub.mode = "well";
    await untilOpened(world);
    assert.equal(heard.state, "live");
    assert.equal(world.open.length, 1);
    const before = world.polls.length;
    await world.pass(10 * MINUTE);
    assert.equal(world.polls.length, before);
    world.open[0].lose();

    assert.equal(heard.state, "connecting");
}));

test("source: still held back, it goes on polling, and never says otherwise", inWorld(async (world) => {
    await world.hub.deploy(1);
    world.hub.mode = "held";
    const heard = await listening(world);
    await world.pass(20 * SECOND);
    const from = heard.states.length;
    await world.pass(30 * MINUTE);

    assert.ok(world.streams.length > 3);
    assert.deepEqual(new Set(heard.states.slice(from)), new Set(["polling"]));
    assert.ok(world.polls.length > 20);
}));

test("source: a proxy that cuts every stream short is polled through, too", inWorld(async (world) => {
    const deployment = await world.hub.deploy(1);
    world.hub.mode = "mute";
    world.hub.answer = () => [200, world.hub.newest];
    const heard = await listening(world);
    for (let times = 0; times < 4; times++) {
        await world.pass(4 * SECOND);
        world.open.forEach((stream) => stream.lose());
    }
    await world.pass(6 * SECOND);

    assert.equal(heard.state, "polling");
    assert.deepEqual(heard.deployments, [deployment]);
}));

test("source: a proxy that refuses streams only is polled through, too", inWorld(async (world) => {
    const deployment = await world.hub.deploy(1);
    world.hub.mode = "refusing";
    world.hub.answer = () => [200, world.hub.newest];
    const heard = await listening(world);
    await world.pass(MINUTE);

    assert.equal(heard.state, "polling");
    assert.deepEqual(heard.deployments[0], deployment);
    const next = await world.hub.deploy(2);
    await world.pass(80 * SECOND);
    assert.deepEqual(heard.deployments.at(-1), next);
    world.hub.mode = "well";
    await world.pass(5 * MINUTE);
    assert.equal(heard.state, "live");
}));

test("source: a held-back stream of a channel without deployments is polled, too", inWorld(async (world) => {
    world.hub.mode = "held";
    const heard = await listening(world);
    await world.pass(20 * SECOND);

    assert.equal(heard.state, "polling");
    const first = await world.hub.deploy(1);
    await world.pass(80 * SECOND);
    assert.deepEqual(heard.deployments, [first]);
}));

test("source: a hub that takes the connection and never answers doesn't end the attempts", inWorld(async (world) => {
    world.hub.mode = "mute";
    const heard = await listening(world);
    await world.pass(2 * MINUTE);
    assert.ok(world.streams.length > 1, "tried again");
    await world.hub.deploy(1);
    world.hub.mode = "well";
    await world.pass(2 * MINUTE);

    assert.equal(heard.state, "live");
    assert.equal(heard.deployments.length, 1);
}));

test("source: a poll without an answer doesn't end the polling", inWorld(async (world) => {
    await world.hub.deploy(1);
    world.hub.mode = "held";
    const heard = await listening(world);
    await world.pass(20 * SECOND);
    world.hub.answer = () => "never";
    await world.pass(2 * MINUTE);
    world.hub.answer = null;
    const next = await world.hub.deploy(2);
    await world.pass(2 * MINUTE);

    assert.deepEqual(heard.deployments.at(-1), next);
}));

test("source: an answer that comes after it was closed changes nothing", inWorld(async (world) => {
    const deployment = await world.hub.deploy(1);
    let answer;
    world.hub.mode = "held";
    world.fetch = () => new Promise((resolve) => (answer = () => resolve(Response.json(deployment))));
    const heard = await listening(world);
    await world.pass(20 * SECOND);
    heard.tab.run(() => heard.source.close());
    answer();
    await world.settle();

    assert.deepEqual([heard.deployments, heard.tab.timers], [[], 0]);
}));

test("source: an answer to a poll that comes after the stream was heard changes nothing", inWorld(async (world) => {
    const old = await world.hub.deploy(1);
    let answer;
    world.hub.mode = "held";
    const heard = await listening(world);
    const fetch = world.fetch;
    world.fetch = () => new Promise((resolve) => (answer = () => resolve(Response.json(old))));
    await world.pass(20 * SECOND);
    world.fetch = fetch;
    world.hub.mode = "well";
    await world.hub.deploy(2);
    await heard.tab.fire("online");
    assert.equal(heard.state, "live");
    answer();
    await world.settle();

    assert.equal(heard.state, "live");
    assert.equal(heard.deployments.at(-1).buildNumber, 2);
}));

test("source: offline it says so and is still, online it opens at once", inWorld(async (world) => {
    await world.hub.deploy(1);
    const heard = await listening(world);
    heard.tab.globals.navigator.onLine = false;
    await heard.tab.fire("offline");
    assert.equal(heard.state, "offline");
    assert.equal(world.open.length, 0);
    await world.pass(10 * MINUTE);
    heard.tab.run(() => heard.source.wake());
    await world.settle();
    assert.equal(world.streams.length, 1);
    const missed = await world.hub.deploy(2);
    heard.tab.globals.navigator.onLine = true;
    await heard.tab.fire("online");

    assert.equal(heard.state, "live");
    assert.deepEqual(heard.deployments.at(-1), missed);
}));

test("source: offline ends the waiting for the next attempt, too", inWorld(async (world) => {
    world.hub.mode = "refusing";
    const heard = await listening(world);
    heard.tab.globals.navigator.onLine = false;
    await heard.tab.fire("offline");
    const before = world.streams.length;
    await world.pass(5 * MINUTE);

    assert.equal(world.streams.length, before);
    assert.equal(heard.state, "offline");
}));

test("source: back online while polling it polls at once or hears the stream", inWorld(async (world) => {
    await world.hub.deploy(1);
    world.hub.mode = "held";
    const heard = await listening(world);
    await world.pass(20 * SECOND);
    heard.tab.globals.navigator.onLine = false;
    await heard.tab.fire("offline");
    assert.equal(heard.state, "offline");
    heard.tab.globals.navigator.onLine = true;
    await heard.tab.fire("online");
    await world.pass(20 * SECOND);

    assert.equal(heard.state, "polling");
}));

test("source: who comes back to the page after 20 silent seconds doesn't wait for 40", inWorld(async (world) => {
    await world.hub.deploy(1);
    const heard = await listening(world);
    world.hub.mode = "silent";
    await world.pass(19 * SECOND);
    heard.tab.run(() => heard.source.wake());
    await world.settle();
    assert.equal(world.streams.length, 1);
    await world.pass(2 * SECOND);
    heard.tab.run(() => heard.source.wake());
    await world.pass(SECOND);

    assert.equal(world.streams.length, 2);
}));

test("source: waking ends the waiting for the next attempt", inWorld(async (world) => {
    world.hub.mode = "refusing";
    const heard = await listening(world);
    await world.pass(MINUTE);
    world.hub.mode = "well";
    await world.hub.deploy(1);
    heard.tab.run(() => heard.source.wake());
    await world.settle();

    assert.equal(heard.state, "live");
    assert.equal(world.open.length, 1);
}));

test("source: after a laptop slept the line is opened anew", inWorld(async (world) => {
    await world.hub.deploy(1);
    const heard = await listening(world);
    heard.tab.freeze();
    world.hub.mode = "silent";
    await world.pass(3 * 60 * MINUTE);
    const missed = await world.hub.deploy(2);
    world.open[0].readyState = 1;
    heard.tab.isFrozen = false;
    await world.pass(6 * SECOND);

    assert.ok(world.streams.length > 1);
    assert.deepEqual(heard.deployments.at(-1), missed);
}));

test("source: a channel that never had a deployment is asked about once", inWorld(async (world) => {
    const heard = await listening(world);

    assert.deepEqual(heard.problems, ["no deployment of web/production; is its name right?"]);
    assert.equal(heard.state, "live");
    await world.pass(10 * MINUTE);
    assert.equal(world.polls.length, 1);
}));

test("source: a stream that starts with a ping because there is nothing new asks nothing", inWorld(async (world) => {
    await world.hub.deploy(1);
    const heard = await listening(world);
    await heard.tab.fire("online");

    assert.equal(world.streams.length, 2);
    assert.deepEqual(world.polls, []);
}));

for (const [name, answer, expected] of [
    ["a problem of the hub", PROBLEM, /^no deployment of web\/production is known/],
    ["a page for all addresses", HTML, /answers unlike a hub \(200\)$/],
    ["another server's 404", [404, "<h1>Not Found</h1>"], /unlike a hub \(404\)$/],
    ["other JSON", [200, { hello: "world" }], /unlike a hub \(200\)$/],
    ["null", [200, "null"], /unlike a hub \(200\)$/],
    ["a login", [401, "<h1>Sign in</h1>"], /unlike a hub \(401\)$/],
]) {
    test(`source: a refused stream and ${name} are said`, inWorld(async (world) => {
        world.hub.mode = "refusing";
        world.hub.answer = () => answer;
        const heard = await listening(world);
        await world.pass(5 * MINUTE);

        assert.match(heard.problems[0], expected);
        // The hub answers: its channel may still get a first deployment.
        assert.equal(heard.state, answer === PROBLEM ? "polling" : "connecting");
        assert.deepEqual(heard.deployments, []);
    }));
}

for (const [name, answer] of [
    ["a 502", [502, "<h1>Bad Gateway</h1>"]],
    ["a 503 of the hub", [503, { status: 503, detail: "Redis can't be reached" }]],
    ["no answer", new TypeError("Failed to fetch")],
]) {
    test(`source: a refused stream and ${name} pass by themselves, and nothing is said`, inWorld(async (world) => {
        world.hub.mode = "refusing";
        world.hub.answer = () => answer;
        const heard = await listening(world);
        await world.pass(5 * MINUTE);

        assert.deepEqual(heard.problems, []);
        assert.equal(heard.state, "connecting");
    }));
}

test("source: closed, it leaves nothing, whatever it was about to do", inWorld(async (world) => {
    for (const mode of ["well", "held", "refusing", "mute"]) {
        for (const after of [0, 10, 16, 100]) {
            world.hub.mode = mode;
            const heard = await listening(world);
            await world.pass(after * SECOND);
            heard.tab.run(() => heard.source.close());
            const before = [heard.states.length, world.streams.length];
            await world.pass(MINUTE);

            const { timers, streams, listening: left } = heard.tab;
            assert.deepEqual([timers, streams.length, left], [0, 0, []], `${mode} ${after}`);
            assert.deepEqual([heard.states.length, world.streams.length], before);
        }
    }
}));

for (const [name, happen] of [
    ["a deployment", (world) => world.hub.deploy(2)],
    ["a ping", (world) => world.pass(15 * SECOND)],
    ["an error", (world) => world.open[0].lose()],
    ["an error for good", (world) => world.open[0].refuse()],
]) {
    test(`source: it may be closed by whoever hears of ${name}`, inWorld(async (world) => {
        await world.hub.deploy(1);
        const heard = await listening(world);
        const { push } = heard.states;
        heard.states.push = (state) => {
            push.call(heard.states, state);
            heard.source.close();
        };
        await happen(world);
        await world.settle();

        assert.deepEqual([heard.tab.timers, heard.tab.streams.length], [0, 0]);
        assert.deepEqual(world.errors, []);
    }));
}

test("source: a hub that went back in time is followed", inWorld(async (world) => {
    await world.hub.deploy(1);
    const heard = await listening(world);
    await world.hub.deploy(2);
    const [older] = world.hub.kept;
    world.open[0].say("deployment", older);
    await world.settle();

    assert.deepEqual(heard.deployments.at(-1), older);
}));

test("source: a record may hold a field that this version doesn't know", inWorld(async (world) => {
    await world.hub.deploy(1);
    const heard = await listening(world);
    await world.hub.deploy(2, { ...versionJson(2), colour: "red" });

    assert.equal(heard.deployments.at(-1).colour, "red");
}));

test("source: the hub is told what runs here", inWorld(async (world) => {
    const { deployedAt } = await world.hub.deploy(1);
    const heard = await listening(world, { running: "3f2c1ab~128" });
    assert.equal(world.open[0].url, `${HUB}events/web/production?running=3f2c1ab~128`);
    world.open[0].refuse();
    await untilOpened(world);

    assert.equal(world.open[0].url, `${HUB}events/web/production?running=3f2c1ab~128&lastEventId=${deployedAt}`);
    assert.equal(heard.deployments.length, 1);
}));

test("source: when something else runs here the hub is told over another stream, from the newest on", inWorld(async (world) => {
    const { deployedAt } = await world.hub.deploy(1);
    const heard = await listening(world, { running: "1111111~1" });
    const states = heard.states.length;
    heard.running = "2222222~2";
    await world.pass(10 * MINUTE);
    await world.hub.deploy(2);

    assert.deepEqual(
        world.streams.map(({ url }) => new URL(url).search),
        ["?running=1111111~1", `?running=2222222~2&lastEventId=${deployedAt}`],
    );
    assert.deepEqual(world.streams.map(({ readyState }) => readyState), [2, 1]);
    assert.deepEqual(heard.deployments.map(({ buildNumber }) => buildNumber), [1, 2]);
    assert.deepEqual(heard.states.slice(states).filter((state) => state !== "live"), []);
}));

test("source: what was recorded while it told that comes over the other stream", inWorld(async (world) => {
    await world.hub.deploy(1);
    const heard = await listening(world, { running: "1111111~1" });
    heard.running = "2222222~2";
    world.hub.mode = "mute";
    await world.pass(5 * SECOND);
    const second = await world.hub.deploy(2);
    assert.equal(world.open[0].readyState, 0);
    world.hub.mode = "well";
    world.hub.connect(world.open[0]);
    await world.settle();

    assert.deepEqual(heard.deployments.at(-1), second);
    assert.equal(heard.deployments.length, 2);
}));

test("source: where nothing says what runs here, the stream stays the first one", inWorld(async (world) => {
    await world.hub.deploy(1);
    await listening(world);
    await world.pass(MINUTE);

    assert.equal(world.streams.length, 1);
}));

test("source: a stream that was never heard isn't opened anew for that", inWorld(async (world) => {
    world.hub.mode = "held";
    const heard = await listening(world, { running: "1111111~1" });
    heard.running = "2222222~2";
    await world.pass(10 * SECOND);

    assert.equal(world.streams.length, 1);
}));
