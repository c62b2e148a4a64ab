/** What the page's address says: a channel, a search, or the whole board. */

const CHANNEL = /^#\/([A-Za-z0-9][A-Za-z0-9._-]{0,63}\/[A-Za-z0-9][A-Za-z0-9._-]{0,63})$/;

/**
 * Read a fragment.
 * @param {string} hash such as "#/web/production" or "#?q=v1.4.0"
 * @returns {{ channel: string | null, query: string }}
 */
export function readAddress(hash) {
    const query = hash.startsWith("#?") ? (new URLSearchParams(hash.slice(2)).get("q") ?? "") : "";
    return { channel: CHANNEL.exec(decode(hash))?.[1] ?? null, query };
}

/** Write the fragment of a search, or of the whole board. */
export function searchAddress(query) {
    return query ? `#?${new URLSearchParams({ q: query })}` : "#/";
}

function decode(text) {
    try {
        return decodeURIComponent(text);
    } catch {
        return text;
    }
}
