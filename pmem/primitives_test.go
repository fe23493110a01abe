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
	for name, r := range map[string]*Region{"file": newFile(t, size), "memory": newMemory(t, size)} {
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
				switch op := rng.IntN(6); op {
				case 0:
					err = r.Store(off, data)
					copy(model[off:], data)
				case 1:
					err = r.NTStore(off, data)
					copy(model[off:], data)
				case 2:
					err = r.NTZero(off, n)
					clear(model[off : off+n])
				case 3:
					off &^= 7
					v := rng.Uint64()
					err = r.Store8(off, v)
					binary.LittleEndian.PutUint64(model[off:], v)
				case 4:
					err = r.Flush(off, n)
					r.Fence()
				case 5:
					err = errors.Join(r.FlushFence(off, n), r.Sync(off, n))
				}
				if err != nil {
					t.Fatal(err)
				}
				if lo, hi := max(0, off-64), min(size, off+n+64); !bytes.Equal(r.Bytes(lo, hi-lo), model[lo:hi]) {
					t.Fatalf("step %d: offset %d length %d differs", i, off, n)
				}
			}
			got := make([]byte, size)
			if err := r.Load(0, got); err != nil || !bytes.Equal(got, model) {
				t.Fatalf("Load differs, error %v", err)
			}
			var line [64]byte
			if err := r.LoadLine(640, &line); err != nil || !bytes.Equal(line[:], model[640:704]) {
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
	r := newMemory(t, 8192)
	b := make([]byte, 10)
	var line [64]byte
	for _, off := range []int64{-1, -1 << 63, 8183, 8192, 1 << 40, 1<<63 - 1} {
		for op, err := range map[string]error{
			"Load": r.Load(off, b), "LoadLine": r.LoadLine(off, &line),
			"Store8": r.Store8(off, 1), "Store": r.Store(off, b), "NTStore": r.NTStore(off, b),
			"NTZero": r.NTZero(off, 10), "Flush": r.Flush(off, 10), "FlushFence": r.FlushFence(off, 10),
			"Sync": r.Sync(off, 10),
		} {
			if !errors.Is(err, ErrRange) {
				t.Errorf("%s at %d: error %v", op, off, err)
			}
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Bytes at %d did not panic", off)
				}
			}()
			r.Bytes(off, 10)
		}()
	}
	for _, err := range []error{r.NTZero(0, -1), r.Flush(64, -64), r.Store8(4, 1), r.Store8(8188, 1)} {
		if !errors.Is(err, ErrRange) {
			t.Errorf("error %v", err)
		}
	}
	for _, err := range []error{
		r.Load(8192, nil), r.Store(8192, nil), r.NTStore(8192, nil), r.NTZero(8192, 0),
		r.Flush(8192, 0), r.FlushFence(8192, 0), r.Sync(8192, 0), r.Store8(8184, 1), r.LoadLine(8128, &line),
	} {
		if err != nil {
			t.Errorf("at the end: %v", err)
		}
	}
	r.Close()
	for _, err := range []error{r.Load(0, b), r.Store(0, b), r.Flush(0, 1)} {
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
