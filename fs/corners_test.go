package fs_test

import (
	"math"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// TestLargestOffset: no offset is too large for an answer.
func TestLargestOffset(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.create(1, "a")
	buf := make([]byte, 10, 4096)
	for _, off := range []int64{math.MaxInt64, math.MaxInt64 - 9, math.MaxInt64 - 100, math.MaxInt64 - 4095} {
		if n, e := v.fs.Write(&v.ctx, ino, off, buf); e != syscall.EFBIG || n != 0 {
			t.Errorf("write at %d: %d, %v", off, n, e)
		}
	}
	const last = math.MaxInt64&^4095 - 10
	v.write(ino, last, buf)
	v.remount()
	if got := v.read(ino, last-5, 100); len(got) != 15 {
		t.Errorf("%d bytes at the end of the largest file", len(got))
	}
	var a fs.Attr
	if e := v.fs.SetAttr(&v.ctx, ino, &fs.SetAttr{Valid: fs.SetSize, Size: math.MaxInt64}, &a); e != syscall.EFBIG {
		t.Errorf("truncate to MaxInt64: %v", e)
	}
}

// TestSlotReuse: freeing an orphan while its slot is taken again does not take the new
// inode out of the cache.
func TestSlotReuse(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	stop := time.Now().Add(2 * time.Second)
	var wg sync.WaitGroup
	var stale atomic.Int64
	for w := 0; w < 8; w++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			ctx := fs.Caller{Lane: uint32(w)}
			name := string(rune('a' + w))
			for time.Now().Before(stop) {
				var a, b fs.Attr
				if v.fs.Mknod(&ctx, 1, name, syscall.S_IFREG, 0, &a) != 0 {
					stale.Add(1)
				}
				v.fs.Unlink(&ctx, 1, name)
				if v.fs.GetAttr(&ctx, a.Ino, &b) != 0 {
					stale.Add(1)
				}
				v.fs.Forget(a.Ino, 1)
			}
		}()
	}
	wg.Wait()
	if n := stale.Load(); n > 0 {
		t.Fatalf("%d open inodes were lost", n)
	}
}

// TestTouchDuringChmod: the time of a write that completes while a transaction changes
// the inode is not taken back, and is on media after the remount.
func TestTouchDuringChmod(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.create(1, "a")
	v.write(ino, 0, make([]byte, 4096))
	var wg sync.WaitGroup
	for range 2000 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var a fs.Attr
			v.fs.SetAttr(&fs.Caller{Lane: 1}, ino, &fs.SetAttr{Valid: fs.SetMode, Mode: 0o600}, &a)
		}()
		at := v.now.Load()
		v.write(ino, 0, []byte("x"))
		wg.Wait()
		var a fs.Attr
		v.ok(v.fs.GetAttr(&v.ctx, ino, &a))
		if a.Mtime <= at {
			t.Fatalf("mtime is %d, the write was after %d", a.Mtime, at)
		}
	}
	var a, b fs.Attr
	v.ok(v.fs.GetAttr(&v.ctx, ino, &a))
	v.remount()
	v.ok(v.fs.GetAttr(&v.ctx, ino, &b))
	if a.Mtime != b.Mtime {
		t.Fatalf("mtime %d became %d over the remount", a.Mtime, b.Mtime)
	}
}

// TestPutDamaged: an inode whose lazily kept times cannot be stored can be forgotten.
func TestPutDamaged(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.create(1, "a")
	v.write(ino, 0, make([]byte, 4096))
	v.remount()
	var a fs.Attr
	v.ok(v.fs.Lookup(&v.ctx, 1, "a", &a))
	v.write(ino, 0, []byte("x"))
	line := v.fs.Super().InodeOff(ino) + layout.InodeTimesOff
	var was layout.Line
	if err := v.r.LoadLine(line, (*[layout.LineSize]byte)(&was)); err != nil {
		t.Fatal(err)
	}
	if err := v.r.Store(line+20, []byte{0xff}); err != nil {
		t.Fatal(err)
	}
	v.fs.Forget(ino, 1)
	if n := v.fs.Stats().CachedInodes; n != 1 {
		t.Errorf("%d inodes cached, expected the root only", n)
	}
	if err := v.r.Store(line, was[:]); err != nil {
		t.Fatal(err)
	}
}

// craft changes a metadata line of a filesystem that is not mounted, and seals it anew.
func (v *volume) craft(off int64, f func(l *layout.Line)) {
	v.t.Helper()
	var l layout.Line
	if err := v.r.LoadLine(off, (*[layout.LineSize]byte)(&l)); err != nil {
		v.t.Fatal(err)
	}
	f(&l)
	l.Seal(layout.Seed(v.fs.Super().UUID), off, l.Seq())
	if err := v.r.Store(off, l[:]); err != nil {
		v.t.Fatal(err)
	}
}

// parent makes a directory say that its parent is another one.
func (v *volume) parent(dir, parent uint64) {
	v.t.Helper()
	v.craft(v.fs.Super().InodeOff(dir), func(l *layout.Line) {
		var c layout.Core
		c.Get(l)
		c.Parent = parent
		c.Put(l)
	})
}

// TestCraftedParents: on media whose parents lead round in a circle or elsewhere, lookup and
// rename say EIO at once.
func TestCraftedParents(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	a := v.mkdir(1, "a")
	b := v.mkdir(a, "b")
	c := v.mkdir(1, "c")
	v.create(c, "f")
	if err := v.fs.Unmount(); err != nil {
		t.Fatal(err)
	}
	v.parent(a, b)
	v.mount()
	var at fs.Attr
	if e := v.fs.Lookup(&v.ctx, 1, "a", &at); e != syscall.EIO {
		t.Errorf("lookup: %v", e)
	}
	if e := v.fs.Lookup(&v.ctx, a, "b", &at); e != syscall.EIO {
		t.Errorf("lookup: %v", e)
	}
	v.ok(v.fs.Lookup(&v.ctx, 1, "c", &at))
	done := make(chan syscall.Errno)
	for _, move := range []func() syscall.Errno{
		func() syscall.Errno { return v.fs.Rename(&v.ctx, c, "f", b, "f", 0) },
		func() syscall.Errno { return v.fs.Rename(&v.ctx, 1, "a", 1, "z", 0) },
		func() syscall.Errno { return v.fs.Rename(&v.ctx, 1, "c", 1, "a", fs.RenameExchange) },
	} {
		go func() { done <- move() }()
		select {
		case e := <-done:
			if e != syscall.EIO {
				t.Errorf("rename: %v", e)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("rename hangs")
		}
	}
}

// Exchanging a file with a directory that holds another name of it, while that directory is
// searched: a directory is locked before a file, whatever their numbers.
func TestExchangeFileWithItsDirectory(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	file := v.create(1, "file") // the smaller number
	sub := v.mkdir(1, "sub")
	if file > sub {
		t.Fatalf("inode %d before %d", file, sub)
	}
	var a fs.Attr
	v.ok(v.fs.Link(&v.ctx, file, sub, "x", &a))
	done := make(chan struct{})
	core := v.fs
	go func() {
		defer close(done)
		var wg sync.WaitGroup
		stop := time.Now().Add(time.Second)
		for w := range 4 {
			wg.Go(func() {
				ctx := fs.Caller{Lane: uint32(w)}
				var a fs.Attr
				for time.Now().Before(stop) {
					if w == 0 {
						if e := core.Rename(&ctx, 1, "sub", 1, "file", fs.RenameExchange); e != 0 {
							t.Error(e)
						}
					} else if e := core.Lookup(&ctx, sub, "x", &a); e == 0 {
						core.Forget(a.Ino, 1)
					} else {
						t.Error(e)
					}
				}
			})
		}
		wg.Wait()
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		v.fs = nil // which would not unmount, either
		t.Fatal("Rename and Lookup wait for each other")
	}
	if e := v.fs.Rename(&v.ctx, 1, "file", 1, "sub", fs.RenameExchange); e != 0 {
		t.Fatal(e)
	}
}
