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

from approvals.display import describe, escape, summary

app = typer.Typer(name="approvals", help="List, read and decide approvals, over the HTTP API.", no_args_is_help=True)

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
        return response.json()
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
        typer.echo("\n".join(describe(approval)))


def _path(approval_id: str, tail: str = "") -> str:
    return f"/v1/approvals/{quote(approval_id, safe='')}{tail}"


@app.command("list")
def list_(
    token: Token,
    api: Api = DEFAULT_API,
    status: Annotated[str, typer.Option("--status", help="pending, approved, …; 'all' for every one.")] = "pending",
    agent: Annotated[str | None, typer.Option("--agent", help="Only this agent's.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500)] = 50,
    as_json: AsJson = False,
) -> None:
    """The newest requests, one a line."""
    query: dict[str, str | int] = {"limit": limit}
    if status != "all":
        query["status"] = status
    if agent is not None:
        query["agent"] = agent
    page = _call(api, token, as_json, "GET", "/v1/approvals", params=query)
    if as_json:
        typer.echo(json.dumps(page))
        return
    for approval in page["items"]:
        typer.echo(summary(approval))
    if page["next"] is not None:
        typer.echo(f"(only the newest {limit} are shown)", err=True)


@app.command()
def show(approval_id: Id, token: Token, api: Api = DEFAULT_API, as_json: AsJson = False) -> None:
    """One request: who asks, from where, why, and the whole statement."""
    _print(_call(api, token, as_json, "GET", _path(approval_id)), as_json)


@app.command()
def approve(
    approval_id: Id, token: Token, api: Api = DEFAULT_API, comment: Comment = None, as_json: AsJson = False
) -> None:
    """Let the statement run, once."""
    _decide("approve", approval_id, token, api, comment, as_json)


@app.command()
def deny(
    approval_id: Id, token: Token, api: Api = DEFAULT_API, comment: Comment = None, as_json: AsJson = False
) -> None:
    """Refuse the statement; the comment is shown to the agent."""
    _decide("deny", approval_id, token, api, comment, as_json)


def _decide(decision: str, approval_id: str, token: str, api: str, comment: str | None, as_json: bool) -> None:
    body = {"decision": decision} | ({} if comment is None else {"comment": comment})
    approval = _call(api, token, as_json, "POST", _path(approval_id, "/decision"), json=body)
    if as_json:
        _print(approval, as_json)
        return
    votes = sum(1 for vote in approval["decisions"] if vote["decision"] == "approve")
    missing = approval["required_approvals"] - votes
    more = f", {missing} more approval(s) needed" if approval["status"] == "pending" else ""
    typer.echo(f"{escape(approval['id'])} {escape(approval['status'])}{more}")


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
