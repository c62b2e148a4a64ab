"""`vectr0 token`: a secret for CI, and the entry for the hub, which needs to know its hash only."""

import hashlib
import re
import secrets

import click

from service.output import Styled, echo, echo_json


def _scope(_: click.Context, __: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._*-]+/[A-Za-z0-9._*-]+", value):
        raise click.BadParameter(
            f"{value!r} must be APP/ENVIRONMENT, each of A-Z a-z 0-9 . _ - and *, such as web/production or 'web/*'"
        )
    return value


@click.command("token")
@click.option("--scope", default="*/*", show_default=True, metavar="APP/ENVIRONMENT", callback=_scope,
              help="The channels it is good for; * stands for any run of a name's characters.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def command(scope: str, *, as_json: bool) -> None:
    """Make a token, and its hash for the settings.

    The token is for CI, as a secret named VECTR0_TOKEN. The entry is for the hub's VECTR0_TOKENS: who reads it there
    can't record with it.
    """
    secret = secrets.token_urlsafe(32)
    entry = f"sha256:{hashlib.sha256(secret.encode()).hexdigest()}" + ("" if scope == "*/*" else f"@{scope}")
    if as_json:
        echo_json({"token": secret, "entry": entry})
        return
    echo(Styled("VECTR0_TOKEN", bold=True), f"={secret}")
    echo(Styled("VECTR0_TOKENS", bold=True), f"={entry}")
    echo("The first is a secret of CI; the second, which is none, an entry of the hub.", err=True)
