"""The terminal commands against a live server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from approvals.api import Services, create_app, serve
from approvals.reviewers import ReviewerSpec
from approvals.terminal import app
from tests.approvals.conftest import ALICE, BOB, CAROL, Store, request
from tests.approvals.fakes import FakeJudge, FakeServices


class Terminal:
    def __init__(self, address: str) -> None:
        self.environment = {"PGPROXY_API": address, "PGPROXY_TOKEN": BOB.token}

    async def run(
        self, *arguments: str, by: ReviewerSpec | None = BOB, stdin: str | None = None, **environment: str | None
    ) -> Result:
        token = by.token if by else None
        variables = self.environment | {"PGPROXY_TOKEN": token} | environment
        return await asyncio.to_thread(CliRunner().invoke, app, list(arguments), env=variables, input=stdin)


@pytest.fixture
async def terminal(store: Store) -> AsyncIterator[Terminal]:
    fake = FakeServices()
    services = Services(
        store.pool, store.wakeups, fake, fake, fake.sessions, fake, fake.readiness, fake.reloader, judge=FakeJudge()
    )
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


async def test_modify_from_a_file_and_from_standard_input_shows_the_difference(
    terminal: Terminal, store: Store, tmp_path: Path
) -> None:
    file = tmp_path / "new.sql"
    file.write_text("COPY (SELECT id FROM customers) TO STDOUT")
    opened = await store.gateway.open(request(sql="COPY customers\nTO STDOUT -- \u202e"))
    changed = await terminal.run("modify", opened.id, "--sql", str(file), "--comment", "fewer columns")
    assert changed.exit_code == 0, changed.output
    lines = changed.stdout.splitlines()
    assert lines[0] == f"modified  by {BOB.name}"
    for expected in (
        "  -COPY customers",
        "  -TO STDOUT -- \u27e6U+202E\u27e7",
        "  +COPY (SELECT id FROM customers) TO STDOUT",
    ):
        assert expected in lines
    assert lines[-1] == f"{opened.id} approved"
    shown = await terminal.run("show", opened.id)
    assert "  -COPY customers" in shown.stdout
    assert f"vote      modify by {BOB.name}" in shown.stdout
    second = await store.gateway.open(request())
    read = await terminal.run("modify", second.id, "--sql", "-", "--json", stdin="SELECT 1")
    assert json.loads(read.stdout)["statement"]["sql"] == "SELECT 1"
    assert (await terminal.run("modify", second.id)).exit_code == 2
    assert (await terminal.run("modify", second.id, "--sql", str(tmp_path / "nothing"))).exit_code == 2


async def test_a_grant_from_approval_to_revocation(terminal: Terminal, store: Store) -> None:
    opened = await store.gateway.open(request())
    options = ["--for", "15m", "--times", "3", "--scope", "text", "--row-cap", "100"]
    approved = await terminal.run("approve", opened.id, *options)
    assert approved.exit_code == 0, approved.output
    grant_id = approved.stdout.splitlines()[1].removeprefix("grant ")
    listed = await terminal.run("grants", "list")
    assert listed.stdout.startswith(f"{grant_id}  text")
    assert "3 of 3  rows 100  by bob@example.com" in listed.stdout
    [found] = json.loads((await terminal.run("grants", "list", "--agent", "etl-bot", "--json")).stdout)["items"]
    assert (found["uses"], found["row_cap"], found["scope"]) == (3, 100, "text")
    assert (await store.gateway.open(request())).status == "approved"
    assert (await terminal.run("grants", "revoke", grant_id)).stdout == f"{grant_id} revoked\n"
    assert (await terminal.run("grants", "list")).stdout == ""
    assert "(ended)" in (await terminal.run("grants", "list", "--all")).stdout
    again = await terminal.run("grants", "revoke", grant_id, "--json")
    assert (again.exit_code, json.loads(again.stdout)["error"][:3]) == (1, "404")


async def test_a_row_cap_alone_is_no_grant(terminal: Terminal, store: Store) -> None:
    opened = await store.gateway.open(request())
    done = json.loads((await terminal.run("approve", opened.id, "--row-cap", "5", "--json")).stdout)
    assert (done["row_cap"], done["made_grant_id"]) == (5, None)


@pytest.mark.parametrize("time", ["", "m", "-5m", "1.5h", "15 minutes", "\u0661m"])
async def test_a_time_is_a_number_and_a_unit(terminal: Terminal, store: Store, time: str) -> None:
    opened = await store.gateway.open(request())
    assert (await terminal.run("approve", opened.id, "--for", time)).exit_code == 2
    assert await store.status(opened.id) == "pending"


async def test_a_grant_that_not_everybody_gave_is_said_to_be_none(terminal: Terminal, store: Store) -> None:
    opened = await store.gateway.open(request(required_approvals=2, approver_groups=[]))
    await terminal.run("approve", opened.id, by=CAROL)
    done = await terminal.run("approve", opened.id, "--times", "3")
    assert (done.stdout, "no grant" in done.stderr) == (f"{opened.id} approved\n", True)


async def test_comment_history_and_search(terminal: Terminal, store: Store) -> None:
    first, second = await store.gateway.open(request()), await store.gateway.open(request())
    said = await terminal.run("comment", first.id, "why \u202e?")
    assert said.stdout == f"{first.id} pending, 1 comment(s)\n"
    assert "why \u27e6U+202E\u27e7?" in (await terminal.run("show", first.id)).stdout
    assert (await terminal.run("history", second.id)).stdout.startswith(first.id)
    found = await terminal.run("list", "--search", "customers", "--class", "export", "--risk", "high")
    assert len(found.stdout.splitlines()) == 2
    assert (await terminal.run("list", "--database", "elsewhere")).stdout == ""


async def test_notifications(terminal: Terminal, store: Store) -> None:
    opened = await store.gateway.open(request())
    await store.pool.execute(
        "INSERT INTO approvals.deliveries (message_id, target, channel_kind, approval_id, kind, key, last_error) "
        "VALUES ('m1', 'slack:#dba', 'slack', $1, 'opened', '1', E'gone\u202e')",
        opened.id,
    )
    listed = await terminal.run("notifications", "--state", "waiting", by=CAROL)
    assert opened.id in listed.stdout
    assert "waiting  slack:#dba  opened" in listed.stdout
    assert "gone\u27e6U+202E\u27e7" in listed.stdout
    assert (await terminal.run("notifications", "--target", "webhook:x", by=CAROL)).stdout == ""
    [found] = json.loads((await terminal.run("notifications", "--json", by=CAROL)).stdout)["items"]
    assert found["message_id"] == "m1"
    assert (await terminal.run("notifications", by=BOB)).exit_code == 1
