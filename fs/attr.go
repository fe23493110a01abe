package fs

import (
	"context"
	"runtime"
	"syscall"
	"time"

	"github.com/daxfs/daxfs/fs/layout"
	"github.com/daxfs/daxfs/pagecache"
)

// What SetAttr.Valid says is to be set.
const (
	SetMode uint32 = 1 << iota
	SetUID
	SetGID
	SetSize
	SetAtime
	SetMtime
	SetCtime
	// SetKillPriv takes set-user-ID, and set-group-ID if the group may execute, from a
	// file that is written or truncated by a caller without CAP_FSETID.
	SetKillPriv
	// SetKillSGID takes set-group-ID whether the group may execute or not: the caller is not in the
	// file's group either. It goes with SetKillPriv, or with a new owner.
	SetKillSGID
)

// SetAttr is what SetAttr changes; fields whose bit is not in Valid are ignored.
// Times are ns since the epoch.
type SetAttr struct {
	Valid               uint32
	Mode, UID, GID      uint32
	Size                uint64
	Atime, Mtime, Ctime int64
	Now                 bool // Atime and Mtime are the present time, not one that was chosen
}

// KillPriv is mode as SetKillPriv makes it. Analogous to the kernel's
// setattr_should_drop_suidgid.
func KillPriv(mode uint32) uint32 {
	if mode&syscall.S_IFMT == syscall.S_IFDIR {
		return mode
	}
	mode &^= syscall.S_ISUID
	if mode&syscall.S_IXGRP != 0 {
		mode &^= syscall.S_ISGID
	}
	return mode
}

// NeedsGroups reports whether it depends on the caller's groups if mode loses its set-group-ID
// when the caller has no CAP_FSETID. Analogous to the kernel's setattr_should_drop_sgid.
func NeedsGroups(mode uint32) bool {
	return mode&(syscall.S_ISGID|syscall.S_IXGRP) == syscall.S_ISGID && mode&syscall.S_IFMT != syscall.S_IFDIR
}

// killed is mode without what SetKillPriv and SetKillSGID take.
func (s *SetAttr) killed(mode uint16) uint16 {
	m := KillPriv(uint32(mode))
	if s.Valid&SetKillSGID != 0 && NeedsGroups(m) {
		m &^= syscall.S_ISGID
	}
	return uint16(m)
}

// mayChange says whether immutable and append-only inodes let s be set, as notify_change.
func (s *SetAttr) mayChange(in *inode) syscall.Errno {
	chosen := s.Valid & (SetMode | SetUID | SetGID | SetCtime)
	if !s.Now {
		chosen |= s.Valid & (SetAtime | SetMtime)
	}
	if in.immutable() && s.Valid != 0 || in.appendOnly() && (chosen != 0 || s.Valid&SetSize != 0) {
		return syscall.EPERM
	}
	return 0
}

// fill writes in's attributes to a. Called with mu held for reading at least.
func (in *inode) fill(a *Attr) {
	c := &in.core
	*a = Attr{
		Ino: in.ino, Gen: c.Gen, Mode: uint32(c.Mode), Nlink: c.Nlink, UID: c.UID, GID: c.GID, Rdev: c.Rdev,
		Size: c.Size, Blocks: in.blocks.Load() * (layout.BlockSize / 512),
		Atime: in.atime.Load(), Mtime: in.mtime.Load(), Ctime: in.ctime.Load(), Btime: in.btime,
		Flags: c.Flags, Proj: c.Proj,
	}
}

// attr is fill for callers that hold no lock. EAGAIN as blocksKnown.
func (fs *FS) attr(ctx *Context, in *inode, a *Attr) syscall.Errno {
	err := fs.blocksKnown(ctx, in)
	in.mu.RLock()
	in.fill(a)
	in.mu.RUnlock()
	return errno(err)
}

// GetAttr is stat.
func (fs *FS) GetAttr(ctx *Context, ino uint64, a *Attr) syscall.Errno {
	in, e := fs.get(ino)
	if e != 0 {
		return e
	}
	e = fs.attr(ctx, in, a)
	fs.put(in, 1)
	return e
}

// SetAttr is chmod, chown, truncate and utimens in one. All of it that is not a
// size is one transaction; a new size is its own (see setSize), with SetKillPriv and before
// the rest. A new mode changes the access control list, too.
//
// Persistence order:
//  1. with a new size or owner: file capabilities are taken away (killCapability)
//  2. the new size (setSize)
//  3. a changed list is stored (swapXattrs)
//  4. transaction: core line, times line
func (fs *FS) SetAttr(ctx *Context, ino uint64, s *SetAttr, a *Attr) syscall.Errno {
	if e := fs.mayChange(); e != 0 {
		return e
	}
	in, e := fs.get(ino)
	if e != 0 {
		return e
	}
	defer fs.put(in, 1)
	return fs.patiently(ctx, func() syscall.Errno { return fs.trySetAttr(ctx, in, s, a) })
}

func (fs *FS) trySetAttr(ctx *Context, in *inode, s *SetAttr, a *Attr) syscall.Errno {
	if e := s.mayChange(in); e != 0 {
		return e
	}
	if err := fs.blocksKnown(ctx, in); err != nil { // for a, while nothing has changed
		return errno(err)
	}
	if s.Valid&(SetSize|SetUID|SetGID) != 0 {
		if e := fs.killCapability(ctx, in); e != 0 {
			return e
		}
	}
	rest := *s
	if s.Valid&SetSize != 0 {
		if err := fs.setSize(ctx, in, s); err != nil {
			return errno(err)
		}
		rest.Valid &^= SetSize | SetKillPriv
		if rest.Valid&(SetUID|SetGID) == 0 {
			rest.Valid &^= SetKillSGID
		}
	}
	if rest.Valid != 0 {
		if err := fs.setAttr(ctx, in, &rest); err != nil {
			return errno(err)
		}
	}
	return fs.attr(ctx, in, a)
}

func (fs *FS) setAttr(ctx *Context, in *inode, s *SetAttr) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	c := in.core
	ct := fs.now()
	if s.Valid&SetMode != 0 {
		c.Mode = c.Mode&syscall.S_IFMT | uint16(s.Mode&0o7777)
	}
	if s.Valid&SetUID != 0 {
		c.UID = s.UID
	}
	if s.Valid&SetGID != 0 {
		c.GID = s.GID
	}
	if s.Valid&(SetUID|SetGID|SetKillPriv) != 0 && s.Valid&SetMode == 0 {
		c.Mode = s.killed(c.Mode)
	}
	if s.Valid&SetCtime != 0 {
		ct = s.Ctime
	}
	var list *xattrSwap
	if c.Mode != in.core.Mode {
		var err error
		if list, err = fs.chmodACL(ctx, in, c.Mode); err != nil {
			return err
		}
	}
	t := fs.begin(ctx)
	if c != in.core {
		in.stageCore(t, &c)
	}
	st := in.stageTimes(t, SetCtime, ct)
	if s.Valid&SetAtime != 0 {
		st.now.Atime = s.Atime
	}
	if s.Valid&SetMtime != 0 {
		st.now.Mtime = s.Mtime
	}
	st.now.Put(t.at(in.off + layout.InodeTimesOff))
	if err := t.commit(); err != nil {
		list.undo(ctx, fs)
		return err
	}
	in.applyCore(&c)
	in.applyTimes(&st)
	list.done(ctx, fs)
	return nil
}

// setSize is truncate(2): the new size of s, and its SetKillPriv with it.
func (fs *FS) setSize(ctx *Context, in *inode, s *SetAttr) error {
	size := s.Size
	switch {
	case in.isDir():
		return syscall.EISDIR
	case !in.isReg():
		return syscall.EINVAL
	case size > maxSize:
		return syscall.EFBIG
	}
	if err := fs.extentsLoaded(ctx, in); err != nil {
		return err
	}
	for {
		if old := in.size.Load(); size > old {
			if done, err := fs.grow(ctx, in, s); done || err != nil {
				return err
			}
		} else {
			end := in.breakLayout(size>>layout.BlockShift, maxBlock+1)
			done, err := fs.shrink(ctx, in, s)
			end()
			if done || err != nil {
				return err
			}
		}
	}
}

// sized is in's core line with the new size. Called with mu held.
func (s *SetAttr) sized(in *inode) layout.Core {
	c := in.core
	c.Size = s.Size
	if s.Valid&SetKillPriv != 0 {
		c.Mode = s.killed(c.Mode)
	}
	return c
}

// grow moves the end of file up; done is false if it is no longer below the new size.
//
// Persistence order:
//  1. NT-zero from the old end of file to the end of its block, SFENCE
//  2. transaction: core line with the size, times line
func (fs *FS) grow(ctx *Context, in *inode, s *SetAttr) (done bool, err error) {
	size := int64(s.Size)
	lock, from, err := in.lockWrite(ctx, size, size)
	if err == nil {
		lock, err = in.lockGrow(ctx, lock, from, size, size)
	}
	if err != nil {
		return false, err
	}
	defer in.rl.Unlock(lock)
	defer in.io.Unlock()
	old := int64(in.size.Load())
	if old >= size {
		return false, nil
	}
	if err := fs.zeroFenced(ctx, in, span{old, min(size, blockEnd(old))}); err != nil {
		return false, err
	}
	_, err = fs.commitSize(ctx, in, s, false)
	return true, err
}

// recallTime is how long truncating and the like wait for holders of mappings to leave.
const recallTime = 20 * time.Millisecond

// breakLayout is before blocks [lo, hi) change or go: no new mappings of them are granted
// until end, and who has one is asked to leave. Who does not in that short time keeps the
// folios, which are free when it does. Called with no lock held.
func (in *inode) breakLayout(lo, hi uint64) (end func()) {
	ctx, cancel := context.WithTimeout(context.Background(), recallTime)
	defer cancel()
	end, _ = in.layout.Break(ctx, lo, hi)
	return end
}

// blockEnd is where the block of a file's end ends: what a shorter file left up to there
// was never zeroed, and is before it becomes visible.
func blockEnd(size int64) int64 { return (size + layout.BlockSize - 1) &^ (layout.BlockSize - 1) }

// span is a range of a file's bytes, [off, end), within one block; empty if off >= end.
type span struct{ off, end int64 }

// zeroBytes zeroes a part of a block, unless that reads as zeros anyway, and reports
// whether it stored something. It does not fence.
func (fs *FS) zeroBytes(in *inode, s span) (stored bool, err error) {
	if s.off >= s.end {
		return false, nil
	}
	e, ok := in.space.Lookup(uint64(s.off) >> layout.BlockShift)
	if !ok || e.Flags&layout.ExtentUnwritten != 0 {
		return false, nil
	}
	at := regionOff(e, s.off)
	if err := fs.checkRead(uint64(at)>>layout.BlockShift, 1); err != nil {
		return false, err // the rest of the block cannot be kept
	}
	if err := fs.r.NTZero(at, s.end-s.off); err != nil {
		fs.mediaFailed(err)
		return false, err
	}
	return true, nil
}

// zeroFenced zeroes parts of blocks. Called with io held, and no plan.
//
// Persistence order:
//  1. those that are shared become the file's own (unshare)
//  2. NT-zero them, SFENCE
func (fs *FS) zeroFenced(ctx *Context, in *inode, spans ...span) error {
	for _, s := range spans {
		if s.off < s.end {
			if err := fs.unshare(ctx, in, s.off); err != nil {
				return err
			}
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fence := false
	for _, s := range spans {
		stored, err := fs.zeroBytes(in, s)
		if err != nil {
			return err
		}
		fence = fence || stored
	}
	if fence {
		fs.r.Fence()
	}
	return nil
}

// shrink moves the end of file down (or leaves it and updates the times). It takes
// no range lock and waits for no reader: blocks that replies still hold are freed
// by whoever drops the last reference.
func (fs *FS) shrink(ctx *Context, in *inode, s *SetAttr) (done bool, err error) {
	if err := in.lockIO(ctx); err != nil {
		return false, err
	}
	defer in.io.Unlock()
	switch size := in.size.Load(); {
	case s.Size > size:
		return false, nil
	case ctx.NoWait && in.cutsMuch() && blocksOf(int64(s.Size)) < blocksOf(int64(size)):
		return false, syscall.EAGAIN
	}
	more, err := fs.commitSize(ctx, in, s, true)
	if err != nil {
		return false, err
	}
	if more {
		if err = fs.finishTruncate(ctx, in); err != nil {
			fs.unfinished.Store(true)
		}
	}
	fs.dropChain(ctx, in)
	return true, err
}

// commitSize commits the new size of s. With cutting set it also cuts the extents beyond
// it, as many as fit the transaction; if some are left (more) the inode is marked
// Truncating, and the caller (or recovery) calls finishTruncate. Called with io held, and not mu.
//
// Persistence order:
//  1. transaction: core line with size and mark, times line, slots cut
//  2. only then the cut blocks go to whoever holds them last
func (fs *FS) commitSize(ctx *Context, in *inode, s *SetAttr, cutting bool) (more bool, err error) {
	if cutting {
		more = fs.planCut(ctx, in, s.Size)
	}
	if err := fs.commitSizeTx(ctx, in, s, cutting, more); err != nil {
		return false, err
	}
	if cutting {
		fs.owned(ctx, in)
	}
	return more, nil
}

// commitSizeTx is step 1 of commitSize.
func (fs *FS) commitSizeTx(ctx *Context, in *inode, s *SetAttr, cutting, more bool) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	c := s.sized(in)
	if more {
		c.Format |= layout.FormatTruncating
	}
	now := fs.now()
	t := fs.begin(ctx)
	if cutting {
		in.stageSplice(t)
	}
	in.stageCore(t, &c)
	st := in.stageTimes(t, SetMtime|SetCtime, now)
	if err := t.commit(); err != nil {
		return err
	}
	in.applyCore(&c)
	in.applyTimes(&st)
	if cutting {
		in.applySplice()
	}
	return nil
}

// planCut plans the removal of what lies beyond size, which needs no new slot. more is
// set if it takes another one.
func (fs *FS) planCut(ctx *Context, in *inode, size uint64) (more bool) {
	stop, _ := fs.plan(ctx, in, blocksOf(int64(size)), maxBlock+1, fatePunch)
	in.ext.splice.settle()
	return stop <= maxBlock
}

// finishTruncate cuts what an interrupted or large truncation left, and takes the
// mark off. Called with io held, and not mu.
//
// Persistence order: transactions of slots cut; the last one also clears the mark.
func (fs *FS) finishTruncate(ctx *Context, in *inode) error {
	for more := true; more; {
		more = fs.planCut(ctx, in, in.size.Load())
		if err := fs.commitCut(ctx, in, more); err != nil {
			return err
		}
		fs.owned(ctx, in)
	}
	return nil
}

// commitCut is one transaction of finishTruncate.
func (fs *FS) commitCut(ctx *Context, in *inode, more bool) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	t := fs.begin(ctx)
	in.stageSplice(t)
	c := in.core
	if !more {
		c.Format &^= layout.FormatTruncating
		in.stageCore(t, &c)
	}
	if err := t.commit(); err != nil {
		return err
	}
	in.applyCore(&c)
	in.applySplice()
	return nil
}

// Fsync makes lazily kept times durable; data and metadata are durable already.
// On a region in an ordinary file it also writes back what a crash of the host
// would lose.
func (fs *FS) Fsync(ctx *Context, ino uint64, datasync bool) syscall.Errno {
	in, e := fs.get(ino)
	if e != 0 {
		return e
	}
	defer fs.put(in, 1)
	if err := fs.flushTimes(in); err != nil {
		return errno(err)
	}
	var err error
	ctx.Wait(func() { err = fs.syncInode(in) })
	return errno(err)
}

// SyncAll is syncfs. EIO if the region is another's (lose).
func (fs *FS) SyncAll() syscall.Errno {
	if fs.lost.Load() != nil {
		return syscall.EIO
	}
	if fs.readOnly() {
		return 0
	}
	return errno(fs.r.Sync(0, fs.sb.Size))
}

// syncInode writes a file's data, long attribute values among it, then all metadata, back
// to the file the region is in.
func (fs *FS) syncInode(in *inode) error {
	if fs.readOnly() || !fs.needsSync() {
		return nil
	}
	runs, err := fs.dataRuns(in)
	if err != nil {
		return err
	}
	for _, u := range runs {
		if err := fs.r.Sync(int64(u.block)<<layout.BlockShift, int64(u.n)<<layout.BlockShift); err != nil {
			return err
		}
	}
	fs.meta.mu.Lock()
	chunks := make([]int64, len(fs.meta.chunks))
	for i, c := range fs.meta.chunks {
		chunks[i] = c.no
	}
	fs.meta.mu.Unlock()
	if err := fs.r.Sync(0, fs.sb.StaticEnd); err != nil {
		return err
	}
	for _, c := range chunks {
		off := c << fs.sb.ChunkShift
		if err := fs.r.Sync(off, min(fs.sb.ChunkSize(), fs.sb.Size-off)); err != nil {
			return err
		}
	}
	return nil
}

// dataRuns lists the data blocks of an inode: what of it lies outside metadata chunks.
func (fs *FS) dataRuns(in *inode) (runs []run, err error) {
	in.io.Lock()
	defer in.io.Unlock()
	if !in.isDir() {
		if err := fs.loadExtents(in); err != nil {
			return nil, err
		}
	}
	in.mu.RLock()
	xs, err := fs.loadXattrs(in)
	in.mu.RUnlock()
	if err != nil {
		return nil, err
	}
	for _, x := range xs.list {
		for _, r := range x.Runs {
			runs = append(runs, run{r.Block, uint64(r.Len)})
		}
	}
	if in.isDir() {
		return runs, nil
	}
	in.space.Ascend(0, func(e pagecache.Extent) bool {
		runs = append(runs, run{e.Block, uint64(e.Len)})
		return true
	})
	return runs, nil
}
