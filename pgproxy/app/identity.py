"""Identity providers and the web's options, from the configuration."""

from __future__ import annotations

import logging

from approvals.api.web import WebOptions
from approvals.identity.oidc import Oidc
from approvals.identity.people import Claims
from approvals.identity.provider import Provider, ProviderUnavailable
from approvals.identity.tokens import TokenRefused, Verifier
from pgproxy.config import AuthMode, Settings
from pgproxy.net.token import TokenAuthenticator, TokensUnverifiable

_log = logging.getLogger("pgproxy.app")
_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 (compared with)


def web_options(settings: Settings) -> WebOptions:
    """How browsers reach the API."""
    api = settings.api
    return WebOptions(
        external_url=api.external_url,
        hosts=frozenset((*api.hosts, api.listen.host)),
        any_ip=api.listen.host in _EVERY_ADDRESS,
        static_login=api.static_login,
        idle_s=api.sessions.idle_s,
        absolute_s=api.sessions.absolute_s,
    )


def oidc_of(settings: Settings) -> Oidc | None:
    """People's identity provider."""
    oidc = settings.api.oidc
    if oidc is None:
        return None
    return Oidc.of(
        oidc.issuer,
        oidc.client_id,
        f"{api_url(settings)}/oidc/callback",
        client_secret=oidc.client_secret.get_secret_value() if oidc.client_secret is not None else None,
        audience=oidc.audience,
        scopes=oidc.scopes,
        claims=Claims(
            oidc.name_claim,
            oidc.require_verified_email,
            oidc.groups_claim,
            oidc.machine_claim,
            oidc.role_map,
            oidc.default_roles,
        ),
        algorithms=oidc.algorithms,
        leeway_s=oidc.leeway_s,
        ca=oidc.ca,
    )


def api_url(settings: Settings) -> str:
    """Where people find the API and the console."""
    api = settings.api
    if api.external_url is not None:
        return api.external_url
    return f"{'https' if api.tls else 'http'}://{api.listen}"


def token_authenticator(settings: Settings) -> TokenAuthenticator | None:
    """For the agents that log in with tokens; None when none does."""
    jwt = settings.auth.jwt
    subjects = {agent.name: agent.jwt_subject for agent in settings.agents if agent.jwt_subject is not None}
    if jwt is None or settings.auth.mode is not AuthMode.BROKER:
        return None
    provider = Provider(jwt.issuer, jwks_uri=jwt.jwks_uri, ca=jwt.ca)
    return TokenAuthenticator(
        subjects, AgentTokens(Verifier(provider, jwt.audience, jwt.algorithms, jwt.leeway_s), jwt.agent_claim)
    )


class AgentTokens:
    """`net.token.TokenVerifier` over the approvals' verifier."""

    def __init__(self, verifier: Verifier, claim: str) -> None:
        self._verifier = verifier
        self._claim = claim

    async def subject(self, token: str) -> str | None:
        try:
            claims = await self._verifier.verify(token)
        except TokenRefused as error:
            _log.info("an agent's token was refused: %s", error)
            return None
        except ProviderUnavailable as error:
            _log.warning("an agent's token could not be verified: %s", error)
            raise TokensUnverifiable("pgproxy: tokens cannot be verified now") from error
        found = claims.get(self._claim)
        return found if isinstance(found, str) and found else None
