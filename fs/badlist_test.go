package fs_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// TestBadListOverHoles checks that neither a mount nor a check visits each block of a bad-range
// list that covers nearly all of a large sparse region. Block by block a mount took 12 s.
func TestBadListOverHoles(t *testing.T) {
	const size = 256 << 30
	path := filepath.Join(t.TempDir(), "region")
	if err := pmem.Create(path, size, true); err != nil {
		t.Fatal(err)
	}
	r, err := pmem.Open(path, pmem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	sb, err := fs.Mkfs(r, fs.MkfsOptions{})
	if err != nil {
		t.Fatal(err)
	}
	first := uint64(sb.StaticEnd)>>layout.BlockShift + 100 // in the metadata chunk
	b := layout.BadRange{Block: first, Len: sb.Blocks() - first - 512}
	var l layout.Line
	b.Put(&l)
	l.Seal(layout.Seed(sb.UUID), sb.BadOff, 1)
	if err := r.Store(sb.BadOff, l[:]); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	f, err := fs.Mount(r, fs.Options{Scan: true})
	if err != nil {
		t.Fatal(err)
	}
	if s := f.Stats(); s.FreeBlocks > 1024 {
		t.Errorf("%d blocks are free, and all but 512 and those of a metadata chunk are bad", s.FreeBlocks)
	}
	if err := f.Unmount(); err != nil {
		t.Fatal(err)
	}
	mount := time.Since(start)
	start = time.Now()
	rep, err := fsck.Check(r, fsck.Options{})
	if err != nil || len(rep.Problems) > 0 || rep.BadBlocks != b.Len {
		t.Errorf("fsck: %v, %+v", err, rep)
	}
	t.Logf("mount %v, check %v", mount, time.Since(start))
	if mount > 4*time.Second || time.Since(start) > 4*time.Second {
		t.Errorf("mount %v, check %v: expected far below 4 s", mount, time.Since(start))
	}
}
