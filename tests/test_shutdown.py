"""The end of a process: what open streams are told, how soon it is over, and what is left behind."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.parts import TOKEN, Listener, RedisServer, Replica, deployment, eventually, post, wait_until

pytestmark = pytest.mark.anyio

STREAMS = 300
BOARDS = 20
"""How many of them are boards, which read what fills the sockets of the others."""
STALLED = 5
GONE_WITHIN = 5.0

LIVE = 'vectr0_relay_state{state="live"}'

StartReplica = Callable[..., Replica]


async def start(start_replica: StartReplica, redis_server: RedisServer, workers: int) -> Replica:
    """Start a replica, and wait until each of its workers listens."""
    replica = start_replica(redis_url=redis_server.url, workers=str(workers))
    await eventually(lambda: replica.metric(LIVE) == workers, what="all workers")
    return replica


def children_of(replica: Replica) -> list[int]:
    """The process ids of a replica's workers."""
    children = Path(f"/proc/{replica.pid}/task/{replica.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended; an orphan may wait for init to take notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def is_free(port: int) -> bool:
    """Tell whether a service can listen on a port."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def complaints(replica: Replica) -> list[str]:
    """The lines of a log that nobody wants to see."""
    return [
        line
        for line in replica.log.splitlines()
        if any(word in line for word in ("ERROR", "CRITICAL", "Traceback", "Exception", "leaked"))
    ]


def send_to(replica: Replica, request: bytes, receive_buffer: int | None = None) -> socket.socket:
    """Send bytes on a connection of their own, and read nothing."""
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.connect(("127.0.0.1", replica.port))
    connection.sendall(request)
    return connection


def queues(replica: Replica, connections: list[socket.socket]) -> list[tuple[int, int]]:
    """The bytes that the kernel keeps on the service's side of each connection: to be sent, to be read."""
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, sizes, *_ = line.split()
        if int(local.partition(":")[2], 16) == replica.port:
            to_send, _, to_read = sizes.partition(":")
            found[int(remote.partition(":")[2], 16)] = int(to_send, 16), int(to_read, 16)
    return [found[connection.getsockname()[1]] for connection in connections]


def send_queues(replica: Replica, connections: list[socket.socket]) -> list[int]:
    return [to_send for to_send, _ in queues(replica, connections)]


def unread(replica: Replica, connections: list[socket.socket]) -> int:
    return sum(to_read for _, to_read in queues(replica, connections))


async def fill(replica: Replica, stalled: list[socket.socket], readers: list[Listener]) -> None:
    """Post until the queues of boards that don't read grow no more, while others get everything."""
    apps = [f"fill-{number}" for number in range(8)]
    wide = "\N{DRAGON}" * 124  # four bytes each
    before, number = [0], 0
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=replica.url, headers=headers, timeout=10) as poster:
        while send_queues(replica, stalled) != before or min(before) == 0:
            assert number < 200, before
            before = send_queues(replica, stalled)
            number += 1
            posts = [
                poster.post("/deployments", json=deployment(app, version=f"{number:03} {wide}", gitTag=wide))
                for app in apps
            ]
            answers = await asyncio.gather(*posts)
            assert [answer.status_code for answer in answers] == [201] * len(apps)
            for reader in readers:
                await reader.has(number * len(apps))


@asynccontextmanager
async def streams(replica: Replica, channels: int, boards: int) -> AsyncIterator[list[Listener]]:
    """Open boards and then streams of a channel, and wait for the first event on each."""
    urls = [f"{replica.url}/events"] * boards + [f"{replica.url}/events/web/production"] * channels
    async with AsyncExitStack() as stack:
        listeners = await asyncio.gather(*(Listener.open(url) for url in urls))
        for listener in listeners:
            stack.push_async_callback(listener.close)
        await eventually(lambda: all(listener.events for listener in listeners), what="the first event")
        yield list(listeners)


async def ends(listeners: list[Listener]) -> None:
    await eventually(lambda: all(listener.ended or listener.cut_off for listener in listeners), what="the ends")


@contextmanager
def unread_boards(replica: Replica) -> Iterator[list[socket.socket]]:
    """Open boards that nobody reads."""
    before = replica.metric("vectr0_streams")
    with ExitStack() as stack:
        request = b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n"
        stalled = [stack.enter_context(send_to(replica, request, receive_buffer=4096)) for _ in range(STALLED)]
        wait_until(lambda: replica.metric("vectr0_streams") == before + STALLED, what="the boards")
        yield stalled


def signalled(replica: Replica, number: signal.Signals, pids: list[int]) -> tuple[int, float]:
    """Send a signal to processes, and give the exit status, and the seconds until it came."""
    assert replica.process
    began = time.monotonic()
    for pid in pids:
        os.kill(pid, number)
    return replica.process.wait(GONE_WITHIN + 5), time.monotonic() - began


@pytest.mark.parametrize(
    ("number", "workers", "to_all"),
    [
        (signal.SIGTERM, 1, False),
        (signal.SIGTERM, 2, False),
        (signal.SIGINT, 1, False),
        (signal.SIGINT, 2, False),
        (signal.SIGINT, 2, True),
        (signal.SIGTERM, 2, True),
    ],
    ids=[
        "SIGTERM",
        "SIGTERM, two workers",
        "SIGINT",
        "SIGINT, two workers",
        "Ctrl-C, two workers",
        "systemd, two workers",
    ],
)
async def test_every_stream_is_told_to_come_back(number, workers, to_all, redis_server, start_replica):
    """A signal ends every stream that is read with a fresh `retry`, and the process in time, whoever doesn't read."""
    replica = await start(start_replica, redis_server, workers)
    pids = [replica.pid, *children_of(replica)]
    async with streams(replica, channels=STREAMS - BOARDS, boards=BOARDS) as listeners:
        with unread_boards(replica) as stalled:
            await fill(replica, stalled, listeners[:BOARDS])
            open_before = replica.metric("vectr0_streams")
            status, seconds = await asyncio.to_thread(signalled, replica, number, pids if to_all else pids[:1])
            await ends(listeners)

    assert open_before == STREAMS + STALLED
    assert sum(listener.ended for listener in listeners) == STREAMS
    assert [len(listener.retries) for listener in listeners] == [2] * STREAMS
    farewells = [listener.retries[1] for listener in listeners]
    assert min(farewells) >= 1_000
    assert max(farewells) <= 5_000
    assert len(set(farewells)) > STREAMS / 2
    assert sum(listener.retries[0] != listener.retries[1] for listener in listeners) > STREAMS / 2
    assert status == 0
    assert seconds < GONE_WITHIN
    assert len(pids) == (3 if workers == 2 else 1)
    assert all(is_gone(pid) for pid in pids)
    assert complaints(replica) == []


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_address_is_free_at_once(workers, redis_server, start_replica):
    """Right after the end the service starts again on its port, though the old one's full sockets linger."""
    replica = await start(start_replica, redis_server, workers)
    async with streams(replica, channels=5, boards=5) as listeners:
        with unread_boards(replica) as stalled:
            await fill(replica, stalled, listeners[:5])
            status = await asyncio.to_thread(replica.terminate)
            free = is_free(replica.port)
            await asyncio.to_thread(replica.start)
            async with streams(replica, channels=1, boards=1) as again:
                answer = await asyncio.to_thread(post, replica.url)
                await again[1].has(1)

    assert status == 0
    assert free
    assert again[1].deployments == [answer.json()]
    assert complaints(replica) == []


@pytest.mark.parametrize("workers", [1, 2])
async def test_half_sent_requests_hold_nothing_up(workers, redis_server, start_replica):
    """Neither half a header, nor half a body, nor a silent or an idle connection delays the end."""
    replica = await start(start_replica, redis_server, workers)
    head = f"POST /deployments HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
    json_head = head + b"Content-Type: application/json\r\n"
    requests = [
        b"",
        b"G",
        b"GET /events/web/production HTTP/1.1\r\nHost: a\r\nLast-Event-ID: 1",
        head + b"Content-Le",
        json_head + b'Content-Length: 200\r\n\r\n{"appName":',
        json_head + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"app',
    ]
    async with streams(replica, channels=10, boards=2) as listeners:
        with ExitStack() as stack:
            half = [stack.enter_context(send_to(replica, request)) for request in requests for _ in range(4)]
            idle = stack.enter_context(send_to(replica, b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"))
            idle.settimeout(5)
            answered = idle.recv(4096)
            await eventually(lambda: unread(replica, half) == 0, what="the service to read what was sent")
            pids = [replica.pid, *children_of(replica)]
            status, seconds = await asyncio.to_thread(signalled, replica, signal.SIGTERM, pids[:1])
            await ends(listeners)

    assert answered.startswith(b"HTTP/1.1 200 ")
    assert status == 0
    assert seconds < GONE_WITHIN
    assert all(listener.ended for listener in listeners)
    assert all(is_gone(pid) for pid in pids)
    assert complaints(replica) == []


async def test_workers_end_with_their_supervisor(redis_server, start_replica, tmp_path, monkeypatch):
    """Where the supervisor is killed, Linux ends its workers: in order, streams and all, and the port is free."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # for the metrics' files, which nobody deletes then
    replica = await start(start_replica, redis_server, 2)
    workers = children_of(replica)
    async with streams(replica, channels=30, boards=10) as listeners:
        began = time.monotonic()
        await asyncio.to_thread(replica.kill)
        await eventually(lambda: all(is_gone(pid) for pid in workers), what="the end of the workers")
        seconds = time.monotonic() - began
        await ends(listeners)

    assert len(workers) == 2
    assert seconds < GONE_WITHIN
    assert is_free(replica.port)
    assert all(listener.ended for listener in listeners)
    assert [len(listener.retries) for listener in listeners] == [2] * 40
    assert complaints(replica) == []


FAILING = """
import asyncio
import signal

from service import relay
from service.__main__ import main

run = relay.Relay._reconcile_forever


async def failing(self):
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, asked.set)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(run(self))
        await asked.wait()
        raise RuntimeError("the test asked for this")


relay.Relay._reconcile_forever = failing
main()
"""


async def test_a_failing_relay_ends_the_process(redis_server, tmp_path):
    """A relay that dies ends the process loudly, with a status that isn't 0, after every stream got its farewell."""
    replica = Replica(tmp_path, redis_url=redis_server.url)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("VECTR0_")}
    with replica.log_path.open("ab") as log, ExitStack() as stack:
        replica.process = subprocess.Popen(
            [sys.executable, "-c", FAILING], env={**environ, **replica.settings}, stdout=log, stderr=log
        )
        stack.callback(replica.kill)
        await asyncio.to_thread(wait_until, replica.is_ready, 20, "the service")
        async with streams(replica, channels=30, boards=10) as listeners:
            status, seconds = await asyncio.to_thread(signalled, replica, signal.SIGUSR1, [replica.pid])
            await ends(listeners)
    with suppress(OSError), socket.create_connection(("127.0.0.1", replica.port), timeout=1):
        pytest.fail("somebody still listens")

    assert status == os.EX_SOFTWARE
    assert seconds < GONE_WITHIN
    assert all(listener.ended for listener in listeners)
    assert [len(listener.retries) for listener in listeners] == [2] * 40
    assert replica.log.count("CRITICAL vectr0: a task that this service can't do without has failed") == 1
    assert "RuntimeError: the test asked for this" in replica.log


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT], ids=["SIGHUP", "SIGQUIT"])
@pytest.mark.parametrize("workers", [1, 2])
async def test_other_signals_that_end(workers, number, redis_server, start_replica):
    """A terminal that is closed, or a SIGQUIT, ends the service as SIGTERM does, whether or not its workers hear it."""
    replica = await start(start_replica, redis_server, workers)
    pids = [replica.pid, *children_of(replica)]
    async with streams(replica, channels=10, boards=2) as listeners:
        status, _ = await asyncio.to_thread(signalled, replica, number, pids)
        await ends(listeners)

    assert status == 0
    assert all(listener.ended for listener in listeners)
    assert all(is_gone(pid) for pid in pids)
    assert complaints(replica) == []


@pytest.mark.parametrize("workers", [1, 2])
async def test_nohup(workers, redis_server, tmp_path):
    """Started by `nohup`, it outlives its terminal."""
    replica = Replica(tmp_path, redis_url=redis_server.url, workers=str(workers))
    ignoring = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    replica.arguments = ("-c", f"{ignoring}; os.execv(sys.executable, [sys.executable, '-m', 'service'])")
    try:
        await asyncio.to_thread(replica.start)
        await eventually(lambda: replica.metric(LIVE) == workers, what="all workers")
        async with streams(replica, channels=5, boards=0) as listeners:
            for pid in [replica.pid, *children_of(replica)]:
                os.kill(pid, signal.SIGHUP)
            answer = await asyncio.to_thread(post, replica.url)
            for listener in listeners:
                await listener.has(1)
        status = await asyncio.to_thread(replica.terminate)
    finally:
        replica.kill()

    assert answer.status_code == 201
    assert status == 0
    assert complaints(replica) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("workers", [1, 2])
async def test_impatience(workers, number, redis_server, start_replica):
    """A signal again and again neither cuts the farewell short nor leaves a traceback."""
    replica = await start(start_replica, redis_server, workers)
    pids = [replica.pid, *children_of(replica)]
    async with streams(replica, channels=50, boards=5) as listeners:
        while not is_gone(replica.pid):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            await asyncio.sleep(0.01)
        assert replica.process
        status = await asyncio.to_thread(replica.process.wait, 5)
        await ends(listeners)

    assert status == 0
    assert all(listener.ended for listener in listeners)
    assert complaints(replica) == []


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("after", [0.15, 0.4, 0.8, 1.6])
def test_sigterm_while_it_starts(workers, after, redis_server, tmp_path):
    """A SIGTERM that comes while it starts isn't lost, though as the first process of a container it has no default.

    One that is inherited as ignored has no effect of its own either, and needs no container.
    """
    ignoring = "import os, signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    replica = Replica(tmp_path, redis_url=redis_server.url, workers=str(workers))
    replica.arguments = ("-c", f"{ignoring}; os.execv(sys.executable, [sys.executable, '-m', 'service'])")
    folder = tmp_path / "temporary"
    folder.mkdir()
    replica.settings["TMPDIR"] = str(folder)
    try:
        replica.start(wait=False)
        assert replica.process
        with suppress(FileNotFoundError):  # until it is in Python's own code, which no program can be earlier than
            wait_until(lambda: is_catching(replica.pid, signal.SIGTERM), what="the handler")
        time.sleep(after - 0.15)
        replica.process.terminate()
        status = replica.process.wait(10)
    finally:
        replica.kill()

    assert status in (0, 128 + signal.SIGTERM)
    assert complaints(replica) == []
    assert list(folder.iterdir()) == []


def is_catching(pid: int, number: signal.Signals) -> bool:
    """Tell whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")), 16)
    return bool(caught >> (number - 1) & 1)


def test_handler_comes_before_what_takes_time(tmp_path):
    """The handler is there before the first import that isn't Python's own."""
    probe = "import signal, sys; print(signal.getsignal(signal.SIGTERM), file=sys.stderr)"
    (tmp_path / "click.py").write_text(f"{probe}; sys.exit(9)\n")
    done = subprocess.run(
        [sys.executable, "-m", "service"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 9
    assert "<function" in done.stderr


@pytest.mark.parametrize("frozen", [1, 2])
async def test_frozen_workers(frozen, redis_server, start_replica):
    """Workers that stand still, as on a machine that is paused, keep their streams, and can't keep the service."""
    replica = await start(start_replica, redis_server, 2)
    workers = children_of(replica)
    async with streams(replica, channels=20, boards=0) as listeners:
        for pid in workers[:frozen]:
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(8)  # uvicorn waits 5 s for an answer
        for pid in workers[:frozen]:
            os.kill(pid, signal.SIGCONT)
        answer = await asyncio.to_thread(post, replica.url, timeout=20)
        for listener in listeners:
            await listener.has(1)
        same = children_of(replica)
        for pid in workers[:frozen]:
            os.kill(pid, signal.SIGSTOP)
        status, _ = await asyncio.to_thread(signalled, replica, signal.SIGTERM, [replica.pid])  # which is in time

    assert answer.status_code == 201
    assert same == workers
    assert status == 0
    assert all(is_gone(pid) for pid in workers)
    assert replica.log.count("is frozen, and is killed") == frozen


async def test_workers_that_start_slowly(redis_server, tmp_path):
    """A worker that takes longer to start than uvicorn would wait is waited for."""
    (tmp_path / "sitecustomize.py").write_text(
        "import multiprocessing, sys, time\nif 'spawn_main' in ' '.join(sys.orig_argv): time.sleep(9)\n"
    )
    replica = Replica(tmp_path, redis_url=redis_server.url, workers="2")
    replica.settings["PYTHONPATH"] = str(tmp_path)
    try:
        await asyncio.to_thread(replica.start)
        await eventually(lambda: replica.metric(LIVE) == 2, 20, what="all workers")
    finally:
        if replica.process:
            replica.terminate()
        replica.kill()

    assert replica.log.count("vectr0: started") == 2
    assert complaints(replica) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
async def test_worker_that_dies_is_replaced(number, redis_server, start_replica):
    """Whatever ends a worker, another takes its place, and the log says so."""
    replica = await start(start_replica, redis_server, 2)
    before = children_of(replica)
    os.kill(before[0], number)
    await eventually(lambda: len(set(children_of(replica)) | set(before)) == 3, what="another worker")
    await eventually(lambda: replica.metric(LIVE) == 2, what="both workers")

    assert before[1] in children_of(replica)
    assert f"worker {before[0]} has died" in replica.log


async def test_metrics_while_a_worker_starts(redis_server, start_replica, tmp_path, monkeypatch):
    """The file in which a worker is about to write its metrics is empty for a moment; the others' are told then, too."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    replica = await start(start_replica, redis_server, 2)
    [folder] = tmp_path.glob("vectr0-metrics-*")
    for name in ("counter_1.db", "gauge_livesum_1.db", "histogram_1.db"):
        (folder / name).touch()
    response = await asyncio.to_thread(httpx.get, f"{replica.url}/metrics")

    assert response.status_code == 200
    assert f"{LIVE} 2.0" in response.text
    assert complaints(replica) == []
