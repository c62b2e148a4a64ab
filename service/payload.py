"""What `vectr0 record` posts: the file that the build stamped, or else what options and environment say."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from service.ci import Environ
from service.failures import WrongUseError
from service.jsontext import json_text, read_json
from service.rules import RULES
from service.stamp import Surroundings, stamp

STAMP: Final = Path("dist/version.json")
"""Where the Vite plugin writes what it stamped."""

FIELDS: Final = {
    "app": "appName",
    "environment": "environment",
    "version_": "version",
    "commit": "gitCommit",
    "tag": "gitTag",
    "build_number": "buildNumber",
    "build_time": "buildTime",
}
"""The options that say what is deployed, and what the record calls it."""

PROMOTED: Final = ("app", "environment")
"""The options that may be given beside a file: the same build, for another channel."""

BUILD: Final = ("version", "gitCommit", "buildNumber", "buildTime")
"""The fields by which one build is told from another."""


@dataclass(frozen=True, slots=True)
class Payload:
    """What is posted, and where it is from."""

    fields: Mapping[str, Any]
    build: Mapping[str, Any]
    """The fields of the build that are known, and not made up here."""
    stale: Path | None
    """The stamped file, where it says something else."""


def payload(environ: Environ, source: Path | None, options: Mapping[str, Any]) -> Payload:
    """Put together what is posted. An empty option is as none. Raises WrongUseError."""
    given = {name: value for name, value in options.items() if value not in (None, "")}
    path = source or (STAMP if STAMP.exists() else None)
    return _from_options(environ, given) if path is None else _from_file(path, given)


def write(fields: Mapping[str, Any], paths: Sequence[Path | None]) -> None:
    """Write what is posted to files, as the Vite plugin does. Raises WrongUseError."""
    for path in {path for path in paths if path is not None}:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json_text(fields, indent=2) + "\n", "utf-8")
        except OSError as error:
            raise WrongUseError(f"{path} can't be written: {error.strerror}") from None


def _from_options(environ: Environ, options: Mapping[str, Any]) -> Payload:
    fields = stamp(
        environ,
        {FIELDS[name]: value for name, value in options.items()},
        now=int(time.time() * 1000),
        surroundings=Surroundings.here(),
    )
    build = {name: fields[name] for name in BUILD if fields[name] not in (0, "unknown")}
    if "build_time" not in options:
        del build["buildTime"]
    return Payload(fields, build, stale=None)


def _from_file(path: Path, options: Mapping[str, Any]) -> Payload:
    for name, value in options.items():
        option = name.rstrip("_").replace("_", "-")
        if name not in PROMOTED:
            raise WrongUseError(f"--{option} can't be given with {path}, which says what the build is")
        holds, rule = RULES[FIELDS[name]]
        if not holds(value):  # the hub would refuse it, too, but the file would be rewritten by then
            raise WrongUseError(f"--{option} must be {rule}, not {json.dumps(value)}")
    try:
        stamped: object = read_json(path.read_bytes())
    except OSError as error:
        raise WrongUseError(f"{path} can't be read: {error.strerror}") from None
    except ValueError as error:
        raise WrongUseError(f"{path} can't be read: {error}") from None
    if not isinstance(stamped, dict):
        raise WrongUseError(f"{path} holds no JSON object")
    fields = stamped | {FIELDS[name]: value for name, value in options.items()}
    return Payload(fields, {name: fields.get(name) for name in BUILD}, stale=path if fields != stamped else None)
