/*
 * Computes and sleeps in turns, as a worker that is paced does, by nothing but
 * the clock: what a burst looks like on this machine where nothing can go wrong.
 *
 *		loop CPU_MS SLEEP_US SECONDS
 */
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* The CPU time of this process in ns. */
static long long
used(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int
main(int argc, char **argv)
{
	time_t end;

	if (argc != 4)
		return 2;
	end = time(NULL) + atoll(argv[3]);
	while (time(NULL) < end)
	{
		long long until = used() + atoll(argv[1]) * 1000000;

		while (used() < until)
			;
		usleep(atoi(argv[2]));
	}
}
