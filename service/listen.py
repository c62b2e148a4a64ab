"""Where the service listens, as VECTR0_LISTEN or PORT say it. The health check reads it, too, so it imports little."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

LISTEN_RULE: Final = "HOST:PORT, such as 127.0.0.1:8000 or [::1]:8000, :PORT for all addresses, or unix:/path/to/socket"
PORT_RULE: Final = "an integer from 1 to 65535"
MAX_PATH_LENGTH: Final = 107
"""Bytes; from <linux/un.h>."""

_ADDRESS: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9.-]*)):(?P<port>[0-9]+)")
_THIS_MACHINE: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
"""For what listens on all addresses one that reaches it from here."""


@dataclass(frozen=True, slots=True)
class Listen:
    """An address, or a socket's file."""

    host: str
    """Empty for all addresses, of IPv6 and IPv4."""
    port: int
    path: str = ""
    """The file of a UNIX domain socket, in place of host and port."""

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{_in_url(self.host)}:{self.port}"

    @property
    def reachable_host(self) -> str:
        """The host as this machine reaches it."""
        return _THIS_MACHINE.get(self.host, self.host)

    @property
    def url(self) -> str:
        """The address as this machine reaches it; over a socket's file any host will do."""
        return "http://localhost" if self.path else f"http://{_in_url(self.reachable_host)}:{self.port}"

    @property
    def curl(self) -> str:
        """The command with which curl reaches it."""
        return f"curl --unix-socket {shlex.quote(self.path)}" if self.path else "curl"


DEFAULT: Final = Listen("127.0.0.1", 8000)


def chosen(environ: Mapping[str, str]) -> Listen:
    """Return where to listen: what VECTR0_LISTEN says, else all addresses at PORT, which platforms set, else DEFAULT.

    Raises ValueError with a sentence that names the variable, its value and the rule.
    """
    for name, rule, parse in (("VECTR0_LISTEN", LISTEN_RULE, parse_listen), ("PORT", PORT_RULE, _on_all_addresses)):
        text = environ.get(name, "").strip()
        if text:
            try:
                return parse(text)
            except ValueError:
                raise ValueError(f"{name} is {text!r}; it must be {rule}") from None
    return DEFAULT


def parse_listen(text: str) -> Listen:
    """Read an address. Raises ValueError."""
    if text.startswith("unix:"):
        return Listen("", 0, _path(text.removeprefix("unix:")))
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ValueError
    return Listen(match["v6"] or match["host"] or "", _port(match["port"]))


def _on_all_addresses(port: str) -> Listen:
    return Listen("", _port(port))


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= 65535):  # noqa: PLR2004  # the largest port
        raise ValueError
    return int(text)


def _path(text: str) -> str:
    path = re.sub("^//(?=/)", "", text)  # as in unix:///path
    if not re.fullmatch(r"/[^/\0][^\0]*", path) or len(path.encode()) > MAX_PATH_LENGTH:
        raise ValueError
    return path


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
