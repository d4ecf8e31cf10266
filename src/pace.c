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
 * Until the next tick log_min_messages is at PANIC, so that the lines cost next
 * to nothing.  A genuine request is passed on, for then no slice is used up.
 *
 * Nothing may be thrown inside the hook.  The pause ends when an interrupt is
 * pending, and the next safe point serves it.
 *
 * The tick has two more duties.  A call that does not yield to a halt within
 * eros.halt_timeout has its process terminated.  And every so often the worker
 * looks whether somebody waits for a lock that it holds; if so, it halts
 * itself: its batch is rolled back and runs later.
 *
 * Before PostgreSQL 14 there is no such request to borrow: a long call is then
 * paid for after its end only.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "eros.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "optimizer/planner.h"
#include "pgstat.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/elog.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timeout.h"

/* The timer's period. */
#define TICK_MS 5

/* A call beyond its quantum pauses whenever it has used so much; a tick's worth, but for a little. */
#define SLICE_NS UINT64CONST(4000000)

/* Shorter pauses are put off. */
#define MIN_PAUSE_NS UINT64CONST(50000)

/* How often the worker looks whether somebody waits for its locks, and for a CPU. */
#define LOOK_FOR_WAITERS_NS UINT64CONST(100000000)
#define FEEL_CONTENTION_NS UINT64CONST(25000000)

static TimeoutId tick_timeout = MAX_TIMEOUTS;
static emit_log_hook_type prev_emit_log_hook = NULL;
static planner_hook_type prev_planner_hook = NULL;
static MemoryContext waiters_context = NULL;

static ErosWorker *worker = NULL;
static const ErosPhase *phase = NULL;

static volatile bool pacing = false;
static volatile bool point_wanted = false; /* the next safe point is ours */
static bool dropping = false;			   /* the report under way is ours */
static volatile bool quantum_used = false;
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

/* Lets messages through again after a safe point. */
static void
restore_log_min_messages(void)
{
	if (save_log_min_messages >= 0)
	{
		log_min_messages = save_log_min_messages;
		save_log_min_messages = -1;
	}
	if (genuine)
	{
		genuine = false;
		eros_request_safe_point();
	}
}

/*
 * The tick, in a signal handler: asks for a safe point when there is something
 * to do at one.
 */
static void
tick(void)
{
	uint64 now;

	if (genuine || save_log_min_messages >= 0)
	{
		restore_log_min_messages();
		return;
	}
	if (!pacing)
		return;
	now = eros_monotonic_ns();
	eros_governor_charge_cap(now);
	if (eros_halt_is_overdue(worker, now) || eros_handler_is_overdue(now))
	{
		InterruptPending = true;
		ProcDiePending = true;
		return;
	}
	if (eros_governor_uncharged_ns() < allowance_ns() && now - looked_at_ns < LOOK_FOR_WAITERS_NS &&
		now - felt_at_ns < FEEL_CONTENTION_NS)
		return;

	/* also when the last request was served without our seeing it */
	point_wanted = true;
	eros_request_safe_point();
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

/* Tells whether anybody waits for a lock that this process holds. */
static bool
is_waited_for(void)
{
	MemoryContext old = MemoryContextSwitchTo(waiters_context);
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
		found = holds(&tag) && blocks(proc->pid);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(waiters_context);
	return found;
}

/* Halts this batch if somebody waits for it; looks every so often only. */
static void
give_way(void)
{
	uint64 now = eros_monotonic_ns();

	if (now - looked_at_ns < LOOK_FOR_WAITERS_NS)
		return;
	looked_at_ns = now;
	if (is_waited_for())
		eros_halt_myself(worker, EROS_HALT_WAITER);
}

/* Sleeps off what the call owes; interrupts end it, and are served elsewhere. */
static void
pause_call(void)
{
	uint64 start = eros_monotonic_ns();
	bool woken = false;
	uint64 wait_ns;

	for (;;)
	{
		wait_ns = eros_governor_wait_ns(worker, phase->phase);
		if (wait_ns < MIN_PAUSE_NS || QueryCancelPending || ProcDiePending)
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
	give_way();
	felt_at_ns = eros_monotonic_ns();
	eros_governor_feel_contention(worker); /* which lowers the allowance */
	if (eros_governor_uncharged_ns() >= allowance_ns())
	{
		/* the timer would charge the same again, wake us, and cost more than a small share is worth */
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
		point_wanted = false;
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
		log_min_messages = PANIC;
	}
	if (edata->output_to_server && prev_emit_log_hook)
		prev_emit_log_hook(edata);
}

/* Plans without parallel workers, which would escape the meter, whatever the settings are. */
static PlannedStmt *
plan_serially(Query *parse, const char *query_string, int cursor_options, ParamListInfo params)
{
	planner_hook_type next = prev_planner_hook ? prev_planner_hook : standard_planner;

	return next(parse, query_string, cursor_options & ~CURSOR_OPT_PARALLEL_OK, params);
}

/* Makes this process one whose calls are paced. */
void
eros_pace_install(ErosWorker *my_worker)
{
	worker = my_worker;
	waiters_context =
		AllocSetContextCreate(TopMemoryContext, "eros lock waiters", ALLOCSET_SMALL_SIZES);
	tick_timeout = RegisterTimeout(USER_TIMEOUT, tick);
	prev_emit_log_hook = emit_log_hook;
	emit_log_hook = catch_report;
	prev_planner_hook = planner_hook;
	planner_hook = plan_serially;
}

/* Begins to pace a call. */
void
eros_pace_begin(const ErosPhase *my_phase)
{
	phase = my_phase;
	point_wanted = false;
	quantum_used = false;
	looked_at_ns = felt_at_ns = eros_monotonic_ns();
	pacing = true;
	eros_enable_ticks(tick_timeout, TICK_MS);
}

/* Ends it, also after an error, which has disabled the timer. */
void
eros_pace_end(void)
{
	pacing = false;
	if (get_timeout_active(tick_timeout))
		disable_timeout(tick_timeout, false);
	if (point_wanted)
	{
		point_wanted = false;
		eros_withdraw_safe_point();
	}
	restore_log_min_messages();
}
