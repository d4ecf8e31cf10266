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
 * next batch.  What was halted is never committed; what is being committed was
 * finished before the user was back.
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
#include "libpq/pqsignal.h"
#include "miscadmin.h"

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

/* Tells whether the batch that this process is at has been halted. */
bool
eros_halt_is_pending(ErosWorker *worker)
{
	return pg_atomic_read_u64(&worker->batch_word) ==
		   EROS_BATCH_WORD(my_generation, EROS_BATCH_HALTED);
}

/*
 * Publishes whom the worker holds from now on; keys must be sorted.
 *
 * The caller must drop those who are active after this, not before.
 */
void
eros_halt_publish(ErosWorker *worker, const ErosKey *keys, int nkeys)
{
	Assert(nkeys <= EROS_MAX_BATCH);
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
	worker->nkeys = 0;
}

/* Halts the worker that holds this user, if one does. */
void
eros_halt_user(Oid dboid, const ErosKey *key)
{
	for (int i = 0; i < eros_max_workers; i++)
	{
		ErosWorker *worker = &eros_workers_array[i];
		uint64 word;
		int nkeys;
		pid_t pid;

		if (worker->dboid != dboid)
			continue;
		word = pg_atomic_read_u64(&worker->batch_word);
		if (EROS_BATCH_STATE(word) != EROS_BATCH_RUNNING)
			continue;
		pg_read_barrier();
		nkeys = Min(worker->nkeys, EROS_MAX_BATCH);
		pid = worker->pid;

		/* if the worker moves on meanwhile, the swap below fails */
		if (bsearch(key, worker->keys, nkeys, sizeof(ErosKey), eros_key_qsort_compare) == NULL)
			continue;
		if (pg_atomic_compare_exchange_u64(
				&worker->batch_word, &word,
				EROS_BATCH_WORD(EROS_BATCH_GENERATION(word), EROS_BATCH_HALTED)) &&
			pid != 0)
			kill(pid, SIGUSR2);
	}
}
