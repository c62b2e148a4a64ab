"""The peer: a client's connection, apart from HTTP: writing that may stall, waiting, and closing without a reset."""

import asyncio
from abc import abstractmethod
from typing import Any

from service.stall import DRAIN_DEADLINE, Stall
from service.waiting import Queue, Waiting


class Peer(asyncio.BufferedProtocol):
    """A connection that is written to, stands in one queue for as long as it's open, and closes in its own way.

    To uvicorn's RequestResponseCycle it is the transport and the flow control.
    """

    _transport: asyncio.Transport

    def __init__(self, waiting: Waiting, connections: set[Any]) -> None:
        self._waiting = waiting
        self._connections = connections
        self._queue: Queue | None = None
        """Where it stands; see `_place`."""
        self._rest = b""
        """What isn't parsed yet. Nothing more is read until it is."""
        self._is_deaf = False
        """True to drop what comes."""
        self._is_closed = False
        """True after the last answer."""
        self._is_gone = False
        """True once it's aborted, lost, or another's."""
        self._has_ended = False
        """True after the client's last byte."""
        self._stopping = False
        self._abort_timer: asyncio.TimerHandle | None = None
        self._stall: Stall | None = None
        self._writable: asyncio.Event | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # it is one
        """Write to the socket at once, and hear of it as soon as it takes no more."""
        self._transport = transport
        # Any byte that the kernel doesn't take counts as a stall. uvloop then tries to send before it buffers.
        transport.set_write_buffer_limits(high=0)
        self._connections.add(self)
        self._waiting.make_room(len(self._connections), self)
        self._stand()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's
        """Wake who waits to write, and wait for nothing any more."""
        self._connections.discard(self)
        self.resume_writing()
        self._go()
        if self._abort_timer is not None:
            self._abort_timer.cancel()

    def pause_writing(self) -> None:
        """Give the peer a while to read on."""
        self._stall = Stall(self._transport, stopping=self._stopping)
        self._writable = asyncio.Event()
        self._stand()

    def resume_writing(self) -> None:
        """Go on writing: the peer has read."""
        if self._stall is not None and self._writable is not None:
            self._stall.end()
            self._writable.set()
            self._stall = self._writable = None
        self._stand()

    def write(self, data: bytes) -> None:
        """Write a part of an answer."""
        if not self._is_closed:
            self._transport.write(data)

    def is_closing(self) -> bool:
        """Tell whether nothing more can be written."""
        return self._is_closed or self._transport.is_closing()

    def close(self) -> None:
        """Say that nothing more comes, and read on until the client has read that (RFC 9112, section 9.6).

        A socket that is closed with input unread is reset, which takes the answer from a client that hasn't read it.
        """
        if self._is_closed:
            return
        self._is_closed = self._is_deaf = True
        self._rest = b""
        if self._has_ended or self._transport.is_closing():
            self._transport.close()
        else:
            self._transport.write_eof()
            self._transport.resume_reading()
        self._stand()

    @property
    def write_paused(self) -> bool:
        """True while the socket takes no more."""
        return self._writable is not None

    async def drain(self) -> None:
        """Wait until the socket takes more."""
        if self._writable is not None:
            await self._writable.wait()

    def resume_reading(self) -> None:
        """Read on, if nothing waits to be parsed."""
        if not (self._rest or self._has_ended):
            self._transport.resume_reading()

    def expire(self) -> None:
        """Close: the client has had its time."""
        self._transport.close()
        self._stand()

    def abort(self) -> None:
        """Close now: the descriptor is needed."""
        self._go()
        self._transport.abort()

    def _stop(self) -> None:
        """Leave what can't end DRAIN_DEADLINE, and no more."""
        self._stopping = True
        self._abort_timer = asyncio.get_running_loop().call_later(DRAIN_DEADLINE, self._transport.abort)

    def _go(self) -> None:
        """Stand nowhere any more."""
        self._is_gone = True
        self._stand()

    def _stand(self) -> None:
        """Stand where its state says: to be called after each change of that."""
        queue = self._place()
        if queue is self._queue:
            return
        if self._queue is not None:
            self._queue.leave(self)
        self._queue = queue
        if queue is not None:
            queue.enter(self)

    def _place(self) -> Queue | None:
        """Return the queue in which it has to stand: always one, as long as it needs a descriptor."""
        if self._is_gone:
            return None
        if self._writable is not None:  # whatever else: closing, too, waits for that
            return self._waiting.stalled
        if self._transport.is_closing():  # with nothing left to send, it's lost in the loop's next turn
            return None
        return self._waiting.closing if self._is_closed else self._place_of_turn()

    @abstractmethod
    def _place_of_turn(self) -> Queue:
        """Return the queue of one that is neither stalled nor closing."""
