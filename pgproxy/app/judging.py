"""Statements that people write: classified for whoever asks, judged by policy where one is to replace an agent's.

The control process has analysers and, with an observer, catalogs of its own, so that a function means here what it
means to a session. What it cannot know of a session (its search_path, what its open transaction has changed) counts
against the statement.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import approvals.model
from approvals.ports import Verdict
from classifier.model import Classification, Environment
from pgproxy import policy
from pgproxy.analysis.pool import AnalyserPool
from pgproxy.catalog import Catalogs
from pgproxy.catalog.analyzer import CatalogAnalyzer
from pgproxy.policy import Deny, Facts, Forward, Identity, Policy


class ApiClassifier:
    """`approvals.ports.Classifier` over an analyser pool, and catalogs where there are any."""

    def __init__(self, pool: AnalyserPool, catalogs: Catalogs | None) -> None:
        self._pool = pool
        self._catalogs = catalogs

    async def classify(self, sql: str, database: str | None = None) -> dict[str, Any]:
        if database is None:
            return (await self.classification(sql, Environment())).to_dict()
        if self._catalogs is None:
            raise ValueError("no catalog: upstream.observer is not set")
        state = self._catalogs.state(database)
        if not state.version or not await self._catalogs.wait(database):
            # A name that somebody made up must not be looked for ever after.
            await self._catalogs.forget(database)
            raise ValueError("the catalog of this database could not be read")
        environment = Environment(database=database, catalog_version=state.version, catalog_changed=state.is_stale)
        return (await self.classification(sql, environment)).to_dict()

    def environment(self, database: str) -> Environment:
        """Of a statement in a session that is not at hand."""
        if self._catalogs is None:
            return Environment(database=database, search_path=None)
        state = self._catalogs.state(database)
        return Environment(
            database=database, search_path=None, catalog_version=state.version, catalog_changed=state.is_stale
        )

    async def classification(self, sql: str, environment: Environment) -> Classification:
        analyzer = self._pool if self._catalogs is None else CatalogAnalyzer(self._pool, self._catalogs)
        known = analyzer.lookup(sql, environment)
        return known if known is not None else await analyzer.analyze(sql, environment)


class ApiJudge:
    """`approvals.ports.PolicyJudge`: the policy in force, asked as the session asks it."""

    def __init__(self, classifier: ApiClassifier, policy: Callable[[], Policy]) -> None:
        self._classifier = classifier
        self._policy = policy

    async def judge(self, sql: str, approval: dict[str, Any]) -> Verdict:
        requester = approval["requester"]
        environment = self._classifier.environment(str(requester["database"]))
        classification = await self._classifier.classification(sql, environment)
        _check(classification)
        in_force = self._policy()
        decision = policy.decide(classification, _identity(requester), in_force, _facts(approval))
        verdict = Verdict(
            "allow",
            classification.to_dict(),
            str(classification.risk),
            decision.rule,
            policy_version=in_force.version,
        )
        match decision:
            case Forward():
                return verdict
            case Deny():
                return replace(verdict, decision="deny", message=decision.message or decision.reason)
        requirements = [approvals.model.Requirement(r.rule, tuple(r.groups), r.count) for r in decision.requirements]
        return replace(
            verdict,
            decision="approve",
            requirements=requirements,
            channels=decision.channels,
            message=decision.message,
        )


def _check(classification: Classification) -> None:
    """What a private statement of the extended protocol can hold, and can be judged without its session.

    Raises:
        ValueError
    """
    if classification.syntax_error is not None:
        raise ValueError(f"not a statement: {classification.syntax_error}")
    if len(classification.statements) != 1:
        raise ValueError(f"one statement is approved, not {len(classification.statements)}")
    statement = classification.statements[0]
    if statement.executes or statement.prepares is not None or statement.deallocates is not None:
        raise ValueError("write out what is to run: a prepared statement means what its session says")


def _identity(requester: dict[str, Any]) -> Identity:
    return Identity(
        agent=str(requester["agent"]),
        owner=requester["owner"],
        db_user=str(requester["db_user"]),
        database=str(requester["database"]),
        client_addr=_host(requester["client_addr"]),
    )


def _host(address: str | None) -> str:
    """Without the port."""
    if not address:
        return "local"
    host, separator, port = address.rpartition(":")
    return host.strip("[]") if separator and port.isdigit() else address


def _facts(approval: dict[str, Any]) -> Facts:
    requester, context = approval["requester"], approval["context"] or {}
    return Facts(
        now=time.time(),
        application_name=requester["application_name"] or "",
        reason=requester["reason"],
        ticket=requester["ticket"],
        context=requester["context"],
        in_transaction=bool(context.get("in_transaction")),
    )
