"""What is printed: nothing but text, whatever a server or a file says."""

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from service import output
from service.jsontext import json_text, read_json
from service.output import Styled, echo, echo_command, echo_json, markdown, printable
from tests.command_parts import HOSTILE, TOP, is_harmless

ODD = st.text(st.characters() | st.sampled_from("#[:]\x1b\u202e\ufe0f\n\r \ud800"), max_size=60)
"""Any text, and above all what commands are written with."""
PIECES = st.lists(st.sampled_from(["#", "##", "[", "vso[", "::", "error", " ", "\t", "\n", "\ufe0f", "]"])).map("".join)


def as_the_runner_reads(line: str) -> bool:
    """Tell whether GitHub's runner or Azure's agent takes a line for a command; what can't be seen they may skip."""
    seen = re.sub("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u3164\ufe00-\ufe0f\uffa0]", "", line)
    return seen.lstrip().startswith("::") or "##[" in seen or "##vso[" in seen or "##teamcity[" in seen


@given(ODD | PIECES)
def test_a_line_is_text(text):
    """It is one line, all of it can be seen, and no CI system takes it for a command; once is enough."""
    shown = printable(text)

    assert shown.isprintable()
    assert not as_the_runner_reads(shown)
    assert printable(shown) == shown


@pytest.mark.parametrize(
    "text", ["web/production v1.4.0 (3f2c1ab, build 128)", "größer \N{ROCKET} 日本", "http://[::1]:80", ""]
)
def test_text_stays(text):
    """What is text stays as it is."""
    assert printable(text) == text


def test_a_long_line_is_cut():
    """A line has an end, and says so."""
    assert printable("a" * 5000) == "a" * 2000 + "…"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | ODD | PIECES | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD, inner, max_size=3),
    max_leaves=8,
)


@given(JSON, st.sampled_from([None, 2]), st.sampled_from(["utf-8", "ascii", "cp1252"]))
def test_json_is_the_same_value(value, indent, encoding):
    """JSON is harmless to print, in any encoding, and the same value to who parses it."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        echo_json(value, indent=indent)
    stream.flush()
    text = stream.buffer.getvalue().decode(encoding)

    assert json.loads(text) == value
    assert all(line.isprintable() and not as_the_runner_reads(line) for line in text.split("\n"))


@given(ODD | PIECES)
def test_markdown_is_text(text):
    """In Markdown it is one paragraph of nothing but the text itself: no link, no code, no HTML, no table."""
    rendered = MarkdownIt("gfm-like", {"linkify": False}).parse(f"Recorded {markdown(text)} x")
    inner = rendered[1].children or []

    assert [token.type for token in rendered] == ["paragraph_open", "inline", "paragraph_close"]
    assert {token.type for token in inner} <= {"text", "text_special"}
    assert re.sub(" +", " ", "".join(token.content for token in inner)) == re.sub(
        " +", " ", f"Recorded {printable(text)} x"
    )


def test_a_workflow_command_is_one_line(capsys):
    """A message of several lines is one command, whose data can't be another."""
    echo_command("error", f"first 100%\n  {HOSTILE}")
    [line] = capsys.readouterr().err.splitlines()

    assert line.startswith("::error::first 100%25%0A  \\x1b[31m")
    assert is_harmless(line.removeprefix("::error::").replace("%0A", "\n"))


def test_a_stream_that_knows_few_letters(monkeypatch):
    """What the stream's encoding doesn't know is escaped."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    echo("v1 \N{ROCKET} ", Styled("ü", bold=True))
    stream.flush()

    assert stream.buffer.getvalue() == b"v1 \\U0001f680 \\xfc\n"


@pytest.mark.parametrize(
    "text",
    ["", "NaN", "-Infinity", "1e999", "[" * 100_000, '{"a":' * 100_000, "9" * 5000, "\ufeff\ufeff1", "{", '"\x00"'],
    ids=lambda text: text[:9],
)
def test_what_is_no_json(text):
    """What some readers wouldn't take, or fall over, is refused as what it is."""
    with pytest.raises(ValueError):
        read_json(text.encode())


def test_json_of_files_keeps_its_lines():
    """A file is indented, and what can't be seen is escaped there, too."""
    assert json_text({"a": "\u202e##["}, indent=2) == '{\n  "a": "\\u202e##["\n}'


def test_nothing_is_printed_past_it():
    """No command prints by itself: all goes through this module, but what `serve` says of its own settings."""
    client = {path.name: path.read_text() for path in Path(TOP / "service").glob("*.py")}
    past: dict[str, Any] = {
        name: found
        for name, text in client.items()
        if name not in ("output.py", "serve.py")
        and (found := re.findall(r"click\.s?echo\b|\bprint\(|click\.style", text))
    }

    assert past == {}
    assert "click.echo" in Path(output.__file__).read_text()
