"""Is it really served? Asked before a deployment is recorded, so that no tab hears of what it can't get."""

import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

import httpx

from service.failures import NotServedError
from service.jsontext import read_json
from service.patience import Note, Patience
from service.request import MOST_REDIRECTIONS, AnswerError, ask
from service.url import without_secrets

IN_A_ROW: Final = 3
"""How often the new version has to be served: a rollout that is under way gives old and new in turn."""
LOOK_EVERY: Final = 2.0


def wait_until_served(url: str, build: Mapping[str, Any], *, seconds: float, timeout: float, note: Note) -> None:
    """Wait until the application's own server gives this build, several times in a row.

    Raises NotServedError where it doesn't within so many seconds.
    """
    name, seen, told = without_secrets(url), 0, ""
    patience, pause = Patience(attempt=timeout, retries=0, total=seconds), min(LOOK_EVERY, seconds / 10)
    while seen < IN_A_ROW:
        found, is_served = _look(url, build, patience.seconds)
        seen = seen + 1 if is_served else 0
        if seen < IN_A_ROW and patience.left <= pause:
            raise NotServedError(f"{name} serves {found} after {seconds:.0f} s, not {_shown(build)}")
        progress = f"{name} serves {found}" + (f" ({seen} of {IN_A_ROW})" if seen else f"; waiting for {_shown(build)}")
        if progress != told:
            note(progress)
            told = progress
        if seen < IN_A_ROW:
            time.sleep(pause)


def _look(url: str, build: Mapping[str, Any], seconds: float) -> tuple[str, bool]:
    """Say what is served, and whether it is this build."""
    # The query is for the caches between.
    fresh = httpx.URL(url).copy_merge_params({"vectr0": uuid.uuid4().hex})
    try:
        headers = {"Cache-Control": "no-cache"}
        response = ask("GET", fresh, seconds=seconds, headers=headers, redirections=MOST_REDIRECTIONS)
    except AnswerError as error:
        return f"nothing ({error})", False
    if not response.is_success:
        return f"{response.status_code} {response.reason_phrase}", False
    try:
        served = read_json(response.content)
        return _shown(served), all(served.get(name) == value for name, value in build.items())
    except (ValueError, KeyError, AttributeError, TypeError):
        return f"no version.json, but {response.headers.get('Content-Type', 'something else')}", False


def _shown(build: Mapping[str, Any]) -> str:
    details = [str(build[name])[:64] for name in ("gitCommit",) if build.get(name)]
    details += [f"build {str(build['buildNumber'])[:20]}"] if build.get("buildNumber") else []
    version = str(build["version"])[:128]
    return f"{version} ({', '.join(details)})" if details else version
