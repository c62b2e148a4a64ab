"""Problems: every error becomes an answer here, as application/problem+json (RFC 9457)."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ExceptionHandler

from service.auth import InvalidTokenError, MissingTokenError, OutOfScopeError
from service.deployment import FieldError, InvalidFieldsError, NotJSONError
from service.issuer import IssuerUnavailableError
from service.paths import without_additional_slashes
from service.publishers import UntrustedError
from service.store import StoreUnavailableError

RETRY_AFTER: Final = "2"
"""Seconds after which a POST may be tried again: a Redis that restarts is back by then."""
SHOWN: Final = 200
"""Characters of a path that are repeated to the client."""

logger = logging.getLogger("vectr0.store")


class Problem(Exception):  # noqa: N818  # the RFC's word
    """An answer that isn't what was asked for."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        """Give the problem document (RFC 9457, section 3)."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            document["errors"] = [{"field": error.field, "message": error.message} for error in self.errors]
        return Response(
            orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE),  # for the log of a curl that tries again
            self.status,
            {"Cache-Control": "no-store", **self.headers, **(headers or {})},
            "application/problem+json",
        )


_MEANINGS: Final[Mapping[type[Exception], tuple[int, str, Mapping[str, str]]]] = {
    NotJSONError: (400, "", {}),
    InvalidFieldsError: (422, "this is no deployment: ", {}),
    MissingTokenError: (401, "", {"WWW-Authenticate": 'Bearer realm="vectr0"'}),
    InvalidTokenError: (401, "", {"WWW-Authenticate": 'Bearer realm="vectr0", error="invalid_token"'}),
    OutOfScopeError: (403, "", {}),
    UntrustedError: (403, "", {}),
    IssuerUnavailableError: (503, "", {}),
    StoreUnavailableError: (503, "Redis is unavailable: ", {"Retry-After": RETRY_AFTER}),
}
"""For each error its status, what comes before its message, and its headers."""


def problem_of(error: Exception, path: str = "") -> Problem:
    """Say what an exception means to a client that asked for this path."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        return _problem_of_starlette(error, path)
    if type(error) not in _MEANINGS:
        return Problem(500, "an error of the service itself; its log says more")
    status, prefix, headers = _MEANINGS[type(error)]
    errors = error.errors if isinstance(error, InvalidFieldsError) else ()
    # Whoever asks learns what kind of failure it is; where Redis is, and as whom it is asked, is for the log.
    detail = error.kind if isinstance(error, StoreUnavailableError) else str(error)
    if isinstance(error, IssuerUnavailableError):  # not before its keys can be fetched again
        headers = {"Retry-After": str(error.retry_after)}
    return Problem(status, f"{prefix}{detail}", errors=errors, headers=headers)


def _problem_of_starlette(error: HTTPException, path: str) -> Problem:
    meant = without_additional_slashes(path)
    hint = f" (without its additional slashes it is {meant[:SHOWN]})" if meant != path else ""
    details = {
        404: f"there is nothing at this path{hint}; see /openapi.json",
        405: "this path does not have this method",
    }
    return Problem(error.status_code, details.get(error.status_code, error.detail), headers=error.headers)


async def _answer(request: Request, error: Exception) -> Response:
    if isinstance(error, ClientDisconnect):
        return Response(status_code=408)  # nobody reads it
    if isinstance(error, StoreUnavailableError) and request.method not in ("GET", "HEAD"):
        # Only who may write comes here, so it is no flood; what reading meets the relay has logged.
        logger.warning("%s %s failed: %s", request.method, request.url.path, error)
    path = request.scope["path"]
    if request.method == "OPTIONS" and path == "*":  # the server as a whole (RFC 9110, section 9.3.7)
        return Response(status_code=204)
    problem = problem_of(error, path)
    if problem.status != HTTPStatus.METHOD_NOT_ALLOWED:
        return problem.response()
    allow = {"Allow": _allowed(request)}
    if request.method == "OPTIONS":  # a balancer's health check, such as HAProxy's own
        return Response(status_code=204, headers=allow)
    return problem.response(allow)


def _allowed(request: Request) -> str:
    """List the methods of a path (RFC 9110, section 10.2.1): Starlette names only those of its first route."""
    routes = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted({"OPTIONS", *(method for route in routes for method in route.methods)}))


EXCEPTION_HANDLERS: Final[Mapping[Any, ExceptionHandler]] = dict.fromkeys(
    (Problem, HTTPException, ClientDisconnect, Exception, *_MEANINGS), _answer
)
