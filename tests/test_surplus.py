import asyncio
from typing import Any

import orjson
import pytest

from service import surplus
from service.deployment import Deployment
from service.frame import DeploymentFrame, retry
from service.stream import PIECE
from service.surplus import Surplus, send_newest

pytestmark = pytest.mark.anyio


def newest(count: int) -> list[DeploymentFrame]:
    return [DeploymentFrame(Deployment(orjson.dumps({"deployedAt": id_}), id_, None)) for id_ in range(count)]


async def test_what_is_not_taken_in_time_is_left_out(monkeypatch):
    """A client that reads no more gets whole events up to there, and nothing waits for it any longer."""
    monkeypatch.setattr(surplus, "DEADLINE", 0.01)
    bodies: list[bytes] = []

    async def send(message: Any) -> None:
        if len(bodies) == 3:
            await asyncio.Event().wait()
        bodies.append(message["body"])
        assert message["more_body"]

    async with asyncio.timeout(5):
        sent = await send_newest(send, [retry(15_000)], newest(10 * PIECE))

    assert sent == 1 + 2 * PIECE
    assert b"".join(bodies).count(b"\n\n") == sent
    assert bodies[0] == b"retry: 15000\n\n"


async def test_others_have_their_turn_between_pieces():
    """A client that takes everything at once leaves the event loop to others after each piece."""
    turns: list[str] = []

    async def send(message: Any) -> None:
        turns.append("piece")
        asyncio.get_running_loop().call_soon(turns.append, "other")

    await send_newest(send, [retry(15_000)], newest(3 * PIECE))

    assert turns[2:] == ["other", "other", "piece", "other", "piece", "other"]


def test_places_are_given_back():
    """A place is free again when its answer has ended."""
    places = Surplus(2)
    with places.place():
        with places.place():
            full = places.is_full
        assert not places.is_full

    assert full
