"""The roll: what each replica counts, side by side in Redis, and the curves that one of them keeps for all."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from service.adoption import counts_from_json
from service.deployment import ChannelName
from service.store import Store
from service.tallies import Counts

LIFETIME_MS: Final = 10_000
"""Milliseconds after which a replica that has died, or can't reach Redis, counts no more."""
LEASE_MS: Final = 8_000
"""The same for its turn to keep the curves."""
SLICE: Final = 200
"""Counts after which the event loop gets its turn."""


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
    curve: bytes | None


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
            pipe.hlen(key)
            pipe.time()
            pipe.smembers(self._replicas)
            lease, length, clock, replicas = (await pipe.execute())[-4:]
        others = tuple(sorted(replica.decode(errors="replace") for replica in replicas - {self._replica.encode()}))
        return Turn(_milliseconds(clock), others, lease == self._replica.encode(), length == count)

    async def read(self, replica: str) -> Mapping[bytes, bytes]:
        """Read all that another replica counts; nothing where it has died."""
        async with self._store.pipeline() as pipe:
            pipe.hgetall(self._counts(replica))
            [fields] = await pipe.execute()
        return cast("Mapping[bytes, bytes]", fields)

    async def strike_off(self, replicas: Collection[str]) -> None:
        """Forget replicas that are dead. One that isn't writes itself down again."""
        async with self._store.pipeline() as pipe:
            pipe.srem(self._replicas, *replicas)
            await pipe.execute()

    async def read_channel(self, channel: ChannelName) -> Page:
        """Read what there is of one channel."""
        async with self._store.pipeline() as pipe:
            pipe.smembers(self._replicas)
            [replicas] = await pipe.execute()
            for replica in replicas - {self._replica.encode()}:
                pipe.hget(self._counts(replica.decode(errors="replace")), channel)
            pipe.get(self._store.curve_key(channel))
            pipe.time()
            *fields, curve, clock = await pipe.execute()
        return Page(_milliseconds(clock), tuple(counts_from_json(field) for field in fields if field), curve)

    async def read_all(self) -> tuple[int, Sequence[tuple[ChannelName, Counts]]]:
        """Read what all other replicas count on all channels. Returns Redis's clock, too."""
        async with self._store.pipeline() as pipe:
            pipe.smembers(self._replicas)
            [replicas] = await pipe.execute()
            for replica in replicas - {self._replica.encode()}:
                pipe.hgetall(self._counts(replica.decode(errors="replace")))
            pipe.time()
            *pages, clock = await pipe.execute()
        counted = []
        for number, (field, text) in enumerate((item for page in pages for item in page.items()), start=1):
            counted.append((ChannelName(field.decode(errors="replace")), counts_from_json(text)))
            if number % SLICE == 0:
                await asyncio.sleep(0)
        return _milliseconds(clock), counted

    async def curves(self, channels: Collection[ChannelName]) -> list[bytes | None]:
        """Read the kept curves."""
        async with self._store.pipeline() as pipe:
            for channel in channels:
                pipe.get(self._store.curve_key(channel))
            return cast("list[bytes | None]", await pipe.execute())

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
