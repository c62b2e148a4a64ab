/** The page to try it: pretends to be an application that runs what was its channel's newest when it was loaded. */

import { isSame } from "../vectr0.js";
import { memory } from "../memory.js";
import { quoted, visible, word } from "./shell.js";
import { takeToken } from "./token.js";

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const LONGEST_LOG = 50;
const LONGEST_TEXT = 128;
const FIRST_VERSION = "1.0.0";
const HOUR = 3_600_000;
const STATES = {
    connecting: ["Connecting", "Connecting to the service"],
    live: ["Live", "The stream is open"],
    polling: ["Polling", "Streams don’t get through; asking once a minute"],
    offline: ["Offline", "This device is offline"],
};

const dates = new Intl.DateTimeFormat([], { dateStyle: "medium", timeStyle: "medium" });
const times = new Intl.DateTimeFormat([], { timeStyle: "medium", hourCycle: "h23" });
const session = memory("sessionStorage", "demo");
const parameters = new URLSearchParams(location.search);
const app = parameters.get("app") || "demo";
const environment = parameters.get("environment") || "demo";
const hub = new URL(".", location.href).href;
const $ = (id) => document.getElementById(id);
const form = $("record");

let running = null;
/** The channel's deployments, the newest first. */
let kept = [];
let isEdited = false;
let isBusy = false;
/** What this page posted last, and when. */
let posted = null;

keepToken();
addEventListener("hashchange", keepToken);
start();

async function start() {
    $("channel").textContent = `${app} / ${environment}`;
    $("again").href = location.pathname + location.search;
    $("token").value = session.read("token") ?? "";
    if (![app, environment].every((name) => NAME.test(name))) {
        fail(`${app}/${environment} is no channel: both are 1 to 64 of A-Z a-z 0-9 . _ -, starting with a letter or digit.`);
        return;
    }
    try {
        kept = await deployments();
    } catch (error) {
        fail(`What is newest can’t be had: ${error.message}`);
        return;
    }
    running = kept[0] ?? madeUp();
    showRunning();
    listen();
    suggest();
    document.body.append(notification());
}

/** Keep the token that the address brings, also over a reload. */
function keepToken() {
    const token = takeToken();
    if (token !== null) {
        $("token").value = token;
        session.write("token", token);
    }
}

/** Make the element as any page has it; a page's build would have written these attributes. */
function notification() {
    const element = document.createElement("update-notification");
    for (const [name, value] of Object.entries(attributes())) {
        element.setAttribute(name, value);
    }
    // Where there is no version.json: that of this host could be another application's.
    element.setAttribute("base", "demo/");
    return element;
}

function attributes() {
    const { version, gitTag, gitCommit, buildNumber, buildTime } = running;
    const tag = gitTag ? { tag: gitTag } : {};
    return { app, environment, version, ...tag, commit: gitCommit, build: String(buildNumber), time: String(buildTime) };
}

// What the service knows

/** Give what the channel has, the newest first: what the page runs from now on, and the way back. */
async function deployments() {
    const response = await fetch(`deployments/${app}/${environment}`, { cache: "no-cache" });
    return (await read(response)).deployments;
}

function keep(deployment) {
    kept = [deployment, ...kept.filter(({ deployedAt }) => deployedAt !== deployment.deployedAt)];
    suggest();
}

/** The version before the newest. */
function earlier() {
    return kept.find((deployment) => !isSame(deployment, kept[0]));
}

async function read(response) {
    const body = await response.json().catch(() => null);
    if (!response.ok) {
        throw Object.assign(new Error(body?.detail ?? `the answer was ${response.status}`), { problem: body });
    }
    return body;
}

// What the page runs

function madeUp() {
    const buildTime = Date.now() - HOUR;
    return { version: FIRST_VERSION, gitTag: `v${FIRST_VERSION}`, gitCommit: randomCommit(), buildNumber: 1, buildTime };
}

function showRunning() {
    const when = running.deployedAt ? `deployed ${date(running.deployedAt)}` : "made up";
    $("version").textContent = name(running);
    $("build").replaceChildren(`Build #${running.buildNumber} · `, element("code", running.gitCommit), ` · ${when}`);
    if (!running.deployedAt) {
        $("lead").prepend("Nothing has been recorded on this channel yet, so this first version is made up. ");
    }
    document.title = `${name(running)} · VECTR0`;
}

/** Say when that was. A record may hold any integer below 2^53, and dates end before that (ECMA-262, 21.4.1.1). */
function date(at) {
    return Number.isFinite(new Date(at).getTime()) ? dates.format(at) : `${at} ms after 1970`;
}

function fail(message) {
    const again = element("button", "Try again");
    again.addEventListener("click", () => location.reload());
    $("version").textContent = "nothing";
    $("lead").replaceChildren(message, document.createElement("br"), again);
    $("lead").classList.add("bad");
    $("connection").hidden = true;
    $("submit").disabled = true;
}

// What happens

function listen() {
    log("Page loaded", `It runs ${name(running)}${running.deployedAt ? ", the channel’s newest" : ", which is made up"}.`);
    on("state", ({ detail }) => {
        const [label, meaning] = STATES[detail];
        $("connection").textContent = label;
        $("connection").dataset.state = detail;
        log(label, meaning);
    });
    on("deployment", ({ detail }) => {
        const took = posted && isSame(detail, posted.deployment) ? performance.now() - posted.at : undefined;
        const what = `build #${detail.buildNumber} · ${detail.gitCommit}`;
        const own = isSame(detail, running) ? " · what this page runs" : "";
        log(`${detail.rollback ? "Rollback" : "Deployment"} ${name(detail)}`, what + own, took);
        posted = null;
        keep(detail);
    });
    on("update", ({ detail }) => log("Prompt", `${name(detail)} isn’t what this page runs, so it says so.`));
    on("dismiss", ({ detail }) => log("Later", `No more about ${name(detail)}, in any tab. The next one prompts again.`));
    on("beforerefresh", () => log("Before the refresh", "A page with unsaved work could say no here."));
    on("refresh", () => log("Refresh", "Caches are cleared, and the page reloads."));
}

function on(step, listener) {
    addEventListener(`vectr0:${step}`, listener);
}

function log(title, detail, took) {
    const now = new Date();
    const time = element("time", times.format(now));
    time.dateTime = now.toISOString();
    const text = element("div", detail);
    text.className = "detail";
    if (took !== undefined) {
        const fast = element("span", `${Math.max(1, Math.round(took))} ms after your click`);
        fast.className = "fast";
        text.prepend(fast, " · ");
    }
    const list = $("log").firstElementChild;
    list.prepend(element("li", "", time, element("strong", title), text));
    while (list.children.length > LONGEST_LOG) {
        list.lastChild.remove();
    }
}

// Recording

/** Fill in a plausible next deployment, unless somebody is writing one. */
function suggest() {
    if (!isEdited) {
        // After a rollback the next one still comes after the highest.
        const last = kept.reduce((a, b) => (b.buildNumber > a.buildNumber ? b : a), kept[0] ?? running);
        const version = nextVersion(last.version);
        const { elements } = form;
        elements.version.value = version;
        elements.gitTag.value = version.length < LONGEST_TEXT ? `v${version}` : "";
        elements.gitCommit.value = randomCommit();
        elements.buildNumber.value = String(Math.min(last.buildNumber + 1, Number.MAX_SAFE_INTEGER));
        tick();
    }
    describe();
}

/** Count the last number of a version up, however long it is; where there is no room for another digit, start anew. */
function nextVersion(version) {
    const next = version.replace(/\d+(?!.*\d)/, (digits) => String(BigInt(digits) + 1n));
    return [...next].length > LONGEST_TEXT ? FIRST_VERSION : next;
}

function tick() {
    if (!form.elements.buildTime.dataset.edited) {
        const now = new Date();
        const local = new Date(now.getTime() - now.getTimezoneOffset() * 60_000);
        form.elements.buildTime.value = local.toISOString().slice(0, 19);
    }
}

setInterval(tick, 1000);

form.addEventListener("input", ({ target }) => {
    if (target.id === "token") {
        session.write("token", target.value);
        return;
    }
    isEdited = true;
    if (target.name === "buildTime") {
        target.dataset.edited = "true";
    }
    describe();
});

form.addEventListener("submit", (event) => {
    event.preventDefault();
    record(written());
});

$("rollback").addEventListener("click", () => {
    const { version, gitCommit, gitTag, buildNumber, buildTime } = earlier();
    record({ appName: app, environment, version, gitCommit, gitTag, buildNumber, buildTime });
});

/** What stands in the form; the service says what is wrong with it. */
function written() {
    const { version, gitTag, gitCommit, buildNumber, buildTime } = form.elements;
    return {
        appName: app,
        environment,
        version: version.value,
        gitCommit: gitCommit.value,
        gitTag: gitTag.value || null,
        buildNumber: /^\d+$/.test(buildNumber.value) ? Number(buildNumber.value) : buildNumber.value,
        buildTime: buildTime.dataset.edited ? new Date(buildTime.value).getTime() : Date.now(),
    };
}

async function record(deployment) {
    if (isBusy) {
        return;
    }
    setBusy(true);
    tell(null);
    posted = { deployment, at: performance.now() };
    try {
        const response = await fetch("deployments", {
            method: "POST",
            headers: { Authorization: `Bearer ${$("token").value}`, "Content-Type": "application/json" },
            body: JSON.stringify(deployment),
        });
        await read(response);
        isEdited = false;
        delete form.elements.buildTime.dataset.edited;
        if (response.status === 200) {
            posted = null;
            tell("Nothing new.", `${name(deployment)} is the channel’s newest already.`);
        } else {
            tell("Recorded.", `Every page on ${app}/${environment} hears of ${name(deployment)} now.`);
        }
    } catch (error) {
        posted = null;
        refuse(error);
    } finally {
        setBusy(false);
    }
}

/** A button that is really disabled would lose the focus. */
function setBusy(value) {
    isBusy = value;
    form.ariaBusy = $("submit").ariaDisabled = $("rollback").ariaDisabled = isBusy;
}

function tell(title, ...rest) {
    const outcome = $("outcome");
    outcome.classList.remove("bad");
    outcome.replaceChildren(...(title ? [element("strong", title), " ", ...rest] : []));
    for (const input of form.elements) {
        input.removeAttribute("aria-invalid");
    }
}

/** Show a problem document, and mark the fields that it names. */
function refuse({ message, problem }) {
    const errors = problem?.errors ?? [];
    const list = element("ul", "", ...errors.map((error) => element("li", `${error.field} ${error.message}`)));
    tell(problem ? `${problem.status} ${problem.title}:` : "Not sent:", errors.length ? list : message);
    $("outcome").classList.add("bad");
    const isAboutToken = problem?.status === 401 || problem?.status === 403;
    const inputs = [...(isAboutToken ? [$("token")] : []), ...errors.map(({ field }) => form.elements[field])];
    for (const input of inputs.filter(Boolean)) {
        input.setAttribute("aria-invalid", "true");
    }
    inputs.find(Boolean)?.focus();
}

// Code to copy

function describe() {
    const before = earlier();
    $("submit").textContent = `Record ${name(written())}`;
    $("rollback").textContent = before ? `Back to ${name(before)}` : "Back";
    $("rollback").disabled = !before;
    $("rollback-help").hidden = Boolean(before);
    showCode();
}

function showCode() {
    const { appName, environment, version, gitTag, gitCommit, buildNumber } = written();
    const lines = [{ appName, environment, version }, { gitTag, gitCommit, buildNumber }].map((fields) =>
        visible(fields).slice(1, -1),
    );
    const tag = Object.entries(attributes()).map(([key, value]) => `${key}="${escape(value)}"`);
    $("snippet").textContent =
        `<script type="module" src="${hub}browser/element.js"></script>\n` +
        `<update-notification ${tag.slice(0, 2).join(" ")}\n    ${tag.slice(2).join(" ")}></update-notification>`;
    const address = word(`${hub}deployments`);
    $("curl").textContent =
        `curl ${address} \\\n  -H "Authorization: Bearer $VECTR0_TOKEN" --json ` +
        quoted(`\n  {${lines.join(",\n   ")},"buildTime":`) +
        "$(date +%s000)'}'";
}

for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
        const code = $(button.dataset.copies);
        const isCopied = await copy(code);
        button.textContent = isCopied ? "Copied" : "Selected";
        setTimeout(() => (button.textContent = "Copy"), 2000);
    });
}

async function copy(code) {
    try {
        await navigator.clipboard.writeText(code.textContent);
        return true;
    } catch {
        // Only pages over HTTPS and of this machine have a clipboard.
        getSelection().selectAllChildren(code);
        return document.execCommand("copy");
    }
}

function name({ version, gitTag }) {
    return gitTag || `v${version}`;
}

function escape(text) {
    return text.replace(/[&"<>]/g, (character) => `&#${character.charCodeAt(0)};`);
}

function randomCommit() {
    const bytes = crypto.getRandomValues(new Uint8Array(4));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("").slice(0, 7);
}

function element(tag, text, ...children) {
    const made = document.createElement(tag);
    made.append(text, ...children);
    return made;
}
