/*
 * Reading and writing.
 *
 * read(2) and write(2) take their place in the file from the kernel: lseek(2) moves the offset by the
 * whole length and so reserves the range, for this thread and all others that share the offset; what
 * was not read or written is given back.
 */
#include "preload.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* The largest transfer of one call, as the kernel's MAX_RW_COUNT. */
#define MOST ((size_t)0x7ffff000)

static struct served readable(int fd)
{
	struct served s = fd_get(fd);

	if (s.file && !(s.flags & FD_READ))
		s.file = NULL;
	return s;
}

static struct served writable(int fd)
{
	struct served s = fd_get(fd);

	if (s.file && (!(s.flags & FD_WRITE) || s.flags & FD_PLAIN))
		s.file = NULL;
	return s;
}

/* sum adds k bytes, or the error, of a system call to the done bytes that were copied. */
static ssize_t sum(size_t done, ssize_t k)
{
	return k >= 0 ? (ssize_t)done + k : done ? (ssize_t)done : k;
}

/* transfer copies n bytes at off, directly and then by the system call. */
static ssize_t transfer(struct served s, int fd, bool write, char *buf, size_t n, off_t off)
{
	bool end;
	size_t done = dx_direct(s.file, fd, write, buf, n, (uint64_t)off, &end);

	if (done == n || (end && !write))
		return (ssize_t)done;
	return sum(done, syscall(write ? SYS_pwrite64 : SYS_pread64, fd, buf + done, n - done, off + (off_t)done));
}

/* transfer_vector is transfer of each part of a vector, until one is short. */
static ssize_t transfer_vector(struct served s, int fd, bool write, const struct iovec *v, int count, off_t off)
{
	size_t done = 0;

	for (int i = 0; i < count; i++) {
		ssize_t k = v[i].iov_len ? transfer(s, fd, write, v[i].iov_base, v[i].iov_len, off + (off_t)done) : 0;

		if (k < (ssize_t)v[i].iov_len)
			return sum(done, k);
		done += (size_t)k;
	}
	return (ssize_t)done;
}

/* at_offset is transfer_vector, of n bytes in all, at the descriptor's offset. It returns false if
 * nothing was done and the offset is as before. */
static bool at_offset(struct served s, int fd, bool write, const struct iovec *v, int count, size_t n, ssize_t *result)
{
	int e = errno;
	off_t end = (off_t)syscall(SYS_lseek, fd, (off_t)n, SEEK_CUR);

	if (end < (off_t)n) {
		errno = e;
		return false;
	}
	*result = transfer_vector(s, fd, write, v, count, end - (off_t)n);
	if (*result < (ssize_t)n) {
		e = errno;
		syscall(SYS_lseek, fd, (*result > 0 ? *result : 0) - (ssize_t)n, SEEK_CUR);
		errno = e;
	}
	return true;
}

EXPORT ssize_t read(int fd, void *buf, size_t n)
{
	struct served s;
	ssize_t r;

	if (n && n <= MOST && (s = readable(fd)).file && at_offset(s, fd, false, &(struct iovec){buf, n}, 1, n, &r))
		return r;
	return NEXT(read)(fd, buf, n);
}

EXPORT ssize_t write(int fd, const void *buf, size_t n)
{
	struct served s;
	ssize_t r;

	if (n && n <= MOST && (s = writable(fd)).file && at_offset(s, fd, true, &(struct iovec){(void *)(uintptr_t)buf, n}, 1, n, &r))
		return r;
	return NEXT(write)(fd, buf, n);
}

/* The calls with an offset, by the names that programs use for them. */
#define PREAD(name, off_type)                                                                       \
	EXPORT ssize_t name(int fd, void *buf, size_t n, off_type off)                             \
	{                                                                                          \
		struct served s;                                                                   \
		if (n && n <= MOST && off >= 0 && (s = readable(fd)).file)                         \
			return transfer(s, fd, false, buf, n, off);                                \
		return NEXT(name)(fd, buf, n, off);                                                \
	}
#define PWRITE(name, off_type)                                                                      \
	EXPORT ssize_t name(int fd, const void *buf, size_t n, off_type off)                       \
	{                                                                                          \
		struct served s;                                                                   \
		if (n && n <= MOST && off >= 0 && (s = writable(fd)).file)                         \
			return transfer(s, fd, true, (char *)(uintptr_t)buf, n, off);              \
		return NEXT(name)(fd, buf, n, off);                                                \
	}
PREAD(pread, off_t)
PREAD(pread64, off64_t)
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

/* What _FORTIFY_SOURCE calls instead. A buffer that is too small ends the process. */
void __chk_fail(void) __attribute__((noreturn));
#define FITS(n, room)                                                                               \
	do                                                                                         \
		if ((n) > (room))                                                                  \
			__chk_fail();                                                              \
	while (0)

EXPORT ssize_t __read_chk(int fd, void *buf, size_t n, size_t room)
{
	FITS(n, room);
	return read(fd, buf, n);
}
EXPORT ssize_t __pread_chk(int fd, void *buf, size_t n, off_t off, size_t room)
{
	FITS(n, room);
	return pread(fd, buf, n, off);
}
EXPORT ssize_t __pread64_chk(int fd, void *buf, size_t n, off64_t off, size_t room)
{
	FITS(n, room);
	return pread64(fd, buf, n, off);
}

/* total returns the length of a vector; 0 if it is for the kernel to refuse. */
static size_t total(const struct iovec *v, int count)
{
	size_t n = 0;

	if (count <= 0 || count > IOV_MAX)
		return 0;
	for (int i = 0; i < count; i++) {
		if (v[i].iov_len > MOST - n)
			return 0;
		n += v[i].iov_len;
	}
	return n;
}

EXPORT ssize_t readv(int fd, const struct iovec *v, int count)
{
	struct served s;
	size_t n;
	ssize_t r;

	if ((n = total(v, count)) && (s = readable(fd)).file && at_offset(s, fd, false, v, count, n, &r))
		return r;
	return NEXT(readv)(fd, v, count);
}

EXPORT ssize_t writev(int fd, const struct iovec *v, int count)
{
	struct served s;
	size_t n;
	ssize_t r;

	if ((n = total(v, count)) && (s = writable(fd)).file && at_offset(s, fd, true, v, count, n, &r))
		return r;
	return NEXT(writev)(fd, v, count);
}

#define PREADV(name, off_type)                                                                      \
	EXPORT ssize_t name(int fd, const struct iovec *v, int count, off_type off)                \
	{                                                                                          \
		struct served s;                                                                   \
		if (off >= 0 && total(v, count) && (s = readable(fd)).file)                        \
			return transfer_vector(s, fd, false, v, count, off);                                \
		return NEXT(name)(fd, v, count, off);                                              \
	}
#define PWRITEV(name, off_type)                                                                     \
	EXPORT ssize_t name(int fd, const struct iovec *v, int count, off_type off)                \
	{                                                                                          \
		struct served s;                                                                   \
		if (off >= 0 && total(v, count) && (s = writable(fd)).file)                        \
			return transfer_vector(s, fd, true, v, count, off);                                 \
		return NEXT(name)(fd, v, count, off);                                              \
	}
/* With flags, and at the descriptor's offset, they are for the kernel. */
#define PREADV2(name, off_type)                                                                     \
	EXPORT ssize_t name(int fd, const struct iovec *v, int count, off_type off, int flags)     \
	{                                                                                          \
		struct served s;                                                                   \
		if (!flags && off >= 0 && total(v, count) && (s = readable(fd)).file)              \
			return transfer_vector(s, fd, false, v, count, off);                                \
		return NEXT(name)(fd, v, count, off, flags);                                       \
	}
#define PWRITEV2(name, off_type)                                                                    \
	EXPORT ssize_t name(int fd, const struct iovec *v, int count, off_type off, int flags)     \
	{                                                                                          \
		struct served s;                                                                   \
		if (!flags && off >= 0 && total(v, count) && (s = writable(fd)).file)              \
			return transfer_vector(s, fd, true, v, count, off);                                 \
		return NEXT(name)(fd, v, count, off, flags);                                       \
	}

PREADV(preadv, off_t)
PREADV(preadv64, off64_t)
PWRITEV(pwritev, off_t)
PWRITEV(pwritev64, off64_t)
PREADV2(preadv2, off_t)
PREADV2(preadv64v2, off64_t)
PWRITEV2(pwritev2, off_t)
PWRITEV2(pwritev64v2, off64_t)
