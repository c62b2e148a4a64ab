import assert from "node:assert/strict";
import { test } from "node:test";
import { ago, speak } from "../../service/browser/texts.js";

const LANGUAGES = "en de nl fr es pt it pl tr ru uk ja zh ko ar hi".split(" ");
const NAMES = ["title", "rollback", "note", "time", "refresh", "later", "close"];
const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

for (const language of LANGUAGES) {
    test(`texts: all are there in ${language}, each another, and the time has its place`, () => {
        const [lang, texts] = speak([language]);

        assert.equal(lang, language);
        assert.deepEqual(Object.keys(texts), NAMES);
        assert.ok(Object.values(texts).every((text) => text && text === text.trim()));
        assert.equal(new Set(Object.values(texts)).size, NAMES.length);
        assert.equal(texts.time.split("{}").length, 2);
    });

    test(`texts: no text of ${language} but the time has a place to fill`, () => {
        const { time: _, ...others } = speak([language])[1];

        assert.ok(Object.values(others).every((text) => !/[{}|]/.test(text)));
    });
}

for (const [languages, expected, why] of [
    [["de-AT"], "de", "a region falls back to its language"],
    [["zh-Hant-TW"], "zh", "so do a script and a region"],
    [["PT-br"], "pt", "capitals don't count"],
    [["en_US"], "en", "a tag as it is often written by mistake is understood"],
    [["sw", "tlh", "fr"], "fr", "the first that there are texts in is taken"],
    [["", "ja"], "ja", "no language is none"],
    [["d", "eng", "e", "it"], "it", "a part of a name, or a longer one, is not the name"],
    [["(", "\n", "|", "uk"], "uk", "what isn't a tag at all breaks nothing"],
    [["sw"], "en", "English is there for all others"],
    [[], "en", "and where nothing is known"],
]) {
    test(`texts: ${why}`, () => assert.equal(speak(languages)[0], expected));
}

for (const [milliseconds, expected] of [
    [0, "1 second ago"],
    [999, "1 second ago"],
    [59 * SECOND, "59 seconds ago"],
    [MINUTE, "1 minute ago"],
    [3 * MINUTE + 20 * SECOND, "3 minutes ago"],
    [HOUR - 1, "59 minutes ago"],
    [HOUR, "1 hour ago"],
    [DAY - 1, "23 hours ago"],
    [DAY, "1 day ago"],
    [127 * DAY, "127 days ago"],
    [-5 * MINUTE, "1 second ago"],
]) {
    test(`texts: ${milliseconds} ms are ${expected}`, () => assert.equal(ago(milliseconds, "en"), expected));
}

test("texts: how long ago is said in the language of the texts", () => {
    assert.equal(ago(3 * MINUTE, "de"), "vor 3 Minuten");
    assert.equal(ago(3 * MINUTE, "tr"), "3 dakika önce");
});

test("texts: where the browser doesn't know the language, nothing is said rather than another language", () => {
    assert.equal(ago(3 * MINUTE, "xx"), "");
});
