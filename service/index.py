"""The index: each channel's newest id, as one pass over Redis found it, and as it has changed since."""

from collections.abc import Callable, Mapping
from typing import Final

from service.deployment import ChannelName

FRESH: Final = 1.5
"""Seconds for which one pass does for all who ask. What this process hears and records meanwhile is noted."""


class Index:
    """Which channels have deployments, the most recent first. It knows none of their records."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._newest: dict[ChannelName, int] = {}
        self._order: list[ChannelName] | None = []
        self._noted: set[ChannelName] = set()
        """Channels of which something was heard since the pass began: it may have read them before that."""
        self.changed_at = float("-inf")
        self._as_of = float("-inf")
        self._began = float("-inf")

    @property
    def is_fresh(self) -> bool:
        """Tell whether it is as Redis is, but for what others may have recorded within a second or two."""
        return self._clock() - self._as_of < FRESH

    def get(self, name: ChannelName) -> int | None:
        """Return a channel's newest id."""
        return self._newest.get(name)

    def begin(self) -> None:
        """Note what is heard from now on: a pass begins."""
        self._noted.clear()
        self._began = self._clock()

    def finish(self, found: Mapping[ChannelName, int]) -> None:
        """Take what the pass found, wholly, but for what was heard meanwhile."""
        heard = {name: self._newest[name] for name in self._noted if name in self._newest}
        self._newest = {name: newest for name, newest in found.items() if name not in self._noted} | heard
        self._as_of = self._began
        self._changed()

    def expire(self) -> None:
        """Redis is away: what is here may be old."""
        self._as_of = float("-inf")

    def note(self, name: ChannelName, newest: int) -> None:
        """Note a deployment that was heard of, or recorded here."""
        if newest > self._newest.get(name, 0):
            self._newest[name] = newest
            self._noted.add(name)
            self._changed()

    def drop(self, name: ChannelName) -> None:
        """Note that a channel was forgotten."""
        self._newest.pop(name, None)
        self._noted.add(name)
        self._changed()

    def _changed(self) -> None:
        self._order, self.changed_at = None, self._clock()

    @property
    def names(self) -> list[ChannelName]:
        """All channels with deployments, that with the newest first."""
        if self._order is None:
            self._order = sorted(self._newest, key=lambda name: (-self._newest[name], name))
        return self._order
