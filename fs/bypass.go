package fs

import (
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// kernelPages records which pages of a file the kernel's page cache may hold. The kernel drops a
// range from its cache before it sends a change that goes past the cache, but a page fault may read
// a page back before the core makes the change. Such a page is stale: it lacks the change. If a
// program stores to it, the kernel writes it back over the change. So each change past the cache is
// a Bypass from the moment it is made until the stale pages are dropped. Data that is written back
// meanwhile does not replace the changed bytes.
//
// States of a page of a file, for one Bypass that covers it:
//
//	unknown -> stale    the kernel read the page before the change (Caller.Fill)
//	stale   -> dropped  the kernel was asked to drop the range; it first writes back dirty pages
//	unknown, dropped -> fresh  the kernel read the page after the change (Bypass.fresh)
//
// Only a fresh page is written back as it is.
type kernelPages struct {
	// filled is set once the kernel's page cache may hold pages of the file. It is set under the
	// range lock, so a change either sees it or precedes the read.
	filled atomic.Bool
	n      atomic.Int32 // length of list; changed under mu

	mu   sync.Mutex
	list []*Bypass // changes whose stale pages the kernel may still have; protected by mu
}

// Bypass is a change of the file's bytes [off, end) past the kernel's page cache. The caller of the
// operation makes the kernel drop the range, and then calls End.
type Bypass struct {
	fs    *FS
	in    *inode
	off   int64  // bytes; protected by in.pages.mu
	end   int64  // bytes; protected by in.pages.mu
	fresh []span // whole pages that the kernel read after the change; protected by in.pages.mu
	torn  bool   // it failed half-way, so the changed bytes are unknown; protected by in.pages.mu
}

// Range returns the changed bytes [off, off+n); n is 0 if nothing changed.
func (b *Bypass) Range() (off, n int64) {
	p := &b.in.pages
	p.mu.Lock()
	defer p.mu.Unlock()
	return b.off, b.end - b.off
}

// End ends the Bypass: the kernel has no page left that it read before the change. Called with no
// lock held.
func (b *Bypass) End() {
	p := &b.in.pages
	p.mu.Lock()
	p.list = slices.DeleteFunc(p.list, func(x *Bypass) bool { return x == b })
	p.n.Store(int32(len(p.list)))
	p.mu.Unlock()
	b.fs.put(b.in, 1)
}

// bypassing reports whether a change must be announced by bypassLocked.
func (in *inode) bypassing(ctx *Caller) bool { return ctx.Direct && in.pages.filled.Load() }

// bypassLocked announces that bytes [off, end) are about to change. It creates ctx.Bypass, or
// extends it by a further piece. EAGAIN if the caller may not wait until the kernel has dropped
// pages. Called with the range locked for writing, and called again if the range was unlocked and
// locked anew.
func (fs *FS) bypassLocked(ctx *Caller, in *inode, off, end int64) error {
	if !in.bypassing(ctx) {
		return nil
	}
	if ctx.NoWait {
		return syscall.EAGAIN
	}
	p := &in.pages
	p.mu.Lock()
	defer p.mu.Unlock()
	if b := ctx.Bypass; b != nil {
		if b.off == b.end {
			b.off, b.end = off, end
		}
		b.off, b.end = min(b.off, off), max(b.end, end)
		b.staleLocked(off, end)
		return nil
	}
	in.refs.Add(1)
	ctx.Bypass = &Bypass{fs: fs, in: in, off: off, end: end}
	p.list = append(p.list, ctx.Bypass)
	p.n.Store(int32(len(p.list)))
	return nil
}

// staleLocked marks the pages of bytes [off, end) as stale, even if the kernel read them since.
// Called with in.pages.mu held.
func (b *Bypass) staleLocked(off, end int64) {
	const page = layout.BlockSize
	off, end = off&^(page-1), (end+page-1)&^(page-1)
	var kept []span
	for _, s := range b.fresh {
		if s.off < min(s.end, off) {
			kept = append(kept, span{s.off, min(s.end, off)})
		}
		if max(s.off, end) < s.end {
			kept = append(kept, span{max(s.off, end), s.end})
		}
	}
	b.fresh = kept
}

// bypassedLocked records that the last piece changed nothing from byte end on. Called with the
// range locked.
func (in *inode) bypassedLocked(ctx *Caller, end int64) {
	if b := ctx.Bypass; b != nil {
		in.pages.mu.Lock()
		b.end = max(b.off, min(b.end, end))
		in.pages.mu.Unlock()
	}
}

// bypassTornLocked records that the change failed half-way. From then on data that the kernel
// writes back replaces the change, but stale pages must still be dropped. Called with the range
// locked.
func (in *inode) bypassTornLocked(ctx *Caller) {
	if b := ctx.Bypass; b != nil {
		in.pages.mu.Lock()
		b.torn = true
		in.pages.mu.Unlock()
	}
}

// fillLocked records that the kernel reads bytes [off, end) into its page cache. Called with the
// range locked for reading, before the bytes are copied.
func (p *kernelPages) fillLocked(off, end int64) {
	if !p.filled.Load() {
		p.filled.Store(true)
	}
	if p.n.Load() == 0 {
		return
	}
	const page = layout.BlockSize
	off, end = (off+page-1)&^(page-1), end&^(page-1)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.list {
		if off >= end || off >= b.end || b.off >= end {
			continue
		}
		if n := len(b.fresh); n > 0 && b.fresh[n-1].end == off {
			b.fresh[n-1].end = end
		} else {
			b.fresh = append(b.fresh, span{off, end})
		}
	}
}

// keepLocked prepares data, which the kernel writes back to byte off from its page cache: bytes
// that stale pages have for a changed range are replaced by the file's bytes. Called with the range
// locked for writing.
func (fs *FS) keepLocked(in *inode, off int64, data []byte) error {
	p := &in.pages
	if p.n.Load() == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	end := min(off+int64(len(data)), int64(in.size.Load()))
	for _, b := range p.list {
		for at := max(off, b.off); !b.torn && at < min(end, b.end); {
			next := min(end, b.end, at&^(layout.BlockSize-1)+layout.BlockSize)
			if !slices.ContainsFunc(b.fresh, func(s span) bool { return s.off <= at && at < s.end }) {
				if err := fs.loadBytesLocked(in, at, data[at-off:next-off]); err != nil {
					return err
				}
			}
			at = next
		}
	}
	return nil
}

// loadBytesLocked copies the file's bytes from off on into dst. EIO if they cannot be read. Called
// with the range locked for reading or writing.
func (fs *FS) loadBytesLocked(in *inode, off int64, dst []byte) error {
	for len(dst) > 0 {
		u, n, flags := fs.refRun(in, off, int64(len(dst)))
		if n == 0 {
			return syscall.EIO
		}
		var err error
		switch {
		case u.N == 0 || flags&layout.ExtentUnwritten != 0:
			clear(dst[:n])
		default:
			if err = fs.bad.Check(u.Block, u.N); err == nil {
				if err = fs.r.Load(int64(u.Block)<<layout.BlockShift+off%layout.BlockSize, dst[:n]); err != nil {
					fs.bad.Faulted(err)
				}
			}
		}
		if u.N != 0 {
			fs.table.Put(u, fs.free.idle)
		}
		if err != nil {
			return err
		}
		off += n
		dst = dst[n:]
	}
	return nil
}
