package fsck

import (
	"fmt"
	"time"

	"github.com/daxfsd/daxfsd/fs/owner"
)

// Options of Check. The zero value only reports.
type Options struct {
	// Repair mends what can be mended without losing data. Without it the repair is run, and all
	// that it would store is kept in memory.
	Repair bool
	// Workers is how many goroutines look at things; 0: GOMAXPROCS. What is found does not
	// depend on it. Repairs are made by one.
	Workers int
	// Progress is told how far a stage is; nil: nobody.
	Progress func(stage string, done, total int64)
	// Owner is what the caller found out about the region's last user; nil: Check asks itself,
	// which may take seconds.
	Owner *owner.Verdict
	// Sleep waits while it is watched whether the last user still lives; nil: time.Sleep. For
	// tests.
	Sleep func(time.Duration)
	// Takeover repairs a region of which it is unclear whether somebody uses it.
	Takeover bool
	// BeatInterval is how often others are shown that a repair is under way; 0: never.
	BeatInterval time.Duration
	// Found is told each problem as it is found or mended; nil: nobody.
	Found func(Problem)
}

// The problem codes. Scripts may rely on them.
const (
	SuperPrimary   = "super-primary"    // the first superblock is damaged
	SuperBackup    = "super-backup"     // the second superblock is damaged
	SuperDiffer    = "super-differ"     // both verify and say different things
	OwnerState     = "owner-state"      // owner record with a state no writer makes
	OwnerDamaged   = "owner-damaged"    // damage was found while it was mounted, and not repaired
	FreeMap        = "free-map"         // the saved free map is damaged, or wrong
	JournalLine    = "journal-line"     // a committed record holds a line that cannot be
	JournalData    = "journal-data"     // a committed record holds data that cannot be
	JournalClean   = "journal-clean"    // committed records on a cleanly unmounted filesystem
	Media          = "media"            // the media cannot be read
	LostData       = "lost-data"        // a file has data in a bad range: it is lost
	BadList        = "bad-list"         // damaged line of the bad-range list
	ChunkMap       = "chunk-map"        // damaged line of the chunk map
	ChunkMapBit    = "chunk-map-bit"    // a bit that cannot be: outside, or the first chunk's missing
	ChunkHeader    = "chunk-header"     // the header of a metadata chunk is not one
	ChunkTypes     = "chunk-types"      // damaged line of block types
	ChunkType      = "chunk-type"       // a block type no writer makes
	InodeCore      = "inode-core"       // damaged core line
	InodeFree      = "inode-free"       // damaged line of a free slot
	InodeTimes     = "inode-times"      // damaged times line
	InodeExtents   = "inode-extents"    // damaged extent line
	InodeMode      = "inode-mode"       // not a file type
	InodeFormat    = "inode-format"     // format flags that cannot be
	InodeSizeBad   = "inode-size"       // a size that cannot be
	InodeXattr     = "inode-xattr"      // extended attributes that cannot be read or claim what is not theirs
	Symlink        = "symlink"          // a symbolic link whose target cannot be
	InodeRoot      = "inode-root"       // inode 1 is not a directory
	Orphan         = "orphan"           // nlink 0 on a clean filesystem
	Truncating     = "truncating"       // interrupted truncation on a clean filesystem
	ExtentChain    = "extent-chain"     // chain of extent blocks broken
	ExtentRange    = "extent-range"     // extent outside the filesystem, of another device or with unknown flags
	ExtentOverlap  = "extent-overlap"   // two extents for one block of a file
	ExtentShared   = "extent-shared"    // a block claimed twice
	ExtentReserved = "extent-reserved"  // a block that no file may have: second superblock; a header or inode block in a bad range
	ExtentMetadata = "extent-metadata"  // data in a metadata chunk
	ExtentDir      = "extent-directory" // directory block outside metadata chunks, or a header or inode block
	ExtentEOF      = "extent-eof"       // written blocks beyond the end of file
	DirLine        = "dir-line"         // damaged line of a directory
	DentrySyntax   = "dentry-syntax"    // not a dentry
	DentryName     = "dentry-name"      // a name that cannot be
	DentryDup      = "dentry-duplicate" // a name twice in a directory
	DentryDead     = "dentry-dead"      // its inode is not there
	DentryType     = "dentry-type"      // type differs from the inode's
	DentryOrphan   = "dentry-orphan"    // a directory that is an orphan has entries
	DirParents     = "dir-parents"      // a directory named twice
	DirParent      = "dir-parent"       // parent field is not the directory that names it
	DirCycle       = "dir-cycle"        // a directory below itself
	Unreachable    = "unreachable"      // no name leads to it
	Nlink          = "nlink"            // link count differs from the names
)

// loses says what the repair of a problem cannot bring back.
var loses = map[string]string{
	InodeTimes:   "its times, and attributes if no whole list of them is found",
	InodeExtents: "the blocks that the line told of, which read as zeros",
	InodeXattr:   "its attributes",
	Symlink:      "what is wrong of the link, or all of it",
	ExtentRange:  "the blocks of that extent, which read as zeros",
	ExtentEOF:    "what lies beyond its end",
	DirLine:      "the name in the line: what it led to goes to /lost+found",
	DentrySyntax: "the name: what it led to goes to /lost+found",
	DentryName:   "the name: what it led to goes to /lost+found",
	DentryDup:    "the second of the names",
	DentryDead:   "the name",
	DirParents:   "that name",
	DirCycle:     "its name: it goes to /lost+found",
}

// Problem is one thing that is wrong.
type Problem struct {
	Code   string `json:"code"`
	What   string `json:"what"`             // one sentence: the structure, what was found, what was expected
	Ino    uint64 `json:"ino,omitempty"`    // the inode concerned; 0: none
	Offset int64  `json:"offset,omitempty"` // region offset in bytes
	Path   string `json:"path,omitempty"`   // of the inode, from the filesystem's root; "": no name is known
	// Of LostData: what is lost, in bytes. No bytes: the value of an attribute.
	FileOffset int64 `json:"file_offset,omitempty"`
	Bytes      int64 `json:"bytes,omitempty"`
	Fixed      bool  `json:"fixed"`
	Fixable    bool  `json:"fixable"` // it is left, and a repair would mend it
}

func (p Problem) String() string {
	s := fmt.Sprintf("%s: %s", p.Code, p.What)
	if p.Path != "" && p.Code != LostData { // which begins with it
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

// MaxProblems is how many problems a report lists, and how many of those that are left are told to
// Options.Found; the rest is only counted. Of more that one pass mends the paths are not told.
const MaxProblems = 10000

// Report is what a check found.
type Report struct {
	Problems []Problem `json:"problems"`
	Repaired int       `json:"repaired"`
	Left     int       `json:"left"`    // problems not repaired
	Fixable  int       `json:"fixable"` // of these, what a repair would mend; after one 0

	// Clean: the filesystem was cleanly unmounted.
	Clean bool `json:"clean"`
	// FreeMap: a free map was saved.
	FreeMap bool `json:"free_map"`
	// Incomplete: some directory or inode could not be read, so reachability and
	// link counts were not judged.
	Incomplete bool `json:"incomplete"`
	// BackupUsed: the first superblock was unusable.
	BackupUsed bool `json:"backup_superblock_used"`

	Files    uint64 `json:"files"`
	Dirs     uint64 `json:"directories"`
	Symlinks uint64 `json:"symlinks"`
	Special  uint64 `json:"special_files"`

	// Work that recovery does at the next mount (or this repair did).
	JournalRecords int `json:"journal_records"`
	Orphans        int `json:"orphans"`
	Truncations    int `json:"interrupted_truncations"`

	// Memory that is known to be bad, by the filesystem's list and the kernel's, and how many
	// ranges of files were lost by that: LostData, each of which is among those left.
	BadRanges  int    `json:"bad_ranges"`
	BadBlocks  uint64 `json:"bad_blocks"`
	LostRanges int    `json:"lost_ranges"`

	MetaChunks   uint64 `json:"metadata_chunks"`
	InodeBlocks  uint64 `json:"inode_blocks"`
	DirBlocks    uint64 `json:"directory_blocks"`
	ExtentBlocks uint64 `json:"extent_blocks"`
	XattrBlocks  uint64 `json:"xattr_blocks"`
	DataBlocks   uint64 `json:"data_blocks"` // long attribute values among them
	// UsedBlocks and FreeBlocks are 4 KiB each and leave the fixed area out, as
	// statfs does. Like all counts they are of what the repair leaves, or would.
	UsedBlocks uint64 `json:"used_blocks"`
	FreeBlocks uint64 `json:"free_blocks"`
}

// ExitCode is the exit status of fsck(8): bit 0 errors corrected, bit 2 errors left.
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
