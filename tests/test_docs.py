"""The README holds against the code: each setting, route and metric is named there, and none that isn't."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.__main__ import COMMANDS, main
from service.deployment import Submission
from service.failures import HubUnavailableError, NotServedError, RefusedError, WrongUseError
from service.metrics import Metrics
from service.openapi import document
from service.settings import SETTINGS, read
from service.trust import GitHub, GitLab, OtherIssuer

TOP = Path(__file__).parents[1]
README = (TOP / "README.md").read_text()


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_column(text: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)


def test_settings():
    """Every setting has a row, with its default, and no other has."""
    rows = dict(re.findall(r"^\| `(VECTR0_[A-Z_]+)` \| `?([^|`]+)`? \|", section("Settings"), re.MULTILINE))

    assert list(rows) == list(SETTINGS)
    for name, setting in SETTINGS.items():
        assert rows[name].strip() == (setting.default or "none")


def test_routes():
    """Every route has a row, and no other has."""
    described = [
        f"{method.upper()} {path}"
        for path, operations in document("")["paths"].items()
        for method in operations
        if method in ("get", "post", "delete")
    ]

    assert sorted(first_column(section("Routes").split("###")[0])) == sorted(described)


def test_fields():
    """Every field of a deployment has its rule in the README."""
    table = section("Routes").split("### A deployment")[1]

    for field in [*Submission.model_json_schema()["properties"], "deployedAt", "previous", "rollback"]:
        assert f"`{field}`" in table


def test_metrics():
    """Every metric has a row under the name that Prometheus sees, and no other has."""
    exposed = re.findall(r"^# HELP (\S+)", Metrics().exposition().decode(), re.MULTILINE)

    assert sorted(first_column(section("Metrics"))) == sorted(name for name in exposed if not name.endswith("_created"))


def test_promises():
    """The promises are numbered as in the design."""
    assert re.findall(r"^(\d)\. ", section("What it promises"), re.MULTILINE) == list("123456789")


@pytest.mark.parametrize("target", re.findall(r"`make (\w+)`", README))
def test_make_targets(target):
    """Each make target that the README names exists."""
    assert re.search(rf"^{target}:", (TOP / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", re.findall(r"\]\(([^):#]+)\)", README))
def test_links(path):
    """Each file that the README links to exists."""
    assert (TOP / path).exists()


def test_commands():
    """Every command has a row, and `vectr0 record` a section of its own."""
    rows = first_column(section("From CI").split("### The other commands")[1])
    named = [row.split()[1] if " " in row else "serve" for row in rows]

    assert named == [name for name in COMMANDS if name != "record"]
    assert "### `vectr0 record`" in section("From CI")


@pytest.mark.parametrize(
    "line", sorted(set(re.findall(r"^.*\bvectr0 (?:record|watch|list|token) [^#|]*", README, re.MULTILINE)))
)
def test_options_of_commands(line):
    """Each option with which the README names a command is one that it has."""
    command, words = re.findall(r"\bvectr0 (record|watch|list|token)\b([^#|`]*)", line)[-1]
    known = CliRunner().invoke(main, [command, "--help"]).output

    for option in re.findall(r"(?<!\w)--[a-z-]+", words):
        assert f"{option} " in known


def test_exit_codes():
    """The table has every exit code, and no other."""
    table = section("From CI").split("| exit code |")[1].split("\n\n")[0]
    failures = (WrongUseError, RefusedError, NotServedError, HubUnavailableError)

    assert re.findall(r"^\| (\d) \|", table, re.MULTILINE) == ["0", *(str(one.exit_code) for one in failures)]


def test_trusted_publishers():
    """The settings that the README shows are good ones, and each field of an entry is explained."""
    text = section("From CI").split("### Trusted publishers")[1].split("###")[0]
    exported = re.findall(r"^export (\w+)=(?:'([^']*)'|(\S+))$", text, re.MULTILINE)
    environ = {name: quoted or plain for name, quoted, plain in exported}
    settings, warnings = read(environ, 1024)
    explained = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", text, re.MULTILINE))))

    assert [type(one) for one in settings.trusted] == [GitHub, GitHub, GitLab, OtherIssuer]
    assert warnings == []
    assert explained == {name for kind in (GitHub, GitLab, OtherIssuer) for name in kind.model_fields} - {"channels"}


def test_help():
    """`vectr0 serve --help` names every setting with what it means."""
    result = CliRunner().invoke(main, ["serve", "--help"])

    assert result.exit_code == 0
    for name, setting in SETTINGS.items():
        assert name in result.output
        assert setting.meaning in result.output
