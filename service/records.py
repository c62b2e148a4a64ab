"""Records from Redis: checked as strictly as what comes from CI, before anything is made of them."""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from service.deployment import ChannelName, Deployment

QUIET: Final = 600.0
"""Seconds for which a place of which a line in the log told needs no other one."""
MAX_PLACES: Final = 1000
MAX_KNOWN: Final = 16_384
"""Records that needn't be checked again; each is at most so long:"""
MAX_KNOWN_SIZE: Final = 1024

logger = logging.getLogger("vectr0.store")


class Oddities:
    """What nobody of a hub has written, found under its names: passed over, with one line in the log a place."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[str, float] = {}

    def pass_over(self, place: str, why: object) -> None:
        """Tell of a place in Redis, and what is wrong with what it holds, where that isn't known already."""
        now = self._clock()
        if now - self._told.get(place, float("-inf")) < QUIET:
            return
        if len(self._told) >= MAX_PLACES:
            self._told = {told: at for told, at in self._told.items() if now - at < QUIET}
            if len(self._told) >= MAX_PLACES:
                return
        self._told[place] = now
        # In ASCII, and of a length, that no line of the log can be forged with.
        logger.warning("passed over what Redis has as %s: %s", ascii(place)[1:-1][:200], ascii(str(why))[1:-1][:300])


class Records:
    """Reads records, and knows again those that it has read."""

    def __init__(self, oddities: Oddities) -> None:
        self._oddities = oddities
        self._known: dict[bytes, Deployment] = {}

    def published(self, channel: ChannelName, data: bytes) -> Deployment | None:
        """Read a message; None for what is no deployment of this channel."""
        if data == b"null":  # a channel was forgotten
            return None
        try:
            return self._read(channel, data)
        except ValueError as error:
            self._oddities.pass_over(f"a message of {channel}", error)
            return None

    def kept(self, channel: ChannelName, members: Iterable[tuple[bytes, float]]) -> list[Deployment]:
        """Read the members of a sorted set with their scores, oldest first. What is no record is passed over."""
        deployments: list[Deployment] = []
        for record, score in members:
            try:
                deployment = self._read(channel, record)
                if deployment.id != score:
                    raise ValueError(f"its deployedAt is {deployment.id}, and its score {score:.0f}")  # noqa: TRY301
            except ValueError as error:
                self._oddities.pass_over(f"a deployment of {channel}", error)
                continue
            if deployments and deployments[-1].id == deployment.id:
                self._oddities.pass_over(f"a deployment of {channel}", "two have one deployedAt")
                deployments.pop()  # the script, too, takes the last of them for the newest
            deployments.append(deployment)
        return deployments

    def _read(self, channel: ChannelName, record: bytes) -> Deployment:
        known = self._known.get(record)
        if known is not None and known.channel == channel:
            return known
        deployment = Deployment.from_json(record)
        if deployment.channel != channel:
            raise ValueError(f"it is one of {deployment.channel}")
        if len(record) <= MAX_KNOWN_SIZE:
            while len(self._known) >= MAX_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[record] = deployment
        return deployment


def members_of(reply: Any) -> list[tuple[bytes, float]]:
    """Take a reply for members with their scores; anything else is none."""
    return reply if isinstance(reply, list) else []
