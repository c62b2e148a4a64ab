/** The grid: applications by environments, a card a channel. Only what has changed is touched. */

import { Card, fillCell } from "./card.js";
import { arrange, element, write } from "./dom.js";
import { layOut } from "./layout.js";

/** More channels than this, and each is given less room. */
const MANY = 40;

export class Grid {
    element;
    #table = element("table", { role: "table", "aria-labelledby": "heading" });
    #columns = element("tr", { role: "row" });
    #body = element("tbody", { role: "rowgroup" });
    #cards = new Map();
    #rows = new Map();
    #names = "";

    constructor() {
        this.#table.append(element("thead", { role: "rowgroup" }, this.#columns), this.#body);
        this.element = element("div", { class: "grid" }, this.#table);
        this.element.addEventListener("keydown", (event) => this.#move(event));
    }

    /** Show these channels; `dirty` are the names of those that have changed, `news` of those to highlight. */
    update(channels, dirty, news, now) {
        this.#follow(channels);
        for (const channel of channels) {
            const card = this.#cards.get(channel.name);
            if (dirty.has(channel.name)) {
                card.update(channel, now);
            }
            if (news.has(channel.name)) {
                card.highlight();
            }
        }
    }

    tick(now) {
        for (const card of this.#cards.values()) {
            card.tick(now);
        }
    }

    focus(name) {
        this.#cards.get(name)?.element.focus();
    }

    /** Arrange rows and columns anew where channels have come or gone. */
    #follow(channels) {
        const names = channels.map(({ name }) => name).join(" ");
        if (names === this.#names) {
            return;
        }
        this.#names = names;
        const { environments, rows, hasOthers } = layOut(channels);
        const known = new Set(channels.map(({ name }) => name));
        for (const name of this.#cards.keys()) {
            if (!known.has(name)) {
                this.#cards.delete(name);
            }
        }
        this.element.classList.toggle("many", channels.length > MANY);
        this.#table.style.setProperty("--columns", environments.length + hasOthers);
        this.#head(environments, hasOthers);
        arrange(
            this.#body,
            rows.map((row) => this.#row(row, hasOthers)),
        );
    }

    #head(environments, hasOthers) {
        const titles = ["Application", ...environments, ...(hasOthers ? ["Others"] : [])];
        const cells = titles.map((title, at) => {
            const cell = this.#columns.children[at] ?? element("th", { role: "columnheader", scope: "col" });
            write(cell, title);
            return cell;
        });
        this.#columns.replaceChildren(...cells);
    }

    #row({ app, cells, others }, hasOthers) {
        const row = this.#rows.get(app) ?? element("tr", { role: "row" });
        this.#rows.set(app, row);
        const groups = [...cells.map((channel) => (channel ? [channel] : [])), ...(hasOthers ? [others] : [])];
        const head = row.children[0] ?? element("th", { role: "rowheader", scope: "row" }, app);
        const places = groups.map((_, at) => row.children[at + 1] ?? element("td", { role: "cell" }));
        places.forEach((place, at) =>
            fillCell(
                place,
                groups[at].map((channel) => this.#card(channel)),
            ),
        );
        arrange(row, [head, ...places]);
        return row;
    }

    #card(channel) {
        let card = this.#cards.get(channel.name);
        if (!card) {
            card = new Card(channel);
            card.update(channel, channel.deployments[0].deployedAt);
            this.#cards.set(channel.name, card);
        }
        return card;
    }

    /** Let the arrow keys go from card to card, as it looks. */
    #move(event) {
        const card = event.target.closest(".card");
        const step = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[event.key];
        if (!card || !step || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) {
            return;
        }
        const from = middle(card);
        const [dx, dy] = step;
        let best = null;
        for (const other of this.#table.querySelectorAll(".card")) {
            const to = middle(other);
            const ahead = (to.x - from.x) * dx + (to.y - from.y) * dy;
            const aside = Math.abs((to.x - from.x) * dy) + Math.abs((to.y - from.y) * dx);
            const distance = ahead + 3 * aside;
            if (ahead > 2 && (!best || distance < best.distance)) {
                best = { other, distance };
            }
        }
        if (best) {
            event.preventDefault();
            best.other.focus();
        }
    }
}

function middle(card) {
    const { left, right, top, bottom } = card.getBoundingClientRect();
    return { x: (left + right) / 2, y: (top + bottom) / 2 };
}
