"""`pgproxy approvals …`: the HTTP API from a terminal. A typer sub-application that `pgproxy.cli` mounts.

Exit status: 0 done, 1 the API refused or could not be reached (the message is printed), 2 wrong usage.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer

from approvals.briefing import brief
from approvals.display import describe, difference, escape, grant_summary, summary

app = typer.Typer(name="approvals", help="List, read and decide approvals, over the HTTP API.", no_args_is_help=True)

grants = typer.Typer(name="grants", help="Scoped grants: list, revoke.", no_args_is_help=True)
app.add_typer(grants)

REQUEST_TIMEOUT_S = 30.0
RECONNECT_S = 2.0

Api = Annotated[str, typer.Option("--api", envvar="PGPROXY_API", help="Address of the HTTP API.")]
Token = Annotated[str, typer.Option("--token", envvar="PGPROXY_TOKEN", help="Your token.", show_envvar=True)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Comment = Annotated[str | None, typer.Option("--comment", help="Shown to the agent and kept.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The approval's id.")]
DEFAULT_API = "http://127.0.0.1:8432"


@dataclass(frozen=True, slots=True)
class _Api:
    address: str
    token: str

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        with self.client() as client:
            response = client.request(method, path, **arguments)
            return _content(response)

    def client(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.address.rstrip("/"),
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=REQUEST_TIMEOUT_S,
        )


class _Refused(Exception):
    pass


def _content(response: httpx.Response) -> Any:
    if response.is_success:
        return response.json() if response.content else None
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.reason_phrase
    raise _Refused(f"{response.status_code}: {detail if isinstance(detail, str) else json.dumps(detail)}")


def _fail(error: Exception, as_json: bool) -> typer.Exit:
    message = str(error) or type(error).__name__
    if as_json:
        typer.echo(json.dumps({"error": message}))
    typer.echo(f"pgproxy approvals: {escape(message)}", err=True)
    return typer.Exit(1)


def _call(api: str, token: str, as_json: bool, method: str, path: str, **arguments: Any) -> Any:
    try:
        return _Api(api, token).call(method, path, **arguments)
    except (_Refused, httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise _fail(error, as_json) from error


def _print(approval: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(approval))
    else:
        typer.echo("\n".join([*describe(approval), *brief(approval)]))


def _path(approval_id: str, tail: str = "") -> str:
    return f"/v1/approvals/{quote(approval_id, safe='')}{tail}"


@app.command("list")
def list_(
    token: Token,
    api: Api = DEFAULT_API,
    status: Annotated[str, typer.Option("--status", help="pending, approved, …; 'all' for every one.")] = "pending",
    agent: Annotated[str | None, typer.Option("--agent", help="Only this agent's.")] = None,
    database: Annotated[str | None, typer.Option("--database", help="Only of this database.")] = None,
    class_: Annotated[str | None, typer.Option("--class", help="Only what does this: export, ddl, …")] = None,
    risk: Annotated[str | None, typer.Option("--risk", help="low, medium, high or critical.")] = None,
    q: Annotated[str | None, typer.Option("--search", help="Text of the statement, the reason or the ticket.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500)] = 50,
    as_json: AsJson = False,
) -> None:
    """The newest requests, one a line."""
    query: dict[str, str | int] = {"limit": limit}
    if status != "all":
        query["status"] = status
    if agent is not None:
        query["agent"] = agent
    for key, value in (("q", q), ("class", class_), ("risk", risk), ("database", database)):
        if value is not None:
            query[key] = value
    _print_page(_call(api, token, as_json, "GET", "/v1/approvals", params=query), as_json, limit)


def _print_page(page: dict[str, Any], as_json: bool, limit: int) -> None:
    if as_json:
        typer.echo(json.dumps(page))
        return
    for approval in page["items"]:
        typer.echo(summary(approval))
    if page["next"] is not None:
        typer.echo(f"(only the newest {limit} are shown)", err=True)


@app.command()
def show(
    approval_id: Id,
    token: Token,
    api: Api = DEFAULT_API,
    refresh: Annotated[bool, typer.Option("--refresh", help="Look again at what the statement would do now.")] = False,
    as_json: AsJson = False,
) -> None:
    """One request: who asks, from where, why, the whole statement, what it would do, and what was decided before."""
    if refresh:
        _print(_call(api, token, as_json, "POST", _path(approval_id, "/context")), as_json)
    else:
        _print(_call(api, token, as_json, "GET", _path(approval_id)), as_json)


@app.command()
def history(
    approval_id: Id,
    token: Token,
    api: Api = DEFAULT_API,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100)] = 20,
    as_json: AsJson = False,
) -> None:
    """What was decided before on the same fingerprint of the same agent, one a line."""
    page = _call(api, token, as_json, "GET", _path(approval_id, "/history"), params={"limit": limit})
    _print_page(page, as_json, limit)


@app.command()
def approve(
    approval_id: Id,
    token: Token,
    api: Api = DEFAULT_API,
    comment: Comment = None,
    lasting: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="And what repeats it, for so long: 90s, 15m, 2h.")
    ] = None,
    times: Annotated[int | None, typer.Option("--times", min=1, help="And so many more times.")] = None,
    scope: Annotated[
        str | None, typer.Option("--scope", help="What repeats it: exact, text (as it is told), shape, transaction.")
    ] = None,
    row_cap: Annotated[int | None, typer.Option("--row-cap", min=1, help="No more rows than that, each time.")] = None,
    sha256: Annotated[
        str | None, typer.Option("--sha256", help="Of the statement you read; no other is approved.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Let the statement run, once; with --for, --times or --scope also what repeats it, by a grant."""
    body: dict[str, Any] = {"decision": "approve"} | ({} if sha256 is None else {"sha256": sha256})
    if lasting is not None or times is not None or scope is not None or row_cap is not None:
        repeats = lasting is not None or times is not None or scope is not None
        terms = {
            "scope": (scope or "text") if repeats else "once",
            "seconds": None if lasting is None else _seconds(lasting),
            "uses": times,
            "row_cap": row_cap,
        }
        body["grant"] = {key: value for key, value in terms.items() if value is not None}
    _decide(body, approval_id, token, api, comment, as_json)


@app.command()
def deny(
    approval_id: Id, token: Token, api: Api = DEFAULT_API, comment: Comment = None, as_json: AsJson = False
) -> None:
    """Refuse the statement; the comment is shown to the agent."""
    _decide({"decision": "deny"}, approval_id, token, api, comment, as_json)


@app.command()
def modify(
    approval_id: Id,
    token: Token,
    sql: Annotated[
        typer.FileText, typer.Option("--sql", metavar="FILE", help="The statement to run instead; - reads it here.")
    ],
    api: Api = DEFAULT_API,
    comment: Comment = None,
    as_json: AsJson = False,
) -> None:
    """Put another statement in its place. Earlier votes are void; yours counts if it does no more than the agent's."""
    _decide({"decision": "modify", "sql": sql.read()}, approval_id, token, api, comment, as_json)


@app.command("comment")
def comment_(
    approval_id: Id,
    text: Annotated[str, typer.Argument(help="What to say.")],
    token: Token,
    api: Api = DEFAULT_API,
    as_json: AsJson = False,
) -> None:
    """Say something without deciding."""
    approval = _call(api, token, as_json, "POST", _path(approval_id, "/comments"), json={"text": text})
    if as_json:
        _print(approval, as_json)
    else:
        typer.echo(f"{escape(approval['id'])} {escape(approval['status'])}, {len(approval['comments'])} comment(s)")


def _seconds(text: str) -> float:
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:])
    number = text[:-1] if unit else text
    if not number.isascii() or not number.isdigit():
        raise typer.BadParameter("a number of seconds, or one with s, m or h", param_hint="--for")
    return float(int(number) * (unit or 1))


def _decide(body: dict[str, Any], approval_id: str, token: str, api: str, comment: str | None, as_json: bool) -> None:
    if comment is not None:
        body["comment"] = comment
    approval = _call(api, token, as_json, "POST", _path(approval_id, "/decision"), json=body)
    if as_json:
        _print(approval, as_json)
        return
    if body["decision"] == "modify":
        typer.echo("\n".join(difference(approval)))
    typer.echo(f"{escape(approval['id'])} {escape(approval['status'])}{_what_is_missing(approval)}")
    if approval["made_grant_id"] is not None:
        typer.echo(f"grant {escape(approval['made_grant_id'])}")
    elif approval["status"] == "approved" and body.get("grant", {}).get("scope", "once") != "once":
        typer.echo("no grant: not everybody who approved agreed to one", err=True)


def _what_is_missing(approval: dict[str, Any]) -> str:
    if approval["status"] != "pending":
        return ""
    missing = max(each["count"] - each["approvals"] for each in approval["requirements"])
    return f", {missing} more approval(s) needed"


@grants.command("list")
def list_grants(
    token: Token,
    api: Api = DEFAULT_API,
    agent: Annotated[str | None, typer.Option("--agent", help="Only this agent's.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Those no longer in force, too.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500)] = 50,
    as_json: AsJson = False,
) -> None:
    """The newest grants in force, one a line."""
    query: dict[str, str | int] = {"limit": limit, "all": "true" if every else "false"}
    if agent is not None:
        query["agent"] = agent
    page = _call(api, token, as_json, "GET", "/v1/grants", params=query)
    if as_json:
        typer.echo(json.dumps(page))
        return
    for grant in page["items"]:
        typer.echo(grant_summary(grant))
    if page["next"] is not None:
        typer.echo(f"(only the newest {limit} are shown)", err=True)


@grants.command()
def revoke(
    grant_id: Annotated[str, typer.Argument(metavar="ID", help="The grant's id.")],
    token: Token,
    api: Api = DEFAULT_API,
    as_json: AsJson = False,
) -> None:
    """End a grant now; what it has let through and has not started is withdrawn."""
    _call(api, token, as_json, "DELETE", f"/v1/grants/{quote(grant_id, safe='')}")
    typer.echo(json.dumps({"id": grant_id, "revoked": True}) if as_json else f"{escape(grant_id)} revoked")


@app.command()
def watch(
    token: Token,
    api: Api = DEFAULT_API,
    count: Annotated[int | None, typer.Option("--count", min=1, help="Stop after so many changes.")] = None,
    as_json: AsJson = False,
) -> None:
    """What waits now, then every change as it happens, until interrupted."""
    pending = _call(api, token, as_json, "GET", "/v1/approvals", params={"status": "pending", "limit": 500})
    for approval in reversed(pending["items"]):
        _print_change(approval, as_json)
    shown = 0
    try:
        for approval in _follow(_Api(api, token)):
            _print_change(approval, as_json)
            shown += 1
            if shown == count:
                return
    except (_Refused, ValueError) as error:
        raise _fail(error, as_json) from error


def _print_change(approval: dict[str, Any], as_json: bool) -> None:
    if as_json or approval["status"] == "pending":
        _print(approval, as_json)
    else:
        typer.echo(summary(approval))


def _follow(api: _Api) -> Iterator[dict[str, Any]]:
    """The objects of the event stream, across lost connections."""
    last_id = ""
    while True:
        try:
            with (
                api.client() as client,
                client.stream(
                    "GET",
                    "/v1/approvals/events",
                    headers={"Last-Event-ID": last_id} if last_id else {},
                    timeout=httpx.Timeout(REQUEST_TIMEOUT_S, read=60.0),
                ) as response,
            ):
                if not response.is_success:
                    response.read()
                    _content(response)
                for line in response.iter_lines():
                    if line.startswith("id: "):
                        last_id = line[4:]
                    elif line.startswith("data: "):
                        yield json.loads(line[6:])
        except httpx.HTTPError as error:
            typer.echo(f"pgproxy approvals: connection lost ({type(error).__name__}), trying again", err=True)
        time.sleep(RECONNECT_S)
