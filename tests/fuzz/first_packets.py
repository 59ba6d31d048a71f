"""The beginning of a connection: first packets of every kind, one after the other or mutilated.

Whatever comes first, the connection ends once the client has said all it has, or a session begins that answers; and
no setting that would need an approval, nor one of pgproxy's own, reaches the server in a StartupMessage.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections import Counter

from tests.fuzz import seeds
from tests.fuzz.conversation import MARK, Case, Left
from tests.fuzz.sockets import PATIENCE_S, Stand, Talker

SSL, GSS, CANCEL = b"\x04\xd2\x16\x2f", b"\x04\xd2\x16\x30", b"\x04\xd2\x16\x2e"
_SETTINGS = [
    (b"options", b"-c geqo=off"),
    (b"options", b"-c role=postgres"),
    (b"options", b"-crole=postgres -c x.y=z"),
    (b"options", b"--session_replication_role=replica"),
    (b"options", b"-c pgproxy.reason=why\\ not -c work_mem=8MB"),
    (b"options", b"-c pgproxy.wait=return"),
    (b"options", b"\\"),
    (b"options", b"-"),
    (b"options", b"-Fe -B 7"),
    (b"options", b"-c"),
    (b"role", b"postgres"),
    (b"Session_Authorization", b"postgres"),
    (b"standard_conforming_strings", b"off"),
    (b"client_encoding", b"SJIS"),
    (b"client_encoding", b"LATIN1"),
    (b"replication", b"true"),
    (b"replication", b"dat"),
    (b"_pq_.new", b"1"),
    (b"pgproxy.ticket", b"OPS-1"),
    (b"search_path", b"other"),
    (b"user", b"somebody"),
    (b"user", b""),
    (b"user", b"u" * 70),
    (b"database", b"\xff\xfe"),
    (b"", b""),
    (b"x" * 9_000, b"1"),
]


def _packet(code: bytes, rest: bytes) -> bytes:
    return (8 + len(rest)).to_bytes(4, "big") + code + rest


def packets_of(case: Case, corpus: list[seeds.Seed]) -> list[bytes]:
    chance = case.chance("first packets")
    made = [_one(chance, corpus) for _ in range(chance.choice([1, 1, 1, 2, 3]))]
    if chance.random() < 0.3:
        made.insert(0, _packet(chance.choice([SSL, GSS]), b""))
    if chance.random() < 0.2:
        made.append(
            chance.choice([seeds.message(b"Q", b"select 1\0"), seeds.message(b"p", b"secret\0"), b"\x16\x03\x01\x02"])
        )
    return made


def _one(chance: random.Random, corpus: list[seeds.Seed]) -> bytes:
    match chance.randrange(8):
        case 0:
            packet = chance.choice(corpus).first
        case 1:
            packet = _packet(
                chance.choice([SSL, GSS, CANCEL]), chance.choice([b"", b"\0\0\x12\x67\1\2\3\4", b"\0" * 300])
            )
        case _:
            parameters = [(b"user", b"agent"), (b"database", b"postgres")]
            parameters += chance.sample(_SETTINGS, chance.choice([0, 1, 1, 2, 4]))
            if chance.random() < 0.2:
                chance.shuffle(parameters)
            body = b"".join(n + b"\0" + v + b"\0" for n, v in parameters) + b"\0"
            version = chance.choice([b"\0\3\0\0"] * 6 + [b"\0\3\0\2", b"\0\3\0\2", b"\0\3\0\1", b"\0\3\x27\x0f"])
            packet = _packet(chance.choice([version] * 15 + [b"\0\2\0\0", b"\0\4\0\0", b"\0\0\0\0"]), body)
    broken = bytearray(packet)
    match chance.randrange(14):
        case 0:
            broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
        case 1:
            broken[:4] = chance.choice(
                [0, 4, 7, 8, 10_004, 10_005, 0x7FFFFFFF, len(broken) - 1, len(broken) + 1]
            ).to_bytes(4, "big")
        case 2:
            del broken[chance.randrange(len(broken)) :]
        case 3:
            broken += b"\0"
        case _:
            pass
    return bytes(broken)


async def hold(at: Stand, packets: list[bytes], counts: Counter[str]) -> None:
    """Raises Leak, Hang, Left, or whatever broke."""
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    talker = Talker(reader, writer)
    listening = asyncio.get_running_loop().create_task(talker.listen())
    try:
        for packet in packets:
            talker.send(packet)
            for _ in range(20):  # time to answer N, or to begin a session
                await asyncio.sleep(0)
            if b"Z\0\0\0\5I" in talker.heard:
                break
        if b"Z\0\0\0\5I" in talker.heard and packets[-1] is packet:
            talker.send(seeds.message(b"Q", MARK + b"\0"))
            answered = await talker.until(b"\x06424242", 0, "the marker")
            counts["start-ups that made a session" if answered else "start-ups closed with a session"] += 1
        else:
            with contextlib.suppress(OSError):
                writer.write_eof()
            await talker.until(b"\0never\0", 0, "the end")
            found = re.search(rb"\0C([0-9A-Z]{5})\0", talker.heard)
            code = found[1].decode() if found else "as protocol 2 does"
            counts[f"start-ups refused {code}" if b"FATAL" in talker.heard else "start-ups that ended"] += 1
            if code == "XX000":
                raise AssertionError("internal error")
    finally:
        writer.close()
        await listening
    try:
        async with asyncio.timeout(PATIENCE_S):
            await at.settled()
    except TimeoutError:
        raise Left(f"sessions {at.listener.sessions()}, connections to the server {at.front.open}") from None
    at.front.backends.clear()
    if at.front.leaks:
        raise at.front.leaks.pop()
    if at.front.broken:
        raise at.front.broken.pop()
