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
 * Storing overwrites an older result in the same partition and deletes it in
 * any other, so the first hit is the only one.  It goes by the same indexes, and
 * writes the rows of a batch that are new at once.  Nothing but these indexes is
 * on the table: a row that is overwritten stays on its page where there is room
 * (HOT), which an index on expires_at would rule out.
 *
 * The bytes of live results are accounted per partition in shared memory; the
 * sizes on disk stand in for them after a restart.  Whether a result was read
 * before it expired is kept in a HyperLogLog per handler and partition, which
 * costs eros.get() one store.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/heaptoast.h"
#include "access/htup_details.h"
#include "access/toast_internals.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "eros.h"
#include "executor/executor.h"
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

static const Oid cache_types[] = {UUIDOID, TIMESTAMPTZOID, TIMESTAMPTZOID,
								  INT4OID, INT2OID,		   JSONBOID};

/* What an entry takes besides its value, as eros.entry_bytes() has it. */
#define ENTRY_OVERHEAD 120

/* A partition, by expiry. */
typedef struct CachePartition
{
	Oid relid;
	Oid index; /* on (handler_id, user_id); looked up when needed */
	int bucket;
	TimestampTz lower;
	TimestampTz upper;
} CachePartition;

/* How a change of results has gone. */
typedef struct CacheChange
{
	int live;		  /* so many that were live have been deleted */
	bool overwritten; /* somebody has overwritten a result that was to be changed */
	bool deleted;	  /* ... has deleted one */
} CacheChange;

/* A partition that is being looked at by its index on (handler_id, user_id). */
typedef struct CacheProbe
{
	Relation heap;
	Relation index;
	TupleTableSlot *slot;
	IndexScanDesc scan;
	pg_uuid_t user;
} CacheProbe;

static CachePartition *partitions = NULL;
static int npartitions = 0;
static Oid parent = InvalidOid;
static bool partitions_valid = false;
static uint64 partition_changes = 0; /* invalidations of the list so far */

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
TimestampTz
eros_cache_partition_upper(int bucket, TimestampTz expires_at)
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
	bool changed = relid == InvalidOid || relid == parent;

	for (int i = 0; i < npartitions && !changed; i++)
		changed = partitions[i].relid == relid; /* its index may be another one now */
	if (changed)
	{
		partitions_valid = false;
		partition_changes++;
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

/*
 * Makes sure that the list is up to date.  It is valid when it has been read to
 * its end, without an error and without a change that came in between.
 */
static void
load_partitions(void)
{
	static bool registered = false;
	Relation rel;
	PartitionDesc desc;
	CachePartition *read;
	uint64 changes;

	if (partitions_valid)
		return;
	if (!registered)
	{
		CacheRegisterRelcacheCallback(parent_changed, (Datum) 0);
		registered = true;
	}
	rel = eros_open_table("cache");
	eros_check_columns(rel, cache_types, lengthof(cache_types));
	parent = RelationGetRelid(rel);
	changes = partition_changes;
	desc = eros_partition_desc(rel);
	read = MemoryContextAllocZero(TopMemoryContext, sizeof(CachePartition) * Max(desc->nparts, 1));
	npartitions = 0;
	if (partitions)
		pfree(partitions);
	partitions = read;

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
	partitions_valid = changes == partition_changes;
}

/* Finds the unique index of a partition, on (handler_id, user_id). */
static Oid
find_index(Relation heap)
{
	List *indexes = RelationGetIndexList(heap);
	ListCell *lc;
	Oid found = InvalidOid;

	foreach (lc, indexes)
	{
		Relation index = index_open(lfirst_oid(lc), AccessShareLock);
		Form_pg_index form = index->rd_index;

		/* not one that an administrator has added */
		if (form->indisunique && form->indisvalid && form->indnkeyatts == 2 &&
			form->indkey.values[0] == CACHE_HANDLER_ID && form->indkey.values[1] == CACHE_USER_ID &&
			RelationGetIndexPredicate(index) == NIL)
			found = lfirst_oid(lc);
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	return found;
}

/* ------------------------------------------------------------------------
 * Probing
 * ------------------------------------------------------------------------
 */

/* Opens a partition to look for users' results by its index; false when it is gone. */
static bool
begin_probe(CacheProbe *probe, CachePartition *part, LOCKMODE lockmode)
{
	probe->heap = try_relation_open(part->relid, lockmode);
	if (probe->heap == NULL)
		return false; /* dropped this moment: all in it has expired */
	if (!OidIsValid(part->index) || !partitions_valid)
	{
		/* what is inherited changes with the parent only, and the list is invalid then */
		eros_check_columns(probe->heap, cache_types, lengthof(cache_types));
		part->index = find_index(probe->heap);
	}
	if (!OidIsValid(part->index))
	{
		relation_close(probe->heap, lockmode);
		return false;
	}
	probe->index = index_open(part->index, lockmode);
	probe->slot = table_slot_create(probe->heap, NULL);
	probe->scan = eros_index_beginscan(probe->heap, probe->index, GetActiveSnapshot(), 2);
	return true;
}

/* Goes to a user's results. */
static void
probe_user(CacheProbe *probe, const ErosHandler *handler, const ErosKey *key)
{
	ScanKeyData keys[2];

	eros_key_to_uuid(key, &probe->user);
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(handler->handler_id));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(&probe->user));
	index_rescan(probe->scan, keys, 2, NULL, 0);
}

/* Closes a partition, with the locks to be released. */
static void
end_probe(CacheProbe *probe, LOCKMODE lockmode)
{
	index_endscan(probe->scan);
	ExecDropSingleTupleTableSlot(probe->slot);
	index_close(probe->index, lockmode);
	relation_close(probe->heap, lockmode);
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

/* Finds what is known of a handler's results in a partition; with create opens it. */
static ErosReadWindow *
read_window(ErosHandlerStats *stats, int bucket, TimestampTz upper, bool create)
{
	uint64 name = (uint64) upper + bucket; /* bounds are whole hours, in us */

	for (int i = 0; i < EROS_READ_WINDOWS; i++)
	{
		if (pg_atomic_read_u64(&stats->windows[i].name) == name)
			return &stats->windows[i];
	}
	for (int i = 0; create && i < EROS_READ_WINDOWS; i++)
	{
		uint64 unused = 0;

		if (pg_atomic_compare_exchange_u64(&stats->windows[i].name, &unused, name))
		{
			/* a commit may have come after the last partition was closed */
			pg_atomic_write_u64(&stats->windows[i].bytes, 0);
			return &stats->windows[i];
		}
	}
	return NULL;
}

/* ... of the partition in which a result with this expiry lies. */
static ErosReadWindow *
read_window_at(const ErosHandler *handler, TimestampTz expires_at, bool create)
{
	return read_window(handler->stats, handler->bucket,
					   eros_cache_partition_upper(handler->bucket, expires_at), create);
}

/* Adds to the account of a partition when the transaction commits. */
static void
account_partition(Oid relid, int64 bytes)
{
	ErosDatabase *db = eros_my_database();
	pg_atomic_uint64 *account = db ? bytes_of(db, relid) : NULL;

	if (account)
		eros_count_on_commit(account, bytes);
}

/* Adds to it, and to what a handler has in the partition. */
static void
account_bytes(const CachePartition *part, const ErosHandler *handler, int64 bytes)
{
	ErosReadWindow *window = read_window(handler->stats, part->bucket, part->upper, bytes > 0);

	account_partition(part->relid, bytes);
	if (window)
		eros_count_on_commit(&window->bytes, bytes);
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

/* The bytes of a handler's live results. */
uint64
eros_cache_bytes_of(ErosHandlerStats *stats)
{
	int64 bytes = 0;

	for (int i = 0; i < EROS_READ_WINDOWS; i++)
	{
		if (pg_atomic_read_u64(&stats->windows[i].name) != 0)
			bytes += Max((int64) pg_atomic_read_u64(&stats->windows[i].bytes), 0);
	}
	return (uint64) bytes;
}

/* Tells whether there is a partition in which all has expired. */
bool
eros_cache_has_expired(TimestampTz now)
{
	load_partitions();
	for (int i = 0; i < npartitions; i++)
	{
		if (partitions[i].upper <= now)
			return true;
	}
	return false;
}

/*
 * Lists the partitions of a bucket that may have results which expire after one
 * time and up to another, the first to expire first.  They stay as long as the
 * transaction.
 */
int
eros_cache_expiring(int bucket, TimestampTz after, TimestampTz upto, ErosExpiringPartition **found)
{
	int n = 0;

	load_partitions();
	*found = palloc(sizeof(ErosExpiringPartition) * Max(npartitions, 1));
	for (int i = npartitions - 1; i >= 0; i--)
	{
		Relation heap;

		if (partitions[i].bucket != bucket || partitions[i].upper <= after ||
			partitions[i].lower > upto)
			continue;
		heap = try_relation_open(partitions[i].relid, AccessShareLock);
		if (heap == NULL)
			continue; /* dropped this moment */
		(*found)[n].relid = partitions[i].relid;
		(*found)[n].upper = partitions[i].upper;
		(*found)[n].nblocks = RelationGetNumberOfBlocks(heap);
		n++;
		relation_close(heap, NoLock);
	}
	return n;
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

/*
 * Begins the accounts of partitions with their sizes on disk, and those of the
 * handlers in them with their part of the rows, as far as ANALYZE has told.
 */
void
eros_cache_recount(void)
{
	ErosDatabase *db = eros_my_database();
	Oid begun = InvalidOid;

	eros_cache_close_accounts();
	(void) eros_config();
	SPI_execute("SELECT p.partition::oid, pg_total_relation_size(p.partition), p.bucket, p.upper,"
				" v.handler_id, v.part"
				" FROM eros.cache_partitions() p JOIN pg_class c ON c.oid = p.partition"
				" LEFT JOIN pg_stats s ON s.schemaname = 'eros' AND s.tablename = c.relname"
				"	AND s.attname = 'handler_id' AND NOT s.inherited"
				" LEFT JOIN LATERAL unnest(s.most_common_vals::text::integer[],"
				"	s.most_common_freqs) v (handler_id, part) ON true"
				" WHERE pg_relation_size(p.partition) > 0 ORDER BY 1",
				true, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		bool isnull;
		Oid relid = DatumGetObjectId(SPI_getbinval(tuple, desc, 1, &isnull));
		int64 bytes = DatumGetInt64(SPI_getbinval(tuple, desc, 2, &isnull));
		int bucket = DatumGetInt16(SPI_getbinval(tuple, desc, 3, &isnull));
		TimestampTz upper = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 4, &isnull));
		pg_atomic_uint64 *account = bytes_of(db, relid);
		ErosHandler *handler;
		ErosReadWindow *window;

		if (account == NULL || (relid != begun && pg_atomic_read_u64(account) != 0))
			continue; /* it has been kept all the time */
		begun = relid;
		pg_atomic_write_u64(account, (uint64) bytes);
		handler = eros_handler_by_id(DatumGetInt32(SPI_getbinval(tuple, desc, 5, &isnull)));
		if (isnull || handler == NULL)
			continue;
		window = read_window(handler->stats, bucket, upper, true);
		if (window != NULL)
			pg_atomic_write_u64(
				&window->bytes,
				(uint64) (bytes * DatumGetFloat4(SPI_getbinval(tuple, desc, 6, &isnull))));
	}
}

/* Marks a result as read. */
static void
mark_read(const ErosHandler *handler, const ErosKey *key, TimestampTz computed_at,
		  TimestampTz expires_at)
{
	ErosReadWindow *window = read_window_at(handler, expires_at, false);
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

		window = read_window(handler->stats, bucket, upper, false);
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
		pg_atomic_write_u64(&window->bytes, 0);
		pg_atomic_write_u64(&window->name, 0);
	}
	PG_RETURN_VOID();
}

/* ------------------------------------------------------------------------
 * Storing
 * ------------------------------------------------------------------------
 */

/* The bytes that the result takes which was found. */
static int64
bytes_found(CacheProbe *probe)
{
	bool isnull;

	return ENTRY_OVERHEAD +
		   (int64) toast_datum_size(slot_getattr(probe->slot, CACHE_VALUE, &isnull));
}

/* What a change that somebody else has come before is, where it cannot be made good. */
static void
report_concurrent_change(void)
{
	ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					errmsg("could not change a result due to a concurrent change")));
}

/* Tells whether the result was changed; if not, somebody else has deleted or overwritten it. */
static bool
was_changed(TM_Result result, CacheChange *change)
{
	if (result == TM_Ok)
		return true;
	if (IsolationUsesXactSnapshot())
		report_concurrent_change();
	change->overwritten = change->overwritten || result == TM_Updated;
	change->deleted = change->deleted || result == TM_Deleted;
	return false;
}

/* Deletes the result that was found; returns the bytes that it took, 0 if it was gone. */
static int64
delete_found(CacheProbe *probe, CacheChange *change)
{
	int64 bytes = bytes_found(probe);
	ItemPointerData ctid = probe->slot->tts_tid;
	TM_FailureData failure;
	TM_Result result =
		table_tuple_delete(probe->heap, &ctid, GetCurrentCommandId(true), GetActiveSnapshot(),
						   InvalidSnapshot, true, &failure, false);

	return was_changed(result, change) ? bytes : 0;
}

/* Deletes the results of these users in a partition. */
static void
delete_in_partition(CachePartition *part, const ErosHandler *handler, const ErosKey *keys,
					int nkeys, TimestampTz now, CacheChange *change)
{
	CacheProbe probe;
	int64 bytes = 0;

	if (!begin_probe(&probe, part, RowExclusiveLock))
		return;
	if (RelationGetNumberOfBlocks(probe.heap) == 0)
		nkeys = 0; /* one is kept ahead */
	for (int i = 0; i < nkeys; i++)
	{
		probe_user(&probe, handler, &keys[i]);
		while (index_getnext_slot(probe.scan, ForwardScanDirection, probe.slot))
		{
			bool isnull;
			Datum expires_at = slot_getattr(probe.slot, CACHE_EXPIRES_AT, &isnull);
			int64 freed = delete_found(&probe, change);

			bytes += freed;
			if (freed > 0 && DatumGetTimestampTz(expires_at) > now)
				change->live++;
		}
	}
	end_probe(&probe, NoLock);
	if (bytes > 0)
		account_bytes(part, handler, -bytes);
}

/* Begins to change results, as they are now. */
static void
begin_change(void)
{
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
}

/* Ends it: what was changed can be seen. */
static void
end_change(void)
{
	PopActiveSnapshot();
	CommandCounterIncrement();
}

/*
 * Deletes the results of these users in all partitions but one.  By the indexes,
 * without SQL: what the planner knows of the partitions is old at best, as they
 * are new every few hours.
 */
static void
delete_results(const ErosHandler *handler, const ErosKey *keys, int nkeys,
			   const CachePartition *except, TimestampTz now, CacheChange *change)
{
	for (int i = 0; i < npartitions; i++)
	{
		if (partitions[i].bucket == handler->bucket && partitions[i].upper > now &&
			&partitions[i] != except)
			delete_in_partition(&partitions[i], handler, keys, nkeys, now, change);
	}
}

/*
 * Compresses a value if the toaster would, so that it is done once, and tells
 * what it takes when it is stored, as pg_column_size() will.
 */
static Datum
pack_value(Datum value, Form_pg_attribute att, int64 *bytes)
{
	Size fixed = MAXALIGN(SizeofHeapTupleHeader) + UUID_LEN + 2 * sizeof(TimestampTz) +
				 sizeof(int32) + sizeof(int16);
	Datum compressed;

	if (VARATT_CAN_MAKE_SHORT(DatumGetPointer(value)))
	{
		*bytes = VARATT_CONVERTED_SHORT_SIZE(DatumGetPointer(value));
		return value;
	}
	*bytes = VARSIZE(DatumGetPointer(value));
	if (MAXALIGN(INTALIGN(fixed) + *bytes) <= TOAST_TUPLE_THRESHOLD)
		return value;
	compressed = eros_compress(value, att);
	if (DatumGetPointer(compressed) != NULL)
	{
		value = compressed;
		*bytes = VARSIZE(DatumGetPointer(value));
	}
	if (MAXALIGN(INTALIGN(fixed) + *bytes) > TOAST_TUPLE_TARGET_MAIN)
		*bytes -= VARHDRSZ; /* out of line */
	return value;
}

/* Fills a row of the cache; columns that others have added are null. */
static void
fill_row(TupleTableSlot *slot, const ErosHandler *handler, const ErosKey *key, TimestampTz now,
		 Datum value)
{
	memset(slot->tts_isnull, true, sizeof(bool) * slot->tts_tupleDescriptor->natts);
	memset(slot->tts_isnull, false, sizeof(bool) * lengthof(cache_types));
	slot->tts_values[CACHE_USER_ID - 1] = eros_key_get_datum(key);
	slot->tts_values[CACHE_COMPUTED_AT - 1] = TimestampTzGetDatum(now);
	slot->tts_values[CACHE_EXPIRES_AT - 1] = TimestampTzGetDatum(now + handler->ttl_us);
	slot->tts_values[CACHE_HANDLER_ID - 1] = Int32GetDatum(handler->handler_id);
	slot->tts_values[CACHE_BUCKET - 1] = Int16GetDatum(handler->bucket);
	slot->tts_values[CACHE_VALUE - 1] = value;
	ExecStoreVirtualTuple(slot);
}

/* Finds the partition for results that a handler stores now; makes it when there is none. */
static CachePartition *
partition_for(const ErosHandler *handler, TimestampTz expires_at)
{
	for (int tries = 0; tries < 2; tries++)
	{
		load_partitions();
		for (int i = 0; i < npartitions; i++)
		{
			if (partitions[i].bucket == handler->bucket && partitions[i].lower <= expires_at &&
				expires_at < partitions[i].upper)
				return &partitions[i];
		}

		/* normally they are made ahead of need */
		SPI_execute("SELECT eros.create_partitions()", false, 0);
	}
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("there is no partition of eros.cache for results of handler \"%s\"",
						   handler->name)));
}

/* A partition that results are written to, with its indexes. */
typedef struct CacheTarget
{
	CacheProbe probe;
	ResultRelInfo *indexes;
	EState *estate;
	Form_pg_attribute att; /* of the value */
	bool empty;			   /* there is nothing to look for */
	int64 added;		   /* bytes, those of overwritten and deleted results taken off */
	CacheChange *change;
} CacheTarget;

/* Opens the partition for writing. */
static void
begin_target(CacheTarget *target, CachePartition *part)
{
	if (!begin_probe(&target->probe, part, RowExclusiveLock))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("partition %u of eros.cache is gone, or without its unique index on "
							   "(handler_id, user_id)",
							   part->relid)));
	target->att = TupleDescAttr(RelationGetDescr(target->probe.heap), CACHE_VALUE - 1);
	target->empty = RelationGetNumberOfBlocks(target->probe.heap) == 0;
	target->added = 0;
	target->estate = CreateExecutorState();
	target->indexes = makeNode(ResultRelInfo);
	InitResultRelInfo(target->indexes, target->probe.heap, 0, NULL, 0);
	ExecOpenIndices(target->indexes, false);
}

/* Closes it, and keeps the lock. */
static void
end_target(CacheTarget *target)
{
	ExecCloseIndices(target->indexes);
	FreeExecutorState(target->estate);
	end_probe(&target->probe, NoLock);
}

/* Puts a result in the place of the one that was found; false if that is gone. */
static bool
overwrite_found(CacheTarget *target, TupleTableSlot *slot)
{
	CacheProbe *probe = &target->probe;
	ItemPointerData ctid = probe->slot->tts_tid;
	int64 bytes = bytes_found(probe);
	ErosIndexUpdate indexes_need;
	TM_FailureData failure;
	LockTupleMode lockmode;
	TM_Result result =
		table_tuple_update(probe->heap, &ctid, slot, GetCurrentCommandId(true), GetActiveSnapshot(),
						   InvalidSnapshot, true, &failure, &lockmode, &indexes_need);

	if (!was_changed(result, target->change))
		return false;
	eros_update_index_tuples(target->indexes, slot, target->estate, indexes_need);
	ResetPerTupleExprContext(target->estate);
	target->added -= bytes;
	return true;
}

/*
 * Sees to the result that a user has in the partition: a new one, if there is
 * one, takes its place, else it is deleted.  Tells whether there was a place.
 */
static bool
replace_result(CacheTarget *target, const ErosHandler *handler, const ErosKey *key,
			   TupleTableSlot *slot)
{
	CacheProbe *probe = &target->probe;
	bool placed = false;

	if (target->empty)
		return false;
	probe_user(probe, handler, key);
	while (index_getnext_slot(probe->scan, ForwardScanDirection, probe->slot))
	{
		if (slot != NULL && !placed)
			placed = overwrite_found(target, slot);
		else
			target->added -= delete_found(probe, target->change);
	}
	return placed;
}

/* Writes rows for which there was no place, and their entries in the indexes. */
static void
insert_rows(CacheTarget *target, TupleTableSlot **slots, int nslots)
{
	if (nslots == 0)
		return;
	table_multi_insert(target->probe.heap, slots, nslots, GetCurrentCommandId(true), 0, NULL);
	for (int i = 0; i < nslots; i++)
	{
		eros_insert_index_tuples(target->indexes, slots[i], target->estate);
		ResetPerTupleExprContext(target->estate);
		ExecDropSingleTupleTableSlot(slots[i]);
	}
}

/*
 * Writes results into their partition; returns the bytes that they take.  An
 * older one that is in the same partition is overwritten: the new version of
 * the row mostly finds room on its page, and then the index stays as it is.
 */
static int64
write_results(CachePartition *part, const ErosHandler *handler, const ErosKey *keys, int nkeys,
			  const ErosResults *results, TimestampTz now, CacheChange *change)
{
	CacheTarget target;
	TupleTableSlot **slots = palloc(sizeof(TupleTableSlot *) * results->nrows);
	int nslots = 0;
	int64 sum = 0;

	begin_target(&target, part);
	target.change = change;
	for (int i = 0; i < nkeys; i++)
	{
		TupleTableSlot *slot = NULL;

		if (results->values[i] != (Datum) 0)
		{
			int64 bytes;
			Datum value = pack_value(results->values[i], target.att, &bytes);

			sum += ENTRY_OVERHEAD + bytes;
			slot = table_slot_create(target.probe.heap, NULL);
			fill_row(slot, handler, &keys[i], now, value);
		}
		if (replace_result(&target, handler, &keys[i], slot))
			ExecDropSingleTupleTableSlot(slot);
		else if (slot != NULL)
			slots[nslots++] = slot;
	}
	if (!change->overwritten)
		insert_rows(&target, slots, nslots);
	end_target(&target);
	account_bytes(part, handler, sum + target.added);
	return sum;
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
	TimestampTz now = eros_now();
	TimestampTz expires_at = now + handler->ttl_us;
	CachePartition *part = NULL;
	ErosReadWindow *window;
	int64 bytes = 0;
	CacheChange change = {0};

	load_partitions();
	if (results->nrows > 0)
		part = partition_for(handler, expires_at);
	begin_change();
	delete_results(handler, keys, nkeys, part, now, &change);
	if (part != NULL)
		bytes = write_results(part, handler, keys, nkeys, results, now, &change);
	end_change();
	if (change.overwritten)
		report_concurrent_change(); /* the claims see to it that nobody else stores for them */
	if (part == NULL)
		return;
	eros_count_on_commit(&handler->stats->stored_bytes, bytes);
	eros_count_on_commit(&handler->stats->stored, results->nrows);
	window = read_window_at(handler, expires_at, true);
	if (window)
		eros_count_on_commit(&window->stored, results->nrows);
}

/* ------------------------------------------------------------------------
 * Reading
 * ------------------------------------------------------------------------
 */

/* Looks for a user's result in one partition; the value is copied, detoasted. */
static bool
look_in_partition(CachePartition *part, const ErosHandler *handler, const ErosKey *key,
				  TimestampTz now, Datum *value, TimestampTz *computed_at, TimestampTz *expires_at)
{
	CacheProbe probe;
	bool isnull;
	bool found = false;

	if (!begin_probe(&probe, part, AccessShareLock))
		return false;
	probe_user(&probe, handler, key);
	while (!found && index_getnext_slot(probe.scan, ForwardScanDirection, probe.slot))
	{
		*expires_at = DatumGetTimestampTz(slot_getattr(probe.slot, CACHE_EXPIRES_AT, &isnull));
		if (*expires_at <= now)
			continue;
		*computed_at = DatumGetTimestampTz(slot_getattr(probe.slot, CACHE_COMPUTED_AT, &isnull));
		*value =
			PointerGetDatum(PG_DETOAST_DATUM_COPY(slot_getattr(probe.slot, CACHE_VALUE, &isnull)));
		found = true;
	}

	/* the locks can go: what was read has been copied */
	end_probe(&probe, AccessShareLock);
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
	Datum value = (Datum) 0;

	load_partitions();
	*found = false;
	for (int i = 0; i < npartitions && !*found; i++)
	{
		if (partitions[i].bucket != handler->bucket || partitions[i].upper <= now ||
			partitions[i].lower > now + handler->ttl_us)
			continue;
		*found =
			look_in_partition(&partitions[i], handler, key, now, &value, &computed_at, &expires_at);
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
	CacheChange change = {0};

	PreventCommandIfReadOnly("eros.invalidate()");
	eros_owner_begin(&scope);

	/* again, where a worker has just stored a newer result: that is to go */
	do
	{
		change.overwritten = change.deleted = false;
		load_partitions();
		begin_change();
		delete_results(handler, &key, 1, NULL, eros_now(), &change);
		end_change();
	} while (change.overwritten || change.deleted);
	eros_owner_end(&scope);
	PG_RETURN_BOOL(change.live > 0);
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
	eros_check_row(rsinfo->setDesc, 5);
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

/* Finds a partition of the list. */
static CachePartition *
partition_of(Oid relid)
{
	load_partitions();
	for (int i = 0; i < npartitions; i++)
	{
		if (partitions[i].relid == relid)
			return &partitions[i];
	}
	return NULL;
}

/*
 * account_cache_bytes(partition, handler_id, bytes) returns void
 *
 * handler_id NULL: nothing is left in the partition.
 */
Datum
eros_account_cache_bytes(PG_FUNCTION_ARGS)
{
	Oid relid = PG_GETARG_OID(0);
	CachePartition *part;
	ErosConfig *config;

	eros_check_loaded();
	if (PG_ARGISNULL(0) || PG_ARGISNULL(2))
		PG_RETURN_VOID();
	account_partition(relid, PG_GETARG_INT64(2));
	part = partition_of(relid);
	if (part == NULL)
		PG_RETURN_VOID();
	config = eros_config();
	for (int i = 0; i < config->nhandlers; i++)
	{
		ErosHandler *handler = &config->handlers[i];
		ErosReadWindow *window = read_window(handler->stats, part->bucket, part->upper, false);

		if (window == NULL)
			continue;
		if (PG_ARGISNULL(1))
			eros_count_on_commit(&window->bytes, -eros_value_on_commit(&window->bytes));
		else if (handler->handler_id == PG_GETARG_INT32(1))
			eros_count_on_commit(&window->bytes, PG_GETARG_INT64(2));
	}
	PG_RETURN_VOID();
}
