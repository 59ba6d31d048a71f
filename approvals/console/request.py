"""One request: everything to decide it by on one page, and the forms to do so."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from approvals import decisions, reading
from approvals.api.schemas import CommentBody, DecisionBody
from approvals.console import differences
from approvals.console.forms import read_form
from approvals.console.frame import framed, require
from approvals.console.inbox import summary
from approvals.console.login import PageSession
from approvals.console.sqltext import first_part, highlight, visible
from approvals.display import escape, lookalikes
from approvals.errors import ApprovalError, NotFound
from approvals.model import is_id
from approvals.store import store_connection

router = APIRouter(prefix="/approvals", include_in_schema=False)

SHOWN_CHARS = 200_000
"""Of a statement on the page; all of it is one link away, and the page says how much more there is."""

_HIGHLIGHTED_CHARS = 60_000
_KNOWN_CONTEXT = ("impact", "history")


@router.get("/{approval_id}")
async def show_request(request: Request, _: PageSession, approval_id: str) -> Response:
    return await _show(request, approval_id)


async def _show(
    request: Request,
    approval_id: str,
    *,
    problem: str | None = None,
    status: int = 200,
    form: dict[str, str] | None = None,
    preview: dict[str, Any] | None = None,
) -> Response:
    services = request.app.state.services
    approval = await _load(request, approval_id)
    can_judge = services.judge is not None
    obstacles = await decisions.obstacles(
        services.pool, approval_id, request.state.reviewer, request.state.via, can_judge=can_judge
    )
    async with store_connection(services.pool) as connection:
        earlier = await reading.history(connection, approval_id, limit=10)
    roles = request.state.reviewer.roles
    return await framed(
        request,
        "request.html",
        status,
        title=f"{approval['status'].capitalize()}: {escape(summary(approval)['line'][:60])}",
        approval=approval,
        brief=summary(approval),
        statement=excerpt(str(approval["statement"]["sql"])),
        original=None if approval["original"] is None else excerpt(str(approval["original"]["sql"])),
        lookalikes=lookalikes(str(approval["statement"]["sql"])),
        difference=difference(approval),
        circumstances={key: value for key, value in approval["context"].items() if key not in _KNOWN_CONTEXT},
        impact=approval["context"].get("impact"),
        history=approval["context"].get("history"),
        earlier=[summary(each) for each in earlier],
        obstacles=obstacles,
        may_comment=not roles.isdisjoint({"reviewer", "admin"}),
        fresh_login=services.oidc is not None,
        problem=problem,
        form={"comment": "", "sql": "", "scope": "once", **(form or {})},
        preview=preview,
    )


def excerpt(sql: str) -> dict[str, Any]:
    """A statement as the page shows it."""
    shown = first_part(sql, SHOWN_CHARS)
    rest = sql[len(shown) :]
    return {
        "html": highlight(shown) if len(shown) <= _HIGHLIGHTED_CHARS else visible(shown),
        # A field shows raw text, so what would hide or reorder itself there is not put into one.
        "editable": sql if not rest and is_plain(sql) else None,
        "size": len(_raw(sql)),
        "more": len(_raw(rest)),
    }


def is_plain(text: str) -> bool:
    """Whether nothing of it would hide or reorder itself in a field of a form."""
    plain = text.replace("\t", " ")
    return escape(plain, multiline=True) == plain


def difference(approval: dict[str, Any]) -> dict[str, Any] | None:
    """Both forms of it; None where nothing was changed, `rows` None where it is too long to be compared."""
    if approval["original"] is None:
        return None
    before, after = str(approval["original"]["sql"]), str(approval["statement"]["sql"])
    is_short = len(before) + len(after) <= SHOWN_CHARS
    rows = differences.rows(before, after) if is_short else None
    return {"rows": rows, "unified": None if rows is None else differences.unified(rows)}


@router.get("/{approval_id}/statement.txt")
async def show_statement(request: Request, _: PageSession, approval_id: str, original: bool = False) -> Response:
    """The statement's own bytes."""
    approval = await _load(request, approval_id)
    statement = approval["original"] if original else approval["statement"]
    if statement is None:
        raise NotFound("this statement was not modified")
    return PlainTextResponse(_raw(str(statement["sql"])))


@router.get("/{approval_id}/parameters/{number}.txt")
async def show_parameter(request: Request, _: PageSession, approval_id: str, number: int) -> Response:
    """One parameter's value, whole."""
    parameters = (await _load(request, approval_id))["statement"]["params"]
    if not 1 <= number <= len(parameters) or parameters[number - 1]["value"] is None:
        raise NotFound("no such parameter")
    return PlainTextResponse(_raw(str(parameters[number - 1]["value"])))


@router.post("/{approval_id}/decision")
async def decide(request: Request, _: PageSession, approval_id: str) -> Response:
    """Approve, deny, modify; or only look at what a modification would be (`preview`)."""
    form = await read_form(request)
    services = request.app.state.services
    if form.get("decision") == "comment":
        return await _comment(request, approval_id, form)
    if form.get("decision") == "preview":
        return await _preview(request, approval_id, form)
    try:
        require(request.state.reviewer, "reviewer")
        body = DecisionBody.model_validate(_body(form))
        await decisions.decide(
            services.pool,
            approval_id,
            request.state.reviewer,
            body.decision,
            body.comment,
            request.state.via,
            terms=body.terms(),
            sql=body.sql,
            judge=services.judge,
            sha256=body.sha256,
        )
    except ValidationError as error:
        return await _show(request, approval_id, problem=_sentence(error), status=422, form=form)
    except NotFound:
        raise
    except ApprovalError as error:
        return await _show(request, approval_id, problem=str(error), status=error.http_status, form=form)
    return RedirectResponse(f"/approvals/{approval_id}", 303)


async def _comment(request: Request, approval_id: str, form: dict[str, str]) -> Response:
    try:
        require(request.state.reviewer, "reviewer", "admin")
        body = CommentBody.model_validate({"text": _lines(form.get("comment", ""))})
    except ValidationError:
        return await _show(request, approval_id, problem="a comment needs words", status=422, form=form)
    await decisions.add_comment(request.app.state.services.pool, approval_id, request.state.reviewer, body.text)
    return RedirectResponse(f"/approvals/{approval_id}#thread", 303)


async def _preview(request: Request, approval_id: str, form: dict[str, str]) -> Response:
    """What policy would say to it; nothing is changed."""
    services = request.app.state.services
    require(request.state.reviewer, "reviewer")
    sql = _lines(form.get("sql", ""))
    form = {**form, "sql": sql}
    if services.judge is None or not sql.strip():
        return await _show(request, approval_id, problem="write the statement first", status=422, form=form)
    try:
        verdict = await services.judge.judge(sql, await _load(request, approval_id))
    except ValueError as error:
        return await _show(request, approval_id, problem=str(error), status=422, form=form)
    found = {
        "decision": verdict.decision,
        "rule": verdict.rule,
        "risk": verdict.risk,
        "message": verdict.message,
        "classification": verdict.classification,
        "requirements": [{"rule": r.rule, "groups": list(r.groups), "count": r.count} for r in verdict.requirements],
    }
    return await _show(request, approval_id, form=form, preview=found)


def _body(form: dict[str, str]) -> dict[str, Any]:
    """The API's body from a form's fields, of which those left empty are not there."""
    decision = form.get("decision")
    body: dict[str, Any] = {"decision": decision, "sha256": form.get("sha256", "")}
    if comment := _lines(form.get("comment", "")).strip():
        body["comment"] = comment
    if decision == "modify":
        body["sql"] = _lines(form.get("sql", ""))
    scope = form.get("scope", "once")
    if decision == "approve" and (scope != "once" or form.get("row_cap")):
        body["grant"] = {
            "scope": scope,
            **({"seconds": _number(form["minutes"]) * 60} if form.get("minutes") else {}),
            **({key: form[key] for key in ("uses", "row_cap") if form.get(key)}),
        }
    return body


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0  # refused by the model, which says what it wants


def _lines(text: str) -> str:
    """A form's line ends are CRLF whatever was typed ("HTML", form submission)."""
    return text.replace("\r\n", "\n")


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


async def _load(request: Request, approval_id: str) -> dict[str, Any]:
    if not is_id(approval_id):
        raise NotFound("no such approval")
    async with store_connection(request.app.state.services.pool) as connection:
        approval = await reading.load(connection, approval_id)
    if approval is None:
        raise NotFound("no such approval")
    return approval
