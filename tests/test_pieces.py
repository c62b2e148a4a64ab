"""A long body goes out in pieces, each when the one before has been taken."""

import pytest
from starlette.types import Message

from service.pieces import PIECE, PiecesResponse

PARTS = [b"[", *[b'"%040d",' % number for number in range(2_000)], b"0]"]


async def receive() -> Message:
    """Say nothing: a request without a body."""
    raise NotImplementedError


async def answer(method: str) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await PiecesResponse(PARTS, {"Cache-Control": "no-cache"})({"type": "http", "method": method}, receive, send)
    return sent


@pytest.mark.anyio
async def test_whole() -> None:
    """The pieces are the document, of the length that the head says."""
    start, *bodies = await answer("GET")

    assert b"".join(message["body"] for message in bodies) == b"".join(PARTS)
    assert (b"content-length", b"%d" % len(b"".join(PARTS))) in start["headers"]
    assert [message.get("more_body", False) for message in bodies] == [True] * (len(bodies) - 1) + [False]


@pytest.mark.anyio
async def test_small_pieces() -> None:
    """No piece is much longer than PIECE, so that a client that doesn't read holds no more."""
    _, *bodies = await answer("GET")

    assert len(bodies) > 5
    assert max(len(message["body"]) for message in bodies) < PIECE + max(map(len, PARTS))


@pytest.mark.anyio
async def test_head() -> None:
    """HEAD gets the head alone."""
    start, *bodies = await answer("HEAD")

    assert (b"content-length", b"%d" % len(b"".join(PARTS))) in start["headers"]
    assert bodies == [{"type": "http.response.body", "body": b""}]


@pytest.mark.anyio
async def test_a_part_that_nobody_takes_holds_the_rest_back() -> None:
    """While a piece isn't taken, no further one is made."""
    made = 0

    async def send(message: Message) -> None:
        nonlocal made
        made += message["type"] == "http.response.body"
        if made:
            raise ConnectionResetError  # as far as it came

    with pytest.raises(ConnectionResetError):
        await PiecesResponse(PARTS, {})({"type": "http", "method": "GET"}, receive, send)

    assert made == 1
