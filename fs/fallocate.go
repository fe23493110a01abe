package fs

import (
	"runtime"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// Modes of Fallocate, as FALLOC_FL_* of fallocate(2).
const (
	FallocKeepSize  uint32 = 1 << 0
	FallocPunchHole uint32 = 1 << 1
	FallocZeroRange uint32 = 1 << 4
)

// Fallocate is fallocate(2) on the file's bytes [off, off+n). Mode 0 allocates the missing blocks
// as unwritten ones. FallocPunchHole (with FallocKeepSize) frees the blocks. FallocZeroRange makes
// them unwritten. After all three the new blocks and holes read as zeros. Without FallocKeepSize
// the file grows to the end of the range. A part of a block at either end of a range that is
// punched or zeroed is zeroed in place.
//
// EOPNOTSUPP for other modes. ENOSPC if there is not enough space. Then nothing has changed if the
// missing space was for blocks of the range, and no other operation took them meanwhile. If it was
// for an extent block, or for a copy of a shared block, a part of the range may be done. EINTR if
// the caller gave up between two transactions.
func (fs *FS) Fallocate(ctx *Caller, ino uint64, mode uint32, off, n int64) syscall.Errno {
	return fs.retryNoSpace(ctx, func() syscall.Errno { return fs.tryFallocate(ctx, ino, mode, off, n) })
}

// tryFallocate is one attempt of Fallocate.
func (fs *FS) tryFallocate(ctx *Caller, ino uint64, mode uint32, off, n int64) syscall.Errno {
	if e := fs.mayChange(); e != 0 {
		return e
	}
	var disp disposition
	switch mode {
	case 0, FallocKeepSize:
		disp = dispAllocate
	case FallocPunchHole | FallocKeepSize:
		disp = dispPunch
	case FallocZeroRange, FallocZeroRange | FallocKeepSize:
		disp = dispZero
	default:
		return syscall.EOPNOTSUPP
	}
	if off < 0 || n <= 0 {
		return syscall.EINVAL
	}
	if off > maxSize || n > maxSize-off {
		return syscall.EFBIG
	}
	in, e := fs.get(ino)
	if e != 0 {
		return e
	}
	defer fs.put(in, 1)
	switch {
	case in.isDir():
		return syscall.EISDIR
	case !in.isReg():
		return syscall.ENODEV
	case in.immutable() || in.appendOnly() && mode&^FallocKeepSize != 0:
		return syscall.EPERM
	}
	if err := fs.extentsLoaded(ctx, in); err != nil {
		return errno(err)
	}
	if e := fs.killCapability(ctx, in); e != 0 {
		return e
	}
	lock, from, err := in.lockWrite(ctx, off, off+n)
	if err == nil {
		lock, err = in.lockGrow(ctx, lock, from, off, off+n)
	}
	if err != nil {
		return errno(err)
	}
	if disp != dispAllocate {
		err = fs.bypassLocked(ctx, in, off, off+n)
	}
	if err == nil {
		falloc := fallocation{fs, ctx, in, disp, off, off + n, mode&FallocKeepSize == 0}
		err = falloc.run()
	}
	if err != nil {
		in.bypassTornLocked(ctx)
	}
	in.io.Unlock()
	in.rl.Unlock(lock)
	if err != nil {
		return errno(err)
	}
	fs.touch(in)
	if disp != dispPunch {
		fs.defrag.collapseFilled(ctx, in, uint64(off)>>layout.BlockShift, blocksOf(off+n))
	}
	return 0
}

// fallocation is a Fallocate under way, with the range lock and io held.
type fallocation struct {
	fs       *FS
	ctx      *Caller
	in       *inode
	f        disposition
	off, end int64 // the range [off, end), in bytes
	grow     bool  // the file becomes at least end bytes long
}

// run applies the disposition to the range.
//
// Persistence order:
//  1. NT-zero the parts of blocks at either end, and from the old end of file to the end of its
//     block if the file grows; SFENCE
//  2. transactions: slots, and the size as far as the blocks are done
//  3. only then are punched blocks free
//
// It is one transaction unless the range holds dozens of extents. A crash between two of them
// leaves the beginning of the range done.
func (a *fallocation) run() error {
	fs, f, off, end := a.fs, a.f, a.off, a.end
	first, last := uint64(off)>>layout.BlockShift, blocksOf(end)                // blocks touched
	lo, hi := blocksOf(off), max(blocksOf(off), uint64(end)>>layout.BlockShift) // blocks covered
	size := uint64(0)
	if a.grow {
		size = uint64(end)
	}
	if f != dispPunch && a.missing(first, last) > fs.reserve.available(a.ctx.UID == 0) {
		return errNoSpace
	}
	if err := a.zeroEnds(); err != nil {
		return err
	}
	switch {
	case f == dispPunch:
		err := a.reshape(f, lo, hi, 0)
		fs.dropChain(a.ctx, a.in)
		return err
	case f == dispAllocate || lo == hi:
		return a.reshape(dispAllocate, first, last, size)
	}
	for _, b := range [2]uint64{first, last - 1} { // the ends, if zeroed in part
		if b < lo || b >= hi {
			if err := a.reshape(dispAllocate, b, b+1, 0); err != nil {
				return err
			}
		}
	}
	return a.reshape(f, lo, hi, size)
}

// blocksOf returns the number of blocks that hold n bytes.
func blocksOf(n int64) uint64 { return uint64(n+layout.BlockSize-1) >> layout.BlockShift }

// reshape applies disposition f to file blocks [lo, hi), and makes the file at least size bytes
// long.
func (a *fallocation) reshape(f disposition, lo, hi, size uint64) error {
	fs, ctx, in := a.fs, a.ctx, a.in
	for lo < hi {
		end, disp := hi, f
		if f == dispZero {
			n, writable := fs.direct.leasedToWrite(in, lo, hi)
			if end = lo + n; writable { // programs store to these blocks, which stay what they are
				if err := a.zeroStored(lo, end); err != nil {
					return err
				}
				disp = dispAllocate
			}
		}
		m, stop, err := fs.planLocked(ctx, in, lo, end, disp)
		if err != nil {
			return err
		}
		to := size
		if stop < hi {
			to = min(size, stop<<layout.BlockShift)
		}
		if err = m.reserveSlots(ctx); err != nil {
			return m.abort(ctx, err)
		}
		if err = m.commit(ctx, to); err != nil {
			return err
		}
		if lo = stop; lo < hi && ctx.cancelled() {
			return syscall.EINTR
		}
	}
	return nil
}

// zeroStored stores zeros to file blocks [lo, hi), which are written, and fences.
func (a *fallocation) zeroStored(lo, hi uint64) error {
	fs := a.fs
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for lo < hi {
		e, _ := a.in.space.Lookup(lo)
		x := part(e, lo, min(hi, e.End()))
		if err := fs.bad.Check(x.Block, uint64(x.Len)); err != nil {
			return err
		}
		if err := fs.r.NTZero(int64(x.Block)<<layout.BlockShift, int64(x.Len)<<layout.BlockShift); err != nil {
			return err
		}
		lo = x.End()
	}
	fs.r.Fence()
	return nil
}

// zeroEnds zeroes the partial blocks at the ends of a punched or zeroed range. It also zeroes the
// rest of the file's last block if the file grows.
func (a *fallocation) zeroEnds() error {
	in, off, end := a.in, a.off, a.end
	var tail, head, foot span
	if size := int64(in.size.Load()); a.grow && end > size {
		tail = span{size, min(end, blockEnd(size))}
	}
	if a.f != dispAllocate {
		if off != blockEnd(off) {
			head = span{off, min(end, blockEnd(off))}
		}
		if start := end &^ (layout.BlockSize - 1); start >= off {
			foot = span{start, end}
		}
	}
	return a.fs.zeroFencedLocked(a.ctx, in, tail, head, foot)
}

// missing returns how many blocks must be allocated for file blocks [lo, hi). These are the holes,
// and, if the range is zeroed, also the blocks that are bad or that others use.
func (a *fallocation) missing(lo, hi uint64) (n uint64) {
	fs, in, f := a.fs, a.in, a.f
	for lo < hi {
		e, ok := in.space.Lookup(lo)
		next := min(hi, e.Logical)
		if ok {
			next = min(hi, e.End())
		}
		bad := false
		if ok && f == dispZero {
			next, bad = fs.bad.SameState(e.BlockAt(lo), next-lo)
			next += lo
		}
		if !ok || bad || f == dispZero && fs.hasOtherUsers(part(e, lo, next)) {
			n += next - lo
		}
		lo = next
	}
	return n
}
