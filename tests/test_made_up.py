"""Names that nobody recorded, of which anybody can think of more: what they cost Redis and memory, and what they don't."""

import asyncio
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from service.channels import MAX_PASSING
from service.reads import DOUBTFUL_INTERVAL, DOUBTFUL_READS
from tests.parts import Listener, Proxy, RedisServer, Replica, deployment, eventually, post, reconciles

pytestmark = pytest.mark.anyio

STREAMS = 300


def commands(server: RedisServer, name: str = "") -> int:
    """How many commands Redis has executed: of this name, or all."""
    if name:
        _, _, calls = server.cli("INFO", "commandstats").partition(f"cmdstat_{name}:calls=")
        return int(calls.partition(",")[0] or 0)
    _, _, count = server.cli("INFO", "stats").partition("total_commands_processed:")
    return int(count.split()[0])


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


async def test_flood_of_made_up_names_reaches_redis_at_a_bounded_rate(redis_server, start_replica):
    """Who asks for ever new names has Redis asked for many of them at once, and real channels are read meanwhile."""
    a = start_replica(redis_url=redis_server.url)
    real = [(await asyncio.to_thread(post, a.url, deployment(f"real-{number}"))).json() for number in range(20)]
    b = start_replica(redis_url=redis_server.url)
    before, started = commands(redis_server), time.monotonic()
    paths = [f"/deployments/made-up-{number}/production/latest" for number in range(4 * DOUBTFUL_READS)]
    statuses: list[int] = []
    async with httpx.AsyncClient(base_url=b.url, timeout=30, limits=httpx.Limits(max_connections=100)) as client:

        async def ask(path: str) -> None:
            statuses.append((await client.get(path)).status_code)

        flood = asyncio.gather(*(ask(path) for path in paths))
        found = [await client.get(f"/deployments/{one['appName']}/production/latest") for one in real]
        await flood
    seconds = time.monotonic() - started

    assert set(statuses) == {404}
    assert [answer.json() for answer in found] == real
    # Two commands a question, and what the reconciles and the census of two replicas need.
    bound = DOUBTFUL_READS * (1 + seconds) + 2 * seconds / DOUBTFUL_INTERVAL + 60 * (1 + seconds)
    assert commands(redis_server, "zrange") - before < DOUBTFUL_READS * (1 + seconds) + 5 * len(real) * (1 + seconds)
    assert commands(redis_server) - before < bound


async def test_flood_of_made_up_names_is_not_kept(redis_server, start_replica):
    """Of names that requests asked for only so many stay in memory until the next reconcile."""
    replica = start_replica(redis_url=redis_server.url)
    most = 0
    async with httpx.AsyncClient(base_url=replica.url, timeout=30, limits=httpx.Limits(max_connections=50)) as client:
        for start in range(0, 2 * MAX_PASSING + 500, 250):
            paths = [f"/deployments/made-up-{number}/production" for number in range(start, start + 250)]
            await asyncio.gather(*(client.get(path) for path in paths))
            most = max(most, (await client.get("/readyz")).json()["channels"])

    assert most <= MAX_PASSING
