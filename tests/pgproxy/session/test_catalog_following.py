"""What a session's own statements do to the catalog its texts are judged by."""

from __future__ import annotations

from pgproxy.protocol import backend, frontend, tags
from pgproxy.session import effects, events
from tests.pgproxy.session.playbook import (
    Playbook,
    answers,
    complete,
    error,
    ready,
    resolved,
    to_client,
    to_server,
)

DROP = frontend.query(b"DROP TABLE t")
BEGIN = frontend.query(b"BEGIN")
COMMIT = frontend.query(b"COMMIT")


def changes(play: Playbook) -> int:
    return sum(isinstance(e, effects.CatalogChanged) for e in play.aside)


def runs_ddl(play: Playbook, status: int = tags.IDLE) -> None:
    play.parks(DROP) >> resolved("approved") << effects.Record >> events.Recorded(True) << effects.ClaimApproval
    play >> events.ClaimAnswered(True) << to_server(DROP) >> answers(complete("DROP TABLE"), ready(status))


def test_completed_ddl_is_announced_before_the_client_hears_of_it() -> None:
    play = Playbook()
    runs_ddl(play)
    assert changes(play) == 1
    play << effects.FinishApproval << to_client(complete("DROP TABLE"), ready())
    assert not play.context.settings.environment.catalog_changed


def test_ddl_in_a_transaction_makes_its_catalog_unknown_until_the_end() -> None:
    play = Playbook()
    play.allowed(BEGIN) >> answers(complete("BEGIN"), ready(tags.IN_TRANSACTION)) << effects.ToClient
    runs_ddl(play, tags.IN_TRANSACTION)
    play << effects.FinishApproval << effects.ToClient
    assert changes(play) == 0
    assert play.context.settings.environment.catalog_changed
    play.allowed(COMMIT) >> answers(complete("COMMIT"), ready()) << effects.ToClient
    assert changes(play) == 1
    assert not play.context.settings.environment.catalog_changed


def test_a_refused_statement_changes_nothing() -> None:
    play = Playbook()
    play.parks(DROP) >> resolved("denied") << effects.Record >> events.Recorded(True) << effects.ToServer
    play >> answers(error("42601"), ready()) << effects.ToClient
    assert changes(play) == 0


def test_the_version_to_judge_by_is_asked_for_each_statement() -> None:
    play = Playbook()
    state = (1, False)
    play.context.settings.follow("app", lambda: state)
    first = play.context.settings.environment
    assert (first.catalog_version, first.catalog_changed, first.role) == (1, False, "app")
    assert play.context.settings.environment is first
    state = (2, True)
    second = play.context.settings.environment
    assert (second.catalog_version, second.catalog_changed) == (2, True)


def test_an_approval_outlives_somebody_elses_ddl() -> None:
    play = Playbook()
    version = 1
    play.context.settings.follow("app", lambda: (version, False))
    play.parks(DROP)
    version = 2
    play >> resolved("approved") << effects.Record >> events.Recorded(True) << effects.ClaimApproval
    claim = play.last
    assert isinstance(claim, effects.ClaimApproval)
    again = Playbook()
    again.context.settings.follow("app", lambda: (1, False))
    again.parks(DROP) >> resolved("approved") << effects.Record >> events.Recorded(True) << effects.ClaimApproval
    assert isinstance(again.last, effects.ClaimApproval)
    assert claim.binding == again.last.binding


def test_a_statement_sql_prepared_means_what_it_means_when_executed() -> None:
    play = Playbook()
    play >> answers(backend.parameter_status(b"search_path", b"public")) << effects.ToClient
    play.allowed(frontend.query(b"PREPARE x AS SELECT f")) >> answers(complete("PREPARE"), ready()) << effects.ToClient
    execute = frontend.query(b"EXECUTE x")
    play.allowed(execute) >> answers(complete("SELECT 1"), ready()) << effects.ToClient
    play.allowed(frontend.query(b"SET search_path TO other"))
    play >> answers(complete("SET"), backend.parameter_status(b"search_path", b"other"), ready()) << effects.ToClient
    play.parks(execute)
