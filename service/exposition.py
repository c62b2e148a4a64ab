"""The exposition: what `/metrics` answers. Anybody may ask, so one is made for all who ask, and beside the loop."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

INTERVAL: Final = 1.0
"""Seconds between two, whatever is asked."""


class Exposition:
    """Makes no more than one in INTERVAL. Who asks is given one that was begun afterwards: a count is never missed."""

    def __init__(self, make: Callable[[], bytes], clock: Callable[[], float] = time.monotonic) -> None:
        self._make = make
        self._clock = clock
        self._turn = asyncio.Lock()
        self._text = b""
        self._as_of = self._began_at = float("-inf")

    async def text(self) -> bytes:
        """Return the metrics of all workers in Prometheus's text format."""
        asked_at = self._clock()
        async with self._turn:
            if self._as_of <= asked_at:
                await asyncio.sleep(self._began_at + INTERVAL - self._clock())
                began_at = self._began_at = self._clock()
                # In a thread, which shares the interpreter with the loop every few milliseconds: adding up the files
                # of several workers takes longer than the loop may stand still.
                self._text = await asyncio.to_thread(self._make)
                self._as_of = began_at
            return self._text
