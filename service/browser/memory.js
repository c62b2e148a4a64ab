/** Storage that never throws: where a browser gives none, it says so and forgets. */

/**
 * Give a part of a page's storage.
 * @param {"localStorage" | "sessionStorage"} area
 * @param {string} prefix what the names in this part begin with
 */
export function memory(area, prefix) {
    return {
        read(name) {
            try {
                return JSON.parse(globalThis[area].getItem(`${prefix}:${name}`));
            } catch {
                return null;
            }
        },

        /** Remember a value, and tell whether it really will be: whatever must not happen twice depends on it. */
        write(name, value) {
            try {
                globalThis[area].setItem(`${prefix}:${name}`, JSON.stringify(value));
                return true;
            } catch {
                return false;
            }
        },
    };
}
