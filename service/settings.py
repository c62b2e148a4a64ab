"""Settings: environment variables, read once, each checked with a message that names it, its value and the rule."""

import difflib
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast

from service.address import Address, InvalidAddressError
from service.auth import ENTRY_RULE, Grant
from service.listen import DEFAULT, LISTEN_RULE, Listen, chosen, parse_listen
from service.origin import ORIGINS_RULE, parse_origins
from service.trust import TRUST_RULE, Publisher, parse_trust

LogFormat = Literal["text", "json"]

PASSED_OVER: Final = frozenset({"VECTR0_URL", "VECTR0_TOKEN", "VECTR0_ID_TOKEN", "VECTR0_ENVIRONMENT"})
"""The clients' own variables."""

INJECTED: Final = re.compile(
    r"""VECTR0_(\w+_)?
    (SERVICE_(HOST=[0-9A-Fa-f.:]+ | PORT(_\w+)?=\d+)
    | PORT(_\d+_(TCP|UDP|SCTP))?=(tcp|udp|sctp)://.*
    | PORT_\d+_(TCP|UDP|SCTP)_(PROTO=(tcp|udp|sctp) | PORT=\d+ | ADDR=[0-9A-Fa-f.:]+))""",
    re.VERBOSE,
)
"""What Kubernetes sets for Services named vectr0 or vectr0-something; its value, too, tells it from a wrong name."""

ROUTES: Final = frozenset(
    {"browser", "dashboard", "demo", "deployments", "events", "livez", "metrics", "openapi.json", "readyz"}
)
"""With what the paths of the routes begin."""

RESERVED_DESCRIPTORS: Final = 256
"""Descriptors that the default of VECTR0_MAX_STREAMS leaves for Redis, requests and files."""
MAX_STREAMS: Final = 1_000_000

KEEP_ALIVE: Final = 4200
"""Longer than proxies keep an idle connection (an hour, AWS up to 4,000 s), so that it is they who close it."""


class InvalidSettingsError(ValueError):
    """Settings that the service can't start with; one message each."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__("\n".join(messages))


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
    max_boards: int
    keep_alive: int
    """Seconds that a connection without a request is kept."""
    listen: Listen
    workers: int
    root_path: str
    board: bool
    """Whether what shows more than one named channel is there."""
    log_format: LogFormat


def _redis_url(text: str) -> str:
    Address.parse(text).tls()
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
        return _grants(Path(text).read_text("utf-8-sig"))  # some editors begin a file with a byte order mark
    except OSError as error:
        raise ValueError(error.strerror) from None


def _audience(text: str) -> str:
    if not re.fullmatch(r"[^\s,]{1,256}", text):
        raise ValueError
    if text.endswith("/"):  # compared as it is, and those who ask for an identity write the address without it
        raise ValueError(f"did you mean {text.rstrip('/')}?")
    return text


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text[:12]) <= high):
            raise ValueError
        return int(text)

    return parse


def _root_path(text: str) -> str:
    if text and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+/?", text):
        raise ValueError
    first = text.split("/")[1] if text else ""
    if first in ROUTES:
        raise ValueError(f"/{first} is a route of this service, and what is below it couldn't be told apart")
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
        Setting("VECTR0_AUDIENCE", "", "this service's address, such as https://hub.example, with no slash at its end",
                "What the identities have to be made for; needed with VECTR0_TRUST.", _audience),
        Setting("VECTR0_ORIGINS", "*", ORIGINS_RULE,
                "Which web pages may listen and read.", parse_origins),
        Setting("VECTR0_MAX_STREAMS", "from the descriptor limit", f"an integer from 1 to {MAX_STREAMS}",
                "Open streams a process; one more is told to come back later.", _integer(1, MAX_STREAMS)),
        Setting("VECTR0_MAX_BOARDS", "100", "an integer from 1 to 1000000",
                "Open boards a process; one more is told to come back later.", _integer(1, 1_000_000)),
        Setting("VECTR0_KEEP_ALIVE", str(KEEP_ALIVE), "an integer from 1 to 86400",
                "Seconds for which a connection without a request is kept; longer than proxies keep theirs.",
                _integer(1, 86_400)),
        Setting("VECTR0_LISTEN", str(DEFAULT), LISTEN_RULE,
                "Where to listen: HOST:PORT, :PORT (all addresses), unix:/path. Unset: PORT, if that is set.",
                parse_listen),
        Setting("VECTR0_WORKERS", "1", "an integer from 1 to 256",
                "Processes; each takes one core.", _integer(1, 256)),
        Setting("VECTR0_ROOT_PATH", "", "a path such as /vectr0, which begins with no route of this service",
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
            may_be_shown = not setting.is_secret or isinstance(error, InvalidAddressError)
            reason = f" ({error})" if str(error) and may_be_shown and str(error) != setting.rule else ""
            errors.append(f"{name} is {shown}{reason}; it must be {setting.rule}")
    listen = _listen(environ, values, errors)
    max_streams, warnings = _max_streams(values, descriptor_limit)
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
            max_streams=max_streams,
            max_boards=cast("int", values.get("VECTR0_MAX_BOARDS", 100)),
            keep_alive=cast("int", values.get("VECTR0_KEEP_ALIVE", KEEP_ALIVE)),
            listen=listen,
            workers=workers,
            root_path=cast("str", values.get("VECTR0_ROOT_PATH", "")),
            board=cast("bool", values.get("VECTR0_BOARD", True)),
            log_format=cast("LogFormat", values.get("VECTR0_LOG_FORMAT", "text")),
        ),
        [*warnings, *_warnings(environ)],
    )


def _listen(environ: Mapping[str, str], values: Mapping[str, object], errors: list[str]) -> Listen:
    if not environ.get("VECTR0_LISTEN", "").strip():
        try:
            return chosen(environ)
        except ValueError as error:
            errors.append(str(error))
    return cast("Listen", values.get("VECTR0_LISTEN", DEFAULT))


def _max_streams(values: Mapping[str, object], descriptor_limit: int) -> tuple[int, list[str]]:
    """Return how many streams there may be: no more than there are descriptors for, or the rest would get no answer."""
    possible = max(1, min(descriptor_limit - RESERVED_DESCRIPTORS, MAX_STREAMS))
    wanted = cast("int", values.get("VECTR0_MAX_STREAMS", possible))
    if wanted <= possible:
        return wanted, []
    warning = (
        f"VECTR0_MAX_STREAMS is '{wanted}', but this process may open {descriptor_limit} files, of which it keeps "
        f"{RESERVED_DESCRIPTORS} for other things: it takes {possible} streams; raise its hard limit (ulimit -Hn)"
    )
    return possible, [warning]


def _tuple(values: Mapping[str, object], name: str) -> tuple[object, ...]:
    return cast("tuple[object, ...]", values.get(name, ()))


def _warnings(environ: Mapping[str, str]) -> list[str]:
    warnings = []
    for name in sorted(environ):
        if not name.startswith("VECTR0_") or name in SETTINGS or name in PASSED_OVER:
            continue
        if not INJECTED.fullmatch(f"{name}={environ[name]}"):
            nearest = difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0)
            warnings.append(f"{name} is no setting of this service; did you mean {nearest[0]}?")
    return warnings
