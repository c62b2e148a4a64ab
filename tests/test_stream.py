import asyncio
import socket
from typing import Any

import orjson
import pytest

from service import stall
from service.adoption import Adoption
from service.build import Build
from service.bulletin import Bulletin
from service.channel import Channel
from service.channels import Channels
from service.deployment import ChannelName, Deployment
from service.frame import adoption_frame
from service.metrics import Metrics
from service.news import News
from service.stream import Board, Stream, Streams

pytestmark = pytest.mark.anyio


class FullTransport:
    """A transport whose socket takes nothing, from the first write on."""

    def __init__(self) -> None:
        self.socket = socket.socket()
        self.protocol: Any = None
        self.written = b""
        self.closing = False
        self.aborted = asyncio.Event()

    def get_extra_info(self, name: str) -> Any:
        return self.socket if name == "socket" else None

    def write(self, data: bytes) -> None:
        self.written += data
        self.protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return len(self.written)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.protocol.connection_lost(None)
        self.socket.close()
        self.aborted.set()


async def test_farewell_that_finds_the_socket_full_is_not_waited_for(monkeypatch):
    """A stream whose socket is filled by the farewell itself is aborted by the short deadline of a shutdown."""
    monkeypatch.setattr(stall, "DRAIN_DEADLINE", 0.01)
    metrics = Metrics()
    channel = _channel(metrics)
    stream = Stream(Streams(10, metrics), channel, chunked=True)
    transport: Any = FullTransport()
    transport.protocol = stream
    stream.begin(transport, set())
    stream.shutdown()

    assert transport.written.endswith(b"0\r\n\r\n")
    async with asyncio.timeout(5):
        await transport.aborted.wait()


@pytest.mark.parametrize("ends", ["connection_lost", "shutdown"])
async def test_a_stream_is_counted_until_it_ends(ends):
    """However it ends, it is counted no more, and once: a shutdown leaves first, and then the connection is lost."""
    metrics = Metrics()
    channel = _channel(metrics)
    other = channel.tallies.enter(Build("3f2c1ab", 128))
    stream = Stream(Streams(10, metrics), channel, chunked=True)
    transport: Any = FullTransport()
    transport.protocol = stream
    stream.begin(transport, set())
    stream.count(Build("3f2c1ab", 128))
    assert channel.tallies.counts == {"3f2c1ab~128": 2}
    if ends == "shutdown":
        stream.shutdown()
        assert channel.tallies.counts == {"3f2c1ab~128": 1}
    stream.connection_lost(None)
    transport.abort()
    assert channel.tallies.counts == {"3f2c1ab~128": 1}

    channel.tallies.leave(other)
    assert channel.tallies.counts == {}


async def test_a_board_reads_on_when_its_socket_takes_more():
    """A board whose socket is full gets the latest note of each channel later, each once."""
    loop, metrics, bulletin = asyncio.get_running_loop(), Metrics(), Bulletin()
    channels = Channels(loop.call_soon, loop.time, metrics)
    board = Board(Streams(10, metrics), channels, bulletin, chunked=False)
    transport: Any = FullTransport()
    transport.protocol = board
    board.begin(transport, set())

    def post(app: str, streams: int) -> None:
        adoption = Adoption(((1, streams),), 0, 0)
        frame = adoption_frame({"appName": app, "streams": streams})
        bulletin.post(ChannelName(f"{app}/production"), adoption, frame, is_stale=False)
        board.read_bulletin()

    post("web", 1)  # which fills the socket
    post("web", 2)
    post("api", 3)
    post("web", 4)
    assert transport.written.count(b"event: adoption") == 1
    written, transport.written = transport.written, b""
    board.resume_writing()  # for one more
    board.resume_writing()
    board.resume_writing()
    board.connection_lost(None)
    transport.abort()

    assert b'"streams":1}' in written
    assert [transport.written.find(b'"streams":%d}' % streams) >= 0 for streams in (2, 3, 4)] == [False, True, True]
    assert transport.written.count(b"event: adoption") == 2


async def test_a_stream_that_waits_catches_up_with_nothing():
    """A stream that waits for a read, and whose socket takes more meanwhile, gets what the read decides, each once."""
    metrics = Metrics()
    channel = _channel(metrics)
    channel.replace([_record(1, None), _record(2, 1)])
    stream = Stream(Streams(10, metrics), channel, chunked=False)
    transport: Any = FullTransport()
    transport.protocol = stream
    stream.begin(transport, set())
    channel.wait(stream, 3)
    stream.pause_writing()
    stream.resume_writing()
    assert transport.written == b""
    channel.reads += 1
    channel.replace([_record(2, 1), _record(3, 2), _record(4, 3)])
    stream.connection_lost(None)
    transport.abort()

    assert transport.written.startswith(b"id: 4\n")
    assert transport.written.count(b"event: deployment") == 1


def _record(number: int, previous: int | None) -> Deployment:
    return Deployment(orjson.dumps({"deployedAt": number, "previous": previous}), number, previous)


def _channel(metrics: Metrics) -> Channel:
    later = asyncio.get_running_loop().call_soon
    return Channel(ChannelName("web/production"), later, metrics, News(later, metrics))
