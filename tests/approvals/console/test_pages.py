"""Every page for every role, deciding by forms, and hostile text that stays text."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from approvals.console.request import SHOWN_CHARS
from approvals.decisions import add_comment, decide
from approvals.reviewers import ReviewerSpec
from tests.approvals.conftest import ADMIN, ALICE, BOB, CAROL, DAVE, SHA, Store, request, reviewer
from tests.approvals.console.conftest import HTML, ORIGIN, SAME, Browser, Page
from tests.approvals.fakes import FakeServices

Visit = Callable[[ReviewerSpec], Awaitable[Browser]]
HOSTILE = '<script>alert(1)</script>\' onload="x" {{7*7}} \u202e\u200b\x07 c\u0430rol'

PAGES = ["/", "/grants", "/audit", "/policy", "/charts", "/charts?span=7d", "/?q=x&risk=high&status=denied"]
OVERSIGHT = ["/sessions", "/sessions/s1"]


async def opened(store: Store, **changes: Any) -> str:
    return (await store.gateway.open(request(**changes))).id


@pytest.mark.parametrize("spec", [BOB, CAROL, DAVE, ADMIN], ids=lambda spec: spec.name)
async def test_every_page_for_every_role(visit: Visit, store: Store, spec: ReviewerSpec) -> None:
    approval_id = await opened(store)
    web = await visit(spec)
    for path in [*PAGES, f"/approvals/{approval_id}"]:
        page = await web.get(path)
        assert page.status == 200, (path, page.words)
        assert "<h1" in page.source and 'lang="en"' in page.source
    may_oversee = bool({"auditor", "admin"}.intersection(spec.roles))
    for path in OVERSIGHT:
        assert (await web.get(path)).status == (200 if may_oversee else 403), path
    assert ("/sessions" in (await web.get("/")).links) == may_oversee


@pytest.mark.parametrize("path", [*PAGES, *OVERSIGHT, "/approvals/a00000000000000a"])
async def test_without_a_session_every_page_leads_to_the_login(app: Any, path: str) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ORIGIN) as client:
        answer = await client.get(path, headers=HTML)
        assert (answer.status_code, answer.headers["location"][:12]) == (303, "/login?next="), path
        # A program at `/` still finds the index.
        assert (await client.get("/")).json()["name"] == "pgproxy"


async def test_a_page_has_no_inline_script_or_style(visit: Visit, store: Store) -> None:
    approval_id = await opened(store)
    web = await visit(CAROL)
    for path in [*PAGES, *OVERSIGHT, f"/approvals/{approval_id}"]:
        page = await web.get(path)
        for tag, values in page.tags:
            assert not any(name.startswith("on") or name == "style" for name in values), (path, tag, values)
            assert tag != "style" and (tag != "script" or values.get("src")), path
            if tag in ("script", "link") and (source := values.get("src") or values.get("href")):
                assert source.startswith(("/static/", "data:,")), source


async def test_the_inbox_shows_who_waits_for_what(visit: Visit, store: Store) -> None:
    first = await opened(store, sql="COPY customers TO STDOUT\n-- and more")
    second = await opened(store, sql="COPY orders TO STDOUT", agent="other-bot")
    decided = await opened(store)
    await decide(store.pool, decided, reviewer(CAROL_DBA), "deny")
    page = await (await visit(BOB)).get("/")
    assert page.words.index("COPY customers TO STDOUT …") < page.words.index("COPY orders TO STDOUT")
    assert {f"/approvals/{each}" for each in (first, second, decided)} <= set(page.links)
    assert "Waiting 2" in page.words and "0 of 1 approval" in page.words and "monthly export" in page.words
    assert "high" in page.words and "denied" in page.words


CAROL_DBA = ReviewerSpec("carol@example.com", CAROL.token, ["dba"], CAROL.roles)


async def test_filters_of_the_inbox(visit: Visit, store: Store) -> None:
    mine, other = await opened(store, agent="a1"), await opened(store, agent="a2", sql="COPY needle TO STDOUT")
    web = await visit(BOB)
    links = (await web.get("/?agent=a1")).links
    assert f"/approvals/{mine}" in links and f"/approvals/{other}" not in links
    links = (await web.get("/?q=NEEDLE")).links
    assert f"/approvals/{other}" in links and f"/approvals/{mine}" not in links
    assert "this search would find" in (await web.get("/?class=ddl")).words
    for query in ("risk=none", "status=none", "q=%00", f"agent={'x' * 1001}", "status=denied&cursor=bad"):
        assert (await web.get(f"/?{query}")).status == 422, query


async def test_hostile_text_is_shown_and_does_nothing(visit: Visit, store: Store, services: FakeServices) -> None:
    approval_id = await opened(
        store,
        sql=f"SELECT '{HOSTILE}'",
        agent=HOSTILE,
        reason=HOSTILE,
        database=HOSTILE,
        rule=HOSTILE,
        message=HOSTILE,
        params=[{"type": HOSTILE, "value": HOSTILE}],
        context={HOSTILE: {HOSTILE: [{HOSTILE: HOSTILE}]}, "impact": {HOSTILE: HOSTILE}},
        budget={"rule": HOSTILE},
    )
    await add_comment(store.pool, approval_id, reviewer(BOB), HOSTILE)
    services.entries = [{"seq": 1, "node": "n", "time": "2026-01-01T00:00:00Z", "kind": "statement", "sql": HOSTILE,
                         "agent": HOSTILE, "session_id": HOSTILE}]  # fmt: skip
    services.explainer.rules[0]["name"] = HOSTILE
    web = await visit(CAROL)
    for path in ("/", f"/approvals/{approval_id}", "/audit", "/policy", "/sessions/s1"):
        page = await web.get(path)
        assert page.status == 200
        assert all(tag != "script" or values.get("src") for tag, values in page.tags), path
        assert not any(name.startswith("on") for _, values in page.tags for name in values), path
        assert "<script>alert(1)</script>" in page.text and "{{7*7}}" in page.text, path
        assert not {"\u202e", "\u200b", "\x07"}.intersection(page.source), path
        assert "⟦U+202E⟧⟦U+200B⟧⟦U+0007⟧" in page.text, path
        assert ("span", {"class": "mixed", "title": "U+0430 CYRILLIC SMALL LETTER A"}) in page.tags, path


async def test_lone_surrogates_and_nul_do_not_break_a_page(visit: Visit, store: Store) -> None:
    approval_id = await opened(store, sql="SELECT '\ud800\0'", reason="\udfff")
    page = await (await visit(BOB)).get(f"/approvals/{approval_id}")
    assert page.status == 200 and "⟦U+D800⟧⟦U+0000⟧" in page.text and "⟦U+DFFF⟧" in page.text


async def test_a_long_statement_says_what_is_missing_and_is_whole_elsewhere(visit: Visit, store: Store) -> None:
    sql = "SELECT 1 -- " + "x" * SHOWN_CHARS + "\nDROP TABLE customers"
    approval_id = await opened(store, sql=sql)
    web = await visit(BOB)
    page = await web.get(f"/approvals/{approval_id}")
    assert f"{len(sql) - SHOWN_CHARS} bytes more" in page.words
    whole = await web.client.get(f"/approvals/{approval_id}/statement.txt")
    assert whole.text == sql and whole.headers["content-type"].startswith("text/plain")
    assert whole.headers["x-content-type-options"] == "nosniff"


async def test_a_page_of_hostile_length_stays_small_and_says_so(visit: Visit, store: Store) -> None:
    text = "\u202e" * 150_000
    approval_id = await opened(store, sql=text, reason=text, params=[{"type": "text", "value": text}])
    web = await visit(BOB)
    page = await web.get(f"/approvals/{approval_id}")
    assert page.status == 200 and len(page.source) < 4_000_000
    assert f"{len(text) - 2_000} more characters" in page.words and "bytes more" in page.words
    assert (await web.client.get(f"/approvals/{approval_id}/parameters/1.txt")).text == text
    assert (await web.get(f"/approvals/{approval_id}/parameters/2.txt")).status == 404


async def test_approve_with_a_grant_by_the_form(visit: Visit, store: Store) -> None:
    approval_id = await opened(store)
    path = f"/approvals/{approval_id}"
    answer = await (web := await visit(BOB)).submit(
        path, f"{path}/decision", decision="approve", comment="fine\r\nonce", scope="text", minutes="5", uses="3"
    )
    assert (answer.status_code, answer.headers["location"]) == (303, path)
    assert await store.status(approval_id) == "approved"
    page = await web.get(path)
    assert "fine once" in page.words and "by console" in page.words and "was given with it" in page.words
    assert not {"approve", "deny", "modify"}.intersection(page.buttons) and "no longer pending" in page.words
    grants = await web.get("/grants")
    assert "2 of 3" not in grants.words and "3 of 3" in grants.words
    grant_id = next(values["action"] for tag, values in grants.tags if tag == "form" and "revoke" in str(values))
    assert (await web.submit("/grants", str(grant_id))).status_code == 303
    assert "No grant is in force" in (await web.get("/grants")).words


async def test_deny_and_comment_by_the_form(visit: Visit, store: Store) -> None:
    approval_id = await opened(store)
    path = f"/approvals/{approval_id}"
    web = await visit(BOB)
    assert (await web.submit(path, f"{path}/decision", decision="comment", comment="why?")).status_code == 303
    assert await store.status(approval_id) == "pending"
    empty = Page(await web.submit(path, f"{path}/decision", decision="comment", comment="  "))
    assert empty.status == 422 and "needs words" in empty.words
    assert (await web.submit(path, f"{path}/decision", decision="deny", comment="no")).status_code == 303
    assert await store.status(approval_id) == "denied"


async def test_modify_with_a_look_before(visit: Visit, store: Store, services: FakeServices) -> None:
    approval_id = await opened(store, sql="COPY customers TO STDOUT\n;")
    path = f"/approvals/{approval_id}"
    web = await visit(BOB)
    form = {"decision": "preview", "sql": "COPY (SELECT 1) TO STDOUT"}
    preview = Page(await web.submit(path, f"{path}/decision", **form))
    assert preview.status == 200 and "Policy would ask for approval" in preview.words
    assert preview.fields["sql"] == "COPY (SELECT 1) TO STDOUT" and await store.status(approval_id) == "pending"
    services.judge.refuse = "not a statement"
    refused = Page(await web.submit(path, f"{path}/decision", **form))
    assert refused.status == 422 and "Not a statement." in refused.words
    services.judge.refuse = None
    done = await web.submit(path, f"{path}/decision", decision="modify", sql="COPY (SELECT 1) TO STDOUT\r\n;")
    assert done.status_code == 303
    page = await web.get(path)
    assert "What bob@example.com changed" in page.words
    assert "- COPY customers TO STDOUT" in page.text and "+ COPY (SELECT 1) TO STDOUT" in page.text
    assert services.judge.asked[-1][0] == "COPY (SELECT 1) TO STDOUT\n;"
    agents = await web.client.get(f"{path}/statement.txt?original=true")
    assert agents.text == "COPY customers TO STDOUT\n;"


async def test_nobody_approves_a_text_they_did_not_see(visit: Visit, store: Store) -> None:
    approval_id = await opened(store)
    web = await visit(BOB)
    path = f"/approvals/{approval_id}"
    token = (await web.get(path)).fields["csrf_token"]
    answer = Page(await web.post(f"{path}/decision", csrf_token=token, sha256="cd" * 32, decision="approve"))
    assert answer.status == 409 and "another statement" in answer.words
    # Without saying which, neither.
    assert (await web.post(f"{path}/decision", csrf_token=token, decision="approve")).status_code == 422
    assert await store.status(approval_id) == "pending"


@pytest.mark.parametrize(
    ("spec", "changes", "reason", "may_comment"),
    [
        (ALICE, {}, "you own this agent", True),
        (BOB, {"agent": "bob@example.com"}, "this is you", True),
        (CAROL, {}, "a group you are not in", True),
        (DAVE, {}, "needs the role reviewer", False),
        (ADMIN, {}, "needs the role reviewer", True),
        (BOB, {"owner": None}, "has no owner", True),
        (BOB, {"channels": ["slack"]}, "by slack only, not by console", True),
    ],
)
async def test_no_buttons_for_whoever_may_not(
    visit: Visit, store: Store, spec: ReviewerSpec, changes: dict[str, Any], reason: str, may_comment: bool
) -> None:
    approval_id = await opened(store, **changes)
    path = f"/approvals/{approval_id}"
    web = await visit(spec)
    page = await web.get(path)
    assert not {"approve", "deny", "modify", "preview"}.intersection(page.buttons)
    assert reason in page.words and ("comment" in page.buttons) == may_comment
    token = (await web.get("/policy")).fields["csrf_token"]
    for decision in ("approve", "deny"):
        answer = await web.post(f"{path}/decision", csrf_token=token, sha256=SHA, decision=decision)
        assert answer.status_code == 403, decision
    assert await store.status(approval_id) == "pending"


async def test_who_has_voted_has_no_second_vote_and_may_still_modify(visit: Visit, store: Store) -> None:
    approval_id = await opened(store, required_approvals=2)
    path = f"/approvals/{approval_id}"
    web = await visit(BOB)
    await web.submit(path, f"{path}/decision", decision="approve")
    page = await web.get(path)
    assert "already voted" in page.words and "1 of 2" in page.words
    assert not {"approve", "deny"}.intersection(page.buttons) and "modify" in page.buttons


async def test_a_running_statement_shows_its_budget_and_is_not_modified(visit: Visit, store: Store) -> None:
    budget = {"rule": "bulk", "per": "portal", "rows": 10000, "passed_rows": 9999}
    page = await (await visit(BOB)).get(f"/approvals/{await opened(store, budget=budget)}")
    assert "Already running: a budget is used up" in page.words and "passed rows9999" in page.words
    assert {"approve", "deny"} <= set(page.buttons) and "modify" not in page.buttons


async def test_forms_of_other_sites_and_of_old_pages_are_refused(visit: Visit, store: Store) -> None:
    approval_id = await opened(store)
    web = await visit(CAROL)
    token = (await web.get("/policy")).fields["csrf_token"]
    for path in (f"/approvals/{approval_id}/decision", "/grants/g1/revoke", "/sessions/s1/end", "/policy"):
        for headers, given in [
            (SAME, "wrong"),
            (SAME, ""),
            ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, token),
            ({"Sec-Fetch-Site": "same-site", "Origin": "null"}, token),
            ({}, token),
        ]:
            answer = await web.post(path, headers, csrf_token=given, decision="deny", sha256=SHA, sql="x")
            assert answer.status_code == 403, (path, headers, given)
    assert await store.status(approval_id) == "pending"


async def test_sessions_are_ended_by_administrators_only(
    visit: Visit, services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = []

    async def end(session_id: str) -> bool:
        ended.append(session_id)
        return session_id == "s1"

    monkeypatch.setattr(services.sessions, "end", end)
    auditor, admin = await visit(DAVE), await visit(ADMIN)
    assert "End" not in (await auditor.get("/sessions")).words.split()
    token = (await auditor.get("/policy")).fields["csrf_token"]
    assert (await auditor.post("/sessions/s1/end", csrf_token=token)).status_code == 403
    assert ended == []
    assert (await admin.submit("/sessions", "/sessions/s1/end")).status_code == 303
    assert (await admin.submit("/sessions", "/sessions/s2/end")).status_code == 404
    assert ended == ["s1", "s2"]


async def test_a_timeline_asks_the_trail_for_its_session(visit: Visit, services: FakeServices) -> None:
    services.entries = [{"seq": 1, "node": "n", "time": "2026-01-01T00:00:00Z", "kind": "statement", "sql": "select 1"}]
    page = await (await visit(DAVE)).get("/sessions/gone")
    assert page.status == 200 and "select 1" in page.words and "It has ended" in page.words
    assert services.searched[-1]["session_id"] == "gone"
    services.entries = []
    assert (await (await visit(DAVE)).get("/sessions/never")).status == 404


async def test_audit_search(visit: Visit, services: FakeServices) -> None:
    web = await visit(BOB)
    assert (await web.get("/audit?agent=a&class=export&decision=denied&q=x&since=2026-01-02T03:04")).status == 200
    asked = services.searched[-1]
    assert (asked["agent"], asked["class_"], asked["decision"], asked["q"]) == ("a", "export", "denied", "x")
    assert asked["since"].isoformat() == "2026-01-02T03:04:00+00:00"
    for query in ("since=yesterday", "cursor=bad"):
        assert (await web.get(f"/audit?{query}")).status == 422


async def test_policy_explains(visit: Visit, services: FakeServices) -> None:
    web = await visit(DAVE)
    page = await web.get("/policy")
    assert "exports" in page.words and "pii" in page.words and "customers.email" in page.words
    page = Page(await web.submit("/policy", "/policy", sql="COPY customers\r\nTO STDOUT", agent="etl"))
    assert "because of rule exports" in page.words and "nights" in page.words
    assert services.explainer.asked[0][0] == "COPY customers\nTO STDOUT"
    assert services.explainer.asked[0][1]["agent"] == "etl"
    services.explainer.refuse = "not a statement"
    assert (await web.submit("/policy", "/policy", sql="x")).status_code == 422


async def test_charts_count_what_is_in_the_store(visit: Visit, store: Store, services: FakeServices) -> None:
    for decision in ("approve", "approve", "deny"):
        await decide(store.pool, await opened(store), reviewer(BOB), decision)
    services.counts = [(datetime.now(UTC), "read", 12), (datetime.now(UTC), "export", 3)]
    page = await (await visit(DAVE)).get("/charts")
    assert re.search(r"approved 2 .*denied 1", page.words) and "read 12" in page.words and "export 3" in page.words
    assert sum(tag == "svg" and values.get("role") == "img" for tag, values in page.tags) == 3
    assert "median" in page.words


async def test_what_is_not_there_is_a_page_for_people_and_json_for_programs(visit: Visit) -> None:
    web = await visit(BOB)
    for path in ("/approvals/nonsense", "/approvals/a00000000000000a", "/nowhere"):
        page = await web.get(path)
        assert page.status == 404 and "Not possible" in page.words, path
    assert (await web.client.get("/v1/approvals/nonsense", headers=HTML)).json() == {"detail": "no such approval"}


async def test_modules_find_each_other(visit: Visit) -> None:
    """A module that is not found stops the script, and the page only looks as if it were live."""
    web = await visit(BOB)
    found: dict[str, str] = {}
    wanted = [values["src"] for tag, values in (await web.get("/")).tags if tag == "script"]
    while wanted:
        url = str(wanted.pop())
        answer = await web.client.get(url)
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/javascript"), url
        found[url.rpartition("/")[2]] = url
        wanted += [each for each in re.findall(r'from "([^"]+)"', answer.text) if each not in found.values()]
    assert {"theme.js", "console.js", "inbox.js"} == set(found)
