package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

// TestFallocate checks allocating, punching and zeroing through the mount, with stat, lseek and
// read, before and after a remount.
func TestFallocate(t *testing.T) {
	mount := harness.New(t, 128<<20, 2*time.Minute)
	file, err := os.OpenFile(mount.Path("f"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(file.Fd())
	falloc := func(mode uint32, off, n int64) {
		t.Helper()
		if err := unix.Fallocate(fd, mode, off, n); err != nil {
			t.Fatalf("fallocate %#x %d %d: %v", mode, off, n, err)
		}
	}
	const mib = 1 << 20
	falloc(0, 0, 8*mib)
	want := make([]byte, 8*mib)
	store := func(off int64, content []byte) {
		t.Helper()
		if _, err := file.WriteAt(content, off); err != nil {
			t.Fatal(err)
		}
		copy(want[off:], content)
	}
	store(mib+100, bytes.Repeat([]byte("data"), 50000))
	store(4*mib, bytes.Repeat([]byte("more"), 50000))
	falloc(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4*mib+5000, 20000)
	clear(want[4*mib+5000 : 4*mib+25000])
	falloc(unix.FALLOC_FL_ZERO_RANGE, mib+10000, 40000)
	clear(want[mib+10000 : mib+50000])
	falloc(unix.FALLOC_FL_KEEP_SIZE, 8*mib, 4*mib)
	if err := unix.Fallocate(fd, unix.FALLOC_FL_COLLAPSE_RANGE, 0, 4096); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("collapse range: %v", err)
	}
	if err := unix.Fallocate(fd, 0, 0, 1<<40); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a terabyte: %v", err)
	}
	check := func(opened *os.File) {
		t.Helper()
		got := make([]byte, len(want)+1)
		if n, _ := opened.ReadAt(got, 0); n != len(want) || !bytes.Equal(got[:n], want) {
			t.Fatalf("%d bytes read back wrong", n)
		}
		var stat unix.Stat_t
		if err := unix.Fstat(int(opened.Fd()), &stat); err != nil {
			t.Fatal(err)
		}
		// The punched 20000 bytes hold four whole blocks; there may be one block of extent slots in
		// addition.
		if blocks := stat.Blocks * 512 / 4096; blocks < 12*mib/4096-4 || blocks > 12*mib/4096-4+1 || stat.Size != 8*mib {
			t.Errorf("%d blocks, size %d", blocks, stat.Size)
		}
		for off, data := range map[int64]int64{
			0: mib, mib: mib, mib + 12288: mib + 49152, // the range in between is unwritten
			4 * mib: 4 * mib, 4*mib + 8192: 4*mib + 24576,
		} {
			if at, err := unix.Seek(int(opened.Fd()), off, unix.SEEK_DATA); err != nil || at != data {
				t.Errorf("SEEK_DATA from %d is %d (%v), expected %d", off, at, err, data)
			}
		}
	}
	check(file)
	file.Close()
	mount.Again()
	if file, err = os.Open(mount.Path("f")); err != nil {
		t.Fatal(err)
	}
	check(file)
	file.Close()
	mount.Down()
	mount.Fsck()
}

// TestXattr checks extended attributes with the usual tools: kept by cp -a, over a remount and a
// kill.
func TestXattr(t *testing.T) {
	harness.Need(t, "cp", "setfattr", "getfattr")
	mount := harness.New(t, 64<<20, 2*time.Minute)
	if err := os.WriteFile(mount.Path("f"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"user.one", "trusted.two", "security.three"} {
		harness.Run(t, time.Minute, "", nil, "setfattr", "-n", name, "-v", "value of "+name, mount.Path("f"))
	}
	long := bytes.Repeat([]byte("long"), 15000)
	if err := unix.Setxattr(mount.Path("f"), "user.long", long, unix.XATTR_CREATE); err != nil {
		t.Fatal(err)
	}
	harness.Run(t, time.Minute, "", nil, "cp", "-a", mount.Path("f"), mount.Path("copy"))
	check := func() {
		t.Helper()
		for _, base := range []string{"f", "copy"} {
			for _, name := range []string{"user.one", "trusted.two", "security.three"} {
				out, err := harness.Command(time.Minute, "", nil, "getfattr", "--absolute-names", "--only-values", "-n", name, mount.Path(base))
				if err != nil || out != "value of "+name {
					t.Errorf("%s of %s is %q (%v)", name, base, out, err)
				}
			}
			buf := make([]byte, 1<<16)
			if n, err := unix.Getxattr(mount.Path(base), "user.long", buf); err != nil || !bytes.Equal(buf[:n], long) {
				t.Errorf("user.long of %s has %d bytes, %v", base, n, err)
			}
		}
	}
	check()
	mount.Again()
	check()
	if err := unix.Removexattr(mount.Path("copy"), "user.one"); err != nil {
		t.Fatal(err)
	}
	mount.Kill9()
	mount.Up()
	if _, err := unix.Getxattr(mount.Path("copy"), "user.one", nil); !errors.Is(err, unix.ENODATA) {
		t.Errorf("a removed attribute after a kill: %v", err)
	}
	if err := unix.Setxattr(mount.Path("copy"), "user.one", []byte("value of user.one"), 0); err != nil {
		t.Fatal(err)
	}
	check()

	// The first write removes file capabilities, whichever user writes.
	capability := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} // cap_net_bind_service=e
	if err := unix.Setxattr(mount.Path("f"), "security.capability", capability, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mount.Path("f"), []byte("y"), 0o644); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Getxattr(mount.Path("f"), "security.capability", make([]byte, 100)); !errors.Is(err, unix.ENODATA) {
		t.Errorf("a written program keeps its capabilities: %d, %v", n, err)
	}
	mount.Down()
	mount.Fsck()
}

// TestTmpfile checks O_TMPFILE: one file is named by linkat, another one is closed without a name
// and must be gone.
func TestTmpfile(t *testing.T) {
	m := harness.New(t, 64<<20, time.Minute)
	open := func(flags int) int {
		t.Helper()
		fd, err := unix.Open(m.Mountpoint, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC|flags, 0o640)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(fd, []byte("content")); err != nil {
			t.Fatal(err)
		}
		return fd
	}
	named, gone, excl := open(0), open(0), open(unix.O_EXCL)
	link := func(fd int, name string) error {
		return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, m.Path(name), unix.AT_SYMLINK_FOLLOW)
	}
	if err := link(named, "named"); err != nil {
		t.Fatal(err)
	}
	if err := link(excl, "excl"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("naming a file opened with O_EXCL: %v", err)
	}
	for _, fd := range []int{named, gone, excl} {
		unix.Close(fd)
	}
	m.Again()
	e, err := os.ReadDir(m.Mountpoint)
	if b, _ := os.ReadFile(m.Path("named")); err != nil || len(e) != 1 || string(b) != "content" {
		t.Errorf("%v %v %q", e, err, b)
	}
	m.Down()
	m.Fsck()
}
