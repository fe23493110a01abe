package fs

import (
	"runtime"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/journal"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/rangelock"
	"github.com/daxfsd/daxfsd/pagecache"
)

// Write stores data at byte off and returns how many bytes are durable. Overwrites of allocated
// blocks run side by side; a write that changes extents or size takes the inode's lock. ENOSPC or
// EIO if nothing could be written. With ctx.Writeback they come if not everything could be written,
// since the kernel takes a short count for success. EPERM if the file is immutable, or if it is
// append-only and off is not its end. With Options.Atomic a write of up to AtomicUnit bytes is all
// or nothing. With ctx.Writeback, bytes that would undo a Bypass are replaced within data.
func (fs *FS) Write(ctx *Caller, ino uint64, off int64, data []byte) (int, syscall.Errno) {
	if e := fs.mayChange(); e != 0 {
		return 0, e
	}
	in, e := fs.get(ino)
	if e != 0 {
		return 0, e
	}
	released := fs.table.Released()
	n, e := fs.write(ctx, in, off, data)
	if n == len(data) || e != 0 && e != syscall.ENOSPC {
		fs.put(in, 1)
		return n, e
	}
	again, wait := fs.freeing.spaceComes(ctx, released)
	switch {
	case again:
		var m int
		m, e = fs.write(ctx, in, off+int64(n), data[n:])
		n += m
	case wait == syscall.EAGAIN && ctx.Writeback:
		n, e = 0, wait // the slow path writes all of data again
	case n == 0:
		e = wait
	}
	if n > 0 && !ctx.Writeback {
		e = 0
	}
	fs.put(in, 1)
	return n, e
}

func (fs *FS) write(ctx *Caller, in *inode, off int64, data []byte) (int, syscall.Errno) {
	if !in.isReg() {
		if in.isDir() {
			return 0, syscall.EISDIR
		}
		return 0, syscall.EINVAL
	}
	if off < 0 {
		return 0, syscall.EINVAL
	}
	if off > maxSize || int64(len(data)) > maxSize-off {
		return 0, syscall.EFBIG
	}
	if len(data) == 0 {
		return 0, 0
	}
	if in.immutable() || in.appendOnly() && off < int64(in.size.Load()) && (!ctx.Append || ctx.Writeback) {
		return 0, syscall.EPERM
	}
	if err := fs.extentsLoaded(ctx, in); err != nil {
		return 0, errno(err)
	}
	if in.caps.Load() {
		if e := fs.killCapability(ctx, in); e != 0 {
			return 0, e
		}
	}
	end := off + int64(len(data))
	lock, from, err := in.lockWrite(ctx, off, end)
	if err != nil {
		return 0, errno(err)
	}
	n, done := 0, false
	if err = fs.bypassLocked(ctx, in, off, end); ctx.Writeback {
		err = fs.keepLocked(in, off, data)
	}
	if err == nil {
		done, err = fs.overwrite(ctx, in, off, data)
	}
	switch {
	case err != nil:
	case done:
		n = len(data)
	default:
		if lock, err = in.lockGrow(ctx, lock, from, off, end); err != nil {
			in.bypassedLocked(ctx, off)
			return 0, errno(err)
		}
		if err = fs.bypassLocked(ctx, in, off, end); ctx.Writeback {
			err = fs.keepLocked(in, off, data)
		}
		if err == nil {
			n, err = fs.extendLocked(ctx, in, off, data)
		}
		in.io.Unlock()
	}
	if err != nil && err != errNoSpace { // some of the bytes may have been stored
		in.bypassTornLocked(ctx)
	} else {
		in.bypassedLocked(ctx, off+int64(n))
	}
	in.rl.Unlock(lock)
	if !done && n > 0 {
		fs.defrag.collapseFilled(ctx, in, uint64(off)>>layout.BlockShift, blocksOf(off+int64(n)))
	}
	if n > 0 {
		fs.touch(in)
	}
	if n == 0 || err != nil && ctx.Writeback {
		return n, errno(err)
	}
	return n, 0
}

// lockWrite locks the byte range of a write to [off, end), so that readers see all of the write or
// nothing. If the end of file lies before off, the bytes between become zeros and are locked, too:
// the locked range begins at from. EAGAIN as lockRange.
func (in *inode) lockWrite(ctx *Caller, off, end int64) (lock rangelock.Token, from int64, err error) {
	from = min(off, int64(in.size.Load()))
	lock, err = in.lockRange(ctx, from, max(end, from+1), true)
	return lock, from, err
}

// lockGrow takes io after lockWrite. A truncation, which waits for no range lock, may have moved
// the end of file to a place before the locked range meanwhile. Then lockGrow locks the range again
// from there. EAGAIN as lockIO; then the range is unlocked.
func (in *inode) lockGrow(ctx *Caller, lock rangelock.Token, from, off, end int64) (rangelock.Token, error) {
	for {
		if err := in.lockIO(ctx); err != nil {
			in.rl.Unlock(lock)
			return 0, err
		}
		if min(off, int64(in.size.Load())) >= from {
			return lock, nil
		}
		in.io.Unlock()
		in.rl.Unlock(lock)
		var err error
		if lock, from, err = in.lockWrite(ctx, off, end); err != nil {
			return 0, err
		}
	}
}

// overwrite does a write that changes data only: no lock but the byte range, no transaction, no
// allocation. done is false if a block is missing or bad, or the file would grow. Then the caller
// must write all of data by extendLocked, and some bytes may have been stored in place already.
//
// Persistence order: NT-store the data, SFENCE. Not atomic beyond 8 bytes, except with
// Options.Atomic (overwriteLogged).
func (fs *FS) overwrite(ctx *Caller, in *inode, off int64, data []byte) (done bool, err error) {
	if fs.atomic() {
		return fs.overwriteLogged(ctx, in, off, data)
	}
	if off+int64(len(data)) > int64(in.size.Load()) || !fs.inPlace(in, off, int64(len(data))) {
		return false, nil
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for len(data) > 0 {
		ref, n, flags := fs.refRun(in, off, int64(len(data)))
		if n == 0 {
			return false, syscall.EIO
		}
		if ref.N == 0 {
			// A truncation, which our range lock does not stop, has cut the block
			// since inPlace. The bytes stored so far went to blocks that the file has
			// lost, or to blocks that get the same bytes again.
			fs.r.Fence()
			return false, nil
		}
		inPlace := flags&(layout.ExtentUnwritten|layout.ExtentShared) == 0 && !fs.bad.Has(ref.Block, ref.N)
		if inPlace {
			if err = fs.r.NTStore(int64(ref.Block)<<layout.BlockShift+off%layout.BlockSize, data[:n]); err != nil && fs.bad.Faulted(err) {
				inPlace, err = false, nil // the data goes to another block
			}
		}
		fs.table.Put(ref, fs.free.idle)
		if !inPlace {
			fs.r.Fence()
			return false, nil
		}
		if err != nil {
			return false, err
		}
		off += n
		data = data[n:]
	}
	fs.r.Fence()
	return true, nil
}

// inPlace reports whether all bytes [off, off+n) are in written blocks that are neither shared nor
// bad.
func (fs *FS) inPlace(in *inode, off, n int64) bool {
	b, end := uint64(off)>>layout.BlockShift, uint64(off+n-1)>>layout.BlockShift
	for b <= end {
		e, ok := in.space.Lookup(b)
		if !ok || e.Flags&(layout.ExtentUnwritten|layout.ExtentShared) != 0 || fs.bad.Has(e.BlockAt(b), min(e.End(), end+1)-b) {
			return false
		}
		b = e.Logical + uint64(e.Len)
	}
	return true
}

// extendLocked does a write that fills holes, makes unwritten blocks written, goes to new blocks
// instead of shared or bad ones, or moves the end of file. It works in pieces, each of which is a
// transaction; n is the number of bytes in the pieces that are done. Called with the range lock and
// io held.
func (fs *FS) extendLocked(ctx *Caller, in *inode, off int64, data []byte) (n int, err error) {
	for again := 0; n < len(data) && err == nil; {
		var m int
		m, err = fs.extendPiece(ctx, in, off+int64(n), data[n:])
		n += m
		switch {
		case err == errBadBlocks:
			if again++; again < extendTries {
				err = nil
			}
		case err == errNoSpace && again > 0:
			err = errBadBlocks // there was space, but it was bad
		}
	}
	return n, err
}

// extendTries bounds how often one write is tried because it meets bad blocks that were not known.
const extendTries = 16

// extendPiece writes as much of data as one remap takes, and returns the number of bytes. With
// Options.Atomic that is AtomicUnit bytes or all of data, or else errNoSpace.
//
// Persistence order:
//  1. NT-store the data. The rest of its blocks gets zeros if they held no data, and a copy if they
//     are shared or bad (which fails for bad ones). NT-zero from the old end of file to the end of
//     its block. SFENCE
//  2. transaction: the extents' slots, and the size if it grows; with Options.Atomic also the data
//     that replaces data of the file
//  3. only then are the blocks visible to readers
func (fs *FS) extendPiece(ctx *Caller, in *inode, off int64, data []byte) (int, error) {
	if fs.atomic() {
		data = data[:min(len(data), AtomicUnit)]
	}
	end := off + int64(len(data))
	if size := int64(in.size.Load()); off > size && size < blockEnd(size) {
		if err := fs.unshareLocked(ctx, in, size); err != nil {
			return 0, err
		}
	}
	m, stop, err := fs.planLocked(ctx, in, uint64(off)>>layout.BlockShift, uint64(end-1)>>layout.BlockShift+1, dispWrite)
	if err != nil {
		return 0, err
	}
	if fs.atomic() && int64(stop)<<layout.BlockShift < end {
		return 0, m.abort(ctx, errNoSpace)
	}
	end = min(end, int64(stop)<<layout.BlockShift)
	if err = m.reserveSlots(ctx); err == nil {
		err = fs.storePiece(m, off, data[:end-off])
	}
	if err != nil {
		return 0, m.abort(ctx, err)
	}
	if err = m.commit(ctx, uint64(end)); err != nil {
		return 0, err
	}
	return int(end - off), nil
}

// storePiece is step 1 of extendPiece: it stores everything that the transaction makes visible.
// Data that the transaction itself carries is added to the remap's data.
func (fs *FS) storePiece(m *remap, off int64, data []byte) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	m.stored = true
	size := int64(m.in.size.Load())
	_, err := fs.zeroBytes(m.in, span{size, min(off, blockEnd(size))})
	for _, e := range m.parts {
		if err != nil {
			break
		}
		lo, hi := int64(e.Logical)<<layout.BlockShift, int64(e.End())<<layout.BlockShift
		from, to := max(off, lo), min(off+int64(len(data)), hi)
		if e.Flags&layout.ExtentUnwritten != 0 {
			err = fs.storeAround(e, from, to, size)
		}
		if e.Flags&layout.ExtentUnwritten == 0 && fs.atomic() && from < min(to, size) {
			n := min(to, size) - from
			m.data = append(m.data, journal.Data{Off: regionOff(e.Extent, from), Bytes: data[from-off:][:n]})
			from += n
		}
		if err == nil && from < to {
			err = fs.r.NTStore(regionOff(e.Extent, from), data[from-off:to-off])
		}
	}
	fs.r.Fence()
	return err
}

// regionOff returns the region offset of byte off of a file, which e covers.
func regionOff(e pagecache.Extent, off int64) int64 {
	return int64(e.BlockAt(uint64(off)>>layout.BlockShift))<<layout.BlockShift + off%layout.BlockSize
}

// storeAround stores the bytes of e that lie outside bytes [from, to) of the file, which e covers:
// a copy of the blocks that e replaces, or zeros if there are none, and beyond the end of file
// (size bytes). Where the range begins or ends within a cache line, the rest of that line is not
// flushed: the flush of the data does it. The data must be stored next, by the same thread.
func (fs *FS) storeAround(e piece, from, to, size int64) error {
	lo, hi := int64(e.Logical)<<layout.BlockShift, int64(e.End())<<layout.BlockShift
	head, tail := from&^(layout.LineSize-1), (to+layout.LineSize-1)&^(layout.LineSize-1)
	for _, s := range [4]span{{lo, head}, {head, from}, {to, tail}, {tail, hi}} {
		n := s.end - s.off
		if n <= 0 {
			continue
		}
		at, part := regionOff(e.Extent, s.off), n < layout.LineSize
		var was []byte
		if e.from != 0 && s.off < size {
			from := e.from + uint64(s.off-lo)>>layout.BlockShift
			if err := fs.bad.Check(from, uint64(s.end-1-lo)>>layout.BlockShift+1-uint64(s.off-lo)>>layout.BlockShift); err != nil {
				return err
			}
			was = fs.r.Bytes(int64(e.from)<<layout.BlockShift+s.off-lo, n)
		}
		var err error
		switch {
		case part && was == nil:
			err = fs.r.Store(at, zeroLine[:n])
		case part:
			err = fs.r.Store(at, was)
		case was == nil:
			err = fs.r.NTZero(at, n)
		default:
			err = fs.r.NTStore(at, was)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var zeroLine [layout.LineSize]byte

// storeBlock stores a fresh block of the region.
//
// Persistence order: NT-store, SFENCE.
func (fs *FS) storeBlock(block uint64, b []byte) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := fs.r.NTStore(int64(block)<<layout.BlockShift, b); err != nil {
		return err
	}
	fs.r.Fence()
	return nil
}
