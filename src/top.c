/*-------------------------------------------------------------------------
 *
 * top.c
 *		What went on since a session's last looks, for eros.top().
 *
 * The counters in shared memory grow since the server's start; a rate needs
 * two readings of them.  Each session keeps its own readings of the last
 * while, in its own memory, so that nobody else has to: eros.top(), called
 * again and again, shows the last seconds.  A session's first look has nothing
 * to compare with, and shows what was since the server's start (in SQL).
 *
 * Nothing here is shared, and nothing but counters is read.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "eros.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"

PG_FUNCTION_INFO_V1(eros_recent_rates);

#define READINGS 64						  /* kept, at most */
#define READING_NS UINT64CONST(200000000) /* between two of them, at least */

#define NS_PER_S 1000000000.0

/* Crossings into a phase, and what was done in it. */
typedef struct PhaseReading
{
	uint64 transitions;
	uint64 users_done;
	uint64 cpu_granted_ns;
	uint64 cpu_used_ns;
} PhaseReading;

/* The counters as they were; phase 0 is the active users and the scheduler. */
typedef struct Reading
{
	uint64 at_ns; /* monotonic */
	PhaseReading phases[EROS_MAX_PHASES + 1];
} Reading;

/* The last readings of this session, a ring. */
static Reading readings[READINGS];
static uint64 nreadings = 0;

/* Reads the counters of a database. */
static void
read_counters(ErosDatabase *db, Reading *reading)
{
	reading->at_ns = eros_monotonic_ns();
	for (int p = 1; p <= EROS_MAX_PHASES; p++)
	{
		PhaseReading *phase = &reading->phases[p];

		phase->transitions = pg_atomic_read_u64(&db->phases[p].transitions);
		phase->users_done = pg_atomic_read_u64(&db->phases[p].users_done);
		phase->cpu_granted_ns = pg_atomic_read_u64(&db->phases[p].cpu_granted_ns);
		phase->cpu_used_ns = pg_atomic_read_u64(&db->phases[p].cpu_used_ns);
	}
	reading->phases[0] = (PhaseReading){
		.transitions = pg_atomic_read_u64(&db->returns),
		.cpu_used_ns = pg_atomic_read_u64(&db->scheduler_cpu_ns),
	};
}

/* Tells whether the counters began anew after a reading: the extension was dropped and created. */
static bool
began_anew(const Reading *before, const Reading *now)
{
	for (int p = 0; p <= EROS_MAX_PHASES; p++)
	{
		if (before->phases[p].transitions > now->phases[p].transitions ||
			before->phases[p].cpu_used_ns > now->phases[p].cpu_used_ns)
			return true;
	}
	return false;
}

/* The kept reading whose age comes nearest to the span that is asked for, or NULL. */
static const Reading *
find_reading(const Reading *now, double span_ns)
{
	const Reading *found = NULL;
	double best = 0;

	for (uint64 i = 1; i <= Min(nreadings, READINGS); i++)
	{
		const Reading *reading = &readings[(nreadings - i) % READINGS];
		double off = fabs((double) (now->at_ns - reading->at_ns) - span_ns);

		if (now->at_ns < reading->at_ns + READING_NS)
			continue;
		if (began_anew(reading, now))
			break;
		if (found == NULL || off < best)
		{
			found = reading;
			best = off;
		}
	}
	return found;
}

/* Keeps a reading, unless the last one is hardly older. */
static void
keep_reading(const Reading *now)
{
	if (nreadings > 0 && now->at_ns < readings[(nreadings - 1) % READINGS].at_ns + READING_NS)
		return;
	readings[nreadings++ % READINGS] = *now;
}

/* Puts a row for a phase: what was counted between two readings, by second. */
static void
put_rates(ReturnSetInfo *rsinfo, int p, const Reading *before, const Reading *now)
{
	const PhaseReading *old = &before->phases[p];
	const PhaseReading *new = &now->phases[p];
	double span_ns = now->at_ns - before->at_ns;
	Datum row[6];
	bool nulls[6] = {false};

	row[0] = Int16GetDatum(p);
	row[1] = Float8GetDatum(span_ns / NS_PER_S);
	row[2] = Float8GetDatum((new->transitions - old->transitions) / span_ns * NS_PER_S);
	row[3] = Float8GetDatum((new->users_done - old->users_done) / span_ns * NS_PER_S);
	row[4] = Float8GetDatum((double) (int64) (new->cpu_granted_ns - old->cpu_granted_ns) / span_ns *
							100);
	row[5] = Float8GetDatum((new->cpu_used_ns - old->cpu_used_ns) / span_ns * 100);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row, nulls);
}

/* recent_rates(seconds) returns setof record: nothing at a session's first look */
Datum
eros_recent_rates(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ErosDatabase *db;
	const Reading *before;
	Reading now;

	eros_check_loaded();
	InitMaterializedSRF(fcinfo, 0);
	eros_check_row(rsinfo->setDesc, 6);
	db = eros_my_database();
	if (db == NULL)
		return (Datum) 0;
	read_counters(db, &now);
	before = find_reading(&now, PG_GETARG_FLOAT8(0) * NS_PER_S);
	for (int p = 0; before != NULL && p <= EROS_MAX_PHASES; p++)
		put_rates(rsinfo, p, before, &now);
	keep_reading(&now);
	return (Datum) 0;
}
