package fs_test

import (
	"bytes"
	"math/rand"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// TestHint checks which extent size hints there are, that flags and hint change independently, and
// what new entries of a directory get.
func TestHint(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	for size, want := range map[uint64]fs.Hint{0: fs.NoHint, pmdBytes: fs.HintPMD, pudBytes: fs.HintPUD} {
		if h, ok := v.FS.HintOf(size); !ok || h != want || v.FS.HintSize(h) != size {
			t.Errorf("size %d: hint %d, %v, of %d bytes", size, h, ok, v.FS.HintSize(h))
		}
	}
	for _, size := range []uint64{1, 4096, 2 * pmdBytes, pudBytes + 1, 2 << 20, 1 << 30} {
		if h, ok := v.FS.HintOf(size); ok {
			t.Errorf("size %d is the hint %d", size, h)
		}
	}
	f, d := v.Create("/f"), v.Mkdir("/d")
	is := func(ino uint64, flags uint32, h fs.Hint) {
		t.Helper()
		if a := v.Stat(ino); a.Flags != flags || a.Hint != h {
			t.Errorf("inode %d: flags %#x, hint %d, expected %#x and %d", ino, a.Flags, a.Hint, flags, h)
		}
	}
	v.OK(v.FS.SetFlagsAndHint(&v.Ctx, f, layout.FlagNoDump, fs.HintPUD, nil))
	is(f, layout.FlagNoDump, fs.HintPUD)
	v.OK(v.FS.SetFlags(&v.Ctx, f, layout.FlagNoAtime, nil)) // as FS_IOC_SETFLAGS, which knows no hints
	is(f, layout.FlagNoAtime, fs.HintPUD)
	v.OK(v.FS.SetFlagsAndHint(&v.Ctx, d, 0, fs.HintPMD, nil))
	v.Remount()
	is(f, layout.FlagNoAtime, fs.HintPUD)
	is(v.Create("/d/f"), 0, fs.HintPMD)
	is(v.Mkdir("/d/d"), 0, fs.HintPMD)
	is(v.Create("/d/d/f"), 0, fs.HintPMD)
	is(v.Create("/g"), 0, fs.NoHint)
	v.OK(v.FS.SetFlagsAndHint(&v.Ctx, f, 0, fs.NoHint, nil))
	is(f, 0, fs.NoHint)
	for _, flags := range []uint32{layout.FlagHintPMD, layout.FlagHintPUD, 1 << 24} {
		if e := v.FS.SetFlags(&v.Ctx, f, flags, nil); e != syscall.EOPNOTSUPP {
			t.Errorf("flags %#x: %v", flags, e)
		}
		if e := v.FS.SetFlagsAndHint(&v.Ctx, f, flags, fs.NoHint, nil); e != syscall.EOPNOTSUPP {
			t.Errorf("flags %#x with a hint: %v", flags, e)
		}
	}
	is(f, 0, fs.NoHint)
	v.Remount()
}

// TestHintPlaces checks that the blocks of a file with a hint are in place from the first one on,
// however they are allocated, and that nothing is moved for that.
func TestHintPlaces(t *testing.T) {
	const size = 2*pudBytes + 3*pmdBytes
	for _, hint := range []fs.Hint{fs.HintPMD, fs.HintPUD} {
		for name, fill := range map[string]func(v *volume, ino uint64, data []byte){
			"fallocate": func(v *volume, ino uint64, data []byte) {
				v.Fallocate(ino, 0, 0, size)
				v.Write(ino, 0, data)
			},
			"fallocate in pieces": func(v *volume, ino uint64, data []byte) {
				for off := int64(0); off < size; off += 3 * 4096 {
					v.Fallocate(ino, 0, off, min(3*4096, size-off))
				}
				v.Write(ino, 0, data)
			},
			"small writes": func(v *volume, ino uint64, data []byte) {
				for off := 0; off < size; off += 4096 {
					v.Write(ino, int64(off), data[off:off+4096])
				}
			},
			"writes in any order": func(v *volume, ino uint64, data []byte) {
				for _, b := range rand.New(rand.NewSource(1)).Perm(size / pmdBytes) {
					v.Write(ino, int64(b)*pmdBytes, data[b*pmdBytes:(b+1)*pmdBytes])
				}
			},
		} {
			t.Run(name, func(t *testing.T) {
				v := newVolume(t, 32<<20)
				other, ino := v.Create("/other"), v.Create("/f")
				v.Write(other, 0, make([]byte, 5*4096)) // so that nothing is aligned by chance
				v.OK(v.FS.SetFlagsAndHint(&v.Ctx, ino, 0, hint, nil))
				v.FS.SpendMoves()
				data := make([]byte, size)
				rand.New(rand.NewSource(2)).Read(data)
				// The first block alone has its place already.
				v.Write(ino, 0, data[:4096])
				if e := v.Extents(ino)[0]; e.Block%pmdBlocks != 0 || hint == fs.HintPUD && e.Block%pudBlocks != 0 {
					t.Errorf("the first block is %+v", e)
				}
				fill(v, ino, data)
				if n := v.collapsed(ino, pmdBlocks); n != size/pmdBytes {
					t.Errorf("%d of %d PMD ranges are in place: %v", n, size/pmdBytes, v.Extents(ino))
				}
				if n := v.collapsed(ino, pudBlocks); hint == fs.HintPUD && name != "writes in any order" && n != 2 {
					t.Errorf("%d of 2 PUD ranges are in place: %v", n, v.Extents(ino))
				}
				if !bytes.Equal(v.Read(ino, 0, size), data) {
					t.Error("the file is not what was written")
				}
				v.Remount()
			})
		}
	}
}
