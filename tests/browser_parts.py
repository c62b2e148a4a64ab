"""Chromium, an application at an origin of its own whose files are swapped, and a proxy before the hub that can fail."""

import asyncio
import hashlib
import json
import mimetypes
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from playwright.async_api import Browser, BrowserContext, Error, Page, async_playwright

from tests.parts import Replica, deployment, eventually, post, require

ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip

SEEN = """
globalThis.seen = [];
globalThis.violations = [];
for (const step of ["deployment", "update", "dismiss", "state", "beforerefresh", "refresh"]) {
    addEventListener(`vectr0:${step}`, ({ detail }) => seen.push({ step, detail, at: Date.now() }));
}
document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI, sample }) =>
    violations.push(`${violatedDirective}: ${blockedURI} ${sample}`),
);
"""
"""Before anything else of a page: write down what the watch says, and what a policy forbids."""


def build(app: str, number: int, **fields: object) -> dict[str, object]:
    """What version ``number`` of an application is stamped with."""
    return {
        **deployment(app),
        "version": f"{number}.0.0",
        "gitCommit": f"{number}0ffee0",
        "buildNumber": number,
        "buildTime": 1_763_800_000_000 + number * 60_000,
        **fields,
    }


def one_tag(hub: str, app: str, stamped: dict[str, Any] | None) -> str:
    """The lines of a page with the element; ``stamped`` is None where it doesn't say what it runs."""
    says = ""
    if stamped:
        says = ' version="{version}" commit="{gitCommit}" build="{buildNumber}" time="{buildTime}"'.format_map(stamped)
    return f"""
<script type="module" src="{hub}/browser/element.js"></script>
<update-notification app="{app}" environment="production"{says}></update-notification>"""


def plain(hub: str, app: str, stamped: dict[str, Any] | None) -> str:
    """The lines of a page with a prompt of its own, and nothing but the watch."""
    options = {"app": app, "environment": "production", "current": stamped}
    return f"""
<p role="status"></p>
<button hidden>Refresh</button>
<script type="module">
  import {{ watchVersion }} from "{hub}/browser/vectr0.js";
  const watch = watchVersion({json.dumps(options)});
  const [status, button] = document.querySelectorAll("[role=status], button");
  watch.subscribe(() => {{
    const {{ hasUpdate, updateInfo }} = watch.snapshot;
    status.textContent = hasUpdate ? `New: build #${{updateInfo.buildNumber}}` : "";
    button.hidden = !hasUpdate;
  }});
  button.onclick = watch.refreshApp;
  globalThis.watch = watch;
</script>"""


class Site:
    """An origin with a static server: its files can be swapped at once, as a deployment does."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, str] = {}
        """What every answer has in addition."""
        self.falls_back = False
        """Whether what isn't there is answered with the index page, as many hosts do."""
        self.requests: list[str] = []
        """The paths that were asked for."""
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = urlsplit(self.path).path
                files = site.files
                site.requests.append(path)
                name = path + "index.html" if path.endswith("/") else path
                if name not in files and site.falls_back:
                    name = "/index.html"
                body = files.get(name)
                if body is None:
                    self.answer(404, b"<!doctype html><title>Not found</title>", {"Content-Type": "text/html"})
                    return
                etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
                headers = {"ETag": etag, "Cache-Control": "no-cache", "Content-Type": _media_type(name)}
                if self.headers["If-None-Match"] == etag:
                    self.answer(304, b"", headers)
                else:
                    self.answer(200, body, headers)

            def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in {**headers, **site.headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                with suppress(ConnectionError):
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def served(self) -> Iterator[Self]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def swap(self, files: dict[str, str] | Path) -> None:
        """Serve these files from now on, or those of a folder."""
        if isinstance(files, Path):
            folder = files
            self.files = {f"/{path.relative_to(folder)}": path.read_bytes() for path in _files(folder)}
        else:
            self.files = {name: text.encode() for name, text in files.items()}

    def count(self, path: str) -> int:
        """How often a path was asked for."""
        return self.requests.count(path)

    async def is_asked(self, path: str, times: int) -> None:
        """Wait until a path was asked for so many times, as `count` has it."""
        await eventually(lambda: self.count(path) >= times, 20, f"request {times} for {path}")

    async def is_asked_since(self, path: str, page: str) -> None:
        """Wait until a path was asked for after a page was, the last time."""
        await eventually(
            lambda: path in self.requests[-1 - self.requests[::-1].index(page) :], 20, f"a request for {path}"
        )


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _media_type(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


class Shop:
    """An application without a bundler: its site, its hub, and the page that its versions have."""

    def __init__(self, site: Site, hub: str, app: str) -> None:
        self.site = site
        self.hub = hub
        """The hub's address, as pages know it."""
        self.app = app
        self.way: Callable[[str, str, dict[str, Any] | None], str] = one_tag
        """How its page takes part."""
        self.says_what_it_runs = True
        self.html = 'lang="en"'
        """The attributes of the page's root."""
        self.head = ""
        """Further lines of the page."""
        self.files: dict[str, str] = {}
        """Further files."""

    def swap(self, number: int, *, page: int | None = None, has_version_json: bool = True) -> None:
        """Serve a version; ``page`` is another one where that is still what its pages are."""
        shown = page or number
        stamped = build(self.app, shown) if self.says_what_it_runs else None
        index = f"""<!doctype html>
<html {self.html}>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Shop</title>{self.head}
<main>
  <h1>Version {shown}</h1>
  <label>Name <input></label>
</main>{self.way(self.hub, self.app, stamped)}
"""
        version_json = {"/version.json": json.dumps(build(self.app, number))} if has_version_json else {}
        self.site.swap({"/index.html": index, "/away.html": "<!doctype html>Away", **version_json, **self.files})

    async def record(self, number: int, **fields: object) -> dict[str, Any]:
        """Record a version, and give the record."""
        answer = await asyncio.to_thread(post, self.hub, build(self.app, number, **fields))
        assert answer.status_code == 201, answer.text
        record: dict[str, Any] = answer.json()
        return record

    async def deploy(self, number: int) -> dict[str, Any]:
        """Swap the files, then record."""
        self.swap(number)
        return await self.record(number)


class Gateway:
    """A proxy before a hub that can answer 502 to everything, or hold streams back."""

    def __init__(self, replica: Replica) -> None:
        self.fails = False
        self.holds = False
        self.failures = 0
        """How many 502 it has given."""
        self._replica = replica
        self._passing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await asyncio.gather(*self._passing, return_exceptions=True)

    def cut(self) -> None:
        """Close all connections."""
        for task in self._passing:
            task.cancel()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._passing.add(task)
        async with AsyncExitStack() as stack:
            stack.callback(self._passing.discard, task)
            stack.enter_context(suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError))
            stack.callback(writer.close)
            request = await reader.readuntil(b"\r\n\r\n")
            if self.fails:
                self.failures += 1
                writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            is_held = self.holds and request.startswith(b"GET /events")
            answers, requests = await asyncio.open_connection("127.0.0.1", self._replica.port)
            stack.callback(requests.close)
            requests.write(re.sub(rb"(?i)\r\nconnection: [^\r]*", b"\r\nConnection: close", request))
            writer.write(await answers.readuntil(b"\r\n\r\n"))
            while chunk := await answers.read(65536):
                if not is_held:
                    writer.write(chunk)


async def seen(page: Page, step: str) -> list[Any]:
    """The details of a step's events since the page was loaded."""
    details: list[Any] = await page.evaluate("step => seen.filter((e) => e.step === step).map((e) => e.detail)", step)
    return details


async def becomes(page: Page, condition: str, argument: object = None, timeout: float = 20) -> None:
    """Wait until a function gives true in the page.

    Unlike Playwright's own `wait_for_function` it evaluates nothing inside the page, which a strict policy forbids.
    """
    deadline = time.monotonic() + timeout
    while True:
        with suppress(Error):  # where the page is just being reloaded
            if await page.evaluate(condition, argument):
                return
        assert time.monotonic() < deadline, f"{condition} with {argument} was not true within {timeout} s"
        await asyncio.sleep(0.02)


async def has_heard(page: Page, record: dict[str, Any]) -> None:
    """Wait until the page's watch has this as the newest."""
    newest = "seen.findLast(({ step }) => step === 'deployment')?.detail.deployedAt"
    await becomes(page, f"(id) => {newest} === id", record["deployedAt"])


async def is_live(page: Page) -> None:
    """Wait until the page's watch hears the hub."""
    await becomes(page, "() => seen.findLast(({ step }) => step === 'state')?.detail === 'live'")


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Debian's Chromium, or the one that is there: Playwright's own is never downloaded."""
    program = require("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program,
            args=ARGUMENTS,
            # As browsers come: Playwright turns the back/forward cache off.
            ignore_default_args=["--disable-back-forward-cache"],
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def context_of(
    browser: Browser, errors: list[str] | None = None, **options: Any
) -> AsyncIterator[BrowserContext]:
    """A browser without a past, whose pages write down what they see.

    What is thrown in them is added to ``errors``; where that isn't given, nothing may be thrown.
    """
    thrown: list[str] = [] if errors is None else errors
    context = await browser.new_context(**options)
    context.on("weberror", lambda raised: thrown.append(str(raised.error)))
    await context.add_init_script(SEEN)
    try:
        yield context
    finally:
        await context.close()
    assert errors is not None or not thrown, thrown
