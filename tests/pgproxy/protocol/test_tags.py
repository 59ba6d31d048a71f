from __future__ import annotations

import re
from pathlib import Path

from pgproxy.protocol import tags
from pgproxy.protocol.framing import BACKEND_TYPES, FRONTEND_TYPES

SOURCE = Path(__file__).parents[3] / "pgproxy" / "protocol" / "tags.py"
LINES = re.findall(r"^(\w+): Final\[int\] = (0x[0-9A-F]{2})  # '(.)' (.+)$", SOURCE.read_text(), re.MULTILINE)


def test_each_type_byte_is_the_letter_its_comment_says() -> None:
    assert len(LINES) > 35
    for name, value, letter, _ in LINES:
        assert int(value, 16) == ord(letter) == getattr(tags, name), name


def test_framing_knows_exactly_the_named_types() -> None:
    source = SOURCE.read_text()
    _, frontend, both, rest = re.split(r"^# (?:Frontend|Both|Backend)$", source, flags=re.MULTILINE)
    backend = rest.split("# What Describe")[0]

    def letters(part: str) -> set[int]:
        return {int(value, 16) for value in re.findall(r"= (0x[0-9A-F]{2})", part)}

    assert letters(frontend) | letters(both) == set(FRONTEND_TYPES)
    assert letters(backend) | letters(both) == set(BACKEND_TYPES)


def test_request_codes_are_the_manuals() -> None:
    """1234 in the upper half, 5678 and on in the lower (manual: "Message Formats")."""
    assert tags.CANCEL_REQUEST == 1234 << 16 | 5678
    assert tags.SSL_REQUEST == 1234 << 16 | 5679
    assert tags.GSSENC_REQUEST == 1234 << 16 | 5680
