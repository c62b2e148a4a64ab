"""`vectr0 list`: what is deployed where."""

import time
from collections.abc import Iterable, Mapping
from typing import Final

import click

from service.answers import Record
from service.client import Listed, deployments
from service.output import Styled, echo, echo_json
from service.patience import Patience
from service.url import without_secrets
from service.words import ago, shown_version

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
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True,
    help="Seconds for all of it.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="For machines: one record a line.")
def command(
    url: str, app: str | None, environment: str | None, tag: str | None, timeout: float, *, as_json: bool
) -> None:
    """Show what is deployed where: each channel's newest deployment, the latest first, and how many tabs run it."""
    wanted = {"appName": app, "environment": environment, "gitTag": tag}
    filters = {name: value for name, value in wanted.items() if value}
    patience = Patience(attempt=timeout, retries=0, total=timeout)
    listed = deployments(url, {**filters, "limit": str(LIMIT)}, patience=patience, adoption=not as_json)
    newest: dict[str, Record] = {}
    for record in listed.deployments:
        newest.setdefault(f"{record['appName']}/{record['environment']}", record)
    if as_json:
        for record in newest.values():
            echo_json(record)
    elif newest:
        _show(newest, listed)
    elif filters:
        echo(f"No deployment at {without_secrets(url)} matches.", err=True)
    else:
        echo(f"Nothing is deployed yet at {without_secrets(url)}; `vectr0 record` records the first.", err=True)
    if len(listed.deployments) == LIMIT:
        echo(f"These are of the newest {LIMIT} deployments; channels without one are left out.", err=True)


def _show(newest: Mapping[str, Record], listed: Listed) -> None:
    now = time.time() * 1000
    adoptions = listed.adoptions
    rows = [_row(channel, record, adoptions, now) for channel, record in newest.items()]
    head = ("CHANNEL", "VERSION", "COMMIT", "BUILD", "TABS", "DEPLOYED")
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    echo(Styled(_aligned(head, widths), dim=True))
    for row in rows:
        echo(_aligned(row, widths))
    if adoptions is None:
        echo("This hub is older than this command, and gives no list of how many tabs run what.", err=True)


def _aligned(cells: Iterable[str], widths: Iterable[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _row(channel: str, record: Record, adoptions: Mapping[str, Record] | None, now: float) -> tuple[str, ...]:
    return (
        channel,
        shown_version(record),
        record["gitCommit"][:12],
        str(record["buildNumber"] or ""),
        shown_share(record, (adoptions or {}).get(channel)),
        ago(now - record["deployedAt"]) + (" (rollback)" if record["rollback"] else ""),
    )


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
