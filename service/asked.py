"""What a request for a stream asks for."""

import re
from typing import Final
from urllib.parse import unquote_plus

from starlette.datastructures import Headers
from starlette.types import Scope

from service.build import Build, parse
from service.deployment import NAME_RULE, ChannelName, channel_name, event_id
from service.problem import Problem

# Not Starlette's QueryParams: they would take as long as a twentieth of all else that a connect takes.
_LAST_EVENT_ID: Final = re.compile(rb"(?:^|&)lastEventId=([^&]{1,64})(?=&|$)")  # an id, with every character escaped
_RUNNING: Final = re.compile(rb"(?:^|&)running=([^&]{1,240})(?:&|$)")  # a build, with every character escaped


def asked_channel(scope: Scope) -> ChannelName | None:
    """Return the request's channel; None where it is for all. Raises Problem for a name that none can have."""
    if not scope["path_params"]:
        return None
    name = channel_name(scope["path_params"]["app"], scope["path_params"]["environment"])
    if name is None:
        raise Problem(404, f"a channel is an application and an environment, each {NAME_RULE}")
    return name


def asked_build(scope: Scope) -> Build | None:
    """Return what the page says that it runs."""
    value = _RUNNING.search(scope["query_string"])
    return parse(unquote_plus(value[1].decode("latin-1"))) if value else None


def takes_chunks(scope: Scope) -> bool:
    """Tell whether the answer may be chunked; HTTP/1.0 has no chunks."""
    return bool(scope["http_version"] == "1.1")


def asked_last_event_id(scope: Scope) -> int | None:
    """Return the id of the header, or of the parameter that a first connect may bring.

    The header wins [spec: reconnects send it].
    """
    last_event_id = event_id(Headers(scope=scope).get("last-event-id"))
    if last_event_id is None and (given := _LAST_EVENT_ID.findall(scope["query_string"])):
        last_event_id = event_id(unquote_plus(given[-1].decode("latin-1")))
    return last_event_id
