"""`python -m benchmarks`: VECTR0, the textbook endpoint, nchan and the floor, side by side on one machine.

All servers share one core, the load and Redis the other; deployment by deployment they take turns, so that a drifting
machine hits all alike. A stream that misses, repeats or reorders anything fails the run.
"""

import functools
import json
import os
import platform
import random
import shutil
import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import click

from benchmarks import subjects
from benchmarks.load import load
from benchmarks.measure import Figures, Run
from benchmarks.plot import plot
from benchmarks.relays import redis_cpu_per_deployment
from benchmarks.report import redis_table, table

Results = dict[str, dict[int, list[Figures]]]
"""By subject and number of streams, one for each round."""

REPLICAS = (1, 10, 50, 200)

TOP = Path(__file__).parents[1]


def available() -> dict[str, Callable]:
    """Give the subjects that this machine can run, and say which it can't."""
    if shutil.which("cc") is None:
        sys.exit("the load client is a C program, and there is no cc here; apt-get install gcc libc6-dev")
    if shutil.which("redis-server") is None:
        sys.exit("there is no redis-server here")
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("two cores are needed: one for the server, one for the load")
    found: dict[str, Callable] = {
        "VECTR0": subjects.vectr0,
        "VECTR0, 2 workers": functools.partial(subjects.vectr0, workers=2),
        "textbook": subjects.textbook,
        "nchan": subjects.nchan,
        "floor": subjects.floor,
    }
    if not subjects.NCHAN_MODULE.exists():
        print("without nchan: apt-get install libnginx-mod-nchan")
        del found["nchan"]
    return found


def side_by_side(chosen: dict[str, Callable], redis_port: int, streams: int, deployments: int) -> dict[str, Figures]:
    """Run all servers at once, on the one core, and let each in turn spread a deployment.

    While one is measured the others are stopped. These machines change their speed by a fifth within a minute,
    so that servers measured one after the other can't be compared; within a turn of a second it hits all alike.
    """
    with ExitStack() as running:
        runs = {}
        for name, start in chosen.items():
            server = running.enter_context(start(redis_port))
            runs[name] = Run(server, running.enter_context(load(server.port)), streams)
            runs[name].open()
            runs[name].pause()
        for _ in range(deployments):
            for one in random.sample(list(runs.values()), len(runs)):
                one.deliver()
        for one in runs.values():
            one.finish()
    return {name: one.figures for name, one in runs.items()}


def alone(start: Callable, redis_port: int, streams: int, figures: Figures) -> None:
    """Measure what can't be measured beside others."""
    with start(redis_port) as server, load(server.port) as client:
        one = Run(server, client, streams)
        one.open()
        one.measure_the_rest(figures)


@click.command(help=__doc__)
@click.option("--streams", default="1000,5000,9000", show_default=True, help="How many streams, one after the other.")
@click.option("--rounds", default=3, show_default=True, help="How often each is measured.")
@click.option("--deployments", default=20, show_default=True, help="How many are spread in each.")
@click.option("--only", multiple=True, help="Only this subject; may be repeated.")
@click.option("--output", type=click.Path(path_type=Path), default=TOP / "benchmarks" / "results", show_default=False,
              help="Where results.json and results.svg go.  [default: benchmarks/results]")  # fmt: skip
def main(streams: str, rounds: int, deployments: int, only: tuple[str, ...], output: Path) -> None:
    counts = [int(count) for count in streams.split(",")]
    chosen = {name: start for name, start in available().items() if not only or name in only}
    results: Results = {name: {count: [] for count in counts} for name in chosen}
    redis_cost = {}
    os.sched_setaffinity(0, {subjects.LOAD_CORE})  # not beside the servers, which it would disturb
    with subjects.redis_server() as redis_port:
        for replicas in REPLICAS:
            print(f"Redis with {replicas} replicas", flush=True)
            redis_cost[replicas] = redis_cpu_per_deployment(redis_port, replicas)
        for number in range(rounds):
            for count in counts:
                print(f"round {number + 1} of {rounds}: {count} streams", flush=True)
                for name, figures in side_by_side(chosen, redis_port, count, deployments).items():
                    results[name][count].append(figures)
            if "VECTR0" in chosen:
                print(f"round {number + 1} of {rounds}: VECTR0 alone", flush=True)
                alone(chosen["VECTR0"], redis_port, max(counts), results["VECTR0"][max(counts)][-1])
    print()
    text = table(results) + "\n\n" + redis_table(redis_cost)
    print(text)
    output.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": {"cores": os.cpu_count(), "system": platform.system(), "kernel": platform.release(),
                    "architecture": platform.machine(), "python": platform.python_version()},
        "rounds": rounds,
        "deployments": deployments,
        "redis_cpu_per_deployment": redis_cost,
        "results": {name: {count: [asdict(figures) for figures in runs] for count, runs in by_count.items()}
                    for name, by_count in results.items()},
    }  # fmt: skip
    (output / "results.json").write_text(json.dumps(document, indent=1) + "\n")
    (output / "results.md").write_text(text + "\n")
    latency = {name: _median_quantiles(by_count[max(counts)]) for name, by_count in results.items()}
    cost = {
        name: [(count, statistics.median(f.cpu_per_delivery for f in runs)) for count, runs in by_count.items()]
        for name, by_count in results.items()
    }
    (output / "results.svg").write_text(plot(latency, cost, max(counts)))
    print(f"\nresults.json, results.md and results.svg are in {output}")


def _median_quantiles(runs: list[Figures]) -> list[float]:
    return [statistics.median(values) for values in zip(*(figures.latency for figures in runs), strict=True)]


if __name__ == "__main__":
    main()
