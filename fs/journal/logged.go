package journal

import (
	"fmt"
	"runtime"
	"sync/atomic"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// The bodies of logged records, in bytes: BodySize for the largest one, laneBody for those that
// each lane has a place of its own for.
const (
	BodySize = (layout.LoggedData + layout.LoggedMax*(layout.LineSize+8+16) + 3*layout.LineSize + layout.BlockSize - 1) &^ (layout.BlockSize - 1)
	laneBody = 2 * layout.BlockSize
)

// bodies are where the bodies of logged records are put together.
type bodies struct {
	free chan int64   // region offsets of large ones that nobody uses; closed when none is usable any more
	good atomic.Int32 // large ones that are usable
}

// DataError is the error of a transaction that has happened, while media did not take all of the
// file data that it carried.
type DataError struct{ error }

// Unwrap is the error of the media.
func (e DataError) Unwrap() error { return e.error }

// Happened reports whether the transaction whose Commit returned err has happened.
func Happened(err error) bool {
	if err == nil {
		return true
	}
	_, ok := err.(DataError)
	return ok
}

// LaneBodies is the size in bytes of the small bodies of all lanes.
func (j *Journal) LaneBodies() int64 { return int64(len(j.lanes)) * laneBody }

// UseBodies gives the journal space for the bodies of logged records: LaneBodies bytes at region
// offset lanes (0: none), and BodySize bytes at each of large. Called once, before the first
// transaction that is logged; the space is the journal's until its last transaction has ended.
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

// takeBodyLocked returns a place for a body of n bytes, which giveBody takes back. Called with the
// lane held.
func (l *lane) takeBodyLocked(n int) (off int64, err error) {
	if n <= laneBody && l.body != 0 {
		return l.body, nil
	}
	off, ok := <-l.j.bodies.free
	if !ok {
		return 0, fmt.Errorf("no place for the data of a write that is all or nothing is left that can be written: %w", pmem.ErrMedia)
	}
	return off, nil
}

// giveBodyLocked ends the use of a place. A bad one is not used again. Called with the lane held.
func (l *lane) giveBodyLocked(off int64, bad bool) {
	b := &l.j.bodies
	switch {
	case off == l.body && bad:
		l.body = 0 // the lane uses the large ones from now on
	case off == l.body:
	case !bad:
		b.free <- off
	case b.good.Add(-1) == 0:
		close(b.free)
	}
}

// commitLogged is Commit of a transaction that carries file data, or more lines than a slot holds.
// When it returns the record is forgotten: data has no sequence by which a replay would know what
// is newer, and the body's place is used again. Until then the caller's locks keep others from what
// the record holds.
//
// Persistence order:
//  1. CLWB the lines the lane's previous transaction stored in place; NT-store the body,
//     tables and data; SFENCE
//  2. NT-store the header into the slot, SFENCE: the record is committed
//  3. store the lines in place, CLWB; NT-store the data in place; SFENCE
//  4. clear the header, CLWB, SFENCE: the record is forgotten
//
// If media fail under the body nothing has happened. If they fail under the data the transaction
// has happened, but for that (DataError).
func (t *Tx) commitLogged(seq uint64) error {
	l, j := t.lane, t.lane.j
	h := layout.RecordHeader{Seq: seq}
	for _, d := range t.data {
		h.Data += uint32(len(d.Bytes))
	}
	var err error
	if h.At, err = l.takeBodyLocked(layout.TablesSize(t.n, len(t.data)) + int(h.Data)); err != nil {
		return err
	}
	bad := false
	defer func() { l.giveBodyLocked(h.At, bad) }()
	if j.Failed() {
		return ErrFailed // a record whose body is there may still be committed
	}
	slot := l.slotOffLocked()
	rec := t.buildRecord(&h)

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, off := range l.prev {
		if err := j.r.Flush(off, layout.LineSize); err != nil {
			return j.mediaFailed(err)
		}
	}
	err = t.storeBody(h.At, rec[layout.LineSize:])
	j.r.Fence()
	if err != nil {
		bad = true
		n := uint64(BodySize)
		if h.At == l.body {
			n = laneBody
		}
		j.hooks.FreshFailed(uint64(h.At)>>layout.BlockShift, n>>layout.BlockShift, err)
		return err
	}
	if err = j.r.NTStore(slot, rec[:layout.LineSize]); err != nil {
		return j.mediaFailed(err)
	}
	j.r.Fence()
	l.seq.Store(seq)
	l.prev = l.prev[:0]
	if err = t.storeLines(); err != nil {
		return j.mediaFailed(err)
	}
	missing := t.storeData()
	j.r.Fence()
	if err = j.clearSlot(slot); err != nil {
		return j.mediaFailed(err)
	}
	j.r.Fence()
	clear(t.data) // the caller's
	if missing != nil {
		return DataError{missing}
	}
	return nil
}

// storeBody is step 1 of commitLogged, but for the lines.
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

// storeLines is the first half of step 3.
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

// storeData is the second half. Where media fail it goes on, and returns the first error.
func (t *Tx) storeData() (first error) {
	for _, d := range t.data {
		if err := t.lane.j.r.NTStore(d.Off, d.Bytes); err != nil && first == nil {
			first = err
		}
	}
	return first
}
