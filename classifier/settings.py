"""What changing a setting means: most are harmless, some weaken a guard, two change who one is.

One rule for every spelling: SET, set_config, RESET. The manual's "Server Configuration" says who may change
which; a setting that takes a superuser is taken as a guard unless named harmless, one nobody knows is
unknown.
"""

from __future__ import annotations

from typing import Final

from classifier.catalog import split_path
from classifier.data import builtins
from classifier.functions import Effect
from classifier.model import ActionClass

_USER: Final = frozenset(builtins.USER_SETTINGS.split())
_OTHER: Final = frozenset(builtins.OTHER_SETTINGS.split())

ROLE_SETTINGS: Final = frozenset({"role", "session_authorization"})

# Guards, with the values that do not weaken them. An empty set: any change does.
_GUARDS: Final[dict[str, frozenset[str]]] = {
    "standard_conforming_strings": frozenset({"on", "true", "yes", "1"}),
    "row_security": frozenset({"on", "true", "yes", "1"}),
    "session_replication_role": frozenset({"origin"}),
    "password_encryption": frozenset({"scram-sha-256"}),
    "restrict_nonsystem_relation_kind": frozenset({"view, foreign-table", "view,foreign-table"}),
    "createrole_self_grant": frozenset({""}),
    "local_preload_libraries": frozenset({""}),
}
# Encodings in which no byte of a longer character looks like ASCII ("Character Set Support"). The others
# could hide
# a quote from a reader of bytes.
ENCODINGS: Final = frozenset(
    [
        *("utf8", "unicode", "sqlascii", "eucjp", "euccn", "euckr"),
        *(f"latin{n}" for n in range(1, 11)),
        *(f"iso8859{n}" for n in range(1, 17) if n not in (11, 12)),  # 11 and 12 are none of the server's
        *(f"win{n}" for n in (866, 874, 1250, 1251, 1252, 1253, 1254, 1255, 1256, 1257, 1258)),
        *(f"windows{n}" for n in (866, 874, 1250, 1251, 1252, 1253, 1254, 1255, 1256, 1257, 1258)),
        *("koi8r", "koi8u", "koi8", "win", "alt", "tcvn", "tcvn5712", "abc", "vscii"),
    ]
)
# The verb of a change to any other: no approval could make what follows it readable.
HIDES_QUOTES: Final = "set_unreadable_encoding"
# Superusers' settings that steer only what a session sees of its own work.
HARMLESS_SUPERUSER: Final = frozenset(
    {
        "backtrace_functions",
        "compute_query_id",
        "deadlock_timeout",
        "lc_messages",
        "max_stack_depth",
        "temp_file_limit",
        "track_cost_delay_timing",
        "track_functions",
        "track_io_timing",
        "track_wal_io_timing",
        "update_process_title",
        "wal_compression",
        "commit_delay",
    }
)
# Extensions whose settings steer auditing or run code.
_GUARDED_EXTENSIONS: Final = (
    *("pgaudit.", "set_user.", "sepgsql.", "pg_stat_statements.", "credcheck.", "supautils.", "anon."),
    *("plperl.", "pltcl.", "plpython", "pljava.", "plv8."),
)
# Names that are not settings of their own but ways to spell one.
_SPECIAL: Final = frozenset({"transaction", "session characteristics", "transaction snapshot", "seed"})


def judge(name: str, value: str | None) -> Effect | None:
    """What setting `name` to `value` does beyond being noted; None where it is harmless.

    `value` is None when it cannot be told, or goes back to a default that is not known here.
    """
    if name in ROLE_SETTINGS:
        return Effect(ActionClass.ROLE, "set_role", "changes whom the session acts as")
    harmless = _GUARDS.get(name)
    if harmless is not None:
        if value is not None and value.strip().lower() in harmless:
            return None
        return _session()
    if name == "client_encoding":
        if value is None:
            return _session()
        if _plain_encoding(value) in ENCODINGS:
            return None
        return Effect(ActionClass.SESSION, HIDES_QUOTES, "changes to an encoding in which a character can hide a quote")
    if name == "search_path" and value is not None and not is_system_first(value):
        return Effect(
            ActionClass.SESSION, "set_guard", "puts pg_catalog behind other schemas, whose functions then hide its own"
        )
    if "." in name:
        return _session() if name.startswith(_GUARDED_EXTENSIONS) else None
    if name in _USER or name in _SPECIAL or name in HARMLESS_SUPERUSER:
        return None
    if name in _OTHER:
        return _session()
    detail = f"{name[:63]} is not a setting this classifier knows"
    return Effect(ActionClass.UNKNOWN, "unknown_setting", detail)


def is_system_first(search_path: str) -> bool:
    """Whether pg_catalog is looked in before all other schemas: the path names it first, or not at all ("The System
    Catalog Schema")."""
    path = split_path(search_path)
    return path is not None and "pg_catalog" not in path[1:]


def _plain_encoding(value: str) -> str:
    """An encoding's name as the server compares it: letters and digits only."""
    return "".join(c for c in value.lower() if c.isascii() and c.isalnum())


def _session() -> Effect:
    return Effect(ActionClass.SESSION, "set_guard", "changes a setting that guards the session or the server")
