"""Requests as the commands send them: each ends in time, and takes no more than so much, whatever the server does."""

import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from queue import Empty, Queue
from threading import Thread
from typing import Final, TypeVar

import httpx

from service.failures import WrongUseError
from service.outward import EnvironmentVariableError, Outward

LARGEST_ANSWER: Final = 2**20
"""Bytes of an answer, after decompression."""
MOST_REDIRECTIONS: Final = 10

_PIECE: Final = 2**16
"""Bytes that are decompressed at a time."""
_NO_LONGER: Final = ("content-encoding", "content-length", "transfer-encoding")
"""Headers that don't hold for what was decompressed."""

Authentication = Callable[[httpx.Request], httpx.Request]
T = TypeVar("T")


class AnswerError(Exception):
    """There is no answer, or none that can be used; the message says why."""


def ask(
    method: str,
    url: httpx.URL | str,
    *,
    seconds: float,
    headers: Mapping[str, str] | None = None,
    content: str | None = None,
    auth: Authentication | None = None,
    redirections: int = 0,
) -> httpx.Response:
    """Return the whole answer, which has to be there within so many seconds, from the look-up of the name on.

    Raises AnswerError, and WrongUseError where the environment names a proxy or certificates that can't be used.
    Redirections are answers like others, unless so many are to be followed; ``auth`` holds for the
    first request alone, and what a URL's ``user:token@`` became doesn't go on to another origin.
    """
    with connection(seconds) as client:
        request = client.build_request(method, url, headers=dict(headers or {}), content=content)

        def whole() -> httpx.Response:
            response = send(client, request, auth=auth, redirections=redirections)
            response.read()
            return response

        return within(seconds, whole)


@contextmanager
def connection(seconds: float) -> Iterator[httpx.Client]:
    """Open connections for one request, and close them, also below a thread that was left behind with them."""
    headers = {"Accept-Encoding": "gzip"}
    with httpx.Client(transport=Outward(), trust_env=False, timeout=seconds, headers=headers) as client:
        yield client


def send(
    client: httpx.Client, request: httpx.Request, *, auth: Authentication | None = None, redirections: int = 0
) -> httpx.Response:
    """Return the answer's head; its bytes come as they are read. Only to be called `within` some seconds."""
    for _ in range(redirections + 1):
        response = client.send(request, auth=auth, stream=True)
        if response.next_request is None or not redirections:
            return _bounded(response)
        # Not by httpx itself, which reads the whole of such an answer, however much that is.
        response.close()
        request, auth = response.next_request, None
    raise AnswerError("too many redirections")


def within(seconds: float, work: Callable[[], T]) -> T:
    """Return what the work returns, or raise AnswerError where that takes longer, or is no answer.

    The work has a thread of its own, which is left behind then: no timeout of a socket ends what comes byte by byte,
    and none at all the look-up of a name.
    """
    results: Queue[T | Exception] = Queue()

    def run() -> None:
        try:
            results.put(work())
        except Exception as error:  # noqa: BLE001  # it is raised again below
            results.put(error)

    Thread(target=run, daemon=True).start()
    try:
        result = results.get(timeout=seconds)
    except Empty:
        result = httpx.ReadTimeout("")
    match result:
        case httpx.TimeoutException():
            raise AnswerError(f"no whole answer within {round(seconds, 1):g} s")
        case EnvironmentVariableError():
            raise WrongUseError(str(result))
        # httpx lets through what look-ups (UnicodeError) and redirections (InvalidURL) to odd addresses raise.
        case httpx.HTTPError() | httpx.InvalidURL() | OSError() | ValueError() | zlib.error():
            raise AnswerError(str(result) or type(result).__name__)
        case Exception():
            raise result
    return result


class Body(httpx.SyncByteStream):
    """The bytes of an answer, decompressed."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.size = 0
        """Bytes that were read; who sets it to 0 allows as many again."""

    def __iter__(self) -> Iterator[bytes]:
        """Return the pieces. Raises AnswerError where they are too many."""
        for piece in self._pieces():
            self.size += len(piece)
            if self.size > LARGEST_ANSWER:
                raise AnswerError(f"the answer is over {LARGEST_ANSWER} bytes")
            yield piece

    def close(self) -> None:
        self._response.close()

    def _pieces(self) -> Iterator[bytes]:
        match self._response.headers.get("Content-Encoding", "identity").strip().lower():
            case "identity" | "":
                yield from self._response.iter_raw()
            case "gzip" | "x-gzip":
                # Not by httpx, which makes 64 MiB of a piece of 64 KiB before anybody can count.
                decompressor = zlib.decompressobj(16 + zlib.MAX_WBITS)
                for compressed in self._response.iter_raw():
                    yield from _decompressed(decompressor, compressed)
            case other:
                raise AnswerError(f"the answer is encoded as {other!r}, which wasn't asked for")


def _decompressed(decompressor: "zlib._Decompress", compressed: bytes) -> Iterator[bytes]:
    while True:
        piece = decompressor.decompress(compressed, _PIECE)
        if piece:
            yield piece
        compressed = decompressor.unconsumed_tail
        if not compressed and len(piece) < _PIECE:
            return


def _bounded(response: httpx.Response) -> httpx.Response:
    headers = [(name, value) for name, value in response.headers.multi_items() if name.lower() not in _NO_LONGER]
    return httpx.Response(
        response.status_code,
        headers=headers,
        stream=Body(response),
        request=response.request,
        extensions={"reason_phrase": response.extensions.get("reason_phrase", b"")},
        default_encoding="utf-8",
    )
