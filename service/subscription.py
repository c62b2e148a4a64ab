"""The subscription: one Redis connection that hears the messages of all channels."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from redis.asyncio.client import PubSub
from redis.exceptions import NoPermissionError

from service.deployment import ChannelName, Deployment
from service.store import Store, StoreUnavailableError, translated

CONFIRMATION_DEADLINE: Final = 5.0
"""Seconds for Redis to confirm a SUBSCRIBE. One that an ACL refuses may look like silence."""


@dataclass(frozen=True, slots=True)
class Message:
    """What was published on a channel: a deployment, or None for anything else."""

    channel: ChannelName
    deployment: Deployment | None


class Confirmation:
    """Redis has confirmed the subscription; what was published before is lost to it."""


class Subscription:
    """A confirmed subscription. All errors are StoreUnavailableError; then it has to be opened anew."""

    def __init__(self, pubsub: PubSub, store: Store) -> None:
        self._pubsub = pubsub
        self._store = store

    async def receive(self, timeout: float) -> Message | Confirmation | None:  # noqa: ASYNC109  # redis-py has its own
        """Wait for what comes next, at most so many seconds."""
        with translated():
            try:
                event = await self._pubsub.get_message(timeout=timeout)
            except NoPermissionError as error:
                # Redis compares the pattern of a PSUBSCRIBE with those of the user letter by letter.
                raise StoreUnavailableError(f"{error}: the user's ACL needs &{self._store.pattern}") from error
        match event:
            case {"type": "psubscribe"}:
                return Confirmation()
            case {"type": "pmessage", "channel": bytes(name), "data": bytes(data)}:
                channel = self._store.channel_of(name)
                return None if channel is None else Message(channel, self._store.records.published(channel, data))
            case _:
                return None


@asynccontextmanager
async def subscribe(store: Store) -> AsyncIterator[Subscription]:
    """Open a connection and subscribe to the pattern of all channels.

    Raises StoreUnavailableError where that is refused, or isn't confirmed within CONFIRMATION_DEADLINE.
    """
    pubsub = store.pubsub()
    try:
        subscription = Subscription(pubsub, store)
        with translated():
            try:
                async with asyncio.timeout(CONFIRMATION_DEADLINE):
                    await pubsub.psubscribe(store.pattern)
                    while not isinstance(await subscription.receive(CONFIRMATION_DEADLINE), Confirmation):
                        pass
            except TimeoutError:
                raise StoreUnavailableError(
                    f"the subscription was not confirmed within {CONFIRMATION_DEADLINE:g} seconds",
                    "the subscription timed out",
                ) from None
        yield subscription
    finally:
        # Whatever it raises: the connection is gone, and what is being raised already matters more.
        with suppress(StoreUnavailableError), translated():
            await pubsub.aclose()  # type: ignore[no-untyped-call]  # untyped there
