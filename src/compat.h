/*-------------------------------------------------------------------------
 *
 * compat.h
 *		The differences between the supported versions of PostgreSQL.
 *
 * Every #if on the server's version stands here and nowhere else: the other
 * files are written for the newest interface, and this one teaches it to the
 * older servers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EROS_COMPAT_H
#define EROS_COMPAT_H

#include "postgres.h"

#if PG_VERSION_NUM < 130000
#error "EROS needs PostgreSQL 13 or later"
#endif

#include "access/parallel.h"
#include "storage/ipc.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/guc.h"

/*
 * Since 15, shared memory is asked for in a hook of its own; before, it is
 * asked for while the library loads.
 */
#if PG_VERSION_NUM >= 150000
#define eros_install_shmem_request(function)          \
	do                                                \
	{                                                 \
		prev_shmem_request_hook = shmem_request_hook; \
		shmem_request_hook = (function);              \
	} while (0)
#define eros_chain_shmem_request()     \
	do                                 \
	{                                  \
		if (prev_shmem_request_hook)   \
			prev_shmem_request_hook(); \
	} while (0)
#else
typedef void (*shmem_request_hook_type)(void);
#define eros_install_shmem_request(function) (function)()
#define eros_chain_shmem_request() ((void) prev_shmem_request_hook)
#endif

/* The connection limit of a database whose DROP was interrupted, named since 15.4. */
#define EROS_INVALID_DATABASE (-2)

/* Since 15, a prefix of settings can be reserved. */
#if PG_VERSION_NUM < 150000
#define MarkGUCPrefixReserved(prefix) EmitWarningsOnPlaceholders(prefix)
#endif

/* Since 15, there is a generator of random numbers with a state of one's own. */
#if PG_VERSION_NUM >= 150000
#include "common/pg_prng.h"
#define eros_random_double() pg_prng_double(&pg_global_prng_state)
#else
#define eros_random_double() ((double) random() / MAX_RANDOM_VALUE)
#endif

/* Since 15, one call sets up a set-returning function's tuplestore. */
#if PG_VERSION_NUM < 150000
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/tuplestore.h"
static inline void
eros_init_materialized_srf(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext old = MemoryContextSwitchTo(rsinfo->econtext->ecxt_per_query_memory);

	if (get_call_result_type(fcinfo, NULL, &rsinfo->setDesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	rsinfo->setDesc = CreateTupleDescCopy(rsinfo->setDesc);
	rsinfo->setResult = tuplestore_begin_heap(true, false, work_mem);
	rsinfo->returnMode = SFRM_Materialize;
	MemoryContextSwitchTo(old);
}
#define InitMaterializedSRF(fcinfo, flags) eros_init_materialized_srf(fcinfo)
#endif

/*
 * Since 14, a process can be asked to log its memory contexts, at the next
 * point where it serves interrupts; pace.c borrows that.
 */
#if PG_VERSION_NUM >= 140000
#define eros_request_safe_point() (InterruptPending = true, LogMemoryContextPending = true)
#define eros_withdraw_safe_point() (LogMemoryContextPending = false)
#define eros_safe_point_requested() (LogMemoryContextPending)
#else
#define eros_request_safe_point() ((void) 0)
#define eros_withdraw_safe_point() ((void) 0)
#define eros_safe_point_requested() (false)
#endif

/* Since 14, there is a choice of compression methods. */
#if PG_VERSION_NUM >= 140000
#include "access/toast_compression.h"
#define eros_compress(value, att)                                                 \
	toast_compress_datum((value), CompressionMethodIsValid((att)->attcompression) \
									  ? (att)->attcompression                     \
									  : default_toast_compression)
#else
#define eros_compress(value, att) toast_compress_datum(value)
#endif

/* Since 15, a timer can fire again and again; before, it does so once. */
#if PG_VERSION_NUM >= 150000
#define eros_enable_ticks(id, ms) \
	enable_timeout_every((id), TimestampTzPlusMilliseconds(GetCurrentTimestamp(), (ms)), (ms))
#define eros_continue_ticks(id, ms) ((void) 0)
#else
#define eros_enable_ticks(id, ms) enable_timeout_after((id), (ms))
#define eros_continue_ticks(id, ms) enable_timeout_after((id), (ms))
#endif

/* Since 14, a memory context is told whether its statistics go to stderr. */
#if PG_VERSION_NUM >= 140000
#define EROS_STATS_ARGS                                                    \
	MemoryContext context, MemoryStatsPrintFunc printfunc, void *passthru, \
		MemoryContextCounters *totals, bool print_to_stderr
#define EROS_STATS_CALL context, printfunc, passthru, totals, print_to_stderr
#else
#define EROS_STATS_ARGS                                                    \
	MemoryContext context, MemoryStatsPrintFunc printfunc, void *passthru, \
		MemoryContextCounters *totals
#define EROS_STATS_CALL context, printfunc, passthru, totals
#endif

/* The class of waits for a buffer pin, which was renamed in 17. */
#define EROS_IS_WAIT_FOR_PIN(wait_event_info) (((wait_event_info) &0xFF000000U) == 0x04000000U)

/* Since 14, an idle session can time out; since 17, a transaction. */
#if PG_VERSION_NUM >= 170000
#define eros_set_newer_timeouts()                                               \
	(SetConfigOption("idle_session_timeout", "0", PGC_USERSET, PGC_S_OVERRIDE), \
	 SetConfigOption("transaction_timeout", "0", PGC_USERSET, PGC_S_OVERRIDE))
#elif PG_VERSION_NUM >= 140000
#define eros_set_newer_timeouts() \
	SetConfigOption("idle_session_timeout", "0", PGC_USERSET, PGC_S_OVERRIDE)
#else
#define eros_set_newer_timeouts() ((void) 0)
#endif

/* Since 17, an extension can name what it waits for. */
#if PG_VERSION_NUM >= 170000
#define EROS_WAIT_EVENT(name) WaitEventExtensionNew(name)
#else
#define EROS_WAIT_EVENT(name) PG_WAIT_EXTENSION
#endif

/* Since 17, a process is known by its number, and may ask for a stronger lock than named. */
#if PG_VERSION_NUM >= 170000
#define EROS_MY_PROC_NUMBER MyProcNumber
#define EROS_MY_LXID (MyProc->vxid.lxid)
#define eros_lock_held_by_me(tag, mode) LockHeldByMe((tag), (mode), false)
#else
#define EROS_MY_PROC_NUMBER MyBackendId
#define EROS_MY_LXID (MyProc->lxid)
#define eros_lock_held_by_me(tag, mode) LockHeldByMe((tag), (mode))
#endif

/* Since 16, one function checks the privileges on any object. */
#if PG_VERSION_NUM < 160000
#define eros_function_aclcheck(fn, role) pg_proc_aclcheck((fn), (role), ACL_EXECUTE)
#define eros_may_alter_database(db) pg_database_ownercheck((db), GetUserId())
#define eros_may_drop_extension(ext) pg_extension_ownercheck((ext), GetUserId())
#else
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_proc.h"
#define eros_may_alter_database(db) object_ownercheck(DatabaseRelationId, (db), GetUserId())
#define eros_may_drop_extension(ext) object_ownercheck(ExtensionRelationId, (ext), GetUserId())
#define eros_function_aclcheck(fn, role) \
	object_aclcheck(ProcedureRelationId, (fn), (role), ACL_EXECUTE)
#endif

/* Since 14, a utility hook is told whether the tree may be scribbled on. */
#if PG_VERSION_NUM >= 140000
#define EROS_UTILITY_ARGS                                                                 \
	PlannedStmt *pstmt, const char *query_string, bool read_only_tree,                    \
		ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *query_env, \
		DestReceiver *dest, QueryCompletion *qc
#define EROS_UTILITY_CALL pstmt, query_string, read_only_tree, context, params, query_env, dest, qc
#else
#define EROS_UTILITY_ARGS                                                        \
	PlannedStmt *pstmt, const char *query_string, ProcessUtilityContext context, \
		ParamListInfo params, QueryEnvironment *query_env, DestReceiver *dest, QueryCompletion *qc
#define EROS_UTILITY_CALL pstmt, query_string, context, params, query_env, dest, qc
#endif

/* Since 14, a partition descriptor may leave out what is being detached. */
#if PG_VERSION_NUM >= 140000
#define eros_partition_desc(rel) RelationGetPartitionDesc((rel), true)
#else
#define eros_partition_desc(rel) RelationGetPartitionDesc((rel))
#endif

/* Since 14, a part of a table can be read alone, by a range of ctid. */
#define EROS_READS_PARTS (PG_VERSION_NUM >= 140000)

/* Since 18, an index scan can be instrumented. */
#if PG_VERSION_NUM >= 180000
#define eros_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan((heap), (index), (snapshot), NULL, (nkeys), 0)
#else
#define eros_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan((heap), (index), (snapshot), (nkeys), 0)
#endif

/* The entries of a new row in its table's indexes. */
#if PG_VERSION_NUM >= 160000
#define eros_insert_index_tuples(target, slot, estate) \
	ExecInsertIndexTuples((target), (slot), (estate), false, false, NULL, NIL, false)
#elif PG_VERSION_NUM >= 140000
#define eros_insert_index_tuples(target, slot, estate) \
	ExecInsertIndexTuples((target), (slot), (estate), false, false, NULL, NIL)
#else
#define eros_insert_index_tuples(target, slot, estate) \
	((estate)->es_result_relation_info = (target),     \
	 ExecInsertIndexTuples((slot), (estate), false, NULL, NIL))
#endif

/* The entries of a row's new version, as table_tuple_update() asks for them. */
#if PG_VERSION_NUM >= 160000
typedef TU_UpdateIndexes ErosIndexUpdate;
#define eros_update_index_tuples(target, slot, estate, needed)                                  \
	((needed) == TU_None ? NIL                                                                  \
						 : ExecInsertIndexTuples((target), (slot), (estate), true, false, NULL, \
												 NIL, (needed) == TU_Summarizing))
#elif PG_VERSION_NUM >= 140000
typedef bool ErosIndexUpdate;
#define eros_update_index_tuples(target, slot, estate, needed) \
	((needed) ? ExecInsertIndexTuples((target), (slot), (estate), true, false, NULL, NIL) : NIL)
#else
typedef bool ErosIndexUpdate;
#define eros_update_index_tuples(target, slot, estate, needed) \
	((needed) ? eros_insert_index_tuples((target), (slot), (estate)) : NIL)
#endif

/* Since 16, parsing a qualified name can report errors softly. */
#if PG_VERSION_NUM < 160000
#define eros_name_list(name) stringToQualifiedNameList(name)
#else
#define eros_name_list(name) stringToQualifiedNameList((name), NULL)
#endif

#endif /* EROS_COMPAT_H */
