package fs_test

import (
	"bytes"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/fstest"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/owner"
	"github.com/daxfsd/daxfsd/pmem"
)

// fileRegion returns a formatted region in a file. The race detector does not watch such a region,
// in which two users share no locks.
func fileRegion(t *testing.T) (*pmem.Region, *layout.Superblock) {
	t.Helper()
	path := t.TempDir() + "/region"
	if err := pmem.Create(path, 32<<20, true); err != nil {
		t.Fatal(err)
	}
	r, err := pmem.Open(path, pmem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	sb, err := fs.Mkfs(r, fs.MkfsOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r, sb
}

// claimAs takes the region as another process does that opened it by another inode.
func claimAs(t *testing.T, r *pmem.Region, sb *layout.Superblock, change func(u *owner.User)) *owner.Claim {
	t.Helper()
	u := owner.Us(r)
	u.Ino++
	change(&u)
	var c *owner.Claim
	for range 10 { // a user that is taken over may beat between the two calls
		rec, err := owner.Read(r, sb)
		if err != nil {
			t.Fatal(err)
		}
		c, err = owner.Take(r, sb, &owner.Verdict{Record: rec}, owner.TakeOptions{Us: &u, Seq: rec.Seq + 1, Interval: 100 * time.Millisecond})
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrInUse) {
			t.Fatal(err)
		}
	}
	if c == nil {
		t.Fatal("a region could not be taken between two beats")
	}
	c.Start(func(err error) { t.Errorf("the heartbeat: %v", err) })
	t.Cleanup(c.Stop)
	return c
}

// TestOwnerElsewhere checks a region whose user lives in another container, under a process number
// that is ours here, or that does not exist here. It is neither mounted nor repaired while its
// heartbeat beats, and both without further options when it is silent.
func TestOwnerElsewhere(t *testing.T) {
	for name, change := range map[string]func(u *owner.User){
		"our number":        func(u *owner.User) { u.PIDNS++; u.Start += 12345 },
		"a number not here": func(u *owner.User) { u.PIDNS++; u.PID = 4194000 },
		"process 1":         func(u *owner.User) { u.PIDNS++; u.PID = 1 },
		"another host name": func(u *owner.User) { u.PIDNS++; u.Machine[0]++ },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of its time it waits
			r, sb := fileRegion(t)
			c := claimAs(t, r, sb, change)
			for what, use := range map[string]func() error{
				"mount":    func() error { _, err := fs.Mount(r, fs.Options{}); return err },
				"takeover": func() error { _, err := fs.Mount(r, fs.Options{Takeover: true}); return err },
				"mount ro": func() error { _, err := fs.Mount(r, fs.Options{ReadOnly: true}); return err },
				"fsck -n":  func() error { _, err := fsck.Check(r, fsck.Options{}); return err },
				"fsck -y":  func() error { _, err := fsck.Check(r, fsck.Options{Repair: true, Takeover: true}); return err },
			} {
				if err := use(); !errors.Is(err, fs.ErrInUse) || !strings.Contains(err.Error(), "container") {
					t.Errorf("%s beside a live user: error %v", what, err)
				}
			}
			c.Stop()
			if rep, err := fsck.Check(r, fsck.Options{Repair: true}); err != nil || rep.Left > 0 {
				t.Errorf("fsck -y of a silent one: %+v, error %v", rep, err)
			}
			c = claimAs(t, r, sb, change)
			c.Stop()
			f, err := fs.Mount(r, fs.Options{})
			if err != nil {
				t.Fatalf("mount of a silent one: %v", err)
			}
			if err := f.Unmount(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestOwnerKilled checks that a user that this kernel's lock shows to be dead is not waited for,
// whatever its host name and container.
func TestOwnerKilled(t *testing.T) {
	r, sb := fileRegion(t)
	claimAs(t, r, sb, func(u *owner.User) { u.Ino--; u.PIDNS++; u.Machine[0]++; u.PID = 1 }).Stop()
	v, err := owner.Judge(r, sb, owner.Options{Sleep: func(time.Duration) { t.Error("waited") }})
	if err != nil || v.Use != owner.Unused || v.Copy {
		t.Errorf("verdict %+v, error %v", v, err)
	}
}

// TestOwnerOtherMachine checks that a silent region of another machine is left alone without
// takeover.
func TestOwnerOtherMachine(t *testing.T) {
	r, sb := fileRegion(t)
	claimAs(t, r, sb, func(u *owner.User) { u.Boot[0]++; u.Machine[0]++ }).Stop()
	before := bytes.Clone(r.Bytes(0, r.Size()))
	if _, err := fs.Mount(r, fs.Options{}); !errors.Is(err, fs.ErrInUse) || !strings.Contains(err.Error(), "-o takeover") {
		t.Errorf("mount: %v", err)
	}
	if _, err := fsck.Check(r, fsck.Options{Repair: true}); !errors.Is(err, fs.ErrInUse) || !strings.Contains(err.Error(), "--takeover") {
		t.Errorf("fsck -y: %v", err)
	}
	if rep, err := fsck.Check(r, fsck.Options{}); err != nil || rep.Left > 0 || rep.Clean {
		t.Errorf("fsck -n: %+v, error %v", rep, err)
	}
	if !bytes.Equal(r.Bytes(0, r.Size()), before) {
		t.Error("the region was changed")
	}
	f, err := fs.Mount(r, fs.Options{Takeover: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Unmount(); err != nil {
		t.Error(err)
	}
}

// TestOwnerRepairsNothingFirst checks that fsck -y of a region in use does not restore a
// superblock.
func TestOwnerRepairsNothingFirst(t *testing.T) {
	r, sb := fileRegion(t)
	claimAs(t, r, sb, func(u *owner.User) { u.PIDNS++ })
	for _, off := range []int64{0, sb.BackupOff} {
		var old, now [layout.SuperSize]byte
		if err := r.Load(off, old[:]); err != nil {
			t.Fatal(err)
		}
		damaged := old
		damaged[200]++
		if err := r.NTStore(off, damaged[:]); err != nil {
			t.Fatal(err)
		}
		if _, err := fsck.Check(r, fsck.Options{Repair: true}); !errors.Is(err, fs.ErrInUse) {
			t.Errorf("superblock at %d damaged: error %v", off, err)
		}
		if err := r.Load(off, now[:]); err != nil || now != damaged {
			t.Errorf("the superblock at %d of a region in use was restored, error %v", off, err)
		}
		if err := r.NTStore(off, old[:]); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRegionTaken checks a mount that slept while another process took the region, as a stopped
// daemon may. It reads and changes nothing any more, reports the reason, and does not mark the
// region clean.
func TestRegionTaken(t *testing.T) {
	r, sb := fileRegion(t)
	warned := make(chan string, 10)
	v := fstest.On(t, r, fs.Options{Clock: fstest.RealTime, BeatInterval: 5 * time.Millisecond, Warn: func(s string) { warned <- s }})
	v.Mount()
	ino, f := v.Create("/before"), v.FS
	v.Write(ino, 0, []byte("content"))
	if s := f.Stats(); s.Failed != "" {
		t.Errorf("it works, and says %q", s.Failed)
	}
	claimAs(t, r, sb, func(u *owner.User) { u.PIDNS++; u.PID = 4711 })
	select {
	case s := <-warned:
		if !strings.Contains(s, "4711") || !strings.Contains(s, "unmount") {
			t.Errorf("warned %q", s)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the mount does not find out")
	}
	var a fs.Attr
	_, written := f.Write(&v.Ctx, ino, 0, []byte("x"))
	for _, c := range []struct {
		name string
		e    syscall.Errno
	}{
		{"create", f.Mknod(&v.Ctx, layout.RootIno, "after", syscall.S_IFREG|0o600, 0, &a)},
		{"write", written},
		{"read", f.Read(&v.Ctx, ino, 0, 7, new(fs.PinnedRead))}, // its blocks may belong to another file by now
		{"stat", f.GetAttr(&v.Ctx, ino, &a)},
		{"lookup", f.Lookup(&v.Ctx, layout.RootIno, "before", &a)},
		{"syncfs", f.SyncAll()},
	} {
		if c.e != syscall.EIO {
			t.Errorf("%s: %v, want EIO", c.name, c.e)
		}
	}
	if s := f.Stats(); !strings.Contains(s.Failed, "4711") {
		t.Errorf("it tells %q as the reason", s.Failed)
	}
	v.FS = nil
	if err := f.Unmount(); err == nil {
		t.Error("it was unmounted cleanly")
	}
	if rec, err := owner.Read(r, sb); err != nil || rec.Owner.PID != 4711 || !rec.Mounted() {
		t.Errorf("the record is %+v, error %v", rec, err)
	}
}
