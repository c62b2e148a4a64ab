/** What the build is known by. Where there is no document (in workers), the strings are "unknown" and the numbers 0. */

declare const __APP_VERSION__: string;
/** "dev" in the dev server. */
declare const __GIT_COMMIT__: string;
/** 0 where the build has no number. */
declare const __BUILD_NUMBER__: number;
/** Milliseconds since 1970. */
declare const __BUILD_TIME__: number;
declare const __APP_NAME__: string;
declare const __ENVIRONMENT__: string;
declare const __GIT_TAG__: string | null;

declare module "virtual:vectr0/stamp" {
    /** The content of `<meta name="vectr0">`, for a server that writes its own HTML. */
    export const meta: string | null;
    export const __APP_VERSION__: string;
    export const __GIT_COMMIT__: string;
    export const __BUILD_NUMBER__: number;
    export const __BUILD_TIME__: number;
    export const __APP_NAME__: string;
    export const __ENVIRONMENT__: string;
    export const __GIT_TAG__: string | null;
}
