"""`vectr0 watch`: a channel's deployments in the terminal, as they come."""

import subprocess
from collections.abc import Iterator
from typing import Final

import click

from service.answers import Record
from service.follow import follow
from service.jsontext import json_text
from service.output import Styled, echo, echo_json
from service.words import local_time, shown_version

HELP: Final = """
Follow a channel's deployments in the terminal, through every cut of the line, until Ctrl-C.

It begins with the newest one, and after a cut with what was missed. An answer has to begin within 10 seconds, and a
line on which nothing comes for 40 is cut, because a hub says something every 15.

\b
  vectr0 watch web/production
  vectr0 watch web/production --json | jq -r .version
  vectr0 watch web/production --exec 'jq -r .gitTag | xargs notify-send Deployed'
"""


def _channel(_: click.Context, __: click.Parameter, value: str) -> str:
    if not all(value.partition("/")):
        raise click.BadParameter(f"{value!r} must be an application and an environment, such as web/production")
    return value


@click.command("watch", help=HELP)
@click.argument("channel", metavar="APP/ENVIRONMENT", callback=_channel)
@click.option("--url", envvar="VECTR0_URL", show_envvar=True, help="The hub's address.")
@click.option(
    "--after", type=int, metavar="ID", help="Begin after the deployment with this deployedAt, not with the newest."
)
@click.option("--json", "as_json", is_flag=True, help="For machines: one record a line, as the hub sends it.")
@click.option(
    "--exec", "program", metavar="CMD", help="Run this shell command for each, the record on its standard input."
)
def command(channel: str, url: str, after: int | None, program: str | None, *, as_json: bool) -> None:
    """Follow a channel."""
    for record in follow(url, channel, after, note=lambda text: echo(text, err=True)):
        if as_json:
            echo_json(record)
        else:
            echo(*_line(record))
        if program is not None:
            # The command is the user's own, typed into this very command line.
            ended = subprocess.run(program, shell=True, input=f"{json_text(record)}\n", encoding="utf-8", check=False)  # noqa: S602
            if ended.returncode:
                echo(f"{program!r} ended with {ended.returncode}", err=True)


def _line(record: Record) -> Iterator[str | Styled]:
    yield f"{local_time(record['deployedAt'])}  {record['appName']}/{record['environment']}  "
    yield Styled(shown_version(record), bold=True)
    build = f", build {record['buildNumber']}" if record["buildNumber"] else ""
    yield f" ({record['gitCommit'][:12]}{build})"
    if record["rollback"]:
        yield Styled("  rollback", colour="yellow")
