"""The stream: one browser's open response. It has no task, queue or timer of its own."""

import asyncio
import random
import time
from typing import Final

from service.channel import Channel, Channels
from service.frame import LAST_CHUNK, DeploymentFrame, Frame, ping, retry
from service.metrics import CloseReason, Metrics

PING_INTERVAL: Final = 15.0
"""Seconds between two pings on a stream."""
TICK: Final = 0.25
"""Seconds between two turns of the ticker; each pings the streams of one slot."""
SLOTS: Final = int(PING_INTERVAL / TICK)

RETRY_MS: Final = (1_000, 5_000)
"""Milliseconds until a browser connects again: random, so that a thousand cut off together don't come together."""
RETRY_OVER_LIMIT_MS: Final = (15_000, 60_000)


def random_retry(between: tuple[int, int]) -> Frame:
    """Tell one browser when to connect again."""
    return retry(random.randint(*between))  # noqa: S311  # jitter


class OpenStream:
    """What a stream of one channel and a board have in common: a socket that is written to, or takes no more."""

    __slots__ = ("_chunked", "_streams", "_transport", "flowing", "slot")

    def __init__(self, streams: "Streams", *, chunked: bool) -> None:
        self._streams = streams
        self._chunked = chunked
        self._transport: asyncio.WriteTransport | None = None
        self.flowing = False
        """False before it is open, while its socket takes no more, and once it is closed."""
        self.slot = -1

    def encode(self, *frames: Frame) -> bytes:
        """Join frames in the coding of this response; HTTP/1.0 has no chunks."""
        return b"".join(frame.chunk if self._chunked else frame.event for frame in frames)

    def start(self, transport: asyncio.WriteTransport) -> None:
        """Write from now on to this transport."""
        self._transport = transport
        self.flowing = transport.get_write_buffer_size() == 0
        self._streams.add(self)

    def write(self, frame: Frame) -> None:
        """Write an event, if the socket takes it."""
        if self.flowing and self._transport is not None:
            self._transport.write(frame.chunk if self._chunked else frame.event)

    def pause(self) -> None:
        """Write nothing until `resume`: what is missed then is in the channel's memory."""
        self.flowing = False

    def resume(self) -> None:
        """Catch up."""
        self.flowing = True

    def drain(self) -> None:
        """Send the browser to another replica, at a moment of its own."""
        if self._transport is not None:
            if self.flowing:
                self._transport.write(self.encode(random_retry(RETRY_MS)) + LAST_CHUNK * self._chunked)
            self.flowing = False
            self._transport.close()
            self._streams.remove(self, "shutdown")

    def lost(self, *, stalled: bool) -> None:
        """Leave everything."""
        self.flowing = False
        self._transport = None
        self._streams.remove(self, "stalled" if stalled else "client")


class Stream(OpenStream):
    """A stream of one channel's deployments."""

    __slots__ = ("channel", "sent")

    def __init__(self, streams: "Streams", channel: Channel, *, chunked: bool) -> None:
        super().__init__(streams, chunked=chunked)
        self.channel = channel
        self.sent = 0

    def send(self, frame: DeploymentFrame) -> None:
        """Write a deployment."""
        self.write(frame.numbered)

    def resume(self) -> None:
        """Catch up."""
        super().resume()
        self.channel.make_level(self)

    def lost(self, *, stalled: bool) -> None:
        """Leave everything."""
        super().lost(stalled=stalled)
        self.channel.leave(self)


class View:
    """A board's subscription of one channel."""

    __slots__ = ("board", "channel", "sent")

    def __init__(self, board: "Board", channel: Channel) -> None:
        self.board = board
        self.channel = channel
        self.sent = 0

    @property
    def flowing(self) -> bool:
        """A board's views share its socket."""
        return self.board.flowing

    def send(self, frame: DeploymentFrame) -> None:
        """Write a deployment, without an id: there is no order over all channels to resume in."""
        self.board.write(frame.unnumbered)


class Board(OpenStream):
    """A stream of all channels' deployments."""

    __slots__ = ("_channels", "_views")

    def __init__(self, streams: "Streams", channels: Channels, *, chunked: bool) -> None:
        super().__init__(streams, chunked=chunked)
        self._channels = channels
        self._views: dict[Channel, View] = {}

    def watch(self, channel: Channel) -> None:
        """Take a channel: from its newest on where it is loaded, else from its first read."""
        view = self._views[channel] = View(self, channel)
        if channel.loaded:
            channel.join(view)
        else:
            channel.wait(view, None)

    def begin(self) -> list[Frame]:
        """Give each channel's newest deployment, in their order; what comes later comes as an event."""
        newest = []
        for channel, view in self._views.items():
            view.sent = channel.newest or 0
            newest += channel.frames[-1:]
        newest.sort(key=lambda frame: frame.deployment.id)
        return [frame.unnumbered for frame in newest]

    def unwatch(self, channel: Channel) -> None:
        """Let go of a channel."""
        view = self._views.pop(channel, None)
        if view is not None:
            channel.leave(view)

    def resume(self) -> None:
        """Catch up."""
        super().resume()
        for channel, view in self._views.items():
            channel.make_level(view)

    def lost(self, *, stalled: bool) -> None:
        """Leave everything."""
        super().lost(stalled=stalled)
        self._channels.remove_watcher(self)


class Streams:
    """All open streams of this process, and the one ticker that keeps them alive."""

    def __init__(self, limit: int, metrics: Metrics) -> None:
        self.limit = limit
        self._metrics = metrics
        self._slots: list[set[OpenStream]] = [set() for _ in range(SLOTS)]
        self._turn = 0
        self.count = 0

    @property
    def is_full(self) -> bool:
        """Tell whether one more would be one too many."""
        return self.count >= self.limit

    def add(self, stream: OpenStream) -> None:
        """Ping a stream from now on. The slots are filled in turn, which spreads the pings over the interval."""
        self._turn = (self._turn + 1) % SLOTS
        stream.slot = self._turn
        self._slots[stream.slot].add(stream)
        self.count += 1
        self._metrics.opened.inc()
        self._metrics.streams.set(self.count)

    def remove(self, stream: OpenStream, reason: CloseReason) -> None:
        """Forget a stream, if it is still known."""
        if stream in self._slots[stream.slot]:
            self._slots[stream.slot].discard(stream)
            self.count -= 1
            self._metrics.closed.labels(reason).inc()
            self._metrics.streams.set(self.count)

    async def run(self) -> None:
        """Ping every stream once in PING_INTERVAL, until cancelled."""
        loop = asyncio.get_running_loop()
        slot, due = 0, loop.time()
        while True:
            due = max(due + TICK, loop.time())
            await asyncio.sleep(due - loop.time())
            self._metrics.loop_lag.observe(max(0.0, loop.time() - due))
            slot = (slot + 1) % SLOTS
            self._ping(slot)

    def _ping(self, slot: int) -> None:
        frame = ping(time.time_ns() // 1_000_000)
        for stream in self._slots[slot]:
            stream.write(frame)
        self._metrics.wrote(len(self._slots[slot]))
