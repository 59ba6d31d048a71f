"""The first page: what waits for somebody, the person who looks foremost, and what was decided lately."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from starlette.responses import Response

from approvals import reading
from approvals.api import examples
from approvals.api.responses import Json
from approvals.console.frame import filters_of, framed
from approvals.console.login import page_session
from approvals.errors import Unsupported
from approvals.model import RISKS, Status
from approvals.store import store_connection

router = APIRouter(include_in_schema=False)

_PENDING, _DECIDED = 200, 20
_FILTERS = ("q", "agent", "database", "risk", "class", "status")
_FIRST_LINE = 160


@router.get("/")
async def show_inbox(request: Request, cursor: str | None = None) -> Response:
    """For a browser the inbox; for a program the index."""
    if "text/html" not in request.headers.get("accept", ""):
        return Json(examples.INDEX, headers={"Vary": "Accept"})
    await page_session(request)
    given = filters_of(request, _FILTERS)
    status = given.pop("status", None)
    narrowed: dict[str, Any] = {("class_" if key == "class" else key): value for key, value in given.items()}
    pool = request.app.state.services.pool
    try:
        if status is not None and status not in set(Status):
            raise ValueError("status is not one there is")
        async with store_connection(pool) as connection:
            pending: list[dict[str, Any]] = []
            more_pending = None
            if status in (None, "pending"):
                pending, more_pending = await reading.search(
                    connection,
                    reading.Filters(status="pending", **narrowed),
                    limit=_PENDING,
                    cursor=cursor if status == "pending" else None,
                )
            decided: list[dict[str, Any]] = []
            following = None
            if status != "pending":
                decided, following = await reading.search(
                    connection, reading.Filters(status=status, **narrowed), limit=2 * _DECIDED, cursor=cursor
                )
                if status is None:
                    decided = [each for each in decided if each["status"] != "pending"][:_DECIDED]
    except ValueError as error:
        raise Unsupported(str(error)) from error
    query = {**given, **({"status": status} if status else {})}
    following = (more_pending if status == "pending" else following if status else None) or None
    return await framed(
        request,
        "inbox.html",
        title="Requests",
        pending=[summary(each) for each in reversed(pending)],
        has_more_pending=more_pending is not None,
        decided=[summary(each) for each in decided],
        given={key: "" for key in _FILTERS} | query,
        is_filtered=bool(query),
        risks=RISKS,
        statuses=[each.value for each in Status],
        next_page=f"/?{urlencode({**query, 'cursor': following})}" if following else None,
    )


def summary(approval: dict[str, Any]) -> dict[str, Any]:
    """What a line of the inbox shows."""
    sql = str(approval["statement"]["sql"]).strip()
    first, *rest = sql.split("\n", 1)
    statements = approval["classification"].get("statements", [])
    votes = [each for each in approval["decisions"] if not each["voided"] and each["counts"]]
    return {
        "id": approval["id"],
        "status": approval["status"],
        "risk": approval["risk"],
        "agent": approval["requester"].get("agent"),
        "database": approval["requester"].get("database"),
        "reason": approval["requester"].get("reason"),
        "classes": list(dict.fromkeys(action["class"] for each in statements for action in each["actions"])),
        "line": first[:_FIRST_LINE],
        "is_cut": bool(rest) or len(first) > _FIRST_LINE,
        "rule": approval["rule"],
        "approvals": sum(1 for each in votes if each["decision"] != "deny"),
        "needed": approval["required_approvals"],
        "created_at": approval["created_at"],
        "expires_at": approval["expires_at"],
        "is_budget": approval["budget"] is not None,
        "is_modified": approval["original"] is not None,
        "by": ", ".join(dict.fromkeys(each["reviewer"] for each in votes)),
    }
