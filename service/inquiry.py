"""Inquiries: who runs what, for requests. One read serves all who ask for the same within a moment."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from service.adoption import Curve, add_counts
from service.channel import Channel
from service.channels import Channels
from service.deployment import ChannelName
from service.roll import Roll
from service.store import StoreUnavailableError
from service.tallies import Counts

FRESH: Final = 2.0
"""Seconds for which one answer does for all who ask, and for which a Redis that failed isn't asked again."""
STALE_AFTER: Final = 6.0
"""Seconds after which numbers are old: two turns of the census have failed."""
LIFETIME: Final = 300.0
"""Seconds for which an answer is kept, in case that Redis goes away."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of one channel: its counts over all replicas, when they were read, and how it came to them."""

    counts: Counts
    as_of: int | None
    """Milliseconds since 1970 by Redis's clock; None where it could never be asked, and only this replica counts."""
    curve: Curve
    read_at: float


@dataclass(frozen=True, slots=True)
class Overview:
    """The counts of all channels over all replicas, and when they were read, as in an `Answer`."""

    counts: Mapping[ChannelName, Counts]
    as_of: int | None
    read_at: float
    documents: dict[tuple[ChannelName, int, bool], bytes] = field(default_factory=dict)
    """What was written of it, by channel, that channel's changes, and whether it was old: one for all who ask."""


A = TypeVar("A", Answer, Overview)


class _Shared(Generic[A]):
    """An answer, and the turn to read it anew. Who waits for that finds it there, or that there is none to be had."""

    __slots__ = ("answer", "lock")

    def __init__(self) -> None:
        self.answer: A | None = None
        self.lock = asyncio.Lock()


class Inquiries:
    """What was asked lately. Each question has a turn of its own: none waits for the read of another."""

    def __init__(self, roll: Roll, channels: Channels, clock: Callable[[], float]) -> None:
        self._roll = roll
        self._channels = channels
        self._clock = clock
        self.failed_at = float("-inf")
        self._answers: dict[ChannelName, _Shared[Answer]] = {}
        self._overview: _Shared[Overview] = _Shared()

    async def ask(self, channel: Channel) -> tuple[Answer, bool]:
        """Return who runs what on a channel, and whether that is old, because Redis is unavailable."""
        shared = self._answers.setdefault(channel.name, _Shared())
        answer = await self._have(shared, lambda: self._read(channel))
        if answer is None:
            answer = Answer(channel.tallies.counts, None, Curve(), float("-inf"))
        return answer, self._is_old(answer)

    async def ask_for_all(self) -> tuple[Overview, bool]:
        """Return who runs what everywhere, and whether that is old, because Redis is unavailable."""
        overview = await self._have(self._overview, self._read_all)
        if overview is None:
            own = {name: counts for name, [counts] in self._own().items()}
            overview = Overview(own, None, float("-inf"))
        return overview, self._is_old(overview)

    def forget(self) -> None:
        """Drop the answers that nobody has asked for in a while."""
        oldest = self._clock() - LIFETIME
        self._answers = {
            name: shared
            for name, shared in self._answers.items()
            if shared.lock.locked() or (shared.answer and shared.answer.read_at > oldest)
        }
        if self._overview.answer and self._overview.answer.read_at <= oldest:
            self._overview.answer = None

    async def _have(self, shared: _Shared[A], read: Callable[[], Awaitable[A]]) -> A | None:
        async with shared.lock:
            now = self._clock()
            is_fresh = shared.answer is not None and now - shared.answer.read_at <= FRESH
            if not is_fresh and now - self.failed_at > FRESH:
                try:
                    shared.answer = await read()
                except StoreUnavailableError:
                    self.failed_at = self._clock()
            return shared.answer

    def _is_old(self, answer: Answer | Overview) -> bool:
        return self._clock() - answer.read_at > STALE_AFTER

    async def _read(self, channel: Channel) -> Answer:
        page = await self._roll.read_channel(channel.name)
        counts = add_counts([channel.tallies.counts, *page.counts])
        return Answer(counts, page.now_ms, page.curve, self._clock())

    async def _read_all(self) -> Overview:
        now_ms, others = await self._roll.read_all()
        counted = self._own()
        for name, counts in others:
            counted.setdefault(name, []).append(counts)
        return Overview({name: add_counts(found) for name, found in counted.items()}, now_ms, self._clock())

    def _own(self) -> dict[ChannelName, list[Counts]]:
        """Return what this replica counts. Names that nobody recorded are left out: anybody can make them up."""
        return {channel.name: [channel.tallies.counts] for channel in self._channels if channel.frames}
