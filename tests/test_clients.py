"""Clients that nobody of this project wrote get the stream right: Chromium, curl, npm's eventsource, httpx-sse."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from httpx_sse import aconnect_sse

from tests.parts import Replica, deployment, eventually, miss, post, require

pytestmark = pytest.mark.anyio

NPM = Path(__file__).parent / "npm"
CHANNEL = "events/web/production"
CLOSED = 2
"""What `readyState` is when an EventSource has given up for good."""


def require_npm_package(name: str) -> None:
    """Find an npm package; without it the test is skipped, and fails where CI=true."""
    if not (NPM / "node_modules" / name).is_dir():
        miss(f"the npm package {name} is not installed; tests/install-parts does that")


async def end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):  # it may have ended by itself
        process.terminate()
    await process.wait()


@dataclass
class Seen:
    """What a client reports: the events that it dispatched, each with its type, data, id and readyState."""

    events: list[dict[str, Any]] = field(default_factory=list)

    def take(self, line: str | bytes) -> None:
        self.events.append(json.loads(line))

    def of(self, type_: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == type_]

    @property
    def deployments(self) -> list[Any]:
        return [json.loads(event["data"]) for event in self.of("deployment")]

    async def has(self, count: int, type_: str = "deployment") -> None:
        """Wait for so many events of a type; a first one of a browser takes a while, and so does a `retry:`."""
        await eventually(lambda: len(self.of(type_)) >= count, 40, f"{type_} {count} in {self.events}")


class Page:
    """A web page at an origin of its own, which watches streams in Chromium and reports what it sees of each."""

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}
        page = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer((Path(__file__).parent / "watch.html").read_bytes())

            def do_POST(self) -> None:
                event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                page.seen[event.pop("url")].events.append(event)
                self.answer(b"")

            def answer(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def served(self) -> Iterator[None]:
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    @asynccontextmanager
    async def opened(self, folder: Path, *urls: str) -> AsyncIterator[None]:
        """Open the page in Chromium, on these streams."""
        self.seen = {url: Seen() for url in urls}
        query = urlencode([("url", url) for url in urls])
        with self.served(), (folder / "chromium.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                require("chromium"),
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
                "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
                f"--user-data-dir={folder}/chromium", "--remote-debugging-port=0", f"{self.origin}/?{query}",
                stdout=log, stderr=log,
            )  # fmt: skip
            try:
                yield
            finally:
                await end(process)


@asynccontextmanager
async def chromium(url: str, folder: Path) -> AsyncIterator[Seen]:
    """Chromium's EventSource, on a page of another origin."""
    page = Page()
    async with page.opened(folder, url):
        yield page.seen[url]


@asynccontextmanager
async def eventsource(url: str, _: Path) -> AsyncIterator[Seen]:
    """The npm package eventsource, in Node.js."""
    require_npm_package("eventsource")
    seen = Seen()
    process = await asyncio.create_subprocess_exec(
        require("node"), str(NPM / "watch.mjs"), url, stdout=asyncio.subprocess.PIPE
    )

    async def read() -> None:
        assert process.stdout
        async for line in process.stdout:
            seen.take(line)

    reading = asyncio.create_task(read())
    try:
        yield seen
    finally:
        await end(process)
        await reading


@asynccontextmanager
async def httpx_sse(url: str, _: Path) -> AsyncIterator[Seen]:
    """httpx-sse, in a loop like its README's: it leaves connecting again to who uses it.

    Unlike there, an event without an id leaves the last one as it is [spec]: httpx-sse forgets it with each response.
    """
    seen = Seen()

    async def watch() -> None:
        last_event_id, retry = "", 1.0
        async with httpx.AsyncClient(timeout=30) as client:
            while True:
                with suppress(httpx.TransportError):
                    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
                    async with aconnect_sse(client, "GET", url, headers=headers) as source:
                        seen.events.append({"type": "open"})
                        async for event in source.aiter_sse():
                            last_event_id = event.id or last_event_id
                            retry = retry if event.retry is None else event.retry / 1000
                            seen.events.append({"type": event.event, "data": event.data, "id": event.id})
                await asyncio.sleep(retry)

    watching = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


Client = Callable[[str, Path], AbstractAsyncContextManager[Seen]]
CLIENTS = [chromium, eventsource, httpx_sse]


async def record(replica: Replica, *versions: int) -> list[Any]:
    """Post deployments, and give their records."""
    answers = [await asyncio.to_thread(post, replica.url, deployment(version=f"1.{version}.0")) for version in versions]
    assert [answer.status_code for answer in answers] == [201] * len(versions)
    return [answer.json() for answer in answers]


def assert_told(seen: Seen, recorded: list[Any]) -> None:
    assert seen.deployments == recorded
    assert [event["id"] for event in seen.of("deployment")] == [str(one["deployedAt"]) for one in recorded]
    assert CLOSED not in [event.get("readyState") for event in seen.events]


@pytest.mark.parametrize("stop", [Replica.kill, Replica.terminate], ids=["killed", "terminated"])
@pytest.mark.parametrize("client", CLIENTS)
async def test_resumes_after_a_restart(
    client: Client, stop: Callable[[Replica], object], redis_server, start_replica, tmp_path
):
    """A client gets the newest at once, then live ones; its replica restarts, and it resumes by itself."""
    replica, other = start_replica(redis_url=redis_server.url), start_replica(redis_url=redis_server.url)
    recorded = await record(other, 1, 2)
    async with client(f"{replica.url}/{CHANNEL}", tmp_path) as seen:
        await seen.has(1)
        recorded += await record(other, 3)
        await seen.has(2)
        await asyncio.to_thread(stop, replica)
        recorded += await record(other, 4, 5, 6)
        await asyncio.to_thread(replica.start)
        await seen.has(5)
        recorded += await record(other, 7)
        await seen.has(6)

        assert_told(seen, recorded[1:])
        assert len(seen.of("open")) == 2


@pytest.mark.parametrize("client", CLIENTS)
async def test_waits_at_nginx_for_a_replica(client: Client, redis_server, start_replica, start_nginx, tmp_path):
    """While nginx reaches no replica it sends clients away for a while; they come back, and miss nothing."""
    replica, other = start_replica(redis_url=redis_server.url), start_replica(redis_url=redis_server.url)
    nginx = start_nginx(replica)
    recorded = await record(other, 1, 2)
    async with client(f"{nginx.url}/{CHANNEL}", tmp_path) as seen:
        await seen.has(1)
        recorded += await record(other, 3)
        await seen.has(2)
        replica.kill()
        recorded += await record(other, 4, 5, 6)
        await seen.has(2, "open")
        await asyncio.to_thread(replica.start)
        await seen.has(5)
        recorded += await record(other, 7)
        await seen.has(6)

        assert_told(seen, recorded[1:])
        assert len(seen.of("open")) >= 3


async def test_pages_of_other_origins_are_refused_for_good(redis_server, start_replica, tmp_path):
    """An EventSource of a page that isn't in VECTR0_ORIGINS gives up; one that is in it listens."""
    page = Page()
    refusing = start_replica(redis_url=redis_server.url, origins="https://app.example")
    allowing = start_replica(redis_url=redis_server.url, origins=f"https://app.example,{page.origin}")
    recorded = await record(refusing, 1)
    refused, allowed = f"{refusing.url}/{CHANNEL}", f"{allowing.url}/{CHANNEL}"
    async with page.opened(tmp_path, refused, allowed):
        await page.seen[allowed].has(1)
        await page.seen[refused].has(1, "error")
        recorded += await record(refusing, 2)
        await page.seen[allowed].has(2)

    assert [(event["type"], event["readyState"]) for event in page.seen[refused].events] == [("error", CLOSED)]
    assert_told(page.seen[allowed], recorded)
    assert refusing.metric("vectr0_streams_opened_total") == 0


class Curl:
    """A curl that runs, and the lines that it has printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout
        self._output = process.stdout

    async def block(self) -> list[str]:
        """Wait for the lines up to the next empty one, but for pings, which may come at any moment."""
        async with asyncio.timeout(10):
            while "event: ping" in (block := (await self._output.readuntil(b"\n\n")).decode()):
                pass
        return block.rstrip("\n").split("\n")


@asynccontextmanager
async def curl(*arguments: str) -> AsyncIterator[Curl]:
    process = await asyncio.create_subprocess_exec(
        require("curl"), "--silent", "-N", *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Curl(process)
    finally:
        await end(process)
        await process.communicate()


def lines_of(record: dict[str, Any]) -> list[str]:
    """An event as it stands in a stream."""
    data = json.dumps(record, separators=(",", ":"))
    return [f"id: {record['deployedAt']}", "event: deployment", f"data: {data}"]


@pytest.mark.parametrize("through", ["replica", "nginx"])
async def test_curl_prints_each_event_at_once(through, redis_server, start_replica, start_nginx):
    """What `curl -N` prints is the stream as it is documented, each event when it comes."""
    replica = start_replica(redis_url=redis_server.url)
    url = replica.url if through == "replica" else start_nginx(replica).url
    first, second = await record(replica, 1, 2)
    async with curl(f"{url}/{CHANNEL}") as printed:
        retry, newest = await printed.block(), await printed.block()
        (third,) = await record(replica, 3)
        live = await printed.block()

    assert retry[0].startswith("retry: ")
    assert first["deployedAt"] < second["deployedAt"]
    assert newest == lines_of(second)
    assert live == lines_of(third)


async def test_http_1_0_gets_no_chunks(redis_server, start_replica):
    """A client of HTTP/1.0 gets the events as they are, until the connection ends."""
    replica = start_replica(redis_url=redis_server.url)
    (first,) = await record(replica, 1)
    async with curl("-0", "--raw", "--dump-header", "-", f"{replica.url}/{CHANNEL}") as printed:
        retry, newest = await printed.block(), await printed.block()
        (second,) = await record(replica, 2)
        live = await printed.block()
        await asyncio.to_thread(replica.terminate)
        farewell = await printed.block()

    head, _, retry_line = "\n".join(retry).replace("\r", "").partition("\n\n")
    assert "transfer-encoding" not in head.lower()
    assert "content-length" not in head.lower()
    assert retry_line.startswith("retry: ")
    assert newest == lines_of(first)
    assert live == lines_of(second)
    assert len(farewell) == 1
    assert farewell[0].startswith("retry: ")
