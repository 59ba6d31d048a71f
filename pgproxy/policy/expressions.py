"""Reads and checks a CEL expression before the library compiles it: the part of CEL ("Common Expression Language")
that a condition may use, its types, and what it can cost.

The library evaluates, but checks no types and tells no names, so that a misspelt fact would only show when a statement
meets it. What this reader does not know is refused, so whatever passes is bounded: no expression nests deeper than
`MAX_DEPTH`, its loops together never take more than `MAX_STEPS`, and regular expressions are constants (the library's
take linear time).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pgproxy.policy.facts import FACTS, MAX_ITEMS
from pgproxy.policy.words import RESERVED, ExpressionError, did_you_mean, tokens

MAX_LENGTH: Final = 2_000
MAX_DEPTH: Final = 30
MAX_STEPS: Final = 20_000
_DYN_ITEMS: Final = 4_000  # of 8 KB of JSON
_NUMBERS: Final = ("int", "double")


@dataclass(frozen=True, slots=True)
class Checked:
    """What was learnt of an expression: the facts it reads."""

    facts: frozenset[str]


@dataclass(slots=True)
class _Value:
    """A checked part: its type, how long a list it is at most, and where it stands in the text."""

    type: str
    items: int = 0
    start: int = 0
    end: int = 0
    is_constant: bool = False


def check(text: str, is_regex: Callable[[str], bool]) -> Checked:
    """Raises `ExpressionError`. `is_regex` says of a string literal whether the library takes it for one."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"is longer than {MAX_LENGTH} characters")
    reader = _Reader(text, is_regex)
    value = reader.expression()
    reader.expect_end()
    if value.type != "bool":
        raise ExpressionError(f"must be true or false, and is {_a(value.type)}")
    if not reader.facts:
        raise ExpressionError("asks about no fact (request.…), so it is always the same")
    return Checked(frozenset(reader.facts))


class _Reader:
    """Recursive descent, by CEL's own order of precedence ("Syntax")."""

    def __init__(self, text: str, is_regex: Callable[[str], bool]) -> None:
        self._text = text
        self._is_regex = is_regex
        self._tokens = list(tokens(text))
        self._at = 0
        self._depth = 0
        self._around = 1  # how often a loop's body is evaluated at most
        self._variables: dict[str, str] = {}
        self.facts: set[str] = set()

    # tokens

    @property
    def _kind(self) -> str:
        return self._tokens[self._at][0]

    @property
    def _word(self) -> str:
        return self._tokens[self._at][1]

    @property
    def _start(self) -> int:
        return self._tokens[self._at][2]

    def _take(self, *words: str) -> str | None:
        if self._kind in ("op", "name") and self._word in words:
            self._at += 1
            return self._tokens[self._at - 1][1]
        return None

    def _expect(self, word: str) -> None:
        if self._take(word) is None:
            found = repr(self._word) if self._kind != "end" else "its end"
            raise self._error(f"{word!r} is expected here, not {found}")

    def expect_end(self) -> None:
        if self._kind != "end":
            raise self._error(f"{self._word!r} is not expected here")

    def _error(self, reason: str, at: int | None = None) -> ExpressionError:
        return ExpressionError(f"at character {(self._start if at is None else at) + 1}: {reason}")

    # precedence, loosest first

    def expression(self) -> _Value:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error(f"is nested deeper than {MAX_DEPTH}")
        start = self._start
        value = self._or()
        if self._take("?"):
            self._want(value, "bool", start)
            first = self._or()
            self._expect(":")
            second = self.expression()
            if first.type != second.type:
                raise self._error(f"one side of ? : is {_a(first.type)}, the other {_a(second.type)}", start)
            value = _Value(first.type, max(first.items, second.items))
        self._depth -= 1
        return value

    def _or(self) -> _Value:
        return self._logic("||", lambda: self._logic("&&", self._relation))

    def _logic(self, operator: str, below: Callable[[], _Value]) -> _Value:
        start = self._start
        value = below()
        while self._take(operator):
            self._want(value, "bool", start)
            start = self._start
            self._want(below(), "bool", start)
            value = _Value("bool")
        return value

    def _relation(self) -> _Value:
        start = self._start
        value = self._sum()
        while True:
            operator = self._take("==", "!=", "<", "<=", ">", ">=", "in")
            if operator is None:
                return value
            other = self._sum()
            if operator == "in":
                self._spend(other)
                fits = other.type == "dyn" or _fits(other.type, f"list({value.type})")
            elif operator in ("==", "!="):
                fits = _fits(value.type, other.type) or {value.type, other.type} == set(_NUMBERS)
            else:
                ordered = ("string", "dyn", *_NUMBERS)
                fits = (_fits(value.type, other.type) and value.type in ordered and other.type in ordered) or {
                    value.type,
                    other.type,
                } == set(_NUMBERS)
            if not fits:
                raise self._error(f"{_a(value.type)} {operator} {_a(other.type)} cannot be", start)
            value = _Value("bool")

    def _sum(self) -> _Value:
        return self._arithmetic(("+", "-"), lambda: self._arithmetic(("*", "/", "%"), self._unary))

    def _arithmetic(self, operators: tuple[str, ...], below: Callable[[], _Value]) -> _Value:
        start = self._start
        value = below()
        while (operator := self._take(*operators)) is not None:
            other = below()
            numbers = ("int",) if operator == "%" else _NUMBERS
            allowed = (*numbers, "string") if operator == "+" else numbers
            if value.type != other.type or value.type not in allowed:
                hint = "; write 2.0 for a double" if {value.type, other.type} == set(_NUMBERS) else ""
                raise self._error(f"{_a(value.type)} {operator} {_a(other.type)} cannot be{hint}", start)
            value = _Value(value.type)
        return value

    def _unary(self) -> _Value:
        start = self._start
        operator = self._take("!", "-")
        if operator is None:
            return self._postfix()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error(f"is nested deeper than {MAX_DEPTH}")
        value = self._unary()
        self._depth -= 1
        if operator == "!":
            self._want(value, "bool", start)
        elif value.type not in _NUMBERS:
            raise self._error(f"-{value.type} cannot be", start)
        return _Value(value.type)

    def _postfix(self) -> _Value:
        value = self._primary()
        while True:
            start = self._start
            if self._take("."):
                value = self._member(value)
            elif self._take("["):
                index = self.expression()
                self._expect("]")
                if value.type == "dyn":
                    value = _Value("dyn", _DYN_ITEMS)
                elif value.type.startswith("list(") and index.type == "int":
                    value = _Value(value.type[5:-1])
                else:
                    raise self._error(f"{_a(value.type)}[{index.type}] cannot be", start)
            else:
                return value

    def _member(self, of: _Value) -> _Value:
        start = self._start
        if self._kind != "name":
            raise self._error("a name is expected after the dot")
        name = self._tokens[self._at][1]
        self._at += 1
        if self._take("("):
            if name in _MACROS:
                return self._loop(name, of, start)
            return self._method(name, of, start)
        if of.type == "request":
            return self._fact(name, start)
        if of.type != "dyn":
            raise self._error(f"{_a(of.type)} has no {name!r}", start)
        return _Value("dyn", _DYN_ITEMS)

    def _fact(self, name: str, start: int) -> _Value:
        fact = FACTS.get(name)
        if fact is None:
            raise self._error(f"there is no fact {name!r}; {did_you_mean(name, FACTS)}", start)
        self.facts.add(name)
        items = _DYN_ITEMS if fact.type == "dyn" else MAX_ITEMS if fact.type.startswith("list(") else 0
        return _Value(fact.type, items)

    def _method(self, name: str, of: _Value, start: int) -> _Value:
        if name not in ("startsWith", "endsWith", "contains", "matches", "size"):
            raise self._error(f"there is no function {name!r}; {did_you_mean(name, _FUNCTIONS)}", start)
        if name == "size":
            self._expect(")")
            return self._size(of, start)
        self._want(of, "string", start)
        argument = self.expression()
        self._expect(")")
        self._want(argument, "string", start)
        if name == "matches":
            literal = self._text[argument.start : argument.end]
            if not argument.is_constant:
                raise self._error("the pattern of matches must be a plain string", start)
            if not self._is_regex(literal):
                raise self._error(f"{literal} is not a regular expression", start)
        return _Value("bool")

    def _size(self, of: _Value, start: int) -> _Value:
        if of.type not in ("string", "dyn") and not of.type.startswith("list("):
            raise self._error(f"{_a(of.type)} has no size", start)
        return _Value("int")

    def _loop(self, name: str, over: _Value, start: int) -> _Value:
        """`list.exists(x, condition)` and its kin."""
        if over.type != "dyn" and not over.type.startswith("list("):
            raise self._error(f"{name} is for lists, not for {_a(over.type)}", start)
        variable = self._word
        if self._kind != "name" or variable in self._variables or variable in _TAKEN:
            raise self._error(f"{name} needs a new name first: {name}(x, …)")
        self._at += 1
        self._expect(",")
        before, self._around = self._around, self._around * max(over.items, 1)
        if self._around > MAX_STEPS:
            raise self._error(f"these loops could take more than {MAX_STEPS} steps", start)
        self._variables[variable] = over.type[5:-1] if over.type != "dyn" else "dyn"
        body = self.expression()
        self._expect(")")
        del self._variables[variable]
        self._around = before
        if name == "map":
            return _Value(f"list({body.type})", over.items)
        self._want(body, "bool", start)
        return _Value(over.type, over.items) if name == "filter" else _Value("bool")

    def _primary(self) -> _Value:
        kind, word, start = self._tokens[self._at]
        if kind in ("int", "double", "string"):
            self._at += 1
            if kind == "int" and int(word) >= 2**63:
                raise self._error("is not a 64-bit integer", start)
            return _Value(kind, 0, start, start + len(word), is_constant=kind == "string")
        if self._take("("):
            value = self.expression()
            self._expect(")")
            return _Value(value.type, value.items)
        if self._take("["):
            return self._list(start)
        if kind != "name":
            what = repr(word) if kind != "end" else "the end"
            raise self._error(f"{what} is not expected here", start)
        self._at += 1
        if word in ("true", "false"):
            return _Value("bool")
        if word == "request":
            if self._kind != "op" or self._word != ".":
                raise self._error("a fact is expected: request.…", start)
            return _Value("request")
        if self._take("("):
            return self._function(word, start)
        if word in self._variables:
            return _Value(self._variables[word], _DYN_ITEMS if self._variables[word] == "dyn" else 0)
        close = f"; did you mean request.{word}?" if word in FACTS else ""
        raise self._error(f"{word!r} is not known here, only request{close}", start)

    def _list(self, start: int) -> _Value:
        types, count = set(), 0
        while not self._take("]"):
            types.add(self.expression().type)
            count += 1
            if self._take(",") is None:
                self._expect("]")
                break
        if len(types) != 1:
            raise self._error("a list needs items of one type", start)
        return _Value(f"list({types.pop()})", count)

    def _function(self, name: str, start: int) -> _Value:
        if name == "has":
            if self._kind != "name" or self._word not in ("request", *self._variables):
                raise self._error("has() is for facts: has(request.reason)", start)
            self._postfix()
            self._expect(")")
            return _Value("bool")
        argument = self.expression()
        self._expect(")")
        if name == "size":
            return self._size(argument, start)
        convertible = {"int": ("double", "string"), "double": ("int", "string"), "string": _NUMBERS}
        if name not in convertible:
            raise self._error(f"there is no function {name!r}; {did_you_mean(name, _FUNCTIONS)}", start)
        if argument.type not in (*convertible[name], "dyn", name):
            raise self._error(f"{name}({argument.type}) cannot be", start)
        return _Value(name)

    # types

    def _want(self, value: _Value, type_: str, at: int) -> None:
        if value.type not in (type_, "dyn") or (type_ == "bool" and value.type == "dyn"):
            more = "; compare it (== …)" if value.type == "dyn" else ""
            raise self._error(f"must be {_a(type_)}, and is {_a(value.type)}{more}", at)

    def _spend(self, over: _Value) -> None:
        if self._around * max(over.items, 1) > MAX_STEPS * 10:
            raise self._error("this search inside a loop could take too many steps")


_MACROS: Final = ("all", "exists", "exists_one", "filter", "map")
_FUNCTIONS: Final = (
    *("has", "size", "int", "double", "string", "startsWith", "endsWith", "contains", "matches"),
    *_MACROS,
)
_TAKEN: Final = RESERVED | {"request", "true", "false", "null", "in", "has"}


def _fits(one: str, other: str) -> bool:
    """Whether two types may be compared; `dyn` may be anything."""
    if one.startswith("list(") and other.startswith("list("):
        return _fits(one[5:-1], other[5:-1])
    return one == other or "dyn" in (one, other)


def _a(type_: str) -> str:
    return {"int": "an int", "dyn": "JSON", "request": "request"}.get(type_, f"a {type_}")
