/*-------------------------------------------------------------------------
 *
 * cache.c
 *		Results: stored by workers, read by applications.
 *
 * eros.cache is partitioned by (bucket, expires_at).  A partition of bucket b
 * spans 2^b hours of expiry, and a handler's bucket is the smallest whose span
 * is at least a quarter of its lifetime: so its live results lie in at most
 * five partitions, whatever the lifetime, and dropping a partition is all that
 * purging takes.  Each partition has a unique index on (handler_id, user_id).
 *
 * eros.get() does without SQL: it probes these indexes directly, beginning
 * with the partition that expires last.  It keeps the list of partitions, and
 * reads it anew when the relation cache says that the parent has changed.
 * Storing deletes an older result wherever it is, so the first hit is the only
 * one.
 *
 * The bytes of live results are accounted per partition in shared memory; the
 * sizes on disk stand in for them after a restart.  Whether a result was read
 * before it expired is kept in a HyperLogLog per handler and partition, which
 * costs eros.get() one store.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heaptoast.h"
#include "access/htup_details.h"
#include "access/toast_internals.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "eros.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/hyperloglog.h"
#include "miscadmin.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "storage/bufmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(eros_get_bigint);
PG_FUNCTION_INFO_V1(eros_get_uuid);
PG_FUNCTION_INFO_V1(eros_get_text);
PG_FUNCTION_INFO_V1(eros_get_many_bigint);
PG_FUNCTION_INFO_V1(eros_get_many_uuid);
PG_FUNCTION_INFO_V1(eros_invalidate_bigint);
PG_FUNCTION_INFO_V1(eros_invalidate_uuid);
PG_FUNCTION_INFO_V1(eros_invalidate_text);
PG_FUNCTION_INFO_V1(eros_cache_partitions);
PG_FUNCTION_INFO_V1(eros_account_cache_bytes);
PG_FUNCTION_INFO_V1(eros_close_partition);

/* The columns of eros.cache, as the script creates them. */
enum
{
	CACHE_USER_ID = 1,
	CACHE_COMPUTED_AT,
	CACHE_EXPIRES_AT,
	CACHE_HANDLER_ID,
	CACHE_BUCKET,
	CACHE_VALUE
};

/* What an entry takes besides its value, as eros.entry_bytes() has it. */
#define ENTRY_OVERHEAD 112

/* A partition, by expiry. */
typedef struct CachePartition
{
	Oid relid;
	Oid index; /* on (handler_id, user_id); looked up when needed */
	int bucket;
	TimestampTz lower;
	TimestampTz upper;
} CachePartition;

static CachePartition *partitions = NULL;
static int npartitions = 0;
static Oid parent = InvalidOid;
static bool partitions_valid = false;

/* ------------------------------------------------------------------------
 * The list of partitions
 * ------------------------------------------------------------------------
 */

/* The smallest bucket whose span is at least a quarter of the lifetime. */
int
eros_cache_bucket(int64 ttl_us)
{
	int bucket = 0;

	while (ttl_us > ((int64) 4 * USECS_PER_HOUR) << bucket)
		bucket++;
	return bucket;
}

/* The end of the partition in which a result with this expiry lies. */
static TimestampTz
partition_upper(int bucket, TimestampTz expires_at)
{
	/* PostgreSQL's epoch is at a full hour of Unix's, but not at a full span */
	int64 offset = (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
	int64 width = (int64) USECS_PER_HOUR << bucket;

	return ((expires_at + offset) / width + 1) * width - offset;
}

/* Has the list read anew when the parent, a partition, or everything has changed. */
static void
parent_changed(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == parent)
		partitions_valid = false;
	for (int i = 0; i < npartitions && partitions_valid; i++)
	{
		if (partitions[i].relid == relid)
			partitions_valid = false; /* its index may be another one now */
	}
}

/* Orders partitions: those that expire last come first. */
static int
compare_partitions(const void *a, const void *b)
{
	TimestampTz ua = ((const CachePartition *) a)->upper;
	TimestampTz ub = ((const CachePartition *) b)->upper;

	return ua < ub ? 1 : ua > ub ? -1 : 0;
}

/* Makes sure that the list is up to date. */
static void
load_partitions(void)
{
	static bool registered = false;
	Relation rel;
	PartitionDesc desc;

	if (partitions_valid)
		return;
	if (!registered)
	{
		CacheRegisterRelcacheCallback(parent_changed, (Datum) 0);
		registered = true;
	}
	rel = eros_open_table("cache");
	parent = RelationGetRelid(rel);
	partitions_valid = true; /* unless it changes while we look */
	desc = eros_partition_desc(rel);
	if (partitions)
		pfree(partitions);
	npartitions = 0;
	partitions =
		MemoryContextAllocZero(TopMemoryContext, sizeof(CachePartition) * Max(desc->nparts, 1));

	/*
	 * The bounds of range partitions are a sorted list, and indexes[i] is the
	 * partition that ends at bound i.
	 */
	for (int i = 1; desc->nparts > 0 && i < desc->boundinfo->ndatums; i++)
	{
		int part = desc->boundinfo->indexes[i];

		if (part < 0)
			continue;
		partitions[npartitions].relid = desc->oids[part];
		partitions[npartitions].bucket = DatumGetInt16(desc->boundinfo->datums[i][0]);
		partitions[npartitions].lower = DatumGetTimestampTz(desc->boundinfo->datums[i - 1][1]);
		partitions[npartitions].upper = DatumGetTimestampTz(desc->boundinfo->datums[i][1]);
		npartitions++;
	}
	table_close(rel, AccessShareLock);
	qsort(partitions, npartitions, sizeof(CachePartition), compare_partitions);
}

/* Finds the unique index of a partition. */
static Oid
find_index(Relation heap)
{
	List *indexes = RelationGetIndexList(heap);
	ListCell *lc;
	Oid found = InvalidOid;

	foreach (lc, indexes)
	{
		Relation index = index_open(lfirst_oid(lc), AccessShareLock);

		if (index->rd_index->indisunique && index->rd_index->indisvalid &&
			index->rd_index->indnkeyatts == 2)
			found = lfirst_oid(lc);
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	return found;
}

/* ------------------------------------------------------------------------
 * Accounts
 * ------------------------------------------------------------------------
 */

/* Finds the account of a partition's bytes, or opens one. */
static pg_atomic_uint64 *
bytes_of(ErosDatabase *db, Oid relid)
{
	for (int i = 0; i < EROS_MAX_PARTITIONS; i++)
	{
		ErosPartitionBytes *account = &db->partitions[i];
		uint32 owner = pg_atomic_read_u32(&account->relid);

		if (owner == relid)
			return &account->bytes;
		if (owner == 0 && pg_atomic_compare_exchange_u32(&account->relid, &owner, relid))
			return &account->bytes;
		if (owner == relid)
			return &account->bytes;
	}
	return NULL;
}

/* Adds to the account of a partition when the transaction commits. */
static void
account_bytes(Oid relid, int64 bytes)
{
	ErosDatabase *db = eros_my_database();
	pg_atomic_uint64 *account = db ? bytes_of(db, relid) : NULL;

	if (account)
		eros_count_on_commit(account, bytes);
}

/* The bytes of live results in a database. */
uint64
eros_cache_bytes(ErosDatabase *db)
{
	int64 bytes = 0;

	for (int i = 0; i < EROS_MAX_PARTITIONS; i++)
	{
		if (pg_atomic_read_u32(&db->partitions[i].relid) != 0)
			bytes += (int64) pg_atomic_read_u64(&db->partitions[i].bytes);
	}
	return bytes > 0 ? bytes : 0;
}

/* Closes the accounts of partitions that are gone. */
void
eros_cache_close_accounts(void)
{
	ErosDatabase *db = eros_my_database();

	partitions_valid = false;
	load_partitions();
	for (int i = 0; i < EROS_MAX_PARTITIONS; i++)
	{
		uint32 relid = pg_atomic_read_u32(&db->partitions[i].relid);
		bool there = false;

		for (int p = 0; p < npartitions; p++)
			there = there || partitions[p].relid == relid;
		if (relid != 0 && !there)
		{
			pg_atomic_write_u64(&db->partitions[i].bytes, 0);
			pg_atomic_write_u32(&db->partitions[i].relid, 0);
		}
	}
}

/* Begins the accounts with the sizes on disk. */
void
eros_cache_recount(void)
{
	ErosDatabase *db = eros_my_database();

	eros_cache_close_accounts();
	SPI_execute("SELECT p.partition::oid, CASE WHEN pg_relation_size(p.partition) > 0"
				" THEN pg_total_relation_size(p.partition) ELSE 0 END"
				" FROM eros.cache_partitions() p",
				true, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool isnull;
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		pg_atomic_uint64 *account =
			bytes_of(db, DatumGetObjectId(SPI_getbinval(tuple, desc, 1, &isnull)));

		if (account != NULL && pg_atomic_read_u64(account) == 0)
			pg_atomic_write_u64(account, DatumGetInt64(SPI_getbinval(tuple, desc, 2, &isnull)));
	}
}

/* Finds the read marks of a handler's partition; with create opens them. */
static ErosReadWindow *
read_window(ErosHandlerStats *stats, TimestampTz upper, bool create)
{
	for (int i = 0; i < EROS_READ_WINDOWS; i++)
	{
		if (pg_atomic_read_u64(&stats->windows[i].upper) == (uint64) upper)
			return &stats->windows[i];
	}
	for (int i = 0; create && i < EROS_READ_WINDOWS; i++)
	{
		uint64 unused = 0;

		if (pg_atomic_compare_exchange_u64(&stats->windows[i].upper, &unused, (uint64) upper))
			return &stats->windows[i];
	}
	return NULL;
}

/* Marks a result as read. */
static void
mark_read(const ErosHandler *handler, const ErosKey *key, TimestampTz computed_at,
		  TimestampTz expires_at)
{
	ErosReadWindow *window =
		read_window(handler->stats, partition_upper(handler->bucket, expires_at), false);
	uint64 hash =
		(key->lo ^ (key->hi << 1) ^ (uint64) computed_at) * UINT64CONST(0x9E3779B97F4A7C15);
	hyperLogLogState state;

	if (window == NULL)
		return;
	state.registerWidth = EROS_READ_BITS;
	state.nRegisters = 1 << EROS_READ_BITS;
	state.hashesArr = window->registers;
	addHyperLogLog(&state, (uint32) (hash ^ (hash >> 32)));
}

/* close_partition(bucket, upper) returns void */
Datum
eros_close_partition(PG_FUNCTION_ARGS)
{
	int bucket = PG_GETARG_INT16(0);
	TimestampTz upper = PG_GETARG_TIMESTAMPTZ(1);
	ErosConfig *config = eros_config();

	for (int i = 0; i < config->nhandlers; i++)
	{
		ErosHandler *handler = &config->handlers[i];
		ErosReadWindow *window;
		hyperLogLogState state;
		double read;
		uint64 stored;

		if (handler->bucket != bucket)
			continue;
		window = read_window(handler->stats, upper, false);
		if (window == NULL)
			continue;
		initHyperLogLog(&state, EROS_READ_BITS);
		memcpy(state.hashesArr, window->registers, 1 << EROS_READ_BITS);
		read = estimateHyperLogLog(&state);
		freeHyperLogLog(&state);
		stored = pg_atomic_read_u64(&window->stored);
		pg_atomic_fetch_add_u64(&handler->stats->closed, stored);
		pg_atomic_fetch_add_u64(&handler->stats->unread,
								stored > (uint64) read ? stored - (uint64) read : 0);
		memset(window->registers, 0, sizeof(window->registers));
		pg_atomic_write_u64(&window->stored, 0);
		pg_atomic_write_u64(&window->upper, 0);
	}
	PG_RETURN_VOID();
}

/* ------------------------------------------------------------------------
 * Storing
 * ------------------------------------------------------------------------
 */

/* Makes the uuid[] of keys. */
static Datum
key_array(const ErosKey *keys, int nkeys)
{
	return eros_keys_to_array(keys, nkeys, EROS_KEY_UUID);
}

/* Takes off the bytes that a statement deleted per partition: tableoid, bytes. */
static void
account_deleted(void)
{
	bool isnull;

	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;

		account_bytes(DatumGetObjectId(SPI_getbinval(tuple, desc, 1, &isnull)),
					  -DatumGetInt64(SPI_getbinval(tuple, desc, 2, &isnull)));
	}
}

/* Deletes the results of these users; returns how many there were. */
static int
delete_results(const ErosHandler *handler, const ErosKey *keys, int nkeys, TimestampTz now)
{
	static SPIPlanPtr plan = NULL;
	Oid argtypes[] = {INT4OID, INT2OID, TIMESTAMPTZOID, UUIDARRAYOID};
	Datum values[] = {Int32GetDatum(handler->handler_id), Int16GetDatum(handler->bucket),
					  TimestampTzGetDatum(now), key_array(keys, nkeys)};
	int deleted;

	eros_plan(&plan,
			  "DELETE FROM eros.cache c WHERE c.bucket = $2 AND c.expires_at > $3"
			  " AND c.handler_id = $1 AND c.user_id = ANY ($4)"
			  " RETURNING c.tableoid, eros.entry_bytes(c.value)",
			  4, argtypes);
	SPI_execute_plan(plan, values, NULL, false, 0);
	deleted = (int) SPI_processed;
	account_deleted();
	return deleted;
}

/*
 * What a value takes when it is stored, as pg_column_size() will tell: the
 * toaster's decisions foreseen.  RETURNING would tell the size before them.
 */
static int64
stored_size(Datum value, Form_pg_attribute att)
{
	Size raw = VARSIZE(DatumGetPointer(value));
	Size fixed = MAXALIGN(SizeofHeapTupleHeader) + UUID_LEN + 2 * sizeof(TimestampTz) +
				 sizeof(int32) + sizeof(int16);
	Datum compressed;
	Size size = raw;

	if (VARATT_CAN_MAKE_SHORT(DatumGetPointer(value)))
		return VARATT_CONVERTED_SHORT_SIZE(DatumGetPointer(value));
	if (MAXALIGN(INTALIGN(fixed) + raw) <= TOAST_TUPLE_THRESHOLD)
		return raw;
	compressed = eros_compress(value, att);
	if (DatumGetPointer(compressed) != NULL)
	{
		size = VARSIZE(DatumGetPointer(compressed));
		pfree(DatumGetPointer(compressed));
	}
	if (MAXALIGN(INTALIGN(fixed) + size) <= TOAST_TUPLE_THRESHOLD)
		return size;
	return size - VARHDRSZ; /* out of line */
}

/* Adds the bytes of results that have been stored. */
static void
account_stored(const ErosHandler *handler, TimestampTz expires_at, const ErosResults *results)
{
	TimestampTz upper = partition_upper(handler->bucket, expires_at);
	Relation rel;
	int64 bytes = 0;

	load_partitions();
	rel = table_open(parent, AccessShareLock);
	for (int i = 0; i < results->nrows; i++)
		bytes +=
			ENTRY_OVERHEAD +
			stored_size(results->values[i], TupleDescAttr(RelationGetDescr(rel), CACHE_VALUE - 1));
	table_close(rel, NoLock);
	for (int p = 0; p < npartitions; p++)
	{
		if (partitions[p].bucket == handler->bucket && partitions[p].upper == upper)
			account_bytes(partitions[p].relid, bytes);
	}
	eros_count_on_commit(&handler->stats->stored_bytes, bytes);
}

/*
 * Stores what a handler returned for a batch of users.  An older result goes
 * also where there is no new one: the handler has nothing to keep for that
 * user any more.
 */
void
eros_cache_store(const ErosHandler *handler, const ErosKey *keys, int nkeys,
				 const ErosResults *results)
{
	static SPIPlanPtr plan = NULL;
	Oid argtypes[] = {INT4OID,		  INT2OID,		TIMESTAMPTZOID,
					  TIMESTAMPTZOID, UUIDARRAYOID, JSONBARRAYOID};
	TimestampTz now = eros_now();
	TimestampTz expires_at = now + handler->ttl_us;
	Datum values[6];
	ErosReadWindow *window;
	bool have_partition = false;

	/* normally partitions are made ahead of need */
	load_partitions();
	for (int i = 0; i < npartitions; i++)
		have_partition = have_partition ||
						 (partitions[i].bucket == handler->bucket &&
						  partitions[i].lower <= expires_at && expires_at < partitions[i].upper);
	if (!have_partition)
		SPI_execute("SELECT eros.create_partitions()", false, 0);

	delete_results(handler, keys, nkeys, now - handler->ttl_us);
	if (results->nrows == 0)
		return;
	values[0] = Int32GetDatum(handler->handler_id);
	values[1] = Int16GetDatum(handler->bucket);
	values[2] = TimestampTzGetDatum(now);
	values[3] = TimestampTzGetDatum(expires_at);
	values[4] = key_array(results->keys, results->nrows);
	values[5] = PointerGetDatum(
		construct_array(results->values, results->nrows, JSONBOID, -1, false, TYPALIGN_INT));
	eros_plan(
		&plan,
		"INSERT INTO eros.cache (user_id, computed_at, expires_at, handler_id, bucket, value)"
		" SELECT n.user_id, $3, $4, $1, $2, n.value FROM unnest($5, $6) AS n (user_id, value)",
		6, argtypes);
	SPI_execute_plan(plan, values, NULL, false, 0);
	account_stored(handler, expires_at, results);
	eros_count_on_commit(&handler->stats->stored, results->nrows);
	window = read_window(handler->stats, partition_upper(handler->bucket, expires_at), true);
	if (window)
		eros_count_on_commit(&window->stored, results->nrows);
}

/* ------------------------------------------------------------------------
 * Reading
 * ------------------------------------------------------------------------
 */

/*
 * Looks for a user's result in one partition.  The value is copied to the
 * current memory context, detoasted.
 */
static bool
probe_partition(CachePartition *part, const ErosHandler *handler, const pg_uuid_t *user,
				TimestampTz now, Datum *value, TimestampTz *computed_at, TimestampTz *expires_at)
{
	Relation heap = try_relation_open(part->relid, AccessShareLock);
	Relation index;
	IndexScanDesc scan;
	ScanKeyData keys[2];
	TupleTableSlot *slot;
	bool isnull;
	bool found = false;

	if (heap == NULL)
		return false; /* dropped this moment: all in it has expired */
	if (!OidIsValid(part->index) || !partitions_valid)
		part->index = find_index(heap);
	if (!OidIsValid(part->index))
	{
		relation_close(heap, AccessShareLock);
		return false;
	}
	index = index_open(part->index, AccessShareLock);
	slot = table_slot_create(heap, NULL);
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(handler->handler_id));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(user));
	scan = eros_index_beginscan(heap, index, GetActiveSnapshot(), 2);
	index_rescan(scan, keys, 2, NULL, 0);
	while (!found && index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		*expires_at = DatumGetTimestampTz(slot_getattr(slot, CACHE_EXPIRES_AT, &isnull));
		if (*expires_at <= now)
			continue;
		*computed_at = DatumGetTimestampTz(slot_getattr(slot, CACHE_COMPUTED_AT, &isnull));
		*value = PointerGetDatum(PG_DETOAST_DATUM_COPY(slot_getattr(slot, CACHE_VALUE, &isnull)));
		found = true;
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);

	/* the locks can go: what was read has been copied */
	index_close(index, AccessShareLock);
	relation_close(heap, AccessShareLock);
	return found;
}

/* Gives a user's result, palloc'd; counts the hit or the miss. */
Datum
eros_cache_get(const ErosHandler *handler, const ErosKey *key, bool *found)
{
	static uint32 calls = 0;
	bool measured = (calls++ + MyProcPid) % EROS_LATENCY_SAMPLE == 0; /* not each first call */
	uint64 start_ns = measured ? eros_monotonic_ns() : 0;
	TimestampTz now = eros_now();
	TimestampTz computed_at = 0;
	TimestampTz expires_at = 0;
	pg_uuid_t user;
	Datum value = (Datum) 0;

	eros_key_to_uuid(key, &user);
	load_partitions();
	*found = false;
	for (int i = 0; i < npartitions && !*found; i++)
	{
		if (partitions[i].bucket != handler->bucket || partitions[i].upper <= now ||
			partitions[i].lower > now + handler->ttl_us)
			continue;
		*found =
			probe_partition(&partitions[i], handler, &user, now, &value, &computed_at, &expires_at);
	}
	if (*found)
	{
		pg_atomic_fetch_add_u64(&handler->stats->hits, 1);
		mark_read(handler, key, computed_at, expires_at);
	}
	else
		pg_atomic_fetch_add_u64(&handler->stats->misses, 1);
	if (measured)
		eros_latency_note(eros_my_database(), EROS_OP_GET, eros_monotonic_ns() - start_ns);
	return value;
}

/* Finds the handler that is named by the first argument. */
static ErosHandler *
handler_of(FunctionCallInfo fcinfo)
{
	char name[NAMEDATALEN];
	text *given = PG_GETARG_TEXT_PP(0);

	if (VARSIZE_ANY_EXHDR(given) >= sizeof(name))
		return eros_handler_by_name(text_to_cstring(given), false);
	text_to_cstring_buffer(given, name, sizeof(name));
	return eros_handler_by_name(name, false);
}

/* Gives the result of a function that looks for one user. */
static Datum
get_one(FunctionCallInfo fcinfo, ErosKey key)
{
	ErosHandler *handler = handler_of(fcinfo);
	bool found;
	Datum value = eros_cache_get(handler, &key, &found);

	if (!found)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(value);
}

/* get(handler, bigint) returns jsonb */
Datum
eros_get_bigint(PG_FUNCTION_ARGS)
{
	return get_one(fcinfo, eros_key_from_bigint(PG_GETARG_INT64(1)));
}

/* get(handler, uuid) returns jsonb */
Datum
eros_get_uuid(PG_FUNCTION_ARGS)
{
	return get_one(fcinfo, eros_key_from_uuid(PG_GETARG_UUID_P(1)));
}

/* get(handler, text) returns jsonb */
Datum
eros_get_text(PG_FUNCTION_ARGS)
{
	return get_one(fcinfo, eros_key_from_text(PG_GETARG_TEXT_PP(1)));
}

/* Gives the results for an array of users. */
static Datum
get_many(FunctionCallInfo fcinfo, Oid element_type)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ErosHandler *handler = handler_of(fcinfo);
	int nkeys;
	ErosKey *keys = eros_keys_from_array(PG_GETARG_DATUM(1), element_type, &nkeys);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < nkeys; i++)
	{
		bool found;
		Datum row[2];
		bool nulls[2] = {false, false};

		CHECK_FOR_INTERRUPTS();
		row[1] = eros_cache_get(handler, &keys[i], &found);
		if (!found)
			continue;
		row[0] = element_type == UUIDOID ? eros_key_get_datum(&keys[i])
										 : Int64GetDatum((int64) keys[i].lo);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row, nulls);
		pfree(DatumGetPointer(row[1]));
	}
	return (Datum) 0;
}

/* get_many(handler, bigint[]) returns table */
Datum
eros_get_many_bigint(PG_FUNCTION_ARGS)
{
	return get_many(fcinfo, INT8OID);
}

/* get_many(handler, uuid[]) returns table */
Datum
eros_get_many_uuid(PG_FUNCTION_ARGS)
{
	return get_many(fcinfo, UUIDOID);
}

/* Deletes a user's result. */
static Datum
invalidate(FunctionCallInfo fcinfo, ErosKey key)
{
	ErosHandler *handler = handler_of(fcinfo);
	ErosRoleScope scope;
	int deleted;

	eros_owner_begin(&scope);
	deleted = delete_results(handler, &key, 1, eros_now());
	eros_owner_end(&scope);
	PG_RETURN_BOOL(deleted > 0);
}

/* invalidate(handler, bigint) returns boolean */
Datum
eros_invalidate_bigint(PG_FUNCTION_ARGS)
{
	return invalidate(fcinfo, eros_key_from_bigint(PG_GETARG_INT64(1)));
}

/* invalidate(handler, uuid) returns boolean */
Datum
eros_invalidate_uuid(PG_FUNCTION_ARGS)
{
	return invalidate(fcinfo, eros_key_from_uuid(PG_GETARG_UUID_P(1)));
}

/* invalidate(handler, text) returns boolean */
Datum
eros_invalidate_text(PG_FUNCTION_ARGS)
{
	return invalidate(fcinfo, eros_key_from_text(PG_GETARG_TEXT_PP(1)));
}

/* ------------------------------------------------------------------------
 * For maintenance and the status
 * ------------------------------------------------------------------------
 */

/* cache_partitions() returns setof record */
Datum
eros_cache_partitions(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ErosDatabase *db;

	eros_check_loaded();
	db = eros_my_database();
	load_partitions();
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < npartitions; i++)
	{
		Datum row[5];
		bool nulls[5] = {false};
		pg_atomic_uint64 *bytes = db ? bytes_of(db, partitions[i].relid) : NULL;

		row[0] = ObjectIdGetDatum(partitions[i].relid);
		row[1] = Int16GetDatum(partitions[i].bucket);
		row[2] = TimestampTzGetDatum(partitions[i].lower);
		row[3] = TimestampTzGetDatum(partitions[i].upper);
		row[4] = Int64GetDatum(bytes ? Max((int64) pg_atomic_read_u64(bytes), 0) : 0);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row, nulls);
	}
	return (Datum) 0;
}

/* account_cache_bytes(partition, bytes) returns void */
Datum
eros_account_cache_bytes(PG_FUNCTION_ARGS)
{
	eros_check_loaded();
	account_bytes(PG_GETARG_OID(0), PG_GETARG_INT64(1));
	PG_RETURN_VOID();
}
