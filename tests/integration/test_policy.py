"""A policy file in force: what it denies and allows, and a candidate over what was recorded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import yaml

from pgproxy.policyfile import load_policy
from tests.integration.system import System, clean_environment
from tests.integration.test_serve import TOKEN, serving

POLICY = """\
version: 1
name: shop
rules:
  - {name: temporary, match: {verbs: ["temp_*"]}, decision: allow}
  - {name: mails, match: {classes: [read], tags: [pii]}, decision: deny}
tags: {pii: [public.customers.email]}
"""


def test_a_policy_file_decides(short_directory: Path, system: System) -> None:
    (short_directory / "policy.yaml").write_text(POLICY)
    reviewer = {"name": "bob@example.com", "token": {"env": "BOB_TOKEN"}, "roles": ["reviewer", "auditor"]}
    with serving(short_directory, system, policy="policy.yaml", reviewers=[reviewer]) as (dsn, bob):
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("CREATE TEMP TABLE scratch (id int)")  # would park by default
            assert connection.execute("SELECT count(*) FROM customers").fetchone() is not None
            for sql in (
                "SELECT email FROM customers",
                "SELECT * FROM public.customers",
                "SELECT to_jsonb(c) FROM customers c",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="pgproxy: denied by policy") as caught:
                    connection.execute(sql)
                assert "rule: mails" in str(caught.value.diag.message_detail)
        found = {e["sql"]: e for e in bob.api.get("/v1/audit", params={"limit": 100}).json()["items"] if e["sql"]}
        _, rules = load_policy(short_directory / "policy.yaml")
        allowed, denied = found["CREATE TEMP TABLE scratch (id int)"], found["SELECT email FROM customers"]
        assert (allowed["decision"], allowed["rule"]) == ("allowed", "temporary")
        assert (denied["decision"], denied["rule"], denied["policy_version"]) == ("denied", "mails", rules.version)

        candidate = short_directory / "candidate.yaml"
        candidate.write_text(POLICY.replace("decision: deny", "decision: approve"))
        replay = subprocess.run(
            [sys.executable, "-m", "pgproxy", "policy", "replay", candidate, "--since", "1h", "--json"],
            env=clean_environment() | {"PGPROXY_API": str(bob.api.base_url), "PGPROXY_TOKEN": TOKEN},
            capture_output=True,
            check=True,
        )
        changes = json.loads(replay.stdout)["changes"]
        assert {(c["before"], c["after"], c["rule"]) for c in changes} == {("deny", "approve", "mails")}
        assert sum(c["count"] for c in changes) == 3


def test_a_live_session_is_judged_by_the_policy_of_now(short_directory: Path, system: System) -> None:
    policy = short_directory / "policy.yaml"
    policy.write_text(POLICY)
    reviewer = {"name": "bob@example.com", "token": {"env": "BOB_TOKEN"}, "roles": ["reviewer", "admin"]}
    with (
        serving(short_directory, system, policy="policy.yaml", reviewers=[reviewer]) as (dsn, bob),
        psycopg.connect(dsn, autocommit=True) as connection,
    ):
        orders = "SELECT count(*) FROM public.orders"
        assert connection.execute(orders).fetchone() is not None
        closed = "  - {name: closed, match: {relations: [public.orders]}, decision: deny, message: stocktaking}\n"
        policy.write_text(POLICY.replace("rules:\n", "rules:\n" + closed))
        answer = bob.api.post("/v1/reload").json()
        assert answer["reloaded"] and any(key.startswith("policy") for key in answer["changed"]), answer
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="denied by policy") as caught:
            connection.execute(orders)
        assert "stocktaking" in str(caught.value.diag.message_detail)
        policy.write_text(POLICY.replace("tags: [pii]", "tags: [pi]"))
        answer = bob.api.post("/v1/reload").json()
        assert not answer["reloaded"] and "there is no tag 'pi'" in answer["problems"][0], answer
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="denied by policy"):
            connection.execute(orders)
        policy.write_text(POLICY)
        assert bob.api.post("/v1/reload").json()["reloaded"]
        assert connection.execute(orders).fetchone() is not None


def test_a_policy_that_cannot_work_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY.replace("tags: [pii]", "tags: [pi]"))
    (tmp_path / "pgproxy.yaml").write_text(yaml.safe_dump({"policy": "policy.yaml"}))
    done = subprocess.run(
        [sys.executable, "-m", "pgproxy", "serve", "--config", tmp_path / "pgproxy.yaml"],
        env=clean_environment(),
        capture_output=True,
    )
    assert done.returncode == 2
    reason = "rules[1].match.tags[0]: there is no tag 'pi'; did you mean 'pii'?"
    assert done.stderr.decode() == f"pgproxy: {tmp_path}/policy.yaml:5: {reason}\n"
