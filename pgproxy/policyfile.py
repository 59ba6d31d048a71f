"""Policy files: from a path or a configuration's `policy` to checked rules, every problem with file, line and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from pgproxy.document import Document, DocumentError, Place, Problem, parse
from pgproxy.policy import RulesError, RuleSet, read_rules


class Read(NamedTuple):
    """A policy as plain data, the document it stands in and where, for further problems, and its rules."""

    data: dict[str, Any]
    document: Document
    place: Place
    rules: RuleSet


def load_policy(path: Path) -> tuple[Document, RuleSet]:
    """A policy file's document and its rules. Raises `DocumentError` with every problem found."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DocumentError([Problem(str(path), None, "", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise DocumentError([Problem(str(path), None, "", "is not UTF-8")]) from None
    document = parse(text, str(path))
    return document, check(document)


def check(document: Document, data: Any = None, place: Place = ()) -> RuleSet:
    """The rules of a document, or of `data`, what stands in one at `place`."""
    try:
        return read_rules(document.data if place == () else data)
    except RulesError as error:
        raise DocumentError([document.problem((*place, *at), reason) for at, reason in error.findings]) from None


def within(document: Document, value: Any, directory: Path) -> Read:
    """What a configuration's `policy` means: a file's name, or the document itself."""
    if isinstance(value, str):
        found, rules = load_policy(directory / value)
        return Read(found.data, found, (), rules)
    if not isinstance(value, dict):
        raise DocumentError([document.problem(("policy",), "must be a file's name or the policy itself")])
    return Read(value, document, ("policy",), check(document, value, ("policy",)))
