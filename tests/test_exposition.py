"""Metrics that many ask for at once."""

import asyncio
import threading
import time

import pytest

from service.exposition import INTERVAL, Exposition

pytestmark = pytest.mark.anyio


class Metrics:
    """Something that is counted, and when and where it was asked for."""

    count = 0

    def __init__(self) -> None:
        self.made_at: list[float] = []
        self.threads: set[int] = set()
        self.failing = False

    def __call__(self) -> bytes:
        self.made_at.append(time.monotonic())
        self.threads.add(threading.get_ident())
        if self.failing:
            raise OSError("no such file")
        return b"%d" % self.count


async def test_one_for_all_who_ask():
    """Two hundred who ask at once are given the same one, or the one after it."""
    metrics = Metrics()
    exposition = Exposition(metrics)
    for _ in range(3):
        await asyncio.gather(*(exposition.text() for _ in range(200)))

    # The clock is read before the thread has begun, so that a busy machine only makes them seem closer.
    assert len(metrics.made_at) <= 3
    assert metrics.made_at[-1] - metrics.made_at[0] > INTERVAL


async def test_beside_the_loop():
    """It isn't made by the loop's thread, which goes on meanwhile."""
    metrics = Metrics()
    await Exposition(metrics).text()

    assert threading.get_ident() not in metrics.threads


async def test_what_was_counted_before_it_was_asked_for():
    """Who asks is never given one from before that, however soon after another."""
    metrics = Metrics()
    exposition = Exposition(metrics)
    texts = []
    for metrics.count in range(3):
        texts.append(await exposition.text())

    assert texts == [b"0", b"1", b"2"]


async def test_failure_is_of_those_who_asked():
    """One that can't be made fails for those who wait for it, and the next is made."""
    metrics = Metrics()
    exposition = Exposition(metrics)
    metrics.failing = True
    with pytest.raises(OSError, match="no such file"):
        await exposition.text()
    metrics.failing = False

    assert await exposition.text() == b"0"


async def test_who_is_cancelled_leaves_it_to_the_others():
    """The one that makes it may be cancelled: the others get theirs."""
    metrics = Metrics()
    exposition = Exposition(metrics)
    await exposition.text()
    metrics.count = 1
    first, second = asyncio.create_task(exposition.text()), asyncio.create_task(exposition.text())
    await asyncio.sleep(0)
    first.cancel()

    assert await second == b"1"
