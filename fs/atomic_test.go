package fs_test

import (
	"bytes"
	"math/rand"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// newAtomicVolume returns a volume like newVolume's, mounted with Options.Atomic.
func newAtomicVolume(t testing.TB, size int64) *volume {
	t.Helper()
	v := newVolume(t, size)
	v.Options.Atomic = true
	v.Remount()
	return v
}

// TestAtomicFolios checks that overwrites of any size neither split nor move a large folio, take no
// space, and survive the daemon's death.
func TestAtomicFolios(t *testing.T) {
	v := newAtomicVolume(t, 64<<20)
	ino := v.Create("/f")
	want := randomBytes(1, 2*pudBytes+3*pmdBytes+5000)
	v.Write(ino, 0, want)
	was, extents, free := v.FS.Stats(), v.Extents(ino), v.Free()
	if was.Folios1G != 2 || was.Folios2M < 3 {
		t.Fatalf("folios %d and %d", was.Folios1G, was.Folios2M)
	}
	rnd := rand.New(rand.NewSource(1))
	for i := range 1000 {
		off := rnd.Intn(len(want))
		b := randomBytes(int64(i), 1+rnd.Intn(min(len(want)-off, []int{7, 4096, 100_000}[i%3])))
		copy(want[off:], b)
		v.Write(ino, int64(off), b)
	}
	now := v.FS.Stats()
	if now.Folios1G != was.Folios1G || now.Folios2M != was.Folios2M || now.Folios4K != was.Folios4K || v.Free() != free {
		t.Errorf("folios %d, %d and %d, were %d, %d and %d; %d blocks free, were %d",
			now.Folios1G, now.Folios2M, now.Folios4K, was.Folios1G, was.Folios2M, was.Folios4K, v.Free(), free)
	}
	if es := v.Extents(ino); len(es) != len(extents) || es[0] != extents[0] {
		t.Errorf("extents %v, were %v", es, extents)
	}
	v.Crash()
	v.Options.Atomic = false
	v.Mount()
	if !bytes.Equal(v.Read(ino, 0, len(want)+1), want) {
		t.Error("wrong content after the daemon's death")
	}
	if now := v.FS.Stats(); now.Folios1G != was.Folios1G || now.Folios2M != was.Folios2M {
		t.Errorf("folios %d and %d after a mount", now.Folios1G, now.Folios2M)
	}
}

// TestAtomicOneRecord checks that the largest write, over as many extents as it can touch, is one
// record. The record has more lines than a slot holds.
func TestAtomicOneRecord(t *testing.T) {
	v := newAtomicVolume(t, 64<<20)
	ino := v.Create("/f")
	want := make([]byte, 256*4096+50)
	for i := int64(0); i < 257; i += 2 {
		if i%4 == 0 {
			v.Fallocate(ino, fs.FallocKeepSize, i*4096, 4096)
			continue
		}
		b := randomBytes(i, 3000)
		copy(want[i*4096:], b)
		v.Write(ino, i*4096, b)
	}
	rec := &headers{sb: v.Super()}
	v.R.SetRecorder(rec)
	b := randomBytes(1, fs.AtomicUnit)
	copy(want[50:], b)
	v.Write(ino, 50, b)
	v.R.SetRecorder(nil)
	if len(rec.logged) != 1 || rec.logged[0].N <= uint32(layout.MaxRecordLines(v.Super().LaneSlot)) || rec.logged[0].Pieces < 64 {
		t.Errorf("logged records %+v, expected one of more lines", rec.logged)
	}
	v.Crash()
	v.Mount()
	if !bytes.Equal(v.Read(ino, 0, len(want)+1), want) {
		t.Error("wrong content")
	}
}

// headers collects the headers of logged records.
type headers struct {
	sb     *layout.Superblock
	logged []layout.RecordHeader
}

func (h *headers) Begin(int)                {}
func (h *headers) Store(int, int64, []byte) {}
func (h *headers) Flush(int, int64, int64)  {}
func (h *headers) Fence(int)                {}
func (h *headers) NTStore(_ int, off int64, b []byte) {
	var r layout.RecordHeader
	if len(b) == layout.LineSize && r.Get((*layout.Line)(b), layout.Seed(h.sb.UUID), off, h.sb.LaneSlot) && r.Logged() {
		h.logged = append(h.logged, r)
	}
}

// TestAtomicNoSpace checks that a write that finds no space changes nothing, and that one that
// needs no space succeeds on a full filesystem.
func TestAtomicNoSpace(t *testing.T) {
	v := newAtomicVolume(t, fs.MinSize)
	ino, fill := v.Create("/f"), v.Create("/fill")
	want := make([]byte, 600_000)
	for _, off := range []int{0, 50_000, 300_000} {
		b := randomBytes(int64(off), 40_000)
		copy(want[off:], b)
		v.Write(ino, int64(off), b)
	}
	v.Truncate(ino, uint64(len(want)))
	off, refused := int64(0), 0
	for n := fs.AtomicUnit; n > 0; {
		before := v.Free()
		m, e := v.FS.Write(&v.Ctx, fill, off, randomBytes(off, n))
		switch {
		case e == syscall.ENOSPC && m == 0:
			if v.Free()+3 < before { // three blocks may be extent blocks
				t.Fatalf("a refused write took %d blocks", before-v.Free())
			}
			refused++
			n /= 2
		case e != 0 || m != n:
			t.Fatalf("%d of %d bytes: %v", m, n, e)
		}
		off += int64(m)
	}
	if refused < 10 {
		t.Fatalf("%d writes refused", refused)
	}
	if n, e := v.FS.Write(&v.Ctx, ino, 10_000, randomBytes(1, 500_000)); n != 0 || e != syscall.ENOSPC {
		t.Errorf("wrote %d bytes, %v", n, e)
	}
	if !bytes.Equal(v.Read(ino, 0, len(want)+1), want) {
		t.Error("a refused write changed the file")
	}
	b := randomBytes(2, 40_000)
	copy(want[50_000:], b)
	v.Write(ino, 50_000, b)
	v.checked()
	if !bytes.Equal(v.Read(ino, 0, len(want)+1), want) {
		t.Error("wrong content")
	}
	if got := v.Read(fill, 0, int(off)+1); int64(len(got)) != off {
		t.Errorf("%d bytes, %d were written", len(got), off)
	}
}

// TestAtomicAtOnce overwrites adjacent pieces of one file in parallel, at borders inside words.
// Readers must see each write whole or not at all.
func TestAtomicAtOnce(t *testing.T) {
	v := newAtomicVolume(t, 64<<20)
	ino := v.Create("/f")
	const writers, size = 4, 20_011 // each writer has its own piece
	v.Write(ino, 0, make([]byte, writers*size))
	rounds := 300
	if testing.Short() {
		rounds = 60
	}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			ctx := fs.Caller{Lane: uint32(w)}
			for i := range rounds {
				b := bytes.Repeat([]byte{byte(i)}, size)
				if n, e := v.FS.Write(&ctx, ino, int64(w*size), b); e != 0 || n != size {
					t.Errorf("%d bytes, %v", n, e)
				}
				r := v.FS.NewPinnedRead()
				other := (w + i) % writers
				if e := v.FS.Read(&ctx, ino, int64(other*size), size, r); e != 0 {
					t.Error(e)
				}
				got := bytes.Join(r.Slices(), nil)
				if bytes.Count(got, got[:1]) != size {
					t.Error("a read sees a part of a write")
				}
				r.Done()
				r.Free()
			}
		}()
	}
	wg.Wait()
	if got := v.Read(ino, 0, writers*size); bytes.Count(got, []byte{byte(rounds - 1)}) != writers*size {
		t.Error("not everything is there")
	}
}

// TestAtomicRefused checks that a mount which cannot write atomically is refused with the reason.
func TestAtomicRefused(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	fill := v.Create("/fill")
	for n, off := int64(fs.AtomicUnit), int64(0); n >= 4096; {
		if v.FS.Fallocate(&v.Ctx, fill, 0, off, n) != 0 {
			n /= 2
			continue
		}
		off += n
	}
	refuse := func(want string) {
		t.Helper()
		v.Unmount()
		if _, err := fs.Mount(v.R, fs.Options{Atomic: true}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("mounted, or not said why: %v", err)
		}
		v.Mount()
		if s := v.FS.Stats(); s.AtomicWrite != 8 {
			t.Errorf("%d bytes are all or nothing", s.AtomicWrite)
		}
	}
	refuse("free space")
	sb := *v.Super()
	sb.Incompat &^= layout.IncompatLogged
	for _, off := range []int64{0, sb.BackupOff} {
		if err := v.R.NTStore(off, sb.Encode()); err != nil {
			t.Fatal(err)
		}
	}
	refuse("make it anew")
}

// TestAtomicAllocates checks that atomic writes allocate nothing.
func TestAtomicAllocates(t *testing.T) {
	v := newAtomicVolume(t, 64<<20)
	ino := v.Create("/f")
	data := make([]byte, 100_000)
	v.Write(ino, 0, data)
	for _, n := range []int{1, 4096, len(data)} {
		if a := testing.AllocsPerRun(100, func() { v.FS.Write(&v.Ctx, ino, 0, data[:n]) }); a != 0 {
			t.Errorf("an overwrite of %d bytes allocates %v times", n, a)
		}
	}
}

// logged returns a region with a committed record that is not cleared, and whose data is not in
// place.
func logged(t *testing.T) (v *volume, ino uint64, want []byte, slot int64) {
	v = newAtomicVolume(t, fs.MinSize)
	ino = v.Create("/f")
	want = randomBytes(1, 100_000)
	v.Write(ino, 0, want)
	at := int64(v.Extents(ino)[0].Block) * 4096
	old := append([]byte(nil), v.R.Bytes(at, int64(len(want)))...)
	rec := &headers{sb: v.Super()}
	v.R.SetRecorder(rec)
	copy(want[5001:], randomBytes(2, 50_000))
	v.Write(ino, 5001, want[5001:55_001])
	v.R.SetRecorder(nil)
	v.Crash()
	slot = -1
	for i := int64(0); i < 2*int64(rec.sb.Lanes); i++ {
		off := rec.sb.LaneOff + i*int64(rec.sb.LaneSlot)
		var l layout.Line
		var h layout.RecordHeader
		rec.logged[0].Put(&l, layout.Seed(rec.sb.UUID), off)
		if slot < 0 && !h.Get((*layout.Line)(v.R.Bytes(off, layout.LineSize)), layout.Seed(rec.sb.UUID), off, rec.sb.LaneSlot) {
			slot = off
			put(t, v.R, off, l[:])
		}
	}
	put(t, v.R, at, old)
	return v, ino, want, slot
}

func put(t *testing.T, r *pmem.Region, off int64, b []byte) {
	t.Helper()
	if err := r.NTStore(off, b); err != nil {
		t.Fatal(err)
	}
}

// TestAtomicReplay checks that mount and fsck -y apply a committed record and then clear it.
func TestAtomicReplay(t *testing.T) {
	for _, repair := range []bool{false, true} {
		v, ino, want, slot := logged(t)
		rep, err := fsck.Check(v.R, fsck.Options{Repair: repair})
		if err != nil || len(rep.Problems) != 0 || rep.JournalRecords == 0 {
			t.Fatalf("fsck: %v, %+v", err, rep)
		}
		v.Mount()
		if n := v.FS.Stats().ReplayedRecords; repair != (n == 0) {
			t.Errorf("mount replayed %d records", n)
		}
		if !bytes.Equal(v.R.Bytes(slot, layout.LineSize), make([]byte, layout.LineSize)) {
			t.Error("the record is still there")
		}
		if !bytes.Equal(v.Read(ino, 0, len(want)+1), want) {
			t.Error("wrong content")
		}
	}
}

// TestAtomicBadRecord checks that mount refuses, and fsck reports, a record whose data or body has
// an impossible place.
func TestAtomicBadRecord(t *testing.T) {
	for name, spoil := range map[string]func(h *layout.RecordHeader, tables []byte){
		"body in the fixed area":    func(h *layout.RecordHeader, _ []byte) { h.At = 4096 },
		"body that is not aligned":  func(h *layout.RecordHeader, _ []byte) { h.At += 8 },
		"body beyond the end":       func(h *layout.RecordHeader, _ []byte) { h.At = fs.MinSize - 4096 },
		"data beyond the end":       func(_ *layout.RecordHeader, tables []byte) { tables[7] = 0x7f },
		"a piece of negative size":  func(_ *layout.RecordHeader, tables []byte) { tables[15] = 0xff },
		"more data than its pieces": func(h *layout.RecordHeader, _ []byte) { h.Data++ },
	} {
		v, _, _, slot := logged(t)
		sb, _, err := fs.ReadSuper(v.R)
		if err != nil {
			t.Fatal(err)
		}
		seed := layout.Seed(sb.UUID)
		var l layout.Line
		var h layout.RecordHeader
		copy(l[:], v.R.Bytes(slot, layout.LineSize))
		if !h.Get(&l, seed, slot, sb.LaneSlot) || h.N != 0 {
			t.Fatalf("%+v", h)
		}
		at := h.At
		tables := append([]byte(nil), v.R.Bytes(at, int64(layout.TablesSize(0, int(h.Pieces))))...)
		spoil(&h, tables)
		h.BodyCRC = layout.Checksum(seed, tables)
		h.Put(&l, seed, slot)
		put(t, v.R, slot, l[:])
		put(t, v.R, at, tables)
		rep, err := fsck.Check(v.R, fsck.Options{})
		if err != nil || len(rep.Problems) != 1 || rep.Problems[0].Code != fsck.JournalData {
			t.Errorf("%s: %v, %+v", name, err, rep)
		}
		if _, err := fsck.Check(v.R, fsck.Options{Repair: true}); err == nil {
			t.Errorf("%s: repaired", name)
		}
		if _, err := fs.Mount(v.R, fs.Options{}); err == nil || !strings.Contains(err.Error(), "where no file's data can be") {
			t.Errorf("%s: mount: %v", name, err)
		}
	}
}
