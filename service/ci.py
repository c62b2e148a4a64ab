"""What continuous integration systems call what a build wants to know of itself; browser/ci.js is its twin."""

from collections.abc import Callable, Mapping
from typing import Any, Final

Environ = Mapping[str, str]
ReadJSON = Callable[[str], Any]
"""Gives None for a file that can't be read."""

# The environment variables of each field, in the order in which they are asked: the original's first, then each
# system's own, which count only where the variable is set by which the system is known. A build may run on two of
# them at once (`vercel build` in a workflow of GitHub), so that it is the field that decides, not the system.
VARIABLES: Final[Mapping[str, tuple[tuple[str, str | None], ...]]] = {
    "appName": (("APP_NAME", None),),
    "version": (("VERSION", None), ("npm_package_version", None)),
    "gitCommit": (
        ("GITHUB_SHA", None),
        ("CI_COMMIT_SHA", "GITLAB_CI"),
        ("GIT_COMMIT", "JENKINS_URL"),
        ("CIRCLE_SHA1", "CIRCLECI"),
        ("BUILD_SOURCEVERSION", "TF_BUILD"),
        ("BITBUCKET_COMMIT", "BITBUCKET_BUILD_NUMBER"),
        ("BUILDKITE_COMMIT", "BUILDKITE"),
        ("COMMIT_REF", "NETLIFY"),
        ("VERCEL_GIT_COMMIT_SHA", "VERCEL"),
        ("CF_PAGES_COMMIT_SHA", "CF_PAGES"),
        ("WORKERS_CI_COMMIT_SHA", "WORKERS_CI"),
    ),
    "gitTag": (
        ("GIT_TAG", None),
        ("GITHUB_REF_NAME", "GITHUB_ACTIONS"),
        ("CI_COMMIT_TAG", "GITLAB_CI"),
        ("TAG_NAME", "JENKINS_URL"),
        ("CIRCLE_TAG", "CIRCLECI"),
        ("BUILD_SOURCEBRANCH", "TF_BUILD"),
        ("BITBUCKET_TAG", "BITBUCKET_BUILD_NUMBER"),
        ("BUILDKITE_TAG", "BUILDKITE"),
    ),
    "buildNumber": (
        ("GITHUB_RUN_NUMBER", None),
        ("CI_PIPELINE_IID", "GITLAB_CI"),
        ("BUILD_NUMBER", "JENKINS_URL"),
        ("CIRCLE_BUILD_NUM", "CIRCLECI"),
        ("BUILD_BUILDID", "TF_BUILD"),
        ("BITBUCKET_BUILD_NUMBER", None),
        ("BUILDKITE_BUILD_NUMBER", "BUILDKITE"),
    ),
    "buildTime": (),
    "environment": (
        ("VECTR0_ENVIRONMENT", None),
        ("ENVIRONMENT", None),
        ("CI_ENVIRONMENT_NAME", "GITLAB_CI"),
        ("BITBUCKET_DEPLOYMENT_ENVIRONMENT", "BITBUCKET_BUILD_NUMBER"),
        ("CONTEXT", "NETLIFY"),
        ("VERCEL_TARGET_ENV", "VERCEL"),
        ("VERCEL_ENV", "VERCEL"),
    ),
}


def said(field: str, environ: Environ, read_json: ReadJSON) -> tuple[str, str] | None:
    """Give what the environment says of a field, and the variable that says it; an empty one says nothing."""
    for variable, mark in VARIABLES[field]:
        if mark is None or environ.get(mark):
            value = _read(variable, environ, read_json)
            if value:
                return value, variable
    return None


def _read(variable: str, environ: Environ, read_json: ReadJSON) -> str | None:
    """Read a variable; some don't always hold what they are asked for."""
    value = environ.get(variable)
    match variable:
        case "GITHUB_SHA":  # on a pull request it is a merge that nobody pushed
            return _head_of_pull_request(environ, read_json) or value
        case "GITHUB_REF_NAME":
            return value if environ.get("GITHUB_REF_TYPE") == "tag" else None
        case "BUILD_SOURCEBRANCH":
            return value.removeprefix("refs/tags/") if value and value.startswith("refs/tags/") else None
        case "BUILDKITE_COMMIT":  # a build that was started by hand may name no commit
            return value if value != "HEAD" else None
    return value


def _head_of_pull_request(environ: Environ, read_json: ReadJSON) -> str | None:
    path = environ.get("GITHUB_EVENT_PATH")
    if not (environ.get("GITHUB_ACTIONS") and environ.get("GITHUB_EVENT_NAME") == "pull_request" and path):
        return None
    found: object = read_json(path)
    for name in ("pull_request", "head", "sha"):
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, str) else None
