package journal

import (
	"errors"
	"runtime"
	"sort"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// record is a committed redo record found in a lane.
type record struct {
	layout.RecordHeader
	layout.RecordTables
	off    int64 // region offset of the slot
	pieces []layout.Piece
}

// complete reports whether every line has a matching checksum for its place, and the record's own
// sequence. The checksum of the body does not imply this. A sealed line ends in its own checksum by
// the same polynomial, so replacing one sealed line by another leaves the checksum of the body
// unchanged. A record half overwritten by the next one would pass.
func (rec *record) complete(seed uint32) bool {
	for i := range int(rec.N) {
		if off, l := rec.Line(i); l.Seq() != rec.Seq || !l.Valid(seed, off) {
			return false
		}
	}
	return true
}

// Pending returns the number of committed records that Recover would replay.
func (j *Journal) Pending() (int, error) {
	recs, err := j.readRecords()
	return len(recs), err
}

// Recover replays the records in the lanes, and clears them. It is idempotent: if it is interrupted
// by a crash, the next Recover completes it. Recover must clear all records. If a crash came before
// a checkpoint had cleared the lanes, a line of a record may be in a chunk that is data again. It
// must not be replayed over data that is written there later. The same holds for the data of a
// logged record.
//
// Persistence order:
//  1. store the lines of all committed records, in sequence order, except those whose place holds
//     a valid line of the same or a higher sequence; flush; NT-store their data, except what the
//     media refuse; SFENCE
//  2. clear the records' headers, flush, SFENCE
//
// It returns the number of records and the largest sequence in them.
func (j *Journal) Recover() (n int, seq uint64, err error) {
	recs, err := j.readRecords()
	if err != nil {
		return 0, 0, err
	}
	sort.SliceStable(recs, func(a, b int) bool { return recs[a].Seq < recs[b].Seq })
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, rec := range recs {
		seq = max(seq, rec.Seq)
		for i := range int(rec.N) {
			if err := j.replayLine(rec.Line(i)); err != nil {
				return 0, 0, err
			}
		}
		for _, p := range rec.pieces {
			err := j.r.NTStore(p.Off, j.r.Bytes(p.From, p.Len))
			if errors.Is(err, pmem.ErrMedia) {
				// Its write was not answered before the crash, or was answered by EIO.
				j.hooks.MediaFailed(err)
				j.hooks.Warn("a write that a crash interrupted cannot be completed: %d bytes of file data at region offset %d: %v", p.Len, p.Off, err)
			} else if err != nil {
				return 0, 0, err
			}
		}
	}
	if len(recs) == 0 {
		return 0, seq, nil
	}
	j.r.Fence()
	for _, rec := range recs {
		if err := j.clearSlot(rec.off); err != nil {
			return 0, 0, err
		}
	}
	j.r.Fence()
	return len(recs), seq, nil
}

// replayLine stores and flushes a line of a record at region offset off, unless that place holds a
// line of the same or a higher sequence. Then it only flushes.
func (j *Journal) replayLine(off int64, l *layout.Line) error {
	if off < layout.SuperSize || off > j.sb.Size-layout.LineSize || off%layout.LineSize != 0 {
		return layout.Damagedf("a journal record changes a line at offset %d, which is misaligned or outside the filesystem", off)
	}
	var cur layout.Line
	if err := j.r.LoadLine(off, (*[layout.LineSize]byte)(&cur)); err != nil {
		return err
	}
	if cur.Valid(j.seed, off) && cur.Seq() >= l.Seq() {
		// The line may be only in the cache of a machine that is about to lose power again, so it
		// is flushed all the same.
		return j.r.Flush(off, layout.LineSize)
	}
	if err := j.r.Store(off, l[:]); err != nil {
		return err
	}
	return j.r.Flush(off, layout.LineSize)
}

// readRecords returns the committed records of all lanes. It skips torn records: they were never
// committed, or were being overwritten.
func (j *Journal) readRecords() ([]record, error) {
	var recs []record
	slot := int64(j.sb.LaneSlot)
	for i := int64(0); i < 2*int64(j.sb.Lanes); i++ {
		rec := record{off: j.sb.LaneOff + i*slot}
		var l layout.Line
		if err := j.r.LoadLine(rec.off, (*[layout.LineSize]byte)(&l)); err != nil {
			return nil, err
		}
		if !rec.Get(&l, j.seed, rec.off, j.sb.LaneSlot) {
			continue
		}
		at, ok := rec.Body(j.sb, rec.off)
		body := make([]byte, layout.TablesSize(int(rec.N), int(rec.Pieces)))
		if ok {
			if err := j.r.Load(at, body); err != nil {
				return nil, err
			}
			rec.RecordTables = rec.Tables(body)
			if layout.Checksum(j.seed, body) != rec.BodyCRC || !rec.complete(j.seed) {
				continue
			}
			rec.pieces, ok = rec.ListPieces(j.sb, at, body)
		}
		if !ok {
			return nil, layout.Damagedf("the journal record at offset %d has its data where no file's data can be", rec.off)
		}
		recs = append(recs, rec)
	}
	return recs, nil
}
