"""Every statement of PostgreSQL's grammar, with the class it has whatever else is in it.

One readable table, which a test compares with the grammar's own list of nodes: a new statement in a new
version of the grammar shows up there first, and is `unknown` at run time. What the statement's content adds
(functions, data-modifying CTEs, options) is for `walk.py` and `effects.py`; statements marked None have no
class without their content.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from classifier.model import ActionClass

C = ActionClass


class Meaning(NamedTuple):
    """A statement's command tag, its class, verb for rules and the sentence a reviewer reads."""

    tag: str
    cls: ActionClass | None
    verb: str = ""
    detail: str = ""


STATEMENTS: Final[dict[str, Meaning]] = {
    # queries and changes of data
    "SelectStmt": Meaning("SELECT", C.READ, "select"),
    "InsertStmt": Meaning("INSERT", C.WRITE, "insert"),
    "UpdateStmt": Meaning("UPDATE", C.WRITE, "update"),
    "DeleteStmt": Meaning("DELETE", C.WRITE, "delete"),
    "MergeStmt": Meaning("MERGE", C.WRITE, "merge"),
    "TruncateStmt": Meaning("TRUNCATE TABLE", C.BULK_WRITE, "truncate", "removes every row"),
    "CopyStmt": Meaning("COPY", None),
    "ExplainStmt": Meaning("EXPLAIN", C.READ, "explain"),
    "PrepareStmt": Meaning("PREPARE", C.READ, "prepare"),
    "ExecuteStmt": Meaning("EXECUTE", C.READ, "execute"),
    "DeallocateStmt": Meaning("DEALLOCATE", C.READ, "deallocate"),
    "DeclareCursorStmt": Meaning("DECLARE CURSOR", C.READ, "declare_cursor"),
    "FetchStmt": Meaning("FETCH", C.READ, "fetch"),
    "ClosePortalStmt": Meaning("CLOSE CURSOR", C.READ, "close_cursor"),
    "ReturnStmt": Meaning("RETURN", C.READ, "return"),
    # session and transaction
    "TransactionStmt": Meaning("", C.TRANSACTION),
    "VariableSetStmt": Meaning("SET", None),
    "VariableShowStmt": Meaning("SHOW", C.READ, "show"),
    "DiscardStmt": Meaning("DISCARD", C.READ, "discard"),
    "ConstraintsSetStmt": Meaning("SET CONSTRAINTS", C.READ, "set_constraints"),
    "ListenStmt": Meaning("LISTEN", C.READ, "listen"),
    "UnlistenStmt": Meaning("UNLISTEN", C.READ, "unlisten"),
    "NotifyStmt": Meaning("NOTIFY", C.EXPORT, "notify", "sends data to other sessions"),
    # code
    "DoStmt": Meaning("DO", C.CODE, "do", "runs a block of code"),
    "CallStmt": Meaning("CALL", C.CODE, "call", "runs a procedure"),
    "LoadStmt": Meaning("LOAD", C.CODE, "load", "loads a library into the server"),
    "CreateFunctionStmt": Meaning("CREATE FUNCTION", C.DDL, "create_function", "creates a function or procedure"),
    "AlterFunctionStmt": Meaning("ALTER FUNCTION", C.DDL, "alter_function", "changes a function or procedure"),
    "CreatePLangStmt": Meaning("CREATE LANGUAGE", C.DDL, "create_language", "creates a procedural language"),
    "CreateExtensionStmt": Meaning("CREATE EXTENSION", C.DDL, "create_extension", "installs an extension"),
    "AlterExtensionStmt": Meaning("ALTER EXTENSION", C.DDL, "alter_extension", "updates an extension"),
    "AlterExtensionContentsStmt": Meaning("ALTER EXTENSION", C.DDL, "alter_extension", "changes an extension"),
    # maintenance
    "VacuumStmt": Meaning("VACUUM", C.READ, "vacuum"),
    "ClusterStmt": Meaning("CLUSTER", C.MAINTENANCE, "cluster", "rewrites a table under an exclusive lock"),
    "ReindexStmt": Meaning("REINDEX", C.MAINTENANCE, "reindex", "rebuilds indexes"),
    "LockStmt": Meaning("LOCK TABLE", C.MAINTENANCE, "lock", "locks a table"),
    "CheckPointStmt": Meaning("CHECKPOINT", C.MAINTENANCE, "checkpoint", "forces a checkpoint"),
    "AlterSystemStmt": Meaning(
        "ALTER SYSTEM", C.MAINTENANCE, "alter_system", "changes the server's configuration file"
    ),
    # roles and privileges
    "GrantStmt": Meaning("GRANT", C.GRANT, "grant", "grants or revokes privileges"),
    "AlterDefaultPrivilegesStmt": Meaning(
        "ALTER DEFAULT PRIVILEGES",
        C.GRANT,
        "alter_default_privileges",
        "changes privileges of future objects",
    ),
    "AlterOwnerStmt": Meaning("ALTER OWNER", C.GRANT, "change_owner", "changes who owns an object"),
    "ReassignOwnedStmt": Meaning("REASSIGN OWNED", C.GRANT, "reassign_owned", "changes who owns objects"),
    "GrantRoleStmt": Meaning("GRANT ROLE", C.ROLE, "grant_role", "changes membership in a role"),
    "CreateRoleStmt": Meaning("CREATE ROLE", C.ROLE, "create_role", "creates a role"),
    "AlterRoleStmt": Meaning("ALTER ROLE", C.ROLE, "alter_role", "changes a role"),
    "AlterRoleSetStmt": Meaning("ALTER ROLE", C.ROLE, "alter_role_settings", "changes a role's settings"),
    "DropRoleStmt": Meaning("DROP ROLE", C.ROLE, "drop_role", "drops a role"),
    # replication
    "CreatePublicationStmt": Meaning("CREATE PUBLICATION", C.DDL, "create_publication", "creates a publication"),
    "AlterPublicationStmt": Meaning("ALTER PUBLICATION", C.DDL, "alter_publication", "changes a publication"),
    "CreateSubscriptionStmt": Meaning("CREATE SUBSCRIPTION", C.DDL, "create_subscription", "creates a subscription"),
    "AlterSubscriptionStmt": Meaning("ALTER SUBSCRIPTION", C.DDL, "alter_subscription", "changes a subscription"),
    "DropSubscriptionStmt": Meaning("DROP SUBSCRIPTION", C.DDL, "drop_subscription", "drops a subscription"),
    # definitions
    "CreateStmt": Meaning("CREATE TABLE", C.DDL, "create_table", "creates a table"),
    "CreateTableAsStmt": Meaning("CREATE TABLE AS", C.DDL, "create_table_as", "creates a table from a query"),
    "CreateForeignTableStmt": Meaning("CREATE FOREIGN TABLE", C.DDL, "create_foreign_table", "creates a foreign table"),
    "ViewStmt": Meaning("CREATE VIEW", C.DDL, "create_view", "creates a view"),
    "IndexStmt": Meaning("CREATE INDEX", C.DDL, "create_index", "creates an index"),
    "CreateSeqStmt": Meaning("CREATE SEQUENCE", C.DDL, "create_sequence", "creates a sequence"),
    "AlterSeqStmt": Meaning("ALTER SEQUENCE", C.DDL, "alter_sequence", "changes a sequence"),
    "CreateSchemaStmt": Meaning("CREATE SCHEMA", C.DDL, "create_schema", "creates a schema"),
    "CreatedbStmt": Meaning("CREATE DATABASE", C.DDL, "create_database", "creates a database"),
    "AlterDatabaseStmt": Meaning("ALTER DATABASE", C.DDL, "alter_database", "changes a database"),
    "AlterDatabaseSetStmt": Meaning(
        "ALTER DATABASE", C.DDL, "alter_database_settings", "changes a database's settings"
    ),
    "AlterDatabaseRefreshCollStmt": Meaning(
        "ALTER DATABASE", C.DDL, "alter_database", "refreshes a database's collation version"
    ),
    "DropdbStmt": Meaning("DROP DATABASE", C.DDL, "drop_database", "drops a database"),
    "CreateTableSpaceStmt": Meaning("CREATE TABLESPACE", C.DDL, "create_tablespace", "creates a tablespace"),
    "DropTableSpaceStmt": Meaning("DROP TABLESPACE", C.DDL, "drop_tablespace", "drops a tablespace"),
    "AlterTableSpaceOptionsStmt": Meaning("ALTER TABLESPACE", C.DDL, "alter_tablespace", "changes a tablespace"),
    "AlterTableMoveAllStmt": Meaning(
        "ALTER TABLE", C.DDL, "move_all", "moves every table, index or view of a tablespace"
    ),
    "AlterTableStmt": Meaning("ALTER TABLE", C.DDL, "alter_table", "changes a table"),
    "DropStmt": Meaning("DROP", C.DDL, "drop", "drops objects"),
    "DropOwnedStmt": Meaning("DROP OWNED", C.DDL, "drop_owned", "drops everything a role owns"),
    "RenameStmt": Meaning("ALTER RENAME", C.DDL, "rename", "renames an object"),
    "CommentStmt": Meaning("COMMENT", C.DDL, "comment", "changes a comment"),
    "SecLabelStmt": Meaning("SECURITY LABEL", C.DDL, "security_label", "changes a security label"),
    "RefreshMatViewStmt": Meaning("REFRESH MATERIALIZED VIEW", C.DDL, "refresh", "fills a materialized view anew"),
    "RuleStmt": Meaning("CREATE RULE", C.DDL, "create_rule", "creates a rewrite rule"),
    "CreateTrigStmt": Meaning("CREATE TRIGGER", C.DDL, "create_trigger", "creates a trigger"),
    "CreateEventTrigStmt": Meaning("CREATE EVENT TRIGGER", C.DDL, "create_event_trigger", "creates an event trigger"),
    "AlterEventTrigStmt": Meaning("ALTER EVENT TRIGGER", C.DDL, "alter_event_trigger", "changes an event trigger"),
    "CreatePolicyStmt": Meaning("CREATE POLICY", C.DDL, "create_policy", "creates a row-security policy"),
    "AlterPolicyStmt": Meaning("ALTER POLICY", C.DDL, "alter_policy", "changes a row-security policy"),
    "CreateDomainStmt": Meaning("CREATE DOMAIN", C.DDL, "create_domain", "creates a domain"),
    "AlterDomainStmt": Meaning("ALTER DOMAIN", C.DDL, "alter_domain", "changes a domain"),
    "CompositeTypeStmt": Meaning("CREATE TYPE", C.DDL, "create_type", "creates a type"),
    "CreateEnumStmt": Meaning("CREATE TYPE", C.DDL, "create_type", "creates a type"),
    "CreateRangeStmt": Meaning("CREATE TYPE", C.DDL, "create_type", "creates a type"),
    "AlterEnumStmt": Meaning("ALTER TYPE", C.DDL, "alter_type", "changes a type"),
    "AlterTypeStmt": Meaning("ALTER TYPE", C.DDL, "alter_type", "changes a type"),
    "DefineStmt": Meaning("CREATE", C.DDL, "create", "creates an aggregate, operator, type or the like"),
    "CreateCastStmt": Meaning("CREATE CAST", C.DDL, "create_cast", "creates a cast"),
    "CreateTransformStmt": Meaning("CREATE TRANSFORM", C.DDL, "create_transform", "creates a transform"),
    "CreateConversionStmt": Meaning("CREATE CONVERSION", C.DDL, "create_conversion", "creates a conversion"),
    "CreateOpClassStmt": Meaning("CREATE OPERATOR CLASS", C.DDL, "create_opclass", "creates an operator class"),
    "CreateOpFamilyStmt": Meaning("CREATE OPERATOR FAMILY", C.DDL, "create_opfamily", "creates an operator family"),
    "AlterOpFamilyStmt": Meaning("ALTER OPERATOR FAMILY", C.DDL, "alter_opfamily", "changes an operator family"),
    "AlterOperatorStmt": Meaning("ALTER OPERATOR", C.DDL, "alter_operator", "changes an operator"),
    "CreateAmStmt": Meaning("CREATE ACCESS METHOD", C.DDL, "create_access_method", "creates an access method"),
    "CreateStatsStmt": Meaning("CREATE STATISTICS", C.DDL, "create_statistics", "creates extended statistics"),
    "AlterStatsStmt": Meaning("ALTER STATISTICS", C.DDL, "alter_statistics", "changes extended statistics"),
    "AlterCollationStmt": Meaning("ALTER COLLATION", C.DDL, "alter_collation", "changes a collation"),
    "AlterObjectDependsStmt": Meaning("ALTER DEPENDS", C.DDL, "alter_depends", "changes what an object depends on"),
    "AlterObjectSchemaStmt": Meaning("ALTER SET SCHEMA", C.DDL, "set_schema", "moves an object to another schema"),
    "AlterTSDictionaryStmt": Meaning(
        "ALTER TEXT SEARCH DICTIONARY", C.DDL, "alter_ts_dictionary", "changes a text search dictionary"
    ),
    "AlterTSConfigurationStmt": Meaning(
        "ALTER TEXT SEARCH CONFIGURATION",
        C.DDL,
        "alter_ts_configuration",
        "changes a text search configuration",
    ),
    # foreign data
    "CreateFdwStmt": Meaning("CREATE FOREIGN DATA WRAPPER", C.DDL, "create_fdw", "creates a foreign-data wrapper"),
    "AlterFdwStmt": Meaning("ALTER FOREIGN DATA WRAPPER", C.DDL, "alter_fdw", "changes a foreign-data wrapper"),
    "CreateForeignServerStmt": Meaning("CREATE SERVER", C.DDL, "create_server", "creates a foreign server"),
    "AlterForeignServerStmt": Meaning("ALTER SERVER", C.DDL, "alter_server", "changes a foreign server"),
    "CreateUserMappingStmt": Meaning(
        "CREATE USER MAPPING", C.DDL, "create_user_mapping", "stores a login for a foreign server"
    ),
    "AlterUserMappingStmt": Meaning(
        "ALTER USER MAPPING", C.DDL, "alter_user_mapping", "changes a login for a foreign server"
    ),
    "DropUserMappingStmt": Meaning(
        "DROP USER MAPPING", C.DDL, "drop_user_mapping", "drops a login for a foreign server"
    ),
    "ImportForeignSchemaStmt": Meaning(
        "IMPORT FOREIGN SCHEMA", C.DDL, "import_foreign_schema", "creates foreign tables"
    ),
}

# What ends in Stmt, or stands like one, but is only ever a part of another: no class of its own.
PARTS: Final = frozenset({"ReplicaIdentityStmt", "RawStmt", "PLAssignStmt", "SetOperationStmt"})

# A second class some of them always carry.
ALSO: Final[dict[str, tuple[ActionClass, str, str]]] = {
    "CreateFunctionStmt": (C.CODE, "create_function", "brings code that others may run"),
    "CreatePLangStmt": (C.CODE, "create_language", "brings code that others may run"),
    "CreateExtensionStmt": (
        C.CODE,
        "create_extension",
        "runs the extension's script and may load its library",
    ),
    "AlterExtensionStmt": (C.CODE, "alter_extension", "runs the extension's script"),
    "CreatePublicationStmt": (C.REPLICATION, "create_publication", "changes what is replicated"),
    "AlterPublicationStmt": (C.REPLICATION, "alter_publication", "changes what is replicated"),
    "CreateSubscriptionStmt": (C.REPLICATION, "create_subscription", "connects to another server"),
    "AlterSubscriptionStmt": (C.REPLICATION, "alter_subscription", "changes what is replicated"),
    "DropSubscriptionStmt": (C.REPLICATION, "drop_subscription", "changes what is replicated"),
    "CreateTableSpaceStmt": (C.FILE, "create_tablespace", "uses a directory of the server"),
    "DropOwnedStmt": (C.GRANT, "drop_owned", "revokes a role's privileges"),
}

# The word of a command tag for each kind of object.
_OBJECT_WORDS: Final = {
    "OBJECT_MATVIEW": "MATERIALIZED VIEW",
    "OBJECT_FDW": "FOREIGN DATA WRAPPER",
    "OBJECT_FOREIGN_SERVER": "SERVER",
    "OBJECT_OPCLASS": "OPERATOR CLASS",
    "OBJECT_OPFAMILY": "OPERATOR FAMILY",
    "OBJECT_LARGEOBJECT": "LARGE OBJECT",
    "OBJECT_STATISTIC_EXT": "STATISTICS",
    "OBJECT_TSCONFIGURATION": "TEXT SEARCH CONFIGURATION",
    "OBJECT_TSDICTIONARY": "TEXT SEARCH DICTIONARY",
    "OBJECT_TSPARSER": "TEXT SEARCH PARSER",
    "OBJECT_TSTEMPLATE": "TEXT SEARCH TEMPLATE",
    "OBJECT_TABCONSTRAINT": "TABLE",
    "OBJECT_DOMCONSTRAINT": "DOMAIN",
    "OBJECT_ATTRIBUTE": "TYPE",
    "OBJECT_COLUMN": "TABLE",
}


def object_word(kind: str) -> str:
    """`OBJECT_FOREIGN_TABLE` as a command tag says it: `FOREIGN TABLE`."""
    return _OBJECT_WORDS.get(kind) or kind.removeprefix("OBJECT_").replace("_", " ")
