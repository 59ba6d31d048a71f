"""What a worker makes of its configuration, and what it tells the others."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import pytest

from classifier import classify
from pgproxy.app.terms import policy_of
from pgproxy.app.worker import ForeignCancels
from pgproxy.channel import Channel, ChannelError
from pgproxy.config import Settings, build
from pgproxy.document import Document
from pgproxy.policy import Deny, Identity, Replication, decide, read_rules


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
