/** How the board says things: versions, times, durations and shares, in as few words as they need. */

const SECONDS = { day: 86_400, hour: 3_600, minute: 60, second: 1 };
/** Two units say enough, in short: "2 h 13 min". */
const SHORT = { day: "d", hour: "h", minute: "min", second: "s" };

const relative = new Intl.RelativeTimeFormat("en");
const numbers = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "short" });
const exact = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const dated = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

/** Give what people call a build: its tag, or else v and its version. */
export function versionName({ gitTag, version }) {
    return gitTag || `v${version}`;
}

/** Shorten a hash as git does; a commit that is no hash stays. */
export function shortCommit(commit) {
    return commit.replace(/^([0-9a-f]{7})[0-9a-f]+$/i, "$1");
}

/** Say how long ago that was. */
export function ago(milliseconds) {
    const seconds = Math.floor(milliseconds / 1000);
    if (seconds < 1) {
        return "just now";
    }
    const [unit, length] = Object.entries(SECONDS).find(([, length]) => seconds >= length);
    return relative.format(-Math.floor(seconds / length), unit);
}

/** Say how long that is: two units at the most, and tenths below ten seconds. */
export function duration(milliseconds) {
    if (milliseconds < 10_000) {
        return `${Math.round(milliseconds / 100) / 10} s`;
    }
    const seconds = Math.round(milliseconds / 1000);
    const units = Object.entries(SECONDS);
    const first = units.findIndex(([, length]) => seconds >= length);
    let rest = seconds;
    const parts = units.slice(first, first + 2).map(([unit, length]) => {
        const count = Math.floor(rest / length);
        rest -= count * length;
        return [count, unit];
    });
    return parts
        .filter(([count]) => count > 0)
        .map(([count, unit]) => `${count} ${SHORT[unit]}`)
        .join(" ");
}

/** Say a share: 0% only of none and 100% only of all, because the last few tabs are what people wait for. */
export function percent(share) {
    if (share > 0 && share < 0.01) {
        return "<1%";
    }
    return `${Math.floor(share * 100 + 1e-9)}%`;
}

/** Say how many, as in "1 browser" and "1,204 browsers". */
export function count(number, noun) {
    return `${numbers.format(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** Say when that was, as a clock shows it; with the day where that isn't today's. */
export function time(at, now) {
    const isToday = new Date(at).toDateString() === new Date(now).toDateString();
    return said(isToday ? clock : dated, at);
}

/** Say when that was to the second, for who asks. */
export function exactTime(at) {
    return said(exact, at);
}

/** Give a time for a machine, as in `<time datetime>`. */
export function machineTime(at) {
    return isDate(at) ? new Date(at).toISOString() : "";
}

/** A record may hold any integer below 2^53, and dates end before that, in the year 275760 (ECMA-262, 21.4.1.1). */
function isDate(at) {
    return Number.isFinite(new Date(at).getTime());
}

function said(format, at) {
    return isDate(at) ? format.format(at) : `${at} ms after 1970`;
}
