"""What a configuration says about sessions, in the data plane's own words. Pure."""

from __future__ import annotations

import classifier
from classifier.model import Classification, Environment
from pgproxy.config import AuthMode, Settings
from pgproxy.net.admission import Places
from pgproxy.net.auth import AgentAuthenticator
from pgproxy.net.listener import ListenerOptions, Terms
from pgproxy.net.startup import Access, AgentAccount
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
    mode = Mode(settings.mode.value)
    if settings.auth.mode is AuthMode.PASSTHROUGH:
        owners = {agent.name: agent.owner for agent in settings.agents if agent.owner is not None}
        return Access(mode, None, owners=owners, default_owner=settings.auth.default_owner)
    accounts: dict[str, AgentAccount] = {}
    secrets: dict[str, str] = {}
    for agent in settings.agents:
        assert agent.password is not None and agent.owner is not None, "checked with the configuration"
        login = agent.upstream
        user = login.user if login else settings.upstream.dsn.user or agent.name
        password = login.password if login else settings.upstream.dsn.password
        accounts[agent.name] = AgentAccount(
            agent.name,
            agent.owner,
            user,
            password.get_secret_value() if password else None,
            agent.databases or (),
        )
        secrets[agent.name] = agent.password.get_secret_value()
    return Access(mode, AgentAuthenticator(secrets, mock_key), accounts)


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
    scheme = "https" if settings.api.tls else "http"
    return f"{scheme}://{settings.api.listen}"


def classify_setting(text: str) -> Classification:
    """Start-up settings are short: judged in this process, once a session."""
    return classifier.classify(text, Environment())
