package fs_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/badmem"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// devVolume is a filesystem on a file that is taken for a device-dax node, and the device's list of
// bad blocks. The file can be truncated under it.
type devVolume struct {
	*volume
	path, list string
	o          pmem.Options
}

func newDevVolume(t *testing.T, size int64) *devVolume {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dax0.0")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	o, list, err := pmem.FakeDevDax(t.TempDir(), path)
	if err != nil {
		t.Fatal(err)
	}
	d := &devVolume{volume: &volume{t: t}, path: path, list: list, o: o}
	d.open()
	t.Cleanup(func() { d.r.Close() })
	if _, err := fs.Mkfs(d.r, fs.MkfsOptions{ChunkShift: 15, PUDShift: 18, Now: 1, UUID: [16]byte{1}}); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *devVolume) open() {
	d.t.Helper()
	r, err := pmem.Open(d.path, d.o)
	if err != nil {
		d.t.Fatal(err)
	}
	d.r = r
}

// poison puts the bytes of the region on the kernel's list.
func (d *devVolume) poison(ranges ...pmem.Range) {
	d.t.Helper()
	var b strings.Builder
	for _, r := range ranges {
		fmt.Fprintf(&b, "%d %d\n", r.Off/512, r.Len/512)
	}
	if err := os.WriteFile(d.list, []byte(b.String()), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// get reads as a transport does.
func (v *volume) get(ino uint64, off int64, n int) ([]byte, syscall.Errno) {
	r := v.fs.NewReply()
	defer r.Free()
	if e := v.fs.Read(&v.ctx, ino, off, n, r); e != 0 {
		return nil, e
	}
	b := make([]byte, n)
	m, e := r.Take(b)
	return b[:m], e
}

// lost checks that fsck finds nothing but that files lost data: "path offset+bytes" each.
func (v *volume) lost(want ...string) *fsck.Report {
	v.t.Helper()
	rep, err := fsck.Check(v.r, fsck.Options{})
	if err != nil {
		v.t.Fatal(err)
	}
	got := []string{}
	for _, p := range rep.Problems {
		if p.Code != fsck.LostData {
			v.t.Errorf("fsck: %v", p)
		}
		if !strings.Contains(p.What, p.Path) {
			v.t.Errorf("the path is missing in %q", p.What)
		}
		got = append(got, fmt.Sprintf("%s %d+%d", p.Path, p.FileOffset, p.Bytes))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || rep.LostRanges != len(want) || (len(want) > 0) != (rep.ExitCode() == 4) {
		v.t.Errorf("fsck says that %q is lost, expected %q; exit code %d", got, want, rep.ExitCode())
	}
	return rep
}

func at(e fs.ExtentInfo, block uint64) int64 { return int64(e.Block+block) << layout.BlockShift }

// TestKernelBadblocks: what the kernel lists is not read, not allocated and not lost sight of when
// the list is gone; files keep the rest of their data, and lose what is bad by being overwritten or
// removed. A mount by the free map and one by a scan agree.
func TestKernelBadblocks(t *testing.T) {
	v := newDevVolume(t, 64<<20)
	v.mount()
	dir := v.mkdir(1, "dir")
	ino := v.create(dir, "file")
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<12) // 16 blocks
	v.write(ino, 0, data)
	other := v.create(1, "other")
	v.write(other, 0, data)
	e := v.extents(ino)[0]
	before := v.free()
	v.unmount()

	// Blocks 3 and 4 of the file, of which sectors are bad, one free metadata block and three free
	// ones.
	sb := v.super()
	freeMeta := sb.InodeBase&^(sb.ChunkSize()-1) + sb.ChunkSize() - 4096
	freeData := sb.BackupOff &^ (1<<20 - 1)
	v.poison(pmem.Range{Off: at(e, 3) + 512, Len: 512}, pmem.Range{Off: at(e, 4), Len: 1024}, pmem.Range{Off: freeMeta, Len: 512}, pmem.Range{Off: freeData + 4096, Len: 3 * 4096})
	if rep := v.lost("/dir/file 12288+8192"); rep.BadBlocks != 6 {
		t.Errorf("%d bad blocks", rep.BadBlocks)
	}
	v.mountBy(fs.Options{ReadOnly: true})
	if _, e := v.get(ino, 12288, 1); e != syscall.EIO {
		t.Errorf("reading a bad block, mounted read-only: %v", e)
	}
	v.unmount()
	if bad, err := badmem.Known(v.r, sb); err != nil || len(bad) != 3 {
		t.Errorf("bad ranges %v, %v", bad, err)
	}

	check := func(how string) {
		t.Helper()
		if got := v.free(); got != before-4 {
			t.Errorf("%s: %d blocks are free of %d, expected 4 less", how, got, before)
		}
		s := v.fs.Stats()
		if s.BadRanges != 3 || s.BadBytes != 6<<12 || s.RetiredBytes != 3<<12 {
			t.Errorf("%s: %d bad ranges, %d bytes, %d retired", how, s.BadRanges, s.BadBytes, s.RetiredBytes)
		}
		for b := int64(0); b < 16; b++ {
			want := syscall.Errno(0)
			if b == 3 || b == 4 {
				want = syscall.EIO
			}
			got, e := v.get(ino, b<<12, 4096)
			if e != want || e == 0 && !bytes.Equal(got, data[:4096]) {
				t.Errorf("%s: block %d of the file: %v", how, b, e)
			}
		}
		if _, e := v.get(ino, 0, len(data)); e != syscall.EIO {
			t.Errorf("%s: reading all: %v", how, e)
		}
		if got, e := v.get(other, 0, len(data)); e != 0 || !bytes.Equal(got, data) {
			t.Errorf("%s: the other file: %v", how, e)
		}
	}
	v.mount()
	if !v.fs.Stats().FreeMap {
		t.Error("not mounted by the free map")
	}
	check("by the free map")
	v.poison() // from now on only the filesystem's list knows
	v.fs.Abandon()
	v.mount()
	check("by a scan, after a crash")
	v.unmount()
	v.lost("/dir/file 12288+8192")
	v.mount()
	check("by the next free map")

	// A part of a bad block cannot be written; all of it can, and the block is retired.
	if n, e := v.fs.Write(&v.ctx, ino, 3<<12+100, []byte("hello")); n != 0 || e != syscall.EIO {
		t.Errorf("a write into a bad block: %d, %v", n, e)
	}
	if n, e := v.fs.Write(&v.ctx, ino, 3<<12+100, make([]byte, 4096)); n != 0 || e != syscall.EIO {
		t.Errorf("a write across two bad blocks: %d, %v", n, e)
	}
	if e := v.fs.Fallocate(&v.ctx, ino, fs.FallocZeroRange, 3<<12+100, 200); e != syscall.EIO {
		t.Errorf("zeroing a part of a bad block: %v", e)
	}
	copyTo := v.create(1, "copy")
	n, s := v.fs.CopyRange(&v.ctx, ino, 0, copyTo, 0, int64(len(data)))
	if n > 3<<12 {
		t.Errorf("copied %d bytes, %v", n, s)
	}
	v.write(ino, 2<<12+7, bytes.Repeat([]byte("x"), 2<<12-7))
	if got, e := v.get(ino, 2<<12, 2<<12); e != 0 || !bytes.Equal(got, append(bytes.Clone(data[:7]), bytes.Repeat([]byte("x"), 2<<12-7)...)) {
		t.Errorf("after the overwrite: %v", e)
	}
	if got := v.fs.Stats().RetiredBytes; got != 4<<12 {
		t.Errorf("%d bytes are retired", got)
	}
	v.unmount()
	v.lost("/dir/file 16384+4096")
	v.mount()
	v.ok(v.fs.Unlink(&v.ctx, dir, "file"))
	v.ok(v.fs.Unlink(&v.ctx, 1, "other"))
	v.ok(v.fs.Unlink(&v.ctx, 1, "copy"))
	v.ok(v.fs.Rmdir(&v.ctx, 1, "dir"))
	if got := v.fs.Stats().RetiredBytes; got != 5<<12 {
		t.Errorf("%d bytes are retired in the end", got)
	}
	free := v.free()
	v.unmount()
	v.lost()
	v.mountBy(fs.Options{Scan: true})
	if got := v.free(); got != free {
		t.Errorf("%d blocks free by a scan, %d before", got, free)
	}
	// All that is free can be allocated, and none of it is bad.
	ino = v.create(1, "all")
	var st fs.StatFS
	v.fs.StatFS(&st)
	v.ok(v.fs.Fallocate(&v.ctx, ino, 0, 0, int64(st.Bavail)<<12))
	for _, x := range v.extents(ino) {
		for _, b := range []int64{at(e, 3), at(e, 4), freeData + 4096, freeData + 3*4096} {
			if b>>12 >= int64(x.Block) && b>>12 < int64(x.Block+x.Len) {
				t.Errorf("the bad block %d was allocated", b>>12)
			}
		}
	}
	v.unmount()
	v.lost()
}

// TestTruncatedRegion: what a region loses while it is mounted is EIO, for whoever reads or writes
// it first, and is known then, also to the next mount. Everything else works.
func TestTruncatedRegion(t *testing.T) {
	for _, atomic := range []bool{false, true} {
		t.Run(fmt.Sprint("atomic=", atomic), func(t *testing.T) {
			v := newDevVolume(t, 64<<20)
			v.atomic = atomic
			v.mount()
			data := bytes.Repeat([]byte("0123456789abcdef"), 1<<12)
			keep, gone := v.create(1, "keep"), v.create(1, "gone")
			v.write(keep, 0, data)
			v.write(gone, 0, data)
			x := v.extents(gone)[0]
			image, err := os.ReadFile(v.path)
			if err != nil {
				t.Fatal(err)
			}
			// The file that stands in for the device loses all from block 5 of it on for a while.
			if err := os.Truncate(v.path, at(x, 5)); err != nil {
				t.Fatal(err)
			}
			if _, e := v.get(gone, 5<<12+9, 10); e != syscall.EIO {
				t.Errorf("reading what is gone: %v", e)
			}
			if n, e := v.fs.Write(&v.ctx, gone, 7<<12+1, []byte("x")); n != 0 || e != syscall.EIO {
				t.Errorf("writing what is gone: %d, %v", n, e)
			}
			if got, e := v.get(gone, 0, 5<<12); e != 0 || !bytes.Equal(got, data[:5<<12]) {
				t.Errorf("reading what is left: %v", e)
			}
			if got, e := v.get(keep, 0, len(data)); e != 0 || !bytes.Equal(got, data) {
				t.Errorf("reading another file: %v", e)
			}
			v.write(keep, 100, []byte("hello"))
			if err := os.Truncate(v.path, 64<<20); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(v.path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt(image[at(x, 5):], at(x, 5)); err != nil {
				t.Fatal(err)
			}
			check := func(how string) {
				t.Helper()
				for b := int64(0); b < 16; b++ {
					want := syscall.Errno(0)
					if b == 5 || b == 7 {
						want = syscall.EIO
					}
					if _, e := v.get(gone, b<<12, 4096); e != want {
						t.Errorf("%s: block %d: %v", how, b, e)
					}
				}
			}
			check("it is there again, but was not")
			v.unmount()
			v.lost("/gone 20480+4096", "/gone 28672+4096")
			v.mount()
			if v.fs.Stats().FreeMap == false {
				t.Error("not mounted by the free map")
			}
			check("mounted again")
			v.write(gone, 5<<12, data[:4096])
			size := uint64(7 << 12)
			v.ok(v.fs.SetAttr(&v.ctx, gone, &fs.SetAttr{Valid: fs.SetSize, Size: size}, new(fs.Attr)))
			if s := v.fs.Stats(); s.RetiredBytes != 2<<12 {
				t.Errorf("%d bytes are retired", s.RetiredBytes)
			}
			if got, e := v.get(gone, 0, len(data)); e != 0 || !bytes.Equal(got, data[:7<<12]) {
				t.Errorf("in the end: %d bytes, %v", len(got), e)
			}
			v.unmount()
			v.lost()
			v.mount()
			v.unmount()
		})
	}
}

// badModel is what a file should be: its bytes, and the blocks of which nobody knows them.
type badModel struct {
	ino  uint64
	data []byte
	bad  map[int64]bool
}

// cut ends the file, and what is bad behind its end.
func (m *badModel) cut(size int) {
	for b := range m.bad {
		if b<<12 >= int64(size) {
			delete(m.bad, b)
		}
	}
}

// TestBadRangesRandom: files whose blocks turn bad now and then, and are written, punched, zeroed,
// cut, shared and removed like any: what is read is right or EIO, and what is bad stays out of use,
// whichever way the filesystem is mounted.
func TestBadRangesRandom(t *testing.T) {
	seeds := int64(6)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			v := newVolume(t, fs.MinSize)
			v.atomic, v.unmerged = seed%2 == 1, true
			if v.atomic {
				v.unmount()
				v.mount()
			}
			rnd := rand.New(rand.NewSource(seed))
			files := make([]*badModel, 4)
			marked := 0
			for step := range 600 {
				i := rnd.Intn(len(files))
				if files[i] == nil {
					files[i] = &badModel{ino: v.create(1, fmt.Sprint("f", i)), bad: map[int64]bool{}}
				}
				m := files[i]
				off := rnd.Intn(80_000)
				n := 1 + rnd.Intn(30_000)
				if rnd.Intn(2) == 0 {
					off, n = off&^4095, (n+4095)&^4095
				}
				touches := func(off, n int) (part, any bool) { // partly covers a bad block; covers one at all
					for b := range m.bad {
						lo, hi := int(b)<<12, min(int(b+1)<<12, max(len(m.data), off+n))
						if off < hi && off+n > lo {
							any = true
							part = part || off > lo || off+n < hi
						}
					}
					return part, any
				}
				// A file that grows from within a bad block would have to zero the rest of it.
				grows := func(end int) bool {
					return end > len(m.data) && len(m.data)%4096 != 0 && m.bad[int64(len(m.data)>>12)]
				}
				grow := func(end int) {
					if end > len(m.data) {
						m.data = append(m.data, make([]byte, end-len(m.data))...)
					}
				}
				healed := func(lo, hi int) { // whole blocks
					for b := range m.bad {
						if int(b)<<12 >= lo && (int(b+1)<<12 <= hi || hi >= len(m.data) && int(b)<<12 < hi) {
							delete(m.bad, b)
						}
					}
				}
				switch op := rnd.Intn(12); {
				case op < 5:
					b := make([]byte, n)
					rnd.Read(b)
					part, _ := touches(off, n)
					fails := part || grows(off) || grows(off+n) && off > len(m.data)
					k, e := v.fs.Write(&v.ctx, m.ino, int64(off), b)
					if e == syscall.ENOSPC || k == n && !part {
						grow(off + k)
						copy(m.data[off:], b[:k])
						healed(off, off+k)
						break
					}
					if !fails || e != syscall.EIO && k == n {
						t.Fatalf("step %d: write of %d at %d of %d bytes, bad %v: %d, %v", step, n, off, len(m.data), m.bad, k, e)
					}
					v.resync(m)
				case op < 7:
					if len(m.data) == 0 || marked > 60 {
						break
					}
					at := rnd.Intn(len(m.data)) >> 12
					if v.fs.MarkBad(m.ino, int64(at)<<12, 1) == nil {
						marked++
						v.resyncAll(files)
					}
				case op == 7:
					mode := fs.FallocPunchHole | fs.FallocKeepSize
					if rnd.Intn(2) == 0 {
						mode = fs.FallocZeroRange | fs.FallocKeepSize
					}
					if e := v.fs.Fallocate(&v.ctx, m.ino, mode, int64(off), int64(n)); e != 0 && e != syscall.EIO && e != syscall.ENOSPC {
						t.Fatalf("step %d: fallocate: %v", step, e)
					} else if e == syscall.EIO && len(m.bad) == 0 {
						t.Fatalf("step %d: fallocate fails with nothing bad", step)
					} else if e == 0 && off%4096 == 0 && n%4096 == 0 {
						for b := range m.bad {
							if int(b)<<12 >= off && int(b)<<12 < off+n {
								delete(m.bad, b)
							}
						}
						if off < len(m.data) {
							clear(m.data[off:min(len(m.data), off+n)])
						}
						v.compareBad(m, step)
					}
					v.resync(m)
				case op == 8:
					e := v.fs.SetAttr(&v.ctx, m.ino, &fs.SetAttr{Valid: fs.SetSize, Size: uint64(off)}, new(fs.Attr))
					if e == syscall.EIO && grows(off) {
						break
					}
					v.ok(e)
					grow(off)
					m.data = m.data[:off]
					m.cut(off)
				case op == 9:
					src := files[rnd.Intn(len(files))]
					if src == nil || src == m {
						break
					}
					k, e := v.fs.CopyRange(&v.ctx, src.ino, 0, m.ino, int64(off&^4095), int64(len(src.data)))
					if e != 0 && e != syscall.EIO && e != syscall.ENOSPC || e == syscall.EIO && len(src.bad)+len(m.bad) == 0 {
						t.Fatalf("step %d: copy: %d, %v", step, k, e)
					}
					if e == 0 && len(src.bad) > 0 {
						for b := range src.bad {
							if k > b<<12 {
								t.Fatalf("step %d: copied %d bytes, block %d is bad", step, k, b)
							}
						}
					}
					v.resync(m)
				case op == 10 && rnd.Intn(3) == 0:
					v.ok(v.fs.Unlink(&v.ctx, 1, fmt.Sprint("f", i)))
					v.fs.Forget(m.ino, 1)
					files[i] = nil
				case op == 11 && rnd.Intn(3) == 0:
					if rnd.Intn(2) == 0 {
						v.fs.Abandon()
						v.mount()
					} else {
						v.remountBad()
					}
					for _, f := range files {
						if f != nil {
							v.ok(v.fs.Ref(&v.ctx, f.ino, new(fs.Attr)))
						}
					}
				}
				if files[i] != nil {
					v.compareBad(m, step)
				}
			}
			for _, m := range files {
				if m != nil {
					v.compareBad(m, -1)
				}
			}
			v.remountBad()
			for i, m := range files {
				if m != nil {
					v.ok(v.fs.Unlink(&v.ctx, 1, fmt.Sprint("f", i)))
				}
			}
			v.remountBad()
			if s := v.fs.Stats(); marked == 0 || s.RetiredBytes != s.BadBytes || v.atomic != (s.AtomicWrite > 8) {
				t.Errorf("%d blocks were marked; %d bytes are bad and %d retired", marked, s.BadBytes, s.RetiredBytes)
			}
		})
	}
}

// compareBad reads a file block by block.
func (v *volume) compareBad(m *badModel, step int) {
	v.t.Helper()
	for off := 0; off < len(m.data); off += 4096 {
		want := m.data[off:min(len(m.data), off+4096)]
		got, e := v.get(m.ino, int64(off), 4096)
		if m.bad[int64(off)>>12] {
			if e != syscall.EIO {
				v.t.Fatalf("step %d: inode %d, bad block %d: %v", step, m.ino, off>>12, e)
			}
		} else if e != 0 || !bytes.Equal(got, want) {
			v.t.Fatalf("step %d: inode %d, block %d: %d bytes, %v", step, m.ino, off>>12, len(got), e)
		}
	}
}

// resync takes over what a failed operation left, which may be the old or the new of each byte.
func (v *volume) resync(m *badModel) {
	v.t.Helper()
	var a fs.Attr
	v.ok(v.fs.GetAttr(&v.ctx, m.ino, &a))
	m.data, m.bad = make([]byte, a.Size), map[int64]bool{}
	for off := 0; off < len(m.data); off += 4096 {
		got, e := v.get(m.ino, int64(off), 4096)
		if e != 0 {
			m.bad[int64(off)>>12] = true
		}
		copy(m.data[off:], got)
	}
}

func (v *volume) resyncAll(files []*badModel) {
	for _, m := range files {
		if m != nil {
			v.resync(m)
		}
	}
}

// remountBad is remount, of a filesystem whose files may have lost data.
func (v *volume) remountBad() {
	v.t.Helper()
	before := v.space()
	v.unmount()
	rep, err := fsck.Check(v.r, fsck.Options{})
	if err != nil || rep.Left != rep.LostRanges || !rep.FreeMap {
		v.t.Fatalf("fsck: %v, %+v", err, rep)
	}
	v.mountBy(fs.Options{ReadOnly: true, Scan: true})
	scanned := v.space()
	v.unmount()
	v.mount()
	now := v.space()
	if !v.fs.Stats().FreeMap {
		v.t.Fatal("the free map was not used")
	}
	for _, s := range []*fs.Stats{&before, &now, &scanned} {
		s.Folios4K, s.Folios2M, s.Folios1G, s.Split2M, s.PartlyOwned, s.PMDMappable, s.PUDMappable, s.DeferredFrees = 0, 0, 0, 0, 0, 0, 0, 0
	}
	if before != now || now != scanned {
		v.t.Fatalf("before the unmount:\n%+v, by the free map:\n%+v, by a scan:\n%+v", before, now, scanned)
	}
}

// TestBadMetadata: a mount that cannot read a structure names it, and has changed nothing.
func TestBadMetadata(t *testing.T) {
	v := newDevVolume(t, 64<<20)
	v.mount()
	v.create(1, "file")
	sb := v.super()
	v.unmount()
	image := bytes.Clone(v.r.Bytes(0, sb.Size))
	for _, c := range []struct {
		off  int64
		list bool // on the kernel's list, or else the memory faults
		want string
	}{
		{sb.BadOff, true, "the bad-range list"},
		{sb.LaneOff + 5*int64(sb.LaneSlot), true, "lane 2 of the journal"},
		{sb.LaneOff + 5*int64(sb.LaneSlot), false, "lane 2 of the journal"},
		{sb.ChunkMapOff &^ 4095, true, ""},
		{sb.StaticEnd &^ 4095, false, "the header of metadata chunk"},
		{sb.InodeBase &^ 4095, false, "the block of inodes 1 to 16"},
	} {
		name := fmt.Sprintf("%d by the list %v", c.off, c.list)
		if c.list {
			v.poison(pmem.Range{Off: c.off, Len: 512})
		} else {
			spoil(t, v.path, c.off, 4096, syscall.PROT_NONE)
		}
		f, err := fs.Mount(v.r, fs.Options{Scan: true})
		if err == nil {
			f.Unmount()
			t.Fatalf("%s: mounted", name)
		}
		if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "cannot be read") {
			t.Errorf("%s: %v", name, err)
		}
		v.poison()
		if !c.list {
			spoil(t, v.path, c.off, 4096, syscall.PROT_READ|syscall.PROT_WRITE)
			v.store(0, image) // the owner record says that somebody tried
		} else if !bytes.Equal(v.r.Bytes(0, sb.Size), image) {
			t.Errorf("%s: the mount changed something", name)
		}
	}
	// Nothing is made where the structures would stand on bad memory.
	v.poison(pmem.Range{Off: 64 << 10, Len: 512})
	image = bytes.Clone(v.r.Bytes(0, sb.Size))
	if _, err := fs.Mkfs(v.r, fs.MkfsOptions{}); !errors.Is(err, pmem.ErrMedia) || !strings.Contains(err.Error(), "offset 65536") || !bytes.Equal(image, v.r.Bytes(0, sb.Size)) {
		t.Errorf("mkfs: %v", err)
	}
	v.poison()
	v.mount()
	v.unmount()
	v.lost()
}

// TestBadListFull: more ranges than the list has lines are known as long as the filesystem is
// mounted, and no free map is saved that would not know them.
func TestBadListFull(t *testing.T) {
	v := newVolume(t, 64<<20)
	ino := v.create(1, "file")
	v.write(ino, 0, make([]byte, 200<<12))
	for b := int64(0); b < 140; b += 2 {
		if err := v.fs.MarkBad(ino, b<<12, 4096); err != nil {
			t.Fatal(err)
		}
	}
	if s := v.fs.Stats(); s.BadRanges != 70 {
		t.Errorf("%d ranges", s.BadRanges)
	}
	if _, e := v.get(ino, 138<<12, 1); e != syscall.EIO {
		t.Error(e)
	}
	v.unmount()
	if v.owner().State == layout.OwnerSaved {
		t.Error("a free map was saved")
	}
	v.mount()
	if s := v.fs.Stats(); s.BadRanges != layout.LinesPerBlock-1 {
		t.Errorf("%d ranges are on media", s.BadRanges)
	}
	for b := int64(1); b < 140; b += 2 { // which joins them
		if err := v.fs.MarkBad(ino, b<<12, 4096); err != nil {
			t.Fatal(err)
		}
	}
	v.unmount()
	want := []string{fmt.Sprint("/file 0+", 126<<12)}
	for b := 127; b < 140; b += 2 {
		want = append(want, fmt.Sprintf("/file %d+4096", b<<12))
	}
	if rep := v.lost(want...); rep.BadRanges != len(want) {
		t.Errorf("%d ranges in the end", rep.BadRanges)
	}
}

// TestTornBadList: a line that was torn while it was written says nothing.
func TestTornBadList(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.create(1, "file")
	v.write(ino, 0, make([]byte, 3<<12))
	if err := v.fs.MarkBad(ino, 4096, 1); err != nil {
		t.Fatal(err)
	}
	v.fs.Abandon()
	v.store(v.super().BadOff+layout.LineSize, bytes.Repeat([]byte{7}, 32))
	v.lost("/file 4096+4096")
	v.mount()
	if err := v.fs.MarkBad(ino, 0, 1); err != nil { // takes the torn line
		t.Fatal(err)
	}
	v.unmount()
	v.lost("/file 0+8192")
	v.mount()
}

// TestBadInodeBlock: where inodes cannot be read nothing is created, and what stands elsewhere
// works.
func TestBadInodeBlock(t *testing.T) {
	v := newDevVolume(t, 64<<20)
	v.mount()
	var inos []uint64
	for i := range 40 {
		inos = append(inos, v.create(1, fmt.Sprint(i)))
		if i%3 == 0 {
			v.ok(v.fs.Unlink(&v.ctx, 1, fmt.Sprint(i)))
		}
	}
	sb := v.super()
	v.unmount()
	off := sb.InodeOff(inos[20]) &^ 4095 // not the root's block
	v.poison(pmem.Range{Off: off, Len: 4096})
	image := bytes.Clone(v.r.Bytes(off, 4096))
	spoil(t, v.path, off, 4096, syscall.PROT_NONE)
	v.mount()
	if !v.fs.Stats().FreeMap {
		t.Fatal("a mount by a scan has to fail")
	}
	if _, e := v.get(inos[20], 0, 1); e != syscall.EIO {
		t.Errorf("an inode in the block: %v", e)
	}
	v.write(inos[1], 0, []byte("hello"))
	for i := range 100 {
		v.write(v.create(1, fmt.Sprint("new", i)), 0, []byte("hello"))
	}
	v.unmount()
	spoil(t, v.path, off, 4096, syscall.PROT_READ|syscall.PROT_WRITE)
	if !bytes.Equal(image, v.r.Bytes(off, 4096)) {
		t.Error("the block changed")
	}
	rep, err := fsck.Check(v.r, fsck.Options{})
	if err != nil || len(rep.Problems) != 1 || rep.Problems[0].Code != fsck.ExtentReserved {
		t.Errorf("fsck: %v, %+v", err, rep)
	}
}

// TestCompactBad: compaction leaves ranges alone that have a bad block, and so never become free.
func TestCompactBad(t *testing.T) {
	for _, bad := range []bool{false, true} {
		v := newVolume(t, fs.MinSize)
		var inos []uint64
		for i := range 400 { // small files, most of which go
			inos = append(inos, v.create(1, fmt.Sprint("f", i)))
			v.write(inos[i], 0, bytes.Repeat([]byte{byte(i + 1)}, 4096))
		}
		for i := range inos {
			if bad && i%8 == 3 {
				if err := v.fs.MarkBad(inos[i], 0, 1); err != nil {
					t.Fatal(err)
				}
			}
			if i%8 != 3 && i%8 != 5 {
				v.ok(v.fs.Unlink(&v.ctx, 1, fmt.Sprint("f", i)))
				v.fs.Forget(inos[i], 1)
			}
		}
		if c, e := v.fs.Compact(&v.ctx); e != 0 || (c.Moved > 0) == bad {
			t.Errorf("bad %v: moved %d, %v", bad, c.Moved, e)
		}
		for i := range inos {
			if i%8 == 3 || i%8 == 5 {
				got, e := v.get(inos[i], 0, 4096)
				if gone := bad && i%8 == 3; gone != (e == syscall.EIO) || !gone && (e != 0 || got[0] != byte(i+1)) {
					t.Errorf("file %d: %v", i, e)
				}
			}
		}
		v.unmerged = true
		v.remountBad()
	}
}

// TestOverwriteTruncated: a write over memory that went away goes elsewhere at once.
func TestOverwriteTruncated(t *testing.T) {
	for _, atomic := range []bool{false, true} {
		t.Run(fmt.Sprint("atomic=", atomic), func(t *testing.T) {
			v := newDevVolume(t, 64<<20)
			v.atomic = atomic
			v.mount()
			first, ino := v.create(1, "first"), v.create(1, "file")
			v.write(first, 0, make([]byte, 4<<20)) // whose place is free then
			v.write(ino, 0, make([]byte, 1<<20))
			v.ok(v.fs.SetAttr(&v.ctx, first, &fs.SetAttr{Valid: fs.SetSize}, new(fs.Attr)))
			x := v.extents(ino)[0]
			if err := os.Truncate(v.path, at(x, 100)); err != nil {
				t.Fatal(err)
			}
			data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
			n, e := v.fs.Write(&v.ctx, ino, 0, data)
			for e == 0 && n < len(data) { // ordinary writes may be short
				var m int
				m, e = v.fs.Write(&v.ctx, ino, int64(n), data[n:])
				n += m
			}
			if e != 0 {
				t.Errorf("overwriting: %d bytes, %v", n, e)
			}
			if got, e := v.get(ino, 0, len(data)); e != 0 || !bytes.Equal(got, data) {
				t.Errorf("reading it back: %d bytes, %v", len(got), e)
			}
			if s := v.fs.Stats(); s.RetiredBytes < 156<<12 || s.RetiredBytes != s.BadBytes {
				t.Errorf("%d bytes are retired of %d", s.RetiredBytes, s.BadBytes)
			}
			if err := os.Truncate(v.path, 64<<20); err != nil {
				t.Fatal(err)
			}
			v.fs.Abandon()
		})
	}
}
