"""What the charts show, counted in the store."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from approvals.store import store_connection

if TYPE_CHECKING:
    from approvals.ports import AuditReader
    from approvals.store import Pool

_ENDS = """
SELECT date_bin($2::interval, resolved_at, $1) AS at, count(*) AS number,
       CASE WHEN status IN ('executing', 'executed', 'failed', 'unknown') THEN 'approved'
            WHEN status = 'withdrawn' AND started_at IS NULL THEN 'withdrawn' ELSE status END AS series
FROM approvals.requests WHERE resolved_at >= $1 AND status <> 'pending' GROUP BY at, series ORDER BY at, series
"""
_WAITS = """
SELECT date_bin($2::interval, resolved_at, $1) AS at,
       percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (
           ORDER BY extract(epoch FROM resolved_at - created_at)::float8) AS waits
FROM approvals.requests
WHERE resolved_at >= $1 AND EXISTS (
    SELECT FROM approvals.decisions WHERE approval_id = requests.id AND via <> 'grant')
GROUP BY at ORDER BY at
"""


@dataclass(frozen=True, slots=True)
class Series:
    """Values of one name, one a step; None where there is nothing to say."""

    name: str
    values: list[float | None]

    @property
    def total(self) -> float:
        return sum(value or 0 for value in self.values)


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart's numbers. `unit`: what a value counts; `is_stacked` where the series add up."""

    key: str
    title: str
    unit: str
    steps: list[datetime]
    series: list[Series] = field(default_factory=list)
    is_stacked: bool = True


async def figures(pool: Pool, audit: AuditReader, *, span: timedelta, step: timedelta) -> list[Figure]:
    """The steps are whole ones, and the last is not over."""
    seconds = int(step.total_seconds())
    now = datetime.now(UTC)
    end = datetime.fromtimestamp((int(now.timestamp()) // seconds + 1) * seconds, UTC)
    since = end - span
    steps = [since + step * number for number in range(int(span / step))]
    async with store_connection(pool) as connection:
        ends = await connection.fetch(_ENDS, since, step)
        waits = await connection.fetch(_WAITS, since, step)
    by_class = await audit.count_by_class(since, step.total_seconds())
    return [
        Figure("classes", "Statements by class", "statements", steps, _counted(steps, by_class)),
        Figure(
            "decisions",
            "What became of requests",
            "requests",
            steps,
            _counted(steps, [(row["at"], row["series"], row["number"]) for row in ends]),
        ),
        Figure(
            "waits",
            "How long people took",
            "seconds",
            steps,
            [
                Series("median", _placed(steps, {row["at"]: row["waits"][0] for row in waits})),
                Series("95th percentile", _placed(steps, {row["at"]: row["waits"][1] for row in waits})),
            ]
            if waits
            else [],
            is_stacked=False,
        ),
    ]


def _counted(steps: list[datetime], rows: list[tuple[datetime, str, int]]) -> list[Series]:
    """Series by their totals, the largest first."""
    found: dict[str, dict[datetime, Any]] = {}
    for at, name, number in rows:
        found.setdefault(name, {})[at] = number
    series = [Series(name, [value or 0 for value in _placed(steps, values)]) for name, values in found.items()]
    return sorted(series, key=lambda each: (-each.total, each.name))


def _placed(steps: list[datetime], values: dict[datetime, Any]) -> list[float | None]:
    return [None if values.get(at) is None else float(values[at]) for at in steps]
