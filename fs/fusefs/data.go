package fusefs

import (
	"math"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/transport"
)

// The kernel accesses an open file past its page cache, or through it. Either way there is nothing
// to flush at close(2).
const (
	openDirect = fuse.FOPEN_NOFLUSH | fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES
	openCached = fuse.FOPEN_NOFLUSH | fuse.FOPEN_KEEP_CACHE
)

// openFlags returns the FOPEN_* flags for a file with the inode flags flags (FS_*_FL).
func (a *Adapter) openFlags(flags uint32) uint32 {
	if a.dax == DAXAlways || a.dax == DAXInode && flags&layout.FlagDAX != 0 {
		return openDirect
	}
	return openCached
}

// open opens a file. The kernel checks permissions (default_permissions), and O_TRUNC arrives as a
// separate SETATTR because ATOMIC_O_TRUNC is not negotiated.
func (a *Adapter) open(c *call, ino uint64, open uint32, out *transport.OpenOut) syscall.Errno {
	flags, e := a.core.Open(&c.ctx, ino, open)
	if e == 0 {
		out.Fh, out.OpenFlags = a.opened(ino, flags, open)
	}
	return e
}

// opened returns the handle and the FOPEN_* flags of a file with the inode flags flags that is
// opened with open, O_*. The kernel does not cache a file that a program maps past it.
func (a *Adapter) opened(ino uint64, flags, open uint32) (fh uint64, fopen uint32) {
	fopen = a.openFlags(flags)
	if a.dax == DAXInode && fopen == openCached && !a.caching.opens(ino, a.core.Direct().Mapped) {
		fopen = openDirect
	}
	return a.newHandle(open, fopen), fopen
}

// released ends an open file.
func (a *Adapter) released(ino, fh uint64) {
	a.core.Direct().CloseHandle(fh)
	if a.dax == DAXInode && fh&handleCached != 0 {
		a.caching.closed(ino)
	}
}

// create makes and opens a file. The kernel sends CREATE only for names that it knows to be absent,
// so O_TRUNC has no effect. The umask is in c.
func (a *Adapter) create(c *call, dir uint64, name string, open, mode uint32, out *fuse.EntryOut) (fh uint64, fopen uint32, e syscall.Errno) {
	e = a.core.Mknod(&c.ctx, dir, name, syscall.S_IFREG|mode&07777, 0, &c.attr)
	if e == 0 {
		a.core.Opened(c.attr.Ino, open)
	}
	if e == syscall.EEXIST && open&syscall.O_EXCL == 0 {
		if e = a.core.Lookup(&c.ctx, dir, name, &c.attr); e == 0 {
			if _, e = a.core.Open(&c.ctx, c.attr.Ino, open); e != 0 {
				a.core.Forget(c.attr.Ino, 1)
			}
		}
	}
	if e == 0 {
		fh, fopen = a.opened(c.attr.Ino, c.attr.Flags, open)
	}
	return fh, fopen, a.entry(c, out, e)
}

// Tmpfile makes and opens a file without a name (O_TMPFILE). The kernel enforces O_EXCL, which
// forbids giving it one.
func (a *Adapter) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	c := a.get(cancel, &in.InHeader)
	defer a.put(c)
	c.ctx.Umask = in.Umask
	e := a.core.Tmpfile(&c.ctx, in.NodeId, in.Mode, &c.attr)
	if e == 0 {
		a.core.Opened(c.attr.Ino, in.Flags)
		out.Fh, out.OpenFlags = a.opened(c.attr.Ino, c.attr.Flags, in.Flags)
	}
	return status(a.entry(c, &out.EntryOut, e))
}

// writeKind returns whether a WRITE appends, and whether it writes back the page cache. open are
// the file's open(2) flags, write the request's.
func writeKind(open, write uint32) (atEnd, writeback bool) {
	return open&unix.O_APPEND != 0, write&fuse.WRITE_CACHE != 0
}

// forgetAttr makes the kernel drop its cached attributes of an inode.
func (a *Adapter) forgetAttr(ino uint64) {
	if s := a.server.Load(); s != nil {
		s.InodeNotify(ino, -1, 0)
	}
}

// atime returns an inode's access time in ns, or 0 if the inode cannot be read.
func (a *Adapter) atime(c *call, ino uint64) int64 {
	if a.core.GetAttr(&c.ctx, ino, &c.attr) != 0 {
		return 0
	}
	return c.attr.Atime
}

// Flush answers close(2) on a descriptor. FOPEN_NOFLUSH avoids the request.
func (a *Adapter) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status { return fuse.OK }

const fsyncDatasync = 1 << 0 // FUSE_FSYNC_FDATASYNC

// FsyncDir answers fsync(2) on a directory.
func (a *Adapter) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	c := a.get(cancel, &in.InHeader)
	defer a.put(c)
	return status(a.core.Fsync(&c.ctx, in.NodeId, in.FsyncFlags&fsyncDatasync != 0))
}

// CopyFileRange answers copy_file_range(2). The answer's length has 32 bits, so the copy may be
// short.
//
// After the answer the kernel discards its pages of the range. With a page that is only partly in
// the range, it also discards what a program stored to the rest of the page meanwhile. So such a
// page is left to the kernel, which copies it by reading and writing.
func (a *Adapter) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	if in.OffIn > math.MaxInt64 || in.OffOut > math.MaxInt64 {
		return 0, fuse.EINVAL
	}
	if in.Flags != 0 {
		return 0, fuse.EINVAL
	}
	c := a.get(cancel, &in.InHeader)
	defer a.put(c)
	size, e := a.wholePages(c, in)
	if e == 0 {
		e = a.killAsUser(c, in.NodeIdOut)
	}
	if e != 0 {
		return 0, status(e)
	}
	was := a.atime(c, in.NodeId)
	c.ctx.Direct = true
	n, e := a.core.CopyRange(&c.ctx, in.NodeId, int64(in.OffIn), in.NodeIdOut, int64(in.OffOut), size)
	a.endBypass(c, in.NodeIdOut)
	if a.atime(c, in.NodeId) != was {
		a.forgetAttr(in.NodeId)
	}
	return uint32(n), status(e)
}

// wholePages returns how many bytes to copy, so that the copy replaces every page of the
// destination that it touches, up to the end of the file. It returns EOPNOTSUPP if it cannot
// replace even the first page.
func (a *Adapter) wholePages(c *call, in *fuse.CopyFileRangeIn) (size int64, e syscall.Errno) {
	const page = layout.BlockSize
	if e := a.core.GetAttr(&c.ctx, in.NodeId, &c.attr); e != 0 {
		return 0, e
	}
	n := min(in.Len, 1<<31, max(c.attr.Size, in.OffIn)-in.OffIn)
	if in.OffIn%page != in.OffOut%page {
		n = min(n, 4<<20) // no blocks can be shared: copy as much as the core copies at once
	}
	if e := a.core.GetAttr(&c.ctx, in.NodeIdOut, &c.attr); e != 0 {
		return 0, e
	}
	if end := in.OffOut + n; n > 0 && end < c.attr.Size {
		n -= min(n, end%page)
		if n == 0 {
			return 0, syscall.EOPNOTSUPP
		}
	}
	if n > 0 && in.OffOut%page != 0 {
		return 0, syscall.EOPNOTSUPP
	}
	return int64(n), 0
}

// Lseek answers SEEK_DATA and SEEK_HOLE; the kernel handles the others. Over a hole the kernel may
// hold pages that a program has stored to through a mapping. They are written back first, or a
// program that copies only a file's data would lose them. That drops the hole's pages and no
// others.
func (a *Adapter) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	c := a.get(cancel, &in.InHeader)
	defer a.put(c)
	off, e := a.core.Lseek(&c.ctx, in.NodeId, int64(in.Offset), int(in.Whence))
	s := a.server.Load()
	if at, n := a.holeOf(c, in, off, e); s != nil && n > 0 && a.core.MayBeMapped(in.NodeId) {
		if a.writeback.Enter(c.ctx.UID) {
			c.ctx.Wait(func() { s.InodeNotify(in.NodeId, at, n) })
			a.writeback.Leave(c.ctx.UID)
			off, e = a.core.Lseek(&c.ctx, in.NodeId, int64(in.Offset), int(in.Whence))
		} else { // report everything as data, which is always correct
			if e = a.core.GetAttr(&c.ctx, in.NodeId, &c.attr); e == 0 && in.Offset >= c.attr.Size {
				e = syscall.ENXIO
			}
			if off = int64(in.Offset); in.Whence == unix.SEEK_HOLE {
				off = int64(c.attr.Size)
			}
		}
	}
	out.Offset = uint64(off)
	return status(e)
}

// holeOf returns the hole that an answer to LSEEK, off or e, depends on: n bytes at offset at. n is
// 0 if the answer depends on no hole.
func (a *Adapter) holeOf(c *call, in *fuse.LseekIn, off int64, e syscall.Errno) (at, n int64) {
	if e != 0 && e != syscall.ENXIO || e == 0 && in.Whence == unix.SEEK_DATA && uint64(off) == in.Offset ||
		a.core.GetAttr(&c.ctx, in.NodeId, &c.attr) != 0 {
		return 0, 0
	}
	at, end := int64(in.Offset), int64(c.attr.Size) // ENXIO: no data up to the end
	switch {
	case e != 0:
	case in.Whence == unix.SEEK_DATA:
		end = off
	default:
		at = off
		if data, e := a.core.Lseek(&c.ctx, in.NodeId, at, unix.SEEK_DATA); e == 0 {
			end = data
		}
	}
	return at, max(0, end-at)
}

// Fallocate answers fallocate(2).
func (a *Adapter) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	if in.Offset > math.MaxInt64 || in.Length > math.MaxInt64 {
		return fuse.Status(syscall.EFBIG)
	}
	c := a.get(cancel, &in.InHeader)
	defer a.put(c)
	if e := a.killAsUser(c, in.NodeId); e != 0 {
		return status(e)
	}
	c.ctx.Direct = true
	e := a.core.Fallocate(&c.ctx, in.NodeId, in.Mode, int64(in.Offset), int64(in.Length))
	a.endBypass(c, in.NodeId)
	return status(e)
}
