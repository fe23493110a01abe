package main

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/pmem"
)

// needRoot skips a test unless it can chown and mount.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// access opens a region as a mount does, and returns who may write to it.
func access(t *testing.T, path string) pmem.Access {
	t.Helper()
	r, err := pmem.Open(path, pmem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	a, err := r.Access()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// userACL is a POSIX access control list that lets user 1000 read and write.
func userACL() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 6, ^uint32(0)}, {2, 6, 1000}, {4, 0, ^uint32(0)}, {0x10, 6, ^uint32(0)}, {0x20, 0, ^uint32(0)}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// TestTrustACL checks that a region of root:root is not trusted if an access control list lets a
// user write to it, although the mode then shows that only root's group may write.
func TestTrustACL(t *testing.T) {
	needRoot(t)
	dir, err := os.MkdirTemp("/dev/shm", "daxfsd-trust-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := filepath.Join(dir, "region")
	if err := pmem.Create(p, 32<<20, true); err != nil {
		t.Fatal(err)
	}
	if a := access(t, p); !a.OnlyRoot() {
		t.Errorf("without a list: %+v is not trusted", a)
	}
	if err := unix.Setxattr(p, "system.posix_acl_access", userACL(), 0); errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("/dev/shm has no access control lists")
	} else if err != nil {
		t.Fatal(err)
	}
	if a := access(t, p); a.OnlyRoot() || a.Perm != 0o660 {
		t.Errorf("%+v, of a file to which user 1000 may write, is trusted", a)
	}
}

// TestTrustDescriptor checks that trust is decided for the opened file, wherever its name leads
// later.
func TestTrustDescriptor(t *testing.T) {
	needRoot(t)
	p := newRegion(t)
	if err := os.Chown(p, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	plan := &mountPlan{flags: &mountFlags{}, region: p, mountpoint: "/mnt", opts: &mountOptions{}}
	r, _, _, err := openForMount(plan, func(string, int64, int64) {}, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := os.Rename(p, p+".mine"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", p); err != nil {
		t.Fatal(err)
	}
	if a, err := r.Access(); err != nil || a.OnlyRoot() || a.UID != 1000 {
		t.Errorf("the region of user 1000 is %+v, error %v", a, err)
	}
}

// TestTrustInherits checks that a region on a filesystem mounted nosuid, nodev or noexec is mounted
// with the same flags.
func TestTrustInherits(t *testing.T) {
	needRoot(t)
	needFUSE(t)
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=64m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	p, mp := filepath.Join(dir, "region"), mountPoint(t)
	must(t, "mkfs", "--sparse", "--size", "32MiB", p)
	must(t, "mount", p, mp)
	var st unix.Statfs_t
	if err := unix.Statfs(mp, &st); err != nil {
		t.Fatal(err)
	}
	if want := int64(unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC); st.Flags&want != want {
		t.Errorf("the mount has flags %#x, want nosuid, nodev and noexec of the filesystem below", st.Flags)
	}
	must(t, "umount", mp)
}

// TestMkfsByDescriptor checks that mkfs does not write to another file if its name is swapped
// meanwhile.
func TestMkfsByDescriptor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, victim := filepath.Join(dir, "image"), filepath.Join(dir, "victim")
	writeFile(t, victim, []byte(strings.Repeat("precious", 4<<20)))
	before := digest(t, victim)
	swap := func() {
		if err := os.Rename(path, path+".mine"); err != nil && !errors.Is(err, os.ErrNotExist) { // a new file has no name yet
			t.Fatal(err)
		}
		if err := os.Symlink(victim, path); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		old  int64 // bytes of the existing file; -1: none
		f    mkfsFlags
	}{
		{"new", -1, mkfsFlags{size: 20 << 20}},
		{"grows", 16 << 20, mkfsFlags{size: 20 << 20, force: true}},
		{"shrinks", 24 << 20, mkfsFlags{size: 20 << 20, force: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			os.Remove(path)
			if c.old >= 0 {
				writeFile(t, path, nil)
				if err := os.Truncate(path, c.old); err != nil {
					t.Fatal(err)
				}
			}
			handle, err := acquireRegion(path)
			if err != nil {
				t.Fatal(err)
			}
			swap()
			region, err := c.f.prepare(path, handle, func(string, int64, int64) {})
			if err != nil {
				t.Fatal(err)
			}
			defer handle.Close()
			defer region.Close()
			_, err = c.f.format(path, handle, region, fs.MkfsOptions{}, func(string, int64, int64) {})
			if c.old < 0 {
				if err == nil || !strings.Contains(err.Error(), "another process") {
					t.Errorf("a new file took a name that another process had created: %v", err)
				}
			} else if err != nil {
				t.Fatal(err)
			}
			if digest(t, victim) != before {
				t.Fatal("the file that the name now leads to was changed")
			}
			if c.old < 0 {
				return
			}
			if st, err := os.Stat(path + ".mine"); err != nil || st.Size() != 20<<20 {
				t.Errorf("the file that was opened: %v, %v", st, err)
			}
			if _, err := pmem.Open(path+".mine", pmem.Options{}); !errors.Is(err, pmem.ErrBusy) {
				t.Errorf("the region is not locked any more: %v", err)
			}
		})
	}
}

// TestMountUserWritten checks that a set-user-ID program does not run as root if a user made it in
// the image of a region that the user may write to.
func TestMountUserWritten(t *testing.T) {
	needRoot(t)
	needFUSE(t)
	dir, err := os.MkdirTemp("/dev/shm", "daxfsd-trust-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) }) // after the unmount
	p, mp := filepath.Join(dir, "region"), filepath.Join(dir, "mnt")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(mp, 0o755)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(mp, unix.MNT_DETACH) })
	must(t, "mkfs", "--sparse", "--size", "32MiB", p)
	if err := unix.Setxattr(p, "system.posix_acl_access", userACL(), 0); err != nil {
		t.Skip(err)
	}
	must(t, "mount", "-o", "exec", p, mp)
	id, err := exec.LookPath("id")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, mp+"/id", readFile(t, id))
	if err := os.Chmod(mp+"/id", 0o4755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(mp+"/id", "-u")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	if out, err := cmd.Output(); err != nil || strings.TrimSpace(string(out)) != "1000" {
		t.Errorf("the program runs as user %q, %v, want 1000", out, err)
	}
	must(t, "umount", mp)
}
