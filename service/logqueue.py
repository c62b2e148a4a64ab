"""The way of log lines out of the process: a bounded queue and one thread, so that nobody waits for who reads them.

A pipe that nobody reads, or a terminal that was stopped, blocks whoever writes to it; the event loop must not be that.
"""

import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Literal

from service.restraint import Restraint

MOST_QUEUED: Final = 2**20
"""Bytes of lines that wait; what comes then is dropped."""
FLUSH_DEADLINE: Final = 0.5
"""Seconds for which the end of the process waits for them."""

Why = Literal["restrained", "unwritten"]
"""Why a line isn't in the log: anybody can cause such lines; or it took no more, or failed."""


class QueuedHandler(logging.Handler):
    """Hands lines to a thread that writes them, and never waits for it but at the end."""

    def __init__(self, descriptor: int, restraint: Restraint) -> None:
        super().__init__()
        self.on_left_out: Callable[[Why], object] = lambda _: None
        self._descriptor = descriptor
        self._restraint = restraint
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._dropped = 0
        """Lines that were dropped since that was last written."""
        self._is_writing = False
        self._is_torn = False
        """True after half a line."""
        # The handler's own lock, which a signal that comes while it is held may take again.
        assert self.lock is not None  # noqa: S101  # for mypy: Handler.__init__ has made it
        self._changed = threading.Condition(self.lock)
        threading.Thread(target=self._write_forever, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line, where it is to be written and there is room."""
        with self._changed:
            if self._restraint.admits(record):
                self._queue(record)
            else:
                self.on_left_out("restrained")
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until everything is written, but not for long."""
        with self._changed:
            for record in self._restraint.tell(early=True):
                self._queue(record)
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._lines and not self._is_writing, FLUSH_DEADLINE)

    def _queue(self, record: logging.LogRecord) -> None:
        line = self._encoded(record)
        if self._size + len(line) > MOST_QUEUED:
            self._drop()
        else:
            self._lines.append(line)
            self._size += len(line)

    def _encoded(self, record: logging.LogRecord) -> bytes:
        try:
            text = self.format(record)
        except Exception as error:  # noqa: BLE001  # logging.Handler would write that to standard error, and wait
            text = f"a line of {record.pathname}:{record.lineno} can't be formatted: {error!r}"
        return text.encode(errors="backslashreplace") + b"\n"

    def _drop(self) -> None:
        self._dropped += 1
        self.on_left_out("unwritten")

    def _write_forever(self) -> None:
        while True:
            line = self._next()
            if not self._write(line):
                with self._changed:
                    self._drop()
            elif self._dropped and not self._lines:
                self._tell_of_dropped()

    def _next(self) -> bytes:
        with self._changed:
            self._is_writing = False
            self._changed.notify_all()
            while not self._lines:
                self._changed.wait(self._restraint.pause)
                for record in self._restraint.tell():
                    self._queue(record)
            self._is_writing = True
            line = self._lines.popleft()
            self._size -= len(line)
            return line

    def _tell_of_dropped(self) -> None:
        dropped, text = self._dropped, "the log took no more for a while: %d lines are missing"
        note = logging.LogRecord("vectr0", logging.WARNING, __file__, 0, text, (dropped,), None)
        if self._write(self._encoded(note)):
            with self._changed:
                self._dropped -= dropped

    def _write(self, line: bytes) -> bool:
        """Write a line, however long that takes, and return whether that worked."""
        left = memoryview(b"\n" + line if self._is_torn else line)
        whole = len(left)
        try:
            while left:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BlockingIOError:  # as a descriptor is that somebody else, who has it, too, has made so
                    polling = select.poll()
                    polling.register(self._descriptor, select.POLLOUT)
                    polling.poll()
        except OSError:  # a reader who is gone, or a full disk
            self._is_torn = self._is_torn or len(left) < whole
            return False
        self._is_torn = False
        return True
