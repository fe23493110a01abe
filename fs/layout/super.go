package layout

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Magic begins both superblocks: "DAXFS", ^Z, CR, LF. Transfers in text mode corrupt it, so they
// are detected.
var Magic = [8]byte{'D', 'A', 'X', 'F', 'S', 0x1a, '\r', '\n'}

// Version is the format version that this code writes. A reader accepts any other version except 0,
// as long as it knows all incompatible feature bits.
const Version = 1

// Feature bits. Unknown compat bits are ignored, unknown ro-compat bits allow reading only, unknown
// incompat bits make a mount fail.
const (
	KnownCompat   uint64 = 0
	KnownROCompat uint64 = 0
	KnownIncompat uint64 = IncompatShared | IncompatLogged

	// IncompatShared means that extents may share blocks (ExtentShared).
	IncompatShared uint64 = 1 << 0
	// IncompatLogged means that the journal may hold logged records.
	IncompatLogged uint64 = 1 << 1
)

// Superblock describes the filesystem. It is written by mkfs and is immutable while mounted. There
// are two copies: at offset 0, and in the last whole block of the formatted size.
//
//	offset size field
//	0      8    magic
//	8      4    version
//	12     4    block shift (12)
//	16     8    compat feature bits
//	24     8    ro-compat feature bits
//	32     8    incompat feature bits
//	40     16   uuid
//	56     64   label, NUL padded
//	120    8    size of the filesystem in bytes, a multiple of 4096
//	128    1    chunk shift: log2 of a chunk in bytes (21)
//	129    1    pud shift: log2 of a PUD folio in bytes (30)
//	130    2    lane count
//	132    4    lane slot size in bytes (two slots a lane)
//	136    8    mapping granule in bytes
//	144    8    lane area offset
//	152    8    chunk map offset
//	160    8    chunk map length in lines
//	168    8    owner record offset (one line, and the heartbeat behind it)
//	176    8    bad-range list offset (one block)
//	184    8    static end: first byte after the fixed area
//	192    8    inode base: offset of inode 1, the root
//	200    8    creation time, ns since the epoch
//	208    4    uid that ran mkfs
//	212    4    gid that ran mkfs
//	216    8    blocks that only root may take for data
//	224    8    offset of the slots
//	232    8    backup superblock offset
//	240    8    kind of region mkfs saw (pmem.Kind)
//	248    8    number of slots
//	256    248  reserved, zero
//	504    4    reserved, zero
//	508    4    crc32c over bytes 0..507
type Superblock struct {
	Version                    uint32
	Compat, ROCompat, Incompat uint64
	UUID                       [16]byte
	Label                      string
	Size                       int64 // bytes
	ChunkShift, PUDShift       uint8 // log2 of bytes
	Lanes                      uint16
	LaneSlot                   uint32 // bytes
	Granule                    int64  // bytes
	LaneOff                    int64  // region offset in bytes, as the names below that end in Off
	ChunkMapOff                int64
	ChunkMapLines              int64 // lines
	SlotOff                    int64
	Slots                      int64 // lines
	OwnerOff                   int64
	BadOff                     int64
	StaticEnd                  int64 // region offset in bytes
	InodeBase                  int64 // region offset in bytes
	Created                    int64 // ns since the epoch
	UID, GID                   uint32
	RootBlocks                 uint64 // blocks
	BackupOff                  int64
	RegionKind                 uint64 // pmem.Kind
}

// MaxSize is the largest filesystem in bytes: 32 TiB. Its region is mapped twice, and processes
// have 128 TiB of addresses on amd64. It is the same as pmem.MaxSize.
const MaxSize = 32 << 40

// MinSize is the smallest filesystem in bytes.
const MinSize = 16 << 20

// SuperSize is the encoded size of a superblock in bytes.
const SuperSize = 512

// LabelSize is the longest label, in bytes.
const LabelSize = 64

// The errors of a superblock that is not usable. There are three because the user reacts
// differently to each.
var (
	ErrMagic    = errors.New("not a daxfsd superblock")
	ErrVersion  = errors.New("format is newer than this program")
	ErrChecksum = errors.New("superblock is damaged")
)

// ErrDamaged is wrapped by the errors for malformed structures: bytes that no writer produces.
var ErrDamaged = errors.New("filesystem is damaged")

// Damagedf returns an error that wraps ErrDamaged. The message names the structure, its offset,
// what was found and what was expected.
func Damagedf(format string, a ...any) error {
	return fmt.Errorf("%w: %s; run daxfsd fsck", ErrDamaged, fmt.Sprintf(format, a...))
}

// Encode returns the SuperSize bytes of s, checksum last.
func (s *Superblock) Encode() []byte {
	b := make([]byte, SuperSize)
	le := binary.LittleEndian
	copy(b, Magic[:])
	le.PutUint32(b[8:], s.Version)
	le.PutUint32(b[12:], BlockShift)
	le.PutUint64(b[16:], s.Compat)
	le.PutUint64(b[24:], s.ROCompat)
	le.PutUint64(b[32:], s.Incompat)
	copy(b[40:56], s.UUID[:])
	copy(b[56:120], s.Label)
	le.PutUint64(b[120:], uint64(s.Size))
	b[128] = s.ChunkShift
	b[129] = s.PUDShift
	le.PutUint16(b[130:], s.Lanes)
	le.PutUint32(b[132:], s.LaneSlot)
	le.PutUint64(b[136:], uint64(s.Granule))
	le.PutUint64(b[144:], uint64(s.LaneOff))
	le.PutUint64(b[152:], uint64(s.ChunkMapOff))
	le.PutUint64(b[160:], uint64(s.ChunkMapLines))
	le.PutUint64(b[168:], uint64(s.OwnerOff))
	le.PutUint64(b[176:], uint64(s.BadOff))
	le.PutUint64(b[184:], uint64(s.StaticEnd))
	le.PutUint64(b[192:], uint64(s.InodeBase))
	le.PutUint64(b[200:], uint64(s.Created))
	le.PutUint32(b[208:], s.UID)
	le.PutUint32(b[212:], s.GID)
	le.PutUint64(b[216:], s.RootBlocks)
	le.PutUint64(b[224:], uint64(s.SlotOff))
	le.PutUint64(b[232:], uint64(s.BackupOff))
	le.PutUint64(b[240:], s.RegionKind)
	le.PutUint64(b[248:], uint64(s.Slots))
	le.PutUint32(b[508:], Checksum(0, b[:508]))
	return b
}

// DecodeSuper decodes buf, the superblock at region offset off. Its errors wrap ErrMagic,
// ErrChecksum or ErrVersion, and name what was found.
func DecodeSuper(buf []byte, off int64) (*Superblock, error) {
	endian := binary.LittleEndian
	if len(buf) < SuperSize {
		return nil, fmt.Errorf("superblock at offset %d: %w: found %d bytes, expected %d", off, ErrMagic, len(buf), SuperSize)
	}
	if !bytes.Equal(buf[:8], Magic[:]) {
		return nil, fmt.Errorf("superblock at offset %d: %w: found magic %x, expected %x", off, ErrMagic, buf[:8], Magic)
	}
	if got, want := Checksum(0, buf[:508]), endian.Uint32(buf[508:]); got != want {
		return nil, fmt.Errorf("superblock at offset %d: %w: checksum is %08x, expected %08x", off, ErrChecksum, got, want)
	}
	super := &Superblock{
		Version: endian.Uint32(buf[8:]),
		Compat:  endian.Uint64(buf[16:]), ROCompat: endian.Uint64(buf[24:]), Incompat: endian.Uint64(buf[32:]),
		Label:      string(bytes.TrimRight(buf[56:120], "\x00")),
		Size:       int64(endian.Uint64(buf[120:])),
		ChunkShift: buf[128], PUDShift: buf[129],
		Lanes: endian.Uint16(buf[130:]), LaneSlot: endian.Uint32(buf[132:]),
		Granule:       int64(endian.Uint64(buf[136:])),
		LaneOff:       int64(endian.Uint64(buf[144:])),
		ChunkMapOff:   int64(endian.Uint64(buf[152:])),
		ChunkMapLines: int64(endian.Uint64(buf[160:])),
		OwnerOff:      int64(endian.Uint64(buf[168:])),
		BadOff:        int64(endian.Uint64(buf[176:])),
		StaticEnd:     int64(endian.Uint64(buf[184:])),
		InodeBase:     int64(endian.Uint64(buf[192:])),
		Created:       int64(endian.Uint64(buf[200:])),
		UID:           endian.Uint32(buf[208:]), GID: endian.Uint32(buf[212:]),
		RootBlocks: endian.Uint64(buf[216:]),
		BackupOff:  int64(endian.Uint64(buf[232:])),
		RegionKind: endian.Uint64(buf[240:]),
		SlotOff:    int64(endian.Uint64(buf[224:])), Slots: int64(endian.Uint64(buf[248:])),
	}
	copy(super.UUID[:], buf[40:56])
	if unknown := super.Incompat &^ KnownIncompat; unknown != 0 || super.Version == 0 {
		return nil, fmt.Errorf("superblock at offset %d: %w: format version %d with incompatible features %#x, this program knows version %d with %#x; use a newer daxfsd",
			off, ErrVersion, super.Version, super.Incompat, Version, KnownIncompat)
	}
	if err := super.check(); err != nil {
		return nil, fmt.Errorf("superblock at offset %d: %w: %w", off, ErrChecksum, err)
	}
	return super, nil
}

// LaneSlot is the size of a lane's slot in bytes and MaxLanes is the largest number of lanes, in
// version 1.
const (
	LaneSlot = 8192
	MaxLanes = 64
)

// The two larger folio sizes, log2 of bytes. Tests use smaller ones to have all orders in a small
// region. They are accepted only for filesystems of up to smallMax bytes, because a mount keeps
// memory for each chunk.
const (
	ChunkShift = 21
	PUDShift   = 30
	smallMax   = 4 << 30
)

// A filesystem has a slot for each slotShare bytes, and at most maxSlots: one for each file whose
// blocks programs map at the same time. A slot is a line without sequence and checksum. It means
// nothing once the filesystem is unmounted.
const (
	slotShare = 64 << 10
	maxSlots  = 4096
)

// Place computes the fixed area, which follows from the version, the size, the shifts and the
// number of lanes:
//
//	superblock block, with the owner record and the heartbeat
//	bad-range list
//	lanes
//	chunk map
//	chunk header
//	inodes
//
// and what is at the end of the filesystem: slots, second superblock.
func (s *Superblock) Place() {
	s.BackupOff = s.Size - BlockSize
	s.Slots = min(max(s.Size/slotShare, LinesPerBlock), maxSlots) &^ (LinesPerBlock - 1)
	s.SlotOff = s.BackupOff - s.Slots*LineSize
	s.LaneSlot = LaneSlot
	s.OwnerOff = BlockSize / 2
	s.BadOff = BlockSize
	s.LaneOff = 2 * BlockSize
	s.ChunkMapOff = s.LaneOff + int64(s.Lanes)*2*LaneSlot
	s.ChunkMapLines = (s.Chunks() + ChunksPerLine - 1) / ChunksPerLine
	end := s.ChunkMapOff + s.ChunkMapLines*LineSize
	s.StaticEnd = (end + BlockSize - 1) &^ (BlockSize - 1)
	if room := s.ChunkSize() - s.StaticEnd%s.ChunkSize(); room < 2*BlockSize {
		s.StaticEnd += room // the first chunk must have room for its header and the root
	}
	s.InodeBase = s.StaticEnd + BlockSize
}

// DataEnd returns the region offset at which the chunks end, in the last chunk or before: behind it
// are the slots and the second superblock. They are there, and not in the fixed area, since the
// last GiB of a region has the second superblock in any case: no page of 1 GiB can map it.
func (s *Superblock) DataEnd() int64 { return s.SlotOff }

// check rejects geometry that no mkfs writes, so that other code may trust the fields.
func (s *Superblock) check() error {
	switch {
	case s.Size < MinSize || s.Size > MaxSize || s.Size%BlockSize != 0:
		return fmt.Errorf("size %d is not a multiple of %d from %d (16 MiB) to %d (32 TiB)", s.Size, BlockSize, int64(MinSize), int64(MaxSize))
	case s.ChunkShift < 15 || s.ChunkShift > ChunkShift || s.PUDShift <= s.ChunkShift || s.PUDShift > PUDShift:
		return fmt.Errorf("chunk shift %d and pud shift %d are out of range, expected %d and %d", s.ChunkShift, s.PUDShift, ChunkShift, PUDShift)
	case (s.ChunkShift != ChunkShift || s.PUDShift != PUDShift) && s.Size > smallMax:
		return fmt.Errorf("chunk shift %d and pud shift %d are for at most %d bytes, the size is %d", s.ChunkShift, s.PUDShift, int64(smallMax), s.Size)
	case s.Lanes == 0 || s.Lanes > MaxLanes:
		return fmt.Errorf("%d lanes, expected 1 to %d", s.Lanes, MaxLanes)
	case s.Granule < BlockSize || s.Granule&(s.Granule-1) != 0:
		return fmt.Errorf("mapping granule of %d bytes, expected a power of two from %d on", s.Granule, BlockSize)
	case s.RootBlocks > uint64(s.Size)>>BlockShift/2:
		return fmt.Errorf("%d blocks for root only are more than half of the filesystem of %d bytes", s.RootBlocks, s.Size)
	}
	want := *s
	want.Place()
	for _, f := range []struct {
		name      string
		got, want int64
	}{
		{"size of a lane's slot", int64(s.LaneSlot), int64(want.LaneSlot)},
		{"offset of the owner record", s.OwnerOff, want.OwnerOff},
		{"offset of the bad-range list", s.BadOff, want.BadOff},
		{"offset of the lanes", s.LaneOff, want.LaneOff},
		{"offset of the chunk map", s.ChunkMapOff, want.ChunkMapOff},
		{"length of the chunk map in lines", s.ChunkMapLines, want.ChunkMapLines},
		{"offset of the slots", s.SlotOff, want.SlotOff},
		{"number of slots", s.Slots, want.Slots},
		{"end of the fixed area", s.StaticEnd, want.StaticEnd},
		{"offset of the first inode", s.InodeBase, want.InodeBase},
		{"offset of the second superblock", s.BackupOff, want.BackupOff},
	} {
		if f.got != f.want {
			return fmt.Errorf("the %s is %d, expected %d for %d bytes with %d lanes", f.name, f.got, f.want, s.Size, s.Lanes)
		}
	}
	if s.InodeBase+2*BlockSize > s.Size {
		return fmt.Errorf("the fixed area of %d bytes leaves no room in %d", s.StaticEnd, s.Size)
	}
	return nil
}

// BeatOff returns the region offset of the heartbeat, the line behind the owner record.
func (s *Superblock) BeatOff() int64 { return s.OwnerOff + LineSize }

// MappedOff returns the region offset of the line behind the heartbeat (Mapped).
func (s *Superblock) MappedOff() int64 { return s.BeatOff() + LineSize }

// Blocks returns the size of the filesystem in blocks.
func (s *Superblock) Blocks() uint64 { return uint64(s.Size >> BlockShift) }

// Chunks returns the number of chunks; the last one may be partial.
func (s *Superblock) Chunks() int64 { return (s.DataEnd() + s.ChunkSize() - 1) >> s.ChunkShift }

// ChunkSize returns the size of a chunk in bytes.
func (s *Superblock) ChunkSize() int64 { return 1 << s.ChunkShift }

// ChunkBlocks returns the size of a chunk in blocks.
func (s *Superblock) ChunkBlocks() int { return 1 << (s.ChunkShift - BlockShift) }

// FirstChunk returns the number of the first metadata chunk, which holds the end of the fixed area.
// The chunks before it lie wholly in the fixed area.
func (s *Superblock) FirstChunk() int64 { return s.StaticEnd >> s.ChunkShift }

// InodeOff returns the region offset of inode ino, or -1 if ino is 0 or beyond the filesystem.
func (s *Superblock) InodeOff(ino uint64) int64 {
	if ino == 0 || ino > uint64(s.Size)/InodeSize {
		return -1
	}
	off := s.InodeBase + int64(ino-1)*InodeSize
	if off+InodeSize > s.Size {
		return -1
	}
	return off
}

// InodeAt returns the number of the inode at region offset off.
func (s *Superblock) InodeAt(off int64) uint64 { return uint64(off-s.InodeBase)/InodeSize + 1 }

// ChunkHeader returns the region offset of the header block of metadata chunk c: the first block of
// the chunk that is not part of the fixed area.
func (s *Superblock) ChunkHeader(c int64) int64 {
	if c == s.FirstChunk() {
		return s.StaticEnd
	}
	return c << s.ChunkShift
}
