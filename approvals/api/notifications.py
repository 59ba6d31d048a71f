"""What was to be told outside, and what became of it."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from approvals.api import examples
from approvals.api.authentication import Administrator
from approvals.api.responses import Json, problems, shown
from approvals.api.schemas import NotificationPage, SearchText
from approvals.errors import Unsupported
from approvals.notify import deliveries
from approvals.store import store_connection

router = APIRouter(prefix="/v1")

_MAX_ID = 2**63


@router.get(
    "/notifications",
    tags=["notifications"],
    response_model=NotificationPage,
    responses=shown(examples.page(examples.NOTIFICATION)) | problems(401, 403, 422, 503),
)
async def list_notifications(
    request: Request,
    _: Administrator,
    target: SearchText = None,
    state: Annotated[Literal["waiting", "delivered", "dead"] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: SearchText = None,
) -> Response:
    """Messages to chats, webhooks and mail, newest first."""
    async with store_connection(request.app.state.services.pool) as connection:
        items = await deliveries.page(connection, before=_before(cursor), target=target, state=state, limit=limit)
    return Json({"items": items, "next": str(items[-1]["id"]) if len(items) == limit else None})


def _before(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 19 or int(cursor) >= _MAX_ID:
        raise Unsupported("the cursor is not one of this list")
    return int(cursor)
