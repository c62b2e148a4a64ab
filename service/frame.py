"""The frame: the bytes of one event, encoded once and written to every stream."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import orjson
from sse_starlette import ServerSentEvent

from service.deployment import Deployment

LAST_CHUNK: Final = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Frame:
    """One event, as it is (``event``, for HTTP/1.0) and as a chunk of a chunked body (RFC 9112, section 7.1)."""

    event: bytes
    chunk: bytes

    @classmethod
    def of(cls, event: ServerSentEvent) -> Self:
        encoded = event.encode()
        return cls(encoded, b"%x\r\n%b\r\n" % (len(encoded), encoded))


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


@dataclass(frozen=True, slots=True)
class DeploymentFrame:
    """A deployment as a channel's streams get it, and ``unnumbered`` as boards do: many channels share no order."""

    deployment: Deployment
    numbered: Frame
    unnumbered: Frame

    @classmethod
    def of(cls, deployment: Deployment) -> Self:
        data = deployment.json.decode()
        return cls(
            deployment,
            Frame.of(ServerSentEvent(data, event="deployment", id=str(deployment.id), sep="\n")),
            Frame.of(ServerSentEvent(data, event="deployment", sep="\n")),
        )
