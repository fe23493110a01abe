package posix

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

// need is a set of features that some targets lack.
type need uint32

const (
	needsFlags        need = 1 << iota // chattr: i and a
	needsFlagsSync                     // chattr: S, A, d
	needsBigXattr                      // values of 64 KiB
	needsManyXattr                     // hundreds of attributes of one file
	needsManyLinks                     // more than 65000 links to a file
	needsHuge                          // offsets up to 8 EiB
	needsZeroRange                     // fallocate: ZERO_RANGE
	needsCollapse                      // fallocate: COLLAPSE_RANGE, INSERT_RANGE
	needsUnwritten                     // preallocated space is a hole to SEEK_DATA
	needsBtime                         // statx: time of birth
	needsDirect                        // O_DIRECT
	needsNowait                        // RWF_NOWAIT
	needsClone                         // FICLONE
	needsFarTimes                      // before 1901 and after 2446
	needsStatxFlags                    // statx reports the flags that chattr set
	needsExactAtime                    // a read of 0 bytes does not change atime
	needsHandleTypes                   // the type of a file handle is checked
	needsZeroTail                      // bytes stored through a mapping beyond the end of file never become visible
	needsFlagsOpen                     // i also applies to files that are open already
	needsSameSlot                      // a name keeps its readdir position
	needsTrim                          // FITRIM
	needsFullMetadata                  // names and attributes take space from the filesystem
)

var needNames = []string{"flags (i, a)", "flags (S, A, d)", "64 KiB xattrs", "hundreds of xattrs", "65001 links", "offsets of 8 EiB", "ZERO_RANGE",
	"COLLAPSE_RANGE", "unwritten extents that are holes", "birth times", "O_DIRECT", "RWF_NOWAIT", "FICLONE", "times far away",
	"statx attributes", "exact atimes", "file handle types", "zeroed tails of mapped pages", "flags for who has the file open", "stable directory positions", "FITRIM"}

func (n need) String() string {
	var l []string
	for i, name := range needNames {
		if n&(1<<i) != 0 {
			l = append(l, name)
		}
	}
	return strings.Join(l, ", ")
}

// A target is a kind of filesystem that the table runs on.
type target struct {
	name    string
	control bool
	has     need
	up      func(t *testing.T) *mounted // returns nil, and logs why, if this machine cannot mount it
}

// mounted is a mounted target.
type mounted struct {
	dir   string
	alive func() error
	done  func(t *testing.T) // unmounts and checks the target
}

const daxfsdHas = needsFlags | needsFlagsSync | needsBigXattr | needsManyXattr | needsManyLinks | needsHuge | needsZeroRange | needsUnwritten | needsBtime |
	needsDirect | needsExactAtime | needsHandleTypes | needsZeroTail | needsFlagsOpen | needsSameSlot | needsTrim | needsFullMetadata

// targets lists the targets, the controls first: a case that fails there is wrong.
var targets = []*target{
	{name: "ext4", control: true, up: upExt4,
		has: needsFlags | needsFlagsSync | needsBigXattr | needsZeroRange | needsCollapse | needsUnwritten | needsBtime | needsDirect | needsNowait |
			needsStatxFlags | needsExactAtime | needsHandleTypes | needsZeroTail | needsFlagsOpen | needsSameSlot | needsTrim | needsFullMetadata},
	{name: "tmpfs", control: true, up: upTmpfs,
		has: needsFlags | needsBigXattr | needsManyXattr | needsManyLinks | needsHuge | needsBtime | needsDirect | needsFarTimes | needsStatxFlags | needsSameSlot},
	{name: "dax=always", up: upDaxfs("dax=always"), has: daxfsdHas},
	{name: "dax=never", up: upDaxfs("dax=never"), has: daxfsdHas},
	{name: "dax=inode", up: upDaxfs("dax=inode"), has: daxfsdHas},
	{name: "chattr +x", up: upFlagged, has: daxfsdHas},
	{name: "transport=uring", up: upDaxfs("transport=uring"), has: daxfsdHas},
}

// targetLimit bounds the time of the whole table on one mount of daxfsd.
func targetLimit() time.Duration { return time.Duration(*slow) * 10 * time.Minute }

// scratch makes a directory that other users can search, inside the one that is deleted after all
// tests.
func scratch(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("these tests mount and must run as root: try `sudo make posix`")
	}
	top := filepath.Dir(harness.Daxfsd)
	dir, err := os.MkdirTemp(top, "")
	for _, d := range []string{top, dir} {
		if err == nil {
			err = os.Chmod(d, 0o711)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// upDaxfs returns a function that mounts daxfsd with the given options. done unmounts it and runs
// fsck.
func upDaxfs(options string) func(t *testing.T) *mounted {
	return func(t *testing.T) *mounted { return mountDaxfs(t, options) }
}

// upFlagged mounts with dax=inode and sets the flag on the root, so that all files inherit it and
// bypass the page cache.
func upFlagged(t *testing.T) *mounted {
	up := mountDaxfs(t, "dax=inode")
	harness.Run(t, time.Minute, "", nil, "chattr", "+x", up.dir)
	return up
}

func mountDaxfs(t *testing.T, options string) *mounted {
	if options == "transport=uring" {
		harness.Uring(t)
	}
	m := harness.New(t, 512<<20, targetLimit())
	m.Down()
	m.Options = options
	m.Up()
	for _, d := range []string{filepath.Dir(harness.Daxfsd), m.Dir} {
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	return &mounted{dir: m.Mountpoint,
		alive: func() error {
			if harness.Signal(m.PID(), 0) != nil {
				return fmt.Errorf("the daemon is gone")
			}
			return nil
		},
		done: func(t *testing.T) { m.Down() },
	}
}

// upExt4 mounts an ext4 in a file. mount(8) makes a loop device that detaches itself at the
// unmount, which happens at the latest when the mount namespace ends.
func upExt4(t *testing.T) *mounted {
	dir := scratch(t)
	img, mnt := filepath.Join(dir, "ext4.img"), filepath.Join(dir, "mnt")
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Logf("NO CONTROL: mkfs.ext4 is missing (Debian: e2fsprogs)")
		return nil
	}
	f, err := os.Create(img)
	if err == nil {
		err = f.Truncate(512 << 20)
		f.Close()
	}
	if err == nil {
		err = os.Mkdir(mnt, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	harness.Run(t, time.Minute, "", nil, "mkfs.ext4", "-q", "-I", "512", "-b", "4096", "-O", "ea_inode,metadata_csum,^orphan_file", img)
	if out, err := harness.Command(time.Minute, "", nil, "mount", "-t", "ext4", "-o", "loop,acl,user_xattr", img, mnt); err != nil {
		t.Logf("NO CONTROL: mounting an ext4 in a file: %v: %s", err, out)
		return nil
	}
	t.Cleanup(func() { _ = unix.Unmount(mnt, unix.MNT_DETACH) })
	if err := os.Remove(img); err != nil { // the loop device has it open
		t.Error(err)
	}
	return &mounted{dir: mnt, alive: func() error { return nil }, done: func(t *testing.T) {
		if err := unix.Unmount(mnt, 0); err != nil {
			t.Errorf("umount of the control: %v", err)
		}
	}}
}

func upTmpfs(t *testing.T) *mounted {
	mnt := scratch(t)
	if err := unix.Mount("tmpfs", mnt, "tmpfs", 0, "size=512m,mode=755"); err != nil {
		t.Fatalf("mounting a tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(mnt, unix.MNT_DETACH) })
	return &mounted{dir: mnt, alive: func() error { return nil }, done: func(t *testing.T) {
		if err := unix.Unmount(mnt, 0); err != nil {
			t.Errorf("umount of the control: %v", err)
		}
	}}
}
