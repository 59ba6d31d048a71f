"""Long VALUES lists of constants, which bulk INSERTs are made of: where their rows end.

Part of the lexer (`lexer.py`), compiled with it.
"""

from __future__ import annotations

from typing import Final

from classifier.literals import (
    DIGIT,
    DOLLAR,
    DOT,
    KINDS,
    LETTER,
    QUOTE,
    SPACE,
    digits_end,
    find_escape_end,
    find_plain_end,
)

KEPT_ROWS: Final = 100


class Rows:
    """Reads a VALUES list for as long as its rows hold nothing but constants.

    Rows behind the first hundred are dropped before parsing: a column of constants has no effect, and VALUES
    is a word that nothing else can follow with such rows. `kept_end` and `end` are the bounds of what goes,
    both right behind a row; -1 when nothing does.
    """

    def __init__(self, text: bytes) -> None:
        self._text: bytes = text
        self._strings: list[tuple[int, int]] = []
        self.strings: list[tuple[int, int]] = []
        self.kept_end: int = -1
        self.end: int = -1

    def read(self, position: int) -> None:
        """Reads on from a row's opening parenthesis."""
        text = self._text
        end = len(text)
        rows = 0
        while True:
            position = self._row(position)
            if position < 0:
                break
            rows += 1
            if rows == KEPT_ROWS:
                self.kept_end = position
                self._strings = []
            elif rows > KEPT_ROWS:
                self.end = position
                self.strings.extend(self._strings)
                self._strings = []
            position = self._space(position)
            if position >= end or text[position] != 0x2C:
                break
            position = self._space(position + 1)
            if position >= end or text[position] != 0x28:
                break
        if self.end < 0:
            self.kept_end = -1
        elif self.kept_end >= 0:
            # the loop meets the end of what is kept at the next token, the comma
            self.kept_end = self._space(self.kept_end)

    def _space(self, position: int) -> int:
        text = self._text
        kinds = KINDS
        end = len(text)
        while position < end and kinds[text[position]] == SPACE:
            position += 1
        return position

    def _row(self, position: int) -> int:
        """Behind one row, or -1."""
        text = self._text
        end = len(text)
        while True:
            position = self._constant(self._space(position + 1))
            if position < 0:
                return -1
            position = self._space(position)
            if position >= end:
                return -1
            byte = text[position]
            if byte == 0x29:
                return position + 1
            if byte != 0x2C:
                return -1

    def _constant(self, position: int) -> int:
        """Behind one constant or parameter, or -1. What follows it is the caller's to judge."""
        text = self._text
        kinds = KINDS
        end = len(text)
        if position < end and (text[position] == 0x2B or text[position] == 0x2D):
            position += 1
            if position >= end or (kinds[text[position]] != DIGIT and text[position] != 0x2E):
                return -1
        if position >= end:
            return -1
        byte = text[position]
        kind = kinds[byte]
        if kind == QUOTE or ((byte | 0x20) == 0x65 and position + 1 < end and text[position + 1] == 0x27):
            quote = position if kind == QUOTE else position + 1
            # an unterminated one is for the main loop to tell
            after = find_plain_end(text, quote + 1) if kind == QUOTE else find_escape_end(text, quote + 1)
            if after >= 0:
                self._strings.append((position, after))
            return after
        if kind in (DIGIT, DOT):
            after = digits_end(text, position, end)
            digits = after - position
            if after < end and text[after] == 0x2E:
                point = after + 1
                after = digits_end(text, point, end)
                digits += after - point
            if digits == 0:
                return -1
            if after < end and (text[after] | 0x20) == 0x65:
                exponent = after + 1
                if exponent < end and (text[exponent] == 0x2B or text[exponent] == 0x2D):
                    exponent += 1
                after = digits_end(text, exponent, end)
                if after == exponent:
                    return -1
            return after
        if kind == DOLLAR:
            after = digits_end(text, position + 1, end)
            return after if after > position + 1 else -1
        if kind == LETTER:
            after = position + 1
            while after < end and after - position < 6 and kinds[text[after]] == LETTER:
                after += 1
            word = text[position:after].lower()
            return after if word == b"null" or word == b"true" or word == b"false" else -1
        return -1
