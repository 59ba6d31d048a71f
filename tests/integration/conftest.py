"""One running system for the scenarios that do not break it, and a fresh one for those that do."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.system import System, running


@pytest.fixture(scope="session")
def system() -> Iterator[System]:
    # Not pytest's tmp_path: an embedded server run by root's helper user could not reach it.
    directory = Path(tempfile.mkdtemp(prefix="pgproxy-up-"))
    with running(directory / "data") as started:
        yield started
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def fresh_system(short_directory: Path) -> Iterator[System]:
    with running(short_directory / "data") as started:
        yield started
