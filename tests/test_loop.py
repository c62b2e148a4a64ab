"""Look-ups of names that nobody answers: one at a time, and nothing waits for them, least of all the end."""

import asyncio
import gc
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from service.loop import Loop
from tests.parts import RedisServer, Replica, post, require, wait_until

GONE_WITHIN = 5.0


class Resolver:
    """`socket.getaddrinfo`, answered when the test says so."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.answers = threading.Event()
        self.answer: Any = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))]

    def __call__(self, host: Any, port: Any, **options: Any) -> Any:
        self.asked.append(host)
        self.answers.wait(60)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield resolver
    resolver.answers.set()


def run(main: Callable[[asyncio.AbstractEventLoop], Any]) -> list[str]:
    """Run on such a loop to its end, and give what the loop complains of."""
    complaints: list[str] = []

    async def on_loop() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context["message"]))
        await main(loop)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(on_loop())
        gc.collect()
    return complaints


def test_one_look_up_for_all_who_ask(resolver):
    """Who asks while a name is looked up shares the answer; who asks later has it looked up anew."""

    async def main(loop: asyncio.AbstractEventLoop) -> None:
        asking = [asyncio.create_task(loop.getaddrinfo("redis", 1)) for _ in range(50)]
        other = asyncio.create_task(loop.getaddrinfo("issuer", 1))
        await asyncio.sleep(0)
        resolver.answers.set()
        assert await asyncio.gather(*asking, other) == [resolver.answer] * 51
        assert await loop.getaddrinfo("redis", 1) == resolver.answer

    assert run(main) == []
    assert sorted(resolver.asked) == ["issuer", "redis", "redis"]


def test_who_gives_up_leaves_the_look_up_to_others(resolver):
    """A look-up outlives the one who asked, isn't repeated while it is under way, and answers those who came later."""

    async def main(loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(5):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await loop.getaddrinfo("redis", 1)
        late = asyncio.create_task(loop.getaddrinfo("redis", 1))
        await asyncio.sleep(0)
        resolver.answers.set()
        assert await late == resolver.answer

    assert run(main) == []
    assert resolver.asked == ["redis"]


def test_error_that_nobody_waits_for_is_no_news(resolver):
    """All who wait get the error, and where nobody does any more, nothing complains of it."""
    resolver.answer = socket.gaierror(-3, "Temporary failure in name resolution")

    async def main(loop: asyncio.AbstractEventLoop) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await loop.getaddrinfo("issuer", 1)
        asking = [asyncio.create_task(loop.getaddrinfo("redis", 1)) for _ in range(3)]
        await asyncio.sleep(0)
        resolver.answers.set()
        errors = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(error) for error in errors] == [socket.gaierror] * 3

    assert run(main) == []


def test_end_of_the_loop_waits_for_no_look_up(resolver):
    """A loop that is closed while a name is being looked up is closed at once; the answer then goes nowhere."""

    async def main(loop: asyncio.AbstractEventLoop) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await loop.getaddrinfo("redis", 1)

    began = time.monotonic()
    assert run(main) == []
    assert time.monotonic() - began < GONE_WITHIN


@pytest.fixture
def silent_resolver() -> Iterator[tuple[str, list[bytes]]]:
    """A DNS server that never answers, on an address of this machine's own: the address, and what it was asked."""
    if os.geteuid() != 0:
        pytest.skip("only root may listen on port 53, and have another resolv.conf")
    address = f"127.{random.randrange(1, 255)}.{random.randrange(1, 255)}.{random.randrange(2, 255)}"
    questions: list[bytes] = []

    def listen(server: socket.socket) -> None:
        with suppress(OSError):
            while question := server.recv(4096):
                questions.append(question)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        threading.Thread(target=listen, args=(server,), daemon=True).start()
        yield address, questions


def start_with_resolver(replica: Replica, folder: Path, address: str) -> None:
    """Start a replica to which this is the machine's only DNS server, in a mount namespace of its own."""
    resolv_conf = folder / "resolv.conf"
    resolv_conf.write_text(f"nameserver {address}\noptions timeout:10 attempts:5\n")
    script = f"mount --bind {shlex.quote(str(resolv_conf))} /etc/resolv.conf && exec {shlex.quote(sys.executable)} -m service"
    command = [require("unshare"), "--mount", "--propagation", "private", "sh", "-c", script]
    probe = subprocess.run([*command[:-1], script.partition(" && ")[0]], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"no mount namespace here: {probe.stderr.strip()}")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("VECTR0_")}
    with replica.log_path.open("ab") as log:
        replica.process = subprocess.Popen(command, env={**environ, **replica.settings}, stdout=log, stderr=log)
    wait_until(replica.is_ready, 20, what="the service")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_service_ends_in_time_although_dns_is_dead(tmp_path, silent_resolver, workers):
    """With a dead resolver there is one look-up for each name, the log is quiet, and SIGTERM ends it in order."""
    address, questions = silent_resolver
    trust = '[{"issuer": "https://ci.dead.example", "claims": {"sub": "x"}, "channels": ["*/*"]}]'
    replica = Replica(
        tmp_path,
        redis_url="rediss://redis.dead.example/1",
        trust=trust,
        audience="https://hub.example",
        workers=workers,
    )
    try:
        start_with_resolver(replica, tmp_path, address)
        wait_until(lambda: replica.health()["relay"]["state"] == "down", what="the relay's state down")
        wait_until(lambda: any(b"\x02ci\x04dead" in question for question in questions), what="the issuer's name")
        refused = post(replica.url)
        time.sleep(4)  # for look-ups to pile up, if they did
        began = time.monotonic()
        status = replica.terminate()
        seconds = time.monotonic() - began
    finally:
        replica.kill()

    assert refused.status_code == 503
    assert seconds < GONE_WITHIN
    assert status == (0 if workers == "1" else status)
    # An A and an AAAA, and no more: a second look-up would ask with ids of its own.
    for name in (b"\x05redis\x04dead", b"\x02ci\x04dead"):
        assert len({question[:2] for question in questions if name in question}) <= 2 * int(workers)
    for word in ("never retrieved", "Traceback", "CRITICAL"):
        assert word not in replica.log


MOVING = """
import socket
from pathlib import Path

real = socket.getaddrinfo
def getaddrinfo(host, *arguments, **options):
    if host in ("redis.moving.example", b"redis.moving.example"):
        host = Path({path!r}).read_text()
    return real(host, *arguments, **options)
socket.getaddrinfo = getaddrinfo
"""


def test_name_that_moves_is_followed(redis_server, tmp_path, monkeypatch):
    """After a failover by DNS the hub's connections lead to where the name leads now."""
    address = tmp_path / "address"
    address.write_text("127.0.0.1")
    (tmp_path / "sitecustomize.py").write_text(MOVING.format(path=str(address)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    folder = tmp_path / "other"
    folder.mkdir()
    other = RedisServer(folder)
    other.host, other.port = "127.0.0.2", redis_server.port
    replica = Replica(tmp_path, redis_url=f"redis://redis.moving.example:{redis_server.port}")
    try:
        replica.start()
        wait_until(lambda: replica.health()["relay"]["state"] == "live", what="a live relay")
        first = post(replica.url)
        redis_server.kill()
        wait_until(lambda: replica.health()["relay"]["state"] == "down", what="the relay's state down")
        other.start()
        address.write_text("127.0.0.2")
        wait_until(lambda: replica.health()["relay"]["state"] == "live", what="a live relay")
        second = post(replica.url)
    finally:
        replica.kill()
        other.kill()

    assert (first.status_code, second.status_code) == (201, 201)


HANGING = """
import asyncio
import time

from service import app
from service.__main__ import main

run = app.run_main


async def hanging(task):
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)
    await run(task)


app.run_main = hanging
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_whatever_hangs_the_process_is_gone(redis_server, tmp_path, number):
    """A thread that the interpreter waits for can't keep the process: it says so, and ends with a status of its own."""
    replica = Replica(tmp_path, redis_url=redis_server.url)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("VECTR0_")}
    try:
        with replica.log_path.open("ab") as log:
            replica.process = subprocess.Popen(
                [sys.executable, "-c", HANGING], env={**environ, **replica.settings}, stdout=log, stderr=log
            )
        wait_until(replica.is_ready, 20, what="the service")
        began = time.monotonic()
        replica.process.send_signal(number)
        status = replica.process.wait(10)
        seconds = time.monotonic() - began
    finally:
        replica.kill()

    assert status == os.EX_SOFTWARE
    assert seconds < GONE_WITHIN + 1  # this machine may be busy
    assert "something hangs" in replica.log
