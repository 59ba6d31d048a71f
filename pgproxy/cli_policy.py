"""`pgproxy policy …`: a policy file checked, explained and replayed, from a terminal.

Exit status: 0 done, 1 the trail could not be read, 2 a policy with problems (each one line: file, line, key, reason) or
wrong usage.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from classifier import Classification
from pgproxy.analysis.deep import run_deep
from pgproxy.cli_classify import Classifying, one, visible
from pgproxy.document import DocumentError, Problem
from pgproxy.policy import Facts, Identity, Policy, explain
from pgproxy.policyfile import load_policy
from pgproxy.policyreplay import Replay, is_statement

app = typer.Typer(
    name="policy", help="Policy files.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)

_PAGE = 500
_KEPT_TEXTS = 20_000
_EFFECTS = {"passed": "", "restricts": ", but its restrictions apply", "counts": ", so it asks as well"}
_AGO = re.compile(r"(\d+)(m|h|d)")
File = Annotated[Path, typer.Argument(help="The policy file (YAML).", metavar="FILE")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def check(file: File, as_json: AsJson = False) -> None:
    """Say whether a policy file can be used, and what is in it."""
    _, rules = load_policy(file)
    count = {word: sum(str(r.outcome) == word for r in rules.rules) for word in ("allow", "approve", "deny")}
    if as_json:
        found = {"version": rules.version, "rules": [r.name for r in rules.rules], "tags": [t for t, _ in rules.tags]}
        typer.echo(json.dumps(found))
        return
    kinds = ", ".join(f"{number} {word}" for word, number in count.items() if number)
    typer.echo(f"{file}: {len(rules.rules)} rules ({kinds or 'so the default decides'}), {len(rules.tags)} tags")
    typer.echo(f"version {rules.version}")


@app.command("explain")
def explain_command(
    file: File,
    sql: Annotated[str, typer.Argument(help="The statement.", metavar="SQL")],
    agent: Annotated[str, typer.Option(help="Who sends it.")] = "agent",
    owner: Annotated[str | None, typer.Option(help="The agent's owner; an empty one: none.")] = "owner",
    database: Annotated[str, typer.Option(help="Where.")] = "postgres",
    db_user: Annotated[str, typer.Option(help="As which database user.")] = "agent",
    client_addr: Annotated[str, typer.Option(help="From which address.")] = "local",
    application_name: Annotated[str, typer.Option(help="As the client says.")] = "",
    reason: Annotated[str | None, typer.Option(help="As the agent says.")] = None,
    ticket: Annotated[str | None, typer.Option(help="As the agent says.")] = None,
    at: Annotated[str | None, typer.Option(help="When, RFC 3339; left out, now.", metavar="TIME")] = None,
    rows_estimate: Annotated[float | None, typer.Option(help="The planner's; left out, not known.")] = None,
    in_transaction: Annotated[bool, typer.Option("--in-transaction", help="Inside a transaction block.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a policy file would decide about a statement, and why. There is no catalog here: user-defined functions
    are unknown, and names without a schema are taken to be public's."""
    _, rules = load_policy(file)
    facts = Facts(
        now=(_time(at) if at is not None else datetime.now(UTC)).timestamp(),
        application_name=application_name,
        reason=reason,
        ticket=ticket,
        in_transaction=in_transaction,
        rows_estimate=rows_estimate,
    )
    identity = Identity(agent, owner or None, db_user, database, client_addr)
    found = explain(one(sql), identity, Policy(rules=rules), facts)
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(visible(line) for line in _told(found)))


@app.command()
def replay(
    file: File,
    since: Annotated[str | None, typer.Option(help="From this time: RFC 3339, or 30m, 24h, 7d ago.")] = None,
    until: Annotated[str | None, typer.Option(help="Before this time, likewise.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent's statements.")] = None,
    trail: Annotated[Path | None, typer.Option("--file", help="Entries from this file (JSON lines).")] = None,
    api: Annotated[str, typer.Option(envvar="PGPROXY_API", help="Entries from this HTTP API.")] = (
        "http://127.0.0.1:8432"
    ),
    token: Annotated[str | None, typer.Option(envvar="PGPROXY_TOKEN", help="Your token.")] = None,
    as_json: AsJson = False,
) -> None:
    """List what would start or stop being parked or denied, had this policy been in force. Names without a schema are
    taken to be public's; what hangs on facts that the trail does not have is counted as uncertain."""
    _, rules = load_policy(file)
    start, end = (None if t is None else _time(t) for t in (since, until))
    if trail is None and token is None:
        raise typer.BadParameter("the HTTP API needs --token (or PGPROXY_TOKEN); or name a --file")
    if trail is None and start is None:
        raise typer.BadParameter("say --since when, for the trail may be long")
    entries = _from_file(trail, start, end, agent) if trail is not None else _from_api(api, token, start, end, agent)
    running = Replay(Policy(rules=rules))
    try:
        run_deep(lambda: _play(running, entries))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        typer.echo(f"pgproxy policy: {visible(str(error) or type(error).__name__)}", err=True)
        raise typer.Exit(1) from error
    if as_json:
        typer.echo(json.dumps(running.to_dict()))
    else:
        typer.echo("\n".join(visible(line) for line in _listed(running)))


def _play(running: Replay, entries: Iterator[dict[str, Any]]) -> None:
    """Each text is classified once, however often it was sent."""
    known: dict[str, Classification] = {}
    classifying = Classifying()
    try:
        for entry in entries:
            sql = entry["sql"]
            if sql not in known:
                if len(known) >= _KEPT_TEXTS:
                    known.clear()
                known[sql] = classifying.answer(sql)
            running.add(entry, known[sql])
    finally:
        classifying.close()


def _from_file(path: Path, start: datetime | None, end: datetime | None, agent: str | None) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                if not is_statement(entry):
                    continue
                at = datetime.fromisoformat(entry["time"])
            except (ValueError, KeyError, TypeError):
                raise DocumentError([Problem(str(path), number, "", "is no audit entry")]) from None
            if (start is None or at >= start) and (end is None or at < end) and agent in (None, entry.get("agent")):
                yield entry


def _from_api(
    api: str, token: str | None, start: datetime | None, end: datetime | None, agent: str | None
) -> Iterator[dict[str, Any]]:
    asked: dict[str, str | int] = {"limit": _PAGE}
    for name, value in (("since", start), ("until", end)):
        if value is not None:
            asked[name] = value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if agent is not None:
        asked["agent"] = agent
    with httpx.Client(base_url=api.rstrip("/"), headers={"Authorization": f"Bearer {token}"}, timeout=30.0) as client:
        while True:
            page = client.get("/v1/audit", params=asked).raise_for_status().json()
            yield from (entry for entry in page["items"] if is_statement(entry))
            if page["next"] is None:
                return
            asked["cursor"] = page["next"]


def _time(text: str) -> datetime:
    ago = _AGO.fullmatch(text)
    if ago is not None:
        unit = {"m": "minutes", "h": "hours", "d": "days"}[ago[2]]
        return datetime.now(UTC) - timedelta(**{unit: int(ago[1])})
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time (2026-01-31T08:00:00Z, or 24h)") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _told(found: dict[str, Any]) -> Iterator[str]:
    decision = found["decision"]
    yield f"{decision['decision']} by {decision['rule']}" + (f": {decision['reason']}" if "reason" in decision else "")
    for requirement in decision.get("requirements", ()):
        who = " or ".join(requirement["groups"]) or "any reviewer"
        yield f"  {requirement['count']} of {who} ({requirement['rule']}), within {decision['timeout_s']:g} s"
    for budget in decision.get("budgets", ()):
        much = " and ".join(f"{budget[unit]} {unit}" for unit in ("rows", "bytes") if budget[unit] is not None)
        yield f"  up to {much} a {budget['per']} ({budget['rule']})"
    for action in found["actions"]:
        yield ""
        tags = f"  [{', '.join(action['tags'])}]" if action["tags"] else ""
        about = f" {action['object']}" if action["object"] else ""
        yield f"{action['kind']}: {action['class']} {action['verb']}{about}{tags}"
        for rule in action["passed_over"]:
            state = "is not met" if rule["met"] == "no" else "may not be met"
            yield f"  {rule['rule']}: {state} ({rule['key']}){_EFFECTS[rule['effect']]}"
        doubt = f", for its {action['unknown']} cannot be known" if "unknown" in action else ""
        yield f"  {action['rule']}: {action['decision']}{doubt}"


def _listed(running: Replay) -> Iterator[str]:
    changed = sum(change.count for change in running.changes)
    skipped = f" ({running.skipped} not decided by a policy)" if running.skipped else ""
    yield f"{running.statements} statements{skipped}, {changed} would be decided otherwise"
    for change in running.changes:
        doubt = f", {change.uncertain} of them uncertain" if change.uncertain else ""
        yield ""
        yield f"{change.before} → {change.after}  {change.count} times{doubt}  by {change.rule}"
        yield f"  {', '.join(change.agents)}: {change.example}"
