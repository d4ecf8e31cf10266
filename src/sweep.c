/*-------------------------------------------------------------------------
 *
 * sweep.c
 *		Users on their way: from active to idle, from phase to phase, and back.
 *
 * A step of the sweep is one transaction, for a bounded number of users:
 *
 *	- Users of the map who have been idle for long enough get their row in
 *	  eros.activity and their jobs; after the commit they leave the map, unless
 *	  they were touched meanwhile.  How the two races are decided (a touch
 *	  before the commit, a touch between the commit and the removal) is told in
 *	  tracker.c.
 *	- Users who came anew lose the row and the pending jobs of before.
 *	- Users in the table who cross the next threshold move on.
 *
 * So that the cost follows the transitions and not the users, the sweep
 * remembers for each partition of the map the earliest time at which somebody
 * in it can become idle, and does not look at it before.  Users who came since
 * the last look cannot be idle before then.
 *
 * What refreshes results is in refresh.c.  The backfill gives jobs to users who
 * were idle already when a handler was added or the scheduler started, or whose
 * results may have expired unseen; it uses two percent of a core.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "eros.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(eros_sweep_sql);

/* How far the backfill of a handler has come. */
typedef struct HandlerProgress
{
	int32 handler_id;
	int phase; /* these are begun anew when the handler has changed */
	Oid function_oid;
	bool backfilled;
	ErosKey backfill_from; /* users before this one have been seen to */
} HandlerProgress;

struct ErosSweep
{
	TimestampTz *due;	   /* per partition of the map: no look before this */
	int at;				   /* the partition to go on with */
	TimestampTz table_due; /* when the first row crosses a threshold */
	TimestampTz refresh_due;
	ErosRefreshHand hands[EROS_BUCKETS]; /* how far the refresh has come; see refresh.c */
	int moving;							 /* the bucket whose hand is being moved; -1: none */
	ErosRefreshHand hand;				 /* ... and that hand */
	uint64 spilled_seen;				 /* spilled touches before this many have been taken over */
	TimestampTz spilled_again;			 /* ... look again then, all the same */
	uint64 returns_seen;				 /* returns before this many have been looked for */
	uint64 backfill_at_ns;				 /* no backfill before this */
	int nprogress;
	HandlerProgress *progress;
	MemoryContext context;
};

/* Who leaves the map, or is done with, when the transaction commits. */
static ErosIdleUser *leaving = NULL;
static int nleaving = 0;
static ErosKey *cleared = NULL;
static int ncleared = 0;
static int leaving_level = 0;

/* Makes the memory of a scheduler: everything is to be looked at. */
ErosSweep *
eros_sweep_create(void)
{
	MemoryContext context =
		AllocSetContextCreate(TopMemoryContext, "eros sweep", ALLOCSET_SMALL_SIZES);
	ErosSweep *sweep = MemoryContextAllocZero(context, sizeof(ErosSweep));

	sweep->context = context;
	sweep->moving = -1;
	sweep->spilled_seen = PG_UINT64_MAX; /* some may be there from before the restart */
	sweep->due = MemoryContextAlloc(context, sizeof(TimestampTz) * eros_tracker_npartitions());
	eros_sweep_config_changed(sweep);
	return sweep;
}

/*
 * Forgets what has been seen to: a transaction has failed, and with it what had
 * been noted in advance.  A step of the refresh notes nothing but its hand.
 */
void
eros_sweep_restart(ErosSweep *sweep)
{
	if (sweep->moving >= 0)
	{
		sweep->hand.moved_at = eros_now();
		sweep->hands[sweep->moving] = sweep->hand;
		sweep->moving = -1;
		return;
	}
	sweep->nprogress = 0;
	eros_sweep_config_changed(sweep);
}

/* Moves the users of a phase that is no more to the next lower one. */
static void
rehome_users(int phase)
{
	Oid argtypes[] = {INT2OID, INT2OID};
	int below = phase - 1;

	while (below > 0 && eros_phase(below) == NULL)
		below--;
	SPI_execute_with_args("UPDATE eros.activity SET phase = $2 WHERE phase = $1", 2, argtypes,
						  (Datum[]){Int16GetDatum(phase), Int16GetDatum(below)}, NULL, false, 0);
}

/* Moves the pending jobs of a handler to its phase. */
static void
rehome_jobs(const ErosHandler *handler)
{
	Oid argtypes[] = {INT4OID, INT2OID, INT2ARRAYOID};
	Datum others[EROS_MAX_PHASES];
	Datum values[3];
	int n = 0;

	for (int phase = 1; phase <= EROS_MAX_PHASES; phase++)
	{
		if (phase != handler->phase)
			others[n++] = Int16GetDatum(phase);
	}
	values[0] = Int32GetDatum(handler->handler_id);
	values[1] = Int16GetDatum(handler->phase);
	values[2] = PointerGetDatum(construct_array(others, n, INT2OID, 2, true, TYPALIGN_SHORT));
	SPI_execute_with_args("UPDATE eros.job SET phase = $2 WHERE status = 'pending'"
						  " AND phase = ANY ($3) AND handler_id = $1",
						  3, argtypes, values, NULL, false, 0);
}

/*
 * Finds new homes for users in phases that are no more, and for jobs whose
 * handler has moved.  Each statement names what it looks for by constants, so
 * that the planner knows that mostly there is nothing to find, and takes the
 * indexes, which begin with the phase.
 */
void
eros_sweep_rehome(void)
{
	ErosConfig *config = eros_config();
	uint64 moved = 0;

	for (int phase = 1; phase <= EROS_MAX_PHASES; phase++)
	{
		if (eros_phase(phase) != NULL)
			continue;
		rehome_users(phase);
		moved += SPI_processed;
	}
	if (moved > 0)
		eros_sweep_recount();
	for (int h = 0; h < config->nhandlers; h++)
		rehome_jobs(&config->handlers[h]);
}

/* Has everything looked at again: thresholds or handlers have changed. */
void
eros_sweep_config_changed(ErosSweep *sweep)
{
	for (int i = 0; i < eros_tracker_npartitions(); i++)
		sweep->due[i] = DT_NOBEGIN;
	sweep->table_due = DT_NOBEGIN;
	sweep->refresh_due = DT_NOBEGIN;
}

/*
 * Has users of the table who were seen later than now be seen now, after the
 * clock was set back, and everything looked at again.  Those of the map stay
 * active until the clock has come where it was, or until their next touch.
 */
void
eros_sweep_set_back(ErosSweep *sweep, TimestampTz now)
{
	Oid argtypes[] = {TIMESTAMPTZOID};
	Datum values[] = {TimestampTzGetDatum(now)};

	SPI_execute_with_args("UPDATE eros.activity SET last_seen = $1"
						  " WHERE phase = ANY ('{0,1,2,3,4,5,6,7,8}') AND last_seen > $1",
						  1, argtypes, values, NULL, false, 0);
	eros_sweep_restart(sweep);
}

/* The time between two sweeps: a twentieth of the first threshold, bounded by the setting. */
int64
eros_sweep_interval_us(void)
{
	ErosConfig *config = eros_config();
	int64 interval = eros_sweep_interval_ms * INT64CONST(1000);

	if (config->nphases > 0)
		interval = Min(interval, config->phases[0].idle_after_us / 20);
	return Max(interval, 1000);
}

/* Has the swept users leave the map, or takes their marks away. */
static void
end_sweep(bool committed)
{
	if (committed)
	{
		int removed = eros_tracker_remove_swept(MyDatabaseId, leaving, nleaving);
		ErosDatabase *db = eros_my_database();

		if (db != NULL)
			pg_atomic_fetch_sub_u64(&db->active_users, removed);

		/* after a sweep by a session, the scheduler sees to the jobs */
		if (db != NULL && nleaving > 0 && db->scheduler_pid != MyProcPid)
			eros_set_latch_of_scheduler(db);
		eros_tracker_clear_returned(MyDatabaseId, cleared, ncleared);
	}
	else
		eros_tracker_unmark_swept(MyDatabaseId, leaving, nleaving);
	nleaving = 0;
	ncleared = 0;
	leaving_level = 0;
	leaving = NULL; /* allocated in the transaction's memory */
	cleared = NULL;
}

/* Does so when the transaction has ended. */
static void
at_sweep_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_PREPARE && (nleaving > 0 || ncleared > 0))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("cannot PREPARE a transaction that has called eros.sweep()")));
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT)
		return;
	end_sweep(event == XACT_EVENT_COMMIT);
}

/* Does so when the subtransaction is rolled back that swept. */
static void
at_subsweep_end(SubXactEvent event, SubTransactionId sub, SubTransactionId parent, void *arg)
{
	int level = GetCurrentTransactionNestLevel();

	if (leaving_level < level)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		end_sweep(false);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		leaving_level = level - 1;
}

/* The highest phase that a user has reached, as an index; -1: none. */
static int
phase_index(ErosConfig *config, TimestampTz last_seen, TimestampTz now)
{
	int index = config->nphases - 1;

	while (index >= 0 && now - last_seen < config->phases[index].idle_after_us)
		index--;
	return index;
}

/* Makes the arrays user_id, last_seen and phase of users for SQL. */
static void
user_arrays(const ErosIdleUser *users, const int16 *phases, int nusers, Datum *values)
{
	Datum *elements = palloc(sizeof(Datum) * Max(nusers, 1));

	for (int i = 0; i < nusers; i++)
		elements[i] = eros_key_get_datum(&users[i].key);
	values[0] =
		PointerGetDatum(construct_array(elements, nusers, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
	for (int i = 0; i < nusers; i++)
		elements[i] = TimestampTzGetDatum(users[i].last_seen);
	values[1] = PointerGetDatum(
		construct_array(elements, nusers, TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	for (int i = 0; i < nusers; i++)
		elements[i] = Int16GetDatum(phases[i]);
	values[2] =
		PointerGetDatum(construct_array(elements, nusers, INT2OID, 2, true, TYPALIGN_SHORT));
}

/* Counts users who leave and enter a phase, when the transaction commits. */
static void
count_users(int phase, int64 delta)
{
	ErosDatabase *db = eros_my_database();

	if (phase >= 1 && phase <= EROS_MAX_PHASES)
		eros_count_on_commit(&db->phases[phase].users, delta);
}

/* Deletes the rows of users in eros.activity. */
static void
delete_rows(const ErosKey *keys, int nkeys)
{
	static SPIPlanPtr plan = NULL;
	Oid argtypes[] = {UUIDARRAYOID};
	Datum values[] = {eros_keys_to_array(keys, nkeys, EROS_KEY_UUID)};
	bool isnull;

	if (nkeys == 0)
		return;
	eros_plan(&plan,
			  "DELETE FROM eros.activity a WHERE a.ctid = ANY (ARRAY("
			  "	SELECT o.ctid FROM eros.activity o WHERE o.user_id = ANY ($1)"
			  "	FOR UPDATE SKIP LOCKED)) RETURNING a.phase",
			  1, argtypes);
	SPI_execute_plan(plan, values, NULL, false, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
		count_users(
			DatumGetInt16(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull)),
			-1);
}

/*
 * Creates the jobs for users who went from one phase to another, given as
 * indexes (-1: none), and counts the crossings.
 */
static uint64
cross(ErosConfig *config, const ErosIdleUser *users, const int *from, const int *to, int nusers,
	  TimestampTz now)
{
	ErosDatabase *db = eros_my_database();
	ErosIdleUser *crossing = palloc(sizeof(ErosIdleUser) * Max(nusers, 1));
	uint64 crossings = 0;

	for (int p = 0; p < config->nphases; p++)
	{
		int n = 0;

		for (int i = 0; i < nusers; i++)
		{
			if (from[i] < p && p <= to[i])
				crossing[n++] = users[i];
		}
		if (n == 0)
			continue;
		crossings += n;
		eros_count_on_commit(&db->phases[config->phases[p].phase].transitions, n);
		for (int h = 0; h < config->nhandlers; h++)
		{
			ErosHandler *handler = &config->handlers[h];

			if (!handler->enabled || handler->phase != config->phases[p].phase)
				continue;
			eros_queue_add(handler, crossing, n, now);
			eros_count_on_commit(&handler->stats->crossings, n);
		}
	}
	pfree(crossing);
	return crossings;
}

/* Writes the rows of users who leave the map. */
static uint64
write_rows(ErosConfig *config, const ErosIdleUser *users, int nusers, TimestampTz now)
{
	static SPIPlanPtr plan = NULL;
	Oid argtypes[] = {UUIDARRAYOID, TIMESTAMPTZARRAYOID, INT2ARRAYOID};
	Datum values[3];
	int *from = palloc(sizeof(int) * nusers);
	int *to = palloc(sizeof(int) * nusers);
	int16 *phases = palloc(sizeof(int16) * nusers);
	ErosKey *before = palloc(sizeof(ErosKey) * nusers);
	ErosKey *spilled = palloc(sizeof(ErosKey) * nusers);
	int nbefore = 0;
	int nspilled = 0;

	for (int i = 0; i < nusers; i++)
	{
		from[i] = -1;
		to[i] = phase_index(config, users[i].last_seen, now);
		phases[i] = to[i] < 0 ? 0 : config->phases[to[i]].phase;
		count_users(phases[i], 1);
		if (users[i].returned)
			before[nbefore++] = users[i].key;
		if (to[i] < 0)
			spilled[nspilled++] = users[i].key;
	}
	delete_rows(before, nbefore);
	if (nspilled > 0)
	{
		/* they are active still, there was just no room for them */
		eros_queue_delete_users(spilled, nspilled);
		eros_count_on_commit(&eros_my_database()->users_spilled, nspilled);
	}
	user_arrays(users, phases, nusers, values);
	eros_plan(&plan,
			  "INSERT INTO eros.activity AS a (user_id, last_seen, phase)"
			  " SELECT n.user_id, n.last_seen, n.phase"
			  " FROM unnest($1, $2, $3) AS n (user_id, last_seen, phase)"
			  " ON CONFLICT (user_id) DO UPDATE"
			  " SET last_seen = EXCLUDED.last_seen, phase = EXCLUDED.phase",
			  3, argtypes);
	SPI_execute_plan(plan, values, NULL, false, 0);
	return cross(config, users, from, to, nusers, now);
}

/* Tells up to which last_seen the users of a partition are to leave the map. */
static TimestampTz
leave_before(ErosConfig *config, int partition, TimestampTz now, bool crowded)
{
	TimestampTz idle_before =
		config->nphases > 0 ? now - config->phases[0].idle_after_us : DT_NOBEGIN;
	TimestampTz oldest_fifth;

	if (crowded && eros_tracker_crowded(partition, &oldest_fifth, MyDatabaseId))
		return Max(idle_before, oldest_fifth);
	return idle_before;
}

/*
 * Takes over touches that went to the table while the map was full; returns
 * whether there are more.  Who is in the map by now needs no row.
 */
static bool
take_spilled(ErosSweep *sweep, ErosConfig *config, TimestampTz now, int limit, uint64 *crossings)
{
	ErosDatabase *db = eros_my_database();
	uint64 spilled = pg_atomic_read_u64(&db->touches_spilled);
	int64 interval_us = eros_maintenance_interval_s * USECS_PER_SEC;
	Oid argtypes[] = {INT4OID};
	Datum values[] = {Int32GetDatum(limit)};
	ErosIdleUser *users;
	uint64 nrows;
	int n = 0;
	bool isnull;

	/* what a prepared transaction has spilled is not told: look for it now and then */
	if (spilled == sweep->spilled_seen && now < sweep->spilled_again)
		return false;
	SPI_execute_with_args(
		"WITH gone AS (DELETE FROM eros.spilled_touch t WHERE t.ctid = ANY (ARRAY("
		"	SELECT s.ctid FROM eros.spilled_touch s LIMIT $1 FOR UPDATE SKIP LOCKED))"
		"	RETURNING t.user_id, t.last_seen)"
		" SELECT g.user_id, max(g.last_seen) FROM gone g GROUP BY 1",
		1, argtypes, values, NULL, false, 0);
	nrows = SPI_processed;
	if (nrows == 0)
	{
		sweep->spilled_seen = spilled;
		sweep->spilled_again = now + interval_us;
		return false;
	}
	users = palloc0(sizeof(ErosIdleUser) * nrows);
	for (uint64 i = 0; i < nrows; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;

		users[n].key = eros_key_from_stored(DatumGetUUIDP(SPI_getbinval(tuple, desc, 1, &isnull)));
		users[n].last_seen = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 2, &isnull));
		users[n].returned = true;
		if (!eros_tracker_is_active(MyDatabaseId, &users[n].key))
			n++;
	}
	if (n > 0)
		*crossings += write_rows(config, users, n, now);
	for (int i = 0; i < n; i++)
		eros_halt_user(MyDatabaseId, &users[i].key);
	sweep->table_due = DT_NOBEGIN;
	return true;
}

/* Sweeps the map; returns whether there is more to do. */
static bool
sweep_map(ErosSweep *sweep, ErosConfig *config, TimestampTz now, int limit, uint64 *crossings)
{
	ErosDatabase *db = eros_my_database();
	ErosTrackerScan scan = {0};
	bool crowded = pg_atomic_read_u32(&db->wants_room) != 0;
	int npartitions = eros_tracker_npartitions();
	bool more = false;

	/* kept to the end of the transaction */
	scan.idle = MemoryContextAllocHuge(TopTransactionContext, sizeof(ErosIdleUser) * (Size) limit);
	scan.returned = MemoryContextAllocHuge(TopTransactionContext, sizeof(ErosKey) * (Size) limit);
	scan.max_idle = limit;
	scan.max_returned = limit;
	leaving = scan.idle;
	cleared = scan.returned;
	leaving_level = GetCurrentTransactionNestLevel();

	/* a return is counted after its mark is set, so what is counted is found */
	sweep->returns_seen = pg_atomic_read_u64(&db->returns);
	pg_read_barrier();
	nleaving = 0;
	ncleared = 0;

	for (int n = 0; n < npartitions; n++)
	{
		int partition = sweep->at;

		if (crowded || sweep->due[partition] <= now || eros_tracker_has_returned(partition))
		{
			eros_tracker_trim(partition);
			scan.idle_before = leave_before(config, partition, now, crowded);
			eros_tracker_scan(MyDatabaseId, partition, &scan);
			nleaving = scan.nidle;
			if (!scan.complete)
			{
				more = true;
				break;
			}

			/* who comes from now on was last seen later than now */
			sweep->due[partition] = config->nphases == 0
										? DT_NOEND
										: Min(scan.oldest, now) + config->phases[0].idle_after_us;
		}
		sweep->at = (partition + 1) % npartitions;
	}
	if (crowded)
	{
		sweep->table_due = DT_NOBEGIN; /* touches have written rows */
		if (!more)
			pg_atomic_write_u32(&db->wants_room, 0);
	}

	if (scan.nreturned > 0)
	{
		delete_rows(scan.returned, scan.nreturned);
		eros_queue_delete_users(scan.returned, scan.nreturned);
	}
	ncleared = scan.nreturned;
	if (scan.nidle > 0)
		*crossings += write_rows(config, scan.idle, scan.nidle, now);
	return more;
}

/* Moves users of the table who cross into one phase; returns whether there are more. */
static bool
sweep_phase(ErosSweep *sweep, ErosConfig *config, int p, TimestampTz now, int limit,
			uint64 *crossings)
{
	static SPIPlanPtr find_plan = NULL;
	static SPIPlanPtr move_plan = NULL;
	Oid find_types[] = {INT2OID, TIMESTAMPTZOID, INT4OID};
	Oid move_types[] = {UUIDARRAYOID, TIMESTAMPTZARRAYOID, INT2ARRAYOID};
	int source = p == 0 ? 0 : config->phases[p - 1].phase;
	Datum find_values[] = {Int16GetDatum(source),
						   TimestampTzGetDatum(now - config->phases[p].idle_after_us),
						   Int32GetDatum(limit)};
	Datum move_values[3];
	ErosIdleUser *users;
	int *from;
	int *to;
	int16 *phases;
	int n = 0;
	int found;
	bool isnull;

	eros_plan(&find_plan,
			  "SELECT user_id, last_seen FROM eros.activity"
			  " WHERE phase = $1 AND last_seen <= $2 ORDER BY last_seen LIMIT $3"
			  " FOR UPDATE SKIP LOCKED",
			  3, find_types);
	SPI_execute_plan(find_plan, find_values, NULL, false, 0);
	found = (int) SPI_processed;
	if (found == 0)
		return false;
	users = palloc0(sizeof(ErosIdleUser) * found);
	from = palloc(sizeof(int) * found);
	to = palloc(sizeof(int) * found);
	phases = palloc(sizeof(int16) * found);
	for (int i = 0; i < found; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;

		users[n].key = eros_key_from_stored(DatumGetUUIDP(SPI_getbinval(tuple, desc, 1, &isnull)));
		users[n].last_seen = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 2, &isnull));

		/* who has returned is seen to when his mark is found in the map */
		if (eros_tracker_is_active(MyDatabaseId, &users[n].key))
			continue;
		from[n] = p - 1;
		to[n] = phase_index(config, users[n].last_seen, now);
		phases[n] = config->phases[to[n]].phase;
		count_users(source, -1);
		count_users(phases[n], 1);
		n++;
	}
	if (n > 0)
	{
		user_arrays(users, phases, n, move_values);
		eros_plan(&move_plan,
				  "UPDATE eros.activity a SET phase = n.phase"
				  " FROM unnest($1, $2, $3) AS n (user_id, last_seen, phase)"
				  " WHERE a.user_id = n.user_id AND a.last_seen = n.last_seen",
				  3, move_types);
		SPI_execute_plan(move_plan, move_values, NULL, false, 0);
		*crossings += cross(config, users, from, to, n, now);
	}
	return found == limit && n > 0;
}

/* Finds out when the next user of the table crosses a threshold. */
static TimestampTz
next_in_table(ErosConfig *config)
{
	static SPIPlanPtr plan = NULL;
	Oid argtypes[] = {INT2OID};
	TimestampTz next = DT_NOEND;
	bool isnull;

	for (int p = 0; p < config->nphases; p++)
	{
		Datum values[] = {Int16GetDatum(p == 0 ? 0 : config->phases[p - 1].phase)};

		eros_plan(&plan,
				  "SELECT last_seen FROM eros.activity WHERE phase = $1 ORDER BY last_seen LIMIT 1",
				  1, argtypes);
		SPI_execute_plan(plan, values, NULL, false, 0);
		if (SPI_processed > 0)
			next = Min(next, DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0],
															   SPI_tuptable->tupdesc, 1, &isnull)) +
								 config->phases[p].idle_after_us);
	}
	return next;
}

/* Keeps a second sweep of this database out, the scheduler's or a session's. */
static void
lock_sweep(void)
{
	LockDatabaseObject(ExtensionRelationId, get_extension_oid("eros", false), 1,
					   ShareUpdateExclusiveLock);
}

/*
 * Does one step of the sweep in the current transaction, for about so many
 * users; returns whether there is more to do at once.
 */
bool
eros_sweep_step(ErosSweep *sweep, TimestampTz now, int limit, uint64 *crossings)
{
	static bool registered = false;
	ErosConfig *config = eros_config();
	bool more;

	if (!registered)
	{
		RegisterXactCallback(at_sweep_end, NULL);
		RegisterSubXactCallback(at_subsweep_end, NULL);
		registered = true;
	}
	lock_sweep();
	eros_lock_for_writing("activity");
	eros_lock_for_writing("job");
	eros_check_table("activity");
	eros_check_table("spilled_touch");
	more = sweep_map(sweep, config, now, limit, crossings);
	more = take_spilled(sweep, config, now, limit, crossings) || more;
	if (sweep->table_due <= now || *crossings > 0)
	{
		for (int p = config->nphases - 1; p >= 0; p--)
			more = sweep_phase(sweep, config, p, now, limit, crossings) || more;
		sweep->table_due = more ? DT_NOBEGIN : next_in_table(config);
	}
	pg_atomic_write_u64(&eros_my_database()->last_sweep, (uint64) now);
	return more;
}

/* Tells whether users have returned since the last sweep of the map. */
bool
eros_sweep_sees_returns(ErosSweep *sweep)
{
	return pg_atomic_read_u64(&eros_my_database()->returns) != sweep->returns_seen;
}

/* When the next sweep has something to do. */
TimestampTz
eros_sweep_next(ErosSweep *sweep, TimestampTz now)
{
	TimestampTz next = Min(sweep->table_due, sweep->refresh_due);

	for (int i = 0; i < eros_tracker_npartitions(); i++)
		next = Min(next, sweep->due[i]);
	return eros_sweep_sees_returns(sweep) ? now : next;
}

/*
 * When this database next needs a scheduler, if this one leaves.  Of the map,
 * what comes from now on is told by touches; the table and the results only
 * matter if there is something in them.
 */
TimestampTz
eros_sweep_next_without_us(ErosSweep *sweep, TimestampTz now)
{
	ErosConfig *config = eros_config();
	ErosDatabase *db = eros_my_database();
	TimestampTz next = sweep->table_due;
	uint64 idle_users = 0;

	if (eros_tracker_has_users(db->dboid))
	{
		for (int i = 0; i < eros_tracker_npartitions(); i++)
			next = Min(next, sweep->due[i]);
	}
	for (int p = 0; p <= EROS_MAX_PHASES; p++)
		idle_users += pg_atomic_read_u64(&db->phases[p].users);
	for (int h = 0; h < config->nhandlers && idle_users > 0; h++)
	{
		int64 lead = EROS_REFRESH_LEAD(config->handlers[h].ttl_us);

		if (config->handlers[h].enabled)
			next = Min(next, now + Max(lead / 4, eros_sweep_interval_us()));
	}
	for (int bucket = 0; bucket < EROS_BUCKETS; bucket++)
	{
		if (sweep->hands[bucket].behind)
			next = Min(next, sweep->refresh_due);
	}
	return next;
}

/* Begins with a handler: nothing has been seen to. */
static void
begin_progress(HandlerProgress *progress, const ErosHandler *handler)
{
	memset(progress, 0, sizeof(HandlerProgress));
	progress->handler_id = handler->handler_id;
	progress->phase = handler->phase;
	progress->function_oid = handler->function_oid;
}

/* Finds, or begins, the progress of a handler. */
static HandlerProgress *
progress_of(ErosSweep *sweep, const ErosHandler *handler)
{
	HandlerProgress *progress;

	for (int i = 0; i < sweep->nprogress; i++)
	{
		progress = &sweep->progress[i];
		if (progress->handler_id != handler->handler_id)
			continue;
		if (progress->phase != handler->phase || progress->function_oid != handler->function_oid)
			begin_progress(progress, handler);
		return progress;
	}
	if (sweep->progress == NULL)
		sweep->progress = MemoryContextAlloc(sweep->context, sizeof(HandlerProgress));
	else
		sweep->progress =
			repalloc(sweep->progress, sizeof(HandlerProgress) * (sweep->nprogress + 1));
	progress = &sweep->progress[sweep->nprogress++];
	begin_progress(progress, handler);
	return progress;
}

/* Leaves word of the progress for the next scheduler. */
void
eros_sweep_keep_progress(ErosSweep *sweep)
{
	ErosConfig *config = eros_config();

	for (int h = 0; h < config->nhandlers; h++)
	{
		ErosHandlerProgress *kept = &config->handlers[h].stats->progress;
		HandlerProgress *progress = progress_of(sweep, &config->handlers[h]);

		kept->backfilled = progress->backfilled;
		kept->backfill_from = progress->backfill_from;
		kept->generation = config->generation;
	}
	memcpy(eros_my_database()->refresh_hands, sweep->hands, sizeof(sweep->hands));
}

/* Goes on where the last scheduler ended, if phases and handlers are still the same. */
void
eros_sweep_take_progress(ErosSweep *sweep)
{
	ErosConfig *config = eros_config();

	for (int h = 0; h < config->nhandlers; h++)
	{
		ErosHandlerProgress *kept = &config->handlers[h].stats->progress;
		HandlerProgress *progress = progress_of(sweep, &config->handlers[h]);

		if (kept->generation == config->generation)
		{
			progress->backfilled = kept->backfilled;
			progress->backfill_from = kept->backfill_from;
		}
		kept->generation = 0;
	}
	memcpy(sweep->hands, eros_my_database()->refresh_hands, sizeof(sweep->hands));
}

/* Tells whether a handler has its results in a bucket. */
static bool
bucket_in_use(int bucket)
{
	ErosConfig *config = eros_config();

	for (int h = 0; h < config->nhandlers; h++)
	{
		if (config->handlers[h].bucket == bucket)
			return true;
	}
	return false;
}

/* Has the backfill look at all users of the handlers of a bucket, enabled ones or others. */
static void
backfill_again(ErosSweep *sweep, int bucket, bool enabled)
{
	ErosConfig *config = eros_config();

	for (int h = 0; h < config->nhandlers; h++)
	{
		ErosHandler *handler = &config->handlers[h];

		if (handler->bucket == bucket && handler->enabled == enabled)
			begin_progress(progress_of(sweep, handler), handler);
	}
}

/*
 * Has results that expire soon computed anew, in transactions of its own; see
 * refresh.c.  Returns whether it did anything.
 */
bool
eros_sweep_refresh(ErosSweep *sweep, TimestampTz now)
{
	TimestampTz next = DT_NOEND;
	bool did = false;

	if (sweep->refresh_due > now)
		return false;
	for (int bucket = 0; bucket < EROS_BUCKETS; bucket++)
	{
		TimestampTz due;
		bool late;

		if (!bucket_in_use(bucket))
		{
			memset(&sweep->hands[bucket], 0, sizeof(ErosRefreshHand));
			continue;
		}
		sweep->hand = sweep->hands[bucket];
		sweep->moving = bucket;
		eros_process_begin();
		lock_sweep();
		backfill_again(sweep, bucket, false); /* for what expires while a handler is disabled */
		due = eros_refresh_step(&sweep->hand, bucket, now, &late);
		eros_process_commit();
		sweep->moving = -1;
		did = did || sweep->hand.moved_at != sweep->hands[bucket].moved_at;
		sweep->hands[bucket] = sweep->hand;
		if (late)
			backfill_again(sweep, bucket, true);
		next = Min(next, due);
	}
	sweep->refresh_due = next;
	return did;
}

/*
 * Gives jobs to some users who were idle already when a handler was added,
 * enabled, or the scheduler started; returns whether there are more.
 */
bool
eros_sweep_backfill(ErosSweep *sweep, TimestampTz now)
{
	static SPIPlanPtr plan = NULL;
	const int limit = 1000;
	Oid argtypes[] = {INT2OID, UUIDOID, TIMESTAMPTZOID, INT4OID};
	ErosConfig *config = eros_config();
	uint64 start_ns = eros_process_cpu_ns();
	bool isnull;

	if (eros_monotonic_ns() < sweep->backfill_at_ns)
		return true;
	lock_sweep();
	eros_check_table("activity");
	for (int h = 0; h < config->nhandlers; h++)
	{
		ErosHandler *handler = &config->handlers[h];
		HandlerProgress *progress = progress_of(sweep, handler);
		Datum values[] = {Int16GetDatum(handler->phase),
						  eros_key_get_datum(&progress->backfill_from),
						  TimestampTzGetDatum(now - (int64) eros_max_idle_s * USECS_PER_SEC),
						  Int32GetDatum(limit)};
		ErosIdleUser *users;
		int n;

		if (!handler->enabled || progress->backfilled)
			continue;
		eros_plan(
			&plan,
			"SELECT user_id, last_seen FROM eros.activity"
			" WHERE user_id >= $2 AND phase >= $1 AND last_seen > $3 ORDER BY user_id LIMIT $4",
			4, argtypes);
		SPI_execute_plan(plan, values, NULL, false, 0);
		n = (int) SPI_processed;
		users = palloc0(sizeof(ErosIdleUser) * Max(n, 1));
		for (int i = 0; i < n; i++)
		{
			HeapTuple tuple = SPI_tuptable->vals[i];
			TupleDesc desc = SPI_tuptable->tupdesc;

			users[i].key =
				eros_key_from_stored(DatumGetUUIDP(SPI_getbinval(tuple, desc, 1, &isnull)));
			users[i].last_seen = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 2, &isnull));
		}
		eros_count_on_commit(&handler->stats->backfilled,
							 (int64) eros_queue_add(handler, users, n, now));
		if (n == limit)
		{
			progress->backfill_from = users[n - 1].key;
			if (++progress->backfill_from.lo == 0)
				progress->backfill_from.hi++;
		}
		else
			progress->backfilled = true;
		sweep->backfill_at_ns = eros_monotonic_ns() + (eros_process_cpu_ns() - start_ns) * 50;
		return true;
	}
	return false;
}

/*
 * Makes users idle again, or active, as of when they were last seen; whoever
 * has been seen since is left alone.  Returns how many.  The counts are up to
 * eros_sweep_recount().
 */
int64
eros_sweep_restore(const ErosIdleUser *users, int nusers, TimestampTz now)
{
	Oid argtypes[] = {UUIDARRAYOID, TIMESTAMPTZARRAYOID, INT2ARRAYOID};
	Datum values[3];
	ErosConfig *config = eros_config();
	ErosIdleUser *idle = palloc(sizeof(ErosIdleUser) * Max(nusers, 1));
	int16 *phases = palloc(sizeof(int16) * Max(nusers, 1));
	int64 restored = 0;
	int n = 0;

	for (int i = 0; i < nusers; i++)
	{
		int to = phase_index(config, users[i].last_seen, now);

		if (eros_tracker_is_active(MyDatabaseId, &users[i].key))
			continue;
		if (to < 0 && eros_tracker_restore(MyDatabaseId, &users[i].key, users[i].last_seen))
		{
			restored++;
			continue;
		}
		phases[n] = to < 0 ? 0 : config->phases[to].phase;
		idle[n++] = users[i];
	}
	if (n == 0)
		return restored;
	user_arrays(idle, phases, n, values);
	SPI_execute_with_args("INSERT INTO eros.activity (user_id, last_seen, phase)"
						  " SELECT n.user_id, n.last_seen, n.phase"
						  " FROM unnest($1, $2, $3) AS n (user_id, last_seen, phase)"
						  " ON CONFLICT (user_id) DO NOTHING",
						  3, argtypes, values, NULL, false, 0);
	return restored + (int64) SPI_processed;
}

/* Counts the users of all phases anew, when the scheduler starts. */
void
eros_sweep_recount(void)
{
	ErosDatabase *db = eros_my_database();
	bool isnull;

	/* whoever empties the table at this moment has told so when this gets its lock */
	SPI_execute("SELECT phase::int2, count(*) FROM eros.activity GROUP BY 1", true, 0);
	for (int p = 0; p <= EROS_MAX_PHASES; p++)
		pg_atomic_write_u64(&db->phases[p].users, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		int phase = DatumGetInt16(SPI_getbinval(tuple, desc, 1, &isnull));

		if (phase >= 1 && phase <= EROS_MAX_PHASES)
			pg_atomic_write_u64(&db->phases[phase].users,
								DatumGetInt64(SPI_getbinval(tuple, desc, 2, &isnull)));
	}
}

/* sweep() returns bigint */
Datum
eros_sweep_sql(PG_FUNCTION_ARGS)
{
	static ErosSweep *sweep = NULL;
	ErosTrackerSize size;
	ErosRoleScope scope;
	uint64 crossings = 0;
	TimestampTz now;

	eros_require_database();
	if (nleaving > 0 || ncleared > 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("eros.sweep() can be called once in a transaction")));
	if (sweep == NULL)
		sweep = eros_sweep_create();
	eros_sweep_config_changed(sweep);
	now = eros_now();
	eros_tracker_size(&size);
	eros_owner_begin(&scope);
	eros_sweep_step(sweep, now, (int) Min(size.users + 1000, 10000000), &crossings);
	eros_refresh_all(now);
	eros_owner_end(&scope);
	PG_RETURN_INT64((int64) crossings);
}
