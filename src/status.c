/*-------------------------------------------------------------------------
 *
 * status.c
 *		What shared memory knows, as rows for the status views.
 *
 * Everything is read without locks where it is a counter, and under the slot
 * lock where it is a slot's owner; nothing here is slow enough to mind being
 * called every second.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "eros.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(eros_database_info);
PG_FUNCTION_INFO_V1(eros_databases_info);
PG_FUNCTION_INFO_V1(eros_phase_info);
PG_FUNCTION_INFO_V1(eros_handler_info);
PG_FUNCTION_INFO_V1(eros_worker_info);
PG_FUNCTION_INFO_V1(eros_halt_info);
PG_FUNCTION_INFO_V1(eros_halt_histogram);
PG_FUNCTION_INFO_V1(eros_halt_recent_info);
PG_FUNCTION_INFO_V1(eros_cpu_cores_counted);
PG_FUNCTION_INFO_V1(eros_account_users);

#define NS_PER_MS 1000000.0

/* The first class whose bound is one of the histogram's: 64 us. */
#define EROS_HALT_FIRST_BUCKET 24

static inline Datum
counter(pg_atomic_uint64 *value)
{
	return Int64GetDatum(Max((int64) pg_atomic_read_u64(value), 0));
}

static inline Datum
milliseconds(pg_atomic_uint64 *ns)
{
	return Float8GetDatum(pg_atomic_read_u64(ns) / NS_PER_MS);
}

static inline Datum
milliseconds_of_us(pg_atomic_uint64 *us)
{
	return Float8GetDatum(pg_atomic_read_u64(us) / 1000.0);
}

/* The workers of a database that run. */
static int
count_workers(Oid dboid)
{
	int workers = 0;

	LWLockAcquire(eros_shared->lock, LW_SHARED);
	for (int i = 0; i < eros_max_workers; i++)
	{
		if (eros_workers_array[i].dboid == dboid && eros_workers_array[i].pid != 0)
			workers++;
	}
	LWLockRelease(eros_shared->lock);
	return workers;
}

/* Adds how a database is served, to the n columns of a row that are there; returns their number. */
static int
add_turns(ErosDatabase *db, Datum *row, bool *nulls, int n)
{
	uint64 scheduler = pg_atomic_read_u64(&db->waiting_since);
	uint64 worker = pg_atomic_read_u64(&db->worker_wanted_since);
	int sqlstate = (int) pg_atomic_read_u32(&db->failed_sqlstate);

	row[n++] = BoolGetDatum(pg_atomic_read_u32(&db->away) != 0);
	nulls[n] = scheduler == 0 && worker == 0;
	row[n++] = TimestampTzGetDatum((TimestampTz) (scheduler != 0 ? scheduler : worker));
	row[n++] = Int32GetDatum((int32) pg_atomic_read_u32(&db->failed_starts));
	row[n++] = Int32GetDatum((int32) pg_atomic_read_u32(&db->failed_rounds));
	nulls[n] = pg_atomic_read_u32(&db->failed_rounds) == 0;
	row[n++] = CStringGetTextDatum(unpack_sql_state(sqlstate));
	return n;
}

/* databases_info() returns setof record */
Datum
eros_databases_info(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	eros_check_loaded();
	InitMaterializedSRF(fcinfo, 0);
	eros_check_row(rsinfo->setDesc, 14);
	for (int i = 0; i < eros_max_databases; i++)
	{
		ErosDatabase *db = &eros_databases[i];
		TimestampTz needed_at = (TimestampTz) pg_atomic_read_u64(&db->needed_at);
		Datum row[14];
		bool nulls[14] = {false};
		int n = 0;

		if (!OidIsValid(db->dboid) || (pg_atomic_read_u64(&db->turns) == 0 && db->announced == 0 &&
									   pg_atomic_read_u32(&db->failed_starts) < 2))
			continue; /* nobody has found the extension there yet */
		row[n++] = ObjectIdGetDatum(db->dboid);
		nulls[n] = db->scheduler_pid == 0;
		row[n++] = Int32GetDatum(db->scheduler_pid);
		row[n++] = Int32GetDatum(count_workers(db->dboid));
		row[n++] = BoolGetDatum(db->held_by != 0);
		row[n++] = BoolGetDatum(db->no_worker_slot);
		row[n++] = BoolGetDatum(pg_atomic_read_u32(&db->paused) != 0);
		row[n++] = counter(&db->turns);
		row[n++] = milliseconds_of_us(&db->longest_wait_us);
		nulls[n] = pg_atomic_read_u32(&db->away) == 0 || TIMESTAMP_NOT_FINITE(needed_at);
		row[n++] = TimestampTzGetDatum(needed_at);
		n = add_turns(db, row, nulls, n);
		Assert(n == lengthof(row));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row, nulls);
	}
	return (Datum) 0;
}

/* database_info() returns record */
Datum
eros_database_info(PG_FUNCTION_ARGS)
{
	static ErosDatabase none;
	ErosDatabase *db;
	ErosTrackerSize size;
	TupleDesc desc;
	Datum row[33];
	bool nulls[33] = {false};
	bool known = true;
	Interval *offset = palloc0(sizeof(Interval));
	int n = 0;

	eros_check_loaded();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	eros_check_row(desc, lengthof(row));
	db = eros_my_database();
	if (db == NULL)
	{
		db = &none;
		known = false;
	}
	eros_tracker_size(&size);
	offset->time = (int64) pg_atomic_read_u64(&eros_shared->clock_offset_us);

	nulls[n] = db->scheduler_pid == 0;
	row[n++] = Int32GetDatum(db->scheduler_pid);
	row[n++] = BoolGetDatum(db->held_by != 0);
	row[n++] = BoolGetDatum(db->no_worker_slot);
	row[n++] = BoolGetDatum(db->by_pg_cron);
	row[n++] = Int32GetDatum(count_workers(MyDatabaseId));
	/* the scheduler keeps the count; without one, as on a standby, it is taken */
	row[n++] = db->scheduler_pid != 0 ? counter(&db->active_users)
									  : Int64GetDatum((int64) eros_tracker_count(MyDatabaseId));
	row[n++] = counter(&db->touches_spilled);
	row[n++] = counter(&db->touches_lost);
	row[n++] = counter(&db->users_spilled);
	row[n++] = counter(&db->returns);
	row[n++] = counter(&db->halts);
	row[n++] = milliseconds(&db->scheduler_cpu_ns);
	nulls[n] = pg_atomic_read_u64(&db->last_sweep) == 0;
	row[n++] = TimestampTzGetDatum((TimestampTz) pg_atomic_read_u64(&db->last_sweep));
	nulls[n] = pg_atomic_read_u64(&db->last_maintenance) == 0;
	row[n++] = TimestampTzGetDatum((TimestampTz) pg_atomic_read_u64(&db->last_maintenance));
	row[n++] = Int64GetDatum((int64) eros_cache_bytes(db));
	row[n++] = Int64GetDatum((int64) size.users);
	row[n++] = Int64GetDatum((int64) size.capacity);
	row[n++] = Int64GetDatum((int64) size.bytes_used);
	row[n++] = Int64GetDatum((int64) size.bytes_reserved);
	nulls[n] = eros_shared->launcher_pid == 0;
	row[n++] = Int32GetDatum(eros_shared->launcher_pid);
	row[n++] = IntervalPGetDatum(offset);
	row[n++] = TimestampTzGetDatum(eros_shared->started);
	row[n++] = counter(&db->evicted);
	row[n++] = BoolGetDatum(pg_atomic_read_u32(&db->paused) != 0);
	row[n++] = counter(&db->gave_way);
	row[n++] = BoolGetDatum(known);
	n = add_turns(db, row, nulls, n);
	nulls[n] = db->scheduler_pid == 0 || pg_atomic_read_u64(&db->scheduler_since) == 0;
	row[n++] = TimestampTzGetDatum((TimestampTz) pg_atomic_read_u64(&db->scheduler_since));
	nulls[n] = pg_atomic_read_u64(&db->served_since) == 0;
	row[n++] = TimestampTzGetDatum((TimestampTz) pg_atomic_read_u64(&db->served_since));
	Assert(n == lengthof(row));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), row, nulls)));
}

/* For how long the worker number that owes the most has to pause yet, in ms. */
static double
largest_debt_ms(ErosDatabase *db, int phase)
{
	uint64 now = eros_monotonic_ns();
	uint64 latest = now;

	for (int i = 0; i < EROS_MAX_WORKERS; i++)
		latest = Max(latest, pg_atomic_read_u64(&db->allowed_at_ns[i][phase]));
	return (latest - now) / NS_PER_MS;
}

/* phase_info() returns setof record */
Datum
eros_phase_info(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ErosConfig *config;
	ErosDatabase *db;

	eros_check_loaded();
	InitMaterializedSRF(fcinfo, 0);
	db = eros_my_database();
	if (db == NULL || !eros_version_matches())
		return (Datum) 0; /* eros.status tells why */
	config = eros_config();
	for (int p = 0; p < config->nphases; p++)
	{
		ErosPhaseCounters *phase = &db->phases[config->phases[p].phase];
		Datum row[10];
		bool nulls[10] = {false};

		row[0] = Int16GetDatum(config->phases[p].phase);
		row[1] = counter(&phase->users);
		row[2] = counter(&phase->transitions);
		row[3] = counter(&phase->batches);
		row[4] = counter(&phase->users_done);
		row[5] = milliseconds(&phase->cpu_granted_ns);
		row[6] = milliseconds(&phase->cpu_used_ns);
		row[7] = milliseconds(&phase->cpu_yielded_ns);
		row[8] = milliseconds(&phase->throttled_ns);
		row[9] = Float8GetDatum(largest_debt_ms(db, config->phases[p].phase));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row, nulls);
	}
	return (Datum) 0;
}

/* handler_info() returns setof record */
Datum
eros_handler_info(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ErosConfig *config;
	uint64 now_ns = eros_monotonic_ns();

	eros_check_loaded();
	InitMaterializedSRF(fcinfo, 0);
	if (eros_my_database() == NULL || !eros_version_matches())
		return (Datum) 0; /* eros.status tells why */
	config = eros_config();
	for (int h = 0; h < config->nhandlers; h++)
	{
		ErosHandlerStats *stats = config->handlers[h].stats;
		uint64 suspended_until_ns = pg_atomic_read_u64(&stats->suspended_until_ns);
		Datum row[17];
		bool nulls[17] = {false};
		int n = 0;

		row[n++] = Int32GetDatum(config->handlers[h].handler_id);
		row[n++] = counter(&stats->pending);
		row[n++] = counter(&stats->failed);
		row[n++] = counter(&stats->batches);
		row[n++] = counter(&stats->users_done);
		row[n++] = counter(&stats->batches_failed);
		row[n++] = counter(&stats->batches_halted);
		row[n++] = milliseconds(&stats->cpu_used_ns);
		row[n++] = milliseconds(&stats->cpu_halted_ns);
		nulls[n] = pg_atomic_read_u64(&stats->cost_ns) == 0;
		row[n++] = milliseconds(&stats->cost_ns);
		row[n++] = counter(&stats->stored);
		row[n++] = counter(&stats->hits);
		row[n++] = counter(&stats->misses);
		row[n++] = counter(&stats->unread);
		row[n++] = counter(&stats->closed);
		nulls[n] = suspended_until_ns <= now_ns;
		row[n++] = TimestampTzGetDatum(GetCurrentTimestamp() +
									   (TimestampTz) ((suspended_until_ns - now_ns) / 1000));
		row[n++] = BoolGetDatum(eros_handler_is_counted(stats));
		Assert(n == lengthof(row));
		if (!eros_handler_is_counted(stats))
			memset(nulls + 1, true, lengthof(nulls) - 2); /* all but the id and that */
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row, nulls);
	}
	return (Datum) 0;
}

/* worker_info() returns setof record */
Datum
eros_worker_info(PG_FUNCTION_ARGS)
{
	static const char *const activities[] = {"starting", "idle",	"claiming",		  "computing",
											 "storing",	 "pausing", "pausing in call"};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	eros_check_loaded();
	InitMaterializedSRF(fcinfo, 0);
	eros_check_row(rsinfo->setDesc, 14);
	for (int i = 0; i < eros_max_workers; i++)
	{
		ErosWorker *worker = &eros_workers_array[i];
		uint32 activity = pg_atomic_read_u32(&worker->activity);
		bool busy = pg_atomic_read_u64(&worker->batch_start) != 0;
		Datum row[14];
		bool nulls[14] = {false};

		if (worker->dboid != MyDatabaseId || worker->pid == 0)
			continue;
		row[0] = Int32GetDatum(worker->number);
		row[1] = Int32GetDatum(worker->pid);
		row[2] = CStringGetTextDatum(activities[Min(activity, lengthof(activities) - 1)]);
		row[3] = Int32GetDatum((int32) pg_atomic_read_u32(&worker->handler_id));
		row[4] = Int16GetDatum((int16) pg_atomic_read_u32(&worker->phase));
		row[5] = Int32GetDatum(worker->nkeys);
		row[6] = TimestampTzGetDatum((TimestampTz) pg_atomic_read_u64(&worker->batch_start));
		nulls[3] = nulls[4] = nulls[5] = nulls[6] = !busy;
		row[7] = TimestampTzGetDatum((TimestampTz) pg_atomic_read_u64(&worker->started));
		row[8] = counter(&worker->batches);
		row[9] = counter(&worker->users_done);
		row[10] = milliseconds(&worker->cpu_used_ns);
		row[11] = Float8GetDatum(pg_atomic_read_u32(&worker->grant_permille) / 10.0);
		row[12] = Float8GetDatum(pg_atomic_read_u32(&worker->waited_permille) / 10.0);
		row[13] = TimestampTzGetDatum((TimestampTz) pg_atomic_read_u64(&worker->snapshot_start));
		nulls[13] = DatumGetTimestampTz(row[13]) == 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row, nulls);
	}
	return (Datum) 0;
}

/* cpu_cores() returns double precision */
Datum
eros_cpu_cores_counted(PG_FUNCTION_ARGS)
{
	eros_check_loaded();
	PG_RETURN_FLOAT8(eros_governor_cores());
}

/* account_users(phase, users) returns void */
Datum
eros_account_users(PG_FUNCTION_ARGS)
{
	int phase = PG_GETARG_INT16(0);
	ErosDatabase *db;

	eros_check_loaded();
	db = eros_my_database();
	if (db != NULL && phase >= 1 && phase <= EROS_MAX_PHASES)
		eros_count_on_commit(&db->phases[phase].users, PG_GETARG_INT64(1));
	PG_RETURN_VOID();
}

/* halt_info() returns record */
Datum
eros_halt_info(PG_FUNCTION_ARGS)
{
	ErosDatabase *db;
	TupleDesc desc;
	Datum row[7] = {0};
	bool nulls[7] = {false};
	uint64 count = 0;

	eros_check_loaded();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	eros_check_row(desc, lengthof(row));
	db = eros_my_database();
	if (db != NULL)
	{
		count = pg_atomic_read_u64(&db->halt_latency.count);
		row[1] = Float8GetDatum(eros_latency_percentile_ms(&db->halt_latency, 0.50));
		row[2] = Float8GetDatum(eros_latency_percentile_ms(&db->halt_latency, 0.99));
		row[3] = milliseconds(&db->halt_latency.max_ns);
		row[4] = counter(&db->halts_forced);
		row[5] = milliseconds(&db->halt_latency.sum_ns);
		row[6] = counter(&db->halts_slow);
	}
	row[0] = Int64GetDatum((int64) count);
	nulls[1] = nulls[2] = nulls[3] = count == 0;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), row, nulls)));
}

/*
 * halt_histogram() returns setof record: an octave a row, from 64 us on
 *
 * The last row has no bound, so that its count is that of all halts shown.
 */
Datum
eros_halt_histogram(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ErosDatabase *db;
	double upper_ms = 0.001;
	uint64 halts = 0;

	eros_check_loaded();
	InitMaterializedSRF(fcinfo, 0);
	eros_check_row(rsinfo->setDesc, 2);
	db = eros_my_database();
	for (int i = 0; i < EROS_LATENCY_CLASSES; i++)
	{
		bool last = i == EROS_LATENCY_CLASSES - 1;
		Datum row[2];
		bool nulls[2] = {last, false};

		if (db != NULL)
			halts += pg_atomic_read_u64(&db->halt_latency.classes[i]);
		if (last || (i % 4 == 0 && i >= EROS_HALT_FIRST_BUCKET))
		{
			row[0] = Float8GetDatum(upper_ms);
			row[1] = Int64GetDatum((int64) halts);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row, nulls);
		}
		if (i % 4 == 3) /* by twos, which are exact: bounds are labels elsewhere */
			upper_ms *= 2;
	}
	return (Datum) 0;
}

/* halt_recent_info() returns setof record, the last halt first */
Datum
eros_halt_recent_info(PG_FUNCTION_ARGS)
{
	static const char *const reasons[] = {"return", "waiter", "pause"};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ErosDatabase *db;
	ErosRecentHalt halts[EROS_RECENT_HALTS];
	uint64 noted = 0;

	eros_check_loaded();
	InitMaterializedSRF(fcinfo, 0);
	eros_check_row(rsinfo->setDesc, 7);
	db = eros_my_database();
	if (db == NULL)
		return (Datum) 0;
	LWLockAcquire(eros_shared->lock, LW_SHARED);
	noted = db->nhalts_noted;
	memcpy(halts, db->recent_halts, sizeof(halts));
	LWLockRelease(eros_shared->lock);

	for (uint64 i = 1; i <= Min(noted, EROS_RECENT_HALTS); i++)
	{
		ErosRecentHalt *halt = &halts[(noted - i) % EROS_RECENT_HALTS];
		Datum row[7];
		bool nulls[7] = {false};

		row[0] = TimestampTzGetDatum(halt->at);
		row[1] = CStringGetTextDatum(reasons[Min(halt->reason, lengthof(reasons) - 1)]);
		row[2] = Int32GetDatum(halt->handler_id);
		row[3] = Int16GetDatum(halt->phase);
		row[4] = Int32GetDatum(halt->worker);
		row[5] = Int32GetDatum(halt->nusers);
		row[6] = Float8GetDatum(halt->latency_ns / NS_PER_MS);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row, nulls);
	}
	return (Datum) 0;
}
