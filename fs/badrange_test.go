package fs_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/badmem"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// TestKernelBadblocks checks that blocks on the kernel's list are neither read nor allocated, and
// stay known when the list is gone. Files keep the rest of their data, and lose their bad blocks
// when these are overwritten or removed. A mount by the free map and one by a scan agree.
func TestKernelBadblocks(t *testing.T) {
	v := newDevVolume(t, 64<<20)
	v.Mount()
	v.Mkdir("/dir")
	ino := v.Create("/dir/file")
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<12) // 16 blocks
	v.Write(ino, 0, data)
	other := v.Create("/other")
	v.Write(other, 0, data)
	e := v.Extents(ino)[0]
	before := v.Free()
	v.Unmount()

	// Sectors of the file's blocks 3 and 4, one free metadata block and three free data blocks.
	sb := v.Super()
	freeMeta := sb.InodeBase&^(sb.ChunkSize()-1) + sb.ChunkSize() - 4096
	freeData := sb.BackupOff &^ (1<<20 - 1)
	v.poison(pmem.Range{Off: at(e, 3) + 512, Len: 512}, pmem.Range{Off: at(e, 4), Len: 1024}, pmem.Range{Off: freeMeta, Len: 512}, pmem.Range{Off: freeData + 4096, Len: 3 * 4096})
	if rep := v.lost("/dir/file 12288+8192"); rep.BadBlocks != 6 {
		t.Errorf("%d bad blocks", rep.BadBlocks)
	}
	v.MountWith(fs.Options{ReadOnly: true})
	if _, e := v.Take(ino, 12288, 1); e != syscall.EIO {
		t.Errorf("reading a bad block, mounted read-only: %v", e)
	}
	v.Unmount()
	if bad, err := badmem.Known(v.R, sb); err != nil || len(bad) != 3 {
		t.Errorf("bad ranges %v, %v", bad, err)
	}

	check := func(how string) {
		t.Helper()
		if got := v.Free(); got != before-4 {
			t.Errorf("%s: %d blocks are free of %d, expected 4 less", how, got, before)
		}
		s := v.FS.Stats()
		if s.BadRanges != 3 || s.BadBytes != 6<<12 || s.OfflineBytes != 3<<12 {
			t.Errorf("%s: %d bad ranges, %d bytes, %d retired", how, s.BadRanges, s.BadBytes, s.OfflineBytes)
		}
		for b := int64(0); b < 16; b++ {
			want := syscall.Errno(0)
			if b == 3 || b == 4 {
				want = syscall.EIO
			}
			got, e := v.Take(ino, b<<12, 4096)
			if e != want || e == 0 && !bytes.Equal(got, data[:4096]) {
				t.Errorf("%s: block %d of the file: %v", how, b, e)
			}
		}
		if _, e := v.Take(ino, 0, len(data)); e != syscall.EIO {
			t.Errorf("%s: reading all: %v", how, e)
		}
		if got, e := v.Take(other, 0, len(data)); e != 0 || !bytes.Equal(got, data) {
			t.Errorf("%s: the other file: %v", how, e)
		}
	}
	v.Mount()
	if !v.FS.Stats().FreeMap {
		t.Error("not mounted by the free map")
	}
	check("by the free map")
	v.poison() // from now on only the filesystem's list knows
	v.Crash()
	v.Mount()
	check("by a scan, after a crash")
	v.Unmount()
	v.lost("/dir/file 12288+8192")
	v.Mount()
	check("by the next free map")

	// A write of a part of a bad block fails. A write of the whole block succeeds, and the old
	// block goes offline.
	if n, e := v.FS.Write(&v.Ctx, ino, 3<<12+100, []byte("hello")); n != 0 || e != syscall.EIO {
		t.Errorf("a write into a bad block: %d, %v", n, e)
	}
	if n, e := v.FS.Write(&v.Ctx, ino, 3<<12+100, make([]byte, 4096)); n != 0 || e != syscall.EIO {
		t.Errorf("a write across two bad blocks: %d, %v", n, e)
	}
	if e := v.FS.Fallocate(&v.Ctx, ino, fs.FallocZeroRange, 3<<12+100, 200); e != syscall.EIO {
		t.Errorf("zeroing a part of a bad block: %v", e)
	}
	copyTo := v.Create("/copy")
	n, s := v.FS.CopyRange(&v.Ctx, ino, 0, copyTo, 0, int64(len(data)))
	if n > 3<<12 {
		t.Errorf("copied %d bytes, %v", n, s)
	}
	v.Write(ino, 2<<12+7, bytes.Repeat([]byte("x"), 2<<12-7))
	if got, e := v.Take(ino, 2<<12, 2<<12); e != 0 || !bytes.Equal(got, append(bytes.Clone(data[:7]), bytes.Repeat([]byte("x"), 2<<12-7)...)) {
		t.Errorf("after the overwrite: %v", e)
	}
	if got := v.FS.Stats().OfflineBytes; got != 4<<12 {
		t.Errorf("%d bytes are retired", got)
	}
	v.Unmount()
	v.lost("/dir/file 16384+4096")
	v.Mount()
	v.Unlink("/dir/file")
	v.Unlink("/other")
	v.Unlink("/copy")
	v.Rmdir("/dir")
	if got := v.FS.Stats().OfflineBytes; got != 5<<12 {
		t.Errorf("%d bytes are retired in the end", got)
	}
	free := v.Free()
	v.Unmount()
	v.lost()
	v.MountWith(fs.Options{Scan: true})
	if got := v.Free(); got != free {
		t.Errorf("%d blocks free by a scan, %d before", got, free)
	}
	// All free space can be allocated, and none of it is bad.
	ino = v.Create("/all")
	var st fs.StatFS
	v.FS.StatFS(&st)
	v.Fallocate(ino, 0, 0, int64(st.Bavail)<<12)
	for _, x := range v.Extents(ino) {
		for _, b := range []int64{at(e, 3), at(e, 4), freeData + 4096, freeData + 3*4096} {
			if b>>12 >= int64(x.Block) && b>>12 < int64(x.Block+x.Len) {
				t.Errorf("the bad block %d was allocated", b>>12)
			}
		}
	}
	v.Unmount()
	v.lost()
}

// TestTruncatedRegion checks that the end of a region that is cut off while mounted gives EIO to
// its first reader or writer, and is known from then on, also to the next mount. Everything else
// works.
func TestTruncatedRegion(t *testing.T) {
	for _, atomic := range []bool{false, true} {
		t.Run(fmt.Sprint("atomic=", atomic), func(t *testing.T) {
			v := newDevVolume(t, 64<<20)
			v.Options.Atomic = atomic
			v.Mount()
			data := bytes.Repeat([]byte("0123456789abcdef"), 1<<12)
			keep, gone := v.Create("/keep"), v.Create("/gone")
			v.Write(keep, 0, data)
			v.Write(gone, 0, data)
			x := v.Extents(gone)[0]
			image, err := os.ReadFile(v.path)
			if err != nil {
				t.Fatal(err)
			}
			// The file behind the fake device loses block 5 and all later ones for a while.
			if err := os.Truncate(v.path, at(x, 5)); err != nil {
				t.Fatal(err)
			}
			if _, e := v.Take(gone, 5<<12+9, 10); e != syscall.EIO {
				t.Errorf("reading what is gone: %v", e)
			}
			if n, e := v.FS.Write(&v.Ctx, gone, 7<<12+1, []byte("x")); n != 0 || e != syscall.EIO {
				t.Errorf("writing what is gone: %d, %v", n, e)
			}
			if got, e := v.Take(gone, 0, 5<<12); e != 0 || !bytes.Equal(got, data[:5<<12]) {
				t.Errorf("reading what is left: %v", e)
			}
			if got, e := v.Take(keep, 0, len(data)); e != 0 || !bytes.Equal(got, data) {
				t.Errorf("reading another file: %v", e)
			}
			v.Write(keep, 100, []byte("hello"))
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
					if _, e := v.Take(gone, b<<12, 4096); e != want {
						t.Errorf("%s: block %d: %v", how, b, e)
					}
				}
			}
			check("it is there again, but was not")
			v.Unmount()
			v.lost("/gone 20480+4096", "/gone 28672+4096")
			v.Mount()
			if v.FS.Stats().FreeMap == false {
				t.Error("not mounted by the free map")
			}
			check("mounted again")
			v.Write(gone, 5<<12, data[:4096])
			size := uint64(7 << 12)
			v.Truncate(gone, size)
			if s := v.FS.Stats(); s.OfflineBytes != 2<<12 {
				t.Errorf("%d bytes are retired", s.OfflineBytes)
			}
			if got, e := v.Take(gone, 0, len(data)); e != 0 || !bytes.Equal(got, data[:7<<12]) {
				t.Errorf("in the end: %d bytes, %v", len(got), e)
			}
			v.Unmount()
			v.lost()
			v.Mount()
			v.Unmount()
		})
	}
}

// TestBadMetadata checks that a mount that cannot read a structure reports its name and changes
// nothing.
func TestBadMetadata(t *testing.T) {
	v := newDevVolume(t, 64<<20)
	v.Mount()
	v.Create("/file")
	sb := v.Super()
	v.Unmount()
	image := bytes.Clone(v.R.Bytes(0, sb.Size))
	for _, c := range []struct {
		off  int64
		list bool // the range is on the kernel's list; false: the memory faults
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
		f, err := fs.Mount(v.R, fs.Options{Scan: true})
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
			v.Store(0, image) // the failed mount changed the owner record
		} else if !bytes.Equal(v.R.Bytes(0, sb.Size), image) {
			t.Errorf("%s: the mount changed something", name)
		}
	}
	// mkfs fails where its structures would be in bad memory.
	v.poison(pmem.Range{Off: 64 << 10, Len: 512})
	image = bytes.Clone(v.R.Bytes(0, sb.Size))
	if _, err := fs.Mkfs(v.R, fs.MkfsOptions{}); !errors.Is(err, pmem.ErrMedia) || !strings.Contains(err.Error(), "offset 65536") || !bytes.Equal(image, v.R.Bytes(0, sb.Size)) {
		t.Errorf("mkfs: %v", err)
	}
	v.poison()
	v.Mount()
	v.Unmount()
	v.lost()
}

// TestBadListFull checks that more ranges than the list has lines are known while the filesystem is
// mounted, and that no free map without them is saved.
func TestBadListFull(t *testing.T) {
	v := newVolume(t, 64<<20)
	ino := v.Create("/file")
	v.Write(ino, 0, make([]byte, 200<<12))
	for b := int64(0); b < 140; b += 2 {
		if err := v.FS.MarkBad(ino, b<<12, 4096); err != nil {
			t.Fatal(err)
		}
	}
	if s := v.FS.Stats(); s.BadRanges != 70 {
		t.Errorf("%d ranges", s.BadRanges)
	}
	if _, e := v.Take(ino, 138<<12, 1); e != syscall.EIO {
		t.Error(e)
	}
	v.Unmount()
	if v.owner().State == layout.OwnerSaved {
		t.Error("a free map was saved")
	}
	v.Mount()
	if s := v.FS.Stats(); s.BadRanges != layout.LinesPerBlock-1 {
		t.Errorf("%d ranges are on media", s.BadRanges)
	}
	for b := int64(1); b < 140; b += 2 { // every second block, which joins the ranges
		if err := v.FS.MarkBad(ino, b<<12, 4096); err != nil {
			t.Fatal(err)
		}
	}
	v.Unmount()
	want := []string{fmt.Sprint("/file 0+", 126<<12)}
	for b := 127; b < 140; b += 2 {
		want = append(want, fmt.Sprintf("/file %d+4096", b<<12))
	}
	if rep := v.lost(want...); rep.BadRanges != len(want) {
		t.Errorf("%d ranges in the end", rep.BadRanges)
	}
}

// TestTornBadList checks that a torn line of the bad-range list is ignored.
func TestTornBadList(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.Create("/file")
	v.Write(ino, 0, make([]byte, 3<<12))
	if err := v.FS.MarkBad(ino, 4096, 1); err != nil {
		t.Fatal(err)
	}
	v.Crash()
	v.Store(v.Super().BadOff+layout.LineSize, bytes.Repeat([]byte{7}, 32))
	v.lost("/file 4096+4096")
	v.Mount()
	if err := v.FS.MarkBad(ino, 0, 1); err != nil { // reuses the torn line
		t.Fatal(err)
	}
	v.Unmount()
	v.lost("/file 0+8192")
	v.Mount()
}

// TestBadInodeBlock checks that no inode is created in a block that cannot be read, and that the
// other inodes work.
func TestBadInodeBlock(t *testing.T) {
	v := newDevVolume(t, 64<<20)
	v.Mount()
	var inos []uint64
	for i := range 40 {
		inos = append(inos, v.Create(fmt.Sprint("/", i)))
		if i%3 == 0 {
			v.Unlink(fmt.Sprint("/", i))
		}
	}
	sb := v.Super()
	v.Unmount()
	off := sb.InodeOff(inos[20]) &^ 4095 // not the block with the root's inode
	v.poison(pmem.Range{Off: off, Len: 4096})
	image := bytes.Clone(v.R.Bytes(off, 4096))
	spoil(t, v.path, off, 4096, syscall.PROT_NONE)
	v.Mount()
	if !v.FS.Stats().FreeMap {
		t.Fatal("a mount by a scan has to fail")
	}
	if _, e := v.Take(inos[20], 0, 1); e != syscall.EIO {
		t.Errorf("an inode in the block: %v", e)
	}
	v.Write(inos[1], 0, []byte("hello"))
	for i := range 100 {
		v.Write(v.Create(fmt.Sprint("/new", i)), 0, []byte("hello"))
	}
	v.Unmount()
	spoil(t, v.path, off, 4096, syscall.PROT_READ|syscall.PROT_WRITE)
	if !bytes.Equal(image, v.R.Bytes(off, 4096)) {
		t.Error("the block changed")
	}
	rep, err := fsck.Check(v.R, fsck.Options{})
	if err != nil || len(rep.Problems) != 1 || rep.Problems[0].Code != fsck.ExtentReserved {
		t.Errorf("fsck: %v, %+v", err, rep)
	}
}

// TestCompactBad checks that compaction skips PMD blocks with a bad block, since these never become
// free.
func TestCompactBad(t *testing.T) {
	for _, bad := range []bool{false, true} {
		v := newVolume(t, fs.MinSize)
		var inos []uint64
		for i := range 400 { // small files, most of which are removed
			inos = append(inos, v.Create(fmt.Sprint("/f", i)))
			v.Write(inos[i], 0, bytes.Repeat([]byte{byte(i + 1)}, 4096))
		}
		for i := range inos {
			if bad && i%8 == 3 {
				if err := v.FS.MarkBad(inos[i], 0, 1); err != nil {
					t.Fatal(err)
				}
			}
			if i%8 != 3 && i%8 != 5 {
				v.Delete(fmt.Sprint("/f", i))
			}
		}
		if c, e := v.FS.Compact(&v.Ctx); e != 0 || (c.Moved > 0) == bad {
			t.Errorf("bad %v: moved %d, %v", bad, c.Moved, e)
		}
		for i := range inos {
			if i%8 == 3 || i%8 == 5 {
				got, e := v.Take(inos[i], 0, 4096)
				if gone := bad && i%8 == 3; gone != (e == syscall.EIO) || !gone && (e != 0 || got[0] != byte(i+1)) {
					t.Errorf("file %d: %v", i, e)
				}
			}
		}
		v.Unmerged = true
		v.remountBad()
	}
}

// TestOverwriteTruncated checks that a write to memory that was cut off is redirected at once.
func TestOverwriteTruncated(t *testing.T) {
	for _, atomic := range []bool{false, true} {
		t.Run(fmt.Sprint("atomic=", atomic), func(t *testing.T) {
			v := newDevVolume(t, 64<<20)
			v.Options.Atomic = atomic
			v.Mount()
			first, ino := v.Create("/first"), v.Create("/file")
			v.Write(first, 0, make([]byte, 4<<20)) // its blocks are freed below
			v.Write(ino, 0, make([]byte, 1<<20))
			v.Truncate(first, 0)
			x := v.Extents(ino)[0]
			if err := os.Truncate(v.path, at(x, 100)); err != nil {
				t.Fatal(err)
			}
			data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
			n, e := v.FS.Write(&v.Ctx, ino, 0, data)
			for e == 0 && n < len(data) { // without Atomic a write may be short
				var m int
				m, e = v.FS.Write(&v.Ctx, ino, int64(n), data[n:])
				n += m
			}
			if e != 0 {
				t.Errorf("overwriting: %d bytes, %v", n, e)
			}
			if got, e := v.Take(ino, 0, len(data)); e != 0 || !bytes.Equal(got, data) {
				t.Errorf("reading it back: %d bytes, %v", len(got), e)
			}
			if s := v.FS.Stats(); s.OfflineBytes < 156<<12 || s.OfflineBytes != s.BadBytes {
				t.Errorf("%d bytes are retired of %d", s.OfflineBytes, s.BadBytes)
			}
			if err := os.Truncate(v.path, 64<<20); err != nil {
				t.Fatal(err)
			}
			v.Crash()
		})
	}
}
