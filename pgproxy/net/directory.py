"""The live sessions of one worker: who they are, and the ways to end them from outside.

Each way says why, to the client and in the trail (`detail` of the session's end). One timer looks after idle sessions
from time to time, so that a statement costs none.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pgproxy.errors import IdleInTransactionTimeout, IdleTimeout, ProxyError
from pgproxy.net.relay import Relay
from pgproxy.net.startup import Started
from pgproxy.policy import Mode
from pgproxy.session import events, evidence
from pgproxy.session.ports import Requester

_LONGEST_SWEEP_S = 10.0


@dataclass(eq=False, slots=True)
class LiveSession:
    """One row of the directory. `mode` is the one its start-up was judged in."""

    started: Started
    requester: Requester
    relay: Relay
    since: float
    mode: Mode

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
            "started_at": evidence.timestamp(self.since),
            "parked_at": evidence.timestamp(relay.parked_since) if relay.parked_since else None,
        }

    def end(self, because: str, message: str, error: ProxyError | None = None) -> None:
        """Now. `because` is for the trail, `message` for the client, told as 57P01 unless `error` is another."""
        self.relay.ended_because = because
        self.relay.dispatch(events.EndRequested(message, error))

    def drain(self, because: str, message: str) -> None:
        """As soon as nothing is undone by it."""
        self.relay.ended_because = because
        self.relay.dispatch(events.DrainRequested(message))


class Directory:
    """The sessions, by id and by the server's process id."""

    def __init__(self) -> None:
        self._sessions: dict[str, LiveSession] = {}
        # By the server's process id, which a session that is just ending may share with a new one.
        self._keys: dict[int, list[LiveSession]] = {}
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._idle_s = self._idle_in_transaction_s = 0.0
        self._sweeping: asyncio.TimerHandle | None = None

    def add(self, live: LiveSession) -> None:
        self._sessions[live.requester.session_id] = live
        self._keys.setdefault(live.started.key[0], []).append(live)
        self._emptied.clear()

    def remove(self, live: LiveSession) -> None:
        del self._sessions[live.requester.session_id]
        pid = live.started.key[0]
        self._keys[pid].remove(live)
        if not self._keys[pid]:
            del self._keys[pid]
        if not self._sessions:
            self._emptied.set()

    def live(self) -> list[LiveSession]:
        return list(self._sessions.values())

    def end(self, session_id: str) -> bool:
        """An administrator ends a session; whether it was here."""
        live = self._sessions.get(session_id)
        if live is None:
            return False
        live.end("ended by an administrator", "terminating connection due to administrator command")
        return True

    def cancel(self, pid: int, secret: bytes) -> bool:
        """A CancelRequest; whether its key is one of ours."""
        for live in self._keys.get(pid, ()):
            # In constant time: how much of a guess was right must not show.
            if hmac.compare_digest(live.started.client_key[1], secret):
                live.relay.dispatch(events.CancelRequested())
                return True
        return False

    # all of them

    def drain_all(self, because: str, message: str) -> None:
        for live in self.live():
            live.drain(because, message)

    def end_all(self, because: str, message: str) -> None:
        for live in self.live():
            live.end(because, message)

    def end_where(self, objection: Callable[[LiveSession], str | None]) -> int:
        """Ends those to whose going on there is an objection; how many."""
        found = [(live, because) for live in self.live() if (because := objection(live)) is not None]
        for live, because in found:
            live.end(because, f"terminating connection because {because}")
        return len(found)

    async def emptied(self) -> None:
        """Returns when no session is left."""
        await self._emptied.wait()

    # idle ones

    def limit_idling(self, idle_s: float, idle_in_transaction_s: float) -> None:
        """From now on, in seconds; 0: never."""
        self._idle_s, self._idle_in_transaction_s = idle_s, idle_in_transaction_s
        self.stop_sweeping()
        timeouts = [t for t in (idle_s, idle_in_transaction_s) if t]
        if timeouts:
            every_s = min(min(timeouts) / 10, _LONGEST_SWEEP_S)
            self._sweeping = asyncio.get_running_loop().call_later(every_s, self._sweep)

    def stop_sweeping(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    def _sweep(self) -> None:
        now = time.time()
        for live in self.live():
            self._end_if_idle(live, now)
        self.limit_idling(self._idle_s, self._idle_in_transaction_s)

    def _end_if_idle(self, live: LiveSession, now: float) -> None:
        relay = live.relay
        if not relay.is_idle:
            return
        idle_s = now - relay.last_event_at
        error: ProxyError
        if relay.transaction_status == "I":
            if self._idle_s and idle_s >= self._idle_s:
                hint = "connect again; the operator can raise limits.idle_timeout_s"
                error = IdleTimeout("terminating connection due to idle-session timeout", hint=hint)
                live.end("idle too long", error.message, error)
        elif self._idle_in_transaction_s and idle_s >= self._idle_in_transaction_s:
            error = IdleInTransactionTimeout(
                "terminating connection due to idle-in-transaction timeout",
                hint="end transactions; the operator can raise limits.idle_in_transaction_timeout_s",
            )
            live.end("idle in a transaction too long", error.message, error)
