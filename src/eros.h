/*-------------------------------------------------------------------------
 *
 * eros.h
 *		What the rooms of EROS share: the shared memory and its protocol.
 *
 * The flow is touch -> active users -> sweep -> jobs -> worker -> cache -> get,
 * one file per station.  Everything that two processes look at is declared
 * here, with the rule that guards it:
 *
 *	- "slot lock" (ErosShared.lock, an LWLock): who owns which database, worker
 *	  and handler slot.  Held for a few instructions, never while waiting.
 *	- atomics: counters and marks that anybody may read at any time.
 *	- ErosWorker.batch_word: the one word by which a worker and the touches of
 *	  users it holds agree who was first; see halt.c.
 *
 * The active users have their own protocol, in tracker.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EROS_H
#define EROS_H

#include "postgres.h"

#include "compat.h"
#include "access/tupdesc.h"
#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#define EROS_MAX_PHASES 8		/* phases are numbered 1 to 8 */
#define EROS_MAX_WORKERS 64		/* of one database, at most */
#define EROS_MAX_BATCH 1000		/* users in one batch, at most */
#define EROS_MAX_PARTITIONS 128 /* cache partitions accounted per database */
#define EROS_BUCKETS 16			/* classes of partitions: the longest ttl makes twelve */
#define EROS_READ_WINDOWS 12	/* cache partitions of a handler with read marks */
#define EROS_READ_BITS 10		/* 2^10 registers: a standard error of 3.25 % */
#define EROS_ERRORS 64			/* errors of processes kept, of the whole server */
#define EROS_ERROR_LEN 256		/* bytes of a message kept with each */

/* ------------------------------------------------------------------------
 * Users (user.c)
 * ------------------------------------------------------------------------
 */

/*
 * A user's key: the 16 bytes of a uuid, as two integers that sort alike.  A
 * bigint user has hi = 0, which no RFC 9562 uuid has.
 */
typedef struct ErosKey
{
	uint64 hi;
	uint64 lo;
} ErosKey;

typedef enum ErosKeyType
{
	EROS_KEY_BIGINT,
	EROS_KEY_UUID
} ErosKeyType;

static inline bool
eros_key_is_bigint(const ErosKey *key)
{
	return key->hi == 0;
}

static inline int
eros_key_compare(const ErosKey *a, const ErosKey *b)
{
	if (a->hi != b->hi)
		return a->hi < b->hi ? -1 : 1;
	if (a->lo != b->lo)
		return a->lo < b->lo ? -1 : 1;
	return 0;
}

extern int eros_key_qsort_compare(const void *a, const void *b);
extern ErosKey eros_key_from_bigint(int64 user);
extern ErosKey eros_key_from_uuid(const pg_uuid_t *uuid);
extern ErosKey eros_key_from_text(const text *user);
extern ErosKey eros_key_from_stored(const pg_uuid_t *uuid);
extern void eros_key_to_uuid(const ErosKey *key, pg_uuid_t *uuid);
extern Datum eros_key_get_datum(const ErosKey *key);
extern ErosKey *eros_keys_from_array(Datum array, Oid element_type, int *nkeys);
extern Datum eros_keys_to_array(const ErosKey *keys, int nkeys, ErosKeyType type);
extern char *eros_key_to_cstring(const ErosKey *key);

/* ------------------------------------------------------------------------
 * Time (clock.c)
 * ------------------------------------------------------------------------
 */
extern TimestampTz eros_now(void);
extern uint64 eros_monotonic_ns(void);
extern uint64 eros_process_cpu_ns(void);

/* ------------------------------------------------------------------------
 * Shared memory
 * ------------------------------------------------------------------------
 */

/* Why a batch was halted. */
typedef enum ErosHaltReason
{
	EROS_HALT_RETURN = 0, /* a user of it has returned */
	EROS_HALT_WAITER,	  /* somebody waits for a lock of the worker */
	EROS_HALT_PAUSE		  /* the database was paused */
} ErosHaltReason;

/* Latencies: a histogram with four classes an octave, from 1 us. */
#define EROS_LATENCY_CLASSES 96
#define EROS_LATENCY_CLASS_RATIO 1.189207115002721

typedef struct ErosLatency
{
	pg_atomic_uint64 count;
	pg_atomic_uint64 sum_ns;
	pg_atomic_uint64 max_ns;
	pg_atomic_uint64 classes[EROS_LATENCY_CLASSES];
} ErosLatency;

/* The last halts, for who looks; a ring, under the slot lock. */
#define EROS_RECENT_HALTS 16

typedef struct ErosRecentHalt
{
	TimestampTz at;
	ErosHaltReason reason;
	int32 handler_id;
	int16 phase;
	int16 worker;
	int32 nusers;
	uint64 latency_ns; /* from the request to the roll-back finished */
} ErosRecentHalt;

/* What is known of a database. */
typedef enum ErosDatabaseState
{
	EROS_DB_FREE = 0, /* the slot is unused */
	EROS_DB_PROBE,	  /* look whether the extension is there */
	EROS_DB_RUNNING,  /* it is, and the scheduler runs */
	EROS_DB_ABSENT	  /* it is not; the launcher frees the slot */
} ErosDatabaseState;

/*
 * How long something takes that happens often: a histogram with the classes of
 * the halts.  Some are measured for all: see EROS_LATENCY_SAMPLE.
 */
typedef enum ErosOperation
{
	EROS_OP_CLAIM = 0, /* a worker claims a batch */
	EROS_OP_STORE,	   /* a worker stores its results and deletes the jobs */
	EROS_OP_GET,	   /* eros.get() looks for one user's result */
	EROS_OP_SWEEP,	   /* a step of the sweep */
	EROS_OPERATIONS
} ErosOperation;

/* One call of eros.get() in so many is measured. */
#define EROS_LATENCY_SAMPLE 64

/* The counters and gauges that the history samples; see history.c. */
#define EROS_SAMPLED_OF_DATABASE 16
#define EROS_SAMPLED_OF_PHASE 8
#define EROS_SAMPLED_OF_HANDLER 22

/* What the launcher asks of a scheduler while other databases wait for a slot. */
typedef enum ErosLeave
{
	EROS_LEAVE_NOT = 0,
	EROS_LEAVE_WHEN_IDLE, /* when it has nothing to do for a while */
	EROS_LEAVE_NOW		  /* its turn is over: its workers after their batch, too */
} ErosLeave;

typedef struct ErosPhaseCounters
{
	pg_atomic_uint64 users;		  /* idle users in this phase now */
	pg_atomic_uint64 transitions; /* crossings into this phase */
	pg_atomic_uint64 batches;
	pg_atomic_uint64 users_done;
	pg_atomic_uint64 cpu_granted_ns;		  /* the share of the time with work to do */
	pg_atomic_uint64 cpu_used_ns;			  /* by batches of this phase */
	pg_atomic_uint64 cpu_yielded_ns;		  /* the part of the share that contention took */
	pg_atomic_uint64 throttled_ns;			  /* pauses that paid for it */
	uint64 sampled[2][EROS_SAMPLED_OF_PHASE]; /* as of the last two samples */
} ErosPhaseCounters;

typedef struct ErosPartitionBytes
{
	pg_atomic_uint32 relid;
	pg_atomic_uint64 bytes;
} ErosPartitionBytes;

/* How far the refresh has come in a bucket; see refresh.c. */
typedef struct ErosRefreshHand
{
	TimestampTz moved_at;	 /* as far as it has come, it has come in time until then */
	TimestampTz not_before;	 /* it rests until then */
	TimestampTz round_began; /* 0: it has not been round yet */
	TimestampTz upper;		 /* the partition that it is in, by its upper bound */
	uint32 block;			 /* ... and the next page there */
	bool behind;			 /* it owes more than one step */
} ErosRefreshHand;

/*
 * A database that has the extension, or is about to be looked at.  Slots are
 * given and taken under the slot lock; the owner's pid and latch are set under
 * it, too.
 */
typedef struct ErosDatabase
{
	Oid dboid; /* InvalidOid: free */
	ErosDatabaseState state;
	pid_t scheduler_pid;
	Latch *scheduler_latch;
	pid_t held_by;		 /* backend whose DDL keeps EROS out, or 0 */
	uint32 announced;	 /* CREATE EXTENSIONs so far */
	bool no_worker_slot; /* max_worker_processes is exhausted */
	bool of_superuser;	 /* the extension's owner is one, as the scheduler has found */
	bool by_pg_cron;	 /* pg_cron has this database's maintenance */
	bool scheduler_up;	 /* the scheduler has found the extension */

	/* turns, when there are more databases than worker slots; see launcher.c */
	pg_atomic_uint32 leave;				  /* ErosLeave */
	pg_atomic_uint32 away;				  /* the last scheduler has left by itself */
	pg_atomic_uint64 needed_at;			  /* ... when the next is needed; TimestampTz */
	pg_atomic_uint64 first_idle_us;		  /* ... who comes now can be idle after this */
	pg_atomic_uint64 waiting_since;		  /* a scheduler waits for a slot; TimestampTz, 0: not */
	pg_atomic_uint64 worker_wanted_since; /* ... the first worker does */
	pg_atomic_uint64 longest_wait_us;	  /* of a scheduler for its slot */
	pg_atomic_uint64 turns;				  /* schedulers that came up */
	pg_atomic_uint32 failed_starts;		  /* schedulers that did not, since the last that did */
	pg_atomic_uint32 failed_rounds;		  /* rounds that failed, since the last that did not */
	pg_atomic_uint32 failed_sqlstate;	  /* with which error */

	pg_atomic_uint64 config_generation; /* raised when phases or handlers change */
	pg_atomic_uint32 wants_room;		/* a touch found its partition full */
	pg_atomic_uint32 dozing;			/* the scheduler sleeps long: a return wakes it */
	pg_atomic_uint32 queue_generation;	/* raised when jobs are due */
	pg_atomic_uint32 owners_waiting;	/* owners with due jobs and no worker */
	pg_atomic_uint64 active_users;		/* in the map */
	pg_atomic_uint64 touches_spilled;	/* touches that went to the table */
	pg_atomic_uint64 touches_lost;		/* ... and could not: read-only, map full */
	pg_atomic_uint64 returns;			/* users whose return was noticed */
	pg_atomic_uint64 halts;				/* batches interrupted by a return */
	pg_atomic_uint64 users_spilled;		/* active users moved to the table */
	pg_atomic_uint64 scheduler_cpu_ns;
	pg_atomic_uint64 scheduler_since; /* TimestampTz: the scheduler has come up */
	pg_atomic_uint64 served_since;	  /* ... the first since the server's start */
	pg_atomic_uint64 last_sweep;	  /* TimestampTz */
	pg_atomic_uint64 last_maintenance;
	pg_atomic_uint64 evicted;

	pg_atomic_uint32 paused;	   /* by eros.pause() */
	pg_atomic_uint64 gave_way;	   /* batches halted for somebody who waited for a lock */
	ErosLatency halt_latency;	   /* of halts by returning users */
	pg_atomic_uint64 halts_slow;   /* of these, halts that took longer than half a second */
	pg_atomic_uint64 halts_forced; /* workers terminated, having not yielded */
	uint64 nhalts_noted;		   /* the next place of the ring is this modulo its size */
	ErosRecentHalt recent_halts[EROS_RECENT_HALTS];

	/* for the history, written by the scheduler: when it sampled last, and what; see history.c */
	pg_atomic_uint64 sampled_at;	 /* TimestampTz; 0: not since the server's start */
	pg_atomic_uint32 latest_sample;	 /* which of the two below is the newest that is committed */
	pg_atomic_uint64 sample_name[2]; /* sampled_at of its row */
	uint64 sampled[2][EROS_SAMPLED_OF_DATABASE];

	pg_atomic_uint64 scraped_at;	 /* TimestampTz: somebody collected the metrics */
	pg_atomic_uint32 scrapes;		 /* how often in a row, without a gap that is a stop */
	pg_atomic_uint64 scraping_since; /* ... the first of which came then; TimestampTz */
	pg_atomic_uint64 scheduler_wal_bytes;
	ErosLatency latency[EROS_OPERATIONS];

	/* the governor's buckets: when each worker may go on with each phase, monotonic ns */
	pg_atomic_uint64 allowed_at_ns[EROS_MAX_WORKERS][EROS_MAX_PHASES + 1];
	/* by which grant of a worker what it owes was charged; 0: by all of it */
	pg_atomic_uint32 debt_permille[EROS_MAX_WORKERS][EROS_MAX_PHASES + 1];

	ErosPhaseCounters phases[EROS_MAX_PHASES + 1];
	ErosPartitionBytes partitions[EROS_MAX_PARTITIONS];
	ErosRefreshHand refresh_hands[EROS_BUCKETS]; /* where a scheduler that has left had them */
} ErosDatabase;

/*
 * The state of a worker's batch, the low bits of batch_word; why it was halted;
 * and its generation, the rest.
 */
#define EROS_BATCH_NONE 0		/* no batch: computes nothing for anybody */
#define EROS_BATCH_RUNNING 1	/* keys[] are held; may be halted */
#define EROS_BATCH_COMMITTING 2 /* the results are being committed: too late */
#define EROS_BATCH_HALTED 3		/* a touch has halted it */
#define EROS_BATCH_STATE(word) ((uint32) ((word) &3))
#define EROS_BATCH_REASON(word) ((ErosHaltReason) (((word) >> 2) & 3))
#define EROS_BATCH_GENERATION(word) ((word) >> 4)
#define EROS_BATCH_WORD(generation, state) (((generation) << 4) | (state))
#define EROS_BATCH_HALTED_FOR(generation, reason) \
	(EROS_BATCH_WORD((generation), EROS_BATCH_HALTED) | ((uint64) (reason) << 2))

/* What a worker is doing, for the status. */
typedef enum ErosWorkerActivity
{
	EROS_WORKER_STARTING = 0,
	EROS_WORKER_IDLE,
	EROS_WORKER_CLAIMING,
	EROS_WORKER_COMPUTING,
	EROS_WORKER_STORING,
	EROS_WORKER_PAUSING,
	EROS_WORKER_PAUSING_IN_CALL
} ErosWorkerActivity;

/*
 * A worker.  The slot is taken by the scheduler under the slot lock, and given
 * back by the worker's exit callback (or by the scheduler when the worker
 * never came up).  keys[] is written by the worker only while the word's state
 * is NONE.
 */
typedef struct ErosWorker
{
	Oid dboid;	   /* InvalidOid: free */
	int number;	   /* 1, 2, ... within its database */
	uint32 ticket; /* tells a worker that the slot is still meant for it */
	pid_t pid;	   /* 0: not up yet */
	Latch *latch;
	Oid owner; /* the role whose handlers it runs, and no other's */

	pg_atomic_uint64 batch_word;
	int nkeys;
	ErosKey keys[EROS_MAX_BATCH]; /* sorted */

	/* for the status only: written by the worker, read by anybody */
	pg_atomic_uint32 activity;
	pg_atomic_uint32 handler_id;
	pg_atomic_uint32 phase;
	pg_atomic_uint64 batch_start;	 /* TimestampTz */
	pg_atomic_uint64 snapshot_start; /* TimestampTz; 0: holds none */
	pg_atomic_uint64 started;		 /* TimestampTz */
	pg_atomic_uint64 batches;
	pg_atomic_uint64 users_done;
	pg_atomic_uint64 cpu_used_ns;
	pg_atomic_uint32 grant_permille;  /* part of the shares left by contention */
	pg_atomic_uint32 waited_permille; /* part of its time it waited for a CPU */

	pg_atomic_uint64 halted_at_ns; /* when the batch was halted, monotonic */
} ErosWorker;

/* What a handler has in one cache partition, and which of it was read: a HyperLogLog. */
typedef struct ErosReadWindow
{
	pg_atomic_uint64 name; /* of the partition, by its bounds; 0: unused */
	pg_atomic_uint64 stored;
	pg_atomic_uint64 bytes; /* of live results; signed */
	uint8 registers[1 << EROS_READ_BITS];
} ErosReadWindow;

/* How far a scheduler that has left had come with a handler; see sweep.c. */
typedef struct ErosHandlerProgress
{
	uint64 generation; /* of the configuration; 0: nothing is kept */
	bool backfilled;
	ErosKey backfill_from;
} ErosHandlerProgress;

/*
 * The counters of one handler, since the server's start.  Found by database
 * and handler_id; the slot is taken under the slot lock at the first use.
 */
typedef struct ErosHandlerStats
{
	Oid dboid; /* InvalidOid: free */
	int32 handler_id;
	pg_atomic_uint64 pending; /* jobs */
	pg_atomic_uint64 failed;  /* jobs */
	pg_atomic_uint64 batches;
	pg_atomic_uint64 users_done;
	pg_atomic_uint64 batches_failed;
	pg_atomic_uint64 batches_halted;
	pg_atomic_uint32 kills; /* workers that ended in a call, since the last that did not */
	pg_atomic_uint64 suspended_until_ns; /* not called before, monotonic */
	pg_atomic_uint64 retry_at_ns;		 /* nor before, unless the configuration has changed */
	pg_atomic_uint64 retry_generation;	 /* the configuration for which that holds */
	pg_atomic_uint32 alone; /* users to be called one by one, after a crash in a call */
	pg_atomic_uint64 cpu_used_ns;
	pg_atomic_uint64 cpu_halted_ns;	 /* lost to halts */
	pg_atomic_uint64 cost_ns;		 /* per user, moving average; 0: unknown */
	pg_atomic_uint32 backs;			 /* batches whose jobs are pending again */
	pg_atomic_uint64 due_from;		 /* jobs due before are done or in work, as far as is known */
	pg_atomic_uint64 look_all_at_ns; /* when that is not relied on, monotonic */
	pg_atomic_uint64 stored;
	pg_atomic_uint64 hits;
	pg_atomic_uint64 misses;
	pg_atomic_uint64 unread;	   /* expired without having been read */
	pg_atomic_uint64 closed;	   /* results in the partitions behind 'unread' */
	pg_atomic_uint64 crossings;	   /* users who crossed into its phase while it was enabled */
	pg_atomic_uint64 jobs_added;   /* jobs, whatever for */
	pg_atomic_uint64 backfilled;   /* of these, for users who had been idle already */
	pg_atomic_uint64 refreshed;	   /* of these, for results that were about to expire */
	pg_atomic_uint64 stored_bytes; /* of results, in the cache */
	pg_atomic_uint64 wal_bytes;	   /* written by its batches */
	pg_atomic_uint64 wal_fpi;	   /* of these, images of full pages: how many */
	pg_atomic_uint64 next_due;	   /* TimestampTz of its first job, as the scheduler saw it */
	uint64 sampled[2][EROS_SAMPLED_OF_HANDLER]; /* as of the last two samples */
	ErosHandlerProgress progress;
	ErosReadWindow windows[EROS_READ_WINDOWS];
} ErosHandlerStats;

/* Whose error it was. */
typedef enum ErosProcess
{
	EROS_PROCESS_LAUNCHER = 0,
	EROS_PROCESS_SCHEDULER,
	EROS_PROCESS_WORKER
} ErosProcess;

/* A recent error of EROS's processes; guarded by the slot lock. */
typedef struct ErosError
{
	Oid dboid; /* InvalidOid: the launcher's */
	ErosProcess process;
	pid_t pid;		  /* the last one that had it */
	int32 handler_id; /* the handler it is about; 0: none */
	bool own;		  /* EROS's, though a handler's batch had it */
	bool worded;	  /* the message is EROS's, and names nobody */
	Oid owner;		  /* of the handler */
	int sqlstate;
	uint32 format; /* hash of the message without its values */
	TimestampTz at;
	uint64 logged_at_ns; /* monotonic */
	uint64 count;		 /* 0: unused */
	char message[EROS_ERROR_LEN];
} ErosError;

typedef struct ErosShared
{
	LWLock *lock; /* the slot lock */
	pid_t launcher_pid;
	Latch *launcher_latch;
	pg_atomic_uint64 clock_offset_us;	/* developers' moved time */
	pg_atomic_uint64 clock_frozen_at;	/* the time at which it stands; 0: it goes */
	pg_atomic_uint64 generation;		/* the newest config_generation of any database */
	pg_atomic_uint64 cap_allowed_at_ns; /* the hard cap's bucket */
	pg_atomic_uint32 cron_request;		/* raised to have pg_cron's jobs reconciled */
	pg_atomic_uint32 cron_done;			/* the last request that was carried out */
	pg_atomic_uint32 waiting;			/* databases that wait for a worker slot */
	pg_atomic_uint32 no_slot;			/* processes for which there was none, so far */
	pg_atomic_uint32 no_room;			/* CREATE EXTENSIONs for whose database there was none */
	pg_atomic_uint64 no_slot_at_ns;		/* when that was the last time, monotonic */
	TimestampTz started;
	ErosError errors[EROS_ERRORS];
	uint64 errors_since_ns; /* of them so many have been logged since then, for a minute */
	int errors_logged;
} ErosShared;

typedef struct ErosConfig ErosConfig;

extern ErosShared *eros_shared;
extern ErosDatabase *eros_databases;
extern ErosWorker *eros_workers_array;
extern ErosHandlerStats *eros_handlers_array;

extern void eros_check_loaded(void);
extern ErosDatabase *eros_database_slot(Oid dboid, bool create);
extern ErosDatabase *eros_my_database(void);
extern ErosDatabase *eros_require_database(void);
extern Size eros_shared_bytes(void);
extern ErosHandlerStats *eros_handler_stats(Oid dboid, int32 handler_id);
extern bool eros_handler_is_counted(const ErosHandlerStats *stats);
extern int eros_dropped_handlers(const ErosConfig *config, int32 *dropped);
extern void eros_forget_handler(int32 handler_id);
extern bool eros_forget_database(Oid dboid, bool only_if_absent);
extern void eros_set_latch_of_scheduler(ErosDatabase *db);
extern void eros_need_scheduler_at(ErosDatabase *db, TimestampTz at);
extern void eros_count(pg_atomic_uint64 *counter, int64 delta);
extern void eros_count_on_commit(pg_atomic_uint64 *counter, int64 delta);
extern int64 eros_value_on_commit(pg_atomic_uint64 *counter);
extern void eros_clear_on_commit(pg_atomic_uint64 *counter);
extern void eros_config_changed_on_commit(void);
extern bool eros_extension_exists(bool *of_superuser);
extern void eros_note_owner(ErosDatabase *db, bool of_superuser);
extern Oid eros_extension_owner(void);
extern bool eros_version_matches(void);
extern void eros_check_version(void);
extern void eros_check_row(TupleDesc desc, int natts);

/* Another role's rights and a safe search_path, until the end of the scope. */
typedef struct ErosRoleScope
{
	Oid save_user;
	int save_context;
	int guc_level;
} ErosRoleScope;

extern void eros_role_begin(ErosRoleScope *scope, Oid role);
extern void eros_role_end(ErosRoleScope *scope);
extern void eros_owner_begin(ErosRoleScope *scope);
extern void eros_owner_end(ErosRoleScope *scope);

/* ------------------------------------------------------------------------
 * Settings (eros.c)
 * ------------------------------------------------------------------------
 */
extern bool eros_enabled;
extern bool eros_developer;
extern int eros_workers;
extern int eros_max_workers;
extern int eros_max_databases;
extern int eros_max_handlers;
extern int eros_tracker_memory_kb;
extern int eros_quantum_ms;
extern double eros_cpu_cap;
extern int eros_cpu_cores;
extern int eros_sweep_interval_ms;
extern int eros_maintenance_interval_s;
extern int eros_max_idle_s;
extern int eros_cache_limit_kb;
extern int eros_max_result_size;
extern int eros_retry_delay_ms;
extern int eros_retry_delay_max_ms;
extern int eros_worker_idle_timeout_ms;
extern int eros_halt_timeout_ms;
extern int eros_max_snapshot_age_ms;
extern int eros_work_mem_kb;
extern int eros_nice;
extern bool eros_foreground_first;
extern int eros_turn_ms;

/* ------------------------------------------------------------------------
 * Active users (tracker.c)
 * ------------------------------------------------------------------------
 */
typedef struct ErosIdleUser
{
	ErosKey key;
	TimestampTz last_seen;
	bool returned; /* a row and jobs of before may still be there */
} ErosIdleUser;

/* What a look at one partition of the map found. */
typedef struct ErosTrackerScan
{
	TimestampTz idle_before; /* in: users last seen at or before are idle */
	ErosIdleUser *idle;		 /* out: marked as being swept */
	int nidle;
	int max_idle;	   /* in: the room in idle[] */
	ErosKey *returned; /* out: users who came anew; NULL: not asked */
	int nreturned;
	int max_returned;
	TimestampTz oldest; /* out: the oldest last_seen that stays */
	bool complete;		/* out: false when there was no room */
} ErosTrackerScan;

typedef struct ErosTrackerSize
{
	uint64 users; /* of all databases */
	uint64 capacity;
	uint64 bytes_used; /* memory that has been touched */
	uint64 bytes_reserved;
} ErosTrackerSize;

extern Size eros_tracker_shmem_size(void);
extern void eros_tracker_shmem_init(void);
extern bool eros_tracker_is_active(Oid dboid, const ErosKey *key);
extern bool eros_tracker_enter(Oid dboid, const ErosKey *key, TimestampTz last_seen, bool *returned,
							   bool *inserted, bool *crowded);
extern bool eros_tracker_restore(Oid dboid, const ErosKey *key, TimestampTz last_seen);
extern int eros_tracker_npartitions(void);
extern int eros_tracker_seen(Oid dboid, int partition, TimestampTz after, TimestampTz upto,
							 ErosIdleUser *users, int max);
extern bool eros_tracker_has_returned(int partition);
extern void eros_tracker_trim(int partition);
extern void eros_tracker_scan(Oid dboid, int partition, ErosTrackerScan *scan);
extern bool eros_tracker_crowded(int partition, TimestampTz *oldest_fifth, Oid dboid);
extern int eros_tracker_remove_swept(Oid dboid, const ErosIdleUser *users, int nusers);
extern void eros_tracker_unmark_swept(Oid dboid, const ErosIdleUser *users, int nusers);
extern void eros_tracker_clear_returned(Oid dboid, const ErosKey *keys, int nkeys);
extern void eros_tracker_forget_database(Oid dboid);
extern uint64 eros_tracker_count(Oid dboid);
extern bool eros_tracker_has_users(Oid dboid);
extern void eros_tracker_size(ErosTrackerSize *size);

/* ------------------------------------------------------------------------
 * The halt (halt.c)
 * ------------------------------------------------------------------------
 */
extern void eros_halt_user(Oid dboid, const ErosKey *key);
extern void eros_halt_install(ErosWorker *worker);
extern void eros_halt_publish(ErosWorker *worker, const ErosKey *keys, int nkeys);
extern void eros_halt_before_commit(ErosWorker *worker);
extern void eros_halt_withdraw(ErosWorker *worker);
extern bool eros_halt_is_pending(ErosWorker *worker);
extern bool eros_halt_is_overdue(ErosWorker *worker, uint64 now_ns);
extern void eros_halt_myself(ErosWorker *worker, ErosHaltReason reason);
extern void eros_halt_database(Oid dboid);

/* ------------------------------------------------------------------------
 * Phases and handlers (config.c, handler.c)
 * ------------------------------------------------------------------------
 */
typedef struct ErosPhase
{
	int phase;
	int64 idle_after_us;
	double cpu_percent;
	int batch_size;
} ErosPhase;

typedef struct ErosHandler
{
	int32 handler_id;
	char name[NAMEDATALEN];
	char *function;	  /* qualified, quoted, with its argument type */
	Oid function_oid; /* as registered */
	ErosKeyType key_type;
	int phase;
	int64 ttl_us;
	int bucket; /* its class of cache partitions */
	int max_attempts;
	int timeout_ms;
	Oid owner;
	bool enabled;
	ErosHandlerStats *stats;

	bool has_error; /* it could not be called when last tried */

	/* this process's own */
	struct _SPI_plan *plan; /* the call, prepared as the owner */
} ErosHandler;

/* This process's copy of eros.phase and eros.handler. */
struct ErosConfig
{
	uint64 generation; /* 0: not loaded */
	int nphases;
	ErosPhase phases[EROS_MAX_PHASES]; /* by phase */
	int nhandlers;
	ErosHandler *handlers;
	MemoryContext context;
	uint32 dirty; /* what it was read for, if not to be kept */
	TimestampTz transaction;
};

/* What a handler's call returned, checked. */
typedef struct ErosResults
{
	int nrows;
	Datum *values; /* jsonb, for each user asked for; 0 where there is no result */
} ErosResults;

extern int64 eros_interval_us(const Interval *interval);
extern struct RelationData *eros_open_table(const char *name);
extern void eros_check_columns(struct RelationData *rel, const Oid *types, int ntypes);
extern void eros_check_table(const char *name);
extern void eros_lock_for_writing(const char *name);
extern ErosConfig *eros_config(void);
extern ErosConfig *eros_config_reload(void);
extern void eros_config_invalidate(void);
extern void eros_config_by_hand(void);
extern bool eros_config_is_current(void);
extern void eros_config_free_retired(void);
extern uint32 eros_config_dirty(void);
extern ErosHandler *eros_handler_by_name(const char *name, bool missing_ok);
extern ErosHandler *eros_handler_by_id(int32 handler_id);
extern ErosPhase *eros_phase(int phase);
extern void eros_handler_check_callable(ErosHandler *handler);
extern void
eros_handler_call(ErosHandler *handler, const ErosKey *keys, int nkeys, ErosResults *results);
extern void eros_handler_check_utility(struct Node *stmt);
extern bool eros_in_handler; /* this process is in a handler's call */
extern bool eros_handler_timed_out(void);
extern bool eros_handler_is_overdue(uint64 now_ns);
extern void eros_handler_wait(const ErosHandler *handler, uint64 pause_ns);
extern uint64 eros_handler_waits_until_ns(const ErosHandler *handler);
extern void eros_handler_note_error(const ErosHandler *handler, const char *message);

extern void eros_halt_finished(ErosWorker *worker, const ErosHandler *handler);

/* ------------------------------------------------------------------------
 * Queue, cache, governor, processes
 * ------------------------------------------------------------------------
 */

/* A job that a worker has claimed: its row is locked by the transaction. */
typedef struct ErosJob
{
	ErosKey key;
	ItemPointerData ctid;
} ErosJob;

typedef struct ErosClaim
{
	MemoryContext context; /* in: where to put it */
	int njobs;
	ErosJob *jobs;		   /* sorted by key */
	ErosKey *keys;		   /* the same keys */
	TimestampTz first_due; /* when the first and the last of them were due */
	TimestampTz last_due;
	uint32 backs; /* batches that had been put back when it began */
} ErosClaim;

extern struct _SPI_plan *
eros_plan(struct _SPI_plan **plan, const char *sql, int nargs, Oid *argtypes);

extern void eros_queue_claim(const ErosHandler *handler, int limit, ErosClaim *claim);
extern void eros_queue_claim_users(const ErosHandler *handler, const ErosKey *keys, int nkeys,
								   ErosClaim *claim);
extern void eros_queue_drop_active(const ErosHandler *handler, ErosClaim *claim);
extern void eros_queue_finish(const ErosHandler *handler, const ErosClaim *claim);
extern void eros_queue_note_done(const ErosHandler *handler, const ErosClaim *claim);
extern void eros_queue_note_back(const ErosHandler *handler, const ErosClaim *claim);
extern bool
eros_queue_record_failure(const ErosHandler *handler, const ErosKey *key, const char *message);
extern uint64
eros_queue_add(const ErosHandler *handler, const ErosIdleUser *users, int nusers, TimestampTz now);
extern void eros_queue_delete_users(const ErosKey *keys, int nkeys);
extern TimestampTz eros_queue_next_due(const ErosHandler *handler);
extern bool eros_queue_set_back(TimestampTz now);
extern void eros_queue_recount(void);
extern void eros_queue_delete_handler(int32 handler_id);

/* Results are refreshed when less than this part of their lifetime is left. */
#define EROS_REFRESH_LEAD(ttl_us) ((ttl_us) / 10)

/* A partition of the cache whose results expire soon; see refresh.c. */
typedef struct ErosExpiringPartition
{
	Oid relid;
	TimestampTz upper;
	uint32 nblocks;
} ErosExpiringPartition;

extern TimestampTz
eros_refresh_step(ErosRefreshHand *hand, int number, TimestampTz now, bool *late);
extern void eros_refresh_all(TimestampTz now);

extern int eros_cache_bucket(int64 ttl_us);
extern TimestampTz eros_cache_partition_upper(int bucket, TimestampTz expires_at);
extern void eros_cache_store(const ErosHandler *handler, const ErosKey *keys, int nkeys,
							 const ErosResults *results);
extern Datum eros_cache_get(const ErosHandler *handler, const ErosKey *key, bool *found);
extern int
eros_cache_expiring(int bucket, TimestampTz after, TimestampTz upto, ErosExpiringPartition **found);
extern uint64 eros_cache_bytes(ErosDatabase *db);
extern uint64 eros_cache_bytes_of(ErosHandlerStats *stats);
extern void eros_cache_recount(void);
extern bool eros_cache_has_expired(TimestampTz now);
extern void eros_cache_close_accounts(void);

extern uint64 eros_governor_wait_ns(ErosWorker *worker, int phase);
extern void eros_governor_start(ErosWorker *worker);
extern void eros_governor_begin(void);
extern void
eros_governor_rescale(ErosWorker *worker, int phase, double old_percent, double new_percent);
extern uint64 eros_governor_uncharged_ns(void);
extern void eros_governor_charge(ErosWorker *worker, const ErosPhase *phase);
extern uint64 eros_governor_charge_upkeep(void);
extern void eros_governor_count_throttled(const ErosPhase *phase, uint64 ns);
extern int eros_governor_batch_size(const ErosPhase *phase, const ErosHandler *handler);
extern void eros_governor_learn(const ErosHandler *handler, int nusers, uint64 cpu_ns);
extern void eros_governor_charge_cap(uint64 now);
extern void eros_governor_feel_contention(ErosWorker *worker);
extern bool eros_governor_yields(void);
extern uint64 eros_governor_quantum_ns(void);
extern double eros_governor_cores(void);

extern void eros_pace_install(ErosWorker *worker);
extern void eros_pace_begin(const ErosPhase *phase);
extern void eros_pace_end(void);

extern bool
eros_error_note(ErosProcess process, const ErosHandler *handler, bool own, const ErrorData *error);
extern bool
eros_error_note_message(ErosProcess process, int32 handler_id, int sqlstate, const char *message);
extern void eros_error_report(ErosProcess process);

/* What a scheduler remembers between two sweeps. */
typedef struct ErosSweep ErosSweep;

extern ErosSweep *eros_sweep_create(void);
extern bool eros_sweep_step(ErosSweep *sweep, TimestampTz now, int limit, uint64 *crossings);
extern bool eros_sweep_refresh(ErosSweep *sweep, TimestampTz now);
extern bool eros_sweep_backfill(ErosSweep *sweep, TimestampTz now);
extern void eros_sweep_config_changed(ErosSweep *sweep);
extern void eros_sweep_restart(ErosSweep *sweep);
extern void eros_sweep_set_back(ErosSweep *sweep, TimestampTz now);
extern void eros_sweep_rehome(void);
extern TimestampTz eros_sweep_next(ErosSweep *sweep, TimestampTz now);
extern bool eros_sweep_sees_returns(ErosSweep *sweep);
extern TimestampTz eros_sweep_next_without_us(ErosSweep *sweep, TimestampTz now);
extern void eros_sweep_keep_progress(ErosSweep *sweep);
extern void eros_sweep_take_progress(ErosSweep *sweep);
extern int64 eros_sweep_interval_us(void);
extern void eros_sweep_recount(void);
extern int64 eros_sweep_restore(const ErosIdleUser *users, int nusers, TimestampTz now);

extern void eros_snapshot_refresh(TimestampTz now);
extern void eros_snapshot_restore(void);

extern void eros_crash_watch(void);
extern void eros_crash_install(int slot);
extern void eros_crash_mark(const ErosHandler *handler, const ErosKey *keys, int nkeys);
extern void eros_crash_unmark(void);
extern void eros_crash_recover(void);

extern void eros_history_begin(void);
extern void eros_history_sample(TimestampTz now, TimestampTz *next);

extern void eros_latency_count(ErosLatency *latency, uint64 ns);
extern double eros_latency_percentile_ms(ErosLatency *latency, double part);
extern void eros_latency_note(ErosDatabase *db, ErosOperation operation, uint64 ns);
struct List;
extern struct List *eros_owners_before_utility(struct Node *stmt);
extern void eros_owners_after_utility(struct Node *stmt, struct List *roles);

extern void eros_launcher_register(void);
extern void eros_launcher_install_hooks(void);
extern void eros_launcher_wake(void);
extern void eros_launcher_note_no_slot(ErosDatabase *db);
extern bool eros_launcher_is_waited_for(ErosDatabase *db);
extern void eros_process_init(Oid dboid, const char *name);

/* What EROS's processes wait for, by name in pg_stat_activity since 17. */
typedef enum ErosWait
{
	EROS_WAIT_MAIN = 0,		 /* the launcher, a scheduler: until something is due */
	EROS_WAIT_JOBS,			 /* a worker: for jobs */
	EROS_WAIT_PAUSE,		 /* ... until the share allows the next batch */
	EROS_WAIT_PAUSE_IN_CALL, /* ... or more of this one */
	EROS_WAIT_COUNT
} ErosWait;

extern uint32 eros_wait_events[EROS_WAIT_COUNT];
extern bool eros_process_wait(ErosWait wait, long timeout_ms);
extern void eros_process_begin(void);
extern void eros_process_commit(void);
extern void eros_process_reload(void);

extern PGDLLEXPORT void eros_launcher_main(Datum arg);
extern PGDLLEXPORT void eros_scheduler_main(Datum arg);
extern PGDLLEXPORT void eros_worker_main(Datum arg);
extern PGDLLEXPORT void eros_cron_main(Datum arg);

#endif /* EROS_H */
