package pmem

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Range is a part of a region, in bytes.
type Range struct{ Off, Len int64 }

// BadRanges returns the memory of the region that the kernel knows to be poisoned, by offset in the
// region. It is nil if the kernel keeps no list for this kind of region. The list has only the
// memory that was found so far.
func (r *Region) BadRanges() ([]Range, error) {
	var bad []Range
	var err error
	switch {
	case r.closed:
		return nil, r.refuse("BadRanges", 0, 0, false)
	case r.kind == KindDevDax:
		bad, err = devDaxBad(r.daxDir, r.sysfs)
	case r.kind == KindFSDax:
		bad, err = fsDaxBad(r.file, r.sysfs, r.size)
	}
	if err != nil {
		return nil, fmt.Errorf("pmem: bad ranges of %s: %w", r.path, err)
	}
	return clip(bad, r.size), nil
}

// devDaxBad translates the bad-block list of the memory region that contains the device. Its
// sectors count from that region's start. Both have their physical start address in sysfs. Memory
// other than an NVDIMM has no list.
func devDaxBad(dir, sysfs string) ([]Range, error) {
	top, err := filepath.EvalSymlinks(sysfs)
	if err != nil {
		return nil, err
	}
	region := filepath.Dir(dir)
	for ; ; region = filepath.Dir(region) {
		if region == top || region == filepath.Dir(region) {
			return nil, nil
		}
		if _, err := os.Stat(filepath.Join(region, "badblocks")); err == nil {
			break
		}
	}
	bad, err := readBadblocks(filepath.Join(region, "badblocks"))
	if err != nil || len(bad) == 0 {
		return nil, err
	}
	devStart, err := sysfsNumber(filepath.Join(dir, "resource"))
	if err != nil {
		return nil, err
	}
	regionStart, err := sysfsNumber(filepath.Join(region, "resource"))
	if err != nil {
		return nil, err
	}
	for i := range bad {
		bad[i].Off -= devStart - regionStart
	}
	return bad, nil
}

// fsDaxBad translates the bad-block list of the block device below the filesystem, through the
// file's extents. A filesystem without a block device of its own has no list.
func fsDaxBad(f *os.File, sysfs string, size int64) ([]Range, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	dev, err := filepath.EvalSymlinks(filepath.Join(sysfs, "dev/block", fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))))
	if err != nil {
		return nil, nil
	}
	first := int64(0)
	if _, err := os.Stat(filepath.Join(dev, "partition")); err == nil {
		start, err := sysfsNumber(filepath.Join(dev, "start"))
		if err != nil {
			return nil, err
		}
		first, dev = start*sectorSize, filepath.Dir(dev)
	}
	bad, err := readBadblocks(filepath.Join(dev, "badblocks"))
	if err != nil || len(bad) == 0 {
		return nil, err
	}
	extents, err := fileExtents(f, size)
	if err != nil {
		return nil, err
	}
	var out []Range
	for _, e := range extents {
		for _, b := range bad {
			lo := max(b.Off-first, e.physical)
			hi := min(b.Off-first+b.Len, e.physical+e.length)
			if lo < hi {
				out = append(out, Range{Off: e.logical + lo - e.physical, Len: hi - lo})
			}
		}
	}
	return out, nil
}

const sectorSize = 512 // bytes; the unit of badblocks

// readBadblocks reads lines of "first sector, number of sectors". A missing file is an empty list.
func readBadblocks(path string) ([]Range, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var bad []Range
	for line := range strings.Lines(string(b)) {
		var first, n int64
		if _, err := fmt.Sscan(line, &first, &n); err != nil || first < 0 || n < 0 {
			return nil, fmt.Errorf("%s: found %q, a first sector and a number of sectors were expected", path, strings.TrimSpace(line))
		}
		bad = append(bad, Range{Off: first * sectorSize, Len: n * sectorSize})
	}
	return bad, nil
}

// clip sorts the ranges, cuts off the parts outside [0, size) bytes, and joins neighbours.
func clip(bad []Range, size int64) []Range {
	slices.SortFunc(bad, func(a, b Range) int { return cmp.Compare(a.Off, b.Off) })
	var out []Range
	for _, b := range bad {
		lo, hi := max(b.Off, 0), min(b.Off+b.Len, size)
		if lo >= hi {
			continue
		}
		if n := len(out) - 1; n >= 0 && lo <= out[n].Off+out[n].Len {
			out[n].Len = max(out[n].Len, hi-out[n].Off)
			continue
		}
		out = append(out, Range{Off: lo, Len: hi - lo})
	}
	return out
}
