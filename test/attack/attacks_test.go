package attack

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// attacks lists the attacks that TestPlaces tries.
var attacks = []attack{
	{name: "nothing", ask: func(int, int) error { // the victim's wait without an attack
		time.Sleep(time.Millisecond)
		return nil
	}},
	{name: "info", ask: func(int, int) error {
		_, err := unix.Getxattr("../..", "system.daxfsd.info", make([]byte, 60<<10))
		return err
	}},
	{name: "activity", ask: func(int, int) error {
		_, err := unix.Getxattr("../..", "system.daxfsd.activity", make([]byte, 60<<10))
		return err
	}},
	{name: "statfs of unlinked files", ask: func(th, round int) error {
		f, err := os.Create(fmt.Sprint(th))
		if err != nil {
			return err
		}
		defer f.Close()
		if err := os.Remove(f.Name()); err != nil {
			return err
		}
		var s unix.Statfs_t
		return unix.Statfs(".", &s)
	}},
	{name: "no space after an unlink", ask: func(th, round int) error {
		f, err := os.Create(fmt.Sprint(th))
		if err != nil {
			return err
		}
		defer f.Close()
		if err := os.Remove(f.Name()); err != nil {
			return err
		}
		if err := unix.Fallocate(int(f.Fd()), 0, 0, 1<<40); err != unix.ENOSPC {
			return fmt.Errorf("fallocate of 1 TiB: %w", err)
		}
		return nil
	}},
	{name: "holes of mapped files", prepare: sparse, ask: func(th, _ int) error {
		f, err := os.OpenFile("sparse"+strconv.Itoa(th), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		m, err := unix.Mmap(int(f.Fd()), 0, 4<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		defer unix.Munmap(m)
		for i := 0; i < len(m); i += 64 << 10 {
			m[i]++
		}
		if _, err = f.Seek(8<<20, unix.SEEK_HOLE); err != nil {
			return err
		}
		_, err = f.Seek(0, unix.SEEK_HOLE)
		return err
	}},
	// The region is an ordinary file: a store to a page that is being written to the disk may wait
	// for the disk.
	{name: "fsync", within: time.Second, ask: func(th, _ int) error {
		f, err := os.Create(fmt.Sprint(th))
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.Write(make([]byte, 64<<10)); err != nil {
			return err
		}
		return f.Sync()
	}},
	{name: "large directory", prepare: func(dir string) error {
		for i := range 5000 {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%0100d", i)), nil, 0o600); err != nil {
				return err
			}
		}
		return nil
	}, ask: func(int, int) error {
		fd, err := unix.Open(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for b := make([]byte, 1<<20); ; {
			if n, err := unix.Getdents(fd, b); n <= 0 {
				return err
			}
		}
	}},
	{name: "long list of attributes", prepare: attributes, ask: func(th, _ int) error {
		_, err := unix.Listxattr(strconv.Itoa(th), make([]byte, 60<<10))
		return err
	}},
	{name: "change of a long list of attributes", prepare: attributes, ask: func(th, round int) error {
		return unix.Setxattr(strconv.Itoa(th), fmt.Sprintf("user.%0200d", 7), make([]byte, 400+round%100), 0)
	}},
	{name: "copies that share nothing", prepare: func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "source"), make([]byte, 64<<20), 0o600)
	}, ask: func(th, _ int) error {
		in, err := os.Open("source")
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.Create("copy" + strconv.Itoa(th%4))
		if err != nil {
			return err
		}
		defer out.Close()
		from, to := int64(1), int64(0) // different offsets within a block: the blocks cannot be shared
		_, err = unix.CopyFileRange(int(in.Fd()), &from, int(out.Fd()), &to, 63<<20, 0)
		if err == unix.ENOSPC {
			err = nil
		}
		return err
	}},
}

// sparse creates a file with holes for each thread.
func sparse(dir string) error {
	for th := range threads {
		f, err := os.Create(filepath.Join(dir, "sparse"+strconv.Itoa(th)))
		if err != nil {
			return err
		}
		if err := f.Truncate(16 << 20); err != nil {
			return err
		}
		f.Close()
	}
	return nil
}

// attributes creates a file with a long list of extended attributes for each thread.
func attributes(dir string) error {
	for th := range threads {
		name := filepath.Join(dir, strconv.Itoa(th))
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			return err
		}
		for i := range 60 {
			if err := unix.Setxattr(name, fmt.Sprintf("user.%0200d", i), make([]byte, 500), 0); err != nil {
				return err
			}
		}
	}
	return nil
}
