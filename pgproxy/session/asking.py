"""What a human is asked, what their answer is bound to, and what the client hears of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from classifier.model import ActionClass, Classification
from pgproxy.errors import Cancelled, Denied, ProxyError, StoreDown, TooManyParked
from pgproxy.policy import Decision, Deny, Park
from pgproxy.protocol import backend, frontend, tags
from pgproxy.session import evidence
from pgproxy.session.annotations import said_by_comment
from pgproxy.session.context import Context
from pgproxy.session.events import ApprovalOpened
from pgproxy.session.ports import ApprovalRequest, GrantKey, OpenedApproval, Requester, ResolvedApproval
from pgproxy.session.units import Unit, UnitKind

_PROTOCOL = {UnitKind.QUERY: "simple", UnitKind.START_UP: "start-up"}
# Of a statement whose actions are only these, every object stands in the grammar: none is named by a constant, as the
# file in `pg_read_file('…')` is.
_OBJECTS_STAND_IN_THE_TEXT = frozenset(
    {ActionClass.READ, ActionClass.WRITE, ActionClass.BULK_WRITE, ActionClass.IMPORT}
)


def requester_of(c: Context, unit: Unit) -> Requester:
    """Who asks, with what this statement's own comment says about why."""
    if unit.requester is None:
        said = said_by_comment(unit.text)
        unit.requester = replace(c.requester, **said) if said else c.requester
    return unit.requester


def request(
    c: Context, unit: Unit, park: Park, classification: Classification, budget: dict[str, Any] | None = None
) -> ApprovalRequest:
    """The request for one statement, or for the rest of its result."""
    unit.binding = binding(c, unit)
    requester = requester_of(c, unit)
    return ApprovalRequest(
        requester=requester,
        sql=unit.text,
        sha256=evidence.digest(unit.sql),
        params=tuple(unit.parameters),
        classification=classification.to_dict(),
        risk=str(classification.risk),
        rule=park.rule,
        requirements=park.requirements,
        timeout_s=park.timeout_s,
        binding=unit.binding,
        context=_circumstances(c, unit, requester),
        policy_version=c.policy.version,
        wait=unit.waits,
        retry_binding=retry_binding(c, unit, budget),
        grant_key=_grant_key(c, unit, classification),
        channels=park.channels,
        notify=park.notify,
        escalations=park.escalations,
        message=park.message,
        budget=budget,
    )


def _circumstances(c: Context, unit: Unit, requester: Requester) -> dict[str, Any]:
    environment = c.settings.environment
    path = environment.search_path
    context: dict[str, Any] = {
        "statement_id": unit.statement_id,
        "in_transaction": c.in_transaction,
        "protocol": _PROTOCOL.get(unit.kind, "extended"),
        "role": environment.role,
        "search_path": None if path is None else list(path),
        "client_encoding": c.settings.client_encoding,
        "server_pid": c.server_pid,
        "application_name": requester.application_name,
        "recent_statements": [{"time": evidence.timestamp(t), "sql": text} for t, text in c.recent],
    }
    if c.transaction_began is not None:
        context["transaction_seconds"] = round(c.now - c.transaction_began, 3)
    if unit.executes:
        context["executes"] = unit.executes
    return context


# what an approval is bound to


def binding(c: Context, unit: Unit) -> str:
    """Everything an approval is bound to, as one digest."""
    return _digest(
        [
            c.requester.session_id.encode(),
            c.identity.db_user.encode(),
            c.identity.database.encode(),
            _environment(c),
            repr(unit.parameter_types).encode(),
            unit.kind.value.encode(),
            *(unit.messages or [unit.sql, _shown_values(unit)]),
        ]
    )


def sha256(unit: Unit) -> str:
    """Of the text that was voted on, as the store knows it: the client's bytes, or a reviewer's text in UTF-8."""
    return evidence.digest(unit.sql if unit.modified is None else unit.modified.text.encode())


def retry_binding(c: Context, unit: Unit, budget: dict[str, Any] | None) -> str:
    """The same for a request that outlives its session: any session of the agent may come back with the same text and
    the same values. What a name stands for there is told by its text."""
    values: list[bytes] = [repr(sorted(unit.executes.items())).encode()]
    if unit.kind is UnitKind.BIND and unit.messages:
        bound = frontend.read_bind(unit.messages[-1])
        values += [repr(unit.parameter_types).encode(), repr(bound.parameter_formats).encode()]
        values += [b"-" if v is None else b"+" + v for v in bound.parameters]
    elif unit.kind is UnitKind.BIND:
        values += [repr(unit.parameter_types).encode(), _shown_values(unit)]
    elif unit.kind is UnitKind.FUNCTION_CALL:
        values += unit.messages
    return _digest(
        [
            c.identity.agent.encode(),
            c.identity.db_user.encode(),
            c.identity.database.encode(),
            _environment(c),
            (c.settings.codec or "").encode(),
            b"statement" if budget is None else b"rest of its result",
            unit.sql,
            *values,
        ]
    )


def _shown_values(unit: Unit) -> bytes:
    """Of a Bind that was not kept: its long values by their digests."""
    digest = unit.large.digest if unit.large is not None else None
    return repr(unit.parameters if digest is None else digest.described()).encode()


def _environment(c: Context) -> bytes:
    # Not the catalog's version: somebody else's CREATE TABLE must not void what a human approved.
    return repr(replace(c.settings.environment, catalog_version=0, catalog_changed=False)).encode()


def _digest(parts: Iterable[bytes]) -> str:
    h = hashlib.sha256()
    for part in parts:
        h.update(len(part).to_bytes(8, "big"))
        h.update(part)
    return h.hexdigest()


def _grant_key(c: Context, unit: Unit, classification: Classification) -> GrantKey | None:
    """None where the text does not stand for what runs: a fast-path call, the name of a prepared statement."""
    made_by_sql = unit.prepared is not None and unit.prepared.classification is not None
    if unit.kind not in (UnitKind.QUERY, UnitKind.BIND) or unit.executes or made_by_sql:
        return None
    block = c.replies.transaction_status != tags.IDLE
    return GrantKey(
        text_sha256=evidence.digest(unit.sql),
        shape=_shape(classification),
        environment=_digest([_environment(c), (c.settings.codec or "").encode()]),
        transaction=f"{c.requester.session_id}/{c.transactions}" if block else None,
    )


def _shape(classification: Classification) -> str | None:
    """The normalised text where neither class nor objects hang on its constants. Not the fingerprint alone, which also
    leaves out the order of columns, aliases and the names of temporary tables."""
    if not classification.constant_free or not classification.normalized or classification.normalized.endswith(" …"):
        return None
    if any(a.cls not in _OBJECTS_STAND_IN_THE_TEXT for s in classification.statements for a in s.actions):
        return None
    return f"{classification.fingerprint}-{_digest([classification.normalized.encode()])[:32]}"


# what the client hears


def notice(c: Context, opened: OpenedApproval, park: Park, classification: Classification, budget: str = "") -> bytes:
    """A statement waits, or (`budget` says why) the rest of its result."""
    return backend.notice_response(
        "01000",
        f"pgproxy: waiting for approval {opened.id}",
        _about(opened, park, classification, budget),
        f"a reviewer decides at {c.console}",
        c.settings.told_codec,
    )


def _about(opened: OpenedApproval, park: Park, classification: Classification, budget: str) -> str:
    expires = opened.expires_at.strftime("%Y-%m-%d %H:%M:%SZ")
    parts = [park.message] if park.message else []
    parts += [f"classes: {', '.join(classification.classes)}", f"rule: {park.rule}", f"expires: {expires}"]
    return "; ".join([*parts, budget] if budget else parts)


def modified_notice(c: Context, by: str, sha256: str) -> bytes:
    """What runs is another text."""
    return backend.notice_response(
        "01000", f"pgproxy: modified by {by}", f"sha256 of the new text: {sha256}", None, c.settings.told_codec
    )


def required(
    c: Context, opened: OpenedApproval, park: Park, classification: Classification, budget: str = ""
) -> ProxyError:
    """Nobody waits: the client comes back."""
    return Denied(
        f"pgproxy: approval {opened.id} required",
        detail=_about(opened, park, classification, budget),
        hint=f"a reviewer decides at {c.console}; run the same statement again after approval",
    )


def not_opened(event: ApprovalOpened, what: str) -> ProxyError:
    """The store took no request."""
    if event.limit is not None:
        return TooManyParked(
            "pgproxy: too many statements are waiting for approval",
            hint=f"try again once some are decided; the operator can raise {event.limit}",
        )
    return StoreDown(
        f"pgproxy: the approval store does not answer, so {what} cannot be decided",
        hint="try again later; ordinary statements go on",
    )


def not_approved(resolved: ResolvedApproval, what: str) -> tuple[str, ProxyError]:
    """The decision in the audit entry's words, and the error. `what` did not happen."""
    match resolved.status:
        case "denied":
            comment = f"{resolved.comment}; " if resolved.comment else ""
            return "denied", Denied(
                f"pgproxy: denied by {resolved.reviewer}", detail=f"{comment}approval {resolved.id}"
            )
        case "expired":
            return "expired", Cancelled(
                f"pgproxy: approval {resolved.id} expired", hint=f"nobody decided in time; {what}"
            )
        case _:
            return "withdrawn", Cancelled(f"pgproxy: approval {resolved.id} was withdrawn", hint=what)


def denied_by_policy(decision: Deny) -> ProxyError:
    """By a rule."""
    parts = [decision.message] if decision.message else []
    parts += [decision.reason] if decision.reason and decision.reason != decision.message else []
    return Denied("pgproxy: denied by policy", detail="; ".join([*parts, f"rule: {decision.rule}"]), hint=decision.hint)


def asks_for_more(now: Park, before: Decision) -> bool:
    """Whether a policy that has changed asks for consent that the approval, given under the earlier one, does not
    hold: the session knows what was required, not who is in which group."""
    if not isinstance(before, Park):
        return True
    met = all(any(n.groups == b.groups and n.count <= b.count for b in before.requirements) for n in now.requirements)
    return not met or bool(now.channels and not set(before.channels or ("",)) <= set(now.channels))


def policy_changed(now: Park) -> ProxyError:
    """See `asks_for_more`."""
    return Denied(
        "pgproxy: policy changed while the statement waited, and asks for more than was approved",
        detail=f"rule: {now.rule}",
        hint="run the statement again",
    )


def cancelled_by_client() -> ProxyError:
    """As the server says it."""
    return Cancelled("canceling statement due to user request")
