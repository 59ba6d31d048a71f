"""Hostile text as HTML: SQL coloured by PostgreSQL's own lexical rules, and nothing in any text that stays hidden.

A reviewer who sees a comment where the server sees a statement approves something else. So this is no general
highlighter: nested comments, `E''` escapes, dollar quotes and their tags are read as in "Lexical Structure", in one
pass whose time is linear in the text. Only colours depend on it; every character is shown whatever it takes it for.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator

from markupsafe import Markup, escape

from approvals.display import is_shown

_WORDS = """
add all alter analyze and any as asc authorization begin between by call cascade case cast check close cluster
column comment commit constraint copy create cross current_user cursor database deallocate declare default
delete desc discard distinct do drop else end except execute exists explain extension fetch for foreign from
full function grant group having if ilike in index inner insert intersect into is join key language lateral
left like limit listen lock merge natural no not notify null offset on only or order outer over owner
partition policy prepare primary privileges procedure publication references refresh reindex release rename
replace reset restrict returning revoke right role rollback row rows rule savepoint schema security select
sequence server session set show similar start stdin stdout subscription superuser table tablespace temp
temporary then to transaction trigger truncate type union unique update user using vacuum values view when
where window with
"""
_KEYWORDS = frozenset(_WORDS.split())

_TOKEN = re.compile(
    r"""(?P<comment>--[^\n\r]*)
    | (?P<block>/\*)
    | (?P<string>[eE]'(?:[^'\\]|\\.|'')*+'? | (?:[bBxXnN]|[uU]&)?'(?:[^']|'')*+'?)
    | (?P<quoted>(?:[uU]&)?"(?:[^"]|"")*+"?)
    | (?P<dollar>\$(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)?\$)
    | (?P<parameter>\$[0-9]+)
    | (?P<number>(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)
    | (?P<word>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*)
    | (?P<rest>.)""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT_PART = re.compile(r"/\*|\*/")
_MARKED = re.compile(r"[^ -~\n]")
_PLAIN = re.compile(r"[ -~\n]+")
_WORD = re.compile(r"\w+")


def tokens(sql: str) -> Iterator[tuple[str, str]]:
    """Kind and text of each; the texts together are the whole input."""
    at = 0
    while at < len(sql):
        found = _TOKEN.match(sql, at)
        assert found is not None and found.lastgroup is not None
        kind, end = found.lastgroup, found.end()
        if kind == "block":
            kind, end = "comment", _end_of_comment(sql, end)
        elif kind == "dollar":
            close = sql.find(found[0], end)
            kind, end = "string", len(sql) if close < 0 else close + len(found[0])
        elif kind == "word":
            kind = "keyword" if found[0].lower() in _KEYWORDS else "name"
        yield kind, sql[at:end]
        at = end


def _end_of_comment(sql: str, at: int) -> int:
    depth = 1
    while depth:
        found = _COMMENT_PART.search(sql, at)
        if found is None:
            return len(sql)
        depth += 1 if found[0] == "/*" else -1
        at = found.end()
    return at


def highlight(sql: str) -> Markup:
    """The whole text, coloured."""
    parts: list[Markup] = []
    for kind, text in tokens(sql):
        shown = visible(text)
        parts.append(shown if kind in ("rest", "name") else Markup('<span class="t-{}">{}</span>').format(kind, shown))
    return Markup("").join(parts)


def first_part(text: str, most: int) -> str:
    """As much of a text's beginning as a page takes: `most` characters, of them a tenth that have to be marked one by
    one. Whoever shows it says how much more there is."""
    found = itertools.islice(_MARKED.finditer(text, 0, most), most // 10, None)
    beyond = next(found, None)
    return text[: most if beyond is None else beyond.start()]


def cut(value: object, most: int = 20_000) -> Markup:
    """Any text that may be long, for a place that has no room for all of it."""
    text = "" if value is None else str(value)
    shown = first_part(text, most)
    if len(shown) == len(text):
        return visible(text)
    return Markup('{} <strong class="warning">… {} more characters</strong>').format(
        visible(shown), len(text) - len(shown)
    )


def visible(value: object) -> Markup:
    """Any text, with what is hidden, reorders, or looks like another letter marked. Line ends stay."""
    text = "" if value is None else str(value)
    if _PLAIN.fullmatch(text):
        return escape(text)
    suspicious = _mixed(text)
    parts: list[Markup] = []
    at = 0
    while at < len(text):
        if plain := _PLAIN.match(text, at):
            parts.append(escape(plain[0]))
            at = plain.end()
            continue
        parts.append(_character(text[at], at in suspicious))
        at += 1
    return Markup("").join(parts)


def _character(char: str, suspicious: bool) -> Markup:
    name = f"U+{ord(char):04X} {unicodedata.name(char, '')}".strip()
    if not is_shown(char):
        return Markup('<span class="unseen" title="{}">⟦U+{}⟧</span>').format(name, f"{ord(char):04X}")
    if unicodedata.category(char)[0] not in "LNM":
        return escape(char)
    return Markup('<span class="{}" title="{}">{}</span>').format("mixed" if suspicious else "far", name, char)


def _mixed(text: str) -> frozenset[int]:
    """Places of letters beyond Latin in words that have Latin ones too: the likeliest disguise there is."""
    places: set[int] = set()
    for word in _WORD.finditer(text):
        if word[0].isascii() or not re.search("[A-Za-z]", word[0]):
            continue
        places.update(
            word.start() + offset
            for offset, char in enumerate(word[0])
            if char > "~" and not unicodedata.name(char, "").startswith("LATIN ")
        )
    return frozenset(places)
