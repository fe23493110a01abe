package bench_test

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/pmem"
)

// core is a filesystem in memory.
type core struct {
	fs  *fs.FS
	ctx fs.Caller
}

func newCore(b *testing.B, size int64) *core {
	b.Helper()
	r, err := pmem.NewMemory(size)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := fs.Mkfs(r, fs.MkfsOptions{}); err != nil {
		b.Fatal(err)
	}
	f, err := fs.Mount(r, fs.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Unmount(); r.Close() })
	b.ReportAllocs()
	return &core{fs: f}
}

// create makes a file of so many bytes, a multiple of 1 MiB.
func (c *core) create(b *testing.B, name string, size int64) (ino uint64) {
	b.Helper()
	var a fs.Attr
	if e := c.fs.Mknod(&c.ctx, 1, name, syscall.S_IFREG|0o644, 0, &a); e != 0 {
		b.Fatal(e)
	}
	data := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(data)) {
		if _, e := c.fs.Write(&c.ctx, a.Ino, off, data); e != 0 {
			b.Fatal(e)
		}
	}
	return a.Ino
}

func BenchmarkRead4K(b *testing.B) {
	c := newCore(b, 64<<20)
	ino := c.create(b, "a", 1<<20)
	for b.Loop() {
		r := c.fs.NewPinnedRead()
		if e := c.fs.Read(&c.ctx, ino, 8192, 4096, r); e != 0 {
			b.Fatal(e)
		}
		r.Done()
		r.Free()
	}
}

func BenchmarkOverwrite4K(b *testing.B) {
	c := newCore(b, 64<<20)
	ino := c.create(b, "a", 1<<20)
	data := make([]byte, 4096)
	for b.Loop() {
		if _, e := c.fs.Write(&c.ctx, ino, 8192, data); e != 0 {
			b.Fatal(e)
		}
	}
}

func BenchmarkCreateUnlink(b *testing.B) {
	c := newCore(b, 64<<20)
	for i := 0; b.Loop(); i++ {
		name := fmt.Sprint("f", i%1000)
		var a fs.Attr
		e := c.fs.Mknod(&c.ctx, 1, name, syscall.S_IFREG, 0, &a)
		if e == 0 {
			e = c.fs.Unlink(&c.ctx, 1, name)
		}
		if e != 0 {
			b.Fatal(e)
		}
		c.fs.Forget(a.Ino, 1)
	}
}

// BenchmarkLookup looks up names of one and of several lines in a directory of 1000, and one that
// is missing.
func BenchmarkLookup(b *testing.B) {
	c := newCore(b, 64<<20)
	long := "a name that is long enough to take more than one line of the directory, "
	for i := range 500 {
		c.create(b, fmt.Sprint("f", i), 0)
		c.create(b, fmt.Sprint(long, i), 0)
	}
	for _, bc := range []struct {
		name, look string
		want       syscall.Errno
	}{{"short", "f77", 0}, {"long", long + "77", 0}, {"missing", "missing", syscall.ENOENT}} {
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var a fs.Attr
				if e := c.fs.Lookup(&c.ctx, 1, bc.look, &a); e != bc.want {
					b.Fatal(e)
				}
				c.fs.Forget(a.Ino, 1)
			}
		})
	}
}

// BenchmarkReadDir lists a directory of 1000 names.
func BenchmarkReadDir(b *testing.B) {
	c := newCore(b, 64<<20)
	for i := range 1000 {
		c.create(b, fmt.Sprint("f", i), 0)
	}
	for b.Loop() {
		n := 0
		if e := c.fs.ReadDir(&c.ctx, 1, 0, func(*fs.Dirent) bool { n++; return true }); e != 0 || n != 1002 {
			b.Fatal(n, e)
		}
	}
}
