"""Stand-ins for the rest of the program, behind the API's ports."""

from __future__ import annotations

from typing import Any


class FakeSessions:
    def __init__(self) -> None:
        self.live = ["s1"]

    async def list(self) -> list[dict[str, Any]]:
        return [{"id": session_id} for session_id in self.live]

    async def end(self, session_id: str) -> bool:
        return session_id in self.live


class FakeReadiness:
    def __init__(self) -> None:
        self.problems: list[str] = []

    async def remarks(self) -> list[str]:
        return ["no catalog"]

    async def check(self) -> list[str]:
        return self.problems


class FakeReloader:
    def __init__(self) -> None:
        self.asked_by: list[str] = []
        self.problems: list[str] = []

    async def reload(self, by: str) -> dict[str, Any]:
        self.asked_by.append(by)
        return {
            "reloaded": not self.problems,
            "changed": ["limits.parked"],
            "needs_restart": [],
            "problems": self.problems,
        }


class FakeServices:
    """Classifier, audit reader and metrics; remembers what it was asked."""

    def __init__(self) -> None:
        self.classified: list[str] = []
        self.searched: list[dict[str, Any]] = []
        self.refuse: str | None = None
        self.sessions = FakeSessions()
        self.readiness = FakeReadiness()
        self.reloader = FakeReloader()

    async def classify(self, sql: str) -> dict[str, Any]:
        if self.refuse is not None:
            raise ValueError(self.refuse)
        self.classified.append(sql)
        return {"privileged": False, "risk": "low", "fingerprint": "", "normalized": sql, "statements": []}

    async def search(self, **filters: Any) -> dict[str, Any]:
        if filters["cursor"] == "bad":
            raise ValueError("not a cursor")
        self.searched.append(filters)
        return {"items": [], "next": None}

    def render(self) -> tuple[bytes, str]:
        return b"pgproxy_sessions_total 1\n", "text/plain; version=1.0.0"
