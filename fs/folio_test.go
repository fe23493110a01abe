package fs_test

import (
	"bytes"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
)

const (
	pmdBytes = 32 << 10 // of newVolume
	pudBytes = 256 << 10
)

// TestFolioOrders: large writes make large folios, small appends are promoted to them, and
// a remount finds them again.
func TestFolioOrders(t *testing.T) {
	v := newVolume(t, 64<<20)
	large, small := v.create(1, "large"), v.create(1, "small")
	v.write(large, 0, make([]byte, pudBytes))
	if s := v.fs.Stats(); s.Folios1G != 1 || s.Folios2M != 0 {
		t.Errorf("after a large write: %d and %d folios", s.Folios1G, s.Folios2M)
	}
	for off := int64(0); off < 2*pmdBytes; off += 1000 {
		v.write(small, off, make([]byte, 1000))
	}
	appended := v.fs.Stats()
	if appended.Folios1G != 1 || appended.Folios2M == 0 {
		t.Errorf("after small appends: %d and %d folios", appended.Folios1G, appended.Folios2M)
	}
	v.remount()
	if s := v.fs.Stats(); s.Folios1G != 1 || s.Folios2M != appended.Folios2M {
		t.Errorf("after a remount: %d and %d folios, were 1 and %d", s.Folios1G, s.Folios2M, appended.Folios2M)
	}
	v.removeAll(1)
	if s := v.fs.Stats(); s.Folios1G != 0 || s.Folios2M != 0 {
		t.Errorf("with everything deleted: %+v", s)
	}
}

// TestDeferredFree: a punch and a truncation in a folio that a reply holds take effect at
// once, and the blocks are free when the reply is done.
func TestDeferredFree(t *testing.T) {
	v := newVolume(t, 64<<20)
	ino := v.create(1, "f")
	data := bytes.Repeat([]byte{7}, pudBytes)
	v.write(ino, 0, data)
	if s := v.fs.Stats(); s.Folios1G != 1 {
		t.Fatalf("no large folio: %+v", s)
	}
	free := v.free()
	r := v.fs.NewPinnedRead()
	v.ok(v.fs.Read(&v.ctx, ino, 0, 100, r))
	v.ok(v.fs.Fallocate(&v.ctx, ino, fs.FallocPunchHole|fs.FallocKeepSize, 2*pmdBytes+4096, 8192))
	v.ok(v.fs.SetAttr(&v.ctx, ino, &fs.SetAttr{Valid: fs.SetSize, Size: 4*pmdBytes + 4096}, new(fs.Attr)))
	clear(data[2*pmdBytes+4096:][:8192])
	if got := v.read(ino, 0, pudBytes); !bytes.Equal(got, data[:4*pmdBytes+4096]) {
		t.Error("the file is not what it should be while the reply is held")
	}
	cut := uint64(pudBytes-4*pmdBytes-4096+8192) / 4096
	if s := v.fs.Stats(); s.DeferredFrees != cut*4096 || v.free() != free {
		t.Errorf("%d bytes deferred, expected %d; %d blocks free, were %d", s.DeferredFrees, cut*4096, v.free(), free)
	}
	if b := r.Slices()[0]; b[99] != 7 {
		t.Error("the reply has changed")
	}
	r.Done()
	r.Free()
	if s := v.fs.Stats(); s.DeferredFrees != 0 || s.Folios1G != 0 || s.Folios2M != 3 {
		t.Errorf("%d bytes deferred, folios %d and %d, expected 0, 0 and 3", s.DeferredFrees, s.Folios1G, s.Folios2M)
	}
	if now := v.free(); now < free+cut-2 || now > free+cut { // and slots
		t.Errorf("%d blocks are free, expected %d", now, free+cut)
	}
	v.checked()
	if got := v.read(ino, 0, pudBytes); !bytes.Equal(got, data[:4*pmdBytes+4096]) {
		t.Error("the file is not what it should be after a remount")
	}
}
