"""Follow a channel's stream for ever, through every cut of the line."""

import time
from collections.abc import Iterator
from typing import Final, cast
from urllib.parse import quote

from httpx_sse import EventSource, ServerSentEvent

from service.answers import Record, is_record
from service.jsontext import read_json
from service.patience import Note, backoff, may_pass, reasons, refused
from service.request import MOST_REDIRECTIONS, AnswerError, Body, connection, send, within
from service.url import address, without_secrets

OPENING: Final = 10.0
"""Seconds until a stream's first bytes have to be there."""
SILENCE: Final = 40.0
"""Seconds without a whole event after which a stream is dead: pings come every 15."""
LONGEST_RETRY_MS: Final = 60_000
"""What a hub may ask for between two connects."""


class _CutError(Exception):
    """The stream has ended, or never began."""


def follow(
    url: str, channel: str, last: int | None, *, note: Note, opening: float = OPENING, silence: float = SILENCE
) -> Iterator[Record]:
    """Give a channel's deployments as they come, beginning after ``last`` where it is given.

    It resumes after every cut, with nothing lost that the hub keeps. Raises WrongUseError and RefusedError.
    """
    attempt, told = 0, ""
    stream_url, name = f"{address(url)}/events/{quote(channel, safe='/')}", without_secrets(url)
    while True:
        pause = backoff(attempt)
        try:
            for event in _events(stream_url, name, last, opening, silence):
                attempt, told = 0, ""
                pause = pause if event.retry is None else min(max(0, event.retry), LONGEST_RETRY_MS) / 1000
                if event.event == "deployment":
                    record = _record(event)
                    last = record["deployedAt"]
                    yield record
            trouble = f"{name} has ended the stream"
        except _CutError as error:
            trouble = str(error)
        except ValueError:
            trouble = f"{name} sends what is no deployment"
        attempt += 1
        if trouble != told:
            note(f"{trouble}; connecting again")
            told = trouble
        time.sleep(pause)


def _record(event: ServerSentEvent) -> Record:
    record = read_json(event.data.encode())
    if not is_record(record):
        raise ValueError
    return cast("Record", record)


def _events(url: str, name: str, last: int | None, opening: float, silence: float) -> Iterator[ServerSentEvent]:
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(last)} if last else {})
    try:
        with connection(silence) as client:
            request = client.build_request("GET", url, headers=headers)
            stream = within(opening, lambda: send(client, request, redirections=MOST_REDIRECTIONS))
            if not stream.is_success:
                within(opening, stream.read)
                if may_pass(stream):
                    raise _CutError(f"{name} answers {reasons(stream)[0]}")
                raise refused(name, stream)
            stream.encoding = "utf-8"  # [spec], whatever it says: Python knows encodings that unpack
            events = EventSource(stream).iter_sse()
            while (event := within(silence, lambda: next(events, None))) is not None:
                cast("Body", stream.stream).size = 0
                yield event
    except AnswerError as error:
        raise _CutError(f"{name}: {error}") from None
