package e2e

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

// reads returns how many READs reach the daemon while a page of a file is read three times by a
// newly opened descriptor.
func reads(t *testing.T, m *harness.Mount, name string) uint64 {
	t.Helper()
	f, err := os.Open(m.Path(name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	before := operations(t, m)["READ"].Count
	for range 3 {
		if _, err := f.ReadAt(make([]byte, 4096), 0); err != nil {
			t.Fatal(err)
		}
	}
	return operations(t, m)["READ"].Count - before
}

// TestDaxInode checks dax=inode: a file with the flag, set by FS_IOC_FSSETXATTR or chattr(1),
// bypasses the page cache from its next open on, and a new file inherits its directory's flag.
func TestDaxInode(t *testing.T) {
	mount := harness.NewWith(t, "dax=inode", 64<<20, time.Minute)
	chattr := func(how, name string) { harness.Run(t, time.Minute, "", nil, "chattr", how, mount.Path(name)) }
	for _, dir := range []string{"plain", "flagged"} {
		if err := os.Mkdir(mount.Path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	chattr("+x", "flagged")
	for _, name := range []string{"plain/f", "flagged/f"} {
		if err := os.WriteFile(mount.Path(name), make([]byte, 8192), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cached := func(what, name string, want bool) {
		t.Helper()
		if n := reads(t, mount, name); n == 3 == want || n > 3 {
			t.Errorf("%s: %d of 3 reads of a page reach the daemon", what, n)
		}
	}
	cached("a file without the flag", "plain/f", true)
	cached("one that inherited it", "flagged/f", false)
	mount.Again()
	cached("one that has it, after a remount", "flagged/f", false)
	chattr("-x", "flagged/f")
	cached("the flag taken away", "flagged/f", true)
	cached("none yet", "plain/f", true)

	const xflagDAX = 0x8000 // FS_XFLAG_DAX of linux/fs.h
	file, err := os.Open(mount.Path("plain/f"))
	if err != nil {
		t.Fatal(err)
	}
	attr, err := getFSXattr(int(file.Fd()))
	if err != nil || attr.Xflags&xflagDAX != 0 {
		t.Errorf("FS_IOC_FSGETXATTR: %v, %+v", err, attr)
	}
	attr.Xflags |= xflagDAX
	if err := setFSXattr(int(file.Fd()), attr); err != nil {
		t.Fatalf("FS_IOC_FSSETXATTR: %v", err)
	}
	if again, err := getFSXattr(int(file.Fd())); err != nil || again != attr {
		t.Errorf("FS_IOC_FSGETXATTR after setting: %v, %+v, expected %+v", err, again, attr)
	}
	if flags, err := unix.IoctlGetUint32(int(file.Fd()), unix.FS_IOC_GETFLAGS); err != nil || flags&0x02000000 == 0 {
		t.Errorf("FS_IOC_GETFLAGS: %v, %#x lacks FS_DAX_FL", err, flags)
	}
	file.Close()
	cached("FS_XFLAG_DAX", "plain/f", false)
}
