"""Puts the sections of `context.impact` together for one approval object, within a few seconds, whatever happens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from pgproxy.dsn import Dsn
from pgproxy.impact import aims, code, consequences, locks, plans, privileges, relations
from pgproxy.impact.aims import Aim, Name, Unreadable
from pgproxy.impact.connection import FAILURES, Observer, Unreachable, explain_failure

if TYPE_CHECKING:
    from pgproxy.impact.connection import Connection

_log = logging.getLogger("pgproxy.impact")

TOTAL_S: Final = 4.0
_ROLES: Final = frozenset({"GrantRoleStmt", "CreateRoleStmt", "AlterRoleStmt", "DropRoleStmt"})
_SETTINGS: Final = frozenset({"VariableSetStmt", "AlterSystemStmt", "AlterRoleSetStmt", "AlterDatabaseSetStmt"})
_PLANNED: Final = aims.QUERIES | {"CreateTableAsStmt", "DeclareCursorStmt", "CopyStmt"}
Section = Callable[[], Awaitable[Any]]


class Probe:
    """`approvals.ports.ImpactProbe` over the observer's login. `close` ends its connections."""

    def __init__(self, upstream: Dsn, user: str, password: str | None, *, total_s: float = TOTAL_S) -> None:
        self._observer = Observer(upstream, user, password)
        self._total_s = total_s

    async def close(self) -> None:
        await self._observer.close()

    async def probe(self, approval: dict[str, Any]) -> dict[str, Any]:
        """The value of `context.impact`. Raises nothing but cancellation."""
        statement = approval["statement"]
        impact: dict[str, Any] = {
            "gathered_at": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "sha256": statement["sha256"],  # of the text it is about
        }
        try:
            async with asyncio.timeout(self._total_s):
                await self._gather(approval, impact)
        except Unreadable as error:
            impact["unavailable"] = str(error)
        except Unreachable as error:
            impact["error"] = str(error)
        except TimeoutError:
            impact["error"] = f"the rest was not gathered within {self._total_s:g} s"
        except Exception as error:
            # The type alone: messages quote the text. The approval itself does not depend on this.
            _log.warning("impact not gathered: approval=%s error=%s", approval["id"], type(error).__name__)
            impact["error"] = f"it could not be gathered ({type(error).__name__})"
        return impact

    async def _gather(self, approval: dict[str, Any], impact: dict[str, Any]) -> None:
        requester, context = approval["requester"], approval.get("context") or {}
        sql = str(approval["statement"]["sql"])
        executes = context.get("executes")
        read = aims.read(sql, executes if isinstance(executes, dict) else None)
        total = aims.count(sql)
        if total > len(read):
            impact["statements_cut"] = {"of": total, "looked_at": len(read)}
        async with self._observer.transaction(str(requester["database"])) as connection:
            gathering = _Gathering(connection, approval, context, impact)
            await gathering.all(read)


class _Gathering:
    """One look at one text. Sections that fail say so; the others come all the same."""

    def __init__(
        self, connection: Connection, approval: dict[str, Any], context: dict[str, Any], impact: dict[str, Any]
    ) -> None:
        self._connection = connection
        self._impact = impact
        self._classified = approval["classification"].get("statements") or []
        self._user = str(context.get("role") or approval["requester"]["db_user"])
        path = context.get("search_path")
        self._path = relations.settled(path if isinstance(path, list) else None, self._user)
        pid = context.get("server_pid")
        self._pid = pid if isinstance(pid, int) else None

    async def all(self, read: list[Aim]) -> None:
        impact = self._impact
        impact["search_path"] = self._path
        found: locks.Found = {}
        for aim in read:
            for name, mode in locks.of(aim.kind, aim.tree).items():
                if not self._is_relation(aim, name):
                    continue
                before = found.get(name, 0)
                found[name] = mode if mode is None or before is None else max(before, mode)
        targets: list[relations.Target] = []
        if found:
            await self._section("relations", lambda: self._relations(found, targets))
        if self._pid is not None:
            pid = self._pid
            await self._section("session_locks", lambda: relations.held_by(self._connection, pid))
        else:
            impact["session_locks"] = {"unavailable": "the session's server process is not known"}
        for aim in read:
            await self._statement(aim, targets)

    def _is_relation(self, aim: Aim, name: Name) -> bool:
        """Not a table expression's name, as far as the classification took it for one."""
        if name.schema is not None or name.name not in aim.common:
            return True
        return any(name.name in statement.get("relations", []) for statement in self._classified)

    async def _relations(self, found: locks.Found, targets: list[relations.Target]) -> list[dict[str, Any]]:
        these, cut = await relations.find(self._connection, found, self._path)
        targets += these
        if cut:
            self._impact["relations_cut"] = True
        return await relations.describe(self._connection, these, self._pid)

    async def _statement(self, aim: Aim, targets: list[relations.Target]) -> None:
        """What only some statements have."""
        connection, impact = self._connection, self._impact
        if aim.kind in _PLANNED and not (aim.kind == "CopyStmt" and "query" not in aim.tree):
            plan = impact.setdefault("plan", [])
            if len(plan) < plans.MAX_PLANS:
                await self._section("plan", lambda: self._plan(aim), add=True)
        if consequences.changed(aim) and any(target.oid for target in targets):
            await self._section("cascades", lambda: consequences.cascades(connection, aim, targets))
        if aim.kind == "DropStmt":
            await self._section("dependents", lambda: consequences.dependents(connection, aim, targets))
        if aim.kind == "GrantStmt":
            await self._section(
                "privileges", lambda: privileges.privileges(connection, aim, self._path, self._user), add=True
            )
        if aim.kind in _ROLES:
            await self._section("roles", lambda: privileges.roles(connection, aim, self._user), add=True)
        if code.named(aim):
            await self._section("functions", lambda: code.functions(connection, aim, self._path), add=True)
        if aim.kind in _SETTINGS:
            await self._section("settings", lambda: code.settings(connection, aim), add=True)

    async def _plan(self, aim: Aim) -> list[dict[str, Any]]:
        index = aim.number - 1
        classified = self._classified[index] if index < len(self._classified) else None
        # Every relation of these names, whatever the search_path: what could be met counts.
        names = [name.name for name in aim.relations]
        rows = await self._connection.fetch(
            "SELECT oid::bigint FROM pg_class WHERE relname = ANY ($1::text[]) LIMIT 501", names
        )
        if len(rows) > 500:
            return [{"statement": aim.number, "skipped": "too many relations could be meant"}]
        return [
            await plans.estimate(
                self._connection,
                aim,
                classified,
                [row["oid"] for row in rows],
                self._path,
            )
        ]

    async def _section(self, name: str, gather: Section, *, add: bool = False) -> None:
        """In a savepoint of its own that is rolled back, which gives its locks up. With `add` to a list there."""
        savepoint = self._connection.transaction()
        await savepoint.start()
        try:
            value = await gather()
        except FAILURES as error:
            if self._connection.is_closed() or isinstance(error, TimeoutError):
                raise
            value = {"error": explain_failure(error)}
        await savepoint.rollback()
        if add and isinstance(value, list) and isinstance(self._impact.get(name, []), list):
            value = [*self._impact.get(name, []), *value]
        if value or name in ("relations",):
            self._impact[name] = value
