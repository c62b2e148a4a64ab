"""The reads: bring the histories of channels from Redis into memory, for whoever waits for them."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from service.allowance import Allowance
from service.channel import Channel
from service.channels import Channels, settle
from service.deployment import ChannelName, Deployment
from service.store import Store, StoreUnavailableError

RETRY_INTERVAL: Final = (0.5, 1.5)
"""Seconds between two attempts while Redis is away."""
READ_BATCH: Final = 50
"""Channels whose histories one round trip reads: then the event loop gets its turn."""
DUE_BATCH: Final = 500
"""Channels of which it is found out together how to read them."""
DOUBTFUL_READS: Final = 200
"""Reads a second of channels that may well be made up. Beyond, Redis is asked first which of them it knows."""
DOUBTFUL_INTERVAL: Final = 0.05
"""Seconds between two such questions."""

Ask: TypeAlias = Callable[[Sequence[ChannelName]], Awaitable[Sequence[list[Deployment] | None]]]
"""Finds out the histories of channels; None for one that has to be asked for in another way."""


class Reads:
    """Reads channels that are to be read, many at once; those that nobody may ever have recorded at a bounded rate."""

    def __init__(
        self,
        store: Store,
        channels: Channels,
        failed: Callable[[StoreUnavailableError], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._channels = channels
        self._failed = failed
        self._doubtful = Allowance(DOUBTFUL_READS, clock)

    async def run(self) -> None:
        """Read what is to be read, until cancelled."""
        while True:
            due = await self._channels.unread(DUE_BATCH)
            try:
                await self._read_due(due)
            except StoreUnavailableError as error:
                self._failed(error)
                await asyncio.sleep(random.uniform(*RETRY_INTERVAL))  # noqa: S311  # jitter

    async def _read_due(self, due: list[Channel]) -> None:
        """Read channels, and what can't be read again later.

        A name that was made up mustn't cost a command of its own for as long as anybody can think of more.
        """
        doubtful = [channel for channel in due if self._is_doubtful(channel)]
        if self._doubtful.take(len(doubtful)):
            doubtful = []
        left = dict.fromkeys(due)
        try:
            if doubtful:
                for channel in set(doubtful) - set(await self.read(doubtful, self._find_unknown)):
                    del left[channel]
            for start in range(0, len(known := [*left]), READ_BATCH):
                await self.read(known[start : start + READ_BATCH])
                for channel in known[start : start + READ_BATCH]:
                    del left[channel]
        except StoreUnavailableError as error:
            for channel in left:
                readers, channel.readers = channel.readers, []
                settle(readers, error)
                self._channels.read_soon(channel)
            raise
        if doubtful:
            await asyncio.sleep(DOUBTFUL_INTERVAL)

    def _is_doubtful(self, channel: Channel) -> bool:
        """Tell whether nothing says that this channel has deployments."""
        return not channel.frames and self._channels.index.get(channel.name) is None

    async def _find_unknown(self, names: Sequence[ChannelName]) -> list[list[Deployment] | None]:
        """Return no deployments for what Redis doesn't know: a name is added there before its first deployment."""
        known = await self._store.known(names)
        return [None if name in known else [] for name in names]

    async def read(self, batch: list[Channel], ask: Ask | None = None) -> list[Channel]:
        """Read the history of channels in one round trip. Returns those of which the answer says nothing.

        A read counts only if its channel's memory stood still since it was sent; else it is repeated: the message
        that was taken meanwhile, or the read that overtook this one, may know more.
        """
        sent = [(channel, channel.changes, channel.readers) for channel in batch]
        for channel in batch:
            channel.readers = []
            channel.reads += 1
            channel.pins += 1  # or it would be let go meanwhile, and another read in its place
        numbers, now = [channel.reads for channel in batch], asyncio.get_running_loop().time()
        try:
            histories = await (ask or self._store.histories)([channel.name for channel in batch])
        except StoreUnavailableError as error:
            for channel, _, readers in sent:
                settle(readers, error)
                self._channels.read_soon(channel)
            raise
        finally:
            for channel in batch:
                channel.pins -= 1
        unanswered = []
        for (channel, changes, readers), history, number in zip(sent, histories, numbers, strict=True):
            if history is None:
                channel.readers += readers
                unanswered.append(channel)
            elif channel.changes != changes:
                channel.readers += readers
                self._channels.read_soon(channel)
            else:
                channel.replace(history, number)
                channel.known_at = now
                settle(readers, None)
        return unanswered
