/* Reading and writing by copying: directly where that is possible, else by the system calls. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

struct daxfsd_file {
	struct dx_file *file;
	int fd;
	int flags; /* O_* of the descriptor when it was opened */
};

static bool is_direct(const daxfsd_file *f, bool write, size_t n, off_t off)
{
	int mode = f->flags & O_ACCMODE;

	return n && n <= SSIZE_MAX && off >= 0 && (write ? mode != O_RDONLY && !(f->flags & O_APPEND) : mode != O_WRONLY);
}

ssize_t daxfsd_pread(daxfsd_file *f, void *buf, size_t n, off_t off)
{
	size_t done = 0;
	bool end;
	ssize_t k;

	if (is_direct(f, false, n, off)) {
		done = dx_direct(f->file, f->fd, false, buf, n, (uint64_t)off, &end);
		if (done == n || end)
			return (ssize_t)done;
	}
	k = pread(f->fd, (char *)buf + done, n - done, off + (off_t)done);
	return k >= 0 ? (ssize_t)done + k : done ? (ssize_t)done : k;
}

ssize_t daxfsd_pwrite(daxfsd_file *f, const void *buf, size_t n, off_t off)
{
	size_t done = 0;
	bool end;
	ssize_t k;

	if (is_direct(f, true, n, off)) {
		done = dx_direct(f->file, f->fd, true, (char *)(uintptr_t)buf, n, (uint64_t)off, &end);
		if (done == n)
			return (ssize_t)done;
	}
	k = pwrite(f->fd, (const char *)buf + done, n - done, off + (off_t)done);
	return k >= 0 ? (ssize_t)done + k : done ? (ssize_t)done : k;
}

int daxfsd_sync(daxfsd_file *f)
{
	int r = dx_file_commit(f->file, f->fd);

	return fsync(f->fd) < 0 ? -1 : r;
}

int daxfsd_grow(daxfsd_file *f, off_t size)
{
	struct stat st;
	int r;

	if (fstat(f->fd, &st) < 0)
		return -1;
	if (st.st_size >= size)
		return 0;
	do
		r = fallocate(f->fd, 0, st.st_size, size - st.st_size);
	while (r < 0 && errno == EINTR);
	return r;
}

int daxfsd_fd(const daxfsd_file *f) { return f->fd; }

daxfsd_file *daxfsd_open(int fd)
{
	struct dx_file *file;
	daxfsd_file *f;
	struct stat st;
	int flags = fcntl(fd, F_GETFL), own, e;

	if (flags < 0 || fstat(fd, &st) < 0)
		return NULL;
	if (!S_ISREG(st.st_mode)) {
		errno = EINVAL;
		return NULL;
	}
	dx_guard_install();
	f = mmap(NULL, sizeof *f, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (f == MAP_FAILED)
		return NULL;
	if ((own = fcntl(fd, F_DUPFD_CLOEXEC, 0)) < 0 || !(file = dx_file_new(own, 0))) {
		e = errno;
		if (own >= 0)
			close(own);
		munmap(f, sizeof *f);
		errno = e;
		return NULL;
	}
	*f = (daxfsd_file){file, own, flags};
	if (dx_file_probe(file, own, (flags & O_ACCMODE) != O_WRONLY) < 0) {
		e = errno;
		daxfsd_close(f);
		errno = e;
		return NULL;
	}
	return f;
}

int daxfsd_close(daxfsd_file *f)
{
	while (!dx_file_empty(f->file))
		dx_file_drop(f->file);
	dx_file_put(f->file); /* which closes the descriptor with the last window */
	return munmap(f, sizeof *f);
}
