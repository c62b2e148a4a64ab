"""What is asked of all channels at once: lists and boards, what they cost, and what they must not miss."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import orjson
import pytest
import redis

from tests.parts import TOKEN, Listener, Proxy, RedisServer, Replica, deployment, eventually

pytestmark = pytest.mark.anyio

CHANNELS = 60
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


def fill(server: RedisServer, channels: int = CHANNELS, kept: int = 10) -> list[int]:
    """Write histories as the service does, and return their ids."""
    ids: list[int] = []
    with redis.Redis(port=server.port) as client, client.pipeline(transaction=False) as pipe:
        for number in range(channels * kept):
            app, id_ = f"app-{number % channels}", 1_763_800_000_000 + number
            previous = id_ - channels if number >= channels else None
            fields = deployment(app, version=f"{number}.0.0", gitTag=f"v{number // channels}")
            record = {**fields, "deployedAt": id_, "previous": previous, "rollback": False}
            pipe.sadd("vectr0:channels", f"{app}/production")
            pipe.zadd(f"vectr0:deployments:{{{app}/production}}", {orjson.dumps(record): id_})
            ids.append(id_)
        pipe.execute()
    return ids


def reads(server: RedisServer) -> int:
    """How many sorted sets Redis was asked for."""
    _, _, calls = server.cli("INFO", "commandstats").partition("cmdstat_zrange:calls=")
    return int(calls.partition(",")[0] or 0)


@pytest.fixture
async def board() -> AsyncIterator[Callable[[Replica], Awaitable[Listener]]]:
    listeners: list[Listener] = []

    async def opened(replica: Replica) -> Listener:
        listeners.append(await Listener.open(f"{replica.url}/events"))
        return listeners[-1]

    yield opened
    for listener in listeners:
        await listener.close()


async def test_whatever_is_asked_is_one_pass_a_second(redis_server, start_replica, board):
    """Hundreds of lists with all kinds of filters, and boards that come and go, cost no more than a pass a second."""
    ids = fill(redis_server)
    replica = start_replica(redis_url=redis_server.url)
    queries = ["", "?limit=1", "?limit=1000", "?appName=app-7", "?environment=none", "?gitTag=v3", "?gitTag=none"]
    before, started, newest = reads(redis_server), time.monotonic(), ids[-1]
    async with httpx.AsyncClient(base_url=replica.url, timeout=30) as client:
        for _ in range(3):
            answers = await asyncio.gather(
                *(
                    client.request(method, f"/deployments{query}")
                    for query in queries
                    for method in ("GET", "HEAD") * 10
                )
            )
            assert {answer.status_code for answer in answers} == {200}
            for _ in range(10):
                await (await board(replica)).close()
    passes = 2 + (time.monotonic() - started)

    assert answers[0].json()["deployments"][0]["deployedAt"] == newest
    assert reads(redis_server) - before <= passes * CHANNELS + CHANNELS  # each channel's history is read once


async def test_what_is_listed_is_what_is_there(redis_server, start_replica):
    """Every list is the newest of all records, newest first, whatever is in memory already."""
    ids = fill(redis_server)
    replica = start_replica(redis_url=redis_server.url)
    async with httpx.AsyncClient(base_url=replica.url) as client:

        async def listed(query: str) -> list[int]:
            answer = await client.get(f"/deployments?{query}")
            return [entry["deployedAt"] for entry in answer.json()["deployments"]]

        assert await listed("limit=1") == ids[:-2:-1]
        assert await listed("limit=77") == ids[:-78:-1]
        assert await listed("limit=1000") == ids[::-1]
        assert await listed("gitTag=v3&limit=5") == ids[3 * CHANNELS : 4 * CHANNELS][:-6:-1]
        assert await listed("appName=app-5") == ids[5::CHANNELS][::-1]
        assert await listed("appName=app-5&gitTag=v0") == [ids[5]]
        assert await listed("limit=100&environment=none") == []


async def test_who_records_finds_it_listed(redis_server, start_replica):
    """A list that is asked for after a posting's answer has it, also where nothing is heard of it; so a deletion."""
    fill(redis_server, channels=3)
    proxy = Proxy(redis_server.port).start()
    proxy.deaf = True
    try:
        replica = start_replica(redis_url=proxy.url)
        async with httpx.AsyncClient(base_url=replica.url, headers=HEADERS, timeout=20) as client:
            for number in range(30):
                app = f"app-{number % 5}"
                posted = await client.post("/deployments", json=deployment(app, version=f"{number}.1.0"))
                assert posted.status_code == 201
                newest, again = await asyncio.gather(
                    client.get("/deployments?limit=1"), client.get(f"/deployments?appName={app}")
                )

                assert newest.json()["deployments"] == [posted.json()]
                assert again.json()["deployments"][0] == posted.json()
            assert (await client.delete("/deployments/app-4/production")).status_code == 204
            assert (await client.get("/deployments?appName=app-4")).json() == {"deployments": []}
    finally:
        proxy.stop()


async def test_what_others_record_is_listed(redis_server, start_replica):
    """A list has what was recorded elsewhere, within the two seconds for which one pass does for all."""
    one, other = (start_replica(redis_url=redis_server.url) for _ in range(2))
    async with httpx.AsyncClient(headers=HEADERS) as client:
        assert (await client.get(f"{one.url}/deployments")).json() == {"deployments": []}
        posted = (await client.post(f"{other.url}/deployments", json=deployment())).json()

        def is_listed() -> bool:
            listed: dict[str, object] = httpx.get(f"{one.url}/deployments").json()
            return listed == {"deployments": [posted]}

        await eventually(is_listed, what="what the other has recorded")


async def test_what_nobody_recorded_is_not_listed(redis_server, start_replica):
    """What somebody wrote into Redis that is no record is in no list, however new it says that it is."""
    ids = fill(redis_server, channels=3, kept=2)
    redis_server.cli("ZADD", "vectr0:deployments:{app-1/production}", str(ids[-1] + 10), '{"gitTag":"v1"')
    redis_server.cli("SADD", "vectr0:channels", "made/up", "none")
    replica = start_replica(redis_url=redis_server.url)
    async with httpx.AsyncClient(base_url=replica.url) as client:
        answers = [(await client.get(f"/deployments{query}")).json() for query in ("", "?gitTag=v1", "?limit=1")]

    assert [[entry["deployedAt"] for entry in answer["deployments"]] for answer in answers[:2]] == [
        ids[::-1],
        ids[:2:-1],
    ]
    assert len(answers[2]["deployments"]) <= 1


async def test_a_board_finds_what_the_one_before_it_found(redis_server, start_replica, board):
    """A page that is loaded again reads nothing: all channels stay for a while."""
    ids = fill(redis_server)
    replica = start_replica(redis_url=redis_server.url)
    first = await board(replica)
    await first.has(CHANNELS)
    await first.close()
    before, started = reads(redis_server), time.monotonic()
    again = [await board(replica) for _ in range(20)]
    for one in again:
        await one.has(CHANNELS)
    reconciles = 1 + (time.monotonic() - started) / 3

    assert all(one.ids == ids[-CHANNELS:] for one in again)
    assert reads(redis_server) - before <= reconciles * CHANNELS


async def test_boards_are_limited(redis_server, start_replica, board):
    """One board too many gets all that a board starts with, a long retry, and a clean end; streams are no boards."""
    ids = fill(redis_server, channels=300, kept=1)
    replica = start_replica(redis_url=redis_server.url, max_boards="2")
    kept = [await board(replica) for _ in range(2)]
    assert replica.metric("vectr0_boards") == 2
    over = await board(replica)
    await eventually(lambda: over.ended, what="its end")
    assert replica.metric("vectr0_boards") == 2
    stream = await Listener.open(f"{replica.url}/events/app-1/production")
    await stream.has(1)
    await stream.close()

    assert over.status == 200
    assert over.ids == ids
    assert 15_000 <= over.retries[0] <= 60_000
    assert not any(one.ended for one in kept)
    assert replica.metric('vectr0_streams_closed_total{reason="over-limit"}') == 1
    await kept[0].close()

    async def has_place() -> bool:
        one: Listener = await board(replica)
        await one.has(300)
        [retry] = one.retries
        return 1000 <= retry <= 5000

    deadline = time.monotonic() + 10
    while not await has_place():
        assert time.monotonic() < deadline


def unread_board(replica: Replica) -> socket.socket:
    """Ask for a board, and read nothing."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.settimeout(30)
    connection.connect(("127.0.0.1", replica.port))
    connection.sendall(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
    return connection


def read_to_end(connection: socket.socket) -> bytes:
    """Read all that comes."""
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


async def test_boards_over_the_limit_are_no_streams(redis_server, start_replica, board):
    """Boards that are too many and aren't read take nobody's place, few are sent it all, and each ends cleanly."""
    fill(redis_server, channels=10_000, kept=1)
    replica = start_replica(redis_url=redis_server.url, max_boards="2", max_streams="10")
    kept = [await board(replica) for _ in range(2)]
    for one in kept:
        await one.has(10_000)
    over = [unread_board(replica) for _ in range(40)]
    try:
        await eventually(lambda: replica.metric("vectr0_streams_opened_total") == 42, what="the answers")
        streams = replica.health()["streams"]
        tab = await Listener.open(f"{replica.url}/events/app-1/production")
        await tab.has(1)
        await tab.close()
        answers = [await asyncio.to_thread(read_to_end, connection) for connection in over]
    finally:
        for connection in over:
            connection.close()

    assert streams == 2
    assert tab.retries[0] <= 5000
    assert not any(one.ended for one in kept)
    assert all(answer.startswith(b"HTTP/1.1 200 OK\r\n") for answer in answers)
    assert all(answer.endswith(b"\r\n0\r\n\r\n") for answer in answers)
    assert all(int(answer.partition(b"retry: ")[2][:5]) >= 15_000 for answer in answers)
    assert any(b"event: deployment" in answer for answer in answers)
    assert any(b"event: ping" in answer and b"event: deployment" not in answer for answer in answers)
    assert replica.metric('vectr0_streams_closed_total{reason="over-limit"}') == 40


async def test_a_board_over_the_limit_without_chunks(redis_server, start_replica, board):
    """In HTTP/1.0, which has no chunks, one that is too many gets the newest of it all in one piece."""
    ids = fill(redis_server, channels=60, kept=1)
    replica = start_replica(redis_url=redis_server.url, max_boards="1")
    await (await board(replica)).has(60)
    with socket.create_connection(("127.0.0.1", replica.port), timeout=30) as connection:
        connection.sendall(b"GET /events HTTP/1.0\r\n\r\n")
        head, _, body = (await asyncio.to_thread(read_to_end, connection)).partition(b"\r\n\r\n")

    retry, *events, rest = body.decode().split("\n\n")
    assert b"transfer-encoding" not in head.lower()
    assert 15_000 <= int(retry.removeprefix("retry: ")) <= 60_000
    assert [orjson.loads(event.partition("data: ")[2])["deployedAt"] for event in events] == ids[-50:]
    assert rest == ""


async def test_made_up_names_go_while_redis_is_away(redis_server, start_replica, board):
    """Names that nobody recorded cost nothing once their streams are gone, also with a board and without Redis."""
    fill(redis_server, channels=3, kept=1)
    replica = start_replica(redis_url=redis_server.url)
    await (await board(replica)).has(3)
    redis_server.kill()
    await eventually(lambda: replica.health()["relay"]["state"] == "down", what="that it is noticed")
    streams = [await Listener.open(f"{replica.url}/events/made/up-{number}") for number in range(50)]
    assert replica.health()["channels"] == 53
    for stream in streams:
        await stream.close()

    await eventually(lambda: replica.health()["channels"] == 3, what="that they are let go")
