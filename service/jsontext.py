"""JSON, read and written strictly: what is read is what every reader takes, and what is written any line may hold."""

import json
import math
import re
from typing import Any, Final

from service.utf8 import utf8

# Printable to Python, but never seen; comparisons by the rules of a language, as GitHub's runner makes them, skip them.
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def read_json(content: bytes) -> Any:
    """Return what JSON says. Raises ValueError for what is none, such as NaN, or is nested too deeply."""
    try:
        return json.loads(utf8(content).decode(), parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def json_text(value: Any, *, indent: int | None = None, encoding: str = "utf-8") -> str:
    r"""Return a value as JSON, compact where it isn't indented.

    What can't be printed, or isn't in the encoding, is escaped (``\u202e``): it is the same to a parser.
    """
    separators = (",", ":") if indent is None else None
    text = json.dumps(value, indent=indent, separators=separators, ensure_ascii=False, allow_nan=False)
    return re.sub(r"[^ -~\n]", lambda match: _escaped(match[0], encoding), text)


def is_visible(char: str) -> bool:
    """Tell whether a character is one that a reader sees, or a plain space."""
    return char.isprintable() and not _UNSEEN.match(char)


def _escaped(char: str, encoding: str) -> str:
    is_kept = is_visible(char) and char.encode(encoding, "ignore")
    return char if is_kept else json.dumps(char)[1:-1]


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:40]} is too large a number")
    return number
