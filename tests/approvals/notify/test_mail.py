"""Apprise's services, before a real SMTP conversation."""

from __future__ import annotations

import asyncio
import email
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import Message as Mail

import pytest

from approvals.decisions import decide
from approvals.notify.mail import Apprise
from tests.approvals.conftest import BOB, Store, request, reviewer
from tests.approvals.notify.conftest import all_done, dispatching, link


@asynccontextmanager
async def smtp(refusals: int = 0) -> AsyncIterator[tuple[int, list[Mail]]]:
    """A server that takes mail (RFC 5321), after refusing some."""
    mails: list[Mail] = []
    left = refusals

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal left

        def say(text: str) -> None:
            writer.write(f"{text}\r\n".encode())

        say("220 fake")
        while line := (await reader.readline()).decode().strip():
            match line.split(" ")[0].upper():
                case "MAIL" if left:
                    left -= 1
                    say("451 later")
                case "DATA":
                    say("354 go on")
                    mails.append(email.message_from_bytes(await reader.readuntil(b"\r\n.\r\n")))
                    say("250 taken")
                case "QUIT":
                    say("221 bye")
                    break
                case _:
                    say("250 fine")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], mails
    finally:
        server.close()


def text(mail: Mail) -> str:
    part = next(part for part in mail.walk() if part.get_content_type() == "text/plain")
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode().replace("\r\n", "\n")


def channel(port: int) -> Apprise:
    return Apprise("apprise:mail", f"mailto://127.0.0.1:{port}?from=pgproxy@example.com&to=dba@example.com", link)


async def test_mail_at_the_beginning_and_at_the_end(store: Store) -> None:
    sql = "SELECT 1\nStatus: approved\n\u202e"
    async with smtp(refusals=1) as (port, mails), dispatching(store, [channel(port)]) as metrics:
        opened = await store.gateway.open(request(sql=sql))
        await all_done(store, "apprise:mail", 1)
        await decide(store.pool, opened.id, reviewer(BOB), "deny", "no")
        await all_done(store, "apprise:mail", 3)
    first, last = mails
    assert first["To"] == "dba@example.com"
    lines = text(first).split("\n")
    assert lines.count("  | SELECT 1") == lines.count("  | Status: approved") == lines.count("  | ⟦U+202E⟧") == 1
    assert f"sha256 {'ab' * 32}" in lines
    assert "Status: pending" in lines
    assert link(opened.id) in lines
    assert any(line.startswith("Status: denied; deny by bob@example.com") for line in text(last).split("\n"))
    assert metrics.counts["apprise", "retried"] == 1


def test_what_is_no_url_of_apprises() -> None:
    with pytest.raises(ValueError, match="no URL that apprise knows"):
        Apprise("apprise:x", "nonsense", link)
