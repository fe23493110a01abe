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

// The tests of this file check that an error of the media is recorded while its block is still
// referenced, wherever the error is met. The block then goes offline when it becomes free, and is
// never allocated.

// find returns the region offset in bytes of a text that is in one place only, besides the journal.
func (v *volume) find(text []byte) int64 {
	v.Helper()
	from := v.Super().StaticEnd
	all := v.R.Bytes(from, v.R.Size()-from)
	at := bytes.Index(all, text)
	if at < 0 || bytes.Contains(all[at+1:], text) {
		v.Fatalf("%q... is at no place or at several", text[:min(len(text), 16)])
	}
	return from + int64(at)
}

// unused fails if a new file gets the block at a region offset in bytes.
func (v *volume) unused(off int64) {
	v.Helper()
	for i := range 64 {
		ino := v.Create(fmt.Sprintf("/new %d", i))
		v.Write(ino, 0, bytes.Repeat([]byte{9}, 32<<10))
		for _, x := range v.Extents(ino) {
			if b := uint64(off) >> 12; x.Block <= b && b < x.Block+x.Len {
				v.Fatalf("new file %d was given the bad block %d", i, b)
			}
		}
	}
}

// lineStores is called with the region offset of each line that a transaction stores in place.
type lineStores func(off int64)

func (lineStores) Begin(int)                          {}
func (lineStores) NTStore(int, int64, []byte)         {}
func (lineStores) Flush(int, int64, int64)            {}
func (lineStores) Fence(int)                          {}
func (f lineStores) Store(_ int, off int64, b []byte) { f(off) }

// lookupOnly returns the inode number of a file whose attributes cannot be read.
func (v *volume) lookupOnly(name string) (ino uint64) {
	v.Helper()
	v.OK(v.FS.ReadDir(&v.Ctx, 1, 0, func(d *fs.Dirent) bool {
		if string(d.Name) == name {
			ino = d.Ino
		}
		return true
	}))
	return ino
}

// TestTakeRecordsBeforeItFrees checks a read that meets bad memory in a file that was truncated
// meanwhile. Only the read's reference keeps the block, which must be recorded as bad when the read
// ends.
func TestTakeRecordsBeforeItFrees(t *testing.T) {
	for _, quiet := range []bool{false, true} { // poison that only faults loads
		t.Run(fmt.Sprintf("quiet=%v", quiet), func(t *testing.T) {
			v, path := fileVolume(t, false)
			ino := v.Create("/f")
			v.Write(ino, 0, bytes.Repeat([]byte{7}, 4096))
			off := int64(v.Extents(ino)[0].Block) << 12
			r := v.FS.NewPinnedRead()
			v.OK(v.FS.Read(&v.Ctx, ino, 0, 4096, r)) // in flight
			v.Truncate(ino, 0)
			spoil(t, path, off, 4096, syscall.PROT_NONE)
			if n, e := r.Take(make([]byte, 4096)); n != 0 || e != syscall.EIO {
				t.Errorf("read of bad memory: %d bytes, %v", n, e)
			}
			r.Free()
			if quiet {
				spoil(t, path, off, 4096, syscall.PROT_READ|syscall.PROT_WRITE)
			}
			if s := v.FS.Stats(); s.BadRanges != 1 || s.OfflineBytes != 4096 {
				t.Errorf("%d bad ranges and %d bytes retired, want 1 and 4096", s.BadRanges, s.OfflineBytes)
			}
			v.unused(off)
		})
	}
}

// TestErrorsAreRemembered checks that every operation that meets bad memory records it, and that
// the memory goes offline when its owner gives it up.
func TestErrorsAreRemembered(t *testing.T) {
	unique := func(n int) []byte { return randomBytes(int64(n), n) }
	long := strings.Repeat("target/", 200)
	for name, c := range map[string]struct {
		// set makes a victim and returns the region offset where the memory turns bad; meet meets
		// the bad memory; leave gives the block up.
		set         func(v *volume) (off int64)
		meet, leave func(v *volume)
		want        uint64 // bytes offline at the end
	}{
		"move": {
			set: func(v *volume) int64 {
				a, b := v.Create("/a"), v.Create("/b")
				for i := range int64(7) {
					v.Write(a, i*4096, unique(4096))
					v.Write(b, i*4096, make([]byte, 4096))
				}
				if n := len(v.Extents(a)); n < 2 {
					v.Fatalf("the file is in %d extents", n)
				}
				return at(v.Extents(a)[0], 0) // most of the file is in its reservation already, this block is not
			},
			meet: func(v *volume) {
				v.Write(v.Ino("/a"), 7*4096, make([]byte, 4096)) // completes a PMD range
			},
			leave: func(v *volume) { v.Delete("/a") },
			want:  4096,
		},
		"compaction": {
			set: func(v *volume) int64 {
				for i := range 800 {
					v.Write(v.Create(fmt.Sprint("/f", i)), 0, unique(4096))
				}
				for i := range 800 {
					if i%8 != 0 {
						n := fmt.Sprint("f", i)
						v.Delete("/" + n)
					}
				}
				return at(v.Extents(v.Ino("/f400"))[0], 0)
			},
			meet: func(v *volume) {
				for range 8 {
					v.FS.Compact(&fs.Caller{})
				}
			},
			leave: func(v *volume) { v.Delete("/f400") },
			want:  4096,
		},
		"unsharing to grow": {
			set: func(v *volume) int64 {
				a, b := v.Create("/a"), v.Create("/b")
				v.Write(a, 0, unique(8192))
				v.Clone(a, 0, b, 0, 8192)
				var x fs.Attr
				v.OK(v.FS.SetAttr(&v.Ctx, b, &fs.SetAttr{Valid: fs.SetSize, Size: 5000}, &x))
				return at(v.Extents(a)[0], 1)
			},
			meet: func(v *volume) {
				var x fs.Attr
				if e := v.FS.SetAttr(&v.Ctx, v.Ino("/b"), &fs.SetAttr{Valid: fs.SetSize, Size: 1 << 20}, &x); e != syscall.EIO {
					v.Errorf("growing: %v", e)
				}
			},
			leave: func(v *volume) {
				v.Delete("/a")
				if n := v.FS.Stats().OfflineBytes; n != 0 {
					v.Errorf("%d bytes retired that a file has", n)
				}
				v.Delete("/b")
			},
			want: 4096,
		},
		"unsharing to write": {
			set: func(v *volume) int64 {
				a, b := v.Create("/a"), v.Create("/b")
				v.Write(a, 0, unique(8192))
				v.Clone(a, 0, b, 0, 8192)
				return at(v.Extents(a)[0], 1)
			},
			meet: func(v *volume) {
				if _, e := v.FS.Write(&v.Ctx, v.Ino("/b"), 5000, []byte("x")); e != syscall.EIO {
					v.Errorf("writing: %v", e)
				}
			},
			leave: func(v *volume) {
				v.Delete("/a")
				v.Delete("/b")
			},
			want: 4096,
		},
		"punching a part of a block": {
			set: func(v *volume) int64 {
				a := v.Create("/a")
				v.Write(a, 0, unique(8192))
				return at(v.Extents(a)[0], 1)
			},
			meet: func(v *volume) {
				if e := v.FS.Fallocate(&v.Ctx, v.Ino("/a"), fs.FallocPunchHole|fs.FallocKeepSize, 5000, 10); e != syscall.EIO {
					v.Errorf("punching: %v", e)
				}
			},
			leave: func(v *volume) { v.Delete("/a") },
			want:  4096,
		},
		"reading an attribute": {
			set: func(v *volume) int64 {
				v.SetXattr(v.Create("/a"), "user.long", unique(8192))
				return v.find(unique(8192))
			},
			meet: func(v *volume) {
				if _, e := v.FS.GetXattr(&v.Ctx, v.Ino("/a"), "user.long", make([]byte, 8192)); e != syscall.EIO {
					v.Errorf("getxattr: %v", e)
				}
			},
			leave: func(v *volume) { v.OK(v.FS.RemoveXattr(&v.Ctx, v.Ino("/a"), "user.long")) },
			want:  4096,
		},
		"reading a link": {
			set: func(v *volume) int64 {
				var a fs.Attr
				v.OK(v.FS.Symlink(&v.Ctx, 1, "link", long, &a))
				return v.find([]byte(long))
			},
			meet: func(v *volume) {
				if _, e := v.FS.Readlink(&v.Ctx, v.Ino("/link"), nil); e != syscall.EIO {
					v.Errorf("readlink: %v", e)
				}
			},
			leave: func(v *volume) { v.Delete("/link") },
			want:  4096,
		},
		// A new block that turns out to be bad goes offline, and another one is taken.
		"storing an attribute": {
			set: func(v *volume) int64 {
				a := v.Create("/a")
				v.SetXattr(a, "user.long", unique(4096))
				off := v.find(unique(4096))
				v.OK(v.FS.RemoveXattr(&v.Ctx, a, "user.long"))
				return off
			},
			meet: func(v *volume) {
				b := make([]byte, 4096)
				v.SetXattr(v.Ino("/a"), "user.long", unique(4096))
				if n, e := v.FS.GetXattr(&v.Ctx, v.Ino("/a"), "user.long", b); n != 4096 || e != 0 || !bytes.Equal(b, unique(4096)) {
					v.Errorf("getxattr: %d, %v", n, e)
				}
			},
			leave: func(*volume) {},
			want:  4096,
		},
		"storing a link": {
			set: func(v *volume) int64 {
				var a fs.Attr
				v.OK(v.FS.Symlink(&v.Ctx, 1, "link", long, &a))
				off := v.find([]byte(long))
				v.Delete("/link")
				return off
			},
			meet: func(v *volume) {
				for i := 0; i < 64 && v.FS.Stats().BadRanges == 0; i++ { // until one gets the bad block
					var a fs.Attr
					v.OK(v.FS.Symlink(&v.Ctx, 1, fmt.Sprint("link ", i), long, &a))
					if b, e := v.FS.Readlink(&v.Ctx, a.Ino, nil); e != 0 || string(b) != long {
						v.Errorf("readlink: %q, %v", b, e)
					}
				}
			},
			leave: func(*volume) {},
			want:  4096,
		},
		// Metadata: the block stays in its chunk and is never used again.
		"reading the names of attributes": {
			set: func(v *volume) int64 {
				a := v.Create("/a")
				v.SetXattr(a, "user.short", []byte("not elsewhere"))
				return v.find([]byte("not elsewhere")) &^ 4095
			},
			meet: func(v *volume) {
				if _, e := v.FS.ListXattr(&v.Ctx, v.Ino("/a"), make([]byte, 8192)); e != syscall.EIO {
					v.Errorf("listxattr: %v", e)
				}
			},
			leave: func(*volume) {},
		},
		"reading a directory": {
			set: func(v *volume) int64 {
				v.Mkdir("/d")
				v.Create("/d/not elsewhere")
				v.Unmount()
				v.Mount()
				return v.find([]byte("not elsewhere")) &^ 4095
			},
			meet: func(v *volume) {
				var a fs.Attr
				if e := v.FS.Lookup(&v.Ctx, v.Ino("/d"), "x", &a); e != syscall.EIO {
					v.Errorf("lookup: %v", e)
				}
			},
			leave: func(*volume) {},
		},
		"reading an inode": { // free slots in the block are not allocated
			set: func(v *volume) int64 {
				for i := range 40 {
					v.Create(fmt.Sprint("/", i))
				}
				var a fs.Attr
				v.OK(v.FS.Symlink(&v.Ctx, 1, "link", "not elsewhere", &a))
				v.Unmount()
				v.Mount()
				return v.find([]byte("not elsewhere")) &^ 4095
			},
			meet: func(v *volume) {
				var a fs.Attr
				if e := v.FS.Lookup(&v.Ctx, 1, "link", &a); e != syscall.EIO {
					v.Errorf("lookup: %v", e)
				}
			},
			leave: func(*volume) {},
		},
		"reading extents": {
			set: func(v *volume) int64 {
				a := v.Create("/a")
				for i := range int64(20) {
					v.Write(a, i*8192, unique(4096))
				}
				seen, off := map[int64]bool{}, int64(0)
				v.R.SetRecorder(lineStores(func(at int64) { seen[at&^4095] = true }))
				v.Write(a, 40*8192, unique(4096))
				v.R.SetRecorder(nil)
				for at := range seen { // besides the inode and the data, it is the extent block
					if x := v.Super(); at >= x.StaticEnd && at != x.InodeOff(a)&^4095 {
						off = at
					}
				}
				v.Unmount()
				v.Mount()
				return off
			},
			meet: func(v *volume) {
				r := v.FS.NewPinnedRead()
				defer r.Free()
				if e := v.FS.Read(&v.Ctx, v.lookupOnly("a"), 0, 4096, r); e != syscall.EIO {
					v.Errorf("read: %v", e)
				}
			},
			leave: func(*volume) {},
		},
		"formatting a block": { // fails the operation, not the filesystem
			set: func(v *volume) int64 {
				a := v.Create("/a")
				v.SetXattr(a, "user.short", []byte("not elsewhere"))
				off := v.find([]byte("not elsewhere")) &^ 4095
				v.OK(v.FS.RemoveXattr(&v.Ctx, a, "user.short"))
				return off
			},
			meet: func(v *volume) {
				a := v.Ino("/a")
				if e := v.FS.SetXattr(&v.Ctx, a, "user.short", []byte("x"), 0); e != syscall.EIO {
					v.Errorf("setxattr to bad memory: %v", e)
				}
				v.SetXattr(a, "user.short", []byte("x"))
			},
			leave: func(*volume) {},
		},
	} {
		t.Run(name, func(t *testing.T) {
			v, path := fileVolume(t, false)
			off := c.set(v)
			spoil(t, path, off, 4096, syscall.PROT_NONE)
			c.meet(v)
			if s := v.FS.Stats(); s.BadRanges != 1 || s.BadBytes != 4096 {
				t.Errorf("%d bad ranges of %d bytes are known, want 1 of 4096", s.BadRanges, s.BadBytes)
			}
			c.leave(v)
			if n := v.FS.Stats().OfflineBytes; n != c.want {
				t.Errorf("%d bytes are retired, want %d", n, c.want)
			}
			if v.FS.Stats().ReadOnly {
				t.Error("the filesystem was shut down")
			}
			v.unused(off)
			spoil(t, path, off, 4096, syscall.PROT_READ|syscall.PROT_WRITE)
		})
	}
}

// TestRepairRemembersBad: fsck -y removes a file's attributes because their list cannot be read.
// The memory is free then, and must be recorded as bad.
func TestRepairRemembersBad(t *testing.T) {
	d := newDevVolume(t, 16<<20)
	d.Mount()
	ino := d.Create("/a")
	d.SetXattr(ino, "user.a", []byte("not elsewhere"))
	off, super := d.find([]byte("not elsewhere"))&^4095, d.Super()
	d.Unmount()
	spoil(t, d.path, off, 4096, syscall.PROT_NONE)
	dry, err := fsck.Check(d.R, fsck.Options{})
	if err != nil || dry.Fixable != 1 || dry.Left != 1 {
		t.Fatalf("fsck -n: %v, %+v", err, dry)
	}
	rep, err := fsck.Check(d.R, fsck.Options{Repair: true})
	if err != nil || rep.Repaired != 1 || rep.Left != 0 || rep.Problems[0].What != dry.Problems[0].What {
		t.Fatalf("fsck -y: %v, %+v", err, rep)
	}
	bad, err := badmem.Known(d.R, super)
	if err != nil || len(bad) != 1 || bad[0].Off != off || bad[0].Len != 4096 {
		t.Fatalf("bad ranges %v (%v), want 4096 bytes at %d", bad, err, off)
	}
	d.lost()
	d.Mount()
	for i := range 20 { // allocates metadata blocks
		ino := d.Create(fmt.Sprint("/f", i))
		d.SetXattr(ino, "user.a", []byte("x"))
		if n, e := d.FS.ListXattr(&d.Ctx, ino, make([]byte, 100)); e != 0 || n == 0 {
			t.Errorf("listxattr: %d, %v", n, e)
		}
	}
	d.Unmount()
	d.lost()
}

// TestStageRemembersBad checks that bad memory in the place where the data of an atomic write is
// staged is recorded.
func TestStageRemembersBad(t *testing.T) {
	for _, n := range []int{500, 500_000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			v, path := fileVolume(t, true)
			ino := v.Create("/f")
			v.Write(ino, 0, make([]byte, 1<<20))
			rec := &headers{sb: v.Super()}
			v.R.SetRecorder(rec)
			v.Write(ino, 0, make([]byte, n))
			v.R.SetRecorder(nil)
			off := rec.logged[0].At
			spoil(t, path, off, 4096, syscall.PROT_NONE)
			if _, e := v.FS.Write(&v.Ctx, ino, 0, make([]byte, n)); e != syscall.EIO {
				t.Errorf("write: %v", e)
			}
			if s := v.FS.Stats(); s.BadRanges != 1 || s.BadBytes != 4096 {
				t.Errorf("%d bad ranges of %d bytes are known, want 1 of 4096", s.BadRanges, s.BadBytes)
			}
			v.unused(off)
			v.Unmount() // must not save the free map there
			spoil(t, path, off, 4096, syscall.PROT_READ|syscall.PROT_WRITE)
		})
	}
}

// TestMountRemembersBad checks that optional structures that a mount cannot read are on the
// bad-range list afterwards, and that a mount that fails stores nothing.
func TestMountRemembersBad(t *testing.T) {
	d := newDevVolume(t, 16<<20)
	d.Mount()
	d.Write(d.Create("/a"), 0, make([]byte, 4096))
	super := d.Super()
	d.Unmount()
	known := func() string {
		bad, err := badmem.Known(d.R, super)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(bad)
	}
	header := super.ChunkHeader(super.InodeBase >> super.ChunkShift)
	spoil(t, d.path, header, 4096, syscall.PROT_NONE)
	if _, err := fs.Mount(d.R, fs.Options{Scan: true}); err == nil {
		t.Fatal("mounted without the header of a metadata chunk")
	}
	if got := known(); got != "[]" {
		t.Errorf("a mount that failed stored %s", got)
	}
	spoil(t, d.path, header, 4096, syscall.PROT_READ|syscall.PROT_WRITE)

	d.Mount()
	d.Unmount()
	off := int64(d.owner().Map.Block) << 12 // the map is in free memory
	spoil(t, d.path, off, 4096, syscall.PROT_NONE)
	f, err := fs.Mount(d.R, fs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d.FS = f
	if s := f.Stats(); s.FreeMap || s.OfflineBytes != 4096 || known() != fmt.Sprintf("[{%d 4096}]", off) {
		t.Errorf("by the free map: %t, retired %d bytes, known are %s", s.FreeMap, s.OfflineBytes, known())
	}
	d.unused(off)
	d.Unmount()
	d.lost()
}
