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

// complete reports whether every line has a right checksum for its place, and the record's own
// sequence. The checksum of the body does not say that: a sealed line ends in its own checksum by
// the same polynomial, so one sealed line in place of another leaves the body's unchanged, and a
// record half overwritten by the next one would pass.
func (rec *record) complete(seed uint32) bool {
	for i := range int(rec.N) {
		if off, l := rec.Line(i); l.Seq() != rec.Seq || !l.Valid(seed, off) {
			return false
		}
	}
	return true
}

// Pending is the number of committed records that Recover would replay.
func (j *Journal) Pending() (int, error) {
	recs, err := j.readRecords()
	return len(recs), err
}

// Recover replays what the lanes hold, and empties them. It is idempotent: a crash within it is
// repaired by running it again. No record may stay. A line of one may lie in a chunk that is data
// again, if a crash came before the lanes were emptied, and must not be replayed over what is
// written there next; nor may the data of a logged one.
//
// Persistence order:
//  1. store the lines of all committed records, in sequence order, skipping those whose
//     place holds a valid line that is as new, flush; NT-store their data, but what media
//     refuse; SFENCE
//  2. clear the records' headers, flush, SFENCE
//
// It returns the number of records and the largest sequence seen.
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
				// Its write was never answered, or by EIO.
				j.hooks.MediaFailed(err)
				j.hooks.Warn("a write that a crash interrupted stays unfinished: of the %d bytes of a file at region offset %d: %v", p.Len, p.Off, err)
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

// replayLine stores and flushes a line of a record, unless its place at region offset off holds one
// that is as new.
func (j *Journal) replayLine(off int64, l *layout.Line) error {
	if off < layout.SuperSize || off > j.sb.Size-layout.LineSize || off%layout.LineSize != 0 {
		return layout.Damagedf("a journal record changes the line at offset %d, which is not one of this filesystem", off)
	}
	var cur layout.Line
	if err := j.r.LoadLine(off, (*[layout.LineSize]byte)(&cur)); err != nil {
		return err
	}
	if cur.Valid(j.seed, off) && cur.Seq() >= l.Seq() {
		// As new, but perhaps only in the cache of a machine that is about to
		// lose power again: it is flushed all the same.
		return j.r.Flush(off, layout.LineSize)
	}
	if err := j.r.Store(off, l[:]); err != nil {
		return err
	}
	return j.r.Flush(off, layout.LineSize)
}

// readRecords collects the committed records of all lanes. A torn one was never committed, or is
// being overwritten.
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
