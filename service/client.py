"""The other end of the wire: post a deployment to a hub, and read what it has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from service.answers import Record, is_adoption, is_record
from service.failures import HubUnavailableError
from service.jsontext import json_text, read_json
from service.patience import Note, Patience, persist, refused
from service.request import MOST_REDIRECTIONS, ask
from service.url import address, bearer, without_secrets


@dataclass(frozen=True, slots=True)
class Posted:
    """What became of a deployment: the record as the hub gave it, and whether it had it already."""

    record: Record
    is_repeat: bool


@dataclass(frozen=True, slots=True)
class Listed:
    """What a hub lists: deployments, newest first, and by channel who runs what; None where it doesn't say."""

    deployments: Sequence[Record]
    adoptions: Mapping[str, Record] | None


def post(url: str, fields: Record, token: str, key: str, *, patience: Patience, note: Note) -> Posted:
    """Record a deployment. The same key makes it safe to send it again, so that whatever may pass is tried again.

    Raises WrongUseError, RefusedError, and HubUnavailableError when the patience is at its end.
    """
    hub, name = address(url), without_secrets(url)
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    content, auth = json_text(fields), bearer(token)
    response = persist(
        lambda seconds: ask(
            "POST", f"{hub}/deployments", seconds=seconds, headers=headers, content=content, auth=auth
        ),
        name, patience, note=note,
    )  # fmt: skip
    if response.status_code not in (httpx.codes.OK, httpx.codes.CREATED):
        raise refused(name, response)
    record = _document(name, response)
    if not is_record(record):
        raise HubUnavailableError(f"{name} is no hub: its answer is no deployment")
    return Posted(record, is_repeat=response.status_code == httpx.codes.OK)


def deployments(url: str, filters: Mapping[str, str], *, patience: Patience, adoption: bool) -> Listed:
    """Read the deployments of all channels, newest first, and with ``adoption`` who runs what, in one request.

    An older hub that refuses to be asked for both is asked again. Raises RefusedError or HubUnavailableError.
    """
    hub, name = address(url), without_secrets(url)
    response = _list(hub, dict(filters) | ({"adoption": "true"} if adoption else {}), patience)
    if adoption and _is_about(response, "adoption"):
        response = _list(hub, filters, patience)
    if not response.is_success:
        raise refused(name, response)
    document = _document(name, response)
    found = document.get("deployments") if isinstance(document, dict) else None
    if not isinstance(found, list) or not all(map(is_record, found)):
        raise HubUnavailableError(f"{name} is no hub: its answer is no list of deployments")
    counted = document.get("adoption")
    if not isinstance(counted, list):
        return Listed(found, None)
    return Listed(found, {f"{one['appName']}/{one['environment']}": one for one in counted if is_adoption(one)})


def _list(hub: str, parameters: Mapping[str, str], patience: Patience) -> httpx.Response:
    wanted = httpx.URL(f"{hub}/deployments").copy_merge_params(dict(parameters))
    return persist(
        lambda seconds: ask("GET", wanted, seconds=seconds, redirections=MOST_REDIRECTIONS),
        without_secrets(hub), patience, note=lambda _: None,
    )  # fmt: skip


def _is_about(response: httpx.Response, parameter: str) -> bool:
    """Tell whether a problem document is about this parameter."""
    try:
        errors = read_json(response.content)["errors"] if response.status_code == httpx.codes.BAD_REQUEST else []
        return any(error["field"] == parameter for error in errors)
    except (ValueError, KeyError, TypeError):
        return False


def _document(name: str, response: httpx.Response) -> Any:
    try:
        return read_json(response.content)
    except ValueError:
        raise HubUnavailableError(f"{name} is no hub: its answer isn't JSON") from None
