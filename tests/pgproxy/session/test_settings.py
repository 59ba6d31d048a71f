from __future__ import annotations

import codecs
import contextlib

import pytest

from classifier import classify
from classifier.model import Environment
from classifier.settings import ENCODINGS
from pgproxy.session.settings import CODECS, Settings, codec_of, split_search_path, version_number
from tests.pgproxy.session.playbook import settings


@pytest.mark.parametrize(
    "name", ["SJIS", "BIG5", "GBK", "UHC", "GB18030", "JOHAB", "SHIFT_JIS_2004", "MULE_INTERNAL", ""]
)
def test_encodings_whose_trailing_bytes_may_be_ascii_are_none(name: str) -> None:
    assert codec_of(name) is None


@pytest.mark.parametrize("name", ["utf8", "UTF-8", "unicode", "latin1", "iso_8859-1", "win-1252", "euc jp"])
def test_names_are_compared_without_case_and_punctuation(name: str) -> None:
    assert codec_of(name) is not None


@pytest.mark.parametrize("name", sorted(ENCODINGS))
def test_what_may_be_set_can_be_read(name: str) -> None:
    """Or every statement after a SET that nobody was asked about would be unknown."""
    assert codec_of(name) is not None


@pytest.mark.parametrize("codec", sorted(set(CODECS.values())))
def test_every_codec_keeps_ascii_for_ascii(codec: str) -> None:
    """No byte below 0x80 is part of another character, and none stands for anything but itself."""
    assert codecs.lookup(codec)
    for byte in range(0x80):
        assert bytes([byte]).decode(codec) == chr(byte)
    for lead in range(0x80, 0x100):
        for ascii_ in b"'\"\\;":
            with contextlib.suppress(UnicodeDecodeError):  # then the statement is refused
                assert bytes([lead, ascii_]).decode(codec)[-1] == chr(ascii_)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ('"$user", public', ("$user", "public")),
        ("A, b", ("a", "b")),
        ('"A ""x"", y", z', ('A "x", y', "z")),
        ("", ()),
        ('"open', None),
        ('"a" b', None),
    ],
)
def test_search_path(value: str, names: tuple[str, ...] | None) -> None:
    assert split_search_path(value) == names


def test_versions() -> None:
    assert version_number("18.6 (Debian 18.6-1)") == 180006
    assert version_number("15beta1") >= 150000
    assert version_number("what") == 0


def test_what_may_have_changed_is_unknown_until_the_server_is_ready() -> None:
    s = settings()
    assert s.environment.search_path == ("public",)
    s.may_have_changed(("*",))
    assert s.environment.search_path is None and s.codec is None and not s.names_are_exact
    assert not s.environment.standard_conforming_strings
    s.reported("search_path", "other")
    s.ready(idle=False)
    assert s.environment.search_path == ("other",) and s.codec == "utf-8" and s.touched_in_transaction
    s.ready(idle=True)
    assert not s.touched_in_transaction


@pytest.mark.parametrize(
    ("client", "server", "exact"),
    [("UTF8", "UTF8", True), ("LATIN1", "UTF8", False), ("UTF8", "LATIN1", False), ("SQL_ASCII", "SQL_ASCII", False)],
)
def test_names_are_exact_only_between_utf8_and_utf8(client: str, server: str, exact: bool) -> None:
    assert settings(client, server).names_are_exact is exact
    assert not Settings("db").names_are_exact


def path_after(text: str, *, reported: str | None = None) -> tuple[str, ...] | None:
    """As the next statement is judged, before a server that says a search_path only where `reported` is given."""
    followed = Settings("shop")
    for statement in classify(text).statements:
        followed.may_have_changed(statement.settings)
    if reported is not None:
        followed.reported("search_path", reported)
    followed.ready(idle=True)
    return followed.environment.search_path


@pytest.mark.parametrize(
    "text",
    [
        "SET search_path = evil, pg_catalog",
        "SELECT set_config('search_path', $1, false)",
        "SELECT set_config('search_path', 'evil,' || 'pg_catalog', false)",
        "SELECT set_config($1, $2, false)",
        "SELECT set_config('search_path', 'evil', false), set_config('search_path', lower('EVIL, PG_CATALOG'), false)",
    ],
)
def test_builtins_are_nobodys_for_certain_behind_a_path_that_may_hide_them(text: str) -> None:
    """A server before 18 never says what the path is: this holds for the session's rest."""
    path = path_after(text)
    assert path is not None and path != path_after("SELECT 1")
    assert classify("SELECT now()", Environment(search_path=path)).privileged
    assert path_after(text, reported="pg_catalog, public") == ("pg_catalog", "public")


@pytest.mark.parametrize(
    "text",
    [
        "SET search_path = shop, public",
        "SET search_path = pg_catalog, shop",
        "SELECT set_config('search_path', '', false)",
        "RESET ALL",
        "DISCARD ALL",
        "RESET search_path",
    ],
)
def test_builtins_stay_postgresqls_own_behind_any_other_path(text: str) -> None:
    assert not classify("SELECT now()", Environment(search_path=path_after(text))).privileged
