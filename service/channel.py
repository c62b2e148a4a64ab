"""The channel: its ten newest deployments in memory, and the streams that are told of each."""

import asyncio
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, Protocol

from service.deployment import KEPT, ChannelName, Deployment
from service.frame import DeploymentFrame, Later
from service.news import News
from service.tallies import Tallies

SLICE: Final = 500
"""Streams written to before the event loop gets its turn: about 5 ms."""


class Subscriber(Protocol):
    """One that is told of a channel's deployments: a stream."""

    sent: int
    """The id of the newest deployment that was written to it; 0 for none."""

    @property
    def flowing(self) -> bool:
        """False while its socket takes no more; it is made level when it flows again."""

    def send(self, frame: DeploymentFrame) -> None:
        """Write an event."""


class Observer(Protocol):
    """One that counts what is written."""

    def wrote(self, frames: int) -> None:
        """So many frames were written to streams."""

    def spread(self, deployment: Deployment) -> None:
        """A deployment has been written to every stream of its channel."""


class Channel:
    """One (application, environment) in the memory of this process.

    It knows neither Redis nor HTTP. The relay gives it what the subscription brings (`take`) and what it read
    (`replace`); every change is spread to the subscribers by a plain loop.
    """

    __slots__ = (
        "_behind", "_later", "_news", "_observer", "_scheduled", "_spreading", "changes", "frames",
        "is_doubted", "known_at", "loaded", "name", "needed_at", "pins", "read_at", "readers", "reads", "subscribers",
        "tallies", "waiting",
    )  # fmt: skip

    def __init__(self, name: ChannelName, later: Later, observer: Observer, news: News) -> None:
        self.name = name
        self.frames: list[DeploymentFrame] = []
        """The kept deployments, oldest first."""
        self.loaded = False
        """True once the channel has been read."""
        self.is_doubted = False
        """True from when Redis is known to have something else until that has been read."""
        self.changes = 0
        """How often memory was changed: a read counts only if this stood still since it was sent."""
        # Dictionaries keep the order of arrival, a set has none: sockets and objects that were made after one another
        # lie beside one another, and a fan-out in that order misses the caches less.
        self.subscribers: dict[Subscriber, None] = {}
        self.waiting: dict[Subscriber, tuple[int | None, int]] = {}
        """Streams whose start a read decides: their last event ids, and how many reads had been sent when they came."""
        self.reads = 0
        """How many reads were sent."""
        self.readers: list[asyncio.Future[None]] = []
        """Those who wait for the next read."""
        self.tallies = Tallies()
        """Who runs what, of the streams of this process."""
        self.pins = 0
        """How many requests hold on to this channel while they wait."""
        self.read_at = float("-inf")
        """When it was last asked to be read."""
        self.known_at = float("-inf")
        """When the read was sent that memory is from."""
        self.needed_at = float("-inf")
        self._behind: Iterator[Subscriber] = iter(())
        """Those that the latest change has still to reach."""
        self._scheduled = False
        self._spreading: Deployment | None = None
        self._later = later
        self._observer = observer
        self._news = news

    @property
    def newest(self) -> int | None:
        """The id of the newest deployment in memory."""
        return self.frames[-1].deployment.id if self.frames else None

    @property
    def newest_record(self) -> bytes | None:
        """The newest deployment in memory, as it is stored: two primaries may give two records one id."""
        return self.frames[-1].deployment.json if self.frames else None

    @property
    def is_needed(self) -> bool:
        """Tell whether a request or a stream holds on to it."""
        return bool(self.pins or self.subscribers or self.waiting)

    def replay(self, last_event_id: int | None) -> list[DeploymentFrame]:
        """What a stream that starts now gets first: all kept after its id, or the newest where it has none."""
        start = self._start(last_event_id)
        return [frame for frame in self.frames if frame.deployment.id > start]

    def _start(self, last_event_id: int | None) -> int:
        """Where a stream stands before it is sent anything."""
        if last_event_id is not None and not self.is_behind(last_event_id):
            return last_event_id
        return self.frames[-2].deployment.id if len(self.frames) > 1 else 0

    def is_behind(self, last_event_id: int | None) -> bool:
        """Tell whether a reader has seen more than this memory holds; then the channel is read first."""
        return last_event_id is not None and last_event_id > (self.newest or 0)

    def join(self, subscriber: Subscriber) -> None:
        """Tell a subscriber of everything from now on; it has been sent its replay."""
        subscriber.sent = self.newest or 0
        self.subscribers[subscriber] = None

    def wait(self, subscriber: Subscriber, last_event_id: int | None) -> None:
        """Let the next read decide where a subscriber starts."""
        self.waiting[subscriber] = last_event_id, self.reads

    def leave(self, subscriber: Subscriber) -> None:
        """Forget a subscriber."""
        self.subscribers.pop(subscriber, None)
        self.waiting.pop(subscriber, None)

    def take(self, deployment: Deployment) -> bool:
        """Take a message of the subscription. Gives False where the channel has to be read first."""
        if not self.loaded:
            return False
        if any(frame.deployment.json == deployment.json for frame in self.frames):
            return True
        if self.is_doubted or deployment.previous != self.newest or deployment.id <= (self.newest or 0):
            self.is_doubted = True  # else what follows on this id might be put upon another record of it
            return False
        self._spread_all()  # before the oldest goes that somebody may still have to be sent
        before, frame = self.frames, DeploymentFrame(deployment)
        self.frames = [*before, frame][-KEPT:]
        self._changed()
        self._news.post([frame], before[: max(0, len(before) + 1 - KEPT)])
        self._let_in(0)
        self._spreading = deployment
        self._spread()
        return True

    def replace(self, deployments: Iterable[Deployment], read: int | None = None) -> None:
        """Let memory become what was read, wholly, also when that is empty or older.

        ``read`` is what `reads` was when the read was sent; None for the latest.
        """
        self._spread_all()
        before, was_loaded = self.frames, self.loaded
        kept = {frame.deployment: frame for frame in before}
        self.frames = [kept.get(deployment) or DeploymentFrame(deployment) for deployment in deployments]
        forked_at = self._forked_at(before)
        if forked_at is not None:
            for subscriber in self.subscribers:
                subscriber.sent = min(subscriber.sent, forked_at - 1)
        self.loaded, self.is_doubted = True, False
        self._changed()
        if self._news.is_read:
            news = self._new_since(before, forked_at) if was_loaded else self.frames[-1:]
            self._news.post(news, set(before) - set(self.frames))
        self._let_in(self.reads if read is None else read)
        self._spread()

    def _forked_at(self, before: list[DeploymentFrame]) -> int | None:
        """Return the oldest id that is another record's by now: who was sent it before is sent that one.

        A primary that was lost, and the one that took over without its last records, can give out one id each.
        """
        known = {frame.deployment.id: frame for frame in before}
        forked_at = None
        for frame in reversed(self.frames):
            if known.get(frame.deployment.id) is frame:
                break
            if frame.deployment.id in known:
                forked_at = frame.deployment.id
        return forked_at

    def _new_since(self, before: list[DeploymentFrame], forked_at: int | None) -> list[DeploymentFrame]:
        """Return what a board hasn't seen that has seen all of before; where memory is older now, its newest."""
        if not before or not self.frames:
            return self.frames
        seen = before[-1].deployment.id if forked_at is None else forked_at - 1
        if self.frames[-1].deployment.id < seen:
            return self.frames[-1:]
        return [frame for frame in self.frames if frame.deployment.id > seen]

    def _changed(self) -> None:
        """Count the change, and who runs what by what is kept now."""
        self.changes += 1
        builds = (frame.deployment.build for frame in reversed(self.frames))
        self.tallies.keep([build for build in builds if build is not None])

    def _let_in(self, read: int) -> None:
        """Decide the start of those that memory now knows enough for."""
        for subscriber, (last_event_id, reads_before) in tuple(self.waiting.items()):
            # A read that was sent before the stream came may not know what the stream saw elsewhere.
            if not self.is_behind(last_event_id) or reads_before < read:
                del self.waiting[subscriber]
                subscriber.sent = self._start(last_event_id)
                self.subscribers[subscriber] = None

    def make_level(self, subscriber: Subscriber) -> int:
        """Send, in order, what is newer than the newest sent; where memory is older than that, its newest once.

        Gives how many frames that were.
        """
        frames, count = self.frames, 0
        if frames and subscriber.sent > frames[-1].deployment.id:
            subscriber.sent = self._start(None)
        for frame in frames:
            # A socket that takes no more in between goes on from here when it flows again.
            if frame.deployment.id > subscriber.sent and subscriber.flowing:
                subscriber.send(frame)
                subscriber.sent = frame.deployment.id
                count += 1
        return count

    def catch_up(self, subscriber: Subscriber) -> None:
        """Send what a subscriber missed while its socket took no more; one that waits has no place to go on from."""
        if subscriber in self.subscribers:
            self.make_level(subscriber)

    def _spread(self) -> None:
        self._behind = iter(tuple(self.subscribers))
        if not self._scheduled:
            self._spread_slice()

    def _spread_slice(self, limit: int | None = SLICE) -> None:
        """Make the next streams level, then give the loop back: a new stream waits for a slice, not for all."""
        self._scheduled = False
        count = written = 0
        if self.frames:
            frame = self.frames[-1]
            newest, previous = frame.deployment.id, frame.deployment.previous or 0
            for count, subscriber in enumerate(islice(self._behind, limit), start=1):  # noqa: B007  # read below
                if subscriber.sent == previous and subscriber.flowing:  # nearly all: spare them the general rule
                    subscriber.send(frame)
                    subscriber.sent = newest
                    written += 1
                else:
                    written += self.make_level(subscriber)
        self._observer.wrote(written)
        if count == limit:
            self._scheduled = True
            self._later(self._spread_slice)
        elif self._spreading:
            self._observer.spread(self._spreading)
            self._spreading = None

    def _spread_all(self) -> None:
        """Let the change before reach everybody."""
        if self._scheduled:
            self._spread_slice(limit=None)
