"""The same tests run on both forms of the package (`PGPROXY_IMPL`); say which one this was."""

import pytest

import pgproxy.protocol


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"pgproxy.protocol: {pgproxy.protocol.implementation()}")
