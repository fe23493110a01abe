package fusefs

import (
	"encoding/binary"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs"
)

// Direct reads and writes of the kernel carry the owner of locks. Those of its page cache do not:
// they belong to nobody.

// fills reports whether a READ fills the page cache.
func fills(readFlags uint32) bool { return readFlags&fuse.READ_LOCKOWNER == 0 }

// direct reports whether a WRITE goes past the page cache.
func direct(writeFlags uint32) bool {
	return writeFlags&(fuse.WRITE_LOCKOWNER|fuse.WRITE_CACHE) == fuse.WRITE_LOCKOWNER
}

// lateMax is how many goroutines drop pages after the answer before requests wait for them.
const lateMax = 1024

// endBypass makes the kernel drop the pages that it may have read before a change past them, and
// ends the Bypass. It comes before the answer, since nobody may see such a page afterwards.
//
// The kernel waits for locked pages, and writes back dirty ones, which takes requests to us. So a
// thread that serves requests must not call it, and a limited number of requests may wait for it
// (Adapter.dropping). Beyond that it happens after the answer. Until then no written-back page
// undoes the change, and after a synchronous write(2) the kernel itself drops the pages; so
// only a program that writes asynchronously, so many requests at once, may see an old page for a
// moment.
func (a *Adapter) endBypass(c *call, ino uint64) {
	b := c.ctx.Bypass
	if b == nil {
		return
	}
	c.ctx.Bypass = nil
	if a.dropping.Enter(c.ctx.UID) {
		c.ctx.Wait(func() { a.dropPages(ino, b) })
		a.dropping.Leave(c.ctx.UID)
		return
	}
	for range 1000 { // not for ever: they may wait for the place of this request
		if a.lateNow.Load() < lateMax {
			break
		}
		c.ctx.Wait(func() { time.Sleep(time.Millisecond) })
	}
	a.lateNow.Add(1)
	a.late.Go(func() {
		a.dropPages(ino, b)
		a.lateNow.Add(-1)
	})
}

func (a *Adapter) dropPages(ino uint64, b *fs.Bypass) {
	if off, n := b.Range(); n > 0 && a.conn >= 0 {
		invalidatePages(a.conn, ino, off, n)
	}
	b.End()
}

// invalidatePages sends FUSE_NOTIFY_INVAL_INODE: the kernel writes back and drops its pages of
// [off, off+n), and forgets the attributes. An error means that it has none, or that the
// connection has ended. go-fuse would send one notification at a time, so that all waited for one.
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
