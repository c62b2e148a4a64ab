"""The overview: the newest deployments over all channels, from memory and one pass over Redis for all who ask."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from heapq import nlargest
from itertools import islice
from typing import Final

import orjson

from service.channel import Channel
from service.channels import Channels
from service.deployment import ChannelName, Deployment
from service.relay import Relay
from service.store import DEADLINE, StoreUnavailableError

SLICE: Final = 100
"""Channels after which it is looked whether that is enough, and the event loop gets its turn."""
SCANNED: Final = 1000
"""The same for names that don't match."""


class Overview:
    """Answers from the index which channels have what is asked for, and reads no others than those into memory."""

    def __init__(self, channels: Channels, relay: Relay) -> None:
        self._channels = channels
        self._relay = relay
        self._computing = asyncio.Lock()
        """One at a time: a hundred that go on in the same turn of the event loop would stop it together."""

    async def newest(
        self, limit: int, matches: Callable[[ChannelName], bool], git_tag: str | None
    ) -> list[tuple[Channel, Deployment]]:
        """Return so many of the matching channels' deployments, newest first, each with its channel.

        With a tag only those that have it. Raises StoreUnavailableError within DEADLINE.
        """
        try:
            async with asyncio.timeout(DEADLINE):
                if not self._channels.index.is_fresh:
                    await self._relay.take_index()
                async with self._computing:
                    return await self._newest(limit, matches, git_tag)
        except TimeoutError:
            raise StoreUnavailableError(f"no list within {DEADLINE} seconds", "timed out") from None

    async def _newest(
        self, limit: int, matches: Callable[[ChannelName], bool], git_tag: str | None
    ) -> list[tuple[Channel, Deployment]]:
        found: list[tuple[Channel, Deployment]] = []
        size = SLICE if git_tag is not None else min(limit, SLICE)
        for batch in _batches(self._channels.index.names, matches, size):
            if batch and len(found) == limit and (self._channels.index.get(batch[0]) or 0) < found[-1][1].id:
                break  # neither this channel nor one after it has anything newer
            for channel in await self._loaded(batch):
                kept = (frame.deployment for frame in channel.frames)
                found += [(channel, one) for one in kept if git_tag is None or _has_tag(one, git_tag)]
            found = nlargest(limit, found, key=lambda entry: entry[1].id)
            await asyncio.sleep(0)
        return found

    async def _loaded(self, names: Sequence[ChannelName]) -> list[Channel]:
        """Read into memory what isn't there, or isn't as new as the index knows it."""
        channels = [self._channels.open(name) for name in names]
        behind = [channel for channel in channels if self._is_behind(channel)]
        for channel in behind:
            self._channels.read_soon(channel)
        for channel in behind:  # most come with the first: the relay reads many at once
            if self._is_behind(channel):
                await self._channels.read(channel)
        return channels

    def _is_behind(self, channel: Channel) -> bool:
        """Tell whether a read may bring more; where one was sent since the index changed, memory has what there is."""
        index = self._channels.index
        is_old = channel.known_at <= index.changed_at
        return not channel.loaded or (is_old and channel.is_behind(index.get(channel.name)))


def _batches(
    names: Sequence[ChannelName], matches: Callable[[ChannelName], bool], size: int
) -> Iterator[list[ChannelName]]:
    """Yield the names that match, so many at a time; an empty batch where a while was spent on others."""
    for start in range(0, len(names), SCANNED):
        matching = filter(matches, names[start : start + SCANNED])
        while batch := list(islice(matching, size)):
            yield batch
        yield []


def _has_tag(deployment: Deployment, git_tag: str) -> bool:
    """Tell whether it has this tag. Only what has it somewhere in its bytes is parsed."""
    return orjson.dumps(git_tag) in deployment.json and deployment.fields.get("gitTag") == git_tag
