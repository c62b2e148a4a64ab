"""Whatever fails below the store leaves it, and the subscription, as one error; a cancellation as what it is."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable

import orjson
import pytest
import redis.exceptions
from redis.asyncio.client import PubSub

from service.connections import Connection, connect
from service.deployment import ChannelName, Submission
from service.roll import Roll
from service.store import Store, StoreUnavailableError
from service.subscription import subscribe
from tests.parts import deployment

pytestmark = pytest.mark.anyio

WEB = ChannelName("web/production")
FAILURES = [
    redis.exceptions.TimeoutError("Timed out closing connection after 1"),
    redis.exceptions.InvalidResponse("Protocol error"),
    ssl.SSLError(1, "application data after close notify"),
    socket.gaierror(-3, "Temporary failure in name resolution"),
    RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed"),
    AttributeError("'NoneType' object has no attribute 'writelines'"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    RecursionError("maximum recursion depth exceeded"),
    OverflowError("cannot convert float infinity to integer"),
    IndexError("list index out of range"),
    KeyError("proto"),
    EOFError(),
    MemoryError(),
    asyncio.CancelledError(),  # that nobody asked for
]


def operations(store: Store) -> list[Callable[[], Awaitable[object]]]:
    """All that is done over the store's connections."""
    roll = Roll(store, "here")

    async def subscribed() -> None:
        async with subscribe(store):
            pass

    return [
        lambda: store.append(Submission.from_json(orjson.dumps(deployment()))),
        lambda: store.forget(WEB),
        store.names,
        lambda: store.newest([WEB]),
        lambda: store.histories([WEB]),
        lambda: roll.exchange({}, (), 0, anew=False, leads=False),
        lambda: roll.keep_curves({WEB: b"{}"}),
        lambda: roll.leave(leads=True),
        subscribed,
    ]


@pytest.mark.parametrize("method", ["_connect", "read_response", "send_packed_command"])
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_what_fails_in_a_connection(redis_server, monkeypatch, failure, method):
    """Connecting, writing and reading may raise what they like."""

    async def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(Connection, method, fail)
    store = Store(connect(redis_server.url), "vectr0")
    for operation in operations(store):
        with pytest.raises(StoreUnavailableError):
            await operation()
    await store.aclose()


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_what_fails_while_an_error_is_cleaned_up(redis_server, monkeypatch, failure):
    """So may what redis-py does after an error: closing connections, and the subscription."""
    closing = PubSub.aclose

    async def fail(*_: object, **__: object) -> None:
        raise failure

    async def close_and_fail(pubsub: PubSub) -> None:
        await closing(pubsub)
        raise failure

    store = Store(connect(redis_server.url), "vectr0")
    await store.names()
    redis_server.cli("REPLICAOF", "127.0.0.1", "1")
    with monkeypatch.context() as patches:
        patches.setattr(Connection, "disconnect", fail)
        with pytest.raises(StoreUnavailableError):
            await store.histories([WEB])
    monkeypatch.setattr(PubSub, "aclose", close_and_fail)
    with pytest.raises(StoreUnavailableError, match="the test's own"):
        async with subscribe(store):
            raise StoreUnavailableError("the test's own")
    await store.aclose()


async def test_cancellation_stays_one(redis_server):
    """Who is cancelled while Redis doesn't answer is cancelled, and nothing else."""
    store = Store(connect(redis_server.url), "vectr0")
    await store.names()
    redis_server.pause()
    waiting = [asyncio.ensure_future(operation()) for operation in operations(store)]
    await asyncio.sleep(0.2)
    for task in waiting:
        task.cancel()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    redis_server.resume()
    await store.aclose()

    assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
