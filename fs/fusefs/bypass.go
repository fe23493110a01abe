package fusefs

import (
	"encoding/binary"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// READ_LOCKOWNER and WRITE_LOCKOWNER distinguish requests of programs from those of the page cache:
// the kernel sends the lock owner with direct reads and writes, and without any for the page cache.

// fills reports whether a READ fills the kernel's page cache.
func fills(readFlags uint32) bool { return readFlags&fuse.READ_LOCKOWNER == 0 }

// direct reports whether a WRITE bypasses the kernel's page cache.
func direct(writeFlags uint32) bool {
	return writeFlags&(fuse.WRITE_LOCKOWNER|fuse.WRITE_CACHE) == fuse.WRITE_LOCKOWNER
}

// lateMax is the number of goroutines that drop pages after the answer from which on requests wait
// for them.
const lateMax = 1024

// endBypass makes the kernel drop the pages that it may have read before a change past the page
// cache, and ends the Bypass. It is called before the answer, since no program may see such a page
// afterwards.
//
// The kernel waits for locked pages, and writes back dirty ones with requests to this daemon. So a
// thread that serves requests must not call endBypass, and a limited number of requests may wait in
// it (Adapter.dropping). Beyond the limit the pages are dropped after the answer. Until then no
// written-back page undoes the change, and after a synchronous write(2) the kernel drops the pages
// itself. So only a program with that many asynchronous writes at once may see an old page for a
// moment.
func (a *Adapter) endBypass(c *call, ino uint64) {
	b := c.ctx.Bypass
	if b == nil {
		return
	}
	c.ctx.Bypass = nil
	a.drop(c, func() {
		if off, n := b.Range(); n > 0 && a.conn >= 0 {
			invalidatePages(a.conn, ino, off, n)
		}
		b.End()
	})
}

// dropCached makes the kernel write back and drop its pages of n bytes at offset off of a file, and
// forget the attributes, with the limits of endBypass.
func (a *Adapter) dropCached(c *call, ino uint64, off, n int64) {
	if a.conn >= 0 {
		a.drop(c, func() { invalidatePages(a.conn, ino, off, n) })
	}
}

// drop calls f, which makes the kernel drop pages, or has it called later if many requests wait for
// that.
func (a *Adapter) drop(c *call, f func()) {
	if a.dropping.Enter(c.ctx.UID) {
		c.ctx.Wait(f)
		a.dropping.Leave(c.ctx.UID)
		return
	}
	for range 1000 { // limited, since the goroutines may wait for this request's ring entry
		if a.lateNow.Load() < lateMax {
			break
		}
		c.ctx.Wait(func() { time.Sleep(time.Millisecond) })
	}
	a.lateNow.Add(1)
	a.late.Go(func() {
		f()
		a.lateNow.Add(-1)
	})
}

// invalidatePages sends FUSE_NOTIFY_INVAL_INODE: the kernel writes back and drops its pages of
// bytes [off, off+n), and forgets the inode's attributes. Errors are ignored: the kernel does not
// know the inode, or the connection has ended. It bypasses go-fuse, which sends one notification at
// a time, so that all would wait for a slow one.
func invalidatePages(conn int, ino uint64, off, n int64) {
	const invalInode = 2
	var b [40]byte
	o := binary.NativeEndian
	o.PutUint32(b[0:], uint32(len(b)))
	o.PutUint32(b[4:], invalInode)
	o.PutUint64(b[16:], ino)
	o.PutUint64(b[24:], uint64(off))
	o.PutUint64(b[32:], uint64(n))
	_, _ = unix.Write(conn, b[:])
}
