"""Logging in at the provider: authorization code with PKCE (RFC 6749, 7636, 9700; "OpenID Connect Core 1.0").

`begin` makes what the browser keeps until it is back (`Attempt`) and where it is sent; `finish` turns the
provider's response into an identity. The attempt lies in a cookie of that browser alone, so a response that
was begun elsewhere is refused, and nothing is kept here for whoever only begins.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from approvals.identity.people import Claims, ClaimsRefused, Identity
from approvals.identity.provider import Provider, ProviderUnavailable
from approvals.identity.tokens import TokenRefused, Verifier

ATTEMPT_S = 600
_STATE_LENGTH = 43


class LoginRefused(Exception):
    """This login does not count; the message is safe to show."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One login under way. `max_age`: how long ago the person may have proved themselves to the provider."""

    state: str
    nonce: str
    verifier: str
    target: str
    begun: int
    max_age: int | None = None

    def to_cookie(self) -> str:
        return base64.urlsafe_b64encode(json.dumps(asdict(self)).encode()).decode().rstrip("=")

    @classmethod
    def from_cookie(cls, value: str) -> Attempt | None:
        try:
            found = json.loads(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)))
            attempt = cls(**found)
        except (ValueError, TypeError, RecursionError):
            return None
        texts = (attempt.state, attempt.nonce, attempt.verifier)
        if not all(isinstance(text, str) and len(text) == _STATE_LENGTH for text in texts):
            return None
        if not isinstance(attempt.target, str) or type(attempt.begun) is not int:
            return None
        return attempt if attempt.max_age is None or type(attempt.max_age) is int else None


@dataclass(frozen=True, slots=True)
class LoggedIn:
    identity: Identity
    auth_time: datetime | None


@dataclass(frozen=True, slots=True)
class CodeFlow:
    """A client of one provider. `redirect_uri` is registered there, and is the only place it answers to."""

    provider: Provider
    client_id: str
    redirect_uri: str
    claims: Claims
    verifier: Verifier
    client_secret: str | None = None
    scopes: tuple[str, ...] = ("openid", "email", "profile")
    clock: Callable[[], float] = time.time

    async def begin(self, target: str, max_age: int | None = None) -> tuple[Attempt, str]:
        """A new attempt, and the provider's page to send the browser to.

        Raises:
            ProviderUnavailable
        """
        endpoint = (await self.provider.metadata()).authorization_endpoint
        attempt = Attempt(
            secrets.token_urlsafe(32),
            secrets.token_urlsafe(32),
            secrets.token_urlsafe(32),
            target,
            int(self.clock()),
            max_age,
        )
        challenge = hashlib.sha256(attempt.verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": " ".join(dict.fromkeys(("openid", *self.scopes))),
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": base64.urlsafe_b64encode(challenge).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        if max_age is not None:
            query["max_age"] = str(max_age)
        separator = "&" if urlsplit(endpoint).query else "?"
        return attempt, endpoint + separator + urlencode(query)

    async def finish(self, attempt: Attempt, response: Mapping[str, str]) -> LoggedIn:
        """Who came back with this response.

        Raises:
            LoginRefused, ProviderUnavailable
        """
        if not hmac.compare_digest(response.get("state", "").encode(), attempt.state.encode()):
            raise LoginRefused("this login was not begun in this browser")
        if not 0 <= self.clock() - attempt.begun < ATTEMPT_S:
            raise LoginRefused("this login took too long")
        metadata = await self.provider.metadata()
        issuer = response.get("iss")
        if (issuer is not None or metadata.iss_in_response) and issuer != self.provider.issuer:
            raise LoginRefused("the response is from another identity provider")  # RFC 9207, mix-up
        if "error" in response:
            raise LoginRefused("the identity provider did not log you in")
        code = response.get("code")
        if not code:
            raise LoginRefused("the identity provider's response has no code")
        token = await self._exchange(code, attempt.verifier, metadata.token_auth_methods, metadata.token_endpoint)
        try:
            claims = await self.verifier.verify(token)
            nonce = claims.get("nonce")
            if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(), attempt.nonce.encode()):
                raise LoginRefused("the identity provider's token is of another login")
            auth_time = self._auth_time(claims, attempt.max_age)
            return LoggedIn(self.claims.identity(claims), auth_time)
        except (TokenRefused, ClaimsRefused) as error:
            raise LoginRefused(str(error)) from error

    async def _exchange(self, code: str, verifier: str, methods: tuple[str, ...], endpoint: str) -> str:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": verifier,
        }
        login: tuple[str, str] | None = None
        if self.client_secret is not None and "client_secret_basic" in methods:
            # Both are form-encoded first (RFC 6749, 2.3.1).
            login = (quote(self.client_id, safe=""), quote(self.client_secret, safe=""))
        else:
            form["client_id"] = self.client_id
            if self.client_secret is not None:
                form["client_secret"] = self.client_secret
        try:
            answer = await self.provider.request("POST", endpoint, form=form, login=login)
        except ProviderUnavailable as error:
            raise LoginRefused(f"the code could not be exchanged: {error}") from error
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise LoginRefused("the identity provider gave no ID token")
        return token

    def _auth_time(self, claims: dict[str, Any], max_age: int | None) -> datetime | None:
        """When they proved themselves. With `max_age` the provider must say, and it must be recent enough."""
        found = claims.get("auth_time")
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < 1 << 33:
            if max_age is not None:
                raise LoginRefused("the identity provider does not say when you logged in")
            return None
        if max_age is not None and self.clock() - found > max_age + self.verifier.leeway_s:
            raise LoginRefused("a fresh login was asked for, and the identity provider used an old one")
        return datetime.fromtimestamp(found, UTC)


_NO_TARGETS = ("/login", "/logout", "/oidc", "/static", "/v1")


def own_path(target: str | None) -> str:
    """`target` if it is a path of ours to go to after a login, else `/`.

    Browsers drop tabs and line ends, and take a backslash for a slash ("URL", WHATWG), so that `/\\t/evil` and
    `/\\evil` lead away; nothing that needs either is accepted.
    """
    if not target or len(target) > 2000 or target[0] != "/" or target[1:2] in ("/", "\\"):
        return "/"
    if any(not "!" <= char <= "~" or char == "\\" for char in target):
        return "/"
    parts = urlsplit(target)
    if parts.scheme or parts.netloc or any((parts.path + "/").startswith(f"{own}/") for own in _NO_TARGETS):
        return "/"
    return target
