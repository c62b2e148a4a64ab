"""What Prometheus is told of this service."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from service.deployment import Deployment

RelayState = Literal["connecting", "live", "polling", "down"]
CloseReason = Literal["client", "stalled", "over-limit", "shutdown"]
SideTask = Literal["census", "issuer"]

_FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The counters of this process; with several workers, files that `exposition` adds up."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        # With several workers __main__ has set this before prometheus_client was imported.
        self._shared_folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        self.streams = Gauge(
            "vectr0_streams", "Open streams.", registry=registry, multiprocess_mode="livesum"
        )  # fmt: skip
        self.boards = Gauge("vectr0_boards", "Open boards.", registry=registry, multiprocess_mode="livesum")
        self.running = Gauge(
            "vectr0_streams_running", "Open streams of channels, by what their pages run.", ["build"],
            registry=registry, multiprocess_mode="livesum",
        )  # fmt: skip
        self.channels = Gauge(
            "vectr0_channels", "Channels in memory.", registry=registry, multiprocess_mode="livesum"
        )  # fmt: skip
        self.opened = Counter("vectr0_streams_opened", "Streams opened.", registry=registry)
        self.closed = Counter("vectr0_streams_closed", "Streams closed.", ["reason"], registry=registry)
        self.deployments = Counter(
            "vectr0_deployments", "Deployments posted, by what became of them.", ["result"], registry=registry
        )
        self.frames_written = Counter("vectr0_frames_written", "Frames written to streams.", registry=registry)
        self.relay_state = Gauge(
            "vectr0_relay_state", "1 for the state that the relay is in.", ["state"],
            registry=registry, multiprocess_mode="livesum",
        )  # fmt: skip
        self.reconnects = Counter(
            "vectr0_relay_reconnects", "Times the subscription had to be opened anew.", registry=registry
        )
        self.reconciles = Counter(
            "vectr0_relay_reconciles", "Reconciles, by what they found.", ["result"], registry=registry
        )
        self.healed = Counter(
            "vectr0_relay_healed", "Channels that a reconcile found different from memory.", registry=registry
        )
        self.publish_to_write = Histogram(
            "vectr0_publish_to_write_seconds",
            "From deployedAt (Redis's clock) until its channel's last stream was written to (this clock).",
            registry=registry, buckets=_FAST,
        )  # fmt: skip
        self.append_latency = Histogram(
            "vectr0_append_seconds", "Time that recording a deployment in Redis took.", registry=registry, buckets=_FAST
        )
        self.loop_lag = Histogram(
            "vectr0_event_loop_lag_seconds", "How late the event loop ran a timer.", registry=registry, buckets=_FAST
        )
        self.task_failures = Counter(
            "vectr0_task_failures", "Failures of what runs beside the main road.", ["task"], registry=registry
        )
        self.log_lines_left_out = Counter(
            "vectr0_log_lines_left_out", "Lines that are not in the log, by why.", ["reason"], registry=registry
        )
        self.enter_relay_state("connecting")

    @contextmanager
    def deployments_failing(self) -> Iterator[None]:
        """Count a posting that ends in an error."""
        try:
            yield
        except Exception:
            self.deployments.labels("failed").inc()
            raise

    def turned_away(self) -> None:
        """Count a stream that was one too many: it was opened and ended at once."""
        self.opened.inc()
        self.closed.labels("over-limit").inc()

    def watched(self, boards: int) -> None:
        """Show how many boards there are."""
        self.boards.set(boards)

    def count_running(self, streams: Mapping[str, int]) -> None:
        """Show how many streams run the newest, an older, some other or an unknown build."""
        for build, count in streams.items():
            self.running.labels(build).set(count)

    def wrote(self, frames: int) -> None:
        """Count frames written to streams."""
        if frames:
            self.frames_written.inc(frames)

    def spread(self, deployment: Deployment) -> None:
        """Note that every stream of its channel has been written to."""
        self.publish_to_write.observe(max(0.0, time.time() - deployment.id / 1000))

    def enter_relay_state(self, entered: RelayState) -> None:
        """Show the one state that the relay is in."""
        for state in get_args(RelayState):
            self.relay_state.labels(state).set(state == entered)

    def exposition(self) -> bytes:
        """Give the metrics of all workers in Prometheus's text format."""
        if self._shared_folder is None:
            return generate_latest(self._registry)
        _forget_dead_workers(Path(self._shared_folder))
        registry = CollectorRegistry()
        registry.register(_Workers(Path(self._shared_folder)))
        return generate_latest(registry)


class _Workers(Collector):
    """The files of all workers, but for those that one makes at this moment: they are empty."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        files = [str(path) for path in self._folder.glob("*.db") if _is_filled(path)]
        metrics: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]  # untyped there
        return metrics


def _is_filled(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:  # of a worker that is dead
        return False


def _forget_dead_workers(folder: Path) -> None:
    """Take the gauges of workers that were killed out of the sums; their counters stay."""
    for pid in {path.stem.rpartition("_")[2] for path in folder.glob("gauge_live*.db")}:
        with suppress(PermissionError):
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                mark_process_dead(int(pid), path=str(folder))  # type: ignore[no-untyped-call]  # untyped there
