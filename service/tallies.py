"""The tallies: a channel's open streams, counted by what their pages say they run.

Anybody may say anything. Memory has a bound whatever is said, and nothing that is made up takes a deployment's place.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from service.build import Build, is_same, kin

MAX_BUILDS: Final = 32
"""Builds that are told apart in a channel of a process, besides those of its kept deployments."""
MAX_GROUPS: Final = 1024
"""Groups of all beyond that, by a hash of what is the same for builds that may be the same.

A build that is recorded late finds its streams in one of them, and with them at most a thousandth of the others.
"""
OTHER: Final = Build("*", 0)
"""How all of these are written; no commit is written so."""

Counts = Mapping[str, int]
"""Streams by what they say they run, as on the wire: ``3f2c1ab~128``; ``*`` for OTHER, an empty string for nothing."""


class Tally:
    """How many of a channel's streams run one build, or one of a group. A stream holds on to it: eight bytes."""

    __slots__ = ("joined", "key", "streams")

    def __init__(self, key: Build | int | None) -> None:
        self.key = key
        """The build, or the number of the group; None for those that don't say what they run."""
        self.streams = 0
        self.joined: Tally | None = None
        """The one that counts these streams since both became one."""


class Tallies:
    """The streams of one channel in this process, counted by build when they come and go."""

    __slots__ = ("_groups", "_kept", "_tallies", "changes")

    def __init__(self) -> None:
        self._tallies: dict[Build | None, Tally] = {}
        self._groups: dict[int, Tally] = {}
        self._kept: tuple[Build, ...] = ()
        self.changes = 0
        """How often that was: the same number means the same counts."""

    def enter(self, build: Build | None) -> Tally:
        """Count a stream; None for one that doesn't say what it runs."""
        tally = self._tallies.get(build)
        if tally is None:
            tally = self._place(build)
        tally.streams += 1
        self.changes += 1
        return tally

    def _place(self, build: Build | None) -> Tally:
        """Return the tally of a build that has none of its own."""
        if build is None or len(self._tallies) < MAX_BUILDS:
            return self._tallies.setdefault(build, Tally(build))
        for kept in self._kept:  # under its own name: one build can be written in endless ways
            if is_same(build, kept):
                return self._tallies.setdefault(kept, Tally(kept))
        group = _group(build)
        return self._groups.setdefault(group, Tally(group))

    def leave(self, tally: Tally) -> None:
        """Count it no more."""
        while tally.joined is not None:
            tally = tally.joined
        tally.streams -= 1
        self.changes += 1
        if not tally.streams:
            self._remove(tally)

    def keep(self, builds: Sequence[Build]) -> None:
        """Match anew: from now on these are the builds of the kept deployments, newest first."""
        kept = tuple(dict.fromkeys(builds))
        new, self._kept = [build for build in kept if build not in self._kept], kept
        for build in new if self._groups else ():
            group = self._groups.get(_group(build))
            if group is not None:
                self._move(group, build)
                self.changes += 1
        if len(self._tallies) > MAX_BUILDS:
            self._group_stragglers()

    def _group_stragglers(self) -> None:
        """Let the smallest go among the others where too many have a place that are of no kept deployment."""
        stragglers = [
            tally
            for build, tally in self._tallies.items()
            if build is not None and not any(is_same(build, kept) for kept in self._kept)
        ]
        stragglers.sort(key=lambda tally: tally.streams)
        for tally in stragglers[: max(0, len(stragglers) - MAX_BUILDS)]:
            if isinstance(tally.key, Build):
                self._move(tally, _group(tally.key))
                self.changes += 1

    def _move(self, tally: Tally, key: Build | int) -> None:
        """Count a tally's streams as this build's, or this group's."""
        self._remove(tally)
        there = self._groups.get(key) if isinstance(key, int) else self._tallies.get(key)
        if there is not None:
            there.streams += tally.streams
            tally.joined = there
            return
        tally.key = key
        if isinstance(key, int):
            self._groups[key] = tally
        else:
            self._tallies[key] = tally

    def _remove(self, tally: Tally) -> None:
        if isinstance(tally.key, int):
            del self._groups[tally.key]
        else:
            del self._tallies[tally.key]

    @property
    def counts(self) -> Counts:
        """What there is now."""
        counts = {str(build or ""): tally.streams for build, tally in self._tallies.items()}
        if self._groups:
            counts[OTHER.commit] = sum(tally.streams for tally in self._groups.values())
        return counts


def _group(build: Build) -> int:
    """Find the group of a build. Python's hash has a random seed: nobody can aim at another build's group."""
    return hash(kin(build)) % MAX_GROUPS
