"""The values a classification is made of. Frozen: they are cached and shared between sessions."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class ActionClass(StrEnum):
    """What a statement does, as policy and reviewers name it."""

    READ = "read"
    WRITE = "write"
    BULK_WRITE = "bulk_write"
    IMPORT = "import"
    EXPORT = "export"
    DDL = "ddl"
    GRANT = "grant"
    ROLE = "role"
    FILE = "file"
    CODE = "code"
    SESSION = "session"
    MAINTENANCE = "maintenance"
    REPLICATION = "replication"
    TRANSACTION = "transaction"
    UNKNOWN = "unknown"


UNPRIVILEGED = frozenset({ActionClass.READ, ActionClass.WRITE, ActionClass.IMPORT, ActionClass.TRANSACTION})


# A search_path that is not known, and may have pg_catalog behind other schemas: no name in it is surely anybody's.
ANY_PATH = ("", "pg_catalog")
# Among `Statement.settings`: the search_path it sets may be of that kind.
SHADOWING_PATH = "search_path?"


class Risk(StrEnum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Action:
    """One effect of a statement: its class, a verb for rules (`copy_to_stdout`) and the object it touches."""

    cls: ActionClass
    verb: str
    object: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a text. Those from `prepares` to `settings`, and `cursor`, are for the session and no
    part of the public object."""

    kind: str  # the grammar's node, "CopyStmt"
    tag: str  # the command tag's verb, "COPY"
    actions: tuple[Action, ...]
    relations: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    # SQL PREPARE: the name made, and what executing it will mean.
    prepares: str | None = None
    prepared: Classification | None = None
    # names given to SQL EXECUTE that this text did not itself prepare; the session resolves them
    executes: tuple[str, ...] = ()
    # DEALLOCATE name; "" is ALL (and DISCARD ALL)
    deallocates: str | None = None
    # settings it may change, lower case; "*" when that cannot be told
    settings: tuple[str, ...] = ()
    # "relation.column" as far as it can be told; "relation.*" where the catalog does not say which
    columns_read: tuple[str, ...] = ()
    columns_written: tuple[str, ...] = ()
    # DECLARE, FETCH, MOVE and CLOSE: the cursor's name; "" is CLOSE ALL
    cursor: str | None = None
    cursor_holds: bool = False  # DECLARE … WITH HOLD: it survives its transaction
    # For rules, where nothing that could be reached may be missing (`touched.py`): whether `relations` are all that the
    # text names; by the catalog the full names of all it reaches, through views and functions too (None: not known);
    # every name that may be a column's; the relations of which whole rows may be meant (`*`: of all).
    relations_known: bool = False
    reaches: tuple[str, ...] | None = None
    column_names: tuple[str, ...] = ()
    whole_rows: tuple[str, ...] = ("*",)
    search_path: tuple[str, ...] | None = None  # where names without a schema are looked for; None: not known


@dataclass(frozen=True, slots=True)
class Classification:
    """What one text sent to the server would do. `constant_free`: no constant in it matters to the answer."""

    privileged: bool
    risk: Risk
    fingerprint: str
    normalized: str
    statements: tuple[Statement, ...]
    constant_free: bool = False
    syntax_error: str | None = None  # the grammar's own words, when it rejects the text

    @property
    def classes(self) -> tuple[str, ...]:
        """Each class once, in order of appearance."""
        return tuple(dict.fromkeys(str(a.cls) for s in self.statements for a in s.actions))

    @property
    def reasons(self) -> tuple[str, ...]:
        """Each reason once, in order of appearance."""
        return tuple(dict.fromkeys(r for s in self.statements for r in s.reasons))

    def to_dict(self) -> dict[str, Any]:
        """The classification object of the public contract; columns are there where there are any."""
        return {
            "privileged": self.privileged,
            "risk": str(self.risk),
            "fingerprint": self.fingerprint,
            "normalized": self.normalized,
            "statements": [
                {
                    "kind": s.kind,
                    "tag": s.tag,
                    "actions": [
                        {"class": str(a.cls), "verb": a.verb, "object": a.object, "detail": a.detail} for a in s.actions
                    ],
                    "relations": list(s.relations),
                    "functions": list(s.functions),
                    "reasons": list(s.reasons),
                }
                | ({"columns_read": list(s.columns_read)} if s.columns_read else {})
                | ({"columns_written": list(s.columns_written)} if s.columns_written else {})
                for s in self.statements
            ],
        }


@dataclass(frozen=True, slots=True)
class Environment:
    """What the meaning of a text depends on beside its bytes. Hashable: part of every cache key."""

    database: str = ""
    server_version: int = 180000  # server_version_num
    standard_conforming_strings: bool = True
    search_path: tuple[str, ...] | None = field(default=("pg_catalog", "public"))  # None: not known
    role: str | None = None  # whom `$user` in the search_path means; None: not known
    catalog_version: int = 0  # of the snapshot to judge by; 0: none
    catalog_changed: bool = False  # by this session, in a transaction that no snapshot can see
