/*
 * Watches one process from outside, by the kernel's figures alone: its state in
 * /proc/PID/stat, its run time and its waiting time in /proc/PID/schedstat.
 *
 *		sample PID SECONDS
 *
 * A burst is the CPU time between two samples in which the process was asleep:
 * preemption does not end it, nor does a sleep that the sampling misses, so it
 * is never told too short.  The time begins and ends at the start of a burst
 * (the first one after SECONDS), so that pauses and what they pay for are
 * counted whole; a process that does not sleep is watched for at most three
 * times as long.
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

#define PERIOD_NS 500000

static int stat_fd;
static int schedstat_fd;

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

/* Tells whether the process sleeps, and its run and waiting time in ns. */
static int
look(long long *run, long long *wait)
{
	char buffer[1024];
	char *name_end;
	int sleeps;

	read_file(stat_fd, buffer, sizeof(buffer));
	name_end = strrchr(buffer, ')');
	sleeps = name_end != NULL && name_end[2] == 'S';
	read_file(schedstat_fd, buffer, sizeof(buffer));
	if (sscanf(buffer, "%lld %lld", run, wait) != 2)
		exit(1);
	return sleeps;
}

int
main(int argc, char **argv)
{
	long long length, started, at, run, wait;
	long long begin = 0, begin_run = 0, begin_wait = 0;
	long long mark = -1, last_at, longest = 0, longest_at = 0, longest_gap = 0;
	long bursts = 0;
	int slept = 0;

	if (argc != 3)
		return 2;
	stat_fd = open_file(argv[1], "stat");
	schedstat_fd = open_file(argv[1], "schedstat");
	length = (long long) (atof(argv[2]) * 1e9);

	/* not to miss a sleep on a busy machine, where one is allowed to */
	sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 2});
	started = last_at = now();
	for (;;)
	{
		struct timespec period = {0, PERIOD_NS};
		int sleeps = look(&run, &wait);

		at = now();
		if (begin != 0 && at - last_at > longest_gap)
			longest_gap = at - last_at;
		last_at = at;

		/* while it sleeps, its run time is exact */
		if (sleeps && mark >= 0 && run > mark)
		{
			if (begin != 0)
			{
				bursts++;
				if (run - mark > longest)
				{
					longest = run - mark;
					longest_at = at;
				}
			}
		}
		/* a burst begins, or a process that does not sleep is not waited for */
		if ((slept && !sleeps) || (begin == 0 && at - started > 2 * length) ||
			(begin != 0 && at - begin > 3 * length))
		{
			if (begin == 0)
			{
				begin = at;
				begin_run = slept ? mark : run;
				begin_wait = wait;
				if (!slept)
					mark = run;
			}
			else if (at - begin >= length)
			{
				if (slept)
					run = mark;
				break;
			}
		}
		if (sleeps)
			mark = run;
		slept = sleeps;
		nanosleep(&period, NULL);
	}
	if (run - mark > longest)
	{
		longest = run - mark;
		longest_at = at;
	}
	printf("%.3f %.4f %.4f %ld %.2f %.3f %.1f\n", (at - begin) / 1e9, (run - begin_run) / 1e9,
		   (wait - begin_wait) / 1e9, bursts, longest / 1e6, (longest_at - begin) / 1e9,
		   longest_gap / 1e6);
	return 0;
}
