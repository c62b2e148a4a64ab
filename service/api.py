"""The routes for requests that end: recording deployments, reading them, and being operated."""

import asyncio
import logging
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import orjson
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from service.adoption import MILESTONES, Adoption
from service.auth import Grant, InvalidTokenError, Tokens, authorize, bearer_token
from service.census import Census, document_of, kept
from service.channel import Channel
from service.channels import Channels
from service.choices import choices
from service.deployment import NAME_RULE, ChannelName, Deployment, FieldError, Submission, channel_name
from service.exposition import Exposition
from service.handover import will_store
from service.metrics import Metrics
from service.overview import Overview
from service.pieces import PiecesResponse
from service.problem import Problem
from service.publishers import Identity, Publishers, looks_like_an_identity
from service.relay import Relay
from service.store import DEADLINE, Store, StoreUnavailableError, Ticket
from service.stream import Streams

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
MAX_KEY_LENGTH: Final = 128
MAX_PARAMETERS: Final = 32
"""Parameters of a query, more than any route has: taking a long one apart costs milliseconds."""
MAX_BODY_SIZE: Final = 16 * 1024
"""Bytes of a request's body."""
SLICE: Final = 100
"""Channels after which the event loop gets its turn."""

deployment_logger = logging.getLogger("vectr0.deployments")
identity_logger = logging.getLogger("vectr0.publishers")


@dataclass(frozen=True, slots=True)
class Hub:
    """What the routes work with; see `service.app`."""

    store: Store
    channels: Channels
    streams: Streams
    relay: Relay
    overview: Overview
    census: Census
    tokens: Tokens
    publishers: Publishers | None
    metrics: Metrics
    exposition: Exposition


def hub_of(request: Request) -> Hub:
    """Give what the lifespan made."""
    hub: Hub = request.scope["state"]["hub"]
    return hub


async def record(request: Request) -> Response:
    """Record a deployment: 201, or 200 with the earlier one that it repeats."""
    hub = hub_of(request)
    publisher = await _identify(request)
    _refuse_parameters(request)
    _require_json(request)
    key = _idempotency_key(request)
    submission = Submission.from_json(await _body(request))
    ticket = _authorize(publisher, submission.channel)
    will_store(request.scope)
    with hub.metrics.append_latency.time(), hub.metrics.deployments_failing():
        appended = await hub.store.append(submission, key, ticket)
    hub.metrics.deployments.labels(appended.outcome).inc()
    if appended.outcome == "conflict":
        message = "was used for another payload; a new deployment needs a new key"
        raise Problem(422, f"Idempotency-Key: {message}", errors=[FieldError("Idempotency-Key", message)])
    if appended.outcome == "replayed":
        identity_logger.warning("an identity was refused for %s: its jti was used there", submission.channel)
        raise Problem(403, f"this identity's token was used for {submission.channel} before; each is good for once")
    if appended.outcome == "recorded":
        _log(submission, appended.deployment)
    # Heard of or not yet: who lists deployments after this answer finds it there.
    hub.channels.index.note(submission.channel, appended.deployment.id)
    return _json(
        appended.deployment.json,
        201 if appended.outcome == "recorded" else 200,
        # Relative to /deployments, so that it is right below any prefix that a proxy has taken off.
        {"Location": f"deployments/{submission.channel}", "Cache-Control": "no-store"},
    )


async def list_all(request: Request) -> Response:
    """List deployments over all channels, newest first."""
    hub = hub_of(request)
    parameters = _parameters(request, "appName", "environment", "gitTag", "limit", "adoption")
    limit, is_counted = _limit(parameters.get("limit")), _is_counted(parameters.get("adoption"))
    listed = await hub.overview.newest(limit, lambda name: _matches(name, parameters), parameters.get("gitTag"))
    adoptions = await _adoptions(hub.census, {channel for channel, _ in listed}) if is_counted else None
    return _list([deployment for _, deployment in listed], adoptions)


async def _adoptions(census: Census, channels: Iterable[Channel]) -> list[bytes]:
    """Return who runs what on the channels of which something is listed, a document each."""
    overview, is_stale = await census.inquiries.ask_for_all()
    documents = []
    for number, channel in enumerate(sorted(channels, key=lambda channel: channel.name), start=1):
        key = channel.name, channel.changes, is_stale
        document = overview.documents.get(key)
        if document is None:
            adoption = Adoption.of(overview.counts.get(channel.name, {}), kept(channel))
            document = orjson.dumps(document_of(channel.name, adoption, overview.as_of, is_stale=is_stale))
            overview.documents[key] = document
        documents.append(document)
        if number % SLICE == 0:
            await asyncio.sleep(0)
    return documents


async def list_channel(request: Request) -> Response:
    """List a channel's deployments, newest first; an unknown channel has none."""
    _refuse_parameters(request)
    channel = await _loaded(request)
    return _list([frame.deployment for frame in reversed(channel.frames)])


async def latest(request: Request) -> Response:
    """Give a channel's newest deployment, or 304 to one who has it."""
    _refuse_parameters(request)
    channel = await _loaded(request)
    _require_deployment(channel)
    newest = channel.frames[-1].deployment
    # Of its bytes: after a failover another record may have its id.
    etag = f'"{sha256(newest.json).hexdigest()[:24]}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    if has_etag(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    return _json(newest.json, 200, headers)


async def adoption(request: Request) -> Response:
    """Tell who runs what on a channel: how many streams each kept deployment has, and how they came to the newest."""
    _refuse_parameters(request)
    channel = await _loaded(request)
    _require_deployment(channel)
    answer, is_stale = await hub_of(request).census.inquiries.ask(channel)
    deployments = kept(channel)
    found = document_of(
        channel.name, Adoption.of(answer.counts, deployments), answer.as_of, is_stale=is_stale
    )  # fmt: skip
    for entry, deployment in zip(found["deployments"], deployments, strict=True):
        fields, took = deployment.fields, answer.curve.reached.get(deployment.id, {})
        entry |= {name: fields.get(name) for name in ("version", "gitTag", "gitCommit", "buildNumber", "rollback")}
        entry["reached"] = {str(percent): took.get(percent) for percent in MILESTONES}
    # Just after a deployment the curve is still its predecessor's.
    samples = answer.curve.samples if deployments and answer.curve.newest == deployments[0].id else []
    found["samples"] = [dict(zip(("at", "newest", "streams", "unknown"), sample, strict=True)) for sample in samples]
    return _json(orjson.dumps(found), 200, {"Cache-Control": "no-cache"})


async def forget(request: Request) -> Response:
    """Forget a channel."""
    hub = hub_of(request)
    try:
        grants = hub.tokens.identify(request.headers.get("authorization"))
    except InvalidTokenError:
        if hub.publishers is None or not looks_like_an_identity(bearer_token(request.headers["authorization"])):
            raise
        raise InvalidTokenError("an identity is good for recording; to forget a channel takes a token") from None
    _refuse_parameters(request)
    name = _name(request)
    authorize(grants, name)
    will_store(request.scope)
    existed = await hub.store.forget(name)
    if not existed:
        raise Problem(404, f"{name} has no deployment")
    hub.channels.index.drop(name)
    deployment_logger.info("forgot %s", name, extra={"channel": name})
    channel = hub.channels.get(name)
    if channel is not None:
        await _read(hub.channels, channel)
    return Response(status_code=204)


async def hidden(_: Request) -> Response:
    """Stand where something would show more than one named channel."""
    raise Problem(404, "VECTR0_BOARD is off: this hub shows no more than the one channel that is asked for")


async def livez(_: Request) -> Response:
    """Answer while the event loop turns."""
    return _json(b'{"status":"alive"}', 200, {"Cache-Control": "no-store"})


async def readyz(request: Request) -> Response:
    """Tell how it goes. Never red because Redis is away: from memory a replica still serves."""
    hub = hub_of(request)
    relay = hub.relay
    last_error = None if relay.last_error is None else relay.last_error.kind
    health = {
        "status": "ready",
        "relay": {"state": relay.state, "since": int(relay.since * 1000), "lastError": last_error},
        "channels": len(hub.channels),
        "streams": hub.streams.count,
        "maxStreams": hub.streams.limit,
        "now": time.time_ns() // 1_000_000,
    }
    return _json(orjson.dumps(health), 200, {"Cache-Control": "no-store"})


async def metrics(request: Request) -> Response:
    """Give the metrics of all workers."""
    text = await hub_of(request).exposition.text()
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _loaded(request: Request) -> Channel:
    """Give the request's channel, read into memory where it isn't yet."""
    channels = hub_of(request).channels
    channel = channels.open(_name(request))
    if not channel.loaded:
        await _read(channels, channel)
        if not channel.frames:
            channels.pass_by(channel)
    return channel


def _require_deployment(channel: Channel) -> None:
    if not channel.frames:
        raise Problem(404, f"{channel.name} has no deployment", headers={"Cache-Control": "no-cache"})


async def _read(channels: Channels, channel: Channel) -> None:
    try:
        async with asyncio.timeout(DEADLINE):
            await channels.read(channel)
    except TimeoutError:
        raise StoreUnavailableError(
            f"{channel.name} could not be read within {DEADLINE} seconds", "timed out"
        ) from None


async def _identify(request: Request) -> Sequence[Grant] | Identity:
    """Find what the request's token grants, or the identity that it proves."""
    hub = hub_of(request)
    authorization = request.headers.get("authorization")
    try:
        return hub.tokens.identify(authorization)
    except InvalidTokenError:
        token = bearer_token(authorization)
        if hub.publishers is None or not looks_like_an_identity(token):
            raise
    return await hub.publishers.identify(token, time.time())


def _authorize(publisher: Sequence[Grant] | Identity, channel: ChannelName) -> Ticket | None:
    if isinstance(publisher, Identity):
        publisher.authorize(channel)
        return publisher.ticket
    authorize(publisher, channel)
    return None


def _name(request: Request) -> ChannelName:
    name = channel_name(request.path_params["app"], request.path_params["environment"])
    if name is None:
        raise Problem(404, f"a channel is an application and an environment, each {NAME_RULE}")
    return name


def _require_json(request: Request) -> None:
    content_type = request.headers.get("content-type", "none")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise Problem(
            415,
            f"the Content-Type must be application/json, not {content_type}; with curl, use --json",
            headers={"Accept-Post": "application/json"},
        )


async def _body(request: Request) -> bytes:
    """Read the body, and no more of it than is allowed.

    Starlette's own limit isn't used: in place of every refusal of such a request, a 401 too, it answers in plain text.
    """
    too_large = Problem(413, f"the body is over {MAX_BODY_SIZE} bytes", headers={"Connection": "close"})
    if int(request.headers.get("content-length", "0")) > MAX_BODY_SIZE:
        raise too_large  # before a client that asks with "Expect: 100-continue" is told to send it
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_SIZE:
            raise too_large
    return bytes(body)


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= MAX_KEY_LENGTH and key.isascii() and key.isprintable()):
        message = f"must be 1 to {MAX_KEY_LENGTH} printable ASCII characters"
        raise Problem(422, f"Idempotency-Key: {message}", errors=[FieldError("Idempotency-Key", message)])
    return key


def _refuse_parameters(request: Request) -> None:
    _parameters(request)


def _parameters(request: Request, *allowed: str) -> Mapping[str, str]:
    known = ", ".join(allowed) or "none"
    if request.scope["query_string"].count(b"&") >= MAX_PARAMETERS:
        raise Problem(400, f"the query has over {MAX_PARAMETERS} parameters; this route has {known}")
    parameters: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in allowed:
            message = f"is not a parameter of this route; it has {known}"
        elif name in parameters:
            message = "is given twice"
        else:
            parameters[name] = value
            continue
        raise Problem(400, f"{name}: {message}", errors=[FieldError(name, message)])
    return parameters


def _is_counted(text: str | None) -> bool:
    if text not in (None, "true"):
        message = f"must be true, or left out, not {text[:40]}"
        raise Problem(400, f"adoption: {message}", errors=[FieldError("adoption", message)])
    return text is not None


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if re.fullmatch("[0-9]{1,9}", text) and 1 <= int(text) <= MAX_LIMIT:
        return int(text)
    message = f"must be an integer from 1 to {MAX_LIMIT}, not {text[:40]}"
    raise Problem(400, f"limit: {message}", errors=[FieldError("limit", message)])


def _matches(name: ChannelName, parameters: Mapping[str, str]) -> bool:
    app, _, environment = name.partition("/")
    return parameters.get("appName", app) == app and parameters.get("environment", environment) == environment


def has_etag(if_none_match: str | None, etag: str) -> bool:
    """Tell whether a client has what this ETag names, compared weakly (RFC 9110, section 13.1.2)."""
    candidates = [candidate.strip().removeprefix("W/") for candidate in choices([if_none_match or ""])]
    return "*" in candidates or etag in candidates


def _list(deployments: Iterable[Deployment], adoptions: Iterable[bytes] | None = None) -> Response:
    parts = [b'{"deployments":[', *_separated(deployment.json for deployment in deployments)]
    if adoptions is not None:
        parts += [b'],"adoption":[', *_separated(adoptions)]
    return PiecesResponse([*parts, b"]}"], {"Cache-Control": "no-cache"})


def _separated(documents: Iterable[bytes]) -> list[bytes]:
    """Return documents with a comma between each two."""
    return [part for document in documents for part in (b",", document)][1:]


def _json(body: bytes, status: int, headers: Mapping[str, str]) -> Response:
    return Response(body, status, headers, "application/json")


def _log(submission: Submission, deployment: Deployment) -> None:
    deployment_logger.info(
        "recorded %s %s (%s)",
        submission.channel,
        submission.git_tag or submission.version,
        submission.git_commit,
        extra={"channel": submission.channel, "deployedAt": deployment.id, "version": submission.version},
    )
