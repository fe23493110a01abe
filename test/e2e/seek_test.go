package e2e

import (
	"bytes"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

// TestSeekKeepsPages checks that SEEK_DATA and SEEK_HOLE do not make the kernel drop a file's
// cached pages: none if no process may have stored through a mapping, and otherwise only those of
// holes.
func TestSeekKeepsPages(t *testing.T) {
	const mib = 1 << 20
	mount := harness.NewWith(t, "dax=never", 64*mib, time.Minute)
	name := mount.Path("f")
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	content := make([]byte, 4*mib)
	for _, off := range []int{0, 2 * mib} {
		copy(content[off:], bytes.Repeat([]byte("d"), mib))
		if _, err := file.WriteAt(content[off:off+mib], int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	if err := file.Truncate(4 * mib); err != nil {
		t.Fatal(err)
	}
	file.Close()

	// reads returns the bytes that the kernel reads from the daemon while a reader seeks for data
	// and holes, and then reads the whole file.
	reads := func() uint64 {
		t.Helper()
		another, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer another.Close()
		read := func() {
			t.Helper()
			buf := make([]byte, 4*mib)
			if _, err := another.ReadAt(buf, 0); err != nil || !bytes.Equal(buf, content) {
				t.Fatalf("other content was read, or %v", err)
			}
		}
		read()
		before := operations(t, mount)["READ"].Bytes
		for _, row := range []struct {
			off    int64
			whence int
			want   int64
		}{
			{0, unix.SEEK_DATA, 0}, {0, unix.SEEK_HOLE, mib}, {mib, unix.SEEK_DATA, 2 * mib}, {mib + 10, unix.SEEK_HOLE, mib + 10},
			{2 * mib, unix.SEEK_HOLE, 3 * mib}, {3 * mib, unix.SEEK_DATA, -1},
		} {
			if at, err := unix.Seek(int(another.Fd()), row.off, row.whence); at != row.want || (err == unix.ENXIO) != (row.want < 0) {
				t.Errorf("seek from %d, %d: %d, %v, want %d", row.off, row.whence, at, err, row.want)
			}
		}
		read()
		return operations(t, mount)["READ"].Bytes - before
	}
	for limit := time.Now().Add(10 * time.Second); reads() > 0; { // RELEASE is sent shortly after close(2)
		if time.Now().After(limit) {
			t.Error("a reader's seeks drop pages though no process has the file open for writing")
			break
		}
		time.Sleep(10 * time.Millisecond)
	}

	writer, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	if n := reads(); n > 2*mib {
		t.Errorf("%d bytes were read anew, more than the holes have", n)
	}
	mem, err := unix.Mmap(int(writer.Fd()), 0, 4*mib, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(mem) }()
	writer.Close() // the mapping keeps the file open for writing
	reader, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	mem[3*mib+500_000] = 'x'
	if at, err := unix.Seek(int(reader.Fd()), 3*mib, unix.SEEK_DATA); err != nil || at > 3*mib+500_000 {
		t.Errorf("what was stored through a mapping: the next data is at %d, %v", at, err)
	}
	mem[mib+5000] = 'x'
	if at, err := unix.Seek(int(reader.Fd()), mib, unix.SEEK_HOLE); err != nil || at < mib || at > mib+4096 {
		t.Errorf("the next hole is at %d, %v", at, err)
	}
	mem[mib] = 'x'
	if at, err := unix.Seek(int(reader.Fd()), mib, unix.SEEK_HOLE); err != nil || at == mib {
		t.Errorf("a hole that was stored to through a mapping is one still: %d, %v", at, err)
	}
}
