/*-------------------------------------------------------------------------
 *
 * governor.c
 *		The one place that says who may use how much CPU.
 *
 * A share is kept by a token bucket in the form of the generic cell rate
 * algorithm (ITU-T I.371): a bucket is one word, the time at which its holder
 * may run again.  Work of c seconds of CPU at a share s pushes it c / s into
 * the future, counted from the start of the work; who comes later than that
 * has no credit for it, so an idle hour does not buy a burst.
 *
 * Buckets: one per worker and phase, for the phase's share of a core; one for
 * the server, for the hard cap over all workers.
 *
 * The batch is sized from the measured cost per user, so that it takes about
 * one quantum.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "eros.h"
#include "miscadmin.h"

/* The longest pause that one batch can cause. */
#define MAX_DEBT_NS UINT64CONST(600000000000)

/* The weight of the newest batch in the moving average of the cost. */
#define COST_WEIGHT 0.3

/* The cores that EROS may count on. */
int
eros_governor_cores(void)
{
	long online;

	if (eros_cpu_cores > 0)
		return eros_cpu_cores;
	online = sysconf(_SC_NPROCESSORS_ONLN);
	return online > 0 ? (int) online : 1;
}

/* Tells how long the worker has to wait before it may run a batch of the phase. */
uint64
eros_governor_wait_ns(ErosWorker *worker, int phase)
{
	uint64 now = eros_monotonic_ns();
	uint64 allowed = Max(pg_atomic_read_u64(&worker->allowed_at_ns[phase]),
						 pg_atomic_read_u64(&eros_shared->cap_allowed_at_ns));

	return allowed > now ? allowed - now : 0;
}

/* Pushes a bucket into the future: cpu_ns have been used at this share. */
static void
charge_bucket(pg_atomic_uint64 *bucket, uint64 now, uint64 cpu_ns, double share)
{
	uint64 cost = (uint64) Min((double) cpu_ns / share, (double) MAX_DEBT_NS);
	uint64 start = now - Min(cpu_ns, now);
	uint64 old = pg_atomic_read_u64(bucket);
	uint64 new;

	do
	{
		new = Min(Max(old, start) + cost, now + MAX_DEBT_NS);
	} while (!pg_atomic_compare_exchange_u64(bucket, &old, new));
}

/*
 * Counts what a phase was granted: its share of the time since its last batch
 * ended, if it has waited for nothing but that; else of this batch alone.
 */
static uint64
granted_ns(const ErosPhase *phase, uint64 now, uint64 cpu_ns, uint64 allowed, double share)
{
	static uint64 last_charge[EROS_MAX_PHASES + 1];
	uint64 last = last_charge[phase->phase];
	uint64 elapsed = now - last;

	last_charge[phase->phase] = now;
	if (last == 0 || now > allowed + cpu_ns + UINT64CONST(100000000))
		elapsed = (uint64) (cpu_ns / share); /* it had nothing to do for a while */
	return (uint64) (elapsed * share);
}

/* Charges the CPU time of a batch to its phase and to the hard cap. */
void
eros_governor_charge(ErosWorker *worker, const ErosPhase *phase, uint64 cpu_ns)
{
	ErosDatabase *db = eros_my_database();
	uint64 now = eros_monotonic_ns();
	double share = Min(phase->cpu_percent, eros_cpu_cap) / 100.0;
	uint64 allowed = pg_atomic_read_u64(&worker->allowed_at_ns[phase->phase]);

	charge_bucket(&worker->allowed_at_ns[phase->phase], now, cpu_ns, share);
	charge_bucket(&eros_shared->cap_allowed_at_ns, now, cpu_ns,
				  eros_cpu_cap / 100.0 * eros_governor_cores());
	pg_atomic_fetch_add_u64(&worker->cpu_used_ns, cpu_ns);
	if (db != NULL)
	{
		pg_atomic_fetch_add_u64(&db->phases[phase->phase].cpu_used_ns, cpu_ns);
		pg_atomic_fetch_add_u64(&db->phases[phase->phase].cpu_granted_ns,
								granted_ns(phase, now, cpu_ns, allowed, share));
	}
}

/* The users of the next batch: about one quantum's worth. */
int
eros_governor_batch_size(const ErosPhase *phase, const ErosHandler *handler)
{
	uint64 cost_ns = pg_atomic_read_u64(&handler->stats->cost_ns);
	uint64 quantum_ns = (uint64) eros_quantum_ms * 1000000;

	/* nothing is known: feel one's way */
	if (cost_ns == 0)
		return Min(phase->batch_size, 4);
	return (int) Max(1, Min((uint64) phase->batch_size, quantum_ns / cost_ns));
}

/* Learns the cost per user from a batch. */
void
eros_governor_learn(const ErosHandler *handler, int nusers, uint64 cpu_ns)
{
	uint64 old = pg_atomic_read_u64(&handler->stats->cost_ns);
	double cost = (double) cpu_ns / Max(nusers, 1);

	if (old != 0)
		cost = old + COST_WEIGHT * (cost - old);
	pg_atomic_write_u64(&handler->stats->cost_ns, (uint64) Max(cost, 1));
}
