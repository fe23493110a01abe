package main

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/pmem"
)

// Programs that map a region without its daemon are seen by their locks, which keep the memory, and
// by /proc, which has their names. Only the locks decide; what /proc shows is for messages.

// lookLimit is how long looking into the processes may take. The kernel lets nobody read the
// mappings of a process that is just changing them, which it may do for long.
const lookLimit = 3 * time.Second

// limited returns what f returns, or the zero value if that takes longer than lookLimit.
func limited[T any](f func() T) (v T) {
	c := make(chan T, 1)
	go func() { c <- f() }()
	select {
	case v = <-c:
	case <-time.After(lookLimit):
	}
	return v
}

// regionUser is a process that maps a region, or has it open; scripts rely on its fields.
type regionUser struct {
	PID      int    `json:"pid"`
	Command  string `json:"command"`
	Mapped   int64  `json:"mapped_bytes"` // of the region, in whole pages; 0: it only has the region open
	Writable bool   `json:"writable"`     // maps to write
}

// regionUsers lists the processes that map the region at path or have it open, except this one and
// the ones given. Processes that this one may not look into, or cannot see, are missing.
func regionUsers(path string, except ...int) []regionUser {
	f, err := find(path)
	if err != nil || !f.region() {
		return nil
	}
	return limited(func() []regionUser { return f.users(append(except, os.Getpid())...) })
}

// users lists the processes that map f or have it open, except the ones given. Of a device, other
// nodes count, too, such as those that containers have.
func (f *found) users(except ...int) []regionUser {
	major, minor := int(unix.Major(f.dev)), int(unix.Minor(f.dev))
	if f.mount != nil { // see lockHolder
		major, minor = f.mount.Major, f.mount.Minor
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var all []regionUser
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || slices.Contains(except, pid) {
			continue
		}
		u, uses := regionUser{PID: pid}, false
		eachMapping(pid, func(m *mapping) {
			if m.major == major && m.minor == minor && m.ino == f.ino || f.mode&unix.S_IFMT == unix.S_IFCHR && f.is(m.file(pid)) {
				uses, u.Mapped = true, u.Mapped+int64(m.hi-m.lo)
				u.Writable = u.Writable || strings.HasPrefix(m.perms, "rw")
			}
		})
		if uses || hasOpen(pid, f) {
			_, u.Command = processOf(pid)
			all = append(all, u)
		}
	}
	slices.SortStableFunc(all, func(a, b regionUser) int { return int(min(max(b.Mapped-a.Mapped, -1), 1)) })
	return all
}

// mapping is a line of /proc/PID/maps that is of a file.
type mapping struct {
	lo, hi       uint64 // addresses
	perms        string
	major, minor int // of the filesystem
	ino          uint64
	path         string // the kernel's, with its escapes
}

// file names the mapped file itself, whatever its path. It takes privileges to follow it.
func (m *mapping) file(pid int) string {
	return fmt.Sprintf("/proc/%d/map_files/%x-%x", pid, m.lo, m.hi)
}

// eachMapping calls f for each mapping of a file in a process, if it may be seen.
func eachMapping(pid int, f func(m *mapping)) {
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return
	}
	defer maps.Close()
	for s := bufio.NewScanner(maps); s.Scan(); {
		w := strings.SplitN(s.Text(), " ", 6) // addresses, permissions, offset, device, inode, path
		if len(w) < 5 || w[4] == "0" {
			continue
		}
		lo, hi, _ := strings.Cut(w[0], "-")
		major, minor, _ := strings.Cut(w[3], ":")
		number := func(text string, base int) uint64 {
			n, _ := strconv.ParseUint(text, base, 64) // the kernel's are well formed
			return n
		}
		m := mapping{lo: number(lo, 16), hi: number(hi, 16), perms: w[1], major: int(number(major, 16)), minor: int(number(minor, 16)), ino: number(w[4], 10)}
		if len(w) == 6 {
			m.path = strings.TrimLeft(w[5], " ")
		}
		f(&m)
	}
}

// is reports whether a name leads to the same file, or a node of the same device. The name is one
// of /proc, which leads there directly, and no filesystem is asked.
func (f *found) is(name string) bool {
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, name, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE|unix.STATX_INO, &st) != nil {
		return false
	}
	if f.mode&unix.S_IFMT == unix.S_IFCHR {
		return st.Mode&unix.S_IFMT == unix.S_IFCHR && unix.Mkdev(st.Rdev_major, st.Rdev_minor) == f.rdev
	}
	return unix.Mkdev(st.Dev_major, st.Dev_minor) == f.dev && st.Ino == f.ino
}

// eachOpen calls f for each open file of a process, if it may be seen, whose name want accepts. It
// asks no filesystem.
func eachOpen(pid int, want func(path string) bool, f func(ino uint64, mount int, path string)) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	d, err := os.Open(dir)
	if err != nil {
		return
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	for _, n := range names {
		path, err := os.Readlink(dir + "/" + n)
		if err != nil || !want(strings.TrimSuffix(path, deletedSuffix)) {
			continue
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, n))
		if err != nil {
			continue
		}
		ino, mount := uint64(0), 0
		for line := range strings.Lines(string(b)) {
			key, value, _ := strings.Cut(line, ":")
			switch value = strings.TrimSpace(value); key {
			case "ino":
				ino, _ = strconv.ParseUint(value, 10, 64)
			case "mnt_id":
				mount, _ = strconv.Atoi(value)
			}
		}
		f(ino, mount, path)
	}
}

// deletedSuffix is what the kernel adds to the path of an open file that has no name.
const deletedSuffix = " (deleted)"

// hasOpen reports whether a process has f open, under whatever name.
func hasOpen(pid int, f *found) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	d, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	return slices.ContainsFunc(names, func(n string) bool { return f.is(dir + "/" + n) })
}

// filesOf adds the paths of the files on a mount that a process maps or has open to names, by inode
// number.
func filesOf(pid int, m *mountinfo.Info, names map[uint64]string) {
	add := func(ino uint64, path string) {
		if names[ino] == "" {
			names[ino] = path
		}
	}
	eachMapping(pid, func(x *mapping) {
		if x.major == m.Major && x.minor == m.Minor {
			add(x.ino, strings.ReplaceAll(x.path, `\012`, "\n"))
		}
	})
	eachOpen(pid, func(path string) bool { return strings.HasPrefix(path, m.Mountpoint+"/") }, func(ino uint64, _ int, path string) {
		add(ino, path)
	})
}

// leased is what programs have locked of a region.
type leased struct {
	Bytes  int64 // of the region; blocks that several programs have locked count once
	Grants int   // identities; several that are next to each other on one descriptor count each
}

func (l *leased) any() bool { return l.Bytes > 0 || l.Grants > 0 }

// locksOn tells which locks are on a region. pmem.Region and pmem.FileLocks do.
type locksOn interface {
	Locks(off, n int64, f func(lo, hi int64) bool) error
}

// mostLocks bounds how many locks are listed: a few seconds, and more than a daemon lets programs
// take.
const mostLocks = 16384

// leasedOf lists the locks of programs on a region, or on a file that was one.
func leasedOf(locks locksOn) (*leased, error) {
	l, n := &leased{}, 0
	lo, hi := protocol.Identities()
	err := locks.Locks(0, lo-3, func(a, b int64) bool { // before the byte that a daemon locks to try
		l.Bytes += b - a
		n++
		return n < mostLocks
	})
	if err != nil {
		return nil, err
	}
	n = 0
	err = locks.Locks(lo, hi-lo, func(a, b int64) bool {
		l.Grants += int(b - a)
		n++
		return n < mostLocks
	})
	return l, err
}

// leasedAt is leasedOf for the region at path.
func leasedAt(path string) (*leased, error) {
	f, fd, err := findOpen(path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if !f.region() {
		return nil, fmt.Errorf("%s is neither a file nor a device-dax", path)
	}
	if err := f.answering(fd); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return leasedOf(pmem.FileLocks{File: file})
}

// usersText says who maps a region, as the end of a sentence.
func usersText(users []regionUser) string {
	const most = 4
	var words []string
	for i, u := range users {
		switch {
		case i == most:
			words = append(words, fmt.Sprintf("and %d others", len(users)-most))
		case i > most:
		case u.Mapped == 0:
			words = append(words, fmt.Sprintf("process %d (%s) has it open", u.PID, visible(u.Command)))
		default:
			words = append(words, fmt.Sprintf("process %d (%s) maps %s", u.PID, visible(u.Command), formatSize(u.Mapped)))
		}
	}
	if len(words) == 0 {
		return "by processes that cannot be seen from here"
	}
	return strings.Join(words, ", ")
}

// mappedError is returned for a region that programs map: a change of it would give them the blocks
// of other files.
type mappedError struct {
	path, what string // what would have been done, such as "formatting it"
	bytes      int64
	users      []regionUser
	also       string // another way out
}

func (e *mappedError) Error() string {
	return fmt.Sprintf("region %s: programs still map %s of the files on it (%s), and %s would give that memory to other files; end them first%s",
		e.path, formatSize(e.bytes), usersText(e.users), e.what, e.also)
}

// unmapped fails with a mappedError if programs map the region.
func unmapped(path string, locks locksOn, what, also string) error {
	l, err := leasedOf(locks)
	if err != nil {
		return fmt.Errorf("region %s: %w", path, err)
	}
	if !l.any() {
		return nil
	}
	return &mappedError{path, what, l.Bytes, regionUsers(path), also}
}

// stillMapped says which programs map a region, as a sentence; "" if none does or that cannot be
// found out.
func stillMapped(path string, except ...int) string {
	l, err := leasedAt(path)
	if err != nil || !l.any() {
		return ""
	}
	return fmt.Sprintf("programs still map %s of region %s (%s)", formatSize(l.Bytes), path, usersText(regionUsers(path, except...)))
}
