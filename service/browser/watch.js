/** The watch: what a page knows of its version, and what it may do about it. */

import { freeze, settle } from "./page.js";
import { clear } from "./refresh.js";
import { isSame, isUpdate } from "./rule.js";
import { memory } from "./memory.js";
import { Served } from "./served.js";
import { Share } from "./share.js";
import { Source } from "./source.js";

/** What the tabs say to each other; a tab with other words has another lock and channel. */
const PROTOCOL = 1;
/** Milliseconds for which a tab that said so counts as visible. */
const LATELY = 60_000;
/** For how many milliseconds a deployment isn't prompted for after a first, second and further refresh that gave the old version. */
const REST = [60_000, 300_000, 1_800_000];

/**
 * Watch a channel for a version that isn't the page's.
 *
 * Each step is a DOM event of the window, too: `vectr0:deployment`, `vectr0:update`, `vectr0:dismiss`, `vectr0:state`,
 * `vectr0:refresh`, and `vectr0:beforerefresh`, which can be canceled, and whose `detail.waitUntil(promise)` delays.
 * @param {import("./vectr0.js").WatchOptions} [options]
 * @returns {import("./vectr0.js").Watch}
 * @throws {TypeError} where the hub, the application or the environment is given neither here nor by the page
 */
export function watchVersion(options) {
    return new Watch(options);
}

class Watch {
    #page;
    #options;
    #name;
    #current;
    #isUnknown;
    #newest = null;
    #connection = "connecting";
    #clock = 0;
    #source = null;
    #share = null;
    #served;
    #local;
    #session;
    #later;
    #failed;
    #rest;
    #refreshing = null;
    #visibleElsewhere = 0;
    /** What other tabs run: those heard since the source asked last, and those before. */
    #tabs = [[], []];
    #hasWarned = false;
    #listeners = new Set();
    #snapshot;
    #closing = new AbortController();

    constructor(options = {}) {
        this.#options = options;
        this.#page = settle(options);
        const { hub, app, environment, base, current } = this.#page;
        this.#current = current;
        this.#isUnknown = !current;
        this.#name = `vectr0:${PROTOCOL}:${hub}:${app}/${environment}`;
        this.#local = memory("localStorage", this.#name);
        this.#session = memory("sessionStorage", this.#name);
        this.#failed = this.#session.read("refresh");
        this.#served = new Served(base, app, `${this.#name}:look`, {
            post: (message) => this.#share?.post(message),
            onChange: () => this.#learn(),
        });
        this.#snapshot = this.#decide();
        this.#on(globalThis, "pagehide", () => this.#leave());
        this.#on(globalThis, "pageshow", () => this.#join());
        this.#on(document, "freeze", () => this.#leave());
        this.#on(document, "resume", () => this.#join());
        this.#on(document, "visibilitychange", () => this.#wake());
        this.#on(globalThis, "storage", () => this.#hearStorage());
        this.#on(globalThis, "vite:preloadError", () => this.#heal());
        this.#join();
    }

    /** Call the listener after each change. Returns what ends that. */
    subscribe = (listener) => {
        this.#listeners.add(listener);
        return () => this.#listeners.delete(listener);
    };

    /** What is known now: immutable, and the same object until something changes. */
    get snapshot() {
        return this.#snapshot;
    }

    /** The hub's time, in milliseconds since 1970. */
    now() {
        return Date.now() + this.#clock;
    }

    /** Reload with the new version, unless somebody objects. Resolves to whether the page is being reloaded. */
    refreshApp = () => (this.#refreshing ??= this.#refresh().finally(() => (this.#refreshing = null)));

    /** Don't prompt for this deployment again, in no tab. */
    dismissUpdate = () => {
        const { hasUpdate, updateInfo } = this.#snapshot;
        if (hasUpdate) {
            this.#later = updateInfo.deployedAt;
            this.#local.write("later", this.#later);
            this.#share?.post({ later: this.#later });
            this.#update();
            this.#emit("Dismiss", updateInfo);
        }
    };

    close() {
        this.#leave();
        clearTimeout(this.#rest);
        this.#closing.abort();
        this.#listeners.clear();
    }

    #on(target, event, listener) {
        target.addEventListener(event, listener, { signal: this.#closing.signal });
    }

    #join() {
        this.#share ??= new Share(this.#name, {
            onLead: () => this.#connect(),
            onFollow: () => this.#disconnect(),
            onMessage: (message) => this.#hear(message),
        });
        this.#lookFor();
        this.#hearStorage();
    }

    #leave() {
        this.#share?.close();
        this.#share = null;
        this.#disconnect();
        this.#served.stop();
    }

    #connect() {
        const { hub, app, environment } = this.#page;
        this.#source = new Source(hub, `/${app}/${environment}`, {
            onMessage: (message) => this.#tell(message),
            onProblem: (problem) => this.#warn(problem),
            newestId: () => this.#newest?.deployedAt,
            isVisible: () => !document.hidden || Date.now() - this.#visibleElsewhere < LATELY,
            running: () => this.#oldest(),
        });
    }

    /** Give the oldest build of a browser's tabs. A tab answers each beat of the lead, of which two asks span one. */
    #oldest() {
        const builds = [this.#current, ...this.#tabs.flat()].filter(Boolean);
        this.#tabs = [[], this.#tabs[0]];
        builds.sort((a, b) => a.buildTime - b.buildTime || a.buildNumber - b.buildNumber);
        return builds[0] ? `${builds[0].gitCommit}~${builds[0].buildNumber}` : "";
    }

    #disconnect() {
        this.#source?.close();
        this.#source = null;
    }

    #wake() {
        if (!document.hidden) {
            this.#source?.wake();
            this.#served.wake();
            this.#share?.post({ visible: true, woke: true });
        }
    }

    /** Pass on what the source says, raw: each tab decides for itself. */
    #tell(message) {
        if (this.#share?.leads) {
            this.#share.post(message);
        }
        this.#hear(message);
    }

    #hear({ lead, hello, visible, runs, woke, newest, deployment, now, state, later, served }) {
        const leads = this.#share?.leads;
        if (hello && leads) {
            this.#share.post({ newest: this.#newest, state: this.#connection, now: this.now() });
        }
        if (lead && !leads) {
            this.#share.post({ visible: !document.hidden, runs: this.#current });
        }
        if (leads && runs) {
            this.#tabs[0].push(runs);
        }
        if (visible) {
            this.#visibleElsewhere = Date.now();
        }
        if (woke) {
            this.#source?.wake();
        }
        if (now) {
            this.#clock = now - Date.now();
        }
        this.#connection = state ?? this.#connection;
        this.#later = later ?? this.#later;
        if (served) {
            this.#served.hear(served);
        }
        // The hub may go back in time; a lead that slept only doesn't know better.
        const found = deployment ?? (newest?.deployedAt <= this.#newest?.deployedAt ? null : newest);
        // Two records can have one id: of a Redis that was lost, and of the one that took over.
        if (found && JSON.stringify(found) !== JSON.stringify(this.#newest)) {
            this.#newest = found;
            this.#lookFor();
            this.#emit("Deployment", found);
        }
        this.#update();
    }

    #hearStorage() {
        this.#later = this.#local.read("later") ?? this.#later;
        this.#update();
    }

    #lookFor() {
        if (this.#isUnknown || isUpdate(this.#current, this.#newest)) {
            this.#served.start();
        } else {
            this.#served.forget();
        }
    }

    /** Take what `version.json` says; where the page didn't say what it runs, that was it when the page was loaded. */
    #learn() {
        if (this.#isUnknown) {
            this.#isUnknown = false;
            this.#current = freeze(this.#served.build);
            if (!this.#current) {
                console.warn("vectr0: nothing says what this page runs");
            }
            this.#lookFor();
        }
        this.#update();
    }

    #update() {
        const before = this.#snapshot;
        const after = this.#decide();
        if (!this.#share || Object.keys(after).every((name) => after[name] === before[name])) {
            return;
        }
        this.#snapshot = after;
        if (after.connection !== before.connection) {
            this.#emit("State", after.connection);
        }
        if (after.hasUpdate && !(before.hasUpdate && before.updateInfo === after.updateInfo)) {
            this.#emit("Update", after.updateInfo);
        }
        this.#listeners.forEach(attempt);
    }

    #decide() {
        const newest = this.#newest;
        const isReady = isUpdate(this.#current, newest) && this.#isServed();
        const isRollingOut = isReady && this.#hasFailed();
        const rest = isRollingOut ? this.#failed.at + (REST[this.#failed.count - 1] ?? REST.at(-1)) - Date.now() : 0;
        this.#follow(isReady, rest);
        return Object.freeze({
            hasUpdate: isReady && rest <= 0 && this.#later !== newest.deployedAt,
            updateInfo: isReady ? newest : null,
            currentVersion: this.#current,
            connection: this.#connection,
            isRollingOut,
        });
    }

    /** While a failed refresh rests, what is served is looked at still: it ends the rest when it changes. */
    #follow(isReady, rest) {
        clearTimeout(this.#rest);
        if (rest > 0) {
            this.#rest = setTimeout(() => this.#update(), rest);
        } else if (isReady) {
            this.#served.stop();
        }
    }

    /** Whether a reload would give something else than what the page runs. */
    #isServed() {
        const { hasCheck, build } = this.#served;
        if (hasCheck) {
            return Boolean(build) && !isSame(this.#current, build);
        }
        // A visitor who came between the swap of the files and the record runs the new build already.
        const { buildTime, rollback } = this.#newest;
        return hasCheck === false && (rollback || !buildTime || buildTime >= this.#current.buildTime);
    }

    /** Whether this tab's last refresh was for this deployment, and the server gives what it gave then. */
    #hasFailed() {
        return this.#failed?.deployment === this.#newest.deployedAt && this.#failed.served === key(this.#served.build);
    }

    async #refresh() {
        const waits = [];
        const deployment = this.#newest;
        if (!this.#emit("BeforeRefresh", { deployment, waitUntil: (promise) => waits.push(promise) })) {
            return false;
        }
        try {
            await Promise.all(waits);
        } catch (error) {
            console.warn("vectr0: not refreshed:", error);
            return false;
        }
        if (deployment) {
            this.#session.write("refresh", {
                deployment: deployment.deployedAt,
                served: key(this.#served.build),
                at: Date.now(),
                count: this.#hasFailed() ? this.#failed.count + 1 : 1,
            });
        }
        this.#emit("Refresh", deployment);
        await clear(this.#options.caches);
        location.reload();
        return true;
    }

    /** A part of the page could not be loaded: the server may have dropped it with the old version. Reload once. */
    async #heal() {
        const build = await this.#served.look();
        // Neither the network's fault nor a moment's: there is another build.
        const found = build ?? (build === null && !this.#served.hasCheck && this.#snapshot.updateInfo);
        if (!this.#share || !this.#current || !found || isSame(this.#current, found)) {
            return;
        }
        // Where it can't be remembered it could happen for ever.
        if (this.#session.read("healed") !== key(found) && this.#session.write("healed", key(found))) {
            this.refreshApp();
        }
    }

    #warn(problem) {
        if (!this.#hasWarned) {
            this.#hasWarned = true;
            console.warn(`vectr0: ${problem}`);
        }
    }

    #emit(step, detail) {
        attempt(() => this.#options[`on${step}`]?.(detail));
        return dispatchEvent(
            new CustomEvent(`vectr0:${step.toLowerCase()}`, { detail, cancelable: step === "BeforeRefresh" }),
        );
    }
}

/** Call what belongs to the page: its errors are its own. */
function attempt(callback) {
    try {
        callback();
    } catch (error) {
        reportError(error);
    }
}

function key(build) {
    return build ? `${build.gitCommit} ${build.buildNumber} ${build.buildTime}` : null;
}
