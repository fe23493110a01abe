/*
 * Mappings: contiguous bytes of a file.
 *
 * The extents are mapped over one reserved range of addresses. Pages of the region must hold
 * nothing but the range, except at its ends, so an extent can be mapped if its offset in the region
 * and its address are equal modulo the region's granule; pages are as large as the two are equal
 * modulo their size.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

struct daxfsd_map {
	struct dx_lease lease;
	int fd;		     /* of the file, for COMMIT and RELEASE */
	uint64_t off, n;     /* the range in the file */
	char *base;	     /* of the reserved addresses */
	size_t room;	     /* bytes from base on */
	char *addr;	     /* of off */
	const char *slot;
	dx_lock_t lock;
	int pins;    /* protected by lock */
	bool mapped; /* protected by lock */
};

/* The extents of all grants of a range. */
struct list {
	struct dx_extent *x;
	size_t n, room;
};

static int append(struct list *l, const struct dx_extent *x)
{
	struct dx_extent *last = l->n ? &l->x[l->n - 1] : NULL;

	if (last && last->offset + last->length == x->offset && last->region + last->length == x->region) {
		last->length += x->length;
		return 0;
	}
	if (l->n == l->room) {
		size_t room = l->room ? 2 * l->room : 1024;
		void *p = l->x ? mremap(l->x, l->room * sizeof *x, room * sizeof *x, MREMAP_MAYMOVE) :
				 mmap(NULL, room * sizeof *x, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED)
			return -1;
		l->x = p;
		l->room = room;
	}
	l->x[l->n++] = *x;
	return 0;
}

/* try_lease leases the whole range. -1 with errno; ESTALE to begin again. */
static int try_lease(struct daxfsd_map *m, uint32_t flags, uint64_t page, struct list *l, uint64_t *granule)
{
	union dx_message r;
	uint64_t lo = m->off, end = m->off + ((m->n + DX_BLOCK - 1) & ~(uint64_t)(DX_BLOCK - 1));

	l->n = 0;
	m->lease.fd = -1;
	m->lease.grants = 0;
	for (bool first = true; lo < end; first = false) {
		if (dx_grant(m->fd, lo, end, flags, page, &r) < 0) {
			if (errno == ENXIO)
				errno = ENODATA;
			return -1;
		}
		if (first && dx_lease_begin(&m->lease, &r.grant) < 0)
			return -1;
		if (dx_lease_add(&m->lease, &r.grant, lo) < 0)
			return -1;
		*granule = r.grant.granule;
		for (uint64_t i = 0; i < r.grant.extents; i++)
			if (append(l, &r.grant.extent[i]) < 0)
				return -1;
		lo = r.grant.end;
	}
	return dx_lease_confirm(&m->lease, m->fd);
}

static uint64_t up(uint64_t v, uint64_t unit) { return (v + unit - 1) & ~(unit - 1); }
static uint64_t down(uint64_t v, uint64_t unit) { return v & ~(unit - 1); }

/* zeros maps [lo, hi) of the window as a hole that reads as zeros. */
static int zeros(struct daxfsd_map *m, uint64_t lo, uint64_t hi)
{
	if (lo >= hi)
		return 0;
	return mmap(m->base + lo, hi - lo, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED ? -1 : 0;
}

/* place maps the extents. at is where off lies in the window, end is the window's size. */
static int place(struct daxfsd_map *m, const struct list *l, uint64_t at, uint64_t end, uint64_t unit, bool write)
{
	uint64_t next = 0, limit = at + m->n; /* up to where it is mapped; the end of the range */

	for (size_t i = 0; i < l->n; i++) {
		const struct dx_extent *x = &l->x[i];
		uint64_t from = at + x->offset - m->off, to = from + x->length;
		uint64_t lo = down(from, unit), hi = up(to, unit), region = x->region - (from - lo);
		bool follows = i && x[-1].offset + x[-1].length == x->offset;
		bool hole = i + 1 == l->n || x[1].offset != x->offset + x->length;

		if (x->region < from - lo || region % unit)
			goto unclean; /* it is not where a page of the region could map it */
		if (lo < next) { /* in one page with the extent before */
			if (!follows || x[-1].region + x[-1].length != x->region)
				goto unclean;
			lo = next, region += next - down(from, unit);
		} else if (from > lo && from > at) {
			goto unclean; /* the page begins with a hole */
		}
		if (hole && to < hi && to < limit)
			goto unclean; /* it ends with one */
		if (region + (hi - lo) > m->lease.region.size)
			hi = lo + up(m->lease.region.size - region, (uint64_t)sysconf(_SC_PAGESIZE));
		if (zeros(m, next, lo) < 0)
			return -1;
		if (lo < hi && dx_map_region(&m->lease, m->base + lo, hi - lo, region, write) < 0)
			return -1;
		if (lo < hi && !m->lease.region.device)
			madvise(m->base + lo, hi - lo, MADV_HUGEPAGE); /* a hint */
		if (hi > next)
			next = hi;
	}
	return zeros(m, next, end);
unclean:
	errno = EUCLEAN;
	return -1;
}

/* map reserves the addresses, and maps the extents, the slot, and a page of the file. */
static int map(struct daxfsd_map *m, const struct list *l, bool write)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), unit = m->lease.region.unit, modulus, rest, at, end, delta = 0, longest = 0, slot;
	char *p;

	if (unit < page)
		unit = page;
	modulus = unit;
	for (uint64_t s = UINT64_C(2) << 20; s <= UINT64_C(1) << 30; s <<= 9)
		if (m->n >= s && modulus < s)
			modulus = s;
	for (size_t i = 0; i < l->n; i++)
		if (l->x[i].length > longest)
			longest = l->x[i].length, delta = (l->x[i].region - l->x[i].offset) & (modulus - 1);
	at = (m->off + delta) & (unit - 1);
	rest = (m->off + delta - at) & (modulus - 1); /* of the window's address, modulo modulus */
	end = up(at + up(m->n, page), unit);
	slot = end;
	m->room = slot + unit + page;
	p = mmap(NULL, m->room + modulus, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return -1;
	m->base = p + ((rest - (uintptr_t)p) & (modulus - 1));
	if (m->base > p)
		munmap(p, (size_t)(m->base - p));
	if (p + modulus > m->base)
		munmap(m->base + m->room, (size_t)(p + modulus - m->base));
	m->addr = m->base + at;
	m->slot = m->base + slot + (m->lease.slot & (unit - 1));
	if (place(m, l, at, end, unit, write) < 0)
		return -1;
	if (dx_map_region(&m->lease, m->base + slot, unit, down(m->lease.slot, unit), false) < 0)
		return -1;
	/* So the mount is in use, as it is by a mapping of the file. */
	return mmap(m->base + slot + unit, page, PROT_NONE, MAP_PRIVATE | MAP_FIXED, m->fd, 0) == MAP_FAILED ? -1 : 0;
}

/* gone ends what is left of a mapping that is neither mapped nor pinned. */
static void gone(struct daxfsd_map *m)
{
	dx_lease_end(&m->lease, m->fd);
	if (m->fd >= 0)
		close(m->fd);
	munmap(m, sizeof *m);
}

daxfsd_map *daxfsd_mmap(daxfsd_file *f, off_t off, size_t n, int flags, size_t want)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), granule = page;
	bool write = flags & DAXFSD_WRITE;
	struct list l = {0};
	daxfsd_map *m;
	struct stat st;
	int e;

	if (fstat(daxfsd_fd(f), &st) < 0)
		return NULL;
	if (off < 0 || (uint64_t)off % page || !n || off > st.st_size || n > (uint64_t)(st.st_size - off) ||
	    (flags & ~(DAXFSD_WRITE | DAXFSD_ALLOCATE)) || (want & (want - 1)) || ((flags & DAXFSD_ALLOCATE) && !write)) {
		errno = EINVAL;
		return NULL;
	}
	m = mmap(NULL, sizeof *m, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m == MAP_FAILED)
		return NULL;
	m->off = (uint64_t)off;
	m->n = n;
	m->mapped = true;
	m->lease.fd = -1;
	if ((m->fd = fcntl(daxfsd_fd(f), F_DUPFD_CLOEXEC, 0)) < 0)
		goto fail;
	for (int try = 0; try < 8; try++) {
		if (try)
			dx_lease_end(&m->lease, m->fd);
		if (try_lease(m, (write ? DX_WRITE : 0) | (flags & DAXFSD_ALLOCATE ? DX_ALLOCATE : 0), want >= DX_BLOCK ? want : 0, &l, &granule) == 0) {
			if (map(m, &l, write) < 0)
				goto fail;
			if (l.x)
				munmap(l.x, l.room * sizeof *l.x);
			return m;
		}
		if (errno != ESTALE)
			goto fail;
	}
	errno = EAGAIN;
fail:
	e = errno;
	if (m->base)
		munmap(m->base, m->room);
	if (l.x)
		munmap(l.x, l.room * sizeof *l.x);
	gone(m);
	errno = e;
	return NULL;
}

void *daxfsd_addr(const daxfsd_map *m) { return m->addr; }

int daxfsd_flush(daxfsd_map *m, size_t off, size_t n)
{
	if (off > m->n || n > m->n - off) {
		errno = EINVAL;
		return -1;
	}
	if (dx_flush(m->addr + off, n) < 0) {
		errno = EIO;
		return -1;
	}
	dx_fence();
	for (int i = 0; n && i < m->lease.grants; i++) {
		uint64_t lo = m->off + off, hi = lo + n;

		if (lo < m->lease.lo[i])
			lo = m->lease.lo[i];
		if (hi > m->lease.hi[i])
			hi = m->lease.hi[i];
		if (lo < hi && dx_command(m->fd, DX_IOC_COMMIT, m->lease.id[i], 0, lo, hi - lo) < 0 && errno != ENOENT)
			return -1;
	}
	return 0;
}

int daxfsd_stale(const daxfsd_map *m)
{
	uint64_t v[2];

	return dx_load2(m->slot, v) < 0 || v[0] != m->lease.generation;
}

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
	int r = munmap(m->base, m->room);

	dx_lock(&m->lock);
	m->mapped = false;
	last = !m->pins;
	dx_unlock(&m->lock);
	if (last)
		gone(m);
	return r;
}
