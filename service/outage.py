"""The outage: which kind of failure keeps Redis away, in words that give none of its address, user or certificate."""

import socket
import ssl
from collections.abc import Iterator
from typing import Final

from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MaxConnectionsError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

_KINDS: Final[tuple[tuple[tuple[type[BaseException], ...], str], ...]] = (
    ((AuthenticationError, AuthenticationWrongNumberOfArgsError), "authentication failed"),
    ((NoPermissionError,), "permission denied"),
    ((ReadOnlyError,), "it is read-only"),
    ((BusyLoadingError,), "it is loading its data"),
    ((OutOfMemoryError,), "it is out of memory"),
    ((ClusterDownError, MasterDownError), "a part of it is down"),
    ((MaxConnectionsError,), "too many connections"),
    ((ssl.SSLError,), "TLS failed"),
    ((socket.gaierror,), "its name was not resolved"),
    ((ConnectionRefusedError,), "connection refused"),
    ((TimeoutError, RedisTimeoutError), "timed out"),
    ((FileNotFoundError,), "no such socket"),
    ((PermissionError,), "permission denied"),
    ((ConnectionError,), "connection lost"),
    ((ResponseError,), "it refused a command"),
    ((OSError, RedisError), "connection failed"),
)
"""The first that fits any of an error's causes. The order matters: ssl.SSLError and TimeoutError are OSErrors."""
_UNKNOWN: Final = "unexpected answer"

UNREACHED: Final = frozenset({
    "its name was not resolved", "connection refused", "timed out", "no such socket", "connection lost",
    "connection failed",
})  # fmt: skip
"""Kinds of a Redis that isn't there at all. They come in turn while it goes and comes, so the log has one line."""


def kind_of(error: BaseException | None) -> str:
    """Return the kind of a failure. Nothing of the error's own text is in it: that names hosts, users and keys."""
    causes = tuple(_causes(error))
    return next((kind for types, kind in _KINDS if any(isinstance(cause, types) for cause in causes)), _UNKNOWN)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it; redis-py wraps the system's errors in its own, sometimes with ``from None``."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
