"""Which texts may not run unasked, told by a mark and a reader of texts that have nothing to do with the product's.

Every privileged text of the fuzzer names `leak_N`. A statement counts as privileged when it is one of a few forms
around such a name, once what is quoted and commented is taken out; mutilated beyond these forms it is no longer the
statement it was.
"""

from __future__ import annotations

import re
from functools import lru_cache

FORMS = (
    "DROP TABLE leak_{}",
    "TRUNCATE leak_{}",
    "COPY leak_{} TO STDOUT",
    "DELETE FROM leak_{}",
    "CREATE TABLE leak_{} (a int)",
    "GRANT ALL ON leak_{} TO public",
    "SET ROLE leak_{}",
    "SELECT 1 INTO leak_{}",
    "NOTIFY leak_{}",
    "REINDEX TABLE leak_{}",
    "EXPLAIN ANALYZE DELETE FROM leak_{}",
)
PREPARABLE = "DELETE FROM leak_{}"

_PRIVILEGED = re.compile(
    "|".join(re.escape(form).replace(r"\ ", r"\s+").replace(r"\{\}", r"\d{1,9}") for form in FORMS),
    re.IGNORECASE | re.ASCII,
)
_MARK = re.compile(rb"leak_\d", re.IGNORECASE)
# With standard_conforming_strings on.
_HIDDEN = re.compile(
    r"""  [eE]'(?:[^'\\]|\\.|'')*'  |  '[^']*'  |  "[^"]*"  |  --[^\r\n]*  |  (\$\w*\$).*?\1  """,
    re.VERBOSE | re.DOTALL,
)
_SPACE = " \t\n\r\f\v"


def is_marked(data: bytes) -> bool:
    return _MARK.search(data) is not None


@lru_cache(maxsize=20_000)
def statements(text: str) -> tuple[str, ...]:
    """A string cut at its semicolons; comments gone, quoted things kept."""
    found, current, position = [], "", 0
    while position < len(text):
        if text.startswith("/*", position):
            position = _comment_end(text, position)
            current += " "
            continue
        hidden = _HIDDEN.match(text, position) if text[position] in "eE'\"-$" else None
        if hidden is not None:
            current += " " if hidden[0].startswith("--") else hidden[0]
            position = hidden.end()
        elif text[position] == ";":
            found.append(current.strip(_SPACE))
            current, position = "", position + 1
        else:
            current += text[position]
            position += 1
    found.append(current.strip(_SPACE))
    return tuple(s for s in found if s)


def _comment_end(text: str, position: int) -> int:
    depth, position = 1, position + 2
    while depth and position < len(text):
        if text.startswith("/*", position):
            depth, position = depth + 1, position + 2
        elif text.startswith("*/", position):
            depth, position = depth - 1, position + 2
        else:
            position += 1
    return position


def is_privileged(statement: str) -> bool:
    """Of one of `statements`."""
    return _PRIVILEGED.fullmatch(statement) is not None
