"""What a configuration says about sessions, in the data plane's own words. Reads certificates, and nothing else."""

from __future__ import annotations

from pathlib import Path

import classifier
from classifier.model import Classification, Environment
from pgproxy.app.identity import api_url, token_authenticator
from pgproxy.config import AuthMode, Settings
from pgproxy.net.admission import Places
from pgproxy.net.auth import AgentAuthenticator
from pgproxy.net.listener import ListenerOptions, Terms
from pgproxy.net.startup import Access, AgentAccount
from pgproxy.net.tls import ServerTls, UpstreamFiles, UpstreamTls
from pgproxy.net.upstream import Upstream
from pgproxy.policy import BUILT_IN, Mode, Policy, Replication, read_rules
from pgproxy.session.context import Limits


def terms_of(settings: Settings, mock_key: bytes) -> Terms:
    """All of it. The salts of all workers come from one `mock_key`."""
    return Terms(access_of(settings, mock_key), policy_of(settings), options_of(settings))


def options_of(settings: Settings) -> ListenerOptions:
    """Limits and manners."""
    limits = settings.limits
    return ListenerOptions(
        console=console_url(settings),
        notice=settings.notice,
        limits=Limits(
            statement_bytes=limits.statement_bytes,
            message_bytes=limits.message_bytes,
            parked_backlog_bytes=limits.parked_backlog_bytes,
        ),
        places=Places(startups=limits.startups, sessions=limits.sessions, sessions_per_agent=limits.sessions_per_agent),
        startup_timeout_s=limits.startup_timeout_s,
        idle_timeout_s=limits.idle_timeout_s,
        idle_in_transaction_timeout_s=limits.idle_in_transaction_timeout_s,
    )


def access_of(settings: Settings, mock_key: bytes) -> Access:
    """How clients get in, from the configuration. The salts of all workers come from one `mock_key`."""
    mode, tls = Mode(settings.mode.value), tls_of(settings)
    certificates = {agent.name: agent.certificate.name for agent in settings.agents if agent.certificate is not None}
    if settings.auth.mode is AuthMode.PASSTHROUGH:
        owners = {agent.name: agent.owner for agent in settings.agents if agent.owner is not None}
        return Access(
            mode,
            None,
            owners=owners,
            databases={agent.name: agent.databases for agent in settings.agents if agent.databases},
            default_owner=settings.auth.default_owner,
            tls=tls,
            certificates=certificates,
        )
    accounts: dict[str, AgentAccount] = {}
    secrets: dict[str, str] = {}
    for agent in settings.agents:
        assert agent.owner is not None, "checked with the configuration"
        login = agent.upstream
        user = login.user if login else settings.upstream.dsn.user or agent.name
        password = login.password if login else settings.upstream.dsn.password
        accounts[agent.name] = AgentAccount(
            agent.name,
            agent.owner,
            user,
            password.get_secret_value() if password else None,
            agent.databases or (),
            by_password=agent.password is not None,
        )
        if agent.password is not None:
            secrets[agent.name] = agent.password.get_secret_value()
    authenticator = AgentAuthenticator(secrets, mock_key)
    return Access(
        mode,
        authenticator,
        accounts,
        tls=tls,
        certificates=certificates,
        tokens=token_authenticator(settings),
    )


def tls_of(settings: Settings) -> ServerTls | None:
    """What clients are offered; None with `tls.mode: disable`."""
    tls = settings.tls
    if tls.mode == "disable":
        return None
    assert tls.cert is not None and tls.key is not None, "checked with the configuration"
    return ServerTls(tls.mode, tls.cert, tls.key, tls.client_ca, demand_client_cert=tls.client_cert == "required")


def upstream_of(settings: Settings) -> Upstream:
    """Where the server is, and how it is asked for TLS."""
    dsn = settings.upstream.dsn
    if not dsn.may_use_tls:
        return Upstream(dsn.host, dsn.port)
    root, cert, key = (Path(name) if name else None for name in (dsn.sslrootcert, dsn.sslcert, dsn.sslkey))
    direct = dsn.sslnegotiation == "direct"
    return Upstream(dsn.host, dsn.port, UpstreamTls(dsn.sslmode, UpstreamFiles(root, cert, key), direct=direct))


def policy_of(settings: Settings) -> Policy:
    """The policy in force. Raises `RulesError`, which reading the configuration has made impossible."""
    return Policy(
        Mode(settings.mode.value),
        settings.limits.approval_timeout_s,
        replication=Replication(settings.replication.value),
        rules=BUILT_IN if settings.policy is None else read_rules(settings.policy),
    )


def console_url(settings: Settings) -> str:
    """Where a reviewer is sent."""
    return api_url(settings)


def classify_setting(text: str) -> Classification:
    """Start-up settings are short: judged in this process, once a session."""
    return classifier.classify(text, Environment())
