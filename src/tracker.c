/*-------------------------------------------------------------------------
 *
 * tracker.c
 *		The active users, in shared memory, and eros_touch().
 *
 * A touch is a store, not a write: the hot path finds the user's slot and
 * stamps the time, without a lock, a row or a snapshot.
 *
 * The map is an open-addressing hash table of 32-byte slots, cut by the top
 * bits of the hash into partitions.  A partition begins small and doubles in
 * place, up to its reserved room; the memory behind is not touched before, so
 * that the map takes memory as it fills.  When most of its users have left, it
 * becomes smaller again.
 *
 * Protocol of a partition:
 *
 *	- Its LWLock guards its structure.  Exclusive: insert, remove, resize.
 *	- "version" is odd while slots move (remove, resize).  Inserts move nothing
 *	  and leave it alone: they write the key first and publish it by "state".
 *	- A touch reads the version, probes, and stamps last_seen by
 *	  compare-and-swap.  When the version has changed meanwhile, or is odd, it
 *	  does it again under the lock.  The mover raises the version before it
 *	  reads last_seen, the touch reads the version after it wrote last_seen: with
 *	  the full barriers that compare-and-swap and pg_memory_barrier() give, at
 *	  least one of them sees the other, so no touch is lost.
 *
 * A slot's state says, besides whether it is used:
 *
 *	- SWEPT: the sweep has read the user as idle and is writing his row and
 *	  jobs.  Such a user counts as idle.  The sweep marks first and reads
 *	  last_seen again after; a touch stamps first and reads the mark after,
 *	  takes it away and halts whoever works on the user.  After its commit the
 *	  sweep removes the slots that still have the mark.
 *	- RETURNED: the user came anew; his row and jobs, if there are any, are to
 *	  be deleted.  Cleared by the sweep that has done so.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "eros.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(eros_touch_bigint);
PG_FUNCTION_INFO_V1(eros_touch_uuid);
PG_FUNCTION_INFO_V1(eros_touch_text);
PG_FUNCTION_INFO_V1(eros_touch_bigint_array);
PG_FUNCTION_INFO_V1(eros_touch_uuid_array);

#define PARTITION_BITS 8
#define NPARTITIONS (1 << PARTITION_BITS)
#define MIN_SLOT_BITS 5

/* Where the map is kept while the server is down; the version is in the magic. */
#define SAVE_FILE PGSTAT_STAT_PERMANENT_DIRECTORY "/eros.active"
#define SAVE_MAGIC 0x45524F31

#define SLOT_USED 1
#define SLOT_SWEPT 2
#define SLOT_RETURNED 4

typedef struct TrackerSlot
{
	ErosKey key;
	pg_atomic_uint64 last_seen;
	Oid dboid;
	pg_atomic_uint32 state;
} TrackerSlot;

typedef struct TrackerPartition
{
	LWLock lock;
	pg_atomic_uint32 version;
	pg_atomic_uint32 returned; /* slots marked so */
	uint32 slot_bits;		   /* log2 of its slots */
	uint32 used;
	uint32 high_water_bits; /* memory once touched */
} TrackerPartition;

/* Partitions do not share cache lines. */
typedef union TrackerPartitionPadded
{
	TrackerPartition p;
	char pad[PG_CACHE_LINE_SIZE];
} TrackerPartitionPadded;

typedef struct TrackerHeader
{
	uint64 seed;
	uint32 max_slot_bits;
	int tranche;
} TrackerHeader;

static TrackerHeader *header = NULL;
static TrackerPartitionPadded *partitions = NULL;
static TrackerSlot *all_slots = NULL;

static void load_map(void);
static void save_map(int code, Datum arg);

/* The log2 of the slots that a partition may grow to, by the setting. */
static uint32
max_slot_bits(void)
{
	uint64 per_partition =
		(uint64) eros_tracker_memory_kb * 1024 / sizeof(TrackerSlot) / NPARTITIONS;
	uint32 bits = MIN_SLOT_BITS;

	while (bits < 26 && ((uint64) 2 << bits) <= per_partition)
		bits++;
	return bits;
}

/* The shared memory to reserve. */
Size
eros_tracker_shmem_size(void)
{
	Size size = MAXALIGN(sizeof(TrackerHeader)) + PG_CACHE_LINE_SIZE;

	size = add_size(size, mul_size(NPARTITIONS, sizeof(TrackerPartitionPadded)));
	return add_size(size, mul_size((Size) NPARTITIONS << max_slot_bits(), sizeof(TrackerSlot)));
}

/* Sets the map up, or attaches to it; the slots' memory is not touched. */
void
eros_tracker_shmem_init(void)
{
	bool found;
	char *memory = ShmemInitStruct("eros active users", eros_tracker_shmem_size(), &found);

	header = (TrackerHeader *) memory;
	memory = (char *) TYPEALIGN(PG_CACHE_LINE_SIZE, memory + sizeof(TrackerHeader));
	partitions = (TrackerPartitionPadded *) memory;
	all_slots = (TrackerSlot *) (memory + sizeof(TrackerPartitionPadded) * NPARTITIONS);
	if (!found)
	{
		if (!pg_strong_random(&header->seed, sizeof(header->seed)))
			header->seed = (uint64) GetCurrentTimestamp();
		header->max_slot_bits = max_slot_bits();
		header->tranche = LWLockNewTrancheId();
		for (int i = 0; i < NPARTITIONS; i++)
		{
			TrackerPartition *part = &partitions[i].p;

			LWLockInitialize(&part->lock, header->tranche);
			pg_atomic_init_u32(&part->version, 0);
			pg_atomic_init_u32(&part->returned, 0);
			part->slot_bits = MIN_SLOT_BITS;
			part->high_water_bits = MIN_SLOT_BITS;
			part->used = 0;
			memset(&all_slots[(Size) i << header->max_slot_bits], 0,
				   sizeof(TrackerSlot) << MIN_SLOT_BITS);
		}
	}
	LWLockRegisterTranche(header->tranche, "eros_tracker");
	if (!found && !IsUnderPostmaster)
	{
		load_map();
		on_shmem_exit(save_map, (Datum) 0);
	}
}

/* ------------------------------------------------------------------------
 * Probing
 * ------------------------------------------------------------------------
 */

/* Mixes database and key; the seed keeps anybody from choosing collisions. */
static inline uint64
hash_key(Oid dboid, const ErosKey *key)
{
	uint64 h = header->seed ^ key->lo;

	h = (h ^ (h >> 32)) * UINT64CONST(0x9E3779B97F4A7C15);
	h = (h ^ (h >> 29) ^ key->hi) * UINT64CONST(0xBF58476D1CE4E5B9);
	h = (h ^ (h >> 32) ^ dboid) * UINT64CONST(0x94D049BB133111EB);
	return h ^ (h >> 31);
}

static inline int
partition_of(uint64 hash)
{
	return (int) (hash >> (64 - PARTITION_BITS));
}

static inline TrackerSlot *
slots_of(int partition)
{
	return all_slots + ((Size) partition << header->max_slot_bits);
}

/* Finds the user's slot among those of the partition, or NULL. */
static inline TrackerSlot *
probe(TrackerSlot *slots, uint32 slot_bits, uint64 hash, Oid dboid, const ErosKey *key)
{
	uint32 mask = ((uint32) 1 << slot_bits) - 1;
	uint32 at = (uint32) hash & mask;

	for (uint32 n = 0; n <= mask; n++)
	{
		TrackerSlot *slot = &slots[at];

		if (pg_atomic_read_u32(&slot->state) == 0)
			return NULL;
		pg_read_barrier();
		if (slot->key.lo == key->lo && slot->key.hi == key->hi && slot->dboid == dboid)
			return slot;
		at = (at + 1) & mask;
	}
	return NULL;
}

/* Writes a new user into the first free slot; the lock is held, there is room. */
static TrackerSlot *
place(TrackerSlot *slots, uint32 slot_bits, uint64 hash, Oid dboid, const ErosKey *key,
	  TimestampTz last_seen, uint32 state)
{
	uint32 mask = ((uint32) 1 << slot_bits) - 1;
	uint32 at = (uint32) hash & mask;
	TrackerSlot *slot;

	while (pg_atomic_read_u32(&slots[at].state) != 0)
		at = (at + 1) & mask;
	slot = &slots[at];
	slot->key = *key;
	slot->dboid = dboid;
	pg_atomic_write_u64(&slot->last_seen, (uint64) last_seen);
	pg_write_barrier();
	pg_atomic_write_u32(&slot->state, state);
	return slot;
}

/* Begins to move slots: touches that do not hold the lock will notice. */
static inline void
begin_move(TrackerPartition *part)
{
	pg_atomic_fetch_add_u32(&part->version, 1);
	pg_memory_barrier();
}

static inline void
end_move(TrackerPartition *part)
{
	pg_write_barrier();
	pg_atomic_fetch_add_u32(&part->version, 1);
}

/*
 * Gives a partition another number of slots; "spare" has room for its users.
 * The lock is held exclusively.
 */
static void
resize(int partition, uint32 slot_bits, TrackerSlot *spare)
{
	TrackerPartition *part = &partitions[partition].p;
	TrackerSlot *slots = slots_of(partition);
	uint32 nslots = (uint32) 1 << part->slot_bits;
	uint32 nused = 0;

	begin_move(part);
	for (uint32 i = 0; i < nslots; i++)
	{
		if (pg_atomic_read_u32(&slots[i].state) != 0)
			spare[nused++] = slots[i];
	}
	Assert(nused == part->used);
	part->slot_bits = slot_bits;
	part->high_water_bits = Max(part->high_water_bits, slot_bits);
	memset(slots, 0, sizeof(TrackerSlot) << slot_bits);
	for (uint32 i = 0; i < nused; i++)
		place(slots, slot_bits, hash_key(spare[i].dboid, &spare[i].key), spare[i].dboid,
			  &spare[i].key, (TimestampTz) pg_atomic_read_u64(&spare[i].last_seen),
			  pg_atomic_read_u32(&spare[i].state));
	end_move(part);
}

/*
 * Frees a slot, and moves those behind it up, so that probing needs no
 * tombstones.  The lock is held exclusively and the version is odd.
 */
static void
remove_slot(int partition, TrackerSlot *slot)
{
	TrackerPartition *part = &partitions[partition].p;
	TrackerSlot *slots = slots_of(partition);
	uint32 mask = ((uint32) 1 << part->slot_bits) - 1;
	uint32 hole = (uint32) (slot - slots);
	uint32 at = hole;

	if (pg_atomic_read_u32(&slot->state) & SLOT_RETURNED)
		pg_atomic_fetch_sub_u32(&part->returned, 1);
	for (;;)
	{
		uint32 home;

		at = (at + 1) & mask;
		if (pg_atomic_read_u32(&slots[at].state) == 0)
			break;
		home = (uint32) hash_key(slots[at].dboid, &slots[at].key) & mask;
		if (((at - home) & mask) < ((at - hole) & mask))
			continue; /* its home lies behind the hole */
		slots[hole] = slots[at];
		hole = at;
	}
	memset(&slots[hole], 0, sizeof(TrackerSlot));
	part->used--;
}

/* ------------------------------------------------------------------------
 * What touches and workers ask
 * ------------------------------------------------------------------------
 */

/*
 * Takes the sweep's mark away; returns whether it was there, that is, whether
 * the user counted as idle.
 */
static bool
unmark(TrackerPartition *part, TrackerSlot *slot)
{
	uint32 state = pg_atomic_read_u32(&slot->state);

	while (state & SLOT_SWEPT)
	{
		uint32 active = (state & ~SLOT_SWEPT) | SLOT_RETURNED;

		if (pg_atomic_compare_exchange_u32(&slot->state, &state, active))
		{
			if ((state & SLOT_RETURNED) == 0)
				pg_atomic_fetch_add_u32(&part->returned, 1);
			return true;
		}
	}
	return false;
}

/* Stamps a slot under the lock; returns whether the user counted as idle. */
static bool
stamp(TrackerPartition *part, TrackerSlot *slot, TimestampTz last_seen)
{
	pg_atomic_exchange_u64(&slot->last_seen, (uint64) last_seen);
	return unmark(part, slot);
}

/*
 * The hot path: stamps the user's slot without a lock.
 *
 * Returns false when it has to be done under the lock: the user is not there,
 * slots move, or the sweep has its mark on him.
 */
static inline bool
touch_fast(Oid dboid, const ErosKey *key, uint64 hash, TimestampTz now)
{
	int partition = partition_of(hash);
	TrackerPartition *part = &partitions[partition].p;
	uint32 version = pg_atomic_read_u32(&part->version);
	TrackerSlot *slot;
	uint64 seen;
	bool swept;

	if (version & 1)
		return false;
	pg_read_barrier();
	slot = probe(slots_of(partition), part->slot_bits, hash, dboid, key);
	if (slot == NULL)
		return false;
	seen = pg_atomic_read_u64(&slot->last_seen);
	pg_read_barrier();
	if (pg_atomic_read_u32(&part->version) != version)
		return false;

	/*
	 * Compare-and-swap, so that a slot that has been given to another user
	 * since is not stamped for him, unless both were seen at the very same
	 * microsecond, which then makes him a little more active than he is.  If
	 * somebody else has just stamped it, so much the better.
	 */
	pg_atomic_compare_exchange_u64(&slot->last_seen, &seen, (uint64) now);
	swept = (pg_atomic_read_u32(&slot->state) & SLOT_SWEPT) != 0;
	pg_read_barrier(); /* while the version stands, the mark is this user's */
	return !swept && pg_atomic_read_u32(&part->version) == version;
}

/* Tells whether a partition that cannot grow is three quarters full: time to make room. */
static bool
is_crowded(TrackerPartition *part)
{
	uint32 nslots = (uint32) 1 << part->slot_bits;

	return part->slot_bits == header->max_slot_bits && part->used >= nslots - nslots / 4;
}

/*
 * Makes a user active; returns false when there is no room for him.  Whoever is
 * there already is stamped, unless only the absent are meant.
 *
 * *returned tells whether he was not active before, so that somebody may be at
 * work on him; *crowded whether room should be made.
 */
static bool
enter(Oid dboid, const ErosKey *key, TimestampTz last_seen, bool only_absent, bool *returned,
	  bool *inserted, bool *crowded)
{
	uint64 hash = hash_key(dboid, key);
	int partition = partition_of(hash);
	TrackerPartition *part = &partitions[partition].p;
	TrackerSlot *slots = slots_of(partition);
	TrackerSlot *slot;
	TrackerSlot *spare = NULL;
	uint32 spare_bits = 0;
	bool room = true;

	*inserted = false;
	*crowded = false;
	for (;;)
	{
		uint32 nslots;

		LWLockAcquire(&part->lock, LW_EXCLUSIVE);
		slot = probe(slots, part->slot_bits, hash, dboid, key);
		if (slot != NULL)
		{
			*returned = !only_absent && stamp(part, slot, last_seen);
			break;
		}
		nslots = (uint32) 1 << part->slot_bits;
		if (part->used + 1 > nslots - nslots / 4 && part->slot_bits < header->max_slot_bits)
		{
			if (spare_bits != part->slot_bits)
			{
				/* allocate without the lock, then look at it all again */
				spare_bits = part->slot_bits;
				LWLockRelease(&part->lock);
				if (spare)
					pfree(spare);
				spare =
					MemoryContextAllocHuge(CurrentMemoryContext, sizeof(TrackerSlot) << spare_bits);
				continue;
			}
			resize(partition, part->slot_bits + 1, spare);
		}
		else if (part->used + 1 > nslots - nslots / 8)
		{
			*returned = false;
			*crowded = true;
			room = false;
			break;
		}
		place(slots, part->slot_bits, hash, dboid, key, last_seen, SLOT_USED | SLOT_RETURNED);
		part->used++;
		pg_atomic_fetch_add_u32(&part->returned, 1);
		*returned = true;
		*inserted = true;
		*crowded = is_crowded(part);
		break;
	}
	LWLockRelease(&part->lock);
	if (spare)
		pfree(spare);
	return room;
}

/* Makes a user active, as of now or of a time before; see above. */
bool
eros_tracker_enter(Oid dboid, const ErosKey *key, TimestampTz last_seen, bool *returned,
				   bool *inserted, bool *crowded)
{
	return enter(dboid, key, last_seen, false, returned, inserted, crowded);
}

/* Makes a user active as of a time before, unless he is there; false when there is no room. */
bool
eros_tracker_restore(Oid dboid, const ErosKey *key, TimestampTz last_seen)
{
	bool returned;
	bool inserted;
	bool crowded;

	return enter(dboid, key, last_seen, true, &returned, &inserted, &crowded);
}

/* Tells whether a user is active: in the map, and not being swept. */
bool
eros_tracker_is_active(Oid dboid, const ErosKey *key)
{
	uint64 hash = hash_key(dboid, key);
	int partition = partition_of(hash);
	TrackerPartition *part = &partitions[partition].p;
	TrackerSlot *slot;
	bool active;

	LWLockAcquire(&part->lock, LW_SHARED);
	slot = probe(slots_of(partition), part->slot_bits, hash, dboid, key);
	active = slot != NULL && (pg_atomic_read_u32(&slot->state) & SLOT_SWEPT) == 0;
	LWLockRelease(&part->lock);
	return active;
}

/* ------------------------------------------------------------------------
 * What the sweep asks
 * ------------------------------------------------------------------------
 */

int
eros_tracker_npartitions(void)
{
	return NPARTITIONS;
}

/* Tells whether the partition has users who came anew, of any database. */
bool
eros_tracker_has_returned(int partition)
{
	return pg_atomic_read_u32(&partitions[partition].p.returned) > 0;
}

/* Tells whether a partition has had many more users than it has now. */
static bool
is_sparse(const TrackerPartition *part)
{
	return part->slot_bits > MIN_SLOT_BITS && part->used < ((uint32) 1 << part->slot_bits) / 8;
}

/*
 * Makes a sparse partition smaller, so that a scan costs by the users that
 * there are, not by the most that there ever were.  At most three eighths are
 * used then: its users must double before it grows again.
 */
void
eros_tracker_trim(int partition)
{
	TrackerPartition *part = &partitions[partition].p;
	uint32 slot_bits = part->slot_bits;
	TrackerSlot *spare;

	if (!is_sparse(part))
		return;
	spare = palloc_extended((sizeof(TrackerSlot) << slot_bits) / 8,
							MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
	if (spare == NULL)
		return; /* it can wait */
	LWLockAcquire(&part->lock, LW_EXCLUSIVE);
	if (part->slot_bits == slot_bits && is_sparse(part))
	{
		slot_bits = MIN_SLOT_BITS;
		while (part->used > ((uint32) 3 << slot_bits) / 8)
			slot_bits++;
		resize(partition, slot_bits, spare);
	}
	LWLockRelease(&part->lock);
	pfree(spare);
}

/*
 * Looks through a partition for the idle users of a database, and marks them
 * as being swept; and for those who came anew.
 */
void
eros_tracker_scan(Oid dboid, int partition, ErosTrackerScan *scan)
{
	TrackerPartition *part = &partitions[partition].p;
	TrackerSlot *slots = slots_of(partition);
	uint32 nslots;

	scan->complete = true;
	scan->oldest = DT_NOEND;
	LWLockAcquire(&part->lock, LW_SHARED);
	nslots = (uint32) 1 << part->slot_bits;
	for (uint32 i = 0; i < nslots; i++)
	{
		TrackerSlot *slot = &slots[i];
		uint32 state = pg_atomic_read_u32(&slot->state);
		TimestampTz last_seen;

		if (state == 0)
			continue;
		pg_read_barrier();
		if (slot->dboid != dboid)
			continue;
		last_seen = (TimestampTz) pg_atomic_read_u64(&slot->last_seen);
		if (last_seen <= scan->idle_before)
		{
			if (scan->nidle == scan->max_idle)
			{
				scan->complete = false;
				break;
			}
			pg_atomic_fetch_or_u32(&slot->state, SLOT_SWEPT);
			if ((TimestampTz) pg_atomic_read_u64(&slot->last_seen) == last_seen)
			{
				scan->idle[scan->nidle].key = slot->key;
				scan->idle[scan->nidle].last_seen = last_seen;
				scan->idle[scan->nidle].returned = (state & SLOT_RETURNED) != 0;
				scan->nidle++;
				continue;
			}

			/* touched in between */
			unmark(part, slot);
			last_seen = (TimestampTz) pg_atomic_read_u64(&slot->last_seen);
		}
		scan->oldest = Min(scan->oldest, last_seen);
		if ((state & SLOT_RETURNED) && scan->returned != NULL)
		{
			if (scan->nreturned == scan->max_returned)
			{
				scan->complete = false;
				break;
			}
			scan->returned[scan->nreturned++] = slot->key;
		}
	}
	LWLockRelease(&part->lock);
}

/*
 * Copies the users of a partition who were seen after one time and up to
 * another, as many as there is room for; returns how many there are.
 */
int
eros_tracker_seen(Oid dboid, int partition, TimestampTz after, TimestampTz upto,
				  ErosIdleUser *users, int max)
{
	TrackerPartition *part = &partitions[partition].p;
	TrackerSlot *slots = slots_of(partition);
	int n = 0;

	if (part->used == 0)
		return 0;
	LWLockAcquire(&part->lock, LW_SHARED);
	for (uint32 i = 0; i < (uint32) 1 << part->slot_bits; i++)
	{
		TimestampTz last_seen;

		if (pg_atomic_read_u32(&slots[i].state) == 0)
			continue;
		pg_read_barrier();
		last_seen = (TimestampTz) pg_atomic_read_u64(&slots[i].last_seen);
		if (slots[i].dboid != dboid || last_seen <= after || last_seen > upto)
			continue;
		if (n < max)
		{
			users[n].key = slots[i].key;
			users[n].last_seen = last_seen;
			users[n].returned = false;
		}
		n++;
	}
	LWLockRelease(&part->lock);
	return n;
}

/*
 * Tells whether a partition is about to be full, and if so, up to which
 * last_seen the oldest fifth of its users lies.
 */
bool
eros_tracker_crowded(int partition, TimestampTz *oldest_fifth, Oid dboid)
{
	TrackerPartition *part = &partitions[partition].p;
	TrackerSlot *slots = slots_of(partition);
	TimestampTz first = DT_NOEND;
	TimestampTz last = DT_NOBEGIN;

	if (!is_crowded(part))
		return false;

	/* the users' times are taken as evenly spread, which is good enough */
	LWLockAcquire(&part->lock, LW_SHARED);
	for (uint32 i = 0; i < (uint32) 1 << part->slot_bits; i++)
	{
		TimestampTz last_seen;

		if (pg_atomic_read_u32(&slots[i].state) == 0 || slots[i].dboid != dboid)
			continue;
		last_seen = (TimestampTz) pg_atomic_read_u64(&slots[i].last_seen);
		first = Min(first, last_seen);
		last = Max(last, last_seen);
	}
	LWLockRelease(&part->lock);
	if (first > last)
		return false;
	*oldest_fifth = first + (last - first) / 5;
	return true;
}

/*
 * Ends the sweep of users: removes those who have not been touched since, or
 * takes the mark away.  Returns how many were removed.
 *
 * Scans collect users partition by partition, so each is locked once.
 * Allocates nothing: this runs where a transaction has just ended.
 */
static int
finish_sweep(Oid dboid, const ErosIdleUser *users, int nusers, bool remove)
{
	int removed = 0;
	int held = -1;

	for (int i = 0; i < nusers; i++)
	{
		uint64 hash = hash_key(dboid, &users[i].key);
		int partition = partition_of(hash);
		TrackerPartition *part = &partitions[partition].p;
		TrackerSlot *slot;

		if (partition != held)
		{
			if (held >= 0)
			{
				end_move(&partitions[held].p);
				LWLockRelease(&partitions[held].p.lock);
			}
			LWLockAcquire(&part->lock, LW_EXCLUSIVE);
			begin_move(part);
			held = partition;
		}
		slot = probe(slots_of(partition), part->slot_bits, hash, dboid, &users[i].key);
		if (slot == NULL || (pg_atomic_read_u32(&slot->state) & SLOT_SWEPT) == 0)
			continue;

		/*
		 * Who has been touched in between keeps the mark: the touch will take
		 * it away, and by it knows that it has to halt somebody.
		 */
		if (!remove)
			pg_atomic_fetch_and_u32(&slot->state, ~(uint32) SLOT_SWEPT);
		else if ((TimestampTz) pg_atomic_read_u64(&slot->last_seen) == users[i].last_seen)
		{
			remove_slot(partition, slot);
			removed++;
		}
	}
	if (held >= 0)
	{
		end_move(&partitions[held].p);
		LWLockRelease(&partitions[held].p.lock);
	}
	return removed;
}

/* Removes the swept users who have not been touched since; returns how many. */
int
eros_tracker_remove_swept(Oid dboid, const ErosIdleUser *users, int nusers)
{
	return finish_sweep(dboid, users, nusers, true);
}

/* Takes the sweep's mark away again: its transaction has failed. */
void
eros_tracker_unmark_swept(Oid dboid, const ErosIdleUser *users, int nusers)
{
	finish_sweep(dboid, users, nusers, false);
}

/* Notes that the rows and jobs of users who came anew have been deleted. */
void
eros_tracker_clear_returned(Oid dboid, const ErosKey *keys, int nkeys)
{
	for (int i = 0; i < nkeys; i++)
	{
		uint64 hash = hash_key(dboid, &keys[i]);
		int partition = partition_of(hash);
		TrackerPartition *part = &partitions[partition].p;
		TrackerSlot *slot;

		LWLockAcquire(&part->lock, LW_SHARED);
		slot = probe(slots_of(partition), part->slot_bits, hash, dboid, &keys[i]);
		if (slot != NULL &&
			(pg_atomic_fetch_and_u32(&slot->state, ~(uint32) SLOT_RETURNED) & SLOT_RETURNED))
			pg_atomic_fetch_sub_u32(&part->returned, 1);
		LWLockRelease(&part->lock);
	}
}

/* Removes all users of a database that is gone. */
void
eros_tracker_forget_database(Oid dboid)
{
	for (int partition = 0; partition < NPARTITIONS; partition++)
	{
		TrackerPartition *part = &partitions[partition].p;
		TrackerSlot *slots = slots_of(partition);
		uint32 at = 0;

		LWLockAcquire(&part->lock, LW_EXCLUSIVE);
		begin_move(part);
		while (part->used > 0 && at < (uint32) 1 << part->slot_bits)
		{
			/* a removal moves another slot here, so look at it again */
			if (pg_atomic_read_u32(&slots[at].state) != 0 && slots[at].dboid == dboid)
				remove_slot(partition, &slots[at]);
			else
				at++;
		}
		end_move(part);
		LWLockRelease(&part->lock);
	}
}

/* Counts the active users of a database. */
uint64
eros_tracker_count(Oid dboid)
{
	uint64 count = 0;

	for (int partition = 0; partition < NPARTITIONS; partition++)
	{
		TrackerPartition *part = &partitions[partition].p;
		TrackerSlot *slots = slots_of(partition);

		if (part->used == 0)
			continue;
		LWLockAcquire(&part->lock, LW_SHARED);
		for (uint32 i = 0; i < (uint32) 1 << part->slot_bits; i++)
		{
			if (pg_atomic_read_u32(&slots[i].state) != 0 && slots[i].dboid == dboid)
				count++;
		}
		LWLockRelease(&part->lock);
	}
	return count;
}

/* Tells whether a database has active users; ends at the first that it finds. */
bool
eros_tracker_has_users(Oid dboid)
{
	for (int partition = 0; partition < NPARTITIONS; partition++)
	{
		TrackerPartition *part = &partitions[partition].p;
		TrackerSlot *slots = slots_of(partition);
		bool found = false;

		if (part->used == 0)
			continue;
		LWLockAcquire(&part->lock, LW_SHARED);
		for (uint32 i = 0; i < (uint32) 1 << part->slot_bits && !found; i++)
			found = pg_atomic_read_u32(&slots[i].state) != 0 && slots[i].dboid == dboid;
		LWLockRelease(&part->lock);
		if (found)
			return true;
	}
	return false;
}

/* Tells the size of the map: all databases, without a lock. */
void
eros_tracker_size(ErosTrackerSize *size)
{
	Size per_partition = (Size) 1 << header->max_slot_bits;

	memset(size, 0, sizeof(*size));
	for (int i = 0; i < NPARTITIONS; i++)
	{
		size->users += partitions[i].p.used;
		size->bytes_used += sizeof(TrackerSlot) << partitions[i].p.high_water_bits;
	}
	size->bytes_used += sizeof(TrackerPartitionPadded) * NPARTITIONS;
	size->capacity = (per_partition - per_partition / 8) * NPARTITIONS;
	size->bytes_reserved = eros_tracker_shmem_size();
}

/* ------------------------------------------------------------------------
 * A clean restart
 *
 * The postmaster writes the map to a file when it shuts down, and reads it
 * when it starts; the file is removed then, so that after a crash no old one
 * is taken for the truth.  What goes wrong is logged and costs the users their
 * idle time, nothing else.
 * ------------------------------------------------------------------------
 */

/* Writes all slots that are used to the file; returns whether it could. */
static bool
write_slots(FILE *file)
{
	uint32 magic = SAVE_MAGIC;

	if (fwrite(&magic, sizeof(magic), 1, file) != 1)
		return false;
	for (int partition = 0; partition < NPARTITIONS; partition++)
	{
		TrackerSlot *slots = slots_of(partition);

		for (uint32 i = 0; i < (uint32) 1 << partitions[partition].p.slot_bits; i++)
		{
			if (pg_atomic_read_u32(&slots[i].state) != 0 &&
				fwrite(&slots[i], sizeof(TrackerSlot), 1, file) != 1)
				return false;
		}
	}
	return true;
}

/* Saves the map; called in the postmaster when the server has been shut down. */
static void
save_map(int code, Datum arg)
{
	FILE *file;
	bool written;

	if (code != 0)
		return;
	file = AllocateFile(SAVE_FILE ".tmp", PG_BINARY_W);
	if (file != NULL)
	{
		written = write_slots(file);
		if (FreeFile(file) == 0 && written)
		{
			(void) durable_rename(SAVE_FILE ".tmp", SAVE_FILE, LOG);
			return;
		}
	}
	ereport(LOG, (errcode_for_file_access(),
				  errmsg("could not write file \"%s\": %m", SAVE_FILE ".tmp")));
	unlink(SAVE_FILE ".tmp");
}

/* Fills the map from the file of the last shutdown. */
static void
load_map(void)
{
	FILE *file;
	TrackerSlot saved;
	uint32 magic = 0;
	uint64 nlost = 0;
	struct stat st;

	/* a standby: by its promotion, users have been active elsewhere, as the snapshot knows */
	if (stat(STANDBY_SIGNAL_FILE, &st) == 0 || stat(RECOVERY_SIGNAL_FILE, &st) == 0)
	{
		unlink(SAVE_FILE);
		return;
	}
	file = AllocateFile(SAVE_FILE, PG_BINARY_R);
	if (file == NULL)
	{
		if (errno != ENOENT)
			ereport(LOG, (errcode_for_file_access(),
						  errmsg("could not read file \"%s\": %m", SAVE_FILE)));
		return;
	}
	if (fread(&magic, sizeof(magic), 1, file) == 1 && magic == SAVE_MAGIC)
	{
		while (fread(&saved, sizeof(saved), 1, file) == 1)
		{
			bool returned;
			bool inserted;
			bool crowded;

			if (!eros_tracker_enter(saved.dboid, &saved.key,
									(TimestampTz) pg_atomic_read_u64(&saved.last_seen), &returned,
									&inserted, &crowded))
				nlost++;
		}
	}
	FreeFile(file);
	unlink(SAVE_FILE);
	if (nlost > 0)
		ereport(LOG, (errmsg(UINT64_FORMAT " active users did not fit into memory", nlost),
					  errhint("Raise eros.tracker_memory.")));
}

/* ------------------------------------------------------------------------
 * eros_touch
 * ------------------------------------------------------------------------
 */

/*
 * The map is full: the touch goes to the table.
 *
 * It is a row then, with all that follows: it takes part in the transaction,
 * and it cannot be written where the transaction is read-only.  The row has no
 * key, so that touches do not wait for each other; the sweep takes it over.  The
 * scheduler has been asked to make room, so that this does not go on for long.
 */
static void
touch_table(ErosDatabase *db, const ErosKey *key, TimestampTz now)
{
	Oid argtypes[] = {UUIDOID, TIMESTAMPTZOID};
	Datum values[] = {eros_key_get_datum(key), TimestampTzGetDatum(now)};
	ErosRoleScope scope;

	if (XactReadOnly || IsInParallelMode())
	{
		pg_atomic_fetch_add_u64(&db->touches_lost, 1);
		return;
	}

	eros_owner_begin(&scope);
	SPI_execute_with_args("INSERT INTO eros.spilled_touch (user_id, last_seen) VALUES ($1, $2)", 2,
						  argtypes, values, NULL, false, 0);
	eros_owner_end(&scope);
	eros_count_on_commit(&db->touches_spilled, 1); /* the sweep looks when this has changed */
}

/* A touch of somebody who was not active, or whose slot is on the move. */
static pg_noinline void
touch_slow(const ErosKey *key, TimestampTz now)
{
	ErosDatabase *db = eros_require_database();
	bool returned;
	bool inserted;
	bool crowded;
	bool entered;

	entered = eros_tracker_enter(MyDatabaseId, key, now, &returned, &inserted, &crowded);
	if (crowded && pg_atomic_exchange_u32(&db->wants_room, 1) == 0)
		eros_set_latch_of_scheduler(db);
	if (!entered)
	{
		touch_table(db, key, now);
		returned = true;
	}
	if (inserted)
		pg_atomic_fetch_add_u64(&db->active_users, 1);
	if (returned)
	{
		pg_atomic_fetch_add_u64(&db->returns, 1);
		if (pg_atomic_read_u32(&db->dozing) != 0 && pg_atomic_exchange_u32(&db->dozing, 0) != 0)
			eros_set_latch_of_scheduler(db);
		eros_need_scheduler_at(db, now + (int64) pg_atomic_read_u64(&db->first_idle_us));

		/* the user is active now; only then look who holds him */
		pg_memory_barrier();
		eros_halt_user(MyDatabaseId, key);
	}
}

/* Raises the error that a standby keeps nothing of a touch. */
static pg_noinline void
refuse_on_standby(void)
{
	ereport(ERROR, (errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
					errmsg("cannot record a touch during recovery"),
					errdetail("EROS keeps the active users on the primary only."),
					errhint("Call eros_touch() on the primary.")));
}

/* Raises the error that a handler has touched users: it would halt the work on them. */
static pg_noinline void
refuse_in_handler(void)
{
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("cannot record a touch in a handler"),
					errdetail("A touch says that the user is active, and halts the work on him."),
					errhint("Call eros_touch() where the application serves the user.")));
}

static inline void
touch(const ErosKey *key, TimestampTz now)
{
	if (unlikely(RecoveryInProgress()))
		refuse_on_standby();
	if (unlikely(eros_in_handler))
		refuse_in_handler();
	if (unlikely(!touch_fast(MyDatabaseId, key, hash_key(MyDatabaseId, key), now)))
		touch_slow(key, now);
}

/* eros_touch(bigint) returns void */
Datum
eros_touch_bigint(PG_FUNCTION_ARGS)
{
	ErosKey key = eros_key_from_bigint(PG_GETARG_INT64(0));

	eros_check_loaded();
	touch(&key, eros_now());
	PG_RETURN_VOID();
}

/* eros_touch(uuid) returns void */
Datum
eros_touch_uuid(PG_FUNCTION_ARGS)
{
	ErosKey key = eros_key_from_uuid(PG_GETARG_UUID_P(0));

	eros_check_loaded();
	touch(&key, eros_now());
	PG_RETURN_VOID();
}

/* eros_touch(text) returns void */
Datum
eros_touch_text(PG_FUNCTION_ARGS)
{
	ErosKey key = eros_key_from_text(PG_GETARG_TEXT_PP(0));

	eros_check_loaded();
	touch(&key, eros_now());
	PG_RETURN_VOID();
}

/* Touches all users of an array. */
static void
touch_array(Datum array, Oid element_type)
{
	int nkeys;
	ErosKey *keys = eros_keys_from_array(array, element_type, &nkeys);
	TimestampTz now = 0;

	eros_check_loaded();
	for (int i = 0; i < nkeys; i++)
	{
		if (i % 4096 == 0)
			now = eros_now(); /* it takes its time */
		touch(&keys[i], now);
	}
	pfree(keys);
}

/* eros_touch(bigint[]) returns void */
Datum
eros_touch_bigint_array(PG_FUNCTION_ARGS)
{
	touch_array(PG_GETARG_DATUM(0), INT8OID);
	PG_RETURN_VOID();
}

/* eros_touch(uuid[]) returns void */
Datum
eros_touch_uuid_array(PG_FUNCTION_ARGS)
{
	touch_array(PG_GETARG_DATUM(0), UUIDOID);
	PG_RETURN_VOID();
}
