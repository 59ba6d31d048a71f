"""The client's first packet as an attacker would write it, and as PostgreSQL would read it."""

from __future__ import annotations

import pytest

from classifier.classify import classify
from pgproxy.errors import FeatureNotSupported, ProxyError
from pgproxy.net.greeting import Greeting, ProtocolTooOld, check_encoding, read_greeting
from pgproxy.policy import Mode
from pgproxy.protocol import backend
from pgproxy.protocol.startup import StartupMessage, read_startup, startup_message
from pgproxy.protocol.violation import ProtocolViolation
from pgproxy.session.settings import Settings

Pairs = list[tuple[bytes, bytes]]
USER = (b"user", b"agent")


def greeting(*pairs: tuple[bytes, bytes], minor: int = 0, mode: Mode = Mode.ENFORCE) -> Greeting:
    packet = read_startup(startup_message([USER, *pairs], minor=minor))
    assert isinstance(packet, StartupMessage)
    return read_greeting(packet, mode, classify)


def refused(*pairs: tuple[bytes, bytes]) -> str:
    with pytest.raises((ProxyError, ProtocolViolation)) as caught:
        greeting(*pairs)
    return caught.value.sqlstate


@pytest.mark.parametrize(
    ("asked", "spoken", "negotiated", "secret_bytes"),
    [(0, 0, False, 4), (1, 1, False, 4), (2, 2, False, 32), (3, 2, True, 32), (9999, 2, True, 32)],
)
def test_minor_versions(asked: int, spoken: int, negotiated: bool, secret_bytes: int) -> None:
    said = greeting(minor=asked)
    assert (said.minor, said.secret_bytes) == (spoken, secret_bytes)
    assert said.negotiate == (backend.negotiate_protocol_version(2, []) if negotiated else None)


def test_options_of_the_protocol_are_listed_and_not_sent_on() -> None:
    said = greeting((b"_pq_.b", b"1"), (b"work_mem", b"8MB"), (b"_pq_.a", b"\xff"))
    assert said.negotiate == backend.negotiate_protocol_version(0, [b"_pq_.b", b"_pq_.a"])
    assert said.parameters == [(b"work_mem", b"8MB")]


@pytest.mark.parametrize("major", [1, 2])
def test_protocols_before_3_get_an_answer_they_can_read(major: int) -> None:
    with pytest.raises(ProtocolTooOld) as caught:
        read_greeting(StartupMessage(major, 0, []), Mode.OBSERVE, classify)
    assert caught.value.message == f"unsupported frontend protocol {major}.0: server supports 3.0 to 3.2"
    old = backend.old_error_response(caught.value.severity, caught.value.message)
    assert old == f"EFATAL:  {caught.value.message}\n\0".encode()


def test_a_later_protocol_is_refused_in_the_words_of_3() -> None:
    with pytest.raises(FeatureNotSupported) as caught:
        read_greeting(StartupMessage(4, 1, []), Mode.OBSERVE, classify)
    assert not isinstance(caught.value, ProtocolTooOld)


@pytest.mark.parametrize(
    "option",
    [
        b"-c role=postgres",
        b"-crole=postgres",
        b"--role=postgres",
        b"--RoLe=postgres",
        b"-c session-authorization=postgres",
        b"--session-authorization=postgres",
        b"-c ro\\le=postgres",
        b"\\-\\c\\ role=postgres",
        b"\t-c\x0brole=postgres",
        b"-c role=agent -c role=postgres",
        b"-c search_path=a -crole=it's",
        b"-c row_security=off",
        b"-c local_preload_libraries=x",
        b"-c session_preload_libraries=x",
        b"-c session_replication_role=replica",
        b"-c ignore_system_indexes=on",
        b"-c allow_system_table_mods=on",
        b"-c standard_conforming_strings=off",
        b"-c escape_string_warning=x -c dynamic_library_path=/tmp",
    ],
)
def test_guards_cannot_be_weakened_by_an_option(option: bytes) -> None:
    assert refused((b"options", option)) in ("28000", "0A000")
    assert greeting((b"options", option), mode=Mode.OBSERVE).parameters


@pytest.mark.parametrize("switch", [b"-F", b"-S1", b"-Ecrole=x", b"-d5", b"-B 16", b"-W 30", b"-", b"--", b"x", b"-c"])
def test_other_switches_are_refused_and_observed(switch: bytes) -> None:
    assert refused((b"options", switch)) == "0A000"
    assert greeting((b"options", switch), mode=Mode.OBSERVE).parameters == [(b"options", switch)]


@pytest.mark.parametrize(
    "pairs",
    [
        [(b"role", b"agent"), (b"role", b"postgres")],
        [(b"Role", b"postgres")],
        [(b"User", b"postgres")],
        [(b"role ", b"postgres")],
        [(b"ro\xffle", b"postgres")],
        [(b"work_mem\n", b"1")],
        [(b"search_path", b"\xff")],
        [(b"x; drop table t; --", b"1")],
        [(b"client_encoding", b"sjis")],
        [(b"client_encoding", b"UTF8"), (b"Client_Encoding", b"B.I.G-5")],
        [(b"database", b"\xff")],
        [(b"user", b"\xff")],
    ],
)
def test_what_is_not_plain_is_refused(pairs: Pairs) -> None:
    assert refused(*pairs) in ("28000", "0A000", "22021")
    observed = greeting(*pairs, mode=Mode.OBSERVE)
    sent = {(b"user", observed.raw_user), (b"database", observed.raw_database), *observed.parameters}
    assert set(pairs) <= sent


@pytest.mark.parametrize(
    "pairs",
    [
        [(b"application_name", b"C:\\Programme\\agent.exe")],
        [(b"application_name", b"caf\xe9")],
        [(b"search_path", b'"it\'s", public')],
        [(b"DateStyle", b"ISO"), (b"TimeZone", b"Europe/Berlin"), (b"extra_float_digits", b"2")],
        [(b"options", b"-c statement_timeout=5min --search-path=a\\ b\\\\c -cjit=off")],
        [(b"client_encoding", b"latin-1")],
    ],
)
def test_ordinary_settings_pass_as_they_are(pairs: Pairs) -> None:
    kept = greeting(*pairs).parameters
    assert kept == pairs or kept == [
        (b"options", b"-c statement_timeout=5min -c search_path=a\\ b\\\\c -c jit=off"),
    ]


def test_the_last_of_two_counts() -> None:
    said = greeting((b"user", b"first"), (b"database", b"one"), (b"user", b"last"), (b"database", b"two"))
    assert (said.user, said.raw_user, said.database) == ("last", b"last", "two")
    said = greeting((b"options", b"-c role=postgres"), (b"options", b"-c jit=off"))
    assert said.parameters == [(b"options", b"-c jit=off")]
    # `options` come before the packet's own settings, wherever they stand.
    said = greeting((b"pgproxy.reason", b"packet"), (b"options", b"-c pgproxy.reason=option -c pgproxy.ticket=T"))
    assert said.said == {"reason": "packet", "ticket": "T"}


def test_an_empty_user_is_nobody_and_an_empty_database_is_the_users() -> None:
    with pytest.raises(ProtocolViolation) as caught:
        greeting((b"user", b""))
    assert caught.value.sqlstate == "28000"
    assert greeting((b"database", b"")).database == "agent"


def test_names_are_cut_as_the_server_cuts_them() -> None:
    said = greeting((b"user", b"u" * 63 + b"x"), (b"database", b"d" * 70))
    assert (said.user, said.database) == ("u" * 63, "d" * 63)
    assert said.raw_user == b"u" * 63 + b"x"


@pytest.mark.parametrize("encoding", ["SJIS", "BIG5", "GBK", "UHC", "GB18030", "JOHAB", "SHIFT_JIS_2004"])
def test_an_encoding_that_hides_quotes_is_refused_wherever_it_comes_from(encoding: str) -> None:
    settings = Settings("shop")
    settings.reported("client_encoding", encoding)  # ALTER ROLE … SET client_encoding
    with pytest.raises(FeatureNotSupported):
        check_encoding(settings, Mode.ENFORCE)
    check_encoding(settings, Mode.OBSERVE)
    assert refused((b"client_encoding", encoding.encode())) == "0A000"
    assert refused((b"options", b"-c client_encoding=" + encoding.encode())) == "0A000"


def test_waiting_or_returning() -> None:
    assert greeting().wait
    assert greeting((b"pgproxy.wait", b"park")).wait
    said = greeting((b"options", b"-c pgproxy.wait=return"))
    assert not said.wait and said.parameters == []
    assert refused((b"pgproxy.wait", b"perhaps")) == "22023"
