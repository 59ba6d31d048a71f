"""Which form of the lexer runs: the extension mypyc made of it, or its source.

`PGPROXY_IMPL=python` takes the source even where an extension lies beside it, `compiled` refuses to fall back to it,
and unset takes what is there, but never half a build. As in `pgproxy.protocol`, which the classifier must not
know; this module alone reads the environment, and the package imports it before anything else.
"""

import os
import sys
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, PathFinder
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final

COMPILED: Final = ("lexer", "literals", "rows")
# mypyc puts the code of all modules into this one extension; the modules' own ones are shims that import it.
_COMPILED_GROUP: Final = "classifier_lexer__mypyc"
_HERE: Final = Path(__file__).parent
_PACKAGE: Final = __name__.rpartition(".")[0]


class _ImplementationFinder:
    """Finds the lexer's modules in one form only, whichever other form lies beside it."""

    def __init__(self, chosen: str) -> None:
        self.chosen = chosen

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        if package != _PACKAGE or name not in COMPILED:
            return None
        if self.chosen == "python":
            return spec_from_file_location(fullname, _HERE / f"{name}.py")
        spec = PathFinder.find_spec(fullname, [str(_HERE)])
        if spec is None or spec.origin is None or not spec.origin.endswith(tuple(EXTENSION_SUFFIXES)):
            raise ImportError(f"PGPROXY_IMPL=compiled, but {fullname} was not compiled", name=fullname)
        return spec


def _choose() -> str | None:
    chosen: str | None = os.environ.get("PGPROXY_IMPL", "")
    if chosen == "":
        chosen = None if find_spec(_COMPILED_GROUP) is not None else "python"
    elif chosen not in ("python", "compiled"):
        raise ImportError(f"PGPROXY_IMPL must be python or compiled, not {chosen!r}")
    return chosen


_chosen = _choose()
if _chosen is not None:
    sys.meta_path.insert(0, _ImplementationFinder(_chosen))


def implementation() -> str:
    """Which form is running: `python` or `compiled`."""
    from classifier import lexer

    return "compiled" if (lexer.__file__ or "").endswith(tuple(EXTENSION_SUFFIXES)) else "python"
