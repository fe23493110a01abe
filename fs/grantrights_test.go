package fs_test

import (
	"strings"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/lease"
	"github.com/daxfsd/daxfsd/fs/owner"
)

// TestGrantPrivileges checks that a grant to write takes away what a write does, that setting it
// later makes the grant stale, and that a file stays writable while a program stores to it.
func TestGrantPrivileges(t *testing.T) {
	v := newGranting(t, 16<<20)
	ino := v.Create("/f")
	v.Write(ino, 0, make([]byte, 8192))
	chmod := func(mode uint32) {
		v.Helper()
		v.OK(v.FS.SetAttr(&v.Ctx, ino, &fs.SetAttr{Valid: fs.SetMode, Mode: mode}, new(fs.Attr)))
	}
	const capability = "security.capability"
	ask := func(write bool) *lease.Grant {
		v.Helper()
		g, _, e := v.FS.Direct().Grant(&v.Ctx, ino, &fs.GrantQuery{Lo: 0, Hi: 2, Write: write, Most: 4, Kill: fs.SetKillPriv})
		v.OK(e)
		v.locks.Use(g, 4096, 1)
		v.OK(v.FS.Direct().Confirm(&v.Ctx, ino, g.ID, g.Generation))
		return g
	}
	chmod(0o6755)
	v.SetXattr(ino, capability, []byte("x"))
	ask(false)
	if m := v.Stat(ino).Mode; m&0o7777 != 0o6755 {
		t.Errorf("a grant to read left mode %o", m)
	}
	ask(true)
	if m := v.Stat(ino).Mode; m&0o7777 != 0o755 {
		t.Errorf("a grant to write left mode %o", m)
	}
	if _, e := v.FS.GetXattr(&v.Ctx, ino, capability, nil); e != syscall.ENODATA {
		t.Errorf("a grant to write left capabilities: %v", e)
	}
	for name, set := range map[string]func(){
		"set-user-ID":  func() { chmod(0o4755) },
		"set-group-ID": func() { chmod(0o2755) },
		"capabilities": func() { v.SetXattr(ino, capability, []byte("y")) },
	} {
		g := ask(true)
		if v.generation(g) != g.Generation {
			t.Fatal("a new grant is stale")
		}
		chmod(0o700)
		if v.generation(g) != g.Generation {
			t.Error("a mode that no write changes makes a grant stale")
		}
		if set(); v.generation(g) == g.Generation {
			t.Errorf("%s: the grant is not stale", name)
		}
	}
	for _, flag := range []uint32{0x10, 0x20} { // FS_IMMUTABLE_FL, FS_APPEND_FL
		if e := v.FS.SetFlags(&v.Ctx, ino, flag, nil); e != syscall.EBUSY {
			t.Errorf("flag %#x while a program stores: %v", flag, e)
		}
	}
	v.OK(v.FS.SetFlags(&v.Ctx, ino, 0x80, nil)) // FS_NOATIME_FL
	v.Crash()
	v.Mount() // the programs go on
	if e := v.FS.SetFlags(&v.Ctx, v.Ino("/f"), 0x10, nil); e != syscall.EBUSY {
		t.Errorf("immutable while a program of a former mount stores: %v", e)
	}
	v.locks.DropAll()
	v.sweepOut()
	v.OK(v.FS.SetFlags(&v.Ctx, v.Ino("/f"), 0x10, nil))
	v.OK(v.FS.SetFlags(&v.Ctx, v.Ino("/f"), 0, nil))
}

// TestGrantIsRecorded checks when the region records that programs map it, and what an unmount
// says.
func TestGrantIsRecorded(t *testing.T) {
	v := newGranting(t, 16<<20)
	recorded := func(want bool, when string) {
		v.Helper()
		rec, err := owner.Read(v.R, v.Super())
		if err != nil || rec.Mapped.Any != want {
			v.Errorf("%s: recorded %v, %v", when, rec.Mapped.Any, err)
		}
	}
	ino := v.Create("/f")
	v.Write(ino, 0, make([]byte, 8192))
	recorded(false, "no grant")
	g := v.grant(ino, 0, 2, true)
	recorded(true, "a grant")
	v.Unmount()
	recorded(true, "unmounted")
	if last := v.said[len(v.said)-1]; !strings.Contains(last, "programs map 8 KiB of the region") {
		t.Errorf("the unmount says %q", last)
	}
	said := len(v.said)
	v.Mount()
	recorded(true, "mounted again")
	v.locks.Use(g, 4096, -1)
	g = v.grant(ino, 0, 1, false)
	v.locks.Use(g, 4096, -1)
	v.Unmount()
	v.Mount()
	recorded(false, "the program has ended")
	v.Crash()
	v.Mount()
	recorded(false, "after a crash")
	if len(v.said) != said {
		t.Errorf("messages without a program: %q", v.said[said:])
	}
}
