"""Why a command ends without having done what it was asked for; each reason has its exit code."""

import click


class WrongUseError(click.ClickException):
    """What it was given doesn't do. Click's own code for wrong options, too."""

    exit_code = 2


class RefusedError(click.ClickException):
    """The hub understood, and says no."""

    exit_code = 3


class NotServedError(click.ClickException):
    """The application's server doesn't give this build."""

    exit_code = 4


class HubUnavailableError(click.ClickException):
    """No answer, or one that says nothing about the request."""

    exit_code = 5
