/*
 * Mappings. A shared mapping of a served file is made of the region's memory (range.c). What the
 * program still has of it are its pieces; with the last one goes what is mapped beside it. Every
 * other mapping, and whatever cannot be granted, is the kernel's.
 *
 * When others have changed the layout of a file, its mappings are made anew, at the same addresses,
 * by the next call that uses a descriptor of the file. What lies behind the end of the file by then
 * becomes a mapping of the kernel, which raises SIGBUS there.
 */
#include "preload.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>

#include "../sys.h"

#define MAPPINGS 1024
#define PIECES 4096

struct mapping {
	struct dx_range range;
	uint64_t dev, ino;
	bool write;	/* leased to write */
	bool may_write; /* the descriptor was open for writing */
	int pieces; /* 0: free */
};

struct piece {
	char *lo, *hi;
	struct mapping *m;
};

/* All protected by lock. */
static dx_lock_t lock;
static struct mapping mappings[MAPPINGS];
static struct piece pieces[PIECES];
static atomic_int n; /* pieces */

static void before_fork(void) { dx_lock(&lock); }
static void after_fork(void) { dx_unlock(&lock); }

__attribute__((constructor)) static void init(void) { pthread_atfork(before_fork, after_fork, after_fork); }

static uint64_t page_size(void)
{
	static uint64_t size;

	return size ? size : (size = (uint64_t)sysconf(_SC_PAGESIZE));
}

static size_t whole_pages(size_t k) { return (k + page_size() - 1) & ~(page_size() - 1); }

/* offset returns the file offset of an address in a piece. */
static uint64_t offset(const struct piece *p, const char *at) { return p->m->range.off + (uint64_t)(at - p->m->range.addr); }

static struct mapping *new_mapping(void)
{
	for (int i = 0; i < MAPPINGS; i++)
		if (!mappings[i].pieces)
			return &mappings[i];
	return NULL;
}

static void end_piece(struct piece *p)
{
	struct mapping *m = p->m;

	*p = pieces[atomic_fetch_sub(&n, 1) - 1];
	if (--m->pieces == 0)
		dx_range_unmap(&m->range, true);
}

static bool new_piece(char *lo, char *hi, struct mapping *m)
{
	int k = atomic_load(&n);

	if (k == PIECES)
		return false;
	pieces[k] = (struct piece){lo, hi, m};
	m->pieces++;
	atomic_store(&n, k + 1);
	return true;
}

/* cut takes [lo, hi), which is something else by now, out of the pieces. Called with lock held. */
static void cut(char *lo, char *hi)
{
	for (int i = 0; i < atomic_load(&n);) {
		struct piece *p = &pieces[i];

		if (p->hi <= lo || hi <= p->lo) {
			i++;
		} else if (p->lo < lo) {
			if (hi < p->hi)
				(void)new_piece(hi, p->hi, p->m); /* without room for it, it stays as it is for good */
			p->hi = lo;
			i++;
		} else if (hi < p->hi) {
			p->lo = hi;
			i++;
		} else {
			end_piece(p);
		}
	}
}

/* make maps a part of a file that fd has open, and registers it. fixed may be NULL. NULL with errno.
 * Called with lock held. */
static char *make(int fd, uint64_t dev, uint64_t ino, uint64_t off, size_t k, uint32_t flags, bool may_write, void *fixed)
{
	struct mapping *m = new_mapping();
	int r;

	if (!m || atomic_load(&n) == PIECES) {
		errno = ENOMEM;
		return NULL;
	}
	dx_guard_install();
	r = dx_range_map(&m->range, fd, off, k, flags, 0, fixed);
	if (r < 0 && errno == EUCLEAN && m->range.lease.region.unit > page_size()) /* aligned for the device */
		r = dx_range_map(&m->range, fd, off, k, flags, m->range.lease.region.unit, fixed);
	if (r < 0)
		return NULL;
	dx_close(m->range.lease.fd); /* the mappings keep the description */
	m->range.lease.fd = -1;
	m->dev = dev;
	m->ino = ino;
	m->write = flags & DX_WRITE;
	m->may_write = may_write;
	if (fixed)
		cut(m->range.addr, m->range.addr + whole_pages(k));
	(void)new_piece(m->range.addr, m->range.addr + whole_pages(k), m);
	return m->range.addr;
}

/* remake maps a piece anew at its addresses: by a grant, or else as the kernel does. Called with lock
 * held. */
static bool remake(struct piece *p, int fd, bool write, uint32_t flags)
{
	char *lo = p->lo;
	size_t k = (size_t)(p->hi - p->lo);
	uint64_t off = offset(p, lo), dev = p->m->dev, ino = p->m->ino;
	bool may_write = p->m->may_write;
	struct dx_id id;
	uint64_t end;

	if (dx_identify(fd, "", &id) < 0 || id.dev != dev || id.ino != ino)
		return false;
	end = (id.size + page_size() - 1) & ~(page_size() - 1);
	if (end > off && make(fd, dev, ino, off, end - off < k ? end - off : k, (write ? DX_WRITE : 0) | flags, may_write, lo)) {
		size_t got = end - off < k ? end - off : k;

		lo += got, off += got, k -= got;
	}
	if (k && dx_mmap(lo, k, PROT_READ | (write ? PROT_WRITE : 0), MAP_SHARED | MAP_FIXED, fd, off) == MAP_FAILED)
		return false;
	if (k)
		cut(lo, lo + k);
	return true;
}

bool maps_any(void) { return atomic_load_explicit(&n, memory_order_relaxed) > 0; }

void maps_renew(uint64_t dev, uint64_t ino, int fd, bool write)
{
	int err = errno;

	if (!dx_trylock(&lock))
		return;
	for (int i = 0; i < atomic_load(&n); i++) {
		struct piece *p = &pieces[i];

		if (p->m->dev != dev || p->m->ino != ino || (p->m->write && !write) || !dx_range_stale(&p->m->range))
			continue;
		(void)remake(p, fd, p->m->write, p->m->write ? DX_ALLOCATE : 0);
		i = -1; /* the pieces are others now */
	}
	dx_unlock(&lock);
	errno = err;
}

/* served_flags are those of mmap(2) that a grant can do justice to. */
#define SERVED_FLAGS (MAP_SHARED | MAP_SHARED_VALIDATE | MAP_FIXED | MAP_NORESERVE | MAP_POPULATE | MAP_LOCKED | MAP_SYNC | MAP_NONBLOCK)

static void *map_served(struct served s, void *at, size_t k, int prot, int flags, int fd, uint64_t off)
{
	bool write = prot & PROT_WRITE;
	struct dx_id id;
	char *p;

	if (!k || off % page_size() || (flags & ~SERVED_FLAGS) || !(s.flags & FD_READ) || (write && !(s.flags & FD_WRITE)) ||
	    dx_identify(fd, "", &id) < 0 || off + whole_pages(k) > ((id.size + page_size() - 1) & ~(page_size() - 1)))
		return NULL;
	dx_lock(&lock);
	p = make(fd, id.dev, id.ino, off, k, write ? DX_WRITE : 0, s.flags & FD_WRITE, flags & MAP_FIXED ? at : NULL);
	if (p && flags & MAP_SYNC && !pieces[atomic_load(&n) - 1].m->range.lease.region.sync && !pieces[atomic_load(&n) - 1].m->range.lease.region.device) {
		dx_munmap(p, whole_pages(k)); /* stores are not persistent here */
		cut(p, p + whole_pages(k));
		p = NULL;
	}
	dx_unlock(&lock);
	if (!p)
		return NULL;
	if (!(prot & PROT_READ) || prot & PROT_EXEC)
		syscall(SYS_mprotect, p, whole_pages(k), prot);
	if (flags & MAP_LOCKED)
		syscall(SYS_mlock, p, whole_pages(k));
	if (flags & MAP_POPULATE)
		syscall(SYS_madvise, p, whole_pages(k), write ? 23 /* MADV_POPULATE_WRITE */ : 22);
	return p;
}

static void *map_any(void *at, size_t k, int prot, int flags, int fd, off_t off, void *(*next)(void *, size_t, int, int, int, off_t))
{
	int type = flags & (MAP_SHARED | MAP_PRIVATE | MAP_SHARED_VALIDATE), err = errno;
	struct served s;
	void *p;

	if (fd >= 0 && !(flags & MAP_ANONYMOUS) && (type == MAP_SHARED || type == MAP_SHARED_VALIDATE) && off >= 0 && (s = fd_get(fd)).file) {
		if ((p = map_served(s, at, k, prot, flags, fd, (uint64_t)off)))
			return p;
		errno = err;
	}
	p = next(at, k, prot, flags, fd, off);
	if (p != MAP_FAILED && flags & MAP_FIXED && maps_any()) {
		dx_lock(&lock);
		cut(p, (char *)p + whole_pages(k));
		dx_unlock(&lock);
	}
	return p;
}

EXPORT void *mmap(void *at, size_t k, int prot, int flags, int fd, off_t off) { return map_any(at, k, prot, flags, fd, off, NEXT(mmap)); }
EXPORT void *mmap64(void *at, size_t k, int prot, int flags, int fd, off64_t off) { return map_any(at, k, prot, flags, fd, off, NEXT(mmap64)); }

EXPORT int munmap(void *at, size_t k)
{
	int r = NEXT(munmap)(at, k);

	if (r == 0 && maps_any()) {
		dx_lock(&lock);
		cut(at, (char *)at + whole_pages(k));
		dx_unlock(&lock);
	}
	return r;
}

/* find returns the piece that holds all of [lo, lo + k); NULL. Called with lock held. */
static struct piece *find(const char *lo, size_t k)
{
	for (int i = 0; i < atomic_load(&n); i++)
		if (pieces[i].lo <= lo && lo + k <= pieces[i].hi)
			return &pieces[i];
	return NULL;
}

static bool overlaps(const char *lo, const char *hi)
{
	for (int i = 0; i < atomic_load(&n); i++)
		if (pieces[i].lo < hi && lo < pieces[i].hi)
			return true;
	return false;
}

EXPORT int msync(void *at, size_t k, int flags)
{
	char *lo = at, *hi = lo + whole_pages(k);
	bool device = false;
	int err = errno;

	if (!maps_any() || (uintptr_t)at % page_size())
		return NEXT(msync)(at, k, flags);
	dx_lock(&lock);
	for (int i = 0; i < atomic_load(&n); i++) {
		struct piece *p = &pieces[i];
		char *from = p->lo > lo ? p->lo : lo, *to = p->hi < hi ? p->hi : hi;
		int fd;

		if (from >= to || !p->m->write)
			continue;
		if (dx_range_flush(from, (size_t)(to - from)) < 0) {
			dx_unlock(&lock);
			return -1;
		}
		device |= p->m->range.lease.region.device;
		/* Without a descriptor the times are those of the end of the mapping. */
		if ((fd = fd_of(p->m->dev, p->m->ino, 0)) >= 0)
			(void)dx_range_commit(&p->m->range, fd, offset(p, from), (uint64_t)(to - from));
	}
	dx_unlock(&lock);
	errno = err;
	/* A region in an ordinary file is written to the disk. */
	return device ? 0 : NEXT(msync)(at, k, flags);
}

EXPORT int mprotect(void *at, size_t k, int prot)
{
	char *lo = at;

	if (prot & PROT_WRITE && maps_any()) {
		struct piece *p;
		int fd;

		dx_lock(&lock);
		if ((p = find(lo, whole_pages(k))) && !p->m->write) {
			char *from = p->lo;
			size_t all = (size_t)(p->hi - p->lo);

			fd = p->m->may_write ? fd_of(p->m->dev, p->m->ino, FD_WRITE) : -1;
			if (fd < 0 || !remake(p, fd, true, 0)) {
				dx_unlock(&lock);
				errno = EACCES;
				return -1;
			}
			syscall(SYS_mprotect, from, all, PROT_READ);
		}
		dx_unlock(&lock);
	}
	return NEXT(mprotect)(at, k, prot);
}

EXPORT int madvise(void *at, size_t k, int advice)
{
	struct piece *p;
	int r, fd;

	if (advice != MADV_REMOVE || !maps_any())
		return NEXT(madvise)(at, k, advice);
	dx_lock(&lock);
	if (!(p = find(at, whole_pages(k)))) {
		dx_unlock(&lock);
		return NEXT(madvise)(at, k, advice);
	}
	fd = fd_of(p->m->dev, p->m->ino, FD_WRITE);
	if (fd < 0) {
		errno = EACCES;
		r = -1;
	} else {
		r = (int)syscall(SYS_fallocate, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset(p, at), whole_pages(k));
		if (r == 0)
			(void)remake(p, fd, p->m->write, p->m->write ? DX_ALLOCATE : 0);
	}
	dx_unlock(&lock);
	return r;
}

EXPORT void *mremap(void *at, size_t was, size_t now, int flags, ...)
{
	void *to = NULL, *r = MAP_FAILED;
	char *lo = at;
	struct piece *p;
	int fd;

	if (flags & MREMAP_FIXED) {
		va_list a;

		va_start(a, flags);
		to = va_arg(a, void *);
		va_end(a);
	}
	if (!maps_any())
		return NEXT(mremap)(at, was, now, flags, to);
	dx_lock(&lock);
	if (!overlaps(lo, lo + whole_pages(was))) {
		dx_unlock(&lock);
		return NEXT(mremap)(at, was, now, flags, to);
	}
	was = whole_pages(was), now = whole_pages(now);
	p = find(lo, was);
	if (!p || !was || !now || flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED)) {
		errno = EINVAL; /* parts of several mappings, or a second mapping of one */
	} else if (now <= was && !(flags & MREMAP_FIXED)) {
		if (now < was && (dx_munmap(lo + now, was - now) < 0))
			lo = MAP_FAILED;
		else
			cut(lo + now, lo + was);
		r = lo;
	} else if (!(flags & MREMAP_MAYMOVE) || (fd = fd_of(p->m->dev, p->m->ino, p->m->write ? FD_WRITE : 0)) < 0) {
		errno = ENOMEM; /* there is a page beside it; or no descriptor through which to ask */
	} else {
		uint64_t off = offset(p, lo);
		bool write = p->m->write;
		char *moved = make(fd, p->m->dev, p->m->ino, off, now, write ? DX_WRITE | DX_ALLOCATE : 0, p->m->may_write, to);

		if (!moved) { /* as the kernel does */
			moved = dx_mmap(to, now, PROT_READ | (write ? PROT_WRITE : 0), MAP_SHARED | (to ? MAP_FIXED : 0), fd, off);
			if (moved != MAP_FAILED && to)
				cut(moved, moved + now);
		}
		if (moved != MAP_FAILED) {
			dx_munmap(lo, was);
			cut(lo, lo + was);
			r = moved;
		}
	}
	dx_unlock(&lock);
	return r;
}
