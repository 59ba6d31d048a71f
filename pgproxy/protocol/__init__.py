"""The PostgreSQL wire format, frontend/backend protocol 3, as pure functions over bytes (sans-I/O).

Owns: where one message ends and the next begins (`framing`), what the bytes of a message say (`startup`,
`frontend`, `backend`), and the names of their type bytes (`tags`). Must not know: sockets, sessions, SQL,
policy, clocks, logging. It imports the standard library only, so that mypyc can compile each module as it
stands.

1. The message, never the read chunk, is the unit: a reader gets exactly one whole message, header included.
2. A reader agrees with the server's own, or raises `ProtocolViolation`; no other exception leaves this
   package. What the server answers with an ordinary ERROR (a format count that does not fit, say) is left to
   the server.
3. Names and texts stay `bytes`: what they mean depends on client_encoding, which is the session's to follow.
4. DataRow and CopyData are never objects: they pass as runs, in constant memory, only counted.
5. An error's text never holds the client's data.

Rejected: a class per message with `encode` and `decode`. Most messages are relayed as they came, so a proxy
needs readers for the few it judges and builders for the few it sends.

The modules run interpreted or compiled, from the same source. `PGPROXY_IMPL=python` takes the sources even
where extensions lie beside them, `compiled` refuses to fall back to them, and unset takes what is there. This
module alone reads the environment (it is never compiled): the choice has to be made before the first
submodule is imported, so no configuration can have been read yet.
"""

import os
import sys
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, PathFinder
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

# mypyc puts the code of all modules into this one extension; the modules' own ones are shims that import it.
_COMPILED_GROUP = "pgproxy_protocol__mypyc"
_HERE = Path(__file__).parent


class _ImplementationFinder:
    """Finds this package's submodules in one form only, whichever other form lies beside it."""

    def __init__(self, chosen: str) -> None:
        self.chosen = chosen

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        source = _HERE / f"{name}.py"
        if package != __name__ or not source.exists():
            return None
        if self.chosen == "python":
            return spec_from_file_location(fullname, source)
        spec = PathFinder.find_spec(fullname, [str(_HERE)])
        if spec is None or spec.origin is None or not spec.origin.endswith(tuple(EXTENSION_SUFFIXES)):
            raise ImportError(f"PGPROXY_IMPL=compiled, but {fullname} was not compiled", name=fullname)
        return spec


def _choose() -> str | None:
    """The form asked for; `python` also where a build was left half done, shims without their code."""
    asked = os.environ.get("PGPROXY_IMPL", "")
    if asked in {"python", "compiled"}:
        return asked
    if asked:
        raise ImportError(f"PGPROXY_IMPL must be python or compiled, not {asked!r}")
    return None if find_spec(_COMPILED_GROUP) is not None else "python"


_chosen = _choose()
if _chosen is not None:
    sys.meta_path.insert(0, _ImplementationFinder(_chosen))


def implementation() -> str:
    """Which form is running: `python` or `compiled`."""
    from pgproxy.protocol import framing

    return "compiled" if (framing.__file__ or "").endswith(tuple(EXTENSION_SUFFIXES)) else "python"
