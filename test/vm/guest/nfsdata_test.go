package guest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/oracle"
)

// data writes by NFS in many sizes and offsets, and truncates and extends. Both sides must read the
// same.
func (e *nfsExport) data(t *testing.T) {
	const size = 3*mib + 4321
	want := oracle.Fill(1, size)
	file, err := os.Create(e.remote("data"))
	must(t, err)
	defer file.Close()
	rng := rand.New(rand.NewPCG(1, 2))
	for off := 0; off < size; {
		n := min(1+rng.IntN(400_000), size-off)
		_, err := file.WriteAt(want[off:off+n], int64(off))
		must(t, err)
		off += n
	}
	for range 50 {
		off := rng.IntN(size)
		n := min(1+rng.IntN(20_000), size-off)
		copy(want[off:], oracle.Fill(rng.Uint64(), int64(n)))
		_, err := file.WriteAt(want[off:off+n], int64(off))
		must(t, err)
	}
	check := func(what string) {
		t.Helper()
		for _, name := range []string{e.local("data"), e.remote("data")} {
			if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %s differs from what was written, %d bytes of %d (%v)", what, name, len(got), len(want), err)
			}
		}
	}
	must(t, file.Sync())
	check("fsync")
	must(t, file.Truncate(1_000_001), file.Sync())
	want = want[:1_000_001]
	check("truncated")
	must(t, file.Truncate(1_500_000), file.Sync())
	want = append(want, make([]byte, 1_500_000-len(want))...)
	check("lengthened")
	must(t, file.Close())
	file, err = os.OpenFile(e.remote("data"), os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = file.Write([]byte("the end"))
	must(t, err, file.Close())
	want = append(want, "the end"...)
	check("appended")
	file, err = os.OpenFile(e.local("data"), os.O_WRONLY, 0)
	must(t, err)
	copy(want[500_000:], oracle.Fill(2, 100_000))
	_, err = file.WriteAt(want[500_000:600_000], 500_000)
	must(t, err, file.Close())
	check("overwritten on the mount")
}

// coherence checks that a read on one side finds the bytes of every write on the other side that
// had returned before the read began, although the server reads files by the kernel's page cache.
// The client uses O_DIRECT, so it has no cache.
func (e *nfsExport) coherence(t *testing.T) {
	const block, rounds = 8192, 60
	must(t, os.WriteFile(e.local("coherence"), make([]byte, block), 0o644))
	there, err := os.OpenFile(e.remote("coherence"), os.O_RDWR|unix.O_DIRECT, 0)
	must(t, err)
	defer there.Close()
	here, err := os.OpenFile(e.local("coherence"), os.O_RDWR, 0)
	must(t, err)
	defer here.Close()
	number := func(content []byte) byte { // the value of a block whose bytes are all the same
		if !bytes.Equal(content[1:], content[:len(content)-1]) {
			t.Errorf("a block has parts of two writes")
		}
		return content[0]
	}
	read := func(side *os.File) byte {
		buf := make([]byte, block)
		_, err := side.ReadAt(buf, 0)
		if err != nil {
			t.Error(err)
			return 0
		}
		return number(buf)
	}
	var written, stop atomic.Uint32
	var readers sync.WaitGroup
	for range 2 { // they fill the server's cache at arbitrary moments
		readers.Go(func() {
			file, err := os.OpenFile(e.remote("coherence"), os.O_RDONLY|unix.O_DIRECT, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer file.Close()
			for stop.Load() == 0 {
				before := byte(written.Load())
				buf := make([]byte, block)
				if _, err := file.ReadAt(buf, 0); err != nil || slices.Min(buf) < before {
					t.Errorf("a reader found %d after write %d had returned (%v)", slices.Min(buf), before, err)
					return
				}
			}
		})
	}
	for i := byte(1); i <= rounds; i++ {
		writer, reader := here, there
		if i%2 == 0 {
			writer, reader = there, here
		}
		_, err := writer.WriteAt(bytes.Repeat([]byte{i}, block), 0)
		must(t, err)
		written.Store(uint32(i))
		if got := read(reader); got != i {
			t.Errorf("round %d: after the write the other side reads %d", i, got)
		}
	}
	stop.Store(1)
	readers.Wait()
}

// full checks that the client gets ENOSPC (or EDQUOT) from a full filesystem, and that there is
// space again after a deletion.
func (e *nfsExport) full(t *testing.T) {
	f, err := os.Create(e.local("filler"))
	must(t, err)
	defer f.Close()
	var st unix.Statfs_t
	must(t, unix.Statfs(e.local(), &st))
	must(t, unix.Fallocate(int(f.Fd()), 0, 0, (int64(st.Bavail)*st.Bsize-2*mib)&^(mib-1)))
	g, err := os.Create(e.remote("too-large"))
	must(t, err)
	_, err = g.Write(make([]byte, 5*mib))
	if err = errors.Join(err, g.Sync(), g.Close()); !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		t.Errorf("5 MiB where there are 2 to 4: %v, want ENOSPC", err)
	}
	must(t, os.Remove(e.remote("too-large")), os.Remove(e.remote("filler")), f.Close(), os.WriteFile(e.remote("room"), make([]byte, 5*mib), 0o644), os.Remove(e.remote("room")))
}

// spaceAndAttributes checks operations that only version 4.2 has: server-side copy, holes, extended
// attributes.
func (e *nfsExport) spaceAndAttributes(t *testing.T) {
	const size = 2 * mib
	want := oracle.Fill(3, size)
	must(t, os.WriteFile(e.remote("source"), want, 0o644))
	src, err := os.Open(e.remote("source"))
	must(t, err)
	defer src.Close()
	dst, err := os.Create(e.remote("copy"))
	must(t, err)
	defer dst.Close()
	shared := e.m.Stats().SharedBytes
	for done := 0; done < size; {
		n, err := unix.CopyFileRange(int(src.Fd()), nil, int(dst.Fd()), nil, size-done, 0)
		if err != nil || n == 0 {
			t.Fatalf("copy_file_range: %d, %v", n, err)
		}
		done += n
	}
	if more := e.m.Stats().SharedBytes - shared; more != size {
		t.Errorf("a copy by the server shares %d bytes, want %d", more, size)
	}
	must(t, unix.Fallocate(int(dst.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 64<<10, 128<<10))
	clear(want[64<<10 : 192<<10])
	for _, name := range []string{e.remote("copy"), e.local("copy")} {
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s has another content (%v)", name, err)
		}
	}
	hole, err1 := dst.Seek(0, unix.SEEK_HOLE)
	data, err2 := dst.Seek(64<<10, unix.SEEK_DATA)
	if hole != 64<<10 || data != 192<<10 || err1 != nil || err2 != nil {
		t.Errorf("the hole is from %d to %d (%v, %v)", hole, data, err1, err2)
	}
	// The server offers extended attributes only if the filesystem's kernel part has a handler for
	// user.*; FUSE has one handler for all names.
	must(t, unix.Setxattr(e.local("copy"), "user.here", []byte("value"), 0))
	if _, err := unix.Getxattr(e.remote("copy"), "user.here", make([]byte, 10)); err != unix.EOPNOTSUPP {
		t.Errorf("an extended attribute by NFS: %v; docs/compatibility.md says that there are none", err)
	}
}

// locks checks that locks taken by NFS exclude locks on the mount, and the other way round.
func (e *nfsExport) locks(t *testing.T) {
	must(t, os.WriteFile(e.remote("lock"), make([]byte, 100), 0o644))
	there, err := os.OpenFile(e.remote("lock"), os.O_RDWR, 0)
	must(t, err)
	defer there.Close()
	here, err := os.OpenFile(e.local("lock"), os.O_RDWR, 0)
	must(t, err)
	defer here.Close()
	lock := func(f *os.File, kind int16, start, n int64) error {
		return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Start: start, Len: n})
	}
	must(t, lock(there, unix.F_WRLCK, 0, 10), lock(here, unix.F_WRLCK, 50, 10))
	if err := lock(here, unix.F_WRLCK, 5, 1); err != unix.EAGAIN {
		t.Errorf("a lock on the mount of what is locked by NFS: %v", err)
	}
	if err := lock(there, unix.F_RDLCK, 50, 1); err != unix.EAGAIN {
		t.Errorf("a lock by NFS of what is locked on the mount: %v", err)
	}
	must(t, lock(there, unix.F_UNLCK, 0, 0), lock(here, unix.F_WRLCK, 5, 1), lock(here, unix.F_UNLCK, 0, 0), lock(there, unix.F_RDLCK, 50, 1))
}
