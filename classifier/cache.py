"""Two levels of memory: exact text to classification, normal form to classification.

The second level is only for classifications that no constant can change (`constant_free`), and with
standard_conforming_strings on (off, a backslash inside a constant would matter). Only the lexer runs here, never
libpg_query: what it must say about a form (`normal.learn`) comes with the answer from the process that
analysed. The key holds the whole Environment, interned to a number, because a dataclass's hash costs more than
the look-up.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from classifier import lexer, normal
from classifier.model import Classification, Environment
from classifier.normal import Kept

MAX_TEXT: Final = 64 * 1024  # longer texts are not remembered: they are hardly ever the same twice


class ClassificationCache:
    """Bounded by entries and by the characters its keys hold; the least recently used goes first."""

    def __init__(self, entries: int = 20_000, characters: int = 32 * 1024 * 1024) -> None:
        self._entries = entries
        self._characters = characters
        self._held = 0
        self._exact: OrderedDict[tuple[str, int], Classification] = OrderedDict()
        self._normal: OrderedDict[tuple[bytes, int], tuple[Classification, Kept]] = OrderedDict()
        self._environments: dict[Environment, int] = {}
        self._next_environment = 0
        self._last: tuple[Environment, int] | None = None

    def __len__(self) -> int:
        return len(self._exact) + len(self._normal)

    def find_exact(self, text: str, environment: Environment) -> Classification | None:
        """One dictionary look-up."""
        if len(text) > MAX_TEXT:
            return None
        key = (text, self._number(environment))
        found = self._exact.get(key)
        if found is not None:
            self._exact.move_to_end(key)
        return found

    def find_normal(self, text: str, environment: Environment) -> Classification | None:
        """By normal form; remembers the exact text when it finds something."""
        if not self._normal:
            return None
        data = _normalizable(text, environment)
        form = None if data is None else lexer.form(data)
        if data is None or form is None:
            return None
        key = (form.key, self._number(environment))
        entry = self._normal.get(key)
        if entry is None:
            return None
        found, kept = entry
        # the count of statements is a second opinion that costs nothing
        if len(found.statements) != form.statements or not (not kept or normal.holds(kept, form, data)):
            return None
        self._normal.move_to_end(key)
        self._keep_exact(text, environment, found)
        return found

    def store(
        self, text: str, environment: Environment, classification: Classification, kept: Kept | None = None
    ) -> None:
        """Remembers an answer at every level it is good for. `kept` is what `normal.learn` said about the text;
        None keeps it from the second level."""
        if len(text) > MAX_TEXT:
            return
        self._keep_exact(text, environment, classification)
        if kept is None or not classification.constant_free:
            return
        data = _normalizable(text, environment)
        form = None if data is None else lexer.form(data)
        if form is None:
            return
        key = (form.key, self._number(environment))
        if key not in self._normal:
            self._held += len(form.key)
        self._normal[key] = (classification, kept)
        self._shrink()

    def clear(self) -> None:
        """Forgets everything, as when the catalog behind the answers has changed."""
        self._exact.clear()
        self._normal.clear()
        self._held = 0

    def _keep_exact(self, text: str, environment: Environment, classification: Classification) -> None:
        key = (text, self._number(environment))
        if key not in self._exact:
            self._held += len(text)
        self._exact[key] = classification
        if len(self._exact) > self._entries or self._held > self._characters:
            self._shrink()

    def _shrink(self) -> None:
        while len(self._exact) > self._entries or (self._held > self._characters and self._exact):
            (text, _), _ = self._exact.popitem(last=False)
            self._held -= len(text)
        while len(self._normal) > self._entries or (self._held > self._characters and self._normal):
            (form, _), _ = self._normal.popitem(last=False)
            self._held -= len(form)

    def _number(self, environment: Environment) -> int:
        last = self._last
        if last is not None and last[0] is environment:
            return last[1]
        number = self._environments.get(environment)
        if number is None:
            if len(self._environments) >= 10_000:
                self._environments.clear()  # numbers are never used twice, so old entries only grow old
            number = self._next_environment
            self._next_environment += 1
            self._environments[environment] = number
        self._last = (environment, number)
        return number


def _normalizable(text: str, environment: Environment) -> bytes | None:
    """The text as bytes, where it may have a normal form."""
    if len(text) > normal.MAX_BYTES or not environment.standard_conforming_strings:
        return None
    try:
        return text.encode("utf-8")
    except UnicodeError:
        return None
