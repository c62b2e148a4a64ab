"""Who runs what, as it is asked over HTTP: real replicas on a real Redis, and streams that say what they run."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.parts import TOKEN, Listener, Replica, deployment, eventually, post

pytestmark = pytest.mark.anyio

TABS = 30
FOLLOWS = 10.0
"""Seconds within which the numbers are everywhere."""
FORGOTTEN = 15.0
"""Seconds within which a killed replica's tabs leave the count."""

Open = Callable[..., Awaitable[list[Listener]]]


@pytest.fixture
async def open_tabs() -> AsyncIterator[Open]:
    """Open so many streams whose pages run a build, or say nothing; all are closed at the end."""
    listeners: list[Listener] = []

    async def opened(replica: Replica, running: str | None, count: int) -> list[Listener]:
        url = f"{replica.url}/events/web/production" + (f"?running={running}" if running else "")
        found = await asyncio.gather(*(Listener.open(url) for _ in range(count)))
        assert {listener.status for listener in found} == {200}
        listeners.extend(found)
        return found

    yield opened
    for listener in listeners:
        await listener.close()


@pytest.fixture
async def board() -> AsyncIterator[Callable[[Replica], Awaitable[Listener]]]:
    """Watch all channels of a replica."""
    listeners: list[Listener] = []

    async def watched(replica: Replica) -> Listener:
        listener = await Listener.open(f"{replica.url}/events")
        listeners.append(listener)
        return listener

    yield watched
    for listener in listeners:
        await listener.close()


def running(number: int) -> str:
    return f"{str(number) * 7}~{number}"


async def deploy(replica: Replica, number: int) -> dict[str, Any]:
    """Record a build."""
    fields = deployment(version=f"{number}.0.0", gitCommit=str(number) * 7, buildNumber=number)
    response = await asyncio.to_thread(post, replica.url, fields)
    assert response.status_code == 201, response.text
    found: dict[str, Any] = response.json()
    return found


def asked(replica: Replica) -> dict[str, Any]:
    """What a replica answers."""
    response = httpx.get(f"{replica.url}/deployments/web/production/adoption")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def by_build(found: dict[str, Any]) -> dict[int, int]:
    """The streams of each kept deployment, by its build number, newest first; 0 for what else there is."""
    return {entry["buildNumber"]: entry["streams"] for entry in reversed(found["deployments"])} | {
        0: found["other"] + found["unknown"]
    }


async def shows(replicas: list[Replica], timeout: float = FOLLOWS, **numbers: object) -> float:
    """Wait until each replica gives these numbers; gives how long that took."""
    start = time.monotonic()

    def is_so() -> bool:
        return all(numbers.items() <= asked(replica).items() for replica in replicas)

    await eventually(is_so, timeout, f"{numbers} in {[asked(replica) for replica in replicas]}")
    return time.monotonic() - start


def told(board: Listener) -> dict[str, Any]:
    """The last thing that a board was told of who runs what."""
    found = [event.data for event in board.events if event.type == "adoption"]
    return found[-1] if found else {}


async def is_told(board: Listener, timeout: float = FOLLOWS, **numbers: object) -> None:
    """Wait until that has these numbers."""
    await eventually(lambda: numbers.items() <= told(board).items(), timeout, f"{numbers} in {told(board)}")


async def test_list_with_adoption(redis_server, start_replica, open_tabs):
    """A list says of each channel in it who runs what, over all replicas, as the channel's own route does."""
    replicas = [start_replica(redis_url=redis_server.url) for _ in range(2)]
    for number in (1, 2):
        await deploy(replicas[0], number)
    response = await asyncio.to_thread(post, replicas[0].url, deployment("api", gitTag="v9"))
    assert response.status_code == 201
    await open_tabs(replicas[0], running(1), 2)
    await open_tabs(replicas[1], running(2), 3)

    def listed(**parameters: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{replicas[0].url}/deployments", params={"adoption": "true", **parameters})
        found: list[dict[str, Any]] = answer.raise_for_status().json()["adoption"]
        return found

    await eventually(lambda: [one["streams"] for one in listed(appName="web")] == [5], FOLLOWS, "the count of all")
    [web] = listed(appName="web")
    own = asked(replicas[0])

    for name in ("appName", "environment", "since", "streams", "newest", "other", "unknown", "share", "stale"):
        assert web[name] == own[name]
    assert web["deployments"] == [{name: one[name] for name in ("deployedAt", "streams")} for one in own["deployments"]]
    assert [one["appName"] for one in listed()] == ["api", "web"]
    assert [one["appName"] for one in listed(gitTag="v9")] == ["api"]
    assert [one["appName"] for one in listed(limit="1")] == ["api"]
    assert "adoption" not in httpx.get(f"{replicas[0].url}/deployments").json()
    refused = httpx.get(f"{replicas[0].url}/deployments?adoption=1")
    assert (refused.status_code, refused.json()["detail"]) == (400, "adoption: must be true, or left out, not 1")


async def test_made_up_builds(redis_server, start_replica, open_tabs):
    """Streams of 33 made-up builds, while they are there and when they have left, keep no real tab from its count."""
    replicas = [start_replica(redis_url=redis_server.url) for _ in range(2)]
    await deploy(replicas[0], 1)
    for replica in replicas:
        made_up = [stream for number in range(33) for stream in await open_tabs(replica, f"made-up-{number}", 1)]
        early = await open_tabs(replica, running(2), 5)  # served before it is recorded
    await shows(replicas, newest=0, other=76)
    await deploy(replicas[0], 2)
    late = await open_tabs(replicas[1], running(2), 2)
    # By chance, one in a thousand, a made-up build counts as an early one.
    await eventually(lambda: all(12 <= asked(replica)["newest"] <= 14 for replica in replicas), FOLLOWS, "the tabs")
    for stream in (*made_up, *early[1:], *late):
        await stream.close()

    await eventually(lambda: all(6 <= asked(replica)["newest"] <= 8 for replica in replicas), FOLLOWS, "the rest")


async def test_tabs_follow_a_deployment(redis_server, start_replica, open_tabs, board):
    """Thirty tabs on two replicas: both replicas' answers and boards follow a deployment, and a rollback."""
    replicas = [start_replica(redis_url=redis_server.url) for _ in range(2)]
    first = await deploy(replicas[0], 1)
    boards = [await board(replica) for replica in replicas]
    old = [await open_tabs(replica, running(1), TABS // 2) for replica in replicas]
    await shows(replicas, streams=TABS, newest=TABS, share=1.0, since=first["deployedAt"])

    second = await deploy(replicas[1], 2)
    await shows(replicas, streams=TABS, newest=0, share=0.0, since=second["deployedAt"])
    for listener in [*old[0][:8], *old[1][:4]]:
        await listener.close()
    await open_tabs(replicas[0], running(2), 12)
    await open_tabs(replicas[1], None, 2)
    await shows(replicas, streams=TABS + 2, newest=12, unknown=2, share=0.4, other=0, stale=False)
    assert [by_build(asked(replica)) for replica in replicas] == [{2: 12, 1: 18, 0: 2}] * 2
    for watching in boards:
        await is_told(watching, newest=12, streams=TABS + 2)
        note = told(watching)
        assert note["deployments"] == [
            {"deployedAt": second["deployedAt"], "streams": 12},
            {"deployedAt": first["deployedAt"], "streams": 18},
        ]
        assert not {"samples", "reached"} & note.keys()
        assert all(event.id is None for event in watching.events)

    third = await deploy(replicas[0], 1)
    assert third["rollback"]
    await shows(replicas, streams=TABS + 2, newest=18, share=0.6, since=third["deployedAt"])
    assert [entry["streams"] for entry in asked(replicas[0])["deployments"]] == [18, 12, 0]


async def test_killed_replica_leaves_the_count(redis_server, start_replica, open_tabs, board):
    """The streams of a replica that was killed with -9 are counted for a few seconds, and then no more."""
    replicas = [start_replica(redis_url=redis_server.url) for _ in range(2)]
    await deploy(replicas[0], 1)
    await open_tabs(replicas[0], running(1), 5)
    await open_tabs(replicas[1], running(1), 7)
    watching = await board(replicas[0])
    await shows(replicas, streams=12)
    await is_told(watching, streams=12)
    replicas[1].kill()
    await shows(replicas[:1], FORGOTTEN, streams=5)
    await is_told(watching, FORGOTTEN, streams=5)


async def test_replica_that_is_shut_down_leaves_at_once(redis_server, start_replica, open_tabs):
    """A replica that ends in order takes its counts with it, long before they would expire."""
    replicas = [start_replica(redis_url=redis_server.url) for _ in range(2)]
    await deploy(replicas[0], 1)
    await open_tabs(replicas[0], running(1), 5)
    await open_tabs(replicas[1], running(1), 7)
    await shows(replicas, streams=12)
    await asyncio.to_thread(replicas[1].terminate)
    assert len(redis_server.cli("KEYS", "vectr0:replicas:*").split()) == 1

    assert await shows(replicas[:1], streams=5) < 4


async def test_redis_outage_makes_the_numbers_old(redis_server, start_replica, open_tabs, board):
    """While Redis is away the numbers of then are given, marked as old, at once; when it is back they are right again."""
    replicas = [start_replica(redis_url=redis_server.url) for _ in range(2)]
    await deploy(replicas[0], 1)
    old = await open_tabs(replicas[0], running(1), 3)
    await open_tabs(replicas[1], running(1), 4)
    watching = await board(replicas[0])
    await shows(replicas, streams=7, stale=False)
    await is_told(watching, streams=7)
    redis_server.kill()
    await shows(replicas, FORGOTTEN, streams=7, stale=True)
    await is_told(watching, FORGOTTEN, streams=7, stale=True)
    old_as_of = asked(replicas[0])["asOf"]
    assert old_as_of < time.time() * 1000 - 5000
    await old[0].close()
    start = time.monotonic()
    for replica in replicas:
        asked(replica)
    assert time.monotonic() - start < 6
    redis_server.start()

    await shows(replicas, 15.0, streams=6, stale=False)
    await is_told(watching, FORGOTTEN, streams=6, stale=False)
    assert asked(replicas[0])["asOf"] > old_as_of


async def test_curve_survives_restarts(redis_server, start_replica, open_tabs):
    """The samples since the newest deployment, and its milestones, are there after all replicas were restarted."""
    replica = start_replica(redis_url=redis_server.url)
    await deploy(replica, 1)
    newest = await deploy(replica, 2)
    old = await open_tabs(replica, running(1), 4)
    await shows([replica], streams=4, newest=0)
    await eventually(lambda: asked(replica)["samples"], what="a sample")
    for listener in old:
        await listener.close()
    await open_tabs(replica, running(2), 4)
    await eventually(lambda: asked(replica)["deployments"][0]["reached"]["99"] is not None, 30, "the last milestone")
    before = asked(replica)
    assert [sample["newest"] for sample in before["samples"]][-1] == 4
    assert 0 < before["deployments"][0]["reached"]["50"] <= before["deployments"][0]["reached"]["99"] < 30_000
    assert before["deployments"][1]["reached"] == {"50": None, "90": None, "99": None}
    replica.terminate()
    other = start_replica(redis_url=redis_server.url)

    after = asked(other)
    assert after["since"] == newest["deployedAt"]
    assert after["samples"][: len(before["samples"])] == before["samples"]
    assert after["deployments"][0]["reached"] == before["deployments"][0]["reached"]


async def test_forgotten_channel(redis_server, start_replica, open_tabs):
    """A channel that is forgotten leaves nothing behind, and has no adoption."""
    replica = start_replica(redis_url=redis_server.url)
    await deploy(replica, 1)
    await open_tabs(replica, running(1), 1)
    await eventually(lambda: asked(replica)["samples"], what="a sample")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert httpx.delete(f"{replica.url}/deployments/web/production", headers=headers).status_code == 204
    response = httpx.get(f"{replica.url}/deployments/web/production/adoption")

    assert response.status_code == 404
    assert response.json()["detail"] == "web/production has no deployment"
    await eventually(lambda: not redis_server.cli("KEYS", "vectr0:adoption:*"), what="the end of the curve")
    await eventually(lambda: not redis_server.cli("KEYS", "vectr0:replicas:*"), what="the end of the counts")


async def test_metrics(start_replica, open_tabs):
    """The gauge counts streams by what they run, in four series whatever they say."""
    replica = start_replica()
    await deploy(replica, 1)
    await deploy(replica, 2)
    for said, count in ((running(1), 3), (running(2), 2), (running(3), 1), (running(4), 1), (None, 4)):
        await open_tabs(replica, said, count)

    def series() -> dict[str, float]:
        names = ("newest", "older", "other", "unknown")
        return {name: replica.metric(f'vectr0_streams_running{{build="{name}"}}') for name in names}

    await eventually(lambda: series() == {"newest": 2, "older": 3, "other": 2, "unknown": 4}, what=f"not {series()}")
    text = httpx.get(f"{replica.url}/metrics").text
    assert text.count("\nvectr0_streams_running{") == 4


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """One service for what needs no Redis of its own."""
    replica = Replica(tmp_path_factory.mktemp("service"))
    try:
        yield replica.start()
    finally:
        replica.kill()


NO_BUILDS = [
    "running=", "running=unknown", "running=unknown~5", "notrunning=3f2c1ab", "Running=3f2c1ab", "running=feature/x",
    "running=3f2c1ab%7Eb", "running=~5", "running=a+b", "running=%C3%A9", "running=" + "x" * 65, "running=%",
    "running=3f2c1ab~9007199254740992", "running=a%00b", "running=a/b&running=3f2c1ab",
]  # fmt: skip


async def test_what_says_nothing_is_unknown(start_replica):
    """Whatever names no build opens a stream like any other, that is counted as unknown."""
    replica = start_replica()
    await deploy(replica, 1)
    listeners = [await Listener.open(f"{replica.url}/events/web/production?{query}") for query in NO_BUILDS]

    assert {listener.status for listener in listeners} == {200}
    await eventually(lambda: asked(replica)["unknown"] == len(NO_BUILDS), what="the count")
    for listener in listeners:
        await listener.close()


async def test_counted_with_either_end(replica, open_tabs):
    """A stream that is counted gets the same events as any other, and resumes by its id."""
    await deploy(replica, 1)
    second = await deploy(replica, 2)
    [listener] = await open_tabs(replica, running(1), 1)
    await eventually(lambda: listener.events, what="the first event")
    assert listener.deployments == [second]
    resumed = await Listener.open(
        f"{replica.url}/events/web/production?lastEventId={second['previous']}&running={running(2)}"
    )
    await eventually(lambda: resumed.events, what="the first event")

    assert resumed.deployments == [second]
    await resumed.close()


def test_channel_without_deployments(replica):
    """There is nothing to run, and a wrong parameter is named."""
    assert httpx.get(f"{replica.url}/deployments/made/up/adoption").status_code == 404
    assert httpx.get(f"{replica.url}/deployments/made/up/adoption?x=1").status_code == 400
    assert httpx.get(f"{replica.url}/deployments/-made/up/adoption").status_code == 404


def test_board_off(start_replica):
    """With VECTR0_BOARD=off nothing shows more than one named channel; each by its own name is there."""
    replica = start_replica(board="off")
    post(replica.url)
    for path in ("/events", "/deployments"):
        response = httpx.get(replica.url + path, headers={"Origin": "https://app.example"})
        assert response.status_code == 404
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["access-control-allow-origin"] == "*"
        assert "VECTR0_BOARD is off" in response.json()["detail"]

    for path in ("", "/latest", "/adoption"):
        assert httpx.get(f"{replica.url}/deployments/web/production{path}").status_code == 200
    with httpx.stream("GET", f"{replica.url}/events/web/production") as stream:
        assert stream.status_code == 200
    assert post(replica.url, deployment(version="2")).status_code == 201
    assert "web" not in httpx.get(f"{replica.url}/metrics").text
