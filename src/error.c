/*-------------------------------------------------------------------------
 *
 * error.c
 *		The recent errors of EROS's own processes, and what of them is logged.
 *
 * A fixed number of entries in shared memory.  An error is the same as one
 * before when database, process, handler, SQLSTATE and the message's format
 * are: then it is counted there, and logged at most once a minute, however
 * often it comes.  A new one takes the place of the one longest unseen.
 *
 * A handler's own messages may name users, or have data in them.  They are shown
 * to its owner only, and to superusers.
 *
 * The entries are guarded by the slot lock, taken after the transaction has
 * been rolled back, never while it is held.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "eros.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(eros_error_info);

/* The same error is logged again after this. */
#define LOG_PAUSE_NS UINT64CONST(60000000000)

static const char *const process_names[] = {"launcher", "scheduler", "worker"};

/* Copies a message, cut where a character ends. */
static void
copy_message(char *to, const char *message)
{
	int len = (int) strlen(message);

	if (len >= EROS_ERROR_LEN)
		len = pg_mbcliplen(message, len, EROS_ERROR_LEN - 1);
	memcpy(to, message, len);
	to[len] = '\0';
}

/* Leaves nothing but ASCII: the launcher has no database, and its messages no encoding. */
static void
keep_ascii(char *message)
{
	for (; *message != '\0'; message++)
	{
		if (IS_HIGHBIT_SET(*message))
			*message = '?';
	}
}

/* Finds the entry of an error, or the one whose place it takes. */
static ErosError *
find_entry(ErosProcess process, int32 handler_id, Oid owner, bool own, int sqlstate, uint32 format)
{
	ErosError *oldest = &eros_shared->errors[0];

	for (int i = 0; i < EROS_ERRORS; i++)
	{
		ErosError *entry = &eros_shared->errors[i];

		if (entry->count > 0 && entry->dboid == MyDatabaseId && entry->process == process &&
			entry->handler_id == handler_id && entry->owner == owner && entry->own == own &&
			entry->sqlstate == sqlstate && entry->format == format)
			return entry;
		if (entry->at < oldest->at)
			oldest = entry;
	}
	memset(oldest, 0, sizeof(ErosError));
	oldest->dboid = MyDatabaseId;
	oldest->process = process;
	oldest->handler_id = handler_id;
	oldest->owner = owner;
	oldest->own = own;
	oldest->sqlstate = sqlstate;
	oldest->format = format;
	return oldest;
}

/* Notes an error or a message; returns whether it is to be logged now. */
static bool
note(ErosProcess process, int32 handler_id, Oid owner, bool own, bool worded,
	 const ErrorData *error)
{
	const char *message = error->message ? error->message : "missing error text";
	const char *format = error->message_id ? error->message_id : message;
	uint32 hash = hash_bytes((const unsigned char *) format, (int) strlen(format));
	uint64 now_ns = eros_monotonic_ns();
	ErosError *entry;
	bool log;

	LWLockAcquire(eros_shared->lock, LW_EXCLUSIVE);
	entry = find_entry(process, handler_id, owner, own, error->sqlerrcode, hash);
	log = entry->count == 0 || now_ns - entry->logged_at_ns >= LOG_PAUSE_NS;

	/* more errors in turn than there are places for would all be new, each time */
	if (now_ns - eros_shared->errors_since_ns >= LOG_PAUSE_NS)
	{
		eros_shared->errors_since_ns = now_ns;
		eros_shared->errors_logged = 0;
	}
	log = log && eros_shared->errors_logged < EROS_ERRORS;
	if (log)
	{
		entry->logged_at_ns = now_ns;
		eros_shared->errors_logged++;
	}
	entry->count++;
	entry->pid = MyProcPid;
	entry->at = eros_now();
	entry->worded = worded;
	copy_message(entry->message, message);
	LWLockRelease(eros_shared->lock);
	return log;
}

/*
 * Notes an error in a handler's batch, of EROS's own or not; returns whether it
 * is to be logged now.
 */
bool
eros_error_note(ErosProcess process, const ErosHandler *handler, bool own, const ErrorData *error)
{
	return note(process, handler->handler_id, handler->owner, own, own, error);
}

/*
 * Notes the error that is being handled, and logs it unless it has been within
 * the last minute; the caller flushes it.
 */
void
eros_error_report(ErosProcess process)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	ErrorData *error = CopyErrorData();

	MemoryContextSwitchTo(old);
	if (note(process, 0, InvalidOid, true, true, error))
		EmitErrorReport();
	FreeErrorData(error);
}

/* Notes something that is wrong but no error; returns whether to log it now. */
bool
eros_error_note_message(ErosProcess process, int32 handler_id, int sqlstate, const char *message)
{
	ErrorData error = {0};

	error.sqlerrcode = sqlstate;
	error.message = unconstify(char *, message);
	return note(process, handler_id, InvalidOid, false, true, &error);
}

/* Tells whether the user may see the message of an error. */
static bool
may_see_message(const ErosError *error)
{
	return error->worded || superuser() ||
		   (OidIsValid(error->owner) && has_privs_of_role(GetUserId(), error->owner));
}

/* error_info() returns setof record */
Datum
eros_error_info(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ErosError *copy = palloc(sizeof(ErosError) * EROS_ERRORS);

	eros_check_loaded();
	InitMaterializedSRF(fcinfo, 0);
	eros_check_row(rsinfo->setDesc, 8);
	LWLockAcquire(eros_shared->lock, LW_SHARED);
	memcpy(copy, eros_shared->errors, sizeof(ErosError) * EROS_ERRORS);
	LWLockRelease(eros_shared->lock);
	for (int i = 0; i < EROS_ERRORS; i++)
	{
		Datum row[8];
		bool nulls[8] = {false};

		/* the launcher belongs to no database: each shows its errors */
		if (copy[i].count == 0 || (OidIsValid(copy[i].dboid) && copy[i].dboid != MyDatabaseId))
			continue;
		if (!OidIsValid(copy[i].dboid))
			keep_ascii(copy[i].message);
		row[0] = CStringGetTextDatum(process_names[copy[i].process]);
		row[1] = Int32GetDatum(copy[i].pid);
		row[2] = Int32GetDatum(copy[i].handler_id);
		nulls[2] = copy[i].handler_id == 0;
		row[3] = CStringGetTextDatum(copy[i].message);
		nulls[3] = !may_see_message(&copy[i]);
		row[4] = CStringGetTextDatum(unpack_sql_state(copy[i].sqlstate));
		row[5] = TimestampTzGetDatum(copy[i].at);
		row[6] = Int64GetDatum((int64) copy[i].count);
		row[7] = BoolGetDatum(copy[i].own);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row, nulls);
	}
	return (Datum) 0;
}
