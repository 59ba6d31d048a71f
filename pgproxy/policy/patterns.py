"""Patterns of names as psql's `\\d` takes them: `*` for any run of characters, `?` for one; what is not quoted is
folded to lower case, as PostgreSQL folds names; in double quotes every character is itself.

A relation's pattern has up to two parts, `schema.relation`; without a schema it means that name in every schema. A
column's has three. Names of agents, owners, databases and verbs have one part and keep their case.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

_PART = re.compile(r'(?:"(?:[^"]|"")*"|[^".])+')
_PIECE = re.compile(r'"((?:[^"]|"")*)"|([^"]+)')


Path = tuple[str, ...] | None  # None: not known


class PatternError(ValueError):
    """A pattern that cannot be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern of one name, compared as text in full."""

    text: str
    _matches: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.text:
            raise PatternError("is empty")
        object.__setattr__(self, "_matches", _compiled(self.text.replace("[", "[[]")))

    def matches(self, name: str) -> bool:
        return self._matches.match(name) is not None


@dataclass(frozen=True, slots=True)
class RelationPattern:
    """`billing.*`, `customers`, `"Odd Name".*`."""

    text: str
    canonical: str = field(init=False, repr=False, compare=False)  # equal for patterns that mean the same
    _schema: re.Pattern[str] | None = field(init=False, repr=False, compare=False)  # None: any
    _name: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = _parts(self.text)
        if len(parts) > 2:
            raise PatternError("must be relation or schema.relation")
        schema, name = _glob(parts[0]) if len(parts) == 2 else "*", _glob(parts[-1])
        object.__setattr__(self, "canonical", f"{schema}\0{name}")
        object.__setattr__(self, "_schema", None if schema == "*" else _compiled(schema))
        object.__setattr__(self, "_name", _compiled(name))

    def may_match(self, name: str, path: Path) -> bool:
        """Whether a relation written like this may be meant, names without a schema being looked for in `path`."""
        schema, relation = split_name(name)
        if self._name.match(relation) is None:
            return False
        if self._schema is None:
            return True
        if schema is not None:
            return self._schema.match(schema) is not None
        return path is None or any(self._schema.match(s) is not None for s in (*path, "pg_temp", "pg_catalog"))

    def surely_matches(self, name: str, path: Path) -> bool:
        """Whether a relation written like this is meant wherever in `path` it is found. (A temporary one may hide it,
        but what may be done to it may be done to that.)"""
        schema, relation = split_name(name)
        if self._name.match(relation) is None:
            return False
        if self._schema is None:
            return True
        if schema is not None:
            return self._schema.match(schema) is not None
        where = [s for s in path or () if s != "pg_catalog"]
        return bool(where) and not relation.startswith("pg_") and all(self._schema.match(s) is not None for s in where)


@dataclass(frozen=True, slots=True)
class ColumnPattern:
    """`public.customers.email`, `hr.*.salary`."""

    text: str
    relation: RelationPattern = field(init=False, repr=False, compare=False)
    canonical: str = field(init=False, repr=False, compare=False)
    _column: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = _parts(self.text)
        if len(parts) != 3:
            raise PatternError("must be schema.relation.column (with * for any)")
        object.__setattr__(self, "relation", RelationPattern(".".join(parts[:2])))
        column = _glob(parts[2])
        object.__setattr__(self, "canonical", f"{self.relation.canonical}\0{column}")
        object.__setattr__(self, "_column", _compiled(column))

    def has_column(self, names: Iterable[str]) -> bool:
        """Whether one of these names is the column's."""
        return any(self._column.match(name) is not None for name in names)


@lru_cache(maxsize=4096)
def split_name(name: str) -> tuple[str | None, str]:
    """A relation's name as a classification writes it: a part with a dot or a quote in it is quoted."""
    parts = [quoted.replace('""', '"') if quoted else plain for quoted, plain in _NAME.findall(name)]
    return (parts[0], parts[1]) if len(parts) == 2 else (None, parts[0] if parts else "")


_NAME = re.compile(r'"((?:[^"]|"")+)"|([^."]+)')


def _parts(text: str) -> list[str]:
    parts = _PART.findall(text)
    if not text or ".".join(parts) != text:
        raise PatternError("is not a name: a part is empty, or a quote is not closed")
    return parts


def _glob(part: str) -> str:
    """One part of a pattern in the spelling of `fnmatch`, where `[*]` is a star and nothing else."""
    pieces = []
    for quoted, plain in _PIECE.findall(part):
        pieces.append(plain.lower().replace("[", "[[]") if plain else _literal(quoted.replace('""', '"')))
    return re.sub(r"(?<!\[)\*+(?!\])", "*", "".join(pieces))


def _literal(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


@lru_cache(maxsize=4096)
def _compiled(glob: str) -> re.Pattern[str]:
    """`fnmatch.translate` makes atomic groups, so no name makes the search long."""
    return re.compile(fnmatch.translate(glob))
