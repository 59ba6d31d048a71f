"""Grants, live sessions, and the configuration."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from approvals.api.authentication import Administrator, Reader
from approvals.api.responses import Json, problems
from approvals.api.schemas import GrantPage, Reloaded, SessionPage
from approvals.errors import NotFound

router = APIRouter(prefix="/v1")


@router.get("/grants", tags=["grants"], response_model=GrantPage, responses=problems(401, 403, 503))
async def list_grants(_: Reader) -> Response:
    """Scoped grants in force. This version makes none: every approval covers one execution."""
    return Json({"items": [], "next": None})


@router.delete(
    "/grants/{grant_id}",
    tags=["grants"],
    status_code=204,
    response_class=Response,
    responses=problems(401, 403, 404, 422, 503),
)
async def revoke_grant(_: Administrator, grant_id: str) -> Response:
    """Revoke one."""
    raise NotFound("no such grant")


@router.get("/sessions", tags=["sessions"], response_model=SessionPage, responses=problems(401, 403, 503))
async def list_sessions(request: Request, _: Administrator) -> Response:
    """Live sessions."""
    return Json({"items": await request.app.state.services.sessions.list(), "next": None})


@router.delete(
    "/sessions/{session_id}",
    tags=["sessions"],
    status_code=204,
    response_class=Response,
    responses=problems(401, 403, 404, 422, 503),
)
async def end_session(request: Request, _: Administrator, session_id: str) -> Response:
    """End one."""
    if "\0" in session_id or not await request.app.state.services.sessions.end(session_id):
        raise NotFound("no such session")
    return Response(status_code=204)


@router.post(
    "/reload",
    tags=["configuration"],
    response_model=Reloaded,
    responses=problems(401, 403, 413, 503)
    | {409: {"model": Reloaded, "description": "The configuration has problems; the one in force stays."}},
)
async def reload_configuration(request: Request, administrator: Administrator) -> Response:
    """Read the configuration file again, as SIGHUP does."""
    result = await request.app.state.services.reloader.reload(administrator.name)
    return Json(result, 200 if result["reloaded"] else 409)
