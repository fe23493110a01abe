/*
 * libdaxfsd: a file's own memory on a daxfsd mount.
 *
 * A program that may open the region of a mount maps the blocks of a file instead of reading and
 * writing through the kernel. docs/direct.md describes the protocol and its rules; who may use it,
 * what happens to a mapping when others change the file, and what survives a failure.
 *
 * Functions return -1 or NULL and set errno on errors, as system calls do. All are safe for
 * concurrent use, but daxfsd_close, daxfsd_unmap, and daxfsd_unpin of the last pin, after which the
 * object is gone. daxfsd_pread and daxfsd_pwrite are async-signal-safe.
 *
 * All offsets and sizes are bytes.
 */
#ifndef DAXFSD_H
#define DAXFSD_H

#include <stddef.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif
#ifdef __GNUC__
#pragma GCC visibility push(default)
#endif

/* The version of this interface. It grows with each function that is added. */
#define DAXFSD_VERSION 1

/* An open file that is read and written by copying. */
typedef struct daxfsd_file daxfsd_file;

/* A mapped range of a file. */
typedef struct daxfsd_map daxfsd_map;

/*
 * daxfsd_open makes fd, an open file of a daxfsd mount, readable and writable directly. It keeps a
 * duplicate of fd, which the caller may close.
 *
 * ENOTTY: not a file of a daxfsd mount, or of one that knows no grants. EPROTO: the daemon speaks
 * another version of the protocol. EOPNOTSUPP, EROFS: the mount grants nothing of this file. EACCES
 * and others of open(2): this process may not open the region. ENXIO: the region was not found.
 * After an error fd still works.
 */
daxfsd_file *daxfsd_open(int fd);

/* daxfsd_close ends direct access. Mappings of the file stay. */
int daxfsd_close(daxfsd_file *f);

/* daxfsd_fd returns the duplicate of the descriptor, which belongs to f. */
int daxfsd_fd(const daxfsd_file *f);

/*
 * daxfsd_pread and daxfsd_pwrite do as pread(2) and pwrite(2): directly where that is possible, by
 * the system calls where it is not. What daxfsd_pwrite has written is durable when it returns, as
 * far as the kind of region promises. Unlike a write(2) of the mount, a read beside it may see a
 * part of it. daxfsd_pwrite does not change the file's times; daxfsd_sync does.
 */
ssize_t daxfsd_pread(daxfsd_file *f, void *buf, size_t n, off_t off);
ssize_t daxfsd_pwrite(daxfsd_file *f, const void *buf, size_t n, off_t off);

/*
 * daxfsd_sync makes the file's times those of the writes, makes the kernel drop what it has cached
 * of them, and does as fsync(2).
 */
int daxfsd_sync(daxfsd_file *f);

/*
 * daxfsd_grow makes the file at least size bytes long. What it gains has blocks, and reads as
 * zeros.
 */
int daxfsd_grow(daxfsd_file *f, off_t size);

/* Flags of daxfsd_mmap. */
#define DAXFSD_WRITE 1    /* to write as well as to read */
#define DAXFSD_ALLOCATE 2 /* with DAXFSD_WRITE: holes get blocks; otherwise they are an error */

/*
 * daxfsd_mmap maps n bytes of the file from off on, which lies in the file and is a multiple of the
 * page size. page is the size of pages that is wanted, 0 for any: the daemon then moves the file's
 * blocks so that pages of that size can map them, as far as it can. The mapping does not need f any
 * more.
 *
 * EINVAL: not a range of the file. ENODATA: the range has a hole, and is to be written. EUCLEAN: the
 * blocks cannot be mapped next to each other by pages of the region; ask for its page size.
 * Others as daxfsd_open; ENOLCK: the region has as many leases as it may have.
 */
daxfsd_map *daxfsd_mmap(daxfsd_file *f, off_t off, size_t n, int flags, size_t page);

/* daxfsd_addr returns where the range is mapped. */
void *daxfsd_addr(const daxfsd_map *m);

/*
 * daxfsd_flush makes n bytes from offset off of the mapping on durable, and does what daxfsd_sync
 * does for the times and the kernel's caches.
 */
int daxfsd_flush(daxfsd_map *m, size_t off, size_t n);

/*
 * daxfsd_stale reports whether the file's layout has changed since it was mapped: then the bytes
 * belong to nobody else, but perhaps no longer to the file.
 */
int daxfsd_stale(const daxfsd_map *m);

/*
 * daxfsd_pin keeps the memory from becoming another file's, also after daxfsd_unmap, until
 * daxfsd_unpin or the end of the process. Call it before the memory is registered with io_uring,
 * sent with MSG_ZEROCOPY, or given to a device, and daxfsd_unpin when they have ceased to use it.
 */
int daxfsd_pin(daxfsd_map *m);
int daxfsd_unpin(daxfsd_map *m);

/* daxfsd_unmap unmaps the range. It flushes nothing. */
int daxfsd_unmap(daxfsd_map *m);

#ifdef __GNUC__
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif
#endif
