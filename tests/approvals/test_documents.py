from __future__ import annotations

import json

import pytest

from approvals.documents import decode, encode, encode_bytes, storable


@pytest.mark.parametrize("value", ["\ud800", "\0", "\u202e", {"a": [1, None, True, 1.5, "é"]}, "x" * 100_000])
def test_what_json_can_hold_is_kept_exactly(value: object) -> None:
    assert decode(encode(value)) == value
    assert encode(value).isascii()


def test_what_json_cannot_hold_is_written_as_text() -> None:
    strict = json.loads(encode({"a": [float("nan"), float("inf")], "b": {1, 2}}), parse_constant=pytest.fail)
    assert strict["a"] == ["nan", "inf"]
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert json.loads(encode(deep)) == "(nested too deeply to be kept)"
    assert encode_bytes(1) == b"1"


def test_storable_text_has_no_nul_and_no_surrogate() -> None:
    assert storable("a\0b\ud800c") == "a\N{REPLACEMENT CHARACTER}b?c"
