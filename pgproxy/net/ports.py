"""The services a worker's sessions share; `pgproxy.app` puts them together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from pgproxy.net.errands import Errands
from pgproxy.net.upstream import Upstream
from pgproxy.session.hourly import HourlyUse
from pgproxy.session.ports import Analyzer, ApprovalGateway, AuditWriter, Estimator


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
    """How many statements of this worker, and of one agent here, may wait for a human at once."""

    limit: int
    per_agent: int = 0  # 0: no limit of its own
    occupied: int = 0
    by_agent: Counter[str] = field(default_factory=Counter)

    def enter(self, agent: str) -> str | None:
        """Takes a place; or gives the configuration's key of the limit that is reached."""
        if self.occupied >= self.limit:
            return "limits.parked"
        if self.per_agent and self.by_agent[agent] >= self.per_agent:
            return "limits.parked_per_agent"
        self.occupied += 1
        self.by_agent[agent] += 1
        return None

    def leave(self, agent: str) -> None:
        self.occupied -= 1
        self.by_agent[agent] -= 1
        if not self.by_agent[agent]:
            del self.by_agent[agent]


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
    hourly: HourlyUse = field(default_factory=HourlyUse)
    estimator: Estimator | None = None
