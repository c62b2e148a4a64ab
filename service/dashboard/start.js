/** The board before anything was recorded: what to type, and what has been seen of it already. */

import { codeBlock, commands } from "./commands.js";
import { element, write } from "./dom.js";

export class Start {
    element;
    #watching = element("p", { class: "seen", role: "status" });

    constructor(hub, token) {
        const { watch, record } = commands(hub, token);
        const fragment = token ? `#token=${encodeURIComponent(token)}` : "";
        const demo = element("a", { href: `demo${fragment}` }, "Try it in a page");
        this.element = element(
            "section",
            { class: "start" },
            element("h1", { tabindex: "-1" }, "Nothing is deployed yet"),
            element("p", { class: "lead" }, "Two commands, each in a terminal of its own, and this page comes alive."),
            element(
                "ol",
                { class: "steps" },
                element(
                    "li",
                    {},
                    element("h2", {}, "Watch a channel"),
                    codeBlock("Watch a channel", watch),
                    this.#watching,
                ),
                element(
                    "li",
                    {},
                    element("h2", {}, "Record a deployment"),
                    codeBlock("Record a deployment", record),
                    element("p", { class: "help" }, ...tokenHelp(token)),
                ),
            ),
            element("p", { class: "lead" }, demo, " instead: it records a deployment, and is told of it."),
        );
    }

    /** Tell that somebody listens: `streams` are those of the process that answered, this page's among them. */
    update(streams) {
        const others = streams - 1;
        this.#watching.classList.toggle("done", others > 0);
        write(this.#watching, others > 0 ? "Somebody listens. Now the second one." : "");
    }
}

function tokenHelp(token) {
    if (token) {
        return ["The token in it was made for this run of the service."];
    }
    return [element("code", {}, "VECTR0_TOKEN"), " is a token that the service was started with."];
}
