"""The stream: one browser's open response. It has no task, queue or timer of its own."""

import asyncio
import gc
import random
import socket
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from service.build import Build
from service.bulletin import Bulletin
from service.channel import Channel
from service.channels import Channels
from service.frame import LAST_CHUNK, DeploymentFrame, Frame, encode, ping, retry
from service.metrics import CloseReason, Metrics
from service.stall import Stall
from service.tallies import Tally

PING_INTERVAL: Final = 15.0
"""Seconds between two pings on a stream."""
TICK: Final = 0.5
"""Seconds between two turns of the ticker; each pings the streams of one slot."""
SLOTS: Final = int(PING_INTERVAL / TICK)

FREEZE_AFTER: Final = 500
"""Streams opened between two freezes."""
RETRY_MS: Final = (1_000, 5_000)
"""Milliseconds until a browser connects again: random, so that a thousand cut off together don't come together."""
RETRY_OVER_LIMIT_MS: Final = (15_000, 60_000)

PIECE: Final = 50
"""Frames that a board is written at once; a socket that takes no more holds up no more than that."""
PIECES: Final = 4
"""Pieces after which the event loop gets its turn."""

_PASSED_OVER: Final = bytearray(4096)
"""Where all streams read into."""


def random_retry(between: tuple[int, int]) -> Frame:
    """Tell one browser when to connect again."""
    return retry(random.randint(*between))  # noqa: S311  # jitter


class OpenStream(asyncio.BufferedProtocol):
    """What a stream of one channel and a board have in common: a connection that is written to, or takes no more."""

    __slots__ = ("_chunked", "_connections", "_stall", "_streams", "_transport", "flowing", "slot")

    _connections: set[asyncio.BaseProtocol]
    _transport: asyncio.Transport

    def __init__(self, streams: "Streams", *, chunked: bool) -> None:
        self._streams = streams
        self._chunked = chunked
        self._stall: Stall | None = None
        self.flowing = False
        """False before it is open, while its socket takes no more, and once it is closed."""
        self.slot = -1

    def encode(self, *frames: Frame) -> bytes:
        """Join frames in the coding of this response; HTTP/1.0 has no chunks."""
        return encode(frames, chunked=self._chunked)

    def begin(self, transport: asyncio.Transport, connections: set[asyncio.BaseProtocol]) -> None:
        """Take over a connection whose head and first events are written."""
        self._transport = transport
        self._connections = connections
        connections.add(self)
        self.flowing = True
        self._streams.add(self)
        if transport.get_write_buffer_size():
            self.pause_writing()

    def write(self, frame: Frame) -> None:
        """Write an event, if the socket takes it."""
        if self.flowing:
            self._transport.write(frame.chunk if self._chunked else frame.event)

    @staticmethod
    def get_buffer(sizehint: int) -> bytearray:  # noqa: ARG004  # asyncio's
        """Return where to read into what a client sends that has nothing more to say; it is passed over."""
        return _PASSED_OVER

    @staticmethod
    def buffer_updated(nbytes: int) -> None:
        """Pass over it. Both are static, so that a transport keeps no two method objects for each stream."""

    def pause_writing(self) -> None:
        """Write nothing until the socket takes more: what is missed then is in the channel's memory."""
        self.flowing = False
        if self._stall is None:
            self._stall = Stall(self._transport, stopping=self._transport.is_closing())

    def resume_writing(self) -> None:
        """Go on, and catch up."""
        if self._stall is not None:
            self._stall.end()
            self._stall = None
        if not self._transport.is_closing():
            self.flowing = True
            self.catch_up()

    def catch_up(self) -> None:
        """Write what was missed."""

    def shutdown(self) -> None:
        """Send the browser to another replica, at a moment of its own: the process stops."""
        if self._stall is not None:
            self._stall.give_up()
        elif self.flowing:
            self._leave("shutdown")
            self._close(random_retry(RETRY_MS))

    def _close(self, *last: Frame) -> None:
        self._transport.write(self.encode(*last) + LAST_CHUNK * self._chunked)
        self._transport.close()
        if self._stall is not None:  # it was this that found the socket full
            self._stall.end()
            self._stall = Stall(self._transport, stopping=True)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's
        """Leave everything."""
        is_stalled = self._stall is not None and self._stall.ran_out
        if self._stall is not None:
            self._stall.end()
        self._connections.discard(self)
        self._leave("stalled" if is_stalled else "client")

    def _leave(self, reason: CloseReason) -> None:
        self.flowing = False
        self._streams.remove(self, reason)


class Stream(OpenStream):
    """A stream of one channel's deployments."""

    __slots__ = ("_socket", "_tally", "channel", "sent")

    _socket: socket.socket

    def __init__(self, streams: "Streams", channel: Channel, *, chunked: bool) -> None:
        super().__init__(streams, chunked=chunked)
        self.channel = channel
        self.sent = 0
        self._tally: Tally | None = None

    def begin(self, transport: asyncio.Transport, connections: set[asyncio.BaseProtocol]) -> None:
        """Take over the connection, and share its socket."""
        theirs = transport.get_extra_info("socket")
        self._socket = socket.socket(theirs.family, theirs.type, theirs.proto, theirs.fileno())
        super().begin(transport, connections)

    def count(self, running: Build | None) -> None:
        """Count it, until it ends, among those whose page runs this build."""
        self._tally = self.channel.tallies.enter(running)

    def send(self, frame: DeploymentFrame) -> None:
        """Write a deployment; only called while the stream flows.

        It goes straight to the socket, past the transport and without a call of write(), which makes a fan-out 5 %
        shorter. While a stream flows the transport's own buffer is empty, so nothing can be overtaken.
        """
        data = frame.numbered.chunk if self._chunked else frame.numbered.event
        try:
            sent = self._socket.send(data)
        except OSError:  # full, or the peer is gone: the transport knows what to do
            sent = 0
        if sent < len(data):
            self._transport.write(data[sent:])

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the socket, which uvloop closes after this, and leave everything."""
        self._socket.detach()
        super().connection_lost(exc)

    def catch_up(self) -> None:
        """Write what was missed and is still kept."""
        self.channel.catch_up(self)

    def _leave(self, reason: CloseReason) -> None:
        super()._leave(reason)
        self.channel.leave(self)
        if self._tally is not None:  # a shutdown leaves first, and then the connection is lost
            self.channel.tallies.leave(self._tally)
            self._tally = None


class Board(OpenStream):
    """A stream of all channels' deployments."""

    __slots__ = ("_bulletin", "_channels", "_news_read", "_read", "_start")

    def __init__(self, streams: "Streams", channels: Channels, bulletin: Bulletin, *, chunked: bool) -> None:
        super().__init__(streams, chunked=chunked)
        self._channels = channels
        self._bulletin = bulletin
        self._start: Iterator[DeploymentFrame] | None = None
        """What it starts with and hasn't been sent yet; None when all has been."""
        self._read = self._news_read = 0
        """The numbers of the last note and the last deployment that were written to it."""

    def first(self) -> list[Frame]:
        """Return the first of the channels' newest deployments, in their order; the rest is sent as it is taken."""
        self._start, self._news_read = iter(self._channels.newest()), self._channels.news.number
        return [frame.unnumbered for frame in islice(self._start, PIECE)]

    def begin(self, transport: asyncio.Transport, connections: set[asyncio.BaseProtocol]) -> None:
        """Take over the connection, and go on with what it starts with."""
        super().begin(transport, connections)
        self.catch_up()

    def read_news(self) -> int:
        """Write the deployments that are new to it, as far as the socket takes them. Returns how many that were."""
        return self._write_pieces(self._next_piece)

    def read_bulletin(self) -> None:
        """Write the notes that are new, after what it starts with, as far as the socket takes them."""
        self._write_pieces(self._next_notes)

    def _write_pieces(self, next_piece: Callable[[], list[Frame]]) -> int:
        """Write piece after piece; after some of them go on in the next turn, so that the loop isn't stopped."""
        written = 0
        for _ in range(PIECES):
            piece = next_piece() if self.flowing else []
            if not piece:
                return written
            self._transport.write(self.encode(*piece))
            written += len(piece)
        asyncio.get_running_loop().call_soon(self.catch_up)
        return written

    def _next_piece(self) -> list[Frame]:
        if self._start is not None:
            if piece := [frame.unnumbered for frame in islice(self._start, PIECE)]:
                return piece
            self._start = None
        news = self._channels.news.after(self._news_read)[:PIECE]
        if news:
            self._news_read, _ = news[-1]
        return [frame.unnumbered for _, frame in news]

    def _next_notes(self) -> list[Frame]:
        if self._start is not None:
            return []
        notes = self._bulletin.after(self._read)[:PIECE]
        if notes:
            self._read = notes[-1].number
        return [note.frame for note in notes]

    def catch_up(self) -> None:
        """Write what was missed and is still kept."""
        self._streams.wrote(self.read_news())
        self.read_bulletin()

    def _leave(self, reason: CloseReason) -> None:
        super()._leave(reason)
        self._channels.remove_watcher(self)


class Streams:
    """All open streams of this process, and the one ticker that keeps them alive."""

    def __init__(self, limit: int, metrics: Metrics) -> None:
        self.limit = limit
        self._metrics = metrics
        self._slots: list[dict[OpenStream, None]] = [{} for _ in range(SLOTS)]
        self._turn = 0
        self._unfrozen = 0
        self.count = 0

    @property
    def is_full(self) -> bool:
        """Tell whether one more would be one too many."""
        return self.count >= self.limit

    def add(self, stream: OpenStream) -> None:
        """Ping a stream from now on. The slots are filled in turn, which spreads the pings over the interval."""
        self._turn = (self._turn + 1) % SLOTS
        stream.slot = self._turn
        self._slots[stream.slot][stream] = None
        self.count += 1
        self._unfrozen += 1
        self._metrics.opened.inc()
        self._metrics.streams.set(self.count)

    def remove(self, stream: OpenStream, reason: CloseReason) -> None:
        """Forget a stream, if it is still known."""
        if stream in self._slots[stream.slot]:
            del self._slots[stream.slot][stream]
            self.count -= 1
            self._metrics.closed.labels(reason).inc()
            self._metrics.streams.set(self.count)

    def wrote(self, frames: int) -> None:
        """Count frames that were written to streams."""
        self._metrics.wrote(frames)

    async def run(self) -> None:
        """Ping every stream once in PING_INTERVAL, until cancelled."""
        loop = asyncio.get_running_loop()
        slot, due = 0, loop.time()
        while True:
            due = max(due + TICK, loop.time())
            await asyncio.sleep(due - loop.time())
            self._metrics.loop_lag.observe(max(0.0, loop.time() - due))
            slot = (slot + 1) % SLOTS
            self._ping(slot)
            if self._unfrozen >= FREEZE_AFTER:
                self._freeze()

    def _freeze(self) -> None:
        """Take the open streams out of the garbage collector's sight.

        They end by their reference counts alone, and a full collection over 9,000 of them stops the loop for 22 ms.
        """
        gc.collect(1)
        gc.freeze()
        self._unfrozen = 0

    def _ping(self, slot: int) -> None:
        frame = ping(time.time_ns() // 1_000_000)
        for stream in self._slots[slot]:
            stream.write(frame)
        self._metrics.wrote(len(self._slots[slot]))
