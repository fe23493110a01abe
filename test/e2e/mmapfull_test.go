package e2e

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

// TestMmapFull checks that msync(2) fails if bytes stored through a mapping of a sparse file find
// no space, even if some pages of the same request found space. The kernel takes any answer to a
// writeback request other than an error as success for all of its pages.
func TestMmapFull(t *testing.T) {
	mount := harness.New(t, 64<<20, time.Minute)
	const size = 1 << 20 // one request
	file, err := os.OpenFile(mount.Path("f"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	junk, err := os.Create(mount.Path("junk"))
	if err != nil {
		t.Fatal(err)
	}
	end := int64(0) // size of junk in bytes; it takes all but 400 KiB
	for n := int64(32 << 20); n >= 4096; n /= 2 {
		for unix.Fallocate(int(junk.Fd()), 0, end, n) == nil {
			end += n
		}
	}
	if err := junk.Truncate(end - 400<<10); err != nil {
		t.Fatal(err)
	}
	mapping, err := unix.Mmap(int(file.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte{7}, size)
	copy(mapping, want)
	err = errors.Join(unix.Msync(mapping, unix.MS_SYNC), file.Sync(), unix.Munmap(mapping))
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EIO) {
		t.Errorf("storing 1 MiB where 400 KiB are free: %v, want ENOSPC", err)
	}
	if t.Failed() {
		unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED)
		got := make([]byte, size)
		n, err := file.ReadAt(got, 0)
		t.Logf("read back %d %v: %d bytes lost", n, err, bytes.Count(got, []byte{0}))
	}
	file.Close()
	junk.Close()
	mount.Down()
}
