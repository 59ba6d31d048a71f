"""One OpenID Connect provider as a whole: its tokens for the API and the login for the console."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from approvals.identity.login import CodeFlow
from approvals.identity.people import Claims
from approvals.identity.provider import Provider
from approvals.identity.tokens import DEFAULT_ALGORITHMS, Verifier


@dataclass(frozen=True, slots=True)
class Oidc:
    provider: Provider
    claims: Claims
    bearer: Verifier
    flow: CodeFlow

    @property
    def issuer(self) -> str:
        return self.provider.issuer

    @classmethod
    def of(
        cls,
        issuer: str,
        client_id: str,
        redirect_uri: str,
        *,
        client_secret: str | None = None,
        audience: str | None = None,
        scopes: tuple[str, ...] = ("openid", "email", "profile"),
        claims: Claims | None = None,
        algorithms: tuple[str, ...] = DEFAULT_ALGORITHMS,
        leeway_s: float = 30.0,
        ca: Path | None = None,
    ) -> Oidc:
        """The parts, over one set of keys. `audience`: of the API's tokens; left out, the client's id."""
        provider = Provider(issuer, ca=ca)
        claims = claims if claims is not None else Claims()
        return cls(
            provider,
            claims,
            Verifier(provider, audience or client_id, algorithms, leeway_s),
            CodeFlow(
                provider,
                client_id,
                redirect_uri,
                claims,
                Verifier(provider, client_id, algorithms, leeway_s, id_tokens=True),
                client_secret,
                scopes,
            ),
        )
