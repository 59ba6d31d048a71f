"""Accepts clients and runs one session for each; the directory of live sessions is here too."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from classifier.model import Classification
from pgproxy.errors import (
    IdleInTransactionTimeout,
    IdleTimeout,
    InternalError,
    ProxyError,
    ShuttingDown,
)
from pgproxy.net import auth, startup
from pgproxy.net.admission import Admission, Places, Visit
from pgproxy.net.endpoint import Endpoint, HandshakeFailed
from pgproxy.net.greeting import ProtocolTooOld, read_greeting
from pgproxy.net.ports import Services
from pgproxy.net.relay import Relay
from pgproxy.net.startup import Access, Refused, Started
from pgproxy.policy import Identity, Policy
from pgproxy.protocol import backend
from pgproxy.protocol.startup import CancelRequest
from pgproxy.protocol.violation import ProtocolViolation
from pgproxy.session import events, evidence
from pgproxy.session.context import Context, Limits
from pgproxy.session.machine import Session
from pgproxy.session.ports import Requester
from pgproxy.session.refusals import error_response

_log = logging.getLogger("pgproxy.net")
_GOODBYE_S = 5.0
_LONGEST_SWEEP_S = 10.0


@dataclass(frozen=True, slots=True)
class ListenerOptions:
    """What the operator chose for this worker's sessions. Times in seconds."""

    console: str
    notice: bool = True
    limits: Limits = field(default_factory=Limits)
    places: Places = field(default_factory=Places)
    startup_timeout_s: float = 60.0
    idle_timeout_s: float = 0.0  # 0: never
    idle_in_transaction_timeout_s: float = 0.0


@dataclass(eq=False, slots=True)
class LiveSession:
    """One row of the directory."""

    started: Started
    requester: Requester
    relay: Relay
    since: float

    def describe(self) -> dict[str, Any]:
        r, relay = self.requester, self.relay
        return {
            "id": r.session_id,
            "agent": r.agent,
            "owner": r.owner,
            "db_user": r.db_user,
            "database": r.database,
            "client_addr": r.client_addr,
            "application_name": r.application_name,
            "reason": r.reason,
            "ticket": r.ticket,
            "server_pid": self.started.key[0],
            "state": "parked" if relay.approval_id else "active",
            "transaction": {"I": "idle", "T": "open", "E": "failed"}[relay.transaction_status],
            "approval_id": relay.approval_id,
            "tls": self.started.secured.describe() if self.started.secured else None,
            "started_at": evidence.timestamp(self.since),
            "parked_at": evidence.timestamp(relay.parked_since) if relay.parked_since else None,
        }


class Listener:
    """The front door of one worker. `cancel_elsewhere` is asked for cancel keys this worker did not hand out."""

    def __init__(
        self,
        services: Services,
        access: Access,
        policy: Policy,
        classify: Callable[[str], Classification],
        options: ListenerOptions,
        cancel_elsewhere: Callable[[int, bytes], Awaitable[None]],
    ) -> None:
        self._services = services
        self._access = access
        self._policy = policy
        self._classify = classify
        self._options = options
        self._cancel_elsewhere = cancel_elsewhere
        self._sessions: dict[str, LiveSession] = {}
        # By the server's process id, which a session that is just ending may share with a new one.
        self._keys: dict[int, list[LiveSession]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._server: asyncio.Server | None = None
        self._admission = Admission(options.places)
        self._draining = False

    async def start(self, tasks: asyncio.TaskGroup, sock: socket.socket) -> None:
        """Accept on a bound socket; every session becomes a task of `tasks`."""
        self._tasks = tasks
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Endpoint(self._connected), sock=sock, backlog=1024)
        self._sweep_later()

    async def stop(self) -> None:
        """No new sessions; those that are live are ended."""
        self._draining = True
        if self._server is not None:
            self._server.close()
        for live in list(self._sessions.values()):
            live.relay.dispatch(events.EndRequested("terminating connection because pgproxy is shutting down"))

    # the directory

    def sessions(self) -> list[dict[str, Any]]:
        return [live.describe() for live in self._sessions.values()]

    def end(self, session_id: str) -> bool:
        """An administrator ends a session; whether it was here."""
        live = self._sessions.get(session_id)
        if live is None:
            return False
        live.relay.ended_because = "ended by an administrator"
        live.relay.dispatch(events.EndRequested("terminating connection due to administrator command"))
        return True

    def cancel(self, pid: int, secret: bytes) -> bool:
        """A CancelRequest; whether its key is one of ours."""
        for live in self._keys.get(pid, ()):
            # In constant time: how much of a guess was right must not show.
            if hmac.compare_digest(live.started.client_key[1], secret):
                live.relay.dispatch(events.CancelRequested())
                return True
        return False

    def _forget_key(self, live: LiveSession) -> None:
        pid = live.started.key[0]
        self._keys[pid].remove(live)
        if not self._keys[pid]:
            del self._keys[pid]

    # idle sessions: one timer for all of them looks from time to time, so that a statement costs none

    def _sweep_later(self) -> None:
        timeouts = [t for t in (self._options.idle_timeout_s, self._options.idle_in_transaction_timeout_s) if t]
        if timeouts and not self._draining:
            asyncio.get_running_loop().call_later(min(min(timeouts) / 10, _LONGEST_SWEEP_S), self._sweep)

    def _sweep(self) -> None:
        now = time.time()
        for live in list(self._sessions.values()):
            self._end_if_idle(live, now)
        self._sweep_later()

    def _end_if_idle(self, live: LiveSession, now: float) -> None:
        relay, options = live.relay, self._options
        if not relay.is_idle:
            return
        idle_s = now - relay.last_event_at
        if relay.transaction_status == "I":
            if options.idle_timeout_s and idle_s >= options.idle_timeout_s:
                relay.ended_because = "idle too long"
                hint = "connect again; the operator can raise limits.idle_timeout_s"
                error: ProxyError = IdleTimeout("terminating connection due to idle-session timeout", hint=hint)
                relay.dispatch(events.EndRequested(error.message, error))
        elif options.idle_in_transaction_timeout_s and idle_s >= options.idle_in_transaction_timeout_s:
            relay.ended_because = "idle in a transaction too long"
            error = IdleInTransactionTimeout(
                "terminating connection due to idle-in-transaction timeout",
                hint="end transactions; the operator can raise limits.idle_in_transaction_timeout_s",
            )
            relay.dispatch(events.EndRequested(error.message, error))

    # one connection

    def _connected(self, client: Endpoint) -> None:
        assert self._tasks is not None
        self._tasks.create_task(self._serve(client))

    async def _serve(self, client: Endpoint) -> None:
        visit: Visit | None = None
        try:
            visit = self._admission.arrive()
            await self._welcome(client, visit)
        except HandshakeFailed as error:
            _log.info("start-up refused: %s", error)  # in TLS's own words to the client
        except (ConnectionResetError, TimeoutError, Refused):
            pass  # nobody to tell, or told already
        except auth.UpstreamRefused as refused:
            self._services.metrics.upstream_error("refused")
            client.write(refused.response)
        except ProtocolTooOld as error:
            _log.log(error.log_level, "start-up refused: sqlstate=%s", error.sqlstate)
            client.write(backend.old_error_response(error.severity, error.message))
        except ProtocolViolation as violation:
            client.write(backend.error_response("FATAL", violation.sqlstate, violation.message))
        except ProxyError as error:
            _log.log(error.log_level, "start-up refused: sqlstate=%s %s", error.sqlstate, error.__cause__ or "")
            if error.sqlstate in ("08001", "08006"):
                self._services.metrics.upstream_error("connect" if error.sqlstate == "08001" else "lost")
            client.write(error_response(error))
        except Exception:
            _log.exception("internal error in start-up")
            client.write(error_response(InternalError("pgproxy: internal error; the connection is closed")))
        finally:
            if visit is not None:
                visit.leave()
            client.close()

    async def _welcome(self, client: Endpoint, visit: Visit) -> None:
        async with asyncio.timeout(self._options.startup_timeout_s):
            opened = await startup.read_first_packet(client, self._access.tls)
            packet = opened.packet
            if isinstance(packet, CancelRequest):
                if not self.cancel(packet.pid, packet.secret):
                    await self._cancel_elsewhere(packet.pid, packet.secret)
                return
            if self._draining:
                raise ShuttingDown("pgproxy: shutting down, no new sessions")
            visit.begin()
            greeting = read_greeting(packet, self._policy.mode, self._classify)
            if self._access.tls is not None:
                address = _address(client.transport.get_extra_info("peername"))
                self._access.tls.check(opened.secured, address, greeting.user, greeting.database)
            started = await startup.authenticate_and_connect(
                client,
                opened.secured,
                greeting,
                self._access,
                self._services.upstream,
                self._services.catalog.state,
                visit.identified,
            )
        visit.started()
        await self._run(client, started)

    async def _run(self, client: Endpoint, started: Started) -> None:
        session_id = secrets.token_hex(8)
        greeting = started.greeting
        requester = Requester(
            agent=started.agent,
            owner=started.owner,
            db_user=started.db_user,
            database=greeting.database,
            client_addr=_address(client.transport.get_extra_info("peername")),
            application_name=greeting.application_name,
            session_id=session_id,
            reason=greeting.reason,
            ticket=greeting.ticket,
            context=greeting.context,
        )
        context = Context(
            identity=Identity(started.agent, started.owner, started.db_user, greeting.database),
            requester=requester,
            policy=self._policy,
            settings=started.settings,
            lookup=self._services.analyzer.lookup,
            nonce=secrets.token_hex(8),
            console=self._options.console,
            notice=self._options.notice and greeting.said.get("notice") != "off",
            limits=self._options.limits,
            replication=greeting.replication,
        )
        relay = Relay(
            Session(context), session_id, client, started.server, self._services, started.key, greeting.database
        )
        live = LiveSession(started, requester, relay, time.time())
        self._sessions[session_id] = live
        self._keys.setdefault(started.key[0], []).append(live)
        self._services.metrics.session_opened()
        began = evidence.session_entry("session_start", requester, live.since)
        self._services.audit.append_soon({**began, "tls": live.describe()["tls"]})
        _log.info("session=%s started agent=%s", session_id, started.agent)
        try:
            await relay.run(started.withheld)
        except BaseException:
            started.server.abort()  # a bug, or the worker is going: the server must not go on with it
            raise
        finally:
            del self._sessions[session_id]
            self._forget_key(live)
            self._services.metrics.session_closed()
            entry = evidence.session_entry("session_end", requester, time.time(), relay.ended_because)
            self._services.audit.append_soon(entry)
            _log.info("session=%s ended: %s", session_id, relay.ended_because)
        # What was written must go out before the connections are dropped for good.
        try:
            async with asyncio.timeout(_GOODBYE_S):
                await client.lost
        except TimeoutError:
            client.abort()
        started.server.abort()


def _address(peer: Any) -> str:
    return str(peer[0]) if isinstance(peer, tuple) and peer else "local"
