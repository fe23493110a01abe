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

// Options are the choices of Mkfs. The zero value selects the defaults.
type Options struct {
	Label    string
	UUID     [16]byte // zero: random
	Size     int64    // bytes; 0: the whole region
	UID, GID uint32   // owner of the root directory
	Reserve  float64  // percent of the space that only root may take for data, 0 to 50
	// ChunkShift and PUDShift are log2 of the two large folio sizes in bytes; if ChunkShift is 0
	// they are 21 and 30. Tests use small ones to have all orders in a small region.
	ChunkShift, PUDShift uint8
	Lanes                int   // 0: chosen by the size
	Now                  int64 // creation time, ns since the epoch; 0: the current time
}

// MinSize and MaxSize are the smallest and the largest filesystem in bytes.
const (
	MinSize = layout.MinSize
	MaxSize = layout.MaxSize
)

// The largest filesystem is exactly as large as the largest region: otherwise one of these
// constants does not compile.
const (
	_ = uint64(MaxSize - pmem.MaxSize)
	_ = uint64(pmem.MaxSize - MaxSize)
)

// geometry returns the superblock of a new filesystem on the region, and chooses what opts leaves
// open.
func geometry(region *pmem.Region, opts *Options) (*layout.Superblock, error) {
	size := opts.Size
	if size == 0 {
		size = region.Size()
	}
	size &^= layout.BlockSize - 1
	if size > region.Size() {
		return nil, fmt.Errorf("filesystem of %d bytes does not fit the region of %d bytes: choose a smaller --size", size, region.Size())
	}
	if size < MinSize {
		return nil, fmt.Errorf("region of %d bytes is too small: daxfsd needs at least %d bytes (16 MiB)", size, int64(MinSize))
	}
	if size > MaxSize {
		return nil, fmt.Errorf("filesystem of %d bytes is too large: the limit is %d bytes (32 TiB)", size, int64(MaxSize))
	}
	if !(opts.Reserve >= 0 && opts.Reserve <= 50) {
		return nil, fmt.Errorf("a reserve of %v %% is out of range: 0 to 50 are possible", opts.Reserve)
	}
	if len(opts.Label) > layout.LabelSize {
		return nil, fmt.Errorf("label of %d bytes is too long: at most %d bytes", len(opts.Label), layout.LabelSize)
	}
	super := &layout.Superblock{
		Version: layout.Version, UUID: opts.UUID, Label: opts.Label, Size: size,
		ChunkShift: opts.ChunkShift, PUDShift: opts.PUDShift, Lanes: uint16(opts.Lanes),
		Incompat: layout.IncompatShared | layout.IncompatLogged,
		Granule:  max(layout.BlockSize, region.Align()), Created: opts.Now, UID: opts.UID, GID: opts.GID,
		RegionKind: uint64(region.Kind()), RootBlocks: uint64(float64(size>>layout.BlockShift) * opts.Reserve / 100),
	}
	if super.ChunkShift == 0 {
		super.ChunkShift, super.PUDShift = layout.ChunkShift, layout.PUDShift
	}
	if opts.Lanes == 0 {
		super.Lanes = layout.MaxLanes
		if size < 256<<20 {
			super.Lanes = 8
		}
	}
	if super.UUID == ([16]byte{}) {
		if _, err := rand.Read(super.UUID[:]); err != nil {
			return nil, err
		}
		super.UUID[6], super.UUID[8] = super.UUID[6]&0x0f|0x40, super.UUID[8]&0x3f|0x80
	}
	if super.Created == 0 {
		super.Created = time.Now().UnixNano()
	}
	super.Place()
	return super, nil
}

// soundStart fails if the kernel lists bad memory that Mkfs needs: from the start of the region up
// to and including the block of the root inode. Other bad memory is taken out of use by the first
// mount.
func soundStart(r *pmem.Region, s *layout.Superblock) error {
	bad, err := r.BadRanges()
	if err != nil {
		return nil // the first mount reports the error
	}
	for _, b := range bad {
		if b.Off < s.InodeBase+layout.BlockSize {
			return fmt.Errorf("%w: the kernel lists offset %d of the region as bad, and its first %d bytes hold the filesystem's own structures; clear it (ndctl clear-errors), or use other memory",
				pmem.ErrMedia, b.Off, s.InodeBase+layout.BlockSize)
		}
	}
	return nil
}

// Mkfs writes an empty filesystem to the region. It does not check whether the region is in use or
// holds data; the caller has done so.
//
// Persistence order:
//  1. clear both superblocks, the second superblock of the old filesystem, and the region's last
//     block; SFENCE: from here on the region holds no filesystem, neither old nor new
//  2. lanes, bad-range list, owner record, heartbeat, chunk map, first chunk header, root inode;
//     SFENCE
//  3. second superblock, SFENCE; first superblock, SFENCE: the new filesystem is complete
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
	w.zero(lastBlock(r), layout.BlockSize) // where ReadSuper would find an older superblock
	if old != nil && old.BackupOff <= r.Size()-layout.BlockSize {
		w.zero(old.BackupOff, layout.BlockSize) // where fsck would find an older superblock
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

// mkfsWriter stores to the region and keeps the first error, after which it does nothing. So Mkfs
// reads like its list of steps.
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
	super := w.s
	const seq = 1
	w.zero(super.LaneOff, int64(super.Lanes)*2*int64(super.LaneSlot))

	bad := make([]byte, layout.BlockSize)
	layout.FormatBlock(bad, w.seed, super.BadOff, seq)
	w.store(super.BadOff, bad)

	var line layout.Line
	owner := layout.Owner{State: layout.OwnerClean}
	owner.Put(&line)
	line.Seal(w.seed, super.OwnerOff, seq)
	w.store(super.OwnerOff, line[:])
	line = layout.Line{}
	line.Seal(w.seed, super.BeatOff(), seq)
	w.store(super.BeatOff(), line[:])
	line = layout.Line{}
	line.Seal(w.seed, super.MappedOff(), seq)
	w.store(super.MappedOff(), line[:])

	first, bit := layout.ChunkMapPos(super.FirstChunk())
	chunkMap := make([]byte, super.ChunkMapLines*layout.LineSize)
	for i := int64(0); i < super.ChunkMapLines; i++ {
		line = layout.Line{}
		if i == first {
			line.SetChunkBit(bit, true)
		}
		line.Seal(w.seed, super.ChunkMapOff+i*layout.LineSize, seq)
		copy(chunkMap[i*layout.LineSize:], line[:])
	}
	w.store(super.ChunkMapOff, chunkMap)
	w.zero(super.SlotOff, super.Slots*layout.LineSize)

	// The first chunk: its header lists the block behind it as an inode block.
	block := make([]byte, layout.BlockSize)
	layout.FormatBlock(block, w.seed, super.StaticEnd, seq)
	line = layout.Line{}
	line.SetChunkHeader(super.FirstChunk())
	layout.PutLine(block, 0, &line, w.seed, super.StaticEnd, seq)
	line = layout.Line{}
	typeLine, i := layout.TypePos(int(super.InodeBase>>layout.BlockShift) & (super.ChunkBlocks() - 1))
	line.SetBlockType(i, layout.BlockInode)
	layout.PutLine(block, typeLine, &line, w.seed, super.StaticEnd, seq)
	w.store(super.StaticEnd, block)

	// The root directory: inode 1, empty.
	layout.FormatBlock(block, w.seed, super.InodeBase, seq)
	for i := 0; i < layout.InodesPerBlock; i++ {
		core := layout.Core{Gen: 1}
		if i == 0 {
			core = layout.Core{Mode: syscall.S_IFDIR | 0o755, UID: super.UID, GID: super.GID, Nlink: 2, Gen: 1, Parent: layout.RootIno}
		}
		line = layout.Line{}
		core.Put(&line)
		layout.PutLine(block, i*layout.InodeSize/layout.LineSize, &line, w.seed, super.InodeBase, seq)
	}
	line = layout.Line{}
	times := layout.Times{Atime: super.Created, Mtime: super.Created, Ctime: super.Created, Btime: super.Created}
	times.Put(&line)
	layout.PutLine(block, layout.InodeTimesOff/layout.LineSize, &line, w.seed, super.InodeBase, seq)
	w.store(super.InodeBase, block)
}
