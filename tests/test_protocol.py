"""Connections as clients make them that nobody wants: stalled, slow, pipelined, broken off; on a real Redis."""

import asyncio
import os
import re
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from tests.parts import TOKEN, Listener, Replica, deployment, eventually

pytestmark = pytest.mark.anyio

LARGE = {"version": "🚀" * 128, "gitTag": "🏷" * 128}
"""Fields that make a frame of more than a kilobyte."""
POSTS = 300
"""So many of them are more than the buffers of both ends hold."""

COUNTING = """
import asyncio, gc
from service import api
from service.__main__ import main
async def livez(_):
    gc.collect()
    return api._json(b"%d" % len(asyncio.all_tasks()), 200, {})
api.livez = livez
main()
"""
"""A service whose /livez tells how many tasks it has."""

PLAIN_UVICORN = """
import os, uvicorn
from service import app, settings
values, _ = settings.read(os.environ, 1024)
uvicorn.run(app.create(values), port=values.listen.port, http="httptools")
"""
"""The application under uvicorn as it is."""


def descriptors(replica: Replica) -> int:
    return len(list(Path(f"/proc/{replica.pid}/fd").iterdir()))


def held(replica: Replica, connections: list[socket.socket] | None = None) -> int:
    """How many of these connections, or of all, the service still has a descriptor of."""
    ports = {connection.getsockname()[1] for connection in connections or ()}
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, *_, inode = line.split()[:10]
        port = int(remote.partition(":")[2], 16)  # 0 is that of who listens
        if int(local.partition(":")[2], 16) == replica.port and (port in ports or (connections is None and port)):
            inodes.add(f"socket:[{inode}]")
    links = []
    for link in Path(f"/proc/{replica.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it has been closed meanwhile
            links.append(str(link.readlink()))
    return sum(link in inodes for link in links)


def memory(replica: Replica) -> int:
    """Resident bytes."""
    status = Path(f"/proc/{replica.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def connect(replica: Replica, request: bytes, receive_buffer: int | None = None) -> socket.socket:
    """Send a request over a socket of its own, and read nothing."""
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.connect(("127.0.0.1", replica.port))
    connection.sendall(request)
    return connection


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


async def read_on(connection: socket.socket) -> Listener:
    """Record what a stream sends whose request went out with `connect`."""
    listener = Listener()
    reader, listener._writer = await asyncio.open_connection(sock=connection)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    listener.status = int(head.split()[1])
    listener._reading = asyncio.create_task(listener._read(reader))
    return listener


async def post_large(replica: Replica, channel: str, count: int = POSTS) -> None:
    """Post from four clients at once."""
    name, environment = channel.split("/")

    async def post_some(builds: range) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(base_url=replica.url, headers=headers, timeout=10) as client:
            for build in builds:
                fields = deployment(name, environment, buildNumber=build, **LARGE)
                response = await client.post("/deployments", json=fields)
                assert response.status_code == 201, response.text

    async with asyncio.TaskGroup() as tasks:
        for first in range(4):
            tasks.create_task(post_some(range(first, count, 4)))


def breaks(records: list[dict[str, Any]]) -> int:
    """How often a chain is broken: `previous` isn't what came before."""
    return sum(later["previous"] != earlier["deployedAt"] for earlier, later in pairwise(records))


async def test_client_that_never_reads(redis_server, start_replica):
    """A socket that takes no more is gone within 30 s, its descriptor too, and the others on the channel miss nothing."""
    replica = start_replica(redis_url=redis_server.url)
    reading = [await Listener.open(f"{replica.url}{path}") for path in ("/events/web/production", "/events")]
    stalled = [connect(replica, get(path), 4096) for path in ("/events/web/production", "/events") * 3]
    # Requests whose answers nobody reads stall as well.
    stalled.append(connect(replica, get("/openapi.json") * 100, 4096))
    await eventually(lambda: replica.health()["streams"] == 8, what="all streams")
    started_at = time.monotonic()
    await post_large(replica, "web/production")
    posted_at = time.monotonic()
    held_then = held(replica, stalled)
    await eventually(lambda: held(replica, stalled) == 0, timeout=30, what="the end of all that stalled")
    gone_at = time.monotonic()
    await post_large(replica, "web/staging", 1)
    await reading[1].has(POSTS + 1)
    await reading[0].has(POSTS)
    for listener in reading:
        await listener.close()
    for connection in stalled:
        connection.close()

    assert held_then == 7, "a client has some time to read on"
    assert gone_at - posted_at > 10
    assert gone_at - started_at < 30
    assert replica.metric('vectr0_streams_closed_total{reason="stalled"}') == 6
    for listener in reading:
        records = [record for record in listener.deployments if record["environment"] == "production"]
        assert len(records) == POSTS
        assert breaks(records) == 0
        assert not listener.cut_off


async def test_stalled_client_reads_on(redis_server, start_replica):
    """A client that takes a break gets level by memory: what is kept comes, and what isn't shows in `previous`."""
    replica = start_replica(redis_url=redis_server.url)
    connection = connect(replica, get("/events/web/production"), 4096)
    board = connect(replica, get("/events"), 4096)
    await eventually(lambda: replica.health()["streams"] == 2, what="both streams")
    await post_large(replica, "web/production")
    listeners = [await read_on(connection), await read_on(board)]
    async with httpx.AsyncClient(base_url=replica.url) as client:
        kept = (await client.get("/deployments/web/production")).json()["deployments"]
    await eventually(lambda: all(listener.deployments[-1:] == kept[:1] for listener in listeners), what="the newest")
    for listener in listeners:
        await listener.close()

    for listener in listeners:
        assert listener.deployments[-10:] == kept[::-1]
        assert listener.ids == sorted(set(listener.ids))
        assert breaks(listener.deployments) == 1, "it shows where it stalled"
        assert len(listener.deployments) < POSTS


async def test_slow_requests(redis_server, start_replica):
    """A header or a body that drips in a byte a second is cut off within 10 s, with 408.

    A connection on which nothing comes is closed without a word: browsers open some ahead of what they will ask.
    """
    replica = start_replica(redis_url=redis_server.url)
    post_head = (
        f"POST /deployments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Content-Type: application/json\r\nContent-Length: 500\r\n\r\n"
    ).encode()
    used = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"

    async def drip(at_once: bytes, slowly: bytes) -> tuple[bytes, float]:
        reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
        started_at = time.monotonic()
        writer.write(at_once)
        answer = asyncio.create_task(reader.read())
        for byte in slowly:
            writer.write(bytes([byte]))
            done, _ = await asyncio.wait([answer], timeout=1)
            if done:
                break
        received = await asyncio.wait_for(answer, 12)
        took = time.monotonic() - started_at
        writer.close()
        return received, took

    silence, *answers = await asyncio.gather(
        drip(b"", b""),
        drip(b"", get("/events/web/production")),
        drip(b"", b"GET /livez HTTP/1.1\r\nX: " + b"x" * 100),
        drip(post_head, b'{"appName":"web","version":"1.0.0"'),
        drip(post_head, b""),
        drip(used, b"GET /livez HTTP/1.1\r\n"),
    )

    assert silence[0] == b""
    assert silence[1] < 10
    for answer, took in answers:
        assert answer.count(b"HTTP/1.1 408 Request Timeout\r\n") == 1, answer
        assert took < 10
    await eventually(lambda: held(replica) == 0, what="closed descriptors")
    assert redis_server.cli("KEYS", "vectr0:deployments:*") == ""


async def test_a_line_break_behind_an_answer(start_replica):
    """It begins no request: the connection stays idle for as long as others do, and is closed without a word."""
    replica = start_replica(keep_alive="9")
    reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
    started_at = time.monotonic()
    writer.write(get("/livez"))
    await reader.readuntil(b"}")
    writer.write(b"\r\n")
    behind = await asyncio.wait_for(reader.read(), 20)
    took = time.monotonic() - started_at
    writer.close()

    assert behind == b""
    assert took >= 9


@pytest.mark.parametrize(
    "behind",
    [get("/livez"), get("/livez") * 50, get("/events/web/other"), b"\0\xff garbage \r\n\r\n", b"GET /li"],
    ids=["request", "requests", "stream", "garbage", "half"],
)
@pytest.mark.parametrize("at_once", [True, False], ids=["at-once", "later"])
async def test_request_behind_a_stream(behind, at_once, redis_server, start_replica):
    """What a client sends behind its request for a stream is passed over: nothing gets into the stream, and it lives on."""
    replica = start_replica(redis_url=redis_server.url)
    request = get("/events/web/production")
    connection = connect(replica, request + behind if at_once else request)
    listener = await read_on(connection)
    await eventually(lambda: listener.events, what="the ping")
    assert listener._writer
    listener._writer.write(b"" if at_once else behind)
    await post_large(replica, "web/production", 3)
    await listener.has(3)
    assert breaks(listener.deployments) == 0
    assert not listener.cut_off
    assert replica.health()["streams"] == 1
    await listener.close()

    await eventually(lambda: replica.health()["streams"] == 0, what="no stream")
    assert "ERROR" not in replica.log


async def test_connection_is_used_again(redis_server, start_replica):
    """Requests that end share a connection, one after the other or pipelined; a stream may be the last on it."""
    replica = start_replica(redis_url=redis_server.url)
    reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
    pipelined = get("/livez") + get("/deployments/web/production") + get("/nothing") + get("/livez")
    statuses = []
    for requests in (get("/livez"), get("/deployments"), pipelined):
        writer.write(requests)
        for _ in range(requests.count(b"GET ")):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            length = re.search(rb"content-length: (\d+)", head)
            assert length
            await reader.readexactly(int(length[1]))
            statuses.append(int(head.split()[1]))
    writer.write(get("/livez") + get("/events/web/production") + get("/livez"))
    answers = b""
    while b"event: ping" not in answers:
        answers += await asyncio.wait_for(reader.read(65536), 5)
    writer.close()

    assert statuses == [200, 200, 200, 200, 404, 200]
    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert answers.count(b"HTTP/1.1") == 2


class ScriptReplica(Replica):
    """A service that a script runs."""

    def __init__(self, folder: Path, script: str, **values: str) -> None:
        super().__init__(folder, **values)
        self.program = folder / "service.sh"
        self.program.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{script}'\n")
        self.program.chmod(0o755)

    def start(self, *, wait: bool = True) -> Self:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "executable", str(self.program))
            return super().start(wait=wait)


async def come_and_go(replica: Replica, kind: int) -> None:
    """Connect, and be gone again, in one of many ways."""
    reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
    channel = f"/events/web/{kind % 50}"
    head = f"POST /deployments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 100\r\n\r\n"
    match kind % 12:
        case 0:  # nothing said
            pass
        case 1:  # half a head
            writer.write(get(channel)[:20])
        case 2:
            writer.write(get(channel).replace(b"GET", b"HEAD"))
            await reader.readuntil(b"\r\n\r\n")
        case 3:
            writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 this is TLS\r\n\r\n")
            await reader.read()
        case 4:  # refused
            writer.write(head.encode() + b"x" * 100)
            await reader.readuntil(b"\r\n\r\n")
        case 5:  # gone in the middle of a body
            writer.write(head.replace("\r\n\r\n", "\r\nContent-Type: application/json\r\n\r\n").encode() + b"x" * 50)
            await writer.drain()
        case 6:  # gone before the answer
            writer.write(get(channel))
        case 7:  # reset before the answer
            writer.write(get(channel))
            reset(writer)
        case 8:  # reset while it is open
            writer.write(get(channel))
            await reader.readuntil(b"\n\n")
            reset(writer)
        case 9:  # read a bit
            writer.write(get(channel))
            await reader.readuntil(b"event: ping")
        case 10:  # a board
            writer.write(get("/events"))
            await reader.readuntil(b"event: ")
        case 11:  # half closed: it says no more, which ends a stream as well
            writer.write(get(channel))
            writer.write_eof()
            await reader.read()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


def reset(writer: asyncio.StreamWriter) -> None:
    """Have the connection end with RST."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def test_two_thousand_come_and_go(redis_server, tmp_path):
    """Whatever way a connection ends, nothing of it stays: no task, no descriptor, no stream, no memory."""
    replica = ScriptReplica(tmp_path, COUNTING, redis_url=redis_server.url)
    try:
        replica.start()

        async def all_come_and_go(count: int) -> None:
            for first in range(0, count, 40):
                async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
                    for kind in range(first, first + 40):
                        tasks.create_task(come_and_go(replica, kind))

        def tasks() -> int:
            return int(httpx.get(f"{replica.url}/livez").text)

        def is_empty() -> bool:
            return replica.health()["streams"] == 0 and own_descriptors() <= descriptors_before

        def own_descriptors() -> int:
            # Connections to Redis are kept, as many as were ever needed at once.
            return descriptors(replica) - len(redis_server.cli("CLIENT", "LIST").splitlines())

        await eventually(lambda: replica.health()["relay"]["state"] == "live", what="the relay")
        descriptors_before = 1_000_000
        await all_come_and_go(400)
        await eventually(lambda: replica.health()["streams"] == 0, what="no streams")
        tasks_before, memory_before = tasks(), memory(replica)
        descriptors_before = own_descriptors()
        await all_come_and_go(2000)
        await eventually(is_empty, timeout=20, what="no streams, and no more descriptors than before")

        assert tasks() == tasks_before
        assert memory(replica) - memory_before < 4_000_000
        assert replica.metric("vectr0_streams") == 0
        closed = sum(
            replica.metric(f'vectr0_streams_closed_total{{reason="{reason}"}}')
            for reason in ("client", "stalled", "over-limit", "shutdown")
        )
        assert replica.metric("vectr0_streams_opened_total") == closed > 600
        assert "ERROR" not in replica.log
        assert "Traceback" not in replica.log
    finally:
        replica.kill()


def test_another_server(tmp_path):
    """Under a server that can't hand its connections over, a stream says how the service is to be run."""
    replica = ScriptReplica(tmp_path, PLAIN_UVICORN)
    try:
        replica.start()
        response = httpx.get(f"{replica.url}/events/web/production")

        assert response.status_code == 500
        assert "RuntimeError: streams need this service's own server: run it with `python -m service`" in replica.log
        assert replica.is_ready()
    finally:
        replica.kill()


async def test_request_at_the_very_end_of_its_deadline(start_replica):
    """A request that is whole when its time is over is answered, though the loop comes to read it later."""
    replica = start_replica()
    reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
    request = get("/livez")
    writer.write(request[:10])
    await writer.drain()
    await asyncio.sleep(0.5)  # it is read; nothing tells of that
    os.kill(replica.pid, signal.SIGSTOP)  # so that both come in one turn of its loop
    try:
        await asyncio.sleep(8)
        writer.write(request[10:])
        await writer.drain()
    finally:
        os.kill(replica.pid, signal.SIGCONT)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    writer.close()

    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_request_at_the_very_end_of_keep_alive(start_replica):
    """A request that is here when its connection has been idle for too long is answered, and not reset."""
    replica = start_replica(keep_alive="1")
    reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
    for _ in range(5):
        writer.write(get("/livez"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        await reader.readexactly(len(b'{"status":"alive"}'))
        os.kill(replica.pid, signal.SIGSTOP)  # so that both come in one turn of its loop
        try:
            await asyncio.sleep(1.1)
            writer.write(get("/livez"))
            await writer.drain()
        finally:
            os.kill(replica.pid, signal.SIGCONT)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        await reader.readexactly(len(b'{"status":"alive"}'))
    end = await asyncio.wait_for(reader.read(1), 10)
    writer.close()

    assert end == b"", "an idle connection is closed all the same"
