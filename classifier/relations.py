"""Relations of PostgreSQL itself whose reading or writing is something else in disguise."""

from __future__ import annotations

from typing import Final

from classifier.data import builtins
from classifier.functions import Effect
from classifier.model import ActionClass

SYSTEM_SCHEMAS: Final = frozenset({"pg_catalog", "information_schema", "pg_toast"})
_CATALOG: Final = frozenset(builtins.RELATIONS.split())

# Columns that hold secrets. `*`, a whole row, a renaming alias or a natural join reach them without their
# name.
SECRET_COLUMNS: Final[dict[str, str]] = {
    "pg_authid": "rolpassword",
    "pg_shadow": "passwd",
    "pg_user_mapping": "umoptions",
    "pg_user_mappings": "umoptions",
    "pg_subscription": "subconninfo",
}

_READS: Final[dict[str, Effect]] = {
    "pg_largeobject": Effect(ActionClass.EXPORT, "read_large_object", "reads large objects"),
    "pg_hba_file_rules": Effect(ActionClass.FILE, "read_server_file", "reads a file of the server"),
    "pg_file_settings": Effect(ActionClass.FILE, "read_server_file", "reads a file of the server"),
    "pg_ident_file_mappings": Effect(ActionClass.FILE, "read_server_file", "reads a file of the server"),
}
_WRITES: Final[dict[str, Effect]] = {
    "pg_settings": Effect(ActionClass.SESSION, "update_pg_settings", "changes settings by writing to pg_settings"),
    **{
        name: Effect(ActionClass.ROLE, "write_role_catalog", f"changes roles by writing to {name}")
        for name in (
            "pg_authid",
            "pg_auth_members",
            "pg_db_role_setting",
            "pg_shadow",
            "pg_roles",
            "pg_user",
            "pg_group",
        )
    },
}


def is_system(schema: str | None, name: str) -> bool:
    """Whether a name reaches a relation of the system; an unqualified one does as soon as pg_catalog holds
    it."""
    if schema is None:
        return name in _CATALOG or name.startswith("pg_")
    return schema in SYSTEM_SCHEMAS or schema.startswith("pg_toast")


def reading(schema: str | None, name: str) -> Effect | None:
    """What reading a relation does beyond reading."""
    if schema not in (None, "pg_catalog"):
        return None
    return _READS.get(name)


def writing(schema: str | None, name: str) -> Effect | None:
    """What writing to a relation does beyond writing."""
    if not is_system(schema, name):
        return None
    effect = _WRITES.get(name)
    if effect is None:
        effect = Effect(ActionClass.UNKNOWN, "write_system_catalog", f"writes to the system relation {name}")
    return effect
