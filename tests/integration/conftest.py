"""One running system for the scenarios that do not break it, and a fresh one for those that do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.system import System, running


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running(tmp_path_factory.mktemp("up") / "data") as started:
        yield started


@pytest.fixture
def fresh_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running(tmp_path_factory.mktemp("up") / "data") as started:
        yield started
