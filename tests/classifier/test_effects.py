"""Queries and changes: what their content adds to their kind."""

from __future__ import annotations

import pytest

from classifier import classify


def verbs(sql: str) -> set[str]:
    return {a.verb for s in classify(sql).statements for a in s.actions}


@pytest.mark.parametrize(
    ("sql", "verb"),
    [
        ("INSERT INTO t SELECT * FROM t ON CONFLICT (a) DO UPDATE SET b = 1", "upsert_all"),
        ("INSERT INTO t SELECT * FROM public.t x ON CONFLICT (a) DO UPDATE SET b = 1 WHERE true", "upsert_all"),
        ("SELECT * FROM information_schema.user_mapping_options", "read_secret"),
        ("SELECT * FROM pg_toast.pg_toast_1260", "read_toast"),
        ("SELECT set_config(name, 'x', false) FROM pg_settings WHERE name = 'role'", "set_role"),
        ("SELECT set_config(name, setting, false) FROM pg_settings WHERE name = 'jit'", "set_config"),
        ("SELECT set_config(s.name, 'x', false) FROM pg_settings s WHERE s.name = 'jit'", "set_config"),
        ("SELECT set_config(name, 'x', false) FROM pg_settings WHERE name = $1", "set_config"),
    ],
)
def test_effect_is_seen(sql: str, verb: str) -> None:
    assert verb in verbs(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t SELECT * FROM u ON CONFLICT (a) DO UPDATE SET b = 1",
        "INSERT INTO t SELECT * FROM t WHERE id = 5 ON CONFLICT (a) DO UPDATE SET b = 1",
        "INSERT INTO t SELECT * FROM t ON CONFLICT DO NOTHING",
        "INSERT INTO t SELECT * FROM t ON CONFLICT (a) DO UPDATE SET b = 1 WHERE t.c = 2",
        "SELECT set_config(name, 'off', false) FROM pg_catalog.pg_settings WHERE name = 'jit'",
        "SELECT * FROM information_schema.foreign_servers",
        "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN DELETE RETURNING merge_action()",
    ],
)
def test_ordinary_statement_has_no_privileged_effect(sql: str) -> None:
    assert not classify(sql).privileged
