package attack

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs/fusefs"
)

// manyExtents is the number of extents of an attacked file. An operation on all of them takes long.
const manyExtents = 30_000

// extentAttacks lists attacks that keep the attacker's own inodes busy for as long as they can. The
// victim's files are in another directory, or beside them in the same one.
var extentAttacks = []attack{
	{name: "work on many extents", shared: true, prepare: extents("many", manyExtents), ask: func(th, round int) error {
		f, err := os.OpenFile("many", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		switch th % 8 {
		case 0:
			return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, 0, manyExtents*8192)
		case 1:
			return countExtents(f)
		case 2:
			_, err := fusefs.Extents(int(f.Fd()))
			return err
		case 3:
			_, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA)
			if err == unix.ENXIO { // the whole file is unwritten
				err = nil
			}
			return err
		case 4, 5:
			_, err := f.ReadAt(make([]byte, 4096), int64(round*threads+th)%manyExtents*8192)
			return err
		}
		return statBeside(f)
	}},
	{name: "filling and truncating", shared: true, ask: func(th, _ int) error {
		name := "cut" + strconv.Itoa(th%4)
		if th >= 4 {
			var st unix.Stat_t
			if err := unix.Lstat(name, &st); err != nil && err != unix.ENOENT {
				return err
			}
			return nil
		}
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := scatter(f, 3000); err != nil {
			return err
		}
		return f.Truncate(0)
	}},
	{name: "deleting many extents", shared: true, ask: func(th, _ int) error {
		if th >= 4 {
			time.Sleep(time.Millisecond)
			return nil
		}
		f, err := os.Create("gone" + strconv.Itoa(th))
		if err != nil {
			return err
		}
		defer f.Close()
		if err := scatter(f, 3000); err != nil {
			return err
		}
		return os.Remove(f.Name())
	}},
	{name: "renames deep in the tree", ask: func(th, round int) error {
		deepOnce.Do(func() { deepErr = digDown() })
		if deepErr != nil || th > 0 {
			time.Sleep(time.Millisecond)
			return deepErr
		}
		from, to := deep[round%2], deep[1-round%2]
		return unix.Renameat(from, "tree", to, "tree")
	}},
	{name: "names in one directory", prepare: func(dir string) error { return os.Mkdir(filepath.Join(dir, "wide"), 0o700) }, ask: func(th, round int) error {
		name := fmt.Sprintf("wide/%d-%d", th, round)
		fd, err := unix.Open(name, unix.O_CREAT|unix.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}},
}

// extents returns a function that creates a file of n extents in a directory.
func extents(name string, n int) func(dir string) error {
	return func(dir string) error {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		defer f.Close()
		return scatter(f, n)
	}
}

// scatter allocates n extents of one block each, with holes in between.
func scatter(f *os.File, n int) error {
	for i := range n {
		if err := unix.Fallocate(int(f.Fd()), 0, int64(i)*8192, 4096); err != nil {
			return err
		}
	}
	return nil
}

// statBeside asks for a file's attributes by its name, and by two calls that the kernel does not
// answer from its caches.
func statBeside(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Stat(f.Name(), &st); err != nil {
		return err
	}
	if err := unix.Access("no such file", unix.F_OK); err != unix.ENOENT {
		return fmt.Errorf("a file that does not exist: %v", err)
	}
	var x unix.Statx_t
	return unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_ALL, &x)
}

// depth is the number of directories above those of the renames. No path can name so many.
const depth = 10_000

var (
	deepOnce sync.Once
	deepErr  error
	deep     [2]int // descriptors of the directories at the bottom; one of them contains "tree"
)

// digDown creates the directories of deep.
func digDown() error {
	at, err := unix.Open(".", unix.O_DIRECTORY|unix.O_PATH, 0)
	if err != nil {
		return err
	}
	down := func(name string) (int, error) {
		if err := unix.Mkdirat(at, name, 0o700); err != nil && err != syscall.EEXIST {
			return -1, err
		}
		return unix.Openat(at, name, unix.O_DIRECTORY|unix.O_PATH, 0)
	}
	for range depth {
		fd, err := down("d")
		if err != nil {
			return err
		}
		unix.Close(at)
		at = fd
	}
	for i, name := range []string{"a", "b"} {
		if deep[i], err = down(name); err != nil {
			return err
		}
		_ = unix.Unlinkat(deep[i], "tree/below", unix.AT_REMOVEDIR) // left by an earlier attempt
		_ = unix.Unlinkat(deep[i], "tree", unix.AT_REMOVEDIR)
	}
	if err := unix.Mkdirat(deep[0], "tree", 0o700); err != nil {
		return err
	}
	return unix.Mkdirat(deep[0], "tree/below", 0o700)
}
