"""What can go wrong between a page and its hub, in a real Chromium: the page hears of the next deployment all the same."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.browser_parts import Gateway, Shop, Site, becomes, chromium, context_of, is_live, plain
from tests.parts import RedisServer, Replica, eventually

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Let the tests share one loop, and so one browser."""
    return "asyncio"


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest.fixture
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    async with context_of(browser) as context:
        yield context


@pytest.fixture
def hub(redis_server: RedisServer, start_replica: Callable[..., Replica]) -> Replica:
    return start_replica(redis_url=redis_server.url)


@pytest.fixture
def shop(hub: Replica) -> Iterator[Shop]:
    with Site().served() as site:
        shop = Shop(site, hub.url, "shop")
        shop.way = plain
        shop.swap(1)
        yield shop


async def opened(context: BrowserContext, shop: Shop) -> Page:
    """Open the shop, and wait until it hears its hub."""
    page = await context.new_page()
    await page.goto(shop.site.url)
    await is_live(page)
    return page


async def prompts(page: Page, number: int, timeout: float = 20) -> None:
    """Wait for the prompt, about this build."""
    await expect(page.get_by_role("status")).to_have_text(f"New: build #{number}", timeout=timeout * 1000)


async def connection_is(page: Page, state: str, timeout: float = 20) -> None:
    await becomes(page, "(state) => watch.snapshot.connection === state", state, timeout)


async def streams_are(hub: Replica, count: int) -> None:
    await eventually(lambda: hub.health()["streams"] == count, what=f"{count} streams")


@pytest.mark.parametrize("stop", [Replica.kill, Replica.terminate], ids=["killed", "terminated"])
async def test_a_hub_that_restarts_is_heard_after(stop: Callable[[Replica], object], context, hub, shop):
    """A page waits for its hub to come back, and hears what is recorded then."""
    await shop.record(1)
    page = await opened(context, shop)
    await asyncio.to_thread(stop, hub)
    await connection_is(page, "connecting")
    await asyncio.to_thread(hub.start)
    await shop.deploy(2)
    await prompts(page, 2)

    await expect(page.get_by_role("heading")).to_have_text("Version 1")


async def test_a_hub_behind_a_502_is_heard_after(context, hub, shop):
    """An answer that makes an EventSource give up for good is only a while without news."""
    await shop.record(1)
    async with Gateway(hub).opened() as gateway:
        shop.hub = gateway.url
        shop.swap(1)
        page = await opened(context, shop)
        gateway.fails = True
        gateway.cut()
        await eventually(lambda: gateway.failures >= 2, what="a second attempt that gets a 502")
        shop.hub = hub.url
        await shop.record(2)
        await connection_is(page, "connecting")
        assert await page.get_by_role("status").text_content() == ""
        gateway.fails = False
        shop.swap(2)
        await prompts(page, 2)
        await is_live(page)


async def test_streams_that_are_held_back_are_replaced_by_polling(context, hub, shop):
    """Where a proxy lets no stream through, the page finds that out after 15 s, and asks once a minute from then on."""
    await shop.record(1)
    async with Gateway(hub).opened() as gateway:
        gateway.holds = True
        shop.hub = gateway.url
        shop.swap(1)
        page = await context.new_page()
        await page.clock.install()
        await page.goto(shop.site.url)
        shop.hub = hub.url
        await shop.deploy(2)
        await prompts(page, 2, timeout=25)
        await connection_is(page, "polling")
        assert await page.evaluate("performance.now()") >= 15_000
        await shop.deploy(3)
        await page.clock.fast_forward(80_000)
        await prompts(page, 3)
        gateway.holds = False
        await page.clock.fast_forward(300_000)
        await is_live(page)
        await shop.deploy(4)
        await prompts(page, 4)


@pytest.mark.parametrize("unheard", [[], ["freeze", "resume"], ["pagehide", "pageshow"]], ids=" ".join)
async def test_a_page_that_comes_back_from_the_cache_catches_up(unheard: list[str], context, hub, shop):
    """A page in the back/forward cache has no stream; brought back from there, it hears what it missed.

    Chromium says so twice; other browsers only with pagehide and pageshow, and only freeze is for a frozen tab, too.
    """
    await context.add_init_script(
        f"for (const type of {unheard}) {{ addEventListener(type, (e) => e.stopImmediatePropagation(), true); }}"
    )
    await shop.record(1)
    page = await opened(context, shop)
    await page.evaluate("globalThis.isOld = true")
    await streams_are(hub, 1)
    await page.goto(f"{shop.site.url}/away.html")
    await streams_are(hub, 0)
    await shop.deploy(2)
    await page.go_back(wait_until="commit")
    await prompts(page, 2)
    await streams_are(hub, 1)

    assert await page.evaluate("isOld")


async def test_a_lead_that_goes_into_the_cache_passes_the_lead_on(context, hub, shop):
    """Of two tabs the one with the connection goes to another page and comes back: both hear of the deployment."""
    await shop.record(1)
    lead, follower = await opened(context, shop), await opened(context, shop)
    await streams_are(hub, 1)
    await lead.goto(f"{shop.site.url}/away.html")
    await shop.deploy(2)
    await prompts(follower, 2)
    await lead.go_back(wait_until="commit")
    await prompts(lead, 2)

    assert hub.health()["streams"] == 1
    assert hub.metric("vectr0_streams_opened_total") == 2


async def test_a_page_that_was_offline_catches_up(context, hub, shop):
    """Without a network a page waits for the browser to say that it is back."""
    await shop.record(1)
    page = await opened(context, shop)
    await context.set_offline(offline=True)
    await connection_is(page, "offline")
    await streams_are(hub, 0)
    await shop.deploy(2)
    await context.set_offline(offline=False)
    await prompts(page, 2)
    await is_live(page)


@pytest.mark.parametrize("missing", ["BroadcastChannel", "navigator.locks"])
async def test_tabs_that_cannot_share_have_streams_of_their_own(missing: str, context, hub, shop):
    """Where the browser has no locks or no channels, each tab has its own connection."""
    holder, _, name = f"globalThis.{missing}".rpartition(".")
    await context.add_init_script(f"Object.defineProperty({holder}, '{name}', {{ value: undefined }})")
    await shop.record(1)
    one, other = await opened(context, shop), await opened(context, shop)
    await streams_are(hub, 2)
    await shop.deploy(2)

    await prompts(one, 2)
    await prompts(other, 2)


async def test_storage_that_throws_breaks_nothing(context, hub, shop):
    """A page that may keep nothing prompts, and can put the prompt off."""
    for area in ("localStorage", "sessionStorage"):
        await context.add_init_script(
            f"Object.defineProperty(globalThis, '{area}', {{ get() {{ throw new DOMException('', 'SecurityError'); }} }})"
        )
    await shop.record(1)
    page = await opened(context, shop)
    await shop.deploy(2)
    await prompts(page, 2)
    await page.evaluate("watch.dismissUpdate()")
    await expect(page.get_by_role("status")).to_have_text("")
    await shop.deploy(3)
    await prompts(page, 3)
    await page.get_by_role("button", name="Refresh").click()

    await expect(page.get_by_role("heading")).to_have_text("Version 3")


async def test_a_name_that_nobody_recorded_is_said_once(context, hub, shop):
    """A page of a channel without a deployment warns in the console, and hears its first one."""
    warnings: list[str] = []
    context.on("console", lambda message: warnings.append(message.text) if message.type == "warning" else None)
    page = await opened(context, shop)
    await eventually(lambda: warnings, what="a warning")
    await shop.deploy(2)
    await prompts(page, 2)

    assert [re.sub("^vectr0: ", "", warning) for warning in warnings] == [
        "shop/production has no deployment; is its name right?"
    ]
