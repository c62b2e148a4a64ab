"""An issuer of identities, and its keys: fetched beside everything else, and kept while it can't be reached."""

import asyncio
import logging
import math
import random
from collections.abc import Mapping
from typing import Any, Final

import httpx
import jwt
import orjson

from service.outward import AsyncOutward, EnvironmentVariableError

REFRESH: Final = 3600
"""Seconds between two looks at the keys."""
REST: Final = 30
"""Seconds between two fetches, whatever key ids are asked for: a flood of made-up ones fetches no more."""
COLD_REST: Final = 5
"""The same while no key was ever had, and nobody can record."""
DEADLINE: Final = 5
MAX_SIZE: Final = 256 * 1024
"""Bytes of a document."""
MAX_ASKED: Final = 1000
"""Unknown key ids of which it is remembered when they were first asked for."""
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""The asymmetric ones. An issuer's key is good for one of them, whatever a token says of itself."""

logger = logging.getLogger("vectr0.publishers")


class UnknownKeyError(Exception):
    """The issuer has no such key: it was read since the key was first asked for."""


class IssuerUnavailableError(Exception):
    """It can't be told yet whether the issuer has this key; it may be told after so many seconds."""

    def __init__(self, message: str, retry_after: int = COLD_REST) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def issuer_client() -> httpx.AsyncClient:
    """Make the client of all issuers."""
    return httpx.AsyncClient(transport=AsyncOutward(), trust_env=False, timeout=DEADLINE)


class Issuer:
    """One issuer's published keys (OpenID Connect Discovery 1.0; RFC 7517)."""

    def __init__(self, address: str, client: httpx.AsyncClient) -> None:
        self._address = address
        self._client = client
        self._keys: Mapping[str | None, jwt.PyJWK] = {}
        self._fetched = float("-inf")
        """When the last fetch ended, or failed."""
        self._current_as_of = float("-inf")
        """When the last fetch began that succeeded."""
        self._asked: dict[int, float] = {}
        """By the hash of a key id that isn't known, when it was first asked for; the latest ones."""
        self._fetching = asyncio.Lock()
        self._is_reachable = True

    async def run(self) -> None:
        """Keep the keys fresh until cancelled."""
        while True:
            await self._fetch()
            pause = REFRESH if self._is_reachable else self._rest
            await asyncio.sleep(pause * random.uniform(1, 1.2))  # noqa: S311  # jitter

    async def key(self, key_id: str | None) -> jwt.PyJWK:
        """Return a key. Raises UnknownKeyError, or IssuerUnavailableError."""
        if key_id not in self._keys:
            await self._look_for(key_id)
        return self._keys[key_id]

    async def _look_for(self, key_id: str | None) -> None:
        """Fetch the keys, if that may be done now.

        A key that is new is good from its first use on: only a fetch that began after it was asked for tells that it
        isn't there. Until then who brings it is asked to come again, when there can be such a fetch.
        """
        asked_at = self._remember_asked(hash(key_id))
        await self._fetch()
        if not self._keys:
            raise IssuerUnavailableError(f"the keys of {self._address} are unavailable")
        is_settled = key_id is None or key_id in self._keys or self._current_as_of >= asked_at
        if not is_settled:
            seconds = self._fetched + self._rest - asyncio.get_running_loop().time()
            retry_after = max(1, math.ceil(seconds))
            raise IssuerUnavailableError(
                f"the key of this identity is not known yet; the keys of {self._address} are read again "
                f"in {retry_after} seconds",
                retry_after,
            )
        self._asked.pop(hash(key_id), None)
        if key_id not in self._keys:
            raise UnknownKeyError(f"{self._address} has no key {key_id!r}"[:200])

    def _remember_asked(self, key: int) -> float:
        if key not in self._asked and len(self._asked) >= MAX_ASKED:
            del self._asked[next(iter(self._asked))]
        return self._asked.setdefault(key, asyncio.get_running_loop().time())

    @property
    def _rest(self) -> float:
        return REST if self._keys else COLD_REST

    async def _fetch(self) -> None:
        now = asyncio.get_running_loop().time
        async with self._fetching:
            if now() - self._fetched < self._rest:
                return
            began = now()
            try:
                self._keys = await self._read_keys()
            except EnvironmentVariableError as error:
                self._note(is_reachable=False, why=str(error)[:300])
            except Exception as error:  # noqa: BLE001  # what an issuer and the way to it can fail with has no end
                self._note(is_reachable=False, why=repr(error)[:300])  # httpx breaks lines
            else:
                self._current_as_of = began
                self._note(is_reachable=True)
            self._fetched = now()

    def _note(self, *, is_reachable: bool, why: str = "") -> None:
        if is_reachable != self._is_reachable:
            self._is_reachable = is_reachable
            if is_reachable:
                logger.info("the keys of %s are available again", self._address)
            else:
                kept = "the keys that are known stay good" if self._keys else "nobody of it can record"
                logger.warning("the keys of %s are unavailable (%s); %s", self._address, why, kept)

    async def _read_keys(self) -> Mapping[str | None, jwt.PyJWK]:
        async with asyncio.timeout(DEADLINE):
            discovery = await self._get(f"{self._address.rstrip('/')}/.well-known/openid-configuration")
            if discovery.get("issuer") != self._address:
                raise ValueError(f"its discovery document is that of {discovery.get('issuer')!r}")
            address = httpx.URL(str(discovery.get("jwks_uri")))
            if address.scheme != "https" and address.scheme != httpx.URL(self._address).scheme:
                raise ValueError(f"its jwks_uri is {str(address)!r}")
            documents = (await self._get(str(address))).get("keys")
        found = documents if isinstance(documents, list) else []
        usable = [_usable(document) for document in found if isinstance(document, dict)]
        keys = {key.key_id: key for key in usable if key is not None}
        if not keys:
            raise ValueError("it has no key that can be used")
        return keys

    async def _get(self, url: str) -> dict[str, Any]:
        async with self._client.stream("GET", url) as response:
            if response.status_code != httpx.codes.OK:  # a redirection, too: its target is not whom we trust
                raise ValueError(f"{url} answers {response.status_code}")
            body = b""
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_SIZE:
                    raise ValueError(f"{url} gives over {MAX_SIZE} bytes")
        document = orjson.loads(body)
        if not isinstance(document, dict):
            raise ValueError(f"{url} gives no JSON object")
        return document


def _usable(document: dict[str, Any]) -> jwt.PyJWK | None:
    """Read a key (RFC 7517, section 4); None for what isn't a public one for signatures, or newer than this."""
    is_public = document.get("kty") in ("RSA", "EC", "OKP") and "d" not in document
    is_for_signatures = document.get("use", "sig") == "sig" and document.get("alg", ALGORITHMS[0]) in ALGORITHMS
    if not (is_public and is_for_signatures and isinstance(document.get("kid"), str | None)):
        return None
    try:
        key = jwt.PyJWK(document)
    except Exception:  # noqa: BLE001  # of PyJWT or of cryptography; the other keys stay good
        return None
    return key if key.algorithm_name in ALGORITHMS else None
