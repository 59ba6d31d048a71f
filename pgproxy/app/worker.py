"""One data-plane process: everything a session needs, put together."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging

from approvals.gateway import Gateway
from approvals.wakeups import Wakeups
from pgproxy.analysis.pool import AnalyserPool
from pgproxy.app.adapters import Approvals
from pgproxy.app.address import bind
from pgproxy.app.calls import InForce, answer_calls
from pgproxy.app.estimator import Planner
from pgproxy.app.hours import SharedHours
from pgproxy.app.terms import classify_setting, terms_of, upstream_of
from pgproxy.audit.writer import StoreWriter
from pgproxy.catalog import Catalogs
from pgproxy.catalog.analyzer import CatalogAnalyzer
from pgproxy.channel import Channel, ChannelError
from pgproxy.config import Settings
from pgproxy.metrics import WorkerMetrics
from pgproxy.net.errands import Errands
from pgproxy.net.listener import Listener
from pgproxy.net.ports import NoCatalog, Parking, Services
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
    planner = planner_of(settings)
    pool = await open_pool(store_dsn)
    wakeups = Wakeups(store_dsn)
    gateway = Gateway(pool, wakeups, node, instance, max_open_per_agent=settings.limits.open_per_agent)
    terms = terms_of(settings, mock_key)
    parking = Parking(settings.limits.parked, settings.limits.parked_per_agent)
    services = Services(
        upstream=upstream_of(settings),
        approvals=Approvals(gateway),
        audit=audit,
        analyzer=analysers if catalogs is None else CatalogAnalyzer(analysers, catalogs),
        metrics=metrics,
        errands=errands,
        parking=parking,
        catalog=NoCatalog() if catalogs is None else SharedCatalog(catalogs, channel, errands),
        estimator=planner,
    )
    hours = SharedHours(services.hourly, channel, instance)
    listener = Listener(services, terms, classify_setting, ForeignCancels(channel).send)
    in_force = InForce(settings, listener, services.upstream, parking, gateway, mock_key)
    answer_calls(channel, in_force, listener, audit, wakeups, catalogs)
    try:
        await analysers.start()
        await audit.start()
        if catalogs is not None:
            await catalogs.start()
        if terms.access.authenticator is not None:
            await terms.access.authenticator.prepare()
        async with asyncio.TaskGroup() as background:
            running = [background.create_task(wakeups.run()), background.create_task(gateway.run())]
            running.append(background.create_task(hours.run()))
            async with asyncio.TaskGroup() as sessions:
                await listener.start(sessions, sock)
                # What start-up made stays: the collector need not walk it while sessions wait.
                gc.collect()
                gc.freeze()
                await channel.ready()
                await channel.stopping()
                _log.info("stopping: sessions=%d", len(listener.directory.live()))
                await listener.drain(in_force.settings.limits.drain_timeout_s, channel.hurrying)
            await errands.close(_LAST_CALLS_S)
            for task in running:
                task.cancel()
    finally:
        if catalogs is not None:
            await catalogs.close()
        if planner is not None:
            await planner.close()
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


def planner_of(settings: Settings) -> Planner | None:
    """Whoever estimates, as the observer; None without one."""
    observer = settings.upstream.observer
    if observer is None:
        return None
    password = observer.password.get_secret_value() if observer.password is not None else None
    return Planner(settings.upstream.dsn, observer.user, password)


def catalogs_of(settings: Settings, analysers: AnalyserPool) -> Catalogs | None:
    """The catalogs as the observer reads them; None without one."""
    observer = settings.upstream.observer
    if observer is None:
        return None
    password = observer.password.get_secret_value() if observer.password is not None else None
    return Catalogs(settings.upstream.dsn, observer.user, password, analysers.set_catalog)
