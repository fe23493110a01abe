package pmem

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// mapperOf returns a Mapper of a file region of size bytes, and the region as its daemon has it.
func mapperOf(t *testing.T, size int64) (*Mapper, *Region) {
	t.Helper()
	r := newFile(t, size)
	id, err := r.FileID()
	if err != nil {
		t.Fatal(err)
	}
	m, err := OpenMapper(Identity{FileID: id, Size: size, Granule: 4096, Path: r.Path()}, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m, r
}

// windowOf maps parts of a region.
func windowOf(t *testing.T, m *Mapper, parts []Part, o WindowOptions) (*Window, *os.File) {
	t.Helper()
	f, err := m.Open(o.Write)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	w, err := m.Window(f, parts, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w, f
}

// TestWindow maps parts of a region out of order, with zeros between them, and stores and loads.
func TestWindow(t *testing.T) {
	m, r := mapperOf(t, 8<<20)
	if m.Kind() != r.Kind() || m.Align() != r.Align() || m.Size() != r.Size() || m.Path() != r.Path() {
		t.Errorf("%v %d %d %s, the region has %v %d %d %s", m.Kind(), m.Align(), m.Size(), m.Path(), r.Kind(), r.Align(), r.Size(), r.Path())
	}
	parts := []Part{{Off: 4 << 20, At: 0, N: 8192}, {At: 8192, N: 4096, Zeros: true}, {Off: 1 << 20, At: 12288, N: 4096}, {Off: 0, At: 32768, N: 4096, ReadOnly: true}}
	w, _ := windowOf(t, m, parts, WindowOptions{Write: true, Size: 36864, Modulus: 2 << 20, Rest: 4096, Beside: r.file})
	if w.wbase&(2<<20-1) != 4096 {
		t.Errorf("the window begins at %#x, 4096 modulo 2 MiB was asked for", w.wbase)
	}
	data := bytes.Repeat([]byte("0123456789"), 200)
	for at, off := range map[int64]int64{100: 4<<20 + 100, 12288 + 7: 1<<20 + 7} {
		if err := w.NTStore(at, data); err != nil {
			t.Fatal(err)
		}
		w.Fence()
		if !bytes.Equal(r.Bytes(off, int64(len(data))), data) {
			t.Errorf("what was stored at %d of the window is not at %d of the region", at, off)
		}
		got := make([]byte, len(data))
		if err := w.Load(at, got); err != nil || !bytes.Equal(got, data) || !bytes.Equal(w.Bytes(at, int64(len(data))), data) {
			t.Errorf("loading at %d: %v", at, err)
		}
		if err := w.FlushFence(at, int64(len(data))); err != nil {
			t.Error(err)
		}
	}
	if got := w.Bytes(8192, 4096); !bytes.Equal(got, make([]byte, 4096)) {
		t.Error("the zeros are none")
	}
	if err := r.Store8(64, 7); err != nil {
		t.Fatal(err)
	}
	if err := r.Store8(72, 9); err != nil {
		t.Fatal(err)
	}
	if a, b, err := w.LoadPair(32768 + 64); a != 7 || b != 9 || err != nil {
		t.Errorf("LoadPair: %d, %d, %v", a, b, err)
	}
	for v, want := range map[uint64]bool{7: true, 8: false} {
		got := make([]byte, 10)
		if same, err := w.LoadWhile(32768+64, v, 100, got); same != want || err != nil || string(got) != "0123456789" {
			t.Errorf("LoadWhile of %d: %v, %v, %q", v, same, err, got)
		}
	}
	for _, c := range []struct {
		v    uint64
		from int64
		n    int
		same bool
	}{{7, 0, 9, true}, {7, 4, 5, true}, {7, 9, 0, true}, {7, 100, 0, true}, {8, 0, 0, false}} {
		got := make([]byte, 10)
		n, same, err := w.LoadBelow(32768+64, c.v, c.from, 100, got)
		if n != c.n || same != c.same || err != nil || string(got[:n]) != "0123456789"[:n] {
			t.Errorf("LoadBelow %+v: %d, %v, %v, %q", c, n, same, err, got)
		}
	}
	// What cannot be stored to, and what is not mapped, gives an error.
	for _, at := range []int64{8192, 20000, 32768 + 128} {
		if err := w.NTStore(at, data[:100]); err == nil {
			t.Errorf("a store at %d was possible", at)
		}
	}
	for _, err := range []error{w.Load(36864-10, data), w.Load(-1, data), w.NTStore(36864, data[:1]), w.FlushFence(0, 1<<20)} {
		if !errors.Is(err, ErrRange) {
			t.Errorf("beyond the window: %v", err)
		}
	}
}

// TestWindowReadOnly checks that a window to read refuses stores, on a descriptor that allows none.
func TestWindowReadOnly(t *testing.T) {
	m, _ := mapperOf(t, 1<<20)
	w, f := windowOf(t, m, []Part{{N: 4096}}, WindowOptions{Size: 4096})
	if err := w.NTStore(0, []byte{1}); !errors.Is(err, ErrReadOnly) {
		t.Errorf("NTStore: %v", err)
	}
	if _, err := m.Window(f, []Part{{N: 4096}}, WindowOptions{Size: 4096, Write: true}); !errors.Is(err, unix.EACCES) {
		t.Errorf("a window to write through a descriptor to read: %v", err)
	}
}

// TestWindowFault checks that a fault names the offset in the region, and that the window goes on.
func TestWindowFault(t *testing.T) {
	skipEmulated(t, "the emulator reports another address")
	m, r := mapperOf(t, 8<<20)
	w, _ := windowOf(t, m, []Part{{Off: 6 << 20, At: 0, N: 4096}, {Off: 0, At: 4096, N: 4096}}, WindowOptions{Size: 8192, Write: true})
	if err := os.Truncate(r.Path(), 4<<20); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 8)
	_, _, pairErr := w.LoadPair(8)
	_, whileErr := w.LoadWhile(4096, 0, 8, b)
	_, _, belowErr := w.LoadBelow(4096, 0, -8, 8, b)
	for _, err := range []error{w.Load(8, b), w.NTStore(8, b), pairErr, whileErr, belowErr} {
		var media MediaError
		if !errors.As(err, &media) || media.Off != 6<<20+8 || media.Cause != CauseTruncated {
			t.Errorf("a fault at offset %d: %v", 6<<20+8, err)
		}
	}
	if err := w.Load(4096, b); err != nil {
		t.Errorf("the other part: %v", err)
	}
}

// TestWindowKeepsLock checks that a window keeps its descriptor's locks, until it is closed.
func TestWindowKeepsLock(t *testing.T) {
	m, r := mapperOf(t, 1<<20)
	w, f := windowOf(t, m, []Part{{N: 4096}}, WindowOptions{Size: 4096})
	if err := LockShared(f, 100, 1); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, _, ok, err := r.FirstLock(100, 1); !ok || err != nil {
		t.Errorf("the lock has gone with the descriptor (%v)", err)
	}
	w.Close()
	if _, _, ok, err := r.FirstLock(100, 1); ok || err != nil {
		t.Errorf("the lock is left after the window (%v)", err)
	}
}

// TestOpenMapper checks that the region is found by its identity only.
func TestOpenMapper(t *testing.T) {
	r := newFile(t, 1<<20)
	id, err := r.FileID()
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	good := Identity{FileID: id, Size: 1 << 20, Granule: 4096, Path: r.Path()}
	for _, c := range []struct {
		name   string
		change func(*Identity)
		err    error
		says   string
	}{
		{"another file", func(i *Identity) { i.Path = other }, ErrNotRegion, other},
		{"no file", func(i *Identity) { i.Path = other + "x" }, ErrNotRegion, "inode"},
		{"a directory", func(i *Identity) { i.Path = filepath.Dir(other) }, ErrNotRegion, "inode"},
		{"a device", func(i *Identity) { i.Path, i.Ino = "/dev/null", 0 }, ErrNotRegion, "device"},
		{"a region that was larger", func(i *Identity) { i.Size *= 2 }, ErrTruncated, "1048576"},
	} {
		id := good
		c.change(&id)
		m, err := OpenMapper(id, true)
		if err == nil {
			m.Close()
		}
		if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
