/*
 * Calls that show a file's times, or make its content durable: first the daemon learns what was
 * stored. Only descriptors that the program has open are looked at, so for most programs these calls
 * cost a load.
 */
#include "preload.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

EXPORT int fsync(int fd)
{
	fd_commit(fd);
	return NEXT(fsync)(fd);
}
EXPORT int fdatasync(int fd)
{
	fd_commit(fd);
	return NEXT(fdatasync)(fd);
}

/* after_stat reports whether a call that returned these numbers must be made again, since the times
 * have changed now. */
static bool after_stat(int r, dev_t dev, ino_t ino) { return r == 0 && any_served() && inode_commit(dev, ino); }

#define STAT(name, type)                                                                            \
	EXPORT int name(const char *path, struct type *st)                                         \
	{                                                                                          \
		int r = NEXT(name)(path, st);                                                      \
		if (after_stat(r, r ? 0 : st->st_dev, r ? 0 : st->st_ino))                         \
			r = NEXT(name)(path, st);                                                  \
		return r;                                                                          \
	}
#define FSTAT(name, type)                                                                           \
	EXPORT int name(int fd, struct type *st)                                                   \
	{                                                                                          \
		fd_commit(fd);                                                                     \
		return NEXT(name)(fd, st);                                                         \
	}
#define FSTATAT(name, type)                                                                         \
	EXPORT int name(int dir, const char *path, struct type *st, int flags)                     \
	{                                                                                          \
		int r = NEXT(name)(dir, path, st, flags);                                          \
		if (after_stat(r, r ? 0 : st->st_dev, r ? 0 : st->st_ino))                         \
			r = NEXT(name)(dir, path, st, flags);                                      \
		return r;                                                                          \
	}

STAT(stat, stat)
STAT(lstat, stat)
STAT(stat64, stat64)
STAT(lstat64, stat64)
FSTAT(fstat, stat)
FSTAT(fstat64, stat64)
FSTATAT(fstatat, stat)
FSTATAT(fstatat64, stat64)

EXPORT int statx(int dir, const char *restrict path, int flags, unsigned mask, struct statx *restrict x)
{
	int r = NEXT(statx)(dir, path, flags, mask, x);

	if (after_stat(r, r ? 0 : makedev(x->stx_dev_major, x->stx_dev_minor), r ? 0 : x->stx_ino))
		r = NEXT(statx)(dir, path, flags, mask, x);
	return r;
}

/* What programs call that were linked with glibc before 2.33. */
int __xstat(int version, const char *path, struct stat *st);
int __lxstat(int version, const char *path, struct stat *st);
int __fxstat(int version, int fd, struct stat *st);
int __xstat64(int version, const char *path, struct stat64 *st);
int __lxstat64(int version, const char *path, struct stat64 *st);
int __fxstat64(int version, int fd, struct stat64 *st);

#define XSTAT(name, type)                                                                           \
	EXPORT int name(int version, const char *path, struct type *st)                            \
	{                                                                                          \
		int r = NEXT(name)(version, path, st);                                             \
		if (after_stat(r, r ? 0 : st->st_dev, r ? 0 : st->st_ino))                         \
			r = NEXT(name)(version, path, st);                                         \
		return r;                                                                          \
	}
#define FXSTAT(name, type)                                                                          \
	EXPORT int name(int version, int fd, struct type *st)                                      \
	{                                                                                          \
		fd_commit(fd);                                                                     \
		return NEXT(name)(version, fd, st);                                                \
	}
XSTAT(__xstat, stat)
XSTAT(__lxstat, stat)
XSTAT(__xstat64, stat64)
XSTAT(__lxstat64, stat64)
FXSTAT(__fxstat, stat)
FXSTAT(__fxstat64, stat64)

/* At the end of the process the leases end, and the daemon updates the times. So they do not show
 * when the program stored last, but nothing is lost. _exit(2) and signals leave it no choice. */
