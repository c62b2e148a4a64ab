/** Commands to copy, filled in with the hub's address, and with the token where the page was given one. */

import { quoted, visible, word } from "../browser/demo/shell.js";
import { element, write } from "./dom.js";

const COPIED = 2_000;

/** Give the commands that watch and record a channel. */
export function commands(hub, token, app = "web", environment = "production", now = Date.now()) {
    const build = { version: "1.0.0", gitCommit: "3f2c1ab", buildNumber: 1, buildTime: now };
    const fields = { appName: app, ...build, environment };
    const secret = token ? quoted(`Authorization: Bearer ${token}`) : '"Authorization: Bearer $VECTR0_TOKEN"';
    const lines = visible(fields).replace(/,("buildNumber")/, ",\n   $1");
    const events = word(`${hub}events/${app}/${environment}`);
    const deployments = word(`${hub}deployments`);
    const body = quoted(`\n  ${lines}`);
    return {
        watch: `curl -N ${events}`,
        record: `curl ${deployments} -H ${secret} --json ${body}`,
    };
}

/** Make a block of code with a button that copies it. */
export function codeBlock(title, code) {
    const text = element("code", {}, code);
    const button = element("button", { type: "button", class: "copy" }, "Copy");
    button.setAttribute("aria-label", `Copy: ${title}`);
    button.addEventListener("click", async () => {
        write(button, (await copy(text)) ? "Copied" : "Selected");
        setTimeout(() => write(button, "Copy"), COPIED);
    });
    return element("div", { class: "code" }, element("pre", { tabindex: "0", "aria-label": title }, text), button);
}

async function copy(code) {
    try {
        await navigator.clipboard.writeText(code.textContent);
        return true;
    } catch {
        // Only pages over HTTPS and of this machine have a clipboard.
        getSelection().selectAllChildren(code);
        return document.execCommand("copy");
    }
}
