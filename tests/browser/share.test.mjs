import assert from "node:assert/strict";
import { test } from "node:test";
import { Share } from "../../service/browser/share.js";
import { inWorld, MINUTE, SECOND } from "./world.mjs";

/** A share in a tab of its own. Its part is in `parts`, what it was told in `messages`. */
async function member(world, page = {}, name = "vectr0:test") {
    const tab = world.tab(page);
    const self = { tab, parts: [], messages: [], onMessage: () => {} };
    self.share = tab.run(
        () =>
            new Share(name, {
                onLead: () => self.parts.push("lead"),
                onFollow: () => self.parts.push("follow"),
                onMessage: (message) => {
                    self.messages.push(message);
                    self.onMessage(message);
                },
            }),
    );
    await world.settle();
    return self;
}

test("share: the first tab leads, those that join follow", inWorld(async (world) => {
    const [one, two, three] = [await member(world), await member(world), await member(world)];
    await world.pass(10 * MINUTE);

    assert.deepEqual([one.parts, two.parts, three.parts], [["lead"], [], []]);
    assert.deepEqual([one, two, three].map(({ share }) => share.leads), [true, false, false]);
}));

test("share: when the lead closes exactly one other leads", inWorld(async (world) => {
    const [one, two, three] = [await member(world), await member(world), await member(world)];
    one.tab.run(() => one.share.close());
    await world.settle();

    assert.deepEqual([one.share, two.share, three.share].map(({ leads }) => leads).slice(1), [true, false]);
    assert.deepEqual([two.parts, three.parts], [["lead"], []]);
}));

test("share: when the lead crashes exactly one other leads", inWorld(async (world) => {
    const [one, two, three] = [await member(world), await member(world), await member(world)];
    await one.tab.crash();

    assert.deepEqual([two.parts, three.parts], [["lead"], []]);
}));

test("share: what one posts all others hear, and it itself doesn't", inWorld(async (world) => {
    const [one, two, three] = [await member(world), await member(world), await member(world)];
    [one, two, three].forEach(({ messages }) => messages.splice(0));
    two.tab.run(() => two.share.post({ word: "hi" }));
    await world.settle();

    assert.deepEqual([one, two, three].map(({ messages }) => messages.map(({ word }) => word)), [["hi"], [], ["hi"]]);
}));

test("share: a message says whether it is the lead's", inWorld(async (world) => {
    const [one, two] = [await member(world), await member(world)];
    one.tab.run(() => one.share.post({ word: "a" }));
    two.tab.run(() => two.share.post({ word: "b" }));
    await world.settle();

    assert.equal(two.messages.find(({ word }) => word === "a").lead, true);
    assert.equal(one.messages.find(({ word }) => word === "b").lead, false);
}));

test("share: who joins says so", inWorld(async (world) => {
    const one = await member(world);
    await member(world);

    assert.ok(one.messages.some(({ hello }) => hello));
}));

test("share: other names don't meet", inWorld(async (world) => {
    const [one, two] = [await member(world), await member(world, {}, "vectr0:other")];

    assert.deepEqual([one.parts, two.parts], [["lead"], ["lead"]]);
    assert.deepEqual([one.messages, two.messages], [[], []]);
}));

test("share: a lead silent for 40 s is replaced, and left alone when it is heard again", inWorld(async (world) => {
    const [one, two] = [await member(world), await member(world)];
    await world.pass(MINUTE);
    one.tab.freeze();
    await world.pass(24 * SECOND);
    assert.deepEqual(two.parts, []);
    await world.pass(35 * SECOND);
    assert.deepEqual(two.parts, ["lead"]);
    assert.equal(two.share.leads, false);
    await one.tab.thaw();
    await world.pass(15 * SECOND);

    assert.deepEqual(two.parts, ["lead", "follow"]);
    assert.deepEqual(one.parts, ["lead"]);
    one.tab.freeze();
    await world.pass(MINUTE);
    assert.deepEqual(two.parts, ["lead", "follow", "lead"]);
}));

test("share: who replaces a frozen lead and then gets its place connects once", inWorld(async (world) => {
    const [one, two] = [await member(world), await member(world)];
    one.tab.freeze();
    await world.pass(2 * MINUTE);
    await one.tab.crash();

    assert.deepEqual(two.parts, ["lead"]);
    assert.equal(two.share.leads, true);
}));

test("share: a late word of the former lead doesn't part the new one from its connection", inWorld(async (world) => {
    const [one, two] = [await member(world), await member(world)];
    one.tab.freeze();
    await world.pass(2 * MINUTE);
    await one.tab.crash();
    const late = await world.tab().run(async () => new BroadcastChannel("vectr0:test"));
    late.postMessage({ lead: true });
    await world.settle();

    assert.deepEqual(two.parts, ["lead"]);
}));

test("share: who joins under a frozen lead waits only seconds for the first word", inWorld(async (world) => {
    const one = await member(world);
    one.tab.freeze();
    const two = await member(world);
    await world.pass(3 * SECOND);
    assert.deepEqual(two.parts, []);
    await world.pass(8 * SECOND);

    assert.deepEqual(two.parts, ["lead"]);
}));

for (const missing of ["BroadcastChannel", "locks"]) {
    test(`share: without ${missing} each tab leads itself, at once`, inWorld(async (world) => {
        const [one, two] = [await member(world, { without: [missing] }), await member(world, { without: [missing] })];
        await world.pass(MINUTE);

        assert.deepEqual([one.parts, two.parts], [["lead"], ["lead"]]);
        assert.equal(one.tab.timers, 0);
    }));
}

test("share: where locks are refused each tab leads itself, once", inWorld(async (world) => {
    world.locks.refuse = new DOMException("not here", "SecurityError");
    const [one, two] = [await member(world), await member(world)];
    await world.pass(2 * MINUTE);

    assert.deepEqual([one.parts, two.parts], [["lead"], ["lead"]]);
}));

test("share: closed, it leaves nothing, as lead or in waiting", inWorld(async (world) => {
    const [one, two] = [await member(world), await member(world)];
    for (const { tab, share } of [two, one]) {
        tab.run(() => share.close());
        await world.settle();

        assert.deepEqual([tab.timers, tab.channels.size, world.locks.heldBy(tab)], [0, 0, []]);
    }
    assert.deepEqual(two.parts, []);
}));

test("share: closed before it had the lock, it never leads", inWorld(async (world) => {
    const tab = world.tab();
    let leads = 0;
    tab.run(() => new Share("vectr0:test", { onLead: () => leads++ }).close());
    await world.pass(MINUTE);

    assert.equal(leads, 0);
    assert.deepEqual(world.locks.heldBy(tab), []);
}));

test("share: it may be closed by whoever hears a message", inWorld(async (world) => {
    const [one, two] = [await member(world), await member(world)];
    two.onMessage = () => two.share.close();
    one.tab.run(() => one.share.post({ word: "bye" }));
    await world.pass(MINUTE);

    assert.deepEqual([two.parts, two.tab.timers], [[], 0]);
}));
