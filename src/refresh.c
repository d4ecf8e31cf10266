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
 * refreshed.  So each result is seen twice before it expires, the load is even,
 * and whoever loses the hand's place loses nothing.
 *
 * A step is for as many pages as the time since the last one asks for, up to a
 * bound, and is followed by a rest: the hand takes two percent of a core at
 * most.  When the results are too many for that, it takes longer to come round,
 * and some expire.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "eros.h"
#include "executor/spi.h"
#include "storage/itemptr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/* The hand comes round in this part of the shortest lead, by so many steps. */
#define ROUND_US(lead_us) (Max((lead_us) / 2, 1))
#define STEPS_PER_ROUND 32

/* Pages in one step, at most: 64 MB. */
#define MAX_STEP_BLOCKS 8192

/* Before PostgreSQL 14, a part of a table cannot be read alone. */
#if PG_VERSION_NUM >= 140000
#define READS_PARTS true
#else
#define READS_PARTS false
#endif

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
 * Adds jobs for the results on some pages of a partition which expire soon, if
 * their user is still idle.  He is looked for by a subquery, so that this goes
 * by the index, whatever the planner expects of how many results there are.
 *
 * The jobs are due one microsecond after the other, as far as they would
 * otherwise be due long before what has been added since.
 */
static void
refresh_blocks(const Bucket *bucket, const ErosExpiringPartition *part, BlockNumber from,
			   BlockNumber to, TimestampTz now)
{
	Oid argtypes[] = {INT4ARRAYOID,	  INT2ARRAYOID,	  TIMESTAMPTZARRAYOID, TIDOID,		  TIDOID,
					  TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID,	   TIMESTAMPTZOID};
	int n = bucket->nhandlers;
	Datum values[] = {
		PointerGetDatum(construct_array(bucket->handler_ids, n, INT4OID, 4, true, TYPALIGN_INT)),
		PointerGetDatum(construct_array(bucket->phases, n, INT2OID, 2, true, TYPALIGN_SHORT)),
		PointerGetDatum(
			construct_array(bucket->upto, n, TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE)),
		first_of_block(from),
		first_of_block(to),
		TimestampTzGetDatum(now),
		TimestampTzGetDatum(bucket->latest),
		TimestampTzGetDatum(now - (int64) eros_max_idle_s * USECS_PER_SEC),
		TimestampTzGetDatum(eros_now())};
	char *sql = psprintf(
		"WITH expiring AS MATERIALIZED ("
		"	SELECT c.user_id, c.handler_id, c.expires_at FROM eros.%s c"
		"	WHERE c.ctid >= $4 AND c.ctid < $5 AND c.expires_at > $6 AND c.expires_at <= $7),"
		" added AS ("
		"	INSERT INTO eros.job (user_id, handler_id, phase, due_at)"
		"	SELECT e.user_id, e.handler_id, h.phase,"
		"		$9 - least(row_number() OVER (), 1000) * interval '1 us'"
		"	FROM expiring e JOIN unnest($1, $2, $3) AS h (handler_id, phase, upto)"
		"		ON h.handler_id = e.handler_id AND e.expires_at <= h.upto"
		"	WHERE (SELECT a.phase FROM eros.activity a"
		"		WHERE a.user_id = e.user_id AND a.last_seen > $8) >= h.phase"
		"	ON CONFLICT (user_id, handler_id) DO NOTHING RETURNING handler_id)"
		" SELECT a.handler_id, count(*) FROM added a GROUP BY 1",
		quote_identifier(get_rel_name(part->relid)));
	bool isnull;

	SPI_execute_with_args(sql, lengthof(argtypes), argtypes, values, NULL, false, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;

		count_jobs(DatumGetInt32(SPI_getbinval(tuple, desc, 1, &isnull)),
				   DatumGetInt64(SPI_getbinval(tuple, desc, 2, &isnull)));
	}
}

/* Moves the hand over so many of the pages, which are not more than there are. */
static void
move_hand(ErosRefreshHand *hand, const Bucket *bucket, const ErosExpiringPartition *parts,
		  int nparts, uint64 nblocks, TimestampTz now)
{
	int at = 0;

	while (at < nparts - 1 && parts[at].upper < hand->upper)
		at++;
	if (nblocks > 0 && parts[at].upper != hand->upper)
		hand->block = 0;
	while (nblocks > 0)
	{
		const ErosExpiringPartition *part = &parts[at];
		BlockNumber from = Min(hand->block, part->nblocks);
		BlockNumber to = from + (BlockNumber) Min(nblocks, part->nblocks - from);

		if (to > from)
			refresh_blocks(bucket, part, from, to, now);
		nblocks -= to - from;
		hand->block = to;
		if (to == part->nblocks)
		{
			at = (at + 1) % nparts;
			hand->block = 0;
		}
		hand->upper = parts[at].upper;
	}
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

/* Does the step of one bucket that is due, if one is; returns when the next one is. */
static TimestampTz
step_bucket(ErosRefreshHand *hand, int number, TimestampTz now)
{
	Bucket bucket;
	ErosExpiringPartition *parts;
	int nparts;
	int64 round_us;
	int64 pause_us;
	int64 elapsed_us = now - hand->moved_at;
	uint64 total;
	uint64 owed;
	uint64 nblocks;

	collect_handlers(&bucket, number, now);
	if (bucket.nhandlers == 0)
		return DT_NOEND;
	round_us = ROUND_US(bucket.shortest_lead_us);
	pause_us = READS_PARTS ? round_us / STEPS_PER_ROUND : round_us;
	pause_us = Min(Max(pause_us, eros_sweep_interval_us()), USECS_PER_MINUTE);
	if (elapsed_us >= 0 && elapsed_us < pause_us)
		return hand->moved_at + pause_us;
	if (elapsed_us < 0 || elapsed_us > round_us || !READS_PARTS)
		elapsed_us = round_us; /* the clock was set back, or this is the first step */

	nparts = eros_cache_expiring(number, now, bucket.latest, &parts);
	total = count_blocks(parts, nparts);
	owed = (uint64) ceil((double) total * elapsed_us / round_us);
	nblocks = READS_PARTS ? Min(owed, MAX_STEP_BLOCKS) : owed;
	move_hand(hand, &bucket, parts, nparts, nblocks, now);
	hand->moved_at = now;
	if (nblocks == owed)
		return now + pause_us;
	hand->moved_at -= (int64) ((double) (owed - nblocks) / total * round_us);
	return now;
}

/* Does what is due; returns when the next step is. */
TimestampTz
eros_refresh_step(ErosRefreshHand *hands, TimestampTz now)
{
	uint64 start_ns = eros_process_cpu_ns();
	TimestampTz next = DT_NOEND;
	int64 rest_us;

	for (int number = 0; number < EROS_BUCKETS; number++)
	{
		TimestampTz due = step_bucket(&hands[number], number, now);

		next = Min(next, due);
	}
	rest_us = (int64) ((eros_process_cpu_ns() - start_ns) * 50 / 1000);
	return Max(next, now + rest_us);
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

		collect_handlers(&bucket, number, now);
		if (bucket.nhandlers == 0)
			continue;
		nparts = eros_cache_expiring(number, now, bucket.latest, &parts);
		move_hand(&hand, &bucket, parts, nparts, count_blocks(parts, nparts), now);
	}
}
