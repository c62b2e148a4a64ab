"""Proxies and certificates that the machine's environment names: used where they can be, told of where they can't."""

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from service.outward import PROXY_RULE, is_direct
from tests.certificates import Authority
from tests.command_parts import hub, vectr0
from tests.identities import AUDIENCE
from tests.parts import Replica, free_port, post, wait_until

NOWHERE = "http://127.0.0.1:9"
UNUSABLE = [
    ({"ALL_PROXY": "socks5://user:secret@127.0.0.1:9"}, "ALL_PROXY is 'socks5://127.0.0.1:9'"),
    ({"all_proxy": "socks://127.0.0.1:9/"}, "all_proxy is 'socks://127.0.0.1:9/'"),
    ({"HTTP_PROXY": "http://[bad"}, "HTTP_PROXY is 'http://[bad'"),
    ({"http_proxy": "http://proxy:port"}, "http_proxy is 'http://proxy:port'"),
    ({"http_proxy": "http://:3128"}, "http_proxy is 'http://:3128'"),
]
CERTIFICATES = [
    ({"SSL_CERT_FILE": "/nonexistent.pem"}, "SSL_CERT_FILE is '/nonexistent.pem' (No such file or directory); it must"),
    ({"SSL_CERT_FILE": "/dev/null"}, "SSL_CERT_FILE is '/dev/null' (it has none); it must"),
    ({"SSL_CERT_FILE": "/"}, "SSL_CERT_FILE is '/' (Is a directory); it must"),
    ({"SSL_CERT_DIR": "/dev/null"}, "SSL_CERT_DIR is '/dev/null'; it must"),
]
HARMLESS = [
    {"NO_PROXY": "fe80::/10,10.0.0.0/8,127.0.0.0/8", "HTTP_PROXY": NOWHERE},
    {"NO_PROXY": "[::1],127.0.0.1", "HTTP_PROXY": NOWHERE},
    {"NO_PROXY": "[::1]:80,fd00::/8,::1,*", "ALL_PROXY": "socks5://127.0.0.1:9"},
    {"NO_PROXY": "fe80::/10"},
    {"all_proxy": "socks://127.0.0.1:9/", "no_proxy": "127.0.0.0/8,::1"},
    {"https_proxy": "socks://127.0.0.1:9/"},
    {"SSL_CERT_FILE": "/nonexistent.pem"},  # which nobody needs for http://
]


@pytest.mark.parametrize(
    ("url", "no_proxy", "direct"),
    [
        ("http://hub.example", "", False),
        ("http://hub.example", "*", True),
        ("http://hub.example", "hub.example", True),
        ("http://HUB.example", "Hub.Example", True),
        ("http://hub.example", "example", True),
        ("http://hub.example", ".example", True),
        ("http://hub.example", "*.example", True),
        ("http://hub.example", "ub.example", False),
        ("http://hub.example", "other, hub.example", True),
        ("http://hub.example", "hub.example:80", True),
        ("https://hub.example", "hub.example:80", False),
        ("https://hub.example:8443", "hub.example:8443", True),
        ("http://hub.example", "10.0.0.0/8", False),
        ("http://10.1.2.3", "10.0.0.0/8", True),
        ("http://11.1.2.3", "10.0.0.0/8", False),
        ("http://10.1.2.3", "10.1.2.3", True),
        ("http://10.1.2.3:99", "10.1.2.3:99", True),
        ("http://10.1.2.3", "2.3", False),
        ("http://10.1.2.3", "fe80::/10", False),
        ("http://[fe80::1]", "fe80::/10", True),
        ("http://[fd00::1]", "fe80::/10", False),
        ("http://[::1]", "::1", True),
        ("http://[::1]", "[::1]", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("http://[::1]:8000", "[::1]:8001", False),
        ("http://[::1]", "0:0:0:0:0:0:0:1", True),
        ("http://hub.example", "fe80::/10 hub.example", True),
        ("http://hub.example", "nonsense/99,[,:,::::", False),
    ],
)
def test_no_proxy(url, no_proxy, direct):
    """Names, those below them, addresses and networks of both kinds; what is none of these names nobody."""
    assert is_direct(httpx.URL(url), no_proxy) is direct


class Seen(list[str]):
    """What a proxy was asked for."""

    url = ""


@pytest.fixture
def proxy() -> Iterator[Seen]:
    """An HTTP proxy that answers everything itself."""
    seen = Seen()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"deployments": []}')

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", free_port()), Answer)
    seen.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield seen
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_command_uses_the_proxy(proxy, name, tmp_path):
    """A proxy is used, also where another variable is of no use, and isn't needed."""
    env = hub("http://hub.example", **{name: proxy.url, "https_proxy": "socks5://127.0.0.1:9"})
    done = vectr0("list", env=env, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert [seen.partition("?")[0] for seen in proxy] == ["http://hub.example/deployments"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("watch", "web/production"),
        ("record", "--app", "web", "--environment", "production", "--version", "1"),
    ],
    ids=["list", "watch", "record"],
)
@pytest.mark.parametrize(("variables", "message"), [*UNUSABLE, *CERTIFICATES])
def test_command_says_which_variable(arguments, variables, message, tmp_path):
    """What can't be used is told at once, in one line that names the variable and the rule."""
    scheme = "https" if any(name.startswith("SSL") for name in variables) else "http"
    done = vectr0(*arguments, env=hub(f"{scheme}://127.0.0.1:9", **variables), cwd=tmp_path)

    assert done.returncode == 2, done.stderr
    [line] = [line for line in done.stderr.splitlines() if message in line]
    assert line.startswith("Error: ")
    assert "secret" not in done.stderr
    assert scheme == "https" or PROXY_RULE in line


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    replica = Replica(tmp_path_factory.mktemp("hub"))
    try:
        yield replica.start()
    finally:
        replica.kill()


@pytest.mark.parametrize("variables", HARMLESS)
def test_command_goes_on(replica, variables, tmp_path):
    """What isn't needed does no harm."""
    done = vectr0("list", env=hub(replica.url, **variables), cwd=tmp_path)

    assert done.returncode == 0, done.stderr


def trusting(issuer: str, environ: Mapping[str, str], replica: Replica) -> Replica:
    replica.settings |= {
        "VECTR0_TRUST": json.dumps([{"issuer": issuer, "claims": {"sub": "x"}, "channels": ["web/*"]}]),
        "VECTR0_AUDIENCE": AUDIENCE,
        **environ,
    }
    return replica.start()


@pytest.mark.parametrize(("variables", "message"), [*UNUSABLE, *CERTIFICATES, *((one, None) for one in HARMLESS[:5])])
def test_only_issuers_fail(variables, message, tmp_path):
    """The hub starts and records; the log says at the start why the issuer's keys are unavailable."""
    is_about_tls = any(name.startswith("SSL") for name in variables)
    replica = Replica(tmp_path)
    try:
        trusting(f"{'https' if is_about_tls else 'http'}://127.0.0.1:9", variables, replica)
        if message:
            wait_until(lambda: message in replica.log, what="the line")
        answer = post(replica.url)
    finally:
        replica.kill()

    assert answer.status_code == 201
    assert "Traceback" not in replica.log
    assert "secret" not in replica.log
    if message:
        [line] = [line for line in replica.log.splitlines() if message in line]
        assert "are unavailable (" in line


def test_issuer_when_the_certificates_come(tmp_path):
    """A file that comes later is read then, and verifies the issuer."""
    file = tmp_path / "authorities.pem"
    authority = Authority(tmp_path)
    fetched = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listening.accept()
        with authority.server_context().wrap_socket(connection, server_side=True) as secured:
            secured.recv(4096)
            fetched.set()

    threading.Thread(target=serve, daemon=True).start()
    replica = Replica(tmp_path)
    try:
        trusting(f"https://127.0.0.1:{listening.getsockname()[1]}", {"SSL_CERT_FILE": str(file)}, replica)
        wait_until(lambda: f"SSL_CERT_FILE is '{file}'" in replica.log, what="the line")
        file.write_bytes(authority.certificate.read_bytes())
        is_fetched = fetched.wait(20)
    finally:
        replica.kill()
        listening.close()

    assert is_fetched
