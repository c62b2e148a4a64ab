/** One build of an application, as it was stamped. */
export interface Build {
    readonly version: string;
    readonly gitCommit: string;
    /** 0 where the build has no number. */
    readonly buildNumber: number;
    /** Milliseconds since 1970. */
    readonly buildTime: number;
    readonly gitTag: string | null;
}

/** A record of the hub: this build went live. */
export interface Deployment extends Build {
    readonly appName: string;
    readonly environment: string;
    /** Milliseconds since 1970 by the hub's clock; the deployment's id. */
    readonly deployedAt: number;
    /** The `deployedAt` of the channel's deployment before this one. */
    readonly previous: number | null;
    /** Whether this build was live before, and has come back. */
    readonly rollback: boolean;
}

export type Connection = "connecting" | "live" | "polling" | "offline";

/** What a watch knows; the same object until something changes. */
export interface Snapshot {
    /** Whether to prompt: the newest deployment is another build, is served, and was not dismissed. */
    readonly hasUpdate: boolean;
    /** The newest deployment where it is an update, dismissed or not. */
    readonly updateInfo: Deployment | null;
    /** What the page runs; null until that is known. */
    readonly currentVersion: Build | null;
    readonly connection: Connection;
    /** Whether a refresh for this deployment still gave the old version. */
    readonly isRollingOut: boolean;
}

export interface BeforeRefresh {
    readonly deployment: Deployment | null;
    /** Refresh only when this promise is fulfilled, and not at all where it is rejected. */
    waitUntil(promise: Promise<unknown>): void;
}

export interface WatchOptions {
    /** The hub's address; by default the one that served this module, or that the Vite plugin was given. */
    hub?: string;
    /** The application's name, such as "web". */
    app?: string;
    /** Such as "production". */
    environment?: string;
    /** Below which `version.json` lies; by default what the Vite plugin says, the document's `<base>`, or "/". */
    base?: string;
    /** What the page runs; by default what the Vite plugin stamped, or else what `version.json` says at the start. */
    current?: Partial<Build> | null;
    /** The names of the caches that a refresh deletes; by default all of this origin's. */
    caches?: readonly string[];
    onDeployment?(deployment: Deployment): void;
    onUpdate?(deployment: Deployment): void;
    onDismiss?(deployment: Deployment): void;
    onState?(connection: Connection): void;
    onBeforeRefresh?(refresh: BeforeRefresh): void;
    onRefresh?(deployment: Deployment | null): void;
}

export interface Watch {
    /** Call the listener after each change. Returns what ends that. */
    subscribe(listener: () => void): () => void;
    readonly snapshot: Snapshot;
    /** The hub's time, in milliseconds since 1970. */
    now(): number;
    /** Reload with the new version, unless a `vectr0:beforerefresh` is canceled. Resolves to whether it does. */
    refreshApp(): Promise<boolean>;
    /** Don't prompt for this deployment again, in no tab. */
    dismissUpdate(): void;
    close(): void;
}

export function watchVersion(options?: WatchOptions): Watch;

export function isSame(a: Build, b: Build): boolean;

export function isUpdate(current: Build | null, deployment: Build | null): boolean;

declare global {
    interface WindowEventMap {
        "vectr0:deployment": CustomEvent<Deployment>;
        "vectr0:update": CustomEvent<Deployment>;
        "vectr0:dismiss": CustomEvent<Deployment>;
        "vectr0:state": CustomEvent<Connection>;
        "vectr0:beforerefresh": CustomEvent<BeforeRefresh>;
        "vectr0:refresh": CustomEvent<Deployment | null>;
    }
}
