/* Tables of windows, and reading and writing through them. */
#define _GNU_SOURCE
#include <errno.h>

#include "window.h"

static const uint64_t fine_span = DX_MIB;	   /* the extents of so many bytes fit into a reply */
static const uint64_t beyond = UINT64_C(1) << 44; /* no file is as large */

/* after returns the index of the first window that begins behind off. */
static int after(struct dx_table *t, uint64_t off)
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
static struct window *find(struct dx_table *t, uint64_t off)
{
	int i = after(t, off);
	struct window *w;

	if (i == 0 || !(w = atomic_load_explicit(&t->at[i - 1], memory_order_acquire)) || !dx_window_get(w))
		return NULL;
	if (w->table == t && w->lo <= off && off < w->hi)
		return w;
	dx_window_put(w);
	return NULL;
}

/* removed takes the window with index i out of the table. Called with mutate held. */
static struct window *removed(struct dx_table *t, int i)
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
static bool drop(struct dx_table *t, bool (*cond)(struct window *w, void *arg), void *arg)
{
	struct window *old[WINDOWS];
	uint64_t at = dx_now();
	bool young = false;
	int n = 0;

	if (!dx_try_mutate())
		return true;
	for (int i = 0; i < atomic_load(&t->n);) {
		struct window *w = atomic_load(&t->at[i]);

		if (cond(w, arg))
			old[n++] = removed(t, i);
		else
			i++;
	}
	dx_end_mutate();
	for (int i = 0; i < n; i++) {
		young |= at - old[i]->since < 10 * DX_MS;
		dx_window_put(old[i]);
	}
	return young;
}

static bool is_stale(struct window *w, void *arg)
{
	uint64_t size;

	(void)arg;
	return !dx_window_look(w, &size);
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
static void pause_for(struct dx_table *t, uint64_t first)
{
	t->pause = 2 * t->pause > first ? 2 * t->pause : first;
	if (t->pause > 1000 * DX_MS)
		t->pause = 1000 * DX_MS;
	atomic_store(&t->resume, dx_now() + t->pause);
}

/* stale drops the windows that are not of the file's blocks any more. */
static void stale(struct dx_table *t)
{
	if (drop(t, is_stale, NULL) && dx_trylock(&t->opening)) {
		pause_for(t, DX_MS);
		dx_unlock(&t->opening);
	}
}

/* add puts a window into the table. It fails if another caller is changing tables. */
static bool add(struct dx_table *t, struct window *w)
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
	if (!dx_try_mutate())
		return false;
	n = atomic_load(&t->n);
	if (n == WINDOWS) {
		dx_end_mutate();
		return false;
	}
	for (i = n; i > 0 && atomic_load(&t->lo[i - 1]) > w->lo; i--) {
		atomic_store(&t->lo[i], atomic_load(&t->lo[i - 1]));
		atomic_store(&t->at[i], atomic_load(&t->at[i - 1]));
	}
	atomic_store(&t->lo[i], w->lo);
	atomic_store_explicit(&t->at[i], w, memory_order_release);
	atomic_store_explicit(&t->n, n + 1, memory_order_release);
	dx_end_mutate();
	return true;
}

/* range finds what to ask for when a window is wanted that holds off. Called with opening held. */
static void range(struct dx_table *t, uint64_t off, uint64_t *lo, uint64_t *hi)
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
static struct window *lease(struct dx_table *t, int fd, uint64_t off)
{
	for (int try = 0; try < 8; try++) {
		uint64_t lo, hi, began = dx_now();
		struct window *w;

		range(t, off, &lo, &hi);
		if (try >= 4)
			lo = off & ~(uint64_t)(DX_BLOCK - 1);
		w = dx_window_open(t, fd, lo, hi);
		if (!w && errno == ESTALE)
			continue;
		if (!w && errno == ENXIO && lo < (off & ~(uint64_t)(DX_BLOCK - 1)) && !t->fine) {
			t->fine = true; /* a hole before off */
			continue;
		}
		if (!w)
			return NULL;
		if (off < w->hi && add(t, w)) {
			if (!w->cut && !t->fine && t->span < DX_GIB && dx_now() - began < 2 * DX_MS)
				t->span *= 2;
			return w;
		}
		dx_window_put(w);
		dx_window_put(w);
		t->fine = true;
	}
	errno = EAGAIN;
	return NULL;
}

/* open_window returns a window that holds off, with a reference. NULL if the access should go by the
 * system calls: there is no grant now, or another thread is just asking. */
static struct window *open_window(struct dx_table *t, int fd, uint64_t off)
{
	uint64_t resume = atomic_load(&t->resume);
	struct window *w;

	if (off >= beyond || (resume && dx_now() < resume) || !dx_trylock(&t->opening))
		return NULL;
	if (!(w = find(t, off)) && !(w = lease(t, fd, off)))
		switch (errno) {
		case ENXIO: /* a hole, which a program may be filling; or the end of the file */
			pause_for(t, DX_MS);
			break;
		case EOPNOTSUPP: case EROFS: case EACCES: case EPERM: case EPROTO: case ENOTTY:
			atomic_store(&t->resume, dx_now() + 10000 * DX_MS);
			break;
		default:
			atomic_store(&t->resume, dx_now() + 1000 * DX_MS);
		}
	dx_unlock(&t->opening);
	return w;
}

size_t dx_direct(struct dx_file *f, int fd, bool write, char *buf, size_t n, uint64_t off, bool *end)
{
	struct dx_table *t = write ? &f->writers : &f->readers;
	size_t done = 0;
	int e = errno;

	*end = false;
	if (off >= beyond || n > beyond - off)
		return 0;
	for (int tries = 0; done < n && tries < 3;) {
		struct window *w = find(t, off + done);
		ssize_t k;

		if (!w) {
			tries++;
			if (!(w = open_window(t, fd, off + done)))
				break;
		}
		k = dx_window_copy(w, write, buf + done, n - done, off + done);
		dx_window_put(w);
		if (k > 0) {
			done += (size_t)k;
			continue;
		}
		if (k == DX_STALE) {
			stale(t);
			tries++;
			continue;
		}
		*end = k == 0;
		break;
	}
	errno = e;
	return done;
}

int dx_file_commit(struct dx_file *f, int fd)
{
	struct dx_table *t = &f->writers;
	int r = 0;

	for (int i = 0; i < atomic_load(&t->n); i++) {
		struct window *w = atomic_load(&t->at[i]);

		if (!w || !dx_window_get(w))
			continue;
		if (w->table == t && dx_window_commit(w, fd) < 0)
			r = -1;
		dx_window_put(w);
	}
	return r;
}

int dx_file_probe(struct dx_file *f, int fd, bool read)
{
	union dx_message m;
	struct window *w;

	if (!read) {
		if (dx_grant(fd, beyond - DX_BLOCK, beyond, DX_WRITE, 0, &m) == 0)
			return 0;
	} else {
		if (!dx_trylock(&f->readers.opening))
			return 0;
		w = lease(&f->readers, fd, 0);
		dx_unlock(&f->readers.opening);
		if (w) {
			dx_window_put(w);
			return 0;
		}
	}
	/* Nothing there yet, or no room now: it may be different later. */
	return errno == ENXIO || errno == ENOLCK || errno == EAGAIN || errno == ENOMEM ? 0 : -1;
}

void dx_file_drop(struct dx_file *f)
{
	drop(&f->readers, every, NULL);
	drop(&f->writers, every, NULL);
}

bool dx_file_empty(struct dx_file *f) { return !atomic_load(&f->readers.n) && !atomic_load(&f->writers.n); }

bool dx_file_dirty(struct dx_file *f)
{
	struct dx_table *t = &f->writers;
	bool dirty = false;

	for (int i = 0; i < atomic_load(&t->n) && !dirty; i++) {
		struct window *w = atomic_load(&t->at[i]);

		if (!w || !dx_window_get(w))
			continue;
		dirty = w->table == t && atomic_load(&w->dirty);
		dx_window_put(w);
	}
	return dirty;
}
