"""Checks of the configuration about who people and agents are, as `pgproxy.configcheck` does the others. Reads the
certificates that are named, and nothing else."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pgproxy.configcheck import Finding, folded, is_loopback

if TYPE_CHECKING:
    from pgproxy.config import Settings

_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 (compared with)


def identity_problems(settings: Settings) -> list[Finding]:
    """Everything wrong, in the order of the contract's keys."""
    return [finding for check in (_api, _oidc, _agents, _identities) for finding in check(settings)]


def _api(settings: Settings) -> Iterator[Finding]:
    api = settings.api
    if api.tls is not None:
        if reason := _unusable_pair(api.tls.cert, api.tls.key):
            yield ("api", "tls"), reason
        if api.external_url is not None and api.external_url.startswith("http:"):
            yield ("api", "external_url"), "is plain http, and api.tls serves https alone"
    if api.proxies and not api.behind_proxy:
        yield ("api", "proxies"), "has no effect without api.behind_proxy: true"
    if api.sessions.idle_s > api.sessions.absolute_s:
        yield ("api", "sessions", "idle_s"), "is longer than absolute_s, so it would never count"


def _oidc(settings: Settings) -> Iterator[Finding]:
    api, oidc = settings.api, settings.api.oidc
    if oidc is None:
        if not api.static_login:
            yield ("api", "static_login"), "is off and there is no api.oidc: nobody could log in at the console"
        return
    here = is_loopback(api.listen.host) or (api.tls is not None and api.listen.host not in _EVERY_ADDRESS)
    if api.external_url is None and (api.behind_proxy or not here):
        yield ("api", "oidc"), "needs api.external_url: the identity provider sends people back there"
    if oidc.role_map and oidc.groups_claim is None:
        yield ("api", "oidc", "role_map"), "has no effect without groups_claim: which claim names the groups?"
    linked = any(reviewer.identities.oidc is not None for reviewer in settings.reviewers)
    if not oidc.role_map and not oidc.default_roles and not linked:
        yield (
            ("api", "oidc"),
            "would give nobody a role: set role_map with groups_claim, default_roles, or a reviewer's identities.oidc",
        )
    if oidc.ca is not None and (reason := _unusable_ca(oidc.ca)):
        yield ("api", "oidc", "ca"), reason
    for index, reviewer in enumerate(settings.reviewers):
        if reviewer.token is not None and reviewer.token.get_secret_value().startswith("eyJ"):
            yield ("reviewers", index, "token"), "looks like a JWT, which api.oidc would verify: choose another"


def _agents(settings: Settings) -> Iterator[Finding]:
    jwt = settings.auth.jwt
    subjects: dict[str, str] = {}
    for index, agent in enumerate(settings.agents):
        place = ("agents", index, "jwt_subject")
        if agent.jwt_subject is None:
            continue
        if jwt is None:
            yield place, "has no effect without auth.jwt: whose tokens are they?"
        if agent.password is not None:
            yield place, f"agent {agent.name!r} has a password too; an agent logs in one way"
        other = subjects.setdefault(agent.jwt_subject, agent.name)
        if other != agent.name:
            yield place, f"is the subject of {other!r} too"
    if jwt is None:
        return
    if settings.auth.mode != "broker":
        yield ("auth", "jwt"), "is for auth.mode broker; in passthrough the server itself authenticates the client"
    elif not subjects:
        yield ("auth", "jwt"), "lets nobody in: give an agent its jwt_subject"
    elif settings.tls.mode == "disable":
        yield ("auth", "jwt"), "a token crosses the network as a password does, so agents need TLS: set tls.mode"
    if jwt.ca is not None and (reason := _unusable_ca(jwt.ca)):
        yield ("auth", "jwt", "ca"), reason


def _identities(settings: Settings) -> Iterator[Finding]:
    """An identity is its owner's alone, and no agent's."""
    agents = {folded(agent.name) for agent in settings.agents}
    subjects = {agent.jwt_subject for agent in settings.agents if agent.jwt_subject is not None}
    names = {folded(reviewer.name): reviewer.name for reviewer in settings.reviewers}
    seen: dict[tuple[str, str], str] = {}
    for index, reviewer in enumerate(settings.reviewers):
        for channel, value in reviewer.identities.given().items():
            place = ("reviewers", index, "identities", channel)
            if not folded(value):
                yield place, "is blank"
            if folded(value) in agents or (channel == "oidc" and value in subjects):
                yield place, f"{value!r} is an agent, and agents never approve"
            other = seen.setdefault((channel, folded(value)), reviewer.name)
            if other != reviewer.name:
                yield place, f"is linked to {other!r} already"
            namesake = names.get(folded(value), reviewer.name)
            if namesake != reviewer.name:
                yield place, f"is the name of another reviewer, {namesake!r}"
        if reviewer.identities.oidc is not None and settings.api.oidc is None:
            yield ("reviewers", index, "identities", "oidc"), "has no effect without api.oidc"


def _unusable_pair(cert: Path, key: Path) -> str | None:
    for name, path in (("cert", cert), ("key", key)):
        try:
            path.read_bytes()
        except OSError as error:
            return f"{name} {path} cannot be read: {error.strerror}"
    try:
        # An empty password, so that an encrypted key is a refusal and not a question on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or "not PEM, or the key is encrypted"
        return f"{cert} and {key} cannot be used together ({reason})"
    return None


def _unusable_ca(ca: Path) -> str | None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca)
    except ssl.SSLError as error:
        return f"{ca} is no certificate ({error.reason or 'not PEM'})"
    except OSError as error:
        return f"{ca} cannot be read: {error.strerror}"
    return None
