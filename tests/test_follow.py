"""Following a stream that doesn't end and says nothing: seconds are passed in, so that nobody waits for 40."""

import pytest

from service.follow import follow
from tests.command_parts import OPEN_ENDED, dripping

STREAM = OPEN_ENDED.replace(b"application/json", b"text/event-stream") + b"\r\n"


@pytest.mark.parametrize(
    ("start", "byte"),
    [
        (b"", b"x"),
        (OPEN_ENDED, b"X: a\r\n"),
        (STREAM, b"x"),
        (STREAM, b": a comment\n\n"),
        (STREAM, b"\n"),
        (STREAM, b"event: deployment\n"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", b"x"),
    ],
    ids=["nothing", "headers", "half a line", "comments", "line breaks", "half an event", "a refusal"],
)
def test_a_dead_line_is_noticed(start, byte):
    """A line on which no event comes is cut and opened anew, whatever else comes on it."""
    told: list[str] = []

    class EnoughError(Exception):
        pass

    def note(text: str) -> None:
        told.append(text)
        raise EnoughError

    with dripping(start, byte) as server:
        records = follow(server.url, "web/production", None, note=note, opening=0.5, silence=0.5)
        with pytest.raises(EnoughError):
            next(records)

    assert told == [f"{server.url}: no whole answer within 0.5 s; connecting again"]
