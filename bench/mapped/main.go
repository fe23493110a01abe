// Command mapped shows what direct mapping gives for one file: it makes a file on a daxfsd mount,
// maps it by the package direct, and prints the pages that the kernel used and the speed beside
// read(2) and write(2).
//
//	go run ./bench/mapped [--size BYTES] FILE
//
// It must run as a user who may open the region.
package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct"
)

func main() {
	size := flag.Int64("size", 128<<20, "bytes of the file, a multiple of 2 MiB")
	flag.Parse()
	if flag.NArg() != 1 || *size <= 0 || *size%(2<<20) != 0 {
		fmt.Fprintln(os.Stderr, "usage: mapped [--size BYTES] FILE")
		os.Exit(2)
	}
	if err := run(flag.Arg(0), *size); err != nil {
		fmt.Fprintln(os.Stderr, "mapped:", err)
		os.Exit(1)
	}
}

func run(name string, size int64) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	d, err := direct.Open(f)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Grow(size); err != nil {
		return err
	}
	m, err := d.Map(0, size, direct.MapOptions{Write: true, PageSize: 2 << 20})
	if err != nil {
		return err
	}
	defer m.Close()
	rand.NewChaCha8([32]byte{}).Read(m.Bytes())
	if err := m.Flush(0, size); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for off := int64(0); off < size; off += 1 << 20 {
		if _, err := f.ReadAt(buf, off); err != nil {
			return err
		}
		if !bytes.Equal(buf, m.Bytes()[off:off+4096]) {
			return fmt.Errorf("read(2) of %s at %d does not see what was stored through the mapping", name, off)
		}
	}
	pages, err := pagesOf(m.Bytes())
	if err != nil {
		return err
	}
	fmt.Printf("pages: %s\n", pages)
	copied := func(p []byte, off int64) (int, error) { return copy(p, m.Bytes()[off:]), nil }
	for _, row := range []struct {
		what string
		ways []way
	}{
		{"read", []way{{"read(2)", f.ReadAt}, {"direct.ReadAt", d.ReadAt}, {"copy from the mapping", copied}}},
		{"write", []way{{"write(2)", f.WriteAt}, {"direct.WriteAt", d.WriteAt}}},
	} {
		fmt.Printf("4 KiB random %s:", row.what)
		for i, w := range row.ways {
			us, err := w.time(buf, size)
			if err != nil {
				return err
			}
			fmt.Printf("%s %s %.2f µs", strings.Repeat(",", min(i, 1)), w.name, us)
		}
		fmt.Println()
	}
	return nil
}

// way is one way to read or write a file.
type way struct {
	name string
	do   func(p []byte, off int64) (int, error)
}

// time returns the median time of a call at random offsets, in µs, over batches of a tenth of a
// second in all.
func (w way) time(buf []byte, size int64) (float64, error) {
	random := rand.New(rand.NewPCG(1, 1))
	var batches []float64
	for i, begun := 0, time.Now(); i < 10 || time.Since(begun) < time.Second/10; i++ {
		start := time.Now()
		for range 16 {
			if _, err := w.do(buf, random.Int64N(size/4096)*4096); err != nil {
				return 0, err
			}
		}
		batches = append(batches, float64(time.Since(start).Nanoseconds())/16e3)
	}
	slices.Sort(batches)
	return batches[len(batches)/2], nil
}

// pagesOf says which pages the kernel used to map b, all of which has been touched.
func pagesOf(b []byte) (string, error) {
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return "", err
	}
	defer smaps.Close()
	start := addressOf(b)
	end := start + uint64(len(b))
	var inside bool
	var kB, huge, pageKB int // of the areas of b: size, mapped by 2 MiB, page size of the last area
	s := bufio.NewScanner(smaps)
	for s.Scan() {
		var lo, hi uint64
		var v int
		line := s.Text()
		if n, _ := fmt.Sscanf(line, "%x-%x ", &lo, &hi); n == 2 {
			if inside = lo < end && hi > start; inside {
				kB += int(min(hi, end)-max(lo, start)) >> 10
			}
			continue
		}
		if !inside {
			continue
		}
		for _, key := range []string{"ShmemPmdMapped:", "FilePmdMapped:"} {
			if n, _ := fmt.Sscanf(line, key+" %d kB", &v); n == 1 {
				huge += v
			}
		}
		if n, _ := fmt.Sscanf(line, "KernelPageSize: %d kB", &v); n == 1 {
			pageKB = v
		}
	}
	switch pages := unix.Getpagesize() >> 10; {
	case kB == 0:
		return "", fmt.Errorf("/proc/self/smaps does not list the mapping")
	case pageKB > pages:
		return fmt.Sprintf("%d MiB mapped in pages of %d KiB", kB>>10, pageKB), s.Err()
	case huge > 0:
		return fmt.Sprintf("%d MiB mapped, of these %d MiB in pages of 2 MiB", kB>>10, huge>>10), s.Err()
	default:
		return fmt.Sprintf("%d MiB mapped in pages of %d KiB: the region's filesystem has no larger ones", kB>>10, pages), s.Err()
	}
}
