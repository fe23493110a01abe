package journal

import (
	"errors"
	"runtime"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// Tx is one transaction: a set of whole lines that change together. It is part of its lane, so
// Begin allocates nothing. It belongs to one goroutine, from Begin to Commit or Abort.
//
// Rules of use: allocate blocks and inode slots before Begin, because allocation may run
// transactions of its own. Free after Commit. Take no inode lock in between.
type Tx struct {
	lane *lane
	err  error
	n    int           // lines so far
	offs []int64       // region offsets of the lines
	line []layout.Line // the lines, and one scratch line behind the last
	data []Data
}

// Data is a part of a file's data that a transaction stores in place, at region offset Off.
type Data struct {
	Off   int64
	Bytes []byte
}

var errTooLarge = errors.New("transaction has too many lines")

// Begin begins a transaction on lane number lane, modulo the number of lanes. If that lane is held,
// it takes the next lane that is not; if all are held, it waits for the first.
func (j *Journal) Begin(lane uint32) *Tx {
	n := uint32(len(j.lanes))
	first := lane % n
	l := j.lanes[first]
	if !l.mu.TryLock() {
		for i := uint32(1); ; i++ {
			if i == n {
				l.mu.Lock()
				break
			}
			if o := j.lanes[(first+i)%n]; o.mu.TryLock() {
				l = o
				break
			}
		}
	}
	l.tx.n, l.tx.err, l.tx.data = 0, nil, l.tx.data[:0]
	return &l.tx
}

// Room returns how many more lines the transaction can take.
func (t *Tx) Room() int { return len(t.offs) - t.n }

// At returns the transaction's copy of the line at region offset off, which the caller may change.
// The first call for an offset reads the line from the region. After an error (media, checksum, too
// many lines) At returns a scratch line, and Commit will fail.
//
// Precondition: the caller holds the lock that protects the line until Commit has returned.
func (t *Tx) At(off int64) *layout.Line {
	for i := 0; i < t.n; i++ {
		if t.offs[i] == off {
			return &t.line[i]
		}
	}
	if t.n == len(t.offs) {
		t.Fail(errTooLarge)
	}
	if t.err != nil {
		return &t.line[len(t.offs)]
	}
	l := &t.line[t.n]
	if err := t.lane.j.ReadLine(off, l); err != nil {
		t.Fail(err)
		return &t.line[len(t.offs)]
	}
	t.offs[t.n] = off
	t.n++
	return l
}

// Peek reads the line at region offset off, which the transaction does not change. After an error
// Commit will fail.
func (t *Tx) Peek(off int64, l *layout.Line) error {
	err := t.lane.j.ReadLine(off, l)
	if err != nil {
		t.Fail(err)
	}
	return err
}

// AddData adds file data to the transaction. The bytes must not change until Commit has returned.
func (t *Tx) AddData(d ...Data) { t.data = append(t.data, d...) }

// Fail makes Commit fail with err, unless an earlier error does already.
func (t *Tx) Fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

// Abort ends the transaction without any effect.
func (t *Tx) Abort() { t.lane.mu.Unlock() }

// Commit makes the transaction durable and visible. It ends the transaction in any case. An error
// means that nothing happened, unless the media failed. Then it is ErrFailed and the journal has
// failed, or it is a DataError: the transaction has happened, except for some of the file data.
//
// Persistence order:
//  1. CLWB the lines that the lane's previous transaction stored in place
//  2. NT-store the record into the lane's other slot
//  3. SFENCE: the previous record is checkpointed, this one is committed
//  4. store the lines in place, without a flush: until then the record makes them durable
//
// A transaction with data, or with more lines than a slot holds, is committed by commitLogged.
func (t *Tx) Commit() error {
	lane := t.lane
	defer lane.mu.Unlock()
	if t.err != nil {
		return t.err
	}
	if t.n+len(t.data) == 0 {
		return nil
	}
	journal := lane.j
	if journal.Failed() {
		return ErrFailed
	}
	seq := lane.seq.Load()
	for i := 0; i < t.n; i++ {
		seq = max(seq, t.line[i].Seq())
	}
	seq++
	if len(t.data) > 0 || t.n > layout.MaxRecordLines(journal.sb.LaneSlot) {
		return t.commitLogged(seq)
	}
	rec := t.buildRecordLocked(&layout.RecordHeader{Seq: seq})

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, off := range lane.prev {
		if err := journal.r.Flush(off, layout.LineSize); err != nil {
			return journal.mediaFailed(err)
		}
	}
	if err := journal.r.NTStore(lane.slotOffLocked(), rec); err != nil {
		return journal.mediaFailed(err)
	}
	journal.r.Fence()
	lane.seq.Store(seq)
	lane.slot ^= 1
	lane.prev = append(lane.prev[:0], t.offs[:t.n]...)
	for i := 0; i < t.n; i++ {
		if err := journal.r.Store(t.offs[i], t.line[i][:]); err != nil {
			return journal.mediaFailed(err)
		}
	}
	return nil
}

// buildRecordLocked seals the lines with h's sequence, completes h, and builds the record in the
// lane's buffer, without the data of its pieces. Called with lane.mu held.
func (t *Tx) buildRecordLocked(h *layout.RecordHeader) []byte {
	l, seed := t.lane, t.lane.j.seed
	h.N, h.Pieces = uint32(t.n), uint32(len(t.data))
	rec := l.rec[:layout.LineSize+layout.TablesSize(t.n, len(t.data))]
	body := rec[layout.LineSize:]
	clear(body)
	tables := h.Tables(body)
	for i := 0; i < t.n; i++ {
		t.line[i].Seal(seed, t.offs[i], h.Seq)
		tables.SetLine(i, t.offs[i], &t.line[i])
	}
	for i, d := range t.data {
		tables.SetPiece(i, d.Off, int64(len(d.Bytes)))
	}
	h.BodyCRC = layout.Checksum(seed, body)
	h.Put((*layout.Line)(rec), seed, l.slotOffLocked())
	return rec
}
