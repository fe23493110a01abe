package bench_test

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/daxfs/daxfs/fs"
	"github.com/daxfs/daxfs/pmem"
)

// core is a filesystem in memory with one file of 1 MiB.
type core struct {
	fs  *fs.FS
	ctx fs.Context
	ino uint64
}

func newCore(b *testing.B) *core {
	b.Helper()
	r, err := pmem.NewMemory(64 << 20)
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
	c := &core{fs: f}
	var a fs.Attr
	if e := f.Mknod(&c.ctx, 1, "a", syscall.S_IFREG|0o644, 0, &a); e != 0 {
		b.Fatal(e)
	}
	c.ino = a.Ino
	if _, e := f.Write(&c.ctx, c.ino, 0, make([]byte, 1<<20)); e != 0 {
		b.Fatal(e)
	}
	b.ReportAllocs()
	return c
}

func BenchmarkRead4K(b *testing.B) {
	c := newCore(b)
	for b.Loop() {
		r := c.fs.NewReply()
		if e := c.fs.Read(&c.ctx, c.ino, 8192, 4096, r); e != 0 {
			b.Fatal(e)
		}
		r.Done()
		r.Free()
	}
}

func BenchmarkOverwrite4K(b *testing.B) {
	c := newCore(b)
	data := make([]byte, 4096)
	for b.Loop() {
		if _, e := c.fs.Write(&c.ctx, c.ino, 8192, data); e != 0 {
			b.Fatal(e)
		}
	}
}

func BenchmarkCreateUnlink(b *testing.B) {
	c := newCore(b)
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
