package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

// fstrim calls FITRIM on the whole mount, which must report 0 bytes.
func fstrim(m *harness.Mount) error {
	out, err := harness.Command(time.Minute, "", nil, "fstrim", "-v", m.Mountpoint)
	if err == nil && !strings.Contains(out, "0 B") {
		err = errors.New(out)
	}
	return err
}

// TestNotOffered checks that each feature that docs/compatibility.md lists as missing is refused
// with the documented error.
func TestNotOffered(t *testing.T) {
	mount := harness.New(t, 64<<20, 2*time.Minute)
	file, err := os.OpenFile(mount.Path("f"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	other, err := os.Create(mount.Path("g"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := file.Write(make([]byte, 10000)); err != nil {
		t.Fatal(err)
	}
	fd := int(file.Fd())
	falloc := func(mode uint32) error { return unix.Fallocate(fd, mode, 0, 4096) }
	preadv := func(flags int) error {
		_, err := unix.Preadv2(fd, [][]byte{make([]byte, 10)}, 0, flags)
		return err
	}
	pwritev := func(flags int) error {
		_, err := unix.Pwritev2(fd, [][]byte{make([]byte, 4096)}, 0, flags)
		return err
	}
	_, mapSync := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED_VALIDATE|unix.MAP_SYNC)
	for _, row := range []struct {
		what string
		err  error
		want error
	}{
		{"RWF_NOWAIT", preadv(unix.RWF_NOWAIT), unix.EOPNOTSUPP},
		{"RWF_DONTCACHE", preadv(0x80), unix.EOPNOTSUPP},
		{"RWF_ATOMIC", pwritev(0x40), unix.EOPNOTSUPP},
		{"FITRIM", fstrim(mount), nil},
		{"RWF_HIPRI", preadv(unix.RWF_HIPRI), nil},
		{"FICLONE", unix.IoctlFileClone(int(other.Fd()), fd), unix.EOPNOTSUPP},
		{"FIEMAP", unix.IoctlSetInt(fd, 0xc020660b, 0), unix.EOPNOTSUPP},
		{"FIFREEZE", unix.IoctlSetInt(fd, 0xc0045877, 0), unix.EOPNOTSUPP},
		{"an ioctl of nobody's", unix.IoctlSetInt(fd, 0x5a01, 0), unix.ENOTTY},
		{"COLLAPSE_RANGE", falloc(unix.FALLOC_FL_COLLAPSE_RANGE), unix.EOPNOTSUPP},
		{"INSERT_RANGE", falloc(unix.FALLOC_FL_INSERT_RANGE), unix.EOPNOTSUPP},
		{"UNSHARE_RANGE", falloc(unix.FALLOC_FL_UNSHARE_RANGE), unix.EOPNOTSUPP},
		{"MAP_SYNC", mapSync, unix.EOPNOTSUPP},
		{"syncfs", unix.Syncfs(fd), nil},
		{"a system attribute", unix.Fsetxattr(fd, "system.nothing", []byte("x"), 0), unix.EOPNOTSUPP},
	} {
		if !errors.Is(row.err, row.want) || row.want == nil && row.err != nil {
			t.Errorf("%s: %v, docs/compatibility.md says %v", row.what, row.err, row.want)
		}
	}
}

// TestMountHelper checks that under the names that mount(8) looks for, the program does what fstab,
// mount and mount -o remount ask for.
func TestMountHelper(t *testing.T) {
	mnt := harness.New(t, 64<<20, 2*time.Minute)
	mnt.Umount()
	helper := filepath.Join(mnt.Dir, "mount.fuse.daxfsd")
	if err := os.Symlink(harness.Daxfsd, helper); err != nil {
		t.Fatal(err)
	}
	mount := func(options string) (string, error) {
		return harness.Command(time.Minute, "", nil, helper, mnt.Region, mnt.Mountpoint, "-n", "-o", options)
	}
	write := func() error { return os.WriteFile(mnt.Path("f"), []byte("content"), 0o600) }
	flags := func() int64 {
		t.Helper()
		var stat unix.Statfs_t
		if err := unix.Statfs(mnt.Mountpoint, &stat); err != nil {
			t.Fatal(err)
		}
		return stat.Flags & (unix.ST_RDONLY | unix.ST_NODEV | unix.ST_NOEXEC | unix.ST_NOSUID)
	}
	if out, err := harness.Command(time.Minute, "", nil, helper, mnt.Region, mnt.Mountpoint, "-fv"); err != nil || out != "" || write() != nil || os.Remove(mnt.Path("f")) != nil {
		t.Fatalf("-f: %v: %s", err, out) // -f mounts nothing, so the file was written below the mount point
	}
	if out, err := mount("rw,noatime,nodiratime,nodev,lazytime,silent,uhelper=x,x-systemd.device-timeout=5,nofail"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	defer harness.Command(time.Minute, "", nil, harness.Daxfsd, "umount", mnt.Mountpoint)
	if err := write(); err != nil || flags() != unix.ST_NODEV {
		t.Errorf("%v, flags %#x", err, flags())
	}
	if out, err := mount("remount,ro,noatime,nodiratime,user_id=0,default_permissions"); err != nil {
		t.Fatalf("remount,ro: %v: %s", err, out)
	}
	if err := write(); !errors.Is(err, unix.EROFS) || flags() != unix.ST_NODEV|unix.ST_RDONLY {
		t.Errorf("after remount,ro: %v, flags %#x", err, flags())
	}
	if out, err := mount("remount,rw,noexec,dev"); err != nil {
		t.Fatalf("remount,rw: %v: %s", err, out)
	}
	if err := write(); err != nil || flags() != unix.ST_NOEXEC {
		t.Errorf("after remount,rw: %v, flags %#x", err, flags())
	}
	for _, option := range []string{"strictatime", "relatime", "diratime"} {
		if out, err := mount("remount," + option); err == nil || !strings.Contains(out, "unmount it and mount it again") {
			t.Errorf("remount,%s: %v: %s", option, err, out)
		}
	}
	if out, err := harness.Command(time.Minute, "", nil, helper, "/nowhere", mnt.Mountpoint); err == nil || err.Error() != "exit status 32" {
		t.Errorf("a region that is not there: %v: %s", err, out)
	}
}

// TestFilefrag checks daxfsd filefrag: it must list an extent for each order, and report which
// extents are unwritten or shared.
func TestFilefrag(t *testing.T) {
	mount := harness.New(t, 128<<20, 2*time.Minute)
	if err := os.WriteFile(mount.Path("f"), make([]byte, 5<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(mount.Path("g"))
	if err == nil {
		err = unix.Fallocate(int(file.Fd()), 0, 8<<20, 8192)
		file.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	harness.Run(t, time.Minute, "", nil, "cp", mount.Path("f"), mount.Path("copy"))
	var all []struct {
		File    string
		Extents []struct {
			Logical, Length, Folio uint64
			Region                 uint64 `json:"region_offset"`
			Unwritten, Shared      bool
		}
		Pages []struct{ Size, Bytes uint64 }
	}
	out := harness.Run(t, time.Minute, "", nil, harness.Daxfsd, "filefrag", "--json", mount.Path("f"), mount.Path("g"), mount.Path("copy"), mount.Mountpoint)
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 4 {
		t.Fatalf("%v: %s", err, out)
	}
	large, unwritten, copied := all[0].Extents, all[1].Extents, all[2].Extents
	if len(large) != 2 || large[0].Length != 4<<20 || large[0].Folio != 2<<20 || large[0].Region%(2<<20) != 0 || !large[0].Shared || large[1].Logical != 4<<20 || large[1].Folio != 4096 {
		t.Errorf("f: %+v", large)
	}
	if len(copied) != 2 || copied[0] != large[0] || copied[1] != large[1] {
		t.Errorf("copy: %+v, f: %+v", copied, large)
	}
	// The harness's region is on tmpfs or a file, so a mapping has 4 KiB pages unless tmpfs is
	// mounted with huge ones.
	if x := all[0].Pages; len(x) == 0 || x[len(x)-1].Size != 4096 || x[len(x)-1].Bytes < 1<<20 {
		t.Errorf("f: pages %+v", x)
	}
	if len(all[3].Pages) != 0 {
		t.Errorf("a directory has pages: %+v", all[3].Pages)
	}
	if len(unwritten) != 1 || unwritten[0].Logical != 8<<20 || unwritten[0].Length != 8192 || !unwritten[0].Unwritten || unwritten[0].Shared {
		t.Errorf("g: %+v", unwritten)
	}
	if len(all[3].Extents) == 0 {
		t.Error("the root directory has no extents")
	}
	if out, err := harness.Command(time.Minute, "", nil, harness.Daxfsd, "filefrag", "/proc/version"); err == nil || !strings.Contains(out, "is not a file or directory on a mounted daxfsd") {
		t.Errorf("a file elsewhere: %v: %s", err, out)
	}
}

// TestOverlay checks overlayfs with the mount as upper layer: copy-up, whiteouts by unlink and
// rename, an opaque directory.
func TestOverlay(t *testing.T) {
	mnt := harness.New(t, 64<<20, 2*time.Minute)
	lower, merged := filepath.Join(mnt.Dir, "lower"), filepath.Join(mnt.Dir, "merged")
	for _, sub := range []string{lower, merged, filepath.Join(lower, "dir"), mnt.Path("upper"), mnt.Path("work")} {
		if err := os.MkdirAll(sub, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, rel := range []string{"a", "b", "dir/c"} {
		if err := os.WriteFile(filepath.Join(lower, rel), []byte(rel), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("overlay", merged, "overlay", 0, "lowerdir="+lower+",upperdir="+mnt.Path("upper")+",workdir="+mnt.Path("work")); err != nil {
		t.Fatalf("mounting an overlay: %v", err)
	}
	defer unix.Unmount(merged, unix.MNT_DETACH)
	at := func(name string) string { return filepath.Join(merged, name) }
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	file, err := os.OpenFile(at("a"), os.O_WRONLY|os.O_APPEND, 0)
	do(err)
	_, err = file.WriteString(" more")
	do(err)
	do(file.Close())
	do(os.Rename(at("a"), at("z")))
	do(os.Remove(at("b")))
	do(os.RemoveAll(at("dir")))
	do(os.Mkdir(at("dir"), 0o755))
	do(os.WriteFile(at("dir/new"), []byte("new"), 0o644))
	names := func(dir string) string {
		t.Helper()
		entries, err := os.ReadDir(dir)
		do(err)
		var listed []string
		for _, entry := range entries {
			listed = append(listed, entry.Name())
		}
		return strings.Join(listed, " ")
	}
	if got := names(merged); got != "dir z" {
		t.Errorf("the merged directory has %q", got)
	}
	if got := names(at("dir")); got != "new" {
		t.Errorf("the opaque directory has %q", got)
	}
	if content, err := os.ReadFile(at("z")); string(content) != "a more" {
		t.Errorf("copied up: %q, %v", content, err)
	}
	var stat unix.Stat_t
	for _, whiteout := range []string{"a", "b"} {
		if err := unix.Lstat(mnt.Path("upper", whiteout), &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFCHR || stat.Rdev != 0 {
			t.Errorf("%s is not a whiteout: mode %o, %v", whiteout, stat.Mode, err)
		}
	}
	do(unix.Unmount(merged, 0))
	mnt.Again()
}

// TestHandles checks that a file handle is still valid after a restart of the daemon, and stale
// when the file is deleted.
func TestHandles(t *testing.T) {
	mount := harness.New(t, 64<<20, 2*time.Minute)
	if err := os.MkdirAll(mount.Path("d/sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mount.Path("d/sub/f"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	var handles []unix.FileHandle
	for _, name := range []string{"d/sub/f", "d/sub"} {
		handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, mount.Path(name), 0)
		if err != nil {
			t.Fatal(err)
		}
		handles = append(handles, handle)
	}
	open := func(handle unix.FileHandle) (string, error) {
		mfd, err := unix.Open(mount.Mountpoint, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return "", err
		}
		defer unix.Close(mfd)
		fd, err := unix.OpenByHandleAt(mfd, handle, unix.O_RDONLY)
		if err != nil {
			return "", err
		}
		file := os.NewFile(uintptr(fd), "by handle")
		defer file.Close()
		buf := make([]byte, 100)
		n, _ := file.Read(buf)
		link, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		return strings.TrimPrefix(link, mount.Mountpoint) + "=" + string(buf[:n]), nil
	}
	for _, how := range []string{"as mounted", "remounted", "killed"} {
		switch how {
		case "remounted":
			mount.Again()
		case "killed":
			mount.Kill9()
			mount.Up()
		}
		for i, want := range []string{"/d/sub/f=content", "/d/sub="} {
			if got, err := open(handles[i]); err != nil || i == 1 && got != want || i == 0 && !strings.HasSuffix(got, "=content") {
				t.Errorf("%s: %q, %v; expected %q", how, got, err, want)
			}
		}
	}
	if err := os.RemoveAll(mount.Path("d")); err != nil {
		t.Fatal(err)
	}
	for i := range 50 { // a file that gets its inode slot is another file
		if err := os.WriteFile(mount.Path("new"+strconv.Itoa(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, handle := range handles {
		if got, err := open(handle); !errors.Is(err, unix.ESTALE) {
			t.Errorf("the handle of a deleted file: %q, %v; expected ESTALE", got, err)
		}
	}
}
