/*
 * Reading and writing by copying.
 *
 * A file has a table of windows for each kind of access. A window is a part of the file that is
 * leased and mapped. Readers find a window without a lock: files and windows are never given back
 * to the system, so a pointer that is out of date leads to another window at worst, which the reader
 * notices once it has a reference.
 *
 * States of a window: free -> in a table (its reference and those of running calls) -> dropped ->
 * free, when the last call has ended.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

/* A part of a window that is contiguous in the region. */
struct place {
	uint64_t off, n; /* in the file */
	char *at;
};

struct window {
	struct window *next; /* of the free ones */
	atomic_long users;   /* negative: free */
	struct table *table; /* the others are set while the window is free, and do not change */
	uint64_t lo, hi;
	const char *slot;
	char *base;
	size_t room;
	struct dx_lease lease;
	bool cut; /* ends where the file or its blocks ended, not where the reply was full */
	uint64_t since;
	int maps;
	atomic_bool dirty; /* stored to since the last COMMIT */
	int places;
	struct place place[DX_EXTENTS];
};

#define FREE (LONG_MIN / 2)
#define WINDOWS 128 /* of a table */

struct table {
	struct daxfsd_file *file;
	uint32_t flags;
	dx_lock_t opening;	/* held while a window is leased */
	atomic_ullong resume;	/* when to ask again, ns; 0: now */
	uint64_t span, pause;	/* protected by opening: bytes, ns */
	bool fine;		/* protected by opening: a grant holds few MiB of this file */
	atomic_int n;		/* changed with mutate held, as the rest */
	_Atomic uint64_t lo[WINDOWS];
	_Atomic(struct window *) at[WINDOWS];
};

struct daxfsd_file {
	struct daxfsd_file *next; /* of the free ones */
	atomic_int users;	  /* the caller, and each window */
	int fd;
	int mode; /* O_ACCMODE and O_APPEND of the descriptor */
	struct table readers, writers;
};

#define GIB (UINT64_C(1) << 30)
#define MIB (UINT64_C(1) << 20)
#define MS UINT64_C(1000000)

enum {
	budget = 16384, /* mappings of all windows of a process; the kernel allows 65 530 */
};
static const uint64_t loose = 2 * MIB;	   /* alignment of what is mapped to read: large pages */
static const uint64_t fine_span = MIB;	   /* the extents of so many bytes fit into a reply */
static const uint64_t beyond = UINT64_C(1) << 44; /* no file is as large */

static atomic_int maps; /* mappings of all windows */

/* Free windows and files. Anybody pushes; only one pops, with mutate held. */
static _Atomic(struct window *) free_windows;
static _Atomic(struct daxfsd_file *) free_files;

/* mutate is held for moments: to change a table, and to take something free. fork(2) takes it. */
static dx_lock_t mutate;

static void before_fork(void) { dx_lock(&mutate); }
static void after_fork(void) { dx_unlock(&mutate); }
static void in_child(void)
{
	dx_new_epoch(); /* no thread of the parent holds a lock here */
	dx_unlock(&mutate);
}

static void init(void) { pthread_atfork(before_fork, after_fork, in_child); }

/* try_mutate gives up soon: a signal handler may have interrupted the holder. */
static bool try_mutate(void)
{
	for (int i = 0; i < 1000; i++)
		if (dx_trylock(&mutate))
			return true;
	return false;
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 * MS + (uint64_t)t.tv_nsec;
}

static void *fresh(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static struct window *new_window(void)
{
	struct window *w = NULL;

	if (try_mutate()) {
		do
			w = atomic_load(&free_windows);
		while (w && !atomic_compare_exchange_weak(&free_windows, &w, w->next));
		dx_unlock(&mutate);
	}
	if (!w && (w = fresh(sizeof *w)))
		atomic_store(&w->users, FREE);
	return w;
}

static void free_window(struct window *w)
{
	w->next = atomic_load(&free_windows);
	while (!atomic_compare_exchange_weak(&free_windows, &w->next, w))
		;
}

static void put_file(struct daxfsd_file *f)
{
	if (atomic_fetch_sub(&f->users, 1) > 1)
		return;
	close(f->fd);
	f->next = atomic_load(&free_files);
	while (!atomic_compare_exchange_weak(&free_files, &f->next, f))
		;
}

static int commit(struct window *w)
{
	if (!atomic_exchange(&w->dirty, false))
		return 0;
	if (dx_command(w->table->file->fd, DX_IOC_COMMIT, w->lease.id[0], 0, w->lo, w->hi - w->lo) == 0 || errno == ENOENT)
		return 0;
	return -1;
}

static bool get(struct window *w)
{
	if (atomic_fetch_add(&w->users, 1) > 0)
		return true;
	atomic_fetch_sub(&w->users, 1);
	return false;
}

static void put(struct window *w)
{
	long none = 0;
	int e = errno;
	struct daxfsd_file *f;

	if (atomic_fetch_sub(&w->users, 1) != 1 || !atomic_compare_exchange_strong(&w->users, &none, FREE))
		return;
	f = w->table->file;
	(void)commit(w); /* at the end of the lease the daemon updates the times anyway */
	munmap(w->base, w->room);
	atomic_fetch_sub(&maps, w->maps);
	dx_lease_end(&w->lease, f->fd);
	free_window(w);
	put_file(f);
	errno = e;
}

/* after returns the index of the first window that begins behind off. */
static int after(struct table *t, uint64_t off)
{
	int lo = 0, hi = atomic_load_explicit(&t->n, memory_order_acquire);

	while (lo < hi) {
		int mid = (lo + hi) / 2;

		if (atomic_load_explicit(&t->lo[mid], memory_order_relaxed) > off)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

/* find returns the window that holds byte off, with a reference; NULL if there is none. */
static struct window *find(struct table *t, uint64_t off)
{
	int i = after(t, off);
	struct window *w;

	if (i == 0 || !(w = atomic_load_explicit(&t->at[i - 1], memory_order_acquire)) || !get(w))
		return NULL;
	if (w->table == t && w->lo <= off && off < w->hi)
		return w;
	put(w);
	return NULL;
}

/* removed takes the window with index i out of the table. Called with mutate held. */
static struct window *removed(struct table *t, int i)
{
	int n = atomic_load(&t->n);
	struct window *w = atomic_load(&t->at[i]);

	for (; i + 1 < n; i++) {
		atomic_store(&t->lo[i], atomic_load(&t->lo[i + 1]));
		atomic_store(&t->at[i], atomic_load(&t->at[i + 1]));
	}
	atomic_store(&t->at[n - 1], NULL);
	atomic_store(&t->n, n - 1);
	return w;
}

/* drop takes windows out of the table that the condition holds for, and puts them. It reports
 * whether one of them was there for a moment only. */
static bool drop(struct table *t, bool (*cond)(struct window *w, void *arg), void *arg)
{
	struct window *old[WINDOWS];
	uint64_t at = now();
	bool young = false;
	int n = 0;

	if (!try_mutate())
		return true;
	for (int i = 0; i < atomic_load(&t->n);) {
		struct window *w = atomic_load(&t->at[i]);

		if (cond(w, arg))
			old[n++] = removed(t, i);
		else
			i++;
	}
	dx_unlock(&mutate);
	for (int i = 0; i < n; i++) {
		young |= at - old[i]->since < 10 * MS;
		put(old[i]);
	}
	return young;
}

/* look loads the slot: whether the window is still of the file's blocks, and the file's size. */
static bool look(struct window *w, uint64_t *size)
{
	uint64_t v[2];

	if (dx_load2(w->slot, v) < 0)
		return false;
	*size = v[1];
	return v[0] == w->lease.generation;
}

static bool is_stale(struct window *w, void *arg)
{
	uint64_t size;

	(void)arg;
	return !look(w, &size);
}

static bool overlaps(struct window *w, void *arg)
{
	struct window *v = arg;

	return w->lo < v->hi && v->lo < w->hi;
}

static bool every(struct window *w, void *arg)
{
	(void)w, (void)arg;
	return true;
}

static bool oldest(struct window *w, void *arg) { return w == arg; }

/* pause_for asks nothing for a while: first, or twice as long as the last time. */
static void pause_for(struct table *t, uint64_t first)
{
	t->pause = 2 * t->pause > first ? 2 * t->pause : first;
	if (t->pause > 1000 * MS)
		t->pause = 1000 * MS;
	atomic_store(&t->resume, now() + t->pause);
}

/* stale drops the windows that are not of the file's blocks any more. */
static void stale(struct table *t)
{
	if (drop(t, is_stale, NULL) && dx_trylock(&t->opening)) {
		pause_for(t, MS);
		dx_unlock(&t->opening);
	}
}

/* map_window maps the extents of a grant, each wherever its unit lies, and the slot. */
static int map_window(struct window *w, const struct dx_grant *g, bool write)
{
	struct dx_lease *l = &w->lease;
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), unit = l->region.unit > page ? l->region.unit : page, modulus;
	uint64_t from[DX_EXTENTS + 1], to[DX_EXTENTS + 1], at[DX_EXTENTS + 1], size = 0;
	int parts = 0, e;
	char *p;

	if (!write && unit < loose)
		unit = loose;
	modulus = unit > loose ? unit : loose;
	w->places = 0;
	for (uint64_t i = 0; i <= g->extents; i++) {
		/* The last one is the slot's page. */
		bool slot = i == g->extents;
		uint64_t u = slot ? (l->region.unit > page ? l->region.unit : page) : unit;
		uint64_t region = slot ? g->slot : g->extent[i].region, n = slot ? DX_SLOT_SIZE : g->extent[i].length;
		uint64_t lo = region & ~(u - 1), hi = (region + n + u - 1) & ~(u - 1);
		int k = parts - 1;

		if (hi > g->region_size)
			hi = (g->region_size + page - 1) & ~(page - 1);
		if (!slot && k >= 0 && lo >= from[k] && lo <= to[k]) {
			if (hi > to[k])
				size += hi - to[k], to[k] = hi;
		} else {
			k = parts++;
			size = (size + modulus - 1) & ~(modulus - 1);
			from[k] = lo, to[k] = hi, at[k] = size + (lo & (modulus - 1));
			size = at[k] + hi - lo;
		}
		if (slot)
			w->slot = (char *)(uintptr_t)(at[k] + region - lo);
		else
			w->place[w->places++] = (struct place){g->extent[i].offset, n, (char *)(uintptr_t)(at[k] + region - from[k])};
	}
	w->maps = 2 * parts + 1; /* and the gaps between them */
	if (atomic_fetch_add(&maps, w->maps) + w->maps > budget) {
		e = ENOMEM;
		goto fail;
	}
	p = mmap(NULL, size + modulus, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED) {
		e = errno;
		goto fail;
	}
	w->base = (char *)(((uintptr_t)p + modulus - 1) & ~(uintptr_t)(modulus - 1));
	if (w->base > p)
		munmap(p, (size_t)(w->base - p));
	if (p + modulus > w->base)
		munmap(w->base + size, (size_t)(p + modulus - w->base));
	w->room = size;
	for (int i = 0; i < parts; i++) {
		if (dx_map_region(l, w->base + at[i], to[i] - from[i], from[i], write && i < parts - 1) < 0) {
			e = errno;
			munmap(w->base, w->room);
			goto fail;
		}
		if (!l->region.device)
			madvise(w->base + at[i], to[i] - from[i], MADV_HUGEPAGE); /* a hint */
	}
	for (int i = 0; i < w->places; i++)
		w->place[i].at = w->base + (uintptr_t)w->place[i].at;
	w->slot = w->base + (uintptr_t)w->slot;
	return 0;
fail:
	atomic_fetch_sub(&maps, w->maps);
	errno = e;
	return -1;
}

/* try_window leases and maps what one grant holds of [lo, hi). NULL with errno; ESTALE to try
 * again. */
static struct window *try_window(struct table *t, uint64_t lo, uint64_t hi)
{
	union dx_message m;
	struct window *w;
	int fd = t->file->fd;

	if (dx_grant(fd, lo, hi, t->flags, 0, &m) < 0 || !(w = new_window()))
		return NULL;
	w->table = t;
	if (dx_lease_begin(&w->lease, &m.grant) < 0 || dx_lease_add(&w->lease, &m.grant, lo) < 0 ||
	    dx_lease_confirm(&w->lease, fd) < 0 || map_window(w, &m.grant, t->flags & DX_WRITE) < 0) {
		dx_lease_end(&w->lease, fd);
		free_window(w);
		return NULL;
	}
	/* The mappings keep the description. */
	close(w->lease.fd);
	w->lease.fd = -1;
	w->lo = lo;
	w->hi = m.grant.end;
	w->cut = w->hi < hi && m.grant.extents < DX_EXTENTS;
	w->since = now();
	atomic_store(&w->dirty, false);
	atomic_fetch_add(&t->file->users, 1);
	atomic_fetch_add(&w->users, 2 - FREE); /* the table's and the caller's */
	return w;
}

/* add puts a window into the table. It fails if another caller is changing tables. */
static bool add(struct table *t, struct window *w)
{
	int n, i;

	drop(t, overlaps, w);
	if (atomic_load(&t->n) == WINDOWS) {
		struct window *old = atomic_load(&t->at[0]);

		for (i = 1; i < WINDOWS; i++)
			if (atomic_load(&t->at[i])->since < old->since)
				old = atomic_load(&t->at[i]);
		drop(t, oldest, old);
	}
	if (!try_mutate())
		return false;
	n = atomic_load(&t->n);
	if (n == WINDOWS) {
		dx_unlock(&mutate);
		return false;
	}
	for (i = n; i > 0 && atomic_load(&t->lo[i - 1]) > w->lo; i--) {
		atomic_store(&t->lo[i], atomic_load(&t->lo[i - 1]));
		atomic_store(&t->at[i], atomic_load(&t->at[i - 1]));
	}
	atomic_store(&t->lo[i], w->lo);
	atomic_store_explicit(&t->at[i], w, memory_order_release);
	atomic_store_explicit(&t->n, n + 1, memory_order_release);
	dx_unlock(&mutate);
	return true;
}

/* range finds what to ask for when a window is wanted that holds off. Called with opening held. */
static void range(struct table *t, uint64_t off, uint64_t *lo, uint64_t *hi)
{
	int i = after(t, off);
	struct window *w;

	*lo = off & ~(t->span - 1);
	*hi = *lo + t->span;
	if (t->fine)
		*lo = off & ~(t->flags & DX_WRITE ? (uint64_t)DX_BLOCK - 1 : fine_span - 1);
	if (i > 0 && (w = atomic_load(&t->at[i - 1]))) {
		if (w->cut && w->lo >= *lo)
			*lo = w->lo; /* the file has grown: one larger window instead of two */
		else if (w->hi > *lo && w->hi <= off)
			*lo = w->hi;
	}
	if (i < atomic_load(&t->n) && (w = atomic_load(&t->at[i])) && w->lo < *hi)
		*hi = w->lo;
}

/* lease returns a new window that holds off, with a reference. NULL with errno. Called with opening
 * held. */
static struct window *lease(struct table *t, uint64_t off)
{
	for (int try = 0; try < 8; try++) {
		uint64_t lo, hi, began = now();
		struct window *w;

		range(t, off, &lo, &hi);
		if (try >= 4)
			lo = off & ~(uint64_t)(DX_BLOCK - 1);
		w = try_window(t, lo, hi);
		if (!w && errno == ESTALE)
			continue;
		if (!w && errno == ENXIO && lo < (off & ~(uint64_t)(DX_BLOCK - 1)) && !t->fine) {
			t->fine = true; /* a hole before off */
			continue;
		}
		if (!w)
			return NULL;
		if (off < w->hi && add(t, w)) {
			if (!w->cut && !t->fine && t->span < GIB && now() - began < 2 * MS)
				t->span *= 2;
			return w;
		}
		put(w);
		put(w);
		t->fine = true;
	}
	errno = EAGAIN;
	return NULL;
}

/* open_window returns a window that holds off, with a reference. NULL if the access should go by the
 * system calls: there is no grant now, or another thread is just asking. */
static struct window *open_window(struct table *t, uint64_t off)
{
	uint64_t resume = atomic_load(&t->resume);
	struct window *w;

	if (off >= beyond || (resume && now() < resume) || !dx_trylock(&t->opening))
		return NULL;
	if (!(w = find(t, off)) && !(w = lease(t, off)))
		switch (errno) {
		case ENXIO: /* a hole, which a program may be filling; or the end of the file */
			pause_for(t, MS);
			break;
		case EOPNOTSUPP: case EROFS: case EACCES: case EPERM: case EPROTO: case ENOTTY:
			atomic_store(&t->resume, now() + 10000 * MS);
			break;
		default:
			atomic_store(&t->resume, now() + 1000 * MS);
		}
	dx_unlock(&t->opening);
	return w;
}

/* at_place returns the index of the first place that ends behind off. */
static int at_place(const struct window *w, uint64_t off)
{
	int lo = 0, hi = w->places;

	while (lo < hi) {
		int mid = (lo + hi) / 2;

		if (w->place[mid].off + w->place[mid].n <= off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* What a copy came to: bytes, 0 at the end of the file, or: */
enum { STALE = -1, FAULT = -2 };

/* limit returns how many of n bytes from off on are in the window and the file; STALE. */
static ssize_t limit(struct window *w, size_t n, uint64_t off)
{
	uint64_t size, end;

	if (!look(w, &size))
		return STALE;
	end = size < w->hi ? size : w->hi;
	if (end <= off)
		return 0;
	return n < end - off ? (ssize_t)n : (ssize_t)(end - off);
}

static ssize_t load(struct window *w, char *buf, size_t n, uint64_t off)
{
	ssize_t all = limit(w, n, off);
	uint64_t size;

	if (all <= 0)
		return all;
	n = (size_t)all;
	for (int i = at_place(w, off); n;) {
		const struct place *p = &w->place[i];
		size_t k = n;

		if (i == w->places || off < p->off) { /* a hole */
			if (i < w->places && k > p->off - off)
				k = p->off - off;
			memset(buf, 0, k);
		} else {
			if (k > p->off + p->n - off)
				k = p->off + p->n - off;
			if (dx_copy(buf, p->at + (off - p->off), k) < 0)
				return FAULT;
			i++;
		}
		buf += k, off += k, n -= k;
	}
	atomic_thread_fence(memory_order_acquire); /* the slot is loaded after the bytes */
	return look(w, &size) ? all : STALE;
}

/*
 * store is durable when it returns. Under a lease to write no block moves, so a store that meets a
 * truncation is a store before it: the slot is not looked at again.
 */
static ssize_t store(struct window *w, const char *buf, size_t n, uint64_t off)
{
	ssize_t all = limit(w, n, off);

	if (all <= 0)
		return all;
	n = (size_t)all;
	for (int i = at_place(w, off); n; i++) {
		const struct place *p = &w->place[i];
		size_t k = n < p->off + p->n - off ? n : p->off + p->n - off;

		if (dx_store(p->at + (off - p->off), buf, k) < 0)
			return FAULT;
		buf += k, off += k, n -= k;
	}
	dx_fence();
	if (!atomic_load_explicit(&w->dirty, memory_order_relaxed))
		atomic_store(&w->dirty, true); /* afterwards: a COMMIT meanwhile was not of these bytes */
	return all;
}

/* direct copies as much as is possible directly, and returns how much that was. *end is set if the
 * file ends there. */
static size_t direct(struct table *t, char *buf, size_t n, uint64_t off, bool *end)
{
	size_t done = 0;

	*end = false;
	for (int tries = 0; done < n && tries < 3;) {
		struct window *w = find(t, off + done);
		ssize_t k;

		if (!w) {
			tries++;
			if (!(w = open_window(t, off + done)))
				break;
		}
		k = t->flags & DX_WRITE ? store(w, buf + done, n - done, off + done) : load(w, buf + done, n - done, off + done);
		put(w);
		if (k > 0) {
			done += (size_t)k;
			continue;
		}
		if (k == STALE) {
			stale(t);
			tries++;
			continue;
		}
		*end = k == 0;
		break;
	}
	return done;
}

static bool is_direct(const daxfsd_file *f, bool write, size_t n, off_t off)
{
	int mode = f->mode & O_ACCMODE;

	return n && n <= SSIZE_MAX && off >= 0 && (uint64_t)off < beyond && n < beyond - (uint64_t)off &&
	       (write ? mode != O_RDONLY && !(f->mode & O_APPEND) : mode != O_WRONLY);
}

ssize_t daxfsd_pread(daxfsd_file *f, void *buf, size_t n, off_t off)
{
	size_t done = 0;
	bool end;
	ssize_t k;

	if (is_direct(f, false, n, off)) {
		int e = errno;

		done = direct(&f->readers, buf, n, (uint64_t)off, &end);
		errno = e;
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
		int e = errno;

		done = direct(&f->writers, (char *)(uintptr_t)buf, n, (uint64_t)off, &end);
		errno = e;
		if (done == n)
			return (ssize_t)done;
	}
	k = pwrite(f->fd, (const char *)buf + done, n - done, off + (off_t)done);
	return k >= 0 ? (ssize_t)done + k : done ? (ssize_t)done : k;
}

int daxfsd_sync(daxfsd_file *f)
{
	struct table *t = &f->writers;
	int r = 0;

	for (int i = 0; i < atomic_load(&t->n); i++) {
		struct window *w = atomic_load(&t->at[i]);

		if (!w || !get(w))
			continue;
		if (w->table == t && commit(w) < 0)
			r = -1;
		put(w);
	}
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

static void new_table(struct table *t, daxfsd_file *f, uint32_t flags)
{
	t->file = f;
	t->flags = flags;
	t->span = flags & DX_WRITE ? 64 * MIB : GIB; /* to write: what is unwritten is zeroed */
	t->pause = 0;
	t->fine = false;
	atomic_store(&t->resume, 0);
	atomic_store(&t->opening, 0);
}

/* probe asks whether the mount makes grants at all. */
static int probe(daxfsd_file *f)
{
	union dx_message m;
	struct window *w;

	if ((f->mode & O_ACCMODE) == O_WRONLY) {
		if (dx_grant(f->fd, beyond - DX_BLOCK, beyond, DX_WRITE, 0, &m) == 0)
			return 0;
	} else {
		dx_lock(&f->readers.opening);
		w = lease(&f->readers, 0);
		dx_unlock(&f->readers.opening);
		if (w) {
			put(w);
			return 0;
		}
	}
	/* Nothing there yet, or no room now: it may be different later. */
	return errno == ENXIO || errno == ENOLCK || errno == EAGAIN || errno == ENOMEM ? 0 : -1;
}

daxfsd_file *daxfsd_open(int fd)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	daxfsd_file *f = NULL;
	int mode = fcntl(fd, F_GETFL);
	struct stat st;

	if (mode < 0 || fstat(fd, &st) < 0)
		return NULL;
	if (!S_ISREG(st.st_mode)) {
		errno = EINVAL;
		return NULL;
	}
	pthread_once(&once, init);
	dx_guard_install();
	dx_lock(&mutate);
	do
		f = atomic_load(&free_files);
	while (f && !atomic_compare_exchange_weak(&free_files, &f, f->next));
	dx_unlock(&mutate);
	if (!f && !(f = fresh(sizeof *f)))
		return NULL;
	f->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	f->mode = mode;
	atomic_store(&f->users, 1);
	new_table(&f->readers, f, 0);
	new_table(&f->writers, f, DX_WRITE);
	if (f->fd < 0 || probe(f) < 0) {
		int e = errno;

		daxfsd_close(f);
		errno = e;
		return NULL;
	}
	return f;
}

int daxfsd_close(daxfsd_file *f)
{
	while (atomic_load(&f->readers.n) || atomic_load(&f->writers.n)) {
		drop(&f->readers, every, NULL);
		drop(&f->writers, every, NULL);
	}
	put_file(f);
	return 0;
}
