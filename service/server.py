"""The server: uvicorn, configured for streams, in one process or several."""

import asyncio
import ctypes
import functools
import multiprocessing
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Final

from uvicorn import Config, Server
from uvicorn.supervisors import Multiprocess

from service import app, logs
from service.bind import BACKLOG
from service.protocol import Connection
from service.settings import Settings
from service.waiting import Waiting

LAST_RESORT: Final = 4.7
"""Seconds from a signal until the process is ended, whatever still hangs."""
LAST_WORDS: Final = 4.5
"""Seconds until it says so: in a thread of its own, for the log may be what hangs."""

_PR_SET_PDEATHSIG: Final = 1
"""From <linux/prctl.h>."""


def raise_descriptor_limit() -> int:
    """Raise the limit of open files to the hard one, and give it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = 1_048_576
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def serve(settings: Settings, listening: socket.socket) -> None:
    """Serve until a signal ends it."""
    waiting = Waiting(raise_descriptor_limit(), settings.keep_alive)
    config = Config(
        functools.partial(_create, settings),
        factory=True,
        http=functools.partial(Connection, waiting),  # type: ignore[arg-type]  # uvicorn only calls it
        ws="none",
        loop="service.loop:Loop",
        lifespan="on",
        interface="asgi3",
        workers=settings.workers,
        backlog=BACKLOG,
        timeout_graceful_shutdown=4,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    if settings.workers == 1:
        # uvicorn raises the signal that ended it once more, for the handler before its own.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        QuietServer(config).run(sockets=[listening])
    else:
        Multiprocess(config, [listening]).run()


class QuietServer(Server):
    """uvicorn's server, woken once a second and by signals.

    The original wakes ten times a second to look for one, which costs as much CPU as pinging 1,500 streams.
    """

    _wake: Callable[[], object] | None = None

    async def main_loop(self) -> None:
        """Update the Date header until a signal says that it is over."""
        signalled = asyncio.Event()
        self._wake = functools.partial(asyncio.get_running_loop().call_soon_threadsafe, signalled.set)
        while not await self.on_tick(counter=0):
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await signalled.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note the signal, and have it noticed."""
        super().handle_exit(sig, frame)
        if self._wake is not None:
            self._wake()


def _create(settings: Settings) -> object:
    """Make the application in the process that serves it."""
    logs.configure(settings.log_format)
    raise_descriptor_limit()
    if settings.workers > 1:
        _end_with_parent()
    for number in (signal.SIGTERM, signal.SIGINT):
        _end_in_time(number)
    return app.create(settings)


def _end_in_time(number: signal.Signals) -> None:
    """Let a signal, beside what uvicorn has it do, set an end that waits for nothing.

    What could hang is cut off or left behind where that is known. This is for the rest: a thread of a library that
    the interpreter joins, a file system, a log that nobody reads.
    """
    handle = signal.getsignal(number)

    def handle_in_time(sig: int, frame: FrameType | None) -> None:
        for seconds, act in (LAST_WORDS, _say_that_it_hangs), (LAST_RESORT, lambda: os._exit(os.EX_SOFTWARE)):
            timer = threading.Timer(seconds, act)
            timer.daemon = True
            timer.start()
        if callable(handle):
            handle(sig, frame)

    signal.signal(number, handle_in_time)


def _say_that_it_hangs() -> None:
    logs.logger.critical("something hangs: the process ends without waiting for it")


def _end_with_parent() -> None:
    """Have Linux send SIGTERM when the supervisor dies; its workers would go on, and keep the address."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    supervisor = multiprocessing.parent_process()
    if supervisor is not None and supervisor.pid != os.getppid():  # it died before it could be asked for
        sys.exit("the supervisor is gone")
