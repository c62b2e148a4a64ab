/**
 * Builds the sample application: node tests/app/build.mjs --out DIR [--vite7] [--base PATH] [--source TEXT]
 *
 * The version is what the environment says, as in CI: VERSION, GITHUB_SHA, GITHUB_RUN_NUMBER, APP_NAME, ENVIRONMENT,
 * VECTR0_URL, GIT_TAG. Another --source is another source: it renames the lazy chunk, which shows the text.
 */

import { mkdirSync, readdirSync, symlinkSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

/** The sample application, which is Vite's root. */
export const ROOT = dirname(fileURLToPath(import.meta.url));
const INSTALLED = join(ROOT, "../npm/node_modules");
const PACKAGE = join(ROOT, "../../service/browser");

/** Import a package of tests/npm by its name ("vite" is Vite 8, "vite7" is Vite 7). */
export function load(name, entry = "dist/node/index.js") {
    return import(pathToFileURL(join(INSTALLED, name, entry)).href);
}

/** Give the application its node_modules: links to what tests/npm has, and to the npm package of this project. */
export function link() {
    const folder = join(ROOT, "node_modules");
    const names = readdirSync(INSTALLED).flatMap((name) =>
        name.startsWith("@") ? readdirSync(join(INSTALLED, name)).map((inner) => `${name}/${inner}`) : name,
    );
    for (const [name, target] of [["vectr0", PACKAGE], ...names.map((name) => [name, join(INSTALLED, name)])]) {
        if (!name.startsWith(".")) {
            mkdirSync(dirname(join(folder, name)), { recursive: true });
            try {
                symlinkSync(target, join(folder, name));
            } catch (error) {
                if (error.code !== "EEXIST") {
                    throw error;
                }
            }
        }
    }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
    const { values } = parseArgs({
        options: {
            out: { type: "string" },
            vite7: { type: "boolean" },
            base: { type: "string" },
            source: { type: "string" },
        },
    });
    if (!values.out) {
        console.error("--out DIR is missing");
        process.exit(2);
    }
    process.env.SAMPLE_SOURCE = values.source ?? "1";
    link();
    const { build } = await load(values.vite7 ? "vite7" : "vite");
    await build({
        root: ROOT,
        base: values.base,
        logLevel: "warn",
        build: { outDir: resolve(values.out), emptyOutDir: true },
    });
}
