"""The other end of the wire: post a deployment to a hub, and read what it has."""

import json
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import httpx

from service.failures import HubUnavailableError, RefusedError, WrongUseError

LONGEST_PAUSE: Final = 10.0
LONGEST_RETRY_AFTER: Final = 60.0

MAY_PASS: Final = (408, 425, 429)
"""What is worth another try, beside the server's errors."""

Record = Mapping[str, Any]
Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Posted:
    """What became of a deployment: the record as the hub gave it, and whether it had it already."""

    record: Record
    is_repeat: bool


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


def bearer(token: str) -> Callable[[httpx.Request], httpx.Request]:
    """Give the authentication for requests, which comes before what httpx would make of a URL's ``user:token@``."""

    def authenticate(request: httpx.Request) -> httpx.Request:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    return authenticate


def post(url: str, fields: Record, token: str, key: str, *, timeout: float, retries: int, note: Note) -> Posted:
    """Record a deployment. The same key makes it safe to send it again, so that whatever may pass is tried again.

    Raises WrongUseError, RefusedError, and HubUnavailableError when the retries are used up.
    """
    hub, name = address(url), without_secrets(url)
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    with httpx.Client(timeout=timeout, auth=bearer(token)) as client:
        content = json.dumps(dict(fields))
        response = send(
            lambda: client.post(f"{hub}/deployments", content=content, headers=headers),
            name, retries=retries, note=note,
        )  # fmt: skip
    if response.status_code not in (httpx.codes.OK, httpx.codes.CREATED):
        raise RefusedError(f"{name} answers {reason(response)}")
    record = _json(response)
    if not isinstance(record, dict) or not isinstance(record.get("deployedAt"), int):
        raise HubUnavailableError(f"{name} is no hub: its answer is no deployment")
    return Posted(record, is_repeat=response.status_code == httpx.codes.OK)


def send(request: Callable[[], httpx.Response], name: str, *, retries: int, note: Note) -> httpx.Response:
    """Send a request until an answer says something about it. Raises HubUnavailableError after so many retries."""
    for attempt in range(retries + 1):
        pause = backoff(attempt)
        try:
            response = request()
        except httpx.RequestError as error:
            trouble = f"{name} can't be reached ({error or type(error).__name__})"
        else:
            if response.status_code not in MAY_PASS and not response.is_server_error:
                return response
            trouble = f"{name} answers {reason(response)}"
            pause = max(pause, _retry_after(response))
        if attempt < retries:
            note(f"{trouble}; trying again in {pause:.1f} s")
            time.sleep(pause)
    raise HubUnavailableError(trouble)


def backoff(attempt: int) -> float:
    """Give seconds to wait: half of them by chance, so that many clients don't come back together."""
    return min(LONGEST_PAUSE, 2.0**attempt) * random.uniform(0.5, 1)  # noqa: S311  # no secret


def deployments(url: str, parameters: Mapping[str, str], *, timeout: float) -> list[Record]:
    """Read the deployments of all channels, newest first. Raises RefusedError or HubUnavailableError."""
    hub, name = address(url), without_secrets(url)
    with httpx.Client(timeout=timeout, follow_redirects=True) as client:
        response = send(
            lambda: client.get(f"{hub}/deployments", params=dict(parameters)), name, retries=0, note=lambda _: None
        )
    if not response.is_success:
        raise RefusedError(f"{name} answers {reason(response)}")
    document = _json(response)
    if not isinstance(document, dict) or not isinstance(document.get("deployments"), list):
        raise HubUnavailableError(f"{name} is no hub: its answer is no list of deployments")
    found: list[Record] = document["deployments"]
    return found


def adoptions(url: str, channels: Iterable[str], *, timeout: float) -> dict[str, Record]:
    """Read who runs what on channels. What can't be had is left out: the list is as good without it."""
    hub = address(url)
    found: dict[str, Record] = {}
    with httpx.Client(timeout=timeout, follow_redirects=True) as client, suppress(httpx.TransportError):
        for channel in channels:
            response = client.get(f"{hub}/deployments/{channel}/adoption")
            with suppress(ValueError):
                document = response.json() if response.is_success else None
                if isinstance(document, dict) and isinstance(document.get("streams"), int):
                    found[channel] = document
    return found


def reason(response: httpx.Response) -> str:
    """Give the status, the detail of a problem document (RFC 9457), and each wrong field in a line of its own."""
    status = f"{response.status_code}: "
    if response.has_redirect_location:
        return f"{status}it has moved to {without_secrets(response.headers['Location'])}"
    try:
        problem = response.json()
        errors = [f"\n  {error['field']}: {error['message']}" for error in problem.get("errors", [])]
        return status + "".join([str(problem["title" if errors else "detail"]), *errors])
    except (ValueError, KeyError, TypeError, AttributeError):
        return status + (response.reason_phrase or "without a reason")


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        raise HubUnavailableError(f"{without_secrets(str(response.url))} is no hub: its answer isn't JSON") from None


def _retry_after(response: httpx.Response) -> float:
    value = response.headers.get("Retry-After", "")
    return min(float(value), LONGEST_RETRY_AFTER) if value.isascii() and value.isdigit() else 0.0
