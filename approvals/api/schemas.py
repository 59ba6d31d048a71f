"""Bodies and answers of the API, for validation on the way in and for the OpenAPI document on the way out."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from approvals.model import Status

MAX_TEXT = 10_000


def _without_controls(text: str) -> str:
    """What people write is shown on other people's terminals, so no control characters but line ends and
    tabs."""
    if any(unicodedata.category(char) == "Cc" and char not in "\t\r\n" for char in text):
        raise ValueError("control characters are not allowed")
    return text


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("a NUL character is not allowed")
    return text


def _empty_is_absent(value: Any) -> Any:
    return None if value == "" else value


Prose = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_without_controls)]
SearchText = Annotated[
    Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_without_nul)] | None,
    BeforeValidator(_empty_is_absent),
]
StatusFilter = Annotated[Status | None, BeforeValidator(_empty_is_absent)]
Moment = Annotated[datetime | None, BeforeValidator(_empty_is_absent)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DecisionBody(_Body):
    decision: Literal["approve", "deny", "modify"]
    comment: Prose | None = None
    sql: str | None = Field(None, description="With `modify`: the statement to run instead.")
    grant_seconds: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="How long the same may be repeated."
    )

    @model_validator(mode="after")
    def _sql_belongs_to_modify(self) -> DecisionBody:
        if (self.sql is not None) != (self.decision == "modify"):
            raise ValueError("sql is given with the decision modify, and only with it")
        return self


class CommentBody(_Body):
    text: Annotated[Prose, Field(min_length=1, pattern=r"\S")]


class ClassifyBody(_Body):
    sql: str


class Requester(BaseModel):
    agent: str
    owner: str | None
    db_user: str | None
    database: str | None
    client_addr: str | None
    application_name: str | None
    session_id: str | None
    reason: str | None
    ticket: str | None
    context: Any = None


class Parameter(BaseModel):
    type: str | int
    value: str | None


class Statement(BaseModel):
    sql: str
    sha256: str
    params: list[Parameter]


class Action(BaseModel):
    class_: str = Field(alias="class")
    verb: str
    object: str | None = None
    detail: str | None = None


class ClassifiedStatement(BaseModel):
    kind: str
    tag: str | None = None
    actions: list[Action]
    relations: list[str]
    functions: list[str]
    reasons: list[str]


class Classification(BaseModel):
    privileged: bool
    risk: str
    fingerprint: str | None = None
    normalized: str | None = None
    statements: list[ClassifiedStatement]


class Vote(BaseModel):
    reviewer: str
    decision: Literal["approve", "deny"]
    comment: str | None
    at: datetime
    via: str


class Comment(BaseModel):
    reviewer: str
    text: str
    at: datetime


class Outcome(BaseModel):
    command_tag: str | None
    rows: int | None
    bytes: int | None
    sqlstate: str | None
    started_at: datetime | None
    finished_at: datetime | None


class Approval(BaseModel):
    id: str
    status: Status
    created_at: datetime
    expires_at: datetime
    requester: Requester
    statement: Statement
    classification: Classification
    risk: str
    rule: str
    required_approvals: int
    context: dict[str, Any]
    decisions: list[Vote]
    comments: list[Comment]
    outcome: Outcome | None
    withdraw_reason: str | None


class ApprovalPage(BaseModel):
    items: list[Approval]
    next: str | None


class Grant(BaseModel):
    id: str


class GrantPage(BaseModel):
    items: list[Grant]
    next: str | None


class Session(BaseModel):
    model_config = ConfigDict(extra="allow")
    id: str


class SessionPage(BaseModel):
    items: list[Session]
    next: str | None


class Reloaded(BaseModel):
    """`changed`: keys that differ from before. `needs_restart`: keys that differ and stay as they were. `problems`:
    why nothing was changed."""

    reloaded: bool
    changed: list[str]
    needs_restart: list[str]
    problems: list[str]


class AuditEntry(BaseModel):
    model_config = ConfigDict(extra="allow")
    seq: int
    node: str
    time: datetime
    kind: str


class AuditPage(BaseModel):
    items: list[AuditEntry]
    next: str | None


class Health(BaseModel):
    status: str


class ReadinessReport(BaseModel):
    ready: bool
    problems: list[str]
    remarks: list[str] = Field(description="Worth knowing, without keeping anyone out.")


class Index(BaseModel):
    name: str
    links: dict[str, str]


class Problem(BaseModel):
    detail: str


class InvalidField(BaseModel):
    loc: list[str | int]
    msg: str
    type: str


class InvalidRequest(BaseModel):
    detail: list[InvalidField] | str
