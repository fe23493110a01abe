package direct

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/pmem"
)

// fake is a daemon that serves one file. The bytes that are read and written the normal way are
// those of an ordinary file, so that a test sees which way was taken.
type fake struct {
	t      testing.TB
	region *pmem.Region
	id     pmem.FileID
	file   *os.File // the normal way

	mu      sync.Mutex
	extents []protocol.Extent // in order; what none covers is a hole
	size    uint64
	gen     uint64
	granule uint64
	most    int // extents in a reply
	ids     uint64
	live    map[uint64]bool           // confirmed: writable
	fail    map[uint]error            // by command
	before  map[uint]func(arg []byte) // called first, without mu
	calls   map[uint]int
	queries []protocol.GrantRequest
}

const fakeSlot = 4096 // region offset of the file's slot

// newFake returns a fake whose region has size bytes, below dir if that is not empty.
func newFake(t testing.TB, dir string, size int64) *fake {
	t.Helper()
	if dir == "" {
		dir = t.TempDir()
	}
	path := filepath.Join(dir, "region")
	if err := pmem.Create(path, size, true); err != nil {
		t.Fatal(err)
	}
	r, err := pmem.Open(path, pmem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	f := &fake{t: t, region: r, gen: 2, granule: 4096, most: protocol.MaxExtents, live: map[uint64]bool{}, fail: map[uint]error{}, before: map[uint]func([]byte){}, calls: map[uint]int{}}
	if f.id, err = r.FileID(); err != nil {
		t.Fatal(err)
	}
	f.slot()
	if f.file, err = os.OpenFile(filepath.Join(dir, "file"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.file.Close() })
	return f
}

// slot stores generation and size.
func (f *fake) slot() {
	for off, v := range map[int64]uint64{fakeSlot + protocol.SlotGeneration: f.gen, fakeSlot + protocol.SlotFileSize: f.size} {
		if err := f.region.Store8(off, v); err != nil {
			f.t.Fatal(err)
		}
	}
}

// set gives the file its blocks and a size. The layout changes.
func (f *fake) set(size uint64, extents ...protocol.Extent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.size, f.extents = size, extents
	f.gen += 2
	f.slot()
	if err := f.file.Truncate(int64(size)); err != nil {
		f.t.Fatal(err)
	}
}

// grow changes only the size.
func (f *fake) grow(size uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.size = size
	f.slot()
	if err := f.file.Truncate(int64(size)); err != nil {
		f.t.Fatal(err)
	}
}

// fill stores a byte to n bytes of the region.
func (f *fake) fill(off int64, b byte, n int) {
	f.t.Helper()
	if err := f.region.Store(off, slices.Repeat([]byte{b}, n)); err != nil {
		f.t.Fatal(err)
	}
}

// open opens the file with flags O_*.
func (f *fake) open(flags int) (*File, error) {
	file, err := os.OpenFile(f.file.Name(), flags, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	defer file.Close()
	return open(file, f.ioctl)
}

// mustOpen is open, and closes the file at the end.
func (f *fake) mustOpen(flags int) *File {
	f.t.Helper()
	d, err := f.open(flags)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { d.Close() })
	return d
}

func (f *fake) count(cmd uint) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[cmd]
}

// leases returns how many confirmed grants have their locks.
func (f *fake) leases() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, write := range f.live {
		if f.locked(protocol.Identity(id, write), 1) {
			n++
		}
	}
	return n
}

func (f *fake) locked(off, n int64) bool {
	_, _, ok, err := f.region.FirstLock(off, n)
	if err != nil {
		f.t.Fatal(err)
	}
	return ok
}

// ioctl answers as the daemon does.
func (f *fake) ioctl(cmd uint, arg []byte) error {
	if g := f.before[cmd]; g != nil {
		g(arg)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[cmd]++
	if err := f.fail[cmd]; err != nil {
		return err
	}
	if v := binary.LittleEndian.Uint32(arg); v != protocol.Version {
		f.t.Errorf("a request of version %d", v)
	}
	if cmd == protocol.IocGrant {
		return f.grant(arg)
	}
	var c protocol.Command
	if err := c.Decode(arg); err != nil {
		f.t.Errorf("command %#x: %v", cmd, err)
		return unix.EINVAL
	}
	if cmd == protocol.IocConfirm {
		if c.Generation != f.gen {
			return unix.ESTALE
		}
		for _, write := range []bool{false, true} {
			if f.locked(protocol.Identity(c.ID, write), 1) {
				f.live[c.ID] = write
				protocol.EncodeReply(arg)
				return nil
			}
		}
		return unix.ENOLCK
	}
	if _, ok := f.live[c.ID]; !ok {
		return unix.ENOENT
	}
	protocol.EncodeReply(arg)
	return nil
}

func (f *fake) grant(arg []byte) error {
	var q protocol.GrantRequest
	if err := q.Decode(arg); err != nil {
		f.t.Errorf("GRANT: %v", err)
		return unix.EINVAL
	}
	f.queries = append(f.queries, q)
	write := q.Flags&protocol.Write != 0
	end := min(q.Offset+q.Length, (f.size+4095)&^4095)
	if q.Offset >= end {
		return unix.ENXIO
	}
	f.ids++
	g := protocol.Grant{
		Flags: q.Flags & protocol.Write, ID: f.ids, Inode: 5, RegionDev: f.id.Dev, RegionIno: f.id.Ino, Slot: fakeSlot, Generation: f.gen,
		FileSize: f.size, Granule: f.granule, RegionSize: uint64(f.region.Size()), Path: f.region.Path(),
	}
	at := q.Offset
	for _, x := range f.extents {
		lo, hi := max(x.Offset, q.Offset), min(x.Offset+x.Length, end)
		if lo >= hi {
			continue
		}
		if write && lo > at || len(g.Extents) == f.most {
			break
		}
		g.Extents = append(g.Extents, protocol.Extent{Offset: lo, Region: x.Region + lo - x.Offset, Length: hi - lo})
		at = hi
	}
	g.End = end
	if write || len(g.Extents) == f.most {
		g.End = at
	}
	if g.End == q.Offset {
		return unix.ENXIO
	}
	g.Encode(arg)
	return nil
}
