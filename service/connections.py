"""The connections to Redis: how they are made, and how they end."""

import asyncio
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from service.address import Address

SOCKET_TIMEOUT: Final = 1
"""Seconds for a connection to be made, for an answer to come, and for a connection of the pool to become free."""
MAX_ADDRESSES: Final = 4
"""Addresses of a name that are tried; they share SOCKET_TIMEOUT, so that a dead one leaves time for the next."""


@dataclass(frozen=True, slots=True)
class Connections:
    """The two ways to a Redis, or to the embedded one."""

    commands: Redis
    subscription: Redis
    database: int = 0


def connect(url: str | None) -> Connections:
    """Prepare connections to a Redis; None gives an embedded one.

    Nothing is sent yet. Raises InvalidAddressError for a URL that can't be used; see `service.address`.
    """
    if url is None:
        # Imported here: it takes half a second that a service on a real Redis needn't spend.
        from fakeredis import FakeAsyncRedis, FakeServer  # noqa: PLC0415

        server = FakeServer(server_type="redis")
        return Connections(FakeAsyncRedis(server=server), FakeAsyncRedis(server=server))
    address = Address.parse(url)
    tls = address.tls()
    return Connections(
        commands=_client(address, tls, Retry(ExponentialBackoff(cap=0.1, base=0.02), 2), connections=32),
        # The relay wants to see every error of its subscription: a silent reconnect may have lost a message.
        subscription=_client(address, tls, Retry(NoBackoff(), 0), connections=4),
        database=address.database,
    )


def _client(address: Address, tls: ssl.SSLContext | None, retry: Retry, connections: int) -> Redis:
    pool = BlockingConnectionPool(
        connection_class=Connection,
        address=address,
        tls=tls,
        retry=retry,
        max_connections=connections,
        timeout=SOCKET_TIMEOUT,
        socket_timeout=SOCKET_TIMEOUT,
        socket_connect_timeout=SOCKET_TIMEOUT,
        health_check_interval=0,
        db=address.database,
        username=address.username,
        password=address.password,
        # What every Redis speaks, and every command's user may: no HELLO, no CLIENT SETINFO, and no server that
        # sends us elsewhere.
        protocol=2,
        driver_info=None,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    return Redis.from_pool(pool)


class Connection(AbstractConnection):
    """A connection of redis-py that looks names up by `loop.getaddrinfo`, and ends at once.

    asyncio and uvloop look a name up by themselves, in a way that can't be given up (`service.loop`). And closing in
    order waits for the other side, which may be dead: over TLS that took a second, and then raised.
    """

    def __init__(self, *, address: Address, tls: ssl.SSLContext | None, **options: Any) -> None:
        super().__init__(**options)
        self._address = address
        self._tls = tls

    def repr_pieces(self) -> list[tuple[str, str | int]]:
        """Tell where it leads, in words without a secret."""
        return [("address", self._host_error()), ("db", self.db)]

    def _host_error(self) -> str:
        return self._address.path or f"{self._address.host}:{self._address.port}"

    async def _connect(self) -> None:
        async with asyncio.timeout(self.socket_connect_timeout):
            if self._address.scheme == "unix":
                self._reader, self._writer = await asyncio.open_unix_connection(self._address.path)
            else:
                self._reader, self._writer = await self._connect_to_host()

    async def _connect_to_host(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Try the addresses of the name, which is looked up anew for each connection: a failover may have moved it."""
        loop, host = asyncio.get_running_loop(), self._address.host
        found = await loop.getaddrinfo(host, self._address.port, type=socket.SOCK_STREAM)
        failure: OSError = ConnectionError("it has no address")
        addresses = [_numeric(answer[4]) for answer in found[:MAX_ADDRESSES]]
        for address in addresses:
            try:
                async with asyncio.timeout(SOCKET_TIMEOUT / len(addresses)):
                    return await self._open(address, self._address.port)
            except OSError as error:  # a TimeoutError, too
                failure = error
        raise failure

    async def _open(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._tls is None:
            reader, writer = await asyncio.open_connection(host, port)
        else:
            reader, writer = await asyncio.open_connection(
                host, port, ssl=self._tls, server_hostname=self._address.host, ssl_handshake_timeout=SOCKET_TIMEOUT
            )
        _keep_alive(writer.get_extra_info("socket"))
        return reader, writer

    async def disconnect(self, nowait: bool = False, *arguments: Any, **options: Any) -> None:  # noqa: ARG002, FBT001, FBT002  # as in redis-py
        """Close the connection at once: nothing that was asked on it is waited for."""
        if self._writer is not None:
            self._writer.transport.abort()
        await super().disconnect(True, *arguments, **options)


def _numeric(address: Any) -> str:
    """Write an address with the scope that a link-local one needs."""
    host, *_, scope = address if len(address) == 4 else (address[0], 0)  # noqa: PLR2004  # of an IPv6 address
    return f"{host}%{scope}" if scope else host


def _keep_alive(connection: socket.socket) -> None:
    """Let the kernel find out within a minute that the other side is gone; a subscription may be silent for days."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):  # Linux
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
