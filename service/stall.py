"""The stall: a peer that doesn't read has a while to go on, then its connection is aborted."""

import asyncio
from typing import Final

STALL_DEADLINE: Final = 20.0
"""Seconds for which a socket may take no more before the connection is aborted."""
DRAIN_DEADLINE: Final = 2.0
"""The same during a shutdown, and the time that unfinished requests get then."""


class Stall:
    """The time from when a socket takes no more until it does again."""

    __slots__ = ("_deadline", "_transport", "ran_out")

    def __init__(self, transport: asyncio.WriteTransport, *, stopping: bool) -> None:
        self._transport = transport
        self.ran_out = False
        deadline = DRAIN_DEADLINE if stopping else STALL_DEADLINE
        self._deadline = asyncio.get_running_loop().call_later(deadline, self.give_up)

    def end(self) -> None:
        """Leave the connection alone: the peer has read, or is gone."""
        self._deadline.cancel()

    def give_up(self) -> None:
        """Abort the connection now."""
        self.ran_out = True
        # Not close(): it waits until everything is sent, which a peer that doesn't read can put off for ever.
        self._transport.abort()
