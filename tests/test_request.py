"""Requests as the commands send them: in time, in size, and to whom secrets go."""

import gzip
import socket
import threading
import time
import tracemalloc

import brotli
import httpx
import pytest

from service.request import LARGEST_ANSWER, MOST_REDIRECTIONS, AnswerError, ask
from service.url import bearer
from tests.command_parts import OPEN_ENDED, Answer, RawServer, Request, WebServer, bomb, dripping, in_turn

HEAD = OPEN_ENDED + b"\r\n"
GZIP = {"Content-Encoding": "gzip"}


def told(url: str, seconds: float = 5.0, redirections: int = MOST_REDIRECTIONS) -> str:
    """Say why there is no answer."""
    with pytest.raises(AnswerError) as raised:
        ask("GET", url, seconds=seconds, redirections=redirections)
    return str(raised.value)


@pytest.mark.parametrize(
    ("start", "byte"),
    [
        (b"", b"x"),
        (b"HTTP/1.1 ", b"2"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (OPEN_ENDED, b"X: a\r\n"),
        (HEAD, b" "),
        (OPEN_ENDED + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (OPEN_ENDED + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"")[:10], b"\x00\x00\x00\xff\xff"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 9999999\r\n\r\n", b"x"),
    ],
    ids=["nothing", "status", "informational", "headers", "body", "chunks", "empty blocks", "redirections"],
)
def test_a_server_that_drips(start, byte):
    """An answer that never ends is given up when its time is over, however often a byte comes."""
    with dripping(start, byte) as server:
        began = time.monotonic()
        reason = told(server.url, 0.5)

    assert time.monotonic() - began < 10
    assert reason.startswith(("no whole answer within 0.5 s", "too many", "illegal", "Receive buffer"))


def test_a_look_up_that_hangs(monkeypatch):
    """The look-up of a name, which no timeout of a socket ends, is given up, too."""
    released = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        released.wait(20)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)

    assert told("http://hub.example/", 0.3) == "no whole answer within 0.3 s"
    released.set()


def test_nothing_is_left_open():
    """Who is left behind ends soon: its connection is closed below it."""
    gone = threading.Event()

    def serve(connection: socket.socket) -> None:
        try:
            server.drip(connection, HEAD, b"x")
        except OSError:
            gone.set()

    with RawServer(serve) as server:
        told(server.url, 0.3)

        assert gone.wait(10)


@pytest.mark.parametrize("excess", [0, 1])
@pytest.mark.parametrize("packed", [False, True])
def test_the_largest_answer(packed, excess):
    """A MiB is taken whole, plain or compressed, and a byte more isn't."""
    text = b"x" * (LARGEST_ANSWER + excess)
    answer = Answer(200, gzip.compress(text), GZIP) if packed else Answer(200, text)
    with WebServer(in_turn(answer)) as server:
        if excess:
            assert told(server.url) == "the answer is over 1048576 bytes"
        else:
            assert ask("GET", server.url, seconds=10).content == text


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 131_072, 1_000_000])
def test_compressed_answers(size):
    """What was compressed is had byte for byte."""
    text = bytes(number * 7 % 251 for number in range(size))
    with WebServer(in_turn(Answer(200, gzip.compress(text), GZIP))) as server:
        assert ask("GET", server.url, seconds=10).content == text


def test_a_bomb():
    """Of a gzip that unpacks to 1 GiB no more is unpacked than is allowed."""
    packed = bomb(2**30)
    with WebServer(in_turn(Answer(200, packed, GZIP))) as server:
        tracemalloc.start()
        reason = told(server.url)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    assert reason == "the answer is over 1048576 bytes"
    assert peak < 16 * 2**20


@pytest.mark.parametrize("coding", ["br", "deflate", "zstd", "gzip, br", "x\x1b"])
def test_a_coding_that_was_not_asked_for(coding):
    """Only gzip is asked for; an answer in another coding isn't unpacked at all."""
    with WebServer(in_turn(Answer(200, brotli.compress(bytes(2**24)), {"Content-Encoding": coding}))) as server:
        reason = told(server.url)

    assert "wasn't asked for" in reason or "illegal header" in reason
    assert not server.requests or server.requests[0].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize(
    "location",
    [
        "javascript:alert(1)", "http://", f"http://{'a' * 64}.example/", "http://a:99999999/", "file:///etc/passwd",
        "//", "http://[", "http://a:b/",
    ],
)  # fmt: skip
def test_redirections_to_odd_addresses(location):
    """Whatever a server names as the next address, there is an answer or the reason why there is none."""
    with WebServer(in_turn(Answer(302, headers={"Location": location}))) as server:
        assert told(server.url)


def test_the_body_of_a_redirection_is_not_read():
    """What comes beside an address to go on to is passed over, however much that is."""
    there = Answer(302, bomb(), {"Location": "/there", **GZIP})
    with WebServer(in_turn(there, Answer(200, b"there"))) as server:
        assert ask("GET", server.url, seconds=10, redirections=1).content == b"there"


def test_a_loop_of_redirections():
    """A loop is followed so often and no more."""
    with WebServer(in_turn(Answer(302, headers={"Location": "/"}))) as server:
        assert told(server.url) == "too many redirections"
        assert len(server.requests) == MOST_REDIRECTIONS + 1


def test_secrets_do_not_go_to_another_origin():
    """A URL's name and password go on within an origin, and to no other, be it another port of the same host."""
    with WebServer(in_turn(Answer(200))) as other:

        def away(request: Request) -> Answer:
            return Answer(302, headers={"Location": "/b" if request.path == "/a" else f"{other.url}/c"})

        with WebServer(away) as server:
            ask("GET", f"{server.url.replace('//', '//u:s3cret@')}/a", seconds=10, redirections=MOST_REDIRECTIONS)
        seen = [*server.requests, *other.requests]

    assert [request.path for request in seen] == ["/a", "/b", "/c"]
    assert ["authorization" in request.headers for request in seen] == [True, True, False]


def test_a_token_is_followed_nowhere():
    """With a token a redirection is an answer like any other."""
    with WebServer(in_turn(Answer(307, headers={"Location": "/b"}))) as server:
        answer = ask("POST", server.url, seconds=10, auth=bearer("s3cret"), content="{}")

    assert answer.status_code == httpx.codes.TEMPORARY_REDIRECT
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer s3cret"]
