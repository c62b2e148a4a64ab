"""The connection: uvicorn's HTTP protocol, with deadlines for slow peers and a way to hand it over to a stream."""

import asyncio
import select
from collections.abc import Callable, MutableMapping
from typing import Any, Final, Protocol

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.stall import DRAIN_DEADLINE, Stall

REQUEST_DEADLINE: Final = 8.0
"""Seconds for a request to be whole; uvicorn has no limit of its own for a header that drips in."""

STREAM_EXTENSION: Final = "vectr0.stream"
"""The ASGI extension: ``{"open": open_stream}``; see `Connection.open_stream`."""


class StreamProtocol(Protocol):
    """What takes over a connection: an asyncio.Protocol that uvicorn can also shut down."""

    def begin(self, transport: asyncio.Transport, connections: set[Any]) -> None:
        """Take the transport, and a place among the connections that a shutdown ends, until it is lost."""

    def shutdown(self) -> None:
        """The process stops: say farewell and close."""


OpenStream = Callable[[bytes, bytes, StreamProtocol | None], bool]


class Connection(HttpToolsProtocol):
    """A connection that takes requests, until a stream takes it over."""

    _deadline: asyncio.TimerHandle | None = None
    _stall: Stall | None = None
    _stopping = False
    _answered: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Write to the socket at once, and hear of it as soon as it takes no more."""
        super().connection_made(transport)
        # Any byte that the kernel doesn't take counts as a stall. uvloop then tries to send before it buffers.
        transport.set_write_buffer_limits(high=0)
        self._expect_request()

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_request()
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Offer the application the way to this connection."""
        super().on_message_begin()
        self.scope["extensions"] = {STREAM_EXTENSION: {"open": self.open_stream}}

    def on_headers_complete(self) -> None:
        """Know which request is answered now: ``cycle`` is the latest, which may be pipelined behind it."""
        super().on_headers_complete()
        if not self.pipeline:
            self._answered = self.cycle

    def on_message_complete(self) -> None:
        """Stop the clock: the request is whole."""
        super().on_message_complete()
        self._cancel_deadline()

    def on_response_complete(self) -> None:
        """Stop the clock also for a request that was answered before it was whole."""
        self._cancel_deadline()
        if self.pipeline:
            self._answered, _ = self.pipeline[-1]
        super().on_response_complete()

    def open_stream(self, head: bytes, first: bytes, stream: StreamProtocol | None) -> bool:
        """Answer the request with a stream: status 200, these header lines and first bytes, in one write.

        Then the connection is the stream's, as it would be a WebSocket's after an upgrade: all that a request needed
        is let go, some kilobytes and a dozen objects that garbage collections would look at. Without a stream the
        answer is over with the first bytes. Gives False where the client has gone meanwhile.
        """
        transport = self.transport
        if self._answered is None:
            return False
        self._answered.response_started = self._answered.response_complete = True  # so uvicorn lets the ASGI call end
        if transport.is_closing():
            return False
        date = b"".join(b"%b: %b\r\n" % header for header in self.server_state.default_headers)
        transport.write(b"HTTP/1.1 200 OK\r\n" + date + head + first)
        if stream is None:
            transport.close()
            return True
        self._cancel_deadline()
        if self._stall is not None:  # the stream begins one of its own
            self._stall.end()
        self.flow.resume_reading()  # a pipelined request may have paused it, and the end would go unheard
        self.connections.discard(self)
        self._let_go()
        transport.set_protocol(stream)  # type: ignore[arg-type]  # it is an asyncio.Protocol, too
        stream.begin(transport, self.connections)
        if self._stopping:
            self.loop.call_soon(stream.shutdown)
        return True

    def pause_writing(self) -> None:
        """Give the peer a while to read on."""
        super().pause_writing()
        self._stall = Stall(self.transport, stopping=self._stopping)

    def resume_writing(self) -> None:
        """Go on writing: the peer has read."""
        if self._stall is not None:
            self._stall.end()
            self._stall = None
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        if self._deadline is not None:
            self._deadline.cancel()
        if self._stall is not None:
            self._stall.end()
        self.cycle = self._answered or self.cycle  # this is the one that has to hear of it
        super().connection_lost(exc)
        self._let_go()

    def shutdown(self) -> None:
        """End what can end; what can't is aborted after DRAIN_DEADLINE."""
        self._cancel_deadline()
        self._stopping = True
        super().shutdown()
        self._deadline = self.loop.call_later(DRAIN_DEADLINE, self.transport.abort)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that was idle for long, unless its next request is here and only isn't read yet."""
        if not _is_readable(self.transport):
            super().timeout_keep_alive_handler()

    def _let_go(self) -> None:
        """Drop what leads back here: freed by reference counts alone, it costs no garbage collection."""
        self.pipeline.clear()
        self.parser = self.cycle = self._answered = self.scope = None  # type: ignore[assignment]  # nothing comes after this

    def _expect_request(self) -> None:
        self._deadline = self.loop.call_later(REQUEST_DEADLINE, self._time_out)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None and not self._stopping:
            self._deadline.cancel()
            self._deadline = None

    def _time_out(self) -> None:
        self._deadline = None
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()


def _is_readable(transport: asyncio.Transport) -> bool:
    """Return whether the loop is about to read something, be it the end."""
    polling = select.poll()
    polling.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(polling.poll(0))


def stream_opener(scope: MutableMapping[str, Any]) -> OpenStream:
    """Give a request's `Connection.open_stream`.

    Raises RuntimeError on any other server than this service's own.
    """
    extension = scope.get("extensions", {}).get(STREAM_EXTENSION)
    if extension is None:
        raise RuntimeError("streams need this service's own server: run it with `python -m service` or `vectr0`")
    opener: OpenStream = extension["open"]
    return opener
