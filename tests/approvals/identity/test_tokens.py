"""What gets past the verifier, and everything that must not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from approvals.identity.provider import FRESH_S, REFETCH_S, USABLE_S, Provider, ProviderUnavailable
from approvals.identity.tokens import TokenRefused, Verifier, looks_like_jwt
from tests.approvals.provider import FakeProvider, SigningKey


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def issuer() -> AsyncIterator[FakeProvider]:
    async with FakeProvider().running() as issuer:
        yield issuer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def verifier(issuer: FakeProvider, clock: Clock) -> Verifier:
    return Verifier(Provider(issuer.issuer, clock=clock), "pgproxy")


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def forged(header: dict[str, Any], claims: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    signed = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{signed}.{b64(sign(signed.encode()))}"


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
async def test_a_good_token_tells_its_claims(issuer: FakeProvider, verifier: Verifier, algorithm: str) -> None:
    issuer.keys = [SigningKey.new("k", algorithm)]
    claims = await verifier.verify(issuer.token(groups=["dba"]))
    assert (claims["sub"], claims["groups"]) == ("u-bob", ["dba"])
    assert looks_like_jwt(issuer.token())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aud": "another"}, "another audience"),
        ({"aud": ["another", "and another"]}, "another audience"),
        ({"aud": None}, "lacks a claim"),
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"iss": None}, "lacks a claim"),
        ({"exp": None}, "lacks a claim"),
        ({"iat": None}, "lacks a claim"),
        ({"sub": None}, "lacks a claim"),
        ({"sub": ""}, "no subject"),
        ({"sub": 7}, "malformed"),
        ({"exp": int(time.time()) - 31}, "expired"),
        ({"exp": "9999999999"}, "exp is not a time"),
        ({"exp": True}, "exp is not a time"),
        ({"exp": float("nan")}, "exp is not a time"),
        ({"iat": int(time.time()) + 3600}, "in the future"),
        ({"nbf": int(time.time()) + 3600}, "not valid yet"),
        ({"nbf": "now"}, "nbf is not a time"),
    ],
)
async def test_claims_that_are_not_right(
    issuer: FakeProvider, verifier: Verifier, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(TokenRefused, match=reason):
        await verifier.verify(issuer.token(**changes))


async def test_the_leeway_is_for_clocks_that_differ(issuer: FakeProvider, verifier: Verifier) -> None:
    now = int(time.time())
    await verifier.verify(issuer.token(exp=now - 10, iat=now - 300))
    await verifier.verify(issuer.token(iat=now + 10, nbf=now + 10))


async def test_alg_none_is_no_signature(issuer: FakeProvider, verifier: Verifier) -> None:
    for name in ("none", "None", "NONE", "nOnE", "", None, 1, ["ES256"]):
        token = forged({"alg": name, "kid": "k1"}, issuer.access_claims(), lambda _: b"")
        with pytest.raises(TokenRefused, match="algorithm is not accepted"):
            await verifier.verify(token)


async def test_a_public_key_is_no_shared_secret(issuer: FakeProvider, clock: Clock) -> None:
    """CVE-2015-9235: HS256 over the public key, in each form somebody may have it."""
    issuer.keys = [SigningKey.new("k1", "RS256")]
    verifier = Verifier(Provider(issuer.issuer, clock=clock), "pgproxy", ("RS256", "HS256"))
    public = issuer.keys[0].private.public_key()
    for secret in (
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(issuer.keys[0].public()).encode(),
    ):
        token = forged(
            {"alg": "HS256", "kid": "k1"},
            issuer.access_claims(),
            lambda data, secret=secret: hmac.new(secret, data, hashlib.sha256).digest(),
        )
        with pytest.raises(TokenRefused, match="algorithm is not accepted"):
            await verifier.verify(token)


async def test_a_key_is_used_for_its_own_algorithm_only(issuer: FakeProvider, verifier: Verifier) -> None:
    issuer.keys = [SigningKey.new("rsa", "RS256"), SigningKey.new("ec", "ES256")]
    with pytest.raises(TokenRefused, match="key is not one of"):
        await verifier.verify(issuer.sign(issuer.access_claims(), key=issuer.keys[1], kid="rsa"))
    with pytest.raises(TokenRefused, match="key is not one of"):
        await verifier.verify(issuer.sign(issuer.access_claims(), key=issuer.keys[0], kid="ec"))
    verifier = Verifier(verifier.provider, "pgproxy", ("RS256",))
    with pytest.raises(TokenRefused, match="algorithm is not accepted"):
        await verifier.verify(issuer.sign(issuer.access_claims(), key=issuer.keys[1]))


async def test_another_key_under_a_known_name_is_a_forgery(issuer: FakeProvider, verifier: Verifier) -> None:
    await verifier.verify(issuer.token())
    with pytest.raises(TokenRefused, match="signature is wrong"):
        await verifier.verify(issuer.sign(issuer.access_claims(), key=SigningKey.new("k1")))
    good = issuer.token()
    head, claims, signature = good.split(".")
    other = issuer.token(sub="u-admin").split(".")[1]
    for token in (f"{head}.{other}.{signature}", f"{head}.{claims}.{signature[:-8]}", f"{head}.{claims}."):
        with pytest.raises(TokenRefused):
            await verifier.verify(token)


async def test_a_key_that_a_token_brings_along_is_not_believed(issuer: FakeProvider, verifier: Verifier) -> None:
    mine = SigningKey.new("mine")
    for header in ({"jwk": mine.public()}, {"jku": f"{issuer.issuer}/jwks"}, {"x5u": "https://evil.example"}):
        with pytest.raises(TokenRefused, match="key is not one of"):
            await verifier.verify(issuer.sign(issuer.access_claims(), key=mine, **header))
    with pytest.raises(TokenRefused, match="signature is wrong"):
        await verifier.verify(issuer.sign(issuer.access_claims(), key=mine, kid="k1", jwk=mine.public()))


@pytest.mark.parametrize("kid", ["../../dev/null", "k1' OR '1'='1", "", "K1", "k1\u0000"])
async def test_a_key_id_is_only_ever_compared(issuer: FakeProvider, verifier: Verifier, kid: str) -> None:
    with pytest.raises(TokenRefused, match="key is not one of"):
        await verifier.verify(issuer.sign(issuer.access_claims(), kid=kid))


async def test_without_a_key_id_only_one_key_may_fit(issuer: FakeProvider, verifier: Verifier, clock: Clock) -> None:
    await verifier.verify(issuer.sign(issuer.access_claims(), kid=None))
    issuer.keys.append(SigningKey.new("k2"))
    clock.now += FRESH_S + 1
    with pytest.raises(TokenRefused, match="key is not one of"):
        await verifier.verify(issuer.sign(issuer.access_claims(), kid=None))


@pytest.mark.parametrize("header", [{"typ": "logout+jwt"}, {"typ": "secevent+jwt"}, {"typ": "dpop+jwt"}])
async def test_other_types_of_tokens(issuer: FakeProvider, verifier: Verifier, header: dict[str, Any]) -> None:
    with pytest.raises(TokenRefused, match="type of token"):
        await verifier.verify(issuer.sign(issuer.access_claims(), **header))


async def test_an_access_token_does_not_log_in(issuer: FakeProvider, verifier: Verifier) -> None:
    token = issuer.sign(issuer.access_claims(), typ="at+jwt")
    await verifier.verify(token)
    with pytest.raises(TokenRefused, match="type of token"):
        await Verifier(verifier.provider, "pgproxy", id_tokens=True).verify(token)


async def test_an_id_token_is_for_one_client(issuer: FakeProvider, verifier: Verifier) -> None:
    ours = Verifier(verifier.provider, "pgproxy", id_tokens=True)
    await ours.verify(issuer.token(aud=["pgproxy", "other"], azp="pgproxy"))
    for changes in ({"aud": ["pgproxy", "other"]}, {"azp": "other"}):
        with pytest.raises(TokenRefused):
            await ours.verify(issuer.token(**changes))


async def test_extensions_that_are_not_known(issuer: FakeProvider, verifier: Verifier) -> None:
    for header in ({"crit": ["x"], "x": 1}, {"cty": "JWT"}, {"zip": "DEF"}):
        with pytest.raises(TokenRefused):
            await verifier.verify(issuer.sign(issuer.access_claims(), **header))


NO_TOKENS = ["", ".", "..", "a.b.c", "eyJ.eyJ.x", "é.é.é", "eyJhbGciOiJFUzI1NiJ9", f"{b64(b'[1]')}.e30.x", "x" * 99999]


@pytest.mark.parametrize("text", NO_TOKENS)
async def test_what_is_no_token(verifier: Verifier, text: str) -> None:
    with pytest.raises(TokenRefused):
        await verifier.verify(text)


async def test_a_nested_bomb_is_only_malformed(verifier: Verifier) -> None:
    bomb = b64(b"[" * 9000)
    with pytest.raises(TokenRefused, match="malformed"):
        await verifier.verify(f"{bomb}.{bomb[:100]}.x")


async def test_a_weak_key_of_the_set_is_left_out(issuer: FakeProvider, verifier: Verifier) -> None:
    weak = SigningKey.new("weak", "RS256", bits=1024)
    issuer.keys.append(weak)

    def sign(data: bytes) -> bytes:
        signature: bytes = weak.private.sign(data, PKCS1v15(), SHA256())
        return signature

    with pytest.raises(TokenRefused, match="key is not one of"):
        await verifier.verify(forged({"alg": "RS256", "kid": "weak"}, issuer.access_claims(), sign))


async def test_only_public_signing_keys_are_taken(issuer: FakeProvider, verifier: Verifier) -> None:
    shared = {"kty": "oct", "kid": "shared", "k": b64(b"k" * 32), "alg": "HS256"}
    encryption = {**SigningKey.new("k2").public(), "use": "enc"}
    for_signing = {**SigningKey.new("k3").public(), "key_ops": ["sign"]}
    issuer.extra_keys = [shared, encryption, for_signing, 7, {"kty": "EC"}]
    await verifier.verify(issuer.token())
    issuer.keys, issuer.extra_keys = [], issuer.extra_keys[:-1]
    with pytest.raises(ProviderUnavailable):
        await Verifier(Provider(issuer.issuer), "pgproxy").verify(forged({"alg": "ES256"}, {}, bytes))


# rotation


async def test_a_new_key_is_found_and_an_old_one_is_dropped(
    issuer: FakeProvider, verifier: Verifier, clock: Clock
) -> None:
    old = issuer.token()
    await verifier.verify(old)
    issuer.keys = [SigningKey.new("k2")]
    clock.now += REFETCH_S + 1
    await verifier.verify(issuer.token())
    with pytest.raises(TokenRefused, match="key is not one of"):
        await verifier.verify(old)


async def test_a_withdrawn_key_stops_working_by_itself(issuer: FakeProvider, verifier: Verifier, clock: Clock) -> None:
    old = issuer.token()
    await verifier.verify(old)
    issuer.keys = [SigningKey.new("k2")]
    clock.now += FRESH_S + 1
    with pytest.raises(TokenRefused, match="key is not one of"):
        await verifier.verify(old)


async def test_unknown_keys_do_not_hammer_the_provider(issuer: FakeProvider, verifier: Verifier, clock: Clock) -> None:
    await verifier.verify(issuer.token())
    clock.now += REFETCH_S + 1
    for number in range(20):
        with pytest.raises(TokenRefused):
            await verifier.verify(issuer.sign(issuer.access_claims(), kid=f"x{number}"))
    assert issuer.fetches["/jwks"] == 2


async def test_an_outage_locks_nobody_out_and_lets_nobody_in(
    issuer: FakeProvider, verifier: Verifier, clock: Clock
) -> None:
    await verifier.verify(issuer.token())
    issuer.is_down = True
    for wait in (FRESH_S + 1, 3600.0, USABLE_S / 2):
        clock.now += wait
        await verifier.verify(issuer.token())
        with pytest.raises(TokenRefused):
            await verifier.verify(issuer.sign(issuer.access_claims(), key=SigningKey.new("k9")))
    clock.now += USABLE_S
    with pytest.raises(ProviderUnavailable):
        await verifier.verify(issuer.token())
    issuer.is_down = False
    clock.now += REFETCH_S + 1
    await verifier.verify(issuer.token())


async def test_without_keys_nobody_is_verified(issuer: FakeProvider, clock: Clock) -> None:
    issuer.is_down = True
    verifier = Verifier(Provider(issuer.issuer, clock=clock), "pgproxy")
    with pytest.raises(ProviderUnavailable):
        await verifier.verify(issuer.token())


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"jwks_uri": "http://keys.example/jwks"},
        {"jwks_uri": None},
        {"token_endpoint": "file:///etc/passwd"},
        {"code_challenge_methods_supported": ["plain"]},
    ],
)
async def test_a_discovery_document_that_cannot_be_trusted(
    issuer: FakeProvider, clock: Clock, metadata: dict[str, Any]
) -> None:
    issuer.metadata = metadata
    with pytest.raises(ProviderUnavailable):
        await Verifier(Provider(issuer.issuer, clock=clock), "pgproxy").verify(issuer.token())


async def test_keys_by_address_need_no_discovery(issuer: FakeProvider, clock: Clock) -> None:
    issuer.metadata = {"issuer": "nobody"}
    provider = Provider(issuer.issuer, jwks_uri=f"{issuer.issuer}/jwks", clock=clock)
    await Verifier(provider, "pgproxy").verify(issuer.token())
