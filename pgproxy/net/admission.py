"""How many connections one worker takes: those still in start-up, sessions, and sessions of one agent.

Counted apart, so that connections which never authenticate can use up the places of start-ups and no others: a
session that is established is never in danger, and one that begins needs a place only once its first packet is here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from pgproxy.errors import TooManySessions


@dataclass(frozen=True, slots=True)
class Places:
    """How many of each there are; 0 sessions of one agent: as many as sessions."""

    startups: int = 500
    sessions: int = 1000
    sessions_per_agent: int = 500


class Admission:
    """The places of one worker."""

    def __init__(self, places: Places) -> None:
        self.places = places  # may be replaced: whoever is in stays
        self._starting = 0
        self._sessions = 0
        self._by_agent: Counter[str] = Counter()

    def arrive(self) -> Visit:
        """A connection is here. Raises TooManySessions; otherwise the caller must end the visit by `leave`."""
        if self._starting >= self.places.startups:
            raise TooManySessions(
                "pgproxy: too many connections are starting up",
                hint="try again later; the operator can raise limits.startups",
            )
        self._starting += 1
        return Visit(self)


class Visit:
    """The places one connection holds, taken as it gets on."""

    def __init__(self, admission: Admission) -> None:
        self._of = admission
        self._starting = True
        self._in_session = False
        self._agent: str | None = None

    def begin(self) -> None:
        """It asks for a session. Raises TooManySessions."""
        of = self._of
        if of._sessions >= of.places.sessions:
            raise TooManySessions("sorry, too many clients already", hint="the operator can raise limits.sessions")
        of._sessions += 1
        self._in_session = True

    def identified(self, agent: str) -> None:
        """It has proved to be this agent's: not before, or anybody could use up an agent's places by its name. Raises
        TooManySessions."""
        of = self._of
        limit = of.places.sessions_per_agent
        if limit and of._by_agent[agent] >= limit:
            raise TooManySessions(
                f'pgproxy: too many sessions of agent "{agent}"',
                hint="close some; the operator can raise limits.sessions_per_agent",
            )
        of._by_agent[agent] += 1
        self._agent = agent

    def started(self) -> None:
        """Start-up is over."""
        if self._starting:
            self._starting = False
            self._of._starting -= 1

    def leave(self) -> None:
        """The connection is gone, and what it held is free."""
        of = self._of
        self.started()
        if self._in_session:
            self._in_session = False
            of._sessions -= 1
        if self._agent is not None:
            of._by_agent[self._agent] -= 1
            if not of._by_agent[self._agent]:
                del of._by_agent[self._agent]
            self._agent = None
