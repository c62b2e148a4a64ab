"""`vectr0 list`: what is deployed where."""

import json
import time
from collections.abc import Iterable, Mapping
from typing import Final

import click

from service.client import Record, adoptions, deployments, without_secrets

LIMIT: Final = 1000
"""The most deployments that the hub gives at once."""


@click.command("list")
@click.option("--url", envvar="VECTR0_URL", show_envvar=True, help="The hub's address.")
@click.option("--app", metavar="NAME", help="This application only.")
@click.option("--environment", metavar="NAME", help="This environment only.")
@click.option(
    "--tag", metavar="TAG", help="Each channel's newest deployment of this git tag; it may have been replaced."
)
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True, help="Seconds."
)
@click.option("--json", "as_json", is_flag=True, help="For machines: one record a line.")
def command(
    url: str, app: str | None, environment: str | None, tag: str | None, timeout: float, *, as_json: bool
) -> None:
    """Show what is deployed where: each channel's newest deployment, the latest first, and how many tabs run it."""
    wanted = {"appName": app, "environment": environment, "gitTag": tag}
    filters = {name: value for name, value in wanted.items() if value}
    found = deployments(url, {**filters, "limit": str(LIMIT)}, timeout=timeout)
    newest: dict[tuple[str, str], Record] = {}
    for record in found:
        newest.setdefault((record["appName"], record["environment"]), record)
    if as_json:
        for record in newest.values():
            click.echo(json.dumps(record, separators=(",", ":"), ensure_ascii=False))
    elif newest:
        _show(newest.values(), adoptions(url, map("/".join, newest), timeout=timeout))
    elif filters:
        click.echo(f"No deployment at {without_secrets(url)} matches.", err=True)
    else:
        click.echo(f"Nothing is deployed yet at {without_secrets(url)}; `vectr0 record` records the first.", err=True)
    if len(found) == LIMIT:
        click.echo(f"These are of the newest {LIMIT} deployments; channels without one are left out.", err=True)


def _show(records: Iterable[Record], adoptions: Mapping[str, Record]) -> None:
    now = time.time() * 1000
    rows = [
        ("CHANNEL", "VERSION", "COMMIT", "BUILD", "TABS", "DEPLOYED"),
        *(_row(record, adoptions, now) for record in records),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        click.echo(click.style(line, dim=True) if number == 0 else line)


def _row(record: Record, adoptions: Mapping[str, Record], now: float) -> tuple[str, ...]:
    channel = f"{record['appName']}/{record['environment']}"
    return (
        channel,
        shown_version(record),
        record["gitCommit"][:12],
        str(record["buildNumber"] or ""),
        shown_share(record, adoptions.get(channel)),
        ago(now - record["deployedAt"]) + (" (rollback)" if record["rollback"] else ""),
    )


def shown_version(record: Mapping[str, object]) -> str:
    """Give what people call it: the tag, or else v and the version."""
    return str(record["gitTag"] or f"v{record['version']}")


def shown_share(record: Record, adoption: Record | None) -> str:
    """Say how many of the open tabs run this deployment, of those that say what they run."""
    if adoption is None:
        return ""
    if not adoption["streams"]:
        return "none"
    telling = adoption["streams"] - adoption["unknown"]
    running = sum(entry["streams"] for entry in adoption["deployments"] if entry["deployedAt"] == record["deployedAt"])
    # Rounded down: 100 % are all.
    share = f"{running * 100 // telling}% of {telling}" if telling else f"? of {adoption['streams']}"
    return share + (" (old)" if adoption["stale"] else "")


def ago(milliseconds: float) -> str:
    """Say how long ago that is, roughly."""
    seconds = max(0, milliseconds / 1000)
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = int(seconds // length)
        if count:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"
