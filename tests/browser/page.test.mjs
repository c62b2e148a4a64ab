import assert from "node:assert/strict";
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { freeze, settle } from "../../service/browser/page.js";
import { APP, build, HUB, inWorld, versionJson } from "./world.mjs";

const META = { ...versionJson(3), hub: HUB, base: "/shop/" };

function settled(world, page, options) {
    return world.tab(page).run(() => settle(options));
}

test("page: the meta of the Vite plugin is enough", inWorld(async (world) => {
    assert.deepEqual(settled(world, { meta: META }), {
        hub: HUB,
        app: "web",
        environment: "production",
        base: "https://app.example/shop/",
        current: build(3),
    });
}));

test("page: options win over the meta, each by itself", inWorld(async (world) => {
    const { app, environment, current } = settled(world, { meta: META }, { environment: "staging", current: build(4) });

    assert.deepEqual([app, environment, current], ["web", "staging", build(4)]);
}));

for (const name of ["hub", "app", "environment"]) {
    test(`page: without ${name} it is said which is missing`, inWorld(async (world) => {
        const missing = new RegExp(`TypeError: vectr0: ${name} `);
        assert.throws(() => settled(world, {}, { ...APP, [name]: undefined }), missing);
        assert.throws(() => settled(world, {}, { ...APP, [name]: "" }), TypeError);
    }));
}

for (const [hub, expected] of [
    ["https://hub.example", "https://hub.example/"],
    ["https://hub.example/vectr0", "https://hub.example/vectr0/"],
    ["https://hub.example/vectr0//", "https://hub.example/vectr0/"],
    ["/vectr0", "https://app.example/vectr0/"],
    ["//hub.example/a/b/", "https://hub.example/a/b/"],
]) {
    test(`page: the hub ${hub} is ${expected}`, inWorld(async (world) => {
        assert.equal(settled(world, {}, { ...APP, hub }).hub, expected);
    }));
}

for (const [name, page, base, expected] of [
    ["by default the root", {}, undefined, "https://app.example/"],
    ["by default the document's <base>", { baseHref: "/shop/" }, undefined, "https://app.example/shop/"],
    ["by default that of a <base> with a file", { baseHref: "/shop/x.html" }, undefined, "https://app.example/shop/"],
    ["as the plugin says", { meta: META }, undefined, "https://app.example/shop/"],
    ["the option before the plugin", { meta: META }, "/other/", "https://app.example/other/"],
    ["with its slash where it was left out", {}, "/shop", "https://app.example/shop/"],
    ["relative to the page", { url: "https://app.example/shop/index.html" }, "./", "https://app.example/shop/"],
    ["relative to the page, for Vite", { url: "https://app.example/shop/" }, "", "https://app.example/shop/"],
    ["on another host", {}, "https://cdn.example/shop", "https://cdn.example/shop/"],
]) {
    test(`page: the base is ${name}`, inWorld(async (world) => {
        const found = settled(world, page, { ...APP, base }).base;

        assert.equal(new URL("version.json", found).href, `${expected}version.json`);
    }));
}

test("page: what it runs isn't known without a meta", inWorld(async (world) => {
    assert.equal(settled(world, {}, APP).current, null);
}));

test("page: a part of a build is made whole, frozen, and without what isn't a build's", () => {
    const whole = freeze({ gitCommit: "3f2c1ab", appName: "web" });

    assert.deepEqual(whole, { version: "", gitCommit: "3f2c1ab", buildNumber: 0, buildTime: 0, gitTag: null });
    assert.ok(Object.isFrozen(whole));
    assert.equal(freeze(null), null);
});

test("page: served by a hub below a prefix, it knows that hub by its own address", inWorld(async (world) => {
    const root = await mkdtemp(join(tmpdir(), "vectr0-"));
    const served = join(root, "prefix", "browser", "1.0-abc", "vectr0.js");
    await cp(fileURLToPath(new URL("../../service/browser/page.js", import.meta.url)), served);
    await cp(fileURLToPath(new URL("../../service/browser/page.js", import.meta.url)), join(root, "page.js"));
    const page = await import(pathToFileURL(served));
    const bundled = await import(pathToFileURL(join(root, "page.js")));
    const options = { app: "web", environment: "production" };

    assert.equal(world.tab().run(() => page.settle(options)).hub, pathToFileURL(join(root, "prefix/")).href);
    assert.throws(() => world.tab().run(() => bundled.settle(options)), /hub is not given/);
    await rm(root, { recursive: true });
}));
