"""What a condition may ask about: the facts below `request.`, each with its type and what it says.

A fact that nobody can tell (the planner was not asked, the agent gave no reason, the statement hides its relations) is
absent, so that reading it is an error and counts against the statement; `has(request.reason)` asks whether it is
there. Lists longer than `MAX_ITEMS` are absent too: a condition's work stays bounded.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple

from classifier.model import Classification
from pgproxy.policy.decisions import Facts, Identity
from pgproxy.policy.hours import DAYS, zone_of

MAX_ITEMS: Final = 1_000
MAX_CONTEXT_DEPTH: Final = 20  # the library converts by recursion, and an agent writes the context
_LIST: Final = "list(string)"


class Fact(NamedTuple):
    """`type` is CEL's; `is_certain`: there for every statement."""

    type: str
    says: str
    is_certain: bool = True


FACTS: Final[dict[str, Fact]] = {
    "agent": Fact("string", "the agent's name"),
    "owner": Fact("string", "the agent's owner", False),
    "db_user": Fact("string", "the database user"),
    "database": Fact("string", "the database"),
    "client_addr": Fact("string", "the client's address, or `local`"),
    "application_name": Fact("string", "as the client says it"),
    "reason": Fact("string", "as the agent says it", False),
    "ticket": Fact("string", "as the agent says it", False),
    "context": Fact("dyn", "the JSON of `pgproxy.context`", False),
    "classes": Fact(_LIST, "of every action, each once"),
    "verbs": Fact(_LIST, "of every action, each once"),
    "kinds": Fact(_LIST, "the grammar's name of each statement: `SelectStmt`"),
    "relations": Fact(_LIST, "as the text names them, with the schema if it says one", False),
    "reaches": Fact(_LIST, "with schema, through views and functions too; needs the observer", False),
    "columns": Fact(_LIST, "every name in the text that may be a column's", False),
    "functions": Fact(_LIST, "as the text names them", False),
    "tags": Fact(_LIST, "that the text may touch", False),
    "risk": Fact("string", "`low`, `medium`, `high` or `critical`"),
    "privileged": Fact("bool", "whether it parks by default"),
    "statement_count": Fact("int", "statements in the text"),
    "rows_estimate": Fact("double", "the planner's; asked only where a rule needs it", False),
    "in_transaction": Fact("bool", "inside a transaction block"),
    "hour": Fact("int", "0 to 23, in the zone of the rule's `hours`, else UTC"),
    "weekday": Fact("string", "`Mon` to `Sun`, in the same zone"),
}
# Those that may differ between two runs of one text by one agent.
OF_FACTS: Final = frozenset(
    {
        *("application_name", "reason", "ticket", "context", "rows_estimate", "in_transaction", "hour", "weekday"),
    }
)


class Touches(NamedTuple):
    """What a whole text touches, as `matching` found it; None where it is not known for certain."""

    relations: list[str] | None
    reaches: list[str] | None
    columns: list[str] | None
    functions: list[str] | None
    tags: list[str] | None


def value_of(
    name: str, classification: Classification, identity: Identity, facts: Facts, touches: Touches, zone: str
) -> Any:
    """One fact; None: it is absent."""
    match name:
        case "agent" | "owner" | "db_user" | "database" | "client_addr":
            return getattr(identity, name)
        case "application_name" | "in_transaction" | "rows_estimate":
            return getattr(facts, name)
        case "reason" | "ticket":
            return getattr(facts, name) or None
        case "context":
            return facts.context if _is_shallow(facts.context) else None
        case "relations" | "reaches" | "columns" | "functions" | "tags":
            found: list[str] | None = getattr(touches, name)
            return None if found is None else _bounded(found)
        case "classes":
            return list(classification.classes)
        case "verbs":
            return _bounded(a.verb for s in classification.statements for a in s.actions)
        case "kinds":
            return _bounded(s.kind for s in classification.statements)
        case "risk":
            return str(classification.risk)
        case "privileged":
            return classification.privileged
        case "statement_count":
            return len(classification.statements)
        case "hour":
            return datetime.fromtimestamp(facts.now, zone_of(zone)).hour
        case "weekday":
            return DAYS[datetime.fromtimestamp(facts.now, zone_of(zone)).weekday()]
    raise KeyError(name)


def _bounded(items: Iterable[str]) -> list[str] | None:
    once = list(dict.fromkeys(items))
    return once if len(once) <= MAX_ITEMS else None


def _is_shallow(context: Any) -> bool:
    level = [context]
    for _ in range(MAX_CONTEXT_DEPTH):
        level = [
            item
            for value in level
            for item in (value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
        ]
        if not level:
            return True
    return False
