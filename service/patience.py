"""How long a command goes on asking: what may pass is tried again, until a deadline over all."""

import random
import time
from collections.abc import Callable
from typing import Final

import httpx

from service.failures import HubUnavailableError, RefusedError
from service.jsontext import read_json
from service.request import AnswerError
from service.url import without_secrets

LONGEST_PAUSE: Final = 10.0
LONGEST_RETRY_AFTER: Final = 60.0
MOST_DETAILS: Final = 20
"""Wrong fields that are told of."""

_MAY_PASS: Final = (408, 425, 429)

Note = Callable[[str], None]
"""Says how it goes."""


class Patience:
    """How long to go on: so many seconds for an attempt, so many retries, and a deadline over all from now on."""

    def __init__(self, *, attempt: float, retries: int, total: float) -> None:
        self.attempts = retries + 1
        self._attempt = attempt
        self._end = time.monotonic() + total

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self._end - time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds for the next attempt."""
        return max(0.01, min(self._attempt, self.left))


def persist(request: Callable[[float], httpx.Response], name: str, patience: Patience, *, note: Note) -> httpx.Response:
    """Send a request, which is given its seconds, until an answer says something about it.

    Raises HubUnavailableError when the patience is at its end.
    """
    for attempt in range(1, patience.attempts + 1):
        pause = backoff(attempt - 1)
        try:
            response = request(patience.seconds)
        except AnswerError as error:
            trouble = f"{name} can't be reached ({error})"
        else:
            if not may_pass(response):
                return response
            trouble = f"{name} answers {reasons(response)[0]}"
            pause = max(pause, _retry_after(response))
        if attempt == patience.attempts:
            break
        if pause >= patience.left:
            raise HubUnavailableError(f"{trouble}; there is no time to try again")
        note(f"{trouble}; trying again in {pause:.1f} s")
        time.sleep(pause)
    raise HubUnavailableError(trouble)


def backoff(attempt: int) -> float:
    """Give seconds to wait: half of them by chance, so that many clients don't come back together."""
    return min(LONGEST_PAUSE, 2.0 ** min(attempt, 10)) * random.uniform(0.5, 1)  # noqa: S311  # no secret


def may_pass(response: httpx.Response) -> bool:
    """Tell whether an answer is worth another try."""
    return response.is_server_error or response.status_code in _MAY_PASS


def refused(name: str, response: httpx.Response) -> RefusedError:
    """Give the failure that says in the hub's words why it refuses."""
    first, *details = reasons(response)
    return RefusedError(f"{name} answers {first}", *details)


def reasons(response: httpx.Response) -> list[str]:
    """Give the status with the detail of a problem document (RFC 9457), and then a line for each wrong field."""
    status = f"{response.status_code}: "
    if response.has_redirect_location:
        return [f"{status}it has moved to {without_secrets(response.headers['Location'])}"]
    try:
        problem = read_json(response.content)
        errors = [f"  {error['field']}: {error['message']}" for error in problem.get("errors", [])[:MOST_DETAILS]]
        return [status + str(problem["title" if errors else "detail"]), *errors]
    except (ValueError, KeyError, TypeError, AttributeError):
        return [status + (response.reason_phrase or "without a reason")]


def _retry_after(response: httpx.Response) -> float:
    value = response.headers.get("Retry-After", "")
    return min(float(value[:10]), LONGEST_RETRY_AFTER) if value.isascii() and value.isdigit() else 0.0
