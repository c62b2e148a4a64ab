/** Storage that never throws: where a browser gives none, it says so and forgets. */

export class Memory {
    #area;
    #prefix;

    /**
     * @param {"localStorage" | "sessionStorage"} area
     * @param {string} prefix
     */
    constructor(area, prefix) {
        this.#area = area;
        this.#prefix = `${prefix}:`;
    }

    read(name) {
        try {
            return JSON.parse(globalThis[this.#area].getItem(this.#prefix + name));
        } catch {
            return null;
        }
    }

    /** Remember a value, and tell whether it really will be: whatever must not happen twice depends on it. */
    write(name, value) {
        try {
            globalThis[this.#area].setItem(this.#prefix + name, JSON.stringify(value));
            return true;
        } catch {
            return false;
        }
    }
}
