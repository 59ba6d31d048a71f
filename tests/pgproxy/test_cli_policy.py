"""`pgproxy policy` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.pgproxy.test_cli import run
from tests.pgproxy.test_policyreplay import entry

POLICY = """\
version: 1
name: shop
rules:
  - {name: hr, match: {relations: [hr.*]}, decision: deny, message: not yours}
  - {name: temp, match: {verbs: ["temp_*"]}, decision: allow}
  - {name: big, match: {classes: [read]}, when: request.rows_estimate > 1000, decision: approve, timeout: 5m,
     approvers: {groups: [dba], count: 2}}
tags: {pii: [public.customers.email]}
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def test_check_says_what_is_in_it(policy: Path) -> None:
    done = run("policy", "check", policy)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines()[0] == f"{policy}: 3 rules (1 allow, 1 approve, 1 deny), 1 tags"
    found = json.loads(run("policy", "check", "--json", policy).stdout)
    assert (found["rules"], found["tags"]) == (["hr", "temp", "big"], ["pii"])
    assert found["version"].startswith("shop ")


def test_check_names_file_line_key_and_reason(policy: Path) -> None:
    policy.write_text(POLICY.replace("decision: deny", "decision: denied").replace("rows_estimate", "rows"))
    done = run("policy", "check", policy)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().splitlines() == [
        f"pgproxy: {policy}:4: rules[0].decision: 'denied' is none of them; did you mean 'deny'?",
        f"pgproxy: {policy}:6: rules[2].when: at character 9: there is no fact 'rows'; known here: agent, owner, "
        "db_user, database, client_addr, application_name, reason, ticket, context, classes, verbs, kinds, relations, "
        "reaches, columns, functions, tags, risk, privileged, statement_count, rows_estimate, in_transaction, hour, "
        "weekday",
    ]


def test_check_of_no_file() -> None:
    done = run("policy", "check", "/nonexistent/policy.yaml")
    assert done.returncode == 2
    assert done.stderr == b"pgproxy: /nonexistent/policy.yaml: cannot be read: No such file or directory\n"


def test_explain_tells_the_rule_and_why(policy: Path) -> None:
    text = run("policy", "explain", policy, "SELECT id FROM hr.salaries").stdout.decode()
    assert text.startswith("deny by hr: a rule denies it\n") and "  hr: deny\n" in text
    text = run("policy", "explain", policy, "SELECT email FROM public.customers").stdout.decode()
    assert text.startswith("approve by big\n")
    assert "big: may not be met (when), so it asks as well" in text and "[pii]" in text
    assert "  2 of dba (big), within 300 s\n" in text
    text = run("policy", "explain", policy, "SELECT 1", "--rows-estimate", "5").stdout.decode()
    assert text.startswith("allow by built-in\n") and "up to 10000 rows a portal (built-in)" in text
    assert "big: is not met (when)" in text
    found = json.loads(run("policy", "explain", policy, "CREATE TEMP TABLE a ()", "--json", "--owner", "").stdout)
    assert (found["decision"]["decision"], found["decision"]["rule"]) == ("allow", "temp")


def test_explain_escapes_what_would_steer_the_terminal(policy: Path) -> None:
    out = run("policy", "explain", policy, 'DROP TABLE "a\x1b[2Jb"').stdout.decode()
    assert "\x1b" not in out and "\\x1b[2J" in out


ENTRIES = [
    entry("SELECT id FROM hr.a WHERE id = 1"),
    entry("SELECT id FROM hr.a WHERE id = 2"),
    entry("CREATE TEMP TABLE a ()", "approved", approval_id="x", time="2026-01-03T00:00:00.000000Z"),
    {"kind": "session_start", "time": "2026-01-02T12:00:00.000000Z"},
]


def test_replay_of_a_file(policy: Path, tmp_path: Path) -> None:
    trail = tmp_path / "audit.jsonl"
    trail.write_text("\n".join(json.dumps(item) for item in ENTRIES) + "\n")
    found = json.loads(run("policy", "replay", policy, "--file", trail, "--json").stdout)
    assert (found["statements"], found["changed"]) == (3, 3)
    assert [(c["before"], c["after"], c["rule"], c["count"]) for c in found["changes"]] == [
        ("allow", "deny", "hr", 2),
        ("approve", "allow", "temp", 1),
    ]
    text = run("policy", "replay", policy, "--file", trail, "--since", "2026-01-03T00:00:00Z").stdout.decode()
    assert text.splitlines() == [
        "1 statements, 1 would be decided otherwise",
        "",
        "approve → allow  1 times  by temp",
        "  bot: CREATE TEMP TABLE a ()",
    ]
    trail.write_text("{}\nnonsense\n")
    done = run("policy", "replay", policy, "--file", trail)
    assert (done.returncode, done.stderr) == (2, f"pgproxy: {trail}:2: is no audit entry\n".encode())


class Trail(BaseHTTPRequestHandler):
    """`GET /v1/audit`, a page of two entries at a time."""

    asked: list[dict[str, list[str]]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        self.asked.append(query)
        if self.headers["Authorization"] != "Bearer right":
            self.send_error(401)
            return
        start = int(query.get("cursor", ["0"])[0])
        more = str(start + 2) if start + 2 < len(ENTRIES) else None
        body = json.dumps({"items": ENTRIES[start : start + 2], "next": more}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Trail)
    thread = Thread(target=server.serve_forever)
    thread.start()
    Trail.asked.clear()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_replay_of_the_trail(policy: Path, api: str) -> None:
    since = ("--since", "2026-01-01T00:00:00Z")
    done = run("policy", "replay", policy, *since, "--agent", "bot", "--json", PGPROXY_API=api, PGPROXY_TOKEN="right")
    assert json.loads(done.stdout)["changed"] == 3
    assert [query.get("cursor") for query in Trail.asked] == [None, ["2"]]
    assert Trail.asked[0]["since"] == ["2026-01-01T00:00:00.000000Z"] and Trail.asked[0]["agent"] == ["bot"]
    done = run("policy", "replay", policy, *since, PGPROXY_API=api, PGPROXY_TOKEN="wrong")
    assert done.returncode == 1 and b"401" in done.stderr
    assert run("policy", "replay", policy, "--since", "24h").returncode == 2  # without a token
    assert run("policy", "replay", policy, PGPROXY_TOKEN="right").returncode == 2  # without since
    assert run("policy", "replay", policy, "--since", "noon", PGPROXY_TOKEN="right").returncode == 2
