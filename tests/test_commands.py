"""`vectr0 watch`, `list`, `token`, and the group that they are in: as processes, against real services."""

import json
import os
import pty
import re
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from hashlib import sha256
from pathlib import Path
from queue import Queue
from subprocess import Popen
from threading import Thread
from typing import Any

import httpx
import pytest

from service.listing import shown_share
from tests.command_parts import (
    HOSTILE,
    STAMP,
    Answer,
    Request,
    WebServer,
    bomb,
    dripping,
    environ,
    forget,
    hub,
    in_process,
    in_turn,
    is_harmless,
    passing,
    running,
    stamped,
    vectr0,
)
from tests.parts import TOKEN, RedisServer, Replica, deployment, free_port, post, wait_until

ESCAPE = "\x1b["


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A redis-server for all tests of this file."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, redis: RedisServer) -> Iterator[Replica]:
    replica = Replica(tmp_path_factory.mktemp("commands"), redis_url=redis.url).start()
    yield replica
    replica.kill()


@pytest.fixture
def service(shared: Replica) -> Replica:
    """A service that knows nothing yet."""
    forget(shared)
    return shared


def recorded(service: Replica, app: str = "web", environment: str = "production", **fields: object) -> dict[str, Any]:
    answer = post(service.url, deployment(app, environment, **fields))
    assert answer.status_code == 201, answer.text
    record: dict[str, Any] = answer.json()
    return record


def lines(process: Popen[str]) -> Callable[..., str]:
    """Give what gives the next line of a process's output, and waits for it."""
    queue: Queue[str] = Queue()
    assert process.stdout

    def read(output: Iterable[str]) -> None:
        with suppress(ValueError):  # closed, for the test is over
            for line in output:
                queue.put(line)

    Thread(target=read, args=(process.stdout,), daemon=True).start()
    return lambda timeout=20.0: queue.get(timeout=timeout)


def interrupted(process: Popen[str]) -> int:
    process.send_signal(signal.SIGINT)
    return process.wait(10)


# The group


def test_help_says_what_there_is():
    """`vectr0 --help` names each command, and how to go on."""
    done = in_process("--help", env={}, cwd=Path.cwd())

    assert done.returncode == 0
    assert re.findall(r"^  (\w+)  ", done.stdout.partition("Commands:")[2], re.MULTILINE) == [
        "serve", "record", "watch", "list", "token",
    ]  # fmt: skip
    for hint in ("vectr0 serve --help", "VECTR0_URL", "VECTR0_TOKEN", "vectr0 COMMAND --help"):
        assert hint in done.stdout


@pytest.mark.parametrize(
    ("command", "hints"),
    [
        ("serve", ["vectr0 --listen 0.0.0.0:8000", "VECTR0_REDIS_URL", "VECTR0_TRUST"]),
        ("record", ["Exit codes: 0 recorded", "dist/version.json", "[env var: VECTR0_TOKEN]", "vectr0 record --oidc"]),
        ("watch", ["vectr0 watch web/production", "standard", "[env var: VECTR0_URL]"]),
        ("list", ["each channel's newest deployment", "[env var: VECTR0_URL]"]),
        ("token", ["VECTR0_TOKENS", "[default: */*]"]),
    ],
)
def test_the_help_of_each_command(command, hints):
    """Each command's help says what it is for, and has a line for each option."""
    done = in_process(command, "-h", env={}, cwd=Path.cwd())

    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: vectr0 {command} [OPTIONS]")
    for hint in hints:
        assert hint in " ".join(done.stdout.split())
    options = done.stdout.partition("Options:\n")[2].split("\n\n")[0]
    assert not re.search(r"^  --?\S+( [A-Z:/]+)?$(?!\n {8})", options, re.MULTILINE), "an option has no help"


def test_unknown_command():
    """A command that doesn't exist ends with 2 and a list of those that do."""
    done = in_process("deploy", env={}, cwd=Path.cwd())

    assert done.returncode == 2
    assert "there is no command 'deploy'; there are serve, record, watch, list, token" in done.stderr


def test_version():
    """`vectr0 --version` gives the version."""
    assert re.fullmatch(r"vectr0, version \d+\.\d+\.\d+\n", in_process("--version", env={}, cwd=Path.cwd()).stdout)


@pytest.mark.parametrize("arguments", [["--listen"], ["serve", "--listen"]], ids=["alone", "by name"])
def test_serve(arguments, tmp_path):
    """`vectr0 --listen …` serves, and so does `vectr0 serve --listen …`; Ctrl-C ends it quietly."""
    port = free_port()
    with running(*arguments, f"127.0.0.1:{port}", env=environ(), cwd=tmp_path) as process:
        line = lines(process)

        assert line() == f"VECTR0 listens on http://127.0.0.1:{port}\n"
        assert "embedded Redis" in line()

        replica = Replica(tmp_path)
        replica.process, replica.url = process, f"http://127.0.0.1:{port}"  # type: ignore[assignment]  # text mode
        wait_until(replica.is_ready, what="the service")
        assert interrupted(process) == 0
        assert process.stderr
        assert "Traceback" not in process.stderr.read()


BLOCKING = """
import sys

class Blocking:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocking())
"""


@pytest.fixture
def small(tmp_path: Path) -> dict[str, str]:
    """The variable that makes Python one in which the extra `server` is not installed."""
    names = {"fakeredis", "hiredis", "httptools", "jwt", "cryptography", "lupa", "orjson", "prometheus_client",
             "pydantic", "redis", "sse_starlette", "starlette", "uvicorn", "uvloop"}  # fmt: skip
    (tmp_path / "sitecustomize.py").write_text(BLOCKING.format(names=names))
    return {"PYTHONPATH": f"{tmp_path}{os.pathsep}{environ()['PYTHONPATH']}"}


def test_clients_do_without_the_packages_of_the_server(service, small, tmp_path):
    """Each client command runs where only the packages are that `pip install vectr0` brings."""
    stamped(tmp_path)
    env = hub(service.url) | small
    done = [vectr0(*words, env=env, cwd=tmp_path) for words in (["record"], ["list"], ["token"], ["--help"])]
    with running("watch", "web/staging", "--json", env=env, cwd=tmp_path) as process:
        assert json.loads(lines(process)()).items() >= STAMP.items()

    assert [one.returncode for one in done] == [0, 0, 0, 0], done


@pytest.mark.parametrize("arguments", [[], ["serve"], ["serve", "--help"]])
def test_serving_without_its_packages(arguments, small, tmp_path):
    """Where they are missing, serving says which package, and how to install them."""
    done = vectr0(*arguments, env=environ(**small), cwd=tmp_path)

    assert done.returncode == 1
    assert re.fullmatch(
        r"Error: the package \w+ is missing, which serving needs: install vectr0 with its extra `server`, "
        r"such as with pip install '\.\[server\]'\n",
        done.stderr,
    )


# watch


def test_watch(service, tmp_path):
    """The newest comes first, then each new one, a line each, without colours in a pipe."""
    recorded(service, version="1.0.0")
    recorded(service, version="1.1.0", gitTag="v1.1", buildNumber=0)
    with running("watch", "web/production", env=hub(service.url, TZ="UTC"), cwd=tmp_path) as process:
        line = lines(process)
        first = line()
        record = recorded(service, version="1.0.0")
        second = line()

        assert interrupted(process) == 130
        assert process.stderr
        assert process.stderr.read() == ""
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(record["deployedAt"] / 1000))
    assert re.fullmatch(r"20..-..-.. ..:..:..  web/production  v1\.1 \(3f2c1ab\)\n", first)
    assert second == f"{at}  web/production  v1.0.0 (3f2c1ab, build 1)  rollback\n"


def test_watch_after(service, tmp_path):
    """--after begins after a deployment that was seen, and --json gives the records as the hub sends them."""
    records = [recorded(service, version=f"1.{number}.0 \N{ROCKET}") for number in range(3)]
    options = ("--after", str(records[0]["deployedAt"]), "--json")
    with running("watch", "web/production", *options, env=hub(service.url), cwd=tmp_path) as process:
        line = lines(process)

        assert [line(), line()] == [
            json.dumps(record, separators=(",", ":"), ensure_ascii=False) + "\n" for record in records[1:]
        ]


def test_watch_through_a_restart(redis, tmp_path):
    """A service that ends and comes back is found again, and nothing that was recorded meanwhile is lost."""
    first = Replica(tmp_path, redis_url=redis.url, prefix="restart").start()
    other = Replica(tmp_path, redis_url=redis.url, prefix="restart").start()
    try:
        recorded(first, version="0")
        with running("watch", "web/production", "--json", env=hub(first.url), cwd=tmp_path) as process:
            line = lines(process)
            seen = [json.loads(line())["version"]]
            first.kill()
            for version in "123":
                recorded(other, version=version)
            first.start()
            seen += [json.loads(line())["version"] for _ in range(3)]
            recorded(other, version="4")
            seen.append(json.loads(line())["version"])

            assert seen == list("01234")
            assert process.poll() is None
            interrupted(process)
            assert process.stderr
            told = process.stderr.read().splitlines()
        assert told
        assert all(text.startswith(f"{first.url}") and text.endswith("; connecting again") for text in told)
        assert len(set(told)) == len(told)
    finally:
        first.kill()
        other.kill()


def frame(record: dict[str, Any]) -> bytes:
    return f"id: {record['deployedAt']}\nevent: deployment\ndata: {json.dumps(record)}\n\n".encode()


STREAM = {"Content-Type": "text/event-stream"}
RECORD = STAMP | {"deployedAt": 1, "previous": None, "rollback": False}


def test_watch_through_everything_else(tmp_path):
    """Whatever may pass is waited out, `retry:` is obeyed, and the last id is asked for; each trouble is told once."""
    times: list[float] = []
    answers = in_turn(
        Answer(503),
        Answer(200, b"retry: 2500\n\n" + frame(RECORD), STREAM),
        Answer(0),
        Answer(200, b"<html>", {"Content-Type": "text/html"}),
        Answer(200, b"retry: 100\n\nevent: deployment\ndata: {\n\n", STREAM),
        Answer(200, b"retry: 60000\n\n" + frame(RECORD | {"deployedAt": 2}), STREAM),
    )

    def timed(request: Request) -> Answer:
        times.append(time.monotonic())
        return answers(request)

    with WebServer(timed) as server:
        url = server.url.replace("//", "//u:s3cret@")
        with running("watch", "web/staging", "--json", env=hub(url), cwd=tmp_path) as process:
            line = lines(process)

            assert [json.loads(line())["deployedAt"] for _ in range(2)] == [1, 2]
            wait_until(lambda: len(server.requests) == 6)
            interrupted(process)
            assert process.stderr
            told = process.stderr.read()

    assert [request.headers.get("last-event-id") for request in server.requests] == [None, None, "1", "1", "1", "1"]
    assert times[2] - times[1] >= 2.5
    assert times[5] - times[4] < 2
    assert "s3cret" not in told
    assert [text.removeprefix(server.url).removesuffix("; connecting again") for text in told.splitlines()][:5] == [
        " answers 503: Service Unavailable",
        " has ended the stream",
        ": Server disconnected without sending a response.",
        ": Expected response header Content-Type to contain 'text/event-stream', got 'text/html'",
        " sends what is no deployment",
    ]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(302, headers={"Location": "/"}), "too many redirections"),
        (Answer(200, b"no gzip", STREAM | {"Content-Encoding": "gzip"}), "Error -3 while decompressing data"),
    ],
    ids=["a loop of redirections", "no gzip"],
)
def test_watch_what_cannot_be_read(answer, told, tmp_path):
    """An answer that nobody could read is waited out like any other."""
    with WebServer(in_turn(answer)) as server, running(
        "watch", "web/staging", env=hub(server.url), cwd=tmp_path
    ) as process:  # fmt: skip
        assert process.stderr
        assert process.stderr.readline().startswith(f"{server.url}: {told}")
        assert interrupted(process) == 130


def test_watch_exec(service, tmp_path):
    """--exec runs a shell command for each deployment, with the record on its standard input; a failing one is told."""
    records = [recorded(service, version=version) for version in ("1", "2 \N{ROCKET}")]
    script = f"cat >>{tmp_path}/got; test $(wc -l <{tmp_path}/got) != 1"
    options = ("--after", "1", "--exec", script)
    with running("watch", "web/production", *options, env=hub(service.url), cwd=tmp_path) as process:
        line = lines(process)
        line()
        line()
        records.append(recorded(service, version="3"))
        line()
        wait_until(lambda: (tmp_path / "got").read_text().count("\n") == 3)
        interrupted(process)
        assert process.stderr
        told = process.stderr.read()

    assert [json.loads(text) for text in (tmp_path / "got").read_text().splitlines()] == records
    assert told == f"{script!r} ended with 1\n"


@pytest.mark.parametrize("channel", ["web/pro duction", "-web/production", "web/a/b", "../web"])
def test_watch_a_malformed_channel(channel, service, tmp_path):
    """A channel that can't be one is refused, with 3, in the hub's words."""
    done = in_process("watch", "--", channel, env=hub(service.url), cwd=tmp_path)

    assert done.returncode == 3
    assert done.stderr.startswith(f"Error: {service.url} answers 404: ")


@pytest.mark.parametrize("channel", ["web", "web/", "/production"])
def test_watch_half_a_channel(channel, tmp_path):
    """A channel without one of its halves is wrong use."""
    done = in_process("watch", channel, env=hub("http://127.0.0.1:9"), cwd=tmp_path)

    assert done.returncode == 2
    assert f"'{channel}' must be an application and an environment, such as web/production" in done.stderr


@pytest.mark.parametrize("command", [["watch", "web/production"], ["list"]])
@pytest.mark.parametrize(
    ("url", "told"),
    [("", "the hub's address is missing: give --url, or set VECTR0_URL"), ("hub", "it must be an address such as")],
)
def test_an_address_that_is_none(command, url, told, tmp_path):
    """Without the address of a hub there is nothing to do, with 2."""
    done = in_process(*command, env=hub(url), cwd=tmp_path)

    assert done.returncode == 2
    assert told in done.stderr


def on_a_terminal(*arguments: str, env: dict[str, str], cwd: Path) -> str:
    """Run the command with a terminal as its output, until it has written a line; give that line."""
    ours, theirs = pty.openpty()
    try:
        with running(*arguments, env=env, cwd=cwd, stdout=theirs, stderr=theirs):
            text = b""
            while b"\n" not in text:
                assert select.select([ours], [], [], 20)[0], text
                text += os.read(ours, 65536)
    finally:
        os.close(ours)
        os.close(theirs)
    return text.decode().partition("\n")[0]


@pytest.mark.parametrize("command", [["watch", "web/production"], ["list"], ["token"]])
def test_colours(command, service, tmp_path):
    """There are colours on a terminal, but not with NO_COLOR, and not in a pipe (see above)."""
    recorded(service)
    coloured = on_a_terminal(*command, env=hub(service.url), cwd=tmp_path)
    plain = on_a_terminal(*command, env=hub(service.url, NO_COLOR="1"), cwd=tmp_path)

    assert ESCAPE in coloured
    assert ESCAPE not in plain


# list


def test_list(service, tmp_path):
    """Each channel has a row with its newest deployment, the latest first."""
    for version in ("1.0.0", "1.1.0", "1.0.0"):
        recorded(service, version=version)
    recorded(service, "marketing", "staging", gitTag="v7", buildNumber=0, gitCommit="3f2c1ab9d8e7f6a5b4c3d2")

    done = in_process("list", env=hub(service.url), cwd=tmp_path)

    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "CHANNEL            VERSION  COMMIT        BUILD  TABS  DEPLOYED",
        "marketing/staging  v7       3f2c1ab9d8e7         none  just now",
        "web/production     v1.0.0   3f2c1ab       1      none  just now (rollback)",
    ]


def test_list_shows_who_runs_it(service, tmp_path):
    """The share is of those that say what they run; it is rounded down, so that 100 % are all."""
    recorded(service, version="1", gitCommit="1111111")
    recorded(service, version="2", gitCommit="2222222")
    with ExitStack() as tabs:
        for build in ("1111111", "2222222", "2222222", ""):
            url = f"{service.url}/events/web/production?running={build}"
            tabs.enter_context(httpx.stream("GET", url))

        def listed() -> str:
            return in_process("list", env=hub(service.url), cwd=tmp_path).stdout.splitlines()[1]

        wait_until(lambda: "of 3" in listed(), what="the count of all three")
        assert listed() == "web/production  v2       2222222  1      66% of 3  just now"


@pytest.mark.parametrize(
    ("adoption", "shown"),
    [
        ({"streams": 0, "unknown": 0, "deployments": [], "stale": False}, "none"),
        ({"streams": 4, "unknown": 4, "deployments": [], "stale": False}, "? of 4"),
        ({"streams": 4, "unknown": 0, "deployments": [{"deployedAt": 5, "streams": 4}], "stale": True},
         "100% of 4 (old)"),
        ({"streams": 4, "unknown": 0, "deployments": [{"deployedAt": 6, "streams": 4}], "stale": False}, "0% of 4"),
        (None, ""),
    ],
)  # fmt: skip
def test_the_share_of_tabs(adoption, shown):
    """It says of whom, that nobody is there, that nobody says, and that the numbers are old."""
    assert shown_share({"deployedAt": 5}, adoption) == shown


def test_list_asks_once(service, tmp_path):
    """However many channels there are, one request tells what is deployed and who runs it."""
    for app in ("one", "two", "three"):
        recorded(service, app)
    with WebServer(passing(service.url)) as proxy:
        done = in_process("list", env=hub(proxy.url), cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert [request.path for request in proxy.requests] == ["/deployments?limit=1000&adoption=true"]
    assert [line.split()[4] for line in done.stdout.splitlines()] == ["TABS", "none", "none", "none"]


OLDER = Answer.json(
    {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": "adoption: is not a parameter",
     "errors": [{"field": "adoption", "message": "is not a parameter of this route; it has appName"}]}, 400,
)  # fmt: skip


def test_list_of_an_older_hub(tmp_path):
    """A hub that can't be asked for both at once is listed without the tabs, and that is said."""
    with WebServer(in_turn(OLDER, Answer.json({"deployments": [RECORD]}))) as server:
        done = in_process("list", "--app", "web", env=hub(server.url), cwd=tmp_path)

    assert done.returncode == 0
    assert [request.path for request in server.requests] == [
        "/deployments?appName=web&limit=1000&adoption=true", "/deployments?appName=web&limit=1000",
    ]  # fmt: skip
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == "This hub is older than this command, and gives no list of how many tabs run what.\n"


def test_list_of_a_hub_without_a_board(tmp_path, start_replica):
    """A hub that shows no more than one channel says so."""
    replica = start_replica(board="off")

    done = in_process("list", env=hub(replica.url), cwd=tmp_path)

    assert done.returncode == 3
    assert done.stderr == (
        f"Error: {replica.url} answers 404: VECTR0_BOARD is off: this hub shows no more than the one channel that is "
        "asked for\n"
    )


def test_list_as_json(service, tmp_path):
    """--json gives one record a line."""
    recorded(service)
    records = [recorded(service, "admin"), recorded(service, version="2 \N{ROCKET}")]

    done = vectr0("list", "--json", env=hub(service.url), cwd=tmp_path)

    assert done.stdout.splitlines() == [
        json.dumps(record, separators=(",", ":"), ensure_ascii=False) for record in reversed(records)
    ]


def test_list_what_matches(service, tmp_path):
    """--app, --environment and --tag leave out the others; what matches nothing is told."""
    recorded(service, gitTag="v1")
    recorded(service, "web", "staging", gitTag="v2")
    recorded(service, "admin", "staging", gitTag="v1")

    def listed(*options: str) -> list[str]:
        done = in_process("list", *options, env=hub(service.url), cwd=tmp_path)
        return [line.split()[0] for line in done.stdout.splitlines()[1:]] or [done.stderr]

    assert listed("--app", "web") == ["web/staging", "web/production"]
    assert listed("--environment", "staging") == ["admin/staging", "web/staging"]
    assert listed("--tag", "v1") == ["admin/staging", "web/production"]
    assert listed("--tag", "v1", "--app", "web") == ["web/production"]
    assert listed("--tag", "v3") == [f"No deployment at {service.url} matches.\n"]


def test_list_of_an_empty_hub(service, tmp_path):
    """An empty hub says how to record the first."""
    done = in_process("list", env=hub(service.url.replace("//", "//u:s3cret@")), cwd=tmp_path)

    assert done.returncode == 0
    assert done.stdout == ""
    assert done.stderr == f"Nothing is deployed yet at {service.url}; `vectr0 record` records the first.\n"


LOOP = Answer(302, headers={"Location": "/deployments"})


def test_list_of_no_hub(tmp_path):
    """A hub that isn't there ends with 5, and so does one that can't answer, or is none."""
    away = in_process("list", "--url", "http://u:s3cret@127.0.0.1:9", env=environ(), cwd=tmp_path)
    with WebServer(in_turn(Answer(503), Answer(200, b"<html>"), Answer.json({}), Answer(400), LOOP)) as server:
        others = [in_process("list", "--url", server.url, env=environ(), cwd=tmp_path) for _ in range(5)]

    assert [done.returncode for done in (away, *others)] == [5, 5, 5, 5, 3, 5]
    assert away.stderr == "Error: http://127.0.0.1:9 can't be reached ([Errno 111] Connection refused)\n"
    assert others[0].stderr == f"Error: {server.url} answers 503: Service Unavailable\n"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(59, "just now"), (60, "1 minute ago"), (7199, "1 hour ago"), (172_800, "2 days ago"), (-5, "just now")],
)
def test_how_long_ago(seconds, said, tmp_path):
    """How long ago is said roughly, in the largest unit."""
    record = RECORD | {"deployedAt": int((time.time() - seconds) * 1000)}
    with WebServer(in_turn(Answer.json({"deployments": [record], "adoption": []}))) as server:
        done = in_process("list", env=hub(server.url), cwd=tmp_path)

    assert done.stdout.splitlines()[1].endswith(f"  {said}")


def test_more_than_can_be_listed(tmp_path):
    """Where the hub has more than it gives at once, that is said."""
    with WebServer(in_turn(Answer.json({"deployments": [RECORD] * 1000, "adoption": []}))) as server:
        done = in_process("list", env=hub(server.url), cwd=tmp_path)

    assert "limit=1000" in server.requests[0].path
    assert done.stderr == "These are of the newest 1000 deployments; channels without one are left out.\n"


# Whatever a server says


def problem(text: str, status: int = 422) -> Answer:
    """A problem document that says the same in all its parts, in a field's error too."""
    parts = dict.fromkeys(("type", "title", "detail"), text)
    return Answer.json(parts | {"status": status, "errors": [{"field": text, "message": text}]}, status)


NAMED = HOSTILE[:128]
ODD_RECORD = RECORD | {"version": NAMED, "gitTag": NAMED, "gitCommit": NAMED[:64], "other": HOSTILE}
FAR = RECORD | {"deployedAt": 2**53 - 1, "buildTime": 2**53 - 1, "buildNumber": 2**53 - 1, "version": "9" * 128}
WRONG: list[dict[str, Any]] = [
    {"appName": HOSTILE}, {"version": None}, {"version": "v" * 129}, {"gitCommit": 7}, {"deployedAt": "now"},
    {"deployedAt": 1e300}, {"deployedAt": -1}, {"buildNumber": 2**64}, {"rollback": HOSTILE}, {"gitTag": []},
]  # fmt: skip
LISTS = [
    problem(HOSTILE),
    Answer.json({"detail": HOSTILE}, 404),
    Answer(302, headers={"Location": "/\x1b[31m##[set-output name=a;]b"}),
    Answer.json({"deployments": [ODD_RECORD], "adoption": [{}, [], None, {"appName": HOSTILE}]}),
    Answer.json({"deployments": [FAR], "adoption": HOSTILE}),
    *(Answer.json({"deployments": [RECORD | wrong]}) for wrong in WRONG),
    Answer.json({"deployments": [RECORD, None]}),
    Answer(200, b'{"deployments":' + b"[" * 100_000),
    Answer(200, b'{"deployments":[' + b"9" * 10_000 + b"]}"),
    Answer(200, b'{"deployments":[NaN]}'),
    Answer(200, b"\xff\xfe"),
    Answer(200, bomb(), {"Content-Encoding": "gzip"}),
]  # fmt: skip


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["a table", "JSON"])
@pytest.mark.parametrize("answer", LISTS, ids=range(len(LISTS)))
def test_list_of_a_hostile_hub(answer, options, tmp_path):
    """Whatever it answers, what is printed is text, and JSON stays JSON."""
    with WebServer(in_turn(answer)) as server:
        done = in_process("list", *options, env=hub(server.url, GITHUB_ACTIONS="true"), cwd=tmp_path)

    assert done.returncode in (0, 3, 5)
    assert is_harmless(done.stdout), done.stdout
    assert is_harmless(done.stderr), done.stderr
    assert done.stdout or done.returncode
    if options:
        assert all(json.loads(line) in (ODD_RECORD, FAR) for line in done.stdout.splitlines())


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["a line each", "JSON"])
def test_watch_of_a_hostile_hub(options, tmp_path):
    """What isn't a deployment is passed over, and all that is printed is text."""
    records = [ODD_RECORD | {"deployedAt": 1}, FAR | {"deployedAt": 2**53 - 2}, FAR]
    nested = b"retry: 1\n\nevent: deployment\ndata: " + b"[" * 50_000 + b"\n\n"
    answers = in_turn(
        problem(HOSTILE, 503),
        Answer(200, nested, STREAM),
        Answer(200, b"retry: 1\n\nevent: deployment\ndata: [NaN]\n\n", STREAM),
        Answer(200, b"retry: -7\n\n" + frame(RECORD | {"deployedAt": "1\r\nX: a"}), STREAM),
        Answer(200, b"retry: 1\n\nevent: deployment\ndata: " + b"x" * 2**21, STREAM),
        Answer(200, b"retry: 1\n\n" + bomb(), STREAM | {"Content-Encoding": "gzip"}),
        Answer(200, b"retry: 1\n\n", {"Content-Type": "text/event-stream; charset=bz2"}),
        Answer(200, b"retry: 1\n\n", {"Content-Type": "text/\x9b31m"}),
        Answer(200, b"".join(map(frame, records)), STREAM),
    )
    with WebServer(answers) as server:
        env = hub(server.url, GITHUB_ACTIONS="true")
        with running("watch", "web/staging", *options, env=env, cwd=tmp_path) as process:
            line = lines(process)
            printed = [line(timeout=60) for _ in records]
            interrupted(process)
            assert process.stderr
            told = process.stderr.read()

    assert is_harmless("".join(printed))
    assert is_harmless(told), told
    assert "Traceback" not in told
    if options:
        assert [json.loads(text) for text in printed] == records
    else:
        assert printed[2].startswith("9007199254740991 ms after 1970  web/staging  v999")


def test_a_hostile_hub_and_exec(tmp_path):
    """What a command is given is one line of JSON, whatever the record holds."""
    with WebServer(in_turn(Answer(200, frame(ODD_RECORD), STREAM))) as server:
        options = ("--exec", f"cat >{tmp_path}/got")
        with running("watch", "web/staging", *options, env=hub(server.url), cwd=tmp_path) as process:
            lines(process)()
            wait_until(lambda: (tmp_path / "got").exists() and (tmp_path / "got").read_bytes().endswith(b"\n"))

    [line] = (tmp_path / "got").read_text().splitlines()
    assert json.loads(line) == ODD_RECORD


def test_list_of_a_server_that_drips(tmp_path):
    """--timeout is for all of it: a byte now and then doesn't hold the command."""
    with dripping() as server:
        began = time.monotonic()
        done = in_process("list", "--timeout", "0.5", env=hub(server.url), cwd=tmp_path)

    assert done.returncode == 5
    assert done.stderr == f"Error: {server.url} can't be reached (no whole answer within 0.5 s)\n"
    assert time.monotonic() - began < 10


def test_arguments_are_text_when_they_are_quoted(tmp_path):
    """What was typed, or came from a variable, is quoted as text, too."""
    done = in_process("record", "--build-number", HOSTILE.replace("\x00", ""), env=environ(), cwd=tmp_path)

    assert done.returncode == 2
    assert "is not a valid integer" in done.stderr
    assert is_harmless(done.stderr)


# token


def test_token(tmp_path, start_replica):
    """The token records with a service that was started with the entry, and only what its scope says."""
    text = vectr0("token", "--scope", "web/*", env=environ(), cwd=tmp_path)
    printed = dict(line.split("=", 1) for line in text.stdout.splitlines())
    made = json.loads(vectr0("token", "--json", env=environ(), cwd=tmp_path).stdout)
    replica = start_replica(tokens=f"{printed['VECTR0_TOKENS']},{made['entry']}")

    assert post(replica.url, deployment("web"), token=printed["VECTR0_TOKEN"]).status_code == 201
    assert post(replica.url, deployment("admin"), token=printed["VECTR0_TOKEN"]).status_code == 403
    assert post(replica.url, deployment("admin"), token=made["token"]).status_code == 201
    assert post(replica.url, deployment("web"), token=TOKEN).status_code == 401
    assert printed["VECTR0_TOKENS"] == f"sha256:{sha256(printed['VECTR0_TOKEN'].encode()).hexdigest()}@web/*"
    assert made["entry"] == f"sha256:{sha256(made['token'].encode()).hexdigest()}"
    assert made["token"] != printed["VECTR0_TOKEN"]
    assert "a secret of CI" in text.stderr


@pytest.mark.parametrize("scope", ["web", "web/", "web/production/x", "web /production", "web,admin/*", ""])
def test_a_scope_that_is_none(scope, tmp_path):
    """A scope that the service would refuse is refused, with 2 and the rule."""
    done = in_process("token", f"--scope={scope}", env={}, cwd=tmp_path)

    assert done.returncode == 2
    assert done.stdout == ""
    assert f"'{scope}' must be APP/ENVIRONMENT, each of A-Z a-z 0-9 . _ - and *" in done.stderr
