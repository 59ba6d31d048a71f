"""Every session test may bring rules of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pgproxy.session.rules import ruled


@pytest.fixture(autouse=True, scope="session")
def rules() -> Iterator[None]:
    with ruled():
        yield
