"""Joining JavaScript modules."""

from pathlib import Path

import pytest

from service.modules import JoinError, exports, imported, join


@pytest.fixture
def write(tmp_path: Path):
    """A function that writes modules, and gives their paths."""

    def write(**modules: str) -> list[Path]:
        paths = [tmp_path / f"{name}.js" for name in modules]
        for path, text in zip(paths, modules.values(), strict=True):
            path.write_text(text)
        return paths

    return write


def test_a_module_comes_once_and_before_those_that_need_it(write):
    """What is imported several times is in the file once, before the first that imports it."""
    top, *_ = write(
        top='import { left } from "./left.js";\nimport { right } from "./right.js";\nleft(right);\n',
        left='import { base } from "./base.js";\nexport function left() {}\nbase();\n',
        right='import { base } from "./base.js";\nexport const right = base;\n',
        base="export function base() {}\n",
    )

    assert join([top]) == {
        "top.js": "export function base(){}\nexport function left(){}\nbase();export const right=base;left(right);\n"
    }


def test_what_several_need_is_in_the_file_of_the_first(write):
    """Other files import from there, in one line, what any of their modules needs."""
    first, second, *_ = write(
        first='export { a } from "./a.js";\nexport { b } from "./b.js";\n',
        second='import { a } from "./a.js";\nimport { c } from "./c.js";\na(c);\n',
        a="export const a = 1;\n",
        b="export const b = 2;\n",
        c='import { a, aToo } from "./a.js";\nimport { b } from "./b.js";\nexport const c = a + aToo + b;\n',
    )
    files = join([first, second])

    assert files == {
        "first.js": "export const a=1;export const b=2;\n",
        "second.js": 'import { a, aToo, b } from "./first.js";\nexport const c=a+aToo+b;a(c);\n',
    }
    assert imported(files["first.js"]) == []
    assert imported(files["second.js"]) == ["first.js"]


def test_what_another_file_has_can_be_passed_on(write):
    """An export of what is elsewhere stays one, from there."""
    first, second, *_ = write(
        first='import { a } from "./a.js";\na();\n',
        second='export { a } from "./a.js";\n',
        a="export function a() {}\n",
    )

    assert join([first, second])["second.js"].rstrip() == 'export { a } from "./first.js";'
    assert imported(join([first, second])["second.js"]) == ["first.js"]


def test_other_packages_stay_imported(write):
    """What isn't a file beside the module is somebody else's."""
    [top] = write(top='import { useMemo } from "react";\nuseMemo();\n')

    assert join([top])["top.js"] == 'import{useMemo}from"react";useMemo();\n'
    assert imported(join([top])["top.js"]) == []


def test_another_folder(write, tmp_path):
    """A module is found from the one that names it, and is one however it is named."""
    [shared] = write(shared="export const shared = 1;\n")
    (tmp_path / "demo").mkdir()
    demo = tmp_path / "demo" / "demo.js"
    demo.write_text('import { shared } from "../shared.js";\nshared();\n')

    assert join([shared, demo])["demo.js"] == 'import { shared } from "./shared.js";\nshared();\n'


@pytest.mark.parametrize(
    "line",
    [
        'import "./b.js";',
        'import * as b from "./b.js";',
        'import b from "./b.js";',
        "import { b } from './b.js';",
        'import { b } from "./b.js"',
        'export * from "./b.js";',
        "export default 1;",
        'const b = await import("./b.js");',
    ],
)
def test_other_forms(write, line):
    """What this can't join it refuses, rather than to leave it broken."""
    top, _ = write(top=f"{line}\n", b="export const b = 1;\n")

    with pytest.raises(JoinError) as raised:
        join([top])
    assert str(raised.value) == f'top.js: "{line}" can\'t be joined; the form is import {{ a, b }} from "./c.js";'


def test_exports(write):
    """A module exports what it declares and what it passes on."""
    [top] = write(
        top='export { b, a } from "./b.js";\nexport const c = 24 * 3;\nexport async function d() {}\nexport class E {}\n'
    )

    assert exports(top) == ["E", "a", "b", "c", "d"]


def test_private_names_are_short(write):
    """What is used most is shortest, in all classes the same; what only looks like a private name stays."""
    [top] = write(
        top="""class A {
    #rare = "#rare is #fff and #often";
    #often;
    sum() { return this.#often + this.#often + this.#rare + `${this.#often} #${1}`; }
}
class B { static #often() {} }
""",
    )

    assert join([top])["top.js"] == (
        'class A{#b="#rare is #fff and #often";#a;sum(){return this.#a+this.#a+this.#b+`${this.#a} #${1}`;}}\n'
        "class B{static#a(){}}\n"
    )
