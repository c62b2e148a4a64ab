"""The ways to a Redis: each documented scheme against a real server, and connections that die badly."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import orjson
import pytest

from service.address import Address
from service.connections import connect
from service.deployment import ChannelName, Submission
from service.store import Store, StoreUnavailableError
from service.subscription import Message, subscribe
from tests.certificates import Authority
from tests.parts import Listener, Proxy, RedisServer, Replica, deployment, eventually, post, url_of

pytestmark = pytest.mark.anyio

WEB = ChannelName("web/production")
URLS = {
    "redis://": "redis://127.0.0.1:{port}",
    "redis:// with a database": "redis://127.0.0.1:{port}/3",
    "redis:// with a name": "redis://localhost:{port}",
    "redis:// with a password": "redis://limited:p%40ss@127.0.0.1:{port}/3",
    "rediss://": "rediss://127.0.0.1:{tls_port}/?ssl_ca_certs={ca}",
    "rediss:// with a name": "rediss://localhost:{tls_port}/3?ssl_ca_certs={ca}",
    "rediss:// unverified": "rediss://127.0.0.1:{tls_port}/?ssl_cert_reqs=none",
    "rediss:// with a certificate": (
        "rediss://127.0.0.1:{tls_port}/?ssl_ca_certs={ca}&ssl_certfile={certificate}&ssl_keyfile={key}"
    ),
    "unix://": "unix://{socket}",
    "unix:// with a database and a password": "unix://limited:p%40ss@{socket}?db=3",
    "unix:// with a password behind it": "unix://{socket}?db=3&username=limited&password=p%40ss",
}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def redis_server(tmp_path: Path, authority: Authority) -> Iterator[RedisServer]:
    """A redis-server on TCP, TLS and a socket, with a user who has a password."""
    server = RedisServer(tmp_path, authority).start("--unixsocket", f"{tmp_path}/redis.sock")
    server.cli("ACL", "SETUSER", "limited", "on", ">p@ss", "~*", "+@all", "allchannels")
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def start_proxy() -> Iterator[Callable[..., Proxy]]:
    """Start proxies."""
    with ExitStack() as stack:

        def start(port: int, authority: Authority | None = None) -> Proxy:
            proxy = Proxy(port, authority).start()
            stack.callback(proxy.stop)
            return proxy

        yield start


@pytest.fixture
async def open_store() -> AsyncIterator[Callable[[str], Store]]:
    """Open stores that are closed at the end."""
    stores: list[Store] = []

    def open_store(url: str) -> Store:
        stores.append(Store(connect(url), "vectr0"))
        return stores[-1]

    yield open_store
    for store in stores:
        await store.aclose()


def url_to(redis_server: RedisServer, name: str) -> str:
    assert redis_server.authority
    return URLS[name].format(
        port=redis_server.port,
        tls_port=redis_server.tls_port,
        ca=redis_server.authority.certificate,
        certificate=redis_server.authority.server_certificate,
        key=redis_server.authority.server_key,
        socket=f"{redis_server.folder}/redis.sock",
    )


def submission(**fields: Any) -> Submission:
    return Submission.from_json(orjson.dumps(deployment(**fields)))


@pytest.mark.parametrize("name", URLS)
async def test_each_scheme_works(redis_server, start_replica, name):
    """A hub starts on each kind of URL that is documented, records, and brings what it records to its streams."""
    url = url_to(redis_server, name)
    replica: Replica = start_replica(redis_url=url)
    await eventually(lambda: replica.health()["relay"]["state"] == "live", what="a live relay")
    listener = await Listener.open(f"{replica.url}/events/web/production")
    recorded = await asyncio.to_thread(post, replica.url)
    await listener.has(1)
    await listener.close()

    assert recorded.status_code == 201
    assert listener.deployments == [recorded.json()]
    key = "vectr0:deployments:{web/production}"
    assert redis_server.cli("-n", str(Address.parse(url).database), "ZCARD", key) == "1"


@pytest.mark.parametrize("pair", [("/0", "/1"), ("/1", "/0"), ("/1", "/11"), ("/11", "/1")])
async def test_databases_hear_nothing_of_one_another(redis_server, open_store, pair):
    """A hub on one database isn't told of what is recorded on another, although pub/sub knows no databases."""
    here, there = (open_store(f"redis://127.0.0.1:{redis_server.port}{database}") for database in pair)
    async with subscribe(here) as subscription:
        await there.append(submission(version="there"))
        await there.forget(WEB)
        own = await here.append(submission(version="here"))
        first = await subscription.receive(5)

    assert first == Message(WEB, own.deployment)


async def test_certificate_of_nobody_we_know_is_refused(redis_server, open_store):
    """Without the authority's certificate the server's is no good, nor is it under another name."""
    unknown = open_store(f"rediss://127.0.0.1:{redis_server.tls_port}")
    misnamed = open_store(
        f"rediss://127.0.0.2:{redis_server.tls_port}?ssl_ca_certs={redis_server.authority.certificate}"
    )

    for store in (unknown, misnamed):
        with pytest.raises(StoreUnavailableError):
            await store.names()


@pytest.mark.parametrize("tls", [False, True])
async def test_connections_to_a_dead_redis_are_left(redis_server, start_proxy, open_store, tls):
    """On a line that has gone dark every operation fails in its own way, and when it leads on, works again."""
    proxy = start_proxy(redis_server.tls_port if tls else redis_server.port)
    store = open_store(url_of(proxy.port, redis_server.authority if tls else None))
    operations: list[Callable[[], Awaitable[object]]] = [
        lambda: store.append(submission(version="2")),
        lambda: store.histories([WEB]),
        store.names,
        lambda: store.forget(ChannelName("web/staging")),
    ]
    async with asyncio.timeout(30):
        await store.append(submission())
        async with subscribe(store) as subscription:
            assert proxy.darken() > 1
            for operation in operations:
                with pytest.raises(StoreUnavailableError):
                    await operation()
            with pytest.raises(StoreUnavailableError):
                async with subscribe(store):
                    pass
            assert await subscription.receive(0.1) is None
        proxy.dark = False
        async with subscribe(store) as subscription:
            appended = await store.append(submission(version="3"))

            assert await subscription.receive(5) == Message(WEB, appended.deployment)


@pytest.mark.parametrize("tls", [False, True])
async def test_demoted_redis_is_left_although_its_line_is_dead(redis_server, start_proxy, open_store, tls):
    """Closing the connections to a Redis that has become a replica raises nothing, also where nothing answers there."""
    proxy = start_proxy(redis_server.tls_port if tls else redis_server.port)
    store = open_store(url_of(proxy.port, redis_server.authority if tls else None))
    await asyncio.gather(*(store.names() for _ in range(8)))
    redis_server.cli("REPLICAOF", "127.0.0.1", "1")
    busy = [asyncio.create_task(store.append(submission())) for _ in range(8)]
    proxy.darken()
    outcomes = await asyncio.gather(*busy, store.histories([WEB]), return_exceptions=True)
    proxy.dark = False
    redis_server.cli("REPLICAOF", "NO", "ONE")

    assert {type(outcome) for outcome in outcomes} == {StoreUnavailableError}
    assert (await store.append(submission())).outcome == "recorded"


async def test_role_that_may_not_be_asked_is_no_replica(redis_server, open_store):
    """A user who may not ask for the ROLE reads all the same, and so does one of a Redis that has none."""
    redis_server.cli("ACL", "SETUSER", "limited", "-role")
    store = open_store(f"redis://limited:p%40ss@127.0.0.1:{redis_server.port}")
    appended = await store.append(submission())

    assert await store.histories([WEB]) == [[appended.deployment]]


@pytest.mark.parametrize(
    "answer",
    [b"*0\r\n", b"$-1\r\n", b":1\r\n", b"+OK\r\n", b"*1\r\n$-1\r\n", b"-ERR no\r\n", b"*2\r\n:1\r\n*-1\r\n", b"?\r\n", b"*-7\r\n",
     b"*1\r\n" * 5000, b":99999999999999999999999999\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff\xfe\r\n", b""],
)  # fmt: skip
async def test_odd_answers(open_store, answer):
    """Whatever a server says that is no Redis, or isn't well, nothing but the store's own error leaves the store."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(answer * max(1, data.count(b"*")))
            if not answer:
                break
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    store = open_store(f"redis://127.0.0.1:{port}")
    operations: list[Callable[[], Awaitable[object]]] = [
        lambda: store.append(submission()),
        lambda: store.newest([WEB]),
        lambda: store.histories([WEB]),
        store.names,
        lambda: store.forget(WEB),
        lambda: _subscribed(store),
    ]
    async with server, asyncio.timeout(60):
        for operation in operations:
            with suppress(StoreUnavailableError):
                await operation()


async def _subscribed(store: Store) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(0.5), subscribe(store) as subscription:
            await subscription.receive(0.1)


async def test_dead_address_of_a_name_leaves_time_for_the_next(redis_server, open_store, monkeypatch):
    """Of a name with several addresses the one that answers is used, within the time of one connection."""
    loop = asyncio.get_running_loop()
    silent = socket.socket()
    silent.bind(("127.0.0.2", redis_server.port))  # it doesn't listen: refused
    answers = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, redis_server.port)) for host in ("127.0.0.2", "127.0.0.1")
    ]

    async def getaddrinfo(*_: object, **__: object) -> object:
        return answers

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    store = open_store(f"redis://redis.internal:{redis_server.port}")

    assert await store.names() == []
    silent.close()
