package fs_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// TestContradictingFreeMap checks that metadata that contradicts a saved free map with a right
// checksum makes the filesystem read-only when it is first used. Nothing panics or waits for ever.
// No mount can find the contradiction earlier.
func TestContradictingFreeMap(t *testing.T) {
	extent := func(v *volume, ino uint64) int64 { return v.Super().InodeOff(ino) + layout.InodeExtentOff }
	same := func(v *volume, from, to uint64) {
		var x layout.Line
		v.R.LoadLine(extent(v, from), (*[layout.LineSize]byte)(&x))
		v.craft(extent(v, to), func(l *layout.Line) { copy(l.Payload(), x.Payload()) })
	}
	cut := func(v *volume, f *fs.FS, ino uint64) syscall.Errno {
		var a fs.Attr
		return f.SetAttr(&v.Ctx, ino, &fs.SetAttr{Valid: fs.SetSize}, &a)
	}
	type world struct{ a, b uint64 }
	for name, c := range map[string]struct {
		craft func(v *volume, w *world)
		use   func(v *volume, f *fs.FS, w *world) syscall.Errno
	}{
		"two files, read after the other's truncation": {
			func(v *volume, w *world) { same(v, w.a, w.b) },
			func(v *volume, f *fs.FS, w *world) syscall.Errno {
				cut(v, f, w.a)
				rp := f.NewPinnedRead()
				defer rp.Free()
				e := f.Read(&v.Ctx, w.b, 0, 4096, rp)
				if e == 0 {
					rp.Done()
				}
				return e
			},
		},
		"two files, overwritten after the other's truncation": {
			func(v *volume, w *world) { same(v, w.a, w.b) },
			func(v *volume, f *fs.FS, w *world) syscall.Errno {
				cut(v, f, w.a)
				_, e := f.Write(&v.Ctx, w.b, 0, make([]byte, 4096))
				return e
			},
		},
		"two files, truncated": {
			func(v *volume, w *world) { same(v, w.a, w.b) },
			func(v *volume, f *fs.FS, w *world) syscall.Errno {
				cut(v, f, w.a)
				cut(v, f, w.b)
				return f.Unlink(&v.Ctx, 1, "a")
			},
		},
		"two files, copied": {
			func(v *volume, w *world) { same(v, w.a, w.b) },
			func(v *volume, f *fs.FS, w *world) syscall.Errno {
				cut(v, f, w.a)
				f.CopyRange(&v.Ctx, w.b, 0, w.a, 0, 64<<10)
				cut(v, f, w.b)
				return f.Unlink(&v.Ctx, 1, "a")
			},
		},
		"an inode that is free": {
			func(v *volume, w *world) {
				for ino := uint64(2); ino <= 32; ino++ { // all inodes that a create can take
					v.craft(v.Super().InodeOff(ino), func(l *layout.Line) {
						var c layout.Core
						if c.Get(l); c.Mode == 0 {
							c.Mode, c.Nlink = syscall.S_IFREG|0o600, 1
							c.Put(l)
						}
					})
				}
			},
			func(v *volume, f *fs.FS, w *world) syscall.Errno {
				var a fs.Attr
				return f.Mknod(&v.Ctx, 1, "new", syscall.S_IFREG|0o600, 0, &a)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVolume(t, fs.MinSize+16<<10)
			var w world
			w.a, w.b = v.Create("/a"), v.Create("/b")
			for i, ino := range []uint64{w.a, w.b} {
				for n := range 8 {
					v.Write(ino, int64(i+n)*8192, make([]byte, 40<<10))
				}
			}
			v.Unmount()
			c.craft(v, &w)
			f, err := fs.Mount(v.R, fs.Options{Warn: func(m string) { t.Log(m) }})
			if err != nil {
				t.Fatal(err)
			}
			v.FS = nil
			if !f.Stats().FreeMap {
				t.Fatal("the free map was not used")
			}
			for _, ino := range []uint64{w.a, w.b} { // reads their extents
				var a fs.Attr
				v.OK(f.Ref(&v.Ctx, ino, &a))
				v.OK(f.Extents(&v.Ctx, ino, 0, func(fs.ExtentInfo) bool { return true }))
			}
			done := make(chan syscall.Errno, 1)
			go func() { done <- c.use(v, f, &w) }()
			select {
			case e := <-done:
				if e != syscall.EIO && e != syscall.EROFS {
					t.Errorf("%v, expected EIO or EROFS", e)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("it waits for ever")
			}
			if f.Unmount() == nil {
				t.Error("it was unmounted cleanly")
			}
		})
	}
}
