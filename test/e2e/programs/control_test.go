package programs

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

// A control is a trusted filesystem, in the mount namespace of the tests.
type control struct {
	Dir  string
	Kind string // ext4, or tmpfs
}

// newControl mounts a control below m.Dir, and unmounts it before m: ext4 on a loop device, which
// detaches itself at the unmount, or tmpfs if that does not work. size is in bytes.
func newControl(t *testing.T, m *harness.Mount, size int64) control {
	t.Helper()
	c := control{Dir: filepath.Join(m.Dir, "control"), Kind: "ext4"}
	if err := os.Mkdir(c.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(m.Dir, "control.img")
	err := os.WriteFile(image, nil, 0o600)
	if err == nil {
		err = os.Truncate(image, size)
	}
	var out string
	if err == nil {
		out, err = harness.Command(time.Minute, "", nil, "mkfs.ext4", "-q", "-F", "-m", "1", image)
	}
	if err == nil {
		out, err = harness.Command(time.Minute, "", nil, "mount", "-t", "ext4", "-o", "loop", image, c.Dir)
	}
	if err != nil {
		t.Logf("the control is tmpfs, because of ext4 on a loop device: %v %s", err, out)
		c.Kind = "tmpfs"
		scratchAt(t, c.Dir, size)
		return c
	}
	t.Cleanup(func() { unmount(t, c.Dir) })
	if err := os.Remove(filepath.Join(c.Dir, "lost+found")); err != nil {
		t.Fatal(err)
	}
	return c
}

// scratch mounts a tmpfs of size bytes below m.Dir, for files that are neither under test nor
// compared with.
func scratch(t *testing.T, m *harness.Mount, name string, size int64) string {
	t.Helper()
	dir := filepath.Join(m.Dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	scratchAt(t, dir, size)
	return dir
}

func scratchAt(t *testing.T, dir string, size int64) {
	t.Helper()
	if err := unix.Mount("daxfsd-test", dir, "tmpfs", 0, "mode=0755,size="+strconv.FormatInt(size, 10)); err != nil {
		t.Fatalf("mounting a tmpfs: %v", err)
	}
	t.Cleanup(func() { unmount(t, dir) })
}

// unmount unmounts dir. It waits a little while the filesystem is still busy.
func unmount(t *testing.T, dir string) {
	t.Helper()
	var err error
	for start := time.Now(); time.Since(start) < 10*time.Second; time.Sleep(20 * time.Millisecond) {
		if err = unix.Unmount(dir, 0); err != unix.EBUSY {
			break
		}
	}
	if err != nil {
		t.Errorf("unmount of %s: %v", dir, err)
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	}
}
