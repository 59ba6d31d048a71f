"""The grammar's messages carry no secrets, and its deparse and normal form go beyond the protobuf reader's depth."""

from __future__ import annotations

import pytest

from classifier import grammar


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        ('syntax error at or near "selec"', 'syntax error at or near "selec"'),
        ('syntax error at or near ")"', 'syntax error at or near ")"'),
        ("syntax error at end of input", "syntax error at end of input"),
        ("syntax error at or near \"'hunter2'\"", "syntax error"),
        ('syntax error at or near "$x$hunter2$x$"', "syntax error"),
        ('unterminated quoted string at or near "\'hunter2 and all the rest"', "unterminated quoted string"),
    ],
)
def test_messages_name_at_most_one_word(message: str, kept: str) -> None:
    assert grammar.without_secrets(message) == kept


def test_a_rejection_is_postgresqls() -> None:
    with pytest.raises(grammar.Rejected, match='syntax error at or near "form"'):
        grammar.parse(b"select * form t")


def test_depth_beyond_the_protobuf_readers() -> None:
    text = ("select " + "||".join(["a"] * 150)).encode()
    assert len(grammar.parse(text)) == 1
    deparsed = grammar.deparse(text)
    assert deparsed is not None
    assert deparsed.count("||") == 149
    assert grammar.normalize(text) == text
    assert len(grammar.fingerprint(text)) == 16


def test_what_is_rejected_has_no_normal_form() -> None:
    assert grammar.normalize(b"selec 1") is None
    assert grammar.deparse(b"selec 1") is None
    assert grammar.fingerprint(b"selec 1") == ""
