package fsck_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// The limits in bytes of the memory that a mount and listing, a check or a repair of the image may
// allocate in total: 4 bytes for each byte of the image, and 16 MiB. Threads that change the
// filesystem allocate garbage with each request besides.
const (
	imageBytes = 4*size + 16<<20
	crowdBytes = 6 * imageBytes
)

// within fails if f allocates more than most bytes, or does not end.
func (c *crafter) within(what string, most uint64, f func()) {
	c.Helper()
	watch := time.AfterFunc(30*time.Second, func() {
		b := make([]byte, 1<<20)
		panic(fmt.Sprintf("%s: still at it after 30 s\n%s", what, b[:runtime.Stack(b, true)]))
	})
	defer watch.Stop()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > most {
		c.Errorf("%s: %d bytes were allocated, the bound for an image of %d is %d", what, n, size, most)
	}
}

// strangers treats a crafted image as its victim does: it mounts, lists, reads, checks and repairs
// the image, and mounts and uses it again.
func (c *crafter) strangers(script []byte) {
	c.craft(script)
	crafted := bytes.Clone(c.R.Bytes(0, size))
	var said *fsck.Report
	c.within("check", imageBytes, func() { said, _ = fsck.Check(c.R, fsck.Options{Sleep: noSleep}) })
	if !bytes.Equal(crafted, c.R.Bytes(0, size)) {
		c.Error("a check wrote to the region")
	}
	for _, o := range []fs.Options{{ReadOnly: true}, {Takeover: true}, {Takeover: true, Scan: true}} {
		c.within(fmt.Sprintf("mount %+v", o), imageBytes, func() {
			if f, err := c.mountIt(o); err == nil {
				c.look(f)
				f.Abandon()
			}
		})
		c.restore(crafted)
	}
	c.within("use", crowdBytes, func() {
		if f, err := c.mountIt(fs.Options{Takeover: true}); err == nil {
			c.crowd(f)
			f.Unmount()
		}
	})
	c.restore(crafted)
	var rep *fsck.Report
	c.within("repair", imageBytes, func() { rep, _ = fsck.Check(c.R, fsck.Options{Sleep: noSleep, Repair: true}) })
	if rep != nil {
		if said == nil {
			c.Fatal("a check failed, the repair did not")
		}
		c.sameAs(said, rep)
	}
	if rep != nil && rep.Left == 0 {
		again, err := fsck.Check(c.R, fsck.Options{Sleep: noSleep})
		if err != nil || len(again.Problems) > 0 {
			c.Errorf("repaired, and then: %v, %v; the repair said: %v", err, again.Problems, rep.Problems)
		}
	}
	c.within("mount after the repair", crowdBytes, func() {
		f, err := c.mountIt(fs.Options{Takeover: true})
		if err != nil {
			if rep != nil && rep.Left == 0 {
				c.Errorf("repaired, and then: %v; the repair said: %v", err, rep.Problems)
			}
			return
		}
		c.look(f)
		c.crowd(f)
		f.Unmount()
	})
}

func (c *crafter) mountIt(o fs.Options) (*fs.FS, error) {
	o.Clock, o.Sleep = func() int64 { return 3e18 }, noSleep
	return fs.Mount(c.R, o)
}

// look lists and reads all reachable files, at most 2000 names.
func (c *crafter) look(f *fs.FS) {
	ctx := &fs.Caller{}
	buf := make([]byte, 64<<10)
	names, open := 0, []uint64{layout.RootIno}
	for len(open) > 0 && names < 2000 {
		dir := open[0]
		open = open[1:]
		var subs []uint64
		f.ReadDir(ctx, dir, 0, func(d *fs.Dirent) bool {
			var a fs.Attr
			names++
			if f.RefEntry(ctx, d, &a) == 0 {
				if a.Mode&syscall.S_IFMT == syscall.S_IFDIR {
					subs = append(subs, a.Ino)
				}
				f.Forget(a.Ino, 1)
			}
			return names < 2000
		})
		for _, ino := range append(slices.Clone(subs), dir) {
			c.lookAt(f, ino, buf)
		}
		f.ReadDir(ctx, dir, 2, func(d *fs.Dirent) bool { subs = append(subs, d.Ino); return len(subs) < 200 })
		for _, ino := range subs {
			c.lookAt(f, ino, buf)
		}
		f.Lookup(ctx, dir, "..", &fs.Attr{})
		open = append(open, subs...)
	}
	var st fs.StatFS
	f.StatFS(&st)
	f.Stats()
}

// lookAt reads all that an inode has, by its number, as a client of NFS may.
func (c *crafter) lookAt(f *fs.FS, ino uint64, buf []byte) {
	ctx := &fs.Caller{}
	var a fs.Attr
	if f.Ref(ctx, ino, &a) != 0 {
		return
	}
	defer f.Forget(ino, 1)
	for _, off := range []int64{0, int64(a.Size / 2), int64(a.Size) - 1} {
		rp := f.NewPinnedRead()
		if f.Read(ctx, ino, off, 64<<10, rp) == 0 {
			n := 0
			for _, s := range rp.Slices() {
				n += len(s)
			}
			if n != rp.Len() {
				c.Errorf("a pinned read of %d bytes returns %d", n, rp.Len())
			}
			rp.Done()
		}
		rp.Free()
	}
	f.Readlink(ctx, ino, buf[:0])
	f.Lseek(ctx, ino, 0, 3)
	f.Lseek(ctx, ino, 0, 4)
	n := 0
	f.Extents(ctx, ino, 0, func(fs.ExtentInfo) bool { n++; return n < 1000 })
	f.Folios(ctx, ino, 0, func(fs.ExtentInfo) bool { n++; return n < 1000 })
	if l, e := f.ListXattr(ctx, ino, buf); e == 0 {
		for _, x := range bytes.Split(bytes.Clone(buf[:min(l, len(buf))]), []byte{0}) {
			f.GetXattr(ctx, ino, string(x), buf)
		}
	}
}

// crowd changes the filesystem in some threads, and reads it in others.
func (c *crafter) crowd(f *fs.FS) {
	var wg sync.WaitGroup
	var dirs []uint64
	for _, path := range sortedKeys(c.ino) {
		if !strings.HasPrefix(path, "/many/") {
			dirs = append(dirs, c.ino[path])
		}
	}
	for w := range 3 {
		wg.Go(func() {
			ctx := &fs.Caller{Lane: uint32(w), UID: uint32(w)}
			buf := make([]byte, 20<<10)
			var a fs.Attr
			for i, dir := range dirs {
				other := dirs[(i*7+w*13)%len(dirs)]
				f.Write(ctx, dir, int64(i)*3000, buf[:5000])
				f.CopyRange(ctx, dir, 0, other, 8192, 1<<16)
				f.SetXattr(ctx, dir, "user.new", buf[:2000], 0)
				f.RemoveXattr(ctx, dir, "user.0")
				f.Fallocate(ctx, dir, fs.FallocPunchHole|fs.FallocKeepSize, 4096, 8192)
				f.SetAttr(ctx, dir, &fs.SetAttr{Valid: fs.SetSize, Size: uint64(i) * 1000}, &a)
				f.Link(ctx, other, dir, fmt.Sprint("link", w), &a)
				if f.Mknod(ctx, dir, fmt.Sprint("new", w, "-", i), syscall.S_IFREG|0o600, 0, &a) == 0 {
					f.Forget(a.Ino, 1)
				}
				if f.Mkdir(ctx, dir, fmt.Sprint("dir", w), 0o700, &a) == 0 {
					f.Forget(a.Ino, 1)
				}
				f.Rename(ctx, dir, fmt.Sprint("new", w, "-", i), other, "moved", 0)
				f.Rename(ctx, layout.RootIno, fmt.Sprint("deep", i%6), dir, "deep", 0)
				f.Rename(ctx, dir, "deep", other, "moved", fs.RenameExchange)
				for _, name := range []string{"d", "f", "two", "sub", "link0", "dir1", "moved"} {
					if f.Lookup(ctx, dir, name, &a) == 0 {
						f.Forget(a.Ino, 1)
					}
				}
				f.Unlink(ctx, dir, "two")
				f.Unlink(ctx, dir, fmt.Sprint("link", (w+1)%3))
				f.Rmdir(ctx, dir, "sub")
				f.ReadDir(ctx, dir, 0, func(d *fs.Dirent) bool {
					if f.RefEntry(ctx, d, &a) == 0 {
						f.Forget(a.Ino, 1)
					}
					return true
				})
			}
		})
	}
	wg.Wait()
	f.Compact(&fs.Caller{})
}

// craftSeeds returns scripts for FuzzCraft, one for each step.
func craftSeeds() (out [][]byte) {
	for step := range byte(15) {
		out = append(out, []byte{step, 0, 0, 3, 1, 7, 2, 9}, []byte{step, 1, 0, 1, 1, 0, 2, 9, step, 2, 3, 4, 5, 6, 7, 8, 9})
	}
	return out
}

// FuzzCraft checks that a crafted image with right checksums causes no panic and no hang, and takes
// no more memory than its size allows.
func FuzzCraft(f *testing.F) {
	c := newCrafter(f)
	for _, script := range craftSeeds() {
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 128 {
			return
		}
		c.TB = t
		defer c.restore(c.image)
		c.strangers(script)
	})
}

// TestCraft is FuzzCraft with scripts of a fixed seed.
func TestCraft(t *testing.T) {
	n := 120
	if testing.Short() {
		n = 30
	}
	c := newCrafter(t)
	x := uint64(7)
	for i := 0; i < n && !t.Failed(); i++ {
		script := make([]byte, 8*(1+i%8))
		for j := 0; j < len(script); j += 8 {
			x = x*6364136223846793005 + 1442695040888963407
			binary.LittleEndian.PutUint64(script[j:], x^x>>29)
		}
		c.strangers(script)
		if t.Failed() {
			t.Logf("script %d: %q", i, script)
		}
		c.restore(c.image)
	}
}
