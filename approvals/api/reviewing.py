"""Approvals: list, read, decide, comment, follow."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response, StreamingResponse

from approvals import decisions, requests
from approvals.api.authentication import Commenter, Decider, Reader, still_reader
from approvals.api.responses import Json, problems
from approvals.api.schemas import (
    Approval,
    ApprovalPage,
    CommentBody,
    DecisionBody,
    SearchText,
    StatusFilter,
)
from approvals.errors import NotFound, Unsupported
from approvals.model import is_id
from approvals.store import store_connection

router = APIRouter(prefix="/v1/approvals", tags=["approvals"])

_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events named `approval`, each with the approval object as data; ids to resume from.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.get("", response_model=ApprovalPage, responses=problems(401, 403, 422, 503))
async def list_approvals(
    request: Request,
    _: Reader,
    status: StatusFilter = None,
    agent: SearchText = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: SearchText = None,
) -> Response:
    """Newest first."""
    try:
        async with store_connection(request.app.state.services.pool) as connection:
            items, following = await requests.search(connection, status=status, agent=agent, limit=limit, cursor=cursor)
    except ValueError as error:
        raise Unsupported(str(error)) from error
    return Json({"items": items, "next": following})


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses=_STREAM | problems(401, 403, 422, 503),
)
async def follow_approvals(
    request: Request,
    _: Reader,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> Response:
    """Server-sent events: one for each change of any approval."""
    after: int | None = None
    if last_event_id:
        if not (last_event_id.isascii() and last_event_id.isdigit() and int(last_event_id) < 2**63):
            raise Unsupported("Last-Event-ID is not one of this stream")
        after = int(last_event_id)
    return StreamingResponse(
        request.app.state.stream.frames(after, still_reader(request)),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@router.get("/{approval_id}", response_model=Approval, responses=problems(401, 403, 404, 422, 503))
async def read_approval(request: Request, _: Reader, approval_id: str) -> Response:
    """One approval."""
    found: dict[str, Any] | None = None
    if is_id(approval_id):
        async with store_connection(request.app.state.services.pool) as connection:
            found = await requests.load(connection, approval_id)
    if found is None:
        raise NotFound("no such approval")
    return Json(found)


@router.post(
    "/{approval_id}/decision",
    response_model=Approval,
    responses=problems(401, 403, 404, 409, 413, 422, 503),
)
async def decide_approval(request: Request, reviewer: Decider, approval_id: str, body: DecisionBody) -> Response:
    """Approve or deny. Never one's own request, and nobody decides twice."""
    decided = await decisions.decide(
        request.app.state.services.pool,
        approval_id,
        reviewer,
        body.decision,
        body.comment,
        "api",
        grant_seconds=body.grant_seconds,
    )
    return Json(decided)


@router.post(
    "/{approval_id}/comments",
    response_model=Approval,
    responses=problems(401, 403, 404, 413, 422, 503),
)
async def comment_on_approval(request: Request, reviewer: Commenter, approval_id: str, body: CommentBody) -> Response:
    """Comment without deciding; at any time."""
    return Json(await decisions.add_comment(request.app.state.services.pool, approval_id, reviewer, body.text))
