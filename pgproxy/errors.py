"""Every error pgproxy itself raises towards a client, each with SQLSTATE, severity and log level.

An error answers four questions: what the client is told (`message`, `detail`, `hint`, in PostgreSQL's style: lower
case, no full stop, never the SQL), under which SQLSTATE, whether the connection survives (`severity`), and how loud
the log is. Never class 40 or 08 for a denial: frameworks retry or drop their pools on those.
"""

from __future__ import annotations

import logging
from typing import ClassVar


class ProxyError(Exception):
    """Base of all errors with a wire form. Subclasses name their SQLSTATE once, at the class."""

    sqlstate: ClassVar[str] = "XX000"
    severity: ClassVar[str] = "FATAL"
    log_level: ClassVar[int] = logging.ERROR

    def __init__(self, message: str, *, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.hint = hint

    def __init_subclass__(
        cls, *, sqlstate: str | None = None, severity: str = "ERROR", log_level: int = logging.INFO
    ) -> None:
        if sqlstate is not None:
            cls.sqlstate = sqlstate
            cls.severity = severity
            cls.log_level = log_level


class Denied(ProxyError, sqlstate="42501"):
    """Refused by policy or by an approver."""


class Cancelled(ProxyError, sqlstate="57014"):
    """The approval expired, or the client cancelled while parked."""


class StatementUnknown(ProxyError, sqlstate="26000"):
    """A prepared statement that this session never made."""


class TooLarge(ProxyError, sqlstate="54000"):
    """A statement larger than the limit; the message could be skipped."""


class BacklogTooLarge(ProxyError, sqlstate="54000", severity="FATAL"):
    """The client sent more behind a parked statement than is kept."""


class TooManyParked(ProxyError, sqlstate="53400"):
    """More parked statements than the limit allows."""


class InvalidText(ProxyError, sqlstate="22021"):
    """Text that is not valid in its client_encoding."""


class AuditFull(ProxyError, sqlstate="58030", log_level=logging.ERROR):
    """The audit trail does not take the record: the statement is refused."""


class StoreDown(ProxyError, sqlstate="58000", log_level=logging.WARNING):
    """The approval store does not answer: a privileged statement cannot be decided."""


class ConnectionProtocolViolation(ProxyError, sqlstate="08P01", severity="FATAL"):
    """A malformed message, or one that is unexpected in this phase."""


class FeatureNotSupported(ProxyError, sqlstate="0A000", severity="FATAL"):
    """Replication, protocol 2, encodings that can hide quotes."""


class InvalidAuthorization(ProxyError, sqlstate="28000", severity="FATAL"):
    """Not allowed to connect here."""


class InvalidPassword(ProxyError, sqlstate="28P01", severity="FATAL"):
    """Wrong password or unknown agent; which of them is not told."""


class TooManySessions(ProxyError, sqlstate="53300", severity="FATAL"):
    """More sessions than the limit allows."""


class UpstreamUnreachable(ProxyError, sqlstate="08001", severity="FATAL", log_level=logging.WARNING):
    """The server could not be reached."""


class UpstreamLost(ProxyError, sqlstate="08006", severity="FATAL", log_level=logging.WARNING):
    """The server went away in the middle of a session."""


class IdleTimeout(ProxyError, sqlstate="57P05", severity="FATAL"):
    """The session was idle too long."""


class IdleInTransactionTimeout(ProxyError, sqlstate="25P03", severity="FATAL"):
    """The session was idle too long inside a transaction."""


class CannotConnectNow(ProxyError, sqlstate="57P03", severity="FATAL"):
    """pgproxy is stopping, and takes no new sessions."""


class ShuttingDown(ProxyError, sqlstate="57P01", severity="FATAL"):
    """pgproxy is stopping, an administrator ended the session, or it could not begin any more as it did."""


class InternalError(ProxyError, sqlstate="XX000", severity="FATAL", log_level=logging.ERROR):
    """A bug of pgproxy. The client gets generic text; the log has the rest."""
