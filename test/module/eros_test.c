/*-------------------------------------------------------------------------
 *
 * eros_test.c
 *		Functions that behave badly, for the tests.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>
#include <time.h>

#include "fmgr.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(eros_test_burn);
PG_FUNCTION_INFO_V1(eros_test_crash);

/* The CPU time of this process in ms. */
static double
cpu_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

/* burn(ms double precision) returns void: computes so long, and never looks for interrupts */
Datum
eros_test_burn(PG_FUNCTION_ARGS)
{
	double until = cpu_ms() + PG_GETARG_FLOAT8(0);

	while (cpu_ms() < until)
		;
	PG_RETURN_VOID();
}

/* crash() returns void: what a bug in C code does to the server */
Datum
eros_test_crash(PG_FUNCTION_ARGS)
{
	raise(SIGSEGV);
	PG_RETURN_VOID();
}
