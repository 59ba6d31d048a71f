"""Small translations between packages that do not know each other."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import datetime
from typing import Any

import approvals.errors
from approvals.gateway import Gateway
from approvals.model import GrantKey, NewRequest, Requirement
from pgproxy.audit.reader import StoreReader
from pgproxy.channel import Channel, ChannelError
from pgproxy.metrics import ControlMetrics
from pgproxy.session.ports import ApprovalRequest, OpenedApproval, ResolvedApproval, StoreUnavailable, TooManyOpen

_RELOAD_S = 45.0


class Approvals:
    """`session.ports.ApprovalGateway` over `approvals.Gateway`."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def open(self, request: ApprovalRequest) -> OpenedApproval:
        key = request.grant_key
        new = NewRequest(
            requester=asdict(request.requester),
            sql=request.sql,
            sha256=request.sha256,
            params=request.params,
            classification=request.classification,
            risk=request.risk,
            rule=request.rule,
            requirements=[Requirement(r.rule, tuple(r.groups), r.count) for r in request.requirements],
            timeout_s=request.timeout_s,
            binding=request.binding,
            context=request.context,
            policy_version=request.policy_version,
            wait=request.wait,
            retry_binding=request.retry_binding,
            grant_key=None if key is None else GrantKey(key.text_sha256, key.environment, key.shape, key.transaction),
            channels=request.channels,
            notify=request.notify,
            escalations=[asdict(each) for each in request.escalations],
            message=request.message,
            budget=request.budget,
        )
        with _translated():
            opened = await self._gateway.open(new)
        return OpenedApproval(opened.id, opened.expires_at, opened.status)

    async def wait(self, approval_id: str) -> ResolvedApproval:
        with _translated():
            resolved = await self._gateway.wait(approval_id)
        return ResolvedApproval(
            resolved.id,
            resolved.status,
            resolved.reviewer,
            resolved.comment,
            resolved.reviewers,
            resolved.sql,
            resolved.modified_by,
            resolved.row_cap,
        )

    async def claim(self, approval_id: str, binding: str, sha256: str) -> bool:
        with _translated():
            return await self._gateway.claim(approval_id, binding, sha256)

    async def withdraw(self, approval_id: str, reason: str) -> bool:
        with _translated():
            return await self._gateway.withdraw(approval_id, reason)

    async def finish(self, approval_id: str, status: str, outcome: dict[str, Any]) -> None:
        with _translated():
            await self._gateway.finish(approval_id, status, outcome)


class _translated:
    """The store's absence, and the agent's limit, in the data plane's own words."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, approvals.errors.StoreUnavailable):
            raise StoreUnavailable(str(error)) from error
        if isinstance(error, approvals.errors.LimitReached):
            raise TooManyOpen(error.limit) from error


class ApiAudit:
    """`approvals.ports.AuditReader` over the audit trail's own reader."""

    def __init__(self, reader: StoreReader) -> None:
        self._reader = reader

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
        session_id: str | None = None,
    ) -> dict[str, Any]:
        return await self._reader.search(
            since=since,
            until=until,
            agent=agent,
            class_=class_,
            decision=decision,
            q=q,
            limit=limit,
            cursor=cursor,
            session_id=session_id,
        )

    async def count_by_class(self, since: datetime, step_s: float) -> list[tuple[datetime, str, int]]:
        return await self._reader.count_by_class(since, step_s)


class ApiSessions:
    """`approvals.ports.SessionDirectory`: asks every worker over the supervisor's channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def list(self) -> list[dict[str, Any]]:
        answers = await self._channel.call("workers", "sessions")
        return [session for answer in answers for session in answer.get("result") or []]

    async def end(self, session_id: str) -> bool:
        answers = await self._channel.call("workers", "end_session", {"id": session_id})
        return any(answer.get("result") for answer in answers)


class ApiReadiness:
    """`approvals.ports.Readiness`: every worker must answer that it takes sessions."""

    def __init__(self, channel: Channel, remarks: list[str]) -> None:
        self._channel = channel
        self._remarks = remarks

    async def remarks(self) -> list[str]:
        return self._remarks

    async def check(self) -> list[str]:
        try:
            async with asyncio.timeout(3):
                answers = await self._channel.call("workers", "ready")
        except (ChannelError, TimeoutError):
            return ["the supervisor does not answer"]
        problems = [] if answers else ["no worker is running"]
        for answer in answers:
            if "error" in answer:
                problems.append(f"worker {answer['worker']} does not answer")
            problems += answer.get("result") or []
        return problems


class ApiReloader:
    """`approvals.ports.Reloader`: the supervisor's process reads the file, and tells everybody."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def reload(self, by: str) -> dict[str, Any]:
        try:
            result: dict[str, Any] = await self._channel.call("supervisor", "reload", {"by": by}, _RELOAD_S)
        except ChannelError as error:
            raise approvals.errors.NotReloaded(
                "the supervisor does not answer; its log says what became of it"
            ) from error
        return result


class ApiMetrics:
    """`approvals.ports.MetricsText`, with a last look at what is only counted when asked."""

    def __init__(self, metrics: ControlMetrics) -> None:
        self._metrics = metrics

    def render(self) -> tuple[bytes, str]:
        return self._metrics.render()
