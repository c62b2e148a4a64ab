"""Trusted publishers: identities of an issuer on this machine, good and bad, brought to the real service."""

import asyncio
import base64
import hmac
import itertools
import json
import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.utils import der_to_raw_signature, raw_to_der_signature

from service.deployment import ChannelName
from service.issuer import COLD_REST, REST, Issuer
from service.publishers import LEEWAY, MAX_LIFETIME, MAX_TOKEN_LENGTH, Publishers, UntrustedError
from service.trust import parse_trust
from tests.identities import AUDIENCE, DISCOVERY, KEYS, LocalIssuer, ec_key, ed_key, encoded, rsa_key, sign
from tests.parts import TOKEN, Listener, RedisServer, Replica, deployment, eventually, post, wait_until

REFUSED = {
    "type": "about:blank",
    "title": "Forbidden",
    "status": 403,
    "detail": "this identity is not trusted for this channel",
}
PRODUCTION = {"github": "octo/web", "owner_id": 7, "workflow": "deploy.yml", "environment": "production",
              "branch": "main", "channels": ["web/production", "api/production"]}  # fmt: skip
STAGING = {"github": 42, "owner_id": 7, "channels": ["web/staging"]}

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Without certificates, which httpx would read again for each of some hundred requests."""

UNRESTRAINED = "from service import restraint\nrestraint.BURST = 10_000\nfrom service.__main__ import main\nmain()"
"""The service with every line in its log, however many identities are refused at once."""

_versions = (f"v{number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def github() -> Iterator[LocalIssuer]:
    """An issuer with GitHub's claims, and a key of every kind."""
    issuer = LocalIssuer("github")
    issuer.keys |= {"ec": ec_key("github"), "ed": ed_key("github")}
    issuer.more_keys = [{"kty": "oct", "kid": "oct", "k": encoded(b"s" * 32), "alg": "HS256"}]
    issuer.start()
    yield issuer
    issuer.stop()


@pytest.fixture(scope="module")
def gitlab() -> Iterator[LocalIssuer]:
    issuer = LocalIssuer("gitlab").start()
    yield issuer
    issuer.stop()


@pytest.fixture(scope="module")
def other() -> Iterator[LocalIssuer]:
    issuer = LocalIssuer("other").start()
    yield issuer
    issuer.stop()


def trust(*entries: tuple[LocalIssuer, dict[str, Any]]) -> dict[str, str]:
    """The settings that trust these."""
    return {"trust": json.dumps([{"issuer": issuer.url, **entry} for issuer, entry in entries]), "audience": AUDIENCE}


@pytest.fixture(scope="module")
def replica(
    tmp_path_factory: pytest.TempPathFactory, github: LocalIssuer, gitlab: LocalIssuer, other: LocalIssuer
) -> Iterator[Replica]:
    """A service that trusts some of each issuer, and a token beside."""
    jenkins = {"claims": {"sub": "job/web/*", "trigger": "release", "verified": "true"}, "channels": ["web/jenkins"]}
    tools = {"gitlab": "octo/tools/web", "environment": "production", "branch": "main", "channels": ["web/production"]}
    settings = trust((github, PRODUCTION), (github, STAGING), (gitlab, tools), (other, jenkins))
    replica = Replica(tmp_path_factory.mktemp("publishers"), **settings)
    replica.arguments = ("-c", UNRESTRAINED)
    try:
        yield replica.start()
    finally:
        replica.kill()


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    """An issuer of the test's own, which doesn't run yet."""
    issuer = LocalIssuer("github")
    yield issuer
    issuer.stop()


def record(
    replica: Replica,
    token: str,
    environment: str = "production",
    app: str = "web",
    key: str | None = None,
    **fields: Any,
) -> httpx.Response:
    """Bring a token, with a deployment that is new unless `version` says otherwise."""
    headers = {"Authorization": f"Bearer {token}", **({"Idempotency-Key": key} if key else {})}
    fields = {"version": next(_versions), **fields}
    return httpx.post(
        f"{replica.url}/deployments",
        json=deployment(app, environment, **fields),
        headers=headers,
        timeout=15,
        verify=NO_TLS,
    )


def assert_refused(response: httpx.Response) -> None:
    assert response.status_code == 403, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == REFUSED


def assert_refused_in_the_end(response: httpx.Response) -> None:
    """A key that isn't known may be new: until that can be told the answer is 503."""
    if response.status_code != 503:
        assert_refused(response)


# The happy ways.


@pytest.mark.parametrize(
    "sub", ["repo:octo/web:environment:production", "repo:octo@7/web@42:environment:production", "anything", ...]
)
def test_github(replica, github, sub):
    """A job of GitHub Actions records, whichever form its `sub` has."""
    response = record(replica, github.token(github.github(sub=sub)))

    assert response.status_code == 201, response.text
    assert response.json()["environment"] == "production"


@pytest.mark.parametrize("key_id", ["rsa", "ec", "ed"])
def test_every_kind_of_key(replica, github, key_id):
    """RSA, an elliptic curve and Ed25519."""
    assert record(replica, github.token(github.github(), key_id)).status_code == 201


def test_gitlab(replica, gitlab):
    """A job of GitLab CI records."""
    assert record(replica, gitlab.token(gitlab.gitlab())).status_code == 201


@pytest.mark.parametrize("verified", [True, "true", ["false", "true"]])
def test_any_other_issuer(replica, other, verified):
    """Whoever proves the claims that were set records; a boolean is written as JSON writes it, a list has it in it."""
    claims = other.standard(sub="job/web/release", trigger="release", verified=verified)

    assert record(replica, other.token(claims), "jenkins").status_code == 201


@pytest.mark.parametrize("audience", [AUDIENCE, [AUDIENCE], ["https://other.example", AUDIENCE]])
def test_audience_may_be_a_list(replica, github, audience):
    """A list of audiences has this service's in it (RFC 7519, section 4.1.3)."""
    assert record(replica, github.token(github.github(aud=audience))).status_code == 201


def test_tokens_beside(replica, github):
    """A token that is set records beside the identities, also where these may not; an unknown one is refused."""
    assert post(replica.url, deployment(version=next(_versions))).status_code == 201
    assert post(replica.url, deployment("shop", "staging"), token=TOKEN).status_code == 201
    assert post(replica.url, token="unknown").status_code == 401
    assert post(replica.url, token="e30.e30.e30").status_code == 401


def test_identity_where_nobody_is_trusted(start_replica, github):
    """Without VECTR0_TRUST an identity is an unknown token."""
    response = post(start_replica().url, token=github.token(github.github()))

    assert response.status_code == 401
    assert "token" in response.json()["detail"]


def test_nobody_but_publishers(start_replica, issuer):
    """With publishers alone, also on a real Redis, no token is needed, nor made."""
    issuer.start()
    replica = start_replica(tokens="", **trust((issuer, PRODUCTION)))

    assert "made for this run" not in replica.log
    assert record(replica, issuer.token(issuer.github())).status_code == 201
    assert post(replica.url, token=TOKEN).status_code == 401


def test_forgetting_takes_a_token(replica, github):
    """An identity is for recording only, and is told so."""
    channel = f"{replica.url}/deployments/web/production"
    record(replica, github.token(github.github()))
    response = httpx.delete(channel, headers={"Authorization": f"Bearer {github.token(github.github())}"})

    assert response.status_code == 401
    assert response.json()["detail"] == "an identity is good for recording; to forget a channel takes a token"
    assert httpx.get(f"{channel}/latest").status_code == 200


# Every claim wrong in turn.


def in_seconds(seconds: int) -> int:
    return int(time.time()) + seconds


GITHUB_WRONG = [
    ("iss", "https://token.actions.githubusercontent.com"),
    ("iss", None),
    ("iss", ["https://token.actions.githubusercontent.com"]),
    ("iss", ...),
    ("aud", "https://other.example"),
    ("aud", AUDIENCE + "/"),
    ("aud", "https://github.com/octo"),
    ("aud", ["https://other.example"]),
    ("aud", []),
    ("aud", {AUDIENCE: 1}),
    ("aud", ...),
    ("exp", lambda: in_seconds(-LEEWAY - 1)),
    ("exp", lambda: in_seconds(MAX_LIFETIME + 60)),
    ("exp", 10**400),
    ("exp", 1e308),
    ("exp", float("inf")),
    ("exp", "soon"),
    ("exp", True),
    ("exp", ...),
    ("nbf", lambda: in_seconds(LEEWAY + 30)),
    ("nbf", "now"),
    ("iat", lambda: in_seconds(LEEWAY + 30)),
    ("iat", "now"),
    ("iat", float("inf")),
    ("iat", float("nan")),
    ("nbf", float("inf")),
    ("exp", float("nan")),
    ("iat", ...),
    ("jti", 5),
    ("sub", {}),
    ("repository", "octo/web2"),
    ("repository", "evil/web"),
    ("repository", "octo/web\n"),
    ("repository", ...),
    ("repository_owner_id", "8"),
    ("repository_owner_id", "77"),
    ("repository_owner_id", ...),
    ("job_workflow_ref", "evil/web/.github/workflows/deploy.yml@refs/heads/main"),
    ("job_workflow_ref", "octo/shared/.github/workflows/deploy.yml@refs/heads/main"),
    ("job_workflow_ref", "octo/web/.github/workflows/test.yml@refs/heads/main"),
    ("job_workflow_ref", "octo/web/.github/workflows/deployXyml@refs/heads/main"),
    ("job_workflow_ref", "octo/web/.github/workflows/deploy.yml.yml@refs/heads/main"),
    ("job_workflow_ref", "evil/x/octo/web/.github/workflows/deploy.yml@refs/heads/main"),
    ("job_workflow_ref", ...),
    ("environment", "staging"),
    ("environment", "production-eu"),
    ("environment", ""),
    ("environment", ...),
    ("ref", "refs/heads/dev"),
    ("ref", "refs/heads/main/x"),
    ("ref", "refs/tags/main"),
    ("ref", "refs/pull/1/merge"),
    ("ref", "main"),
    ("ref", ...),
    ("event_name", "pull_request"),
    ("event_name", "pull_request_target"),
    ("event_name", "pull_request_review"),
]
GITLAB_WRONG = [
    ("project_path", "octo/tools/web2"),
    ("project_path", "evil/octo/tools/web"),
    ("project_path", ...),
    ("environment", "staging"),
    ("environment", ...),
    ("ref", "dev"),
    ("ref", "refs/heads/main"),
    ("ref_type", "tag"),
    ("ref_type", ...),
    ("pipeline_source", "merge_request_event"),
    ("pipeline_source", "external_pull_request_event"),
    ("pipeline_source", "parent_pipeline"),
]
OTHER_WRONG = [
    ("sub", "job/shop/release"),
    ("sub", "a job/web/release"),
    ("sub", ...),
    ("trigger", "merge"),
    ("trigger", None),
    ("trigger", {"release": "release"}),
    ("verified", False),
    ("verified", 1),
]


def assert_wrong(replica: Replica, token: str, claim: str, environment: str = "production") -> None:
    """The token is refused with the one answer, nothing is recorded, and the log names the claim."""
    latest = f"{replica.url}/deployments/web/{environment}"
    before, logged = httpx.get(latest, verify=NO_TLS).json(), len(replica.log)
    assert_refused(record(replica, token, environment))
    [line] = [line for line in replica.logs_on(logged).splitlines() if "refused" in line]

    assert re.search(rf"\b{claim}\b", line.partition("refused")[2]), line
    assert httpx.get(latest, verify=NO_TLS).json() == before


def resolved(value: object) -> object:
    return value() if callable(value) else value


@pytest.mark.parametrize(("claim", "value"), GITHUB_WRONG)
def test_github_with_a_wrong_claim(replica, github, claim, value):
    """Each claim is needed; the answer says that it isn't trusted, and only the log says why."""
    assert_wrong(replica, github.token(github.github(**{claim: resolved(value)})), claim)


@pytest.mark.parametrize(("claim", "value"), GITLAB_WRONG)
def test_gitlab_with_a_wrong_claim(replica, gitlab, claim, value):
    """Each claim is needed, and so is that it is no merge request's pipeline."""
    assert_wrong(replica, gitlab.token(gitlab.gitlab(**{claim: value})), claim)


@pytest.mark.parametrize(("claim", "value"), OTHER_WRONG)
def test_other_issuer_with_a_wrong_claim(replica, other, claim, value):
    """Each claim that was set is needed."""
    claims = other.standard(**{"sub": "job/web/release", "trigger": "release", "verified": True} | {claim: value})

    assert_wrong(replica, other.token(claims), claim, "jenkins")


def test_trusted_for_another_channel(replica, github):
    """Whoever may record to staging is refused for production in the words that anybody is, and the log says why."""
    claims = github.github(environment="staging", ref="refs/heads/dev", job_workflow_ref=...)

    assert record(replica, github.token(claims), "staging").status_code == 201
    assert_wrong(replica, github.token(claims), "job_workflow_ref")
    logged = len(replica.log)
    assert_refused(record(replica, github.token(github.github()), app="shop"))
    assert "for shop/production: no publisher of its issuer may record there" in replica.logs_on(logged)


def test_clocks_may_differ_a_little(replica, github):
    """An identity that is just over, or isn't yet, is taken: the issuer's clock is another one."""
    over = github.github(exp=in_seconds(-LEEWAY + 10))
    early = github.github(iat=in_seconds(LEEWAY - 10), nbf=in_seconds(LEEWAY - 10))

    assert record(replica, github.token(over)).status_code == 201
    assert record(replica, github.token(early)).status_code == 201


# Signatures.


def by_hand(header: dict[str, Any], claims: dict[str, Any], secret: bytes | None = None) -> str:
    """A token that PyJWT refuses to make: unsigned, or signed with a secret that is no secret."""
    signing_input = f"{encoded(header)}.{encoded(claims)}"
    return f"{signing_input}.{encoded(hmac.digest(secret, signing_input.encode(), sha256)) if secret else ''}"


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", None, 5, ["RS256"]])
def test_unsigned(replica, github, algorithm):
    """`alg: none`, however it is written, is refused (RFC 8725, section 3.2)."""
    assert_refused(record(replica, by_hand({"alg": algorithm, "kid": "rsa", "typ": "JWT"}, github.github())))


def test_without_its_signature(replica, github):
    """A good token whose signature was taken off is refused."""
    assert_refused(record(replica, github.token(github.github()).rpartition(".")[0] + "."))


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
@pytest.mark.parametrize("key_id", ["rsa", "ec"])
def test_public_key_as_a_secret(replica, github, key_id, encoding):
    """HS256 with the public key, which everybody has, is refused (RFC 8725, section 2.1)."""
    public = github.keys[key_id].public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)

    for secret in (public, public.strip()):
        assert_refused(record(replica, by_hand({"alg": "HS256", "kid": key_id}, github.github(), secret)))


def test_published_secret(replica, github):
    """A symmetric key that an issuer publishes by mistake is no key."""
    assert_refused_in_the_end(record(replica, by_hand({"alg": "HS256", "kid": "oct"}, github.github(), b"s" * 32)))


def test_algorithm_of_another_kind(replica, github):
    """A key is good for its own algorithm only."""
    assert_refused(record(replica, github.token(github.github(), "rsa", alg="PS256")))
    assert_refused(record(replica, github.token(github.github(), "rsa", alg="RS512")))


def test_another_key_under_a_known_id(replica, github):
    """A signature by a key that isn't the issuer's is refused, also where the token brings or names that key."""
    stranger = rsa_key("stranger")
    own = jwt.algorithms.RSAAlgorithm.to_jwk(stranger.public_key(), as_dict=True)
    fetched = len(github.fetches)

    assert_refused(record(replica, sign(github.github(), stranger, kid="rsa")))
    assert_refused(record(replica, sign(github.github(), stranger, kid="rsa", jwk=own)))
    assert_refused(record(replica, sign(github.github(), stranger, kid="rsa", jku=f"{github.url}/stranger")))
    assert len(github.fetches) == fetched


def test_key_of_another_issuer(replica, github, other):
    """An issuer that is trusted, too, can't speak for this one."""
    assert_refused(record(replica, sign(github.github(), other.keys["rsa"], kid="rsa")))
    assert_refused(record(replica, sign(github.github(iss=other.url), other.keys["rsa"], kid="rsa")))


def test_without_a_key_id(replica, github):
    """A token that doesn't name its key is refused: the issuer has several."""
    assert_refused(record(replica, github.token(github.github(), None)))


@pytest.mark.parametrize("key_id", [5, None, ["rsa"], {}])
def test_key_id_that_is_none(replica, github, key_id):
    """What can be no key id is refused at once."""
    assert_refused(record(replica, by_hand({"alg": "RS256", "kid": key_id}, github.github(), b"x")))


@pytest.mark.parametrize("key_id", ["", "RSA", "rsa\n", "../rsa", "x" * 1000])
def test_unknown_key_id(replica, github, key_id):
    """An id that the issuer doesn't have is refused, or asked to come again while that can't be told."""
    assert_refused_in_the_end(record(replica, by_hand({"alg": "RS256", "kid": key_id}, github.github(), b"x")))


@pytest.mark.parametrize(
    "header", [{"crit": ["exp"], "exp": 1}, {"crit": []}, {"b64": False}, {"b64": False, "crit": ["b64"]}, {"typ": 5}]
)
def test_header_that_is_not_understood(replica, github, header):
    """What a token says must be understood isn't passed over (RFC 7515, section 4.1.11)."""
    token = by_hand({"alg": "RS256", "kid": "rsa", **header}, github.github(), b"x")

    assert_refused(record(replica, token))


def test_changed_claims(replica, github):
    """A good signature is none of other claims."""
    head, _, signature = github.token(github.github(environment="staging")).split(".")

    assert_refused(record(replica, f"{head}.{encoded(github.github())}.{signature}"))


# What is no identity at all.


@pytest.mark.parametrize(
    "token",
    [
        "eyJ..",
        "eyJ.a.b",
        "eyJhbGciOiJSUzI1NiJ9..",
        "eyJhbGciOiJSUzI1NiJ9.e30.AAAA",
        "eyJhbGciOiJSUzI1NiJ9.W10.AAAA",
        "eyJhbGciOiJSUzI1NiJ9.bnVsbA.AAAA",
        f"eyJ{encoded(b'[' * 4000)}.e30.AAAA",
        f"{encoded({'alg': 'RS256', 'kid': 'rsa'})}.{encoded(b'[' * 4000)}.AAAA",
        f"{encoded({'alg': 'RS256'})}.{encoded(b'{' + b'%d' % 10**4000 + b':1}')}.AAAA",
        f"{encoded({'alg': 'RS256'})}.{encoded(bytes(range(256)))}.AAAA",
        "eyJ\xe9.\xff.\xfe",
        "eyJ%0a.%00.%00",
        "eyJ" + "." * 2 + "=" * 100,
    ],
    ids=lambda token: token[:30].encode("unicode_escape").decode(),
)
def test_garbage(replica, token):
    """Whatever begins as an identity does and isn't one is refused as any."""
    response = httpx.post(
        f"{replica.url}/deployments",
        json=deployment(),
        headers={b"Authorization": b"Bearer " + token.encode("latin-1")},
    )

    assert_refused(response)


def test_longer_than_a_token_may_be(replica, github):
    """A token over 8 KiB isn't looked at, however good it is; one just below is."""
    below = github.token(github.github(more="x" * 4500))
    over = github.token(github.github(more="x" * 6000))

    assert len(below) < MAX_TOKEN_LENGTH < len(over)
    assert record(replica, below).status_code == 201
    assert_wrong(replica, over, str(MAX_TOKEN_LENGTH))


@pytest.mark.parametrize(
    "token",
    [
        lambda issuer, text: issuer.token(issuer.github(sub=text, environment="staging")),
        lambda issuer, text: issuer.token(issuer.github(environment=text)),
        lambda issuer, text: issuer.token(issuer.github(environment=[text] * 20)),
        lambda issuer, text: issuer.token(issuer.github(aud=text)),
        lambda issuer, text: issuer.token(issuer.github(iss=text)),
        lambda issuer, text: by_hand({"alg": "RS256", "kid": "rsa", "crit": [text]}, issuer.github(), b"x"),
        lambda issuer, text: by_hand({"alg": text, "kid": "rsa"}, issuer.github(), b"x"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r", "\u2028", "\x1b[2K", "\ud800"])
def test_nothing_breaks_out_of_the_log(replica, github, token, end):
    """What a stranger writes into a token stays in its line of the log, as it is escaped there, and is cut short."""
    logged = len(replica.log)
    assert_refused(record(replica, token(github, f"x{end}FORGED {'x' * 1000}")))

    written = replica.logs_on(logged)
    assert written.count("\n") == 1
    assert written.isascii()
    assert written.rstrip("\n").isprintable()
    assert len(written) < 1000


def test_no_token_is_written_anywhere(replica, github):
    """Neither the log nor an answer repeats a token, taken or refused."""
    tokens = [github.token(github.github()), github.token(github.github(environment="staging")),
              sign(github.github(), rsa_key("stranger"), kid="rsa")]  # fmt: skip
    written = "".join(record(replica, token).text for token in tokens) + replica.log

    for token in tokens:
        assert not any(part in written for part in token.split(".")[1:])


# Replays. They are Redis's to find, so on a real one.


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def on_redis(
    redis: RedisServer, tmp_path_factory: pytest.TempPathFactory, github: LocalIssuer, other: LocalIssuer
) -> Iterator[Replica]:
    anyone = {"claims": {"repository": "octo/web"}, "channels": ["web/production"]}
    settings = trust((github, PRODUCTION), (github, STAGING), (other, anyone))
    replica = Replica(tmp_path_factory.mktemp("replays"), redis_url=redis.url, **settings)
    try:
        yield replica.start()
    finally:
        replica.kill()


def assert_replayed(response: httpx.Response) -> None:
    assert response.status_code == 403
    assert re.fullmatch(
        r"this identity's token was used for [a-z]+/[a-z]+ before; each is good for once", response.json()["detail"]
    )


def test_token_is_good_for_once(on_redis, github):
    """The token again with another payload is refused, and the log says so; a token with the same jti is the same."""
    claims = github.github()
    before, logged = on_redis.metric('vectr0_deployments_total{result="replayed"}'), len(on_redis.log)
    assert record(on_redis, github.token(claims)).status_code == 201
    assert_replayed(record(on_redis, github.token(claims)))
    assert_replayed(record(on_redis, github.token(claims, "ec")))
    assert_replayed(record(on_redis, github.token({**claims, "exp": claims["exp"] + 60}), key="key"))

    wait_until(
        lambda: "an identity was refused for web/production: its jti was used there" in on_redis.log[logged:],
        what="the line",
    )
    assert on_redis.metric('vectr0_deployments_total{result="replayed"}') == before + 3


def test_token_is_good_once_for_each_channel(on_redis, github):
    """One job's token records its three applications, each once."""
    token = github.token(github.github())

    for app, environment in (("web", "production"), ("api", "production"), ("web", "staging")):
        assert record(on_redis, token, environment, app).status_code == 201
        assert_replayed(record(on_redis, token, environment, app))


def test_retry_is_no_replay(on_redis, github):
    """The same key and payload are answered with the record of then, also when another came in between."""
    token, version, key = github.token(github.github()), next(_versions), f"key-{next(_versions)}"
    first = record(on_redis, token, key=key, version=version)
    again = record(on_redis, token, key=key, version=version)
    record(on_redis, github.token(github.github()))
    later = record(on_redis, token, key=key, version=version)

    assert (first.status_code, again.status_code, later.status_code) == (201, 200, 200)
    assert first.json() == again.json() == later.json()
    assert record(on_redis, token, key=key).status_code == 422


def test_repeat_of_the_newest_is_no_replay(on_redis, github):
    """The newest deployment's payload again, without a key, changes nothing, so it is answered as ever."""
    token, version = github.token(github.github()), next(_versions)

    assert record(on_redis, token, version=version).status_code == 201
    assert record(on_redis, token, version=version).status_code == 200


def test_repeat_uses_no_token_up(on_redis, github):
    """A token that recorded nothing yet is still good."""
    version = next(_versions)
    record(on_redis, github.token(github.github()), version=version)
    token = github.token(github.github())

    assert record(on_redis, token, version=version).status_code == 200
    assert record(on_redis, token, version="").status_code == 422
    assert record(on_redis, token).status_code == 201


@pytest.mark.parametrize("jti", [..., ""])
@pytest.mark.parametrize("key_id", ["rsa", "ec"])
def test_token_without_a_jti_is_known_by_what_was_signed(on_redis, github, key_id, jti):
    """It is good for once, too, also where its signature is written in another way, or is another one as good."""
    token = github.token(github.github(jti=jti), key_id)
    signed, _, signature = token.rpartition(".")
    again = [token, f"{signed}.{signature}{'=' * (-len(signature) % 4)}"]
    if key_id == "ec":
        again.append(f"{signed}.{mirrored(signature)}")

    assert record(on_redis, token).status_code == 201
    for one in again:
        assert_replayed(record(on_redis, one))


def mirrored(signature: str) -> str:
    """The second signature that every one of ECDSA has: (r, n - s) is as good as (r, s)."""
    curve = ec_key("github").curve
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    r, s = decode_dss_signature(raw_to_der_signature(base64.urlsafe_b64decode(signature + "=="), curve))
    return encoded(der_to_raw_signature(encode_dss_signature(r, order - s), curve))


def test_same_jti_of_another_issuer_is_another_token(on_redis, github, other):
    """Nobody can use up another issuer's token, nor is held up by it."""
    claims = github.github()

    assert record(on_redis, github.token(claims)).status_code == 201
    assert record(on_redis, other.token({**claims, "iss": other.url})).status_code == 201


def test_token_stays_used_when_its_channel_is_forgotten(on_redis, github):
    """What was deleted doesn't come back by a token that was seen."""
    token = github.token(github.github())
    record(on_redis, token)
    channel = f"{on_redis.url}/deployments/web/production"
    assert httpx.delete(channel, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 204

    assert_replayed(record(on_redis, token))


def test_one_of_many_at_once(on_redis, github):
    """Of many requests with one token and as many payloads one is recorded."""
    token = github.token(github.github())
    with ThreadPoolExecutor(10) as pool:
        statuses = sorted(pool.map(lambda _: record(on_redis, token).status_code, range(10)))

    assert statuses == [201] + [403] * 9


def test_used_token_is_remembered_for_as_long_as_it_could_be_used(on_redis, github, redis):
    """The memory ends with the token, later by what clocks may differ; it holds no token."""
    redis.cli("FLUSHALL")
    claims = github.github(exp=in_seconds(600))
    first = record(on_redis, github.token(claims))
    [key] = redis.cli("KEYS", "vectr0:tickets:*").split()
    record(on_redis, github.token(claims))

    assert re.fullmatch(r"vectr0:tickets:\{web/production\}:[0-9a-f]{64}", key)
    assert claims["exp"] + LEEWAY < int(redis.cli("EXPIRETIME", key)) <= claims["exp"] + 2 * LEEWAY + 1
    assert redis.cli("GET", key).strip() == first.text


# The issuer, as the service meets it.


def test_issuer_that_comes_late(start_replica, issuer):
    """While no key was ever had it is 503, with the time after which to come again; then it works."""
    replica = start_replica(**trust((issuer, PRODUCTION)))
    token = issuer.token(issuer.github())
    response = record(replica, token)
    assert response.status_code == 503
    assert response.headers["retry-after"] == str(COLD_REST)
    assert record(replica, TOKEN).status_code == 201
    issuer.start()

    wait_until(lambda: record(replica, token).status_code == 201, 2 * COLD_REST + 5, "a record")


def test_issuer_that_goes(start_replica, issuer):
    """Its keys stay good while it is away."""
    issuer.start()
    replica = start_replica(**trust((issuer, PRODUCTION)))
    assert record(replica, issuer.token(issuer.github())).status_code == 201
    issuer.stop()

    assert record(replica, issuer.token(issuer.github())).status_code == 201
    response = record(replica, sign(issuer.github(), rsa_key("stranger"), kid="new"))
    assert response.status_code == 503  # who can't be asked hasn't said no
    assert 1 <= int(response.headers["retry-after"]) <= REST


@pytest.fixture
def short_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the service's own processes rest for three seconds between two fetches; Python runs this when it starts."""
    (tmp_path / "sitecustomize.py").write_text("from service import issuer\nissuer.REST = 3\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{Path(__file__).parents[1]}")


CURL = ("curl", "--silent", "--fail-with-body", "--retry", "5", "--retry-all-errors")


@pytest.mark.usefixtures("short_rest")
@pytest.mark.parametrize("client", ["curl", "record.sh", "vectr0 record"])
def test_new_key(start_replica, issuer, tmp_path, client):
    """The first posting with a key that is published after a fetch is repeated by each client, and then recorded."""
    issuer.start()
    replica = start_replica(**trust((issuer, PRODUCTION)))
    wait_until(lambda: issuer.fetches.count(KEYS) == 1, what="the first fetch")
    issuer.keys["new"] = rsa_key("new")
    token = issuer.token(issuer.github(), "new")
    file = tmp_path / "version.json"
    file.write_text(json.dumps(deployment()))
    if client == "curl":
        arguments = [*CURL, "--json", f"@{file}", "-H", f"Authorization: Bearer {token}", f"{replica.url}/deployments"]
    elif client == "record.sh":
        script = Path(__file__).parents[1] / ".github/actions/record-deployment/record.sh"
        arguments = ["bash", str(script)]
    else:
        arguments = [sys.executable, "-m", "service", "record", "--oidc", "--from", str(file)]
    inputs = ("APP", "ENVIRONMENT", "VERSION", "COMMIT", "BUILD_NUMBER", "BUILD_TIME", "TAG", "AUDIENCE")
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "VECTR0_"))},
        **dict.fromkeys(inputs, ""), "OIDC": "false", "TIMEOUT": "60", "HUB_URL": replica.url, "HUB_TOKEN": token, "FILE": str(file),
        "VECTR0_URL": replica.url, "VECTR0_ID_TOKEN": token,
    }  # fmt: skip
    done = subprocess.run(arguments, env=environ, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert issuer.fetches.count(KEYS) == 2
    assert httpx.get(f"{replica.url}/deployments/web/production/latest").json()["version"] == "1.0.0"


@pytest.mark.usefixtures("short_rest")
def test_made_up_key_id_is_refused_in_the_end(start_replica, issuer):
    """After the 503 and its Retry-After the answer is 403, as final as any."""
    issuer.start()
    replica = start_replica(**trust((issuer, PRODUCTION)))
    wait_until(lambda: issuer.fetches.count(KEYS) == 1, what="the first fetch")
    token = sign(issuer.github(), rsa_key("stranger"), kid=f"made-up\nFORGED {'x' * 1000}")
    response = record(replica, token)
    logged = len(replica.log)
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert "not known yet" in response.json()["detail"]
    time.sleep(int(response.headers["retry-after"]))

    assert_refused(record(replica, token))
    assert issuer.fetches.count(KEYS) == 2
    written = replica.logs_on(logged)
    assert written.count("\n") == 1
    assert len(written) < 1000


@pytest.fixture
async def stream(start_replica, issuer: LocalIssuer) -> AsyncIterator[tuple[Replica, Listener]]:
    """A service whose issuer holds its answers back, and a stream of it."""
    issuer.start()
    issuer.answering.clear()
    replica = await asyncio.to_thread(start_replica, **trust((issuer, PRODUCTION)))
    listener = await Listener.open(f"{replica.url}/events/web/production")
    yield replica, listener
    await listener.close()


@pytest.mark.anyio
async def test_issuer_that_is_slow(stream, issuer):
    """While identities wait for their keys, streams hear what others record, and the process answers at once."""
    replica, listener = stream
    waiting = asyncio.create_task(asyncio.to_thread(record, replica, issuer.token(issuer.github())))
    await eventually(lambda: DISCOVERY in issuer.fetches, what="the fetch")
    async with httpx.AsyncClient() as client:
        for number in range(5):
            begun = time.monotonic()
            assert (await client.get(f"{replica.url}/livez")).status_code == 200
            assert time.monotonic() - begun < 0.5
            assert (await asyncio.to_thread(record, replica, TOKEN)).status_code == 201
            await listener.has(number + 1, timeout=1)
    assert not waiting.done()
    issuer.answering.set()

    # On a machine that is slow itself all this may have taken longer than a fetch may.
    assert (await waiting).status_code in (201, 503)
    async with asyncio.timeout(2 * COLD_REST + 5):
        while (await asyncio.to_thread(record, replica, issuer.token(issuer.github()))).status_code != 201:
            await asyncio.sleep(0.1)


@pytest.mark.anyio
async def test_flood_of_key_ids(start_replica, issuer):
    """Two hundred made-up key ids cost the issuer one fetch or two, and keep nobody from recording."""
    issuer.start()
    replica = await asyncio.to_thread(start_replica, **trust((issuer, PRODUCTION)))
    tokens = [by_hand({"alg": "RS256", "kid": f"made-up-{number}"}, issuer.github(), b"x") for number in range(200)]
    async with httpx.AsyncClient(timeout=20) as client:
        answers = await asyncio.gather(*(
            client.post(f"{replica.url}/deployments", json=deployment(), headers={"Authorization": f"Bearer {token}"})
            for token in tokens
        ))  # fmt: skip

    assert {answer.status_code for answer in answers} == {503}
    assert all(0 < int(answer.headers["retry-after"]) <= REST for answer in answers)
    assert issuer.fetches.count(DISCOVERY) <= 2
    assert (await asyncio.to_thread(record, replica, issuer.token(issuer.github()))).status_code == 201


def test_issuer_with_a_small_key(start_replica, issuer):
    """A key that could be broken signs nothing that is taken (RFC 7518, section 3.3)."""
    issuer.keys["small"] = rsa_key("small", 1024)
    issuer.start()
    replica = start_replica(**trust((issuer, PRODUCTION)))
    claims = json.dumps(issuer.github()).encode()
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = jwt.api_jws.encode(claims, issuer.keys["small"], "RS256", {"kid": "small"})

    assert_refused(record(replica, token))
    assert record(replica, issuer.token(issuer.github())).status_code == 201


# The rules, without a server.


def failed(entry: dict[str, Any], claims: dict[str, Any]) -> str | None:
    [publisher] = parse_trust(json.dumps([{"channels": ["web/*"], **entry}]))
    return publisher.failed_claim(claims)


GITHUB_CLAIMS = LocalIssuer().github()
GITLAB_CLAIMS = LocalIssuer().gitlab()


@pytest.mark.parametrize(
    ("entry", "claims", "claim"),
    [
        ({"github": 42}, {"repository": "octo/renamed"}, None),
        ({"github": 42}, {"repository_id": 42}, None),
        ({"github": 42}, {"repository_id": "43"}, "repository_id"),
        ({"github": 42}, {"repository_id": "442"}, "repository_id"),
        ({"github": 42}, {"repository_id": ...}, "repository_id"),
        ({"github": 42}, {"repository_owner_id": "8"}, "repository_owner_id"),
        ({"github": "Octo/WEB"}, {}, None),
        ({"github": "octo/web"}, {"repository": "Octo/Web"}, None),
        ({"github": "octo/kit"}, {"repository": "octo/\u212ait"}, "repository"),
        ({"github": "octo/*"}, {"repository": "octo/other"}, None),
        ({"github": "octo/*"}, {"repository": "evil/octo/other"}, "repository"),
        ({"github": "octo/w.b"}, {}, "repository"),
        ({"github": "octo/web", "workflow": "deploy.yml"}, {}, None),
        ({"github": "octo/web", "workflow": "Deploy.yml"}, {}, "job_workflow_ref"),
        ({"github": "octo/web", "workflow": "deploy-*.yml"},
         {"job_workflow_ref": "octo/web/.github/workflows/deploy-web.yml@refs/heads/main"}, None),
        ({"github": "octo/web", "workflow": "octo/shared/.github/workflows/deploy.yml@refs/tags/v*"}, {},
         "job_workflow_ref"),
        ({"github": "octo/web", "workflow": "octo/shared/.github/workflows/deploy.yml@refs/tags/v*"},
         {"job_workflow_ref": "octo/shared/.github/workflows/deploy.yml@refs/tags/v1"}, None),
        ({"github": "octo/web", "workflow": "octo/shared/.github/workflows/deploy.yml@refs/tags/v*"},
         {"job_workflow_ref": "octo/shared/.github/workflows/deploy.yml@refs/heads/v1"}, "job_workflow_ref"),
        ({"github": "octo/web", "environment": "Production"}, {}, None),
        ({"github": "octo/web", "environment": "prod*"}, {}, None),
        ({"github": "octo/web", "environment": "*"}, {"environment": ...}, "environment"),
        ({"github": "octo/web", "environment": "(production|staging)"}, {}, "environment"),
        ({"github": "octo/web", "branch": "release/*"}, {"ref": "refs/heads/release/1.4"}, None),
        ({"github": "octo/web", "branch": "release/*"}, {}, "ref"),
        ({"github": "octo/web", "branch": "Main"}, {}, "ref"),
        ({"github": "octo/web", "branch": ".*"}, {}, "ref"),
        ({"github": "octo/web", "branch": "*"}, {"ref": "refs/tags/v1"}, "ref"),
        ({"github": "octo/web", "tag": "v*"}, {"ref": "refs/tags/v1.4.0"}, None),
        ({"github": "octo/web", "tag": "v*"}, {"ref": "refs/heads/v1.4.0"}, "ref"),
        ({"github": "octo/web"}, {"event_name": "pull_request"}, "event_name"),
        ({"github": "octo/web"}, {"ref": "refs/pull/7/merge"}, "ref"),
        ({"github": "octo/web", "pull_requests": False}, {"event_name": "pull_request_target"}, "event_name"),
        ({"github": "octo/web", "pull_requests": True},
         {"event_name": "pull_request", "ref": "refs/pull/7/merge"}, None),
        ({"github": "octo/web", "pull_requests": True, "branch": "main"},
         {"event_name": "pull_request", "ref": "refs/pull/7/merge"}, "ref"),
        ({"github": "octo/web"}, {"event_name": "workflow_dispatch"}, None),
    ],
)  # fmt: skip
def test_rules_of_github(entry, claims, claim):
    """A name is taken in any case, as GitHub has no second one; a star is any run of characters, the rest is itself."""
    claims = {name: value for name, value in {**GITHUB_CLAIMS, **claims}.items() if value is not ...}

    assert failed({"owner_id": 7, **entry}, claims) == claim


@pytest.mark.parametrize(
    ("entry", "claims", "claim"),
    [
        ({"gitlab": 42}, {"project_path": "octo/renamed"}, None),
        ({"gitlab": 42}, {"project_id": "43"}, "project_id"),
        ({"gitlab": "Octo/Tools/Web"}, {}, None),
        ({"gitlab": "octo/*"}, {}, None),
        ({"gitlab": "octo/web"}, {}, "project_path"),
        ({"gitlab": 42, "branch": "main"}, {"ref_type": "tag"}, "ref_type"),
        ({"gitlab": 42, "tag": "v*"}, {"ref": "v1", "ref_type": "tag"}, None),
        ({"gitlab": 42, "tag": "v*"}, {"ref": "v1"}, "ref_type"),
        ({"gitlab": 42, "environment": "Production"}, {}, "environment"),
        ({"gitlab": 42}, {"pipeline_source": "merge_request_event"}, "pipeline_source"),
        ({"gitlab": 42}, {"pipeline_source": "parent_pipeline"}, "pipeline_source"),
        ({"gitlab": 42, "merge_requests": True}, {"pipeline_source": "merge_request_event"}, None),
        ({"gitlab": 42, "merge_requests": True}, {"pipeline_source": "parent_pipeline"}, None),
        ({"gitlab": 42}, {"pipeline_source": "schedule"}, None),
    ],
)
def test_rules_of_gitlab(entry, claims, claim):
    """A branch is no tag of that name, and a merge request's pipeline is refused unless allowed."""
    assert failed(entry, {**GITLAB_CLAIMS, **claims}) == claim


@pytest.mark.parametrize(
    ("pattern", "value", "fits"),
    [
        ("a*c", "abc", True),
        ("a*c", "ac", True),
        ("a*c", "a\nc", True),
        ("a*c", "acd", False),
        ("*", "", True),
        ("*", None, False),
        ("*", {}, False),
        ("*", [], False),
        ("a", "A", False),
        ("a", ["b", "a"], True),
        ("a", [["a"]], False),
        ("a.c", "abc", False),
        ("[a]", "a", False),
        ("a|b", "a", False),
        ("a$", "a", False),
        ("a", "a\n", False),
        ("12", 12, True),
        ("12", 12.0, False),
        ("true", True, True),
        ("True", True, False),
        ("1", True, False),
    ],
)
def test_patterns(pattern, value, fits):
    """A star stands for any run of characters, and nothing else has a meaning."""
    entry = {"claims": {"claim": pattern}, "issuer": "https://issuer.example"}

    assert failed(entry, {"claim": value}) == (None if fits else "claim")


@pytest.mark.anyio
async def test_ticket(github):
    """It knows a token by issuer and jti, never by what a stranger may choose, and lasts for as long as the token."""
    trusted = parse_trust(trust((github, PRODUCTION))["trust"])
    now = int(time.time())
    async with httpx.AsyncClient() as client:
        publishers = Publishers(trusted, {github.url: Issuer(github.url, client)}, AUDIENCE)

        async def ticket(**claims: Any):
            return (await publishers.identify(github.token(github.github(**claims)), now + 0.9)).ticket

        one = await ticket(jti="one", exp=now + 100)
        assert await ticket(jti="one", exp=now + 100, sub="x") == one
        assert (await ticket(jti="two")).id != one.id
        assert one.lifetime == 100 + 2 * LEEWAY
        assert (await ticket(exp=now - LEEWAY + 5)).lifetime == LEEWAY + 5
        assert (await ticket(exp=str(now + 100))).lifetime == 100 + 2 * LEEWAY
        assert (await ticket(exp=now + MAX_LIFETIME)).lifetime == MAX_LIFETIME + 2 * LEEWAY
        assert len((await ticket(jti="\ud800" + "x" * 2000)).id) == 64


@pytest.mark.anyio
async def test_identity_is_good_for_its_channels(github):
    """Those of every publisher that it is, and no other."""
    entries = [PRODUCTION, {"github": 42, "owner_id": 7, "channels": ["web/pr-*"]}]
    trusted = parse_trust(trust(*((github, entry) for entry in entries))["trust"])
    async with httpx.AsyncClient() as client:
        publishers = Publishers(trusted, {github.url: Issuer(github.url, client)}, AUDIENCE)
        identity = await publishers.identify(github.token(github.github()), time.time())

    for channel in ("web/production", "api/production", "web/pr-1"):
        identity.authorize(ChannelName(channel))
    for channel in ("web/staging", "shop/production", "web/pr", "api/pr-1"):
        with pytest.raises(UntrustedError):
            identity.authorize(ChannelName(channel))
