"""The OpenAPI document is true: schemathesis finds nothing that the running service does otherwise."""

import unicodedata
from collections.abc import Iterable, Iterator

import httpx
import hypothesis
import pytest
import schemathesis
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route, Router

from service import app
from service.openapi import document
from service.paths import StripRootPath
from service.settings import read
from tests.parts import TOKEN, RedisServer, Replica, deployment, post

FORGET_KEYS = "for _, key in ipairs(redis.call('KEYS', 'vectr0:idempotency:*')) do redis.call('DEL', key) end"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A redis-server for all tests of this file."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, redis: RedisServer) -> Iterator[Replica]:
    """A service on it."""
    replica = Replica(tmp_path_factory.mktemp("service"), redis_url=redis.url)
    try:
        yield replica.start()
    finally:
        replica.kill()


# Of the document as it is made, for a test is made for each of its operations before a service runs.
# The routes whose answers don't end are left out.
schema = schemathesis.openapi.from_dict(document("")).exclude(path_regex="^/events")


@schema.parametrize()
@hypothesis.settings(
    max_examples=100, derandomize=True, database=None, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
)
def test_the_service_is_as_described(redis, service, case):
    """Whatever is sent, the answer's status, headers and body are among those that the document gives for it."""
    # The schema's \p{L} is of the newest Unicode; what that has assigned since this Python's own isn't printable here.
    hypothesis.assume(all(unicodedata.category(character) != "Cn" for character in str(case.body)))
    if case.operation.label == "POST /deployments":
        # A key that an earlier case used for another payload is 422, which no schema can tell beforehand.
        redis.cli("EVAL", FORGET_KEYS, "0")
    case.call_and_validate(service.url, headers={"Authorization": f"Bearer {TOKEN}"})


@pytest.mark.parametrize(("condition", "status"), [("*", 304), ('"1"', 200)])
def test_the_newest_one_is_as_described(service, condition, status):
    """The answers of a channel that has a deployment are as described, too."""
    assert post(service.url, deployment()).status_code in (200, 201)
    operation = schema["/deployments/{app}/{environment}/latest"]["GET"]
    case = operation.Case(
        path_parameters={"app": "web", "environment": "production"}, headers={"If-None-Match": condition}
    )

    assert case.call_and_validate(service.url).status_code == status


def operations(routes: Iterable[BaseRoute]) -> Iterator[tuple[str, str]]:
    """The path and method of each route."""
    for route in routes:
        if isinstance(route, Route) and "//" not in route.path:  # which is another way to write one
            # A route of a whole application takes all methods, and reads of them.
            for method in (route.methods or {"GET"}) - {"HEAD"}:
                yield route.path, method.lower()


def test_every_route_is_described():
    """The routes of the application and those of the document are the same."""
    settings, _ = read({}, 1024)
    stripped = app.create(settings)
    assert isinstance(stripped, StripRootPath)
    router = stripped._app
    assert isinstance(router, Router)
    requests = router.default
    assert isinstance(requests, Starlette)
    documented = {
        (path, method) for path, item in document("")["paths"].items() for method in item if method != "parameters"
    }

    assert {*operations(router.routes), *operations(requests.routes)} == documented


def test_the_document_is_served(service):
    """What is tested here is what the service gives."""
    answer = httpx.get(f"{service.url}/openapi.json")

    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == document("")


def test_the_document_names_the_prefix():
    """Below a path prefix the document's server is that prefix."""
    assert document("/hub")["servers"] == [{"url": "/hub"}]
    assert document("")["servers"] == [{"url": "/"}]
