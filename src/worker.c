/*-------------------------------------------------------------------------
 *
 * worker.c
 *		A worker: claims a batch, calls the handler, stores the results.
 *
 * One batch is one transaction: claim the jobs, publish whom the worker holds,
 * drop those who are active, call the handler, store the results, delete the
 * jobs, commit.  Whatever goes wrong rolls it all back, and the jobs are
 * pending again.  What follows depends on where it went wrong:
 *
 *	- halted by a touch: the batch-mates run again, no attempt is counted;
 *	- the handler cannot be called at all: its jobs wait, the reason is shown;
 *	- the handler failed: the batch is split in halves until the failing user
 *	  stands alone, and his attempt is counted;
 *	- EROS itself failed (a lock, the disk): a pause, no attempt is counted.
 *
 * The pause that pays for a batch comes after its commit.
 *
 * A worker runs the handlers of one owner, which the scheduler has chosen:
 * what a handler's code leaves in the process (connections of dblink, variables
 * of PL/Perl, the settings of a library) is found by the same role's code only.
 * When other owners' jobs are due and have no worker, it ends after its turn.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>
#include <sys/resource.h>

#include "access/xact.h"
#include "commands/extension.h"
#include "eros.h"
#include "executor/instrument.h"
#include "executor/spi.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/lock.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* How far a batch has come, which tells whose fault an error is. */
typedef enum BatchStage
{
	STAGE_CLAIM,
	STAGE_CHECK,
	STAGE_CALL,
	STAGE_STORE
} BatchStage;

/* A part of a failed batch that is to be tried on its own. */
typedef struct Piece
{
	int32 handler_id;
	ErosKey *keys;
	int nkeys;
} Piece;

/* The pause after an error that is not the handler's. */
#define ERROR_PAUSE_NS UINT64CONST(1000000000)

/* The longest sleep in a pause, and the one of a worker that yields to contention. */
#define LONGEST_PAUSE_NS UINT64CONST(60000000000)
#define LOOK_AGAIN_NS UINT64CONST(250000000)

/* Shorter pauses are put off: what is owed stays owed.  The governor's least pauses are longer. */
#define MIN_PAUSE_NS UINT64CONST(50000)

/* A handler that cannot be called is looked at again after this. */
#define NOT_CALLABLE_PAUSE_NS UINT64CONST(10000000000)

/* A worker's turn, when other owners wait for one. */
#define TURN_NS UINT64CONST(2000000000)

/* ... when it has not run a batch yet, or is at the pieces of a failed one, at most. */
#define FIRST_BATCH_NS (5 * TURN_NS)
#define PIECES_NS (30 * TURN_NS)

static ErosWorker *worker = NULL;
static uint64 turn_began_ns = 0;
static MemoryContext batch_context = NULL;
static MemoryContext pieces_context = NULL;
static List *pieces = NIL;
static bool phase_has_work[EROS_MAX_PHASES + 1];
static uint32 next_handler = 0;
static uint32 queue_generation = 0;				/* up to which phase_has_work knows */
static volatile sig_atomic_t cancelled = false; /* somebody has asked for it, in this batch */

/* The batch that is under way, and what the process had used when it began. */
static struct
{
	ErosHandler *handler; /* NULL: none is */
	ErosPhase *phase;
	uint64 cpu_ns;
	uint64 wal_bytes;
	int64 wal_fpi;
} current;

/*
 * Has a handler wait in whose call a worker ended: a second at first, doubled
 * each time, an hour at most, until a call comes to an end.
 */
static void
suspend_handler(int32 handler_id)
{
	ErosHandlerStats *stats = eros_handler_stats(worker->dboid, handler_id);
	uint32 kills = pg_atomic_add_fetch_u32(&stats->kills, 1);
	uint64 pause_s = Min((uint64) 1 << Min(kills - 1, 12), 3600);

	pg_atomic_write_u64(&stats->suspended_until_ns,
						eros_monotonic_ns() + pause_s * UINT64CONST(1000000000));
}

/*
 * Notes that an administrator cancels the batch: the error alone does not tell,
 * a handler may raise one of that SQLSTATE, or hand on a remote server's.
 */
static void
cancel_signal(SIGNAL_ARGS)
{
	cancelled = true;
	StatementCancelHandler(postgres_signal_arg);
}

/* Says what the worker does, in shared memory and in pg_stat_activity. */
static void
report(ErosWorkerActivity activity, const char *what)
{
	pg_atomic_write_u32(&worker->activity, activity);
	if (what != NULL)
		pgstat_report_activity(activity == EROS_WORKER_IDLE || activity == EROS_WORKER_PAUSING
								   ? STATE_IDLE
								   : STATE_RUNNING,
							   what);
}

/* Keeps a part of a failed batch for later. */
static void
push_piece(const ErosHandler *handler, const ErosKey *keys, int nkeys)
{
	MemoryContext old = MemoryContextSwitchTo(pieces_context);
	Piece *piece = palloc(sizeof(Piece));

	piece->handler_id = handler->handler_id;
	piece->nkeys = nkeys;
	piece->keys = palloc(sizeof(ErosKey) * nkeys);
	memcpy(piece->keys, keys, sizeof(ErosKey) * nkeys);
	pieces = lcons(piece, pieces);
	MemoryContextSwitchTo(old);
}

/* Runs something short of EROS's own in a transaction; an error is logged. */
static void
in_transaction(void (*action)(void *arg), void *arg)
{
	MemoryContext old = CurrentMemoryContext;

	PG_TRY();
	{
		eros_process_begin();
		action(arg);
		eros_process_commit();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(old);
		LWLockReleaseAll();
		eros_error_report(EROS_PROCESS_WORKER);
		AbortCurrentTransaction();
		FlushErrorState();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
}

/* What is to be written down about an error. */
typedef struct Failure
{
	ErosHandler *handler;
	ErosKey key;
	const char *message;
} Failure;

static void
write_failure(void *arg)
{
	Failure *failure = arg;

	eros_queue_record_failure(failure->handler, &failure->key, failure->message);
}

static void
write_handler_error(void *arg)
{
	Failure *failure = arg;

	eros_handler_note_error(failure->handler, failure->message);
}

/*
 * Notes an error in a handler's batch, its own or EROS's, and logs it if it has
 * not been within the last minute.
 */
static void
log_failure(const ErosHandler *handler, bool own, const ErrorData *error)
{
	if (!eros_error_note(EROS_PROCESS_WORKER, handler, own, error))
		return;
	if (own)
	{
		ereport(LOG,
				(errmsg("a batch of handler \"%s\" could not be claimed or stored: %s",
						handler->name, error->message),
				 error->context ? errcontext("%s", error->context) : 0,
				 errhint("It is tried again; the same failure is not logged again for a minute.")));
		return;
	}
	ereport(LOG, (errmsg("handler \"%s\" failed: %s", handler->name, error->message),
				  error->context ? errcontext("%s", error->context) : 0,
				  errhint("See last_error in eros.job; the same failure is not logged again for a "
						  "minute.")));
}

/* Counts a halted batch. */
static void
count_halted(const ErosHandler *handler, uint64 cpu_ns)
{
	pg_atomic_fetch_add_u64(&handler->stats->batches_halted, 1);
	pg_atomic_fetch_add_u64(&handler->stats->cpu_halted_ns, cpu_ns);
}

/*
 * Decides what follows from an error; the transaction has been rolled back.
 */
static void
after_error(ErosHandler *handler, const ErosClaim *claim, BatchStage stage, bool halted,
			const ErrorData *error, uint64 cpu_ns)
{
	Failure failure = {handler, {0, 0}, error->message};

	if (halted)
	{
		count_halted(handler, cpu_ns);
		return;
	}
	if (stage == STAGE_CHECK)
	{
		eros_handler_wait(handler, NOT_CALLABLE_PAUSE_NS);
		handler->has_error = true;
		in_transaction(write_handler_error, &failure);
		log_failure(handler, false, error);
		return;
	}
	if (stage != STAGE_CALL ||
		(cancelled && error->sqlerrcode == ERRCODE_QUERY_CANCELED && !eros_handler_timed_out()))
	{
		/* not the handler's fault, or an administrator has cancelled it */
		eros_handler_wait(handler, ERROR_PAUSE_NS);
		log_failure(handler, stage != STAGE_CALL, error);
		return;
	}
	log_failure(handler, false, error);
	if (claim->njobs > 1)
	{
		int half = claim->njobs / 2;

		push_piece(handler, claim->keys + half, claim->njobs - half);
		push_piece(handler, claim->keys, half);
		return;
	}
	/* counted when it is known for whom: one bad user fails about nine calls of a batch of 250 */
	pg_atomic_fetch_add_u64(&handler->stats->batches_failed, 1);
	failure.key = claim->keys[0];
	in_transaction(write_failure, &failure);
}

/* Tells whether eros.pause() is in force. */
static bool
is_paused(void)
{
	ErosDatabase *db = eros_my_database();

	return db != NULL && pg_atomic_read_u32(&db->paused) != 0;
}

/* Calls the handler, paced and with little memory. */
static void
call_handler(ErosHandler *handler, const ErosClaim *claim, ErosResults *results)
{
	int guc_level = NewGUCNestLevel();
	char work_mem_kb[16];

	if (eros_work_mem_kb >= 0)
	{
		snprintf(work_mem_kb, sizeof(work_mem_kb), "%d", eros_work_mem_kb);
		(void) set_config_option("work_mem", work_mem_kb, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	}
	eros_pace_begin(eros_phase(handler->phase));
	eros_handler_call(handler, claim->keys, claim->njobs, results);
	eros_pace_end();
	AtEOXact_GUC(false, guc_level);
}

/* The part of a batch that may fail; returns the users claimed. */
static int
attempt_batch(ErosHandler *handler, const Piece *piece, int limit, ErosClaim *claim,
			  volatile BatchStage *stage)
{
	ErosDatabase *db = eros_my_database();
	ErosResults results;
	uint64 start_ns = eros_monotonic_ns();
	int claimed;

	report(EROS_WORKER_CLAIMING, NULL);
	eros_lock_for_writing("job");
	if (piece != NULL)
		eros_queue_claim_users(handler, piece->keys, piece->nkeys, claim);
	else
		eros_queue_claim(handler, limit, claim);
	claimed = claim->njobs;
	if (claimed == 0)
		return 0;
	eros_latency_note(db, EROS_OP_CLAIM, eros_monotonic_ns() - start_ns);

	eros_halt_publish(worker, claim->keys, claim->njobs);
	if (is_paused())
		eros_halt_myself(worker, EROS_HALT_PAUSE);
	CHECK_FOR_INTERRUPTS();
	eros_queue_drop_active(handler, claim);
	if (claim->njobs > 0)
	{
		*stage = STAGE_CHECK;
		eros_crash_mark(handler, claim->keys, claim->njobs);
		eros_handler_check_callable(handler);
		if (handler->has_error)
		{
			eros_handler_note_error(handler, NULL);
			handler->has_error = false;
		}

		*stage = STAGE_CALL;
		pg_atomic_write_u64(&worker->batch_start, (uint64) GetCurrentTimestamp());
		pg_atomic_write_u32(&worker->handler_id, handler->handler_id);
		pg_atomic_write_u32(&worker->phase, handler->phase);
		report(EROS_WORKER_COMPUTING, handler->function);
		call_handler(handler, claim, &results);

		*stage = STAGE_STORE;
		report(EROS_WORKER_STORING, NULL);
		start_ns = eros_monotonic_ns();
		eros_cache_store(handler, claim->keys, claim->njobs, &results);
		eros_queue_finish(handler, claim);
		eros_latency_note(db, EROS_OP_STORE, eros_monotonic_ns() - start_ns);
	}
	eros_halt_before_commit(worker);
	return claimed;
}

/* Counts users who were called alone, after a crash of the server in a call. */
static void
count_alone(const ErosHandler *handler, int users)
{
	uint32 left = pg_atomic_read_u32(&handler->stats->alone);

	while (left > 0 && !pg_atomic_compare_exchange_u32(&handler->stats->alone, &left,
													   left - Min(left, (uint32) users)))
		;
}

/* Counts a batch, and the users that it has done; none when it failed. */
static void
count_batch(const ErosHandler *handler, int phase, int users, uint64 cpu_ns)
{
	ErosDatabase *db = eros_my_database();

	if (users > 0)
	{
		eros_governor_learn(handler, users, cpu_ns);
		pg_atomic_write_u32(&handler->stats->kills, 0);
		pg_atomic_fetch_add_u64(&handler->stats->users_done, users);
		pg_atomic_fetch_add_u64(&worker->users_done, users);
		if (db != NULL)
			pg_atomic_fetch_add_u64(&db->phases[phase].users_done, users);
	}
	pg_atomic_fetch_add_u64(&handler->stats->batches, 1);
	pg_atomic_fetch_add_u64(&worker->batches, 1);
	if (db != NULL)
		pg_atomic_fetch_add_u64(&db->phases[phase].batches, 1);
}

/* The CPU time that the batch under way has used. */
static uint64
batch_cpu_ns(void)
{
	return eros_process_cpu_ns() - current.cpu_ns;
}

/* Begins a batch. */
static void
begin_batch(ErosPhase *phase, ErosHandler *handler)
{
	current.phase = phase;
	current.cpu_ns = eros_process_cpu_ns();
	current.wal_bytes = pgWalUsage.wal_bytes;
	current.wal_fpi = pgWalUsage.wal_fpi;
	current.handler = handler;
	cancelled = false;
	eros_governor_begin();
}

/* Ends it: has its handler and its phase pay for it. */
static void
end_batch(void)
{
	ErosHandlerStats *stats = current.handler->stats;

	pg_atomic_fetch_add_u64(&stats->cpu_used_ns, batch_cpu_ns());
	pg_atomic_fetch_add_u64(&stats->wal_bytes, pgWalUsage.wal_bytes - current.wal_bytes);
	pg_atomic_fetch_add_u64(&stats->wal_fpi, pgWalUsage.wal_fpi - current.wal_fpi);
	eros_governor_charge(worker, current.phase);
	current.handler = NULL;
	pg_atomic_write_u64(&worker->batch_start, 0);
	pg_atomic_write_u32(&worker->handler_id, 0);
}

/* Ends the batch in which the process ends; its transaction has been rolled back. */
static void
end_last_batch(void)
{
	if (current.handler == NULL)
		return;
	if (eros_halt_is_pending(worker))
	{
		eros_halt_finished(worker, current.handler);
		count_halted(current.handler, batch_cpu_ns());
	}
	count_batch(current.handler, current.phase->phase, 0, batch_cpu_ns());
	end_batch();
}

/* Gives the slot back, and lets the scheduler know. */
static void
worker_exit(int code, Datum arg)
{
	ErosDatabase *db = eros_database_slot(worker->dboid, false);

	eros_pace_end();
	if (db != NULL && eros_halt_is_overdue(worker, eros_monotonic_ns()))
	{
		pg_atomic_fetch_add_u64(&db->halts_forced, 1);
		ereport(LOG, (errmsg("a worker of EROS was terminated: its handler did not yield to a halt "
							 "within %d ms",
							 eros_halt_timeout_ms)));
	}
	if (code != 0 && pg_atomic_read_u32(&worker->handler_id) != 0)
		suspend_handler((int32) pg_atomic_read_u32(&worker->handler_id));
	end_last_batch();
	eros_halt_withdraw(worker);
	eros_crash_unmark();
	LWLockAcquire(eros_shared->lock, LW_EXCLUSIVE);
	worker->dboid = InvalidOid;
	worker->pid = 0;
	worker->latch = NULL;
	LWLockRelease(eros_shared->lock);
	if (db != NULL)
		eros_set_latch_of_scheduler(db);
	if (pg_atomic_read_u32(&eros_shared->waiting) > 0)
		eros_launcher_wake(); /* somebody waits for the slot */
}

/*
 * Runs one batch of a handler, new or a piece of a failed one; returns whether
 * there was anything to do.
 */
static bool
run_batch(ErosPhase *phase, ErosHandler *handler, const Piece *piece)
{
	ErosClaim claim = {.first_due = DT_NOEND};
	uint64 cpu_ns;
	volatile BatchStage stage = STAGE_CLAIM;
	volatile int claimed = 0;
	ErrorData *volatile error = NULL;
	volatile bool halted = false;
	volatile bool outdated = false;

	MemoryContextReset(batch_context);
	claim.context = batch_context; /* beyond the transaction */
	begin_batch(phase, handler);
	PG_TRY();
	{
		MemoryContext old;

		eros_process_begin();
		pg_atomic_write_u64(&worker->snapshot_start, (uint64) GetCurrentTimestamp());
		old = MemoryContextSwitchTo(batch_context);

		/* what this snapshot sees may have been meant for the handler as it is now */
		outdated = !eros_config_is_current();
		if (!outdated)
			claimed = attempt_batch(handler, piece, eros_governor_batch_size(phase, handler),
									&claim, &stage);
		MemoryContextSwitchTo(old);
		eros_process_commit();
		eros_halt_withdraw(worker);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		eros_pace_end();
		MemoryContextSwitchTo(batch_context);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		halted = eros_halt_is_pending(worker);
		if (halted)
			eros_halt_finished(worker, handler);
		eros_halt_withdraw(worker);
		QueryCancelPending = false;
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(batch_context);
	pg_atomic_write_u64(&worker->snapshot_start, 0);

	eros_crash_unmark();

	/* locks of the session are the handler's, and would stay */
	LockReleaseSession(USER_LOCKMETHOD);

	cpu_ns = batch_cpu_ns();
	if (error != NULL)
	{
		eros_queue_note_back(handler, &claim);
		after_error(handler, &claim, stage, halted, error, cpu_ns);
	}
	else if (claimed > 0 && piece == NULL)
		eros_queue_note_done(handler, &claim);
	if (!halted)
		count_alone(handler, Max(claimed, claim.njobs));
	if (error != NULL || claim.njobs > 0)
		count_batch(handler, phase->phase, error == NULL ? claim.njobs : 0, cpu_ns);
	end_batch();
	pgstat_report_stat(false);
	return error != NULL || claimed > 0 || outdated;
}

/* Reads the configuration; false when the extension is gone, or of another version. */
static bool
refresh_config(void)
{
	bool there;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	there = OidIsValid(get_extension_oid("eros", true)) && eros_version_matches();
	if (there)
	{
		int nold = eros_config()->nphases;
		ErosPhase old[EROS_MAX_PHASES];

		memcpy(old, eros_config()->phases, sizeof(old));
		eros_config_reload();
		for (int p = 0; p < nold; p++)
		{
			ErosPhase *phase = eros_phase(old[p].phase);

			if (phase != NULL && phase->cpu_percent != old[p].cpu_percent)
				eros_governor_rescale(worker, phase->phase, old[p].cpu_percent, phase->cpu_percent);
		}
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	return there;
}

/* How long the worker pauses before the next batch of a phase. */
static uint64
pause_ns(const ErosPhase *phase)
{
	uint64 wait_ns = eros_governor_wait_ns(worker, phase->phase);

	return wait_ns < MIN_PAUSE_NS ? 0 : wait_ns;
}

/* Goes on with a part of a failed batch, if there is one whose phase may run. */
static bool
run_piece(uint64 *wait_ns)
{
	Piece *piece;
	ErosHandler *handler;
	ErosPhase *phase;
	uint64 wait;
	bool did;

	if (pieces == NIL)
	{
		MemoryContextReset(pieces_context);
		return false;
	}
	piece = linitial(pieces);
	handler = eros_handler_by_id(piece->handler_id);
	phase = handler ? eros_phase(handler->phase) : NULL;
	if (phase == NULL || !handler->enabled || handler->owner != worker->owner)
	{
		pieces = list_delete_first(pieces);
		return true;
	}
	wait = pause_ns(phase);
	if (wait > 0)
	{
		*wait_ns = Min(*wait_ns, wait);
		return false;
	}
	pieces = list_delete_first(pieces);
	did = run_batch(phase, handler, piece);
	return did || pieces != NIL;
}

/*
 * Runs the next batch that may run, phases in their order, handlers of a phase
 * in turn.  Returns whether it ran one; else *wait_ns tells when one may.
 */
static bool
run_next(uint64 *wait_ns)
{
	ErosDatabase *db = eros_my_database();
	ErosConfig *config = eros_config();
	uint64 now = eros_monotonic_ns();

	if (db != NULL && pg_atomic_read_u32(&db->queue_generation) != queue_generation)
	{
		queue_generation = pg_atomic_read_u32(&db->queue_generation);
		memset(phase_has_work, true, sizeof(phase_has_work));
	}
	*wait_ns = PG_UINT64_MAX;
	if (run_piece(wait_ns))
		return true;
	for (int p = 0; p < config->nphases; p++)
	{
		ErosPhase *phase = &config->phases[p];
		uint64 wait;
		bool waiting = false;

		if (!phase_has_work[phase->phase])
			continue;
		wait = pause_ns(phase);
		if (wait > 0)
		{
			*wait_ns = Min(*wait_ns, wait);
			continue;
		}
		for (int i = 0; i < config->nhandlers; i++)
		{
			ErosHandler *handler = &config->handlers[next_handler++ % config->nhandlers];
			uint64 retry_at;

			if (handler->phase != phase->phase || !handler->enabled ||
				handler->owner != worker->owner)
				continue;
			retry_at = eros_handler_waits_until_ns(handler);
			if (retry_at > now)
			{
				*wait_ns = Min(*wait_ns, retry_at - now);
				waiting = true;
				continue;
			}
			if (run_batch(phase, handler, NULL))
				return true;
		}
		phase_has_work[phase->phase] = waiting;
	}
	return false;
}

/* Tells whether DDL keeps EROS out of a database. */
static bool
is_held(Oid dboid)
{
	for (int i = 0; i < eros_max_databases; i++)
	{
		if (eros_databases[i].dboid == dboid)
			return eros_databases[i].held_by != 0;
	}
	return true;
}

/* Takes the slot that the scheduler has kept; ends the process when it is not ours any more. */
static void
take_slot(Datum arg)
{
	uint32 ticket;
	Oid dboid;

	worker = &eros_workers_array[DatumGetInt32(arg)];
	memcpy(&ticket, MyBgworkerEntry->bgw_extra, sizeof(ticket));
	LWLockAcquire(eros_shared->lock, LW_EXCLUSIVE);
	dboid = worker->dboid;
	if (worker->ticket != ticket || !OidIsValid(dboid) || worker->pid != 0 || is_held(dboid))
	{
		if (worker->ticket == ticket && worker->pid == 0)
			worker->dboid = InvalidOid;
		LWLockRelease(eros_shared->lock);
		proc_exit(0);
	}
	worker->pid = MyProcPid;
	worker->latch = MyLatch;
	LWLockRelease(eros_shared->lock);
	before_shmem_exit(worker_exit, (Datum) 0);

	pg_atomic_write_u32(&worker->activity, EROS_WORKER_STARTING);
	pg_atomic_write_u64(&worker->started, (uint64) GetCurrentTimestamp());
	pg_atomic_write_u64(&worker->batch_start, 0);
	pg_atomic_write_u64(&worker->snapshot_start, 0);
	pg_atomic_write_u64(&worker->batches, 0);
	pg_atomic_write_u64(&worker->users_done, 0);
	pg_atomic_write_u64(&worker->cpu_used_ns, 0);
	turn_began_ns = eros_monotonic_ns();
	eros_halt_install(worker);
	eros_pace_install(worker);
	eros_process_init(dboid, "eros worker");
	pqsignal(SIGINT, cancel_signal);
	eros_crash_install((int) (worker - eros_workers_array));
	eros_config_by_hand();
	if (eros_nice > 0)
		(void) setpriority(PRIO_PROCESS, 0, eros_nice);
}

/*
 * Tells whether this database's turn is over, since others wait for a worker
 * slot; a second worker makes room for their first.
 */
static bool
turn_is_over(void)
{
	ErosDatabase *db = eros_my_database();

	return db != NULL && (pg_atomic_read_u32(&db->leave) == EROS_LEAVE_NOW ||
						  (worker->number > 1 && eros_launcher_is_waited_for(db)));
}

/*
 * Tells whether to leave the worker's number to another owner: one waits, and
 * there is nothing to do now, or the turn is over.
 *
 * A turn has at least one batch, and ends with a failed batch's last piece:
 * otherwise a slow handler would never come to its failing user.
 */
static bool
leaves_turn(bool idle)
{
	ErosDatabase *db = eros_my_database();
	uint64 elapsed = eros_monotonic_ns() - turn_began_ns;
	uint32 waiting = db != NULL ? pg_atomic_read_u32(&db->owners_waiting) : 0;

	if (waiting == 0)
		return false;
	if (!idle)
	{
		if (elapsed < TURN_NS || (pieces != NIL && elapsed < PIECES_NS) ||
			(pg_atomic_read_u64(&worker->batches) == 0 && elapsed < FIRST_BATCH_NS))
			return false;
	}

	/* as many leave as wait */
	return pg_atomic_compare_exchange_u32(&db->owners_waiting, &waiting, waiting - 1);
}

/* Waits for the governor, or for work; returns whether to go on. */
static bool
wait_for_work(uint64 wait_ns, uint64 *idle_since_ns)
{
	uint64 now = eros_monotonic_ns();
	ErosDatabase *db = eros_my_database();

	if (wait_ns != PG_UINT64_MAX)
	{
		ErosConfig *config = eros_config();
		bool yields = eros_governor_yields();

		*idle_since_ns = 0;
		report(EROS_WORKER_PAUSING, "pausing for the CPU share");
		wait_ns = Min(wait_ns, yields ? LOOK_AGAIN_NS : LONGEST_PAUSE_NS);
		if (wait_ns < UINT64CONST(1000000))
			pg_usleep((long) (wait_ns / 1000)); /* a latch waits for whole milliseconds */
		else
			eros_process_wait(EROS_WAIT_PAUSE, (long) ((wait_ns + 999999) / 1000000));
		if (yields)
			eros_governor_feel_contention(worker);
		now = eros_monotonic_ns() - now;
		for (int p = 0; db != NULL && p < config->nphases; p++)
		{
			if (phase_has_work[config->phases[p].phase])
				eros_governor_count_throttled(&config->phases[p], now);
		}
		return true;
	}
	if (*idle_since_ns == 0)
		*idle_since_ns = now;
	if ((now - *idle_since_ns) / 1000000 >= (uint64) eros_worker_idle_timeout_ms ||
		(db != NULL && eros_launcher_is_waited_for(db)))
		return false;
	report(EROS_WORKER_IDLE, "waiting for jobs");

	/* a wait within a batch may have taken the latch */
	if (db != NULL && pg_atomic_read_u32(&db->queue_generation) != queue_generation)
		return true;
	eros_process_wait(EROS_WAIT_JOBS, eros_worker_idle_timeout_ms);
	memset(phase_has_work, true, sizeof(phase_has_work));
	return true;
}

/* Tells whether the worker goes on, by the settings as they are now. */
static bool
goes_on(void)
{
	QueryCancelPending = false; /* a cancel that comes late: nothing runs */
	CHECK_FOR_INTERRUPTS();
	eros_process_reload();
	return eros_enabled && worker->number <= eros_workers && !is_paused() && !turn_is_over() &&
		   refresh_config();
}

/* The worker's process. */
void
eros_worker_main(Datum arg)
{
	uint64 idle_since_ns = 0;

	take_slot(arg);
	eros_governor_start(worker);
	batch_context = AllocSetContextCreate(TopMemoryContext, "eros batch", ALLOCSET_DEFAULT_SIZES);
	pieces_context = AllocSetContextCreate(TopMemoryContext, "eros pieces", ALLOCSET_SMALL_SIZES);
	memset(phase_has_work, true, sizeof(phase_has_work));

	while (goes_on())
	{
		uint64 wait_ns;

		if (run_next(&wait_ns))
		{
			idle_since_ns = 0;
			wait_ns = 0;
		}
		if (leaves_turn(wait_ns == PG_UINT64_MAX))
			break;
		if (wait_ns != 0 && !wait_for_work(wait_ns, &idle_since_ns))
			break;
	}
	proc_exit(0);
}
