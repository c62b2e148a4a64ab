"""Why a command ends without having done what it was asked for; each reason has its exit code."""

import click

from service.output import printable


class Failure(click.ClickException):
    """What is printed in the end: a line, and perhaps details in lines of their own, whatever they quote."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(map(printable, lines)))


class WrongUseError(Failure):
    """What it was given doesn't do. Click's own code for wrong options, too."""

    exit_code = 2


class RefusedError(Failure):
    """The hub understood, and says no."""

    exit_code = 3


class NotServedError(Failure):
    """The application's server doesn't give this build."""

    exit_code = 4


class HubUnavailableError(Failure):
    """No answer, or one that says nothing about the request."""

    exit_code = 5
