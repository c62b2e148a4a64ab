"""The channels: which are in the memory of this process, which are to be read, and which may go."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Final, Protocol

from service.channel import Channel, Observer, Subscriber
from service.deployment import ChannelName
from service.frame import DeploymentFrame, Later
from service.index import Index
from service.news import News, Reader

IDLE_LIFETIME: Final = 300.0
"""Seconds for which a channel that nobody needs stays in memory."""
LINGER: Final = 60.0
"""Seconds for which all channels are kept up after the last board has left: the next one finds them there."""

MAX_PASSING: Final = 1000
"""Channels without deployments that are kept until the next `Channels.let_go`, for who asks for them again."""
SLICE: Final = 2000
"""Channels after which the event loop gets its turn."""
READ_INTERVAL: Final = 1.0
"""Seconds between two reads that ids ahead of memory ask for: whoever makes ids up must not reach Redis with them."""


class Watcher(Reader, Protocol):
    """A board: it is told of every channel."""

    def read_bulletin(self) -> None:
        """Take what is new of the channels' adoption."""


class BoardObserver(Observer, Protocol):
    """One that counts boards, too."""

    def watched(self, boards: int) -> None:
        """There are so many boards now."""


class Channels:
    """The channels in the memory of this process, and which of them are to be read."""

    def __init__(self, later: Later, clock: Callable[[], float], observer: BoardObserver) -> None:
        self._channels: dict[ChannelName, Channel] = {}
        self._later = later
        self._clock = clock
        self._observer = observer
        self.watchers: set[Watcher] = set()
        """Boards: those that are told of every channel."""
        self.surveyed = False
        """True while every channel with deployments that Redis knows is here; kept so as long as it is watched."""
        self.index = Index(clock)
        self.news = News(later, observer)
        self._watched_until = float("-inf")
        self._unread: dict[Channel, float] = {}
        self._unread_changed = asyncio.Event()
        self._passing: deque[Channel] = deque()

    def add_watcher(self, watcher: Watcher) -> None:
        """Tell a board of everything from now on."""
        self.watchers.add(watcher)
        self.news.add(watcher)
        self._observer.watched(len(self.watchers))

    def remove_watcher(self, watcher: Watcher) -> None:
        """Forget a board."""
        if watcher not in self.watchers:
            return
        self.watchers.discard(watcher)
        self.news.remove(watcher)
        self._observer.watched(len(self.watchers))
        self.linger()

    def linger(self) -> None:
        """Keep all channels up for a while without a board."""
        self._watched_until = self._clock() + LINGER

    @property
    def is_watched(self) -> bool:
        """Tell whether there are boards, or were a moment ago."""
        return bool(self.watchers) or self._clock() < self._watched_until

    def __iter__(self) -> Iterator[Channel]:
        return iter(tuple(self._channels.values()))

    def __len__(self) -> int:
        return len(self._channels)

    def get(self, name: ChannelName) -> Channel | None:
        """Give a channel that is in memory."""
        return self._channels.get(name)

    def newest(self) -> list[DeploymentFrame]:
        """Return the newest deployment of each channel, in the order in which they were recorded."""
        found = [channel.frames[-1] for channel in self if channel.frames]
        found.sort(key=lambda frame: frame.deployment.id)
        return found

    def open(self, name: ChannelName) -> Channel:
        """Give a channel, new and unread where it isn't in memory."""
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel(name, self._later, self._observer, self.news)
        channel.needed_at = self._clock()
        return channel

    def read_soon(self, channel: Channel, *, throttled: bool = False) -> None:
        """Have the relay read a channel: at once, or when the last read is READ_INTERVAL ago."""
        due = channel.read_at + READ_INTERVAL if throttled else self._clock()
        self._unread[channel] = min(due, self._unread.get(channel, due))
        self._unread_changed.set()

    def wait(self, channel: Channel, subscriber: Subscriber, last_event_id: int | None) -> None:
        """Let a read that is sent from now on decide where a subscriber starts."""
        channel.wait(subscriber, last_event_id)
        self.read_soon(channel, throttled=channel.loaded)

    async def read(self, channel: Channel, *, throttled: bool = False) -> None:
        """Wait for a read that is sent from now on; one serves all who wait.

        Raises what the relay could not read it for.
        """
        future = asyncio.get_running_loop().create_future()
        channel.readers.append(future)
        channel.pins += 1
        self.read_soon(channel, throttled=throttled)
        try:
            await future
        finally:
            channel.pins -= 1

    def pass_by(self, channel: Channel) -> None:
        """Note that a request asked for a channel that has no deployments: only some of those are kept meanwhile."""
        self._passing.append(channel)
        if len(self._passing) > MAX_PASSING:
            self._let_go_empty(self._passing.popleft())

    async def unread(self, limit: int) -> list[Channel]:
        """Wait for channels to be read, and give those that are due, no longer as unread."""
        while True:
            self._unread_changed.clear()
            now = self._clock()
            due = [*islice((channel for channel, at in self._unread.items() if at <= now), limit)]
            for channel in due:
                del self._unread[channel]
                channel.read_at = now
            if due:
                return due
            next_due = min(self._unread.values(), default=None)
            with suppress(TimeoutError):
                async with asyncio.timeout(None if next_due is None else next_due - now):
                    await self._unread_changed.wait()

    async def let_go(self) -> None:
        """Drop the channels that nobody needs: empty ones at once, others after IDLE_LIFETIME.

        Names that were made up go also while Redis is away, and whoever watches: what has deployments is in the index.
        """
        now, is_watched = self._clock(), self.is_watched
        for number, channel in enumerate(self, start=1):
            if channel.is_needed:
                channel.needed_at = now
            elif channel.frames and not is_watched and channel.needed_at + IDLE_LIFETIME < now:
                self._drop(channel)
            else:
                self._let_go_empty(channel)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        self._passing.clear()

    def _let_go_empty(self, channel: Channel) -> None:
        if not channel.frames and not channel.is_needed:
            self._drop(channel)

    def _drop(self, channel: Channel) -> None:
        if self._channels.get(channel.name) is channel:
            del self._channels[channel.name]
            self._unread.pop(channel, None)


def settle(futures: Iterable[asyncio.Future[None]], error: Exception | None) -> None:
    """End the waiting of those who haven't gone."""
    for future in futures:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
