"""Restraint: what anybody can have logged is logged at a bounded rate, and then how much of it was left out."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

BURST: Final = 10
"""Lines of one kind in an interval."""
INTERVAL: Final = 10.0
"""Seconds."""
OWN: Final = "vectr0"
OF_OUTSIDERS: Final = ("vectr0.publishers",)
"""The loggers of this service that write what somebody without a token can cause."""


@dataclass(slots=True)
class _Window:
    """The lines of one kind since it began."""

    began: float
    last: logging.LogRecord
    admitted: int = 0
    left_out: int = 0


class Restraint:
    """Says which lines are written. Lines of one kind come from one place in the code, so there are few kinds.

    What libraries log is restrained, too: mostly it is about a connection, and anybody can open one.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: dict[tuple[str, int], _Window] = {}

    def admits(self, record: logging.LogRecord) -> bool:
        """Return whether a line is to be written; one that isn't is counted."""
        if record.name.partition(".")[0] == OWN and record.name not in OF_OUTSIDERS:
            return True
        kind, now = (record.pathname, record.lineno), self._clock()
        window = self._windows.get(kind)
        # One that left lines out lasts until that has been told.
        if window is None or (not window.left_out and now - window.began >= INTERVAL):
            window = self._windows[kind] = _Window(now, record)
        window.last = record
        if window.admitted < BURST:
            window.admitted += 1
            return True
        window.left_out += 1
        return False

    @property
    def pause(self) -> float | None:
        """Seconds until there is something to tell; None where nothing was left out."""
        ends = [window.began + INTERVAL for window in self._windows.values() if window.left_out]
        return max(0.0, min(ends) - self._clock()) if ends else None

    def tell(self, *, early: bool = False) -> Iterator[logging.LogRecord]:
        """Yield a line for each kind of which lines were left out, when its interval is over, or earlier."""
        for kind, window in list(self._windows.items()):
            if window.left_out and (early or self._clock() - window.began >= INTERVAL):
                del self._windows[kind]
                last = window.last
                like = str(last.msg).partition("\n")[0][:80]
                text = "%d more lines like %r were left out"
                yield logging.LogRecord(
                    last.name, last.levelno, last.pathname, last.lineno, text, (window.left_out, like), None
                )
