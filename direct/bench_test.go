package direct

import (
	"fmt"
	"os"
	"testing"

	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/pmem"
)

// benchFile opens a file of 64 MiB on a region in memory, and a window of the same memory.
func benchFile(b *testing.B) (*File, *pmem.Window) {
	dir, err := os.MkdirTemp("/dev/shm", "direct-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	const size = 64 * mib
	f := newFake(b, dir, 80*mib)
	f.set(size, protocol.Extent{Offset: 0, Region: 8 * mib, Length: size})
	d, err := f.open(os.O_RDWR)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { d.Close() })
	m, err := pmem.OpenMapper(pmem.Identity{FileID: f.id, Size: 80 * mib, Granule: 4096, Path: f.region.Path()}, true)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { m.Close() })
	desc, err := m.Open(true)
	if err != nil {
		b.Fatal(err)
	}
	defer desc.Close()
	w, err := m.Window(desc, []pmem.Part{{Off: 8 * mib, N: size}}, pmem.WindowOptions{Write: true, Size: size, Modulus: 2 * mib})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { w.Close() })
	return d, w
}

// Benchmark4K compares reads and writes of 4 KiB at random offsets with the copies of the same
// memory that they consist of.
func Benchmark4K(b *testing.B) {
	d, w := benchFile(b)
	all := w.Bytes(0, 64*mib)
	buf := make([]byte, 4096)
	x := uint64(1)
	next := func() int64 {
		x = x*6364136223846793005 + 1442695040888963407
		return int64(x>>33) % (64*mib - 4096) &^ 4095
	}
	for _, c := range []struct {
		name string
		do   func() error
	}{
		{"copy", func() error { copy(buf, all[next():]); return nil }},
		{"ReadAt", func() error { _, err := d.ReadAt(buf, next()); return err }},
		{"NTStore", func() error { err := w.NTStore(next(), buf); w.Fence(); return err }},
		{"WriteAt", func() error { _, err := d.WriteAt(buf, next()); return err }},
	} {
		b.Run(fmt.Sprint(c.name), func(b *testing.B) {
			b.SetBytes(4096)
			for b.Loop() {
				if err := c.do(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
