"""The command: `python -m service`, installed as `vectr0`. Alone, or with options alone, it serves."""

# Before anything that takes time: the first process of a container ignores a SIGTERM for which it has no handler, and
# what ends the container would wait for it in vain.
import signal
import sys

signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

import os
from importlib import import_module
from importlib.metadata import version
from typing import Any, Final

import click

from service.output import printable

COMMANDS: Final = {
    "serve": ("service.serve", "Serve (what `vectr0` alone does)."),
    "record": ("service.record", "Record a deployment, from a CI job."),
    "watch": ("service.watch", "Follow a channel's deployments in the terminal."),
    "list": ("service.listing", "Show what is deployed where."),
    "token": ("service.token", "Make a token, and its hash for the settings."),
}
"""Where each command is, and its help. Only the one that is asked for is imported: the server needs more packages."""

HELP: Final = """
VECTR0 tells every open browser tab that a new version of its web application was deployed.

\b
Serve, and try it:
  vectr0
  vectr0 serve --help                    # its settings

\b
Use one that serves (its address: --url, or VECTR0_URL):
  vectr0 record                          # in a CI job, with VECTR0_TOKEN
  vectr0 watch web/production
  vectr0 list

`vectr0 COMMAND --help` says more.
"""


class Commands(click.Group):
    """The commands; `serve` where none is named."""

    def list_commands(self, _: click.Context) -> list[str]:
        """Give the names."""
        return list(COMMANDS)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        """Import a command."""
        if name not in COMMANDS:
            return None
        try:
            command: click.Command = import_module(COMMANDS[name][0]).command
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("service"):
                raise
            raise click.ClickException(
                f"the package {error.name} is missing, which serving needs: install vectr0 with its extra `server`, "
                "such as with pip install '.[server]'"
            ) from None
        return command

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """List them without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command, or say which there are."""
        if args[0] not in COMMANDS:
            ctx.fail(f"there is no command {args[0]!r}; there are {', '.join(COMMANDS)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; Ctrl-C ends it without a word, with the exit code of shells."""
        try:
            return super().invoke(ctx)
        except click.UsageError as wrong:  # click quotes what was typed, or came from a variable, as it is
            raise click.UsageError(printable(wrong.format_message()), wrong.ctx) from None
        except KeyboardInterrupt:
            sys.exit(130)

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Serve where no command is named."""
        if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help", "--version")):
            args = ["serve", *args]
        return super().parse_args(context, args)


@click.command(
    cls=Commands, help=HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(version("vectr0"), prog_name="vectr0")
@click.pass_context
def main(context: click.Context) -> None:
    """Run a command."""
    context.obj = os.environ
    if os.environ.get("NO_COLOR"):  # https://no-color.org
        context.color = False


if __name__ == "__main__":
    main(prog_name="vectr0")
