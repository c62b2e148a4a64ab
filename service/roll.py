"""The roll: what each replica counts, side by side in Redis, and the curves that one of them keeps for all."""

import asyncio
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from service.adoption import Curve, counts_from_json
from service.deployment import ChannelName, channel_name
from service.store import Store, answered, is_wrong_type
from service.tallies import Counts

LIFETIME_MS: Final = 10_000
"""Milliseconds after which a replica that has died, or can't reach Redis, counts no more."""
LEASE_MS: Final = 8_000
"""The same for its turn to keep the curves."""
SLICE: Final = 200
"""Counts after which the event loop gets its turn."""
MAX_REPLICAS: Final = 1000
"""Replicas of which a turn reads the counts. Those of more are read in turn, by chance."""
MAX_CHANNELS: Final = 10_000
"""Channels of which a replica may say how many streams it has."""

MAX_FIELD: Final = 256
"""Bytes that are looked at of a name."""

_REPLICA: Final = re.compile(rb"[0-9a-z]{1,32}")


@dataclass(frozen=True, slots=True)
class Turn:
    """What an exchange found."""

    now_ms: int
    """Redis's clock."""
    others: tuple[str, ...]
    """The ids of the other replicas; some may have died."""
    leads: bool
    """Whether it is this replica that keeps the curves."""
    is_whole: bool
    """False where Redis has lost, or never got, what was written before."""


@dataclass(frozen=True, slots=True)
class Page:
    """What Redis has of one channel: what the other replicas count, and the curve."""

    now_ms: int
    counts: tuple[Counts, ...]
    curve: Curve


class Roll:
    """This replica's place in it: a hash of its own, channel by channel, that expires by itself.

    Every operation raises StoreUnavailableError where Redis can't be had.
    """

    def __init__(self, store: Store, replica: str) -> None:
        self._store = store
        self._replica = replica
        self._replicas = f"{store.prefix}:replicas"
        self._lease = f"{store.prefix}:census"

    def _counts(self, replica: str) -> str:
        return f"{self._replicas}:{replica}"

    async def exchange(
        self,
        changed: Mapping[ChannelName, bytes],
        gone: Collection[ChannelName],
        count: int,
        *,
        anew: bool,
        leads: bool,
    ) -> Turn:
        """Write what has changed since the last time, ``count`` channels being there in all, and stay alive.

        ``anew`` drops what is there first. ``leads`` is what the last one gave. One round trip.
        """
        key = self._counts(self._replica)
        # Whole or not at all: a hash without its expiry would count a dead replica's tabs for ever.
        async with self._store.pipeline(atomic=True) as pipe:
            if anew:
                pipe.delete(key)
            if changed:
                pipe.hset(key, mapping=cast("Any", changed))
            if gone:
                pipe.hdel(key, *gone)
            if count:
                pipe.sadd(self._replicas, self._replica)
            pipe.pexpire(key, LIFETIME_MS)
            if leads:
                # It may be another's by now, who then has it for longer: no harm.
                pipe.pexpire(self._lease, LEASE_MS)
            pipe.set(self._lease, self._replica, nx=True, px=LEASE_MS)
            pipe.get(self._lease)
            pipe.pttl(self._lease)
            pipe.hlen(key)
            pipe.time()
            pipe.srandmember(self._replicas, MAX_REPLICAS)
            # A key that holds something else must not keep the others from being written and read.
            *written, lease, lease_ms, length, clock, replicas = await pipe.execute(raise_on_error=False)
        for reply in written:
            self._taken(self._replicas, reply, None)
        leads = self._taken(self._lease, lease, b"") == self._replica.encode()
        if not 0 < answered(lease_ms) <= LEASE_MS:
            await self._end_lease()
        others = await self._others(replicas)
        return Turn(_milliseconds(answered(clock)), others, leads, self._taken(key, length, -1) == count)

    def _taken(self, key: str, reply: Any, otherwise: Any) -> Any:
        """Return a reply, or what is given in its place where its key holds something of another type."""
        if is_wrong_type(reply):
            self._store.oddities.pass_over(key, reply)
            return otherwise
        return answered(reply)

    async def _end_lease(self) -> None:
        """Remove what nobody took for its turn: it has no end, or one so late, that nobody would keep the curves."""
        self._store.oddities.pass_over(self._lease, "it has no end, or a late one; it is removed")
        async with self._store.pipeline() as pipe:
            pipe.delete(self._lease)
            await pipe.execute()

    async def _others(self, reply: Any) -> tuple[str, ...]:
        """Take the ids of the other replicas; what is none of a replica is struck off."""
        replicas = set(self._taken(self._replicas, reply, ())) - {self._replica.encode()}
        odd = {replica for replica in replicas if not _REPLICA.fullmatch(replica)}
        if odd:
            self._store.oddities.pass_over(self._replicas, f"what is no replica, such as {next(iter(odd))[:80]!r}")
            async with self._store.pipeline() as pipe:
                pipe.srem(self._replicas, *odd)
                await pipe.execute()
        return tuple(sorted(replica.decode() for replica in replicas - odd))

    async def read(self, replica: str) -> Mapping[ChannelName, Counts]:
        """Read all that another replica counts; nothing where it has died."""
        async with self._store.pipeline() as pipe:
            pipe.hgetall(self._counts(replica))
            [fields] = await pipe.execute(raise_on_error=False)
        return dict(await self._counted(self._counts(replica), fields))

    async def _counted(self, key: str, reply: Any) -> list[tuple[ChannelName, Counts]]:
        """Take what a replica counts, channel by channel."""
        fields: Mapping[bytes, bytes] = self._taken(key, reply, {})
        counted: list[tuple[ChannelName, Counts]] = []
        for number, (field, text) in enumerate(fields.items(), start=1):
            app, _, environment = field[:MAX_FIELD].decode(errors="replace").partition("/")
            name, counts = channel_name(app, environment), counts_from_json(text)
            if name is None or not counts or number > MAX_CHANNELS:
                self._store.oddities.pass_over(key, f"{field[:80]!r}: {text[:80]!r}")
            else:
                counted.append((name, counts))
            if number % SLICE == 0:
                await asyncio.sleep(0)
        return counted

    async def strike_off(self, replicas: Collection[str]) -> None:
        """Forget replicas that are dead. One that isn't writes itself down again."""
        async with self._store.pipeline() as pipe:
            pipe.srem(self._replicas, *replicas)
            await pipe.execute()

    async def read_channel(self, channel: ChannelName) -> Page:
        """Read what there is of one channel."""
        async with self._store.pipeline() as pipe:
            pipe.srandmember(self._replicas, MAX_REPLICAS)
            others = await self._others(*await pipe.execute(raise_on_error=False))
        async with self._store.pipeline() as pipe:
            for replica in others:
                pipe.hget(self._counts(replica), channel)
            pipe.get(self._store.curve_key(channel))
            pipe.time()
            *fields, curve, clock = await pipe.execute(raise_on_error=False)
        texts = [self._taken(self._counts(replica), field, None) for replica, field in zip(others, fields, strict=True)]
        counts = tuple(counts_from_json(text) for text in texts if text)
        return Page(_milliseconds(answered(clock)), counts, self._curve(channel, curve))

    async def read_all(self) -> tuple[int, Sequence[tuple[ChannelName, Counts]]]:
        """Read what all other replicas count on all channels. Returns Redis's clock, too."""
        async with self._store.pipeline() as pipe:
            pipe.srandmember(self._replicas, MAX_REPLICAS)
            others = await self._others(*await pipe.execute(raise_on_error=False))
        async with self._store.pipeline() as pipe:
            for replica in others:
                pipe.hgetall(self._counts(replica))
            pipe.time()
            *pages, clock = await pipe.execute(raise_on_error=False)
        counted: list[tuple[ChannelName, Counts]] = []
        for replica, page in zip(others, pages, strict=True):
            counted += await self._counted(self._counts(replica), page)
        return _milliseconds(answered(clock)), counted

    async def curves(self, channels: Collection[ChannelName]) -> list[Curve]:
        """Read the kept curves."""
        async with self._store.pipeline() as pipe:
            for channel in channels:
                pipe.get(self._store.curve_key(channel))
            replies = await pipe.execute(raise_on_error=False)
        return [self._curve(channel, reply) for channel, reply in zip(channels, replies, strict=True)]

    def _curve(self, channel: ChannelName, reply: Any) -> Curve:
        key = self._store.curve_key(channel)
        text = self._taken(key, reply, None)
        curve = Curve.from_json(text)
        if text is not None and curve.newest is None:
            self._store.oddities.pass_over(key, "it is no curve")
        return curve

    async def keep_curves(self, curves: Mapping[ChannelName, bytes | None]) -> None:
        """Keep curves, for as long as the channel's deployments are kept; None for one that is forgotten."""
        async with self._store.pipeline() as pipe:
            for channel, curve in curves.items():
                if curve is None:
                    pipe.delete(self._store.curve_key(channel))
                else:
                    pipe.set(self._store.curve_key(channel), curve)
            await pipe.execute()

    async def leave(self, *, leads: bool) -> None:
        """Count no more, at once."""
        async with self._store.pipeline(atomic=True) as pipe:
            pipe.delete(self._counts(self._replica))
            pipe.srem(self._replicas, self._replica)
            if leads:
                pipe.delete(self._lease)
            await pipe.execute()


def _milliseconds(clock: tuple[int, int]) -> int:
    seconds, microseconds = clock
    return int(seconds) * 1000 + int(microseconds) // 1000
