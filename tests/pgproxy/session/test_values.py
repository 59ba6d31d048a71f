from __future__ import annotations

import struct
import uuid

import pytest

from pgproxy.session.values import describe


@pytest.mark.parametrize(
    ("value", "oid", "is_binary", "shown"),
    [
        (None, 25, False, None),
        ("é".encode(), 25, False, "é"),
        (b"\xff", 25, False, "\\xff"),
        (struct.pack(">i", -7), 23, True, "-7"),
        (b"\x00", 23, True, "\\x00"),
        (b"\x01", 16, True, "true"),
        (struct.pack(">i", 366), 1082, True, "2001-01-01"),
        (struct.pack(">q", 1_500_000), 1114, True, "2000-01-01 00:00:01.500000"),
        (struct.pack(">i", 2**31 - 1), 1082, True, "\\x7fffffff"),
        (uuid.UUID(int=5).bytes, 2950, True, str(uuid.UUID(int=5))),
        (b'\x01{"a":1}', 3802, True, '{"a":1}'),
        (struct.pack(">hhHHhh", 2, 0, 0, 2, 12, 3400), 1700, True, "12.34"),
        (struct.pack(">hhHHh", 1, 1, 0x4000, 0, 5), 1700, True, "-50000"),
        (struct.pack(">hhHHh", 1, -2, 0, 8, 5), 1700, True, "0.00000005"),
        (struct.pack(">hhHH", 0, 0, 0xC000, 0), 1700, True, "NaN"),
        (struct.pack(">hhHH", 9, 0, 0, 0), 1700, True, "\\x" + struct.pack(">hhHH", 9, 0, 0, 0).hex()),
        (b"\x00\x01", 17, True, "\\x0001"),
    ],
)
def test_values_as_a_reviewer_reads_them(value: bytes | None, oid: int, is_binary: bool, shown: str | None) -> None:
    assert describe(value, oid, is_binary, "utf-8")["value"] == shown
