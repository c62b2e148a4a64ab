"""The application: makes the parts, ties them together, and starts and ends their tasks."""

import asyncio
import gc
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from service import api, logs
from service.api import Hub
from service.assets import Assets, Description
from service.auth import Tokens
from service.census import Census
from service.channels import Channels
from service.connections import connect
from service.events import Events
from service.exposition import Exposition
from service.issuer import Issuer, issuer_client
from service.metrics import Metrics
from service.origins import OriginMiddleware, Origins
from service.overview import Overview
from service.page import Page
from service.paths import ChannelRoute, ExactRoute, StripRootPath
from service.problem import EXCEPTION_HANDLERS
from service.publishers import Publishers
from service.relay import Relay
from service.roll import Roll
from service.settings import Settings
from service.store import Store
from service.stream import Streams
from service.supervision import Aside, farewell, run_main, running

logger = logging.getLogger("vectr0")


class State(TypedDict):
    """What the lifespan hands to the routes."""

    hub: Hub
    events: ASGIApp


def create(settings: Settings) -> ASGIApp:
    """Make the application. Nothing is connected and no task runs before its lifespan starts."""
    origins = Origins(settings.origins)

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[State]:
        loop = asyncio.get_running_loop()
        metrics = Metrics()
        logs.count_left_out(lambda why: metrics.log_lines_left_out.labels(why).inc())
        store = Store(connect(settings.redis_url), settings.prefix)
        channels = Channels(loop.call_soon, loop.time, metrics)
        relay = Relay(store, channels, metrics)
        overview = Overview(channels, relay)
        census = Census(Roll(store, secrets.token_hex(8)), channels, metrics, loop.time)
        streams = Streams(settings.max_streams, metrics)
        client = issuer_client() if settings.trusted else None
        issuers = {one.issuer: Issuer(one.issuer, client) for one in settings.trusted} if client else {}
        publishers = Publishers(settings.trusted, issuers, settings.audience) if issuers else None
        tokens = Tokens(settings.grants)
        exposition = Exposition(metrics.exposition)
        hub = Hub(store, channels, streams, relay, overview, census, tokens, publishers, metrics, exposition)
        events = Events(
            channels, streams, relay, census, max_boards=settings.max_boards, origins=origins, metrics=metrics
        )
        aside = [
            Aside("census", "counting who runs what", census.run, metrics),
            *(Aside("issuer", f"the keys of {name}", one.run, metrics) for name, one in issuers.items()),
        ]
        runs = [*(run_main(run) for run in (*relay.loops(), streams.run())), *(task.run() for task in aside)]
        try:
            async with running(runs):
                # What is here now stays: a collection needn't look at it again.
                gc.collect()
                gc.freeze()
                logger.info("started", extra={"workers": settings.workers})
                yield {"hub": hub, "events": events}
            await farewell("the census", census.leave())
        finally:
            await farewell("the connection to Redis", store.aclose())
            if client is not None:
                await farewell("the client of the issuers", client.aclose())
            logger.info("stopped")

    route = _EventsRoute()
    # Streams are routed before the middlewares: each would cost them time and memory on every connect.
    return StripRootPath(
        Router(
            [
                *([ExactRoute("/events", route)] if settings.board else []),
                ChannelRoute("/events/{app}/{environment}", route),
                ChannelRoute("/events//{app}/{environment}", route),
            ],
            # And no Mount, which wouldn't match a path with a line break in it.
            default=_requests(origins, board=settings.board, root_path=settings.root_path),
            redirect_slashes=False,
            lifespan=lifespan,
        ),
        settings.root_path,
    )


class _EventsRoute:
    """Hands a request to the `Events` of this lifespan; Starlette takes an object for a whole application."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await scope["state"]["events"](scope, receive, send)


def _requests(origins: Origins, *, board: bool, root_path: str) -> Starlette:
    """Make the application for requests that end."""
    assets, page, description = Assets(), Page(), Description(root_path)
    application = Starlette(
        routes=[
            ExactRoute("/deployments", api.record, methods=["POST"]),
            ExactRoute("/deployments", api.list_all if board else api.hidden),
            ChannelRoute("/deployments/{app}/{environment}", api.list_channel),
            ChannelRoute("/deployments/{app}/{environment}", api.forget, methods=["DELETE"]),
            ChannelRoute("/deployments/{app}/{environment}/latest", api.latest),
            ChannelRoute("/deployments/{app}/{environment}/adoption", api.adoption),
            ExactRoute("/livez", api.livez),
            ExactRoute("/readyz", api.readyz),
            ExactRoute("/metrics", api.metrics),
            ExactRoute("/openapi.json", description.answer),
            ExactRoute("/browser/vectr0.tgz", assets.package),
            ExactRoute("/browser/{file}", assets.entry),
            ExactRoute("/browser/{build}/{file}", assets.file),
            ExactRoute("/demo", assets.demo),
            ExactRoute("/", page.page if board else api.hidden),
            ExactRoute("/dashboard/{build}/{file}", page.file),
            *([] if board else [ExactRoute("/events", api.hidden)]),
        ],
        middleware=[Middleware(OriginMiddleware, origins=origins)],
        exception_handlers=EXCEPTION_HANDLERS,
    )
    application.router.redirect_slashes = False
    return application
