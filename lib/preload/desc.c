/*
 * The calls of libc that make and close descriptors. After them a number is not known (fd.c), and
 * before a descriptor is closed the daemon learns what was stored. Calls that only make descriptors
 * need no care: a number is known only from its first use to its close; but not every close is seen.
 */
#include "preload.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* made is the result of a call that makes a descriptor. */
static int made(int fd)
{
	if (fd >= 0)
		fd_forget(fd);
	return fd;
}

#define MODE(flags, mode)                                                                           \
	unsigned mode = 0;                                                                         \
	if ((flags)&O_CREAT || ((flags)&O_TMPFILE) == O_TMPFILE) {                                 \
		va_list a;                                                                         \
		va_start(a, flags);                                                                \
		mode = va_arg(a, unsigned);                                                        \
		va_end(a);                                                                         \
	}

EXPORT int open(const char *path, int flags, ...)
{
	MODE(flags, mode)
	return made(NEXT(open)(path, flags, mode));
}
EXPORT int open64(const char *path, int flags, ...)
{
	MODE(flags, mode)
	return made(NEXT(open64)(path, flags, mode));
}
EXPORT int openat(int dir, const char *path, int flags, ...)
{
	MODE(flags, mode)
	return made(NEXT(openat)(dir, path, flags, mode));
}
EXPORT int openat64(int dir, const char *path, int flags, ...)
{
	MODE(flags, mode)
	return made(NEXT(openat64)(dir, path, flags, mode));
}
EXPORT int creat(const char *path, mode_t mode) { return made(NEXT(creat)(path, mode)); }
EXPORT int creat64(const char *path, mode_t mode) { return made(NEXT(creat64)(path, mode)); }

/* What _FORTIFY_SOURCE calls instead. */
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int dir, const char *path, int flags);
int __openat64_2(int dir, const char *path, int flags);
EXPORT int __open_2(const char *path, int flags) { return made(NEXT(__open_2)(path, flags)); }
EXPORT int __open64_2(const char *path, int flags) { return made(NEXT(__open64_2)(path, flags)); }
EXPORT int __openat_2(int dir, const char *path, int flags) { return made(NEXT(__openat_2)(dir, path, flags)); }
EXPORT int __openat64_2(int dir, const char *path, int flags) { return made(NEXT(__openat64_2)(dir, path, flags)); }

EXPORT int dup(int fd) { return made(NEXT(dup)(fd)); }
EXPORT int dup2(int fd, int to)
{
	if (fd == to)
		return NEXT(dup2)(fd, to);
	fd_closing(to);
	return made(NEXT(dup2)(fd, to));
}
EXPORT int dup3(int fd, int to, int flags)
{
	if (fd != to)
		fd_closing(to);
	return made(NEXT(dup3)(fd, to, flags)); /* EINVAL if they are the same */
}

EXPORT int close(int fd)
{
	int r;

	fd_closing(fd);
	r = NEXT(close)(fd);
	fd_forget(fd);
	return r;
}
EXPORT int close_range(unsigned lo, unsigned hi, int flags)
{
	int r;

	for (unsigned fd = lo; fd <= hi && fd < 65536; fd++)
		fd_commit((int)fd);
	r = NEXT(close_range)(lo, hi, flags);
	fd_forget_range(lo, hi);
	return r;
}
EXPORT void closefrom(int lo)
{
	for (int fd = lo < 0 ? 0 : lo; fd < 65536; fd++)
		fd_commit(fd);
	NEXT(closefrom)(lo);
	fd_forget_range(lo < 0 ? 0 : (unsigned)lo, ~0u);
}

/* control is fcntl(2) and its 64-bit name. The signal that marks a descriptor is not shown. */
static int control(int fd, int cmd, long arg, int (*next)(int, int, ...))
{
	int r;

	switch (cmd) {
	case F_DUPFD:
	case F_DUPFD_CLOEXEC:
		return made(next(fd, cmd, arg));
	case F_GETSIG:
		r = next(fd, cmd, arg);
		return r > 0 && r == fd_mark(fd) ? 0 : r;
	case F_SETFL:
	case F_SETSIG:
		r = next(fd, cmd, arg);
		fd_flags_changed(); /* of all descriptors that share it */
		return r;
	}
	return next(fd, cmd, arg);
}
EXPORT int fcntl(int fd, int cmd, ...)
{
	va_list a;
	long arg;

	va_start(a, cmd);
	arg = va_arg(a, long); /* an int or a pointer, or nothing: the callee knows */
	va_end(a);
	return control(fd, cmd, arg, NEXT(fcntl));
}
EXPORT int fcntl64(int fd, int cmd, ...)
{
	va_list a;
	long arg;

	va_start(a, cmd);
	arg = va_arg(a, long);
	va_end(a);
	return control(fd, cmd, arg, NEXT(fcntl64));
}

/* stdio closes and opens descriptors without the symbols above. */
EXPORT int fclose(FILE *f)
{
	int fd = fileno(f), r;

	fd_closing(fd);
	r = NEXT(fclose)(f);
	fd_forget(fd);
	return r;
}
static FILE *reopened(FILE *next(const char *, const char *, FILE *), const char *path, const char *mode, FILE *f)
{
	FILE *r;
	int fd = fileno(f);

	fd_closing(fd);
	r = next(path, mode, f);
	fd_forget(fd);
	if (r)
		fd_forget(fileno(r));
	return r;
}
EXPORT FILE *freopen(const char *path, const char *mode, FILE *f) { return reopened(NEXT(freopen), path, mode, f); }
EXPORT FILE *freopen64(const char *path, const char *mode, FILE *f) { return reopened(NEXT(freopen64), path, mode, f); }

/* stream is the result of a call that opens one. */
static FILE *stream(FILE *f)
{
	if (f)
		fd_forget(fileno(f));
	return f;
}
EXPORT FILE *fopen(const char *path, const char *mode) { return stream(NEXT(fopen)(path, mode)); }
EXPORT FILE *fopen64(const char *path, const char *mode) { return stream(NEXT(fopen64)(path, mode)); }
EXPORT FILE *popen(const char *command, const char *mode) { return stream(NEXT(popen)(command, mode)); }
EXPORT int pclose(FILE *f)
{
	int fd = fileno(f), r = NEXT(pclose)(f);

	fd_forget(fd);
	return r;
}
EXPORT FILE *tmpfile(void) { return stream(NEXT(tmpfile)()); }
EXPORT FILE *tmpfile64(void) { return stream(NEXT(tmpfile64)()); }

/* Other descriptors that may get the number of a file whose close was not seen. */
static int made2(int r, const int fd[2])
{
	if (r == 0) {
		fd_forget(fd[0]);
		fd_forget(fd[1]);
	}
	return r;
}
EXPORT int pipe(int fd[2]) { return made2(NEXT(pipe)(fd), fd); }
EXPORT int pipe2(int fd[2], int flags) { return made2(NEXT(pipe2)(fd, flags), fd); }
EXPORT int socketpair(int domain, int type, int protocol, int fd[2]) { return made2(NEXT(socketpair)(domain, type, protocol, fd), fd); }
EXPORT int socket(int domain, int type, int protocol) { return made(NEXT(socket)(domain, type, protocol)); }
EXPORT int accept(int fd, __SOCKADDR_ARG addr, socklen_t *n) { return made(NEXT(accept)(fd, addr, n)); }
EXPORT int accept4(int fd, __SOCKADDR_ARG addr, socklen_t *n, int flags) { return made(NEXT(accept4)(fd, addr, n, flags)); }
EXPORT int eventfd(unsigned value, int flags) { return made(NEXT(eventfd)(value, flags)); }
EXPORT int epoll_create(int size) { return made(NEXT(epoll_create)(size)); }
EXPORT int epoll_create1(int flags) { return made(NEXT(epoll_create1)(flags)); }
EXPORT int memfd_create(const char *name, unsigned flags) { return made(NEXT(memfd_create)(name, flags)); }
