"""The load client, driven over its pipe; see load.c."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.subjects import LOAD_CORE, compiled, pinned

Quantiles = list[float]
"""The 0th to the 100th percentile, in microseconds."""


class Load:
    """Thousands of streams that check what they receive: every deployment, once, in order."""

    def __init__(self, port: int) -> None:
        command = [str(compiled("load")), "127.0.0.1", str(port)]
        self._process = pinned(LOAD_CORE, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _say(self, command: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def _hear(self, expected: str) -> list[str]:
        assert self._process.stdout
        words: list[str] = self._process.stdout.readline().split()
        if not words or words[0] != expected:
            raise RuntimeError(f"the run is wrong: {' '.join(words) or 'the load client died'}")
        return words[1:]

    def open(self, count: int, path: str, header: str = "") -> Quantiles:
        """Open so many more streams at once; gives the time until each one's first bytes."""
        self._say(f"open {count} {path} {header}".rstrip())
        return [float(word) for word in self._hear("opened")[1:]]

    def round(self, sequence: int, publish: Callable[[int], None]) -> Quantiles:
        """Publish, and give how long after it each stream had the deployment."""
        self._say(f"round {sequence} {time.monotonic_ns()}")
        publish(sequence)
        return [float(word) for word in self._hear("round")[1:]]

    def wait(self, seconds: float) -> None:
        """Go on reading."""
        self._say(f"wait {seconds}")
        self._hear("waited")

    def close(self) -> None:
        """Close all streams."""
        self._say("close")
        self._hear("closed")

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def load(port: int) -> Iterator[Load]:
    client = Load(port)
    try:
        yield client
    finally:
        client.end()
