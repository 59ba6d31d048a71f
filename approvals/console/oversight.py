"""What goes on and what went on: grants, live sessions and their timelines, the audit trail."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from approvals import grants
from approvals.console.forms import read_form
from approvals.console.frame import filters_of, framed, require
from approvals.console.login import PageSession
from approvals.errors import NotFound, Unsupported
from approvals.store import store_connection

router = APIRouter(include_in_schema=False)

_PAGE = 50
_TIMELINE = 200
_AUDIT_FILTERS = ("q", "agent", "class", "decision", "session", "since", "until")
AUDIT_DECISIONS = ("allowed", "observed", "approved", "denied", "expired", "withdrawn", "blocked")


@router.get("/grants")
async def show_grants(request: Request, _: PageSession) -> Response:
    given = filters_of(request, ("agent", "all", "cursor"))
    try:
        async with store_connection(request.app.state.services.pool) as connection:
            items, following = await grants.search(
                connection,
                every="all" in given,
                agent=given.get("agent"),
                limit=_PAGE,
                cursor=given.get("cursor"),
            )
    except ValueError as error:
        raise Unsupported(str(error)) from error
    reviewer = request.state.reviewer
    for item in items:
        item["may_revoke"] = item["in_force"] and ("admin" in reviewer.roles or reviewer.name in item["reviewers"])
    return await framed(
        request,
        "grants.html",
        title="Grants",
        items=items,
        given={"agent": "", "all": "", **given},
        next_page=_next("/grants", given, following),
    )


@router.post("/grants/{grant_id}/revoke")
async def revoke_grant(request: Request, session: PageSession, grant_id: str) -> Response:
    await read_form(request)
    await grants.revoke(request.app.state.services.pool, grant_id, session.reviewer)
    return RedirectResponse("/grants", 303)


@router.get("/sessions")
async def show_sessions(request: Request, session: PageSession) -> Response:
    require(session.reviewer, "auditor", "admin")
    live = await request.app.state.services.sessions.list()
    return await framed(
        request,
        "sessions.html",
        title="Sessions",
        sessions=[{key: value for key, value in each.items() if value not in (None, "", [])} for each in live],
        may_end="admin" in session.reviewer.roles,
    )


@router.get("/sessions/{session_id}")
async def show_session(request: Request, session: PageSession, session_id: str) -> Response:
    """One session's timeline, also when it has ended."""
    require(session.reviewer, "auditor", "admin")
    given = filters_of(request, ("cursor",))
    found = await _search(request, session_id=session_id, limit=_TIMELINE, cursor=given.get("cursor"))
    live = [each for each in await request.app.state.services.sessions.list() if each["id"] == session_id]
    if not live and not found["items"] and not given:
        raise NotFound("no such session")
    return await framed(
        request,
        "session.html",
        title=f"Session {session_id}",
        session_id=session_id,
        live=live[0] if live else None,
        entries=found["items"],
        may_end=bool(live) and "admin" in session.reviewer.roles,
        next_page=_next(f"/sessions/{session_id}", given, found["next"]),
    )


@router.post("/sessions/{session_id}/end")
async def end_session(request: Request, session: PageSession, session_id: str) -> Response:
    await read_form(request)
    require(session.reviewer, "admin")
    if "\0" in session_id or not await request.app.state.services.sessions.end(session_id):
        raise NotFound("no such session: it may have ended by itself")
    return RedirectResponse("/sessions", 303)


@router.get("/audit")
async def show_audit(request: Request, _: PageSession) -> Response:
    given = filters_of(request, (*_AUDIT_FILTERS, "cursor"))
    problem = None
    found: dict[str, Any] = {"items": [], "next": None}
    try:
        found = await _search(
            request,
            since=_moment("since", given.get("since")),
            until=_moment("until", given.get("until")),
            agent=given.get("agent"),
            class_=given.get("class"),
            decision=given.get("decision"),
            q=given.get("q"),
            session_id=given.get("session"),
            limit=_PAGE,
            cursor=given.get("cursor"),
        )
    except Unsupported as error:
        problem = str(error)
    return await framed(
        request,
        "audit.html",
        422 if problem else 200,
        title="Audit",
        problem=problem,
        entries=found["items"],
        given={key: "" for key in _AUDIT_FILTERS} | given,
        decisions=AUDIT_DECISIONS,
        next_page=_next("/audit", given, found["next"]),
    )


async def _search(request: Request, **filters: Any) -> dict[str, Any]:
    """Raises Unsupported for a filter that cannot be meant."""
    if any("\0" in value for value in filters.values() if isinstance(value, str)):
        raise Unsupported("a NUL character is not looked for")
    wanted = {
        **dict.fromkeys(("since", "until", "agent", "class_", "decision", "q", "session_id", "cursor")),
        **filters,
    }
    try:
        found: dict[str, Any] = await request.app.state.services.audit.search(**wanted)
    except ValueError as error:
        raise Unsupported(str(error)) from error
    return found


def _moment(name: str, text: str | None) -> datetime | None:
    """Of a `datetime-local` field, in UTC, or an RFC 3339 time."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Unsupported(f"{name}: not a time such as 2026-03-01T12:00") from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def _next(path: str, given: dict[str, str], cursor: str | None) -> str | None:
    return None if cursor is None else f"{path}?{urlencode({**given, 'cursor': cursor})}"
