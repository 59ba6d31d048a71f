"""Small translations between packages that do not know each other."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import datetime
from typing import Any

import approvals.errors
from approvals.gateway import Gateway
from approvals.model import NewRequest
from classifier.model import Environment
from pgproxy.analysis.pool import AnalyserPool
from pgproxy.audit.reader import StoreReader
from pgproxy.channel import Channel, ChannelError
from pgproxy.metrics import ControlMetrics
from pgproxy.session.ports import ApprovalRequest, OpenedApproval, ResolvedApproval, StoreUnavailable

_RELOAD_S = 45.0


class Approvals:
    """`session.ports.ApprovalGateway` over `approvals.Gateway`."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def open(self, request: ApprovalRequest) -> OpenedApproval:
        new = NewRequest(
            requester=asdict(request.requester),
            sql=request.sql,
            sha256=request.sha256,
            params=request.params,
            classification=request.classification,
            risk=request.risk,
            rule=request.rule,
            required_approvals=max(r.count for r in request.requirements),
            approver_groups=sorted({group for r in request.requirements for group in r.groups}),
            timeout_s=request.timeout_s,
            binding=request.binding,
            context=request.context,
        )
        with _translated():
            opened = await self._gateway.open(new)
        return OpenedApproval(opened.id, opened.expires_at)

    async def wait(self, approval_id: str) -> ResolvedApproval:
        with _translated():
            resolved = await self._gateway.wait(approval_id)
        return ResolvedApproval(
            resolved.id, resolved.status, resolved.reviewer, resolved.comment, tuple(resolved.reviewers)
        )

    async def claim(self, approval_id: str, binding: str, sha256: str) -> bool:
        with _translated():
            return await self._gateway.claim(approval_id, binding)

    async def withdraw(self, approval_id: str, reason: str) -> bool:
        with _translated():
            return await self._gateway.withdraw(approval_id, reason)

    async def finish(self, approval_id: str, status: str, outcome: dict[str, Any]) -> None:
        with _translated():
            await self._gateway.finish(approval_id, status, outcome)


class _translated:
    """The store's absence in the data plane's own words."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, approvals.errors.StoreUnavailable):
            raise StoreUnavailable(str(error)) from error


class ApiClassifier:
    """`approvals.ports.Classifier` over an analyser pool."""

    def __init__(self, pool: AnalyserPool) -> None:
        self._pool = pool

    async def classify(self, sql: str) -> dict[str, Any]:
        environment = Environment()
        known = self._pool.lookup(sql, environment)
        return (known if known is not None else await self._pool.analyze(sql, environment)).to_dict()


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
        )


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
