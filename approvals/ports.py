"""What the API needs of the rest of the program, as Protocols; `pgproxy.app` fills them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from approvals.model import Requirement


class Classifier(Protocol):
    async def classify(self, sql: str, database: str | None = None) -> dict[str, Any]:
        """The contract's classification object, of any text whatever; with a database, by its catalog.

        Raises:
            ValueError: the text cannot be classified; the message is shown.
        """
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """What policy says to a statement that a reviewer wrote, as if the requester had sent it. `message` is the rule's
    own, or why it is denied."""

    decision: Literal["allow", "approve", "deny"]
    classification: dict[str, Any]
    risk: str
    rule: str
    requirements: Sequence[Requirement] = ()
    channels: Sequence[str] = ()
    message: str | None = None
    policy_version: str = ""


class PolicyJudge(Protocol):
    async def judge(self, sql: str, approval: dict[str, Any]) -> Verdict:
        """The verdict on `sql` in the place of an approval's statement: its requester, its circumstances.

        Raises:
            ValueError: not one statement that can be understood; the message is shown.
        """
        ...


class PolicyExplainer(Protocol):
    async def describe(self) -> dict[str, Any]:
        """The policy in force: `version`, `mode`, `approval_timeout_s`, `tags`, and `rules` in their order, each with
        `name`, `decision`, `match`, `asks`, `budgets`."""
        ...

    async def explain(self, sql: str, who: dict[str, str | None]) -> dict[str, Any]:
        """What it would say to `sql` of `who` (`agent`, `owner`, `db_user`, `database`, `client_addr`, `reason`,
        `ticket`): `decision`, `risk`, and `actions`, each with the `rule` that decided it and those `passed_over`.

        Raises:
            ValueError: not statements that can be understood; the message is shown.
        """
        ...


class ImpactProbe(Protocol):
    async def probe(self, approval: dict[str, Any]) -> dict[str, Any]:
        """What an approval's statement would do where it would run: the value of `context.impact`. It takes a few
        seconds at most, and raises nothing: what could not be found out says why in its place."""
        ...


class AuditReader(Protocol):
    async def search(
        self,
        *,
        since: datetime | None,
        until: datetime | None,
        agent: str | None,
        class_: str | None,
        decision: str | None,
        q: str | None,
        limit: int,
        cursor: str | None,
        session_id: str | None = None,
    ) -> dict[str, Any]:
        """`{"items": […], "next": cursor or None}`, newest first; texts never hold a NUL.

        Raises:
            ValueError: a cursor that is not one; the message is shown.
        """
        ...

    async def count_by_class(self, since: datetime, step_s: float) -> list[tuple[datetime, str, int]]:
        """Statements of each class from `since` on, in steps of that length: its beginning, class, number."""
        ...


class SessionDirectory(Protocol):
    async def list(self) -> list[dict[str, Any]]:
        """The live sessions of this node, each with at least its `id`."""
        ...

    async def end(self, session_id: str) -> bool:
        """Ends one; false when there is none of that id."""
        ...


class Reloader(Protocol):
    async def reload(self, by: str) -> dict[str, Any]:
        """Reads the configuration again: `{"reloaded", "changed", "needs_restart", "problems"}`.

        Raises:
            NotReloaded: nobody could be asked, or it is not known how it ended.
        """
        ...


class MetricsText(Protocol):
    def render(self) -> tuple[bytes, str]:
        """Prometheus text and its content type."""
        ...


class Readiness(Protocol):
    async def check(self) -> list[str]:
        """What keeps the program from taking sessions, in plain sentences; empty when nothing does.
        (Whether the store answers the API asks itself.)"""
        ...

    async def remarks(self) -> list[str]:
        """What an operator should know and sessions do not depend on."""
        ...
