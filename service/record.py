"""`vectr0 record`: tell the hub that a build went live, from a CI job."""

import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from service.ci import Environ
from service.client import post
from service.failures import WrongUseError
from service.identity import identity
from service.output import echo_json
from service.patience import Patience
from service.payload import FIELDS, STAMP, payload, write
from service.report import note, report, say
from service.url import address, is_http, is_token, without_secrets
from service.verify import wait_until_served

SECONDS: Final = click.FloatRange(min=0, min_open=True)

HELP: Final = """
Record a deployment: tell the hub, and so every open browser tab, that a build went live.

What is recorded is what the build stamped (dist/version.json), or else what the options and the CI system's own
variables say. It is safe to retry; repeating it with the same file, or the same --build-time, records nothing new.

\b
  vectr0 record                                     # in the job that deployed dist/
  vectr0 record --environment production            # the same build, promoted
  vectr0 record --verify https://app.example/version.json
  vectr0 record --oidc                              # no secret: CI's own identity
  vectr0 record --dry-run --write dist/version.json # stamp a build without the Vite plugin

Exit codes: 0 recorded (or there was nothing new), 2 wrong use, 3 refused by the hub, 4 the new version isn't served,
5 the hub can't be reached.
"""


@click.command("record", help=HELP)
@click.option("--url", envvar="VECTR0_URL", show_envvar=True, help="The hub's address.")
@click.option(
    "--token",
    envvar="VECTR0_TOKEN",
    show_envvar=True,
    help="Better given by the variable: options show in process lists.",
)
@click.option("--oidc", is_flag=True, help="Prove CI's own identity, in place of a token (GitHub Actions, GitLab).")
@click.option("--audience", help="What the identity is made for; by default the hub's address.")
@click.option(
    "--from", "source", type=click.Path(path_type=Path), help=f"The stamped file.  [default: {STAMP}, if it is there]"
)
@click.option(
    "--write",
    "target",
    type=click.Path(path_type=Path),
    help="Write what is recorded to this file, such as dist/version.json.",
)
@click.option("--app", help="The application; also in place of what the file says, which is rewritten.")
@click.option("--environment", help="The environment; also in place of what the file says, which is rewritten.")
@click.option("--version", "version_", help="The version.")
@click.option("--commit", help="The commit.")
@click.option("--tag", help="The git tag.")
@click.option("--build-number", type=click.IntRange(min=0), help="The build's number.")
@click.option("--build-time", type=click.IntRange(min=0), help="Milliseconds since 1970.")
@click.option(
    "--verify", metavar="URL", help="Wait until this address of the application's version.json gives this build."
)
@click.option("--verify-timeout", type=SECONDS, default=300.0, show_default=True,
              help="Seconds for that, before anything is sent to the hub.")  # fmt: skip
@click.option("--timeout", type=SECONDS, default=10.0, show_default=True,
              help="Seconds for an attempt: a posting, or a look of --verify.")  # fmt: skip
@click.option("--deadline", type=SECONDS, default=120.0, show_default=True,
              help="Seconds for all attempts and pauses together, --oidc's too; --verify comes before.")  # fmt: skip
@click.option("--retries", type=click.IntRange(min=0), default=5, show_default=True, help="How often to try again.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show what would be recorded, send nothing, and write nothing but what --write says.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the record alone, as JSON.")
@click.option(
    "--no-fail",
    is_flag=True,
    help="Exit with 0 also where it can't be recorded: never break a deployment over a notification.",
)
@click.pass_obj
def command(environ: Environ, /, *, no_fail: bool, **options: Any) -> None:
    """Record a deployment."""
    fields = {name: options.pop(name) for name in FIELDS}
    try:
        _record(environ, fields, Options(**options))
    except click.ClickException as failure:
        say("warning" if no_fail else "error", failure.message, environ)
        sys.exit(0 if no_fail else failure.exit_code)
    except Exception as error:  # the promise of --no-fail holds for our own mistakes, too
        if not no_fail:
            raise
        say("warning", f"{type(error).__name__}: not recorded", environ)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options but those that say what is deployed."""

    url: str | None
    token: str | None
    oidc: bool
    audience: str | None
    source: Path | None
    target: Path | None
    verify: str | None
    verify_timeout: float
    timeout: float
    deadline: float
    retries: int
    dry_run: bool
    as_json: bool


def _record(environ: Environ, fields: dict[str, Any], options: Options) -> None:
    posting = payload(environ, options.source, fields)
    if options.dry_run:
        write(posting.fields, [options.target])
        echo_json(posting.fields, indent=None if options.as_json else 2)
        return
    hub = address(options.url)
    if options.verify is not None and not is_http(options.verify):
        raise WrongUseError(f"--verify is {without_secrets(options.verify)!r}; it must be an address of HTTP")
    token = _token(environ, hub, options)
    write(posting.fields, [options.target, posting.stale])
    if options.verify is not None:
        wait_until_served(
            options.verify, posting.build, seconds=options.verify_timeout, timeout=options.timeout, note=note
        )
    key = str(uuid.uuid4())
    patience = Patience(attempt=options.timeout, retries=options.retries, total=options.deadline)
    posted = post(hub, posting.fields, token(patience), key, patience=patience, note=note)
    report(posted, environ, as_json=options.as_json)


def _token(environ: Environ, hub: str, options: Options) -> Callable[[Patience], str]:
    """Give what gets the token when it is needed, and is sure that there is one now."""
    if options.oidc:
        audience = options.audience or without_secrets(hub)
        return identity(environ, audience, note=note)
    token = (options.token or "").strip()  # a secret that was pasted often ends a line
    if not token:
        raise WrongUseError("there is no token: set VECTR0_TOKEN, or use --oidc where the hub trusts this CI")
    if not is_token(token):
        raise WrongUseError("the token holds characters that no token has (it isn't shown)")
    return lambda _: token
