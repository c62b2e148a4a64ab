"""A hub's address, and the token for it: what they must be, and how an address is shown."""

import re
from urllib.parse import urlsplit, urlunsplit

import httpx

from service.failures import WrongUseError
from service.request import Authentication


def address(url: str | None) -> str:
    """Give the hub's URL without the slash at its end. Raises WrongUseError where it is none of HTTP."""
    if not url:
        raise WrongUseError("the hub's address is missing: give --url, or set VECTR0_URL")
    if not is_http(url):
        raise WrongUseError(f"--url is {without_secrets(url)!r}; it must be an address such as https://hub.example")
    return url.rstrip("/")


def is_http(url: str) -> bool:
    """Tell whether a URL is one of HTTP."""
    try:
        return urlsplit(url).scheme in ("http", "https") and bool(httpx.URL(url).host)
    except (ValueError, httpx.InvalidURL):
        return False


def without_secrets(url: str) -> str:
    """Give a URL as it may be shown: without ``user:token@``."""
    try:
        parts = urlsplit(url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    except ValueError:  # it is none
        return url.rpartition("@")[2]


def is_token(token: str) -> bool:
    """Tell whether a header may hold it (RFC 6750, section 2.1): an error over one that may not would show it."""
    return re.fullmatch(r"[A-Za-z0-9_.~+/=-]+", token) is not None


def bearer(token: str) -> Authentication:
    """Give the authentication for requests, which comes before what httpx would make of a URL's ``user:token@``."""

    def authenticate(request: httpx.Request) -> httpx.Request:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    return authenticate
