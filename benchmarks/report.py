"""The table: medians over the rounds, their spread, and the ratios that matter."""

import math
import statistics
from collections.abc import Callable

from benchmarks.measure import Figures

Results = dict[str, dict[int, list[Figures]]]

COLUMNS: list[tuple[str, Callable[[Figures], float], int]] = [
    ("CPU per delivery, µs", lambda f: f.cpu_per_delivery, 1),
    ("p50, ms", lambda f: f.latency[50] / 1000, 1),
    ("p99, ms", lambda f: f.latency[99] / 1000, 1),
    ("last, ms", lambda f: f.latency[100] / 1000, 1),
    ("memory per stream, KiB", lambda f: f.memory_per_stream, 1),
    ("CPU per connect, µs", lambda f: f.cpu_per_connect, 0),
    ("all at once connected, ms, median", lambda f: f.connect[50] / 1000 if f.connect else math.nan, 0),
]


def table(results: Results) -> str:
    """Give everything as Markdown."""
    counts = list(next(iter(results.values())))
    parts = [_by_subject(results, count) for count in counts]
    if "VECTR0" in results:
        parts += [_goals(results, max(counts)), _once(results["VECTR0"][max(counts)])]
    return "\n\n".join(parts)


def _by_subject(results: Results, count: int) -> str:
    lines = [
        f"| {count:,} streams | " + " | ".join(name for name, _, _ in COLUMNS) + " |",
        "| --- |" + " ---: |" * len(COLUMNS),
    ]
    for subject, by_count in results.items():
        cells = [_cell([value(figures) for figures in by_count[count]], digits) for _, value, digits in COLUMNS]
        lines.append(f"| {subject} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _goals(results: Results, count: int) -> str:
    """Compare with the others in the same run.

    Each figure is a median; of deliveries it is the median of the ratios, turn by turn, so that a machine which changes
    its speed meanwhile changes both sides of each.
    """

    def median(subject: str, value: Callable[[Figures], float], streams: int = count) -> float | None:
        if subject not in results:
            return None
        return statistics.median(value(figures) for figures in results[subject][streams])

    def ratio(name: str, against: str, value: Callable[[Figures], float], goal: float) -> str:
        ours, theirs = median(name, value), median(against, value)
        return "" if ours is None or not theirs else f"{ours / theirs:.2f} | ≤ {goal}"

    def by_turn(name: str, against: str, values: Callable[[Figures], list[float]], goal: float) -> str:
        ratios = [
            mine / other
            for ours, theirs in zip(
                results.get(name, {}).get(count, []), results.get(against, {}).get(count, []), strict=False
            )
            for mine, other in zip(values(ours), values(theirs), strict=True)
        ]
        return f"{statistics.median(ratios):.2f} | ≤ {goal}" if ratios else ""

    def level(value: Callable[[Figures], float], goal: float) -> str:
        ours = median("VECTR0", value)
        return f"{ours:.1f} | ≤ {goal}"

    rows = {
        "CPU per delivery against nchan with Redis": by_turn("VECTR0", "nchan", lambda f: f.cpu_by_turn, 0.85),
        "against the C floor": by_turn("VECTR0", "floor", lambda f: f.cpu_by_turn, 1.3),
        "against the textbook": by_turn("VECTR0", "textbook", lambda f: f.cpu_by_turn, 0.25),
        "memory per stream, KiB resident": level(lambda f: f.memory_per_stream, 11),
        "p99 against nchan": by_turn("VECTR0", "nchan", lambda f: f.p99_by_turn, 0.8),
        "CPU per connect against the textbook": ratio("VECTR0", "textbook", lambda f: f.cpu_per_connect, 0.22),
        "longest stop of the event loop, ms of its CPU time": level(lambda f: f.longest_stop / 1000, 20),
        "idle with pings, µs of CPU per stream and second": level(lambda f: f.idle_cpu, 1.2),
        "CPU per delivery, two workers against one": by_turn(
            "VECTR0, 2 workers", "VECTR0", lambda f: f.cpu_by_turn, 1.1
        ),
        "a new stream's first byte during a fan-out, ms": level(lambda f: f.first_byte_during_fan_out / 1000, 50),
    }
    lines = [f"| at {count:,} streams | measured | goal |", "| --- | ---: | ---: |"]
    return "\n".join(lines + [f"| {name} | {cells} |" for name, cells in rows.items() if cells])


def _once(runs: list[Figures]) -> str:
    def median(value: Callable[[Figures], float]) -> float:
        return statistics.median(value(figures) for figures in runs)

    return (
        f"10,000 tabs that come back at once, each with its last event id, are served in "
        f"{median(lambda f: f.comeback_seconds):.1f} s, at {median(lambda f: f.comeback_cpu):.0f} µs of CPU each, "
        f"and cost {median(lambda f: f.comeback_reads):.0f} Redis commands."
    )


def _cell(values: list[float], digits: int) -> str:
    """Give a median, with half the spread between the rounds."""
    if math.isnan(values[0]):
        return "not taken"
    spread = (max(values) - min(values)) / 2
    return f"{statistics.median(values):.{digits}f} ± {spread:.{digits}f}"


def redis_table(cost: dict[int, float]) -> str:
    """Give what one deployment costs Redis, by replicas."""
    return "\n".join([
        "| replicas | " + " | ".join(f"{replicas:,}" for replicas in cost) + " |",
        "| --- |" + " ---: |" * len(cost),
        "| Redis's CPU for one deployment, ms | " + " | ".join(f"{cpu / 1000:.2f}" for cpu in cost.values()) + " |",
    ])  # fmt: skip
