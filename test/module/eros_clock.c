/*-------------------------------------------------------------------------
 *
 * eros_clock.c
 *		A clock that jumps, for the tests: preloaded into a server (LD_PRELOAD),
 *		it adds the seconds that the file EROS_CLOCK tells to the time of day.
 *
 *-------------------------------------------------------------------------
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

extern int gettimeofday(struct timeval *restrict tv, void *restrict tz);

/* The seconds by which the clock is set ahead, now. */
static long
seconds_ahead(void)
{
	const char *path = getenv("EROS_CLOCK");
	char text[32] = {0};
	int fd = path ? open(path, O_RDONLY) : -1;
	ssize_t n = 0;

	if (fd >= 0)
	{
		n = read(fd, text, sizeof(text) - 1);
		close(fd);
	}
	return n > 0 ? strtol(text, NULL, 10) : 0;
}

int
gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	tv->tv_sec = now.tv_sec + seconds_ahead();
	tv->tv_usec = now.tv_nsec / 1000;
	return 0;
}
