"""What a page of another origin may do, in a real Chromium: read, with whatever headers its tools add, and nothing else."""

import json
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.async_api import Page

from tests.browser_parts import chromium, context_of
from tests.command_parts import Answer, WebServer, in_turn
from tests.parts import TOKEN, Replica, deployment, post

pytestmark = pytest.mark.anyio

TRACING = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "sentry-trace": f"{'1' * 32}-{'2' * 16}-1", "baggage": "a=b"}
FETCH = """async ([url, options]) => {
    try {
        const response = await fetch(url, options);
        return [response.status, (await response.text()).slice(0, 15)];
    } catch (error) {
        return [error.name, ""];
    }
}"""
LISTEN = """(url) => new Promise((resolve) => {
    const source = new EventSource(url);
    source.addEventListener("deployment", ({ data }) => { source.close(); resolve(JSON.parse(data).version); });
    source.onerror = () => { if (source.readyState === EventSource.CLOSED) resolve("gave up"); };
})"""


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    """A page of an origin that isn't the hub's."""
    html = Answer(200, b"<!doctype html><title>shop</title>", {"Content-Type": "text/html"})
    with WebServer(in_turn(html)) as shop:
        async with chromium() as browser, context_of(browser) as context:
            page = await context.new_page()
            await page.goto(shop.url)
            yield page


def origin(page: Page) -> str:
    parts = urlsplit(page.url)
    return f"{parts.scheme}://{parts.netloc}"


@pytest.mark.parametrize("origins", ["*", "its own"])
async def test_a_page_reads_with_the_headers_of_its_tools(origins, page, start_replica):
    """Headers that tracing tools add to each request keep no page from reading."""
    hub: Replica = start_replica(origins="*" if origins == "*" else origin(page))
    post(hub.url)
    url = f"{hub.url}/deployments/web/production"
    read = await page.evaluate(FETCH, [url, {"headers": TRACING}])
    polled = await page.evaluate(FETCH, [f"{url}/latest", {"headers": {**TRACING, "If-None-Match": '"1"'}}])

    assert read == [200, '{"deployments":']
    assert polled == [200, '{"appName":"web']


async def test_a_page_writes_nothing(page, start_replica):
    """A page that somehow has a token can neither record nor forget from a browser: its preflight is refused."""
    hub: Replica = start_replica(origins=origin(page))
    post(hub.url)
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    record = {"method": "POST", "headers": headers, "body": json.dumps(deployment(version="6.6.6"))}
    recorded = await page.evaluate(FETCH, [f"{hub.url}/deployments", record])
    forgotten = await page.evaluate(
        FETCH, [f"{hub.url}/deployments/web/production", {"method": "DELETE", "headers": headers}]
    )
    found = httpx.get(f"{hub.url}/deployments/web/production").json()["deployments"]

    assert recorded == forgotten == ["TypeError", ""]
    assert [one["version"] for one in found] == ["1.0.0"]


@pytest.mark.parametrize("path", ["//events/web/production", "/events/web/production/", "/events//web/production"])
async def test_an_eventsource_with_additional_slashes(path, page, start_replica):
    """An EventSource whose address has a slash too many listens; at a 404 it would give up."""
    hub: Replica = start_replica()
    post(hub.url)

    assert await page.evaluate(LISTEN, f"{hub.url}{path}") == "1.0.0"


async def test_an_eventsource_of_no_channel_gives_up(page, start_replica):
    """One whose names are empty hears of no other application's deployments."""
    hub: Replica = start_replica()
    post(hub.url)

    assert await page.evaluate(LISTEN, f"{hub.url}/events//") == "gave up"
