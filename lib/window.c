/*
 * Windows: what readers and writers copy from and to.
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
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "sys.h"
#include "window.h"

#define FREE (LONG_MIN / 2) /* users of a free window */

enum {
	budget = 16384, /* mappings of all windows of a process; the kernel allows 65 530 */
};
static const uint64_t loose = 2 * DX_MIB; /* alignment of what is mapped to read: large pages */

static atomic_int maps; /* mappings of all windows */

/* Free windows and files. Anybody pushes; only one pops, with mutate held. */
static _Atomic(struct window *) free_windows;
static _Atomic(struct dx_file *) free_files;

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

/* dx_try_mutate gives up soon: a signal handler may have interrupted the holder. */
bool dx_try_mutate(void)
{
	for (int i = 0; i < 1000; i++)
		if (dx_trylock(&mutate))
			return true;
	return false;
}

void dx_end_mutate(void) { dx_unlock(&mutate); }

uint64_t dx_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 * DX_MS + (uint64_t)t.tv_nsec;
}

static void *fresh(size_t n)
{
	void *p = dx_mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static struct window *new_window(void)
{
	struct window *w = NULL;

	if (dx_try_mutate()) {
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

void dx_file_put(struct dx_file *f)
{
	if (atomic_fetch_sub(&f->users, 1) > 1)
		return;
	if (f->fd >= 0)
		dx_close(f->fd);
	f->next = atomic_load(&free_files);
	while (!atomic_compare_exchange_weak(&free_files, &f->next, f))
		;
}

/* commit tells the daemon, through a descriptor of the file, what was stored. */
int dx_window_commit(struct window *w, int fd)
{
	if (!atomic_exchange(&w->dirty, false))
		return 0;
	if (dx_command(fd, DX_IOC_COMMIT, w->lease.id[0], 0, w->lo, w->hi - w->lo) == 0 || errno == ENOENT)
		return 0;
	return -1;
}

bool dx_window_get(struct window *w)
{
	if (atomic_fetch_add(&w->users, 1) > 0)
		return true;
	atomic_fetch_sub(&w->users, 1);
	return false;
}

void dx_window_put(struct window *w)
{
	long none = 0;
	int e = errno;
	struct dx_file *f;

	if (atomic_fetch_sub(&w->users, 1) != 1 || !atomic_compare_exchange_strong(&w->users, &none, FREE))
		return;
	f = w->table->file;
	if (f->fd >= 0)
		(void)dx_window_commit(w, f->fd); /* at the end of the lease the daemon updates the times anyway */
	dx_munmap(w->base, w->room);
	atomic_fetch_sub(&maps, w->maps);
	dx_lease_end(&w->lease, f->fd);
	free_window(w);
	dx_file_put(f);
	errno = e;
}

/* look loads the slot: whether the window is still of the file's blocks, and the file's size. */
bool dx_window_look(struct window *w, uint64_t *size)
{
	uint64_t v[2];

	if (dx_load2(w->slot, v) < 0)
		return false;
	*size = v[1];
	return v[0] == w->lease.generation;
}

/* map_window maps the extents of a grant, each wherever its unit lies, and the slot. */
static int map_window(struct window *w, const struct dx_grant *g, bool write)
{
	struct dx_lease *l = &w->lease;
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), unit = l->region.unit, modulus;
	uint64_t from[DX_EXTENTS + 1], to[DX_EXTENTS + 1], at[DX_EXTENTS + 1], size = 0;
	int parts = 0;

	if (!write && unit < loose)
		unit = loose;
	modulus = unit > loose ? unit : loose;
	w->places = 0;
	for (uint64_t i = 0; i <= g->extents; i++) {
		/* The last one is the slot's page. */
		bool slot = i == g->extents;
		uint64_t u = slot ? l->region.unit : unit;
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
		errno = ENOMEM;
		goto fail;
	}
	if (!(w->base = dx_reserve(size, modulus, 0)))
		goto fail;
	w->room = size;
	for (int i = 0; i < parts; i++) {
		if (dx_map_region(l, w->base + at[i], to[i] - from[i], from[i], write && i < parts - 1) < 0) {
			int e = errno;

			dx_munmap(w->base, w->room);
			errno = e;
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
	return -1;
}

/* try_window leases and maps what one grant holds of [lo, hi). NULL with errno; ESTALE to try
 * again. */
struct window *dx_window_open(struct dx_table *t, int fd, uint64_t lo, uint64_t hi)
{
	union dx_message m;
	struct window *w;

	if (dx_grant(fd, lo, hi, t->flags, 0, &m) < 0)
		return NULL;
	if (t->file->inode && m.grant.inode != t->file->inode) { /* the descriptor is another file's by now */
		errno = EBADF;
		return NULL;
	}
	if (!(w = new_window()))
		return NULL;
	w->table = t;
	if (dx_lease_begin(&w->lease, &m.grant) < 0 || dx_lease_add(&w->lease, &m.grant, lo) < 0 ||
	    dx_lease_confirm(&w->lease, fd) < 0 || map_window(w, &m.grant, t->flags & DX_WRITE) < 0) {
		dx_lease_end(&w->lease, fd);
		free_window(w);
		return NULL;
	}
	/* The mappings keep the description. */
	dx_close(w->lease.fd);
	w->lease.fd = -1;
	w->lo = lo;
	w->hi = m.grant.end;
	w->cut = w->hi < hi && m.grant.extents < DX_EXTENTS;
	w->since = dx_now();
	atomic_store(&w->dirty, false);
	atomic_fetch_add(&t->file->users, 1);
	atomic_fetch_add(&w->users, 2 - FREE); /* the table's and the caller's */
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

/* limit returns how many of n bytes from off on are in the window and the file; DX_STALE. */
static ssize_t limit(struct window *w, size_t n, uint64_t off)
{
	uint64_t size, end;

	if (!dx_window_look(w, &size))
		return DX_STALE;
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
				return DX_FAULT;
			i++;
		}
		buf += k, off += k, n -= k;
	}
	atomic_thread_fence(memory_order_acquire); /* the slot is loaded after the bytes */
	return dx_window_look(w, &size) ? all : DX_STALE;
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
			return DX_FAULT;
		buf += k, off += k, n -= k;
	}
	dx_fence();
	if (!atomic_load_explicit(&w->dirty, memory_order_relaxed))
		atomic_store(&w->dirty, true); /* afterwards: a COMMIT meanwhile was not of these bytes */
	return all;
}


ssize_t dx_window_copy(struct window *w, bool write, char *buf, size_t n, uint64_t off)
{
	return write ? store(w, buf, n, off) : load(w, buf, n, off);
}

static void new_table(struct dx_table *t, struct dx_file *f, uint32_t flags)
{
	t->file = f;
	t->flags = flags;
	t->span = flags & DX_WRITE ? 64 * DX_MIB : DX_GIB; /* to write: what is unwritten is zeroed */
	t->pause = 0;
	t->fine = false;
	atomic_store(&t->resume, 0);
	atomic_store(&t->opening, 0);
}

struct dx_file *dx_file_new(int fd, uint64_t inode)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct dx_file *f = NULL;

	pthread_once(&once, init);
	if (!dx_try_mutate()) {
		errno = EAGAIN;
		return NULL;
	}
	do
		f = atomic_load(&free_files);
	while (f && !atomic_compare_exchange_weak(&free_files, &f, f->next));
	dx_unlock(&mutate);
	if (!f && !(f = fresh(sizeof *f)))
		return NULL;
	f->fd = fd;
	f->inode = inode;
	atomic_store(&f->users, 1);
	new_table(&f->readers, f, 0);
	new_table(&f->writers, f, DX_WRITE);
	return f;
}

