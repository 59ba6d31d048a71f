"""An OpenID provider's metadata and signing keys: fetched, cached, and followed as they rotate.

"OpenID Connect Discovery 1.0", "OpenID Provider Metadata"; RFC 7517 for the keys.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

log = logging.getLogger("pgproxy.approvals")

REFETCH_S = 30.0
"""Between two fetches, whatever tokens with unknown keys arrive: anybody can send those."""

FRESH_S = 300.0
"""After this the keys are fetched again, so that one taken out of the set stops working."""

USABLE_S = 86_400.0
"""How long keys go on while the provider does not answer."""

TIMEOUT_S = 5.0
_MAX_BYTES = 1 << 20
_MAX_KEYS = 100
_MIN_RSA_BITS = 2048
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class ProviderUnavailable(Exception):
    """The provider did not give what is needed to verify or to log in. Says nothing about the token."""


@dataclass(frozen=True, slots=True)
class Metadata:
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_auth_methods: tuple[str, ...]
    iss_in_response: bool


@dataclass(frozen=True, slots=True)
class _Key:
    kid: str | None
    jwk: Mapping[str, Any]


class Provider:
    """One issuer. `jwks_uri` instead of discovery is enough to verify tokens, not to log anybody in."""

    def __init__(
        self,
        issuer: str,
        *,
        jwks_uri: str | None = None,
        ca: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.issuer = issuer
        self._jwks_uri = jwks_uri
        self._ca = ca
        self._clock = clock
        self._tls: ssl.SSLContext | None = None
        self._metadata: Metadata | None = None
        self._keys: tuple[_Key, ...] = ()
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._metadata_tried_at: float | None = None
        self._lock = asyncio.Lock()
        self._metadata_lock = asyncio.Lock()

    async def key(self, kid: str | None, algorithm: str) -> PyJWK | None:
        """The key that a token with this header was signed with; None when the provider has no such key.

        Raises:
            ProviderUnavailable: there are no keys that may be used.
        """
        age = self._age()
        if age is None or age > USABLE_S:
            await self._refresh()
            age = self._age()
            if age is None or age > USABLE_S:
                raise ProviderUnavailable("the identity provider's keys cannot be fetched")
        elif age > FRESH_S and not self._lock.locked():
            await self._refresh()  # one waits for it, the others go on with what there is
        found = self._find(kid, algorithm)
        if found is None:
            await self._refresh()
            found = self._find(kid, algorithm)
        return found

    def _age(self) -> float | None:
        return None if self._fetched_at is None else self._clock() - self._fetched_at

    def _find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        """Without a `kid` the key must be the only one that fits, for trying one after the other would let a
        token be signed by whichever is weakest."""
        fitting = [found for key in self._keys if kid in (None, key.kid) and (found := _fit(key, algorithm))]
        return fitting[0] if len(fitting) == 1 else None

    async def _refresh(self) -> None:
        """Fetches the keys unless that was just tried. Keeps what there is when it fails."""
        async with self._lock:
            now = self._clock()
            if self._tried_at is not None and now - self._tried_at < REFETCH_S:
                return
            self._tried_at = now
            try:
                uri = self._jwks_uri or (await self.metadata()).jwks_uri
                self._keys = _read_keys(await self._get(uri))
                self._fetched_at = self._clock()
            except ProviderUnavailable as error:
                log.warning("identity provider's keys not fetched issuer=%s reason=%s", self.issuer, error)

    async def metadata(self) -> Metadata:
        """The provider's endpoints, fetched once.

        Raises:
            ProviderUnavailable
        """
        async with self._metadata_lock:
            if self._metadata is None:
                now = self._clock()
                if self._metadata_tried_at is not None and now - self._metadata_tried_at < TIMEOUT_S:
                    raise ProviderUnavailable("the identity provider does not answer")
                self._metadata_tried_at = now
                found = await self._get(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
                self._metadata = _read_metadata(found, self.issuer)
            return self._metadata

    async def _get(self, url: str) -> dict[str, Any]:
        return await self.request("GET", url)

    async def request(
        self,
        method: str,
        url: str,
        *,
        form: Mapping[str, str] | None = None,
        login: tuple[str, str] | None = None,
    ) -> dict[str, Any]:
        """A JSON object of the provider's. Redirects are not followed: they could lead anywhere.

        Raises:
            ProviderUnavailable
        """
        if self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context, cafile=self._ca)
        try:
            async with (
                asyncio.timeout(2 * TIMEOUT_S),
                httpx.AsyncClient(verify=self._tls, timeout=TIMEOUT_S, follow_redirects=False) as client,
                client.stream(
                    method,
                    url,
                    data=form,
                    auth=login or httpx.USE_CLIENT_DEFAULT,
                    headers={"Accept": "application/json"},
                ) as response,
            ):
                body = b""
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > _MAX_BYTES:
                        raise ProviderUnavailable("the identity provider's answer is too large")
                status = response.status_code
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as error:
            raise ProviderUnavailable(f"the identity provider does not answer ({type(error).__name__})") from error
        if status != 200:
            raise ProviderUnavailable(f"the identity provider answered {status}")
        try:
            document = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ProviderUnavailable("the identity provider's answer is not JSON") from error
        if not isinstance(document, dict):
            raise ProviderUnavailable("the identity provider's answer is not an object")
        return document


def is_safe_url(url: str) -> bool:
    """Whether a provider may be spoken to there: over TLS, or on this very machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    if not host or parts.username is not None or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)


def _read_metadata(document: dict[str, Any], issuer: str) -> Metadata:
    if document.get("issuer") != issuer:
        # Another issuer's document would lend its keys to this one ("Security Considerations", impersonation).
        raise ProviderUnavailable("the discovery document names another issuer")
    endpoints = [document.get(name) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")]
    if not all(isinstance(endpoint, str) and is_safe_url(endpoint) for endpoint in endpoints):
        raise ProviderUnavailable("the discovery document lacks an endpoint, or has one without TLS")
    authorization, token, jwks = (str(endpoint) for endpoint in endpoints)
    challenges = document.get("code_challenge_methods_supported")
    if isinstance(challenges, list) and "S256" not in challenges:
        raise ProviderUnavailable("the identity provider does not support PKCE with S256")
    methods = document.get("token_endpoint_auth_methods_supported")
    return Metadata(
        authorization,
        token,
        jwks,
        tuple(str(method) for method in methods) if isinstance(methods, list) else ("client_secret_basic",),
        document.get("authorization_response_iss_parameter_supported") is True,
    )


def _read_keys(document: dict[str, Any]) -> tuple[_Key, ...]:
    """The signing keys of a set. What cannot be used is left out, as RFC 7517, 5 wants; an empty set is no
    answer."""
    listed = document.get("keys")
    keys: list[_Key] = []
    for jwk in listed[:_MAX_KEYS] if isinstance(listed, list) else ():
        if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig" or jwk.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        operations = jwk.get("key_ops", ["verify"])
        if not isinstance(operations, list) or "verify" not in operations:
            continue
        kid = jwk.get("kid")
        public = {name: value for name, value in jwk.items() if name not in ("d", "p", "q", "dp", "dq", "qi", "oth")}
        keys.append(_Key(kid if isinstance(kid, str) else None, public))
    if not keys:
        raise ProviderUnavailable("the identity provider's key set has no signing key")
    return tuple(keys)


def _fit(key: _Key, algorithm: str) -> PyJWK | None:
    """The key bound to this algorithm; None when it is not for it."""
    if key.jwk.get("alg", algorithm) != algorithm or not _is_for(key.jwk, algorithm):
        return None
    try:
        bound = PyJWK(dict(key.jwk), algorithm)
    except (PyJWTError, ValueError, TypeError):
        return None
    if isinstance(bound.key, RSAPublicKey) and bound.key.key_size < _MIN_RSA_BITS:
        return None
    return bound


_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519"}


def _is_for(jwk: Mapping[str, Any], algorithm: str) -> bool:
    if algorithm in _CURVES:
        return jwk.get("kty") == ("OKP" if algorithm == "EdDSA" else "EC") and jwk.get("crv") == _CURVES[algorithm]
    return algorithm[:2] in ("RS", "PS") and jwk.get("kty") == "RSA"
