package fs

import (
	"encoding/binary"
	"errors"
	"runtime"
	"sort"

	"github.com/daxfs/daxfs/fs/layout"
	"github.com/daxfs/daxfs/pmem"
)

// record is a committed redo record found in a lane.
type record struct {
	layout.RecordHeader
	off    int64  // of the slot
	body   []byte // tables and lines
	pieces []layout.Piece
}

// line is the i-th line of the record and its place.
func (r *record) line(i int) (int64, *layout.Line) {
	at := layout.OffsetsSize(int(r.N)) + i*layout.LineSize
	return int64(binary.LittleEndian.Uint64(r.body[8*i:])), (*layout.Line)(r.body[at:])
}

// whole reports whether every line is valid for its place and of the record's own
// sequence. The checksum of the body does not say that: a sealed line ends in its own
// checksum by the same polynomial, so one sealed line in place of another leaves the
// body's unchanged, and a record half overwritten by the next one would pass.
func (r *record) whole(seed uint32) bool {
	for i := range int(r.N) {
		if off, l := r.line(i); l.Seq() != r.Seq || !l.Valid(seed, off) {
			return false
		}
	}
	return true
}

// recoverJournal replays what the lanes hold, and retires it. It is idempotent: a crash
// within it is repaired by running it again. No record may stay: a line of one may stand in a
// chunk that is data again, of which the crash came before the lanes were retired, and must
// not be replayed over what is written there next; nor may the data of a logged one.
//
// Persistence order:
//  1. store the lines of all committed records, in sequence order, skipping those whose
//     place holds a valid line that is as new, flush; NT-store their data, but what media
//     refuse; SFENCE
//  2. clear the records' headers, flush, SFENCE
//
// It returns the number of records and the largest sequence seen.
func (fs *FS) recoverJournal() (n int, seq uint64, err error) {
	recs, err := fs.readRecords()
	if err != nil {
		return 0, 0, err
	}
	sort.SliceStable(recs, func(i, j int) bool { return recs[i].Seq < recs[j].Seq })
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, rec := range recs {
		seq = max(seq, rec.Seq)
		for i := range int(rec.N) {
			if err := fs.replayLine(rec.line(i)); err != nil {
				return 0, 0, err
			}
		}
		for _, p := range rec.pieces {
			err := fs.r.NTStore(p.Off, fs.r.Bytes(p.From, p.Len))
			if errors.Is(err, pmem.ErrMedia) {
				// The write that it is of was never answered, or by EIO.
				fs.mediaFailed(err)
				fs.warn("a write that a crash interrupted stays unfinished: of the %d bytes of a file at region offset %d: %v", p.Len, p.Off, err)
			} else if err != nil {
				return 0, 0, err
			}
		}
	}
	if len(recs) == 0 {
		return 0, seq, nil
	}
	fs.r.Fence()
	for _, rec := range recs {
		if err := fs.clearSlot(rec.off); err != nil {
			return 0, 0, err
		}
	}
	fs.r.Fence()
	return len(recs), seq, nil
}

func (fs *FS) replayLine(off int64, l *layout.Line) error {
	if off < layout.SuperSize || off > fs.sb.Size-layout.LineSize || off%layout.LineSize != 0 {
		return corruptf("a journal record changes the line at offset %d, which is not one of this filesystem", off)
	}
	var cur layout.Line
	if err := fs.r.LoadLine(off, (*[layout.LineSize]byte)(&cur)); err != nil {
		return err
	}
	if cur.Valid(fs.seed, off) && cur.Seq() >= l.Seq() {
		// As new, but perhaps only in the cache of a machine that is about to
		// lose power again: it is flushed all the same.
		return fs.r.Flush(off, layout.LineSize)
	}
	if err := fs.r.Store(off, l[:]); err != nil {
		return err
	}
	return fs.r.Flush(off, layout.LineSize)
}

// readRecords collects the committed records of all lanes.
func (fs *FS) readRecords() ([]record, error) {
	var recs []record
	slot := int64(fs.sb.LaneSlot)
	for i := int64(0); i < 2*int64(fs.sb.Lanes); i++ {
		rec := record{off: fs.sb.LaneOff + i*slot}
		var l layout.Line
		if err := fs.r.LoadLine(rec.off, (*[layout.LineSize]byte)(&l)); err != nil {
			return nil, err
		}
		if !rec.Get(&l, fs.seed, rec.off, fs.sb.LaneSlot) {
			continue
		}
		at, ok := rec.Body(fs.sb, rec.off)
		rec.body = make([]byte, layout.TablesSize(int(rec.N), int(rec.Pieces)))
		if ok {
			if err := fs.r.Load(at, rec.body); err != nil {
				return nil, err
			}
			if layout.Checksum(fs.seed, rec.body) != rec.BodyCRC || !rec.whole(fs.seed) {
				continue
			}
			rec.pieces, ok = rec.ListPieces(fs.sb, at, rec.body)
		}
		if !ok {
			return nil, corruptf("the journal record at offset %d has data that can be none", rec.off)
		}
		recs = append(recs, rec)
	}
	return recs, nil
}
