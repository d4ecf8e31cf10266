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
 * at once, and raises it again slowly when it is not.  While CPUs are idle
 * nobody is harmed, whatever it waited for.
 *
 * What a tick calls runs in a signal handler: charging the cap, and feeling
 * contention, which therefore reads files without stdio.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <unistd.h>

#include "common/string.h"
#include "eros.h"
#include "miscadmin.h"

/* The longest debt. */
#define MAX_DEBT_NS UINT64CONST(600000000000)

/*
 * The credit for coming late: what timers may oversleep and what short waits
 * for a CPU may last.  It shortens pauses to a half at most, so that it never
 * buys a long burst.
 */
#define CREDIT_NS UINT64CONST(10000000)
#define LEAST_PAUSE 0.5

/* Pauses that would be shorter than this at least are put together. */
#define SHORTEST_LEAST_PAUSE_NS UINT64CONST(100000)

/* The weight of the newest batch in the moving average of the cost. */
#define COST_WEIGHT 0.3

/*
 * The grant, by the part of its time that a worker waited for a CPU: above the
 * upper bound it is cut, the more the longer it waited, below the lower one it
 * grows again, and fast where there is next to no wait.  The time judged is the
 * worker's own, running and waiting, so that a worker with a small share is not
 * judged by one unlucky wake-up.
 */
#define CONTENDED 0.30
#define UNCONTENDED 0.20
#define UNWAITED 0.08
#define GRANT_CUT(waited) Max(0.25, 1.0 - 1.75 * (waited))
#define GRANT_GROWTH 1.1
#define GRANT_FAST_GROWTH 1.5
#define MIN_GRANT 0.01
#define JUDGED_NS UINT64CONST(40000000)

/*
 * The second opinion: where more than this part of the CPUs was idle since the
 * last look, the grant is not cut but grows.  Waits are then those of waking
 * up, or for other workers, of which small shares have many for little time
 * that they run.
 */
#define IDLE_CPUS 0.20
#define IDLE_LOOK_NS UINT64CONST(200000000)

/* What a batch uses at least, however contended the machine is. */
#define MIN_QUANTUM_NS UINT64CONST(5000000)

/* How long the cores that EROS may count on are taken for what they were. */
#define CORES_KNOWN_NS UINT64CONST(60000000000)

/* The slot of this worker's database, for ticks, which may not look it up. */
static ErosDatabase *volatile database = NULL;

/* Up to where this process has been charged: to a phase, and to the hard cap. */
static uint64 charged_cpu_ns = 0;
static uint64 charged_at_ns = 0;
static volatile uint64 cap_charged_cpu_ns = 0;

/* Until when this worker pauses at least, by phase. */
static volatile uint64 least_pause_until_ns[EROS_MAX_PHASES + 1];

/* The cores that EROS may count on, and the control groups' quota, as last found. */
static volatile double cores = 1;
static volatile double quota = HUGE_VAL;

/* This process's part of the shares, and whether CPUs were idle when it last looked. */
static volatile double grant = 1.0;
static volatile bool cpus_are_idle = false;

/* Reads the first two numbers of a file; returns how many there were. */
static int
read_numbers(const char *path, long long *first, long long *second)
{
	FILE *file = fopen(path, "re"); /* AllocateFile() may throw */
	int n;

	if (file == NULL)
		return 0;
	n = fscanf(file, "%lld %lld", first, second);
	fclose(file);
	return Max(n, 0);
}

/* The cores that a control group allows, of either version; none: HUGE_VAL. */
static double
cgroup_quota(const char *mount, const char *group, bool unified)
{
	char path[MAXPGPATH];
	long long quota = 0;
	long long period = 0;

	if (unified)
	{
		snprintf(path, sizeof(path), "%s%s/cpu.max", mount, group);
		if (read_numbers(path, &quota, &period) < 2) /* "max 100000" is no number */
			return HUGE_VAL;
	}
	else
	{
		snprintf(path, sizeof(path), "%s%s/cpu.cfs_quota_us", mount, group);
		if (read_numbers(path, &quota, &period) < 1)
			return HUGE_VAL;
		snprintf(path, sizeof(path), "%s%s/cpu.cfs_period_us", mount, group);
		if (read_numbers(path, &period, &period) < 1)
			return HUGE_VAL;
	}
	return quota > 0 && period > 0 ? (double) quota / period : HUGE_VAL;
}

/*
 * The cores that this process's control groups allow: the least of its group
 * and those above it.  In a container the group may look like another one from
 * inside, so that only the mount itself is there to be read.
 */
static double
cgroup_cores(void)
{
	FILE *file = fopen("/proc/self/cgroup", "re");
	char line[MAXPGPATH];
	double cores = HUGE_VAL;

	if (file == NULL)
		return cores;
	while (fgets(line, sizeof(line), file) != NULL)
	{
		/* hierarchy:controllers:group */
		char *controllers = strchr(line, ':');
		char *group = controllers ? strchr(++controllers, ':') : NULL;
		bool unified;

		if (group == NULL)
			continue;
		*group++ = '\0';
		group[strcspn(group, "\n")] = '\0';
		unified = *controllers == '\0';
		if (!unified && strcmp(controllers, "cpu") != 0 && strncmp(controllers, "cpu,", 4) != 0 &&
			strstr(controllers, ",cpu,") == NULL && !pg_str_endswith(controllers, ",cpu"))
			continue;
		for (;;)
		{
			char *slash = strrchr(group, '/');

			cores = Min(cores, cgroup_quota(unified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu",
											group, unified));
			if (slash == NULL)
				break;
			*slash = '\0';
		}
	}
	fclose(file);
	return cores;
}

/* The cores that EROS may count on. */
double
eros_governor_cores(void)
{
	static long online = 0;
	static uint64 known_at_ns = 0;
	uint64 now = eros_monotonic_ns();

	if (online == 0 || now - known_at_ns > CORES_KNOWN_NS)
	{
		online = Max(sysconf(_SC_NPROCESSORS_ONLN), 1);
		quota = cgroup_cores();
		known_at_ns = now;
	}
	if (eros_cpu_cores > 0)
		return eros_cpu_cores;
	return Min((double) online, quota);
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

/* A phase's share of a core for this worker, as the hard cap and contention leave it. */
static double
granted_share(const ErosPhase *phase)
{
	return Min(phase->cpu_percent, eros_cpu_cap) / 100.0 * grant;
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
	allowed = Max(allowed, least_pause_until_ns[phase]);

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
charge_bucket(pg_atomic_uint64 *bucket, uint64 now, uint64 since, uint64 cpu_ns, double share,
			  double max_debt_ns)
{
	uint64 cost = (uint64) Min((double) cpu_ns / share, max_debt_ns);
	uint64 start = Min(since, now - Min(cpu_ns, now)) - CREDIT_NS;
	uint64 old = pg_atomic_read_u64(bucket);
	uint64 new;

	do
	{
		new = Min(Max(old, start) + cost, now + (uint64) max_debt_ns);
	} while (!pg_atomic_compare_exchange_u64(bucket, &old, new));
}

/*
 * Charges what this process has used since the last time to the hard cap.
 * Workers do so every few ms during a call: many processes share this bucket,
 * and what one of them has used long ago would be asked of all of them now.
 * In a call it runs in a signal handler.
 */
void
eros_governor_charge_cap(uint64 now)
{
	uint64 upto = eros_process_cpu_ns();
	uint64 from = cap_charged_cpu_ns;

	/* a tick may have come in between: never charge less than nothing */
	if (upto <= from)
		return;
	cap_charged_cpu_ns = upto;
	charge_bucket(&eros_shared->cap_allowed_at_ns, now, now, upto - from,
				  eros_cpu_cap / 100.0 * cores, MAX_DEBT_NS);
}

/* Reads a file of /proc that is kept open, as far as there is room; false if it cannot be read. */
static bool
read_proc(int *fd, const char *path, char *text, Size size)
{
	ssize_t length;

	if (*fd == -1)
		*fd = open(path, O_RDONLY | O_CLOEXEC);
	if (*fd < 0)
	{
		*fd = -2; /* not there */
		return false;
	}
	length = pread(*fd, text, size - 1, 0);
	if (length <= 0)
		return false;
	text[length] = '\0';
	return true;
}

/* Takes the next number of a line. */
static uint64
take_number(const char **at)
{
	uint64 number = 0;

	while (**at == ' ')
		(*at)++;
	while (**at >= '0' && **at <= '9')
		number = number * 10 + (*(*at)++ - '0');
	return number;
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
	const char *at = line;

	if (!read_proc(&fd, "/proc/self/schedstat", line, sizeof(line)))
		return false;
	*run_ns = take_number(&at);
	*wait_ns = take_number(&at);
	return true;
}

/*
 * Adds up for how long the CPUs that this process may run on have been idle, in
 * the kernel's ticks, and counts them; false where that is not known.
 */
static bool
read_idle_ticks(uint64 *ticks, int *ncpus)
{
#ifdef CPU_ISSET
	static int fd = -1;
	static char text[65536];
	cpu_set_t ours;

	*ticks = 0;
	*ncpus = 0;
	if (sched_getaffinity(0, sizeof(ours), &ours) != 0 ||
		!read_proc(&fd, "/proc/stat", text, sizeof(text)))
		return false;

	/* the sum of all CPUs, then a line for each: cpu0 user nice system idle iowait ... */
	for (const char *line = strchr(text, '\n'); line != NULL && strncmp(line, "\ncpu", 4) == 0;
		 line = strchr(line + 1, '\n'))
	{
		const char *at = line + 4;
		uint64 cpu = take_number(&at);

		if (cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, &ours))
			continue;
		for (int field = 0; field < 3; field++)
			(void) take_number(&at);
		*ticks += take_number(&at);
		*ticks += take_number(&at);
		(*ncpus)++;
	}
	return *ncpus > 0;
#else
	return false;
#endif
}

/*
 * Looks every so often whether CPUs were idle since the last look; returns
 * whether it looked.  Below a quota idle CPUs are of no use to anybody.
 */
static bool
look_for_idle_cpus(uint64 now)
{
	static uint64 last_ticks = 0;
	static uint64 last_at_ns = 0;
	static int last_ncpus = 0;
	uint64 ticks;
	int ncpus;

	if (now - last_at_ns < IDLE_LOOK_NS)
		return false;
	cpus_are_idle = false;
	if (!read_idle_ticks(&ticks, &ncpus))
		return false;
	if (last_ncpus == ncpus && quota >= ncpus && ticks > last_ticks)
	{
		double idle_s = (double) (ticks - last_ticks) / sysconf(_SC_CLK_TCK);

		cpus_are_idle = idle_s > IDLE_CPUS * ncpus * (now - last_at_ns) / 1e9;
	}
	last_ticks = ticks;
	last_at_ns = now;
	last_ncpus = ncpus;
	return true;
}

/* The grant by which what a worker owes for a phase was charged. */
static double
grant_of_debt(ErosDatabase *db, ErosWorker *worker, int phase)
{
	uint32 permille = pg_atomic_read_u32(&db->debt_permille[worker->number - 1][phase]);

	return permille == 0 ? 1.0 : permille / 1000.0;
}

/* The longest debt: that of an uncontended machine, by the grant of now. */
static double
max_debt_ns(void)
{
	return MAX_DEBT_NS / grant;
}

/* Has what a worker owes for a phase be paid in a part, or a multiple, of the time. */
static void
scale_debt(ErosDatabase *db, ErosWorker *worker, int phase, double part)
{
	uint64 now = eros_monotonic_ns();
	pg_atomic_uint64 *bucket = bucket_of(db, worker, phase);
	uint64 allowed = pg_atomic_read_u64(bucket);

	if (allowed > now)
		pg_atomic_write_u64(bucket, now + (uint64) Min((allowed - now) * part, max_debt_ns()));
	if (least_pause_until_ns[phase] > now)
		least_pause_until_ns[phase] =
			now + (uint64) Min((least_pause_until_ns[phase] - now) * part, max_debt_ns());
}

/* Has what a worker owes for a phase be paid by the grant of now, not by that of the charge. */
static void
convert_debt(ErosDatabase *db, ErosWorker *worker, int phase)
{
	scale_debt(db, worker, phase, grant_of_debt(db, worker, phase) / grant);
	pg_atomic_write_u32(&db->debt_permille[worker->number - 1][phase], (uint32) ceil(grant * 1000));
}

/*
 * Has what was charged by a lower grant than that of now be paid by that of now.
 * A grant that is cut lengthens nothing until more is charged; then both are
 * paid by it, and so nothing is forgiven when it grows again.
 */
static void
ease_debts(ErosDatabase *db, ErosWorker *worker)
{
	for (int phase = 1; phase <= EROS_MAX_PHASES; phase++)
	{
		if (grant > grant_of_debt(db, worker, phase))
			convert_debt(db, worker, phase);
	}
}

/* Adapts the grant to the part of its time that the worker waited for a CPU. */
static void
adapt_grant(double waited)
{
	if (cpus_are_idle || waited < UNWAITED)
		grant = Min(grant * GRANT_FAST_GROWTH, 1.0);
	else if (waited > CONTENDED)
		grant = Max(grant * GRANT_CUT(waited), MIN_GRANT);
	else if (waited < UNCONTENDED)
		grant = Min(grant * GRANT_GROWTH, 1.0);
}

/*
 * Judges how contended the machine is, and adapts the grant, when there is
 * enough to judge by.  In a call it runs in a signal handler.
 */
void
eros_governor_feel_contention(ErosWorker *worker)
{
	static uint64 last_run = 0;
	static uint64 last_wait = 0;
	double before = grant;
	uint64 run;
	uint64 wait;

	if (!eros_foreground_first)
		grant = 1.0;
	else
	{
		bool looked = look_for_idle_cpus(eros_monotonic_ns());

		if (read_schedstat(&run, &wait) && (run - last_run) + (wait - last_wait) >= JUDGED_NS)
		{
			double waited = (double) (wait - last_wait) / ((run - last_run) + (wait - last_wait));

			adapt_grant(waited);
			last_run = run;
			last_wait = wait;
			pg_atomic_write_u32(&worker->waited_permille, (uint32) (waited * 1000));
		}
		else if (looked && cpus_are_idle)
			grant = Min(grant * GRANT_FAST_GROWTH, 1.0); /* it hardly runs, to be judged by that */
	}
	if (grant > before && database != NULL)
		ease_debts(database, worker);
	pg_atomic_write_u32(&worker->grant_permille, (uint32) (grant * 1000));
}

/* Tells whether contention has lowered the grant: then a pause looks now and then. */
bool
eros_governor_yields(void)
{
	return grant < 1.0;
}

/*
 * The time that pays for a piece of work, which costs so much of it: what it
 * took, and the pause before it.  Time without work does not count: a batch that
 * begins later than it might have, by more than a pause oversleeps, has been
 * waited for.  Of that time it has its credit, as far as it needs it.
 */
static uint64
paying_ns(const ErosPhase *phase, uint64 now, uint64 allowed, double cost_ns)
{
	static uint64 last_charge[EROS_MAX_PHASES + 1];
	uint64 last = last_charge[phase->phase];
	uint64 ready = Max(last, Min(allowed, charged_at_ns));
	uint64 took = now - charged_at_ns;
	uint64 credit = (uint64) Min(Max(cost_ns - took, 0), (double) CREDIT_NS);

	last_charge[phase->phase] = now;
	if (last == 0 || charged_at_ns < last)
		return took + credit;
	if (charged_at_ns - ready > CREDIT_NS)
		return (ready - last) + took + credit;
	return now - last;
}

/* Counts what a phase was granted for a piece of work, and what contention took from it. */
static void
count_granted(ErosPhaseCounters *counters, const ErosPhase *phase, uint64 ns)
{
	double share = granted_share(phase);

	pg_atomic_fetch_add_u64(&counters->cpu_granted_ns, (int64) (ns * share));
	pg_atomic_fetch_add_u64(&counters->cpu_yielded_ns, (int64) (ns * (share / grant - share)));
}

/* Scales what a worker owes when the share of a phase has changed. */
void
eros_governor_rescale(ErosWorker *worker, int phase, double old_percent, double new_percent)
{
	ErosDatabase *db = eros_my_database();

	if (db != NULL)
		scale_debt(db, worker, phase, old_percent / new_percent);
}

/*
 * Begins with what another process of this number owes, and by its grant, which
 * grows when the machine is seen not to be contended any more.
 */
void
eros_governor_start(ErosWorker *worker)
{
	uint64 now = eros_monotonic_ns();

	database = eros_my_database();
	cores = eros_governor_cores(); /* ticks go by it */
	for (int phase = 1; database != NULL && phase <= EROS_MAX_PHASES; phase++)
	{
		if (pg_atomic_read_u64(bucket_of(database, worker, phase)) > now)
			grant = Min(grant, grant_of_debt(database, worker, phase));
	}
}

/* Begins work: the time that pays for it is counted from here. */
void
eros_governor_begin(void)
{
	database = eros_my_database();
	charged_at_ns = eros_monotonic_ns();
}

/* Has the worker pause, however much credit it has, for a part of what a piece of work costs. */
static void
require_pause(int phase, uint64 now, uint64 cpu_ns, double share)
{
	static double kept_ns[EROS_MAX_PHASES + 1];
	double pause_ns = kept_ns[phase] + LEAST_PAUSE * cpu_ns * (1.0 / share - 1.0);
	bool keep = pause_ns < SHORTEST_LEAST_PAUSE_NS;

	kept_ns[phase] = keep ? pause_ns : 0;
	least_pause_until_ns[phase] = keep ? 0 : now + (uint64) Min(pause_ns, max_debt_ns());
}

/* Charges what this worker has used since the last time to a phase and to the hard cap. */
void
eros_governor_charge(ErosWorker *worker, const ErosPhase *phase)
{
	ErosDatabase *db = eros_my_database();
	uint64 now = eros_monotonic_ns();
	uint64 cpu_ns = eros_governor_uncharged_ns();
	double share = granted_share(phase);

	if (db != NULL)
	{
		pg_atomic_uint64 *bucket = bucket_of(db, worker, phase->phase);
		ErosPhaseCounters *counters = &db->phases[phase->phase];

		pg_atomic_fetch_add_u64(&counters->cpu_used_ns, cpu_ns);
		count_granted(counters, phase,
					  paying_ns(phase, now, pg_atomic_read_u64(bucket), cpu_ns / share));
		convert_debt(db, worker, phase->phase);
		charge_bucket(bucket, now, charged_at_ns, cpu_ns, share, max_debt_ns());
	}
	require_pause(phase->phase, now, cpu_ns, share);
	charged_cpu_ns += cpu_ns;
	charged_at_ns = now;
	cores = eros_governor_cores();
	eros_governor_charge_cap(now);
	eros_governor_feel_contention(worker);
	pg_atomic_fetch_add_u64(&worker->cpu_used_ns, cpu_ns);
}

/* Charges what this process, which is no worker, has used; returns it. */
uint64
eros_governor_charge_upkeep(void)
{
	uint64 cpu_ns = eros_governor_uncharged_ns();

	charged_cpu_ns += cpu_ns;
	cores = eros_governor_cores();
	eros_governor_charge_cap(eros_monotonic_ns());
	return cpu_ns;
}

/*
 * What a batch may use: eros.quantum, and less where the machine is contended,
 * so that others wait less for a CPU and the batch is no longer open than ever.
 */
uint64
eros_governor_quantum_ns(void)
{
	uint64 quantum_ns = (uint64) eros_quantum_ms * 1000000;

	return Max((uint64) (quantum_ns * grant), Min(quantum_ns, MIN_QUANTUM_NS));
}

/* The users of the next batch: about one quantum's worth. */
int
eros_governor_batch_size(const ErosPhase *phase, const ErosHandler *handler)
{
	uint64 cost_ns = pg_atomic_read_u64(&handler->stats->cost_ns);
	uint64 quantum_ns = eros_governor_quantum_ns();

	/* one of these crashed the server: find out who */
	if (pg_atomic_read_u32(&handler->stats->alone) > 0)
		return 1;

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
