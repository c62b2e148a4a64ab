"""Garbage in Redis: whatever somebody else puts under the hub's names, the hub goes on and tells no browser of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import product
from typing import Any

import httpx
import hypothesis.strategies as st
import orjson
import pytest
from hypothesis import example, given
from redis.asyncio import Redis

from service import records as module
from service.adoption import MAX_COUNT, MAX_CURVE_SIZE, Adoption, Curve, counts_from_json
from service.connections import connect
from service.deployment import MAX_INTEGER, MAX_RECORD_SIZE, ChannelName, Deployment, Submission
from service.records import MAX_KNOWN, MAX_PLACES, QUIET, Oddities, Records
from service.store import Store, Ticket
from tests.parts import TOKEN, Listener, Replica, deployment, eventually, post

pytestmark = pytest.mark.anyio

WEB = ChannelName("web/production")
KEY = "vectr0:deployments:{web/production}"


def record(**fields: Any) -> bytes:
    """A record as the script writes it, or one with other fields; those that are `...` are left out."""
    made = {**deployment(), "gitTag": None, "deployedAt": 2000, "previous": 1000, "rollback": False, **fields}
    return json.dumps({name: value for name, value in made.items() if value is not ...}).encode()


NO_RECORDS = {
    "nothing": b"",
    "no JSON": b"junk",
    "no object": b"[]",
    "no text": b"\xff\xfe\x00",
    "no end": record()[:-1],
    "nested deeply": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "over 16 KiB": record(more="x" * MAX_RECORD_SIZE),
    "10 MB": record(more="x" * 10_000_000),
    "NaN": record(deployedAt=float("nan")),
    "infinity": record(deployedAt=float("inf")),
    "1e300": record().replace(b"2000", b"1e300"),
    "2^64": record(deployedAt=2**64),
    "2^53 - 1": record(deployedAt=MAX_INTEGER),
    "negative": record(deployedAt=-1, previous=None),
    "zero": record(deployedAt=0, previous=None),
    "a float": record(deployedAt=2000.0),
    "a boolean": record(deployedAt=True, previous=None),
    "a text": record(deployedAt="2000"),
    "previous isn't before": record(previous=2000),
    "previous is a text": record(previous="1000"),
    **{f"without {name}": record(**{name: ...}) for name in orjson.loads(record()) if name != "gitTag"},
    "a name": record(appName="web\n"),
    "a version": record(version="1\u2028"),
    "a version too long": record(version="v" * 129),
    "a version that is none": record(version={"a": 1}),
    "a commit": record(gitCommit="<b>"),
    "a build number": record(buildNumber=2**64),
    "a build time": record(buildTime=-1),
    "a tag": record(gitTag=""),
    "no rollback": record(rollback="no"),
}


@pytest.mark.parametrize("text", NO_RECORDS.values(), ids=NO_RECORDS)
def test_what_is_no_record(text):
    """Every member that is known is checked as strictly as what comes from CI, and those of the script are required."""
    with pytest.raises(ValueError) as caught:
        Deployment.from_json(text)

    assert len(str(caught.value)) < 300


def test_members_of_a_later_version_pass():
    """Unknown members are let through, with the bytes as they are."""
    text = record(digest="sha256-abc", more={"a": [1e300]})
    read = Deployment.from_json(text)

    assert (read.json, read.id, read.previous, read.channel) == (text, 2000, 1000, WEB)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
RECORDS = st.fixed_dictionaries(
    {}, optional={name: JSON | st.just(value) for name, value in orjson.loads(record()).items()}
)
CURVES = st.fixed_dictionaries(
    {},
    optional={
        "newest": JSON,
        "reached": JSON | st.dictionaries(st.sampled_from(["1", "x", "9" * 5000]), st.dictionaries(st.text(), JSON)),
        "samples": JSON | st.lists(JSON | st.lists(JSON, min_size=4, max_size=4)),
    },
)


def as_json(value: object) -> bytes:
    return json.dumps(value).encode(errors="replace")  # with NaN and Infinity, as others write it


TEXTS = st.binary() | st.one_of(JSON, RECORDS, CURVES).map(as_json)


@given(TEXTS)
@example(b'{"newest":1e300,"reached":{},"samples":[]}')
@example(b'{"newest":1,"reached":{},"samples":[[1e300,1,1,1]]}')
@example(b'{"newest":1,"reached":{"1":{"50":18446744073709551616}},"samples":[]}')
@example(b'{"newest":true,"reached":{},"samples":[]}')
@example(b'{"":18446744073709551616}')
@example(b"[" * 100_000)
def test_decoders(text):
    """Whatever bytes they are given, they give what can be worked with and written again, or say that it is none."""
    try:
        read = Deployment.from_json(text)
    except ValueError:
        pass
    else:
        assert 0 < read.id < MAX_INTEGER
        assert read.previous is None or read.previous < read.id
    counts = counts_from_json(text)
    assert all(0 < count <= MAX_COUNT for count in counts.values())
    counted = Adoption.of(counts, [])
    orjson.dumps(counted.document())
    curve = Curve.from_json(text)
    curve.add(2**41, Adoption(((2**40, 3),), 0, 1))
    assert Curve.from_json(curve.json).json == curve.json
    assert Records(Oddities()).published(WEB, text) in (None, *([read] if "read" in locals() else []))


def test_long_texts_are_not_looked_at():
    """What is longer than any hub writes counts as none."""
    assert counts_from_json(b'{"a":1}' + b" " * 20_000) == {}
    assert Curve.from_json(b'{"newest":1,"reached":{},"samples":[]}' + b" " * MAX_CURVE_SIZE).newest is None


def test_kept_records(caplog):
    """Of a sorted set only records count: of this channel, with their deployedAt as the score, one for each."""
    good, better = record(deployedAt=1000, previous=None), record()
    twice = record(version="2", previous=None)
    members = [
        (record(deployedAt=1), float("-inf")), (good, 1000.0), (b"junk", 1500.0), (record(appName="api"), 2000.0),
        (record(deployedAt=1600), 1700.0), (twice, 2000.0), (better, 2000.0), (record(deployedAt=9), float("inf")),
    ]  # fmt: skip
    kept = Records(Oddities()).kept(WEB, members)

    assert [one.json for one in kept] == [good, better]
    assert len(caplog.messages) == 1


def test_known_records_are_not_read_again(monkeypatch):
    """The same bytes are one object; as that of another channel they are refused all the same, and the memory has a bound."""
    records = Records(Oddities())
    [first] = records.kept(WEB, [(record(), 2000.0)])
    [again] = records.kept(WEB, [(record(), 2000.0)])
    assert again is first
    assert records.published(ChannelName("api/production"), record()) is None

    monkeypatch.setattr(module, "MAX_KNOWN", 3)
    for number in range(2000, 2010):
        records.published(WEB, record(deployedAt=number))
    records.published(WEB, record(more="x" * 2000))
    assert len(records._known) == 3
    assert MAX_KNOWN > 3


def test_oddities_are_told_once_in_a_while(caplog):
    """One line a place, without what could break out of it; and no more places than so many."""
    now = [0.0]
    oddities = Oddities(lambda: now[0])
    for _ in range(100):
        oddities.pass_over("a place\n\x1b[2K\u2028FORGED" + "x" * 1000, "junk\nFORGED" + "y" * 1000)
    [message] = caplog.messages
    assert message.isprintable()
    assert message.isascii()
    assert len(message) < 600
    for number in range(2 * MAX_PLACES):
        oddities.pass_over(f"place {number}", "junk")
    assert len(caplog.messages) == MAX_PLACES
    now[0] = QUIET
    oddities.pass_over("place 1", "junk")
    assert len(caplog.messages) == MAX_PLACES + 1


# The real service, on a real Redis.


@pytest.fixture
async def redis(redis_server) -> AsyncIterator[Redis]:
    """Somebody else on the same Redis."""
    redis = Redis.from_url(redis_server.url)
    yield redis
    await redis.aclose()


async def everything_goes_on(replica: Replica, channel: str = "api/staging") -> None:
    """Another channel is recorded to, heard of and read, boards open, and the counts come."""
    app, environment = channel.split("/")
    listener = await Listener.open(f"{replica.url}/events/{channel}?running=3f2c1ab~1")
    board = await Listener.open(f"{replica.url}/events")
    before = len(listener.deployments)
    response = await asyncio.to_thread(post, replica.url, deployment(app, environment, version=str(id(listener))))
    assert response.status_code == 201, response.text
    await listener.has(before + 1)
    assert response.json() in listener.deployments
    await eventually(lambda: response.json() in board.deployments, what="the board's")
    await listener.close()
    await board.close()
    assert replica.process is not None
    assert replica.process.poll() is None
    assert replica.health()["relay"]["state"] == "live"
    assert not any(word in replica.log for word in ("Traceback", "ERROR", "CRITICAL")), replica.log


TYPES: dict[str, Any] = {
    "a string": lambda redis, key: redis.set(key, b"\xff junk"),
    "a list": lambda redis, key: redis.rpush(key, "junk"),
    "a hash": lambda redis, key: redis.hset(key, "junk", "junk"),
    "a set": lambda redis, key: redis.sadd(key, "junk", b"\xff", "a\n/b", "x" * 10_000_000, "9" * 16),
    "a sorted set": lambda redis, key: redis.zadd(key, {b"junk": float("inf"), b"\xff": float("-inf")}),
}
KEYS = (
    KEY,
    "vectr0:channels",
    "vectr0:adoption:{web/production}",
    "vectr0:replicas",
    "vectr0:replicas:9999999999999999",
    "vectr0:census",
)


@pytest.mark.parametrize("put", TYPES.values(), ids=TYPES)
async def test_keys_of_any_type(redis, redis_server, start_replica, put):
    """Whatever type each key has, everything else goes on, at once and after some turns of the census."""
    for key in KEYS:
        await put(redis, key)
    replica = await asyncio.to_thread(start_replica, redis_url=redis_server.url)
    listener = await Listener.open(f"{replica.url}/events/web/production?running=3f2c1ab~1")
    board = await Listener.open(f"{replica.url}/events")
    await everything_goes_on(replica)
    response = await asyncio.to_thread(post, replica.url)
    if response.status_code == 503:  # and then it says what to do
        assert "DELETE /deployments/web/production" in response.json()["detail"]
        assert int(response.headers["retry-after"]) > 0
        await asyncio.to_thread(forget, replica, "web/production")
        response = await asyncio.to_thread(post, replica.url)
    assert response.status_code == 201
    await eventually(lambda: listener.deployments == [response.json()], what="the deployment")
    await eventually(lambda: told(board) and told(board)[-1]["newest"] == 1, what="who runs it, counted by a census")
    await everything_goes_on(replica)
    assert replica.metric('vectr0_task_failures_total{task="census"}') == 0
    status = await asyncio.to_thread(replica.terminate)
    await listener.close()
    await board.close()

    assert status == 0
    assert listener.deployments == [response.json()]
    assert replica.log.count("\n") < 40, replica.log


def told(board: Listener) -> list[dict[str, Any]]:
    """What a board was told of who runs what on web/production."""
    return [event.data for event in board.events if event.type == "adoption" and event.data["appName"] == "web"]


def forget(replica: Replica, channel: str) -> None:
    response = httpx.delete(f"{replica.url}/deployments/{channel}", headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 204, response.text


SCORES = ("inf", "-inf", "1e300", "9007199254740991", "9007199254740990", "1.5", "2000")


async def test_members_that_are_no_record(redis, redis_server, start_replica):
    """Streams keep what is a record, a posting makes room for the next ones, and nobody is told of anything else."""
    replica = await asyncio.to_thread(start_replica, redis_url=redis_server.url)
    odd = [b"junk", record(appName="other"), record(appName="other", deployedAt=2**53 - 1), b"x" * 10_000_000]
    cases = {f"c{number}": case for number, case in enumerate(product(SCORES, odd))}
    listeners, recorded = {}, {}
    for app, (score, text) in cases.items():
        first = await asyncio.to_thread(post, replica.url, deployment(app, version="first"))
        listeners[app] = await Listener.open(f"{replica.url}/events/{app}/production")
        await listeners[app].has(1)
        await redis.execute_command("ZADD", f"vectr0:deployments:{{{app}/production}}", score, text)
        await redis.publish(f"vectr0:deployments:{{{app}/production}}", b"null")  # have it read at once
        recorded[app] = [first.json()]
    await everything_goes_on(replica)
    await eventually(lambda: replica.log.count("passed over") == len(cases), what="a line for each")
    for app, listener in listeners.items():
        second = await asyncio.to_thread(post, replica.url, deployment(app, version="second"))
        assert second.status_code == 201, second.text
        recorded[app].append(second.json())
        await listener.has(2)
    await everything_goes_on(replica)

    for app, listener in listeners.items():
        assert listener.deployments == recorded[app], cases[app][0]
        assert recorded[app][1]["previous"] == recorded[app][0]["deployedAt"]
        assert await redis.zrange(f"vectr0:deployments:{{{app}/production}}", -1, -1) == [
            orjson.dumps(recorded[app][1])
        ]
        await listener.close()
    assert replica.log.count("passed over") == len(cases)


@pytest.mark.parametrize("kind", ["idempotency", "tickets"])
@pytest.mark.parametrize("put", TYPES.values(), ids=TYPES)
async def test_memories_that_are_none(redis, redis_server, put, kind):
    """What a key or a ticket is remembered with, and is no record, remembers nothing: the posting is recorded."""
    await put(redis, f"vectr0:{kind}:{{web/production}}:a")
    store = Store(connect(redis_server.url), "vectr0")
    submission = Submission.from_json(orjson.dumps(deployment()))
    appended = await store.append(submission, "a", Ticket("a", 60))
    again = await store.append(submission, "a", Ticket("a", 60))
    await store.aclose()

    assert (appended.outcome, again.outcome) == ("recorded", "repeated")
    assert again.deployment == appended.deployment


async def test_forged_messages(redis, redis_server, start_replica):
    """Messages that follow on what a channel has, and hold anything that CI couldn't have said, reach no browser."""
    replica = await asyncio.to_thread(start_replica, redis_url=redis_server.url)
    first = (await asyncio.to_thread(post, replica.url)).json()
    listener = await Listener.open(f"{replica.url}/events/web/production")
    board = await Listener.open(f"{replica.url}/events")
    await listener.has(1)
    await board.has(1)
    follows = {"deployedAt": first["deployedAt"] + 1, "previous": first["deployedAt"]}
    forged = [
        *NO_RECORDS.values(),
        record(**follows, version="\u2028"),
        record(**follows, gitTag=5),
        record(**follows, appName="api"),
        record(**follows, environment="staging"),
        record(**follows, rollback=...),
        record(**follows, more="x" * MAX_RECORD_SIZE),
        record(**follows, more="x" * 10_000_000),
    ]
    for message in forged:
        assert await redis.publish(KEY, message) == 1
    for name in ("vectr0:deployments:{}", "vectr0:deployments:{a\n/b}", "vectr0:deployments:{a/b}c/d}"):
        await redis.publish(name, record(**follows))
    await everything_goes_on(replica)
    second = (await asyncio.to_thread(post, replica.url, deployment(version="2"))).json()
    await listener.has(2)
    await eventually(lambda: second in board.deployments, what="the board's")
    await listener.close()
    await board.close()

    assert listener.deployments == [first, second]
    assert {json.dumps(one) for one in board.deployments if one["appName"] == "web"} == {
        json.dumps(first),
        json.dumps(second),
    }
    assert replica.log.count("passed over") == 1, replica.log
    assert replica.metric("vectr0_relay_reconnects_total") == 0


async def test_what_other_replicas_count(redis, redis_server, start_replica):
    """Counts that none would write are passed over, with those that are right beside them; so are the names."""
    replica = await asyncio.to_thread(start_replica, redis_url=redis_server.url)
    await asyncio.to_thread(post, replica.url)
    listener = await Listener.open(f"{replica.url}/events/web/production?running=3f2c1ab~1")
    board = await Listener.open(f"{replica.url}/events")
    odd = [b"junk", b"[]", b'{"a":18446744073709551616}', b'{"a":-1}', b'{"a":1e300}', b'{"a":1.5}', b'{"a":true}',
           b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", b"x" * 10_000_000]  # fmt: skip
    for number, text in enumerate(odd):
        await redis.hset(f"vectr0:replicas:odd{number}", mapping={b"web/production": text, b"\xff": b'{"a":1}'})
        await redis.sadd("vectr0:replicas", f"odd{number}", b"\xff\n", f"junk {number}")
    await redis.hset("vectr0:replicas:good", mapping={"web/production": b'{"3f2c1ab~1":41}', "a\n/b": b'{"a":1}'})
    await redis.sadd("vectr0:replicas", "good")
    await redis.set("vectr0:adoption:{web/production}", b'{"newest":1,"reached":{},"samples":[[1e300,1,1,1]]}')

    def counted() -> bool:
        said = [event.data for event in board.events if event.type == "adoption"]
        return bool(said) and said[-1]["newest"] == 42

    await eventually(counted, what="the counts")
    await everything_goes_on(replica)
    await listener.close()
    await board.close()

    assert replica.metric('vectr0_task_failures_total{task="census"}') == 0
    assert await redis.smembers("vectr0:replicas") == {*(f"odd{number}".encode() for number in range(len(odd))), b"good",
                                                       *(one for one in await redis.smembers("vectr0:replicas") if len(one) == 16)}  # fmt: skip
    assert 1 <= replica.log.count("passed over") <= len(odd) + 4, replica.log


async def test_lease_that_never_ends(redis, redis_server, start_replica):
    """A turn to keep the curves that nobody took ends, and a replica takes it."""
    await redis.set("vectr0:census", "junk")
    replica = await asyncio.to_thread(start_replica, redis_url=redis_server.url)
    async with asyncio.timeout(20):
        while await redis.get("vectr0:census") in (None, b"junk"):
            await asyncio.sleep(0.1)
    await everything_goes_on(replica)

    assert 0 < await redis.pttl("vectr0:census") <= 8000


async def test_hundreds_of_thousands_of_names(redis, redis_server, start_replica):
    """Names that no channel can have cost a moment each time they are read, and nothing is made of them."""
    for start in range(0, 300_000, 10_000):
        await redis.sadd("vectr0:channels", *(f"no channel {number}" for number in range(start, start + 10_000)))
    replica = await asyncio.to_thread(start_replica, redis_url=redis_server.url)
    await everything_goes_on(replica)

    assert replica.metric("vectr0_channels") < 10
