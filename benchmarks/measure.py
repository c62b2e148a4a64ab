"""One run: a server, so many streams, and what that costs."""

import signal
import statistics
import threading
import time
from dataclasses import dataclass, field

import httpx
from redis import Redis

from benchmarks.load import Load, Quantiles, load
from benchmarks.subjects import Running

WARM_UP = 3
IDLE_SECONDS = 15
"""One ping interval: every stream gets one ping."""
COMEBACK = 10_000
GROUP = 50
WAKING = 0.2
"""Until a server that goes on has done what was due meanwhile."""
SETTLING = 0.05
"""For what a server does after the last stream has its deployment. Short, for pings are none of a delivery's cost."""


@dataclass
class Figures:
    """What one run gave. Times in microseconds, memory in KiB."""

    cpu_per_delivery: float = 0.0
    latency: Quantiles = field(default_factory=list)
    """From POST until a stream has the deployment."""
    cpu_by_turn: list[float] = field(default_factory=list)
    """Of each delivery: what other servers did in the same turn they did within the same seconds."""
    p99_by_turn: list[float] = field(default_factory=list)
    memory_first_thousand: float = 0.0
    memory_per_stream: float = 0.0
    cpu_per_connect: float = 0.0
    connect: Quantiles = field(default_factory=list)
    """From connecting until the first bytes, all at once."""
    idle_cpu: float = 0.0
    """Per stream and second, pings included."""
    longest_stop: float = 0.0
    """Of the event loop, in its thread's CPU time, while streams come and go but nothing is published."""
    comeback_seconds: float = 0.0
    comeback_cpu: float = 0.0
    """Per stream."""
    comeback_reads: int = 0
    """Redis commands that it cost."""
    first_byte_during_fan_out: float = 0.0
    """Of a new stream while all others are written to."""


class Run:
    """A server that was just started, and its load. A stream that misses, repeats or reorders anything is an error."""

    def __init__(self, server: Running, client: Load, streams: int) -> None:
        self._server, self._client, self._streams = server, client, streams
        self._sequence = 0
        self._rounds: list[Quantiles] = []
        self._memory = 0
        self.figures = Figures()

    def open(self) -> None:
        """Open the streams, the first thousand apart, and let a few deployments warm everything up."""
        server, client, figures = self._server, self._client, self.figures
        server.publish(0)
        self._memory, cpu = server.resident_kib(), server.cpu_seconds()
        figures.connect, opened = client.open(1000, server.stream_path), 1000
        figures.memory_first_thousand = (server.resident_kib() - self._memory) / 1000
        if self._streams > 1000:
            cpu, opened = server.cpu_seconds(), self._streams - 1000
            figures.connect = client.open(opened, server.stream_path)
        figures.cpu_per_connect = (server.cpu_seconds() - cpu) * 1e6 / opened
        for _ in range(WARM_UP):
            self._deliver()

    def pause(self) -> None:
        """Stop the server, so that its pings disturb no other."""
        self._server.signal(signal.SIGSTOP)

    def deliver(self) -> None:
        """Publish one deployment, and take its cost."""
        self._server.signal(signal.SIGCONT)
        time.sleep(WAKING)
        cpu = self._server.cpu_seconds()
        self._rounds.append(self._deliver())
        time.sleep(SETTLING)
        self.figures.cpu_by_turn.append((self._server.cpu_seconds() - cpu) * 1e6 / self._streams)
        self.pause()

    def _deliver(self) -> Quantiles:
        self._sequence += 1
        return self._client.round(self._sequence, self._server.publish)

    def finish(self) -> None:
        """Reckon up the deliveries."""
        self._server.signal(signal.SIGCONT)
        self.figures.cpu_per_delivery = statistics.median(self.figures.cpu_by_turn)
        self.figures.p99_by_turn = [latency[99] for latency in self._rounds]
        self.figures.latency = [sorted(values)[len(values) // 2] for values in zip(*self._rounds, strict=True)]
        self.figures.memory_per_stream = (self._server.resident_kib() - self._memory) / self._streams

    def measure_the_rest(self, figures: Figures) -> None:
        """Add what idling and coming and going cost, beside which nothing else may run."""
        server, client, streams = self._server, self._client, self._streams
        cpu = server.cpu_seconds()
        client.wait(IDLE_SECONDS)
        figures.idle_cpu = (server.cpu_seconds() - cpu) * 1e6 / streams / IDLE_SECONDS
        figures.first_byte_during_fan_out = _first_byte(server, client, self._sequence + 1)
        client.close()
        _come_back(server, client, figures)
        client.close()
        time.sleep(1)
        figures.longest_stop = _longest_stop(server, client, streams)


def _first_byte(server: Running, client: Load, sequence: int) -> float:
    """Connect again and again while deployments are spread; give the longest time to a first byte."""
    slowest, done = 0.0, threading.Event()

    def connect() -> None:
        nonlocal slowest
        with load(server.port) as newcomer:
            while not done.is_set():
                slowest = max(slowest, *newcomer.open(1, server.stream_path))
                newcomer.close()

    connecting = threading.Thread(target=connect)
    connecting.start()
    time.sleep(0.1)
    for n in range(10):
        client.round(sequence + n, server.publish)
    done.set()
    connecting.join()
    return slowest


def _come_back(server: Running, client: Load, figures: Figures) -> None:
    """Let all tabs come back at once, each with the last event id that it saw."""
    newest = server.client.get("/deployments/web/production/latest").json()["deployedAt"]
    commands, cpu, begun = _read_commands(server), server.cpu_seconds(), time.monotonic()
    client.open(COMEBACK, server.stream_path, f"Last-Event-ID: {newest}")
    figures.comeback_seconds = time.monotonic() - begun
    figures.comeback_cpu = (server.cpu_seconds() - cpu) * 1e6 / COMEBACK
    figures.comeback_reads = _read_commands(server) - commands


def _read_commands(server: Running) -> int:
    """Count Redis's ZRANGE calls, those of the regular reconciles (one a channel, and one ROLE) not included."""
    with Redis(port=server.redis_port) as redis:
        stats = redis.info("commandstats")
    return int(stats.get("cmdstat_zrange", {}).get("calls", 0)) - int(stats.get("cmdstat_role", {}).get("calls", 0))


def _longest_stop(server: Running, client: Load, streams: int) -> float:
    """Ask /livez all the time while streams come in groups; give the most CPU that the loop spent before it answered."""
    longest, done = 0.0, threading.Event()

    def probe() -> None:
        nonlocal longest
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as http:
            while not done.is_set():
                cpu = server.loop_cpu_seconds()
                http.get("/livez")
                longest = max(longest, server.loop_cpu_seconds() - cpu)
                time.sleep(0.002)

    probing = threading.Thread(target=probe)
    probing.start()
    for _ in range(streams // GROUP):
        client.open(GROUP, server.stream_path)
        time.sleep(0.01)
    client.wait(IDLE_SECONDS)
    done.set()
    probing.join()
    return longest * 1e6
