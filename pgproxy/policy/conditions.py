"""`when:` a CEL expression, checked when the policy is loaded, evaluated for a statement. Total: what goes wrong is an
answer of its own, None, and the rule decides what that means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from pgproxy.policy.expressions import check
from pgproxy.policy.words import ExpressionError

_NO_CATCH: Final = (KeyboardInterrupt, SystemExit, GeneratorExit)


@dataclass(frozen=True, slots=True)
class Condition:
    """An expression over `request`. Raises `ExpressionError` when it could not work."""

    text: str
    facts: frozenset[str] = field(init=False, compare=False)
    _program: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        import cel  # here, for its package brings a terminal along: half a second that most policies need not pay

        checked = check(self.text, _is_regex)
        try:
            program = cel.compile(self.text)
        except BaseException as error:  # a panic of the library is no Exception
            if isinstance(error, _NO_CATCH):
                raise
            raise ExpressionError(f"CEL refuses it: {str(error).splitlines()[0]}") from None
        object.__setattr__(self, "facts", checked.facts)
        object.__setattr__(self, "_program", program)

    def evaluate(self, value_of: Callable[[str], Any]) -> bool | None:
        """True, false, or None: it reads a fact that is not there, or cannot be computed."""
        try:
            values = {name: value for name in self.facts if (value := value_of(name)) is not None}
            answer = self._program.execute({"request": values})
        except BaseException as error:
            if isinstance(error, _NO_CATCH):
                raise
            return None
        return answer if isinstance(answer, bool) else None


def _is_regex(literal: str) -> bool:
    import cel

    try:
        cel.evaluate(f'"".matches({literal})')
    except BaseException as error:
        if isinstance(error, _NO_CATCH):
            raise
        return False
    return True
