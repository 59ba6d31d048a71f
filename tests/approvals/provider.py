"""An OpenID provider as a real one behaves on the wire: discovery, rotating keys, authorize, token with PKCE."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms


@dataclass
class SigningKey:
    kid: str
    algorithm: str
    private: Any

    @classmethod
    def new(cls, kid: str, algorithm: str = "ES256", bits: int = 2048) -> SigningKey:
        match algorithm:
            case "ES256":
                return cls(kid, algorithm, ec.generate_private_key(ec.SECP256R1()))
            case "EdDSA":
                return cls(kid, algorithm, ed25519.Ed25519PrivateKey.generate())
            case _:
                return cls(kid, algorithm, rsa.generate_private_key(65537, bits))

    def public(self) -> dict[str, Any]:
        found = json.loads(get_default_algorithms()[self.algorithm].to_jwk(self.private.public_key()))
        return {**found, "kid": self.kid, "use": "sig", "alg": self.algorithm}


@dataclass
class FakeProvider:
    """`user` is who is logged in at the provider; `claims` go into every ID token on top of that."""

    client_id: str = "pgproxy"
    client_secret: str | None = "s3cret of the client"
    user: dict[str, Any] = field(
        default_factory=lambda: {"sub": "u-bob", "email": "bob@example.com", "email_verified": True}
    )
    claims: dict[str, Any] = field(default_factory=dict)
    keys: list[SigningKey] = field(default_factory=lambda: [SigningKey.new("k1")])
    extra_keys: list[Any] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    issuer: str = ""
    fetches: dict[str, int] = field(default_factory=dict)
    is_down: bool = False
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    # tokens

    def sign(self, claims: dict[str, Any], *, key: SigningKey | None = None, **header: Any) -> str:
        key = key or self.keys[0]
        headers = {"kid": key.kid, **header}
        return jwt.encode(claims, key.private, key.algorithm, {name: v for name, v in headers.items() if v is not None})

    def access_claims(self, **changes: Any) -> dict[str, Any]:
        """Of a good token for the API; None takes a claim out."""
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": self.client_id, "iat": now, "exp": now + 300, **self.user, **changes}
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, **changes: Any) -> str:
        return self.sign(self.access_claims(**changes))

    # a person's browser at the provider

    def authorize(self, url: str, *, user: dict[str, Any] | None = None) -> str:
        """The person logs in and agrees; where their browser is sent back to."""
        parts = urlsplit(url)
        assert url.startswith(f"{self.issuer}/authorize")
        query = {name: values[0] for name, values in parse_qs(parts.query, strict_parsing=True).items()}
        assert query["response_type"] == "code"
        assert query["client_id"] == self.client_id
        assert query["code_challenge_method"] == "S256"
        assert "openid" in query["scope"].split()
        code = secrets.token_urlsafe(16)
        self._codes[code] = {**query, "user": json.dumps(user or self.user)}
        response = {"code": code, "state": query["state"], "iss": self.issuer}
        return f"{query['redirect_uri']}?{urlencode(response)}"

    # HTTP

    def _discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            **self.metadata,
        }

    def _exchange(self, headers: dict[str, str], body: str) -> tuple[int, dict[str, Any]]:
        form = {name: values[0] for name, values in parse_qs(body).items()}
        if self.client_secret is None:
            client = form.get("client_id")
        else:
            given = base64.b64decode(headers.get("authorization", "").removeprefix("Basic ")).decode()
            client, _, secret = given.partition(":")
            if unquote(secret) != self.client_secret:
                return 401, {"error": "invalid_client"}
        grant = self._codes.pop(form.get("code", ""), None)  # good for one exchange
        if grant is None or unquote(client or "") != self.client_id or form.get("grant_type") != "authorization_code":
            return 400, {"error": "invalid_grant"}
        challenge = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        fits = base64.urlsafe_b64encode(challenge).decode().rstrip("=") == grant["code_challenge"]
        if not fits or form.get("redirect_uri") != grant["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        changes: dict[str, Any] = {"nonce": grant["nonce"], **json.loads(grant["user"])}
        if "max_age" in grant:
            changes["auth_time"] = int(time.time())
        id_token = self.sign(self.access_claims(**{**changes, **self.claims}))
        return 200, {"access_token": "at", "token_type": "Bearer", "id_token": id_token}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, path, _ = head[0].split(" ")
            headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in head[1:] if line)}
            body = (await reader.readexactly(int(headers.get("content-length", "0")))).decode()
            self.fetches[path] = self.fetches.get(path, 0) + 1
            status, answer = self._answer(method, path, headers, body)
            content = json.dumps(answer).encode()
            writer.write(
                b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
                % (status, len(content))
                + content
            )
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, method: str, path: str, headers: dict[str, str], body: str) -> tuple[int, dict[str, Any]]:
        match (method, path):
            case _ if self.is_down:
                return 503, {}
            case ("GET", "/.well-known/openid-configuration"):
                return 200, self._discovery()
            case ("GET", "/jwks"):
                return 200, {"keys": [key.public() for key in self.keys] + self.extra_keys}
            case ("POST", "/token"):
                return self._exchange(headers, body)
            case _:
                return 404, {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeProvider]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.issuer = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            await server.wait_closed()
