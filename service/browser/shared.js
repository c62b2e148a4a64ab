/** One watch for all parts of a page that want the same. */

import { settle } from "./page.js";
import { watchVersion } from "./watch.js";

const shared = new Map();

/** Give the one watch of these options, and what its user calls when done with it. */
export function shareWatch(options = {}) {
    const key = JSON.stringify([settle(options), options.caches]);
    const entry = shared.get(key) ?? { watch: watchVersion(options), users: new Set() };
    const release = () => {
        entry.users.delete(release);
        // React's StrictMode, and elements that are moved, let go and take again at once.
        setTimeout(() => {
            if (entry.users.size === 0 && shared.get(key) === entry) {
                shared.delete(key);
                entry.watch.close();
            }
        });
    };
    shared.set(key, entry);
    entry.users.add(release);
    return [entry.watch, release];
}
