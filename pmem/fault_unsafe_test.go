package pmem

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestTruncatedUnderMapping cuts the file while it is mapped. Each access beyond the end must be
// ErrMedia with the right offset, and the rest must go on working.
func TestTruncatedUnderMapping(t *testing.T) {
	const size, left = 1 << 20, 64 << 10
	region := newFile(t, size)
	if err := region.Store(0, []byte("still here")); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(region.Path(), left); err != nil {
		t.Fatal(err)
	}
	skipEmulated(t, "SIGBUS comes without its address; TestInaccessible covers the same code")
	buf := make([]byte, 300<<10)
	var line [64]byte
	// Each access begins at the end of the file, or before it.
	access := map[string]func(off int64) error{
		"Load":       func(off int64) error { return region.Load(off, buf) },
		"LoadLine":   func(off int64) error { return region.LoadLine(max(off, left), &line) },
		"Store8":     func(off int64) error { return region.Store8(max(off&^7, left), 1) },
		"Store":      func(off int64) error { return region.Store(off, buf) },
		"NTStore":    func(off int64) error { return region.NTStore(off, buf) },
		"NTZero":     func(off int64) error { return region.NTZero(off, 300<<10) },
		"Flush":      func(off int64) error { return region.Flush(off, left) },
		"FlushFence": func(off int64) error { return region.FlushFence(off, left) },
	}
	for _, setting := range []bool{false, true} {
		debug.SetPanicOnFault(setting)
		for name, call := range access {
			for _, off := range []int64{left, left + 4096 + 13, left - 4096, left - 4096 + 13} {
				err := call(off)
				if strings.HasPrefix(name, "Flush") && err == nil && !flushFaults() {
					continue
				}
				var media MediaError
				if !errors.Is(err, ErrMedia) || !errors.As(err, &media) {
					t.Fatalf("%s at %d: error %v", name, off, err)
				}
				last := int64(left + 2*4096)
				if name == "Load" { // the runtime's copy begins at the end of a chunk
					last = size
				}
				if media.Off < max(left, off&^4095) || media.Off > last || media.Path != region.Path() {
					t.Errorf("%s at %d: the error names %d of %s", name, off, media.Off, media.Path)
				}
			}
		}
		if old := debug.SetPanicOnFault(false); old != setting {
			t.Errorf("SetPanicOnFault was left %v, had been %v", old, setting)
		}
	}
	if err := region.CheckSize(size); !errors.Is(err, ErrTruncated) {
		t.Errorf("CheckSize: %v", err)
	}
	if err := region.CheckSize(left); err != nil {
		t.Error(err)
	}
	if err := region.Load(0, buf[:10]); err != nil || string(buf[:10]) != "still here" {
		t.Fatalf("the rest: %q, error %v", buf[:10], err)
	}
	if err := errors.Join(region.NTStore(13, buf[:1000]), region.Flush(0, left), region.Load(0, buf[:left/2])); err != nil {
		t.Fatal(err)
	}
	region.Fence()
	// If the file gets its size back, the region works there again.
	if err := os.Truncate(region.Path(), size); err != nil {
		t.Fatal(err)
	}
	for name, call := range access {
		if err := call(left); err != nil {
			t.Fatalf("%s after the file grew back: %v", name, err)
		}
	}
}

// TestInaccessible makes a page of both mappings inaccessible. A fault in each assembly function,
// at each of its parts, must be ErrMedia with the exact page.
func TestInaccessible(t *testing.T) {
	const size, bad = 1 << 20, 512 << 10
	r := newFile(t, size)
	for _, b := range [][]byte{r.w, r.ro} {
		if err := unix.Mprotect(b[bad:bad+4096], unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 8192)
	var line [64]byte
	for name, f := range map[string]func() error{
		"Load":           func() error { return r.Load(bad-100, buf[:200]) },
		"LoadLine":       func() error { return r.LoadLine(bad+64, &line) },
		"Store8":         func() error { return r.Store8(bad+8, 1) },
		"Store words":    func() error { return r.Store(bad-64, buf) },
		"Store bytes":    func() error { return r.Store(bad+1, buf[:3]) },
		"Store tail":     func() error { return r.Store(bad-8, buf[:11]) },
		"NTStore head":   func() error { return r.NTStore(bad+4, buf[:100]) },
		"NTStore lines":  func() error { return r.NTStore(bad-64, buf) },
		"NTStore tail":   func() error { return r.NTStore(bad-64, buf[:100]) },
		"NTZero head":    func() error { return r.NTZero(bad+4, 100) },
		"NTZero lines":   func() error { return r.NTZero(bad-64, 8192) },
		"NTZero tail":    func() error { return r.NTZero(bad-64, 100) },
		"Flush":          func() error { return r.Flush(bad-64, 8192) },
		"FlushFence":     func() error { return r.FlushFence(bad+64, 64) },
		"recorded Store": func() error { return recorded(r, func() error { return r.Store(bad, buf) }) },
	} {
		err := f()
		if strings.HasPrefix(name, "Flush") && err == nil && !flushFaults() {
			continue
		}
		var m MediaError
		if !errors.As(err, &m) || m.Off < bad || m.Off >= bad+4096 {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if err := errors.Join(r.NTStore(bad+4096, buf), r.NTZero(bad-4096, 4096), r.Flush(bad-64, 64)); err != nil {
		t.Error(err)
	}
}

// recorded calls f with a recorder installed.
func recorded(r *Region, f func() error) error {
	r.SetRecorder(&log{})
	defer r.SetRecorder(nil)
	return f()
}

// TestForeignFault makes the caller's own buffer fault: that is not an error of the region's media.
func TestForeignFault(t *testing.T) {
	r := newFile(t, 1<<20)
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(page)
	for name, f := range map[string]func() error{
		"Load":    func() error { return r.Load(0, page) },
		"Store":   func() error { return r.Store(0, page) },
		"NTStore": func() error { return r.NTStore(0, page) },
	} {
		func() {
			defer func() {
				if p := recover(); p == nil {
					t.Errorf("%s swallowed a foreign fault", name)
				}
				if debug.SetPanicOnFault(false) {
					t.Errorf("%s left SetPanicOnFault on", name)
				}
			}()
			err := f()
			t.Errorf("%s returned %v", name, err)
		}()
	}
}

// TestStrayStoreFaults stores through Bytes: in this process under SetPanicOnFault, and in another
// without it.
func TestStrayStoreFaults(t *testing.T) {
	r := newFile(t, 1<<20)
	b := r.Bytes(4096, 64)
	if os.Getenv("PMEM_STRAY_STORE") != "" {
		b[0] = 1
		os.Exit(0)
	}
	func() {
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		defer func() {
			if recover() == nil {
				t.Error("a stray store went through")
			}
		}()
		b[0] = 1
	}()
	if b[0] != 0 {
		t.Error("a stray store changed the region")
	}
	c := exec.Command(os.Args[0], "-test.run=^TestStrayStoreFaults$")
	c.Env = append(os.Environ(), "PMEM_STRAY_STORE=1", "TMPDIR="+t.TempDir()) // the process dies without cleaning up
	if out, err := c.CombinedOutput(); err == nil || !bytes.Contains(out, []byte("unexpected fault address")) {
		// Under emulation, the other process may not even start.
		if !errors.Is(err, unix.ENOEXEC) {
			t.Errorf("the process with a stray store: error %v, output %s", err, out)
		}
	}
}

// TestMappingAlignment checks that mappings are at addresses at which large pages fit, and that no
// neighbouring mapping is unmapped.
func TestMappingAlignment(t *testing.T) {
	for _, c := range []struct{ size, align int64 }{{4096, 2 << 20}, {3 << 20, 2 << 20}, {1 << 30, 1 << 30}} {
		path := t.TempDir() + "/region"
		if err := Create(path, c.size, true); err != nil {
			t.Fatal(err)
		}
		r, err := Open(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range [][]byte{r.w, r.ro} {
			if p := uintptr(unsafe.Pointer(&b[0])); p%uintptr(c.align) != 0 {
				t.Errorf("%d bytes are mapped at %#x", c.size, p)
			}
		}
		if err := r.Store8(c.size-8, 5); err != nil {
			t.Error(err)
		}
		if r.Bytes(c.size-8, 8)[0] != 5 {
			t.Error("the two mappings differ")
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}
