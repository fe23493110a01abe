package fs

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/daxfs/daxfs/fs/layout"
	"github.com/daxfs/daxfs/pmem"
)

// badRanges is what is known of memory that cannot be read, in whole blocks: by the bad-range
// list on media, by the kernel's list when the filesystem was mounted, and by what faulted since.
//
// The states of a bad block: owned (by a file: reading it is EIO and touches nothing; a write that
// covers it goes to a new block instead) -> retired, when its last owner gives it back or if it was
// free when it was found. A retired block is never allocated.
type badRanges struct {
	runs    atomic.Pointer[[]run] // in order, not adjacent; nil: there are none
	retired atomic.Uint64         // blocks retired

	mu       sync.Mutex
	lines    [layout.LinesPerBlock]layout.BadRange // the list on media; protected by mu
	durable  []run                                 // what it is to say, in order; protected by mu
	volatile bool                                  // runs has more than that; protected by mu
	begun    bool                                  // mounting has come to saveBad: what is found is saved at once; protected by mu
	unsaved  atomic.Bool                           // the list on media lacks some

	toldStorage atomic.Int64 // when a full disk below a sparse region was told last; ns since the epoch
}

// list is all bad ranges, in order. It must not be changed.
func (b *badRanges) list() []run {
	if p := b.runs.Load(); p != nil {
		return *p
	}
	return nil
}

// alike is how many of the n blocks from block on are bad as the first of them is, or are
// good as it is.
func (b *badRanges) alike(block, n uint64) (m uint64, bad bool) {
	p := b.runs.Load()
	if p == nil {
		return n, false
	}
	l := *p
	i := sort.Search(len(l), func(i int) bool { return l[i].block+l[i].n > block })
	switch {
	case i == len(l):
		return n, false
	case l[i].block <= block:
		return min(n, l[i].block+l[i].n-block), true
	}
	return min(n, l[i].block-block), false
}

// has reports whether one of n blocks is bad.
func (b *badRanges) has(block, n uint64) bool {
	m, bad := b.alike(block, n)
	return n > 0 && (bad || m < n)
}

// join adds ranges to a list in order.
func join(list []run, more ...run) (out []run) {
	all := append(slices.Clone(list), more...)
	slices.SortFunc(all, func(a, b run) int {
		if a.block < b.block {
			return -1
		}
		return 1
	})
	for _, r := range all {
		if k := len(out) - 1; k >= 0 && r.block <= out[k].block+out[k].n {
			out[k].n = max(out[k].n, r.block+r.n-out[k].block)
		} else if r.n > 0 {
			out = append(out, r)
		}
	}
	return out
}

// badError is the error of memory that is known to be bad, at a block of the region.
func (fs *FS) badError(block uint64) error {
	return pmem.MediaError{Path: fs.r.Path(), Off: int64(block) << layout.BlockShift}
}

// checkRead fails if one of n blocks is bad.
func (fs *FS) checkRead(block, n uint64) error {
	if m, bad := fs.bad.alike(block, n); bad {
		return fs.badError(block)
	} else if m < n {
		return fs.badError(block + m)
	}
	return nil
}

// noRange is a line of the bad-range list that has to be made an unused one.
var noRange = layout.BadRange{Block: 1}

// readBadList reads the bad-range list. A line with a wrong checksum was torn when it was
// written, which nobody has relied on yet, and is noRange.
func readBadList(r *pmem.Region, sb *layout.Superblock) (lines [layout.LinesPerBlock]layout.BadRange, err error) {
	for i := range lines {
		var l layout.Line
		off := sb.BadOff + int64(i)*layout.LineSize
		if err := r.LoadLine(off, (*[layout.LineSize]byte)(&l)); err != nil {
			return lines, err
		}
		b := &lines[i]
		if b.Get(&l); !l.Valid(layout.Seed(sb.UUID), off) || b.Block >= sb.Blocks() || b.Len > sb.Blocks()-b.Block {
			*b = noRange
		}
	}
	return lines, nil
}

// runsOf are the ranges of a bad-range list, in order.
func runsOf(lines []layout.BadRange) (list []run) {
	for _, b := range lines {
		list = append(list, run{b.Block, b.Len})
	}
	return join(nil, list...)
}

// blocksAround are the blocks that hold the bytes of ranges, as far as the filesystem has them.
func blocksAround(bytes []pmem.Range, sb *layout.Superblock) (list []run) {
	for _, b := range bytes {
		lo, hi := uint64(b.Off)>>layout.BlockShift, min(blocksOf(b.Off+b.Len), sb.Blocks())
		if lo < hi {
			list = append(list, run{lo, hi - lo})
		}
	}
	return list
}

// BadRanges is what the bad-range list of a filesystem that is not mounted and the kernel's know, in
// order: whole blocks, in bytes.
func BadRanges(r *pmem.Region, sb *layout.Superblock) (out []pmem.Range, err error) {
	lines, err := readBadList(r, sb)
	if err != nil {
		return nil, err
	}
	kernel, err := r.BadRanges()
	for _, b := range join(runsOf(lines[:]), blocksAround(kernel, sb)...) {
		out = append(out, pmem.Range{Off: int64(b.block) << layout.BlockShift, Len: int64(b.n) << layout.BlockShift})
	}
	return out, err
}

// loadBad finds out what is bad: nothing of it is used from here on. That the kernel cannot say is
// no reason not to mount. Bad memory under a fixed structure is.
func (fs *FS) loadBad() (err error) {
	if fs.bad.lines, err = readBadList(fs.r, fs.sb); err != nil {
		return err
	}
	kernel, err := fs.r.BadRanges()
	if err != nil {
		fs.warn("the kernel's list of bad memory cannot be read: %v", err)
	}
	found := blocksAround(kernel, fs.sb)
	for _, b := range found {
		// The first superblock has a second, and is read before this.
		if at := max(int64(b.block)<<layout.BlockShift, fs.sb.BadOff); at < fs.sb.StaticEnd && at < int64(b.block+b.n)<<layout.BlockShift {
			return fs.badError(uint64(at) >> layout.BlockShift)
		}
	}
	if list := join(runsOf(fs.bad.lines[:]), found...); len(list) > 0 {
		fs.bad.runs.Store(&list)
		fs.bad.durable = list
	}
	return nil
}

// retireBad takes out of the free space what is bad of it, while mounting: all that is in use is
// claimed, and nothing was allocated yet. It takes as many steps as there are runs of free blocks, bad
// ranges and metadata chunks: ranges of a crafted list may cover all of a region that is mostly holes.
func (fs *FS) retireBad() {
	list := fs.bad.list()
	if len(list) == 0 {
		return
	}
	var free []run // in bad ranges
	fs.alloc.Walk(func(block, n uint64) bool {
		free = append(free, overlaps(list, block, n)...)
		return true
	})
	for _, r := range free {
		if fs.alloc.Reserve(r.block, r.n) {
			fs.bad.retired.Add(r.n)
		}
	}
	m := &fs.meta
	for _, c := range m.chunks {
		for _, r := range overlaps(list, uint64(c.no)<<fs.chunkShift(), uint64(fs.sb.ChunkBlocks())) {
			for b := r.block; b < r.block+r.n; b++ {
				fs.claimMeta(b) // if it is a free one
			}
		}
	}
}

// overlaps returns what the ranges of a list in order have of n blocks from block on.
func overlaps(list []run, block, n uint64) (out []run) {
	i := sort.Search(len(list), func(i int) bool { return list[i].block+list[i].n > block })
	for ; i < len(list) && list[i].block < block+n; i++ {
		lo, hi := max(block, list[i].block), min(block+n, list[i].block+list[i].n)
		out = append(out, run{lo, hi - lo})
	}
	return out
}

// saveBad makes the list on media say what is durably known. A line is never overwritten by another range:
// torn, it would be lost. What has no line stays known until the unmount.
//
// Persistence order:
//  1. torn lines: store an unused line, flush
//
// Then for each range that has no line:
//  1. store it in an unused one, flush; SFENCE
//  2. lines of ranges that are part of it: store an unused line, flush
//
// SFENCE in the end.
func (fs *FS) saveBad() error {
	b := &fs.bad
	b.mu.Lock()
	defer b.mu.Unlock()
	b.begun = true
	return fs.saveBadLocked()
}

func (fs *FS) saveBadLocked() error {
	b := &fs.bad
	if fs.opt.ReadOnly || fs.failed.Load() != nil {
		b.unsaved.Store(true)
		return nil
	}
	put := func(i int, r layout.BadRange) error {
		var l layout.Line
		r.Put(&l)
		off := fs.sb.BadOff + int64(i)*layout.LineSize
		l.Seal(fs.seed, off, fs.seqNow())
		if err := fs.r.Store(off, l[:]); err != nil {
			return err
		}
		b.lines[i] = r
		return fs.r.Flush(off, layout.LineSize)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	lacks, cleared := false, false
	for i, l := range b.lines {
		if l == noRange {
			if err := put(i, layout.BadRange{}); err != nil {
				return err
			}
			cleared = true
		}
	}
	for _, r := range b.durable {
		want := layout.BadRange{Block: r.block, Len: r.n}
		if slices.Contains(b.lines[:], want) {
			continue
		}
		var holds []int // lines of ranges that are part of it
		unused, n := 0, 0
		for i, l := range b.lines {
			switch {
			case l.Len == 0:
				unused, n = i, n+1
			case want.Block <= l.Block && l.Block+l.Len <= want.Block+want.Len:
				holds = append(holds, i)
			}
		}
		if n == 0 || n == 1 && len(holds) == 0 { // the last one is for ranges that join others
			lacks = true
			continue
		}
		if err := put(unused, want); err != nil {
			return err
		}
		fs.r.Fence()
		for _, i := range holds {
			if err := put(i, layout.BadRange{}); err != nil {
				return err
			}
			cleared = true
		}
	}
	if cleared {
		fs.r.Fence()
	}
	if err := fs.r.Sync(fs.sb.BadOff, layout.BlockSize); err != nil {
		return err
	}
	if lacks && !b.unsaved.Load() {
		fs.warn("the bad-range list is full: what else is bad is forgotten at the unmount, unless the kernel knows it")
	}
	b.unsaved.Store(lacks || b.volatile)
	return nil
}

// mediaFailed is told of the error of an access to a file's data, while its folio is referenced. If it
// is a fault, and the block cannot be read either, that is bad from now on. It says whether that is
// news, so that a write should be tried again.
func (fs *FS) mediaFailed(err error) (news bool) {
	var m pmem.MediaError
	if !errors.As(err, &m) || fs.noStorage(err) {
		return false
	}
	return fs.probeBad(run{uint64(m.Off) >> layout.BlockShift, 1}, fs.lostForGood())
}

// lostForGood tells whether what a file had where a load faults is to be known as lost by the next
// mount, too. It is not if the filesystem that the region is in may just have had no space for it.
func (fs *FS) lostForGood() bool {
	return fs.r.Durability() == pmem.DurableFlush || errors.Is(fs.r.CheckSize(fs.sb.Size), pmem.ErrTruncated)
}

// noStorage reports whether err is that the region's file is sparse and the disk below is full. Then
// no memory is bad and nothing is lost: it is ENOSPC. It is told, but once a minute at most.
func (fs *FS) noStorage(err error) bool {
	if !outOfStorage(err) {
		return false
	}
	const each = int64(time.Minute)
	now := time.Now().UnixNano()
	if last := fs.bad.toldStorage.Load(); now-last > each && fs.bad.toldStorage.CompareAndSwap(last, now) {
		fs.warn("the region's file is sparse, and the filesystem that it is on is full or a quota used up: what needs new space fails until there is room")
	}
	return true
}

// freshFailed is mediaFailed of a store to blocks that were just allocated, and go back: all of them are
// looked at. They have nothing to lose, see remap.storeFailed.
func (fs *FS) freshFailed(r run, err error) (news bool) {
	return errors.Is(err, pmem.ErrMedia) && !fs.noStorage(err) && fs.probeBad(r, fs.r.Durability() == pmem.DurableFlush)
}

// retireFree is told of the error of reading what nobody keeps from becoming free, after
// mediaFailed was. If the block became free meanwhile it is retired. Called without meta.mu.
func (fs *FS) retireFree(err error) {
	var m pmem.MediaError
	if !errors.As(err, &m) {
		return
	}
	if b := uint64(m.Off) >> layout.BlockShift; fs.bad.has(b, 1) && !fs.claimMeta(b) && fs.alloc.Reserve(b, 1) {
		fs.bad.retired.Add(1)
	}
}

// probeBad looks for blocks of a run that cannot be read, and says whether there are some that
// were not known.
func (fs *FS) probeBad(r run, durably bool) (news bool) {
	if r.block<<layout.BlockShift < uint64(fs.sb.StaticEnd) || r.block+r.n > fs.sb.Blocks() {
		return false
	}
	buf := fs.blockBufs.Get().(*[layout.BlockSize]byte)
	defer fs.blockBufs.Put(buf)
	var found []run
	for b := r.block; b < r.block+r.n; b++ {
		if !fs.bad.has(b, 1) && fs.r.Load(int64(b)<<layout.BlockShift, buf[:]) != nil {
			found = join(found, run{b, 1})
		}
	}
	for _, r := range found {
		fs.addBad(r, durably)
	}
	return len(found) > 0
}

// addBad adds a range of data blocks, each of which somebody holds a reference to, or has for his own.
func (fs *FS) addBad(r run, durably bool) {
	b := &fs.bad
	b.mu.Lock()
	defer b.mu.Unlock()
	list := join(b.list(), r)
	b.runs.Store(&list)
	fs.warn("region memory at offset %d cannot be read: what its %d bytes held is lost, daxfsd fsck says of which file", int64(r.block)<<layout.BlockShift, int64(r.n)<<layout.BlockShift)
	if !durably {
		b.volatile = true
		b.unsaved.Store(true)
		return
	}
	b.durable = join(b.durable, r)
	if !b.begun {
		return // a mount that fails stores nothing
	}
	if err := fs.saveBadLocked(); err != nil {
		b.unsaved.Store(true)
		fs.warn("the bad-range list cannot be written: %v", err)
	}
}

// MarkBad makes n bytes of a file from off on unreadable, as a fault in each of their blocks would:
// for tests.
func (fs *FS) MarkBad(ino uint64, off, n int64) error {
	in, e := fs.get(ino)
	if e != 0 {
		return e
	}
	defer fs.put(in, 1)
	in.io.Lock()
	defer in.io.Unlock()
	if err := fs.loadExtents(in); err != nil {
		return err
	}
	for b := uint64(off) >> layout.BlockShift; b < blocksOf(off+n); b++ {
		e, ok := in.space.Lookup(b)
		if !ok {
			return fmt.Errorf("block %d of inode %d is a hole", b, ino)
		}
		fs.addBad(run{e.BlockAt(b), 1}, true)
	}
	return nil
}
