"""The relay's rules, against a store whose every answer the test decides: what is lost, what is late."""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import hypothesis.strategies as st
import orjson
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from service.channel import Channel
from service.channels import Channels
from service.deafness import DEAF_AFTER
from service.deployment import KEPT, ChannelName, Deployment
from service.frame import DeploymentFrame
from service.metrics import Metrics
from service.relay import Relay
from service.store import StoreUnavailableError
from service.subscription import Message

WEB = ChannelName("web/production")


class Scripted:
    """A store with one channel in the test's memory. Reads are answered when the test says so, as they were sent."""

    def __init__(self) -> None:
        self.history: list[Deployment] = []
        self.clock = 1
        self.primary = 1
        self.reads: deque[tuple[asyncio.Future[list[list[Deployment]]], list[Deployment]]] = deque()
        self.comparisons: deque[tuple[asyncio.Future[None], list[Deployment]]] | None = None
        """What reconciles have asked and were not yet told; None where they are told at once."""

    def append(self) -> Deployment:
        """What append.lua does, as far as order and the chain go."""
        last = self.history[-1].id if self.history else None
        number = max(self.clock, (last or 0) + 1)
        self.clock = number + 1
        record = orjson.dumps({"deployedAt": number, "previous": last, "primary": self.primary})
        deployment = Deployment(record, number, last)
        self.history = [*self.history, deployment][-KEPT:]
        return deployment

    def fail_over(self, lost: int, skew: int) -> None:
        """Let another primary take over, which never got the last records, and whose clock is behind.

        It has the first: where it has none, the id of its next is nothing but its clock's, and new.
        """
        self.history = self.history[: max(1, len(self.history) - lost)]
        self.clock = max(1, self.clock - skew)
        self.primary += 1

    async def histories(self, channels: Sequence[ChannelName]) -> list[list[Deployment]]:
        future: asyncio.Future[list[list[Deployment]]] = asyncio.get_running_loop().create_future()
        self.reads.append((future, self.history))
        return await future

    async def newest(self, channels: Sequence[ChannelName]) -> list[Deployment | None]:
        history = self.history
        if self.comparisons is not None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.comparisons.append((future, history))
            await future
        return [history[-1] if history else None for _ in channels]

    async def known(self, channels: Sequence[ChannelName]) -> set[ChannelName]:
        return {*channels} if self.history else set()

    async def names(self) -> list[ChannelName]:
        return [WEB]

    def answer(self) -> None:
        """Answer the oldest read with what there was when it was sent."""
        future, history = self.reads.popleft()
        if not future.done():
            future.set_result([history])

    def answer_comparison(self) -> None:
        """Tell the oldest reconcile what was newest when it asked."""
        assert self.comparisons is not None
        future, _ = self.comparisons.popleft()
        if not future.done():
            future.set_result(None)


class Client:
    """A browser: it remembers the last id that it saw, over its connections."""

    def __init__(self, last_event_id: int | None) -> None:
        self.sent = 0
        self.flowing = True
        self.connected_with = last_event_id
        self.ids: list[int] = []
        self.frames: list[Deployment] = []

    def send(self, frame: DeploymentFrame) -> None:
        self.ids.append(frame.deployment.id)
        self.frames.append(frame.deployment)


def connect(channels: Channels, client: Client) -> Channel:
    """What `Events` does, for a client that doesn't wait for a read but starts with a ping."""
    channel = channels.open(WEB)
    if not channel.loaded or channel.is_behind(client.connected_with):
        channels.wait(channel, client, client.connected_with)
    else:
        for frame in channel.replay(client.connected_with):
            client.send(frame)
        channel.join(client)
    return channel


@contextmanager
def relaying() -> Iterator[tuple[asyncio.AbstractEventLoop, Scripted, Channels, Relay]]:
    """A relay whose reads run, on a loop that is turned by hand."""
    loop = asyncio.new_event_loop()
    store: Any = Scripted()
    made: list[Any] = []

    async def make() -> None:
        metrics = Metrics()
        channels = Channels(loop.call_soon, loop.time, metrics)
        made.extend((channels, Relay(store, channels, metrics)))

    loop.run_until_complete(make())
    channels, relay = made
    reading = loop.create_task(relay._reads.run())
    try:
        yield loop, store, channels, relay
    finally:
        reading.cancel()
        while not reading.done():
            loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def turn(loop: asyncio.AbstractEventLoop) -> None:
    """Let everything run that can run without another answer."""

    async def turns() -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    loop.run_until_complete(turns())


def test_lost_message_between_two_is_read():
    """A message that doesn't follow on memory makes the relay read; the stream gets both, in order."""
    with relaying() as (loop, store, channels, relay):
        client = Client(None)
        connect(channels, client)
        turn(loop)
        store.answer()
        turn(loop)
        store.append()
        relay._hear(Message(WEB, store.append()))
        turn(loop)
        store.answer()
        turn(loop)

        assert client.ids == [1, 2]


def test_read_that_a_message_overtook_is_repeated():
    """A read answered after a newer message was taken doesn't count."""
    with relaying() as (loop, store, channels, relay):
        client = Client(None)
        channel = connect(channels, client)
        turn(loop)
        store.answer()
        turn(loop)
        channels.read_soon(channel)
        turn(loop)
        relay._hear(Message(WEB, store.append()))
        store.answer()
        turn(loop)

        assert channel.newest == 1
        assert len(store.reads) == 1
        assert client.ids == [1]


def test_read_that_another_read_overtook_is_repeated():
    """Two reads that are under way together can't bring memory back to the older one."""
    with relaying() as (loop, store, channels, relay):
        channel = connect(channels, Client(None))
        turn(loop)
        earlier = store.reads.popleft()
        store.append()
        overtaking = loop.create_task(relay._reads.read([channel]))
        turn(loop)
        store.answer()
        turn(loop)
        store.reads.appendleft(earlier)
        store.answer()
        turn(loop)

        assert overtaking.done()
        assert channel.newest == 1
        assert len(store.reads) == 1


def test_one_read_serves_all_who_wait():
    """A hundred streams on an unread channel cost one read."""
    with relaying() as (loop, store, channels, _):
        for _ in range(100):
            connect(channels, Client(None))
        turn(loop)

        assert len(store.reads) == 1


def test_ids_ahead_cost_a_read_a_second_at_most():
    """Last event ids that this replica hasn't heard of make it read once, and again a second later."""
    with relaying() as (loop, store, channels, _):
        connect(channels, Client(None))
        turn(loop)
        store.answer()
        turn(loop)
        channel = channels.open(WEB)
        for number in range(50):
            channels.wait(channel, Client(number + 10), number + 10)
        turn(loop)
        assert len(store.reads) == 0

        loop.run_until_complete(asyncio.sleep(1.1))
        assert len(store.reads) == 1


def test_reconcile_reads_what_differs():
    """What a reconcile finds different from memory is read, an equal id with other bytes as well."""
    with relaying() as (loop, store, channels, relay):
        client = Client(None)
        first = store.append()
        connect(channels, client)
        turn(loop)
        store.answer()
        turn(loop)
        before = store.append()
        loop.run_until_complete(relay._reconcile())
        turn(loop)
        store.answer()
        turn(loop)
        store.fail_over(lost=1, skew=1)
        after = store.append()
        loop.run_until_complete(relay._reconcile())
        turn(loop)
        store.answer()
        turn(loop)

        assert before.id == after.id
        assert client.frames == [first, before, after]


def test_message_that_follows_on_the_other_record_of_an_id_is_read_first():
    """After a new confirmation a message counts only when a reconcile has compared the bytes, not the ids alone."""
    with relaying() as (loop, store, channels, relay):
        client = Client(None)
        first = store.append()
        connect(channels, client)
        turn(loop)
        store.answer()
        turn(loop)
        lost = store.append()
        relay._hear(Message(WEB, lost))
        store.fail_over(lost=1, skew=1)
        other, last = store.append(), store.append()
        relay._confirmed()
        relay._hear(Message(WEB, last))
        turn(loop)
        store.answer()
        turn(loop)

        assert other.id == lost.id
        assert client.frames == [first, lost, other, last]


@pytest.mark.parametrize("is_heard", [False, True])
def test_message_that_follows_on_what_is_still_to_be_read_is_read_with_it(is_heard):
    """What was found, or heard, under an id that memory has for another record comes before what follows on it."""
    with relaying() as (loop, store, channels, relay):
        client = Client(None)
        first = store.append()
        connect(channels, client)
        turn(loop)
        store.answer()
        turn(loop)
        lost = store.append()
        relay._hear(Message(WEB, lost))
        store.fail_over(lost=1, skew=1)
        other = store.append()
        if is_heard:
            relay._hear(Message(WEB, other))
        else:
            loop.run_until_complete(relay._reconcile())
        last = store.append()
        relay._hear(Message(WEB, last))
        turn(loop)
        while store.reads:
            store.answer()
            turn(loop)

        assert other.id == lost.id
        assert client.frames == [first, lost, other, last]


def test_deaf_subscription_is_given_up(monkeypatch):
    """What a reconcile found, and the subscription hasn't brought when the next comes later, ends it."""
    now = [0.0]
    monkeypatch.setattr("service.relay.time.monotonic", lambda: now[0])
    with relaying() as (loop, store, channels, relay):
        connect(channels, Client(None))
        turn(loop)
        store.answer()
        turn(loop)
        relay._confirmed()
        loop.run_until_complete(relay._reconcile())
        store.append()
        loop.run_until_complete(relay._reconcile())
        assert relay._deaf is False

        now[0] += DEAF_AFTER
        loop.run_until_complete(relay._reconcile())
        assert bool(relay._deaf) is True


class Interleavings(RuleBasedStateMachine):
    """Random interleavings of everything that can happen between Redis and a stream."""

    clients = Bundle("clients")

    @initialize()
    def start(self) -> None:
        self.context = relaying()
        self.loop, self.store, self.channels, self.relay = self.context.__enter__()
        self.open: list[Client] = []
        self.under_way: deque[Deployment] = deque()
        self.reconciles: list[asyncio.Task[None]] = []

    @rule()
    def append(self) -> None:
        self.under_way.append(self.store.append())

    @precondition(lambda self: self.under_way)
    @rule()
    def message(self) -> None:
        self.relay._hear(Message(WEB, self.under_way.popleft()))
        turn(self.loop)

    @precondition(lambda self: self.under_way)
    @rule()
    def lost_message(self) -> None:
        self.under_way.popleft()

    @rule()
    def reconcile(self) -> None:
        self.reconciles.append(self.loop.create_task(self.relay._reconcile()))
        turn(self.loop)

    @precondition(lambda self: self.store.reads)
    @rule()
    def read_is_answered(self) -> None:
        self.store.answer()
        turn(self.loop)

    @rule(target=clients)
    def first_connect(self) -> Client:
        return self._connect(None)

    @rule(target=clients, client=consumes(clients))
    def reconnect(self, client: Client) -> Client:
        self._disconnect(client)
        return self._connect(client.ids[-1] if client.ids else client.connected_with)

    @rule(target=clients, ahead=st.integers(1, 30))
    def connect_from_elsewhere(self, ahead: int) -> Client:
        """From a replica that may know more than this one: its id is one that Redis gave."""
        return self._connect(min(ahead, self.store.clock - 1) or None)

    @rule(client=consumes(clients))
    def disconnect(self, client: Client) -> None:
        self._disconnect(client)

    def _connect(self, last_event_id: int | None) -> Client:
        client = Client(last_event_id)
        connect(self.channels, client)
        self.open.append(client)
        turn(self.loop)
        return client

    def _disconnect(self, client: Client) -> None:
        self.open.remove(client)
        self.channels.open(WEB).leave(client)

    def _answer_all(self) -> None:
        for _ in range(100):
            if not self.store.reads:
                return
            self.store.answer()
            turn(self.loop)

    @invariant()
    def each_stream_is_in_order_and_without_repeats(self) -> None:
        for client in getattr(self, "open", []):
            assert client.ids == sorted(set(client.ids))
            assert not client.ids or client.ids[0] > (client.connected_with or 0)

    @invariant()
    def breaks_show(self) -> None:
        """Between two deployments that follow each other in the chain, none was left out."""
        for client in getattr(self, "open", []):
            for before, after in zip(client.frames, client.frames[1:], strict=False):
                assert after.previous is not None
                assert after.previous >= before.id

    def teardown(self) -> None:
        """Once everything has come to rest, each stream has what the sorted set holds."""
        if not hasattr(self, "open"):
            return
        self._answer_all()
        self.reconciles.append(self.loop.create_task(self.relay._reconcile()))
        turn(self.loop)
        self._answer_all()
        try:
            assert not self.store.reads
            kept = [deployment.id for deployment in self.store.history]
            for client in self.open:
                start = client.ids[0] if client.ids else (kept[-1] + 1 if kept else 0)
                if client.connected_with is not None:
                    start = client.connected_with + 1
                elif kept:
                    assert client.ids
                assert [number for number in client.ids if number in kept] == [n for n in kept if n >= start]
        finally:
            for task in self.reconciles:
                task.cancel()
            turn(self.loop)
            self.context.__exit__(None, None, None)


class Failovers(Interleavings):
    """The same, with primaries that are lost, and others that take over without their last records and clocks."""

    @initialize()
    def start(self) -> None:
        super().start()
        self.store.comparisons = deque()
        self.deaf = False

    @precondition(lambda self: not self.deaf)
    @rule()
    def append(self) -> None:
        super().append()

    @precondition(lambda self: self.deaf)
    @rule()
    def append_unheard(self) -> None:
        self.store.append()

    @rule(lost=st.integers(0, 2), skew=st.integers(0, 4))
    def commands_move(self, lost: int, skew: int) -> None:
        """The subscription stays with the old primary, which may still have something to say."""
        self.store.fail_over(lost, skew)
        self.deaf = True

    @rule()
    def subscribe(self) -> None:
        self.under_way.clear()
        self.deaf = False
        self.relay._confirmed()

    @precondition(lambda self: self.store.comparisons)
    @rule()
    def reconcile_is_answered(self) -> None:
        self.store.answer_comparison()
        turn(self.loop)

    @invariant()
    def each_stream_is_in_order_and_without_repeats(self) -> None:
        """Of one primary's records a stream gets each once, in order; but for the one that Redis goes back to."""

    @invariant()
    def breaks_show(self) -> None:
        """What a failover lost shows only where ids tell of it."""

    def teardown(self) -> None:
        """Once everything has come to rest, each stream has the newest, unless it came with that very id."""
        if not hasattr(self, "open"):
            return
        try:
            for _ in range(3):
                self.reconciles.append(self.loop.create_task(self.relay._reconcile()))
                turn(self.loop)
                while self.store.comparisons:
                    self.reconcile_is_answered()
                self._answer_all()
            newest = self.store.history[-1] if self.store.history else None
            waiting = self.channels.open(WEB).waiting  # for a read that is due within a second
            for client in self.open:
                if newest is not None and client.connected_with != newest.id and client not in waiting:
                    assert client.frames[-1] == newest
        finally:
            for task in self.reconciles:
                task.cancel()
            turn(self.loop)
            self.context.__exit__(None, None, None)


Interleavings.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestInterleavings = Interleavings.TestCase
Failovers.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestFailovers = Failovers.TestCase


def test_each_kind_of_failure_is_logged_once(caplog):
    """A Redis that is back, and refuses for a reason of its own, is another line in the log, and each reason once."""
    caplog.set_level("INFO", "vectr0.relay")
    with relaying() as (_, _, _, relay):
        for kind in (
            "connection lost",
            "connection refused",
            "authentication failed",
            "timed out",
            "authentication failed",
        ):
            relay._failed(StoreUnavailableError(f"the whole of it: {kind}", kind))
        relay._enter("live")
        relay._enter("live")
        relay._failed(StoreUnavailableError("the whole of it: again", "connection refused"))

    assert caplog.messages == [
        "Redis is away, serving from memory: the whole of it: connection lost",
        "Redis is away, serving from memory: the whole of it: authentication failed",
        "Redis is there; deployments arrive by subscription",
        "Redis is away, serving from memory: the whole of it: again",
    ]
