"""Parameter values as a reviewer reads them."""

from __future__ import annotations

import struct
import uuid
from datetime import UTC, date, datetime, timedelta
from typing import Any

# OIDs of the types drivers send most ("pg_type.dat" gives them for every server version).
TYPE_NAMES: dict[int, str] = {
    16: "bool", 17: "bytea", 18: "char", 19: "name", 20: "int8", 21: "int2", 23: "int4", 25: "text", 26: "oid",
    114: "json", 142: "xml", 600: "point", 650: "cidr", 700: "float4", 701: "float8", 790: "money",
    829: "macaddr", 869: "inet", 1000: "bool[]", 1005: "int2[]", 1007: "int4[]", 1009: "text[]", 1015: "varchar[]",
    1016: "int8[]", 1021: "float4[]", 1022: "float8[]", 1042: "bpchar", 1043: "varchar", 1082: "date",
    1083: "time", 1114: "timestamp", 1184: "timestamptz", 1186: "interval", 1266: "timetz", 1560: "bit",
    1562: "varbit", 1700: "numeric", 2205: "regclass", 2206: "regtype", 2950: "uuid", 2951: "uuid[]",
    3802: "jsonb", 3904: "int4range", 3926: "int8range",
}  # fmt: skip

_TEXTUAL = frozenset({18, 19, 25, 114, 142, 1042, 1043, 705, 0})
_FIXED: dict[int, tuple[str, int]] = {
    20: (">q", 8),
    21: (">h", 2),
    23: (">i", 4),
    26: (">I", 4),
    700: (">f", 4),
    701: (">d", 8),
}
_EPOCH = datetime(2000, 1, 1)
_MICROSECOND_TYPES = frozenset({1114, 1184})


def type_name(oid: int) -> str:
    """The type's name, or `oid N`; 0 is `unknown`, as the server calls what it must infer."""
    return "unknown" if oid == 0 else TYPE_NAMES.get(oid, f"oid {oid}")


def describe(value: bytes | None, oid: int, is_binary: bool, codec: str) -> dict[str, Any]:
    """`{"type", "value"}`: NULL is None; what cannot be shown as text is shown in hexadecimal, whole."""
    return {"type": type_name(oid), "value": None if value is None else _text(value, oid, is_binary, codec)}


def _text(value: bytes, oid: int, is_binary: bool, codec: str) -> str:
    if is_binary:
        try:
            shown = _binary(value, oid, codec)
        except (struct.error, ValueError, OverflowError):
            shown = None
        return shown if shown is not None else "\\x" + value.hex()
    try:
        return value.decode(codec)
    except UnicodeDecodeError:
        return "\\x" + value.hex()


def _binary(value: bytes, oid: int, codec: str) -> str | None:
    if oid in _FIXED:
        form, size = _FIXED[oid]
        return str(struct.unpack(form, value)[0]) if len(value) == size else None
    if oid == 0:
        text = value.decode(codec)
        return text if text.isprintable() else None
    if oid in _TEXTUAL:
        return value.decode(codec)
    if oid == 16:
        return {b"\x00": "false", b"\x01": "true"}.get(value)
    if oid == 3802:
        return value[1:].decode(codec) if value[:1] == b"\x01" else None
    if oid == 2950:
        return str(uuid.UUID(bytes=value))
    if oid == 1082:
        return (date(2000, 1, 1) + timedelta(days=struct.unpack(">i", value)[0])).isoformat()
    if oid in _MICROSECOND_TYPES:
        moment = _EPOCH + timedelta(microseconds=struct.unpack(">q", value)[0])
        return (moment.replace(tzinfo=UTC) if oid == 1184 else moment).isoformat(sep=" ")
    if oid == 1700:
        return _numeric(value)
    return None


def _numeric(value: bytes) -> str | None:
    """numeric's binary form: base-10000 digits, weight, sign, display scale ("numeric_send")."""
    count, weight, sign, scale = struct.unpack(">hhHH", value[:8])
    special = {0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}
    if sign in special:
        return special[sign]
    if len(value) != 8 + 2 * count or not -100 < weight < 1000:
        return None
    digits = struct.unpack(f">{count}h", value[8:])
    # Group i counts 10000 ** (weight - i); groups that are not sent are zero.
    shown = {i: f"{digit:04d}" for i, digit in enumerate(digits)}
    whole = "".join(shown.get(i, "0000") for i in range(weight + 1)).lstrip("0") or "0"
    fraction_groups = range(weight + 1, weight + 1 + (scale + 3) // 4)
    fraction = "".join(shown.get(i, "0000") for i in fraction_groups)[:scale]
    return ("-" if sign == 0x4000 else "") + whole + ("." + fraction if scale else "")
