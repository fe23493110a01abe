package bench_test

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/daxfs/daxfs/fs"
	"github.com/daxfs/daxfs/pmem"
)

// BenchmarkReadExtents reads 4 KiB at random from a file of many extents, as from one of a single one: what the
// lookup costs with cold caches.
func BenchmarkReadExtents(b *testing.B) {
	const size, piece = 1 << 30, 8192
	r, err := pmem.NewMemory(size + size/8)
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
	var ctx fs.Context
	make1 := func(name string) uint64 {
		var a fs.Attr
		if e := f.Mknod(&ctx, 1, name, syscall.S_IFREG|0o644, 0, &a); e != 0 {
			b.Fatal(e)
		}
		return a.Ino
	}
	one, data := make1("one"), make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(data)) {
		if _, e := f.Write(&ctx, one, off, data); e != 0 {
			b.Fatal(e)
		}
	}
	read := func(b *testing.B, ino uint64) {
		b.ReportAllocs()
		buf := make([]byte, 4096)
		rng := rand.New(rand.NewPCG(1, 2))
		reply := f.NewReply()
		for b.Loop() {
			if e := f.Read(&ctx, ino, rng.Int64N(size/4096)*4096, 4096, reply); e != 0 {
				b.Fatal(e)
			}
			if n, e := reply.Take(buf); n != len(buf) || e != 0 {
				b.Fatal(n, e)
			}
		}
	}
	b.Run("1", func(b *testing.B) { read(b, one) })
	many := make1("many")
	order := rand.New(rand.NewPCG(1, 1)).Perm(size / piece)
	for i, j := range order {
		if n, e := f.CopyRange(&ctx, one, int64(j)*piece, many, int64(i)*piece, piece); n != piece || e != 0 {
			b.Fatal(n, e)
		}
	}
	if e := f.Unlink(&ctx, 1, "one"); e != 0 {
		b.Fatal(e)
	}
	b.Run(fmt.Sprint(len(order)), func(b *testing.B) { read(b, many) })
}
