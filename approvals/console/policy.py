"""The rules in force, and why they say what they say."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from approvals.console.forms import read_form
from approvals.console.frame import framed
from approvals.console.login import PageSession

router = APIRouter(include_in_schema=False)

_WHO = ("agent", "owner", "database", "db_user", "client_addr", "reason", "ticket")


@router.get("/policy")
async def show_policy(request: Request, _: PageSession) -> Response:
    return await _show(request, {})


@router.post("/policy")
async def explain(request: Request, _: PageSession) -> Response:
    """A form by POST, for a statement may be longer than a URL; nothing is changed."""
    return await _show(request, await read_form(request))


async def _show(request: Request, form: dict[str, str]) -> Response:
    explainer = request.app.state.services.explainer
    found: dict[str, Any] | None = None
    problem = None
    sql = form.get("sql", "").replace("\r\n", "\n")
    if explainer is not None and sql.strip():
        try:
            found = await explainer.explain(sql, {key: form.get(key) for key in _WHO})
        except ValueError as error:
            problem = str(error)
    return await framed(
        request,
        "policy.html",
        422 if problem else 200,
        title="Policy",
        policy=None if explainer is None else await explainer.describe(),
        who=_WHO,
        form={key: "" for key in _WHO} | form | {"sql": sql},
        problem=problem,
        found=found,
    )
