"""The commands ask the API what they were asked, and print one entry a line."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from typer.testing import CliRunner

from pgproxy import records
from pgproxy.audit import terminal

Statement = Callable[..., records.Entry]


class Api:
    """An HTTP API that keeps what it was asked and answers what it was given, the last answer again and again."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.tokens: list[str | None] = []
        self.answers: list[tuple[int, Any]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = urlsplit(self.path)
                assert path.path == "/v1/audit"
                api.asked.append(dict(parse_qsl(path.query)))
                api.tokens.append(self.headers["Authorization"])
                status, content = api.answers.pop(0) if len(api.answers) > 1 else api.answers[0]
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(content).encode())

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, items: list[records.Entry], next: str | None = None) -> None:
        self.answers.append((200, {"items": items, "next": next}))


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    thread = threading.Thread(target=api.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield api
    api.server.shutdown()
    thread.join()
    api.server.server_close()


def run(api: Api, *arguments: str) -> tuple[int, list[str], str]:
    result = CliRunner().invoke(terminal.app, arguments, env={"PGPROXY_API": api.address, "PGPROXY_TOKEN": "t0k"})
    return result.exit_code, result.stdout.splitlines(), result.stderr


def numbered(statement: Statement, number: int, **changes: Any) -> records.Entry:
    entry = statement(number, at_s=number)
    return {**entry, "seq": number, "outcome": records.Outcome(rows=number).to_dict(), **changes}


def test_tail_prints_the_newest_last(api: Api, statement: Statement) -> None:
    api.answer([numbered(statement, 2), numbered(statement, 1)])
    status, lines, _ = run(api, "tail", "-n", "2")
    assert status == 0
    assert [line.rpartition("  ")[2] for line in lines] == ["select 1", "select 2"]
    assert api.asked == [{"limit": "2"}]
    assert api.tokens == ["Bearer t0k"]


def test_tail_reads_as_many_pages_as_it_takes(api: Api, statement: Statement) -> None:
    api.answer([numbered(statement, 3)], next="c1")
    api.answer([numbered(statement, 2)], next="c2")
    _, lines, _ = run(api, "tail", "-n", "2", "--json")
    assert [json.loads(line)["seq"] for line in lines] == [2, 3]
    assert api.asked[1] == {"limit": "1", "cursor": "c1"}


def test_search_passes_its_filters(api: Api, statement: Statement) -> None:
    api.answer([numbered(statement, 1)], next="c1")
    options = ["--since", "2026-01-01T00:00:00Z", "--agent", "bi", "--class", "export", "--decision", "denied"]
    status, lines, errors = run(api, "search", *options, "-q", "users", "--limit", "5")
    assert (status, len(lines)) == (0, 1)
    assert "--cursor c1" in errors
    assert api.asked == [
        {
            "since": "2026-01-01T00:00:00Z",
            "agent": "bi",
            "class": "export",
            "decision": "denied",
            "q": "users",
            "limit": "5",
        }
    ]


def test_search_as_json_is_the_page(api: Api, statement: Statement) -> None:
    api.answer([numbered(statement, 1)], next="c1")
    _, lines, _ = run(api, "search", "--json")
    assert json.loads(lines[0])["next"] == "c1"


def test_a_refusal_is_told_and_fails(api: Api) -> None:
    api.answers = [(422, {"detail": "class: one of \x1b"})]
    status, lines, errors = run(api, "search", "--class", "x")
    assert (status, lines) == (1, [])
    assert errors == "pgproxy audit: 422: class: one of ⟦U+001B⟧\n"


@pytest.mark.parametrize("command", ["tail", "search"])
def test_an_api_that_is_away_is_told_and_fails(api: Api, command: str) -> None:
    result = CliRunner().invoke(terminal.app, [command, "--api", "http://127.0.0.1:1", "--token", "t"])
    assert result.exit_code == 1
    assert result.stderr.startswith("pgproxy audit: ")


def follow(api: Api, monkeypatch: pytest.MonkeyPatch, polls: int, *arguments: str, step_s: float = 1.0) -> list[int]:
    """The numbers of the entries told until the given poll, on a clock that only polling moves."""
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += step_s
        if clock[0] > polls * step_s:
            raise KeyboardInterrupt

    monkeypatch.setattr("pgproxy.audit.terminal.sleep", sleep)
    monkeypatch.setattr("pgproxy.audit.terminal.monotonic", lambda: clock[0])
    status, lines, _ = run(api, "tail", "--follow", "--json", *arguments)
    assert status == 0
    return [json.loads(line)["seq"] for line in lines]


def test_follow_tells_each_entry_once(api: Api, statement: Statement, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = (numbered(statement, number) for number in (1, 2, 3))
    api.answer([two], next="older")
    api.answer([two, one])  # the look-back reaches before the beginning
    api.answer([three, two, one])
    assert follow(api, monkeypatch, 3, "-n", "1") == [2, 3]
    assert api.asked[1]["since"] == "2026-03-01T11:59:32.000000Z"


def test_follow_can_begin_with_nothing(api: Api, statement: Statement, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = (numbered(statement, number) for number in (1, 2, 3))
    api.answer([two], next="older")
    api.answer([three, two, one])
    assert follow(api, monkeypatch, 2, "-n", "0") == [3]


def test_follow_tells_entries_that_arrive_late(api: Api, statement: Statement, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = (numbered(statement, number) for number in (1, 2, 3))
    api.answer([one])
    api.answer([three, one])
    api.answer([three, two, one])
    assert follow(api, monkeypatch, 3) == [1, 3, 2]


def test_follow_waits_for_an_outcome_but_not_for_ever(
    api: Api, statement: Statement, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, denied = numbered(statement, 1, outcome=None), numbered(statement, 2, outcome=None, decision="denied")
    api.answer([denied, running])
    assert follow(api, monkeypatch, 4) == [2]
    api.answers.clear()
    api.answer([denied, running])
    assert follow(api, monkeypatch, 6) == [2, 1]
    api.answers.clear()
    api.answer([running])
    api.answer([numbered(statement, 1)])
    assert follow(api, monkeypatch, 2) == [1]
