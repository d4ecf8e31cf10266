/*-------------------------------------------------------------------------
 *
 * governor.c
 *		The one place that says who may use how much CPU.
 *
 * A share is kept by a token bucket in the form of the generic cell rate
 * algorithm (ITU-T I.371): a bucket is one word, the time at which its holder
 * may run again.  c seconds of CPU at a share s push it c / s into the future.
 * Who comes later than that has a small credit for it, which makes up for
 * sleeping too long, but an idle hour does not buy a burst; and what a pause
 * did not pay stays in the word as debt.
 *
 * Buckets: one per worker and phase, for the phase's share of a core; one for
 * the server, for the hard cap, which all of EROS's processes are charged to.
 *
 * CPU time is what the kernel charges to the process.  Each process remembers
 * up to where it has been charged, so that nothing is left out, whatever it
 * was used for, and nothing is charged twice.
 *
 * The foreground goes first: a worker looks how long it had to wait for a CPU
 * (the kernel's schedstat).  Where the machine is contended it lowers its grant
 * at once, and raises it again slowly when it is not.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "eros.h"
#include "miscadmin.h"

/* The longest debt. */
#define MAX_DEBT_NS UINT64CONST(600000000000)

/*
 * The credit for coming late: what a timer may oversleep, but no more than pays
 * for a few milliseconds of CPU, which at a large share is a short time.
 */
#define CREDIT_NS UINT64CONST(10000000)
#define CREDIT_CPU_NS UINT64CONST(5000000)

/* The weight of the newest batch in the moving average of the cost. */
#define COST_WEIGHT 0.3

/*
 * The grant, by the part of its time that a worker waited for a CPU: above the
 * upper bound it is cut, below the lower one it grows again, and fast where
 * there is next to no wait.  The time judged is the worker's own, running and
 * waiting, so that a worker with a small share is not judged by one unlucky
 * wake-up.
 */
#define CONTENDED 0.15
#define UNCONTENDED 0.08
#define IDLE 0.03
#define GRANT_CUT 0.75
#define GRANT_GROWTH 1.1
#define GRANT_FAST_GROWTH 1.5
#define MIN_GRANT 0.02
#define JUDGED_NS UINT64CONST(50000000)

/* Up to where this process has been charged. */
static uint64 charged_cpu_ns = 0;
static uint64 charged_at_ns = 0;

/* This process's part of the shares, and what it was judged by. */
static double grant = 1.0;

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

/*
 * The bucket of a worker and a phase.  It stays when the worker ends and
 * another takes its number: ending is no way out of debt.
 */
static pg_atomic_uint64 *
bucket_of(ErosDatabase *db, ErosWorker *worker, int phase)
{
	return &db->allowed_at_ns[worker->number - 1][phase];
}

/* Tells how long the worker has to wait before it may use CPU for the phase. */
uint64
eros_governor_wait_ns(ErosWorker *worker, int phase)
{
	ErosDatabase *db = eros_my_database();
	uint64 now = eros_monotonic_ns();
	uint64 allowed = pg_atomic_read_u64(&eros_shared->cap_allowed_at_ns);

	if (db != NULL)
		allowed = Max(allowed, pg_atomic_read_u64(bucket_of(db, worker, phase)));

	return allowed > now ? allowed - now : 0;
}

/* The CPU time of this process that has not been charged yet. */
uint64
eros_governor_uncharged_ns(void)
{
	return eros_process_cpu_ns() - charged_cpu_ns;
}

/*
 * Pushes a bucket into the future: cpu_ns have been used since a time, at this
 * share.
 */
static void
charge_bucket(pg_atomic_uint64 *bucket, uint64 now, uint64 since, uint64 cpu_ns, double share)
{
	uint64 cost = (uint64) Min((double) cpu_ns / share, (double) MAX_DEBT_NS);
	uint64 start = Min(since, now - Min(cpu_ns, now));
	uint64 old = pg_atomic_read_u64(bucket);
	uint64 new;

	start -= (uint64) Min((double) CREDIT_NS, CREDIT_CPU_NS * Max(1.0 / share - 1.0, 0.0));
	do
	{
		new = Min(Max(old, start) + cost, now + MAX_DEBT_NS);
	} while (!pg_atomic_compare_exchange_u64(bucket, &old, new));
}

/* Charges the hard cap. */
static void
charge_cap(uint64 now, uint64 cpu_ns)
{
	charge_bucket(&eros_shared->cap_allowed_at_ns, now, now, cpu_ns,
				  eros_cpu_cap / 100.0 * eros_governor_cores());
}

/*
 * Reads how long this process has run and how long it has waited for a CPU;
 * false where the kernel does not tell.
 */
static bool
read_schedstat(uint64 *run_ns, uint64 *wait_ns)
{
	static int fd = -1;
	char line[128];
	ssize_t length;

	if (fd == -1)
		fd = open("/proc/self/schedstat", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
	{
		fd = -2;
		return false;
	}
	length = pread(fd, line, sizeof(line) - 1, 0);
	if (length <= 0)
		return false;
	line[length] = '\0';
	return sscanf(line, UINT64_FORMAT " " UINT64_FORMAT, run_ns, wait_ns) == 2;
}

/* Judges how contended the machine is, and adapts the grant. */
static void
feel_contention(ErosWorker *worker)
{
	static uint64 last_run = 0;
	static uint64 last_wait = 0;
	uint64 run;
	uint64 wait;
	double waited;

	if (!eros_foreground_first)
		grant = 1.0;
	else if (read_schedstat(&run, &wait) && (run - last_run) + (wait - last_wait) >= JUDGED_NS)
	{
		waited = (double) (wait - last_wait) / ((run - last_run) + (wait - last_wait));
		if (waited > CONTENDED)
			grant = Max(grant * GRANT_CUT, MIN_GRANT);
		else if (waited < UNCONTENDED)
			grant = Min(grant * (waited < IDLE ? GRANT_FAST_GROWTH : GRANT_GROWTH), 1.0);
		last_run = run;
		last_wait = wait;
		pg_atomic_write_u32(&worker->waited_permille, (uint32) (waited * 1000));
	}
	pg_atomic_write_u32(&worker->grant_permille, (uint32) (grant * 1000));
}

/*
 * Counts what a phase was granted: its share of the time since it was charged
 * last; of this work alone, if it had nothing to do in between.
 */
static uint64
granted_ns(const ErosPhase *phase, uint64 now, uint64 cpu_ns, uint64 allowed, double share)
{
	static uint64 last_charge[EROS_MAX_PHASES + 1];
	uint64 last = last_charge[phase->phase];
	uint64 elapsed = now - last;

	last_charge[phase->phase] = now;
	if (last == 0 || now > allowed + cpu_ns + UINT64CONST(100000000))
		elapsed = (uint64) (cpu_ns / share);
	return (uint64) (elapsed * share);
}

/* Scales what a worker owes, or has credit for, when the share of a phase has changed. */
void
eros_governor_rescale(ErosWorker *worker, int phase, double old_percent, double new_percent)
{
	ErosDatabase *db = eros_my_database();
	uint64 now = eros_monotonic_ns();
	pg_atomic_uint64 *bucket;
	uint64 allowed;

	if (db == NULL)
		return;
	bucket = bucket_of(db, worker, phase);
	allowed = pg_atomic_read_u64(bucket);
	if (allowed > now)
		pg_atomic_write_u64(bucket, now + (uint64) Min((allowed - now) * old_percent / new_percent,
													   (double) MAX_DEBT_NS));
}

/* Begins work: the time that pays for it is counted from here. */
void
eros_governor_begin(void)
{
	charged_at_ns = eros_monotonic_ns();
}

/* Charges what this worker has used since the last time to a phase and to the hard cap. */
void
eros_governor_charge(ErosWorker *worker, const ErosPhase *phase)
{
	ErosDatabase *db = eros_my_database();
	uint64 now = eros_monotonic_ns();
	uint64 cpu_ns = eros_governor_uncharged_ns();
	double share = Min(phase->cpu_percent, eros_cpu_cap) / 100.0 * grant;
	uint64 allowed = 0;

	if (db != NULL)
	{
		pg_atomic_uint64 *bucket = bucket_of(db, worker, phase->phase);

		allowed = pg_atomic_read_u64(bucket);
		charge_bucket(bucket, now, charged_at_ns, cpu_ns, share);
		pg_atomic_fetch_add_u64(&db->phases[phase->phase].cpu_used_ns, cpu_ns);
		pg_atomic_fetch_add_u64(&db->phases[phase->phase].cpu_granted_ns,
								granted_ns(phase, now, cpu_ns, allowed, share));
	}
	charge_cap(now, cpu_ns);
	charged_cpu_ns += cpu_ns;
	charged_at_ns = now;
	feel_contention(worker);
	pg_atomic_fetch_add_u64(&worker->cpu_used_ns, cpu_ns);
}

/* Charges what this process, which is no worker, has used; returns it. */
uint64
eros_governor_charge_upkeep(void)
{
	uint64 cpu_ns = eros_governor_uncharged_ns();

	charge_cap(eros_monotonic_ns(), cpu_ns);
	charged_cpu_ns += cpu_ns;
	return cpu_ns;
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

/* Counts a pause that paid for a phase. */
void
eros_governor_count_throttled(const ErosPhase *phase, uint64 ns)
{
	ErosDatabase *db = eros_my_database();

	if (db != NULL)
		pg_atomic_fetch_add_u64(&db->phases[phase->phase].throttled_ns, ns);
}
