"""Whom to trust: CI systems that may record with their own identity, each known by verified claims."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Self
from urllib.parse import urlsplit

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from service.auth import SCOPE, is_in_scope
from service.deployment import ChannelName

GITHUB: Final = "https://token.actions.githubusercontent.com"
GITLAB: Final = "https://gitlab.com"
TRUST_RULE: Final = 'a JSON list of publishers, such as [{"github": "octo/web", "owner_id": 1, "channels": ["web/*"]}]'

Claims = Mapping[str, Any]


def _issuer(value: object) -> object:
    url = urlsplit(value if isinstance(value, str) and re.fullmatch(r"[!->@-~]+", value) else "")  # no ?, no space
    is_local = url.scheme == "http" and url.hostname in ("127.0.0.1", "::1", "localhost")
    if not url.hostname or not (url.scheme == "https" or is_local) or url.username is not None or url.fragment:
        raise ValueError("must be an https:// address, as the `iss` claim has it; http:// on this machine alone")
    return value


def _scope(value: object) -> object:
    if not (isinstance(value, str) and re.fullmatch(SCOPE, value)):
        raise ValueError("must be app/environment, with * as a wildcard")
    return value


def _name_or_id(value: object) -> object:
    is_name = isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.*-]+(/[A-Za-z0-9_.*-]+)+", value)
    if not is_name and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError("must be its full name, such as octo/web, or its id, a number")
    return value


def _workflow(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch(r"[^/@]+|[^/]+/[^/]+/\.github/workflows/[^/@]+@.+", value):
        raise ValueError("must be a file's name, or owner/name/.github/workflows/file@ref")
    return value


IssuerAddress = Annotated[str, BeforeValidator(_issuer)]
Scope = Annotated[str, BeforeValidator(_scope)]
NameOrId = Annotated[str | int, BeforeValidator(_name_or_id)]
Pattern = Annotated[str, Field(min_length=1)]
"""A claim's value; ``*`` stands for any run of characters."""
Workflow = Annotated[Pattern, BeforeValidator(_workflow)]


class Publisher(BaseModel):
    """Whom to trust, for which channels: matched by verified claims."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    caseless: ClassVar[frozenset[str]] = frozenset()
    """Claims that are names of which the issuer has no second that differs in case alone."""

    channels: Annotated[list[Scope], Field(min_length=1)]
    issuer: IssuerAddress

    def failed_claim(self, claims: Claims) -> str | None:
        """Name the first claim that isn't as it has to be, or give None: the publisher is this one."""
        for claim, pattern in self.required(claims).items():
            if not _fits(claims.get(claim), pattern, ignore_case=claim in self.caseless):
                return claim
        return None

    def required(self, claims: Claims) -> dict[str, str]:
        """Give the claims that make it this publisher, as patterns; `claims` are verified ones."""
        raise NotImplementedError

    def covers(self, channel: ChannelName) -> bool:
        """Tell whether a channel is one of those that it may record to."""
        return any(is_in_scope(channel, scope) for scope in self.channels)


class Project(Publisher):
    """A project on GitHub or GitLab, and what of it may be asked for."""

    environment: Pattern | None = None
    branch: Pattern | None = None
    tag: Pattern | None = None

    @model_validator(mode="after")
    def _has_one_ref(self) -> Self:
        if self.branch is not None and self.tag is not None:
            raise ValueError("branch and tag exclude each other; make two entries of it")
        return self

    def options(self, branches: str, tags: str) -> dict[str, str]:
        """Give the claims of what was set; `branches` and `tags` is how the issuer begins those names."""
        required = {}
        if self.environment is not None:
            required["environment"] = self.environment
        if self.branch is not None:
            required["ref"] = f"{branches}{self.branch}"
        if self.tag is not None:
            required["ref"] = f"{tags}{self.tag}"
        return required


class GitHub(Project):
    """A repository's workflows on GitHub Actions.

    Matched by claims that can't be chosen by whoever registers a name that became free: `sub` has two forms since
    July 2026, and is never taken apart.
    """

    caseless = frozenset({"repository", "environment"})

    issuer: IssuerAddress = GITHUB
    github: NameOrId
    """The repository, by name or by id."""
    owner_id: int
    workflow: Workflow | None = None
    """A file of the repository's workflows, or `owner/name/.github/workflows/file@ref` where it is a shared one."""
    pull_requests: bool = False

    def required(self, claims: Claims) -> dict[str, str]:
        """Give the claims that make it this publisher."""
        required = {
            "repository_id" if isinstance(self.github, int) else "repository": str(self.github),
            "repository_owner_id": str(self.owner_id),
        }
        if self.workflow is not None:
            own = f"{claims.get('repository')}/.github/workflows/{self.workflow}@*"
            required["job_workflow_ref"] = self.workflow if "/" in self.workflow else own
        return required | self.options("refs/heads/", "refs/tags/")

    def failed_claim(self, claims: Claims) -> str | None:
        """Refuse the runs of pull requests, too: their code is anybody's."""
        if not self.pull_requests:
            if str(claims.get("event_name")).startswith("pull_request"):
                return "event_name"
            if str(claims.get("ref")).startswith("refs/pull/"):
                return "ref"
        return super().failed_claim(claims)


class GitLab(Project):
    """A project's pipelines on GitLab."""

    caseless = frozenset({"project_path"})

    issuer: IssuerAddress = GITLAB
    gitlab: NameOrId
    """The project, by path or by id."""
    merge_requests: bool = False
    """True to trust pipelines of merge requests, and pipelines that another one started: it may be one of those."""

    def required(self, _: Claims) -> dict[str, str]:
        """Give the claims that make it this publisher."""
        required = {"project_id" if isinstance(self.gitlab, int) else "project_path": str(self.gitlab)}
        required |= self.options("", "")
        if self.branch is not None or self.tag is not None:
            required["ref_type"] = "branch" if self.tag is None else "tag"
        return required

    def failed_claim(self, claims: Claims) -> str | None:
        """Refuse the pipelines of merge requests, too: their `ref` is a branch's name, which may be one of a fork."""
        if not self.merge_requests and claims.get("pipeline_source") in _MERGE_REQUESTS:
            return "pipeline_source"
        return super().failed_claim(claims)


_MERGE_REQUESTS: Final = ("merge_request_event", "external_pull_request_event", "parent_pipeline")
"""A child pipeline's claims don't tell whether its parent is a merge request's."""


class OtherIssuer(Publisher):
    """Whoever proves these claims to any other OpenID Connect issuer."""

    claims: Annotated[dict[str, Pattern], Field(min_length=1)]

    def required(self, _: Claims) -> dict[str, str]:
        """Give the claims as they were set."""
        return self.claims


def _fits(value: object, pattern: str, *, ignore_case: bool) -> bool:
    values = value if isinstance(value, list) else [value]
    expression = re.escape(pattern).replace(r"\*", ".*")
    flags = re.DOTALL | re.ASCII | (re.IGNORECASE if ignore_case else 0)
    return any(isinstance(one, str | int) and re.fullmatch(expression, _text(one), flags) for one in values)


def _text(value: str | int) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)  # as JSON has it


def parse_trust(text: str) -> tuple[Publisher, ...]:
    """Read the list of publishers. Raises ValueError, which names the entry, the field and the rule."""
    try:
        entries = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise ValueError("no list with an entry")
    return tuple(_publisher(number, entry) for number, entry in enumerate(entries, 1))


def _publisher(number: int, entry: object) -> Publisher:
    kind = next((kind for name, kind in _KINDS.items() if isinstance(entry, dict) and name in entry), None)
    if kind is None:
        raise ValueError(f"entry {number}: has none of github, gitlab, claims")
    try:
        return kind.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"])
        raise ValueError(f"entry {number}: {where}{first['msg'].removeprefix('Value error, ')}") from None


_KINDS: Final[Mapping[str, type[Publisher]]] = {"github": GitHub, "gitlab": GitLab, "claims": OtherIssuer}
