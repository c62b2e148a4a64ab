/** Elements, made of nodes: no HTML strings and no style attributes, which the page's policy forbids. */

const SVG = "http://www.w3.org/2000/svg";

/** Make an element with these attributes; undefined and false leave one out. */
export function element(name, attributes, ...children) {
    return furnish(document.createElement(name), attributes, children);
}

/** Make an element of a drawing. */
export function shape(name, attributes, ...children) {
    return furnish(document.createElementNS(SVG, name), attributes, children);
}

/** Change a text, if it is another: what is selected or being read aloud isn't disturbed by the same text again. */
export function write(node, text) {
    if (node.textContent !== text) {
        node.textContent = text;
    }
}

/** Give an element these children in this order. Those that stay aren't moved, so that they keep the focus. */
export function arrange(parent, children) {
    const wanted = new Set(children);
    for (const child of [...parent.children]) {
        if (!wanted.has(child)) {
            child.remove();
        }
    }
    children.forEach((child, at) => {
        if (parent.children[at] !== child) {
            parent.insertBefore(child, parent.children[at] ?? null);
        }
    });
}

function furnish(node, attributes = {}, children) {
    for (const [name, value] of Object.entries(attributes)) {
        if (value !== undefined && value !== false) {
            node.setAttribute(name, value === true ? "" : value);
        }
    }
    node.append(...children);
    return node;
}
