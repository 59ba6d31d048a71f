"""The main job, as a person with psql and curl sees it."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from tests.integration.system import System, eventually


def test_an_ordinary_statement_passes_unnoticed(system: System) -> None:
    done = system.run_psql("-At", "-c", "select count(*) > 0 from customers")
    assert (done.stdout, done.stderr, done.returncode) == ("t\n", "", 0)


def test_copy_waits_for_a_human_and_then_gives_the_servers_own_bytes(system: System, tmp_path: Path) -> None:
    ours, direct = tmp_path / "ours.csv", tmp_path / "direct.csv"
    psql = system.start_psql("-c", f"\\copy customers to '{ours}' csv")
    request = system.reviewer.pending("customers")
    assert request["requester"]["agent"] == "demo-agent"
    assert request["requester"]["client_addr"] == "127.0.0.1"
    assert request["classification"]["privileged"] is True
    assert {a["class"] for s in request["classification"]["statements"] for a in s["actions"]} == {"export"}
    assert not ours.exists() or ours.stat().st_size == 0
    assert system.reviewer.decide(request["id"], "approve", "fine").status_code == 200
    out, err = psql.communicate(timeout=30)
    assert psql.returncode == 0, err
    assert f"pgproxy: waiting for approval {request['id']}" in err
    assert out == "COPY 500\n"
    system.run_psql("-c", f"\\copy customers to '{direct}' csv", dsn=system.upstream_dsn)
    assert ours.read_bytes() == direct.read_bytes() != b""
    final = system.reviewer.status(request["id"], "executed")
    assert final["outcome"]["command_tag"] == "COPY 500"
    assert [d["reviewer"] for d in final["decisions"]] == [system.reviewer.name]


def test_the_owner_is_refused_and_nobody_decides_twice(system: System) -> None:
    psql = system.start_psql("-c", "create table approved_once (a int)")
    request = system.reviewer.pending("approved_once")
    refused = system.owner.decide(request["id"], "approve", "my own")
    assert refused.status_code == 403
    assert system.reviewer.approval(request["id"])["status"] == "pending"
    assert system.reviewer.decide(request["id"], "approve").status_code == 200
    assert psql.communicate(timeout=30)[0] == "CREATE TABLE\n"
    assert system.reviewer.decide(request["id"], "deny").status_code == 409


def test_without_a_token_nothing_is_told(system: System) -> None:
    import httpx

    assert httpx.get(f"{system.api}/v1/approvals").status_code == 401
    assert httpx.get(f"{system.api}/v1/approvals", headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_denial_shows_the_comment_and_the_session_goes_on(system: System) -> None:
    psql = system.start_psql("-At", "-c", "drop table orders", "-c", "select 'still here'")
    request = system.reviewer.deny("drop table orders", "not on a Saturday")
    out, err = psql.communicate(timeout=30)
    assert out == "still here\n"
    assert f"ERROR:  pgproxy: denied by {system.reviewer.name}" in err
    assert "not on a Saturday" in err
    assert request["id"] in err
    assert system.direct("select count(*) from orders") != "0"


def test_denial_inside_a_transaction_fails_it_as_any_error_of_the_server(system: System) -> None:
    psql = system.start_psql("-At")
    assert psql.stdin is not None
    psql.stdin.write("begin;\nselect 1;\ndrop table orders;\nselect 2;\ncommit;\nselect 'after';\n")
    psql.stdin.close()
    psql.stdin = None
    request = system.reviewer.deny("drop table orders", "no")
    out, err = psql.communicate(timeout=30)
    assert request["context"]["in_transaction"] is True
    assert "current transaction is aborted, commands ignored until end of transaction block" in err
    assert out.splitlines() == ["BEGIN", "1", "ROLLBACK", "after"]


def test_control_c_while_parked_gives_the_prompt_back(system: System) -> None:
    psql = system.start_psql("-At", "-c", "create table never_made (a int)", "-c", "select 'prompt'")
    request = system.reviewer.pending("never_made")
    psql.send_signal(signal.SIGINT)
    _, err = psql.communicate(timeout=30)
    assert "canceling statement due to user request" in err
    system.reviewer.status(request["id"], "withdrawn")
    assert system.reviewer.decide(request["id"], "approve").status_code == 409
    assert system.direct("select to_regclass('never_made') is null") == "t"


def test_killing_the_client_withdraws_its_request(system: System) -> None:
    psql = system.start_psql("-c", "create table never_made_either (a int)")
    request = system.reviewer.pending("never_made_either")
    psql.kill()
    psql.communicate()
    system.reviewer.status(request["id"], "withdrawn")
    assert system.reviewer.decide(request["id"], "approve").status_code == 409
    assert system.direct("select to_regclass('never_made_either') is null") == "t"


def test_reason_and_ticket_reach_the_reviewer(system: System) -> None:
    options = "-c pgproxy.reason=monthly\\ export -c pgproxy.ticket=OPS-12"
    psql = subprocess.Popen(
        system.psql("-c", "copy (select 1 as reasoned) to stdout"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PGOPTIONS": options, "PATH": "/usr/bin:/bin"},
    )
    request = system.reviewer.approve("reasoned")
    assert psql.communicate(timeout=30)[0] == "1\n"
    assert request["requester"]["reason"] == "monthly export"
    assert request["requester"]["ticket"] == "OPS-12"


def test_what_an_agent_says_in_its_statements_reaches_the_reviewer(system: System) -> None:
    psql = system.start_psql(
        *("-c", "set pgproxy.reason = 'said in a SET'"),
        *("-c", "copy (select 1 as annotated) to stdout /*ticket='OPS-77'*/"),
    )
    request = system.reviewer.approve("annotated")
    assert psql.communicate(timeout=30)[0] == "SET\n1\n"
    assert request["requester"]["reason"] == "said in a SET"
    assert request["requester"]["ticket"] == "OPS-77"


def test_a_typing_error_is_the_servers_to_tell(system: System) -> None:
    done = system.run_psql("-c", "selct 1")
    assert done.returncode == 1
    assert done.stderr.startswith('ERROR:  syntax error at or near "selct"\nLINE 1: selct 1\n')


def test_the_trail_has_decision_and_outcome(system: System) -> None:
    done = system.run_psql("-At", "-c", "select 'for the trail'")
    assert done.returncode == 0

    def complete() -> list[dict[str, object]] | None:
        found = [e for e in system.reviewer.audit(q="for the trail") if e["kind"] == "statement"]
        return found if found and found[0]["outcome"] else None

    (entry,) = eventually(complete, "the statement's entry with its outcome")
    assert entry["decision"] == "allowed"
    assert entry["agent"] == "demo-agent"
    assert entry["classes"] == ["read"]
    outcome = entry["outcome"]
    assert isinstance(outcome, dict)
    assert (outcome["command_tag"], outcome["rows"], outcome["transaction"]) == ("SELECT 1", 1, "committed")


def test_approval_events_are_in_the_trail(system: System) -> None:
    psql = system.start_psql("-c", "copy (select 1 as evidence) to stdout")
    request = system.reviewer.approve("evidence", "seen")
    psql.communicate(timeout=30)
    system.reviewer.status(request["id"], "executed")

    def events() -> list[str] | None:
        found = [
            str(e.get("event"))
            for e in system.reviewer.audit(limit=200)
            if e["kind"] == "approval" and e["approval_id"] == request["id"]
        ]
        return found if {"pending", "approved", "executing", "executed"} <= set(found) else None

    eventually(events, "all events of the request")
    (entry,) = [
        e
        for e in system.reviewer.audit(decision="approved", limit=200)
        if e["kind"] == "statement" and e["approval_id"] == request["id"]
    ]
    assert entry["reviewers"] == [system.reviewer.name]


def test_metrics_count_what_happened(system: System) -> None:
    import httpx

    def value(name: str) -> float:
        text = httpx.get(f"{system.api}/metrics").text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    reads = 'pgproxy_statements_total{class="read",decision="allowed"}'
    before = value(reads)
    system.run_psql("-c", "select 1", "-c", "select 2")
    assert value(reads) == before + 2
    assert value("pgproxy_sessions_total") > 0
    psql = system.start_psql("-c", "copy (select 1 as counted) to stdout")
    system.reviewer.pending("counted")
    eventually(lambda: value("pgproxy_approvals_pending") >= 1, "the waiting request is counted")
    assert value('pgproxy_sessions{state="parked"}') == 1
    system.reviewer.approve("counted")
    psql.communicate(timeout=30)
    eventually(lambda: value('pgproxy_approvals_total{status="executed"}') >= 1, "its end is counted")
    assert value('pgproxy_sessions{state="parked"}') == 0
    assert value("pgproxy_statement_overhead_seconds_count") > 0


def test_the_terminal_commands_do_it_too(system: System) -> None:
    psql = system.start_psql("-c", "copy (select 1 as by_terminal) to stdout")
    request = system.reviewer.pending("by_terminal")
    listed = system.pgproxy("approvals", "list", person=system.reviewer)
    assert request["id"] in listed.stdout, listed.stderr
    shown = system.pgproxy("approvals", "show", request["id"], person=system.reviewer)
    assert "copy (select 1 as by_terminal) to stdout" in shown.stdout
    own = system.pgproxy("approvals", "approve", request["id"], person=system.owner)
    assert own.returncode == 1
    done = system.pgproxy("approvals", "approve", request["id"], "--comment", "fine", person=system.reviewer)
    assert done.returncode == 0, done.stderr
    assert psql.communicate(timeout=30)[0] == "1\n"
    tail = system.pgproxy("audit", "tail", "-n", "50", person=system.reviewer)
    assert "by_terminal" in tail.stdout, tail.stderr
    ours = system.run_psql("-At", "-c", "select 1")
    assert ours.stdout == "1\n"


def test_sessions_are_listed_and_can_be_ended_by_an_admin(system: System) -> None:
    psql = system.start_psql("-At")
    assert psql.stdin is not None
    psql.stdin.write("set application_name = 'to be ended';\nselect 1;\n")
    psql.stdin.flush()
    admin = next(p for p in system.people.values() if p.api.get("/v1/sessions").status_code == 200)

    def live() -> list[dict[str, object]] | None:
        answer = admin.api.get("/v1/sessions").json()
        items = answer["items"] if isinstance(answer, dict) else answer
        return [s for s in items if s["agent"] == "demo-agent"]

    session = eventually(live, "the session is listed")[0]
    assert admin.api.delete(f"/v1/sessions/{session['id']}").status_code in (200, 204)
    _, err = psql.communicate("select 2;\n", timeout=30)
    assert "terminating connection due to administrator command" in err
