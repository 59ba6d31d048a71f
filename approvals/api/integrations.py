"""What chats send. Who sends it is told from its signature or token, not from a reviewer's; these are no part of the
API, whose document leaves them out."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.responses import Response

from approvals.api.responses import Json
from approvals.notify.ports import NotVerified, Refused, SlackEndpoint, TeamsEndpoint

router = APIRouter(prefix="/integrations", include_in_schema=False)

MAX_BODY_BYTES = 1024 * 1024


async def _body(request: Request) -> bytes:
    received = b""
    async for chunk in request.stream():
        received += chunk
        if len(received) > MAX_BODY_BYTES:
            raise HTTPException(413, "the body is too large", {"Connection": "close"})
    return received


@router.post("/slack")
async def slack(request: Request) -> Response:
    """Slack's interactivity endpoint. Answered at once, for Slack waits 3 s; what comes of it is said in Slack."""
    endpoint: SlackEndpoint | None = request.app.state.services.slack
    if endpoint is None:
        raise HTTPException(404)
    body = await _body(request)
    try:
        payload = await endpoint.take_signed(request.headers, body)
    except Refused as error:
        return Json({"detail": str(error)}, 401)
    return Response(status_code=200, background=BackgroundTask(endpoint.interact, payload))


@router.post("/teams")
async def teams(request: Request) -> Response:
    """The bot's messaging endpoint."""
    endpoint: TeamsEndpoint | None = request.app.state.services.teams
    if endpoint is None:
        raise HTTPException(404)
    body = await _body(request)
    try:
        activity = await endpoint.take_activity(request.headers.get("authorization", ""), body)
    except Refused as error:
        return Json({"detail": str(error)}, 401)
    except NotVerified as error:
        return Json({"detail": str(error)}, 503)
    answer = await endpoint.answer(activity)
    return Response(status_code=200) if answer is None else Json(answer)
