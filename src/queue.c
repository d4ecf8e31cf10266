/*-------------------------------------------------------------------------
 *
 * queue.c
 *		Jobs: added by the sweep, claimed and finished by workers.
 *
 * eros.job holds what is to be computed, at most one row per user and handler.
 * A worker claims rows by locking them, skips those that others have locked, and
 * deletes them in the transaction that stores the results: the row lock is the
 * lease.  Whatever ends the worker, the rows are pending again at once.  Claiming
 * and deleting do without SQL, which would take as long again as the work itself.
 *
 * Finished jobs leave dead entries at the begin of the index, which every claim
 * would walk over; while a snapshot elsewhere keeps them visible, there may be
 * millions.  So a claim begins where the last one that was committed has ended,
 * or where a batch begins that was rolled back since.  What is missed (a job
 * whose transaction commits late, the batch of a worker that was killed) is
 * found by looks from the very begin, of which there are as many as a small part
 * of the time pays for, and one a minute.
 *
 * All functions here run inside a transaction, connected to SPI, as the
 * extension's owner (or a superuser) with a safe search_path.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "eros.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(eros_account_jobs);

/* The columns of eros.job that are read without SQL, as the script creates them. */
#define JOB_USER_ID 1
#define JOB_HANDLER_ID 2
#define JOB_PHASE 3
#define JOB_DUE_AT 5

static const Oid job_types[] = {UUIDOID, INT4OID, INT2OID, INT2OID, TIMESTAMPTZOID};

/* ------------------------------------------------------------------------
 * Arrays for SQL
 * ------------------------------------------------------------------------
 */

/* Makes the uuid[] of keys that stand at the head of larger elements. */
static Datum
uuid_array(const void *first, Size stride, int n)
{
	Datum *elements = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		elements[i] = eros_key_get_datum((const ErosKey *) ((const char *) first + i * stride));
	return PointerGetDatum(construct_array(elements, n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
}

/* ------------------------------------------------------------------------
 * Claiming
 * ------------------------------------------------------------------------
 */

/* Looks from the begin take one part in so many of the CPU time, or wait for so long at most. */
#define LOOK_ALL_PART 300
#define LOOK_ALL_AFTER_NS UINT64CONST(60000000000)

/* The scheduler looks for jobs that were missed so long after such a look is due. */
#define LOOK_AGAIN_US 100000

/*
 * Tells from when on to look for jobs that are due.  Begins the measurement of
 * a look from the very begin, which end_look() ends.
 */
static TimestampTz
begin_look(const ErosHandler *handler, uint64 *start_cpu_ns)
{
	ErosHandlerStats *stats = handler->stats;

	*start_cpu_ns = eros_process_cpu_ns();
	if (!OidIsValid(stats->dboid) ||
		eros_monotonic_ns() >= pg_atomic_read_u64(&stats->look_all_at_ns))
		return DT_NOBEGIN;
	return (TimestampTz) pg_atomic_read_u64(&stats->due_from);
}

/* Notes when one can look from the very begin again. */
static void
end_look(const ErosHandler *handler, TimestampTz from, uint64 start_cpu_ns)
{
	/* by CPU time: on a busy machine a short look takes long */
	uint64 pause_ns = (eros_process_cpu_ns() - start_cpu_ns) * LOOK_ALL_PART;

	if (TIMESTAMP_IS_NOBEGIN(from))
		pg_atomic_write_u64(&handler->stats->look_all_at_ns,
							eros_monotonic_ns() + Min(pause_ns, LOOK_ALL_AFTER_NS));
}

/* Notes that the jobs of a claim are done: the next claim begins after them. */
void
eros_queue_note_done(const ErosHandler *handler, const ErosClaim *claim)
{
	uint64 from = pg_atomic_read_u64(&handler->stats->due_from);

	/* not over the jobs of a batch that was put back meanwhile */
	while (
		pg_atomic_read_u32(&handler->stats->backs) == claim->backs &&
		(TimestampTz) from < claim->last_due &&
		!pg_atomic_compare_exchange_u64(&handler->stats->due_from, &from, (uint64) claim->last_due))
		;
}

/* Notes that the jobs of a claim are pending again: the next claim begins with them. */
void
eros_queue_note_back(const ErosHandler *handler, const ErosClaim *claim)
{
	uint64 from = pg_atomic_read_u64(&handler->stats->due_from);

	/* before and after: no claim that began with the old due_from notes that it is done */
	pg_atomic_fetch_add_u32(&handler->stats->backs, 1);
	while ((TimestampTz) from > claim->first_due &&
		   !pg_atomic_compare_exchange_u64(&handler->stats->due_from, &from,
										   (uint64) claim->first_due))
		;
	pg_atomic_fetch_add_u32(&handler->stats->backs, 1);
}

static int
compare_jobs(const void *a, const void *b)
{
	return eros_key_compare(&((const ErosJob *) a)->key, &((const ErosJob *) b)->key);
}

/* Begins a claim of so many jobs at most. */
static void
begin_claim(ErosClaim *claim, const ErosHandler *handler, int limit)
{
	claim->njobs = 0;
	claim->backs = pg_atomic_read_u32(&handler->stats->backs);
	pg_read_barrier(); /* before due_from is read */
	claim->first_due = DT_NOEND;
	claim->last_due = DT_NOBEGIN;
	claim->jobs = MemoryContextAlloc(claim->context, sizeof(ErosJob) * Max(limit, 1));
	claim->keys = MemoryContextAlloc(claim->context, sizeof(ErosKey) * Max(limit, 1));
}

/* Adds a job whose row has been locked. */
static void
add_claimed(ErosClaim *claim, Datum user, const ItemPointerData *ctid, Datum due_at)
{
	TimestampTz due = DatumGetTimestampTz(due_at);
	ErosJob *job = &claim->jobs[claim->njobs++];

	job->key = eros_key_from_stored(DatumGetUUIDP(user));
	job->ctid = *ctid;
	claim->first_due = Min(claim->first_due, due);
	claim->last_due = Max(claim->last_due, due);
}

/* Ends a claim: its jobs are put in the order of their keys. */
static void
end_claim(ErosClaim *claim)
{
	qsort(claim->jobs, claim->njobs, sizeof(ErosJob), compare_jobs);
	for (int i = 0; i < claim->njobs; i++)
		claim->keys[i] = claim->jobs[i].key;
}

/*
 * Opens the index of pending jobs.  An administrator may have dropped it, or
 * made another one of this name: a scan would compare what cannot be compared.
 */
static Relation
open_pending_index(Relation job)
{
	Oid indexid = get_relname_relid("job_pending_idx", RelationGetNamespace(job));
	Relation index = OidIsValid(indexid) ? index_open(indexid, AccessShareLock) : NULL;
	Form_pg_index form = index != NULL ? index->rd_index : NULL;

	eros_check_columns(job, job_types, lengthof(job_types));
	if (form == NULL || form->indrelid != RelationGetRelid(job) || !form->indisvalid ||
		form->indnkeyatts != 3 || form->indkey.values[0] != JOB_PHASE ||
		form->indkey.values[1] != JOB_HANDLER_ID || form->indkey.values[2] != JOB_DUE_AT ||
		index->rd_rel->relam != BTREE_AM_OID ||
		heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("the index \"job_pending_idx\" of eros.job is not there"),
						errhint("Run CREATE INDEX job_pending_idx ON eros.job (phase, handler_id, "
								"due_at) WHERE status = 'pending'.")));
	return index;
}

/* Begins a scan of the index of pending jobs, for those of a handler that are due. */
static IndexScanDesc
begin_pending_scan(const ErosHandler *handler, Relation job, Relation index, TimestampTz from)
{
	ScanKeyData keys[4];
	IndexScanDesc scan = eros_index_beginscan(job, index, GetActiveSnapshot(), 4);

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT2EQ, Int16GetDatum(handler->phase));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(handler->handler_id));
	ScanKeyInit(&keys[2], 3, BTGreaterEqualStrategyNumber, F_TIMESTAMPTZ_GE,
				TimestampTzGetDatum(from));
	ScanKeyInit(&keys[3], 3, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE,
				TimestampTzGetDatum(eros_now()));
	index_rescan(scan, keys, 4, NULL, 0);
	return scan;
}

/*
 * Claims the jobs of a handler that have been due for the longest: what SELECT
 * ... ORDER BY due_at LIMIT ... FOR UPDATE SKIP LOCKED does, at half the price.
 */
void
eros_queue_claim(const ErosHandler *handler, int limit, ErosClaim *claim)
{
	Relation job = eros_open_table("job");
	Relation index = open_pending_index(job);
	TupleTableSlot *found = table_slot_create(job, NULL);
	TupleTableSlot *locked = table_slot_create(job, NULL);
	uint64 start_cpu_ns;
	TimestampTz from;
	IndexScanDesc scan;

	begin_claim(claim, handler, limit);
	from = begin_look(handler, &start_cpu_ns);
	scan = begin_pending_scan(handler, job, index, from);
	while (claim->njobs < limit && index_getnext_slot(scan, ForwardScanDirection, found))
	{
		ItemPointerData ctid = found->tts_tid;
		TM_FailureData failure;
		bool isnull;

		CHECK_FOR_INTERRUPTS();
		if (table_tuple_lock(job, &ctid, GetActiveSnapshot(), locked, GetCurrentCommandId(true),
							 LockTupleExclusive, LockWaitSkip, 0, &failure) == TM_Ok)
			add_claimed(claim, slot_getattr(found, JOB_USER_ID, &isnull), &ctid,
						slot_getattr(found, JOB_DUE_AT, &isnull));
	}
	end_claim(claim);
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(locked);
	ExecDropSingleTupleTableSlot(found);
	index_close(index, AccessShareLock);
	table_close(job, AccessShareLock);
	end_look(handler, from, start_cpu_ns);
}

/* Claims the jobs of these very users, as far as nobody else has them. */
void
eros_queue_claim_users(const ErosHandler *handler, const ErosKey *keys, int nkeys, ErosClaim *claim)
{
	static SPIPlanPtr plan = NULL;
	Oid argtypes[] = {INT4OID, UUIDARRAYOID};
	Datum values[] = {Int32GetDatum(handler->handler_id), uuid_array(keys, sizeof(ErosKey), nkeys)};
	bool isnull;

	eros_plan(&plan,
			  "SELECT j.user_id, j.ctid, j.due_at FROM eros.job j"
			  " WHERE j.handler_id = $1 AND j.user_id = ANY ($2) AND j.status = 'pending'"
			  " FOR UPDATE SKIP LOCKED",
			  2, argtypes);
	SPI_execute_plan(plan, values, NULL, false, nkeys);
	begin_claim(claim, handler, (int) SPI_processed);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;

		add_claimed(claim, SPI_getbinval(tuple, desc, 1, &isnull),
					(ItemPointer) DatumGetPointer(SPI_getbinval(tuple, desc, 2, &isnull)),
					SPI_getbinval(tuple, desc, 3, &isnull));
	}
	end_claim(claim);
	SPI_freetuptable(SPI_tuptable);
}

/* Deletes claimed jobs; they are not pending any more when this commits. */
static void
delete_jobs(const ErosHandler *handler, const ErosJob *jobs, int njobs)
{
	Relation job = eros_open_table("job");
	int64 deleted = 0;

	for (int i = 0; i < njobs; i++)
	{
		ItemPointerData ctid = jobs[i].ctid;
		TM_FailureData failure;

		/* nobody else can have deleted it, but the handler may, as a superuser's */
		if (table_tuple_delete(job, &ctid, GetCurrentCommandId(true), GetActiveSnapshot(),
							   InvalidSnapshot, true, &failure, false) == TM_Ok)
			deleted++;
	}
	table_close(job, AccessShareLock);
	CommandCounterIncrement();
	eros_count_on_commit(&handler->stats->pending, -deleted);
}

/*
 * Drops from a claim the jobs of users who are active; what they need is
 * decided when they are idle again.
 */
void
eros_queue_drop_active(const ErosHandler *handler, ErosClaim *claim)
{
	ErosJob *active = palloc(sizeof(ErosJob) * Max(claim->njobs, 1));
	int nactive = 0;
	int nidle = 0;

	for (int i = 0; i < claim->njobs; i++)
	{
		if (eros_tracker_is_active(MyDatabaseId, &claim->jobs[i].key))
			active[nactive++] = claim->jobs[i];
		else
			claim->jobs[nidle++] = claim->jobs[i];
	}
	if (nactive == 0)
		return;
	delete_jobs(handler, active, nactive);
	claim->njobs = nidle;
	for (int i = 0; i < nidle; i++)
		claim->keys[i] = claim->jobs[i].key;
}

/* Deletes the jobs of a claim: they are done. */
void
eros_queue_finish(const ErosHandler *handler, const ErosClaim *claim)
{
	delete_jobs(handler, claim->jobs, claim->njobs);
}

/* The time until a job is tried again: doubled every time, with a jitter of a quarter. */
static int64
retry_delay_us(int attempts)
{
	double delay_us = eros_retry_delay_ms * 1000.0;

	for (int i = 1; i < attempts && delay_us < eros_retry_delay_max_ms * 1000.0; i++)
		delay_us *= 2;
	delay_us = Min(delay_us, eros_retry_delay_max_ms * 1000.0);
	return (int64) (delay_us * (0.75 + 0.5 * eros_random_double()));
}

/*
 * Records that a user's job has failed: it is tried again later, or set to
 * failed when it is out of attempts.  Returns whether the latter.
 */
bool
eros_queue_record_failure(const ErosHandler *handler, const ErosKey *key, const char *message)
{
	Oid argtypes[] = {INT4OID, UUIDOID, TEXTOID, INT4OID, TIMESTAMPTZOID};
	Datum values[] = {Int32GetDatum(handler->handler_id), eros_key_get_datum(key),
					  CStringGetTextDatum(message), Int32GetDatum(handler->max_attempts),
					  (Datum) 0};
	bool isnull;
	int attempts;

	SPI_execute_with_args("SELECT j.attempts FROM eros.job j"
						  " WHERE j.handler_id = $1 AND j.user_id = $2 AND j.status = 'pending'"
						  " FOR UPDATE SKIP LOCKED",
						  2, argtypes, values, NULL, false, 0);
	if (SPI_processed == 0)
		return false; /* he has returned, or somebody else has it now */
	attempts =
		1 + DatumGetInt16(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	values[4] = TimestampTzGetDatum(eros_now() + retry_delay_us(attempts));
	SPI_execute_with_args(
		"UPDATE eros.job SET attempts = attempts + 1, last_error = $3, due_at = $5,"
		" status = CASE WHEN attempts + 1 >= $4 THEN 'failed'"
		" ELSE 'pending' END::eros.job_status"
		" WHERE handler_id = $1 AND user_id = $2",
		5, argtypes, values, NULL, false, 0);
	if (attempts < handler->max_attempts)
		return false;
	eros_count_on_commit(&handler->stats->pending, -1);
	eros_count_on_commit(&handler->stats->failed, 1);
	return true;
}

/* ------------------------------------------------------------------------
 * Adding
 * ------------------------------------------------------------------------
 */

/*
 * Adds jobs for users who crossed into the handler's phase, unless one is
 * there, or a result is still fresh that was computed since the user's last
 * touch.  They are due one microsecond after the other, up to now, so that a
 * claim has a place to end.  Returns how many it added.
 */
uint64
eros_queue_add(const ErosHandler *handler, const ErosIdleUser *users, int nusers, TimestampTz now)
{
	static SPIPlanPtr plan = NULL;
	Oid argtypes[] = {UUIDARRAYOID,	  TIMESTAMPTZARRAYOID, INT4OID, INT2OID, INT2OID,
					  TIMESTAMPTZOID, TIMESTAMPTZARRAYOID};
	Datum *seen = palloc(sizeof(Datum) * Max(nusers, 1));
	Datum *due = palloc(sizeof(Datum) * Max(nusers, 1));
	TimestampTz due_last = eros_now();
	ErosIdleUser *mine = palloc(sizeof(ErosIdleUser) * Max(nusers, 1));
	TimestampTz first_seen = DT_NOEND;
	int n = 0;
	Datum values[7];

	for (int i = 0; i < nusers; i++)
	{
		if (eros_key_is_bigint(&users[i].key) != (handler->key_type == EROS_KEY_BIGINT))
			continue;
		mine[n] = users[i];
		seen[n] = TimestampTzGetDatum(users[i].last_seen);
		first_seen = Min(first_seen, users[i].last_seen);
		n++;
	}
	if (n == 0)
		return 0;
	for (int i = 0; i < n; i++)
		due[i] = TimestampTzGetDatum(due_last - (n - 1 - i));

	/*
	 * A result since the last touch expires at least a lifetime after it:
	 * that bound leaves most partitions out.
	 */
	values[0] = uuid_array(mine, sizeof(ErosIdleUser), n);
	values[1] = PointerGetDatum(
		construct_array(seen, n, TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[2] = Int32GetDatum(handler->handler_id);
	values[3] = Int16GetDatum(handler->phase);
	values[4] = Int16GetDatum(handler->bucket);
	values[5] = TimestampTzGetDatum(
		Max(now + EROS_REFRESH_LEAD(handler->ttl_us), first_seen + handler->ttl_us));
	values[6] = PointerGetDatum(
		construct_array(due, n, TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	eros_plan(&plan,
			  "INSERT INTO eros.job (user_id, handler_id, phase, due_at)"
			  " SELECT n.user_id, $3, $4, n.due_at"
			  " FROM unnest($1, $2, $7) AS n (user_id, last_seen, due_at)"
			  " WHERE NOT EXISTS (SELECT FROM eros.cache c"
			  "	WHERE c.bucket = $5 AND c.expires_at > $6 AND c.handler_id = $3"
			  "	  AND c.user_id = n.user_id AND c.computed_at > n.last_seen)"
			  " ON CONFLICT (user_id, handler_id) DO NOTHING",
			  7, argtypes);
	SPI_execute_plan(plan, values, NULL, false, 0);
	eros_count_on_commit(&handler->stats->pending, (int64) SPI_processed);
	eros_count_on_commit(&handler->stats->jobs_added, (int64) SPI_processed);
	return SPI_processed;
}

/* Deletes the pending jobs of users who have returned; what a worker holds, the worker drops. */
void
eros_queue_delete_users(const ErosKey *keys, int nkeys)
{
	static SPIPlanPtr plan = NULL;
	Oid argtypes[] = {UUIDARRAYOID};
	Datum values[] = {uuid_array(keys, sizeof(ErosKey), nkeys)};

	eros_plan(&plan,
			  "WITH gone AS (DELETE FROM eros.job j WHERE j.ctid = ANY (ARRAY("
			  "	SELECT p.ctid FROM eros.job p"
			  "	WHERE p.user_id = ANY ($1) AND p.status = 'pending'"
			  "	FOR UPDATE SKIP LOCKED)) RETURNING j.handler_id),"
			  " sums AS (SELECT g.handler_id, count(*) AS jobs FROM gone g GROUP BY 1)"
			  " SELECT eros.account_jobs(s.handler_id, 'pending', -s.jobs) FROM sums s",
			  1, argtypes);
	SPI_execute_plan(plan, values, NULL, false, 0);
}

/* Deletes the jobs that a sweep has added while their handler was being dropped. */
void
eros_queue_delete_handler(int32 handler_id)
{
	Oid argtypes[] = {INT4OID};
	Datum values[] = {Int32GetDatum(handler_id)};

	/* by the index, which begins with the phase */
	SPI_execute_with_args("DELETE FROM eros.job WHERE handler_id = $1 AND status = 'pending'"
						  " AND phase = ANY ('{1,2,3,4,5,6,7,8}')",
						  1, argtypes, values, NULL, false, 0);
}

/*
 * When the next job of a handler is due, or when to look again for those that a
 * look from where the last claim ended may have missed; DT_NOEND when there is
 * none.
 */
TimestampTz
eros_queue_next_due(const ErosHandler *handler)
{
	static SPIPlanPtr plan = NULL;
	uint64 start_cpu_ns;
	TimestampTz from = begin_look(handler, &start_cpu_ns);
	uint64 noted = pg_atomic_read_u64(&handler->stats->due_from);
	Oid argtypes[] = {INT2OID, INT4OID, TIMESTAMPTZOID};
	Datum values[] = {Int16GetDatum(handler->phase), Int32GetDatum(handler->handler_id),
					  TimestampTzGetDatum(from)};
	TimestampTz due = DT_NOEND;
	bool isnull;

	eros_plan(&plan,
			  "SELECT j.due_at FROM eros.job j"
			  " WHERE j.phase = $1 AND j.handler_id = $2 AND j.status = 'pending'"
			  "   AND j.due_at >= $3"
			  " ORDER BY j.due_at LIMIT 1",
			  3, argtypes);
	SPI_execute_plan(plan, values, NULL, true, 1);
	if (SPI_processed > 0)
	{
		due = DatumGetTimestampTz(
			SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));

		/* not beyond now: what is added comes before a job that waits for its next try */
		pg_atomic_compare_exchange_u64(&handler->stats->due_from, &noted,
									   (uint64) Min(due, eros_now()));
	}
	pg_atomic_write_u64(&handler->stats->next_due, due == DT_NOEND ? 0 : (uint64) due);
	end_look(handler, from, start_cpu_ns);
	if (!TIMESTAMP_IS_NOBEGIN(from))
	{
		uint64 look_all_at_ns = pg_atomic_read_u64(&handler->stats->look_all_at_ns);
		uint64 now_ns = eros_monotonic_ns();

		/* well after now, or it would be taken for a job that is due */
		due = Min(due, eros_now() + LOOK_AGAIN_US +
						   (int64) (look_all_at_ns - Min(now_ns, look_all_at_ns)) / 1000);
	}
	return due;
}

/*
 * Has jobs that were due already be due now, after the clock was set back; what
 * waits for its next try waits on.  Returns whether that is done: what a worker
 * holds is left to the next call.
 */
bool
eros_queue_set_back(TimestampTz now)
{
	Oid argtypes[] = {TIMESTAMPTZOID};
	Datum values[] = {TimestampTzGetDatum(now)};
	ErosConfig *config = eros_config();

	SPI_execute_with_args("UPDATE eros.job j SET due_at = $1 WHERE j.ctid = ANY (ARRAY("
						  "	SELECT f.ctid FROM eros.job f WHERE f.status = 'pending'"
						  "	  AND f.attempts = 0 AND f.due_at > $1 FOR UPDATE SKIP LOCKED))",
						  1, argtypes, values, NULL, false, 0);
	for (int h = 0; h < config->nhandlers; h++)
		pg_atomic_write_u64(&config->handlers[h].stats->due_from, (uint64) DT_NOBEGIN);
	SPI_execute_with_args("SELECT FROM eros.job f WHERE f.status = 'pending'"
						  " AND f.attempts = 0 AND f.due_at > $1 LIMIT 1",
						  1, argtypes, values, NULL, false, 0);
	return SPI_processed == 0;
}

/* Counts the jobs of all handlers anew, when the scheduler starts. */
void
eros_queue_recount(void)
{
	ErosConfig *config = eros_config();
	bool isnull;

	SPI_execute("SELECT j.handler_id, count(*) FILTER (WHERE j.status = 'pending'),"
				" count(*) FILTER (WHERE j.status = 'failed') FROM eros.job j GROUP BY 1",
				true, 0);
	for (int h = 0; h < config->nhandlers; h++)
	{
		ErosHandlerStats *stats = config->handlers[h].stats;

		pg_atomic_write_u64(&stats->pending, 0);
		pg_atomic_write_u64(&stats->failed, 0);
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			HeapTuple tuple = SPI_tuptable->vals[i];
			TupleDesc desc = SPI_tuptable->tupdesc;

			if (DatumGetInt32(SPI_getbinval(tuple, desc, 1, &isnull)) !=
				config->handlers[h].handler_id)
				continue;
			pg_atomic_write_u64(&stats->pending,
								DatumGetInt64(SPI_getbinval(tuple, desc, 2, &isnull)));
			pg_atomic_write_u64(&stats->failed,
								DatumGetInt64(SPI_getbinval(tuple, desc, 3, &isnull)));
		}
	}
}

/* account_jobs(handler_id, status, jobs) returns void */
Datum
eros_account_jobs(PG_FUNCTION_ARGS)
{
	int32 handler_id = PG_GETARG_INT32(0);
	char *status = DatumGetCString(DirectFunctionCall1(enum_out, PG_GETARG_DATUM(1)));
	int64 jobs = PG_GETARG_INT64(2);
	ErosHandler *handler = eros_handler_by_id(handler_id);

	if (handler != NULL)
		eros_count_on_commit(strcmp(status, "failed") == 0 ? &handler->stats->failed
														   : &handler->stats->pending,
							 jobs);
	PG_RETURN_VOID();
}
