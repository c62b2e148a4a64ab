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
