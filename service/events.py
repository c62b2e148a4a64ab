"""The two event routes: which browsers get a stream, and what each gets first."""

import asyncio
import time
from contextlib import suppress
from typing import Final

from sse_starlette import EventSourceResponse
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.asked import asked_build, asked_channel, asked_last_event_id, takes_chunks
from service.census import Census
from service.channel import Channel
from service.channels import Channels
from service.deployment import ChannelName
from service.frame import LAST_CHUNK, Frame, encode, ping
from service.handover import stream_opener
from service.metrics import Metrics
from service.origins import Origins, is_preflight
from service.problem import Problem
from service.relay import Relay
from service.store import StoreUnavailableError
from service.stream import PIECE, RETRY_MS, RETRY_OVER_LIMIT_MS, Board, OpenStream, Stream, Streams, random_retry
from service.surplus import Surplus, send_newest

FIRST_READ_DEADLINE: Final = 1.5
"""Seconds for which a stream's first bytes are held back for a read; then it starts with a ping and waits."""

ALLOWED: Final = "GET, HEAD, OPTIONS"

_CLOSE: Final = (b"connection", b"close")
_CHUNKED: Final = b"transfer-encoding: chunked\r\n"


class Events:
    """Opens streams. It stands below no middleware and leaves no task behind."""

    def __init__(
        self,
        channels: Channels,
        streams: Streams,
        relay: Relay,
        census: Census,
        *,
        max_boards: int,
        origins: Origins,
        metrics: Metrics,
    ) -> None:
        self._channels = channels
        self._streams = streams
        self._relay = relay
        self._census = census
        self._max_boards = max_boards
        self._surplus = Surplus(max_boards)
        self._origins = origins
        self._metrics = metrics
        # The headers are sse-starlette's; its iterator is never touched.
        response = EventSourceResponse(
            iter(()), headers={"Cache-Control": "no-store, no-transform", "Content-Type": "text/event-stream"}
        )
        self._headers = [header for header in response.raw_headers if header[0] != b"connection"]
        self._head = b"".join(b"%b: %b\r\n" % header for header in [*self._headers, _CLOSE])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for a stream of one channel, or of all."""
        try:
            name = asked_channel(scope)
            if await self._is_admitted(scope, receive, send):
                await (self._open_board(scope, send) if name is None else self._open_channel(scope, name))
        except Problem as problem:
            origin = Headers(scope=scope).get("origin")
            await problem.response(headers=self._origins.headers(origin))(scope, receive, send)

    async def _open_channel(self, scope: Scope, name: ChannelName) -> None:
        last_event_id = asked_last_event_id(scope)
        running = asked_build(scope)
        channel = self._channels.open(name)
        undecided = not channel.loaded or channel.is_behind(last_event_id)
        if undecided:
            undecided = not await self._is_read(channel)
            if not channel.frames:
                self._channels.pass_by(channel)
        stream = Stream(self._streams, channel, chunked=takes_chunks(scope))
        replay = [] if undecided else [frame.numbered for frame in channel.replay(last_event_id)]
        if self._streams.is_full:
            self._turn_away(scope, replay)
        elif self._open(scope, stream, replay):
            stream.count(running)
            if undecided:
                self._channels.wait(channel, stream, last_event_id)
            else:
                channel.join(stream)

    async def _open_board(self, scope: Scope, send: Send) -> None:
        is_first = not self._channels.watchers
        has_place = len(self._channels.watchers) < self._max_boards and not self._streams.is_full
        if not has_place:
            await self._turn_away_board(scope, send)
            return
        board = Board(self._streams, self._channels, self._census.bulletin, chunked=takes_chunks(scope))
        self._channels.add_watcher(board)
        opened = False
        try:
            await self._survey()
            has_place = not self._streams.is_full  # some may have come meanwhile
            opened = has_place and self._open(scope, board, board.first())
        finally:
            if not opened:
                self._channels.remove_watcher(board)
        if not has_place:
            await self._turn_away_board(scope, send)
        elif is_first:
            self._census.wake()

    async def _turn_away_board(self, scope: Scope, send: Send) -> None:
        """Give a board that is one too many what a board starts with. It becomes no stream."""
        if self._surplus.is_full:
            self._turn_away(scope, [])
            return
        with self._surplus.place():
            self._channels.linger()
            await self._survey()
            newest = self._channels.newest()
            if not takes_chunks(scope):  # uvicorn knows no answer but chunks whose length isn't known at its start
                self._turn_away(scope, [frame.unnumbered for frame in newest[-PIECE:]])
                return
            origin = Headers(scope=scope).get("origin")
            raw = [(name.encode(), value.encode("latin-1")) for name, value in self._origins.headers(origin).items()]
            await send({"type": "http.response.start", "status": 200, "headers": [*self._headers, _CLOSE, *raw]})
            self._metrics.turned_away()
            self._metrics.wrote(await send_newest(send, [random_retry(RETRY_OVER_LIMIT_MS), _ping()], newest))
        await send({"type": "http.response.body"})  # once the client has read all

    async def _is_admitted(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Refuse for good what is meant for good; a browser gives up on any answer but 200 [spec]."""
        origin = Headers(scope=scope).get("origin")
        if not self._origins.allows(origin):
            raise Problem(403, f"the origin {origin} may not listen here; see VECTR0_ORIGINS")
        match scope["method"]:
            case "GET":
                return True
            case "HEAD":
                response = Response(headers=self._origins.headers(origin))
                # A stream has no length, so neither has what stands for it (RFC 9110, section 8.6).
                del response.headers["content-length"]
                response.raw_headers = [*self._headers, *response.raw_headers]
            case "OPTIONS" if is_preflight("OPTIONS", Headers(scope=scope)):
                response = self._origins.preflight(Headers(scope=scope))
            case "OPTIONS":
                response = Response(status_code=204, headers={**self._origins.headers(origin), "Allow": ALLOWED})
            case method:
                raise Problem(405, f"{method} is not possible here", headers={"Allow": ALLOWED})
        await response(scope, receive, send)
        return False

    async def _is_read(self, channel: Channel) -> bool:
        """Wait for a read of the channel. Where memory is only behind an id, one a second is enough."""
        if self._relay.state == "down":  # the first event comes at once, and the relay tries on without being asked
            return False
        try:
            async with asyncio.timeout(FIRST_READ_DEADLINE):
                await self._channels.read(channel, throttled=channel.loaded)
        except (StoreUnavailableError, TimeoutError):
            return False
        return True

    async def _survey(self) -> None:
        """Wait until every channel is in memory; those that can't be had now come later."""
        if self._channels.surveyed or self._relay.state == "down":
            return
        with suppress(StoreUnavailableError, TimeoutError):
            async with asyncio.timeout(FIRST_READ_DEADLINE):
                await self._relay.survey()

    def _open(self, scope: Scope, stream: OpenStream, replay: list[Frame]) -> bool:
        """Write the head and the first events. Returns whether the stream is open now."""
        events = replay or [_ping()]
        first = stream.encode(random_retry(RETRY_MS), *events)
        if not stream_opener(scope)(self._stream_head(scope), first, stream):
            return False
        self._metrics.wrote(len(events))
        return True

    def _turn_away(self, scope: Scope, replay: list[Frame]) -> None:
        """Write all of an answer that ends at once, and says when to come back."""
        is_chunked = takes_chunks(scope)
        events = encode([random_retry(RETRY_OVER_LIMIT_MS), *(replay or [_ping()])], chunked=is_chunked)
        stream_opener(scope)(self._stream_head(scope), events + LAST_CHUNK * is_chunked, None)
        self._metrics.turned_away()

    def _stream_head(self, scope: Scope) -> bytes:
        origin = Headers(scope=scope).get("origin")
        return self._head + _CHUNKED * takes_chunks(scope) + self._origins.raw_headers(origin) + b"\r\n"


def _ping() -> Frame:
    return ping(time.time_ns() // 1_000_000)
