/**
 * A browser for tests: several tabs that share locks, channels and localStorage, a hub, a site, and one clock.
 *
 * The modules under test name their globals (`document`, `EventSource`, `setTimeout` …) as in any page. Here those are
 * getters that give each tab its own, told apart by Node's AsyncLocalStorage: whatever a tab starts, also after an
 * `await`, runs as that tab. The clock is not the one of `node:test`: a tab can be frozen while the others go on. Nothing
 * here waits for real time.
 */

import assert from "node:assert/strict";
import { AsyncLocalStorage } from "node:async_hooks";
import { shareWatch } from "../../service/browser/shared.js";
import { watchVersion } from "../../service/browser/vectr0.js";

export const SECOND = 1000;
export const MINUTE = 60 * SECOND;
export const HUB = "https://hub.example/";
export const APP = { hub: HUB, app: "web", environment: "production" };
const START = Date.UTC(2026, 0, 5, 12);

const running = new AsyncLocalStorage();
const OWN = [
    "AbortSignal", "BroadcastChannel", "Date", "EventSource", "Math", "addEventListener", "caches", "clearInterval",
    "clearTimeout", "console", "dispatchEvent", "document", "fetch", "localStorage", "location", "navigator",
    "removeEventListener", "reportError", "sessionStorage", "setInterval", "setTimeout",
];
for (const name of OWN) {
    const outside = globalThis[name];
    Object.defineProperty(globalThis, name, {
        configurable: true,
        get: () => (running.getStore() ? running.getStore().globals[name] : outside),
        set() {
            throw new Error(`${name} is the tab's own`);
        },
    });
}

/** One build; `of` gives the same fields for each number. */
export function build(number, fields = {}) {
    return {
        version: `${number}.0.0`,
        gitCommit: `${number}`.repeat(7).slice(0, 7),
        buildNumber: number,
        buildTime: START - 1000 * MINUTE + number * MINUTE,
        gitTag: `v${number}.0.0`,
        ...fields,
    };
}

export function versionJson(number, fields = {}) {
    return { appName: "web", environment: "production", ...build(number), ...fields };
}

class Target {
    #listeners = [];

    constructor(tab) {
        Object.defineProperty(this, "tab", { value: tab });
    }

    get listening() {
        return this.#listeners.map(({ type }) => type);
    }

    addEventListener = (type, listener, { once = false, signal } = {}) => {
        this.#listeners.push({ type, listener, once });
        signal?.addEventListener("abort", () => this.removeEventListener(type, listener));
    };

    removeEventListener = (type, listener) => {
        this.#listeners = this.#listeners.filter((entry) => entry.type !== type || entry.listener !== listener);
    };

    /** An exception in a listener is reported and stops nothing, as in a browser. */
    dispatchEvent = (event) => {
        const own = this[`on${event.type}`];
        const entries = this.#listeners.filter(({ type }) => type === event.type);
        this.#listeners = this.#listeners.filter((entry) => !entries.includes(entry) || !entry.once);
        for (const listener of [...(own ? [own] : []), ...entries.map((entry) => entry.listener)]) {
            this.tab.run(() => {
                try {
                    listener(event);
                } catch (error) {
                    this.tab.world.errors.push(error);
                }
            });
        }
        return !event.defaultPrevented;
    };
}

/** What a page sees as an EventSource; what the network does to it, a test says. */
class Stream extends Target {
    readyState = 0;

    constructor(tab, url) {
        super(tab);
        this.url = url;
        this.at = tab.world.now;
        tab.world.streams.push(this);
        tab.world.task(() => this.readyState === 0 && tab.world.hub.connect(this));
    }

    get id() {
        return new URL(this.url).searchParams.get("lastEventId");
    }

    close() {
        this.readyState = 2;
    }

    accept() {
        this.readyState = 1;
        this.dispatchEvent(new Event("open"));
    }

    say(type, data) {
        this.tab.task(() => {
            if (this.readyState === 1) {
                this.dispatchEvent(Object.assign(new Event(type), { data: JSON.stringify(data) }));
            }
        });
    }

    /** The line is lost: the browser says so and tries again by itself. */
    lose() {
        this.readyState = 0;
        this.dispatchEvent(new Event("error"));
    }

    /** Another answer than a stream: the browser gives up. */
    refuse() {
        this.readyState = 2;
        this.dispatchEvent(new Event("error"));
    }
}

/** A hub with one channel. `mode` is what it does with a new stream. */
class Hub {
    /** "well", "held" (nothing gets through), "refusing" (502), "mute" (no answer at all), "silent" (no pings) */
    mode = "well";
    kept = [];
    /** What a poll gets instead of the newest: (request) => [status, body] */
    answer = null;
    ahead = 0;
    #world;

    constructor(world) {
        this.#world = world;
        const ping = () => {
            this.#each((stream) => stream.say("ping", { now: this.now }));
            world.systemTimer(15 * SECOND, ping);
        };
        world.systemTimer(15 * SECOND, ping);
    }

    get now() {
        return this.#world.now + this.ahead;
    }

    get newest() {
        return this.kept.at(-1) ?? null;
    }

    connect(stream) {
        if (this.mode === "refusing") {
            stream.refuse();
        } else if (this.mode === "held") {
            stream.accept();
        } else if (this.mode === "well" || this.mode === "silent") {
            stream.accept();
            const known = Number(stream.id);
            const missed = known ? this.kept.filter(({ deployedAt }) => deployedAt > known) : this.kept.slice(-1);
            missed.forEach((deployment) => stream.say("deployment", deployment));
            if (missed.length === 0) {
                stream.say("ping", { now: this.now });
            }
        }
    }

    /** Record a build, and tell all open streams. */
    async deploy(number, fields = {}) {
        const deployment = {
            ...versionJson(number),
            deployedAt: Math.max(this.now, (this.newest?.deployedAt ?? 0) + 1),
            previous: this.newest?.deployedAt ?? null,
            rollback: false,
            ...fields,
        };
        this.kept.push(deployment);
        this.#each((stream) => stream.say("deployment", deployment), ["well", "silent"]);
        await this.#world.settle();
        return deployment;
    }

    #each(say, modes = ["well"]) {
        if (modes.includes(this.mode)) {
            this.#world.open.filter(({ readyState }) => readyState === 1).forEach(say);
        }
    }

    latest(request) {
        if (this.answer) {
            return this.answer(request);
        }
        if (this.mode === "refusing") {
            return [502, "<h1>Bad Gateway</h1>"];
        }
        if (this.mode === "mute") {
            return "never";
        }
        return this.newest ? [200, this.newest] : [404, { status: 404, detail: "no deployment of web/production" }];
    }
}

class Locks {
    #held = new Map();
    #waiting = [];
    /** Set to refuse all, as where a document may not use locks. */
    refuse = null;

    of(tab) {
        return {
            request: (name, options, callback = options) => {
                if (this.refuse) {
                    return Promise.reject(this.refuse);
                }
                const { ifAvailable = false, signal } = callback === options ? {} : options;
                return new Promise((resolve, reject) => {
                    const request = { name, tab, callback, resolve, reject, ifAvailable };
                    signal?.addEventListener("abort", () => {
                        if (this.#waiting.includes(request)) {
                            this.#waiting = this.#waiting.filter((other) => other !== request);
                            reject(signal.reason);
                        }
                    });
                    this.#waiting.push(request);
                    tab.world.task(() => this.#grant());
                });
            },
        };
    }

    release(tab) {
        this.#waiting = this.#waiting.filter((request) => request.tab !== tab);
        for (const [name, request] of this.#held) {
            if (request.tab === tab) {
                this.#held.delete(name);
            }
        }
        this.#grant();
    }

    heldBy(tab) {
        const requests = [...this.#held.values(), ...this.#waiting];
        return requests.filter((request) => request.tab === tab).map(({ name }) => name);
    }

    #grant() {
        for (const request of [...this.#waiting]) {
            const { name, ifAvailable, tab } = request;
            if (!this.#held.has(name)) {
                this.#waiting.splice(this.#waiting.indexOf(request), 1);
                this.#held.set(name, request);
                this.#run(request, { name });
            } else if (ifAvailable) {
                this.#waiting.splice(this.#waiting.indexOf(request), 1);
                tab.run(async () => request.callback(null)).then(request.resolve, request.reject);
            }
        }
    }

    async #run(request, lock) {
        try {
            request.resolve(await request.tab.run(async () => request.callback(lock)));
        } catch (error) {
            request.reject(error);
        }
        if (this.#held.get(request.name) === request) {
            this.#held.delete(request.name);
            this.#grant();
        }
    }
}

class Area {
    items = new Map();
    #onChange;

    constructor(onChange = () => {}) {
        this.#onChange = onChange;
    }

    of(tab) {
        return {
            getItem: (key) => this.items.get(key) ?? null,
            setItem: (key, value) => {
                this.items.set(key, String(value));
                this.#onChange(tab, key);
            },
            removeItem: (key) => {
                this.items.delete(key);
                this.#onChange(tab, key);
            },
        };
    }
}

class Tab {
    isFrozen = false;
    isGone = false;
    reloads = 0;
    steps = [];
    globals;
    session;
    channels = new Set();
    #tasks = [];

    constructor(world, { visible = true, without = [], session = new Area(), meta, baseHref, url } = {}) {
        this.world = world;
        this.session = session;
        this.window = new Target(this);
        this.document = this.#document(visible, meta, baseHref, url ?? "https://app.example/shop/?a=1#b");
        const timer = (repeat) => (callback, after = 0) => world.timer(this, callback, after, repeat);
        const stop = (id) => world.timers.delete(id);
        const tab = this;
        this.globals = {
            AbortSignal: { timeout: (after) => world.deadline(after) },
            BroadcastChannel: this.#broadcastChannel(),
            Date: class extends Date {
                static now() {
                    return world.now;
                }
            },
            EventSource: class extends Stream {
                static CONNECTING = 0;
                static OPEN = 1;
                static CLOSED = 2;

                constructor(address) {
                    super(tab, new URL(address, tab.document.baseURI).href);
                }
            },
            Math: Object.create(Math, { random: { value: () => world.random() } }),
            addEventListener: this.window.addEventListener,
            removeEventListener: this.window.removeEventListener,
            dispatchEvent: this.window.dispatchEvent,
            caches: undefined,
            clearInterval: stop,
            clearTimeout: stop,
            console: {
                error: (...words) => world.errors.push(words.join(" ")),
                warn: (...words) => world.warnings.push(words.join(" ")),
            },
            document: this.document,
            reportError: (error) => world.errors.push(error),
            fetch: (address, options) => world.fetch(this, new URL(address, this.document.baseURI).href, options),
            localStorage: world.local.of(this),
            sessionStorage: session.of(this),
            location: { reload: () => this.reloads++ },
            navigator: { onLine: true, locks: world.locks.of(this) },
            setInterval: timer(true),
            setTimeout: timer(false),
        };
        for (const name of without) {
            if (name === "locks") {
                this.globals.navigator.locks = undefined;
            } else if (name.endsWith("Storage")) {
                this.throwing(name);
            } else {
                this.globals[name] = undefined;
            }
        }
    }

    run(work) {
        return running.run(this, work);
    }

    /** Do something as a task of this tab: at once, or when it is thawed. */
    task(work) {
        this.#tasks.push(work);
        this.#schedule();
    }

    #schedule() {
        this.world.task(() => {
            while (!this.isFrozen && this.#tasks.length > 0) {
                const work = this.#tasks.shift();
                if (!this.isGone) {
                    this.run(work);
                }
            }
        });
    }

    throwing(name) {
        Object.defineProperty(this.globals, name, {
            get() {
                throw new Error(`${name} is not allowed here`);
            },
        });
    }

    /** Watch as a script of this page does. */
    start(options = {}) {
        this.last = this.run(() => watchVersion({ ...APP, current: build(1), ...options }));
        return this.last;
    }

    /** Watch, and listen; what comes of it is in `steps`. */
    watch(options) {
        const watch = this.start(options);
        for (const step of ["deployment", "update", "dismiss", "state", "refresh"]) {
            this.window.addEventListener(`vectr0:${step}`, ({ detail }) => this.steps.push([step, detail]));
        }
        return watch;
    }

    share(options) {
        return this.run(() => shareWatch(options));
    }

    get snapshot() {
        return this.last.snapshot;
    }

    /** The details of one kind of step, so far. */
    heard(step) {
        return this.steps.filter(([name]) => name === step).map(([, detail]) => detail);
    }

    get streams() {
        return this.world.open.filter(({ tab }) => tab === this);
    }

    get timers() {
        return [...this.world.timers.values()].filter(({ tab }) => tab === this).length;
    }

    get listening() {
        return [...this.window.listening, ...this.document.target.listening];
    }

    async fire(type, fields = {}, target = this.window) {
        target.dispatchEvent(Object.assign(new Event(type), fields));
        await this.world.settle();
    }

    async show() {
        this.document.hidden = false;
        await this.fire("visibilitychange", {}, this.document.target);
    }

    async hide() {
        this.document.hidden = true;
        await this.fire("visibilitychange", {}, this.document.target);
    }

    /** Into the back/forward cache, and back. */
    async away() {
        await this.fire("pagehide", { persisted: true });
        this.isFrozen = true;
    }

    async back() {
        await this.thaw();
        await this.fire("pageshow", { persisted: true });
    }

    /** Stop it without a word, as a browser or a debugger may. */
    freeze() {
        this.isFrozen = true;
    }

    async thaw() {
        this.isFrozen = false;
        this.#schedule();
        await this.world.settle();
    }

    async close() {
        await this.fire("pagehide", { persisted: false });
        await this.crash();
    }

    async crash() {
        this.isGone = true;
        this.streams.forEach((stream) => stream.close());
        this.channels.forEach((channel) => channel.close());
        for (const [id, { tab }] of this.world.timers) {
            if (tab === this) {
                this.world.timers.delete(id);
            }
        }
        this.world.locks.release(this);
        await this.world.settle();
    }

    /** What a reload gives: another page in the same tab. */
    async reload(options = {}) {
        await this.close();
        return this.world.tab({ session: this.session, ...options });
    }

    #document(visible, meta, baseHref, url) {
        const target = new Target(this);
        return {
            target,
            hidden: !visible,
            baseURI: new URL(baseHref ?? "", url).href,
            addEventListener: target.addEventListener,
            removeEventListener: target.removeEventListener,
            querySelector: (selector) => {
                if (selector === "base[href]") {
                    return baseHref ? {} : null;
                }
                assert.equal(selector, 'meta[name="vectr0"]');
                return meta ? { content: JSON.stringify(meta) } : null;
            },
        };
    }

    #broadcastChannel() {
        const tab = this;
        return class extends Target {
            constructor(name) {
                super(tab);
                this.name = name;
                tab.channels.add(this);
            }

            postMessage(message) {
                assert.ok(tab.channels.has(this), "a closed channel is silent");
                tab.world.messages++;
                for (const other of tab.world.tabs) {
                    for (const channel of other.channels) {
                        if (channel.name === this.name && channel !== this) {
                            const event = Object.assign(new Event("message"), { data: structuredClone(message) });
                            other.task(() => other.channels.has(channel) && channel.dispatchEvent(event));
                        }
                    }
                }
            }

            close() {
                tab.channels.delete(this);
            }
        };
    }
}

export class World {
    now = START;
    tabs = [];
    streams = [];
    requests = [];
    warnings = [];
    errors = [];
    timers = new Map();
    messages = 0;
    locks = new Locks();
    /** What version.json gives: the number of a build, an object, [status, body], "never" or an Error to fail with. */
    served = 1;
    random = () => 0.5;
    #tasks = [];
    #ids = 0;

    constructor() {
        this.local = new Area((from, key) => {
            for (const tab of this.tabs.filter((other) => other !== from)) {
                tab.task(() => tab.window.dispatchEvent(Object.assign(new Event("storage"), { key })));
            }
        });
        this.hub = new Hub(this);
    }

    /** Open a tab of this browser. */
    tab(options) {
        const tab = new Tab(this, options);
        this.tabs.push(tab);
        return tab;
    }

    /** Open a tab with a watch, and let it connect. */
    async page(options = {}, watchOptions = {}) {
        const tab = this.tab(options);
        tab.watch(watchOptions);
        await this.settle();
        return tab;
    }

    /** The EventSources that aren't closed. */
    get open() {
        return this.streams.filter(({ readyState }) => readyState !== 2);
    }

    get looks() {
        return this.requests.filter(({ url }) => url.includes("version.json"));
    }

    get polls() {
        return this.requests.filter(({ url }) => url.endsWith("/latest"));
    }

    task(work) {
        this.#tasks.push(work);
    }

    timer(tab, callback, after, repeat) {
        const id = ++this.#ids;
        this.timers.set(id, { tab, callback, at: this.now + Math.max(0, after), every: repeat ? after : 0 });
        return id;
    }

    /** A timer of no tab. */
    systemTimer(after, callback) {
        const id = ++this.#ids;
        this.timers.set(id, { tab: null, callback, at: this.now + after, every: 0 });
        return id;
    }

    deadline(after) {
        const controller = new AbortController();
        this.systemTimer(after, () => controller.abort(new DOMException("too late", "TimeoutError")));
        return controller.signal;
    }

    /** Let everything happen that needs no time. */
    async settle() {
        do {
            await new Promise((resolve) => setImmediate(resolve));
            this.#tasks.splice(0).forEach((work) => work());
            await new Promise((resolve) => setImmediate(resolve));
        } while (this.#tasks.length > 0);
    }

    /** Let time pass. */
    async pass(milliseconds) {
        const end = this.now + milliseconds;
        await this.settle();
        for (;;) {
            const [id, timer] = this.#due(end) ?? [];
            if (!timer) {
                break;
            }
            this.now = Math.max(this.now, timer.at);
            if (timer.every) {
                timer.at = this.now + timer.every;
            } else {
                this.timers.delete(id);
            }
            if (timer.tab) {
                timer.tab.run(timer.callback);
            } else {
                timer.callback();
            }
            await this.settle();
        }
        this.now = end;
        await this.settle();
    }

    #due(end) {
        return [...this.timers]
            .filter(([, { at, tab }]) => at <= end && !tab?.isFrozen)
            .sort(([, one], [, other]) => one.at - other.at)[0];
    }

    async fetch(tab, url, { signal, cache, headers } = {}) {
        const request = { tab, url, cache, headers, at: this.now };
        this.requests.push(request);
        const answer = url.startsWith(HUB) ? this.hub.latest(request) : this.#site();
        if (answer === "never") {
            return new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));
        }
        if (answer instanceof Error) {
            throw answer;
        }
        const [status, body] = answer;
        return new Response(typeof body === "string" ? body : JSON.stringify(body), { status });
    }

    #site() {
        if (typeof this.served === "number") {
            return [200, versionJson(this.served)];
        }
        const isAnswer = Array.isArray(this.served) || this.served instanceof Error || this.served === "never";
        return isAnswer ? this.served : [200, this.served];
    }

    /** Close all that a test left, and see that nothing went wrong unseen. */
    async end() {
        for (const tab of this.tabs.filter(({ isGone }) => !isGone)) {
            await tab.crash();
        }
        assert.deepEqual(this.errors, []);
    }
}

/** What a test is given: a browser of its own. */
export function inWorld(test) {
    return async (context) => {
        const world = new World();
        await test(world, context);
        await world.end();
    };
}
