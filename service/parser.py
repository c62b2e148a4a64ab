"""The parser: httptools with limits, fed one request at a time, so that none is taken for a part of another."""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from httptools import HttpParserError, HttpParserInvalidURLError, HttpParserUpgrade, HttpRequestParser, parse_url

from service.problem import Problem

MAX_TARGET_SIZE: Final = 8 * 1024
MAX_HEAD_SIZE: Final = 32 * 1024
"""Bytes of a head; chunk extensions and trailers count, too."""
MAX_FIELDS: Final = 100
"""Fields of a head and its trailers."""

_BLANK: Final = b"\r\n\r\n"
"""What ends a head, and content in chunks: nothing else can, because httptools takes no other line breaks."""
_CHUNK_FRAMING: Final = 12
"""Bytes of a chunk that are no extension: its size in eight digits, and two line breaks."""


@dataclass(slots=True)
class Head:
    """What comes before a request's content."""

    method: bytes
    path: str
    query: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    keep_alive: bool
    expects_continue: bool

    def scope(self, state: MutableMapping[str, Any], extensions: Mapping[str, Any]) -> Any:
        """Return the request as ASGI has it. Nothing here asks for its two addresses, which would take two calls."""
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": self.version,
            "scheme": "http",
            "method": self.method.decode(),
            "path": unquote(self.path) if "%" in self.path else self.path,
            "raw_path": self.path.encode(),
            "query_string": self.query,
            "root_path": "",
            "headers": self.headers,
            "client": None,
            "server": None,
            "state": dict(state),
            "extensions": extensions,
        }


class Parser:
    """Reads one request from segments of any size; behind its end it reads nothing before `next`.

    httptools can't be stopped in the middle of a segment, so it's given no more than one request may hold: up to a
    blank line, or as much content as Content-Length says.
    """

    __slots__ = (
        "_fields", "_head_size", "_headers", "_http", "_is_offer", "_left", "_tail", "_target", "content", "head",
        "is_whole",
    )  # fmt: skip

    def __init__(self) -> None:
        self._http = HttpRequestParser(self)
        self.next()

    def next(self) -> None:
        """Be ready for the next request."""
        self.head: Head | None = None
        self.content = b""
        """What the last `feed` brought."""
        self.is_whole = False
        self._headers: list[tuple[bytes, bytes]] = []
        self._target = b""
        self._head_size = 0
        self._fields = 0
        self._left = 0
        self._is_offer = False
        self._tail = b""

    @property
    def has_begun(self) -> bool:
        """Tell whether a part of a request was read."""
        return self._head_size > 0

    def feed(self, data: bytes | bytearray, size: int) -> int:
        """Read on in the first ``size`` bytes, to the end of the request at most. Return where it stopped.

        Raises Problem; nothing can be read after that.
        """
        self.content = b""
        view = memoryview(data)
        start = 0
        while start < size and not self.is_whole:
            end = self._end_of_piece(data, start, size)
            self._parse(view[start:end])
            start = end
        return start

    def _end_of_piece(self, data: bytes | bytearray, start: int, size: int) -> int:
        """Return how far httptools may read without getting into another request."""
        if self._left:
            return min(size, start + self._left)
        if self._tail:
            seam = (self._tail + data[start : min(size, start + 3)]).find(_BLANK)
            if seam >= 0:
                return start + seam + len(_BLANK) - len(self._tail)
        found = data.find(_BLANK, start, size)
        return size if found < 0 else found + len(_BLANK)

    def _parse(self, piece: memoryview) -> None:
        is_content, content_before = self._left > 0, len(self.content)
        self._feed_http(piece)
        if is_content:
            self._left -= len(piece)
            if self._left == 0 and not self.is_whole:
                raise Problem(400, "the request's content does not end where its Content-Length says")
            return
        self._head_size += len(piece) - (len(self.content) - content_before)
        if self._head_size > MAX_HEAD_SIZE:
            raise Problem(431, f"the request's head is over {MAX_HEAD_SIZE} bytes")
        if not self.is_whole:
            self._tail = (self._tail + bytes(piece[-3:]))[-3:]

    def _feed_http(self, piece: memoryview) -> None:
        try:
            self._http.feed_data(piece)
        except HttpParserUpgrade as upgrade:
            if upgrade.args[0] != len(piece):
                raise Problem(400, "the request's head does not end with a blank line") from None
            self._pass_over_upgrade()
        except HttpParserError as error:
            if isinstance(error.__context__, Problem):
                raise error.__context__ from None
            raise Problem(400, f"this is not HTTP/1.1: {error}") from None

    def _pass_over_upgrade(self) -> None:
        """Read the head again without the offer: httptools skips the content behind one (Kludex/uvicorn#2722)."""
        version = self._http.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self._http.get_method(), self._target, version)]
        lines += [b"%b: %b" % header for header in self._headers if header[0] != b"upgrade"]
        self._headers, self._target, self._fields, self._is_offer = [], b"", 0, False
        self._http = HttpRequestParser(self)
        self._feed_http(memoryview(b"\r\n".join(lines) + _BLANK))

    def close(self) -> None:
        """Let go of httptools, which refers back to this."""
        del self._http

    # What httptools calls.

    def on_message_begin(self) -> None:
        """Refuse a second request in one piece: there is none, as long as httptools is as strict as it is."""
        if self.head is not None:
            raise Problem(400, "a request begins where another has not ended")

    def on_url(self, target: bytes) -> None:
        """Take a part of the target."""
        self._target += target
        if len(self._target) > MAX_TARGET_SIZE:
            raise Problem(414, f"the request's target is over {MAX_TARGET_SIZE} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head. Those of a trailer are dropped: none may pass for a header."""
        self._fields += 1
        if self._fields > MAX_FIELDS:
            raise Problem(431, f"the request has more than {MAX_FIELDS} header fields")
        if self.head is None:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Know the request, and how its content ends."""
        method = self._http.get_method()
        if method == b"CONNECT":
            raise Problem(400, "this is no proxy: it takes no CONNECT")
        self._is_offer = self._http.should_upgrade()
        if self._is_offer:
            return
        version = self._http.get_http_version()
        if version not in ("1.0", "1.1"):
            raise Problem(400, f"this service speaks HTTP/1.1, not HTTP/{version}")
        path, query = _split(self._target)
        expects_continue = self._read_fields(version)
        keep_alive = version == "1.1" and self._http.should_keep_alive()
        self.head = Head(method, path, query, version, self._headers, keep_alive, expects_continue)

    def _read_fields(self, version: str) -> bool:
        """Learn how the content ends, beyond what httptools checks. Return whether "100 Continue" is waited for."""
        hosts, expects_continue = 0, False
        for name, value in self._headers:
            if name == b"host":
                hosts += 1
            elif name == b"content-length":
                self._left = int(value)
            elif name == b"transfer-encoding" and (version == "1.0" or value.strip().lower() != b"chunked"):
                raise Problem(400, "Transfer-Encoding must be chunked, in HTTP/1.1")
            elif name == b"expect":
                expects_continue = version == "1.1" and value.strip().lower() == b"100-continue"
        if hosts > 1 or (hosts == 0 and version == "1.1"):  # RFC 9112, section 3.2
            raise Problem(400, f"a request has one Host field, not {hosts}")
        return expects_continue

    def on_body(self, content: bytes) -> None:
        """Take a part of the content."""
        self.content += content

    def on_chunk_header(self) -> None:
        """Don't count what a chunk needs."""
        self._head_size -= _CHUNK_FRAMING

    def on_message_complete(self) -> None:
        """Stop here."""
        self.is_whole = not self._is_offer


def _split(target: bytes) -> tuple[str, bytes]:
    """Return the target's path and query. It may be a whole URL (RFC 9112, section 3.2.2), or ``*`` of an OPTIONS."""
    if target == b"*":
        return "*", b""
    try:
        url = parse_url(target)
    except HttpParserInvalidURLError:
        raise Problem(400, "the request's target is no path") from None
    return (url.path or b"/").decode("ascii"), url.query or b""
