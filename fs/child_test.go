package fs_test

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// entryOff returns the region offset in bytes of the only entry with that name. The volume is not
// mounted.
func (v *volume) entryOff(name string) (found int64) {
	v.Helper()
	part := name[:min(len(name), layout.HeadName)]
	seed := layout.Seed(v.Super().UUID)
	for off := int64(0); off < v.R.Size(); off += layout.LineSize {
		var l layout.Line
		if v.R.LoadLine(off, (*[layout.LineSize]byte)(&l)) == nil && l.Valid(seed, off) &&
			l.DentryKind() == layout.DentryHead && l.DentryNameLen() == len(name) && string(l.NamePart(0, len(name))) == part {
			found = off
		}
	}
	if found == 0 {
		v.Fatalf("there is no entry %.20q", name)
	}
	return found
}

// pointAt makes the only entry with that name refer to another directory. The volume is not
// mounted.
func (v *volume) pointAt(name string, ino uint64) {
	v.Helper()
	v.craft(v.entryOff(name), func(l *layout.Line) { l.SetDentryTarget(ino, syscall.DT_DIR) })
}

// TestCraftedGraphs checks that operations on directories whose names and parents contradict each
// other do not deadlock, and that a name that leads out of the tree gives EIO.
func TestCraftedGraphs(t *testing.T) {
	for _, g := range []struct {
		name  string
		craft func(v *volume, a, b, c uint64)
		dir   func(a, b, c uint64) uint64 // the directory with the entry "bad"
		above bool                        // the directories themselves do not lead to the root
	}{
		{"itself", func(v *volume, a, b, c uint64) { v.pointAt("bad", c) }, func(a, b, c uint64) uint64 { return c }, false},
		{"its parent", func(v *volume, a, b, c uint64) { v.pointAt("bad", b) }, func(a, b, c uint64) uint64 { return c }, false},
		{"the root, which says it is below", func(v *volume, a, b, c uint64) {
			v.pointAt("bad", layout.RootIno)
			v.parent(layout.RootIno, c)
		}, func(a, b, c uint64) uint64 { return c }, false},
		{"a ring that agrees with itself", func(v *volume, a, b, c uint64) {
			v.pointAt("bad", b)
			v.parent(b, c)
		}, func(a, b, c uint64) uint64 { return c }, true},
		{"a directory elsewhere", func(v *volume, a, b, c uint64) { v.pointAt("bad", a) }, func(a, b, c uint64) uint64 { return c }, false},
	} {
		t.Run(g.name, func(t *testing.T) {
			v := newVolume(t, 16<<20)
			a := v.Mkdir("/a")
			b := v.Mkdir("/a/b")
			c := v.Mkdir("/a/b/c")
			v.Mkdir("/a/b/c/bad")
			v.Unmount()
			g.craft(v, a, b, c)
			v.MountWith(fs.Options{Scan: true})
			dir := g.dir(a, b, c)
			var x fs.Attr
			if e := v.FS.Lookup(&v.Ctx, dir, "bad", &x); e != syscall.EIO {
				t.Errorf("lookup: %v, expected EIO", e)
			}
			for _, e := range []syscall.Errno{v.FS.Rmdir(&v.Ctx, dir, "bad"), v.FS.Rename(&v.Ctx, dir, "bad", layout.RootIno, "moved", 0)} {
				if e != syscall.EIO {
					t.Errorf("remove or rename: %v, expected EIO", e)
				}
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				var wg sync.WaitGroup
				dirs := []uint64{layout.RootIno, a, b, c}
				for w := range 8 {
					wg.Add(1)
					go func() { defer wg.Done(); v.roam(dirs, w, g.above) }()
				}
				wg.Wait()
			}()
			select {
			case <-done:
			case <-time.After(30 * time.Second):
				v.FS = nil // or the unmount would hang
				t.Fatal("operations wait for each other")
			}
		})
	}
}

// roam reads directories if w is even, and else changes them.
func (v *volume) roam(dirs []uint64, w int, mayFail bool) {
	var ctx fs.Caller
	var a fs.Attr
	for i := range 300 {
		dir := dirs[i%len(dirs)]
		name := fmt.Sprint("x", w, "-", i)
		switch {
		case w%2 == 0:
			for _, n := range []string{"a", "b", "c", "bad"} {
				if v.FS.Lookup(&ctx, dir, n, &a) == 0 {
					v.FS.Forget(a.Ino, 1)
				}
			}
			v.FS.ReadDir(&ctx, dir, 0, func(d *fs.Dirent) bool {
				if v.FS.RefEntry(&ctx, d, &a) == 0 {
					v.FS.Forget(a.Ino, 1)
				}
				return true
			})
		default:
			e := v.FS.Mknod(&ctx, dir, name, syscall.S_IFREG|0o600, 0, &a)
			if e != 0 && !mayFail {
				v.Errorf("create: %v", e)
			}
			if e == 0 {
				v.FS.Forget(a.Ino, 1)
			}
			v.FS.Rename(&ctx, dir, name, dirs[(i+w)%len(dirs)], name+"'", 0)
			v.FS.Unlink(&ctx, dirs[(i+w)%len(dirs)], name+"'")
			v.FS.Rmdir(&ctx, dir, "bad")
			v.FS.Rename(&ctx, dir, "bad", dirs[w%len(dirs)], "moved", 0)
		}
	}
}
