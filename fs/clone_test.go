package fs_test

import (
	"bytes"
	"math/rand"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
)

func randomBytes(seed int64, n int) []byte {
	b := make([]byte, n)
	rand.New(rand.NewSource(seed)).Read(b)
	return b
}

// TestClone checks that a copy of whole blocks takes no space and keeps the large folio. A write to
// either file copies only the blocks that it changes, and does not split the other file's folio.
func TestClone(t *testing.T) {
	v := newVolume(t, 64<<20)
	data := randomBytes(1, pudBytes)
	a, b := v.Create("/a"), v.Create("/b")
	v.Write(a, 0, data)
	free := v.Free()
	v.Clone(a, 0, b, 0, pudBytes)
	if s := v.FS.Stats(); v.Free() != free || s.Folios1G != 1 || s.SharedBytes != pudBytes {
		t.Errorf("%d blocks free, were %d: %+v", v.Free(), free, s)
	}
	check := func(ino uint64, want []byte) {
		t.Helper()
		if got := v.Read(ino, 0, len(want)+1); !bytes.Equal(got, want) {
			t.Error("wrong content")
		}
	}
	check(b, data)

	other := append([]byte(nil), data...)
	copy(other[pmdBytes+100:], "written")
	v.Write(b, pmdBytes+100, []byte("written"))
	check(a, data)
	check(b, other)
	if now := v.Free(); now < free-2 { // a block, and a block of slots
		t.Errorf("%d blocks free, were %d", now, free)
	}
	if s := v.FS.Stats(); s.Folios1G != 1 || s.SharedBytes != pudBytes-4096 || s.DeferredFrees != 0 {
		t.Errorf("a write to the copy: %+v", s)
	}
	if n := v.collapsed(a, pudBlocks); n != 1 {
		t.Error("the other one's folio is not whole")
	}
	v.checked() // the mount finds the same owners
	if s := v.FS.Stats(); s.Folios1G != 1 || s.SharedBytes != pudBytes-4096 {
		t.Errorf("after a remount: %+v", s)
	}
	check(a, data)
	check(b, other)

	// Blocks that the copy no longer shares belong to the first file alone, and are written in
	// place.
	free = v.Free()
	v.Write(a, pmdBytes, []byte("x"))
	data[pmdBytes] = 'x'
	if now := v.Free(); now+1 < free {
		t.Errorf("%d blocks free, were %d", now, free)
	}
	check(a, data)
	check(b, other)

	// When one file is removed, the rest of its folio is free, and the other file owns its folio
	// alone.
	v.Delete("/a")
	check(b, other)
	v.checked()
	check(b, other)
	v.Write(b, 0, other)
	if s := v.FS.Stats(); s.SharedBytes != 0 {
		t.Errorf("no blocks are shared, and the statistics are %+v", s)
	}
	check(b, other)
	v.Delete("/b")
	v.checked()
}

// TestCloneShapes checks that holes stay holes, that unaligned ends are copied, that ranges may be
// in one file, and that the old content of the target is replaced.
func TestCloneShapes(t *testing.T) {
	v := newVolume(t, 64<<20)
	src := make([]byte, 300_000)
	a := v.Create("/a")
	for _, r := range [][2]int{{0, 5000}, {40_960, 20_000}, {90_000, 4096}, {131_072, 70_000}} {
		b := randomBytes(int64(r[0]), r[1])
		copy(src[r[0]:], b)
		v.Write(a, int64(r[0]), b)
	}
	v.Truncate(a, 300_000)
	v.Fallocate(a, fs.FallocKeepSize, 250_000, 20_000)
	for i, c := range []struct{ from, to, n int }{
		{0, 0, 300_000}, {4096, 8192, 100_000}, {1, 4097, 150_000}, {1, 2, 50_000}, {40_000, 400_000, 260_000},
		{4095, 8191, 2}, {135_168, 0, 8192}, {100, 4196, 3}, {0, 4096, 4096}, {8192, 100, 4000},
	} {
		b := v.Create("/" + string(rune('A'+i)))
		want := randomBytes(9, 120_000)
		v.Write(b, 0, want)
		v.Clone(a, int64(c.from), b, int64(c.to), int64(c.n))
		if need := c.to + c.n; need > len(want) {
			want = append(want, make([]byte, need-len(want))...)
		}
		copy(want[c.to:c.to+c.n], src[c.from:])
		if !bytes.Equal(v.Read(b, 0, len(want)+1), want) {
			t.Errorf("case %d: wrong content", i)
		}
		v.Write(b, int64(c.to), []byte("changed"))
		copy(want[c.to:], "changed")
		if !bytes.Equal(v.Read(b, 0, len(want)+1), want) || !bytes.Equal(v.Read(a, 0, len(src)), src) {
			t.Errorf("case %d: wrong content after a write", i)
		}
	}
	if off, e := v.FS.Lseek(&v.Ctx, v.Ino("/A"), 8192, 3); e != 0 || off != 40_960 {
		t.Errorf("a hole became data at %d (%v)", off, e)
	}
	// Within one file.
	v.Clone(a, 131_072, a, 0, 65_536)
	copy(src, src[131_072:131_072+65_536])
	if !bytes.Equal(v.Read(a, 0, len(src)), src) {
		t.Error("within one file: wrong content")
	}
	for _, c := range []struct {
		src, dst          uint64
		srcOff, dstOff, n int64
		want              syscall.Errno
	}{
		{a, a, 0, 100, 5000, syscall.EINVAL}, {1, a, 0, 0, 1, syscall.EISDIR}, {a, 1, 0, 0, 1, syscall.EISDIR},
		{a, a, -1, 0, 1, syscall.EINVAL}, {a, v.Ino("/A"), 0, 1<<63 - 100, 300, syscall.EFBIG}, {12345, a, 0, 0, 1, syscall.ESTALE},
	} {
		if _, e := v.FS.CopyRange(&v.Ctx, c.src, c.srcOff, c.dst, c.dstOff, c.n); e != c.want {
			t.Errorf("%+v: %v", c, e)
		}
	}
	if n, e := v.FS.CopyRange(&v.Ctx, a, 300_000, v.Ino("/A"), 0, 10); n != 0 || e != 0 {
		t.Errorf("behind the end: %d, %v", n, e)
	}
	v.checked()
}

// TestCloneTwice checks that shared blocks can be shared again.
func TestCloneTwice(t *testing.T) {
	v := newVolume(t, 16<<20)
	free := v.Free()
	a, b := v.Create("/a"), v.Create("/b")
	data := randomBytes(4, 3*pmdBytes)
	v.Write(a, 0, data)
	for range 3 {
		v.Clone(a, 0, b, 0, int64(len(data)))
		v.Clone(b, pmdBytes, a, pmdBytes, pmdBytes+4096)
	}
	if !bytes.Equal(v.Read(a, 0, len(data)), data) || !bytes.Equal(v.Read(b, 0, len(data)), data) {
		t.Error("wrong content")
	}
	v.RemoveAll(1)
	v.FS.Forget(a, 1)
	v.FS.Forget(b, 1)
	if v.Free() != free {
		t.Errorf("%d blocks free, were %d", v.Free(), free)
	}
	v.checked()
}

// TestCloneSpaceOps checks that truncating, punching, zeroing and growing one file leave the data
// of the other owner alone, whether its folio is busy or not.
func TestCloneSpaceOps(t *testing.T) {
	for _, busy := range []bool{false, true} {
		v := newVolume(t, 64<<20)
		data := randomBytes(3, pudBytes+5000)
		a, b := v.Create("/a"), v.Create("/b")
		v.Write(a, 0, data)
		v.Clone(a, 0, b, 0, int64(len(data)))
		var r *fs.PinnedRead
		if busy {
			r = v.FS.NewPinnedRead()
			v.OK(v.FS.Read(&v.Ctx, a, 0, 100, r))
		}
		want := append([]byte(nil), data...)
		size := func(n int) {
			v.Truncate(b, uint64(n))
			for len(want) < n {
				want = append(want, 0)
			}
			want = want[:n]
		}
		zero := func(mode uint32, off, n int) {
			v.Fallocate(b, mode, int64(off), int64(n))
			clear(want[off : off+n])
		}
		zero(fs.FallocPunchHole|fs.FallocKeepSize, 2*pmdBytes+100, pmdBytes)
		zero(fs.FallocZeroRange, 5*pmdBytes+1, 9000)
		size(6*pmdBytes + 777)
		size(6*pmdBytes + 70_000) // the block of the old end is shared, and its tail zeroed
		size(7*pmdBytes + 10)
		v.Write(b, 9*pmdBytes, []byte("behind"))
		for len(want) < 9*pmdBytes {
			want = append(want, 0)
		}
		want = append(want[:9*pmdBytes], "behind"...)
		if !bytes.Equal(v.Read(b, 0, len(want)+1), want) {
			t.Errorf("busy %t: wrong content", busy)
		}
		if !busy {
			if !bytes.Equal(v.Read(a, 0, len(data)+1), data) {
				t.Error("the other file has changed")
			}
		} else {
			if !bytes.Equal(r.Slices()[0], data[:100]) {
				t.Error("the pinned read has changed")
			}
			r.Done()
			r.Free()
		}
		v.checked()
		if !bytes.Equal(v.Read(b, 0, len(want)+1), want) || !bytes.Equal(v.Read(a, 0, len(data)+1), data) {
			t.Errorf("busy %t: wrong content after a remount", busy)
		}
		v.RemoveAll(1)
		v.FS.Forget(a, 1)
		v.FS.Forget(b, 1)
		if s := v.FS.Stats(); s.Folios1G+s.Folios2M != 0 || s.DeferredFrees != 0 || s.SharedBytes != 0 {
			t.Errorf("with everything deleted: %+v", s)
		}
		v.checked()
	}
}
