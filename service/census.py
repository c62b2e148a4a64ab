"""The census: adds up what all replicas count, tells boards what has changed, and lets one replica keep the curves."""

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import orjson

from service.adoption import Adoption, Curve, add_counts
from service.bulletin import Bulletin
from service.channel import Channel
from service.channels import Channels
from service.deployment import ChannelName, Deployment
from service.frame import adoption_frame
from service.inquiry import STALE_AFTER, Inquiries
from service.metrics import Metrics
from service.roll import Roll, Turn
from service.store import StoreUnavailableError
from service.tallies import Counts

INTERVAL: Final = (1.5, 2.5)
"""Seconds between two turns, with the jitter that keeps replicas apart."""
FIRST_INTERVAL: Final = 0.5
"""Seconds after which a turn may come early, for a board that has just been opened."""
WHOLE_EVERY: Final = 30
"""Turns after which everything is written again: a Redis that went back to an older state may hold other counts."""
SLICE: Final = 200
"""Channels after which the event loop gets its turn: some milliseconds."""
BOARDS_SLICE: Final = 20
"""The same for boards."""


@dataclass(frozen=True, slots=True)
class _Own:
    """What this replica counted on a channel, and what that was counted from."""

    changes: tuple[int, int]
    written: bytes | None
    """As Redis gets it; None where there is nothing to say."""
    runs: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What all replicas together counted on a channel, and what that was counted from."""

    counts: Counts
    changes: int
    adoption: Adoption


class Census:
    """The counts of this replica, and what it knows of the others'.

    A turn is one round trip to Redis for a replica that nobody watches. It reads the others' counts only for boards, or
    when it is the one that keeps the curves.
    """

    def __init__(self, roll: Roll, channels: Channels, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._roll = roll
        self._channels = channels
        self._metrics = metrics
        self._clock = clock
        self.bulletin = Bulletin()
        self._own: dict[ChannelName, _Own] = {}
        self._written: dict[ChannelName, bytes] = {}
        self._anew = True
        """True while it isn't known what Redis holds of this replica."""
        self._turns = 0
        self._leads = False
        self._curves: dict[ChannelName, Curve] = {}
        self._dead: set[str] = set()
        """Replicas that counted nothing in the last turn."""
        self._seen: dict[ChannelName, _Seen] = {}
        self._as_of: int | None = None
        self._read_at = float("-inf")
        """When the others' counts were read last; kept up only for boards and curves."""
        self.inquiries = Inquiries(roll, channels, clock)
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Take turns until cancelled."""
        while True:
            self._wake.clear()
            await self._turn()
            await asyncio.sleep(FIRST_INTERVAL)
            with suppress(TimeoutError):
                async with asyncio.timeout(random.uniform(*INTERVAL) - FIRST_INTERVAL):  # noqa: S311  # jitter
                    await self._wake.wait()

    def wake(self) -> None:
        """Take the next turn soon: a board wants to know."""
        self._wake.set()

    async def leave(self) -> None:
        """Take back this replica's counts: its streams have ended."""
        if self.inquiries.failed_at > self._clock() - STALE_AFTER:
            return  # Redis isn't there; it forgets them by itself
        with suppress(StoreUnavailableError):
            await self._roll.leave(leads=self._leads)

    async def _turn(self) -> None:
        failure: Exception | None = None
        try:
            await self._count()
            turn = await self._exchange()
            if turn.leads or self._channels.watchers:
                await self._read(turn)
            if turn.leads:
                await self._keep(turn)
        except Exception as error:  # noqa: BLE001  # raised again, after the boards have been told that numbers are old
            failure = error
            self.inquiries.failed_at = self._clock()
            self._anew, self._leads = True, False
        self._forget()
        await self._tell()
        if failure is not None and not isinstance(failure, StoreUnavailableError):
            raise failure

    async def _count(self) -> None:
        """Count the streams of this replica, where something has changed."""
        totals = {"newest": 0, "older": 0, "other": 0, "unknown": 0}
        own: dict[ChannelName, _Own] = {}
        for number, channel in enumerate(self._channels, start=1):
            changes = channel.tallies.changes, channel.changes
            counted = self._own.get(channel.name)
            if counted is None or counted.changes != changes:
                counted = _count(channel, changes)
            own[channel.name] = counted
            for name, streams in counted.runs.items():
                totals[name] += streams
            if number % SLICE == 0:
                await asyncio.sleep(0)
        self._own = own
        self._metrics.count_running(totals)

    async def _exchange(self) -> Turn:
        """Write what has changed since the last time; all of it where Redis may have something else."""
        self._turns += 1
        anew = self._anew or self._turns % WHOLE_EVERY == 0
        before = {} if anew else self._written
        now = {name: own.written for name, own in self._own.items() if own.written is not None}
        changed = {name: written for name, written in now.items() if before.get(name) != written}
        turn = await self._roll.exchange(changed, before.keys() - now.keys(), len(now), anew=anew, leads=self._leads)
        self._written, self._anew, self._leads = now, not turn.is_whole, turn.leads
        return turn

    async def _read(self, turn: Turn) -> None:
        """Add up what all replicas count."""
        counted: dict[ChannelName, list[Counts]] = {
            channel.name: [channel.tallies.counts] for channel in self._channels if channel.frames
        }
        dead = set()
        for replica in turn.others:
            fields = await self._roll.read(replica)
            if not fields:
                dead.add(replica)
            for name, counts in fields.items():
                counted.setdefault(name, []).append(counts)
        if dead & self._dead:  # one that has only just begun to count may have been missed once
            await self._roll.strike_off(dead & self._dead)
        self._dead = dead
        await self._match(counted)
        self._as_of, self._read_at = turn.now_ms, self._clock()

    async def _match(self, counted: Mapping[ChannelName, list[Counts]]) -> None:
        """Match what was counted with the kept deployments."""
        seen: dict[ChannelName, _Seen] = {}
        for number, (name, all_counts) in enumerate(counted.items(), start=1):
            channel = self._channels.get(name)
            if channel is None or len(all_counts) > 1:
                # Another replica has streams on it: it has to be known for its curve, and is kept true by the relay.
                # One on which nobody is any more may leave memory.
                channel = self._channels.open(name)
            if not channel.loaded:
                self._channels.read_soon(channel)
                continue
            counts, before = add_counts(all_counts), self._seen.get(name)
            if before is not None and before.counts == counts and before.changes == channel.changes:
                seen[name] = before
            elif channel.frames:
                seen[name] = _Seen(counts, channel.changes, Adoption.of(counts, kept(channel)))
            if number % SLICE == 0:
                await asyncio.sleep(0)
        self._seen = seen

    async def _keep(self, turn: Turn) -> None:
        """Keep the curves of all channels: this replica is the one."""
        unknown = [name for name in self._seen if name not in self._curves]
        for batch in _slices(unknown):
            self._curves |= zip(batch, await self._roll.curves(batch), strict=True)
        changed: dict[ChannelName, Curve | None] = {}
        for batch in _slices([*self._seen]):
            for name in batch:
                if self._curves[name].add(turn.now_ms, self._seen[name].adoption):
                    changed[name] = self._curves[name]
            await asyncio.sleep(0)
        for name in self._curves.keys() - self._seen.keys():
            del self._curves[name]
            channel = self._channels.get(name)
            if channel is not None and channel.loaded and not channel.frames:
                changed[name] = None
        for batch in _slices([*changed]):
            await self._roll.keep_curves(
                {name: None if (curve := changed[name]) is None else curve.json for name in batch}
            )

    def _forget(self) -> None:
        """Drop what is no longer needed."""
        if not self._leads:
            self._curves.clear()  # another one goes on with them
        self.inquiries.forget()

    async def _tell(self) -> None:
        """Tell the boards what has changed."""
        if not self._channels.watchers or self._as_of is None:
            self.bulletin.keep(())
            return
        is_stale = self._clock() - self._read_at > STALE_AFTER
        self.bulletin.keep(self._seen)
        for number, (name, seen) in enumerate(self._seen.items(), start=1):
            if not self.bulletin.says(name, seen.adoption, is_stale=is_stale):
                frame = adoption_frame(document_of(name, seen.adoption, self._as_of, is_stale=is_stale))
                self.bulletin.post(name, seen.adoption, frame, is_stale=is_stale)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        for number, watcher in enumerate(tuple(self._channels.watchers), start=1):
            watcher.read_bulletin()
            if number % BOARDS_SLICE == 0:
                await asyncio.sleep(0)


def kept(channel: Channel) -> list[Deployment]:
    """Give a channel's deployments, newest first."""
    return [frame.deployment for frame in reversed(channel.frames)]


def document_of(name: ChannelName, adoption: Adoption, as_of: int | None, *, is_stale: bool) -> dict[str, Any]:
    """Give what is known of a channel as it stands in answers and events."""
    app, _, environment = name.partition("/")
    return {
        "appName": app,
        "environment": environment,
        "asOf": as_of,
        "stale": is_stale,
        **adoption.document(),
        "deployments": [{"deployedAt": at, "streams": streams} for at, streams in adoption.deployments],
    }


def _slices(names: list[ChannelName]) -> Iterator[list[ChannelName]]:
    return (names[start : start + SLICE] for start in range(0, len(names), SLICE))


def _count(channel: Channel, changes: tuple[int, int]) -> _Own:
    counts = channel.tallies.counts
    adoption = Adoption.of(counts, kept(channel))
    runs = {
        "newest": adoption.newest, "older": adoption.older, "other": adoption.other, "unknown": adoption.unknown,
    }  # fmt: skip
    # A channel that nobody ever recorded stays here: anybody can make such names up.
    return _Own(changes, orjson.dumps(counts) if counts and channel.frames else None, runs)
