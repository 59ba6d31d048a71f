"""The terminal commands against a live server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from approvals.api import Services, create_app, serve
from approvals.reviewers import ReviewerSpec
from approvals.terminal import app
from tests.approvals.conftest import ALICE, BOB, Store, request
from tests.approvals.fakes import FakeServices


class Terminal:
    def __init__(self, address: str) -> None:
        self.environment = {"PGPROXY_API": address, "PGPROXY_TOKEN": BOB.token}

    async def run(self, *arguments: str, by: ReviewerSpec | None = BOB, **environment: str | None) -> Result:
        token = by.token if by else None
        variables = self.environment | {"PGPROXY_TOKEN": token} | environment
        return await asyncio.to_thread(CliRunner().invoke, app, list(arguments), env=variables)


@pytest.fixture
async def terminal(store: Store) -> AsyncIterator[Terminal]:
    fake = FakeServices()
    services = Services(store.pool, store.wakeups, fake, fake, fake.sessions, fake, fake.readiness)
    async with serve(create_app(services), "127.0.0.1", 0) as server:
        yield Terminal(f"http://127.0.0.1:{server.port}")


async def test_list_and_show(terminal: Terminal, store: Store) -> None:
    opened = await store.gateway.open(
        request(sql="COPY t TO STDOUT -- \x1b[2J\u202e", params=[{"type": "text", "value": "secret\x07"}])
    )
    listed = await terminal.run("list")
    assert listed.exit_code == 0
    assert opened.id in listed.stdout
    shown = await terminal.run("show", opened.id)
    assert shown.exit_code == 0
    for expected in ("etl-bot", "alice@example.com", "10.0.0.7:51234", "monthly export", "OPS-12", "high", "exports"):
        assert expected in shown.stdout
    assert "  | COPY t TO STDOUT -- \u27e6U+001B\u27e7[2J\u27e6U+202E\u27e7" in shown.stdout
    assert "  | secret\u27e6U+0007\u27e7" in shown.stdout
    assert "sends table rows to the client" in shown.stdout
    assert "expires" in shown.stdout
    assert "\x1b" not in shown.stdout + listed.stdout


async def test_json_is_the_apis_own(terminal: Terminal, store: Store) -> None:
    opened = await store.gateway.open(request())
    shown: dict[str, Any] = json.loads((await terminal.run("show", opened.id, "--json")).stdout)
    assert shown["id"] == opened.id
    listed = json.loads((await terminal.run("list", "--json")).stdout)
    assert listed == {"items": [shown], "next": None}
    approved = json.loads((await terminal.run("approve", opened.id, "--json")).stdout)
    assert approved["status"] == "approved"


async def test_approve_and_deny_with_a_comment(terminal: Terminal, store: Store) -> None:
    first, second = await store.gateway.open(request()), await store.gateway.open(request(required_approvals=2))
    denied = await terminal.run("deny", first.id, "--comment", "not today")
    assert (denied.exit_code, denied.stdout) == (0, f"{first.id} denied\n")
    assert (await store.gateway.wait(first.id)).comment == "not today"
    voted = await terminal.run("approve", second.id)
    assert voted.stdout == f"{second.id} pending, 1 more approval(s) needed\n"
    assert (await terminal.run("list", "--status", "denied")).stdout.startswith(first.id)
    assert len((await terminal.run("list", "--status", "all")).stdout.splitlines()) == 2


async def test_what_the_api_refuses_is_exit_1_with_its_words(terminal: Terminal, store: Store) -> None:
    opened = await store.gateway.open(request())
    own = await terminal.run("approve", opened.id, by=ALICE)
    assert own.exit_code == 1
    assert "403: nobody decides their own request" in own.stderr
    as_json = await terminal.run("approve", opened.id, "--json", by=ALICE)
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["error"].startswith("403")
    for arguments in (["show", "../../readyz"], ["show", "nothing"], ["list", "--status", "nonsense"]):
        refused = await terminal.run(*arguments)
        assert refused.exit_code == 1, arguments
    stranger = await terminal.run("list", PGPROXY_TOKEN="stranger")
    assert (stranger.exit_code, "401" in stranger.stderr) == (1, True)


async def test_an_api_out_of_reach_is_exit_1(terminal: Terminal) -> None:
    for address in ("http://127.0.0.1:1", "nonsense", "http://[", ""):
        result = await terminal.run("list", PGPROXY_API=address)
        assert result.exit_code == 1, address
        assert "pgproxy approvals:" in result.stderr
        assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit)


async def test_wrong_usage_is_exit_2(terminal: Terminal) -> None:
    assert (await terminal.run("approve")).exit_code == 2
    assert (await terminal.run("list", "--limit", "0")).exit_code == 2
    assert (await terminal.run("nonsense")).exit_code == 2
    assert (await terminal.run("list", by=None)).exit_code == 2


async def test_watch_shows_what_waits_and_then_every_change(terminal: Terminal, store: Store) -> None:
    opened = await store.gateway.open(request())
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(terminal.run("watch", "--json", "--count", "2"))
        while not watching.done():  # until the stream is attached; then two changes end it
            later = await store.gateway.open(request())
            await store.gateway.withdraw(later.id, "left")
            await asyncio.sleep(0.05)
    result = watching.result()
    assert result.exit_code == 0
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines[0]["id"] == opened.id
    assert {line["status"] for line in lines[-2:]} <= {"pending", "withdrawn"}
    plain = await terminal.run("watch", "--count", "1", PGPROXY_TOKEN="stranger")
    assert plain.exit_code == 1
