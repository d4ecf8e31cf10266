/*-------------------------------------------------------------------------
 *
 * history.c
 *		A sample a minute for a day, and one an hour for thirty days.
 *
 * The scheduler writes them into eros.history_ring, a table of as many rows as
 * there are minutes in a day and hours in thirty days: the row of a minute is
 * overwritten a day later.  A sample has what was counted since the one before
 * and what the gauges show; the last values of the counters are kept in shared
 * memory next to them ("sampled").  So both begin at zero together when the
 * server starts, and nothing that is counted goes backwards.
 *
 * What has been counted since the last sample can be read by anybody, and added
 * to the history that he sees, without a gap and without counting anything
 * twice: the values of the last two samples are kept, and he names the one that
 * is the newest to his snapshot.  Only the scheduler writes them: first those of
 * the new sample in the place of the older one, then the row, and when that is
 * committed, it says which one is the latest.
 *
 * Nothing is written, and the scheduler is not woken for it, while nothing has
 * changed.  Each sample says since when it has counted, so that a reader can
 * tell minutes without change from minutes without a server.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "eros.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(eros_sample_server);
PG_FUNCTION_INFO_V1(eros_sample_phases);
PG_FUNCTION_INFO_V1(eros_sample_handlers);
PG_FUNCTION_INFO_V1(eros_note_scrape);
PG_FUNCTION_INFO_V1(eros_monitor_info);

#define NS_PER_MS 1000000.0

/* Scrapes with a longer pause between them do not follow each other; nor do a person's looks. */
#define SCRAPE_GAP_US (15 * USECS_PER_MINUTE)
#define SCRAPE_MIN_GAP_US (10 * USECS_PER_SEC)

/* How a sampled value is shown, and whether a change of it is worth a sample. */
typedef enum SampledKind
{
	COUNTER,	   /* what was counted since the last sample */
	COUNTER_NS,	   /* the same, shown in ms */
	COUNTER_QUIET, /* the same, of which a change alone is worth nothing: EROS's own */
	COUNTER_QUIET_NS,
	GAUGE,
	GAUGE_QUIET
} SampledKind;

/* One value that is sampled. */
typedef struct Sampled
{
	uint64 value;
	SampledKind kind;
} Sampled;

/* The values of one thing, in the order of its composite type in SQL. */
typedef struct SampledList
{
	int n;
	Sampled values[EROS_SAMPLED_OF_HANDLER];
} SampledList;

/* Since when the first sample after a start of the server counts. */
static TimestampTz began_at = 0;

/* The minute that was looked at last, and the hour up to which hours are complete. */
static int64 last_minute = 0;
static int64 last_hour = 0;

static void
add(SampledList *list, SampledKind kind, uint64 value)
{
	list->values[list->n].kind = kind;
	list->values[list->n++].value = value;
}

static inline void
add_atomic(SampledList *list, SampledKind kind, pg_atomic_uint64 *value)
{
	add(list, kind, (uint64) Max((int64) pg_atomic_read_u64(value), 0));
}

/* What is sampled of a database: eros.sample_of_server. */
static void
read_server(ErosDatabase *db, SampledList *list)
{
	uint64 idle = 0;
	uint64 workers = 0;

	for (int p = 1; p <= EROS_MAX_PHASES; p++)
		idle += (uint64) Max((int64) pg_atomic_read_u64(&db->phases[p].users), 0);
	for (int i = 0; i < eros_max_workers; i++)
		workers += eros_workers_array[i].dboid == db->dboid && eros_workers_array[i].pid != 0;
	list->n = 0;
	add_atomic(list, GAUGE, &db->active_users);
	add(list, GAUGE, idle);
	add(list, GAUGE, eros_cache_bytes(db));
	add(list, GAUGE, workers);
	add_atomic(list, COUNTER_QUIET_NS, &db->scheduler_cpu_ns);
	add_atomic(list, COUNTER_QUIET, &db->scheduler_wal_bytes);
	add_atomic(list, COUNTER, &db->returns);
	add_atomic(list, COUNTER, &db->halts);
	add_atomic(list, COUNTER, &db->halts_slow);
	add_atomic(list, COUNTER, &db->halts_forced);
	add_atomic(list, COUNTER, &db->touches_spilled);
	add_atomic(list, COUNTER, &db->touches_lost);
	add_atomic(list, COUNTER, &db->users_spilled);
	add_atomic(list, COUNTER, &db->evicted);
}

/* What is sampled of a phase: eros.sample_of_phase, after its number. */
static void
read_phase(ErosPhaseCounters *phase, SampledList *list)
{
	list->n = 0;
	add_atomic(list, GAUGE, &phase->users);
	add_atomic(list, COUNTER, &phase->transitions);
	add_atomic(list, COUNTER, &phase->batches);
	add_atomic(list, COUNTER, &phase->users_done);
	add_atomic(list, COUNTER_NS, &phase->cpu_granted_ns);
	add_atomic(list, COUNTER_NS, &phase->cpu_used_ns);
	add_atomic(list, COUNTER_NS, &phase->cpu_yielded_ns);
	add_atomic(list, COUNTER_NS, &phase->throttled_ns);
}

/* What is sampled of a handler: eros.sample_of_handler, after its id and phase. */
static void
read_handler(ErosHandlerStats *stats, SampledList *list)
{
	TimestampTz due = (TimestampTz) pg_atomic_read_u64(&stats->next_due);
	TimestampTz now = eros_now();

	list->n = 0;
	add_atomic(list, GAUGE, &stats->pending);
	add_atomic(list, GAUGE, &stats->failed);
	add(list, GAUGE_QUIET, due != 0 && due < now ? (uint64) (now - due) / 1000 : 0);
	add_atomic(list, COUNTER, &stats->batches);
	add_atomic(list, COUNTER, &stats->users_done);
	add_atomic(list, COUNTER, &stats->batches_failed);
	add_atomic(list, COUNTER, &stats->batches_halted);
	add_atomic(list, COUNTER_NS, &stats->cpu_used_ns);
	add_atomic(list, COUNTER_NS, &stats->cpu_halted_ns);
	add_atomic(list, COUNTER, &stats->stored);
	add_atomic(list, COUNTER, &stats->hits);
	add_atomic(list, COUNTER, &stats->misses);
	add_atomic(list, COUNTER, &stats->closed);
	add_atomic(list, COUNTER, &stats->unread);
	add_atomic(list, COUNTER, &stats->jobs_added);
	add_atomic(list, COUNTER, &stats->refreshed);
	add_atomic(list, COUNTER, &stats->stored_bytes);
	add_atomic(list, COUNTER, &stats->wal_bytes);
	add_atomic(list, COUNTER, &stats->crossings);
	add_atomic(list, COUNTER, &stats->backfilled);
	add_atomic(list, COUNTER, &stats->wal_fpi);
	add(list, GAUGE, eros_cache_bytes_of(stats));
}

/* Tells whether something has changed that is worth a sample. */
static bool
has_changed(const SampledList *list, const uint64 *sampled)
{
	for (int i = 0; i < list->n; i++)
	{
		SampledKind kind = list->values[i].kind;

		if (kind != COUNTER_QUIET && kind != COUNTER_QUIET_NS && kind != GAUGE_QUIET &&
			list->values[i].value != sampled[i])
			return true;
	}
	return false;
}

/* Tells whether this process is the scheduler that is taking a sample. */
static bool sampling = false;

/* The sample from which to count: the one that the caller names, or the latest. */
static int
sample_to_count_from(FunctionCallInfo fcinfo, ErosDatabase *db)
{
	int latest = (int) pg_atomic_read_u32(&db->latest_sample);

	if (sampling || PG_ARGISNULL(0) ||
		pg_atomic_read_u64(&db->sample_name[1 - latest]) != (uint64) PG_GETARG_TIMESTAMPTZ(0))
		return latest;
	return 1 - latest;
}

/*
 * Makes the columns of a sample: of counters what has come since the last one.
 * While a sample is taken, what was read is kept for the next one to count from.
 */
static void
make_columns(const SampledList *list, const uint64 *sampled, uint64 *keep, Datum *row)
{
	for (int i = 0; i < list->n; i++)
	{
		SampledKind kind = list->values[i].kind;
		uint64 value = list->values[i].value;
		uint64 since = value > sampled[i] ? value - sampled[i] : 0;

		if (kind == GAUGE || kind == GAUGE_QUIET)
			row[i] = Int64GetDatum((int64) value);
		else if (kind == COUNTER_NS || kind == COUNTER_QUIET_NS)
			row[i] = Float8GetDatum(since / NS_PER_MS);
		else
			row[i] = Int64GetDatum((int64) since);
		if (sampling)
			keep[i] = value;
	}
}

/* sample_server(as_of) returns setof eros.sample_of_server: one row */
Datum
eros_sample_server(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ErosDatabase *db;
	SampledList list;
	Datum row[EROS_SAMPLED_OF_DATABASE];
	bool nulls[EROS_SAMPLED_OF_DATABASE] = {false};
	int from;

	eros_check_loaded();
	db = eros_my_database();
	InitMaterializedSRF(fcinfo, 0);
	if (db == NULL)
		return (Datum) 0;
	from = sample_to_count_from(fcinfo, db);
	read_server(db, &list);
	eros_check_row(rsinfo->setDesc, list.n);
	make_columns(&list, db->sampled[from], db->sampled[1 - from], row);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row, nulls);
	return (Datum) 0;
}

/* sample_phases(as_of) returns setof eros.sample_of_phase */
Datum
eros_sample_phases(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ErosConfig *config;
	ErosDatabase *db;
	int from;

	eros_check_loaded();
	InitMaterializedSRF(fcinfo, 0);
	db = eros_my_database();
	if (db == NULL || !eros_version_matches())
		return (Datum) 0; /* eros.status tells why */
	config = eros_config();
	from = sample_to_count_from(fcinfo, db);
	for (int p = 0; p < config->nphases; p++)
	{
		ErosPhaseCounters *phase = &db->phases[config->phases[p].phase];
		SampledList list;
		Datum row[EROS_SAMPLED_OF_PHASE + 1];
		bool nulls[EROS_SAMPLED_OF_PHASE + 1] = {false};

		row[0] = Int16GetDatum(config->phases[p].phase);
		read_phase(phase, &list);
		eros_check_row(rsinfo->setDesc, list.n + 1);
		make_columns(&list, phase->sampled[from], phase->sampled[1 - from], row + 1);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row, nulls);
	}
	return (Datum) 0;
}

/* sample_handlers(as_of) returns setof eros.sample_of_handler */
Datum
eros_sample_handlers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ErosConfig *config;
	ErosDatabase *db;
	int from;

	eros_check_loaded();
	InitMaterializedSRF(fcinfo, 0);
	db = eros_my_database();
	if (db == NULL || !eros_version_matches())
		return (Datum) 0; /* eros.status tells why */
	config = eros_config();
	from = sample_to_count_from(fcinfo, db);
	for (int h = 0; h < config->nhandlers; h++)
	{
		ErosHandler *handler = &config->handlers[h];
		SampledList list;
		Datum row[EROS_SAMPLED_OF_HANDLER + 2];
		bool nulls[EROS_SAMPLED_OF_HANDLER + 2] = {false};

		if (!eros_handler_is_counted(handler->stats))
			continue;
		row[0] = Int32GetDatum(handler->handler_id);
		row[1] = Int16GetDatum(handler->phase);
		read_handler(handler->stats, &list);
		eros_check_row(rsinfo->setDesc, list.n + 2);
		make_columns(&list, handler->stats->sampled[from], handler->stats->sampled[1 - from],
					 row + 2);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row, nulls);
	}
	return (Datum) 0;
}

/* Tells whether anything has changed since the last sample. */
static bool
anything_changed(ErosDatabase *db, ErosConfig *config)
{
	SampledList list;
	int latest = (int) pg_atomic_read_u32(&db->latest_sample);

	read_server(db, &list);
	if (has_changed(&list, db->sampled[latest]))
		return true;
	for (int p = 0; p < config->nphases; p++)
	{
		ErosPhaseCounters *phase = &db->phases[config->phases[p].phase];

		read_phase(phase, &list);
		if (has_changed(&list, phase->sampled[latest]))
			return true;
	}
	for (int h = 0; h < config->nhandlers; h++)
	{
		if (!eros_handler_is_counted(config->handlers[h].stats))
			continue;
		read_handler(config->handlers[h].stats, &list);
		if (has_changed(&list, config->handlers[h].stats->sampled[latest]))
			return true;
	}
	return false;
}

/*
 * Writes the sample of the minute that ends with this boundary; returns whether
 * it did.  A scheduler before this one, or a server, may have written it: what
 * was counted since then goes into the next one.
 */
static bool
write_sample(ErosDatabase *db, TimestampTz boundary)
{
	static SPIPlanPtr plan = NULL;
	TimestampTz since = (TimestampTz) pg_atomic_read_u64(&db->sampled_at);
	int latest = (int) pg_atomic_read_u32(&db->latest_sample);
	Oid argtypes[] = {INT2OID, TIMESTAMPTZOID, TIMESTAMPTZOID};
	Datum values[] = {Int16GetDatum((boundary / USECS_PER_MINUTE) % (24 * 60)),
					  TimestampTzGetDatum(boundary),
					  /* not after its end, when the clock was set back meanwhile */
					  TimestampTzGetDatum(Min(since != 0 ? since : began_at, boundary))};

	eros_plan(&plan,
			  "INSERT INTO eros.history_ring AS r"
			  " (span_s, slot, sampled_at, counted_since, server, phases, handlers)"
			  " SELECT 60, $1, $2, $3, (SELECT s FROM eros.sample_server(NULL) s),"
			  "	ARRAY(SELECT p FROM eros.sample_phases(NULL) p),"
			  "	ARRAY(SELECT h FROM eros.sample_handlers(NULL) h)"
			  " ON CONFLICT (span_s, slot) DO UPDATE SET sampled_at = EXCLUDED.sampled_at,"
			  "	counted_since = EXCLUDED.counted_since, server = EXCLUDED.server,"
			  "	phases = EXCLUDED.phases, handlers = EXCLUDED.handlers"
			  " WHERE r.sampled_at <> EXCLUDED.sampled_at",
			  3, argtypes);
	pg_atomic_write_u64(&db->sample_name[1 - latest], 0);
	pg_memory_barrier();
	sampling = true;
	PG_TRY();
	{
		SPI_execute_plan(plan, values, NULL, false, 0);
	}
	PG_FINALLY();
	{
		sampling = false;
	}
	PG_END_TRY();
	if (SPI_processed == 0)
		return false;
	pg_memory_barrier();
	pg_atomic_write_u64(&db->sample_name[1 - latest], (uint64) boundary);
	return true;
}

/* Makes the sample that has been committed the latest. */
static void
publish_sample(ErosDatabase *db, TimestampTz now)
{
	pg_atomic_write_u64(&db->sampled_at, (uint64) now);
	pg_memory_barrier();
	pg_atomic_write_u32(&db->latest_sample, 1 - pg_atomic_read_u32(&db->latest_sample));
}

/* Begins the history of a scheduler: what it counts first, it counts from now on. */
void
eros_history_begin(void)
{
	began_at = eros_now();
	last_minute = 0;
	last_hour = 0;
}

/*
 * Takes a sample when a minute is over in which something has changed, and sums
 * up the hours that are over; has the scheduler woken for the next one.
 */
void
eros_history_sample(TimestampTz now, TimestampTz *next)
{
	ErosDatabase *db = eros_my_database();
	int64 minute = now / USECS_PER_MINUTE;
	TimestampTz sampled_at = (TimestampTz) pg_atomic_read_u64(&db->sampled_at);

	if (minute != last_minute)
	{
		bool changed;
		bool written;

		last_minute = minute;
		eros_process_begin();
		changed = sampled_at == 0 || anything_changed(db, eros_config());
		written = changed && write_sample(db, minute * USECS_PER_MINUTE);
		if (now / USECS_PER_HOUR != last_hour)
		{
			last_hour = now / USECS_PER_HOUR;
			SPI_execute("SELECT eros.sum_up_history()", false, 0);
		}
		eros_process_commit();
		if (written)
			publish_sample(db, now);
		if (changed)
			sampled_at = now;
	}

	/* what has changed a minute ago may have changed again, or else it is quiet */
	if (sampled_at / USECS_PER_MINUTE == minute)
		*next = Min(*next, (minute + 1) * USECS_PER_MINUTE);
}

/* note_scrape() returns timestamptz: somebody collects the metrics of this database */
Datum
eros_note_scrape(PG_FUNCTION_ARGS)
{
	TimestampTz now;
	ErosDatabase *db;

	eros_check_loaded();
	now = eros_now();
	db = eros_my_database();
	if (db != NULL)
	{
		TimestampTz last = (TimestampTz) pg_atomic_read_u64(&db->scraped_at);

		/* a person who looks, or watches, is no exporter: its scrapes come again and again */
		if (now - last > SCRAPE_GAP_US)
		{
			pg_atomic_write_u32(&db->scrapes, 1);
			pg_atomic_write_u64(&db->scraping_since, (uint64) now);
		}
		else if (now - last >= SCRAPE_MIN_GAP_US)
			pg_atomic_fetch_add_u32(&db->scrapes, 1);
		pg_atomic_write_u64(&db->scraped_at, (uint64) now);
	}
	PG_RETURN_TIMESTAMPTZ(now);
}

/* monitor_info() returns record */
Datum
eros_monitor_info(PG_FUNCTION_ARGS)
{
	ErosDatabase *db;
	TupleDesc desc;
	Datum row[6] = {0};
	bool nulls[6] = {true, true, true, true, false, true};

	eros_check_loaded();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	eros_check_row(desc, lengthof(row));
	row[4] = Int64GetDatum((int64) eros_shared_bytes());
	db = eros_my_database();
	if (db != NULL)
	{
		row[0] = TimestampTzGetDatum((TimestampTz) pg_atomic_read_u64(&db->scraped_at));
		row[1] = TimestampTzGetDatum((TimestampTz) pg_atomic_read_u64(&db->sampled_at));
		row[2] = Int64GetDatum((int64) pg_atomic_read_u64(&db->scheduler_wal_bytes));
		nulls[0] = pg_atomic_read_u64(&db->scraped_at) == 0;
		nulls[1] = pg_atomic_read_u64(&db->sampled_at) == 0;
		row[3] = Int32GetDatum((int32) pg_atomic_read_u32(&db->scrapes));
		nulls[2] = nulls[3] = false;
		row[5] = TimestampTzGetDatum((TimestampTz) pg_atomic_read_u64(&db->scraping_since));
		nulls[5] = nulls[0];
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), row, nulls)));
}
