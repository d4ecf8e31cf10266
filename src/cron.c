/*-------------------------------------------------------------------------
 *
 * cron.c
 *		The agent that arranges EROS's maintenance with pg_cron.
 *
 * pg_cron lives in one database of the server (cron.database_name), the
 * databases of EROS are others or the same.  Whenever the set of databases
 * with the extension may have changed, the launcher starts this process in
 * pg_cron's database.  It compares the jobs named 'eros ...' with what should
 * be there, adds what is missing, removes what is left over, and ends: so it
 * does not matter what was missed, a crash or a rollback included.
 *
 * Without pg_cron, the schedulers do the work themselves.  They do it, too,
 * where the extension belongs to a role that is no superuser: pg_cron's jobs
 * run as a superuser, and whoever owns what they use could have them do what he
 * likes.  (They cannot run as such an owner, who need not be allowed to log in.)
 * Jobs outlive EROS's processes, so each of them sees to that by itself as well.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "eros.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(eros_use_pg_cron);
PG_FUNCTION_INFO_V1(eros_maintenance_done);

/* How long eros.use_pg_cron() waits for the agent. */
#define AGENT_TIMEOUT_MS 30000

/*
 * What should be scheduled: three jobs for each database, given by oid and
 * name.  The job's name has the oid, so that a renamed database is found.
 */
static const char wanted_sql[] =
	"SELECT format('eros %s %s', j.job, d.oid) AS jobname, j.schedule,"
	" format('DO $$BEGIN"
	" PERFORM pg_catalog.set_config(''search_path'', ''pg_catalog, pg_temp'', true);"
	" IF NOT EXISTS (SELECT FROM ("
	"SELECT e.extowner FROM pg_catalog.pg_extension e WHERE e.extname = ''eros''"
	" UNION SELECT n.nspowner FROM pg_catalog.pg_namespace n WHERE n.nspname = ''eros''"
	" UNION SELECT p.proowner FROM pg_catalog.pg_proc p"
	" WHERE p.pronamespace = ''eros''::pg_catalog.regnamespace"
	" UNION SELECT c.relowner FROM pg_catalog.pg_class c"
	" WHERE c.relnamespace = ''eros''::pg_catalog.regnamespace) o (owner)"
	" JOIN pg_catalog.pg_roles r ON r.oid = o.owner WHERE NOT r.rolsuper)"
	" THEN PERFORM eros.%s(); END IF; END$$', j.function) AS command, d.name AS database"
	" FROM unnest($1::oid[], $2::text[]) AS d (oid, name),"
	"      (VALUES ('partitions', '2-59/5 * * * *', 'create_partitions'),"
	"              ('purge', '3-59/5 * * * *', 'purge'),"
	"              ('clean-up', '4-59/5 * * * *', 'clean_up'))"
	"      AS j (job, schedule, function)";

/* Sets who maintains the databases of EROS. */
static void
set_by_pg_cron(bool by_pg_cron)
{
	LWLockAcquire(eros_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < eros_max_databases; i++)
	{
		if (eros_databases[i].state == EROS_DB_RUNNING)
			eros_databases[i].by_pg_cron = by_pg_cron && eros_databases[i].of_superuser;
	}
	LWLockRelease(eros_shared->lock);
}

/* Makes the arrays of oids and names of the databases whose extension is a superuser's. */
static void
databases_to_schedule(Datum *values)
{
	Datum *oids = palloc(sizeof(Datum) * eros_max_databases);
	Datum *names = palloc(sizeof(Datum) * eros_max_databases);
	Oid *found = palloc(sizeof(Oid) * eros_max_databases);
	int nfound = 0;
	int n = 0;

	LWLockAcquire(eros_shared->lock, LW_SHARED);
	for (int i = 0; i < eros_max_databases; i++)
	{
		if (eros_databases[i].state == EROS_DB_RUNNING && eros_databases[i].of_superuser)
			found[nfound++] = eros_databases[i].dboid;
	}
	LWLockRelease(eros_shared->lock);
	for (int i = 0; i < nfound; i++)
	{
		char *name = get_database_name(found[i]);

		if (name == NULL)
			continue;
		oids[n] = ObjectIdGetDatum(found[i]);
		names[n] = CStringGetTextDatum(name);
		n++;
	}
	values[0] = PointerGetDatum(construct_array(oids, n, OIDOID, sizeof(Oid), true, TYPALIGN_INT));
	values[1] = PointerGetDatum(construct_array(names, n, TEXTOID, -1, false, TYPALIGN_INT));
}

/* Runs a statement that takes the databases. */
static void
execute_for_databases(Datum *values, const char *sql)
{
	Oid argtypes[] = {OIDARRAYOID, TEXTARRAYOID};

	SPI_execute_with_args(sql, 2, argtypes, values, NULL, false, 0);
}

/* Removes the jobs that should not be there. */
static void
remove_jobs(void)
{
	Datum values[2];

	databases_to_schedule(values);
	execute_for_databases(
		values, psprintf("WITH wanted AS (%s)"
						 " SELECT cron.unschedule(j.jobid) FROM cron.job j"
						 " WHERE j.jobname ~ '^eros (partitions|purge|clean-up) [0-9]+$'"
						 " AND NOT EXISTS (SELECT FROM wanted w WHERE w.jobname = j.jobname"
						 "   AND w.schedule = j.schedule AND w.command = j.command"
						 "   AND w.database = j.database AND j.username = CURRENT_USER)",
						 wanted_sql));
}

/* Adds the jobs that are missing. */
static void
add_jobs(void)
{
	Datum values[2];

	databases_to_schedule(values);
	execute_for_databases(
		values,
		psprintf("WITH wanted AS (%s)"
				 " SELECT cron.schedule_in_database(w.jobname, w.schedule, w.command, w.database)"
				 " FROM wanted w WHERE NOT EXISTS"
				 " (SELECT FROM cron.job j WHERE j.jobname = w.jobname)",
				 wanted_sql));
}

/* Does something in a transaction of its own, if pg_cron is there; returns whether it is. */
static bool
with_pg_cron(void (*action)(void))
{
	bool there;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	there = OidIsValid(get_extension_oid("pg_cron", true));
	if (there)
		action();
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	return there;
}

/* The agent's process. */
void
eros_cron_main(Datum arg)
{
	const char *database = GetConfigOption("cron.database_name", true, false);
	bool there;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(database ? database : "postgres", NULL, 0);
	SetConfigOption("search_path", "pg_catalog, pg_temp", PGC_SUSET, PGC_S_OVERRIDE);

	/* what is not to run any more goes, even if something keeps the rest from being added */
	there = with_pg_cron(remove_jobs) && with_pg_cron(add_jobs);
	set_by_pg_cron(there);
	pg_atomic_write_u32(&eros_shared->cron_done, (uint32) DatumGetInt32(arg));
	proc_exit(0);
}

/* use_pg_cron() returns text */
Datum
eros_use_pg_cron(PG_FUNCTION_ARGS)
{
	const char *database = GetConfigOption("cron.database_name", true, false);
	ErosDatabase *db;
	uint32 request;
	bool of_superuser;

	db = eros_require_database();
	if (database == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("pg_cron is not loaded"),
			 errhint("Add \"pg_cron\" to shared_preload_libraries and restart the server; without "
					 "it, EROS's scheduler does the maintenance itself.")));
	if (!eros_extension_exists(&of_superuser) || !of_superuser)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"eros\" in this database does not belong to a superuser"),
				 errdetail("pg_cron would call its functions as a superuser."),
				 errhint("EROS's scheduler does the maintenance itself.")));
	eros_note_owner(db, of_superuser);
	request = pg_atomic_add_fetch_u32(&eros_shared->cron_request, 1);
	eros_launcher_wake();
	for (int waited_ms = 0; (int32) (pg_atomic_read_u32(&eros_shared->cron_done) - request) < 0;
		 waited_ms += 20)
	{
		if (waited_ms > AGENT_TIMEOUT_MS)
			ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
							errmsg("EROS could not reach pg_cron in database \"%s\"", database),
							errhint("See the server log.")));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 20,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	if (db->state != EROS_DB_RUNNING)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("EROS does not run in this database yet"),
						errhint("See eros.status_database.")));
	if (!db->by_pg_cron)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("pg_cron is not installed in database \"%s\"", database),
			 errhint("Run CREATE EXTENSION pg_cron there; without it, EROS's scheduler does the "
					 "maintenance itself.")));
	PG_RETURN_TEXT_P(cstring_to_text(database));
}

/* maintenance_done() returns void */
Datum
eros_maintenance_done(PG_FUNCTION_ARGS)
{
	ErosDatabase *db;

	eros_check_loaded();
	db = eros_my_database();
	if (db != NULL)
		pg_atomic_write_u64(&db->last_maintenance, (uint64) eros_now());
	PG_RETURN_VOID();
}
