"""The relay: hears of every deployment, reads what it missed, and keeps the channels of this process true.

Pub/sub is a hint; the sorted set is the truth.
"""

import asyncio
import logging
import random
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Final

from service.channel import Channel, Channels
from service.deafness import Deafness
from service.deployment import Deployment
from service.metrics import Metrics, RelayState
from service.store import Store, StoreUnavailableError
from service.subscription import Confirmation, Message, Subscription, subscribe

RECONCILE_INTERVAL: Final = (3.0, 5.0)
"""Seconds between two reconciles, with the jitter that keeps replicas apart."""
FIRST_RETRY_INTERVAL: Final = (0.0, 0.2)
RETRY_INTERVAL: Final = (0.5, 1.5)
"""Seconds between two attempts while Redis is away."""
READ_BATCH: Final = 500
"""Channels that one round trip reads."""

logger = logging.getLogger("vectr0.relay")


class Relay:
    """The one subscription of a process, and the reads that heal what it missed."""

    def __init__(self, store: Store, channels: Channels, metrics: Metrics) -> None:
        self._store = store
        self._channels = channels
        self._metrics = metrics
        self._subscribed: bool | None = None
        """None until the first attempt has ended."""
        self._confirmations = 0
        self._compared = True
        """False from a confirmation until the reconcile that follows it."""
        self._deafness = Deafness(time.monotonic)
        self._deaf = False
        self._reconcile_now = asyncio.Event()
        self._surveyed: list[asyncio.Future[None]] = []
        self.state: RelayState = "connecting"
        self.since = time.time()
        self.last_error: StoreUnavailableError | None = None

    def loops(self) -> list[Coroutine[None, None, None]]:
        """Return what has to run until cancelled, side by side: with one of them gone there is no relay."""
        return [self._listen_forever(), self._reconcile_forever(), self._read_forever()]

    async def survey(self) -> None:
        """Wait until every channel that Redis knows is in memory. Raises StoreUnavailableError."""
        future = asyncio.get_running_loop().create_future()
        self._surveyed.append(future)
        self._reconcile_now.set()
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
        channel = self._channels.get(message.channel)
        if channel is None:
            if not self._channels.watchers:
                return
            channel = self._channels.open(message.channel)
        # A new subscription may be one to another primary, which gave the id that this follows on to another record.
        if message.deployment is None or not self._compared or not channel.take(message.deployment):
            self._channels.read_soon(channel)

    async def _reconcile_forever(self) -> None:
        while True:
            self._reconcile_now.clear()
            surveyors, self._surveyed = self._surveyed, []
            try:
                await self._reconcile()
            except StoreUnavailableError as error:
                self._failed(error)
                _settle(surveyors, error)
                interval = RETRY_INTERVAL
            else:
                if self._subscribed is not None:
                    self._enter("live" if self._subscribed else "polling")
                _settle(surveyors, None)
                interval = RECONCILE_INTERVAL
            await _wait(self._reconcile_now, random.uniform(*interval))  # noqa: S311  # jitter

    async def _reconcile(self) -> None:
        """Compare the newest ids of all channels in use in one round trip; read those that differ."""
        self._channels.let_go()
        self._metrics.channels.set(len(self._channels))
        unloaded = []
        if self._channels.watchers:
            for name in await self._store.names():
                channel = self._channels.open(name)
                if not channel.loaded:
                    unloaded.append(channel)
        await self._read_batches(unloaded)
        self._channels.surveyed = bool(self._channels.watchers)
        loaded = [channel for channel in self._channels if channel.loaded]
        confirmations = self._confirmations
        newest = await self._store.newest([channel.name for channel in loaded])
        behind = [channel for channel, record in zip(loaded, newest, strict=True) if record != channel.newest_record]
        for channel in behind:
            self._channels.read_soon(channel)
        if self._subscribed and confirmations == self._confirmations:
            self._compared = True
            found = {channel.name: _found(channel, record) for channel, record in zip(loaded, newest, strict=True)}
            self._deaf = self._deafness.find(found) or self._deaf
        self._metrics.reconciles.labels("healed" if behind else "level").inc()
        self._metrics.healed.inc(len(behind))

    async def _read_forever(self) -> None:
        while True:
            batch = await self._channels.unread(READ_BATCH)
            try:
                await self._read(batch)
            except StoreUnavailableError as error:
                self._failed(error)
                self._reconcile_now.set()
                await asyncio.sleep(random.uniform(*RETRY_INTERVAL))  # noqa: S311  # jitter

    async def _read_batches(self, channels: list[Channel]) -> None:
        for start in range(0, len(channels), READ_BATCH):
            await self._read(channels[start : start + READ_BATCH])

    async def _read(self, batch: list[Channel]) -> None:
        """Read the history of channels in one round trip.

        A read counts only if its channel's memory stood still since it was sent; else it is repeated: the message
        that was taken meanwhile, or the read that overtook this one, may know more.
        """
        sent = [(channel, channel.changes, channel.readers) for channel in batch]
        for channel in batch:
            channel.readers = []
            channel.reads += 1
        numbers = [channel.reads for channel in batch]
        try:
            histories = await self._store.histories([channel.name for channel in batch])
        except StoreUnavailableError as error:
            for channel, _, readers in sent:
                _settle(readers, error)
                self._channels.read_soon(channel)
            raise
        for (channel, changes, readers), history, number in zip(sent, histories, numbers, strict=True):
            if channel.changes != changes:
                channel.readers += readers
                self._channels.read_soon(channel)
            else:
                channel.replace(history, number)
                _settle(readers, None)

    def _failed(self, error: StoreUnavailableError) -> None:
        self.last_error = error
        self._channels.surveyed = False
        self._enter("down")

    def _enter(self, state: RelayState) -> None:
        """One log line a change of state."""
        if state == self.state:
            return
        self.state, self.since = state, time.time()
        self._metrics.enter_relay_state(state)
        match state:
            case "live":
                logger.info("Redis is there; deployments arrive by subscription")
            case "polling":
                logger.warning("No subscription, deployments arrive by polling: %s", self.last_error)
            case "down":
                logger.warning("Redis is away, serving from memory: %s", self.last_error)


def _found(channel: Channel, record: bytes | None) -> Deployment | None:
    """Take what a reconcile found for a deployment; None for what is none."""
    if record is None:
        return None
    if record == channel.newest_record:
        return channel.frames[-1].deployment
    with suppress(ValueError):
        return Deployment.from_json(record)
    return None


def _settle(futures: list[asyncio.Future[None]], error: Exception | None) -> None:
    for future in futures:
        if future.done():  # who waited for it is gone
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
