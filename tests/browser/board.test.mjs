import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { readAddress, searchAddress } from "../../service/dashboard/address.js";
import { commands } from "../../service/dashboard/commands.js";
import { points, rows } from "../../service/dashboard/curve.js";
import { layOut } from "../../service/dashboard/layout.js";
import { isWhole, Model } from "../../service/dashboard/model.js";
import { search } from "../../service/dashboard/search.js";
import { quoted, visible, word } from "../../service/browser/demo/shell.js";
import { describe } from "../../service/dashboard/status.js";
import { tokenIn } from "../../service/browser/demo/token.js";
import {
    ago,
    count,
    duration,
    exactTime,
    machineTime,
    percent,
    shortCommit,
    time,
    versionName,
} from "../../service/dashboard/words.js";

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

function deployment(number, fields = {}) {
    return {
        appName: "web",
        environment: "production",
        version: `${number}.0.0`,
        gitTag: `v${number}.0.0`,
        gitCommit: `${number}0ffee0`,
        buildNumber: number,
        deployedAt: number * MINUTE,
        previous: number > 1 ? (number - 1) * MINUTE : null,
        rollback: false,
        ...fields,
    };
}

function channels(...names) {
    return names.map((name) => {
        const [app, environment] = name.split("/");
        return { name, app, environment, deployments: [] };
    });
}

function changes() {
    const seen = [];
    return [new Model(({ name }, what) => seen.push(`${what} ${name}`)), seen];
}

// Words

for (const [milliseconds, expected] of [
    [-5, "just now"],
    [999, "just now"],
    [SECOND, "1 second ago"],
    [3 * MINUTE + 59 * SECOND, "3 minutes ago"],
    [25 * HOUR, "1 day ago"],
    [400 * DAY, "400 days ago"],
]) {
    test(`words: ${milliseconds} ms are ${expected}`, () => assert.equal(ago(milliseconds), expected));
}

for (const [milliseconds, expected] of [
    [0, "0 s"],
    [940, "0.9 s"],
    [9_960, "10 s"],
    [41_400, "41 s"],
    [100 * SECOND, "1 min 40 s"],
    [HOUR, "1 h"],
    [HOUR + 5 * SECOND, "1 h"],
    [2 * HOUR + 13 * MINUTE, "2 h 13 min"],
    [3 * DAY + 4 * HOUR + 59 * MINUTE, "3 d 4 h"],
]) {
    test(`words: ${milliseconds} ms last ${expected}`, () => assert.equal(duration(milliseconds), expected));
}

for (const [share, expected] of [
    [0, "0%"],
    [0.001, "<1%"],
    [0.29, "29%"],
    [0.58, "58%"],
    [0.9999, "99%"],
    [1, "100%"],
]) {
    test(`words: a share of ${share} is ${expected}`, () => assert.equal(percent(share), expected));
}

test("words: what is counted has its plural", () => {
    const said = [0, 1, 1204].map((number) => count(number, "browser"));

    assert.deepEqual(said, ["0 browsers", "1 browser", "1,204 browsers"]);
});

test("words: a time of another day has its date", () => {
    const noon = new Date(2026, 0, 5, 12, 3).getTime();

    assert.equal(time(noon, noon + HOUR), "12:03");
    assert.match(time(noon, noon + DAY), /^5 Jan.* 12:03$/);
});

test("words: a build is called by its tag, and else by its version", () => {
    assert.equal(versionName({ gitTag: "release-7", version: "7.0.0" }), "release-7");
    assert.equal(versionName({ gitTag: null, version: "7.0.0" }), "v7.0.0");
});

test("words: a hash is shortened, and nothing else is", () => {
    assert.equal(shortCommit("3f2c1ab9d8e7"), "3f2c1ab");
    assert.equal(shortCommit("release-2026-01"), "release-2026-01");
});

// Layout

test("layout: production comes first, then what is nearest to it, whatever the names are exactly", () => {
    const { environments, hasOthers } = layOut(channels("web/dev", "web/qa", "web/staging", "web/eu", "web/prod-eu"));

    assert.deepEqual(environments, ["prod-eu", "staging", "qa", "dev", "eu"]);
    assert.equal(hasOthers, false);
});

test("layout: applications are in their order, with a place for each environment", () => {
    const { environments, rows } = layOut(channels("web10/staging", "web2/production", "web2/staging"));

    assert.deepEqual(environments, ["production", "staging"]);
    assert.deepEqual(
        rows.map(({ app, cells }) => [app, cells.map((cell) => cell?.name)]),
        [
            ["web2", ["web2/production", "web2/staging"]],
            ["web10", [undefined, "web10/staging"]],
        ],
    );
});

test("layout: many previews of one application share a column", () => {
    const previews = Array.from({ length: 12 }, (_, at) => `web/pr-${at + 1}`);
    const { environments, rows, hasOthers } = layOut(channels("web/production", "admin/production", ...previews));

    assert.deepEqual(environments, ["production"]);
    assert.equal(hasOthers, true);
    assert.deepEqual(rows[0].others, []);
    assert.deepEqual(rows[1].others.map(({ name }) => name), previews);
});

// Model

test("model: a deployment is taken once, and its channel keeps ten", () => {
    const [model, seen] = changes();
    for (let number = 1; number <= 12; number += 1) {
        model.take(deployment(number), true);
    }
    const again = model.take(deployment(12), true);

    assert.equal(again, null);
    assert.equal(seen.length, 12);
    assert.deepEqual(
        model.channels.get("web/production").deployments.map(({ buildNumber }) => buildNumber),
        [12, 11, 10, 9, 8, 7, 6, 5, 4, 3],
    );
});

test("model: another record of the newest's id takes its place", () => {
    const [model] = changes();
    model.load([deployment(3), deployment(2)]);
    const other = { ...deployment(3), gitCommit: "0ther" };

    assert.notEqual(model.take(other, true), null);
    assert.deepEqual(model.channels.get("web/production").deployments, [other, deployment(2)]);
});

test("model: where the hub goes back in time, so does the board", () => {
    const [model] = changes();
    model.load([deployment(3), deployment(2), deployment(1)]);
    model.take(deployment(2), true);

    assert.deepEqual(
        model.channels.get("web/production").deployments.map(({ buildNumber }) => buildNumber),
        [2, 1],
    );
});

test("model: a list doesn't take back what the stream has brought since it was asked for", () => {
    const [model, seen] = changes();
    model.take(deployment(3), true);
    model.load([deployment(2), deployment(1)], true);

    assert.deepEqual(seen, ["deployment web/production", "history web/production"]);
    assert.ok(isWhole(model.channels.get("web/production")));
});

test("model: channels that a list of all doesn't have are gone", () => {
    const [model, seen] = changes();
    model.take(deployment(1), false);
    model.take(deployment(1, { appName: "admin" }), false);
    model.load([deployment(1)], false);
    const before = model.channels.size;
    model.load([deployment(1)], true);

    assert.equal(before, 2);
    assert.deepEqual([...model.channels.keys()], ["web/production"]);
    assert.deepEqual(seen.slice(2), ["gone admin/production"]);
});

for (const [numbers, expected, why] of [
    [[3, 2, 1], true, "down to the first is whole"],
    [[3, 2], false, "one that begins later is not"],
    [[3, 1], false, "one with a gap is not"],
    [[20, 19, 18, 17, 16, 15, 14, 13, 12, 11], true, "ten are all that is kept"],
]) {
    test(`model: a history ${why}`, () => {
        assert.equal(isWhole({ deployments: numbers.map((number) => deployment(number)) }), expected);
    });
}

test("model: adoption of an unknown channel is nobody's", () => {
    const [model, seen] = changes();
    model.adopt("web/production", { streams: 1 });

    assert.deepEqual(seen, []);
    assert.equal(model.channels.size, 0);
});

// Search

function known() {
    const [model] = changes();
    model.load([deployment(3), deployment(2), deployment(1)]);
    const rc = { appName: "admin", version: "3.0.0-rc.1", gitTag: "v3.0.0-rc.1", gitCommit: "ABCDEF0123456789" };
    model.load([deployment(4, rc)]);
    model.load([deployment(5, { appName: "shop", version: "2024", gitTag: null, gitCommit: "release-9" })]);
    return model.channels.values();
}

function found(query) {
    const { live, past, named } = search(query, known());
    const says = ({ channel, deployment }) => `${channel.app} ${versionName(deployment)}`;
    return [live.map(says), past.map(says), named.map(({ channel }) => channel.name)];
}

for (const [query, expected, why] of [
    ["v3.0.0", [["web v3.0.0"], [], []], "a tag is found, and not what only begins so"],
    [" V3.0.0 ", [["web v3.0.0"], [], []], "capitals and spaces don't count"],
    ["3.0.0", [["web v3.0.0"], [], []], "so is a version"],
    ["v3", [["admin v3.0.0-rc.1", "web v3.0.0"], [], []], "a part of one finds all that begin so"],
    ["v1.0.0", [[], ["web v1.0.0"], []], "what was replaced was"],
    ["30ffee0", [["web v3.0.0"], [], []], "a commit is found"],
    ["30ffee0123456789012345678901234567890123", [["web v3.0.0"], [], []], "and by the whole of its hash"],
    ["abcd", [["admin v3.0.0-rc.1"], [], []], "and by its first digits"],
    ["release-9", [["shop v2024"], [], []], "a commit that is no hash is found"],
    ["v2024", [["shop v2024"], [], []], "v is what a version may be called with"],
    ["shop", [[], [], ["shop/production"]], "an application is found by its name"],
    ["production", [[], [], ["admin/production", "shop/production", "web/production"]], "and so is an environment"],
    ["", [[], [], []], "nothing finds nothing"],
    ["0.0", [[], [], []], "what is in the middle isn't meant"],
    [".*", [[], [], []], "it isn't a pattern"],
]) {
    test(`search: ${why}`, () => assert.deepEqual(found(query), expected));
}

test("search: what replaced a deployment is told", () => {
    const [model] = changes();
    model.load([deployment(3), deployment(2), deployment(1)]);
    const [{ replaced }] = search("v1.0.0", model.channels.values()).past;

    assert.equal(replaced.buildNumber, 2);
});

// The curve

const COUNTED = { since: MINUTE, asOf: 2 * MINUTE, stale: false, newest: 9, streams: 11, unknown: 1 };

test("curve: a sample is a share of those that say what they run, and the last count holds until now", () => {
    const samples = [
        { at: MINUTE + SECOND, newest: 0, streams: 10, unknown: 0 },
        { at: MINUTE + 5 * SECOND, newest: 1, streams: 3, unknown: 3 },
        { at: MINUTE + 9 * SECOND, newest: 4, streams: 12, unknown: 4 },
    ];
    const all = points({ ...COUNTED, samples }, 3 * MINUTE);

    assert.deepEqual(all.map(({ at, share }) => [at, share]), [
        [SECOND, 0], [5 * SECOND, null], [9 * SECOND, 0.5], [2 * MINUTE, 0.9],
    ]);
});

test("curve: a stale count holds until when it was had", () => {
    assert.deepEqual(points({ ...COUNTED, stale: true }, HOUR).map(({ at }) => at), [MINUTE]);
});

test("curve: without a Redis there is none", () => {
    assert.deepEqual(points({ ...COUNTED, asOf: null }, HOUR), []);
});

test("curve: a table of many samples has the first, the last, and when the levels between were reached", () => {
    const all = Array.from({ length: 400 }, (_, at) => ({ at, share: at / 399 }));
    const chosen = rows(all, 5);

    assert.deepEqual(chosen.map(({ at }) => at), [0, 100, 200, 300, 399]);
    assert.equal(rows(all.slice(0, 3), 5).length, 3);
});

// The state

const LIVE = { connection: "live", health: { relay: { state: "live", since: 0 } }, heardAt: 0 };
const NOON = new Date(2026, 0, 5, 12, 3).getTime();
const from = (state) => ({ relay: { state, since: NOON } });

for (const [state, expected] of [
    [{}, ["good", "Live", "", false]],
    [{ connection: "connecting" }, ["wait", "Connecting", "", false]],
    [{ connection: "connecting", heardAt: NOON }, ["wait", "Reconnecting", "What you see is from 12:03.", true]],
    [{ connection: "offline", heardAt: NOON }, ["bad", "Offline", "What you see is from 12:03.", true]],
    [{ health: from("down") }, ["bad", "Redis is away", "What you see is from 12:03.", true]],
    [{ health: from("polling") }, ["wait", "Live, late", "News takes some seconds.", false]],
    [{ health: null }, ["good", "Live", "", false]],
    [{ connection: "polling" }, ["wait", "Polling", "No stream gets through.", false]],
]) {
    test(`status: ${JSON.stringify(state)} is ${expected[1]}`, () => {
        const { level, label, detail, isOld } = describe({ ...LIVE, ...state }, NOON + MINUTE);

        assert.deepEqual([level, label, detail, isOld], expected);
    });
}

// The address

for (const [hash, channel, query] of [
    ["", null, ""],
    ["#/", null, ""],
    ["#/web/production", "web/production", ""],
    ["#/web%2Fproduction", "web/production", ""],
    ["#/../production", null, ""],
    ["#/web/production/more", null, ""],
    ["#/<img>/x", null, ""],
    ["#/%", null, ""],
    ["#?q=v1.4.0%2Bbuild+1", null, "v1.4.0+build 1"],
]) {
    test(`address: ${hash} is read`, () => assert.deepEqual(readAddress(hash), { channel, query }));
}

test("address: a search is read as it was written", () => {
    assert.deepEqual(readAddress(searchAddress("ü & 50%#")), { channel: null, query: "ü & 50%#" });
    assert.equal(searchAddress(""), "#/");
});

for (const [hash, token] of [
    ["#token=a%2Bb", "a+b"],
    ["#token=u4oLJ9BV-._~+/=&x=1", "u4oLJ9BV-._~+/="],
    ["#/web/production", null],
    ["#token=", null],
    ["#token=a%0Arm%20-rf", null],
    ["#token=a\nb", null],
    ["#token=a%1B%5B201~", null],
    ["#token=%", null],
    ["#token=a%25", null],
    ["#token=a%27", null],
    ["#token=a%22$(id)", null],
    ["#token=%E2%80%AEa", null],
    [`#token=${"a".repeat(4097)}`, null],
]) {
    test(`token: of ${JSON.stringify(hash.slice(0, 40))} is taken ${token}`, () => assert.equal(tokenIn(hash), token));
}

const ODD = ["plain", "https://hub.example/a;b/$(id)/'x'/", "", "a b", '"', "\\", "`id`", "!!", "a\nb", "*", "~", "{a,b}", "ü"];

for (const text of ODD) {
    test(`shell: ${JSON.stringify(text)} stays what it is`, () => {
        for (const written of [word(text), quoted(text)]) {
            const said = execFileSync("bash", ["-c", `printf %s ${written}`], { encoding: "utf8" });

            assert.equal(said, text);
        }
    });
}

test("shell: JSON holds nothing that a terminal acts on", () => {
    const value = { version: "\x1b[201~\x9b\x7f\u202e\u2028\u200b\ud800 ü 🚀 '" };

    assert.match(visible(value), /^[^\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]*$/u);
    assert.deepEqual(JSON.parse(visible(value)), value);
});

test("commands: an odd address of the hub is one word", () => {
    const { watch, record } = commands("https://hub.example/$(id)/", null, "web", "production", 0);

    assert.equal(watch, "curl -N 'https://hub.example/$(id)/events/web/production'");
    assert.ok(record.startsWith("curl 'https://hub.example/$(id)/deployments' -H "));
});

for (const at of [0, 1, 8.64e15, 8.64e15 + 1, 2 ** 53 - 1]) {
    test(`words: ${at} ms are a time, or said to be none`, () => {
        const isDate = at <= 8.64e15;

        assert.equal(exactTime(at) === `${at} ms after 1970`, !isDate);
        assert.equal(time(at, Date.now()) === `${at} ms after 1970`, !isDate);
        assert.equal(time(Date.now(), at).length > 0, true);
        assert.equal(machineTime(at), isDate ? new Date(at).toISOString() : "");
        assert.ok(ago(Date.now() - at) && ago(at - Date.now()) && duration(at) && duration(-at));
    });
}

test("commands: a token can't leave its quotation marks", () => {
    const { record } = commands("https://hub.example/", "it's", "web", "production", 0);

    assert.ok(record.includes(`'Authorization: Bearer it'\\''s'`));
    assert.ok(commands("https://hub.example/", null).record.includes('"Authorization: Bearer $VECTR0_TOKEN"'));
});
