"""What `vectr0 record` says: to people, to machines, and to GitHub, where it is a step of a workflow."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import click

from service.ci import Environ
from service.client import Posted
from service.listing import shown_version


def note(text: str) -> None:
    """Say how it goes."""
    click.echo(text, err=True)


def say(level: Literal["warning", "error"], message: str, environ: Environ) -> None:
    """Say what went wrong; on GitHub by a workflow command, which shows it on the run's page, too."""
    if environ.get("GITHUB_ACTIONS"):
        for character, code in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A")):
            message = message.replace(character, code)
        note(f"::{level}::{message}")
    else:
        note(f"{level.title()}: {message}")


def report(posted: Posted, environ: Environ, *, as_json: bool) -> None:
    """Say what was recorded: as a sentence or the record alone, and in the outputs and the summary of GitHub's step."""
    sentence = _sentence(posted)
    if as_json:
        click.echo(json.dumps(posted.record, separators=(",", ":"), ensure_ascii=False))
    click.echo(sentence, err=as_json)
    outputs = {
        "deployed-at": posted.record["deployedAt"],
        "repeat": posted.is_repeat,
        "rollback": posted.record["rollback"],
    }
    lines = "".join(f"{name}={json.dumps(value)}\n" for name, value in outputs.items())
    try:
        _append(environ.get("GITHUB_OUTPUT"), lines)
        _append(environ.get("GITHUB_STEP_SUMMARY"), f"{sentence}\n\n")
    except OSError as error:  # it is recorded all the same
        say("warning", f"GitHub can't be told: {error.filename}: {error.strerror}", environ)


def _sentence(posted: Posted) -> str:
    record = posted.record
    at = datetime.fromtimestamp(record["deployedAt"] / 1000, UTC)
    build = f", build {record['buildNumber']}" if record["buildNumber"] else ""
    start = "Recorded before, nothing has changed:" if posted.is_repeat else "Recorded"
    back = ", a rollback" if record["rollback"] else ""
    return (
        f"{start} {record['appName']}/{record['environment']} {shown_version(record)} ({record['gitCommit']}{build})"
        f", at {at:%Y-%m-%d %H:%M:%S} UTC{back}"
    )


def _append(path: str | None, text: str) -> None:
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)
