"""What holds the files around the code together: locks, containers, targets, and the order of the modules."""

import ast
import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from service.settings import read
from tests.parts import Replica, free_port, post, require, wait_until

TOP = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((TOP / "compose.yaml").read_text())
MODULES = {path.stem: ast.parse(path.read_text()) for path in sorted((TOP / "service").glob("*.py"))}
PIN = re.compile(r"^([a-z0-9-]+)==([\w.]+)(?: ; .+)? \\$", re.MULTILINE)


def imported(module: ast.Module) -> Iterator[str]:
    """The dotted names that a module imports, wherever in it."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(package: str) -> set[str]:
    """The modules of the service that import a package."""
    return {
        name for name, module in MODULES.items() if package in {dotted.split(".")[0] for dotted in imported(module)}
    }


def test_imports_go_one_way():
    """No module of the service imports one that imports it."""
    graph = {
        name: {dotted.split(".")[1] for dotted in imported(module) if dotted.startswith("service.")}
        for name, module in MODULES.items()
    }

    assert set().union(*graph.values()) <= set(MODULES)
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    ("package", "modules"),
    [
        ("redis", {"connections", "outage", "store", "subscription"}),
        ("fakeredis", {"connections"}),
        ("jwt", {"issuer", "publishers"}),
        ("uvicorn", {"protocol", "quiet", "server", "supervisor"}),
        ("httptools", {"parser"}),
    ],
)
def test_a_package_stays_at_its_station(package, modules):
    """Redis is imported only where Redis is, uvicorn only where the server is, PyJWT where identities are verified."""
    assert importers(package) == modules


CLIENTS = ("record", "watch", "listing", "token")


def below(modules: Iterable[str]) -> set[str]:
    """The modules that these import, they themselves, and what those import in turn."""
    found: set[str] = set()
    left = set(modules)
    while left:
        module = left.pop()
        found.add(module)
        names = {dotted.split(".")[1] for dotted in imported(MODULES[module]) if dotted.startswith("service.")}
        left |= names & set(MODULES) - found
    return found


def test_what_the_clients_need():
    """The commands for CI and people import the packages that `pip install vectr0` brings, and no others."""
    own = {re.split(r"[^A-Za-z0-9_-]", name)[0].replace("-", "_") for name in PYPROJECT["project"]["dependencies"]}
    packages = {dotted.split(".")[0] for module in below(CLIENTS) for dotted in imported(MODULES[module])}

    assert packages - sys.stdlib_module_names - {"service"} == own


def test_what_the_server_needs():
    """The server imports what the extra `server` brings, beside the packages of the clients."""
    extra = PYPROJECT["project"]["optional-dependencies"]["server"]
    packages = {dotted.split(".")[0] for module in below({"serve"}) for dotted in imported(MODULES[module])}
    names = {"pyjwt": "jwt"}
    brought = {re.split(r"[^A-Za-z0-9_-]", name)[0] for name in extra}
    own = {re.split(r"[^A-Za-z0-9_-]", name)[0] for name in PYPROJECT["project"]["dependencies"]}
    brought = {names.get(name, name).replace("-", "_") for name in brought | own}

    assert packages - sys.stdlib_module_names - {"service"} - brought <= {"pydantic_core"}  # pydantic's other half


def test_what_knows_no_http():
    """The record, the channel, the frame, and the way from Redis to the streams know nothing of Starlette."""
    knowing = importers("starlette")

    assert knowing
    assert not knowing & {"deployment", "frame", "channel", "store", "relay", "subscription", "stream"}


def test_environment_variables_are_read_where_the_process_starts():
    """None looks into it but the commands, two for prometheus_client's variable, and one for proxies and certificates."""
    readers = {
        name
        for name, module in MODULES.items()
        if any(isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") for node in ast.walk(module))
        or {"os.environ", "os.getenv"} & set(imported(module))
    }

    assert readers == {"__main__", "serve", "health", "metrics", "outward"}


def test_every_file_of_the_service_is_shipped():
    """What lies in service/ is a module of a named package, or matches package-data."""
    packages = PYPROJECT["tool"]["setuptools"]["packages"]
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["service"]
    files = [
        path.relative_to(TOP / "service")
        for path in (TOP / "service").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]

    for file in files:
        if file.suffix == ".py":
            assert ".".join(("service", *file.parent.parts)) in packages
        else:
            assert any(file.match(pattern) for pattern in patterns), f"{file} matches no package-data"


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_a_lock_file_has_pins_and_hashes_alone(name):
    """A lock file names no index, host, path or option of the machine on which it was made."""
    lines = [line for line in (TOP / name).read_text().splitlines() if not line.startswith("#")]

    assert lines
    for line in lines:
        assert PIN.match(line) or re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?", line), line


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_a_lock_file_has_every_dependency(name):
    """What pyproject.toml asks for is locked."""
    asked = PYPROJECT["project"]["dependencies"] + PYPROJECT["project"]["optional-dependencies"]["server"]
    if name == "requirements-dev.txt":
        asked += PYPROJECT["dependency-groups"]["dev"]
    names = {re.split(r"[^A-Za-z0-9_-]", requirement)[0].lower() for requirement in asked}
    locked = dict(PIN.findall((TOP / name).read_text()))

    assert names <= set(locked)


def test_the_lock_files_agree():
    """The tests run on the very packages that the service is delivered with."""
    delivered = dict(PIN.findall((TOP / "requirements.txt").read_text()))
    tested = dict(PIN.findall((TOP / "requirements-dev.txt").read_text()))

    assert delivered.items() <= tested.items()


def test_the_npm_lock_file_names_no_host():
    """The npm packages of the tests are locked by their hashes, wherever they come from."""
    text = (TOP / "tests/npm/package-lock.json").read_text()
    packages = {name: entry for name, entry in json.loads(text)["packages"].items() if name}

    assert "node_modules/eventsource" in packages
    assert all(entry["integrity"].startswith("sha512-") for entry in packages.values())
    assert "resolved" not in text
    assert "://" not in text


def test_make_has_the_targets_that_are_named():
    """Every `make …` of the README, .ci/run and the lock files is a target with a line in `make help`."""
    targets = set(re.findall(r"^([a-z]+):.* ## ", (TOP / "Makefile").read_text(), re.MULTILINE))
    named = set()
    for name in ("README.md", ".ci/run", "requirements.txt", "requirements-dev.txt"):
        named |= set(re.findall(r"(?:^|`)[# ]*make ([a-z]+)", (TOP / name).read_text(), re.MULTILINE))

    assert {"test", "lint", "lock"} <= named
    assert named <= targets
    assert targets == {"help", "run", "test", "lint", "format", "lock", "bench", "clean"}


def test_ci():
    """CI is .ci/run, on the oldest Python that is supported and on that of the image; actions have major versions."""
    workflow = yaml.safe_load((TOP / ".github/workflows/ci.yml").read_text())
    test = workflow["jobs"]["test"]
    oldest = PYPROJECT["project"]["requires-python"].removeprefix(">=")
    actions = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]

    assert os.access(TOP / ".ci/run", os.X_OK)
    assert test["strategy"]["matrix"]["python"] == [oldest, "3.13"]
    assert test["steps"][-1]["run"] == "bash .ci/run"
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in actions)


def dockerfile(instruction: str) -> list[str]:
    """What follows an instruction, each time that it is used."""
    text = (TOP / "Dockerfile").read_text().replace("\\\n", "")
    return re.findall(rf"^{instruction} (.+)$", text, re.MULTILINE)


def test_the_image():
    """The image is pinned to a minor Python, is no root, gets signals itself, and installs what is locked."""
    bases = {base.split()[0] for base in dockerfile("FROM")}
    [user] = dockerfile("USER")
    [command] = dockerfile("CMD")
    [health] = dockerfile("HEALTHCHECK")

    assert bases == {"python:3.13-slim"}
    assert all(int(number) > 0 for number in user.split(":"))
    assert json.loads(command) == ["vectr0"]
    assert json.loads(health.partition(" CMD ")[2]) == ["python", "-m", "service.health"]
    assert dockerfile("STOPSIGNAL") == ["SIGTERM"]
    assert any("--require-hashes" in run and "requirements.txt" in run for run in dockerfile("RUN"))


def test_the_image_listens_on_all_addresses():
    """It listens where platforms expect it: PORT, which they may set to another, and no VECTR0_LISTEN, which would win."""
    variables = dict(pair.split("=", 1) for line in dockerfile("ENV") for pair in line.split())
    settings, _ = read(variables, 1024)

    assert str(settings.listen) == ":8000"
    assert dockerfile("EXPOSE") == ["8000"]


def test_the_health_check_starts_fast():
    """It runs every ten seconds: it imports the standard library, and of the service only what says where it listens."""
    assert below({"health"}) == {"health", "listen"}
    packages = {dotted.split(".")[0] for module in ("health", "listen") for dotted in imported(MODULES[module])}
    assert packages - {"service"} <= sys.stdlib_module_names


def test_the_image_is_given_only_what_it_copies():
    """.dockerignore keeps everything away but the sources of the Dockerfile's COPY lines."""
    lines = (TOP / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copies = [line for line in dockerfile("COPY") if not line.startswith("--from")]
    copied = {source for line in copies for source in line.split()[:-1]}

    assert "*" in lines
    assert allowed == copied


def redis_command() -> list[str]:
    """The command of compose.yaml's Redis, as compose gives it to the container."""
    command: list[str] = COMPOSE["services"]["redis"]["command"]
    return [word.replace("$$", "$") for word in command]


def test_compose_keeps_what_was_stored():
    """Redis writes each deployment to the disk before it answers, and never evicts one."""
    redis = COMPOSE["services"]["redis"]
    command = redis_command()[-1]

    assert "--appendonly yes" in command
    assert "--appendfsync always" in command
    assert "--maxmemory-policy noeviction" in command
    assert redis["volumes"] == ["redis:/data"]
    assert "redis" in COMPOSE["volumes"]


def test_compose_gives_redis_a_password(tmp_path, start_replica):
    """Its Redis answers nobody without the password, which stands in no command line; with it the service runs there."""
    require("redis-server")
    port, password = free_port(), "s3cret"
    services = COMPOSE["services"]
    [(variable, value)] = services["redis"]["environment"].items()
    command = redis_command()
    command[-1] = command[-1].replace("redis-server -", f"redis-server - --port {port} --bind 127.0.0.1")
    process = subprocess.Popen(command, cwd=tmp_path, env=os.environ | {variable: password}, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: ping(port) == b"-NOAUTH Authentication required.\r\n", what="the Redis of compose.yaml")
        replica = start_replica(redis_url=f"redis://:{password}@127.0.0.1:{port}/0")
        posted = post(replica.url)
        processes = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        test = COMPOSE["services"]["redis"]["healthcheck"]["test"][1].replace("redis-cli", f"redis-cli -p {port}")
        check = subprocess.run(["sh", "-c", test], env=os.environ | {variable: password}, timeout=10, check=False)
    finally:
        process.terminate()
        process.wait()

    assert posted.status_code == 201
    assert check.returncode == 0
    assert processes.startswith(b"redis-server"), "signals go to Redis itself"
    assert password.encode() not in processes
    assert re.fullmatch(r"\$\{REDIS_PASSWORD:\?.+openssl rand.+\}", value)
    assert services["service"]["environment"]["VECTR0_REDIS_URL"] == "redis://:${REDIS_PASSWORD}@redis:6379/0"


def ping(port: int) -> bytes:
    """What Redis answers to one who says no password."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(100)
    return b""


def test_compose_keeps_redis_to_itself():
    """Only the service is on a network with Redis, and that network leads nowhere."""
    networks = {name: set(service["networks"]) for name, service in COMPOSE["services"].items()}

    assert networks == {"redis": {"store"}, "service": {"store", "front"}, "nginx": {"front"}}
    assert COMPOSE["networks"]["store"] == {"internal": True}
    assert not COMPOSE["networks"]["front"]


def test_compose_needs_a_token():
    """Without VECTR0_TOKENS compose stops, and says what to do."""
    token = COMPOSE["services"]["service"]["environment"]["VECTR0_TOKENS"]

    assert re.fullmatch(r"\$\{VECTR0_TOKENS:\?.+openssl rand.+\}", token)


def test_compose_scales_the_service():
    """The service has two replicas and nothing that there can be only one of."""
    service = COMPOSE["services"]["service"]

    assert service["deploy"]["replicas"] == 2
    assert not {"container_name", "ports", "hostname"} & set(service)


@pytest.mark.parametrize("name", ["redis", "service", "nginx"])
def test_compose_confines(name):
    """Every container is no root, can write only where it has to, and has no privileges."""
    service = COMPOSE["services"][name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert name == "service" or service["user"] == name  # the service's image has a user of its own


def test_compose_publishes_nginx():
    """Only nginx has a port on the host, and it runs with the nginx.conf that the tests run."""
    services = COMPOSE["services"]

    assert [name for name in services if "ports" in services[name]] == ["nginx"]
    assert services["nginx"]["ports"] == ["8080:8080"]
    assert services["nginx"]["volumes"] == ["./nginx.conf:/etc/nginx/nginx.conf:ro"]
    assert "listen 8080;" in (TOP / "nginx.conf").read_text()


def test_nginx_asks_a_tab_to_come_back_where_no_replica_answers(tmp_path, start_nginx):
    """A stream that can't be passed on is answered 200 with a `retry:`: at a 502 an EventSource gives up for good."""
    nginx = start_nginx(Replica(tmp_path))  # which isn't started

    stream = httpx.get(f"{nginx.url}/events/web/production")
    other = httpx.get(f"{nginx.url}/deployments")

    assert stream.status_code == 200
    assert stream.headers["content-type"] == "text/event-stream"
    assert stream.headers["access-control-allow-origin"] == "*"
    assert re.fullmatch(r"retry: \d{4,5}\n\n", stream.text)
    assert other.status_code == 502


PAGE, OTHER_PAGE, EVIL = "https://app.example", "https://b.example:8443", "https://evil.example"


@pytest.mark.parametrize(
    ("origins", "allowed"),
    [
        ("*", {PAGE: "*", EVIL: "*", "null": "*", None: "*"}),
        (f"{PAGE}, *", {PAGE: "*", EVIL: "*"}),
        (PAGE, {PAGE: PAGE, EVIL: None, "null": None, None: None, "": None, f"{PAGE}.evil.example": None}),
        (f"{PAGE},{OTHER_PAGE}", {PAGE: PAGE, OTHER_PAGE: OTHER_PAGE, EVIL: None, "https://app": None}),
        (f" {OTHER_PAGE} , {PAGE} ,", {PAGE: PAGE, OTHER_PAGE: OTHER_PAGE, "app.example": None, "*": None}),
        (f"null,{PAGE}", {PAGE: PAGE, "null": "null", EVIL: None, f"{PAGE},{EVIL}": None, f"x,{PAGE}": None}),
        (PAGE, {f"|{PAGE}": None, f"x,|{PAGE}": None, f"x,{EVIL},|{EVIL}": None, f"*,|{EVIL}": None, "|": None}),
        ("https://appxexample", {PAGE: None, "https://app.example": None}),
    ],
)
def test_nginx_has_the_origins_of_the_service(origins, allowed, tmp_path, start_nginx, start_replica):
    """What nginx answers in place of the service is for the pages that VECTR0_ORIGINS names, and for no others."""
    nginx = start_nginx(Replica(tmp_path), origins=origins)  # which isn't started
    service = start_replica(origins=origins)

    for origin, name in allowed.items():
        headers = {} if origin is None else {"Origin": origin}
        away = httpx.get(f"{nginx.url}/events/web/production", headers=headers)
        there = httpx.get(f"{service.url}/livez", headers=headers)

        assert (away.status_code, away.headers["vary"]) == (200, "Origin")
        assert away.headers.get("access-control-allow-origin") == name, origin
        assert there.headers.get("access-control-allow-origin") == name, origin


def test_nginx_limits_streams(start_replica, start_nginx):
    """A client that has its streams is told to come back, as over VECTR0_MAX_STREAMS; an error would be for good."""
    nginx = start_nginx(start_replica(), limits={"streams": 2})
    with httpx.Client() as client, ExitStack() as streams:
        opened = [streams.enter_context(client.stream("GET", f"{nginx.url}/events/web/production")) for _ in range(2)]
        texts = [stream.iter_text() for stream in opened]  # kept: one that is let go closes its stream
        firsts = [next(text) for text in texts]
        third = httpx.get(f"{nginx.url}/events/web/production")
        others = httpx.get(f"{nginx.url}/deployments")

    assert all(first.startswith("retry: ") for first in firsts)
    assert third.status_code == 200
    assert third.headers["content-type"] == "text/event-stream"
    assert re.fullmatch(r"retry: \d{4,5}\n\n", third.text)
    assert others.status_code == 200


def test_nginx_limits_requests(start_replica, start_nginx):
    """A client that asks too often is told so with a 429, and its streams to come back."""
    nginx = start_nginx(start_replica(), limits={"rate": 1, "burst": 3})
    with httpx.Client() as client:
        statuses = [client.get(f"{nginx.url}/livez").status_code for _ in range(12)]
        stream = client.get(f"{nginx.url}/events/web/production")

    assert statuses[:4] == [200] * 4
    assert 429 in statuses[4:]
    assert set(statuses) == {200, 429}
    assert (stream.status_code, stream.headers["content-type"]) == (200, "text/event-stream")
    assert re.fullmatch(r"retry: \d{4,5}\n\n", stream.text)
