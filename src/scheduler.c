/*-------------------------------------------------------------------------
 *
 * scheduler.c
 *		A database's scheduler: sweeps, maintains, and starts workers.
 *
 * The launcher starts it, also to find out whether a database has the
 * extension: if not, it says so in the slot and ends.
 *
 * A worker serves one owner's handlers.  With more owners than eros.workers,
 * they take turns: owners_waiting tells the workers that somebody has none.
 *
 * When other databases wait for a worker slot it leaves, if it has nothing to do
 * or if its turn is over, and says when it is needed next; see launcher.c.
 *
 * It sleeps until something is due: somebody in the map or in the table
 * crosses a threshold, a result is to be refreshed, maintenance, a job's next
 * try.  At most a first threshold passes between two looks, so that it need
 * not be woken by touches: who comes while it sleeps is not idle before it
 * wakes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/extension.h"
#include "eros.h"
#include "executor/instrument.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* Users in one transaction of the sweep. */
#define SWEEP_BATCH 1000

/* A partition that could not be dropped is tried again after this. */
#define PURGE_AGAIN_US (5 * USECS_PER_SEC)

/* Rounds that make room in the map are followed by so many times what they took. */
#define ROOM_REST 9

/* How long a round sweeps, at most, before it does the rest. */
#define LONGEST_SWEEP_NS UINT64CONST(5000000000)

/* The pause between two tries to start a worker when there is no slot. */
#define MIN_BACKOFF_NS UINT64CONST(1000000000)
#define MAX_BACKOFF_NS UINT64CONST(60000000000)

/* A scheduler that others wait for leaves when it is not needed for so long. */
#define IDLE_TURN_US USECS_PER_SEC

/* What there is to do for one owner of handlers. */
typedef struct OwnerWork
{
	Oid owner;
	bool due;	   /* a job of his is due */
	int64 pending; /* jobs of the handlers that have one that is due */
	int64 held;	   /* of these, in work */
	int workers;
} OwnerWork;

/* How often a scheduler looks whether the versions fit again. */
#define PARKED_MS 10000

static ErosDatabase *db = NULL;
static ErosSweep *sweep = NULL;
static Oid last_owner = InvalidOid; /* for whom the last worker was started */
static MemoryContext round_context = NULL;
static BackgroundWorkerHandle **handles = NULL; /* by worker slot */
static uint64 start_first_after_ns = 0;			/* the next try for the first worker */
static uint64 start_backoff_ns = 0;				/* ... for another one */
static uint64 start_after_ns = 0;
static TimestampTz needed_at = DT_NOBEGIN; /* the next scheduler, if this one leaves */

/* Leaves the slot, and lets the launcher know. */
static void
scheduler_exit(int code, Datum arg)
{
	LWLockAcquire(eros_shared->lock, LW_EXCLUSIVE);
	if (db->scheduler_pid == MyProcPid)
	{
		db->scheduler_pid = 0;
		db->scheduler_latch = NULL;
		db->scheduler_up = false;
		pg_atomic_write_u64(&db->worker_wanted_since, 0);
	}
	LWLockRelease(eros_shared->lock);
	eros_launcher_wake();
}

/* ------------------------------------------------------------------------
 * Workers
 * ------------------------------------------------------------------------
 */

/* Gives back the slots of workers that never came up. */
static void
reap_workers(void)
{
	for (int i = 0; i < eros_max_workers; i++)
	{
		ErosWorker *worker = &eros_workers_array[i];
		pid_t pid;

		if (handles[i] == NULL || GetBackgroundWorkerPid(handles[i], &pid) != BGWH_STOPPED)
			continue;
		pfree(handles[i]);
		handles[i] = NULL;
		LWLockAcquire(eros_shared->lock, LW_EXCLUSIVE);
		if (worker->dboid == db->dboid && worker->pid == 0)
			worker->dboid = InvalidOid;
		LWLockRelease(eros_shared->lock);
	}
}

/*
 * Tells how many other databases have been without any worker for longer than
 * this one.  The caller has the slot lock.
 */
static int
count_earlier(void)
{
	uint64 mine = pg_atomic_read_u64(&db->worker_wanted_since);
	int earlier = 0;

	for (int i = 0; i < eros_max_databases; i++)
	{
		uint64 theirs = pg_atomic_read_u64(&eros_databases[i].worker_wanted_since);

		if (OidIsValid(eros_databases[i].dboid) && theirs != 0 && (mine == 0 || theirs < mine))
			earlier++;
	}
	return earlier;
}

/* Keeps a free slot for a worker with this number and owner; -1 when there is none. */
static int
keep_worker_slot(int number, Oid owner)
{
	static uint32 tickets = 0;
	int found = -1;
	int earlier;

	LWLockAcquire(eros_shared->lock, LW_EXCLUSIVE);
	earlier = count_earlier();
	for (int i = 0; i < eros_max_workers && found < 0; i++)
	{
		ErosWorker *worker = &eros_workers_array[i];

		if (OidIsValid(worker->dboid) || handles[i] != NULL || earlier-- > 0)
			continue;
		worker->dboid = db->dboid;
		worker->number = number;
		worker->owner = owner;
		worker->pid = 0;
		worker->latch = NULL;
		worker->ticket = (uint32) MyProcPid * 1000003 + ++tickets;
		pg_atomic_write_u32(&worker->grant_permille, 1000);
		pg_atomic_write_u32(&worker->waited_permille, 0);
		pg_atomic_write_u64(&worker->halted_at_ns, 0);
		found = i;
	}
	LWLockRelease(eros_shared->lock);
	return found;
}

/* Starts a worker for an owner's handlers; returns whether there was a slot for it. */
static bool
start_worker(int number, Oid owner)
{
	BackgroundWorker bgw = {0};
	int slot = keep_worker_slot(number, owner);
	MemoryContext old;
	bool started = false;

	if (slot >= 0)
	{
		bgw.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
		bgw.bgw_start_time = BgWorkerStart_RecoveryFinished;
		bgw.bgw_restart_time = BGW_NEVER_RESTART;
		strlcpy(bgw.bgw_library_name, "eros", BGW_MAXLEN);
		strlcpy(bgw.bgw_function_name, "eros_worker_main", BGW_MAXLEN);
		strlcpy(bgw.bgw_type, "eros worker", BGW_MAXLEN);
		snprintf(bgw.bgw_name, BGW_MAXLEN, "eros worker %d of database %u", number, db->dboid);
		bgw.bgw_main_arg = Int32GetDatum(slot);
		memcpy(bgw.bgw_extra, &eros_workers_array[slot].ticket, sizeof(uint32));
		bgw.bgw_notify_pid = MyProcPid;

		old = MemoryContextSwitchTo(TopMemoryContext);
		started = RegisterDynamicBackgroundWorker(&bgw, &handles[slot]);
		MemoryContextSwitchTo(old);
		if (!started)
		{
			LWLockAcquire(eros_shared->lock, LW_EXCLUSIVE);
			eros_workers_array[slot].dboid = InvalidOid;
			LWLockRelease(eros_shared->lock);
			handles[slot] = NULL;
		}
	}
	return started;
}

/*
 * Chooses the owner for whom to start a worker, NULL when nobody needs one:
 * one with fewest workers, and of these the next in turn.
 *
 * The counts of jobs are for the second worker of an owner: a due job is
 * reason enough for the first.
 */
static OwnerWork *
choose_owner(OwnerWork *owners, int nowners)
{
	OwnerWork *best = NULL;

	for (int i = 0; i < nowners; i++)
	{
		OwnerWork *this = &owners[i];
		bool after;

		if (!this->due || (this->workers > 0 && this->pending <= this->held))
			continue;
		if (best == NULL || this->workers != best->workers)
		{
			if (best == NULL || this->workers < best->workers)
				best = this;
			continue;
		}

		/* by oid, round and round, from the one after the last */
		after = this->owner > last_owner;
		if (after != (best->owner > last_owner) ? after : this->owner < best->owner)
			best = this;
	}
	return best;
}

/* Tells whether this database has a worker, be it on its way. */
static bool
has_worker(void)
{
	for (int i = 0; i < eros_max_workers; i++)
	{
		if (eros_workers_array[i].dboid == db->dboid)
			return true;
	}
	return false;
}

/*
 * Says that there is no slot for a worker, in the status and to the launcher;
 * tries again later.  That a second one has not found a slot for a minute must
 * not keep the first waiting, when there is none any more.
 */
static void
note_no_worker_slot(uint64 now)
{
	eros_launcher_note_no_slot(db);
	if (!has_worker())
	{
		if (pg_atomic_read_u64(&db->worker_wanted_since) == 0)
			pg_atomic_write_u64(&db->worker_wanted_since, (uint64) GetCurrentTimestamp());
		start_first_after_ns = now + MIN_BACKOFF_NS;
		return;
	}
	start_backoff_ns = Min(Max(start_backoff_ns * 2, MIN_BACKOFF_NS), MAX_BACKOFF_NS);
	start_after_ns = now + start_backoff_ns;
}

/* Tells whether it is too early to try again to start a worker. */
static bool
backs_off(uint64 now)
{
	return now < (has_worker() ? start_after_ns : start_first_after_ns);
}

/* No worker is wanted: none is missing. */
static void
note_nothing_due(void)
{
	db->no_worker_slot = false;
	pg_atomic_write_u64(&db->worker_wanted_since, 0);
}

/*
 * Notes when a scheduler is needed next for the sake of the jobs.  A worker
 * that has jobs tells at its end.
 */
static void
note_need_for_jobs(const OwnerWork *owners, int nowners, TimestampTz next_due, TimestampTz now)
{
	bool due = false;

	for (int i = 0; i < nowners; i++)
	{
		due = due || owners[i].due;
		if (owners[i].due && owners[i].workers == 0)
			next_due = now;
	}
	if (!due)
		note_nothing_due();
	if (eros_workers > 0)
		needed_at = Min(needed_at, next_due);
}

/* Wakes the worker with this number; returns whether there is one. */
static bool
wake_worker(int number)
{
	bool there = false;

	LWLockAcquire(eros_shared->lock, LW_SHARED);
	for (int i = 0; i < eros_max_workers; i++)
	{
		ErosWorker *worker = &eros_workers_array[i];

		if (worker->dboid != db->dboid || worker->number != number)
			continue;
		there = true;

		/* whatever it does now: it may be about to sleep */
		if (worker->latch != NULL)
			SetLatch(worker->latch);
	}
	LWLockRelease(eros_shared->lock);
	return there;
}

/*
 * Wakes the workers that run, and starts those that are missing, for the owners
 * who have due jobs.  Who has to wait then is made known to the workers.
 */
static void
provide_workers(OwnerWork *owners, int nowners)
{
	uint64 now = eros_monotonic_ns();
	uint32 waiting = 0;

	/* one, while other databases wait */
	int wanted = eros_launcher_is_waited_for(db) ? Min(eros_workers, 1) : eros_workers;

	for (int number = 1; number <= wanted; number++)
	{
		OwnerWork *owner;

		if (wake_worker(number) || backs_off(now))
			continue;
		owner = choose_owner(owners, nowners);
		if (owner == NULL)
			continue;
		if (start_worker(number, owner->owner))
		{
			owner->workers++;
			last_owner = owner->owner;
			start_backoff_ns = 0;
			db->no_worker_slot = false;
			pg_atomic_write_u64(&db->worker_wanted_since, 0);
			continue;
		}
		note_no_worker_slot(now);
	}
	for (int i = 0; i < nowners; i++)
		waiting += owners[i].due && owners[i].workers == 0;
	pg_atomic_write_u32(&db->owners_waiting, waiting);
}

/* ------------------------------------------------------------------------
 * One round
 * ------------------------------------------------------------------------
 */

/* Ends the process when the extension is gone; else notes whose it is. */
static void
exit_if_dropped(void)
{
	bool there;
	bool of_superuser;
	bool announced;

	do
	{
		uint32 announcements = db->announced;

		StartTransactionCommand();
		there = eros_extension_exists(&of_superuser);
		CommitTransactionCommand();
		if (there)
		{
			eros_note_owner(db, of_superuser);
			return;
		}
		LWLockAcquire(eros_shared->lock, LW_EXCLUSIVE);
		announced = db->announced != announcements;
		if (!announced)
			db->state = EROS_DB_ABSENT;
		LWLockRelease(eros_shared->lock);
	} while (announced); /* created while we looked: look again */
	proc_exit(0);
}

/*
 * Tells whether the extension is of another version than the library: then
 * nothing is done, until the server is restarted or the extension updated.
 */
static bool
is_parked(void)
{
	static bool parked = false;
	bool matches;

	StartTransactionCommand();
	matches = eros_version_matches();
	CommitTransactionCommand();
	if (!matches && !parked)
		ereport(LOG, (errmsg("EROS pauses in this database: the extension is not of the library's "
							 "version %s",
							 EROS_VERSION),
					  errhint("See eros.status.")));
	parked = !matches;
	return parked;
}

/* Gives back slots that a scheduler before this one kept for workers that never came. */
static void
release_stale_slots(void)
{
	LWLockAcquire(eros_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < eros_max_workers; i++)
	{
		if (eros_workers_array[i].dboid == db->dboid && eros_workers_array[i].pid == 0)
		{
			eros_workers_array[i].dboid = InvalidOid;
			eros_workers_array[i].ticket = 0;
		}
	}
	LWLockRelease(eros_shared->lock);
}

/* Counts what is there, reads the configuration, before the first round. */
static void
initialize(void)
{
	/* what one that has left by itself has counted is right still */
	bool counted = pg_atomic_exchange_u32(&db->away, 0) != 0;

	release_stale_slots();
	if (!counted)
	{
		MemoryContextSwitchTo(round_context); /* a transaction has left another one */
		eros_crash_recover();
		eros_snapshot_restore();
	}
	eros_process_begin();
	eros_config_reload();
	if (!counted)
	{
		eros_queue_recount();
		eros_sweep_recount();
		pg_atomic_write_u64(&db->active_users, eros_tracker_count(db->dboid));
		eros_cache_recount();
		SPI_execute("SELECT eros.create_partitions()", false, 0);
	}
	sweep = eros_sweep_create();
	eros_sweep_take_progress(sweep);

	/* or a step of the refresh would read whole partitions */
	SetConfigOption("enable_tidscan", "on", PGC_USERSET, PGC_S_OVERRIDE);
	eros_process_commit();
	eros_history_begin();
}

/* Runs one of the functions of maintenance in a transaction of its own. */
static void
maintain(const char *sql)
{
	eros_process_begin();
	SPI_execute(sql, false, 0);
	eros_process_commit();
}

/* Purges; returns when to do it again, since somebody has a lock on what has expired. */
static TimestampTz
purge(TimestampTz now)
{
	bool left;

	eros_process_begin();
	SPI_execute("SELECT eros.purge()", false, 0);
	left = eros_cache_has_expired(now);
	eros_process_commit();
	return left ? now + PURGE_AGAIN_US : DT_NOEND;
}

/*
 * Purges and cleans up, when it is time and pg_cron does not.  Also when
 * pg_cron should have, but has not for three intervals.
 */
static void
maintain_if_due(TimestampTz now, TimestampTz *next)
{
	int64 interval = eros_maintenance_interval_s * USECS_PER_SEC;
	static TimestampTz accounts_closed = 0;
	static TimestampTz purge_again = DT_NOEND;
	TimestampTz last = (TimestampTz) pg_atomic_read_u64(&db->last_maintenance);
	TimestampTz due = last + (db->by_pg_cron ? 3 * interval : interval);

	if (due <= now || last > now)
	{
		maintain("SELECT eros.create_partitions()");
		purge_again = purge(now);
		maintain("SELECT eros.clean_up()");
		due = now + interval;
	}
	else if (purge_again <= now)
		purge_again = purge(now);
	if (now - accounts_closed >= interval || now < accounts_closed)
	{
		accounts_closed = now;
		eros_process_begin();
		eros_cache_close_accounts();
		eros_process_commit();
		eros_process_begin();
		eros_snapshot_refresh(eros_now());
		eros_process_commit();
	}
	/* a call drops one partition at most: the lock for that is not kept for more */
	for (int i = 0; i < EROS_MAX_PARTITIONS && eros_cache_limit_kb > 0 &&
					eros_cache_bytes(db) > (uint64) eros_cache_limit_kb * 1024;
		 i++)
	{
		bool isnull;

		eros_process_begin();
		SPI_execute("SELECT eros.evict()", false, 0);
		if (SPI_processed == 1)
			eros_count_on_commit(&db->evicted,
								 DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
															 SPI_tuptable->tupdesc, 1, &isnull)));
		eros_process_commit();
	}
	*next = Min(*next, Min(due, purge_again));
}

/* Adds the CPU time and the WAL that this process has used since the last time. */
static void
account_cpu(void)
{
	static uint64 wal_bytes = 0;

	pg_atomic_fetch_add_u64(&db->scheduler_cpu_ns, eros_governor_charge_upkeep());
	pg_atomic_fetch_add_u64(&db->scheduler_wal_bytes, pgWalUsage.wal_bytes - wal_bytes);
	wal_bytes = pgWalUsage.wal_bytes;
}

/*
 * Sweeps until nothing is left to do now, or for a while: then the rest of the
 * round has its turn.  Returns whether there is more.
 */
static bool
sweep_all(TimestampTz now)
{
	uint64 began_ns = eros_monotonic_ns();
	bool more = true;

	while (more && eros_monotonic_ns() - began_ns < LONGEST_SWEEP_NS)
	{
		uint64 crossings = 0;
		uint64 start_ns = eros_monotonic_ns();

		CHECK_FOR_INTERRUPTS();
		eros_process_begin();
		more = eros_sweep_step(sweep, now, SWEEP_BATCH, &crossings);
		eros_process_commit();
		if (crossings > 0)
			eros_latency_note(db, EROS_OP_SWEEP, eros_monotonic_ns() - start_ns);
		account_cpu();
	}
	return more;
}

/* Finds the work of an owner, or begins to count it. */
static OwnerWork *
work_of(OwnerWork *owners, int *nowners, Oid owner)
{
	for (int i = 0; i < *nowners; i++)
	{
		if (owners[i].owner == owner)
			return &owners[i];
	}
	owners[*nowners].owner = owner;
	return &owners[(*nowners)++];
}

/* Counts who works for whom at the moment. */
static void
count_workers(OwnerWork *owners, int nowners)
{
	LWLockAcquire(eros_shared->lock, LW_SHARED);
	for (int i = 0; i < eros_max_workers; i++)
	{
		for (int o = 0; o < nowners && eros_workers_array[i].dboid == db->dboid; o++)
		{
			if (eros_workers_array[i].owner != owners[o].owner)
				continue;
			owners[o].workers++;
			owners[o].held += eros_workers_array[i].nkeys;
		}
	}
	LWLockRelease(eros_shared->lock);
}

/* Starts workers when jobs are due; tells when the next one is. */
static void
serve_queue(TimestampTz *next)
{
	ErosConfig *config = eros_config();
	OwnerWork *owners =
		MemoryContextAllocZero(round_context, sizeof(OwnerWork) * Max(config->nhandlers, 1));
	TimestampTz now = eros_now();
	uint64 now_ns = eros_monotonic_ns();
	TimestampTz next_due = DT_NOEND;
	int nowners = 0;

	reap_workers();
	pg_atomic_write_u32(&db->owners_waiting, 0);
	if (pg_atomic_read_u32(&db->paused) != 0)
	{
		note_nothing_due();
		return;
	}
	eros_process_begin();
	for (int h = 0; h < config->nhandlers; h++)
	{
		ErosHandler *handler = &config->handlers[h];
		OwnerWork *work = work_of(owners, &nowners, handler->owner);
		uint64 wait_ns = eros_handler_waits_until_ns(handler);
		TimestampTz due;

		if (!handler->enabled)
			continue;
		due = eros_queue_next_due(handler);
		if (due <= now && wait_ns > now_ns)
			due = now + (int64) ((wait_ns - now_ns) / 1000) + 1; /* it is set aside until then */
		else if (due <= now)
		{
			work->due = true;
			work->pending += (int64) pg_atomic_read_u64(&handler->stats->pending);
			due = now + USECS_PER_SEC;
		}
		if (!work->due)
			next_due = Min(next_due, due);
		*next = Min(*next, due);
	}
	eros_process_commit();
	count_workers(owners, nowners);
	note_need_for_jobs(owners, nowners, next_due, now);
	if (choose_owner(owners, nowners) == NULL)
		return;
	pg_atomic_fetch_add_u32(&db->queue_generation, 1);
	provide_workers(owners, nowners);
}

/* Sees to what a change of phases and handlers leaves behind. */
static void
tidy_up_config(void)
{
	int32 *dropped = MemoryContextAlloc(round_context, sizeof(int32) * eros_max_handlers);
	int ndropped = eros_dropped_handlers(eros_config(), dropped);

	eros_process_begin();
	for (int i = 0; i < ndropped; i++)
		eros_queue_delete_handler(dropped[i]);
	eros_sweep_rehome();
	eros_process_commit();
	for (int i = 0; i < ndropped; i++)
		eros_forget_handler(dropped[i]);
}

/*
 * Sees to a clock that was set back since the last round: what was to be done
 * at a time that is now in the future is looked at, or done, at once.
 */
static void
follow_clock(TimestampTz now)
{
	static TimestampTz last = DT_NOBEGIN;
	static bool jobs_follow = true;

	if (now < last)
	{
		jobs_follow = false;
		eros_process_begin();
		eros_sweep_set_back(sweep, now);
		eros_process_commit();
	}
	last = now;
	if (!jobs_follow)
	{
		eros_process_begin();
		jobs_follow = eros_queue_set_back(now);
		eros_process_commit();
	}
}

/* One round; returns how long to sleep, in ms, and at least to. */
static long
run_round(long *at_least_ms)
{
	static uint64 generation = 0;
	TimestampTz now = eros_now();
	TimestampTz next = DT_NOEND;
	int64 interval_us;
	int64 longest_us;
	bool sweeping;
	bool backfilling;

	exit_if_dropped();
	eros_process_begin();
	eros_config_reload();
	eros_process_commit();
	follow_clock(now);
	if (eros_config()->generation != generation)
	{
		uint64 read = eros_config()->generation;

		eros_sweep_config_changed(sweep);
		tidy_up_config();
		generation = read; /* after an error it is done again */
	}
	sweeping = sweep_all(now);
	eros_process_begin();
	interval_us = eros_sweep_interval_us();
	longest_us =
		eros_config()->nphases > 0 ? eros_config()->phases[0].idle_after_us : USECS_PER_MINUTE;
	eros_process_commit();
	maintain_if_due(now, &next);
	needed_at = eros_sweep_next_without_us(sweep, now);
	if (needed_at != DT_NOEND || eros_cache_bytes(db) > 0)
		needed_at = Min(needed_at, next); /* there is something to maintain */
	serve_queue(&next);

	/* after the queue: a failure must not keep workers from starting */
	eros_process_begin();
	backfilling = eros_sweep_backfill(sweep, now);
	eros_process_commit();
	if (eros_sweep_refresh(sweep, now))
	{
		needed_at = Min(needed_at, eros_sweep_next_without_us(sweep, now));
		serve_queue(&next);
	}
	eros_history_sample(eros_now(), &next);

	next = Min(next, eros_sweep_next(sweep, now));
	now = eros_now();
	if (sweeping)
	{
		interval_us = 0; /* the next round goes on at once */
		next = needed_at = now;
	}
	longest_us = Min(longest_us, USECS_PER_HOUR);
	if (backfilling)
	{
		interval_us = longest_us = 100000;
		needed_at = Min(needed_at, now + interval_us);
	}
	pg_atomic_write_u64(&db->first_idle_us, (uint64) longest_us);
	pg_atomic_write_u32(&db->failed_rounds, 0);
	if (next == DT_NOEND || next > now + longest_us)
		next = now + longest_us;
	*at_least_ms = (long) (interval_us / 1000) + 1;
	return (long) (Max(next - now, interval_us) / 1000) + 1;
}

/*
 * Leaves when the launcher asks for it, since other databases wait for a slot:
 * with nothing to do for a while, or at the end of the turn.
 */
static void
leave_if_asked(bool rounds)
{
	uint32 leave = pg_atomic_read_u32(&db->leave);
	TimestampTz now = eros_now();

	if (leave == EROS_LEAVE_NOT ||
		(leave == EROS_LEAVE_WHEN_IDLE && rounds && needed_at < now + IDLE_TURN_US) ||
		(rounds && MyLatch->is_set))
		return;
	if (sweep != NULL)
	{
		eros_process_begin();
		eros_sweep_keep_progress(sweep);
		eros_process_commit();
	}
	pg_atomic_write_u64(&db->needed_at, (uint64) (rounds ? needed_at : DT_NOBEGIN));
	pg_atomic_write_u32(&db->away, sweep != NULL);
	pg_memory_barrier();

	/* whatever came before it could be seen that we leave */
	if (sweep != NULL && eros_sweep_sees_returns(sweep))
		eros_need_scheduler_at(db, now + (int64) pg_atomic_read_u64(&db->first_idle_us));
	if (MyLatch->is_set)
		eros_need_scheduler_at(db, DT_NOBEGIN);
	proc_exit(0);
}

/* Takes the slot of the database; ends the process when another scheduler has it. */
static void
take_slot(Datum arg)
{
	Oid dboid;

	db = &eros_databases[DatumGetInt32(arg)];
	memcpy(&dboid, MyBgworkerEntry->bgw_extra, sizeof(Oid));
	LWLockAcquire(eros_shared->lock, LW_EXCLUSIVE);
	if (db->dboid != dboid || db->held_by != 0 || db->scheduler_pid != 0)
	{
		LWLockRelease(eros_shared->lock);
		proc_exit(0);
	}
	db->scheduler_pid = MyProcPid;
	db->scheduler_latch = MyLatch;
	pg_atomic_write_u64(&db->scheduler_since, (uint64) eros_now());
	LWLockRelease(eros_shared->lock);
	before_shmem_exit(scheduler_exit, (Datum) 0);
	eros_process_init(dboid, "eros scheduler");
	eros_config_by_hand();

	/* a session that keeps a row locked does not keep the others' sweep */
	SetConfigOption("lock_timeout", "5s", PGC_SUSET, PGC_S_OVERRIDE);
}

/* Ends what an error has interrupted, notes it, and waits before the next round. */
static void
recover_from_error(void)
{
	error_context_stack = NULL;
	HOLD_INTERRUPTS();
	pg_atomic_write_u32(&db->failed_sqlstate, (uint32) geterrcode());
	pg_atomic_fetch_add_u32(&db->failed_rounds, 1);
	LWLockReleaseAll();
	eros_error_report(EROS_PROCESS_SCHEDULER);
	AbortCurrentTransaction();
	MemoryContextSwitchTo(round_context);
	FlushErrorState();
	RESUME_INTERRUPTS();
	if (sweep != NULL)
		eros_sweep_restart(sweep);
	account_cpu();
	if (pg_atomic_read_u32(&db->leave) != EROS_LEAVE_NOT)
		proc_exit(1); /* it would fail again: others may have the slot */
	eros_process_wait(EROS_WAIT_MAIN, 10000);
}

/* Sleeps until the next round: somebody may wake us, but not have us run all the time. */
static void
rest(long sleep_ms, long at_least_ms, uint64 round_ns)
{
	/* whoever returns may cut a long sleep short */
	if (!eros_process_wait(EROS_WAIT_MAIN, Min(sleep_ms, at_least_ms)) && sleep_ms > at_least_ms &&
		sweep != NULL)
	{
		pg_atomic_write_u32(&db->dozing, 1);
		pg_memory_barrier();
		if (!eros_sweep_sees_returns(sweep))
			eros_process_wait(EROS_WAIT_MAIN, sleep_ms - at_least_ms);
		pg_atomic_write_u32(&db->dozing, 0);
	}

	/* a full map asks for room again and again; SIGTERM ends this sleep */
	if (pg_atomic_read_u32(&db->wants_room) != 0)
		pg_usleep((long) (Min(round_ns * ROOM_REST, UINT64CONST(1000000000)) / 1000));
}

/* The scheduler's process. */
void
eros_scheduler_main(Datum arg)
{
	sigjmp_buf local_sigjmp_buf;
	volatile bool initialized = false;

	take_slot(arg);
	exit_if_dropped();
	LWLockAcquire(eros_shared->lock, LW_EXCLUSIVE);
	db->state = EROS_DB_RUNNING;
	db->scheduler_up = true;
	LWLockRelease(eros_shared->lock);
	if (pg_atomic_read_u64(&db->served_since) == 0)
		pg_atomic_write_u64(&db->served_since, (uint64) eros_now());
	pg_atomic_fetch_add_u64(&db->turns, 1);
	pg_atomic_write_u32(&db->failed_starts, 0);
	eros_launcher_wake(); /* the next database can be looked at */

	handles = MemoryContextAllocZero(TopMemoryContext,
									 sizeof(BackgroundWorkerHandle *) * eros_max_workers);
	round_context =
		AllocSetContextCreate(TopMemoryContext, "eros scheduler", ALLOCSET_DEFAULT_SIZES);

	/* an error ends the round, not the scheduler */
	if (sigsetjmp(local_sigjmp_buf, 1) != 0)
		recover_from_error();
	PG_exception_stack = &local_sigjmp_buf;

	for (;;)
	{
		long sleep_ms = 60000;
		long at_least_ms = 1000;
		uint64 round_ns = eros_process_cpu_ns();

		MemoryContextSwitchTo(round_context);
		MemoryContextReset(round_context);
		CHECK_FOR_INTERRUPTS();
		if (!eros_enabled)
			exit_if_dropped();
		else if (is_parked())
		{
			exit_if_dropped();
			sleep_ms = PARKED_MS;
		}
		else
		{
			if (!initialized)
				initialize();
			initialized = true;
			pgstat_report_activity(STATE_RUNNING, "sweeping");
			sleep_ms = run_round(&at_least_ms);
		}
		account_cpu();
		round_ns = eros_process_cpu_ns() - round_ns;
		pgstat_report_stat(false);
		pgstat_report_activity(STATE_IDLE, NULL);
		leave_if_asked(eros_enabled && initialized);
		rest(sleep_ms, at_least_ms, round_ns);
	}
}
