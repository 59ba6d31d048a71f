"""What calling one of PostgreSQL's own functions does.

An immutable or stable function cannot change anything, so it is a read unless named below (some stable ones
dump whole tables). A volatile one is harmless only where it is named here as such. A name that no catalog
in `data/builtins.py` holds is somebody's own function: without a snapshot of the server's catalog nobody
can say what it does, and it is `unknown`; with one, `bodies.py` asks it.

A name stands for all its overloads: the worst counts. Names are the whole of it only because unqualified
names reach pg_catalog first; `resolve` says unknown where the search_path tells otherwise.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from classifier.data import builtins, dangers
from classifier.model import ActionClass


class Effect(NamedTuple):
    """What a call does, as an action's class, verb and sentence."""

    cls: ActionClass
    verb: str
    detail: str


# `setval` moves a sequence: a write like any other.
_WRITES: Final = {"setval": Effect(ActionClass.WRITE, "setval", "sets a sequence's value")}

_KNOWN: Final = frozenset(f"{builtins.IMMUTABLE}{builtins.STABLE}{builtins.VOLATILE}".split())
_VOLATILE: Final = frozenset(builtins.VOLATILE.split())
HARMLESS: Final = frozenset(dangers.HARMLESS.split())
# functions whose name alone tells what they do
EXACT: Final[dict[str, Effect]] = dict(_WRITES)
_PREFIXES: Final[list[tuple[str, Effect]]] = []
for _cls, _verb, _detail, _names in dangers.DANGEROUS:
    for _name in _names.split():
        if _name.endswith("*"):
            _PREFIXES.append((_name[:-1], Effect(_cls, _verb, _detail)))
        else:
            EXACT[_name] = Effect(_cls, _verb, _detail)
_TYPES: Final = frozenset(builtins.TYPES.split())
# functions that only some versions have: the first and the last, 0 where there is no such bound
_BOUNDS: Final = {name: bounds for bounds, names in builtins.PARTIAL.items() for name in names.split()}
_OWN_SCHEMAS: Final = ("pg_catalog", "information_schema")


def dangerous(name: str) -> Effect | None:
    """The effect of a function whose name alone is enough to tell, in whatever schema it stands."""
    effect = EXACT.get(name)
    if effect is None:
        for prefix, family in _PREFIXES:
            if name.startswith(prefix):
                return family
    return effect


def is_builtin(name: str, version: int = 0) -> bool:
    """Whether PostgreSQL itself has a function of this name; in this version (server_version_num) if one is given."""
    first, last = _BOUNDS.get(name, (0, 0))
    major = version // 10000
    return name in _KNOWN and not (major and ((first and major < first) or (last and major > last)))


def resolve(
    schema: str | None, name: str, arguments: int, search_path: tuple[str, ...] | None, version: int = 0
) -> Effect | None:
    """What a call does beyond reading; None where it does nothing more.

    `search_path` None (not known) is taken as one that reaches pg_catalog first: only a search_path that
    names pg_catalog behind another schema does not ("Schemas and the System Catalog", "The Schema Search
    Path").
    """
    effect = dangerous(name)
    if effect is not None:
        return effect
    is_own = schema is None or schema in _OWN_SCHEMAS
    if is_own and arguments == 1 and name in _TYPES and not is_builtin(name, version):
        return None  # `regtype('int4')` is a cast ("Function Type Resolution")
    if not is_own or not is_builtin(name, version):
        full = name if schema is None else f"{schema}.{name}"
        return _unknown(f"{full} is not PostgreSQL's own function, and there is no catalog to ask")
    if schema is None and search_path is not None and "pg_catalog" in search_path[1:]:
        return _unknown(f"{name} may not be PostgreSQL's own function under this search_path")
    if name == "ts_rewrite":
        # ts_rewrite(query, target, substitute) computes; ts_rewrite(query, select) runs the select
        if arguments == 3:
            return None
        return Effect(ActionClass.CODE, "run_query_text", "runs a query it is given as text")
    if name in _VOLATILE and name not in HARMLESS:
        return _unknown(f"{name} is volatile and not known to be harmless")
    return None


def _unknown(detail: str) -> Effect:
    return Effect(ActionClass.UNKNOWN, "unknown_function", detail)
