"""The way to other servers, as the machine's environment says it: through which proxy, and whose certificates are good.

httpx reads the same variables for every client, and can't be made with some values that other programs take.
"""

import os
import ssl
from collections.abc import Callable, Mapping
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final, Generic, TypeVar
from urllib.request import getproxies

import httpx

PROXY_RULE: Final = "it must be the address of an HTTP proxy, such as http://proxy.internal:3128"

T = TypeVar("T")


class EnvironmentVariableError(Exception):
    """A variable of the machine's environment can't be used; the message names it, its value and the rule."""


class Ways(Generic[T]):
    """The transports to other servers, each opened when it is first needed.

    What can't be used is an error of the request that needs it, and of nothing else.
    """

    def __init__(self, open_transport: Callable[..., T]) -> None:
        self._open = open_transport
        self._proxies = getproxies()
        self.transports: dict[tuple[str | None, bool], T] = {}

    def to(self, url: httpx.URL) -> T:
        """Return the transport for a URL. Raises EnvironmentVariableError."""
        proxy = None if is_direct(url, self._proxies.get("no", "")) else _proxy_for(url.scheme, self._proxies)
        is_secure = "https" in (url.scheme, proxy.scheme if proxy else "")
        way = (str(proxy) if proxy else None, is_secure)
        if way not in self.transports:
            # Without TLS there are no certificates to be read; this context trusts none.
            tls = (
                _trusted(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
                if is_secure
                else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            )
            self.transports[way] = self._open(verify=tls, proxy=httpx.Proxy(proxy) if proxy else None)
        return self.transports[way]


def is_direct(url: httpx.URL, no_proxy: str) -> bool:
    """Return whether NO_PROXY names a URL's host: by name, also of a domain above, by address, or by network."""
    port = url.port or {"http": 80, "https": 443}.get(url.scheme)
    return any(_names(entry, url.host, port) for entry in no_proxy.replace(",", " ").split())


def _names(entry: str, host: str, port: int | None) -> bool:
    if entry == "*":
        return True
    address = _address(host)
    try:
        if "]" not in entry and address is not None:
            return address in ip_network(entry, strict=False)  # False where one is of IPv4 and one of IPv6
    except ValueError:
        pass
    name, _, wanted = entry.rpartition(":") if entry.count(":") == 1 or "]:" in entry else (entry, "", "")
    if wanted and wanted != str(port):
        return False
    name = name.strip("[]").lower().removeprefix("*").removeprefix(".")
    return bool(name) and (host == name or (address is None and host.endswith(f".{name}")))


def _address(host: str) -> object:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _proxy_for(scheme: str, proxies: Mapping[str, str]) -> httpx.URL | None:
    kind = scheme if proxies.get(scheme) else "all"
    value = proxies.get(kind)
    if not value:
        return None
    try:
        url = httpx.URL(value if "://" in value else f"http://{value}")
    except (httpx.InvalidURL, ValueError):
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host or "%" in url.host:
        variable = f"{kind}_proxy" if f"{kind}_proxy" in os.environ else f"{kind}_proxy".upper()
        raise EnvironmentVariableError(f"{variable} is {_without_secrets(value)!r}; {PROXY_RULE}")
    return url


def _without_secrets(proxy: str) -> str:
    scheme, mark, rest = proxy.rpartition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


@cache
def _trusted(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Read the authorities' certificates, once: that takes longer than most requests. What fails is tried again.

    They are where OpenSSL's own variables say, and without these certifi's.
    """
    if file:
        try:
            return ssl.create_default_context(cafile=file)
        except OSError as error:  # ssl.SSLError is one
            why = "it has none" if isinstance(error, ssl.SSLError) else error.strerror
            rule = "it must be a file with certificates in the form of PEM"
            raise EnvironmentVariableError(f"SSL_CERT_FILE is {file!r} ({why}); {rule}") from None
    if folder:
        if not any(Path(one).is_dir() for one in folder.split(os.pathsep)):
            raise EnvironmentVariableError(f"SSL_CERT_DIR is {folder!r}; it must be a folder with certificates")
        return ssl.create_default_context(capath=folder)
    return httpx.create_ssl_context(trust_env=False)


class Outward(httpx.BaseTransport):
    """The ways of a client that waits."""

    def __init__(self) -> None:
        self._ways = Ways(httpx.HTTPTransport)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request on the way that its URL has. Raises EnvironmentVariableError."""
        return self._ways.to(request.url).handle_request(request)

    def close(self) -> None:
        """Close all connections."""
        for transport in self._ways.transports.values():
            transport.close()


class AsyncOutward(httpx.AsyncBaseTransport):
    """The ways of a client on an event loop."""

    def __init__(self) -> None:
        self._ways = Ways(httpx.AsyncHTTPTransport)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request on the way that its URL has. Raises EnvironmentVariableError."""
        return await self._ways.to(request.url).handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        for transport in self._ways.transports.values():
            await transport.aclose()
