/*-------------------------------------------------------------------------
 *
 * launcher.c
 *		The launcher, and what makes EROS give way to DDL.
 *
 * One launcher runs for the server.  It keeps a scheduler running in each
 * database that has the extension:
 *
 *	- at its start, and for each new database, a scheduler is started to look
 *	  whether the extension is there, one database at a time;
 *	- CREATE EXTENSION announces the database at commit;
 *	- a scheduler that has ended is started again, with a growing pause;
 *	- template databases, and those that allow no connections, are left alone.
 *
 * DROP DATABASE and its like fail while somebody is connected, and DROP
 * EXTENSION waits for locks.  A utility hook therefore has EROS leave the
 * database first: it writes its pid into the slot ("held_by"), terminates the
 * scheduler and the workers there and waits until they are gone.  The launcher
 * starts nothing in a database that is held.  The hold ends with the
 * transaction, or with its backend, and the launcher looks again: if the
 * command failed, EROS goes on as before.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "eros.h"
#include "executor/spi.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/procarray.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* New databases are looked for so often, and whenever somebody wakes us. */
#define NAPTIME_MS 60000

/* The pause before a scheduler is started again, doubled every time. */
#define MIN_BACKOFF_MS 1000
#define MAX_BACKOFF_MS 60000

/* The pause after an error of the launcher. */
#define ERROR_PAUSE_MS 10000

/* How long DDL waits for EROS to leave. */
#define LEAVE_TIMEOUT_MS 10000

/* A scheduler that has been on its way for so long does not keep the next from being started. */
#define START_MS 2000

/* While databases wait for a slot, it is looked whether there is one so often. */
#define RETRY_MS 200

/* A limit on slots that was met longer ago than this is tried again. */
#define CAPACITY_TRUST_MS 1000

/* A lack of slots is a new one, to be logged, when there was none for so long. */
#define QUIET_NS UINT64CONST(600000000000)

/* What the launcher knows of a database.  Times are monotonic, in ms; 0: not. */
typedef struct KnownDatabase
{
	Oid dboid;
	bool exists;					/* seen in the last look at pg_database */
	bool absent;					/* looked at: has no extension */
	bool has_extension;				/* a scheduler has found it */
	bool blocked;					/* eros.max_databases is exhausted */
	bool due;						/* a scheduler is wanted now */
	bool asked;						/* make_room() has been here */
	BackgroundWorkerHandle *handle; /* of its scheduler */
	uint64 started_ms;				/* when that was started */
	uint64 waiting_ms;				/* since when it has been due without getting one */
	uint64 start_after_ms;
	uint64 backoff_ms;
} KnownDatabase;

static ProcessUtility_hook_type prev_process_utility = NULL;

uint32 eros_wait_events[EROS_WAIT_COUNT];
static bool holding = false;

static KnownDatabase *known = NULL;
static int nknown = 0;

/*
 * The processes of EROS that found a slot when one more did not; INT_MAX: that
 * has not happened lately.
 */
static int capacity = INT_MAX;
static uint64 capacity_ms = 0; /* when that was, or when it was last tried again */
static uint64 lacked_ms = 0;   /* when there was last no room for somebody */
static MemoryContext launcher_context = NULL;

/* ------------------------------------------------------------------------
 * What all of EROS's processes begin with
 * ------------------------------------------------------------------------
 */

/* Sets signals up and connects to a database; InvalidOid: to none. */
void
eros_process_init(Oid dboid, const char *name)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	if (OidIsValid(dboid))
		BackgroundWorkerInitializeConnectionByOid(dboid, InvalidOid, 0);
	else
		BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	pgstat_report_appname(name);
	eros_wait_events[EROS_WAIT_MAIN] = EROS_WAIT_EVENT("ErosMain");
	eros_wait_events[EROS_WAIT_JOBS] = EROS_WAIT_EVENT("ErosWaitForJobs");
	eros_wait_events[EROS_WAIT_PAUSE] = EROS_WAIT_EVENT("ErosPause");
	eros_wait_events[EROS_WAIT_PAUSE_IN_CALL] = EROS_WAIT_EVENT("ErosPauseInCall");

	/*
	 * Whatever the database's settings are: names are looked up in no schema
	 * that others can write to, CPU is used in this process only, and what is
	 * lost with an asynchronous commit is computed again.
	 */
	SetConfigOption("search_path", "pg_catalog, pg_temp", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("application_name", name, PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("max_parallel_workers_per_gather", "0", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("max_parallel_maintenance_workers", "0", PGC_USERSET, PGC_S_OVERRIDE);

	/* compiling takes longer than most calls, and cannot be interrupted */
	SetConfigOption("jit", "off", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("synchronous_commit", "off", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_isolation", "read committed", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_read_only", "off", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("datestyle", "ISO", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("timezone", "UTC", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_deferrable", "off", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("statement_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("lock_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("idle_in_transaction_session_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	eros_set_newer_timeouts();
	SetConfigOption("exit_on_error", "off", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("session_replication_role", "origin", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_tablespace", "", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("default_table_access_method", "heap", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("row_security", "on", PGC_SUSET, PGC_S_OVERRIDE);
}

/* Reads the configuration files again after SIGHUP. */
void
eros_process_reload(void)
{
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

/* Waits on the latch; serves interrupts and SIGHUP.  Returns whether the latch was set. */
bool
eros_process_wait(ErosWait wait, long timeout_ms)
{
	int events = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						   Max(timeout_ms, 1), eros_wait_events[wait]);

	ResetLatch(MyLatch);
	QueryCancelPending = false; /* a cancel that comes late: nothing runs */
	CHECK_FOR_INTERRUPTS();
	eros_process_reload();
	return (events & WL_LATCH_SET) != 0;
}

/* Who this process was before it went on as the extension's owner. */
static ErosRoleScope process_scope;

/*
 * Begins a transaction of a scheduler or worker, connected to SPI.
 *
 * As the extension's owner, who need not be a superuser any more: he can put
 * triggers on EROS's tables, and replace its functions.
 */
void
eros_process_begin(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	eros_owner_begin(&process_scope);
}

/* Commits it. */
void
eros_process_commit(void)
{
	eros_owner_end(&process_scope);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/* Wakes the launcher, if it runs. */
void
eros_launcher_wake(void)
{
	Latch *latch = eros_shared->launcher_latch;

	if (latch != NULL)
		SetLatch(latch);
}

/* Registers the launcher, to be started when the server is open for writing. */
void
eros_launcher_register(void)
{
	BackgroundWorker bgw = {0};

	bgw.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	bgw.bgw_start_time = BgWorkerStart_RecoveryFinished;
	bgw.bgw_restart_time = 5;
	strlcpy(bgw.bgw_library_name, "eros", BGW_MAXLEN);
	strlcpy(bgw.bgw_function_name, "eros_launcher_main", BGW_MAXLEN);
	strlcpy(bgw.bgw_name, "eros launcher", BGW_MAXLEN);
	strlcpy(bgw.bgw_type, "eros launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&bgw);
}

/* ------------------------------------------------------------------------
 * The launcher
 * ------------------------------------------------------------------------
 */

static bool terminate_processes(Oid dboid);

static void
launcher_exit(int code, Datum arg)
{
	LWLockAcquire(eros_shared->lock, LW_EXCLUSIVE);
	eros_shared->launcher_pid = 0;
	eros_shared->launcher_latch = NULL;
	LWLockRelease(eros_shared->lock);
}

/* Finds what is known of a database, or begins to know it. */
static KnownDatabase *
know(Oid dboid)
{
	KnownDatabase *database;

	for (int i = 0; i < nknown; i++)
	{
		if (known[i].dboid == dboid)
			return &known[i];
	}
	if (known == NULL)
		known = MemoryContextAlloc(launcher_context, sizeof(KnownDatabase));
	else
		known = repalloc(known, sizeof(KnownDatabase) * (nknown + 1));
	database = &known[nknown++];
	memset(database, 0, sizeof(KnownDatabase));
	database->dboid = dboid;
	return database;
}

/* Looks which databases there are. */
static void
look_at_databases(void)
{
	Relation rel;
	TableScanDesc scan;
	HeapTuple tuple;

	for (int i = 0; i < nknown; i++)
		known[i].exists = false;
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		if (database->datallowconn && !database->datistemplate &&
			database->datconnlimit != EROS_INVALID_DATABASE)
			know(database->oid)->exists = true;
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
}

/* Forgets the databases that are gone. */
static void
forget_databases(void)
{
	int kept = 0;

	for (int i = 0; i < nknown; i++)
	{
		/* it may be there still, as a template: then our processes leave first */
		if (known[i].exists || terminate_processes(known[i].dboid))
		{
			known[kept++] = known[i];
			continue;
		}
		eros_forget_database(known[i].dboid, false);
		if (known[i].handle != NULL)
			pfree(known[i].handle);
		pg_atomic_fetch_add_u32(&eros_shared->cron_request, 1);
	}
	nknown = kept;
}

/* Starts a database's scheduler; returns whether it was registered. */
static bool
start_scheduler(KnownDatabase *database, ErosDatabase *slot)
{
	BackgroundWorker bgw = {0};
	MemoryContext old = MemoryContextSwitchTo(launcher_context);
	bool started;

	bgw.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	bgw.bgw_start_time = BgWorkerStart_RecoveryFinished;
	bgw.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(bgw.bgw_library_name, "eros", BGW_MAXLEN);
	strlcpy(bgw.bgw_function_name, "eros_scheduler_main", BGW_MAXLEN);
	strlcpy(bgw.bgw_type, "eros scheduler", BGW_MAXLEN);
	snprintf(bgw.bgw_name, BGW_MAXLEN, "eros scheduler of database %u", database->dboid);
	bgw.bgw_main_arg = Int32GetDatum((int32) (slot - eros_databases));
	memcpy(bgw.bgw_extra, &database->dboid, sizeof(Oid));
	bgw.bgw_notify_pid = MyProcPid;
	started = RegisterDynamicBackgroundWorker(&bgw, &database->handle);
	if (!started)
		database->handle = NULL;
	MemoryContextSwitchTo(old);
	return started;
}

/* Tells whether a database is held by a backend that is still there. */
static bool
is_held(ErosDatabase *slot)
{
	if (slot->held_by == 0)
		return false;
	if (BackendPidGetProc(slot->held_by) != NULL)
		return true;
	slot->held_by = 0;
	return false;
}

/* Has the next try to start a scheduler wait, twice as long each time. */
static void
back_off(KnownDatabase *database, uint64 now_ms)
{
	database->backoff_ms = Min(Max(database->backoff_ms * 2, MIN_BACKOFF_MS), MAX_BACKOFF_MS);
	database->start_after_ms = now_ms + database->backoff_ms;
}

/* Notes how a scheduler fares that runs, or is on its way. */
static void
note_running(KnownDatabase *database, ErosDatabase *slot)
{
	if (slot == NULL || !slot->scheduler_up)
		return;
	if (pg_atomic_read_u32(&slot->failed_rounds) == 0)
		database->backoff_ms = 0;
	if (!database->has_extension)
		pg_atomic_fetch_add_u32(&eros_shared->cron_request, 1);
	database->has_extension = true;
}

/* Notes that a scheduler has ended, and when the next may be started. */
static void
note_ended(KnownDatabase *database, ErosDatabase *slot, uint64 now_ms)
{
	pfree(database->handle);
	database->handle = NULL;
	database->started_ms = 0;
	if (slot == NULL)
		return;
	if (slot->state == EROS_DB_ABSENT)
	{
		database->absent = true;
		database->has_extension = false;
		database->backoff_ms = 0;
		database->start_after_ms = 0;
		if (eros_forget_database(database->dboid, true))
		{
			pg_atomic_fetch_add_u32(&eros_shared->cron_request, 1);
			return;
		}
		database->absent = false; /* it has just been created */
		return;
	}
	if (pg_atomic_read_u32(&slot->away) != 0)
		return;						 /* it has left by itself */
	database->has_extension = false; /* its maintenance may have been forgotten */
	pg_atomic_fetch_add_u32(&slot->failed_starts, 1);
	back_off(database, now_ms);
}

/* Tells whether a database's scheduler is on its way. */
static bool
is_starting(const KnownDatabase *database, const ErosDatabase *slot)
{
	return database->handle != NULL && (slot == NULL || !slot->scheduler_up);
}

/* The slot of a database that has none yet; NULL, with a warning, when all are taken. */
static ErosDatabase *
make_slot(KnownDatabase *database)
{
	ErosDatabase *slot = eros_database_slot(database->dboid, true);

	if (slot == NULL && !database->blocked)
		ereport(WARNING, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						  errmsg("EROS cannot look at database %u", database->dboid),
						  errhint("Raise eros.max_databases and restart the server.")));
	database->blocked = slot == NULL;
	return slot;
}

/*
 * Sees how it is with one database's scheduler: whether it runs, has ended, or
 * is wanted.  When it will be wanted later, *next_ms says when to look again.
 */
static void
look_at(KnownDatabase *database, uint64 now_ms, uint64 *next_ms)
{
	ErosDatabase *slot = eros_database_slot(database->dboid, false);
	pid_t pid;

	database->due = false;
	if (database->handle != NULL && GetBackgroundWorkerPid(database->handle, &pid) != BGWH_STOPPED)
	{
		note_running(database, slot);
		return;
	}
	if (database->handle != NULL)
	{
		note_ended(database, slot, now_ms);
		slot = eros_database_slot(database->dboid, false);
	}
	if (database->absent && slot != NULL)
		database->absent = false; /* announced: the extension has been created */
	if (database->absent || (slot != NULL && (is_held(slot) || slot->scheduler_pid != 0)))
		return;
	if (database->start_after_ms > now_ms)
	{
		*next_ms = Min(*next_ms, database->start_after_ms);
		return;
	}
	if (slot != NULL && pg_atomic_read_u32(&slot->away) != 0)
	{
		TimestampTz needed_at = (TimestampTz) pg_atomic_read_u64(&slot->needed_at);
		TimestampTz now = eros_now();

		if (needed_at > now || !eros_enabled)
		{
			if (needed_at - now < NAPTIME_MS * INT64CONST(1000) && needed_at > now)
				*next_ms = Min(*next_ms, now_ms + (uint64) (needed_at - now) / 1000 + 1);
			return;
		}
	}
	database->due = true;
}

/* Counts the workers of a database (InvalidOid: of all), those on their way included. */
static int
count_workers(Oid dboid)
{
	int workers = 0;

	LWLockAcquire(eros_shared->lock, LW_SHARED);
	for (int i = 0; i < eros_max_workers; i++)
	{
		Oid owner = eros_workers_array[i].dboid;

		if (OidIsValid(owner) && (!OidIsValid(dboid) || owner == dboid))
			workers++;
	}
	LWLockRelease(eros_shared->lock);
	return workers;
}

/*
 * Counts the databases that have a scheduler, and the slots that EROS takes
 * when each of them has a worker, too.
 */
static int
count_slots(int *nschedulers)
{
	int slots = count_workers(InvalidOid);

	*nschedulers = 0;
	for (int i = 0; i < nknown; i++)
	{
		if (known[i].handle == NULL)
			continue;
		slots++;
		(*nschedulers)++;
		if (eros_workers > 0 && count_workers(known[i].dboid) == 0)
			slots++;
	}
	return slots;
}

/*
 * Remembers that there was no slot for one process more than there are.  Some
 * of those that there were may have gone since, so only the first time the
 * count is believed.
 */
static void
note_capacity(uint64 now_ms)
{
	int processes = count_workers(InvalidOid);

	for (int i = 0; i < nknown; i++)
	{
		if (known[i].handle != NULL)
			processes++;
	}
	capacity = Max(capacity == INT_MAX ? processes : Max(processes, capacity - 1), 1);
	capacity_ms = lacked_ms = now_ms;
}

/*
 * Counts a worker, or a scheduler, for which there was no slot; says so in the
 * log when that begins.
 */
void
eros_launcher_note_no_slot(ErosDatabase *db)
{
	uint64 now_ns = eros_monotonic_ns();
	uint64 last_ns = pg_atomic_exchange_u64(&eros_shared->no_slot_at_ns, now_ns);

	if (last_ns == 0 || now_ns - last_ns > QUIET_NS)
		ereport(WARNING, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						  errmsg("no free worker slot for EROS in database %u", db->dboid),
						  errdetail("Databases are served in turns while there are too few."),
						  errhint("Raise max_worker_processes (or eros.max_workers), or lower "
								  "eros.workers.")));
	db->no_worker_slot = true;
	pg_atomic_fetch_add_u32(&eros_shared->no_slot, 1);
	eros_launcher_wake();
}

/* Tells whether other databases than this one wait for a slot. */
bool
eros_launcher_is_waited_for(ErosDatabase *db)
{
	bool waits = pg_atomic_read_u64(&db->waiting_since) != 0 ||
				 pg_atomic_read_u64(&db->worker_wanted_since) != 0;

	return pg_atomic_read_u32(&eros_shared->waiting) > (waits ? 1 : 0);
}

/*
 * Tells whether one database more may have a scheduler: so that each that has
 * one has room for a worker.  Whoever is alone always may.
 */
static bool
has_room(uint64 now_ms)
{
	int nschedulers;
	int slots = count_slots(&nschedulers);

	if (capacity == INT_MAX || nschedulers == 0)
		return true;
	if (slots + (eros_workers > 0 ? 2 : 1) <= capacity)
		return true;
	lacked_ms = now_ms;
	if (now_ms - capacity_ms < CAPACITY_TRUST_MS)
		return false;
	capacity_ms = now_ms; /* others may have given slots back: try one */
	return true;
}

/* Of those that are due, the one that has waited for the longest, or NULL. */
static KnownDatabase *
first_in_line(void)
{
	KnownDatabase *first = NULL;

	for (int i = 0; i < nknown; i++)
	{
		if (known[i].due && (first == NULL || known[i].waiting_ms < first->waiting_ms))
			first = &known[i];
	}
	return first;
}

/* Starts the scheduler of the database that is first in line; returns whether that worked. */
static bool
start_next(uint64 now_ms)
{
	KnownDatabase *database = first_in_line();
	ErosDatabase *slot;
	int nschedulers;

	if (database == NULL || !has_room(now_ms))
		return false;
	database->due = false;
	slot = make_slot(database);
	if (slot == NULL)
	{
		back_off(database, now_ms);
		return false;
	}
	pg_atomic_write_u32(&slot->leave, EROS_LEAVE_NOT);
	if (!start_scheduler(database, slot))
	{
		eros_launcher_note_no_slot(slot);
		note_capacity(now_ms);
		database->due = true;
		return false;
	}
	slot->no_worker_slot = false;
	database->started_ms = now_ms;
	if (capacity != INT_MAX)
		capacity = Max(capacity, count_slots(&nschedulers)); /* the worker will tell */
	return true;
}

/* Notes in its slot whether a database waits for its scheduler, for the status. */
static void
note_wait(ErosDatabase *slot, bool waits)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz since = (TimestampTz) pg_atomic_read_u64(&slot->waiting_since);

	if (waits && since == 0)
		pg_atomic_write_u64(&slot->waiting_since, (uint64) now);
	else if (!waits && since != 0)
	{
		pg_atomic_write_u64(&slot->waiting_since, 0);
		if (now - since > (int64) pg_atomic_read_u64(&slot->longest_wait_us))
			pg_atomic_write_u64(&slot->longest_wait_us, (uint64) (now - since));
	}
}

/*
 * Counts who waits for a slot.  Who is only waiting until the one before is up
 * does not.
 */
static void
note_waiting(uint64 now_ms)
{
	bool lacking = capacity != INT_MAX;
	uint32 waiting = 0;

	for (int i = 0; i < nknown; i++)
	{
		ErosDatabase *slot = eros_database_slot(known[i].dboid, false);
		bool waits = lacking && known[i].due;

		if (!known[i].due)
			known[i].waiting_ms = 0;
		if (slot != NULL)
		{
			note_wait(slot, waits);
			waits = waits || pg_atomic_read_u64(&slot->worker_wanted_since) != 0;
		}
		waiting += waits;
	}
	pg_atomic_write_u32(&eros_shared->waiting, waiting);
	if (now_ms - lacked_ms > NAPTIME_MS)
		capacity = INT_MAX;
}

/* Has the scheduler look again that has been without a worker for the longest. */
static void
wake_first_without_worker(void)
{
	ErosDatabase *first = NULL;
	TimestampTz since = DT_NOEND;

	LWLockAcquire(eros_shared->lock, LW_SHARED);
	for (int i = 0; i < eros_max_databases; i++)
	{
		ErosDatabase *slot = &eros_databases[i];
		TimestampTz wanted = (TimestampTz) pg_atomic_read_u64(&slot->worker_wanted_since);

		if (OidIsValid(slot->dboid) && wanted != 0 && wanted < since)
		{
			first = slot;
			since = wanted;
		}
	}
	if (first != NULL && first->scheduler_latch != NULL)
		SetLatch(first->scheduler_latch);
	LWLockRelease(eros_shared->lock);
}

/* Asks a scheduler to leave, or not to, and has it and its workers see that. */
static void
ask_to_leave(ErosDatabase *slot, ErosLeave leave)
{
	if (pg_atomic_exchange_u32(&slot->leave, leave) == (uint32) leave || leave == EROS_LEAVE_NOT)
		return;
	LWLockAcquire(eros_shared->lock, LW_SHARED);
	if (slot->scheduler_latch != NULL)
		SetLatch(slot->scheduler_latch);
	for (int i = 0; i < eros_max_workers; i++)
	{
		if (eros_workers_array[i].dboid == slot->dboid && eros_workers_array[i].latch != NULL)
			SetLatch(eros_workers_array[i].latch);
	}
	LWLockRelease(eros_shared->lock);
}

/*
 * Makes room for those who wait: whoever has nothing to do leaves, and those
 * whose turn is over, as many as wait, and those who are too many for each to
 * have a worker.  The longest turns end first.
 */
static void
make_room(uint64 now_ms)
{
	int waiting = (int) pg_atomic_read_u32(&eros_shared->waiting);
	int nschedulers;
	int excess = count_slots(&nschedulers) - capacity;
	int left = 0;

	excess = capacity == INT_MAX || waiting == 0 ? 0 : Max(excess, 0);
	for (int n = 0; n < nknown; n++)
	{
		KnownDatabase *oldest = NULL;
		ErosDatabase *slot;
		ErosLeave leave = EROS_LEAVE_NOT;

		/* those that were started earlier come first; each is taken once */
		for (int i = 0; i < nknown; i++)
		{
			if (known[i].handle != NULL && !known[i].asked &&
				(oldest == NULL || known[i].started_ms < oldest->started_ms))
				oldest = &known[i];
		}
		if (oldest == NULL)
			break;
		oldest->asked = true;
		slot = eros_database_slot(oldest->dboid, false);
		if (slot == NULL || !slot->scheduler_up)
			continue;
		if (eros_launcher_is_waited_for(slot))
		{
			bool over = now_ms - oldest->started_ms >= (uint64) eros_turn_ms && left < waiting;

			leave = EROS_LEAVE_WHEN_IDLE;
			if ((over || excess > 0) && nschedulers - left > (over ? 0 : 1))
			{
				leave = EROS_LEAVE_NOW;
				left++;
				excess -= 2;
			}
		}
		ask_to_leave(slot, leave);
	}
	for (int i = 0; i < nknown; i++)
		known[i].asked = false;
}

/* Has every database looked at again whose scheduler has left, when a setting has changed. */
static void
note_settings(void)
{
	static int workers = -1;
	static bool enabled = true;

	if (workers != eros_workers || enabled != eros_enabled)
	{
		for (int i = 0; i < eros_max_databases; i++)
		{
			if (OidIsValid(eros_databases[i].dboid) &&
				pg_atomic_read_u32(&eros_databases[i].away) != 0)
				pg_atomic_write_u64(&eros_databases[i].needed_at, (uint64) DT_NOBEGIN);
		}
	}
	workers = eros_workers;
	enabled = eros_enabled;
}

/*
 * Takes no database for one without the extension any more when it was created
 * somewhere without room for the announcement: once there is room, it is found.
 */
static void
note_no_room(void)
{
	static uint32 seen = 0;
	uint32 no_room = pg_atomic_read_u32(&eros_shared->no_room);

	for (int i = 0; no_room != seen && i < nknown; i++)
		known[i].absent = false;
	seen = no_room;
}

/*
 * Sees to the schedulers of all databases: starts those that are wanted, one
 * after the other, and when there are too few slots, has them take turns.
 * Returns whether one is on its way.
 */
static bool
see_to_schedulers(uint64 now_ms, uint64 *next_ms)
{
	static uint32 no_slot_seen = 0;
	uint32 no_slot = pg_atomic_read_u32(&eros_shared->no_slot);
	bool starting = false;

	note_settings();
	note_no_room();
	for (int i = 0; i < nknown; i++)
	{
		known[i].due = false;
		if (!known[i].exists)
		{
			starting = true; /* its processes are on their way out */
			continue;
		}
		look_at(&known[i], now_ms, next_ms);
		if (known[i].due && known[i].waiting_ms == 0)
			known[i].waiting_ms = now_ms;
		if (is_starting(&known[i], eros_database_slot(known[i].dboid, false)) &&
			now_ms - known[i].started_ms < START_MS)
			starting = true;
	}
	if (no_slot != no_slot_seen)
		note_capacity(now_ms); /* a worker has found none */
	if (!starting && start_next(now_ms))
		starting = true;
	no_slot_seen = pg_atomic_read_u32(&eros_shared->no_slot);
	note_waiting(now_ms);
	make_room(now_ms);
	if (pg_atomic_read_u32(&eros_shared->waiting) > 0)
	{
		wake_first_without_worker();
		*next_ms = Min(*next_ms, now_ms + RETRY_MS);
	}
	return starting;
}

/* Tells whether it is known of all databases whether they have the extension. */
static bool
all_looked_at(void)
{
	for (int i = 0; i < nknown; i++)
	{
		ErosDatabase *slot = eros_database_slot(known[i].dboid, false);

		if (!known[i].absent && !known[i].blocked &&
			(slot == NULL || pg_atomic_read_u64(&slot->turns) == 0))
			return false;
	}
	return true;
}

/*
 * Starts the process that arranges things with pg_cron, when somebody asked for
 * it; again after a while when it has failed.
 */
static void
see_to_pg_cron(BackgroundWorkerHandle **handle, uint64 now_ms, uint64 *next_ms)
{
	static uint32 carried_out = 0;
	static uint32 failed = 0;
	static uint64 again_at_ms = 0;
	uint32 request = pg_atomic_read_u32(&eros_shared->cron_request);
	BackgroundWorker bgw = {0};
	MemoryContext old;
	pid_t pid;

	if (*handle != NULL)
	{
		if (GetBackgroundWorkerPid(*handle, &pid) != BGWH_STOPPED)
			return;
		pfree(*handle);
		*handle = NULL;
		if (pg_atomic_read_u32(&eros_shared->cron_done) != carried_out)
		{
			failed = carried_out--;
			again_at_ms = now_ms + MAX_BACKOFF_MS;
		}
	}
	if (request == carried_out)
		return;
	if (request == failed && now_ms < again_at_ms)
	{
		*next_ms = Min(*next_ms, again_at_ms);
		return;
	}
	carried_out = request;
	if (GetConfigOption("cron.database_name", true, false) == NULL)
	{
		pg_atomic_write_u32(&eros_shared->cron_done, request);
		return;
	}
	bgw.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	bgw.bgw_start_time = BgWorkerStart_RecoveryFinished;
	bgw.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(bgw.bgw_library_name, "eros", BGW_MAXLEN);
	strlcpy(bgw.bgw_function_name, "eros_cron_main", BGW_MAXLEN);
	strlcpy(bgw.bgw_type, "eros pg_cron agent", BGW_MAXLEN);
	strlcpy(bgw.bgw_name, "eros pg_cron agent", BGW_MAXLEN);
	bgw.bgw_main_arg = Int32GetDatum((int32) request);
	bgw.bgw_notify_pid = MyProcPid;
	old = MemoryContextSwitchTo(launcher_context);
	if (!RegisterDynamicBackgroundWorker(&bgw, handle))
	{
		*handle = NULL;
		carried_out = request - 1; /* again at the next round */
	}
	MemoryContextSwitchTo(old);
}

/* Ends what an error has interrupted, notes it, and waits before the next round. */
static void
recover_from_error(void)
{
	error_context_stack = NULL;
	HOLD_INTERRUPTS();
	LWLockReleaseAll();
	eros_error_report(EROS_PROCESS_LAUNCHER);
	AbortCurrentTransaction();
	MemoryContextSwitchTo(TopMemoryContext);
	FlushErrorState();
	RESUME_INTERRUPTS();
	eros_process_wait(EROS_WAIT_MAIN, ERROR_PAUSE_MS);
}

/* The launcher's process. */
void
eros_launcher_main(Datum arg)
{
	sigjmp_buf local_sigjmp_buf;
	static BackgroundWorkerHandle *cron_handle = NULL;
	static bool looked_at_all = false;

	LWLockAcquire(eros_shared->lock, LW_EXCLUSIVE);
	eros_shared->launcher_pid = MyProcPid;
	eros_shared->launcher_latch = MyLatch;
	LWLockRelease(eros_shared->lock);
	before_shmem_exit(launcher_exit, (Datum) 0);
	eros_process_init(InvalidOid, "eros launcher");
	launcher_context =
		AllocSetContextCreate(TopMemoryContext, "eros launcher", ALLOCSET_DEFAULT_SIZES);

	/* an error ends the round, not the launcher */
	if (sigsetjmp(local_sigjmp_buf, 1) != 0)
		recover_from_error();
	PG_exception_stack = &local_sigjmp_buf;

	for (;;)
	{
		uint64 now_ms = eros_monotonic_ns() / 1000000;
		uint64 next_ms = now_ms + NAPTIME_MS;
		bool looking;

		look_at_databases();
		forget_databases();
		looking = see_to_schedulers(now_ms, &next_ms);

		if (!looking && !looked_at_all && all_looked_at())
		{
			looked_at_all = true;
			pg_atomic_fetch_add_u32(&eros_shared->cron_request, 1);
		}
		if (looked_at_all)
			see_to_pg_cron(&cron_handle, now_ms, &next_ms);
		eros_governor_charge_upkeep();
		if (looking)
			next_ms = Min(next_ms, now_ms + 100);
		eros_process_wait(EROS_WAIT_MAIN, (long) (next_ms - now_ms));
	}
}

/* ------------------------------------------------------------------------
 * Giving way to DDL
 * ------------------------------------------------------------------------
 */

/* Terminates EROS's processes in a database; returns whether there were any. */
static bool
terminate_processes(Oid dboid)
{
	bool any = false;

	LWLockAcquire(eros_shared->lock, LW_SHARED);
	for (int i = 0; i < eros_max_databases; i++)
	{
		if (eros_databases[i].dboid == dboid && eros_databases[i].scheduler_pid != 0)
		{
			kill(eros_databases[i].scheduler_pid, SIGTERM);
			any = true;
		}
	}
	for (int i = 0; i < eros_max_workers; i++)
	{
		if (eros_workers_array[i].dboid == dboid && eros_workers_array[i].pid != 0)
		{
			kill(eros_workers_array[i].pid, SIGTERM);
			any = true;
		}
	}
	LWLockRelease(eros_shared->lock);
	return any;
}

/* Has EROS leave a database until the end of this transaction. */
static void
hold_database(Oid dboid)
{
	ErosDatabase *slot = eros_database_slot(dboid, false);
	int waited_ms = 0;

	if (slot == NULL)
		return;
	holding = true;
	slot->held_by = MyProcPid;
	while (terminate_processes(dboid) && waited_ms < LEAVE_TIMEOUT_MS)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		waited_ms += 10;
	}
}

/* Lets EROS go back to the databases that this backend has held. */
static void
release_databases(XactEvent event, void *arg)
{
	if (!holding || (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT))
		return;
	holding = false;
	for (int i = 0; i < eros_max_databases; i++)
	{
		if (eros_databases[i].held_by == MyProcPid)
			eros_databases[i].held_by = 0;
	}
	eros_launcher_wake();
}

/* Tells whether a DROP EXTENSION names ours. */
static bool
drops_eros(DropStmt *stmt)
{
	ListCell *lc;

	if (stmt->removeType != OBJECT_EXTENSION)
		return false;
	foreach (lc, stmt->objects)
	{
		if (strcmp(strVal(lfirst(lc)), "eros") == 0)
			return true;
	}
	return false;
}

/* The template that a CREATE DATABASE copies, or NULL. */
static const char *
template_of(CreatedbStmt *stmt)
{
	ListCell *lc;

	foreach (lc, stmt->options)
	{
		DefElem *option = lfirst_node(DefElem, lc);

		if (strcmp(option->defname, "template") == 0 && option->arg != NULL)
			return defGetString(option);
	}
	return NULL;
}

/* Has EROS leave the database that a command needs for itself. */
static void
make_way(Node *stmt)
{
	const char *name = NULL;

	if (IsA(stmt, DropStmt) && drops_eros((DropStmt *) stmt))
	{
		Oid extension = get_extension_oid("eros", true);

		/* whoever may not do it, may not stop EROS either */
		if (OidIsValid(extension) && eros_may_drop_extension(extension))
			hold_database(MyDatabaseId);
		return;
	}
	if (IsA(stmt, DropdbStmt))
		name = ((DropdbStmt *) stmt)->dbname;
	else if (IsA(stmt, RenameStmt) && ((RenameStmt *) stmt)->renameType == OBJECT_DATABASE)
		name = ((RenameStmt *) stmt)->subname;
	else if (IsA(stmt, CreatedbStmt))
		name = template_of((CreatedbStmt *) stmt);
	else if (IsA(stmt, AlterDatabaseStmt))
	{
		ListCell *lc;

		foreach (lc, ((AlterDatabaseStmt *) stmt)->options)
		{
			if (strcmp(lfirst_node(DefElem, lc)->defname, "tablespace") == 0)
				name = ((AlterDatabaseStmt *) stmt)->dbname;
		}
	}
	if (name != NULL)
	{
		Oid dboid = get_database_oid(name, true);

		if (OidIsValid(dboid) && eros_may_alter_database(dboid))
			hold_database(dboid);
	}
}

/* The utility hook. */
static void
process_utility(EROS_UTILITY_ARGS)
{
	Node *stmt = pstmt->utilityStmt;
	bool may_change_databases = IsA(stmt, CreatedbStmt) || IsA(stmt, AlterDatabaseStmt);
	bool updates_eros = IsA(stmt, AlterExtensionStmt) &&
						strcmp(((AlterExtensionStmt *) stmt)->extname, "eros") == 0;

	List *owners = NIL;

	eros_handler_check_utility(stmt);
	if (eros_shared != NULL)
		owners = eros_owners_before_utility(stmt);
	if (eros_shared != NULL &&
		(IsA(stmt, DropStmt) || IsA(stmt, DropdbStmt) || IsA(stmt, RenameStmt) ||
		 IsA(stmt, CreatedbStmt) || IsA(stmt, AlterDatabaseStmt)))
		make_way(stmt);
	if (prev_process_utility)
		prev_process_utility(EROS_UTILITY_CALL);
	else
		standard_ProcessUtility(EROS_UTILITY_CALL);

	if (owners != NIL)
		eros_owners_after_utility(stmt, owners);

	/* there may be a database more or less for us; the statement may be gone by now */
	if (eros_shared != NULL && may_change_databases)
		holding = true;

	/* the version may not be the library's any more: everybody looks again */
	if (eros_shared != NULL && updates_eros)
		eros_config_changed_on_commit();
}

/* Installs the hooks. */
void
eros_launcher_install_hooks(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	RegisterXactCallback(release_databases, NULL);
}
