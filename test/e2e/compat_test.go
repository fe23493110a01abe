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
	m := harness.New(t, 64<<20, 2*time.Minute)
	f, err := os.OpenFile(m.Path("f"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	g, err := os.Create(m.Path("g"))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if _, err := f.Write(make([]byte, 10000)); err != nil {
		t.Fatal(err)
	}
	fd := int(f.Fd())
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
	for _, c := range []struct {
		what string
		err  error
		want error
	}{
		{"RWF_NOWAIT", preadv(unix.RWF_NOWAIT), unix.EOPNOTSUPP},
		{"RWF_DONTCACHE", preadv(0x80), unix.EOPNOTSUPP},
		{"RWF_ATOMIC", pwritev(0x40), unix.EOPNOTSUPP},
		{"FITRIM", fstrim(m), nil},
		{"RWF_HIPRI", preadv(unix.RWF_HIPRI), nil},
		{"FICLONE", unix.IoctlFileClone(int(g.Fd()), fd), unix.EOPNOTSUPP},
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
		if !errors.Is(c.err, c.want) || c.want == nil && c.err != nil {
			t.Errorf("%s: %v, docs/compatibility.md says %v", c.what, c.err, c.want)
		}
	}
}

// TestMountHelper checks that under the names that mount(8) looks for, the program does what fstab,
// mount and mount -o remount ask for.
func TestMountHelper(t *testing.T) {
	m := harness.New(t, 64<<20, 2*time.Minute)
	m.Umount()
	helper := filepath.Join(m.Dir, "mount.fuse.daxfsd")
	if err := os.Symlink(harness.Daxfsd, helper); err != nil {
		t.Fatal(err)
	}
	mount := func(options string) (string, error) {
		return harness.Command(time.Minute, "", nil, helper, m.Region, m.Mountpoint, "-n", "-o", options)
	}
	write := func() error { return os.WriteFile(m.Path("f"), []byte("content"), 0o600) }
	flags := func() int64 {
		t.Helper()
		var st unix.Statfs_t
		if err := unix.Statfs(m.Mountpoint, &st); err != nil {
			t.Fatal(err)
		}
		return st.Flags & (unix.ST_RDONLY | unix.ST_NODEV | unix.ST_NOEXEC | unix.ST_NOSUID)
	}
	if out, err := harness.Command(time.Minute, "", nil, helper, m.Region, m.Mountpoint, "-fv"); err != nil || out != "" || write() != nil || os.Remove(m.Path("f")) != nil {
		t.Fatalf("-f: %v: %s", err, out) // -f mounts nothing, so the file was written below the mount point
	}
	if out, err := mount("rw,noatime,nodiratime,nodev,lazytime,silent,uhelper=x,x-systemd.device-timeout=5,nofail"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	defer harness.Command(time.Minute, "", nil, harness.Daxfsd, "umount", m.Mountpoint)
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
	for _, o := range []string{"strictatime", "relatime", "diratime"} {
		if out, err := mount("remount," + o); err == nil || !strings.Contains(out, "unmount it and mount it again") {
			t.Errorf("remount,%s: %v: %s", o, err, out)
		}
	}
	if out, err := harness.Command(time.Minute, "", nil, helper, "/nowhere", m.Mountpoint); err == nil || err.Error() != "exit status 32" {
		t.Errorf("a region that is not there: %v: %s", err, out)
	}
}

// TestFilefrag checks daxfsd filefrag: it must list an extent for each order, and report which
// extents are unwritten or shared.
func TestFilefrag(t *testing.T) {
	m := harness.New(t, 128<<20, 2*time.Minute)
	if err := os.WriteFile(m.Path("f"), make([]byte, 5<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	g, err := os.Create(m.Path("g"))
	if err == nil {
		err = unix.Fallocate(int(g.Fd()), 0, 8<<20, 8192)
		g.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	harness.Run(t, time.Minute, "", nil, "cp", m.Path("f"), m.Path("copy"))
	var all []struct {
		File    string
		Extents []struct {
			Logical, Length, Folio uint64
			Region                 uint64 `json:"region_offset"`
			Unwritten, Shared      bool
		}
	}
	out := harness.Run(t, time.Minute, "", nil, harness.Daxfsd, "filefrag", "--json", m.Path("f"), m.Path("g"), m.Path("copy"), m.Mountpoint)
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 4 {
		t.Fatalf("%v: %s", err, out)
	}
	f, gx, c := all[0].Extents, all[1].Extents, all[2].Extents
	if len(f) != 2 || f[0].Length != 4<<20 || f[0].Folio != 2<<20 || f[0].Region%(2<<20) != 0 || !f[0].Shared || f[1].Logical != 4<<20 || f[1].Folio != 4096 {
		t.Errorf("f: %+v", f)
	}
	if len(c) != 2 || c[0] != f[0] || c[1] != f[1] {
		t.Errorf("copy: %+v, f: %+v", c, f)
	}
	if len(gx) != 1 || gx[0].Logical != 8<<20 || gx[0].Length != 8192 || !gx[0].Unwritten || gx[0].Shared {
		t.Errorf("g: %+v", gx)
	}
	if len(all[3].Extents) == 0 {
		t.Error("the root directory has no extents")
	}
	if out, err := harness.Command(time.Minute, "", nil, harness.Daxfsd, "filefrag", "/proc/version"); err == nil || !strings.Contains(out, "no file or directory on a mounted daxfsd") {
		t.Errorf("a file elsewhere: %v: %s", err, out)
	}
}

// TestOverlay checks overlayfs with the mount as upper layer: copy-up, whiteouts by unlink and
// rename, an opaque directory.
func TestOverlay(t *testing.T) {
	m := harness.New(t, 64<<20, 2*time.Minute)
	lower, merged := filepath.Join(m.Dir, "lower"), filepath.Join(m.Dir, "merged")
	for _, d := range []string{lower, merged, filepath.Join(lower, "dir"), m.Path("upper"), m.Path("work")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"a", "b", "dir/c"} {
		if err := os.WriteFile(filepath.Join(lower, f), []byte(f), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("overlay", merged, "overlay", 0, "lowerdir="+lower+",upperdir="+m.Path("upper")+",workdir="+m.Path("work")); err != nil {
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
	f, err := os.OpenFile(at("a"), os.O_WRONLY|os.O_APPEND, 0)
	do(err)
	_, err = f.WriteString(" more")
	do(err)
	do(f.Close())
	do(os.Rename(at("a"), at("z")))
	do(os.Remove(at("b")))
	do(os.RemoveAll(at("dir")))
	do(os.Mkdir(at("dir"), 0o755))
	do(os.WriteFile(at("dir/new"), []byte("new"), 0o644))
	names := func(dir string) string {
		t.Helper()
		es, err := os.ReadDir(dir)
		do(err)
		var s []string
		for _, e := range es {
			s = append(s, e.Name())
		}
		return strings.Join(s, " ")
	}
	if got := names(merged); got != "dir z" {
		t.Errorf("the merged directory has %q", got)
	}
	if got := names(at("dir")); got != "new" {
		t.Errorf("the opaque directory has %q", got)
	}
	if b, err := os.ReadFile(at("z")); string(b) != "a more" {
		t.Errorf("copied up: %q, %v", b, err)
	}
	var st unix.Stat_t
	for _, w := range []string{"a", "b"} {
		if err := unix.Lstat(m.Path("upper", w), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
			t.Errorf("%s is no whiteout: mode %o, %v", w, st.Mode, err)
		}
	}
	do(unix.Unmount(merged, 0))
	m.Again()
}

// TestHandles checks that a file handle is still valid after a restart of the daemon, and stale
// when the file is deleted.
func TestHandles(t *testing.T) {
	m := harness.New(t, 64<<20, 2*time.Minute)
	if err := os.MkdirAll(m.Path("d/sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.Path("d/sub/f"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	var hs []unix.FileHandle
	for _, name := range []string{"d/sub/f", "d/sub"} {
		h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, m.Path(name), 0)
		if err != nil {
			t.Fatal(err)
		}
		hs = append(hs, h)
	}
	open := func(h unix.FileHandle) (string, error) {
		mfd, err := unix.Open(m.Mountpoint, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return "", err
		}
		defer unix.Close(mfd)
		fd, err := unix.OpenByHandleAt(mfd, h, unix.O_RDONLY)
		if err != nil {
			return "", err
		}
		f := os.NewFile(uintptr(fd), "by handle")
		defer f.Close()
		b := make([]byte, 100)
		n, _ := f.Read(b)
		link, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		return strings.TrimPrefix(link, m.Mountpoint) + "=" + string(b[:n]), nil
	}
	for _, how := range []string{"as mounted", "remounted", "killed"} {
		switch how {
		case "remounted":
			m.Again()
		case "killed":
			m.Kill9()
			m.Up()
		}
		for i, want := range []string{"/d/sub/f=content", "/d/sub="} {
			if got, err := open(hs[i]); err != nil || i == 1 && got != want || i == 0 && !strings.HasSuffix(got, "=content") {
				t.Errorf("%s: %q, %v; expected %q", how, got, err, want)
			}
		}
	}
	if err := os.RemoveAll(m.Path("d")); err != nil {
		t.Fatal(err)
	}
	for i := range 50 { // a file that gets its inode slot is another file
		if err := os.WriteFile(m.Path("new"+strconv.Itoa(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range hs {
		if got, err := open(h); !errors.Is(err, unix.ESTALE) {
			t.Errorf("of what is deleted: %q, %v; expected ESTALE", got, err)
		}
	}
}
