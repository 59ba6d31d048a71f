"""What is judged as one: a Query, a Bind (with the Parse held before it), a refused Parse, a FunctionCall, the start-up
of a replication connection."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from classifier.model import Classification, Environment
from pgproxy.errors import ProxyError
from pgproxy.policy import Budget, Park, Policy
from pgproxy.session.large import Large
from pgproxy.session.ports import Requester
from pgproxy.session.replies import Expected
from pgproxy.session.runs import StatementRun
from pgproxy.session.statements import PreparedStatement


class UnitKind(Enum):
    QUERY = "Query"
    PARSE = "Parse"
    BIND = "Bind"
    FUNCTION_CALL = "FunctionCall"
    START_UP = "StartupMessage"  # of a replication connection


@dataclass(eq=False, slots=True)
class Modified:
    """The text that a reviewer put in the place of the client's, and what the server says of both: parameter types
    and columns. `name` is the private one under which it is prepared, if it is."""

    text: str
    sql: bytes
    by: str
    name: bytes = b""
    descriptions: list[list[Any]] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Unit:
    """One unit under judgement. `messages` are the client's own bytes, forwarded as they are; `expected` says what
    each of them will be answered with, in the same order."""

    kind: UnitKind
    sql: bytes
    messages: list[bytes]
    expected: list[Expected]
    received_at: float
    statement_id: str
    parameters: list[dict[str, Any]] = field(default_factory=list)
    parameter_types: tuple[int, ...] = ()
    portal: bytes = b""
    statement_name: bytes = b""
    prepared: PreparedStatement | None = None
    text: str = ""
    # what each name in SQL EXECUTE stands for, or may stand for
    executes: dict[str, list[str]] = field(default_factory=dict)
    stood_for: dict[bytes, tuple[PreparedStatement, ...]] = field(default_factory=dict)  # the same, by key
    analysed: dict[tuple[str, Environment], Classification] = field(default_factory=dict)
    classification: Classification | None = None
    probed: bool = False
    # the decision so far, in the audit entry's words, and what it rests on
    decision: str = ""
    rule: str = ""
    approval_id: str | None = None
    binding: str = ""
    requester: Requester | None = None  # with what the statement's own comment says
    policy: Policy | None = None  # the one that decided
    estimated: bool = False  # the planner was asked
    rows_estimate: float | None = None
    park: Park | None = None
    waits: bool = True  # for the human, and not only asks
    budgets: tuple[Budget, ...] = ()
    row_cap: int | None = None
    modified: Modified | None = None
    reviewers: tuple[str, ...] = ()
    parked: bool = False  # and the outside was told so
    claimable: bool = False  # approved, and the approval not spent yet
    refusal: ProxyError | None = None
    server_refuses: bool = False  # refused by the server's own failed transaction
    cancelled: bool = False
    covered: bool = False  # by the approval of its replication connection
    ready: bytes = b""  # of a start-up: the server's ReadyForQuery, withheld from the client
    run: StatementRun | None = None
    large: Large | None = None  # the last message, not among `messages`, whose rest may still be arriving

    @property
    def running(self) -> tuple[str, bytes]:
        """The text that runs, and its bytes: the client's, or the one a reviewer put in its place."""
        return (self.text, self.sql) if self.modified is None else (self.modified.text, self.modified.sql)
