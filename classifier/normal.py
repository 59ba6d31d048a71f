"""The normal form under which a classification is remembered: what its constants may be and what they must be.

`lexer.form` takes every constant out of a text in about a microsecond. That is not yet enough to take two texts
for one: PostgreSQL's own normal form (libpg_query's, as pg_stat_statements makes it) keeps some constants, because
they are part of what the statement is, such as the 1 of ORDER BY 1 or the 20 of varchar(20). So the two are laid
side by side once, when an answer is learnt: the constants libpg_query keeps must be the same in every text the
answer is given to, and where the two do not fit together the answer is not remembered by its form at all.
"""

from __future__ import annotations

import re
from typing import Final

from classifier import grammar, lexer

# (which constant, counted from 0; its bytes), for the constants that must be the same
Kept = tuple[tuple[int, bytes], ...]

MAX_BYTES: Final = 32 * 1024  # lexing more than that is not for a process that serves sessions
_PLACE: Final = re.compile(rb"\$[0-9]+")


def learn(text: bytes) -> Kept | None:
    """The constants of a text that an answer for its form depends on; None when the form is good for nothing.

    libpg_query runs here, so this is for the process that analyses.
    """
    if len(text) > MAX_BYTES:
        return None
    form = lexer.form(text)
    if form is None:
        return None
    blanked = lexer.scan(text).blanked
    theirs = grammar.normalize(blanked)
    if theirs is None:
        return None
    kept: list[tuple[int, bytes]] = []
    bounds = form.constants
    copied = position = 0
    for number in range(len(bounds) // 2):
        start, end = bounds[2 * number], bounds[2 * number + 1]
        between = blanked[copied:start]
        if not theirs.startswith(between, position):
            # the grammar makes one constant of a sign and a number
            unsigned = between.rstrip()
            if not unsigned.endswith(b"-") or not theirs.startswith(unsigned[:-1], position):
                return None
            between = unsigned[:-1]
        position += len(between)
        copied = end
        constant = blanked[start:end]
        place = _PLACE.match(theirs, position)
        if place is not None:
            position = place.end()
        elif theirs.startswith(constant, position):
            position += len(constant)
            kept.append((number, constant))
        else:
            return None
    return tuple(kept) if theirs[position:] == blanked[copied:] else None


def holds(kept: Kept, form: lexer.Form, text: bytes) -> bool:
    """Whether a text has the constants it must have to be given the answer of its form."""
    bounds = form.constants
    return all(text[bounds[2 * number] : bounds[2 * number + 1]] == constant for number, constant in kept)
