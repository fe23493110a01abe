package fs_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
)

// TestDeepRename checks that a rename between directories deep in the tree holds the rename mutex
// no longer than others may wait. For a file, or a directory without directories in it, no parents
// are walked; for any other directory they are walked once.
func TestDeepRename(t *testing.T) {
	depth := 300_000
	if testing.Short() {
		depth = 20_000
	}
	v := newVolume(t, (int64(depth)*5000+16<<20)&^4095) // a directory with one name takes a block and an inode
	mkdir := func(dir uint64, name string) uint64 {
		var a fs.Attr
		v.OK(v.FS.Mkdir(&v.Ctx, dir, name, 0o755, &a))
		return a.Ino
	}
	d := uint64(1)
	for range depth {
		d = mkdir(d, "d")
	}
	x, y := mkdir(d, "a"), mkdir(d, "b")
	v.OK(v.FS.Mknod(&v.Ctx, x, "file", syscall.S_IFREG, 0, new(fs.Attr)))
	mkdir(x, "leaf")
	mkdir(mkdir(x, "tree"), "below")
	for _, name := range []string{"file", "leaf", "tree"} {
		best := time.Hour // the best of some tries, since the machine may be busy
		from, to := x, y
		for range 6 {
			start := time.Now()
			v.OK(v.FS.Rename(&v.Ctx, from, name, to, name, 0))
			best = min(best, time.Since(start))
			from, to = to, from
		}
		t.Logf("%s: %v", name, best)
		if best > 50*time.Millisecond {
			t.Errorf("a rename of %s below %d directories takes %v, want 50 ms at most", name, depth, best)
		}
	}
	queue := &fs.Caller{NoWait: true}
	v.OK(v.FS.Rename(queue, x, "file", y, "file", 0))
	v.OK(v.FS.Rename(queue, x, "leaf", y, "leaf", 0))
	if e := v.FS.Rename(queue, x, "tree", y, "tree", 0); e != syscall.EAGAIN {
		t.Errorf("a queue walks up through %d directories: %v, want %v", depth, e, syscall.EAGAIN)
	}
	if e := v.FS.Rename(&v.Ctx, 1, "d", y, "d", 0); e != syscall.EINVAL {
		t.Errorf("a directory moved below itself: %v, want %v", e, syscall.EINVAL)
	}
}
