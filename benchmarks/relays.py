"""What one deployment costs Redis as replicas grow: each one is a pattern subscription."""

import asyncio
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import orjson
from redis import Redis

from benchmarks.subjects import payload
from service.connections import connect
from service.deployment import Submission
from service.store import Store

DEPLOYMENTS = 300


def redis_cpu_per_deployment(redis_port: int, replicas: int) -> float:
    """Record deployments while so many relays are subscribed; gives Redis's CPU in microseconds for each."""
    with ExitStack() as stack:
        relays = [stack.enter_context(socket.create_connection(("127.0.0.1", redis_port))) for _ in range(replicas)]
        for relay in relays:
            relay.sendall(b"PSUBSCRIBE vectr0:deployments:{*}\r\n")
            relay.recv(1024)
            relay.setblocking(False)
        with Redis(port=redis_port) as redis:
            redis_pid = redis.info("server")["process_id"]
        return asyncio.run(_record(redis_port, redis_pid, relays))


async def _record(redis_port: int, redis_pid: int, relays: list[socket.socket]) -> float:
    store = Store(connect(f"redis://127.0.0.1:{redis_port}"), "vectr0")
    await store.names()
    before = _cpu_seconds(redis_pid)
    for number in range(DEPLOYMENTS):
        unique = payload(number) | {"buildTime": time.time_ns() // 1000}
        await store.append(Submission.from_json(orjson.dumps(unique)))
        for relay in relays:
            _drain(relay)
    spent = _cpu_seconds(redis_pid) - before
    await store.aclose()
    return spent * 1e6 / DEPLOYMENTS


def _drain(relay: socket.socket) -> None:
    with suppress(BlockingIOError):
        relay.recv(65536)


def _cpu_seconds(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
