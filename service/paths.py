"""Paths: which of them a route takes, and a prefix that a proxy has left on."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from starlette.responses import RedirectResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

_MANY: Final = re.compile("/{2,}")


class ExactRoute(Route):
    """A route that takes its path and no other: Starlette's ends with ``$``, which lets a line break pass (``%0a``).

    Additional slashes aren't passed over here, because proxies fence off what isn't for everybody by its exact path.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], *, methods: Sequence[str] | None = None) -> None:
        super().__init__(path, endpoint, methods=methods)
        self.path_regex = re.compile(self.path_regex.pattern.removesuffix("$") + r"\Z")


class ChannelRoute(ExactRoute):
    """A route of one named channel, which also takes additional slashes around its path.

    An address that ends with a slash brings them, and a browser's EventSource gives up for good on a 404 [spec].
    An empty name is still none: within the path no slash is passed over.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], *, methods: Sequence[str] | None = None) -> None:
        super().__init__(path, endpoint, methods=methods)
        self.path_regex = re.compile("^/*" + self.path_regex.pattern[1:].removesuffix(r"\Z") + r"/*\Z")


class StripRootPath:
    """Takes a path prefix off that a proxy has left on; one that the proxy took off isn't there.

    The prefix alone is sent on to the one with a slash, below which the page's own links are right.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path
        # The last slash before the prefix stays on the path, so that additional ones are still there to be seen.
        self._prefix = re.compile(f"(/*){re.escape(root_path)}(?=/)")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._root_path and scope["type"] == "http":
            path: str = scope["path"]
            if path == self._root_path:
                # Relative to the prefix, so that it is right behind any proxy, and never names a host.
                await RedirectResponse(f"{self._root_path.rpartition('/')[2]}/", 308)(scope, receive, send)
                return
            if match := self._prefix.match(path):
                scope["path"] = match[1] + path[match.end() :]
        await self._app(scope, receive, send)


def without_additional_slashes(path: str) -> str:
    """Return the path that was probably meant."""
    return _MANY.sub("/", path).rstrip("/") or "/"
