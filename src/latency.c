/*-------------------------------------------------------------------------
 *
 * latency.c
 *		How long things take: halts, and EROS's own claim, store, get, sweep.
 *
 * A histogram for each of them and database, in shared memory.  Counted with
 * atomics, read by anybody.  What is called by applications is measured once in
 * EROS_LATENCY_SAMPLE times only: two looks at the clock cost more than they
 * may add to each call.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "eros.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(eros_latency_info);

#define NS_PER_MS 1000000.0

/* The class of the histogram for a latency. */
static int
latency_class(uint64 ns)
{
	int class = 0;
	double upper = 1000;

	while (upper < ns && class < EROS_LATENCY_CLASSES - 1)
	{
		upper *= EROS_LATENCY_CLASS_RATIO;
		class ++;
	}
	return class;
}

/* Counts a latency. */
void
eros_latency_count(ErosLatency *latency, uint64 ns)
{
	uint64 max = pg_atomic_read_u64(&latency->max_ns);

	pg_atomic_fetch_add_u64(&latency->count, 1);
	pg_atomic_fetch_add_u64(&latency->sum_ns, ns);
	pg_atomic_fetch_add_u64(&latency->classes[latency_class(ns)], 1);
	while (ns > max && !pg_atomic_compare_exchange_u64(&latency->max_ns, &max, ns))
		;
}

/* The latency below which a part of all stayed, in ms: the upper bound of its class. */
double
eros_latency_percentile_ms(ErosLatency *latency, double part)
{
	uint64 count = pg_atomic_read_u64(&latency->count);
	uint64 seen = 0;
	double upper_ns = 1000;

	for (int i = 0; i < EROS_LATENCY_CLASSES; i++)
	{
		seen += pg_atomic_read_u64(&latency->classes[i]);
		if (seen >= count * part)
			break;
		upper_ns *= EROS_LATENCY_CLASS_RATIO;
	}
	return Min(upper_ns, pg_atomic_read_u64(&latency->max_ns)) / NS_PER_MS;
}

/* Counts how long an operation took. */
void
eros_latency_note(ErosDatabase *db, ErosOperation operation, uint64 ns)
{
	if (db != NULL)
		eros_latency_count(&db->latency[operation], ns);
}

/* latency_info() returns setof record */
Datum
eros_latency_info(PG_FUNCTION_ARGS)
{
	static const char *const names[EROS_OPERATIONS] = {"claim", "store", "get", "sweep"};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ErosDatabase *db;

	eros_check_loaded();
	db = eros_my_database();
	InitMaterializedSRF(fcinfo, 0);
	eros_check_row(rsinfo->setDesc, 6);
	for (int i = 0; db != NULL && i < EROS_OPERATIONS; i++)
	{
		ErosLatency *latency = &db->latency[i];
		uint64 count = pg_atomic_read_u64(&latency->count);
		Datum row[6];
		bool nulls[6] = {false};

		row[0] = CStringGetTextDatum(names[i]);
		row[1] = Int64GetDatum((int64) count);
		row[2] = Float8GetDatum(pg_atomic_read_u64(&latency->sum_ns) / NS_PER_MS / Max(count, 1));
		row[3] = Float8GetDatum(eros_latency_percentile_ms(latency, 0.50));
		row[4] = Float8GetDatum(eros_latency_percentile_ms(latency, 0.99));
		row[5] = Float8GetDatum(pg_atomic_read_u64(&latency->max_ns) / NS_PER_MS);
		nulls[2] = nulls[3] = nulls[4] = nulls[5] = count == 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row, nulls);
	}
	return (Datum) 0;
}
