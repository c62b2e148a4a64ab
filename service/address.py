"""The address of a Redis: VECTR0_REDIS_URL, taken apart and checked before anything is connected.

redis-py takes all of its options from a URL, also those that this service depends on, and tells of most mistakes only
when it connects. The messages here name options, and show no part of the address that may be a password.
"""

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, TypeVar, cast
from urllib.parse import SplitResult, unquote, urlsplit

Scheme = Literal["redis", "rediss", "unix"]
T = TypeVar("T")

OPTIONS: Final = (
    "db", "username", "password",
    "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname",
)  # fmt: skip
"""What a URL may have behind its question mark. All else is this service's own business."""

MAX_SOCKET_PATH: Final = 107
"""Bytes of a Unix socket's path (unix(7))."""

_ENCODING_RULE: Final = "in a username or password each of : / ? # [ ] @ % must be percent-encoded"
_VERIFY_MODES: Final = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}
_SWITCH: Final = {"true": True, "false": False}


class InvalidAddressError(ValueError):
    """An address that can't be used. The message holds no secret."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a Redis is, and what it takes to get in."""

    scheme: Scheme
    host: str
    port: int
    path: str
    """A Unix socket's; else empty."""
    database: int
    username: str | None
    password: str | None
    ca_certs: str | None
    ca_path: str | None
    certfile: str | None
    keyfile: str | None
    verify_mode: ssl.VerifyMode
    check_hostname: bool

    @classmethod
    def parse(cls, url: str) -> Self:
        """Take a URL apart. Raises InvalidAddressError for a rule that it breaks."""
        parts = _split(url)
        options = _options(parts)
        username, password = _credentials(parts, options)
        host, port = ("", 0) if parts.scheme == "unix" else _host_and_port(parts)
        return cls(
            scheme=cast("Scheme", parts.scheme),
            host=host,
            port=port,
            path=_socket_path(parts) if parts.scheme == "unix" else "",
            database=_database(parts, options),
            username=username,
            password=password,
            ca_certs=options.get("ssl_ca_certs"),
            ca_path=options.get("ssl_ca_path"),
            certfile=options.get("ssl_certfile"),
            keyfile=options.get("ssl_keyfile"),
            verify_mode=_choice(options, "ssl_cert_reqs", _VERIFY_MODES, "required"),
            check_hostname=_choice(options, "ssl_check_hostname", _SWITCH, "true"),
        )

    def tls(self) -> ssl.SSLContext | None:
        """Read the certificates; None where the scheme has none. Raises InvalidAddressError for a file of no use."""
        if self.scheme != "rediss":
            return None
        context = ssl.create_default_context()
        context.check_hostname = self.check_hostname and self.verify_mode != ssl.CERT_NONE
        context.verify_mode = self.verify_mode
        if self.ca_certs is not None:
            _require_file("ssl_ca_certs", self.ca_certs)
            try:
                context.load_verify_locations(cafile=self.ca_certs)
            except ssl.SSLError:
                raise InvalidAddressError(f"ssl_ca_certs is {self.ca_certs!r}, which holds no certificates") from None
        if self.ca_path is not None:
            if not Path(self.ca_path).is_dir():
                raise InvalidAddressError(f"ssl_ca_path is {self.ca_path!r}, which is no folder")
            context.load_verify_locations(capath=self.ca_path)
        if self.certfile is not None:
            self._load_own_certificate(context, self.certfile)
        elif self.keyfile is not None:
            raise InvalidAddressError("ssl_keyfile is given without ssl_certfile")
        return context

    def _load_own_certificate(self, context: ssl.SSLContext, certfile: str) -> None:
        _require_file("ssl_certfile", certfile)
        if self.keyfile is not None:
            _require_file("ssl_keyfile", self.keyfile)
        try:
            # Without a password OpenSSL would ask for that of an encrypted key at the terminal.
            context.load_cert_chain(certfile, self.keyfile, password="")
        except ssl.SSLError:
            raise InvalidAddressError(
                "ssl_certfile and ssl_keyfile must be a certificate and its key, in PEM form, the key not encrypted"
            ) from None


def _split(url: str) -> SplitResult:
    if not url.isprintable():  # urlsplit would take line breaks and tabs out of it
        raise InvalidAddressError("it holds control characters")
    try:
        parts = urlsplit(url)
    except ValueError:  # whose message shows the address
        raise InvalidAddressError(f"its host can't be read; {_ENCODING_RULE}") from None
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise InvalidAddressError("its scheme is none of redis://, rediss:// and unix://")
    if parts.fragment or "@" in parts.path + parts.query or parts.netloc.count("@") > 1:
        raise InvalidAddressError(f"it can't be read; {_ENCODING_RULE}")
    if re.search(r"%(?![0-9A-Fa-f]{2})", url):
        raise InvalidAddressError("it has a % that two hexadecimal digits don't follow; a % itself is written %25")
    return parts


def _options(parts: SplitResult) -> Mapping[str, str]:
    options: dict[str, str] = {}
    for option in parts.query.split("&") if parts.query else ():
        name, equals, value = option.partition("=")
        if name not in OPTIONS:
            # What isn't a name may be a part of a password that wasn't encoded.
            shown = f"'{name}'" if equals and re.fullmatch("[A-Za-z_]{1,40}", name) else "one (not shown)"
            raise InvalidAddressError(f"it has the option {shown}, and may only have {', '.join(OPTIONS)}")
        if name in options:
            raise InvalidAddressError(f"it has the option '{name}' twice")
        if name.startswith("ssl_") and parts.scheme != "rediss":
            raise InvalidAddressError(f"it has the option '{name}', which takes rediss://")
        options[name] = _decoded(value)
        if not options[name]:
            raise InvalidAddressError(f"its option '{name}' is empty")
    return options


def _decoded(text: str) -> str:
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise InvalidAddressError("it has a percent-encoded part that isn't UTF-8") from None
    if "\0" in decoded:
        raise InvalidAddressError("it holds control characters")
    return decoded


def _credentials(parts: SplitResult, options: Mapping[str, str]) -> tuple[str | None, str | None]:
    given = {"username": parts.username, "password": parts.password}
    for name, value in given.items():
        if value and name in options:
            raise InvalidAddressError(f"it has the option '{name}', and one before the host")
    found = {name: _decoded(value) if value else options.get(name) for name, value in given.items()}
    return found["username"], found["password"]


def _host_and_port(parts: SplitResult) -> tuple[str, int]:
    try:
        port = 6379 if parts.port is None else parts.port
    except ValueError:  # whose message shows what may be the half of a password
        port = 0
    if port == 0:
        raise InvalidAddressError(f"its port is none from 1 to 65535; {_ENCODING_RULE}")
    host = _decoded(parts.hostname or "localhost")
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?", host):
        raise InvalidAddressError(f"its host is none; {_ENCODING_RULE}")
    return host, port


def _socket_path(parts: SplitResult) -> str:
    if parts.netloc.rpartition("@")[2] or not parts.path.strip("/"):
        raise InvalidAddressError("a socket is written with its whole path: unix:///run/redis.sock")
    path = _decoded(parts.path)
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise InvalidAddressError(f"the path of its socket is over {MAX_SOCKET_PATH} bytes")
    return path


def _database(parts: SplitResult, options: Mapping[str, str]) -> int:
    in_path = "" if parts.scheme == "unix" else parts.path.strip("/")
    text = options.get("db", in_path or "0")
    if in_path and text != in_path:
        raise InvalidAddressError("it has a database in its path, and another as the option 'db'")
    if not re.fullmatch("[0-9]{1,9}", text):
        shown = f", not '{text}'" if "db" in options else ""
        raise InvalidAddressError(f"its database must be a number, as in redis://host/1 or ?db=1{shown}")
    return int(text)


def _choice(options: Mapping[str, str], name: str, values: Mapping[str, T], default: str) -> T:
    value = options.get(name, default)
    if value not in values:
        raise InvalidAddressError(f"its option '{name}' must be one of {', '.join(values)}, not '{value}'")
    return values[value]


def _require_file(name: str, path: str) -> None:
    try:
        Path(path).open("rb").close()
    except OSError as error:
        raise InvalidAddressError(f"its option '{name}' is '{path}': {error.strerror}") from None
