"""The record: what a client may say of a deployment, and what Redis made of it."""

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, NewType, Self

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from service.build import Build, build_of
from service.utf8 import NotUTF8Error, utf8

KEPT: Final = 10
"""How many deployments a channel keeps."""

MAX_INTEGER: Final = 2**53 - 1
"""The largest integer that every JSON reader takes exactly (RFC 8259, section 6)."""

MAX_RECORD_SIZE: Final = 16 * 1024
"""Bytes of a record: as many as a client may send."""

NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
NAME_RULE: Final = "1 to 64 of A-Z a-z 0-9 . _ -, starting with a letter or digit"
_NAME: Final = re.compile(NAME_PATTERN[:-1] + r"\Z")

PRINTABLE: Final = r"^[\p{L}\p{M}\p{N}\p{P}\p{S} ]*$"
"""What `str.isprintable` takes, for schemas (ECMA-262, with Unicode)."""

ChannelName = NewType("ChannelName", str)
"""``application/environment``, both valid names."""


def channel_name(app: str, environment: str) -> ChannelName | None:
    """Name a channel, or give None where a part breaks NAME_RULE."""
    if _NAME.match(app) and _NAME.match(environment):
        return ChannelName(f"{app}/{environment}")
    return None


def event_id(text: str | None) -> int | None:
    """Read a ``Last-Event-ID``; what isn't an integer from 1 to 2^53 - 1 is as none."""
    if text and len(text) <= len(str(MAX_INTEGER)) and text.isascii() and text.isdigit():
        return int(text) if 0 < int(text) <= MAX_INTEGER else None
    return None


@dataclass(frozen=True, slots=True)
class FieldError:
    """One broken rule: the field's name on the wire, and a sentence for the one who reads the CI log."""

    field: str
    message: str


class NotJSONError(ValueError):
    """The body isn't JSON, or no JSON object."""


class InvalidFieldsError(ValueError):
    """The body is a JSON object, but no deployment."""

    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__("; ".join(f"{error.field}: {error.message}" for error in errors))
        self.errors = errors


def _printable(value: object) -> object:
    if isinstance(value, str) and not value.isprintable():
        raise ValueError
    return value


def _integral(value: object) -> object:
    """Take 128.0 for 128: JSON has one kind of number (RFC 8259, section 6)."""
    # A larger one breaks the rule in any case, and orjson couldn't write it into the message: it ends at 64 bits.
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_INTEGER:
        return int(value)
    return value


# The description is the rule: it stands in every error message and in the OpenAPI document.
Name = Annotated[str, Field(pattern=NAME_PATTERN, description=NAME_RULE)]
Commit = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="1 to 64 of A-Z a-z 0-9 . _ -")]
Text = Annotated[
    str, Field(min_length=1, max_length=128, json_schema_extra={"pattern": PRINTABLE}), BeforeValidator(_printable)
]
Integer = Annotated[int, Field(ge=0, le=MAX_INTEGER), BeforeValidator(_integral)]


class Submission(BaseModel):
    """What a client says of a deployment: the head of the record."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, alias_generator=to_camel)

    app_name: Name
    version: Text = Field(description="1 to 128 printable characters")
    git_commit: Commit
    build_number: Integer = Field(description=f"an integer from 0 to {MAX_INTEGER}")
    build_time: Integer = Field(description=f"an integer from 0 to {MAX_INTEGER}, milliseconds since 1970")
    environment: Name
    git_tag: Text | None = Field(default=None, description="null or 1 to 128 printable characters")

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        """Parse a request's body.

        Raises NotJSONError, or InvalidFieldsError with every broken rule.
        """
        try:
            fields = orjson.loads(utf8(body))
        except (orjson.JSONDecodeError, NotUTF8Error) as error:
            raise NotJSONError(f"the body is not JSON: {error}") from None
        if not isinstance(fields, dict):
            raise NotJSONError("the body must be a JSON object")
        try:
            return cls.model_validate(fields, by_name=False, by_alias=True)
        except ValidationError as error:
            raise InvalidFieldsError([_explain(detail) for detail in error.errors(include_url=False)]) from None

    @property
    def channel(self) -> ChannelName:
        return ChannelName(f"{self.app_name}/{self.environment}")

    @property
    def head(self) -> bytes:
        """The fields as JSON, in the one order that records have, the object left open for the script to end."""
        return orjson.dumps(self.model_dump(by_alias=True))[:-1]


RULES: Final = {to_camel(name): str(field.description) for name, field in Submission.model_fields.items()}


def _explain(detail: ErrorDetails) -> FieldError:
    field = str(detail["loc"][0])
    match detail["type"]:
        case "missing":
            return FieldError(field, f"is missing; it must be {RULES[field]}")
        case "extra_forbidden":
            return FieldError(shown(field), f"is not a field of a deployment; the fields are {', '.join(RULES)}")
        case _:
            return FieldError(field, f"must be {RULES[field]}, not {shown(_encoded(detail['input']))}")


Time = Annotated[int, Field(gt=0, lt=MAX_INTEGER)]
"""A ``deployedAt``; there has to be room for the next one's."""


class _Record(Submission):
    """What the script makes of a submission. Members that a later version adds pass."""

    model_config = ConfigDict(extra="ignore")

    deployed_at: Time
    previous: Time | None
    rollback: bool


def _encoded(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # orjson reads deeper nesting than it writes
        return "something nested so deeply"


def shown(text: str, limit: int = 80) -> str:
    """Give so much of what a client sent that a message stays readable."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


@dataclass(frozen=True, slots=True)
class Deployment:
    """A recorded deployment: the bytes as stored, and what the relay needs to know of them."""

    json: bytes
    id: int
    """``deployedAt``: milliseconds since 1970 by Redis's clock, and the event id."""
    previous: int | None
    build: Build | None = field(default=None, compare=False)
    """None where the record names none."""
    channel: ChannelName | None = field(default=None, compare=False)

    @classmethod
    def from_json(cls, record: bytes) -> Self:
        """Read a record. Raises ValueError for what the script can't have written."""
        if len(record) > MAX_RECORD_SIZE:
            raise ValueError(f"it is over {MAX_RECORD_SIZE} bytes")
        try:
            known = _Record.model_validate(orjson.loads(record), by_name=False, by_alias=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None
        if known.previous is not None and known.previous >= known.deployed_at:
            raise ValueError("its previous isn't before its deployedAt")
        build = build_of(known.git_commit, known.build_number)
        return cls(record, known.deployed_at, known.previous, build, known.channel)

    @property
    def fields(self) -> dict[str, Any]:
        """The record taken apart, for filters."""
        fields: dict[str, Any] = orjson.loads(self.json)
        return fields
