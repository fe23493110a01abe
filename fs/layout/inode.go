package layout

// An inode is four lines.
const (
	InodeSize      = 4 * LineSize
	InodesPerBlock = BlockSize / InodeSize

	// The inode's lines, as byte offsets from its start.
	InodeCoreOff   = 0 * LineSize
	InodeTimesOff  = 1 * LineSize
	InodeLiveOff   = 2 * LineSize
	InodeExtentOff = 3 * LineSize

	RootIno = 1
)

// Inode format flags (Core.Format).
const (
	// FormatInline means that the extent line holds up to InlineSize bytes of content (a symbolic
	// link's target) instead of extents.
	FormatInline uint16 = 1 << 0
	// FormatTruncating means that a truncation was committed, but extents beyond the size may be
	// left. Recovery removes them.
	FormatTruncating uint16 = 1 << 1
)

// InlineSize is the number of bytes of content that fit the extent line.
const InlineSize = PayloadSize

// Core is line 0 of an inode: the attributes that transactions change. Mode 0 marks a free slot,
// which keeps the generation of its last inode.
//
//	offset size field
//	0      2    mode: type and permissions, as st_mode
//	2      2    format flags
//	4      4    uid
//	8      4    gid
//	12     4    nlink
//	16     8    size in bytes
//	24     4    generation
//	28     4    flags (FS_*_FL of linux/fs.h), and the extent size hint
//	32     4    project id
//	36     4    rdev
//	40     8    parent directory's inode number (directories only)
//	48     4    reserved
type Core struct {
	Mode, Format     uint16
	UID, GID, Nlink  uint32
	Size             uint64 // bytes
	Gen, Flags, Proj uint32
	Rdev             uint32
	Parent           uint64 // inode number; directories only
}

// The flags of Core.Flags, FS_*_FL of linux/fs.h.
const (
	FlagSync        uint32 = 0x00000008 // kept but without effect: all writes are synchronous
	FlagImmutable   uint32 = 0x00000010
	FlagAppend      uint32 = 0x00000020
	FlagNoDump      uint32 = 0x00000040
	FlagNoAtime     uint32 = 0x00000080
	FlagDAX         uint32 = 0x02000000 // with -o dax=inode: bypass the page cache
	FlagProjInherit uint32 = 0x20000000 // of directories: new entries inherit the project id

	// The extent size hint, which is no flag of linux/fs.h: at most one of the two is set. A
	// directory gives it to new files and directories in it.
	FlagHintPMD uint32 = 0x04000000
	FlagHintPUD uint32 = 0x08000000

	FlagsKnown = FlagSync | FlagImmutable | FlagAppend | FlagNoDump | FlagNoAtime | FlagDAX | FlagProjInherit
	FlagsHint  = FlagHintPMD | FlagHintPUD
)

// Put writes c into l.
func (c *Core) Put(l *Line) {
	l.put16(0, c.Mode)
	l.put16(2, c.Format)
	l.put32(4, c.UID)
	l.put32(8, c.GID)
	l.put32(12, c.Nlink)
	l.put64(16, c.Size)
	l.put32(24, c.Gen)
	l.put32(28, c.Flags)
	l.put32(32, c.Proj)
	l.put32(36, c.Rdev)
	l.put64(40, c.Parent)
	l.put32(48, 0)
}

// Get reads c from l.
func (c *Core) Get(l *Line) {
	*c = Core{
		Mode: l.u16(0), Format: l.u16(2),
		UID: l.u32(4), GID: l.u32(8), Nlink: l.u32(12), Size: l.u64(16),
		Gen: l.u32(24), Flags: l.u32(28), Proj: l.u32(32), Rdev: l.u32(36),
		Parent: l.u64(40),
	}
}

// Times is line 1 of an inode. Times are in ns since the epoch (1677 to 2262).
//
//	offset size field
//	0      8    atime
//	8      8    mtime
//	16     8    ctime
//	24     8    btime
//	32     8    first extent block (block number, 0: none)
//	40     8    extended attribute root (block number, 0: none)
//	48     4    reserved
type Times struct {
	Atime, Mtime, Ctime, Btime int64  // ns since the epoch
	ExtentRoot, XattrRoot      uint64 // block numbers; 0: none
}

// Put writes t into l.
func (t *Times) Put(l *Line) {
	l.put64(0, uint64(t.Atime))
	l.put64(8, uint64(t.Mtime))
	l.put64(16, uint64(t.Ctime))
	l.put64(24, uint64(t.Btime))
	l.put64(32, t.ExtentRoot)
	l.put64(40, t.XattrRoot)
	l.put32(48, 0)
}

// Get reads t from l.
func (t *Times) Get(l *Line) {
	*t = Times{
		Atime: int64(l.u64(0)), Mtime: int64(l.u64(8)), Ctime: int64(l.u64(16)), Btime: int64(l.u64(24)),
		ExtentRoot: l.u64(32), XattrRoot: l.u64(40),
	}
}

// Live is line 2 of an inode: the times as stored without a transaction. It counts only while it is
// valid, its sequence is not below that of the times line, and its generation is the inode's.
// Otherwise it is ignored and the times line counts.
//
//	offset size field
//	0      8    atime
//	8      8    mtime
//	16     8    ctime
//	24     8    size in flight (reserved, 0)
//	32     8    layout generation
//	40     4    inode generation the line belongs to
//	44     8    reserved
type Live struct {
	Atime, Mtime, Ctime int64  // ns since the epoch
	Layout              uint64 // layout generation
	Gen                 uint32 // generation of the inode that the line belongs to
}

// Put writes v into l.
func (v *Live) Put(l *Line) {
	l.put64(0, uint64(v.Atime))
	l.put64(8, uint64(v.Mtime))
	l.put64(16, uint64(v.Ctime))
	l.put64(24, 0)
	l.put64(32, v.Layout)
	l.put32(40, v.Gen)
	l.put64(44, 0)
}

// Get reads v from l.
func (v *Live) Get(l *Line) {
	*v = Live{Atime: int64(l.u64(0)), Mtime: int64(l.u64(8)), Ctime: int64(l.u64(16)), Layout: l.u64(32), Gen: l.u32(40)}
}

// Extent flags.
const (
	// ExtentUnwritten means that the blocks are allocated and read as zeros.
	ExtentUnwritten uint8 = 1 << 0
	// ExtentShared means that other extents, which have the flag too, may contain some of the same
	// blocks. The flag may remain when those extents are gone.
	ExtentShared uint8 = 1 << 1
)

// Extent is one slot: a contiguous run of a file's blocks. Len 0 marks an empty slot.
//
//	offset size field
//	0      8    logical block (file offset / 4096)
//	8      8    block (region offset / 4096)
//	16     4    length in blocks
//	20     1    device id (0: this region)
//	21     1    flags
//	22     2    reserved
type Extent struct {
	Logical, Block uint64 // first file block and first region block
	Len            uint32 // blocks
	Dev, Flags     uint8
}

const (
	extentSize = 24
	// ExtentsPerLine is the number of slots of a line. The inode's extent line holds slots 0 and 1.
	ExtentsPerLine = 2
	// ExtentsPerBlock is the number of slots of an extent block: those of the 63 lines behind the
	// header line.
	ExtentsPerBlock = (LinesPerBlock - 1) * ExtentsPerLine
)

// PutExtent writes e into slot i (0 or 1) of l.
func (l *Line) PutExtent(i int, e Extent) {
	o := i * extentSize
	l.put64(o, e.Logical)
	l.put64(o+8, e.Block)
	l.put32(o+16, e.Len)
	l.put8(o+20, e.Dev)
	l.put8(o+21, e.Flags)
	l.put16(o+22, 0)
}

// Extent reads slot i (0 or 1) of l.
func (l *Line) Extent(i int) Extent {
	o := i * extentSize
	return Extent{Logical: l.u64(o), Block: l.u64(o + 8), Len: l.u32(o + 16), Dev: l.u8(o + 20), Flags: l.u8(o + 21)}
}

// ExtentBlock is the header line of an extent block. The extent blocks of a file are a chain from
// Times.ExtentRoot, newest block first. Slots 0 and 1 of a file are in the inode. The k-th linked
// block (from 0) holds slots 2+126k to 2+126k+125.
//
//	offset size field
//	0      4    ExtentBlockMagic
//	4      4    index k of the block in the order of linking
//	8      8    owner's inode number
//	16     8    next extent block (block number, 0: none)
//	24     4    owner's generation
type ExtentBlock struct {
	Index uint32 // in the order of linking, from 0
	Owner uint64 // inode number
	Next  uint64 // block number of the next extent block; 0: none
	Gen   uint32 // generation of the owner
}

// ExtentBlockMagic marks the header line of an extent block: "EXTB".
const ExtentBlockMagic = 0x42545845

// Put writes h into l.
func (h *ExtentBlock) Put(l *Line) {
	l.put32(0, ExtentBlockMagic)
	l.put32(4, h.Index)
	l.put64(8, h.Owner)
	l.put64(16, h.Next)
	l.put32(24, h.Gen)
}

// Get reads h from l and reports whether l is the header line of an extent block.
func (h *ExtentBlock) Get(l *Line) bool {
	*h = ExtentBlock{Index: l.u32(4), Owner: l.u64(8), Next: l.u64(16), Gen: l.u32(24)}
	return l.u32(0) == ExtentBlockMagic
}
