"""Connection URIs: what libpq reads is what we read, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from pgproxy.dsn import WITH_SECRETS, Dsn

names = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=12)


def parts(dsn: Dsn) -> dict[str, str]:
    """As libpq names them."""
    found = {
        "host": dsn.host,
        "port": str(dsn.port),
        "user": dsn.user,
        "password": dsn.password.get_secret_value() if dsn.password is not None else None,
        "dbname": dsn.database,
    }
    return {name: value for name, value in found.items() if value}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://", {"host": "127.0.0.1", "port": "5432"}),
        ("postgres://h:1/d", {"host": "h", "port": "1", "dbname": "d"}),
        (
            "postgresql://u:p%40s%2Fs@h/d%20d",
            {"user": "u", "password": "p@s/s", "host": "h", "port": "5432", "dbname": "d d"},
        ),
        ("postgresql://[::1]:7/d", {"host": "::1", "port": "7", "dbname": "d"}),
        ("postgresql:///d?host=/run/pg&port=6", {"host": "/run/pg", "port": "6", "dbname": "d"}),
        ("postgresql://u@/d?host=%2FRun%2Fpg", {"user": "u", "host": "/Run/pg", "port": "5432", "dbname": "d"}),
        ("postgresql://%2FRun%2Fpg/d", {"host": "/Run/pg", "port": "5432", "dbname": "d"}),
        (
            "postgresql://h/?user=u&password=p&dbname=d",
            {"host": "h", "port": "5432", "user": "u", "password": "p", "dbname": "d"},
        ),
    ],
)
def test_uri_is_read_as_libpq_reads_it(text: str, expected: dict[str, str]) -> None:
    found = parts(Dsn.parse(text))
    assert found == expected
    theirs = {name: str(value) for name, value in conninfo_to_dict(text).items()}
    assert {"host": "127.0.0.1", "port": "5432", **theirs} == found


@given(user=names, password=names, database=names, host=st.sampled_from(["h.example", "::1", "/run/p g/ü", "/a?b#c"]))
def test_written_uri_is_read_back_by_us_and_by_libpq(user: str, password: str, database: str, host: str) -> None:
    dsn = Dsn(host=host, port=6, user=user, password=SecretStr(password), database=database)
    assert Dsn.parse(dsn.uri()) == dsn
    assert {name: str(value) for name, value in conninfo_to_dict(dsn.uri()).items()} == parts(dsn)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("host=h", "must begin with postgresql://"),
        ("mysql://h/", "must begin with postgresql://"),
        ("postgresql://h:port/", "host or port is malformed"),
        ("postgresql://h:99999/", "host or port is malformed"),
        ("postgresql://[::1/", "host or port is malformed"),
        ("postgresql://a,b/", "several hosts"),
        ("postgresql:///?host=a,b", "several hosts"),
        ("postgresql://h/d#x", "must be written %23"),
        ("postgresql://h/?options=-crole%3Dx", "parameter 'options' is not supported"),
        ("postgresql://h/?sslmode", "parameter 'sslmode' is not supported"),
        ("postgresql://h/?sslmode=maybe", "sslmode must be one of"),
        ("postgresql://h/?sslnegotiation=maybe", "sslnegotiation must be postgres or direct"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Dsn.parse(text)


def test_password_shows_only_when_asked() -> None:
    dsn = Dsn.parse("postgresql://u:hunter2@h/d?sslmode=disable&sslrootcert=x")
    assert "hunter2" not in f"{dsn!r} {dsn} {dsn.model_dump_json()} {dsn.uri(password=False)}"
    assert dsn.uri() == "postgresql://u:hunter2@h:5432/d?sslmode=disable&sslrootcert=x"
    assert Dsn.model_validate_json(dsn.model_dump_json(context=WITH_SECRETS)) == dsn


def test_tls_parameters_come_back() -> None:
    text = "postgresql://h:5432/?sslmode=verify-full&sslrootcert=r&sslcert=c&sslkey=k&sslnegotiation=direct"
    assert Dsn.parse(text).uri() == text
    assert Dsn.parse("postgresql://h/?sslmode=prefer&sslnegotiation=postgres").uri() == "postgresql://h:5432/"


def test_no_tls_on_a_unix_socket() -> None:
    assert Dsn.parse("postgresql://h").may_use_tls
    assert not Dsn.parse("postgresql://h/?sslmode=disable").may_use_tls
    assert not Dsn.parse("postgresql:///?host=/run").may_use_tls


def test_socket_path() -> None:
    dsn = Dsn.parse("postgresql:///?host=/run/pg&port=6")
    assert (dsn.is_unix, dsn.socket_path) == (True, "/run/pg/.s.PGSQL.6")
    assert not Dsn.parse("postgresql://h").is_unix
