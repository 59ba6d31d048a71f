"""What happened (the audit trail) and what would happen (classification)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Query, Request
from starlette.responses import Response

from approvals.api import examples
from approvals.api.authentication import Reader
from approvals.api.responses import Json, problems, shown
from approvals.api.schemas import (
    AuditPage,
    Classification,
    ClassifyBody,
    LongSearchText,
    Moment,
    SearchText,
    in_utc,
)
from approvals.errors import Unsupported

router = APIRouter(prefix="/v1")


@router.get(
    "/audit",
    tags=["audit"],
    response_model=AuditPage,
    responses=shown(examples.page(examples.AUDIT_ENTRY)) | problems(401, 403, 422, 503),
)
async def search_audit(
    request: Request,
    _: Reader,
    since: Moment = None,
    until: Moment = None,
    agent: SearchText = None,
    class_: Annotated[SearchText, Query(alias="class")] = None,
    decision: SearchText = None,
    q: LongSearchText = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: SearchText = None,
) -> Response:
    """Entries, newest first. Times without a zone are UTC."""
    try:
        page = await request.app.state.services.audit.search(
            since=in_utc(since),
            until=in_utc(until),
            agent=agent,
            class_=class_,
            decision=decision,
            q=q,
            limit=limit,
            cursor=cursor,
        )
    except ValueError as error:
        raise Unsupported(str(error)) from error
    return Json(page)


@router.post(
    "/classify",
    tags=["classify"],
    response_model=Classification,
    responses=shown(examples.CLASSIFICATION) | problems(401, 403, 413, 422, 503),
)
async def classify(
    request: Request, _: Reader, body: Annotated[ClassifyBody, Body(openapi_examples=examples.CLASSIFY)]
) -> Response:
    """The classification object of any text; what is not understood is `unknown`, which is privileged."""
    try:
        classification = await request.app.state.services.classifier.classify(body.sql, body.database)
    except ValueError as error:
        raise Unsupported(str(error)) from error
    return Json(classification)
