"""The one exception of this package: the peer broke the protocol."""

from __future__ import annotations

from typing import Final

PROTOCOL_VIOLATION: Final = "08P01"
PROGRAM_LIMIT_EXCEEDED: Final = "54000"
CHARACTER_NOT_IN_REPERTOIRE: Final = "22021"
INVALID_AUTHORIZATION: Final = "28000"
FEATURE_NOT_SUPPORTED: Final = "0A000"
SYNTAX_ERROR: Final = "42601"


class ProtocolViolation(Exception):
    """A peer's bytes cannot be what the protocol allows; `message` and `sqlstate` are fit to be sent to it.

    The stream has no trustworthy next message after this, so the session ends: nothing of the offending
    message may be forwarded.
    """

    def __init__(self, message: str, sqlstate: str = PROTOCOL_VIOLATION) -> None:
        super().__init__(message)
        self.message: Final[str] = message
        self.sqlstate: Final[str] = sqlstate


class OptionRejected(Exception):
    """The start-up packet's `options` hold a switch pgproxy does not pass on; `switch` names it, without its
    value."""

    def __init__(self, switch: str, message: str, sqlstate: str = FEATURE_NOT_SUPPORTED) -> None:
        super().__init__(message)
        self.switch: Final[str] = switch
        self.message: Final[str] = message
        self.sqlstate: Final[str] = sqlstate
