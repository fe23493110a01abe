package fs_test

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// TestDamagedDirectoryLine checks that a damaged line of a directory loses only the names in it;
// the others are listed, found, made and removed. The damage is logged once. The filesystem stays
// marked damaged over mounts until fsck has repaired it, and moved the files without a name to
// lost+found.
func TestDamagedDirectoryLine(t *testing.T) {
	long := strings.Repeat("long", 50)
	v := newVolume(t, fs.MinSize)
	d := v.Mkdir("/d")
	for i := range 20 {
		v.Create(fmt.Sprint("/d/file", i, "x"))
	}
	v.Create("/d/" + long)
	v.Unmount()
	for name, part := range map[string]int64{"file7x": 0, long: 2} {
		off := v.entryOff(name) + part*layout.LineSize + 30
		b := make([]byte, 1)
		v.R.Load(off, b)
		v.Store(off, []byte{b[0] ^ 0x10})
	}
	for round := range 2 {
		var log []string
		v.MountWith(fs.Options{Warn: func(s string) { log = append(log, s) }})
		f := v.FS
		var names []string
		for range 2 {
			names = nil
			v.OK(f.ReadDir(&v.Ctx, d, 2, func(x *fs.Dirent) bool { names = append(names, string(x.Name)); return true }))
		}
		if len(names) != 19 || slices.Contains(names, "file7x") {
			t.Errorf("%d names are listed, expected 19: %q", len(names), names)
		}
		var a fs.Attr
		for name, want := range map[string]syscall.Errno{"file7x": syscall.EIO, long: syscall.EIO, "file8x": 0, "other": syscall.ENOENT} {
			if e := f.Lookup(&v.Ctx, d, name, &a); e != want {
				t.Errorf("lookup of %.10q: %v, expected %v", name, e, want)
			}
		}
		v.OK(f.Mknod(&v.Ctx, d, "new", syscall.S_IFREG|0o600, 0, &a))
		v.OK(f.Rename(&v.Ctx, d, "new", d, "newer", 0))
		v.OK(f.Unlink(&v.Ctx, d, "newer"))
		if e := f.Mknod(&v.Ctx, d, "file7x", syscall.S_IFREG|0o600, 0, &a); e != syscall.EIO {
			t.Errorf("create of a lost name: %v", e)
		}
		if n := strings.Count(strings.Join(log, "\n"), "is lost"); n != 2 {
			t.Errorf("round %d: %d messages, expected one of each of two lines: %q", round, n, log)
		}
		if round > 0 && !strings.Contains(log[0], "damaged metadata was found") {
			t.Errorf("the second mount says nothing: %q", log)
		}
		if round > 0 { // the names that are left cannot be removed with the damaged ones
			for _, name := range names {
				v.OK(f.Unlink(&v.Ctx, d, name))
			}
			if e := f.Rmdir(&v.Ctx, 1, "d"); e != syscall.EIO {
				t.Errorf("rmdir: %v, expected EIO", e)
			}
		}
		v.Unmount()
		if o := v.owner(); o.State == layout.OwnerMounted || !o.Damaged {
			t.Errorf("the owner record after the unmount: %+v", o)
		}
	}
	rep, err := fsck.Check(v.R, fsck.Options{})
	if err != nil || rep.ExitCode() != 4 {
		t.Fatalf("fsck -n: %v %+v", err, rep)
	}
	if rep, err = fsck.Check(v.R, fsck.Options{Repair: true}); err != nil || rep.ExitCode() != 1 {
		t.Fatalf("fsck -y: %v %+v", err, rep)
	}
	if v.owner().Damaged {
		t.Error("still marked after the repair")
	}
	v.Mount()
	if names := v.Names(v.Ino("/lost+found")); len(names) != 2+2 {
		t.Errorf("lost+found has %q, expected 2 files", names)
	}
	v.Rmdir("/d")
}
