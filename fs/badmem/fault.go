package badmem

import (
	"errors"
	"time"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// Faulted is called with the error of an access to a block. The caller keeps the block from
// becoming free, by a lock of the block's owner or a reference. If the error is a fault and the
// block still cannot be read, the block is bad from now on. Faulted reports whether a new bad block
// was found, so that a write should be tried again.
func (l *List) Faulted(err error) (news bool) {
	var m pmem.MediaError
	if !errors.As(err, &m) || l.noStorage(err) {
		return false
	}
	return l.probe(uint64(m.Off)>>layout.BlockShift, 1, l.lostForGood())
}

// FreshFaulted is called with the error of a store to n newly allocated blocks from block on, which
// the caller will free. All of them are probed. They hold no data, so in an emulated region their
// bad blocks are not saved, and the next mount tries them again.
func (l *List) FreshFaulted(block, n uint64, err error) (news bool) {
	return errors.Is(err, pmem.ErrMedia) && !l.noStorage(err) && l.ProbeFresh(block, n)
}

// ProbeFresh looks for bad blocks among n newly allocated blocks from block on, which hold no data.
// It reports whether it found new ones.
func (l *List) ProbeFresh(block, n uint64) (news bool) {
	return l.probe(block, n, l.r.Durability() == pmem.DurableFlush)
}

// ProbeOwned looks for bad blocks among n blocks from block on that hold data of a file. It reports
// whether it found new ones.
func (l *List) ProbeOwned(block, n uint64) (news bool) { return l.probe(block, n, l.lostForGood()) }

// Unknown reports whether err is a fault of memory that is not known to be bad, and that does not
// merely lack storage.
func (l *List) Unknown(err error) bool {
	var m pmem.MediaError
	return errors.As(err, &m) && !l.noStorage(err) && !l.Has(uint64(m.Off)>>layout.BlockShift, 1)
}

// lostForGood reports whether file data at which a load faults is recorded as lost for the next
// mount, too. In an emulated region it is not, unless the region was truncated: the filesystem that
// holds the region may only have had no space for the data.
func (l *List) lostForGood() bool {
	return l.r.Durability() == pmem.DurableFlush || errors.Is(l.r.CheckSize(l.sb.Size), pmem.ErrTruncated)
}

// noStorage reports whether err means that the region's file is sparse and its filesystem is full.
// Then no memory is bad and nothing is lost: the caller fails with ENOSPC. It warns at most once a
// minute.
func (l *List) noStorage(err error) bool {
	if !pmem.OutOfStorage(err) {
		return false
	}
	const each = int64(time.Minute)
	now := time.Now().UnixNano()
	if last := l.toldStorage.Load(); now-last > each && l.toldStorage.CompareAndSwap(last, now) {
		l.warn("the region's file is sparse, and its filesystem is full or a quota is used up: writes that need new space fail until there is room")
	}
	return true
}

// probe looks for unreadable blocks among n blocks from block on, adds them to the list, and
// reports whether some were not known. It ignores blocks of the fixed area or beyond the
// filesystem. durably is as for Add.
func (l *List) probe(block, n uint64, durably bool) (news bool) {
	if block<<layout.BlockShift < uint64(l.sb.StaticEnd) || block+n > l.sb.Blocks() {
		return false
	}
	buf := make([]byte, layout.BlockSize)
	var found []Range
	for b := block; b < block+n; b++ {
		if !l.Has(b, 1) && l.r.Load(int64(b)<<layout.BlockShift, buf) != nil {
			found = join(found, Range{b, 1})
		}
	}
	for _, r := range found {
		l.Add(r, durably)
	}
	return len(found) > 0
}

// Add adds a range of blocks. The caller owns each of them or holds a reference to it. If durably
// is set, the range is saved, so that the next mount knows it, too.
func (l *List) Add(r Range, durably bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := join(l.Ranges(), r)
	l.ranges.Store(&list)
	l.warn("region memory at offset %d cannot be read: what its %d bytes held is lost, daxfsd fsck lists the files", int64(r.Block)<<layout.BlockShift, int64(r.N)<<layout.BlockShift)
	if !durably {
		l.volatile = true
		l.unsaved.Store(true)
		return
	}
	l.durable = join(l.durable, r)
	if l.stamp == nil {
		return // before StartSaving: a mount that fails stores nothing
	}
	if err := l.saveLocked(); err != nil {
		l.unsaved.Store(true)
		l.warn("the bad-range list cannot be written: %v", err)
	}
}
