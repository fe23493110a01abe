/*
 * The system calls that the library makes by itself. They go past the functions of libc of these
 * names, which the preload library has others of.
 */
#ifndef DX_SYS_H
#define DX_SYS_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static inline void *dx_mmap(void *at, size_t n, int prot, int flags, int fd, uint64_t off)
{
	return (void *)syscall(SYS_mmap, at, n, prot, flags, fd, off);
}
static inline int dx_munmap(void *at, size_t n) { return (int)syscall(SYS_munmap, at, n); }
static inline int dx_close(int fd) { return (int)syscall(SYS_close, fd); }
static inline int dx_open(const char *path, int flags) { return (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0); }
static inline int dx_fcntl(int fd, int cmd, unsigned long arg) { return (int)syscall(SYS_fcntl, fd, cmd, arg); }

/* What a file is: statx(2) without asking a filesystem for its times. */
struct dx_id {
	uint64_t dev, rdev, ino, size;
	unsigned mode;
};

static inline int dx_identify(int dir, const char *path, struct dx_id *id)
{
	struct statx x;

	if (syscall(SYS_statx, dir, path, (*path ? 0 : AT_EMPTY_PATH) | AT_STATX_DONT_SYNC, STATX_TYPE | STATX_INO | STATX_SIZE, &x) < 0)
		return -1;
	*id = (struct dx_id){makedev(x.stx_dev_major, x.stx_dev_minor), makedev(x.stx_rdev_major, x.stx_rdev_minor), x.stx_ino, x.stx_size, x.stx_mode};
	return 0;
}

#endif
