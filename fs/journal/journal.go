package journal

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// ErrFailed is the error of every transaction after Fail.
var ErrFailed = errors.New("the filesystem has failed and changes nothing any more")

// Hooks are what a Journal reports to its user; each may be nil. None may begin a transaction: a
// lane may be held.
type Hooks struct {
	// MediaFailed is told of the error of an access to the region.
	MediaFailed func(err error)
	// FreshFailed is told of the error of a store to n blocks from block on that nothing refers to.
	FreshFailed func(block, n uint64, err error)
	// Damaged is told of a line with a wrong checksum, and returns the error.
	Damaged func(err error) error
	// Warn is told what an administrator should know.
	Warn func(format string, a ...any)
}

// complete returns the hooks with functions for those that are nil.
func (h Hooks) complete() Hooks {
	if h.MediaFailed == nil {
		h.MediaFailed = func(error) {}
	}
	if h.FreshFailed == nil {
		h.FreshFailed = func(uint64, uint64, error) {}
	}
	if h.Damaged == nil {
		h.Damaged = func(err error) error { return err }
	}
	if h.Warn == nil {
		h.Warn = func(string, ...any) {}
	}
	return h
}

// Journal is the journal of a mounted filesystem. Its methods are safe for concurrent use, but for
// Pending, Recover, SetSeq and UseBodies, which belong to mounting.
type Journal struct {
	r     *pmem.Region
	sb    *layout.Superblock
	seed  uint32
	hooks Hooks

	lanes  []*lane
	bodies bodies
	failed atomic.Pointer[error] // why nothing is changed any more; nil: it is

	blockBufs sync.Pool // *[layout.BlockSize]byte
}

// A lane is one independent slice of the journal: two record slots used in turn, so that
// transactions of different threads share no cache line. See the package comment for a slot's life.
type lane struct {
	j    *Journal
	off  int64         // region offset of slot 0
	seq  atomic.Uint64 // sequence of the newest record; read by other lanes
	slot int           // protected by mu: the slot the next record goes to

	mu   sync.Mutex // held from begin to the end of commit
	prev []int64    // lines stored in place by the newest record, not yet flushed

	body int64 // protected by mu: region offset of laneBody bytes for bodies of logged records; 0: none
	tx   Tx
	rec  []byte // where a record is built, but for its data
}

// New returns the journal of the filesystem sb on r. With data, transactions may be logged, for
// which UseBodies must be called before the first one.
func New(r *pmem.Region, sb *layout.Superblock, data bool, hooks Hooks) *Journal {
	j := &Journal{r: r, sb: sb, seed: layout.Seed(sb.UUID), hooks: hooks.complete()}
	j.blockBufs.New = func() any { return new([layout.BlockSize]byte) }
	lines, pieces := layout.MaxRecordLines(sb.LaneSlot), 0
	if data {
		lines, pieces = layout.LoggedMax, layout.LoggedMax
	}
	for i := range int64(sb.Lanes) {
		l := &lane{
			j:    j,
			off:  sb.LaneOff + i*2*int64(sb.LaneSlot),
			rec:  make([]byte, layout.LineSize+layout.TablesSize(lines, pieces)),
			prev: make([]int64, 0, lines),
		}
		l.tx = Tx{lane: l, offs: make([]int64, lines), line: make([]layout.Line, lines+1)}
		j.lanes = append(j.lanes, l)
	}
	return j
}

// slotOffLocked is the region offset of the slot that the next record goes to. Called with mu held.
func (l *lane) slotOffLocked() int64 { return l.off + int64(l.slot)*int64(l.j.sb.LaneSlot) }

// Seed is the seed of the filesystem's checksums.
func (j *Journal) Seed() uint32 { return j.seed }

// Seq is at least the sequence of every transaction that happened before. Freshly formatted lines
// are stamped with it, so that no record that is still in a lane is taken for newer than they are.
func (j *Journal) Seq() uint64 {
	var m uint64
	for _, l := range j.lanes {
		m = max(m, l.seq.Load())
	}
	return m
}

// SetSeq says that the region has lines of sequences up to seq.
func (j *Journal) SetSeq(seq uint64) {
	for _, l := range j.lanes {
		l.seq.Store(seq)
	}
}

// Failed reports whether Fail was called.
func (j *Journal) Failed() bool { return j.failed.Load() != nil }

// Failure is what Fail was called with first; nil if it was not.
func (j *Journal) Failure() error {
	if p := j.failed.Load(); p != nil {
		return *p
	}
	return nil
}

// Fail makes every later transaction fail, and reports whether it is the first call. What is
// durable stays right: recovery replays it.
func (j *Journal) Fail(err error) (first bool) { return j.failed.CompareAndSwap(nil, &err) }

// mediaFailed is Fail after media failed where a transaction had to be stored, and returns
// ErrFailed.
func (j *Journal) mediaFailed(err error) error {
	j.hooks.MediaFailed(err) // while the list of bad memory can still be written
	err = fmt.Errorf("the region failed under a transaction, the filesystem is read-only until it is mounted again: %w", err)
	if j.Fail(err) {
		j.hooks.Warn("%v", err)
	}
	return ErrFailed
}

// Checkpoint makes every line durable in place and durably forgets every record: needed before a
// metadata chunk becomes data, and at a clean unmount. The caller holds no lane.
//
// Persistence order, with all lanes locked, in their order:
//  1. flush the lines of their newest records, SFENCE: everything is in place
//  2. clear all slots' headers, flush, SFENCE
func (j *Journal) Checkpoint() error {
	for _, l := range j.lanes {
		l.mu.Lock()
		defer l.mu.Unlock()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, l := range j.lanes {
		for _, off := range l.prev {
			if err := j.r.Flush(off, layout.LineSize); err != nil {
				return j.mediaFailed(err)
			}
		}
	}
	j.r.Fence()
	for _, l := range j.lanes {
		l.prev = l.prev[:0]
		for s := int64(0); s < 2; s++ {
			if err := j.clearSlot(l.off + s*int64(j.sb.LaneSlot)); err != nil {
				return j.mediaFailed(err)
			}
		}
	}
	j.r.Fence()
	return nil
}

var zeroLine [layout.LineSize]byte

// clearSlot clears the header of the slot at region offset off, and flushes it.
func (j *Journal) clearSlot(off int64) error {
	if err := j.r.Store(off, zeroLine[:]); err != nil {
		return err
	}
	return j.r.Flush(off, layout.LineSize)
}
