package fs_test

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/lease"
)

// TestGrant checks which parts of a file are granted, and the errors.
func TestGrant(t *testing.T) {
	v := newGranting(t, 64<<20)
	ino, other, dir := v.Create("/f"), v.Create("/other"), v.Mkdir("/d")
	// Blocks 0 to 3 data, 4 to 7 a hole, 8 to 11 unwritten, 12 to 15 shared, and a part of block
	// 16.
	stamp := func(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n*4096) }
	v.Write(other, 0, stamp(9, 4))
	v.Write(ino, 0, stamp(1, 4))
	v.Write(ino, 16*4096, stamp(2, 1)[:100])
	v.Fallocate(ino, 0, 8*4096, 4*4096)
	v.Clone(other, 0, ino, 12*4096, 4*4096)
	pipe := v.Mknod("/pipe", syscall.S_IFIFO|0o600)
	frozen := v.Create("/frozen")
	v.Write(frozen, 0, stamp(1, 1))
	v.OK(v.FS.SetFlags(&v.Ctx, frozen, 0x10, nil))
	want := append(append(append(stamp(1, 4), stamp(0, 8)...), stamp(9, 4)...), append(stamp(2, 1)[:100], stamp(0, 1)[100:]...)...)
	for _, c := range []struct {
		name string
		ino  uint64
		q    fs.GrantQuery
		hi   uint64
		e    syscall.Errno
	}{
		{"all to read", ino, fs.GrantQuery{Lo: 0, Hi: 100}, 17, 0},
		{"a hole to read", ino, fs.GrantQuery{Lo: 4, Hi: 12}, 12, 0},
		{"to write, up to the hole", ino, fs.GrantQuery{Lo: 1, Hi: 100, Write: true}, 4, 0},
		{"to write at a hole", ino, fs.GrantQuery{Lo: 5, Hi: 6, Write: true}, 0, syscall.ENXIO},
		{"unwritten and shared blocks to write", ino, fs.GrantQuery{Lo: 8, Hi: 17, Write: true}, 17, 0},
		{"all to write", ino, fs.GrantQuery{Lo: 0, Hi: 100, Write: true, Allocate: true}, 17, 0},
		{"beyond the end", ino, fs.GrantQuery{Lo: 17, Hi: 18}, 0, syscall.ENXIO},
		{"nothing", ino, fs.GrantQuery{Lo: 2, Hi: 2}, 0, syscall.EINVAL},
		{"allocated to read", ino, fs.GrantQuery{Lo: 0, Hi: 1, Allocate: true}, 0, syscall.EINVAL},
		{"a directory", dir, fs.GrantQuery{Lo: 0, Hi: 1}, 0, syscall.EISDIR},
		{"a pipe", pipe, fs.GrantQuery{Lo: 0, Hi: 1}, 0, syscall.EINVAL},
		{"an immutable file to read", frozen, fs.GrantQuery{Lo: 0, Hi: 1}, 1, 0},
		{"an immutable file to write", frozen, fs.GrantQuery{Lo: 0, Hi: 1, Write: true}, 0, syscall.EPERM},
		{"no file", 4000, fs.GrantQuery{Lo: 0, Hi: 1}, 0, syscall.ESTALE},
	} {
		c.q.Most = 100
		g, size, e := v.FS.Direct().Grant(&v.Ctx, c.ino, &c.q)
		if e != c.e {
			t.Errorf("%s: %v, want %v", c.name, e, c.e)
		}
		if e != 0 {
			continue
		}
		if g.Lo != c.q.Lo || g.Hi != c.hi || g.Writable != c.q.Write || size != uint64(v.Stat(c.ino).Size) {
			t.Errorf("%s: blocks %d to %d of a file of %d bytes, want them to %d", c.name, g.Lo, g.Hi, size, c.hi)
		}
		if got := v.bytesOf(g); c.ino == ino && !bytes.Equal(got, want[g.Lo*4096:g.Hi*4096]) {
			t.Errorf("%s: a program sees other bytes than the file has", c.name)
		}
		if c.q.Write && g.Blocks() != g.Hi-g.Lo {
			t.Errorf("%s: %d blocks of %d to %d", c.name, g.Blocks(), g.Lo, g.Hi)
		}
	}
	if got := v.Read(ino, 0, 17*4096); !bytes.Equal(got, want[:16*4096+100]) {
		t.Error("grants have changed the file")
	}
	if got := v.Read(other, 0, 4*4096); !bytes.Equal(got, stamp(9, 4)) {
		t.Error("grants have changed a file that shared blocks")
	}
	v.Remount()
}

// TestGrantRules checks, for each operation on a file of which a program has a grant: whether the
// grant becomes stale; what the file holds afterwards, with what the program then stores; and that
// no other file gets what the program maps.
func TestGrantRules(t *testing.T) {
	const n = 64 // blocks of the file, which is one folio of the middle order and one of 4 KiB
	fill := func(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }
	for _, c := range []struct {
		name  string
		stale bool // of a grant to write
		read  bool // a grant to read is stale, too; else as to write
		do    func(v *granting, ino, other uint64)
	}{
		{"an overwrite", false, false, func(v *granting, ino, _ uint64) { v.Write(ino, 8192, fill(7, 100)) }},
		{"an append", false, false, func(v *granting, ino, _ uint64) { v.Write(ino, n*4096, fill(7, 100)) }},
		{"growing", false, false, func(v *granting, ino, _ uint64) { v.Truncate(ino, n*4096+5000) }},
		{"cutting behind the grant", false, false, func(v *granting, ino, _ uint64) { v.Truncate(ino, 32*4096) }},
		{"cutting", true, true, func(v *granting, ino, _ uint64) { v.Truncate(ino, 4096) }},
		{"punching", true, true, func(v *granting, ino, _ uint64) {
			v.Fallocate(ino, fs.FallocPunchHole|fs.FallocKeepSize, 4096, 8192)
		}},
		{"zeroing", false, true, func(v *granting, ino, _ uint64) { v.Fallocate(ino, fs.FallocZeroRange, 4096, 8192) }},
		{"copying from it", false, false, func(v *granting, ino, other uint64) { v.Clone(ino, 0, other, 0, 16*4096) }},
		{"copying to it", false, true, func(v *granting, ino, other uint64) { v.Clone(other, 0, ino, 0, 16*4096) }},
		{"a copy, and an overwrite", false, true, func(v *granting, ino, other uint64) {
			v.Clone(ino, 0, other, 0, 16*4096)
			v.Write(ino, 4096, fill(7, 4096))
		}},
		{"deleting it", true, true, func(v *granting, ino, _ uint64) { v.Delete("/f") }},
		{"a compaction", false, false, func(v *granting, ino, _ uint64) { v.FS.Compact(&v.Ctx) }},
		{"chmod", false, false, func(v *granting, ino, _ uint64) {
			v.OK(v.FS.SetAttr(&v.Ctx, ino, &fs.SetAttr{Valid: fs.SetMode, Mode: 0o600}, new(fs.Attr)))
		}},
	} {
		for _, write := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, write=%v", c.name, write), func(t *testing.T) {
				t.Parallel() // they wait for leases to end
				v := newGranting(t, 16<<20)
				ino, other := v.Create("/f"), v.Create("/other")
				v.Write(ino, 0, fill(1, n*4096))
				v.Write(other, 0, fill(2, 16*4096))
				before := v.Free()
				g := v.grant(ino, 0, 32, write)
				c.do(v, ino, other)
				if stale, want := v.generation(g) != g.Generation, c.stale || !write && c.read; stale != want {
					t.Errorf("stale: %v, want %v", stale, want)
				}
				// The program stores, while others take all space that there is.
				after := v.bytesOf(g)
				if write {
					for _, p := range g.Parts {
						v.Store(int64(p.Block)*4096, fill(5, int(p.N)*4096))
					}
					after = fill(5, len(after))
				}
				hog := v.Create("/hog")
				for off := int64(0); ; off += 4096 {
					if n, e := v.FS.Write(&v.Ctx, hog, off, fill(6, 4096)); n == 0 || e != 0 {
						break
					}
				}
				if !bytes.Equal(v.bytesOf(g), after) {
					t.Error("others have changed what the program maps")
				}
				if v.bytesIn(hog, 5) || v.bytesIn(other, 5) {
					t.Error("another file has what the program stored")
				}
				if write && !c.stale {
					if got := v.Read(ino, 0, 32*4096); !bytes.Equal(got, after) {
						t.Error("the file does not have what the program stored")
					}
				}
				v.Delete("/hog")
				v.end(g)
				if c.name != "deleting it" {
					v.Delete("/f")
				}
				v.Delete("/other")
				v.FS.AwaitDeleted(&v.Ctx)
				if free := v.Free(); free < before+n {
					t.Errorf("%d blocks are free in the end, %d before", free, before)
				}
				v.Remount()
			})
		}
	}
}

// TestGrantOutlivesMount checks that blocks which programs map through grants of a daemon that died
// are kept by the next one, whatever became of their file, and come back with the last program.
func TestGrantOutlivesMount(t *testing.T) {
	for name, clean := range map[string]bool{"killed": false, "unmounted": true} {
		t.Run(name, func(t *testing.T) {
			v := newGranting(t, 16<<20)
			free := v.Free()
			kept, gone := v.Create("/kept"), v.Create("/gone")
			v.Write(kept, 0, bytes.Repeat([]byte{1}, 16*4096))
			v.Write(gone, 0, bytes.Repeat([]byte{2}, 16*4096))
			grants := []*lease.Grant{v.grant(kept, 0, 8, true), v.grant(gone, 2, 12, false)}
			v.Delete("/gone")
			v.FS.AwaitDeleted(&v.Ctx)
			if clean {
				v.Unmount()
			} else {
				v.Crash()
			}
			v.Mount()
			for _, g := range grants {
				if v.generation(g) == g.Generation {
					t.Error("a grant of the former mount is not stale")
				}
			}
			if n := v.FS.Stats().DeferredFrees; n != 10*4096 {
				t.Errorf("%d bytes are kept that no file has, want 10 blocks", n)
			}
			v.Truncate(v.Ino("/kept"), 0)
			hog := v.Create("/hog")
			for off := int64(0); ; off += 4096 {
				if n, e := v.FS.Write(&v.Ctx, hog, off, bytes.Repeat([]byte{6}, 4096)); n == 0 || e != 0 {
					break
				}
			}
			for i, g := range grants {
				if got := v.bytesOf(g); bytes.IndexFunc(got, func(r rune) bool { return r != rune(1+i) }) >= 0 {
					t.Errorf("grant %d: another file has got its blocks", i)
				}
			}
			v.Delete("/hog")
			for _, g := range grants {
				v.end(g)
			}
			v.Delete("/kept")
			v.FS.AwaitDeleted(&v.Ctx)
			if n := v.Free(); n < free-2 {
				t.Errorf("%d blocks are free in the end, %d before", n, free)
			}
			v.Remount()
		})
	}
}

// TestGrantSpaceComes checks that a writer which finds no space gets what a program gives up.
func TestGrantSpaceComes(t *testing.T) {
	v := newGranting(t, 16<<20)
	ino := v.Create("/f")
	v.Write(ino, 0, make([]byte, 256*4096))
	g := v.grant(ino, 0, 256, true)
	v.Delete("/f")
	hog, off := v.Create("/hog"), int64(0)
	for {
		n, e := v.FS.Write(&v.Ctx, hog, off, make([]byte, 4096))
		if off += int64(n); e != 0 {
			break
		}
	}
	time.AfterFunc(10*time.Millisecond, func() { v.locks.Use(g, 4096, -1) })
	if !strings.Contains(strings.Join(v.said, "\n"), "the filesystem is full, and programs map 1024 KiB of the region, of which 1024 KiB are of no file") {
		t.Errorf("nothing says who has the space: %q", v.said)
	}
	for end := time.Now().Add(time.Second); ; {
		if n, e := v.FS.Write(&v.Ctx, hog, off, make([]byte, 4096)); e == 0 && n == 4096 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("no space a second after the program's end")
		}
	}
}

// TestGrantErrors checks what Confirm, Commit and Release answer.
func TestGrantErrors(t *testing.T) {
	v := newGranting(t, 16<<20)
	ino, other := v.Create("/f"), v.Create("/other")
	v.Write(ino, 0, make([]byte, 8192))
	v.Write(other, 0, make([]byte, 8192))
	d := v.FS.Direct()
	promise := func(write bool) *lease.Grant {
		g, _, e := d.Grant(&v.Ctx, ino, &fs.GrantQuery{Lo: 0, Hi: 2, Write: write, Most: 1, Handle: 3})
		v.OK(e)
		return g
	}
	g := promise(false)
	commit := func(ino uint64, g *lease.Grant, off, n int64) syscall.Errno {
		_, _, e := d.Commit(ino, g.ID, off, n)
		return e
	}
	confirm := func() syscall.Errno { return d.Confirm(&v.Ctx, ino, g.ID, g.Generation) }
	if e := confirm(); e != syscall.ENOLCK {
		t.Errorf("confirmed without a lock: %v", e)
	}
	v.locks.Use(g, 4096, 1)
	for name, e := range map[string]syscall.Errno{
		"of another file":      d.Confirm(&v.Ctx, other, g.ID, g.Generation),
		"commit to read":       commit(ino, g, 0, 0) ^ syscall.EBADF ^ syscall.ENOENT,
		"commit of another":    commit(other, g, 0, 0),
		"release of another":   d.Release(other, g.ID),
		"an id that is none's": d.Confirm(&v.Ctx, ino, g.ID+1, g.Generation),
	} {
		if e != syscall.ENOENT {
			t.Errorf("%s: %v", name, e)
		}
	}
	v.OK(confirm())
	v.Truncate(ino, 4096)
	if e := confirm(); e != syscall.ESTALE {
		t.Errorf("confirmed though it is stale: %v", e)
	}
	v.Truncate(ino, 8192)
	g = promise(true)
	d.CloseHandle(3)
	if e := confirm(); e != syscall.ENOENT {
		t.Errorf("confirmed after the file was closed: %v", e)
	}
	before := v.Stat(ino)
	g = v.grant(ino, 0, 1, true)
	v.OK(commit(ino, g, 0, 0))
	if e := commit(ino, g, 4000, 97); e != syscall.EINVAL {
		t.Errorf("commit behind the grant: %v", e)
	}
	if now := v.Stat(ino); now.Mtime <= before.Mtime || now.Ctime <= before.Ctime {
		t.Errorf("times after commit: %+v, before %+v", now, before)
	}
	before = v.Stat(ino)
	v.locks.Use(g, 4096, -1)
	v.OK(d.Release(ino, g.ID))
	if now := v.Stat(ino); now.Mtime <= before.Mtime {
		t.Error("mtime is not that of the end of the lease")
	}
	if e := d.Release(ino, g.ID); e != syscall.ENOENT {
		t.Errorf("released twice: %v", e)
	}
}

// TestGrantModes checks what each mode of the mount grants.
func TestGrantModes(t *testing.T) {
	v := newGranting(t, 16<<20)
	ino := v.Create("/f")
	v.Write(ino, 0, make([]byte, 4096))
	v.Unmount()
	for _, c := range []struct {
		o           fs.Options
		read, write syscall.Errno
	}{
		{fs.Options{}, syscall.EOPNOTSUPP, syscall.EOPNOTSUPP},
		{fs.Options{Direct: fs.DirectRead}, 0, syscall.EROFS},
		{fs.Options{Direct: fs.DirectWrite}, 0, 0},
		{fs.Options{Direct: fs.DirectWrite, ReadOnly: true}, syscall.EOPNOTSUPP, syscall.EROFS},
	} {
		v.MountWith(c.o)
		for _, write := range []bool{false, true} {
			_, _, e := v.FS.Direct().Grant(&v.Ctx, ino, &fs.GrantQuery{Lo: 0, Hi: 1, Write: write, Most: 1})
			if want := map[bool]syscall.Errno{false: c.read, true: c.write}[write]; e != want {
				t.Errorf("%+v, write %v: %v, want %v", c.o.Direct, write, e, want)
			}
		}
		v.Unmount()
	}
	v.Mount()
}
