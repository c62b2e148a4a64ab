"""The GitHub action and the example workflow, run in a shell as GitHub does, and the README's `curl`."""

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tests.command_parts import (
    COMMIT,
    HOSTILE,
    OPEN_ENDED,
    STAMP,
    TOP,
    Answer,
    RawServer,
    Request,
    WebServer,
    dripping,
    environ,
    forget,
    history,
    hub,
    in_turn,
    is_harmless,
    latest,
    passing,
    processes_that_show,
    stamped,
    vectr0,
)
from tests.parts import TOKEN, RedisServer, Replica, require

FOLDER = TOP / ".github/actions/record-deployment"
ACTION: dict[str, Any] = yaml.safe_load((FOLDER / "action.yml").read_text())
WORKFLOW: dict[Any, Any] = yaml.safe_load((TOP / "examples/deploy.yml").read_text())
STEP: dict[str, Any] = ACTION["runs"]["steps"][0]
NEEDED = ("bash", "curl", "date", "mktemp", "rm")
"""All programs that the action may run."""

README = (TOP / "README.md").read_text()
ONE_LINE = re.findall(r"^curl --fail-with-body .*$", README, re.MULTILINE)[0]
"""As the README has it."""

pytestmark = pytest.mark.usefixtures("curl")


@pytest.fixture(scope="module")
def curl() -> str:
    return require("curl")


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A redis-server for all tests of this file."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, redis: RedisServer) -> Iterator[Replica]:
    replica = Replica(tmp_path_factory.mktemp("action"), redis_url=redis.url).start()
    yield replica
    replica.kill()


@pytest.fixture
def service(shared: Replica) -> Replica:
    """A service that knows nothing yet."""
    forget(shared)
    return shared


# What GitHub does


def evaluated(text: str, contexts: Mapping[str, Any]) -> str:
    """Replace each `${{ … }}` as GitHub does; of its expressions those with names, strings, ==, && and ||."""
    return re.sub(r"\$\{\{(.*?)\}\}", lambda match: str(_either(match[1], contexts)), text)


def _either(expression: str, contexts: Mapping[str, Any]) -> object:
    value: object = ""
    for operand in expression.split("||"):
        for part in operand.split("&&"):
            sides = [_atom(side.strip(), contexts) for side in part.split("==")]
            value = sides[0] if len(sides) == 1 else sides[0] == sides[1]
            if not value:
                break
        if value:
            break
    return value


def _atom(text: str, contexts: Mapping[str, Any]) -> object:
    if text.startswith("'"):
        return text.strip("'")
    assert re.fullmatch(r"[a-z_]+(\.[A-Za-z0-9_-]+)+", text), text
    value: object = contexts
    assert text.split(".", maxsplit=1)[0] in contexts, text
    for name in text.split("."):
        value = value.get(name, "") if isinstance(value, Mapping) else ""
    return value


@dataclass
class Step:
    """A step that has ended."""

    status: int
    stdout: str
    stderr: str
    outputs: dict[str, str]
    summary: str

    @property
    def annotations(self) -> list[str]:
        """The errors that the run's page shows, as it shows them."""
        found = re.findall(r"^::error::(.*)$", self.stderr, re.MULTILINE)
        return [text.replace("%0A", "\n").replace("%0D", "\r").replace("%25", "%") for text in found]


RUNNER = {
    "CI": "true",
    "GITHUB_ACTIONS": "true",
    "GITHUB_RUN_ID": "19876543210",
    "GITHUB_RUN_ATTEMPT": "1",
    "GITHUB_RUN_NUMBER": "128",
    "GITHUB_SHA": COMMIT,
    "GITHUB_REF_TYPE": "branch",
    "GITHUB_REF_NAME": "main",
    "GITHUB_EVENT_NAME": "push",
}
"""What the runner sets in every step."""


def run(script: str, folder: Path, variables: Mapping[str, str], programs: str) -> Step:
    """Run a step's `run` with `shell: bash`."""
    files = {name: folder / f".{name.lower()}" for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    for file in files.values():
        file.write_text("")
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script],
        env={"PATH": programs, **variables, **{name: str(file) for name, file in files.items()}},
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    outputs = dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())
    return Step(done.returncode, done.stdout, done.stderr, outputs, files["GITHUB_STEP_SUMMARY"].read_text())


def use(
    inputs: Mapping[str, str],
    folder: Path,
    variables: Mapping[str, str] | None = None,
    event: Mapping[str, Any] | None = None,
) -> Step:
    """Use the action with inputs, in a step of a run that an event started."""
    assert inputs.keys() <= ACTION["inputs"].keys()
    given = {name: inputs.get(name, declared.get("default", "")) for name, declared in ACTION["inputs"].items()}
    runner = RUNNER | dict(variables or {})
    contexts = {
        "inputs": given,
        "github": {
            "event_name": runner["GITHUB_EVENT_NAME"], "event": event or {},
            "ref_name": runner["GITHUB_REF_NAME"], "ref_type": runner["GITHUB_REF_TYPE"],
        },
    }  # fmt: skip
    programs = folder / ".programs"
    programs.mkdir(exist_ok=True)
    for name in NEEDED:
        if not (programs / name).exists():
            (programs / name).symlink_to(require(name))
    mapped = {name: evaluated(text, contexts) for name, text in STEP["env"].items()}
    return run(STEP["run"], folder, {**runner, "GITHUB_ACTION_PATH": str(FOLDER), **mapped}, str(programs))


def inputs(url: str, **others: str) -> dict[str, str]:
    return {"url": url, "token": TOKEN, **{name.replace("_", "-"): value for name, value in others.items()}}


# What is recorded


def test_the_stamped_file(service, tmp_path):
    """The file of the build is recorded as it is, and the step has its outputs and a summary."""
    stamped(tmp_path)

    step = use(inputs(service.url), tmp_path)
    record = latest(service)

    assert step.status == 0, step.stderr
    assert record.items() >= STAMP.items()
    assert step.outputs == {"deployed-at": str(record["deployedAt"]), "repeat": "false", "rollback": "false"}
    text = json.dumps(record, separators=(",", ":"))
    assert step.stdout == f"Recorded: {text}\n"
    assert step.summary == f"Recorded:\n```json\n{text}\n```\n"
    assert step.stderr == ""


def test_repeat_and_rollback(service, tmp_path):
    """A second run is a repeat, and a build that comes back a rollback; the outputs say so."""
    for version in ("1.4.0", "1.5.0"):
        stamped(tmp_path, version=version)
        use(inputs(service.url), tmp_path)

    repeated = use(inputs(service.url), tmp_path)
    stamped(tmp_path, version="1.4.0")
    back = use(inputs(service.url), tmp_path)

    assert repeated.status == back.status == 0
    assert repeated.outputs["repeat"] == "true"
    assert repeated.stdout.startswith("Recorded before, nothing has changed: {")
    assert back.outputs.items() >= {"repeat": "false", "rollback": "true"}.items()
    assert len(history(service)) == 3


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(STAMP, indent=2),
        json.dumps(STAMP, separators=(",", ":")),
        json.dumps({**STAMP, "version": '"appName": "x"'}),
        json.dumps({**STAMP, "appName": 'a"b\\', "environment": None}),
        json.dumps({name: value for name, value in STAMP.items() if name not in ("appName", "environment")}),
    ],
    ids=["in lines", "in one line", "with such text in a value", "with odd values", "without them"],
)
def test_promotion(text, service, tmp_path):
    """The inputs app and environment stand in place of what the file says, however that is written."""
    stamped(tmp_path, "out/version.json").write_text(text)

    step = use(inputs(service.url, file="out/version.json", app="admin", environment="production"), tmp_path)

    assert step.status == 0, step.stderr
    expected = {**STAMP, **json.loads(text), "appName": "admin", "environment": "production"}
    assert latest(service, "admin/production").items() >= expected.items()


def test_one_is_replaced(service, tmp_path):
    """What isn't given stays as the file has it."""
    stamped(tmp_path)

    use(inputs(service.url, environment="production"), tmp_path)

    assert latest(service, "web/production").items() >= (STAMP | {"environment": "production"}).items()


def test_the_inputs(service, tmp_path):
    """Without the file the inputs say what is recorded."""
    given = {"version": "2.0.0", "commit": COMMIT, "build-number": "7", "build-time": "1763800000000", "tag": "v2.0.0"}

    step = use({**inputs(service.url, app="web", environment="staging"), **given}, tmp_path)

    assert step.status == 0, step.stderr
    expected = {"version": "2.0.0", "gitCommit": "3f2c1ab", "buildNumber": 7, "buildTime": 1_763_800_000_000}
    assert latest(service).items() >= {**expected, "gitTag": "v2.0.0"}.items()


def test_the_run(service, tmp_path):
    """What no input says is that of the run: its commit, number and tag, whose version it is."""
    before = int(time.time()) * 1000
    tag = {"GITHUB_REF_TYPE": "tag", "GITHUB_REF_NAME": "v2.1.0"}

    step = use(inputs(service.url, app="web", environment="staging"), tmp_path, tag)
    record = latest(service)

    assert step.status == 0, step.stderr
    expected = {"version": "2.1.0", "gitCommit": "3f2c1ab", "buildNumber": 128, "gitTag": "v2.1.0"}
    assert record.items() >= expected.items()
    assert before <= record["buildTime"] <= time.time() * 1000


def test_a_branch_is_no_tag(service, tmp_path):
    """The run of a branch has no tag."""
    use(inputs(service.url, app="web", environment="staging", version="1.0.0"), tmp_path)

    assert latest(service)["gitTag"] is None


@pytest.mark.parametrize(
    ("event_name", "commit"), [("pull_request", "aaaaaaa"), ("pull_request_target", "3f2c1ab"), ("push", "3f2c1ab")]
)
def test_a_pull_request(event_name, commit, service, tmp_path):
    """The commit of a pull request is its head's, not that of the merge that the runner made."""
    event = {"pull_request": {"head": {"sha": "a" * 40}}}
    given = inputs(service.url, app="web", environment="preview", version="1.0.0")

    use(given, tmp_path, {"GITHUB_EVENT_NAME": event_name}, event)

    assert latest(service, "web/preview")["gitCommit"] == commit


ODD = 'a "b" \\ \\" $(date) `date` %0A & | \N{ROCKET} {"a": 1}'


def test_odd_values(service, tmp_path):
    """Quotes, backslashes and spaces, and what means something to a shell, are recorded as they are."""
    given = inputs(service.url, app="web", environment="staging", version=ODD, tag=f" {ODD}")

    step = use(given, tmp_path)

    assert step.status == 0, step.stderr
    assert latest(service).items() >= {"version": ODD, "gitTag": f" {ODD}"}.items()


@pytest.mark.parametrize("value", ['a "b"', "a\\", "a&b|c/d", "a\nb", "a\tb", '","x":"'])
def test_values_that_the_hub_refuses(value, service, tmp_path):
    """A value that breaks a rule is refused by the hub by name, beside a file and without it."""
    without = use(inputs(service.url, app=value, environment="staging", version="1"), tmp_path)
    stamped(tmp_path)
    beside = use(inputs(service.url, app=value), tmp_path)

    for step in (without, beside):
        assert step.status == 1
        [told] = step.annotations
        assert told.startswith(f"{service.url} answers 422: this is no deployment: appName: must be 1 to 64 of ")
        assert told.endswith(f"not {json.dumps(value)}")


# Whatever a server says


ODD_RECORD = {**STAMP, "version": HOSTILE, "deployedAt": 1, "previous": None, "rollback": False}
HOSTILE_ANSWERS = [
    Answer.json({"detail": HOSTILE}, 422),
    Answer(422, json.dumps({"detail": HOSTILE[:-40]}, ensure_ascii=False).encode(errors="replace")),
    Answer(500, HOSTILE.encode(errors="replace")),
    Answer(302, b"", {"Location": "http://a.example/##[error]b"}),
    Answer(200, b"::set-output name=a::b"),
    Answer(201, b'\n::error::a\n{"deployedAt":1,"rollback":true}'),
    Answer(
        201,
        b'{"deployedAt":1,"a":"\n```\n<img src=x>\n::add-mask::a\n##[error]b\x1b[31m\xe2\x80\xae\x00","rollback":true}',
    ),
    Answer(201, json.dumps(ODD_RECORD, separators=(",", ":")).encode()),
    Answer(201, b'{"deployedAt":1\nevil=1,"rollback":true}'),
    Answer(201, b'{"deployedAt":' + b"9" * 60 + b',"rollback":true}'),
    Answer(201, b'{"deployedAt":1,' + b'"a":{"deployedAt":1,' * 40_000),
    Answer(400, b'{"detail":"' + b"\\\\" * 400_000),
]


@pytest.mark.parametrize("answer", HOSTILE_ANSWERS, ids=range(len(HOSTILE_ANSWERS)))
def test_a_hostile_hub(answer, tmp_path):
    """Nothing that it answers is more than text, be it to the runner, in the summary or in the outputs."""
    stamped(tmp_path)
    with WebServer(in_turn(answer)) as server:
        step = use(inputs(server.url, timeout="6"), tmp_path)
    own = re.sub(r"^::error::", "", step.stderr, count=1, flags=re.MULTILINE)

    assert step.status in (0, 1)
    assert is_harmless(own), own
    assert is_harmless(step.stdout), step.stdout
    assert len(own) < 10_000
    assert set(step.outputs) <= {"deployed-at", "repeat", "rollback"}
    assert all(re.fullmatch(r"[0-9]{1,16}|true|false", value) for value in step.outputs.values())
    if step.status == 0:
        tokens = MarkdownIt().parse(step.summary)
        assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close", "fence"]
        assert is_harmless(step.summary)


PIECES = st.sampled_from(
    ["\x1b[31m", "::error::", "##[", "##", "#", "[", "\n", "\r", "`", "%", "%0A", "ü", "\u202e", " ", "a", "$(a)"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join))
def test_a_text_that_is_shown(text):
    """A text in the log is one line of ASCII, and no command to whoever reads the log."""
    function = re.findall(r"^shown\(\) \{.*?^\}", (FOLDER / "record.sh").read_text(), re.DOTALL | re.MULTILINE)[0]
    script = f'export LC_ALL=C; shopt -s extglob\n{function}\nshown "$1"'
    done = subprocess.run(["bash", "-c", script, "bash", text], capture_output=True, check=True, timeout=20)
    shown = done.stdout.decode("ascii")

    assert shown.isprintable()
    assert is_harmless(shown)
    assert "##" not in shown


def test_an_unannounced_flood(tmp_path):
    """Of an answer without a length no more is taken than is allowed, and so of one with it."""
    stamped(tmp_path)
    sizes = []

    def flood(connection: socket.socket) -> None:
        connection.sendall(OPEN_ENDED + b"\r\n")
        sent = 0
        try:
            while sent < 2**27:
                sent += connection.send(bytes(2**16))
        finally:
            sizes.append(sent)

    with RawServer(flood) as server:
        step = use(inputs(server.url, timeout="6"), tmp_path)

    assert step.status == 1
    assert step.annotations == [f"{server.url} can't be reached"]
    assert max(sizes) < 2**26


@pytest.mark.parametrize("start", [b"", OPEN_ENDED + b"\r\n"], ids=["nothing", "a body"])
def test_a_hub_that_drips(start, tmp_path):
    """The input timeout is for all attempts together, whatever keeps them."""
    stamped(tmp_path)
    with dripping(start) as server:
        began = time.monotonic()
        step = use(inputs(server.url, timeout="6"), tmp_path)
        took = time.monotonic() - began

    assert step.status == 1
    assert step.annotations == [f"{server.url} can't be reached"]
    assert took < 20
    assert server.connections > 1


def test_an_address_is_one(tmp_path):
    """Curl takes no brackets and braces for a range of addresses, and the URL's password for no argument."""
    stamped(tmp_path)
    seen: list[str] = []

    def look(request: Request) -> Answer:
        seen.extend(processes_that_show("p4ssword"))
        return Answer(404)

    with WebServer(look) as server:
        step = use(inputs(f"{server.url.replace('//', '//u:p4ssword@')}/{{a,b}}[1-9]"), tmp_path)

    assert step.status == 1
    assert [request.path for request in server.requests] == ["/{a,b}[1-9]/deployments"]
    assert seen == []


# What is refused


def test_a_token_that_is_not_known(service, tmp_path):
    """A wrong token ends the step with the hub's words on the run's page, after one try, and isn't shown."""
    stamped(tmp_path)
    with WebServer(passing(service.url)) as proxy:
        url = proxy.url.replace("//", "//u:p4ssword@")
        step = use({**inputs(url), "token": "wrong-s3cret"}, tmp_path)

    assert step.status == 1
    assert step.annotations == [f"{proxy.url} answers 401: the bearer token is not one that this service knows"]
    assert step.outputs == {}
    assert step.summary == ""
    assert not [secret for secret in ("s3cret", "p4ssword") if secret in step.stdout + step.stderr]
    assert len(proxy.requests) == 1


def test_refused_fields(service, tmp_path):
    """Each field that the hub refuses is named, after one try."""
    stamped(tmp_path, buildNumber=-1, version="100%\n")
    with WebServer(passing(service.url)) as proxy:
        step = use(inputs(proxy.url), tmp_path)
    rules = [
        'version: must be 1 to 128 printable characters, not "100%\\n"',
        "buildNumber: must be an integer from 0 to 9007199254740991, not -1",
    ]

    assert step.status == 1
    assert step.annotations == [f"{proxy.url} answers 422: this is no deployment: {'; '.join(rules)}"]
    assert len(proxy.requests) == 1


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(404, b"<html>\n100%</html>"), "{url} answers 404: <html> 100%</html>"),
        (Answer(200, b"<html>"), "{url} is no hub: <html>"),
        (Answer(200, b'{"deployedAt":"x"}'), '{url} is no hub: {{"deployedAt":"x"}}'),
        (Answer(301, headers={"Location": "/x"}), "{url} answers 301: "),
    ],
)
def test_no_hub(answer, told, tmp_path):
    """What is no hub's answer is shown on the run's page, in one annotation."""
    stamped(tmp_path)
    with WebServer(in_turn(answer)) as server:
        step = use(inputs(server.url), tmp_path)

    assert step.status == 1
    assert step.annotations == [told.format(url=server.url)]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"url": ""}, "the input url must be the hub's address, such as https://hub.example"),
        ({"url": "hub.example"}, "the input url must be the hub's address, such as https://hub.example"),
        ({"token": ""}, "there is no token: give the input token, or oidc: true where the hub trusts this repository"),
        ({"token": 's3cret"\nurl = "http://x'}, "the token holds characters that no token has"),
        ({"oidc": "true"}, "this job can't prove its identity: it needs permissions: {id-token: write}"),
        ({"timeout": "0"}, "the input timeout must be a number of seconds from 1 to 9999"),
        ({"timeout": "1\n::error::a"}, "the input timeout must be a number of seconds from 1 to 9999"),
        ({"version": "2"}, "only app and environment can be given with dist/version.json, which says what the build is"),
        ({"file": "nowhere.json"}, "there is no nowhere.json here, so app, environment and version have to be given"),
        ({"file": "nowhere.json", "app": "a", "environment": "b", "version": "1", "build-number": "1e3"},
         'build-number must be a number, not "1e3"'),
        ({"file": "nowhere.json", "app": "a", "environment": "b", "version": "1", "build-time": "now"},
         'build-time must be a number, not "now"'),
    ],
)  # fmt: skip
def test_wrong_use(given, told, tmp_path):
    """What can't be meant ends the step with what to do, before anything is sent."""
    stamped(tmp_path)
    with WebServer(in_turn(Answer(500))) as server:
        step = use({**inputs(server.url), **given}, tmp_path)

    assert step.status == 1
    assert step.annotations == [told]
    assert "s3cret" not in step.stdout + step.stderr
    assert server.requests == []


# Retries and secrets


def test_a_hub_that_is_down_for_a_few_seconds(redis, tmp_path):
    """A hub that isn't there yet is waited for."""
    stamped(tmp_path)
    replica = Replica(tmp_path, redis_url=redis.url, prefix="late")
    later = Timer(2, lambda: replica.start(wait=False))
    later.start()
    try:
        began = time.monotonic()
        step = use(inputs(replica.url), tmp_path)

        assert step.status == 0, step.stderr
        assert time.monotonic() - began > 2
        assert len(history(replica)) == 1
    finally:
        later.join()
        replica.kill()


def test_the_same_key_for_each_try(service, tmp_path):
    """A try whose answer was lost is repeated with the same key, which no other run has; no secret is shown."""
    stamped(tmp_path)
    to_hub = passing(service.url)
    seen: list[list[str]] = []

    def lost(request: Request) -> Answer:
        assert to_hub(request).status == 201
        return Answer(0)

    def look(request: Request) -> Answer:
        seen.append(processes_that_show("/deployments"))
        seen.append(processes_that_show(TOKEN))
        return to_hub(request)

    unavailable = Answer(503, b"<html>", {"Retry-After": "1"})
    with WebServer(in_turn(unavailable, lost, look)) as proxy:
        step = use(inputs(proxy.url, token=f" {TOKEN}\n"), tmp_path)
        keys = {request.headers["idempotency-key"] for request in proxy.requests}
        use(inputs(proxy.url), tmp_path)

    assert step.status == 0, step.stderr
    assert step.outputs["repeat"] == "true"
    assert len(history(service)) == 1
    assert len(keys) == 1
    assert {proxy.requests[-1].headers["idempotency-key"]}.isdisjoint(keys)
    [command_line] = seen[0]
    assert command_line.startswith("curl ")
    assert seen[1] == []
    assert TOKEN not in step.stdout + step.stderr


def test_a_pasted_token(service, tmp_path):
    """The line break at the end of a secret that was pasted is no part of it."""
    stamped(tmp_path)

    assert use({**inputs(service.url), "token": f"{TOKEN}\n"}, tmp_path).status == 0


# Identities


class Issuer:
    """An issuer of identities as GitHub's, with keys of its own, whom a service can trust."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.server = WebServer(self._answer)
        self.server.__enter__()
        self.given: list[str] = []
        self.shown: list[str] = []

    def close(self) -> None:
        self.server.__exit__()

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def variables(self) -> dict[str, str]:
        """What a job with `id-token: write` is given."""
        return {
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.url}/token?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-s3cret",
        }

    def _answer(self, request: Request) -> Answer:
        path, query = urlsplit(request.path)[2:4]
        if path == "/.well-known/openid-configuration":
            return Answer.json({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})
        if path == "/keys":
            document = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key()))
            return Answer.json({"keys": [{**document, "kid": "one", "alg": "ES256", "use": "sig"}]})
        self.shown += processes_that_show("request-s3cret")
        parameters = parse_qs(query)
        if request.headers.get("authorization") != "Bearer request-s3cret" or parameters["api-version"] != ["2.0"]:
            return Answer(401)
        now = int(time.time())
        claims = {"iss": self.url, "aud": parameters["audience"][0], "iat": now, "exp": now + 300,
                  "jti": str(len(self.given)), "repository": "octo/web"}  # fmt: skip
        self.given.append(jwt.encode(claims, self.key, "ES256", {"kid": "one"}))
        return Answer.json({"value": self.given[-1]})


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    yield made
    made.close()


@pytest.fixture
def trusting(tmp_path: Path, redis: RedisServer, issuer: Issuer) -> Iterator[Replica]:
    """A service that trusts the issuer's jobs of one repository, for all applications but `secret`."""
    channels = ["web/*", "admin/*", "marketing/*"]
    trust = [{"issuer": issuer.url, "claims": {"repository": "octo/web"}, "channels": channels}]
    replica = Replica(tmp_path, redis_url=redis.url, prefix=tmp_path.name, trust=json.dumps(trust))
    replica.settings["VECTR0_AUDIENCE"] = replica.url
    yield replica.start()
    replica.kill()


def test_an_identity_in_place_of_a_token(issuer, trusting, tmp_path):
    """With `oidc: true` the action, and with --oidc the command, record without a secret where the hub trusts them."""
    url = trusting.url.replace("//", "//u:p4ssword@") + "/"
    first = len(issuer.given)
    stamped(tmp_path)
    step = use({"url": url, "oidc": "true"}, tmp_path, issuer.variables)
    stamped(tmp_path, version="1.5.0")
    done = vectr0("record", "--oidc", env=environ(VECTR0_URL=url, **issuer.variables), cwd=tmp_path)
    of_step, of_command = issuer.given[first:]

    assert step.status == 0, step.stderr
    assert done.returncode == 0, done.stderr
    assert [record["version"] for record in history(trusting)] == ["1.5.0", "1.4.0"]
    assert step.stdout.splitlines()[0] == f"::add-mask::{of_step}"
    assert (step.stdout + step.stderr).count(of_step) == 1
    assert of_command not in done.stdout + done.stderr
    assert issuer.shown == []


@pytest.mark.parametrize("given", [{"app": "secret"}, {"audience": "another"}], ids=lambda given: next(iter(given)))
def test_an_identity_that_is_not_trusted(given, issuer, trusting, tmp_path):
    """An identity for another application or another hub is refused, in the hub's words."""
    stamped(tmp_path)
    step = use({"url": trusting.url, "oidc": "true", **given}, tmp_path, issuer.variables)
    [told] = step.annotations

    assert step.status == 1
    assert told.startswith(f"{trusting.url} answers 403: ")


@pytest.mark.parametrize("answer", [Answer.json({}), Answer(200, b'{"value":"a\n::error::b"}')])
def test_no_identity(answer, tmp_path):
    """Where GitHub gives no identity the step ends with that, and sends nothing to the hub."""
    stamped(tmp_path)
    with WebServer(in_turn(answer)) as server:
        variables = {"ACTIONS_ID_TOKEN_REQUEST_URL": server.url, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "x"}
        step = use({"url": server.url, "oidc": "true"}, tmp_path, variables)

    assert step.status == 1
    assert step.stdout == ""
    assert step.annotations == ["GitHub gave no identity"]
    assert [request.method for request in server.requests] == ["GET"]


# The files


def test_inputs_and_outputs_are_documented():
    """Each input and output has its description, and each input reaches the script."""
    for declared in (*ACTION["inputs"].values(), *ACTION["outputs"].values()):
        assert declared["description"].endswith(".")
    mapped = set(re.findall(r"inputs\.([a-z-]+)", " ".join(STEP["env"].values())))

    assert mapped == set(ACTION["inputs"])
    assert all(STEP["id"] in output["value"] for output in ACTION["outputs"].values())
    assert STEP["shell"] == "bash"
    assert "${{" not in STEP["run"]  # where a value would be code


def test_shellcheck():
    """Shellcheck finds nothing in the script."""
    done = subprocess.run([require("shellcheck"), FOLDER / "record.sh"], capture_output=True, text=True, check=False)

    assert done.stdout == ""
    assert done.returncode == 0


def test_actionlint():
    """Actionlint finds nothing in the workflows, nor does shellcheck in their scripts."""
    files = [TOP / "examples/deploy.yml", *(TOP / ".github/workflows").glob("*.yml")]
    done = subprocess.run(
        [require("actionlint"), "-shellcheck", require("shellcheck"), *files],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.stdout == ""
    assert done.returncode == 0


# The example workflow

NPM = """
case "$*" in
ci) ;;
"run build --workspace apps/"*)
    mkdir -p "$4/dist"
    [ -z "$GIT_TAG" ] || tag="\\"$GIT_TAG\\""
    printf '{"appName":"%s","version":"%s","gitCommit":"%s","buildNumber":%s,"buildTime":1,"environment":"%s","gitTag":%s}' \\
        "$APP_NAME" "${VERSION:-0.0.0}" "${GITHUB_SHA:0:7}" "$GITHUB_RUN_NUMBER" "$ENVIRONMENT" "${tag:-null}" \\
        >"$4/dist/version.json" ;;
*) exit 64 ;;
esac
"""
RSYNC = 'while [ "${1#-}" != "$1" ]; do shift; done; mkdir -p "$2"; cp -r "$1". "$2"'


def test_the_example_is_started_by_main_and_by_tags():
    """Staging is deployed on main, and production on a tag, each application in a job of its own."""
    triggers = WORKFLOW[True]  # YAML's `on`

    assert triggers == {"push": {"branches": ["main"], "tags": ["v*"]}}
    assert WORKFLOW["permissions"] == {"contents": "read", "id-token": "write"}
    assert WORKFLOW["jobs"]["deploy"]["strategy"]["matrix"] == {"app": ["admin", "web", "marketing"]}


@pytest.mark.parametrize(
    ("run_of", "record_of"),
    [
        (
            {"GITHUB_REF_TYPE": "branch", "GITHUB_REF_NAME": "main"},
            {"environment": "staging", "version": "0.0.0", "gitTag": None},
        ),
        (
            {"GITHUB_REF_TYPE": "tag", "GITHUB_REF_NAME": "v1.4.0"},
            {"environment": "production", "version": "1.4.0", "gitTag": "v1.4.0"},
        ),
    ],
    ids=["main", "a tag"],
)
def test_the_example_workflow(run_of, record_of, issuer, trusting, tmp_path):
    """Its steps build, deploy and record each application of a monorepo, with the identity of its jobs."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, script in (("npm", NPM), ("rsync", RSYNC)):
        (programs / name).write_text(f"#!/bin/bash\nset -eu\n{script}\n")
        (programs / name).chmod(0o755)
    contexts: dict[str, Any] = {
        "github": {"ref_type": run_of["GITHUB_REF_TYPE"], "ref_name": run_of["GITHUB_REF_NAME"]},
        "vars": {"VECTR0_URL": trusting.url, "DEPLOY_TARGET": str(tmp_path / "servers")},
    }
    runner = RUNNER | run_of
    if WORKFLOW["permissions"]["id-token"] == "write":
        runner |= issuer.variables

    for app in WORKFLOW["jobs"]["deploy"]["strategy"]["matrix"]["app"]:
        contexts["matrix"] = {"app": app}
        for step in WORKFLOW["jobs"]["deploy"]["steps"]:
            env = runner | {
                name: evaluated(text, contexts) for name, text in (WORKFLOW["env"] | step.get("env", {})).items()
            }
            if "run" in step:
                done = run(step["run"], tmp_path, env, f"{programs}{os.pathsep}{os.environ['PATH']}")
            elif "record-deployment" in step["uses"]:
                given = {name: str(value).lower() if value is True else value for name, value in step["with"].items()}
                done = use({name: evaluated(text, contexts) for name, text in given.items()}, tmp_path, env)
            else:
                assert step["uses"].startswith("actions/")
                continue
            assert done.status == 0, done.stderr
        [record] = history(trusting, f"{app}/{record_of['environment']}")
        assert record.items() >= {**record_of, "gitCommit": "3f2c1ab", "buildNumber": 128}.items()
        assert json.loads((tmp_path / f"servers/{app}/version.json").read_text()).items() <= record.items()


# curl


def one_line(url: str, folder: Path, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", ONE_LINE],
        env=hub(url, token),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_one_line_of_curl(service, tmp_path):
    """One line records what the build stamped, and prints the record; a second run changes nothing."""
    stamped(tmp_path)

    first, second = (one_line(service.url, tmp_path) for _ in range(2))

    assert first.returncode == second.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    assert json.loads(first.stdout) == latest(service)
    assert len(history(service)) == 1


def test_one_line_of_curl_with_an_identity(issuer, trusting, tmp_path):
    """The README's job of GitLab runs the same line; its token is the identity that the job names so."""
    [block] = [text for text in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL) if "id_tokens" in text]
    [job] = yaml.safe_load(block).values()
    asked = httpx.get(
        f"{issuer.url}/token", params={"api-version": "2.0", "audience": trusting.url},
        headers={"Authorization": "Bearer request-s3cret"},
    )  # fmt: skip
    stamped(tmp_path)

    done = one_line(trusting.url, tmp_path, asked.json()["value"])

    assert job["script"] == [ONE_LINE]
    assert list(job["id_tokens"]) == ["VECTR0_TOKEN"]
    assert job["id_tokens"]["VECTR0_TOKEN"]["aud"] == job["variables"]["VECTR0_URL"]
    assert done.returncode == 0, done.stdout
    assert len(history(trusting)) == 1


def test_the_step_of_the_readme():
    """The README uses the action with inputs that it has, and lets the job prove its identity."""
    [block] = [text for text in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL) if "uses:" in text]
    workflow = yaml.safe_load(block)
    [step] = workflow["steps"]

    assert step["uses"] == "OWNER/REPO/.github/actions/record-deployment@v1"
    assert set(step["with"]) <= set(ACTION["inputs"])
    assert workflow["permissions"] == {"id-token": "write"}


def test_one_line_of_curl_is_safe_to_retry(service, tmp_path):
    """What was stored though its answer was lost isn't stored again by curl's own retry."""
    stamped(tmp_path)
    to_hub = passing(service.url)

    def lost(request: Request) -> Answer:
        assert to_hub(request).status == 201
        return Answer(0)

    with WebServer(in_turn(lost, to_hub)) as proxy:
        done = one_line(proxy.url, tmp_path)

    assert done.returncode == 0, done.stderr
    assert len(proxy.requests) == 2
    assert len(history(service)) == 1


def test_one_line_of_curl_shows_what_is_wrong(service, tmp_path):
    """What is refused ends with a status that isn't 0; each of curl's tries has a line in the log."""
    stamped(tmp_path, version="")
    done = subprocess.run(
        ["bash", "-c", ONE_LINE.replace("--retry 5", "--retry 1")],
        env=hub(service.url), cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    problems = [json.loads(line) for line in done.stdout.splitlines()]

    assert done.returncode == 22
    assert [problem["detail"] for problem in problems] == [
        'this is no deployment: version: must be 1 to 128 printable characters, not ""'
    ] * 2
    assert TOKEN not in done.stdout + done.stderr
