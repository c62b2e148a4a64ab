"""`python -m service.health`: exits with 0 where the service of this environment lives. The image's health check.

It asks where VECTR0_LISTEN or PORT say that the service listens, and imports nothing that takes long.
"""

import os
import socket
import sys
from http.client import HTTPConnection, HTTPException
from typing import Final

from service.listen import Listen, chosen

TIMEOUT: Final = 2.0


class _FileConnection(HTTPConnection):
    """A connection to a socket's file."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        """Connect to the file."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self._path)


def check(listen: Listen) -> str | None:
    """Ask /livez; returns what is wrong, or None. A prefix isn't needed: what a proxy took off isn't there."""
    # http.client, because urllib would ask the proxy of an http_proxy variable.
    connection = (
        _FileConnection(listen.path)
        if listen.path
        else HTTPConnection(listen.reachable_host, listen.port, timeout=TIMEOUT)
    )
    try:
        connection.request("GET", "/livez")
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        return f"{listen} doesn't answer: {error or type(error).__name__}"
    finally:
        connection.close()
    return None if status == 200 else f"{listen} answers {status}"  # noqa: PLR2004  # OK


def main() -> None:
    """Check, and say what is wrong."""
    try:
        sys.exit(check(chosen(os.environ)))
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
