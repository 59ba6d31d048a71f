"""What PostgreSQL's own functions do that a reader of their volatility would not guess.

Written by people, not by `generate.py`: each name was looked at. Four kinds of name are told apart.

- `DANGEROUS`: a class, a verb, one sentence and the names it is true of, volatile or not.
- `HARMLESS`: volatile, yet all they touch is the session itself, a sequence, a lock that an application made for
  itself, or nothing: clocks, random numbers, sizes, progress.
- `REVIEWED`: not volatile, but PostgreSQL lets only some roles call them, so somebody thought them sensitive.
- `SERVER_ONLY`: volatile, and only the server itself can call them (trigger functions, handlers). Called by hand
  they fail; they stay unknown.

A test holds this against the catalog of a real server: a volatile function, or one that PUBLIC may not execute,
that stands in none of the four is a new version's, and has to be looked at.
"""

from __future__ import annotations

from typing import Final

from classifier.model import ActionClass

HARMLESS: Final = """
amvalidate array_sample array_shuffle bernoulli clock_timestamp currtid2 current_query currval gen_random_uuid
lastval lo_close lo_tell lo_tell64 nextval
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

# class, verb, sentence, names; a name that ends in `*` is a prefix
DANGEROUS: Final[tuple[tuple[ActionClass, str, str, str], ...]] = (
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
        "lo_export pg_file_* pg_logdir_ls",
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
        pg_reload_conf pg_rotate_logfile* pg_switch_wal pg_switch_xlog pg_create_restore_point pg_promote
        pg_wal_replay_pause pg_wal_replay_resume pg_backup_start pg_backup_stop pg_start_backup
        pg_stop_backup pg_stat_reset* pg_clear_relation_stats
        pg_clear_attribute_stats pg_restore_relation_stats pg_restore_attribute_stats
        gin_clean_pending_list brin_summarize_* brin_desummarize_range pg_nextoid
        pg_stop_making_pinned_objects
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
        """,
    ),
    (
        ActionClass.MAINTENANCE,
        "binary_upgrade",
        "changes the catalogs as only pg_upgrade may",
        "binary_upgrade_*",
    ),
    (
        ActionClass.DDL,
        "import_collations",
        "creates collations from those of the operating system",
        "pg_import_system_collations",
    ),
    (
        ActionClass.DDL,
        "extension_config_dump",
        "changes which tables of an extension are dumped",
        "pg_extension_config_dump",
    ),
    (
        ActionClass.CODE,
        "call_language_handler",
        "runs code of a procedural language",
        """
        plpgsql_call_handler plpgsql_inline_handler plpgsql_validator fmgr_c_validator
        fmgr_internal_validator fmgr_sql_validator
        """,
    ),
)

# PUBLIC may not execute them, but they only tell of the server itself: build options, replication progress.
REVIEWED: Final = """
pg_config pg_replication_origin_oid
"""

SERVER_ONLY: Final = """
RI_FKey_cascade_del RI_FKey_cascade_upd RI_FKey_check_ins RI_FKey_check_upd RI_FKey_noaction_del
RI_FKey_noaction_upd RI_FKey_restrict_del RI_FKey_restrict_upd RI_FKey_setdefault_del RI_FKey_setdefault_upd
RI_FKey_setnull_del RI_FKey_setnull_upd brinhandler bthandler dsnowball_init dsnowball_lexize ginhandler
gisthandler hashhandler heap_tableam_handler spghandler suppress_redundant_updates_trigger
tsvector_update_trigger tsvector_update_trigger_column unique_key_recheck
"""

# Their arguments decide; the classifier reads them.
BY_ARGUMENT: Final = """
set_config setval ts_rewrite
"""
