package fs_test

import (
	"bytes"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
)

const (
	pmdBytes = 32 << 10 // orders of fstest.Small
	pudBytes = 256 << 10
)

// TestFolioOrders checks that large writes make large folios, that small appends are collapsed into
// them, and that a remount finds them again.
func TestFolioOrders(t *testing.T) {
	v := newVolume(t, 64<<20)
	large, small := v.Create("/large"), v.Create("/small")
	v.Write(large, 0, make([]byte, pudBytes))
	if s := v.FS.Stats(); s.Folios1G != 1 || s.Folios2M != 0 {
		t.Errorf("after a large write: %d and %d folios", s.Folios1G, s.Folios2M)
	}
	for off := int64(0); off < 2*pmdBytes; off += 1000 {
		v.Write(small, off, make([]byte, 1000))
	}
	appended := v.FS.Stats()
	if appended.Folios1G != 1 || appended.Folios2M == 0 {
		t.Errorf("after small appends: %d and %d folios", appended.Folios1G, appended.Folios2M)
	}
	v.Remount()
	if s := v.FS.Stats(); s.Folios1G != 1 || s.Folios2M != appended.Folios2M {
		t.Errorf("after a remount: %d and %d folios, were 1 and %d", s.Folios1G, s.Folios2M, appended.Folios2M)
	}
	v.RemoveAll(1)
	if s := v.FS.Stats(); s.Folios1G != 0 || s.Folios2M != 0 {
		t.Errorf("with everything deleted: %+v", s)
	}
}

// TestDeferredFree checks that a punch and a truncation in a folio that a pinned read references
// take effect at once, and that the blocks become free when the read is done.
func TestDeferredFree(t *testing.T) {
	v := newVolume(t, 64<<20)
	ino := v.Create("/f")
	data := bytes.Repeat([]byte{7}, pudBytes)
	v.Write(ino, 0, data)
	if s := v.FS.Stats(); s.Folios1G != 1 {
		t.Fatalf("no large folio: %+v", s)
	}
	free := v.Free()
	r := v.FS.NewPinnedRead()
	v.OK(v.FS.Read(&v.Ctx, ino, 0, 100, r))
	v.Fallocate(ino, fs.FallocPunchHole|fs.FallocKeepSize, 2*pmdBytes+4096, 8192)
	v.Truncate(ino, 4*pmdBytes+4096)
	clear(data[2*pmdBytes+4096:][:8192])
	if got := v.Read(ino, 0, pudBytes); !bytes.Equal(got, data[:4*pmdBytes+4096]) {
		t.Error("the file is not what it should be while the read is pinned")
	}
	cut := uint64(pudBytes-4*pmdBytes-4096+8192) / 4096
	if s := v.FS.Stats(); s.DeferredFrees != cut*4096 || v.Free() != free {
		t.Errorf("%d bytes deferred, expected %d; %d blocks free, were %d", s.DeferredFrees, cut*4096, v.Free(), free)
	}
	if b := r.Slices()[0]; b[99] != 7 {
		t.Error("the pinned read has changed")
	}
	r.Done()
	r.Free()
	if s := v.FS.Stats(); s.DeferredFrees != 0 || s.Folios1G != 0 || s.Folios2M != 3 {
		t.Errorf("%d bytes deferred, folios %d and %d, expected 0, 0 and 3", s.DeferredFrees, s.Folios1G, s.Folios2M)
	}
	if now := v.Free(); now < free+cut-2 || now > free+cut { // up to two blocks are slots
		t.Errorf("%d blocks are free, expected %d", now, free+cut)
	}
	v.checked()
	if got := v.Read(ino, 0, pudBytes); !bytes.Equal(got, data[:4*pmdBytes+4096]) {
		t.Error("the file is not what it should be after a remount")
	}
}
