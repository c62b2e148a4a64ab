"""Adoption: who runs what. Matches counts with deployments, and follows a deployment to the last tab."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import orjson

from service.build import Build, is_same, parse
from service.deployment import MAX_INTEGER, Deployment
from service.tallies import OTHER, Counts

MILESTONES: Final = (50, 90, 99)
"""Per cent of the streams that say what they run."""
HOLD_MS: Final = 10_000
"""Milliseconds for which a milestone has to hold. When a replica restarts its tabs come back one by one, and the first
may be all of the newest build."""

MAX_SAMPLES: Final = 400
SAMPLE_INTERVAL_MS: Final = 2_000
SAMPLE_FRACTION: Final = 0.04
"""Of the deployment's age: samples get ever farther apart, so that 300 of them last for a month."""


MAX_COUNT: Final = 2**30
"""Streams that a replica may say it has of a build: as many as a process can have, and too few to overflow a sum."""
MAX_COUNTS_SIZE: Final = 16 * 1024
MAX_CURVE_SIZE: Final = 64 * 1024
"""Bytes of what is read of a channel's counts, and of its curve."""


def add_counts(all_counts: Iterable[Counts]) -> dict[str, int]:
    """Add up what several replicas counted."""
    total: dict[str, int] = {}
    for counts in all_counts:
        for running, streams in counts.items():
            total[running] = total.get(running, 0) + streams
    return total


def counts_from_json(text: bytes) -> Counts:
    """Read what a replica wrote; returns nothing for what none would write."""
    if len(text) > MAX_COUNTS_SIZE:
        return {}
    try:
        counts = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return counts if isinstance(counts, dict) and all(map(_is_count, counts.values())) else {}


def _is_count(value: object) -> bool:
    return type(value) is int and 0 < value <= MAX_COUNT


@dataclass(frozen=True, slots=True)
class Adoption:
    """A channel's streams by the kept deployments, newest first, whose build they run."""

    deployments: tuple[tuple[int, int], ...]
    """The id of each, and its streams."""
    other: int
    """Streams of any other build."""
    unknown: int
    """Streams that don't say."""

    @classmethod
    def of(cls, counts: Counts, deployments: Sequence[Deployment]) -> Self:
        """Match counts with the kept deployments, newest first.

        A build that several of them share, after a rollback, runs the newest.
        """
        streams = [0] * len(deployments)
        other = unknown = 0
        for running, count in counts.items():
            build = _parsed(running)
            if build is None:
                unknown += count
                continue
            for index, deployment in enumerate(deployments):
                if deployment.build is not None and is_same(build, deployment.build):
                    streams[index] += count
                    break
            else:
                other += count
        ids = (deployment.id for deployment in deployments)
        return cls(tuple(zip(ids, streams, strict=True)), other, unknown)

    @property
    def newest(self) -> int:
        """The streams that run the newest deployment."""
        return self.deployments[0][1] if self.deployments else 0

    @property
    def older(self) -> int:
        """Those that run one of the others."""
        return sum(streams for _, streams in self.deployments[1:])

    @property
    def streams(self) -> int:
        """All streams."""
        return self.newest + self.older + self.other + self.unknown

    @property
    def share(self) -> float | None:
        """The part of those that say what they run that runs the newest; None where nobody says."""
        telling = self.streams - self.unknown
        return self.newest / telling if telling else None

    def document(self) -> dict[str, Any]:
        """Give the numbers as they stand in answers and events."""
        return {
            "since": self.deployments[0][0] if self.deployments else None,
            "streams": self.streams,
            "newest": self.newest,
            "other": self.other,
            "unknown": self.unknown,
            "share": None if self.share is None else round(self.share, 4),
        }


def _natural(value: object) -> int:
    """Take an integer that JSON can hold again. Raises ValueError for anything else."""
    if type(value) is not int or not 0 <= value <= MAX_INTEGER:
        raise ValueError("no integer from 0 to 2^53 - 1")
    return value


def _milestone(percent: str) -> int:
    if int(percent) not in MILESTONES:
        raise ValueError("no milestone")
    return int(percent)


def _parsed(running: str) -> Build | None:
    return parse(running) or (OTHER if running else None)  # OTHER itself, or what a replica of another version says


class Curve:
    """How a channel's tabs followed: samples since the newest deployment, and the milestones of all kept ones."""

    def __init__(self) -> None:
        self.newest: int | None = None
        self.samples: list[tuple[int, int, int, int]] = []
        """Each a time in milliseconds since 1970, streams of the newest, all streams, unknown ones; oldest first."""
        self.reached: dict[int, dict[int, int]] = {}
        """By deployment and MILESTONES, the milliseconds that it took."""
        self._held_since: dict[int, int] = {}

    @classmethod
    def from_json(cls, text: bytes | None) -> Self:
        """Read a kept curve; what isn't one is as none."""
        curve = cls()
        if text is None or len(text) > MAX_CURVE_SIZE:
            return curve
        try:
            fields = orjson.loads(text)
            curve.reached = {
                _natural(int(deployed_at)): {_milestone(percent): _natural(ms) for percent, ms in took.items()}
                for deployed_at, took in fields["reached"].items()
            }
            curve.samples = [
                (_natural(at), _natural(new), _natural(total), _natural(unknown))
                for at, new, total, unknown in fields["samples"][-MAX_SAMPLES:]
            ]
            curve.newest = _natural(fields["newest"])
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls()
        return curve

    @property
    def json(self) -> bytes:
        """As it is kept: some kilobytes at the most."""
        reached = {
            str(deployed_at): {str(percent): ms for percent, ms in took.items()}
            for deployed_at, took in self.reached.items()
        }
        return orjson.dumps({"newest": self.newest, "reached": reached, "samples": self.samples})

    def add(self, now_ms: int, adoption: Adoption) -> bool:
        """Take what was counted at a time. Gives whether there is something new to keep.

        A time is Redis's, as a deployment's id is.
        """
        if not adoption.deployments or now_ms < adoption.deployments[0][0]:
            return False
        is_new = self._turn_to(adoption)
        reached = self._reach(now_ms, adoption)
        return self._sample(now_ms, adoption) or reached or is_new

    def _turn_to(self, adoption: Adoption) -> bool:
        """Begin anew where there is another newest deployment."""
        newest = adoption.deployments[0][0]
        if self.newest == newest:
            return False
        kept = dict(adoption.deployments)
        self.newest, self.samples, self._held_since = newest, [], {}
        self.reached = {deployed_at: took for deployed_at, took in self.reached.items() if deployed_at in kept}
        return True

    def _reach(self, now_ms: int, adoption: Adoption) -> bool:
        newest, share = adoption.deployments[0][0], adoption.share
        took = self.reached.setdefault(newest, {})
        count = len(took)
        for percent in MILESTONES:
            if percent in took:
                continue
            if share is None or share * 100 < percent:
                self._held_since.pop(percent, None)
            elif now_ms - self._held_since.setdefault(percent, now_ms) >= HOLD_MS:
                took[percent] = self._held_since[percent] - newest
        return len(took) > count

    def _sample(self, now_ms: int, adoption: Adoption) -> bool:
        sample = (now_ms, adoption.newest, adoption.streams, adoption.unknown)
        if self.samples:
            last = self.samples[-1]
            interval = max(SAMPLE_INTERVAL_MS, (now_ms - adoption.deployments[0][0]) * SAMPLE_FRACTION)
            # The clock of a Redis that took over may be behind.
            if sample[1:] == last[1:] or now_ms < last[0] + interval:
                return False
        self.samples.append(sample)
        if len(self.samples) > MAX_SAMPLES:
            del self.samples[1:-1:2]
        return True
