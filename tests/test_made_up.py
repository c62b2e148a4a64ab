"""Names that nobody recorded, of which anybody can think of more: what they cost Redis and memory, and what they don't."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from service.channels import MAX_PASSING, Channels
from service.deployment import ChannelName, Deployment
from service.metrics import Metrics
from service.reads import DOUBTFUL_READS, Reads
from tests.parts import Listener, Proxy, RedisServer, Replica, deployment, eventually, post, reconciles

pytestmark = pytest.mark.anyio

STREAMS = 300
WEB = ChannelName("web/production")
FIRST = Deployment.from_json(
    json.dumps({**deployment(), "deployedAt": 1, "previous": None, "rollback": False}).encode()
)


def commands(server: RedisServer, name: str) -> int:
    """How many commands of this name Redis has executed."""
    _, _, calls = server.cli("INFO", "commandstats").partition(f"cmdstat_{name}:calls=")
    return int(calls.partition(",")[0] or 0)


@pytest.fixture
async def listeners() -> AsyncIterator[list[Listener]]:
    """Streams that are closed at the end."""
    listeners: list[Listener] = []
    yield listeners
    for listener in listeners:
        await listener.close()


async def open_made_up(replica: Replica, listeners: list[Listener], count: int = STREAMS) -> None:
    urls = (f"{replica.url}/events/made-up-{number}/production" for number in range(count))
    listeners += [await Listener.open(url) for url in urls]


async def test_open_streams_on_made_up_names_cost_redis_nothing(redis_server, start_replica, listeners):
    """Reconciles don't read what nobody recorded, however many streams wait there."""
    replica = start_replica(redis_url=redis_server.url)
    await open_made_up(replica, listeners)
    await reconciles(replica, 1)
    before = commands(redis_server, "zrange")
    await reconciles(replica, 3)

    assert commands(redis_server, "zrange") == before


async def test_first_deployment_when_the_subscription_is_silently_dead(redis_server, start_replica, listeners):
    """A stream on a name that nobody had recorded hears of its first deployment, recorded elsewhere, within 10 s."""
    proxy = Proxy(redis_server.port).start()
    try:
        a, b = start_replica(redis_url=redis_server.url), start_replica(redis_url=proxy.url)
        await eventually(lambda: b.health()["relay"]["state"] == "live", what="a live relay")
        await open_made_up(b, listeners, count=20)
        await reconciles(b, 1)
        assert proxy.deafen() == 1
        recorded = await asyncio.to_thread(post, a.url, deployment("made-up-7"))
        await listeners[7].has(1, timeout=10)
    finally:
        proxy.stop()

    assert listeners[7].deployments == [recorded.json()]
    assert not any(listener.deployments for listener in listeners if listener is not listeners[7])


async def test_flood_of_made_up_names(redis_server, start_replica):
    """Of many new names that wait to be read Redis is asked at once which it knows, and those alone are read."""
    a = start_replica(redis_url=redis_server.url)
    real = [(await asyncio.to_thread(post, a.url, deployment(f"real-{number}"))).json() for number in range(20)]
    b = start_replica(redis_url=redis_server.url)
    await eventually(lambda: b.health()["relay"]["state"] == "live", what="a live relay")
    before = commands(redis_server, "zrange"), commands(redis_server, "smismember")
    names = [*(f"made-up-{number}" for number in range(3 * DOUBTFUL_READS)), *(one["appName"] for one in real)]
    redis_server.pause()  # so that they come together, however slow this machine is
    with ExitStack() as stack:
        streams = [stack.enter_context(socket.create_connection(("127.0.0.1", b.port))) for _ in names]
        for stream, name in zip(streams, names, strict=True):
            stream.sendall(f"GET /events/{name}/production HTTP/1.1\r\nHost: hub\r\n\r\n".encode())
        await eventually(lambda: b.health()["channels"] >= len(names), 30, "the streams")
        redis_server.resume()
        told = [await asyncio.to_thread(first_deployment, stream) for stream in streams[-len(real) :]]
        await reconciles(b, 2)

    assert told == real
    assert commands(redis_server, "smismember") > before[1]
    # Those of the real ones, and of the reconciles, are by far fewer than the rest of those that were made up.
    assert commands(redis_server, "zrange") - before[0] < 2.5 * DOUBTFUL_READS


def first_deployment(stream: socket.socket) -> object:
    stream.settimeout(20)
    text = b""
    while (event := re.search(rb"event: deployment\r?\ndata: (.*?)\r?\n", text)) is None:
        text += stream.recv(65536)
    return json.loads(event[1])


class Counted:
    """A store in which nothing was recorded but one channel, and what it was asked."""

    def __init__(self) -> None:
        self.read: list[ChannelName] = []
        self.questions = 0

    async def known(self, names: Sequence[ChannelName]) -> set[ChannelName]:
        self.questions += 1
        return {name for name in names if name == WEB}

    async def histories(self, names: Sequence[ChannelName]) -> list[list[Deployment]]:
        self.read += names
        return [[FIRST] if name == WEB else [] for name in names]


@pytest.fixture
async def reads() -> AsyncIterator[tuple[Channels, Counted]]:
    """Channels that are read, in a second that never ends."""
    loop = asyncio.get_running_loop()
    channels, store = Channels(loop.call_soon, loop.time, Metrics()), Counted()
    made: Any = store
    running = asyncio.create_task(Reads(made, channels, lambda _: None, lambda: 0.0).run())
    yield channels, store
    running.cancel()


async def test_so_many_a_second_are_read_as_any_other(reads):
    """Names that may be made up are read in one round trip, until there are too many; known ones always."""
    channels, store = reads
    for number in range(DOUBTFUL_READS + 50):
        await channels.read(channels.open(ChannelName(f"made-up-{number}/production")))
    web = channels.open(WEB)
    await channels.read(web)
    for _ in range(3):
        await channels.read(web)

    assert len(store.read) == DOUBTFUL_READS + 4
    assert store.questions == 50 + 1
    assert web.newest == FIRST.id
    assert all(channel.loaded for channel in channels)


async def test_names_that_were_asked_for_are_not_kept(reads):
    """Of the channels without deployments that requests asked for so many are kept, and all that somebody needs."""
    channels, _ = reads
    for number in range(MAX_PASSING + 100):
        channel = channels.open(ChannelName(f"made-up-{number}/production"))
        channel.pins = int(number == 0)
        channels.pass_by(channel)

    assert len(channels) == MAX_PASSING + 1
    assert channels.get(ChannelName("made-up-0/production"))
    assert channels.get(ChannelName("made-up-1/production")) is None
