package fs_test

import (
	"bytes"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fstest"
)

// TestPinnedReadOfShared checks that a pinned read does not change until Done, though its blocks
// meanwhile belong to another file alone, and that file is written.
func TestPinnedReadOfShared(t *testing.T) {
	for name, leave := range map[string]func(v *volume, a uint64){
		"truncated": func(v *volume, a uint64) {
			v.Truncate(a, 0)
		},
		"overwritten": func(v *volume, a uint64) { v.Write(a, 3200, make([]byte, 3*4096)) },
	} {
		t.Run(name, func(t *testing.T) {
			v := newVolume(t, fs.MinSize)
			a, b := v.Create("/a"), v.Create("/b")
			data := randomBytes(1, 4*4096)
			v.Write(a, 0, data)
			v.Clone(a, 0, b, 0, int64(len(data)))
			r := v.FS.NewPinnedRead()
			defer r.Free()
			v.OK(v.FS.Read(&v.Ctx, a, 100, 3000, r))
			done := make(chan struct{})
			go func() { // waits for the pinned read only in its range
				defer close(done)
				leave(v, a)
			}()
			select {
			case <-done:
			case <-time.After(300 * time.Millisecond):
			}
			v.Write(b, 0, bytes.Repeat([]byte("x"), 4*4096))
			if got := bytes.Join(r.Slices(), nil); !bytes.Equal(got, data[100:3100]) {
				t.Error("the pinned read has the data of another file")
			}
			r.Done()
			<-done
		})
	}
}

// TestMountManyOwners mounts a block with the largest number of owners that can be counted, in a
// folio whose other blocks have other numbers.
func TestMountManyOwners(t *testing.T) {
	const owners = 131071
	v := newVolume(t, 64<<20)
	a, b, c := v.Create("/a"), v.Create("/b"), v.Create("/c")
	v.Write(a, 0, randomBytes(1, pmdBytes))
	v.Clone(a, pmdBytes-4096, b, 0, 4096)
	for i := range int64(owners - 1) {
		v.Clone(a, 0, c, i*8192, 4096)
	}
	d := v.Create("/d")
	v.Clone(a, 0, d, 0, 4096) // copied, because a has as many owners as can be counted
	if got := v.Read(d, 0, 4096); !bytes.Equal(got, v.Read(a, 0, 4096)) {
		t.Error("wrong copy")
	}
	v.Remount()
	for _, ino := range []uint64{b, c, d} {
		if got := v.Read(ino, 0, 1); len(got) != 1 {
			t.Error("nothing to read")
		}
	}
}

// TestMountPartlyOwned checks that the time of a mount grows no faster than the number of extents,
// however they share a folio.
func TestMountPartlyOwned(t *testing.T) {
	if testing.Short() {
		t.Skip("short: measures time")
	}
	const size = 128 << 20
	v := fstest.Format(t, fstest.Memory(t, 4*size), fs.MkfsOptions{ChunkShift: 21, PUDShift: 27, Now: 1, UUID: [16]byte{1}}, fs.Options{})
	a, b := v.Create("/a"), v.Create("/b")
	v.Fallocate(a, 0, 0, size)
	for off := int64(0); off < size; off += 1 << 20 {
		v.Write(a, off, make([]byte, 1<<20))
	}
	if n := v.FS.Stats().Folios1G; n != 1 {
		t.Fatalf("%d PUD folios", n)
	}
	v.Clone(a, 0, b, 0, size)
	for off := int64(0); off < size; off += 8192 {
		v.Write(b, off, []byte("x"))
	}
	was := v.FS.Stats()
	start := time.Now()
	v.Remount()
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("unmount and mount took %v", took)
	}
	if s := v.FS.Stats(); s.FreeBlocks != was.FreeBlocks || s.SharedBytes != was.SharedBytes {
		t.Errorf("after the mount %d blocks free, %d bytes shared; before %d, %d", s.FreeBlocks, s.SharedBytes, was.FreeBlocks, was.SharedBytes)
	}
}

// TestCompactSparse checks that the time of compaction depends on allocated blocks, not on the
// file's size.
func TestCompactSparse(t *testing.T) {
	v := newVolume(t, 64<<20)
	a := v.Create("/a")
	v.Write(a, pudBytes, make([]byte, pudBytes))
	v.Write(a, 1<<50, []byte("x"))
	v.Truncate(a, 1<<62)
	v.Remount()
	start := time.Now()
	if _, e := v.FS.Compact(&v.Ctx); e != 0 {
		t.Error(e)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

// TestZeroSharedFull checks that zeroing shared blocks takes space, and changes nothing without it.
func TestZeroSharedFull(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	a, b, fill := v.Create("/a"), v.Create("/b"), v.Create("/fill")
	data := randomBytes(1, 64*4096)
	v.Write(a, 0, data)
	v.Clone(a, 0, b, 0, int64(len(data)))
	for n := int64(v.Free()-10) << 12; n > 0; n -= 4096 {
		if e := v.FS.Fallocate(&v.Ctx, fill, 0, 0, n); e == 0 {
			break
		} else if e != syscall.ENOSPC {
			t.Fatal(e)
		}
	}
	if e := v.FS.Fallocate(&v.Ctx, b, fs.FallocZeroRange, 100, int64(len(data))-200); e != syscall.ENOSPC {
		t.Errorf("zeroing what is shared on a full filesystem: %v", e)
	}
	if !bytes.Equal(v.Read(b, 0, len(data)), data) {
		t.Error("a part was zeroed all the same")
	}
	v.Delete("/fill")
	v.Fallocate(b, fs.FallocZeroRange, 100, int64(len(data))-200)
	clear(data[100 : len(data)-100])
	if !bytes.Equal(v.Read(b, 0, len(data)), data) {
		t.Error("wrong content")
	}
}
