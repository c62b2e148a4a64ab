/** How the notification looks. The page's styles don't reach in; its custom properties and `::part()` do. */

const LOOK = `
:host {
    all: initial;
    color-scheme: inherit;
    position: fixed;
    z-index: var(--vectr0-z-index, 2147483000);
    inset-block-start: var(--vectr0-inset, 1em);
    inset-inline-end: var(--vectr0-inset, 1em);
    margin: env(safe-area-inset-top) env(safe-area-inset-right) env(safe-area-inset-bottom) env(safe-area-inset-left);
}
:host([hidden]) {
    display: none;
}
[role=status] {
    position: absolute;
    clip-path: inset(50%);
}
section {
    --paper: Canvas;
    box-sizing: border-box;
    inline-size: 25em;
    max-inline-size: 100%;
    padding: 1.25em;
    border: 1px solid #8884;
    border-radius: var(--vectr0-radius, 1em);
    box-shadow: 0 1em 2.5em -1em #0006;
    background: var(--vectr0-background, var(--paper));
    color: var(--vectr0-color, CanvasText);
    font: .875em/1.45 var(--vectr0-font, system-ui, sans-serif);
}
@supports (color: light-dark(red, red)) {
    section {
        --paper: light-dark(#fff, #1d1e22);
    }
}
.auto {
    color-scheme: light dark;
}
section div {
    display: flex;
    flex-wrap: wrap;
    align-items: center;
    gap: .3em .6em;
}
span {
    unicode-bidi: plaintext;
}
[part=header] {
    padding-inline-end: 2em;
}
[part=title] {
    font-size: 1.07em;
    font-weight: 600;
}
[part=badge] {
    padding: .1em .65em;
    border-radius: 1em;
    background: #8883;
    font-size: .86em;
    overflow-wrap: anywhere;
}
[part=note] {
    flex-basis: 100%;
}
[part=details] {
    margin-block-start: .4em;
    column-gap: 1.3em;
    overflow: hidden;
    opacity: .7;
    font-size: .93em;
}
[part=details] > * {
    position: relative;
}
[part=details] > ::before {
    content: "·";
    position: absolute;
    inset-inline-start: -1.3em;
    inline-size: 1.3em;
    font-family: system-ui, sans-serif;
    text-align: center;
}
[part=commit] {
    font-family: ui-monospace, monospace;
    overflow-wrap: anywhere;
}
[part=buttons] {
    margin-block-start: 1em;
}
button {
    padding: .45em .95em;
    border: 1px solid #0000;
    border-radius: .6em;
    background: none;
    color: inherit;
    font: inherit;
    font-weight: 500;
}
button:hover {
    box-shadow: inset 0 0 9em #8883;
}
button:focus-visible {
    outline: 2px solid var(--vectr0-accent, #2563eb);
    outline-offset: 2px;
}
[part=refresh] {
    background: var(--vectr0-accent, #2563eb);
    color: var(--vectr0-accent-color, #fff);
}
[part=close] {
    opacity: .7;
    position: absolute;
    inset-block-start: .6em;
    inset-inline-end: .6em;
    padding: .1em .4em;
    font-size: 1.4em;
    line-height: 1;
}
[part=close]::before {
    content: "×";
}
[aria-disabled=true] {
    opacity: .6;
}
@media (max-width: 30rem) {
    :host {
        inset: auto var(--vectr0-inset, 1em) var(--vectr0-inset, 1em);
    }
    section {
        inline-size: auto;
    }
    [part=buttons] > * {
        flex: 1;
        min-block-size: 3.2em;
    }
}
@media (prefers-reduced-motion: no-preference) {
    section {
        animation: come .3s cubic-bezier(.2, .8, .2, 1);
    }
    @keyframes come {
        from {
            opacity: 0;
            scale: .96;
        }
    }
}
@media (forced-colors: active) {
    [part=refresh] {
        background: Highlight;
        color: HighlightText;
        forced-color-adjust: none;
    }
}
@media print {
    :host {
        display: none;
    }
}
`;

let sheet;

/** Give a shadow root its look, in a way that no Content Security Policy is against. */
export function adopt(root) {
    try {
        if (!sheet) {
            sheet = new CSSStyleSheet();
            sheet.replaceSync(LOOK);
        }
        root.adoptedStyleSheets = [sheet];
    } catch {
        const style = document.createElement("style");
        style.textContent = LOOK;
        root.append(style);
    }
}
