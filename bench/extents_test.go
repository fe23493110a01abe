package bench_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// BenchmarkReadExtents reads random 4 KiB from a file of one extent, and from one of many extents.
// The difference is the cost of the lookup with cold caches.
func BenchmarkReadExtents(b *testing.B) {
	const size, piece = 1 << 30, 8192
	v := newVolume(b, size+size/8)
	read := func(ino uint64) func(*testing.B) {
		return func(b *testing.B) {
			b.ReportAllocs()
			buf := make([]byte, 4096)
			rng := rand.New(rand.NewPCG(1, 2))
			pin := v.FS.NewPinnedRead()
			for b.Loop() {
				if e := v.FS.Read(&v.Ctx, ino, rng.Int64N(size/4096)*4096, 4096, pin); e != 0 {
					b.Fatal(e)
				}
				if n, e := pin.Take(buf); n != len(buf) || e != 0 {
					b.Fatal(n, e)
				}
			}
		}
	}
	one, many := create(v, "/one", size), v.Create("/many")
	b.Run("1", read(one))
	order := rand.New(rand.NewPCG(1, 1)).Perm(size / piece)
	for i, j := range order {
		v.Clone(one, int64(j)*piece, many, int64(i)*piece, piece)
	}
	v.Unlink("/one")
	b.Run(fmt.Sprint(len(order)), read(many))
}
