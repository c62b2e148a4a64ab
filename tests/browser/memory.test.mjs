import assert from "node:assert/strict";
import { test } from "node:test";
import { memory as storage } from "../../service/browser/memory.js";
import { inWorld } from "./world.mjs";

for (const area of ["localStorage", "sessionStorage"]) {
    test(`memory: ${area} keeps a value, whatever its kind`, inWorld(async (world) => {
        world.tab().run(() => {
            const memory = storage(area, "app");

            assert.equal(memory.write("seen", { at: 7, by: null }), true);
            assert.deepEqual(storage(area, "app").read("seen"), { at: 7, by: null });
        });
    }));

    test(`memory: where ${area} throws it says that it can't remember`, inWorld(async (world) => {
        world.tab({ without: [area] }).run(() => {
            const memory = storage(area, "app");

            assert.equal(memory.write("seen", 1), false);
            assert.equal(memory.read("seen"), null);
        });
    }));
}

test("memory: what somebody else wrote there is as nothing", inWorld(async (world) => {
    const tab = world.tab();
    tab.run(() => {
        const memory = storage("localStorage", "app");
        memory.write("seen", 1);
        world.local.items.set([...world.local.items.keys()][0], "{not JSON");

        assert.equal(memory.read("seen"), null);
    });
}));

test("memory: two prefixes don't meet", inWorld(async (world) => {
    world.tab().run(() => {
        storage("localStorage", "one").write("seen", 1);

        assert.equal(storage("localStorage", "other").read("seen"), null);
    });
}));

test("memory: localStorage is the browser's, sessionStorage the tab's", inWorld(async (world) => {
    const [one, other] = [world.tab(), world.tab()];
    const read = (area) => other.run(() => storage(area, "app").read("seen"));
    for (const area of ["localStorage", "sessionStorage"]) {
        one.run(() => storage(area, "app").write("seen", 1));
    }

    assert.equal(read("localStorage"), 1);
    assert.equal(read("sessionStorage"), null);
}));
