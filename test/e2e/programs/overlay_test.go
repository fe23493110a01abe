package programs

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

var history = flag.Int("history", 20, "calls to print before one that differs")

// An overlay is a mounted overlayfs: lower on tmpfs, upper and work on the filesystem under test or
// on the control.
type overlay struct {
	t                       *testing.T
	dir, lower, upper, work string
	options                 string
}

func newOverlay(t *testing.T, m *harness.Mount, name, on, options string) *overlay {
	t.Helper()
	o := &overlay{t: t, options: options,
		dir: filepath.Join(m.Dir, name), lower: scratch(t, m, name+"-lower", 64<<20),
		upper: filepath.Join(on, name+"-upper"), work: filepath.Join(on, name+"-work")}
	for _, d := range []string{o.dir, o.upper, o.work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if isMounted(o.dir) {
			unmount(t, o.dir)
		}
	})
	return o
}

func isMounted(dir string) bool {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	return strings.Contains(string(b), " "+dir+" ")
}

// up mounts, and returns the kernel's log messages: the kernel may mount without some features.
func (o *overlay) up() (kernel []string, err error) {
	o.t.Helper()
	log, lerr := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if lerr != nil {
		o.t.Fatalf("reading the kernel's log: %v", lerr)
	}
	defer unix.Close(log)
	if _, err := unix.Seek(log, 0, unix.SEEK_END); err != nil {
		o.t.Fatal(err)
	}
	opts := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", o.lower, o.upper, o.work)
	if o.options != "" {
		opts += "," + o.options
	}
	err = unix.Mount("daxfsd-test", o.dir, "overlay", 0, opts)
	b := make([]byte, 8<<10)
	for {
		n, rerr := unix.Read(log, b)
		if rerr != nil && rerr != unix.EPIPE || rerr == nil && n <= 0 {
			return kernel, err
		}
		if _, text, ok := strings.Cut(string(b[:max(n, 0)]), ";"); ok && strings.Contains(text, "overlay") {
			text, _, _ = strings.Cut(text, "\n")
			kernel = append(kernel, text)
		}
	}
}

// lowerTree makes the lower tree.
func (o *overlay) lowerTree() {
	o.t.Helper()
	for i := range 4 {
		for j := range 3 {
			d := filepath.Join(o.lower, fmt.Sprintf("d%d", i), fmt.Sprintf("d%d", j))
			o.must(os.MkdirAll(d, 0o755))
			for k := range 4 {
				o.must(os.WriteFile(filepath.Join(d, fmt.Sprintf("f%d", k)), []byte(strings.Repeat(fmt.Sprint("lower ", i, j, k, "\n"), 1+k*500)), 0o644))
			}
			o.must(os.Symlink("f0", filepath.Join(d, "l0")))
			if !strings.Contains(o.options, "index=on") { // with index=on they stay one file, see TestOverlayLinks
				o.must(os.Link(filepath.Join(d, "f1"), filepath.Join(d, "h1")))
			}
		}
	}
	o.must(unix.Setxattr(filepath.Join(o.lower, "d0/d0/f0"), "trusted.kept", []byte("in the copy up"), 0))
}

func (o *overlay) must(err error) {
	if err != nil {
		o.t.Helper()
		o.t.Fatal(err)
	}
}

// TestOverlay mounts an overlayfs over a tmpfs with its upper and work directories on the mount,
// and another one with both on the control. At the mount the kernel tries the features that
// overlayfs needs of an upper filesystem, and complains in its log or refuses: d_type, xattrs
// trusted.overlay.*, O_TMPFILE, RENAME_WHITEOUT, file handles for index=on. Then every call must
// give the same result on both, and the upper directories must hold the same whiteouts and opaque
// directories.
func TestOverlay(t *testing.T) {
	harness.Need(t, "mkfs.ext4", "mount")
	for _, variant := range []struct{ name, options string }{
		{"plain", ""},
		{"all", "index=on,redirect_dir=on,metacopy=on,xino=on"},
		{"user", "userxattr"},
		{"volatile", "volatile,index=off,nfs_export=off"},
	} {
		t.Run(variant.name, func(t *testing.T) {
			mount := harness.New(t, 256<<20, choose(2*time.Minute, 10*time.Minute))
			ctl := newControl(t, mount, 256<<20)
			ours, theirs := newOverlay(t, mount, "ours", mount.Mountpoint, variant.options), newOverlay(t, mount, "theirs", ctl.Dir, variant.options)
			for _, layer := range []*overlay{ours, theirs} {
				layer.lowerTree()
			}
			theirLog, theirErr := theirs.up()
			ourLog, ourErr := ours.up()
			if theirErr != nil {
				t.Fatalf("overlayfs refuses %s: %v %v", ctl.Kind, theirErr, theirLog)
			}
			if ourErr != nil {
				t.Fatalf("overlayfs refuses the mount as upper: %v; the kernel says %q", ourErr, ourLog)
			}
			if len(ourLog) > len(theirLog) {
				t.Errorf("overlayfs on the mount does without something: the kernel says %q, and of %s %q", ourLog, ctl.Kind, theirLog)
			}
			compare := func(when string) {
				t.Helper()
				if got, want := walk(t, ours.dir), walk(t, theirs.dir); got != want {
					t.Fatalf("%s: the overlay differs:\n%s", when, difference(got, want))
				}
				if got, want := walk(t, ours.upper), walk(t, theirs.upper); got != want {
					t.Fatalf("%s: the upper directory differs:\n%s", when, difference(got, want))
				}
			}
			compare("at first")
			for _, step := range overlaySteps {
				got := strings.ReplaceAll(fmt.Sprint(step.do(ours.dir)), ours.dir, "")
				want := strings.ReplaceAll(fmt.Sprint(step.do(theirs.dir)), theirs.dir, "")
				if got != want {
					t.Fatalf("%s: %s on the mount, %s on %s", step.what, got, want, ctl.Kind)
				}
				if got != "<nil>" {
					t.Logf("%s: %s on both", step.what, got)
				}
				compare(step.what)
			}
			if upper := walk(t, ours.upper); !strings.Contains(upper, "c") || !strings.Contains(upper, "overlay.opaque") {
				t.Errorf("the steps made no whiteout or no opaque directory:\n%s", upper)
			}
			const seed = 1
			n := choose(1500, 20000)
			rngOurs, rngTheirs := rand.New(rand.NewPCG(seed, 2)), rand.New(rand.NewPCG(seed, 2))
			var calls []string
			for i := range n {
				got, want := randomCall(ours.dir, rngOurs), randomCall(theirs.dir, rngTheirs)
				calls = append(calls, got)
				if got != want {
					t.Fatalf("call %d of seed %d gives\n%s on the mount,\n%s on %s; before:\n%s", i, seed, got, want, ctl.Kind, strings.Join(calls[max(0, i-*history):], "\n"))
				}
				if i%(n/5) == 0 {
					compare(fmt.Sprintf("after call %d of seed %d (%s)", i, seed, got))
				}
			}
			compare("at the end")
			// Remount both, so that the content comes from the media.
			for _, layer := range []*overlay{ours, theirs} {
				unmount(t, layer.dir)
			}
			mount.Again()
			if variant.name == "volatile" {
				for _, layer := range []*overlay{ours, theirs} { // required before a volatile overlay is mounted again
					layer.must(os.RemoveAll(filepath.Join(layer.work, "work/incompat")))
				}
			}
			for _, layer := range []*overlay{ours, theirs} {
				if log, err := layer.up(); err != nil {
					t.Fatalf("mounting the overlay again: %v %q", err, log)
				}
			}
			compare("after the remount")
			// Remove everything through the overlay: it becomes whiteouts, or is gone.
			for _, layer := range []*overlay{ours, theirs} {
				harness.Run(t, time.Minute, "", nil, "sh", "-c", `rm -rf "$1"/*`, "sh", layer.dir)
			}
			compare("after rm -rf")
			for _, layer := range []*overlay{ours, theirs} {
				unmount(t, layer.dir)
				harness.Run(t, time.Minute, "", nil, "rm", "-rf", layer.upper, layer.work)
			}
			empty(t, mount)
		})
	}
}

// overlaySteps lists the cases for which overlayfs has a special mechanism.
var overlaySteps = []struct {
	what string
	do   func(dir string) error
}{
	{what: "create", do: func(d string) error { return os.WriteFile(d+"/new", []byte("new"), 0o640) }},
	{what: "copy up by a write", do: func(d string) error {
		f, err := os.OpenFile(d+"/d0/d0/f3", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteAt([]byte("written"), 700)
		return err
	}},
	{what: "copy up by chmod", do: func(d string) error { return os.Chmod(d+"/d0/d0/f0", 0o600) }},
	{what: "copy up by setxattr", do: func(d string) error { return unix.Setxattr(d+"/d0/d1/f0", "trusted.x", []byte("y"), 0) }},
	{what: "write to one name of a lower file with two", do: func(d string) error { return os.WriteFile(d+"/d0/d2/h1", []byte("h1"), 0) }},
	{what: "delete a lower name", do: func(d string) error { return os.Remove(d + "/d1/d0/f0") }},
	{what: "create over a whiteout", do: func(d string) error { return os.WriteFile(d+"/d1/d0/f0", []byte("again"), 0o644) }},
	{what: "rename a lower file", do: func(d string) error { return os.Rename(d+"/d1/d0/f1", d+"/d1/d0/renamed") }},
	{what: "rename over a lower file", do: func(d string) error { return os.Rename(d+"/new", d+"/d1/d0/f2") }},
	{what: "rename to another directory", do: func(d string) error { return os.Rename(d+"/d1/d0/f3", d+"/d2/moved") }},
	{what: "exchange", do: func(d string) error {
		return unix.Renameat2(unix.AT_FDCWD, d+"/d2/moved", unix.AT_FDCWD, d+"/d2/d0/f0", unix.RENAME_EXCHANGE)
	}},
	{what: "rename, not over a file that is there", do: func(d string) error {
		return unix.Renameat2(unix.AT_FDCWD, d+"/d2/d0/f1", unix.AT_FDCWD, d+"/d2/d0/f2", unix.RENAME_NOREPLACE)
	}},
	{what: "rmdir of one that is not empty", do: func(d string) error { return unix.Rmdir(d + "/d3/d0") }},
	{what: "delete a lower directory", do: func(d string) error { return os.RemoveAll(d + "/d3/d0") }},
	{what: "make an opaque one in its place", do: func(d string) error { return os.Mkdir(d+"/d3/d0", 0o755) }},
	{what: "and fill it", do: func(d string) error { return os.WriteFile(d+"/d3/d0/f1", []byte("not lower"), 0o644) }},
	{what: "rename a merged directory", do: func(d string) error { return os.Rename(d+"/d3/d1", d+"/d3/elsewhere") }},
	{what: "rename an upper directory", do: func(d string) error { return os.Rename(d+"/d3/d0", d+"/d2/d0x") }},
	{what: "delete a symbolic link", do: func(d string) error { return os.Remove(d + "/d2/d1/l0") }},
	{what: "copy up of one", do: func(d string) error { return os.Lchown(d+"/d2/d2/l0", 1, 1) }},
	{what: "an unnamed file, then a name for it", do: func(d string) error {
		fd, err := unix.Open(d+"/d2", unix.O_TMPFILE|unix.O_RDWR, 0o644)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if _, err := unix.Write(fd, []byte("tmpfile")); err != nil {
			return err
		}
		return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, d+"/d2/tmp", unix.AT_SYMLINK_FOLLOW)
	}},
	{what: "truncate a lower file", do: func(d string) error { return os.Truncate(d+"/d2/d2/f3", 5) }},
	{what: "a whiteout of one's own", do: func(d string) error { return unix.Mknod(d+"/white", unix.S_IFCHR, 0) }},
	{what: "fsync of a directory", do: func(d string) error {
		f, err := os.Open(d + "/d2")
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Sync()
	}},
}

// TestOverlayLinks checks the one difference to a local filesystem that programs see. If a file has
// two names in the upper directory and the first is deleted, the second gives ESTALE until the
// kernel forgets it. Overlayfs keeps one dentry of the upper filesystem for each of its inodes,
// that of the first name, and asks FUSE to revalidate this dentry whichever name is used
// (ovl_inode_upper, ovl_revalidate_real). FUSE looks up the deleted name and gets ENOENT, which
// overlayfs turns into ESTALE. No answer of a daemon changes that: go-fuse's loopback filesystem
// does the same. The file itself is intact, as it shows without the overlay and after a remount.
func TestOverlayLinks(t *testing.T) {
	harness.Need(t, "mkfs.ext4", "mount")
	m := harness.New(t, 64<<20, time.Minute)
	c := newControl(t, m, 64<<20)
	ours, theirs := newOverlay(t, m, "ours", m.Mountpoint, ""), newOverlay(t, m, "theirs", c.Dir, "")
	for _, o := range []*overlay{ours, theirs} {
		if log, err := o.up(); err != nil {
			t.Fatalf("%v %q", err, log)
		}
		first, second := filepath.Join(o.dir, "first"), filepath.Join(o.dir, "second")
		o.must(os.WriteFile(first, []byte("linked"), 0o644))
		o.must(os.Link(first, second))
		_, err := os.ReadFile(second)
		o.must(err)
		_, err = os.ReadFile(second)
		o.must(err)
		o.must(os.Remove(first))
		_, err = os.ReadFile(second)
		switch {
		case o == theirs && err != nil:
			t.Errorf("on %s the second name says %v", c.Kind, err)
		case o == ours && err == nil:
			t.Log("this kernel's overlayfs no longer makes second names stale: TestOverlay may make links again")
		case o == ours && !errors.Is(err, unix.ESTALE):
			t.Errorf("the second name says %v, want ESTALE", err)
		}
		if b, err := os.ReadFile(filepath.Join(o.upper, "second")); err != nil || string(b) != "linked" {
			t.Errorf("in the upper directory the second name has %q, %v", b, err)
		}
		unmount(t, o.dir)
		if log, err := o.up(); err != nil {
			t.Fatalf("%v %q", err, log)
		}
		if b, err := os.ReadFile(second); err != nil || string(b) != "linked" {
			t.Errorf("after a remount the second name has %q, %v", b, err)
		}
		unmount(t, o.dir)
	}
	m.Again()
}

// randomCall makes one call on one of few names, so that calls meet, and returns the call and its
// result. It makes no links, see TestOverlayLinks.
func randomCall(dir string, rng *rand.Rand) string {
	name := func() string {
		path := fmt.Sprintf("d%d", rng.IntN(4))
		if rng.IntN(4) > 0 {
			path += fmt.Sprintf("/d%d", rng.IntN(3))
		}
		if rng.IntN(3) > 0 {
			path += fmt.Sprintf("/%c%d", "fhl"[rng.IntN(3)], rng.IntN(4))
		}
		return path
	}
	from, other := name(), name()
	first, second := filepath.Join(dir, from), filepath.Join(dir, other)
	mode, size := uint32(rng.IntN(0o1000)), rng.IntN(9000)
	var what string
	var err error
	switch rng.IntN(14) {
	case 0, 1:
		what, err = "write", os.WriteFile(first, []byte(strings.Repeat("w", size)), 0o644)
	case 2:
		what = "append"
		var file *os.File
		if file, err = os.OpenFile(first, os.O_WRONLY|os.O_APPEND, 0); err == nil {
			_, err = file.Write([]byte(strings.Repeat("a", size)))
			file.Close()
		}
	case 3, 4:
		what, err = "unlink", unix.Unlink(first)
	case 5:
		what, err = "rmdir", unix.Rmdir(first)
	case 6:
		what, err = "mkdir", unix.Mkdir(first, 0o755)
	case 7, 8:
		what, err = "rename", unix.Rename(first, second)
	case 9:
		what, err = "exchange", unix.Renameat2(unix.AT_FDCWD, first, unix.AT_FDCWD, second, unix.RENAME_EXCHANGE)
	case 10:
		what, err = "truncate", unix.Truncate(first, int64(size))
	case 11:
		what, err = "symlink", unix.Symlink("f0", first)
	case 12:
		what, err = "chmod", unix.Fchmodat(unix.AT_FDCWD, first, mode, 0)
	case 13:
		what, err = "removeall", nil
		if size < 1000 {
			err = os.RemoveAll(first)
		}
	}
	return strings.ReplaceAll(fmt.Sprintf("%s %s %s: %v", what, from, other, err), dir, "")
}

// walk describes everything in a tree that does not depend on the time or on the filesystem.
func walk(t *testing.T, root string) string {
	t.Helper()
	var lines []string
	seen := map[uint64]string{} // the first name of each file with several names
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		var stat unix.Stat_t
		if err := unix.Lstat(path, &stat); err != nil {
			return err
		}
		line := fmt.Sprintf("%s %v %o %d:%d", rel, entry.Type(), stat.Mode, stat.Uid, stat.Gid)
		switch stat.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" size %d sum %x", stat.Size, fnv(content))
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + target
		case unix.S_IFCHR:
			line += fmt.Sprintf(" device %x", stat.Rdev)
		}
		// Overlayfs may link its whiteouts, so only regular files count.
		if stat.Mode&unix.S_IFMT == unix.S_IFREG {
			line += fmt.Sprintf(" links %d", stat.Nlink)
			if stat.Nlink > 1 {
				if seen[stat.Ino] == "" {
					seen[stat.Ino] = rel
				}
				line += " of " + seen[stat.Ino]
			}
		}
		lines = append(lines, line+attributes(path))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n") + "\n"
}

// attributes returns a file's extended attributes without file handles and identifiers, which
// depend on the filesystem.
func attributes(path string) string {
	b := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, b)
	if err != nil {
		return fmt.Sprintf(" listxattr: %v", err)
	}
	names := strings.FieldsFunc(string(b[:n]), func(r rune) bool { return r == 0 })
	sort.Strings(names)
	s := ""
	for _, name := range names {
		v := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, v)
		value := fmt.Sprintf("%q", v[:max(n, 0)])
		if err != nil {
			value = err.Error()
		}
		switch strings.TrimPrefix(strings.TrimPrefix(name, "trusted."), "user.") {
		case "overlay.origin", "overlay.upper", "overlay.uuid":
			value = "*"
		}
		s += " " + name + "=" + value
	}
	return s
}

func fnv(b []byte) (h uint64) {
	h = 14695981039346656037
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

// difference returns the lines that only one of two descriptions has.
func difference(a, b string) string {
	in := func(s string) map[string]bool {
		m := map[string]bool{}
		for _, l := range strings.Split(s, "\n") {
			m[l] = true
		}
		return m
	}
	ina, inb := in(a), in(b)
	var s strings.Builder
	for _, l := range strings.Split(a, "\n") {
		if !inb[l] {
			fmt.Fprintln(&s, "daxfsd:  ", l)
		}
	}
	for _, l := range strings.Split(b, "\n") {
		if !ina[l] {
			fmt.Fprintln(&s, "control:", l)
		}
	}
	return s.String()
}
