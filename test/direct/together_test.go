package direct

import (
	"bytes"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct"
	"github.com/daxfsd/daxfsd/test/harness"
)

// TestTogether writes one file at the same time directly, through a mapping and by the mount, each
// to blocks of its own, while others read. In the end each block has what was written to it last.
func TestTogether(t *testing.T) {
	const blocks = 1024
	m := harness.New(t, 64<<20, limit)
	path := m.Path("f")
	create(t, path, 0, blocks*4096)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := open(t, path, os.O_RDWR)
	mp, err := d.Map(0, blocks*4096, direct.MapOptions{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	defer mp.Close()
	last := make([]byte, blocks) // each writer has its own elements
	var wg sync.WaitGroup
	stop := time.Now().Add(2 * time.Second)
	for w, write := range []func(b []byte, off int64) error{
		func(b []byte, off int64) error { _, err := d.WriteAt(b, off); return err },
		func(b []byte, off int64) error { _, err := f.WriteAt(b, off); return err },
		func(b []byte, off int64) error { copy(mp.Bytes()[off:], b); return mp.Flush(off, 4096) },
	} {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 8))
			for x := byte(1); time.Now().Before(stop); x = x%250 + 1 {
				i := w + 3*rng.IntN(blocks/3)
				last[i] = x
				if err := write(bytes.Repeat([]byte{x}, 4096), int64(i)*4096); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Go(func() {
		rng := rand.New(rand.NewPCG(1, 9))
		b := make([]byte, 20000)
		for time.Now().Before(stop) {
			off := int64(rng.IntN(blocks*4096 - len(b)))
			if n, err := d.ReadAt(b, off); n != len(b) || err != nil {
				t.Errorf("ReadAt: %d, %v", n, err)
				return
			}
		}
	})
	wg.Wait()
	check := func(what string, b []byte, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for i, x := range last {
			if !bytes.Equal(b[i*4096:][:4096], bytes.Repeat([]byte{x}, 4096)) {
				t.Fatalf("%s: block %d of writer %d does not hold %d", what, i, i%3, x)
			}
		}
	}
	if mp.Stale() {
		t.Error("the mapping is stale, though no block was moved")
	}
	check("mapping", mp.Bytes(), nil)
	b := make([]byte, blocks*4096)
	_, err = d.ReadAt(b, 0)
	check("ReadAt", b, err)
	b, err = os.ReadFile(path)
	check("mount", b, err)
	mp.Close()
	d.Close()
	f.Close()
	m.Again()
	b, err = os.ReadFile(path)
	check("the next mount", b, err)
}

// mtime returns the modification time of a file.
func mtime(t *testing.T, path string) time.Time {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}

// TestCommit checks what a program that uses the mount sees after Sync, Flush and Close: the time
// of the last change, and the bytes in a mapping through the mount, which is of the kernel's
// copies.
func TestCommit(t *testing.T) {
	m := harness.New(t, 64<<20, limit)
	path := m.Path("f")
	create(t, path, 1, 8192)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	copies, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(copies)
	d := open(t, path, os.O_RDWR)
	mp, err := d.Map(0, 8192, direct.MapOptions{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	defer mp.Close()
	x := byte(1)
	for name, commit := range map[string]func(b []byte) error{
		"Sync": func(b []byte) error {
			if _, err := d.WriteAt(b, 100); err != nil {
				return err
			}
			return d.Sync()
		},
		"Flush": func(b []byte) error {
			copy(mp.Bytes()[100:], b)
			return mp.Flush(100, int64(len(b)))
		},
		"Close": func(b []byte) error {
			d := open(t, path, os.O_RDWR)
			if _, err := d.WriteAt(b, 100); err != nil {
				return err
			}
			return d.Close()
		},
	} {
		before := mtime(t, path)
		if copies[100] != x {
			t.Fatalf("%s: the mapping through the mount shows %d, want %d", name, copies[100], x)
		}
		time.Sleep(20 * time.Millisecond)
		x++
		if err := commit([]byte{x}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !mtime(t, path).After(before) {
			t.Errorf("%s does not change the time of the last change", name)
		}
		if copies[100] != x {
			t.Errorf("after %s the mapping through the mount shows %d, want %d", name, copies[100], x)
		}
	}
}

// TestNames checks that a file that lost its name, or its name to another one, is still read and
// written directly, and that no other file gets its blocks meanwhile.
func TestNames(t *testing.T) {
	for name, lose := range map[string]func(m *harness.Mount, path string) error{
		"unlink": func(_ *harness.Mount, path string) error { return os.Remove(path) },
		"rename over": func(m *harness.Mount, path string) error {
			create(t, m.Path("new"), 9, 8192)
			return os.Rename(m.Path("new"), path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := harness.New(t, 64<<20, limit)
			path := m.Path("f")
			create(t, path, 1, 8192)
			d := open(t, path, os.O_RDWR)
			mp, err := d.Map(0, 8192, direct.MapOptions{Write: true})
			if err != nil {
				t.Fatal(err)
			}
			defer mp.Close()
			if err := lose(m, path); err != nil {
				t.Fatal(err)
			}
			check := fill(t, m, "others")
			normal, b := d.Normal(), make([]byte, 8192)
			if _, err := d.WriteAt([]byte{2}, 5000); err != nil {
				t.Error(err)
			}
			if _, err := d.ReadAt(b, 0); err != nil || b[0] != 1 || b[5000] != 2 || mp.Bytes()[5000] != 2 || mp.Stale() {
				t.Errorf("ReadAt: %v, %d %d; the mapping has %d, stale %v", err, b[0], b[5000], mp.Bytes()[5000], mp.Stale())
			}
			if n := d.Normal() - normal; n != 0 {
				t.Errorf("%d calls went the normal way", n)
			}
			d.Close()
			copy(mp.Bytes(), "the file has gone, the memory has not")
			if err := mp.Flush(0, 8192); err != nil {
				t.Errorf("Flush: %v", err)
			}
			check()
		})
	}
}
