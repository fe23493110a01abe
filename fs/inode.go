package fs

import (
	"maps"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/dirindex"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/rangelock"
	"github.com/daxfsd/daxfsd/pagecache"
)

// inodeState says whether get finds an inode in the cache.
type inodeState uint8

const (
	inodeLive     inodeState = iota // read from the media, or created
	inodeCreating                   // not on the media yet
	inodeFreeing                    // an orphan without references, which reclaim frees on the media
)

// inode is an inode in use, in DRAM. While nlink is 0 it is an orphan.
//
//	absent -> live       get reads it
//	absent -> creating   create, before its lines are on the media
//	creating -> live     the transaction is committed
//	creating -> absent   it is aborted
//	live -> freeing      the last reference to an orphan is dropped
//	live -> absent       the last reference to any other inode is dropped
//	freeing -> absent    its slot and blocks are free
//
// For a regular file, space, ext, and the size change under io and mu, so either suffices to read
// them. For a directory they change under mu alone. See iolock.go, and doc.go for the lock order.
type inode struct {
	ino  uint64       // immutable
	off  int64        // region offset in bytes; immutable
	refs atomic.Int64 // by the kernel's lookups and by operations; reaches 0 under the shard's lock
	typ  uint32       // S_IFMT bits of the mode; immutable
	// anchored is set once the parents of a directory are known to lead up to the root, see anchor.
	anchored atomic.Bool

	state    inodeState // protected by the shard's lock
	linkable bool       // protected by mu: created without a name, and without one so far
	orphaned bool       // protected by mu: counted in FS.freeing
	live     bool       // protected by mu: the live line holds newer times than the times line

	io      sync.Mutex
	mu      sync.RWMutex
	mappers atomic.Int32          // opens for reading and writing, see MayBeMapped
	core    layout.Core           // protected by mu, core.Size of a file by io too (see size)
	parent  atomic.Uint64         // mirrors core.Parent; changes only under the rename mutex
	up      atomic.Pointer[inode] // a directory's parent, if known; no reference, see parentOfLocked
	troot   uint64                // protected by mu: Times.ExtentRoot, a region block
	xroot   uint64                // protected by mu: Times.XattrRoot, a region block
	btime   int64                 // ns since the epoch; immutable once created
	size    atomic.Uint64         // mirrors core.Size, in bytes
	flags   atomic.Uint32         // mirrors core.Flags
	caps    atomic.Bool           // security.capability may exist; cleared only under mu

	// Times, in ns since the epoch, are read and written without mu: writes in place do not
	// serialise.
	atime, mtime, ctime atomic.Int64
	touched, flushed    atomic.Uint64 // number of lazy updates of the times, and of those on media

	acls   *acls                  // protected by mu, held for writing; nil: not read
	xattrs atomic.Pointer[xattrs] // xroot's list; nil: not read, short, or dropped (xattrCache)

	// The kernel remembers many inodes only because of a stat(2). These have no content, and stay
	// small.
	blocks   atomic.Uint64 // owned, including metadata; valid if loaded or counted
	counted  atomic.Bool   // set under io and mu
	loaded   atomic.Bool   // content is in DRAM; set under io and mu
	*content               // the pointer is immutable once loaded
}

// content is the part of an inode that is read into DRAM when its data, or a directory's names, are
// first used (loadExtentsLocked).
type content struct {
	rl    rangelock.Lock
	space pagecache.Space // read without a lock
	ext   extentSlots     // protected by io and mu, see inode
	remap remap           // under way; protected by io, or by mu for a directory
	dir   *dirindex.Index // protected by mu; directories only
	pages kernelPages     // its lock is a leaf except for reading the region
}

// uid returns the owner. Called with mu not held.
func (in *inode) uid() uint32 {
	in.mu.RLock()
	defer in.mu.RUnlock()
	return in.core.UID
}

func (in *inode) isDir() bool { return in.typ == syscall.S_IFDIR }
func (in *inode) isReg() bool { return in.typ == syscall.S_IFREG }

const icacheShards = 64

type icacheShard struct {
	mu sync.Mutex
	m  map[uint64]*inode
	// peak is the largest size that m has had. A map does not shrink: once few inodes are left,
	// they move to a new map.
	peak int
	_    [40]byte // pads the shard to a cache line
}

// addLocked inserts in. Called with s.mu held.
func (s *icacheShard) addLocked(in *inode) {
	s.m[in.ino] = in
	s.peak = max(s.peak, len(s.m))
}

// removeLocked removes in. Called with s.mu held.
func (s *icacheShard) removeLocked(in *inode) {
	delete(s.m, in.ino)
	if n := len(s.m); s.peak > 1024 && n < s.peak/8 {
		s.m = maps.Clone(s.m)
		s.peak = n
	}
}

// drop removes in, unless the slot's next user has replaced it.
func (s *icacheShard) drop(in *inode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[in.ino] == in {
		s.removeLocked(in)
	}
}

func (fs *FS) shard(ino uint64) *icacheShard {
	return &fs.icache[(ino^ino>>6)%icacheShards]
}

// get returns the inode with one more reference, and reads it from media if it is not cached.
// ESTALE if there is no such inode, EIO if another process took the region (lose).
func (fs *FS) get(ino uint64) (*inode, syscall.Errno) {
	if fs.owner.lost.Load() != nil {
		return nil, syscall.EIO
	}
	s := fs.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	if in := s.m[ino]; in != nil {
		if in.state != inodeLive {
			return nil, syscall.ESTALE
		}
		in.refs.Add(1)
		return in, 0
	}
	in, err := fs.readInodeLocked(ino)
	if err != nil {
		fs.offlineFree(err)
		return nil, errno(err)
	}
	in.refs.Store(1)
	s.addLocked(in)
	return in, 0
}

// readInodeLocked reads an inode's lines. ESTALE for a free slot, and for an orphan: an orphan that
// is still open is in the cache. Called with the shard's lock held.
func (fs *FS) readInodeLocked(ino uint64) (*inode, error) {
	off := fs.sb.InodeOff(ino)
	if off < 0 || !fs.meta.HasInodes(off) {
		return nil, syscall.ESTALE
	}
	var l layout.Line
	if err := fs.journal.ReadLine(off+layout.InodeCoreOff, &l); err != nil {
		return nil, err
	}
	in := &inode{ino: ino, off: off}
	in.core.Get(&l)
	if in.core.Mode == 0 || in.core.Nlink == 0 {
		return nil, syscall.ESTALE
	}
	if err := checkCore(ino, &in.core); err != nil {
		return nil, err
	}
	in.typ = uint32(in.core.Mode) & syscall.S_IFMT
	in.flags.Store(in.core.Flags)
	in.size.Store(in.core.Size)
	in.parent.Store(in.core.Parent)
	if err := fs.journal.ReadLine(off+layout.InodeTimesOff, &l); err != nil {
		return nil, err
	}
	var t layout.Times
	t.Get(&l)
	in.troot, in.xroot, in.btime = t.ExtentRoot, t.XattrRoot, t.Btime
	in.caps.Store(in.xroot != 0)
	in.setTimes(t.Atime, t.Mtime, t.Ctime)
	seq := l.Seq()
	if err := fs.load(off+layout.InodeLiveOff, l[:]); err != nil {
		return nil, err
	}
	var v layout.Live
	if v.Get(&l); l.Valid(fs.journal.Seed(), off+layout.InodeLiveOff) && l.Seq() >= seq && v.Gen == in.core.Gen {
		in.setTimes(v.Atime, v.Mtime, v.Ctime)
		in.live = true
	}
	return in, nil
}

// checkCore returns an error for a core line that no writer makes.
func checkCore(ino uint64, c *layout.Core) error {
	link := uint32(c.Mode)&syscall.S_IFMT == syscall.S_IFLNK
	inline := c.Format&layout.FormatInline != 0
	if c.Size > maxSize || inline && (!link || c.Size > layout.InlineSize) {
		return corruptf("inode %d has mode %o, format %d and size %d, which do not go together", ino, c.Mode, c.Format, c.Size)
	}
	return nil
}

func (in *inode) setTimes(a, m, c int64) {
	in.atime.Store(a)
	in.mtime.Store(m)
	in.ctime.Store(c)
}

// touch updates mtime and ctime lazily: in DRAM now, on media with the next transaction on the
// times line, close, fsync or forget.
func (fs *FS) touch(in *inode) {
	now := fs.now()
	in.mtime.Store(now)
	in.ctime.Store(now)
	in.touched.Add(1)
}

// lazy reports whether the times are newer in DRAM than on media.
func (in *inode) lazy() bool { return in.touched.Load() != in.flushed.Load() }

// gone reports whether in has no name and never will, so that its times need not be stored. The
// caller holds mu, or all references.
func (in *inode) gone() bool { return in.core.Nlink == 0 && !in.linkable }

// flushTimes makes lazily updated times durable, in the live line. If that already holds the newest
// times on media, it uses a transaction on the times line instead, so that a torn store never loses
// times that were durable before. Called without mu.
//
// Persistence order: store the live line, flush, SFENCE. If it is torn its checksum is wrong, and
// the times line counts.
func (fs *FS) flushTimes(in *inode) error {
	if !in.lazy() || fs.readOnly() {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.lazy() || in.gone() {
		return nil
	}
	if in.live {
		c := fs.begin(&Caller{Lane: uint32(in.ino)})
		c.update(in).stamp(0, 0)
		return c.commit()
	}
	var l layout.Line
	if err := fs.journal.ReadLine(in.off+layout.InodeTimesOff, &l); err != nil {
		return err
	}
	seq, seen := l.Seq(), in.touched.Load()
	l = layout.Line{}
	v := layout.Live{Atime: in.atime.Load(), Mtime: in.mtime.Load(), Ctime: in.ctime.Load(), Gen: in.core.Gen}
	v.Put(&l)
	l.Seal(fs.journal.Seed(), in.off+layout.InodeLiveOff, seq)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := fs.r.Store(in.off+layout.InodeLiveOff, l[:])
	if err == nil {
		err = fs.r.Flush(in.off+layout.InodeLiveOff, layout.LineSize)
	}
	if err != nil {
		fs.bad.Faulted(err)
		return err
	}
	fs.r.Fence()
	in.live = true
	in.flushed.Store(seen)
	return nil
}

// put drops n references. With the last one it makes lazily updated times durable, and frees an
// orphan.
func (fs *FS) put(in *inode, n int64) {
	for {
		refs := in.refs.Load()
		if refs < n {
			panic("fs: inode reference count below zero")
		}
		if refs == n {
			break
		}
		if in.refs.CompareAndSwap(refs, refs-n) {
			return
		}
	}
	// This may drop the last reference. Persist first, so that the next reader of the media sees
	// the newest times.
	err := fs.flushTimes(in)
	if err != nil {
		fs.warn("the times of inode %d are lost: %v", in.ino, err)
	}
	shard := fs.shard(in.ino)
	shard.mu.Lock()
	if in.refs.Load() == n && in.lazy() && !in.gone() && err == nil && !fs.readOnly() {
		shard.mu.Unlock()
		fs.put(in, n) // updated since: persist again
		return
	}
	if in.refs.Add(-n) > 0 {
		shard.mu.Unlock()
		return
	}
	fs.xattrs.drop(in)
	if in.core.Nlink != 0 || fs.readOnly() {
		shard.removeLocked(in)
		shard.mu.Unlock()
		return
	}
	in.state = inodeFreeing
	shard.mu.Unlock()
	if fs.reclaimsLong(in) {
		fs.freeing.inBackground(func() { fs.end(in) })
		return
	}
	fs.end(in)
}

// end frees an orphan that has no reference.
func (fs *FS) end(in *inode) {
	ctx := Caller{Lane: uint32(in.ino)}
	fs.reclaim(&ctx, in)
	if in.orphaned {
		fs.freeing.freed.Add(1)
	}
	fs.direct.gone(in.ino)
	fs.xattrs.drop(in) // reclaim read them again
	fs.shard(in.ino).drop(in)
}

// reclaimsLong reports whether freeing an orphan takes long. The caller that drops the last
// reference may hold a directory's lock or serve a queue, so it does not do that itself.
func (fs *FS) reclaimsLong(in *inode) bool {
	if in.loaded.Load() {
		return in.cutsMuchLocked()
	}
	return fs.largeLocked(in, true) || in.counted.Load() && in.blocks.Load() > quickCutBlocks
}

// reclaim frees an orphan that has no reference, in one transaction whatever its size: free space
// is what no live inode claims.
//
// Persistence order:
//  1. transaction: core line free (mode 0), generation kept
//  2. only then may its blocks, its metadata blocks and its slot be reused
//
// If the transaction fails the orphan stays until the next recovery.
func (fs *FS) reclaim(ctx *Caller, in *inode) {
	in.io.Lock()
	defer in.io.Unlock()
	err := fs.loadExtentsLocked(in)
	in.mu.Lock()
	defer in.mu.Unlock()
	var xs xattrs
	if err == nil {
		xs, err = fs.loadXattrsLocked(in)
	}
	if err != nil {
		fs.damage.unfinished.Store(true)
		fs.warn("inode %d cannot be freed until the next mount: %v", in.ino, err)
		return
	}
	t := fs.journal.Begin(ctx.Lane)
	c := layout.Core{Gen: in.core.Gen}
	c.Put(t.At(in.off + layout.InodeCoreOff))
	if err := t.Commit(); err != nil {
		fs.damage.unfinished.Store(true)
		fs.warn("inode %d cannot be freed until the next mount: %v", in.ino, err)
		return
	}
	fs.freeContentLocked(ctx, in)
	fs.freeXattrs(ctx, &xs)
	fs.meta.FreeInode(ctx.Lane, in.ino)
	if fs.reserve.kept.Load() < fs.reserve.chunks() {
		fs.reserve.keep()
	}
}

// freeContentLocked frees every block of an inode that is no longer on media. Called with io and mu
// held.
func (fs *FS) freeContentLocked(ctx *Caller, in *inode) {
	meta := in.isDir()
	in.space.Ascend(0, func(e pagecache.Extent) bool {
		if meta {
			for b := uint64(0); b < uint64(e.Len); b++ {
				fs.meta.Free(ctx.Lane, e.Block+b)
			}
		} else {
			fs.table.Disown(e.Block, uint64(e.Len), fs.free.to(ctx))
		}
		return true
	})
	for _, b := range in.ext.chain {
		fs.meta.Free(ctx.Lane, b)
	}
	in.space.Reset()
	in.ext, in.dir = extentSlots{}, nil
}

// load reads the region at off, in bytes, into b. The caller keeps that block from becoming free,
// by a lock of its owner or a reference. If the block cannot be read, load records it as bad.
func (fs *FS) load(off int64, b []byte) error {
	err := fs.r.Load(off, b)
	if err != nil {
		fs.bad.Faulted(err)
	}
	return err
}
