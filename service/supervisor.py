"""The supervisor of several workers: it replaces those that died or froze, and ends with all of them, in time."""

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from socket import socket
from types import FrameType
from typing import Final, cast

from uvicorn import Config, Server
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from service.quiet import LAST_RESORT, SIGNALS, QuietServer, take_signals

TICK: Final = 0.5
"""Seconds between two looks at the workers."""
FROZEN_AFTER: Final = 120
"""Looks for which a worker that has answered before says nothing, until it is replaced.

They are counted, and no clock is asked: one goes on while the machine stands still, or has no time for its processes.
"""

logger = logging.getLogger("vectr0")


class Worker(Process):
    """A process that serves, as the supervisor sees it. uvicorn's thread in it answers one ping at a time."""

    _answers = False
    """True when it has answered once; one that starts may take as long as it needs."""
    _silence = 0

    @property
    def server(self) -> Server:
        """Make the server, in the worker."""
        if self._server is None:
            self._server = QuietServer(self.config)
        return self._server

    def start(self) -> None:
        """Start it with the signals of the terminal held back until it can take them."""
        with _held_back():
            super().start()

    def is_frozen(self) -> bool:
        """Look, without waiting, whether it has answered, and return whether it hasn't for too long."""
        with suppress(OSError, EOFError):  # it is about to be found dead
            if self._silence == 0:
                self.parent_conn.send(b"ping")
            self._silence += 1
            if self.parent_conn.poll():
                self.parent_conn.recv()
                self._answers, self._silence = True, 0
        return self._answers and self._silence > FROZEN_AFTER


class Supervisor(Multiprocess):
    """uvicorn's, without its waiting: it neither kills workers for being slow nor misses signals meanwhile."""

    def __init__(self, config: Config, sockets: list[socket]) -> None:
        on_hang_up = signal.getsignal(signal.SIGHUP)
        super().__init__(config, sockets)  # which takes more signals than are meant
        signal.signal(signal.SIGHUP, on_hang_up)
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._wake)
        take_signals(self._note_signal)
        self._is_ending = not set(SIGNALS).isdisjoint(self.signal_queue)

    def run(self) -> None:
        """Keep the workers running until a signal comes. Exits with STARTUP_FAILURE where one can't start."""
        self.init_processes()
        while not self._is_ending:
            if wait([self._woken], TICK):
                os.read(self._woken, 4096)
            self.keep_subprocess_alive()
        began = time.monotonic()
        self.terminate_all()
        self._end_all(began + LAST_RESORT)
        take_signals(signal.SIG_IGN)
        if any(worker.exitcode == STARTUP_FAILURE for worker in self.processes):
            sys.exit(STARTUP_FAILURE)

    def init_processes(self) -> None:
        """Start the workers."""
        for _ in range(self.processes_num):
            self.processes.append(self._start())

    def keep_subprocess_alive(self) -> None:
        """Replace the workers that have died, or are frozen."""
        for index, worker in enumerate(self.processes):
            if self._is_ending:
                return
            if worker.process.is_alive() and not (isinstance(worker, Worker) and worker.is_frozen()):
                continue
            worker.kill()
            worker.join()
            if worker.exitcode == STARTUP_FAILURE:  # the next one wouldn't start either
                self._is_ending = True
                return
            logger.error("worker %d has died or was frozen (%s), and is replaced", worker.pid, worker.exitcode)
            self.processes[index] = self._start()

    def _start(self) -> Worker:
        worker = Worker(self.config, self.sockets)
        worker.start()
        return worker

    def _note_signal(self, _: int, __: FrameType | None) -> None:
        self._is_ending = True  # and not the threading.Event, whose lock the main thread may hold

    def _end_all(self, deadline: float) -> None:
        """Wait for the workers, which end themselves in time; what doesn't is frozen."""
        workers = {worker.process.sentinel: worker for worker in self.processes}
        while workers and (seconds := deadline - time.monotonic()) > 0:
            for sentinel in wait(workers, seconds):
                workers.pop(cast("int", sentinel)).join()
        for worker in workers.values():
            logger.error("worker %d is frozen, and is killed", worker.pid)
            worker.kill()
            worker.join()


@contextmanager
def _held_back() -> Iterator[None]:
    """Have a child begin with these signals blocked: they would end it, with a traceback, while it imports."""
    blocked = set(SIGNALS) - {signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
