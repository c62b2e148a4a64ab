"""The news: the deployments that boards have still to be told of; what a slow one misses, it reads later."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, Protocol

from service.frame import DeploymentFrame, Later

SLICE: Final = 20
"""Boards that are told before the event loop gets its turn: each may have many frames to write."""


class Reader(Protocol):
    """A board."""

    def read_news(self) -> int:
        """Write what is new to it, as far as its socket takes it. Returns how many frames that were."""


class Writer(Protocol):
    """One that counts what is written."""

    def wrote(self, frames: int) -> None:
        """So many frames were written."""


class News:
    """The deployments of all channels in the order of their arrival, each for as long as its channel keeps it.

    A board remembers the number of the last one that it was sent, so that it costs the same however many channels
    there are. Without boards nothing is kept.
    """

    def __init__(self, later: Later, writer: Writer) -> None:
        self._later = later
        self._writer = writer
        self._readers: dict[Reader, None] = {}
        self._numbers: dict[DeploymentFrame, int] = {}
        """In their order."""
        self.number = 0
        """The number of the latest."""
        self._behind: Iterator[Reader] = iter(())
        self._scheduled = False
        self._again = False

    @property
    def is_read(self) -> bool:
        """Tell whether anybody reads."""
        return bool(self._readers)

    def add(self, reader: Reader) -> None:
        """Tell a board of everything from now on."""
        self._readers[reader] = None

    def remove(self, reader: Reader) -> None:
        """Forget a board."""
        self._readers.pop(reader, None)
        if not self._readers:
            self._numbers.clear()

    def post(self, frames: Iterable[DeploymentFrame], dropped: Iterable[DeploymentFrame]) -> None:
        """Tell the boards of deployments, in the next turn of the loop; many that come at once are written as one."""
        if not self._readers:
            return
        for frame in dropped:
            self._numbers.pop(frame, None)
        before = self.number
        for frame in frames:
            self.number += 1
            self._numbers.pop(frame, None)
            self._numbers[frame] = self.number
        if self.number != before:
            self._wake()

    def after(self, number: int) -> list[tuple[int, DeploymentFrame]]:
        """Return what came since then, oldest first."""
        found = []
        for frame in reversed(self._numbers):
            if self._numbers[frame] <= number:
                break
            found.append((self._numbers[frame], frame))
        return found[::-1]

    def _wake(self) -> None:
        if self._scheduled:
            self._again = True  # and not from the start: the last ones would wait for ever
            return
        self._behind, self._scheduled = iter(tuple(self._readers)), True
        self._later(self._spread)

    def _spread(self) -> None:
        readers = tuple(islice(self._behind, SLICE))
        self._writer.wrote(sum(reader.read_news() for reader in readers))
        if len(readers) == SLICE:
            self._later(self._spread)
            return
        self._scheduled = False
        if self._again:
            self._again = False
            self._wake()
