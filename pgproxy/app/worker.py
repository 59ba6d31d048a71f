"""One data-plane process: everything a session needs, put together."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from pathlib import Path
from typing import Any

import classifier
from approvals.gateway import Gateway
from approvals.wakeups import Wakeups
from classifier.model import Classification, Environment
from pgproxy.analysis.pool import AnalyserPool
from pgproxy.app.adapters import Approvals
from pgproxy.app.address import bind
from pgproxy.audit.writer import StoreWriter
from pgproxy.catalog import Catalogs
from pgproxy.catalog.analyzer import CatalogAnalyzer
from pgproxy.certificates import CertificateError
from pgproxy.channel import Channel, ChannelError
from pgproxy.config import AuthMode, Settings
from pgproxy.metrics import WorkerMetrics
from pgproxy.net.admission import Places
from pgproxy.net.auth import AgentAuthenticator
from pgproxy.net.errands import Errands
from pgproxy.net.listener import Listener, ListenerOptions
from pgproxy.net.ports import NoCatalog, Parking, Services
from pgproxy.net.startup import Access, AgentAccount
from pgproxy.net.tls import ServerTls, UpstreamFiles, UpstreamTls
from pgproxy.net.upstream import Upstream
from pgproxy.policy import Mode, Policy, Replication
from pgproxy.session.context import Limits
from pgproxy.store import open_pool

_log = logging.getLogger("pgproxy.app")
_LAST_CALLS_S = 5.0
_CANCELS_UNDER_WAY = 16


async def run(settings: Settings, channel: Channel, *, node: str, instance: str, mock_key: bytes) -> None:
    """Serves sessions until the channel closes or the process is told to stop."""
    assert settings.store.dsn is not None, "the launcher names the store"
    store_dsn = settings.store.dsn.get_secret_value()
    sock = bind("listen", settings.listen, shared=True)
    metrics = WorkerMetrics()
    errands = Errands()
    audit = StoreWriter(store_dsn, node=node, on_backlog=metrics.audit_backlog)
    analysers = AnalyserPool(
        processes=settings.analysers,
        observe_miss=metrics.classify_miss,
        count_cache=metrics.classify_cache,
    )
    catalogs = catalogs_of(settings, analysers)
    pool = await open_pool(store_dsn)
    wakeups = Wakeups(store_dsn)
    gateway = Gateway(pool, wakeups, node, instance, max_open_per_agent=settings.limits.open_per_agent)
    access = access_of(settings, mock_key)
    services = Services(
        upstream=upstream_of(settings),
        approvals=Approvals(gateway),
        audit=audit,
        analyzer=analysers if catalogs is None else CatalogAnalyzer(analysers, catalogs),
        metrics=metrics,
        errands=errands,
        parking=Parking(settings.limits.parked, settings.limits.parked_per_agent),
        catalog=NoCatalog() if catalogs is None else SharedCatalog(catalogs, channel, errands),
    )

    listener = Listener(
        services,
        access,
        policy_of(settings),
        classify_setting,
        ListenerOptions(
            console=console_url(settings),
            notice=settings.notice,
            limits=Limits(
                statement_bytes=settings.limits.statement_bytes,
                message_bytes=settings.limits.message_bytes,
                parked_backlog_bytes=settings.limits.parked_backlog_bytes,
            ),
            places=Places(
                startups=settings.limits.startups,
                sessions=settings.limits.sessions,
                sessions_per_agent=settings.limits.sessions_per_agent,
            ),
            startup_timeout_s=settings.limits.startup_timeout_s,
            idle_timeout_s=settings.limits.idle_timeout_s,
            idle_in_transaction_timeout_s=settings.limits.idle_in_transaction_timeout_s,
        ),
        ForeignCancels(channel).send,
    )
    _answer_calls(channel, listener, audit, wakeups, catalogs)
    channel.handle("reload_certificates", CertificateReload(access, services.upstream).answer)
    try:
        await analysers.start()
        await audit.start()
        if catalogs is not None:
            await catalogs.start()
        if access.authenticator is not None:
            await access.authenticator.prepare()
        async with asyncio.TaskGroup() as background:
            running = [background.create_task(wakeups.run()), background.create_task(gateway.run())]
            async with asyncio.TaskGroup() as sessions:
                await listener.start(sessions, sock)
                # What start-up made stays: the collector need not walk it while sessions wait.
                gc.collect()
                gc.freeze()
                await channel.ready()
                await channel.stopping()
                _log.info("stopping: sessions=%d", len(listener.sessions()))
                await listener.stop()
            await errands.close(_LAST_CALLS_S)
            for task in running:
                task.cancel()
    finally:
        if catalogs is not None:
            await catalogs.close()
        await analysers.close()
        await audit.close(_LAST_CALLS_S)
        pool.terminate()


class ForeignCancels:
    """Cancel keys that this worker did not hand out go to the others, a few at a time: anybody can send such a
    request without a word about who they are, and the channel has other calls to carry."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._places = asyncio.Semaphore(_CANCELS_UNDER_WAY)

    async def send(self, pid: int, secret: bytes) -> None:
        async with self._places:
            try:
                await self._channel.call("workers", "cancel", {"pid": pid, "secret": secret.hex()})
            except ChannelError as error:
                _log.warning("a CancelRequest did not reach the other workers: %s", error)


class SharedCatalog:
    """`net.ports.Catalog`: what one worker's statements change, the others hear of at once."""

    def __init__(self, catalogs: Catalogs, channel: Channel, errands: Errands) -> None:
        self._catalogs = catalogs
        self._channel = channel
        self._errands = errands

    def state(self, database: str) -> tuple[int, bool]:
        return self._catalogs.state(database)

    def changed(self, database: str) -> None:
        self._catalogs.invalidate(database)
        self._errands.send("tell the other workers of a changed catalog", lambda: self._tell(database))

    async def _tell(self, database: str) -> None:
        with contextlib.suppress(ChannelError):  # a worker that did not hear polls it soon
            await self._channel.call("workers", "catalog_changed", {"database": database})


def catalogs_of(settings: Settings, analysers: AnalyserPool) -> Catalogs | None:
    """The catalogs as the observer reads them; None without one."""
    observer = settings.upstream.observer
    if observer is None:
        return None
    password = observer.password.get_secret_value() if observer.password is not None else None
    return Catalogs(settings.upstream.dsn, observer.user, password, analysers.set_catalog)


def _answer_calls(
    channel: Channel, listener: Listener, audit: StoreWriter, wakeups: Wakeups, catalogs: Catalogs | None
) -> None:
    """What the control process and other workers may ask of this one."""

    async def sessions(_: Any) -> Any:
        return listener.sessions()

    async def end_session(params: Any) -> Any:
        return listener.end(str(params["id"]))

    async def cancel(params: Any) -> Any:
        return listener.cancel(int(params["pid"]), bytes.fromhex(params["secret"]))

    async def ready(_: Any) -> Any:
        problems = []
        if audit.is_failing:
            problems.append("the audit store does not take entries: statements are refused")
        if not wakeups.is_connected:
            problems.append("the approval store is not connected: privileged statements are refused")
        if catalogs is not None:
            problems += catalogs.problems()
        return problems

    async def catalog_changed(params: Any) -> None:
        if catalogs is not None:
            catalogs.invalidate(str(params["database"]))

    channel.handle("catalog_changed", catalog_changed)
    channel.handle("sessions", sessions)
    channel.handle("end_session", end_session)
    channel.handle("cancel", cancel)
    channel.handle("ready", ready)


class CertificateReload:
    """Takes certificates and keys from their files anew, for the connections to come. What cannot be used is told,
    and what was in force stays."""

    def __init__(self, access: Access, upstream: Upstream) -> None:
        self._reloadable = [tls for tls in (access.tls, upstream.tls) if tls is not None]

    def problems(self) -> list[str]:
        problems = []
        for tls in self._reloadable:
            try:
                tls.reload()
            except CertificateError as error:
                problems.append(f"certificates not reloaded, the old ones stay in force: {error}")
                _log.error("%s", problems[-1])
        return problems

    async def answer(self, _: Any) -> Any:
        return self.problems()


def upstream_of(settings: Settings) -> Upstream:
    """Where the server is, and how it is asked for TLS."""
    dsn = settings.upstream.dsn
    if not dsn.may_use_tls:
        return Upstream(dsn.host, dsn.port)
    root, cert, key = (Path(name) if name else None for name in (dsn.sslrootcert, dsn.sslcert, dsn.sslkey))
    direct = dsn.sslnegotiation == "direct"
    return Upstream(dsn.host, dsn.port, UpstreamTls(dsn.sslmode, UpstreamFiles(root, cert, key), direct=direct))


def tls_of(settings: Settings) -> ServerTls | None:
    """What clients are offered; None with `tls.mode: disable`."""
    tls = settings.tls
    if tls.mode == "disable":
        return None
    assert tls.cert is not None and tls.key is not None, "checked with the configuration"
    return ServerTls(tls.mode, tls.cert, tls.key, tls.client_ca, demand_client_cert=tls.client_cert == "required")


def access_of(settings: Settings, mock_key: bytes) -> Access:
    """How clients get in, from the configuration. The salts of all workers come from one `mock_key`."""
    mode, tls = Mode(settings.mode.value), tls_of(settings)
    certificates = {agent.name: agent.certificate.name for agent in settings.agents if agent.certificate is not None}
    if settings.auth.mode is AuthMode.PASSTHROUGH:
        owners = {agent.name: agent.owner for agent in settings.agents if agent.owner is not None}
        return Access(
            mode,
            None,
            owners=owners,
            default_owner=settings.auth.default_owner,
            tls=tls,
            certificates=certificates,
        )
    accounts: dict[str, AgentAccount] = {}
    secrets: dict[str, str] = {}
    for agent in settings.agents:
        assert agent.owner is not None, "checked with the configuration"
        login = agent.upstream
        user = login.user if login else settings.upstream.dsn.user or agent.name
        password = login.password if login else settings.upstream.dsn.password
        accounts[agent.name] = AgentAccount(
            agent.name,
            agent.owner,
            user,
            password.get_secret_value() if password else None,
            agent.databases or (),
            by_password=agent.password is not None,
        )
        if agent.password is not None:
            secrets[agent.name] = agent.password.get_secret_value()
    authenticator = AgentAuthenticator(secrets, mock_key)
    return Access(mode, authenticator, accounts, tls=tls, certificates=certificates)


def policy_of(settings: Settings) -> Policy:
    """The policy in force."""
    return Policy(
        Mode(settings.mode.value),
        settings.limits.approval_timeout_s,
        replication=Replication(settings.replication.value),
    )


def console_url(settings: Settings) -> str:
    """Where a reviewer is sent."""
    scheme = "https" if settings.api.tls else "http"
    return f"{scheme}://{settings.api.listen}"


def classify_setting(text: str) -> Classification:
    """Start-up settings are short: judged in this process, once a session."""
    return classifier.classify(text, Environment())
