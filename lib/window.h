/* Windows and tables of windows: what window.c and table.c share. */
#ifndef DX_WINDOW_H
#define DX_WINDOW_H

#include <limits.h>

#include "internal.h"

/* A part of a window that is contiguous in the region. */
struct place {
	uint64_t off, n; /* in the file */
	char *at;
};

struct window {
	struct window *next; /* of the free ones */
	atomic_long users;   /* negative: free */
	struct dx_table *table; /* the others are set while the window is free, and do not change */
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

#define WINDOWS 128 /* of a table */

struct dx_table {
	struct dx_file *file;
	uint32_t flags;
	dx_lock_t opening;	/* held while a window is leased */
	atomic_ullong resume;	/* when to ask again, ns; 0: now */
	uint64_t span, pause;	/* protected by opening: bytes, ns */
	bool fine;		/* protected by opening: a grant holds few MiB of this file */
	atomic_int n;		/* changed with mutate held, as the rest */
	_Atomic uint64_t lo[WINDOWS];
	_Atomic(struct window *) at[WINDOWS];
};

struct dx_file {
	struct dx_file *next; /* of the free ones */
	atomic_int users;     /* the caller, and each window */
	int fd;		      /* a descriptor that belongs to it; -1: there is none */
	uint64_t inode;	      /* whose grants it takes; 0: any */
	struct dx_table readers, writers;
};

#define DX_MIB (UINT64_C(1) << 20)
#define DX_GIB (UINT64_C(1) << 30)
#define DX_MS UINT64_C(1000000) /* ns */

/* The lock of all changes of tables and of what is free, which is held for moments; fork(2) takes it.
 * dx_try_mutate gives up soon: a signal handler may have interrupted the holder. */
DX_HIDDEN bool dx_try_mutate(void);
DX_HIDDEN void dx_end_mutate(void);

DX_HIDDEN uint64_t dx_now(void); /* ns */

/* dx_window_open leases and maps what one grant holds of [lo, hi) of the file that fd has open, with
 * two references. NULL with errno; ESTALE to try again. */
DX_HIDDEN struct window *dx_window_open(struct dx_table *t, int fd, uint64_t lo, uint64_t hi);
/* dx_window_get takes a reference; it fails if the window is free. dx_window_put ends one. */
DX_HIDDEN bool dx_window_get(struct window *w);
DX_HIDDEN void dx_window_put(struct window *w);
/* dx_window_commit tells the daemon, through a descriptor of the file, what was stored. */
DX_HIDDEN int dx_window_commit(struct window *w, int fd);
/* dx_window_look loads the slot: whether the window is still of the file's blocks, and the file's
 * size. */
DX_HIDDEN bool dx_window_look(struct window *w, uint64_t *size);
/* dx_window_copy copies up to n bytes at off of the file, which is in the window. It returns bytes, 0
 * at the end of the file, or one of: */
enum { DX_STALE = -1, DX_FAULT = -2 };
DX_HIDDEN ssize_t dx_window_copy(struct window *w, bool write, char *buf, size_t n, uint64_t off);

#endif
