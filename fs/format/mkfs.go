package format

import (
	"crypto/rand"
	"fmt"
	"runtime"
	"syscall"
	"time"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// Options are the choices of Mkfs; the zero value is the usual one.
type Options struct {
	Label    string
	UUID     [16]byte // zero: random
	Size     int64    // bytes; 0: the whole region
	UID, GID uint32   // owner of the root directory
	Reserve  float64  // share of the space that only root may take, in percent, up to 50
	// ChunkShift and PUDShift are log2 of the two large folio sizes in bytes;
	// 0 means 21 and 30. Tests use small ones to have all orders in a small region.
	ChunkShift, PUDShift uint8
	Lanes                int   // 0: by size
	Now                  int64 // ns since the epoch; 0: the clock
}

// MinSize and MaxSize are the smallest and the largest filesystem in bytes.
const (
	MinSize = layout.MinSize
	MaxSize = layout.MaxSize
)

// A filesystem may be as large as a region, and no larger.
const (
	_ = uint64(MaxSize - pmem.MaxSize)
	_ = uint64(pmem.MaxSize - MaxSize)
)

// geometry lays out the fixed area of a filesystem of the given size.
func geometry(r *pmem.Region, o *Options) (*layout.Superblock, error) {
	size := o.Size
	if size == 0 {
		size = r.Size()
	}
	size &^= layout.BlockSize - 1
	if size > r.Size() {
		return nil, fmt.Errorf("filesystem of %d bytes does not fit the region of %d bytes: choose a smaller --size", size, r.Size())
	}
	if size < MinSize {
		return nil, fmt.Errorf("region of %d bytes is too small: daxfsd needs at least %d bytes (16 MiB)", size, int64(MinSize))
	}
	if size > MaxSize {
		return nil, fmt.Errorf("filesystem of %d bytes is too large: the limit is %d bytes (32 TiB)", size, int64(MaxSize))
	}
	if !(o.Reserve >= 0 && o.Reserve <= 50) {
		return nil, fmt.Errorf("a reserve of %v %% is out of range: 0 to 50 are possible", o.Reserve)
	}
	if len(o.Label) > layout.LabelSize {
		return nil, fmt.Errorf("label of %d bytes is too long: at most %d bytes", len(o.Label), layout.LabelSize)
	}
	s := &layout.Superblock{
		Version: layout.Version, UUID: o.UUID, Label: o.Label, Size: size,
		ChunkShift: o.ChunkShift, PUDShift: o.PUDShift, Lanes: uint16(o.Lanes),
		Incompat: layout.IncompatShared | layout.IncompatLogged,
		Granule:  max(layout.BlockSize, r.Align()), Created: o.Now, UID: o.UID, GID: o.GID,
		RegionKind: uint64(r.Kind()), RootBlocks: uint64(float64(size>>layout.BlockShift) * o.Reserve / 100),
	}
	if s.ChunkShift == 0 {
		s.ChunkShift, s.PUDShift = layout.ChunkShift, layout.PUDShift
	}
	if o.Lanes == 0 {
		s.Lanes = layout.MaxLanes
		if size < 256<<20 {
			s.Lanes = 8
		}
	}
	if s.UUID == ([16]byte{}) {
		if _, err := rand.Read(s.UUID[:]); err != nil {
			return nil, err
		}
		s.UUID[6], s.UUID[8] = s.UUID[6]&0x0f|0x40, s.UUID[8]&0x3f|0x80
	}
	if s.Created == 0 {
		s.Created = time.Now().UnixNano()
	}
	s.Place()
	return s, nil
}

// soundStart fails if the kernel knows that memory is bad which Mkfs needs: up to the block of the
// root. What is bad elsewhere the first mount takes out of use.
func soundStart(r *pmem.Region, s *layout.Superblock) error {
	bad, err := r.BadRanges()
	if err != nil {
		return nil // the first mount says so
	}
	for _, b := range bad {
		if b.Off < s.InodeBase+layout.BlockSize {
			return fmt.Errorf("%w: the kernel lists offset %d of the region as bad, and its first %d bytes hold the filesystem's own structures; clear it (ndctl clear-errors), or use other memory",
				pmem.ErrMedia, b.Off, s.InodeBase+layout.BlockSize)
		}
	}
	return nil
}

// Mkfs writes an empty filesystem to the region. It does not look at what was
// there before: whoever calls it has.
//
// Persistence order:
//  1. both superblocks cleared, the second one of the filesystem that was there, and the
//     region's last block; SFENCE: from here on it is no filesystem, old or new
//  2. lanes, chunk map, owner record, bad-range list, first chunk header, root inode; SFENCE
//  3. second superblock, SFENCE; first superblock, SFENCE: from here on it is one
func Mkfs(r *pmem.Region, o Options) (*layout.Superblock, error) {
	s, err := geometry(r, &o)
	if err != nil {
		return nil, err
	}
	if _, err := layout.DecodeSuper(s.Encode(), 0); err != nil {
		return nil, fmt.Errorf("geometry is not possible: %w", err)
	}
	if err := soundStart(r, s); err != nil {
		return nil, err
	}
	old, _, _ := ReadSuper(r)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	w := mkfsWriter{r: r, s: s, seed: layout.Seed(s.UUID)}
	w.zero(0, layout.BlockSize)
	w.zero(s.BackupOff, layout.BlockSize)
	w.zero(lastBlock(r), layout.BlockSize) // where ReadSuper would find an older one
	if old != nil && old.BackupOff <= r.Size()-layout.BlockSize {
		w.zero(old.BackupOff, layout.BlockSize) // and where fsck would
	}
	w.fence()
	w.body()
	w.fence()
	sb := s.Encode()
	w.store(s.BackupOff, sb)
	w.fence()
	w.store(0, sb)
	w.fence()
	return s, w.err
}

// mkfsWriter carries the first error, so that mkfs reads as its list of steps.
type mkfsWriter struct {
	r    *pmem.Region
	s    *layout.Superblock
	seed uint32
	err  error
}

func (w *mkfsWriter) zero(off, n int64) {
	if w.err == nil {
		w.err = w.r.NTZero(off, n)
	}
}

func (w *mkfsWriter) store(off int64, b []byte) {
	if w.err == nil {
		w.err = w.r.NTStore(off, b)
	}
}

func (w *mkfsWriter) fence() {
	if w.err == nil {
		w.r.Fence()
	}
}

func (w *mkfsWriter) body() {
	s := w.s
	const seq = 1
	w.zero(s.LaneOff, int64(s.Lanes)*2*int64(s.LaneSlot))

	bad := make([]byte, layout.BlockSize)
	layout.FormatBlock(bad, w.seed, s.BadOff, seq)
	w.store(s.BadOff, bad)

	var l layout.Line
	owner := layout.Owner{State: layout.OwnerClean}
	owner.Put(&l)
	l.Seal(w.seed, s.OwnerOff, seq)
	w.store(s.OwnerOff, l[:])
	l = layout.Line{}
	l.Seal(w.seed, s.BeatOff(), seq)
	w.store(s.BeatOff(), l[:])

	first, bit := layout.ChunkMapPos(s.FirstChunk())
	m := make([]byte, s.ChunkMapLines*layout.LineSize)
	for i := int64(0); i < s.ChunkMapLines; i++ {
		l = layout.Line{}
		if i == first {
			l.SetChunkBit(bit, true)
		}
		l.Seal(w.seed, s.ChunkMapOff+i*layout.LineSize, seq)
		copy(m[i*layout.LineSize:], l[:])
	}
	w.store(s.ChunkMapOff, m)

	// The first chunk: its header says that the block behind it holds inodes.
	b := make([]byte, layout.BlockSize)
	layout.FormatBlock(b, w.seed, s.StaticEnd, seq)
	l = layout.Line{}
	l.SetChunkHeader(s.FirstChunk())
	layout.PutLine(b, 0, &l, w.seed, s.StaticEnd, seq)
	l = layout.Line{}
	tl, i := layout.TypePos(int(s.InodeBase>>layout.BlockShift) & (s.ChunkBlocks() - 1))
	l.SetBlockType(i, layout.BlockInode)
	layout.PutLine(b, tl, &l, w.seed, s.StaticEnd, seq)
	w.store(s.StaticEnd, b)

	// The root directory: inode 1, empty.
	layout.FormatBlock(b, w.seed, s.InodeBase, seq)
	for i := 0; i < layout.InodesPerBlock; i++ {
		c := layout.Core{Gen: 1}
		if i == 0 {
			c = layout.Core{Mode: syscall.S_IFDIR | 0o755, UID: s.UID, GID: s.GID, Nlink: 2, Gen: 1, Parent: layout.RootIno}
		}
		l = layout.Line{}
		c.Put(&l)
		layout.PutLine(b, i*layout.InodeSize/layout.LineSize, &l, w.seed, s.InodeBase, seq)
	}
	l = layout.Line{}
	t := layout.Times{Atime: s.Created, Mtime: s.Created, Ctime: s.Created, Btime: s.Created}
	t.Put(&l)
	layout.PutLine(b, layout.InodeTimesOff/layout.LineSize, &l, w.seed, s.InodeBase, seq)
	w.store(s.InodeBase, b)
}
