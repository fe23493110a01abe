package fsck

import (
	"fmt"
	"time"

	"github.com/daxfsd/daxfsd/fs/owner"
)

// Options are the options of Check. The zero value makes a dry run.
type Options struct {
	// Repair repairs what can be repaired. Without it the repair is a dry run, whose stores are
	// kept in DRAM.
	Repair bool
	// Workers is the number of goroutines that read; 0: GOMAXPROCS. The result does not depend on
	// it. One goroutine makes all repairs.
	Workers int
	// Progress, if not nil, is called with the progress of a stage.
	Progress func(stage string, done, total int64)
	// Owner is the caller's verdict on the region's last user. If nil, Check judges by itself,
	// which may take seconds.
	Owner *owner.Verdict
	// Sleep waits while the last user is watched for heartbeats; nil: time.Sleep. For tests.
	Sleep func(time.Duration)
	// Takeover repairs a region even if it is unclear whether it is in use.
	Takeover bool
	// BeatInterval is the interval between heartbeats during a repair; 0: none.
	BeatInterval time.Duration
	// Found, if not nil, is called with each problem as it is found or repaired.
	Found func(Problem)
}

// The problem codes. Scripts may rely on them.
const (
	SuperPrimary   = "super-primary"    // the first superblock is damaged
	SuperBackup    = "super-backup"     // the second superblock is damaged
	SuperDiffer    = "super-differ"     // both verify and differ
	OwnerState     = "owner-state"      // owner record with an unknown state
	OwnerDamaged   = "owner-damaged"    // damage was found while mounted, and not repaired
	FreeMap        = "free-map"         // the saved free map is damaged or wrong
	JournalLine    = "journal-line"     // a committed record contains an invalid line
	JournalData    = "journal-data"     // a committed record has data in an invalid place
	JournalClean   = "journal-clean"    // committed records on a cleanly unmounted filesystem
	Media          = "media"            // the media cannot be read
	LostData       = "lost-data"        // a file has lost data in a bad range
	BadList        = "bad-list"         // damaged line of the bad-range list
	ChunkMap       = "chunk-map"        // damaged line of the chunk map
	ChunkMapBit    = "chunk-map-bit"    // an invalid bit: outside the chunks, or the first chunk's missing
	ChunkHeader    = "chunk-header"     // the header of a metadata chunk is damaged
	ChunkTypes     = "chunk-types"      // damaged line of block types
	ChunkType      = "chunk-type"       // an unknown block type
	InodeCore      = "inode-core"       // damaged core line
	InodeFree      = "inode-free"       // damaged line of a free slot
	InodeTimes     = "inode-times"      // damaged times line
	InodeExtents   = "inode-extents"    // damaged extent line
	InodeMode      = "inode-mode"       // unknown file type
	InodeFormat    = "inode-format"     // invalid format flags
	InodeSizeBad   = "inode-size"       // invalid size
	InodeXattr     = "inode-xattr"      // extended attributes that cannot be read, or with blocks of other owners
	Symlink        = "symlink"          // a symbolic link with an invalid target
	InodeRoot      = "inode-root"       // inode 1 is not a directory
	Orphan         = "orphan"           // nlink 0 on a clean filesystem
	Truncating     = "truncating"       // interrupted truncation on a clean filesystem
	ExtentChain    = "extent-chain"     // chain of extent blocks broken
	ExtentRange    = "extent-range"     // extent outside the filesystem, of another device or with unknown flags
	ExtentOverlap  = "extent-overlap"   // two extents for one block of a file
	ExtentShared   = "extent-shared"    // a block claimed twice
	ExtentReserved = "extent-reserved"  // a block that no file may have: second superblock; a header or inode block in a bad range
	ExtentMetadata = "extent-metadata"  // file data in a metadata chunk
	ExtentDir      = "extent-directory" // directory block outside metadata chunks, or a header or inode block
	ExtentEOF      = "extent-eof"       // written blocks beyond the end of file
	DirLine        = "dir-line"         // damaged line of a directory
	DentrySyntax   = "dentry-syntax"    // malformed dentry
	DentryName     = "dentry-name"      // invalid name
	DentryDup      = "dentry-duplicate" // a name twice in a directory
	DentryDead     = "dentry-dead"      // its inode does not exist
	DentryType     = "dentry-type"      // type differs from the inode's
	DentryOrphan   = "dentry-orphan"    // an orphan directory has entries
	DirParents     = "dir-parents"      // a directory named twice
	DirParent      = "dir-parent"       // parent field is not the directory with its name
	DirCycle       = "dir-cycle"        // a directory below itself
	Unreachable    = "unreachable"      // no name leads to an inode
	Nlink          = "nlink"            // link count differs from the names
)

// loses is what the repair of a problem loses for good, by the problem's code.
var loses = map[string]string{
	InodeTimes:   "its times, and its attributes if no complete list of them is found",
	InodeExtents: "the blocks of the extents in the line, which then read as zeros",
	InodeXattr:   "its attributes",
	Symlink:      "a part of its target, or the link",
	ExtentRange:  "the blocks of that extent, which then read as zeros",
	ExtentEOF:    "the data beyond its end",
	DirLine:      "the name in the line; its inode goes to /lost+found",
	DentrySyntax: "the name; its inode goes to /lost+found",
	DentryName:   "the name; its inode goes to /lost+found",
	DentryDup:    "the second of the names",
	DentryDead:   "the name",
	DirParents:   "that name",
	DirCycle:     "its name; it goes to /lost+found",
}

// Problem is a problem of the filesystem.
type Problem struct {
	Code   string `json:"code"`
	What   string `json:"what"`             // one sentence: the structure, what was found, what was expected
	Ino    uint64 `json:"ino,omitempty"`    // the inode concerned; 0: no inode
	Offset int64  `json:"offset,omitempty"` // region offset in bytes
	Path   string `json:"path,omitempty"`   // of the inode, from the filesystem's root; "": unknown
	// FileOffset and Bytes are the lost data of a LostData, in bytes. Bytes is 0 if the value of an
	// attribute is lost.
	FileOffset int64 `json:"file_offset,omitempty"`
	Bytes      int64 `json:"bytes,omitempty"`
	Fixed      bool  `json:"fixed"`
	Fixable    bool  `json:"fixable"` // not repaired, and a repair would repair it
}

func (p Problem) String() string {
	s := fmt.Sprintf("%s: %s", p.Code, p.What)
	if p.Path != "" && p.Code != LostData { // What begins with the path
		s = fmt.Sprintf("%s: %q: %s", p.Code, p.Path, p.What)
	}
	switch {
	case p.Fixed:
		s += " (fixed)"
	case p.Fixable:
		s += " (would be fixed)"
	}
	return s
}

// MaxProblems is the largest number of problems that a report lists, and the largest number of
// unrepaired problems passed to Options.Found. Further problems are only counted. Further problems
// that one pass repairs are reported without a path.
const MaxProblems = 10000

// Report is the result of a check.
type Report struct {
	Problems []Problem `json:"problems"`
	Repaired int       `json:"repaired"`
	Left     int       `json:"left"`    // problems not repaired
	Fixable  int       `json:"fixable"` // of Left, those that a repair would repair; 0 after a repair

	// Clean: the filesystem was cleanly unmounted.
	Clean bool `json:"clean"`
	// FreeMap: there is a saved free map.
	FreeMap bool `json:"free_map"`
	// Incomplete: some directory or inode could not be read, so reachability and link counts were
	// not checked.
	Incomplete bool `json:"incomplete"`
	// BackupUsed: the first superblock was unusable.
	BackupUsed bool `json:"backup_superblock_used"`

	Files    uint64 `json:"files"`
	Dirs     uint64 `json:"directories"`
	Symlinks uint64 `json:"symlinks"`
	Special  uint64 `json:"special_files"`

	// Work that recovery does at the next mount, or that this repair did.
	JournalRecords int `json:"journal_records"`
	Orphans        int `json:"orphans"`
	Truncations    int `json:"interrupted_truncations"`

	// Memory known to be bad, from the filesystem's list and the kernel's, in ranges and in blocks,
	// and the number of LostData problems that it causes. These are included in Left.
	BadRanges  int    `json:"bad_ranges"`
	BadBlocks  uint64 `json:"bad_blocks"`
	LostRanges int    `json:"lost_ranges"`

	MetaChunks   uint64 `json:"metadata_chunks"`
	InodeBlocks  uint64 `json:"inode_blocks"`
	DirBlocks    uint64 `json:"directory_blocks"`
	ExtentBlocks uint64 `json:"extent_blocks"`
	XattrBlocks  uint64 `json:"xattr_blocks"`
	DataBlocks   uint64 `json:"data_blocks"` // including long attribute values
	// UsedBlocks and FreeBlocks are in blocks of 4 KiB and exclude the fixed area, as statfs does.
	// Like all counts they describe the filesystem after the repair, or after the repair that a dry
	// run simulates.
	UsedBlocks uint64 `json:"used_blocks"`
	FreeBlocks uint64 `json:"free_blocks"`
}

// ExitCode returns the exit status of fsck(8): bit 0 for errors corrected, bit 2 for errors left.
func (r *Report) ExitCode() int {
	code := 0
	if r.Repaired > 0 {
		code |= 1
	}
	if r.Left > 0 {
		code |= 4
	}
	return code
}
