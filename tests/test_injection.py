"""What no client may do with bytes alone: make an event or a field in somebody's stream, a header, or a 500."""

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from operator import itemgetter
from typing import Any

import pytest

from tests.parts import TOKEN, Listener, RedisServer, Replica, deployment, eventually

pytestmark = pytest.mark.anyio

CHANNEL = "web/production"
ORIGIN = "https://app.example"

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """One service for all tests here; it answers with an origin, so it could be made to answer with another."""
    folder = tmp_path_factory.mktemp("injection")
    redis_server = RedisServer(folder).start()
    replica = Replica(folder, redis_url=redis_server.url, origins=ORIGIN)
    try:
        yield replica.start()
    finally:
        replica.kill()
        redis_server.kill()


class Answer:
    """A response, taken apart as strictly as it may be written."""

    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        status_line, *lines = head.split(b"\r\n")
        match = re.fullmatch(rb"HTTP/1\.1 (\d{3}) [A-Za-z' -]+", status_line)
        assert match, raw[:200]
        assert not re.search(rb"[\r\n\0]", b"".join(lines)), raw[:200]
        self.status = int(match[1])
        self.headers = {name.lower().decode(): value for name, _, value in (line.partition(b":") for line in lines)}

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(replica: Replica, request: bytes, newest: bytes = b"") -> Answer:
    """Send bytes, and give what comes until the connection ends, or on a stream an event, that of an id if given."""
    until = re.compile(rb"text/event-stream.*%b[^\n]*\}\n\n" % newest, re.DOTALL)
    reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
    raw = b""
    try:
        async with asyncio.timeout(10):
            writer.write(request)
            while not until.search(raw) and (chunk := await reader.read(65536)):
                raw += chunk
    except ConnectionResetError:  # an answer that came before all of the request was read
        pass
    finally:
        writer.close()
    return Answer(raw)


def request(method: bytes, target: bytes, *lines: bytes, body: bytes = b"", host: bytes = b"Host: a\r\n") -> bytes:
    """Put a request together as it is, without a look at its bytes; ``lines`` are header lines."""
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    head = b"%b %b HTTP/1.1\r\n%bConnection: close\r\n%b" % (method, target, host, length)
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


async def send(replica: Replica, body: bytes, *lines: bytes, target: bytes = b"/deployments") -> Answer:
    """Post a body; header lines that are given stand before the usual ones, and replace them."""
    names = {line.partition(b":")[0].lower() for line in lines}
    usual = [f"Authorization: Bearer {TOKEN}".encode(), b"Content-Type: application/json"]
    usual = [line for line in usual if line.partition(b":")[0].lower() not in names]
    return await ask(replica, request(b"POST", target, *lines, *usual, body=body))


def body_with(field: str, literal: bytes) -> bytes:
    """A deployment that no other equals, with one field as a literal of JSON, well-formed or not."""
    fields = deployment(gitTag="v1", gitCommit=f"c{next(_numbers)}", buildNumber=next(_numbers))
    members = [(name.encode(), json.dumps(value).encode()) for name, value in fields.items() if name != field]
    return b"{" + b",".join(b'"%b":%b' % member for member in [*members, (field.encode(), literal)]) + b"}"


class Witness:
    """A stream of the channel, and a board, that must see what was recorded and nothing else."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.recorded: list[dict[str, Any]] = []

    async def send(self, body: bytes, *lines: bytes, target: bytes = b"/deployments") -> int:
        """Post a body, and note what is recorded."""
        answer = await send(self._replica, body, *lines, target=target)
        self.note(answer)
        return answer.status

    def note(self, answer: Answer) -> None:
        if answer.status == 201:
            self.recorded.append(answer.json)

    async def mark(self) -> None:
        assert await self.send(body_with("version", b'"mark"')) == 201


@asynccontextmanager
async def witness(replica: Replica) -> AsyncIterator[Witness]:
    """Hold the streams against what was recorded, and the log against complaints, when all has been sent."""
    url = f"{replica.url}/events"
    logged = len(replica.log)
    witness = Witness(replica)
    await witness.mark()
    async with AsyncExitStack() as stack:
        listeners = [await Listener.open(f"{url}/{CHANNEL}"), await Listener.open(url)]
        for listener in listeners:
            stack.push_async_callback(listener.close)
            await asyncio.wait_for(_has(listener, witness.recorded[0]), 10)
        stream, board = listeners
        # Before the mark come other channels' newest, and what was the newest of this one before it was spread.
        before = [listener.deployments.index(witness.recorded[0]) for listener in listeners]
        yield witness
        await witness.mark()
        for listener in listeners:
            await asyncio.wait_for(_has(listener, witness.recorded[-1]), 10)
        await eventually(lambda: len(board.deployments) >= before[1] + len(witness.recorded), what="all on the board")

    of_channel = [record for record in witness.recorded if f"{record['appName']}/{record['environment']}" == CHANNEL]
    assert stream.deployments[before[0] :] == of_channel
    # A board has no order over all channels: the first deployment of a new one comes by a read.
    assert sorted(board.deployments[before[1] :], key=itemgetter("deployedAt")) == witness.recorded
    assert before[0] <= 1
    assert all(event.id == str(event.data["deployedAt"]) for event in stream.events if event.type != "ping")
    assert {event.id for event in board.events} == {None}
    for listener in listeners:
        assert {event.type for event in listener.events} <= {"adoption", "deployment", "ping"}
        assert len(listener.retries) == 1
        assert not re.search(rb"[\r\0]", listener.raw)
        assert not listener.ended
        assert not listener.cut_off
    assert complaints(replica.log[logged:]) == []


async def _has(listener: Listener, record: dict[str, Any]) -> None:
    while record not in listener.deployments:
        assert listener.ended is listener.cut_off is False
        await asyncio.sleep(0.01)


def complaints(log: str) -> list[str]:
    """The lines of a log that nobody wants to see."""
    words = ("ERROR", "CRITICAL", "Traceback", "Exception")
    return [line for line in log.splitlines() if any(word in line for word in words)]


EVENT = b"id: 9007199254740990%bevent: deployment%bdata: {}%b%b"
"""A whole event, with a line end to be filled in."""

UNPRINTABLE = {
    "CR": rb'"1\revent: x"',
    "LF": rb'"1\nid: 9"',
    "CRLF": rb'"1\r\n\r\ndata: {}\r\n\r\n"',
    "NUL": rb'"1\u0000"',
    "NEL": rb'"1\u0085event: x"',
    "NEL, raw": '"1\u0085event: x"'.encode(),
    "LS": rb'"1\u2028event: x"',
    "LS, raw": '"1\u2028event: x"'.encode(),
    "PS": rb'"1\u2029event: x"',
    "PS, raw": '"1\u2029event: x"'.encode(),
    "BOM": rb'"\ufeff1"',
    "BOM, raw": '"\ufeff1"'.encode(),
    "VT": rb'"1\u000bevent: x"',
    "FF": rb'"1\fevent: x"',
    "RS": rb'"1\u001eevent: x"',
    "DEL": rb'"1\u007f"',
    "RLO": rb'"1\u202e"',
    "trailing LF": rb'"web\n"',
    "event, LF": b'"' + EVENT % ((rb"\n",) * 4) + b'"',
    "event, CR": b'"' + EVENT % ((rb"\r",) * 4) + b'"',
    "event, CRLF": b'"' + EVENT % ((rb"\r\n",) * 4) + b'"',
}
NO_JSON = {
    "CR, raw": b'"1\rid: 9"',
    "LF, raw": b'"1\nid: 9"',
    "NUL, raw": b'"1\0"',
    "event, raw": b'"' + EVENT % ((b"\n",) * 4) + b'"',
    "lone high surrogate": rb'"\ud800"',
    "lone low surrogate": rb'"\udc00x"',
    "surrogates, reversed": rb'"\udc00\ud800"',
    "surrogate, raw": b'"\xed\xa0\x80"',
    "Latin-1": b'"\xe9"',
    "0xFF": b'"\xff\xfe"',
    "overlong LF": b'"\xc0\x8a"',
    "cut short": b'"\xf0\x9f\x98"',
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "-Infinity": b"-Infinity",
    "leading zero": b"007",
    "hexadecimal": b"0x10",
    "a second object": b'1} {"a":1',
    "comment": b"1 /* x */",
}
WRONG = {
    "true": b"true",
    "list": b'["web"]',
    "object": b'{"$ne":null}',
    "1e400": b"1e400",
    "-1e400": b"-1e400",
    "10**400": b"1" + b"0" * 400,
    "-10**400": b"-1" + b"0" * 400,
    "1e20": b"1e20",
    "1e308": b"1e308",
    "2**53": str(2**53).encode(),
    "2**63": str(2**63).encode(),
    "2**64": str(2**64).encode(),
    "2**64, -": str(-(2**64)).encode(),
    "-1": b"-1",
    "1.5": b"1.5",
    "1e-400, 1.5": b"1.5e0",
    "200 lists": b"[" * 200 + b"]" * 200,
    "300 lists": b"[" * 300 + b"]" * 300,
    "1000 lists": b"[" * 1000 + b"]" * 1000,
    "300 objects": b'{"a":' * 300 + b"1" + b"}" * 300,
    "2000 lists": b"[" * 2000 + b"]" * 2000,
    "open lists": b"[" * 15_000,
    "empty": b'""',
    "129 characters": b'"' + b"a" * 129 + b'"',
    "15 KiB": b'"' + b"a" * 15_000 + b'"',
    "15 KiB of escapes": b'"' + rb"\n" * 7_500 + b'"',
}
TOO_LARGE = {
    "64 KiB": b'"' + b"a" * 65_536 + b'"',
    "100k lists": b"[" * 100_000,
    "64 KiB of LF": b'"' + rb"\n" * 32_768 + b'"',
}
FIELDS = ("appName", "version", "gitCommit", "buildNumber", "buildTime", "environment", "gitTag")
TEXTS = ("version", "gitTag")


@pytest.mark.parametrize("field", [*FIELDS, "unknown"])
async def test_a_field_makes_no_event(field, replica):
    """A line end, a control character, a broken or an absurd value is refused in every field, by name where it can."""
    statuses = {}
    async with witness(replica) as seen:
        for name, literal in {**UNPRINTABLE, **NO_JSON, **WRONG, **TOO_LARGE}.items():
            statuses[name] = await seen.send(body_with(field, literal))

    assert {name: statuses[name] for name in UNPRINTABLE} == dict.fromkeys(UNPRINTABLE, 422)
    assert {name: statuses[name] for name in NO_JSON} == dict.fromkeys(NO_JSON, 400)
    assert {name: statuses[name] for name in TOO_LARGE} == dict.fromkeys(TOO_LARGE, 413)
    assert {name: statuses[name] for name in WRONG if statuses[name] not in (400, 422)} == {}


@pytest.mark.parametrize("name", [*UNPRINTABLE, *NO_JSON, "300 lists", "64 KiB"])
async def test_a_field_name_makes_no_event(name, replica):
    """What can't be a value can't be a name either, nor does it come back as more than text."""
    literals = {**UNPRINTABLE, **NO_JSON, **WRONG, **TOO_LARGE}
    async with witness(replica) as seen:
        status = await seen.send(body_with("version", b'"1",' + literals[name] + b":1"))

    assert status in (400, 413, 422)


TAKEN = {
    "escaped escapes": ("version", rb'"1\\r\\nid: 9\\n\\n"', "1\\r\\nid: 9\\n\\n"),
    "colons and spaces": ("version", b'": data: id: 5"', ": data: id: 5"),
    "an event's words": ("gitTag", b'"event: deployment data: {}"', "event: deployment data: {}"),
    "quotes and braces": ("version", rb'"\"},\"deployedAt\":1,\"x\":{\""', '"},"deployedAt":1,"x":{"'),
    "markup": ("gitTag", b'"</script><script>alert(1)</script>"', "</script><script>alert(1)</script>"),
    "Lua and format": ("version", b'"%s%n{}] .. redis.call(1)"', "%s%n{}] .. redis.call(1)"),
    "a pair of surrogates": ("version", rb'"\ud83d\ude00"', "\U0001f600"),
    "128 of four bytes": ("gitTag", ('"' + "\U0001f600" * 128 + '"').encode(), "\U0001f600" * 128),
    "null": ("gitTag", b"null", None),
    "-0": ("buildNumber", b"-0", 0),
    "-0.0": ("buildNumber", b"-0.0", 0),
    "128.0": ("buildNumber", b"128.0", 128),
    "1e3": ("buildTime", b"1e3", 1000),
    "2**53 - 1": ("buildTime", str(2**53 - 1).encode(), 2**53 - 1),
}


async def test_what_looks_like_an_event_is_only_text(replica):
    """What is printable comes through as it is, to the last character; numbers come as integers."""
    statuses, kept = {}, {}
    async with witness(replica) as seen:
        for name, (field, literal, _) in TAKEN.items():
            statuses[name] = await seen.send(body_with(field, literal))
            kept[name] = seen.recorded[-1][field]

    assert statuses == dict.fromkeys(TAKEN, 201)
    assert kept == {name: value for name, (_, _, value) in TAKEN.items()}


def whole_bodies() -> dict[str, bytes]:
    plain = body_with("version", b'"whole"')
    return {
        "UTF-16": plain.decode().encode("utf-16"),
        "UTF-32": plain.decode().encode("utf-32-le"),
        "100k lists": b"[" * 100_000,
        "16k lists": b"[" * 16_000,
        "3,000 objects": b'{"a":' * 3_000,
        "1,000 lists, closed": b"[" * 1_000 + b"]" * 1_000,
        "nothing": b"",
        "NUL": b"\0",
        "null": b"null",
        "a string": rb'"\r\n\r\n"',
        "a number": b"1e400",
        "a list of it": b"[" + plain + b"]",
        "two of it": plain + b"\n" + plain,
        "cut short": plain[:-1],
        "NUL behind it": plain + b"\0",
        "0xFF behind it": plain + b"\xff",
        "an event": EVENT % ((b"\n",) * 4),
        "gzip": b"\x1f\x8b\x08\x00\x00",
        "Python's names": plain.replace(b"gitCommit", b"git_commit"),
        "the service's fields": plain[:-1] + b',"deployedAt":1,"previous":null,"rollback":true}',
        "duplicate, unknown": plain[:-1] + b',"a":1,"a":2}',
        "duplicate, the last one broken": plain[:-1] + rb',"version":"\n\n"}',
        "a name of controls": plain[:-1] + rb',"\r\n\u0000\u2028":1}',
        "an empty name": plain[:-1] + b',"":1}',
        "a name's escape": plain[:-1] + rb',"\u0061ppName\n":1}',
        "__proto__": plain[:-1] + b',"__proto__":{"version":"2"}}',
    }


async def test_a_body_makes_no_event(replica):
    """No body that isn't one deployment, in UTF-8, is taken."""
    bodies, statuses = whole_bodies(), {}
    async with witness(replica) as seen:
        for name, body in bodies.items():
            statuses[name] = await seen.send(body)

    assert {name: status for name, status in statuses.items() if status not in (400, 413, 422)} == {}


async def test_a_field_given_twice_counts_once(replica):
    """Of a field that is given twice the last one counts, in the answer, in the stream and in the channel's name."""
    async with witness(replica) as seen:
        plain = body_with("version", rb'"first"')
        status = await seen.send(plain[:-1] + b',"version":"last","\\u0061ppName":"twice"}')
        record = seen.recorded[-1]

    assert status == 201
    assert (record["version"], record["appName"]) == ("last", "twice")


NASTY = {
    "CR": b"1\rX-Injected: 1",
    "LF": b"1\nX-Injected: 1",
    "CRLF": b"1\r\nX-Injected: 1",
    "CRLF, folded": b"1\r\n X-Injected: 1",
    "an end of the head": b"1\r\n\r\ndata: {}\r\n\r\n",
    "NUL": b"1\0",
    "DEL": b"1\x7f",
    "ESC": b"1\x1b[2J",
    "HT": b"1\t2",
    "0x85": b"1\x85id: 9",
    "NEL": "1\u0085id: 9".encode(),
    "LS": "1\u2028id: 9".encode(),
    "PS": "1\u2029id: 9".encode(),
    "0xFF": b"\xff\xfe",
    "surrogate": b"\xed\xa0\x80",
    "BOM": b"\xef\xbb\xbf1",
    "digits of India": "१२३".encode(),
    "superscript": "²".encode(),
    "superscript, Latin-1": b"\xb2",
    "percent": b"%0d%0aid:%209",
    "nothing": b"",
    "spaces": b"   ",
    "quotes": b'"\\"',
    "commas": b"," * 5000,
    "-0": b"-0",
    "-1": b"-1",
    "1e400": b"1e400",
    "NaN": b"NaN",
    "1_0": b"1_0",
    "2**53": str(2**53).encode(),
    "2**53 - 1": str(2**53 - 1).encode(),
    "10**400": b"1" + b"0" * 400,
    "5,000 digits": b"9" * 5000,
    "60 KiB": b"a" * 60_000,
    "an event": EVENT % ((b"\\n",) * 4),
    "lists": b"[" * 10_000,
}
HEADERS = (
    b"Last-Event-ID", b"Idempotency-Key", b"Authorization", b"Authorization: Bearer", b"Origin", b"Content-Type",
    b"If-None-Match", b"Host", b"Accept", b"Content-Length", b"Transfer-Encoding", b"Access-Control-Request-Method",
    b"X-Forwarded-For", b"Expect", b"Content-Encoding", b"Upgrade",
)  # fmt: skip


def header_line(header: bytes, value: bytes) -> bytes:
    return header + (b" " if b":" in header else b": ") + value


def is_proper(answer: Answer) -> bool:
    """Tell whether an answer is what a client's nonsense deserves, and holds nothing of it in its head."""
    known = {
        "date", "content-type", "content-length", "cache-control", "connection", "transfer-encoding", "vary", "etag",
        "x-accel-buffering", "www-authenticate", "accept-post", "allow", "retry-after", "location",
        "access-control-allow-origin", "access-control-expose-headers", "access-control-allow-methods",
        "access-control-allow-headers", "access-control-max-age", "x-content-type-options",
    }  # fmt: skip
    allowed = answer.headers.get("access-control-allow-origin", b"").strip()
    return answer.status < 500 and set(answer.headers) <= known and allowed in (b"", ORIGIN.encode())


@pytest.mark.parametrize("header", HEADERS, ids=bytes.decode)
async def test_a_header_makes_no_event(header, replica):
    """On a POST, whatever stands in a header, the deployment is recorded as it is or not at all."""
    improper = {}
    async with witness(replica) as seen:
        for name, value in NASTY.items():
            answer = await send(replica, body_with("version", b'"1"'), header_line(header, value))
            seen.note(answer)
            if not is_proper(answer):
                improper[name] = answer.status

    assert improper == {}


@pytest.mark.parametrize("header", HEADERS, ids=bytes.decode)
@pytest.mark.parametrize(
    "target",
    [b"/deployments/web/production/latest", b"/deployments", b"/readyz", b"/events/we%20b/x"],
    ids=bytes.decode,
)
async def test_a_header_makes_no_other_header(header, target, replica):
    """On a GET, whatever stands in a header, the answer has its own headers and no status of a failure."""
    improper = {}
    async with witness(replica):
        for name, value in NASTY.items():
            line = header_line(header, value)
            is_host = header == b"Host"
            answer = await ask(replica, request(b"GET", target, line, host=b"" if is_host else b"Host: a\r\n"))
            if not is_proper(answer):
                improper[name] = answer.status

    assert improper == {}


async def open_raw(
    replica: Replica, target: bytes, newest: dict[str, Any], *lines: bytes, host: bytes = b"Host: a\r\n"
) -> Answer:
    """Open a stream, and give its answer up to the end of the newest deployment, without the chunks' sizes."""
    answer = await ask(replica, request(b"GET", target, *lines, host=host), b'"deployedAt":%d' % newest["deployedAt"])
    if answer.status == 200 and "transfer-encoding" in answer.headers:
        answer.body = re.sub(rb"(?:^|\r\n)[0-9a-f]+\r\n", b"", answer.body.removesuffix(b"\r\n"))
    return answer


def first_events(answer: Answer) -> list[tuple[str | None, Any]]:
    """Take apart what a stream starts with, `retry`, deployments, perhaps who runs them, and no other byte."""
    event = rb"(?:id: (\d+)\n)?event: deployment\ndata: ([^\r\n\0]+)\n\n"
    adoption = rb"(?:event: adoption\ndata: [^\r\n\0]+\n\n)*"
    assert re.fullmatch(rb"retry: [1-5]\d{3}\n\n(?:" + event + rb")+" + adoption, answer.body), answer.body[:500]
    return [
        (match[1].decode() if match[1] else None, json.loads(match[2])) for match in re.finditer(event, answer.body)
    ]


def starts_as_without(answer: Answer, newest: dict[str, Any]) -> bool:
    """Tell whether a stream starts as one that brings no id."""
    return first_events(answer) == [(str(newest["deployedAt"]), newest)]


def starts_after_one(answer: Answer, newest: dict[str, Any]) -> bool:
    """Tell whether a stream starts as one that brings the id 1: with all that is kept."""
    events = first_events(answer)
    return len(events) == 10 and events[-1] == (str(newest["deployedAt"]), newest)


STREAM_HEADERS = {
    "date", "cache-control", "x-accel-buffering", "content-type", "connection", "transfer-encoding", "vary",
    "access-control-allow-origin", "access-control-expose-headers",
}  # fmt: skip


@pytest.mark.parametrize("header", [b"Last-Event-ID", b"Origin", b"Host", b"Accept", b"Cookie"], ids=bytes.decode)
@pytest.mark.parametrize("path", [b"/events/" + CHANNEL.encode(), b"/events"], ids=bytes.decode)
async def test_a_header_makes_no_event_on_its_own_stream(path, header, replica):
    """A stream that is opened with nonsense starts as one without, with the newest deployment, or isn't opened."""
    statuses: dict[str, int] = {}
    async with witness(replica) as seen:
        newest = seen.recorded[0]
        for name, value in NASTY.items():
            line = header_line(header, value)
            host = b"" if header == b"Host" else b"Host: a\r\n"
            answer = await open_raw(replica, path, newest, line, host=host)
            statuses[name] = answer.status
            if answer.status == 200:
                # What follows a line end is not the header's any more; what is left before it is a proper id.
                is_one = header == b"Last-Event-ID" and name in ("CRLF", "LF", "an end of the head")
                assert set(answer.headers) <= STREAM_HEADERS
                if path == b"/events":
                    assert {event_id for event_id, _ in first_events(answer)} == {None}
                else:
                    assert (starts_after_one if is_one else starts_as_without)(answer, newest), name

    assert set(statuses.values()) == ({400, 403, 431} if header == b"Origin" else {200, 400, 431})


QUERIES = {
    "CRLF": b"1%0d%0a%0d%0adata:%20{}",
    "LF": b"1%0aid:%209",
    "NUL": b"1%00",
    "0xFF": b"%ff",
    "LS": b"1%e2%80%a8id:%209",
    "NEL": b"1%c2%85",
    "surrogate": b"%ed%a0%80",
    "half an escape": b"%",
    "no escape": b"%zz",
    "raw 0xFF": b"\xff",
    "raw LS": "\u2028".encode(),
    "raw CR": b"1\rX-Injected:1",
    "raw LF": b"1\nX-Injected:1",
    "raw NUL": b"1\0",
    "digits of India": b"%e0%a5%a7",
    "superscript": b"%c2%b2",
    "-0": b"-0",
    "1e400": b"1e400",
    "NaN": b"NaN",
    "2**53": str(2**53).encode(),
    "2**53 - 1": str(2**53 - 1).encode(),
    "5,000 digits": b"9" * 5_000,
    "60,000 characters": b"a" * 60_000,
    "70,000 characters": b"a" * 70_000,
    "1,500 more": b"1" + b"&a=1" * 1_500,
    "10,000 more": b"1" + b"&a=1" * 10_000,
    "twice": b"1&lastEventId=%0a&limit=2",
    "plus": b"+1",
    "fragment": b"1#x",
    "question": b"1?x=1",
    "semicolon": b"1;lastEventId=2",
}


ONE = {"1,500 more", "fragment"}
"""Those that say `lastEventId=1`, and then something else."""


@pytest.mark.parametrize("name", QUERIES)
async def test_a_query_makes_no_event(name, replica):
    """A parameter of nonsense is as none on a stream, and refused or empty elsewhere."""
    query = QUERIES[name]
    answers = {}
    async with witness(replica) as seen:
        newest = seen.recorded[0]
        stream = await open_raw(replica, b"/events/%b?lastEventId=%b" % (CHANNEL.encode(), query), newest)
        for parameter in (b"appName", b"environment", b"gitTag", b"limit", b"other", query):
            target = b"/deployments?%b=%b" % (parameter, query)
            answers[parameter] = await ask(replica, request(b"GET", target))
        answers[b"POST"] = await send(replica, body_with("version", b'"1"'), target=b"/deployments?appName=%b" % query)
        seen.note(answers[b"POST"])

    assert stream.status in (200, 400, 414)
    if stream.status == 200:
        assert set(stream.headers) <= STREAM_HEADERS
        assert (starts_after_one if name in ONE else starts_as_without)(stream, newest)
    assert {parameter: answer.status for parameter, answer in answers.items() if not is_proper(answer)} == {}


PATHS = {
    "CRLF": b"web%0d%0aX-Injected:%201",
    "LF": b"web%0a",
    "NUL": b"web%00",
    "0xFF": b"%ff",
    "LS": b"web%e2%80%a8",
    "surrogate": b"%ed%a0%80",
    "half an escape": b"web%",
    "no escape": b"web%zz",
    "raw 0x80": b"web\x80",
    "raw 0xFF": b"web\xff",
    "raw é": "é".encode(),
    "raw LS": "web\u2028".encode(),
    "raw NUL": b"web\0",
    "raw CR": b"web\rX-Injected:1",
    "raw LF": b"web\nX-Injected:1",
    "raw CRLF": b"web\r\nX-Injected: 1",
    "DEL": b"web\x7f",
    "braces": b"%7Bweb%7D",
    "slash": b"web%2Fstaging",
    "backslash": b"web%5c",
    "dots": b"..%2f..",
    "raw dots": b"../..",
    "glob": b"*",
    "65 characters": b"a" * 65,
    "60,000 characters": b"a" * 60_000,
    "70,000 characters": b"a" * 70_000,
    "digits of India": b"%e0%a5%a7",
    "nothing": b"",
    "escaped twice": b"web%250a",
}


@pytest.mark.parametrize("name", PATHS)
async def test_a_path_makes_no_event(name, replica):
    """A name that is none leads nowhere, with any method: 404, or 400 where it isn't HTTP."""
    part = PATHS[name]
    token = f"Authorization: Bearer {TOKEN}".encode()
    statuses, improper = {}, []
    async with witness(replica):
        for before, after in itertools.product((b"/events/", b"/deployments/"), (b"/%b/x", b"/x/%b", b"/x/%b/latest")):
            for method in (b"GET", b"HEAD", b"POST", b"DELETE", b"OPTIONS"):
                target = before.rstrip(b"/") + after % part
                answer = await ask(replica, request(method, target, token))
                statuses[method, target[:80]] = answer.status
                if not is_proper(answer):
                    improper.append((method, target[:80], answer.status))

    assert improper == []
    assert set(statuses.values()) <= {204, 400, 404, 405, 414}


@pytest.mark.parametrize(
    "target",
    [
        b"\xff", b"/\xff", b"/%ff", b"/%00", b"/%0d%0a", b"//", b"//events/web/production", b"*", b"/events%00",
        b"/events%0a", b"/deployments%0d%0aX-Injected:%201", b"http://[::1/events", b"http://a:99999/livez",
        b"http://\xff/livez", b"/" + b"a" * 70_000, b"/?" + b"%ff" * 1000, b"/livez%20", b"", b"/events/%C0%8A/x",
    ],
    ids=lambda target: repr(target[:30]),
)  # fmt: skip
async def test_any_target_is_answered(target, replica):
    """A target that no client would send is answered as a mistake of the client's."""
    async with witness(replica):
        answer = await ask(replica, request(b"GET", target))

    assert is_proper(answer)
    # A query of the page at / is nobody's, and passed over; so is an additional slash.
    is_served = target == b"//events/web/production" or target.startswith(b"/?")
    assert answer.status in ((200,) if is_served else (400, 404, 414))


async def test_an_escaped_slash_is_a_slash(replica):
    """`%2F` is taken apart as `/` is: the stream is the one of the channel that is named so, and no other's."""
    async with witness(replica) as seen:
        newest = seen.recorded[0]
        answer = await open_raw(replica, b"/events/web%2Fproduction", newest)

    assert answer.status == 200
    assert starts_as_without(answer, newest)


async def test_a_host_given_twice_or_not_at_all(replica):
    """A request with a second `Host`, or none, is refused; what it is changes nothing in an answer."""
    hosts = (b"", b"Host: a\r\nHost: b\r\n", b"Host: [::1\r\n", b"Host: a:b:c\r\n", b"Host: \r\n")
    targets = (b"/livez", b"/openapi.json", b"/deployments", b"/nothing")
    async with witness(replica):
        answers = [await ask(replica, request(b"GET", target, host=host)) for host in hosts for target in targets]

    assert [answer.headers for answer in answers if not is_proper(answer)] == []
    assert {answer.status for answer in answers[: 2 * len(targets)]} == {400}
    assert [answer.status for answer in answers[2 * len(targets) :]] == [200, 200, 200, 404] * 3
