package transport

// The opcodes (enum fuse_opcode) that this package parses.
const (
	opLookup        = 1
	opForget        = 2
	opGetattr       = 3
	opSetattr       = 4
	opReadlink      = 5
	opSymlink       = 6
	opMknod         = 8
	opMkdir         = 9
	opUnlink        = 10
	opRmdir         = 11
	opRename        = 12
	opLink          = 13
	opOpen          = 14
	opRead          = 15
	opWrite         = 16
	opRelease       = 18
	opFsync         = 20
	opSetxattr      = 21
	opGetxattr      = 22
	opListxattr     = 23
	opRemovexattr   = 24
	opOpendir       = 27
	opReaddir       = 28
	opReleasedir    = 29
	opCreate        = 35
	opInterrupt     = 36
	opIoctl         = 39
	opBatchForget   = 42
	opFallocate     = 43
	opReaddirplus   = 44
	opRename2       = 45
	opLseek         = 46
	opCopyFileRange = 47
	opTmpfile       = 51
)

// MaxIO is the largest READ and WRITE in bytes: 256 pages of 4 KiB.
const MaxIO = 1 << 20

// InHeader is struct fuse_in_header, at the beginning of every request.
type InHeader struct {
	Len         uint32 // of the whole request, bytes
	Opcode      uint32
	Unique      uint64
	NodeID      uint64
	UID         uint32
	GID         uint32
	PID         uint32
	TotalExtlen uint16 // of the extensions at the end, in units of 8 bytes
	Padding     uint16
}

// OutHeader is struct fuse_out_header, at the beginning of every answer.
type OutHeader struct {
	Len    uint32 // of the whole answer, bytes
	Error  int32  // 0 or a negative errno
	Unique uint64
}

// ReadIn is struct fuse_read_in.
type ReadIn struct {
	Fh        uint64
	Offset    uint64
	Size      uint32
	ReadFlags uint32
	LockOwner uint64
	Flags     uint32 // of open(2)
	Padding   uint32
}

// WriteIn is struct fuse_write_in, followed by the data.
type WriteIn struct {
	Fh         uint64
	Offset     uint64
	Size       uint32
	WriteFlags uint32
	LockOwner  uint64
	Flags      uint32 // of open(2)
	Padding    uint32
}

// WriteOut is struct fuse_write_out.
type WriteOut struct {
	Size    uint32
	Padding uint32
}

// GetattrIn is struct fuse_getattr_in.
type GetattrIn struct {
	GetattrFlags uint32
	Dummy        uint32
	Fh           uint64
}

// SetattrIn is struct fuse_setattr_in.
type SetattrIn struct {
	Valid     uint32 // FATTR_*
	Padding   uint32
	Fh        uint64
	Size      uint64
	LockOwner uint64
	Atime     uint64
	Mtime     uint64
	Ctime     uint64
	Atimensec uint32
	Mtimensec uint32
	Ctimensec uint32
	Mode      uint32
	Unused4   uint32
	UID       uint32
	GID       uint32
	Unused5   uint32
}

// OpenIn is struct fuse_open_in.
type OpenIn struct {
	Flags     uint32 // of open(2)
	OpenFlags uint32
}

// OpenOut is struct fuse_open_out.
type OpenOut struct {
	Fh        uint64
	OpenFlags uint32 // FOPEN_*
	BackingID int32
}

// CreateIn is struct fuse_create_in, followed by the name.
type CreateIn struct {
	Flags     uint32 // of open(2)
	Mode      uint32
	Umask     uint32
	OpenFlags uint32
}

// CreateOut is the answer to CREATE.
type CreateOut struct {
	Entry EntryOut
	Open  OpenOut
}

// MkdirIn is struct fuse_mkdir_in, followed by the name.
type MkdirIn struct {
	Mode  uint32
	Umask uint32
}

// Rename2In is struct fuse_rename2_in, followed by the old and the new name.
type Rename2In struct {
	Newdir  uint64
	Flags   uint32 // RENAME_*
	Padding uint32
}

// LinkIn is struct fuse_link_in, followed by the name.
type LinkIn struct {
	Oldnodeid uint64
}

// ForgetIn is struct fuse_forget_in.
type ForgetIn struct {
	Nlookup uint64
}

// BatchForgetIn is struct fuse_batch_forget_in, followed by Count times ForgetOne.
type BatchForgetIn struct {
	Count uint32
	Dummy uint32
}

// ForgetOne is struct fuse_forget_one.
type ForgetOne struct {
	NodeID  uint64
	Nlookup uint64
}

// ReleaseIn is struct fuse_release_in.
type ReleaseIn struct {
	Fh           uint64
	Flags        uint32
	ReleaseFlags uint32
	LockOwner    uint64
}

// FsyncIn is struct fuse_fsync_in.
type FsyncIn struct {
	Fh         uint64
	FsyncFlags uint32
	Padding    uint32
}

// Attr is struct fuse_attr.
type Attr struct {
	Ino       uint64
	Size      uint64
	Blocks    uint64 // of 512 bytes
	Atime     uint64
	Mtime     uint64
	Ctime     uint64
	Atimensec uint32
	Mtimensec uint32
	Ctimensec uint32
	Mode      uint32
	Nlink     uint32
	UID       uint32
	GID       uint32
	Rdev      uint32
	Blksize   uint32
	Flags     uint32
}

// AttrOut is struct fuse_attr_out.
type AttrOut struct {
	AttrValid     uint64 // seconds
	AttrValidNsec uint32
	Dummy         uint32
	Attr          Attr
}

// EntryOut is struct fuse_entry_out.
type EntryOut struct {
	NodeID         uint64 // 0: the name does not exist, and the kernel may cache that
	Generation     uint64
	EntryValid     uint64 // seconds
	AttrValid      uint64 // seconds
	EntryValidNsec uint32
	AttrValidNsec  uint32
	Attr           Attr
}

// Sizes of structures in bytes.
const (
	inHeaderSize  = 40
	outHeaderSize = 16
	readInSize    = 40
	writeInSize   = 40
	setattrInSize = 88
	rename2InSize = 16
	attrOutSize   = 104
	entryOutSize  = 128
	createOutSize = 144
)
