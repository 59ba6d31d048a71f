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

from classifier.data import builtins
from classifier.model import ActionClass


class Effect(NamedTuple):
    """What a call does, as an action's class, verb and sentence."""

    cls: ActionClass
    verb: str
    detail: str


# Volatile, but all they touch is the session itself, a sequence, a lock an application made for itself, or
# nothing: clocks, random numbers, sizes, progress.
_HARMLESS: Final = """
array_sample array_shuffle bernoulli clock_timestamp current_query currval gen_random_uuid lastval nextval
pg_advisory_lock pg_advisory_lock_shared pg_advisory_unlock pg_advisory_unlock_all pg_advisory_unlock_shared
pg_advisory_xact_lock pg_advisory_xact_lock_shared pg_available_wal_summaries pg_blocking_pids
pg_collation_actual_version pg_control_checkpoint pg_control_init pg_control_recovery pg_control_system
pg_current_wal_flush_lsn pg_current_wal_insert_lsn pg_current_wal_lsn pg_database_collation_actual_version
pg_database_size pg_export_snapshot pg_get_aios pg_get_backend_memory_contexts pg_get_loaded_modules
pg_get_multixact_members pg_get_sequence_data pg_get_shmem_allocations pg_get_shmem_allocations_numa
pg_get_wait_events pg_get_wal_replay_pause_state pg_get_wal_resource_managers pg_get_wal_summarizer_state
pg_indexes_size pg_is_in_recovery pg_is_wal_replay_paused pg_isolation_test_session_is_blocked
pg_jit_available pg_last_committed_xact pg_last_wal_receive_lsn pg_last_wal_replay_lsn
pg_last_xact_replay_timestamp pg_lock_status pg_notification_queue_usage pg_partition_ancestors
pg_partition_tree pg_prepared_xact pg_relation_size pg_replication_origin_progress
pg_replication_origin_session_is_setup pg_replication_origin_session_progress pg_safe_snapshot_blocking_pids
pg_sequence_last_value pg_show_replication_origin_status pg_sleep pg_sleep_for pg_sleep_until
pg_stat_clear_snapshot pg_stat_force_next_flush pg_stat_get_backend_io pg_stat_get_backend_wal
pg_stat_get_io pg_stat_get_recovery_prefetch pg_stat_get_xact_blocks_fetched pg_stat_get_xact_blocks_hit
pg_stat_get_xact_function_calls pg_stat_get_xact_function_self_time pg_stat_get_xact_function_total_time
pg_stat_get_xact_numscans pg_stat_get_xact_tuples_deleted pg_stat_get_xact_tuples_fetched
pg_stat_get_xact_tuples_hot_updated pg_stat_get_xact_tuples_inserted pg_stat_get_xact_tuples_newpage_updated
pg_stat_get_xact_tuples_returned pg_stat_get_xact_tuples_updated pg_stat_have_stats pg_table_size
pg_tablespace_size pg_total_relation_size pg_try_advisory_lock pg_try_advisory_lock_shared
pg_try_advisory_xact_lock pg_try_advisory_xact_lock_shared pg_wal_summary_contents pg_xact_commit_timestamp
pg_xact_commit_timestamp_origin pg_xact_status random random_normal setseed system timeofday txid_status
uuidv4 uuidv7
"""

# class, verb, sentence, names. A family ending in `*` is a prefix.
_DANGEROUS: Final = (
    (
        ActionClass.FILE,
        "read_server_file",
        "reads or lists files of the server",
        "pg_read_file pg_read_binary_file pg_stat_file pg_ls_* pg_current_logfile pg_hba_file_rules"
        " pg_ident_file_mappings pg_show_all_file_settings pg_read_file_old",
    ),
    (ActionClass.FILE, "read_server_file", "loads a file of the server into a large object", "lo_import"),
    (
        ActionClass.FILE,
        "write_server_file",
        "writes a file on the server",
        "lo_export pg_file_write pg_file_sync pg_file_rename pg_file_unlink pg_logdir_ls",
    ),
    (ActionClass.EXPORT, "read_large_object", "reads a large object", "lo_get loread lo_open lo_lseek*"),
    (
        ActionClass.EXPORT,
        "dump_function",
        "returns the whole content of a table, schema, cursor or query as one value",
        "query_to_xml* table_to_xml* schema_to_xml* database_to_xml* cursor_to_xml*",
    ),
    (ActionClass.EXPORT, "notify", "sends data to other sessions", "pg_notify"),
    (
        ActionClass.BULK_WRITE,
        "write_large_object",
        "creates, changes or removes a large object",
        "lo_creat lo_create lo_from_bytea lo_put lo_truncate* lo_unlink lowrite",
    ),
    (ActionClass.CODE, "run_query_text", "runs a query it is given as text", "ts_stat"),
    (
        ActionClass.CODE,
        "remote_query",
        "runs a statement on a server that is not this one",
        "dblink*",
    ),
    (
        ActionClass.MAINTENANCE,
        "signal_backend",
        "signals another session",
        "pg_terminate_backend pg_cancel_backend pg_log_backend_memory_contexts",
    ),
    (
        ActionClass.MAINTENANCE,
        "control_server",
        "controls the server as a whole",
        """
        pg_reload_conf pg_rotate_logfile pg_switch_wal pg_switch_xlog pg_create_restore_point pg_promote
        pg_wal_replay_pause pg_wal_replay_resume pg_backup_start pg_backup_stop pg_start_backup
        pg_stop_backup pg_stat_reset* pg_import_system_collations pg_clear_relation_stats
        pg_clear_attribute_stats pg_restore_relation_stats pg_restore_attribute_stats
        gin_clean_pending_list brin_summarize_* brin_desummarize_range pg_nextoid
        pg_stop_making_pinned_objects pg_extension_config_dump
        """,
    ),
    (
        ActionClass.REPLICATION,
        "replication_function",
        "reads or changes what is replicated",
        """
        pg_create_logical_replication_slot pg_create_physical_replication_slot pg_drop_replication_slot
        pg_copy_logical_replication_slot pg_copy_physical_replication_slot pg_logical_*
        pg_replication_slot_advance pg_replication_origin_advance pg_replication_origin_create
        pg_replication_origin_drop pg_replication_origin_session_reset
        pg_replication_origin_session_setup pg_replication_origin_xact_reset
        pg_replication_origin_xact_setup pg_sync_replication_slots pg_log_standby_snapshot
        binary_upgrade_*
        """,
    ),
    (
        ActionClass.CODE,
        "call_language_handler",
        "runs code of a procedural language",
        "plpgsql_call_handler plpgsql_inline_handler plpgsql_validator",
    ),
)

# `setval` moves a sequence: a write like any other.
_WRITES: Final = {"setval": Effect(ActionClass.WRITE, "setval", "sets a sequence's value")}

_KNOWN: Final = frozenset(f"{builtins.IMMUTABLE}{builtins.STABLE}{builtins.VOLATILE}".split())
_VOLATILE: Final = frozenset(builtins.VOLATILE.split())
HARMLESS: Final = frozenset(_HARMLESS.split())
# functions whose name alone tells what they do
EXACT: Final[dict[str, Effect]] = dict(_WRITES)
_PREFIXES: Final[list[tuple[str, Effect]]] = []
for _cls, _verb, _detail, _names in _DANGEROUS:
    for _name in _names.split():
        if _name.endswith("*"):
            _PREFIXES.append((_name[:-1], Effect(_cls, _verb, _detail)))
        else:
            EXACT[_name] = Effect(_cls, _verb, _detail)
_OWN_SCHEMAS: Final = ("pg_catalog", "information_schema")


def dangerous(name: str) -> Effect | None:
    """The effect of a function whose name alone is enough to tell, in whatever schema it stands."""
    effect = EXACT.get(name)
    if effect is None:
        for prefix, family in _PREFIXES:
            if name.startswith(prefix):
                return family
    return effect


def is_builtin(name: str) -> bool:
    """Whether PostgreSQL itself has a function of this name."""
    return name in _KNOWN


def resolve(schema: str | None, name: str, arguments: int, search_path: tuple[str, ...] | None) -> Effect | None:
    """What a call does beyond reading; None where it does nothing more.

    `search_path` None (not known) is taken as one that reaches pg_catalog first: only a search_path that
    names pg_catalog behind another schema does not ("Schemas and the System Catalog", "The Schema Search
    Path").
    """
    effect = dangerous(name)
    if effect is not None:
        return effect
    if (schema is not None and schema not in _OWN_SCHEMAS) or name not in _KNOWN:
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
