"""JavaScript modules, joined: what an entry needs comes as one file, in one request, and is compressed as one."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import chain, product
from pathlib import Path
from string import ascii_letters
from typing import Final

from rjsmin import jsmin

_FROM: Final = re.compile(r'^(import|export) \{([^}]*)\} from "(\.[^"]+)";\n', re.MULTILINE)
_DECLARED: Final = re.compile(r"^export (?:async )?(?:class|function|const) ([\w$]+)", re.MULTILINE)
_UNKNOWN: Final = re.compile(
    r"""^(?:import|export\ [*{])[^"';]*["']\..*   # from a file beside it, in another form
    | ^export\ (?:\*|default\b).*
    | ^[^*\n]*\bimport\(.*                        # but not the types in comments""",
    re.MULTILINE | re.VERBOSE,
)
_PRIVATE_USE: Final = re.compile(r"(?<=\.)#[A-Za-z]\w*")
_PRIVATE: Final = re.compile(r"(?:(?<=[.;{}\n])|(?<=async)|(?<=static))#[A-Za-z]\w*")
"""Used, or declared in a class, where no white space is left. In a text a space or a quotation mark comes before."""


class JoinError(Exception):
    """A module can't be joined."""


def join(modules: Iterable[Path]) -> dict[str, str]:
    """Join each of these modules with what it imports, and give the files by their names.

    Comments and white space are left out, and private names are short: what nobody sees, nobody has to load.

    A module that several need is in the file of the first, from which the others import it. In a file all share one
    scope, so that no two may declare the same name. Raises JoinError on an import or export of another form than
    ``import { a, b } from "./c.js";``.
    """
    places: dict[Path, str] = {}
    return {module.name: _joined(module.resolve(), places) for module in modules}


def exports(module: Path) -> list[str]:
    """Give the names that a module exports."""
    source = module.read_text(encoding="utf-8")
    passed_on = [name for kind, names, _ in _FROM.findall(source) if kind == "export" for name in _split(names)]
    return sorted([*passed_on, *_DECLARED.findall(source)])


def imported(file: str) -> list[str]:
    """Give the names of the files that a joined one imports."""
    return sorted({path.removeprefix("./") for _, _, path in _FROM.findall(file)})


def _joined(module: Path, places: dict[Path, str]) -> str:
    named: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    """What is imported from, and passed on from, other files."""
    bodies: list[str] = []

    def take(path: Path) -> None:
        places[path] = module.name
        source = path.read_text(encoding="utf-8")
        if unknown := _UNKNOWN.search(_FROM.sub("", source)):
            form = 'import { a, b } from "./c.js";'
            raise JoinError(f'{path.name}: "{unknown[0]}" can\'t be joined; the form is {form}')
        for kind, names, target in _FROM.findall(source):
            other = (path.parent / target).resolve()
            if other not in places:
                take(other)  # before the module that needs it
            if places[other] != module.name:
                named[kind, places[other]].update(_split(names))
        bodies.append(_FROM.sub("", source))

    take(module)
    head = [
        f'{kind} {{ {", ".join(sorted(names))} }} from "./{file}";\n' for (kind, file), names in sorted(named.items())
    ]
    return "".join([*head, _shortened(jsmin("".join(bodies))), "\n"])


def _shortened(source: str) -> str:
    """Give private names the shortest, those that are used most first; the same in all classes, which don't mind."""
    uses = Counter(_PRIVATE_USE.findall(source))
    letters = (f"#{''.join(word)}" for word in chain(product(ascii_letters), product(ascii_letters, repeat=2)))
    short = dict(zip(sorted(uses, key=lambda name: (-uses[name], name)), letters, strict=False))
    return _PRIVATE.sub(lambda match: short.get(match[0], match[0]), source)


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]
