"""The frame: the bytes of one event, encoded once and written to every stream."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import orjson
from sse_starlette import ServerSentEvent

from service.deployment import Deployment

LAST_CHUNK: Final = b"0\r\n\r\n"

Later = Callable[[Callable[[], None]], object]
"""Calls a function in the next turn of the event loop (``loop.call_soon``)."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One event, as it is (``event``, for HTTP/1.0) and as a chunk of a chunked body (RFC 9112, section 7.1)."""

    event: bytes
    chunk: bytes

    @classmethod
    def of(cls, event: ServerSentEvent) -> Self:
        encoded = event.encode()
        return cls(encoded, b"%x\r\n%b\r\n" % (len(encoded), encoded))


def encode(frames: Iterable[Frame], *, chunked: bool) -> bytes:
    """Join frames in the coding of one response."""
    return b"".join([frame.chunk if chunked else frame.event for frame in frames])


def retry(milliseconds: int) -> Frame:
    """How long the browser waits before it connects again."""
    return Frame.of(ServerSentEvent(retry=milliseconds, sep="\n"))


def ping(now_ms: int) -> Frame:
    """A sign of life that a page's code can hear: a comment would reach no listener.

    It has no id, so the browser's last event id stays the last deployment's [spec].
    """
    return Frame.of(ServerSentEvent(orjson.dumps({"now": now_ms}).decode(), event="ping", sep="\n"))


def adoption_frame(document: Mapping[str, Any]) -> Frame:
    """Who runs what on a channel, for boards. The next one replaces it, so it has no id."""
    return Frame.of(ServerSentEvent(orjson.dumps(document).decode(), event="adoption", sep="\n"))


class DeploymentFrame:
    """A deployment as a channel's streams get it, and ``unnumbered`` as boards do: many channels share no order.

    Each is encoded when it is first asked for. Of the ten that a channel keeps most are never sent to anybody.
    """

    __slots__ = ("deployment", "numbered", "unnumbered")

    deployment: Deployment
    numbered: Frame
    unnumbered: Frame

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment

    def __getattr__(self, name: str) -> Frame:
        """Encode what isn't there yet; Python asks here for nothing else, so that a fan-out pays nothing for it."""
        if name not in ("numbered", "unnumbered"):
            raise AttributeError(name)
        id_ = str(self.deployment.id) if name == "numbered" else None
        frame = Frame.of(ServerSentEvent(self.deployment.json.decode(), event="deployment", id=id_, sep="\n"))
        setattr(self, name, frame)
        return frame
