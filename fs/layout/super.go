package layout

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Magic opens both superblocks: "DAXFS\x00\x00\x01" read as bytes.
var Magic = [8]byte{'D', 'A', 'X', 'F', 'S', 0x1a, '\r', '\n'}

// Version is the format version written by this code. A reader accepts any
// version whose incompatible feature bits it knows.
const Version = 1

// Feature bits. Unknown compat bits are ignored, unknown ro-compat bits allow
// reading only, unknown incompat bits refuse the mount.
const (
	KnownCompat   uint64 = 0
	KnownROCompat uint64 = 0
	KnownIncompat uint64 = IncompatShared | IncompatLogged

	// IncompatShared: extents may share blocks (ExtentShared).
	IncompatShared uint64 = 1 << 0
	// IncompatLogged: the journal may hold logged records.
	IncompatLogged uint64 = 1 << 1
)

// Superblock describes the filesystem. It is written by mkfs and is immutable
// while mounted. Two copies: at offset 0 and at the last whole block of the
// formatted size.
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
//	168    8    owner record offset (one line)
//	176    8    bad-range list offset (one block)
//	184    8    static end: first byte after the fixed area
//	192    8    inode base: offset of inode 1, the root
//	200    8    creation time, ns since the epoch
//	208    4    uid that ran mkfs
//	212    4    gid that ran mkfs
//	216    8    blocks that only root may take for data
//	224    8    reserved, zero
//	232    8    backup superblock offset
//	240    8    kind of region mkfs saw (pmem.Kind)
//	248    256  reserved, zero
//	504    4    reserved, zero
//	508    4    crc32c over bytes 0..507
type Superblock struct {
	Version                    uint32
	Compat, ROCompat, Incompat uint64
	UUID                       [16]byte
	Label                      string
	Size                       int64
	ChunkShift, PUDShift       uint8
	Lanes                      uint16
	LaneSlot                   uint32
	Granule                    int64
	LaneOff                    int64
	ChunkMapOff                int64
	ChunkMapLines              int64
	OwnerOff                   int64
	BadOff                     int64
	StaticEnd                  int64
	InodeBase                  int64
	Created                    int64
	UID, GID                   uint32
	RootBlocks                 uint64
	BackupOff                  int64
	RegionKind                 uint64
}

// MaxSize is the largest filesystem in bytes, 32 TiB: its region is mapped twice, and programs have
// 128 TiB of addresses on amd64. It is that of pmem.MaxSize.
const MaxSize = 32 << 40

// SuperSize is the encoded size of a superblock in bytes.
const SuperSize = 512

// LabelSize is the longest label, in bytes.
const LabelSize = 64

// The three ways a superblock is not one: kept apart because the user does
// something different about each.
var (
	ErrMagic    = errors.New("not a daxfs superblock")
	ErrVersion  = errors.New("format is newer than this program")
	ErrChecksum = errors.New("superblock is damaged")
)

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
	le.PutUint64(b[232:], uint64(s.BackupOff))
	le.PutUint64(b[240:], s.RegionKind)
	le.PutUint32(b[508:], Checksum(0, b[:508]))
	return b
}

// DecodeSuper reads a superblock found at region offset off. Its errors wrap
// ErrMagic, ErrChecksum or ErrVersion and say what was found.
func DecodeSuper(b []byte, off int64) (*Superblock, error) {
	le := binary.LittleEndian
	if len(b) < SuperSize {
		return nil, fmt.Errorf("superblock at offset %d: %w: found %d bytes, expected %d", off, ErrMagic, len(b), SuperSize)
	}
	if !bytes.Equal(b[:8], Magic[:]) {
		return nil, fmt.Errorf("superblock at offset %d: %w: found magic %x, expected %x", off, ErrMagic, b[:8], Magic)
	}
	if got, want := Checksum(0, b[:508]), le.Uint32(b[508:]); got != want {
		return nil, fmt.Errorf("superblock at offset %d: %w: checksum is %08x, expected %08x", off, ErrChecksum, got, want)
	}
	s := &Superblock{
		Version: le.Uint32(b[8:]),
		Compat:  le.Uint64(b[16:]), ROCompat: le.Uint64(b[24:]), Incompat: le.Uint64(b[32:]),
		Label:      string(bytes.TrimRight(b[56:120], "\x00")),
		Size:       int64(le.Uint64(b[120:])),
		ChunkShift: b[128], PUDShift: b[129],
		Lanes: le.Uint16(b[130:]), LaneSlot: le.Uint32(b[132:]),
		Granule:       int64(le.Uint64(b[136:])),
		LaneOff:       int64(le.Uint64(b[144:])),
		ChunkMapOff:   int64(le.Uint64(b[152:])),
		ChunkMapLines: int64(le.Uint64(b[160:])),
		OwnerOff:      int64(le.Uint64(b[168:])),
		BadOff:        int64(le.Uint64(b[176:])),
		StaticEnd:     int64(le.Uint64(b[184:])),
		InodeBase:     int64(le.Uint64(b[192:])),
		Created:       int64(le.Uint64(b[200:])),
		UID:           le.Uint32(b[208:]), GID: le.Uint32(b[212:]),
		RootBlocks: le.Uint64(b[216:]),
		BackupOff:  int64(le.Uint64(b[232:])),
		RegionKind: le.Uint64(b[240:]),
	}
	copy(s.UUID[:], b[40:56])
	if un := s.Incompat &^ KnownIncompat; un != 0 || s.Version == 0 {
		return nil, fmt.Errorf("superblock at offset %d: %w: format version %d with incompatible features %#x, this program knows version %d with %#x; use a newer daxfsd",
			off, ErrVersion, s.Version, s.Incompat, Version, KnownIncompat)
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("superblock at offset %d: %w: %w", off, ErrChecksum, err)
	}
	return s, nil
}

// check refuses geometry no mkfs writes, so that later code may trust it.
func (s *Superblock) check() error {
	in := func(v, lo, hi int64) bool { return v >= lo && v <= hi }
	switch {
	case s.Size <= 0 || s.Size%BlockSize != 0:
		return fmt.Errorf("size %d is not a positive multiple of %d", s.Size, BlockSize)
	case s.Size > MaxSize:
		return fmt.Errorf("size %d is beyond the limit of %d (32 TiB)", s.Size, int64(MaxSize))
	case s.ChunkShift < 15 || s.ChunkShift > 23 || s.PUDShift <= s.ChunkShift || s.PUDShift > 40:
		return fmt.Errorf("chunk shift %d and pud shift %d are out of range", s.ChunkShift, s.PUDShift)
	case s.Lanes == 0 || MaxRecordLines(s.LaneSlot) < 64 || s.LaneSlot%LineSize != 0 || s.LaneSlot > 1<<20:
		return fmt.Errorf("%d lanes of slot size %d are out of range", s.Lanes, s.LaneSlot)
	case !in(s.StaticEnd, BlockSize, s.Size) || s.StaticEnd%BlockSize != 0:
		return fmt.Errorf("static end %d is outside the filesystem of %d bytes", s.StaticEnd, s.Size)
	case !in(s.LaneOff, SuperSize, s.StaticEnd) || s.LaneOff+int64(s.Lanes)*2*int64(s.LaneSlot) > s.StaticEnd:
		return fmt.Errorf("lane area at %d is outside the fixed area of %d bytes", s.LaneOff, s.StaticEnd)
	case s.ChunkMapLines <= 0 || s.ChunkMapLines > s.Size/LineSize || !in(s.ChunkMapOff, SuperSize, s.StaticEnd) || s.ChunkMapOff+s.ChunkMapLines*LineSize > s.StaticEnd:
		return fmt.Errorf("chunk map at %d is outside the fixed area of %d bytes", s.ChunkMapOff, s.StaticEnd)
	case s.Chunks() > s.ChunkMapLines*ChunksPerLine:
		return fmt.Errorf("chunk map of %d lines is too short for %d chunks", s.ChunkMapLines, s.Chunks())
	case !in(s.OwnerOff, SuperSize, s.StaticEnd-LineSize) || !in(s.BadOff, SuperSize, s.StaticEnd-BlockSize):
		return fmt.Errorf("owner record at %d or bad-range list at %d is outside the fixed area of %d bytes", s.OwnerOff, s.BadOff, s.StaticEnd)
	case s.InodeBase != s.StaticEnd+BlockSize || s.InodeBase+BlockSize > s.Size:
		return fmt.Errorf("inode base %d does not follow the first chunk header at %d", s.InodeBase, s.StaticEnd)
	case s.RootBlocks > uint64(s.Size)>>BlockShift/2:
		return fmt.Errorf("%d blocks for root only are more than half of the filesystem of %d bytes", s.RootBlocks, s.Size)
	case !in(s.BackupOff, s.InodeBase+BlockSize, s.Size-BlockSize) || s.BackupOff%BlockSize != 0:
		return fmt.Errorf("backup superblock at %d is outside the filesystem of %d bytes", s.BackupOff, s.Size)
	}
	for _, v := range []int64{s.LaneOff, s.ChunkMapOff, s.OwnerOff, s.BadOff} {
		if v%LineSize != 0 {
			return fmt.Errorf("offset %d is not aligned to %d", v, LineSize)
		}
	}
	return nil
}

// Blocks is the size of the filesystem in blocks.
func (s *Superblock) Blocks() uint64 { return uint64(s.Size >> BlockShift) }

// Chunks is the number of whole or partial chunks.
func (s *Superblock) Chunks() int64 { return (s.Size + s.ChunkSize() - 1) >> s.ChunkShift }

// ChunkSize is a chunk's size in bytes.
func (s *Superblock) ChunkSize() int64 { return 1 << s.ChunkShift }

// ChunkBlocks is a chunk's size in blocks.
func (s *Superblock) ChunkBlocks() int { return 1 << (s.ChunkShift - BlockShift) }

// FirstChunk is the number of the chunk that holds the end of the fixed area:
// the first metadata chunk. Chunks before it lie wholly in the fixed area.
func (s *Superblock) FirstChunk() int64 { return s.StaticEnd >> s.ChunkShift }

// InodeOff is the region offset of inode ino, or -1 if ino cannot exist here.
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

// InodeAt is the number of the inode at region offset off.
func (s *Superblock) InodeAt(off int64) uint64 { return uint64(off-s.InodeBase)/InodeSize + 1 }

// ChunkHeader is the region offset of the header block of metadata chunk c: its
// first block that is not part of the fixed area.
func (s *Superblock) ChunkHeader(c int64) int64 {
	if c == s.FirstChunk() {
		return s.StaticEnd
	}
	return c << s.ChunkShift
}
