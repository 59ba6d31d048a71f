"""The control process: HTTP API, expiry of requests, and the trail of what happened to approvals."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

from approvals.api.application import Services, create_app
from approvals.api.certificates import Certificate
from approvals.api.server import serve
from approvals.api.stream import EventStream
from approvals.errors import StoreUnavailable
from approvals.gathering import Gatherer
from approvals.lifecycle import run_expiry
from approvals.outbox import EventRow, events_after, load_position, pending_count, save_position
from approvals.wakeups import Wakeups
from pgproxy import __version__, log
from pgproxy.analysis.pool import AnalyserPool
from pgproxy.app.adapters import ApiAudit, ApiMetrics, ApiReadiness, ApiReloader, ApiSessions
from pgproxy.app.address import bind
from pgproxy.app.explaining import ApiExplainer
from pgproxy.app.identity import oidc_of, web_options
from pgproxy.app.judging import ApiClassifier, ApiJudge
from pgproxy.app.looking import probe_of
from pgproxy.app.notifying import notifying_of
from pgproxy.app.terms import policy_of
from pgproxy.app.worker import catalogs_of
from pgproxy.audit.reader import StoreReader
from pgproxy.audit.writer import StoreWriter
from pgproxy.channel import Channel
from pgproxy.config import Settings
from pgproxy.metrics import ControlMetrics
from pgproxy.policy import PolicyInForce
from pgproxy.records import Decision, Entry, approval_entry, config_entry
from pgproxy.session.ports import AuditUnavailable, Requester
from pgproxy.store import open_pool

if TYPE_CHECKING:
    from pgproxy.store import Pool

_log = logging.getLogger("pgproxy.app")
_TRAIL = "audit"  # this reader's name in the outbox
_DECISIONS = frozenset(each.value for each in Decision)
_LOOK_S = 2.0
_LAST_CALLS_S = 5.0


async def run(settings: Settings, channel: Channel, *, node: str) -> None:
    """Serves until the channel closes or the process is told to stop."""
    assert settings.store.dsn is not None, "the launcher names the store"
    store_dsn = settings.store.dsn.get_secret_value()
    sock = bind("api.listen", settings.api.listen)
    metrics = ControlMetrics()
    pool = await open_pool(store_dsn)
    wakeups = Wakeups(store_dsn)
    audit = StoreWriter(store_dsn, node=node)
    analysers = AnalyserPool(processes=1)
    catalogs = catalogs_of(settings, analysers)
    classifier = ApiClassifier(analysers, catalogs)
    policy = PolicyInForce(policy_of(settings))
    notifying = notifying_of(settings, pool)
    trail = ApiAudit(StoreReader(pool))
    probe = probe_of(settings)
    gatherer = Gatherer(pool, trail, probe, node=node)
    services = Services(
        pool=pool,
        wakeups=wakeups,
        classifier=classifier,
        audit=trail,
        sessions=ApiSessions(channel),
        metrics=ApiMetrics(metrics),
        readiness=ApiReadiness(
            channel, [] if settings.upstream.observer else ["no catalog: upstream.observer is not set"]
        ),
        reloader=ApiReloader(channel),
        version=__version__,
        judge=ApiJudge(classifier, lambda: policy.current),
        explainer=ApiExplainer(classifier, lambda: policy.current),
        web=web_options(settings),
        oidc=oidc_of(settings),
        slack=notifying.slack,
        teams=notifying.teams,
        gatherer=gatherer,
    )
    app = create_app(services)
    _answer_calls(channel, app.state.stream, audit, policy)
    address, tls = settings.api.listen, settings.api.tls
    certificate = Certificate(tls.cert, tls.key) if tls is not None else None
    try:
        await analysers.start()
        if catalogs is not None:
            await catalogs.start()
        await audit.start()
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(wakeups.run()),
                tasks.create_task(run_expiry(pool)),
                tasks.create_task(follow_approvals(pool, wakeups, audit, metrics)),
                tasks.create_task(gatherer.run(wakeups)),
            ]
            running += [tasks.create_task(task) for task in notifying.tasks(settings, pool, wakeups, metrics)]
            if certificate is not None:
                running.append(tasks.create_task(certificate.follow()))
            async with serve(
                app,
                address.host,
                address.port,
                sock,
                tls=certificate.context if certificate is not None else None,
                proxies=settings.api.proxies,
            ):
                await channel.ready()
                await channel.stopping()
            for task in running:
                task.cancel()
    finally:
        if probe is not None:
            await probe.close()
        if catalogs is not None:
            await catalogs.close()
        await notifying.close()
        await analysers.close()
        await audit.close(_LAST_CALLS_S)
        pool.terminate()


def _answer_calls(channel: Channel, stream: EventStream, audit: StoreWriter, policy: PolicyInForce) -> None:
    """What the supervisor may ask of this process."""

    async def reload(params: Any) -> None:
        settings = Settings.from_wire(params["settings"])
        log.set_level(settings.log_level)
        policy.replace(policy_of(settings))
        await stream.recheck()

    async def note_config(params: Any) -> None:
        audit.append_soon(
            config_entry(
                time=datetime.fromisoformat(params["time"]),
                event=params["event"],
                policy_version=policy.current.version,
                detail=params["detail"],
            )
        )

    channel.handle("reload", reload)
    channel.handle("note_config", note_config)


async def follow_approvals(pool: Pool, wakeups: Wakeups, audit: StoreWriter, metrics: ControlMetrics) -> None:
    """Every event of the outbox becomes an audit entry and is counted, in order.

    The position is kept after the entry is safe: a crash in between writes an entry a second time rather than not
    at all. Runs until cancelled.
    """
    position: int | None = None
    with wakeups.subscribe() as changed:
        while True:
            try:
                if position is None:
                    position = await load_position(pool, _TRAIL)
                events = await events_after(pool, position)
                for event in events:
                    if event.kind != "context":  # found out by pgproxy itself; nobody did anything
                        await audit.append(entry_of(event))
                    position = event.seq
                    await save_position(pool, _TRAIL, position)
                    if event.kind == "status":
                        metrics.approval(event.status)
                    if event.wait_s is not None:
                        metrics.approval_wait(event.wait_s)
                metrics.approvals_pending(await pending_count(pool))
            except (StoreUnavailable, AuditUnavailable):
                position = None
                await asyncio.sleep(1.0)
                continue
            if not events:
                await changed.wait(_LOOK_S)


def entry_of(event: EventRow) -> Entry:
    """The audit entry of one event of an approval: what happened, to whose request, and who had voted by then. A
    modified statement is evidence of its own."""
    known = {field.name for field in fields(Requester)}
    statements = event.classification.get("statements", [])
    classes = dict.fromkeys(action["class"] for statement in statements for action in statement["actions"])
    decided = event.status if event.kind == "status" and event.status in _DECISIONS else None
    names = {"status": event.status, "modify": "modified", "grant": f"grant_{event.detail.get('event')}"}
    return approval_entry(
        time=event.at,
        approval_id=event.approval_id,
        event=names.get(event.kind, event.kind),
        requester=Requester(**{key: value for key, value in event.requester.items() if key in known}),
        sha256=event.sha256,
        fingerprint=event.classification.get("fingerprint"),
        classes=classes,
        risk=event.risk,
        decision=Decision(decided) if decided else None,
        reviewers=event.reviewers,
        rule=event.rule,
        comment=event.detail.get("comment") or event.detail.get("text"),
        via=event.detail.get("via"),
        policy_version=event.policy_version or None,
        sql=event.sql if event.kind == "modify" else None,
        detail=_detail(event),
    )


def _detail(event: EventRow) -> dict[str, Any] | None:
    """What the contract has no field for."""
    match event.kind:
        case "grant":
            return event.detail
        case "modify":
            return {"reviewer": event.detail["reviewer"], "revision": event.revision}
        case "vote" if event.detail.get("grant"):
            return {"grant": event.detail["grant"]}
    return None
