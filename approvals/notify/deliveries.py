"""The table of what is to be told: planned once for each event and target, taken by one process at a time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from approvals.documents import decode, encode, storable
from approvals.model import rfc3339
from approvals.notify.ports import KINDS, Channel, Kind, MessageKind
from approvals.outbox import EventRow, events_after, last_seq
from approvals.store import store_connection

if TYPE_CHECKING:
    import asyncpg

    from approvals.store import Connection, Pool

LEASE_S = 60.0
"""A delivery that is being tried belongs to whoever took it for this long; then it is taken to be lost."""

_PLAN_BATCH = 200


@dataclass(frozen=True, slots=True)
class Delivery:
    """One row that this process has taken. `age_s`: since it was planned, by the store's clock."""

    id: int
    message_id: str
    target: str
    approval_id: str
    kind: MessageKind
    event_seq: int | None
    attempts: int
    created_at: datetime
    age_s: float
    refs: tuple[dict[str, Any], ...]


def reader_name(target: str) -> str:
    """The target's name among the readers of the outbox."""
    return f"notify:{target}"


async def start_reader(pool: Pool, target: str) -> None:
    """A target that is new begins with what happens from now on."""
    now = await last_seq(pool)
    async with store_connection(pool) as connection:
        await connection.execute(
            "INSERT INTO approvals.readers (name, seq) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
            reader_name(target),
            now,
        )


async def plan(pool: Pool, channel: Channel, defaults: Collection[str]) -> int:
    """Turns the next events into deliveries to one target; how many events it has looked at.

    The rows and the reader's position are committed together, under its lock: of several processes one does it, and
    none does it twice.
    """
    async with store_connection(pool) as connection:
        position = await connection.fetchval(
            "SELECT seq FROM approvals.readers WHERE name = $1", reader_name(channel.target)
        )
    if position is None:
        await start_reader(pool, channel.target)
        return 0
    events = await events_after(pool, position, _PLAN_BATCH)
    if not events:
        return 0
    async with store_connection(pool) as connection, connection.transaction():
        locked = await connection.fetchval(
            "SELECT seq FROM approvals.readers WHERE name = $1 FOR UPDATE SKIP LOCKED", reader_name(channel.target)
        )
        if locked != position:
            return 0  # another process is at it, or has done it
        for event in events:
            await _plan_event(connection, channel, event, defaults)
        await connection.execute(
            "UPDATE approvals.readers SET seq = $2 WHERE name = $1", reader_name(channel.target), events[-1].seq
        )
    return len(events)


async def _plan_event(connection: Connection, channel: Channel, event: EventRow, defaults: Collection[str]) -> None:
    notify = await connection.fetchval("SELECT notify FROM approvals.requests WHERE id = $1", event.approval_id)
    first = await connection.fetchval(
        "SELECT NOT EXISTS (SELECT FROM approvals.events WHERE approval_id = $1 AND seq < $2)",
        event.approval_id,
        event.seq,
    )
    if channel.target not in (notify or defaults) and (
        first or not await _has_been_told(connection, channel.target, event.approval_id)
    ):
        return
    kind: MessageKind = "opened" if first else "changed"
    if not channel.every_event:
        if first and event.status != "pending":
            return  # settled by a grant: nobody has to do anything
        if not first and not await _has_been_told(connection, channel.target, event.approval_id):
            return
    await _insert(connection, channel, event.approval_id, kind, str(event.seq), event.seq)


async def _has_been_told(connection: Connection, target: str, approval_id: str) -> bool:
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM approvals.deliveries WHERE target = $1 AND approval_id = $2)", target, approval_id
    )
    return found


async def _insert(
    connection: Connection, channel: Channel, approval_id: str, kind: MessageKind, key: str, seq: int | None
) -> bool:
    done = await connection.execute(
        "INSERT INTO approvals.deliveries (message_id, target, channel_kind, approval_id, kind, key, event_seq) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (target, approval_id, key) DO NOTHING",
        f"msg_{approval_id}_{key}_{channel.target}",
        channel.target,
        channel.kind,
        approval_id,
        kind,
        key,
        seq,
    )
    return bool(done == "INSERT 0 1")


_ESCALATING = """
SELECT id, escalations, extract(epoch FROM clock_timestamp() - created_at)::float8 AS age_s
FROM approvals.requests WHERE status = 'pending' AND escalations::text <> '[]' AND expires_at > clock_timestamp()
ORDER BY created_at LIMIT 1000
"""


async def escalate(pool: Pool, channels: Sequence[Channel]) -> int:
    """Plans what is due of the escalations of requests that are still pending; how many were new."""
    by_target = {channel.target: channel for channel in channels}
    async with store_connection(pool) as connection:
        rows = await connection.fetch(_ESCALATING)
        due = [
            (row["id"], index, channel)
            for row in rows
            for index, step in enumerate(decode(row["escalations"]))
            if row["age_s"] >= step["after_s"]
            for target in step["notify"]
            if (channel := by_target.get(target)) is not None
        ]
        known = await connection.fetch(
            "SELECT target, approval_id, key FROM approvals.deliveries "
            "WHERE kind = 'escalated' AND approval_id = ANY ($1::text[])",
            list({approval_id for approval_id, _, _ in due}),
        )
    done = {(row["target"], row["approval_id"], row["key"]) for row in known}
    fresh = 0
    for approval_id, index, channel in due:
        if (channel.target, approval_id, f"escalation-{index}") in done:
            continue
        async with store_connection(pool) as connection, connection.transaction():
            # Locked, so that a decision comes before, and there is nothing to tell, or after: its event then finds
            # this row, and the message is changed.
            if await connection.fetchval(
                "SELECT status FROM approvals.requests WHERE id = $1 FOR SHARE", approval_id
            ) == "pending" and await _insert(
                connection, channel, approval_id, "escalated", f"escalation-{index}", None
            ):
                fresh += 1
    return fresh


# What is earlier about the same request goes first, so that nobody is told of an end before the beginning.
_TAKE = """
UPDATE approvals.deliveries AS taken
SET attempts = attempts + 1, next_at = clock_timestamp() + make_interval(secs => $3)
WHERE id IN (
    SELECT id FROM approvals.deliveries AS due
    WHERE target = $1 AND delivered_at IS NULL AND dead_at IS NULL AND next_at <= clock_timestamp()
      AND NOT EXISTS (
          SELECT FROM approvals.deliveries AS earlier
          WHERE earlier.target = due.target AND earlier.approval_id = due.approval_id AND earlier.id < due.id
            AND earlier.delivered_at IS NULL AND earlier.dead_at IS NULL)
    ORDER BY next_at, id LIMIT $2 FOR UPDATE SKIP LOCKED)
RETURNING id, message_id, target, approval_id, kind, event_seq, attempts, created_at,
    extract(epoch FROM clock_timestamp() - created_at)::float8 AS age_s,
    (SELECT json_agg(earlier.message_ref ORDER BY earlier.id) FROM approvals.deliveries AS earlier
     WHERE earlier.target = taken.target AND earlier.approval_id = taken.approval_id
       AND earlier.message_ref IS NOT NULL) AS refs
"""


async def take(pool: Pool, target: str, limit: int) -> list[Delivery]:
    """Up to `limit` deliveries that are due, for this process alone until the lease ends."""
    async with store_connection(pool) as connection:
        rows = await connection.fetch(_TAKE, target, limit, LEASE_S)
    return [
        Delivery(
            row["id"],
            row["message_id"],
            row["target"],
            row["approval_id"],
            row["kind"],
            row["event_seq"],
            row["attempts"],
            row["created_at"],
            row["age_s"],
            tuple(decode(row["refs"]) or ()),
        )
        for row in rows
    ]


async def event_at(pool: Pool, seq: int) -> EventRow | None:
    """One event of the outbox."""
    found = await events_after(pool, seq - 1, 1)
    return found[0] if found and found[0].seq == seq else None


async def delivered(pool: Pool, delivery: Delivery, ref: dict[str, Any] | None, note: str | None = None) -> None:
    """`attempts` tells whether the lease is still this process's own."""
    async with store_connection(pool) as connection:
        await connection.execute(
            "UPDATE approvals.deliveries SET delivered_at = clock_timestamp(), message_ref = $3, last_error = $4 "
            "WHERE id = $1 AND attempts = $2 AND delivered_at IS NULL AND dead_at IS NULL",
            delivery.id,
            delivery.attempts,
            None if ref is None else encode(ref),
            note,
        )


async def failed(pool: Pool, delivery: Delivery, reason: str, retry_in_s: float | None) -> None:
    """To be tried again after a while, or (None) never."""
    async with store_connection(pool) as connection:
        await connection.execute(
            "UPDATE approvals.deliveries SET last_error = $3, "
            "next_at = clock_timestamp() + make_interval(secs => coalesce($4, 0)), "
            "dead_at = CASE WHEN $4::float8 IS NULL THEN clock_timestamp() END "
            "WHERE id = $1 AND attempts = $2 AND delivered_at IS NULL AND dead_at IS NULL",
            delivery.id,
            delivery.attempts,
            storable(reason)[:500],
            retry_in_s,
        )


async def give_up_orphans(pool: Pool, targets: Collection[str], after_s: float) -> None:
    """What waits for targets that are no longer configured is dead after the usual time."""
    async with store_connection(pool) as connection:
        await connection.execute(
            "UPDATE approvals.deliveries SET dead_at = clock_timestamp(), last_error = 'the target is not configured' "
            "WHERE delivered_at IS NULL AND dead_at IS NULL AND target <> ALL ($1::text[]) "
            "AND created_at < clock_timestamp() - make_interval(secs => $2)",
            list(targets),
            after_s,
        )


async def backlog(pool: Pool) -> dict[Kind, int]:
    """What waits to be delivered, by kind of channel."""
    async with store_connection(pool) as connection:
        rows = await connection.fetch(
            "SELECT channel_kind, count(*) AS n FROM approvals.deliveries "
            "WHERE delivered_at IS NULL AND dead_at IS NULL GROUP BY channel_kind"
        )
    found = {row["channel_kind"]: row["n"] for row in rows}
    return {kind: found.get(kind, 0) for kind in KINDS}


_PAGE = """
SELECT id, message_id, target, channel_kind, approval_id, kind, created_at, attempts, next_at, delivered_at, dead_at,
    last_error,
    CASE WHEN delivered_at IS NOT NULL THEN 'delivered' WHEN dead_at IS NOT NULL THEN 'dead' ELSE 'waiting' END AS state
FROM approvals.deliveries
WHERE ($1::bigint IS NULL OR id < $1) AND ($2::text IS NULL OR target = $2) AND ($3::text IS NULL OR
    CASE $3::text WHEN 'delivered' THEN delivered_at IS NOT NULL WHEN 'dead' THEN dead_at IS NOT NULL
    ELSE delivered_at IS NULL AND dead_at IS NULL END)
ORDER BY id DESC LIMIT $4
"""


async def page(
    connection: Connection, *, before: int | None, target: str | None, state: str | None, limit: int
) -> list[dict[str, Any]]:
    """Newest first, as `GET /v1/notifications` shows them."""
    rows = await connection.fetch(_PAGE, before, target, state, limit)
    return [_shown(row) for row in rows]


def _shown(row: asyncpg.Record) -> dict[str, Any]:
    times = ("created_at", "next_at", "delivered_at", "dead_at")
    shown = {key: row[key] for key in row.keys() if key not in times}  # noqa: SIM118 (a Record)
    shown |= {key: None if row[key] is None else rfc3339(row[key]) for key in times}
    if row["state"] != "waiting":
        shown["next_at"] = None
    return shown


async def use_signature(pool: Pool, digest: bytes) -> bool:
    """Whether this is the first time that a signature comes; older ones are refused by their own time."""
    async with store_connection(pool) as connection:
        await connection.execute(
            "DELETE FROM approvals.used_signatures WHERE at < clock_timestamp() - interval '26 hours'"
        )
        done = await connection.execute(
            "INSERT INTO approvals.used_signatures (digest) VALUES ($1) ON CONFLICT DO NOTHING", digest
        )
    return bool(done == "INSERT 0 1")
