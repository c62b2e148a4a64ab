/** Text as a shell takes it, for commands to copy. */

/** Return a word that stands for itself: as it is where that is safe, else in quotes. */
export function word(text) {
    return /^[\w@%+=:,./-]+$/.test(text) ? text : quoted(text);
}

/** Return a text in quotes. */
export function quoted(text) {
    return `'${text.replaceAll("'", "'\\''")}'`;
}

/** Return a value as JSON whose every character can be seen: what a terminal acts on when it is pasted is escaped. */
export function visible(value) {
    return JSON.stringify(value).replace(
        /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu,
        (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
    );
}
