"""For machines: alive, ready, metrics; and an index for whoever opens the address in a browser. No token
needed."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from approvals.api import examples
from approvals.api.responses import Json, shown
from approvals.api.schemas import Health, Index, ReadinessReport
from approvals.errors import StoreUnavailable
from approvals.store import store_connection

router = APIRouter(tags=["probes"])

_PROBE_TIMEOUT_S = 2.0


@router.get("/", response_model=Index, responses=shown(examples.INDEX))
async def index() -> Response:
    """Where what is."""
    return Json(examples.INDEX)


@router.get("/healthz", response_model=Health, responses=shown({"status": "ok"}))
async def healthz() -> Response:
    """The process is alive."""
    return Json({"status": "ok"})


@router.get(
    "/readyz",
    response_model=ReadinessReport,
    responses=shown({"ready": True, "problems": [], "remarks": []})
    | {
        503: {
            "model": ReadinessReport,
            "description": "Not ready; the problems say why.",
            "content": {
                "application/json": {
                    "example": {"ready": False, "problems": ["the approval store did not answer"], "remarks": []}
                }
            },
        }
    },
)
async def readyz(request: Request) -> Response:
    """Ready to take sessions."""
    services = request.app.state.services
    problems: list[str] = []
    try:
        async with store_connection(services.pool, _PROBE_TIMEOUT_S) as connection:
            await connection.fetchval("SELECT 1")
    except StoreUnavailable as error:
        problems.append(str(error))
    problems += await services.readiness.check()
    remarks = await services.readiness.remarks()
    return Json({"ready": not problems, "problems": problems, "remarks": remarks}, 503 if problems else 200)


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {
            "description": "Prometheus text.",
            "content": {"text/plain": {"schema": {"type": "string"}, "example": "pgproxy_approvals_pending 3.0\n"}},
        }
    },
)
async def metrics(request: Request) -> Response:
    content, content_type = request.app.state.services.metrics.render()
    return Response(content, headers={"Content-Type": content_type})
