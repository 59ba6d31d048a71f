"""A reviewer's statement before the real classifier and the policy in force."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from pgproxy.analysis.pool import AnalyserPool
from pgproxy.app.judging import ApiClassifier, ApiJudge
from pgproxy.catalog import Catalogs
from pgproxy.dsn import Dsn
from pgproxy.policy import BUILT_IN_VERSION, Policy, decide
from tests.approvals.conftest import REQUEST

APPROVAL: dict[str, Any] = {"requester": REQUEST.requester, "context": {"in_transaction": True}}


@pytest.fixture
async def pool() -> AsyncIterator[AnalyserPool]:
    pool = AnalyserPool(processes=1)
    await pool.start()
    yield pool
    await pool.close()


@pytest.fixture
def judge(pool: AnalyserPool) -> ApiJudge:
    return ApiJudge(ApiClassifier(pool, None), Policy)


@pytest.mark.parametrize(
    ("sql", "decision", "classes"),
    [
        ("COPY (SELECT id FROM customers LIMIT 10) TO STDOUT", "approve", {"export"}),
        ("SELECT count(*) FROM customers", "allow", {"read"}),
        ("SELECT count(*) FROM customers;", "allow", {"read"}),
        ("DROP TABLE customers", "approve", {"ddl"}),
        ("SELECT theirs(1)", "approve", {"unknown"}),
    ],
)
async def test_what_policy_says(judge: ApiJudge, sql: str, decision: str, classes: set[str]) -> None:
    verdict = await judge.judge(sql, APPROVAL)
    found = {a["class"] for s in verdict.classification["statements"] for a in s["actions"]}
    assert (verdict.decision, verdict.policy_version) == (decision, BUILT_IN_VERSION)
    assert classes <= found
    assert bool(verdict.requirements) == (decision == "approve")


async def test_an_agent_without_an_owner_is_denied(judge: ApiJudge) -> None:
    nobodys = APPROVAL | {"requester": REQUEST.requester | {"owner": None}}
    verdict = await judge.judge("DROP TABLE t", nobodys)
    assert (verdict.decision, "owner" in (verdict.message or "")) == ("deny", True)


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "-- nothing",
        "SELEC 1",
        "SELECT 1; SELECT 2",
        "EXECUTE p(1)",
        "PREPARE p AS SELECT 1",
        "DEALLOCATE p",
        "SELECT 'x",
    ],
)
async def test_what_is_not_one_statement_that_means_what_it_says(judge: ApiJudge, sql: str) -> None:
    with pytest.raises(ValueError, match="statement"):
        await judge.judge(sql, APPROVAL)


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("10.0.0.7:51234", "10.0.0.7"),
        ("[::1]:51234", "::1"),
        ("10.0.0.7", "10.0.0.7"),
        ("local", "local"),
        (None, "local"),
    ],
)
async def test_policy_is_asked_about_the_requester_and_the_circumstances(
    judge: ApiJudge, monkeypatch: pytest.MonkeyPatch, address: str | None, host: str
) -> None:
    asked: list[Any] = []

    def listening(*arguments: Any) -> Any:
        asked.append(arguments)
        return decide(*arguments)

    monkeypatch.setattr("pgproxy.policy.decide", listening)
    await judge.judge("SELECT 1", APPROVAL | {"requester": REQUEST.requester | {"client_addr": address}})
    [(_, identity, policy, facts)] = asked
    assert (identity.agent, identity.owner, identity.db_user, identity.database, identity.client_addr) == (
        *("etl-bot", "alice@example.com", "app", "shop"),
        host,
    )
    assert policy == Policy()
    assert (facts.reason, facts.ticket, facts.application_name, facts.in_transaction) == (
        *("monthly export", "OPS-12", "psql"),
        True,
    )
    assert facts.now > 1_700_000_000


async def test_without_an_observer_a_database_cannot_be_asked_for(pool: AnalyserPool) -> None:
    with pytest.raises(ValueError, match="observer"):
        await ApiClassifier(pool, None).classify("SELECT 1", "shop")
    assert (await ApiClassifier(pool, None).classify("SELECT 1"))["privileged"] is False


async def test_a_database_that_cannot_be_read_is_said_so_and_forgotten(pool: AnalyserPool) -> None:
    catalogs = Catalogs(Dsn.parse("postgresql://127.0.0.1:1"), "observer", None, pool.set_catalog)
    await catalogs.start()
    try:
        with pytest.raises(ValueError, match="could not be read"):
            await ApiClassifier(pool, catalogs).classify("SELECT theirs(1)", "made up")
        assert catalogs.problems() == []
    finally:
        await catalogs.close()
