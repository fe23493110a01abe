// Command mounttime measures how long a mount takes with the saved free map and with a scan of all
// inodes, in alternating rounds, and how long the unmount takes that saves the map.
//
//	go run ./bench/mounttime [--files 1000000] [--extents 1000000] [--rounds 7] [--dir DIR]
//
// It measures three filesystems on a sparse region: an empty one, one with many files of one block,
// and one with a file of many extents that fills 64 GiB. It prints medians in milliseconds.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/pmem"
)

func main() {
	files := flag.Int("files", 1_000_000, "number of files of one block")
	extents := flag.Int("extents", 1_000_000, "number of extents of the file that fills 64 GiB")
	rounds := flag.Int("rounds", 7, "number of rounds")
	dir := flag.String("dir", "/dev/shm", "directory for the regions; on a disk, the disk is measured too")
	flag.Parse()
	fmt.Println("case                       scan ms   map ms   ratio   unmount ms   map bytes")
	for _, c := range []struct {
		name string
		size int64
		fill func(*fs.FS) error
	}{
		{"empty, 64 GiB", 64 << 30, func(*fs.FS) error { return nil }},
		{fmt.Sprintf("%d files", *files), int64(*files)*4608 + 1<<30, func(f *fs.FS) error { return manyFiles(f, *files) }},
		{fmt.Sprintf("%d extents", *extents), 64 << 30, func(f *fs.FS) error { return manyExtents(f, *extents) }},
	} {
		if err := measure(*dir, c.name, c.size, *rounds, c.fill); err != nil {
			fmt.Fprintf(os.Stderr, "mounttime: %s: %v\n", c.name, err)
			os.Exit(1)
		}
	}
}

func measure(dir, name string, size int64, rounds int, fill func(*fs.FS) error) error {
	tmp, err := os.MkdirTemp(dir, "mounttime")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	path := filepath.Join(tmp, "region")
	if err := pmem.Create(path, size, true); err != nil {
		return err
	}
	region, err := pmem.Open(path, pmem.Options{})
	if err != nil {
		return err
	}
	defer region.Close()
	if _, err := fs.Mkfs(region, fs.MkfsOptions{}); err != nil {
		return err
	}
	filesystem, err := fs.Mount(region, fs.Options{})
	if err != nil {
		return err
	}
	if err := fill(filesystem); err != nil {
		return err
	}
	if err := filesystem.Unmount(); err != nil {
		return err
	}
	owner, _, err := fs.ReadOwner(region, filesystem.Super())
	if err != nil {
		return err
	}
	var took [3][]time.Duration // of mounts with a scan, mounts with the map, unmounts
	for i := range 2 * rounds {
		start := time.Now()
		filesystem, err := fs.Mount(region, fs.Options{Scan: i%2 == 0})
		if err != nil {
			return err
		}
		took[i%2] = append(took[i%2], time.Since(start))
		if filesystem.Stats().FreeMap == (i%2 == 0) {
			return fmt.Errorf("round %d: mounted by the free map: %t", i, i%2 == 0)
		}
		start = time.Now()
		if err := filesystem.Unmount(); err != nil {
			return err
		}
		took[2] = append(took[2], time.Since(start))
	}
	median := func(times []time.Duration) float64 {
		slices.Sort(times)
		return times[len(times)/2].Seconds() * 1e3
	}
	scan, saved := median(took[0]), median(took[1])
	fmt.Printf("%-22s %11.2f %8.2f %7.0f %12.2f %11d\n", name, scan, saved, scan/saved, median(took[2]), owner.Map.Len)
	return nil
}

// manyFiles creates n files of one block, a thousand in each directory.
func manyFiles(f *fs.FS, n int) error {
	var ctx fs.Caller
	var d, a fs.Attr
	for i := range n {
		if i%1000 == 0 {
			if e := f.Mkdir(&ctx, 1, fmt.Sprint(i/1000), 0o755, &d); e != 0 {
				return e
			}
		}
		if e := f.Mknod(&ctx, d.Ino, fmt.Sprint(i), syscall.S_IFREG|0o644, 0, &a); e != 0 {
			return e
		}
		if _, e := f.Write(&ctx, a.Ino, 0, []byte("x")); e != 0 {
			return e
		}
		f.Forget(a.Ino, 1)
	}
	return nil
}

// manyExtents makes a file of about n extents: it allocates nearly all space, and punches holes.
func manyExtents(f *fs.FS, n int) error {
	var ctx fs.Caller
	var a fs.Attr
	if e := f.Mknod(&ctx, 1, "fragmented", syscall.S_IFREG|0o644, 0, &a); e != 0 {
		return e
	}
	size := int64(f.Stats().AvailableBlocks) << 12 / 16 * 15
	if e := f.Fallocate(&ctx, a.Ino, 0, 0, size); e != 0 {
		return e
	}
	step := max(8192, size/int64(n)&^4095)
	for off := int64(0); off+step <= size; off += step {
		if e := f.Fallocate(&ctx, a.Ino, fs.FallocPunchHole|fs.FallocKeepSize, off, 4096); e != 0 {
			return e
		}
	}
	return nil
}
