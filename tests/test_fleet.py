"""Several replicas and workers as one service: real processes on one Redis, behind the nginx that is shipped."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from tests.parts import (
    TOKEN,
    Listener,
    Nginx,
    RedisServer,
    Replica,
    deployment,
    documented_user,
    eventually,
    post,
    wait_until,
)

pytestmark = pytest.mark.anyio

CHANNELS = ("web/production", "web/staging", "api/production")

Records = list[dict[str, Any]]


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A redis-server that runs, and the user that the README describes."""
    server = RedisServer(tmp_path, user=documented_user()).start()
    try:
        yield server
    finally:
        server.kill()


def client(url: str) -> httpx.AsyncClient:
    """A client with connections of its own."""
    return httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10)


def of(channel: str, **fields: object) -> dict[str, object]:
    """What is posted to a channel."""
    app, environment = channel.split("/")
    return deployment(app, environment, **fields)


def stored(redis_server: RedisServer, channel: str) -> Records:
    """The sorted set of a channel, in its order."""
    return [
        json.loads(line)
        for line in redis_server.cli("ZRANGE", f"vectr0:deployments:{{{channel}}}", "0", "-1").splitlines()
    ]


def breaks(records: Records) -> Records:
    """Those whose `previous` isn't what came before them: there something was missed."""
    return [later for earlier, later in pairwise(records) if later["previous"] != earlier["deployedAt"]]


def ids(records: Records) -> list[int]:
    return [record["deployedAt"] for record in records]


async def close_all(listeners: list[Listener]) -> None:
    for listener in listeners:
        await listener.close()


class Tab:
    """A stream as a browser keeps it: whenever it ends, it is opened again with the last id that was seen."""

    def __init__(self, url: str, channel: str) -> None:
        self.channel = channel
        self.connections: list[Listener] = []
        self.may_connect = asyncio.Event()
        self.may_connect.set()
        self._url = f"{url}/events/{channel}"
        self._stopping = False
        self._running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while not self._stopping:
            self.connections.append(await Listener.open(self._url, self.last_event_id))
            await eventually(lambda: self._stopping or self.is_away, timeout=60, what="the end of the stream")
            # A browser waits for what `retry:` said; this one for as long as the test wants.
            await self.may_connect.wait()

    @property
    def is_away(self) -> bool:
        return not self.connections or self.connections[-1].ended or self.connections[-1].cut_off

    @property
    def deployments(self) -> Records:
        return [record for connection in self.connections for record in connection.deployments]

    @property
    def last_event_id(self) -> int | None:
        return self.deployments[-1]["deployedAt"] if self.deployments else None

    async def has(self, record: dict[str, Any]) -> None:
        """Wait until a deployment, or a later one, has been seen."""
        await eventually(lambda: (self.last_event_id or 0) >= record["deployedAt"], what=f"{record} for {self.channel}")

    async def close(self) -> None:
        self._stopping = True
        self.may_connect.set()
        await self._running
        await close_all(self.connections)


class Traffic:
    """Tabs on each channel, all through one address, and deployments that are posted there."""

    def __init__(self, url: str, tabs_per_channel: int) -> None:
        self.recorded: dict[str, Records] = {channel: [] for channel in CHANNELS}
        self.tabs: list[Tab] = []
        self._url = url
        self._tabs_per_channel = tabs_per_channel

    async def __aenter__(self) -> Self:
        """Record a first deployment on each channel, and open the tabs."""
        self._client = client(self._url)
        for channel in CHANNELS:
            await self.post(channel)
            self.tabs += [Tab(self._url, channel) for _ in range(self._tabs_per_channel)]
        await self.arrives()
        return self

    async def __aexit__(self, *_: object) -> None:
        for tab in self.tabs:
            await tab.close()
        await self._client.aclose()

    async def post(self, channel: str) -> None:
        """Post the channel's next deployment, again and again with one key until it is answered."""
        number = len(self.recorded[channel])
        async with asyncio.timeout(10):
            while True:
                with suppress(httpx.TransportError):
                    answer = await self._client.post(
                        "/deployments",
                        json=of(channel, version=f"{number}"),
                        headers={"Idempotency-Key": f"{number}"},
                    )
                    if answer.status_code in (200, 201):
                        break
                    assert answer.status_code in (502, 503, 504), answer.text
                await asyncio.sleep(0.05)
        self.recorded[channel].append(answer.json())

    async def arrives(self) -> None:
        """Wait until every tab has what was recorded last."""
        for tab in self.tabs:
            await tab.has(self.recorded[tab.channel][-1])

    @asynccontextmanager
    async def posting(self) -> AsyncIterator[None]:
        """Post to all channels, as fast as no tab misses more than ten."""
        stopping = asyncio.Event()

        async def post_on(channel: str) -> None:
            tabs = [tab for tab in self.tabs if tab.channel == channel]
            while not stopping.is_set():
                await self.post(channel)
                await eventually(
                    lambda: min(len(tab.deployments) for tab in tabs) + 10 > len(self.recorded[channel]),
                    what="the slowest tab",
                )

        async with asyncio.TaskGroup() as tasks:
            for channel in CHANNELS:
                tasks.create_task(post_on(channel))
            try:
                yield
            finally:
                stopping.set()

    async def flows(self, count: int = 15) -> None:
        """Wait until every tab has seen so many more."""
        goals = [(tab, len(tab.deployments) + count) for tab in self.tabs]
        await eventually(lambda: all(len(tab.deployments) >= goal for tab, goal in goals), what=f"{count} more")


async def test_replicas_behind_nginx_tell_one_story(redis_server, start_replica, start_nginx):
    """Each of 100 streams on two replicas sees all that 20 clients record on its channel at once, in order, once."""
    a, b = start_replica(redis_url=redis_server.url), start_replica(redis_url=redis_server.url)
    nginx = start_nginx(a, b)
    streams = {
        channel: await asyncio.gather(
            *(Listener.open(f"{replica.url}/events/{channel}") for replica in (a, b) for _ in range(count))
        )
        for channel, count in zip(CHANNELS, (17, 17, 16), strict=True)
    }
    listeners = [listener for channel in CHANNELS for listener in streams[channel]]
    await eventually(lambda: all(listener.events for listener in listeners), what="the first event")

    async def post_ten(number: int) -> list[httpx.Response]:
        async with client(nginx.url) as poster:
            return [
                await poster.post("/deployments", json=of(CHANNELS[(number + i) % 3], version=f"{number}.{i}"))
                for i in range(10)
            ]

    answers = [answer for ten in await asyncio.gather(*map(post_ten, range(20))) for answer in ten]
    recorded: dict[str, Records] = {channel: [] for channel in CHANNELS}
    for answer in answers:
        record = answer.json()
        recorded[f"{record['appName']}/{record['environment']}"].append(record)
    for channel in CHANNELS:
        recorded[channel].sort(key=lambda record: record["deployedAt"])
        for listener in streams[channel]:
            await listener.has(len(recorded[channel]))

    assert {answer.status_code for answer in answers} == {201}
    assert sum(map(len, recorded.values())) == 200
    for channel in CHANNELS:
        assert stored(redis_server, channel) == recorded[channel][-10:]
        assert [one["previous"] for one in recorded[channel]] == [None, *ids(recorded[channel])[:-1]]
        for listener in streams[channel]:
            assert listener.deployments == recorded[channel]
            assert [event.id for event in listener.events if event.type == "deployment"] == [
                str(id_) for id_ in ids(recorded[channel])
            ]
            assert not listener.ended
            assert not listener.cut_off
    assert a.health()["streams"] == b.health()["streams"] == 50
    await close_all(listeners)
    for replica in (a, b):
        assert replica.terminate() == 0
        assert not any(word in replica.log for word in ("Traceback", "ERROR", "WARNING")), replica.log


async def test_streams_of_killed_replicas_resume(redis_server, start_replica, start_nginx):
    """Killed replicas, one after the other while posting goes on, cost a tab nothing and repeat nothing."""
    a, b = start_replica(redis_url=redis_server.url), start_replica(redis_url=redis_server.url)
    nginx = start_nginx(a, b)
    async with Traffic(nginx.url, tabs_per_channel=8) as traffic:
        async with traffic.posting():
            await traffic.flows()
            a.kill()
            await traffic.flows()
            await asyncio.to_thread(a.start)
            b.kill()
            await traffic.flows()
        await traffic.arrives()

        for tab in traffic.tabs:
            assert tab.deployments == traffic.recorded[tab.channel]
            assert breaks(tab.deployments) == []
        assert sum(len(tab.connections) - 1 for tab in traffic.tabs) >= len(traffic.tabs)
        for channel in CHANNELS:
            assert stored(redis_server, channel) == traffic.recorded[channel][-10:]
            assert len(set(ids(traffic.recorded[channel]))) == len(traffic.recorded[channel]) > 40


async def test_what_could_not_be_kept_shows(redis_server, start_replica, start_nginx):
    """A tab that misses more than ten gets the ten, and sees by the first one's `previous` that there were others."""
    a, b = start_replica(redis_url=redis_server.url), start_replica(redis_url=redis_server.url)
    nginx = start_nginx(a, b)
    async with Traffic(nginx.url, tabs_per_channel=4) as traffic:
        for channel in CHANNELS:
            await traffic.post(channel)
        await traffic.arrives()
        for tab in traffic.tabs:
            tab.may_connect.clear()
        on_a = a.health()["streams"]
        a.kill()
        await eventually(lambda: sum(tab.is_away for tab in traffic.tabs) == on_a, what="the cut")
        cut = [tab for tab in traffic.tabs if tab.is_away]
        for channel in CHANNELS:
            for _ in range(13):
                await traffic.post(channel)
        for tab in traffic.tabs:
            tab.may_connect.set()
        await traffic.arrives()
        for channel in CHANNELS:
            await traffic.post(channel)
        await traffic.arrives()

        assert 0 < len(cut) < len(traffic.tabs)
        for tab in traffic.tabs:
            recorded = traffic.recorded[tab.channel]
            if tab in cut:
                assert tab.deployments == recorded[:2] + recorded[5:]
                assert breaks(tab.deployments) == [recorded[5]]
                assert recorded[5]["previous"] == recorded[4]["deployedAt"]
            else:
                assert tab.deployments == recorded
                assert breaks(tab.deployments) == []


async def test_one_key_records_one_deployment(redis_server, start_replica):
    """Of many postings at once with one key, one records; the others, on both replicas, get its record."""
    a, b = start_replica(redis_url=redis_server.url), start_replica(redis_url=redis_server.url)
    listeners = [await Listener.open(f"{replica.url}/events/web/production") for replica in (a, b)]
    await eventually(lambda: all(listener.events for listener in listeners), what="the first event")
    async with client(a.url) as to_a, client(b.url) as to_b:
        posts = [
            one.post("/deployments", json=deployment(), headers={"Idempotency-Key": "run-7"})
            for _ in range(20)
            for one in (to_a, to_b)
        ]
        answers = await asyncio.gather(*posts)
        other = await asyncio.to_thread(post, a.url, deployment(version="2.0.0"), key="run-7")
        later = await asyncio.to_thread(post, b.url, deployment(version="2.0.0"), key="run-8")
        again = await asyncio.to_thread(post, a.url, deployment(), key="run-7")
    last = await asyncio.to_thread(post, a.url, deployment(version="3.0.0"))
    for listener in listeners:
        await listener.has(3)

    record = answers[0].json()
    assert sorted(answer.status_code for answer in answers) == [200] * 39 + [201]
    assert [answer.json() for answer in answers] == [record] * 40
    assert other.status_code == 422
    assert other.headers["content-type"] == "application/problem+json"
    assert (again.status_code, again.json()) == (200, record)
    for listener in listeners:
        assert listener.deployments == [record, later.json(), last.json()]
    assert stored(redis_server, "web/production") == [record, later.json(), last.json()]
    await close_all(listeners)


async def test_boards_of_all_replicas(redis_server, start_replica):
    """A board gets each channel's newest on connect, then everything, also of channels that are new; without ids."""
    a, b = start_replica(redis_url=redis_server.url), start_replica(redis_url=redis_server.url)
    newest = {}
    for channel in CHANNELS[:2]:
        for version in ("1", "2"):
            answer = await asyncio.to_thread(post, a.url, of(channel, version=version))
            newest[channel] = answer.json()
    boards = [await Listener.open(f"{replica.url}/events") for replica in (a, b)]
    for board in boards:
        await board.has(2)
    live = [
        (await asyncio.to_thread(post, url, of(channel, version=version))).json()
        for url, channel, version in (
            (a.url, CHANNELS[0], "3"), (b.url, CHANNELS[2], "1"), (a.url, CHANNELS[2], "2"), (b.url, CHANNELS[1], "3"),
        )
    ]  # fmt: skip
    for board in boards:
        await board.has(6)

    for board in boards:
        assert board.status == 200
        assert board.deployments == [*newest.values(), *live]
        assert {event.id for event in board.events} == {None}
        assert "id:" not in board.raw.decode().split("\n")
    assert live[1]["previous"] is None
    await close_all(boards)


async def test_a_forgotten_channel_is_gone_everywhere(redis_server, start_replica):
    """A DELETE at one replica empties the channel on both; what is recorded then starts a new chain on every stream."""
    a, b = start_replica(redis_url=redis_server.url), start_replica(redis_url=redis_server.url)
    before = (await asyncio.to_thread(post, a.url)).json()
    kept = (await asyncio.to_thread(post, a.url, of(CHANNELS[1]))).json()
    listeners = [await Listener.open(f"{replica.url}/events/web/production") for replica in (a, b)]
    boards = [await Listener.open(f"{replica.url}/events") for replica in (a, b)]
    for listener in listeners:
        await listener.has(1)
    for board in boards:
        await board.has(2)

    def listed(replica: Replica, channel: str) -> Records:
        records: Records = httpx.get(f"{replica.url}/deployments/{channel}").json()["deployments"]
        return records

    async with client(a.url) as one:
        assert listed(b, "web/production") == [before]
        forgotten = await one.delete("/deployments/web/production")
        await eventually(
            lambda: not any(listed(replica, "web/production") for replica in (a, b)), what="two empty lists"
        )
        twice = await one.delete("/deployments/web/production")
    after = (await asyncio.to_thread(post, b.url)).json()
    for listener in listeners:
        await listener.has(2)
    for board in boards:
        await board.has(3)

    assert forgotten.status_code == 204
    assert twice.status_code == 404
    assert after["previous"] is None
    for replica in (a, b):
        assert listed(replica, "web/staging") == [kept]
        assert listed(replica, "web/production") == [after]
    for listener in listeners:
        assert listener.deployments == [before, after]
    for board in boards:
        assert board.deployments == [before, kept, after]
    await close_all(listeners + boards)


def workers_of(replica: Replica) -> list[int]:
    """The process ids of a replica's workers."""
    children = Path(f"/proc/{replica.pid}/task/{replica.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def test_workers_are_one_replica(redis_server, start_replica):
    """Streams on both workers get everything; the metrics add up, and forget the streams of a worker that is killed."""
    replica = start_replica(redis_url=redis_server.url, workers="2")
    try:
        live = 'vectr0_relay_state{state="live"}'
        await eventually(lambda: replica.metric(live) == 2, what="the second worker")
        listeners = list(
            await asyncio.gather(*(Listener.open(f"{replica.url}/events/web/production") for _ in range(40)))
        )
        async with client(replica.url) as poster:
            posts = [poster.post("/deployments", json=deployment(version=f"{i}")) for i in range(20)]
            recorded = sorted(
                (answer.json() for answer in await asyncio.gather(*posts)), key=lambda record: record["deployedAt"]
            )
        for listener in listeners:
            await listener.has(20)

        for listener in listeners:
            assert listener.deployments == recorded
        assert replica.metric("vectr0_streams") == 40
        assert replica.metric("vectr0_streams_opened_total") == 40
        assert replica.metric('vectr0_deployments_total{result="recorded"}') == 20
        assert replica.metric("vectr0_frames_written_total") >= 40 * 21
        assert replica.metric("vectr0_append_seconds_count") == 20

        workers = workers_of(replica)
        os.kill(workers[0], signal.SIGKILL)
        await eventually(
            lambda: replica.metric("vectr0_streams") == sum(not listener.cut_off for listener in listeners) < 40,
            what="the gauge without the dead",
        )
        survivors = [listener for listener in listeners if not listener.cut_off]
        await eventually(lambda: replica.metric(live) == 2, what="a new worker")
        listeners += await asyncio.gather(
            *(
                Listener.open(f"{replica.url}/events/web/production", recorded[-1]["deployedAt"])
                for _ in range(40 - len(survivors))
            )
        )
        recorded.append((await asyncio.to_thread(post, replica.url, deployment(version="after"))).json())
        for listener in survivors:
            await listener.has(21)
        for listener in listeners[40:]:
            await listener.has(1)

        assert len(workers) == 2
        assert 0 < len(survivors) < 40
        assert not any(listener.cut_off or listener.ended for listener in survivors + listeners[40:])
        assert all(listener.deployments == recorded for listener in survivors)
        assert all(listener.deployments == recorded[-1:] for listener in listeners[40:])
        assert len(workers_of(replica)) == 2
        assert workers[0] not in workers_of(replica)
        assert replica.metric("vectr0_streams") == 40
        assert replica.metric("vectr0_streams_opened_total") == 80 - len(survivors)
        assert replica.metric('vectr0_deployments_total{result="recorded"}') == 21
        await close_all(listeners)
    finally:
        workers = workers_of(replica)
        replica.terminate()
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


async def test_one_stream_too_many(redis_server, start_replica):
    """Over the limit a browser gets what it missed, a long `retry` and a clean end with 200; all else goes on."""
    replica = start_replica(redis_url=redis_server.url, max_streams="5")
    recorded = [
        (await asyncio.to_thread(post, replica.url, deployment(version=version))).json() for version in ("1", "2", "3")
    ]
    url = f"{replica.url}/events/web/production"
    listeners = [await Listener.open(url) for _ in range(5)]
    for listener in listeners:
        await listener.has(1)
    away = [await Listener.open(url), await Listener.open(url, recorded[0]["deployedAt"])]
    board = await Listener.open(f"{replica.url}/events")
    await eventually(lambda: all(listener.ended for listener in (*away, board)), what="a clean end")
    recorded.append((await asyncio.to_thread(post, replica.url, deployment(version="4"))).json())
    for listener in listeners:
        await listener.has(2)
    health = {path: httpx.get(f"{replica.url}{path}").status_code for path in ("/livez", "/readyz", "/metrics")}

    for listener in (*away, board):
        assert listener.status == 200
        assert listener.headers["content-type"] == "text/event-stream"
        assert len(listener.retries) == 1
        assert 15_000 <= listener.retries[0] <= 60_000
    assert away[0].deployments == recorded[2:3]
    assert away[1].deployments == recorded[1:3]
    assert board.deployments == recorded[2:3]
    for listener in listeners:
        assert listener.deployments == recorded[2:]
        assert 1_000 <= listener.retries[0] <= 5_000
    assert set(health.values()) == {200}
    assert replica.metric("vectr0_streams") == 5
    assert replica.metric('vectr0_streams_closed_total{reason="over-limit"}') == 3

    await listeners.pop().close()
    await eventually(lambda: replica.health()["streams"] == 4, what="a free place")
    listeners.append(await Listener.open(url))
    await listeners[-1].has(1)

    assert not listeners[-1].ended
    assert listeners[-1].deployments == recorded[3:]
    await close_all([*listeners, *away, board])


@pytest.fixture
def start_prefix_nginx(tmp_path: Path) -> Any:
    """Start an nginx that serves a replica below /vectr0/."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(replica: Replica, *, strips: bool) -> str:
        nginx = Nginx(tmp_path, [replica])
        configuration = tmp_path / "prefix.conf"
        temporary = "".join(
            f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        configuration.write_text(f"""
            daemon off; pid {tmp_path}/prefix.pid; error_log {tmp_path}/prefix.log;
            events {{}}
            http {{
                access_log off; {temporary}
                server {{
                    listen 127.0.0.1:{nginx.port};
                    location /vectr0/ {{
                        proxy_pass {replica.url}{"/" if strips else ""};
                        proxy_http_version 1.1;
                        proxy_set_header Connection "";
                        proxy_buffering off;
                    }}
                }}
            }}
        """)
        processes.append(subprocess.Popen([nginx.program, "-p", str(tmp_path), "-c", str(configuration)]))
        wait_until(nginx._answers, what="nginx")
        return f"{nginx.url}/vectr0"

    yield start
    for process in processes:
        process.terminate()
        process.wait()


@pytest.mark.parametrize(
    ("strips", "root_path"),
    [(True, ""), (True, "/vectr0"), (False, "/vectr0")],
    ids=["stripped", "stripped and set", "set"],
)
async def test_below_a_path_prefix(strips, root_path, redis_server, start_replica, start_prefix_nginx):
    """Below a prefix of the proxy, whether it takes it off or not, everything leads to where it belongs."""
    replica = start_replica(redis_url=redis_server.url, root_path=root_path)
    url = start_prefix_nginx(replica, strips=strips)
    listener = await Listener.open(f"{url}/events/web/production")
    board = await Listener.open(f"{url}/events")
    await eventually(lambda: listener.events and board.events, what="the first event")
    first = await asyncio.to_thread(post, url)
    second = await asyncio.to_thread(post, url, deployment(version="2"))
    location = first.url.join(first.headers["location"])
    listed = httpx.get(location)
    forbidden = httpx.get(f"{url}/nothing")
    for one in (listener, board):
        await one.has(2)

    assert str(location) == f"{url}/deployments/web/production"
    assert listed.json() == {"deployments": [second.json(), first.json()]}
    assert listener.deployments == board.deployments == [first.json(), second.json()]
    assert httpx.get(f"{url}/deployments/web/production/latest").json() == second.json()
    assert httpx.get(f"{url}/readyz").status_code == 200
    assert forbidden.status_code == 404
    assert forbidden.headers["content-type"] == "application/problem+json"
    await close_all([listener, board])
