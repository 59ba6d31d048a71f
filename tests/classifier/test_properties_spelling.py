"""However a dangerous name, a keyword or a condition is spelled and wrapped, its effect is seen."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from classifier import classify
from tests.bypass.corpus import must_not_park, must_park

FUNCTIONS = {
    "pg_read_file": "file",
    "lo_export": "file",
    "query_to_xml": "export",
    "pg_notify": "export",
    "lo_get": "export",
    "pg_terminate_backend": "maintenance",
    "pg_create_logical_replication_slot": "replication",
    "dblink_exec": "code",
    "ts_stat": "code",
    "lo_unlink": "bulk_write",
}
GAP = st.sampled_from(["", " ", "\n", "\t\r\n", "\f", "\v", "/**/", "/* ' */", '-- "\n', "/* /* $$ */ ; */", "--;\n\n"])
SPACE = st.sampled_from([" ", "\n", "\t", "/**/", "/* x */", "--\n", " /* ' */ ", "\f\n"])


def unicode_name(name: str, chosen: set[int], sign: str, long: bool) -> str:
    """`U&"…"`, some characters as escapes."""
    escaped = "".join(
        (f"{sign}+{ord(c):06x}" if long else f"{sign}{ord(c):04x}") if i in chosen else c for i, c in enumerate(name)
    )
    return f'U&"{escaped}"' + (f" UESCAPE '{sign}'" if sign != "\\" else "")


@st.composite
def names(draw: st.DrawFn, name: str) -> str:
    """A name as a client may write it."""
    form = draw(st.sampled_from(["case", "quoted", "unicode"]))
    if form == "quoted":
        return f'"{name}"'
    if form == "unicode":
        chosen = draw(st.sets(st.integers(0, len(name) - 1)))
        return unicode_name(name, chosen, draw(st.sampled_from(["\\", "!", "#"])), draw(st.booleans()))
    return "".join(c.upper() if draw(st.booleans()) else c for c in name)


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, str]:
    """A call of a dangerous function and the class it must have."""
    name = draw(st.sampled_from(sorted(FUNCTIONS)))
    schema = draw(st.sampled_from(["", "pg_catalog", "public"]))
    prefix = f"{draw(names(schema))}{draw(GAP)}.{draw(GAP)}" if schema else ""
    return f"{prefix}{draw(names(name))}{draw(GAP)}({draw(GAP)}'x'{draw(GAP)},{draw(GAP)}'y')", FUNCTIONS[name]


WRAPPERS: list[Callable[[str], str]] = [
    lambda e: f"coalesce({e}, NULL)",
    lambda e: f"(SELECT {e})",
    lambda e: f"ARRAY[{e}]",
    lambda e: f"ROW({e}, 1)",
    lambda e: f"CASE WHEN true THEN {e} END",
    lambda e: f"({e})::text",
    lambda e: f"CAST({e} AS text)",
    lambda e: f"NOT EXISTS (SELECT 1 FROM t WHERE {e} IS NULL)",
    lambda e: f"({e} IS NOT NULL)",
    lambda e: f"(SELECT x FROM (VALUES ({e})) AS v(x))",
    lambda e: f"(WITH c AS (SELECT {e} AS x) SELECT x FROM c)",
    lambda e: f"count(*) FILTER (WHERE {e} IS NULL)",
    lambda e: f"json_build_object('k', {e})",
    lambda e: f"JSON_OBJECT('k': {e})",
    lambda e: f"xmlelement(name a, {e})",
    lambda e: f"ARRAY(SELECT {e} UNION ALL SELECT NULL)",
    lambda e: f"(SELECT first_value({e}) OVER (ORDER BY {e}))",
    lambda e: f"greatest(nullif({e}, ''), 'a')",
    lambda e: f"1 = ANY (SELECT 1 WHERE {e} IS NULL)",
]
STATEMENTS: list[Callable[[str], str]] = [
    lambda e: f"SELECT {e}",
    lambda e: f"SELECT 1 FROM t ORDER BY {e}",
    lambda e: f"SELECT 1 LIMIT (SELECT count({e}))",
    lambda e: f"VALUES (1), ({e})",
    lambda e: f"INSERT INTO t VALUES ({e})",
    lambda e: f"INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET a = {e} WHERE t.a = 1",
    lambda e: f"UPDATE t SET a = {e} WHERE id = 1",
    lambda e: f"DELETE FROM t WHERE id = 1 RETURNING {e}",
    lambda e: f"MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN UPDATE SET a = {e}",
    lambda e: f"WITH c AS MATERIALIZED (SELECT {e} AS x) SELECT 1",
    lambda e: f"WITH c AS (INSERT INTO t VALUES ({e}) RETURNING 1) SELECT * FROM c",
    lambda e: f"DECLARE k NO SCROLL CURSOR WITH HOLD FOR SELECT {e}",
    lambda e: f"PREPARE k AS SELECT {e}",
    lambda e: f"EXPLAIN (FORMAT json, ANALYZE) SELECT {e}",
    lambda e: f"EXPLAIN SELECT {e}",
    lambda e: f"EXECUTE k({e})",
    lambda e: f"SELECT 1; SELECT {e}; SELECT 2",
    lambda e: f"BEGIN; PREPARE k AS SELECT {e}; EXECUTE k; COMMIT",
]


@settings(max_examples=400, deadline=None)
@given(calls(), st.lists(st.sampled_from(WRAPPERS), max_size=5), st.sampled_from(STATEMENTS))
def test_a_dangerous_call_is_seen_however_it_is_spelled_and_wrapped(
    call: tuple[str, str], wrappers: list[Callable[[str], str]], statement: Callable[[str], str]
) -> None:
    expression, cls = call
    for wrap in wrappers:
        expression = wrap(expression)
    text = statement(expression)
    found = classify(text)
    assert found.syntax_error is None, text
    assert found.privileged, text
    assert cls in found.classes, text


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(WRAPPERS), max_size=5), st.sampled_from(STATEMENTS))
def test_a_harmless_call_in_the_same_places_is_not_stopped(
    wrappers: list[Callable[[str], str]], statement: Callable[[str], str]
) -> None:
    # else the test above would prove only that everything is stopped
    expression = "lower('x')"
    for wrap in wrappers:
        expression = wrap(expression)
    text = statement(expression)
    assert not classify(text).privileged, text


ROLES = st.sampled_from(["x", "NONE", "'x'", '"x"'])


@st.composite
def role_changes(draw: st.DrawFn) -> str:
    """Becoming somebody else."""
    space = lambda: draw(SPACE)  # noqa: E731
    word = lambda w: "".join(c.upper() if draw(st.booleans()) else c for c in w)  # noqa: E731
    setting = draw(st.sampled_from(["role", "session_authorization"]))
    form = draw(st.integers(0, 4))
    if form == 0:
        scope = draw(st.sampled_from(["", "session", "local"]))
        scope = f"{word(scope)}{space()}" if scope else ""
        sign = draw(st.sampled_from(["=", "TO"]))
        return f"{word('set')}{space()}{scope}{draw(names(setting))}{space()}{sign}{space()}'x'"
    if form == 1:
        return f"{word('set')}{space()}{word('role')}{space()}{draw(ROLES)}"
    if form == 2:
        return f"{word('set')}{space()}{word('session')}{space()}{word('authorization')}{space()}x"
    if form == 3:
        return f"{word('reset')}{space()}{draw(names(setting))}"
    quoted = draw(
        st.sampled_from([f"'{setting}'", f"E'{setting}'", f"$x${setting}$x$", f"U&'{setting}'", f"'{setting.upper()}'"])
    )
    cast = draw(st.sampled_from(["", "::text", "::pg_catalog.text"]))
    return f"{word('select')}{space()}{draw(names('set_config'))}({draw(GAP)}{quoted}{cast},{draw(GAP)}'x', false)"


@settings(max_examples=300, deadline=None)
@given(role_changes())
def test_a_change_of_role_is_seen_however_it_is_spelled(text: str) -> None:
    found = classify(text)
    assert found.syntax_error is None, text
    assert "role" in found.classes or "unknown" in found.classes, text


ALWAYS = st.sampled_from(
    [
        *("true", "1 = 1", "id = id", "t.id = id", "NOT false", "'a' <> 'b'", "name LIKE '%'", "ctid IS NOT NULL"),
        *("EXISTS (SELECT 1 FROM u)", "id IN (SELECT id FROM t)", "id IS NULL OR id IS NOT NULL", "id < 5 OR id >= 5"),
        *("now() > '2000-01-01'", "$1", "coalesce(a, 1) = coalesce(a, 1)", "(SELECT true)", "a OR NOT a"),
    ]
)
SOMETIMES = st.sampled_from(["id = 1", "name = 'x'", "a IN (1, 2)", "b IS NULL", "id = ANY ($1)", "false"])


@st.composite
def unrestricting(draw: st.DrawFn, depth: int = 3) -> str:
    if depth == 0:
        return draw(ALWAYS)
    match draw(st.integers(0, 4)):
        case 0:
            return f"({draw(unrestricting(depth - 1))} OR {draw(SOMETIMES)})"
        case 1:
            return f"({draw(SOMETIMES)} OR {draw(unrestricting(depth - 1))})"
        case 2:
            return f"({draw(unrestricting(depth - 1))} AND ({draw(unrestricting(depth - 1))}))"
        case 3:
            return f"NOT (NOT ({draw(unrestricting(depth - 1))}))"
        case _:
            return f"({draw(unrestricting(depth - 1))})"


@settings(max_examples=300, deadline=None)
@given(unrestricting(), st.sampled_from(["DELETE FROM t WHERE {}", "UPDATE t SET a = 1 WHERE {} RETURNING *"]))
def test_a_condition_every_row_meets_is_seen_through_and_or_not(condition: str, statement: str) -> None:
    text = statement.format(condition)
    found = classify(text)
    assert found.syntax_error is None, text
    assert "bulk_write" in found.classes, text


@settings(max_examples=200, deadline=None)
@given(unrestricting(2), SOMETIMES)
def test_a_condition_that_asks_something_too_restricts(condition: str, asked: str) -> None:
    assert "bulk_write" not in classify(f"DELETE FROM t WHERE ({condition}) AND {asked}").classes


PARSED = [(set(classes), sql) for classes, _, sql in must_park() if classify(sql).syntax_error is None]
PLAIN = [entry for entry in PARSED if not any(sign in entry[1] for sign in "'\"$-/\\&;:<>=!~@#%^|*+.")]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PLAIN), st.data())
def test_white_space_and_comments_between_words_change_nothing(
    entry: tuple[set[str], str], data: st.DataObject
) -> None:
    classes, sql = entry
    words = sql.split()
    text = words[0] + "".join(f"{data.draw(SPACE)}{word}" for word in words[1:])
    assert classes <= set(classify(text).classes), text


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PARSED), st.lists(st.sampled_from(must_not_park()), max_size=6), st.integers(0, 6))
def test_it_is_found_among_many_statements(
    entry: tuple[set[str], str], others: list[tuple[str, str]], position: int
) -> None:
    classes, sql = entry
    texts = [other.rstrip().rstrip(";") for _, other in others if len(other) < 2000]
    texts.insert(position, sql)
    assert classes <= set(classify("\n;\n".join(texts)).classes)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PARSED), st.integers(0, 400), st.text(max_size=3))
def test_a_damaged_statement_raises_nothing(entry: tuple[set[str], str], position: int, inserted: str) -> None:
    sql = entry[1]
    cut = min(position, len(sql))
    for text in (sql[:cut], sql[cut:], sql[:cut] + inserted + sql[cut:]):
        found = classify(text)
        assert found.privileged or not found.syntax_error
