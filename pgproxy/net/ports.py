"""The services a worker's sessions share; `pgproxy.app` puts them together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from pgproxy.net.errands import Errands
from pgproxy.net.upstream import Upstream
from pgproxy.session.ports import Analyzer, ApprovalGateway, AuditWriter


class SpooledAudit(AuditWriter, Protocol):
    """An audit writer that also takes entries nobody waits for, and keeps them until the trail has them."""

    def append_soon(self, entry: dict[str, Any]) -> None: ...


class Catalog(Protocol):
    """The catalogs of the upstream's databases, as versions."""

    def state(self, database: str) -> tuple[int, bool]:
        """The version to judge by (0: none), and whether it may be stale."""
        ...

    def changed(self, database: str) -> None:
        """A statement of this worker's may have changed it."""
        ...


class NoCatalog:
    """Without an observer: functions of users stay unknown."""

    def state(self, database: str) -> tuple[int, bool]:
        return 0, False

    def changed(self, database: str) -> None:
        return None


class Metrics(Protocol):
    """What the data plane counts."""

    def session_opened(self) -> None: ...
    def session_closed(self) -> None: ...
    def session_parked(self) -> None: ...
    def session_unparked(self) -> None: ...
    def statement(self, classes: Iterable[str], decision: str) -> None: ...
    def overhead(self, seconds: float) -> None: ...
    def bytes_transferred(self, direction: str, n: int) -> None: ...
    def rows(self, n: int) -> None: ...
    def upstream_error(self, kind: str) -> None: ...
    def audit_entry(self) -> None: ...


@dataclass(slots=True)
class Parking:
    """How many statements of this worker may wait for a human at once."""

    limit: int
    occupied: int = 0

    def enter(self) -> bool:
        if self.occupied >= self.limit:
            return False
        self.occupied += 1
        return True

    def leave(self) -> None:
        self.occupied -= 1


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a relay needs beside its own two connections."""

    upstream: Upstream
    approvals: ApprovalGateway
    audit: SpooledAudit
    analyzer: Analyzer
    metrics: Metrics
    errands: Errands
    parking: Parking = field(default_factory=lambda: Parking(1000))
    catalog: Catalog = field(default_factory=NoCatalog)
