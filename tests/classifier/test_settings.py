"""Which settings guard."""

from __future__ import annotations

import pytest

from classifier import ActionClass, settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("search_path", None),
        ("timezone", "x"),
        ("statement_timeout", "0"),
        ("default_transaction_read_only", "off"),
        ("myapp.tenant", "5"),
        ("pgproxy.reason", "x"),
        ("standard_conforming_strings", "ON"),
        ("row_security", "on"),
        ("session_replication_role", "origin"),
        ("client_encoding", "UTF-8"),
        ("client_encoding", "utf8"),
        ("client_encoding", "SQL_ASCII"),
        ("client_encoding", "ISO 8859-1"),
        ("client_encoding", "win1252"),
        ("client_encoding", "EUC_JP"),
        ("password_encryption", "scram-sha-256"),
    ],
)
def test_harmless(name: str, value: str | None) -> None:
    assert settings.judge(name, value) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("standard_conforming_strings", "off"),
        ("standard_conforming_strings", None),
        ("row_security", "off"),
        ("session_replication_role", "local"),
        ("client_encoding", None),
        *(("client_encoding", name) for name in ("SJIS", "BIG5", "GBK", "UHC", "GB18030", "JOHAB", "mskanji", "EUC")),
        ("password_encryption", "md5"),
        ("log_statement", "none"),
        ("session_preload_libraries", ""),
        ("allow_system_table_mods", "on"),
        ("lo_compat_privileges", "on"),
        ("pgaudit.log", "none"),
    ],
)
def test_guards(name: str, value: str | None) -> None:
    effect = settings.judge(name, value)
    assert effect is not None
    assert effect.cls == ActionClass.SESSION


def test_identity_is_a_class_of_its_own() -> None:
    for name in ("role", "session_authorization"):
        for value in ("x", "none", None):
            effect = settings.judge(name, value)
            assert effect is not None
            assert effect.cls == ActionClass.ROLE


def test_what_nobody_knows_is_unknown() -> None:
    effect = settings.judge("no_such_setting", "1")
    assert effect is not None
    assert effect.cls == ActionClass.UNKNOWN
