import json
from typing import Any

import pytest

from service.settings import SETTINGS, InvalidSettingsError, Listen, read


def test_defaults():
    """Without settings the service runs on the embedded Redis with a token made for the run."""
    settings, warnings = read({}, descriptor_limit=20_000)

    assert settings.redis_url is None
    assert settings.listen == Listen("127.0.0.1", 8000)
    assert settings.max_streams == 20_000 - 256
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
        ("VECTR0_LISTEN", "8000"),
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
    """A misspelt setting is told; what Kubernetes injects and the clients' variables are not."""
    environ = {
        "VECTR0_ORIGIN": "https://app.example",
        "VECTR0_SERVICE_HOST": "10.0.0.1",
        "VECTR0_PORT": "tcp://10.0.0.1:8000",
        "VECTR0_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "VECTR0_URL": "https://hub.example",
        "VECTR0_TOKEN": "s3cret",
    }
    _, warnings = read(environ, 1024)

    assert warnings == ["VECTR0_ORIGIN is no setting of this service; did you mean VECTR0_ORIGINS?"]


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("0.0.0.0:8000", "http://127.0.0.1:8000"),
        ("[::]:8000", "http://[::1]:8000"),
        ("localhost:80", "http://localhost:80"),
    ],
)
def test_printed_address_can_be_opened(listen, url):
    """The address that is printed is one that this machine reaches."""
    settings, _ = read({"VECTR0_LISTEN": listen}, 1024)

    assert settings.listen.url == url


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


def test_tokens_beside_trust():
    """Both may be set; no token is made then either."""
    settings, _ = read(trusting(WEB, VECTR0_TOKENS="s3cret@admin/*"), 1024)

    assert (len(settings.trusted), len(settings.grants), settings.printed_token) == (1, 1, None)
