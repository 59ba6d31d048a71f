"""Taking up a changed configuration without a restart: in the supervisor's process, on SIGHUP or when an
administrator asks for it over HTTP.

1. All or nothing: a file with a problem changes nothing, each problem is logged, the old settings stay in force.
2. Revocations first: the store's reviewers, then every process. A process that cannot take the settings up drains
   and is started again with them; none goes on with the old ones.
3. Keys that a running process cannot change are named, once, and stay as they are.
4. Every start and reload is an entry of the trail (kind `config`): who asked, a digest of the settings, and the names
   of the keys that changed; never a value. The digest is keyed with a secret of this node, for a plain one would let
   whoever reads the trail try out passwords.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from pgproxy import __version__, log
from pgproxy.config import Settings
from pgproxy.configcheck import problems_of
from pgproxy.configdiff import changed_keys, fixed_keys, with_fixed
from pgproxy.document import DocumentError, dotted
from pgproxy.records import rfc3339
from pgproxy.supervisor import Supervisor

_log = logging.getLogger("pgproxy.app")
_NOTE_AGAIN_S = 2.0


class Reloader:
    """What is in force, and how it is replaced.

    `load` reads the configuration again (None: there is no file); `launched` are the settings with what the launcher
    has filled in (the embedded store), `read` those as they were read; `sync` makes the store's reviewers those of
    some settings, and raises when it cannot.
    """

    def __init__(
        self,
        load: Callable[[], Settings] | None,
        read: Settings,
        launched: Settings,
        supervisor: Supervisor,
        sync: Callable[[Settings], Awaitable[None]],
        digest_key: bytes,
    ) -> None:
        self._load = load
        self._read = read
        self._launched = launched
        self._supervisor = supervisor
        self._sync = sync
        self._digest_key = digest_key
        self._one_at_a_time = asyncio.Lock()
        self._notes: set[asyncio.Task[None]] = set()

    async def reload(self, by: str) -> dict[str, Any]:
        """Reads and takes up; `by`: who asked. The API's answer."""
        async with self._one_at_a_time:
            if self._load is None:
                return _result(problems=["there is no configuration file to read: this is `pgproxy up`"])
            try:
                new = await asyncio.to_thread(self._load)
            except DocumentError as error:
                return self._refused(by, [str(problem) for problem in error.problems])
            taken = with_fixed(self._read, new)
            problems = [f"{dotted(place)}: {reason}" for place, reason in problems_of(taken)]
            changed, fixed = changed_keys(self._read, new), fixed_keys(self._read, new)
            if problems:
                needs = f" (as long as these need a restart: {', '.join(fixed)})" if fixed else ""
                return self._refused(by, [problem + needs for problem in problems])
            launched = taken.model_copy(update={"store": self._launched.store})
            try:
                await self._sync(launched)
            except Exception as error:  # whatever the store's driver raises
                reason = f"the store does not take the reviewers ({type(error).__name__})"
                return self._refused(by, [reason])
            self._read, self._launched = taken, launched
            await self._take_up(launched)
            if fixed:
                _log.warning("these keys have changed and need a restart: %s", ", ".join(fixed))
            live = [key for key in changed if key not in fixed]
            _log.info("configuration reloaded by=%s changed=%s", by, ", ".join(live) or "nothing")
            self.note("reload", by=by, changed=live, needs_restart=fixed)
            return _result(True, live, fixed)

    async def _take_up(self, settings: Settings) -> None:
        log.set_level(settings.log_level)
        wire = settings.to_wire()
        self._supervisor.settings_wire = wire
        self._supervisor.drain_timeout_s = settings.limits.drain_timeout_s
        for name in await self._supervisor.reload({"settings": wire}):
            _log.error("%s does not take the new configuration up, so it is started again", name)

    def _refused(self, by: str, problems: Sequence[str]) -> dict[str, Any]:
        for problem in problems:
            _log.error("configuration not reloaded: %s", problem)
        self.note("reload_refused", by=by, problems=list(problems))
        return _result(problems=problems)

    def note(self, event: str, **detail: Any) -> None:
        """An entry of the trail, now or as soon as the control process takes it."""
        digest = hmac.digest(self._digest_key, self._launched.to_wire().encode(), "sha256").hex()
        about = {"digest": digest, "mode": self._launched.mode.value, "version": __version__, **detail}
        entry = {"event": event, "time": rfc3339(datetime.now(UTC)), "detail": about}
        task = asyncio.get_running_loop().create_task(self._deliver(entry))
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def _deliver(self, entry: dict[str, Any]) -> None:
        while not await self._supervisor.tell("control", "note_config", entry):  # noqa: ASYNC110 - it tells nobody when it is back
            await asyncio.sleep(_NOTE_AGAIN_S)


def _result(
    reloaded: bool = False, changed: Sequence[str] = (), needs_restart: Sequence[str] = (), problems: Sequence[str] = ()
) -> dict[str, Any]:
    return {
        "reloaded": reloaded,
        "changed": list(changed),
        "needs_restart": list(needs_restart),
        "problems": list(problems),
    }
