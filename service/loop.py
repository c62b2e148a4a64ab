"""The event loop: uvloop, with look-ups of names that nothing has to wait for.

A look-up (getaddrinfo) can't be cancelled, and while DNS is dead it takes half a minute. uvloop runs four at once in
a pool of threads, lets the rest queue, and waits for all of them when it is closed.
"""

import socket
import threading
from asyncio import Future, wait
from collections.abc import Hashable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import uvloop

Found: TypeAlias = Sequence[tuple[Any, ...]]
"""What `socket.getaddrinfo` gives."""


class Loop(uvloop.Loop):
    """uvloop's, with one look-up under way for each name, which all who ask meanwhile share."""

    def __init__(self) -> None:
        super().__init__()
        self._lookups: dict[Hashable, Future[Found | Exception]] = {}

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """Look a name up. Who gives up waiting leaves the look-up to those who come later."""
        question = (host, port, *sorted(options.items()))
        lookup = self._lookups.get(question)
        if lookup is None:
            lookup = self._look_up(question, host, port, options)
        await wait([lookup])  # which doesn't cancel it
        found = lookup.result()
        if isinstance(found, Exception):
            raise found
        return found

    def _look_up(self, question: Hashable, host: Any, port: Any, options: dict[str, Any]) -> Future[Found | Exception]:
        lookup: Future[Found | Exception] = self.create_future()

        def run() -> None:
            try:
                found: Found | Exception = socket.getaddrinfo(host, port, **options)
            except Exception as error:  # noqa: BLE001  # it is raised where it is waited for
                found = error
            with suppress(RuntimeError):  # where the loop has been closed
                self.call_soon_threadsafe(settle, found)

        def settle(found: Found | Exception) -> None:
            # An error is a result here: one that nobody waits for any more is no news.
            self._lookups.pop(question, None)
            lookup.set_result(found)

        # The process doesn't wait for a daemon when it ends.
        threading.Thread(target=run, name="getaddrinfo", daemon=True).start()
        self._lookups[question] = lookup
        return lookup
