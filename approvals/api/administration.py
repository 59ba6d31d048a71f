"""Grants, live sessions, and the configuration."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from approvals import grants
from approvals.api import examples
from approvals.api.authentication import Administrator, Overseer, Reader
from approvals.api.responses import Json, problems, shown
from approvals.api.schemas import GrantPage, Reloaded, SearchText, SessionPage
from approvals.errors import NotFound, Unsupported
from approvals.store import store_connection

router = APIRouter(prefix="/v1")


@router.get(
    "/grants",
    tags=["grants"],
    response_model=GrantPage,
    responses=shown(examples.page(examples.GRANT)) | problems(401, 403, 422, 503),
)
async def list_grants(
    request: Request,
    _: Reader,
    agent: SearchText = None,
    every: Annotated[bool, Query(alias="all", description="Those no longer in force, too.")] = False,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: SearchText = None,
) -> Response:
    """Scoped grants in force, newest first."""
    try:
        async with store_connection(request.app.state.services.pool) as connection:
            items, following = await grants.search(connection, every=every, agent=agent, limit=limit, cursor=cursor)
    except ValueError as error:
        raise Unsupported(str(error)) from error
    return Json({"items": items, "next": following})


@router.delete(
    "/grants/{grant_id}",
    tags=["grants"],
    status_code=204,
    response_class=Response,
    responses=problems(401, 403, 404, 422, 503),
)
async def revoke_grant(
    request: Request, reviewer: Reader, grant_id: Annotated[str, Path(examples=[examples.GRANT_ID])]
) -> Response:
    """Revoke one: for administrators and those who gave it. What it has let through and has not started yet is
    withdrawn."""
    await grants.revoke(request.app.state.services.pool, grant_id, reviewer)
    return Response(status_code=204)


@router.get(
    "/sessions",
    tags=["sessions"],
    response_model=SessionPage,
    responses=shown(examples.page(examples.SESSION)) | problems(401, 403, 503),
)
async def list_sessions(request: Request, _: Overseer) -> Response:
    """Live sessions."""
    return Json({"items": await request.app.state.services.sessions.list(), "next": None})


@router.delete(
    "/sessions/{session_id}",
    tags=["sessions"],
    status_code=204,
    response_class=Response,
    responses=problems(401, 403, 404, 422, 503),
)
async def end_session(
    request: Request, _: Administrator, session_id: Annotated[str, Path(examples=[examples.SESSION["id"]])]
) -> Response:
    """End one."""
    if "\0" in session_id or not await request.app.state.services.sessions.end(session_id):
        raise NotFound("no such session")
    return Response(status_code=204)


@router.post(
    "/reload",
    tags=["configuration"],
    response_model=Reloaded,
    responses=shown(examples.RELOADED)
    | problems(401, 403, 413, 503)
    | {
        409: {
            "model": Reloaded,
            "description": "The configuration has problems; the one in force stays.",
            "content": {"application/json": {"example": examples.NOT_RELOADED}},
        }
    },
)
async def reload_configuration(request: Request, administrator: Administrator) -> Response:
    """Read the configuration file again, as SIGHUP does."""
    result = await request.app.state.services.reloader.reload(administrator.name)
    return Json(result, 200 if result["reloaded"] else 409)
