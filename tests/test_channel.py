from collections import deque
from collections.abc import Callable

import orjson
import pytest

from service.channel import SLICE, Channel
from service.channels import IDLE_LIFETIME, LINGER, READ_INTERVAL, Channels
from service.deployment import KEPT, ChannelName, Deployment
from service.frame import DeploymentFrame
from service.news import SLICE as NEWS_SLICE
from service.news import News

pytestmark = pytest.mark.anyio

WEB = ChannelName("web/production")


class Recorder:
    """A stream that records the ids it is sent, and whose socket can take no more after some."""

    def __init__(self, takes: int = 1_000_000) -> None:
        self.sent = 0
        self.ids: list[int] = []
        self.takes = takes

    @property
    def flowing(self) -> bool:
        return self.takes > 0

    def send(self, frame: DeploymentFrame) -> None:
        self.ids.append(frame.deployment.id)
        self.takes -= 1


class Loop:
    """Later calls, run by hand."""

    def __init__(self) -> None:
        self.calls: deque[Callable[[], None]] = deque()

    def later(self, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def run(self) -> None:
        while self.calls:
            self.calls.popleft()()


class Counter:
    """An observer that counts."""

    def __init__(self) -> None:
        self.frames = 0
        self.spreads: list[int] = []

    def wrote(self, frames: int) -> None:
        self.frames += frames

    def spread(self, deployment: Deployment) -> None:
        self.spreads.append(deployment.id)

    def watched(self, boards: int) -> None:
        """Boards are not counted here."""


def record(number: int, previous: int | None, primary: str = "one") -> Deployment:
    json = orjson.dumps({"deployedAt": number, "previous": previous, "primary": primary})
    return Deployment(json, number, previous)


def chain(*numbers: int) -> list[Deployment]:
    return [record(number, previous) for number, previous in zip(numbers, (None, *numbers), strict=False)]


def channel_with(*numbers: int, loop: Loop | None = None, counter: Counter | None = None) -> Channel:
    channel = unread(loop, counter)
    channel.replace(chain(*numbers))
    return channel


def unread(loop: Loop | None = None, counter: Counter | None = None) -> Channel:
    later, observer = (loop or Loop()).later, counter or Counter()
    return Channel(WEB, later, observer, News(later, observer))


def joined(channel: Channel, takes: int = 1_000_000) -> Recorder:
    stream = Recorder(takes)
    channel.join(stream)
    return stream


def test_what_follows_is_taken_and_sent():
    """A message that follows on the newest in memory reaches every stream."""
    channel = channel_with(1, 2)
    stream = joined(channel)

    assert channel.take(record(3, 2))
    assert stream.ids == [3]
    assert channel.newest == 3


@pytest.mark.parametrize("message", [record(9, 4), record(9, 2), record(9, None), record(4, 5), record(1, None)])
def test_what_does_not_follow_is_not_taken(message):
    """A message whose `previous` isn't the newest in memory, or that is no newer, asks for a read first."""
    channel = channel_with(2, 5)
    stream = joined(channel)

    assert not channel.take(message)
    assert stream.ids == []


def test_message_that_is_kept_already_is_dropped():
    """A message that a read has overtaken is dropped, without another read."""
    channel = channel_with(1, 2, 3)
    stream = joined(channel)

    assert channel.take(record(2, 1))
    assert channel.take(record(3, 2))
    assert stream.ids == []


def test_a_stream_that_waits_has_nothing_to_catch_up():
    """One whose id is ahead of memory, and whose socket resumes before the read, is sent nothing older, and all new."""
    channel = channel_with(1, 2, 3)
    stream = Recorder()
    channel.wait(stream, 4)
    channel.catch_up(stream)
    assert stream.ids == []
    channel.reads += 1
    channel.replace(chain(1, 2, 3, 4, 5))

    assert stream.ids == [5]
    channel.catch_up(stream)
    assert stream.ids == [5]


def test_message_with_the_id_of_another_record_is_not_taken():
    """An id that two primaries gave, one after the other, doesn't make their records one: the channel is read."""
    channel = channel_with(1, 2, 3)
    stream = joined(channel)

    assert not channel.take(record(3, 2, "two"))
    assert not channel.take(record(2, 1, "two"))
    assert stream.ids == []


@pytest.mark.parametrize(
    ("read", "sent"),
    [
        ([record(1, None), record(2, 1), record(3, 2, "two")], [3]),
        ([record(1, None), record(2, 1, "two"), record(3, 2, "two")], [2, 3]),
        ([record(1, None), record(2, 1, "two")], [2]),
        ([record(1, None), record(3, 1, "two"), record(4, 3, "two")], [3, 4]),
        ([record(1, None), record(2, 1), record(3, 2)], []),
    ],
)
def test_record_with_the_id_of_one_that_was_sent_is_sent(read, sent):
    """Where a read finds another record under an id that streams have, they get it, and all that follows on it."""
    loop = Loop()
    channel = channel_with(1, 2, 3, loop=loop)
    streams = [joined(channel) for _ in range(SLICE + 1)]
    full = joined(channel, takes=0)
    channel.replace(read)
    loop.run()
    full.takes = 100
    channel.catch_up(full)

    assert all(stream.ids == sent for stream in (*streams, full))
    assert channel.newest_record == read[-1].json


def test_nothing_is_taken_before_the_first_read():
    """A channel that hasn't been read takes no message, not even a first one."""
    channel = unread()

    assert not channel.take(record(1, None))


def test_first_deployment_of_an_empty_channel_is_taken():
    """Where memory is empty, a message without `previous` follows."""
    channel = channel_with()
    stream = joined(channel)

    assert channel.take(record(7, None))
    assert stream.ids == [7]


def test_ten_are_kept():
    """The eleventh deployment pushes the first out."""
    channel = channel_with(*range(1, KEPT + 1))
    channel.take(record(KEPT + 1, KEPT))

    assert [frame.deployment.id for frame in channel.frames] == list(range(2, KEPT + 2))


@pytest.mark.parametrize(
    ("last_event_id", "replay"),
    [(None, [4]), (1, [2, 3, 4]), (2, [3, 4]), (3, [4]), (4, []), (5, [4])],
)
def test_replay(last_event_id, replay):
    """Without an id the newest; with one all after it, all where it is older than the oldest; ahead is as none."""
    channel = channel_with(2, 3, 4)

    assert [frame.deployment.id for frame in channel.replay(last_event_id)] == replay


def test_read_is_spread_in_order():
    """After a read every stream gets what is newer than the newest that it was sent."""
    channel = channel_with(1, 2)
    stream = joined(channel)
    channel.replace(chain(1, 2, 3, 4))

    assert stream.ids == [3, 4]


def test_older_read_is_sent_once():
    """Where Redis's newest is older than what a stream was sent, the stream gets Redis's newest, once."""
    channel = channel_with(1, 2, 3)
    stream = joined(channel)
    channel.replace(chain(1, 2))
    channel.replace(chain(1, 2))
    channel.take(record(9, 2))

    assert stream.ids == [2, 9]


def test_empty_read_empties_memory():
    """A channel that Redis has lost is empty here, its streams hear nothing until there is something."""
    channel = channel_with(1, 2, 3)
    stream = joined(channel)
    channel.replace([])

    assert channel.newest is None
    assert channel.take(record(9, None))
    assert stream.ids == [9]


@pytest.mark.parametrize(("last_event_id", "ids"), [(None, [3]), (1, [2, 3]), (3, []), (8, [3])])
def test_start_of_waiting_stream_is_decided_by_the_first_read(last_event_id, ids):
    """A stream that waits for the first read then starts by its last event id."""
    channel = unread()
    stream = Recorder()
    channel.wait(stream, last_event_id)
    channel.reads += 1
    channel.replace(chain(1, 2, 3))
    channel.take(record(4, 3))

    assert stream.ids == [*ids, 4]
    assert not channel.waiting


def test_read_that_was_sent_before_a_reader_came_says_nothing_of_what_it_saw():
    """A stream whose id is ahead of a read that was sent before it came waits for the next one."""
    channel = channel_with(1)
    sent_before = channel.reads
    stream = Recorder()
    channel.wait(stream, 2)
    channel.replace(chain(1), sent_before)
    assert stream.ids == []

    channel.reads += 1
    channel.replace(chain(1, 2, 3), channel.reads)
    assert stream.ids == [3]


def test_message_that_brings_what_a_reader_saw_elsewhere_lets_it_in():
    """A stream whose id was ahead of memory starts as soon as the subscription has caught up with it."""
    channel = channel_with(1)
    stream = Recorder()
    channel.wait(stream, 2)
    channel.take(record(2, 1))
    assert stream.ids == []
    assert not channel.waiting

    channel.take(record(3, 2))
    assert stream.ids == [3]


def test_stalled_stream_is_made_level_when_it_flows():
    """A stream whose socket takes no more misses nothing that is still kept."""
    channel = channel_with(1)
    stream = joined(channel, takes=1)
    for number in (2, 3, 4):
        channel.take(record(number, number - 1))
    assert stream.ids == [2]

    stream.takes = 1
    channel.make_level(stream)
    assert stream.ids == [2, 3]

    stream.takes = 100
    channel.make_level(stream)
    assert stream.ids == [2, 3, 4]


def test_break_shows_where_too_much_was_missed():
    """What a stream missed and is no longer kept shows: `previous` isn't what it was sent last."""
    channel = channel_with(1)
    stream = joined(channel, takes=0)
    for number in range(2, KEPT + 4):
        channel.take(record(number, number - 1))
    stream.takes = 100
    channel.make_level(stream)

    assert stream.ids == list(range(4, KEPT + 4))
    assert channel.frames[0].deployment.previous == 3


def test_loop_gets_its_turn_between_slices():
    """A deployment is written to a slice of the streams, and to the next in the loop's next turn."""
    loop, counter = Loop(), Counter()
    channel = channel_with(1, loop=loop, counter=counter)
    streams = [joined(channel) for _ in range(2 * SLICE + 5)]
    channel.take(record(2, 1))

    assert sum(bool(stream.ids) for stream in streams) == SLICE
    assert counter.spreads == []

    loop.run()
    assert all(stream.ids == [2] for stream in streams)
    assert counter.spreads == [2]
    assert counter.frames == len(streams)


def test_changes_during_a_slice_lose_and_repeat_nothing():
    """Deployments that come while another is being spread reach every stream in order, once; so does a newcomer."""
    loop = Loop()
    channel = channel_with(1, loop=loop)
    streams = [joined(channel) for _ in range(3 * SLICE)]
    channel.take(record(2, 1))
    newcomer = joined(channel)
    for number in range(3, 3 + 2 * KEPT):
        channel.take(record(number, number - 1))
    leaver = streams.pop()
    leaver.takes = 0
    channel.leave(leaver)
    loop.run()

    assert all(stream.ids == list(range(2, 3 + 2 * KEPT)) for stream in streams)
    assert newcomer.ids == list(range(3, 3 + 2 * KEPT))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def channels() -> tuple[Channels, Clock]:
    clock = Clock()
    return Channels(Loop().later, clock, Counter()), clock


async def test_channel_nobody_recorded_is_let_go_at_once():
    """An empty channel stays only while somebody is on it."""
    registry, _ = channels()
    channel = registry.open(WEB)
    channel.replace([])
    stream = joined(channel)
    await registry.let_go()
    assert registry.get(WEB) is channel

    channel.leave(stream)
    await registry.let_go()
    assert registry.get(WEB) is None


async def test_channel_is_let_go_when_nobody_has_needed_it_for_a_while():
    """A channel with deployments stays for a while after its last stream."""
    registry, clock = channels()
    channel = registry.open(WEB)
    channel.replace(chain(1))
    clock.now += IDLE_LIFETIME - 1
    await registry.let_go()
    assert registry.get(WEB) is channel

    clock.now += 2
    await registry.let_go()
    assert registry.get(WEB) is None


async def test_unread_channels_are_given_when_they_are_due():
    """A read is due at once; one that only an id ahead of memory asks for, when the last is long enough ago."""
    registry, clock = channels()
    channel = registry.open(WEB)
    registry.read_soon(channel)
    assert await registry.unread(10) == [channel]

    registry.read_soon(channel, throttled=True)
    clock.now += READ_INTERVAL
    assert await registry.unread(10) == [channel]


class BoardDouble:
    """A board that records the ids that it is told of."""

    def __init__(self, registry: Channels) -> None:
        self.news = registry.news
        self.read = self.news.number
        self.ids: list[int] = []

    def read_news(self) -> int:
        news = self.news.after(self.read)
        self.ids += [frame.deployment.id for _, frame in news]
        self.read = news[-1][0] if news else self.read
        return len(news)

    def read_bulletin(self) -> None: ...


def watched() -> tuple[Channels, Clock, Loop, BoardDouble]:
    """A registry that a board watches."""
    clock, loop = Clock(), Loop()
    registry = Channels(loop.later, clock, Counter())
    board = BoardDouble(registry)
    registry.add_watcher(board)
    return registry, clock, loop, board


async def test_channel_that_is_being_read_stays():
    """A channel isn't let go between the message that named it and the read that fills it."""
    registry, _, loop, board = watched()
    channel = registry.open(WEB)
    channel.pins += 1  # as the relay does while it reads
    await registry.let_go()
    assert registry.get(WEB) is channel
    channel.replace(chain(1))
    channel.pins -= 1
    await registry.let_go()
    loop.run()

    assert registry.get(WEB) is channel
    assert board.ids == [1]


async def test_made_up_names_are_let_go_whoever_watches():
    """Names that nobody recorded go although a board watches, and also those that Redis was too far away to read."""
    registry, *_ = watched()
    for number in range(100):
        channel = registry.open(ChannelName(f"made/up-{number}"))
        registry.read_soon(channel)
        if number % 2:
            channel.replace([])
    await registry.let_go()

    assert len(registry) == 0


async def test_board_is_told_of_every_channel():
    """A board is told of each channel's newest when it comes into memory, and of everything after that, each once."""
    registry, _, loop, board = watched()
    one, other = registry.open(WEB), registry.open(ChannelName("web/staging"))
    one.replace(chain(1, 2))
    other.replace([])
    loop.run()
    assert board.ids == [2]
    other.take(record(3, None))
    one.take(record(4, 2))
    one.replace(chain(1, 2, 4, 6, 7))
    loop.run()
    assert board.ids == [2, 3, 4, 6, 7]
    one.replace(chain(1, 2, 4, 6, 7))
    one.replace([])
    loop.run()
    assert board.ids == [2, 3, 4, 6, 7]
    registry.remove_watcher(board)
    one.replace(chain(9))
    loop.run()

    assert board.ids == [2, 3, 4, 6, 7]


@pytest.mark.parametrize("newest", [record(5, None), Deployment(b'{"deployedAt":7,"previous":5,"x":1}', 7, 5)])
async def test_board_is_told_where_redis_went_back(newest):
    """Where memory becomes older, or the same id means another record, a board gets the newest once."""
    registry, _, loop, board = watched()
    channel = registry.open(WEB)
    channel.replace(chain(5, 7))
    loop.run()
    channel.replace([newest])
    loop.run()

    assert board.ids == [7, newest.id]


@pytest.mark.parametrize("count", [*range(1, KEPT + 3), 30])
async def test_what_is_kept_is_news(count):
    """A board whose socket took nothing meanwhile is told of all that are kept, however many came at once."""
    registry, _, loop, board = watched()
    channel = registry.open(WEB)
    channel.replace([])
    for number in range(1, count + 1):
        channel.take(record(number, number - 1 or None))
    loop.run()

    assert board.ids == list(range(1, count + 1))[-KEPT:]
    assert len(registry.news.after(0)) == min(count, KEPT)


async def test_all_boards_are_told():
    """With more boards than are told in one turn, each hears of everything, also of what comes in between."""
    registry, _, loop, board = watched()
    boards = [board, *(BoardDouble(registry) for _ in range(3 * NEWS_SLICE))]
    for other in boards[1:]:
        registry.add_watcher(other)
    channel = registry.open(WEB)
    channel.replace(chain(1))
    loop.calls.popleft()()
    channel.take(record(2, 1))
    loop.run()

    assert all(one.ids == [1, 2] for one in boards)


async def test_channels_stay_when_the_last_board_leaves():
    """For a while after the last board all channels are kept up: a page that is loaded again costs nothing."""
    registry, clock, _, board = watched()
    registry.open(WEB).replace(chain(1))
    registry.remove_watcher(board)
    watched_for = []
    for seconds in (LINGER - 1, 2):
        clock.now += seconds
        await registry.let_go()
        watched_for.append(registry.is_watched)

    assert watched_for == [True, False]
    assert len(registry) == 1
    clock.now += IDLE_LIFETIME
    await registry.let_go()
    assert len(registry) == 0
