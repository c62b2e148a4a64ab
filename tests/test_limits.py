"""Where it ends, and what then."""

import asyncio
from pathlib import Path

import pytest

from tests.parts import Listener, Replica, deployment, eventually, post

pytestmark = pytest.mark.anyio

LIMIT = 300


def cpu_ticks(replica: Replica) -> int:
    """The CPU time that a process has used, in the kernel's ticks (100 a second)."""
    fields = Path(f"/proc/{replica.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


async def test_three_times_the_limit(start_replica):
    """Of three times as many streams as allowed a third stays; the others get the newest and a time to come back."""
    replica = start_replica(max_streams=str(LIMIT))
    post(replica.url)
    url = f"{replica.url}/events/web/production"
    listeners = await asyncio.gather(*(Listener.open(url) for _ in range(3 * LIMIT)))
    await eventually(lambda: all(listener.deployments for listener in listeners), what="a first event for all")
    turned_away = [listener for listener in listeners if listener.retries[0] >= 15_000]
    await eventually(lambda: all(listener.ended for listener in turned_away), what="a clean end")
    staying = [listener for listener in listeners if listener not in turned_away]
    before = cpu_ticks(replica)
    assert (await asyncio.to_thread(post, replica.url, deployment(version="2"))).status_code == 201
    for listener in staying:
        await listener.has(2)

    assert len(staying) == LIMIT
    assert all(listener.status == 200 and listener.ended for listener in turned_away)
    assert all(len(listener.deployments) == 1 for listener in turned_away)
    assert len({listener.retries[0] for listener in turned_away}) > LIMIT
    assert replica.health()["streams"] == LIMIT
    assert replica.metric('vectr0_streams_closed_total{reason="over-limit"}') == 2 * LIMIT

    await asyncio.sleep(2)  # the time itself is the subject: nothing may spin in it
    assert cpu_ticks(replica) - before < 100
    for listener in listeners:
        await listener.close()


async def test_place_that_gets_free_is_taken(start_replica):
    """When a stream ends the next browser gets its place."""
    replica = start_replica(max_streams="1")
    url = f"{replica.url}/events/web/production"
    first = await Listener.open(url)
    await first.close()
    await eventually(lambda: replica.health()["streams"] == 0, what="the end of the stream")
    second = await Listener.open(url)
    await eventually(lambda: second.events, what="a first event")

    assert second.retries[0] <= 5000
    assert not second.ended
    await second.close()
