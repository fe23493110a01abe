/*
 * Descriptors.
 *
 * A word for each number: 0, not known; 1, not a file that is served; else an entry with FD_* in the
 * low bits. A number is not known after every call that makes or closes a descriptor, and is looked
 * at when it is next used.
 *
 * The check. An entry has a signal number (F_SETSIG) of its own, which it gives to each open file
 * description of its inode: a descriptor that still has it is still of that inode. If there is none
 * left, or the program or another process uses the signal, the inode number is asked for, which takes
 * longer.
 */
#include "preload.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>

#include "../sys.h"

/* The oldest version of libc's symbols on this machine. */
#if defined(__x86_64__)
#define FIRST_LIBC "GLIBC_2.2.5"
#else
#define FIRST_LIBC "GLIBC_2.17"
#endif

#define FUSE 0x65735546
#define NUMBERS 65536 /* descriptors beyond are not served */
#define ENTRIES 1024
#define FIRST_MARK 35 /* the signals from here on are the program's to use, and hardly used */
#define MARKS 30

struct entry {
	_Alignas(64) uint64_t dev, ino; /* protected by changing; dev 0: free */
	struct dx_file *file;
	atomic_int fds; /* numbers that are known to be this */
	int mark;	/* signal number; 0: there is none for it */
	atomic_int fd;	/* a number that was this once */
};

static _Atomic uintptr_t words[NUMBERS];
static struct entry entries[ENTRIES];
static atomic_int used;	   /* entries that were ever used */
static dx_lock_t changing; /* of entries; tried only */
/* Marks are given out once: a descriptor that nobody knows of may have one of a file that is closed. */
static struct {
	uint64_t dev, ino;
} marked[MARKS]; /* protected by changing */
static atomic_int verbose = -1;

void *next_function(const char *name)
{
	void *f = dlsym(RTLD_NEXT, name);

	if (!f) /* kept by libc for programs that were linked long ago */
		f = dlvsym(RTLD_NEXT, name, FIRST_LIBC);

	if (!f)
		abort(); /* a libc without a function that the program has linked */
	return f;
}

/* say prints why a file is not served, if the user wants to know. */
static void say(int fd, int e)
{
	char link[32], path[512], line[800];
	ssize_t n;
	int k;

	if (atomic_load(&verbose) < 0) {
		const char *v = getenv("DAXFSD_VERBOSE");

		atomic_store(&verbose, v && *v && *v != '0');
	}
	if (!atomic_load(&verbose))
		return;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof path - 1);
	path[n > 0 ? n : 0] = 0;
	k = snprintf(line, sizeof line, "libdaxfsd: %s is served the normal way: %s\n", path, strerror(e));
	syscall(SYS_write, 2, line, k);
}

/* entry_of returns the entry of an inode with one more number, or a new one. Called with changing
 * held. */
static struct entry *entry_of(uint64_t dev, uint64_t ino)
{
	struct entry *spare = NULL;
	int n = atomic_load(&used);

	for (int i = 0; i < n; i++) {
		struct entry *e = &entries[i];

		if (e->dev == dev && e->ino == ino) {
			atomic_fetch_add(&e->fds, 1);
			return e;
		}
		if (!e->dev && !spare)
			spare = e;
	}
	if (!spare) {
		if (n == ENTRIES)
			return NULL;
		spare = &entries[n];
	}
	if (!(spare->file = dx_file_new(-1, ino)))
		return NULL;
	spare->dev = dev;
	spare->ino = ino;
	spare->mark = 0;
	for (int i = 0; i < MARKS && !spare->mark; i++)
		if (!marked[i].dev || (marked[i].dev == dev && marked[i].ino == ino)) {
			marked[i].dev = dev;
			marked[i].ino = ino;
			spare->mark = FIRST_MARK + i;
		}
	atomic_store(&spare->fds, 1);
	if (spare == &entries[n])
		atomic_store(&used, n + 1);
	return spare;
}

/* end_entry ends one number of an entry. The last one ends the entry. */
static void end_entry(struct entry *e)
{
	struct dx_file *f = NULL;

	if (atomic_fetch_sub(&e->fds, 1) > 1 || !dx_trylock(&changing))
		return; /* others find it, or the next one does */
	if (e->dev && atomic_load(&e->fds) <= 0) {
		f = e->file;
		e->dev = 0;
	}
	dx_unlock(&changing);
	if (f) {
		dx_file_drop(f);
		dx_file_put(f);
	}
}

/* adopt finds out what a number is. */
static uintptr_t adopt(int fd)
{
	struct statfs fs;
	struct entry *e;
	struct dx_id id;
	uintptr_t word = 0, none = 0;
	int flags, mark;

	if (syscall(SYS_fstatfs, fd, &fs) < 0)
		return 0; /* it is not open */
	if (fs.f_type != FUSE || dx_identify(fd, "", &id) < 0 || !S_ISREG(id.mode) || (flags = dx_fcntl(fd, F_GETFL, 0)) < 0) {
		atomic_compare_exchange_strong(&words[fd], &none, 1);
		return 1;
	}
	dx_guard_install();
	if (!dx_trylock(&changing))
		return 0;
	e = entry_of(id.dev, id.ino);
	dx_unlock(&changing);
	if (!e)
		return 0;
	if (dx_file_probe(e->file, fd, (flags & O_ACCMODE) != O_WRONLY) < 0) {
		say(fd, errno);
		end_entry(e);
		atomic_compare_exchange_strong(&words[fd], &none, 1);
		return 1;
	}
	if (e->mark > 0 && (mark = dx_fcntl(fd, F_GETSIG, 0)) != e->mark && (mark || dx_fcntl(fd, F_SETSIG, e->mark) < 0))
		e->mark = 0; /* somebody else uses it: ask for the inode */
	if ((flags & O_ACCMODE) != O_WRONLY)
		word |= FD_READ;
	if ((flags & O_ACCMODE) != O_RDONLY)
		word |= FD_WRITE;
	if (flags & (O_APPEND | O_SYNC | O_DSYNC))
		word |= FD_PLAIN;
	atomic_store(&e->fd, fd);
	word |= (uintptr_t)e;
	if (!atomic_compare_exchange_strong(&words[fd], &none, word)) {
		end_entry(e);
		return 0;
	}
	return word;
}

/* still reports whether a descriptor is of the inode of e. */
static bool still(struct entry *e, int fd)
{
	struct dx_id id;

	if (e->mark)
		return dx_fcntl(fd, F_GETSIG, 0) == e->mark;
	return dx_identify(fd, "", &id) == 0 && id.dev == e->dev && id.ino == e->ino;
}

struct served fd_get(int fd)
{
	static const struct served none;
	struct entry *e;
	uintptr_t word;
	int err = errno;

	if (fd < 0 || fd >= NUMBERS)
		return none;
	word = atomic_load_explicit(&words[fd], memory_order_acquire);
	if (word == 1)
		return none;
	if (!word) {
		word = adopt(fd);
		errno = err;
		if (word <= 1)
			return none;
	}
	e = (struct entry *)(word & ~(uintptr_t)FD_FLAGS);
	if (!still(e, fd)) {
		fd_forget(fd);
		errno = err;
		return none;
	}
	if (maps_any())
		maps_renew(e->dev, e->ino, fd, word & FD_WRITE);
	return (struct served){e, e->file, (int)(word & FD_FLAGS)};
}

int fd_of(uint64_t dev, uint64_t ino, int flags)
{
	for (int fd = 0; fd < NUMBERS; fd++) {
		uintptr_t word = atomic_load(&words[fd]);
		struct entry *e = (struct entry *)(word & ~(uintptr_t)FD_FLAGS);

		if (word > 1 && e->dev == dev && e->ino == ino && ((int)word & flags) == flags && still(e, fd))
			return fd;
	}
	return -1;
}

void fd_forget(int fd)
{
	uintptr_t word;

	if (fd < 0 || fd >= NUMBERS || !atomic_load_explicit(&words[fd], memory_order_relaxed))
		return;
	word = atomic_exchange(&words[fd], 0);
	if (word > 1) {
		int err = errno;

		end_entry((struct entry *)(word & ~(uintptr_t)FD_FLAGS));
		errno = err;
	}
}

void fd_forget_range(unsigned lo, unsigned hi)
{
	for (unsigned fd = lo; fd <= hi && fd < NUMBERS; fd++)
		fd_forget((int)fd);
}

void fd_commit(int fd)
{
	struct served s;
	int err = errno;

	if (fd < 0 || fd >= NUMBERS || atomic_load_explicit(&words[fd], memory_order_relaxed) <= 1)
		return;
	s = fd_get(fd);
	if (s.file)
		(void)dx_file_commit(s.file, fd);
	errno = err;
}

void fd_closing(int fd)
{
	fd_commit(fd);
	fd_forget(fd);
}

bool inode_commit(uint64_t dev, uint64_t ino)
{
	int n = atomic_load(&used), err = errno;
	bool sent = false;

	for (int i = 0; i < n; i++) {
		struct entry *e = &entries[i];
		int fd = atomic_load(&e->fd);

		if (e->dev != dev || e->ino != ino || !dx_file_dirty(e->file))
			continue;
		if ((atomic_load(&words[fd]) & ~(uintptr_t)FD_FLAGS) != (uintptr_t)e || !still(e, fd))
			fd = fd_of(dev, ino, 0);
		if (fd >= 0) {
			(void)dx_file_commit(e->file, fd);
			sent = true;
		}
	}
	errno = err;
	return sent;
}

bool any_served(void) { return atomic_load_explicit(&used, memory_order_relaxed) > 0; }

void fd_flags_changed(void) { fd_forget_range(0, NUMBERS - 1); }

int fd_mark(int fd)
{
	uintptr_t word = fd >= 0 && fd < NUMBERS ? atomic_load(&words[fd]) : 0;

	return word > 1 ? ((struct entry *)(word & ~(uintptr_t)FD_FLAGS))->mark : 0;
}
