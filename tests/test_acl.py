"""The user of Redis that the README describes: it may do all that the hub does, and nothing else."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.parts import TOKEN, Listener, RedisServer, Replica, deployment, documented_user, eventually, post, reconciles

pytestmark = pytest.mark.anyio

STREAM = "/events/web/production?running=3f2c1ab~1"


@pytest.fixture(params=["0", "1"])
def database(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def redis_server(tmp_path: Path, database: str) -> Iterator[RedisServer]:
    """A redis-server with that user; in another database than 0 with what is said of those."""
    user = documented_user()
    if database != "0":
        user = [*(f"{rule}@{database}" if rule.startswith("&") else rule for rule in user), "+select"]
    server = RedisServer(tmp_path, user=user)
    server.url = server.url.removesuffix("/0") + f"/{database}"
    try:
        yield server.start()
    finally:
        server.kill()


def denied(redis_server: RedisServer) -> str:
    return redis_server.cli("ACL", "LOG")


async def use(redis_server: RedisServer, database: str, *replicas: Replica) -> None:
    """Do all that a hub does in Redis: record, repeat, watch, count, lead, forget, leave."""
    a, b = replicas
    # Recording takes away what stands above the records, and is none.
    redis_server.cli("-n", database, "ZADD", "vectr0:deployments:{web/production}", "9e15", "junk")
    await eventually(
        lambda: all(replica.health()["relay"]["state"] == "live" for replica in replicas), what="live relays"
    )
    waiting = await Listener.open(f"{a.url}/events/nobody/nowhere")
    await reconciles(a, 2)  # and before there is a board: then all names are read
    await waiting.close()
    listeners = [await Listener.open(f"{replica.url}{path}") for replica in replicas for path in (STREAM, "/events")]
    first = await asyncio.to_thread(post, a.url, key="k")
    repeat = await asyncio.to_thread(post, b.url, key="k")
    second = await asyncio.to_thread(post, b.url, deployment(version="2"))
    for listener in listeners:
        await listener.has(2)
    channel = f"{a.url}/deployments/web/production"
    async with asyncio.timeout(20), httpx.AsyncClient() as client:
        while (await client.get(f"{channel}/adoption")).json()["streams"] != 2:
            await asyncio.sleep(0.2)
    async with asyncio.timeout(20), httpx.AsyncClient() as client:
        while not (await client.get(f"{channel}/adoption")).json()["samples"]:
            await asyncio.sleep(0.2)
    for listener in listeners:
        await listener.close()
    await asyncio.to_thread(b.kill)  # which leaves its counts behind for the other to strike off
    forgotten = await asyncio.to_thread(httpx.delete, channel, headers={"Authorization": f"Bearer {TOKEN}"})

    assert (first.status_code, repeat.status_code, second.status_code) == (201, 200, 201)
    assert forgotten.status_code == 204


async def test_documented_user_suffices(redis_server, database, start_replica):
    """Hubs that run as this user are refused nothing, from the start to the end."""
    a, b = start_replica(redis_url=redis_server.url), start_replica(redis_url=redis_server.url)
    await use(redis_server, database, a, b)
    replicas = ("-n", database, "SCARD", "vectr0:replicas")
    await eventually(lambda: redis_server.cli(*replicas) in ("0", "1"), 60, "the end of the killed one's name")

    assert a.terminate() == 0
    assert denied(redis_server) == ""


async def test_documented_user_may_do_nothing_else(redis_server, database, start_replica):
    """Each command that the README lists is one that a hub sends."""
    a, b = start_replica(redis_url=redis_server.url), start_replica(redis_url=redis_server.url)
    await use(redis_server, database, a, b)
    allowed = [rule.removeprefix("+") for rule in redis_server.user if rule.startswith("+")]
    with suppress(AssertionError):  # what is missing is seen better below
        await eventually(lambda: unused(redis_server, allowed) == [], 30)

    assert unused(redis_server, allowed) == []


def unused(redis_server: RedisServer, commands: list[str]) -> list[str]:
    statistics = redis_server.cli("INFO", "commandstats")
    return [command for command in commands if f"cmdstat_{command}:" not in statistics]


@pytest.mark.parametrize("database", ["0"], indirect=True)
@pytest.mark.parametrize("pattern", ["&vectr0:*", "&vectr0:deployments:*", "&vectr0:deployments:{web/production}"])
async def test_pattern_that_is_not_the_literal_one(redis_server, start_replica, pattern):
    """Another pattern than the documented one is refused, and the log says which it has to be."""
    redis_server.cli("ACL", "SETUSER", "vectr0", "resetchannels", pattern)
    replica = start_replica(redis_url=redis_server.url)
    await eventually(lambda: replica.health()["relay"]["state"] == "polling", what="the relay's state polling")

    assert "the user's ACL needs &vectr0:deployments:{*}" in replica.log
    assert "vectr0:deployments" not in str(replica.health())


@pytest.mark.parametrize("database", ["0"], indirect=True)
async def test_user_who_may_not_ask_for_the_role(redis_server, start_replica):
    """Without ROLE it isn't known whether Redis is a replica, and taken for one that isn't."""
    redis_server.cli("ACL", "SETUSER", "vectr0", "-role")
    replica = start_replica(redis_url=redis_server.url)
    await eventually(lambda: replica.health()["relay"]["state"] == "live", what="a live relay")
    recorded = await asyncio.to_thread(post, replica.url)
    listed = await asyncio.to_thread(httpx.get, f"{replica.url}/deployments/web/production")

    assert recorded.status_code == 201
    assert listed.json() == {"deployments": [recorded.json()]}


@pytest.mark.parametrize("database", ["0"], indirect=True)
async def test_user_of_before_who_may_not_ask_for_names(redis_server, start_replica):
    """Without SMISMEMBER a stream on a name that nobody has recorded is read for, as any other."""
    redis_server.cli("ACL", "SETUSER", "vectr0", "-smismember")
    replica = start_replica(redis_url=redis_server.url)
    waiting = await Listener.open(f"{replica.url}/events/web/production")
    await reconciles(replica, 2)
    state = replica.health()["relay"]["state"]
    recorded = await asyncio.to_thread(post, replica.url)
    await waiting.has(1)
    await waiting.close()

    assert state == "live"
    assert waiting.deployments == [recorded.json()]
