package pmem

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	lineSize = 64   // bytes the processor writes back at once
	pageSize = 4096 // the smallest piece of a region, on every machine
)

// MaxSize is the largest region in bytes, 32 TiB: it is mapped twice, and programs have 128 TiB of
// addresses on amd64, in pieces.
const MaxSize = 32 << 40

// Options of Open. The zero value opens for reading and writing, exclusively.
type Options struct {
	// ReadOnly makes no writable mapping; what would store returns ErrReadOnly.
	ReadOnly bool

	// Shared takes no lock, so that a region can be looked at while another
	// process has it mounted. Needs ReadOnly.
	Shared bool

	// SysfsRoot replaces /sys. Tests have their own.
	SysfsRoot string

	hooks hooks // tests only
}

// hooks let tests have a device where there is none.
type hooks struct {
	stat    func(*unix.Stat_t)   // changes what the file is said to be
	statfs  func(*unix.Statfs_t) // changes what its filesystem is said to be
	mapSync func(fd int) error   // replaces the trial of MAP_SYNC
	noSync  bool                 // maps fsdax without MAP_SYNC

	noTmpfile bool // as on a filesystem without O_TMPFILE
}

// Region is a mapped region of persistent (or emulated) memory.
//
// States: open -> closed. Everything but Close and SetRecorder may be called
// from many goroutines at once; what they do to the same bytes is theirs to
// order. No field but rec changes between Open and Close.
type Region struct {
	// What the primitives need, on one line.
	w   []byte   // the private writable mapping; nil when read-only
	ro  []byte   // the PROT_READ mapping, which Bytes gives away
	rec Recorder // set before use

	size          int64   // bytes; a multiple of 4096
	wbase, robase uintptr // where the mappings start, to recognise their faults

	kind     Kind
	readOnly bool
	locked   bool // has the region's lock
	closed   bool
	align    int64  // mapping granule, bytes
	path     string // as given to Open
	file     *os.File
	memory   uint64 // inode number of a region without a file
	unmap    []func() error
	daxDir   string // sysfs directory of the device; KindDevDax only
	sysfs    string // root of sysfs

	// recMu makes a primitive and its report to the recorder one step.
	// It is not taken without a recorder.
	recMu sync.Mutex
}

// Open maps the region at path: a device-dax node, or a regular file. Unless
// o.Shared, it takes the region's lock or fails with ErrBusy.
func Open(path string, o Options) (*Region, error) {
	if o.Shared && !o.ReadOnly {
		return nil, fmt.Errorf("pmem: open %s: a region can only be shared read-only", path)
	}
	if o.SysfsRoot == "" {
		o.SysfsRoot = "/sys"
	}
	f, err := openSource(path, &o)
	if err != nil {
		return nil, err
	}
	if !o.Shared {
		if err := lock(f); err != nil {
			f.Close()
			return nil, err
		}
	}
	r, err := openRegion(f, path, &o)
	if err == nil {
		r.locked = !o.Shared
	}
	return r, err
}

// openRegion maps the open file f, and closes it if that fails.
func openRegion(f *os.File, path string, o *Options) (_ *Region, err error) {
	src, err := findSource(f, o)
	if err != nil {
		f.Close()
		return nil, err
	}
	r := &Region{
		kind: src.kind, size: src.size, align: src.align, readOnly: o.ReadOnly,
		path: path, file: f, daxDir: src.daxDir, sysfs: o.SysfsRoot,
	}
	if err := r.mapAll(o); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// lock takes the exclusive lock of the open file; it goes with the descriptor.
//
// The kernel keeps it per device node or inode: two nodes of one device have two
// locks, which is why the filesystem keeps an owner record as well.
func lock(f *os.File) error {
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err {
	case nil:
		return nil
	case unix.EWOULDBLOCK:
		return fmt.Errorf("pmem: %s: %w: another process holds its lock; is it mounted?", f.Name(), ErrBusy)
	default:
		return fmt.Errorf("pmem: lock %s: %w", f.Name(), err)
	}
}

// Size is the region's size in bytes: a multiple of 4096, and of Align on
// device-dax and hugetlbfs.
func (r *Region) Size() int64 { return r.size }

// Path is what Open was given.
func (r *Region) Path() string { return r.path }

// Kind tells where the region lives.
func (r *Region) Kind() Kind { return r.kind }

// Durability tells what a flushed and fenced store survives.
func (r *Region) Durability() Durability { return r.kind.durability() }

// Align is the mapping granule in bytes: what mappings given to programs must be
// multiples of. It is the device's align, hugetlbfs's page size, 2 MiB on fsdax,
// and else the host's page size (4096 or more).
func (r *Region) Align() int64 { return r.align }

// ReadOnly tells whether stores are refused.
func (r *Region) ReadOnly() bool { return r.readOnly }

// Locked tells whether the region has its lock: whether it was not opened Shared.
func (r *Region) Locked() bool { return r.locked }

// RegularFile tells whether the region is a file, which can be copied, and not a device.
func (r *Region) RegularFile() bool { return r.kind != KindDevDax && r.kind != KindMemory }

// memories counts the regions that NewMemory made: their inode numbers.
var memories atomic.Uint64

// Inode is the device number and the inode number of the open file or device node: what the kernel
// keeps the lock of. A region in memory has one that no other has, of device 0. 0, 0: unknown.
func (r *Region) Inode() (dev, ino uint64) {
	if r.file == nil {
		return 0, r.memory
	}
	var st unix.Stat_t
	if unix.Fstat(int(r.file.Fd()), &st) != nil {
		return 0, 0
	}
	return st.Dev, st.Ino
}

// CheckSize compares the region with the size its superblock claims, in bytes.
// It asks the kernel again, so it also sees a file truncated since Open. The
// error is ErrTruncated.
func (r *Region) CheckSize(want int64) error {
	size := r.size
	if r.file != nil && r.kind != KindDevDax {
		var st unix.Stat_t
		if err := unix.Fstat(int(r.file.Fd()), &st); err != nil {
			return fmt.Errorf("pmem: stat %s: %w", r.path, err)
		}
		size = min(size, st.Size)
	}
	if size < want {
		return fmt.Errorf("pmem: %s: %w: it has %d bytes, %d were expected", r.path, ErrTruncated, size, want)
	}
	return nil
}

// Sync writes a range back to the file's storage with msync and returns when it
// is there. Only DurableDaemon regions need it; elsewhere it does nothing.
func (r *Region) Sync(off, n int64) error {
	if !r.in(off, n) {
		return r.refuse("Sync", off, n, false)
	}
	if r.w == nil || n == 0 || r.Durability() != DurableDaemon {
		return nil
	}
	page := int64(os.Getpagesize())
	lo, hi := off&^(page-1), min(r.size, (off+n+page-1)&^(page-1))
	if err := unix.Msync(r.w[lo:hi], unix.MS_SYNC); err != nil {
		return fmt.Errorf("pmem: sync %d bytes at offset %d of %s: %w", n, off, r.path, err)
	}
	return nil
}

// Close unmaps the region and releases its lock. It does not sync. Nobody may
// use the region, or a slice that Bytes gave, any more: stray calls of the
// primitives fail, stray slices fault.
func (r *Region) Close() error {
	if r.closed {
		return nil
	}
	var first error
	for _, f := range r.unmap {
		if err := f(); err != nil && first == nil {
			first = fmt.Errorf("pmem: unmap %s: %w", r.path, err)
		}
	}
	if r.file != nil {
		if err := r.file.Close(); err != nil && first == nil {
			first = fmt.Errorf("pmem: close %s: %w", r.path, err)
		}
	}
	r.closed, r.size = true, 0
	r.w, r.ro, r.unmap, r.wbase, r.robase = nil, nil, nil, 0, 0
	return first
}

// in tells whether n bytes at off lie in the region.
func (r *Region) in(off, n int64) bool {
	return off >= 0 && n >= 0 && off <= r.size-n
}
