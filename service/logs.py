"""Log lines, for people or for machines."""

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Final

from service.logqueue import QueuedHandler, Why
from service.restraint import Restraint
from service.settings import LogFormat

logger = logging.getLogger("vectr0")

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


class JSONFormatter(logging.Formatter):
    """One JSON object a line, with what the caller gave as ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        """Encode a record."""
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(log_format: LogFormat) -> None:
    """Send all log lines to standard error, if there is one; of uvicorn only what is wrong."""
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    output = logging.NullHandler() if sys.stderr is None else QueuedHandler(sys.stderr.fileno(), Restraint())
    output.setFormatter(JSONFormatter() if log_format == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[output], force=True)
    # "Invalid HTTP request received", a line for every port scan, is a warning there.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every fetch


def count_left_out(count: Callable[[Why], object]) -> None:
    """Have somebody count the lines that aren't written."""
    for output in logging.getLogger().handlers:
        if isinstance(output, QueuedHandler):
            output.on_left_out = count
