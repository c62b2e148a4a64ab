"""`vectr0 serve`: the service itself, and what it says when it starts."""

import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, NoReturn

import click

from service.bind import ListenError, bound
from service.settings import SETTINGS, InvalidSettingsError, Settings, read

SHARED_METRICS: Final = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")
"""The variables with which prometheus_client shares metrics between processes; the second is that of old versions."""

HELP: Final = """
Serve VECTR0: tell every open browser tab that a new version of its web application was deployed.

Without settings it runs on an embedded Redis that forgets everything when it stops, and prints how to record a first
deployment and how to watch. For more than a try, give it a Redis and tokens:

\b
  export VECTR0_REDIS_URL=redis://redis.internal:6379
  export VECTR0_TOKENS=$(openssl rand -hex 24)
  vectr0 --listen 0.0.0.0:8000
"""


def _settings_help() -> str:
    lines = ["\b", "Environment variables:"]
    for setting in SETTINGS.values():
        default = f" Default: {setting.default}." if setting.default else ""
        lines += [f"  {setting.name}", f"      {setting.meaning}{default}"]
    return "\n".join(lines)


@click.command("serve", help=HELP, epilog=_settings_help())
@click.option("--listen", metavar="ADDRESS", help="HOST:PORT, :PORT or unix:/path; as VECTR0_LISTEN.")
@click.option("--workers", metavar="N", help="How many processes; as VECTR0_WORKERS.")
@click.option("--redis-url", metavar="URL", help="The Redis that all replicas share; as VECTR0_REDIS_URL.")
@click.pass_obj
def command(environ: Mapping[str, str], listen: str | None, workers: str | None, redis_url: str | None) -> None:
    """Serve until a signal ends it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # while it starts
    options = {"VECTR0_LISTEN": listen, "VECTR0_WORKERS": workers, "VECTR0_REDIS_URL": redis_url}
    environ = {**environ, **{name: value for name, value in options.items() if value is not None}}
    if environ.get("VECTR0_WORKERS", "1").strip() in ("", "1"):
        for name in SHARED_METRICS:  # those of another program, whose variable was inherited
            os.environ.pop(name, None)
        _serve(environ)  # and write no file, for there may be no place to write to
        return
    try:
        folder = tempfile.TemporaryDirectory(prefix="vectr0-metrics-")
    except OSError:
        _refuse("VECTR0_WORKERS is not 1, and several workers share their metrics in temporary files; there is no "
                "place for those: name a folder that can be written to with TMPDIR, such as a tmpfs")  # fmt: skip
    with folder:
        # prometheus_client chooses its multi-process mode when it is imported, by the server: so that comes later.
        os.environ.update(dict.fromkeys(SHARED_METRICS, folder.name))
        _serve(environ)


def _serve(environ: dict[str, str]) -> None:
    from service import logs, server  # noqa: PLC0415  # not needed by the other commands

    try:
        settings, warnings = read(environ, server.raise_descriptor_limit())
    except InvalidSettingsError as error:
        _refuse(str(error))
    logs.configure(settings.log_format)
    for warning in warnings:
        logs.logger.warning(warning)
    try:
        # KeyboardInterrupt is Ctrl-C, and everything has been ended in order.
        with bound(settings.listen) as listening, suppress(KeyboardInterrupt):
            _greet(settings)
            server.serve(settings, listening)
    except ListenError as error:
        _refuse(str(error))


def _refuse(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(2)


def _greet(settings: Settings) -> None:
    try:
        click.echo(_greeting(settings))
    except OSError:  # a full disk, or a reader who is gone: that is no reason not to serve
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  # which the interpreter flushes at the end


def _greeting(settings: Settings) -> str:
    url = settings.listen.url + settings.root_path
    token = settings.printed_token or "$VECTR0_TOKEN"
    lines = [f"VECTR0 listens on {settings.listen if settings.listen.path else url}"]
    if settings.redis_url is None:
        lines.append(
            "It runs on an embedded Redis: all that it is told is forgotten when it stops (see VECTR0_REDIS_URL)."
        )
    if settings.printed_token is not None:
        lines.append(f"The token for recording, made for this run: {token}")
    deployment = (
        '{"appName":"web","version":"1.0.0","gitCommit":"3f2c1ab","buildNumber":1,'
        '"buildTime":1763800000000,"environment":"production"}'
    )
    fragment = f"#token={settings.printed_token}" if settings.printed_token else ""
    lines.append("")
    if not settings.listen.path:  # which no browser opens
        if settings.board:
            lines.append(f"See what runs where: {url}/{fragment}")
        lines.append(f"Try it in a browser: {url}/demo{fragment}")
    curl = settings.listen.curl
    lines += [
        "Watch:",
        f"  {curl} -N {url}/events/web/production",
        "Record a deployment:",
        f"  {curl} {url}/deployments -H \"Authorization: Bearer {token}\" \\\n    --json '{deployment}'",
        "",
    ]
    return "\n".join(lines)
