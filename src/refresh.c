/*-------------------------------------------------------------------------
 *
 * refresh.c
 *		Results that expire soon are computed anew while their user is away.
 *
 * No index leads to the results that expire soon: it would have to be changed
 * with each result that is stored, which costs more than to look for them (see
 * cache.c).  Instead a hand goes round: all results that may expire soon lie in
 * one or two partitions of a bucket, and the hand passes over the pages of these
 * in half the lead, the time before its expiry from which on a result is to be
 * refreshed.  So each result is seen twice before it expires, and the load is
 * even.  One that has expired meanwhile is refreshed, too, while its partition
 * has not.
 *
 * A step is for as many pages as the time since the last one asks for, up to a
 * bound, and is followed by a rest: looking takes five percent of a core at
 * most.  Where that is not enough, or nobody has moved the hand for a while, a
 * round takes longer than the lead, and a whole partition may have expired
 * before the hand came.  That is noticed at the end of the round, and the
 * backfill looks at all users.
 *
 * A step works on a copy of the hand, which counts when its transaction has
 * committed.  After an error the hand goes on behind the pages where it was: they
 * are seen again in the next round.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "eros.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/itemptr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/* The hand comes round in half the shortest lead, by so many steps. */
#define STEPS_PER_ROUND 32

/* Pages in one step, at most: 64 MB, and not much of the shared buffers. */
#define MAX_STEP_BLOCKS ((uint64) Min(8192, NBuffers / 8))

/* So many times the CPU time of looking is the rest after it. */
#define REST_FACTOR 20

/* The enabled handlers whose results are in a bucket, and what they refresh. */
typedef struct Bucket
{
	int nhandlers;
	int64 shortest_lead_us;
	TimestampTz latest; /* no result that expires later is to be refreshed */
	Datum *handler_ids;
	Datum *phases;
	Datum *upto; /* results that expire up to then are */
} Bucket;

/* Collects the handlers of a bucket. */
static void
collect_handlers(Bucket *bucket, int number, TimestampTz now)
{
	ErosConfig *config = eros_config();
	Size size = sizeof(Datum) * Max(config->nhandlers, 1);

	bucket->nhandlers = 0;
	bucket->shortest_lead_us = PG_INT64_MAX;
	bucket->latest = now;
	bucket->handler_ids = palloc(size);
	bucket->phases = palloc(size);
	bucket->upto = palloc(size);
	for (int h = 0; h < config->nhandlers; h++)
	{
		ErosHandler *handler = &config->handlers[h];
		int64 lead_us = EROS_REFRESH_LEAD(handler->ttl_us);

		if (!handler->enabled || handler->bucket != number)
			continue;
		bucket->handler_ids[bucket->nhandlers] = Int32GetDatum(handler->handler_id);
		bucket->phases[bucket->nhandlers] = Int16GetDatum(handler->phase);
		bucket->upto[bucket->nhandlers] = TimestampTzGetDatum(now + lead_us);
		bucket->shortest_lead_us = Min(bucket->shortest_lead_us, lead_us);
		bucket->latest = Max(bucket->latest, now + lead_us);
		bucket->nhandlers++;
	}
}

/* Counts the jobs that were added for a handler. */
static void
count_jobs(int32 handler_id, int64 jobs)
{
	ErosHandler *handler = eros_handler_by_id(handler_id);

	if (handler == NULL)
		return;
	eros_count_on_commit(&handler->stats->pending, jobs);
	eros_count_on_commit(&handler->stats->jobs_added, jobs);
	eros_count_on_commit(&handler->stats->refreshed, jobs);
}

/* The first row of a page, for SQL. */
static Datum
first_of_block(BlockNumber block)
{
	ItemPointer tid = palloc(sizeof(ItemPointerData));

	ItemPointerSet(tid, block, 0);
	return PointerGetDatum(tid);
}

/*
 * Finds the results on some pages of a partition that are to be refreshed: they
 * expire soon, have no job, and their user is still idle.  Makes the arrays of
 * users, handlers and phases; returns whether there are any.
 *
 * A job that a worker finishes at this moment counts, if its older result does:
 * both are seen by one snapshot.  Job and user are looked for by subqueries, so
 * that this goes by their indexes, whatever the planner expects of how many
 * there are.
 */
static bool
find_expiring(const Bucket *bucket, const ErosExpiringPartition *part, BlockNumber from,
			  BlockNumber to, TimestampTz now, Datum *found)
{
	Oid argtypes[] = {INT4ARRAYOID, INT2ARRAYOID,	TIMESTAMPTZARRAYOID, TIDOID,
					  TIDOID,		TIMESTAMPTZOID, TIMESTAMPTZOID};
	int n = bucket->nhandlers;
	Datum values[] = {
		PointerGetDatum(construct_array(bucket->handler_ids, n, INT4OID, 4, true, TYPALIGN_INT)),
		PointerGetDatum(construct_array(bucket->phases, n, INT2OID, 2, true, TYPALIGN_SHORT)),
		PointerGetDatum(
			construct_array(bucket->upto, n, TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE)),
		first_of_block(from),
		first_of_block(to),
		TimestampTzGetDatum(bucket->latest),
		TimestampTzGetDatum(now - (int64) eros_max_idle_s * USECS_PER_SEC)};
	char *sql = psprintf(
		"SELECT array_agg(c.user_id), array_agg(c.handler_id), array_agg(h.phase)"
		" FROM %s c JOIN unnest($1, $2, $3) AS h (handler_id, phase, upto)"
		"	ON h.handler_id = c.handler_id"
		" WHERE c.ctid >= $4 AND c.ctid < $5 AND c.expires_at <= $6 AND c.expires_at <= h.upto"
		"   AND (SELECT j.attempts FROM eros.job j"
		"	WHERE j.user_id = c.user_id AND j.handler_id = c.handler_id) IS NULL"
		"   AND (SELECT a.phase FROM eros.activity a"
		"	WHERE a.user_id = c.user_id AND a.last_seen > $7) >= h.phase",
		quote_qualified_identifier(get_namespace_name(get_rel_namespace(part->relid)),
								   get_rel_name(part->relid)));
	bool isnull;

	SPI_execute_with_args(sql, lengthof(argtypes), argtypes, values, NULL, false, 0);
	for (int i = 0; i < 3; i++)
		found[i] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1, &isnull);
	return !isnull;
}

/*
 * Adds jobs for users, handlers and phases.  They are due one microsecond after
 * the other, as far as they would otherwise be due long before what has been
 * added since.
 */
static void
add_jobs(const Datum *found)
{
	static SPIPlanPtr plan = NULL;
	Oid argtypes[] = {UUIDARRAYOID, INT4ARRAYOID, INT2ARRAYOID, TIMESTAMPTZOID};
	Datum values[] = {found[0], found[1], found[2], TimestampTzGetDatum(eros_now())};
	bool isnull;

	eros_plan(&plan,
			  "WITH added AS ("
			  "	INSERT INTO eros.job (user_id, handler_id, phase, due_at)"
			  "	SELECT e.user_id, e.handler_id, e.phase,"
			  "		$4 - least(row_number() OVER (), 1000) * interval '1 us'"
			  "	FROM unnest($1, $2, $3) AS e (user_id, handler_id, phase)"
			  "	ON CONFLICT (user_id, handler_id) DO NOTHING RETURNING handler_id)"
			  " SELECT a.handler_id, count(*) FROM added a GROUP BY 1",
			  lengthof(argtypes), argtypes);
	SPI_execute_plan(plan, values, NULL, false, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;

		count_jobs(DatumGetInt32(SPI_getbinval(tuple, desc, 1, &isnull)),
				   DatumGetInt64(SPI_getbinval(tuple, desc, 2, &isnull)));
	}
}

/* Sees to the results on some pages of a partition; returns the CPU time of looking, in ns. */
static uint64
refresh_blocks(const Bucket *bucket, const ErosExpiringPartition *part, BlockNumber from,
			   BlockNumber to, TimestampTz now)
{
	uint64 start_ns = eros_process_cpu_ns();
	uint64 look_ns;
	Datum found[3];
	bool any = find_expiring(bucket, part, from, to, now, found);

	look_ns = eros_process_cpu_ns() - start_ns;
	if (any)
		add_jobs(found);
	return look_ns;
}

/*
 * Moves the hand over so many of the pages, which are not more than there are.
 * Returns the CPU time of looking, in ns; tells whether a round has ended.
 */
static uint64
move_hand(ErosRefreshHand *hand, const Bucket *bucket, const ErosExpiringPartition *parts,
		  int nparts, uint64 nblocks, TimestampTz now, bool *round_ended)
{
	uint64 look_ns = 0;
	int at = 0;

	*round_ended = nblocks == 0; /* nothing to see is seen at once */
	while (at < nparts && parts[at].upper < hand->upper)
		at++;
	at = at < nparts ? at : 0;
	if (nblocks > 0 && parts[at].upper != hand->upper)
		hand->block = 0;
	while (nblocks > 0)
	{
		const ErosExpiringPartition *part = &parts[at];
		BlockNumber from = Min(hand->block, part->nblocks);
		uint64 n = Min(Min(nblocks, MAX_STEP_BLOCKS), part->nblocks - from);
		BlockNumber to = from + (BlockNumber) n;

		CHECK_FOR_INTERRUPTS();
		nblocks -= n;
		hand->block = to; /* also when these pages cannot be read */
		if (to == part->nblocks)
		{
			at = (at + 1) % nparts;
			*round_ended = *round_ended || at == 0;
			hand->block = 0;
		}
		hand->upper = parts[at].upper;
		if (n > 0)
			look_ns += refresh_blocks(bucket, part, from, to, now);
	}
	return look_ns;
}

/* The pages of partitions. */
static uint64
count_blocks(const ErosExpiringPartition *parts, int nparts)
{
	uint64 nblocks = 0;

	for (int i = 0; i < nparts; i++)
		nblocks += parts[i].nblocks;
	return nblocks;
}

/* The time between two steps. */
static int64
pause_between_steps(int64 round_us)
{
	if (!EROS_READS_PARTS)
		return Max(round_us, eros_sweep_interval_us());
	return Min(Max(round_us / STEPS_PER_ROUND, eros_sweep_interval_us()), USECS_PER_MINUTE);
}

/*
 * Does a step for a bucket, if it is due; returns when the next one is.  Tells
 * whether a round has taken so long that results may have gone unseen.
 */
TimestampTz
eros_refresh_step(ErosRefreshHand *hand, int number, TimestampTz now, bool *late)
{
	Bucket bucket;
	ErosExpiringPartition *parts;
	int nparts;
	int64 round_us;
	int64 pause_us;
	int64 elapsed_us;
	uint64 total;
	uint64 owed;
	uint64 nblocks;
	uint64 look_ns;
	bool round_ended;

	*late = false;
	collect_handlers(&bucket, number, now);
	if (bucket.nhandlers == 0)
	{
		memset(hand, 0, sizeof(ErosRefreshHand));
		return DT_NOEND;
	}
	round_us = Max(bucket.shortest_lead_us / 2, 1);
	pause_us = pause_between_steps(round_us);
	if (hand->moved_at <= now && Max(hand->moved_at + pause_us, hand->not_before) > now)
		return Max(hand->moved_at + pause_us, hand->not_before);

	elapsed_us = now - hand->moved_at;
	if (elapsed_us < 0 || elapsed_us > round_us || !EROS_READS_PARTS)
		elapsed_us = round_us; /* the clock was set back, or this is the first step for long */
	nparts = eros_cache_expiring(number, now, bucket.latest, &parts);
	total = count_blocks(parts, nparts);
	owed = Min((uint64) ceil((double) total * elapsed_us / round_us), total);
	nblocks = EROS_READS_PARTS ? Min(owed, MAX_STEP_BLOCKS) : owed;
	look_ns = move_hand(hand, &bucket, parts, nparts, nblocks, now, &round_ended);

	hand->behind = nblocks < owed;
	hand->moved_at = now;
	if (hand->behind)
		hand->moved_at -= (int64) ((double) (owed - nblocks) / total * round_us);
	hand->not_before = now + (int64) (look_ns / 1000) * REST_FACTOR;
	if (round_ended)
	{
		*late = hand->round_began != 0 && now - hand->round_began > bucket.shortest_lead_us &&
				eros_cache_partition_upper(number, hand->round_began) <= now;
		hand->round_began = now;
	}
	return Max(hand->moved_at + pause_us, hand->not_before);
}

/* Looks at all results at once. */
void
eros_refresh_all(TimestampTz now)
{
	for (int number = 0; number < EROS_BUCKETS; number++)
	{
		ErosRefreshHand hand = {0};
		Bucket bucket;
		ErosExpiringPartition *parts;
		int nparts;
		bool round_ended;

		collect_handlers(&bucket, number, now);
		if (bucket.nhandlers == 0)
			continue;
		nparts = eros_cache_expiring(number, now, bucket.latest, &parts);
		move_hand(&hand, &bucket, parts, nparts, count_blocks(parts, nparts), now, &round_ended);
	}
}
