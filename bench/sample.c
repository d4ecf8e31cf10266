/*
 * Watches one process from outside, by the kernel's figures alone: its state in
 * /proc/PID/stat, its run time and its waiting time in /proc/PID/schedstat, and
 * how often it went to sleep in /proc/PID/status.
 *
 *		sample PID SECONDS [PERIOD]
 *
 * It looks every PERIOD us, by default every 500; looking costs CPU time itself.
 *
 * A burst is the CPU time between two interruptions: samples in which the
 * process was asleep, or in which it turns out that it has slept, or that others
 * have had the CPU for a millisecond meanwhile.  Where the sampling misses a
 * sleep, the bursts before and after it are both told longer by the time between
 * two samples, never shorter than they were.
 *
 * The time begins and ends at the start of a burst of 2 ms or more that follows
 * a sleep (the first one after SECONDS), so that pauses and what they pay for
 * are counted whole; where none comes, it is at most three times as long.
 *
 * Prints: seconds, CPU seconds, seconds spent waiting for a CPU, number of
 * bursts, longest burst in ms, its start in seconds, longest gap between two
 * samples in ms.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define INTERRUPTION_NS 1000000
#define START_NS 2000000

static int stat_fd;
static int schedstat_fd;
static int status_fd;

/* The time in ns. */
static long long
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* Opens a file of a process. */
static int
open_file(const char *pid, const char *name)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%s/%s", pid, name);
	fd = open(path, O_RDONLY);
	if (fd < 0)
	{
		perror(path);
		exit(1);
	}
	return fd;
}

/* Reads a file from its beginning. */
static void
read_file(int fd, char *buffer, size_t size)
{
	ssize_t length = pread(fd, buffer, size - 1, 0);

	if (length <= 0)
	{
		fprintf(stderr, "sample: the process is gone\n");
		exit(1);
	}
	buffer[length] = '\0';
}

/* Tells whether the process sleeps, its run and waiting time in ns, and how often it has slept. */
static int
look(long long *run, long long *wait, long *sleeps_so_far)
{
	static const char switches[] = "\nvoluntary_ctxt_switches:";
	char buffer[4096];
	char *name_end;
	char *found;
	int sleeps;

	read_file(stat_fd, buffer, sizeof(buffer));
	name_end = strrchr(buffer, ')');
	sleeps = name_end != NULL && (name_end[2] == 'S' || name_end[2] == 'D');
	read_file(schedstat_fd, buffer, sizeof(buffer));
	if (sscanf(buffer, "%lld %lld", run, wait) != 2)
		exit(1);
	read_file(status_fd, buffer, sizeof(buffer));
	found = strstr(buffer, switches);
	*sleeps_so_far = found != NULL ? atol(found + sizeof(switches) - 1) : 0;
	return sleeps;
}

/* The longest burst so far. */
static long long longest = 0;
static long long longest_at = 0;
static long bursts = 0;

/* Counts a burst that has ended. */
static void
count_burst(long long length, long long at)
{
	if (length <= 0)
		return;
	bursts++;
	if (length > longest)
	{
		longest = length;
		longest_at = at;
	}
}

int
main(int argc, char **argv)
{
	long long length, started, at, run, wait;
	long long begin = 0, begin_run = 0, begin_wait = 0;
	long long woke = 0, woke_run = 0, woke_wait = 0; /* when it woke up last; 0: no start */
	long long burst_run = 0;						 /* run time at the burst's start */
	long long last_at, last_run, last_wait = 0, longest_gap = 0;
	long count, last_count;
	int slept = 0;

	if (argc != 3 && argc != 4)
		return 2;
	stat_fd = open_file(argv[1], "stat");
	schedstat_fd = open_file(argv[1], "schedstat");
	status_fd = open_file(argv[1], "status");
	length = (long long) (atof(argv[2]) * 1e9);

	/* not to miss a sleep on a busy machine, where one is allowed to */
	sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 2});

	look(&run, &last_wait, &last_count);
	burst_run = last_run = run;
	started = last_at = now();
	for (;;)
	{
		struct timespec period = {0, argc == 4 ? atol(argv[3]) * 1000 : 500000};
		int sleeps = look(&run, &wait, &count);
		int missed = !sleeps && !slept && count != last_count;
		int overdue;

		at = now();
		if (begin != 0 && at - last_at > longest_gap)
			longest_gap = at - last_at;
		last_at = at;

		/* what it had run when it slept, it had run when it woke up */
		if (slept && !sleeps)
		{
			woke = at;
			woke_run = burst_run;
			woke_wait = last_wait;
		}
		overdue = begin == 0 ? at - started > 2 * length : at - begin > 3 * length;
		if (overdue)
		{
			woke = at;
			woke_run = run;
			woke_wait = wait;
		}
		if ((woke != 0 && run - woke_run >= START_NS) || overdue)
		{
			if (begin == 0)
			{
				begin = woke;
				begin_run = woke_run;
				begin_wait = woke_wait;
			}
			else if (woke - begin >= length)
				break;
			woke = 0;
		}

		/* while it sleeps, and when it has just got a CPU, its run time is exact */
		if (sleeps || wait - last_wait >= INTERRUPTION_NS)
		{
			if (begin != 0)
				count_burst(run - burst_run, at);
			burst_run = run;
		}
		else if (missed)
		{
			if (begin != 0)
				count_burst(run - burst_run, at);
			burst_run = last_run;
		}
		last_run = run;
		last_wait = wait;
		last_count = count;
		slept = sleeps;
		nanosleep(&period, NULL);
	}
	printf("%.3f %.4f %.4f %ld %.2f %.3f %.1f\n", (woke - begin) / 1e9, (woke_run - begin_run) / 1e9,
		   (woke_wait - begin_wait) / 1e9, bursts, longest / 1e6, (longest_at - begin) / 1e9,
		   longest_gap / 1e6);
	return 0;
}
