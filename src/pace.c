/*-------------------------------------------------------------------------
 *
 * pace.c
 *		Pacing inside a handler's call, and what else must happen during one.
 *
 * A batch is meant to take one quantum, and the pause that pays for it comes
 * after its commit.  A call that takes longer is paced inside: it pauses at
 * safe points, each time it has used another slice.
 *
 * The safe points are those where the server itself serves interrupts:
 * CHECK_FOR_INTERRUPTS() outside of critical sections and held-off sections,
 * where no LWLock is held.  They are in executor nodes, PL/pgSQL statements,
 * sorts, hashes, planning and utility commands, so they cover what wrapping
 * ExecProcNode and PL/pgSQL's plugin would, and what escapes those two.
 *
 * To get control there: a timer ticks during a call.  When a slice is used up
 * the tick sets LogMemoryContextPending, the request that
 * pg_log_backend_memory_contexts() makes.  ProcessInterrupts() then reports
 * "logging memory contexts" to the server log, and emit_log_hook sees that
 * report: it is dropped with all its lines, and the worker pauses there.
 * The lines would cost more than all else: log_min_messages is at FATAL until
 * the report comes to a memory context of ours, which is among the last, and
 * whose statistics put it back.  A genuine request is passed on, for then no
 * slice is used up.
 *
 * Nothing may be thrown inside the hook.  The pause ends when an interrupt is
 * pending, and the next safe point serves it.
 *
 * The tick has more duties.  A call that does not yield to a halt within
 * eros.halt_timeout has its process terminated.  Every so often the tick looks
 * whether anybody waits for a lock or for a buffer pin, and if so, the worker
 * looks at the next safe point whether it is for one that it holds.  Then it
 * halts itself: its batch is rolled back and runs later.
 *
 * Before PostgreSQL 14 there is no such request to borrow: a long call is then
 * paid for after its end only.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "eros.h"
#include "fmgr.h"
#include "jit/jit.h"
#include "miscadmin.h"
#include "nodes/memnodes.h"
#include "optimizer/planner.h"
#include "pgstat.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/elog.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timeout.h"

/* The timer's period. */
#define TICK_MS 5

/* A call beyond its quantum pauses whenever it has used so much: a little less than a tick. */
#define SLICE_NS UINT64CONST(4000000)

/* Shorter pauses are put off. */
#define MIN_PAUSE_NS UINT64CONST(50000)

/* How often the worker looks whether somebody waits for it, and how long it waits for a CPU. */
#define LOOK_FOR_WAITERS_NS UINT64CONST(100000000)
#define FEEL_CONTENTION_NS UINT64CONST(25000000)

/* Looks in a row that must find somebody waiting for a buffer pin. */
#define PIN_LOOKS 10

static TimeoutId tick_timeout = MAX_TIMEOUTS;
static emit_log_hook_type prev_emit_log_hook = NULL;
static planner_hook_type prev_planner_hook = NULL;
static ProcessUtility_hook_type prev_process_utility = NULL;
static MemoryContext waiters_context = NULL;
static MemoryContextMethods sentinel_methods;
static const MemoryContextMethods *allocset_methods = NULL;

static ErosWorker *worker = NULL;
static const ErosPhase *phase = NULL;

static volatile bool pacing = false;
static volatile bool point_wanted = false; /* the next safe point is ours */
static volatile bool at_point = false;	   /* we are at it: ticks ask for no other */
static bool dropping = false;			   /* the report under way is ours */
static volatile bool quantum_used = false;
static volatile bool waiters_seen = false; /* somebody waits for a lock or a pin, of whomever */
static volatile uint64 looked_at_ns = 0;
static volatile uint64 felt_at_ns = 0;
static volatile bool genuine = false; /* somebody has really asked for a report */
static volatile int save_log_min_messages = -1;

/*
 * What a call may use before its next pause.  Batches are sized to take a
 * quantum, and many take a little more: only what takes twice as much is paced
 * inside, where a pause holds a snapshot and the users.
 */
static uint64
allowance_ns(void)
{
	return quantum_used ? SLICE_NS : 2 * eros_governor_quantum_ns();
}

/* Lets messages through again after a report of ours. */
static void
restore_log_min_messages(void)
{
	int saved = save_log_min_messages; /* a tick may come in between */

	if (saved >= 0)
	{
		log_min_messages = saved;
		save_log_min_messages = -1;
	}
}

/* The statistics of our memory context: a report comes to its end. */
static void
report_ends(EROS_STATS_ARGS)
{
	restore_log_min_messages();
	allocset_methods->stats(EROS_STATS_CALL);
}

/* Asks for the report that was put off. */
static void
ask_for_genuine_report(void)
{
	if (genuine)
	{
		genuine = false;
		eros_request_safe_point();
	}
}

/* Tells whether anybody waits for a lock or a buffer pin; looks without a lock. */
static bool
anybody_waits(void)
{
	for (uint32 i = 0; i < ProcGlobal->allProcCount; i++)
	{
		volatile PGPROC *proc = &ProcGlobal->allProcs[i];

		if (proc->waitLock != NULL || EROS_IS_WAIT_FOR_PIN(proc->wait_event_info))
			return true;
	}
	return false;
}

/* Does what is to be done every so often; tells whether a safe point is needed. */
static bool
look_around(uint64 now)
{
	if (now - felt_at_ns >= FEEL_CONTENTION_NS)
	{
		felt_at_ns = now;
		eros_governor_feel_contention(worker); /* which lowers the allowance */
	}
	if (now - looked_at_ns >= LOOK_FOR_WAITERS_NS)
	{
		looked_at_ns = now;
		waiters_seen = anybody_waits();
	}
	return waiters_seen || eros_governor_uncharged_ns() >= allowance_ns();
}

/*
 * The tick, in a signal handler: asks for a safe point when there is something
 * to do at one.
 */
static void
tick(void)
{
	uint64 now;

	if (!pacing)
		return;
	eros_continue_ticks(tick_timeout, TICK_MS);
	if (at_point)
		return;
	if (genuine || save_log_min_messages >= 0)
	{
		restore_log_min_messages(); /* an error has ended the report */
		ask_for_genuine_report();
		return;
	}
	now = eros_monotonic_ns();
	eros_governor_charge_cap(now);
	if (eros_halt_is_overdue(worker, now) || eros_handler_is_overdue(now))
	{
		InterruptPending = true;
		ProcDiePending = true;
		return;
	}
	if (look_around(now))
	{
		/* also when the last request was served without our seeing it */
		point_wanted = true;
		eros_request_safe_point();
	}
}

/* Tells whether a process waits for a lock that this process holds. */
static bool
blocks(int pid)
{
	ArrayType *blockers =
		DatumGetArrayTypeP(DirectFunctionCall1(pg_blocking_pids, Int32GetDatum(pid)));
	int32 *pids = (int32 *) ARR_DATA_PTR(blockers);
	int n = ArrayGetNItems(ARR_NDIM(blockers), ARR_DIMS(blockers));

	for (int i = 0; i < n; i++)
	{
		if (pids[i] == MyProcPid)
			return true;
	}
	return false;
}

/*
 * Tells whether this process has a lock of this name, as it knows itself.  Of
 * its virtual transaction, which others wait for until snapshots are gone, the
 * lock manager keeps no local record.
 */
static bool
holds(const LOCKTAG *tag)
{
	if (tag->locktag_type == LOCKTAG_VIRTUALTRANSACTION)
		return tag->locktag_field1 == (uint32) EROS_MY_PROC_NUMBER &&
			   tag->locktag_field2 == EROS_MY_LXID;
	for (LOCKMODE mode = AccessShareLock; mode <= AccessExclusiveLock; mode++)
	{
		if (eros_lock_held_by_me(tag, mode))
			return true;
	}
	return false;
}

/* Tells whether a process is a worker of EROS: halting for each other, two would never end. */
static bool
is_worker(int pid)
{
	for (int i = 0; i < eros_max_workers; i++)
	{
		if (eros_workers_array[i].pid == pid)
			return true;
	}
	return false;
}

/*
 * Tells whether anybody waits for a lock that this process holds, or for one
 * that it waits for itself, ahead of him.
 */
static bool
holds_what_is_waited_for(void)
{
	bool found = false;

	for (uint32 i = 0; i < ProcGlobal->allProcCount && !found; i++)
	{
		PGPROC *proc = &ProcGlobal->allProcs[i];
		const LOCK *lock = *(LOCK *volatile *) &proc->waitLock;
		LOCKTAG tag;

		/* a look without a lock, to trouble the lock manager only where it may be us */
		if (lock == NULL || proc == MyProc)
			continue;
		tag = lock->tag;
		found =
			(lock == MyProc->waitLock || holds(&tag)) && !is_worker(proc->pid) && blocks(proc->pid);
	}
	return found;
}

/* Tells whether a process has a lock on a relation on which this process has one. */
static bool
shares_a_relation(int pid, const LockData *locks)
{
	for (int i = 0; i < locks->nelements; i++)
	{
		const LockInstanceData *lock = &locks->locks[i];

		if (lock->pid == pid && lock->holdMask != 0 &&
			lock->locktag.locktag_type == LOCKTAG_RELATION && holds(&lock->locktag))
			return true;
	}
	return false;
}

/*
 * Tells whether it may be for this process that a VACUUM waits for a buffer pin.
 * Whose pin it waits for is not to be found out; that it waits for a while, and
 * that both use the same table, must do.
 */
static bool
delays_pin_waiter(void)
{
	static int looks = 0;
	LockData *locks = NULL;
	bool waits = false;

	for (uint32 i = 0; i < ProcGlobal->allProcCount; i++)
	{
		volatile PGPROC *proc = &ProcGlobal->allProcs[i];

		if (proc->databaseId != MyDatabaseId || !EROS_IS_WAIT_FOR_PIN(proc->wait_event_info))
			continue;
		waits = true;
		if (looks < PIN_LOOKS)
			break;
		if (locks == NULL)
			locks = GetLockStatusData();
		if (shares_a_relation(proc->pid, locks))
		{
			looks = 0;
			return true;
		}
	}
	looks = waits && looks < PIN_LOOKS ? looks + 1 : 0;
	return false;
}

/* Halts this batch if somebody waits for what it holds. */
static void
give_way(void)
{
	MemoryContext old = MemoryContextSwitchTo(waiters_context);

	waiters_seen = false;
	if (holds_what_is_waited_for() || delays_pin_waiter())
		eros_halt_myself(worker, EROS_HALT_WAITER);
	MemoryContextSwitchTo(old);
	MemoryContextReset(waiters_context);
}

/* Tells whether something is to be served that a pause must not keep waiting. */
static bool
pause_must_end(void)
{
	return QueryCancelPending || ProcDiePending || ProcSignalBarrierPending;
}

/* Sleeps off what the call owes; interrupts end it, and are served elsewhere. */
static void
pause_call(void)
{
	uint64 start = eros_monotonic_ns();
	bool woken = false;

	while (!pause_must_end())
	{
		uint64 wait_ns = eros_governor_wait_ns(worker, phase->phase);

		if (wait_ns < MIN_PAUSE_NS)
			break;
		pg_atomic_write_u32(&worker->activity, EROS_WORKER_PAUSING_IN_CALL);
		if (wait_ns < UINT64CONST(1000000))
			pg_usleep((long) (wait_ns / 1000)); /* a latch waits for whole milliseconds */
		else if (WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						   (long) (Min(wait_ns, LOOK_FOR_WAITERS_NS) / 1000000),
						   eros_wait_events[EROS_WAIT_PAUSE_IN_CALL]) &
				 WL_LATCH_SET)
		{
			ResetLatch(MyLatch);
			woken = true;
		}
		if (eros_monotonic_ns() - looked_at_ns < LOOK_FOR_WAITERS_NS)
			continue;
		looked_at_ns = eros_monotonic_ns();
		if (eros_governor_yields())
			eros_governor_feel_contention(worker);
		if (anybody_waits())
			give_way();
	}
	if (woken)
		SetLatch(MyLatch); /* whoever waits for it in the call finds it set */
	pg_atomic_write_u32(&worker->activity, EROS_WORKER_COMPUTING);
	eros_governor_count_throttled(phase, eros_monotonic_ns() - start);
}

/* A safe point: does what the tick asked for. */
static void
at_safe_point(void)
{
	if (waiters_seen)
		give_way();
	if (eros_governor_uncharged_ns() >= allowance_ns())
	{
		/* it would charge the same again, wake us, and cost more than a small share is worth */
		disable_timeout(tick_timeout, false);
		quantum_used = true;
		eros_governor_charge(worker, phase);
		pause_call();
		eros_enable_ticks(tick_timeout, TICK_MS);
	}
}

/* The hook: recognizes the report that the tick has asked for. */
static void
catch_report(ErrorData *edata)
{
	bool from_report = edata->elevel == LOG_SERVER_ONLY && edata->filename != NULL &&
					   strcmp(edata->filename, "mcxt.c") == 0 && edata->message_id != NULL;
	bool is_head =
		from_report && strcmp(edata->message_id, "logging memory contexts of PID %d") == 0;

	if (is_head)
		dropping = point_wanted;
	if (from_report && dropping)
		edata->output_to_server = false;
	if (is_head && dropping)
	{
		/* a tick may have asked again since the request was taken up */
		at_point = true;
		point_wanted = false;
		eros_withdraw_safe_point();
		if (pacing)
			at_safe_point();

		/*
		 * A request that came meanwhile is a tick's, and has been served, or a
		 * genuine one, and is put off until it can be answered.  The tick sets
		 * point_wanted first.
		 */
		if (eros_safe_point_requested())
		{
			eros_withdraw_safe_point();
			genuine = !point_wanted;
			point_wanted = false;
		}
		save_log_min_messages = log_min_messages;
		log_min_messages = FATAL;
		at_point = false;
	}
	if (edata->output_to_server && prev_emit_log_hook)
		prev_emit_log_hook(edata);
}

/*
 * Plans without parallel workers, which would escape the meter, and without
 * compiling (JIT), which cannot be interrupted, whatever the settings are.
 */
static PlannedStmt *
plan_serially(Query *parse, const char *query_string, int cursor_options, ParamListInfo params)
{
	planner_hook_type next = prev_planner_hook ? prev_planner_hook : standard_planner;

	PlannedStmt *plan;

	plan = next(parse, query_string, cursor_options & ~CURSOR_OPT_PARALLEL_OK, params);
	plan->jitFlags = PGJIT_NONE;
	return plan;
}

/* Has utility commands build indexes in this process alone, whatever the settings of a function. */
static void
run_utility_serially(EROS_UTILITY_ARGS)
{
	max_parallel_maintenance_workers = 0;
	if (prev_process_utility)
		prev_process_utility(EROS_UTILITY_CALL);
	else
		standard_ProcessUtility(EROS_UTILITY_CALL);
}

/* Makes a memory context that tells when a report of all of them comes to its end. */
static void
make_sentinel(void)
{
	MemoryContext sentinel =
		AllocSetContextCreate(TopMemoryContext, "eros report", ALLOCSET_SMALL_SIZES);

	allocset_methods = sentinel->methods;
	sentinel_methods = *allocset_methods;
	sentinel_methods.stats = report_ends;
	sentinel->methods = &sentinel_methods;
}

/* Makes this process one whose calls are paced. */
void
eros_pace_install(ErosWorker *my_worker)
{
	worker = my_worker;
	make_sentinel();
	waiters_context =
		AllocSetContextCreate(TopMemoryContext, "eros lock waiters", ALLOCSET_SMALL_SIZES);
	tick_timeout = RegisterTimeout(USER_TIMEOUT, tick);
	prev_emit_log_hook = emit_log_hook;
	emit_log_hook = catch_report;
	prev_planner_hook = planner_hook;
	planner_hook = plan_serially;
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = run_utility_serially;
}

/* Begins to pace a call. */
void
eros_pace_begin(const ErosPhase *my_phase)
{
	/* a pause needs messages of this level to be made */
	if (log_min_messages > ERROR)
		SetConfigOption("log_min_messages", "log", PGC_SUSET, PGC_S_OVERRIDE);
	phase = my_phase;
	point_wanted = at_point = false;
	quantum_used = false;
	waiters_seen = false;
	looked_at_ns = felt_at_ns = eros_monotonic_ns();
	pacing = true;
	eros_enable_ticks(tick_timeout, TICK_MS);
}

/* Ends it, also after an error, which has disabled the timer. */
void
eros_pace_end(void)
{
	pacing = false;
	if (tick_timeout != MAX_TIMEOUTS && get_timeout_active(tick_timeout))
		disable_timeout(tick_timeout, false);
	if (point_wanted)
	{
		point_wanted = false;
		eros_withdraw_safe_point();
	}
	restore_log_min_messages();
	ask_for_genuine_report();
}
