"""Supervision: which tasks the process can't do without, and which fail alone and start again."""

import asyncio
import atexit
import logging
import os
import random
import signal
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Final

from service.metrics import Metrics, SideTask

FIRST_PAUSE: Final = 1.0
"""Seconds until a task that failed starts again; twice as long after each failure."""
LONGEST_PAUSE: Final = 60.0
STEADY_AFTER: Final = 2 * LONGEST_PAUSE
"""Seconds after which a task that started again counts as working."""
CANCEL_AGAIN: Final = 0.2
"""Seconds after which a task that has been cancelled, and still runs, is cancelled again."""
CANCELS: Final = 5
FAREWELL_DEADLINE: Final = 1.0
"""Seconds for a part to close."""

logger = logging.getLogger("vectr0")


class EndedError(Exception):
    """A task has ended that should run as long as the process."""


@asynccontextmanager
async def running(runs: Iterable[Coroutine[None, None, None]]) -> AsyncIterator[None]:
    """Run tasks side by side, and end them.

    A cancellation can get lost: on Python 3.11 `asyncio.wait_for`, which libraries use, swallows one that comes with
    the result (python/cpython#86296). It is repeated for that reason; a task that runs on all the same is left behind.
    """
    tasks = {asyncio.create_task(run) for run in runs}
    try:
        yield
    finally:
        for _ in range(CANCELS):
            for task in tasks:
                task.cancel()
            _, tasks = await asyncio.wait(tasks, timeout=CANCEL_AGAIN) if tasks else (tasks, tasks)
        if tasks:
            logger.warning("%d tasks have not ended in order", len(tasks))


async def run_main(run: Awaitable[None]) -> None:
    """Run a task of the main road; end the process, loudly, if it fails.

    A replica that no longer hears of deployments but keeps its browsers is worse than one that is gone.
    """
    try:
        await _endless(run)
    except Exception:
        logger.critical("a task that this service can't do without has failed; the process ends", exc_info=True)
        atexit.register(_end_as_failed)  # the signal ends the process in order; this is its status
        signal.raise_signal(signal.SIGTERM)


class Aside:
    """A task beside the main road. Its failure is its own: one line in the log, and it starts again after a pause."""

    def __init__(self, task: SideTask, what: str, run: Callable[[], Awaitable[None]], metrics: Metrics) -> None:
        self._what = what
        self._run = run
        self._failures = metrics.task_failures.labels(task)
        self._failed_in_a_row = 0

    async def run(self) -> None:
        """Run it until cancelled, again and again."""
        loop = asyncio.get_running_loop()
        while True:
            steady = loop.call_later(STEADY_AFTER, self._recover)
            try:
                await _endless(self._run())
            except Exception as error:  # noqa: BLE001  # whatever it is, it must not reach the main road
                self._fail(error)
            finally:
                steady.cancel()
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (self._failed_in_a_row - 1))
            await asyncio.sleep(pause * random.uniform(1, 1.5))  # noqa: S311  # jitter

    def _fail(self, error: Exception) -> None:
        self._failures.inc()
        self._failed_in_a_row += 1
        if self._failed_in_a_row == 1:
            logger.error("%s has failed (%s); it is tried again, and everything else goes on", self._what, cause(error))

    def _recover(self) -> None:
        if self._failed_in_a_row:
            logger.info("%s works again, after %d failures", self._what, self._failed_in_a_row)
            self._failed_in_a_row = 0


async def farewell(what: str, closing: Awaitable[object]) -> None:
    """Wait until a part has closed, within FAREWELL_DEADLINE. What goes wrong with that can't keep the process."""
    try:
        async with asyncio.timeout(FAREWELL_DEADLINE):
            await closing
    except Exception as error:  # noqa: BLE001  # the process ends in any case
        logger.warning("%s has not ended in order (%s)", what, cause(error))


def cause(error: Exception) -> str:
    """Return what an error says, and where it was raised, in one line of a bounded length."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""  # noqa: PTH119
    return f"{repr(error)[:300]}{where}"


def _end_as_failed() -> None:
    logging.shutdown()  # which would come after this, and waits until the log is written
    os._exit(os.EX_SOFTWARE)


async def _endless(run: Awaitable[None]) -> None:
    """Wait for a task whose end is a failure, also where a library cancels it of its own accord."""
    try:
        await run
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise EndedError("it was cancelled from within") from None
    raise EndedError("it has ended")
