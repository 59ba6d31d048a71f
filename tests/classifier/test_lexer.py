"""The lexer against the manual's rules, the grammar, and a server."""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from classifier import grammar, lexer


def spans(text: str) -> list[str]:
    data = text.encode()
    return [data[s.start : s.end].decode().strip() for s in lexer.scan(data).spans]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" ;; ; ", []),
        ("select 1", ["select 1"]),
        ("select 1;select 2;", ["select 1", "select 2"]),
        ("select ';' ; select 2", ["select ';'", "select 2"]),
        ("select 'a'';' ; select 2", ["select 'a'';'", "select 2"]),
        (r"select 'a\' ; select 2", [r"select 'a\'", "select 2"]),
        (r"select E'a\';' ; select 2", [r"select E'a\';'", "select 2"]),
        ("select E'a'\n'\\';' ; select 2", ["select E'a'\n'\\';'", "select 2"]),
        ('select ";" ; select 2', ['select ";"', "select 2"]),
        ('select U&"a"";" ; select 2', ['select U&"a"";"', "select 2"]),
        ("select $$;$$ ; select 2", ["select $$;$$", "select 2"]),
        ("select $a$;$b$;$a$ ; select 2", ["select $a$;$b$;$a$", "select 2"]),
        ("select a$b$ ; select 2", ["select a$b$", "select 2"]),
        ("select /* ; /* ; */ ; */ 1 ; select 2", ["select /* ; /* ; */ ; */ 1", "select 2"]),
        ("select 1 -- ;\n ; select 2", ["select 1 -- ;", "select 2"]),
        (
            "create rule r as on insert to t do (select 1; select 2); select 3",
            ["create rule r as on insert to t do (select 1; select 2)", "select 3"],
        ),
        (
            "create function f() returns int begin atomic select 1; select 2; end; select 3",
            ["create function f() returns int begin atomic select 1; select 2; end", "select 3"],
        ),
    ],
)
def test_statements_end_where_the_server_ends_them(text: str, expected: list[str]) -> None:
    assert spans(text) == expected
    scan = lexer.scan(text.encode())
    assert [(s.start, s.end) for s in scan.spans] == [(p.start, p.end) for p in grammar.parse(scan.blanked)]


def test_tokens_need_no_space_between_them() -> None:
    # the grammar takes neither, but the scanner's rules are the same ones
    assert spans("select E'a' '\\' ; select 2") == ["select E'a' '\\'", "select 2"]
    assert spans("select $1$a$;$a$ ; select 2") == ["select $1$a$;$a$", "select 2"]


def test_comments_are_blanked_and_nothing_moves() -> None:
    text = b"select /* a; /* b */ */ 1 --c\n, E'--' \n--x\n '/*'"
    scan = lexer.scan(text)
    assert len(scan.blanked) == len(text)
    assert b"c" not in scan.blanked.replace(b"select", b"")
    assert scan.blanked.endswith(b"'/*'")
    assert b"E'--'" in scan.blanked


def test_operators_end_at_comments() -> None:
    assert lexer.scan(b"select 6//**/2").blanked == b"select 6/    2"
    assert lexer.scan(b"select 1+--x\n2").blanked == b"select 1+   \n2"


@pytest.mark.parametrize("text", ["'", "E'\\'", '"', "$$", "$a$ $b$", "/* /* */", "U&'", "B'0"])
def test_what_does_not_end_is_refused(text: str) -> None:
    with pytest.raises(lexer.LexicalError):
        lexer.scan(b"select " + text.encode())


@pytest.mark.parametrize(
    "text",
    [
        b"select 1\0",
        b"select " + b"+-" * 40 + b"1",
        b"(" * (lexer.MAX_NESTING + 1),
        b"/**/" * (lexer.MAX_COMMENTS + 1),
        b"select 1;" * (lexer.MAX_STATEMENTS + 1),
        b"x" * (lexer.MAX_BYTES + 1),
    ],
)
def test_limits_are_told(text: bytes) -> None:
    with pytest.raises(lexer.TooHostile):
        lexer.scan(text)


@pytest.mark.parametrize(
    "text",
    [
        b"select " + b"1+" * lexer.SMALL_OPERATORS + b"1+1",
        b"(" * (lexer.SMALL_NESTING + 1),
        b"/**/" * (lexer.SMALL_COMMENTS + 1),
        b"select " + b" " * lexer.SMALL_BYTES,
    ],
)
def test_what_costs_more_is_not_small(text: bytes) -> None:
    assert not lexer.scan(text).is_small


def test_ordinary_texts_are_small() -> None:
    assert lexer.scan(b"select a.b, 'x' from t join u using (id) where c in (1, 2, 3)").is_small


pieces = st.sampled_from(
    [
        *("'a'", "'it''s'", "E'\\''", "E'\\\\'", "U&'x'", "B'01'", "X'ff'", "N'n'", "$$q$$", "$t$a;$$b$t$"),
        *('"id"', 'U&"i""d"', "a$b$", "$1", "1", "1.5e3", ".5", "x", "é"),
        *(" ", "\n", "\t", "\r\n", "-- c;'\n", "/* ;' */", "/* /* */ */", "--", "/*", "*/", "'", '"', "$$", "\\"),
        *("+", "-", "*", "/", "||", "(", ")", "[", "]", ",", ";", "::int", "select", "begin", "end", "as"),
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(pieces, max_size=25).map("".join))
def test_lexer_and_grammar_never_disagree_about_what_the_grammar_accepts(text: str) -> None:
    try:
        scan = lexer.scan(text.encode())
    except (lexer.LexicalError, lexer.TooHostile):
        return
    try:
        theirs = grammar.parse(scan.blanked)
    except (grammar.Rejected, grammar.Unparsable):
        return
    assert [(s.start, s.end) for s in scan.spans] == [(p.start, p.end) for p in theirs]


values = st.sampled_from(
    [
        *("1", "'a'", "'it''s;'", "E'x\\';'", "E'a'\n'\\';'", "'a' --;'\n';'", "$$;$$", "$q$';$$;$q$", "U&'\\0061;'"),
        *("1/*;*/+/*/*;*/*/1", "1--;\n+2", "'\\;'", "B'1'", "N';'", "- -1", "+1", "6//**/2", "$x$ $x$", "E'\\\\;'"),
    ]
)
joints = st.sampled_from([";", " ; ", ";;", "; --;\n", "; /* ';' */ ", ";\n\n"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(values, joints), min_size=1, max_size=6))
def test_a_server_runs_as_many_statements_as_the_lexer_finds(server_dsn: str, parts: list[tuple[str, str]]) -> None:
    text = "".join(f"select {value}{joint}" for value, joint in parts)
    scan = lexer.scan(text.encode())
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.pgconn.send_query(text.encode())
        results = 0
        while (result := connection.pgconn.get_result()) is not None:
            assert result.status == psycopg.pq.ExecStatus.TUPLES_OK, (text, result.error_message)
            results += 1
    assert len(scan.spans) == results == len(parts)


def rows(count: int, row: bytes = b"(1, -2.5e3, 'it''s;', E'\\';', null, $3)") -> bytes:
    return b", ".join([row] * count)


def test_long_lists_of_constants_are_blanked_behind_their_first_rows() -> None:
    text = b"insert into t values " + rows(1_000) + b" returning f(a); select ';'"
    scan = lexer.scan(text)
    assert len(scan.blanked) == len(text)
    assert scan.blanked.count(b"(1,") == 100
    assert scan.blanked.endswith(b" returning f(a); select ';'")
    assert len(scan.spans) == 2
    assert [p.kind for p in grammar.parse(scan.blanked)] == ["InsertStmt", "SelectStmt"]
    # every string counts, also those of rows that are gone
    assert len(scan.strings) == 2_001
    assert list(scan.strings) == sorted(scan.strings)


@pytest.mark.parametrize(
    "text",
    [
        b"insert into t values " + b", ".join([b"(1, f(2), 'xxxxxxxxxxxx')"] * 1_000),
        b"insert into t values " + b", ".join([b"(1, default, 'xxxxxxxxxxxx')"] * 1_000),
        b"select s.values " + rows(1_000),
        b'insert into t "values" ' + rows(1_000),
        b"select a in " + rows(1_000),
        b"select f" + rows(1_000),
    ],
)
def test_nothing_else_is_blanked(text: bytes) -> None:
    assert lexer.scan(text).blanked == text


def test_what_follows_the_constants_stays() -> None:
    text = b"insert into t values " + rows(500) + b", (pg_read_file('x'), 1) , (1)"
    assert lexer.scan(text).blanked.endswith(b", (pg_read_file('x'), 1) , (1)")


@pytest.mark.parametrize(
    "text",
    [
        b"select U&'a'",
        b'select U&"a"',
        b"select 1_000",
        b"select 0x1F",
        b"select 1a",
        b"select 1..2",
        b"select 0000000001",
    ],
)
def test_what_is_not_certain_has_no_form(text: bytes) -> None:
    assert lexer.form(text) is None


def test_a_form_tells_the_types_of_constants() -> None:
    keys = {
        form.key
        for constant in (b"1", b"1.5", b"'a'", b"B'1'", b"X'1'", b"N'a'", b"9999999999", b"$1", b"null")
        if (form := lexer.form(b"select " + constant)) is not None
    }
    assert len(keys) == 8  # 1.5 and 9999999999 are one token to the grammar


def test_comments_never_join_two_strings() -> None:
    # the server sees two strings here and, but for DO, a syntax error; libpg_query would see one
    with pytest.raises(lexer.TooHostile):
        lexer.scan(b"do 'a' /* x */\n'b'")
    assert lexer.scan(b"do 'a' -- x\n'b'").strings == ((3, 15),)


def test_chains_are_counted_beside_parentheses_and_per_list_item() -> None:
    with pytest.raises(lexer.TooHostile, match="operators"):
        lexer.scan(b"select 1" + b"+f(1, 2)" * (lexer.MAX_CHAIN + 1))
    lexer.scan(b"select " + b"1+1, " * (lexer.MAX_CHAIN + 1) + b"1")


@settings(max_examples=300, deadline=None)
@given(st.binary())
def test_only_documented_errors(text: bytes) -> None:
    lexer.form(text)
    try:
        lexer.scan(text)
    except (lexer.LexicalError, lexer.TooHostile):
        assert lexer.form(text) is None
