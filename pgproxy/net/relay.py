"""The relay of one session: bytes in, events to the session, effects performed strictly in order.

Everything here runs in callbacks of one loop; what takes time (an analyser, the audit trail, the store) runs as a
task and comes back as an event. Back-pressure: while one side's write buffer is full, the other side is not read.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, assert_never

from pgproxy.errors import InternalError, UpstreamUnreachable
from pgproxy.net.endpoint import Endpoint
from pgproxy.net.ports import Services
from pgproxy.session import effects, events
from pgproxy.session.effects import Effect
from pgproxy.session.events import Event
from pgproxy.session.machine import Session
from pgproxy.session.ports import ApprovalRequest, AuditUnavailable, StoreUnavailable, TooManyOpen
from pgproxy.session.refusals import error_response

_log = logging.getLogger("pgproxy.net")
# Of the server: idle_in_transaction_session_timeout, transaction_timeout, idle_session_timeout.
_TIMEOUTS = frozenset({"25P03", "25P04", "57P05"})


class Relay:
    """Runs one session until both connections are closed."""

    def __init__(
        self,
        session: Session,
        session_id: str,
        client: Endpoint,
        server: Endpoint,
        services: Services,
        cancel_key: tuple[int, bytes],
        database: str,
    ) -> None:
        self._session = session
        self._database = database
        self._id = session_id
        self._client = client
        self._server = server
        self._services = services
        self._cancel_key = cancel_key
        self._tasks: asyncio.TaskGroup | None = None
        self._closing = asyncio.Event()
        self._broken = False
        self._client_full = False
        self._server_full = False
        self._client_paused = False
        self._server_paused = False
        self._waiting: asyncio.Task[None] | None = None
        self.parked_since: float | None = None
        self.approval_id: str | None = None
        self.ended_because = "closed"
        self.last_event_at = time.time()

    @property
    def transaction_status(self) -> str:
        return self._session.transaction_status

    @property
    def is_idle(self) -> bool:
        return self._session.is_idle and not self._closing.is_set()

    async def run(self, withheld: bytes | None = None, begun: Callable[[], None] = lambda: None) -> None:
        """Returns when the session is over; every task it started is over then, too. `withheld`: the ReadyForQuery of
        a replication connection, which is judged before the first byte of the client. `begun` is called once events
        can be dispatched."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            if withheld is not None:
                self.dispatch(events.ReplicationRequested(withheld))
            begun()
            self._client.hand_over(self._from_client, self._client_ended, self._client_writable)
            self._server.hand_over(self._from_server, self._server_ended, self._server_writable)
            await self._closing.wait()
            self._client.close()
            self._server.close()
            if not self._broken:
                self._perform(self._session.final_effects(time.time()))
            if self._waiting is not None:
                self._waiting.cancel()

    def dispatch(self, event: Event) -> None:
        """Give the session an event. A bug in it ends this session, on both sides, and no other; what it made of
        the event so far is lost with it."""
        if self._broken:
            return
        now = self.last_event_at = time.time()
        try:
            self._perform(self._session.handle(event, now))
        except Exception:
            _log.exception("session=%s internal error, closing both sides", self._id)
            self._broken = True
            self.ended_because = "internal error"
            if self.approval_id is not None:
                approval_id = self.approval_id
                self._services.errands.send(
                    "withdraw", lambda: self._services.approvals.withdraw(approval_id, "internal error")
                )
            self._client.write(error_response(InternalError("pgproxy: internal error; the session is closed")))
            self._server.abort()
            self._closing.set()
            return
        self._balance()

    # the two connections

    def _from_client(self, data: bytes) -> None:
        self._services.metrics.bytes_transferred("client_to_server", len(data))
        self.dispatch(events.FrontendData(data))

    def _from_server(self, data: bytes) -> None:
        self._services.metrics.bytes_transferred("server_to_client", len(data))
        over = self._closing.is_set() or self._session.is_leaving
        self.dispatch(events.BackendData(data))
        if not over and self._session.server_fatal is not None:
            self._server_is_gone(f"ended the connection ({self._session.server_fatal})")

    def _client_ended(self, lost: bool) -> None:
        if not self._closing.is_set():
            self.ended_because = "the client closed the connection"
        self.dispatch(events.ClientClosed(lost))

    def _server_ended(self, _lost: bool) -> None:
        if not self._closing.is_set() and not self._session.is_leaving:
            self._server_is_gone("closed the connection")
        self.dispatch(events.ServerClosed())

    def _server_is_gone(self, how: str) -> None:
        self.ended_because = f"the server {how}"
        kind = "timeout" if self._session.server_fatal in _TIMEOUTS else "lost"
        self._services.metrics.upstream_error(kind)

    def _client_writable(self, writable: bool) -> None:
        self._client_full = not writable
        self._balance()

    def _server_writable(self, writable: bool) -> None:
        self._server_full = not writable
        self._balance()

    def _balance(self) -> None:
        """Read a side only while the other side (and the session) takes what comes."""
        if self._closing.is_set():
            return
        pause_client = self._server_full or not self._session.wants_client_data
        if pause_client != self._client_paused and not self._client.transport.is_closing():
            self._client_paused = pause_client
            _pause(self._client.transport, pause_client)
        pause_server = self._client_full or not self._session.wants_server_data
        if pause_server != self._server_paused and not self._server.transport.is_closing():
            self._server_paused = pause_server
            _pause(self._server.transport, pause_server)

    # effects

    def _perform(self, produced: list[Effect]) -> None:
        for effect in produced:
            self._perform_one(effect)

    def _perform_one(self, effect: Effect) -> None:
        services = self._services
        match effect:
            case effects.ToServer(data=data, received_at=received_at):
                self._server.write(data)
                if received_at is not None:
                    services.metrics.overhead(max(0.0, time.time() - received_at))
            case effects.ToClient(data=data):
                self._client.write(data)
            case effects.CatalogChanged():
                services.catalog.changed(self._database)
            case effects.Rows(count=count):
                services.metrics.rows(count)
            case effects.Analyse():
                self._start(self._analyse(effect))
            case effects.Estimate():
                self._start(self._estimate(effect))
            case effects.Record(entry=entry):
                self._start(self._record(dict(entry)))
            case effects.RecordSoon(entry=entry):
                services.audit.append_soon(dict(entry))
                services.metrics.audit_entry()
            case effects.OpenApproval(request=request):
                self._start(self._open(request))
            case effects.ClaimApproval():
                self._start(self._claim(effect))
            case effects.WithdrawApproval(id=id_, reason=reason):
                if self._waiting is not None:
                    self._waiting.cancel()
                    self._waiting = None
                services.errands.send("withdraw", lambda: services.approvals.withdraw(id_, reason))
            case effects.FinishApproval(id=id_, status=status, outcome=outcome):
                final = dict(outcome)
                services.errands.send("finish", lambda: services.approvals.finish(id_, status, final))
            case effects.CancelServer():
                services.errands.send("cancel", self._cancel_server)
            case effects.StopServer():
                self._start(self._stop_server())
            case effects.Decided(classes=classes, decision=decision, fingerprint=fingerprint, approval_id=approval_id):
                services.metrics.statement(classes, decision)
                if decision not in ("allowed", "observed"):
                    _log.info(
                        "session=%s approval=%s decision=%s fingerprint=%s",
                        self._id,
                        approval_id,
                        decision,
                        fingerprint,
                    )
            case effects.Parked(waiting=waiting, approval_id=approval_id):
                self._parked(waiting, approval_id)
            case effects.Close():
                self._closing.set()
            case _:
                assert_never(effect)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self._tasks is not None
        return self._tasks.create_task(work)

    def _parked(self, waiting: bool, approval_id: str | None) -> None:
        if waiting:
            self.parked_since, self.approval_id = time.time(), approval_id
            self._services.metrics.session_parked()
            _log.info("session=%s approval=%s parked", self._id, approval_id)
        else:
            self.parked_since = self.approval_id = None
            self._services.metrics.session_unparked()

    async def _analyse(self, effect: effects.Analyse) -> None:
        classification = await self._services.analyzer.analyze(effect.text, effect.environment)
        self.dispatch(events.Analysed(classification))

    async def _estimate(self, effect: effects.Estimate) -> None:
        rows: float | None = None
        if self._services.estimator is not None:
            rows = await self._services.estimator.estimate(
                self._database, effect.text, effect.parameters, effect.search_path
            )
        self.dispatch(events.Estimated(rows))

    async def _record(self, entry: dict[str, Any]) -> None:
        try:
            await self._services.audit.append(entry)
        except AuditUnavailable:
            _log.error("session=%s audit trail not available, statement refused", self._id)
            self.dispatch(events.Recorded(False))
        else:
            self._services.metrics.audit_entry()
            self.dispatch(events.Recorded(True))

    async def _open(self, request: ApprovalRequest) -> None:
        services = self._services
        agent = request.requester.agent
        full = services.parking.enter(agent)
        if full is not None:
            self.dispatch(events.ApprovalOpened(None, limit=full))
            return
        try:
            opened = await services.approvals.open(request)
        except TooManyOpen as error:
            services.parking.leave(agent)
            self.dispatch(events.ApprovalOpened(None, limit=error.limit))
            return
        except StoreUnavailable:
            services.parking.leave(agent)
            _log.warning("session=%s approval store not available, statement refused", self._id)
            self.dispatch(events.ApprovalOpened(None))
            return
        if not request.wait and opened.status == "pending":
            services.parking.leave(agent)  # nobody waits
            self.dispatch(events.ApprovalOpened(opened))
            return
        waiting = self._waiting = self._start(self._wait(opened.id))
        # Not in the task itself: one cancelled before its first step never runs.
        waiting.add_done_callback(lambda _: services.parking.leave(agent))
        self.dispatch(events.ApprovalOpened(opened))

    async def _wait(self, approval_id: str) -> None:
        """Until a human has decided, or time has; the store being away for a while only makes it longer."""
        while True:
            try:
                resolved = await self._services.approvals.wait(approval_id)
            except StoreUnavailable:
                await asyncio.sleep(1.0)
            else:
                break
        self._waiting = None
        self.dispatch(events.ApprovalResolved(resolved))

    async def _claim(self, effect: effects.ClaimApproval) -> None:
        ok: bool | None
        try:
            ok = await self._services.approvals.claim(effect.id, effect.binding, effect.sha256)
        except StoreUnavailable:
            ok = None  # the gateway sees to it that a claim in doubt is never used
        self.dispatch(events.ClaimAnswered(ok))

    async def _stop_server(self) -> None:
        await self._cancel_server()
        self.dispatch(events.ServerCancelled())

    async def _cancel_server(self) -> None:
        try:
            await self._services.upstream.cancel(*self._cancel_key)
        except (UpstreamUnreachable, TimeoutError):
            _log.warning("session=%s the server did not take the CancelRequest", self._id)


def _pause(transport: asyncio.Transport, pause: bool) -> None:
    if pause:
        transport.pause_reading()
    else:
        transport.resume_reading()
