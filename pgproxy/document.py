"""YAML text to plain data that remembers its lines, so that an error can name file, line and key. Pure.

PyYAML lets the last of two equal keys win without a word; here that is an error, since the first one may be
the control somebody relies on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

Place = tuple[str | int, ...]  # ("agents", 0, "name")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a document: where, which key, why."""

    source: str
    line: int | None
    key: str
    reason: str

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}" if self.line is not None else self.source
        return f"{where}: {self.key}: {self.reason}" if self.key else f"{where}: {self.reason}"


class DocumentError(Exception):
    """A document that cannot be used, with every problem found; `str()` is one line for each."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


@dataclass(slots=True)
class Document:
    """The data, and for every place in it where that was written: (source, line)."""

    source: str
    data: dict[str, Any]
    marks: dict[Place, tuple[str, int | None]] = field(default_factory=dict)

    def problem(self, place: Place, reason: str) -> Problem:
        """Blames `place`, or its nearest written parent (a missing key has no line of its own)."""
        for length in range(len(place), -1, -1):
            if place[:length] in self.marks:
                source, line = self.marks[place[:length]]
                return Problem(source, line, dotted(place), reason)
        return Problem(self.source, None, dotted(place), reason)


def dotted(place: Place) -> str:
    """("agents", 0, "name") as people write it: `agents[0].name`."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def parse(text: str, source: str) -> Document:
    """Raises `DocumentError` for what is not YAML, not a mapping, or says a key twice."""
    try:
        loader = yaml.SafeLoader(text)
    except yaml.YAMLError:
        raise DocumentError([Problem(source, None, "", "not YAML: an unreadable character")]) from None
    try:
        node = loader.get_single_node()
        document = Document(source, {}, {})
        if node is None:
            return document
        if not isinstance(node, yaml.MappingNode):
            raise DocumentError([Problem(source, 1, "", "the document must be a mapping of keys to values")])
        document.data = _Reader(loader, document).read(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = f"not YAML: {error.problem or error.context}"
        raise DocumentError([Problem(source, mark.line + 1 if mark else None, "", reason)]) from None
    except RecursionError:
        raise DocumentError([Problem(source, None, "", "nested too deeply")]) from None
    finally:
        loader.dispose()
    return document


class _Reader:
    """Walks a node tree. Anchors may be shared but not contain themselves."""

    def __init__(self, loader: yaml.SafeLoader, document: Document) -> None:
        self._loader = loader
        self._document = document
        self._open: set[int] = set()

    def read(self, node: yaml.Node, place: Place) -> Any:
        line = node.start_mark.line + 1
        self._document.marks.setdefault(place, (self._document.source, line))
        if isinstance(node, yaml.ScalarNode):
            try:
                return self._loader.construct_object(node)
            except ValueError:  # an impossible date
                raise DocumentError([self._document.problem(place, "a value YAML cannot read; quote it")]) from None
        if id(node) in self._open:
            raise DocumentError([self._document.problem(place, "an anchor that contains itself")])
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.read(item, (*place, index)) for index, item in enumerate(node.value)]
            return dict(self._pairs(node, place))
        finally:
            self._open.discard(id(node))

    def _pairs(self, node: yaml.Node, place: Place) -> Iterator[tuple[str, Any]]:
        seen: set[str] = set()
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise DocumentError([Problem(self._document.source, line, dotted(place), "a key must be a word")])
            key = str(key_node.value)  # as written: YAML 1.1 reads the word `on` as true
            if key in seen:
                raise DocumentError([Problem(self._document.source, line, dotted((*place, key)), "said twice")])
            seen.add(key)
            self._document.marks[(*place, key)] = (self._document.source, line)
            yield key, self.read(value_node, (*place, key))
