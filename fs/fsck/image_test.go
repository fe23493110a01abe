package fsck

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// TestImage checks that stores to a dry image can be read back, as whole lines and in parts, while
// other threads read elsewhere. The region does not change, and only lines that differ take memory.
func TestImage(t *testing.T) {
	const size = 64 << 10
	r, err := pmem.NewMemory(size)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	rnd := rand.New(rand.NewPCG(1, 2))
	want := make([]byte, size)
	for i := range want {
		want[i] = byte(rnd.Uint32())
	}
	if err := r.Store(0, want); err != nil {
		t.Fatal(err)
	}
	was := bytes.Clone(want)
	m := &image{r: r, dry: true}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 { // they read the last block, which is not stored to
		readers.Go(func() {
			b := make([]byte, layout.BlockSize)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := m.load(size-layout.BlockSize, b); err != nil || !bytes.Equal(b, was[size-layout.BlockSize:]) {
					t.Errorf("a block without stores has changed, error %v", err)
					return
				}
			}
		})
	}
	for i := range 3000 {
		n := 1 + rnd.IntN([]int{8, 200, 9000}[i%3])
		off := rnd.IntN(size - layout.BlockSize - n)
		b := want[off : off+n]
		if i%4 > 0 { // else the bytes stay as they are
			for j := range b {
				b[j] = byte(rnd.Uint32())
			}
		}
		store := m.put
		if i%2 == 0 {
			store = m.ntStore
		}
		if err := store(int64(off), b); err != nil {
			t.Fatal(err)
		}
		n = 1 + rnd.IntN(9000)
		off = rnd.IntN(size - n)
		got := make([]byte, n)
		if err := m.load(int64(off), got); err != nil || !bytes.Equal(got, want[off:off+n]) {
			t.Fatalf("step %d: %d bytes at %d read otherwise, error %v", i, n, off, err)
		}
		var l layout.Line
		at := int64(off) &^ (layout.LineSize - 1)
		if err := m.loadLine(at, &l); err != nil || !bytes.Equal(l[:], want[at:at+layout.LineSize]) {
			t.Fatalf("step %d: the line at %d reads otherwise, error %v", i, at, err)
		}
	}
	close(stop)
	readers.Wait()
	if !bytes.Equal(r.Bytes(0, size), was) {
		t.Error("the region was changed")
	}
	m = &image{r: r, dry: true}
	changed := bytes.Clone(was)
	changed[5000] ^= 1
	changed[9000] ^= 1
	if err := m.ntStore(0, changed); err != nil {
		t.Fatal(err)
	}
	lines := 0
	for _, p := range m.patches {
		lines += len(p.lines)
	}
	if lines != 2 || len(m.patches) != 2 {
		t.Errorf("%d lines of %d blocks are kept where 2 of 2 were changed", lines, len(m.patches))
	}
	if err := m.put(size-8, make([]byte, 16)); err == nil {
		t.Error("a store beyond the end succeeds")
	}
}
