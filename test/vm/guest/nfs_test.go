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
	server := startNFS(t)
	on := func(mode string, test func(*testing.T, *nfsExport), versions ...nfsVersion) {
		t.Run(mode, func(t *testing.T) {
			mount := harness.NewWith(t, "transport=dev,trace,"+mode, 96*mib, limit)
			server.refuses(t, mount)
			server.export(t, mount)
			for _, version := range versions {
				t.Run(version.name, func(t *testing.T) {
					export := &nfsExport{s: server, m: mount, nfs: server.mountNFS(t, version), v: version, dir: version.name}
					must(t, os.Mkdir(export.remote(), 0o755))
					test(t, export)
					export.same(t)
				})
			}
			server.stop(t)
			mount.Down()
			server.start(t)
			dir := t.TempDir()
			if err := unix.Mount("127.0.0.1:"+mount.Mountpoint, dir, nfs3.fstype, 0, nfs3.options); err == nil {
				t.Error("the directory below the mount point can be mounted by NFS, in spite of the option mountpoint")
				_ = unix.Unmount(dir, 0)
			}
		})
	}
	on("dax=always", func(t *testing.T, export *nfsExport) {
		t.Run("names", export.names)
		t.Run("many-names", export.manyNames)
		t.Run("data", export.data)
		t.Run("coherence", export.coherence)
		t.Run("silly-rename", export.sillyRename)
		t.Run("users", export.users)
		t.Run("full", export.full)
		if export.v == nfs4 {
			t.Run("space-and-attributes", export.spaceAndAttributes)
			t.Run("locks", export.locks)
		}
		t.Run("handles", export.handles)
		t.Run("stale", export.stale)
		t.Run("restart", export.restart)
	}, nfs4, nfs3)
	on("dax=never", func(t *testing.T, export *nfsExport) { // in this mode the kernel also caches content for the mount
		t.Run("data", export.data)
		t.Run("coherence", export.coherence)
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
	remote, local := e.remote, e.local
	long := strings.Repeat("n", 255)
	when := unix.Timespec{Sec: 1_000_000_000, Nsec: 123_456_789}
	must(t, os.Mkdir(remote("d"), 0o750), os.Mkdir(remote("d/e"), 0o755), os.WriteFile(remote("f"), []byte("content"), 0o640), os.WriteFile(remote("d/g"), nil, 0o644),
		os.WriteFile(remote(long), []byte("long"), 0o600), os.Link(remote("f"), remote("d/e/hard")), os.Symlink("../f", remote("d/soft")), unix.Mkfifo(remote("fifo"), 0o644),
		unix.Mknod(remote("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), os.Rename(remote("d/g"), remote("d/h")), os.Rename(remote("d/e"), remote("e")),
		os.WriteFile(remote("over"), []byte("old"), 0o644), os.WriteFile(remote("new"), []byte("new"), 0o644), os.Rename(remote("new"), remote("over")),
		unix.Chmod(remote("f"), 0o4751), os.Chown(remote("d/h"), 1000, 2000), os.Lchown(remote("d/soft"), 3, 4), os.Truncate(remote(long), 2),
		unix.UtimesNanoAt(unix.AT_FDCWD, remote("d/h"), []unix.Timespec{when, when}, 0),
		os.WriteFile(remote("gone"), nil, 0o644), os.Remove(remote("gone")), os.Mkdir(remote("gone"), 0o755), os.Remove(remote("gone")))
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
	for _, row := range []struct {
		what      string
		err, want error
	}{
		{"a directory that is not empty", unix.Rmdir(remote("d")), unix.ENOTEMPTY},
		{"a name that is there", unix.Mkdir(remote("d"), 0o755), unix.EEXIST},
		{"a name too long", unix.Mkdir(remote(long+"n"), 0o755), unix.ENAMETOOLONG},
		{"a name that is not there", unix.Unlink(remote("nothing")), unix.ENOENT},
		{"a directory into itself", unix.Rename(remote("d"), remote("d/d")), unix.EINVAL},
	} {
		if row.err != row.want {
			t.Errorf("%s: %v, want %v", row.what, row.err, row.want)
		}
	}
	must(t, os.Chmod(local("f"), 0o600), os.Chown(local("d"), 5, 6), os.Rename(local("d/h"), local("h")), os.Remove(local("fifo")), os.WriteFile(local("f"), []byte("another"), 0),
		os.Truncate(local("over"), 5), os.Link(local("h"), local("d/again")), os.Symlink("x", local("link")), unix.UtimesNanoAt(unix.AT_FDCWD, local("h"), []unix.Timespec{when, when}, 0))
	e.same(t)
	var here, there unix.Statfs_t
	must(t, unix.Statfs(remote(), &there), unix.Statfs(local(), &here))
	if byNFS, onMount := int64(there.Blocks)*there.Bsize, int64(here.Blocks)*here.Bsize; max(byNFS-onMount, onMount-byNFS) >= there.Bsize || there.Files != here.Files {
		t.Errorf("statfs: %d bytes and %d files by NFS, %d and %d on the mount", byNFS, there.Files, onMount, here.Files)
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
