/** The token that a page's address may bring: `#token=…`, as the service prints it when it starts. */

// What an Authorization header takes (RFC 6750, section 2.1). Pages show commands to be pasted into a shell, where
// anything else could be a command of its own: whoever made the link would run it.
const TOKEN = /^[A-Za-z0-9_.~+/=-]{1,4096}$/;

/** Return the token that a fragment holds; null where it holds none, or what no token is. */
export function tokenIn(hash) {
    const [, text] = /^#token=([^&]*)/.exec(hash) ?? [];
    try {
        const token = decodeURIComponent(text ?? "");
        return TOKEN.test(token) ? token : null;
    } catch {
        return null;
    }
}

/** Take the token out of the address, where it could be seen, bookmarked or sent on. */
export function takeToken() {
    const token = tokenIn(location.hash);
    if (location.hash.startsWith("#token=")) {
        history.replaceState(null, "", location.href.split("#")[0]);
    }
    return token;
}
