"""Accepts clients and runs one session for each.

What the operator chose (`Terms`) can be replaced while it runs: a connection keeps, to the end of its start-up, what
was in force when it came; sessions see each new policy at their next statement. Sessions that could not begin any
more as they did are ended, so that a revocation is one.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from classifier.model import Classification
from pgproxy.errors import CannotConnectNow, InternalError, ProxyError
from pgproxy.net import auth, startup
from pgproxy.net.admission import Admission, Places, Visit
from pgproxy.net.directory import Directory, LiveSession
from pgproxy.net.endpoint import Endpoint, HandshakeFailed
from pgproxy.net.greeting import ProtocolTooOld, read_greeting
from pgproxy.net.ports import Services
from pgproxy.net.relay import Relay
from pgproxy.net.startup import Access, Refused, Started
from pgproxy.policy import Identity, Mode, Policy, PolicyInForce
from pgproxy.protocol import backend
from pgproxy.protocol.startup import CancelRequest
from pgproxy.protocol.violation import ProtocolViolation
from pgproxy.session import evidence
from pgproxy.session.context import Context, Limits
from pgproxy.session.machine import Session
from pgproxy.session.ports import Requester
from pgproxy.session.refusals import error_response

_log = logging.getLogger("pgproxy.net")
_GOODBYE_S = 5.0
_STOPPING = "terminating connection because pgproxy is shutting down"


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


@dataclass(frozen=True, slots=True)
class Terms:
    """What a configuration says about sessions."""

    access: Access
    policy: Policy
    options: ListenerOptions


class Listener:
    """The front door of one worker. `cancel_elsewhere` is asked for cancel keys this worker did not hand out."""

    def __init__(
        self,
        services: Services,
        terms: Terms,
        classify: Callable[[str], Classification],
        cancel_elsewhere: Callable[[int, bytes], Awaitable[None]],
    ) -> None:
        self._services = services
        self._terms = terms
        self._policies = PolicyInForce(terms.policy)
        self._classify = classify
        self._cancel_elsewhere = cancel_elsewhere
        self.directory = Directory()
        self._tasks: asyncio.TaskGroup | None = None
        self._server: asyncio.Server | None = None
        self._admission = Admission(terms.options.places)
        self._starting: dict[asyncio.Task[None], Endpoint] = {}
        self._draining = False

    async def start(self, tasks: asyncio.TaskGroup, sock: socket.socket) -> None:
        """Accept on a bound socket; every session becomes a task of `tasks`."""
        self._tasks = tasks
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Endpoint(self._connected), sock=sock, backlog=1024)
        self._limit_idling()

    @property
    def is_draining(self) -> bool:
        return self._draining

    def _limit_idling(self) -> None:
        options = self._terms.options
        self.directory.limit_idling(options.idle_timeout_s, options.idle_in_transaction_timeout_s)

    # the end

    def close(self) -> None:
        """No new sessions: nobody is listening any more, so that another process may; connections that had come, and
        are no session yet, are told 57P03."""
        self._draining = True
        self.directory.stop_sweeping()
        if self._server is not None:
            self._server.close()
        for task, client in list(self._starting.items()):
            client.write(error_response(CannotConnectNow("pgproxy: shutting down, no new sessions")))
            task.cancel()

    async def drain(self, limit_s: float, hurry: Callable[[], Awaitable[None]]) -> None:
        """No new sessions, and those that are live end as they come to rest; after `limit_s`, or when `hurry`
        returns, all of them."""
        self.close()
        self.directory.drain_all("pgproxy is shutting down", _STOPPING)
        loop = asyncio.get_running_loop()
        waits = [loop.create_task(self.directory.emptied()), loop.create_task(_done(hurry()))]
        await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        left = len(self.directory.live())
        if left:
            _log.warning("ending sessions that did not come to rest: sessions=%d", left)
        self.directory.end_all("pgproxy is shutting down, and limits.drain_timeout_s was over", _STOPPING)

    def stop(self) -> None:
        """No new sessions; those that are live are ended."""
        self.close()
        self.directory.end_all("pgproxy is shutting down", _STOPPING)

    # a new configuration

    def reconfigure(self, terms: Terms) -> None:
        """In one step, for every later connection and, as far as it concerns them, for live sessions."""
        before, self._terms = self._terms, terms
        self._policies.replace(terms.policy)
        self._admission.places = terms.options.places
        if not self._draining:
            self._limit_idling()
        ended = self.directory.end_where(self._objection)
        if ended:
            _log.warning("sessions that may not go on by the new configuration are ended: sessions=%d", ended)
        if before.policy.mode is not terms.policy.mode:
            for live in self.directory.live():
                self._drain_if_unguarded(live)

    def _objection(self, live: LiveSession) -> str | None:
        return self._terms.access.objection(live.started)

    def _drain_if_unguarded(self, live: LiveSession) -> None:
        """A session begun in `observe` has settings that nobody looked at; its statements are judged from now on, and
        it ends as soon as it comes to rest."""
        if live.mode is Mode.OBSERVE and self._terms.policy.mode is Mode.ENFORCE:
            because = "mode changed to enforce, and it began in observe"
            live.drain(because, "terminating connection because pgproxy's mode has changed")

    # one connection

    def _connected(self, client: Endpoint) -> None:
        assert self._tasks is not None
        task = self._tasks.create_task(self._serve(client))
        self._starting[task] = client
        task.add_done_callback(lambda ended: self._starting.pop(ended, None))

    async def _serve(self, client: Endpoint) -> None:
        visit: Visit | None = None
        try:
            visit = self._admission.arrive()
            await self._welcome(client, visit)
        except HandshakeFailed as error:
            _log.info("start-up refused: %s", error)  # in TLS's own words to the client
        except (ConnectionResetError, TimeoutError):
            pass  # nobody to tell
        except Refused as refused:  # told already
            self._services.metrics.upstream_error(_kind_of(refused.sqlstate))
        except auth.UpstreamRefused as refused:
            self._services.metrics.upstream_error(_kind_of(refused.server_sqlstate))
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
        terms = self._terms
        async with asyncio.timeout(terms.options.startup_timeout_s):
            opened = await startup.read_first_packet(client, terms.access.tls)
            packet = opened.packet
            if isinstance(packet, CancelRequest):
                if not self.directory.cancel(packet.pid, packet.secret):
                    await self._cancel_elsewhere(packet.pid, packet.secret)
                return
            visit.begin()
            greeting = read_greeting(packet, terms.policy.mode, self._classify)
            if terms.access.tls is not None:
                address = _address(client.transport.get_extra_info("peername"))
                terms.access.tls.check(opened.secured, address, greeting.user, greeting.database)
            started = await startup.authenticate_and_connect(
                client,
                opened.secured,
                greeting,
                terms.access,
                self._services.upstream,
                self._services.catalog.state,
                visit.identified,
            )
        visit.started()
        task = asyncio.current_task()
        assert task is not None
        self._starting.pop(task, None)
        await self._run(client, started, terms)

    async def _run(self, client: Endpoint, started: Started, terms: Terms) -> None:
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
            identity=Identity(started.agent, started.owner, started.db_user, greeting.database, requester.client_addr),
            requester=requester,
            policy=self._policies.current,
            settings=started.settings,
            lookup=self._services.analyzer.lookup,
            nonce=secrets.token_hex(8),
            console=terms.options.console,
            notice=terms.options.notice and greeting.said.get("notice") != "off",
            limits=terms.options.limits,
            replication=greeting.replication,
            wait=greeting.wait,
            server_pid=started.key[0],
            hourly=self._services.hourly,
            policies=self._policies,
        )
        relay = Relay(
            Session(context), session_id, client, started.server, self._services, started.key, greeting.database
        )
        live = LiveSession(started, requester, relay, time.time(), terms.policy.mode)
        self.directory.add(live)
        self._services.metrics.session_opened()
        began = evidence.session_entry("session_start", requester, live.since)
        self._services.audit.append_soon({**began, "tls": live.describe()["tls"]})
        _log.info("session=%s started agent=%s", session_id, started.agent)
        try:
            await relay.run(started.withheld, partial(self._settle_in, live))
        except BaseException:
            started.server.abort()  # a bug, or the worker is going: the server must not go on with it
            raise
        finally:
            self.directory.remove(live)
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

    def _settle_in(self, live: LiveSession) -> None:
        """A session has begun; what was changed while it was starting up is made up for."""
        because = self._objection(live)
        if because is not None:
            live.end(because, f"terminating connection because {because}")
        elif self._draining:
            live.drain("pgproxy is shutting down", _STOPPING)
        else:
            self._drain_if_unguarded(live)


async def _done(waited_for: Awaitable[None]) -> None:
    await waited_for


def _kind_of(sqlstate: str) -> str:
    """Of a refusal by the server, for the counter: over who it is, or whatever else (too many connections, …)."""
    return "auth" if sqlstate.startswith("28") else "refused"


def _address(peer: Any) -> str:
    return str(peer[0]) if isinstance(peer, tuple) and peer else "local"
