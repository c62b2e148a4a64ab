"""Publishing rights: bearer tokens (RFC 6750), each good for some channels."""

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Self

from service.deployment import ChannelName

SCOPE: Final = r"[A-Za-z0-9._*-]+/[A-Za-z0-9._*-]+"
"""Some channels, as a pattern: ``app/environment`` with ``*`` for any run of a name's characters."""
_ENTRY: Final = re.compile(
    rf"(?:sha256:(?P<digest>[0-9a-fA-F]{{64}})|(?P<secret>[A-Za-z0-9_.~+/=-]+))(?:@(?P<scope>{SCOPE}))?"
)
ENTRY_RULE: Final = (
    "entries separated by commas or lines, each SECRET or SECRET@app/environment with * as a wildcard, "
    "SECRET of A-Z a-z 0-9 _ . ~ + / = - or sha256:<64 hexadecimal digits>"
)


class MissingTokenError(Exception):
    """The request brings no bearer token."""


class InvalidTokenError(Exception):
    """It brings one that isn't known."""


class OutOfScopeError(Exception):
    """It brings one that isn't good for this channel."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A token, known by its hash only, and the channels that it is good for."""

    digest: bytes
    scope: str

    @classmethod
    def parse(cls, entry: str) -> Self:
        """Read ``SECRET[@app/environment]``. Raises ValueError, without the secret in its message."""
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise ValueError(ENTRY_RULE)
        digest = match["digest"]
        return cls(
            bytes.fromhex(digest) if digest else sha256(match["secret"].encode()).digest(), match["scope"] or "*/*"
        )

    def covers(self, channel: ChannelName) -> bool:
        """Tell whether a channel is in scope."""
        return is_in_scope(channel, self.scope)


class Tokens:
    """All tokens that are valid now; several at once, so that they can be rotated."""

    def __init__(self, grants: Sequence[Grant]) -> None:
        self._grants = tuple(grants)

    def identify(self, authorization: str | None) -> list[Grant]:
        """Find what the ``Authorization`` header grants.

        Raises MissingTokenError or InvalidTokenError. Every token is compared, each in constant time.
        """
        digest = sha256(bearer_token(authorization).encode()).digest()
        grants = [grant for grant in self._grants if hmac.compare_digest(grant.digest, digest)]
        if not grants:
            raise InvalidTokenError("the bearer token is not one that this service knows")
        return grants


def is_in_scope(channel: ChannelName, scope: str) -> bool:
    """Tell whether a channel is one of those that a SCOPE means."""
    return re.fullmatch(re.escape(scope).replace(r"\*", "[^/]*"), channel) is not None


def bearer_token(authorization: str | None) -> str:
    """Give the token of an ``Authorization`` header. Raises MissingTokenError where it has none."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise MissingTokenError("this needs the header `Authorization: Bearer TOKEN`")
    return token.strip()


def authorize(grants: Sequence[Grant], channel: ChannelName) -> None:
    """Let a request pass that is granted this channel. Raises OutOfScopeError for any other."""
    if not any(grant.covers(channel) for grant in grants):
        raise OutOfScopeError(f"the bearer token is not good for {channel}")
