/*-------------------------------------------------------------------------
 *
 * eros_nospace.c
 *		A full disk, for the tests: preloaded into a server (LD_PRELOAD), it has
 *		no table or index grow as long as the file EROS_NOSPACE is there.
 *
 *-------------------------------------------------------------------------
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef ssize_t (*PwriteFunction)(int fd, const void *data, size_t len, off_t offset);

extern ssize_t pwrite(int fd, const void *data, size_t len, off_t offset);
extern ssize_t pwrite64(int fd, const void *data, size_t len, off_t offset);

/* Tells whether a write would make a table or an index grow while there is no space. */
static int
is_full(int fd, size_t len, off_t offset)
{
	const char *flag = getenv("EROS_NOSPACE");
	char link[64];
	char path[4096];
	struct stat st;
	ssize_t n;

	if (flag == NULL || access(flag, F_OK) != 0)
		return 0;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n <= 0)
		return 0;
	path[n] = '\0';
	return strstr(path, "/base/") != NULL && fstat(fd, &st) == 0 &&
		   offset + (off_t) len > st.st_size;
}

/* Writes, by the system's function, where there is space. */
static ssize_t
write_where_space(const char *name, int fd, const void *data, size_t len, off_t offset)
{
	PwriteFunction next = (PwriteFunction) dlsym(RTLD_NEXT, name);

	if (is_full(fd, len, offset))
	{
		errno = ENOSPC;
		return -1;
	}
	return next(fd, data, len, offset);
}

ssize_t
pwrite(int fd, const void *data, size_t len, off_t offset)
{
	return write_where_space("pwrite", fd, data, len, offset);
}

ssize_t
pwrite64(int fd, const void *data, size_t len, off_t offset)
{
	return write_where_space("pwrite64", fd, data, len, offset);
}
