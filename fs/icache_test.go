package fs_test

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fstest"
	"github.com/daxfsd/daxfsd/internal/invariants"
)

// liveHeap returns the size of the live heap in bytes.
func liveHeap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // the first keeps the content of pools
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestInodeMemory measures the memory of an inode that the kernel references, after a lookup and
// after a create, and checks that FORGET returns it.
func TestInodeMemory(t *testing.T) {
	if invariants.Enabled {
		t.Skip("under the race detector the region is on the heap, and everything is larger")
	}
	const files, limit = 100_000, 300
	v := fstest.Format(t, fstest.Memory(t, 512<<20), fs.MkfsOptions{}, fs.Options{})
	names := make([]string, files)
	inos := make([]uint64, files)
	for i := range names {
		names[i] = fmt.Sprint("file", i)
	}
	var a fs.Attr
	each := func(f func(i int)) {
		for i := range names {
			f(i)
		}
	}
	forget := func() { each(func(i int) { v.FS.Forget(inos[i], 1) }) }
	create := func(i int) {
		v.OK(v.FS.Mknod(&v.Ctx, 1, names[i], syscall.S_IFREG|0o644, 0, &a))
		inos[i] = a.Ino
	}
	lookup := func(i int) { v.OK(v.FS.Lookup(&v.Ctx, 1, names[i], &a)) }
	each(create)
	forget()
	v.OK(v.FS.Unlink(&v.Ctx, 1, names[0])) // the directory is in memory, at its full size
	create(0)
	forgotten := func() (n uint64) { forget(); return liveHeap() }

	before := liveHeap()
	for range 2 {
		v.FS.Forget(inos[0], 1)
		each(lookup)
		if got := (liveHeap() - before) / files; got > limit {
			t.Errorf("a file that was looked up takes %d bytes, %d are allowed", got, limit)
		} else {
			t.Logf("looked up: %d bytes a file", got)
		}
		if rest := int64(forgotten()-before) / files; rest > 8 {
			t.Errorf("%d bytes a file stay when the kernel has forgotten them", rest)
		}
		lookup(0)
		before = liveHeap()
	}
	v.FS.Forget(inos[0], 1)
	each(func(i int) { v.OK(v.FS.Unlink(&v.Ctx, 1, names[i])) })
	before = liveHeap()
	each(create)
	if got := (liveHeap() - before) / files; got > limit {
		t.Errorf("a file that was created takes %d bytes, %d are allowed", got, limit)
	} else {
		t.Logf("created: %d bytes a file", got)
	}
	forget()
	v.Unmount()
	runtime.KeepAlive(names)
}
