"""The connection: uvicorn's HTTP protocol, with a direct, abortable write for streams and deadlines for slow peers."""

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any, Final, Protocol

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

REQUEST_DEADLINE: Final = 8.0
"""Seconds for a request to be whole; uvicorn has no limit of its own for a header that drips in."""
STALL_DEADLINE: Final = 20.0
"""Seconds for which a socket may take no more before the connection is aborted."""
DRAIN_DEADLINE: Final = 2.0
"""The same during a shutdown, and the time that unfinished requests get then."""

STREAM_EXTENSION: Final = "vectr0.stream"
"""The ASGI extension: ``{"open": open_stream}``; see `Connection.open_stream`."""


class StreamEnd(Protocol):
    """What a connection tells the stream on it."""

    def pause(self) -> None:
        """The socket takes no more."""

    def resume(self) -> None:
        """It does again."""

    def drain(self) -> None:
        """The process stops: say farewell and close."""

    def lost(self, *, stalled: bool) -> None:
        """The connection is gone."""


OpenStream = Callable[[bytes, bytes, StreamEnd | None], asyncio.WriteTransport | None]


class Connection(HttpToolsProtocol):
    """One connection of a client."""

    _deadline: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None
    _stalled = False
    _stopping = False
    _stream: StreamEnd | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Write to the socket at once, and hear of it as soon as it takes no more."""
        super().connection_made(transport)
        # Any byte that the kernel doesn't take counts as a stall. uvloop then tries to send before it buffers.
        transport.set_write_buffer_limits(high=0)
        self._expect_request()

    def data_received(self, data: bytes) -> None:
        """Feed the parser. A stream's client has nothing more to say."""
        if self._stream is None:
            if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
                self._expect_request()
            super().data_received(data)

    def on_message_begin(self) -> None:
        """Offer the application the way to this connection."""
        super().on_message_begin()
        self.scope["extensions"] = {STREAM_EXTENSION: {"open": self.open_stream}}

    def on_message_complete(self) -> None:
        """Stop the clock: the request is whole."""
        super().on_message_complete()
        self._cancel_deadline()

    def on_response_complete(self) -> None:
        """Stop the clock also for a request that was answered before it was whole."""
        self._cancel_deadline()
        super().on_response_complete()

    def open_stream(self, head: bytes, first: bytes, stream: StreamEnd | None) -> asyncio.WriteTransport | None:
        """Answer the request with a stream: status 200, these header lines and first bytes, in one write.

        From here on the connection is the stream's: it writes to the transport that is given back, and hears of what
        happens to it. The request's ASGI call ends, no task stays. Without a stream the answer is over with the first
        bytes. Gives None where the client has gone meanwhile.
        """
        if self.transport.is_closing():
            return None
        date = b"".join(b"%b: %b\r\n" % header for header in self.server_state.default_headers)
        self.transport.write(b"HTTP/1.1 200 OK\r\n" + date + head + first)
        self.cycle.response_started = self.cycle.response_complete = True  # so uvicorn lets the ASGI call end
        self._release()
        transport = self.transport
        if stream is None:
            transport.close()
            return transport
        self._stream = stream
        if self._stopping:
            self.loop.call_soon(stream.drain)
        return transport

    def _release(self) -> None:
        """Let go of all that a request needed: per stream it would be some kilobytes."""
        self._cancel_deadline()
        self._unset_keepalive_if_required()
        self.flow.resume_reading()  # a pipelined request may have paused it, and the end would go unheard
        self.pipeline.clear()
        self.parser = self.cycle = self.scope = self.headers = None  # type: ignore[assignment]  # as connection_lost

    def pause_writing(self) -> None:
        """Give the peer a while to read on."""
        super().pause_writing()
        self._stall = self.loop.call_later(DRAIN_DEADLINE if self._stopping else STALL_DEADLINE, self._give_up)
        if self._stream is not None:
            self._stream.pause()

    def resume_writing(self) -> None:
        """Go on writing: the peer has read."""
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
            if self._stream is not None:
                self._stream.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        self._cancel_deadline()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        stream, self._stream = self._stream, None
        super().connection_lost(exc)
        if stream is not None:
            stream.lost(stalled=self._stalled)

    def shutdown(self) -> None:
        """End what can end; what can't is aborted after DRAIN_DEADLINE."""
        self._cancel_deadline()
        self._stopping = True
        if self._stall is not None:
            self._give_up()
        elif self._stream is not None:
            self._stream.drain()
        else:
            super().shutdown()
            self._deadline = self.loop.call_later(DRAIN_DEADLINE, self.transport.abort)

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

    def _give_up(self) -> None:
        # Not close(): it waits until everything is sent, which a peer that doesn't read can put off for ever.
        self._stalled = True
        self.transport.abort()


def stream_opener(scope: MutableMapping[str, Any]) -> OpenStream:
    """Give a request's `Connection.open_stream`.

    Raises RuntimeError on any other server than this service's own.
    """
    extension = scope.get("extensions", {}).get(STREAM_EXTENSION)
    if extension is None:
        raise RuntimeError("streams need this service's own server: run it with `python -m service` or `vectr0`")
    opener: OpenStream = extension["open"]
    return opener
