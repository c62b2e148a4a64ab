import type { Plugin } from "vite";

/** What is not given is taken from the CI system's environment variables, from package.json and from git. */
export interface Options {
    /** The hub's address, for pages; else the variable VECTR0_URL. */
    hub?: string;
    /** The application's name, such as "web"; else APP_NAME, or the last part of package.json's `name`. */
    app?: string;
    /**
     * Such as "production"; else VECTR0_ENVIRONMENT, ENVIRONMENT, or what the CI system says. A build without one is an
     * error; a dev server's is "development".
     */
    environment?: string;
    /** Else VERSION, npm_package_version, or package.json's `version`. */
    version?: string;
    /** Else GITHUB_SHA, or what the CI system or git says. Of a whole hash the first seven characters are taken. */
    commit?: string;
    /** Else GITHUB_RUN_NUMBER, or what the CI system says, or 0. */
    buildNumber?: number | string;
    /** Milliseconds since 1970; else now. Give it where a client and a server are built by two processes. */
    buildTime?: number | string;
    /** Else GIT_TAG, or what the CI system or git says. */
    tag?: string | null;
}

/** What a build is known by: the contents of version.json, and the body of `POST /deployments`. */
export interface Stamp {
    readonly appName: string;
    readonly version: string;
    readonly gitCommit: string;
    readonly buildNumber: number;
    readonly buildTime: number;
    readonly environment: string;
    readonly gitTag: string | null;
}

/** Stamp the build: the constants of `vectr0/constants`, index.html's `<meta name="vectr0">`, and version.json. */
export function vectr0(options?: Options): Plugin[];

export default vectr0;
