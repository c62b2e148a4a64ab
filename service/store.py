"""The store: appends deployments to channels in Redis, and reads their history back."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, Literal, cast

from redis.asyncio.client import Pipeline, PubSub
from redis.exceptions import NoPermissionError, ReadOnlyError, RedisError, ResponseError

from service.connections import Connections
from service.deployment import KEPT, ChannelName, Deployment, Submission, channel_name
from service.outage import kind_of
from service.records import Oddities, Records, members_of

DEADLINE: Final = 2.5
"""Seconds after which an operation is given up, its retries included: a POST is answered within three."""
KEY_LIFETIME: Final = 24 * 3600
"""Seconds for which an idempotency key is remembered."""
NONCE_LIFETIME: Final = 60
"""Seconds for which a request without one is: longer than redis-py goes on sending it."""

NAMES_SLICE: Final = 2000
"""Names that are checked before the event loop gets its turn: some milliseconds."""
MAX_NAME_SIZE: Final = 129
"""Bytes of a channel's name."""
MAX_NAMED: Final = 10_000
"""Names that a process remembers to have added."""

Outcome = Literal["recorded", "repeated", "conflict", "replayed"]


class StoreUnavailableError(Exception):
    """Redis didn't answer, or not with what was asked of it; what was to be written may be written all the same.

    Its text is for the log alone: it may name Redis's address, user or certificate.
    """

    def __init__(self, message: str, kind: str | None = None) -> None:
        super().__init__(message)
        self._kind = kind

    @property
    def kind(self) -> str:
        """What kind of failure it is, for anybody to read."""
        return self._kind or kind_of(self.__cause__)


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of a submission: the record, and whether it is a new one."""

    outcome: Outcome
    deployment: Deployment


@dataclass(frozen=True, slots=True)
class Ticket:
    """What is good for one record of each channel: an identity's token, by an id, for so many seconds."""

    id: str
    lifetime: int


@contextmanager
def translated() -> Iterator[None]:
    """Turn whatever Redis, its connection or its answer makes fail into StoreUnavailableError.

    redis-py documents its own errors, but sockets, TLS and decoders raise others through it, also while it cleans up
    after an error: RuntimeError for a transport that is closed, AttributeError where another task has closed it,
    IndexError, OverflowError or RecursionError for an odd answer. All mean the same here, and none may end the process.
    """
    try:
        yield
    except StoreUnavailableError:
        raise
    except asyncio.CancelledError:
        # One that nobody asked for would end a task of the relay without a word.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise StoreUnavailableError("a connection was cut off", "connection lost") from None
    except (RedisError, OSError) as error:
        raise StoreUnavailableError(str(error) or type(error).__name__) from error
    except Exception as error:
        raise StoreUnavailableError(f"{type(error).__name__}: {error}") from error


class Store:
    """The Redis side of the service.

    Every operation raises StoreUnavailableError where Redis can't be had, within DEADLINE.
    """

    def __init__(self, connections: Connections, prefix: str) -> None:
        self._redis = connections.commands
        self._subscription = connections.subscription
        self.prefix = prefix
        self._deployments = f"{prefix}:deployments:"
        # Pub/sub knows no databases: without this a hub on one would tell the tabs of a hub on another.
        self._database = f"@{connections.database}" if connections.database else ""
        self._idempotency = f"{prefix}:idempotency:"
        self._tickets = f"{prefix}:tickets:"
        self._channels = f"{prefix}:channels"
        self._named: set[ChannelName] = set()
        """Channels whose names this process has added; a round trip less for each deployment after the first."""
        self.oddities = Oddities()
        self.records = Records(self.oddities)
        self._script = (files("service") / "append.lua").read_text()

    def _key(self, channel: ChannelName) -> str:
        # The braces make the name the hash tag: all keys of a channel live in one slot of a cluster.
        return f"{self._deployments}{{{channel}}}"

    def _messages(self, channel: ChannelName) -> str:
        """The pub/sub channel of a channel."""
        return self._key(channel) + self._database

    def curve_key(self, channel: ChannelName) -> str:
        """The key of a channel's adoption: see `service.roll`. It goes when the channel is forgotten."""
        return f"{self.prefix}:adoption:{{{channel}}}"

    async def append(
        self, submission: Submission, idempotency_key: str | None = None, ticket: Ticket | None = None
    ) -> Appended:
        """Record a deployment, or find the one that it repeats.

        Safe to run twice: the script knows the request by its nonce. ``conflict`` means that the key was used for
        another payload, and ``replayed`` that the ticket was; nothing is recorded then, and that record is given.
        """
        channel, nonce = submission.channel, secrets.token_hex(8)
        memory = f"{self._idempotency}{{{channel}}}:{idempotency_key or nonce}"
        lifetime = KEY_LIFETIME if idempotency_key else NONCE_LIFETIME
        async with self._operation():
            # A name without a sorted set is harmless; a sorted set without a name would be in no list.
            if channel not in self._named:
                await self._remember_name(channel)
            # EVAL, not EVALSHA: a kilobyte a deployment buys freedom from SCRIPT FLUSH and failovers.
            keys = [self._key(channel), memory]
            arguments: list[str | bytes] = [submission.head, nonce, str(lifetime), str(KEPT), self._messages(channel)]
            if ticket is not None:
                keys.append(f"{self._tickets}{{{channel}}}:{ticket.id}")
                arguments.append(str(ticket.lifetime))
            with _naming_wrong_type(channel, keys[0]):
                reply: Any = await self._redis.eval(self._script, len(keys), *keys, *arguments)
            deployment = Deployment.from_json(reply[1])
            if deployment.previous is None:
                # A `forget`, here or elsewhere, may have taken the name since it was remembered.
                await self._remember_name(channel)
        return Appended(cast("Outcome", reply[0].decode()), deployment)

    async def _remember_name(self, channel: ChannelName) -> None:
        try:
            await cast("Any", self._redis.sadd(self._channels, channel))
        except ResponseError as error:
            if not is_wrong_type(error):
                raise
            self.oddities.pass_over(self._channels, error)  # no list has the channel, and all else works
            return
        if len(self._named) >= MAX_NAMED:
            self._named.clear()
        self._named.add(channel)

    async def forget(self, channel: ChannelName) -> bool:
        """Delete a channel's history and tell the replicas. Gives whether there was any."""
        async with self._operation():
            # In this order: see `append`.
            with suppress_wrong_type():
                await cast("Any", self._redis.srem(self._channels, channel))
            deleted = await self._redis.delete(self._key(channel))
            await self._redis.delete(self.curve_key(channel))
            # "The newest is none": a message that follows on nothing makes every replica read the channel.
            # As in the script it is a hint, which an ACL may forbid.
            with suppress(NoPermissionError):
                await self._redis.publish(self._messages(channel), b"null")
        return bool(deleted)

    @asynccontextmanager
    async def pipeline(self, *, atomic: bool = False) -> AsyncIterator[Pipeline]:
        """Give what sends many commands at once; those of an ``atomic`` one run with no other in between."""
        async with self._operation(), self._redis.pipeline(transaction=atomic) as pipe:
            yield pipe

    async def names(self) -> list[ChannelName]:
        """Return the known channels, sorted; some may be empty. What is no channel's name is passed over."""
        async with self._operation():
            members: set[bytes] = set()
            try:
                members = await cast("Any", self._redis.smembers(self._channels))
            except ResponseError as error:
                if not is_wrong_type(error):
                    raise
                self.oddities.pass_over(self._channels, error)
            found = []
            for number, member in enumerate(members, start=1):
                name = _channel_name(member.decode(errors="replace")) if len(member) <= MAX_NAME_SIZE else None
                if name is not None:
                    found.append(name)
                if number % NAMES_SLICE == 0:
                    await asyncio.sleep(0)
            if len(found) < len(members):
                self.oddities.pass_over(self._channels, "a name that no channel can have")
            return sorted(found)

    async def known(self, channels: Sequence[ChannelName]) -> set[ChannelName]:
        """Return those of these channels that Redis knows, in one command; some may be empty."""
        async with self._operation(), self._redis.pipeline(transaction=False) as pipe:
            pipe.execute_command("ROLE")
            pipe.smismember(self._channels, [*channels])
            role, reply = await pipe.execute(raise_on_error=False)
            _refuse_replica(role)
            if is_wrong_type(reply) or isinstance(reply, NoPermissionError):
                self.oddities.pass_over(self._channels, reply)
                return set(channels)  # each is read then
            return {channel for channel, is_known in zip(channels, answered(reply), strict=True) if is_known}

    async def histories(self, channels: Sequence[ChannelName]) -> list[list[Deployment]]:
        """Read the kept deployments of each channel, oldest first, in one round trip."""
        async with self._operation(), self._redis.pipeline(transaction=False) as pipe:
            pipe.execute_command("ROLE")
            for channel in channels:
                pipe.zrange(self._key(channel), -KEPT, -1, withscores=True)
            role, *replies = await pipe.execute(raise_on_error=False)
            _refuse_replica(role)
            return [self._kept(channel, reply) for channel, reply in zip(channels, replies, strict=True)]

    async def newest(self, channels: Sequence[ChannelName]) -> list[Deployment | None]:
        """Read each channel's newest record, in one round trip."""
        async with self._operation(), self._redis.pipeline(transaction=False) as pipe:
            pipe.execute_command("ROLE")
            for channel in channels:
                pipe.zrange(self._key(channel), -1, -1, withscores=True)
            role, *replies = await pipe.execute(raise_on_error=False)
            _refuse_replica(role)
            found = [self._kept(channel, reply) for channel, reply in zip(channels, replies, strict=True)]
        # What stands above the newest record, and is none, hides it from so short a look.
        hidden = [
            channel
            for channel, reply, kept in zip(channels, replies, found, strict=True)
            if members_of(reply) and not kept
        ]
        uncovered = dict(zip(hidden, await self.histories(hidden) if hidden else [], strict=True))
        newest = [uncovered.get(channel, kept) for channel, kept in zip(channels, found, strict=True)]
        return [kept[-1] if kept else None for kept in newest]

    def _kept(self, channel: ChannelName, reply: Any) -> list[Deployment]:
        """Read a channel's records. One whose key holds something else has none; it mustn't silence the others."""
        if is_wrong_type(reply):
            self.oddities.pass_over(self._key(channel), reply)
            return []
        return self.records.kept(channel, members_of(answered(reply)))

    def pubsub(self) -> PubSub:
        """Give what a subscription is made with; it has a connection of its own."""
        return self._subscription.pubsub()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._redis.aclose()
        await self._subscription.aclose()

    @property
    def pattern(self) -> str:
        """What the pub/sub channels of all channels match. A prefix with a glob's characters is taken as it is."""
        escaped = "".join(f"\\{c}" if c in "\\*?[]" else c for c in self._deployments)
        return f"{escaped}{{*}}{self._database}"

    def channel_of(self, name: bytes) -> ChannelName | None:
        """Return the channel whose messages come under this name; None where it can't be one."""
        text = name.decode(errors="replace").removeprefix(f"{self._deployments}{{").removesuffix(f"}}{self._database}")
        return _channel_name(text)

    @asynccontextmanager
    async def _operation(self) -> AsyncIterator[None]:
        with translated():
            try:
                async with asyncio.timeout(DEADLINE), self._leaving_replicas():
                    yield
            except TimeoutError as error:
                raise StoreUnavailableError(f"no answer within {DEADLINE} seconds") from error

    @asynccontextmanager
    async def _leaving_replicas(self) -> AsyncIterator[None]:
        """Close all connections to a Redis that has been demoted.

        It answers READONLY until that is done, while the name may by now lead to the new one.
        """
        try:
            yield
        except ReadOnlyError:
            await self._redis.connection_pool.disconnect()
            raise


def _channel_name(text: str) -> ChannelName | None:
    app, _, environment = text.partition("/")
    return channel_name(app, environment)


def _refuse_replica(role: Any) -> None:
    """Refuse what a node without the writes says: it may be behind, and memory would follow it."""
    match role:
        case [b"slave" | b"replica", *_]:
            raise ReadOnlyError("this Redis is a replica: it takes no writes")
        case _:  # a master, or one that may not say: an ACL, or a service that has no ROLE
            pass


def is_wrong_type(reply: Any) -> bool:
    """Tell whether a key holds something else than was asked for; its name isn't in the error."""
    return isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE")


def answered(reply: Any) -> Any:
    """Return a pipeline's reply. Raises it where it is an error."""
    if isinstance(reply, Exception):
        raise reply
    return reply


@contextmanager
def suppress_wrong_type() -> Iterator[None]:
    """Go on where a key holds something else than was asked for."""
    try:
        yield
    except ResponseError as error:
        if not is_wrong_type(error):
            raise


@contextmanager
def _naming_wrong_type(channel: ChannelName, key: str) -> Iterator[None]:
    """Say what to do where a channel's key holds something else."""
    try:
        yield
    except ResponseError as error:
        if not is_wrong_type(error):
            raise
        raise StoreUnavailableError(
            f"{key} holds something else than deployments: {error}",
            f"what it holds for {channel} are no deployments, and DELETE /deployments/{channel} removes it",
        ) from error
