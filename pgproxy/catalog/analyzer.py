"""Classification that waits for the catalog it is to judge by."""

from __future__ import annotations

from typing import Protocol

from classifier import unknown
from classifier.model import Classification, Environment
from pgproxy.catalog import Catalogs


class Pool(Protocol):
    def lookup(self, text: str, environment: Environment) -> Classification | None: ...
    async def analyze(self, text: str, environment: Environment) -> Classification: ...


class CatalogAnalyzer:
    """Implements `pgproxy.session.ports.Analyzer` before a pool that has been given `Catalogs`' snapshots."""

    def __init__(self, pool: Pool, catalogs: Catalogs) -> None:
        self._pool = pool
        self._catalogs = catalogs

    def lookup(self, text: str, environment: Environment) -> Classification | None:
        """What the caches know; their keys hold the catalog's version."""
        return self._pool.lookup(text, environment)

    async def analyze(self, text: str, environment: Environment) -> Classification:
        """As the pool's, once the catalog has been read."""
        if environment.catalog_version and not await self._catalogs.wait(environment.database):
            return unknown("the catalog of the database could not be read")
        return await self._pool.analyze(text, environment)
