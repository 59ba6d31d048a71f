"""What a channel gets and gives, and what the dispatcher needs of the rest of the program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Kind = Literal["slack", "teams", "webhook", "apprise"]
KINDS: tuple[Kind, ...] = ("slack", "teams", "webhook", "apprise")
RESULTS = ("delivered", "retried", "dead", "skipped")
"""What became of an attempt; `skipped`: there was nothing to tell any more."""

MessageKind = Literal["opened", "changed", "escalated"]


@dataclass(frozen=True, slots=True)
class Message:
    """One thing to be told at one target. `id` is the same at every attempt. `approval` is the object as it is now;
    `event` names what happened and `at_event` is the object as it was then. `refs`: where this channel has put earlier
    messages about the request."""

    id: str
    kind: MessageKind
    event: str
    at: str
    approval: dict[str, Any]
    at_event: dict[str, Any]
    refs: tuple[dict[str, Any], ...] = ()

    @property
    def is_pending(self) -> bool:
        return bool(self.approval["status"] == "pending")


class NotDelivered(Exception):
    """The message says why and holds no secret. `retry_after_s`: not before that; `permanent`: never."""

    def __init__(self, reason: str, *, retry_after_s: float | None = None, permanent: bool = False) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        self.permanent = permanent


class Skipped(Exception):
    """There is nothing to tell: the message is done with."""


class Refused(Exception):
    """Something from outside that is not what it says it is, is too old, or has been taken; nothing was done."""


class NotVerified(Exception):
    """It cannot be told now whether something from outside is genuine; nothing was done."""


class SlackEndpoint(Protocol):
    async def take_signed(self, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
        """Raises:
        Refused, StoreUnavailable
        """
        ...

    async def interact(self, payload: dict[str, Any]) -> None: ...


class TeamsEndpoint(Protocol):
    async def take_activity(self, authorization: str, body: bytes) -> dict[str, Any]:
        """Raises:
        Refused, NotVerified, StoreUnavailable
        """
        ...

    async def answer(self, activity: dict[str, Any]) -> dict[str, Any] | None: ...


class Channel(Protocol):
    """One target. `every_event`: wants each event as it was (a program), not the state of things (a person)."""

    @property
    def target(self) -> str: ...

    @property
    def kind(self) -> Kind: ...

    @property
    def every_event(self) -> bool: ...

    async def deliver(self, message: Message) -> dict[str, Any] | None:
        """Sends it; what it returns is in `refs` of later messages about the same request.

        Raises:
            NotDelivered, Skipped
        """
        ...

    async def close(self) -> None: ...


class NotificationMetrics(Protocol):
    def notification(self, channel_kind: str, result: str) -> None: ...

    def notification_backlog(self, channel_kind: str, n: int) -> None: ...


class NoMetrics:
    """Counts nothing."""

    def notification(self, channel_kind: str, result: str) -> None: ...

    def notification_backlog(self, channel_kind: str, n: int) -> None: ...
