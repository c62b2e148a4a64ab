"""What an outsider learns of a Redis that is away: the kind of failure, and nothing else."""

import socket
import ssl
from contextlib import closing

import pytest
import redis.exceptions

from service.connections import connect
from service.outage import kind_of
from service.store import Store, StoreUnavailableError
from tests.parts import RedisServer, free_port

pytestmark = pytest.mark.anyio


async def failure(url: str) -> StoreUnavailableError:
    """What a store on this address fails with."""
    store = Store(connect(url), "vectr0")
    try:
        with pytest.raises(StoreUnavailableError) as raised:
            await store.names()
    finally:
        await store.aclose()
    return raised.value


async def test_nothing_listens():
    """A port where nothing listens is named in the log's text alone."""
    port = free_port()
    error = await failure(f"redis://127.0.0.1:{port}/0")

    assert error.kind == "connection refused"
    assert str(port) in str(error)


async def test_silence():
    """A server that takes a connection and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        error = await failure(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")

    assert error.kind == "timed out"


async def test_what_redis_refuses(redis_server: RedisServer):
    """Users, keys and commands stay in the log; so does whose replica it is."""
    redis_server.cli("ACL", "SETUSER", "limited", "on", ">secret", "~other", "+@all")
    no_permission = await failure(redis_server.url.replace("redis://", "redis://limited:secret@"))
    wrong_password = await failure(redis_server.url.replace("redis://", "redis://limited:wrong@"))
    redis_server.cli("CONFIG", "SET", "requirepass", "another")
    no_password = await failure(redis_server.url)

    assert no_permission.kind == "permission denied"
    assert wrong_password.kind == no_password.kind == "authentication failed"
    for error in (no_permission, wrong_password, no_password):
        assert "limited" not in error.kind
        assert str(redis_server.port) not in error.kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (redis.exceptions.ReadOnlyError("You can't write against a read only replica of 10.0.0.7"), "it is read-only"),
        (redis.exceptions.BusyLoadingError("loading"), "it is loading its data"),
        (redis.exceptions.OutOfMemoryError("OOM"), "it is out of memory"),
        (redis.exceptions.MaxConnectionsError("32"), "too many connections"),
        (redis.exceptions.ResponseError("MISCONF /data"), "it refused a command"),
        (redis.exceptions.ConnectionError("Connection closed by 10.0.0.7"), "connection failed"),
        (socket.gaierror(-2, "redis.internal"), "its name was not resolved"),
        (ssl.SSLCertVerificationError("certificate is not valid for 'redis.internal'"), "TLS failed"),
        (FileNotFoundError(2, "/run/redis/redis.sock"), "no such socket"),
        (ConnectionResetError(104, "10.0.0.7"), "connection lost"),
        (ValueError("secret"), "unexpected answer"),
        (None, "unexpected answer"),
    ],
)
def test_kinds(error, kind):
    """Of what is raised only the kind is told; a text of its own never."""
    unavailable = StoreUnavailableError("something with redis.internal in it")
    unavailable.__cause__ = error

    assert kind_of(error) == unavailable.kind == kind


def test_what_the_system_says_is_found_in_what_the_library_wraps():
    """The kind is the innermost that is known: redis-py's own error says no more than that it is one."""
    wrapped = redis.exceptions.ConnectionError("Error 111 connecting to redis.internal:6379")
    wrapped.__context__ = ConnectionRefusedError(111, "redis.internal")

    assert kind_of(wrapped) == "connection refused"
