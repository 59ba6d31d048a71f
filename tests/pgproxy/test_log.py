"""Log lines: one event a line, whatever a client calls itself."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pytest

from pgproxy import log


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    quiet = {name: logging.getLogger(name).level for name in log.QUIET}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in quiet.items():
        logging.getLogger(name).setLevel(before)


def test_line_has_utc_time_process_and_logger(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("worker-3", "info")
    logging.getLogger("pgproxy.net").info("session=%s opened", "s1")
    logging.getLogger("pgproxy.net").debug("not shown")
    line = capsys.readouterr().err
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO worker-3 pgproxy\.net session=s1 opened\n", line)


def test_client_cannot_forge_a_line_or_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("worker-0")
    logging.getLogger("pgproxy.net").warning("name=%s", "x\n2026 ERROR forged\x1b[2J\u2028\x85")
    out = capsys.readouterr().err
    assert out.count("\n") == 1
    assert "x\\x0a2026 ERROR forged\\x1b[2J\\x2028\\x85" in out


def test_traceback_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("control")
    try:
        raise ValueError("a bug")
    except ValueError:
        logging.getLogger("pgproxy").exception("failed")
    assert "\nValueError: a bug\n" in capsys.readouterr().err


def test_libraries_that_log_what_they_send_are_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("control", "debug")
    for name in log.QUIET:
        logging.getLogger(name).info("GET /v1/approvals?secret")
    assert capsys.readouterr().err == ""
