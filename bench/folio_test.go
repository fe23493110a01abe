package bench

import (
	"sync/atomic"
	"testing"

	"github.com/daxfsd/daxfsd/hugepage"
	"github.com/daxfsd/daxfsd/pagecache"
	"github.com/daxfsd/daxfsd/refcnt"
)

// BenchmarkFolio measures the part of a read that is not copying: it looks up a folio, gets it and
// puts it.
func BenchmarkFolio(b *testing.B) {
	o := hugepage.DefaultOrders
	for name, blocks := range map[string]uint64{"4K": 128, "2M": o.PMDBlocks()} {
		b.Run(name, func(b *testing.B) {
			t, err := refcnt.New(1<<20, o.PMD, o.PUD)
			if err != nil {
				b.Fatal(err)
			}
			defer t.Close()
			t.Own(o.PMDBlocks(), blocks)
			var s pagecache.Space
			s.Insert(pagecache.Extent{Logical: 0, Block: o.PMDBlocks(), Len: uint32(blocks)})
			idle := func(uint64, uint64) { b.Fatal("freed") }
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				at := uint64(i) & (blocks - 1)
				block, n, _ := s.Translate(at)
				r, ok := t.TryGet(block, 1)
				if n == 0 || !ok {
					b.Fatal("no folio")
				}
				t.Put(r, idle)
			}
		})
	}
}

// BenchmarkAlloc allocates and frees blocks on one thread, then on each CPU with a pool of its own.
func BenchmarkAlloc(b *testing.B) {
	for name, want := range map[string]uint64{"4K": 1, "64K": 16, "2M": 512} {
		a, err := hugepage.NewAllocator(16<<20, hugepage.DefaultOrders)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				block, n, _ := a.AllocFrom(0, 0, want)
				a.FreeTo(0, block, n)
			}
		})
		b.Run(name+"/parallel", func(b *testing.B) {
			var next atomic.Uint32
			b.RunParallel(func(pb *testing.PB) {
				p := next.Add(1)
				for pb.Next() {
					block, n, _ := a.AllocFrom(p, 0, want)
					a.FreeTo(p, block, n)
				}
			})
		})
	}
}
