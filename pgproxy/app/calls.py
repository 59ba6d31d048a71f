"""What the control process, the supervisor and other workers may ask of a worker over the channel."""

from __future__ import annotations

import logging
from typing import Any

from approvals.gateway import Gateway
from approvals.wakeups import Wakeups
from pgproxy import log
from pgproxy.app.terms import terms_of
from pgproxy.audit.writer import StoreWriter
from pgproxy.catalog import Catalogs
from pgproxy.channel import Channel
from pgproxy.config import Settings
from pgproxy.net.listener import Listener
from pgproxy.net.ports import Parking
from pgproxy.net.upstream import Upstream

_log = logging.getLogger("pgproxy.app")


class InForce:
    """The settings this worker runs by, and how others take their place."""

    def __init__(
        self,
        settings: Settings,
        listener: Listener,
        upstream: Upstream,
        parking: Parking,
        gateway: Gateway,
        mock_key: bytes,
    ) -> None:
        self.settings = settings
        self._listener = listener
        self._upstream = upstream
        self._parking = parking
        self._gateway = gateway
        self._mock_key = mock_key

    async def replace(self, settings: Settings) -> None:
        """The settings of a reload, in which nothing differs that cannot be changed in a running worker. What takes
        time or may fail comes first; then everything changes in one step. Certificates and keys are read anew."""
        terms = terms_of(settings, self._mock_key)
        if self._upstream.tls is not None:
            self._upstream.tls.reload()
        if terms.access.authenticator is not None:
            await terms.access.authenticator.prepare()
        self.settings = settings
        log.set_level(settings.log_level)
        self._parking.limit, self._parking.per_agent = settings.limits.parked, settings.limits.parked_per_agent
        self._gateway.max_open_per_agent = settings.limits.open_per_agent
        self._listener.reconfigure(terms)
        _log.info("running by the new configuration")


def answer_calls(
    channel: Channel,
    in_force: InForce,
    listener: Listener,
    audit: StoreWriter,
    wakeups: Wakeups,
    catalogs: Catalogs | None,
) -> None:
    """Tells the channel who answers what."""
    directory = listener.directory

    async def sessions(_: Any) -> Any:
        return [live.describe() for live in directory.live()]

    async def end_session(params: Any) -> Any:
        return directory.end(str(params["id"]))

    async def cancel(params: Any) -> Any:
        return directory.cancel(int(params["pid"]), bytes.fromhex(params["secret"]))

    async def ready(_: Any) -> Any:
        problems = []
        if listener.is_draining:
            problems.append("shutting down: no new sessions")
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

    async def reload(params: Any) -> None:
        await in_force.replace(Settings.from_wire(params["settings"]))

    for answer in (sessions, end_session, cancel, ready, catalog_changed, reload):
        channel.handle(answer.__name__, answer)
