package pmem

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// newFile creates and opens an ordinary file of size bytes.
func newFile(t testing.TB, size int64) *Region {
	t.Helper()
	path := filepath.Join(t.TempDir(), "region")
	if err := Create(path, size, false); err != nil {
		t.Fatal(err)
	}
	r, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func newMemory(t testing.TB, size int64) *Region {
	t.Helper()
	r, err := NewMemory(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// TestPrimitivesAgainstModel calls every primitive with random ranges, and compares the region with
// an array.
func TestPrimitivesAgainstModel(t *testing.T) {
	const size = 1 << 20
	for name, region := range map[string]*Region{"file": newFile(t, size), "memory": newMemory(t, size)} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			model := make([]byte, size)
			src := make([]byte, size)
			for i := range src {
				src[i] = byte(rng.Uint32())
			}
			for i := range 3000 {
				off := rng.Int64N(size)
				n := rng.Int64N(min(size-off, 1<<rng.IntN(20)) + 1)
				from := rng.Int64N(size - n + 1)
				data := src[from : from+n]
				var err error
				switch primitive := rng.IntN(6); primitive {
				case 0:
					err = region.Store(off, data)
					copy(model[off:], data)
				case 1:
					err = region.NTStore(off, data)
					copy(model[off:], data)
				case 2:
					err = region.NTZero(off, n)
					clear(model[off : off+n])
				case 3:
					off &^= 7
					word := rng.Uint64()
					err = region.Store8(off, word)
					binary.LittleEndian.PutUint64(model[off:], word)
				case 4:
					err = region.Flush(off, n)
					region.Fence()
				case 5:
					err = errors.Join(region.FlushFence(off, n), region.Sync(off, n))
				}
				if err != nil {
					t.Fatal(err)
				}
				if lo, hi := max(0, off-64), min(size, off+n+64); !bytes.Equal(region.Bytes(lo, hi-lo), model[lo:hi]) {
					t.Fatalf("step %d: offset %d length %d differs", i, off, n)
				}
			}
			got := make([]byte, size)
			if err := region.Load(0, got); err != nil || !bytes.Equal(got, model) {
				t.Fatalf("Load differs, error %v", err)
			}
			var line [64]byte
			if err := region.LoadLine(640, &line); err != nil || !bytes.Equal(line[:], model[640:704]) {
				t.Fatalf("LoadLine differs, error %v", err)
			}
		})
	}
}

// TestNoAllocs checks that no primitive allocates, as doc.go says.
func TestNoAllocs(t *testing.T) {
	src := make([]byte, 5000)
	dst := make([]byte, 5000)
	var line [64]byte
	for name, r := range map[string]*Region{"file": newFile(t, 1<<20), "memory": newMemory(t, 1<<20)} {
		for op, f := range map[string]func(){
			"Bytes":      func() { _ = r.Bytes(64, 4096) },
			"Load":       func() { r.Load(13, dst) },
			"LoadLine":   func() { r.LoadLine(128, &line) },
			"Store8":     func() { r.Store8(8, 7) },
			"Store":      func() { r.Store(64, src[:128]) },
			"NTStore":    func() { r.NTStore(13, src) },
			"NTZero":     func() { r.NTZero(13, 5000) },
			"Flush":      func() { r.Flush(13, 5000) },
			"Fence":      func() { r.Fence() },
			"FlushFence": func() { r.FlushFence(13, 5000) },
			"Sync":       func() { r.Sync(13, 5000) },
		} {
			if n := testing.AllocsPerRun(100, f); n != 0 {
				t.Errorf("%s on %s: %v allocations", op, name, n)
			}
		}
	}
}

func TestRanges(t *testing.T) {
	region := newMemory(t, 8192)
	buf := make([]byte, 10)
	var line [64]byte
	for _, off := range []int64{-1, -1 << 63, 8183, 8192, 1 << 40, 1<<63 - 1} {
		for name, err := range map[string]error{
			"Load": region.Load(off, buf), "LoadLine": region.LoadLine(off, &line),
			"Store8": region.Store8(off, 1), "Store": region.Store(off, buf), "NTStore": region.NTStore(off, buf),
			"NTZero": region.NTZero(off, 10), "Flush": region.Flush(off, 10), "FlushFence": region.FlushFence(off, 10),
			"Sync": region.Sync(off, 10),
		} {
			if !errors.Is(err, ErrRange) {
				t.Errorf("%s at %d: error %v", name, off, err)
			}
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Bytes at %d did not panic", off)
				}
			}()
			region.Bytes(off, 10)
		}()
	}
	for _, err := range []error{region.NTZero(0, -1), region.Flush(64, -64), region.Store8(4, 1), region.Store8(8188, 1)} {
		if !errors.Is(err, ErrRange) {
			t.Errorf("error %v", err)
		}
	}
	for _, err := range []error{
		region.Load(8192, nil), region.Store(8192, nil), region.NTStore(8192, nil), region.NTZero(8192, 0),
		region.Flush(8192, 0), region.FlushFence(8192, 0), region.Sync(8192, 0), region.Store8(8184, 1), region.LoadLine(8128, &line),
	} {
		if err != nil {
			t.Errorf("at the end: %v", err)
		}
	}
	region.Close()
	for _, err := range []error{region.Load(0, buf), region.Store(0, buf), region.Flush(0, 1)} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

func TestReadOnly(t *testing.T) {
	path := newFile(t, 8192).Path()
	r, err := Open(path, Options{ReadOnly: true, Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b := make([]byte, 10)
	for _, err := range []error{r.Store8(0, 1), r.Store(0, b), r.NTStore(0, b), r.NTZero(0, 1), r.Flush(0, 1), r.FlushFence(0, 1)} {
		if !errors.Is(err, ErrReadOnly) {
			t.Errorf("error %v", err)
		}
	}
	if err := errors.Join(r.Load(0, b), r.Sync(0, 8192)); err != nil {
		t.Error(err)
	}
}

// TestConcurrent has goroutines store to separate lines. Under the race detector it shows that
// flushes and fences neither race with their neighbours nor hide a race.
func TestConcurrent(t *testing.T) {
	r := newMemory(t, 1<<16)
	var wg sync.WaitGroup
	for g := range int64(4) {
		wg.Go(func() {
			var line [64]byte
			for i := range int64(200) {
				off := (i*4 + g) % 1024 * 64
				line[0] = byte(i)
				r.Store(off, line[:])
				r.Flush(off&^4095, 4096)
				r.Fence()
				r.NTStore(off, line[:])
				r.Store8(off, uint64(i))
				r.LoadLine(off, &line)
			}
		})
	}
	wg.Wait()
}

func BenchmarkPrimitives(b *testing.B) {
	r := newFile(b, 64<<20)
	src := make([]byte, 4096)
	var line [64]byte
	run := func(name string, n int64, f func(off int64)) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(n)
			b.ReportAllocs()
			for i := range int64(b.N) {
				f(i * 4096 & (64<<20 - 1))
			}
		})
	}
	run("LoadLine", 64, func(off int64) { r.LoadLine(off&0xffff, &line) })
	run("Load4K", 4096, func(off int64) { r.Load(off, src) })
	run("Store8", 8, func(off int64) { r.Store8(off&0xffff, 1) })
	run("StoreFlushFence", 64, func(off int64) {
		r.Store(off&0xffff, line[:])
		r.FlushFence(off&0xffff, 64)
	})
	run("NTStore4K", 4096, func(off int64) { r.NTStore(off, src); r.Fence() })
	run("NTZero4K", 4096, func(off int64) { r.NTZero(off, 4096); r.Fence() })
}
