"""The relay: hears of every deployment, reads what it missed, and keeps the channels of this process true.

Pub/sub is a hint; the sorted set is the truth.
"""

import asyncio
import logging
import random
import time
from collections.abc import Coroutine, Iterable, Sequence
from typing import Final

from service.channel import Channel
from service.channels import Channels, settle
from service.deafness import Deafness
from service.deployment import ChannelName, Deployment
from service.metrics import Metrics, RelayState
from service.outage import UNREACHED
from service.reads import READ_BATCH, RETRY_INTERVAL, Reads
from service.store import Store, StoreUnavailableError
from service.subscription import Confirmation, Message, Subscription, subscribe

RECONCILE_INTERVAL: Final = (3.0, 5.0)
"""Seconds between two reconciles, with the jitter that keeps replicas apart."""
FIRST_RETRY_INTERVAL: Final = (0.0, 0.2)
SURVEY_INTERVAL: Final = 1.0
"""Seconds between two passes over Redis, whatever is asked."""
ID_BATCH: Final = 200
"""Channels whose newest records one round trip reads: then the event loop gets its turn."""
NAME_BATCH: Final = 1000
"""The same where it is only asked which of them are known."""

logger = logging.getLogger("vectr0.relay")


class Relay:
    """The one subscription of a process, and the reads that heal what it missed."""

    def __init__(self, store: Store, channels: Channels, metrics: Metrics) -> None:
        self._store = store
        self._channels = channels
        self._metrics = metrics
        self._reads = Reads(store, channels, self._read_failed)
        self._subscribed: bool | None = None
        """None until the first attempt has ended."""
        self._confirmations = 0
        self._compared = True
        """False from a confirmation until the reconcile that follows it."""
        self._deafness = Deafness(time.monotonic)
        self._deaf = False
        self._reconcile_now = asyncio.Event()
        self._reconciled_at = float("-inf")
        """When the last reconcile began, by the loop's clock."""
        self._askers: list[asyncio.Future[None]] = []
        """Those who wait for the index."""
        self._surveyors: list[asyncio.Future[None]] = []
        """Those who wait until all channels are in memory."""
        self._due: asyncio.TimerHandle | None = None
        self.state: RelayState = "connecting"
        self.since = time.time()
        self.last_error: StoreUnavailableError | None = None
        self._told: set[str | None] = set()
        """The kinds of failure that the log has been told of since the state changed."""

    def loops(self) -> list[Coroutine[None, None, None]]:
        """Return what has to run until cancelled, side by side: with one of them gone there is no relay."""
        return [self._listen_forever(), self._reconcile_forever(), self._reads.run()]

    async def survey(self) -> None:
        """Wait until every channel with deployments is in memory, where it is watched. Raises StoreUnavailableError."""
        await self._wait_for_pass(self._surveyors)

    async def take_index(self) -> None:
        """Wait until the index is as Redis is from now on. Raises StoreUnavailableError."""
        await self._wait_for_pass(self._askers)

    async def _wait_for_pass(self, waiting: list[asyncio.Future[None]]) -> None:
        """Wait for a pass over Redis that begins from now on: one for all, and no more than one in SURVEY_INTERVAL."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        waiting.append(future)
        if self._due is None:
            self._due = loop.call_at(self._reconciled_at + SURVEY_INTERVAL, self._reconcile_now.set)
        await future

    async def _listen_forever(self) -> None:
        while True:
            try:
                async with subscribe(self._store) as subscription:
                    await self._listen(subscription)
            except StoreUnavailableError as error:
                self.last_error = error
            # A subscription that was cut off is opened anew almost at once; one that could not be opened, later.
            interval = FIRST_RETRY_INTERVAL if self._subscribed else RETRY_INTERVAL
            self._subscribed = False
            self._metrics.reconnects.inc()
            self._reconcile_now.set()
            await asyncio.sleep(random.uniform(*interval))  # noqa: S311  # jitter

    async def _listen(self, subscription: Subscription) -> None:
        self._confirmed()
        while not self._deaf:
            match await subscription.receive(timeout=1):
                case Message() as message:
                    self._hear(message)
                case Confirmation():
                    self._confirmed()
        raise StoreUnavailableError(
            "the subscription was deaf: it did not bring what was published", "the subscription was deaf"
        )

    def _confirmed(self) -> None:
        self._subscribed, self._compared, self._deaf = True, False, False
        self._confirmations += 1
        self._deafness.begin()
        self._reconcile_now.set()

    def _hear(self, message: Message) -> None:
        if message.deployment is not None:
            self._deafness.bring(message.channel, message.deployment)
            self._channels.index.note(message.channel, message.deployment.id)
        channel = self._channels.get(message.channel)
        if channel is None:
            if not self._channels.is_watched:
                return
            channel = self._channels.open(message.channel)
        # A new subscription may be one to another primary, which gave the id that this follows on to another record.
        if message.deployment is None or not self._compared or not channel.take(message.deployment):
            self._channels.read_soon(channel)

    async def _reconcile_forever(self) -> None:
        while True:
            askers, surveyors = self._begin_pass()
            try:
                await self._reconcile(askers, is_asked=bool(askers or surveyors))
            except StoreUnavailableError as error:
                self._failed(error)
                settle([*askers, *surveyors], error)
                interval = RETRY_INTERVAL
            else:
                if self._subscribed is not None:
                    self._enter("live" if self._subscribed else "polling")
                settle(surveyors, None)
                interval = RECONCILE_INTERVAL
            await _wait(self._reconcile_now, random.uniform(*interval))  # noqa: S311  # jitter

    def _begin_pass(self) -> tuple[list[asyncio.Future[None]], list[asyncio.Future[None]]]:
        """Return those who wait for the pass that begins now."""
        waiting = [*self._askers], [*self._surveyors]
        self._askers.clear()
        self._surveyors.clear()
        self._reconcile_now.clear()
        self._reconciled_at = asyncio.get_running_loop().time()
        if self._due is not None:
            self._due.cancel()
            self._due = None
        return waiting

    async def _reconcile(self, askers: Sequence[asyncio.Future[None]] = (), *, is_asked: bool = False) -> None:
        """Compare the newest ids of all channels in use, and read those that differ.

        Where it is watched or asked for, all that Redis knows are in use, and their ids make the index.
        """
        await self._channels.let_go()
        self._metrics.channels.set(len(self._channels))
        is_watched = self._channels.is_watched
        empty = [channel.name for channel in self._channels if channel.loaded and not channel.frames]
        is_whole = is_watched or is_asked
        if is_whole:
            self._channels.index.begin()
            known: Iterable[ChannelName] = await self._store.names()
        else:
            known = await self._known(empty)
        names = {*known, *(channel.name for channel in self._channels if channel.frames)}
        found = await self._compare(sorted(names), empty)
        if is_whole:
            self._channels.index.finish(found)
            settle(askers, None)
        if is_watched:
            await self._load(found)
        self._channels.surveyed = is_watched

    async def _known(self, empty: Sequence[ChannelName]) -> list[ChannelName]:
        """Return which of the channels that had no deployment may have one by now.

        Anybody can open streams on names that were made up: a read for each of those would go on as long as they do.
        """
        known: list[ChannelName] = []
        for start in range(0, len(empty), NAME_BATCH):
            known += await self._store.known(empty[start : start + NAME_BATCH])
        return known

    async def _compare(self, names: list[ChannelName], empty: Iterable[ChannelName]) -> dict[ChannelName, int]:
        """Return the newest ids of those that have any. What memory has otherwise is read soon.

        The ``empty`` ones had none, unless they are among the names.
        """
        ids: dict[ChannelName, int] = {}
        found: dict[ChannelName, Deployment | None] = {}
        confirmations, healed = self._confirmations, 0
        for start in range(0, max(1, len(names)), ID_BATCH):  # once at least: that says whether Redis is there
            batch = names[start : start + ID_BATCH]
            for name, newest in zip(batch, await self._store.newest(batch), strict=True):
                channel = self._channels.get(name)
                if newest is not None:
                    ids[name] = newest.id
                if channel is not None and channel.loaded:
                    found[name] = newest
                    healed += self._heal(channel, newest)
        for name in empty:
            channel = self._channels.get(name)
            if channel is not None and not channel.frames:
                found.setdefault(name, None)
        if self._subscribed and confirmations == self._confirmations:
            self._compared = True
            self._deaf = self._deafness.find(found) or self._deaf
        self._metrics.reconciles.labels("healed" if healed else "level").inc()
        self._metrics.healed.inc(healed)
        return ids

    def _heal(self, channel: Channel, newest: Deployment | None) -> bool:
        """Read a channel soon where memory has another newest record. Returns whether that is so."""
        if channel.newest_record == (newest and newest.json):
            return False
        channel.is_doubted = True
        self._channels.read_soon(channel)
        return True

    async def _load(self, found: Iterable[ChannelName]) -> None:
        """Read into memory what isn't there. A name that has no deployment stays out."""
        names = [*found]
        for start in range(0, len(names), READ_BATCH):
            channels = [self._channels.open(name) for name in names[start : start + READ_BATCH]]
            if unloaded := [channel for channel in channels if not channel.loaded]:
                await self._reads.read(unloaded)
            await asyncio.sleep(0)

    def _read_failed(self, error: StoreUnavailableError) -> None:
        self._failed(error)
        self._reconcile_now.set()

    def _failed(self, error: StoreUnavailableError) -> None:
        self.last_error = error
        self._channels.surveyed = False
        self._channels.index.expire()
        self._enter("down")

    def _enter(self, state: RelayState) -> None:
        """One log line a change of state, and one for each further reason for which Redis refuses while that lasts."""
        kind = None if self.last_error is None or self.last_error.kind in UNREACHED else self.last_error.kind
        if state != self.state:
            self.state, self.since = state, time.time()
            self._metrics.enter_relay_state(state)
            self._told.clear()
        elif state == "live" or kind in self._told:
            return
        self._told.add(kind)
        match state:
            case "live":
                logger.info("Redis is there; deployments arrive by subscription")
            case "polling":
                logger.warning("No subscription, deployments arrive by polling: %s", self.last_error)
            case "down":
                logger.warning("Redis is away, serving from memory: %s", self.last_error)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
