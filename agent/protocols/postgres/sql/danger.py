"""Functions that do more than read, or are volatile and only read, each with its effect: by hand.

Reasons stand by each group. Names that servers before PostgreSQL 15 had are here too.
"""

from collections.abc import Mapping
from types import MappingProxyType

from agent.model.sql import Effect
from agent.protocols.postgres.sql.words import words

# volatile in pg_proc, and yet nothing but a read: clocks, chance, the state of the server
_READ = """
bernoulli clock_timestamp current_query currval gen_random_uuid lastval lo_close lo_get lo_lseek
lo_lseek64 lo_tell lo_tell64 loread pg_blocking_pids pg_collation_actual_version
pg_control_checkpoint pg_control_init pg_control_recovery pg_control_system
pg_current_wal_flush_lsn pg_current_wal_insert_lsn pg_current_wal_lsn
pg_database_collation_actual_version pg_database_size pg_get_backend_memory_contexts
pg_get_multixact_members pg_get_shmem_allocations pg_get_shmem_allocations_numa
pg_get_wal_replay_pause_state pg_get_wal_resource_managers pg_indexes_size pg_is_in_backup
pg_is_in_recovery pg_is_wal_replay_paused pg_isolation_test_session_is_blocked pg_jit_available
pg_last_committed_xact pg_last_wal_receive_lsn pg_last_wal_replay_lsn
pg_last_xact_replay_timestamp pg_lock_status pg_notification_queue_usage pg_partition_ancestors
pg_partition_tree pg_prepared_xact pg_relation_size pg_safe_snapshot_blocking_pids
pg_sequence_last_value pg_get_sequence_data pg_stat_get_recovery_prefetch
pg_stat_get_xact_blocks_fetched pg_stat_get_xact_blocks_hit pg_stat_get_xact_function_calls
pg_stat_get_xact_function_self_time pg_stat_get_xact_function_total_time
pg_stat_get_xact_numscans pg_stat_get_xact_tuples_deleted pg_stat_get_xact_tuples_fetched
pg_stat_get_xact_tuples_hot_updated pg_stat_get_xact_tuples_inserted
pg_stat_get_xact_tuples_newpage_updated pg_stat_get_xact_tuples_returned
pg_stat_get_xact_tuples_updated pg_stat_have_stats pg_table_size pg_tablespace_size
pg_total_relation_size pg_tablespace_collation_actual_version pg_xact_commit_timestamp
pg_xact_commit_timestamp_origin pg_xact_status random random_normal system timeofday txid_status
uuidv4 uuidv7 array_shuffle array_sample pg_available_wal_summaries pg_get_aios
pg_get_loaded_modules pg_get_wait_events pg_get_wal_summarizer_state pg_stat_get_backend_io
pg_stat_get_backend_wal pg_stat_get_io pg_wal_summary_contents
"""

# advisory locks, waiting, this session's own snapshot, statistics cache and random numbers
_SESSION = """
pg_advisory_lock pg_advisory_lock_shared pg_advisory_unlock pg_advisory_unlock_all
pg_advisory_unlock_shared pg_advisory_xact_lock pg_advisory_xact_lock_shared
pg_try_advisory_lock pg_try_advisory_lock_shared pg_try_advisory_xact_lock
pg_try_advisory_xact_lock_shared pg_export_snapshot pg_sleep pg_sleep_for pg_sleep_until
pg_stat_clear_snapshot pg_stat_force_next_flush setseed
"""

# sequences, large objects, indexes' pending lists, messages to other sessions, rows on their way
_WRITE = """
tsvector_update_trigger tsvector_update_trigger_column suppress_redundant_updates_trigger
nextval setval lo_creat lo_create lo_from_bytea lo_open lo_put lo_truncate lo_truncate64 lo_unlink
lowrite pg_notify brin_desummarize_range brin_summarize_new_values brin_summarize_range
gin_clean_pending_list
"""

# objects made by a function
_DDL = "pg_import_system_collations"

# the server's files, processes, log, backup, replication, statistics, and other sessions
_ADMIN = """
lo_import lo_export pg_read_file pg_read_file_old pg_read_binary_file pg_stat_file pg_ls_dir
pg_ls_archive_statusdir pg_ls_logdir pg_ls_logicalmapdir pg_ls_logicalsnapdir pg_ls_replslotdir
pg_ls_summariesdir pg_ls_tmpdir pg_ls_waldir pg_file_write pg_file_read pg_file_rename
pg_file_unlink pg_file_sync pg_file_length pg_logdir_ls pg_logfile_rotate pg_current_logfile
pg_hba_file_rules pg_ident_file_mappings pg_show_all_file_settings pg_config
pg_rotate_logfile pg_rotate_logfile_old pg_reload_conf pg_terminate_backend pg_cancel_backend
pg_log_backend_memory_contexts pg_get_process_memory_contexts pg_backup_start pg_backup_stop
pg_start_backup pg_stop_backup pg_switch_wal pg_switch_xlog pg_create_restore_point pg_promote
pg_wal_replay_pause pg_wal_replay_resume pg_log_standby_snapshot pg_logical_emit_message
pg_copy_logical_replication_slot pg_copy_physical_replication_slot
pg_create_logical_replication_slot pg_create_physical_replication_slot pg_drop_replication_slot
pg_sync_replication_slots pg_replication_slot_advance pg_logical_slot_get_binary_changes
pg_logical_slot_get_changes pg_logical_slot_peek_binary_changes pg_logical_slot_peek_changes
pg_replication_origin_advance pg_replication_origin_create pg_replication_origin_drop
pg_replication_origin_progress pg_replication_origin_session_is_setup
pg_replication_origin_session_progress pg_replication_origin_session_reset
pg_replication_origin_session_setup pg_replication_origin_xact_reset
pg_replication_origin_xact_setup pg_show_replication_origin_status pg_stat_reset
pg_stat_reset_backend_stats pg_stat_reset_replication_slot pg_stat_reset_shared
pg_stat_reset_single_function_counters pg_stat_reset_single_table_counters pg_stat_reset_slru
pg_stat_reset_subscription_stats pg_restore_relation_stats pg_clear_relation_stats
pg_restore_attribute_stats pg_clear_attribute_stats pg_set_relation_stats pg_set_attribute_stats
pg_extension_config_dump pg_nextoid pg_stop_making_pinned_objects set_config
binary_upgrade_create_empty_extension binary_upgrade_set_missing_value
binary_upgrade_set_record_init_privs
"""

# they run text, or read relations that the text does not name: nobody can say
_UNKNOWN = """
query_to_xml query_to_xml_and_xmlschema query_to_xmlschema cursor_to_xml cursor_to_xmlschema
table_to_xml table_to_xml_and_xmlschema table_to_xmlschema schema_to_xml
schema_to_xml_and_xmlschema schema_to_xmlschema database_to_xml database_to_xml_and_xmlschema
database_to_xmlschema ts_stat ts_rewrite currtid2 amvalidate
"""

BUILT_IN: Mapping[str, Effect] = MappingProxyType(
    {
        name: effect
        for names, effect in (
            (_READ, Effect.READ),
            (_SESSION, Effect.SESSION),
            (_WRITE, Effect.WRITE),
            (_DDL, Effect.DDL),
            (_ADMIN, Effect.ADMIN),
            (_UNKNOWN, Effect.UNKNOWN),
        )
        for name in names.split()
    }
)

# Extensions' functions, whatever schema they were put into: they dial out, or reach the server.
ANYWHERE_PREFIXES = ("dblink", "pg_file_", "pg_read_", "pg_ls_", "binary_upgrade_")

# information_schema's functions, which its views and JDBC drivers call
INFORMATION_SCHEMA = words(
    """
_pg_char_max_length _pg_char_octet_length _pg_datetime_precision _pg_expandarray
_pg_index_position _pg_interval_type _pg_numeric_precision _pg_numeric_precision_radix
_pg_numeric_scale _pg_truetypid _pg_truetypmod
"""
)
