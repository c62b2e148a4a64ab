/** What the board knows: each channel's deployments and who runs them. No DOM, no network; the clock is the hub's. */

/** How many deployments a channel keeps. */
export const KEPT = 10;

/**
 * @typedef {object} Channel
 * @property {string} name such as "web/production"
 * @property {string} app
 * @property {string} environment
 * @property {object[]} deployments the newest first; perhaps not all of those that the hub keeps, see `isWhole`
 * @property {object | null} adoption the open browsers, by what they run
 * @property {number} changedAt by the hub's clock; 0 for what was there already when the board came
 */

export class Model {
    /** @type {Map<string, Channel>} */
    channels = new Map();
    /** What the hub's clock is ahead of this browser's, in milliseconds. */
    #clock = 0;
    #onChange;

    /** @param {(channel: Channel, what: "deployment" | "history" | "adoption" | "gone") => void} onChange */
    constructor(onChange) {
        this.#onChange = onChange;
    }

    /** The hub's time, in milliseconds since 1970. */
    now() {
        return Date.now() + this.#clock;
    }

    setClock(now) {
        this.#clock = now - Date.now();
    }

    /** Take a deployment that the stream brought. Gives the channel, or null where that is its newest already. */
    take(deployment, isNews) {
        const channel = this.#open(deployment);
        const [newest] = channel.deployments;
        // By all that it says: of a Redis that was lost, and of the one that took over, two can have one id.
        if (JSON.stringify(newest) === JSON.stringify(deployment)) {
            return null;
        }
        // An older one comes where Redis itself went back: what came after it is no more.
        const kept = channel.deployments.filter(({ deployedAt }) => deployedAt < deployment.deployedAt);
        channel.deployments = [deployment, ...kept].slice(0, KEPT);
        channel.changedAt = isNews ? this.now() : 0;
        this.#onChange(channel, "deployment");
        return channel;
    }

    /** Take what a list says, newest first. Where it is of all that there is, other channels are gone. */
    load(deployments, isAll = false) {
        const found = new Map();
        for (const deployment of deployments) {
            const name = nameOf(deployment);
            found.set(name, [...(found.get(name) ?? []), deployment]);
        }
        for (const list of found.values()) {
            this.#loadChannel(this.#open(list[0]), list);
        }
        for (const channel of isAll ? [...this.channels.values()] : []) {
            if (!found.has(channel.name)) {
                this.channels.delete(channel.name);
                this.#onChange(channel, "gone");
            }
        }
    }

    adopt(name, adoption) {
        const channel = this.channels.get(name);
        if (channel) {
            channel.adoption = adoption;
            this.#onChange(channel, "adoption");
        }
    }

    #open(deployment) {
        const name = nameOf(deployment);
        const { appName: app, environment } = deployment;
        const fresh = { name, app, environment, deployments: [], adoption: null, changedAt: 0 };
        const channel = this.channels.get(name) ?? fresh;
        this.channels.set(name, channel);
        return channel;
    }

    #loadChannel(channel, list) {
        const before = channel.deployments;
        // What the stream brought since the list was asked for is newer than the list.
        const newer = channel.deployments.filter(({ deployedAt }) => deployedAt > list[0].deployedAt);
        channel.deployments = [...newer, ...list].slice(0, KEPT);
        const isAnother = channel.deployments[0].deployedAt !== before[0]?.deployedAt;
        if (isAnother || channel.deployments.length !== before.length) {
            this.#onChange(channel, isAnother ? "deployment" : "history");
        }
    }
}

/** Tell whether all kept deployments of a channel are here: an unbroken chain of ten, or down to the first. */
export function isWhole({ deployments }) {
    const isChain = deployments.every((one, at) => at === 0 || deployments[at - 1].previous === one.deployedAt);
    return isChain && (deployments.length === KEPT || deployments.at(-1)?.previous === null);
}

function nameOf({ appName, environment }) {
    return `${appName}/${environment}`;
}
