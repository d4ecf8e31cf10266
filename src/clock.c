/*-------------------------------------------------------------------------
 *
 * clock.c
 *		Time, read in one place.
 *
 * eros_now() is the time by which users idle and results expire.  A superuser
 * on a server with eros.developer = on can move it forward, so that a test
 * plays a day in a second, and stop it, so that a test plays it exactly; the
 * offset, or the time at which it stands, is one word in shared memory.  CPU
 * shares go by the monotonic clock, which nobody moves.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "eros.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(eros_now_sql);
PG_FUNCTION_INFO_V1(eros_advance_clock);
PG_FUNCTION_INFO_V1(eros_freeze_clock);
PG_FUNCTION_INFO_V1(eros_thaw_clock);

/* The time of EROS. */
TimestampTz
eros_now(void)
{
	uint64 frozen = pg_atomic_read_u64(&eros_shared->clock_frozen_at);

	if (unlikely(frozen != 0))
		return (TimestampTz) frozen;
	return GetCurrentTimestamp() + (int64) pg_atomic_read_u64(&eros_shared->clock_offset_us);
}

/* Reads one of the system's clocks in nanoseconds. */
static uint64
read_clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64) ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* A clock that never jumps, in nanoseconds. */
uint64
eros_monotonic_ns(void)
{
	return read_clock_ns(CLOCK_MONOTONIC);
}

/* The CPU time that the kernel has charged to this process, in nanoseconds. */
uint64
eros_process_cpu_ns(void)
{
	return read_clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

/* now() returns timestamptz */
Datum
eros_now_sql(PG_FUNCTION_ARGS)
{
	eros_check_loaded();
	PG_RETURN_TIMESTAMPTZ(eros_now());
}

/* Refuses whoever may not change the time. */
static void
check_may_change_clock(void)
{
	eros_check_loaded();
	if (!superuser())
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("must be superuser to move the time of EROS")));
	if (!eros_developer)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the time of EROS cannot be moved on this server"),
				 errhint("Set eros.developer = on and restart; never on a production server.")));
}

/* Has all schedulers look: what was due later may be due now. */
static void
wake_schedulers(void)
{
	LWLockAcquire(eros_shared->lock, LW_SHARED);
	for (int i = 0; i < eros_max_databases; i++)
		eros_set_latch_of_scheduler(&eros_databases[i]);
	LWLockRelease(eros_shared->lock);
}

/* advance_clock(step interval) returns timestamptz */
Datum
eros_advance_clock(PG_FUNCTION_ARGS)
{
	Interval *step = PG_GETARG_INTERVAL_P(0);
	int64 step_us;

	check_may_change_clock();
	if (step->month != 0 || step->day > 36500 || step->day < -36500 ||
		step->time > (int64) 36500 * USECS_PER_DAY)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("cannot move the time by months or by more than 36500 days")));
	step_us = step->time + (int64) step->day * USECS_PER_DAY;
	if (step_us < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the time of EROS can only be moved forward")));

	pg_atomic_fetch_add_u64(&eros_shared->clock_offset_us, step_us);
	if (pg_atomic_read_u64(&eros_shared->clock_frozen_at) != 0)
		pg_atomic_fetch_add_u64(&eros_shared->clock_frozen_at, step_us);

	wake_schedulers();
	PG_RETURN_TIMESTAMPTZ(eros_now());
}

/* freeze_clock() returns timestamptz */
Datum
eros_freeze_clock(PG_FUNCTION_ARGS)
{
	TimestampTz now;

	check_may_change_clock();
	now = eros_now();
	pg_atomic_write_u64(&eros_shared->clock_frozen_at, (uint64) now);
	PG_RETURN_TIMESTAMPTZ(now);
}

/* thaw_clock() returns timestamptz */
Datum
eros_thaw_clock(PG_FUNCTION_ARGS)
{
	check_may_change_clock();

	/* steps have moved both alike: it is now where it would be had it never stood */
	pg_atomic_write_u64(&eros_shared->clock_frozen_at, 0);
	wake_schedulers();
	PG_RETURN_TIMESTAMPTZ(eros_now());
}
