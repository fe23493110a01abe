package fs

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/daxfsd/daxfsd/fs/badmem"
	"github.com/daxfsd/daxfsd/fs/journal"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/metaspace"
	"github.com/daxfsd/daxfsd/fs/owner"
	"github.com/daxfsd/daxfsd/hugepage"
	"github.com/daxfsd/daxfsd/internal/kept"
	"github.com/daxfsd/daxfsd/pmem"
	"github.com/daxfsd/daxfsd/refcnt"
)

// FS is a mounted filesystem. All methods are safe for concurrent use until
// Unmount is called.
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
	bodies  []run // taken for the journal's logged records; only with Options.Atomic

	// journal refuses changes once the media failed under a transaction, or the region was taken
	// from us.
	journal *journal.Journal

	defrag defrag

	icache [icacheShards]icacheShard
	rename sync.Mutex // serialises renames between directories, as s_vfs_rename_mutex

	owner   ownership
	mounted mountReport
	damage  damage // found since the mount
	pools   pools
	freeing freeing
	xattrs  xattrCache

	pageSize kept.Value[int64]

	coarse atomic.Int64 // about what time it is: a second old at most

	background background
}

// pools keep what an operation would otherwise allocate.
type pools struct {
	pinnedReads sync.Pool // *Reply
	dirBatches  sync.Pool // *dirBatch
}

// Options of Mount. The zero value mounts read-write.
type Options struct {
	ReadOnly bool
	// Atomic makes each Write of up to AtomicUnit bytes all or nothing, whatever
	// happens, and one that finds no space change nothing.
	Atomic bool
	// Owner is what the caller found out about the region's last user; nil: Mount asks itself,
	// which may take seconds.
	Owner *owner.Verdict
	// Takeover mounts a region of which it is unclear whether somebody uses it.
	Takeover bool
	// BeatInterval is how often others are shown that this mount is alive; 0: never, and then
	// only the lock of the region keeps them out.
	BeatInterval time.Duration
	// Scan reads all inodes even if a free map was saved: that finds what contradicts
	// itself though its checksums are right, where a mount by the free map believes it.
	Scan bool
	// Sleep waits while it is watched whether the last user still lives; nil: time.Sleep. For
	// tests.
	Sleep func(time.Duration)
	// Clock returns the time in ns since the epoch; nil is the real time.
	Clock func() int64
	// Progress is told how far a stage of mounting is; nil: nobody.
	Progress func(stage string, done, total int64)
	// Warn is told what an administrator should know; nil: nobody.
	Warn func(msg string)
	// Atime is when reading a file changes its access time.
	Atime Atime
	// NoDirAtime: reading a directory does not.
	NoDirAtime bool
	// TimesInterval is how often times that are kept lazily are made durable; 0: never, but
	// for fsync, close and forget.
	TimesInterval time.Duration
	// SyncInterval is how often a region in an ordinary file is written back
	// against a crash of the host; 0: never.
	SyncInterval time.Duration
	// CompactInterval is how often Compact is called; 0: never.
	CompactInterval time.Duration
}

// Caller comes with every call. It is the caller's, may be reused, and must not
// be shared between calls in flight.
type Caller struct {
	UID, GID, PID, Umask uint32
	// Lane selects the journal lane, taken modulo their number: the index of
	// the calling thread or queue.
	Lane uint32
	// NoAtime: reading leaves the access time alone (O_NOATIME).
	NoAtime bool
	// NoWait: fail with EAGAIN, before anything has changed, rather than wait for what other
	// requests have to do first, or work for longer than about a millisecond.
	NoWait bool
	// Append: the data's place is the end of file (O_APPEND), which a write to an append-only
	// file must be. Its pieces may come side by side, in any order.
	Append bool
	// Writeback: of the kernel's cache of pages, whoever stored to them. The owner is taken for
	// the writer.
	Writeback bool
	// Fill: the kernel reads pages into its cache.
	Fill bool
	// Direct: the change goes past the kernel's page cache, which may hold pages of the range. If
	// it may, the operation leaves a Bypass, also when it fails.
	Direct bool
	Bypass *Bypass
	// Cancel is closed when the caller no longer waits; nil: never.
	Cancel <-chan struct{}
	// Away calls its argument, which takes no processor time but waits for what others do: the
	// caller may let others run meanwhile. nil: it is just called.
	Away func(func())
}

// Wait calls f, by Away if there is one.
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

// Attr is what stat(2) tells. Blocks counts 512 bytes; times are ns since the epoch.
type Attr struct {
	Ino                        uint64
	Gen, Mode                  uint32
	Nlink, UID, GID, Rdev      uint32
	Size, Blocks               uint64
	Atime, Mtime, Ctime, Btime int64
	Flags, Proj                uint32
}

// Super is the superblock; it must not be changed.
func (fs *FS) Super() *layout.Superblock { return fs.sb }

// Region is the region the filesystem is on.
func (fs *FS) Region() *pmem.Region { return fs.r }

func (fs *FS) now() int64 {
	now := int64(0)
	if fs.opt.Clock != nil {
		now = fs.opt.Clock()
	} else {
		now = time.Now().UnixNano()
	}
	fs.coarse.Store(now)
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

// contradiction makes the filesystem refuse changes after what it reads of an inode was found to
// contradict what it knows of free space, by a saved free map whose checksum is right. It stays
// one that was not unmounted, so the next mount reads all inodes, and says what is damaged.
func (fs *FS) contradiction(err error) error {
	if fs.journal.Fail(err) {
		fs.warn("the filesystem is read-only until it is mounted again: %v", err)
	}
	return syscall.EIO
}

// doubt is told of a block of an inode that the saved free map has free.
func (fs *FS) doubt(block uint64) {
	fs.contradiction(corruptf("block %d belongs to an inode, and is free by the saved free map or an inode that had it, too", block))
}

func (fs *FS) readOnly() bool { return fs.opt.ReadOnly || fs.journal.Failed() }

// needsSync: the region is in an ordinary file, so that what survives a crash of
// the host is what was written back.
func (fs *FS) needsSync() bool { return fs.r.Durability() == pmem.DurableDaemon }

// mayChange is the first check of every changing operation.
func (fs *FS) mayChange() syscall.Errno {
	if fs.opt.ReadOnly {
		return syscall.EROFS
	}
	if fs.journal.Failed() {
		return syscall.EIO
	}
	return 0
}

// StatFS is what statfs(2) tells; counts of blocks are in BlockSize.
type StatFS struct {
	BlockSize             uint32
	Blocks, Bfree, Bavail uint64
	Files, Ffree          uint64
	NameLen               uint32
}

// StatFS fills s. Bavail is what data can take; Bfree also counts free metadata
// blocks and the chunks kept for metadata.
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

// Stats is what `daxfsd info` shows of a mounted filesystem.
type Stats struct {
	Blocks          uint64  `json:"blocks"`
	FreeBlocks      uint64  `json:"free_blocks"`
	AvailableBlocks uint64  `json:"available_blocks"` // to all
	RootBlocks      uint64  `json:"root_blocks"`      // that only root may take
	Inodes          uint64  `json:"inodes"`
	FreeInodes      uint64  `json:"free_inodes"`
	CachedInodes    int     `json:"cached_inodes"`
	MetaChunks      int     `json:"metadata_chunks"`
	FreeMetaBlocks  uint64  `json:"free_metadata_blocks"`
	BadRanges       int     `json:"bad_ranges"`    // of memory that cannot be read
	BadBytes        uint64  `json:"bad_bytes"`     // in them
	OfflineBytes    uint64  `json:"offline_bytes"` // of these, data that belongs to no file any more, or never did
	FreeData        uint64  `json:"free_data_bytes"`
	FreeIn2M        uint64  `json:"free_in_2m_bytes"`  // of these, in wholly free aligned 2 MiB
	FreeIn1G        uint64  `json:"free_in_1g_bytes"`  // of these, in wholly free aligned 1 GiB
	FolioTableBytes uint64  `json:"folio_table_bytes"` // without what is split into 4 KiB
	SplitTableBytes uint64  `json:"split_table_bytes"` // for what is split
	Folios2M        uint64  `json:"folios_2m"`         // large folios of files
	Folios1G        uint64  `json:"folios_1g"`
	PageSize        int64   `json:"page_size"`   // see PageSize; Stats leaves it 0
	MovedBytes      uint64  `json:"moved_bytes"` // copied within the region to make large folios
	Folios4K        uint64  `json:"folios_4k"`
	Split2M         uint64  `json:"split_2m"`            // 2 MiB blocks of which folios of 4 KiB are in use
	PartlyOwned     uint64  `json:"partly_owned"`        // large folios of which some files own a part only
	PMDMappable     float64 `json:"pmd_mappable"`        // share of the data that is in folios of 2 MiB or 1 GiB
	PUDMappable     float64 `json:"pud_mappable"`        // in folios of 1 GiB
	SharedBytes     uint64  `json:"shared_bytes"`        // with more than one owner
	DeferredFrees   uint64  `json:"deferred_free_bytes"` // no longer of files, and still referenced
	ReplayedRecords int     `json:"replayed_records"`
	FreedOrphans    int     `json:"freed_orphans"`
	ReadOnly        bool    `json:"read_only"`
	Failed          string  `json:"failed,omitempty"`   // why changes, or all requests, have been refused since; empty: they are not
	FreeMap         bool    `json:"free_map"`           // mounted by the free map that the last unmount saved
	AtomicWrite     int     `json:"atomic_write_bytes"` // the largest write that is all or nothing; 8 without Options.Atomic
}

// PageSize is the page size of our mapping of the region, in bytes; 0: the kernel does not
// tell. The kernel walks all pages of the mapping to tell it, 0.2 s for each GiB in small pages, so
// an answer is kept (internal/kept).
func (fs *FS) PageSize() int64 {
	return fs.pageSize.Get(func() int64 {
		n, _, _ := hugepage.PageSize(fs.r.Bytes(0, fs.sb.Size), false)
		return n
	})
}

// Stats gathers the figures of the moment; they need not belong to one instant.
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
	c := fs.table.Count()
	s.Split2M, s.PartlyOwned = t.Tables, t.Partly
	o := fs.alloc.Orders()
	pud := t.PUDs << o.PUD
	pmd := pud + t.PMDs<<o.PMD
	if data := float64(pmd + c.Words); data > 0 {
		s.PMDMappable, s.PUDMappable = float64(pmd)/data, float64(pud)/data
	}
	s.Folios4K, s.SharedBytes = c.Words, c.Shared<<layout.BlockShift
	s.MovedBytes = fs.defrag.moved.Load() << layout.BlockShift
	m := fs.meta.Usage()
	s.Inodes, s.MetaChunks, s.FreeMetaBlocks = m.Inodes, m.Chunks, m.FreeBlocks
	s.CachedInodes = fs.CachedInodes()
	return s
}

// CachedInodes is how many inodes are in DRAM: those that the kernel remembers, or that are in use.
func (fs *FS) CachedInodes() (n int) {
	for i := range fs.icache {
		sh := &fs.icache[i]
		sh.mu.Lock()
		n += len(sh.m)
		sh.mu.Unlock()
	}
	return n
}
