package fs_test

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/daxfs/daxfs/fs"
)

func BenchmarkRead4K(b *testing.B) {
	v := newVolume(b, 64<<20)
	ino := v.create(1, "a")
	v.write(ino, 0, make([]byte, 1<<20))
	b.ReportAllocs()
	for b.Loop() {
		r := v.fs.NewReply()
		v.fs.Read(&v.ctx, ino, 8192, 4096, r)
		r.Done()
		r.Free()
	}
}

func BenchmarkOverwrite4K(b *testing.B) {
	v := newVolume(b, 64<<20)
	ino := v.create(1, "a")
	v.write(ino, 0, make([]byte, 1<<20))
	data := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		v.fs.Write(&v.ctx, ino, 8192, data)
	}
}

func BenchmarkCreateUnlink(b *testing.B) {
	v := newVolume(b, 64<<20)
	v.create(1, "keep")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		name := fmt.Sprint("f", i%1000)
		var a fs.Attr
		v.ok(v.fs.Mknod(&v.ctx, 1, name, syscall.S_IFREG, 0, &a))
		v.ok(v.fs.Unlink(&v.ctx, 1, name))
		v.fs.Forget(a.Ino, 1)
	}
}
