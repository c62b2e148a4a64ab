"""uvicorn's server for one process: it wakes seldom, and its end is in order, once, and in time."""

import asyncio
import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from socket import socket
from types import FrameType
from typing import Any, Final

from uvicorn import Server

from service import logs

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""Each of them ends the service in the same way: a terminal that is closed sends SIGHUP, Ctrl-\\ SIGQUIT."""
LAST_RESORT: Final = 4.7
"""Seconds from a signal until the process is ended, whatever still hangs."""
LAST_WORDS: Final = 4.5
"""Seconds until it says so: in a thread of its own, for anything may be what hangs."""


def take_signals(handle: Callable[[int, FrameType | None], Any] | signal.Handlers) -> None:
    """Have this called for a signal that ends the service. One that `nohup` has switched off stays so."""
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


class QuietServer(Server):
    """uvicorn's server, woken once a second and by signals.

    The original wakes ten times a second to look for one, which costs as much CPU as pinging 1,500 streams.
    """

    _wake: Callable[[], object] | None = None

    def run(self, sockets: list[socket] | None = None) -> None:
        """Serve until a signal ends it."""
        super().run(sockets)
        take_signals(signal.SIG_IGN)  # the interpreter would restore what they do by default, and it isn't gone yet

    async def main_loop(self) -> None:
        """Update the Date header until a signal says that it is over."""
        signalled = asyncio.Event()
        self._wake = functools.partial(asyncio.get_running_loop().call_soon_threadsafe, signalled.set)
        while not await self.on_tick(counter=0):
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await signalled.wait()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals, and keep them: uvicorn gives them back, and then raises each once more."""
        take_signals(self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  # uvicorn's signature
        """Begin the end. Further signals change nothing: this end comes soon, and is the one that says farewell."""
        if self.should_exit:
            return
        self.should_exit = True
        _end_in_time()
        if self._wake is not None:
            with suppress(RuntimeError):  # where the loop has been closed
                self._wake()


def _end_in_time() -> None:
    """Set an end that waits for nothing.

    What could hang is cut off or left behind where that is known. This is for the rest: a thread of a library that
    the interpreter joins, a file system.
    """
    for seconds, act in (LAST_WORDS, _say_that_it_hangs), (LAST_RESORT, lambda: os._exit(os.EX_SOFTWARE)):
        timer = threading.Timer(seconds, act)
        timer.daemon = True
        timer.start()


def _say_that_it_hangs() -> None:
    logs.logger.critical("something hangs: the process ends without waiting for it")
