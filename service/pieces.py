"""The pieces of a long body: what it is made of is shared by all who ask, and each client has one piece of its own."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

PIECE: Final = 16 * 1024
"""Bytes after which a piece is sent, and the next one waits until the socket has taken it."""


class PiecesResponse(Response):
    """A JSON document of many parts. A client that doesn't read holds a piece of it, and references to the rest."""

    def __init__(self, parts: Sequence[bytes], headers: Mapping[str, str]) -> None:
        length = sum(map(len, parts))
        super().__init__(None, 200, {**headers, "Content-Length": str(length)}, "application/json")
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's
        """Send the document."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] != "HEAD":
            for piece in self._pieces():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def _pieces(self) -> Iterator[bytes]:
        waiting: list[bytes] = []
        length = 0
        for part in self._parts:
            waiting.append(part)
            length += len(part)
            if length >= PIECE:
                yield b"".join(waiting)
                waiting, length = [], 0
        yield b"".join(waiting)
