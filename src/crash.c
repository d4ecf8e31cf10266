/*-------------------------------------------------------------------------
 *
 * crash.c
 *		Handlers that crash the server: the mark, and what follows from it.
 *
 * Before a worker runs a handler's code, it writes into its place of the file
 * pg_stat/eros.calls which handler it is, and for whom; after the transaction
 * has ended it takes that back.  The mark survives the crash of the server, not
 * of the machine, so it needs no fsync.
 *
 *	- A worker that the postmaster ends by SIGQUIT, because another process has
 *	  crashed or for an immediate shutdown, takes its mark away first.  So only
 *	  the mark of the worker that crashed itself, or was killed, is left.
 *	- The postmaster, which starts afresh or ends after a crash, makes of each
 *	  mark that is left a file of its own, pg_stat/eros.crash.<database>.<handler>,
 *	  with the charge.  A postmaster that finds marks when it starts does likewise,
 *	  without the charge: then the whole server was killed.
 *	- The database's scheduler acts upon such a file before it starts a worker,
 *	  and removes it when that is committed.
 *
 * Whatever the charge, the handler's users run one by one until as many are
 * done as were in the batch.  A second charge within a day disables the handler.
 *
 * A mark counts only on the machine, since its boot, and in the very file that
 * it was written on: a copy of the data directory has another inode.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "catalog/pg_type.h"
#include "common/file_perm.h"
#include "common/hashfn.h"
#include "eros.h"
#include "executor/spi.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/builtins.h"

#define CALLS_FILE PGSTAT_STAT_PERMANENT_DIRECTORY "/eros.calls"
#define CRASH_FILE_PREFIX "eros.crash."
#define CALL_MAGIC 0x45524331

/* A second charge within this disables a handler. */
#define CHARGE_INTERVAL "1 day"

/* A worker's place in the file. */
typedef struct CallMark
{
	uint32 magic; /* 0: no call */
	uint32 boot;  /* of the machine, since which it counts */
	uint64 inode; /* of the file in which it counts */
	Oid dboid;
	int32 handler_id;
	bool charged; /* in a crash file: the crash is the handler's */
	int nkeys;
	ErosKey keys[EROS_MAX_BATCH];
} CallMark;

static int calls_fd = -1;
static off_t my_place;
static CallMark my_mark;

/* ------------------------------------------------------------------------
 * In a worker
 * ------------------------------------------------------------------------
 */

/* A hash of the machine's last boot; 0 where the system does not tell. */
static uint32
boot_hash(void)
{
	char id[64] = {0};
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY, 0);
	ssize_t len = 0;

	if (fd >= 0)
	{
		len = read(fd, id, sizeof(id));
		close(fd);
	}
	return len > 0 ? hash_bytes((const unsigned char *) id, (int) len) : 0;
}

/* Takes the mark away; called in a signal handler, too. */
void
eros_crash_unmark(void)
{
	const uint32 none = 0;

	if (calls_fd < 0 || my_mark.magic == 0)
		return;
	my_mark.magic = 0;
	if (pwrite(calls_fd, &none, sizeof(none), my_place) < 0)
		return; /* nothing can be done about it here */
}

/* The postmaster ends this process: whatever has crashed, it is not this one. */
static void
quit_handler(SIGNAL_ARGS)
{
	eros_crash_unmark();
	_exit(2);
}

/* Opens the file, as the worker in this slot. */
void
eros_crash_install(int slot)
{
	struct stat st;

	pqsignal(SIGQUIT, quit_handler);
	my_place = (off_t) slot * sizeof(CallMark);
	calls_fd = BasicOpenFile(CALLS_FILE, O_RDWR | O_CREAT | PG_BINARY);
	if (calls_fd < 0 || fstat(calls_fd, &st) != 0)
	{
		ereport(LOG,
				(errcode_for_file_access(), errmsg("could not open file \"%s\": %m", CALLS_FILE),
				 errdetail("A handler that crashes the server will not be recognized.")));
		return;
	}
	my_mark.boot = boot_hash();
	my_mark.inode = (uint64) st.st_ino;
}

/* Notes that the handler's code is about to run for these users. */
void
eros_crash_mark(const ErosHandler *handler, const ErosKey *keys, int nkeys)
{
	Size size = offsetof(CallMark, keys) + sizeof(ErosKey) * nkeys;

	if (calls_fd < 0)
		return;
	my_mark.dboid = MyDatabaseId;
	my_mark.handler_id = handler->handler_id;
	my_mark.nkeys = nkeys;
	memcpy(my_mark.keys, keys, sizeof(ErosKey) * nkeys);
	my_mark.magic = CALL_MAGIC;
	if (pwrite(calls_fd, &my_mark, size, my_place) != (ssize_t) size)
		my_mark.magic = 0; /* the disk is full: it goes without */
}

/* ------------------------------------------------------------------------
 * In the postmaster
 * ------------------------------------------------------------------------
 */

/* Writes a crash file; the postmaster cannot raise errors. */
static void
write_crash_file(const CallMark *mark)
{
	char path[MAXPGPATH];
	int fd;

	snprintf(path, sizeof(path), "%s/" CRASH_FILE_PREFIX "%u.%d", PGSTAT_STAT_PERMANENT_DIRECTORY,
			 mark->dboid, mark->handler_id);
	fd = BasicOpenFile(path, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY);
	if (fd < 0 || write(fd, mark, sizeof(CallMark)) != sizeof(CallMark))
		ereport(LOG, (errcode_for_file_access(), errmsg("could not write file \"%s\": %m", path)));
	if (fd >= 0)
		close(fd);
}

/* Makes crash files of the marks that are left, and takes these away. */
static void
collect_marks(bool charged)
{
	static CallMark mark;
	struct stat st;
	int fd = open(CALLS_FILE, O_RDWR | PG_BINARY, 0);

	if (fd < 0)
		return; /* there never was a call */
	if (fstat(fd, &st) == 0)
	{
		for (off_t at = 0; at < st.st_size; at += sizeof(CallMark))
		{
			memset(&mark, 0, sizeof(mark));
			if (pread(fd, &mark, sizeof(mark), at) <= 0)
				break;
			if (mark.magic != CALL_MAGIC || mark.boot != boot_hash() ||
				mark.inode != (uint64) st.st_ino || mark.nkeys < 1 || mark.nkeys > EROS_MAX_BATCH)
				continue;
			mark.charged = charged;
			write_crash_file(&mark);
		}
	}
	if (ftruncate(fd, 0) != 0)
		ereport(LOG, (errcode_for_file_access(),
					  errmsg("could not truncate file \"%s\": %m", CALLS_FILE)));
	close(fd);
}

/* The server starts afresh, or ends, after a crash. */
static void
after_crash(int code, Datum arg)
{
	if (code != 0)
		collect_marks(true);
}

/* Has crashes noticed; called in the postmaster when shared memory is set up. */
void
eros_crash_watch(void)
{
	collect_marks(false);
	on_shmem_exit(after_crash, (Datum) 0);
}

/* ------------------------------------------------------------------------
 * In the scheduler
 * ------------------------------------------------------------------------
 */

/* Reads a crash file; false when it is none, or one of the server that this is a copy of. */
static bool
read_crash_file(const char *path, CallMark *mark)
{
	int fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
	struct stat st;
	bool good;

	if (fd < 0)
		return false;
	good = read(fd, mark, sizeof(CallMark)) == sizeof(CallMark) && mark->magic == CALL_MAGIC &&
		   mark->dboid == MyDatabaseId && mark->nkeys >= 1 && mark->nkeys <= EROS_MAX_BATCH &&
		   stat(CALLS_FILE, &st) == 0 && mark->inode == (uint64) st.st_ino;
	CloseTransientFile(fd);
	return good;
}

/* Counts a crash against a handler; returns whether that has disabled it. */
static bool
count_crash(const CallMark *mark, const char *message)
{
	Oid argtypes[] = {INT4OID, TEXTOID};
	Datum values[] = {Int32GetDatum(mark->handler_id), CStringGetTextDatum(message)};
	bool isnull;

	SPI_execute_with_args(
		"UPDATE eros.handler h SET"
		" crashes = n.crashes, crashed_at = n.now,"
		" enabled = h.enabled AND n.crashes < 2,"
		" error = CASE WHEN n.crashes < 2 THEN h.error ELSE $2 END,"
		" error_at = CASE WHEN n.crashes < 2 THEN h.error_at ELSE n.now END"
		" FROM (SELECT c.handler_id, eros.now() AS now,"
		"	1 + CASE WHEN c.crashed_at > eros.now() - interval '" CHARGE_INTERVAL "'"
		"		THEN c.crashes ELSE 0 END AS crashes FROM eros.handler c) n"
		" WHERE h.handler_id = $1 AND n.handler_id = h.handler_id RETURNING n.crashes >= 2",
		2, argtypes, values, NULL, false, 0);
	return SPI_processed == 1 &&
		   DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/* Sets the job of the one user for whom a handler has crashed the server to failed. */
static void
fail_user(ErosHandler *handler, const ErosKey *key, const char *message)
{
	ErosHandler last_try = *handler;

	last_try.max_attempts = 1;
	eros_queue_record_failure(&last_try, key, message);
}

/* Does what follows from a crash, in the current transaction. */
static void
act_upon(const CallMark *mark)
{
	ErosHandler *handler = eros_handler_by_id(mark->handler_id);
	bool disabled = false;
	const char *users;
	char *message;

	if (handler == NULL)
		return; /* dropped meanwhile */

	/* who it was is in the job's last_error: this is shown where no user is */
	users = mark->nkeys == 1 ? "one user" : psprintf("%d users", mark->nkeys);
	if (mark->charged)
		message =
			psprintf("handler \"%s\" crashed the server in a call for %s", handler->name, users);
	else
		message = psprintf("the server was killed in a call of handler \"%s\" for %s",
						   handler->name, users);
	pg_atomic_write_u32(&handler->stats->alone, (uint32) mark->nkeys);
	if (mark->charged)
	{
		disabled = count_crash(mark, message);
		if (disabled && mark->nkeys == 1)
			fail_user(handler, &mark->keys[0], message);
	}
	eros_error_note_message(EROS_PROCESS_WORKER, handler->handler_id, ERRCODE_CRASH_SHUTDOWN,
							message);
	if (disabled)
		ereport(WARNING, (errcode(ERRCODE_CRASH_SHUTDOWN), errmsg("%s", message),
						  errdetail("It was the second time within a day: it has been disabled."),
						  errhint("Mend it, then call eros.enable_handler().")));
	else
		ereport(LOG,
				(errmsg("%s", message), errdetail("It is called for one user at a time now.")));
}

/*
 * Acts upon the crashes in this database since the last time; called before
 * any worker is started, outside of a transaction.
 */
void
eros_crash_recover(void)
{
	char prefix[NAMEDATALEN];
	DIR *dir = AllocateDir(PGSTAT_STAT_PERMANENT_DIRECTORY);
	struct dirent *entry;
	List *paths = NIL;
	ListCell *lc;
	CallMark *mark = palloc(sizeof(CallMark));

	snprintf(prefix, sizeof(prefix), CRASH_FILE_PREFIX "%u.", MyDatabaseId);
	while ((entry = ReadDirExtended(dir, PGSTAT_STAT_PERMANENT_DIRECTORY, LOG)) != NULL)
	{
		if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0)
			paths = lappend(paths, psprintf(PGSTAT_STAT_PERMANENT_DIRECTORY "/%s", entry->d_name));
	}
	FreeDir(dir);
	foreach (lc, paths)
	{
		const char *path = lfirst(lc);

		if (read_crash_file(path, mark))
		{
			eros_process_begin();
			eros_config_reload();
			act_upon(mark);
			ForceSyncCommit(); /* before the handler is called again */
			eros_process_commit();
		}
		unlink(path);
	}
}
