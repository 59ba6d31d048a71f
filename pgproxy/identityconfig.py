"""Sections of the configuration about who people and agents are. `pgproxy.config` puts them in their places."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pgproxy.dsn import Secret

Role = Literal["reviewer", "auditor", "admin"]
# Each verifies with a public key. `none` and the HS family are no choice: RFC 8725, 3.2.
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_DEFAULT_ALGORITHMS: tuple[Algorithm, ...] = ("RS256", "ES256", "EdDSA")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _https(url: str) -> str:
    """A provider is spoken to over TLS, or on this very machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("https", "http") or not host or parts.username is not None:
        raise ValueError("must be an https:// URL")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise ValueError("must be https: over plain http anybody on the way could say who is who")
    if parts.query or parts.fragment:
        raise ValueError("must have neither ? nor #")
    return url


def _origin(url: str) -> str:
    _https(url)
    parts = urlsplit(url)
    if parts.path not in ("", "/"):
        raise ValueError("must be scheme, host and port alone: paths below another site are not supported")
    default = {"https": 443, "http": 80}[parts.scheme]
    host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port not in (None, default) else "")


def _host(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", name):
        raise ValueError("must be a host's name, without scheme and port")
    return name.lower()


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise ValueError("must be an address or a network (10.0.0.0/8)") from None


Https = Annotated[str, AfterValidator(_https)]
Origin = Annotated[str, AfterValidator(_origin)]
HostName = Annotated[str, AfterValidator(_host)]
Network = Annotated[str, AfterValidator(_network)]
Text = Annotated[str, Field(min_length=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Oidc(_Section):
    """People's identity provider. A configured reviewer is found by `identities.oidc`; who is none has the roles of
    `role_map` (group: roles) and `default_roles`."""

    issuer: Https
    client_id: Text
    client_secret: Secret | None = None
    audience: Text | None = None  # of tokens for the API; left out: client_id
    scopes: tuple[Text, ...] = ("openid", "email", "profile")
    name_claim: Text = "email"
    require_verified_email: bool = True
    groups_claim: Text | None = None
    machine_claim: Text | None = None
    role_map: dict[str, tuple[Role, ...]] = {}
    default_roles: tuple[Role, ...] = ()
    algorithms: tuple[Algorithm, ...] = Field(default=_DEFAULT_ALGORITHMS, min_length=1)
    leeway_s: float = Field(default=30.0, ge=0, le=300)
    ca: Path | None = None


class WebSessions(_Section):
    """How long a login at the console lasts: without doing anything, and at most."""

    idle_s: float = Field(default=8 * 3600.0, ge=60, le=30 * 86_400)
    absolute_s: float = Field(default=24 * 3600.0, ge=60, le=30 * 86_400)


class AgentJwt(_Section):
    """Whose tokens agents may give as their password, in broker mode. `agent_claim` holds what an agent's
    `jwt_subject` says."""

    issuer: Https
    audience: Text
    jwks_uri: Https | None = None  # left out: the issuer's discovery document names it
    agent_claim: Text = "sub"
    algorithms: tuple[Algorithm, ...] = Field(default=_DEFAULT_ALGORITHMS, min_length=1)
    leeway_s: float = Field(default=30.0, ge=0, le=300)
    ca: Path | None = None


class Identities(_Section):
    """Who a reviewer is elsewhere: at the identity provider (`sub`, or a verified e-mail address), in Slack (member
    id), in Teams (object id)."""

    oidc: Text | None = None
    slack: Text | None = None
    teams: Text | None = None

    def given(self) -> dict[str, str]:
        return {name: value for name, value in self.model_dump().items() if value is not None}
