/** Questions to the hub. */

const LONGEST_ANSWER = 10_000;

/** Resolve to what the hub answers, as JSON; to null where it doesn't, or says that it can't. */
export async function ask(url) {
    try {
        const response = await fetch(url, { cache: "no-cache", signal: AbortSignal.timeout(LONGEST_ANSWER) });
        return response.status < 500 ? await response.json() : null;
    } catch {
        return null;
    }
}
