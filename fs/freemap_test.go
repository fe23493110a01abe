package fs_test

import (
	"bytes"
	"fmt"
	"math/bits"
	"math/rand"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

func (v *volume) owner() (o layout.Owner) {
	v.Helper()
	o, ok, err := fs.ReadOwner(v.R, v.Super())
	if err != nil || !ok {
		v.Fatalf("owner record: %t, %v", ok, err)
	}
	return o
}

func (v *volume) setOwner(o layout.Owner) {
	v.Helper()
	sb := v.Super()
	var l layout.Line
	o.Put(&l)
	l.Seal(layout.Seed(sb.UUID), sb.OwnerOff, 1<<40)
	v.Store(sb.OwnerOff, l[:])
}

// attempt mounts read-only and reports whether the free map was used. Nothing is stored, so the
// free map stays.
func (v *volume) attempt(o fs.Options) bool {
	v.Helper()
	o.ReadOnly = true
	f, err := fs.Mount(v.R, o)
	if err != nil {
		v.Fatal(err)
	}
	used := f.Stats().FreeMap
	if err := f.Unmount(); err != nil {
		v.Fatal(err)
	}
	return used
}

// populated returns an unmounted filesystem with everything that a free map describes.
func populated(t *testing.T) *volume {
	v := newVolume(t, fs.MinSize)
	big := v.Create("/big")
	v.Write(big, 0, make([]byte, 3*pudBytes))
	for i := range 40 {
		dir := fmt.Sprint("/d", i)
		v.Mkdir(dir)
		f := v.Create(dir + "/f")
		v.Write(f, 0, make([]byte, 5000))
		if i%2 == 0 {
			v.Unlink(dir + "/f")
		}
		v.FS.Forget(f, 1)
	}
	part := v.Create("/part")
	v.Clone(big, 0, part, 0, 2*pudBytes)
	v.Write(part, 5*4096, make([]byte, 8192))
	v.Unmount()
	return v
}

// TestFreeMapUse checks that read-only mounts use a free map and keep it, and that the first mount
// that writes uses and removes it.
func TestFreeMapUse(t *testing.T) {
	v := populated(t)
	for range 2 {
		if !v.attempt(fs.Options{}) {
			t.Error("mounted read-only, and the free map was not used")
		}
	}
	if v.attempt(fs.Options{Scan: true}) {
		t.Error("a scan was asked for")
	}
	v.Mount()
	if !v.FS.Stats().FreeMap {
		t.Error("the free map was not used")
	}
	v.Crash()
	if v.owner().State != layout.OwnerMounted {
		t.Error("mounted, and the owner record names the free map")
	}
	v.Mount()
	if v.FS.Stats().FreeMap {
		t.Error("the free map was used twice")
	}
	v.Unmount()
	// The region as a version without free maps leaves it.
	machine, boot := pmem.HostIdentity()
	v.setOwner(layout.Owner{Machine: [8]byte(machine[:8]), Boot: boot, State: layout.OwnerClean, PID: 7, Start: 8, Mounts: 9})
	if v.attempt(fs.Options{}) {
		t.Error("the owner record names no free map")
	}
}

// TestFreeMapFull checks that an unmount without space for the free map saves none, and is clean.
func TestFreeMapFull(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	f := v.Create("/f")
	for n := int64(fs.MinSize); n >= 4096; n /= 2 {
		for v.FS.Fallocate(&v.Ctx, f, fs.FallocKeepSize, int64(v.blocks(f))<<9, n) == 0 {
		}
	}
	d := v.Mkdir("/d")
	var a fs.Attr
	var e syscall.Errno
	for i := 0; e == 0; i++ {
		e = v.FS.Mkdir(&v.Ctx, d, fmt.Sprint(i), 0o755, &a)
	}
	for i := 0; v.FS.Stats().FreeMetaBlocks > 0; i++ {
		v.Write(v.Create(fmt.Sprint("/d/f", i)), 0, nil)
	}
	if s := v.FS.Stats(); e != syscall.ENOSPC || s.FreeBlocks > 0 {
		t.Fatalf("not full: %v, %+v", e, s)
	}
	v.Unmount()
	if o := v.owner(); o.State != layout.OwnerClean {
		t.Errorf("the owner record has state %d", o.State)
	}
	rep, err := fsck.Check(v.R, fsck.Options{})
	if err != nil || rep.Left > 0 || !rep.Clean || rep.FreeMap {
		t.Errorf("fsck: %v, %+v", err, rep)
	}
	v.Mount()
	v.Delete("/f")
	v.Remount()
}

func (v *volume) blocks(ino uint64) uint64 {
	a := v.Stat(ino)
	return a.Blocks
}

// TestFreeMapSegments checks that a free map is saved in pieces where free space is fragmented.
func TestFreeMapSegments(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	f, g := v.Create("/f"), v.Create("/g")
	size := int64(v.FS.Stats().AvailableBlocks-64) << 12
	v.Fallocate(f, 0, 0, size)
	for off := int64(0); off < size; off += 8192 {
		v.Fallocate(f, fs.FallocPunchHole|fs.FallocKeepSize, off, 4096)
		v.Write(f, off+4096, []byte("x"))
	}
	v.Clone(f, 0, g, 0, size)
	v.Remount()
	v.Unmount()
	if o := v.owner(); o.Map.Len <= layout.BlockSize {
		t.Errorf("a free map of %d bytes fits one block", o.Map.Len)
	}
	v.Mount()
	v.RemoveAll(1)
	v.Remount()
}

// TestFreeMapUnfinished checks that work which an unmount could not finish is found by a scan.
func TestFreeMapUnfinished(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	free := v.Free()
	ino := v.Create("/f")
	v.Write(ino, 0, make([]byte, 100_000))
	off := v.Super().InodeOff(ino)
	v.Unlink("/f")
	var l, bad layout.Line
	if err := v.R.LoadLine(off, (*[layout.LineSize]byte)(&l)); err != nil {
		t.Fatal(err)
	}
	v.Store(off, bad[:]) // so that the file cannot be freed
	v.FS.Forget(ino, 1)
	v.Unmount()
	v.Store(off, l[:])
	if o := v.owner(); o.State != layout.OwnerClean {
		t.Errorf("the owner record has state %d", o.State)
	}
	v.Mount()
	if s := v.FS.Stats(); s.FreedOrphans != 1 || v.Free() != free {
		t.Errorf("%d blocks free, were %d: %+v", v.Free(), free, s)
	}
	v.Unmount()
	if rep, err := fsck.Check(v.R, fsck.Options{Repair: true}); err != nil || rep.ExitCode() != 1 || rep.Problems[0].Code != fsck.OwnerDamaged {
		t.Errorf("fsck after damage was met: %v, %+v", err, rep)
	}
	v.Mount()
	v.Remount()
}

// TestFreeMapDamaged checks that mounts survive damaged and crafted free maps, whether they use
// them or not.
func TestFreeMapDamaged(t *testing.T) {
	v := populated(t)
	seed := layout.Seed(v.Super().UUID)
	o := v.owner()
	at := int64(o.Map.Block)<<layout.BlockShift + layout.LineSize
	good := bytes.Clone(v.R.Bytes(at, int64(o.Map.Len)))
	warned := 0
	try := func(o layout.Owner, b []byte) bool {
		t.Helper()
		v.setOwner(o)
		v.Store(at, b)
		return v.attempt(fs.Options{Warn: func(msg string) { warned++ }})
	}
	if !try(o, good) || warned > 0 {
		t.Fatal("the free map is good")
	}
	for i, r := range []layout.FreeMapRef{
		{Block: 1, Len: o.Map.Len, CRC: o.Map.CRC},
		{Block: 1 << 60, Len: o.Map.Len, CRC: o.Map.CRC},
		{Block: o.Map.Block + 1, Len: o.Map.Len, CRC: o.Map.CRC},
		{Block: o.Map.Block, Len: o.Map.Len - 1, CRC: o.Map.CRC},
		{Block: o.Map.Block, Len: 1 << 20, CRC: o.Map.CRC},
		{Block: o.Map.Block, Len: 1 << 60, CRC: o.Map.CRC},
		{Block: o.Map.Block, Len: o.Map.Len, CRC: o.Map.CRC + 1},
		{Block: o.Map.Block},
	} {
		x := o
		x.Map = r
		if try(x, good) || warned != i+1 {
			t.Errorf("%+v: used, or no warning", r)
		}
	}
	x := o
	x.Mounts++
	if try(x, good) {
		t.Error("that of another mount was used")
	}
	rnd := rand.New(rand.NewSource(1))
	used, crafted := 0, 3000
	if testing.Short() {
		crafted = 600
	}
	for range crafted {
		b := bytes.Clone(good)
		for range 1 + rnd.Intn(3) {
			i := rnd.Intn(len(b))
			switch rnd.Intn(4) {
			case 0:
				b[i] = byte(rnd.Intn(256))
			case 1:
				b[i] ^= 1 << rnd.Intn(8)
			case 2:
				copy(b[i:], b[rnd.Intn(len(b)):])
			default:
				copy(b[i:], bytes.Repeat([]byte{0xff}, rnd.Intn(12)))
			}
		}
		if !bytes.Equal(b, good) && try(o, b) {
			t.Fatal("a damaged free map was used")
		}
		x := o
		x.Map.CRC = layout.Checksum(seed, b)
		if try(x, b) {
			used++
		}
	}
	if used == 0 || used > crafted*5/6 {
		t.Errorf("%d of %d crafted free maps were used", used, crafted)
	}
	if !try(o, good) {
		t.Error("the free map is good")
	}
}

// TestFreeMapBadRange checks that blocks on the bad-range list are neither free nor data.
func TestFreeMapBadRange(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	free := v.Free()
	v.Unmount()
	sb := v.Super()
	for i, b := range []layout.BadRange{{Block: 2000, Len: 20}, {Block: 3001, Len: 1}} {
		var l layout.Line
		b.Put(&l)
		off := sb.BadOff + int64(i)*layout.LineSize
		l.Seal(layout.Seed(sb.UUID), off, 1)
		v.Store(off, l[:])
	}
	v.MountWith(fs.Options{Scan: true})
	if v.Free() != free-21 {
		t.Errorf("%d blocks free, were %d", v.Free(), free)
	}
	v.Write(v.Create("/f"), 0, make([]byte, 1<<20))
	v.Remount()
	v.RemoveAll(1)
	v.Remount()
	if v.Free() != free-21 {
		t.Errorf("%d blocks free in the end, were %d", v.Free(), free)
	}
}

// recraft changes the saved free map, with right checksums. Unless runs is set it removes the runs
// of data blocks; bits changes the bitmaps of the metadata chunks.
func (v *volume) recraft(runs bool, bits func(b []byte)) {
	v.Helper()
	sb, o := v.Super(), v.owner()
	at := int64(o.Map.Block)<<layout.BlockShift + layout.LineSize
	good := v.R.Bytes(at, int64(o.Map.Len))
	var all, none layout.FreeMapWriter
	rd := layout.NewFreeMapReader(good, sb.Blocks())
	for x, ok := rd.Run(); ok; x, ok = rd.Run() {
		all.Run(x)
	}
	all.End(2)
	none.End(2)
	if !bytes.HasPrefix(good, all.B) {
		v.Fatal("the runs are encoded in another way")
	}
	rest := bytes.Clone(good[len(all.B):])
	bits(rest)
	b := append(none.B, rest...)
	if runs {
		b = append(all.B, rest...)
	}
	o.Map.Len, o.Map.CRC = uint64(len(b)), layout.Checksum(layout.Seed(sb.UUID), b)
	v.setOwner(o)
	v.Store(at, b)
}

// TestMapLacks checks that a free map with right checksums that has an inode's blocks free is
// noticed before a block is freed twice.
func TestMapLacks(t *testing.T) {
	for _, what := range []string{"directory", "extents", "attributes", "value"} {
		t.Run(what, func(t *testing.T) {
			v := newVolume(t, fs.MinSize)
			f, d := v.Create("/f"), v.Mkdir("/d")
			v.Remount() // reads the root's blocks, and an inode block
			for _, name := range []string{"f", "d"} {
				v.OK(v.FS.Lookup(&v.Ctx, 1, name, new(fs.Attr)))
			}
			change := func() syscall.Errno { return v.FS.RemoveXattr(&v.Ctx, f, "user.a") }
			switch what {
			case "directory":
				v.Create("/d/file")
				change = func() syscall.Errno { return v.FS.Unlink(&v.Ctx, d, "file") }
			case "extents":
				for i := range int64(10) {
					v.Fallocate(f, 0, i*8192, 4096)
				}
				change = func() syscall.Errno {
					return v.FS.SetAttr(&v.Ctx, f, &fs.SetAttr{Valid: fs.SetSize}, new(fs.Attr))
				}
			case "attributes":
				v.SetXattr(f, "user.a", randomBytes(1, 100))
			case "value":
				v.SetXattr(f, "user.a", randomBytes(1, 40_000))
			}
			v.Unmount()
			v.recraft(what != "value", func(b []byte) {
				if what != "value" {
					b[0] &^= 1 << (bits.Len8(b[0]) - 1) // the block that was allocated last
				}
			})
			v.Mount()
			if !v.FS.Stats().FreeMap {
				t.Fatal("the free map was not used")
			}
			e := v.FS.Lookup(&v.Ctx, 1, "f", new(fs.Attr)) // either the lookup or the change reports it
			if v.OK(v.FS.Lookup(&v.Ctx, 1, "d", new(fs.Attr))); e == 0 {
				e = change()
			}
			if e != syscall.EIO {
				t.Errorf("%v, expected %v", e, syscall.EIO)
			}
			v.Crash()
		})
	}
}

// TestUnmountBusy checks that an unmount while a pinned read references a partly cut large folio
// saves no free map that a mount would refuse.
func TestUnmountBusy(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	f := v.Create("/f")
	v.Write(f, 0, make([]byte, 2*pmdBytes))
	v.OK(v.FS.Read(&v.Ctx, f, 0, 4096, v.FS.NewPinnedRead()))
	v.Truncate(f, 4096)
	v.Unmount()
	v.Check()
	v.Mount()
}
