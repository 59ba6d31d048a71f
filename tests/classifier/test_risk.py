"""How bad, and why: deterministic, by class and verb."""

from __future__ import annotations

import pytest

from classifier import UNPRIVILEGED, ActionClass, Risk, classify
from classifier.model import Action
from classifier.risk import _BY_CLASS, _BY_VERB, assess, decisive, is_privileged
from classifier.statements import ALSO, STATEMENTS


def actions(sql: str) -> list[Action]:
    return [action for statement in classify(sql).statements for action in statement.actions]


def test_every_class_has_a_level() -> None:
    assert set(_BY_CLASS) == set(ActionClass)


def test_only_unprivileged_classes_are_low_unless_a_verb_says_so() -> None:
    assert {cls for cls, risk in _BY_CLASS.items() if risk is Risk.LOW} < UNPRIVILEGED
    assert {verb for verb, risk in _BY_VERB.items() if risk is Risk.LOW} == {"comment"}


def test_levels_by_verb_are_of_verbs_that_exist() -> None:
    verbs = {meaning.verb for meaning in STATEMENTS.values()} | {verb for _, verb, _ in ALSO.values()}
    elsewhere = {
        *("control_server", "signal_backend", "disable_row_security", "read_secret", "write_system_catalog"),
        *("alter_policy", "drop_tablespace"),
    }
    assert set(_BY_VERB) <= verbs | elsewhere


@pytest.mark.parametrize(
    ("sql", "risk"),
    [
        ("SELECT 1", Risk.LOW),
        ("UPDATE t SET a = 1 WHERE id = 5", Risk.LOW),
        ("COPY t FROM STDIN", Risk.MEDIUM),
        ("CREATE TEMP TABLE x (a int)", Risk.LOW),
        ("COMMENT ON TABLE t IS 'x'", Risk.LOW),
        ("CREATE TABLE x (a int)", Risk.MEDIUM),
        ("DROP TABLE t", Risk.HIGH),
        ("DROP DATABASE shop", Risk.CRITICAL),
        ("DELETE FROM t", Risk.HIGH),
        ("COPY t TO STDOUT", Risk.HIGH),
        ("GRANT SELECT ON t TO x", Risk.HIGH),
        ("ALTER ROLE x RENAME TO y", Risk.CRITICAL),
        ("SELECT pg_read_file('x')", Risk.CRITICAL),
        ("TABLE pg_authid", Risk.CRITICAL),
        ("ALTER SYSTEM SET jit = off", Risk.CRITICAL),
        ("SELECT frobnicate()", Risk.HIGH),
        ("hello there", Risk.HIGH),
        ("SELECT 1; DROP TABLE t; SELECT 2", Risk.HIGH),
    ],
)
def test_level_of_a_statement(sql: str, risk: Risk) -> None:
    assert classify(sql).risk is risk


def test_the_sentences_are_those_of_the_worst_actions() -> None:
    assert decisive(actions("SELECT 1")) == ()
    found = decisive(actions("COPY customers TO '/tmp/x'"))
    assert found == ("customers: COPY … TO a file on the server",)
    both = decisive(actions("DELETE FROM a; TRUNCATE b; CREATE TABLE c (x int)"))
    assert both == ("a: deletes without a restricting WHERE", "b: removes every row")


def test_order_of_actions_does_not_matter() -> None:
    held = actions("CREATE TABLE c (x int); SELECT pg_read_file('x'); DELETE FROM a")
    assert assess(held) is assess(reversed(held)) is Risk.CRITICAL
    assert is_privileged(held)
    assert assess([]) is Risk.LOW
    assert not is_privileged([])
