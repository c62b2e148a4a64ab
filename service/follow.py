"""Follow a channel's stream for ever, through every cut of the line."""

import time
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

import httpx
from httpx_sse import EventSource, ServerSentEvent, SSEError

from service.client import MAY_PASS, Note, Record, address, backoff, reason, without_secrets
from service.failures import RefusedError

TIMEOUT: Final = httpx.Timeout(10.0, read=40.0)
"""Seconds. A stream without a frame for so long is dead: pings come every 15."""


class _CutError(Exception):
    """The stream has ended, or never began."""


def follow(url: str, channel: str, last: int | None, *, note: Note) -> Iterator[Record]:
    """Give a channel's deployments as they come, beginning after ``last`` where it is given.

    It resumes after every cut, with nothing lost that the hub keeps. Raises WrongUseError and RefusedError.
    """
    attempt, told = 0, ""
    stream_url, name = f"{address(url)}/events/{quote(channel, safe='/')}", without_secrets(url)
    with httpx.Client(timeout=TIMEOUT, follow_redirects=True) as client:
        while True:
            pause = backoff(attempt)
            try:
                for event in _events(client, stream_url, name, last):
                    attempt, told = 0, ""
                    pause = pause if event.retry is None else event.retry / 1000
                    if event.event == "deployment":
                        record: Record = event.json()
                        last = record["deployedAt"]
                        yield record
                trouble = f"{name} has ended the stream"
            except _CutError as error:
                trouble = str(error)
            except (ValueError, KeyError, TypeError):
                trouble = f"{name} sends what is no deployment"
            attempt += 1
            if trouble != told:
                note(f"{trouble}; connecting again")
                told = trouble
            time.sleep(pause)


def _events(client: httpx.Client, url: str, name: str, last: int | None) -> Iterator[ServerSentEvent]:
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(last)} if last else {})
    try:
        with client.stream("GET", url, headers=headers) as stream:
            if not stream.is_success:
                stream.read()
                trouble = f"{name} answers {reason(stream)}"
                raise (_CutError if stream.is_server_error or stream.status_code in MAY_PASS else RefusedError)(trouble)
            yield from EventSource(stream).iter_sse()
    except (httpx.RequestError, SSEError) as error:
        raise _CutError(f"{name}: {error or type(error).__name__}") from None
