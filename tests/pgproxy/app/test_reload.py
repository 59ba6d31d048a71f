"""Reading the configuration again, with a supervisor that only remembers."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from pgproxy.app.reload import Reloader
from pgproxy.config import Settings, load
from pgproxy.supervisor import Supervisor

START = """
auth: {mode: broker}
upstream: {dsn: 'postgresql://127.0.0.1:5499'}
agents:
  - {name: etl, owner: alice, password: first-secret, upstream: {user: app}}
reviewers:
  - {name: bob, token: a-token-of-more-than-twenty}
"""


@dataclass
class Fleet:
    settings_wire: str = ""
    drain_timeout_s: float = 30.0
    told: list[tuple[str, str, Any]] = field(default_factory=list)
    reloaded: list[Any] = field(default_factory=list)
    deaf: int = 0

    async def reload(self, params: Any) -> list[str]:
        self.reloaded.append(Settings.from_wire(params["settings"]))
        assert params["settings"] == self.settings_wire
        return ["worker 0"] if len(self.reloaded) == 7 else []

    async def tell(self, target: str, method: str, params: Any) -> bool:
        if self.deaf:
            self.deaf -= 1
            return False
        self.told.append((target, method, params))
        return True


class World:
    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_text(START)
        self.fleet = Fleet()
        self.synced: list[Settings] = []
        self.store_is_away = False
        read = load(path, {})
        launched = read.model_copy(update={"store": read.store.model_validate({"dsn": "postgresql://embedded"})})
        self.reloader = Reloader(
            lambda: load(path, {}), read, launched, cast(Supervisor, self.fleet), self._sync, b"key"
        )

    async def _sync(self, settings: Settings) -> None:
        if self.store_is_away:
            raise ConnectionError
        assert not self.fleet.reloaded or self.fleet.reloaded[-1] != settings  # first the store, then the processes
        self.synced.append(settings)

    async def reload(self, text: str) -> dict[str, Any]:
        self.path.write_text(text)
        return await self.reloader.reload("carol")

    async def notes(self) -> list[Any]:
        await asyncio.gather(*self.reloader._notes)
        assert all((target, method) == ("control", "note_config") for target, method, _ in self.fleet.told)
        return [params for _, _, params in self.fleet.told]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "pgproxy.yaml")


async def test_what_is_live_is_taken_up_and_the_rest_is_named(world: World, caplog: pytest.LogCaptureFixture) -> None:
    changed = (
        START.replace("first-secret", "second-secret")
        + "workers: 4\nlimits: {drain_timeout_s: 3}\nlog_level: warning\n"
    )
    root = logging.getLogger().level
    try:
        result = await world.reload(changed)
    finally:
        logging.getLogger().setLevel(root)
    assert result == {
        "reloaded": True,
        "changed": ["agents[etl]", "limits.drain_timeout_s", "log_level"],
        "needs_restart": ["workers"],
        "problems": [],
    }  # fmt: skip
    (settings,) = world.fleet.reloaded
    assert settings.agents[0].password.get_secret_value() == "second-secret"
    assert settings.workers == 1 and world.fleet.drain_timeout_s == 3
    assert settings.store.dsn.get_secret_value() == "postgresql://embedded"
    assert len(world.synced) == 1
    assert "these keys have changed and need a restart: workers" in caplog.text
    (note,) = await world.notes()
    assert note["event"] == "reload" and note["detail"]["by"] == "carol"
    assert note["detail"]["changed"] == result["changed"] and note["detail"]["needs_restart"] == ["workers"]
    assert "secret" not in str(note) and "token" not in str(note)
    await world.reload(changed)
    assert (await world.notes())[-1]["detail"]["digest"] == note["detail"]["digest"]
    await world.reload(changed.replace("second-secret", "third-secret"))
    assert (await world.notes())[-1]["detail"]["digest"] != note["detail"]["digest"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (START + "limts: {}\n", "limts: unknown key; did you mean 'limits'?"),
        (START.replace("owner: alice, ", ""), "owner: agent 'etl' needs an owner"),
        ("a: [", "not YAML"),
        # In passthrough mode this would be right, but the mode stays until a restart.
        (
            START.replace("broker", "passthrough").replace(", password: first-secret, upstream: {user: app}", ""),
            "agents[0].password: agent 'etl' needs a password (or its SCRAM-SHA-256 verifier) "
            "(as long as these need a restart: auth.mode)",
        ),
    ],
)  # fmt: skip
async def test_a_broken_file_changes_nothing_and_says_what_is_wrong(
    world: World, caplog: pytest.LogCaptureFixture, text: str, problem: str
) -> None:
    result = await world.reload(text)
    assert not result["reloaded"] and any(problem in found for found in result["problems"])
    assert problem in caplog.text and "configuration not reloaded" in caplog.text
    assert not world.fleet.reloaded and not world.synced
    (note,) = await world.notes()
    assert note["event"] == "reload_refused" and note["detail"]["problems"] == result["problems"]
    assert (await world.reload(START))["reloaded"]


async def test_a_store_that_is_away_keeps_the_old_configuration_whole(world: World) -> None:
    world.store_is_away = True
    result = await world.reload(START.replace("a-token", "b-token"))
    assert result["problems"] == ["the store does not take the reviewers (ConnectionError)"]
    assert not world.fleet.reloaded
    world.store_is_away = False
    result = await world.reload(START.replace("a-token", "b-token"))
    assert result["changed"] == ["reviewers[bob]"]


async def test_the_trail_gets_its_entry_once_somebody_takes_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgproxy.app.reload._NOTE_AGAIN_S", 0)
    world.fleet.deaf = 3
    world.reloader.note("start", by="the operator")
    (note,) = await world.notes()
    assert note["event"] == "start" and len(note["detail"]["digest"]) == 64


async def test_without_a_file_there_is_nothing_to_reload(world: World) -> None:
    world.reloader._load = None
    assert not (await world.reloader.reload("carol"))["reloaded"]
