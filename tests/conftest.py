"""Fixtures that start real parts and end them."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.parts import PINNED, Nginx, RedisServer, Replica


@pytest.fixture(scope="session", autouse=True)
def pinned_in_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Put the pinned programs before the system's, for the tests and for what their programs start."""
    folder = tmp_path_factory.mktemp("pinned")
    for name, path in PINNED.items():
        (folder / name).symlink_to(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder), prepend=os.pathsep)
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
