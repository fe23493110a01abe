/* What the files of libdaxfsd share. Nothing here is exported. */
#ifndef DX_INTERNAL_H
#define DX_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "daxfsd.h"
#include "protocol.h"

#define DX_HIDDEN __attribute__((visibility("hidden")))
#define DX_LINE 64

/* Copies and flushes that survive a fault: 0, or -1 if one happened (copy_*.S, guard.c). */
DX_HIDDEN int dx_copy(void *dst, const void *src, size_t n);
DX_HIDDEN int dx_copy_lines(void *dst, const void *src, size_t n);
DX_HIDDEN int dx_load2(const void *src, uint64_t v[2]);

/* dx_guard_install makes faults of these functions return. It may be called often. */
DX_HIDDEN void dx_guard_install(void);
/* dx_guard_action is sigaction(2) for SIGBUS: it changes what other faults are passed on to. It
 * returns false while the handler is not installed. */
struct sigaction;
DX_HIDDEN bool dx_guard_action(const struct sigaction *new, struct sigaction *old);

/* dx_store copies to dst past the caches. It is durable after dx_fence. -1: a fault. */
DX_HIDDEN int dx_store(char *dst, const char *src, size_t n);
/* dx_flush writes back the lines that n bytes at p touch; durable after dx_fence. -1: a fault. */
DX_HIDDEN int dx_flush(char *p, size_t n);
DX_HIDDEN void dx_fence(void);

/* The locks of this library are never waited for by readers and writers (dx_trylock), so that a
 * signal handler that meets a lock of its own thread goes on by the system calls. A lock that is held
 * has the epoch as its value. */
typedef atomic_int dx_lock_t;
DX_HIDDEN bool dx_trylock(dx_lock_t *l);
DX_HIDDEN void dx_lock(dx_lock_t *l);
DX_HIDDEN void dx_unlock(dx_lock_t *l);
/* dx_new_epoch frees all locks, in a child that has none of the parent's threads. */
DX_HIDDEN void dx_new_epoch(void);

/* Which file of which filesystem holds the region, and how it is mapped. */
struct dx_region {
	uint64_t dev, ino; /* ino 0: a device node with that number */
	uint64_t size;	   /* bytes */
	uint64_t unit;	   /* granule of mappings, bytes: a page of the host or more */
	bool sync;	   /* maps with MAP_SYNC: a file on a DAX filesystem */
	bool device;	   /* device-dax */
	char path[DX_PATH_MAX + 1];
};

/*
 * A lease of one file: grants whose locks are on one open file description of the region.
 */
#define DX_GRANTS 64
struct dx_lease {
	struct dx_region region;
	int fd;			/* the description; -1: only mappings keep it */
	int grants;
	uint64_t id[DX_GRANTS];
	uint64_t lo[DX_GRANTS], hi[DX_GRANTS]; /* of each grant in the file, bytes */
	uint64_t generation, slot;
};

/* The reply to a GRANT that dx_lease_one asks for, of the size that the kernel copies. */
union dx_message {
	struct dx_grant_request request;
	struct dx_grant grant;
	unsigned char bytes[DX_GRANT_SIZE];
};

/*
 * dx_grant asks for [lo, hi) of the file that fd has open; the answer is in m. 0, or -1 with errno.
 */
DX_HIDDEN int dx_grant(int fd, uint64_t lo, uint64_t hi, uint32_t flags, uint64_t page, union dx_message *m);
/* dx_lease_begin opens the region of the first grant. dx_lease_add locks a grant. dx_lease_confirm
 * confirms all of them. dx_lease_end drops the description. 0, or -1 with errno: ESTALE to begin
 * again. */
DX_HIDDEN int dx_lease_begin(struct dx_lease *l, const struct dx_grant *g);
DX_HIDDEN int dx_lease_add(struct dx_lease *l, const struct dx_grant *g, uint64_t lo);
DX_HIDDEN int dx_lease_confirm(struct dx_lease *l, int fd);
DX_HIDDEN void dx_lease_end(struct dx_lease *l, int fd);
/* dx_command sends CONFIRM, COMMIT or RELEASE. */
DX_HIDDEN int dx_command(int fd, unsigned long cmd, uint64_t id, uint64_t generation, uint64_t off, uint64_t n);

/*
 * What is leased of one file for copying (window.c). fd, where a function takes one, is a descriptor
 * of the file that is open for what is asked for.
 */
struct dx_file;
/* dx_file_new returns a file without windows. own, if not negative, is closed with it. Only grants
 * of the inode are taken, if that is not 0. NULL with errno. */
DX_HIDDEN struct dx_file *dx_file_new(int own, uint64_t inode);
/* dx_file_put ends the caller's use. The file is gone with its last window. */
DX_HIDDEN void dx_file_put(struct dx_file *f);
/* dx_file_probe asks whether the mount grants anything of the file. 0, or -1 with errno. */
DX_HIDDEN int dx_file_probe(struct dx_file *f, int fd, bool read);
/* dx_direct copies up to n bytes at off, as far as that is possible directly, and returns how much
 * that was. *end is set if the file ends there. It keeps errno. */
DX_HIDDEN size_t dx_direct(struct dx_file *f, int fd, bool write, char *buf, size_t n, uint64_t off, bool *end);
/* dx_file_commit sends COMMIT for all that was stored since the last one. */
DX_HIDDEN int dx_file_commit(struct dx_file *f, int fd);
/* dx_file_dirty reports whether there is anything to commit. */
DX_HIDDEN bool dx_file_dirty(struct dx_file *f);
/* dx_file_drop gives up the windows that nobody uses. dx_file_empty reports whether there are none. */
DX_HIDDEN void dx_file_drop(struct dx_file *f);
DX_HIDDEN bool dx_file_empty(struct dx_file *f);

/*
 * A range of a file that is mapped at contiguous addresses (range.c).
 */
struct dx_range {
	struct dx_lease lease; /* its description is open until dx_lease_end, or until it is closed */
	uint64_t off, n;       /* the range in the file */
	char *addr;	       /* of off */
	char *base;	       /* of what is mapped, and bytes from there: whole pages of the region */
	size_t room;
	char *beside; /* the slot's page, and a page of the file */
	size_t beside_room;
	const char *slot;
};
/* dx_range_map leases and maps n bytes at off; at a given address if fixed is not NULL, over what is
 * there, also if it then fails. page is the size of pages wanted. 0, or -1 with errno. */
DX_HIDDEN int dx_range_map(struct dx_range *m, int fd, uint64_t off, uint64_t n, uint32_t flags, uint64_t page, void *fixed);
/* dx_range_unmap unmaps it; with keep, only what is beside it. */
DX_HIDDEN void dx_range_unmap(struct dx_range *m, bool keep);
DX_HIDDEN bool dx_range_stale(const struct dx_range *m);
/* dx_range_flush makes n bytes at an address durable. dx_range_commit sends COMMIT. */
DX_HIDDEN int dx_range_flush(char *at, size_t n);
DX_HIDDEN int dx_range_commit(struct dx_range *m, int fd, uint64_t off, uint64_t n);

/* dx_reserve returns n bytes of addresses that nothing can access, at an address that is rest modulo
 * modulus, a power of two; whole pages. NULL with errno. */
DX_HIDDEN char *dx_reserve(size_t n, uint64_t modulus, uint64_t rest);
/* dx_map_region maps n bytes of the region at offset off over address at. */
DX_HIDDEN int dx_map_region(struct dx_lease *l, void *at, uint64_t n, uint64_t off, bool write);

#endif
