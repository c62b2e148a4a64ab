/** Where each channel stands: applications below one another, environments side by side. No DOM. */

/** The environments that come first, in this order, whatever they are called exactly. */
const KNOWN = [/^(prod|live)/i, /^(pre-?prod|stag|uat|rc|beta|canary)/i, /^(test|qa|int)/i, /^(dev|local)/i];
/** So many columns are always shown as such; of more, only those that several applications share. */
const ENOUGH = 6;

/**
 * Arrange channels. Environments that only one application has (previews, say) don't get a column each: they stand
 * together in a last one.
 * @param {{ app: string, environment: string }[]} channels
 * @returns {{ environments: string[], rows: { app: string, cells: object[], others: object[] }[], hasOthers: boolean }}
 *     the cells in the columns' order, undefined where an application isn't in an environment
 */
export function layOut(channels) {
    const counts = new Map();
    const apps = new Map();
    for (const channel of channels) {
        counts.set(channel.environment, (counts.get(channel.environment) ?? 0) + 1);
        apps.set(channel.app, [...(apps.get(channel.app) ?? []), channel]);
    }
    const environments = [...counts.keys()]
        .filter((name) => counts.size <= ENOUGH || counts.get(name) > 1)
        .sort((a, b) => rank(a) - rank(b) || counts.get(b) - counts.get(a) || compare(a, b));
    const rows = [...apps]
        .sort(([a], [b]) => compare(a, b))
        .map(([app, own]) => ({
            app,
            cells: environments.map((name) => own.find(({ environment }) => environment === name)),
            others: own
                .filter(({ environment }) => !environments.includes(environment))
                .sort((a, b) => compare(a.environment, b.environment)),
        }));
    return { environments, rows, hasOthers: rows.some(({ others }) => others.length > 0) };
}

function rank(environment) {
    const at = KNOWN.findIndex((pattern) => pattern.test(environment));
    return at < 0 ? KNOWN.length : at;
}

function compare(a, b) {
    return a.localeCompare(b, "en", { numeric: true });
}
