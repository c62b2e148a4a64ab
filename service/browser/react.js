/** VECTR0 for React: the hook, and the notification. No JSX: there is no build step. */

import { createElement, useEffect, useMemo, useRef, useSyncExternalStore } from "react";
import { define } from "./notification.js";
import { freeze, settle } from "./page.js";
import { shareWatch } from "./shared.js";

/**
 * Know whether another version was deployed than the one that this page runs.
 *
 * All that use equal options share one watch; what isn't given, the page's `<meta name="vectr0">` says.
 * @param {import("./react.js").VersionCheckOptions} [options]
 * @returns {import("./react.js").VersionCheck}
 */
export function useVersionCheck({ hub, app, environment, base, current, caches } = {}) {
    const key = JSON.stringify([hub, app, environment, base, current, caches]);
    const check = useMemo(
        () => new Check({ hub, app, environment, base, current, caches }),
        // By value: most callers write the options where they call this, as a new object each time.
        [key],
    );
    const { hasUpdate, updateInfo, currentVersion } = useSyncExternalStore(
        check.subscribe,
        check.snapshot,
        check.snapshotOnServer,
    );
    const { refreshApp, dismissUpdate } = check;
    return { hasUpdate, updateInfo, currentVersion, refreshApp, dismissUpdate };
}

/**
 * Show `<update-notification>`, which shares the hook's watch where the options are equal.
 * @param {import("./react.js").UpdateNotificationProps} props
 */
export function UpdateNotification({ hub, app, environment, base, current, caches, texts, className, ...rest }) {
    const ref = useRef(null);
    useEffect(() => {
        define();
        ref.current.texts = texts;
    });
    return createElement("update-notification", {
        ...rest,
        ref,
        // As attributes, which React 18 and 19, a server and a browser all write in the same way.
        class: className,
        hub,
        app,
        environment,
        base,
        version: current?.version,
        commit: current?.gitCommit,
        build: current?.buildNumber,
        time: current?.buildTime,
        tag: current?.gitTag,
        caches: caches?.join(" "),
    });
}

/** A watch that is only there while somebody looks: a render alone, which React may throw away, makes none. */
class Check {
    #options;
    #watch = null;
    #users = 0;
    #atFirst;
    #onServer;

    constructor(options) {
        this.#options = options;
        this.#onServer = { hasUpdate: false, updateInfo: null, currentVersion: freeze(options.current) };
    }

    subscribe = (listener) => {
        const [watch, release] = share(this.#options) ?? [];
        if (!watch) {
            return () => {};
        }
        this.#watch = watch;
        this.#users++;
        const unsubscribe = watch.subscribe(listener);
        return () => {
            unsubscribe();
            release();
            if (--this.#users === 0) {
                this.#watch = null;
            }
        };
    };

    snapshot = () => this.#watch?.snapshot ?? (this.#atFirst ??= this.#beforeWatching());

    /** What a server knows, and so what a page starts with that was rendered there. */
    snapshotOnServer = () => this.#onServer;

    refreshApp = async () => Boolean(await this.#watch?.refreshApp());

    dismissUpdate = () => this.#watch?.dismissUpdate();

    #beforeWatching() {
        try {
            return { ...this.#onServer, currentVersion: settle(this.#options).current };
        } catch {
            return this.#onServer;
        }
    }
}

const failed = new Set();

/** A watch that can't be made is an error that is said once, not one that takes the whole tree down. */
function share(options) {
    try {
        return shareWatch(options);
    } catch (error) {
        if (!failed.has(error.message)) {
            failed.add(error.message);
            console.error(error.message);
        }
        return null;
    }
}
