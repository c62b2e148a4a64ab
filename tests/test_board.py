"""The board, in a real Chromium with the real service: what it shows, how soon, and to whom."""

import asyncio
import json
import os
import re
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, BrowserContext, Locator, Page, expect

from service.page import accepts_html
from tests.browser_parts import Gateway, Shop, Site, build, chromium, context_of, is_live
from tests.parts import TOKEN, Listener, Replica, post, require
from tests.test_clients import NPM, require_npm_package

pytestmark = pytest.mark.anyio

HTML = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
HIDE = """state => {
    Object.defineProperty(document, "visibilityState", { configurable: true, get: () => state });
    document.dispatchEvent(new Event("visibilitychange"));
}"""
"""No tab of a headless browser is ever behind another, so the page is told so."""


BOXES = """[...document.querySelectorAll(".card, .card .bar, .card .version")].map((element) => {
    const { x, y, height } = element.getBoundingClientRect();
    return [x, y, height];
})"""
"""Where the parts of all cards are."""


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
def service(start_replica: Callable[..., Replica]) -> Replica:
    """A service on its embedded Redis."""
    return start_replica()


async def opened(context: BrowserContext, address: str) -> Page:
    """Open the board, and wait until it hears its hub."""
    page = await context.new_page()
    await page.goto(address)
    await expect(status(page)).to_have_text("Live ")
    return page


def status(page: Page) -> Locator:
    """What the board says of itself."""
    return page.locator("header .status")


def card(page: Page, channel: str) -> Locator:
    """A channel on the board."""
    return page.locator(f'.card[href="#/{channel}"]')


async def record(hub: str, app: str, number: int, **fields: object) -> dict[str, Any]:
    answer = await asyncio.to_thread(post, hub, build(app, number, **fields))
    assert answer.status_code in (200, 201), answer.text
    recorded: dict[str, Any] = answer.json()
    return recorded


# Live


async def test_comes_alive(service, context):
    """Before anything is recorded there are two commands for this very service; when they run, the board shows it."""
    await context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = await opened(context, f"{service.url}/")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Nothing is deployed yet")
    copied = []
    for name in ("Copy: Watch a channel", "Copy: Record a deployment"):
        await page.get_by_role("button", name=name).click()
        copied.append(await page.evaluate("navigator.clipboard.readText()"))
    watch, command = copied
    shell = require("bash")
    watching = await asyncio.create_subprocess_exec(
        shell, "-c", f"exec {watch}", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    await expect(page.get_by_text("Somebody listens")).to_be_visible()
    done = await asyncio.to_thread(
        subprocess.run,
        [shell, "-c", command],
        env={**os.environ, "VECTR0_TOKEN": TOKEN},
        capture_output=True,
        check=True,
        timeout=20,
    )
    assert watching.stdout
    seen = await asyncio.wait_for(watching.stdout.readuntil(b'"rollback":false}'), 10)
    watching.terminate()
    await watching.wait()

    recorded = json.loads(done.stdout)
    assert str(recorded["deployedAt"]).encode() in seen
    await expect(page.get_by_role("heading", level=1)).to_have_text("What runs where")
    await expect(card(page, "web/production")).to_contain_text("v1.0.0")
    await expect(page.get_by_role("table")).to_contain_text("production")
    await expect(page.locator("[aria-live=polite]")).to_have_text("v1.0.0 on web/production")


async def test_the_way_to_the_demo(service, context):
    """A token that the address brings is in the command and goes along to /demo, and leaves the address."""
    page = await opened(context, f"{service.url}/#token={TOKEN}")
    await expect(page.locator("pre").last).to_contain_text(f"'Authorization: Bearer {TOKEN}'")
    assert page.url == f"{service.url}/"

    await page.get_by_role("link", name="Try it in a page").click()
    await expect(page.get_by_label("Token")).to_have_value(TOKEN)
    await page.get_by_role("button", name="Record v1.0.1").click()
    await page.goto(f"{service.url}/")
    await expect(card(page, "demo/demo")).to_contain_text("v1.0.1")


@pytest.mark.parametrize("token", ["a%0Atouch%20x", "a%1B[201~", "%", "a'b", "a%22", "%E2%80%AE"])
async def test_what_is_no_token(token, service, context):
    """A link's token that is none stands in no command to copy, goes nowhere, and leaves the address."""
    errors: list[str] = []
    page = await context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    await page.goto(f"{service.url}/#token={token}")
    await expect(page.locator("pre").last).to_contain_text('"Authorization: Bearer $VECTR0_TOKEN"')
    assert page.url == f"{service.url}/"
    await page.get_by_role("link", name="Try it in a page").click()
    await expect(page.get_by_label("Token")).to_have_value("")

    await page.goto(f"{service.url}/demo#token={token}")
    await is_live(page)
    assert page.url == f"{service.url}/demo"
    await expect(page.get_by_label("Token")).to_have_value("")
    assert errors == []


async def test_what_a_card_says(service, context):
    """A card has the version or tag, the commit, the build and the time, which goes on; a change is highlighted."""
    page = await opened(context, f"{service.url}/")
    await record(service.url, "web", 1, gitTag="release-1", gitCommit="3f2c1ab9d8e7f6a5b4c3")
    shown = card(page, "web/production")
    await expect(shown.locator(".version")).to_have_text("release-1")
    await expect(shown.locator(".build")).to_have_text("3f2c1ab #1")
    await expect(shown.locator(".mark")).to_be_hidden()
    await expect(shown).to_have_class("card changed")
    await expect(shown.locator("time")).to_have_text(re.compile(r"^[2-9] seconds ago$"))
    await expect(shown).to_have_class("card", timeout=8000)

    await record(service.url, "web", 2)
    await expect(shown.locator(".version")).to_have_text("v2.0.0")
    await expect(shown).to_have_class("card changed")
    last = re.compile(r"last: v2\.0\.0 on web/production, .*(now|ago)$")
    await expect(page.locator(".summary")).to_contain_text(last)


async def test_rollback(service, context):
    """A way back is said plainly: on the card, in the channel's time line, and aloud."""
    for number in (1, 2):
        await record(service.url, "web", number)
    page = await opened(context, f"{service.url}/")
    await expect(card(page, "web/production")).to_contain_text("v2.0.0")
    await record(service.url, "web", 1)
    await expect(card(page, "web/production").locator(".mark")).to_be_visible()
    await expect(page.locator("[aria-live=polite]")).to_have_text("v1.0.0 is back on web/production")

    await card(page, "web/production").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("web / production v1.0.0 Rolled back")
    steps = page.locator(".timeline .step")
    await expect(steps).to_have_text(["v2.0.0 → v1.0.0 Rolled back", "v1.0.0 → v2.0.0", "First: v1.0.0"])


async def test_a_channel_is_forgotten(service, context):
    """A channel that was forgotten leaves the board with the next connection."""
    await record(service.url, "web", 1)
    await record(service.url, "admin", 1)
    page = await opened(context, f"{service.url}/")
    await expect(page.locator(".card")).to_have_count(2)
    answer = httpx.delete(f"{service.url}/deployments/admin/production", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 204
    await context.set_offline(True)
    await expect(status(page)).to_contain_text("Offline What you see is from")
    await context.set_offline(False)

    await expect(card(page, "admin/production")).to_have_count(0)
    await expect(card(page, "web/production")).to_be_visible()


async def test_background(service, context):
    """While the tab is behind another, its title tells the last change; when it is seen again, no more."""
    await record(service.url, "web", 1)
    page = await opened(context, f"{service.url}/")
    await expect(card(page, "web/production")).to_contain_text("v1.0.0")
    await page.evaluate(HIDE, "hidden")
    await record(service.url, "web", 2)
    await expect(page).to_have_title("v2.0.0 on web/production · VECTR0")
    await record(service.url, "web", 1)
    await expect(page).to_have_title("v1.0.0 is back on web/production · VECTR0")

    await page.evaluate(HIDE, "visible")
    await expect(page).to_have_title("VECTR0")
    await expect(card(page, "web/production").locator(".mark")).to_be_visible()


LARGEST = 2**53 - 1
LONGEST = "9" * 128
HEBREW = "\u05e9\u05dc\u05d5\u05dd 2.0 \u05e2\u05d5\u05dc\u05dd"
"""A version that is written from right to left, as a version may be."""


@pytest.mark.parametrize(
    "build_time", [0, 1, 86_400_000 * 10**8, LARGEST], ids=["none", "1970", "the last date", "none more"]
)
async def test_any_time_of_a_build(build_time, service, context):
    """Whatever a record may hold as the time of its build, its channel's page and the board show all else."""
    errors: list[str] = []
    await record(service.url, "web", 1, buildTime=build_time, buildNumber=LARGEST)
    page = await opened(context, f"{service.url}/")
    page.on("pageerror", lambda error: errors.append(str(error)))
    await expect(card(page, "web/production")).to_contain_text(f"#{LARGEST}")
    await card(page, "web/production").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("v1.0.0")
    await expect(page.locator(".opened > .build")).to_contain_text(re.compile(r"deployed (just now|\d+ seconds? ago)$"))
    await expect(page.locator(".timeline .step")).to_have_text(["First: v1.0.0"])
    built = page.locator(".opened > .build")
    if build_time == LARGEST:
        await expect(built).to_contain_text(f"built {LARGEST} ms after 1970")
    elif build_time:
        await expect(built).to_contain_text("built ")
    else:
        await expect(built).not_to_contain_text("built")

    assert errors == []


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_longest_words(width, scheme, service, context):
    """The longest names and versions stay in their cards and on the page; what is written from the right ends there."""
    long = "a" * 64
    for app, fields in (
        (long, {"environment": long, "version": LONGEST, "gitCommit": long, "buildNumber": LARGEST}),
        ("web", {"gitTag": "W" * 128, "environment": long}),
        ("api", {"version": HEBREW, "gitTag": None}),
        ("short", {}),
    ):
        await record(service.url, app, 1, **fields)
        await record(service.url, app, 2, **fields)
    page = await context.new_page()
    await page.set_viewport_size({"width": width, "height": 900})
    await page.emulate_media(color_scheme=scheme)
    await page.goto(f"{service.url}/")
    await expect(page.locator(".card")).to_have_count(4)
    outside = """[
        ...[...document.querySelectorAll(".card :is(.environment, .what, .version, .build, .age, .tabs)")].filter(
            (one) =>
                getComputedStyle(one.closest(".where") ?? one).clipPath === "none" &&
                one.getBoundingClientRect().right > one.closest(".card").getBoundingClientRect().right + 1,
        ),
        ...[...document.querySelectorAll(".timeline > li")].filter((one) => {
            const [step, build] = [".step", ".build"].map((name) => one.querySelector(name).getBoundingClientRect());
            return step.right > build.left + 1 && step.bottom > build.top + 1;
        }),
        ...[...document.querySelectorAll("main :is(h1, h2, p, li, strong, .where, .said)")].filter(
            (one) => one.getBoundingClientRect().right > innerWidth + 1 && !one.closest(".grid, pre, .card, .unseen"),
        ),
    ].map((one) => one.outerHTML.slice(0, 200))"""
    places = {"board": "#/", "channel": f"#/{long}/{long}", "right to left": "#/api/production", "search": "#?q=9"}
    for name, place in places.items():
        await page.goto(f"{service.url}/{place}")
        await expect(page.locator("main h1")).to_be_visible()
        await page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        if os.environ.get("SHOTS"):
            await page.screenshot(path=f"{os.environ['SHOTS']}/{name}-{width}-{scheme}.png", full_page=True)
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        assert await page.evaluate(outside) == [], name


# Who runs what


@asynccontextmanager
async def browsers(replica: Replica, count: int, running: dict[str, Any]) -> AsyncIterator[None]:
    """So many browsers with a page open: a stream each, which says what it runs."""
    url = f"{replica.url}/events/web/production?running={running['gitCommit']}~{running['buildNumber']}"
    async with AsyncExitStack() as stack:
        for _ in range(count):
            stack.push_async_callback((await Listener.open(url)).close)
        yield


async def shows(board: Page, channel: str, tabs: str, timeout: float = 10) -> None:
    """Wait until a card says this of its browsers."""
    await expect(card(board, channel).locator(".tabs")).to_have_text(tabs, timeout=timeout * 1000)


async def test_adoption(redis_server, start_replica, browser, context):
    """Of thirty browsers at two replicas some refresh: both boards follow, also when a replica is killed."""
    one, other = (start_replica(redis_url=redis_server.url) for _ in range(2))
    async with AsyncExitStack() as stack:
        shop = Shop(stack.enter_context(Site().served()), one.url, "web")
        shop.swap(1)
        first = await shop.record(1)
        pages = []
        for _ in range(6):
            pages.append(await (await stack.enter_async_context(context_of(browser))).new_page())
            await pages[-1].goto(shop.site.url)
            await is_live(pages[-1])
        for replica, count in ((one, 4), (other, 5)):
            await stack.enter_async_context(browsers(replica, count, first))
        async with browsers(one, 8, first), browsers(other, 7, first):
            boards = [await opened(context, f"{replica.url}/") for replica in (one, other)]
            for board in boards:
                await shows(board, "web/production", "100% run it 30 browsers")
            second = await shop.deploy(2)
            for board in boards:
                await shows(board, "web/production", "0% run it 30 browsers")

        for page in pages[:3]:
            await page.get_by_role("button", name="Refresh").click()
        await stack.enter_async_context(browsers(one, 8, second))
        async with browsers(other, 7, second):
            for board in boards:
                await shows(board, "web/production", "60% run it 30 browsers")
            await boards[0].goto(f"{one.url}/#/web/production")
            await expect(boards[0].locator(".sentence")).to_have_text("60% 18 of 30 open browsers run it.")
            running = boards[0].locator(".timeline .running")
            await expect(running).to_have_text(["18 browsers", "12 browsers still on it"])
            legend = boards[0].locator(".curve .levels li")
            after = re.compile(r"^50% after [\d.]+ s$")
            await expect(legend).to_have_text([after, "90% not yet", "99% not yet"], timeout=30_000)
            described = re.compile(r"run v2\.0\.0: 50% after [\d.]+ s, now 60% of 30 browsers$")
            await expect(boards[0].get_by_role("img", name=described)).to_be_visible()
            await boards[0].get_by_text("As a table").click()
            await expect(boards[0].locator("figure tbody tr").last).to_contain_text("60%18 of 30 browsers")

            other.kill()
            await boards[0].goto(f"{one.url}/#/")
            await shows(boards[0], "web/production", "61% run it 18 browsers", timeout=15)


# When something is away


async def test_redis_outage(redis_server, start_replica, context):
    """While Redis is away the board says so and marks what is old; when it is back, all goes on."""
    service: Replica = start_replica(redis_url=redis_server.url)
    first = await record(service.url, "web", 1)
    page = await opened(context, f"{service.url}/")
    async with browsers(service, 2, first):
        await shows(page, "web/production", "100% run it 2 browsers")
        redis_server.kill()
        away = re.compile(r"^Redis is away What you see is from \d\d:\d\d\.$")
        await expect(status(page)).to_have_text(away, timeout=25_000)
        await expect(page.locator("html")).to_have_class("old")
        old = re.compile(r"^100% run it 2 browsers at \d\d:\d\d$")
        await expect(card(page, "web/production").locator(".tabs.old")).to_have_text(old, timeout=25_000)

        redis_server.start()
        await expect(status(page)).to_have_text("Live ", timeout=25_000)
        await expect(page.locator("html")).to_have_class("")
        await shows(page, "web/production", "100% run it 2 browsers", timeout=25)
        await record(service.url, "web", 2)
        await expect(card(page, "web/production").locator(".version")).to_have_text("v2.0.0")
        await shows(page, "web/production", "0% run it 2 browsers")


async def test_opened_while_redis_is_away(redis_server, start_replica, context):
    """A board that is opened then says that Redis is away, doesn't say that nothing is deployed, and fills up later."""
    service: Replica = start_replica(redis_url=redis_server.url)
    await record(service.url, "web", 1)
    redis_server.kill()
    service.kill()
    service.start()
    page = await context.new_page()
    await page.goto(f"{service.url}/")
    await expect(status(page)).to_contain_text("Redis is away", timeout=25_000)
    await expect(page.locator("main")).to_have_text(re.compile("^The hub hasn.t said yet what runs where.$"))

    redis_server.start()
    await expect(card(page, "web/production")).to_contain_text("v1.0.0", timeout=25_000)
    await expect(page.locator(".changed")).to_have_count(0)


async def test_the_hub_is_restarted(redis_server, start_replica, context):
    """While the hub is away the board says that it reconnects, and then shows what it missed."""
    services = [start_replica(redis_url=redis_server.url) for _ in range(2)]
    await record(services[0].url, "web", 1)
    page = await opened(context, f"{services[0].url}/")
    services[0].kill()
    await expect(status(page)).to_have_text(re.compile(r"^Reconnecting What you see is from \d\d:\d\d\.$"))
    await expect(page.locator("html")).to_have_class("old")
    await record(services[1].url, "web", 2)

    services[0].start()
    await expect(card(page, "web/production")).to_contain_text("v2.0.0", timeout=40_000)
    await expect(status(page)).to_have_text("Live ")


async def test_streams_are_held_back(service, context):
    """Where a proxy holds streams back, the board says that it polls, and shows what runs all the same."""
    await record(service.url, "web", 1)
    async with Gateway(service).opened() as gateway:
        gateway.holds = True
        page = await context.new_page()
        await page.goto(f"{gateway.url}/")
        await expect(status(page)).to_contain_text("Polling No stream gets through.", timeout=30_000)
        await expect(card(page, "web/production")).to_contain_text("v1.0.0")


async def test_back_to_the_board(service, context):
    """Who comes back to the board by the browser's button sees what came in between."""
    await record(service.url, "web", 1)
    page = await opened(context, f"{service.url}/")
    await page.goto(f"{service.url}/livez")
    await record(service.url, "web", 2)
    await page.evaluate("history.back()")
    await expect(card(page, "web/production")).to_contain_text("v2.0.0")
    await expect(status(page)).to_have_text("Live ")
    await record(service.url, "web", 3)
    await expect(card(page, "web/production")).to_contain_text("v3.0.0")


# A channel, and the search


async def test_direct_link(service, context):
    """A link opens a channel: what is live, and its ten deployments with what each brought and how long it was live."""
    for number in range(1, 13):
        await record(service.url, "web", number)
    page = await opened(context, f"{service.url}/#/web/production")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("web / production v12.0.0")
    await expect(page).to_have_title("web/production · VECTR0")
    items = page.locator(".timeline > li")
    await expect(items).to_have_count(10)
    await expect(items.first).to_contain_text("v11.0.0 → v12.0.0")
    await expect(items.nth(1).locator(".times")).to_have_text(re.compile(r"^\d\d:\d\d · live for [\d.]+ s$"))
    await expect(items.last).to_contain_text("… → v3.0.0")

    await record(service.url, "web", 13)
    await expect(page.get_by_role("heading", level=1)).to_contain_text("web / production v13.0.0")
    await expect(items).to_have_count(10)
    await expect(items.first).to_contain_text("v12.0.0 → v13.0.0")


async def test_link_to_a_channel_without_deployments(service, context):
    """Such a page has the command for this channel, and waits for the first deployment."""
    page = await opened(context, f"{service.url}/#/shop/pr-7")
    await expect(page.get_by_text("Nothing has been recorded here")).to_be_visible()
    await expect(page.locator("pre:visible")).to_contain_text('"appName":"shop"')
    await record(service.url, "shop", 1, environment="pr-7")

    await expect(page.get_by_role("heading", level=1)).to_contain_text("shop / pr-7 v1.0.0")
    await expect(page.get_by_text("Nothing has been recorded here")).to_be_hidden()


async def test_search(service, context):
    """What is asked for is found where it is live and where it was, by tag, version and commit; it makes a link."""
    await record(service.url, "web", 1, gitTag="v1.4.0")
    await record(service.url, "web", 2)
    await record(service.url, "admin", 1, gitTag="v1.4.0", environment="staging")
    page = await opened(context, f"{service.url}/")
    await page.keyboard.press("/")
    await page.keyboard.type("v1.4.0")
    heading = page.get_by_role("heading", level=1)
    await expect(heading).to_have_text("v1.4.0 is live in 1 place, and was in 1.")
    rows = page.locator(".results li")
    await expect(rows).to_have_count(2)
    await expect(rows.first).to_contain_text(re.compile(r"admin/staging v1\.4\.0 .*since "))
    was = re.compile(r"web/production v1\.4\.0 .*for .* s, until .*, when v2\.0\.0 came")
    await expect(rows.last).to_contain_text(was)
    await expect(page.locator("[aria-live=polite]")).to_have_text("v1.4.0 is live in 1 place, and was in 1.")
    assert page.url == f"{service.url}/#?q=v1.4.0"

    await record(service.url, "admin", 2, environment="staging")
    await expect(heading).to_have_text("v1.4.0 is live nowhere; it was in 2 places.")
    await page.get_by_role("searchbox").fill("20ffee")
    await expect(heading).to_have_text("20ffee is live in 2 places.")
    await page.goto("about:blank")
    await page.goto(f"{service.url}/#?q=v1.4.0")
    await expect(heading).to_have_text("v1.4.0 is live nowhere; it was in 2 places.")
    await expect(page.get_by_role("searchbox")).to_have_value("v1.4.0")
    await page.get_by_role("searchbox").fill("v9")
    await expect(heading).to_have_text(re.compile(r"^v9 isn.t known\.$"))


async def test_keyboard(service, context):
    """Everything is done without a mouse: from card to card, into a channel and back to its card, and the search."""
    for app in ("admin", "web"):
        for environment in ("production", "staging"):
            await record(service.url, app, 1, environment=environment)
    page = await opened(context, f"{service.url}/")
    await card(page, "admin/production").focus()
    for key, channel in [("ArrowDown", "web/production"), ("ArrowRight", "web/staging"), ("ArrowRight", "web/staging"),
                         ("ArrowUp", "admin/staging"), ("ArrowLeft", "admin/production")]:  # fmt: skip
        await page.keyboard.press(key)
        await expect(card(page, channel)).to_be_focused()
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_be_focused()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("web / production")
    await page.keyboard.press("Escape")
    await expect(card(page, "web/production")).to_be_focused()

    await page.keyboard.press("/")
    await expect(page.get_by_role("searchbox")).to_be_focused()
    await page.keyboard.type("10ffee0")
    await expect(page.locator(".results a")).to_have_count(4)
    await page.keyboard.press("Enter")
    await expect(page.locator(".results a").first).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("heading", level=1)).to_have_text("What runs where")
    await expect(page.get_by_role("searchbox")).to_have_value("")
    await page.keyboard.press("/")
    await page.keyboard.type("/")
    await expect(page.get_by_role("searchbox")).to_have_value("/")


# Many


async def test_many_channels(redis_server, start_replica, context):
    """Of 200 channels a deployment changes one card and nothing else, and none of 100 in a row holds the page up."""
    service: Replica = start_replica(redis_url=redis_server.url)
    environments = ("production", "staging", "test", "dev")
    names = [(f"app-{app}", environment) for app in range(50) for environment in environments]

    async def record_all(number: int, count: int) -> None:
        async with httpx.AsyncClient() as client:
            for app, environment in names[:count]:
                answer = await client.post(
                    f"{service.url}/deployments",
                    json=build(app, number, environment=environment),
                    headers={"Authorization": f"Bearer {TOKEN}"},
                )
                assert answer.status_code == 201

    await record_all(1, 200)
    page = await opened(context, f"{service.url}/")
    await expect(page.locator(".card")).to_have_count(200)
    await expect(page.locator(".card .tabs:not([hidden])")).to_have_count(200)
    await page.evaluate(
        """() => {
            globalThis.touched = new Set();
            globalThis.tasks = [];
            globalThis.shifts = [];
            globalThis.frames = [];
            new MutationObserver((records) => {
                for (const { target } of records) {
                    const element = target.nodeType === 1 ? target : target.parentElement;
                    if (!element?.closest("time, .summary")) {
                        touched.add(element?.closest(".card")?.getAttribute("href") ?? element?.className);
                    }
                }
            }).observe(document.querySelector("main"), {
                subtree: true, childList: true, characterData: true, attributes: true,
            });
            const observe = (type, list) =>
                new PerformanceObserver((seen) => list.push(...seen.getEntries().map((entry) => entry.toJSON())))
                    .observe({ type });
            observe("longtask", tasks);
            observe("layout-shift", shifts);
            const frame = (at) => { frames.push(at); requestAnimationFrame(frame); };
            requestAnimationFrame(frame);
        }"""
    )
    boxes = await page.evaluate(BOXES)
    await record(service.url, "app-7", 2)
    await expect(card(page, "app-7/production")).to_contain_text("v2.0.0")
    touched = await page.evaluate("[...touched]")
    await record_all(3, 100)
    await expect(card(page, "app-24/dev")).to_contain_text("v3.0.0")
    tasks = await page.evaluate("tasks.map(({ duration }) => duration)")
    gaps = await page.evaluate("frames.slice(1).map((at, i) => at - frames[i])")

    assert touched == ["#/app-7/production"]
    assert sum(await page.evaluate("shifts.map(({ value }) => value)")) < 0.01
    assert await page.evaluate(BOXES) == boxes
    assert max(tasks, default=0) < 100
    assert sorted(gaps)[len(gaps) // 2] < 34
    assert sorted(gaps)[int(len(gaps) * 0.95)] < 100


# For everybody


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
async def test_accessibility(service, context, scheme, width):
    """axe-core finds nothing in any part of the board, and a phone needn't scroll sideways."""
    require_npm_package("axe-core")
    page = await context.new_page()
    await page.set_viewport_size({"width": width, "height": 800})
    await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    await page.goto(f"{service.url}/")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Nothing is deployed yet")
    await page.evaluate(Path(NPM / "node_modules/axe-core/axe.min.js").read_text())
    found = {"start": await axe(page)}
    for number in (1, 2, 1):
        await record(service.url, "web", number)
    await record(service.url, "admin", 3, environment="staging", gitTag="release-2026-11-23+build.1204")
    await expect(page.locator(".card")).to_have_count(2)
    found["board"] = await axe(page)
    await card(page, "web/production").click()
    await expect(page.locator(".timeline > li")).to_have_count(3)
    found["channel"] = await axe(page)
    await page.get_by_role("searchbox").fill("1")
    await expect(page.locator(".results li")).to_have_count(2)
    found["results"] = await axe(page)

    assert found == {"start": [], "board": [], "channel": [], "results": []}


async def axe(page: Page) -> list[Any]:
    """What axe-core finds, and whether the page is too wide."""
    found: list[Any] = await page.evaluate(
        "axe.run().then(({ violations }) => violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]))"
    )
    is_wide = await page.evaluate("document.documentElement.scrollWidth > innerWidth")
    return found + (["too wide"] if is_wide else [])


async def test_a_phone_names_the_environments(service, context):
    """Where there are no columns, each card says its environment; the table is one for a screen reader all the same."""
    await record(service.url, "web", 1)
    page = await context.new_page()
    await page.set_viewport_size({"width": 390, "height": 800})
    await page.goto(f"{service.url}/")
    environment = card(page, "web/production").get_by_text("production", exact=True)
    await expect(environment).to_be_in_viewport()
    await expect(environment.locator("..")).to_have_css("clip-path", "none")
    await expect(page.get_by_role("table", name="What runs where")).to_be_visible()
    await expect(page.get_by_role("rowheader", name="web")).to_be_visible()
    await expect(page.get_by_role("cell")).to_have_count(1)
    await page.set_viewport_size({"width": 1280, "height": 800})
    await expect(environment.locator("..")).to_have_css("clip-path", "inset(50%)")


async def test_reduced_motion(service, context):
    """Who wants less motion sees a change highlighted, and nothing move."""
    page = await context.new_page()
    await page.emulate_media(reduced_motion="reduce")
    await page.goto(f"{service.url}/")
    await expect(page.get_by_text("Nothing is deployed yet")).to_be_visible()
    await record(service.url, "web", 1)
    await expect(card(page, "web/production")).to_have_class("card changed")

    assert await page.evaluate("document.getAnimations().length") == 0
    style = "getComputedStyle(document.querySelector('.card')).backgroundColor"
    changed = await page.evaluate(style)
    await expect(card(page, "web/production")).to_have_class("card", timeout=8000)
    assert await page.evaluate(style) != changed


# As it is served


def test_policy(service):
    """The page may load nothing but this service's files, talk to nobody else, and be framed by nobody."""
    answer = httpx.get(f"{service.url}/", headers=HTML)
    policy = dict(directive.split(" ", 1) for directive in answer.headers["content-security-policy"].split("; "))

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }


@pytest.mark.parametrize("prefix", ["", "/hub"])
async def test_nothing_from_elsewhere(start_replica, context, prefix):
    """All that the page loads is this service's, kept for ever below its build; the policy has nothing to forbid."""
    service: Replica = start_replica(root_path=prefix)
    page = await context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await record(service.url + prefix, "web", 1)
    await page.goto(f"{service.url}{prefix}/#/web/production")
    await expect(page.locator(".timeline > li")).to_have_count(1)
    await page.get_by_role("searchbox").fill("v1")
    await expect(page.locator(".results li")).to_have_count(1)
    files = [url for url in asked if "/dashboard/" in url]

    assert all(url.startswith(f"{service.url}{prefix}/") for url in asked)
    assert {url.rpartition("/")[2] for url in files} >= {"board.js", "board.css"}
    for url in files:
        answer = httpx.get(url)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert await page.evaluate("violations") == []


def test_prefix_without_a_slash(start_replica):
    """The prefix alone leads to the board, whose links are right below it only."""
    service = start_replica(root_path="/some/hub")
    answer = httpx.get(f"{service.url}/some/hub")

    assert answer.status_code == 308
    assert str(answer.url.join(answer.headers["location"])) == f"{service.url}/some/hub/"


def test_other_programs(service):
    """What doesn't ask for HTML by name, such as curl, is told what there is for it; no cache mixes the two up."""
    others = [httpx.get(f"{service.url}/", headers={"Accept": accept}) for accept in ("*/*", "application/json", "")]
    page = httpx.get(f"{service.url}/", headers=HTML)

    for answer in others:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert "openapi.json" in answer.text
    assert {answer.headers["vary"] for answer in others} == {"Accept, Origin"}
    assert page.headers["vary"] == "Accept-Encoding, Accept, Origin"


def test_off(start_replica):
    """Where the board is turned off there is no page, neither for a browser nor for others, who are told why."""
    service = start_replica(board="off")
    assert "See what runs where" not in service.log, "the greeting names no page that isn't there"
    answers = [httpx.get(f"{service.url}/", headers=headers) for headers in (HTML, {})]

    for answer in answers:
        assert answer.status_code == 404
        assert "VECTR0_BOARD" in answer.json()["detail"]


def test_if_none_match(service):
    """One who has the page gets 304."""
    first = httpx.get(f"{service.url}/", headers=HTML)
    again = httpx.get(f"{service.url}/", headers={**HTML, "If-None-Match": first.headers["etag"]})

    assert first.headers["content-encoding"] in ("br", "gzip")
    assert again.status_code == 304


@pytest.mark.parametrize(
    "path", ["0.0.1-000000000000/board.js", "{build}/board.html", "{build}/..%2Fapi.py", "board.js"]
)
def test_404(service, path):
    """Files of another build aren't served, nor anything else; no cache remembers that."""
    page = httpx.get(f"{service.url}/", headers=HTML).text
    [build_of_page] = re.findall(r"dashboard/([^/]+)/board\.js", page)[:1]
    answer = httpx.get(f"{service.url}/dashboard/{path.format(build=build_of_page)}")

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("accept", "accepted"),
    [
        (["text/html"], True),
        (["text/html,application/xhtml+xml,*/*;q=0.8"], True),
        (["application/json", "TEXT/HTML ; q=0.5"], True),
        (["application/xhtml+xml"], True),
        (["*/*"], False),
        ([], False),
        (["text/html;q=0, */*"], False),
        (["text/html;q=0.0"], False),
        (["text/plain"], False),
    ],
)
def test_accept(accept, accepted):
    """Only who asks for HTML by name gets it."""
    assert accepts_html(accept) is accepted
