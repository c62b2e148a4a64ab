import json
from pathlib import Path

import pytest

from service.build import Build, build_of, is_same, parse

CASES = json.loads((Path(__file__).parent / "build-cases.json").read_text())


@pytest.mark.parametrize(("one", "other", "same"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_same(one, other, same):
    """Builds are the same as the browser's rule has it (tests/browser/build.test.mjs has these cases), either way."""
    assert is_same(Build(*one), Build(*other)) is same
    assert is_same(Build(*other), Build(*one)) is same


@pytest.mark.parametrize(
    ("text", "build"),
    [
        ("3f2c1ab~128", Build("3f2c1ab", 128)),
        ("3f2c1ab", Build("3f2c1ab", 0)),
        ("3f2c1ab~0", Build("3f2c1ab", 0)),
        ("release-1.2", Build("release-1.2", 0)),
        ("x" * 64 + f"~{2**53 - 1}", Build("x" * 64, 2**53 - 1)),
        ("", None),
        ("unknown", None),
        ("unknown~5", None),
    ],
)
def test_parse(text, build):
    """What a page says is a commit with or without a number; nothing, or `unknown`, says nothing."""
    assert parse(text) == build


@pytest.mark.parametrize("build", [Build("3f2c1ab", 128), Build("3f2c1ab", 0), Build("a.b-c_9", 2**53 - 1)])
def test_a_build_reads_as_it_is_written(build):
    """What is written of a build gives that build."""
    assert parse(str(build)) == build


@pytest.mark.parametrize(
    "text",
    ["~", "~5", "a~", "a~x", "a~-1", "a~+1", "a~1.0", "a~01", "a~00", "a~1~2", "a b", "a/b", "a*", "*", "é", "a\n",
     "a~٣", "a~1\n", "x" * 65, f"a~{2**53}", "a~" + "9" * 17, "a~" + "9" * 5000, "x" * 5000],
)  # fmt: skip
def test_what_is_no_build_says_nothing(text):
    """Whatever no record can hold is taken for none."""
    assert parse(text) is None


@pytest.mark.parametrize(
    ("commit", "number", "build"),
    [
        ("3f2c1ab", 128, Build("3f2c1ab", 128)),
        ("3f2c1ab", None, Build("3f2c1ab", 0)),
        ("3f2c1ab", 1.5, Build("3f2c1ab", 0)),
        ("3f2c1ab", True, Build("3f2c1ab", 0)),
        ("unknown", 128, None),
        (None, 128, None),
        (["3f2c1ab"], 128, None),
    ],
)
def test_build_of_a_record(commit, number, build):
    """A record's build is taken as far as it is one; what others stored may hold anything."""
    assert build_of(commit, number) == build
