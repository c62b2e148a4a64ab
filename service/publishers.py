"""Trusted publishers: the identity that a CI system proves (OpenID Connect) in place of a token that is kept secret."""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import jwt
from jwt.exceptions import InvalidJTIError, InvalidSubjectError

from service.deployment import ChannelName
from service.issuer import Issuer, IssuerUnavailableError
from service.store import Ticket
from service.trust import Claims, Publisher

LEEWAY: Final = 30
"""Seconds by which the clocks of an issuer and of this machine may differ."""
MAX_LIFETIME: Final = 24 * 3600
"""Seconds for which an identity may still be good; as long it is remembered that it was used."""
MAX_TOKEN_LENGTH: Final = 8192

logger = logging.getLogger("vectr0.publishers")


class UntrustedError(Exception):
    """The identity may not record here. What is wrong with it is for the log, and not for whoever brings it."""

    def __init__(self) -> None:
        super().__init__("this identity is not trusted for this channel")


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified token's claims, the claim that each publisher of its issuer misses, and what makes it this one."""

    claims: Claims
    judged: Sequence[tuple[Publisher, str | None]]
    ticket: Ticket

    def authorize(self, channel: ChannelName) -> None:
        """Let it pass where it is trusted for this channel. Raises UntrustedError where not."""
        failed = [claim for publisher, claim in self.judged if publisher.covers(channel)]
        if None not in failed:
            raise _refused(self.claims, failed, f"for {channel}")


class Publishers:
    """Everyone who is trusted, and their issuers' keys."""

    def __init__(self, trusted: Sequence[Publisher], issuers: Mapping[str, Issuer], audience: str) -> None:
        self._trusted = trusted
        self._issuers = issuers
        self._audience = audience

    async def identify(self, token: str, now: float) -> Identity:
        """Verify a token. Raises UntrustedError, and IssuerUnavailableError where its key isn't known yet."""
        try:
            claims = await self._verify(token)
        except IssuerUnavailableError:
            raise
        # PyJWT has its own errors, and lets through those of numbers that are infinite or JSON that is nested deeply.
        except Exception as error:  # noqa: BLE001  # whatever a token makes fail, it is the token's fault
            logger.warning("an identity was refused: %s", _shown(str(error)))
            raise UntrustedError from None
        issuer, lifetime = claims["iss"], int(claims["exp"]) - int(now)
        if lifetime > MAX_LIFETIME:
            raise _refused(claims, ["exp"], f"as it is good for over {MAX_LIFETIME} seconds")
        judged = [(one, one.failed_claim(claims)) for one in self._trusted if one.issuer == issuer]
        if all(claim is not None for _, claim in judged):
            raise _refused(claims, [claim for _, claim in judged], "for every channel")
        # Not every issuer gives a jti. Without one a token is what was signed: a signature can be written in two ways.
        token_id = ascii((issuer, claims.get("jti") or token.rpartition(".")[0]))
        # The replica that is asked next may have a clock that is behind this one's.
        return Identity(claims, judged, Ticket(hashlib.sha256(token_id.encode()).hexdigest(), lifetime + 2 * LEEWAY))

    async def _verify(self, token: str) -> Claims:
        """Check signature, audience and times; the issuer is read first, for it tells whose keys to take."""
        if len(token) > MAX_TOKEN_LENGTH:
            raise jwt.InvalidTokenError(f"it is longer than {MAX_TOKEN_LENGTH}")
        unverified = jwt.decode_complete(token, options={"verify_signature": False})
        address = unverified["payload"].get("iss")
        issuer = self._issuers.get(address) if isinstance(address, str) else None
        if issuer is None:
            raise jwt.InvalidIssuerError(f"iss is {_shown(address)}")
        key = await issuer.key(unverified["header"].get("kid"))
        try:
            claims: Claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=self._audience,
                issuer=address,
                leeway=LEEWAY,
                options={"require": ["exp", "iat", "iss", "aud"], "enforce_minimum_key_length": True},
            )
        except tuple(_FAILED_CLAIMS) as error:
            claim = _FAILED_CLAIMS[type(error)]
            raise jwt.InvalidTokenError(f"{error}: {claim} is {_shown(unverified['payload'][claim])}") from None
        return claims


_FAILED_CLAIMS: Final[Mapping[type[Exception], str]] = {
    jwt.InvalidAudienceError: "aud",
    jwt.ExpiredSignatureError: "exp",
    InvalidJTIError: "jti",
    InvalidSubjectError: "sub",
}
"""PyJWT's errors that don't name the claim."""


def looks_like_an_identity(token: str) -> bool:
    """Tell whether this could be a JSON Web Token (RFC 7519): an object, encoded, is its first of three parts."""
    return token.startswith("eyJ") and token.count(".") == 2  # noqa: PLR2004  # two dots part three


def _refused(claims: Claims, failed: Iterable[str | None], what: str) -> UntrustedError:
    wrong = [f"{claim} is {_shown(claims.get(claim))}" for claim in dict.fromkeys(failed) if claim is not None]
    why = ", ".join(wrong) or "no publisher of its issuer may record there"
    logger.warning("an identity of %s (sub %s) was refused %s: %s", claims["iss"], _shown(claims.get("sub")), what, why)
    return UntrustedError()


def _shown(value: object) -> str:
    """Show what somebody else wrote: in a line of the log, and of a length, that it can't break out of."""
    try:
        return repr(value)[:200]
    except (RecursionError, ValueError):  # nested too deeply, or an integer of too many digits
        return "something that can't be shown"
