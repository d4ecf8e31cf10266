/*-------------------------------------------------------------------------
 *
 * snapshot.c
 *		The logged snapshot of who was seen when, and its restoration.
 *
 * eros.activity is unlogged, and the active users are in shared memory: a
 * crash or a promotion forgets both.  The snapshot brings them back, but for
 * what changed since it was last refreshed.
 *
 * It is a log of packed chunks, cut by time: a chunk has all users who were
 * last seen after its lower and up to its upper bound.  Each refresh appends
 * what was seen since the last one, so what it writes follows the activity and
 * not the number of users; when a user moves from phase to phase nothing is
 * written, since his phase follows from when he was last seen.  A user may be
 * in several chunks: the newest counts.  When the stale entries have become
 * many, or the chunks small, neighbouring chunks are made anew from what is
 * there now.
 *
 * Whether the unlogged tables have been emptied, the table eros.unlogged_mark
 * tells: it is unlogged itself and has one row, which goes with the others.
 * Then the scheduler restores before its first round, the newest chunk first.
 * Users become idle by it, not jobs: the backfill finds out who misses a
 * result.
 *
 * Only the scheduler calls this, one per database; it owns no shared state.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "eros.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

/* Users in one chunk, at most. */
#define CHUNK_USERS 8192

/* Groups of chunks that one refresh makes anew, at most. */
#define MAX_MERGES 16

/*
 * A touch takes its time before it can be seen.  So a refresh ends a little
 * before now, and the next one looks again at whom this one has found later.
 */
#define UNDER_WAY_US (2 * USECS_PER_SEC)

/* The bytes of one packed user, at most: two varints and a uuid. */
#define PACKED_USER_LEN 36

/* A growing list of users. */
typedef struct UserList
{
	ErosIdleUser *users;
	int n;
	int max;
} UserList;

/* Where the next refresh goes on with making chunks anew. */
static TimestampTz merge_from = DT_NOBEGIN;

/* ------------------------------------------------------------------------
 * Packing
 * ------------------------------------------------------------------------
 */

/* Writes a number, seven bits a byte, the lowest first. */
static char *
put_number(char *to, uint64 number)
{
	while (number >= 0x80)
	{
		*to++ = (char) (number | 0x80);
		number >>= 7;
	}
	*to++ = (char) number;
	return to;
}

/* Reads a number; NULL when the bytes end before it does. */
static const char *
get_number(const char *from, const char *end, uint64 *number)
{
	*number = 0;
	for (int shift = 0; shift < 64 && from < end; shift += 7)
	{
		uint64 byte = (uint8) *from++;

		*number |= (byte & 0x7F) << shift;
		if ((byte & 0x80) == 0)
			return from;
	}
	return NULL;
}

/*
 * Packs users, in the order of last_seen: the microseconds since the one
 * before, doubled, plus one for a uuid; then the uuid or the number.
 */
static bytea *
pack_users(const ErosIdleUser *users, int nusers, TimestampTz lower)
{
	bytea *packed = palloc(VARHDRSZ + (Size) nusers * PACKED_USER_LEN);
	char *at = VARDATA(packed);
	TimestampTz before = lower;

	for (int i = 0; i < nusers; i++)
	{
		const ErosKey *key = &users[i].key;
		uint64 step = (uint64) (users[i].last_seen - before);

		before = users[i].last_seen;
		if (eros_key_is_bigint(key))
		{
			at = put_number(at, step << 1);
			at = put_number(at, key->lo);
			continue;
		}
		at = put_number(at, (step << 1) | 1);
		memcpy(at, &key->hi, sizeof(uint64));
		memcpy(at + sizeof(uint64), &key->lo, sizeof(uint64));
		at += 2 * sizeof(uint64);
	}
	SET_VARSIZE(packed, at - (char *) packed);
	return packed;
}

/* Unpacks the next user; false when there is none, or the bytes are no such thing. */
static bool
unpack_user(const char **from, const char *end, TimestampTz *before, ErosIdleUser *user)
{
	const char *at;
	uint64 step;

	at = get_number(*from, end, &step);
	if (at == NULL)
		return false;
	memset(user, 0, sizeof(ErosIdleUser));
	if ((step & 1) == 0)
		at = get_number(at, end, &user->key.lo);
	else if (end - at >= (ptrdiff_t) (2 * sizeof(uint64)))
	{
		memcpy(&user->key.hi, at, sizeof(uint64));
		memcpy(&user->key.lo, at + sizeof(uint64), sizeof(uint64));
		at += 2 * sizeof(uint64);
	}
	else
		at = NULL;
	if (at == NULL)
		return false;
	*before += (TimestampTz) (step >> 1);
	user->last_seen = *before;
	*from = at;
	return true;
}

/* ------------------------------------------------------------------------
 * Refreshing
 * ------------------------------------------------------------------------
 */

/* Adds a user to a list. */
static void
add_user(UserList *list, const ErosIdleUser *user)
{
	if (list->n == list->max)
	{
		list->max = Max(1024, list->max * 2);
		list->users =
			list->users == NULL
				? MemoryContextAllocHuge(CurrentMemoryContext, sizeof(ErosIdleUser) * list->max)
				: repalloc_huge(list->users, sizeof(ErosIdleUser) * list->max);
	}
	list->users[list->n++] = *user;
}

static int
compare_last_seen(const void *a, const void *b)
{
	TimestampTz x = ((const ErosIdleUser *) a)->last_seen;
	TimestampTz y = ((const ErosIdleUser *) b)->last_seen;

	return x < y ? -1 : x > y;
}

/* Adds the users of the map who were seen in a span of time. */
static void
collect_active(UserList *list, TimestampTz after, TimestampTz upto)
{
	int max = 256;
	ErosIdleUser *seen = palloc(sizeof(ErosIdleUser) * max);

	for (int partition = 0; partition < eros_tracker_npartitions(); partition++)
	{
		int n;

		while ((n = eros_tracker_seen(MyDatabaseId, partition, after, upto, seen, max)) > max)
		{
			max = n * 2;
			pfree(seen);
			seen = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(ErosIdleUser) * max);
		}
		for (int i = 0; i < n; i++)
			add_user(list, &seen[i]);
		CHECK_FOR_INTERRUPTS();
	}
	pfree(seen);
}

/* Adds the users of the tables who were seen in a span of time. */
static void
collect_idle(UserList *list, TimestampTz after, TimestampTz upto)
{
	Oid argtypes[] = {TIMESTAMPTZOID, TIMESTAMPTZOID};
	Datum values[] = {TimestampTzGetDatum(after), TimestampTzGetDatum(upto)};
	bool isnull;

	eros_check_table("activity");
	eros_check_table("spilled_touch");

	/* by the index on (phase, last_seen) */
	SPI_execute_with_args(
		"SELECT a.user_id, a.last_seen FROM eros.activity a"
		" WHERE a.phase = ANY ('{0,1,2,3,4,5,6,7,8}') AND a.last_seen > $1 AND a.last_seen <= $2"
		" UNION ALL"
		" SELECT t.user_id, t.last_seen FROM eros.spilled_touch t"
		" WHERE t.last_seen > $1 AND t.last_seen <= $2",
		2, argtypes, values, NULL, false, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		ErosIdleUser user = {{0, 0}, 0, false};

		user.key = eros_key_from_stored(DatumGetUUIDP(SPI_getbinval(tuple, desc, 1, &isnull)));
		user.last_seen = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 2, &isnull));
		add_user(list, &user);
	}
	SPI_freetuptable(SPI_tuptable);
}

/* Writes one chunk. */
static void
write_chunk(TimestampTz lower, TimestampTz upper, const ErosIdleUser *users, int nusers)
{
	Oid argtypes[] = {TIMESTAMPTZOID, TIMESTAMPTZOID, INT4OID, BYTEAOID};
	Datum values[] = {TimestampTzGetDatum(lower), TimestampTzGetDatum(upper), Int32GetDatum(nusers),
					  PointerGetDatum(pack_users(users, nusers, lower))};

	SPI_execute_with_args("INSERT INTO eros.snapshot (lower, upper, users, packed)"
						  " VALUES ($1, $2, $3, $4)",
						  4, argtypes, values, NULL, false, 0);
	pfree(DatumGetPointer(values[3]));
}

/* Collects who was seen in a span of time, in the order of last_seen. */
static void
collect(UserList *list, TimestampTz after, TimestampTz upto)
{
	memset(list, 0, sizeof(UserList));

	/* the map first: who leaves it meanwhile is found in the table */
	collect_active(list, after, upto);
	collect_idle(list, after, upto);
	if (list->n > 0)
		qsort(list->users, list->n, sizeof(ErosIdleUser), compare_last_seen);
}

/* Writes chunks for users who were seen after lower; the last one ends at upper. */
static void
write_chunks(const UserList *list, TimestampTz lower, TimestampTz upper)
{
	int at = 0;

	if (list->n > 0 && TIMESTAMP_IS_NOBEGIN(lower))
		lower = list->users[0].last_seen - 1;
	while (at < list->n)
	{
		int end = Min(at + CHUNK_USERS, list->n);
		TimestampTz cut;

		/* those of one moment stay together, and those of the future with the last */
		while (end < list->n && list->users[end].last_seen == list->users[end - 1].last_seen)
			end++;
		if (list->users[end - 1].last_seen >= upper)
			end = list->n;
		cut = end < list->n ? list->users[end - 1].last_seen : upper;
		write_chunk(lower, cut, &list->users[at], end - at);
		lower = cut;
		at = end;
	}
}

/* Deletes the chunks that end in a span of time. */
static void
delete_chunks(TimestampTz after, TimestampTz upto)
{
	Oid argtypes[] = {TIMESTAMPTZOID, TIMESTAMPTZOID};
	Datum values[] = {TimestampTzGetDatum(after), TimestampTzGetDatum(upto)};

	SPI_execute_with_args("DELETE FROM eros.snapshot s WHERE s.upper > $1 AND s.upper <= $2", 2,
						  argtypes, values, NULL, false, 0);
}

/* Up to when the snapshot goes; DT_NOBEGIN when there is none. */
static TimestampTz
snapshot_end(void)
{
	bool isnull;
	Datum upper;

	SPI_execute("SELECT max(s.upper) FROM eros.snapshot s", false, 0);
	upper = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	return isnull ? DT_NOBEGIN : DatumGetTimestampTz(upper);
}

/* Tells whether the snapshot has many more entries, or chunks, than it needs. */
static bool
is_wasteful(void)
{
	ErosDatabase *db = eros_my_database();
	int64 needed = (int64) pg_atomic_read_u64(&db->active_users);
	int64 chunks;
	int64 entries;
	bool isnull;

	for (int p = 0; p <= EROS_MAX_PHASES; p++)
		needed += (int64) pg_atomic_read_u64(&db->phases[p].users);
	SPI_execute("SELECT count(*), coalesce(sum(s.users), 0) FROM eros.snapshot s", false, 0);
	chunks = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	entries =
		DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	return entries > needed + needed / 2 + CHUNK_USERS || chunks > 4 * needed / CHUNK_USERS + 16;
}

/*
 * Makes the next few neighbouring chunks anew, as one or as many as it takes;
 * returns whether there were any.
 */
static bool
merge_chunks(TimestampTz now)
{
	Oid argtypes[] = {TIMESTAMPTZOID, TIMESTAMPTZOID};
	Datum values[] = {TimestampTzGetDatum(merge_from), TimestampTzGetDatum(now)};
	UserList list;
	TimestampTz lower = DT_NOBEGIN;
	TimestampTz upper = DT_NOBEGIN;
	int64 entries = 0;
	uint64 chunks = 0;
	bool isnull;

	SPI_execute_with_args("SELECT s.lower, s.upper, s.users FROM eros.snapshot s"
						  " WHERE s.upper > $1 AND s.upper < $2 ORDER BY s.upper LIMIT 100",
						  2, argtypes, values, NULL, false, 0);
	while (chunks < SPI_processed)
	{
		HeapTuple tuple = SPI_tuptable->vals[chunks];
		TupleDesc desc = SPI_tuptable->tupdesc;
		int users = DatumGetInt32(SPI_getbinval(tuple, desc, 3, &isnull));

		if (chunks > 0 && entries + users > CHUNK_USERS)
			break;
		if (chunks == 0)
			lower = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 1, &isnull));
		upper = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 2, &isnull));
		entries += users;
		chunks++;
	}
	merge_from = chunks > 0 ? upper : DT_NOBEGIN;
	if (chunks == 0)
		return false;
	collect(&list, lower, upper);
	if (chunks > 1 || list.n < entries - entries / 4)
	{
		delete_chunks(lower, upper);
		write_chunks(&list, lower, upper);
	}
	if (list.users != NULL)
		pfree(list.users);
	return true;
}

/* Brings the snapshot up to now, in the current transaction. */
void
eros_snapshot_refresh(TimestampTz now)
{
	TimestampTz upper = now - UNDER_WAY_US;
	TimestampTz lower = snapshot_end();
	UserList list;

	/* the clock has been set back: what was written since then is written anew */
	if (lower >= upper)
	{
		delete_chunks(upper - 1, DT_NOEND);
		lower = snapshot_end();
	}
	collect(&list, lower, DT_NOEND);
	write_chunks(&list, lower, upper);
	if (list.users != NULL)
		pfree(list.users);

	delete_chunks(DT_NOBEGIN, now - (int64) eros_max_idle_s * USECS_PER_SEC);
	for (int i = 0; i < MAX_MERGES && is_wasteful(); i++)
	{
		if (!merge_chunks(now))
			break;
	}
}

/* ------------------------------------------------------------------------
 * Restoring
 * ------------------------------------------------------------------------
 */

/* Tells whether the unlogged tables are as they were left. */
static bool
has_mark(void)
{
	bool there;

	eros_process_begin();
	SPI_execute("SELECT FROM eros.unlogged_mark", true, 1);
	there = SPI_processed > 0;
	eros_process_commit();
	return there;
}

/* Restores the users of the newest chunk that ends before a time; false when there is none. */
static bool
restore_chunk(TimestampTz *before, TimestampTz now, int64 *restored)
{
	Oid argtypes[] = {TIMESTAMPTZOID};
	Datum values[] = {TimestampTzGetDatum(*before)};
	TimestampTz oldest = now - (int64) eros_max_idle_s * USECS_PER_SEC;
	TimestampTz at;
	ErosIdleUser user;
	UserList list = {NULL, 0, 0};
	struct varlena *packed;
	const char *from;
	const char *end;
	bool isnull;

	eros_check_table("snapshot");
	SPI_execute_with_args("SELECT s.lower, s.upper, s.packed FROM eros.snapshot s"
						  " WHERE s.upper < $1 ORDER BY s.upper DESC LIMIT 1",
						  1, argtypes, values, NULL, true, 0);
	if (SPI_processed == 0)
		return false;
	at = DatumGetTimestampTz(
		SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	*before = DatumGetTimestampTz(
		SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	packed =
		PG_DETOAST_DATUM(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3, &isnull));
	from = VARDATA(packed);
	end = from + VARSIZE(packed) - VARHDRSZ;
	while (from < end)
	{
		if (!unpack_user(&from, end, &at, &user))
		{
			ereport(WARNING, (errcode(ERRCODE_DATA_CORRUPTED),
							  errmsg("a part of eros.snapshot cannot be read: its users are "
									 "forgotten until their next touch")));
			break;
		}
		if (user.last_seen > oldest)
			add_user(&list, &user);
	}
	*restored += eros_sweep_restore(list.users, list.n, now);
	return true;
}

/*
 * Restores the idle and the active users if the unlogged tables have been
 * emptied; called before the scheduler's first round, outside of a transaction.
 */
void
eros_snapshot_restore(void)
{
	TimestampTz before = DT_NOEND;
	TimestampTz newest = DT_NOEND;
	int64 restored = 0;
	bool more = true;

	if (has_mark())
		return;
	while (more)
	{
		CHECK_FOR_INTERRUPTS();
		eros_process_begin();
		eros_config_reload();
		more = restore_chunk(&before, eros_now(), &restored);
		eros_process_commit();
		if (TIMESTAMP_IS_NOEND(newest))
			newest = before;
	}
	eros_process_begin();
	SPI_execute("INSERT INTO eros.unlogged_mark VALUES (eros.now())", false, 0);
	eros_process_commit();
	if (restored > 0)
		ereport(LOG, (errmsg("EROS has restored " INT64_FORMAT " users from the snapshot of %s",
							 restored, timestamptz_to_str(newest))));
}
