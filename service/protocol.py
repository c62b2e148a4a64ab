"""The connection: reads requests one at a time, lets uvicorn answer them, and can be handed over to a stream.

It is no subclass of uvicorn's protocol, which reads 256 KiB at once, queues what it finds there, and has no limits.
"""

import asyncio
import logging
import select
from http import HTTPStatus
from typing import Any, Final, cast

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from service.handover import STREAM_EXTENSION, StreamProtocol
from service.parser import Head, Parser
from service.peer import Peer
from service.problem import Problem
from service.waiting import REQUEST_DEADLINE, Queue, Waiting

READ_SIZE: Final = 16 * 1024
"""Bytes that are read at once; at most so many wait unparsed behind a request that is being answered."""
UNREAD_LIMIT: Final = 16 * 1024
"""Bytes of content that are still read after an answer that didn't wait for them, to keep the connection."""

_BUFFER: Final = bytearray(READ_SIZE)
"""Where all connections read into: what comes is used up before the next one reads."""

logger = logging.getLogger("uvicorn.error")


class Connection(Peer):
    """A connection that takes requests, until a stream takes it over."""

    def __init__(
        self,
        waiting: Waiting,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(waiting, server_state.connections)
        self._app = config.loaded_app
        self._state = server_state
        self._app_state = app_state
        self._parser = Parser()
        self._cycle: RequestResponseCycle | None = None
        """The request that is received or answered; there is one at a time."""
        self._unread = UNREAD_LIMIT
        self._is_asked_for = True
        """True where a request is due: the first, or one that is here when it's too late for it."""
        self._is_overdue = False
        self._is_storing = False

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002  # asyncio's
        """Return where to read into."""
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        if self._is_deaf:
            return
        if self._parser.is_whole:
            self._hold(_BUFFER[:nbytes])
        else:
            self._read(_BUFFER, nbytes)
            self._stand()

    def eof_received(self) -> bool:
        """Answer one who has said all, and listens on."""
        self._has_ended = True
        if self._is_closed or self._cycle is None or not self._parser.is_whole:
            return False
        self._cycle.keep_alive = False
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        super().connection_lost(exc)
        if self._cycle is not None:
            self._cycle.disconnected = True
            self._cycle.message_event.set()
        self._let_go()

    def expire(self) -> None:
        """Close; one that has begun a request is told.

        What is here, and only isn't read yet, is read first; that is granted once.
        """
        is_receiving = self._queue is self._waiting.receiving
        if (is_receiving or self._queue is self._waiting.idle) and _is_readable(self._transport):
            self._is_asked_for, self._is_overdue = True, is_receiving
            self._stand()
        elif self._queue is not self._waiting.closing and self._has_begun:
            self._refuse(Problem(408, f"the request was not whole within {REQUEST_DEADLINE:g} seconds"))
        else:  # browsers connect ahead of requests: to one that it sends later, a 408 would be the answer
            super().expire()

    @property
    def _has_begun(self) -> bool:
        """Tell whether there is a part of a request."""
        return self._cycle is not None or self._parser.has_begun

    def _place_of_turn(self) -> Queue:
        cycle, waiting = self._cycle, self._waiting
        if self._is_storing:
            return waiting.storing
        if cycle is not None and not cycle.response_complete and (self._is_deaf or self._parser.is_whole):
            return waiting.answering
        if self._is_overdue:
            return waiting.overdue
        return waiting.receiving if self._is_asked_for or self._has_begun else waiting.idle

    def shutdown(self) -> None:
        """End what can end; what can't is aborted after a while."""
        self._stop()
        if self._cycle is None or self._cycle.response_complete:
            self._transport.close()
        else:
            self._cycle.keep_alive = False
        self._stand()

    def _read(self, data: bytes | bytearray, size: int) -> None:
        """Read on, to the end of the request."""
        parser = self._parser
        try:
            end = parser.feed(data, size)
        except Problem as problem:
            self._refuse(problem)
            return
        if parser.head is None:
            return
        cycle = self._cycle or self._begin(parser.head)
        if cycle.response_complete:
            self._pass_over(data[end:size])
            return
        if parser.is_whole or parser.content:
            cycle.body += parser.content
            cycle.more_body = not parser.is_whole
            cycle.message_event.set()
        if parser.is_whole:
            self._hold(data[end:size])
        elif parser.content:
            self._transport.pause_reading()  # until the application has taken it

    def _pass_over(self, rest: bytes | bytearray) -> None:
        """Drop content that the answer didn't wait for."""
        self._unread -= len(self._parser.content)
        if self._unread < 0:
            self.close()
        elif self._parser.is_whole:
            self._rest = bytes(rest)
            self._next()

    def _hold(self, rest: bytes | bytearray) -> None:
        """Keep what is behind a request; nothing, where the connection ends with the answer."""
        if rest and self._cycle is not None and self._cycle.keep_alive:
            self._rest = bytes(rest)
            self._transport.pause_reading()

    def _begin(self, head: Head) -> RequestResponseCycle:
        """Have the application answer a request."""
        cycle = self._cycle = RequestResponseCycle(
            scope=head.scope(self._app_state, {STREAM_EXTENSION: {"open": self.open_stream, "store": self.store}}),
            transport=cast("Any", self),
            flow=cast("Any", self),
            logger=logger,
            access_logger=logger,
            access_log=False,
            default_headers=self._state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=head.expects_continue,
            keep_alive=head.keep_alive,
            on_response=self._on_response,
        )
        task = asyncio.get_running_loop().create_task(cycle.run_asgi(self._app))
        task.add_done_callback(self._state.tasks.discard)
        self._state.tasks.add(task)
        return cycle

    def _on_response(self) -> None:
        """Go on after an answer."""
        self._state.total_requests += 1
        if self.is_closing():
            return
        if self._parser.is_whole:
            self._next()
        elif self._parser.head is not None and self._parser.head.expects_continue:
            self.close()  # the client may send its content now, or another request
        else:
            self.resume_reading()

    def _next(self) -> None:
        """Take the next request."""
        rest, self._rest = self._rest, b""
        self._cycle = None
        self._unread = UNREAD_LIMIT
        self._is_asked_for = self._is_overdue = self._is_storing = False
        self._parser.next()
        if self._queue is self._waiting.receiving:
            self._queue.renew(self)
        if rest:
            self._read(rest, len(rest))
        self._stand()
        self.resume_reading()

    def _refuse(self, problem: Problem) -> None:
        """Answer what is no request, and close; an answer that is half written comes first."""
        self._is_deaf = True
        cycle = self._cycle
        if cycle is not None and cycle.response_started and not cycle.response_complete:
            cycle.keep_alive = False
            self._stand()
            return
        if cycle is None or not cycle.response_started:
            self.write(_encode(problem, self._state.default_headers))
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
        self.close()

    def open_stream(self, head: bytes, first: bytes, stream: StreamProtocol | None) -> bool:
        """Answer the request with a stream: status 200, these header lines and first bytes, in one write.

        Then the connection is the stream's, as it would be a WebSocket's after an upgrade: all that a request needed
        is let go, some kilobytes and a dozen objects that garbage collections would look at. Without a stream the
        answer is over with the first bytes. Gives False where the client has gone meanwhile.
        """
        if self._cycle is None:
            return False
        self._cycle.response_started = self._cycle.response_complete = True  # so uvicorn lets the ASGI call end
        if self._has_ended or self.is_closing():
            self.close()
            return False
        date = b"".join(b"%b: %b\r\n" % header for header in self._state.default_headers)
        self._transport.write(b"HTTP/1.1 200 OK\r\n" + date + head + first)
        if stream is None:
            self.close()
        else:
            self._hand_over(stream)
        return True

    def store(self) -> None:
        """Be the last to be closed when descriptors get short: the request changes what is stored."""
        self._is_storing = True
        self._stand()

    def _hand_over(self, stream: StreamProtocol) -> None:
        transport = self._transport
        if self._stall is not None:  # the stream begins one of its own
            self._stall.end()
        self._connections.discard(self)
        self._let_go()
        transport.set_protocol(stream)  # type: ignore[arg-type]  # it is an asyncio.BufferedProtocol, too
        transport.resume_reading()  # a pipelined request may have paused it, and the end would go unheard
        stream.begin(transport, self._connections)
        if self._stopping:
            asyncio.get_running_loop().call_soon(stream.shutdown)

    def _let_go(self) -> None:
        """Drop what leads back here: freed by reference counts alone, it costs no garbage collection."""
        self._go()
        self._parser.close()
        self._cycle = None


def _encode(problem: Problem, headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the answer to what is no request that the application could answer."""
    response = problem.response({"Connection": "close"})
    status = b"HTTP/1.1 %d %b" % (problem.status, HTTPStatus(problem.status).phrase.encode())
    lines = [b"%b: %b" % header for header in (*headers, *response.raw_headers)]
    return b"\r\n".join([status, *lines, b"", bytes(response.body)])


def _is_readable(transport: asyncio.Transport) -> bool:
    """Return whether the loop is about to read something, be it the end."""
    polling = select.poll()
    polling.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(polling.poll(0))
