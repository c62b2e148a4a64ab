"""The OpenAPI document: the routes, for machines."""

from importlib.metadata import version
from typing import Any, Final

from service.adoption import MAX_SAMPLES, MILESTONES
from service.build import RUNNING_FORM
from service.deployment import KEPT, MAX_INTEGER, NAME_PATTERN, Submission

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"

_CHANNEL: Final = [
    {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": NAME_PATTERN}}
    for name in ("app", "environment")
]
_FILE: Final = {"name": "file", "in": "path", "required": True, "schema": {"type": "string", "examples": ["vectr0.js"]}}
_TIMESTAMP: Final = {"type": "integer", "minimum": 1, "maximum": MAX_INTEGER}


def document(root_path: str) -> dict[str, Any]:
    """Describe all routes (OpenAPI 3.1)."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "VECTR0",
            "version": version("vectr0"),
            "description": "Tells every open browser tab that a new version of its web application was deployed.",
        },
        "servers": [{"url": root_path or "/"}],
        "paths": {
            "/deployments": {
                "get": _get_all(),
                "post": _post(),
            },
            "/deployments/{app}/{environment}": {
                "parameters": _CHANNEL,
                "get": _operation(
                    "listChannel", "A channel's deployments, newest first; an unknown channel has none",
                    {"200": _json("The kept deployments.", "Deployments")}, 400, 404, 503,
                ),
                "delete": _operation(
                    "forgetChannel", "Forget a channel",
                    {"204": {"description": "Forgotten."}}, 400, 401, 403, 404, 503, secured=True,
                ),
            },
            "/deployments/{app}/{environment}/latest": {"parameters": _CHANNEL, "get": _get_latest()},
            "/deployments/{app}/{environment}/adoption": {"parameters": _CHANNEL, "get": _operation(
                "getAdoption", "Who runs what on a channel: its streams by deployment, and how they came to the newest",
                {"200": _json("What is counted over all replicas.", "Adoption")}, 400, 404, 503,
            )},
            "/events/{app}/{environment}": {"parameters": _CHANNEL, "get": _stream(
                "streamChannel", "One channel: its newest deployment, or what was missed, then each new one",
                [
                    _parameter(
                        "running", "query", {"type": "string", "examples": ["3f2c1ab~128"]},
                        f"What the page runs, to be counted: {RUNNING_FORM}. Anything else is counted as unknown.",
                    ),
                    _parameter("lastEventId", "query", {"type": "string"}, "For a first connect; the header wins."),
                    _parameter("Last-Event-ID", "header", {"type": "string"}, "The last `deployedAt` that was seen."),
                ],
                400,
            )},
            "/events": {"get": _stream(
                "streamAll", "All channels: each one's newest deployment, then every new one, and who runs what", []
            )},
            "/livez": {"get": _operation("livez", "The process lives", {"200": _json("It does.", "Object")})},
            "/readyz": {"get": _operation("readyz", "It can serve, and how it goes", {"200": _json("So.", "Object")})},
            "/metrics": {"get": _operation(
                "metrics", "Prometheus", {"200": {"description": "Metrics.", "content": {"text/plain": {}}}}
            )},
            "/openapi.json": {"get": _get_file("openapi", "This document", JSON)},
            "/browser/vectr0.tgz": {"get": _get_file("getPackage", "The npm package", "application/gzip")},
            "/browser/{file}": {"parameters": [_FILE], "get": _get_file(
                "getEntry", "A module for pages: vectr0.js, element.js or react.js", "text/javascript", 404
            )},
            "/browser/{build}/{file}": {
                "parameters": [{"name": "build", "in": "path", "required": True, "schema": {"type": "string"}}, _FILE],
                "get": _get_file("getFile", "What a module imports; it never changes", "text/javascript", 404),
            },
            "/demo": {"get": _get_file("demo", "A page to try it", "text/html")},
            "/": {"get": _get_board()},
            "/dashboard/{build}/{file}": {
                "parameters": [{"name": "build", "in": "path", "required": True, "schema": {"type": "string"}}, _FILE],
                "get": _get_file("getBoardFile", "What the board loads; it never changes", "text/javascript", 404),
            },
        },
        "components": {
            "securitySchemes": {"token": {
                "type": "http", "scheme": "bearer",
                "description": "A token; for recording also the identity (a JSON Web Token) of a trusted publisher.",
            }},
            "schemas": {
                "Submission": _submission(),
                "Deployment": _deployment(),
                "Deployments": {
                    "type": "object",
                    "required": ["deployments"],
                    "properties": {
                        "deployments": {"type": "array", "items": _ref("Deployment")},
                        "adoption": {"type": "array", "items": _counted(), "description": "With `?adoption=true`."},
                    },
                },
                "Adoption": _adoption(),
                "Problem": _problem(),
                "Object": {"type": "object"},
            },
        },
    }  # fmt: skip


def _submission() -> dict[str, Any]:
    return Submission.model_json_schema()


def _deployment() -> dict[str, Any]:
    fields = Submission.model_json_schema()
    recorded = {
        "deployedAt": {**_TIMESTAMP, "description": "Milliseconds since 1970 by Redis's clock; the event id."},
        "previous": {"anyOf": [_TIMESTAMP, {"type": "null"}], "description": "The one before, or null."},
        "rollback": {"type": "boolean", "description": "The channel went back to a build that it has had."},
    }
    return {**fields, "title": "Deployment", "properties": fields["properties"] | recorded,
            "required": [*fields["properties"], *recorded]}  # fmt: skip


def _adoption() -> dict[str, Any]:
    count = {"type": "integer", "minimum": 0}
    recorded = _deployment()["properties"]
    reached = {str(percent): {"anyOf": [count, {"type": "null"}]} for percent in MILESTONES}
    names = ("deployedAt", "version", "gitTag", "gitCommit", "buildNumber", "rollback")
    deployment = {
        **{name: recorded[name] for name in names},
        "streams": {**count, "description": "Streams whose page runs this build."},
        "reached": {
            **_object(reached),
            "description": "Milliseconds until so many per cent ran it, or null; each holds for ten seconds first.",
        },
    }
    sample = {"at": _TIMESTAMP, "newest": count, "streams": count, "unknown": count}
    return _object({
        "appName": recorded["appName"],
        "environment": recorded["environment"],
        "asOf": {"anyOf": [_TIMESTAMP, {"type": "null"}], "description": "When this was counted, by Redis's clock."},
        "stale": {"type": "boolean", "description": "Redis can't be had: these are the numbers of then."},
        "since": {**_TIMESTAMP, "description": "The `deployedAt` of the newest."},
        "streams": {**count, "description": "All streams."},
        "newest": {**count, "description": "Those whose page runs the newest deployment's build."},
        "other": {**count, "description": "Those of a build that is none of the kept deployments'."},
        "unknown": {**count, "description": "Those that don't say."},
        "share": {
            "anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "null"}],
            "description": "The part of those that say what they run that runs the newest.",
        },
        "deployments": {"type": "array", "maxItems": KEPT, "items": _object(deployment)},
        "samples": {
            "type": "array", "maxItems": MAX_SAMPLES, "items": _object(sample),
            "description": "Since the newest deployment, oldest first; each holds until the next.",
        },
    })  # fmt: skip


def _counted() -> dict[str, Any]:
    """Describe what a list says of a channel's adoption: no curve, and of deployments no more than their streams."""
    properties: dict[str, Any] = dict(_adoption()["properties"])
    del properties["samples"]
    entry = properties["deployments"]["items"]["properties"]
    properties["deployments"] = {
        "type": "array", "maxItems": KEPT, "items": _object({name: entry[name] for name in ("deployedAt", "streams")}),
    }  # fmt: skip
    return _object(properties)


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _problem() -> dict[str, Any]:
    text = {"type": "string"}
    error = {"type": "object", "required": ["field", "message"], "properties": {"field": text, "message": text}}
    return {
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": text, "title": text, "status": {"type": "integer"}, "detail": text,
            "errors": {"type": "array", "items": error},
        },
    }  # fmt: skip


def _post() -> dict[str, Any]:
    key = {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~](?:[ -~]*[!-~])?$"}
    location = {"Location": {"schema": {"type": "string"}, "description": "Its channel."}}
    return {
        **_operation(
            "recordDeployment", "Record a deployment",
            {
                "201": {**_json("Recorded.", "Deployment"), "headers": location},
                "200": {**_json("A repeat: the record of then.", "Deployment"), "headers": location},
            },
            400, 401, 403, 413, 415, 422, 503, secured=True,
        ),
        "parameters": [_parameter("Idempotency-Key", "header", key, "Makes a retry safe, for 24 hours.")],
        "requestBody": {"required": True, "content": {JSON: {"schema": _ref("Submission")}}},
    }  # fmt: skip


def _get_all() -> dict[str, Any]:
    text = {"type": "string"}
    parameters = [
        _parameter(name, "query", text, f"Only deployments with this {name}.")
        for name in ("appName", "environment", "gitTag")
    ]
    limit = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}
    responses = {"200": _json(f"At most `limit` of the {KEPT} that each channel keeps.", "Deployments")}
    return {
        **_operation("listAll", "Deployments over all channels, newest first", responses, 400, 404, 503),
        "parameters": [
            *parameters,
            _parameter("limit", "query", limit, "How many at the most."),
            _parameter("adoption", "query", {"const": "true"}, "Say of each listed channel who runs what, too."),
        ],
    }


def _get_latest() -> dict[str, Any]:
    summary = "A channel's newest deployment, for those who poll"
    found = _json("The newest deployment.", "Deployment")
    return _conditional("getLatest", summary, found, "Strong: of the record's bytes.", 400, 404, 503)


def _get_file(operation_id: str, summary: str, content_type: str, *problems: int) -> dict[str, Any]:
    found = {"description": "The file.", "content": {content_type: {}}}
    return _conditional(operation_id, summary, found, "Strong: of its bytes as they are encoded.", *problems)


def _get_board() -> dict[str, Any]:
    operation = _get_file("board", "The board, a page; where no HTML is asked for by name, a few words", "text/html")
    operation["responses"]["200"]["content"]["text/plain"] = {}
    return operation


def _conditional(operation_id: str, summary: str, found: dict[str, Any], etag: str, *problems: int) -> dict[str, Any]:
    responses = {
        "200": {**found, "headers": {"ETag": {"schema": {"type": "string"}, "description": etag}}},
        "304": {"description": "It is the one that you have."},
    }
    condition = _parameter("If-None-Match", "header", {"type": "string"}, "ETags that you have.")
    return {**_operation(operation_id, summary, responses, *problems), "parameters": [condition]}


def _stream(operation_id: str, summary: str, parameters: list[dict[str, Any]], *problems: int) -> dict[str, Any]:
    events = {"200": {"description": "Server-Sent Events without end.", "content": {"text/event-stream": {}}}}
    return {**_operation(operation_id, summary, events, *problems, 403, 404), "parameters": parameters}


def _operation(
    operation_id: str, summary: str, responses: dict[str, Any], *problems: int, secured: bool = False
) -> dict[str, Any]:
    refusals = {
        str(status): {
            "description": "Refused; the document says why.",
            "content": {PROBLEM: {"schema": _ref("Problem")}},
        }
        for status in problems
    }
    return {
        "operationId": operation_id,
        "summary": summary,
        "responses": responses | refusals,
        **({"security": [{"token": []}]} if secured else {}),
    }


def _json(description: str, schema: str) -> dict[str, Any]:
    return {"description": description, "content": {JSON: {"schema": _ref(schema)}}}


def _parameter(name: str, place: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": place, "schema": schema, "description": description}


def _ref(schema: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{schema}"}
