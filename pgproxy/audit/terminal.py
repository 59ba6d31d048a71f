"""`pgproxy audit …`: the trail from a terminal, over the HTTP API. A typer sub-application that `pgproxy.cli` mounts.

Exit status: 0 done, 1 the API refused or could not be reached (the message is printed), 2 wrong usage.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from time import monotonic, sleep
from typing import Annotated, Any

import httpx
import typer

from pgproxy.audit.lines import escape, line
from pgproxy.records import rfc3339

app = typer.Typer(name="audit", help="Read the audit trail, over the HTTP API.", no_args_is_help=True)

DEFAULT_API = "http://127.0.0.1:8432"
REQUEST_TIMEOUT_S = 30.0
POLL_S = 1.0
PAGE = 500
# What comes later into its place in the trail than this is not followed any more; a search finds it.
LOOK_BACK_S = 30
# The contract's time for an outcome to be part of its statement's entry.
OUTCOME_WITHIN_S = 5.0

Entry = dict[str, Any]
Api = Annotated[str, typer.Option("--api", envvar="PGPROXY_API", help="Address of the HTTP API.")]
Token = Annotated[str, typer.Option("--token", envvar="PGPROXY_TOKEN", help="Your token.", show_envvar=True)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Short = Annotated[bool, typer.Option("--short", help="Cut statements, saying how much is missing.")]


class _Refused(Exception):
    """The API's answer was an error; the text is its reason."""


class _Trail:
    """`GET /v1/audit`."""

    def __init__(self, api: str, token: str) -> None:
        self._client = httpx.Client(
            base_url=api.rstrip("/"),
            headers={"Authorization": f"Bearer {token}"},
            timeout=REQUEST_TIMEOUT_S,
        )

    def page(self, **asked: str | int | None) -> dict[str, Any]:
        query = {name: value for name, value in asked.items() if value is not None}
        response = self._client.get("/v1/audit", params=query)
        if not response.is_success:
            raise _Refused(f"{response.status_code}: {_reason(response)}")
        page: dict[str, Any] = response.json()
        return page

    def newest(self, count: int | None, **asked: str | int | None) -> list[Entry]:
        """Oldest of them first; None is all."""
        found: list[Entry] = []
        cursor: str | None = None
        while count is None or len(found) < count:
            limit = PAGE if count is None else min(PAGE, count - len(found))
            page = self.page(limit=limit, cursor=cursor, **asked)
            found += page["items"]
            cursor = page["next"]
            if cursor is None:
                break
        found.reverse()
        return found


def _reason(response: httpx.Response) -> str:
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase
    return detail if isinstance(detail, str) else json.dumps(detail)


@app.command()
def tail(
    token: Token,
    api: Api = DEFAULT_API,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens.")] = False,
    count: Annotated[int, typer.Option("-n", min=0, help="How many entries to begin with.")] = 20,
    as_json: AsJson = False,
    short: Short = False,
) -> None:
    """The newest entries, oldest of them first, one a line."""
    try:
        trail = _Trail(api, token)
        for entry in _follow(trail, count) if follow else trail.newest(count):
            typer.echo(json.dumps(entry) if as_json else line(entry, short=short))
    except KeyboardInterrupt:
        return
    except (_Refused, httpx.HTTPError, httpx.InvalidURL) as error:
        raise _fail(error) from error


@app.command()
def search(
    token: Token,
    api: Api = DEFAULT_API,
    since: Annotated[str | None, typer.Option("--since", help="From this time, RFC 3339.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Before this time, RFC 3339.")] = None,
    agent: Annotated[str | None, typer.Option("--agent", help="Only this agent's.")] = None,
    class_: Annotated[str | None, typer.Option("--class", help="export, ddl, …")] = None,
    decision: Annotated[str | None, typer.Option("--decision", help="allowed, denied, …")] = None,
    q: Annotated[str | None, typer.Option("-q", help="Text in statement, reason or ticket.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=PAGE)] = 50,
    cursor: Annotated[str | None, typer.Option("--cursor", help="`next` of an earlier answer.")] = None,
    as_json: AsJson = False,
    short: Short = False,
) -> None:
    """Entries that match, newest first, one a line."""
    asked = {"since": since, "until": until, "agent": agent, "class": class_, "decision": decision, "q": q}
    try:
        page = _Trail(api, token).page(**asked, limit=limit, cursor=cursor)
    except (_Refused, httpx.HTTPError, httpx.InvalidURL) as error:
        raise _fail(error) from error
    if as_json:
        typer.echo(json.dumps(page))
        return
    for entry in page["items"]:
        typer.echo(line(entry, short=short))
    if page["next"] is not None:
        typer.echo(f"more: --cursor {escape(str(page['next']))}", err=True)


def _follow(trail: _Trail, count: int) -> Iterator[Entry]:
    """Entries as they come. A statement is told once its outcome is known, or will not be part of its entry."""
    entries = trail.newest(max(count, 1))
    told: dict[int, datetime] = {}
    waiting: dict[int, tuple[float, datetime]] = {}
    newest = begin = None
    if entries:
        begin = _time(entries[0]), int(entries[0]["seq"])
        if count == 0:
            told[begin[1]] = begin[0]  # it only marks where to begin
    while True:
        now = monotonic()
        for entry in entries:
            seq, at = int(entry["seq"]), _time(entry)
            newest = at if newest is None else max(newest, at)
            if seq in told or (begin is not None and (at, seq) < begin):
                continue
            seen_at, _ = waiting.setdefault(seq, (now, at))
            if _is_unfinished(entry) and now - seen_at < OUTCOME_WITHIN_S:
                continue
            del waiting[seq]
            told[seq] = at
            yield entry
        sleep(POLL_S)
        since = None
        if newest is not None:
            since = min([newest - timedelta(seconds=LOOK_BACK_S), *(at for _, at in waiting.values())])
            told = {seq: at for seq, at in told.items() if at >= since}
        entries = trail.newest(None, since=None if since is None else rfc3339(since))


def _time(entry: Entry) -> datetime:
    return datetime.fromisoformat(entry["time"])


def _is_unfinished(entry: Entry) -> bool:
    ran = entry["decision"] in ("allowed", "approved", "observed")
    return entry["kind"] == "statement" and ran and entry["outcome"] is None


def _fail(error: Exception) -> typer.Exit:
    typer.echo(f"pgproxy audit: {escape(str(error) or type(error).__name__)}", err=True)
    return typer.Exit(1)
