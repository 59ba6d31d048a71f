"""What can go wrong with an approval, each with the HTTP status it is answered with.

ApprovalError
├── StoreUnavailable   503  the store did not answer in time; nothing was decided
├── Forbidden          403  this person may not do this
├── NotFound           404
├── Conflict           409  no longer pending, or this person has voted
└── Unsupported        422  understood, but not in this version
"""

from __future__ import annotations

from typing import ClassVar


class ApprovalError(Exception):
    """The message is plain English and safe to show: never SQL, parameters or secrets."""

    http_status: ClassVar[int] = 500


class NotReloaded(ApprovalError):
    """The configuration could not be read again, or it is not known whether it was."""

    http_status = 503


class StoreUnavailable(ApprovalError):
    http_status = 503


class Forbidden(ApprovalError):
    http_status = 403


class NotFound(ApprovalError):
    http_status = 404


class Conflict(ApprovalError):
    http_status = 409


class Unsupported(ApprovalError):
    http_status = 422
