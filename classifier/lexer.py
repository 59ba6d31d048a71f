"""An exact one-pass lexer for PostgreSQL: statement boundaries, comments blanked out, the cost of parsing.

It follows the server's scan rules ("Lexical Structure" in the manual) where they decide where tokens end:
only ASCII white space, nested block comments, operators cut at `--` and `/*`, strings continued over a
newline (an E'' string keeps its backslash rule across it), dollar tags, semicolons in parentheses and SQL
function bodies.

Why our own: libpg_query keeps comments as tokens, which changes its grammar (a comment between the two
strings of a DO makes it miss the statement behind it), so it only ever sees the blanked text; and a second,
independent view of the boundaries catches either of the two being fooled. Bytes, not characters: boundaries
are compared with the grammar's byte offsets, and every byte above 0x7f is a letter to PostgreSQL, so UTF-8
needs no decoding.

One compiled pattern per token and no state but the position, so that mypyc can compile the loop later.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

# Longer operators than NAMEDATALEN (64 bytes) the server refuses, and scanning them is quadratic in
# libpg_query.
MAX_OPERATOR_BYTES: Final = 64
MAX_NESTING: Final = 2_000  # parentheses and brackets; the server's max_stack_depth gives up at about 6,000
MAX_COMMENTS: Final = 10_000  # `/**/` repeated is quadratic in the server's lexer too
MAX_STATEMENTS: Final = 10_000
MAX_BYTES: Final = 16 * 1024 * 1024

# What may be normalised in the caller's own process: nothing that could need much of its stack or time.
SMALL_BYTES: Final = 8 * 1024
SMALL_NESTING: Final = 100
SMALL_OPERATORS: Final = 500
SMALL_COMMENTS: Final = 100

_SPACE = rb"[ \t\n\r\f\v]"
_LETTER = rb"A-Za-z_\x80-\xff"
# White space holding a newline and then a quote continues a string; only `--` comments may stand in it.
_CONTINUES = re.compile(
    rb"(?:[ \t\f\v]|--[^\n\r]*+)*+[\n\r](?:[ \t\n\r\f\v]|--[^\n\r]*+[\n\r])*+'",
)
_PLAIN_STRING = re.compile(rb"[^']*+(?:''[^']*+)*+'")
_ESCAPE_STRING = re.compile(rb"[^'\\]*+(?:(?:''|\\[\x00-\xff])[^'\\]*+)*+'", re.DOTALL)
_IDENTIFIER = re.compile(rb'[^"]*+(?:""[^"]*+)*+"')
_COMMENT_EDGE = re.compile(rb"/\*|\*/")
_LINE_COMMENT = re.compile(rb"--[^\n\r]*+")

_WORD = rb"(?![eE]'|[bBxXnN]'|[uU]&['\"])[" + _LETTER + rb"][" + _LETTER + rb"0-9$]*+"
_REST = (
    rb"|(?P<line>--[^\n\r]*+)"
    rb"|(?P<block>/\*)"
    rb"|(?P<escape>[eE]')"
    rb"|(?P<string>'|[bBxXnN]'|[uU]&')"
    rb"|(?P<quoted>\"|[uU]&\")"
    rb"|(?P<dollar>\$(?:[" + _LETTER + rb"][" + _LETTER + rb"0-9]*+)?\$)"
    rb"|(?P<operator>(?:(?!--|/\*)[~!@#^&|`?+\-*/%<>=])++)"
    rb"|(?P<open>[(\[])"
    rb"|(?P<close>[)\]])"
    rb"|(?P<semicolon>;)"
    rb"|(?P<other>[\x01-\x7f])"
)
_BY_WORD = re.compile(rb"(?P<space>" + _SPACE + rb"++)|(?P<word>" + _WORD + rb")|(?P<digits>\$?[0-9]++)" + _REST)
# Most texts hold no SQL function body, so their words need not be looked at one by one.
_BY_RUN = re.compile(rb"(?P<run>(?:[ \t\n\r\f\v,.:]|" + _WORD + rb"|\$?[0-9]++)++)" + _REST)
_ATOMIC = re.compile(rb"(?i)\batomic\b")


class LexicalError(Exception):
    """The server would refuse this text while scanning it, before running any of it."""


class TooHostile(Exception):
    """The text passes a limit; the message says which."""


@dataclass(frozen=True, slots=True)
class Span:
    """One statement: offset of its first byte, and of the semicolon or the text's end behind its last."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What one pass over a text tells. `strings` are the bounds of its string constants, prefix included."""

    blanked: bytes
    spans: tuple[Span, ...]
    strings: tuple[tuple[int, int], ...]
    nesting: int
    operators: int
    comments: int

    @property
    def is_small(self) -> bool:
        """Whether libpg_query may be given this text in a process that serves sessions."""
        return (
            len(self.blanked) <= SMALL_BYTES
            and self.nesting <= SMALL_NESTING
            and self.operators <= SMALL_OPERATORS
            and self.comments <= SMALL_COMMENTS
        )


class _FunctionBody:
    """Follows BEGIN ATOMIC … END of a function in SQL ("CREATE FUNCTION"), whose semicolons end nothing."""

    __slots__ = ("_depth", "_first")

    def __init__(self) -> None:
        self._first: list[bytes] = []
        self._depth = 0

    @property
    def is_open(self) -> bool:
        return self._depth > 0

    def feed(self, word: bytes) -> None:
        word = word.lower()
        if len(self._first) < 4:
            self._first.append(word)
        first = self._first
        kind = first[3:4] if first[1:3] == [b"or", b"replace"] else first[1:2]
        if first[0] != b"create" or kind not in ([b"function"], [b"procedure"]):
            return
        if word == b"begin" or (word == b"case" and self._depth > 0):
            self._depth += 1
        elif word == b"end" and self._depth > 0:
            self._depth -= 1


def _block_comment_end(text: bytes, start: int) -> int:
    """The offset behind a block comment; they nest."""
    depth = 1
    for edge in _COMMENT_EDGE.finditer(text, start + 2):
        depth += 1 if edge.group() == b"/*" else -1
        if depth == 0:
            return edge.end()
    raise LexicalError("unterminated /* comment")


def scan(text: bytes) -> Scan:
    """Cuts a text into statements.

    Raises:
        LexicalError: the server's own lexer refuses it.
        TooHostile: it is too long, too deep, or made to be slow.
    """
    if len(text) > MAX_BYTES:
        raise TooHostile("the text is too long to be analysed")
    if b"\0" in text:
        raise TooHostile("the text holds a NUL byte")
    pieces: list[bytes] = []
    copied = 0
    spans: list[Span] = []
    strings: list[tuple[int, int]] = []
    start = -1  # of the statement under way; -1 between statements
    depth = deepest = operators = comments = 0
    body = _FunctionBody() if _ATOMIC.search(text) else None
    position, end = 0, len(text)
    match = (_BY_RUN if body is None else _BY_WORD).match
    while position < end:
        token = match(text, position)
        if token is None:
            raise TooHostile("the text holds bytes the lexer does not know")
        kind = token.lastgroup
        after = token.end()
        if kind == "space":
            position = after
            continue
        if kind == "run":
            if start < 0:
                blank = len(token.group()) - len(token.group().lstrip())
                if position + blank < after:
                    start = position + blank
            position = after
            continue
        if kind == "line" or kind == "block":
            comments += 1
            if comments > MAX_COMMENTS:
                raise TooHostile("the text holds too many comments")
            if kind == "block":
                after = _block_comment_end(text, position)
            pieces.append(text[copied:position])
            pieces.append(b" " * (after - position))
            copied = position = after
            continue
        if kind == "semicolon":
            if depth == 0 and (body is None or not body.is_open):
                if start >= 0:
                    spans.append(Span(start, position))
                    if len(spans) > MAX_STATEMENTS:
                        raise TooHostile("the text holds too many statements")
                start = -1
                if body is not None:
                    body = _FunctionBody()
            position = after
            continue
        if start < 0:
            start = position
        if kind == "word":
            if body is not None and depth == 0:
                body.feed(token.group())
        elif kind == "operator":
            operators += after - position
            if after - position > MAX_OPERATOR_BYTES:
                raise TooHostile("the text holds an operator longer than any can be")
        elif kind == "open":
            depth += 1
            if depth > deepest:
                deepest = depth
                if depth > MAX_NESTING:
                    raise TooHostile("the text is nested too deeply")
        elif kind == "close":
            depth = depth - 1 if depth > 0 else 0
        elif kind == "string" or kind == "escape":
            pattern = _ESCAPE_STRING if kind == "escape" else _PLAIN_STRING
            while True:
                found = pattern.match(text, after)
                if found is None:
                    raise LexicalError("unterminated quoted string")
                after = found.end()
                gap = _CONTINUES.match(text, after)
                if gap is None:
                    break
                for comment in _LINE_COMMENT.finditer(text, after, gap.end() - 1):
                    comments += 1
                    pieces.append(text[copied : comment.start()])
                    pieces.append(b" " * (comment.end() - comment.start()))
                    copied = comment.end()
                after = gap.end()
            strings.append((position, after))
        elif kind == "quoted":
            found = _IDENTIFIER.match(text, after)
            if found is None:
                raise LexicalError("unterminated quoted identifier")
            after = found.end()
        elif kind == "dollar":
            tag = token.group()
            closing = text.find(tag, after)
            if closing < 0:
                raise LexicalError("unterminated dollar-quoted string")
            after = closing + len(tag)
            strings.append((position, after))
        position = after
    if start >= 0:
        spans.append(Span(start, end))
    if pieces:
        pieces.append(text[copied:])
        text = b"".join(pieces)
    return Scan(text, tuple(spans), tuple(strings), deepest, operators, comments)
