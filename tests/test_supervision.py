"""What runs beside the main road fails alone; what the process can't do without ends it."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from service import supervision
from service.metrics import Metrics
from service.supervision import Aside, farewell, running
from tests.parts import Listener, Replica, deployment, eventually, post, wait_until

pytestmark = pytest.mark.anyio

FAILURES = 'vectr0_task_failures_total{task="census"}'


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start again almost at once."""
    monkeypatch.setattr(supervision, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(supervision, "LONGEST_PAUSE", 0.001)


def failures(metrics: Metrics) -> float:
    return float(metrics.task_failures.labels("census")._value.get())


async def raising() -> None:
    raise OverflowError("cannot convert float infinity to integer")


async def ending() -> None:
    """End, as no task should."""


async def cancelled_from_within() -> None:
    """Do what a library does that cancels the wrong task."""
    raise asyncio.CancelledError


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize("run", [raising, ending, cancelled_from_within])
async def test_task_aside_starts_again(caplog, run):
    """Whatever ends it, it is counted and starts again; the log has one line with the cause for all failures in a row."""
    metrics = Metrics()
    task = asyncio.create_task(Aside("census", "the census", run, metrics).run())
    await eventually(lambda: failures(metrics) > 4, what="the fifth failure")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    [message] = caplog.messages
    assert message.startswith("the census has failed (")
    assert "\n" not in message


@pytest.mark.usefixtures("no_pause")
async def test_task_aside_that_works_again(caplog, monkeypatch):
    """After a while without a failure one line says that it works again, and the next failure is logged again."""
    caplog.set_level("INFO")
    monkeypatch.setattr(supervision, "STEADY_AFTER", 0.001)
    metrics = Metrics()
    runs = 0

    async def run() -> None:
        nonlocal runs
        runs += 1
        if runs == 3:
            await eventually(lambda: "works again" in caplog.text, what="that line")
        raise OverflowError("too large")

    task = asyncio.create_task(Aside("census", "the census", run, metrics).run())
    await eventually(lambda: failures(metrics) > 3, what="the failure after that")
    task.cancel()

    # The line of a short run may come, too: only their order says something.
    assert "has failed" in caplog.messages[0]
    assert "works again" in caplog.messages[1]
    assert "has failed" in caplog.messages[2]


async def test_pauses_grow_to_a_limit(monkeypatch):
    """The pauses double up to the longest, each with jitter on top."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 12:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await Aside("census", "the census", raising, Metrics()).run()

    for number, pause in enumerate(pauses):
        shortest = min(supervision.LONGEST_PAUSE, supervision.FIRST_PAUSE * 2**number)
        assert shortest <= pause <= 1.5 * shortest


@pytest.mark.parametrize("closing", [raising, lambda: asyncio.sleep(60)], ids=["raises", "hangs"])
async def test_farewell(caplog, monkeypatch, closing: Callable[[], Awaitable[Any]]):
    """A part that can't close, or hangs, is one line in the log; the others close after it."""
    monkeypatch.setattr(supervision, "FAREWELL_DEADLINE", 0.01)
    await farewell("the census", closing())

    [message] = caplog.messages
    assert message.startswith("the census has not ended in order (")


@pytest.mark.parametrize(("lost", "lines"), [(0, 0), (supervision.CANCELS - 1, 0), (1_000, 1)])
async def test_cancellation_that_gets_lost(caplog, monkeypatch, lost, lines):
    """Tasks are cancelled until they end; one that takes no end is left behind, and said so."""
    monkeypatch.setattr(supervision, "CANCEL_AGAIN", 0.01)
    released = asyncio.Event()

    async def stubborn() -> None:
        for _ in range(lost):
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue
            return
        await released.wait()

    async with running([stubborn(), asyncio.sleep(60)]):
        await asyncio.sleep(0)
    released.set()
    await asyncio.sleep(0)

    assert len(caplog.messages) == lines


@pytest.fixture
def inject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have a fault in the service's own processes: Python runs this code when it starts."""

    def inject(code: str) -> None:
        folder = tmp_path / "fault"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{Path(__file__).parents[1]}")

    return inject


async def test_census_that_fails(start_replica, inject):
    """Deployments arrive, streams open and the process ends in order, while each turn of the census fails."""
    inject(
        "from service.census import Census\n"
        "from service.roll import Roll\n"
        "async def failing(*_, **__): raise OverflowError('injected')\n"
        "Roll.exchange = Census.leave = failing\n"
    )
    replica = start_replica()
    await eventually(lambda: replica.metric(FAILURES) >= 2, what="the second failure")
    listener = await Listener.open(f"{replica.url}/events/web/production?running=3f2c1ab~1")
    board = await Listener.open(f"{replica.url}/events")
    response = await asyncio.to_thread(post, replica.url, deployment())
    await listener.has(1)
    await board.has(1)
    status = await asyncio.to_thread(replica.terminate)
    await listener.close()
    await board.close()

    assert response.status_code == 201
    assert status == 0
    assert listener.ended
    assert board.ended
    lines = [line for line in replica.log.splitlines() if "injected" in line]
    assert len(lines) == 2, lines
    assert "counting who runs what has failed (OverflowError('injected') at sitecustomize.py:3)" in lines[0]
    assert "the census has not ended in order" in lines[1]


@pytest.mark.parametrize(
    "fault",
    [
        "from service.relay import Relay\nasync def failing(_): raise OverflowError('injected')\nRelay._reconcile = failing",
        "from service.stream import Streams\nasync def ending(_): pass\nStreams.run = ending",
        "import asyncio\nfrom service.stream import Streams\nasync def cancelled(_): raise asyncio.CancelledError\nStreams.run = cancelled",
    ],
    ids=["the relay raises", "the ticker ends", "the ticker is cancelled from within"],
)
def test_main_road_that_fails(tmp_path, inject, fault):
    """Such a process ends at once, and says so by its exit status, too."""
    inject(fault)
    replica = Replica(tmp_path).start(wait=False)
    try:
        wait_until(lambda: replica.process and replica.process.poll() is not None, timeout=30, what="its end")
    finally:
        replica.kill()

    assert replica.process
    assert replica.process.returncode == os.EX_SOFTWARE
    assert "a task that this service can't do without has failed" in replica.log
