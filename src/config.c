/*-------------------------------------------------------------------------
 *
 * config.c
 *		The configuration: phases and handlers, as the tables have them.
 *
 * Each process keeps a copy of eros.phase and eros.handler, and reads them
 * anew when the database's config_generation has been raised, which triggers
 * on the tables do at commit.  Pointers into the copy hold until the end of the
 * transaction; background processes read it when they choose to.
 *
 * The tables are read without SQL.  So what the script has made them is checked
 * first, and what their constraints say once more with each row.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "eros.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* The columns of eros.phase and eros.handler, as the script creates them. */
enum
{
	PHASE_PHASE = 1,
	PHASE_IDLE_AFTER,
	PHASE_CPU_PERCENT,
	PHASE_BATCH_SIZE
};

enum
{
	HANDLER_ID = 1,
	HANDLER_NAME,
	HANDLER_FUNCTION,
	HANDLER_FUNCTION_OID,
	HANDLER_USER_TYPE,
	HANDLER_PHASE,
	HANDLER_TTL,
	HANDLER_BUCKET,
	HANDLER_MAX_ATTEMPTS,
	HANDLER_TIMEOUT,
	HANDLER_OWNER,
	HANDLER_ENABLED,
	HANDLER_ERROR
};

static const Oid phase_types[] = {INT2OID, INTERVALOID, FLOAT8OID, INT4OID};
static const Oid handler_types[] = {INT4OID,	TEXTOID,	 TEXTOID, OIDOID,  InvalidOid,
									INT2OID,	INTERVALOID, INT2OID, INT4OID, INTERVALOID,
									REGROLEOID, BOOLOID}; /* but the error, which may be NULL */

/* The copy, and those before it that somebody in this transaction may still use. */
static ErosConfig *config = NULL;
static List *retired = NIL;

/* Where it was read from, and whether one of these tables has changed since. */
static Oid phase_relid = InvalidOid;
static Oid handler_relid = InvalidOid;
static bool config_is_stale = false;

/* Only eros_config_reload() reads the configuration anew: a background process. */
static bool reload_by_hand = false;

/* Gives an interval in microseconds, a month being 30 days. */
int64
eros_interval_us(const Interval *interval)
{
	return interval->time + (interval->day + (int64) interval->month * 30) * USECS_PER_DAY;
}

/* Opens one of EROS's tables. */
Relation
eros_open_table(const char *name)
{
	Oid relid = get_relname_relid(name, get_namespace_oid("eros", true));
	Relation rel = OidIsValid(relid) ? try_relation_open(relid, AccessShareLock) : NULL;

	if (rel == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("extension \"eros\" is not installed in this database"),
						errhint("Run CREATE EXTENSION eros.")));
	return rel;
}

/*
 * Refuses a table whose first columns are not of these types (InvalidOid: any),
 * or may be NULL: what reads it without SQL goes by their numbers.
 */
void
eros_check_columns(Relation rel, const Oid *types, int ntypes)
{
	TupleDesc desc = RelationGetDescr(rel);
	char kind = rel->rd_rel->relkind;
	bool is_table = kind == RELKIND_RELATION || kind == RELKIND_PARTITIONED_TABLE;

	for (int i = 0; i < ntypes; i++)
	{
		if (is_table && i < desc->natts && !TupleDescAttr(desc, i)->attisdropped &&
			TupleDescAttr(desc, i)->attnotnull &&
			(!OidIsValid(types[i]) || TupleDescAttr(desc, i)->atttypid == types[i]))
			continue;
		eros_check_version(); /* which may be why */
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("the columns of table eros.%s have been changed",
							   RelationGetRelationName(rel)),
						errhint("EROS needs its tables as CREATE EXTENSION makes them.")));
	}
}

/* Refuses one of the tables that are read by SQL, when it is not as the script makes it. */
void
eros_check_table(const char *name)
{
	static const Oid activity_types[] = {UUIDOID, TIMESTAMPTZOID, INT2OID};
	static const Oid snapshot_types[] = {TIMESTAMPTZOID, TIMESTAMPTZOID, INT4OID, BYTEAOID};
	Relation rel = eros_open_table(name);

	if (strcmp(name, "snapshot") == 0)
		eros_check_columns(rel, snapshot_types, lengthof(snapshot_types));
	else
		eros_check_columns(rel, activity_types, strcmp(name, "activity") == 0 ? 3 : 2);
	table_close(rel, NoLock); /* it stays so until the transaction's end */
}

/*
 * Takes the lock that writing to one of EROS's tables needs, before reading it:
 * taking it later could deadlock with REINDEX.
 */
void
eros_lock_for_writing(const char *name)
{
	Oid relid = get_relname_relid(name, get_namespace_oid("eros", true));

	if (OidIsValid(relid))
		LockRelationOid(relid, RowExclusiveLock);
}

/*
 * Refuses a row that the table's constraints should have refused: who owns the
 * table can drop them, and shared memory is indexed by what it says.
 */
static void
require_in_range(bool in_range, const char *table)
{
	if (!in_range)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("a row of table eros.%s is out of range", table),
						errhint("EROS needs the constraints as CREATE EXTENSION makes them.")));
}

/* Reads a row of eros.phase. */
static void
load_phase(HeapTuple tuple, TupleDesc desc)
{
	ErosPhase *phase;
	bool isnull;

	require_in_range(config->nphases < EROS_MAX_PHASES, "phase");
	phase = &config->phases[config->nphases++];
	phase->phase = DatumGetInt16(heap_getattr(tuple, PHASE_PHASE, desc, &isnull));
	phase->idle_after_us =
		eros_interval_us(DatumGetIntervalP(heap_getattr(tuple, PHASE_IDLE_AFTER, desc, &isnull)));
	phase->cpu_percent = DatumGetFloat8(heap_getattr(tuple, PHASE_CPU_PERCENT, desc, &isnull));
	phase->batch_size = DatumGetInt32(heap_getattr(tuple, PHASE_BATCH_SIZE, desc, &isnull));
	require_in_range(phase->phase >= 1 && phase->phase <= EROS_MAX_PHASES &&
						 phase->idle_after_us > 0 && phase->cpu_percent > 0 &&
						 phase->cpu_percent <= 100 && phase->batch_size >= 1 &&
						 phase->batch_size <= EROS_MAX_BATCH,
					 "phase");
}

/* Reads a row of eros.handler. */
static void
load_handler(HeapTuple tuple, TupleDesc desc)
{
	ErosHandler *handler;
	bool isnull;
	Oid user_type;
	Datum label;

	config->handlers = repalloc(config->handlers, sizeof(ErosHandler) * (config->nhandlers + 1));
	handler = &config->handlers[config->nhandlers++];
	memset(handler, 0, sizeof(ErosHandler));
	handler->handler_id = DatumGetInt32(heap_getattr(tuple, HANDLER_ID, desc, &isnull));
	strlcpy(handler->name, TextDatumGetCString(heap_getattr(tuple, HANDLER_NAME, desc, &isnull)),
			NAMEDATALEN);
	handler->function = TextDatumGetCString(heap_getattr(tuple, HANDLER_FUNCTION, desc, &isnull));
	handler->function_oid =
		DatumGetObjectId(heap_getattr(tuple, HANDLER_FUNCTION_OID, desc, &isnull));
	user_type = DatumGetObjectId(heap_getattr(tuple, HANDLER_USER_TYPE, desc, &isnull));
	label = OidFunctionCall1(F_ENUM_OUT, ObjectIdGetDatum(user_type));
	handler->key_type =
		strcmp(DatumGetCString(label), "uuid") == 0 ? EROS_KEY_UUID : EROS_KEY_BIGINT;
	handler->phase = DatumGetInt16(heap_getattr(tuple, HANDLER_PHASE, desc, &isnull));
	handler->ttl_us =
		eros_interval_us(DatumGetIntervalP(heap_getattr(tuple, HANDLER_TTL, desc, &isnull)));
	handler->bucket = DatumGetInt16(heap_getattr(tuple, HANDLER_BUCKET, desc, &isnull));
	handler->max_attempts = DatumGetInt32(heap_getattr(tuple, HANDLER_MAX_ATTEMPTS, desc, &isnull));
	handler->timeout_ms = (int) (eros_interval_us(DatumGetIntervalP(
									 heap_getattr(tuple, HANDLER_TIMEOUT, desc, &isnull))) /
								 1000);
	handler->owner = DatumGetObjectId(heap_getattr(tuple, HANDLER_OWNER, desc, &isnull));
	handler->enabled = DatumGetBool(heap_getattr(tuple, HANDLER_ENABLED, desc, &isnull));
	(void) heap_getattr(tuple, HANDLER_ERROR, desc, &isnull);
	handler->has_error = !isnull;
	require_in_range(handler->phase >= 1 && handler->phase <= EROS_MAX_PHASES &&
						 handler->ttl_us > 0 && handler->max_attempts >= 1 &&
						 handler->timeout_ms >= 1,
					 "handler");
	handler->stats = eros_handler_stats(MyDatabaseId, handler->handler_id);
}

/*
 * Reads all rows of a table.
 *
 * With the latest snapshot, not the transaction's: what is read here is kept
 * beyond it.
 */
static void
load_table(const char *name, Oid *relid, const Oid *types, int ntypes,
		   void (*load)(HeapTuple tuple, TupleDesc desc))
{
	Relation rel = eros_open_table(name);
	Snapshot snapshot =
		RegisterSnapshot(IsInParallelMode() ? GetActiveSnapshot() : GetLatestSnapshot());
	TableScanDesc scan;
	HeapTuple tuple;

	*relid = RelationGetRelid(rel);
	eros_check_columns(rel, types, ntypes);
	scan = table_beginscan(rel, snapshot, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
		load(tuple, RelationGetDescr(rel));
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

/* On a standby nobody raises the generation; this comes along with the WAL. */
static void
table_changed(Datum arg, Oid relid)
{
	if (relid == phase_relid || relid == handler_relid || !OidIsValid(relid))
		config_is_stale = true;
}

/* Has sessions of standbys read phases and handlers anew when this transaction commits. */
void
eros_config_invalidate(void)
{
	Oid relid = get_relname_relid("handler", get_namespace_oid("eros", true));

	if (OidIsValid(relid))
		CacheInvalidateRelcacheByRelid(relid);
}

static int
compare_phases(const void *a, const void *b)
{
	return ((const ErosPhase *) a)->phase - ((const ErosPhase *) b)->phase;
}

/* Frees the copies that were replaced in the transaction that has ended. */
void
eros_config_free_retired(void)
{
	ListCell *lc;

	foreach (lc, retired)
	{
		ErosConfig *old = lfirst(lc);

		for (int i = 0; i < old->nhandlers; i++)
		{
			if (old->handlers[i].plan)
				SPI_freeplan(old->handlers[i].plan);
		}
		MemoryContextDelete(old->context);
	}
	list_free(retired);
	retired = NIL;
}

/* Puts the copy aside; whoever has a pointer into it may go on until the transaction's end. */
static void
retire_config(void)
{
	MemoryContext old_context = MemoryContextSwitchTo(TopMemoryContext);

	if (config != NULL)
		retired = lappend(retired, config);
	config = NULL;
	MemoryContextSwitchTo(old_context);
}

/* Reads the configuration if it has changed; needs a transaction. */
ErosConfig *
eros_config_reload(void)
{
	static bool registered = false;
	ErosDatabase *db = eros_require_database();
	uint64 generation = pg_atomic_read_u64(&db->config_generation);
	uint32 dirty = eros_config_dirty();
	TimestampTz transaction = GetCurrentTransactionStartTimestamp();
	MemoryContext context;
	MemoryContext old_context;

	if (eros_in_handler && config != NULL)
		return config;

	/*
	 * What this transaction has changed itself, or sees through an older
	 * snapshot, is kept for as long as that does not change.
	 */
	if (dirty != 0 || IsInParallelMode())
		generation = 0;
	if (config != NULL && config->generation == generation && !config_is_stale &&
		(generation != 0 || (config->dirty == dirty && config->transaction == transaction)))
		return config;

	eros_check_version();
	if (!registered)
		CacheRegisterRelcacheCallback(table_changed, (Datum) 0);
	registered = true;
	config_is_stale = false;
	retire_config();
	context = AllocSetContextCreate(TopMemoryContext, "eros configuration", ALLOCSET_SMALL_SIZES);
	old_context = MemoryContextSwitchTo(context);
	config = palloc0(sizeof(ErosConfig));
	config->generation = PG_UINT64_MAX; /* in case this fails in the middle */
	config->context = context;
	config->handlers = palloc(sizeof(ErosHandler));
	load_table("phase", &phase_relid, phase_types, lengthof(phase_types), load_phase);
	load_table("handler", &handler_relid, handler_types, lengthof(handler_types), load_handler);
	MemoryContextSwitchTo(old_context);
	qsort(config->phases, config->nphases, sizeof(ErosPhase), compare_phases);
	config->generation = generation;
	config->dirty = dirty;
	config->transaction = transaction;
	return config;
}

/* Gives the configuration, in a session always the newest. */
ErosConfig *
eros_config(void)
{
	if (reload_by_hand && config != NULL)
		return config;
	return eros_config_reload();
}

/* Has this process read the configuration when it asks for it only. */
void
eros_config_by_hand(void)
{
	reload_by_hand = true;
}

/* Tells whether the copy of a process that reads it by hand is the newest. */
bool
eros_config_is_current(void)
{
	ErosDatabase *db = eros_my_database();

	return db != NULL && config != NULL &&
		   config->generation == pg_atomic_read_u64(&db->config_generation);
}

/* Finds a phase of the configuration, or NULL. */
ErosPhase *
eros_phase(int phase)
{
	ErosConfig *current = eros_config();

	for (int i = 0; i < current->nphases; i++)
	{
		if (current->phases[i].phase == phase)
			return &current->phases[i];
	}
	return NULL;
}

/* Finds a handler by its id in the current configuration, or NULL. */
ErosHandler *
eros_handler_by_id(int32 handler_id)
{
	ErosConfig *current = eros_config();

	for (int i = 0; i < current->nhandlers; i++)
	{
		if (current->handlers[i].handler_id == handler_id)
			return &current->handlers[i];
	}
	return NULL;
}

/* Finds a handler by its name. */
ErosHandler *
eros_handler_by_name(const char *name, bool missing_ok)
{
	ErosConfig *current = eros_config();

	for (int i = 0; i < current->nhandlers; i++)
	{
		if (strcmp(current->handlers[i].name, name) == 0)
			return &current->handlers[i];
	}
	if (!missing_ok)
		ereport(
			ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("handler \"%s\" does not exist", name),
			 errhint("eros.status_handler lists the handlers; eros.add_handler() registers one.")));
	return NULL;
}
