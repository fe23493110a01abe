package fs_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// TestFlags checks which calls immutable and append-only inodes refuse, and that an ordinary inode
// allows them.
func TestFlags(t *testing.T) {
	const imm, app = layout.FlagImmutable, layout.FlagAppend
	var a fs.Attr
	set := func(s fs.SetAttr) func(v *volume, f, d uint64) syscall.Errno {
		return func(v *volume, f, d uint64) syscall.Errno { return v.FS.SetAttr(&v.Ctx, f, &s, &a) }
	}
	open := func(flags uint32) func(v *volume, f, d uint64) syscall.Errno {
		return func(v *volume, f, d uint64) syscall.Errno {
			_, e := v.FS.Open(&v.Ctx, f, flags)
			return e
		}
	}
	write := func(off int64) func(v *volume, f, d uint64) syscall.Errno {
		return func(v *volume, f, d uint64) syscall.Errno {
			_, e := v.FS.Write(&v.Ctx, f, off, []byte("x"))
			return e
		}
	}
	for _, c := range []struct {
		name     string
		op       func(v *volume, f, d uint64) syscall.Errno
		file     uint32 // flags of the file with which the call is refused
		dir      uint32 // flags of its directory with which the call is refused
		otherdir uint32
	}{
		{"read", func(v *volume, f, d uint64) syscall.Errno { return v.FS.GetAttr(&v.Ctx, f, &a) }, 0, 0, 0},
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
		{"setxattr", func(v *volume, f, d uint64) syscall.Errno { return v.FS.SetXattr(&v.Ctx, f, "user.b", nil, 0) }, imm | app, 0, 0},
		{"removexattr", func(v *volume, f, d uint64) syscall.Errno { return v.FS.RemoveXattr(&v.Ctx, f, "user.a") }, imm | app, 0, 0},
		{"fallocate", func(v *volume, f, d uint64) syscall.Errno { return v.FS.Fallocate(&v.Ctx, f, 0, 0, 8192) }, imm, 0, 0},
		{"punch", func(v *volume, f, d uint64) syscall.Errno {
			return v.FS.Fallocate(&v.Ctx, f, fs.FallocPunchHole|fs.FallocKeepSize, 0, 1)
		}, imm | app, 0, 0},
		{"copy to", func(v *volume, f, d uint64) syscall.Errno {
			_, e := v.FS.CopyRange(&v.Ctx, v.Create("/src"), 0, f, 0, 10)
			return e
		}, imm | app, 0, 0},
		{"unlink", func(v *volume, f, d uint64) syscall.Errno { return v.FS.Unlink(&v.Ctx, d, "f") }, imm | app, imm | app, 0},
		{"rmdir", func(v *volume, f, d uint64) syscall.Errno { return v.FS.Rmdir(&v.Ctx, d, "sub") }, 0, imm | app, 0},
		{"link", func(v *volume, f, d uint64) syscall.Errno { return v.FS.Link(&v.Ctx, f, d, "l", &a) }, imm | app, imm, 0},
		{"create", func(v *volume, f, d uint64) syscall.Errno { return v.FS.Mknod(&v.Ctx, d, "n", 0o600, 0, &a) }, 0, imm, 0},
		{"mkdir", func(v *volume, f, d uint64) syscall.Errno { return v.FS.Mkdir(&v.Ctx, d, "n", 0o700, &a) }, 0, imm, 0},
		{"rename within", func(v *volume, f, d uint64) syscall.Errno { return v.FS.Rename(&v.Ctx, d, "f", d, "n", 0) }, imm | app, imm | app, 0},
		{"rename away", func(v *volume, f, d uint64) syscall.Errno { return v.FS.Rename(&v.Ctx, d, "f", 1, "n", 0) }, imm | app, imm | app, 0},
		{"rename to", func(v *volume, f, d uint64) syscall.Errno { return v.FS.Rename(&v.Ctx, 1, "other", d, "n", 0) }, 0, imm, 0},
		{"rename over", func(v *volume, f, d uint64) syscall.Errno { return v.FS.Rename(&v.Ctx, 1, "other", d, "f", 0) }, imm | app, imm | app, 0},
		{"exchange", func(v *volume, f, d uint64) syscall.Errno {
			return v.FS.Rename(&v.Ctx, 1, "other", d, "f", fs.RenameExchange)
		}, imm | app, imm | app, 0},
	} {
		for _, flag := range []uint32{0, imm, app} {
			for _, ofDir := range []bool{false, true} {
				v := newVolume(t, fs.MinSize)
				d := v.Mkdir("/d")
				f := v.Create("/d/f")
				v.Mkdir("/d/sub")
				v.Create("/other")
				v.Write(f, 0, []byte("data"))
				v.SetXattr(f, "user.a", nil)
				on, refuses := f, c.file
				if ofDir {
					on, refuses = d, c.dir
				}
				v.OK(v.FS.SetFlags(&v.Ctx, on, flag, nil))
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

// TestFlagsInherited checks that flags and project survive a remount and are inherited as in ext4.
func TestFlagsInherited(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	d := v.Mkdir("/d")
	proj := uint32(7)
	v.OK(v.FS.SetFlags(&v.Ctx, d, layout.FlagNoAtime|layout.FlagDAX|layout.FlagProjInherit|layout.FlagAppend, &proj))
	f, sub := v.Create("/d/f"), v.Mkdir("/d/sub")
	var a fs.Attr
	link := v.Symlink("/d/l", "target")
	v.Remount()
	for _, c := range []struct {
		ino         uint64
		flags, proj uint32
	}{
		{d, layout.FlagNoAtime | layout.FlagDAX | layout.FlagProjInherit | layout.FlagAppend, 7},
		{sub, layout.FlagNoAtime | layout.FlagDAX | layout.FlagProjInherit, 7},
		{f, layout.FlagNoAtime | layout.FlagDAX, 7},
		{link, 0, 7},
	} {
		if a = v.Stat(c.ino); a.Flags != c.flags || a.Proj != c.proj {
			t.Errorf("inode %d: flags %#x, project %d; expected %#x, %d", c.ino, a.Flags, a.Proj, c.flags, c.proj)
		}
	}
	v.expect(v.FS.SetFlags(&v.Ctx, f, 0x1000, nil), true, syscall.EOPNOTSUPP)
	v.expect(v.FS.SetFlags(&v.Ctx, link, 0, nil), true, syscall.EOPNOTSUPP)
}

// TestAtime checks when reading changes the access time.
func TestAtime(t *testing.T) {
	for _, c := range []struct {
		mode fs.Atime
		// Whether the time changes: by a read after a change, by another read at once, and a day
		// later.
		first, again, later bool
	}{{fs.Relatime, true, false, true}, {fs.Strictatime, true, true, true}, {fs.Noatime, false, false, false}} {
		v := newVolume(t, fs.MinSize)
		v.Unmount()
		v.MountWith(fs.Options{Atime: c.mode})
		f, d := v.Create("/f"), v.Mkdir("/d")
		v.Write(f, 0, []byte("data"))
		var a fs.Attr
		v.OK(v.FS.Symlink(&v.Ctx, 1, "l", "target", &a))
		l := a.Ino
		atime := func(ino uint64) int64 {
			t.Helper()
			a = v.Stat(ino)
			return a.Atime
		}
		for name, read := range map[uint64]func(){
			f: func() { v.Read(f, 0, 4) },
			d: func() { v.Names(d) },
			l: func() { v.FS.Readlink(&v.Ctx, l, nil) },
		} {
			changes := func(when string, want bool) {
				t.Helper()
				before := atime(name)
				read()
				if got := atime(name) != before; got != want {
					t.Errorf("mode %d, inode %d, %s: changed %v, expected %v", c.mode, name, when, got, want)
				}
			}
			v.Ctx.NoAtime = true
			changes("with O_NOATIME", false)
			v.Ctx.NoAtime = false
			changes("first", c.first)
			changes("again", c.again)
			v.Now.Add(int64(25 * time.Hour))
			v.SetXattr(1, "user.tick", nil) // advances the coarse clock without a timer
			changes("a day later", c.later)
			if name != l {
				v.OK(v.FS.SetFlags(&v.Ctx, name, layout.FlagNoAtime, nil))
				changes("with the flag", false)
			}
		}
		want := atime(f)
		v.Remount()
		if got := atime(f); got != want {
			t.Errorf("mode %d: access time %d after a remount, expected %d", c.mode, got, want)
		}
	}
}

// TestNoDirAtime checks that reading a directory leaves its access time alone, and reading a file
// does not.
func TestNoDirAtime(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	v.Unmount()
	v.MountWith(fs.Options{Atime: fs.Strictatime, NoDirAtime: true})
	f := v.Create("/f")
	v.Write(f, 0, []byte("data"))
	var before, after [2]fs.Attr
	stat := func(to *[2]fs.Attr) {
		to[0] = v.Stat(1)
		to[1] = v.Stat(f)
	}
	stat(&before)
	v.Names(1)
	v.Read(f, 0, 4)
	stat(&after)
	if after[0].Atime != before[0].Atime || after[1].Atime == before[1].Atime {
		t.Errorf("access times %d and %d, then %d and %d", before[0].Atime, before[1].Atime, after[0].Atime, after[1].Atime)
	}
}

// TestTimesTimer checks that lazily kept times become durable by themselves.
func TestTimesTimer(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	v.Unmount()
	v.MountWith(fs.Options{TimesInterval: time.Millisecond})
	f := v.Create("/f")
	v.Write(f, 0, []byte("data"))
	for range 50 {
		v.Write(f, 0, []byte("data"))
	}
	a := v.Stat(f)
	want := a.Mtime
	for wait := 50 * time.Millisecond; ; wait *= 2 { // then the daemon dies
		time.Sleep(wait)
		v.Crash()
		v.MountWith(fs.Options{TimesInterval: time.Millisecond})
		a = v.Stat(f)
		if a.Mtime == want {
			return
		}
		if wait > 5*time.Second {
			t.Fatalf("mtime is %d after %v, expected %d", a.Mtime, wait, want)
		}
		v.Write(f, 0, []byte("data"))
		a = v.Stat(f)
		want = a.Mtime
	}
}

// TestAppendPiecesInAnyOrder checks parallel O_APPEND requests. The kernel sends a large direct
// append as requests of 1 MiB, in any order; each is appended at the end of file of that moment.
func TestAppendPiecesInAnyOrder(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.Create("/log")
	v.OK(v.FS.SetFlags(&v.Ctx, ino, layout.FlagAppend, nil))
	b := make([]byte, 4096)
	v.Ctx.Append = true
	v.Write(ino, 4096, b)
	v.Write(ino, 0, b)
	v.Ctx.Writeback = true // the kernel's writeback does not append
	if _, e := v.FS.Write(&v.Ctx, ino, 0, b); e != syscall.EPERM {
		t.Errorf("a page written back: %v", e)
	}
	v.Ctx.Append, v.Ctx.Writeback = false, false
	if _, e := v.FS.Write(&v.Ctx, ino, 4096, b); e != syscall.EPERM {
		t.Errorf("an overwrite: %v", e)
	}
	v.Write(ino, 8192, b)
}

// TestAppendThatMayNotWait checks that a write that must not wait, and finds space for a part only,
// returns the length of the part. Were it repeated as a whole, an append-only file would refuse it.
func TestAppendThatMayNotWait(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.Create("/log")
	v.OK(v.FS.SetFlags(&v.Ctx, ino, layout.FlagAppend, nil))
	gone, fill := v.Create("/gone"), v.Create("/fill")
	for off := int64(0); ; off += 256 << 10 {
		if n, e := v.FS.Write(&v.Ctx, fill, off, make([]byte, 256<<10)); e != 0 || n < 256<<10 {
			break
		}
	}
	a := v.Stat(fill)
	v.Truncate(fill, a.Size-8*4096)
	v.Unlink("/gone") // still open: its space becomes free later
	ctx := fs.Caller{NoWait: true}
	n, e := v.FS.Write(&ctx, ino, 0, make([]byte, 1<<20))
	if e != 0 || n == 0 || n == 1<<20 {
		t.Errorf("%d bytes, %v", n, e)
	}
	if _, e := v.FS.Write(&ctx, ino, int64(n), make([]byte, 1<<20)); e != syscall.EAGAIN {
		t.Errorf("where there is no space: %v", e)
	}
	a = v.Stat(ino)
	if a.Size != uint64(n) {
		t.Errorf("%d bytes written, the file has %d", n, a.Size)
	}
	v.FS.Forget(gone, 1)
}
