package pmem

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	lineSize = 64   // bytes that the processor writes back at once
	pageSize = 4096 // bytes of the smallest piece of a region, on every machine
)

// MaxSize is the largest size of a region in bytes, 32 TiB. The region is mapped twice, and a
// process on amd64 has 128 TiB of addresses, in several pieces.
const MaxSize = 32 << 40

// Options are the options of Open. The zero value opens for reading and writing, exclusively.
type Options struct {
	// ReadOnly makes no writable mapping: primitives that store return ErrReadOnly.
	ReadOnly bool

	// Shared takes no lock, so that a region can be read while another process has it mounted. It
	// needs ReadOnly.
	Shared bool

	// SysfsRoot is used instead of /sys, in tests.
	SysfsRoot string

	hooks hooks // tests only
}

// hooks let tests simulate a device that the machine does not have.
type hooks struct {
	stat    func(*unix.Stat_t)   // changes the result of stat
	statfs  func(*unix.Statfs_t) // changes the result of statfs
	mapSync func(fd int) error   // replaces tryMapSync
	noSync  bool                 // maps fsdax without MAP_SYNC

	noTmpfile bool // behaves as on a filesystem without O_TMPFILE
}

// Region is a mapped region of persistent (or emulated) memory.
//
// States: open -> closed. All methods but Close and SetRecorder may be called from several
// goroutines at once; callers order their accesses to the same bytes. No field but rec changes
// between Open and Close.
type Region struct {
	// The fields that the primitives need, on one cache line.
	mapped          // its mappings
	rec    Recorder // set before the region is used

	size int64 // bytes; a multiple of 4096

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

	// recMu makes a primitive and its report to the recorder one step. It is taken only if there is
	// a recorder.
	recMu sync.Mutex
}

// Open maps the region at path: a device-dax node, or a regular file. Unless o.Shared, it takes the
// region's lock, or fails with ErrBusy.
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
	r.fault = r.mediaError
	if err := r.mapAll(o); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// lock takes the exclusive lock of the open file. The lock belongs to the descriptor.
//
// The kernel keeps one lock per device node or inode. Two nodes of one device have two locks, which
// is why the filesystem keeps an owner record as well.
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

// Size returns the region's size in bytes: a multiple of 4096, and of Align on device-dax and
// hugetlbfs.
func (r *Region) Size() int64 { return r.size }

// Path returns the path that Open was called with.
func (r *Region) Path() string { return r.path }

// Kind returns the kind of memory that the region is in.
func (r *Region) Kind() Kind { return r.kind }

// Durability returns the failures that a flushed and fenced store survives.
func (r *Region) Durability() Durability { return r.kind.durability() }

// Align returns the mapping granule in bytes: mappings given to programs must be multiples of it.
// It is the device's align, hugetlbfs's page size, 2 MiB on fsdax, and else the host's page size
// (4096 or more).
func (r *Region) Align() int64 { return r.align }

// ReadOnly reports whether stores are refused.
func (r *Region) ReadOnly() bool { return r.readOnly }

// Locked reports whether the region has its lock, that is, was not opened Shared.
func (r *Region) Locked() bool { return r.locked }

// RegularFile reports whether the region is a file, which can be copied, and not a device.
func (r *Region) RegularFile() bool { return r.kind != KindDevDax && r.kind != KindMemory }

// memories counts the regions that NewMemory made; the count is their inode number.
var memories atomic.Uint64

// Inode returns the device number and the inode number of the open file or device node, by which
// the kernel keeps the lock. A region in memory has device 0 and an inode number of its own. 0, 0
// means unknown.
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

// CheckSize compares the region with want, the size in bytes in its superblock. It asks the kernel
// again, so it also notices a file truncated since Open. The error is ErrTruncated.
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

// Sync writes n bytes at byte offset off back to the file's storage with msync, and returns when
// they are there. Only DurableDaemon regions need it; for others it does nothing.
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

// Close unmaps the region and releases its lock. It does not sync. The region, and slices that
// Bytes returned, must not be used any more: calls of primitives fail, loads from slices fault.
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
