"""Origins as browsers write them (HTML standard, section 7.1.1); one that is listed otherwise is shut out."""

import re
import unicodedata
from ipaddress import IPv4Address, IPv6Address
from typing import Final

ORIGINS_RULE: Final = (
    "* for every page, or origins as browsers send them, such as https://app.example or http://localhost:5173, "
    "separated by commas"
)
NULL: Final = "null"
"""What pages without an origin send: those of files, and of sandboxed frames, which every page can make."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_URL: Final = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://)?(?:[^/?#@\\]*@)?"
    r"(?P<host>\[[^\]/?#]*\]|[^:/?#\\\[\]]*)(?::(?P<port>[0-9]*))?(?:[/?#\\].*)?"
)
_LABEL: Final = re.compile("[a-z0-9_-]{1,63}")
_WRITTEN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@\\*,]*")


def parse_origins(text: str) -> tuple[str, ...]:
    """Read a list. Raises ValueError, with a sentence about the first entry that no browser would ever send."""
    origins = tuple(origin.strip() for origin in text.split(",") if origin.strip())
    if not origins:
        raise ValueError
    for origin in origins:
        if origin not in ("*", NULL):
            _check(origin)
    return origins


def _check(origin: str) -> None:
    if "*" in origin:
        raise ValueError(f"{origin}: a wildcard is no part of an origin; name each page's, or * alone for every page")
    meant = _meant(origin)
    if meant is None:
        raise ValueError(f"{origin} is no origin")
    if meant != origin:
        raise ValueError(f"no browser sends {origin}; did you mean {meant}?")


def _meant(text: str) -> str | None:
    """Return the origin of what looks like a URL; None where it has none."""
    match = _URL.fullmatch(text)
    if match is None:
        return None
    scheme = (match["scheme"] or "https").lower()
    if scheme not in _DEFAULT_PORTS:  # such as an extension's or a native shell's, which are opaque to this
        return text if _WRITTEN.fullmatch(text) else None
    host = _host(match["host"])
    port = int(match["port"][:6]) if match["port"] else _DEFAULT_PORTS[scheme]
    if host is None or not 0 < port < 65536:  # noqa: PLR2004  # the largest port
        return None
    return f"{scheme}://{host}" + (f":{port}" if port != _DEFAULT_PORTS[scheme] else "")


def _host(text: str) -> str | None:
    """Return a host as browsers write it; None where it is none (URL standard, "host parsing")."""
    try:
        if text.startswith("["):
            address = IPv6Address(text[1:-1])
            return text.lower() if address.ipv4_mapped else f"[{address.compressed}]"
        labels = [_ascii(label) for label in text.split(".")]
        last = labels[-1] or labels[-2]  # a dot at the end stays
        if last.isdigit():
            return str(IPv4Address(text))
    except (ValueError, IndexError):
        return None
    names = labels[:-1] if labels[-1] == "" else labels
    return ".".join(labels) if all(_LABEL.fullmatch(label) for label in names) else None


def _ascii(label: str) -> str:
    """Write a part of a host's name as DNS has it (RFC 3492)."""
    label = unicodedata.normalize("NFKC", label).lower()
    return label if label.isascii() else f"xn--{label.encode('punycode').decode()}"
