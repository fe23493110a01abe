package fs_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/lease"
	"github.com/daxfsd/daxfsd/pmem"
)

// TestPromoteBad checks that a promotion passes over bad memory, of the file and of the place where
// it could go, and that a grant is made of what can be read.
func TestPromoteBad(t *testing.T) {
	d := newDevVolume(t, 32<<20)
	d.Options.Direct, d.Options.Locks = fs.DirectWrite, new(lease.Fake)
	d.Mount()
	v := &granting{volume: d.volume, locks: d.Options.Locks.(*lease.Fake)}
	const size = 2 * pudBytes
	ino, _, data := v.scattered("/f", size, 11)
	var bad int64 // the region's block of file block 20
	for _, e := range v.Extents(ino) {
		if e.Logical <= 20 && 20 < e.Logical+e.Len {
			bad = at(e, 20-e.Logical)
		}
	}
	v.Unmount()
	free := v.Super().BackupOff &^ (pudBytes - 1) // a block in the last whole PUD block
	d.poison(pmem.Range{Off: bad, Len: 512}, pmem.Range{Off: free - pudBytes, Len: 512})
	v.Mount()
	v.FS.SpendMoves()
	g := v.ask(ino, fs.GrantQuery{PageSize: pudBytes})
	if g.Hi != 20 {
		t.Errorf("the grant goes to block %d, expected the bad one, 20", g.Hi)
	}
	if pmds, puds := v.collapsed(ino, pmdBlocks), v.collapsed(ino, pudBlocks); pmds != 2*8-1 || puds != 1 {
		t.Errorf("%d PMD and %d PUD ranges are collapsed, expected 15 and 1: %v", pmds, puds, v.Extents(ino))
	}
	for b := range size / 4096 {
		if b == 20 {
			continue
		}
		if got, e := v.Take(ino, int64(b)*4096, 4096); e != 0 || !bytes.Equal(got, data[b*4096:][:4096]) {
			t.Errorf("block %d: %v, or it has changed", b, e)
		}
	}
	v.Unmount()
	v.lost("/f 81920+4096")
}

// TestPromoteWaits checks that a promotion waits for a reader in its range, and for no reader of
// another range, and that a caller which gives up ends it.
func TestPromoteWaits(t *testing.T) {
	v := newGranting(t, 32<<20)
	ino, _, data := v.scattered("/f", 2*pudBytes, 12)
	r := v.FS.NewPinnedRead()
	v.OK(v.FS.Read(&v.Ctx, ino, 5*4096, 4096, r))
	ask := func(lo, hi uint64) chan struct{} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _, e := v.FS.Direct().Grant(&fs.Caller{Lane: 1}, ino, &fs.GrantQuery{Lo: lo, Hi: hi, Most: 1000, Handle: lo + 1, PageSize: pmdBytes})
			if e != 0 {
				t.Error(e)
			}
			v.FS.Direct().CloseHandle(lo + 1)
		}()
		return done
	}
	wait := func(what string, done chan struct{}) {
		t.Helper()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s has not ended", what)
		}
	}
	wait("a promotion of another range", ask(pudBlocks, 2*pudBlocks))
	first := ask(0, pudBlocks)
	select {
	case <-first:
		t.Error("blocks were moved under a reader")
	case <-time.After(50 * time.Millisecond):
	}
	// Another one waits for its turn, until its caller gives up.
	cancel, gone := make(chan struct{}), make(chan struct{})
	other, _, _ := v.scattered("/g", pudBytes, 13)
	go func() {
		defer close(gone)
		v.FS.Direct().Grant(&fs.Caller{Lane: 2, Cancel: cancel}, other, &fs.GrantQuery{Lo: 0, Hi: pudBlocks, Most: 1000, PageSize: pmdBytes})
	}()
	time.Sleep(5 * time.Millisecond) // longer or not: it waits or has not begun
	close(cancel)
	wait("a promotion that was given up", gone)
	if !bytes.Equal(r.Slices()[0], data[5*4096:6*4096]) {
		t.Error("the pinned read has changed")
	}
	r.Done()
	r.Free()
	wait("the promotion", first)
	if n := v.collapsed(ino, pmdBlocks); n != 2*8 {
		t.Errorf("%d PMD ranges are collapsed, expected 16", n)
	}
	if !bytes.Equal(v.Read(ino, 0, 2*pudBytes), data) {
		t.Error("the file has changed")
	}
}
