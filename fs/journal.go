package fs

import (
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/daxfs/daxfs/fs/layout"
)

// A lane is one independent slice of the redo journal: two record slots used in
// turn, so that transactions of different threads share no cache line.
//
// A slot's life: empty -> committed (its record is on media) -> retired (every
// line of the record is durable in place) -> overwritten. A record is retired
// without a fence of its own: the next transaction of the lane, which writes the
// *other* slot, flushes the lines this one stored in place before its own commit
// fence. So when the turn comes back to this slot its lines are durable, and a
// metadata transaction costs exactly one fence.
type lane struct {
	fs   *FS
	off  int64         // region offset of slot 0
	seq  atomic.Uint64 // sequence of the newest record; read by other lanes
	slot int           // protected by mu: the slot the next record goes to

	mu   sync.Mutex // held from begin to the end of commit
	prev []int64    // lines stored in place by the newest record, not yet flushed

	stage int64 // protected by mu: region offset of laneStage bytes for bodies of logged records; 0: none
	tx    tx
	rec   []byte // where a record is built, but for its data
}

// tx is one transaction: a set of whole lines that change together. It lives in
// its lane, so beginning one allocates nothing.
//
// Rules of use: allocate blocks and inode slots before begin (allocation may run
// transactions of its own); free after commit; take no inode lock in between.
type tx struct {
	lane *lane
	err  error
	n    int
	offs []int64
	line []layout.Line
	data []dataPiece // of files, see commitLogged
}

func newLane(fs *FS, i int) *lane {
	max, pieces := layout.MaxRecordLines(fs.sb.LaneSlot), 0
	if fs.atomic() {
		max, pieces = layout.LoggedMax, layout.LoggedMax
	}
	l := &lane{
		fs:   fs,
		off:  fs.sb.LaneOff + int64(i)*2*int64(fs.sb.LaneSlot),
		rec:  make([]byte, layout.LineSize+layout.TablesSize(max, pieces)),
		prev: make([]int64, 0, max),
	}
	l.tx = tx{lane: l, offs: make([]int64, max), line: make([]layout.Line, max+1)}
	return l
}

// begin opens a transaction on the caller's lane, or on the next free one.
func (fs *FS) begin(ctx *Context) *tx {
	n := uint32(len(fs.lanes))
	first := ctx.Lane % n
	l := fs.lanes[first]
	if !l.mu.TryLock() {
		for i := uint32(1); ; i++ {
			if i == n {
				l.mu.Lock()
				break
			}
			if o := fs.lanes[(first+i)%n]; o.mu.TryLock() {
				l = o
				break
			}
		}
	}
	l.tx.n, l.tx.err, l.tx.data = 0, nil, l.tx.data[:0]
	return &l.tx
}

// room is how many more lines the transaction takes.
func (t *tx) room() int { return len(t.offs) - t.n }

// at returns the transaction's copy of the line at region offset off, read from
// the region the first time, to be changed in place. After an error (media,
// checksum, too many lines) it returns a scratch line and commit fails.
// Precondition: the caller holds the lock that protects the line until commit
// has returned.
func (t *tx) at(off int64) *layout.Line {
	for i := 0; i < t.n; i++ {
		if t.offs[i] == off {
			return &t.line[i]
		}
	}
	if t.n == len(t.offs) {
		t.fail(errTxTooLarge)
	}
	if t.err != nil {
		return &t.line[len(t.offs)]
	}
	l := &t.line[t.n]
	if err := t.lane.fs.loadLine(off, l); err != nil {
		t.fail(err)
		return &t.line[len(t.offs)]
	}
	t.offs[t.n] = off
	t.n++
	return l
}

func (t *tx) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

// abort ends the transaction without any effect.
func (t *tx) abort() { t.lane.mu.Unlock() }

// commit makes the transaction durable and visible, and ends it either way.
// An error means that nothing happened, unless the media failed: then the filesystem is shut
// down, or only file data that the transaction carried was not stored (lostError).
//
// Persistence order:
//  1. CLWB the lines the lane's previous transaction stored in place
//  2. NT-store the record into the lane's other slot
//  3. SFENCE: the previous record is retired, this one is committed
//  4. store the lines in place; no flush, the record stands for them
//
// With data, or more lines than a slot holds: commitLogged.
func (t *tx) commit() error {
	l := t.lane
	defer l.mu.Unlock()
	if t.err != nil {
		return t.err
	}
	if t.n+len(t.data) == 0 {
		return nil
	}
	fs := l.fs
	if err := fs.failure(); err != nil {
		return err
	}
	seq := l.seq.Load()
	for i := 0; i < t.n; i++ {
		seq = max(seq, t.line[i].Seq())
	}
	seq++
	if len(t.data) > 0 || t.n > layout.MaxRecordLines(fs.sb.LaneSlot) {
		return t.commitLogged(seq)
	}
	rec := t.buildRecord(&layout.RecordHeader{Seq: seq})

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r := fs.r
	for _, off := range l.prev {
		if err := r.Flush(off, layout.LineSize); err != nil {
			return fs.shutdown(err)
		}
	}
	if err := r.NTStore(l.slotOff(), rec); err != nil {
		return fs.shutdown(err)
	}
	r.Fence()
	l.seq.Store(seq)
	l.slot ^= 1
	l.prev = append(l.prev[:0], t.offs[:t.n]...)
	for i := 0; i < t.n; i++ {
		if err := r.Store(t.offs[i], t.line[i][:]); err != nil {
			return fs.shutdown(err)
		}
	}
	return nil
}

// slotOff is where the next record goes.
func (l *lane) slotOff() int64 { return l.off + int64(l.slot)*int64(l.fs.sb.LaneSlot) }

// buildRecord seals the lines with h's sequence and lays the record out in l.rec, but for
// the data of its pieces.
func (t *tx) buildRecord(h *layout.RecordHeader) []byte {
	l, seed := t.lane, t.lane.fs.seed
	h.N, h.Pieces = uint32(t.n), uint32(len(t.data))
	rec := l.rec[:layout.LineSize+layout.TablesSize(t.n, len(t.data))]
	body := rec[layout.LineSize:]
	clear(body)
	lines := body[layout.OffsetsSize(t.n):]
	for i := 0; i < t.n; i++ {
		t.line[i].Seal(seed, t.offs[i], h.Seq)
		binary.LittleEndian.PutUint64(body[8*i:], uint64(t.offs[i]))
		copy(lines[i*layout.LineSize:], t.line[i][:])
	}
	pieces := lines[t.n*layout.LineSize:]
	for i, d := range t.data {
		binary.LittleEndian.PutUint64(pieces[16*i:], uint64(d.off))
		binary.LittleEndian.PutUint64(pieces[16*i+8:], uint64(len(d.b)))
	}
	h.BodyCRC = layout.Checksum(seed, body)
	h.Put((*layout.Line)(rec), seed, l.slotOff())
	return rec
}

// seqNow is at least the sequence of every transaction that happened before: what
// freshly formatted lines are stamped with, so that no record still standing in
// a lane is taken for newer than they are.
func (fs *FS) seqNow() uint64 {
	var m uint64
	for _, l := range fs.lanes {
		m = max(m, l.seq.Load())
	}
	return m
}

// retireLanes durably forgets every record: needed before a metadata chunk
// becomes data, and at a clean unmount. No lane may be held by the caller.
//
// Persistence order, with all lanes locked, in their order:
//  1. flush the lines of their newest records, SFENCE: everything is in place
//  2. clear all slots' headers, flush, SFENCE
func (fs *FS) retireLanes() error {
	for _, l := range fs.lanes {
		l.mu.Lock()
		defer l.mu.Unlock()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, l := range fs.lanes {
		for _, off := range l.prev {
			if err := fs.r.Flush(off, layout.LineSize); err != nil {
				return fs.shutdown(err)
			}
		}
	}
	fs.r.Fence()
	for _, l := range fs.lanes {
		l.prev = l.prev[:0]
		for s := int64(0); s < 2; s++ {
			if err := fs.clearSlot(l.off + s*int64(fs.sb.LaneSlot)); err != nil {
				return fs.shutdown(err)
			}
		}
	}
	fs.r.Fence()
	return nil
}

// clearSlot clears the header of the slot at off, and flushes it.
func (fs *FS) clearSlot(off int64) error {
	if err := fs.r.Store(off, zeroLine[:]); err != nil {
		return err
	}
	return fs.r.Flush(off, layout.LineSize)
}
