package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct"
	"github.com/daxfsd/daxfsd/pmem"
)

// directRows lists the rows of direct mapping.
var directRows = []string{
	"direct/randread", "direct/randwrite", "direct/seqread", "direct/seqwrite",
	"direct/touch", "direct/map", "direct/map-extents", "direct/map-leases",
}

// The contenders of the rows direct/* beside filesystems: the Go client, and the limit, which is a
// copy or a non-temporal store and a fence in the same memory.
const (
	byClient = "direct"
	byMemory = "memory"
)

const (
	directExtents = 1000 // number of extents of the file of direct/map-extents
	directLeases  = 2000 // number of leases at once in direct/map-leases
	directSlices  = 20   // number of turns of each contender in a round
	maxBatches    = 1 << 18
)

// access is one way to the bytes of the data file.
type access struct {
	contender   string
	read, write func(p []byte, off int64) (int, error)
	file        string // the file that is mapped in direct/touch; "": none
	normal      func() int64
}

// directMapping measures a file's own memory in a program: by the package direct, by the same
// memory without it, by calls of the mount, and by calls of tmpfs, all from Go in one thread.
func (m *measurement) directMapping() error {
	small := m.rowsOf("ns", true, directRows[:2]...)
	large := m.rowsOf("MiB/s", false, directRows[2:4]...)
	touch := m.rowsOf("ms", true, directRows[4])
	maps := m.rowsOf("us", true, directRows[5:]...)
	rows := slices.Concat(small, large, touch, maps)
	if len(rows) == 0 {
		return nil
	}
	// Room for the file of many extents and the one that it is made of, and for metadata.
	region := m.conf.Mapped*17/16 + 192<<20
	names := m.wanted("daxfsd-uring", "daxfsd-dev", "tmpfs")
	if need := int64(len(names))*region + 1<<30; available() < need {
		for _, name := range append(names, byClient, byMemory) {
			unmeasured(rows, name, fmt.Sprintf("it takes %d MiB of memory, and only %d MiB are free", need>>20, available()>>20))
		}
		return nil
	}
	var all []*access
	var last *contender // the daxfsd that the client uses
	var started []*contender
	var release []func() error
	measure := func() error {
		for _, name := range names {
			err := m.try(0, "direct mapping", name, rows, func() error {
				t, err := m.newContender(m.ctx, name, "direct", region)
				if err != nil {
					return err
				}
				started = append(started, t)
				if err := t.start(m.ctx); err != nil {
					return err
				}
				file := filepath.Join(t.dir, "file")
				if err := fill(file, m.conf.Mapped); err != nil {
					return err
				}
				f, err := os.OpenFile(file, os.O_RDWR, 0)
				if err != nil {
					return err
				}
				release = append(release, f.Close)
				a := &access{contender: name, read: f.ReadAt, write: f.WriteAt, file: file}
				all = append(all, a)
				if t.daxfsd() {
					last = t
				}
				return a.populate(m.conf.Mapped)
			})
			if err != nil {
				return err
			}
		}
		if last == nil {
			for _, name := range []string{byClient, byMemory} {
				unmeasured(rows, name, "no daxfsd was selected, or could be mounted")
			}
		} else {
			for _, way := range []struct {
				name string
				open func(*contender) (*access, func() error, error)
			}{{byClient, m.openClient}, {byMemory, m.openMemory}} {
				err := m.try(0, "direct mapping", way.name, rows, func() error {
					a, end, err := way.open(last)
					if err != nil {
						return err
					}
					release = append(release, end)
					all = append(all, a)
					return a.populate(m.conf.Mapped)
				})
				if err != nil {
					return err
				}
			}
		}
		for round := range m.conf.Rounds {
			for _, x := range slices.Concat(small, large) {
				if err := m.try(round, x.Name, "all", []*row{x}, func() error { return m.accesses(x, all) }); err != nil {
					return err
				}
			}
			for _, a := range all {
				if len(touch) == 0 || a.contender == byMemory {
					continue
				}
				err := m.try(round, touch[0].Name, a.contender, touch, func() error { return m.touch(a, touch[0].cell(a.contender)) })
				if err != nil {
					return err
				}
			}
			if len(maps) == 0 || last == nil {
				continue
			}
			if err := m.try(round, "direct/map", byClient, maps, func() error { return m.maps(last, maps) }); err != nil {
				return err
			}
		}
		return nil
	}
	err := measure()
	for _, f := range slices.Backward(release) {
		if e := f(); err == nil {
			err = e
		}
	}
	for _, t := range started {
		if e := t.remove(); err == nil {
			err = e
		}
	}
	return err
}

// openClient opens the data file of t by the package direct.
func (m *measurement) openClient(t *contender) (*access, func() error, error) {
	d, err := openDirect(filepath.Join(t.dir, "file"))
	if err != nil {
		return nil, nil, err
	}
	return &access{contender: byClient, read: d.ReadAt, write: d.WriteAt, file: d.Name(), normal: d.Normal}, d.Close, nil
}

func openDirect(file string) (*direct.File, error) {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return direct.Open(f)
}

// openMemory maps the blocks of t's data file, without a lease: nothing moves them here.
func (m *measurement) openMemory(t *contender) (*access, func() error, error) {
	extents, err := m.extentsOf(filepath.Join(t.dir, "file"))
	if err != nil {
		return nil, nil, err
	}
	var st unix.Stat_t
	if err := unix.Stat(t.region, &st); err != nil {
		return nil, nil, err
	}
	r, err := pmem.OpenMapper(pmem.Identity{FileID: pmem.FileID{Dev: uint64(st.Dev), Ino: st.Ino}, Size: t.size, Granule: 4096, Path: t.region}, true)
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	desc, err := r.Open(true)
	if err != nil {
		return nil, nil, err
	}
	defer desc.Close()
	var parts []pmem.Part
	for _, x := range extents {
		parts = append(parts, pmem.Part{Off: int64(x.Region), At: int64(x.Logical), N: int64(x.Length)})
	}
	o := pmem.WindowOptions{Write: true, Size: m.conf.Mapped, Modulus: 2 << 20, Rest: parts[0].Off & (2<<20 - 1)}
	w, err := r.Window(desc, parts, o)
	if err != nil {
		return nil, nil, err
	}
	bytes := w.Bytes(0, m.conf.Mapped)
	return &access{
		contender: byMemory,
		read:      func(p []byte, off int64) (int, error) { return copy(p, bytes[off:]), nil },
		write: func(p []byte, off int64) (int, error) {
			err := w.NTStore(off, p)
			w.Fence()
			return len(p), err
		},
	}, w.Close, nil
}

// populate reads and writes the whole file once, so that page tables and windows are there.
func (a *access) populate(size int64) error {
	buf := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(buf)) {
		if _, err := a.read(buf, off); err != nil {
			return err
		}
		if _, err := a.write(buf, off); err != nil {
			return err
		}
	}
	return nil
}

// accesses measures a row of reads or writes on all contenders, in turns. A sample is the median
// over batches of accesses, each of which is much shorter than a slice of the scheduler.
func (m *measurement) accesses(x *row, all []*access) error {
	size, step := 4096, 64 // bytes of an access; accesses between two looks at the clock
	if x.Metric == "MiB/s" {
		size, step = 1<<20, 1
	}
	buf := make([]byte, size)
	turn := m.conf.Runtime / directSlices
	batches := make([][]float64, len(all)) // ns for each access
	for k := range batches {
		batches[k] = make([]float64, 0, maxBatches)
	}
	allocs, count := make([]uint64, len(all)), make([]uint64, len(all))
	for i := range directSlices {
		for k, a := range all {
			do := a.read
			if x.Name == "direct/randwrite" || x.Name == "direct/seqwrite" {
				do = a.write
			}
			var normal int64
			if a.normal != nil {
				normal = a.normal()
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			n := len(batches[k])
			var err error
			batches[k], err = repeat(do, buf, m.conf.Mapped, uint64(i), step, turn, batches[k])
			runtime.ReadMemStats(&after)
			n = (len(batches[k]) - n) * step
			if err != nil {
				return fmt.Errorf("%s: %w", a.contender, err)
			}
			if a.normal != nil && a.normal() != normal {
				return fmt.Errorf("%s: %d of %d calls went through the mount", a.contender, a.normal()-normal, n)
			}
			allocs[k] += after.Mallocs - before.Mallocs
			count[k] += uint64(n)
		}
		if err := m.ctx.Err(); err != nil {
			return err
		}
	}
	for k, a := range all {
		v := medianOf(batches[k])
		if x.Metric == "MiB/s" {
			v = float64(size) / (1 << 20) / v * 1e9
		}
		x.cell(a.contender).add(x.Metric, v)
		x.cell(a.contender).add("allocs_per_op", float64(allocs[k])/float64(count[k]))
	}
	return nil
}

// repeat calls do with buf for d, in batches of step calls: at random offsets, or if step is 1 one
// after the other from a random one on. All contenders get the same offsets. size is the bytes of
// the file. The result is batches, with the ns of a call in each batch added while there is room.
func repeat(do func([]byte, int64) (int, error), buf []byte, size int64, seed uint64, step int, d time.Duration, batches []float64) ([]float64, error) {
	places := uint64(size / int64(len(buf)))
	random := seed + 1
	place := func() uint64 {
		random = random*6364136223846793005 + 1442695040888963407
		return random >> 33
	}
	at := place() % places
	begun := time.Now()
	for last := begun; last.Sub(begun) < d && len(batches) < cap(batches); {
		for range step {
			k, err := do(buf, int64(at)*int64(len(buf)))
			if err != nil {
				return batches, err
			}
			if k != len(buf) {
				return batches, fmt.Errorf("%d bytes of %d", k, len(buf))
			}
			if step > 1 {
				at = place() % places
			} else if at++; at == places {
				at = 0
			}
		}
		now := time.Now()
		batches = append(batches, float64(now.Sub(last).Nanoseconds())/float64(step))
		last = now
	}
	return batches, nil
}

// touch maps the whole file and loads a byte of each 4 KiB, as a program does that needs all of it.
// It records the time and the page faults.
func (m *measurement) touch(a *access, c *cell) error {
	var bytes []byte
	var end func() error
	var faults int64
	var start time.Time
	if a.contender == byClient {
		d, err := openDirect(a.file)
		if err != nil {
			return err
		}
		defer d.Close()
		faults, start = faultsOfThread(), time.Now()
		mapping, err := d.Map(0, m.conf.Mapped, direct.MapOptions{})
		if err != nil {
			return err
		}
		bytes, end = mapping.Bytes(), mapping.Close
	} else {
		f, err := os.Open(a.file) // drops what the kernel has cached, with dax=always
		if err != nil {
			return err
		}
		defer f.Close()
		faults, start = faultsOfThread(), time.Now()
		if bytes, err = unix.Mmap(int(f.Fd()), 0, int(m.conf.Mapped), unix.PROT_READ, unix.MAP_SHARED); err != nil {
			return err
		}
		end = func() error { return unix.Munmap(bytes) }
	}
	var sum byte
	for off := 0; off < len(bytes); off += 4096 {
		sum += bytes[off]
	}
	took := time.Since(start)
	runtime.KeepAlive(sum)
	c.add("ms", took.Seconds()*1e3)
	c.add("faults", float64(faultsOfThread()-faults))
	return end()
}

// faultsOfThread returns how many page faults this thread has had.
func faultsOfThread() int64 {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &u)
	return u.Minflt + u.Majflt
}

// maps measures what a mapping costs before it is touched: GRANT, the locks, CONFIRM, mmap. Its
// rows: a file that is written, unshared and aligned, to write; one of many extents; and small
// mappings beside as many others as may be.
func (m *measurement) maps(t *contender, rows []*row) error {
	const times = 20
	for _, c := range []struct{ row, name string }{{"direct/map", "file"}, {"direct/map-extents", "pieces"}} {
		file, o, length := filepath.Join(t.dir, c.name), direct.MapOptions{Write: true}, m.conf.Mapped
		if c.name == "pieces" {
			length = directExtents * 4096
			if err := m.piecesIn(file, length); err != nil {
				return err
			}
		} else {
			o.PageSize = 2 << 20
		}
		d, err := openDirect(file)
		if err != nil {
			return err
		}
		var us []float64
		for range times {
			start := time.Now()
			mapping, err := d.Map(0, length, o)
			us = append(us, time.Since(start).Seconds()*1e6)
			if err == nil {
				err = mapping.Close()
			}
			if err != nil {
				d.Close()
				return err
			}
		}
		if err := d.Close(); err != nil {
			return err
		}
		record(rows, c.row, byClient, medianOf(us))
	}
	us, err := m.leasesAtOnce(filepath.Join(t.dir, "file"))
	if err != nil {
		return err
	}
	record(rows, "direct/map-leases", byClient, us)
	return nil
}

// piecesIn makes a file of length bytes in directExtents extents, unless it exists.
func (m *measurement) piecesIn(file string, length int64) error {
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	pieces, err := scatter(file, length, directExtents)
	if err != nil {
		return err
	}
	l, err := m.extentsOf(file)
	if err == nil && len(l) < pieces*9/10 { // by chance a few are adjacent
		err = fmt.Errorf("%s has %d extents", file, len(l))
	}
	return err
}

// leasesAtOnce maps directLeases ranges of a file at once, and returns the median time of the last
// hundred in µs.
func (m *measurement) leasesAtOnce(file string) (us float64, err error) {
	d, err := openDirect(file)
	if err != nil {
		return 0, err
	}
	var mappings []*direct.Mapping
	defer func() {
		for _, x := range mappings {
			if e := x.Close(); err == nil {
				err = e
			}
		}
		if e := d.Close(); err == nil {
			err = e
		}
	}()
	length := max(m.conf.Mapped/directLeases&^4095, 4096)
	var times []float64
	for i := range int64(directLeases) {
		start := time.Now()
		x, err := d.Map(i*length, length, direct.MapOptions{})
		if err != nil {
			return 0, fmt.Errorf("lease %d of %d: %w", i+1, directLeases, err)
		}
		times = append(times, time.Since(start).Seconds()*1e6)
		mappings = append(mappings, x)
	}
	return medianOf(times[len(times)-100:]), nil
}

// medianOf returns the upper median of samples, of which there is at least one.
func medianOf(samples []float64) float64 {
	s := slices.Sorted(slices.Values(samples))
	return s[len(s)/2]
}
