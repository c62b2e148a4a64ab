"""The edge on a real service: nothing is smuggled, nothing is unbounded, and no answer is lost."""

import asyncio
import json
import os
import pwd
import re
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from tests.parts import TOKEN, Listener, Replica, deployment, eventually, free_port, post, require, wait_until

pytestmark = pytest.mark.anyio

BEARER = f"Authorization: Bearer {TOKEN}\r\n".encode()
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
SMUGGLED = b"DELETE /deployments/web/production HTTP/1.1\r\nHost: x\r\n" + BEARER + b"\r\n"
OFFERS = {
    "websocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    "any": b"Upgrade: a, b/2\r\nConnection: keep-alive, upgrade\r\n",
}


def memory(replica: Replica) -> int:
    """The most bytes that were ever resident."""
    status = Path(f"/proc/{replica.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def connect(replica: Any, data: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", replica.port), timeout=20)
    connection.sendall(data)
    return connection


def answers(connection: socket.socket, *methods: str) -> list[tuple[int, bytes]]:
    """Read the answers to requests with these methods: status and body of each; then nothing may be left."""
    received, found = connection.makefile("rb"), []
    for method in methods or ("GET",):
        status, length = int(received.readline().split()[1]), 0
        while line := received.readline().strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        found.append((status, b"" if method == "HEAD" else received.read(length)))
    return found


def send(connection: socket.socket, data: bytes, manner: str) -> None:
    """Send it in one segment, or each byte in its own, or the heads and the contents apart."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sizes = {"at-once": len(data), "byte-by-byte": 1, "halves": data.index(b"\r\n\r\n") + 4}
    for start in range(0, len(data), sizes[manner]):
        connection.sendall(data[start : start + sizes[manner]])
        if manner == "halves":
            wait_until(lambda: unsent(connection) == 0, what="an acknowledgement")


def unsent(connection: socket.socket) -> int:
    import fcntl
    import struct
    import termios

    return int(struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0\0\0\0"))[0])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """One service for the tests that leave it as it was."""
    replica = Replica(tmp_path_factory.mktemp("edge"))
    try:
        yield replica.start()
    finally:
        replica.kill()


def offer(method: str, path: str, content: bytes, offered: bytes) -> bytes:
    length = b"Content-Length: %d\r\nContent-Type: application/json\r\n" % len(content)
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n".encode() + BEARER + offered + length + b"\r\n" + content


@pytest.mark.parametrize("manner", ["at-once", "byte-by-byte", "halves"])
@pytest.mark.parametrize("offered", OFFERS.values(), ids=OFFERS)
def test_an_offered_upgrade_is_passed_over(offered, manner, shared):
    """Its request is answered with all of its content, in HTTP/1.1, and what is in the content is no request."""
    assert post(shared.url).status_code in (200, 201)
    record = json.dumps(deployment("offer", version=f"{manner} {len(offered)}")).encode()
    requests = [
        ("POST", "/deployments", record, 201),
        ("GET", "/deployments/web/production/latest", SMUGGLED, 200),
        ("HEAD", "/livez", SMUGGLED, 200),
        ("POST", "/deployments", SMUGGLED, 400),
        ("PUT", "/livez", SMUGGLED, 405),
        ("OPTIONS", "/livez", SMUGGLED, 204),
        ("DELETE", "/deployments/offer/production", SMUGGLED, 204),
        ("GET", "/deployments/web/production/latest", b"", 200),
    ]
    connection = connect(shared)
    send(connection, b"".join(offer(*request[:3], offered) for request in requests) + LIVEZ, manner)
    found = answers(connection, *(request[0] for request in requests), "GET")
    connection.close()

    assert [status for status, _ in found] == [*(request[3] for request in requests), 200]
    assert found[-1][1] == b'{"status":"alive"}'


@pytest.mark.parametrize("manner", ["at-once", "byte-by-byte", "halves"])
@pytest.mark.parametrize("path", ["/events/web/production", "/events"])
async def test_an_offered_upgrade_on_a_stream_is_passed_over(path, manner, shared):
    """The stream opens, what is in the request's content is no request, and the stream goes on."""
    assert post(shared.url).status_code in (200, 201)
    connection = connect(shared)
    await asyncio.to_thread(send, connection, LIVEZ + offer("GET", path, SMUGGLED * 3, OFFERS["h2c"]), manner)
    listener = Listener()
    reader, listener._writer = await asyncio.open_connection(sock=connection)
    assert b"alive" in await reader.readuntil(b"}")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
    listener._reading = asyncio.create_task(listener._read(reader))
    await listener.has(1)
    posted = await asyncio.to_thread(post, shared.url, deployment(version=f"{path} {manner}"))
    await listener.has(2)
    await listener.close()

    assert posted.status_code == 201, "the channel is still there: it would be rolled back to nothing else"
    assert listener.deployments[-1] == posted.json()


NGINX = """
user {user}; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 64; }}
http {{
    access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    upstream hub {{ server 127.0.0.1:{hub}; keepalive 1; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://hub;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
        }}
    }}
}}
"""

GO = """
package main

import (
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
)

func main() {
	hub, _ := url.Parse(os.Args[2])
	proxy := httputil.NewSingleHostReverseProxy(hub)
	proxy.Transport = &http.Transport{MaxConnsPerHost: 1}
	panic(http.ListenAndServe(os.Args[1], proxy))
}
"""


class Server:
    """A proxy before the service, with one connection to it that all clients share."""

    def __init__(self, name: str, folder: Path, replica: Replica) -> None:
        self.port = free_port()
        if name == "nginx":
            program = require("nginx")
            configuration, user = folder / "nginx.conf", pwd.getpwuid(os.getuid()).pw_name
            configuration.write_text(NGINX.format(user=user, folder=folder, hub=replica.port, port=self.port))
            command = [program, "-p", str(folder), "-c", str(configuration)]
        else:
            go = shutil.which("go") or pytest.skip("go is not installed")
            (folder / "proxy.go").write_text(GO)
            subprocess.run([go, "build", "-o", "proxy", "proxy.go"], cwd=folder, check=True)
            command = [str(folder / "proxy"), f"127.0.0.1:{self.port}", replica.url]
        self.process = subprocess.Popen(command)
        wait_until(self._answers, what=name)

    def _answers(self) -> bool:
        with suppress(OSError):
            connect(self).close()
            return True
        return False

    def kill(self) -> None:
        self.process.terminate()
        self.process.wait()


@pytest.fixture(scope="module", params=["nginx", "go"])
def proxy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shared: Replica
) -> Iterator[Server]:
    """A proxy before the service."""
    server = Server(request.param, tmp_path_factory.mktemp(request.param), shared)
    try:
        yield server
    finally:
        server.kill()


@pytest.mark.timeout(300)  # go may have all of net/http to compile
@pytest.mark.parametrize("size", [0, 12_000, 300_000])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_two_clients_of_a_proxy(method, size, proxy, shared):
    """What one hides in a request with an offer neither answers the other nor rides on its token."""
    record = post(shared.url).json()
    hidden = b"DELETE /deployments/web/production HTTP/1.1\r\nHost: x\r\nX: "
    attack = offer(method, "/deployments/web/production", b"\r\n" * (size // 2) + hidden, OFFERS["websocket"])
    attack = attack.replace(BEARER, b"")
    victim = b"GET /deployments/web/production/latest HTTP/1.1\r\nHost: x\r\n" + BEARER + b"\r\n"
    for _ in range(5):
        with connect(proxy, attack) as attacker:
            [(status, _)] = answers(attacker, method)
            with connect(proxy, victim) as honest:
                found = answers(honest)

        assert status in (405 if method == "POST" else 200, 502), "the answer to another request"
        assert [(status, json.loads(body)) for status, body in found] == [(200, record)]


def test_curl_that_offers_h2c(shared):
    """`curl --http2` posts, reads and listens."""
    curl = [require("curl"), "--silent", "--show-error", "--http2", "--max-time", "20"]
    code = ["--write-out", "\n%{http_code} %{http_version}"]
    record = ["-H", f"Authorization: Bearer {TOKEN}", "--json", json.dumps(deployment(version="curl"))]
    posted = subprocess.run(
        [*curl, *code, f"{shared.url}/deployments", *record], capture_output=True, text=True, check=False
    )
    read = subprocess.run(
        [*curl, *code, f"{shared.url}/deployments/web/production/latest"], capture_output=True, text=True, check=False
    )
    with subprocess.Popen([*curl, "-N", f"{shared.url}/events/web/production"], stdout=subprocess.PIPE) as listening:
        assert listening.stdout
        lines = [listening.stdout.readline() for _ in range(5)]
        listening.kill()

    assert posted.stdout.endswith("\n201 1.1"), posted
    assert read.stdout.endswith("\n200 1.1"), read
    assert lines[3] == b"event: deployment\n"


JAVA = """
import java.net.URI;
import java.net.http.*;

public class Client {
    public static void main(String[] args) throws Exception {
        var client = HttpClient.newHttpClient();  // which offers h2c
        var post = HttpRequest.newBuilder(URI.create(args[0] + "/deployments"))
            .header("Authorization", "Bearer " + args[1]).header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString(args[2])).build();
        var get = HttpRequest.newBuilder(URI.create(args[0] + "/deployments/web/production/latest")).build();
        for (var request : new HttpRequest[] {post, get, post, get}) {
            var response = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(response.statusCode() + " " + response.version() + " " + response.body());
        }
        var stream = HttpRequest.newBuilder(URI.create(args[0] + "/events/web/production")).build();
        client.send(stream, HttpResponse.BodyHandlers.ofLines()).body().limit(5).forEach(System.out::println);
        System.exit(0);
    }
}
"""


def test_java_that_offers_h2c(tmp_path, shared):
    """The JDK's own client posts, reads and listens."""
    require("javac")
    (tmp_path / "Client.java").write_text(JAVA)
    command = [
        require("java"),
        str(tmp_path / "Client.java"),
        shared.url,
        TOKEN,
        json.dumps(deployment(version="java")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    lines = done.stdout.splitlines()

    assert [line[:12] for line in lines[:4]] == ["201 HTTP_1_1", "200 HTTP_1_1", "200 HTTP_1_1", "200 HTTP_1_1"], done
    assert lines[7] == "event: deployment"


def flood(connection: socket.socket, block: bytes, times: int) -> None:
    """Send on and on, as long as anybody takes it."""
    with suppress(ConnectionError):
        for _ in range(times):
            connection.sendall(block)


def to_the_end(connection: socket.socket) -> bytes:
    """Read all that comes until the connection ends, which must be no reset."""
    raw = b""
    while chunk := connection.recv(65536):
        raw += chunk
    connection.close()
    return raw


def problem(raw: bytes) -> int:
    """Take the last answer apart: it must be a problem document, and say that the connection closes."""
    head, _, body = raw[raw.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
    assert b"\r\ncontent-type: application/problem+json" in head, raw
    assert b"\r\nconnection: close" in head, raw
    assert b"\r\ndate: " in head, raw
    status = int(json.loads(body)["status"])
    assert head.startswith(b"HTTP/1.1 %d " % status), raw
    return status


CHUNKED = b"POST /deployments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
FIELDS = b"".join(b"A%d: b\r\n" % number for number in range(8000))


@pytest.mark.parametrize(
    ("start", "block", "status"),
    [
        (LIVEZ[:-2], FIELDS, 431),
        (LIVEZ[:-2] + b"A: ", b"x" * 65536, 431),
        (b"GET /", b"x" * 65536, 414),
        (CHUNKED + BEARER + b"\r\n1\r\n{\r\n0\r\n", FIELDS, 431),
        (CHUNKED + BEARER + b"\r\n1;", b"x" * 65536, 431),
        (CHUNKED + BEARER + b"\r\n", b"1000\r\n" + b" " * 4096 + b"\r\n", 413),
        (CHUNKED + b"\r\n", b"1000\r\n" + b" " * 4096 + b"\r\n", 401),
        (b"\r\n", b"\r\n" * 32768, 400),
        (b"\x16\x03\x01", b"x" * 65536, 400),
    ],
    ids=["fields", "field", "target", "trailers", "extension", "content", "nobodys-content", "line-breaks", "no-http"],
)
def test_a_flood_is_refused(start, block, status, shared):
    """One that sends without end is told so, however much it has sent by then, and nothing of it is kept."""
    with connect(shared, LIVEZ) as connection:
        answers(connection)
    before = memory(shared)
    connection = connect(shared, LIVEZ + LIVEZ + start)
    flood(connection, block, 16_000_000 // len(block))
    raw = to_the_end(connection)

    assert raw.count(b"HTTP/1.1 200 OK\r\n") == 2
    if status == 401:  # the answer of the application, which doesn't wait for content; more of that ends the connection
        assert b"HTTP/1.1 401 Unauthorized\r\n" in raw
    else:
        assert problem(raw) == status
    assert memory(shared) - before < 2_000_000
    assert shared.is_ready()


@pytest.mark.parametrize("expects", [b"", b"Expect: 100-continue\r\n"], ids=["sends", "asks"])
def test_a_body_that_is_announced_as_too_large(expects, shared):
    """It is refused before it's asked for, and the answer survives that it comes nevertheless."""
    head = b"POST /deployments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9000000\r\n"
    connection = connect(shared, head + BEARER + expects + b"\r\n")
    flood(connection, b" " * 65536, 137)

    assert problem(to_the_end(connection)) == 413


def test_a_body_that_is_asked_for(shared):
    """A client that waits for "100 Continue" gets it, and an answer; one that would be refused gets no such invitation."""
    record = json.dumps(deployment("expect")).encode()
    head = b"POST /deployments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
    head += b"Content-Length: %d\r\n" % len(record)
    connection = connect(shared, head + BEARER + b"\r\n")
    invited = connection.recv(1000)
    connection.sendall(record)
    found = answers(connection)
    connection.close()
    refused = connect(shared, head + b"\r\n")
    uninvited = answers(refused)

    assert invited == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert [status for status, _ in found] == [201]
    assert [status for status, _ in uninvited] == [401]
    assert refused.recv(1000) == b"", "whether its content comes now can't be known"
    refused.close()


def test_an_answer_that_does_not_wait_for_its_request(shared):
    """A small body is read nevertheless, and the connection goes on."""
    head = b"POST /deployments HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED)
    connection = connect(shared, head)
    first = answers(connection)
    connection.sendall(SMUGGLED + LIVEZ)
    second = answers(connection)
    connection.close()

    assert [status for status, _ in first + second] == [401, 200]


def test_one_who_says_all_and_listens(shared):
    """A client that closes its half behind the request, as `nc` does, is answered."""
    connection = connect(shared, LIVEZ)
    connection.shutdown(socket.SHUT_WR)

    assert [status for status, _ in answers(connection)] == [200]
    assert connection.recv(1) == b""
    connection.close()


def test_the_last_answer_is_no_victim_of_what_comes_behind(shared):
    """Behind a request that closes the connection a client may send what it wants: the answer isn't reset."""
    connection = connect(shared, LIVEZ.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    flood(connection, LIVEZ * 1000, 50)

    assert [status for status, _ in answers(connection)] == [200]
    assert connection.recv(1) == b""
    connection.close()


def test_many_queued_requests(shared):
    """Of any number of requests few are held, others are answered meanwhile, and all are in the end."""
    request = b"GET /browser/vectr0.js HTTP/1.1\r\nHost: x\r\n\r\n"
    connections = [connect(shared, LIVEZ) for _ in range(40)]
    for connection in connections:
        answers(connection)
        connection.setblocking(False)
    before = memory(shared)
    for connection in connections:
        left = memoryview(request * 14_000)
        with suppress(BlockingIOError):
            while left:
                left = left[connection.send(left) :]
    other = httpx.get(f"{shared.url}/livez", timeout=10)
    held = memory(shared) - before
    for connection in connections:
        connection.close()
    connection = connect(shared)
    connection.sendall(LIVEZ * 3000)
    statuses = [status for status, _ in answers(connection, *["GET"] * 3000)]
    connection.close()

    assert other.status_code == 200
    assert held < 16_000_000
    assert statuses == [200] * 3000


class ShortReplica(Replica):
    """A service that may open few files."""

    descriptors = 400

    def __init__(self, folder: Path, **values: str) -> None:
        super().__init__(folder, **values)
        self.program = folder / "service.sh"
        self.program.write_text(f'#!/bin/sh\nulimit -n {self.descriptors}\nexec {sys.executable} "$@"\n')
        self.program.chmod(0o755)

    def start(self, *, wait: bool = True) -> Self:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "executable", str(self.program))
            return super().start(wait=wait)


@pytest.fixture(scope="module")
def short_replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    replica = ShortReplica(tmp_path_factory.mktemp("short"))
    try:
        yield replica.start()
    finally:
        replica.kill()


def idle(replica: Replica) -> socket.socket:
    connection = connect(replica, LIVEZ)
    answers(connection)
    return connection


def unread(replica: Replica, last: bytes = b"") -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048 if last else 4096)
    connection.connect(("127.0.0.1", replica.port))
    request = b"GET /browser/vectr0.tgz HTTP/1.1\r\nHost: x\r\n"
    connection.sendall((request + b"\r\n") * (2 if last else 15) + (request + last if last else b""))
    return connection


WAITING: dict[str, Callable[[Replica], socket.socket]] = {
    "idle": idle,
    "silent": connect,
    "half-a-head": lambda replica: connect(replica, LIVEZ[:-2]),
    "half-a-body": lambda replica: connect(
        replica, CHUNKED.replace(b"Transfer-Encoding: chunked", b"Content-Length: 9") + BEARER + b"\r\n"
    ),
    "unread": unread,
    "unread-and-closing": lambda replica: unread(replica, b"Connection: close\r\n\r\n"),
    "unread-and-half-a-body": lambda replica: unread(replica, b"Content-Length: 1\r\n\r\n"),
    "answered-for-minutes": lambda replica: connect(replica, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 400),
}


EXPIRING = {"unread-and-closing": 2, "unread-and-half-a-body": 9}
"""Seconds after which the deadline of these has passed, while they are still open."""


@pytest.mark.parametrize("kind", WAITING)
async def test_connections_that_only_wait_make_room(kind, short_replica):
    """However many there are, streams, postings and probes get in; streams stay, and the longest wait ends first."""
    listener = await Listener.open(f"{short_replica.url}/events/web/production")
    with ExitStack() as stack:
        waiting = [stack.enter_context(WAITING[kind](short_replica)) for _ in range(450)]
        await asyncio.sleep(EXPIRING.get(kind, 0))
        opened = [await Listener.open(f"{short_replica.url}/events/web/production") for _ in range(100)]
        live = [await asyncio.to_thread(httpx.get, f"{short_replica.url}/livez") for _ in range(20)]
        posted = [
            await asyncio.to_thread(post, short_replica.url, deployment(version=kind, buildNumber=number))
            for number in range(20)
        ]
        if kind == "idle":
            waiting[-1].sendall(LIVEZ)
            latest = answers(waiting[-1])
            with suppress(ConnectionError):
                assert waiting[0].recv(1) == b""
    await eventually(lambda: listener.deployments[-1:] == [posted[-1].json()], what="the last deployment")
    for stream in [listener, *opened]:
        assert not stream.cut_off
        await stream.close()
    await eventually(lambda: short_replica.health()["streams"] == 0, what="the end of the streams")

    assert [answer.status_code for answer in live] == [200] * 20
    assert [answer.status_code for answer in posted] == [201] * 20
    if kind == "idle":
        assert [status for status, _ in latest] == [200]
    assert "the longest idle ones are closed" in short_replica.log
    assert "Traceback" not in short_replica.log


async def test_no_descriptor_is_left(short_replica):
    """A service that can accept nothing drops who comes, does nothing else for that, and accepts again when it can."""
    listener = await Listener.open(f"{short_replica.url}/events/web/production")
    used = len(list(Path(f"/proc/{short_replica.pid}/fd").iterdir()))
    limits = resource.prlimit(short_replica.pid, resource.RLIMIT_NOFILE, (used, ShortReplica.descriptors))
    with ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(connect(short_replica, LIVEZ))
        before = cpu_ticks(short_replica)
        await asyncio.sleep(2)  # the time itself is the subject: nothing may spin in it
        spent = cpu_ticks(short_replica) - before
    resource.prlimit(short_replica.pid, resource.RLIMIT_NOFILE, limits)
    await eventually(short_replica.is_ready, what="an answer")
    posted = await asyncio.to_thread(post, short_replica.url, deployment(version="again"))
    await eventually(lambda: listener.deployments[-1:] == [posted.json()], what="the deployment")
    await listener.close()

    assert spent < 100
    assert posted.status_code == 201


def cpu_ticks(replica: Replica) -> int:
    fields = Path(f"/proc/{replica.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_idle_peers_are_probed(shared):
    """The kernel asks a silent client after a minute whether it's still there: every accepted connection has the timer."""
    connection = connect(shared, LIVEZ)
    answers(connection)
    port = connection.getsockname()[1]
    # proc(5): the kind of the timer that runs (2 is the keep-alive's), and when it ends, in hundredths of a second.
    row = rf"^ *\d+: [0-9A-F]+:{shared.port:04X} [0-9A-F]+:{port:04X} \S+ \S+ (\d\d):([0-9A-F]+)"
    [(timer, left)] = re.findall(row, Path("/proc/net/tcp").read_text(), re.MULTILINE)
    connection.close()

    assert timer == "02"
    assert int(left, 16) <= 6_000
