"""Approvals: list, read, decide, comment, follow."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Path, Query, Request
from starlette.responses import Response, StreamingResponse

from approvals import decisions, reading
from approvals.api import examples
from approvals.api.authentication import Commenter, Decider, Reader
from approvals.api.responses import Json, problems, shown
from approvals.api.schemas import (
    Approval,
    ApprovalPage,
    CommentBody,
    DecisionBody,
    LongSearchText,
    Moment,
    SearchText,
    StatusFilter,
    in_utc,
)
from approvals.errors import NotFound, Unsupported
from approvals.model import is_id
from approvals.store import store_connection

router = APIRouter(prefix="/v1/approvals", tags=["approvals"])

ApprovalId = Annotated[str, Path(examples=[examples.APPROVAL_ID])]

_EVENT = {
    "description": "One event; `data` is the approval object in JSON.",
    "type": "object",
    "properties": {"id": {"type": "string"}, "event": {"const": "approval"}, "data": {"type": "string"}},
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events named `approval`, each with the approval object as data; ids to resume from.",
        "content": {"text/event-stream": {"schema": _EVENT, "example": examples.EVENT}},
    }
}


@router.get(
    "",
    response_model=ApprovalPage,
    responses=shown(examples.page(examples.APPROVAL)) | problems(401, 403, 422, 503),
)
async def list_approvals(
    request: Request,
    _: Reader,
    status: StatusFilter = None,
    agent: SearchText = None,
    owner: SearchText = None,
    database: SearchText = None,
    risk: SearchText = None,
    class_: Annotated[SearchText, Query(alias="class", description="Of any of its actions.")] = None,
    fingerprint: SearchText = None,
    q: Annotated[LongSearchText, Query(description="Text of the statement, the reason or the ticket.")] = None,
    since: Moment = None,
    until: Moment = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: SearchText = None,
) -> Response:
    """Newest first. Times without a zone are UTC; `until` itself is excluded."""
    filters = reading.Filters(
        status=status,
        agent=agent,
        owner=owner,
        database=database,
        risk=risk,
        class_=class_,
        fingerprint=fingerprint,
        q=q,
        since=in_utc(since),
        until=in_utc(until),
    )
    try:
        async with store_connection(request.app.state.services.pool) as connection:
            items, following = await reading.search(connection, filters, limit=limit, cursor=cursor)
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
        request.app.state.stream.frames(after, request.state.still_valid),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@router.get(
    "/{approval_id}",
    response_model=Approval,
    responses=shown(examples.APPROVAL) | problems(401, 403, 404, 422, 503),
)
async def read_approval(request: Request, _: Reader, approval_id: ApprovalId) -> Response:
    """One approval."""
    found: dict[str, Any] | None = None
    if is_id(approval_id):
        async with store_connection(request.app.state.services.pool) as connection:
            found = await reading.load(connection, approval_id)
    if found is None:
        raise NotFound("no such approval")
    return Json(found)


@router.get(
    "/{approval_id}/history",
    response_model=ApprovalPage,
    responses=shown(examples.page(examples.APPROVAL)) | problems(401, 403, 404, 422, 503),
)
async def read_history(
    request: Request,
    _: Reader,
    approval_id: ApprovalId,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Response:
    """Earlier requests of the same agent with the same fingerprint, newest first: what was decided then."""
    items: list[dict[str, Any]] | None = None
    if is_id(approval_id):
        async with store_connection(request.app.state.services.pool) as connection:
            if await reading.load(connection, approval_id) is not None:
                items = await reading.history(connection, approval_id, limit=limit)
    if items is None:
        raise NotFound("no such approval")
    return Json({"items": items, "next": None})


@router.post(
    "/{approval_id}/decision",
    response_model=Approval,
    responses=shown(examples.APPROVAL) | problems(401, 403, 404, 409, 413, 422, 503),
)
async def decide_approval(
    request: Request,
    reviewer: Decider,
    approval_id: ApprovalId,
    body: Annotated[DecisionBody, Body(openapi_examples=examples.DECISIONS)],
) -> Response:
    """Approve, deny, or put another statement in its place. Never one's own request, and nobody votes twice."""
    services = request.app.state.services
    decided = await decisions.decide(
        services.pool,
        approval_id,
        reviewer,
        body.decision,
        body.comment,
        request.state.via,
        terms=body.terms(),
        sql=body.sql,
        judge=services.judge,
        sha256=body.sha256,
    )
    return Json(decided)


@router.post(
    "/{approval_id}/comments",
    response_model=Approval,
    responses=shown(examples.APPROVAL) | problems(401, 403, 404, 413, 422, 503),
)
async def comment_on_approval(
    request: Request,
    reviewer: Commenter,
    approval_id: ApprovalId,
    body: Annotated[CommentBody, Body(openapi_examples=examples.COMMENT)],
) -> Response:
    """Comment without deciding; at any time."""
    return Json(await decisions.add_comment(request.app.state.services.pool, approval_id, reviewer, body.text))


@router.post(
    "/{approval_id}/context",
    response_model=Approval,
    responses=shown(examples.APPROVAL) | problems(401, 403, 404, 413, 422, 503),
)
async def refresh_context(request: Request, _: Commenter, approval_id: ApprovalId) -> Response:
    """Look again at what the statement would do and what its agent did before: `context.impact` and
    `context.history`, as of now."""
    gatherer = request.app.state.services.gatherer
    if gatherer is None:
        raise Unsupported("context is not gathered here")
    return Json(await gatherer.refresh(approval_id))
