package fs_test

import (
	"bytes"
	"fmt"
	"math/rand"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
)

// collapsed counts the aligned ranges of so many file blocks that lie in one aligned block of the
// region.
func (v *volume) collapsed(ino, blocks uint64) (n int) {
	for _, e := range v.Extents(ino) {
		for b := (e.Logical + blocks - 1) / blocks * blocks; b+blocks <= e.Logical+e.Len; b += blocks {
			if (e.Block+b-e.Logical)%blocks == 0 {
				n++
			}
		}
	}
	return n
}

const (
	pmdBlocks = pmdBytes / 4096
	pudBlocks = pudBytes / 4096
)

// TestCollapse checks that files that grow in turns by small appends are collapsed into large
// folios, and that the space reserved for them is bounded.
func TestCollapse(t *testing.T) {
	v := newVolume(t, 64<<20)
	rnd := rand.New(rand.NewSource(1))
	const files, size = 4, 4*pudBytes + 5000
	var inos [files]uint64
	var data [files][]byte
	for i := range inos {
		inos[i] = v.Create(fmt.Sprint("/f", i))
		data[i] = make([]byte, size)
		rnd.Read(data[i])
	}
	var at [files]int
	for left := files; left > 0; {
		i := rnd.Intn(files)
		n := min(1+rnd.Intn(9000), size-at[i])
		v.Write(inos[i], int64(at[i]), data[i][at[i]:at[i]+n])
		if at[i] += n; n > 0 && at[i] == size {
			left--
		}
	}
	for i, ino := range inos {
		if n := v.collapsed(ino, pmdBlocks); n < size/pmdBytes {
			t.Errorf("file %d: %d of %d PMD ranges are gathered: %v", i, n, size/pmdBytes, v.Extents(ino))
		}
	}
	for range 20 {
		if _, e := v.FS.Compact(&v.Ctx); e != 0 {
			t.Fatal(e)
		}
	}
	s := v.FS.Stats()
	for i, ino := range inos {
		if n := v.collapsed(ino, pudBlocks); n < 4 {
			t.Errorf("file %d: %d of 4 PUD ranges are gathered: %v", i, n, v.Extents(ino))
		}
		if !bytes.Equal(v.Read(ino, 0, size), data[i]) {
			t.Errorf("file %d has changed", i)
		}
	}
	if s.Folios1G != 4*files {
		t.Errorf("%d folios of the third order, expected %d", s.Folios1G, 4*files)
	}
	if limit := uint64(files*size/10 + 64<<20/64); s.MovedBytes == 0 || s.MovedBytes > limit {
		t.Errorf("%d bytes were moved, expected at most %d", s.MovedBytes, limit)
	}
	v.checked()
	for i, ino := range inos {
		if !bytes.Equal(v.Read(ino, 0, size), data[i]) {
			t.Errorf("file %d is not what it was after a remount", i)
		}
	}
}

// crowded returns a volume with a file of one full PUD range, whose reserved PUD block also
// contains blocks of other files.
func crowded(t *testing.T) (v *volume, ino uint64, data []byte, others map[uint64][]byte) {
	v = newVolume(t, 16<<20)
	rnd := rand.New(rand.NewSource(2))
	data = make([]byte, pudBytes)
	rnd.Read(data)
	ino = v.Create("/grown")
	others = map[uint64][]byte{}
	for at, i := 0, 0; at < pudBytes; i++ {
		n := min(6000, pudBytes-at)
		v.Write(ino, int64(at), data[at:at+n])
		at += n
		if i%9 == 4 { // a mount forgets the reservations
			v.Remount()
			o := v.Create(fmt.Sprint("/small", i))
			b := make([]byte, 9000)
			rnd.Read(b)
			v.Write(o, 0, b)
			others[o] = b
		}
	}
	if n := v.collapsed(ino, pudBlocks); n != 0 {
		t.Fatal("no other file has blocks in the PUD block")
	}
	return v, ino, data, others
}

// TestCompact checks that compaction moves blocks out of a PUD block, and that the files are
// unchanged.
func TestCompact(t *testing.T) {
	v, ino, data, others := crowded(t)
	free := v.Free()
	c, e := v.FS.Compact(&v.Ctx)
	if e != 0 || !c.Collapsed || c.Moved == 0 {
		t.Fatalf("%+v, %v", c, e)
	}
	if n := v.collapsed(ino, pudBlocks); n != 1 {
		t.Errorf("not gathered: %v", v.Extents(ino))
	}
	check := func() {
		t.Helper()
		if !bytes.Equal(v.Read(ino, 0, pudBytes), data) {
			t.Error("the file has changed")
		}
		for o, b := range others {
			if !bytes.Equal(v.Read(o, 0, len(b)), b) {
				t.Errorf("inode %d has changed", o)
			}
		}
	}
	check()
	if c, _ := v.FS.Compact(&v.Ctx); c.Collapsed {
		t.Error("gathered twice")
	}
	v.checked()
	check()
	if now := v.Free(); now+4 < free {
		t.Errorf("%d blocks free, were %d", now, free)
	}
	if s := v.FS.Stats(); s.Folios1G != 1 {
		t.Errorf("%d folios of the third order after a remount", s.Folios1G)
	}
}

// TestCompactBusy checks that a folio that a pinned read references is not moved, and that a
// canceled call moves nothing.
func TestCompactBusy(t *testing.T) {
	v, ino, data, _ := crowded(t)
	v.Unmerged = true // a folio that is busy when its range is collapsed stays split
	cancel := make(chan struct{})
	close(cancel)
	if c, e := v.FS.Compact(&fs.Caller{Cancel: cancel}); e != 0 || c.Moved != 0 {
		t.Errorf("cancelled: %+v, %v", c, e)
	}
	r := v.FS.NewPinnedRead()
	v.OK(v.FS.Read(&v.Ctx, ino, 0, 10, r))
	done := make(chan fs.Compaction)
	go func() {
		c, _ := v.FS.Compact(&fs.Caller{Lane: 1})
		done <- c
	}()
	if got := r.Slices()[0]; !bytes.Equal(got, data[:10]) {
		t.Error("the pinned read has changed")
	}
	r.Done()
	r.Free()
	<-done
	if !bytes.Equal(v.Read(ino, 0, pudBytes), data) {
		t.Error("the file has changed")
	}
	v.checked()
}

// TestCompactPacks checks that the small files that are left of many are packed together, so that
// whole PMD blocks become free.
func TestCompactPacks(t *testing.T) {
	v := newVolume(t, 16<<20)
	free := v.FS.Stats().FreeIn2M
	want := map[uint64][]byte{}
	var inos [800]uint64
	for i := range inos {
		ino := v.Create(fmt.Sprint("/f", i))
		inos[i] = ino
		b := bytes.Repeat([]byte{byte(i)}, 4096)
		v.Write(ino, 0, b)
		if i%20 == 7 {
			want[ino] = b
		}
	}
	for i, ino := range inos {
		if want[ino] == nil {
			v.Delete(fmt.Sprint("/f", i))
		}
	}
	before := v.FS.Stats()
	for range 10 {
		if _, e := v.FS.Compact(&v.Ctx); e != 0 {
			t.Fatal(e)
		}
	}
	after := v.FS.Stats()
	if used := free - after.FreeIn2M; used > uint64(len(want)+2*pmdBlocks)*4096+uint64(before.MetaChunks)*pmdBytes || after.FreeIn2M <= before.FreeIn2M {
		t.Errorf("free in large blocks: %d at first, %d of %d before packing, %d after", free, before.FreeIn2M, before.FreeData, after.FreeIn2M)
	}
	for ino, b := range want {
		if !bytes.Equal(v.Read(ino, 0, 4096), b) {
			t.Errorf("inode %d has changed", ino)
		}
	}
	v.checked()
}

// TestReservationsGiveWay checks that the reservations of growing files are given up when space is
// short.
func TestReservationsGiveWay(t *testing.T) {
	v := newVolume(t, 16<<20)
	ino := v.Create("/grows")
	for off := int64(0); off < pudBytes/2; off += 4096 {
		v.Write(ino, off, make([]byte, 4096))
	}
	fill := v.Create("/fill")
	off := int64(0)
	for {
		n, e := v.FS.Write(&v.Ctx, fill, off, make([]byte, 5000))
		if off += int64(n); e == syscall.ENOSPC {
			break
		}
		v.OK(e)
	}
	var s fs.StatFS
	if v.FS.StatFS(&s); s.Bavail > 1 {
		t.Errorf("ENOSPC with %d blocks available", s.Bavail)
	}
	v.checked()
}
