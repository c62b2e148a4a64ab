"""The parser: httptools with limits, fed one request at a time, so that none is taken for a part of another."""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from httptools import HttpParserError, HttpParserInvalidURLError, HttpParserUpgrade, HttpRequestParser, parse_url

from service.chunks import Chunks
from service.problem import Problem

MAX_TARGET_SIZE: Final = 8 * 1024
MAX_HEAD_SIZE: Final = 32 * 1024
"""Bytes of a head; chunk extensions and trailers count, too."""
MAX_FIELDS: Final = 100
"""Fields of a head and its trailers."""
MAX_LINE_BREAKS: Final = 4
"""Empty lines that are passed over in front of a request (RFC 9112, section 2.2): each takes a turn."""

_BLANK: Final = b"\r\n\r\n"
"""What ends a head: nothing else can, because httptools takes no other line breaks."""
_LINE_BREAK: Final = b"\r\n"
_TOO_LARGE: Final = f"the request's head is over {MAX_HEAD_SIZE} bytes"


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
    blank line, or as much content as Content-Length or the chunks say. No segment takes more than a few pieces.
    """

    __slots__ = (
        "_break_bytes", "_chunks", "_fields", "_head_size", "_headers", "_http", "_is_offer", "_left", "_line", "_tail",
        "_target", "content", "head", "is_whole",
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
        self._break_bytes = 0
        self._line = b""
        """The first line; what httptools makes of it doesn't tell one space from two, nor HTTP from RTSP."""
        self._head_size = 0
        self._fields = 0
        self._left = 0
        self._chunks: Chunks | None = None
        self._is_offer = False
        self._tail = b""

    @property
    def has_begun(self) -> bool:
        """Tell whether a part of a request was read; empty lines in front of it are none."""
        return self._head_size > 0

    def feed(self, data: bytes | bytearray, size: int) -> int:
        """Read on in the first ``size`` bytes, to the end of the request at most. Return where it stopped.

        Raises Problem; nothing can be read after that.
        """
        self.content = b""
        view = memoryview(data)
        start = 0
        if not self._head_size and size and (self._break_bytes or data[0] in _LINE_BREAK):
            start = self._pass_over_line_breaks(data, size)
        while start < size and not self.is_whole:
            if self.head is None:
                end = self._end_of_head(data, start, size)
                self._read_head(data, view, start, end)
            elif self._chunks is None:
                end = min(size, start + self._left)
                self._read_content(view[start:end])
            else:
                end = self._chunks.end(data, start, size)
                self._read_chunks(view[start:end], self._chunks)
            start = end
        return start

    def _pass_over_line_breaks(self, data: bytes | bytearray, size: int) -> int:
        """Return where a request begins."""
        start = 0
        while start < size and (self._break_bytes % 2 or data[start] in _LINE_BREAK):
            if data[start] != _LINE_BREAK[self._break_bytes % 2]:
                raise Problem(400, "what is in front of the request is no empty line")
            self._break_bytes += 1
            if self._break_bytes > MAX_LINE_BREAKS * len(_LINE_BREAK):
                raise Problem(400, f"more than {MAX_LINE_BREAKS} empty lines are in front of the request")
            start += 1
        return start

    def _end_of_head(self, data: bytes | bytearray, start: int, size: int) -> int:
        """Return how far httptools may read without getting behind the head."""
        if self._tail:
            seam = (self._tail + data[start : min(size, start + 3)]).find(_BLANK)
            if seam >= 0:
                return start + seam + len(_BLANK) - len(self._tail)
        found = data.find(_BLANK, start, size)
        return size if found < 0 else found + len(_BLANK)

    def _read_head(self, data: bytes | bytearray, view: memoryview, start: int, end: int) -> None:
        if not self._line.endswith(b"\n"):
            found = data.find(b"\n", start, end)
            self._line += data[start : end if found < 0 else found + 1]
        self._head_size += end - start
        self._feed_http(view[start:end])
        if self._head_size > MAX_HEAD_SIZE:
            raise Problem(431, _TOO_LARGE)
        if self.head is None:
            self._tail = (self._tail + data[max(start, end - 3) : end])[-3:]

    def _read_content(self, piece: memoryview) -> None:
        self._feed_http(piece)
        self._left -= len(piece)
        if self._left == 0 and not self.is_whole:
            raise Problem(400, "the request's content does not end where its Content-Length says")

    def _read_chunks(self, piece: memoryview, chunks: Chunks) -> None:
        self._feed_http(piece)
        if self.is_whole != chunks.is_over:
            raise Problem(400, "the request's content does not end where its chunks say")
        if self._head_size + chunks.size > MAX_HEAD_SIZE:
            raise Problem(431, _TOO_LARGE)

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
        if self._line.count(b" ") != 2 or b" HTTP/1." not in self._line:  # noqa: PLR2004  # what httptools passes over
            raise Problem(400, "the request's first line is not a method, a target and HTTP/1.1, with a space between")
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
            elif name == b"transfer-encoding":
                self._chunks = Chunks()
            elif name == b"expect":
                expects_continue = version == "1.1" and value.strip().lower() == b"100-continue"
        if hosts > 1 or (hosts == 0 and version == "1.1"):  # RFC 9112, section 3.2
            raise Problem(400, f"a request has one Host field, not {hosts}")
        return expects_continue

    def on_body(self, content: bytes) -> None:
        """Take a part of the content."""
        self.content += content

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
