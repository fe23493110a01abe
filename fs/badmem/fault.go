package badmem

import (
	"errors"
	"time"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// Faulted is told of the error of an access to a block that the caller keeps from becoming free, by
// a lock of its owner or a reference. If it is a fault, and the block cannot be read either, the
// block is bad from now on. Faulted reports whether that is news, so that a write should be tried
// again.
func (l *List) Faulted(err error) (news bool) {
	var m pmem.MediaError
	if !errors.As(err, &m) || l.noStorage(err) {
		return false
	}
	return l.probe(uint64(m.Off)>>layout.BlockShift, 1, l.lostForGood())
}

// FreshFaulted is told of the error of a store to n blocks from block on that were just allocated,
// and go back: all of them are looked at. They have nothing to lose: in an emulated region the next
// mount tries them again.
func (l *List) FreshFaulted(block, n uint64, err error) (news bool) {
	return errors.Is(err, pmem.ErrMedia) && !l.noStorage(err) && l.ProbeFresh(block, n)
}

// ProbeFresh looks for bad blocks in n that were just allocated, and have nothing to lose.
func (l *List) ProbeFresh(block, n uint64) (news bool) {
	return l.probe(block, n, l.r.Durability() == pmem.DurableFlush)
}

// ProbeOwned looks for bad blocks in n that hold data of a file.
func (l *List) ProbeOwned(block, n uint64) (news bool) { return l.probe(block, n, l.lostForGood()) }

// Unknown reports whether err is a fault of memory that is not known to be bad, and not merely
// without storage.
func (l *List) Unknown(err error) bool {
	var m pmem.MediaError
	return errors.As(err, &m) && !l.noStorage(err) && !l.Has(uint64(m.Off)>>layout.BlockShift, 1)
}

// lostForGood reports whether the data of a file where a load faults is to be known as lost by the
// next mount, too. It is not if the filesystem that the region is in may just have had no space for
// it.
func (l *List) lostForGood() bool {
	return l.r.Durability() == pmem.DurableFlush || errors.Is(l.r.CheckSize(l.sb.Size), pmem.ErrTruncated)
}

// noStorage reports whether err is that the region's file is sparse and the disk below is full.
// Then no memory is bad and nothing is lost: it is ENOSPC. It warns, but once a minute at most.
func (l *List) noStorage(err error) bool {
	if !pmem.OutOfStorage(err) {
		return false
	}
	const each = int64(time.Minute)
	now := time.Now().UnixNano()
	if last := l.toldStorage.Load(); now-last > each && l.toldStorage.CompareAndSwap(last, now) {
		l.warn("the region's file is sparse, and the filesystem that it is on is full or a quota used up: what needs new space fails until there is room")
	}
	return true
}

// probe looks for blocks of n from block on that cannot be read, adds them, and reports whether
// there are some that were not known.
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

// Add adds a range of blocks, each of which somebody holds a reference to, or has for his own.
// durably: the next mount knows it, too.
func (l *List) Add(r Range, durably bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := join(l.Ranges(), r)
	l.ranges.Store(&list)
	l.warn("region memory at offset %d cannot be read: what its %d bytes held is lost, daxfsd fsck says of which file", int64(r.Block)<<layout.BlockShift, int64(r.N)<<layout.BlockShift)
	if !durably {
		l.volatile = true
		l.unsaved.Store(true)
		return
	}
	l.durable = join(l.durable, r)
	if l.stamp == nil {
		return // a mount that fails stores nothing
	}
	if err := l.saveLocked(); err != nil {
		l.unsaved.Store(true)
		l.warn("the bad-range list cannot be written: %v", err)
	}
}
