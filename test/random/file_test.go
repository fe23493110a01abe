package random

import (
	"fmt"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	remountEach = 2500 // operations between remounts
	tail        = 30   // number of operations that are shown after a difference
)

// run is a run of the file exerciser with one seed.
type run struct {
	dice
	t     *testing.T
	p     *place
	mode  string
	seed  uint64
	max   int64 // largest size of a file, in bytes
	n     int   // number of the current operation
	log   [tail]string
	files [2]*file
	buf   []byte // page-aligned
	made  int    // number of names used so far
	count map[string]int
	wait  map[string]time.Duration
}

// TestFile does random operations on two files of a mount and compares all that it reads with a
// model.
func TestFile(t *testing.T) {
	first := firstSeed(t)
	ms := modes(t)
	each := max(1, *ops / *seeds / len(ms))
	for _, mode := range ms {
		t.Run(mode, func(t *testing.T) {
			limit := time.Minute + time.Duration(*seeds*each)*20*time.Millisecond
			p := newPlace(t, mode, 512<<20, limit)
			for i := range *seeds {
				exercise(t, p, mode, first+uint64(i), each)
			}
		})
	}
}

// exercise runs one seed.
func exercise(t *testing.T, where *place, mode string, seed uint64, each int) {
	session := &run{dice: newDice(seed, 1), t: t, p: where, mode: mode, seed: seed, max: 4 << 20, count: map[string]int{}, wait: map[string]time.Duration{}}
	if seed%5 == 4 {
		session.max = 64 << 20
	}
	var err error
	if session.buf, err = unix.Mmap(-1, 0, 10<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(session.buf) }()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // SIGBUS in a mapping
	defer func() {
		if panicked := recover(); panicked != nil {
			if fault, ok := panicked.(error); ok {
				t.Errorf("%s", session.report("panic: "+fault.Error()+"\n"+string(debug.Stack())))
			} else {
				panic(panicked)
			}
		}
	}()
	defer session.closeAll() // deferred last, so run first: after a failure, the test must not keep the mount busy
	for i := range session.files {
		session.files[i] = &file{model: make([]byte, 0, session.max)}
		session.create(session.files[i])
	}
	start := time.Now()
	for session.n = 1; session.n <= each; session.n++ {
		session.step()
		if session.n%remountEach == 0 {
			session.remount()
		}
	}
	session.remount()
	took := time.Since(start)
	for _, closing := range session.files {
		session.closeFile(closing)
		session.ok(unix.Unlink(closing.name), "unlink")
	}
	t.Logf("dax=%s seed %d, up to %d MiB: %d operations in %.1f s, %.0f/s: %v", mode, seed, session.max>>20, each, took.Seconds(), float64(each)/took.Seconds(), session.count)
	if testing.Verbose() {
		var times []string
		for kind, spent := range session.wait {
			times = append(times, fmt.Sprintf("%s %.0f", kind, spent.Seconds()*1000))
		}
		t.Logf("milliseconds: %s", strings.Join(times, ", "))
	}
}

// note records the next operation for report.
func (r *run) note(format string, a ...any) {
	r.log[r.n%tail] = fmt.Sprintf("%7d ", r.n) + fmt.Sprintf(format, a...)
}

// report returns a message with what was found, the last operations and the command to reproduce
// it.
func (r *run) report(what string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "dax=%s, seed %d, operation %d: %s\nthe last operations:\n", r.mode, r.seed, r.n, what)
	for i := r.n + 1; i <= r.n+tail; i++ {
		if l := r.log[i%tail]; l != "" {
			fmt.Fprintln(&b, l)
		}
	}
	where := "-dax " + r.mode
	if r.mode == "dir" {
		where = "-dir " + *onDir
	}
	if *pollute {
		where += " -pollute"
	}
	if *msyncFirst {
		where += " -msync"
	}
	fmt.Fprintf(&b, "again: go test ./test/random -count=1 -v -run TestFile %s -seed %d -seeds 1 -ops %d\n", where, r.seed, r.n)
	return b.String()
}

func (r *run) failf(format string, a ...any) {
	r.t.Helper()
	r.t.Fatal(r.report(fmt.Sprintf(format, a...)))
}

func (r *run) ok(err error, call string) {
	if err != nil {
		r.t.Helper()
		r.failf("%s: %v", call, err)
	}
}

// create gives f a new, empty file.
func (r *run) create(f *file) {
	r.made++
	f.name = filepath.Join(r.p.dir, fmt.Sprintf("f%d-%d", r.seed, r.made))
	fd, err := retry(func() (int, error) {
		return unix.Open(f.name, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	})
	r.ok(err, "create")
	if r.mode == "inode" && r.made%2 == 0 { // the flag takes effect at the next open
		r.ok(setDAX(f.name), "chattr +x")
		r.ok(unix.Close(fd), "close")
		fd, err = retry(func() (int, error) { return unix.Open(f.name, unix.O_RDWR|unix.O_CLOEXEC, 0) })
		r.ok(err, "open")
	}
	f.handles = append(f.handles, handle{fd, unix.O_RDWR})
	f.model, f.claimed, f.orphan = f.model[:0], 0, 0
}

// setDAX sets FS_DAX_FL, as chattr +x does.
func setDAX(name string) error {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	const daxFlag = 0x02000000 // FS_DAX_FL
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags|daxFlag))
}

func (r *run) closeFile(f *file) {
	for _, m := range f.maps {
		_ = unix.Munmap(m.mem)
	}
	for _, h := range f.handles {
		_ = unix.Close(h.fd)
	}
	f.maps, f.handles = nil, nil
}

func (r *run) closeAll() {
	for _, f := range r.files {
		if f != nil {
			r.closeFile(f)
		}
	}
}

// remount closes all files, unmounts, checks, mounts, and compares the files.
func (r *run) remount() {
	start := time.Now()
	for _, f := range r.files {
		if f.orphan > 0 {
			r.whole(f)
			r.closeFile(f)
			r.create(f)
		}
		r.closeFile(f)
	}
	r.p.again()
	r.count["remount"]++
	for _, f := range r.files {
		r.open(f, unix.O_RDWR)
		r.whole(f)
	}
	r.wait["remount"] += time.Since(start)
}

// open adds a handle.
func (r *run) open(f *file, flags int) {
	fd, err := retry(func() (int, error) { return unix.Open(f.name, flags|unix.O_CLOEXEC, 0) })
	if err == unix.EINVAL && flags&unix.O_DIRECT != 0 {
		flags &^= unix.O_DIRECT
		fd, err = retry(func() (int, error) { return unix.Open(f.name, flags|unix.O_CLOEXEC, 0) })
	}
	r.ok(err, "open")
	f.handles = append(f.handles, handle{fd, flags})
}

// whole compares the whole content of the file, its size and its blocks.
func (r *run) whole(f *file) {
	r.t.Helper()
	h := f.handles[0]
	for _, x := range f.handles {
		if x.flags&unix.O_DIRECT == 0 {
			h = x
		}
	}
	for off := int64(0); off < f.size(); {
		n := min(f.size()-off, 4<<20)
		got, err := retry(func() (int, error) { return unix.Pread(h.fd, r.buf[:n], off) })
		r.ok(err, "pread of all")
		if got == 0 || h.flags&unix.O_DIRECT == 0 && int64(got) != n {
			r.failf("pread of all: %d of %d bytes at %d of %d", got, n, off, f.size())
		}
		if d := differs(off, r.buf[:got], f.model[off:off+int64(got)]); d != "" {
			r.failf("%s, the whole file: %s", filepath.Base(f.name), d)
		}
		off += int64(got)
	}
	r.writeBack(f)
	r.stat(f, true)
	r.holes(f, 0, true)
}

// stat compares size, links and blocks; with all, also that all bytes that are not zero have
// blocks.
func (r *run) stat(f *file, all bool) {
	r.t.Helper()
	var st unix.Stat_t
	r.ok(do(func() error { return unix.Fstat(f.handles[0].fd, &st) }), "fstat")
	if st.Size != f.size() {
		r.failf("%s has %d bytes, want %d", filepath.Base(f.name), st.Size, f.size())
	}
	links := uint64(1)
	if f.orphan > 0 {
		links = 0
	}
	if uint64(st.Nlink) != links {
		r.failf("%s has %d links, want %d", filepath.Base(f.name), st.Nlink, links)
	}
	most := (f.claimed+page-1)/page*8 + 64 + f.claimed/page/8 // including metadata blocks
	if r.p.Mount != nil && st.Blocks > most {
		r.failf("%s has %d blocks of 512, at most %d of them explained (size %d, allocated up to %d)", filepath.Base(f.name), st.Blocks, most, f.size(), f.claimed)
	}
	if all {
		need := int64(0)
		for o := int64(0); o < f.size(); o += page {
			if !isZero(f.model[o:min(o+page, f.size())]) {
				need += 8
			}
		}
		if r.p.Mount != nil && st.Blocks < need {
			r.failf("%s has %d blocks of 512 and needs %d for its content", filepath.Base(f.name), st.Blocks, need)
		}
	}
}

// holes walks SEEK_DATA and SEEK_HOLE from byte off, and requires that holes read as zeros. It
// takes a few steps, or with all goes to the end of file.
func (r *run) holes(f *file, off int64, all bool) {
	r.t.Helper()
	h := f.handles[0]
	seek := func(off int64, how int) (n int64, err error) {
		_, err = retry(func() (int, error) { n, err = unix.Seek(h.fd, off, how); return 0, err })
		return n, err
	}
	for steps := 0; all || steps < 4; steps++ {
		data, err := seek(off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			data = f.size()
		} else if r.ok(err, "SEEK_DATA"); data < off || data >= f.size() {
			r.failf("SEEK_DATA from %d of %d: %d", off, f.size(), data)
		}
		if off < data && !isZero(f.model[off:data]) {
			r.failf("SEEK_DATA calls [%d, %d) a hole: %s", off, data, differs(off, make([]byte, data-off), f.model[off:data]))
		}
		if data >= f.size() {
			return
		}
		hole, err := seek(data, unix.SEEK_HOLE)
		if r.ok(err, "SEEK_HOLE"); hole <= data || hole > f.size() {
			r.failf("SEEK_HOLE from %d of %d: %d", data, f.size(), hole)
		}
		if off = hole; off == f.size() {
			return
		}
	}
}
