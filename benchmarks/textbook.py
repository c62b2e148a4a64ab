"""The yardstick: the endpoint that most teams would write. A queue a client, EventSourceResponse as it is."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import BlockingConnectionPool, Redis
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

CHANNEL = "textbook:web/production"

redis = Redis.from_pool(
    BlockingConnectionPool.from_url(os.environ["TEXTBOOK_REDIS_URL"], decode_responses=True, timeout=None)
)
queues: set[asyncio.Queue[str]] = set()


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    pubsub = redis.pubsub()
    await pubsub.subscribe(CHANNEL)

    async def relay() -> None:
        async for message in pubsub.listen():
            if message["type"] == "message":
                for queue in queues:
                    queue.put_nowait(message["data"])

    task = asyncio.create_task(relay())
    yield
    task.cancel()


async def events(_: Request) -> EventSourceResponse:
    queue: asyncio.Queue[str] = asyncio.Queue()

    async def stream() -> AsyncIterator[ServerSentEvent]:
        queues.add(queue)
        try:
            for newest in await redis.zrange(CHANNEL, -1, -1):
                yield ServerSentEvent(newest, event="deployment")
            while True:
                yield ServerSentEvent(await queue.get(), event="deployment")
        finally:
            queues.discard(queue)

    return EventSourceResponse(stream())


async def publish(request: Request) -> Response:
    body = (await request.body()).decode()
    await redis.zadd(CHANNEL, {body: time.time()})
    await redis.publish(CHANNEL, body)
    return Response(status_code=201)


app = Starlette(
    routes=[Route("/events", events), Route("/publish", publish, methods=["POST"])],
    middleware=[Middleware(CORSMiddleware, allow_origins=["*"])],
    lifespan=lifespan,
)
