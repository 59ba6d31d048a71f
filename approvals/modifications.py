"""A reviewer's own statement in the place of the agent's: judged as if the agent had sent it, then voted on anew.

Nobody is to approve alone what they wrote themselves: the author's vote counts only where the new text does no more
than the agent's own did. Policy decides anew whose consent it needs. Both texts are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from approvals import requests
from approvals.documents import encode, storable
from approvals.errors import Forbidden, Unsupported
from approvals.model import RISKS, Requirement, Status, least_people, sources

if TYPE_CHECKING:
    from approvals.ports import PolicyJudge, Verdict
    from approvals.store import Connection

_SUBTLE = frozenset({"grant", "role", "file", "code", "session", "maintenance", "replication", "unknown"})
"""Classes of which two statements can act on the same objects and differ in all that matters: to whom, by what."""

ALLOWED_RULE = "modified"
"""Of the one approval that a modification needs in any case."""


@dataclass(frozen=True, slots=True)
class Modification:
    """A judged text, for the revision that was there when it was judged."""

    revision: int
    statement: dict[str, Any]
    verdict: Verdict
    requirements: Sequence[Requirement]
    asks_for_more: bool
    original: dict[str, Any]


async def judged(
    sql: str, approval: dict[str, Any], original: dict[str, Any] | None, via: str, judge: PolicyJudge
) -> Modification:
    """Asks policy about a reviewer's text. `original`: what the store keeps of the first revision, once there is
    another; it is always that one, the agent's own, that a text must not go beyond, or two steps would.

    Raises:
        Unsupported: it cannot be understood, is not one statement, is denied, or is what is there already.
        Forbidden: the new text may not be decided from this channel.
    """
    try:
        raw = sql.encode("utf-8")
    except UnicodeEncodeError:
        raise Unsupported("a statement is text that UTF-8 can hold") from None
    if b"\0" in raw or not raw.strip():
        raise Unsupported("a statement holds some text, and no NUL")
    if sql == approval["statement"]["sql"]:
        raise Unsupported("this is the statement as it is: approve it")
    try:
        verdict = await judge.judge(sql, approval)
    except ValueError as error:
        raise Unsupported(str(error)) from error
    if verdict.decision == "deny":
        raise Unsupported(f"policy denies the modified statement: {verdict.message or verdict.rule}")
    if verdict.channels and via not in verdict.channels:
        raise Forbidden(f"the modified statement is decided by {' or '.join(verdict.channels)} only, not by {via}")
    # What needs nobody's consent from the agent needs one here: it stands where a privileged statement stood.
    requirements = list(verdict.requirements) if verdict.decision == "approve" else []
    before = original or original_of(approval)
    return Modification(
        approval["revision"],
        {
            "sql": sql,
            "sha256": hashlib.sha256(raw).hexdigest(),
            "params": approval["statement"]["params"],
        },
        verdict,
        requirements or [Requirement(verdict.rule or ALLOWED_RULE)],
        does_more(verdict, before),
        before,
    )


def original_of(approval: dict[str, Any]) -> dict[str, Any]:
    """What is kept of the first revision."""
    return {
        key: approval[key] for key in ("statement", "classification", "risk", "rule", "requirements", "policy_version")
    }


def does_more(verdict: Verdict, before: dict[str, Any]) -> bool:
    """Whether a text may do something that the agent's own did not: an action or its object, a relation, a function, a
    higher risk; or anything of a class whose meaning lies in its constants."""
    new, old = _effects(verdict.classification), _effects(before["classification"])
    subtle = _SUBTLE.intersection(requests.classes_of(verdict.classification))
    return bool(new - old or subtle) or _rank(verdict.risk) > _rank(before["risk"])


def _effects(classification: dict[str, Any]) -> set[tuple[str, ...]]:
    effects: set[tuple[str, ...]] = set()
    for statement in classification.get("statements", []):
        effects.update(
            ("action", str(each.get("class")), str(each.get("verb")), str(each.get("object")))
            for each in statement["actions"]
        )
        effects.update(("relation", str(each)) for each in statement.get("relations", []))
        effects.update(("function", str(each)) for each in statement.get("functions", []))
    return effects


def _rank(risk: str) -> int:
    return RISKS.index(risk) if risk in RISKS else len(RISKS)


_APPLY = """
UPDATE approvals.requests SET
    revision = revision + 1, original = coalesce(original, $3::json), modified_by = $4, statement = $5, sha256 = $6,
    classification = $7, risk = $8, rule = $9, requirements = $10, required_approvals = $11, channels = $12,
    message = $13, policy_version = $14, fingerprint = $15, classes = $16
WHERE id = $1 AND revision = $2 AND status = ANY ($17::text[]) AND expires_at > clock_timestamp()
"""


async def apply(connection: Connection, approval_id: str, modification: Modification, author: str) -> bool:
    """Puts the new text in place; false when the request has expired. The caller holds the row."""
    verdict = modification.verdict
    fingerprint = verdict.classification.get("fingerprint")
    command = await connection.execute(
        _APPLY,
        approval_id,
        modification.revision,
        encode(modification.original),
        author,
        encode(modification.statement),
        modification.statement["sha256"],
        encode(verdict.classification),
        verdict.risk,
        storable(verdict.rule),
        requests.requirements_to_json(modification.requirements),
        least_people(modification.requirements),
        [storable(channel) for channel in verdict.channels],
        None if verdict.message is None else storable(verdict.message),
        storable(verdict.policy_version),
        storable(fingerprint) if fingerprint else None,
        requests.classes_of(verdict.classification),
        sources(Status.DENIED),
    )
    return command == "UPDATE 1"
