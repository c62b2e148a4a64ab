"""Settings: environment variables, read once, each checked with a message that names it, its value and the rule."""

import difflib
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast
from urllib.parse import urlsplit

from service.auth import ENTRY_RULE, Grant
from service.trust import TRUST_RULE, Publisher, parse_trust

LogFormat = Literal["text", "json"]

PASSED_OVER: Final = re.compile(r"VECTR0_(URL|TOKEN|ID_TOKEN|ENVIRONMENT|SERVICE_.*|PORT(_.*)?)")
"""The clients' own variables, and what Kubernetes injects for a Service named vectr0."""

RESERVED_DESCRIPTORS: Final = 256
"""Descriptors that the default of VECTR0_MAX_STREAMS leaves for Redis, requests and files."""


class InvalidSettingsError(ValueError):
    """Settings that the service can't start with; one message each."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__("\n".join(messages))


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the service listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The address as this machine reaches it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Settings:
    """All that an operator can choose."""

    redis_url: str | None
    prefix: str
    grants: tuple[Grant, ...]
    printed_token: str | None
    """The token that was made for this run, where none was set."""
    trusted: tuple[Publisher, ...]
    audience: str
    """What trusted publishers' identities are made for; empty where nobody is trusted."""
    origins: tuple[str, ...]
    max_streams: int
    listen: Listen
    workers: int
    root_path: str
    board: bool
    """Whether what shows more than one named channel is there."""
    log_format: LogFormat


def _redis_url(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in ("redis", "rediss", "unix") or url.port == 0:  # a port that is no number is a ValueError
        raise ValueError
    return text


def _prefix(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", text):
        raise ValueError
    return text


def _grants(text: str) -> tuple[Grant, ...]:
    entries = [entry.strip() for entry in re.split(r"[,\n]", text) if entry.strip()]
    if not entries:
        raise ValueError
    return tuple(Grant.parse(entry) for entry in entries)


def _tokens_file(text: str) -> tuple[Grant, ...]:
    try:
        return _grants(Path(text).read_text())
    except OSError as error:
        raise ValueError(error.strerror) from None


def _audience(text: str) -> str:
    if not re.fullmatch(r"[^\s,]{1,256}", text):
        raise ValueError
    return text


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(origin.strip() for origin in text.split(",") if origin.strip())
    if not origins or any(
        origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s,]+", origin) for origin in origins
    ):
        raise ValueError
    return origins


def _listen(text: str) -> Listen:
    match = re.fullmatch(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9.-]+)):(?P<port>[0-9]{1,5})", text)
    if match is None or int(match["port"]) > 65535:  # noqa: PLR2004  # the largest port
        raise ValueError
    return Listen(match["v6"] or match["host"], int(match["port"]))


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text[:12]) <= high):
            raise ValueError
        return int(text)

    return parse


def _root_path(text: str) -> str:
    if text and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+/?", text):
        raise ValueError
    return text.rstrip("/")


def _switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError
    return text == "on"


def _log_format(text: str) -> LogFormat:
    if text not in ("text", "json"):
        raise ValueError
    return cast("LogFormat", text)


@dataclass(frozen=True, slots=True)
class Setting:
    """An environment variable: its default as shown, its rule, its meaning, and how it is read.

    ``parse`` raises ValueError where the rule is broken.
    """

    name: str
    default: str
    rule: str
    meaning: str
    parse: Callable[[str], object]
    is_secret: bool = False


SETTINGS: Final = {
    setting.name: setting
    for setting in (
        Setting("VECTR0_REDIS_URL", "", "a redis://, rediss:// or unix:// URL",
                "The Redis that all replicas share. Unset: an embedded one, forgotten at the end.", _redis_url, True),
        Setting("VECTR0_PREFIX", "vectr0", "1 to 64 of A-Z a-z 0-9 . _ : -",
                "What the names of all keys and channels begin with.", _prefix),
        Setting("VECTR0_TOKENS", "", ENTRY_RULE,
                "Who may record what.", _grants, True),
        Setting("VECTR0_TOKENS_FILE", "", "a readable file with such entries",
                "The same, from a file.", _tokens_file),
        Setting("VECTR0_TRUST", "", TRUST_RULE,
                "CI systems whose own identity may record, without a token.", parse_trust),
        Setting("VECTR0_AUDIENCE", "", "this service's own address, such as https://hub.example",
                "What the identities have to be made for; needed with VECTR0_TRUST.", _audience),
        Setting("VECTR0_ORIGINS", "*", "* or origins such as https://app.example, separated by commas",
                "Which web pages may listen and read.", _origins),
        Setting("VECTR0_MAX_STREAMS", "from the descriptor limit", "an integer from 1 to 1000000",
                "Open streams a process; one more is told to come back later.", _integer(1, 1_000_000)),
        Setting("VECTR0_LISTEN", "127.0.0.1:8000", "HOST:PORT, such as 0.0.0.0:8000 or [::1]:8000",
                "Where to listen.", _listen),
        Setting("VECTR0_WORKERS", "1", "an integer from 1 to 256",
                "Processes; each takes one core.", _integer(1, 256)),
        Setting("VECTR0_ROOT_PATH", "", "a path such as /vectr0",
                "The path prefix under which a proxy serves this.", _root_path),
        Setting("VECTR0_BOARD", "on", "on or off",
                "Off hides all that shows more than one named channel, for hubs on the open internet.", _switch),
        Setting("VECTR0_LOG_FORMAT", "text", "text or json",
                "Log lines for people or for machines.", _log_format),
    )
}  # fmt: skip


def read(environ: Mapping[str, str], descriptor_limit: int) -> tuple[Settings, list[str]]:
    """Read the settings; gives them with warnings. An empty variable is as none.

    Raises InvalidSettingsError with everything that is wrong.
    """
    values: dict[str, object] = {}
    errors: list[str] = []
    for name, setting in SETTINGS.items():
        text = environ.get(name, "").strip()
        if not text:
            continue
        try:
            values[name] = setting.parse(text)
        except ValueError as error:
            shown = "(not shown)" if setting.is_secret else repr(text)
            reason = f" ({error})" if str(error) and not setting.is_secret and str(error) != setting.rule else ""
            errors.append(f"{name} is {shown}{reason}; it must be {setting.rule}")
    redis_url = cast("str | None", values.get("VECTR0_REDIS_URL"))
    workers = cast("int", values.get("VECTR0_WORKERS", 1))
    grants = cast("tuple[Grant, ...]", (*_tuple(values, "VECTR0_TOKENS"), *_tuple(values, "VECTR0_TOKENS_FILE")))
    trusted = cast("tuple[Publisher, ...]", _tuple(values, "VECTR0_TRUST"))
    audience = cast("str", values.get("VECTR0_AUDIENCE", ""))
    if environ.get("VECTR0_TRUST", "").strip() and not environ.get("VECTR0_AUDIENCE", "").strip():
        errors.append("VECTR0_AUDIENCE is not set; with VECTR0_TRUST it must be this service's own address, "
                      "or an identity that was made for somebody else would do here")  # fmt: skip
    if redis_url is None and workers > 1 and not environ.get("VECTR0_REDIS_URL", "").strip():
        errors.append(f"VECTR0_WORKERS is '{workers}'; it must be 1 without VECTR0_REDIS_URL: "
                      "the embedded Redis lives inside one process")  # fmt: skip
    if redis_url is not None and not (grants or trusted) and not errors:
        errors.append("VECTR0_TOKENS is not set; with VECTR0_REDIS_URL it, VECTR0_TOKENS_FILE or VECTR0_TRUST must be, "
                      "or nobody could record a deployment; `openssl rand -hex 24` makes a good one")  # fmt: skip
    if errors:
        raise InvalidSettingsError(errors)
    printed_token = None if grants or trusted else secrets.token_urlsafe(18)
    return (
        Settings(
            redis_url=redis_url,
            prefix=cast("str", values.get("VECTR0_PREFIX", "vectr0")),
            grants=grants if printed_token is None else (Grant.parse(printed_token),),
            printed_token=printed_token,
            trusted=trusted,
            audience=audience,
            origins=cast("tuple[str, ...]", values.get("VECTR0_ORIGINS", ("*",))),
            max_streams=cast("int", values.get("VECTR0_MAX_STREAMS", max(1, descriptor_limit - RESERVED_DESCRIPTORS))),
            listen=cast("Listen", values.get("VECTR0_LISTEN", Listen("127.0.0.1", 8000))),
            workers=workers,
            root_path=cast("str", values.get("VECTR0_ROOT_PATH", "")),
            board=cast("bool", values.get("VECTR0_BOARD", True)),
            log_format=cast("LogFormat", values.get("VECTR0_LOG_FORMAT", "text")),
        ),
        _warnings(environ),
    )


def _tuple(values: Mapping[str, object], name: str) -> tuple[object, ...]:
    return cast("tuple[object, ...]", values.get(name, ()))


def _warnings(environ: Mapping[str, str]) -> list[str]:
    warnings = []
    for name in sorted(environ):
        if name.startswith("VECTR0_") and name not in SETTINGS and not PASSED_OVER.fullmatch(name):
            nearest = difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0)
            warnings.append(f"{name} is no setting of this service; did you mean {nearest[0]}?")
    return warnings
