"""What Redis can do to the service: real faults, under open streams, while deployments are being posted."""

import asyncio
import json
import math
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from service.deployment import KEPT
from tests.certificates import Authority
from tests.parts import (
    Listener,
    Proxy,
    RedisServer,
    Replica,
    deployment,
    documented_user,
    eventually,
    free_port,
    post,
    url_of,
)

pytestmark = pytest.mark.anyio

CHANNELS = ("web/production", "api/staging")
HISTORY_READ = b"\r\n$3\r\n-10\r\n"
"""What only a read of a channel's ten has in it, on the wire."""

Listen = Callable[..., Awaitable[Listener]]


@pytest.fixture(params=["redis", "rediss"])
def authority(request: pytest.FixtureRequest, tmp_path: Path) -> Authority | None:
    """Whose certificates the service meets Redis with: every fault comes over TCP, and over TLS."""
    return Authority(tmp_path) if request.param == "rediss" else None


@pytest.fixture
def redis_server(tmp_path: Path, authority: Authority | None) -> Iterator[RedisServer]:
    """A redis-server that runs, and the user that the README describes."""
    server = RedisServer(tmp_path, authority, documented_user()).start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def proxy(redis_server: RedisServer, authority: Authority | None) -> Iterator[Proxy]:
    """A proxy before the Redis that runs."""
    proxy = Proxy(redis_server.port, authority, redis_server.credentials).start()
    try:
        yield proxy
    finally:
        proxy.stop()


@pytest.fixture
def other_redis_server(redis_server: RedisServer, tmp_path: Path, authority: Authority | None) -> Iterator[RedisServer]:
    """A second redis-server, which follows the first."""
    folder = tmp_path / "other"
    folder.mkdir()
    server = RedisServer(folder, authority, redis_server.user).start(
        "--replicaof", "127.0.0.1", str(redis_server.port), "--repl-diskless-sync-delay", "0"
    )
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
async def listen() -> AsyncIterator[Listen]:
    """Open a stream, of one channel or of all, and wait for its first event; all are closed at the end."""
    listeners: list[Listener] = []

    async def opened(replica: Replica, last_event_id: int | str | None = None, channel: str | None = "web/production"):
        path = f"/events/{channel}" if channel else "/events"
        listener = await Listener.open(replica.url + path, last_event_id)
        listeners.append(listener)
        assert listener.status == 200
        await eventually(lambda: listener.events, what="the first event")
        return listener

    yield opened
    for listener in listeners:
        await listener.close()


def key_of(channel: str) -> str:
    return f"vectr0:deployments:{{{channel}}}"


async def record(replica: Replica, version: str, channel: str = "web/production", key: str | None = None) -> Any:
    """Post a deployment that is new, and give its record."""
    app, environment = channel.split("/")
    response = await asyncio.to_thread(post, replica.url, deployment(app, environment, version=version), key=key)
    assert response.status_code == 201, response.text
    return response.json()


async def latest(replica: Replica, channel: str = "web/production") -> httpx.Response:
    return await asyncio.to_thread(httpx.get, f"{replica.url}/deployments/{channel}/latest")


async def latest_is(replica: Replica, status: int, channel: str) -> None:
    async with asyncio.timeout(10):
        while (await latest(replica, channel)).status_code != status:
            await asyncio.sleep(0.05)


def contents(redis_server: RedisServer) -> list[str]:
    """All that is stored about the channels, and how often something was published.

    Who runs what is left out: that is written all the time.
    """
    counted = ("vectr0:replicas", "vectr0:census", "vectr0:adoption")
    keys = sorted(key for key in redis_server.cli("KEYS", "*").split() if not key.startswith(counted))
    histories = [redis_server.cli("ZRANGE", key_of(channel), "0", "-1", "WITHSCORES") for channel in CHANNELS]
    statistics = redis_server.cli("INFO", "commandstats").splitlines()
    return [*keys, *histories, *(line.split(",")[0] for line in statistics if line.startswith("cmdstat_publish:"))]


def fail_over(old: RedisServer, new: RedisServer) -> None:
    """Let the other one take the writes, once it has all; the old one takes none, and hears of none."""
    assert old.cli("WAIT", "1", "5000") == "1"
    old.cli("REPLICAOF", "127.0.0.1", str(free_port()))
    new.cli("REPLICAOF", "NO", "ONE")


async def comes_to(listener: Listener, deployment: dict[str, Any]) -> None:
    """Wait until this is the last deployment that a stream brought."""
    await eventually(lambda: listener.deployments[-1:] == [deployment], what=f"deployment {deployment['deployedAt']}")


async def relay_is(replica: Replica, state: str, timeout: float = 10) -> None:
    await eventually(lambda: replica.health()["relay"]["state"] == state, timeout, f"the relay's state {state}")


def assert_refused(response: httpx.Response) -> None:
    assert response.status_code == 503, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert int(response.headers["retry-after"]) > 0
    assert response.elapsed.total_seconds() < 3


def assert_log(replica: Replica, changes: int) -> None:
    """Find nothing alarming in a log, and at most so many lines about Redis after the first."""
    lines = [line for line in replica.log.splitlines() if "vectr0.relay" in line]
    assert len(lines) <= changes + 1, lines
    assert not any(word in replica.log for word in ("Traceback", "ERROR", "CRITICAL")), replica.log


@dataclass
class Posted:
    version: str
    response: httpx.Response
    answered_at: float

    @property
    def id(self) -> int | None:
        """The deployment's id, if it was recorded."""
        return self.response.json()["deployedAt"] if self.response.status_code == 201 else None


class Traffic:
    """Streams of two channels and of all on each replica, and deployments posted to the replicas in turn.

    Each deployment of a channel is another version, so what arrives can be told from what was answered.
    """

    def __init__(self, listen: Listen, *replicas: Replica) -> None:
        self._listen = listen
        self.replicas = replicas
        self.posted: dict[str, list[Posted]] = {channel: [] for channel in CHANNELS}
        self.streams: list[tuple[Replica, tuple[str, ...], Listener]] = []
        self.recovered_at = time.monotonic()
        """When the last fault was over: from then on nothing takes longer than 10 s."""

    @classmethod
    async def begin(cls, listen: Listen, *replicas: Replica) -> Self:
        """Post a first deployment to each channel, and open the streams."""
        traffic = cls(listen, *replicas)
        for channel in CHANNELS:
            await traffic.post(channel)
        for replica in replicas:
            for watched in (*CHANNELS, *CHANNELS, None):
                await traffic.open(replica, watched)
            await relay_is(replica, "live")
        return traffic

    async def open(self, replica: Replica, channel: str | None) -> Listener:
        """Open a stream of a channel, or of all, that is checked with the others."""
        listener = await self._listen(replica, channel=channel)
        self.streams.append((replica, (channel,) if channel else CHANNELS, listener))
        return listener

    async def post(self, channel: str) -> Posted:
        """Post the channel's next version, to the next replica."""
        number = len(self.posted[channel])
        app, environment = channel.split("/")
        replica = self.replicas[number % len(self.replicas)]
        response = await asyncio.to_thread(post, replica.url, deployment(app, environment, version=f"{number}"))
        posted = Posted(f"{number}", response, time.monotonic())
        self.posted[channel].append(posted)
        return posted

    @asynccontextmanager
    async def posting(self, interval: float = 0.3) -> AsyncIterator[None]:
        """Post to every channel in this interval, one after another."""
        stopping = asyncio.Event()

        async def post_on(channel: str) -> None:
            while not stopping.is_set():
                await self.post(channel)
                with suppress(TimeoutError):
                    async with asyncio.timeout(interval):
                        await stopping.wait()

        async with asyncio.TaskGroup() as tasks:
            for channel in CHANNELS:
                tasks.create_task(post_on(channel))
            try:
                yield
            finally:
                stopping.set()

    async def answers(self, status: int, count: int = 1, timeout: float = 10) -> None:
        """Wait until so many that are posted from now on are answered so, on each channel."""
        before = {channel: len(posted) for channel, posted in self.posted.items()}

        def has_come(channel: str) -> bool:
            answers = [posted.response.status_code for posted in self.posted[channel][before[channel] :]]
            return answers.count(status) >= count

        await eventually(lambda: all(map(has_come, CHANNELS)), timeout, f"an answer {status} on each channel")

    async def flows(self) -> None:
        """Wait until every stream has a deployment that was posted from now on; at most 10 s."""
        self.recovered_at = time.monotonic()
        before = {channel: len(posted) for channel, posted in self.posted.items()}

        def has_come(channel: str, listener: Listener) -> bool:
            ids = {posted.id for posted in self.posted[channel][before[channel] :]}
            return any(seen["deployedAt"] in ids for seen in of(listener, channel))

        await eventually(
            lambda: all(has_come(channel, listener) for _, channels, listener in self.streams for channel in channels),
            what="a new deployment on every stream",
        )

    async def is_served_from_memory(self) -> None:
        """Check what works while Redis is away; the streams that are opened for it stay."""
        for replica in self.replicas:
            for channel in CHANNELS:
                watching = (one for at, channels, one in self.streams if at is replica and channel in channels)
                last = of(next(watching), channel)[-1]
                answer = await latest(replica, channel)
                started = time.monotonic()
                listener = await self.open(replica, channel)

                assert answer.status_code == 200
                assert answer.json() == last
                assert listener.events[0].at - started < 1
                assert listener.events[0].data == last
            started = time.monotonic()
            board = await self.open(replica, None)
            await board.has(len(CHANNELS))
            health = await asyncio.to_thread(httpx.get, f"{replica.url}/readyz")

            assert board.events[-1].at - started < 1
            assert health.status_code == 200

    async def assert_told(self, *, starts_anew: bool = False) -> None:
        """Check that everything recorded has arrived on every open stream once, in order, as a chain, in time."""
        for _, channels, listener in self.streams:
            for channel in channels:
                await self._assert_told(listener, channel, starts_anew)

    async def _assert_told(self, listener: Listener, channel: str, starts_anew: bool) -> None:
        await eventually(lambda: of(listener, channel), what="any deployment")
        first = of(listener, channel)[0]["deployedAt"]
        recorded = {posted.id: posted for posted in self.posted[channel] if posted.id and posted.id >= first}
        with suppress(AssertionError):  # what is missing is seen better below
            await eventually(lambda: recorded.keys() <= {one["deployedAt"] for one in of(listener, channel)})
        seen = of(listener, channel)
        ids = [one["deployedAt"] for one in seen]
        arrived_at = {event.data["deployedAt"]: event.at for event in listener.events if event.type == "deployment"}
        beginnings = [later for earlier, later in pairwise(seen) if later["previous"] != earlier["deployedAt"]]

        assert not listener.ended
        assert not listener.cut_off
        missed = [id_ for id_ in recorded if id_ not in arrived_at]
        for id_ in missed:  # who is away while ten others come gets those, and sees the break
            back_at = min((at for later, at in arrived_at.items() if later > id_), default=math.inf)
            others = [posted for later, posted in recorded.items() if later > id_ and posted.answered_at < back_at]
            assert back_at < math.inf
            assert len(others) >= KEPT - 1  # of the tenth the answer may be on its way
        assert [id_ for id_ in ids if id_ in recorded] == [id_ for id_ in recorded if id_ in arrived_at]
        assert ids == sorted(set(ids))
        breaks = [beginning["previous"] for beginning in beginnings if beginning["previous"] not in missed]
        assert breaks == [None] * starts_anew
        assert {one["version"] for one in seen} <= {posted.version for posted in self.posted[channel]}
        for id_, posted in recorded.items():
            assert id_ in missed or arrived_at[id_] < max(posted.answered_at, self.recovered_at) + 10
        for posted in self.posted[channel]:
            if posted.response.status_code != 201:
                assert_refused(posted.response)


def of(listener: Listener, channel: str) -> list[dict[str, Any]]:
    """The deployments of a channel that a stream brought; a board's stream brings those of others, too."""
    return [seen for seen in listener.deployments if f"{seen['appName']}/{seen['environment']}" == channel]


async def test_subscriptions_are_killed(redis_server, start_replica, listen):
    """A subscription that is cut off again and again costs no deployment, and no posting fails."""
    a, b = start_replica(redis_url=redis_server.url), start_replica(redis_url=redis_server.url)
    traffic = await Traffic.begin(listen, a, b)
    async with traffic.posting():
        for _ in range(5):
            assert int(redis_server.cli("CLIENT", "KILL", "TYPE", "pubsub")) > 0
            await traffic.answers(201, count=3)
            await traffic.flows()
            await relay_is(a, "live")
            await relay_is(b, "live")

    await traffic.assert_told()
    assert all(posted.id for channel in CHANNELS for posted in traffic.posted[channel])
    for replica in (a, b):
        assert replica.metric("vectr0_relay_reconnects_total") >= 5
        assert_log(replica, changes=10)


async def test_commands_are_cut_off(redis_server, start_replica, listen):
    """Connections that are killed between two postings are replaced without a failure."""
    a, b = start_replica(redis_url=redis_server.url), start_replica(redis_url=redis_server.url)
    traffic = await Traffic.begin(listen, a, b)
    async with traffic.posting():
        for _ in range(5):
            redis_server.cli("CLIENT", "KILL", "TYPE", "normal")
            await traffic.answers(201, count=2)

    await traffic.assert_told()
    assert all(posted.id for channel in CHANNELS for posted in traffic.posted[channel])
    for replica in (a, b):
        assert_log(replica, changes=2)


async def test_redis_is_killed_and_comes_back(redis_server, start_replica, listen):
    """While Redis is gone postings are refused and memory serves; once it is back, everything flows."""
    a, b = start_replica(redis_url=redis_server.url), start_replica(redis_url=redis_server.url)
    traffic = await Traffic.begin(listen, a, b)
    async with traffic.posting():
        await traffic.answers(201, count=3)
        redis_server.kill()
        await traffic.answers(503, count=2)
        await traffic.is_served_from_memory()
        await relay_is(a, "down")
        redis_server.start()
        await traffic.flows()
        await relay_is(a, "live")

    await traffic.assert_told()
    for replica in (a, b):
        assert_log(replica, changes=3)


async def test_redis_comes_back_empty(redis_server, start_replica, listen):
    """Memory becomes what Redis has, nothing; open streams stay, and go on with a new chain."""
    a, b = start_replica(redis_url=redis_server.url), start_replica(redis_url=redis_server.url)
    traffic = await Traffic.begin(listen, a, b)
    async with traffic.posting():
        await traffic.answers(201, count=3)
        redis_server.kill()
        await traffic.answers(503)
        await traffic.is_served_from_memory()
    redis_server.forget_all()
    redis_server.start()
    for replica in (a, b):
        for channel in CHANNELS:
            await latest_is(replica, 404, channel)
    late = await listen(a)
    first = [await traffic.post(channel) for channel in CHANNELS]
    async with traffic.posting():
        await traffic.flows()

    await traffic.assert_told(starts_anew=True)
    assert [posted.response.json()["previous"] for posted in first] == [None, None]
    assert late.events[0].type == "ping"
    assert late.ids[0] == first[0].id
    for replica in (a, b):
        assert_log(replica, changes=3)


async def test_redis_stops_answering(redis_server, start_replica, listen):
    """A Redis that takes connections and says nothing, for 25 s, is away like one that is gone; streams get pings."""
    a, b = start_replica(redis_url=redis_server.url), start_replica(redis_url=redis_server.url)
    traffic = await Traffic.begin(listen, a, b)
    async with traffic.posting():
        await traffic.answers(201, count=3)
        redis_server.pause()
        paused_at = time.monotonic()
        await traffic.answers(503)
        await traffic.is_served_from_memory()
        await relay_is(b, "down")
        await asyncio.sleep(paused_at + 25 - time.monotonic())
        resumed_at = time.monotonic()
        redis_server.resume()
        await traffic.flows()
        await relay_is(b, "live")

    await traffic.assert_told()
    for _, _, listener in traffic.streams:
        assert any(event.type == "ping" and paused_at < event.at < resumed_at for event in listener.events)
    for replica in (a, b):
        assert_log(replica, changes=3)


async def test_subscription_is_silently_dead(redis_server, proxy, start_replica, listen):
    """Deployments that a deaf subscription doesn't bring are read within 10 s, and it is opened anew."""
    a, b = start_replica(redis_url=redis_server.url), start_replica(redis_url=proxy.url)
    traffic = await Traffic.begin(listen, a, b)
    before = b.metric("vectr0_relay_reconnects_total")
    assert proxy.deafen() == 1
    async with asyncio.timeout(60):
        # One that is read before it is 2 s old proves nothing, so it may take some.
        while b.metric("vectr0_relay_reconnects_total") == before:
            for channel in CHANNELS:
                await traffic.post(channel)
            await traffic.assert_told()
    await relay_is(b, "live")
    last = [await traffic.post(channel) for channel in CHANNELS]

    await traffic.assert_told()
    for replica, channels, listener in traffic.streams:
        for posted in (last[CHANNELS.index(channel)] for channel in channels):
            arrived_at = next(event.at for event in listener.events if event.data.get("deployedAt") == posted.id)
            assert replica is a or arrived_at < posted.answered_at + 1
    assert_log(b, changes=4)


async def test_subscription_is_never_confirmed(redis_server, proxy, start_replica, listen):
    """Without any subscription a replica polls, and is live again when one is possible."""
    proxy.deaf = True
    a, b = start_replica(redis_url=redis_server.url), start_replica(redis_url=proxy.url)
    listener = await listen(b)
    await relay_is(b, "polling")
    first = await record(a, "1")
    await listener.has(1)
    proxy.deaf = False
    await relay_is(b, "live")
    second = await record(a, "2")
    await listener.has(2)

    assert listener.deployments == [first, second]
    assert b.log.count("No subscription") == 1
    assert "not confirmed" in b.log
    assert_log(b, changes=2)


@pytest.mark.parametrize("key", [None, "run-17"])
async def test_answer_to_a_posting_is_lost(redis_server, proxy, start_replica, listen, key):
    """A deployment whose answer is lost on the way from Redis is stored and told once, also when it is posted again."""
    a, b = start_replica(redis_url=redis_server.url), start_replica(redis_url=proxy.url)
    listeners = [await listen(a), await listen(b)]
    proxy.lose(b"\r\nEVAL\r\n", times=2)
    first = await record(b, "1", key=key)
    stored = redis_server.cli("ZCARD", key_of("web/production"))
    proxy.lose(b"\r\nEVAL\r\n", times=3)
    refused = await asyncio.to_thread(post, b.url, deployment(version="2"), key=key and f"{key}-2")
    again = await asyncio.to_thread(post, b.url, deployment(version="2"), key=key and f"{key}-2")
    last = await record(a, "3")
    for listener in listeners:
        await listener.has(3)

    assert proxy.losses == 0
    assert stored == "1"
    assert_refused(refused)
    assert again.status_code == 200
    assert redis_server.cli("ZCARD", key_of("web/production")) == "3"
    for listener in listeners:
        assert listener.deployments == [first, again.json(), last]
    assert_log(b, changes=0)


async def test_redis_becomes_a_replica(redis_server, start_replica, listen):
    """A Redis that takes no writes counts as away; nothing is lost, and it is there when it takes them again."""
    a, b = start_replica(redis_url=redis_server.url), start_replica(redis_url=redis_server.url)
    traffic = await Traffic.begin(listen, a, b)
    async with traffic.posting():
        await traffic.answers(201, count=2)
        redis_server.cli("REPLICAOF", "127.0.0.1", str(free_port()))
        await traffic.answers(503)
        await traffic.is_served_from_memory()
        await relay_is(a, "down")
        redis_server.cli("REPLICAOF", "NO", "ONE")
        await traffic.flows()
        await relay_is(a, "live")

    await traffic.assert_told()
    for replica in (a, b):
        assert_log(replica, changes=3)


async def test_another_redis_takes_over(redis_server, other_redis_server, proxy, start_replica, listen):
    """After a failover every connection leaves the old Redis, although that one goes on answering."""
    await eventually(lambda: "master_link_status:up" in other_redis_server.cli("INFO", "replication"))
    a, b = start_replica(redis_url=proxy.url), start_replica(redis_url=proxy.url)
    traffic = await Traffic.begin(listen, a, b)
    async with traffic.posting():
        await traffic.answers(201, count=2)
    before = {replica: replica.metric("vectr0_relay_reconnects_total") for replica in (a, b)}
    proxy.target = other_redis_server.port
    fail_over(redis_server, other_redis_server)
    async with traffic.posting(interval=1):
        await traffic.flows()
    async with asyncio.timeout(60):
        while any(replica.metric("vectr0_relay_reconnects_total") == before[replica] for replica in (a, b)):
            for channel in CHANNELS:
                await traffic.post(channel)
            await traffic.assert_told()
    await relay_is(a, "live")
    await relay_is(b, "live")

    await traffic.assert_told()
    assert redis_server.cli("PUBSUB", "NUMPAT") == "0"
    for replica in (a, b):
        assert_log(replica, changes=6)


async def test_line_goes_dark_and_leads_to_another_redis(
    redis_server, other_redis_server, authority, start_replica, listen
):
    """A failover behind a line that passes nothing on and closes nothing: the hub lives, streams stay, all comes."""
    await eventually(lambda: "master_link_status:up" in other_redis_server.cli("INFO", "replication"))
    port = redis_server.tls_port or redis_server.port
    # Bytes as they are: the TLS connections, too, end at the Redis that goes.
    line = Proxy(port).start()
    try:
        url = url_of(line.port, authority, redis_server.credentials)
        a, b = start_replica(redis_url=url), start_replica(redis_url=url)
        traffic = await Traffic.begin(listen, a, b)
        async with traffic.posting():
            await traffic.answers(201, count=2)
            redis_server.cli("REPLICAOF", "127.0.0.1", str(free_port()))  # so that some are told READONLY meanwhile
            await traffic.answers(503)
            # The subscriptions at least: READONLY ends the connections for commands, which come and go.
            assert line.darken() >= 2
            await traffic.answers(503, count=2)
            await traffic.is_served_from_memory()
            await relay_is(a, "down")
            other_redis_server.cli("REPLICAOF", "NO", "ONE")
            line.target = other_redis_server.tls_port or other_redis_server.port
            line.dark = False
            await traffic.flows()
            await relay_is(a, "live", timeout=20)
            await relay_is(b, "live", timeout=20)

        await traffic.assert_told()
        for replica in (a, b):
            assert replica.process.poll() is None
            assert_log(replica, changes=6)
    finally:
        line.stop()


async def test_demoted_redis_is_not_read(redis_server, other_redis_server, proxy, start_replica, listen):
    """A replica whose connections still lead to the old Redis doesn't take a browser back to what that one has."""
    await eventually(lambda: "master_link_status:up" in other_redis_server.cli("INFO", "replication"))
    a, b = start_replica(redis_url=other_redis_server.url), start_replica(redis_url=proxy.url)
    await record(b, "1")
    here, there = await listen(a), await listen(b)
    await relay_is(b, "live")
    proxy.target = other_redis_server.port
    fail_over(redis_server, other_redis_server)
    newer = await record(a, "2")
    moved = await listen(b, newer["deployedAt"])
    last = await record(a, "3")
    for listener in (here, there, moved):
        await comes_to(listener, last)

    assert moved.deployments == [last]
    assert [seen["version"] for seen in there.deployments] == ["1", "2", "3"]


async def test_redis_is_full(redis_server, start_replica, listen):
    """A deployment that finds no room is refused whole: nothing is stored or published."""
    a, b = start_replica(redis_url=redis_server.url), start_replica(redis_url=redis_server.url)
    traffic = await Traffic.begin(listen, a, b)
    async with traffic.posting():
        await traffic.answers(201)
    before = contents(redis_server)
    redis_server.cli("CONFIG", "SET", "maxmemory", "1")
    async with traffic.posting():
        await traffic.answers(503, count=2)
        await traffic.is_served_from_memory()
    after = contents(redis_server)
    redis_server.cli("CONFIG", "SET", "maxmemory", "0")
    async with traffic.posting():
        await traffic.flows()

    await traffic.assert_told()
    assert after == before
    for replica in (a, b):
        assert_log(replica, changes=0)


@pytest.mark.parametrize(
    ("refuse", "allow", "reason"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0"), "OOM"),
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"), "READONLY"),
    ],
)
async def test_script_is_refused_whole(redis_server, refuse, allow, reason):
    """The script's first write fails where Redis is full or read-only: no record, no message, no key remembered."""
    keys = (key_of("web/production"), "vectr0:idempotency:{web/production}:k")
    arguments = (*keys, ",", '{"version":"1"', "nonce", "60", "10", key_of("web/production"))
    script = str(Path(__file__).parents[1] / "service" / "append.lua")
    before = contents(redis_server)
    redis_server.cli(*refuse)
    refused = redis_server.cli("--eval", script, *arguments)
    after = contents(redis_server)
    redis_server.cli(*allow)
    recorded = redis_server.cli("--eval", script, *arguments)

    assert reason in refused
    assert after == before
    assert recorded.startswith("recorded")
    assert contents(redis_server) != before


async def test_subscribing_is_not_allowed(redis_server, start_replica, listen):
    """With an ACL that knows no pub/sub channel deployments are recorded all the same, and arrive by polling."""
    redis_server.cli("ACL", "SETUSER", "limited", "on", ">secret", "~*", "+@all", "resetchannels")
    url = redis_server.url.replace(redis_server.credentials, "limited:secret@")
    a, b = start_replica(redis_url=url), start_replica(redis_url=url)
    listeners = [await listen(replica, channel=channel) for replica in (a, b) for channel in CHANNELS]
    await relay_is(a, "polling")
    await relay_is(b, "polling")
    for number in range(3):
        posted = [await record(a, f"{number}", channel) for channel in CHANNELS]
        for listener in listeners:
            await listener.has(number + 1)

    for listener in listeners:
        assert listener.deployments[-1] in posted
        assert [seen["version"] for seen in listener.deployments] == ["0", "1", "2"]
    for replica in (a, b):
        assert replica.health()["status"] == "ready"
        assert "permission" in replica.health()["relay"]["lastError"]
        assert "needs &vectr0:deployments:{*}" in replica.log
        assert_log(replica, changes=0)


async def test_subscribing_is_allowed_and_forbidden_again(redis_server, start_replica, listen):
    """A replica subscribes as soon as it may, and polls from when it may no longer."""
    redis_server.cli("ACL", "SETUSER", "limited", "on", ">secret", "~*", "+@all", "resetchannels")
    replica = start_replica(redis_url=redis_server.url.replace(redis_server.credentials, "limited:secret@"))
    listener = await listen(replica)
    await relay_is(replica, "polling")
    redis_server.cli("ACL", "SETUSER", "limited", "allchannels")
    await relay_is(replica, "live")
    first = await record(replica, "1")
    redis_server.cli("ACL", "SETUSER", "limited", "resetchannels")
    await relay_is(replica, "polling")
    second = await record(replica, "2")
    await listener.has(2)

    assert listener.deployments == [first, second]
    assert_log(replica, changes=3)  # the last with two reasons: it is cut off, and then not let in


async def test_scripts_are_flushed(redis_server, start_replica):
    """A Redis that forgets its scripts records the next deployment as well."""
    replica = start_replica(redis_url=redis_server.url)
    for number in range(3):
        await record(replica, f"{number}")
        redis_server.cli("SCRIPT", "FLUSH")

    assert redis_server.cli("ZCARD", key_of("web/production")) == "3"


async def test_service_starts_before_redis(redis_server, start_replica, listen):
    """Streams opened before Redis is there get a ping at once, and their start when the channel is first read."""
    writer = start_replica(redis_url=redis_server.url)
    first, second, third = [await record(writer, version) for version in ("1", "2", "3")]
    writer.terminate()
    redis_server.kill()
    replica = start_replica(redis_url=redis_server.url)
    await relay_is(replica, "down")
    started = time.monotonic()
    expected = {
        await listen(replica, last_event_id): deployments
        for last_event_id, deployments in [
            (None, [third]),
            (first["deployedAt"], [second, third]),
            (third["deployedAt"], []),
            (third["deployedAt"] + 1_000_000, [third]),
            ("nonsense", [third]),
        ]
    }
    board = await listen(replica, channel=None)
    waited = time.monotonic() - started
    refused = await asyncio.to_thread(post, replica.url)
    unknown = await latest(replica)
    health = replica.health()
    log_before = replica.log
    redis_server.start()
    await relay_is(replica, "live")
    for listener, deployments in expected.items():
        await listener.has(len(deployments))
    last = await record(replica, "4")
    for listener, deployments in expected.items():
        await listener.has(len(deployments) + 1)
    await board.has(2)

    assert waited < 1
    assert_refused(refused)
    assert_refused(unknown)
    assert health["status"] == "ready"
    assert health["relay"]["state"] == "down"
    assert log_before.count("Redis is away") == 1
    assert board.events[0].type == "ping"
    assert board.deployments == [third, last]
    for listener, deployments in expected.items():
        assert listener.events[0].type == "ping"
        assert listener.deployments == [*deployments, last]
        assert not listener.ended
        assert not listener.cut_off
    assert_log(replica, changes=2)


async def test_message_is_lost_between_two(redis_server, start_replica, listen):
    """A deployment whose message got lost is sent before the next one, whose `previous` tells of it."""
    a, b = start_replica(redis_url=redis_server.url), start_replica(redis_url=redis_server.url)
    first = await record(a, "1")
    listeners = [await listen(a), await listen(b)]
    id_ = first["deployedAt"] + 1
    lost = {**first, "version": "2", "deployedAt": id_, "previous": first["deployedAt"]}
    redis_server.cli("ZADD", key_of("web/production"), str(id_), json.dumps(lost, separators=(",", ":")))
    third = await record(b, "3")
    for listener in listeners:
        await listener.has(3)

    assert third["previous"] == lost["deployedAt"]
    for listener in listeners:
        assert listener.deployments == [first, lost, third]


async def test_read_is_answered_late(redis_server, proxy, start_replica, listen):
    """A read that was sent before newer messages came takes memory back by nothing, and is repeated."""
    a, b = start_replica(redis_url=redis_server.url), start_replica(redis_url=proxy.url)
    first = await record(a, "1")
    listener = await listen(b)
    await relay_is(b, "live")
    proxy.hold(HISTORY_READ)
    # An id ahead of memory has the channel read.
    opening = asyncio.create_task(listen(b, first["deployedAt"] + 1_000_000))
    await eventually(lambda: proxy.holding, what="the read")
    second, third = await record(a, "2"), await record(a, "3")
    await listener.has(3)
    held = proxy.holding
    proxy.release()
    late = await opening
    await late.has(1)
    answers = [(await latest(b)).json() for _ in range(5)]
    fourth = await record(b, "4")
    await listener.has(4)
    await late.has(2)

    assert held
    assert listener.deployments == [first, second, third, fourth]
    assert late.deployments == [third, fourth]
    assert answers == [third] * 5


async def test_first_read_is_answered_late(redis_server, proxy, start_replica, listen):
    """Messages that come while a channel is being read for the first time follow on what was read."""
    a, b = start_replica(redis_url=redis_server.url), start_replica(redis_url=proxy.url)
    first = await record(a, "1")
    await relay_is(b, "live")
    proxy.hold(HISTORY_READ)
    opening = [asyncio.create_task(listen(b, last_event_id)) for last_event_id in (None, first["deployedAt"])]
    await eventually(lambda: proxy.holding, what="the read")
    second = await record(a, "2")
    proxy.release()
    fresh, resumed = [await one for one in opening]
    await fresh.has(1)
    third = await record(a, "3")
    for listener in (fresh, resumed):
        await comes_to(listener, third)

    assert fresh.deployments in ([first, second, third], [second, third])
    assert resumed.deployments == [second, third]


async def test_browser_comes_from_a_replica_that_knows_more(redis_server, proxy, start_replica, listen):
    """A replica that is behind reads before it answers, and sends only what follows on the browser's last id."""
    a, b = start_replica(redis_url=redis_server.url), start_replica(redis_url=proxy.url)
    older = await record(a, "1")
    here, there = await listen(a), await listen(b)
    await relay_is(b, "live")
    assert proxy.deafen() == 1
    newer = await record(a, "2")
    while (await latest(b)).json() == newer:  # a reconcile came in between
        newer = await record(a, f"{newer['version']}2")
    moved = await listen(b, newer["deployedAt"])
    known = (await latest(b)).json()
    last = await record(a, "last")
    for listener in (here, there, moved):
        await comes_to(listener, last)

    assert here.deployments[0] == there.deployments[0] == older
    assert here.deployments == there.deployments
    assert moved.events[0].type == "ping"
    assert known == newer
    assert moved.deployments == [last]


async def test_browser_comes_from_a_replica_that_knows_more_while_reads_fail(
    redis_server, proxy, start_replica, listen
):
    """Where the late replica can't read either, the browser waits with a ping, and then gets only what follows."""
    a, b = start_replica(redis_url=redis_server.url), start_replica(redis_url=proxy.url)
    await record(a, "1")
    there = await listen(b)
    await relay_is(b, "live")
    proxy.deafen()
    proxy.hold(b"ZRANGE")
    newer = await record(a, "2")
    moved = await listen(b, newer["deployedAt"])
    known = (await latest(b)).json()
    last = await record(a, "3")
    proxy.release()
    for listener in (there, moved):
        await comes_to(listener, last)

    assert known["version"] == "1"
    assert moved.events[0].type == "ping"
    assert moved.deployments == [last]
    assert [seen["version"] for seen in there.deployments] == ["1", "2", "3"]


async def test_redis_comes_back_older(redis_server, start_replica, listen, tmp_path):
    """Every open stream gets the newest of a Redis that has gone back once, and goes on from there in order."""
    a, b = start_replica(redis_url=redis_server.url), start_replica(redis_url=redis_server.url)
    files, copy = redis_server.folder / "appendonlydir", tmp_path / "copy"
    before = {channel: [await record(a, version, channel) for version in ("1", "2")] for channel in CHANNELS}
    listeners = {await listen(replica, channel=channel): channel for replica in (a, b) for channel in CHANNELS}
    boards = [await listen(replica, channel=None) for replica in (a, b)]
    for board in boards:
        await board.has(2)
    shutil.copytree(files, copy)
    gone = {channel: [await record(b, version, channel) for version in ("3", "4")] for channel in CHANNELS}
    for listener in listeners:
        await listener.has(3)
    redis_server.kill()
    shutil.rmtree(files)
    copy.rename(files)
    redis_server.start()
    for listener in listeners:
        await listener.has(4)
    late = await listen(b, gone["web/production"][1]["deployedAt"])
    after = {channel: [await record(a, version, channel) for version in ("5", "6")] for channel in CHANNELS}
    for listener in listeners:
        await listener.has(6)
    for board in boards:
        await board.has(12)
    await late.has(3)

    expected = {
        channel: [before[channel][1], *gone[channel], before[channel][1], *after[channel]] for channel in CHANNELS
    }
    for listener, channel in listeners.items():
        assert listener.deployments == expected[channel]
        assert after[channel][0]["previous"] == before[channel][1]["deployedAt"]
    for board in boards:
        assert [of(board, channel) for channel in CHANNELS] == [expected[channel] for channel in CHANNELS]
    # An id ahead of Redis itself is as none.
    assert late.deployments == expected["web/production"][3:]
    for listener in (*listeners, *boards, late):
        assert not listener.ended
        assert not listener.cut_off
    for replica in (a, b):
        assert_log(replica, changes=3)
