/** The board: ties what the hub says to what is shown, and the page's address to which part of it. */

import { takeToken } from "../browser/demo/token.js";
import { Source } from "../browser/source.js";
import { readAddress, searchAddress } from "./address.js";
import { Announcer } from "./announce.js";
import { element, write } from "./dom.js";
import { Grid } from "./grid.js";
import { Health } from "./health.js";
import { Library } from "./library.js";
import { Model } from "./model.js";
import { Opened } from "./opened.js";
import { answerText, results } from "./results.js";
import { search } from "./search.js";
import { Start } from "./start.js";
import { Status } from "./status.js";
import { ago, count, versionName } from "./words.js";

const TICK = 1_000;
/** A search is read aloud when the typing pauses. */
const PAUSE = 700;
const TITLE = "VECTR0";

class Board {
    #hub = new URL(".", location.href).href;
    #token = takeToken();
    #model = new Model((channel, what) => this.#change(channel, what));
    #library = new Library(this.#hub, this.#model);
    #grid = new Grid();
    #status = new Status();
    #announcer = new Announcer();
    #start = new Start(this.#hub, this.#token);
    #waiting = element("p", { class: "lead waiting" }, "The hub hasn’t said yet what runs where.");
    #opened = null;
    #summary = element("p", { class: "summary" });
    #wall = element(
        "div",
        { class: "wall" },
        element("h1", { id: "heading", tabindex: "-1" }, "What runs where"),
        this.#summary,
        this.#grid.element,
    );
    #main = document.querySelector("main");
    #field = document.querySelector("#search");
    #state = { connection: "connecting", health: null, heardAt: 0 };
    #dirty = new Set();
    #news = new Set();
    #frame = null;
    #pause;
    #shown = "";
    #source = null;
    #health = null;

    constructor() {
        document.querySelector("header").append(this.#status.element);
        document.body.append(this.#announcer.element);
        addEventListener("hashchange", () => this.#go());
        addEventListener("keydown", (event) => this.#press(event));
        this.#field.addEventListener("input", () => this.#type());
        this.#field.form.addEventListener("submit", (event) => {
            event.preventDefault();
            this.#main.querySelector(".results a")?.focus();
        });
        document.addEventListener("visibilitychange", () => this.#wake());
        // A page with an open stream can't be kept for the way back; one without can, and opens it anew.
        addEventListener("pagehide", () => this.#disconnect());
        addEventListener("pageshow", ({ persisted }) => persisted && this.#connect());
        setInterval(() => this.#tick(), TICK);
        this.#connect();
        this.#go();
    }

    // What the hub says

    #connect() {
        const isVisible = () => document.visibilityState === "visible";
        this.#source = new Source(this.#hub, "", {
            onMessage: (message) => this.#hear(message),
            onProblem: (problem) => console.warn(`VECTR0: ${problem}`),
            onStream: (events) => events.addEventListener("adoption", ({ data }) => this.#adopt(JSON.parse(data))),
            newestId: () => undefined,
            running: () => "",
            isVisible,
        });
        this.#health = new Health(this.#hub, {
            onHealth: (health) => this.#examine(health),
            isEager: () => this.#model.channels.size === 0,
            isVisible,
        });
    }

    #disconnect() {
        this.#source.close();
        this.#health.close();
        this.#source = this.#health = null;
    }

    #wake() {
        if (this.#source && document.visibilityState === "visible") {
            this.#source.wake();
            this.#health.ask();
            this.#tick();
            this.#flushSoon();
        }
    }

    #hear({ deployment, now, state }) {
        if (now) {
            this.#model.setClock(now);
        }
        if (deployment) {
            this.#take(deployment);
        }
        if (state) {
            this.#enter(state);
        }
    }

    /** Take a deployment, or the list of them that polling brings. */
    #take(deployment) {
        if (deployment.deployments) {
            this.#library.load();
            return;
        }
        const channel = this.#model.take(deployment, this.#library.isLoaded);
        if (channel && this.#library.isLoaded) {
            this.#news.add(channel.name);
            this.#announcer.tell(channel);
        }
    }

    #adopt(adoption) {
        const name = `${adoption.appName}/${adoption.environment}`;
        const before = this.#model.channels.get(name)?.adoption;
        this.#model.adopt(name, adoption);
        if (Boolean(before?.stale) !== adoption.stale) {
            this.#health?.ask();
        }
    }

    #enter(connection) {
        const isBack = connection === "live" && this.#state.connection !== "live";
        if (connection === "live") {
            this.#state.heardAt = this.#model.now();
        }
        this.#state.connection = connection;
        this.#status.update(this.#state, this.#model.now());
        if (isBack) {
            this.#load();
        }
    }

    #examine(health) {
        const wasDown = this.#state.health?.relay.state === "down";
        this.#model.setClock(health.now);
        this.#state.health = health;
        this.#status.update(this.#state, this.#model.now());
        this.#start.update(health.streams);
        if (health.relay.state !== "down" && (wasDown || !this.#library.isLoaded)) {
            this.#load();
        }
    }

    async #load() {
        await this.#library.load();
        if (this.#opened) {
            this.#opened.load();
        }
        this.#flushSoon();
    }

    // What is shown

    #change(channel, what) {
        this.#dirty.add(channel.name);
        if (what !== "adoption" && this.#shown.startsWith("search:")) {
            this.#shown = "";
        }
        this.#flushSoon();
    }

    /** Show all changes of a moment at once, when the browser draws; nobody looks at a hidden page. */
    #flushSoon() {
        this.#frame ??= requestAnimationFrame(() => {
            this.#frame = null;
            this.#flush();
        });
    }

    #flush() {
        const now = this.#model.now();
        const { channel, query } = readAddress(location.hash);
        const channels = [...this.#model.channels.values()];
        this.#grid.update(channels, this.#dirty, this.#news, now);
        this.#opened?.update(this.#model.channels.get(this.#opened.name), now);
        this.#dirty.clear();
        this.#news.clear();
        this.#summarize(now);
        if (channel) {
            this.#put(`channel:${channel}`, this.#opened?.element);
        } else if (query.trim()) {
            this.#showResults(query, now);
        } else if (channels.length) {
            this.#put("board", this.#wall);
        } else if (this.#library.isLoaded) {
            this.#put("start", this.#start.element);
        } else {
            this.#put("waiting", this.#waiting);
        }
    }

    #put(what, part) {
        if (part && this.#shown !== what) {
            this.#shown = what;
            this.#main.replaceChildren(part);
        }
    }

    #showResults(query, now) {
        const what = `search:${query}`;
        if (this.#shown === what) {
            return;
        }
        const found = search(query, this.#model.channels.values());
        const doubt = this.#library.isLoaded ? "" : "Not all deployments have been loaded yet.";
        const focused = this.#main.querySelector(".results a:focus")?.getAttribute("href");
        this.#put(what, results(query, found, now, doubt));
        if (focused) {
            [...this.#main.querySelectorAll(".results a")].find((a) => a.getAttribute("href") === focused)?.focus();
        }
        clearTimeout(this.#pause);
        this.#pause = setTimeout(() => this.#announcer.say(answerText(query, found)), PAUSE);
    }

    #summarize(now) {
        const channels = [...this.#model.channels.values()];
        if (channels.length === 0) {
            return;
        }
        const last = channels.reduce((a, b) => (a.deployments[0].deployedAt > b.deployments[0].deployedAt ? a : b));
        const [newest] = last.deployments;
        const browsers = channels.reduce((sum, { adoption }) => sum + (adoption?.streams ?? 0), 0);
        const parts = [
            count(new Set(channels.map(({ app }) => app)).size, "application"),
            ...(channels.some(({ adoption }) => adoption) ? [count(browsers, "open browser")] : []),
            `last: ${versionName(newest)} on ${last.name}, ${ago(now - newest.deployedAt)}`,
        ];
        write(this.#summary, parts.join(" · "));
    }

    #tick() {
        if (document.visibilityState !== "visible") {
            return;
        }
        const now = this.#model.now();
        this.#status.update(this.#state, now);
        if (this.#shown === "board") {
            this.#grid.tick(now);
            this.#summarize(now);
        } else {
            this.#opened?.tick(now);
        }
    }

    // Where the page is

    #go() {
        this.#token = takeToken() ?? this.#token;
        const { channel, query } = readAddress(location.hash);
        if (this.#field.value !== query && !(this.#field === document.activeElement && !channel)) {
            this.#field.value = query;
        }
        const left = this.#opened?.name;
        if (left !== channel) {
            this.#opened?.close();
            this.#opened = null;
            if (channel) {
                this.#open(channel);
            }
        }
        this.#announcer.setTitle(channel ? `${channel} · ${TITLE}` : query ? `${query} · ${TITLE}` : TITLE);
        this.#flush();
        this.#guide(left, channel, query);
    }

    #open(name) {
        this.#opened = new Opened(this.#hub, name, {
            token: this.#token,
            onHistory: (deployments) => {
                this.#model.load(deployments);
                this.#dirty.add(name);
                this.#flushSoon();
            },
        });
    }

    /** Keep the focus where the visitor is: at the head of what was opened, and on its card after that. */
    #guide(left, channel, query) {
        if (channel && left !== channel) {
            this.#opened.focus();
            scrollTo(0, 0);
        } else if (left && !channel && !query) {
            this.#grid.focus(left);
        }
    }

    #type() {
        history.replaceState(null, "", searchAddress(this.#field.value));
        if (this.#library.isLoaded) {
            this.#library.complete().then(() => this.#flushSoon());
        }
        this.#go();
    }

    #press(event) {
        if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) {
            return;
        }
        const isTyping = event.target.closest?.("input, textarea, [contenteditable]");
        if (event.key === "/" && !isTyping) {
            event.preventDefault();
            this.#field.focus();
            this.#field.select();
        } else if (event.key === "Escape" && location.hash.length > 2) {
            location.hash = "#/";
            this.#field.value = "";
        }
    }
}

new Board();
