package journal

import (
	"fmt"
	"runtime"
	"sync/atomic"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// Sizes of the bodies of logged records, in bytes: BodySize fits the largest record; laneBody is
// the size of the small body of each lane.
const (
	BodySize = (layout.LoggedData + layout.LoggedMax*(layout.LineSize+8+16) + 3*layout.LineSize + layout.BlockSize - 1) &^ (layout.BlockSize - 1)
	laneBody = 2 * layout.BlockSize
)

// bodies are the large bodies of logged records, which the lanes share.
type bodies struct {
	free chan int64   // region offsets of unused bodies; closed when no body is usable any more
	good atomic.Int32 // number of usable bodies
}

// DataError is the error of a transaction that has happened, although the media refused some of the
// file data that it carried.
type DataError struct{ error }

// Unwrap returns the error of the media.
func (e DataError) Unwrap() error { return e.error }

// Happened reports whether the transaction whose Commit returned err has happened.
func Happened(err error) bool {
	if err == nil {
		return true
	}
	_, ok := err.(DataError)
	return ok
}

// LaneBodies returns the size in bytes of the small bodies of all lanes.
func (j *Journal) LaneBodies() int64 { return int64(len(j.lanes)) * laneBody }

// UseBodies gives the journal space for the bodies of logged records: LaneBodies bytes at region
// offset lanes (0: none), and BodySize bytes at each region offset of large. It is called once,
// before the first logged transaction. The space belongs to the journal until its last transaction
// has ended.
func (j *Journal) UseBodies(lanes int64, large []int64) {
	if lanes != 0 {
		for i, l := range j.lanes {
			l.body = lanes + int64(i)*laneBody
		}
	}
	j.bodies.free = make(chan int64, len(large))
	for _, off := range large {
		j.bodies.free <- off
	}
	j.bodies.good.Store(int32(len(large)))
}

// takeBodyLocked returns the region offset of a body of at least n bytes; giveBodyLocked gives the
// body back. It waits if all large bodies are in use. Called with lane.mu held.
func (l *lane) takeBodyLocked(n int) (off int64, err error) {
	if n <= laneBody && l.body != 0 {
		return l.body, nil
	}
	off, ok := <-l.j.bodies.free
	if !ok {
		return 0, fmt.Errorf("atomic writes are not possible any more: the journal's space for their data cannot be written: %w", pmem.ErrMedia)
	}
	return off, nil
}

// giveBodyLocked gives a body back. A bad body is not used again. Called with lane.mu held.
func (l *lane) giveBodyLocked(off int64, bad bool) {
	b := &l.j.bodies
	switch {
	case off == l.body && bad:
		l.body = 0 // the lane uses the large bodies from now on
	case off == l.body:
	case !bad:
		b.free <- off
	case b.good.Add(-1) == 0:
		close(b.free)
	}
}

// commitLogged is Commit of a transaction that carries file data, or more lines than a slot holds.
// When it returns, the record is cleared, for two reasons: data has no sequence by which a replay
// could tell what is newer, and the body is reused. Until then the caller's locks keep other
// threads from changing what the record holds.
//
// Persistence order:
//  1. CLWB the lines that the lane's previous transaction stored in place; NT-store the body
//     (tables and data); SFENCE
//  2. NT-store the header into the slot, SFENCE: the record is committed
//  3. store the lines in place, CLWB; NT-store the data in place; SFENCE
//  4. clear the header, CLWB, SFENCE: the record is gone
//
// If the media fail under the body, nothing has happened. If they fail under the data in place, the
// transaction has happened, except for the data that was refused (DataError).
func (t *Tx) commitLogged(seq uint64) error {
	lane, journal := t.lane, t.lane.j
	header := layout.RecordHeader{Seq: seq}
	for _, piece := range t.data {
		header.Data += uint32(len(piece.Bytes))
	}
	var err error
	if header.At, err = lane.takeBodyLocked(layout.TablesSize(t.n, len(t.data)) + int(header.Data)); err != nil {
		return err
	}
	bad := false
	defer func() { lane.giveBodyLocked(header.At, bad) }()
	if journal.Failed() {
		return ErrFailed // a committed record may still refer to the body, so it is not overwritten
	}
	slot := lane.slotOffLocked()
	rec := t.buildRecordLocked(&header)

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, off := range lane.prev {
		if err := journal.r.Flush(off, layout.LineSize); err != nil {
			return journal.mediaFailed(err)
		}
	}
	err = t.storeBody(header.At, rec[layout.LineSize:])
	journal.r.Fence()
	if err != nil {
		bad = true
		n := uint64(BodySize)
		if header.At == lane.body {
			n = laneBody
		}
		journal.hooks.FreshFailed(uint64(header.At)>>layout.BlockShift, n>>layout.BlockShift, err)
		return err
	}
	if err = journal.r.NTStore(slot, rec[:layout.LineSize]); err != nil {
		return journal.mediaFailed(err)
	}
	journal.r.Fence()
	lane.seq.Store(seq)
	lane.prev = lane.prev[:0]
	if err = t.storeLines(); err != nil {
		return journal.mediaFailed(err)
	}
	missing := t.storeData()
	journal.r.Fence()
	if err = journal.clearSlot(slot); err != nil {
		return journal.mediaFailed(err)
	}
	journal.r.Fence()
	clear(t.data) // drops the references to the caller's memory
	if missing != nil {
		return DataError{missing}
	}
	return nil
}

// storeBody stores the tables and the data to the body at region offset off: the NT-stores of step
// 1 of commitLogged.
func (t *Tx) storeBody(off int64, tables []byte) error {
	r := t.lane.j.r
	if err := r.NTStore(off, tables); err != nil {
		return err
	}
	off += int64(len(tables))
	for _, d := range t.data {
		if err := r.NTStore(off, d.Bytes); err != nil {
			return err
		}
		off += int64(len(d.Bytes))
	}
	return nil
}

// storeLines stores and flushes the lines in place: the first half of step 3 of commitLogged.
func (t *Tx) storeLines() error {
	r := t.lane.j.r
	for i := 0; i < t.n; i++ {
		if err := r.Store(t.offs[i], t.line[i][:]); err != nil {
			return err
		}
		if err := r.Flush(t.offs[i], layout.LineSize); err != nil {
			return err
		}
	}
	return nil
}

// storeData stores the data in place: the second half of step 3 of commitLogged. If the media fail,
// it continues with the next piece, and returns the first error.
func (t *Tx) storeData() (first error) {
	for _, d := range t.data {
		if err := t.lane.j.r.NTStore(d.Off, d.Bytes); err != nil && first == nil {
			first = err
		}
	}
	return first
}
