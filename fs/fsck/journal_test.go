package fsck_test

import (
	"encoding/binary"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// TestTornRecord checks that a record is not taken for committed if a later record has overwritten
// one of its lines. Its checksums are still right, since a sealed line contributes the same to the
// body's checksum whatever its content.
func TestTornRecord(t *testing.T) {
	w := build(t)
	w.Mount()
	w.OK(w.FS.SetAttr(&w.Ctx, w.ino["/f"], &fs.SetAttr{Valid: fs.SetMode, Mode: 0o600}, new(fs.Attr)))
	w.Crash()
	n := w.check(false).JournalRecords
	if n == 0 {
		t.Fatal("the journal has no record")
	}
	slot := make([]byte, w.sb.LaneSlot)
	for i := int64(0); i < 2*int64(w.sb.Lanes); i++ {
		at := w.sb.LaneOff + i*int64(w.sb.LaneSlot)
		w.R.Load(at, slot)
		var h layout.RecordHeader
		if !h.Get((*layout.Line)(slot), w.seed, at, w.sb.LaneSlot) {
			continue
		}
		body := slot[layout.LineSize:layout.RecordSize(int(h.N))]
		off := int64(binary.LittleEndian.Uint64(body))
		l := (*layout.Line)(body[layout.OffsetsSize(int(h.N)):])
		l[layout.PayloadOff+3] ^= 0x7f
		l.Seal(w.seed, off, h.Seq+2)
		if layout.Checksum(w.seed, body) != h.BodyCRC {
			t.Log("the body's checksum notices by itself")
		}
		w.Store(at+layout.LineSize, body)
		if got := w.check(false).JournalRecords; got != n-1 {
			t.Errorf("%d records with one of them torn, expected %d", got, n-1)
		}
		return
	}
}
