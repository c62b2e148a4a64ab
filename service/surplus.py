"""The surplus: boards over the limit. They are ordinary answers, and become no streams."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from starlette.types import Send

from service.frame import DeploymentFrame, Frame
from service.stream import PIECE

DEADLINE: Final = 2.0
"""Seconds for which a client may take what a board starts with; what it hasn't taken by then is left out."""


class Surplus:
    """The boards over the limit that are being sent what a board starts with.

    Their connections stay those of requests, so that a client that doesn't read waits in a queue, and has to go when
    descriptors are short. Beyond this limit there is nothing but a time to come back.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0

    @property
    def is_full(self) -> bool:
        """Tell whether one more would be one too many."""
        return self._count >= self._limit

    @contextmanager
    def place(self) -> Iterator[None]:
        """Count one more, meanwhile."""
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1


async def send_newest(send: Send, first: Sequence[Frame], newest: Sequence[DeploymentFrame]) -> int:
    """Send the body of an answer, but for its end, as far as the client takes it in time. Returns how many frames."""
    sent = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE):
            await _send(send, first)
            sent += len(first)
            for start in range(0, len(newest), PIECE):
                piece = [frame.unnumbered for frame in newest[start : start + PIECE]]
                await _send(send, piece)
                sent += len(piece)
                await asyncio.sleep(0)  # a client that takes everything at once must not stop the event loop
    return sent


async def _send(send: Send, frames: Sequence[Frame]) -> None:
    """Send frames; this waits first while the socket takes no more, so that each is sent as a whole or not at all."""
    await send({"type": "http.response.body", "body": b"".join(frame.event for frame in frames), "more_body": True})
