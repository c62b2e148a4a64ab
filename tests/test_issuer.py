"""An issuer's keys, fetched from a real server on this machine."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

from service import issuer as module
from service.issuer import MAX_ASKED, MAX_SIZE, Issuer, IssuerUnavailableError, UnknownKeyError
from tests.identities import DISCOVERY, KEYS, LocalIssuer, ec_key, ed_key, encoded, published, rsa_key
from tests.parts import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def local() -> Iterator[LocalIssuer]:
    """The server, which runs."""
    local = LocalIssuer().start()
    try:
        yield local
    finally:
        local.stop()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient() as client:
        yield client


@pytest.fixture
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every unknown key id be a reason to fetch."""
    monkeypatch.setattr(module, "REST", 0)
    monkeypatch.setattr(module, "COLD_REST", 0)


async def test_keys_of_every_kind(local, client):
    """RSA, elliptic curves and Ed25519; one fetch gives all."""
    local.keys = {"rsa": rsa_key("issuer"), "ec": ec_key("issuer"), "ed": ed_key("issuer")}
    issuer = Issuer(local.url, client)

    assert (await issuer.key("rsa")).algorithm_name == "RS256"
    assert (await issuer.key("ec")).algorithm_name == "ES256"
    assert (await issuer.key("ed")).algorithm_name == "EdDSA"
    assert local.fetches == [DISCOVERY, KEYS]


async def test_key_without_alg_has_that_of_its_kind(local, client):
    """Such a key is good for one algorithm, too: RS256 where it is RSA."""
    local.keys = {}
    local.more_keys = [{**published(rsa_key("issuer"), "rsa"), "alg": "RS256"}]
    del local.more_keys[0]["alg"], local.more_keys[0]["use"]

    assert (await Issuer(local.url, client).key("rsa")).algorithm_name == "RS256"


SECRET = {"kty": "oct", "kid": "bad", "k": encoded(b"s" * 32)}
RSA = published(rsa_key("issuer"), "bad")


@pytest.mark.parametrize(
    "key",
    [
        SECRET,
        {**SECRET, "alg": "HS256", "use": "sig"},
        {**SECRET, "kty": "RSA"},
        {**RSA, "alg": "HS256"},
        {**RSA, "alg": "none"},
        {**RSA, "alg": "ES256"},
        {**RSA, "alg": ["RS256"]},
        {**RSA, "alg": "XX999"},
        {**RSA, "use": "enc"},
        {**RSAAlgorithm.to_jwk(rsa_key("issuer"), as_dict=True), "kid": "bad", "key_ops": ["verify"]},
        {**RSA, "n": 5},
        {**RSA, "e": "AA"},
        {**RSA, "n": "AA", "e": "AA"},
        {**published(ec_key("issuer"), "bad"), "x": "AAAA", "y": "AAAA"},
        {**published(ec_key("issuer"), "bad"), "x": encoded(b"\0" * 32)},
        {**published(ed_key("issuer"), "bad"), "x": "AAAA"},
        {**RSA, "n": "?"},
        {**RSA, "kty": "NEW"},
        {**RSA, "kty": {}},
        {**RSA, "kid": 5},
        {**RSA, "kid": ["bad"]},
        {**published(ec_key("issuer"), "bad"), "crv": "secp256k1", "alg": "ES256K"},
        {"kid": "bad"},
        "bad",
        None,
    ],
    ids=lambda key: str(key)[:24],  # and nothing of the keys, which are others in each run
)
@pytest.mark.usefixtures("no_rest")
async def test_key_that_is_no_use_is_passed_over(local, client, key):
    """What isn't a public key for signatures is as if it weren't there, and the good one beside it is taken."""
    local.more_keys = [key]
    issuer = Issuer(local.url, client)

    await issuer.key("rsa")
    with pytest.raises(UnknownKeyError):
        await issuer.key("bad")


async def test_public_key_is_never_a_secret(local, client):
    """The PEM text of a public key, as a key set has no such thing, is no key."""
    pem = rsa_key("issuer").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    local.more_keys = [{"kty": "oct", "kid": "bad", "k": encoded(pem), "alg": "HS256"}]

    with pytest.raises(UnknownKeyError):
        await Issuer(local.url, client).key("bad")


def documents(**answers: tuple[int, dict[str, str], bytes]) -> dict[str, tuple[int, dict[str, str], bytes]]:
    return {{"discovery": DISCOVERY, "keys": KEYS}[name]: answer for name, answer in answers.items()}


def discovery(local: LocalIssuer, **members: object) -> dict[str, tuple[int, dict[str, str], bytes]]:
    return documents(discovery=(200, {}, json.dumps({**local.discovery, **members}).encode()))


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        (lambda local: discovery(local, issuer="https://other.example"), "is that of 'https://other.example'"),
        (lambda local: discovery(local, issuer=local.url + "/"), "is that of"),
        (lambda local: discovery(local, issuer="x" * 100_000), "is that of"),
        (lambda local: discovery(local, jwks_uri=None), "its jwks_uri is"),
        (lambda local: discovery(local, jwks_uri="ftp://127.0.0.1/keys"), "its jwks_uri is"),
        (lambda local: discovery(local, jwks_uri="https://[::1"), "InvalidURL"),
        (lambda local: discovery(local, jwks_uri="https://\n"), "InvalidURL"),
        (lambda local: documents(discovery=(302, {"Location": local.url + "/elsewhere"}, b"")), "302"),
        (lambda local: documents(keys=(307, {"Location": local.url + "/elsewhere"}, b"")), "307"),
        (lambda _: documents(discovery=(500, {}, b"")), "500"),
        (lambda _: documents(discovery=(200, {}, b"<html>")), "JSONDecodeError"),
        (lambda _: documents(discovery=(200, {}, b"[]")), "no JSON object"),
        (lambda _: documents(discovery=(200, {}, b"[" * 200_000)), "JSONDecodeError"),
        (lambda _: documents(discovery=(200, {}, b'{"issuer":' + b"[" * 900 + b"]" * 900 + b"}")), "is that of"),
        (lambda _: documents(discovery=(200, {}, b'{"issuer":1e999}')), "JSONDecodeError"),
        (lambda _: documents(discovery=(200, {}, b'{"issuer":NaN}')), "JSONDecodeError"),
        (
            lambda _: documents(discovery=(200, {}, b'{"issuer":18446744073709551616}')),
            "is that of 1.8446744073709552e+19",
        ),
        (lambda _: documents(discovery=(200, {}, b"\xff\xfe{}")), "JSONDecodeError"),
        (
            lambda _: documents(
                keys=(200, {}, b'{"keys":[[[[[[]]]]],1e300,18446744073709551616,null,{"kid":1e300,"kty":1}]}')
            ),
            "no key that can be used",
        ),
        (lambda _: documents(keys=(200, {}, b" " * (MAX_SIZE + 1))), f"over {MAX_SIZE} bytes"),
        (lambda _: documents(keys=(200, {}, b"{}")), "no key that can be used"),
        (lambda _: documents(keys=(200, {}, b'{"keys":{"kid":"rsa"}}')), "no key that can be used"),
        (lambda _: documents(keys=(200, {"Content-Encoding": "gzip"}, b"no gzip")), "DecodingError"),
    ],
)
async def test_document_that_is_not_as_it_must_be(local, client, caplog, answers, why):
    """Such an issuer has no keys; the log says why, in one short line, and nothing is fetched from elsewhere."""
    local.answers = answers(local)
    with pytest.raises(IssuerUnavailableError):
        await Issuer(local.url, client).key("rsa")

    [message] = caplog.messages
    assert why in message
    assert len(message) < 500
    assert "\n" not in message
    assert set(local.fetches) <= {DISCOVERY, KEYS}


async def test_issuer_on_https_is_not_left_for_http(client):
    """The keys of an https:// issuer come by https:// only."""
    answer = {"issuer": "https://issuer.example", "jwks_uri": "http://issuer.example/keys"}
    asked: list[str] = []

    def answered(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, json=answer)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answered)) as client_:
        with pytest.raises(IssuerUnavailableError):
            await Issuer("https://issuer.example", client_).key("rsa")

    assert asked == ["https://issuer.example/.well-known/openid-configuration"]


@pytest.mark.usefixtures("no_rest")
async def test_keys_rotate(local, client):
    """A new key id is fetched when it is first asked for; a key that isn't published any more is forgotten then."""
    issuer = Issuer(local.url, client)
    await issuer.key("rsa")
    local.keys = {"new": rsa_key("new")}

    assert (await issuer.key("new")).key_id == "new"
    with pytest.raises(UnknownKeyError):
        await issuer.key("rsa")


async def test_keys_are_refreshed_in_the_background(local, client, monkeypatch):
    """A key that isn't published any more is forgotten without anybody asking for another."""
    monkeypatch.setattr(module, "REFRESH", 0.02)
    monkeypatch.setattr(module, "REST", 0)
    issuer = Issuer(local.url, client)
    running = asyncio.create_task(issuer.run())
    await eventually(lambda: KEYS in local.fetches, what="the first fetch")
    local.keys = {"new": rsa_key("new")}
    count = len(local.fetches)
    await eventually(lambda: len(local.fetches) > count + 3, what="a fetch that began after that")
    running.cancel()
    monkeypatch.setattr(module, "REST", 30)

    with pytest.raises(IssuerUnavailableError):
        await issuer.key("rsa")


@pytest.mark.usefixtures("no_rest")
async def test_keys_are_kept_while_the_issuer_is_away(local, client, caplog):
    """What was fetched stays good, whatever is asked for; each change of state is one line in the log."""
    caplog.set_level("INFO")
    issuer = Issuer(local.url, client)
    await issuer.key("rsa")
    local.stop()
    for _ in range(3):
        with pytest.raises(IssuerUnavailableError):  # what can't be asked hasn't said no
            await issuer.key("new")
    await issuer.key("rsa")
    local.start()
    local.keys["new"] = rsa_key("new")
    await issuer.key("new")

    away, back = [message for message in caplog.messages if local.url in message and "HTTP Request" not in message]
    assert "the keys that are known stay good" in away
    assert "are available again" in back


async def test_made_up_key_ids_cost_one_fetch(local, client, monkeypatch):
    """However many are asked for, one after another and at once: one fetch, and the next after a rest."""
    issuer = Issuer(local.url, client)
    await issuer.key("rsa")
    asked = [issuer.key(f"made-up-{number}") for number in range(2 * MAX_ASKED)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(error, IssuerUnavailableError) for error in answers)
    assert len(local.fetches) == 2
    assert len(issuer._asked) == MAX_ASKED

    monkeypatch.setattr(module, "REST", 0.001)
    await asyncio.sleep(0.002)  # the rest itself
    with pytest.raises(UnknownKeyError):
        await issuer.key("made-up")
    assert len(local.fetches) == 4


async def test_new_key_soon_after_a_fetch(local, client, monkeypatch):
    """It can't be told yet whether the issuer has it: who brings it is asked to come again when that can be told."""
    issuer = Issuer(local.url, client)
    await issuer.key("rsa")
    local.keys["new"] = rsa_key("new")
    with pytest.raises(IssuerUnavailableError) as caught:
        await issuer.key("new")
    assert 1 <= caught.value.retry_after <= module.REST
    assert len(local.fetches) == 2

    monkeypatch.setattr(module, "REST", 0.001)
    await asyncio.sleep(0.002)  # the rest itself
    assert (await issuer.key("new")).key_id == "new"


async def test_made_up_key_id_is_refused_by_another_ones_fetch(local, client, monkeypatch):
    """A fetch for whomever, after a key id was first asked for, tells that it isn't there, and the rest goes on."""
    issuer = Issuer(local.url, client)
    await issuer.key("rsa")
    with pytest.raises(IssuerUnavailableError):
        await issuer.key("made-up")
    monkeypatch.setattr(module, "REST", 0.001)
    await asyncio.sleep(0.002)  # the rest itself
    with pytest.raises(UnknownKeyError):
        await issuer.key("another")
    monkeypatch.setattr(module, "REST", 30)

    with pytest.raises(UnknownKeyError):
        await issuer.key("made-up")
    assert len(local.fetches) == 4


async def test_token_without_a_key_id_is_refused_at_once(local, client):
    """Whether the issuer has a key without an id doesn't change from one moment to the next."""
    issuer = Issuer(local.url, client)
    await issuer.key("rsa")

    with pytest.raises(UnknownKeyError):
        await issuer.key(None)


async def test_many_who_wait_share_one_fetch(local, client):
    """Those who come while a fetch is on its way wait for it, and start none of their own."""
    local.answering.clear()
    issuer = Issuer(local.url, client)
    waiting = asyncio.gather(*(issuer.key("rsa") for _ in range(20)))
    await eventually(lambda: local.fetches, what="the fetch")
    local.answering.set()

    assert len({id(key) for key in await waiting}) == 1
    assert local.fetches == [DISCOVERY, KEYS]


async def test_known_key_does_not_wait_for_a_fetch(local, client, monkeypatch):
    """While the issuer is slow to tell of an unknown key, a known one is there at once."""
    issuer = Issuer(local.url, client)
    await issuer.key("rsa")
    monkeypatch.setattr(module, "REST", 0)
    local.answering.clear()
    unknown = asyncio.create_task(issuer.key("new"))
    await eventually(lambda: len(local.fetches) == 3, what="the fetch")

    assert (await asyncio.wait_for(issuer.key("rsa"), 0.1)).key_id == "rsa"
    local.answering.set()
    with pytest.raises(UnknownKeyError):
        await unknown


async def test_issuer_that_never_answers_is_given_up(local, client, monkeypatch):
    """A fetch ends at its deadline, and is one that failed."""
    monkeypatch.setattr(module, "DEADLINE", 0.1)
    local.answering.clear()

    with pytest.raises(IssuerUnavailableError):
        await asyncio.wait_for(Issuer(local.url, client).key("rsa"), 5)


async def test_issuer_that_was_never_reached_is_tried_again_soon(local, client, monkeypatch):
    """Without any key the rest is the short one: until the issuer is there nobody of it can record."""
    monkeypatch.setattr(module, "COLD_REST", 0.001)
    local.answers = documents(discovery=(503, {}, b""))
    issuer = Issuer(local.url, client)
    with pytest.raises(IssuerUnavailableError):
        await issuer.key("rsa")
    local.answers = {}
    await asyncio.sleep(0.002)  # the rest itself

    assert (await issuer.key("rsa")).key_id == "rsa"
