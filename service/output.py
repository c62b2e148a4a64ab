"""All that the commands print. What a server or a file says may look like more than text, and is printed as text."""

import re
import sys
from typing import Any, Final, NamedTuple, TextIO

import click

from service.jsontext import is_visible, json_text

LONGEST_LINE: Final = 2000
"""Characters, after which a line ends with an ellipsis."""


class Styled(NamedTuple):
    """A piece of a line, and how it looks on a terminal."""

    text: str
    bold: bool = False
    dim: bool = False
    colour: str | None = None


def printable(text: str) -> str:
    r"""Return a text as it may stand in a line of a terminal, or of a CI system's log.

    What can't be seen is shown as an escape such as ``\x1b``: control characters, line breaks, what turns the direction
    of writing, halves of surrogate pairs. Nor can a line be a command to GitHub's runner (``::…::`` at its beginning,
    ``##[…]`` anywhere), Azure's (``##vso[…]`` anywhere) or TeamCity's (``##teamcity[…]``).
    """
    shown = "".join(
        char if is_visible(char) else char.encode("unicode_escape").decode() for char in text[:LONGEST_LINE]
    )
    shown = re.sub(r"^( *):(?=:)", r"\1: ", re.sub("#(?=#)", "# ", shown))
    return f"{shown}…" if len(text) > LONGEST_LINE else shown


def lines_of(message: str) -> list[str]:
    """Return the lines of our own message, each as it may be printed."""
    return [printable(line) for line in message.split("\n")]


def echo(*parts: str | Styled, err: bool = False) -> None:
    """Print a line; styles show on a terminal only."""
    stream = sys.stderr if err else sys.stdout
    click.echo("".join(_shown(part, stream) for part in parts), err=err)


def echo_json(value: Any, *, indent: int | None = None) -> None:
    """Print a value as JSON: the same value to who parses it, and as harmless to a log as any other line."""
    text = json_text(value, indent=indent, encoding=_encoding(sys.stdout))
    click.echo(re.sub("#(?=#)", r"\\u0023", text))


def echo_command(name: str, message: str) -> None:
    """Print a workflow command of GitHub, which shows the message on the run's page."""
    data = "\n".join(lines_of(message))
    for character, code in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A")):
        data = data.replace(character, code)
    click.echo(f"::{name}::{_encodable(data, sys.stderr)}", err=True)


def markdown(text: str) -> str:
    """Return a text that stands for itself in Markdown (CommonMark, section 2.4: any ASCII punctuation is escaped)."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", printable(text))


def _shown(part: str | Styled, stream: TextIO) -> str:
    styled = part if isinstance(part, Styled) else Styled(part)
    text = _encodable(printable(styled.text), stream)
    return click.style(text, bold=styled.bold or None, dim=styled.dim or None, fg=styled.colour)


def _encodable(text: str, stream: TextIO) -> str:
    encoding = _encoding(stream)
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _encoding(stream: TextIO) -> str:
    return stream.encoding or "utf-8"
