package fs_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// TestFlags: what immutable and append-only inodes refuse, call by call, with what an
// ordinary one is allowed as control.
func TestFlags(t *testing.T) {
	const imm, app = layout.FlagImmutable, layout.FlagAppend
	var a fs.Attr
	set := func(s fs.SetAttr) func(v *volume, f, d uint64) syscall.Errno {
		return func(v *volume, f, d uint64) syscall.Errno { return v.fs.SetAttr(&v.ctx, f, &s, &a) }
	}
	open := func(flags uint32) func(v *volume, f, d uint64) syscall.Errno {
		return func(v *volume, f, d uint64) syscall.Errno {
			_, e := v.fs.Open(&v.ctx, f, flags)
			return e
		}
	}
	write := func(off int64) func(v *volume, f, d uint64) syscall.Errno {
		return func(v *volume, f, d uint64) syscall.Errno {
			_, e := v.fs.Write(&v.ctx, f, off, []byte("x"))
			return e
		}
	}
	for _, c := range []struct {
		name     string
		op       func(v *volume, f, d uint64) syscall.Errno
		file     uint32 // flags of the file that refuse
		dir      uint32 // flags of its directory that refuse
		otherdir uint32
	}{
		{"read", func(v *volume, f, d uint64) syscall.Errno { return v.fs.GetAttr(&v.ctx, f, &a) }, 0, 0, 0},
		{"open to read", open(syscall.O_RDONLY), 0, 0, 0},
		{"open to write", open(syscall.O_WRONLY), imm | app, 0, 0},
		{"open to append", open(syscall.O_RDWR | syscall.O_APPEND), imm, 0, 0},
		{"overwrite", write(0), imm | app, 0, 0},
		{"append", write(4), imm, 0, 0},
		{"truncate", set(fs.SetAttr{Valid: fs.SetSize}), imm | app, 0, 0},
		{"chmod", set(fs.SetAttr{Valid: fs.SetMode, Mode: 0o600}), imm | app, 0, 0},
		{"chown", set(fs.SetAttr{Valid: fs.SetUID, UID: 5}), imm | app, 0, 0},
		{"utimens", set(fs.SetAttr{Valid: fs.SetMtime}), imm | app, 0, 0},
		{"utimens now", set(fs.SetAttr{Valid: fs.SetMtime | fs.SetAtime, Now: true}), imm, 0, 0},
		{"setxattr", func(v *volume, f, d uint64) syscall.Errno { return v.fs.SetXattr(&v.ctx, f, "user.b", nil, 0) }, imm | app, 0, 0},
		{"removexattr", func(v *volume, f, d uint64) syscall.Errno { return v.fs.RemoveXattr(&v.ctx, f, "user.a") }, imm | app, 0, 0},
		{"fallocate", func(v *volume, f, d uint64) syscall.Errno { return v.fs.Fallocate(&v.ctx, f, 0, 0, 8192) }, imm, 0, 0},
		{"punch", func(v *volume, f, d uint64) syscall.Errno {
			return v.fs.Fallocate(&v.ctx, f, fs.FallocPunchHole|fs.FallocKeepSize, 0, 1)
		}, imm | app, 0, 0},
		{"copy to", func(v *volume, f, d uint64) syscall.Errno {
			_, e := v.fs.CopyRange(&v.ctx, v.create(1, "src"), 0, f, 0, 10)
			return e
		}, imm | app, 0, 0},
		{"unlink", func(v *volume, f, d uint64) syscall.Errno { return v.fs.Unlink(&v.ctx, d, "f") }, imm | app, imm | app, 0},
		{"rmdir", func(v *volume, f, d uint64) syscall.Errno { return v.fs.Rmdir(&v.ctx, d, "sub") }, 0, imm | app, 0},
		{"link", func(v *volume, f, d uint64) syscall.Errno { return v.fs.Link(&v.ctx, f, d, "l", &a) }, imm | app, imm, 0},
		{"create", func(v *volume, f, d uint64) syscall.Errno { return v.fs.Mknod(&v.ctx, d, "n", 0o600, 0, &a) }, 0, imm, 0},
		{"mkdir", func(v *volume, f, d uint64) syscall.Errno { return v.fs.Mkdir(&v.ctx, d, "n", 0o700, &a) }, 0, imm, 0},
		{"rename within", func(v *volume, f, d uint64) syscall.Errno { return v.fs.Rename(&v.ctx, d, "f", d, "n", 0) }, imm | app, imm | app, 0},
		{"rename away", func(v *volume, f, d uint64) syscall.Errno { return v.fs.Rename(&v.ctx, d, "f", 1, "n", 0) }, imm | app, imm | app, 0},
		{"rename to", func(v *volume, f, d uint64) syscall.Errno { return v.fs.Rename(&v.ctx, 1, "other", d, "n", 0) }, 0, imm, 0},
		{"rename over", func(v *volume, f, d uint64) syscall.Errno { return v.fs.Rename(&v.ctx, 1, "other", d, "f", 0) }, imm | app, imm | app, 0},
		{"exchange", func(v *volume, f, d uint64) syscall.Errno {
			return v.fs.Rename(&v.ctx, 1, "other", d, "f", fs.RenameExchange)
		}, imm | app, imm | app, 0},
	} {
		for _, flag := range []uint32{0, imm, app} {
			for _, ofDir := range []bool{false, true} {
				v := newVolume(t, fs.MinSize)
				d := v.mkdir(1, "d")
				f := v.create(d, "f")
				v.mkdir(d, "sub")
				v.create(1, "other")
				v.write(f, 0, []byte("data"))
				v.ok(v.fs.SetXattr(&v.ctx, f, "user.a", nil, 0))
				on, refuses := f, c.file
				if ofDir {
					on, refuses = d, c.dir
				}
				v.ok(v.fs.SetFlags(&v.ctx, on, flag, nil))
				want := syscall.Errno(0)
				if refuses&flag != 0 {
					want = syscall.EPERM
				}
				if e := c.op(v, f, d); e != want {
					t.Errorf("%s with flags %#x (of the directory: %v): %v, expected %v", c.name, flag, ofDir, e, want)
				}
			}
		}
	}
}

// Flags and project outlive a remount, and are inherited as those of ext4 are.
func TestFlagsInherited(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	d := v.mkdir(1, "d")
	proj := uint32(7)
	v.ok(v.fs.SetFlags(&v.ctx, d, layout.FlagNoAtime|layout.FlagDAX|layout.FlagProjInherit|layout.FlagAppend, &proj))
	f, sub := v.create(d, "f"), v.mkdir(d, "sub")
	var a fs.Attr
	v.ok(v.fs.Symlink(&v.ctx, d, "l", "target", &a))
	link := a.Ino
	v.remount()
	for _, c := range []struct {
		ino         uint64
		flags, proj uint32
	}{
		{d, layout.FlagNoAtime | layout.FlagDAX | layout.FlagProjInherit | layout.FlagAppend, 7},
		{sub, layout.FlagNoAtime | layout.FlagDAX | layout.FlagProjInherit, 7},
		{f, layout.FlagNoAtime | layout.FlagDAX, 7},
		{link, 0, 7},
	} {
		if v.ok(v.fs.GetAttr(&v.ctx, c.ino, &a)); a.Flags != c.flags || a.Proj != c.proj {
			t.Errorf("inode %d: flags %#x, project %d; expected %#x, %d", c.ino, a.Flags, a.Proj, c.flags, c.proj)
		}
	}
	v.expect(v.fs.SetFlags(&v.ctx, f, 0x1000, nil), true, syscall.EOPNOTSUPP)
	v.expect(v.fs.SetFlags(&v.ctx, link, 0, nil), true, syscall.EOPNOTSUPP)
}

// TestAtime: when reading changes the access time.
func TestAtime(t *testing.T) {
	for _, c := range []struct {
		mode fs.Atime
		// Whether it changes: after a change, again at once, and again a day later.
		first, again, later bool
	}{{fs.Relatime, true, false, true}, {fs.Strictatime, true, true, true}, {fs.Noatime, false, false, false}} {
		v := newVolume(t, fs.MinSize)
		v.unmount()
		v.mountBy(fs.Options{Atime: c.mode})
		f, d := v.create(1, "f"), v.mkdir(1, "d")
		v.write(f, 0, []byte("data"))
		var a fs.Attr
		v.ok(v.fs.Symlink(&v.ctx, 1, "l", "target", &a))
		l := a.Ino
		atime := func(ino uint64) int64 {
			t.Helper()
			v.ok(v.fs.GetAttr(&v.ctx, ino, &a))
			return a.Atime
		}
		for name, read := range map[uint64]func(){
			f: func() { v.read(f, 0, 4) },
			d: func() { v.names(d) },
			l: func() { v.fs.Readlink(&v.ctx, l, nil) },
		} {
			changes := func(when string, want bool) {
				t.Helper()
				before := atime(name)
				read()
				if got := atime(name) != before; got != want {
					t.Errorf("mode %d, inode %d, %s: changed %v, expected %v", c.mode, name, when, got, want)
				}
			}
			v.ctx.NoAtime = true
			changes("with O_NOATIME", false)
			v.ctx.NoAtime = false
			changes("first", c.first)
			changes("again", c.again)
			v.now.Add(int64(25 * time.Hour))
			v.ok(v.fs.SetXattr(&v.ctx, 1, "user.tick", nil, 0)) // the coarse clock, without a timer
			changes("a day later", c.later)
			if name != l {
				v.ok(v.fs.SetFlags(&v.ctx, name, layout.FlagNoAtime, nil))
				changes("with the flag", false)
			}
		}
		want := atime(f)
		v.remount()
		if got := atime(f); got != want {
			t.Errorf("mode %d: access time %d after a remount, expected %d", c.mode, got, want)
		}
	}
}

// nodiratime: reading a directory leaves its access time alone, reading a file does not.
func TestNoDirAtime(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	v.unmount()
	v.mountBy(fs.Options{Atime: fs.Strictatime, NoDirAtime: true})
	f := v.create(1, "f")
	v.write(f, 0, []byte("data"))
	var before, after [2]fs.Attr
	stat := func(to *[2]fs.Attr) {
		v.ok(v.fs.GetAttr(&v.ctx, 1, &to[0]))
		v.ok(v.fs.GetAttr(&v.ctx, f, &to[1]))
	}
	stat(&before)
	v.names(1)
	v.read(f, 0, 4)
	stat(&after)
	if after[0].Atime != before[0].Atime || after[1].Atime == before[1].Atime {
		t.Errorf("access times %d and %d, then %d and %d", before[0].Atime, before[1].Atime, after[0].Atime, after[1].Atime)
	}
}

// Times that are kept lazily become durable by themselves.
func TestTimesTimer(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	v.unmount()
	v.mountBy(fs.Options{TimesInterval: time.Millisecond})
	f := v.create(1, "f")
	v.write(f, 0, []byte("data"))
	for range 50 {
		v.write(f, 0, []byte("data"))
	}
	var a fs.Attr
	v.ok(v.fs.GetAttr(&v.ctx, f, &a))
	want := a.Mtime
	for wait := 50 * time.Millisecond; ; wait *= 2 { // and then it dies
		time.Sleep(wait)
		v.fs.Abandon()
		v.mountBy(fs.Options{TimesInterval: time.Millisecond})
		v.ok(v.fs.GetAttr(&v.ctx, f, &a))
		if a.Mtime == want {
			return
		}
		if wait > 5*time.Second {
			t.Fatalf("mtime is %d after %v, expected %d", a.Mtime, wait, want)
		}
		v.write(f, 0, []byte("data"))
		v.ok(v.fs.GetAttr(&v.ctx, f, &a))
		want = a.Mtime
	}
}

// The kernel sends a large direct append as requests of 1 MiB side by side, which may come in any
// order: those of a file opened with O_APPEND are at the end of file, whatever it is by now.
func TestAppendPiecesInAnyOrder(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.create(1, "log")
	v.ok(v.fs.SetFlags(&v.ctx, ino, layout.FlagAppend, nil))
	b := make([]byte, 4096)
	v.ctx.Append = true
	v.write(ino, 4096, b)
	v.write(ino, 0, b)
	v.ctx.Writeback = true // nobody appends by a mapping
	if _, e := v.fs.Write(&v.ctx, ino, 0, b); e != syscall.EPERM {
		t.Errorf("a page written back: %v", e)
	}
	v.ctx.Append, v.ctx.Writeback = false, false
	if _, e := v.fs.Write(&v.ctx, ino, 4096, b); e != syscall.EPERM {
		t.Errorf("an overwrite: %v", e)
	}
	v.write(ino, 8192, b)
}

// A write that may not wait and found space for a part says so: what follows could otherwise
// find it there, and an append-only file refuse it.
func TestAppendThatMayNotWait(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.create(1, "log")
	v.ok(v.fs.SetFlags(&v.ctx, ino, layout.FlagAppend, nil))
	gone, fill := v.create(1, "gone"), v.create(1, "fill")
	for off := int64(0); ; off += 256 << 10 {
		if n, e := v.fs.Write(&v.ctx, fill, off, make([]byte, 256<<10)); e != 0 || n < 256<<10 {
			break
		}
	}
	var a fs.Attr
	v.ok(v.fs.GetAttr(&v.ctx, fill, &a))
	v.ok(v.fs.SetAttr(&v.ctx, fill, &fs.SetAttr{Valid: fs.SetSize, Size: a.Size - 8*4096}, &a))
	v.ok(v.fs.Unlink(&v.ctx, 1, "gone")) // still open: its space is on its way
	ctx := fs.Caller{NoWait: true}
	n, e := v.fs.Write(&ctx, ino, 0, make([]byte, 1<<20))
	if e != 0 || n == 0 || n == 1<<20 {
		t.Errorf("%d bytes, %v", n, e)
	}
	if _, e := v.fs.Write(&ctx, ino, int64(n), make([]byte, 1<<20)); e != syscall.EAGAIN {
		t.Errorf("where there is no space: %v", e)
	}
	v.ok(v.fs.GetAttr(&v.ctx, ino, &a))
	if a.Size != uint64(n) {
		t.Errorf("%d bytes written, the file has %d", n, a.Size)
	}
	v.fs.Forget(gone, 1)
}
