"""What is measured: each a server on one core, started anew for every run."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

HERE = Path(__file__).parent
SERVER_CORE, LOAD_CORE = 0, 1
NCHAN_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def pinned(core: int, command: Sequence[str], **options) -> subprocess.Popen:
    """Start a process that has one core to itself and its children."""
    options = {"stdout": subprocess.DEVNULL, **options}
    return subprocess.Popen(["taskset", "--cpu-list", str(core), *command], **options)


def compiled(name: str) -> Path:
    """Compile one of the C programs beside this file."""
    program = Path(tempfile.gettempdir()) / f"vectr0-bench-{os.getuid()}-{name}"
    source = HERE / f"{name}.c"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["cc", "-O2", "-o", program, source], check=True)
    return program


def payload(sequence: int) -> dict[str, object]:
    """Give a deployment whose record has about 300 bytes."""
    return {
        "appName": "web",
        "version": "1.4.0+build.128",
        "gitCommit": "3f2c1ab9d8e7f60514233241506f7e8d9c0b1a29",
        "buildNumber": sequence,
        "buildTime": 1_763_800_000_000,
        "environment": "production",
        "gitTag": "v1.4.0",
    }


def record(sequence: int) -> dict[str, object]:
    """Give the same as VECTR0 sends it: the others are to spread as many bytes."""
    return {
        **payload(sequence), "deployedAt": 1_763_800_123_456, "previous": 1_763_799_911_002, "rollback": False
    }  # fmt: skip


@dataclass
class Running:
    """A server that runs, and how to talk to it."""

    port: int
    process: subprocess.Popen
    stream_path: str
    publish_path: str
    redis_port: int
    headers: dict[str, str]
    body: Callable[[int], dict[str, object]] = record

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=self.headers, timeout=60)

    def publish(self, sequence: int) -> None:
        body = json.dumps(self.body(sequence), separators=(",", ":"))
        self.client.post(
            self.publish_path, content=body, headers={"Content-Type": "application/json"}
        ).raise_for_status()

    def pids(self) -> list[int]:
        """Give the server's processes, those included that it started."""
        found, unseen = [], [self.process.pid]
        while unseen:
            pid = unseen.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").iterdir():
                unseen += map(int, (task / "children").read_text().split())
        return found

    def cpu_seconds(self) -> float:
        """Sum up the time that the server's threads have spent on the core, user and system, by the scheduler's clock."""
        total = 0
        for pid in self.pids():
            for task in Path(f"/proc/{pid}/task").iterdir():
                with suppress(FileNotFoundError):
                    total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def loop_cpu_seconds(self) -> float:
        """Give the same of the event loop's thread alone."""
        return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/schedstat").read_text().split()[0]) / 1e9

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of the server's processes."""
        for pid in self.pids():
            os.kill(pid, number)

    def resident_kib(self) -> int:
        total = 0
        for pid in self.pids():
            status = Path(f"/proc/{pid}/status").read_text()
            total += int(status.split("VmRSS:")[1].split()[0])
        return total


@contextmanager
def redis_server() -> Iterator[int]:
    port = free_port()
    process = pinned(LOAD_CORE, ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""])
    try:
        _wait(port)
        yield port
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _running(process: subprocess.Popen, **how) -> Iterator[Running]:
    try:
        _wait(how["port"])
        running = Running(process=process, **how)
        try:
            yield running
        finally:
            running.signal(signal.SIGCONT)  # one that is stopped doesn't end
    finally:
        process.terminate()
        process.wait()


def _wait(port: int) -> None:
    for _ in range(200):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")


@contextmanager
def vectr0(redis_port: int, workers: int = 1, **settings: str) -> Iterator[Running]:
    """Run VECTR0 as its users do, with everything on."""
    port = free_port()
    environ = {
        **os.environ,
        "VECTR0_REDIS_URL": f"redis://127.0.0.1:{redis_port}",
        "VECTR0_TOKENS": "bench",
        "VECTR0_LISTEN": f"127.0.0.1:{port}",
        "VECTR0_WORKERS": str(workers),
        "VECTR0_PREFIX": f"vectr0-{workers}",  # each hears its own deployments alone
        **settings,
    }
    process = pinned(SERVER_CORE, [sys.executable, "-m", "service"], env=environ, stderr=subprocess.DEVNULL)
    how = {"stream_path": "/events/web/production?running=3f2c1ab~128", "publish_path": "/deployments", "body": payload}
    with _running(
        process, port=port, redis_port=redis_port, headers={"Authorization": "Bearer bench"}, **how
    ) as running:
        for _ in range(200):  # the socket listens before the workers do
            with suppress(httpx.TransportError):
                if running.client.get("/readyz").json()["relay"]["state"] == "live":
                    break
            time.sleep(0.05)
        time.sleep(1.5 * (workers > 1))
        yield running


@contextmanager
def textbook(redis_port: int) -> Iterator[Running]:
    """Run the yardstick."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "benchmarks.textbook:app", "--port", str(port), "--log-level", "error",
               "--no-access-log", "--backlog", "4096"]  # fmt: skip
    environ = {**os.environ, "TEXTBOOK_REDIS_URL": f"redis://127.0.0.1:{redis_port}"}
    process = pinned(SERVER_CORE, command, env=environ, stderr=subprocess.DEVNULL)
    with _running(
        process, port=port, redis_port=redis_port, stream_path="/events", publish_path="/publish", headers={}
    ) as running:
        yield running


@contextmanager
def nchan(redis_port: int) -> Iterator[Running]:
    """Run nginx with nchan on the same Redis, one worker."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "nginx.conf").write_text(f"""
            load_module {NCHAN_MODULE};
            daemon off; worker_processes 1; pid {folder}/pid; error_log stderr crit;
            events {{ worker_connections 19000; }}
            http {{
                access_log off;
                client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
                uwsgi_temp_path {folder}; scgi_temp_path {folder};
                upstream store {{ nchan_redis_server redis://127.0.0.1:{redis_port}; }}
                server {{
                    listen 127.0.0.1:{port} backlog=4096;
                    location = /events {{
                        nchan_subscriber eventsource; nchan_channel_id web; nchan_redis_pass store;
                        nchan_subscriber_first_message newest; nchan_eventsource_ping_interval 15;
                    }}
                    location = /publish {{
                        nchan_publisher; nchan_channel_id web; nchan_redis_pass store;
                        nchan_message_buffer_length 10; nchan_message_timeout 1d;
                    }}
                }}
            }}""")
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        process = pinned(SERVER_CORE, [nginx, "-p", folder, "-c", f"{folder}/nginx.conf"])
        with _running(
            process, port=port, redis_port=redis_port, stream_path="/events", publish_path="/publish", headers={}
        ) as running:
            _wait_for_redis(f"http://127.0.0.1:{port}/publish")
            yield running


def _wait_for_redis(publisher: str) -> None:
    """Wait until nchan has Redis: it listens first, and refuses all with 503 until then."""
    for _ in range(100):
        if httpx.get(publisher).status_code != httpx.codes.SERVICE_UNAVAILABLE:
            return
        time.sleep(0.1)
    raise TimeoutError("nchan has not connected to Redis within 10 seconds")


@contextmanager
def floor(redis_port: int) -> Iterator[Running]:
    """Run the loop of send()."""
    port = free_port()
    process = pinned(SERVER_CORE, [str(compiled("floor")), str(port)])
    with _running(process, port=port, redis_port=redis_port, stream_path="/", publish_path="/", headers={}) as running:
        yield running
