package guest

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

// TestNFS exports a mount by the kernel's NFS server and mounts the export by its client. Changes
// on one side must be visible on the other, whatever the server has cached, and after a restart or
// a kill of the daemon.
func TestNFS(t *testing.T) {
	s := startNFS(t)
	on := func(mode string, test func(*testing.T, *nfsExport), versions ...nfsVersion) {
		t.Run(mode, func(t *testing.T) {
			m := harness.NewWith(t, "transport=dev,trace,"+mode, 96*mib, limit)
			s.refuses(t, m)
			s.export(t, m)
			for _, v := range versions {
				t.Run(v.name, func(t *testing.T) {
					e := &nfsExport{s: s, m: m, nfs: s.mountNFS(t, v), v: v, dir: v.name}
					must(t, os.Mkdir(e.remote(), 0o755))
					test(t, e)
					e.same(t)
				})
			}
			s.stop(t)
			m.Down()
			s.start(t)
			dir := t.TempDir()
			if err := unix.Mount("127.0.0.1:"+m.Mountpoint, dir, nfs3.fstype, 0, nfs3.options); err == nil {
				t.Error("what is below the mount point can be mounted by NFS, in spite of the option mountpoint")
				_ = unix.Unmount(dir, 0)
			}
		})
	}
	on("dax=always", func(t *testing.T, e *nfsExport) {
		t.Run("names", e.names)
		t.Run("many-names", e.manyNames)
		t.Run("data", e.data)
		t.Run("coherence", e.coherence)
		t.Run("silly-rename", e.sillyRename)
		t.Run("users", e.users)
		t.Run("full", e.full)
		if e.v == nfs4 {
			t.Run("space-and-attributes", e.spaceAndAttributes)
			t.Run("locks", e.locks)
		}
		t.Run("handles", e.handles)
		t.Run("stale", e.stale)
		t.Run("restart", e.restart)
	}, nfs4, nfs3)
	on("dax=never", func(t *testing.T, e *nfsExport) { // in this mode the kernel also caches content for the mount
		t.Run("data", e.data)
		t.Run("coherence", e.coherence)
	}, nfs4)
}

// nfsExport is a directory that the tests access by NFS (remote) and on the mount (local).
type nfsExport struct {
	s   *nfsServer
	m   *harness.Mount
	nfs string // mount point of the NFS client
	v   nfsVersion
	dir string
}

func (e *nfsExport) remote(elem ...string) string {
	return filepath.Join(append([]string{e.nfs, e.dir}, elem...)...)
}

func (e *nfsExport) local(elem ...string) string {
	return e.m.Path(append([]string{e.dir}, elem...)...)
}

// refuses requires that exportfs refuses a FUSE mount without fsid=.
func (s *nfsServer) refuses(t *testing.T, m *harness.Mount) {
	t.Helper()
	if out, _ := harness.Command(limit, "", nil, "exportfs", "-o", "rw,no_subtree_check", "127.0.0.1:"+m.Mountpoint); !strings.Contains(out, "fsid=") {
		t.Errorf("exportfs without fsid= said %q", out)
	}
	run(t, "exportfs", "-au")
}

// must fails the test if any of the calls failed.
func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// tree describes everything below a directory: attributes, targets and content, by name.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var b []byte
		if d.Type().IsRegular() {
			if b, err = os.ReadFile(name); err != nil {
				return err
			}
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return err
		}
		what := fmt.Sprintf("inode %d mode %o links %d owner %d:%d mtime %d.%09d ctime %d.%09d", st.Ino, st.Mode, st.Nlink, st.Uid, st.Gid,
			st.Mtim.Sec, st.Mtim.Nsec, st.Ctim.Sec, st.Ctim.Nsec)
		switch {
		case d.Type().IsRegular():
			what += fmt.Sprintf(" size %d blocks %d content %d:%x", st.Size, st.Blocks, len(b), crc32.ChecksumIEEE(b))
		case d.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(name)
			if err != nil {
				return err
			}
			what += " to " + to
		case d.Type()&fs.ModeDevice != 0:
			what += fmt.Sprintf(" device %x", st.Rdev)
		}
		rel, err := filepath.Rel(root, name)
		all[rel] = what
		return err
	}))
	return all
}

// same requires that both sides show the same tree, and returns it.
func (e *nfsExport) same(t *testing.T) map[string]string {
	t.Helper()
	// Local first: a client of version 4.2 that holds a delegation of a file keeps its times until
	// the file is opened on the mount.
	local := tree(t, e.local())
	remote := tree(t, e.remote())
	for name, want := range local {
		if got := remote[name]; got != want {
			t.Errorf("%s is by NFS\n%s, and on the mount\n%s", name, got, want)
		}
	}
	for name := range remote {
		if local[name] == "" {
			t.Errorf("%s is there by NFS only", name)
		}
	}
	return local
}

// names creates, changes and removes names, first by NFS and then on the mount.
func (e *nfsExport) names(t *testing.T) {
	r, l := e.remote, e.local
	long := strings.Repeat("n", 255)
	when := unix.Timespec{Sec: 1_000_000_000, Nsec: 123_456_789}
	must(t, os.Mkdir(r("d"), 0o750), os.Mkdir(r("d/e"), 0o755), os.WriteFile(r("f"), []byte("content"), 0o640), os.WriteFile(r("d/g"), nil, 0o644),
		os.WriteFile(r(long), []byte("long"), 0o600), os.Link(r("f"), r("d/e/hard")), os.Symlink("../f", r("d/soft")), unix.Mkfifo(r("fifo"), 0o644),
		unix.Mknod(r("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), os.Rename(r("d/g"), r("d/h")), os.Rename(r("d/e"), r("e")),
		os.WriteFile(r("over"), []byte("old"), 0o644), os.WriteFile(r("new"), []byte("new"), 0o644), os.Rename(r("new"), r("over")),
		unix.Chmod(r("f"), 0o4751), os.Chown(r("d/h"), 1000, 2000), os.Lchown(r("d/soft"), 3, 4), os.Truncate(r(long), 2),
		unix.UtimesNanoAt(unix.AT_FDCWD, r("d/h"), []unix.Timespec{when, when}, 0),
		os.WriteFile(r("gone"), nil, 0o644), os.Remove(r("gone")), os.Mkdir(r("gone"), 0o755), os.Remove(r("gone")))
	all := e.same(t)
	for name, part := range map[string]string{"f": "mode 104751 links 2", "e/hard": "size 7", "d/soft": "owner 3:4", "d/h": "owner 1000:2000 mtime 1000000000.123456789",
		long: "size 2 ", "over": "size 3 ", "null": "device 103", "fifo": "mode 10644"} {
		if !strings.Contains(all[name], part) {
			t.Errorf("%s is %q, want %q", name, all[name], part)
		}
	}
	if len(all) != 11 {
		t.Errorf("there are %d names: %v", len(all), all)
	}
	for _, c := range []struct {
		what      string
		err, want error
	}{
		{"a directory that is not empty", unix.Rmdir(r("d")), unix.ENOTEMPTY},
		{"a name that is there", unix.Mkdir(r("d"), 0o755), unix.EEXIST},
		{"a name too long", unix.Mkdir(r(long+"n"), 0o755), unix.ENAMETOOLONG},
		{"a name that is not there", unix.Unlink(r("nothing")), unix.ENOENT},
		{"a directory into itself", unix.Rename(r("d"), r("d/d")), unix.EINVAL},
	} {
		if c.err != c.want {
			t.Errorf("%s: %v, want %v", c.what, c.err, c.want)
		}
	}
	must(t, os.Chmod(l("f"), 0o600), os.Chown(l("d"), 5, 6), os.Rename(l("d/h"), l("h")), os.Remove(l("fifo")), os.WriteFile(l("f"), []byte("another"), 0),
		os.Truncate(l("over"), 5), os.Link(l("h"), l("d/again")), os.Symlink("x", l("link")), unix.UtimesNanoAt(unix.AT_FDCWD, l("h"), []unix.Timespec{when, when}, 0))
	e.same(t)
	var here, there unix.Statfs_t
	must(t, unix.Statfs(r(), &there), unix.Statfs(l(), &here))
	if a, b := int64(there.Blocks)*there.Bsize, int64(here.Blocks)*here.Bsize; max(a-b, b-a) >= there.Bsize || there.Files != here.Files {
		t.Errorf("statfs: %d bytes and %d files by NFS, %d and %d on the mount", a, there.Files, b, here.Files)
	}
}

// manyNames creates more names than a reply of the server holds, on both sides, lists them and
// removes them by NFS.
func (e *nfsExport) manyNames(t *testing.T) {
	const n, nth = 250, 15
	must(t, os.Mkdir(e.remote("many"), 0o755))
	var want []string
	for i := range n {
		name := fmt.Sprintf("a name that takes some space in a reply, number %d", i)
		at := e.local
		if i%nth == 0 {
			at = e.remote
		}
		must(t, os.WriteFile(at("many", name), nil, 0o644))
		want = append(want, name)
	}
	slices.Sort(want)
	for _, dir := range []string{e.remote("many"), e.local("many")} {
		names, err := os.ReadDir(dir)
		got := make([]string, len(names))
		for i, d := range names {
			got[i] = d.Name()
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("in %s there are %d names, want %d (%v)", dir, len(got), n, err)
		}
	}
	for i, name := range want {
		if i%nth != 0 {
			must(t, os.Remove(e.local("many", name)))
		}
	}
	must(t, os.RemoveAll(e.remote("many")))
	if _, err := os.Lstat(e.local("many")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed by NFS, and on the mount: %v", err)
	}
}

// sillyRename checks that a file that was unlinked while open by NFS stays usable until it is
// closed.
func (e *nfsExport) sillyRename(t *testing.T) {
	must(t, os.Mkdir(e.remote("silly"), 0o755), os.WriteFile(e.remote("silly/f"), []byte("content"), 0o644))
	f, err := os.OpenFile(e.remote("silly/f"), os.O_RDWR, 0)
	must(t, err, os.Remove(e.remote("silly/f")))
	if l, err := os.ReadDir(e.local("silly")); err != nil || len(l) != 1 || !strings.HasPrefix(l[0].Name(), ".nfs") {
		t.Errorf("on the mount there is %v (%v), want the client's name", l, err)
	}
	_, err = f.WriteAt([]byte("CON"), 0)
	must(t, err, f.Sync())
	b := make([]byte, 7)
	if _, err := f.ReadAt(b, 0); err != nil || string(b) != "CONtent" {
		t.Errorf("it reads %q (%v)", b, err)
	}
	must(t, f.Close())
	until(t, "the client to remove it", func() bool {
		l, err := os.ReadDir(e.local("silly"))
		return err == nil && len(l) == 0
	})
	must(t, os.Remove(e.remote("silly")))
}

// until waits up to a minute until done returns true.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for start := time.Now(); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Since(start) > time.Minute {
			t.Fatalf("a minute was not enough for %s", what)
		}
	}
}

// users checks owners and permissions of files that users create by NFS.
func (e *nfsExport) users(t *testing.T) {
	must(t, os.Mkdir(e.remote("common"), 0o755), unix.Chmod(e.remote("common"), 0o1777), os.WriteFile(e.remote("common/root"), []byte("r"), 0o600))
	as := func(uid uint32, script string) error {
		cmd := exec.Command("sh", "-c", script)
		cmd.Dir = e.remote("common")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		return cmd.Run()
	}
	for dir := filepath.Dir(e.nfs); dir != os.TempDir(); dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755)) // users must be able to reach the directory
	}
	must(t, as(1000, "echo mine >mine && chmod 600 mine && mkdir own"))
	for _, script := range []string{"cat root", "echo >root", "rm -f root", "chmod 666 root"} {
		if as(1000, script) == nil {
			t.Errorf("user 1000 may %q", script)
		}
	}
	for _, script := range []string{"cat mine", "rm -f mine", "echo >own/f"} {
		if as(1001, script) == nil {
			t.Errorf("user 1001 may %q", script)
		}
	}
	all := e.same(t)
	for name, want := range map[string]string{"common/mine": "mode 100600 links 1 owner 1000:1000", "common/own": "owner 1000:1000", "common/root": "owner 0:0"} {
		if got := all[name]; !strings.Contains(got, want) {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}
