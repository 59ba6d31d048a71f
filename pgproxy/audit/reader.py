"""The trail as readers get it: newest first, a statement and its outcome as one entry.

Order is (time, seq) and not seq alone: entries that waited for the store come late, and belong where they
happened. A cursor names a place in that order, so pages neither overlap nor skip however many entries arrive
meanwhile.

A statement's first outcome is shown in the statement's entry when it came within five seconds of it; every
other outcome (a later one, or a second one that tells a transaction's fate) is an entry of its own. Both are
decided by the recorded times, so the same question gets the same answer whenever it is asked. Where an
outcome's decision is `blocked`, so is its statement's, whatever was recorded before (see
`pgproxy.audit.writer`).
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from pgproxy.audit import encoding, filters
from pgproxy.records import Decision, Entry

if TYPE_CHECKING:
    from pgproxy.store import Pool

PAGE_BYTES = 8 << 20
"""A page ends early (never empty) when its entries exceed this: statements may be large."""

_LISTED = """
NOT (e.kind = 'outcome'
     AND EXISTS (SELECT FROM audit.entries s WHERE s.kind = 'statement' AND s.statement_id = e.statement_id
                 AND e.time <= s.time + interval '5 s')
     AND NOT EXISTS (SELECT FROM audit.entries f WHERE f.kind = 'outcome' AND f.statement_id = e.statement_id
                     AND (f.time, f.seq) < (e.time, e.seq)))
"""
_PAGE = """
SELECT e.seq, e.time, e.size_bytes FROM audit.entries e WHERE {conditions}
ORDER BY e.time DESC, e.seq DESC LIMIT {limit}
"""
_ENTRIES = """
SELECT e.seq, e.node, e.sql, e.body::text AS body, o.outcome::text AS outcome,
       e.kind = 'statement' AND EXISTS (SELECT FROM audit.entries m WHERE m.kind = 'outcome'
            AND m.decision = 'blocked' AND m.statement_id = e.statement_id) AS taken_back
FROM audit.entries e
LEFT JOIN LATERAL (
    SELECT o.time, o.body->'outcome' AS outcome FROM audit.entries o
    WHERE o.kind = 'outcome' AND o.statement_id = e.statement_id ORDER BY o.time, o.seq LIMIT 1
) o ON e.kind = 'statement' AND o.time <= e.time + interval '5 s'
WHERE e.seq = ANY ($1) ORDER BY e.time DESC, e.seq DESC
"""

_BY_CLASS = """
SELECT date_bin($2::interval, e.time, $1) AS at, class, count(*) AS number
FROM audit.entries e CROSS JOIN LATERAL unnest(e.classes) AS class
WHERE e.kind = 'statement' AND e.time >= $1 GROUP BY at, class ORDER BY at, class
"""


class StoreReader:
    """Reads through the store's pool; its time limits are the pool's."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def search(
        self,
        *,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        agent: str | None = None,
        class_: str | None = None,
        decision: str | None = None,
        q: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
        kind: str | None = None,
        session_id: str | None = None,
        statement_id: str | None = None,
    ) -> dict[str, Any]:
        """`{"items": […], "next": cursor or None}`. `since` is included, `until` is not.

        `q` is looked for in statement, reason, ticket and approval id, whatever its case.

        Raises:
            ValueError: a filter whose value cannot be meant; its text is for whoever asked.
        """
        limit = filters.checked_limit(limit)
        where = filters.conditions(
            since=since,
            until=until,
            agent=agent,
            class_=class_,
            decision=decision,
            q=q,
            cursor=cursor,
            kind=kind,
            session_id=session_id,
            statement_id=statement_id,
        )
        where.terms.append(_LISTED)
        query = _PAGE.format(conditions=" AND ".join(where.terms), limit=limit + 1)
        places = await self._pool.fetch(query, *where.parameters)
        shown = places[: _how_many([place["size_bytes"] for place in places[:limit]])]
        rows = await self._pool.fetch(_ENTRIES, [place["seq"] for place in shown])
        last = shown[-1] if len(places) > len(shown) else None
        return {
            "items": [_entry(row) for row in rows],
            "next": None if last is None else filters.make_cursor(last["time"], last["seq"]),
        }

    async def count_by_class(self, since: datetime, step_s: float) -> list[tuple[datetime, str, int]]:
        """Statements of each class from `since` on, in steps of that length: its beginning, class, number."""
        rows = await self._pool.fetch(_BY_CLASS, since, timedelta(seconds=step_s))
        return [(row["at"], row["class"], row["number"]) for row in rows]


def _how_many(sizes_bytes: list[int]) -> int:
    """How many of the entries fit in a page, and one at least."""
    total_bytes = 0
    for count, size_bytes in enumerate(sizes_bytes):
        total_bytes += size_bytes
        if count and total_bytes > PAGE_BYTES:
            return count
    return len(sizes_bytes)


def _entry(row: Any) -> Entry:
    entry = encoding.decode(json.loads(row["body"]), seq=row["seq"], node=row["node"], sql=row["sql"])
    if row["outcome"] is not None:
        entry["outcome"] = json.loads(row["outcome"])
    if row["taken_back"]:
        entry["decision"] = Decision.BLOCKED.value
    return entry
