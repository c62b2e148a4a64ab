"""Fixtures that start real parts and end them."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import pytest

from tests.parts import PINNED, Nginx, RedisServer, Replica


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give the tests, and all that they start, an environment of their own.

    Of the machine's it has only where programs and temporary files lie: proxies, locales, colors, certificates and the
    variables of a CI system or of a git hook would change what is tested. The home is empty, and can be written to.
    Nor do programs that the tests start inherit signals that are ignored, as in a script's background and under nohup.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # a handler isn't inherited
    folder = tmp_path_factory.mktemp("environment")
    for name, path in PINNED.items():
        (folder / name).symlink_to(path)
    kept = {name: os.environ[name] for name in ("CI", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    own = {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path_factory.mktemp("home")),
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    with mock.patch.dict(os.environ, kept | own, clear=True):
        yield


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests on asyncio."""
    return "asyncio"


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A redis-server that runs."""
    server = RedisServer(tmp_path).start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def start_replica(tmp_path: Path) -> Iterator[Callable[..., Replica]]:
    """Start replicas of the service; keyword arguments are settings, ``redis_url="…"`` for VECTR0_REDIS_URL."""
    with ExitStack() as stack:

        def start(**settings: str) -> Replica:
            replica = Replica(tmp_path, **settings)
            stack.callback(replica.kill)
            return replica.start()

        yield start


@pytest.fixture
def start_nginx(tmp_path: Path) -> Iterator[Callable[..., Nginx]]:
    """Start an nginx before replicas, or before addresses as nginx writes them."""
    with ExitStack() as stack:

        def start(*replicas: Replica | str, origins: str = "*", limits: Mapping[str, int] | None = None) -> Nginx:
            nginx = Nginx(tmp_path, list(replicas), origins, limits)
            stack.callback(nginx.kill)
            return nginx.start()

        yield start
