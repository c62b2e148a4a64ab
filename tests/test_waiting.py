"""Where connections stand: whatever happens to one, it can be found when descriptors get short."""

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from service.handover import STREAM_EXTENSION
from service.protocol import Connection
from service.waiting import OWN_DESCRIPTORS, Queue, Waiting

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
PIECES = [
    b"\r\n", b"GET", GET, GET[:-2], GET * 3, GET + GET[:9], GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1", b"12345678", b"\0",
    b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n\r\r\n", b"0\r\n\r\n",
]  # fmt: skip
EVENTS = [
    "body",
    "start",
    "end",
    "store",
    "stream",
    "farewell",
    "pause",
    "resume",
    "eof",
    "expire",
    "shutdown",
    "abort",
]


class Transport:
    """A socket that takes as much as the test wants; like uvloop's it closes when all is sent."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.ends = socket.socketpair()
        self.is_full = self.closing = self.is_aborted = False

    def write(self, data: bytes) -> None:
        pass

    def write_eof(self) -> None:
        pass

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.is_aborted = True

    def is_closing(self) -> bool:
        return self.closing

    def get_extra_info(self, _name: str) -> socket.socket:
        return self.ends[0]

    def __getattr__(self, name: str) -> Any:
        return lambda *_arguments, **_options: None


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer as the test says."""
    events: asyncio.Queue[str] = scope["state"]["events"]
    extension = scope["extensions"][STREAM_EXTENSION]
    has_started = False
    while (event := await events.get()) != "cancel":
        if event == "body":
            await receive()
        elif event == "store":
            extension["store"]()
        elif event in ("stream", "farewell") and not has_started:
            extension["open"](b"\r\n", b"", SimpleNamespace(begin=lambda *_: None) if event == "stream" else None)
            return
        elif event == "start" and not has_started:
            has_started = True
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        elif event == "end" and has_started:
            await send({"type": "http.response.body", "body": b"ok"})
            return


def queues(waiting: Waiting) -> list[Queue]:
    return [queue for queue in vars(waiting).values() if isinstance(queue, Queue)]


def do(connection: Connection, transport: Transport, event: str | bytes) -> None:
    """Let happen what can, in this state of the socket."""
    if isinstance(event, bytes):
        if not transport.closing and not connection._has_ended and not connection._rest:
            connection.get_buffer(0)[: len(event)] = event
            connection.buffer_updated(len(event))
    elif event == "pause" and not transport.is_full and not transport.closing:
        transport.is_full = True
        connection.pause_writing()
    elif event == "resume" and transport.is_full:
        transport.is_full = False
        connection.resume_writing()
    elif event == "eof" and not transport.closing:
        if not connection.eof_received():
            transport.close()
            connection._stand()
    elif event == "expire" and connection._queue is not None and connection._queue._deadline is not None:
        connection._queue._since[connection] = float("-inf")
        connection._queue._expire(connection._queue._deadline)
    elif event == "shutdown":
        connection.shutdown()
    elif event == "abort":
        connection.abort()
    else:
        connection._app_state["events"].put_nowait(event)


@settings(max_examples=300, deadline=None)
@given(events=st.lists(st.sampled_from([*PIECES, *EVENTS]), max_size=25))
def test_a_connection_stands_in_one_queue_as_long_as_it_is_open(events):
    """Whatever comes in whatever order, it's in exactly one, unless a stream has it or nothing is left to send."""

    async def check() -> None:
        waiting, state, transport = Waiting(1000, 60), ServerState(), Transport()
        config: Any = SimpleNamespace(loaded_app=app)
        connection = Connection(waiting, config, state, {"events": asyncio.Queue()})
        connection.connection_made(transport)  # type: ignore[arg-type]  # it does what is needed
        for event in events:
            do(connection, transport, event)
            for _ in range(3):
                await asyncio.sleep(0)
            found = [queue for queue in queues(waiting) if connection in queue._since]
            is_open = not transport.closing or (transport.is_full and not transport.is_aborted)
            assert len(found) == (is_open and connection in state.connections), (event, found)
            assert connection._queue is (found[0] if found else None)
            if connection not in state.connections:
                break
        else:
            connection.connection_lost(None)
        for task in state.tasks:
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)
        for end in transport.ends:
            end.close()
        assert not any(queue.first for queue in queues(waiting))

    asyncio.run(check())


class Standing:
    """One that only stands in a queue."""

    is_aborted = False

    def expire(self) -> None:
        pass

    def abort(self) -> None:
        self.is_aborted = True


NAMES = [name for name, value in vars(Waiting(1000, 60)).items() if isinstance(value, Queue)]


@pytest.mark.anyio
@pytest.mark.parametrize("name", NAMES)
async def test_no_newcomer_goes_while_another_is_there(name):
    """Whatever the others wait for, it's the one that has waited for longest that makes room."""
    waiting, connections, newcomer = Waiting(OWN_DESCRIPTORS + 2, 60), [Standing(), Standing()], Standing()
    for connection in connections:
        getattr(waiting, name).enter(connection)
    waiting.make_room(3, newcomer)

    assert [connection.is_aborted for connection in (*connections, newcomer)] == [True, False, False]


@pytest.mark.anyio
@pytest.mark.parametrize("names", [("receiving", "answering"), ("answering", "receiving"), ("answering", "storing")])
async def test_the_longest_wait_ends_first(names):
    """The client's turn or the service's makes no difference; what is being stored comes last."""
    waiting, older, younger = Waiting(OWN_DESCRIPTORS + 2, 60), Standing(), Standing()
    getattr(waiting, names[0]).enter(older)
    await asyncio.sleep(0.01)
    getattr(waiting, names[1]).enter(younger)
    waiting.make_room(3, Standing())

    assert (older.is_aborted, younger.is_aborted) == (True, False)


@pytest.mark.anyio
async def test_one_that_expires_and_stays_has_another_deadline():
    """Who doesn't leave when its time is over stands where it stood, and is asked again."""
    asked = asyncio.Queue[None]()
    queue, connection = Queue(0.01), Standing()
    connection.expire = lambda: asked.put_nowait(None)  # type: ignore[method-assign]  # to hear of it
    queue.enter(connection)
    for _ in range(3):
        await asyncio.wait_for(asked.get(), 5)
        assert queue.first is connection
    queue.leave(connection)
