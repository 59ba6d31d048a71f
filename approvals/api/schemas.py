"""Bodies and answers of the API, for validation on the way in and for the OpenAPI document on the way out."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from approvals.grants import DEFAULT_GRANT_S, MAX_GRANT_S, MAX_USES, Scope, Terms
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
# All filters of a list at their longest, percent-encoded, fit a request line as the server reads it (64 KB).
SearchText = Annotated[
    Annotated[str, Field(max_length=256), AfterValidator(_without_nul)] | None,
    BeforeValidator(_empty_is_absent),
]
LongSearchText = Annotated[
    Annotated[str, Field(max_length=1000), AfterValidator(_without_nul)] | None,
    BeforeValidator(_empty_is_absent),
]
StatusFilter = Annotated[Status | None, BeforeValidator(_empty_is_absent)]
Moment = Annotated[datetime | None, BeforeValidator(_empty_is_absent)]


def in_utc(moment: datetime | None) -> datetime | None:
    """Times without a zone are UTC."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class GrantTerms(_Body):
    """Consent beyond the one execution. With a quorum, what all of its people agreed to: the narrowest."""

    scope: Scope = Field(
        "text",
        description="`once`: the one execution, for a `row_cap`. `exact`: this text with these parameters. `text`: "
        "this text with any. `shape`: this statement with other constants, where its meaning does not depend on them. "
        "`transaction`: what this transaction does of the same classes.",
    )
    seconds: float = Field(DEFAULT_GRANT_S, gt=0, le=MAX_GRANT_S, allow_inf_nan=False)
    uses: int | None = Field(None, ge=1, le=MAX_USES, description="Further executions; left out: any number.")
    row_cap: int | None = Field(None, ge=1, le=10**15, description="Rows of each execution, of this one too.")


class DecisionBody(_Body):
    decision: Literal["approve", "deny", "modify"]
    comment: Prose | None = None
    sql: str | None = Field(None, description="With `modify`: the statement to run instead.")
    grant_seconds: float | None = Field(
        None,
        gt=0,
        le=MAX_GRANT_S,
        allow_inf_nan=False,
        description='How long the same text may be repeated; short for `grant: {"scope": "text", "seconds": …}`.',
    )
    grant: GrantTerms | None = None
    sha256: str | None = Field(
        None,
        pattern="^[0-9a-f]{64}$",
        description="Of the statement you have read; if a reviewer has changed it meanwhile, 409 and no vote.",
    )

    @model_validator(mode="after")
    def _belongs_together(self) -> DecisionBody:
        if (self.sql is not None) != (self.decision == "modify"):
            raise ValueError("sql is given with the decision modify, and only with it")
        if self.grant is not None and self.grant_seconds is not None:
            raise ValueError("either grant or grant_seconds")
        if self.decision != "approve" and (self.grant is not None or self.grant_seconds is not None):
            raise ValueError("a grant is given with the decision approve, and only with it")
        return self

    def terms(self) -> Terms | None:
        if self.grant_seconds is not None:
            return Terms("text", self.grant_seconds)
        if self.grant is None:
            return None
        return Terms(self.grant.scope, self.grant.seconds, self.grant.uses, self.grant.row_cap)


class CommentBody(_Body):
    text: Annotated[Prose, Field(min_length=1, pattern=r"\S")]


class ClassifyBody(_Body):
    sql: str
    database: SearchText = Field(None, description="Judge by this database's catalog, where an observer reads it.")


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
    decision: Literal["approve", "deny", "modify"]
    comment: str | None
    at: datetime
    via: str = Field(description="`api`, `console`, `slack`, …; `grant`: given earlier, with a grant.")
    revision: int
    voided: bool = Field(description="It was for an earlier text, and counts no more.")
    counts: bool = Field(description="False for who changed a statement to one that does more.")
    grant: dict[str, Any] | None = Field(description="The grant this vote agreed to, or came by.")


class Requirement(BaseModel):
    rule: str
    groups: list[str] = Field(description="Whose approvals; empty: any reviewer's.")
    count: int
    approvals: int = Field(description="How many people have met it so far.")


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
    requirements: list[Requirement] = Field(description="All are to be met, each by distinct people.")
    revision: int
    original: Statement | None = Field(description="What the agent sent, once a reviewer has changed it.")
    modified_by: str | None
    wait: bool = Field(description="Whether the session waits; if not, the same agent's retry uses the approval.")
    channels: list[str] = Field(description="From where it may be decided; empty: from anywhere.")
    notify: list[str]
    escalations: list[dict[str, Any]]
    message: str | None
    policy_version: str
    budget: dict[str, Any] | None = Field(description="Of a result that ran into one: it is already running.")
    row_cap: int | None
    grant_id: str | None = Field(description="The grant that let it through.")
    made_grant_id: str | None = Field(description="The grant that was given with it.")
    grant_scopes: list[str] = Field(description="The scopes of grants that can be given on it.")


class ApprovalPage(BaseModel):
    items: list[Approval]
    next: str | None


class RequirementOfGrant(BaseModel):
    rule: str
    groups: list[str]
    count: int


class Grant(BaseModel):
    id: str
    in_force: bool
    created_at: datetime
    expires_at: datetime
    agent: str
    owner: str
    database: str
    db_user: str
    environment: str = Field(description="A digest of role and search_path.")
    scope: Literal["exact", "text", "shape", "transaction"]
    text_sha256: str | None
    shape: str | None
    uses: int | None
    uses_left: int | None
    row_cap: int | None
    classes: list[str]
    relations: list[str]
    risk: str
    requirements: list[RequirementOfGrant]
    rule: str
    approval_id: str
    reviewers: list[str]
    comment: str | None
    revoked_at: datetime | None
    revoked_by: str | None


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


class Me(BaseModel):
    name: str
    groups: list[str]
    roles: list[str]
    machine: bool
    via: Literal["api", "console"]
    auth_time: datetime | None = Field(description="When they logged in, if that is known.")
    csrf_token: str | None = Field(description="What the console's unsafe requests carry in `X-CSRF-Token`.")


class Login(BaseModel):
    id: str
    name: str
    by: Literal["oidc", "token"]
    address: str
    user_agent: str
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime


class LoginPage(BaseModel):
    items: list[Login]
    next: str | None


class AuditEntry(BaseModel):
    model_config = ConfigDict(extra="allow")
    seq: int
    node: str
    time: datetime
    kind: str


class AuditPage(BaseModel):
    items: list[AuditEntry]
    next: str | None


class Notification(BaseModel):
    id: int
    message_id: str
    target: str
    channel_kind: Literal["slack", "teams", "webhook", "apprise"]
    approval_id: str
    kind: Literal["opened", "changed", "escalated"]
    state: Literal["waiting", "delivered", "dead"]
    created_at: datetime
    attempts: int
    next_at: datetime | None = Field(description="Of the next attempt, while it waits.")
    delivered_at: datetime | None
    dead_at: datetime | None = Field(description="Given up then.")
    last_error: str | None


class NotificationPage(BaseModel):
    items: list[Notification]
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
