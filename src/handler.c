/*-------------------------------------------------------------------------
 *
 * handler.c
 *		Handlers: registration, and the call.
 *
 * A handler is somebody's code.  It runs as the role that registered it, in a
 * security-restricted context with a safe search_path, whoever the process is.
 * Before each call it is looked at again: the role may be gone, the function
 * dropped or replaced, the right to execute it revoked.
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
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "eros.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_func.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"

PG_FUNCTION_INFO_V1(eros_add_handler);
PG_FUNCTION_INFO_V1(eros_drop_handler);
PG_FUNCTION_INFO_V1(eros_enable_handler);
PG_FUNCTION_INFO_V1(eros_disable_handler);
PG_FUNCTION_INFO_V1(eros_retry);
PG_FUNCTION_INFO_V1(eros_run_now_bigint);
PG_FUNCTION_INFO_V1(eros_run_now_uuid);
PG_FUNCTION_INFO_V1(eros_run_now_text);

#define SIGNATURE_HINT                                                                           \
	"A handler is CREATE FUNCTION name(user_ids bigint[]) RETURNS TABLE (user_id bigint, value " \
	"jsonb), or uuid in place of bigint both times."

/* A handler is being called, and may itself call functions of EROS. */
bool eros_in_handler = false;

static TimeoutId call_timeout = MAX_TIMEOUTS;
static volatile sig_atomic_t call_timed_out = false;
static volatile uint64 call_timed_out_at_ns = 0;

/* ------------------------------------------------------------------------
 * Registration
 * ------------------------------------------------------------------------
 */

/* Finds the function that is to be a handler, by its name or its signature. */
static Oid
lookup_function(const char *name)
{
	Oid bigint_array[] = {INT8ARRAYOID};
	Oid uuid_array[] = {UUIDARRAYOID};
	List *names;
	Oid for_bigint;
	Oid for_uuid;

	if (strchr(name, '(') != NULL)
		return DatumGetObjectId(DirectFunctionCall1(regprocedurein, CStringGetDatum(name)));

	names = eros_name_list(name);
	for_bigint = LookupFuncName(names, 1, bigint_array, true);
	for_uuid = LookupFuncName(names, 1, uuid_array, true);
	if (OidIsValid(for_bigint) && OidIsValid(for_uuid))
		ereport(ERROR, (errcode(ERRCODE_AMBIGUOUS_FUNCTION),
						errmsg("function %s exists for bigint[] and for uuid[]", name),
						errhint("Name one of them: '%s(bigint[])' or '%s(uuid[])'.", name, name)));
	if (!OidIsValid(for_bigint) && !OidIsValid(for_uuid))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
						errmsg("function %s(bigint[]) or %s(uuid[]) does not exist", name, name),
						errhint(SIGNATURE_HINT)));
	return OidIsValid(for_bigint) ? for_bigint : for_uuid;
}

/* Checks that a function can be a handler, and tells for which kind of users. */
static ErosKeyType
check_signature(Oid function)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc proc;
	const char *problem = NULL;
	Oid argument = InvalidOid;
	Oid user_type;
	TupleDesc result = NULL;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
						errmsg("function with oid %u does not exist", function)));
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	if (proc->pronargs == 1)
		argument = proc->proargtypes.values[0];
	user_type = argument == UUIDARRAYOID ? UUIDOID : INT8OID;
	if (proc->prokind != PROKIND_FUNCTION)
		problem = "It is not a plain function.";
	else if (argument != INT8ARRAYOID && argument != UUIDARRAYOID)
		problem = "It does not take one argument of type bigint[] or uuid[].";
	else if (!proc->proretset)
		problem = "It does not return a set of rows.";
	else if (get_func_result_type(function, NULL, &result) != TYPEFUNC_COMPOSITE ||
			 result->natts != 2 || TupleDescAttr(result, 0)->atttypid != user_type ||
			 TupleDescAttr(result, 1)->atttypid != JSONBOID)
		problem = user_type == UUIDOID ? "It does not return rows of (uuid, jsonb)."
									   : "It does not return rows of (bigint, jsonb).";
	ReleaseSysCache(tuple);
	if (problem)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 errmsg("function %s cannot be a handler", format_procedure_qualified(function)),
				 errdetail_internal("%s", problem), errhint(SIGNATURE_HINT)));
	return user_type == UUIDOID ? EROS_KEY_UUID : EROS_KEY_BIGINT;
}

/* The owner of a function; InvalidOid when there is no such function. */
static Oid
function_owner(Oid function)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Oid owner = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
		ReleaseSysCache(tuple);
	}
	return owner;
}

/*
 * Tells whether a role may say what runs as another one: it has that one's
 * rights anyway.
 */
static bool
is_trusted(Oid function_owner, Oid handler_owner)
{
	return OidIsValid(function_owner) &&
		   (superuser_arg(function_owner) || has_privs_of_role(function_owner, handler_owner));
}

/* Refuses a NULL argument. */
static void
require_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", name)));
}

/* Refuses an interval outside of a range. */
static int64
check_interval(Datum interval, const char *name, int64 min_us, int64 max_us, const char *range)
{
	int64 us = eros_interval_us(DatumGetIntervalP(interval));

	if (us < min_us || us > max_us)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("%s is out of range", name), errhint("Use %s.", range)));
	return us;
}

/* Refuses whoever is neither the handler's owner nor the extension's. */
static void
check_may_change(const ErosHandler *handler)
{
	if (!has_privs_of_role(GetUserId(), handler->owner) &&
		!has_privs_of_role(GetUserId(), eros_extension_owner()))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("must be owner of handler \"%s\"", handler->name)));
}

/* Runs a statement on a handler's id, as the extension's owner; returns the rows it changed. */
static uint64
execute_for_handler(const ErosHandler *handler, const char *sql)
{
	Oid argtypes[] = {INT4OID};
	Datum values[] = {Int32GetDatum(handler->handler_id)};
	ErosRoleScope scope;
	uint64 processed;

	eros_owner_begin(&scope);
	SPI_execute_with_args(sql, 1, argtypes, values, NULL, false, 0);
	processed = SPI_processed;
	eros_owner_end(&scope);
	return processed;
}

/* Deletes all jobs of a handler. */
static void
delete_jobs_of(const ErosHandler *handler)
{
	execute_for_handler(
		handler,
		"WITH gone AS (DELETE FROM eros.job j WHERE j.handler_id = $1"
		"	RETURNING j.handler_id, j.status),"
		" sums AS (SELECT g.handler_id, g.status, count(*) AS jobs FROM gone g GROUP BY 1, 2)"
		" SELECT eros.account_jobs(s.handler_id, s.status, -s.jobs) FROM sums s");
}

/* Deletes all results of a handler. */
static void
delete_results_of(const ErosHandler *handler)
{
	execute_for_handler(
		handler,
		"WITH gone AS ("
		"	DELETE FROM eros.cache c WHERE c.handler_id = $1"
		"	RETURNING c.tableoid, eros.entry_bytes(c.value) AS bytes),"
		" sums AS (SELECT g.tableoid, sum(g.bytes)::bigint AS bytes FROM gone g GROUP BY 1)"
		" SELECT eros.account_cache_bytes(s.tableoid::regclass, $1, -s.bytes) FROM sums s");
}

/* Checks the arguments of add_handler() that need no look into the catalog. */
static void
check_arguments(FunctionCallInfo fcinfo)
{
	static const char *const names[] = {"name",			"function", "phase",   "ttl",
										"max_attempts", "timeout",	"enabled", "replace"};
	char *name;

	for (int i = 0; i < lengthof(names); i++)
		require_argument(fcinfo, i, names[i]);
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (name[0] == '\0' || strlen(name) >= NAMEDATALEN)
		ereport(ERROR, (errcode(ERRCODE_INVALID_NAME), errmsg("invalid handler name \"%s\"", name),
						errhint("Use 1 to %d bytes.", NAMEDATALEN - 1)));
	if (PG_GETARG_INT32(4) < 1 || PG_GETARG_INT32(4) > 100)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("max_attempts is out of range"), errhint("Use 1 to 100.")));
	check_interval(PG_GETARG_DATUM(5), "timeout", 1000, USECS_PER_DAY, "1 millisecond to 1 day");
}

/* Finds a function that the calling role may have called as itself. */
static Oid
check_function(const char *name)
{
	Oid function = lookup_function(name);

	if (eros_function_aclcheck(function, GetUserId()) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, get_func_name(function));
	if (!is_trusted(function_owner(function), GetUserId()))
		ereport(
			ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("function %s belongs to another role", format_procedure_qualified(function)),
			 errdetail("Its owner could change what runs as you."),
			 errhint("Register it as its owner (SET ROLE), or a function of yours that calls "
					 "it.")));
	return function;
}

/* Finds the handler that is to be replaced, if there is one of the name. */
static ErosHandler *
handler_to_replace(const char *name, bool replace)
{
	ErosHandler *existing = eros_handler_by_name(name, true);

	if (existing == NULL)
		return NULL;
	if (!replace)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT), errmsg("handler \"%s\" already exists", name),
				 errhint("Pass replace => true to change it.")));
	check_may_change(existing);
	return existing;
}

/* Writes a handler's row; returns its handler_id. */
static int32
write_row(const char *name, Datum *values, bool replace)
{
	static const Oid types[] = {TEXTOID, TEXTOID, OIDOID,	   TEXTOID, INT4OID, INTERVALOID,
								INT4OID, INT4OID, INTERVALOID, OIDOID,	BOOLOID};
	bool isnull;

	SPI_execute_with_args(
		replace ? "UPDATE eros.handler SET function = $2, function_oid = $3,"
				  " user_type = $4::eros.user_type, phase = $5, ttl = $6, bucket = $7,"
				  " max_attempts = $8, timeout = $9, owner = $10, enabled = $11,"
				  " error = NULL, error_at = NULL, crashes = 0"
				  " WHERE name = $1 RETURNING handler_id"
				: "INSERT INTO eros.handler (name, function, function_oid, user_type,"
				  " phase, ttl, bucket, max_attempts, timeout, owner, enabled)"
				  " VALUES ($1, $2, $3, $4::eros.user_type, $5, $6, $7, $8, $9, $10, $11)"
				  " RETURNING handler_id",
		lengthof(types), (Oid *) types, values, NULL, false, 0);
	if (SPI_processed != 1)
		elog(ERROR, "handler \"%s\" was changed concurrently", name);
	return DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/* Has jobs and results follow a handler that was replaced. */
static void
follow_replacement(ErosHandler *before, int phase, ErosKeyType key_type, int bucket)
{
	Oid types[] = {INT4OID, INT4OID};
	Datum values[] = {Int32GetDatum(before->handler_id), Int32GetDatum(phase)};

	SPI_execute_with_args("UPDATE eros.job SET phase = $2 WHERE handler_id = $1 AND phase <> $2", 2,
						  types, values, NULL, false, 0);

	/* jobs and results of the other kind of users, results of the other class of lifetimes */
	if (before->key_type != key_type)
		delete_jobs_of(before);
	if (before->key_type != key_type || before->bucket != bucket)
		delete_results_of(before);
}

/* add_handler(name, function, phase, ttl, ...) returns integer */
Datum
eros_add_handler(PG_FUNCTION_ARGS)
{
	Datum values[11];
	char *name;
	int phase;
	int bucket;
	Oid function;
	ErosKeyType key_type;
	ErosHandler *existing;
	ErosRoleScope scope;
	int32 handler_id;

	check_arguments(fcinfo);
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	phase = PG_GETARG_INT32(2);
	bucket = eros_cache_bucket(check_interval(PG_GETARG_DATUM(3), "ttl", USECS_PER_SEC,
											  365 * USECS_PER_DAY, "1 second to 365 days"));
	eros_config();
	if (eros_phase(phase) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("phase %d does not exist", phase),
				 errhint("See the table eros.phase.")));
	function = check_function(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	key_type = check_signature(function);
	existing = handler_to_replace(name, PG_GETARG_BOOL(7));

	values[0] = CStringGetTextDatum(name);
	values[1] = CStringGetTextDatum(format_procedure_qualified(function));
	values[2] = ObjectIdGetDatum(function);
	values[3] = CStringGetTextDatum(key_type == EROS_KEY_UUID ? "uuid" : "bigint");
	values[4] = Int32GetDatum(phase);
	values[5] = PG_GETARG_DATUM(3);
	values[6] = Int32GetDatum(bucket);
	values[7] = PG_GETARG_DATUM(4);
	values[8] = PG_GETARG_DATUM(5);
	values[9] = ObjectIdGetDatum(GetUserId());
	values[10] = PG_GETARG_DATUM(6);

	eros_owner_begin(&scope);
	handler_id = write_row(name, values, existing != NULL);
	if (existing != NULL)
		follow_replacement(existing, phase, key_type, bucket);
	SPI_execute("SELECT eros.create_partitions()", false, 0);
	eros_owner_end(&scope);
	PG_RETURN_INT32(handler_id);
}

/* Finds the handler of the first argument, which the caller must be allowed to change. */
static ErosHandler *
handler_to_change(FunctionCallInfo fcinfo)
{
	ErosHandler *handler = eros_handler_by_name(text_to_cstring(PG_GETARG_TEXT_PP(0)), false);

	check_may_change(handler);
	return handler;
}

/* drop_handler(name) returns void */
Datum
eros_drop_handler(PG_FUNCTION_ARGS)
{
	ErosHandler *handler = handler_to_change(fcinfo);

	delete_jobs_of(handler);
	delete_results_of(handler);
	execute_for_handler(handler, "DELETE FROM eros.handler WHERE handler_id = $1");
	PG_RETURN_VOID();
}

/* enable_handler(name) returns void */
Datum
eros_enable_handler(PG_FUNCTION_ARGS)
{
	execute_for_handler(
		handler_to_change(fcinfo),
		"UPDATE eros.handler SET enabled = true, error = NULL, error_at = NULL, crashes = 0"
		" WHERE handler_id = $1");
	PG_RETURN_VOID();
}

/* disable_handler(name) returns void */
Datum
eros_disable_handler(PG_FUNCTION_ARGS)
{
	execute_for_handler(handler_to_change(fcinfo),
						"UPDATE eros.handler SET enabled = false WHERE handler_id = $1");
	PG_RETURN_VOID();
}

/* retry(handler) returns bigint */
Datum
eros_retry(PG_FUNCTION_ARGS)
{
	ErosHandler *handler = handler_to_change(fcinfo);
	int64 jobs;

	jobs =
		(int64) execute_for_handler(handler, "UPDATE eros.job SET status = 'pending', attempts = 0,"
											 " due_at = eros.now()"
											 " WHERE handler_id = $1 AND status = 'failed'");
	eros_count_on_commit(&handler->stats->failed, -jobs);
	eros_count_on_commit(&handler->stats->pending, jobs);

	/* the scheduler looks for due jobs when it is told that something changed */
	eros_config_changed_on_commit();
	PG_RETURN_INT64(jobs);
}

/* ------------------------------------------------------------------------
 * The call
 * ------------------------------------------------------------------------
 */

/* Finds a function by its qualified signature; InvalidOid when there is none. */
static Oid
function_by_signature(const char *signature)
{
	LOCAL_FCINFO(fcinfo, 1);
	Datum result;

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = CStringGetTextDatum(signature);
	fcinfo->args[0].isnull = false;
	result = to_regprocedure(fcinfo);
	return fcinfo->isnull ? InvalidOid : DatumGetObjectId(result);
}

/*
 * Raises an error unless the handler can be called now.
 *
 * The function is looked up by its signature, since it may have been dropped
 * and made anew, or the database been restored.  Whoever owns it decides what
 * runs as the handler's owner: it counts only if that is nothing new to him.
 */
void
eros_handler_check_callable(ErosHandler *handler)
{
	Oid function;
	ErosRoleScope owner;
	char *rolename = GetUserNameFromId(handler->owner, true);

	if (rolename == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the owner of handler \"%s\" does not exist any more", handler->name),
				 errhint("Register it again with eros.add_handler(..., replace => true).")));
	eros_role_begin(&owner, handler->owner); /* who must be allowed to look into the schema */
	function = function_by_signature(handler->function);
	eros_role_end(&owner);
	if (!OidIsValid(function))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
						errmsg("function %s of handler \"%s\" does not exist", handler->function,
							   handler->name),
						errhint("Create it, or register another one with eros.add_handler(..., "
								"replace => true).")));
	if (!is_trusted(function_owner(function), handler->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 function != handler->function_oid
					 ? errmsg("function %s of handler \"%s\" has been replaced by another role's",
							  handler->function, handler->name)
					 : errmsg("function %s of handler \"%s\" has been given to another role",
							  handler->function, handler->name),
				 errhint("Register it again with eros.add_handler(..., replace => true).")));
	if (eros_function_aclcheck(function, handler->owner) != ACLCHECK_OK)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("role \"%s\" may not execute function %s of handler \"%s\"",
							   rolename, handler->function, handler->name)));
	if (check_signature(function) != handler->key_type)
		ereport(ERROR, (errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
						errmsg("function %s of handler \"%s\" has changed its signature",
							   handler->function, handler->name)));
	if (handler->plan == NULL)
	{
		Oid argtype = handler->key_type == EROS_KEY_UUID ? UUIDARRAYOID : INT8ARRAYOID;
		char *name = get_func_name(function);
		ErosRoleScope scope;
		SPIPlanPtr plan;

		if (name == NULL)
			elog(ERROR, "function %u has been dropped", function);
		name = quote_qualified_identifier(get_namespace_name(get_func_namespace(function)), name);
		eros_role_begin(&scope, handler->owner);
		SPI_connect();
		plan = SPI_prepare(psprintf("SELECT r.* FROM %s($1) AS r", name), 1, &argtype);
		if (plan == NULL)
			elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
		handler->plan = plan;
		SPI_finish();
		eros_role_end(&scope);
	}
}

/* The time-out of a handler's call: cancels it at the next safe point. */
static void
call_timeout_handler(void)
{
	call_timed_out = true;
	call_timed_out_at_ns = eros_monotonic_ns();
	InterruptPending = true;
	QueryCancelPending = true;
	SetLatch(MyLatch);
}

/* Tells whether the last call took too long. */
bool
eros_handler_timed_out(void)
{
	return call_timed_out;
}

/* Tells whether a call that took too long has not ended for as long as a halt may take. */
bool
eros_handler_is_overdue(uint64 now_ns)
{
	return call_timed_out && now_ns > call_timed_out_at_ns &&
		   now_ns - call_timed_out_at_ns > eros_halt_timeout_ms * UINT64CONST(1000000);
}

/* Raises the error of a call that took too long. */
static void
raise_timed_out(const ErosHandler *handler)
{
	ereport(ERROR, (errcode(ERRCODE_QUERY_CANCELED),
					errmsg("handler \"%s\" was cancelled after %d ms", handler->name,
						   Min(handler->timeout_ms, eros_max_snapshot_age_ms)),
					errhint("Raise its timeout, or eros.max_snapshot_age.")));
}

/* Checks one row of a handler's result and adds it; rows with a NULL value are no results. */
static void
take_row(const ErosHandler *handler, HeapTuple tuple, TupleDesc desc, const ErosKey *keys,
		 int nkeys, bool *seen, ErosResults *results, MemoryContext context)
{
	ErosKey key;
	ErosKey *asked;
	Datum user;
	Datum value;
	bool isnull;
	struct varlena *flat;
	MemoryContext old;

	user = SPI_getbinval(tuple, desc, 1, &isnull);
	if (isnull)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("handler \"%s\" returned a row without a user", handler->name)));
	key = handler->key_type == EROS_KEY_UUID ? eros_key_from_stored(DatumGetUUIDP(user))
											 : eros_key_from_bigint(DatumGetInt64(user));
	asked = bsearch(&key, keys, nkeys, sizeof(ErosKey), eros_key_qsort_compare);
	if (asked == NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("handler \"%s\" returned a row for a user who was not asked for",
							   handler->name),
						errdetail("The user is %s.", eros_key_to_cstring(&key))));
	if (seen[asked - keys])
		ereport(ERROR,
				(errcode(ERRCODE_CARDINALITY_VIOLATION),
				 errmsg("handler \"%s\" returned more than one row for a user", handler->name),
				 errdetail("The user is %s.", eros_key_to_cstring(&key))));
	seen[asked - keys] = true;

	value = SPI_getbinval(tuple, desc, 2, &isnull);
	if (isnull)
		return;
	old = MemoryContextSwitchTo(context);
	flat = PG_DETOAST_DATUM_COPY(value);
	MemoryContextSwitchTo(old);
	if (VARSIZE(flat) - VARHDRSZ > (Size) eros_max_result_size)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("handler \"%s\" returned %zu bytes for a user, more than the %d allowed",
						handler->name, (Size) (VARSIZE(flat) - VARHDRSZ), eros_max_result_size),
				 errdetail("The user is %s.", eros_key_to_cstring(&key)),
				 errhint("Return less, or raise eros.max_result_size.")));
	results->values[asked - keys] = PointerGetDatum(flat);
	results->nrows++;
}

/* Checks the types of a result: the function may have been replaced a moment ago. */
static void
check_result(const ErosHandler *handler, TupleDesc desc)
{
	Oid user_type = handler->key_type == EROS_KEY_UUID ? UUIDOID : INT8OID;

	if (desc->natts != 2 || TupleDescAttr(desc, 0)->atttypid != user_type ||
		TupleDescAttr(desc, 1)->atttypid != JSONBOID)
		ereport(ERROR, (errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
						errmsg("function %s of handler \"%s\" has changed its signature",
							   handler->function, handler->name)));
}

/*
 * Has constraints that are deferred be checked at once, and those that wait now.
 *
 * A trigger that is put off to the commit would run as whoever is the current
 * role then, in a worker the superuser; the server therefore raises an error
 * when one is queued in a security-restricted operation.  So a handler could
 * not write to a table that has such a constraint at all.
 */
static void
check_constraints_at_once(void)
{
	ConstraintsSetStmt *all_immediate = makeNode(ConstraintsSetStmt);

	AfterTriggerSetState(all_immediate);
}

/*
 * Refuses a utility command that would reach beyond a handler's call.
 *
 * The server refuses most of these itself in a security-restricted operation.
 * These would leave something in the session for others to trip over, or take
 * away what is theirs.
 */
void
eros_handler_check_utility(Node *stmt)
{
	const char *command = NULL;

	if (!eros_in_handler)
		return;
	if (IsA(stmt, PrepareStmt))
		command = "PREPARE";
	else if (IsA(stmt, DeallocateStmt))
		command = "DEALLOCATE";
	else if (IsA(stmt, DiscardStmt))
		command = "DISCARD";
	else if (IsA(stmt, ListenStmt))
		command = "LISTEN";
	else if (IsA(stmt, UnlistenStmt))
		command = "UNLISTEN";
	else if (IsA(stmt, LoadStmt))
		command = "LOAD";
	if (command != NULL)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("cannot execute %s in a handler", command)));
}

/*
 * Calls a handler for a batch of users, sorted; checks what it returns.
 *
 * The handler has been found callable in this transaction.
 *
 * The results are allocated in the caller's memory context.  On an error the
 * transaction is to be rolled back: that also undoes the change of role.
 */
void
eros_handler_call(ErosHandler *handler, const ErosKey *keys, int nkeys, ErosResults *results)
{
	MemoryContext context = CurrentMemoryContext;
	bool *seen = palloc0(sizeof(bool) * nkeys);
	Datum argument;
	ErosRoleScope scope;

	argument = eros_keys_to_array(keys, nkeys, handler->key_type);
	results->nrows = 0;
	results->values = palloc0(sizeof(Datum) * nkeys);
	if (call_timeout == MAX_TIMEOUTS)
		call_timeout = RegisterTimeout(USER_TIMEOUT, call_timeout_handler);

	if (eros_in_handler)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE),
						errmsg("handler \"%s\" cannot be called by a handler", handler->name)));
	check_constraints_at_once();
	eros_in_handler = true;
	call_timed_out = false;
	enable_timeout_after(call_timeout, Min(handler->timeout_ms, eros_max_snapshot_age_ms));
	PG_TRY();
	{
		int code;

		eros_role_begin(&scope, handler->owner);
		SPI_connect();
		code = SPI_execute_plan(handler->plan, &argument, NULL, false, nkeys + 1);
		if (code != SPI_OK_SELECT)
			elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(code));
		check_result(handler, SPI_tuptable->tupdesc);
		for (uint64 i = 0; i < SPI_processed; i++)
			take_row(handler, SPI_tuptable->vals[i], SPI_tuptable->tupdesc, keys, nkeys, seen,
					 results, context);
		SPI_finish();
		eros_role_end(&scope);
		disable_timeout(call_timeout, false);
		eros_in_handler = false;
	}
	PG_CATCH();
	{
		disable_timeout(call_timeout, false);
		eros_in_handler = false;
		if (call_timed_out)
			QueryCancelPending = false; /* it was for the call, whatever has ended that */
		if (call_timed_out && geterrcode() == ERRCODE_QUERY_CANCELED)
		{
			MemoryContextSwitchTo(context);
			FlushErrorState();
			raise_timed_out(handler);
		}
		PG_RE_THROW();
	}
	PG_END_TRY();

	/* the handler may have caught the cancel, or it came at the very end */
	if (call_timed_out)
	{
		QueryCancelPending = false;
		raise_timed_out(handler);
	}
}

/*
 * Has a handler wait after an error, in whatever process, but no longer than
 * until phases or handlers are changed: that may have mended it.
 */
void
eros_handler_wait(const ErosHandler *handler, uint64 pause_ns)
{
	pg_atomic_write_u64(&handler->stats->retry_generation, eros_config()->generation);
	pg_atomic_write_u64(&handler->stats->retry_at_ns, eros_monotonic_ns() + pause_ns);
}

/* Tells until when a handler is not to be called, by the monotonic clock. */
uint64
eros_handler_waits_until_ns(const ErosHandler *handler)
{
	ErosHandlerStats *stats = handler->stats;
	uint64 until = pg_atomic_read_u64(&stats->suspended_until_ns);

	if (pg_atomic_read_u64(&stats->retry_generation) == eros_config()->generation)
		until = Max(until, pg_atomic_read_u64(&stats->retry_at_ns));
	return until;
}

/* Notes in eros.handler why a handler cannot be called at all; NULL: it can again. */
void
eros_handler_note_error(const ErosHandler *handler, const char *message)
{
	Oid argtypes[] = {INT4OID, TEXTOID};
	Datum values[] = {Int32GetDatum(handler->handler_id),
					  message ? CStringGetTextDatum(message) : (Datum) 0};
	char nulls[] = {' ', message ? ' ' : 'n'};
	ErosRoleScope scope;

	eros_owner_begin(&scope);
	SPI_execute_with_args("UPDATE eros.handler SET error = $2,"
						  " error_at = CASE WHEN $2 IS NOT NULL THEN eros.now() END"
						  " WHERE handler_id = $1 AND error IS DISTINCT FROM $2",
						  2, argtypes, values, nulls, false, 0);
	eros_owner_end(&scope);
}

/* ------------------------------------------------------------------------
 * run_now
 * ------------------------------------------------------------------------
 */

/* Calls a handler for one user, stores the result and gives it back. */
static Datum
run_now(FunctionCallInfo fcinfo, ErosKey key)
{
	ErosHandler *handler = handler_to_change(fcinfo);
	Oid argtypes[] = {UUIDOID, INT4OID, INT4OID};
	Datum values[] = {eros_key_get_datum(&key), Int32GetDatum(handler->handler_id),
					  Int32GetDatum(handler->phase)};
	ErosRoleScope scope;
	ErosResults results;
	bool isnull;

	if (eros_key_is_bigint(&key) != (handler->key_type == EROS_KEY_BIGINT))
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("handler \"%s\" takes %s users", handler->name,
							   handler->key_type == EROS_KEY_BIGINT ? "bigint" : "uuid")));

	/*
	 * The job's row is the lease here, too: whoever has it, a worker or another
	 * session, finishes first.
	 */
	eros_owner_begin(&scope);
	SPI_execute_with_args("INSERT INTO eros.job AS j (user_id, handler_id, phase, due_at)"
						  " VALUES ($1, $2, $3, eros.now())"
						  " ON CONFLICT (user_id, handler_id) DO UPDATE SET attempts = j.attempts"
						  " RETURNING (j.xmax = 0), j.status = 'failed'",
						  3, argtypes, values, NULL, false, 0);
	if (SPI_processed != 1)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("table eros.job takes no jobs"),
						errhint("Look for triggers and rules that have been added to it.")));
	if (!DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull)))
		eros_count_on_commit(
			DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull))
				? &handler->stats->failed
				: &handler->stats->pending,
			-1);
	eros_owner_end(&scope);

	eros_handler_check_callable(handler);
	eros_handler_call(handler, &key, 1, &results);

	eros_owner_begin(&scope);
	eros_cache_store(handler, &key, 1, &results);
	SPI_execute_with_args("DELETE FROM eros.job WHERE user_id = $1 AND handler_id = $2", 2,
						  argtypes, values, NULL, false, 0);
	eros_owner_end(&scope);

	if (results.nrows == 0)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(results.values[0]);
}

/* run_now(handler, bigint) returns jsonb */
Datum
eros_run_now_bigint(PG_FUNCTION_ARGS)
{
	return run_now(fcinfo, eros_key_from_bigint(PG_GETARG_INT64(1)));
}

/* run_now(handler, uuid) returns jsonb */
Datum
eros_run_now_uuid(PG_FUNCTION_ARGS)
{
	return run_now(fcinfo, eros_key_from_uuid(PG_GETARG_UUID_P(1)));
}

/* run_now(handler, text) returns jsonb */
Datum
eros_run_now_text(PG_FUNCTION_ARGS)
{
	return run_now(fcinfo, eros_key_from_text(PG_GETARG_TEXT_PP(1)));
}
