/*
 * Ranges: contiguous bytes of a file, mapped.
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
#include "internal.h"
#include "sys.h"

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
		void *p = l->x ? (void *)syscall(SYS_mremap, l->x, l->room * sizeof *x, room * sizeof *x, MREMAP_MAYMOVE) :
				 dx_mmap(NULL, room * sizeof *x, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED)
			return -1;
		l->x = p;
		l->room = room;
	}
	l->x[l->n++] = *x;
	return 0;
}

/* try_lease leases the whole range. -1 with errno; ESTALE to begin again. */
static int try_lease(struct dx_range *m, int fd, uint32_t flags, uint64_t page, struct list *l)
{
	union dx_message r;
	uint64_t lo = m->off, end = m->off + ((m->n + DX_BLOCK - 1) & ~(uint64_t)(DX_BLOCK - 1));

	l->n = 0;
	m->lease.fd = -1;
	m->lease.grants = 0;
	for (bool first = true; lo < end; first = false) {
		if (dx_grant(fd, lo, end, flags, page, &r) < 0) {
			if (errno == ENXIO)
				errno = ENODATA;
			return -1;
		}
		if (first && dx_lease_begin(&m->lease, &r.grant) < 0)
			return -1;
		if (dx_lease_add(&m->lease, &r.grant, lo) < 0)
			return -1;
		for (uint64_t i = 0; i < r.grant.extents; i++)
			if (append(l, &r.grant.extent[i]) < 0)
				return -1;
		lo = r.grant.end;
	}
	return dx_lease_confirm(&m->lease, fd);
}

static uint64_t up(uint64_t v, uint64_t unit) { return (v + unit - 1) & ~(unit - 1); }
static uint64_t down(uint64_t v, uint64_t unit) { return v & ~(unit - 1); }

/* zeros maps [lo, hi) of the window as a hole that reads as zeros. */
static int zeros(struct dx_range *m, uint64_t lo, uint64_t hi)
{
	if (lo >= hi)
		return 0;
	return dx_mmap(m->base + lo, hi - lo, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED ? -1 : 0;
}

/* place maps the extents. at is where off lies in the window, end is the window's size. */
static int place(struct dx_range *m, const struct list *l, uint64_t at, uint64_t end, uint64_t unit, bool write)
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

char *dx_reserve(size_t n, uint64_t modulus, uint64_t rest)
{
	char *p = dx_mmap(NULL, n + modulus, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0), *base;

	if (p == MAP_FAILED)
		return NULL;
	base = p + ((rest - (uintptr_t)p) & (modulus - 1));
	if (base > p)
		dx_munmap(p, (size_t)(base - p));
	if (p + modulus > base)
		dx_munmap(base + n, (size_t)(p + modulus - base));
	return base;
}

/* map maps the extents: at an address that suits them, or at a given one. */
static int map(struct dx_range *m, const struct list *l, int fd, bool write, void *fixed)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), unit = m->lease.region.unit, modulus, at, end, delta = 0, longest = 0;

	modulus = unit;
	for (uint64_t s = UINT64_C(2) << 20; s <= UINT64_C(1) << 30; s <<= 9)
		if (m->n >= s && modulus < s)
			modulus = s;
	for (size_t i = 0; i < l->n; i++)
		if (l->x[i].length > longest)
			longest = l->x[i].length, delta = (l->x[i].region - l->x[i].offset) & (modulus - 1);
	at = (m->off + delta) & (unit - 1);
	end = up(at + up(m->n, page), unit);
	if (fixed && (at || end != up(m->n, page) || (uintptr_t)fixed % unit)) {
		errno = EUCLEAN; /* pages of the region would reach beyond what may be replaced */
		return -1;
	}
	if (fixed)
		m->base = fixed;
	else if (!(m->base = dx_reserve(end, modulus, (m->off + delta - at) & (modulus - 1))))
		return -1;
	m->room = end;
	m->addr = m->base + at;
	if (place(m, l, at, end, unit, write) < 0)
		return -1;
	/* Beside it the slot, and a page of the file: so the mount is in use, as it is by a mapping of the
	 * file. */
	m->beside_room = unit + page;
	if (!(m->beside = dx_reserve(m->beside_room, unit, 0)))
		return -1;
	m->slot = m->beside + (m->lease.slot & (unit - 1));
	if (dx_map_region(&m->lease, m->beside, unit, down(m->lease.slot, unit), false) < 0)
		return -1;
	return dx_mmap(m->beside + unit, page, PROT_NONE, MAP_PRIVATE | MAP_FIXED, fd, 0) == MAP_FAILED ? -1 : 0;
}

int dx_range_map(struct dx_range *m, int fd, uint64_t off, uint64_t n, uint32_t flags, uint64_t page, void *fixed)
{
	struct list l = {0};
	int r = -1, e;

	memset(m, 0, sizeof *m);
	m->off = off;
	m->n = n;
	m->lease.fd = -1;
	for (int try = 0; try < 8 && r < 0; try++) {
		if (try)
			dx_lease_end(&m->lease, fd);
		r = try_lease(m, fd, flags, page, &l);
		if (r < 0 && errno != ESTALE)
			break;
	}
	if (r < 0 && errno == ESTALE)
		errno = EAGAIN;
	if (r == 0)
		r = map(m, &l, fd, flags & DX_WRITE, fixed);
	e = errno;
	if (l.x)
		dx_munmap(l.x, l.room * sizeof *l.x);
	if (r < 0) {
		dx_range_unmap(m, fixed);
		dx_lease_end(&m->lease, fd);
	}
	errno = e;
	return r;
}

void dx_range_unmap(struct dx_range *m, bool keep)
{
	if (m->base && !keep)
		dx_munmap(m->base, m->room);
	if (m->beside)
		dx_munmap(m->beside, m->beside_room);
	m->base = m->beside = NULL;
}

bool dx_range_stale(const struct dx_range *m)
{
	uint64_t v[2];

	return dx_load2(m->slot, v) < 0 || v[0] != m->lease.generation;
}

int dx_range_flush(char *at, size_t n)
{
	if (dx_flush(at, n) < 0) {
		errno = EIO;
		return -1;
	}
	dx_fence();
	return 0;
}

int dx_range_commit(struct dx_range *m, int fd, uint64_t off, uint64_t n)
{
	for (int i = 0; n && i < m->lease.grants; i++) {
		uint64_t lo = off, hi = off + n;

		if (lo < m->lease.lo[i])
			lo = m->lease.lo[i];
		if (hi > m->lease.hi[i])
			hi = m->lease.hi[i];
		if (lo < hi && dx_command(fd, DX_IOC_COMMIT, m->lease.id[i], 0, lo, hi - lo) < 0 && errno != ENOENT)
			return -1;
	}
	return 0;
}
