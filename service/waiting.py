"""Connections that aren't streams: each stands in one queue until it ends, most with a deadline.

When descriptors get short the longest wait ends. None is exempt, or enough of such ones would lock all others out.
"""

import asyncio
import logging
from collections import OrderedDict
from typing import Final, Protocol

REQUEST_DEADLINE: Final = 8.0
"""Seconds for a request to be whole."""
OVERDUE_DEADLINE: Final = 1.0
"""Seconds to read what was already there when that time was over."""
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

    def renew(self, connection: WaitingConnection) -> None:
        """Begin to wait anew."""
        self._since[connection] = asyncio.get_running_loop().time()
        self._since.move_to_end(connection)

    @property
    def age_of_first(self) -> float:
        """Return how long the first has waited; less than nothing where there is none."""
        return -1.0 if self.first is None else asyncio.get_running_loop().time() - self._since[self.first]

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
            self.renew(first)  # if it stays here, it is for another while
            first.expire()


class Waiting:
    """The queues of a process, and the limit of its connections."""

    def __init__(self, descriptor_limit: int, keep_alive: float) -> None:
        self._limit = max(1, descriptor_limit - OWN_DESCRIPTORS)
        self._warned_at = float("-inf")
        self.closing = Queue(CLOSE_DEADLINE)
        """Those that have been answered for the last time."""
        self.idle = Queue(keep_alive)
        """Those that have been answered, and may ask again."""
        self.stalled = Queue(None)  # a Stall ends it
        """Those whose client doesn't read."""
        self.receiving = Queue(REQUEST_DEADLINE)
        """Those whose request isn't whole."""
        self.overdue = Queue(OVERDUE_DEADLINE)
        """Those whose request wasn't whole in time, as far as it was read."""
        self.answering = Queue(None)
        """Those that wait for the service. What is asked behind a request renews nothing."""
        self.storing = Queue(None)
        """Those of them whose request changes what is stored."""

    def make_room(self, connections: int, newcomer: WaitingConnection) -> None:
        """End the longest wait if there are too many connections with the newcomer, which stands in no queue yet.

        The limit leaves more than the streams may take, so there is always another one that isn't a stream.
        """
        if connections <= self._limit:
            return
        (self._dispensable or newcomer).abort()
        self._warn()

    @property
    def _dispensable(self) -> WaitingConnection | None:
        """Return the one that misses least if it ends."""
        # The client's turn or the service's: if one of them came first, those who stay in the other one could see to
        # it that no newcomer gets through both.
        longest = max(self.receiving, self.answering, key=lambda queue: queue.age_of_first)
        queues = (self.closing, self.idle, self.stalled, self.overdue, longest, self.storing)
        return next((queue.first for queue in queues if queue.first is not None), None)

    def _warn(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._warned_at > WARNING_INTERVAL:
            self._warned_at = now
            logger.warning(
                "%d connections are as many as the limit of open files allows; the longest idle ones are closed",
                self._limit,
            )
