from typing import Any

import orjson
import pytest

from service.deployment import (
    MAX_INTEGER,
    Deployment,
    InvalidFieldsError,
    NotJSONError,
    Submission,
    channel_name,
    event_id,
)
from tests.parts import deployment


def errors_of(**fields: Any) -> dict[str, str]:
    with pytest.raises(InvalidFieldsError) as caught:
        Submission.from_json(orjson.dumps(deployment(**fields)))
    return {error.field: error.message for error in caught.value.errors}


def test_head_is_canonical():
    """The head has every field in the records' order, whatever order and spacing the client chose."""
    body = b'{ "environment":"production", "buildTime":5, "version":"1", "gitCommit":"abc", "buildNumber":2.0, "appName":"web" }'

    head = Submission.from_json(body).head

    assert head == (
        b'{"appName":"web","version":"1","gitCommit":"abc","buildNumber":2,"buildTime":5,'
        b'"environment":"production","gitTag":null'
    )


def test_null_tag_is_no_tag():
    """A tag of null and none at all make the same head, so one is a repeat of the other."""
    without = Submission.from_json(orjson.dumps(deployment()))
    null = Submission.from_json(orjson.dumps(deployment(gitTag=None)))

    assert without.head == null.head


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("appName", ""),
        ("appName", "-web"),
        ("appName", "a" * 65),
        ("appName", "web\n"),
        ("appName", "wéb"),
        ("appName", "{web}"),
        ("environment", "a/b"),
        ("environment", 7),
        ("version", ""),
        ("version", "v" * 129),
        ("version", "1.0\r\ndata: forged"),
        ("version", "1\u2028"),
        ("version", "1\x00"),
        ("gitCommit", ""),
        ("gitCommit", "a b"),
        ("buildNumber", -1),
        ("buildNumber", MAX_INTEGER + 1),
        ("buildNumber", 1.5),
        ("buildNumber", True),
        ("buildNumber", "12"),
        ("buildTime", None),
        ("gitTag", ""),
        ("gitTag", 1),
    ],
)
def test_broken_rule_is_named(field, value):
    """A broken rule is answered with the field's name, the rule and the value."""
    errors = errors_of(**{"appName": "web", field: value})

    assert list(errors) == [field]
    assert "must be" in errors[field]
    assert orjson.dumps(value).decode()[:80] in errors[field]


def test_every_error_is_told_at_once():
    """Missing, unknown and wrong fields are told in one answer."""
    with pytest.raises(InvalidFieldsError) as caught:
        Submission.from_json(b'{"appName":"web","version":1,"color":"red"}')

    fields = [error.field for error in caught.value.errors]
    assert fields == ["version", "gitCommit", "buildNumber", "buildTime", "environment", "color"]
    assert "the fields are appName, version, gitCommit" in caught.value.errors[-1].message


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"web"', b"null", b"\xff", b'{"version":"\\ud800"}', b"[" * 100_000]
)
def test_what_is_no_json_object_is_told_so(body):
    """A body that isn't a JSON object is refused as such."""
    with pytest.raises(NotJSONError):
        Submission.from_json(body)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        (str(MAX_INTEGER), MAX_INTEGER),
        (str(MAX_INTEGER + 1), None),
        ("0", None),
        ("-1", None),
        ("+1", None),
        (" 1", None),
        ("1e3", None),
        ("٣", None),
        ("9" * 400, None),
        ("", None),
        (None, None),
    ],
)
def test_event_id(text, number):
    """An event id is an integer from 1 to 2^53 - 1 in ASCII digits; anything else is as none."""
    assert event_id(text) == number


def test_channel_name():
    """A channel is named by its two parts, if both keep the rule."""
    assert channel_name("web", "production") == "web/production"
    assert channel_name("web", "pro/duction") is None
    assert channel_name("web\n", "production") is None


@pytest.mark.parametrize("record", [b"null", b"[]", b"{}", b"x", b'{"deployedAt":"1","previous":null}'])
def test_foreign_record_is_refused(record):
    """What the script can't have written is no deployment."""
    with pytest.raises(ValueError):
        Deployment.from_json(record)
