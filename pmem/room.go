package pmem

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// RoomError reports storage that was not allocated because there is not enough. It is ErrNoRoom,
// and ENOSPC.
type RoomError struct {
	Path       string // path of the region
	Need, Free int64  // bytes; Free is without the share that is kept for others
	Where      string // the place that has only Free bytes
}

// Error names the region, the bytes that it needs, and the place that has too few.
func (e *RoomError) Error() string {
	return fmt.Sprintf("pmem: %s: %d bytes are needed, and %s has %d free", e.Path, e.Need, e.Where, e.Free)
}

// Is makes errors.Is(err, ErrNoRoom) true.
func (e *RoomError) Is(target error) bool { return target == ErrNoRoom || target == unix.ENOSPC }

// kept is the divisor of memory: a region in memory leaves 1/kept to others.
const kept = 32

// checkRoom checks whether a file can have size bytes of storage, before any are allocated. Memory
// needs this check: the kernel gives it to tmpfs until it starts to kill processes.
func checkRoom(f *os.File, size int64) error {
	var st unix.Stat_t
	var fs unix.Statfs_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("pmem: stat %s: %w", f.Name(), err)
	}
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return fmt.Errorf("pmem: statfs %s: %w", f.Name(), err)
	}
	e := &RoomError{Path: f.Name(), Need: max(0, size-st.Blocks*512), Free: math.MaxInt64}
	if fs.Blocks > 0 { // 0: the filesystem has no limit
		e.least("its filesystem", saturated(fs.Bavail, uint64(fs.Bsize)))
	}
	switch uint32(fs.Type) {
	case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC:
		e.memory("/proc")
	case unix.HUGETLBFS_MAGIC:
		e.hugePages("/sys/kernel/mm/hugepages", int64(fs.Bsize))
	}
	if e.Need > e.Free {
		return e
	}
	return checkFileLimit(f, size)
}

// checkFileLimit compares a file's size in bytes with RLIMIT_FSIZE, beyond which the kernel ends
// the process.
func checkFileLimit(f *os.File, size int64) error {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_FSIZE, &l) == nil && uint64(size) > l.Cur {
		return fmt.Errorf("pmem: %s: %w: %d bytes are more than this process's limit of %d for a file (ulimit -f)", f.Name(), unix.EFBIG, size, l.Cur)
	}
	return nil
}

// least records a place that has free bytes left, if it has the least so far.
func (e *RoomError) least(where string, free int64) {
	if free = max(0, free); free < e.Free {
		e.Where, e.Free = where, free
	}
}

// saturated returns n times unit bytes, at most math.MaxInt64.
func saturated(n, unit uint64) int64 {
	if unit > 0 && n > math.MaxInt64/unit {
		return math.MaxInt64
	}
	return int64(n * unit)
}

// memory records how many bytes the machine and the control groups of this process have left.
func (e *RoomError) memory(proc string) {
	info := numbers(filepath.Join(proc, "meminfo"))
	if available, ok := info["MemAvailable"]; ok {
		e.least("the machine's memory", (available-info["MemTotal"]/kept)<<10)
	}
	for _, g := range memoryGroups(proc) {
		free, ok := g.free()
		if ok {
			e.least("the memory of the control group "+g.dir, free)
		}
	}
}

// memoryGroup is a control group with a limit to its memory.
type memoryGroup struct {
	dir                      string
	limit, usage             string // names of its files
	inactiveFile, activeFile string // lines of memory.stat: the page cache, which can be reclaimed
}

// free returns how many bytes the group has left; ok is false if it has no limit.
func (g *memoryGroup) free() (bytes int64, ok bool) {
	limit, ok := number(filepath.Join(g.dir, g.limit))
	usage, ok2 := number(filepath.Join(g.dir, g.usage))
	if !ok || !ok2 {
		return 0, false
	}
	stat := numbers(filepath.Join(g.dir, "memory.stat"))
	used := max(0, usage-stat[g.inactiveFile]-stat[g.activeFile])
	return limit - limit/kept - used, true
}

// memoryGroups returns the control groups that limit the memory of this process: its own and its
// ancestors, in both versions of the interface.
func memoryGroups(proc string) (all []memoryGroup) {
	b, err := os.ReadFile(filepath.Join(proc, "self/cgroup"))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3) // hierarchy, controllers, path
		if len(f) != 3 {
			continue
		}
		g := memoryGroup{limit: "memory.max", usage: "memory.current", inactiveFile: "inactive_file", activeFile: "active_file"}
		kind := "cgroup2"
		if f[1] != "" {
			g = memoryGroup{limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", inactiveFile: "total_inactive_file", activeFile: "total_active_file"}
			kind = "cgroup"
			if !hasWord(f[1], "memory") {
				continue
			}
		}
		mount, root := groupMount(proc, kind)
		if mount == "" {
			continue
		}
		below, inside := strings.CutPrefix(f[2], strings.TrimSuffix(root, "/"))
		if !inside {
			below = "/" // in a container, the mount shows only its own group
		}
		for dir := filepath.Join(mount, below); strings.HasPrefix(dir+"/", mount+"/"); dir = filepath.Dir(dir) {
			g.dir = dir
			all = append(all, g)
		}
	}
	return all
}

// groupMount returns where the hierarchy that limits memory is mounted, and which group is the root
// of that mount.
func groupMount(proc, kind string) (mount, root string) {
	f, err := os.Open(filepath.Join(proc, "self/mountinfo"))
	if err != nil {
		return "", ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		left, right, ok := strings.Cut(s.Text(), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if ok && len(l) > 4 && len(r) > 2 && r[0] == kind && (kind == "cgroup2" || hasWord(r[2], "memory")) {
			return l[4], l[3]
		}
	}
	return "", ""
}

// hasWord reports whether a comma-separated list contains word.
func hasWord(list, word string) bool { return strings.Contains(","+list+",", ","+word+",") }

// hugePages records how many bytes the kernel has left for hugetlbfs in pages of size bytes.
func (e *RoomError) hugePages(sysfs string, size int64) {
	dir := filepath.Join(sysfs, fmt.Sprintf("hugepages-%dkB", size>>10))
	n := func(name string) int64 { v, _ := number(filepath.Join(dir, name)); return v }
	if _, ok := number(filepath.Join(dir, "free_hugepages")); ok {
		pages := n("free_hugepages") - n("resv_hugepages") + max(0, n("nr_overcommit_hugepages")-n("surplus_hugepages"))
		e.least(fmt.Sprintf("the kernel's pool of %d KiB pages (vm.nr_hugepages)", size>>10), saturated(uint64(max(0, pages)), uint64(size)))
	}
}

// number reads a file of one number. ok is false if it holds no number, as a limit that is "max".
func number(path string) (n int64, ok bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n, err == nil
}

// numbers reads a file of lines of a name, with or without a colon, and a number.
func numbers(path string) map[string]int64 {
	all := map[string]int64{}
	b, _ := os.ReadFile(path)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 {
			if n, err := strconv.ParseInt(f[1], 10, 64); err == nil {
				all[strings.TrimSuffix(f[0], ":")] = n
			}
		}
	}
	return all
}
