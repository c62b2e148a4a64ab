"""Two replicas' censuses on one Redis, embedded; turns are taken by hand."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from fakeredis import FakeAsyncRedis, FakeServer

from service import census as census_module
from service.adoption import Adoption
from service.build import Build
from service.bulletin import Bulletin
from service.census import Census
from service.channel import Channel
from service.channels import Channels
from service.connections import Connections
from service.deployment import ChannelName, Deployment
from service.inquiry import FRESH, STALE_AFTER
from service.metrics import Metrics
from service.roll import LIFETIME_MS, Roll
from service.store import Store
from tests.parts import deployment

pytestmark = pytest.mark.anyio

WEB = ChannelName("web/production")
ONE, TWO = Build("1111111", 1), Build("2222222", 2)


class Clock:
    """Time, passed by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Watcher:
    """A board that reads the bulletin whenever it is told to."""

    def __init__(self, bulletin: Bulletin) -> None:
        self.bulletin = bulletin
        self.number = 0
        self.heard: list[dict[str, Any]] = []

    def read_news(self) -> int:
        return 0

    def read_bulletin(self) -> None:
        for note in self.bulletin.after(self.number):
            self.number = note.number
            self.heard.append(orjson.loads(note.frame.event.split(b"data: ")[1]))


class Replica:
    """One replica's channels and census."""

    def __init__(self, server: FakeServer, name: str) -> None:
        self.clock = Clock()
        self.metrics = Metrics()
        self.channels = Channels(lambda call: call(), self.clock, self.metrics)
        redis = FakeAsyncRedis(server=server)
        self.store = Store(Connections(redis, redis), "vectr0")
        self.census = Census(Roll(self.store, name), self.channels, self.metrics, self.clock)
        self.streams: list[Any] = []

    def knows(self, *deployments: Deployment, name: ChannelName = WEB) -> Channel:
        """Have a channel in memory."""
        channel = self.channels.open(name)
        channel.replace(deployments)
        return channel

    def opens(self, *builds: Build | None, name: ChannelName = WEB) -> list[Any]:
        """Open a stream for each build."""
        channel = self.channels.open(name)
        return [SimpleNamespace(channel=channel, tally=channel.tallies.enter(build)) for build in builds]

    async def turn(self, seconds: float = 2.0) -> None:
        self.clock.now += seconds
        await self.census._turn()

    async def adoption(self, name: ChannelName = WEB) -> tuple[Adoption, bool]:
        """Ask, later than an earlier answer would do."""
        self.clock.now += FRESH + 0.1
        channel = self.channels.open(name)
        answer, is_stale = await self.census.inquiries.ask(channel)
        return Adoption.of(answer.counts, census_module.kept(channel)), is_stale

    def board(self) -> Watcher:
        watcher = Watcher(self.census.bulletin)
        self.channels.add_watcher(watcher)
        return watcher


def close(streams: list[Any]) -> None:
    for stream in streams:
        stream.channel.tallies.leave(stream.tally)


def record(at: int, build: Build, app: str = "web") -> Deployment:
    fields = deployment(app, gitCommit=build.commit, buildNumber=build.number)
    return Deployment.from_json(orjson.dumps({**fields, "deployedAt": at, "previous": None, "rollback": False}))


FIRST, SECOND = record(1000, ONE), record(2000, TWO)


@pytest.fixture
def server() -> FakeServer:
    """The Redis."""
    return FakeServer(server_type="redis")


@pytest.fixture
async def replicas(server: FakeServer) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two replicas that know a channel with two deployments."""
    found = Replica(server, "a"), Replica(server, "b")
    for replica in found:
        replica.knows(FIRST, SECOND)
    yield found
    for replica in found:
        await replica.store.aclose()


async def test_replicas_see_each_other(replicas):
    """Each replica answers with the sum of all."""
    a, b = replicas
    a.opens(ONE, ONE, TWO)
    b.opens(TWO, None)
    for replica in replicas:
        await replica.turn()

    for replica in replicas:
        found, is_stale = await replica.adoption()
        assert found.deployments == ((2000, 2), (1000, 2))
        assert found.unknown == 1
        assert not is_stale


async def test_what_changes_follows(replicas):
    """After a turn of the one the other has its new numbers, and no longer those that went."""
    a, b = replicas
    streams = a.opens(ONE, ONE)
    await a.turn()
    close(streams[:1])
    a.opens(TWO)
    await a.turn()
    assert (await b.adoption())[0].deployments == ((2000, 1), (1000, 1))
    close(streams[1:])
    await a.turn()

    assert (await b.adoption())[0].deployments == ((2000, 1), (1000, 0))


async def test_only_changes_are_written(replicas, monkeypatch):
    """A turn writes the channels that have changed, and takes away those that have none any more."""
    a, _ = replicas
    a.knows(FIRST, name=ChannelName("api/production"))
    api = a.opens(ONE, name=ChannelName("api/production"))
    a.opens(ONE)
    written = []
    exchange = a.census._roll.exchange

    async def noted(changed: Any, gone: Any, count: int, **options: Any) -> Any:
        written.append((sorted(changed), sorted(gone), count))
        return await exchange(changed, gone, count, **options)

    monkeypatch.setattr(a.census._roll, "exchange", noted)
    await a.turn()
    await a.turn()
    close(api)
    await a.turn()

    assert written == [(["api/production", WEB], [], 2), ([], [], 2), ([], ["api/production"], 1)]


async def test_dead_replica_leaves_the_count(replicas):
    """What a replica wrote expires ten seconds after its last turn."""
    a, b = replicas
    a.opens(ONE)
    await a.turn()
    redis = a.store._redis

    assert 9_000 < await redis.pttl("vectr0:replicas:a") <= LIFETIME_MS
    await redis.delete("vectr0:replicas:a")
    assert (await b.adoption())[0].streams == 0


async def test_dead_replica_is_struck_off(replicas):
    """The one that reads all forgets a replica that it found empty twice."""
    a, b = replicas
    a.opens(ONE)
    await a.turn()
    b.board()
    redis = a.store._redis
    await redis.delete("vectr0:replicas:a")
    await b.turn()
    assert await redis.smembers("vectr0:replicas") == {b"a"}
    await b.turn()
    assert await redis.smembers("vectr0:replicas") == set()
    await a.turn()
    await a.turn()

    assert await redis.smembers("vectr0:replicas") == {b"a"}
    assert (await b.adoption())[0].streams == 1


async def test_lost_counts_are_written_again(replicas):
    """Where Redis has forgotten everything, the turn after the next has it all again."""
    a, b = replicas
    a.opens(ONE, TWO)
    await a.turn()
    await a.store._redis.flushall()
    await a.turn()
    await a.turn()

    assert (await b.adoption())[0].streams == 2


async def test_other_counts_are_written_over(replicas, monkeypatch):
    """Where Redis went back to other numbers of as many channels, they are right again after some turns."""
    monkeypatch.setattr(census_module, "WHOLE_EVERY", 3)
    a, b = replicas
    a.opens(ONE, TWO)
    await a.turn()
    await a.store._redis.hset("vectr0:replicas:a", WEB, b'{"1111111~1":77}')
    for _ in range(3):
        await a.turn()

    assert (await b.adoption())[0].streams == 2


async def test_leaving(replicas):
    """A replica that is shut down takes its counts away at once, and its turn to keep the curves."""
    a, b = replicas
    a.opens(ONE)
    await a.turn()
    await a.census.leave()
    assert await a.store._redis.keys("vectr0:replicas*") == []
    assert await a.store._redis.get("vectr0:census") is None

    await b.turn()
    assert b.census._leads


async def test_leaving_while_redis_is_away(replicas, server):
    """Nobody waits for a Redis that isn't there."""
    a, _ = replicas
    a.opens(ONE)
    await a.turn()
    server.connected = False
    await a.turn()
    await a.census.leave()

    server.connected = True
    assert await a.store._redis.exists("vectr0:replicas:a")


async def test_channels_that_nobody_recorded_stay_here(replicas):
    """A name that somebody made up gets nowhere; its streams count in the metrics alone."""
    a, _ = replicas
    made_up = ChannelName("made/up")
    a.knows(name=made_up)
    a.opens(ONE, None, name=made_up)
    a.board()
    await a.turn()

    assert await a.store._redis.keys("vectr0:replicas*") == []
    assert a.metrics.running.labels("other")._value.get() == 1
    assert a.metrics.running.labels("unknown")._value.get() == 1


async def test_metrics(replicas):
    """The gauges show this replica's streams by what they run, over all channels."""
    a, b = replicas
    streams = a.opens(ONE, ONE, TWO, None, Build("3333333", 3))
    b.opens(ONE)
    await b.turn()
    await a.turn()
    assert [a.metrics.running.labels(build)._value.get() for build in ("newest", "older", "other", "unknown")] == [
        1, 2, 1, 1,
    ]  # fmt: skip
    close(streams)
    await a.turn()

    assert [a.metrics.running.labels(build)._value.get() for build in ("newest", "older")] == [0, 0]


# Redis away


async def test_numbers_of_then_while_redis_is_away(replicas, server):
    """While Redis is away the last known numbers are given; after two turns they are marked as old."""
    a, b = replicas
    a.opens(ONE)
    b.opens(TWO)
    for replica in replicas:
        await replica.turn()
    before, is_stale = await a.adoption()
    assert not is_stale
    server.connected = False
    a.clock.now += STALE_AFTER

    assert await a.adoption() == (before, True)
    server.connected = True
    await a.turn()
    b.opens(TWO)
    await b.turn()
    found, is_stale = await a.adoption()
    assert (found.newest, is_stale) == (2, False)


async def test_redis_that_was_never_there(replicas, server):
    """Where nothing was ever read, a replica's own streams are given, and are old."""
    a, _ = replicas
    server.connected = False
    a.opens(ONE)
    await a.turn()
    found, is_stale = await a.adoption()

    assert (found.streams, is_stale) == (1, True)


async def test_one_read_serves_all(replicas, monkeypatch):
    """Many questions in a moment are one read, and while Redis is away one in two seconds."""
    a, _ = replicas
    reads = []
    read_channel = a.census._roll.read_channel

    async def noted(channel: Any) -> Any:
        reads.append(channel)
        return await read_channel(channel)

    monkeypatch.setattr(a.census._roll, "read_channel", noted)
    channel = a.channels.open(WEB)
    for _ in range(5):
        await a.census.inquiries.ask(channel)

    assert reads == [WEB]


async def test_a_slow_read_holds_no_other_channel(replicas, monkeypatch):
    """Who asks for a channel doesn't wait for the read of another."""
    a, _ = replicas
    api = ChannelName("api/production")
    a.knows(record(1000, ONE, "api"), name=api)
    began, released = asyncio.Event(), asyncio.Event()
    read_channel = a.census._roll.read_channel

    async def slow(channel: Any) -> Any:
        if channel == WEB:
            began.set()
            await released.wait()
        return await read_channel(channel)

    monkeypatch.setattr(a.census._roll, "read_channel", slow)
    waiting = asyncio.create_task(a.census.inquiries.ask(a.channels.open(WEB)))
    await began.wait()
    async with asyncio.timeout(10):
        answer, is_stale = await a.census.inquiries.ask(a.channels.open(api))
    is_waiting = not waiting.done()
    released.set()
    await waiting

    assert is_waiting
    assert (answer.as_of is None, is_stale) == (False, False)


async def test_all_channels_at_once(replicas, monkeypatch):
    """What runs everywhere, over all replicas, is one read in two seconds for all who ask."""
    a, b = replicas
    api = ChannelName("api/production")
    for replica in replicas:
        replica.knows(record(1000, ONE, "api"), name=api)
    a.opens(ONE, TWO)
    b.opens(ONE)
    b.opens(ONE, None, name=api)
    a.opens(ONE, name=ChannelName("made/up"))
    await b.turn()
    reads = []
    read_all = a.census._roll.read_all

    async def noted() -> Any:
        reads.append(1)
        return await read_all()

    monkeypatch.setattr(a.census._roll, "read_all", noted)
    answers = await asyncio.gather(*(a.census.inquiries.ask_for_all() for _ in range(50)))
    overview, is_stale = answers[0]
    a.clock.now += FRESH + 1
    await a.census.inquiries.ask_for_all()

    assert overview.counts == {WEB: {"1111111~1": 2, "2222222~2": 1}, api: {"1111111~1": 1, "": 1}}
    assert not is_stale
    assert len(reads) == 2


async def test_all_channels_while_redis_is_away(replicas, server):
    """Without Redis it is what was known, as old; and where nothing was, what this replica counts."""
    a, b = replicas
    a.opens(ONE)
    b.opens(TWO)
    await b.turn()
    await a.census.inquiries.ask_for_all()
    server.connected = False
    for replica in replicas:
        replica.clock.now += STALE_AFTER + 1
    (of_a, a_is_old), (of_b, b_is_old) = [await one.census.inquiries.ask_for_all() for one in replicas]

    assert (of_a.counts[WEB], a_is_old) == ({"1111111~1": 1, "2222222~2": 1}, True)
    assert (of_b.counts[WEB], of_b.as_of, b_is_old) == ({"2222222~2": 1}, None, True)


# Boards


async def test_a_board_is_told_what_changed(replicas):
    """A board hears of every channel, then of those that have changed; what is as it was isn't said again."""
    a, b = replicas
    for replica in replicas:
        replica.knows(record(500, ONE, "api"), name=ChannelName("api/production"))
    a.opens(ONE)
    await a.turn()
    board = b.board()
    await b.turn()
    assert sorted(note["appName"] for note in board.heard) == ["api", "web"]
    await b.turn()
    assert len(board.heard) == 2
    a.opens(TWO)
    await a.turn()
    await b.turn()

    [*_, note] = board.heard
    assert len(board.heard) == 3
    assert note.pop("asOf") > 1_700_000_000_000
    assert note == {
        "appName": "web", "environment": "production", "stale": False, "since": 2000, "streams": 2, "newest": 1,
        "other": 0, "unknown": 0, "share": 0.5,
        "deployments": [{"deployedAt": 2000, "streams": 1}, {"deployedAt": 1000, "streams": 1}],
    }  # fmt: skip


async def test_a_deployment_is_a_change(replicas):
    """A new newest deployment is told, though nobody has moved."""
    a, _ = replicas
    a.opens(TWO)
    board = a.board()
    await a.turn()
    a.knows(FIRST, SECOND, record(3000, ONE))
    await a.turn()

    assert [(note["since"], note["newest"], note["share"]) for note in board.heard] == [(2000, 1, 1.0), (3000, 0, 0.0)]


async def test_a_second_board_reads_what_is_there(replicas):
    """One that comes later gets the latest of each channel, once."""
    a, _ = replicas
    a.board()
    await a.turn()
    a.opens(TWO)
    await a.turn()
    board = a.board()
    board.read_bulletin()
    await a.turn()

    assert [note["streams"] for note in board.heard] == [1]


async def test_a_board_is_told_that_redis_is_away(replicas, server):
    """After two turns without Redis each channel's numbers are told as old, once, and as good when it is back."""
    a, _ = replicas
    a.opens(TWO)
    board = a.board()
    await a.turn()
    as_of = board.heard[0]["asOf"]
    server.connected = False
    await a.turn()
    assert len(board.heard) == 1
    for _ in range(4):
        await a.turn()
    assert [(note["stale"], note["asOf"]) for note in board.heard[1:]] == [(True, as_of)]
    server.connected = True
    await a.turn()

    assert [note["stale"] for note in board.heard] == [False, True, False]


async def test_forgotten_channel_is_not_told(replicas):
    """Of a channel that has no deployment any more nothing stands there for boards that come later."""
    a, _ = replicas
    a.board()
    a.opens(TWO)
    await a.turn()
    a.knows()
    await a.turn()

    assert a.census.bulletin.after(0) == []


async def test_without_boards_nothing_is_read(replicas, monkeypatch):
    """A replica that nobody watches, and that doesn't keep the curves, reads no other's counts."""
    a, b = replicas
    a.opens(ONE)
    await a.turn()
    reads = []
    read = b.census._roll.read

    async def noted(replica: str) -> Any:
        reads.append(replica)
        return await read(replica)

    monkeypatch.setattr(b.census._roll, "read", noted)
    await b.turn()
    assert reads == []
    b.board()
    await b.turn()

    assert reads == ["a"]


# Curves


async def test_one_replica_keeps_the_curves(replicas):
    """Of several replicas one, and only one, keeps the curves; another goes on with them when it is gone."""
    a, b = replicas
    b.opens(ONE)
    for _ in range(2):
        await b.turn()
        await a.turn()
    assert (a.census._leads, b.census._leads) == (False, True)
    answer, _ = await a.census.inquiries.ask(a.channels.open(WEB))
    assert [sample[1:] for sample in answer.curve.samples] == [(0, 1, 0)]
    await b.census.leave()
    await a.turn()

    assert a.census._leads
    a.clock.now += FRESH + 1
    answer, _ = await a.census.inquiries.ask(a.channels.open(WEB))
    assert len(answer.curve.samples) >= 1
    assert answer.curve.samples[0][1:] == (0, 1, 0)


async def test_curve_of_a_channel_that_only_others_have(replicas):
    """The one that keeps the curves has other replicas' channels read, and keeps theirs, too."""
    a, b = replicas
    api = ChannelName("api/production")
    a.opens(ONE)
    await a.turn()
    b.knows(record(1000, ONE, "api"), name=api)
    b.opens(ONE, name=api)
    await b.turn()
    await a.turn()
    [channel] = await a.channels.unread(10)
    assert channel.name == api
    channel.replace([record(1000, ONE, "api")])
    await a.turn()

    answer, _ = await b.census.inquiries.ask(b.channels.open(api))
    assert [sample[1:] for sample in answer.curve.samples] == [(1, 1, 0)]


async def test_channel_that_nobody_is_on_may_leave_memory(replicas):
    """The census keeps a channel in memory only while another replica has streams on it."""
    a, b = replicas
    await a.turn()
    streams = b.opens(ONE)
    await b.turn()
    for _ in range(200):
        await a.turn()
        await a.channels.let_go()
    assert a.channels.get(WEB)
    close(streams)
    await b.turn()
    for _ in range(200):
        await a.turn()
        await a.channels.let_go()

    assert a.channels.get(WEB) is None


async def test_curve_of_a_forgotten_channel(replicas):
    """It goes with the channel."""
    a, _ = replicas
    a.opens(ONE)
    await a.turn()
    assert await a.store._redis.exists("vectr0:adoption:{web/production}")
    a.knows()
    await a.turn()

    assert not await a.store._redis.exists("vectr0:adoption:{web/production}")


@pytest.mark.parametrize("value", [b"x", b"[]", b'{"1111111~1":"many"}', b"\xff"])
async def test_what_others_put_there(replicas, value):
    """Whatever somebody else has written into a replica's counts ends nothing, and counts nothing."""
    a, b = replicas
    a.opens(ONE)
    await a.turn()
    redis = a.store._redis
    await redis.hset("vectr0:replicas:x", mapping={WEB: value, b"\xff/\xff": b'{"":1}'})
    await redis.sadd("vectr0:replicas", "x", b"\xff")
    board = b.board()
    await b.turn()

    assert (await b.adoption())[0].streams == 1
    assert board.heard[-1]["streams"] == 1
