"""Connections that wait for their client: each has a deadline, and when descriptors get short the longest wait ends."""

import asyncio
import logging
from collections import OrderedDict
from typing import Final, Protocol

REQUEST_DEADLINE: Final = 8.0
"""Seconds for a request to be whole."""
CLOSE_DEADLINE: Final = 1.0
"""Seconds for a client to close, after the last answer: for so long its input is read and dropped."""

OWN_DESCRIPTORS: Final = 96
"""Descriptors that connections leave free: for Redis (36), issuers, files, and those that are accepted at once."""
WARNING_INTERVAL: Final = 60.0
"""Seconds between two warnings that descriptors are short."""

logger = logging.getLogger("vectr0")


class WaitingConnection(Protocol):
    """What can stand in a queue."""

    def expire(self) -> None:
        """Its deadline has passed."""

    def abort(self) -> None:
        """Its descriptor is needed for another."""


class Queue:
    """Connections in the order in which they began to wait. Entering and leaving take no time that grows with it."""

    def __init__(self, deadline: float | None) -> None:
        self._deadline = deadline
        # Not a dict: its first entry is searched for behind all that have left.
        self._since: OrderedDict[WaitingConnection, float] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def enter(self, connection: WaitingConnection) -> None:
        """Begin to wait."""
        loop = asyncio.get_running_loop()
        self._since[connection] = loop.time()
        if self._timer is None and self._deadline is not None:
            self._timer = loop.call_later(self._deadline, self._expire, self._deadline)

    def leave(self, connection: WaitingConnection) -> None:
        """Wait no more."""
        self._since.pop(connection, None)

    @property
    def first(self) -> WaitingConnection | None:
        """The one that has waited for longest."""
        return next(iter(self._since), None)

    def _expire(self, deadline: float) -> None:
        """End those that have waited for too long. One timer serves all: they are in order."""
        loop = asyncio.get_running_loop()
        self._timer = None
        while (first := self.first) is not None:
            left = self._since[first] + deadline - loop.time()
            if left > 0:
                self._timer = loop.call_later(left, self._expire, deadline)
                return
            first.expire()
            self._since.pop(first, None)


class Waiting:
    """The queues of a process, and the limit of its connections."""

    def __init__(self, descriptor_limit: int, keep_alive: float) -> None:
        self._limit = max(1, descriptor_limit - OWN_DESCRIPTORS)
        self._warned_at = float("-inf")
        self.closing = Queue(CLOSE_DEADLINE)
        """Those that are answered for the last time."""
        self.idle = Queue(keep_alive)
        """Those that are answered, and may ask again."""
        self.stalled = Queue(None)  # a Stall ends it
        """Those whose client doesn't read."""
        self.receiving = Queue(REQUEST_DEADLINE)
        """Those whose request isn't whole."""

    def make_room(self, connections: int) -> None:
        """End the longest wait if there are too many connections; where none waits, the new one itself has to go.

        The limit leaves more than the streams may take, so there is always one that isn't a stream.
        """
        if connections <= self._limit:
            return
        for queue in (self.closing, self.idle, self.stalled, self.receiving):
            if queue.first is not None:
                queue.first.abort()
                break
        now = asyncio.get_running_loop().time()
        if now - self._warned_at > WARNING_INTERVAL:
            self._warned_at = now
            logger.warning(
                "%d connections are as many as the limit of open files allows; the longest idle ones are closed",
                self._limit,
            )
