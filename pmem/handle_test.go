package pmem

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHandleNew checks that a new file gets its name when it is kept, and not before. Without
// O_TMPFILE it has its name at once, and loses it if it is not kept.
func TestHandleNew(t *testing.T) {
	for _, noTmpfile := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "region")
		exists := func() bool { _, err := os.Lstat(path); return err == nil }
		begin := func() *Handle {
			t.Helper()
			handle, err := acquire(path, true, hooks{noTmpfile: noTmpfile})
			if err != nil {
				t.Fatal(err)
			}
			if err := handle.Resize(ResizeOptions{Size: 1 << 20}); err != nil {
				t.Fatal(err)
			}
			if exists() != noTmpfile {
				t.Errorf("without O_TMPFILE %v: the name exists: %v", noTmpfile, exists())
			}
			return handle
		}
		begin().Close()
		if exists() {
			t.Fatal("what was not kept was left behind")
		}
		handle := begin()
		region, err := handle.Region()
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(region.NTStore(0, []byte("content")), handle.Keep(), handle.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path, Options{}); !errors.Is(err, ErrBusy) {
			t.Errorf("the region's lock is gone while it is open: %v", err)
		}
		region.Close()
		content, err := os.ReadFile(path)
		if err != nil || len(content) != 1<<20 || string(content[:7]) != "content" {
			t.Errorf("%d bytes that begin with %q, error %v", len(content), content[:7], err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("mode %v, error %v", info.Mode(), err)
		}
	}
}

// TestHandleNameTaken checks that a file which another process makes under the name meanwhile is
// not touched.
func TestHandleNameTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "region")
	h, err := Acquire(path, true)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := errors.Join(h.Resize(ResizeOptions{Size: 1 << 20}), os.WriteFile(path, []byte("other"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := h.Keep(); !errors.Is(err, os.ErrExist) {
		t.Errorf("error %v, want that the name exists", err)
	}
	h.Close()
	if b, err := os.ReadFile(path); string(b) != "other" {
		t.Errorf("the other's file is %q, %v", b, err)
	}
}

// TestHandleOld checks that an existing file grows at once and is cut at the end, and that it is
// unchanged if it is not kept.
func TestHandleOld(t *testing.T) {
	path := filepath.Join(t.TempDir(), "region")
	for _, test := range []struct {
		name         string
		size         int64
		keep         bool
		during, then int64
	}{
		{"grows", 4 << 20, true, 4 << 20, 4 << 20},
		{"grows, undone", 4 << 20, false, 4 << 20, 2 << 20},
		{"is cut", 1 << 20, true, 2 << 20, 1 << 20},
		{"is cut, undone", 1 << 20, false, 2 << 20, 2 << 20},
	} {
		t.Run(test.name, func(t *testing.T) {
			content := make([]byte, 2<<20)
			content[1<<20-1], content[2<<20-1] = 1, 2
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			handle, err := Acquire(path, true)
			if err != nil {
				t.Fatal(err)
			}
			if err := handle.Resize(ResizeOptions{Size: test.size}); err != nil {
				t.Fatal(err)
			}
			region, err := handle.Region()
			if err != nil || region.Size() != test.during {
				t.Fatalf("the region has %d bytes, want %d; error %v", region.Size(), test.during, err)
			}
			if test.keep {
				err = handle.Keep()
			}
			if err := errors.Join(err, region.Close(), handle.Close()); err != nil {
				t.Fatal(err)
			}
			content, err = os.ReadFile(path)
			if err != nil || int64(len(content)) != test.then || content[1<<20-1] != 1 || len(content) > 1<<20 && content[2<<20-1] != 2 {
				t.Errorf("%d bytes, want %d with what they held; error %v", len(content), test.then, err)
			}
			var stat unix.Stat_t
			if err := unix.Stat(path, &stat); err != nil || stat.Blocks*512 > test.then+64<<10 {
				t.Errorf("a file of %d bytes has %d of storage, error %v", stat.Size, stat.Blocks*512, err)
			}
		})
	}
}

// TestHandleCancel checks that an allocation is cancelled between two pieces, and that nothing is
// left of the file.
func TestHandleCancel(t *testing.T) {
	path := filepath.Join(t.TempDir(), "region")
	cancel := make(chan struct{})
	h, err := Acquire(path, true)
	if err != nil {
		t.Fatal(err)
	}
	pieces := 0
	err = h.Resize(ResizeOptions{Size: 4 * allocPiece, Cancel: cancel, Progress: func(done, total int64) {
		if pieces++; done == allocPiece {
			close(cancel)
		}
	}})
	if !errors.Is(err, ErrCancelled) || pieces != 2 {
		t.Errorf("after %d pieces: %v", pieces, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(h.file.Fd()), &st); err != nil || st.Size != 0 || st.Blocks != 0 {
		t.Errorf("%d bytes and %d blocks are left, error %v", st.Size, st.Blocks, err)
	}
	h.Close()
	if _, err := os.Stat(path); err == nil {
		t.Error("the file is left")
	}
}

// TestNextData checks that a region's holes are found, and that looking for them allocates nothing.
func TestNextData(t *testing.T) {
	path := filepath.Join(t.TempDir(), "region")
	if err := Create(path, 16<<20, true); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt([]byte{1}, 5<<20)
	f.WriteAt([]byte{1}, 16<<20-1)
	f.Close()
	r, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, c := range []struct{ off, lo, hi int64 }{
		{0, 5 << 20, 5<<20 + 4096}, {5<<20 + 1, 5<<20 + 1, 5<<20 + 4096}, {5<<20 + 4096, 16<<20 - 4096, 16 << 20}, {16 << 20, 16 << 20, 16 << 20},
	} {
		if lo, hi := r.NextData(c.off); lo != c.lo || hi != c.hi {
			t.Errorf("from %d on: [%d, %d), want [%d, %d)", c.off, lo, hi, c.lo, c.hi)
		}
	}
	m, err := NewMemory(8192)
	if err != nil {
		t.Fatal(err)
	}
	if lo, hi := m.NextData(4096); lo != 4096 || hi != 8192 {
		t.Errorf("of memory everything may be data; got [%d, %d)", lo, hi)
	}
}
