"""Where the service listens, on real addresses and files, and that its health check asks there."""

import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.parts import TOKEN, free_port, require, require_ipv6, wait_until

Start = Callable[..., subprocess.Popen[str]]


def environment(**settings: str) -> dict[str, str]:
    """The environment of a service: nothing of VECTR0's, no PORT, and these settings."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("VECTR0_") and name != "PORT"}
    return {**own, "VECTR0_TOKENS": TOKEN, **settings}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a service with these environment variables, and wait for its greeting."""
    with ExitStack() as stack:

        def started(**settings: str) -> subprocess.Popen[str]:
            log = stack.enter_context((tmp_path / "log").open("a"))
            process = subprocess.Popen(
                [sys.executable, "-m", "service"],
                env=environment(**settings), stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.kill)
            assert process.stdout
            stack.enter_context(process.stdout)
            wait_until(lambda: health(**settings).returncode == 0, timeout=20, what="the service")
            return process

        yield started


def health(**settings: str) -> subprocess.CompletedProcess[str]:
    """Run the image's health check in the environment of a service."""
    return subprocess.run(
        [sys.executable, "-m", "service.health"],
        env=environment(**settings),
        capture_output=True, text=True, timeout=10, check=False,
    )  # fmt: skip


def greeting(process: subprocess.Popen[str]) -> str:
    """What a service has printed by now."""
    assert process.stdout
    lines = [process.stdout.readline()]
    while not lines[-1].startswith("    --json"):
        lines.append(process.stdout.readline())
    return "".join(lines)


def ask(path: Path) -> int:
    """Ask a service for /livez over a socket's file."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        return client.get("http://hub/livez").status_code


@pytest.mark.parametrize("variable", ["VECTR0_LISTEN", "PORT"])
@pytest.mark.parametrize("hosts", [["127.0.0.1", "127.0.0.2"], ["[::1]"]], ids=str)
def test_all_addresses(variable, hosts, start):
    """A port alone, in VECTR0_LISTEN or as platforms set PORT, is that of all addresses, of IPv4 and of IPv6."""
    if "[::1]" in hosts:
        require_ipv6()
    port = free_port()
    settings = {variable: f":{port}" if variable == "VECTR0_LISTEN" else str(port)}
    process = start(**settings)

    assert f"VECTR0 listens on http://127.0.0.1:{port}\n" in greeting(process)
    for host in hosts:
        assert httpx.get(f"http://{host}:{port}/livez").status_code == 200
    process.terminate()
    assert process.wait(10) == 0


def test_a_port_that_is_taken_on_one_address():
    """All addresses are all: where a port is taken on one of them, of IPv6 alone, too, the service doesn't start."""
    require_ipv6()
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        port = other.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "service"], env=environment(PORT=str(port)),
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip

    assert (done.returncode, done.stderr) == (2, f"VECTR0_LISTEN, or PORT, is ':{port}': Address already in use\n")


@pytest.mark.parametrize(
    ("host", "others"),
    [("127.0.0.2", "127.0.0.1"), ("[::1]", "127.0.0.1"), ("localhost", "127.0.0.2")],
)
def test_one_address(host, others, start):
    """The health check asks at the one address that the service listens on, below a prefix, too."""
    if host == "[::1]":
        require_ipv6()
    listen = f"{host}:{free_port()}"
    start(VECTR0_LISTEN=listen, VECTR0_ROOT_PATH="/hub")
    elsewhere = health(VECTR0_LISTEN=listen.replace(host, others))

    assert health(VECTR0_LISTEN=listen, http_proxy="http://127.0.0.1:1").returncode == 0
    assert elsewhere.returncode == 1
    assert elsewhere.stderr.startswith(f"{others}:{listen.rpartition(':')[2]} doesn't answer: ")


def test_health_of_another_service(start):
    """Whatever else answers there isn't healthy, nor what hangs or says nothing sensible; nothing is printed but why."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        silent = health(PORT=str(port))

    assert (silent.returncode, silent.stderr) == (1, f":{port} doesn't answer: timed out\n")


def test_health_without_an_address():
    """A setting that is none is told as the service itself tells it."""
    done = health(VECTR0_LISTEN="nowhere")

    assert done.returncode == 1
    assert done.stderr.startswith("VECTR0_LISTEN is 'nowhere'; it must be HOST:PORT, ")


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_file(workers, end, tmp_path, start, redis_server):
    """On a socket's file every user of the machine is served, by any number of workers; at the end it is gone."""
    path = tmp_path / "hub.sock"
    process = start(VECTR0_LISTEN=f"unix:{path}", VECTR0_WORKERS=workers, VECTR0_REDIS_URL=redis_server.url)
    mode = path.stat().st_mode
    answers = [ask(path) for _ in range(20)]
    process.send_signal(end)

    assert stat.S_IMODE(mode) == 0o666
    assert answers == [200] * 20
    assert process.wait(10) == 0
    assert not path.exists()


def test_greeting_of_a_file(tmp_path, start):
    """The commands that are printed for a socket's file are ones that work as they are; none of them is for a browser."""
    path = tmp_path / "a hub.sock"
    printed = greeting(start(VECTR0_LISTEN=f"unix:{path}", VECTR0_ROOT_PATH="/hub"))
    command = re.findall(r"^  (curl .*\\\n.*)$", printed, re.MULTILINE)[0]
    done = subprocess.run(
        [require("bash"), "-c", f"{command} --silent --fail"], env=environment(VECTR0_TOKEN=TOKEN),
        capture_output=True, text=True, timeout=10, check=True,
    )  # fmt: skip

    assert printed.startswith(f"VECTR0 listens on unix:{path}\n")
    assert f"curl --unix-socket {shlex.quote(str(path))} -N http://localhost/hub/events/web/production\n" in printed
    assert '"deployedAt":' in done.stdout
    assert "/demo" not in printed


def test_a_file_that_was_left(tmp_path, start):
    """The file of a service that was killed is taken over."""
    path = tmp_path / "hub.sock"
    killed = start(VECTR0_LISTEN=f"unix:{path}")
    killed.kill()
    killed.wait()
    assert path.exists()
    start(VECTR0_LISTEN=f"unix:{path}")

    assert ask(path) == 200


def refusal(path: Path) -> str:
    """What a service says that can't listen there."""
    done = subprocess.run(
        [sys.executable, "-m", "service"], env=environment(VECTR0_LISTEN=f"unix:{path}"),
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr


def test_a_file_that_is_in_use(tmp_path, start):
    """A socket on which a process listens is left to it, as is a file that is none, and a folder that isn't there."""
    path, text = tmp_path / "hub.sock", tmp_path / "notes.txt"
    text.write_text("keep")
    start(VECTR0_LISTEN=f"unix:{path}")
    begin = "VECTR0_LISTEN, or PORT, is 'unix:"

    assert refusal(path) == f"{begin}{path}': another process listens there\n"
    assert refusal(text) == f"{begin}{text}': there is a file that is no socket\n"
    assert refusal(tmp_path / "no" / "x") == f"{begin}{tmp_path}/no/x': No such file or directory\n"
    assert ask(path) == 200
    assert text.read_text() == "keep"


def test_a_file_of_one_who_came_after(tmp_path, start):
    """At its end a service removes its own socket's file, and not another's at the same path."""
    path = tmp_path / "hub.sock"
    first = start(VECTR0_LISTEN=f"unix:{path}")
    path.unlink()
    start(VECTR0_LISTEN=f"unix:{path}")
    first.terminate()
    first.wait(10)

    assert ask(path) == 200


def test_a_file_behind_nginx(tmp_path, start, start_nginx):
    """A proxy on the same machine reaches it there, streams too."""
    path = tmp_path / "hub.sock"
    start(VECTR0_LISTEN=f"unix:{path}")
    nginx = start_nginx(f"unix:{path}")
    with httpx.stream("GET", f"{nginx.url}/events/web/production") as stream:
        first = next(stream.iter_text())

    assert stream.status_code == 200
    assert first.startswith("retry: ")
