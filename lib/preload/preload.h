/*
 * libdaxfsd-preload: the calls of libc that it serves for files of a daxfsd mount.
 *
 * Which descriptors are such files is found out when they are first used (fd.c). A descriptor may
 * become something else without any call that this library sees: by raw system calls, or within
 * libc. So each use first checks, by one cheap system call, that it still is what it was.
 */
#ifndef DX_PRELOAD_H
#define DX_PRELOAD_H

#define _GNU_SOURCE
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "../internal.h"

/* An inode of a daxfsd mount that the program has open. Entries are never given back to the system. */
struct entry;

/* What a descriptor is open for. */
enum {
	FD_READ = 1,
	FD_WRITE = 2,
	FD_PLAIN = 4, /* writes go by the system call: O_APPEND, O_SYNC, O_DSYNC */
	FD_FLAGS = 7,
};

/* A descriptor that is served: entry and flags. file is NULL for all other descriptors. */
struct served {
	struct entry *entry;
	struct dx_file *file;
	int flags;
};

/* fd_get returns what a descriptor is. It keeps errno, and may be called in signal handlers. */
DX_HIDDEN struct served fd_get(int fd);
/* fd_forget is called when a number may have become another file. */
DX_HIDDEN void fd_forget(int fd);
DX_HIDDEN void fd_forget_range(unsigned lo, unsigned hi); /* [lo, hi] */
/* fd_closing is called before a descriptor is closed: it sends COMMIT. */
DX_HIDDEN void fd_closing(int fd);
/* fd_commit and inode_commit send COMMIT for a file, so that its times are those of the program's
 * writes. inode_commit reports whether there was anything to send. */
DX_HIDDEN void fd_commit(int fd);
DX_HIDDEN bool inode_commit(uint64_t dev, uint64_t ino);
/* any_served reports whether any descriptor ever was served. */
DX_HIDDEN bool any_served(void);
/* fd_of returns a descriptor that is of an inode, and open for what flags say; -1. */
DX_HIDDEN int fd_of(uint64_t dev, uint64_t ino, int flags);
/* maps_any reports whether there are mappings of served files. maps_renew makes those of an inode
 * anew whose layout others have changed; fd is open for writing or not. */
DX_HIDDEN bool maps_any(void);
DX_HIDDEN void maps_renew(uint64_t dev, uint64_t ino, int fd, bool write);
/* fd_flags_changed is called when O_APPEND, O_SYNC or the signal of a descriptor may have changed. */
DX_HIDDEN void fd_flags_changed(void);
/* fd_mark returns the signal with which this library has marked fd; 0: it has not. */
DX_HIDDEN int fd_mark(int fd);

/* NEXT(f) is the function f that the program would call without this library. */
#define NEXT(f)                                                                                     \
	({                                                                                         \
		static __typeof__(&f) next_;                                                       \
		if (!next_)                                                                        \
			next_ = (__typeof__(&f))next_function(#f);                                 \
		next_;                                                                             \
	})
DX_HIDDEN void *next_function(const char *name);

#define EXPORT __attribute__((visibility("default")))

#endif
