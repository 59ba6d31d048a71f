"""What a reviewer is told about a parked statement, through the running proxy."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import httpx

from tests.integration.system import System, children_of, eventually


def with_context(system: System, approval_id: str) -> dict[str, Any]:
    """The request once its context has been gathered."""

    def look() -> dict[str, Any] | None:
        found = system.reviewer.approval(approval_id)
        return found if "history" in found["context"] else None

    return eventually(look, "the context is gathered")


def test_a_parked_drop_is_shown_with_its_impact_and_the_notice_does_not_wait_for_it(system: System) -> None:
    system.direct("create table doomed (id int primary key); create view on_doomed as select id from doomed")
    system.direct("create table refers (doomed int references doomed); insert into doomed values (1), (2)")
    system.direct("analyze doomed")
    (control,) = children_of(system.process.pid, "control")
    # Who gathers stands still; the agent is told all the same, so it waits for none of it.
    os.kill(control, signal.SIGSTOP)
    try:
        psql = system.start_psql("-c", "drop table doomed cascade")
        assert psql.stderr is not None
        notice = psql.stderr.readline()
    finally:
        os.kill(control, signal.SIGCONT)
    assert "pgproxy: waiting for approval " in notice
    request = system.reviewer.pending("drop table doomed")
    assert request["id"] in notice
    approval = with_context(system, request["id"])
    impact, history = approval["context"]["impact"], approval["context"]["history"]
    assert approval["status"] == "pending"
    (relation,) = impact["relations"]
    assert (relation["name"], relation["lock"], relation["estimated_rows"]) == ("public.doomed", "ACCESS EXCLUSIVE", 2)
    assert [each["table"] for each in impact["cascades"]["foreign_keys"]] == ["public.refers"]
    assert {each["name"] for each in impact["dependents"]["objects"] if not each["belongs"]} == {
        "public.on_doomed",
        "refers_doomed_fkey on public.refers",
    }
    assert history["relations"][0]["relation"] == "public.doomed" and history["relations"][0]["first_request"] is True
    shown = system.pgproxy("approvals", "show", request["id"], person=system.reviewer)
    assert shown.returncode == 0, shown.stderr
    for line in ("public.doomed: table", "lock ACCESS EXCLUSIVE", "view public.on_doomed", "the first request"):
        assert line in shown.stdout, shown.stdout
    assert system.reviewer.decide(request["id"], "deny", "keep it").status_code == 200
    psql.communicate(timeout=30)
    assert system.direct("select count(*) from doomed") == "2"


def test_the_stream_tells_of_it_after_the_opening(system: System) -> None:
    psql = system.start_psql("-c", "copy orders to stdout")
    request = system.reviewer.pending("copy orders")
    with_context(system, request["id"])
    headers = {"Last-Event-ID": "0"}
    told: list[tuple[str, bool]] = []
    with system.reviewer.api.stream("GET", "/v1/approvals/events", headers=headers, timeout=30) as stream:
        for line in stream.iter_lines():
            if not line.startswith("data: "):
                continue
            approval = json.loads(line.removeprefix("data: "))
            if approval["id"] == request["id"]:
                told.append((approval["status"], "history" in approval["context"]))
            if len(told) == 3:
                break
    assert told == [("pending", True)] * 3  # the opening and both parts, each with the object of now
    answer = system.reviewer.api.post(f"/v1/approvals/{request['id']}/context")
    assert answer.status_code == 200
    newer = answer.json()["context"]["impact"]["gathered_at"]
    assert newer > request["created_at"]
    assert httpx.post(f"{system.api}/v1/approvals/{request['id']}/context").status_code == 401
    psql.kill()
    psql.communicate(timeout=30)


def test_the_trail_holds_no_entry_for_what_pgproxy_found_out(system: System) -> None:
    psql = system.start_psql("-c", "copy customers to stdout")
    request = system.reviewer.pending("copy customers")
    with_context(system, request["id"])
    system.reviewer.decide(request["id"], "deny", "no")
    psql.communicate(timeout=30)

    def events() -> list[str] | None:
        mine = [each for each in system.reviewer.audit(q=request["id"]) if each["kind"] == "approval"]
        names = [each["event"] for each in mine]
        return names if "denied" in names else None

    assert sorted(eventually(events, "the denial is in the trail")) == ["denied", "pending", "vote"]
