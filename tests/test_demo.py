"""The page to try it, in a real Chromium: what it shows, and what comes of its buttons."""

import asyncio
import json
import os
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.browser_parts import chromium, context_of, is_live
from tests.parts import TOKEN, Replica, deployment, post, require
from tests.test_clients import NPM, require_npm_package

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
    errors: list[str] = []
    async with context_of(browser, errors) as context:
        yield context
    assert errors == []


@pytest.fixture
def service(start_replica) -> Replica:
    """A service below a path prefix, on its embedded Redis."""
    replica: Replica = start_replica(root_path="/hub")
    return replica


def address(service: Replica, more: str = "") -> str:
    return f"{service.url}/hub/demo{more}"


async def opened(context: BrowserContext, url: str) -> Page:
    """Open the page, and wait until it hears its service."""
    page = await context.new_page()
    await page.goto(url)
    await is_live(page)
    return page


async def runs(page: Page, version: str) -> None:
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"This page runs {version}")


async def test_from_recorded_to_running(service, context):
    """A recorded version is told of and had by Refresh; the token leaves the address, and stays through the reload."""
    page = await opened(context, address(service, f"#token={TOKEN}"))
    await runs(page, "v1.0.0")
    await expect(page.get_by_text("this first version is made up")).to_be_visible()
    assert page.url == address(service)
    assert httpx.get(f"{service.url}/deployments").json() == {"deployments": []}

    await page.get_by_role("button", name="Record v1.0.1").click()
    await expect(page.get_by_role("log")).to_contain_text(re.compile(r"Deployment v1\.0\.1\d+ ms after your click"))
    await page.get_by_role("button", name="Refresh").click()
    await runs(page, "v1.0.1")
    await is_live(page)

    [recorded] = httpx.get(f"{service.url}/deployments/demo/demo").json()["deployments"]
    assert (recorded["version"], recorded["gitTag"], recorded["buildNumber"]) == ("1.0.1", "v1.0.1", 2)
    await expect(page.get_by_text("made up")).to_have_count(0)
    await expect(page.get_by_label("Token")).to_have_value(TOKEN)
    await expect(page.get_by_role("button", name="Record v1.0.2")).to_be_enabled()
    await expect(page.get_by_role("button", name="Refresh")).to_have_count(0)
    assert await page.evaluate("violations") == []


async def test_way_back(service, context):
    """The version before the newest can be recorded again, and is told of as what it is."""
    for number in (1, 2):
        fields = deployment("web", version=f"{number}.0.0", gitCommit=f"{number}0ffee0", buildNumber=number)
        assert post(service.url, fields).status_code == 201
    page = await opened(context, address(service, f"?app=web&environment=production#token={TOKEN}"))
    await runs(page, "v2.0.0")

    await page.get_by_role("button", name="Back to v1.0.0").click()
    await expect(page.get_by_role("region", name="Earlier version restored")).to_be_visible()
    await expect(page.get_by_role("log")).to_contain_text("Rollback v1.0.0")

    newest = httpx.get(f"{service.url}/deployments/web/production/latest").json()
    assert (newest["version"], newest["rollback"]) == ("1.0.0", True)
    # The next one comes after all that were, and not after the one that is back.
    await expect(page.get_by_role("button", name="Record v2.0.1")).to_be_enabled()
    assert page.url == address(service, "?app=web&environment=production")


async def test_refusals_are_shown(service, context):
    """What the service refuses is said in its own words, and the field that it is about has the focus."""
    page = await opened(context, address(service, "#token=wrong"))
    outcome = page.locator("#outcome")
    await page.get_by_role("button", name="Record").click()
    await expect(outcome).to_contain_text("401 Unauthorized: the bearer token is not one that this service knows")
    await expect(page.get_by_label("Token")).to_be_focused()

    await page.get_by_label("Token").fill(TOKEN)
    await page.get_by_label("Commit").fill("no commit")
    await page.get_by_label("Build number").fill("many")
    await page.get_by_label("Build number").press("Enter")
    await expect(outcome).to_contain_text("422 Unprocessable")
    await expect(outcome).to_contain_text('gitCommit must be 1 to 64 of A-Z a-z 0-9 . _ -, not "no commit"')
    await expect(outcome).to_contain_text("buildNumber must be an integer")
    await expect(page.get_by_label("Commit")).to_be_focused()
    await expect(page.get_by_label("Build number")).to_have_attribute("aria-invalid", "true")

    await page.get_by_label("Commit").fill("c0ffee1")
    await page.get_by_label("Build number").fill("7")
    await page.get_by_label("Build number").press("Enter")
    await expect(outcome).to_contain_text("Recorded.")
    await expect(page.locator("[aria-invalid]")).to_have_count(0)


async def test_no_channel(service, context):
    """A name that no channel can have is said to be none, and nothing of it becomes part of an address."""
    page = await context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(address(service, "?app=../livez%3F&environment=%3Cimg%20src=x%3E"))

    await expect(page.get_by_text("../livez?/<img src=x> is no channel")).to_be_visible()
    await expect(page.get_by_role("button", name="Record")).to_be_disabled()
    assert not any("deployments" in url or "livez?" in url.partition("?app=")[0] for url in asked)


async def test_code_to_copy(service, context):
    """The code names this service's own address: the tag is that of the version shown, and the command records."""
    await context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = await opened(context, address(service, f"#token={TOKEN}"))
    copied = []
    for button in await page.locator(".copy").all():
        await button.click()
        await expect(button).to_have_text("Copied")
        copied.append(await page.evaluate("navigator.clipboard.readText()"))
    tag, command = copied
    done = await asyncio.to_thread(
        subprocess.run,
        [require("bash"), "-c", command],
        env={**os.environ, "VECTR0_TOKEN": TOKEN},
        capture_output=True,
        check=True,
        timeout=20,
    )

    assert f'src="{service.url}/hub/browser/element.js"' in tag
    assert '<update-notification app="demo" environment="demo"' in tag
    assert 'version="1.0.0"' in tag
    assert TOKEN not in command
    assert json.loads(done.stdout)["version"] == "1.0.1"
    await expect(page.get_by_role("log")).to_contain_text("Deployment v1.0.1")


async def test_after_the_largest(service, context):
    """After a record of the largest numbers and the longest version the page still suggests what can be recorded."""
    fields = deployment("web", version="9" * 128, buildNumber=2**53 - 1, buildTime=2**53 - 1)
    assert post(service.url, fields).status_code == 201
    page = await opened(context, address(service, f"?app=web&environment=production#token={TOKEN}"))
    await runs(page, f"v{'9' * 128}")

    await page.get_by_role("button", name="Record v1.0.0").click()
    await expect(page.locator("#outcome")).to_contain_text("Recorded.")
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
async def test_accessibility(service, context, scheme, width):
    """axe-core finds nothing, with the notification and a refusal on the page; a phone needn't scroll sideways."""
    require_npm_package("axe-core")
    page = await context.new_page()
    await page.set_viewport_size({"width": width, "height": 800})
    await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    await page.goto(address(service, f"#token={TOKEN}"))
    await is_live(page)
    await page.get_by_role("button", name="Record").click()
    await expect(page.get_by_role("button", name="Refresh")).to_be_visible()
    await page.get_by_label("Commit").fill("no commit")
    await page.get_by_label("Commit").press("Enter")
    await expect(page.locator("#outcome")).to_contain_text("422")
    await page.evaluate(Path(NPM / "node_modules/axe-core/axe.min.js").read_text())
    found = await page.evaluate(
        "axe.run().then(({ violations }) => violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]))"
    )

    assert found == []
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
