/** A request for JSON, which tells apart what the server said from what the network did. */

const DEADLINE = 10_000;

/** Fetch a file. Resolves to its status and its body: no body where it isn't JSON, no status where none came at all. */
export async function fetchJSON(url, cache) {
    let status;
    try {
        const response = await fetch(url, { cache, signal: AbortSignal.timeout(DEADLINE) });
        status = response.status;
        return [status, await response.json()];
    } catch (error) {
        return [error instanceof SyntaxError ? status : undefined];
    }
}
