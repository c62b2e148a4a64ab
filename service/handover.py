"""The handover: how a request gets hold of its connection."""

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any, Final, Protocol

STREAM_EXTENSION: Final = "vectr0.stream"
"""The ASGI extension: ``{"open": open_stream, "store": store}``; see `service.protocol.Connection`."""


class StreamProtocol(Protocol):
    """What takes over a connection: an asyncio.BufferedProtocol that uvicorn can also shut down."""

    def begin(self, transport: asyncio.Transport, connections: set[Any]) -> None:
        """Take the transport, and a place among the connections that a shutdown ends, until it is lost."""

    def shutdown(self) -> None:
        """The process stops: say farewell and close."""


OpenStream = Callable[[bytes, bytes, StreamProtocol | None], bool]


def stream_opener(scope: MutableMapping[str, Any]) -> OpenStream:
    """Return what opens a request's stream.

    Raises RuntimeError on any other server than this service's own.
    """
    extension = scope.get("extensions", {}).get(STREAM_EXTENSION)
    if extension is None:
        raise RuntimeError("streams need this service's own server: run it with `python -m service` or `vectr0`")
    opener: OpenStream = extension["open"]
    return opener


def will_store(scope: MutableMapping[str, Any]) -> None:
    """Tell the connection that its request, which is allowed and whole, changes what is stored: it's closed last."""
    extension = scope.get("extensions", {}).get(STREAM_EXTENSION)
    if extension is not None:
        extension["store"]()
