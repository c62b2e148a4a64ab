"""The streams of one service, byte by byte, as DESIGN.md has them."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.parts import TOKEN, Event, Listener, Replica, deployment, eventually

pytestmark = pytest.mark.anyio

MALFORMED_IDS = (
    "", "0", "-1", "+5", "1e3", " 5", "5 ", "5,6", "0x10", "1_000", "1.0", "null", "NaN", "abc",
    "٣", "²", str(2**53), "9" * 20, "9" * 5000,
)  # fmt: skip
CHANNEL_NAMES = (
    "-web/production",
    "web/.x",
    "we b/production",
    "web/a\nb",
    "web/" + "x" * 65,
    "wéb/production",
    "..%2f/x",
)


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """One service for all; each test has channels of its own."""
    replica = Replica(tmp_path_factory.mktemp("service"))
    try:
        yield replica.start()
    finally:
        replica.kill()


@pytest.fixture
async def client(replica: Replica) -> AsyncIterator[httpx.AsyncClient]:
    """A client that may record."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=replica.url, headers=headers) as client:
        yield client


Listen = Callable[..., Awaitable[Listener]]


@pytest.fixture
async def listen(replica: Replica) -> AsyncIterator[Listen]:
    """Open a stream and wait for its first event; all are closed at the end."""
    listeners: list[Listener] = []

    async def opened(path: str, last_event_id: int | str | None = None) -> Listener:
        listener = await Listener.open(replica.url + path, last_event_id)
        listeners.append(listener)
        assert listener.status == 200
        await eventually(lambda: listener.events, what="the first event")
        return listener

    yield opened
    for listener in listeners:
        await listener.close()


async def record(client: httpx.AsyncClient, channel: str, version: str) -> httpx.Response:
    """Post a deployment that is new."""
    app, environment = channel.split("/")
    response = await client.post("/deployments", json=deployment(app, environment, version=version))
    assert response.status_code == 201, response.text
    return response


async def fill(client: httpx.AsyncClient, channel: str, count: int) -> list[int]:
    """Record so many deployments, and give their ids."""
    return [(await record(client, channel, f"1.{n}.0")).json()["deployedAt"] for n in range(count)]


async def first_events(url: str, last_event_id: str | None = None) -> Listener:
    """Read what a stream begins with, and close it."""
    listener = await Listener.open(url, last_event_id)
    assert listener.status == 200
    await eventually(lambda: listener.events, what="the first event")
    await listener.close()
    return listener


def assert_unbroken(records: list[dict[str, Any]]) -> None:
    for earlier, later in pairwise(records):
        assert later["previous"] == earlier["deployedAt"], [record["deployedAt"] for record in records]


async def test_newest_deployment_comes_at_once(replica, client):
    """A stream without an id starts with `retry` and the channel's newest, its bytes those of the answer to the POST."""
    await fill(client, "web/newest", 3)
    newest = await record(client, "web/newest", "2.0.0")
    listener = await first_events(f"{replica.url}/events/web/newest")

    (retry,) = listener.retries
    event = b"id: %d\nevent: deployment\ndata: %b\n\n" % (newest.json()["deployedAt"], newest.content)
    assert listener.raw == b"retry: %d\n\n" % retry + event


async def test_live_deployment_comes_as_it_was_answered(client, listen):
    """What is posted arrives with the same bytes, and the same fields in the same order."""
    listener = await listen("/events/web/live")
    start = len(listener.raw)
    response = await record(client, "web/live", '1.0.0 größer 🚀 "x')
    await listener.has(1)

    event = b"id: %d\nevent: deployment\ndata: %b\n\n" % (response.json()["deployedAt"], response.content)
    assert listener.raw[start:] == event


@pytest.mark.parametrize("last_event_id", [None, "newest"])
async def test_nothing_to_send_is_a_ping(last_event_id, replica, client):
    """A stream on an unknown channel, or one that has the newest already, starts with a ping, which has no id."""
    channel = "web/nothing"
    if last_event_id:
        last_event_id = str((await fill(client, channel, 1))[0])
    before = time.time_ns() // 1_000_000
    listener = await first_events(f"{replica.url}/events/{channel}", last_event_id)

    (event,) = listener.events
    assert listener.raw == b'retry: %d\n\nevent: ping\ndata: {"now":%d}\n\n' % (
        listener.retries[0],
        event.data["now"],
    )
    assert before <= event.data["now"] <= time.time_ns() // 1_000_000


async def test_retry_is_random(replica):
    """Every stream is told another time to come back, from 1 to 5 s."""
    listeners = await asyncio.gather(*(first_events(f"{replica.url}/events/web/retry") for _ in range(20)))

    retries = [listener.retries[0] for listener in listeners]
    assert all(1000 <= retry <= 5000 for retry in retries)
    assert len(set(retries)) > 10


@pytest.mark.parametrize("path", ["/events/web/headers", "/events"])
async def test_headers(path, replica):
    """A stream says what it is, that nobody may keep, change or hold it back, and who may read it; each header once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nOrigin: https://a.example\r\n\r\n".encode())
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    writer.close()

    names = [line.partition(": ")[0].lower() for line in lines]
    headers = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in lines}
    assert status == "HTTP/1.1 200 OK"
    assert len(names) == len(set(names))
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", headers.pop("date"))
    headers.pop("access-control-expose-headers")
    assert headers == {
        "content-type": "text/event-stream",
        "cache-control": "no-store, no-transform",
        "x-accel-buffering": "no",
        "connection": "close",
        "transfer-encoding": "chunked",
        "vary": "Origin",
        "access-control-allow-origin": "*",
    }


async def test_resumes_after_an_id(replica, client):
    """A stream with an id gets everything kept after it, in order, each once: by header, by parameter, or by both."""
    ids = await fill(client, "web/resume", 12)
    url = f"{replica.url}/events/web/resume"
    by_header = await first_events(url, str(ids[5]))
    by_parameter = await first_events(f"{url}?lastEventId={ids[8]}")
    by_both = await first_events(f"{url}?lastEventId={ids[4]}", str(ids[10]))
    by_what_is_valid = await first_events(f"{url}?lastEventId={ids[9]}", "nonsense")
    between_two = await first_events(url, str(ids[6] - 1))

    assert by_header.ids == ids[6:]
    assert by_parameter.ids == ids[9:]
    assert by_both.ids == ids[11:]
    assert by_what_is_valid.ids == ids[10:]
    assert between_two.ids == ids[6:]
    assert [event.id for event in by_header.events] == [str(id_) for id_ in ids[6:]]


async def test_id_older_than_the_oldest_kept(replica, client):
    """All ten come to a reader that has seen none of them; that it missed some shows in `previous`."""
    ids = await fill(client, "web/older", 12)
    url = f"{replica.url}/events/web/older"
    dropped = await first_events(url, str(ids[0]))
    last_dropped = await first_events(url, str(ids[1]))
    ancient = await first_events(url, "1")

    assert dropped.ids == last_dropped.ids == ancient.ids == ids[2:]
    assert dropped.deployments[0]["previous"] != ids[0]
    assert last_dropped.deployments[0]["previous"] == ids[1]


async def test_malformed_id_is_as_none(replica, client):
    """What isn't an integer from 1 to 2^53 - 1 gives the newest, whether it stands in the header or in the query."""
    ids = await fill(client, "web/malformed", 3)
    url = f"{replica.url}/events/web/malformed"
    # HTTP takes the blanks around a value away, so some can only be said in a query.
    in_headers = [value for value in MALFORMED_IDS if value == value.strip()]
    by_header = await asyncio.gather(*(first_events(url, v.encode().decode("latin-1")) for v in in_headers))
    by_parameter = await asyncio.gather(*(first_events(f"{url}?lastEventId={quote(v)}") for v in MALFORMED_IDS))

    for value, listener in zip((*in_headers, *MALFORMED_IDS), (*by_header, *by_parameter), strict=True):
        assert listener.ids == ids[-1:], repr(value)


async def test_id_ahead_is_as_none(redis_server, start_replica):
    """An id that even Redis doesn't know gives the newest; however many bring one, it is read once a second at most."""
    replica = start_replica(redis_url=redis_server.url)
    url = f"{replica.url}/events/web/ahead"
    async with httpx.AsyncClient(base_url=replica.url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        ids = await fill(client, "web/ahead", 3)
    await first_events(url)

    def reads() -> int:
        # A reconcile reads the newest only, and so counts here as well: once in three seconds.
        return int(redis_server.cli("INFO", "commandstats").split("cmdstat_zrange:calls=")[1].split(",")[0])

    before, started = reads(), time.monotonic()
    listeners = await asyncio.gather(*(first_events(url, str(2**53 - 1 - n)) for n in range(40)))
    allowed = 2 + 2 * (time.monotonic() - started)

    assert [listener.ids for listener in listeners] == [ids[-1:]] * 40
    assert 1 <= reads() - before <= allowed


async def test_unknown_parameters_are_ignored(replica, client):
    """A stream is never refused for what its query says."""
    ids = await fill(client, "web/parameters", 2)
    queries = (f"?x=1&lastEventId={ids[0]}&token=y", "?", "?&&=", "?%ff=%ff&%00", "?lastEventId", "?lasteventid=5")
    listeners = [await first_events(f"{replica.url}/events/web/parameters{query}") for query in queries]
    board = await first_events(f"{replica.url}/events?lastEventId=7&x")

    assert [listener.ids for listener in listeners] == [ids[1:]] * len(queries)
    assert board.events


async def test_pings(client, listen):
    """Every kind of stream hears the server's clock within 15 s, as an event with a name, and without an id."""
    ids = await fill(client, "web/pings", 1)
    opened_at = time.monotonic()
    listeners = [await listen(path) for path in ("/events/web/pings", "/events/web/unknown", "/events") * 8]
    firsts = [len(listener.events) for listener in listeners]

    def pings() -> list[Event]:
        later = [listener.events[first:] for listener, first in zip(listeners, firsts, strict=True)]
        return [next(event for event in events if event.type == "ping") for events in later]

    def all_have_one() -> bool:
        with suppress(StopIteration, RuntimeError):
            return len(pings()) == len(listeners)
        return False

    await eventually(all_have_one, timeout=18, what="a ping on each")

    assert listeners[0].ids == ids
    for ping in pings():
        assert (ping.type, ping.id, list(ping.data)) == ("ping", None, ["now"])
        assert abs(ping.data["now"] / 1000 - (time.time() - (time.monotonic() - ping.at))) < 1
        assert ping.at - opened_at < 16
    ats = [ping.at for ping in pings()]
    assert max(ats) - min(ats) > 3, "they are spread over the interval"


@pytest.mark.parametrize("path", ["/events/web/head", "/events"])
async def test_head(path, replica):
    """HEAD gives the stream's headers, opens none, and leaves the connection good for another request."""
    opened = replica.metric("vectr0_streams_opened_total")
    reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
    writer.write(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    rest = await asyncio.wait_for(reader.read(), 5)
    writer.close()

    assert head.startswith("http/1.1 200 ok\r\n")
    for line in ("content-type: text/event-stream", "cache-control: no-store, no-transform", "x-accel-buffering: no",
                 "vary: origin", "access-control-allow-origin: *"):  # fmt: skip
        assert f"\r\n{line}\r\n" in head
    assert "content-length" not in head, "it would be that of the stream (RFC 9110, section 8.6)"
    assert rest.startswith(b"HTTP/1.1 200 OK\r\n")
    assert rest.endswith(b'{"status":"alive"}')
    assert replica.metric("vectr0_streams_opened_total") == opened


async def test_head_and_get_refuse_alike(replica, client):
    """HEAD is refused where GET is."""
    response = await client.head("/events/-web/production")

    assert response.status_code == 404


async def test_origins(start_replica):
    """A page of a listed origin may listen, and what is no page; any other origin gets 403, for good."""
    replica = start_replica(origins="https://app.example,https://b.example")
    url = f"{replica.url}/events/web/production"
    listed = await first_events_from(url, "https://b.example")
    no_page = await first_events_from(url, None)
    async with httpx.AsyncClient() as client:
        refused = [
            await client.request(method, replica.url + path, headers={"Origin": origin})
            for method in ("GET", "HEAD", "OPTIONS")
            for path in ("/events/web/production", "/events")
            for origin in ("https://evil.example", "null", "https://APP.example", "http://app.example", "")
        ]

    assert listed.headers["access-control-allow-origin"] == "https://b.example"
    assert no_page.status == 200
    assert "access-control-allow-origin" not in no_page.headers
    assert listed.headers["vary"] == no_page.headers["vary"] == "Origin"
    for response in refused:
        assert response.status_code == 403
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["vary"] == "Origin"
        assert "access-control-allow-origin" not in response.headers


async def first_events_from(url: str, origin: str | None) -> Listener:
    listener = await Listener.open(url, headers={"Origin": origin} if origin else None)
    await listener.close()
    return listener


@pytest.mark.parametrize("name", CHANNEL_NAMES)
async def test_malformed_channel(name, replica, client):
    """A name that no deployment can have is 404 with the rule; the page may read it."""
    response = await client.get(f"/events/{quote(name, safe='/%')}")

    problem = response.json()
    assert (response.status_code, problem["status"]) == (404, 404)
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    "path",
    [
        "/events/web",
        "/events/web/production/x",
        "/events/",
        "//events",
        "/events//",
        "/events//production",
        "/events/web//",
        "/events/web//production",
        "/events%0a",
        "/events/%0a",
    ],
)
async def test_no_such_path(path, replica):
    """A path beside the routes is 404. With an empty name it is none of a channel, and never that of all of them."""
    listener = await Listener.open(replica.url + path)
    await listener.close()

    assert listener.status == 404
    assert listener.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "path", ["/events/web/slashes/", "//events/web/slashes", "/events//web/slashes", "///events//web/slashes//"]
)
async def test_additional_slashes(path, replica, client, listen):
    """What plainly means a channel's stream is served: at a 404 an EventSource gives up for good."""
    await fill(client, "web/slashes", 1)
    stream = await listen(path)
    live = (await record(client, "web/slashes", "9.0.0")).json()
    await eventually(lambda: live in stream.deployments, what="the live deployment")
    await client.delete("/deployments/web/slashes")


@pytest.mark.parametrize(
    "path", ["/hub/events/web/slashes/", "//hub//events/web/slashes", "/hub//events//web/slashes/"]
)
async def test_additional_slashes_below_a_prefix(path, start_replica):
    """It is served below a path prefix, too; what isn't about one channel still needs its exact path."""
    replica = start_replica(root_path="/hub")
    stream = await first_events_from(replica.url + path, None)
    fenced = [
        await first_events_from(replica.url + other, None) for other in ("//hub/metrics", "/hub//metrics", "//hub")
    ]

    assert stream.status == 200
    assert [one.status for one in fenced] == [404] * 3


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE"])
@pytest.mark.parametrize("path", ["/events/web/production", "/events"])
async def test_methods(method, path, client):
    """A stream can only be read."""
    response = await client.request(method, path)

    assert response.status_code == response.json()["status"] == 405
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["allow"] == "GET, HEAD, OPTIONS"


async def test_http_1_0(replica, client):
    """HTTP/1.0 has no chunks: the body is the events, live ones too."""
    (first,) = await fill(client, "web/old", 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
    writer.write(b"GET /events/web/old HTTP/1.0\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    retry = await reader.readuntil(b"\n\n")
    newest = await reader.readuntil(b"\n\n")
    live = await record(client, "web/old", "2.0.0")
    event = await asyncio.wait_for(reader.readuntil(b"\n\n"), 5)
    writer.close()

    assert b"transfer-encoding" not in head.lower()
    assert re.fullmatch(rb"retry: \d{4}\n\n", retry)
    assert newest.startswith(b"id: %d\nevent: deployment\ndata: {" % first)
    assert event == b"id: %d\nevent: deployment\ndata: %b\n\n" % (live.json()["deployedAt"], live.content)


async def test_no_gap_and_no_repeat_between_replay_and_live(replica, client):
    """Streams that open while deployments are being posted get an unbroken chain, from where they start to the end."""
    channel, posted = "web/race", await fill(client, "web/race", 5)
    url = f"{replica.url}/events/{channel}"
    listeners: list[tuple[int | None, Listener]] = []

    async def post_all() -> None:
        for number in range(30):
            posted.append((await record(client, channel, f"2.{number}.0")).json()["deployedAt"])
            await asyncio.sleep(0.03)  # spread over a second

    async def open_all(posting: asyncio.Task[None], *, resume: bool) -> None:
        while not posting.done():
            last_event_id = posted[-1] if resume else None
            listeners.append((last_event_id, await Listener.open(url, last_event_id)))

    async with asyncio.TaskGroup() as tasks:
        posting = tasks.create_task(post_all())
        for resume in (True, True, False, False):
            tasks.create_task(open_all(posting, resume=resume))
    behind = [listener for last_event_id, listener in listeners if last_event_id != posted[-1]]
    await eventually(lambda: all(listener.ids[-1:] == posted[-1:] for listener in behind), what="the last deployment")
    for _, listener in listeners:
        await listener.close()

    assert len(listeners) > 60
    for last_event_id, listener in listeners:
        assert_unbroken(listener.deployments)
        if last_event_id is not None and listener.deployments:
            assert listener.deployments[0]["previous"] == last_event_id


async def test_forgotten_channel(client, listen):
    """A forgotten channel's streams stay, and hear of its next first deployment; new ones find nothing."""
    ids = await fill(client, "web/forgotten", 2)
    stayed = await listen("/events/web/forgotten")
    deleted = await client.delete("/deployments/web/forgotten")
    after_it = await listen("/events/web/forgotten", ids[1])
    again = (await record(client, "web/forgotten", "3.0.0")).json()
    await asyncio.gather(stayed.has(2), after_it.has(1))

    assert deleted.status_code == 204
    assert after_it.events[0].type == "ping"
    assert again["previous"] is None
    assert stayed.ids == [ids[1], again["deployedAt"]]
    assert after_it.ids == [again["deployedAt"]]


async def test_board(client, listen):
    """A board starts with each channel's newest, in their order, and hears of everything, without ids."""
    newest = [(await fill(client, "board/a", 3))[-1], (await fill(client, "board/b", 2))[-1]]
    board = await listen("/events")
    start = board.ids
    later = [(await record(client, channel, "9.0.0")).json() for channel in ("board/new", "board/a")]
    await eventually(lambda: all(deployment in board.deployments for deployment in later), what="both that came later")

    assert start == sorted(start)
    assert start[-2:] == newest
    assert sorted(board.ids) == sorted([*start, *(deployment["deployedAt"] for deployment in later)])
    assert {event.id for event in board.events} == {None}
