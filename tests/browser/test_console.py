"""Deciding in a real browser, with the mouse, with keys and on a phone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, Psql
from tests.integration.system import System

Start = Callable[[str], Psql]
CHECKS = Path(__file__).with_name("checks.js").read_text()


def open_request(page: Page, text: str) -> None:
    page.locator("a.request", has_text=text).first.click()
    page.get_by_role("heading", name="Decide").wait_for()


def test_psql_parks_is_read_approved_and_goes_on(system: System, visit: Open, psql: Start) -> None:
    page = visit(system.reviewer)
    expect(page.locator("#live")).to_have_text("live")
    before = page.title()
    waiting = psql("COPY (SELECT 'approved by hand') TO STDOUT")
    line = page.locator("a.request", has_text="approved by hand")
    expect(line).to_be_visible()  # by itself: the page was not loaded again
    expect(line).to_contain_text("export")
    assert page.title() != before and page.title().startswith("(")
    expect(page.locator("#announcements")).to_contain_text("New request")
    open_request(page, "approved by hand")
    for heading in ("Statement", "What it does", "Who, from where, why", "What policy asks", "Circumstances"):
        expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible()
    expect(page.locator(".sql .t-keyword").first).to_have_text("COPY")
    assert waiting.process.poll() is None
    page.get_by_label("Comment", exact=True).first.fill("looked at it")
    page.get_by_role("button", name="Approve", exact=True).click()
    expect(page.locator("#confirm")).to_be_visible()
    assert waiting.process.poll() is None  # asked once more
    page.locator("#confirm").get_by_role("button", name="Approve").click()
    code, out, _ = waiting.ends()
    assert (code, out) == (0, "approved by hand\n")
    expect(page.locator("#request")).to_have_attribute("data-status", "executed")  # live, after it ran
    expect(page.locator("#thread")).to_contain_text("looked at it")


def test_deny_with_a_comment_that_psql_is_told(system: System, visit: Open, psql: Start) -> None:
    page = visit(system.reviewer)
    waiting = psql("COPY (SELECT 'denied by hand') TO STDOUT")
    open_request(page, "denied by hand")
    page.get_by_label("Comment", exact=True).first.fill("not before the audit")
    page.get_by_role("button", name="Deny").click()
    code, _, err = waiting.ends()
    assert code != 0 and "not before the audit" in err
    expect(page.locator("#request")).to_have_attribute("data-status", "denied")


def test_modify_after_a_look_and_psql_runs_the_other_text(system: System, visit: Open, psql: Start) -> None:
    page = visit(system.reviewer)
    waiting = psql("COPY (SELECT id, name FROM customers) TO STDOUT")
    open_request(page, "COPY (SELECT id, name FROM customers)")
    page.get_by_text("Modify the statement").click()
    page.get_by_label("To run instead").fill("COPY (SELECT id FROM customers ORDER BY id LIMIT 1) TO STDOUT")
    page.get_by_role("button", name="Look what that would be").click()
    expect(page.locator("#preview")).to_contain_text("Policy would ask for approval")
    page.get_by_role("button", name="Modify", exact=True).click()
    code, out, err = waiting.ends()
    assert code == 0 and len(out.splitlines()) == 1, err
    expect(page.get_by_role("heading", name=f"What {system.reviewer.name} changed")).to_be_visible()
    expect(page.locator(".unified .removed")).to_contain_text("SELECT id, name FROM customers")
    page.get_by_text("Side by side").click()
    expect(page.locator("table.sides")).to_be_visible()


@pytest.mark.parametrize("decision", ["Approve", "Deny"])
def test_a_result_that_ran_into_a_budget(system: System, visit: Open, psql: Start, decision: str) -> None:
    page = visit(system.reviewer)
    waiting = psql(f"SELECT n, '{decision}' AS budget FROM generate_series(1, 20000) AS g (n)")
    open_request(page, f"'{decision}' AS budget")
    expect(page.get_by_role("heading", name="Already running: a budget is used up")).to_be_visible()
    expect(page.locator("#decide")).to_contain_text("already running: its result can be approved or denied")
    page.get_by_role("button", name=decision, exact=True).click()
    if decision == "Approve":
        page.locator("#confirm").get_by_role("button", name="Approve").click()
    code, out, err = waiting.ends()
    if decision == "Approve":
        assert code == 0 and "(20000 rows)" in out, err
    else:
        assert code != 0 and "20000" not in out


def test_the_owner_has_no_button_and_the_api_refuses(system: System, visit: Open, psql: Start) -> None:
    waiting = psql("COPY (SELECT 'the owner looks') TO STDOUT")
    page = visit(system.owner)
    open_request(page, "the owner looks")
    expect(page.locator("#decide")).to_contain_text("you own this agent")
    for name in ("Approve", "Deny", "Modify"):
        expect(page.get_by_role("button", name=name, exact=True)).to_have_count(0)
    answer: int = page.evaluate(
        """async () => (await fetch(`/v1/approvals/${document.getElementById("request").dataset.id}/decision`, {
            method: "POST", body: JSON.stringify({ decision: "approve" }),
            headers: { "Content-Type": "application/json",
                       "X-CSRF-Token": document.querySelector("meta[name=csrf-token]").content } })).status"""
    )
    assert answer == 403 and waiting.process.poll() is None


def test_keys_alone(system: System, visit: Open, psql: Start) -> None:
    page = visit(system.reviewer)
    waiting = psql("COPY (SELECT 'keys alone') TO STDOUT")
    expect(page.locator("a.request", has_text="keys alone")).to_be_visible()
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    expect(page.get_by_label("Text")).to_be_focused()
    page.keyboard.type("keys alone")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=keys+alone*")
    page.keyboard.press("j")
    expect(page.locator("a.request", has_text="keys alone")).to_be_focused()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Decide").wait_for()
    page.keyboard.press("c")
    expect(page.get_by_label("Comment", exact=True).first).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    expect(page.locator("#confirm")).to_be_visible()
    page.keyboard.press("Enter")
    assert waiting.ends()[:2] == (0, "keys alone\n")


def test_a_text_that_was_changed_meanwhile_must_be_read_again(system: System, visit: Open, psql: Start) -> None:
    page = visit(system.reviewer)
    psql("COPY (SELECT 'read me twice') TO STDOUT")
    open_request(page, "read me twice")
    expect(page.locator("#live")).to_have_text("live")
    page.get_by_label("Comment", exact=True).first.fill("half a sentence")
    other = page.context.new_page()
    other.goto(page.url)
    other.get_by_text("Modify the statement").click()
    # It does more than the agent's, so its author's vote does not settle it.
    other.get_by_label("To run instead").fill("CREATE TABLE read_me_twice ()")
    other.get_by_role("button", name="Modify", exact=True).click()
    expect(other.locator("#thread")).to_contain_text("does not count")
    expect(page.locator("#changed")).to_be_visible()
    expect(page.get_by_role("button", name="Approve", exact=True)).to_be_disabled()
    assert page.get_by_label("Comment", exact=True).first.input_value() == "half a sentence"


def test_without_scripts_one_reads_and_decides(system: System, visit: Open, psql: Start) -> None:
    waiting = psql("COPY (SELECT 'no scripts') TO STDOUT")
    system.reviewer.pending("no scripts")
    page = visit(system.reviewer, java_script_enabled=False)
    open_request(page, "no scripts")
    page.get_by_role("button", name="Approve", exact=True).click()
    assert waiting.ends()[:2] == (0, "no scripts\n")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280], ids=["phone", "desktop"])
def test_every_page_can_be_read_and_reached(
    system: System, visit: Open, psql: Start, width: int, dark: bool, request: pytest.FixtureRequest
) -> None:
    psql("COPY (SELECT id, name FROM customers WHERE name = 'c\u0430rol' -- \u202e\n) TO STDOUT")
    approval = system.reviewer.pending("c\u0430rol")
    people = {
        "reviewer": system.reviewer,
        "overseer": next((p for p in system.people.values() if may_oversee(p)), None),
    }
    page = visit(people["overseer"] or system.reviewer, width=width, height=780, dark=dark)
    paths = ["/", f"/approvals/{approval['id']}", "/grants", "/audit", "/policy", "/charts"]
    if people["overseer"]:
        paths += ["/sessions", f"/sessions/{approval['requester']['session_id']}"]
    shots = request.config.getoption("--shots")
    found: dict[str, Any] = {}
    for path in paths:
        page.goto(path)
        page.wait_for_function("document.readyState === 'complete'")
        if problems := [*page.evaluate(CHECKS)]:
            found[path] = problems
        if shots:
            kind = path.strip("/").replace("/", "-")[:12] or "inbox"
            colours = "dark" if dark else "light"
            page.screenshot(path=f"{shots}/{kind}-{width}-{colours}.png", full_page=True)
    assert found == {}


def may_oversee(person: Any) -> bool:
    answer: int = person.api.get("/v1/sessions").status_code
    return answer == 200
