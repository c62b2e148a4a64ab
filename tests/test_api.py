"""The routes for requests that end, asked over HTTP of a real service on a real Redis."""

import hashlib
import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.parts import TOKEN, RedisServer, Replica, deployment, post, wait_until

HASHED, OLD, SCOPED, PREVIEWS = "hashed-s3cret", "old-s3cret", "web-s3cret", "previews-s3cret"
TOKENS = (
    f"{TOKEN}, {OLD}\nsha256:{sha256(HASHED.encode()).hexdigest()}, {SCOPED}@scoped/*, {SCOPED}@extra/production"
    f"\n{PREVIEWS}@*/pr-*"
)
UNKNOWN = "unknown-s3cret"
PAGE = "https://app.example"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def redis(folder: Path) -> Iterator[RedisServer]:
    """A redis-server for all tests of this file; each test has channels of its own."""
    server = RedisServer(folder).start()
    yield server
    server.kill()


@contextmanager
def running(folder: Path, redis: RedisServer, **settings: str) -> Iterator[Replica]:
    replica = Replica(folder, redis_url=redis.url, **settings)
    try:
        yield replica.start()
    finally:
        replica.kill()


@pytest.fixture(scope="module")
def service(folder: Path, redis: RedisServer) -> Iterator[Replica]:
    """A service that every page may read, with several tokens."""
    with running(folder, redis, tokens=TOKENS) as replica:
        yield replica


@pytest.fixture(scope="module")
def fenced(folder: Path, redis: RedisServer) -> Iterator[Replica]:
    """A service below a path prefix that only listed pages may read, with one stream at the most."""
    with running(folder, redis, origins=f"{PAGE}, https://other.example", root_path="/hub", max_streams="1") as replica:
        yield replica


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """A service whose Redis is gone, with one deployment of known/production in memory."""
    folder = tmp_path_factory.mktemp("cut-off")
    server = RedisServer(folder).start()
    try:
        with running(folder, server) as replica:
            assert post(replica.url, deployment("known")).status_code == 201
            assert httpx.get(f"{replica.url}/deployments/known/production/latest").status_code == 200
            server.kill()
            wait_until(lambda: replica.health()["relay"]["state"] == "down", what="the relay's notice")
            yield replica
    finally:
        server.kill()


def writes(redis: RedisServer) -> dict[str, int]:
    """How often Redis ran each command of a write."""
    counted = re.findall(r"cmdstat_(eval|sadd|srem|del):calls=(\d+)", redis.cli("INFO", "commandstats"))
    return {command: int(calls) for command, calls in counted}


def problem(answer: httpx.Response, status: int, title: str) -> dict[str, Any]:
    """Check that an answer is a problem document (RFC 9457), and give it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["type"] == "about:blank"
    assert document["title"] == title
    assert document["status"] == status
    assert document["detail"]
    assert document.keys() <= {"type", "title", "status", "detail", "errors"}
    return document


def errors(document: dict[str, Any]) -> dict[str, str]:
    assert all(error.keys() == {"field", "message"} for error in document["errors"])
    return {error["field"]: error["message"] for error in document["errors"]}


def recorded(service: Replica, app: str, environment: str = "production", **fields: object) -> dict[str, Any]:
    """Record a deployment that is new."""
    answer = post(service.url, deployment(app, environment, **fields))
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


def versions(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [record["version"] for record in answer.json()["deployments"]]


# Refusals of POST


@pytest.mark.parametrize("body", [b"", b"{", b"version=1", b"[]", b'"web"', b"null", b'{"a":1}{}', b"\xff", b"1e400"])
def test_400_for_what_is_no_json_object(redis, service, body):
    """A body that isn't a JSON object is 400, and Redis isn't touched."""
    before = writes(redis)
    answer = httpx.post(f"{service.url}/deployments", content=body, headers={**BEARER, **JSON})

    document = problem(answer, 400, "Bad Request")
    assert "JSON" in document["detail"]
    assert writes(redis) == before


def test_a_byte_order_mark(service):
    """A body that begins with a byte order mark, as PowerShell writes files, is read; the record has none."""
    body = json.dumps(deployment("marked"))
    answer = httpx.post(f"{service.url}/deployments", content=body.encode("utf-8-sig"), headers={**BEARER, **JSON})

    assert answer.status_code == 201
    assert answer.content.startswith(b'{"appName":"marked",')
    assert httpx.post(f"{service.url}/deployments", content=body, headers={**BEARER, **JSON}).status_code == 200


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_400_for_another_encoding(service, encoding):
    """A body in UTF-16, as PowerShell's `>` writes files, is 400 and told why."""
    body = json.dumps(deployment("encoded")).encode(encoding)
    answer = httpx.post(f"{service.url}/deployments", content=body, headers={**BEARER, **JSON})

    assert "it is in UTF-16 or UTF-32, and JSON is in UTF-8" in problem(answer, 400, "Bad Request")["detail"]


@pytest.mark.parametrize("authorization", [None, "", "Bearer", f"Basic {TOKEN}", TOKEN])
def test_401_without_a_bearer_token(redis, service, authorization):
    """A request without a bearer token is 401 and is told how to bring one (RFC 6750), and Redis isn't touched."""
    before = writes(redis)
    headers = {} if authorization is None else {"Authorization": authorization}
    answers = [
        httpx.post(f"{service.url}/deployments", json=deployment(), headers=headers),
        httpx.delete(f"{service.url}/deployments/web/production", headers=headers),
    ]

    for answer in answers:
        assert "Authorization: Bearer" in problem(answer, 401, "Unauthorized")["detail"]
        assert answer.headers["www-authenticate"] == 'Bearer realm="vectr0"'
    assert writes(redis) == before


@pytest.mark.parametrize(
    "token", [UNKNOWN, f"{TOKEN}x", TOKEN[:-1], f"{TOKEN}@*/*", sha256(HASHED.encode()).hexdigest()]
)
def test_401_for_an_unknown_token(redis, service, token):
    """A token that isn't set, or a hash in place of its token, is 401 with `invalid_token`, and isn't repeated."""
    before = writes(redis)
    answer = post(service.url, token=token)

    problem(answer, 401, "Unauthorized")
    assert answer.headers["www-authenticate"] == 'Bearer realm="vectr0", error="invalid_token"'
    assert token not in answer.text
    assert writes(redis) == before


def test_401_comes_before_anything_else(redis, service):
    """Who brings no token learns nothing about what else is wrong."""
    before = writes(redis)
    answer = httpx.post(f"{service.url}/deployments?x=1", content=b"x" * 20_000, headers={"Content-Type": "text/plain"})

    problem(answer, 401, "Unauthorized")
    assert writes(redis) == before


def test_only_the_authorization_header_counts(redis, service):
    """A token in a cookie, the query, the body or another header is as none."""
    before = writes(redis)
    url = f"{service.url}/deployments"
    answers = [
        httpx.post(url, json=deployment(), headers={"Cookie": f"token={TOKEN}; Authorization=Bearer {TOKEN}"}),
        httpx.post(url, json=deployment(), params={"token": TOKEN, "access_token": TOKEN}),
        httpx.post(url, data={"access_token": TOKEN}),
        httpx.post(url, json=deployment(), headers={"X-Api-Key": TOKEN, "Proxy-Authorization": f"Bearer {TOKEN}"}),
    ]

    for answer in answers:
        problem(answer, 401, "Unauthorized")
        assert TOKEN not in answer.text
    assert writes(redis) == before


@pytest.mark.parametrize(
    ("token", "channel", "status"),
    [
        (TOKEN, "anything/anywhere", 201),
        (OLD, "rotated/production", 201),
        (HASHED, "hashed/production", 201),
        (SCOPED, "scoped/production", 201),
        (SCOPED, "scoped/staging", 201),
        (SCOPED, "extra/production", 201),
        (SCOPED, "extra/staging", 403),
        (SCOPED, "scoped2/production", 403),
        (PREVIEWS, "scoped/pr-12", 201),
        (PREVIEWS, "scoped/production", 403),
    ],
)
def test_scope(redis, service, token, channel, status):
    """A token is good for the channels of its entries, where a star stands for anything; for others it is 403."""
    app, environment = channel.split("/")
    before = writes(redis)
    answer = post(service.url, deployment(app, environment), token=token)

    assert answer.status_code == status, answer.text
    assert token not in answer.text
    if status == 403:
        assert channel in problem(answer, 403, "Forbidden")["detail"]
        assert writes(redis) == before


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/nothing", None),
        ("/deployments/web", None),
        ("/deployments/a/b/c", None),
        ("/hub/livez", None),
        ("/deployments/", "/deployments"),
        ("//deployments", "/deployments"),
        ("/livez/", "/livez"),
        ("//metrics", "/metrics"),
        ("//", "/"),
        ("//evil.example/demo/", "/evil.example/demo"),
        ("/deployments/web//latest", "/deployments/web/latest"),
        ("/deployments//web/latest", "/deployments/web/latest"),
    ],
)
def test_404_for_an_unknown_path(service, path, meant):
    """A path that isn't a route is 404 and says where the routes are, without a redirect.

    So is one with an additional slash where that isn't about one named channel: a proxy may fence it off by its path.
    """
    status, body = raw(service, f"GET {path}")

    detail = json.loads(body)["detail"]
    assert status == 404
    assert "/openapi.json" in detail
    assert f"(without its additional slashes it is {meant});" in detail if meant else "slash" not in detail


def raw(service: Replica, line: str) -> tuple[int, bytes]:
    """Send a request whose path no client tidies; gives status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=5)
    with closing(connection):
        method, path = line.split(" ", 1)
        connection.putrequest(method, path, skip_accept_encoding=True)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()


@pytest.mark.parametrize("after", ["", "/latest", "/adoption"])
def test_additional_slashes_around_a_channel(service, after):
    """What names one channel is served with additional slashes around it: addresses that end with a slash bring them."""
    recorded(service, "slashes", version=f"1{after}")
    path = f"/deployments/slashes/production{after}"
    answers = [raw(service, f"GET {around}") for around in (path, f"/{path}", f"{path}/", f"//{path}//")]

    assert [status for status, _ in answers] == [200] * 4
    assert after == "/adoption" or {body for _, body in answers} == {answers[0][1]}


@pytest.mark.parametrize(
    "path",
    ["/deployments", "/livez", "/readyz", "/metrics", "/openapi.json", "/demo", "/", "/events", "/browser/vectr0.tgz"],
)
def test_404_for_a_path_with_a_line_break(service, path):
    """A line break at its end makes it another path: Starlette's own patterns let it pass."""
    assert httpx.get(f"{service.url}{path}%0a").status_code == 404


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/", {"GET", "HEAD"}),
        ("/livez", {"GET", "HEAD"}),
        ("/metrics", {"GET", "HEAD"}),
        ("/deployments", {"GET", "HEAD", "POST"}),
        ("/deployments/web/production", {"GET", "HEAD", "DELETE"}),
        ("/events", {"GET", "HEAD"}),
        ("/events/web/production", {"GET", "HEAD"}),
        ("/browser/vectr0.js", {"GET", "HEAD"}),
    ],
)
def test_options(service, path, allowed):
    """OPTIONS, as HAProxy's health check sends it, is 204 and tells the methods (RFC 9110, section 9.3.7)."""
    answer = httpx.options(f"{service.url}{path}")

    assert answer.status_code == 204
    assert set(answer.headers["allow"].split(", ")) == allowed | {"OPTIONS"}
    assert answer.content == b""


def test_options_beside_the_routes(service):
    """OPTIONS of the server as a whole is 204; of a path that isn't there it is 404, as every method."""
    assert raw(service, "OPTIONS *")[0] == 204
    assert raw(service, "OPTIONS /nothing")[0] == 404


@pytest.mark.parametrize("name", ["-web", "w%20b", f"{'a' * 65}", "w%C3%A9b", "web%0A", "*"])
@pytest.mark.parametrize(
    "path", ["/deployments/{}/production", "/deployments/web/{}", "/deployments/{}/production/latest"]
)
def test_404_for_a_malformed_channel(redis, service, path, name):
    """A name that breaks the rule is 404 with the rule, for reading and forgetting alike."""
    before = writes(redis)
    url = f"{service.url}{path.format(name)}"
    answers = [httpx.get(url)]
    if not path.endswith("latest"):
        answers.append(httpx.delete(url, headers=BEARER))

    for answer in answers:
        assert "1 to 64 of A-Z a-z 0-9 . _ -" in problem(answer, 404, "Not Found")["detail"]
    assert writes(redis) == before


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/deployments", {"GET", "HEAD", "POST"}),
        ("PUT", "/deployments", {"GET", "HEAD", "POST"}),
        ("POST", "/deployments/web/production", {"GET", "HEAD", "DELETE"}),
        ("PATCH", "/deployments/web/production", {"GET", "HEAD", "DELETE"}),
        ("DELETE", "/deployments/web/production/latest", {"GET", "HEAD"}),
        ("POST", "/events/web/production", {"GET", "HEAD"}),
        ("DELETE", "/events", {"GET", "HEAD"}),
        ("POST", "/livez", {"GET", "HEAD"}),
        ("POST", "/readyz", {"GET", "HEAD"}),
        ("POST", "/metrics", {"GET", "HEAD"}),
        ("POST", "/openapi.json", {"GET", "HEAD"}),
    ],
)
def test_405_names_every_allowed_method(redis, service, method, path, allowed):
    """A method that a path doesn't have is 405, with all those that it has in Allow."""
    before = writes(redis)
    answer = httpx.request(method, f"{service.url}{path}", headers=BEARER)

    problem(answer, 405, "Method Not Allowed")
    assert set(answer.headers["allow"].split(", ")) == allowed | {"OPTIONS"}
    assert writes(redis) == before


def chunks(size: int) -> Iterator[bytes]:
    yield from [b" " * 1024] * (size // 1024)
    yield b" " * (size % 1024)


@pytest.mark.parametrize("chunked", [False, True])
def test_413_over_16_kib(redis, service, chunked):
    """A body of one byte over 16 KiB is 413, whether or not its length is told; one byte less is read."""
    app = f"size-{chunked}".lower()
    body = json.dumps(deployment(app)).encode()
    padding = 16 * 1024 - len(body)
    before = writes(redis)

    def send(spaces: int) -> httpx.Response:
        content: bytes | Iterator[bytes] = body + b" " * spaces
        if chunked:
            content = (part for parts in ([body], chunks(spaces)) for part in parts)
        return httpx.post(f"{service.url}/deployments", content=content, headers={**BEARER, **JSON})

    assert (
        "16384"
        in problem(
            send(padding + 1), 413, "Content Too Large" if sys.version_info >= (3, 13) else "Request Entity Too Large"
        )["detail"]
    )
    assert writes(redis) == before
    assert send(padding).status_code == 201


@pytest.mark.parametrize(
    "content_type",
    [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "application/ld+json"],
)
def test_415_for_another_media_type(redis, service, content_type):
    """A body that isn't declared as JSON is 415 and is told what is (no page's form can post), and Redis isn't touched."""
    before = writes(redis)
    headers = {} if content_type is None else {"Content-Type": content_type}
    body = json.dumps(deployment()).encode()
    answer = httpx.post(f"{service.url}/deployments", content=body, headers={**BEARER, **headers})

    document = problem(answer, 415, "Unsupported Media Type")
    assert f"must be application/json, not {content_type or 'none'}" in document["detail"]
    assert answer.headers["accept-post"] == "application/json"
    assert writes(redis) == before


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
def test_json_with_parameters(service, content_type):
    """Media types are compared without their case and their parameters (RFC 9110, section 8.3.1)."""
    body = json.dumps(deployment("typed")).encode()
    answer = httpx.post(f"{service.url}/deployments", content=body, headers={**BEARER, "Content-Type": content_type})

    assert answer.status_code in (200, 201)


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("appName", "we b", "1 to 64 of A-Z a-z 0-9 . _ -"),
        ("appName", "", "1 to 64 of A-Z a-z 0-9 . _ -"),
        ("environment", "-production", "starting with a letter or digit"),
        ("environment", "production\n", "starting with a letter or digit"),
        ("version", "a\x00b", "1 to 128 printable characters"),
        ("version", 1.4, "1 to 128 printable characters"),
        ("gitCommit", None, "1 to 64 of A-Z a-z 0-9 . _ -"),
        ("gitCommit", "a/b", "1 to 64 of A-Z a-z 0-9 . _ -"),
        ("buildNumber", "1", "an integer from 0 to 9007199254740991"),
        ("buildNumber", -1, "an integer from 0 to 9007199254740991"),
        ("buildNumber", True, "an integer from 0 to 9007199254740991"),
        ("buildNumber", 2**53, "an integer from 0 to 9007199254740991"),
        ("buildNumber", 1e300, "an integer from 0 to 9007199254740991"),
        ("buildTime", 10**20, "milliseconds since 1970"),
        ("buildTime", 1.5, "milliseconds since 1970"),
        ("gitTag", [], "null or 1 to 128 printable characters"),
        ("gitTag", "", "null or 1 to 128 printable characters"),
    ],
)
def test_422_names_field_value_and_rule(redis, service, field, value, rule):
    """A field that breaks its rule is 422 with its name, its value and the rule, and Redis isn't touched."""
    before = writes(redis)
    answer = post(service.url, {**deployment(), field: value})

    document = problem(answer, 422, "Unprocessable Content" if sys.version_info >= (3, 13) else "Unprocessable Entity")
    message = errors(document)[field]
    assert message.startswith("must be ")
    assert rule in message
    shown = message.rpartition(", not ")[2]
    assert float(shown) == value if isinstance(value, int) and value > 2**64 else json.loads(shown) == value
    assert message in document["detail"]
    assert writes(redis) == before


def test_422_names_everything_wrong_at_once(redis, service):
    """Several broken rules, a missing field and fields that only Redis gives are told in one answer."""
    before = writes(redis)
    fields = {**deployment("a b", buildNumber=-1), "deployedAt": 1, "rollback": False}
    del fields["version"]
    answer = post(service.url, fields)

    told = errors(problem(answer, 422, answer.json()["title"]))
    assert told.keys() == {"appName", "buildNumber", "version", "deployedAt", "rollback"}
    assert told["version"].startswith("is missing; it must be 1 to 128 printable characters")
    assert told["deployedAt"].startswith("is not a field of a deployment; the fields are appName, version")
    assert writes(redis) == before


def test_422_for_nesting_that_could_not_be_shown(service):
    """A value nested deeper than it could be written back is 422 like any other wrong value."""
    body = b'{"appName":' + b"[" * 500 + b"]" * 500 + b"}"
    answer = httpx.post(f"{service.url}/deployments", content=body, headers={**BEARER, **JSON})

    assert "appName" in errors(problem(answer, 422, answer.json()["title"]))


def test_422_repeats_no_more_than_the_start_of_a_long_value(service):
    """A long wrong value is cut off in its message."""
    answer = post(service.url, deployment(version="x" * 10_000))

    assert "x" * 20 in answer.json()["detail"]
    assert len(answer.content) < 1000


@pytest.mark.parametrize("key", [b"", b"x" * 129, b"caf\xc3\xa9", b"a\tb"])
def test_422_for_a_malformed_key(redis, service, key):
    """An Idempotency-Key that is empty, over 128 characters or not printable ASCII is 422, and Redis isn't touched."""
    before = writes(redis)
    headers = [(b"Authorization", f"Bearer {TOKEN}".encode()), (b"Idempotency-Key", key)]
    answer = httpx.post(f"{service.url}/deployments", json=deployment(), headers=headers)

    told = errors(problem(answer, 422, answer.json()["title"]))
    assert told == {"Idempotency-Key": "must be 1 to 128 printable ASCII characters"}
    assert writes(redis) == before


@pytest.mark.parametrize(
    ("method", "path", "field", "rule"),
    [
        ("POST", "/deployments?dry=1", "dry", "it has none"),
        ("GET", "/deployments?app=web", "app", "it has appName, environment, gitTag, limit"),
        ("GET", "/deployments?limit=1&limit=2", "limit", "is given twice"),
        ("GET", "/deployments?appName=a&appName=a", "appName", "is given twice"),
        ("GET", "/deployments?limit=0", "limit", "must be an integer from 1 to 1000, not 0"),
        ("GET", "/deployments?limit=1001", "limit", "must be an integer from 1 to 1000, not 1001"),
        ("GET", "/deployments?limit=ten", "limit", "must be an integer from 1 to 1000, not ten"),
        ("GET", "/deployments?limit=", "limit", "must be an integer from 1 to 1000"),
        ("GET", "/deployments?limit=000000001000000", "limit", "must be an integer from 1 to 1000"),
        ("GET", "/deployments?limit=%D9%A3", "limit", "must be an integer from 1 to 1000, not \u0663"),
        ("GET", "/deployments/web/production?limit=1", "limit", "it has none"),
        ("GET", "/deployments/web/production/latest?x", "x", "it has none"),
        ("DELETE", "/deployments/web/production?force=1", "force", "it has none"),
    ],
)
def test_400_names_the_query_parameter(redis, service, method, path, field, rule):  # noqa: PLR0917  # a row of the table
    """A query parameter that is unknown, given twice or wrong is 400 by its name, and Redis isn't written to."""
    before = writes(redis)
    answer = httpx.request(method, f"{service.url}{path}", headers={**BEARER, **JSON}, content=b"{}")

    told = errors(problem(answer, 400, "Bad Request"))
    assert told.keys() == {field}
    assert rule in told[field]
    assert writes(redis) == before


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/deployments"),
        ("GET", "/deployments"),
        ("GET", "/deployments/unread/production"),
        ("GET", "/deployments/unread/production/latest"),
        ("DELETE", "/deployments/known/production"),
    ],
)
def test_503_without_redis(cut_off, method, path):
    """What needs Redis is 503 with Retry-After while it is away."""
    body = deployment() if method == "POST" else None
    answer = httpx.request(method, f"{cut_off.url}{path}", json=body, headers=BEARER)

    detail = problem(answer, 503, "Service Unavailable")["detail"]
    # The first to ask may do so on a connection of before.
    assert detail in ("Redis is unavailable: connection refused", "Redis is unavailable: connection failed")
    assert int(answer.headers["retry-after"]) > 0


def test_memory_answers_without_redis(cut_off):
    """What is in memory is answered while Redis is away, and the service stays alive and ready."""
    paths = ["/deployments/known/production", "/deployments/known/production/latest", "/livez", "/readyz", "/metrics"]

    assert [httpx.get(f"{cut_off.url}{path}").status_code for path in paths] == [200] * 5
    assert cut_off.health()["relay"]["state"] == "down"
    assert cut_off.health()["relay"]["lastError"] == "connection refused"


def test_no_answer_says_where_redis_is(cut_off):
    """Its address is in no answer to anybody; the log has it, also of what was not recorded."""
    port = re.search(r"Error \d+ connecting to 127\.0\.0\.1:(\d+)", cut_off.log)
    assert port
    answers = [
        httpx.request(method, f"{cut_off.url}{path}", json=body, headers=BEARER)
        for method, path, body in [
            ("POST", "/deployments", deployment()),
            ("DELETE", "/deployments/known/production", None),
            ("GET", "/deployments", None),
            ("GET", "/deployments/unread/production/latest", None),
            ("GET", "/deployments/known/production/adoption", None),
            ("GET", "/readyz", None),
            ("GET", "/metrics", None),
        ]
    ]

    for answer in answers:
        assert port[1] not in answer.text
        assert "127.0.0.1" not in answer.text
    assert f"POST /deployments failed: Error 111 connecting to 127.0.0.1:{port[1]}" in cut_off.log


def test_refusals_come_before_redis_is_asked(cut_off):
    """What would be refused is refused while Redis is away, too."""
    answers = [
        post(cut_off.url, token=None),
        post(cut_off.url, {}),
        httpx.get(f"{cut_off.url}/deployments?x=1"),
        httpx.delete(f"{cut_off.url}/deployments/web/production"),
    ]

    assert [answer.status_code for answer in answers] == [401, 422, 400, 401]


# Recording


def test_201_with_the_record(service):
    """A new deployment is 201 with what Redis made of it and a Location relative to the route."""
    answer = post(service.url, deployment("new", gitTag="v1.0.0"))

    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["location"] == "deployments/new/production"
    record = answer.json()
    deployed_at = record.pop("deployedAt")
    assert record == {**deployment("new", gitTag="v1.0.0"), "previous": None, "rollback": False}
    assert abs(deployed_at / 1000 - service.health()["now"] / 1000) < 60
    assert httpx.get(answer.url.join(answer.headers["location"])).json() == {"deployments": [answer.json()]}


def test_location_below_a_prefix(fenced):
    """The Location is right below a path prefix, whether or not the proxy has taken it off."""
    for url in (f"{fenced.url}/hub", fenced.url):
        answer = post(url, deployment("below"))
        assert answer.status_code in (200, 201)

        assert httpx.get(answer.url.join(answer.headers["location"])).json()["deployments"][0] == answer.json()


def test_200_for_the_newest_again(redis, service):
    """A payload equal to the channel's newest is a repeat: 200 with that record, and nothing changes."""
    first = post(service.url, deployment("again", buildNumber=7))
    second = post(service.url, {**dict(reversed(deployment("again", buildNumber=7.0).items())), "gitTag": None})

    assert (first.status_code, second.status_code) == (201, 200)
    assert second.content == first.content
    assert second.headers["location"] == first.headers["location"]
    assert redis.cli("ZCARD", "vectr0:deployments:{again/production}") == "1"


def test_key_gives_the_record_of_then(redis, service):
    """The same key and payload are 200 with the record of then after others came, and publish nothing."""
    first = post(service.url, deployment("keyed"), key="run 1")
    latest = recorded(service, "keyed", version="2.0.0")
    with httpx.stream("GET", f"{service.url}/events/keyed/production", timeout=5) as stream:
        lines = stream.iter_lines()
        assert f"id: {latest['deployedAt']}" in (next(lines), next(lines), next(lines), next(lines))
        again = post(service.url, deployment("keyed"), key="run 1")
        following = recorded(service, "keyed", version="3.0.0")
        next_id = next(line for line in lines if line.startswith("id: "))

    assert (first.status_code, again.status_code) == (201, 200)
    assert again.content == first.content
    assert next_id == f"id: {following['deployedAt']}"
    assert following["previous"] == latest["deployedAt"]
    assert redis.cli("ZCARD", "vectr0:deployments:{keyed/production}") == "3"


def test_key_with_another_payload(redis, service):
    """The same key with another payload is 422 naming the key, and nothing is stored."""
    post(service.url, deployment("conflict"), key="run-1")
    answer = post(service.url, deployment("conflict", version="2.0.0"), key="run-1")

    told = errors(problem(answer, 422, answer.json()["title"]))
    assert "another payload" in told["Idempotency-Key"]
    assert redis.cli("ZCARD", "vectr0:deployments:{conflict/production}") == "1"


def test_key_belongs_to_its_channel(service):
    """One CI run may use its key for several channels."""
    answers = [post(service.url, deployment("shared", environment), key="run") for environment in ("one", "two")]

    assert [answer.status_code for answer in answers] == [201, 201]


def test_key_of_the_greatest_length(service):
    """A key of 128 printable characters is taken, and is remembered for a day."""
    answers = [post(service.url, deployment("long"), key="~" * 128) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [201, 200]


def test_key_is_remembered_for_a_day(redis, service):
    """Redis forgets a key after 24 hours."""
    post(service.url, deployment("day"), key="run")

    assert 86_000 < int(redis.cli("TTL", "vectr0:idempotency:{day/production}:run")) <= 86_400


def test_refused_deletion_touches_nothing(redis, service):
    """Forgetting with a token that isn't good for the channel is 403, and Redis isn't touched."""
    recorded(service, "kept")
    before = writes(redis)
    answer = httpx.delete(f"{service.url}/deployments/kept/production", headers={"Authorization": f"Bearer {SCOPED}"})

    assert "kept/production" in problem(answer, 403, "Forbidden")["detail"]
    assert writes(redis) == before
    assert len(versions(httpx.get(f"{service.url}/deployments/kept/production"))) == 1


def test_forget(redis, service):
    """A forgotten channel is 204 without a body, has nothing left at once, and is 404 the second time."""
    recorded(service, "scoped", "mistake")
    url, headers = f"{service.url}/deployments/scoped/mistake", {"Authorization": f"Bearer {SCOPED}"}
    answer = httpx.delete(url, headers=headers)

    assert (answer.status_code, answer.content) == (204, b"")
    assert httpx.get(url).json() == {"deployments": []}
    problem(httpx.get(f"{url}/latest"), 404, "Not Found")
    assert httpx.get(f"{service.url}/deployments?appName=scoped&environment=mistake").json() == {"deployments": []}
    assert redis.cli("EXISTS", "vectr0:deployments:{scoped/mistake}") == "0"
    assert "scoped/mistake has no deployment" in problem(httpx.delete(url, headers=headers), 404, "Not Found")["detail"]


# Reading


def test_channel_list(service):
    """A channel's list has its ten newest, newest first, each the bytes that were recorded."""
    records = [recorded(service, "ten", version=f"{number}") for number in range(12)]
    answer = httpx.get(f"{service.url}/deployments/ten/production")

    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.json() == {"deployments": records[:1:-1]}


def test_unknown_channel(redis, service):
    """An unknown channel has an empty list and no newest one, and leaves nothing in Redis."""
    url = f"{service.url}/deployments/nobody/nowhere"
    document = problem(httpx.get(f"{url}/latest"), 404, "Not Found")

    assert httpx.get(url).json() == {"deployments": []}
    assert document["detail"] == "nobody/nowhere has no deployment"
    assert redis.cli("SISMEMBER", "vectr0:channels", "nobody/nowhere") == "0"


@pytest.fixture(scope="module")
def filtered(service: Replica) -> str:
    """The URL of a list with five deployments of three channels."""
    for app, environment, version, tag in [
        ("list-a", "production", "1", "list-v1"),
        ("list-b", "production", "2", "list-v1"),
        ("list-a", "list-staging", "3", "list-v2"),
        ("list-a", "production", "4", None),
        ("list-b", "production", "5", "list v2 é"),
    ]:
        recorded(service, app, environment, version=version, gitTag=tag)
    return f"{service.url}/deployments"


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"appName": "list-a"}, ["4", "3", "1"]),
        ({"appName": "list-a", "environment": "production"}, ["4", "1"]),
        ({"environment": "list-staging"}, ["3"]),
        ({"gitTag": "list-v1"}, ["2", "1"]),
        ({"gitTag": "list v2 é"}, ["5"]),
        ({"gitTag": "list-v1", "appName": "list-b"}, ["2"]),
        ({"appName": "list-a", "limit": "2"}, ["4", "3"]),
        ({"appName": "list-a", "limit": "1000"}, ["4", "3", "1"]),
        ({"gitTag": "list"}, []),
        ({"gitTag": "null"}, []),
        ({"appName": "list-*"}, []),
        ({"appName": "no name at all"}, []),
        ({"appName": ""}, []),
    ],
)
def test_filters(filtered, parameters, expected):
    """Filters hold together, compare whole values, and leave the order: newest first over all channels."""
    answer = httpx.get(filtered, params=parameters)

    assert versions(answer) == expected


def test_list_is_limited_to_a_hundred(redis, service):
    """Without ?limit= at most a hundred are listed, over all channels in one order."""
    for number in range(11):
        for version in range(10):
            recorded(service, f"many-{number}", version=f"{version}")
    listed = httpx.get(f"{service.url}/deployments").json()["deployments"]
    more = httpx.get(f"{service.url}/deployments?limit=105").json()["deployments"]

    assert (len(listed), len(more)) == (100, 105)
    assert more[:100] == listed
    assert [record["deployedAt"] for record in more] == sorted((record["deployedAt"] for record in more), reverse=True)


def test_latest(service):
    """The newest one has a strong ETag of its own and is revalidated each time."""
    first = recorded(service, "latest", version="1")
    answers = [httpx.get(f"{service.url}/deployments/latest/production/latest")]
    second = recorded(service, "latest", version="2")
    wait_until(lambda: httpx.get(f"{service.url}/deployments/latest/production/latest").json() == second)
    answers.append(httpx.get(f"{service.url}/deployments/latest/production/latest"))

    assert [answer.json() for answer in answers] == [first, second]
    assert [answer.headers["etag"] for answer in answers] == [
        f'"{hashlib.sha256(answer.content).hexdigest()[:24]}"' for answer in answers
    ]
    assert {answer.headers["cache-control"] for answer in answers} == {"no-cache"}


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ("{}", 304),
        ("W/{}", 304),
        ('"1", {}', 304),
        ('"1",W/{},"2"', 304),
        ("*", 304),
        ('"1"', 200),
        ('W/"1", "2"', 200),
        ("", 200),
        ("garbage", 200),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_if_none_match(service, method, condition, status):
    """Who has the newest one, by a weak comparison with a list of ETags, gets 304 without a body."""
    post(service.url, deployment("etag"))
    url = f"{service.url}/deployments/etag/production/latest"
    etag = httpx.get(url).headers["etag"]
    answer = httpx.request(method, url, headers={"If-None-Match": condition.format(etag)})

    assert answer.status_code == status
    assert answer.headers["etag"] == etag
    assert answer.headers["cache-control"] == "no-cache"
    assert bool(answer.content) == (status == 200 and method == "GET")


def test_if_none_match_where_there_is_none(service):
    """`*` doesn't turn a missing deployment into 304."""
    answer = httpx.get(f"{service.url}/deployments/none/none/latest", headers={"If-None-Match": "*"})

    problem(answer, 404, "Not Found")
    assert answer.headers["cache-control"] == "no-cache"


def test_livez(service):
    """The process says that it lives."""
    answer = httpx.get(f"{service.url}/livez")

    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})
    assert answer.headers["cache-control"] == "no-store"


def test_readyz(service):
    """Readiness tells how it goes."""
    answer = httpx.get(f"{service.url}/readyz")
    health = answer.json()

    assert answer.headers["cache-control"] == "no-store"
    assert health.keys() == {"status", "relay", "channels", "streams", "maxStreams", "now"}
    assert health["status"] == "ready"
    assert health["relay"].keys() == {"state", "since", "lastError"}
    assert health["relay"]["state"] == "live"
    assert 0 < health["relay"]["since"] <= health["now"]
    assert health["maxStreams"] > 0


# Other pages


READABLE = [
    "/deployments",
    "/deployments/nobody/nowhere",
    "/deployments/nobody/nowhere/latest",
    "/deployments?x=1",
    "/livez",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/nothing",
]


@pytest.mark.parametrize("path", READABLE)
def test_every_page_may_read(service, path):
    """With `*` every answer to a GET may be read by any page, errors too, and says what it depends on."""
    for origin in ({"Origin": "https://anything.example"}, {}):
        answer = httpx.get(f"{service.url}{path}", headers=origin)

        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["vary"] == ("Accept-Encoding, Origin" if path == "/openapi.json" else "Origin")
        assert answer.headers["access-control-expose-headers"] == "ETag, Retry-After"
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("path", READABLE)
def test_listed_pages_may_read(fenced, path):
    """With a list only its pages may read, and a cache learns that the answer depends on the page."""
    listed = httpx.get(f"{fenced.url}{path}", headers={"Origin": PAGE})
    others = [
        httpx.get(f"{fenced.url}{path}", headers=headers)
        for headers in ({"Origin": "https://evil.example"}, {"Origin": f"{PAGE}.evil.example"}, {"Origin": "null"}, {})
    ]

    assert listed.headers["access-control-allow-origin"] == PAGE
    assert all("access-control-allow-origin" not in answer.headers for answer in others)
    vary = "Accept-Encoding, Origin" if path == "/openapi.json" else "Origin"
    assert all(answer.headers["vary"] == vary for answer in (listed, *others))


PREFLIGHT_VARIES = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"


def preflight(url: str, origin: str, method: str, headers: str | None = None) -> httpx.Response:
    """Ask as a browser does before a page's request that isn't a simple one."""
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    if headers is not None:
        asked["Access-Control-Request-Headers"] = headers
    answer = httpx.options(url, headers=asked)
    assert answer.status_code == 204
    assert answer.headers["vary"] == PREFLIGHT_VARIES
    assert "access-control-allow-credentials" not in answer.headers
    return answer


CHANNEL_PATHS = ["/deployments", "/deployments/web/production", "/events", "/events/web/production"]


@pytest.mark.parametrize("asked", ["traceparent,tracestate", "baggage, sentry-trace", "if-none-match,last-event-id"])
@pytest.mark.parametrize("path", CHANNEL_PATHS)
def test_preflight_of_a_read(service, fenced, path, asked):
    """A listed page may read with whatever headers it has; tracing tools add theirs to every request."""
    for method in ("GET", "HEAD"):
        open_to_all = preflight(f"{service.url}{path}", "https://anything.example", method, asked)
        listed = preflight(f"{fenced.url}{path}", PAGE, method, asked)

        assert open_to_all.headers["access-control-allow-origin"] == "*"
        assert listed.headers["access-control-allow-origin"] == PAGE
        for answer in (open_to_all, listed):
            assert answer.headers["access-control-allow-methods"] == "GET, HEAD"
            assert answer.headers["access-control-allow-headers"] == asked


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH", "get", "NONSENSE", ""])
@pytest.mark.parametrize("path", CHANNEL_PATHS)
def test_preflight_of_anything_else(service, fenced, path, method):
    """No page may do anything but read: such a preflight is answered without a CORS header."""
    for url, page in ((service.url, "https://anything.example"), (fenced.url, PAGE)):
        answer = preflight(f"{url}{path}", page, method, "authorization,content-type")

        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("headers", ["a b", "a;b", "x" * 101, ",".join(["x"] * 101), "a,,b", "a\tb", ""])
def test_preflight_with_what_is_no_header(service, headers):
    """What isn't the name of a header, or too much, is not repeated."""
    answer = preflight(f"{service.url}/deployments", PAGE, "GET", headers)

    assert answer.headers["access-control-allow-methods"] == "GET, HEAD"
    assert "access-control-allow-headers" not in answer.headers


def test_preflight_of_a_page_that_is_not_listed(fenced):
    """A page that isn't listed is allowed nothing."""
    answer = preflight(f"{fenced.url}/deployments", "https://evil.example", "GET", "traceparent")

    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_answers_to_writes_are_for_no_page(service):
    """A page can't read what a POST or DELETE answers."""
    answers = [
        httpx.post(f"{service.url}/deployments", json=deployment(), headers={"Origin": PAGE}),
        httpx.delete(f"{service.url}/deployments/web/production", headers={"Origin": PAGE}),
    ]

    assert all("access-control-allow-origin" not in answer.headers for answer in answers)


# Metrics


class Movement:
    """How far metrics have moved since."""

    def __init__(self, replica: Replica, *names: str) -> None:
        self._replica = replica
        self._before = {name: replica.metric(name) for name in names}

    @property
    def now(self) -> list[float]:
        return [self._replica.metric(name) - before for name, before in self._before.items()]


def test_deployments_by_result(service):
    """Each posting that reached Redis is counted by what became of it, and timed."""
    moved = Movement(
        service,
        *(
            f'vectr0_deployments_total{{result="{result}"}}'
            for result in ("recorded", "repeated", "conflict", "failed")
        ),
        "vectr0_append_seconds_count",
    )
    for fields in ({"version": "1"}, {"version": "2"}, {"version": "2"}):
        post(service.url, deployment("counted", **fields))
    post(service.url, deployment("counted", version="3"), key="key")
    post(service.url, deployment("counted", version="4"), key="key")
    post(service.url, deployment("counted"), token=None)
    post(service.url, {})

    assert moved.now == [3, 1, 1, 0, 5]


def test_failed_postings_are_counted(cut_off):
    """A posting that Redis didn't take is counted as failed."""
    moved = Movement(
        cut_off, 'vectr0_deployments_total{result="failed"}', 'vectr0_deployments_total{result="recorded"}'
    )
    post(cut_off.url)

    assert moved.now == [1, 0]
    assert cut_off.metric('vectr0_relay_state{state="down"}') == 1
    assert cut_off.metric('vectr0_relay_state{state="live"}') == 0


def test_streams_and_frames_are_counted(service):
    """A stream is counted when it opens and closes, and each frame that is written to it."""
    moved = Movement(
        service,
        "vectr0_streams",
        "vectr0_streams_opened_total",
        'vectr0_streams_closed_total{reason="client"}',
        "vectr0_frames_written_total",
        "vectr0_publish_to_write_seconds_count",
    )
    recorded(service, "frames", version="1")
    with httpx.stream("GET", f"{service.url}/events/frames/production", timeout=5) as stream:
        lines = stream.iter_lines()
        first = next(line for line in lines if line.startswith("id: "))
        newest = recorded(service, "frames", version="2")
        second = next(line for line in lines if line.startswith("id: "))
        while_open = moved.now
    wait_until(lambda: moved.now[:3] == [0, 1, 1], what="the end of the stream")

    assert first != second == f"id: {newest['deployedAt']}"
    *streams, frames, spread = while_open
    assert streams == [1, 1, 0]
    assert frames in (2, 3)  # two deployments, and a ping, whose turn may have come
    assert spread == 1


def test_streams_over_the_limit_are_counted(fenced):
    """One stream too many is counted as opened, and as closed for that reason."""
    over_limit = 'vectr0_streams_closed_total{reason="over-limit"}'
    moved = Movement(fenced, "vectr0_streams_opened_total", over_limit, "vectr0_streams")
    with httpx.stream("GET", f"{fenced.url}/events/one/stream", timeout=5) as stream:
        lines = stream.iter_lines()  # kept, for its end would end the stream
        assert next(lines).startswith("retry: ")
        refused = httpx.get(f"{fenced.url}/events/one/stream")

        assert refused.status_code == 200
        assert moved.now == [2, 1, 1]
    wait_until(lambda: fenced.health()["streams"] == 0, what="the end of the stream")


def test_relay_is_measured(service):
    """A healthy service has its relay live, its reconciles level and its event loop timed."""
    wait_until(lambda: service.metric('vectr0_relay_reconciles_total{result="level"}') > 0, what="a reconcile")
    # Counted at each reconcile, which also lets go of those that nobody needs.
    wait_until(lambda: service.metric("vectr0_channels") == service.health()["channels"], what="the count of channels")

    assert service.metric('vectr0_relay_state{state="live"}') == 1
    assert service.metric("vectr0_relay_reconnects_total") == 0
    assert service.metric("vectr0_event_loop_lag_seconds_count") > 0


# The command


def command(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run `vectr0` where it is expected to end by itself."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("VECTR0_")}
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        env={**environ, **settings},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"VECTR0_WORKERS": "many"}, "VECTR0_WORKERS is 'many'; it must be an integer from 1 to 256"),
        ({"VECTR0_WORKERS": "2"}, "VECTR0_WORKERS is '2'; it must be 1 without VECTR0_REDIS_URL"),
        ({"VECTR0_LISTEN": "8000"}, "VECTR0_LISTEN is '8000'; it must be HOST:PORT"),
        ({"VECTR0_REDIS_URL": "redis://redis"}, "VECTR0_TOKENS is not set"),
        (
            {"VECTR0_REDIS_URL": "redis://u:s3cret@redis?db=one", "VECTR0_TOKENS": "t"},
            "VECTR0_REDIS_URL is (not shown)",
        ),
        ({"VECTR0_REDIS_URL": "http://u:s3cret@redis"}, "VECTR0_REDIS_URL is (not shown)"),
        ({"VECTR0_TOKENS": "s3cret s3cret"}, "VECTR0_TOKENS is (not shown)"),
    ],
)
def test_bad_settings_end_the_command(settings, told):
    """A setting that breaks its rule ends the command with status 2 and a message, without a secret or a traceback."""
    done = command(**settings)

    assert done.returncode == 2
    assert told in done.stderr
    assert "s3cret" not in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_options_are_settings():
    """An option stands for its variable, and breaks the same rules."""
    done = command("--listen", "nowhere", "--workers", "0")

    assert done.returncode == 2
    assert [line.partition(";")[0] for line in done.stderr.splitlines()] == [
        "VECTR0_LISTEN is 'nowhere'",
        "VECTR0_WORKERS is '0'",
    ]


def test_a_taken_port_ends_the_command(service):
    """An address that another process listens on ends the command with status 2 and the address."""
    done = command(VECTR0_LISTEN=f"127.0.0.1:{service.port}")

    assert done.returncode == 2
    assert f"VECTR0_LISTEN, or PORT, is '127.0.0.1:{service.port}': Address already in use" in done.stderr
    assert "Traceback" not in done.stderr


@contextmanager
def logging_service(folder: Path, redis: RedisServer, log_format: str) -> Iterator[tuple[Replica, Path]]:
    """A service whose standard error is a file of its own."""
    replica = Replica(folder, redis_url=redis.url, log_format=log_format, tokens=TOKENS)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("VECTR0_")}
    path = folder / f"{replica.port}.stderr"
    with path.open("w") as errors, replica.log_path.open("w") as output:
        replica.process = subprocess.Popen(
            [sys.executable, "-m", "service"], env={**environ, **replica.settings}, stdout=output, stderr=errors
        )
    try:
        wait_until(replica.is_ready, timeout=20, what="the service")
        yield replica, path
    finally:
        replica.kill()


def use(replica: Replica, app: str) -> None:
    """Do what is logged, and much that isn't."""
    assert post(replica.url, deployment(app), key="k").status_code == 201
    assert post(replica.url, deployment(app)).status_code == 200
    assert post(replica.url, deployment(app, version="2"), key="k").status_code == 422
    assert post(replica.url, deployment(app, version="2", gitTag='v"2"'), token=HASHED).status_code == 201
    assert post(replica.url, deployment(app), token=UNKNOWN).status_code == 401
    assert post(replica.url, deployment(app), token=SCOPED).status_code == 403
    assert httpx.get(f"{replica.url}/deployments", params={"token": TOKEN}).status_code == 400
    assert httpx.delete(f"{replica.url}/deployments/{app}/production", headers=BEARER).status_code == 204
    assert replica.terminate() == 0


def test_json_log(tmp_path, redis):
    """VECTR0_LOG_FORMAT=json gives one JSON object a line: one at start, one at stop, one for each record and deletion."""
    with logging_service(tmp_path, redis, "json") as (replica, path):
        use(replica, "json-log")
    lines = [json.loads(line) for line in path.read_text().splitlines()]

    messages = [line["message"] for line in lines if line["logger"] in ("vectr0", "vectr0.deployments")]
    assert messages == [
        "started",
        "recorded json-log/production 1.0.0 (3f2c1ab)",
        'recorded json-log/production v"2" (3f2c1ab)',
        "forgot json-log/production",
        "stopped",
    ]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in lines)
    first = next(line for line in lines if line["message"].startswith("recorded"))
    assert first["channel"] == "json-log/production"
    assert first["version"] == "1.0.0"
    assert first["deployedAt"] > 0


def test_text_log(tmp_path, redis):
    """Without it the lines are for people: the same ones."""
    with logging_service(tmp_path, redis, "text") as (replica, path):
        use(replica, "text-log")
    log = path.read_text()

    assert len(re.findall(r" INFO vectr0: started$", log, re.MULTILINE)) == 1
    assert len(re.findall(r" INFO vectr0: stopped$", log, re.MULTILINE)) == 1
    assert len(re.findall(r" INFO vectr0\.deployments: recorded text-log/production ", log)) == 2
    assert "Traceback" not in log


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_secret_is_logged(tmp_path, redis, log_format):
    """No token, set or tried, is in any line of what the command prints."""
    with logging_service(tmp_path, redis, log_format) as (replica, path):
        use(replica, f"secrets-{log_format}")
    printed = path.read_text() + replica.log

    assert "VECTR0 listens on" in printed
    assert [token for token in (TOKEN, OLD, HASHED, SCOPED, PREVIEWS, UNKNOWN) if token in printed] == []


def test_nothing_here_was_an_error_of_the_service(service, fenced, cut_off):
    """After all these requests no log has a traceback or a secret."""
    for log in (service.log, fenced.log, cut_off.log):
        assert "Traceback" not in log
        assert [token for token in (TOKEN, OLD, HASHED, SCOPED, PREVIEWS, UNKNOWN) if token in log] == []


@pytest.mark.parametrize("path", ["/openapi.json", "/browser/vectr0.tgz"])
def test_304_for_what_never_changes(service, path):
    """What is made once has a strong ETag, and who has it is told so."""
    first = httpx.get(f"{service.url}{path}")
    etag = first.headers["etag"]
    again = httpx.get(f"{service.url}{path}", headers={"If-None-Match": etag})

    assert not etag.startswith("W/")
    assert again.status_code == 304
    assert (again.content, again.headers["etag"]) == (b"", etag)


def test_the_description_is_compressed(service):
    """Machines that take it compressed get it so."""
    plain = httpx.get(f"{service.url}/openapi.json", headers={"Accept-Encoding": "identity"})
    compressed = httpx.get(f"{service.url}/openapi.json", headers={"Accept-Encoding": "gzip"})

    assert compressed.headers["content-encoding"] == "gzip"
    assert compressed.json() == plain.json()
    assert plain.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/deployments", "/deployments/web/production", "/deployments/web/production/latest"])
def test_400_for_more_parameters_than_any_route_has(service, path):
    """A query of thousands of parameters isn't taken apart to find the first that is wrong."""
    answer = httpx.get(f"{service.url}{path}?{'a&' * 3900}")

    assert "the query has over 32 parameters" in problem(answer, 400, "Bad Request")["detail"]
