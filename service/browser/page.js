/** What the page says of itself: a `<meta name="vectr0">`, which the Vite plugin writes, and where this file came from. */

/** The hub that served this file; nothing where the file came out of a bundle. */
const OWN_HUB = import.meta.url?.match(/(.*\/)browser\/[^/]+\/vectr0\.js$/)?.[1];

/** Settle what a watch has to know: the options first, then what the page says of itself. */
export function settle(options = {}) {
    const meta = stamped();
    const { hub = meta.hub ?? OWN_HUB, app = meta.appName, environment = meta.environment } = options;
    for (const [name, value] of Object.entries({ hub, app, environment })) {
        if (!value) {
            throw new TypeError(`vectr0: ${name} is not given`);
        }
    }
    return {
        hub: folder(hub),
        app,
        environment,
        base: folder(options.base ?? meta.base ?? ownBase()),
        current: freeze(options.current ?? (meta.gitCommit ? meta : null)),
    };
}

/** Give the build's own fields of an object that may have others, or null. */
export function freeze(build) {
    if (!build) {
        return null;
    }
    const { version = "", gitCommit = "unknown", buildNumber = 0, buildTime = 0, gitTag = null } = build;
    return Object.freeze({ version, gitCommit, buildNumber, buildTime, gitTag });
}

function stamped() {
    const meta = document.querySelector('meta[name="vectr0"]');
    return meta ? JSON.parse(meta.content) : {};
}

/** A `<base>` may name a file in the folder that is meant. */
function ownBase() {
    return document.querySelector("base[href]") ? new URL(".", document.baseURI).href : "/";
}

function folder(address) {
    return new URL(address, document.baseURI).href.replace(/\/*$/, "/");
}
