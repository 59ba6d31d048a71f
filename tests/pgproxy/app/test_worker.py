"""What a worker makes of its configuration, and what it tells the others."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from approvals.gateway import Gateway
from classifier import classify
from pgproxy.app.calls import InForce
from pgproxy.app.terms import access_of, policy_of, upstream_of
from pgproxy.app.worker import ForeignCancels
from pgproxy.certificates import CertificateError
from pgproxy.channel import Channel, ChannelError
from pgproxy.config import Settings, build
from pgproxy.document import Document
from pgproxy.net.listener import Listener, Terms
from pgproxy.net.ports import Parking
from pgproxy.policy import Deny, Identity, Replication, decide, read_rules
from tests.pki import Authority


class Line:
    """A channel whose calls are answered when the test says so."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.answer = asyncio.Event()
        self.problem: Exception | None = None

    async def call(self, target: str, method: str, params: Any) -> None:
        self.calls.append((target, method, params))
        await self.answer.wait()
        if self.problem is not None:
            raise self.problem


def test_replication_connections_are_denied_unless_configured() -> None:
    assert policy_of(Settings()).replication is Replication.DENY
    assert policy_of(Settings.model_validate({"replication": "approve"})).replication is Replication.APPROVE


def test_the_rules_of_the_configuration_reach_the_worker() -> None:
    settings = build(Document("x", {"policy": {"version": 1, "rules": [{"name": "r", "decision": "deny"}]}}), {})
    policy = policy_of(Settings.from_wire(settings.to_wire()))
    decision = decide(classify("SELECT 1"), Identity("a", "b", "c", "d"), policy)
    assert isinstance(decision, Deny) and decision.rule == "r"
    assert policy.version == read_rules(settings.policy).version != policy_of(Settings()).version


async def test_a_flood_of_forged_cancels_does_not_fill_the_channel() -> None:
    line = Line()
    cancels = ForeignCancels(cast(Channel, line))
    async with asyncio.TaskGroup() as tasks:
        for number in range(100):
            tasks.create_task(cancels.send(number, b"\x01\xff"))
        await asyncio.sleep(0)
        assert len(line.calls) == 16
        line.answer.set()
    assert len(line.calls) == 100
    assert line.calls[7] == ("workers", "cancel", {"pid": 7, "secret": "01ff"})


async def test_a_cancel_that_cannot_be_passed_on_is_a_warning_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    line = Line()
    line.problem = ChannelError("closed")
    line.answer.set()
    with caplog.at_level(logging.WARNING):
        await ForeignCancels(cast(Channel, line)).send(1, b"abcd")
    assert "did not reach" in caplog.text


def test_tls_is_what_the_configuration_says(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("proxy.test")
    agent = {"owner": "alice", "upstream": {"user": "app"}}
    data: dict[str, Any] = {
        "tls": {"mode": "require", "cert": pair.cert, "key": pair.key, "client_ca": authority.path},
        "upstream": {"dsn": f"postgresql://h/?sslmode=verify-full&sslrootcert={authority.path}"},
        "auth": {"mode": "broker"},
        "agents": [
            {**agent, "name": "cert", "certificate": "cert"},
            {**agent, "name": "both", "certificate": {"san": "both.local"}, "password": "pw"},
            {**agent, "name": "bot", "password": "pw"},
        ],
    }
    settings = Settings.model_validate(data)
    access = access_of(settings, b"k")
    assert access.tls is not None and access.tls.is_required and not access.tls.demands_client_cert
    assert {name: account.by_password for name, account in access.accounts.items()} == {
        "cert": False,
        "both": True,
        "bot": True,
    }
    assert {name: (wanted.kind, wanted.value) for name, wanted in access.certificates.items()} == {
        "cert": ("cn", "cert"),
        "both": ("san", "both.local"),
    }
    assert upstream_of(settings).tls is not None
    plain = Settings()
    assert access_of(plain, b"k").tls is None
    assert upstream_of(Settings.model_validate({"upstream": {"dsn": "postgresql://h/?sslmode=disable"}})).tls is None
    assert upstream_of(Settings.model_validate({"upstream": {"dsn": "postgresql:///?host=/run"}})).tls is None


class Front:
    """A listener that only remembers."""

    def __init__(self) -> None:
        self.terms: list[Terms] = []

    def reconfigure(self, terms: Terms) -> None:
        self.terms.append(terms)


async def test_a_reload_reads_certificates_anew_and_changes_nothing_when_it_cannot(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("proxy.test")
    data = {
        "tls": {"mode": "prefer", "cert": pair.cert, "key": pair.key},
        "upstream": {"dsn": f"postgresql://h/?sslmode=verify-full&sslrootcert={authority.path}"},
    }
    settings = Settings.model_validate(data)
    front, upstream = Front(), upstream_of(settings)
    gateway = cast(Gateway, SimpleNamespace(max_open_per_agent=7))
    in_force = InForce(settings, cast(Listener, front), upstream, Parking(1), gateway, b"k")
    await in_force.replace(settings)
    assert front.terms[0].access.tls is not None and gateway.max_open_per_agent == settings.limits.open_per_agent
    pair.key.write_text("broken")
    with pytest.raises(CertificateError, match=str(pair.key)):
        await in_force.replace(settings.model_copy(update={"notice": False}))
    authority.issue("proxy.test", to=pair)
    authority.path.unlink()
    with pytest.raises(CertificateError, match=str(authority.path)):
        await in_force.replace(settings.model_copy(update={"notice": False}))
    assert len(front.terms) == 1 and in_force.settings is settings
