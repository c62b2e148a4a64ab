"""What a build is, by the table of cases that the Vite plugin is held to as well (tests/browser/stamp.test.mjs)."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from service import deployment
from service.deployment import InvalidFieldsError, Submission
from service.failures import WrongUseError
from service.rules import RULES
from service.stamp import Surroundings, stamp
from tests.command_parts import STAMP, TOP

CASES: list[dict[str, Any]] = json.loads((TOP / "tests/ci-cases.json").read_text())
NOW = 1_763_800_000_000
ENOUGH = {"APP_NAME": "web", "VERSION": "1.0.0", "ENVIRONMENT": "production", "GITHUB_SHA": "3f2c1ab"}


def answering(commit: str | None = None, tags: list[str] | None = None) -> Callable[..., str | None]:
    """A git that answers what it may be asked, and fails the test for all else."""
    answers = {"rev-parse HEAD": commit, "tag --points-at HEAD": "\n".join(tags or [])}
    return lambda *parameters: answers[" ".join(parameters)]


def surroundings(case: dict[str, Any]) -> Surroundings:
    return Surroundings(
        answering(**case.get("git", {})),
        lambda path: case.get("event") if path == "EVENT" else None,
        case.get("manifest", {}),
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_table_of_cases(case):
    """An environment gives the same fields here as in the Vite plugin, or the same field is refused."""
    if "error" in case:
        with pytest.raises(WrongUseError) as caught:
            stamp(case["env"], {}, now=NOW, surroundings=surroundings(case))

        assert caught.value.message.startswith(f"{case['error']} ")
    else:
        found = stamp(case["env"], {}, now=NOW, surroundings=surroundings(case))

        assert {field: found[field] for field in case["expected"]} == case["expected"]


def test_the_fields_of_a_record():
    """A stamp has the fields of a record in their order, and no others."""
    found = stamp(ENOUGH, {}, now=NOW, surroundings=surroundings({}))

    assert list(found.items()) == [
        ("appName", "web"),
        ("version", "1.0.0"),
        ("gitCommit", "3f2c1ab"),
        ("buildNumber", 0),
        ("buildTime", NOW),
        ("environment", "production"),
        ("gitTag", None),
    ]


def test_options_come_before_everything_else():
    """What is said by an option is asked of nothing else; an empty option says nothing."""
    options = {
        "appName": "admin",
        "version": "",
        "gitCommit": "4444444444444444444444444444444444444444",
        "buildNumber": 7,
        "buildTime": 1,
        "environment": "staging",
        "gitTag": "v2.0.0",
    }
    found = stamp({**ENOUGH, "GIT_TAG": "v1.0.0"}, options, now=NOW, surroundings=surroundings({}))

    assert found == {**options, "version": "1.0.0", "gitCommit": "4444444"}


def test_everything_wrong_is_told_at_once():
    """Each field that is missing or wrong has a line, which says where the value is from."""
    environ = {"APP_NAME": "web app", "GITHUB_SHA": "3f2c1ab", "GITHUB_RUN_NUMBER": "9" * 5000}
    with pytest.raises(WrongUseError) as caught:
        stamp(environ, {}, now=NOW, surroundings=surroundings({}))
    lines = caught.value.message.splitlines()

    assert [line.split()[0] for line in lines] == ["appName", "version", "buildNumber", "environment"]
    assert lines[0] == (
        'appName (from APP_NAME) must be 1 to 64 of A-Z a-z 0-9 . _ -, starting with a letter or digit, not "web app"'
    )
    assert lines[1].startswith("version is missing: give it with --version,")


VALUES: list[object] = [
    None, "", "a", "web", "-web", ".web", "a" * 64, "a" * 65, "a" * 128, "a" * 129, "ü", "v1 \N{ROCKET}", "a\n", "a b", "\u2028",
    "refs/heads/main", 0, 1, -1, 2**53 - 1, 2**53, True, [], {},
]  # fmt: skip


@pytest.mark.parametrize("field", RULES)
def test_the_rules_are_those_of_the_hub(field):
    """A value is taken by the commands exactly where the hub takes it, and the rule has the same words."""
    holds, rule = RULES[field]
    taken = []
    for value in VALUES:
        try:
            Submission.from_json(json.dumps({**STAMP, field: value}).encode())
        except InvalidFieldsError:
            continue
        taken.append(value)

    assert taken
    assert [value for value in VALUES if holds(value)] == taken
    assert rule == deployment.RULES[field]
    assert list(RULES) == list(deployment.RULES)
