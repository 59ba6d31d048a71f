"""E-mail and everything else that the library apprise knows, as plain text."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apprise

from approvals.notify.content import Content, content_of
from approvals.notify.ports import Kind, Message, NotDelivered, Skipped
from approvals.notify.voting import Link

SQL_LIMIT = 20_000
_TOLD = frozenset({"approval.approved", "approval.denied", "approval.expired", "approval.withdrawn", "approval.modify"})


class Apprise:
    """One of apprise's URLs. Its services block, so they have a thread of their own: hanging ones hold up only
    themselves."""

    kind: Kind = "apprise"
    every_event = False

    def __init__(self, target: str, url: str, link: Link) -> None:
        self.target = target
        self._link = link
        self._service = apprise.Apprise.instantiate(url, suppress_exceptions=True)
        if self._service is None:
            raise ValueError("is no URL that apprise knows")
        self._service.overflow_mode = apprise.OverflowMode.SPLIT  # never cut in silence
        # It would sleep between messages, inside of an attempt's time; the dispatcher's pace is enough.
        self._service.request_rate_per_sec = 0
        self._threads = ThreadPoolExecutor(4, f"notify {target}")

    async def deliver(self, message: Message) -> dict[str, Any] | None:
        approval = message.approval
        if message.kind == "changed":
            if message.event not in _TOLD:
                raise Skipped("nobody has to know")
            approval = message.at_event
        elif not message.is_pending:
            raise Skipped("it is settled already")
        content = content_of(
            approval, self.kind, self._link(approval["id"]), limit=SQL_LIMIT, escalated=message.kind == "escalated"
        )
        if not await asyncio.get_running_loop().run_in_executor(self._threads, self._send, content):
            raise NotDelivered("apprise could not send it")
        return None

    def _send(self, content: Content) -> bool:
        service: Any = self._service
        return bool(
            service.notify(
                title=f"pgproxy: {content.title}", body=text_of(content), body_format=apprise.NotifyFormat.TEXT
            )
        )

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def text_of(content: Content) -> str:
    """As lines; each of the statement's own has a prefix, so that none looks like ours."""
    lines = [*(f"{name}: {value}" for name, value in content.fields), "", *_quoted(content.sql)]
    if content.params:
        lines += ["", "Parameters:", *_quoted("\n".join(content.params))]
    if content.brief:
        lines += ["", *_quoted("\n".join(content.brief))]
    if content.cut is not None:
        lines += ["", content.cut]
    return "\n".join([*lines, "", f"sha256 {content.sha256}", content.status, content.link])


def _quoted(text: str) -> list[str]:
    return [f"  | {line}" for line in text.split("\n")]
