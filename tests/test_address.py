"""VECTR0_REDIS_URL: what it may say, and how the rest is refused."""

import ssl
from pathlib import Path

import pytest

from service.address import OPTIONS, Address, InvalidAddressError
from service.settings import InvalidSettingsError, read
from tests.certificates import Authority

SECRET = "s3cret"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.mark.parametrize(
    ("url", "where", "database", "credentials"),
    [
        ("redis://", ("localhost", 6379), 0, (None, None)),
        ("redis://redis", ("redis", 6379), 0, (None, None)),
        ("redis://redis_1.internal:6380/", ("redis_1.internal", 6380), 0, (None, None)),
        ("redis://redis/1", ("redis", 6379), 1, (None, None)),
        ("redis://redis?db=2", ("redis", 6379), 2, (None, None)),
        ("redis://redis/2?db=2", ("redis", 6379), 2, (None, None)),
        ("redis://:p%40ss%2Fword@redis", ("redis", 6379), 0, (None, "p@ss/word")),
        ("redis://user:pass@redis", ("redis", 6379), 0, ("user", "pass")),
        ("redis://user@redis?password=p%25", ("redis", 6379), 0, ("user", "p%")),
        ("redis://[::1]:7000/3", ("::1", 7000), 3, (None, None)),
        ("rediss://10.0.0.1", ("10.0.0.1", 6379), 0, (None, None)),
    ],
)
def test_host_database_and_credentials(url, where, database, credentials):
    """A URL says where Redis is, which database, and who asks."""
    address = Address.parse(url)

    assert (address.host, address.port) == where
    assert address.database == database
    assert (address.username, address.password) == credentials


@pytest.mark.parametrize(
    ("url", "database", "credentials"),
    [
        ("unix:///run/redis%20one.sock", 0, (None, None)),
        ("unix://:pass@/run/redis%20one.sock?db=4", 4, (None, "pass")),
        ("unix:///run/redis%20one.sock?db=4&password=pass&username=user", 4, ("user", "pass")),
    ],
)
def test_socket(url, database, credentials):
    """A socket's URL has its path; database and password may stand behind it."""
    address = Address.parse(url)

    assert address.path == "/run/redis one.sock"
    assert address.database == database
    assert (address.username, address.password) == credentials


def test_tls_options(authority):
    """The files and the strictness of TLS can be chosen."""
    url = f"rediss://redis?ssl_ca_certs={authority.certificate}&ssl_check_hostname=false"
    own = f"{url}&ssl_certfile={authority.server_certificate}&ssl_keyfile={authority.server_key}"
    lenient = Address.parse(url).tls()
    none = Address.parse("rediss://redis?ssl_cert_reqs=none").tls()

    assert lenient is not None
    assert (lenient.verify_mode, lenient.check_hostname) == (ssl.CERT_REQUIRED, False)
    assert none is not None
    assert (none.verify_mode, none.check_hostname) == (ssl.CERT_NONE, False)
    assert Address.parse(own).tls() is not None
    assert Address.parse("redis://redis").tls() is None


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://redis", "scheme"),
        ("redis://redis:six", "port"),
        ("redis://redis:0", "port"),
        ("redis://redis:65536", "port"),
        ("redis://one:1,two:2", "port"),
        ("redis://one,two", "host"),
        ("redis://[::1", "host"),
        ("redis://redis/web", "database"),
        ("redis://redis/1/2", "database"),
        ("redis://redis/-1", "database"),
        ("redis://redis?db=abc", "'abc'"),
        ("redis://redis?db=", "'db' is empty"),
        ("redis://redis/1?db=2", "'db'"),
        ("redis://redis?db=1&db=1", "'db' twice"),
        ("redis://redis/%zz", "%"),
        ("redis://redis?db=%ff", "UTF-8"),
        ("redis://redis\x00", "control"),
        ("redis://re\ndis", "control"),
        ("redis://redis?decode_responses=true", "'decode_responses'"),
        ("redis://redis?protocol=9", "'protocol'"),
        ("redis://redis?socket_timeout=60", "'socket_timeout'"),
        ("redis://redis?health_check_interval=1", "'health_check_interval'"),
        ("redis://redis?max_connections=1", "'max_connections'"),
        ("redis://redis?encoding=utf-16", "'encoding'"),
        ("redis://redis?client_name=hub", "'client_name'"),
        ("redis://redis?DB=1", "'DB'"),
        ("redis://redis?ssl_ca_certs=/ca.pem", "'ssl_ca_certs', which takes rediss://"),
        ("rediss://redis?ssl_cert_reqs=CERT_NONE", "required, optional, none, not 'CERT_NONE'"),
        ("rediss://redis?ssl_check_hostname=maybe", "true, false, not 'maybe'"),
        ("rediss://redis?ssl_ca_certs=/does/not/exist", "'/does/not/exist'"),
        ("rediss://redis?ssl_ca_certs=/", "ssl_ca_certs"),
        ("rediss://redis?ssl_ca_path=/does/not/exist", "'/does/not/exist'"),
        ("rediss://redis?ssl_certfile=/does/not/exist", "ssl_certfile"),
        ("rediss://redis?ssl_keyfile=/does/not/exist", "ssl_certfile"),
        (f"rediss://redis?ssl_ca_certs={__file__}", "no certificates"),
        (f"rediss://redis?ssl_certfile={__file__}", "in PEM form"),
        ("unix://run/redis.sock", "unix:///run/redis.sock"),
        ("unix://", "unix:///run/redis.sock"),
        (f"unix:///{'x' * 107}", "107 bytes"),
        ("unix:///run/%00", "control"),
        ("unix:///run/redis.sock?db=one", "'one'"),
    ],
)
def test_what_can_not_be_used_is_refused(url, says):
    """One line names the variable and what is wrong, and holds nothing secret."""
    with_password = url.replace("://", f"://user:{SECRET}@", 1)
    for text in (url, with_password):
        with pytest.raises(InvalidSettingsError) as caught:
            read({"VECTR0_REDIS_URL": text, "VECTR0_TOKENS": "t"}, 1024)
        message = str(caught.value)

        assert message.startswith("VECTR0_REDIS_URL is (not shown)")
        assert says in message
        assert len(message.splitlines()) == 1
        assert SECRET not in message


@pytest.mark.parametrize("mark", [":", "/", "?", "#", "[", "]", "@", "%", "?x=", "/x?y=", "&db="])
@pytest.mark.parametrize("url", ["redis://:{}@redis:6379/0", "rediss://user:{}@redis", "unix://:{}@/run/redis.sock"])
def test_password_that_is_not_encoded_is_not_shown(url, mark):
    """A password with a mark that means something else in a URL is used as it is, or refused without a part of it."""
    password = f"abc1{mark}xyz2"
    try:
        shown = ""
        assert Address.parse(url.format(password)).password == password
    except InvalidAddressError as error:
        shown = str(error)

    assert "abc1" not in shown
    assert "xyz2" not in shown


def test_encrypted_key_is_refused(authority, tmp_path):
    """A key that needs a password is refused at once; nobody is there to type it."""
    encrypted = authority.encrypted_key(tmp_path / "encrypted.pem")

    with pytest.raises(InvalidAddressError, match="not encrypted"):
        Address.parse(f"rediss://redis?ssl_certfile={authority.server_certificate}&ssl_keyfile={encrypted}").tls()


def test_documentation_names_the_options():
    """The README names every option that a URL may have."""
    readme = (Path(__file__).parents[1] / "README.md").read_text()

    assert all(f"`{option}`" in readme for option in OPTIONS)
