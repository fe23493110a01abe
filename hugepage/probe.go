package hugepage

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ErrProbe reports that PageSize could not find out the page size of a mapping.
var ErrProbe = errors.New("hugepage: page size of the mapping not known")

// How PageSize found the size.
const (
	BySmaps  = "smaps"  // from /proc/self/smaps
	ByFaults = "faults" // by counting page faults
)

// probeSpan bounds how many bytes PageSize touches. With a fault for each small page, these take a
// few milliseconds.
const probeSpan = 64 << 20

// PageSize returns the size in bytes of the largest pages that the kernel uses for a mapping of
// this process, and how that was found. /proc/self/smaps has the size for hugetlbfs, device-dax and
// transparent huge pages. If smaps says 4 KiB, as it always does on a filesystem mounted with DAX,
// PageSize counts faults if touch is set. It drops the page-table entries of the first 64 MiB
// (MADV_DONTNEED; the content of a shared mapping stays), and reads one byte in each 4 KiB. In a
// file on tmpfs, that allocates holes.
//
// It returns ErrProbe if the slice is not in a mapping, or a part of it cannot be read.
func PageSize(mapping []byte, touch bool) (size int64, by string, err error) {
	if len(mapping) == 0 {
		return 0, "", fmt.Errorf("%w: it is empty", ErrProbe)
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return 0, "", fmt.Errorf("%w: %w", ErrProbe, err)
	}
	defer f.Close()
	if size, err = smapsPageSize(f, address(mapping)); err != nil {
		return 0, "", err
	}
	if size > BlockSize || !touch || len(mapping) < 1<<21 {
		return size, BySmaps, nil
	}
	size, err = faultPageSize(mapping[:min(len(mapping), probeSpan)])
	return size, ByFaults, err
}

// smapsPageSize returns the page size in bytes that smaps shows for the mapping that contains
// address at.
func smapsPageSize(r io.Reader, at uint64) (size int64, err error) {
	s := bufio.NewScanner(r)
	found := false
	for s.Scan() {
		if lo, hi, ok := smapsRange(s.Bytes()); ok {
			if found {
				break
			}
			found = lo <= at && at < hi
			continue
		}
		name, rest, ok := bytes.Cut(s.Bytes(), []byte(":"))
		if !found || !ok {
			continue
		}
		var kib int64
		if f := bytes.Fields(rest); len(f) > 0 {
			kib, _ = strconv.ParseInt(string(f[0]), 10, 64)
		}
		switch string(name) {
		case "KernelPageSize":
			size = max(size, kib<<10)
		case "ShmemPmdMapped", "FilePmdMapped", "AnonHugePages":
			if kib > 0 {
				size = max(size, BlockSize<<DefaultOrders.PMD)
			}
		}
	}
	if err := s.Err(); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrProbe, err)
	}
	if size == 0 {
		return 0, fmt.Errorf("%w: no mapping at %#x", ErrProbe, at)
	}
	return size, nil
}

// smapsRange parses a line that begins a mapping, and returns its addresses [lo, hi). It returns
// false for other lines.
func smapsRange(line []byte) (lo, hi uint64, ok bool) {
	addresses, _, _ := bytes.Cut(line, []byte(" "))
	from, to, ok := bytes.Cut(addresses, []byte("-"))
	if !ok {
		return 0, 0, false
	}
	lo, err1 := strconv.ParseUint(string(from), 16, 64)
	hi, err2 := strconv.ParseUint(string(to), 16, 64)
	return lo, hi, err1 == nil && err2 == nil
}

var touched atomic.Uint32 // so that the compiler keeps the reads

// faultPageSize returns the page size in bytes by the number of faults that reading a mapping
// takes.
func faultPageSize(b []byte) (size int64, err error) {
	b = b[:len(b)&^(BlockSize-1)]
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if e := recover(); e != nil {
			err = fmt.Errorf("%w: %v", ErrProbe, e)
		}
	}()
	if err := unix.Madvise(b, unix.MADV_DONTNEED); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrProbe, err)
	}
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &before); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrProbe, err)
	}
	for i := 0; i < len(b); i += BlockSize {
		touched.Add(uint32(b[i]))
	}
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &after); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrProbe, err)
	}
	return pageSizeOf(int64(len(b)), after.Minflt-before.Minflt+after.Majflt-before.Majflt), nil
}

// pageSizeOf returns the page size in bytes with which reading n bytes takes that many faults. The
// kernel may map several small pages on one fault (fault-around), but never several large ones.
func pageSizeOf(n, faults int64) int64 {
	for _, order := range [2]uint8{DefaultOrders.PUD, DefaultOrders.PMD} {
		size := int64(BlockSize) << order
		if n >= size && faults <= n/size+n/size/4+1 {
			return size
		}
	}
	return BlockSize
}
