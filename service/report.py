"""What `vectr0 record` says: to people, to machines, and to GitHub, where it is a step of a workflow."""

import json
from pathlib import Path
from typing import Literal

from service.ci import Environ
from service.client import Posted
from service.output import echo, echo_command, echo_json, lines_of, markdown
from service.words import shown_version, utc_time


def note(text: str) -> None:
    """Say how it goes."""
    echo(text, err=True)


def say(level: Literal["warning", "error"], message: str, environ: Environ) -> None:
    """Say what went wrong; on GitHub by a workflow command, which shows it on the run's page, too."""
    if environ.get("GITHUB_ACTIONS"):
        echo_command(level, message)
        return
    first, *details = lines_of(message)
    for line in (f"{level.title()}: {first}", *details):
        echo(line, err=True)


def report(posted: Posted, environ: Environ, *, as_json: bool) -> None:
    """Say what was recorded: as a sentence or the record alone, and in the outputs and the summary of GitHub's step."""
    sentence = _sentence(posted)
    if as_json:
        echo_json(posted.record)
    echo(sentence, err=as_json)
    outputs = {
        "deployed-at": posted.record["deployedAt"],
        "repeat": posted.is_repeat,
        "rollback": posted.record["rollback"],
    }  # integers and booleans: no line break can set another one
    lines = "".join(f"{name}={json.dumps(value)}\n" for name, value in outputs.items())
    try:
        _append(environ.get("GITHUB_OUTPUT"), lines)
        _append(environ.get("GITHUB_STEP_SUMMARY"), f"{markdown(sentence)}\n\n")
    except OSError as error:  # it is recorded all the same
        say("warning", f"GitHub can't be told: {error.filename}: {error.strerror}", environ)


def _sentence(posted: Posted) -> str:
    record = posted.record
    build = f", build {record['buildNumber']}" if record["buildNumber"] else ""
    start = "Recorded before, nothing has changed:" if posted.is_repeat else "Recorded"
    back = ", a rollback" if record["rollback"] else ""
    return (
        f"{start} {record['appName']}/{record['environment']} {shown_version(record)} ({record['gitCommit']}{build})"
        f", at {utc_time(record['deployedAt'])}{back}"
    )


def _append(path: str | None, text: str) -> None:
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)
