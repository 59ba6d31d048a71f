"""What a reload can take up, and what it names as needing a restart."""

from __future__ import annotations

from typing import Any

import pytest

from pgproxy.config import Settings
from pgproxy.configdiff import FIXED, changed_keys, fixed_keys, with_fixed

BEFORE: dict[str, Any] = {
    "agents": [{"name": "a", "owner": "alice"}, {"name": "b", "owner": "alice", "password": "one"}],
    "reviewers": [{"name": "bob", "token": "t" * 20}],
}


def settings(**changes: Any) -> Settings:
    return Settings.model_validate({**BEFORE, **changes})


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({}, []),
        ({"mode": "observe", "notice": False}, ["mode", "notice"]),
        ({"limits": {"parked": 7, "drain_timeout_s": 1}}, ["limits.parked", "limits.drain_timeout_s"]),
        ({"tls": {"cert": "other.crt"}}, ["tls.cert"]),
        (
            {"agents": [{"name": "b", "owner": "alice", "password": "two"}, {"name": "c"}]},
            ["agents[a]", "agents[b]", "agents[c]"],
        ),
        ({"agents": BEFORE["agents"][::-1]}, ["agents"]),
        ({"reviewers": [{"name": "bob", "token": "u" * 20}]}, ["reviewers[bob]"]),
        ({"auth": {"default_owner": "carol"}, "policy": {"version": 1}}, ["auth.default_owner", "policy"]),
    ],
)  # fmt: skip
def test_what_is_live_is_named_and_taken_up(changes: dict[str, Any], keys: list[str]) -> None:
    old, new = settings(), settings(**changes)
    assert changed_keys(old, new) == keys
    assert fixed_keys(old, new) == []
    assert with_fixed(old, new) == new


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"listen": "127.0.0.1:7000"}, ["listen"]),
        ({"api": {"listen": "127.0.0.1:7001"}}, ["api.listen"]),
        ({"upstream": {"dsn": "postgresql://other"}}, ["upstream.dsn"]),
        ({"upstream": {"observer": {"user": "o"}}}, ["upstream.observer"]),
        ({"auth": {"mode": "broker"}}, ["auth.mode"]),
        ({"tls": {"mode": "require"}}, ["tls.mode"]),
        ({"store": {"dsn": "postgresql://s:secret@store"}}, ["store.dsn"]),
        ({"data_dir": "elsewhere", "workers": 2, "analysers": 2}, ["data_dir", "workers", "analysers"]),
    ],
)
def test_what_needs_a_restart_is_named_and_stays(changes: dict[str, Any], keys: list[str]) -> None:
    old, new = settings(), settings(**changes, notice=False)
    assert fixed_keys(old, new) == keys
    assert sorted(changed_keys(old, new)) == sorted([*keys, "notice"])
    assert with_fixed(old, new) == settings(notice=False)


def test_no_value_is_ever_named() -> None:
    old, new = settings(), settings(store={"dsn": "postgresql://s:secret@store"}, reviewers=[])
    assert "secret" not in repr(changed_keys(old, new) + fixed_keys(old, new))


def test_every_fixed_place_exists() -> None:
    for place in FIXED:
        value: Any = settings()
        for part in place:
            value = getattr(value, str(part))
