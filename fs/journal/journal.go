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

// Hooks are the functions by which a Journal reports to its user; each may be nil. No hook may
// begin a transaction, because the caller may hold a lane.
type Hooks struct {
	// MediaFailed is called with the error of an access to the region.
	MediaFailed func(err error)
	// FreshFailed is called with the error of a store to the n blocks from block on. Nothing refers
	// to these blocks.
	FreshFailed func(block, n uint64, err error)
	// Damaged is called with the error for a line with a wrong checksum, and returns the error to
	// use.
	Damaged func(err error) error
	// Warn is called with a message for the administrator.
	Warn func(format string, a ...any)
}

// complete returns the hooks with empty functions in place of nil.
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

// Journal is the journal of a mounted filesystem. Its methods are safe for concurrent use, except
// Pending, Recover, SetSeq and UseBodies, which are called only while mounting.
type Journal struct {
	r     *pmem.Region
	sb    *layout.Superblock
	seed  uint32
	hooks Hooks

	lanes  []*lane
	bodies bodies
	failed atomic.Pointer[error] // the first error given to Fail; nil: the journal has not failed

	blockBufs sync.Pool // *[layout.BlockSize]byte
}

// lane is one independent slice of the journal: two record slots used in turn. Transactions of
// different threads therefore share no cache line. See the package comment for the life of a slot.
type lane struct {
	j    *Journal
	off  int64         // region offset of slot 0
	seq  atomic.Uint64 // sequence of the newest record; read by other lanes
	slot int           // the slot for the next record; protected by mu

	mu   sync.Mutex // held from Begin to the end of Commit or Abort
	prev []int64    // region offsets of the newest record's lines, unflushed; protected by mu

	body int64 // region offset of the small body, laneBody bytes; 0: none; protected by mu
	tx   Tx
	rec  []byte // buffer for a record without its data; protected by mu
}

// New returns the journal of the filesystem sb on r. If data is set, transactions may be logged;
// then UseBodies must be called before the first logged transaction.
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

// slotOffLocked returns the region offset of the slot for the next record. Called with lane.mu
// held.
func (l *lane) slotOffLocked() int64 { return l.off + int64(l.slot)*int64(l.j.sb.LaneSlot) }

// Seed returns the seed of the filesystem's checksums.
func (j *Journal) Seed() uint32 { return j.seed }

// Seq returns a sequence that is not below that of any earlier transaction. Freshly formatted lines
// are stamped with it, so that no record that is still in a lane counts as newer than they are.
func (j *Journal) Seq() uint64 {
	var m uint64
	for _, l := range j.lanes {
		m = max(m, l.seq.Load())
	}
	return m
}

// SetSeq records that the region has lines of sequences up to seq. Called before the first
// transaction.
func (j *Journal) SetSeq(seq uint64) {
	for _, l := range j.lanes {
		l.seq.Store(seq)
	}
}

// Failed reports whether Fail was called.
func (j *Journal) Failed() bool { return j.failed.Load() != nil }

// Failure returns the error of the first call of Fail; nil if there was none.
func (j *Journal) Failure() error {
	if p := j.failed.Load(); p != nil {
		return *p
	}
	return nil
}

// Fail makes every later transaction fail, and reports whether this is the first call. Committed
// transactions stay valid: recovery replays them.
func (j *Journal) Fail(err error) (first bool) { return j.failed.CompareAndSwap(nil, &err) }

// mediaFailed calls the hooks and Fail after the media failed while a transaction was being stored,
// and returns ErrFailed.
func (j *Journal) mediaFailed(err error) error {
	j.hooks.MediaFailed(err) // before Fail, while the bad-range list can still be written
	err = fmt.Errorf("the region failed under a transaction, the filesystem is read-only until it is mounted again: %w", err)
	if j.Fail(err) {
		j.hooks.Warn("%v", err)
	}
	return ErrFailed
}

// Checkpoint makes every line durable in place and clears every record. This is needed before a
// metadata chunk becomes data, and at a clean unmount. The caller holds no lane.
//
// Persistence order, with all lanes locked, in their order:
//  1. flush the lines of the lanes' newest records, SFENCE: everything is durable in place
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

// clearSlot clears and flushes the header of the slot at region offset off. It does not fence.
func (j *Journal) clearSlot(off int64) error {
	if err := j.r.Store(off, zeroLine[:]); err != nil {
		return err
	}
	return j.r.Flush(off, layout.LineSize)
}
