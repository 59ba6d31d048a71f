"""What the API needs of the rest of the program, as Protocols; `pgproxy.app` fills them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol


class Classifier(Protocol):
    async def classify(self, sql: str) -> dict[str, Any]:
        """The contract's classification object, of any text whatever.

        Raises:
            ValueError: the text cannot be classified; the message is shown.
        """
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
    ) -> dict[str, Any]:
        """`{"items": […], "next": cursor or None}`, newest first; texts never hold a NUL.

        Raises:
            ValueError: a cursor that is not one; the message is shown.
        """
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
