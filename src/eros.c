/*-------------------------------------------------------------------------
 *
 * eros.c
 *		Loading, settings, and the slots in shared memory.
 *
 * Owns the arrays of database, worker and handler slots.  A slot is taken and
 * given back under the slot lock (eros_shared->lock), held for a few
 * instructions; what is inside a slot is atomics, or written by its owner only.
 * Also keeps the little list of what a transaction does to shared memory when
 * it commits: counters to add to, the configuration's generation to raise.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "eros.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/memutils.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(eros_config_changed);
PG_FUNCTION_INFO_V1(eros_table_emptied);
PG_FUNCTION_INFO_V1(eros_announce);
PG_FUNCTION_INFO_V1(eros_library_version);

extern PGDLLEXPORT void _PG_init(void);

ErosShared *eros_shared = NULL;
ErosDatabase *eros_databases = NULL;
ErosWorker *eros_workers_array = NULL;
ErosHandlerStats *eros_handlers_array = NULL;

bool eros_enabled = true;
bool eros_developer = false;
int eros_workers = 1;
int eros_max_workers = 16;
int eros_max_databases = 128;
int eros_max_handlers = 128;
int eros_tracker_memory_kb = 65536;
int eros_quantum_ms = 100;
double eros_cpu_cap = 95;
int eros_cpu_cores = 0;
int eros_sweep_interval_ms = 5000;
int eros_maintenance_interval_s = 300;
int eros_max_idle_s = 30 * 86400;
int eros_cache_limit_kb = 1024 * 1024;
int eros_max_result_size = 50 * 1024;
int eros_retry_delay_ms = 60000;
int eros_retry_delay_max_ms = 3600000;
int eros_worker_idle_timeout_ms = 10000;
int eros_halt_timeout_ms = 500;
int eros_max_snapshot_age_ms = 600000;
int eros_work_mem_kb = 1024;
int eros_nice = 0;
bool eros_foreground_first = true;
int eros_turn_ms = 10000;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

/* What this transaction will do to shared memory when it commits. */
typedef struct CommitAction
{
	pg_atomic_uint64 *counter;
	int64 delta;
	int nest_level;
} CommitAction;

static CommitAction *commit_actions = NULL;
static int ncommit_actions = 0;
static int max_commit_actions = 0;
static int config_changed_level = 0; /* 0: not changed */
static uint32 config_changes = 0;
static int announced_level = 0;

/* The nesting level in which this transaction has emptied one of EROS's tables. */
static int emptied_level = 0;

static bool check_work_mem(int *newval, void **extra, GucSource source);
static void define_settings(void);
static void define_settings_of_work(void);
static void request_shmem(void);
static void startup_shmem(void);
static void at_transaction_end(XactEvent event, void *arg);
static void
at_subtransaction_end(SubXactEvent event, SubTransactionId sub, SubTransactionId parent, void *arg);

/* Defines the settings, asks for shared memory and registers the launcher. */
void
_PG_init(void)
{
	/*
	 * Without shared_preload_libraries there is no shared memory: leave, and
	 * let the functions say so.
	 */
	if (!process_shared_preload_libraries_in_progress)
		return;

	define_settings();
	define_settings_of_work();
	eros_install_shmem_request(request_shmem);
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
	eros_launcher_install_hooks();
	eros_launcher_register();
}

/* Raises the error that tells how to load the library. */
void
eros_check_loaded(void)
{
	if (unlikely(eros_shared == NULL))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("eros must be loaded at server start"),
				 errhint("Add \"shared_preload_libraries = 'eros'\" to postgresql.conf "
						 "(after what is there, separated by a comma) and restart the server.")));
}

/* Accepts what work_mem accepts, and -1. */
static bool
check_work_mem(int *newval, void **extra, GucSource source)
{
	if (*newval == -1 || *newval >= 64)
		return true;
	GUC_check_errdetail("It must be at least 64 kB, or -1.");
	return false;
}

/* Defines the settings of what runs, and how much of it. */
static void
define_settings(void)
{
	DefineCustomBoolVariable(
		"eros.enabled",
		"Runs schedulers and workers; touches are recorded and results served without it.", NULL,
		&eros_enabled, true, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("eros.developer", "Lets superusers move the time of EROS, for tests.",
							 NULL, &eros_developer, false, PGC_POSTMASTER, GUC_NOT_IN_SAMPLE, NULL,
							 NULL, NULL);
	DefineCustomIntVariable("eros.workers", "Workers per database, at most.", NULL, &eros_workers,
							1, 0, EROS_MAX_WORKERS, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("eros.max_workers", "Workers of the whole server, at most.", NULL,
							&eros_max_workers, 16, 1, 1024, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("eros.max_databases", "Databases that may have the extension.", NULL,
							&eros_max_databases, 128, 1, 10000, PGC_POSTMASTER, 0, NULL, NULL,
							NULL);
	DefineCustomIntVariable("eros.max_handlers",
							"Handlers of the whole server whose figures are kept.", NULL,
							&eros_max_handlers, 128, 1, 10000, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("eros.tracker_memory", "Shared memory for active users, at most.",
							"32 bytes a user, at most 7/8 full; used as it fills.",
							&eros_tracker_memory_kb, 65536, 256, INT_MAX, PGC_POSTMASTER,
							GUC_UNIT_KB, NULL, NULL, NULL);
}

/* Defines those of how the work is done. */
static void
define_settings_of_work(void)
{
	DefineCustomIntVariable("eros.quantum", "CPU time that one batch shall take.",
							"Batches are sized by the measured cost per user.", &eros_quantum_ms,
							100, 1, 60000, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomRealVariable("eros.cpu_cap",
							 "Hard cap on the CPU of all workers, in percent of eros.cpu_cores.",
							 NULL, &eros_cpu_cap, 95, 1, 95, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("eros.cpu_cores",
							"Cores that EROS may count on; 0: all that are online.",
							"Or the CPU quota of the server's control group, where that is less.",
							&eros_cpu_cores, 0, 0, 4096, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"eros.sweep_interval", "Time between two looks for idle users, at most.",
		"Shorter when the first phase begins within twenty times this.", &eros_sweep_interval_ms,
		5000, 1, 60000, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"eros.maintenance_interval", "Time between two purges and clean-ups of stale users.", NULL,
		&eros_maintenance_interval_s, 300, 1, 86400, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("eros.max_idle", "Users idle for longer are forgotten.", NULL,
							&eros_max_idle_s, 30 * 86400, 60, 10 * 365 * 86400, PGC_SIGHUP,
							GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"eros.cache_limit", "Bytes of live results per database, at most; 0: no limit.", NULL,
		&eros_cache_limit_kb, 1024 * 1024, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("eros.max_result_size",
							"Bytes of one result, at most, before compression.", NULL,
							&eros_max_result_size, 50 * 1024, 64, 16 * 1024 * 1024, PGC_SIGHUP,
							GUC_UNIT_BYTE, NULL, NULL, NULL);
	DefineCustomIntVariable("eros.retry_delay", "Time before a failed job is tried again.",
							"Doubled at every further failure, with a jitter of a quarter.",
							&eros_retry_delay_ms, 60000, 1, 86400000, PGC_SIGHUP, GUC_UNIT_MS, NULL,
							NULL, NULL);
	DefineCustomIntVariable(
		"eros.retry_delay_max", "Time before a failed job is tried again, at most.", NULL,
		&eros_retry_delay_max_ms, 3600000, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("eros.worker_idle_timeout", "A worker without work ends after this.",
							NULL, &eros_worker_idle_timeout_ms, 10000, 10, 3600000, PGC_SIGHUP,
							GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"eros.halt_timeout",
		"A worker that does not yield to a halt in this time is terminated, at the next "
		"point where it serves interrupts.",
		NULL, &eros_halt_timeout_ms, 500, 10, 600000, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("eros.max_snapshot_age",
							"A call of a handler is cancelled after this, whatever its timeout.",
							"It holds a snapshot all the time, its pauses included.",
							&eros_max_snapshot_age_ms, 600000, 1000, 86400000, PGC_SIGHUP,
							GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"eros.work_mem", "The work_mem with which workers call handlers; -1: the server's.",
		"A sort that spills its memory to disk can be neither paced nor halted while it does so.",
		&eros_work_mem_kb, 1024, -1, MAX_KILOBYTES, PGC_SIGHUP, GUC_UNIT_KB, check_work_mem, NULL,
		NULL);
	DefineCustomBoolVariable("eros.foreground_first",
							 "Takes less than the phases' shares while the machine is contended.",
							 "Judged by how long workers wait for a CPU, down to a hundredth.",
							 &eros_foreground_first, true, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("eros.turn",
							"Databases that share too few worker slots are served for so long.",
							"A database that has nothing to do makes room at once.", &eros_turn_ms,
							10000, 10, 3600000, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("eros.nice", "Niceness of workers, set when they start.",
							"Of little effect where each session is scheduled as a group.",
							&eros_nice, 0, 0, 19, PGC_SIGHUP, 0, NULL, NULL, NULL);
	MarkGUCPrefixReserved("eros");
}

/* ------------------------------------------------------------------------
 * Shared memory
 * ------------------------------------------------------------------------
 */

/* The bytes of the slots; the active users come on top. */
static Size
slots_size(void)
{
	Size size = MAXALIGN(sizeof(ErosShared));

	size = add_size(size, mul_size(eros_max_databases, sizeof(ErosDatabase)));
	size = add_size(size, mul_size(eros_max_workers, sizeof(ErosWorker)));
	size = add_size(size, mul_size(eros_max_handlers, sizeof(ErosHandlerStats)));
	return size;
}

/* Tells how many bytes of shared memory EROS takes besides those for active users. */
Size
eros_shared_bytes(void)
{
	return slots_size();
}

/* Asks for the shared memory. */
static void
request_shmem(void)
{
	eros_chain_shmem_request();
	RequestAddinShmemSpace(slots_size());
	RequestAddinShmemSpace(eros_tracker_shmem_size());
	RequestNamedLWLockTranche("eros", 1);
}

/*
 * Sets the shared memory up, or attaches to it.
 *
 * Fresh shared memory is zero, and zero is how every slot begins: only what
 * must not be zero is written.
 */
static void
startup_shmem(void)
{
	bool found;
	char *memory;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	memory = ShmemInitStruct("eros", slots_size(), &found);
	eros_shared = (ErosShared *) memory;
	memory += MAXALIGN(sizeof(ErosShared));
	eros_databases = (ErosDatabase *) memory;
	memory += sizeof(ErosDatabase) * eros_max_databases;
	eros_workers_array = (ErosWorker *) memory;
	memory += sizeof(ErosWorker) * eros_max_workers;
	eros_handlers_array = (ErosHandlerStats *) memory;
	if (!found)
	{
		memset(eros_shared, 0, slots_size());
		eros_shared->lock = &(GetNamedLWLockTranche("eros"))->lock;
		eros_shared->started = GetCurrentTimestamp();
	}
	eros_tracker_shmem_init();
	LWLockRelease(AddinShmemInitLock);
	if (!found && !IsUnderPostmaster)
		eros_crash_watch();
}

/* Has everybody who works in a database read its configuration anew. */
static void
raise_generation(ErosDatabase *db)
{
	pg_atomic_write_u64(&db->config_generation,
						pg_atomic_add_fetch_u64(&eros_shared->generation, 1));
}

/* Finds the slot of a database, or with create makes one; NULL when all are taken. */
ErosDatabase *
eros_database_slot(Oid dboid, bool create)
{
	ErosDatabase *free_slot = NULL;
	ErosDatabase *slot = NULL;

	eros_check_loaded();
	LWLockAcquire(eros_shared->lock, create ? LW_EXCLUSIVE : LW_SHARED);
	for (int i = 0; i < eros_max_databases; i++)
	{
		if (eros_databases[i].dboid == dboid)
		{
			slot = &eros_databases[i];
			break;
		}
		if (free_slot == NULL && !OidIsValid(eros_databases[i].dboid))
			free_slot = &eros_databases[i];
	}
	if (slot == NULL && create && free_slot != NULL)
	{
		slot = free_slot;
		memset(slot, 0, sizeof(ErosDatabase));
		slot->dboid = dboid;
		slot->state = EROS_DB_PROBE;
		raise_generation(slot);
	}
	LWLockRelease(eros_shared->lock);
	return slot;
}

/* The slot of this process's database, made if it has none; an error when all are taken. */
ErosDatabase *
eros_require_database(void)
{
	ErosDatabase *db = eros_my_database();

	if (db != NULL)
		return db;
	db = eros_database_slot(MyDatabaseId, true);
	if (db == NULL)
		ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						errmsg("too many databases use EROS"),
						errhint("Raise eros.max_databases and restart the server.")));

	/* the extension is here, but the launcher has not looked yet */
	eros_launcher_wake();
	return db;
}

/*
 * Makes or resets the slot of a database in which the extension has just been
 * created.  A scheduler that looks there at this moment may have looked too
 * early: it will see that the count of announcements has changed.
 */
static void
announce_database(Oid dboid)
{
	ErosDatabase *db = eros_database_slot(dboid, true);
	bool reset = false;

	if (db == NULL)
	{
		pg_atomic_fetch_add_u32(&eros_shared->no_room, 1); /* the launcher will say so */
		eros_launcher_wake();
		return;
	}
	LWLockAcquire(eros_shared->lock, LW_EXCLUSIVE);
	if (db->dboid == dboid)
	{
		if (db->scheduler_pid == 0)
		{
			pid_t held_by = db->held_by;
			uint32 announced = db->announced;
			bool no_worker_slot = db->no_worker_slot;

			/* what is known of an extension that was dropped is not about this one */
			memset(db, 0, sizeof(ErosDatabase));
			db->dboid = dboid;
			db->held_by = held_by;
			db->announced = announced;
			db->no_worker_slot = no_worker_slot;
			for (int i = 0; i < eros_max_handlers; i++)
			{
				if (eros_handlers_array[i].dboid == dboid)
					eros_handlers_array[i].dboid = InvalidOid;
			}
			reset = true;
		}
		if (!db->scheduler_up)
			db->state = EROS_DB_PROBE;
		db->announced++;
		raise_generation(db);
	}
	LWLockRelease(eros_shared->lock);
	if (reset)
		eros_tracker_forget_database(dboid);
}

/* The slot of this process's database, NULL when it has none. */
ErosDatabase *
eros_my_database(void)
{
	static ErosDatabase *mine = NULL;

	if (mine == NULL || mine->dboid != MyDatabaseId)
		mine = eros_database_slot(MyDatabaseId, false);
	return mine;
}

/*
 * Finds the counters of a handler, or takes a slot for them.
 *
 * When all are taken, the handler shares one of this process, which tells
 * nothing: it works, it is just not counted.
 */
ErosHandlerStats *
eros_handler_stats(Oid dboid, int32 handler_id)
{
	static ErosHandlerStats *uncounted = NULL;
	ErosHandlerStats *free_slot = NULL;
	ErosHandlerStats *slot = NULL;

	LWLockAcquire(eros_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < eros_max_handlers; i++)
	{
		ErosHandlerStats *stats = &eros_handlers_array[i];

		if (stats->dboid == dboid && stats->handler_id == handler_id)
		{
			slot = stats;
			break;
		}
		if (free_slot == NULL && !OidIsValid(stats->dboid))
			free_slot = stats;
	}
	if (slot == NULL && free_slot != NULL)
	{
		slot = free_slot;
		memset(slot, 0, sizeof(ErosHandlerStats));
		slot->dboid = dboid;
		slot->handler_id = handler_id;
	}
	LWLockRelease(eros_shared->lock);

	if (slot == NULL)
	{
		if (uncounted == NULL)
			uncounted = MemoryContextAllocZero(TopMemoryContext, sizeof(ErosHandlerStats));
		slot = uncounted;
	}
	return slot;
}

/* Tells whether these are one handler's counters: those without room share some. */
bool
eros_handler_is_counted(const ErosHandlerStats *stats)
{
	return OidIsValid(stats->dboid);
}

/* Lists the handlers of this database whose figures are kept, but which are no more. */
int
eros_dropped_handlers(const ErosConfig *config, int32 *dropped)
{
	int ndropped = 0;

	LWLockAcquire(eros_shared->lock, LW_SHARED);
	for (int i = 0; i < eros_max_handlers; i++)
	{
		ErosHandlerStats *stats = &eros_handlers_array[i];
		bool found = stats->dboid != MyDatabaseId;

		for (int h = 0; h < config->nhandlers && !found; h++)
			found = config->handlers[h].handler_id == stats->handler_id;
		if (!found)
			dropped[ndropped++] = stats->handler_id;
	}
	LWLockRelease(eros_shared->lock);
	return ndropped;
}

/* Gives back the place of a handler that is no more. */
void
eros_forget_handler(int32 handler_id)
{
	LWLockAcquire(eros_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < eros_max_handlers; i++)
	{
		ErosHandlerStats *stats = &eros_handlers_array[i];

		if (stats->dboid == MyDatabaseId && stats->handler_id == handler_id)
			stats->dboid = InvalidOid;
	}
	LWLockRelease(eros_shared->lock);
}

/*
 * Gives back all that belongs to a database that is gone, or (only_if_absent)
 * has no extension; returns whether it did.
 */
bool
eros_forget_database(Oid dboid, bool only_if_absent)
{
	LWLockAcquire(eros_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < eros_max_databases; i++)
	{
		if (eros_databases[i].dboid == dboid && only_if_absent &&
			eros_databases[i].state != EROS_DB_ABSENT)
		{
			LWLockRelease(eros_shared->lock);
			return false; /* it has just been created */
		}
	}
	for (int i = 0; i < eros_max_handlers; i++)
	{
		if (eros_handlers_array[i].dboid == dboid)
			eros_handlers_array[i].dboid = InvalidOid;
	}
	for (int i = 0; i < eros_max_databases; i++)
	{
		if (eros_databases[i].dboid == dboid)
		{
			eros_databases[i].dboid = InvalidOid;
			eros_databases[i].state = EROS_DB_FREE;
		}
	}
	LWLockRelease(eros_shared->lock);
	eros_tracker_forget_database(dboid);
	return true;
}

/* Wakes the scheduler of a database, or has one started if it has left by itself. */
void
eros_set_latch_of_scheduler(ErosDatabase *db)
{
	Latch *latch = db->scheduler_latch;

	if (!OidIsValid(db->dboid))
		return;
	if (latch != NULL)
		SetLatch(latch);
	eros_need_scheduler_at(db, DT_NOBEGIN);
}

/*
 * Has a database's scheduler started by then, if the last one has left by
 * itself.  Costs a look at shared memory when that is known.
 *
 * Whoever calls it has written first what the scheduler is to see.  A
 * scheduler that leaves says so first, and then looks once more.
 */
void
eros_need_scheduler_at(ErosDatabase *db, TimestampTz at)
{
	uint64 needed_at;

	pg_memory_barrier();
	if (pg_atomic_read_u32(&db->away) == 0)
		return;
	needed_at = pg_atomic_read_u64(&db->needed_at);
	while ((TimestampTz) needed_at > at)
	{
		if (pg_atomic_compare_exchange_u64(&db->needed_at, &needed_at, (uint64) at))
		{
			eros_launcher_wake();
			break;
		}
	}
}

/* Adds to a counter that is shown as never negative. */
void
eros_count(pg_atomic_uint64 *counter, int64 delta)
{
	pg_atomic_fetch_add_u64(counter, delta);
}

/* Reads the extension's row in pg_extension; returns whether there is one. */
static bool
read_extension(Oid *owner, char *version, Size version_len)
{
	Relation rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;
	bool found;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("eros"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
	{
		bool isnull;
		Datum datum =
			heap_getattr(tuple, Anum_pg_extension_extversion, RelationGetDescr(rel), &isnull);

		*owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
		text_to_cstring_buffer(DatumGetTextPP(datum), version, version_len);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

/* Tells whether the extension is in this database, and whether its owner is a superuser. */
bool
eros_extension_exists(bool *of_superuser)
{
	char version[NAMEDATALEN];
	Oid owner;

	if (!read_extension(&owner, version, sizeof(version)))
		return false;
	*of_superuser = superuser_arg(owner);
	return true;
}

/* Reads the extension's row, or raises the error that there is none. */
static void
require_extension(Oid *owner, char *version, Size version_len)
{
	if (!read_extension(owner, version, version_len))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("extension \"eros\" is not installed in this database"),
						errhint("Run CREATE EXTENSION eros.")));
}

/*
 * Notes whether the extension in this database belongs to a superuser: pg_cron
 * maintains it for nobody else, and has to be told when that changes.
 */
void
eros_note_owner(ErosDatabase *db, bool of_superuser)
{
	if (db->of_superuser == of_superuser)
		return;
	LWLockAcquire(eros_shared->lock, LW_EXCLUSIVE);
	db->of_superuser = of_superuser;
	LWLockRelease(eros_shared->lock);
	pg_atomic_fetch_add_u32(&eros_shared->cron_request, 1);
	eros_launcher_wake();
}

/* The owner of the extension, as whom EROS's own tables are written. */
Oid
eros_extension_owner(void)
{
	char version[NAMEDATALEN];
	Oid owner;

	require_extension(&owner, version, sizeof(version));
	return owner;
}

/* Tells whether the extension in this database is of the library's version, or is not there. */
bool
eros_version_matches(void)
{
	char version[NAMEDATALEN];
	Oid owner;

	return !read_extension(&owner, version, sizeof(version)) || strcmp(version, EROS_VERSION) == 0;
}

/*
 * Raises an error when the extension in this database is of another version
 * than the library: its tables and functions may be others than we know.
 */
void
eros_check_version(void)
{
	char version[NAMEDATALEN];
	Oid owner;

	require_extension(&owner, version, sizeof(version));
	if (strcmp(version, EROS_VERSION) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the library of EROS has version %s, the extension in this database %s",
						EROS_VERSION, version),
				 errhint("Restart the server if the library has been replaced since it started, "
						 "then run ALTER EXTENSION eros UPDATE.")));
}

/* Refuses to fill a row type that the script of another version has declared. */
void
eros_check_row(TupleDesc desc, int natts)
{
	if (desc->natts == natts)
		return;
	eros_check_version();
	elog(ERROR, "row type has %d columns instead of %d", desc->natts, natts);
}

/* library_version() returns text */
Datum
eros_library_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(EROS_VERSION));
}

/*
 * Goes on as another role, restricted, with a search_path in which nobody can
 * have put anything.
 */
void
eros_role_begin(ErosRoleScope *scope, Oid role)
{
	GetUserIdAndSecContext(&scope->save_user, &scope->save_context);
	scope->guc_level = NewGUCNestLevel();
	SetUserIdAndSecContext(role, scope->save_context | SECURITY_LOCAL_USERID_CHANGE |
									 SECURITY_RESTRICTED_OPERATION);
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/* Goes back to who one was; after an error the abort does so. */
void
eros_role_end(ErosRoleScope *scope)
{
	AtEOXact_GUC(false, scope->guc_level);
	SetUserIdAndSecContext(scope->save_user, scope->save_context);
}

/* Prepares a statement of EROS's own at its first use, and keeps the plan. */
SPIPlanPtr
eros_plan(SPIPlanPtr *plan, const char *sql, int nargs, Oid *argtypes)
{
	if (*plan == NULL)
	{
		SPIPlanPtr prepared = SPI_prepare(sql, nargs, argtypes);

		if (prepared == NULL)
			elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(prepared);
		*plan = prepared;
	}
	return *plan;
}

/* Goes on as the extension's owner, connected to SPI, to use EROS's tables. */
void
eros_owner_begin(ErosRoleScope *scope)
{
	eros_role_begin(scope, eros_extension_owner());
	SPI_connect();
}

void
eros_owner_end(ErosRoleScope *scope)
{
	SPI_finish();
	eros_role_end(scope);
}

/* ------------------------------------------------------------------------
 * What happens when the transaction commits
 * ------------------------------------------------------------------------
 */

/* Adds to a counter in shared memory if and when this transaction commits. */
void
eros_count_on_commit(pg_atomic_uint64 *counter, int64 delta)
{
	int level = GetCurrentTransactionNestLevel();

	if (delta == 0)
		return;
	for (int i = ncommit_actions - 1; i >= 0; i--)
	{
		if (commit_actions[i].counter == counter && commit_actions[i].nest_level == level)
		{
			commit_actions[i].delta += delta;
			return;
		}
	}
	if (commit_actions == NULL)
	{
		max_commit_actions = 64;
		commit_actions =
			MemoryContextAlloc(TopMemoryContext, sizeof(CommitAction) * max_commit_actions);
	}
	else if (ncommit_actions == max_commit_actions)
	{
		commit_actions = repalloc(commit_actions, sizeof(CommitAction) * max_commit_actions * 2);
		max_commit_actions *= 2;
	}
	commit_actions[ncommit_actions].counter = counter;
	commit_actions[ncommit_actions].delta = delta;
	commit_actions[ncommit_actions].nest_level = level;
	ncommit_actions++;
}

/* The value that a counter has if this transaction commits now. */
int64
eros_value_on_commit(pg_atomic_uint64 *counter)
{
	int64 value = (int64) pg_atomic_read_u64(counter);

	for (int i = 0; i < ncommit_actions; i++)
	{
		if (commit_actions[i].counter == counter)
			value += commit_actions[i].delta;
	}
	return value;
}

/*
 * Sets a counter to zero if and when this transaction commits; whoever else
 * would add to it until then is kept out by a lock.
 */
void
eros_clear_on_commit(pg_atomic_uint64 *counter)
{
	if (emptied_level == 0)
		emptied_level = GetCurrentTransactionNestLevel();
	eros_count_on_commit(counter, -eros_value_on_commit(counter));
}

/* Has everybody read phases and handlers anew when this transaction commits. */
void
eros_config_changed_on_commit(void)
{
	if (config_changed_level == 0)
		config_changed_level = GetCurrentTransactionNestLevel();
	config_changes++;
}

/* Counts the changes of phases or handlers if this transaction has made one; else zero. */
uint32
eros_config_dirty(void)
{
	return config_changed_level > 0 ? config_changes : 0;
}

/* Carries out, or forgets, what was kept for the end of the transaction. */
static void
at_transaction_end(XactEvent event, void *arg)
{
	ErosDatabase *db;

	if (event == XACT_EVENT_PRE_PREPARE && emptied_level > 0)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("cannot PREPARE a transaction that has emptied a table of EROS")));
	if (event == XACT_EVENT_PRE_PREPARE && (config_changed_level > 0 || announced_level > 0))
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot PREPARE a transaction that has changed phases or handlers of EROS")));
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	eros_config_free_retired();
	emptied_level = 0;
	if (ncommit_actions == 0 && config_changed_level == 0 && announced_level == 0)
		return;

	if (event == XACT_EVENT_COMMIT)
	{
		for (int i = 0; i < ncommit_actions; i++)
			eros_count(commit_actions[i].counter, commit_actions[i].delta);
		db = ncommit_actions > 0 ? eros_my_database() : NULL;
		/* a touch was spilled, a job put back; of what a worker does it tells at its end */
		if (db != NULL && (pg_atomic_exchange_u32(&db->dozing, 0) != 0 ||
						   (pg_atomic_read_u32(&db->away) != 0 && MyBackendType != B_BG_WORKER)))
			eros_set_latch_of_scheduler(db);
		if (config_changed_level > 0 || announced_level > 0)
		{
			if (announced_level > 0)
				announce_database(MyDatabaseId);
			db = eros_database_slot(MyDatabaseId, false);
			if (db != NULL)
			{
				raise_generation(db);
				eros_set_latch_of_scheduler(db);
			}
			if (announced_level > 0)
				eros_launcher_wake();
		}
	}
	ncommit_actions = 0;
	config_changed_level = 0;
	announced_level = 0;
}

/* Forgets what an aborted subtransaction had kept, or hands it to the parent. */
static void
at_subtransaction_end(SubXactEvent event, SubTransactionId sub, SubTransactionId parent, void *arg)
{
	int level = GetCurrentTransactionNestLevel();

	if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		config_changes++;
		while (ncommit_actions > 0 && commit_actions[ncommit_actions - 1].nest_level >= level)
			ncommit_actions--;
		if (config_changed_level >= level)
			config_changed_level = 0;
		if (announced_level >= level)
			announced_level = 0;
		if (emptied_level >= level)
			emptied_level = 0;
	}
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		for (int i = 0; i < ncommit_actions; i++)
			commit_actions[i].nest_level = Min(commit_actions[i].nest_level, level - 1);
		config_changed_level = Min(config_changed_level, level - 1);
		announced_level = Min(announced_level, level - 1);
		emptied_level = Min(emptied_level, level - 1);
	}
}

/* config_changed() returns trigger */
Datum
eros_config_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function \"%s\" was not called by trigger manager",
							   "eros.config_changed")));
	if (eros_shared != NULL)
		eros_config_changed_on_commit();
	eros_config_invalidate();
	PG_RETURN_POINTER(NULL);
}

/* Forgets the users who are idle: their numbers, and the snapshot that a crash would bring back. */
static void
forget_idle_users(ErosDatabase *db)
{
	ErosRoleScope scope;

	for (int phase = 1; phase <= EROS_MAX_PHASES; phase++)
		eros_clear_on_commit(&db->phases[phase].users);
	eros_owner_begin(&scope);
	SPI_execute("DELETE FROM eros.snapshot", false, 0);
	eros_owner_end(&scope);
}

/* Forgets how many jobs there are. */
static void
forget_jobs(void)
{
	ErosConfig *config = eros_config();

	for (int h = 0; h < config->nhandlers; h++)
	{
		eros_clear_on_commit(&config->handlers[h].stats->pending);
		eros_clear_on_commit(&config->handlers[h].stats->failed);
	}
}

/* table_emptied() returns trigger: TRUNCATE, which keeps everybody else out, has emptied a table */
Datum
eros_table_emptied(PG_FUNCTION_ARGS)
{
	ErosDatabase *db;
	Relation table;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BY_TRUNCATE(((TriggerData *) fcinfo->context)->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by TRUNCATE", "eros.table_emptied")));
	db = eros_shared != NULL ? eros_my_database() : NULL;
	if (db == NULL || !eros_version_matches())
		PG_RETURN_POINTER(NULL); /* who runs next counts anew */
	table = ((TriggerData *) fcinfo->context)->tg_relation;
	if (strcmp(RelationGetRelationName(table), "job") == 0)
		forget_jobs();
	else
		forget_idle_users(db);
	PG_RETURN_POINTER(NULL);
}

/* announce() returns void: CREATE EXTENSION has come so far */
Datum
eros_announce(PG_FUNCTION_ARGS)
{
	if (eros_shared == NULL)
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("eros is installed, but not loaded"),
				 errhint("Add \"shared_preload_libraries = 'eros'\" to postgresql.conf and restart "
						 "the server.")));
	else if (announced_level == 0)
		announced_level = GetCurrentTransactionNestLevel();
	PG_RETURN_VOID();
}
