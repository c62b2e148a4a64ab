"""The server: uvicorn, configured for streams, in one process or several."""

import ctypes
import functools
import multiprocessing
import os
import resource
import signal
import socket
import sys
from typing import Final

from uvicorn import Config

from service import app, logs
from service.bind import BACKLOG
from service.protocol import Connection
from service.quiet import QuietServer
from service.settings import Settings
from service.supervisor import Supervisor
from service.waiting import Waiting

_PR_SET_PDEATHSIG: Final = 1
"""From <linux/prctl.h>."""


def raise_descriptor_limit() -> int:
    """Raise the limit of open files to the hard one, and give it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = 1_048_576
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def serve(settings: Settings, listening: socket.socket) -> None:
    """Serve until a signal ends it."""
    waiting = Waiting(raise_descriptor_limit(), settings.keep_alive)
    config = Config(
        functools.partial(_create, settings),
        factory=True,
        http=functools.partial(Connection, waiting),  # type: ignore[arg-type]  # uvicorn only calls it
        ws="none",
        loop="service.loop:Loop",
        lifespan="on",
        interface="asgi3",
        workers=settings.workers,
        backlog=BACKLOG,
        timeout_graceful_shutdown=4,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    if settings.workers == 1:
        QuietServer(config).run(sockets=[listening])
    else:
        Supervisor(config, [listening]).run()


def _create(settings: Settings) -> object:
    """Make the application in the process that serves it."""
    if settings.workers > 1:
        logs.configure(settings.log_format)
        raise_descriptor_limit()
        _end_with_parent()
    return app.create(settings)


def _end_with_parent() -> None:
    """Have Linux send SIGTERM when the supervisor dies; its workers would go on, and keep the address."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    supervisor = multiprocessing.parent_process()
    if supervisor is not None and supervisor.pid != os.getppid():  # it died before it could be asked for
        sys.exit("the supervisor is gone")
