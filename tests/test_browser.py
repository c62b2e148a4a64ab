"""What a visitor sees, in a real Chromium: from "deployed" to the notification, and to the page that runs the new version."""

import asyncio
import json
import os
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, BrowserContext, Locator, Page, expect

from tests.browser_parts import Shop, Site, becomes, build, chromium, context_of, has_heard, is_live, seen
from tests.parts import TOKEN, Replica, eventually, require
from tests.test_clients import NPM, require_npm_package

pytestmark = pytest.mark.anyio

TITLE = "New version available!"
POLICY = (
    "default-src 'none'; script-src 'self' {hub}; connect-src 'self' {hub}; base-uri 'none'; form-action 'none'; "
    "img-src data:; worker-src 'self'"
)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Let the tests share one loop, and so one browser."""
    return "asyncio"


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """A hub with a channel for each test."""
    replica = Replica(tmp_path_factory.mktemp("hub"))
    try:
        yield replica.start()
    finally:
        replica.kill()


@pytest.fixture
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    async with context_of(browser) as context:
        yield context


@pytest.fixture
async def page(context: BrowserContext) -> Page:
    return await context.new_page()


@pytest.fixture
def site() -> Iterator[Site]:
    with Site().served() as site:
        yield site


@pytest.fixture
def shop(site: Site, hub: Replica, request: pytest.FixtureRequest) -> Shop:
    shop = Shop(site, hub.url, re.sub(r"\W+", "-", request.node.name)[:64])
    shop.swap(1)
    return shop


async def opened(page: Page, shop: Shop) -> None:
    """Open the shop, and wait until it hears its hub."""
    await page.goto(shop.site.url)
    await is_live(page)


def prompt(page: Page, title: str = TITLE) -> Locator:
    return page.get_by_role("region", name=title)


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


async def prompts(page: Page, number: int, title: str = TITLE, timeout: float = 20) -> None:
    """Wait for the prompt, about this build."""
    await expect(prompt(page, title)).to_contain_text(f"Build #{number}", timeout=timeout * 1000)


async def is_quiet(page: Page) -> None:
    await expect(page.locator("update-notification").get_by_role("region")).to_have_count(0)


async def runs(page: Page, number: int) -> None:
    await expect(page.get_by_role("heading")).to_have_text(f"Version {number}")


async def builds_prompted(page: Page) -> list[int]:
    """The builds that the page prompted for since it was loaded."""
    return [update["buildNumber"] for update in await seen(page, "update")]


async def posted_with_curl(hub: Replica, version_json: bytes) -> dict[str, Any]:
    """Record what a build wrote, as a pipeline does, and give the record."""
    process = await asyncio.create_subprocess_exec(
        require("curl"), "--silent", "--show-error", "--fail-with-body", "--json", "@-",
        "--header", f"Authorization: Bearer {TOKEN}", f"{hub.url}/deployments",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    answer, _ = await process.communicate(version_json)
    assert process.returncode == 0, answer
    record: dict[str, Any] = json.loads(answer)
    return record


async def becomes_visible(page: Page) -> int:
    """Wait until the card is seen, and give the time of the first frame that has it."""
    at: int = await page.evaluate(
        """async () => {
            const card = document.querySelector("update-notification").shadowRoot.querySelector("[part=card]");
            while (!card.checkVisibility()) {
                await new Promise(requestAnimationFrame);
            }
            return Date.now();
        }"""
    )
    return at


async def is_prompted_and_refreshed(page: Page, hub: Replica, version_json: bytes) -> dict[str, Any]:
    """Post a version, see the notification come in time, and click Refresh."""
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(becomes_visible(page))
        record = await posted_with_curl(hub, version_json)
    visible_at = waiting.result()
    await button(page, "Refresh").click()

    assert visible_at - record["deployedAt"] < 2000
    return record


# A real application


def built(folder: Path, app: str, hub: Replica, number: int, *options: str) -> Path:
    """Build the sample application as a CI does, from a source of this version's own."""
    require_npm_package("vite")
    stamped = {
        "VERSION": f"{number}.0.0", "GITHUB_SHA": f"{number}0ffee0", "GITHUB_RUN_NUMBER": str(number),
        "APP_NAME": app, "ENVIRONMENT": "production", "VECTR0_URL": hub.url,
    }  # fmt: skip
    out = folder / f"{app}-{number}"
    script = Path(__file__).parent / "app" / "build.mjs"
    done = subprocess.run(
        [require("node"), str(script), "--out", str(out), "--source", str(number), *options],
        env={"PATH": os.environ["PATH"], **stamped},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")  # and no warning of a bundler's
    return out


async def shows(page: Page, number: int) -> None:
    await expect(page.get_by_test_id("version")).to_have_text(f"{number}.0.0")


@pytest.mark.parametrize("vite", ["vite", "vite7"])
async def test_a_vite_and_react_application(vite: str, page, site, hub, tmp_path):
    """From the swap of the files and a curl to the notification, and to the page that runs the new version."""
    options = ["--vite7"] if vite == "vite7" else []
    one, two = (built(tmp_path, f"react-{vite}", hub, number, *options) for number in (1, 2))
    site.headers["Content-Security-Policy"] = POLICY.format(hub=hub.url)
    site.swap(one)
    await posted_with_curl(hub, (one / "version.json").read_bytes())
    await opened(page, Shop(site, hub.url, "react"))
    await shows(page, 1)
    await expect(page.get_by_test_id("update")).to_have_text("no update")
    site.swap(two)
    record = await is_prompted_and_refreshed(page, hub, (two / "version.json").read_bytes())
    await shows(page, 2)
    await has_heard(page, record)
    await is_quiet(page)

    assert await builds_prompted(page) == []
    assert await page.evaluate("violations") == []
    assert site.count("/") == 2


async def test_a_chunk_that_is_gone_leads_to_one_reload(browser, site, hub, tmp_path):
    """A page whose chunks were dropped with its version reloads, and not again for pages that don't come."""
    one, two = (built(tmp_path, "chunks", hub, number) for number in (1, 2))
    site.swap(one)
    errors: list[str] = []
    async with context_of(browser, errors) as context:
        page = await context.new_page()
        await opened(page, Shop(site, hub.url, "chunks"))
        await shows(page, 1)
        site.swap(two)
        await page.get_by_test_id("details").click()
        await shows(page, 2)
        await page.get_by_test_id("details").click()
        await expect(page.get_by_test_id("source")).to_have_text("2")
        assert site.count("/") == 2

        await page.reload()
        await shows(page, 2)
        del site.files[next(name for name in site.files if re.fullmatch(r"/assets/Details-[^/]*\.js", name))]
        site.files["/version.json"] = json.dumps(build("chunks", 3)).encode()
        async with page.expect_event("load"):
            await page.get_by_test_id("details").click()
        await shows(page, 2)
        async with page.expect_event("requestfinished", lambda request: "version.json" in request.url):
            await page.get_by_test_id("details").click()
        await page.evaluate("fetch('/version.json').then((answer) => answer.json())")  # what follows has followed
        assert await seen(page, "beforerefresh") == []

    assert site.count("/") == 4
    assert all("dynamically imported module" in error for error in errors), errors


# One tag


@pytest.mark.parametrize("says_what_it_runs", [True, False], ids=["stamped", "bare"])
async def test_a_page_with_one_tag(says_what_it_runs, page, site, shop, hub):
    """A page without a bundler gets there too; without attributes it goes by the version.json of its loading."""
    shop.says_what_it_runs = says_what_it_runs
    shop.swap(1)
    await shop.record(1)
    await opened(page, shop)
    if not says_what_it_runs:
        await site.is_asked_since("/version.json", "/")
    await runs(page, 1)
    shop.swap(2)
    record = await is_prompted_and_refreshed(page, hub, json.dumps(build(shop.app, 2)).encode())
    await runs(page, 2)
    await has_heard(page, record)
    if not says_what_it_runs:
        await site.is_asked_since("/version.json", "/")
    await is_quiet(page)
    await shop.deploy(3)
    await prompts(page, 3)

    assert await builds_prompted(page) == [3]


async def test_a_strict_policy_with_trusted_types_is_kept(page, site, shop):
    """A page that allows the hub's scripts and nothing else has the notification, as it is meant to look."""
    site.headers["Content-Security-Policy"] = (
        POLICY.format(hub=shop.hub) + "; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    await shop.record(1)
    await opened(page, shop)
    await shop.deploy(2)
    await prompts(page, 2)
    assert await page.evaluate("violations") == []
    assert await page.locator("update-notification").evaluate("(e) => getComputedStyle(e).position") == "fixed"
    await button(page, "Refresh").click()
    await runs(page, 2)
    assert await page.evaluate("violations") == []
    await page.evaluate("document.body.setAttribute('style', 'color: red')")

    assert len(await page.evaluate("violations")) == 1


# When to prompt


async def test_nothing_prompts_before_the_files_are_swapped(page, site, shop):
    """A deployment that isn't served yet is looked for, and prompts when it is."""
    await shop.record(1)
    await opened(page, shop)
    looks = site.count("/version.json")
    await shop.record(2)
    await site.is_asked("/version.json", looks + 2)
    assert await builds_prompted(page) == []
    await is_quiet(page)
    shop.swap(2)
    await prompts(page, 2)


@pytest.mark.parametrize("host", ["404", "index page", "another application"])
async def test_without_a_check_a_deployment_prompts_at_once(host: str, page, site, shop):
    """Where no version.json of the application is to be had, the hub is believed, but for a build older than the page."""
    site.falls_back = host == "index page"
    if host == "another application":
        shop.files["/version.json"] = json.dumps(build("other", 1))
    shop.swap(3, has_version_json=False)
    await opened(page, shop)
    await shop.record(2)
    await site.is_asked("/version.json", 1)
    await shop.record(4)
    await prompts(page, 4)

    assert await builds_prompted(page) == [4]


async def test_later_holds_until_the_next_deployment(page, site, shop):
    """Who chose Later is asked about the next version, and not after a reload."""
    await shop.record(1)
    await opened(page, shop)
    second = await shop.record(2)
    shop.swap(2, page=1)
    await prompts(page, 2)
    await button(page, "Later").click()
    await is_quiet(page)
    looks = site.count("/version.json")
    await page.reload()
    await has_heard(page, second)
    await site.is_asked("/version.json", looks + 1)
    await runs(page, 1)
    shop.swap(3, page=1)
    await shop.record(3)
    await prompts(page, 3)

    assert await builds_prompted(page) == [3]


async def test_a_rollback_is_an_update_for_those_on_the_bad_build(page, shop):
    """Going back prompts, and is said to be that."""
    await shop.record(1)
    await shop.deploy(2)
    await opened(page, shop)
    record = await shop.deploy(1)
    await prompts(page, 1, "Earlier version restored")
    await button(page, "Refresh").click()
    await runs(page, 1)
    await has_heard(page, record)
    await is_quiet(page)


async def test_deployments_in_a_row_are_one_prompt(page, shop):
    """Of three deployments the newest is prompted for; putting that off puts all off."""
    await shop.record(1)
    await opened(page, shop)
    shop.swap(4, page=1)
    for number in (2, 3, 4):
        record = await shop.record(number)
    await prompts(page, 4)
    await button(page, "Later").click()
    await is_quiet(page)
    await page.reload()
    await has_heard(page, record)
    shop.swap(5, page=1)
    await shop.record(5)
    await prompts(page, 5)

    assert await builds_prompted(page) == [5]


async def test_the_prompt_goes_when_the_page_runs_the_newest_again(page, shop):
    """A deployment that is taken back needs no refresh."""
    await shop.record(1)
    await opened(page, shop)
    await shop.deploy(2)
    await prompts(page, 2)
    await shop.deploy(1)
    await is_quiet(page)


# Tabs


async def test_tabs_share_one_connection_and_what_was_dismissed(context, shop, start_replica):
    """Two tabs are one stream at the hub; both prompt, and Later in one is Later in both."""
    hub = start_replica()
    shop.hub = hub.url
    shop.swap(1)
    await shop.record(1)
    one, other = await context.new_page(), await context.new_page()
    for page in (one, other):
        await opened(page, shop)
    await shop.deploy(2)
    for page in (one, other):
        await prompts(page, 2)
    assert hub.health()["streams"] == hub.metric("vectr0_streams_opened_total") == 1
    await button(other, "Later").click()
    for page in (one, other):
        await is_quiet(page)
    assert [len(await seen(page, "dismiss")) for page in (one, other)] == [0, 1]


async def test_the_lead_passes_on_when_its_tab_is_closed(context, shop, start_replica):
    """Of three tabs the one with the connection goes, then the next one: who is left hears everything."""
    hub = start_replica()
    shop.hub = hub.url
    shop.swap(1)
    await shop.record(1)
    pages = [await context.new_page() for _ in range(3)]
    for page in pages:
        await opened(page, shop)
    for number in (2, 3):
        await pages.pop(0).close()
        await shop.deploy(number)
        for page in pages:
            await prompts(page, number)
        await eventually(lambda: hub.health()["streams"] == 1, what="one stream")


# The refresh


async def test_the_tabs_of_a_browser_count_once_for_the_oldest_build(context, shop, start_replica):
    """The hub is told the oldest build among the tabs, and anew when another one becomes the oldest."""
    hub = start_replica()
    shop.hub = hub.url

    async def counts(expected: dict[int, int]) -> None:
        def is_so() -> bool:
            found = httpx.get(f"{hub.url}/deployments/{shop.app}/production/adoption").json()
            return {entry["buildNumber"]: entry["streams"] for entry in found["deployments"]} == expected

        await eventually(is_so, 20, f"the counts {expected}")

    await shop.deploy(1)
    lead, second, third = [await context.new_page() for _ in range(3)]
    for page in (lead, second, third):
        await opened(page, shop)
    await counts({1: 1})
    await shop.deploy(2)
    for page in (lead, second):
        await prompts(page, 2)
        await button(page, "Refresh").click()
        await runs(page, 2)
    await counts({1: 1, 2: 0})
    await third.close()
    await counts({1: 0, 2: 1})

    shop.swap(2, page=1)  # as a cache gives it
    third = await context.new_page()
    await opened(third, shop)
    await counts({1: 1, 2: 0})
    await third.close()
    await counts({1: 0, 2: 1})
    assert hub.health()["streams"] == 1
    for page in (lead, second):
        assert await builds_prompted(page) == []


async def test_a_refresh_that_gives_the_old_version_is_no_loop(page, site, shop):
    """Servers that alternate: the same deployment prompts again after a minute, and says that it is rolling out."""
    await page.clock.install()
    await shop.record(1)
    await opened(page, shop)
    shop.swap(2, page=1)
    record = await shop.record(2)
    await prompts(page, 2)
    await expect(prompt(page)).not_to_contain_text("Still rolling out")
    looks = site.count("/version.json")
    async with page.expect_event("load"):
        await button(page, "Refresh").click()
    await has_heard(page, record)
    await site.is_asked("/version.json", looks + 1)
    await runs(page, 1)
    await is_quiet(page)
    await page.clock.fast_forward(61_000)
    await prompts(page, 2)
    await expect(prompt(page)).to_contain_text("Still rolling out")
    rested = await page.evaluate(
        "seen.find(({ step }) => step === 'update').at - seen.find(({ step }) => step === 'deployment').at"
    )
    shop.swap(2)
    await button(page, "Refresh").click()
    await runs(page, 2)
    await has_heard(page, record)
    await is_quiet(page)

    assert rested > 50_000


async def test_a_refresh_that_failed_rests_until_something_else_is_served(page, site, shop):
    """What is served is looked at still after a refresh that gave the old version, and a change ends the rest."""
    await shop.record(1)
    await opened(page, shop)
    shop.swap(2, page=1)
    record = await shop.record(2)
    await prompts(page, 2)
    async with page.expect_event("load"):
        await button(page, "Refresh").click()
    looks = site.count("/version.json")
    await has_heard(page, record)
    await site.is_asked("/version.json", looks + 1)
    assert await builds_prompted(page) == []
    shop.swap(3)
    await prompts(page, 2)
    await button(page, "Refresh").click()
    await runs(page, 3)


WORKER = """
addEventListener("install", (event) => event.waitUntil(caches.open("{name}")));
addEventListener("activate", (event) => event.waitUntil(clients.claim()));
addEventListener("message", ({{ data }}) => data.type === "SKIP_WAITING" && skipWaiting());
addEventListener("fetch", (event) => event.request.url.endsWith("/who") && event.respondWith(new Response("{name}")));
"""


async def test_a_waiting_service_worker_takes_over_and_caches_are_deleted(page, shop):
    """After a refresh the page is the new worker's, and nothing old is kept."""
    shop.files["/worker.js"] = WORKER.format(name="one")
    shop.head = '<script type="module">navigator.serviceWorker.register("/worker.js");</script>'
    shop.swap(1)
    await shop.record(1)
    await opened(page, shop)
    await page.evaluate("caches.open('pages')")
    await becomes(page, "() => Boolean(navigator.serviceWorker.controller)")
    who = "fetch('/who').then((answer) => answer.text())"
    assert await page.evaluate(who) == "one"
    shop.files["/worker.js"] = WORKER.format(name="two")
    await shop.deploy(2)
    await prompts(page, 2)
    await page.evaluate("navigator.serviceWorker.getRegistration().then((registration) => registration.update())")
    await becomes(page, "() => navigator.serviceWorker.getRegistration().then(({ waiting }) => Boolean(waiting))")
    assert sorted(await page.evaluate("caches.keys()")) == ["one", "pages", "two"]
    assert await page.evaluate(who) == "one"
    await button(page, "Refresh").click()
    await runs(page, 2)

    assert await page.evaluate(who) == "two"
    assert await page.evaluate("caches.keys()") == []


async def test_unsaved_work_can_prevent_and_delay_a_refresh(page, shop):
    """A canceled beforerefresh is no reload; with waitUntil the reload comes when the work is saved."""
    await shop.record(1)
    await opened(page, shop)
    await shop.deploy(2)
    await prompts(page, 2)
    await page.evaluate("addEventListener('vectr0:beforerefresh', (event) => event.preventDefault(), { once: true })")
    await button(page, "Refresh").click()
    await expect(button(page, "Refresh")).to_be_enabled()
    await prompts(page, 2)
    assert len(await seen(page, "beforerefresh")) == 1
    await page.evaluate(
        """addEventListener("vectr0:beforerefresh", ({ detail }) =>
            detail.waitUntil(new Promise((resolve) => (globalThis.save = resolve))))"""
    )
    await button(page, "Refresh").click()
    await expect(button(page, "Refresh")).to_be_disabled()
    assert await seen(page, "refresh") == []
    await runs(page, 1)
    await page.evaluate("save()")
    await runs(page, 2)


# The looks


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing(scheme: str, page, shop):
    """With the prompt open, in light and dark, axe-core has nothing to say."""
    require_npm_package("axe-core")
    await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    await shop.record(1)
    await opened(page, shop)
    await shop.deploy(2)
    await prompts(page, 2)
    await page.evaluate((NPM / "node_modules" / "axe-core" / "axe.min.js").read_text() + "; undefined")
    found = await page.evaluate("axe.run()")
    contrasts = [node["target"] for rule in found["passes"] if rule["id"] == "color-contrast" for node in rule["nodes"]]

    assert found["violations"] == []
    assert any(isinstance(target[0], list) and target[0][0] == "update-notification" for target in contrasts), contrasts


async def test_the_notification_is_announced_and_takes_no_focus(page, shop):
    """A live region that was there before says it; who is typing goes on, and comes back there after Escape."""
    await shop.record(1)
    await opened(page, shop)
    region = page.get_by_role("status")
    await expect(region).to_have_text("")
    was_there = await region.element_handle()
    await page.keyboard.press("Tab")
    await page.keyboard.type("Ad")
    await shop.deploy(2)
    await prompts(page, 2)
    await page.keyboard.type("a")
    assert await page.get_by_label("Name").input_value() == "Ada"
    assert await was_there.text_content() == f"{TITLE} v2.0.0"
    assert await region.evaluate("(element, before) => element === before", was_there)
    for name in ("Refresh", "Later", "Close"):
        await page.keyboard.press("Tab")
        await expect(button(page, name)).to_be_focused()
    await page.keyboard.press("Escape")
    await is_quiet(page)

    await expect(page.get_by_label("Name")).to_be_focused()


@pytest.mark.parametrize("look", ["light", "dark", "phone", "rollback", "arabic"])
async def test_the_notification_is_where_it_belongs(look: str, browser, shop, tmp_path):
    """At the top and the end of a line's side; on a phone along the bottom. The pictures are kept for people."""
    options: dict[str, Any] = {"color_scheme": "dark" if look == "dark" else "light", "reduced_motion": "reduce"}
    options["viewport"] = {"width": 390, "height": 700} if look == "phone" else {"width": 1000, "height": 500}
    if look == "arabic":
        shop.html = 'lang="ar" dir="rtl"'
    await shop.record(1)
    await shop.deploy(2)
    titles = {"rollback": "Earlier version restored", "arabic": "يتوفر إصدار جديد!"}
    number = 1 if look == "rollback" else 3
    async with context_of(browser, **options) as context:
        page = await context.new_page()
        await opened(page, shop)
        await shop.deploy(number)
        card = prompt(page, titles.get(look, TITLE))
        await expect(card).to_be_visible()
        await page.screenshot(path=tmp_path / f"{look}.png")
        box = await card.bounding_box()

    assert box
    left, right = box["x"], options["viewport"]["width"] - box["x"] - box["width"]
    above, below = box["y"], options["viewport"]["height"] - box["y"] - box["height"]
    assert min(left, right, above, below) > 0
    assert (above < below) == (look != "phone")
    assert {"phone": left == right, "arabic": left < right}.get(look, left > right)


@pytest.mark.parametrize(("page_is", "visitor_is"), [("light", "dark"), ("dark", "light")])
async def test_the_scheme_is_that_of_the_page(page_is: str, visitor_is: str, browser, shop):
    """Where a page says in a <meta> which scheme it has, the card has that, whatever the visitor's is."""
    shop.head = f'<meta name="color-scheme" content="{page_is}">'
    await shop.deploy(1)
    async with context_of(browser, color_scheme=visitor_is) as context:
        page = await context.new_page()
        await opened(page, shop)
        await shop.deploy(2)
        await expect(prompt(page, TITLE)).to_be_visible()
        paper = await prompt(page, TITLE).evaluate("(card) => getComputedStyle(card).backgroundColor")

    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(29, 30, 34)"}[page_is]


# The page to try it


async def test_the_printed_address_of_the_demo_is_all_it_takes(page, tmp_path):
    """The address that the service prints opens a page that records, prompts, and runs what was recorded."""
    hub = Replica(tmp_path)
    del hub.settings["VECTR0_TOKENS"]
    try:
        hub.start()
        address = re.search(r"\S+/demo#token=\S+", hub.log)
        assert address
        await page.goto(address[0])
        await is_live(page)
        await expect(page.locator("#version")).to_have_text("v1.0.0")
        await button(page, "Record v1.0.1").click()
        await prompts(page, 2)
        assert await page.evaluate("violations") == []
        await button(page, "Refresh").click()
        await expect(page.locator("#version")).to_have_text("v1.0.1")
        await button(page, "Record v1.0.2").click()
        await prompts(page, 3)

        assert await builds_prompted(page) == [3]
        assert await page.evaluate("violations") == []
    finally:
        hub.kill()
