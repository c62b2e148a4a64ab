import json
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Route, Router

from service import app
from service.listen import Listen
from service.paths import StripRootPath
from service.settings import SETTINGS, InvalidSettingsError, read
from tests.parts import Replica


def test_defaults():
    """Without settings the service runs on the embedded Redis with a token made for the run."""
    settings, warnings = read({}, descriptor_limit=20_000)

    assert settings.redis_url is None
    assert settings.listen == Listen("127.0.0.1", 8000)
    assert settings.max_streams == 20_000 - 256
    assert settings.keep_alive == 4200
    assert settings.printed_token
    assert len(settings.grants) == 1
    assert warnings == []


def test_a_token_of_its_own_each_run():
    """Two runs have two tokens."""
    assert read({}, 1024)[0].printed_token != read({}, 1024)[0].printed_token


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VECTR0_PREFIX", "a b"),
        ("VECTR0_ORIGINS", "app.example"),
        ("VECTR0_ORIGINS", "https://app.example/path"),
        ("VECTR0_MAX_STREAMS", "0"),
        ("VECTR0_MAX_STREAMS", "many"),
        ("VECTR0_ORIGINS", ","),
        ("VECTR0_KEEP_ALIVE", "0"),
        ("VECTR0_KEEP_ALIVE", "86401"),
        ("VECTR0_LISTEN", "8000"),
        ("VECTR0_LISTEN", ":"),
        ("VECTR0_LISTEN", "localhost:0"),
        ("VECTR0_LISTEN", "::1:8000"),
        ("VECTR0_LISTEN", "http://localhost:8000"),
        ("VECTR0_LISTEN", "unix:"),
        ("VECTR0_LISTEN", "unix:run/hub.sock"),
        ("VECTR0_LISTEN", "unix://run/hub.sock"),
        ("VECTR0_LISTEN", "unix:/" + "x" * 107),
        ("VECTR0_LISTEN", "localhost:80000"),
        ("VECTR0_WORKERS", "-1"),
        ("VECTR0_ROOT_PATH", "vectr0"),
        ("VECTR0_LOG_FORMAT", "xml"),
        ("VECTR0_TOKENS_FILE", "/does/not/exist"),
    ],
)
def test_message_names_variable_value_and_rule(name, value):
    """A setting that breaks its rule is refused with its name, its value and the rule."""
    with pytest.raises(InvalidSettingsError) as caught:
        read({name: value}, 1024)

    message = str(caught.value)
    assert message.startswith(f"{name} is '{value}'")
    assert f"it must be {SETTINGS[name].rule}" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VECTR0_REDIS_URL", "http://user:s3cret@redis"),
        ("VECTR0_REDIS_URL", "redis://user:s3cret@redis:six"),
        ("VECTR0_TOKENS", "s3cret with spaces"),
    ],
)
def test_message_keeps_secrets(name, value):
    """The value of a setting that holds secrets is not shown."""
    with pytest.raises(InvalidSettingsError) as caught:
        read({name: value}, 1024)

    assert name in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_everything_wrong_is_told_at_once():
    """Two wrong settings give two lines."""
    with pytest.raises(InvalidSettingsError) as caught:
        read({"VECTR0_WORKERS": "x", "VECTR0_LISTEN": "y"}, 1024)

    assert len(str(caught.value).splitlines()) == 2


def test_real_redis_needs_tokens():
    """With a real Redis and no token the service refuses to start."""
    with pytest.raises(InvalidSettingsError, match="VECTR0_TOKENS is not set"):
        read({"VECTR0_REDIS_URL": "redis://redis"}, 1024)


def test_embedded_redis_has_one_worker():
    """Several workers would each have an embedded Redis of their own."""
    with pytest.raises(InvalidSettingsError, match="VECTR0_WORKERS is '2'; it must be 1"):
        read({"VECTR0_WORKERS": "2"}, 1024)


def test_tokens_come_from_both_variables(tmp_path):
    """Entries are separated by commas or lines, in the variable and in the file."""
    (tmp_path / "tokens").write_text("one@web/*\n\ntwo,three\n")
    settings, _ = read({"VECTR0_TOKENS": "four , five", "VECTR0_TOKENS_FILE": str(tmp_path / "tokens")}, 1024)

    assert len(settings.grants) == 5
    assert settings.printed_token is None


def test_unknown_variable_is_a_warning_with_the_nearest_name():
    """A misspelt setting is told; the clients' variables are not."""
    environ = {
        "VECTR0_ORIGIN": "https://app.example",
        "VECTR0_URL": "https://hub.example",
        "VECTR0_TOKEN": "s3cret",
    }
    _, warnings = read(environ, 1024)

    assert warnings == ["VECTR0_ORIGIN is no setting of this service; did you mean VECTR0_ORIGINS?"]


@pytest.mark.parametrize("service", ["VECTR0", "VECTR0_HUB", "VECTR0_REDIS_MASTER"])
def test_what_kubernetes_injects(service):
    """What Kubernetes sets for a Service named vectr0, or vectr0-something, is passed over."""
    environ = {
        f"{service}_SERVICE_HOST": "10.0.0.1",
        f"{service}_SERVICE_PORT": "6379",
        f"{service}_SERVICE_PORT_TCP_REDIS": "6379",
        f"{service}_PORT": "tcp://10.0.0.1:6379",
        f"{service}_PORT_6379_TCP": "tcp://[fd00::1]:6379",
        f"{service}_PORT_6379_TCP_PROTO": "tcp",
        f"{service}_PORT_6379_TCP_PORT": "6379",
        f"{service}_PORT_6379_TCP_ADDR": "fd00::1",
    }

    assert read(environ, 1024)[1] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VECTR0_PORT", "8000"),
        ("VECTR0_LISTEN_PORT", "8000"),
        ("VECTR0_SERVICE_NAME", "vectr0"),
        ("VECTR0_REDIS_HOST", "redis"),
        ("VECTR0_REDIS_PORT", "6379"),
    ],
)
def test_what_only_looks_injected(name, value):
    """A variable that somebody took for a setting is told, though Kubernetes has one of such a name."""
    (warning,) = read({name: value}, 1024)[1]

    assert warning.startswith(f"{name} is no setting of this service; did you mean VECTR0_")


@pytest.mark.parametrize(
    ("environ", "listen", "url"),
    [
        ({"VECTR0_LISTEN": "0.0.0.0:8000"}, Listen("0.0.0.0", 8000), "http://127.0.0.1:8000"),
        ({"VECTR0_LISTEN": "[::]:8000"}, Listen("::", 8000), "http://[::1]:8000"),
        ({"VECTR0_LISTEN": "localhost:80"}, Listen("localhost", 80), "http://localhost:80"),
        ({"VECTR0_LISTEN": ":8000"}, Listen("", 8000), "http://127.0.0.1:8000"),
        ({"PORT": "8080"}, Listen("", 8080), "http://127.0.0.1:8080"),
        ({"PORT": "8080", "VECTR0_LISTEN": "localhost:80"}, Listen("localhost", 80), "http://localhost:80"),
        ({"PORT": "nonsense", "VECTR0_LISTEN": "localhost:80"}, Listen("localhost", 80), "http://localhost:80"),
        ({"PORT": " ", "VECTR0_LISTEN": ""}, Listen("127.0.0.1", 8000), "http://127.0.0.1:8000"),
        ({"VECTR0_LISTEN": "unix:/run/hub.sock"}, Listen("", 0, "/run/hub.sock"), "http://localhost"),
        ({"VECTR0_LISTEN": "unix:///run/hub.sock"}, Listen("", 0, "/run/hub.sock"), "http://localhost"),
    ],
)
def test_listen(environ, listen, url):
    """VECTR0_LISTEN wins over PORT; the address that is printed is one that this machine reaches."""
    settings, warnings = read(environ, 1024)

    assert settings.listen == listen
    assert settings.listen.url == url
    assert warnings == []


@pytest.mark.parametrize("port", ["0", "65536", "-1", "8000x", "tcp://10.0.0.1:8000", "٣", "1" * 5000])
def test_port_of_a_platform(port):
    """A PORT that is none is refused in one line."""
    with pytest.raises(InvalidSettingsError) as caught:
        read({"PORT": port}, 1024)

    assert str(caught.value) == f"PORT is {port!r}; it must be an integer from 1 to 65535"


@pytest.mark.parametrize(
    ("limit", "wanted", "streams"),
    [(20_000, None, 19_744), (20_000, "19744", 19_744), (20_000, "19745", 19_744), (300, "1000000", 44), (9, "5", 1),
     (5_000_000, None, 1_000_000)],
)  # fmt: skip
def test_streams_and_descriptors(limit, wanted, streams):
    """There are no more streams than descriptors for them, and their maximum; who wants more is told."""
    settings, warnings = read({"VECTR0_MAX_STREAMS": wanted} if wanted else {}, limit)

    assert settings.max_streams == streams
    is_told = wanted is not None and int(wanted) > streams
    assert [warning.partition(", of which")[0] for warning in warnings] == [
        f"VECTR0_MAX_STREAMS is '{wanted}', but this process may open {limit} files"
    ] * is_told


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "null",
        "https://app.example",
        "http://localhost:5173",
        "https://app.example:8443",
        "http://app.example:443",
        "https://xn--bcher-kva.example",
        "https://under_score.example",
        "https://app.example.",
        "http://192.0.2.1",
        "http://[2001:db8::1]:8080",
        "http://[::ffff:c000:201]",
        "chrome-extension://gighmmpiobklfepjocnamgkkbiglidom",
        "moz-extension://6b7ee0e9-2bd9-4f5b-9f4f-3f0f5e7a4f52",
        "capacitor://localhost",
        "file://",
    ],
)
def test_origins(origin):
    """What browsers, extensions and native shells send as their origin may be listed."""
    assert read({"VECTR0_ORIGINS": f"https://other.example , {origin}"}, 1024)[0].origins[1] == origin


@pytest.mark.parametrize(
    ("origin", "meant"),
    [
        ("https://App.example", "https://app.example"),
        ("HTTPS://app.example", "https://app.example"),
        ("https://app.example:443", "https://app.example"),
        ("http://app.example:80", "http://app.example"),
        ("https://app.example:", "https://app.example"),
        ("https://app.example:08443", "https://app.example:8443"),
        ("https://app.example/", "https://app.example"),
        ("https://app.example/path", "https://app.example"),
        ("https://app.example?x#y", "https://app.example"),
        ("https://user:pass@app.example", "https://app.example"),
        ("app.example", "https://app.example"),
        ("app.example:8443/path", "https://app.example:8443"),
        ("https://Bücher.example", "https://xn--bcher-kva.example"),
        ("https://straße.example", "https://xn--strae-oqa.example"),
        ("http://[2001:DB8:0::1]", "http://[2001:db8::1]"),
        ("https://App.example:443/x", "https://app.example"),
    ],
)
def test_origin_that_no_browser_sends(origin, meant):
    """What no browser ever sends is refused with what is probably meant; it would shut its page out for good."""
    with pytest.raises(InvalidSettingsError) as caught:
        read({"VECTR0_ORIGINS": f"https://other.example,{origin}"}, 1024)

    assert f"(no browser sends {origin}; did you mean {meant}?); it must be * for every page" in str(caught.value)
    assert read({"VECTR0_ORIGINS": meant}, 1024)[0].origins == (meant,)


@pytest.mark.parametrize(
    "origin",
    [
        "https://*.example.com", "https://app.example:*", "*.example.com", "https://", "https://app..example",
        "https://app.example:65536", "https://app.example:0", "https://192.0.2.256", "https://[::1", "https://a b.example",
        "https://a.example https://b.example", "https://app.example;https://b.example", "https://app.example\\x y",
        "capacitor://localhost/path", "capacitor://*", "https://" + "x" * 64, "://app.example", "https:///x", "https://.",
    ],
)  # fmt: skip
def test_no_origin(origin):
    """What is no origin is refused, and named."""
    with pytest.raises(InvalidSettingsError, match="VECTR0_ORIGINS is ") as caught:
        read({"VECTR0_ORIGINS": f"https://other.example,{origin}"}, 1024)

    assert f"; it must be {SETTINGS['VECTR0_ORIGINS'].rule}" in str(caught.value)


def test_wildcard_in_an_origin():
    """Who writes a wildcard is told what there is instead."""
    with pytest.raises(InvalidSettingsError, match=r"https://\*\.example\.com: a wildcard is no part of an origin"):
        read({"VECTR0_ORIGINS": "https://*.example.com"}, 1024)


def routes() -> list[Route]:
    """All routes of the application, for streams and for requests that end."""
    stripped = app.create(read({}, 1024)[0])
    assert isinstance(stripped, StripRootPath)
    router = stripped._app
    assert isinstance(router, Router)
    assert isinstance(router.default, Starlette)
    return [route for route in (*router.routes, *router.default.routes) if isinstance(route, Route)]


@pytest.mark.parametrize("first", sorted({route.path.split("/")[1] for route in routes()} - {""}))
@pytest.mark.parametrize("rest", ["", "/", "/hub"])
def test_root_path_that_is_a_route(first, rest):
    """A path prefix that begins as a route does is refused: what a proxy has left on couldn't be told apart."""
    with pytest.raises(InvalidSettingsError, match=f"VECTR0_ROOT_PATH is '/{first}{rest}' \\(/{first} is a route"):
        read({"VECTR0_ROOT_PATH": f"/{first}{rest}"}, 1024)


@pytest.mark.parametrize("root_path", ["/vectr0", "/hub/events", "/my/deployments/", "/eventsource"])
def test_root_path(root_path):
    """Any other prefix will do."""
    assert read({"VECTR0_ROOT_PATH": root_path}, 1024)[0].root_path == root_path.rstrip("/")


def test_tokens_from_a_file_with_a_byte_order_mark(tmp_path):
    """A byte order mark is no part of the first token."""
    (tmp_path / "tokens").write_bytes(b"\xef\xbb\xbfs3cret\n")
    (marked,) = read({"VECTR0_TOKENS_FILE": str(tmp_path / "tokens")}, 1024)[0].grants
    (plain,) = read({"VECTR0_TOKENS": "s3cret"}, 1024)[0].grants

    assert marked == plain


WEB = {"github": "octo/web", "owner_id": 7, "channels": ["web/*"]}
OTHER = {"claims": {"sub": "job"}, "issuer": "https://ci.example", "channels": ["web/*"]}


def trusting(*entries: object, **environ: str) -> dict[str, str]:
    return {"VECTR0_TRUST": json.dumps(entries), "VECTR0_AUDIENCE": "https://hub.example", **environ}


@pytest.mark.parametrize(
    "entry",
    [
        WEB,
        {**WEB, "github": 42, "workflow": "deploy.yml", "environment": "production", "branch": "main"},
        {
            **WEB,
            "workflow": "octo/shared/.github/workflows/deploy.yml@refs/tags/v*",
            "tag": "v*",
            "pull_requests": True,
        },
        {**WEB, "github": "octo/*", "issuer": "https://ci.example/_services/token"},
        {"gitlab": "octo/tools/web", "merge_requests": True, "channels": ["web/pr-*", "admin/production"]},
        {"gitlab": 42, "environment": "production", "tag": "v*", "channels": ["*/*"]},
        OTHER,
        {**OTHER, "issuer": "http://127.0.0.1:8001"},
        {**OTHER, "issuer": "http://localhost:8001/realm"},
        {**OTHER, "issuer": "http://[::1]:8001"},
    ],
)
def test_trust(entry):
    """Publishers alone are enough: no token is demanded on a real Redis, and none is made on the embedded one."""
    for environ in ({}, {"VECTR0_REDIS_URL": "redis://redis"}):
        settings, warnings = read(trusting(entry, **environ), 1024)

        assert len(settings.trusted) == 1
        assert settings.audience == "https://hub.example"
        assert settings.grants == ()
        assert settings.printed_token is None
        assert warnings == []


def without(entry: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != field}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([WEB, {**WEB, "branches": "main"}], "entry 2: branches: Extra inputs are not permitted"),
        ([{**WEB, "gitlab": 42}], "entry 1: gitlab: Extra inputs are not permitted"),
        ([{**WEB, "merge_requests": True}], "entry 1: merge_requests: Extra inputs are not permitted"),
        ([without(WEB, "owner_id")], "entry 1: owner_id: Field required"),
        ([{**WEB, "owner_id": "7"}], "entry 1: owner_id: Input should be a valid integer"),
        ([{**WEB, "owner_id": True}], "entry 1: owner_id: Input should be a valid integer"),
        ([{**WEB, "github": "web"}], "entry 1: github: must be its full name, such as octo/web, or its id"),
        ([{**WEB, "github": "42"}], "entry 1: github: must be its full name"),
        ([{**WEB, "github": "https://github.com/octo/web"}], "entry 1: github: must be its full name"),
        ([{**WEB, "github": None}], "entry 1: github: must be its full name"),
        ([{**WEB, "github": True}], "entry 1: github: must be its full name"),
        ([{**WEB, "workflow": ".github/workflows/deploy.yml"}], "entry 1: workflow: must be a file's name, or owner"),
        ([{**WEB, "workflow": "octo/shared/.github/workflows/deploy.yml"}], "entry 1: workflow: must be a file's"),
        ([{**WEB, "workflow": "deploy.yml@main"}], "entry 1: workflow: must be a file's name"),
        ([{**WEB, "workflow": ""}], "entry 1: workflow: "),
        ([{**WEB, "environment": ""}], "entry 1: environment: String should have at least 1 character"),
        ([{**WEB, "environment": ["production"]}], "entry 1: environment: Input should be a valid string"),
        ([{**WEB, "branch": "main", "tag": "v*"}], "entry 1: branch and tag exclude each other"),
        ([{**WEB, "pull_requests": "yes"}], "entry 1: pull_requests: Input should be a valid boolean"),
        ([without(WEB, "channels")], "entry 1: channels: Field required"),
        ([{**WEB, "channels": []}], "entry 1: channels: List should have at least 1 item"),
        ([{**WEB, "channels": "web/*"}], "entry 1: channels: Input should be a valid list"),
        ([{**WEB, "channels": ["web/*", "web"]}], "entry 1: channels: 1: must be app/environment, with * as a wild"),
        ([{**WEB, "channels": ["web/a/b"]}], "entry 1: channels: 0: must be app/environment"),
        ([{**WEB, "channels": ["web/pr?"]}], "entry 1: channels: 0: must be app/environment"),
        ([{**WEB, "channels": ["web/x@y/z"]}], "entry 1: channels: 0: must be app/environment"),
        ([{**WEB, "channels": [5]}], "entry 1: channels: 0: must be app/environment"),
        ([WEB, WEB, without(OTHER, "issuer")], "entry 3: issuer: Field required"),
        ([{**OTHER, "issuer": "http://ci.example"}], "entry 1: issuer: must be an https:// address"),
        ([{**OTHER, "issuer": "http://localhost.ci.example"}], "entry 1: issuer: must be an https:// address"),
        ([{**OTHER, "issuer": "http://127.0.0.1@ci.example"}], "entry 1: issuer: must be an https:// address"),
        ([{**OTHER, "issuer": "ci.example"}], "entry 1: issuer: must be an https:// address"),
        ([{**OTHER, "issuer": "https://"}], "entry 1: issuer: must be an https:// address"),
        ([{**OTHER, "issuer": "https://ci.example?x"}], "entry 1: issuer: must be an https:// address"),
        ([{**OTHER, "issuer": "https://user:secret@ci.example"}], "entry 1: issuer: must be an https:// address"),
        ([{**OTHER, "issuer": "https://ci.example\n"}], "entry 1: issuer: must be an https:// address"),
        ([{**OTHER, "issuer": "https://[::1"}], "entry 1: issuer: "),
        ([{**OTHER, "issuer": 5}], "entry 1: issuer: must be an https:// address"),
        ([{**WEB, "issuer": "http://ci.example"}], "entry 1: issuer: must be an https:// address"),
        ([{**OTHER, "claims": {}}], "entry 1: claims: Dictionary should have at least 1 item"),
        ([{**OTHER, "claims": {"sub": 5}}], "entry 1: claims: sub: Input should be a valid string"),
        ([{**OTHER, "claims": {"sub": ""}}], "entry 1: claims: sub: String should have at least 1 character"),
        ([WEB, {"channels": ["web/*"]}], "entry 2: has none of github, gitlab, claims"),
        (["octo/web"], "entry 1: has none of github, gitlab, claims"),
        ([], "no list with an entry"),
    ],
)
def test_trust_names_entry_field_and_rule(entries, message):
    """What is wrong with VECTR0_TRUST is said by entry and field, with the rule that it breaks."""
    with pytest.raises(InvalidSettingsError) as caught:
        read(trusting(*entries), 1024)

    assert str(caught.value).startswith("VECTR0_TRUST is ")
    assert f"({message}" in str(caught.value)
    assert f"it must be {SETTINGS['VECTR0_TRUST'].rule}" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("octo/web", "no JSON: "),
        ('[{"github": "octo/web",}]', "no JSON: "),
        ("{}", "no list with an entry"),
        ('"octo/web"', "no list with an entry"),
        ("null", "no list with an entry"),
    ],
)
def test_trust_is_a_json_list(text, message):
    """Anything else than a list with an entry is refused."""
    with pytest.raises(InvalidSettingsError) as caught:
        read({**trusting(WEB), "VECTR0_TRUST": text}, 1024)

    assert f"({message}" in str(caught.value)


@pytest.mark.parametrize("trust", [[WEB], [{}]])
def test_trust_needs_an_audience(trust):
    """Without VECTR0_AUDIENCE the service doesn't start, and this is said beside whatever else is wrong."""
    with pytest.raises(InvalidSettingsError, match="VECTR0_AUDIENCE is not set; with VECTR0_TRUST it must be"):
        read({**trusting(*trust), "VECTR0_AUDIENCE": " "}, 1024)


def test_audience_is_one_address():
    """A list of audiences is refused: it would be one that no identity has."""
    with pytest.raises(InvalidSettingsError, match=r"VECTR0_AUDIENCE is 'https://a\.example,https://b\.example'"):
        read({**trusting(WEB), "VECTR0_AUDIENCE": "https://a.example,https://b.example"}, 1024)


def test_audience_with_a_slash_at_its_end():
    """An identity is made for the address without one, and would be refused: what is meant is said at start."""
    with pytest.raises(
        InvalidSettingsError, match=r"VECTR0_AUDIENCE is 'https://hub\.example/' \(did you mean https:/"
    ):
        read({**trusting(WEB), "VECTR0_AUDIENCE": "https://hub.example/"}, 1024)


def test_tokens_beside_trust():
    """Both may be set; no token is made then either."""
    settings, _ = read(trusting(WEB, VECTR0_TOKENS="s3cret@admin/*"), 1024)

    assert (len(settings.trusted), len(settings.grants), settings.printed_token) == (1, 1, None)


@pytest.mark.parametrize("name", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_metrics_of_another_program(name, workers, redis_server, tmp_path):
    """A variable with which another program shares its metrics is inherited, and means nothing here."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for folder in (theirs, tmp_path / "missing"):
        replica = Replica(tmp_path, redis_url=redis_server.url, workers=workers)
        replica.settings[name] = str(folder)
        try:
            replica.start()
            streams = replica.metric("vectr0_streams")
            status = replica.terminate()
        finally:
            replica.kill()

        assert streams == 0.0
        assert status == 0
        assert "Traceback" not in replica.log
    assert list(theirs.iterdir()) == []
