package fs_test

import (
	"testing"

	"github.com/daxfsd/daxfsd/fs"
)

// TestReadersDrain checks that blocks punched out of a large folio become free although each of its
// readers begins before the last one ends.
func TestReadersDrain(t *testing.T) {
	v := newVolume(t, 32<<20)
	const (
		pud   = 256 << 10
		folio = 12
		piece = 8 << 10
	)
	big := v.Create("/big")
	v.Fallocate(big, 0, 0, folio*pud)
	if s := v.FS.Stats(); s.Folios1G < folio-1 {
		t.Fatalf("the file is in %d PUD folios, want %d", s.Folios1G, folio)
	}
	var s fs.StatFS
	v.FS.StatFS(&s)
	before := s.Bavail
	read := func(g int64) *fs.PinnedRead {
		r := v.FS.NewPinnedRead()
		v.OK(v.FS.Read(&v.Ctx, big, g*pud, 4096, r))
		return r
	}
	var cur [folio]*fs.PinnedRead
	for g := range cur {
		cur[g] = read(int64(g))
	}
	cut, deferred := int64(0), false
	for off := int64(piece); off < pud; off += piece {
		for g := range int64(folio) {
			v.Fallocate(big, fs.FallocPunchHole|fs.FallocKeepSize, g*pud+off, piece)
			cut += piece
			deferred = deferred || v.FS.Stats().DeferredFrees > 0
			next := read(g)
			cur[g].Done()
			cur[g].Free()
			cur[g] = next
		}
		if n := v.FS.Stats().DeferredFrees; n > 0 {
			t.Fatalf("%d of %d bytes are deferred though their readers are done", n, cut)
		}
	}
	if !deferred {
		t.Error("no folio was busy when it was cut")
	}
	v.FS.StatFS(&s)
	if got := int64(s.Bavail-before) << 12; got < cut-(64<<10) { // extent blocks take the rest
		t.Errorf("%d bytes came free of %d that were punched", got, cut)
	}
	next := v.Create("/next")
	v.Fallocate(next, 0, 0, int64(s.Bavail)<<12-(64<<10))
	for _, r := range cur {
		r.Done()
		r.Free()
	}
	v.Remount()
}
