"""Requests out of bytes: the same whatever the segments, none that isn't one, and none without a limit."""

import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.parser import MAX_FIELDS, MAX_HEAD_SIZE, MAX_LINE_BREAKS, MAX_TARGET_SIZE, Parser
from service.problem import Problem

POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"DELETE /deployments/web/production HTTP/1.1\r\nHost: x\r\n\r\n"

Request = tuple[str, bytes]


def read(*segments: bytes) -> list[Request]:
    """Read requests as a connection does; give the path and the content of each that is whole."""
    parser, requests, content = Parser(), [], b""
    for segment in segments:
        start = 0
        while start < len(segment):
            rest = segment[start:]
            start += parser.feed(rest, len(rest))
            content += parser.content
            if parser.is_whole:
                assert parser.head
                requests.append((parser.head.path, content))
                parser.next()
                content = b""
    return requests


def one_by_one(data: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in data]


PIPELINED = b"".join(
    [
        b"GET /get HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\r\nPOST /length HTTP/1.1\r\nHost: x\r\nContent-Length: %d  \r\n\r\n" % len(SMUGGLED) + SMUGGLED,
        b"POST /empty HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"POST /chunks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n",
        b"4;a=b\r\n\r\n\r\n\r\n%x\r\n%b\r\n0\r\nA: b\r\nAuthorization: Bearer x\r\n\r\n" % (len(SMUGGLED), SMUGGLED),
        b"PUT /offer HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n%b"
        % (len(SMUGGLED), SMUGGLED),
        b"GET /offer HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, upgrade\r\n\r\n",
        b"POST /offer HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED),
        b"GET http://elsewhere/whole?a=b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /proxy HTTP/1.1\r\nHost: x\r\nProxy-Connection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"GET /last HTTP/1.0\r\n\r\n",
    ]
)
REQUESTS = [
    ("/get", b""),
    ("/length", SMUGGLED),
    ("/empty", b""),
    ("/chunks", b"\r\n\r\n" + SMUGGLED),
    ("/offer", SMUGGLED),
    ("/offer", b""),
    ("/offer", SMUGGLED),
    ("/whole", b""),
    ("*", b""),
    ("/proxy", b""),
    ("/last", b""),
]


@given(cuts=st.lists(st.integers(0, len(PIPELINED)), max_size=30))
def test_segments_make_no_difference(cuts):
    """However requests are cut into segments, they are the same ones, with all their content; an offer is passed over."""
    segments = [PIPELINED[start:end] for start, end in pairwise([0, *sorted(cuts), len(PIPELINED)])]

    assert read(*segments) == REQUESTS


def test_byte_by_byte():
    """The smallest segments are no exception."""
    assert read(*one_by_one(PIPELINED)) == REQUESTS


def test_fields_of_a_head():
    """What is asked for is there, of an offer all but the offer; a trailer is nowhere."""
    parser = Parser()
    request = (
        b"POST /a%20b?c=d HTTP/1.1\r\nHost:  x \r\nConnection: Upgrade\r\nUpgrade: h2c\r\nExpect: 100-Continue\r\n"
    )
    request += b"X: \xff\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nAuthorization: Bearer x\r\n\r\n"
    parser.feed(request, len(request))
    assert parser.head
    scope = parser.head.scope({}, {})

    assert parser.is_whole
    assert parser.head.expects_continue
    assert parser.head.keep_alive
    assert (scope["method"], scope["path"], scope["raw_path"], scope["query_string"]) == (
        "POST",
        "/a b",
        b"/a%20b",
        b"c=d",
    )
    assert dict(scope["headers"]) == {
        b"host": b"x ", b"connection": b"Upgrade", b"expect": b"100-Continue", b"x": b"\xff",
        b"transfer-encoding": b"chunked",
    }  # fmt: skip


@pytest.mark.parametrize(
    "request_",
    [
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        POST + b"Content-Length: 3, 3\r\n\r\nabc",
        POST + b"Content-Length: +3\r\n\r\nabc",
        POST + b"Content-Length: -3\r\n\r\nabc",
        POST + b"Content-Length: 0x3\r\n\r\nabc",
        POST + b"Content-Length:\r\n\r\nabc",
        POST + b"Content-Length : 3\r\n\r\nabc",
        POST + b"Content-Length: 18446744073709551617\r\n\r\nabc",
        POST + b"Content-Length: %b3\r\n\r\nabc" % (b"0" * 5000),
        POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"10000000000000003\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"3\nabc\r\n0\r\n\r\n",
        CHUNKED + b"3;a\nabc\r\n0\r\n\r\n",
        CHUNKED + b"3;a\rb\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"3\r\nabc\n0\r\n\r\n",
        CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
        CHUNKED + b"0\r\n\n",
        CHUNKED + b"0\r\nContent-Length: 3\r\n\r\n",
        CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost: x\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\n",
        b"GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\rGET",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA b: c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n: c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /  HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS / RTSP/1.0\r\nHost: x\r\n\r\n",
        b"SOURCE / ICE/1.0\r\nHost: x\r\n\r\n",
        b"GET / ICE/1.0\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"\rGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\r\n\rGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        CHUNKED + b";a=b\r\n\r\n",
        CHUNKED + b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
        b"GET / HTTP/1.2\r\nHost: x\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        POST + b"Connection: upgrade\r\nUpgrade: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
@pytest.mark.parametrize("at_once", [True, False], ids=["at-once", "byte-by-byte"])
def test_what_can_be_read_in_two_ways_is_refused(request_, at_once):
    """Two ends, another line break, a folded line: nothing that a proxy might read otherwise becomes a request."""
    segments = [request_ + SMUGGLED] if at_once else one_by_one(request_ + SMUGGLED)

    with pytest.raises(Problem) as raised:
        read(*segments)
    assert raised.value.status == 400


def head(size: int, *, ending: bytes = b"\r\n\r\n") -> bytes:
    """A head of so many bytes."""
    start = b"GET / HTTP/1.1\r\nHost: x\r\nA: "
    return start + b"x" * (size - len(start) - len(ending)) + ending


def fields(count: int) -> bytes:
    return b"".join(b"A%d: b\r\n" % number for number in range(count))


SEGMENT = 16 * 1024


@pytest.mark.parametrize("segment", [SEGMENT, 1000, 7])
@pytest.mark.parametrize(
    ("good", "bad", "status"),
    [
        (head(MAX_HEAD_SIZE), head(MAX_HEAD_SIZE + 1), 431),
        (head(100), head(10 * MAX_HEAD_SIZE, ending=b""), 431),
        (head(100), b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b" " * 2 * MAX_HEAD_SIZE, 431),
        (b"\r\n" * MAX_LINE_BREAKS + head(100), b"\r\n" * MAX_LINE_BREAKS + b"\r", 400),
        (POST + fields(MAX_FIELDS - 1) + b"\r\n", POST + fields(MAX_FIELDS) + b"\r\n", 431),
        (
            b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * (MAX_TARGET_SIZE - 1)),
            b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * MAX_TARGET_SIZE),
            414,
        ),
        (
            CHUNKED + b"0\r\n" + fields(MAX_FIELDS - 2) + b"\r\n",
            CHUNKED + b"0\r\n" + fields(MAX_FIELDS - 1) + b"\r\n",
            431,
        ),
        (CHUNKED + b"0\r\nA: %b\r\n\r\n" % (b"a" * 32_000), CHUNKED + b"0\r\nA: %b\r\n\r\n" % (b"a" * 33_000), 431),
        (
            CHUNKED + b"1\r\na\r\n" * 16_384 + b"0\r\nA: %b\r\n\r\n" % (b"a" * 32_000),
            CHUNKED + b"1\r\na\r\n" * 16_384 + b"0\r\nA: %b\r\n\r\n" % (b"a" * 33_000),
            431,
        ),
        (CHUNKED + b"0;%b\r\n\r\n" % (b"a" * 32_000), CHUNKED + b"0;%b\r\n\r\n" % (b"a" * 33_000), 431),
        (CHUNKED + b"1\r\na\r\n" * 16_384 + b"0\r\n\r\n", CHUNKED + b"1;%b\r\na\r\n" % (b"a" * 50) * 1000, 431),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n" + fields(MAX_FIELDS - 3) + b"\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n" + fields(MAX_FIELDS - 2) + b"\r\n",
            431,
        ),
    ],
    ids=["head", "no-end", "space", "line-breaks", "fields", "target", "trailers", "trailer", "trailer-behind-chunks", "extension", "extensions", "offer"],
)  # fmt: skip
def test_limits(good, bad, status, segment):
    """What is as large as it may be is taken, and what is larger is refused before it's read any further."""
    assert len(read(*(good[start : start + segment] for start in range(0, len(good), segment)))) == 1

    with pytest.raises(Problem) as raised:
        read(*(bad[start : start + segment] for start in range(0, len(bad), segment)))
    assert raised.value.status == status


def test_limits_begin_anew_with_each_request():
    """They are those of a request, not of its connection."""
    assert len(read(*[head(MAX_HEAD_SIZE - 100) + CHUNKED + b"0\r\n" + fields(80) + b"\r\n"] * 5)) == 10


def calls(data: bytes, *, behind: bytes = b"") -> int:
    """Count the calls of functions that reading this takes, which doesn't depend on how busy the machine is."""
    parser, count = Parser(), 0
    parser.feed(behind, len(behind))

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        parser.feed(data, len(data))
    except Problem:
        pass
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("behind", [b"", CHUNKED + b"ffff\r\n", CHUNKED, POST + b"Content-Length: 99999\r\n\r\n"])
@pytest.mark.parametrize("pattern", [b"\r\n", b"0\r\n\r\n", b"\r\n\r\n0;\r\n", b"x\r"])
def test_no_segment_takes_many_pieces(pattern, behind):
    """What looks like the end of a request where there is none costs no more than other bytes."""
    assert calls(pattern * (SEGMENT // len(pattern)), behind=behind) < 200


def test_empty_lines_are_no_beginning():
    """A request begins with its method, so a connection on which only line breaks came is still idle."""
    parser = Parser()
    for segment in (b"\r", b"\n\r\n", b"G"):
        assert not parser.has_begun
        parser.feed(segment, len(segment))
    assert parser.has_begun
