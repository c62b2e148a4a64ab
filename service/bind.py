"""The listening socket, on an address or as a file."""

import errno
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Final

from service.listen import Listen

BACKLOG: Final = 4096
SEND_BUFFER: Final = 64 * 1024
"""Bytes that the kernel keeps for a client that doesn't read (it counts twice that, with its own overhead)."""
DEAD_PEER_DEADLINE_MS: Final = 25_000
"""Milliseconds after which unacknowledged data means that the peer is gone (TCP_USER_TIMEOUT, RFC 5482)."""
IDLE_PROBE: Final = 60
"""Seconds of silence after which the kernel asks a peer whether it's still there (TCP_KEEPIDLE)."""
PERMISSIONS: Final = 0o666
"""Of a socket's file: every user of this machine may connect, as to a port. Its folder can keep some out."""

_NO_IPV6: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


class ListenError(Exception):
    """The address can't be had."""


@contextmanager
def bound(listen: Listen) -> Iterator[socket.socket]:
    """Listen; accepted sockets inherit the options. A socket's file is removed at the end. Raises ListenError."""
    try:
        listening = _bind_file(listen.path) if listen.path else _bind_address(listen)
    except OSError as error:
        raise ListenError(f"VECTR0_LISTEN, or PORT, is '{listen}': {error.strerror or error}") from None
    with listening, _removed_at_the_end(listen.path) if listen.path else nullcontext():
        listening.listen(BACKLOG)
        listening.set_inheritable(True)
        yield listening


def _bind_address(listen: Listen) -> socket.socket:
    if listen.host:
        return _bind(socket.AF_INET6 if ":" in listen.host else socket.AF_INET, listen.host, listen.port)
    try:
        return _bind(socket.AF_INET6, "::", listen.port)
    except OSError as error:
        if error.errno not in _NO_IPV6:  # such as a port that is taken there, which is not to be passed over
            raise
        return _bind(socket.AF_INET, "0.0.0.0", listen.port)


def _bind(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    listening = socket.socket(family)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        if host == "::":  # of IPv4, too, whatever the machine's default is
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_DEADLINE_MS)
        _probe_idle_peers(listening)
        listening.bind((host, port))
    except OSError:
        listening.close()
        raise
    return listening


def _probe_idle_peers(listening: socket.socket) -> None:
    """Have the kernel find out that an idle peer is gone: TCP_USER_TIMEOUT only sees data that isn't acknowledged."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", IDLE_PROBE), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):  # macOS has another name for the first
            listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _bind_file(path: str) -> socket.socket:
    _remove_stale(path)
    listening = socket.socket(socket.AF_UNIX)
    try:
        listening.bind(path)
        Path(path).chmod(PERMISSIONS)
    except OSError:
        listening.close()
        raise
    return listening


def _remove_stale(path: str) -> None:
    """Remove what a process left that was killed: a socket on which nobody listens, and nothing else."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            raise OSError("there is a file that is no socket")
        with socket.socket(socket.AF_UNIX) as asking:
            asking.setblocking(False)  # one whose backlog is full would have this wait
            try:
                asking.connect(path)
            except ConnectionRefusedError:
                Path(path).unlink()
                return
            except BlockingIOError:
                pass
        raise OSError("another process listens there")


@contextmanager
def _removed_at_the_end(path: str) -> Iterator[None]:
    """Remove a file, unless it is that of one who came after."""
    own = _identity(path)
    try:
        yield
    finally:
        if own == _identity(path):
            Path(path).unlink(missing_ok=True)


def _identity(path: str) -> tuple[int, ...] | None:
    """Return what tells a file from another at the same path: numbers of inodes are used again, so when it was made."""
    with suppress(OSError):
        status = Path(path).lstat()
        return status.st_dev, status.st_ino, status.st_mtime_ns
    return None
