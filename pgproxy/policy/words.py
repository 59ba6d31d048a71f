"""The words of a CEL expression, and what to say of a word that is not known."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<double>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)|(?P<int>\d+)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"""
    r"""|(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|(?P<op>&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()\[\]]))"""
)
RESERVED: Final = frozenset(
    {
        *("as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package"),
        *("namespace", "return", "var", "void", "while"),
    }
)


class ExpressionError(ValueError):
    """An expression that cannot be used; the message says where and why."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """What to say of a word that is not known."""
    known = list(known)
    close = difflib.get_close_matches(word, known, 1)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"


def tokens(text: str) -> Iterable[tuple[str, str, int]]:
    position = 0
    while text[position:].strip():
        found = _TOKEN.match(text, position)
        if found is None or found.lastgroup is None:
            at = position + len(text[position:]) - len(text[position:].lstrip())
            raise ExpressionError(f"at character {at + 1}: {text[at]!r} is not expected here")
        word = found[found.lastgroup]
        start = found.start(found.lastgroup)
        if found.lastgroup == "name" and word in RESERVED:
            raise ExpressionError(f"at character {start + 1}: {word!r} is a reserved word")
        yield found.lastgroup, word, start
        position = found.end()
    yield "end", "", len(text)
