package fs

import (
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/daxfsd/daxfsd/fs/badmem"
	"github.com/daxfsd/daxfsd/fs/journal"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/lease"
	"github.com/daxfsd/daxfsd/fs/metaspace"
	"github.com/daxfsd/daxfsd/fs/owner"
	"github.com/daxfsd/daxfsd/hugepage"
	"github.com/daxfsd/daxfsd/internal/kept"
	"github.com/daxfsd/daxfsd/pmem"
	"github.com/daxfsd/daxfsd/refcnt"
)

// FS is a mounted filesystem. All methods are safe for concurrent use until Unmount is called.
type FS struct {
	r   *pmem.Region
	sb  *layout.Superblock
	opt Options

	alloc   *hugepage.Allocator
	table   *refcnt.Table
	meta    *metaspace.Space
	bad     *badmem.List
	free    frees
	reserve reserve
	bodies  []run // allocated for the journal's logged records; only with Options.Atomic

	// journal refuses changes after the media failed under a transaction, or after another process
	// took the region.
	journal *journal.Journal

	defrag defrag
	direct Direct

	icache [icacheShards]icacheShard
	rename sync.Mutex // serialises renames between directories, as s_vfs_rename_mutex

	owner   ownership
	mounted mountReport
	damage  damage
	pools   pools
	freeing freeing
	xattrs  xattrCache

	pageSize kept.Value[int64]

	background background
}

// pools keeps objects that operations would otherwise allocate.
type pools struct {
	pinnedReads sync.Pool // *PinnedRead
	dirBatches  sync.Pool // *dirBatch
}

// Options of Mount. The zero value mounts read-write.
type Options struct {
	ReadOnly bool
	// Atomic makes each Write of up to AtomicUnit bytes all or nothing, even in a crash. A write
	// that finds no space then changes nothing.
	Atomic bool
	// Owner is the caller's verdict about the region's last user; nil: Mount calls owner.Judge,
	// which may take seconds.
	Owner *owner.Verdict
	// Takeover mounts the region although it is unclear whether another user has it.
	Takeover bool
	// BeatInterval is the interval of the heartbeat, which shows others that this mount is alive.
	// 0: there is no heartbeat, and only the lock of the region keeps others out.
	BeatInterval time.Duration
	// Scan reads all inodes even if a free map was saved. That finds contradictions behind right
	// checksums, which a mount by the free map would not see.
	Scan bool
	// Direct selects the grants of files' own memory that the mount makes.
	Direct DirectMode
	// Locks tells what programs have locked of the region; nil: the region. For tests.
	Locks lease.Locks
	// Sleep pauses while Mount watches whether the last user is alive; nil: time.Sleep. For tests.
	Sleep func(time.Duration)
	// Clock returns the time in ns since the epoch; nil: the real time.
	Clock func() int64
	// Progress is called with the progress of a stage of mounting, in a unit of the stage; nil:
	// none.
	Progress func(stage string, done, total int64)
	// Warn is called with messages for an administrator; nil: none.
	Warn func(msg string)
	// Atime selects when a read updates the access time.
	Atime Atime
	// NoDirAtime: a read of a directory never updates its access time.
	NoDirAtime bool
	// TimesInterval is the interval at which lazily updated times become durable; 0: only fsync,
	// close and forget make them durable.
	TimesInterval time.Duration
	// SyncInterval is the interval at which a region in an ordinary file is written back, against a
	// crash of the host; 0: never.
	SyncInterval time.Duration
	// CompactInterval is the interval of calls of Compact; 0: never.
	CompactInterval time.Duration
}

// Caller describes the caller of an operation. The caller owns it and may reuse it, but must not
// share it between calls in flight.
type Caller struct {
	UID, GID, PID, Umask uint32
	// Lane is the index of the calling thread or queue. It selects the journal lane, modulo the
	// number of lanes.
	Lane uint32
	// NoAtime: reads do not update the access time (O_NOATIME).
	NoAtime bool
	// NoWait: the operation fails with EAGAIN, before anything has changed, instead of waiting for
	// other requests or working for longer than about a millisecond.
	NoWait bool
	// Append: the data is for the end of file (O_APPEND), as an append-only file demands. Pieces of
	// one write may arrive at the same time, in any order.
	Append bool
	// Writeback: the kernel writes back pages of its cache, and it is not known which user stored
	// to them. The file's owner is charged for the space.
	Writeback bool
	// Fill: the kernel reads pages into its cache.
	Fill bool
	// Order: blocks are allocated where folios of that order, PMD or PUD, can hold them; 0: as the
	// file's extent size hint and its growth suggest.
	Order uint8
	// Direct: the change goes past the kernel's page cache. If that may hold pages of the file, the
	// operation sets Bypass, even if it fails.
	Direct bool
	Bypass *Bypass
	// Cancel is closed when the caller no longer waits; nil: never.
	Cancel <-chan struct{}
	// Away calls its argument, which waits for others without using a CPU; meanwhile the calling
	// thread may let others run. nil: the argument is called directly.
	Away func(func())
}

// Wait calls f, through Away if that is set.
func (ctx *Caller) Wait(f func()) {
	if ctx.Away == nil {
		f()
	} else {
		ctx.Away(f)
	}
}

// cancelled reports whether the caller no longer waits.
func (ctx *Caller) cancelled() bool {
	select {
	case <-ctx.Cancel:
		return true
	default:
		return false
	}
}

// Attr holds the attributes that stat(2) returns. Size is in bytes, Blocks in units of 512 bytes;
// times are ns since the epoch.
type Attr struct {
	Ino                        uint64
	Gen, Mode                  uint32
	Nlink, UID, GID, Rdev      uint32
	Size, Blocks               uint64
	Atime, Mtime, Ctime, Btime int64
	Flags, Proj                uint32
	Hint                       Hint
}

// Super returns the superblock, which must not be changed.
func (fs *FS) Super() *layout.Superblock { return fs.sb }

// Region returns the region that holds the filesystem.
func (fs *FS) Region() *pmem.Region { return fs.r }

// now returns the time in ns since the epoch, and updates coarse.
func (fs *FS) now() int64 {
	now := int64(0)
	if fs.opt.Clock != nil {
		now = fs.opt.Clock()
	} else {
		now = time.Now().UnixNano()
	}
	fs.background.now.Store(now)
	return now
}

func (fs *FS) warn(format string, a ...any) {
	if fs.opt.Warn != nil {
		fs.opt.Warn(fmt.Sprintf(format, a...))
	}
}

func (fs *FS) progress(stage string, done, total int64) {
	if fs.opt.Progress != nil {
		fs.opt.Progress(stage, done, total)
	}
}

// contradiction makes the filesystem refuse changes, after the lines of an inode were found to
// contradict the saved free map although that has a right checksum. The owner record never becomes
// clean, so the next mount reads all inodes and reports the damage. It returns EIO.
func (fs *FS) contradiction(err error) error {
	if fs.journal.Fail(err) {
		fs.warn("the filesystem is read-only until it is mounted again: %v", err)
	}
	return syscall.EIO
}

// doubt is called with a region block that an inode has, but that is free for this mount.
func (fs *FS) doubt(block uint64) {
	fs.contradiction(corruptf("block %d belongs to an inode, but is free: in the saved free map, or because another inode had it too", block))
}

// readOnly reports whether changes are refused.
func (fs *FS) readOnly() bool { return fs.opt.ReadOnly || fs.journal.Failed() }

// needsSync reports whether the region is in an ordinary file, of which only the pages that were
// written back survive a crash of the host.
func (fs *FS) needsSync() bool { return fs.r.Durability() == pmem.DurableDaemon }

// mayChange is the first check of every changing operation: EROFS if mounted read-only, EIO after
// the journal has failed.
func (fs *FS) mayChange() syscall.Errno {
	if fs.opt.ReadOnly {
		return syscall.EROFS
	}
	if fs.journal.Failed() {
		return syscall.EIO
	}
	return 0
}

// StatFS holds the results of statfs(2); counts of blocks are in BlockSize bytes.
type StatFS struct {
	BlockSize             uint32
	Blocks, Bfree, Bavail uint64
	Files, Ffree          uint64
	NameLen               uint32
}

// StatFS fills s. Bavail counts the blocks that data may take; Bfree also counts free metadata
// blocks and the chunks reserved for metadata.
func (fs *FS) StatFS(s *StatFS) {
	fs.reserve.keep()
	free := fs.alloc.FreeBlocks()
	m := fs.meta.Usage()
	ffree := m.FreeSlots + (free+m.FreeBlocks)*layout.InodesPerBlock
	*s = StatFS{
		BlockSize: layout.BlockSize,
		Blocks:    fs.sb.Blocks() - uint64(fs.sb.StaticEnd>>layout.BlockShift),
		Bfree:     free + m.FreeBlocks, Bavail: fs.reserve.available(false),
		Files: m.Inodes + ffree, Ffree: ffree,
		NameLen: layout.NameMax,
	}
}

// Stats holds the figures that `daxfsd info` shows of a mounted filesystem.
type Stats struct {
	Blocks          uint64  `json:"blocks"`
	FreeBlocks      uint64  `json:"free_blocks"`
	AvailableBlocks uint64  `json:"available_blocks"` // available to all users
	RootBlocks      uint64  `json:"root_blocks"`      // reserved for root
	Inodes          uint64  `json:"inodes"`
	FreeInodes      uint64  `json:"free_inodes"`
	CachedInodes    int     `json:"cached_inodes"`
	MetaChunks      int     `json:"metadata_chunks"`
	FreeMetaBlocks  uint64  `json:"free_metadata_blocks"`
	BadRanges       int     `json:"bad_ranges"`    // of memory that cannot be read
	BadBytes        uint64  `json:"bad_bytes"`     // total size of these ranges
	OfflineBytes    uint64  `json:"offline_bytes"` // of these, bytes that no file has
	FreeData        uint64  `json:"free_data_bytes"`
	FreeIn2M        uint64  `json:"free_in_2m_bytes"`  // of these, in wholly free aligned 2 MiB
	FreeIn1G        uint64  `json:"free_in_1g_bytes"`  // of these, in wholly free aligned 1 GiB
	FolioTableBytes uint64  `json:"folio_table_bytes"` // without the parts for split folios
	SplitTableBytes uint64  `json:"split_table_bytes"` // the parts for split folios
	Folios2M        uint64  `json:"folios_2m"`         // large folios of files
	Folios1G        uint64  `json:"folios_1g"`
	PageSize        int64   `json:"page_size"`   // see PageSize; Stats leaves it 0
	MovedBytes      uint64  `json:"moved_bytes"` // copied within the region to make large folios
	Folios4K        uint64  `json:"folios_4k"`
	Split2M         uint64  `json:"split_2m"`            // 2 MiB blocks that contain folios of 4 KiB
	PartlyOwned     uint64  `json:"partly_owned"`        // large folios with an owner of a part only
	PMDMappable     float64 `json:"pmd_mappable"`        // share of data in folios of 2 MiB or 1 GiB
	PUDMappable     float64 `json:"pud_mappable"`        // the same, in folios of 1 GiB
	SharedBytes     uint64  `json:"shared_bytes"`        // with more than one owner
	DeferredFrees   uint64  `json:"deferred_free_bytes"` // of no file, but still referenced
	LeasedBytes     uint64  `json:"leased_bytes"`        // that programs may map
	LeasedDeferred  uint64  `json:"leased_free_bytes"`   // of these, bytes that no file has and that become free when the programs end
	ReplayedRecords int     `json:"replayed_records"`
	FreedOrphans    int     `json:"freed_orphans"`
	ReadOnly        bool    `json:"read_only"`
	Failed          string  `json:"failed,omitempty"`   // why changes or all requests are refused; or empty
	FreeMap         bool    `json:"free_map"`           // mounted by the free map that the last unmount saved
	AtomicWrite     int     `json:"atomic_write_bytes"` // largest write that is all or nothing; 8 without -o atomic
}

// PageSize returns the page size of the mapping of the region in bytes; 0: the kernel does not
// report it. The kernel walks all pages of the mapping for the answer, 0.2 s for each GiB in small
// pages, so answers are kept (internal/kept).
func (fs *FS) PageSize() int64 {
	return fs.pageSize.Get(func() int64 {
		n, _, _ := hugepage.PageSize(fs.r.Bytes(0, fs.sb.Size), false)
		return n
	})
}

// Stats collects the current figures; they need not be from one instant.
func (fs *FS) Stats() Stats {
	var f StatFS
	fs.StatFS(&f)
	s := Stats{Blocks: f.Blocks, FreeBlocks: f.Bfree, AvailableBlocks: f.Bavail, RootBlocks: fs.sb.RootBlocks,
		FreeInodes: f.Ffree, ReplayedRecords: fs.mounted.replayed, FreedOrphans: fs.mounted.orphans, ReadOnly: fs.readOnly(), Failed: fs.whyFailed(), FreeMap: fs.mounted.fromFreeMap, AtomicWrite: 8}
	if fs.atomic() {
		s.AtomicWrite = AtomicUnit
	}
	for _, r := range fs.bad.Ranges() {
		s.BadRanges++
		s.BadBytes += r.N << layout.BlockShift
	}
	s.OfflineBytes = fs.bad.OfflineBlocks() << layout.BlockShift
	a, t := fs.alloc.Stats(), fs.table.Stats()
	s.FreeData = a.Free << layout.BlockShift
	s.FreeIn2M, s.FreeIn1G = (a.Free2M+a.Free1G)<<layout.BlockShift, a.Free1G<<layout.BlockShift
	s.FolioTableBytes, s.SplitTableBytes = t.PairBytes, t.TableBytes
	s.Folios2M, s.Folios1G, s.DeferredFrees = t.PMDs, t.PUDs, t.Deferred<<layout.BlockShift
	s.LeasedBytes, s.LeasedDeferred = fs.direct.Leased()
	c := fs.table.Count()
	s.Split2M, s.PartlyOwned = t.Tables, t.PartlyOwned
	o := fs.alloc.Orders()
	pud := t.PUDs << o.PUD
	pmd := pud + t.PMDs<<o.PMD
	if data := float64(pmd + c.Words); data > 0 {
		s.PMDMappable, s.PUDMappable = float64(pmd)/data, float64(pud)/data
	}
	s.Folios4K, s.SharedBytes = c.Words, c.Shared<<layout.BlockShift
	s.MovedBytes = (fs.defrag.moved.Load() + fs.defrag.requested.Load()) << layout.BlockShift
	m := fs.meta.Usage()
	s.Inodes, s.MetaChunks, s.FreeMetaBlocks = m.Inodes, m.Chunks, m.FreeBlocks
	s.CachedInodes = fs.CachedInodes()
	return s
}

// CachedInodes returns the number of inodes in DRAM: those that the kernel remembers, or that are
// in use.
func (fs *FS) CachedInodes() (n int) {
	for i := range fs.icache {
		sh := &fs.icache[i]
		sh.mu.Lock()
		n += len(sh.m)
		sh.mu.Unlock()
	}
	return n
}
