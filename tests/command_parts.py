"""The parts that tests of the commands and of the action are made of: the command as a process, and web servers."""

import json
import os
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from unittest import mock

import httpx
from click.testing import CliRunner

from service.__main__ import main
from tests.parts import TOKEN, Replica

TOP = Path(__file__).parents[1]
COMMIT = "3f2c1ab9d8e7f6a5b4c3d2e1f0a9b8c7d6e5f4a3"
STAMP = {
    "appName": "web",
    "version": "1.4.0",
    "gitCommit": "3f2c1ab",
    "buildNumber": 128,
    "buildTime": 1_763_800_000_000,
    "environment": "staging",
    "gitTag": None,
}
"""What the Vite plugin writes into version.json."""


def stamped(folder: Path, path: str = "dist/version.json", **fields: object) -> Path:
    """Write a version.json as the Vite plugin does."""
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(STAMP | fields, indent=2) + "\n")
    return target


def environ(**variables: str) -> dict[str, str]:
    """An environment with these variables and none of a CI system that runs the tests."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH", "TMPDIR") if name in os.environ}
    return {"PYTHONPATH": str(TOP), **kept, **variables}


def hub(url: str, token: str = TOKEN, **variables: str) -> dict[str, str]:
    """An environment for a hub's clients."""
    return environ(VECTR0_URL=url, VECTR0_TOKEN=token, **variables)


def vectr0(*arguments: str, env: Mapping[str, str], cwd: Path, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    """Run the command until it ends."""
    done = subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        env=env, cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done


def in_process(*arguments: str, env: Mapping[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, where a process of its own would show nothing more."""
    with mock.patch.dict(os.environ, env, clear=True), chdir(cwd):
        result = CliRunner().invoke(main, arguments, prog_name="vectr0")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


@contextmanager
def running(*arguments: str, env: Mapping[str, str], cwd: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run the command in the background, its output in pipes."""
    with subprocess.Popen(
        [sys.executable, "-m", "service", *arguments],
        env=env, cwd=cwd, text=True, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def latest(service: Replica, channel: str = "web/staging") -> dict[str, Any]:
    """Ask the service for a channel's newest deployment."""
    record: dict[str, Any] = httpx.get(f"{service.url}/deployments/{channel}/latest").raise_for_status().json()
    return record


def history(service: Replica, channel: str = "web/staging") -> list[dict[str, Any]]:
    """Ask the service for a channel's deployments."""
    records: list[dict[str, Any]] = httpx.get(f"{service.url}/deployments/{channel}").json()["deployments"]
    return records


def forget(service: Replica) -> None:
    """Forget everything that a test before recorded."""
    for record in httpx.get(f"{service.url}/deployments", params={"limit": 1000}).json()["deployments"]:
        channel = f"{record['appName']}/{record['environment']}"
        httpx.delete(f"{service.url}/deployments/{channel}", headers={"Authorization": f"Bearer {TOKEN}"})


def processes_that_show(secret: str) -> list[str]:
    """Give the command lines of this machine that hold a secret."""
    shown = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if secret in line:
            shown.append(line)
    return shown


@dataclass(frozen=True)
class Request:
    """A request to a `WebServer`."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Answer:
    """An answer of a `WebServer`; status 0 closes the connection without one."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: object, status: int = 200, **headers: str) -> Self:
        return cls(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})


class WebServer:
    """A web server in a thread of its own, that answers as a function says and keeps all requests."""

    def __init__(self, answer: Callable[[Request], Answer]) -> None:
        self.requests: list[Request] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                request = Request(
                    self.command, self.path, {name.lower(): value for name, value in self.headers.items()},
                    self.rfile.read(int(self.headers.get("Content-Length", 0))),
                )  # fmt: skip
                outer.requests.append(request)
                given = answer(request)
                self.close_connection = True
                if given.status:
                    self.send_response(given.status)
                    for name, value in {**given.headers, "Content-Length": str(len(given.body))}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(given.body)

            do_POST = do_GET  # noqa: N815  # http.server's name

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def in_turn(*answers: Answer | Callable[[Request], Answer]) -> Callable[[Request], Answer]:
    """Give one answer after the other, and the last one ever after."""
    left = list(answers)

    def answer(request: Request) -> Answer:
        given = left.pop(0) if len(left) > 1 else left[0]
        return given if isinstance(given, Answer) else given(request)

    return answer


def passing(target: str) -> Callable[[Request], Answer]:
    """Pass requests on to a hub, as a proxy does."""

    def answer(request: Request) -> Answer:
        kept = {name: value for name, value in request.headers.items() if name not in ("host", "connection")}
        given = httpx.request(request.method, target + request.path, headers=kept, content=request.body)
        headers = {name: given.headers[name] for name in ("Content-Type", "Retry-After") if name in given.headers}
        return Answer(given.status_code, given.content, headers)

    return answer


class RawServer:
    """A server that does with each connection what a function does, once it has read the request's head."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stopped = threading.Event()
        self.connections = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while b"\r\n\r\n" not in connection.recv(65536):
                pass
            self._serve(connection)

    def drip(self, connection: socket.socket, start: bytes, byte: bytes) -> None:
        """Send so much, and then a byte now and then, until the client has gone or the test is over."""
        connection.sendall(start)
        while not self._stopped.wait(0.05):
            connection.sendall(byte)


OPEN_ENDED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"


@contextmanager
def dripping(start: bytes = OPEN_ENDED, byte: bytes = b"x") -> Iterator[RawServer]:
    """A server whose answers never end, and of which no read ever waits for long."""
    server = RawServer(lambda connection: server.drip(connection, start, byte))
    with server:
        yield server


def bomb(size: int = 64 * 2**20) -> bytes:
    """A gzip that unpacks to so many bytes: some kilobytes."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    pieces = [compressor.compress(bytes(2**20)) for _ in range(size // 2**20)]
    return b"".join(pieces) + compressor.flush()


HOSTILE = (
    "\x1b[31m\x9b2J\x07\r\n::error::owned\n  ::add-mask::a\n##[set-output name=a;]b ##vso[task.setvariable variable=a]b"
    "\u202egnp\u200b\ufeff\u2028\x00\x7f\ud800 ```\n</code><img src=x onerror=alert(1)> | `a` [a](http://b)"
)  # fmt: skip
"""What a terminal, a CI system's log or Markdown takes for more than text."""


def is_harmless(text: str) -> bool:
    """Tell whether what was printed is nothing but lines of text."""
    return all(line.isprintable() and not line.lstrip().startswith("::") for line in text.splitlines()) and not any(
        sign in text for sign in ("##[", "##vso[", "\r", "\v", "\f")
    )
