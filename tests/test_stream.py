import asyncio
import socket
from typing import Any

import pytest

from service import stall
from service.channel import Channel
from service.deployment import ChannelName
from service.metrics import Metrics
from service.stream import Stream, Streams

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
    channel = Channel(ChannelName("web/production"), asyncio.get_running_loop().call_soon, metrics)
    stream = Stream(Streams(10, metrics), channel, chunked=True)
    transport: Any = FullTransport()
    transport.protocol = stream
    stream.begin(transport, set())
    stream.shutdown()

    assert transport.written.endswith(b"0\r\n\r\n")
    async with asyncio.timeout(5):
        await transport.aborted.wait()
