"""What is done to a recorded conversation: a list of messages in, a list of messages out, by one source of chance."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.fuzz import oracle
from tests.fuzz.seeds import message

Messages = list[bytes]
NAMES = [b"", b"x", b"y", b"one", b"n" * 62, b"n" * 63, b"n" * 64, b"n" * 65, "é".encode() * 31, "é".encode() * 32]
SYNC, FLUSH = message(b"S", b""), message(b"H", b"")
_HARMLESS = [
    b"select 1", b"begin", b"commit", b"rollback", b"savepoint s", b"rollback to s", b"select 1/0", b"",
    b"copy t from stdin", b"execute x", b"execute y", b"deallocate x", b"deallocate all", b"discard all",
    b"prepare x as select 1", b"prepare y as insert into t values (1)", b"select generate_series(1, 5)",
    b"set search_path to other", b"copy t from stdin; copy t from stdin; select 1", b"selct 1", b"close all",
    b"set client_encoding to latin1", b"set client_encoding to utf8", b"begin; insert into t values (1)",
    b"prepare x as select 1; select 1/0", b"deallocate x; prepare x as select 2", b"fetch all c",
]  # fmt: skip


def privileged(chance: random.Random) -> bytes:
    return chance.choice(oracle.FORMS).format(chance.randrange(20)).encode()


def text(chance: random.Random) -> bytes:
    kind = chance.randrange(6)
    if kind == 0:
        return privileged(chance)
    if kind == 1:
        prepared = oracle.PREPARABLE.format(chance.randrange(20)).encode()
        return b"prepare %s as %s" % (chance.choice([b"x", b"y"]), prepared)
    if kind == 2:
        return b"; ".join([chance.choice(_HARMLESS), chance.choice([privileged(chance), chance.choice(_HARMLESS)])])
    return chance.choice(_HARMLESS)


def parse(name: bytes, sql: bytes, types: int = 0) -> bytes:
    return message(b"P", name + b"\0" + sql + b"\0" + types.to_bytes(2, "big") + b"\0\0\0\x17" * types)


def bind(portal: bytes, name: bytes, *values: bytes) -> bytes:
    body = portal + b"\0" + name + b"\0\0\0" + len(values).to_bytes(2, "big")
    return message(b"B", body + b"".join(len(v).to_bytes(4, "big") + v for v in values) + b"\0\0")


def execute(portal: bytes, rows: int = 0) -> bytes:
    return message(b"E", portal + b"\0" + rows.to_bytes(4, "big"))


def any_message(chance: random.Random) -> bytes:
    """One that fits no phase in particular."""
    name, portal = chance.choice(NAMES), chance.choice([b"", b"p", b"q", b"n" * 64])
    target = chance.choice([b"S" + name, b"P" + portal])
    return chance.choice(
        [
            lambda: message(b"Q", text(chance) + b"\0"),
            lambda: message(b"Q", text(chance) + b"\0"),
            lambda: parse(name, text(chance)),
            lambda: parse(name, text(chance)),
            lambda: bind(portal, name),
            lambda: bind(portal, name),
            lambda: execute(portal, chance.choice([0, 0, 1, 2, 0x7FFFFFFF, 0xFFFFFFFF])),
            lambda: execute(portal),
            lambda: message(b"D", target + b"\0"),
            lambda: message(b"C", target + b"\0"),
            lambda: SYNC,
            lambda: SYNC,
            lambda: FLUSH,
            lambda: message(b"d", chance.choice([b"1\tx\n", b"BAD\n", message(b"Q", privileged(chance) + b"\0")])),
            lambda: message(b"c", b""),
            lambda: message(b"f", b"no\0"),
            lambda: message(b"F", chance.randrange(3000).to_bytes(4, "big") + b"\0\0\0\0\0\0"),
        ]
    )()


def _move(chance: random.Random) -> Messages:
    name, portal = chance.choice([b"x", b"y", b""]), chance.choice([b"p", b"p", b""])
    by_name = chance.choice([b"execute x", b"execute y", b"deallocate x", b"deallocate y"])
    match chance.randrange(8):
        case 0:
            return [parse(name, text(chance))]
        case 1:
            return [parse(name, chance.choice([by_name, by_name, privileged(chance)]))]
        case 2:
            return [bind(portal, name)]
        case 3:
            return [execute(portal, chance.choice([0, 1]))]
        case 4:
            return [bind(portal, name), execute(portal)]
        case 5:
            return [message(b"Q", text(chance) + b"\0")]
        case 6:
            return [message(b"Q", by_name + b"\0")]
        case _:
            return [message(b"C", chance.choice([b"Sx", b"Sy", b"S", b"Pp"]) + b"\0")]


def story(chance: random.Random, messages: Messages, other: Messages) -> Messages:
    """Moves of somebody who knows the rules: few names, whole batches, a transaction that keeps portals open."""
    moves = [message(b"Q", b"begin\0")] if chance.random() < 0.7 else []
    for _ in range(chance.choice([3, 5, 8, 12])):
        moves += _move(chance) + chance.choice([[SYNC], [SYNC], [FLUSH], []])
    at = chance.randrange(len(messages) + 1)
    return [*messages[:at], *moves, *messages[at:]]


def remake(chance: random.Random, messages: Messages, other: Messages) -> Messages:
    """A name is made, relied upon, made anew, and what relies on it runs; any step may be missing or come otherwise."""
    inner, outer, portal = b"x", chance.choice([b"y", b"e"]), chance.choice([b"p", b"p", b""])

    def made(name: bytes, sql: bytes) -> bytes:
        if chance.random() < 0.7 or oracle.is_privileged(sql.decode()):
            return parse(name, sql)
        return message(b"Q", b"prepare %s as %s\0" % (name, sql))

    gone = [b"deallocate " + inner, b"deallocate all"]
    steps = [
        made(inner, chance.choice([b"select 1", b"insert into t values (1)"])),
        parse(outer, b"execute " + inner),
        message(b"Q", b"begin\0"),
        bind(portal, outer),
        chance.choice([message(b"C", b"S" + inner + b"\0"), message(b"Q", chance.choice(gone) + b"\0")]),
        made(inner, chance.choice([privileged(chance), oracle.PREPARABLE.format(7).encode()])),
        execute(portal),
        chance.choice([bind(b"", outer) + execute(b""), message(b"Q", b"execute %s\0" % inner)]),
    ]
    moves: Messages = []
    for step in steps:
        if chance.random() < 0.07:
            continue
        moves.append(step)
        if chance.random() < 0.07:
            moves.append(any_message(chance))
        moves += chance.choice([[SYNC], [SYNC], [FLUSH], []])
    at = chance.randrange(len(messages) + 1)
    return [*messages[:at], *moves, *messages[at:]]


def _position(chance: random.Random, messages: Messages) -> int:
    return chance.randrange(len(messages)) if messages else 0


def insert(chance: random.Random, messages: Messages, other: Messages) -> Messages:
    at = chance.randrange(len(messages) + 1)
    return [*messages[:at], *(any_message(chance) for _ in range(chance.choice([1, 1, 2, 5]))), *messages[at:]]


def as_drivers_do(chance: random.Random, messages: Messages, other: Messages) -> Messages:
    at = chance.randrange(len(messages) + 1)
    batch = [parse(b"", text(chance)), bind(b"", b""), execute(b""), SYNC]
    return [*messages[:at], *batch, *messages[at:]]


def duplicate(chance: random.Random, messages: Messages, other: Messages) -> Messages:
    at, size = _position(chance, messages), chance.choice([1, 1, 3, 6])
    return [*messages[: at + size], *messages[at : at + size], *messages[at + size :]]


def delete(chance: random.Random, messages: Messages, other: Messages) -> Messages:
    at, size = _position(chance, messages), chance.choice([1, 1, 2, 5])
    return messages[:at] + messages[at + size :]


def swap(chance: random.Random, messages: Messages, other: Messages) -> Messages:
    if messages:
        a, b = _position(chance, messages), _position(chance, messages)
        messages[a], messages[b] = messages[b], messages[a]
    return messages


def reorder(chance: random.Random, messages: Messages, other: Messages) -> Messages:
    at = _position(chance, messages)
    window = messages[at : at + 8]
    chance.shuffle(window)
    return messages[:at] + window + messages[at + 8 :]


def splice(chance: random.Random, messages: Messages, other: Messages) -> Messages:
    return messages[: _position(chance, messages)] + other[_position(chance, other) :]


def interleave(chance: random.Random, messages: Messages, other: Messages) -> Messages:
    mixed, left, right = Messages(), list(messages), list(other[:20])
    while left or right:
        mixed.append((left if left and (not right or chance.random() < 0.6) else right).pop(0))
    return mixed


def flip_bits(chance: random.Random, messages: Messages, other: Messages) -> Messages:
    if messages:
        at = _position(chance, messages)
        changed = bytearray(messages[at])
        for _ in range(chance.choice([1, 1, 2, 8])):
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        messages[at] = bytes(changed)
    return messages


def lie_about_length(chance: random.Random, messages: Messages, other: Messages) -> Messages:
    if messages:
        at = _position(chance, messages)
        m = messages[at]
        real = len(m) - 1
        lengths = [real - 1, real + 1, real + 5, 0, 3, 4, 0xFFFF, 0x100000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
        messages[at] = m[:1] + (max(0, chance.choice(lengths)) & 0xFFFFFFFF).to_bytes(4, "big") + m[5:]
    return messages


def mutilate_text(chance: random.Random, messages: Messages, other: Messages) -> Messages:
    """Cut off, with a NUL in it, no UTF-8, or much longer; the length word fits."""
    if messages:
        at = _position(chance, messages)
        kind, body = messages[at][:1], messages[at][5:]
        cut = chance.randrange(len(body) + 1)
        pieces = [b"", b"\0", b"\xff\xfe", b"\xe2\x82", b"'", b"\\'", b"--", b"/*", b"$$", b";", b"x" * 70, b"\0\0\0\0"]
        messages[at] = message(
            kind, body[:cut] + chance.choice(pieces) + body[cut if chance.random() < 0.8 else cut + 9 :]
        )
    return messages


def rename(chance: random.Random, messages: Messages, other: Messages) -> Messages:
    """Every Parse, Bind, Describe and Close of one stretch speaks of one of a few names, at the limit of 63 bytes."""
    at, names = _position(chance, messages), chance.sample(NAMES, 2)
    for i in range(at, min(at + 12, len(messages))):
        kind, body = messages[i][:1], messages[i][5:]
        name = chance.choice(names)
        if kind == b"P" and b"\0" in body:
            messages[i] = message(kind, name + body[body.index(b"\0") :])
        elif kind == b"B" and body.count(b"\0") > 1:
            portal, _, rest = body.split(b"\0", 2)
            messages[i] = message(kind, b"\0".join([portal, name, rest]))
        elif kind in (b"D", b"C") and body[:1] == b"S":
            messages[i] = message(kind, b"S" + name + b"\0")
    return messages


def count_too_many(chance: random.Random, messages: Messages, other: Messages) -> Messages:
    count = chance.choice([b"\xff\xff", b"\x7f\xff", b"\0\x09"])
    made = [
        message(b"P", b"\0select 1\0" + count),
        message(b"B", b"\0\0\0\0" + count + b"\0\0\0\x01x"),
        message(b"B", b"\0\0" + count + b"\0\0\0\0"),
        message(b"B", b"\0\0\0\0\0\x01\x7f\xff\xff\xff" + b"x\0\0"),
        message(b"F", b"\0\0\x03\xb9" + count + b"\0\0\0\0"),
    ]
    at = chance.randrange(len(messages) + 1)
    return [*messages[:at], chance.choice(made), *messages[at:]]


def wrong_phase(chance: random.Random, messages: Messages, other: Messages) -> Messages:
    made = [
        message(b"p", b"secret\0"),
        message(b"X", b""),
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        bytes([chance.randrange(256)]),
    ]
    at = chance.randrange(len(messages) + 1)
    return [*messages[:at], chance.choice(made), *messages[at:]]


def put_privileged(chance: random.Random, messages: Messages, other: Messages) -> Messages:
    """In place of a harmless text, in one place or in many."""
    share = chance.choice([0.1, 0.3, 1.0])
    for i, m in enumerate(messages):
        if chance.random() >= share:
            continue
        if m[:1] == b"Q":
            messages[i] = message(b"Q", privileged(chance) + b"\0")
        elif m[:1] == b"P" and m[5:].count(b"\0") > 1:
            name, _, rest = m[5:].split(b"\0", 2)
            messages[i] = message(b"P", b"\0".join([name, privileged(chance), rest]))
    return messages


Mutation = Callable[[random.Random, Messages, Messages], Messages]
ALL: list[Mutation] = [
    insert, insert, remake, remake, story, story, as_drivers_do, duplicate, delete, swap, reorder, splice, interleave,
    mutilate_text, rename, rename, put_privileged, put_privileged,
]  # fmt: skip
# After these the connection mostly ends, so they come seldom.
BREAKING: list[Mutation] = [flip_bits, lie_about_length, count_too_many, wrong_phase]


def mutated(chance: random.Random, messages: Messages, other: Messages) -> Messages:
    for _ in range(chance.choice([1, 2, 3, 4, 6])):
        kinds = BREAKING if chance.random() < 0.08 else ALL
        messages = chance.choice(kinds)(chance, list(messages), list(other))
    return messages[:120]
