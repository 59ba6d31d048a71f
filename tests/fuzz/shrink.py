"""A failing conversation made small: messages are left out as long as it goes on failing in the same way."""

from __future__ import annotations

from collections.abc import Callable


def shrunk(messages: list[bytes], fails: Callable[[list[bytes]], bool]) -> list[bytes]:
    """Delta debugging over messages: halves, quarters, …, single ones."""
    size = len(messages)
    while size:
        at = 0
        while at < len(messages):
            fewer = messages[:at] + messages[at + size :]
            if fails(fewer):
                messages = fewer
            else:
                at += size
        size //= 2
    return messages
