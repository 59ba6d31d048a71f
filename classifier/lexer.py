"""An exact one-pass lexer for PostgreSQL: statement boundaries, comments blanked out, the cost of parsing, and
the text with its constants taken out.

It follows the server's scan rules ("Lexical Structure" in the manual) where they decide where tokens end:
only ASCII white space, nested block comments, operators cut at `--` and `/*`, strings continued over a
newline (an E'' string keeps its backslash rule across it), dollar tags, semicolons in parentheses and SQL
function bodies.

Why our own: libpg_query keeps comments as tokens, which changes its grammar (a comment between the two
strings of a DO makes it miss the statement behind it), so it only ever sees the blanked text; and a second,
independent view of the boundaries catches either of the two being fooled. Bytes, not characters: boundaries
are compared with the grammar's byte offsets, and every byte above 0x7f is a letter to PostgreSQL, so UTF-8
needs no decoding.

A loop over bytes and no regular expressions: mypyc compiles it (`setup.py`), and a statement then costs less
than one call of `re`. Every search forward is remembered or bounded, so that the time stays linear.
"""

from __future__ import annotations

from typing import Final

from classifier.literals import (
    CLOSE,
    COLON,
    COMMA,
    DIGIT,
    DOLLAR,
    DOT,
    IDENTIFIER,
    KINDS,
    LETTER,
    OPEN,
    OPERATOR,
    OTHER,
    QUOTE,
    SEMICOLON,
    SPACE,
    LexicalError,
    bits_end,
    block_end,
    digits_end,
    escape_end,
    has_newline,
    identifier_end,
    plain_end,
)
from classifier.rows import Rows

__all__ = ["Form", "LexicalError", "Scan", "Span", "TooHostile", "form", "scan"]

# Longer operators than NAMEDATALEN (64 bytes) the server refuses, and scanning them is quadratic in
# libpg_query.
MAX_OPERATOR_BYTES: Final = 64
MAX_NESTING: Final = 2_000  # parentheses and brackets; the server's max_stack_depth gives up at about 6,000
MAX_COMMENTS: Final = 10_000  # `/**/` repeated is quadratic in the server's lexer too
MAX_STATEMENTS: Final = 10_000
MAX_BYTES: Final = 16 * 1024 * 1024
# Operators, NOT, JOIN, UNION and their like in a row make a tree as deep as they are many. With the default
# max_stack_depth PostgreSQL 15 and 18 refuse 4,700 terms of `1+1…`, 9,200 of UNION and 18,300 of `::`.
MAX_CHAIN: Final = 10_000
MAX_TOKENS: Final = 400_000  # about two seconds of an analyser

# Beyond this length texts are searched for chains and for long VALUES lists.
LONG_BYTES: Final = 8 * 1024

# What may be normalised in the caller's own process: nothing that could need much of its stack or time.
SMALL_BYTES: Final = 8 * 1024
SMALL_NESTING: Final = 100
SMALL_OPERATORS: Final = 500
SMALL_COMMENTS: Final = 100

_CHAINING: Final = frozenset((b"join", b"union", b"intersect", b"except", b"not", b"collate", b"zone"))
_VALUES: Final[bytes] = b"values"
_CREATE: Final[bytes] = b"create"


class TooHostile(Exception):
    """The text passes a limit; the message says which."""


class Span:
    """One statement: offset of its first byte, and of the semicolon or the text's end behind its last."""

    def __init__(self, start: int, end: int) -> None:
        self.start: int = start
        self.end: int = end


class Scan:
    """What one pass over a text tells. `strings` are the bounds of its string constants, prefix included.

    In `blanked` everything stands where it stood, comments are white space, and so are the rows of a VALUES
    list behind its first hundred while they are only constants: they cost much and mean nothing more.
    """

    def __init__(
        self,
        blanked: bytes,
        spans: tuple[Span, ...],
        strings: tuple[tuple[int, int], ...],
        nesting: int,
        operators: int,
        comments: int,
        tokens: int,
    ) -> None:
        self.blanked: bytes = blanked
        self.spans: tuple[Span, ...] = spans
        self.strings: tuple[tuple[int, int], ...] = strings
        self.nesting: int = nesting
        self.operators: int = operators
        self.comments: int = comments
        self.tokens: int = tokens

    @property
    def is_small(self) -> bool:
        """Whether libpg_query may be given this text on an ordinary stack."""
        return (
            len(self.blanked) <= SMALL_BYTES
            and self.nesting <= SMALL_NESTING
            and self.operators <= SMALL_OPERATORS
            and self.comments <= SMALL_COMMENTS
        )


class Form:
    """A text without its constants: the same for two texts only if they are the same tokens otherwise.

    In `key` a NUL and a letter stand for a constant and its type, one space for a comment; `constants` are
    their bounds in the text, one after the other; `statements` is how many statements there are.
    """

    def __init__(self, key: bytes, constants: list[int], statements: int) -> None:
        self.key: bytes = key
        self.constants: list[int] = constants
        self.statements: int = statements


class _FunctionBody:
    """Follows BEGIN ATOMIC … END of a function in SQL ("CREATE FUNCTION"), whose semicolons end nothing."""

    def __init__(self) -> None:
        self._first: list[bytes] = []
        self._is_function: bool = False
        self._is_other: bool = False
        self.depth: int = 0

    def feed(self, word: bytes) -> None:
        """Takes the statement's next word in lower case, those in parentheses left out."""
        if self._is_other:
            return
        first = self._first
        if not self._is_function:
            first.append(word)
            size = len(first)
            if size == 1 or (size == 2 and word == b"or") or (size == 3 and word == b"replace"):
                return
            self._is_function = size != 3 and (word == b"function" or word == b"procedure")
            self._is_other = not self._is_function
            return
        if word == b"begin" or (word == b"case" and self.depth > 0):
            self.depth += 1
        elif word == b"end" and self.depth > 0:
            self.depth -= 1


def scan(text: bytes) -> Scan:
    """Cuts a text into statements.

    Raises:
        LexicalError: the server's own lexer refuses it.
        TooHostile: it is too long, too deep, or made to be slow.
    """
    result = _Pass(text, False)
    result.run()
    return result.scan()


def form(text: bytes) -> Form | None:
    """The text with its constants taken out; None where their bounds are not certain: U&'' (a string behind
    UESCAPE changes what an identifier means), numbers that not all versions read alike, a limit passed, an
    error."""
    try:
        result = _Pass(text, True)
        result.run()
    except (LexicalError, TooHostile):
        return None
    return result.form()


class _Pass:
    """One pass over a text. `for_form` chooses between the two results; the way is the same."""

    def __init__(self, text: bytes, for_form: bool) -> None:
        if len(text) > MAX_BYTES:
            raise TooHostile("the text is too long to be analysed")
        if text.find(b"\0") >= 0:
            raise TooHostile("the text holds a NUL byte")
        self._text: bytes = text
        self._for_form: bool = for_form
        self._doubtful: bool = False
        self._pieces: list[bytes] = []
        self._copied: int = 0
        self._bounds: list[int] = []  # of statements
        self._strings: list[tuple[int, int]] = []
        self._constants: list[int] = []
        self._deepest: int = 0
        self._operators: int = 0
        self._comments: int = 0
        self._tokens: int = 0
        self._carriage_return: int = -2  # where the next one is; -1: there is none, -2: not looked for

    def scan(self) -> Scan:
        """What was found, in place."""
        text = self._text
        if self._pieces:
            self._pieces.append(text[self._copied :])
            text = b"".join(self._pieces)
        bounds = self._bounds
        spans = tuple([Span(bounds[i], bounds[i + 1]) for i in range(0, len(bounds), 2)])
        return Scan(text, spans, tuple(self._strings), self._deepest, self._operators, self._comments, self._tokens)

    def form(self) -> Form | None:
        """What was found, constants taken out."""
        if self._doubtful:
            return None
        self._pieces.append(self._text[self._copied :])
        return Form(b"".join(self._pieces), self._constants, len(self._bounds) // 2)

    def run(self) -> None:
        """Walks through the text once."""
        text = self._text
        kinds = KINDS
        end = len(text)
        is_long = end > LONG_BYTES
        for_form = self._for_form
        position = 0
        start = -1  # of the statement under way; -1 between statements
        depth = 0
        chain = 0  # operators in a row
        links = 0  # JOIN, UNION and their like in this statement
        tokens = 0
        chains: list[int] = []  # the same outside the parentheses that are open
        string_end = -1  # the end of the last token, if that was a string
        commented = -1  # the end of the last block comment
        after_dot = False
        after_values = False
        rows: Rows | None = None
        dropped_from = -1
        dropped_to = -1
        body: _FunctionBody | None = None
        while position < end:
            kind = kinds[text[position]]
            if kind == SPACE:
                position += 1
                continue
            if position == dropped_from:  # the comma behind the last row that is kept
                if rows is not None:
                    self._strings.extend(rows.strings)
                self._replace(position, dropped_to)
                position = dropped_to
                continue
            if kind == OPERATOR:
                if self._begins(position, 0x2D, 0x2D):  # --
                    position = self._comment(position, self._line_end(position))
                    continue
                if self._begins(position, 0x2F, 0x2A):  # /*
                    position = self._comment(position, block_end(text, position))
                    commented = position
                    continue
            tokens += 1
            if tokens > MAX_TOKENS:
                raise TooHostile("the text holds too many words, numbers and signs")
            before = string_end
            string_end = -1
            was_values = after_values
            after_values = False
            was_dot = after_dot
            after_dot = False
            if kind == SEMICOLON:
                if depth == 0 and (body is None or body.depth == 0):
                    if start >= 0:
                        self._statement(start, position)
                    start = -1
                    body = None
                    links = 0
                chain = 0
                position += 1
                continue
            if start < 0:
                start = position
                if kind == LETTER:
                    after = self._word_end(position)
                    if after - position == 6 and text[position:after].lower() == _CREATE:
                        body = _FunctionBody()
            if kind == LETTER:
                prefix = self._string_prefix(position)
                if prefix < 0:  # no string
                    after = self._word_end(position)
                    if body is not None and depth == 0:
                        body.feed(text[position:after].lower())
                    if is_long:
                        size = after - position
                        if 3 <= size <= 9:
                            word = text[position:after].lower()
                            if word == _VALUES:
                                after_values = not was_dot
                            elif word in _CHAINING:
                                links += 1
                                if links > MAX_CHAIN:
                                    raise TooHostile("the text chains too many words like JOIN, UNION and NOT")
                    position = after
                    continue
                if prefix == 0:  # U&"
                    self._doubtful = True
                    position = identifier_end(text, position + 3)
                    continue
                self._string(position, prefix)
                position = string_end = self._strings[len(self._strings) - 1][1]
                continue
            if kind == QUOTE:
                if before >= 0 and commented > before and has_newline(text, before, position):
                    # blanked out, the comment would no longer keep the two strings apart
                    raise TooHostile("the text holds two strings with only a comment between them")
                self._string(position, 1)
                position = string_end = self._strings[len(self._strings) - 1][1]
                continue
            if kind == DIGIT:
                position = self._number(position) if for_form else digits_end(text, position, end)
            elif kind == COMMA:
                chain = 0
                position += 1
            elif kind == OPERATOR:
                after = self._operator_end(position)
                self._operators += after - position
                chain += 1
                if chain > MAX_CHAIN:
                    raise TooHostile("the text chains too many operators")
                position = after
            elif kind == OPEN:
                if is_long:
                    chains.append(chain)
                    chain = 0
                depth += 1
                if depth > self._deepest:
                    self._deepest = depth
                    if depth > MAX_NESTING:
                        raise TooHostile("the text is nested too deeply")
                if was_values and text[position] == 0x28:
                    rows = Rows(text)
                    rows.read(position)
                    dropped_from = rows.kept_end
                    dropped_to = rows.end
                position += 1
            elif kind == CLOSE:
                if depth > 0:
                    depth -= 1
                    if is_long:
                        chain = chains.pop()
                position += 1
            elif kind == IDENTIFIER:
                position = identifier_end(text, position + 1)
            elif kind == DOLLAR:
                after = self._dollar_quote(position)
                if after >= 0:
                    string_end = after
                else:
                    after = self._parameter(position)
                position = after
            elif kind == COLON:
                if self._begins(position, 0x3A, 0x3A):  # ::
                    chain += 1
                    if chain > MAX_CHAIN:
                        raise TooHostile("the text chains too many operators")
                    position += 1
                position += 1
            elif kind == DOT:
                if for_form and position + 1 < end and kinds[text[position + 1]] == DIGIT:
                    position = self._number(position)
                else:
                    after_dot = True
                    position += 1
            else:
                position += 1
        if start >= 0:
            self._statement(start, end)
        self._tokens = tokens

    def _begins(self, position: int, first: int, second: int) -> bool:
        text = self._text
        return position + 1 < len(text) and text[position] == first and text[position + 1] == second

    def _statement(self, start: int, end: int) -> None:
        self._bounds.append(start)
        self._bounds.append(end)
        if len(self._bounds) > 2 * MAX_STATEMENTS:
            raise TooHostile("the text holds too many statements")

    def _replace(self, start: int, end: int) -> None:
        """White space instead of a part of the text."""
        self._pieces.append(self._text[self._copied : start])
        self._pieces.append(b" " if self._for_form else b" " * (end - start))
        self._copied = end

    def _comment(self, start: int, end: int) -> int:
        self._comments += 1
        if self._comments > MAX_COMMENTS:
            raise TooHostile("the text holds too many comments")
        self._replace(start, end)
        return end

    def _constant(self, start: int, end: int, placeholder: bytes) -> None:
        self._constants.append(start)
        self._constants.append(end)
        self._pieces.append(self._text[self._copied : start])
        self._pieces.append(placeholder)
        self._copied = end

    def _line_end(self, position: int) -> int:
        """Where a `--` comment ends: before the next newline or carriage return."""
        text = self._text
        newline = text.find(b"\n", position)
        if newline < 0:
            newline = len(text)
        # the position of the next carriage return is remembered: most texts hold none
        if self._carriage_return != -1 and self._carriage_return < position:
            self._carriage_return = text.find(b"\r", position)
        if 0 <= self._carriage_return < newline:
            return self._carriage_return
        return newline

    def _word_end(self, position: int) -> int:
        text = self._text
        kinds = KINDS
        end = len(text)
        position += 1
        while position < end:
            kind = kinds[text[position]]
            if kind != LETTER and kind != DIGIT and kind != DOLLAR:
                break
            position += 1
        return position

    def _string_prefix(self, position: int) -> int:
        """How many bytes stand before a string's text, its opening quote included; 0 for a U&"" identifier,
        -1 for a word."""
        text = self._text
        left = len(text) - position
        if left < 2:
            return -1
        first = text[position]
        second = text[position + 1]
        if second == 0x27 and first in b"eEbBxXnN":
            return 2
        if second == 0x26 and left > 2 and first in b"uU":  # &
            third = text[position + 2]
            if third == 0x27:
                return 3
            if third == 0x22:
                return 0
        return -1

    def _string(self, start: int, prefix: int) -> None:
        """Passes a string constant with everything that continues it."""
        text = self._text
        first = text[start]
        after = start + prefix
        is_escape = prefix == 2 and first in b"eE"
        is_bits = prefix == 2 and first in b"bBxX"
        while True:
            if is_escape:
                after = escape_end(text, after)
            elif is_bits:
                after = bits_end(text, after)
            else:
                after = plain_end(text, after)
            gap = self._continuation(after)
            if gap < 0:
                break
            after = gap
        self._strings.append((start, after))
        if self._for_form:
            if prefix == 3:
                self._doubtful = True
            elif not is_bits:
                # N'' is NCHAR and a string
                self._constant(start + 1 if prefix == 2 and not is_escape else start, after, b"\0s")
            elif first in b"bB":
                self._constant(start, after, b"\0b")
            else:
                self._constant(start, after, b"\0x")

    def _continuation(self, position: int) -> int:
        """The offset behind the quote by which a string goes on, or -1. White space holding a newline must
        stand between; only `--` comments may be in it."""
        text = self._text
        kinds = KINDS
        end = len(text)
        after = position
        has_newline = False
        comments = 0
        while after < end:
            byte = text[after]
            if byte == 0x0A or byte == 0x0D:
                has_newline = True
                after += 1
            elif kinds[byte] == SPACE:
                after += 1
            elif byte == 0x2D and self._begins(after, 0x2D, 0x2D):
                after = self._line_end(after)
                comments += 1
            else:
                break
        if not has_newline or after >= end or text[after] != 0x27:
            return -1
        if comments > 0 and not self._for_form:
            self._comments += comments
            self._pieces.append(text[self._copied : position])
            self._pieces.append(b"\n" + b" " * (after - position - 1))
            self._copied = after
        return after + 1

    def _operator_end(self, position: int) -> int:
        text = self._text
        kinds = KINDS
        end = len(text)
        after = position + 1
        while after < end and kinds[text[after]] == OPERATOR:
            if self._begins(after, 0x2D, 0x2D) or self._begins(after, 0x2F, 0x2A):
                break
            after += 1
        if after - position > MAX_OPERATOR_BYTES:
            raise TooHostile("the text holds an operator longer than any can be")
        return after

    def _parameter(self, position: int) -> int:
        """Behind a parameter, or a dollar sign that is none."""
        text = self._text
        end = len(text)
        after = digits_end(text, position + 1, end)
        if after < end and KINDS[text[after]] == LETTER:
            # PostgreSQL 14 takes `$1a` for two tokens, and so does libpg_query
            raise LexicalError("trailing junk after parameter")
        return after

    def _dollar_quote(self, position: int) -> int:
        """Behind a dollar-quoted string, or -1 where none begins."""
        text = self._text
        kinds = KINDS
        end = len(text)
        after = position + 1
        kind = kinds[text[after]] if after < end else OTHER
        if kind == LETTER:
            while after < end and (kind in (LETTER, DIGIT)):
                after += 1
                kind = kinds[text[after]] if after < end else OTHER
        if kind != DOLLAR:
            return -1
        tag = text[position : after + 1]
        closing = text.find(tag, after + 1)
        if closing < 0:
            raise LexicalError("unterminated dollar-quoted string")
        after = closing + len(tag)
        self._strings.append((position, after))
        if self._for_form:
            self._constant(position, after, b"\0s")
        return after

    def _number(self, position: int) -> int:
        """Passes a decimal number and takes it out; anything else that begins with a digit is doubtful."""
        text = self._text
        kinds = KINDS
        end = len(text)
        after = digits_end(text, position, end)
        is_integer = True
        if after < end and text[after] == 0x2E:
            is_integer = False
            after = digits_end(text, after + 1, end)
        if after < end and (text[after] | 0x20) == 0x65:
            exponent = after + 1
            if exponent < end and (text[exponent] == 0x2B or text[exponent] == 0x2D):
                exponent += 1
            if digits_end(text, exponent, end) > exponent:
                is_integer = False
                after = digits_end(text, exponent, end)
        if after < end:
            kind = kinds[text[after]]
            if kind in (LETTER, DIGIT, DOT, DOLLAR):
                self._doubtful = True
                return after
        size = after - position
        if is_integer and size >= 10:
            # beyond an int4 the grammar has another token; leading zeros are for nobody
            if text[position] == 0x30:
                self._doubtful = True
                return after
            is_integer = size == 10 and text[position:after] <= b"2147483647"
        self._constant(position, after, b"\0i" if is_integer else b"\0f")
        return after
