package fs

import (
	"math"
	"runtime"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/rangelock"
	"github.com/daxfsd/daxfsd/pagecache"
	"github.com/daxfsd/daxfsd/refcnt"
)

// PinnedRead is the answer to a read: slices of the region itself, the folio references that keep
// those blocks from being reused, and the byte range that stays locked against writers, all until
// Done.
//
// Life: pooled -> filled by Read -> Done -> pooled.
type PinnedRead struct {
	fs     *FS
	in     *inode // nil: holds nothing
	lock   rangelock.Token
	n      int // bytes in slices
	slices [][]byte
	refs   []refcnt.Ref
}

// run is n blocks of the region, from block on.
type run struct{ block, n uint64 }

// zeros is the answer for holes. It is never written.
var zeros [1 << 20]byte

func newPinnedRead(fs *FS) *PinnedRead {
	return &PinnedRead{fs: fs, slices: make([][]byte, 0, 16), refs: make([]refcnt.Ref, 0, 16)}
}

// NewPinnedRead takes a pinned read from the pool; Free returns it.
func (fs *FS) NewPinnedRead() *PinnedRead { return fs.pools.pinnedReads.Get().(*PinnedRead) }

// Free returns a pinned read to the pool, after Done.
func (r *PinnedRead) Free() { r.fs.pools.pinnedReads.Put(r) }

// Slices returns the answer, in order, valid until Done. Its bytes have not been read yet, so an
// access may fault where the media cannot be read.
func (r *PinnedRead) Slices() [][]byte { return r.slices }

// Take copies the answer to dst, as far as it fits, and ends with Done. It returns the number of
// bytes copied, or EIO where the media cannot be read. A fault in this copy becomes an error. A
// fault in the kernel's copy could take the host down, so no system call is given the region
// itself.
func (r *PinnedRead) Take(dst []byte) (int, syscall.Errno) {
	n, err := r.fs.r.Gather(dst, r.slices)
	if err != nil {
		r.fs.bad.Faulted(err) // while the references keep the block from becoming free
		n = 0
	}
	r.Done()
	return n, errno(err)
}

// Len returns the answer's length in bytes.
func (r *PinnedRead) Len() int { return r.n }

// Done drops the references and the range lock. It must be called exactly once for every successful
// Read, from any goroutine, unless Take was called.
func (r *PinnedRead) Done() {
	in := r.in
	if in == nil {
		return
	}
	for _, u := range r.refs {
		r.fs.table.Put(u, r.fs.free.idle)
	}
	in.rl.Unlock(r.lock)
	r.in, r.slices, r.refs, r.n = nil, r.slices[:0], r.refs[:0], 0
	r.fs.put(in, 1)
}

// Read answers with up to size bytes of the file from byte off on, fewer only at the end of file.
// The answer is valid until r.Done. EISDIR for a directory, EINVAL for another inode without
// content, EIO if the media cannot be read.
func (fs *FS) Read(ctx *Caller, ino uint64, off int64, size int, r *PinnedRead) syscall.Errno {
	in, e := fs.get(ino)
	if e != 0 {
		return e
	}
	if e := fs.read(ctx, in, off, size, r); e != 0 {
		fs.put(in, 1)
		return e
	}
	if ctx.Fill {
		in.pages.fillLocked(off, off+int64(size))
	}
	fs.accessed(ctx, in)
	return 0
}

func (fs *FS) read(ctx *Caller, in *inode, off int64, size int, answer *PinnedRead) syscall.Errno {
	if !in.isReg() {
		if in.isDir() {
			return syscall.EISDIR
		}
		return syscall.EINVAL
	}
	if off < 0 || size < 0 {
		return syscall.EINVAL
	}
	if err := fs.extentsLoaded(ctx, in); err != nil {
		return errno(err)
	}
	end := int64(math.MaxInt64)
	if off <= end-int64(size) {
		end = off + int64(size)
	}
	lock, err := in.lockRange(ctx, off, end, false)
	if err != nil {
		return errno(err)
	}
	answer.in, answer.lock, answer.n = in, lock, 0
	end = min(end, int64(in.size.Load()))
	for off < end {
		n := end - off
		ref, found, flags := fs.refRun(in, off, n)
		if n = found; found == 0 {
			answer.drop()
			return syscall.EIO
		}
		if ref.N != 0 {
			answer.refs = append(answer.refs, ref)
		}
		if ref.N == 0 || flags&layout.ExtentUnwritten != 0 {
			n = min(n, int64(len(zeros)))
			answer.slices = append(answer.slices, zeros[:n])
		} else {
			pos := int64(ref.Block)<<layout.BlockShift + off%layout.BlockSize
			if err := fs.bad.Check(ref.Block, ref.N); err != nil {
				answer.drop()
				return errno(err)
			}
			answer.slices = append(answer.slices, fs.r.Bytes(pos, n))
		}
		off += n
		answer.n += int(n)
	}
	// A truncation takes no range lock, so it may have cut blocks before they were looked up.
	if size := int64(in.size.Load()); size < end {
		answer.cut(end - size)
	}
	return 0
}

// cut removes the last n bytes of the answer, or all bytes if there are fewer.
func (r *PinnedRead) cut(n int64) {
	for n > 0 && len(r.slices) > 0 {
		last := &r.slices[len(r.slices)-1]
		m := min(n, int64(len(*last)))
		*last = (*last)[:int64(len(*last))-m]
		if len(*last) == 0 {
			r.slices = r.slices[:len(r.slices)-1]
		}
		r.n -= int(m)
		n -= m
	}
}

// refRun looks up n bytes of the file from byte off on, as far as they are contiguous in the region
// and in folios of one order. It returns how many bytes these are (m), their blocks with a
// reference to their folios (u), and the extent's flags. After the try-get it has looked the extent
// up again. For a hole, u is empty. m is 0 if the blocks have no owner, because the saved free map
// was wrong.
func (fs *FS) refRun(in *inode, off, n int64) (u refcnt.Ref, m int64, flags uint8) {
	b := uint64(off) >> layout.BlockShift
	for tries := 1; ; tries++ {
		seq := in.space.Seq()
		block, left, flags := in.space.Translate(b)
		m := n
		if left == 0 {
			if block <= maxBlock {
				m = min(m, int64(block)<<layout.BlockShift-off)
			}
			if in.space.Valid(seq) {
				return refcnt.Ref{}, m, 0
			}
			continue
		}
		if end := int64(b+left)<<layout.BlockShift - off; m > end {
			m = end
		}
		u, ok := fs.table.TryGet(block, uint64(off+m-1)>>layout.BlockShift-b+1)
		if !ok {
			runtime.Gosched() // the folio is being split or merged, or the file has lost the block
			if tries%256 == 0 && fs.mounted.fromFreeMap && fs.hasNoOwner(in, b) {
				return refcnt.Ref{}, 0, 0
			}
			continue
		}
		if in.space.Valid(seq) {
			return u, min(m, int64(b+u.N)<<layout.BlockShift-off), flags
		}
		fs.table.Put(u, fs.free.idle)
	}
}

// hasNoOwner reports whether block b of a file has no owner, because the saved free map was wrong.
// Called without in.mu.
func (fs *FS) hasNoOwner(in *inode, b uint64) bool {
	if !in.mu.TryRLock() {
		return false // the inode is being changed
	}
	defer in.mu.RUnlock()
	e, ok := in.space.Lookup(b)
	if !ok || fs.table.Owned(e.BlockAt(b), 1) {
		return false
	}
	fs.doubt(e.BlockAt(b))
	return true
}

// drop undoes a read that failed half-way. The caller still holds its reference to the inode.
func (r *PinnedRead) drop() {
	in := r.in
	for _, u := range r.refs {
		r.fs.table.Put(u, r.fs.free.idle)
	}
	in.rl.Unlock(r.lock)
	r.in, r.slices, r.refs, r.n = nil, r.slices[:0], r.refs[:0], 0
}

// seekData and seekHole are SEEK_DATA and SEEK_HOLE of lseek(2).
const (
	seekData = 3
	seekHole = 4
)

// Lseek finds the next data or hole at or after byte off, for SEEK_DATA and SEEK_HOLE. Unwritten
// extents count as holes. Like Extents it holds no lock. ENXIO if off is beyond the end of file, or
// if no data follows it.
func (fs *FS) Lseek(ctx *Caller, ino uint64, off int64, whence int) (int64, syscall.Errno) {
	if whence != seekData && whence != seekHole {
		return 0, syscall.EINVAL
	}
	in, e := fs.get(ino)
	if e != 0 {
		return 0, e
	}
	defer fs.put(in, 1)
	if err := fs.extentsLoaded(ctx, in); err != nil {
		return 0, errno(err)
	}
	if off < 0 {
		return 0, syscall.ENXIO
	}
	for pos := off; ; {
		x, ok, size := in.extentAndSize(uint64(pos) >> layout.BlockShift)
		data := ok && x.Flags&layout.ExtentUnwritten == 0
		switch {
		case pos >= size && off < size && whence == seekHole:
			return size, 0
		case pos >= size:
			return 0, syscall.ENXIO
		case data == (whence == seekData):
			return pos, 0
		case ok:
			pos = int64(x.Logical+uint64(x.Len)) << layout.BlockShift
		case x.Logical <= maxBlock:
			pos = int64(x.Logical) << layout.BlockShift
		default:
			pos = size
		}
	}
}

// extentAndSize returns Space.Lookup of a file block, and the size of the file in bytes at that
// time. They agree since a truncation stores the size before it removes extents, and an append
// after it inserts them. Called without in.mu.
func (in *inode) extentAndSize(logical uint64) (x pagecache.Extent, ok bool, size int64) {
	for {
		seq := in.space.Seq()
		size = int64(in.size.Load())
		if x, ok = in.space.Lookup(logical); in.space.Valid(seq) {
			return x, ok, size
		}
	}
}
