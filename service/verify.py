"""Is it really served? Asked before a deployment is recorded, so that no tab hears of what it can't get."""

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

import httpx

from service.client import Note, without_secrets
from service.failures import NotServedError
from service.utf8 import utf8

IN_A_ROW: Final = 3
"""How often the new version has to be served: a rollout that is under way gives old and new in turn."""
LOOK_EVERY: Final = 2.0


def wait_until_served(url: str, build: Mapping[str, Any], *, patience: float, timeout: float, note: Note) -> None:
    """Wait until the application's own server gives this build, several times in a row.

    Raises NotServedError where it doesn't within so many seconds.
    """
    name, end, seen, told = without_secrets(url), time.monotonic() + patience, 0, ""
    with httpx.Client(timeout=timeout, follow_redirects=True, headers={"Cache-Control": "no-cache"}) as client:
        while seen < IN_A_ROW:
            found, is_served = _look(client, url, build)
            seen = seen + 1 if is_served else 0
            if seen < IN_A_ROW and time.monotonic() > end:
                raise NotServedError(f"{name} serves {found} after {patience:.0f} s, not {_shown(build)}")
            progress = f"{name} serves {found}" + (
                f" ({seen} of {IN_A_ROW})" if seen else f"; waiting for {_shown(build)}"
            )
            if progress != told:
                note(progress)
                told = progress
            if seen < IN_A_ROW:
                time.sleep(min(LOOK_EVERY, patience / 10))


def _look(client: httpx.Client, url: str, build: Mapping[str, Any]) -> tuple[str, bool]:
    """Say what is served, and whether it is this build."""
    try:
        # The query is for the caches between.
        response = client.get(httpx.URL(url).copy_merge_params({"vectr0": uuid.uuid4().hex}))
    except httpx.RequestError as error:
        return f"nothing ({error or type(error).__name__})", False
    if not response.is_success:
        return f"{response.status_code} {response.reason_phrase}", False
    try:
        served = json.loads(utf8(response.content))
        return _shown(served), all(served.get(name) == value for name, value in build.items())
    except (ValueError, KeyError, AttributeError, TypeError):
        return f"no version.json, but {response.headers.get('Content-Type', 'something else')}", False


def _shown(build: Mapping[str, Any]) -> str:
    details = [str(build[name]) for name in ("gitCommit",) if build.get(name)]
    details += [f"build {build['buildNumber']}"] if build.get("buildNumber") else []
    return f"{build['version']} ({', '.join(details)})" if details else str(build["version"])
