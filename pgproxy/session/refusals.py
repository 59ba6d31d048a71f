"""Denial by substitution: in place of a refused message the server gets one that must fail.

The server itself then enters the failed-transaction state, skips to Sync and keeps the pipeline's order; nothing of
that is simulated here. The nonce in the substitute's text comes back in the server's message, and only an
ErrorResponse that carries it is exchanged for ours.
"""

from __future__ import annotations

from pgproxy.errors import ProxyError
from pgproxy.protocol import backend, frontend
from pgproxy.session.replies import Expected, Refusal, ReplyKind
from pgproxy.session.runs import StatementRun
from pgproxy.session.units import Unit, UnitKind


def error_response(error: ProxyError, codec: str = "utf-8") -> bytes:
    """The wire form of one of our errors, for a client that reads this encoding."""
    return backend.error_response(error.severity, error.sqlstate, error.message, error.detail, error.hint, codec)


def fatal_response(error: ProxyError, codec: str) -> bytes:
    """The wire form of an error that ends the connection, whatever its own severity."""
    return backend.error_response("FATAL", error.sqlstate, error.message, error.detail, error.hint, codec)


def substitute(
    unit: Unit, run: StatementRun, error: ProxyError, nonce: str, codec: str, *, replication: bool = False
) -> tuple[bytes, Expected]:
    """The message to send instead of the unit's messages, and what to expect for it."""
    simple = unit.kind not in (UnitKind.PARSE, UnitKind.BIND)
    return failing(simple, run, error, nonce, codec, replication=replication)


def failing(
    simple: bool, run: StatementRun, error: ProxyError, nonce: str, codec: str, *, replication: bool = False
) -> tuple[bytes, Expected]:
    """A message that must fail, in either protocol, and what to expect for it."""
    refusal = Refusal(nonce, error_response(error, codec), error.sqlstate)
    name = f"pgproxy_denied_{nonce}".encode()
    if not simple:
        # Never a Bind of a name that should not exist: whoever guessed it would make it exist. A text that the
        # grammar rejects fails always; under a name, so that the unnamed statement stays what it was.
        return frontend.parse(name, name), Expected(ReplyKind.PARSE, run=run, refusal=refusal)
    # Of what a walsender understands without SQL, SHOW is the command that does nothing and says the name.
    text = b"SHOW " + name if replication else name
    return frontend.query(text), Expected(ReplyKind.QUERY, run=run, refusal=refusal)


def in_failed_transaction(unit: Unit, run: StatementRun, nonce: str) -> tuple[bytes, Expected]:
    """A privileged statement in a failed transaction: the server would refuse it with 25P02, so it gets a harmless
    one to refuse, and its own error reaches the client. (Were the transaction not failed after all, the column
    named here does not exist.)"""
    text = f"SELECT pgproxy_denied_{nonce}".encode()
    if unit.kind in (UnitKind.QUERY, UnitKind.FUNCTION_CALL):
        return frontend.query(text), Expected(ReplyKind.QUERY, run=run)
    return frontend.parse(f"pgproxy_denied_{nonce}".encode(), text), Expected(ReplyKind.PARSE, run=run)
