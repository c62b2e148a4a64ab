"""Origins: which web pages may read the answers (CORS, Fetch standard, section 3.3)."""

import re
from collections.abc import Collection
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ANY: Final = "*"

_ASKED_METHOD: Final = "access-control-request-method"
_HEADER_NAME: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}"
_HEADER_NAMES: Final = re.compile(rf"{_HEADER_NAME}(?: ?, ?{_HEADER_NAME}){{0,99}}")
"""As many names as a request may have fields (RFC 9110, section 5.6.2)."""


class Origins:
    """The allowed origins; every page's where ``*`` is among them."""

    def __init__(self, allowed: Collection[str]) -> None:
        self._allowed = frozenset(allowed)
        self._any = ANY in self._allowed

    def allows(self, origin: str | None) -> bool:
        """Tell whether a page of this origin may listen; what isn't a page has none and may."""
        return origin is None or self._any or origin in self._allowed

    def headers(self, origin: str | None) -> dict[str, str]:
        """Give the headers of an answer to a page of this origin."""
        headers = {"Vary": "Origin"}
        if self._any:
            headers["Access-Control-Allow-Origin"] = ANY
        elif origin in self._allowed:
            headers["Access-Control-Allow-Origin"] = str(origin)
        if "Access-Control-Allow-Origin" in headers:
            headers["Access-Control-Expose-Headers"] = "ETag, Retry-After"
        return headers

    def raw_headers(self, origin: str | None) -> bytes:
        """Give them as header lines."""
        return b"".join(b"%b: %b\r\n" % (k.encode(), v.encode("latin-1")) for k, v in self.headers(origin).items())

    def preflight(self, request: Headers) -> Response:
        """Answer a browser that asks whether a page may send a request (Fetch standard, section 3.3.2).

        It may read, with whatever headers: tracing adds some (``traceparent``, ``sentry-trace``, ``baggage``), and no
        header makes reading anything else. For any other method nothing is allowed.
        """
        headers = self.headers(request.get("origin"))
        headers["Vary"] = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
        if request[_ASKED_METHOD] not in ("GET", "HEAD"):
            return Response(status_code=204, headers={"Vary": headers["Vary"]})
        if "Access-Control-Allow-Origin" in headers:
            headers |= {"Access-Control-Allow-Methods": "GET, HEAD", "Access-Control-Max-Age": "86400"}
            asked = request.get("access-control-request-headers", "")
            if _HEADER_NAMES.fullmatch(asked):
                headers["Access-Control-Allow-Headers"] = asked
        return Response(status_code=204, headers=headers)


def is_preflight(method: str, request: Headers) -> bool:
    """Return whether a request is a browser's question (Fetch standard, section 3.3.2); others have OPTIONS, too."""
    return method == "OPTIONS" and _ASKED_METHOD in request


class OriginMiddleware:
    """Adds the headers to every answer to a GET, and answers preflights."""

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        request = Headers(scope=scope)
        origin = request.get("origin")
        if is_preflight(scope["method"], request):
            await self._origins.preflight(request)(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                added = self._origins.headers(origin)
                headers.add_vary_header(added.pop("Vary"))
                headers.update(added)
            await send(message)

        await self._app(scope, receive, send_with_headers)
