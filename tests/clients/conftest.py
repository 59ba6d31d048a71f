"""The system the clients are tried on; shared with the integration tests."""

from __future__ import annotations

from tests.integration.conftest import system

__all__ = ["system"]
