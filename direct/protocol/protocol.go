package protocol

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Version is the version of the protocol that this package speaks.
const Version = 1

// Errors of decoding.
var (
	// ErrVersion: the other side speaks another version.
	ErrVersion = errors.New("direct: other version of the protocol")
	// ErrMalformed: no peer of this version sends such bytes.
	ErrMalformed = errors.New("direct: malformed message")
)

// Sizes of the argument of each command in bytes, both ways.
const (
	GrantSize   = 8192
	CommandSize = 64 // of CONFIRM, COMMIT and RELEASE
)

// The commands of ioctl(2): _IOWR('D', n, size).
const (
	IocGrant   = 3<<30 | GrantSize<<16 | 'D'<<8 | 16
	IocConfirm = 3<<30 | CommandSize<<16 | 'D'<<8 | 17
	IocCommit  = 3<<30 | CommandSize<<16 | 'D'<<8 | 18
	IocRelease = 3<<30 | CommandSize<<16 | 'D'<<8 | 19
)

// Flags of GrantRequest and Grant.
const (
	// Write asks for a grant to write as well as to read. All blocks of it are written and belong
	// to the file alone, and none of them moves while the lease lives.
	Write = 1 << 0
	// Allocate gives blocks to the holes of the range. Without it a writable grant ends at the
	// first hole. It needs Write.
	Allocate = 1 << 1

	knownFlags = Write | Allocate
)

// identityBase is where the bytes of identities begin: behind the end of every region.
const identityBase = 1 << 62

// maxEnd is the largest end of a range, and the largest size of anything.
const maxEnd = 1 << 62

// MaxID is the largest id of a grant. The smallest is 1.
const MaxID = 1<<61 - 2

// Identity returns the offset of the byte that whoever holds the grant id locks, shared, on the
// open file description that maps the region.
func Identity(id uint64, writable bool) int64 {
	off := identityBase + 2*int64(id)
	if writable {
		off++
	}
	return off
}

// IdentityAt is the reverse of Identity. ok is false if the byte is no identity's.
func IdentityAt(off int64) (id uint64, writable, ok bool) {
	if lo, hi := Identities(); off < lo || off >= hi {
		return 0, false, false
	}
	return uint64(off-identityBase) / 2, off&1 != 0, true
}

// Identities is the range [lo, hi) of all identities' bytes.
func Identities() (lo, hi int64) { return identityBase + 2, Identity(MaxID, true) + 1 }

// The slot of a file is SlotSize bytes of the region, which a program maps to read. It means
// nothing after the lease has ended.
const (
	SlotSize = 64
	// SlotGeneration is the offset of 8 bytes in the slot: odd while the layout of the file
	// changes, and another even number afterwards.
	SlotGeneration = 0
	// SlotFileSize is the offset of 8 bytes in the slot: the size of the file.
	SlotFileSize = 8
)

// GrantRequest asks for a range of the open file.
//
//	offset size field
//	0      4    version
//	4      4    flags: Write, Allocate
//	8      8    offset in the file, a multiple of 4096
//	16     8    length, a multiple of 4096, not 0
//	24     8    page size wanted: 0 (any), or a power of two from 4096 on
//	32     8160 zero
type GrantRequest struct {
	Flags    uint32
	Offset   uint64
	Length   uint64
	PageSize uint64
}

// Extent is a part of the file that is contiguous in the region.
//
//	offset size field
//	0      8    offset in the file
//	8      8    offset in the region
//	16     8    length, not 0
//
// Pages of a size can map the parts of it that are aligned to that size in the region.
type Extent struct {
	Offset, Region, Length uint64
}

const (
	extentsOff = 512
	extentSize = 24
	pathOff    = 112

	// MaxExtents is how many extents a reply holds.
	MaxExtents = (GrantSize - extentsOff) / extentSize
	// MaxPath is how many bytes of the region's path a reply holds.
	MaxPath = extentsOff - pathOff
)

// Grant is the reply to a GrantRequest. Parts of [Offset of the request, End) that no extent covers
// are holes, which read as zeros.
//
//	offset size field
//	0      4    version
//	4      4    flags: Write
//	8      8    id
//	16     8    inode number of the file
//	24     8    device of the region: st_dev of its file, st_rdev of a device node
//	32     8    inode number of the region's file; 0: a device node
//	40     16   UUID of the filesystem
//	56     8    slot: offset in the region
//	64     8    generation of the slot, even
//	72     8    size of the file
//	80     8    end of the grant in the file: ask again from there for the rest
//	88     8    granule of the region's mappings
//	96     8    size of the region
//	104    8    number of extents
//	112    400  path of the region as the daemon opened it, NUL padded; a hint
//	512    24 n extents in ascending order
type Grant struct {
	Flags      uint32
	ID         uint64
	Inode      uint64
	RegionDev  uint64
	RegionIno  uint64
	UUID       [16]byte
	Slot       uint64
	Generation uint64
	FileSize   uint64
	End        uint64
	Granule    uint64
	RegionSize uint64
	Path       string
	Extents    []Extent
}

// Command is the argument of CONFIRM, COMMIT and RELEASE.
//
//	offset size field
//	0      4    version
//	4      4    zero
//	8      8    id of the grant
//	16     8    CONFIRM: generation that the grant had
//	24     8    COMMIT: offset of the range stored to
//	32     8    COMMIT: its length; 0: all of the grant
//	40     24   zero
//
// The reply is the version, and zeros.
type Command struct {
	ID         uint64
	Generation uint64
	Offset     uint64
	Length     uint64
}

var le = binary.LittleEndian

// begin clears b and puts the version. It panics if b is not n bytes long.
func begin(b []byte, n int) {
	if len(b) != n {
		panic(fmt.Sprintf("direct: a message of %d bytes in %d", n, len(b)))
	}
	clear(b)
	le.PutUint32(b, Version)
}

// check is the reverse of begin.
func check(b []byte, n int) error {
	if len(b) != n {
		return fmt.Errorf("%w: %d bytes, expected %d", ErrMalformed, len(b), n)
	}
	if v := le.Uint32(b); v != Version {
		return fmt.Errorf("%w: the daemon or the program speaks version %d, and the other one version %d: use programs and a daemon of the same release", ErrVersion, v, Version)
	}
	return nil
}

func zero(b []byte, off, n int) error {
	for i, c := range b[off : off+n] {
		if c != 0 {
			return fmt.Errorf("%w: byte %d is %#x, expected 0", ErrMalformed, off+i, c)
		}
	}
	return nil
}

// Encode puts the request into the GrantSize bytes of b.
func (q *GrantRequest) Encode(b []byte) {
	begin(b, GrantSize)
	le.PutUint32(b[4:], q.Flags)
	le.PutUint64(b[8:], q.Offset)
	le.PutUint64(b[16:], q.Length)
	le.PutUint64(b[24:], q.PageSize)
}

// Decode reads a request. Its errors wrap ErrVersion or ErrMalformed.
func (q *GrantRequest) Decode(b []byte) error {
	if err := check(b, GrantSize); err != nil {
		return err
	}
	*q = GrantRequest{Flags: le.Uint32(b[4:]), Offset: le.Uint64(b[8:]), Length: le.Uint64(b[16:]), PageSize: le.Uint64(b[24:])}
	switch {
	case q.Flags&^knownFlags != 0:
		return fmt.Errorf("%w: flags %#x, expected some of %#x", ErrMalformed, q.Flags, knownFlags)
	case q.Flags&Allocate != 0 && q.Flags&Write == 0:
		return fmt.Errorf("%w: a grant that allocates and does not write", ErrMalformed)
	case (q.Offset|q.Length)%4096 != 0 || q.Length == 0 || q.Offset > maxEnd || q.Length > maxEnd-q.Offset:
		return fmt.Errorf("%w: range %d+%d, expected multiples of 4096 up to 2^62", ErrMalformed, q.Offset, q.Length)
	case q.PageSize != 0 && (q.PageSize < 4096 || q.PageSize&(q.PageSize-1) != 0):
		return fmt.Errorf("%w: page size %d, expected a power of two from 4096 on", ErrMalformed, q.PageSize)
	}
	return zero(b, 32, GrantSize-32)
}

// Encode puts the reply into the GrantSize bytes of b. A path of more than MaxPath bytes is left
// out.
//
// Precondition: there are at most MaxExtents extents.
func (g *Grant) Encode(b []byte) {
	begin(b, GrantSize)
	le.PutUint32(b[4:], g.Flags)
	for i, v := range [...]uint64{g.ID, g.Inode, g.RegionDev, g.RegionIno} {
		le.PutUint64(b[8+8*i:], v)
	}
	copy(b[40:56], g.UUID[:])
	for i, v := range [...]uint64{g.Slot, g.Generation, g.FileSize, g.End, g.Granule, g.RegionSize} {
		le.PutUint64(b[56+8*i:], v)
	}
	le.PutUint64(b[104:], uint64(len(g.Extents)))
	if len(g.Path) <= MaxPath {
		copy(b[pathOff:extentsOff], g.Path)
	}
	at := b[extentsOff:]
	for _, x := range g.Extents {
		for i, v := range [...]uint64{x.Offset, x.Region, x.Length} {
			le.PutUint64(at[8*i:], v)
		}
		at = at[extentSize:]
	}
}

// Decode reads the reply to q. It returns ErrMalformed unless the extents lie within the range that
// was asked for, in order, and within the region.
func (g *Grant) Decode(b []byte, q *GrantRequest) error {
	if err := check(b, GrantSize); err != nil {
		return err
	}
	u := func(off int) uint64 { return le.Uint64(b[off:]) }
	*g = Grant{
		Flags: le.Uint32(b[4:]), ID: u(8), Inode: u(16), RegionDev: u(24), RegionIno: u(32),
		Slot: u(56), Generation: u(64), FileSize: u(72), End: u(80), Granule: u(88), RegionSize: u(96),
		Path: string(bytes.TrimRight(b[pathOff:extentsOff], "\x00")), Extents: g.Extents[:0],
	}
	copy(g.UUID[:], b[40:56])
	n := u(104)
	switch {
	case g.ID == 0 || g.ID > MaxID:
		return fmt.Errorf("%w: id %d", ErrMalformed, g.ID)
	case g.Flags != q.Flags&Write:
		return fmt.Errorf("%w: flags %#x in the reply to a request with %#x", ErrMalformed, g.Flags, q.Flags)
	case g.RegionSize > maxEnd || g.FileSize > maxEnd || g.Granule > maxEnd || g.Slot%SlotSize != 0 || g.Slot > g.RegionSize || g.RegionSize-g.Slot < SlotSize:
		return fmt.Errorf("%w: slot at %d of a region of %d bytes with granules of %d, a file of %d bytes", ErrMalformed, g.Slot, g.RegionSize, g.Granule, g.FileSize)
	case g.Generation%2 != 0:
		return fmt.Errorf("%w: generation %d is odd", ErrMalformed, g.Generation)
	case g.Granule < 4096 || g.Granule&(g.Granule-1) != 0:
		return fmt.Errorf("%w: granule of %d bytes", ErrMalformed, g.Granule)
	case g.End <= q.Offset || g.End > q.Offset+q.Length || g.End%4096 != 0:
		return fmt.Errorf("%w: end %d of a grant of %d+%d", ErrMalformed, g.End, q.Offset, q.Length)
	case strings.ContainsRune(g.Path, 0):
		return fmt.Errorf("%w: path %q", ErrMalformed, g.Path)
	case n > MaxExtents:
		return fmt.Errorf("%w: %d extents, at most %d fit", ErrMalformed, n, MaxExtents)
	}
	at, last := extentsOff, q.Offset
	for i := range n {
		x := Extent{u(at), u(at + 8), u(at + 16)}
		if (x.Offset|x.Region|x.Length)%4096 != 0 || x.Length == 0 || x.Offset < last || x.Offset >= g.End || x.Length > g.End-x.Offset ||
			x.Region >= g.RegionSize || x.Length > g.RegionSize-x.Region {
			return fmt.Errorf("%w: extent %d: %+v, in a grant that ends at %d of a region of %d bytes", ErrMalformed, i, x, g.End, g.RegionSize)
		}
		g.Extents = append(g.Extents, x)
		if g.Flags&Write != 0 && x.Offset != last {
			return fmt.Errorf("%w: a hole at %d in a writable grant", ErrMalformed, last)
		}
		at, last = at+extentSize, x.Offset+x.Length
	}
	if g.Flags&Write != 0 && last != g.End {
		return fmt.Errorf("%w: a hole at %d in a writable grant", ErrMalformed, last)
	}
	return zero(b, at, GrantSize-at)
}

// Encode puts the command into the CommandSize bytes of b.
func (c *Command) Encode(b []byte) {
	begin(b, CommandSize)
	for i, v := range [...]uint64{c.ID, c.Generation, c.Offset, c.Length} {
		le.PutUint64(b[8+8*i:], v)
	}
}

// Decode reads a command. Its errors wrap ErrVersion or ErrMalformed.
func (c *Command) Decode(b []byte) error {
	if err := check(b, CommandSize); err != nil {
		return err
	}
	*c = Command{le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:]), le.Uint64(b[32:])}
	switch {
	case c.ID == 0 || c.ID > MaxID:
		return fmt.Errorf("%w: id %d, expected 1 to %d", ErrMalformed, c.ID, uint64(MaxID))
	case c.Offset > maxEnd || c.Length > maxEnd-c.Offset:
		return fmt.Errorf("%w: range %d+%d ends beyond 2^62", ErrMalformed, c.Offset, c.Length)
	}
	if err := zero(b, 4, 4); err != nil {
		return err
	}
	return zero(b, 40, CommandSize-40)
}

// EncodeReply puts the reply to a command, or to a request of another version, into b, which is of
// any size from 4 bytes on: the version, and zeros.
func EncodeReply(b []byte) { begin(b, len(b)) }

// DecodeReply reads the reply to a command.
func DecodeReply(b []byte) error {
	if err := check(b, CommandSize); err != nil {
		return err
	}
	return zero(b, 4, CommandSize-4)
}
