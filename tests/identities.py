"""An issuer of identities (OpenID Connect) on this machine, with real keys, and the tokens that CI systems bring."""

import base64
import json
import threading
import time
import uuid
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.parts import free_port

AUDIENCE = "https://hub.example"
DISCOVERY = "/.well-known/openid-configuration"
KEYS = "/keys"

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey


@cache
def rsa_key(name: str, size: int = 2048) -> RSAPrivateKey:
    """A key of this name, made once."""
    return generate_rsa_key(65537, size)


@cache
def ec_key(name: str) -> EllipticCurvePrivateKey:
    return generate_ec_key(SECP256R1())


@cache
def ed_key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def algorithm_of(key: PrivateKey) -> str:
    if isinstance(key, RSAPrivateKey):
        return "RS256"
    return "ES256" if isinstance(key, EllipticCurvePrivateKey) else "EdDSA"


def published(key: PrivateKey, key_id: str | None) -> dict[str, Any]:
    """The public half as an issuer publishes it."""
    if isinstance(key, RSAPrivateKey):
        document: dict[str, Any] = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    elif isinstance(key, EllipticCurvePrivateKey):
        document = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        document = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    document |= {"use": "sig", "alg": algorithm_of(key)}
    return document if key_id is None else document | {"kid": key_id}


def encoded(part: object) -> str:
    """A part of a token, made by hand: of bytes, or of what becomes JSON."""
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(claims: dict[str, Any], key: PrivateKey, *, alg: str | None = None, **headers: Any) -> str:
    """Sign claims; those that are `...` are left out. PyJWT itself refuses to write some that must be refused."""
    payload = json.dumps({claim: value for claim, value in claims.items() if value is not ...})
    return jwt.api_jws.encode(payload.encode(), key, alg or algorithm_of(key), headers)


class LocalIssuer:
    """An issuer whose documents, keys, delay and failures a test sets."""

    def __init__(self, name: str = "issuer") -> None:
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.keys: dict[str, PrivateKey] = {"rsa": rsa_key(name)}
        self.more_keys: list[Any] = []
        """What else stands in the key set."""
        self.discovery: dict[str, Any] = {"issuer": self.url, "jwks_uri": self.url + KEYS}
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        """What is answered to a path in place of the truth."""
        self.fetches: list[str] = []
        self.answering = threading.Event()
        """Cleared while requests wait for their answer."""
        self.answering.set()
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> Self:
        self._server = _Server(("127.0.0.1", self.port), lambda *arguments: _Answer(self, *arguments))
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        self.answering.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        documents = {
            DISCOVERY: self.discovery,
            KEYS: {"keys": [*(published(key, key_id) for key_id, key in self.keys.items()), *self.more_keys]},
        }
        return self.answers.get(path) or (200, {}, json.dumps(documents[path]).encode())

    def token(self, claims: dict[str, Any], key_id: str | None = "rsa", **headers: Any) -> str:
        """Sign claims; those that are `...` are left out."""
        return sign(claims, self.keys[key_id or "rsa"], **({"kid": key_id} if key_id else {}), **headers)

    def standard(self, **claims: Any) -> dict[str, Any]:
        """The claims that every identity has."""
        now = int(time.time())
        times = {"iat": now, "nbf": now - 5, "exp": now + 300}
        return {"iss": self.url, "aud": AUDIENCE, "jti": str(uuid.uuid4()), **times, **claims}

    def github(self, **claims: Any) -> dict[str, Any]:
        """The claims of a job of GitHub Actions that deploys octo/web from its main branch."""
        return self.standard(
            **{
                "sub": "repo:octo/web:environment:production",
                "repository": "octo/web",
                "repository_id": "42",
                "repository_owner": "octo",
                "repository_owner_id": "7",
                "job_workflow_ref": "octo/web/.github/workflows/deploy.yml@refs/heads/main",
                "environment": "production",
                "ref": "refs/heads/main",
                "ref_type": "branch",
                "event_name": "push",
                "run_id": "1",
            }
            | claims
        )

    def gitlab(self, **claims: Any) -> dict[str, Any]:
        """The claims of a job of GitLab CI that deploys octo/tools/web from its main branch."""
        return self.standard(
            **{
                "sub": "project_path:octo/tools/web:ref_type:branch:ref:main",
                "project_path": "octo/tools/web",
                "project_id": "42",
                "namespace_id": "7",
                "environment": "production",
                "ref": "main",
                "ref_type": "branch",
                "ref_path": "refs/heads/main",
                "ref_protected": "true",
                "pipeline_source": "push",
            }
            | claims
        )


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that has gone is no news."""


class _Answer(BaseHTTPRequestHandler):
    def __init__(self, issuer: LocalIssuer, *arguments: Any) -> None:
        self._issuer = issuer
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self._issuer.fetches.append(self.path)
        self._issuer.answering.wait(30)
        status, headers, body = self._issuer.answer(self.path)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
