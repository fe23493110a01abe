package fs_test

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/badmem"
	"github.com/daxfsd/daxfsd/fs/fsck"
)

// This file tests that an error of the media is recorded while the block is held, wherever one is
// met: so that the block is retired when it comes free, and never handed out.

// find returns where the region holds a text, which must be in one place only, but for the journal.
func (v *volume) find(text []byte) int64 {
	v.t.Helper()
	from := v.fs.Super().StaticEnd
	all := v.r.Bytes(from, v.r.Size()-from)
	at := bytes.Index(all, text)
	if at < 0 || bytes.Contains(all[at+1:], text) {
		v.t.Fatalf("%q... is at no place or at several", text[:min(len(text), 16)])
	}
	return from + int64(at)
}

// unused fails if a new file gets the block at a region offset.
func (v *volume) unused(off int64) {
	v.t.Helper()
	for i := range 64 {
		ino := v.create(1, fmt.Sprintf("new %d", i))
		v.write(ino, 0, bytes.Repeat([]byte{9}, 32<<10))
		for _, x := range v.extents(ino) {
			if b := uint64(off) >> 12; x.Block <= b && b < x.Block+x.Len {
				v.t.Fatalf("new file %d was given the bad block %d", i, b)
			}
		}
	}
}

// lineStores is told of the offset of each line that a transaction stores in place.
type lineStores func(off int64)

func (lineStores) Begin(int)                          {}
func (lineStores) NTStore(int, int64, []byte)         {}
func (lineStores) Flush(int, int64, int64)            {}
func (lineStores) Fence(int)                          {}
func (f lineStores) Store(_ int, off int64, b []byte) { f(off) }

// lookupOnly is the number of a file whose attributes cannot be read.
func (v *volume) lookupOnly(name string) (ino uint64) {
	v.t.Helper()
	v.ok(v.fs.ReadDir(&v.ctx, 1, 0, func(d *fs.Dirent) bool {
		if string(d.Name) == name {
			ino = d.Ino
		}
		return true
	}))
	return ino
}

// unlink removes a file that nobody has open.
func (v *volume) unlink(dir uint64, name string, ino uint64) {
	v.t.Helper()
	v.ok(v.fs.Unlink(&v.ctx, dir, name))
	v.fs.Forget(ino, 1)
}

// TestTakeRecordsBeforeItFrees: a read meets bad memory in a file that was truncated meanwhile. Its
// reference is all that keeps the block, which must be known to be bad when it ends.
func TestTakeRecordsBeforeItFrees(t *testing.T) {
	for _, quiet := range []bool{false, true} { // poison that only loads see
		t.Run(fmt.Sprintf("quiet=%v", quiet), func(t *testing.T) {
			v, path := fileVolume(t, false)
			ino := v.create(1, "f")
			v.write(ino, 0, bytes.Repeat([]byte{7}, 4096))
			off := int64(v.extents(ino)[0].Block) << 12
			r := v.fs.NewPinnedRead()
			v.ok(v.fs.Read(&v.ctx, ino, 0, 4096, r)) // in flight
			var a fs.Attr
			v.ok(v.fs.SetAttr(&v.ctx, ino, &fs.SetAttr{Valid: fs.SetSize}, &a))
			spoil(t, path, off, 4096, syscall.PROT_NONE)
			if n, e := r.Take(make([]byte, 4096)); n != 0 || e != syscall.EIO {
				t.Errorf("read of bad memory: %d bytes, %v", n, e)
			}
			r.Free()
			if quiet {
				spoil(t, path, off, 4096, syscall.PROT_READ|syscall.PROT_WRITE)
			}
			if s := v.fs.Stats(); s.BadRanges != 1 || s.OfflineBytes != 4096 {
				t.Errorf("%d bad ranges and %d bytes retired, want 1 and 4096", s.BadRanges, s.OfflineBytes)
			}
			v.unused(off)
		})
	}
}

// TestErrorsAreRemembered: whatever meets bad memory remembers it, and what had it leaves it
// retired.
func TestErrorsAreRemembered(t *testing.T) {
	unique := func(n int) []byte { return randomBytes(int64(n), n) }
	long := strings.Repeat("target/", 200)
	for name, c := range map[string]struct {
		// set makes a victim and returns where the memory goes bad; meet meets that; leave gives
		// the block up.
		set         func(v *volume) (off int64)
		meet, leave func(v *volume)
		want        uint64 // bytes retired in the end
	}{
		"move": {
			set: func(v *volume) int64 {
				a, b := v.create(1, "a"), v.create(1, "b")
				for i := range int64(7) {
					v.write(a, i*4096, unique(4096))
					v.write(b, i*4096, make([]byte, 4096))
				}
				if n := len(v.extents(a)); n < 2 {
					v.t.Fatalf("the file is in %d extents", n)
				}
				return at(v.extents(a)[0], 0) // most of the file is in place already, this is not
			},
			meet: func(v *volume) {
				v.write(v.lookup(1, "a"), 7*4096, make([]byte, 4096)) // fills a PMD range
			},
			leave: func(v *volume) { v.unlink(1, "a", v.lookup(1, "a")) },
			want:  4096,
		},
		"compaction": {
			set: func(v *volume) int64 {
				for i := range 800 {
					v.write(v.create(1, fmt.Sprint("f", i)), 0, unique(4096))
				}
				for i := range 800 {
					if i%8 != 0 {
						n := fmt.Sprint("f", i)
						v.unlink(1, n, v.lookup(1, n))
					}
				}
				return at(v.extents(v.lookup(1, "f400"))[0], 0)
			},
			meet: func(v *volume) {
				for range 8 {
					v.fs.Compact(&fs.Caller{})
				}
			},
			leave: func(v *volume) { v.unlink(1, "f400", v.lookup(1, "f400")) },
			want:  4096,
		},
		"unsharing to grow": {
			set: func(v *volume) int64 {
				a, b := v.create(1, "a"), v.create(1, "b")
				v.write(a, 0, unique(8192))
				v.clone(a, 0, b, 0, 8192)
				var x fs.Attr
				v.ok(v.fs.SetAttr(&v.ctx, b, &fs.SetAttr{Valid: fs.SetSize, Size: 5000}, &x))
				return at(v.extents(a)[0], 1)
			},
			meet: func(v *volume) {
				var x fs.Attr
				if e := v.fs.SetAttr(&v.ctx, v.lookup(1, "b"), &fs.SetAttr{Valid: fs.SetSize, Size: 1 << 20}, &x); e != syscall.EIO {
					v.t.Errorf("growing: %v", e)
				}
			},
			leave: func(v *volume) {
				v.unlink(1, "a", v.lookup(1, "a"))
				if n := v.fs.Stats().OfflineBytes; n != 0 {
					v.t.Errorf("%d bytes retired that a file has", n)
				}
				v.unlink(1, "b", v.lookup(1, "b"))
			},
			want: 4096,
		},
		"unsharing to write": {
			set: func(v *volume) int64 {
				a, b := v.create(1, "a"), v.create(1, "b")
				v.write(a, 0, unique(8192))
				v.clone(a, 0, b, 0, 8192)
				return at(v.extents(a)[0], 1)
			},
			meet: func(v *volume) {
				if _, e := v.fs.Write(&v.ctx, v.lookup(1, "b"), 5000, []byte("x")); e != syscall.EIO {
					v.t.Errorf("writing: %v", e)
				}
			},
			leave: func(v *volume) {
				v.unlink(1, "a", v.lookup(1, "a"))
				v.unlink(1, "b", v.lookup(1, "b"))
			},
			want: 4096,
		},
		"punching a part of a block": {
			set: func(v *volume) int64 {
				a := v.create(1, "a")
				v.write(a, 0, unique(8192))
				return at(v.extents(a)[0], 1)
			},
			meet: func(v *volume) {
				if e := v.fs.Fallocate(&v.ctx, v.lookup(1, "a"), fs.FallocPunchHole|fs.FallocKeepSize, 5000, 10); e != syscall.EIO {
					v.t.Errorf("punching: %v", e)
				}
			},
			leave: func(v *volume) { v.unlink(1, "a", v.lookup(1, "a")) },
			want:  4096,
		},
		"reading an attribute": {
			set: func(v *volume) int64 {
				v.ok(v.fs.SetXattr(&v.ctx, v.create(1, "a"), "user.long", unique(8192), 0))
				return v.find(unique(8192))
			},
			meet: func(v *volume) {
				if _, e := v.fs.GetXattr(&v.ctx, v.lookup(1, "a"), "user.long", make([]byte, 8192)); e != syscall.EIO {
					v.t.Errorf("getxattr: %v", e)
				}
			},
			leave: func(v *volume) { v.ok(v.fs.RemoveXattr(&v.ctx, v.lookup(1, "a"), "user.long")) },
			want:  4096,
		},
		"reading a link": {
			set: func(v *volume) int64 {
				var a fs.Attr
				v.ok(v.fs.Symlink(&v.ctx, 1, "link", long, &a))
				return v.find([]byte(long))
			},
			meet: func(v *volume) {
				if _, e := v.fs.Readlink(&v.ctx, v.lookup(1, "link"), nil); e != syscall.EIO {
					v.t.Errorf("readlink: %v", e)
				}
			},
			leave: func(v *volume) { v.unlink(1, "link", v.lookup(1, "link")) },
			want:  4096,
		},
		// A fresh block that turns out to be bad is retired, and another one taken.
		"storing an attribute": {
			set: func(v *volume) int64 {
				a := v.create(1, "a")
				v.ok(v.fs.SetXattr(&v.ctx, a, "user.long", unique(4096), 0))
				off := v.find(unique(4096))
				v.ok(v.fs.RemoveXattr(&v.ctx, a, "user.long"))
				return off
			},
			meet: func(v *volume) {
				b := make([]byte, 4096)
				v.ok(v.fs.SetXattr(&v.ctx, v.lookup(1, "a"), "user.long", unique(4096), 0))
				if n, e := v.fs.GetXattr(&v.ctx, v.lookup(1, "a"), "user.long", b); n != 4096 || e != 0 || !bytes.Equal(b, unique(4096)) {
					v.t.Errorf("getxattr: %d, %v", n, e)
				}
			},
			leave: func(*volume) {},
			want:  4096,
		},
		"storing a link": {
			set: func(v *volume) int64 {
				var a fs.Attr
				v.ok(v.fs.Symlink(&v.ctx, 1, "link", long, &a))
				off := v.find([]byte(long))
				v.unlink(1, "link", a.Ino)
				return off
			},
			meet: func(v *volume) {
				for i := 0; i < 64 && v.fs.Stats().BadRanges == 0; i++ { // until one gets that block
					var a fs.Attr
					v.ok(v.fs.Symlink(&v.ctx, 1, fmt.Sprint("link ", i), long, &a))
					if b, e := v.fs.Readlink(&v.ctx, a.Ino, nil); e != 0 || string(b) != long {
						v.t.Errorf("readlink: %q, %v", b, e)
					}
				}
			},
			leave: func(*volume) {},
			want:  4096,
		},
		// Metadata: the block stays with its chunk, never to be used again.
		"reading the names of attributes": {
			set: func(v *volume) int64 {
				a := v.create(1, "a")
				v.ok(v.fs.SetXattr(&v.ctx, a, "user.short", []byte("not elsewhere"), 0))
				return v.find([]byte("not elsewhere")) &^ 4095
			},
			meet: func(v *volume) {
				if _, e := v.fs.ListXattr(&v.ctx, v.lookup(1, "a"), make([]byte, 8192)); e != syscall.EIO {
					v.t.Errorf("listxattr: %v", e)
				}
			},
			leave: func(*volume) {},
		},
		"reading a directory": {
			set: func(v *volume) int64 {
				d := v.mkdir(1, "d")
				v.create(d, "not elsewhere")
				v.unmount()
				v.mount()
				return v.find([]byte("not elsewhere")) &^ 4095
			},
			meet: func(v *volume) {
				var a fs.Attr
				if e := v.fs.Lookup(&v.ctx, v.lookup(1, "d"), "x", &a); e != syscall.EIO {
					v.t.Errorf("lookup: %v", e)
				}
			},
			leave: func(*volume) {},
		},
		"reading an inode": { // and free slots beside it are not handed out
			set: func(v *volume) int64 {
				for i := range 40 {
					v.create(1, fmt.Sprint(i))
				}
				var a fs.Attr
				v.ok(v.fs.Symlink(&v.ctx, 1, "link", "not elsewhere", &a))
				v.unmount()
				v.mount()
				return v.find([]byte("not elsewhere")) &^ 4095
			},
			meet: func(v *volume) {
				var a fs.Attr
				if e := v.fs.Lookup(&v.ctx, 1, "link", &a); e != syscall.EIO {
					v.t.Errorf("lookup: %v", e)
				}
			},
			leave: func(*volume) {},
		},
		"reading extents": {
			set: func(v *volume) int64 {
				a := v.create(1, "a")
				for i := range int64(20) {
					v.write(a, i*8192, unique(4096))
				}
				seen, off := map[int64]bool{}, int64(0)
				v.r.SetRecorder(lineStores(func(at int64) { seen[at&^4095] = true }))
				v.write(a, 40*8192, unique(4096))
				v.r.SetRecorder(nil)
				for at := range seen { // beside the inode and the data it is the block of extents
					if x := v.fs.Super(); at >= x.StaticEnd && at != x.InodeOff(a)&^4095 {
						off = at
					}
				}
				v.unmount()
				v.mount()
				return off
			},
			meet: func(v *volume) {
				r := v.fs.NewPinnedRead()
				defer r.Free()
				if e := v.fs.Read(&v.ctx, v.lookupOnly("a"), 0, 4096, r); e != syscall.EIO {
					v.t.Errorf("read: %v", e)
				}
			},
			leave: func(*volume) {},
		},
		"formatting a block": { // costs that operation, not the filesystem
			set: func(v *volume) int64 {
				a := v.create(1, "a")
				v.ok(v.fs.SetXattr(&v.ctx, a, "user.short", []byte("not elsewhere"), 0))
				off := v.find([]byte("not elsewhere")) &^ 4095
				v.ok(v.fs.RemoveXattr(&v.ctx, a, "user.short"))
				return off
			},
			meet: func(v *volume) {
				a := v.lookup(1, "a")
				if e := v.fs.SetXattr(&v.ctx, a, "user.short", []byte("x"), 0); e != syscall.EIO {
					v.t.Errorf("setxattr to bad memory: %v", e)
				}
				v.ok(v.fs.SetXattr(&v.ctx, a, "user.short", []byte("x"), 0))
			},
			leave: func(*volume) {},
		},
	} {
		t.Run(name, func(t *testing.T) {
			v, path := fileVolume(t, false)
			off := c.set(v)
			spoil(t, path, off, 4096, syscall.PROT_NONE)
			c.meet(v)
			if s := v.fs.Stats(); s.BadRanges != 1 || s.BadBytes != 4096 {
				t.Errorf("%d bad ranges of %d bytes are known, want 1 of 4096", s.BadRanges, s.BadBytes)
			}
			c.leave(v)
			if n := v.fs.Stats().OfflineBytes; n != c.want {
				t.Errorf("%d bytes are retired, want %d", n, c.want)
			}
			if v.fs.Stats().ReadOnly {
				t.Error("the filesystem was shut down")
			}
			v.unused(off)
			spoil(t, path, off, 4096, syscall.PROT_READ|syscall.PROT_WRITE)
		})
	}
}

// TestRepairRemembersBad: fsck -y takes a file's attributes away because their list cannot be read.
// The memory is free then, and known to be bad.
func TestRepairRemembersBad(t *testing.T) {
	d := newDevVolume(t, 16<<20)
	d.mount()
	ino := d.create(1, "a")
	d.ok(d.fs.SetXattr(&d.ctx, ino, "user.a", []byte("not elsewhere"), 0))
	off, super := d.find([]byte("not elsewhere"))&^4095, d.fs.Super()
	d.unmount()
	spoil(t, d.path, off, 4096, syscall.PROT_NONE)
	dry, err := fsck.Check(d.r, fsck.Options{})
	if err != nil || dry.Fixable != 1 || dry.Left != 1 {
		t.Fatalf("fsck -n: %v, %+v", err, dry)
	}
	rep, err := fsck.Check(d.r, fsck.Options{Repair: true})
	if err != nil || rep.Repaired != 1 || rep.Left != 0 || rep.Problems[0].What != dry.Problems[0].What {
		t.Fatalf("fsck -y: %v, %+v", err, rep)
	}
	bad, err := badmem.Known(d.r, super)
	if err != nil || len(bad) != 1 || bad[0].Off != off || bad[0].Len != 4096 {
		t.Fatalf("bad ranges %v (%v), want 4096 bytes at %d", bad, err, off)
	}
	d.lost()
	d.mount()
	for i := range 20 { // blocks of metadata are handed out
		ino := d.create(1, fmt.Sprint("f", i))
		d.ok(d.fs.SetXattr(&d.ctx, ino, "user.a", []byte("x"), 0))
		if n, e := d.fs.ListXattr(&d.ctx, ino, make([]byte, 100)); e != 0 || n == 0 {
			t.Errorf("listxattr: %d, %v", n, e)
		}
	}
	d.unmount()
	d.lost()
}

// TestStageRemembersBad: where the data of a write that is all or nothing was to be put is bad.
func TestStageRemembersBad(t *testing.T) {
	for _, n := range []int{500, 500_000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			v, path := fileVolume(t, true)
			ino := v.create(1, "f")
			v.write(ino, 0, make([]byte, 1<<20))
			rec := &headers{sb: v.fs.Super()}
			v.r.SetRecorder(rec)
			v.write(ino, 0, make([]byte, n))
			v.r.SetRecorder(nil)
			off := rec.logged[0].At
			spoil(t, path, off, 4096, syscall.PROT_NONE)
			if _, e := v.fs.Write(&v.ctx, ino, 0, make([]byte, n)); e != syscall.EIO {
				t.Errorf("write: %v", e)
			}
			if s := v.fs.Stats(); s.BadRanges != 1 || s.BadBytes != 4096 {
				t.Errorf("%d bad ranges of %d bytes are known, want 1 of 4096", s.BadRanges, s.BadBytes)
			}
			v.unused(off)
			v.unmount() // does not put the free map there
			spoil(t, path, off, 4096, syscall.PROT_READ|syscall.PROT_WRITE)
		})
	}
}

// TestMountRemembersBad: what a mount cannot read and does without is on the list when it is
// mounted; a mount that fails stores nothing.
func TestMountRemembersBad(t *testing.T) {
	d := newDevVolume(t, 16<<20)
	d.mount()
	d.write(d.create(1, "a"), 0, make([]byte, 4096))
	super := d.fs.Super()
	d.unmount()
	known := func() string {
		bad, err := badmem.Known(d.r, super)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(bad)
	}
	header := super.ChunkHeader(super.InodeBase >> super.ChunkShift)
	spoil(t, d.path, header, 4096, syscall.PROT_NONE)
	if _, err := fs.Mount(d.r, fs.Options{Scan: true}); err == nil {
		t.Fatal("mounted without the header of a metadata chunk")
	}
	if got := known(); got != "[]" {
		t.Errorf("a mount that failed stored %s", got)
	}
	spoil(t, d.path, header, 4096, syscall.PROT_READ|syscall.PROT_WRITE)

	d.mount()
	d.unmount()
	off := int64(d.owner().Map.Block) << 12 // free memory
	spoil(t, d.path, off, 4096, syscall.PROT_NONE)
	f, err := fs.Mount(d.r, fs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d.fs = f
	if s := f.Stats(); s.FreeMap || s.OfflineBytes != 4096 || known() != fmt.Sprintf("[{%d 4096}]", off) {
		t.Errorf("by the free map: %t, retired %d bytes, known are %s", s.FreeMap, s.OfflineBytes, known())
	}
	d.unused(off)
	d.unmount()
	d.lost()
}
