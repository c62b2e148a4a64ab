import type { HTMLAttributes, ReactElement } from "react";
import type { Texts } from "./element.js";
import type { Build, Deployment, WatchOptions } from "./vectr0.js";

/** Compared by value, so that they may be written anew in each render. */
export type VersionCheckOptions = Pick<WatchOptions, "hub" | "app" | "environment" | "base" | "current" | "caches">;

export interface VersionCheck {
    /** Whether to prompt: the newest deployment is another build, is served, and was not dismissed. */
    hasUpdate: boolean;
    /** The newest deployment where it is an update, dismissed or not. */
    updateInfo: Deployment | null;
    /** What the page runs; null until that is known, as it isn't on a server. */
    currentVersion: Build | null;
    /** Reload with the new version. Resolves to whether it does. The same function as long as the options are equal. */
    refreshApp: () => Promise<boolean>;
    /** Don't prompt for this deployment again. The same function as long as the options are equal. */
    dismissUpdate: () => void;
}

/** Know whether another version was deployed than the one that this page runs. */
export function useVersionCheck(options?: VersionCheckOptions): VersionCheck;

export interface UpdateNotificationProps
    extends VersionCheckOptions, Omit<HTMLAttributes<HTMLElement>, "children" | "dangerouslySetInnerHTML"> {
    /** The application's own words, in place of some or all of the element's. */
    texts?: Partial<Texts> | null;
}

/** Show `<update-notification>`; where the options are equal it shares the watch of `useVersionCheck`. */
export function UpdateNotification(props: UpdateNotificationProps): ReactElement;
