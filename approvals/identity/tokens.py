"""Verification of a JSON Web Token by an issuer's keys (RFC 7519, RFC 8725, RFC 9068)."""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jwt
from jwt.exceptions import PyJWTError

from approvals.identity.provider import Provider

ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)  # fmt: skip
"""All that can be configured: each verifies with a public key."""

DEFAULT_ALGORITHMS = ("RS256", "ES256", "EdDSA")
MAX_TOKEN_LENGTH = 16_384
_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
_DEFINED_CLAIMS = ("iss", "aud", "exp", "iat", "sub")


class TokenRefused(Exception):
    """Not a token that lets anybody in; the message says why and holds nothing of the token."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """Tokens of one issuer for one audience.

    `required`: the claims it must have. `leeway_s` is for clocks that differ. `id_tokens`: only those (RFC 9068, 4:
    access tokens are not for logging in); otherwise either sort, since many providers give an access token no type.
    """

    provider: Provider
    audience: str
    algorithms: tuple[str, ...] = DEFAULT_ALGORITHMS
    leeway_s: float = 30.0
    id_tokens: bool = False
    required: tuple[str, ...] = _DEFINED_CLAIMS
    clock: Callable[[], float] = time.time

    async def verify(self, token: str) -> dict[str, Any]:
        """The claims of a token whose signature, issuer, audience and times are right.

        Raises:
            TokenRefused, ProviderUnavailable
        """
        header = _header(token)
        algorithm = header.get("alg")
        if algorithm not in self.algorithms or algorithm not in ALGORITHMS:
            raise TokenRefused("the token's signature algorithm is not accepted")
        kind = str(header.get("typ", "JWT")).lower()
        if kind not in _TYPES or (self.id_tokens and "at+jwt" in kind):
            raise TokenRefused("this type of token is not accepted")
        if "crit" in header or "b64" in header or "zip" in header or "cty" in header:
            raise TokenRefused("the token asks for an extension that is not known")
        kid = header.get("kid")
        if kid is not None and not isinstance(kid, str):
            raise TokenRefused("the token's key id is not text")
        key = await self.provider.key(kid, algorithm)
        if key is None:
            raise TokenRefused("the token's key is not one of the issuer's")
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self.audience,
                issuer=self.provider.issuer,
                # Times are compared below, by a clock that tests can set, and as numbers alone.
                options={
                    "require": list(self.required),
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except PyJWTError as error:
            raise TokenRefused(_REASONS.get(type(error).__name__, "the token is malformed")) from None
        except (ValueError, TypeError, RecursionError):
            raise TokenRefused("the token is malformed") from None
        self.check_times(claims)
        if "sub" in self.required and not claims["sub"]:
            raise TokenRefused("the token has no subject")
        self._check_party(claims)
        return claims

    def check_times(self, claims: dict[str, Any]) -> None:
        """Raises:
        TokenRefused: outside the time the token is for.
        """
        now = self.clock()
        if now >= _number(claims, "exp") + self.leeway_s:
            raise TokenRefused("the token has expired")
        if "iat" in claims and now < _number(claims, "iat") - self.leeway_s:
            raise TokenRefused("the token was issued in the future")
        if "nbf" in claims and now < _number(claims, "nbf") - self.leeway_s:
            raise TokenRefused("the token is not valid yet")

    def _check_party(self, claims: dict[str, Any]) -> None:
        """An ID token for several audiences says whom it was issued to ("ID Token Validation")."""
        if not self.id_tokens:
            return
        party = claims.get("azp")
        if isinstance(claims["aud"], list) and len(claims["aud"]) > 1 and party is None:
            raise TokenRefused("the token is for several audiences and names no authorized party")
        if party is not None and party != self.audience:
            raise TokenRefused("the token was issued to another client")


_REASONS = {
    "InvalidSignatureError": "the token's signature is wrong",
    "InvalidAudienceError": "the token is for another audience",
    "InvalidIssuerError": "the token is from another issuer",
    "MissingRequiredClaimError": "the token lacks a claim (iss, aud, exp, iat and sub are needed)",
}


def looks_like_jwt(text: str) -> bool:
    """Whether this is to be read as a token of an issuer rather than as a static one. `eyJ` begins the
    Base64 of every JSON object with a name."""
    return text.startswith("eyJ") and text.count(".") == 2


def _header(token: str) -> dict[str, Any]:
    if len(token) > MAX_TOKEN_LENGTH or not token.isascii():
        raise TokenRefused("the token is malformed")
    first = token.partition(".")[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))
    except (ValueError, RecursionError, binascii.Error):
        raise TokenRefused("the token is malformed") from None
    if not isinstance(header, dict):
        raise TokenRefused("the token is malformed")
    return header


def _number(claims: dict[str, Any], name: str) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise TokenRefused(f"the token's {name} is not a time")
    return float(value)
