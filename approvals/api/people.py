"""Who one is to this server, and who is logged in at the console."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from approvals.api import examples
from approvals.api.authentication import Administrator, Caller, Known, Overseer
from approvals.api.responses import Json, problems, shown
from approvals.api.schemas import LoginPage, Me
from approvals.errors import NotFound
from approvals.model import rfc3339

router = APIRouter(prefix="/v1")


@router.get("/me", tags=["people"], response_model=Me, responses=shown(examples.ME) | problems(401, 403, 503))
async def read_me(request: Request, reviewer: Known) -> Response:
    """Who the server takes the caller for; for the console also what its unsafe requests need."""
    caller: Caller = request.state.caller
    return Json(
        {
            "name": reviewer.name,
            "groups": sorted(reviewer.groups),
            "roles": sorted(reviewer.roles),
            "machine": reviewer.machine,
            "via": caller.via,
            "auth_time": None if caller.auth_time is None else rfc3339(caller.auth_time),
            "csrf_token": caller.csrf_token,
        }
    )


@router.get(
    "/logins",
    tags=["people"],
    response_model=LoginPage,
    responses=shown(examples.page(examples.LOGIN)) | problems(401, 403, 503),
)
async def list_logins(request: Request, _: Overseer) -> Response:
    """Open sessions of the console."""
    return Json({"items": await request.app.state.web_sessions.list(), "next": None})


@router.delete(
    "/logins/{login_id}",
    tags=["people"],
    status_code=204,
    response_class=Response,
    responses=problems(401, 403, 404, 422, 503),
)
async def revoke_login(
    request: Request, admin: Administrator, login_id: Annotated[str, Path(examples=[examples.LOGIN["id"]])]
) -> Response:
    """End one; what it follows ends within seconds."""
    if "\0" in login_id or not await request.app.state.web_sessions.revoke(login_id, admin.name):
        raise NotFound("no such login")
    return Response(status_code=204)
