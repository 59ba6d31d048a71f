"""What a byte begins, and where a token that began goes on to: digits, strings, quoted identifiers, comments.

The functions that look for an end say -1 where there is none, or raise what the server's own lexer would. None looks
at a byte twice. Part of the lexer (`lexer.py`), compiled with it.
"""

from __future__ import annotations

from typing import Final

# What a byte begins.
OTHER: Final = 0
SPACE: Final = 1
LETTER: Final = 2
DIGIT: Final = 3
QUOTE: Final = 4
IDENTIFIER: Final = 5
DOLLAR: Final = 6
OPERATOR: Final = 7
OPEN: Final = 8
CLOSE: Final = 9
SEMICOLON: Final = 10
COMMA: Final = 11
DOT: Final = 12
COLON: Final = 13


def _table() -> bytes:
    kinds = [LETTER if byte >= 0x80 else OTHER for byte in range(256)]
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"
    for members, kind in (
        (b" \t\n\r\f\v", SPACE),
        (letters, LETTER),
        (b"0123456789", DIGIT),
        (b"'", QUOTE),
        (b'"', IDENTIFIER),
        (b"$", DOLLAR),
        (b"~!@#^&|`?+-*/%<>=", OPERATOR),
        (b"([", OPEN),
        (b")]", CLOSE),
        (b";", SEMICOLON),
        (b",", COMMA),
        (b".", DOT),
        (b":", COLON),
    ):
        for byte in members:
            kinds[byte] = kind
    return bytes(kinds)


KINDS: Final[bytes] = _table()


class LexicalError(Exception):
    """The server would refuse this text while scanning it, before running any of it."""


def digits_end(text: bytes, position: int, end: int) -> int:
    while position < end and 0x30 <= text[position] <= 0x39:
        position += 1
    return position


def find_plain_end(text: bytes, position: int) -> int:
    """Behind the closing quote, or -1; two quotes are one."""
    end = len(text)
    while True:
        quote = text.find(b"'", position)
        if quote < 0:
            return -1
        position = quote + 1
        if position >= end or text[position] != 0x27:
            return position
        position += 1


def find_escape_end(text: bytes, position: int) -> int:
    """As `find_plain_end`, where a backslash hides the byte behind it."""
    end = len(text)
    quote = -1
    backslash = text.find(b"\\", position)
    while True:
        if quote < position:
            quote = text.find(b"'", position)
            if quote < 0:
                return -1
        if 0 <= backslash < quote:
            position = backslash + 2
            backslash = text.find(b"\\", position)
            continue
        position = quote + 1
        if position >= end or text[position] != 0x27:
            return position
        position += 1


def plain_end(text: bytes, position: int) -> int:
    after = find_plain_end(text, position)
    if after < 0:
        raise LexicalError("unterminated quoted string")
    return after


def escape_end(text: bytes, position: int) -> int:
    after = find_escape_end(text, position)
    if after < 0:
        raise LexicalError("unterminated quoted string")
    return after


def bits_end(text: bytes, position: int) -> int:
    """B'' and X'' know no doubled quote."""
    quote = text.find(b"'", position)
    if quote < 0:
        raise LexicalError("unterminated quoted string")
    return quote + 1


def identifier_end(text: bytes, position: int) -> int:
    """Behind the closing quote of an identifier; two quotes are one."""
    end = len(text)
    while True:
        quote = text.find(b'"', position)
        if quote < 0:
            raise LexicalError("unterminated quoted identifier")
        position = quote + 1
        if position >= end or text[position] != 0x22:
            return position
        position += 1


def block_end(text: bytes, start: int) -> int:
    """Behind a block comment; they nest."""
    depth = 1
    position = start + 2
    opening = text.find(b"/*", position)
    closing = text.find(b"*/", position)
    while closing >= 0:
        if 0 <= opening < closing:
            depth += 1
            position = opening + 2
        else:
            depth -= 1
            position = closing + 2
            if depth == 0:
                return position
        if 0 <= opening < position:
            opening = text.find(b"/*", position)
        if closing < position:
            closing = text.find(b"*/", position)
    raise LexicalError("unterminated /* comment")


def has_newline(text: bytes, start: int, end: int) -> bool:
    return text.find(b"\n", start, end) >= 0 or text.find(b"\r", start, end) >= 0
