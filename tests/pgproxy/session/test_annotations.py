from __future__ import annotations

import pytest

from pgproxy.session.annotations import said_by_comment, said_by_set


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SET pgproxy.reason = 'monthly report'", ("reason", "monthly report")),
        ("set session pgproxy.ticket to 'OPS-12';", ("ticket", "OPS-12")),
        ("set pgproxy.reason='it''s late'", ("reason", "it's late")),
        ("set pgproxy.notice = 'off'", None),
        ("set pgproxy.reason = 'a'; drop table t", None),
        ("select 'set pgproxy.reason = ''x'''", None),
    ],
)
def test_set_is_read_only_where_it_is_the_whole_text(text: str, said: tuple[str, str] | None) -> None:
    assert said_by_set(text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("select 1 /*ticket='OPS-12',traceparent='00-ab'*/", {"ticket": "OPS-12"}),
        ("select 1 /*reason='monthly%20report'*/;", {"reason": "monthly report"}),
        ("select 1 /*reason='it\\'s'*/", {"reason": "it's"}),
        ("select 1 /*ticket='OPS-12'*/ where true", {}),
        ("select 1 /* just a comment */", {}),
        ("select 1 /*ticket=OPS*/", {}),
        ("select 1", {}),
    ],
)
def test_a_trailing_sqlcommenter_comment_is_read(text: str, said: dict[str, str]) -> None:
    assert said_by_comment(text) == said


def test_a_comment_that_never_ends_costs_nothing_and_says_nothing() -> None:
    assert said_by_comment("select 1 " + "/*" * 100_000) == {}
