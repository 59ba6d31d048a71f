"""The command `pgproxy`. Every command imports what it needs when it runs: `pgproxy classify` needs no web server.

Exit status: 0 done, 1 it could not be done, 2 wrong usage or configuration. Errors are one line on standard error
(a configuration's, one line each); PGPROXY_DEBUG=1 adds the traceback of what is a bug.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

app = typer.Typer(
    name="pgproxy",
    help="A PostgreSQL proxy that parks privileged statements until a human approves them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
DataDir = Annotated[Path, typer.Option("--data-dir", envvar="PGPROXY_DATA_DIR", help="Where everything is kept.")]
DEFAULT_DATA_DIR = Path("pgproxy-data")


@app.command()
def up(
    upstream: Annotated[str | None, typer.Option(help="Guard this server, not a sample one.", metavar="DSN")] = None,
    listen: Annotated[str, typer.Option(help="Where agents connect.", metavar="HOST:PORT")] = "127.0.0.1:6432",
    api: Annotated[str, typer.Option(help="HTTP API and console.", metavar="HOST:PORT")] = "127.0.0.1:8432",
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Run everything at once, with a sample database unless --upstream names one. Ctrl-C stops it."""
    from pgproxy import log
    from pgproxy.app import launch

    log.configure("supervisor", "warning")
    launch.up(upstream=upstream, listen=listen, api=api, data_dir=data_dir)


@app.command()
def serve(config: Annotated[Path, typer.Option(help="The configuration file (YAML).", metavar="FILE")]) -> None:
    """Run by a configuration file; PGPROXY_… environment variables override its keys."""
    from pgproxy import log
    from pgproxy.app import launch
    from pgproxy.config import load

    environ = dict(os.environ)
    settings = load(config, environ)
    log.configure("supervisor", settings.log_level)
    launch.serve(lambda: load(config.absolute(), environ), settings)


@app.command()
def classify(
    sql: Annotated[str | None, typer.Argument(help="The text; left out, standard input.", metavar="[SQL]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the classification object.")] = False,
    as_jsonl: Annotated[bool, typer.Option("--jsonl", help='One {"sql": …} a line in, one object a line out.')] = False,
) -> None:
    """Say what a statement would do, without a server."""
    if as_jsonl and sql is not None:
        raise typer.BadParameter("with --jsonl the statements come from standard input")
    from pgproxy import cli_classify

    if as_jsonl:
        cli_classify.lines(sys.stdin.fileno(), lambda line: print(line, flush=True))
        return
    text = sys.stdin.buffer.read().decode("utf-8", "surrogateescape") if sql is None else sql
    found = cli_classify.one(text)
    print(json.dumps(found.to_dict(), indent=2) if as_json else cli_classify.describe(found))


@app.command(context_settings=_PASS_ON)
def psql(context: typer.Context, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Run the psql that comes with the embedded server, as the demo agent. Arguments are psql's own."""
    from pgproxy.dsn import Dsn
    from pgproxy.embedded import psql_path

    facts = _facts(data_dir)
    dsn = Dsn.parse(facts["agents"][0]["dsn"])
    program = psql_path()
    environ = dict(os.environ)
    if dsn.password is not None:
        environ["PGPASSWORD"] = dsn.password.get_secret_value()  # a command line is everyone's to read
    os.execve(program, [str(program), "-d", dsn.uri(password=False), *context.args], environ)  # noqa: S606 (no shell)


@app.command(context_settings={**_PASS_ON, "help_option_names": []})
def approvals(context: typer.Context) -> None:
    """List, show, approve and deny requests (PGPROXY_API, PGPROXY_TOKEN)."""
    from approvals.terminal import app as terminal

    terminal(args=context.args, prog_name="pgproxy approvals")


@app.command(context_settings={**_PASS_ON, "help_option_names": []})
def policy(context: typer.Context) -> None:
    """Check a policy file, explain what it decides, replay recorded traffic under it."""
    from pgproxy.cli_policy import app as terminal

    terminal(args=context.args, prog_name="pgproxy policy")


@app.command(context_settings={**_PASS_ON, "help_option_names": []})
def audit(context: typer.Context) -> None:
    """Read the audit trail (PGPROXY_API, PGPROXY_TOKEN)."""
    from pgproxy.audit.terminal import app as terminal

    terminal(args=context.args, prog_name="pgproxy audit")


def _facts(data_dir: Path) -> dict[str, Any]:
    path = data_dir / "up.json"
    try:
        facts: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        _fail(f"{path} is missing: is `pgproxy up` running with this --data-dir?")
    except (OSError, ValueError) as error:
        _fail(f"{path} cannot be read: {error}")
    return facts


def _fail(message: str, status: int = 1) -> NoReturn:
    for line in message.splitlines():
        print(f"pgproxy: {line}", file=sys.stderr)
    sys.exit(status)


def main() -> NoReturn:
    """The entry point: turns every failure into a line and an exit status."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `pgproxy … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get("PGPROXY_DEBUG"):
            raise
        _fail(*_explain(error))
    sys.exit(0)


def _explain(error: Exception) -> tuple[str, int]:
    """What to say of an error, and the exit status."""
    from pgproxy.document import DocumentError

    if isinstance(error, DocumentError):
        return str(error), 2
    # By name: importing the launcher to know its errors would import all of it.
    if type(error).__name__ in ("LaunchError", "EmbeddedError", "SupervisorError"):
        return str(error), 1
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror, 1
    return f"internal error: {type(error).__name__}: {error} (PGPROXY_DEBUG=1 shows where)", 1
