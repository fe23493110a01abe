package guest

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct"
	"github.com/daxfsd/daxfsd/test/harness"
)

// TestDirect maps a file's own memory on device-dax: by pages of the device, without the page
// cache. A mapping through the mount is the contrast.
func TestDirect(t *testing.T) {
	for _, c := range []struct {
		name       string
		page, size int64 // bytes; the size is that of the file
	}{
		{"devdax-2M", 2 * mib, gib},
		{"devdax-1G", gib, 2 * gib},
	} {
		t.Run(c.name, func(t *testing.T) {
			region, _ := devdax(t, c.page)
			t.Setenv(harness.RegionEnv, region)
			m := harness.NewWith(t, "transport=dev", 0, limit)
			f, err := os.Create(m.Path("file"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			// The rest is a hole, which gets blocks by the grant.
			if err := unix.Fallocate(int(f.Fd()), 0, 0, c.size/2); err != nil {
				t.Fatal(err)
			}
			if err := f.Truncate(c.size); err != nil {
				t.Fatal(err)
			}
			d := openDirect(t, f)
			t.Run("store", func(t *testing.T) { storePages(t, d, c.size, c.page) })
			t.Run("load", func(t *testing.T) { loadPages(t, f, d, c.size, c.page) })
			if c.page == 2*mib {
				t.Run("promote", func(t *testing.T) { promoted(t, m) })
				t.Run("mount", func(t *testing.T) { contrast(t, f) })
				t.Run("nodes", func(t *testing.T) { nodes(t, m) })
			}
		})
	}
}

func openDirect(t *testing.T, f *os.File) *direct.File {
	t.Helper()
	d, err := direct.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// mapAll maps n bytes of a file, and requires that pages of the given size can map all of it.
func mapAll(t *testing.T, d *direct.File, n int64, o direct.MapOptions) *direct.Mapping {
	t.Helper()
	m, err := d.Map(0, n, o)
	if err != nil {
		t.Fatal(err)
	}
	if p := m.PageSizes(); len(p) != 1 || p[0] != (direct.Piece{Off: 0, Length: n, PageSize: o.PageSize}) {
		t.Errorf("the mapping has pieces %+v, want one of %d bytes with pages of %d", p, n, o.PageSize)
	}
	return m
}

// touched calls f, and returns how many page faults that took.
func touched(t *testing.T, f func()) int64 {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &before); err != nil {
		t.Fatal(err)
	}
	f()
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &after); err != nil {
		t.Fatal(err)
	}
	return after.Minflt + after.Majflt - before.Minflt - before.Majflt
}

// wantFaults calls f for a new mapping of n bytes, and requires that it takes exactly one fault for
// each page. A fault of the Go runtime's own may come on top, but not every time.
func wantFaults(t *testing.T, d *direct.File, n int64, o direct.MapOptions, f func(b []byte)) {
	t.Helper()
	var all []int64
	want := n / o.PageSize
	for len(all) < 3 {
		m := mapAll(t, d, n, o)
		got := touched(t, func() { f(m.Bytes()) })
		if page := pageSize(t, m.Bytes()); page != o.PageSize {
			t.Errorf("smaps says that the mapping has pages of %d bytes, want %d", page, o.PageSize)
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		if all = append(all, got); got == want {
			t.Logf("%d faults for %d MiB (runs: %v)", got, n/mib, all)
			return
		}
	}
	t.Errorf("%v faults for %d MiB, want %d", all, n/mib, want)
}

// pageSize returns the size in bytes of the pages that map b, as smaps says.
func pageSize(t *testing.T, b []byte) int64 {
	t.Helper()
	at, size := uint64(addressOf(b)), int64(0)
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	ours := false
	for line := range strings.Lines(string(smaps)) {
		w := strings.Fields(line)
		if lo, hi, ok := strings.Cut(w[0], "-"); ok {
			from, err1 := strconv.ParseUint(lo, 16, 64)
			to, err2 := strconv.ParseUint(hi, 16, 64)
			ours = err1 == nil && err2 == nil && from <= at && at < to
		} else if ours && w[0] == "KernelPageSize:" {
			if size, err = strconv.ParseInt(w[1], 10, 64); err != nil {
				t.Fatal(err)
			}
		}
	}
	return size * 1024
}

// storePages stores the number of each page of 4 KiB at its beginning, by a mapping.
func storePages(t *testing.T, d *direct.File, size, page int64) {
	o := direct.MapOptions{Write: true, Allocate: true, PageSize: page}
	wantFaults(t, d, size, o, func(b []byte) {
		for off := 0; off < len(b); off += 4096 {
			binary.LittleEndian.PutUint64(b[off:], uint64(off/4096+1))
		}
	})
}

// sumNumbers adds up the numbers at the beginnings of all pages.
func sumNumbers(b []byte) (sum uint64) {
	for off := 0; off < len(b); off += 4096 {
		sum += binary.LittleEndian.Uint64(b[off:])
	}
	return sum
}

// mostCached is by how much the page cache may grow while a file is read, in bytes, by whatever
// runs in the guest.
const mostCached = mib

// loadPages reads a file by a mapping, by copying and by read(2), and compares what it finds, the
// faults, and the growth of the page cache.
func loadPages(t *testing.T, f *os.File, d *direct.File, size, page int64) {
	pages := uint64(size / 4096)
	want := pages * (pages + 1) / 2
	before := cached(t)
	wantFaults(t, d, size, direct.MapOptions{PageSize: page}, func(b []byte) {
		if sum := sumNumbers(b); sum != want {
			t.Errorf("the numbers of the mapped pages add up to %d, want %d", sum, want)
		}
	})
	m := mapAll(t, d, size, direct.MapOptions{PageSize: page})
	defer m.Close()
	buf := make([]byte, mib)
	for _, r := range []struct {
		what string
		read func([]byte, int64) (int, error)
		n    int64 // bytes
	}{
		{"copied from a mapping", func(p []byte, off int64) (int, error) { return copy(p, m.Bytes()[off:]), nil }, gib},
		{"direct.ReadAt", d.ReadAt, gib},
		{"read(2)", f.ReadAt, 64 * mib},
	} {
		sum, last := uint64(0), uint64(r.n/4096)
		for off := int64(0); off < r.n; off += mib {
			if n, err := r.read(buf, off); n != mib || err != nil {
				t.Fatalf("%s: %d bytes, %v", r.what, n, err)
			}
			sum += sumNumbers(buf)
		}
		if want := last * (last + 1) / 2; sum != want {
			t.Errorf("%s: the numbers of the pages add up to %d, want %d", r.what, sum, want)
		}
		if grown := cached(t) - before; grown >= mostCached {
			t.Errorf("%s: the page cache has grown by %d bytes, want less than %d", r.what, grown, mostCached)
		} else {
			t.Logf("%s: %d MiB; the page cache has grown by %d bytes", r.what, r.n/mib, grown)
		}
	}
}

// promoted maps two sparse files that were written together and in random order, so that their
// blocks lie mixed: no page can map them as they are, and a mapping that asks for large pages makes
// the daemon move the blocks and fill the holes.
func promoted(t *testing.T, m *harness.Mount) {
	const size, part = 6 * mib, 64 << 10
	var files [2]*os.File
	for i := range files {
		f, err := os.Create(m.Path("mixed" + strconv.Itoa(i)))
		if err == nil {
			err = f.Truncate(size)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	buf, sum := make([]byte, part), uint64(0)
	for _, n := range rand.New(rand.NewPCG(1, 2)).Perm(size / part) {
		off := int64(n) * part
		if off%(2*mib) == mib { // a hole in each page
			continue
		}
		for at := int64(0); at < part; at += 4096 {
			binary.LittleEndian.PutUint64(buf[at:], uint64((off+at)/4096))
			sum += uint64((off + at) / 4096)
		}
		for _, f := range files {
			if _, err := f.WriteAt(buf, off); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, f := range files {
		d := openDirect(t, f)
		if _, err := d.Map(0, size, direct.MapOptions{}); !errors.Is(err, direct.ErrLayout) {
			t.Errorf("a mapping of a sparse file: %v, want ErrLayout", err)
		}
		wantFaults(t, d, size, direct.MapOptions{Write: true, Allocate: true, PageSize: 2 * mib}, func(b []byte) {
			if got := sumNumbers(b); got != sum {
				t.Errorf("the numbers of the mapped pages add up to %d, want %d", got, sum)
			}
		})
	}
}

// contrast maps a part of the file through the mount: copies in the page cache, of 4 KiB.
func contrast(t *testing.T, f *os.File) {
	const size = 64 * mib
	before := cached(t)
	b, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(b)
	sum := uint64(0)
	n := touched(t, func() { sum = sumNumbers(b) })
	grown := cached(t) - before
	t.Logf("through the mount %d MiB are %d faults, and the page cache grows by %d bytes", size/mib, n, grown)
	if pages := uint64(size / 4096); sum != pages*(pages+1)/2 {
		t.Errorf("the numbers of the mapped pages add up to %d", sum)
	}
	if n < size/(64<<10) || grown < size-mostCached || pageSize(t, b) != 4096 {
		t.Errorf("%d faults, %d bytes in the page cache, pages of %d bytes: this is no mapping of copies", n, grown, pageSize(t, b))
	}
}

// cached returns the size of the page cache in bytes.
func cached(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if w := strings.Fields(line); w[0] == "Cached:" {
			n, err := strconv.ParseInt(w[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n * 1024
		}
	}
	t.Fatalf("no size of the page cache in %s", b)
	return 0
}
