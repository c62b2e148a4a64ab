"""Comments and indentation: for those who read the source, not for those who load it."""

import re
from typing import Final

_TOKEN: Final = re.compile(
    r"""
    (?P<comment> //[^\n]* | /\*.*?\*/ )
    | (?P<space> \s+ )
    | (?P<string> "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' )
    | (?P<template> `(?:\\.|\$(?!\{)|[^`\\$])*(?:`|\$\{) )
    | (?P<word> [\w$]+ )
    | (?P<mark> . )
    """,
    re.DOTALL | re.VERBOSE,
)
_TEMPLATE_REST: Final = re.compile(r"(?P<template>\}(?:\\.|\$(?!\{)|[^`\\$])*(?:`|\$\{))", re.DOTALL)
_REGEX: Final = re.compile(r"(?P<regex>/(?![*/])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\[\n])+/\w*)")
_BEFORE_REGEX: Final = {
    *"(,=:[!&|?{;+-*%~^<>",
    "await", "case", "delete", "do", "else", "in", "of", "return", "throw", "typeof", "void", "yield",
}  # fmt: skip
"""The tokens after which a slash doesn't divide."""


def condense(source: str) -> str:
    """Empty the lines of a JavaScript module that hold nothing but comments, and take off what lines begin with.

    The lines themselves stay, so that what a browser says of a line is true.

    It has to know strings, templates and regular expressions, which may hold what looks like a comment. Where it loses
    its way in them it gives the source as it is.
    """
    kept: list[str] = []
    opened: list[str] = []
    before = ";"
    at = 0
    while at < len(source):
        kind, text = _next(source, at, opened, before)
        is_line = (kind == "comment" and _is_alone(source, at, at + len(text))) or (kind == "space" and "\n" in text)
        kept.append("\n" * text.count("\n") if is_line else text)
        at += len(text)
        if kind not in ("comment", "space"):
            before = text
        if kind == "template" and text.endswith("${"):
            opened.append("${")
        elif kind == "mark" and text in {"{", '"', "'", "`"}:
            opened.append(text)
    # A quotation mark stands alone only where this went wrong.
    return source if opened else "".join(kept)


def _next(source: str, at: int, opened: list[str], before: str) -> tuple[str, str]:
    """Give the kind and the text of the token at a position; a closing brace closes what was opened last."""
    match = None
    if source[at] == "}":
        if opened and opened.pop() == "${":
            match = _TEMPLATE_REST.match(source, at)
    elif source[at] == "/" and before in _BEFORE_REGEX:
        match = _REGEX.match(source, at)
    match = match or _TOKEN.match(source, at)
    assert match is not None  # noqa: S101  # the last alternative matches anything
    return str(match.lastgroup), match[0]


def _is_alone(source: str, start: int, end: int) -> bool:
    line_start = source.rfind("\n", 0, start) + 1
    line_end = source.find("\n", end)
    around = source[line_start:start] + source[end : line_end if line_end >= 0 else None]
    return not around.strip()
