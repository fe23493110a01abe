package fs

import (
	"runtime"
	"syscall"

	"github.com/daxfs/daxfs/fs/layout"
	"github.com/daxfs/daxfs/pagecache"
)

// Write stores data at off and returns how many bytes are durable. Overwrites of
// allocated blocks run side by side; whatever changes extents or size takes the
// inode's lock. ENOSPC and EIO come with the bytes written before, if any.
func (fs *FS) Write(ctx *Context, ino uint64, off int64, data []byte) (int, syscall.Errno) {
	if e := fs.mayChange(); e != 0 {
		return 0, e
	}
	in, e := fs.get(ino)
	if e != 0 {
		return 0, e
	}
	n, e := fs.write(ctx, in, off, data)
	fs.put(in, 1)
	return n, e
}

func (fs *FS) write(ctx *Context, in *inode, off int64, data []byte) (int, syscall.Errno) {
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
	if err := fs.extentsLoaded(in); err != nil {
		return 0, errno(err)
	}
	end := off + int64(len(data))
	lock := in.rl.lock(off, end, true)
	done, err := fs.overwrite(in, off, data)
	in.rl.unlock(lock)
	if done || err != nil {
		if err != nil {
			return 0, errno(err)
		}
		fs.touch(in)
		return len(data), 0
	}
	n, err := fs.extend(ctx, in, off, data)
	if n > 0 {
		fs.touch(in)
		return n, 0
	}
	return n, errno(err)
}

// overwrite is the write that changes data only: no lock but the byte range, no
// transaction, no allocation. done is false, with nothing written, if some block
// is missing or the file would grow.
//
// Persistence order: NT-store the data, SFENCE. Not atomic beyond 8 bytes.
func (fs *FS) overwrite(in *inode, off int64, data []byte) (done bool, err error) {
	if off+int64(len(data)) > int64(in.size.Load()) || !in.mapped(off, int64(len(data))) {
		return false, nil
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for len(data) > 0 {
		n := int64(len(data))
		e := fs.refExtent(in, uint64(off)>>layout.BlockShift, &n, off)
		if e.Len == 0 {
			// Cut since we looked (a truncation is not held up by our range): the
			// bytes written so far went to blocks that are no longer the file's,
			// or are the file's and get their new content anyway.
			fs.r.Fence()
			return false, nil
		}
		at := int64(e.Block+uint64(off)>>layout.BlockShift-e.Logical)<<layout.BlockShift + off%layout.BlockSize
		if e.Flags&layout.ExtentUnwritten == 0 {
			err = fs.r.NTStore(at, data[:n])
		}
		first, count := held(e, off, n)
		fs.table.Put(first, count, fs.freeIdle)
		if e.Flags&layout.ExtentUnwritten != 0 {
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

// mapped reports whether written blocks hold all of [off, off+n).
func (in *inode) mapped(off, n int64) bool {
	b, end := uint64(off)>>layout.BlockShift, uint64(off+n-1)>>layout.BlockShift
	for b <= end {
		e, ok := in.space.Lookup(b)
		if !ok || e.Flags&layout.ExtentUnwritten != 0 {
			return false
		}
		b = e.Logical + uint64(e.Len)
	}
	return true
}

// extend is the write that fills holes or moves the end of file. It goes piece by
// piece, each piece a transaction; n counts the bytes of the pieces done.
func (fs *FS) extend(ctx *Context, in *inode, off int64, data []byte) (n int, err error) {
	for n < len(data) {
		m, err := fs.extendPiece(ctx, in, off+int64(n), data[n:])
		if err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}

// pieceRuns bounds the new runs, and so the lines, of one piece.
const pieceRuns = 24

// lockGrow takes the range lock of a write to [off, end) that may move the end of
// file, including the bytes between the old end and off that become zeros, and mu.
func (in *inode) lockGrow(off, end int64) (lock uint64) {
	for {
		size := int64(in.size.Load())
		from := min(off, size)
		lock = in.rl.lock(from, max(end, from+1), true)
		in.mu.Lock()
		if min(off, int64(in.core.Size)) >= from {
			return lock
		}
		in.mu.Unlock()
		in.rl.unlock(lock)
	}
}

// extendPiece writes as much of data as pieceRuns new runs hold.
//
// Persistence order:
//  1. NT-store the data; zeros for the rest of new blocks, for the rest of unwritten
//     extents, and from the old end of file to the end of its block; SFENCE
//  2. transaction: the extents' slots, and the size if it grows
//  3. only then are the blocks visible to readers
func (fs *FS) extendPiece(ctx *Context, in *inode, off int64, data []byte) (int, error) {
	end := off + int64(len(data))
	lock := in.lockGrow(off, end)
	defer in.rl.unlock(lock)
	defer in.mu.Unlock()
	w := &in.ext.piece
	w.reset()
	end, err := fs.allocHoles(in, w, off, end)
	if err == nil {
		err = fs.needSlots(ctx, in, len(w.runs))
	}
	if err == nil {
		err = fs.storePiece(in, w, off, data[:end-off])
	}
	if err == nil {
		err = fs.commitPiece(ctx, in, w, end)
	}
	if err != nil {
		for _, r := range w.runs {
			fs.alloc.Free(r.Block, uint64(r.Len))
		}
		return 0, err
	}
	return int(end - off), nil
}

// piece is the scratch space of one extendPiece: kept with the inode so that a
// growing file allocates nothing. Protected by the inode's mu.
type piece struct {
	runs      []pagecache.Extent // new blocks
	unwritten []pagecache.Extent // unwritten extents that become written
	old, now  []pagecache.Extent // what the transaction changes
}

func (w *piece) reset() {
	w.runs, w.unwritten, w.old, w.now = w.runs[:0], w.unwritten[:0], w.old[:0], w.now[:0]
}

// allocHoles finds what [off, end) lacks and allocates it; it returns the end of
// what it could cover, at least one byte, or an error with nothing covered.
func (fs *FS) allocHoles(in *inode, w *piece, off, end int64) (int64, error) {
	b, last := uint64(off)>>layout.BlockShift, uint64(end-1)>>layout.BlockShift
	for b <= last {
		e, ok := in.space.Lookup(b)
		if ok {
			if e.Flags&layout.ExtentUnwritten != 0 {
				if len(w.unwritten) == pieceRuns {
					break
				}
				w.unwritten = append(w.unwritten, e)
			}
			b = e.Logical + uint64(e.Len)
			continue
		}
		if len(w.runs) == pieceRuns {
			break
		}
		want := last - b + 1
		if e.Logical <= last {
			want = e.Logical - b
		}
		block, n, ok := fs.alloc.Alloc(in.goal(w, b), want)
		if !ok {
			if len(w.runs) == 0 && uint64(off)>>layout.BlockShift == b {
				return 0, errNoSpace
			}
			break
		}
		w.runs = append(w.runs, pagecache.Extent{Logical: b, Block: block, Len: uint32(n)})
		b += n
	}
	return min(end, int64(b)<<layout.BlockShift), nil
}

// goal is the block that would continue what lies before file block b.
func (in *inode) goal(w *piece, b uint64) uint64 {
	if n := len(w.runs); n > 0 {
		if r := w.runs[n-1]; r.Logical+uint64(r.Len) == b {
			return r.Block + uint64(r.Len)
		}
	}
	if b > 0 {
		if p, ok := in.space.Prev(b); ok {
			return p.Block + (b - p.Logical)
		}
	}
	return 0
}

// storePiece is step 1: everything on media that the transaction will show.
func (fs *FS) storePiece(in *inode, w *piece, off int64, data []byte) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	end := off + int64(len(data))
	if err := fs.zeroTail(in, int64(in.core.Size), off); err != nil {
		return err
	}
	for _, r := range w.runs {
		if err := fs.zeroAround(r, off, end); err != nil {
			return err
		}
	}
	for _, u := range w.unwritten {
		if err := fs.zeroAround(u, off, end); err != nil {
			return err
		}
	}
	i := 0
	for off < end {
		b := uint64(off) >> layout.BlockShift
		e, ok := in.space.Lookup(b)
		if !ok {
			for b >= w.runs[i].Logical+uint64(w.runs[i].Len) {
				i++
			}
			e = w.runs[i]
		}
		n := min(end, int64(e.Logical+uint64(e.Len))<<layout.BlockShift) - off
		if err := fs.r.NTStore(regionOff(e, off), data[:n]); err != nil {
			return err
		}
		data, off = data[n:], off+n
	}
	fs.r.Fence()
	return nil
}

// regionOff is where e holds the file's byte off.
func regionOff(e pagecache.Extent, off int64) int64 {
	return int64(e.Block+uint64(off)>>layout.BlockShift-e.Logical)<<layout.BlockShift + off%layout.BlockSize
}

// zeroAround zeroes the part of e that lies outside [off, end).
func (fs *FS) zeroAround(e pagecache.Extent, off, end int64) error {
	lo, hi := int64(e.Logical)<<layout.BlockShift, int64(e.Logical+uint64(e.Len))<<layout.BlockShift
	if lo < off {
		if err := fs.r.NTZero(regionOff(e, lo), min(off, hi)-lo); err != nil {
			return err
		}
	}
	if hi > end {
		from := max(end, lo)
		return fs.r.NTZero(regionOff(e, from), hi-from)
	}
	return nil
}

// commitPiece is steps 2 and 3.
func (fs *FS) commitPiece(ctx *Context, in *inode, w *piece, end int64) error {
	grow := end > int64(in.core.Size)
	if !grow && len(w.runs) == 0 && len(w.unwritten) == 0 {
		return nil
	}
	t := fs.begin(ctx)
	for _, r := range w.runs {
		old, now := in.addRun(t, r.Logical, r.Block, uint64(r.Len), 0)
		w.old, w.now = append(w.old, old), append(w.now, now)
	}
	for _, u := range w.unwritten {
		now := u
		now.Flags &^= layout.ExtentUnwritten
		in.stageSlot(t, u.Slot, mediaExtent(now))
		w.old, w.now = append(w.old, u), append(w.now, now)
	}
	c := in.core
	if grow {
		c.Size = uint64(end)
		in.stageCore(t, &c)
	}
	if err := t.commit(); err != nil {
		for i := range w.old {
			in.undoRun(w.old[i], w.now[i])
		}
		return err
	}
	for _, r := range w.runs {
		fs.table.Own(r.Block, uint64(r.Len))
		in.blocks.Add(uint64(r.Len))
	}
	in.space.BeginChange()
	for i := range w.old {
		in.applyRun(w.old[i], w.now[i])
	}
	in.space.EndChange()
	if grow {
		in.applyCore(&c)
	}
	return nil
}

// storeBlock writes a whole fresh block.
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
