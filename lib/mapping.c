/* Mappings of a file that a program has opened with daxfsd_open. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

struct daxfsd_map {
	struct dx_range range; /* its description stays open, for pins */
	int fd;		       /* of the file, for COMMIT and RELEASE */
	dx_lock_t lock;
	int pins;    /* protected by lock */
	bool mapped; /* protected by lock */
};

/* gone ends what is left of a mapping that is neither mapped nor pinned. */
static void gone(struct daxfsd_map *m)
{
	dx_lease_end(&m->range.lease, m->fd);
	close(m->fd);
	munmap(m, sizeof *m);
}

daxfsd_map *daxfsd_mmap(daxfsd_file *f, off_t off, size_t n, int flags, size_t want)
{
	uint32_t grant = (flags & DAXFSD_WRITE ? DX_WRITE : 0) | (flags & DAXFSD_ALLOCATE ? DX_ALLOCATE : 0);
	daxfsd_map *m;
	struct stat st;
	int e;

	if (fstat(daxfsd_fd(f), &st) < 0)
		return NULL;
	if (off < 0 || off % sysconf(_SC_PAGESIZE) || !n || off > st.st_size || n > (uint64_t)(st.st_size - off) ||
	    (flags & ~(DAXFSD_WRITE | DAXFSD_ALLOCATE)) || (want & (want - 1)) || grant == DX_ALLOCATE) {
		errno = EINVAL;
		return NULL;
	}
	m = mmap(NULL, sizeof *m, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m == MAP_FAILED)
		return NULL;
	m->mapped = true;
	m->fd = fcntl(daxfsd_fd(f), F_DUPFD_CLOEXEC, 0);
	if (m->fd < 0 || dx_range_map(&m->range, m->fd, (uint64_t)off, n, grant, want >= DX_BLOCK ? want : 0, NULL) < 0) {
		e = errno;
		if (m->fd >= 0)
			close(m->fd);
		munmap(m, sizeof *m);
		errno = e;
		return NULL;
	}
	return m;
}

void *daxfsd_addr(const daxfsd_map *m) { return m->range.addr; }

int daxfsd_flush(daxfsd_map *m, size_t off, size_t n)
{
	if (off > m->range.n || n > m->range.n - off) {
		errno = EINVAL;
		return -1;
	}
	if (dx_range_flush(m->range.addr + off, n) < 0)
		return -1;
	return dx_range_commit(&m->range, m->fd, m->range.off + off, n);
}

int daxfsd_stale(const daxfsd_map *m) { return dx_range_stale(&m->range); }

int daxfsd_pin(daxfsd_map *m)
{
	dx_lock(&m->lock);
	m->pins++;
	dx_unlock(&m->lock);
	return 0;
}

int daxfsd_unpin(daxfsd_map *m)
{
	bool last;

	dx_lock(&m->lock);
	if (!m->pins) {
		dx_unlock(&m->lock);
		errno = EINVAL;
		return -1;
	}
	last = !--m->pins && !m->mapped;
	dx_unlock(&m->lock);
	if (last)
		gone(m);
	return 0;
}

int daxfsd_unmap(daxfsd_map *m)
{
	bool last;

	dx_range_unmap(&m->range, false);
	dx_lock(&m->lock);
	m->mapped = false;
	last = !m->pins;
	dx_unlock(&m->lock);
	if (last)
		gone(m);
	return 0;
}
