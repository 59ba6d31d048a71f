"""What the planner expects of a statement: EXPLAIN, never ANALYZE, and only where it runs nothing of a user's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from classifier import grammar
from pgproxy.impact.aims import QUERIES, Aim
from pgproxy.impact.connection import FAILURES, explain_failure
from pgproxy.impact.hazards import reason_not_to_plan

if TYPE_CHECKING:
    from pgproxy.impact.connection import Connection

MAX_PLANS: Final = 3
MAX_PARAMETERS: Final = 1000
_EXPLAIN: Final = "EXPLAIN (FORMAT JSON)"
_NAME: Final = "pgproxy_impact"
_PLANNED: Final = QUERIES | {"CreateTableAsStmt", "DeclareCursorStmt"}


async def estimate(
    connection: Connection,
    aim: Aim,
    classified: dict[str, Any] | None,
    oids: Sequence[int],
    path: Sequence[str] | None,
) -> dict[str, Any]:
    """One entry of the section `plan`: rows and cost, or why there are none."""
    entry: dict[str, Any] = {"statement": aim.number}
    if aim.plannable is None:
        return entry | {"skipped": "the query in it cannot be told apart from the rest"}
    if path is None and any(name.schema is None for name in (*aim.relations, *aim.functions)):
        return entry | {"skipped": "the session's search_path is not known"}
    if aim.parameters > MAX_PARAMETERS:
        return entry | {"skipped": f"it has more than {MAX_PARAMETERS} parameters"}
    if not _is_one(f"{_EXPLAIN} {aim.plannable}", "ExplainStmt"):
        return entry | {"skipped": "it is nothing that EXPLAIN takes"}
    if aim.parameters and not _is_one(f"PREPARE {_NAME} AS {aim.plannable}", "PrepareStmt"):
        return entry | {"skipped": "it has parameters, and is nothing that PREPARE takes"}
    savepoint = connection.transaction()
    await savepoint.start()
    try:
        reason = await reason_not_to_plan(connection, aim, classified, oids)
        if reason is not None:
            entry["skipped"] = reason
        else:
            entry |= await _ask(connection, aim.plannable, path or (), aim.parameters)
            entry["generic"] = bool(aim.parameters)
    except FAILURES as error:
        entry["error"] = explain_failure(error)
    await savepoint.rollback()
    return entry


async def _ask(connection: Connection, text: str, path: Sequence[str], parameters: int) -> dict[str, Any]:
    await connection.fetchval("SELECT set_config('search_path', $1, true)", ", ".join(f'"{_doubled(s)}"' for s in path))
    # In the extended protocol: a second statement would be an error.
    if not parameters:
        answer = await connection.fetchval(f"{_EXPLAIN} {text}")
    else:
        # Not GENERIC_PLAN, which takes the values of an extended-protocol EXPLAIN into account all the same.
        await connection.fetchval("SELECT set_config('plan_cache_mode', 'force_generic_plan', true)")
        if await connection.fetchval("SELECT true FROM pg_prepared_statements WHERE name = $1", _NAME):
            await connection.execute(f"DEALLOCATE {_NAME}")  # of the look before: it outlives a rollback
        await connection.fetchval(f"PREPARE {_NAME} AS {text}")
        answer = await connection.fetchval(f"{_EXPLAIN} EXECUTE {_NAME} ({', '.join(['NULL'] * parameters)})")
    plan = json.loads(answer)[0]["Plan"]
    return {
        "rows": rows_of(plan),
        "cost": plan.get("Total Cost"),
        "node": plan.get("Node Type"),
        "operation": plan.get("Operation"),
    }


def _doubled(schema: str) -> str:
    return schema.replace('"', '""')


def rows_of(plan: dict[str, Any]) -> int:
    """Of a change, the rows it reaches: a plan that returns none says 0 of itself."""
    if plan.get("Node Type") == "ModifyTable":
        parts = [part for part in plan.get("Plans", ()) if part.get("Parent Relationship") in ("Outer", "Member")]
        return sum(int(part["Plan Rows"]) for part in parts)
    return int(plan["Plan Rows"])


def _is_one(text: str, kind: str) -> bool:
    """Whether what is about to be sent is one statement of that kind around a query, and no option but ours."""
    try:
        parsed = grammar.parse(text.encode())
    except (grammar.Rejected, grammar.Unparsable):
        return False
    if len(parsed) != 1 or parsed[0].kind != kind:
        return False
    tree = parsed[0].tree
    options = {item.get("DefElem", {}).get("defname") for item in tree.get("options", [])}
    return options <= {"format"} and tree.get("query", {}).keys() <= _PLANNED
