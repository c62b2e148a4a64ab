import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from service.connections import Connections, connect
from service.deployment import KEPT, ChannelName, Submission
from service.store import Store, StoreUnavailableError, Ticket
from tests.parts import deployment

pytestmark = pytest.mark.anyio

WEB = ChannelName("web/production")


def submission(**fields: Any) -> Submission:
    return Submission.from_json(orjson.dumps(deployment(**fields)))


@pytest.fixture(params=["embedded", "redis-server"])
async def connections(request: pytest.FixtureRequest) -> AsyncIterator[Connections]:
    """Connections to each kind of Redis that the service runs on."""
    url = None if request.param == "embedded" else request.getfixturevalue("redis_server").url
    connections = connect(url)
    yield connections
    await connections.commands.aclose()
    await connections.subscription.aclose()


@pytest.fixture
def redis(connections: Connections) -> Redis:
    return connections.commands


@pytest.fixture
def store(connections: Connections) -> Store:
    return Store(connections, "vectr0")


async def test_deployments_are_a_chain(store, redis):
    """Each record names the one before it, ids grow, and the stored bytes are those that were given back."""
    first = await store.append(submission(version="1"))
    second = await store.append(submission(version="2"))

    assert first.outcome == second.outcome == "recorded"
    assert first.deployment.previous is None
    assert second.deployment.previous == first.deployment.id < second.deployment.id
    assert await redis.zrange("vectr0:deployments:{web/production}", 0, -1) == [
        first.deployment.json,
        second.deployment.json,
    ]
    assert await redis.zscore("vectr0:deployments:{web/production}", second.deployment.json) == second.deployment.id
    assert await redis.smembers("vectr0:channels") == {b"web/production"}


async def test_id_is_greater_than_the_last_also_when_the_clock_is_not(store, redis):
    """A channel whose last deployment lies in the future goes on from there by one."""
    await redis.zadd(
        "vectr0:deployments:{web/production}", {b'{"deployedAt":9000000000000,"previous":null}': 9_000_000_000_000}
    )

    appended = await store.append(submission())

    assert appended.deployment.id == 9_000_000_000_001
    assert appended.deployment.previous == 9_000_000_000_000


async def test_ten_are_kept(store):
    """Of more than ten deployments the newest ten are kept, oldest first."""
    appended = [await store.append(submission(buildNumber=n)) for n in range(KEPT + 3)]

    [history] = await store.histories([WEB])
    assert history == [a.deployment for a in appended[-KEPT:]]


async def test_record_is_published_as_it_is_stored(store, redis):
    """Subscribers get the very bytes that are stored."""
    pubsub = redis.pubsub()
    await pubsub.psubscribe(store.pattern)
    assert (await pubsub.get_message(timeout=5))["type"] == "psubscribe"
    appended = await store.append(submission())

    message = await pubsub.get_message(timeout=5)
    assert message["channel"] == b"vectr0:deployments:{web/production}"
    assert message["data"] == appended.deployment.json
    assert store.channel_of(message["channel"]) == WEB
    await pubsub.aclose()


async def test_repeat_of_the_newest_changes_nothing(store, redis):
    """The newest's payload posted again is answered with its record, and nothing is written or published."""
    first = await store.append(submission())
    again = await store.append(submission())

    assert again.outcome == "repeated"
    assert again.deployment == first.deployment
    assert await redis.zcard("vectr0:deployments:{web/production}") == 1


async def test_return_to_an_earlier_payload_is_a_deployment(store):
    """A payload that was posted before, but isn't the newest, is a deployment of its own."""
    first = await store.append(submission(version="1"))
    await store.append(submission(version="2"))
    third = await store.append(submission(version="1"))

    assert third.outcome == "recorded"
    assert third.deployment.id > first.deployment.id


async def test_key_is_remembered_whatever_came_in_between(store, redis):
    """The same key and payload give the record of then, although another deployment is the newest by now."""
    first = await store.append(submission(version="1"), "key")
    await store.append(submission(version="2"), "other")
    again = await store.append(submission(version="1"), "key")

    assert again.outcome == "repeated"
    assert again.deployment == first.deployment
    assert 86_000 < await redis.ttl("vectr0:idempotency:{web/production}:key") <= 86_400


async def test_key_of_a_repeat_is_remembered_too(store):
    """A key that came with a repeat of the newest gives that record also when another is the newest."""
    first = await store.append(submission(version="1"))
    await store.append(submission(version="1"), "key")
    await store.append(submission(version="2"))

    again = await store.append(submission(version="1"), "key")
    assert (again.outcome, again.deployment) == ("repeated", first.deployment)


async def test_key_with_another_payload_is_a_conflict(store, redis):
    """A key that was used for another payload records nothing."""
    await store.append(submission(version="1"), "key")
    conflict = await store.append(submission(version="2"), "key")

    assert conflict.outcome == "conflict"
    assert await redis.zcard("vectr0:deployments:{web/production}") == 1


async def test_key_is_of_its_channel(store):
    """The same key on another channel is another key."""
    await store.append(submission(), "key")
    other = await store.append(submission(environment="staging"), "key")

    assert other.outcome == "recorded"


async def test_ticket_is_good_for_one_record_of_a_channel(store, redis):
    """Another payload with it is a replay, which records nothing; on another channel it is as good as new."""
    ticket = Ticket("one", 600)
    first = await store.append(submission(version="1"), None, ticket)
    await store.append(submission(version="2"))
    replayed = await store.append(submission(version="3"), None, ticket)
    elsewhere = await store.append(submission(version="3", environment="staging"), None, ticket)

    assert (first.outcome, replayed.outcome, elsewhere.outcome) == ("recorded", "replayed", "recorded")
    assert replayed.deployment == first.deployment
    assert await redis.zcard("vectr0:deployments:{web/production}") == 2
    assert 590 < await redis.ttl("vectr0:tickets:{web/production}:one") <= 600


async def test_ticket_is_not_used_up_by_a_repeat(store):
    """What records nothing leaves it as it was; and what it recorded is repeated by its key, as ever."""
    ticket = Ticket("one", 600)
    await store.append(submission(version="1"))
    repeated = await store.append(submission(version="1"), None, ticket)
    recorded = await store.append(submission(version="2"), "key", ticket)
    again = await store.append(submission(version="2"), "key", ticket)

    assert (repeated.outcome, recorded.outcome, again.outcome) == ("repeated", "recorded", "repeated")
    assert again.deployment == recorded.deployment


@pytest.mark.parametrize("key", [None, "key"])
async def test_script_that_runs_twice_records_once(store, redis, monkeypatch, key):
    """A request whose script redis-py sends again is still the one that recorded, once."""
    evaluate = redis.eval

    async def twice(*arguments: object) -> object:
        await evaluate(*arguments)
        await store.append(submission(version="from somebody else"), "between")
        return await evaluate(*arguments)

    calls = iter([twice])

    async def twice_the_first_time(*arguments: object) -> object:
        return await next(calls, evaluate)(*arguments)

    monkeypatch.setattr(redis, "eval", twice_the_first_time)
    appended = await store.append(submission(version="1"), key)

    [history] = await store.histories([WEB])
    assert appended.outcome == "recorded"
    assert [d.fields["version"] for d in history] == ["1", "from somebody else"]


async def test_rollback_is_marked(store):
    """A build that was live before another is a rollback; a fresh one isn't; a build posted again keeps its mark."""
    builds = ["1", "2", "1", "1", "2", "3"]
    marks = []
    for number, version in enumerate(builds):
        appended = await store.append(submission(version=version, buildNumber=number))
        marks.append(appended.deployment.fields["rollback"])

    assert marks == [False, False, True, True, True, False]


async def test_record_that_is_not_ours_does_no_harm(store, redis):
    """A sorted set with a foreign member can be appended to and read; a key of another type counts as empty."""
    await redis.zadd("vectr0:deployments:{web/production}", {b"junk": 5})
    await redis.set("vectr0:deployments:{web/staging}", "junk")
    appended = await store.append(submission())

    assert appended.deployment.previous is None
    assert await store.histories([WEB, ChannelName("web/staging")]) == [[appended.deployment], []]


async def test_newest_records(store):
    """One round trip gives each channel's newest record, as it is stored."""
    await store.append(submission(version="1"))
    appended = await store.append(submission(version="2"))

    assert await store.newest([WEB, ChannelName("web/staging")]) == [appended.deployment, None]


async def test_forget(store, redis):
    """A forgotten channel has no history and no name, and subscribers are told that it has no newest."""
    pubsub = redis.pubsub()
    await pubsub.psubscribe(store.pattern)
    await pubsub.get_message(timeout=5)
    await store.append(submission())
    await pubsub.get_message(timeout=5)

    assert await store.forget(WEB) is True
    assert await store.forget(WEB) is False
    assert (await pubsub.get_message(timeout=5))["data"] == b"null"
    assert await store.histories([WEB]) == [[]]
    assert await store.names() == []
    await pubsub.aclose()


async def test_name_that_a_forget_took_comes_back(store, redis, monkeypatch):
    """A channel forgotten between the name and the first record of a posting is still listed."""
    evaluate = redis.eval

    async def after_forget(*arguments: object) -> object:
        await store.forget(WEB)
        return await evaluate(*arguments)

    monkeypatch.setattr(redis, "eval", after_forget)
    await store.append(submission())

    assert await store.names() == [WEB]


async def test_keys_of_a_channel_share_a_slot(store, redis):
    """The script's keys hash to one slot of a cluster, whatever a client chose as its key."""
    await store.append(submission(), "a{b}c")
    keys = [key for key in await redis.keys() if key != b"vectr0:channels"]

    assert len(keys) == 2
    assert len({key_slot(key) for key in keys}) == 1


async def test_prefix_with_a_globs_characters_is_taken_as_it_is(connections, redis):
    """A prefix is no pattern."""
    store = Store(connections, "a*[b]?")
    pubsub = redis.pubsub()
    await pubsub.psubscribe(store.pattern)
    await pubsub.get_message(timeout=5)
    await redis.publish("aXb?:deployments:{web/production}", "stranger")
    await store.append(submission())

    assert (await pubsub.get_message(timeout=5))["channel"] == b"a*[b]?:deployments:{web/production}"
    await pubsub.aclose()


async def test_cancelled_operation_leaves_no_reply_behind(redis_server):
    """An operation that is given up takes its connection with it: the next one gets its own reply."""
    store = Store(connect(redis_server.url), "vectr0")
    await store.names()
    redis_server.pause()
    task = asyncio.create_task(store.newest([WEB]))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    redis_server.resume()

    assert await store.names() == []
    await store.aclose()


async def test_redis_that_is_not_there_is_told_so():
    """Every operation fails within its deadline where nobody listens."""
    store = Store(connect("redis://127.0.0.1:1"), "vectr0")

    for operation in (store.append(submission()), store.names(), store.histories([WEB]), store.forget(WEB)):
        async with asyncio.timeout(3):
            with pytest.raises(StoreUnavailableError):
                await operation
    await store.aclose()
