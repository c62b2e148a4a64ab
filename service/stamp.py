"""The stamp of a build: the seven fields that it is known by, from options, the CI system, package.json and git.

The Vite plugin finds the same in the same place (browser/stamp.js); tests/ci-cases.json holds both to it.
"""

import json
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from service.ci import Environ, ReadJSON, said
from service.failures import WrongUseError
from service.jsontext import read_json
from service.rules import RULES

MISSING: Final = {
    "appName": "name it with --app, the variable APP_NAME or package.json's `name`",
    "version": "give it with --version, the variable VERSION or package.json's `version`",
    "environment": "name it with --environment, or the variable VECTR0_ENVIRONMENT or ENVIRONMENT; "
    "it is never taken from NODE_ENV, which is `production` for a staging build, too",
}


Known = dict[str, tuple[Any, str]]
"""Fields, each with what it is from."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is asked beside options and environment."""

    git: Callable[..., str | None]
    """Gives what git prints, or None where it fails, or isn't there."""
    read_json: ReadJSON
    manifest: Mapping[str, Any]
    """The application's package.json."""

    @classmethod
    def here(cls) -> Self:
        """Ask in the folder that this process is in."""
        return cls(_git, _read_json, _manifest(Path.cwd()))


def stamp(environ: Environ, options: Mapping[str, Any], *, now: int, surroundings: Surroundings) -> dict[str, Any]:
    """Stamp a build. ``now`` is in milliseconds since 1970; an empty option is as none.

    Raises WrongUseError with every rule of the hub that a value breaks, and what the value is from.
    """
    known = _known(environ, options, surroundings)
    defaults = {"gitCommit": "unknown", "buildNumber": 0, "buildTime": now}
    fields: dict[str, Any] = {field: known[field][0] if field in known else defaults.get(field) for field in RULES}
    fields["gitCommit"] = _shortened(fields["gitCommit"])
    fields["buildNumber"], fields["buildTime"] = _number(fields["buildNumber"]), _number(fields["buildTime"])
    wrong = [(field, rule) for field, (holds, rule) in RULES.items() if not holds(fields[field])]
    if wrong:
        raise WrongUseError(*(_explain(field, fields[field], rule, known) for field, rule in wrong))
    return fields


def _known(environ: Environ, options: Mapping[str, Any], surroundings: Surroundings) -> Known:
    known: Known = {}
    for field in RULES:
        option = options.get(field)
        found = (option, "the options") if option not in (None, "") else said(field, environ, surroundings.read_json)
        if found is not None:
            known[field] = found
    name, version = str(surroundings.manifest.get("name", "")).split("/")[-1], surroundings.manifest.get("version")
    if "gitCommit" not in known:
        known = _from_git(surroundings, known.get("version", (version,))[0]) | known
    if name:
        known.setdefault("appName", (name, "package.json"))
    if version:
        known.setdefault("version", (version, "package.json"))
    return known


def _explain(field: str, value: object, rule: str, known: Known) -> str:
    if value is None:
        return f"{field} is missing: {MISSING[field]}"
    return f"{field} (from {known[field][1]}) must be {rule}, not {json.dumps(value)}"


def _from_git(surroundings: Surroundings, version: object) -> Known:
    """Ask git, as nothing else says the commit. A tag is the build's where it names the version, or is the only one."""
    commit = surroundings.git("rev-parse", "HEAD")
    if not commit:
        return {}
    tags = (surroundings.git("tag", "--points-at", "HEAD") or "").split()
    tag = next((tag for tag in tags if tag in (version, f"v{version}")), tags[0] if len(tags) == 1 else None)
    return {"gitCommit": (commit, "git"), "gitTag": (tag, "git")}


def _shortened(commit: str) -> str:
    """Cut the whole hash of SHA-1 or SHA-256, as the original has it, and no number or name."""
    return commit[:7] if re.fullmatch(r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}", commit) else commit


def _number(value: object) -> object:
    # 20 digits are more than enough to be too large; Python refuses to read thousands of them.
    return int(value[:20]) if isinstance(value, str) and re.fullmatch("[0-9]+", value) else value


def _git(*parameters: str) -> str | None:
    try:
        ended = subprocess.run(  # noqa: S603  # our own words
            ["git", *parameters],  # noqa: S607  # by its name, wherever it is
            capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return ended.stdout.strip()


def _read_json(path: str) -> Any:
    try:
        return read_json(Path(path).read_bytes())
    except (OSError, ValueError):
        return None


def _manifest(folder: Path) -> Mapping[str, Any]:
    """Find the nearest package.json."""
    for place in (folder, *folder.parents):
        found = _read_json(str(place / "package.json"))
        if isinstance(found, dict):
            return found
    return {}
