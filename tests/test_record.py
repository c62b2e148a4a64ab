"""`vectr0 record` as CI runs it: the real command against the real service on a real Redis."""

import json
import os
import re
import stat
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from markdown_it import MarkdownIt

from tests.command_parts import (
    COMMIT,
    HOSTILE,
    STAMP,
    TOP,
    Answer,
    Request,
    WebServer,
    bomb,
    dripping,
    environ,
    forget,
    history,
    hub,
    in_process,
    in_turn,
    is_harmless,
    latest,
    passing,
    processes_that_show,
    running,
    stamped,
    vectr0,
)
from tests.parts import TOKEN, RedisServer, Replica, require

CASES: list[dict[str, Any]] = json.loads((TOP / "tests/ci-cases.json").read_text())
SCOPED = "admin-s3cret"
SAYS_ENOUGH = ("--app", "web", "--environment", "staging", "--version", "1.4.0")
UNAVAILABLE = Answer.json(
    {"type": "about:blank", "title": "Service Unavailable", "status": 503, "detail": "Redis can't be had"}, 503
)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A redis-server for all tests of this file."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, redis: RedisServer) -> Iterator[Replica]:
    replica = Replica(tmp_path_factory.mktemp("record"), redis_url=redis.url, tokens=f"{TOKEN},{SCOPED}@admin/*")
    yield replica.start()
    replica.kill()


@pytest.fixture
def service(shared: Replica) -> Replica:
    """A service that knows nothing yet."""
    forget(shared)
    return shared


def program(folder: Path, name: str, script: str) -> dict[str, str]:
    """Put a program before all others, and give the variable that does it."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"PATH": f"{path.parent}{os.pathsep}{os.environ['PATH']}"}


# What is recorded


def test_the_stamped_file(service, tmp_path):
    """In the folder of a build its dist/version.json is recorded as it is, and the command says what it recorded."""
    file = stamped(tmp_path)
    before = file.read_bytes()

    done = vectr0("record", env=hub(service.url), cwd=tmp_path)

    assert done.returncode == 0
    assert done.stdout.startswith("Recorded web/staging v1.4.0 (3f2c1ab, build 128), at ")
    assert done.stderr == ""
    assert latest(service).items() >= STAMP.items()
    assert file.read_bytes() == before


def test_a_file_with_a_byte_order_mark(service, tmp_path):
    """What PowerShell writes is read, where it is served, too; `--environment` rewrites it without the mark."""
    file = stamped(tmp_path)
    file.write_bytes(file.read_text().encode("utf-8-sig"))
    with WebServer(in_turn(Answer(200, file.read_bytes(), {"Content-Type": "application/json"}))) as app:
        options = ("--verify", f"{app.url}/version.json", "--verify-timeout", "5", "--environment", "production")
        done = in_process("record", *options, env=hub(service.url), cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert latest(service, "web/production").items() >= (STAMP | {"environment": "production"}).items()
    assert json.loads(file.read_text("utf-8")) == STAMP | {"environment": "production"}


def test_another_file(service, tmp_path):
    """--from names the file."""
    stamped(tmp_path, "dist/version.json", version="0.0.0")
    stamped(tmp_path, "apps/web/version.json")

    vectr0("record", "--from", "apps/web/version.json", env=hub(service.url), cwd=tmp_path)

    assert latest(service)["version"] == "1.4.0"


def test_a_repeat(service, tmp_path):
    """A second run says that there was nothing new, and exits with 0."""
    stamped(tmp_path)
    vectr0("record", env=hub(service.url), cwd=tmp_path)

    done = vectr0("record", env=hub(service.url), cwd=tmp_path)
    as_json = vectr0("record", "--json", env=hub(service.url), cwd=tmp_path)

    assert done.returncode == as_json.returncode == 0
    assert done.stdout.startswith("Recorded before, nothing has changed: web/staging v1.4.0")
    assert as_json.stderr.startswith("Recorded before, nothing has changed: web/staging v1.4.0")
    assert len(history(service)) == 1


def test_a_rollback(service, tmp_path):
    """A build that comes back is told as a rollback."""
    for version in ("1.4.0", "1.5.0"):
        stamped(tmp_path, version=version)
        vectr0("record", env=hub(service.url), cwd=tmp_path)
    stamped(tmp_path, version="1.4.0")

    done = vectr0("record", env=hub(service.url), cwd=tmp_path)

    assert done.stdout.rstrip().endswith("UTC, a rollback")


def test_as_json(service, tmp_path):
    """--json prints the record, byte for byte as the hub gives it, and nothing else."""
    stamped(tmp_path, version="1.4.0 \N{ROCKET}")

    done = vectr0("record", "--json", env=hub(service.url), cwd=tmp_path)

    assert done.returncode == 0
    assert done.stdout == json.dumps(latest(service), separators=(",", ":"), ensure_ascii=False) + "\n"


def test_options(service, tmp_path):
    """Without a file the options say what is recorded; no version.json is written."""
    options = ["--commit", COMMIT, "--tag", "v1.4.0", "--build-number", "7", "--build-time", "1763800000000"]

    done = vectr0("record", *SAYS_ENOUGH, *options, env=hub(service.url), cwd=tmp_path)

    assert done.returncode == 0
    assert done.stdout.startswith("Recorded web/staging v1.4.0 (3f2c1ab, build 7), at ")
    assert latest(service).items() >= (STAMP | {"buildNumber": 7, "gitTag": "v1.4.0"}).items()
    assert not any(tmp_path.iterdir())


SYSTEMS = [
    case
    for case in CASES
    if "expected" in case and ("GITHUB_SHA" not in case["env"] or "GITHUB_ACTIONS" in case["env"])
]


@pytest.mark.parametrize("case", SYSTEMS, ids=lambda case: case["name"])
def test_each_ci_system(case, service, tmp_path):
    """What a CI system's variables say is recorded, and told by the service as the Vite plugin would stamp it."""
    git = case.get("git", {})
    tags = "\n".join(git.get("tags", []))
    answers = f'case $1 in rev-parse) echo {git["commit"]};; tag) echo "{tags}";; esac' if git else "exit 1"
    (tmp_path / "EVENT").write_text(json.dumps(case.get("event")))
    before = int(time.time() * 1000)

    done = vectr0(
        "record", "--json", env=hub(service.url, **case["env"], **program(tmp_path, "git", answers)), cwd=tmp_path
    )
    record = json.loads(done.stdout)

    assert done.returncode == 0
    assert record.items() >= case["expected"].items()
    assert before <= record["buildTime"] <= time.time() * 1000
    assert record == latest(service, f"{record['appName']}/{record['environment']}")


def test_the_nearest_package_json(tmp_path):
    """Name and version are those of the nearest package.json, as for the Vite plugin; a folder may be the app's."""
    (tmp_path / "package.json").write_text('{"name": "@acme/web", "version": "1.4.0"}', "utf-8-sig")
    folder = tmp_path / "src/deep"
    folder.mkdir(parents=True)

    done = in_process("record", "--dry-run", "--json", "--environment", "staging", env=environ(), cwd=folder)

    assert json.loads(done.stdout).items() >= {"appName": "web", "version": "1.4.0", "environment": "staging"}.items()


def test_git_is_asked_two_things(tmp_path):
    """Where nothing else says the commit, git is asked for it and its tags, and for nothing else."""
    script = f'echo "$@" >>{tmp_path}/asked\ncase $1 in rev-parse) echo {COMMIT};; tag) echo v1.4.0;; *) exit 1;; esac'

    done = vectr0(
        "record", "--dry-run", "--json", *SAYS_ENOUGH, env=environ(**program(tmp_path, "git", script)), cwd=tmp_path
    )

    assert json.loads(done.stdout).items() >= {"gitCommit": "3f2c1ab", "gitTag": "v1.4.0"}.items()
    assert (tmp_path / "asked").read_text() == "rev-parse HEAD\ntag --points-at HEAD\n"


@pytest.mark.parametrize("says", [{"GITHUB_SHA": COMMIT}, {}], ids=["the environment says the commit", "a file does"])
def test_git_is_not_asked(says, tmp_path):
    """Git isn't asked for what is known."""
    if not says:
        stamped(tmp_path)
    git = program(tmp_path, "git", f"touch {tmp_path}/asked")

    done = in_process("record", "--dry-run", *(SAYS_ENOUGH if says else ()), env=environ(**says, **git), cwd=tmp_path)

    assert done.returncode == 0
    assert not (tmp_path / "asked").exists()


def test_a_real_repository(tmp_path):
    """In a clone git's commit is recorded, and the tag that names the version."""
    require("git")
    for words in ("init", "commit --allow-empty --message one", "tag v1.4.0", "tag latest"):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
        subprocess.run(["git", *identity, *words.split()], cwd=tmp_path, check=True, capture_output=True)
    commit = subprocess.check_output(["git", "rev-parse", "--short=7", "HEAD"], cwd=tmp_path, text=True).strip()

    done = vectr0("record", "--dry-run", "--json", *SAYS_ENOUGH, env=environ(), cwd=tmp_path)

    assert json.loads(done.stdout).items() >= {"gitCommit": commit, "gitTag": "v1.4.0"}.items()


# Files


def test_promotion(service, tmp_path):
    """--app and --environment record the same build elsewhere, and the file says so from then on."""
    file = stamped(tmp_path)
    promoted = STAMP | {"appName": "admin", "environment": "production"}

    done = vectr0("record", "--environment", "production", "--app", "admin", env=hub(service.url), cwd=tmp_path)

    assert done.returncode == 0
    assert latest(service, "admin/production").items() >= promoted.items()
    assert file.read_text() == json.dumps(promoted, indent=2) + "\n"


@pytest.mark.parametrize("option", ["--app", "--environment"])
def test_promotion_to_what_cannot_be(option, tmp_path):
    """A name that the hub would refuse is wrong use, and leaves the file as it is."""
    file = stamped(tmp_path)
    before = file.read_bytes()

    done = in_process("record", option, "a b", env=hub("http://127.0.0.1:9"), cwd=tmp_path)

    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: {option} must be 1 to 64 of A-Z a-z 0-9 . _ -, starting with ")
    assert done.stderr.endswith('not "a b"\n')
    assert file.read_bytes() == before


def test_an_empty_option_says_nothing(service, tmp_path):
    """An option from a variable that isn't set leaves the file as it is."""
    stamped(tmp_path)

    in_process("record", "--environment", "", "--tag", "", env=hub(service.url), cwd=tmp_path)

    assert latest(service)["environment"] == "staging"


@pytest.mark.parametrize(
    "option",
    [("--version", "2"), ("--commit", "abc"), ("--tag", "v2"), ("--build-number", "0"), ("--build-time", "2")],
    ids=lambda option: option[0],
)
def test_the_file_says_what_the_build_is(option, tmp_path):
    """Any other option beside a file is wrong use."""
    stamped(tmp_path)

    done = in_process("record", "--dry-run", *option, env=environ(), cwd=tmp_path)

    assert done.returncode == 2
    assert done.stderr == f"Error: {option[0]} can't be given with dist/version.json, which says what the build is\n"


def test_write(service, tmp_path):
    """--write writes what was recorded as the Vite plugin does, folders and all."""
    vectr0("record", *SAYS_ENOUGH, "--write", "dist/app/version.json", env=hub(service.url), cwd=tmp_path)
    text = (tmp_path / "dist/app/version.json").read_text()
    fields = json.loads(text)

    assert text == json.dumps(fields, indent=2) + "\n"
    assert list(fields) == list(STAMP)
    assert fields.items() <= latest(service).items()


def test_a_file_that_cannot_be_written(service, tmp_path):
    """A file that can't be written is wrong use, and nothing is recorded."""
    (tmp_path / "dist").write_text("no folder")

    done = in_process("record", *SAYS_ENOUGH, "--write", "dist/version.json", env=hub(service.url), cwd=tmp_path)

    assert done.returncode == 2
    assert done.stderr.startswith("Error: dist/version.json can't be written: ")
    assert history(service) == []


def test_dry_run(tmp_path):
    """--dry-run shows what would be recorded, sends nothing, and writes nothing."""
    file = stamped(tmp_path)
    before = file.read_bytes()
    with WebServer(in_turn(Answer(500))) as server:
        done = in_process("record", "--dry-run", "--environment", "production", env=hub(server.url), cwd=tmp_path)

    assert done.returncode == 0
    assert json.loads(done.stdout) == STAMP | {"environment": "production"}
    assert server.requests == []
    assert file.read_bytes() == before


def test_stamp_without_the_vite_plugin(tmp_path):
    """--dry-run with --write stamps a build, without a hub or a token."""
    done = in_process("record", "--dry-run", *SAYS_ENOUGH, "--write", "dist/version.json", env=environ(), cwd=tmp_path)

    assert done.returncode == 0
    assert json.loads((tmp_path / "dist/version.json").read_text()) == json.loads(done.stdout)


# Exit codes


def broken(folder: Path, text: str, encoding: str = "utf-8") -> tuple[str, ...]:
    (folder / "broken.json").write_text(text, encoding)
    return ("--from", "broken.json")


@pytest.mark.parametrize(
    ("prepared", "variables", "told"),
    [
        (lambda folder: SAYS_ENOUGH, {"VECTR0_URL": ""}, "the hub's address is missing: give --url, or set VECTR0_URL"),
        (lambda folder: SAYS_ENOUGH, {"VECTR0_URL": "hub.example"}, "--url is 'hub.example'; it must be an address"),
        (lambda folder: SAYS_ENOUGH, {"VECTR0_URL": "http://["}, "--url is 'http://['; it must be an address"),
        (lambda folder: SAYS_ENOUGH, {"VECTR0_TOKEN": ""}, "there is no token: set VECTR0_TOKEN, or use --oidc"),
        (lambda folder: SAYS_ENOUGH, {"VECTR0_TOKEN": "s3cret\ns3cret"}, "the token holds characters"),
        (lambda folder: SAYS_ENOUGH, {"VECTR0_TOKEN": "s3crét"}, "the token holds characters"),
        (lambda folder: (*SAYS_ENOUGH, "--verify", "app.example"), {}, "--verify is 'app.example'; it must be"),
        (lambda folder: (), {}, "appName is missing: name it with --app, the variable APP_NAME or package.json's `name`"),
        (lambda folder: (), {"VERSION": "1\n2"}, 'version (from VERSION) must be 1 to 128 printable characters, not "1\\n2"'),
        (lambda folder: ("--from", "nowhere.json"), {}, "nowhere.json can't be read: No such file or directory"),
        (lambda folder: broken(folder, "<!doctype html>"), {}, "broken.json can't be read: Expecting value"),
        (lambda folder: broken(folder, "{}", "utf-16"), {}, "broken.json can't be read: it is in UTF-16 or UTF-32"),
        (lambda folder: broken(folder, "[]"), {}, "broken.json holds no JSON object"),
    ],
    ids=[
        "no address", "no address of HTTP", "half an address", "no token", "two lines for a token", "an odd token",
        "nothing to verify", "no application", "a broken rule", "no file", "no JSON", "UTF-16", "no object",
    ],
)  # fmt: skip
def test_wrong_use(prepared, variables, told, tmp_path):
    """What can't be meant ends with 2 and says what to do, before anything is sent; --no-fail makes it a warning."""
    with WebServer(in_turn(Answer(500))) as server:
        env = hub(server.url) | variables
        done = in_process("record", *prepared(tmp_path), env=env, cwd=tmp_path)
        forgiven = in_process("record", "--no-fail", *prepared(tmp_path), env=env, cwd=tmp_path)

    assert done.returncode == 2
    assert done.stdout == ""
    assert told in done.stderr
    assert done.stderr.startswith("Error: ")
    assert "s3cr" not in done.stderr
    assert forgiven.returncode == 0
    assert forgiven.stderr.startswith("Warning: ")
    assert server.requests == []


@pytest.mark.parametrize("option", ["--retries=-1", "--timeout=0", "--build-number=x", "--nonsense"])
def test_wrong_options(option, tmp_path):
    """An option that breaks its rule ends with 2."""
    done = in_process("record", *SAYS_ENOUGH, option, env=environ(), cwd=tmp_path)

    assert done.returncode == 2
    assert option.partition("=")[0] in done.stderr


def test_a_token_that_is_not_known(service, tmp_path):
    """A wrong token is refused, with 3, in the hub's words, and isn't shown or tried again."""
    stamped(tmp_path)
    with WebServer(passing(service.url)) as proxy:
        done = vectr0("record", env=hub(proxy.url, token="wrong-s3cret"), cwd=tmp_path)

    assert done.returncode == 3
    assert done.stderr == f"Error: {proxy.url} answers 401: the bearer token is not one that this service knows\n"
    assert len(proxy.requests) == 1


def test_a_token_for_another_application(service, tmp_path):
    """A token that isn't good for the channel is refused with 3; --no-fail makes it a warning."""
    stamped(tmp_path)
    done = in_process("record", env=hub(service.url, token=SCOPED), cwd=tmp_path)
    forgiven = in_process("record", "--no-fail", env=hub(service.url, token=SCOPED), cwd=tmp_path)

    assert done.returncode == 3
    assert "answers 403: the bearer token is not good for web/staging" in done.stderr
    assert forgiven.returncode == 0
    assert forgiven.stderr == done.stderr.replace("Error", "Warning")


def test_a_pasted_token(service, tmp_path):
    """The line break at the end of a secret that was pasted is no part of it."""
    stamped(tmp_path)

    assert in_process("record", env=hub(service.url, token=f"{TOKEN}\n"), cwd=tmp_path).returncode == 0


def test_refused_fields(service, tmp_path):
    """Each field that the hub refuses has a line with the hub's rule; it isn't tried again."""
    stamped(tmp_path, version="", buildNumber="128", branch="main")
    with WebServer(passing(service.url)) as proxy:
        done = in_process("record", env=hub(proxy.url), cwd=tmp_path)
    first, *lines = done.stderr.splitlines()

    assert done.returncode == 3
    assert first.startswith(f"Error: {proxy.url} answers 422: Unprocessable ")
    assert sorted(line.strip() for line in lines) == [
        "branch: is not a field of a deployment; the fields are " + ", ".join(STAMP),
        'buildNumber: must be an integer from 0 to 9007199254740991, not "128"',
        'version: must be 1 to 128 printable characters, not ""',
    ]
    assert len(proxy.requests) == 1


def test_a_hub_that_has_moved(tmp_path):
    """A redirection isn't followed with the token; it is told where it points to."""
    stamped(tmp_path)
    with WebServer(in_turn(Answer(301, headers={"Location": "https://u:s3cret@new.example/deployments"}))) as server:
        done = in_process("record", env=hub(server.url), cwd=tmp_path)

    assert done.returncode == 3
    assert done.stderr == f"Error: {server.url} answers 301: it has moved to https://new.example/deployments\n"


def test_an_answer_that_cannot_be_read(tmp_path):
    """An answer that isn't in the encoding that it names ends with 5, after its retries."""
    stamped(tmp_path)
    with WebServer(in_turn(Answer(200, b"no gzip", {"Content-Encoding": "gzip"}))) as server:
        done = in_process("record", "--retries", "1", env=hub(server.url), cwd=tmp_path)

    assert done.returncode == 5
    assert len(server.requests) == 2
    assert f"Error: {server.url} can't be reached (Error -3 while decompressing data" in done.stderr


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[]", b'{"deployedAt":"now"}'])
def test_no_hub(body, tmp_path):
    """An answer that no hub gives ends with 5."""
    stamped(tmp_path)
    with WebServer(in_turn(Answer(200, body))) as server:
        done = in_process("record", env=hub(server.url), cwd=tmp_path)

    assert done.returncode == 5
    assert "is no hub: its answer" in done.stderr


def test_no_answer(tmp_path):
    """A hub that never answers ends with 5 after the timeout of each try; --no-fail makes it a warning."""
    stamped(tmp_path)
    released = Event()

    def hang(_: Request) -> Answer:
        released.wait(20)
        return Answer(0)

    with WebServer(hang) as server:
        options = ("--timeout", "0.3", "--retries", "1")
        done = in_process("record", *options, env=hub(server.url), cwd=tmp_path)
        forgiven = in_process("record", "--no-fail", *options, env=hub(server.url), cwd=tmp_path)
        released.set()

    assert done.returncode == 5
    assert [line.partition(";")[0] for line in done.stderr.splitlines()] == [
        f"{server.url} can't be reached (no whole answer within 0.3 s)",
        f"Error: {server.url} can't be reached (no whole answer within 0.3 s)",
    ]
    assert forgiven.returncode == 0
    assert "Warning: " in forgiven.stderr
    assert len(server.requests) == 4


# Retries


def keys(server: WebServer) -> set[str]:
    return {request.headers["idempotency-key"] for request in server.requests}


def test_a_hub_that_is_down_for_a_few_seconds(redis, tmp_path):
    """A hub that isn't there yet is waited for."""
    stamped(tmp_path)
    replica = Replica(tmp_path, redis_url=redis.url, prefix="late")
    try:
        with running("record", env=hub(replica.url), cwd=tmp_path) as process:
            assert process.stderr
            assert "can't be reached" in process.stderr.readline()
            replica.start()
            output, _ = process.communicate(timeout=30)

        assert process.returncode == 0
        assert output.startswith("Recorded web/staging")
        assert len(history(replica)) == 1
    finally:
        replica.kill()


def test_the_same_key_for_each_try(service, tmp_path):
    """A try whose answer was lost is repeated with the same key: what was stored isn't stored again."""
    stamped(tmp_path)
    to_hub = passing(service.url)

    def lost(request: Request) -> Answer:
        assert to_hub(request).status == 201
        return Answer(0)

    with WebServer(in_turn(Answer(0), UNAVAILABLE, lost, to_hub)) as proxy:
        done = vectr0("record", env=hub(proxy.url), cwd=tmp_path)
    [key] = keys(proxy)

    assert done.returncode == 0
    assert [request.method for request in proxy.requests] == ["POST"] * 4
    assert len({request.body for request in proxy.requests}) == 1
    assert uuid.UUID(key).version == 4
    assert len(history(service)) == 1
    assert f"{proxy.url} answers 503: Redis can't be had; trying again in" in done.stderr


def test_another_key_for_each_run(service, tmp_path):
    """A stage that is run again is another deployment: its key isn't that of the run before."""
    stamped(tmp_path)
    with WebServer(passing(service.url)) as proxy:
        for _ in range(2):
            in_process("record", env=hub(proxy.url, GITHUB_RUN_ID="1", GITHUB_RUN_ATTEMPT="1"), cwd=tmp_path)

    assert len(keys(proxy)) == 2


def test_retry_after(service, tmp_path):
    """A hub that says when to come back isn't asked before."""
    stamped(tmp_path)
    times: list[float] = []
    to_hub = passing(service.url)
    answers = in_turn(Answer(503, headers={"Retry-After": "3"}), Answer(429), to_hub)

    def timed(request: Request) -> Answer:
        times.append(time.monotonic())
        return answers(request)

    with WebServer(timed) as proxy:
        done = in_process("record", env=hub(proxy.url), cwd=tmp_path)

    assert done.returncode == 0
    assert times[1] - times[0] >= 3
    assert 0.9 <= times[2] - times[1] < 3


def test_retries_end(tmp_path):
    """After so many retries the last trouble is told, with 5."""
    stamped(tmp_path)
    with WebServer(in_turn(UNAVAILABLE)) as server:
        done = in_process("record", "--retries", "1", env=hub(server.url), cwd=tmp_path)

    assert done.returncode == 5
    assert len(server.requests) == 2
    assert done.stderr.splitlines()[-1] == f"Error: {server.url} answers 503: Redis can't be had"


# Secrets


def test_secrets_are_not_shown(service, tmp_path):
    """The token, and the name and password of a URL, stand in no output and in no process list."""
    stamped(tmp_path)
    lines: list[str] = []
    to_hub = passing(service.url)

    def look(request: Request) -> Answer:
        lines.extend(processes_that_show(TOKEN))
        return to_hub(request)

    with WebServer(in_turn(UNAVAILABLE, look)) as proxy:
        url = proxy.url.replace("http://", "http://deployer:p4ssword@")
        done = vectr0("record", env=hub(url), cwd=tmp_path)
        refused = vectr0("record", env=hub(url, token="wrong-s3cret"), cwd=tmp_path)
    away = vectr0("record", "--retries", "0", env=hub(url), cwd=tmp_path)
    output = "".join(one.stdout + one.stderr for one in (done, refused, away))

    assert [done.returncode, refused.returncode, away.returncode] == [0, 3, 5]
    assert lines == []
    assert output.count(f"{proxy.url} answers") == 2
    assert not [secret for secret in (TOKEN, "s3cret", "p4ssword", "deployer") if secret in output]
    assert proxy.requests[0].headers["authorization"] == f"Bearer {TOKEN}"


# --verify


def version_json(**fields: object) -> Answer:
    return Answer.json(STAMP | fields)


NEW, OLD = version_json(), version_json(version="1.3.0", gitCommit="0ld0ld0", buildNumber=127)


def test_verify(service, tmp_path):
    """It is recorded when the new version was served three times in a row, through all caches, and not before."""
    stamped(tmp_path)
    seen = []
    answers = in_turn(OLD, OLD, NEW, OLD, NEW, NEW, NEW)

    def served(request: Request) -> Answer:
        seen.append(len(history(service)))
        return answers(request)

    with WebServer(served) as app:
        url = f"{app.url.replace('//', '//u:s3cret@')}/version.json?a=b"
        done = vectr0("record", "--verify", url, "--verify-timeout", "15", env=hub(service.url), cwd=tmp_path)

    assert done.returncode == 0
    assert seen == [0] * 7
    assert len(history(service)) == 1
    assert len({request.path for request in app.requests}) == 7
    assert all(request.path.startswith("/version.json?a=b&") for request in app.requests)
    assert all(request.headers["cache-control"] == "no-cache" for request in app.requests)
    served_url = f"{app.url}/version.json?a=b"
    assert done.stderr.splitlines() == [
        f"{served_url} serves 1.3.0 (0ld0ld0, build 127); waiting for 1.4.0 (3f2c1ab, build 128)",
        f"{served_url} serves 1.4.0 (3f2c1ab, build 128) (1 of 3)",
        f"{served_url} serves 1.3.0 (0ld0ld0, build 127); waiting for 1.4.0 (3f2c1ab, build 128)",
        f"{served_url} serves 1.4.0 (3f2c1ab, build 128) (1 of 3)",
        f"{served_url} serves 1.4.0 (3f2c1ab, build 128) (2 of 3)",
        f"{served_url} serves 1.4.0 (3f2c1ab, build 128) (3 of 3)",
    ]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (OLD, "1.3.0 (0ld0ld0, build 127)"),
        (version_json(buildTime=1), "1.4.0 (3f2c1ab, build 128)"),
        (Answer(200, b"<!doctype html>", {"Content-Type": "text/html"}), "no version.json, but text/html"),
        (Answer.json([]), "no version.json, but application/json"),
        (Answer(200, b"{\0}\0", {"Content-Type": "application/json"}), "no version.json, but application/json"),
        (Answer(404), "404 Not Found"),
        (Answer(0), "nothing (Server disconnected without sending a response.)"),
        (Answer(302, headers={"Location": "/version.json"}), "nothing (too many redirections)"),
        (
            Answer(200, b"no gzip", {"Content-Encoding": "gzip"}),
            "nothing (Error -3 while decompressing data: incorrect header check)",
        ),
    ],
    ids=[
        "the old version",
        "another build of it",
        "HTML",
        "a list",
        "UTF-16",
        "nothing there",
        "no answer",
        "a loop",
        "no gzip",
    ],
)
def test_never_served(answer, told, service, tmp_path):
    """What isn't served within the time isn't recorded, with 4, which says what is served."""
    stamped(tmp_path)
    with WebServer(in_turn(answer)) as app:
        options = ("--verify", f"{app.url}/version.json", "--verify-timeout", "3")
        done = in_process("record", *options, env=hub(service.url), cwd=tmp_path)

    assert done.returncode == 4
    assert f"{app.url}/version.json serves {told}" in done.stderr
    assert re.search(
        r"^Error: .*/version.json serves .+ after 3 s, not 1.4.0 \(3f2c1ab, build 128\)$", done.stderr, re.MULTILINE
    )
    assert history(service) == []


def test_html_and_then_the_version(service, tmp_path):
    """A server that gives its page for everything is waited for until it gives the version."""
    stamped(tmp_path)
    page = Answer(200, b"<!doctype html>", {"Content-Type": "text/html"})
    moved = Answer(302, headers={"Location": "/app/version.json"})
    with WebServer(in_turn(page, Answer(0), Answer(502), moved, NEW)) as app:
        options = ("--verify", f"{app.url}/version.json", "--verify-timeout", "5")
        done = in_process("record", *options, env=hub(service.url), cwd=tmp_path)

    assert done.returncode == 0
    assert len(history(service)) == 1


def test_verify_without_a_file(service, tmp_path):
    """Without a file nobody knows the time at which the served build was made, so that it isn't compared."""
    with WebServer(in_turn(NEW)) as app:
        options = (*SAYS_ENOUGH, "--commit", COMMIT, "--verify", f"{app.url}/version.json", "--verify-timeout", "2")
        done = in_process("record", *options, env=hub(service.url), cwd=tmp_path)

    assert done.returncode == 0


def test_verify_and_no_fail(service, tmp_path):
    """--no-fail makes a version that isn't served a warning; it isn't recorded."""
    stamped(tmp_path)
    with WebServer(in_turn(OLD)) as app:
        options = ("--verify", f"{app.url}/version.json", "--verify-timeout", "0.2", "--no-fail")
        done = in_process("record", *options, env=hub(service.url), cwd=tmp_path)

    assert done.returncode == 0
    assert "Warning: " in done.stderr
    assert history(service) == []


# GitHub


def step(folder: Path) -> dict[str, str]:
    """The variables of a step of GitHub Actions, with the files that it tells the workflow by."""
    return {
        "GITHUB_ACTIONS": "true",
        "GITHUB_OUTPUT": str(folder / "output"),
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
    }


def test_outputs_and_summary(service, tmp_path):
    """On GitHub the step has outputs and a summary, which are added to what is there."""
    stamped(tmp_path)
    (tmp_path / "output").write_text("other=1\n")

    done = vectr0("record", env=hub(service.url, **step(tmp_path)), cwd=tmp_path)
    vectr0("record", env=hub(service.url, **step(tmp_path)), cwd=tmp_path)
    deployed_at = latest(service)["deployedAt"]

    assert (tmp_path / "output").read_text().splitlines() == [
        "other=1",
        f"deployed-at={deployed_at}", "repeat=false", "rollback=false",
        f"deployed-at={deployed_at}", "repeat=true", "rollback=false",
    ]  # fmt: skip
    summary = (tmp_path / "summary.md").read_text()
    first, second = MarkdownIt().render(summary).splitlines()
    assert first == f"<p>{done.stdout.rstrip()}</p>"
    assert second.startswith("<p>Recorded before, nothing has changed: web/staging")


def test_outputs_that_cannot_be_written(service, tmp_path):
    """What was recorded stays so where GitHub can't be told."""
    stamped(tmp_path)
    variables = step(tmp_path) | {"GITHUB_OUTPUT": str(tmp_path)}

    done = in_process("record", env=hub(service.url, **variables), cwd=tmp_path)

    assert done.returncode == 0
    assert done.stderr.startswith("::warning::GitHub can't be told: ")


def test_annotations(service, tmp_path):
    """On GitHub an error is a workflow command, one line whatever it holds, and not on the standard output."""
    stamped(tmp_path, version="100%\n", buildNumber=-1)

    done = in_process("record", "--json", env=hub(service.url, **step(tmp_path)), cwd=tmp_path)
    forgiven = in_process("record", "--no-fail", env=hub(service.url, **step(tmp_path)), cwd=tmp_path)

    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith(f"::error::{service.url} answers 422: Unprocessable ")
    assert r'%0A  version: must be 1 to 128 printable characters, not "100%25\n"' in done.stderr
    assert done.stderr.count("\n") == 1
    assert forgiven.stderr == done.stderr.replace("::error::", "::warning::", 1)


# Whatever a server or a file says


ODD_RECORD = STAMP | {"version": HOSTILE[:128], "gitCommit": HOSTILE[:64], "gitTag": HOSTILE[:128],
                      "deployedAt": 1, "previous": None, "rollback": False}  # fmt: skip


@pytest.mark.parametrize("on_github", [True, False])
@pytest.mark.parametrize(
    "answer",
    [
        Answer.json({"title": HOSTILE, "detail": HOSTILE}, 422),
        Answer.json({"title": HOSTILE, "errors": [{"field": HOSTILE, "message": HOSTILE}] * 50}, 422),
        Answer.json({"detail": HOSTILE}, 503),
        Answer(301, headers={"Location": "http://a.example/\x9b##[error]"}),
        Answer(201, HOSTILE.encode(errors="replace")),
        Answer(201, b"[" * 100_000),
        Answer(201, bomb(), {"Content-Encoding": "gzip"}),
        Answer.json(ODD_RECORD, 201),
        Answer.json(ODD_RECORD | {"deployedAt": 2**53 - 1}, 200),
        Answer.json(ODD_RECORD | {"rollback": "false\nevil=1"}, 201),
        Answer.json(ODD_RECORD | {"deployedAt": "1\nevil=1"}, 201),
    ],
    ids=range(11),
)
def test_a_hostile_hub(answer, on_github, tmp_path):
    """Nothing that it answers is more than text: not on a terminal, and not to GitHub's runner, outputs and summary."""
    stamped(tmp_path)
    with WebServer(in_turn(answer)) as server:
        env = hub(server.url) | (step(tmp_path) if on_github else {})
        done = in_process("record", "--retries", "0", env=env, cwd=tmp_path)
        as_json = in_process("record", "--retries", "0", "--json", env=env, cwd=tmp_path)
    output, summary = (
        path.read_text() if path.exists() else "" for path in (tmp_path / "output", tmp_path / "summary.md")
    )

    assert done.returncode in (0, 3, 5)
    for printed in (done.stdout, done.stderr, as_json.stdout, as_json.stderr):
        assert is_harmless(re.sub(r"\A::error::", "", printed)), printed
        assert printed.count("\n") <= (1 if on_github else 21)
    if done.returncode == 0:
        assert json.loads(as_json.stdout).items() >= {"version": HOSTILE[:128], "gitTag": HOSTILE[:128]}.items()
    assert all(
        re.fullmatch(r"deployed-at=\d+|repeat=(true|false)|rollback=(true|false)", line)
        for line in output.split("\n")[:-1]
    )
    assert "<img" not in MarkdownIt().render(summary)
    assert "<code>" not in MarkdownIt().render(summary)
    assert MarkdownIt().render(summary).count("\n") in (0, 2)


def test_a_hostile_application(service, tmp_path):
    """What is served where the version.json should be is told as text."""
    stamped(tmp_path)
    answers = in_turn(
        Answer.json(STAMP | {"version": HOSTILE, "gitCommit": HOSTILE, "buildNumber": HOSTILE}),
        Answer(200, b"<html>", {"Content-Type": "text/\x9bm ##[error]"}),
        Answer(200, b"[" * 100_000),
        Answer(200, bomb(), {"Content-Encoding": "gzip"}),
        version_json(),
    )
    with WebServer(answers) as app:
        options = ("--verify", f"{app.url}/version.json", "--verify-timeout", "10")
        done = in_process("record", *options, env=hub(service.url, GITHUB_ACTIONS="true"), cwd=tmp_path)

    assert done.returncode == 0
    assert len(app.requests) >= 7
    assert is_harmless(done.stderr), done.stderr


@pytest.mark.parametrize(
    "fields",
    [{"version": HOSTILE}, {HOSTILE: HOSTILE}, {"appName": HOSTILE}],
    ids=["a value", "a name", "the application"],
)
def test_a_hostile_file(fields, service, tmp_path):
    """A stamped file's words are text: where the hub refuses them, where they are shown, and where they are written."""
    file = stamped(tmp_path, **fields)
    before = json.loads(file.read_text())
    refused = in_process("record", "--environment", "production", env=hub(service.url), cwd=tmp_path)
    shown = in_process("record", "--dry-run", env=hub(service.url), cwd=tmp_path)

    assert (refused.returncode, shown.returncode) == (3, 0)
    assert is_harmless(refused.stderr), refused.stderr
    assert is_harmless(shown.stdout)
    assert json.loads(shown.stdout) == json.loads(file.read_text()) == before | {"environment": "production"}


def test_a_hostile_name_of_a_file(tmp_path):
    """A file's name is told as text, also where it isn't UTF-8."""
    name = os.fsdecode(b"\x1b[31m\n::error::a\xff.json")

    done = vectr0("record", "--from", name, env=environ(), cwd=tmp_path)

    assert done.returncode == 2
    assert done.stderr == "Error: \\x1b[31m\\n::error::a\\udcff.json can't be read: No such file or directory\n"


def test_a_file_nested_too_deeply(tmp_path):
    """A file that no reader takes is wrong use."""
    done = in_process("record", *broken(tmp_path, "[" * 100_000), env=environ(), cwd=tmp_path)

    assert done.returncode == 2
    assert done.stderr == "Error: broken.json can't be read: it is nested too deeply\n"


# Deadlines


def test_a_hub_that_drips(tmp_path):
    """--deadline is for all attempts together, whatever keeps them."""
    stamped(tmp_path)
    with dripping(b"") as server:
        began = time.monotonic()
        options = ("--timeout", "0.5", "--deadline", "3", "--retries", "1000")
        done = in_process("record", *options, env=hub(server.url), cwd=tmp_path)
        took = time.monotonic() - began

    assert done.returncode == 5
    assert took < 12
    assert done.stderr.splitlines()[-1].startswith(f"Error: {server.url} can't be reached (no whole answer within ")
    assert 1 < server.connections < 10


def test_a_hub_that_puts_off(tmp_path):
    """A hub that wants to be asked later than the deadline isn't waited for."""
    stamped(tmp_path)
    with WebServer(in_turn(Answer(503, headers={"Retry-After": "60"}))) as server:
        done = in_process("record", "--deadline", "20", env=hub(server.url), cwd=tmp_path)

    assert done.returncode == 5
    assert done.stderr == (f"Error: {server.url} answers 503: Service Unavailable; there is no time to try again\n")


def test_an_application_that_drips(service, tmp_path):
    """--verify-timeout is for all looks together."""
    stamped(tmp_path)
    with dripping() as server:
        began = time.monotonic()
        options = ("--verify", f"{server.url}/version.json", "--verify-timeout", "1")
        done = in_process("record", *options, env=hub(service.url), cwd=tmp_path)

    assert done.returncode == 4
    assert time.monotonic() - began < 10
    assert "serves nothing (no whole answer within 1 s) after 1 s" in done.stderr


# --oidc

IDENTITY = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJ4In0.c2lnbmF0dXJl"


@contextmanager
def github(answer: Answer) -> Iterator[tuple[WebServer, dict[str, str]]]:
    """GitHub's issuer of identities, and the variables by which a job with `id-token: write` finds it."""
    with WebServer(in_turn(answer)) as server:
        yield (
            server,
            {
                "GITHUB_ACTIONS": "true",
                "ACTIONS_ID_TOKEN_REQUEST_URL": f"{server.url}/token?api-version=2.0",
                "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-s3cret",
            },
        )


def test_an_identity_of_github(tmp_path):
    """--oidc asks GitHub for an identity that is made for the hub, and shows the hub nothing else."""
    stamped(tmp_path)
    record = STAMP | {"deployedAt": 1, "previous": None, "rollback": False}
    with (
        github(Answer.json({"value": IDENTITY})) as (issuer, variables),
        WebServer(in_turn(Answer.json(record, 201))) as server,
    ):
        url = server.url.replace("//", "//u:p4ssword@") + "/"
        done = vectr0("record", "--oidc", env=hub(url, **variables), cwd=tmp_path)
        named = vectr0("record", "--oidc", "--audience", "the hub", env=hub(url, token="", **variables), cwd=tmp_path)
    host = server.url.replace(":", "%3A").replace("/", "%2F")

    assert done.returncode == named.returncode == 0
    assert [request.path for request in issuer.requests] == [
        f"/token?api-version=2.0&audience={host}",
        "/token?api-version=2.0&audience=the+hub",
    ]
    assert {request.headers["authorization"] for request in issuer.requests} == {"Bearer request-s3cret"}
    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {IDENTITY}"}
    assert {request.path for request in server.requests} == {"/deployments"}
    assert not [secret for secret in (IDENTITY, "s3cret", "p4ssword") if secret in done.stdout + done.stderr]


@pytest.mark.parametrize(
    "answer",
    [Answer(403), Answer.json({}), Answer(200, b"<html>"), Answer.json({"value": "a\n::error::b"}),
     Answer.json({"value": 7}), Answer(200, b"[" * 100_000)],
)  # fmt: skip
def test_no_identity_of_github(answer, service, tmp_path):
    """Where GitHub gives no identity nothing is recorded, with 5."""
    stamped(tmp_path)
    with github(answer) as (_, variables):
        done = in_process("record", "--oidc", env=hub(service.url, **variables), cwd=tmp_path)

    assert done.returncode == 5
    assert done.stderr == f"::error::GitHub gives no identity: it answers {answer.status}\n"


def test_an_issuer_that_drips(service, tmp_path):
    """The deadline is for the identity, too."""
    stamped(tmp_path)
    with dripping() as server:
        variables = {"ACTIONS_ID_TOKEN_REQUEST_URL": server.url, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-s3cret"}
        began = time.monotonic()
        done = in_process("record", "--oidc", "--deadline", "1", env=hub(service.url, **variables), cwd=tmp_path)

    assert done.returncode == 5
    assert time.monotonic() - began < 10
    assert "GitHub's issuer of identities can't be reached (no whole answer within" in done.stderr


def test_an_identity_of_gitlab(tmp_path):
    """--oidc takes the identity that GitLab puts into VECTR0_ID_TOKEN."""
    stamped(tmp_path)
    record = STAMP | {"deployedAt": 1, "previous": None, "rollback": False}
    with WebServer(in_turn(Answer.json(record, 201))) as server:
        env = hub(server.url, GITLAB_CI="true", VECTR0_ID_TOKEN=IDENTITY)
        done = vectr0("record", "--oidc", env=env, cwd=tmp_path)

    assert done.returncode == 0
    assert server.requests[0].headers["authorization"] == f"Bearer {IDENTITY}"


@pytest.mark.parametrize(
    ("variables", "hint"),
    [
        ({"GITHUB_ACTIONS": "true"}, "the job needs `permissions: {id-token: write}`"),
        ({"GITLAB_CI": "true"}, "the job needs `id_tokens: {VECTR0_ID_TOKEN: {aud: https://hub.example}}`"),
        ({}, "set VECTR0_ID_TOKEN to one"),
    ],
    ids=["GitHub", "GitLab", "elsewhere"],
)
def test_hints(variables, hint, tmp_path):
    """Where a job has no identity it is told what it needs for one, at once."""
    stamped(tmp_path)
    options = ("--oidc", "--verify", "http://127.0.0.1:9/version.json")
    done = in_process("record", *options, env=hub("https://hub.example/", **variables), cwd=tmp_path)

    assert done.returncode == 2
    assert done.stderr.rstrip().endswith(f"--oidc finds no identity here: {hint}")


# Ctrl-C


def test_ctrl_c(tmp_path):
    """Ctrl-C ends it without a traceback, with 130."""
    stamped(tmp_path)
    with running("record", env=hub("http://127.0.0.1:9"), cwd=tmp_path) as process:
        assert process.stderr
        process.stderr.readline()
        process.send_signal(2)
        output, errors = process.communicate(timeout=10)

    assert process.returncode == 130
    assert output + errors == ""


def test_a_mistake_of_ours(tmp_path):
    """--no-fail holds whatever happens."""
    path = tmp_path / "sitecustomize.py"
    path.write_text("import httpx\nhttpx.Client.send = lambda *_, **__: {}[0]\n")
    stamped(tmp_path)
    env = hub("http://127.0.0.1:9") | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{environ()['PYTHONPATH']}"}

    done = vectr0("record", "--no-fail", env=env, cwd=tmp_path)

    assert done.returncode == 0
    assert done.stderr == "Warning: KeyError: not recorded\n"


def test_every_ci_system_is_recorded():
    """The systems of the table of cases, each recorded above, are all that are supported."""
    names = " ".join(case["name"] for case in SYSTEMS)

    for system in ("GitHub", "GitLab", "Jenkins", "CircleCI", "Azure", "Bitbucket", "Buildkite", "Netlify", "Vercel",
                   "Pages", "Workers"):  # fmt: skip
        assert system in names
