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

// TestLargestOffset checks that every operation answers for the largest offsets.
func TestLargestOffset(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.Create("/a")
	buf := make([]byte, 10, 4096)
	for _, off := range []int64{math.MaxInt64, math.MaxInt64 - 9, math.MaxInt64 - 100, math.MaxInt64 - 4095} {
		if n, e := v.FS.Write(&v.Ctx, ino, off, buf); e != syscall.EFBIG || n != 0 {
			t.Errorf("write at %d: %d, %v", off, n, e)
		}
	}
	const last = math.MaxInt64&^4095 - 10
	v.Write(ino, last, buf)
	v.Remount()
	if got := v.Read(ino, last-5, 100); len(got) != 15 {
		t.Errorf("%d bytes at the end of the largest file", len(got))
	}
	var a fs.Attr
	if e := v.FS.SetAttr(&v.Ctx, ino, &fs.SetAttr{Valid: fs.SetSize, Size: math.MaxInt64}, &a); e != syscall.EFBIG {
		t.Errorf("truncate to MaxInt64: %v", e)
	}
}

// TestSlotReuse checks that freeing an orphan does not drop the new inode in its slot from the
// cache.
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
				if v.FS.Mknod(&ctx, 1, name, syscall.S_IFREG, 0, &a) != 0 {
					stale.Add(1)
				}
				v.FS.Unlink(&ctx, 1, name)
				if v.FS.GetAttr(&ctx, a.Ino, &b) != 0 {
					stale.Add(1)
				}
				v.FS.Forget(a.Ino, 1)
			}
		}()
	}
	wg.Wait()
	if n := stale.Load(); n > 0 {
		t.Fatalf("%d open inodes were lost", n)
	}
}

// TestTouchDuringChmod checks that the time of a write that completes while a transaction changes
// the inode is kept, and is on the media after the remount.
func TestTouchDuringChmod(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.Create("/a")
	v.Write(ino, 0, make([]byte, 4096))
	var wg sync.WaitGroup
	for range 2000 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var a fs.Attr
			v.FS.SetAttr(&fs.Caller{Lane: 1}, ino, &fs.SetAttr{Valid: fs.SetMode, Mode: 0o600}, &a)
		}()
		at := v.Now.Load()
		v.Write(ino, 0, []byte("x"))
		wg.Wait()
		a := v.Stat(ino)
		if a.Mtime <= at {
			t.Fatalf("mtime is %d, the write was after %d", a.Mtime, at)
		}
	}
	var a, b fs.Attr
	a = v.Stat(ino)
	v.Remount()
	b = v.Stat(ino)
	if a.Mtime != b.Mtime {
		t.Fatalf("mtime %d became %d over the remount", a.Mtime, b.Mtime)
	}
}

// TestPutDamaged checks that an inode whose lazily kept times cannot be stored can be forgotten.
func TestPutDamaged(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.Create("/a")
	v.Write(ino, 0, make([]byte, 4096))
	v.Remount()
	var a fs.Attr
	v.OK(v.FS.Lookup(&v.Ctx, 1, "a", &a))
	v.Write(ino, 0, []byte("x"))
	line := v.Super().InodeOff(ino) + layout.InodeTimesOff
	var was layout.Line
	if err := v.R.LoadLine(line, (*[layout.LineSize]byte)(&was)); err != nil {
		t.Fatal(err)
	}
	if err := v.R.Store(line+20, []byte{0xff}); err != nil {
		t.Fatal(err)
	}
	v.FS.Forget(ino, 1)
	if n := v.FS.Stats().CachedInodes; n != 1 {
		t.Errorf("%d inodes cached, expected the root only", n)
	}
	if err := v.R.Store(line, was[:]); err != nil {
		t.Fatal(err)
	}
}

// craft changes a metadata line and seals it again. The volume is not mounted.
func (v *volume) craft(off int64, f func(l *layout.Line)) {
	v.Helper()
	var l layout.Line
	if err := v.R.LoadLine(off, (*[layout.LineSize]byte)(&l)); err != nil {
		v.Fatal(err)
	}
	f(&l)
	l.Seal(layout.Seed(v.Super().UUID), off, l.Seq())
	if err := v.R.Store(off, l[:]); err != nil {
		v.Fatal(err)
	}
}

// parent sets the parent that a directory names. The volume is not mounted.
func (v *volume) parent(dir, parent uint64) {
	v.Helper()
	v.craft(v.Super().InodeOff(dir), func(l *layout.Line) {
		var c layout.Core
		c.Get(l)
		c.Parent = parent
		c.Put(l)
	})
}

// TestCraftedParents checks that lookup and rename return EIO at once where the parents on the
// media form a cycle or lead elsewhere.
func TestCraftedParents(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	a := v.Mkdir("/a")
	b := v.Mkdir("/a/b")
	c := v.Mkdir("/c")
	v.Create("/c/f")
	v.Unmount()
	v.parent(a, b)
	v.Mount()
	var at fs.Attr
	if e := v.FS.Lookup(&v.Ctx, 1, "a", &at); e != syscall.EIO {
		t.Errorf("lookup: %v", e)
	}
	if e := v.FS.Lookup(&v.Ctx, a, "b", &at); e != syscall.EIO {
		t.Errorf("lookup: %v", e)
	}
	v.OK(v.FS.Lookup(&v.Ctx, 1, "c", &at))
	done := make(chan syscall.Errno)
	for _, move := range []func() syscall.Errno{
		func() syscall.Errno { return v.FS.Rename(&v.Ctx, c, "f", b, "f", 0) },
		func() syscall.Errno { return v.FS.Rename(&v.Ctx, 1, "a", 1, "z", 0) },
		func() syscall.Errno { return v.FS.Rename(&v.Ctx, 1, "c", 1, "a", fs.RenameExchange) },
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

// TestExchangeFileWithItsDirectory exchanges a file with a directory that has another name of the
// file, while that directory is searched. A directory is locked before a file, whatever their
// numbers.
func TestExchangeFileWithItsDirectory(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	file := v.Create("/file") // gets the smaller inode number
	sub := v.Mkdir("/sub")
	if file > sub {
		t.Fatalf("inode %d before %d", file, sub)
	}
	var a fs.Attr
	v.OK(v.FS.Link(&v.Ctx, file, sub, "x", &a))
	done := make(chan struct{})
	core := v.FS
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
		v.FS = nil // or the unmount would hang
		t.Fatal("Rename and Lookup wait for each other")
	}
	if e := v.FS.Rename(&v.Ctx, 1, "file", 1, "sub", fs.RenameExchange); e != 0 {
		t.Fatal(e)
	}
}
