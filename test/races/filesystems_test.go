package races

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

// filesystem is a filesystem that the races run on.
type filesystem struct {
	name    string
	options string
	flag    bool                      // set FS_DAX_FL on the root directory (chattr +x)
	control func(t *testing.T) string // mounts another filesystem and returns its path
}

var filesystems = []*filesystem{
	{name: "ext4", control: upExt4},
	{name: "dax=always", options: "dax=always,transport=dev"},
	{name: "dax=never", options: "dax=never,transport=dev"},
	{name: "dax=inode", options: "dax=inode,transport=dev"},
	{name: "chattr +x", options: "dax=inode,transport=dev", flag: true},
	{name: "transport=uring", options: "dax=always,transport=uring"},
}

// up mounts the filesystem. It returns a directory and the daemon's pid (0 for the control).
func (f *filesystem) up(t *testing.T) (dir string, pid int) {
	if f.control != nil {
		return f.control(t), 0
	}
	if f.name == "transport=uring" {
		harness.Uring(t)
	}
	m := harness.NewWith(t, f.options, 64<<20, 10*time.Minute)
	if f.flag {
		harness.Run(t, time.Minute, "", nil, "chattr", "+x", m.Mountpoint)
	}
	return m.Mountpoint, m.PID()
}

// report reports the error of the n-th pair. It fails the test, except on the control if one side
// bypasses the page cache and the other uses it: no kernel filesystem promises anything then. ext4
// logs "Possible data corruption" and fails the next fsync. daxfsd must be right there, too.
func (f *filesystem) report(t *testing.T, p pair, n int, err error) {
	if f.control != nil && p.mixed(n) {
		t.Logf("%s itself, %v: %v", f.name, p, err)
		return
	}
	t.Errorf("%v: %v", p, err)
}

// upExt4 mounts an ext4 in a file. The loop device detaches itself at the unmount, which happens at
// the latest when the mount namespace ends.
func upExt4(t *testing.T) string {
	if os.Geteuid() != 0 {
		t.Fatal("these tests mount and must run as root: try `sudo make races`")
	}
	harness.Need(t, "mkfs.ext4", "mount")
	dir, err := os.MkdirTemp(filepath.Dir(harness.Daxfsd), "")
	if err != nil {
		t.Fatal(err)
	}
	img, mnt := filepath.Join(dir, "ext4.img"), filepath.Join(dir, "mnt")
	if err = os.WriteFile(img, nil, 0o600); err == nil {
		if err = os.Truncate(img, 64<<20); err == nil {
			err = os.Mkdir(mnt, 0o755)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	harness.Run(t, time.Minute, "", nil, "mkfs.ext4", "-q", "-b", "4096", img)
	harness.Run(t, time.Minute, "", nil, "mount", "-t", "ext4", "-o", "loop", img, mnt)
	t.Cleanup(func() {
		if err := unix.Unmount(mnt, unix.MNT_DETACH); err != nil {
			t.Errorf("umount of the control: %v", err)
		}
	})
	return mnt
}
