/*-------------------------------------------------------------------------
 *
 * halt.c
 *		A returning user interrupts the worker that holds him.
 *
 * Each worker publishes in its slot whom it holds, and one word with the
 * batch's generation and state:
 *
 *		NONE -> RUNNING -> COMMITTING -> NONE (next generation)
 *		             \-> HALTED ------/
 *
 * The worker goes from RUNNING to COMMITTING, a touch from RUNNING to HALTED,
 * both by compare-and-swap on the word: whoever is first has won, and since
 * the generation is part of the word, a touch that comes late does not hit the
 * next batch.  The reason for the halt is part of it, too.  What was halted is
 * never committed; what is being committed was finished before the user was
 * back.
 *
 * Touch against claim: the worker publishes first and then drops those of its
 * users who are active; the touch makes the user active first and then looks
 * who holds him.  With a full barrier in between on both sides, one of them
 * sees the other.
 *
 * The signal is SIGUSR2, which background workers do not use otherwise.  The
 * handler looks at the word again and, if this very batch was halted, asks for
 * a query cancel at the next safe point.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "eros.h"
#include "fmgr.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"

PG_FUNCTION_INFO_V1(eros_pause);
PG_FUNCTION_INFO_V1(eros_resume);

/* A halt that takes longer is slow. */
#define SLOW_HALT_NS UINT64CONST(500000000)

/* The worker of this process and the batch it is at. */
static ErosWorker *my_worker = NULL;
static volatile uint64 my_generation = 0;

/* Turns a touch's signal into a query cancel, if it is meant for this batch. */
static void
halt_signal(SIGNAL_ARGS)
{
	int save_errno = errno;

	if (my_worker != NULL && eros_halt_is_pending(my_worker))
	{
		InterruptPending = true;
		QueryCancelPending = true;
	}
	SetLatch(MyLatch);
	errno = save_errno;
}

/* Makes this process the worker that touches interrupt. */
void
eros_halt_install(ErosWorker *worker)
{
	my_worker = worker;
	my_generation = EROS_BATCH_GENERATION(pg_atomic_read_u64(&worker->batch_word));
	pqsignal(SIGUSR2, halt_signal);
}

/* Tells whether a halt was asked for longer ago than eros.halt_timeout. */
bool
eros_halt_is_overdue(ErosWorker *worker, uint64 now_ns)
{
	uint64 since;

	if (!eros_halt_is_pending(worker))
		return false;
	pg_read_barrier(); /* not the time of an earlier halt */
	since = pg_atomic_read_u64(&worker->halted_at_ns);
	return now_ns > since && now_ns - since > eros_halt_timeout_ms * UINT64CONST(1000000);
}

/* Tells whether the batch that this process is at has been halted. */
bool
eros_halt_is_pending(ErosWorker *worker)
{
	uint64 word = pg_atomic_read_u64(&worker->batch_word);

	return EROS_BATCH_STATE(word) == EROS_BATCH_HALTED &&
		   EROS_BATCH_GENERATION(word) == my_generation;
}

/*
 * Publishes whom the worker holds from now on; keys must be sorted.
 *
 * The caller must drop those who are active after this, not before.
 */
void
eros_halt_publish(ErosWorker *worker, const ErosKey *keys, int nkeys)
{
	if (nkeys > EROS_MAX_BATCH)
		elog(ERROR, "a batch of %d users is too large", nkeys);
	worker->nkeys = nkeys;
	memcpy(worker->keys, keys, sizeof(ErosKey) * nkeys);
	my_generation++;
	pg_write_barrier();
	pg_atomic_write_u64(&worker->batch_word, EROS_BATCH_WORD(my_generation, EROS_BATCH_RUNNING));
	pg_memory_barrier();
}

/* Claims the right to commit the batch, or raises the halt's error. */
void
eros_halt_before_commit(ErosWorker *worker)
{
	uint64 running = EROS_BATCH_WORD(my_generation, EROS_BATCH_RUNNING);

	if (!pg_atomic_compare_exchange_u64(&worker->batch_word, &running,
										EROS_BATCH_WORD(my_generation, EROS_BATCH_COMMITTING)))
		ereport(ERROR, (errcode(ERRCODE_QUERY_CANCELED),
						errmsg("batch halted: a user of it has returned")));
}

/* Holds nobody any more. */
void
eros_halt_withdraw(ErosWorker *worker)
{
	my_generation++;
	pg_atomic_write_u64(&worker->batch_word, EROS_BATCH_WORD(my_generation, EROS_BATCH_NONE));
	pg_memory_barrier();
	worker->nkeys = 0;
}

/*
 * Halts a batch, given by the word that was read, for a reason; returns
 * whether it was still running.
 *
 * The time is written before the swap, so that whoever sees the halt sees its
 * time; it only ever grows, so that one who then loses does no harm.
 */
static bool
halt_batch(ErosWorker *worker, uint64 word, ErosHaltReason reason)
{
	pid_t pid = worker->pid;
	uint64 now = eros_monotonic_ns();
	uint64 at = pg_atomic_read_u64(&worker->halted_at_ns);

	while (at < now && !pg_atomic_compare_exchange_u64(&worker->halted_at_ns, &at, now))
		;
	if (!pg_atomic_compare_exchange_u64(&worker->batch_word, &word,
										EROS_BATCH_HALTED_FOR(EROS_BATCH_GENERATION(word), reason)))
		return false;
	if (pid != 0)
		kill(pid, SIGUSR2);
	return true;
}

/* Halts the worker that holds this user, if one does. */
void
eros_halt_user(Oid dboid, const ErosKey *key)
{
	for (int i = 0; i < eros_max_workers; i++)
	{
		ErosWorker *worker = &eros_workers_array[i];
		uint64 word;

		if (worker->dboid != dboid)
			continue;
		word = pg_atomic_read_u64(&worker->batch_word);
		if (EROS_BATCH_STATE(word) != EROS_BATCH_RUNNING)
			continue;
		pg_read_barrier();

		/* if the worker moves on meanwhile, the swap fails */
		if (bsearch(key, worker->keys, Min(worker->nkeys, EROS_MAX_BATCH), sizeof(ErosKey),
					eros_key_qsort_compare) != NULL)
			halt_batch(worker, word, EROS_HALT_RETURN);
	}
}

/* Halts whatever runs in a database. */
void
eros_halt_database(Oid dboid)
{
	for (int i = 0; i < eros_max_workers; i++)
	{
		ErosWorker *worker = &eros_workers_array[i];
		uint64 word = pg_atomic_read_u64(&worker->batch_word);

		if (worker->dboid == dboid && EROS_BATCH_STATE(word) == EROS_BATCH_RUNNING)
			halt_batch(worker, word, EROS_HALT_PAUSE);
	}
}

/* Halts this process's own batch. */
void
eros_halt_myself(ErosWorker *worker, ErosHaltReason reason)
{
	uint64 word = EROS_BATCH_WORD(my_generation, EROS_BATCH_RUNNING);

	if (halt_batch(worker, word, reason))
	{
		InterruptPending = true;
		QueryCancelPending = true;
	}
}

/* Puts a halt among the last ones. */
static void
note_halt(ErosDatabase *db, ErosWorker *worker, const ErosHandler *handler, ErosHaltReason reason,
		  uint64 latency_ns)
{
	ErosRecentHalt halt = {
		.at = GetCurrentTimestamp(),
		.reason = reason,
		.handler_id = handler->handler_id,
		.phase = (int16) handler->phase,
		.worker = (int16) worker->number,
		.nusers = worker->nkeys,
		.latency_ns = latency_ns,
	};

	LWLockAcquire(eros_shared->lock, LW_EXCLUSIVE);
	db->recent_halts[db->nhalts_noted++ % EROS_RECENT_HALTS] = halt;
	LWLockRelease(eros_shared->lock);
}

/* Counts a halted batch of a handler: its transaction has been rolled back. */
void
eros_halt_finished(ErosWorker *worker, const ErosHandler *handler)
{
	ErosDatabase *db = eros_my_database();
	ErosHaltReason reason = EROS_BATCH_REASON(pg_atomic_read_u64(&worker->batch_word));
	uint64 since;
	uint64 now;
	uint64 latency;

	pg_read_barrier();
	since = pg_atomic_read_u64(&worker->halted_at_ns);
	now = eros_monotonic_ns();
	latency = now > since ? now - since : 0; /* one who came too late may have set it anew */

	if (db == NULL)
		return;
	note_halt(db, worker, handler, reason, latency);
	pg_atomic_fetch_add_u64(&db->halts, 1);
	if (reason == EROS_HALT_WAITER)
		pg_atomic_fetch_add_u64(&db->gave_way, 1);
	if (reason != EROS_HALT_RETURN)
		return;
	eros_latency_count(&db->halt_latency, latency);
	if (latency > SLOW_HALT_NS)
		pg_atomic_fetch_add_u64(&db->halts_slow, 1);
}

/* Sets whether the work on handlers in this database is paused. */
static void
set_paused(bool paused)
{
	ErosDatabase *db = eros_require_database();

	pg_atomic_write_u32(&db->paused, paused);
	pg_memory_barrier();
	if (paused)
		eros_halt_database(MyDatabaseId);
	eros_set_latch_of_scheduler(db);
}

/* pause() returns void */
Datum
eros_pause(PG_FUNCTION_ARGS)
{
	set_paused(true);
	PG_RETURN_VOID();
}

/* resume() returns void */
Datum
eros_resume(PG_FUNCTION_ARGS)
{
	set_paused(false);
	PG_RETURN_VOID();
}
