package direct

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/pmem"
)

// MapOptions are the options of Map.
type MapOptions struct {
	// Write maps to write as well as to read. Blocks that the file shares with others or that are
	// unwritten are made its own and written first.
	Write bool
	// Allocate gives blocks to the holes of the range, in a mapping to write. Without it a hole is
	// an error there. In a mapping to read, holes are zeros.
	Allocate bool
	// PageSize is the size of pages that is wanted, in bytes: 0 (any), or a power of two. The
	// daemon then moves the file's blocks to where such pages can map them, as far as nobody uses
	// them.
	PageSize int64
}

// Mapping is a range of a file that is mapped: the file's own memory.
//
// States: mapped -> closed (Close) -> ended, when it is not pinned.
type Mapping struct {
	lease  *lease
	mem    *pmem.Window
	off    int64 // of the range in the file, bytes
	n      int64 // its length, bytes
	at     int64 // its place in mem
	slot   int64 // place of the slot in mem
	pieces []Piece

	mu     sync.Mutex
	closed bool // protected by mu
	pins   int  // protected by mu
}

// Piece is a part of a mapping, and the largest page size that its place allows. All numbers are
// bytes.
type Piece struct {
	Off, Length int64 // in the file
	PageSize    int64
}

const (
	pmdSize = 2 << 20
	pudSize = 1 << 30
)

// Map maps length bytes of the file from byte offset off on, a multiple of 4096. The range must lie
// in the file. Errors: ErrRange, ErrLayout, ErrRefused, ErrRegion, ErrBudget, ErrChanging.
func (f *File) Map(off, length int64, o MapOptions) (*Mapping, error) {
	page := int64(os.Getpagesize())
	if off < 0 || length <= 0 || off&(page-1) != 0 || length > beyond-off || o.PageSize < 0 || o.PageSize&(o.PageSize-1) != 0 || o.Allocate && !o.Write {
		return nil, fmt.Errorf("%w: map %d bytes of %s at offset %d, pages of %d: a positive length, an offset that is a multiple of %d and a power of two are expected, and Allocate only with Write", ErrRange, length, f.Name(), off, o.PageSize, page)
	}
	if f.closed.Load() {
		return nil, f.closedError("map")
	}
	if size, err := f.Size(); err != nil {
		return nil, err
	} else if off+length > size {
		return nil, fmt.Errorf("%w: map bytes %d to %d of %s: it has %d; Grow it first", ErrRange, off, off+length, f.Name(), size)
	}
	q := protocol.GrantRequest{Offset: uint64(off), Length: uint64(length+4095) &^ 4095}
	if o.PageSize >= 4096 {
		q.PageSize = uint64(o.PageSize)
	}
	if o.Write {
		q.Flags |= protocol.Write
	}
	if o.Allocate {
		q.Flags |= protocol.Allocate
	}
	l, err := f.leaseInPages(q)
	if err != nil {
		return nil, err
	}
	m := &Mapping{lease: l, off: off, n: length}
	if err := m.open(&o, f.Name()); err != nil {
		l.end()
		return nil, err
	}
	f.conn.users.Add(1)
	return m, nil
}

// keptBack is how long blocks are kept where they are after their lease has ended, and some
// milliseconds.
const keptBack = 110 * time.Millisecond

// leaseInPages leases all of the range of q. The daemon moves nothing for large pages that is
// mapped, so this file's own windows go first.
func (f *File) leaseInPages(q protocol.GrantRequest) (*lease, error) {
	dropped := false
	if q.PageSize > 4096 {
		lo, hi := int64(q.Offset), int64(q.Offset+q.Length)
		dropped = f.readers.drop(lo, hi)
		dropped = f.writers.drop(lo, hi) || dropped
	}
	l, err := f.conn.lease(q, true)
	if err != nil || !dropped || l.inPages(q.Offset, q.Offset+q.Length, q.PageSize) {
		return l, err
	}
	l.end()
	time.Sleep(keptBack)
	return f.conn.lease(q, true)
}

// inPages reports whether pages of a size can map all of them that lie in bytes [lo, hi) of the
// file.
func (l *lease) inPages(lo, hi, size uint64) bool {
	at := (lo + size - 1) &^ (size - 1)
	for _, g := range l.grants {
		for _, x := range g.Extents {
			for x.Offset <= at && at+size <= min(hi, x.Offset+x.Length) && (x.Region-x.Offset)&(size-1) == 0 {
				at += size
			}
		}
	}
	return at+size > hi
}

// open maps what is leased.
func (m *Mapping) open(o *MapOptions, name string) error {
	page := int64(os.Getpagesize())
	unit := max(m.lease.region.Align(), page)
	if m.lease.region.Kind() == pmem.KindFSDax { // its align is the largest page, and 4 KiB work
		unit = page
	}
	a := arrangement{unit: unit, page: page, region: m.lease.region.Size(), off: m.off, end: m.off + m.n, write: o.Write}
	if err := a.arrange(m.lease.grants); err != nil {
		return fmt.Errorf("%w: %s, bytes %d to %d: %w", ErrLayout, name, m.off, m.off+m.n, err)
	}
	var err error
	m.mem, err = m.lease.region.Window(m.lease.desc, a.parts, pmem.WindowOptions{
		Write: o.Write, Size: a.size, Modulus: a.modulus, Rest: a.rest, Beside: m.lease.conn.file,
	})
	if err != nil {
		return err
	}
	m.at, m.slot = a.at, a.slot
	m.pieces = a.pieces(m.lease.region)
	return nil
}

// Bytes returns the bytes of the range. Loads, and stores if it is mapped to write, go to the
// file's memory. On media that fails, or a region that is truncated, they raise SIGBUS.
func (m *Mapping) Bytes() []byte { return m.mem.Bytes(m.at, m.n) }

// PageSizes returns which page size each piece allows. The kernel uses it where it is configured
// to: always on device-dax and hugetlbfs, by the mount options of tmpfs.
func (m *Mapping) PageSizes() []Piece { return m.pieces }

// Stale reports whether the layout of the file has changed since Map, or the daemon was started
// again: the bytes belong to nobody else, but perhaps no longer to the file.
func (m *Mapping) Stale() bool {
	gen, _, err := m.mem.LoadPair(m.slot + protocol.SlotGeneration)
	return err != nil || gen != m.lease.generation()
}

// Flush makes n bytes from offset off of the range durable, and tells the daemon that they were
// stored: the file's times change, and programs that map it through the mount see the bytes. On a
// region in an ordinary file, File.Sync is what writes to the disk.
func (m *Mapping) Flush(off, n int64) error {
	if off < 0 || n < 0 || off > m.n-n {
		return fmt.Errorf("%w: flush %d bytes at %d of a mapping of %d", ErrRange, n, off, m.n)
	}
	if err := m.mem.FlushFence(m.at+off, n); err != nil || n == 0 {
		return err
	}
	return m.lease.commit(uint64(m.off+off), uint64(m.off+off+n))
}

// Pin keeps the lease until Unpin, even after Close, or else until the process ends. Call it before
// the memory is registered with io_uring, sent with MSG_ZEROCOPY or given to a device, and Unpin
// when they have ceased to use it: nothing else keeps the memory from becoming another file's.
func (m *Mapping) Pin() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed && m.pins == 0 {
		return fmt.Errorf("direct: pin a mapping of %s: %w", m.lease.conn.file.Name(), os.ErrClosed)
	}
	m.pins++
	return nil
}

// Unpin ends one Pin. It panics if there is none.
func (m *Mapping) Unpin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pins--; m.pins < 0 {
		panic("direct: Unpin of a mapping that is not pinned")
	}
	if m.closed && m.pins == 0 {
		m.end()
	}
}

// Close unmaps the range; Bytes must not be used any more. It flushes nothing. The lease ends,
// unless the mapping is pinned or a forked child has it too.
func (m *Mapping) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return fmt.Errorf("direct: close a mapping of %s: %w", m.lease.conn.file.Name(), os.ErrClosed)
	}
	m.closed = true
	err := m.mem.Close()
	if m.pins == 0 {
		m.end()
	}
	return err
}

func (m *Mapping) end() {
	m.lease.end()
	m.lease.conn.put()
}

// arrangement finds where the extents of a range are mapped, so that the bytes are contiguous.
// Numbers are bytes.
type arrangement struct {
	unit, page int64 // granule of mappings; the host's page size
	region     int64 // size
	off, end   int64 // the range in the file
	write      bool

	parts         []pmem.Part // result, with the slot's
	size          int64       // of the window
	modulus, rest int64       // of its address
	at, slot      int64       // places of off and of the slot in the window
}

// arrange computes the result. The window begins with the unit that holds the first byte. Its
// address is chosen so that the longest extents can be mapped by the largest pages.
func (a *arrangement) arrange(grants []*protocol.Grant) error {
	var xs []protocol.Extent
	for _, g := range grants {
		for _, x := range g.Extents {
			if n := len(xs); n > 0 && xs[n-1].Offset+xs[n-1].Length == x.Offset && xs[n-1].Region+xs[n-1].Length == x.Region {
				xs[n-1].Length += x.Length
			} else {
				xs = append(xs, x)
			}
		}
	}
	a.modulus = a.unit
	for _, m := range [...]int64{pmdSize, pudSize} {
		if a.end-a.off >= m {
			a.modulus = max(a.modulus, m)
		}
	}
	var longest protocol.Extent
	for _, x := range xs {
		if x.Length > longest.Length {
			longest = x
		}
	}
	// delta is the difference of addresses and offsets in the file, modulo modulus.
	delta := (int64(longest.Region) - int64(longest.Offset)) & (a.modulus - 1)
	first := a.off + delta // address of off, modulo modulus
	a.at = first & (a.unit - 1)
	a.rest = (first - a.at) & (a.modulus - 1)
	end := a.at + (a.end+a.page-1)&^(a.page-1) - a.off
	if err := a.place(xs, (end+a.unit-1)&^(a.unit-1)); err != nil {
		return err
	}
	// The slot's unit follows.
	slot := slotPart(int64(grants[0].Slot), (end+a.unit-1)&^(a.unit-1), a.unit, a.region)
	a.parts = append(a.parts, slot)
	a.slot = slot.At + int64(grants[0].Slot) - slot.Off
	a.size = slot.At + slot.N
	return nil
}

// place maps extents to parts, in units, and what is between them as zeros, up to end.
func (a *arrangement) place(xs []protocol.Extent, end int64) error {
	next := int64(0) // up to where the window is arranged
	for i, x := range xs {
		at := a.at + int64(x.Offset) - a.off
		tail := at + int64(x.Length)
		lo, hi := at&^(a.unit-1), (tail+a.unit-1)&^(a.unit-1)
		from := int64(x.Region) - (at - lo)
		var last *pmem.Part
		if n := len(a.parts); n > 0 {
			last = &a.parts[n-1]
		}
		switch {
		case from&(a.unit-1) != 0:
			return fmt.Errorf("offset %d of the file is at offset %d of the region, where pages of %d bytes cannot map it; Map with PageSize %d, so that the daemon moves it", x.Offset, x.Region, a.unit, a.unit)
		case lo < next: // in one unit with the extent before
			if last.Off+lo-last.At != from || xs[i-1].Offset+xs[i-1].Length != x.Offset {
				return a.mixed(x.Offset)
			}
			last.N = min(hi-last.At, a.region-last.Off)
		case at > lo && at > a.at: // the unit begins with a hole of the range
			return a.mixed(x.Offset)
		default:
			a.zeros(next, lo)
			a.parts = append(a.parts, pmem.Part{Off: from, At: lo, N: min(hi-lo, a.region-from)})
		}
		next = hi
		if hole := i+1 == len(xs) || xs[i+1].Offset != x.Offset+x.Length; hole && tail < min(hi, a.at+a.end-a.off) {
			return a.mixed(x.Offset + x.Length)
		}
	}
	a.zeros(next, end)
	return nil
}

// mixed is the error of a unit that cannot be mapped as a whole.
func (a *arrangement) mixed(off uint64) error {
	return fmt.Errorf("a page of %d bytes would hold a hole or another extent at offset %d of the file; allocate the file, and Map with PageSize %d, so that the daemon moves its blocks together", a.unit, off, a.unit)
}

// zeros adds a part that is zeros.
func (a *arrangement) zeros(lo, hi int64) {
	if lo < hi {
		a.parts = append(a.parts, pmem.Part{At: lo, N: hi - lo, Zeros: true})
	}
}

// pieces returns what page size each part of the range allows.
func (a *arrangement) pieces(r *pmem.Mapper) (all []Piece) {
	add := func(lo, hi, size int64) {
		lo, hi = max(lo, a.at), min(hi, a.at+a.end-a.off)
		if lo >= hi {
			return
		}
		if n := len(all); n > 0 && all[n-1].PageSize == size {
			all[n-1].Length += hi - lo
			return
		}
		all = append(all, Piece{Off: a.off + lo - a.at, Length: hi - lo, PageSize: size})
	}
	for _, p := range a.parts[:len(a.parts)-1] {
		switch {
		case p.Zeros:
			add(p.At, p.At+p.N, a.page)
			continue
		case r.Kind() == pmem.KindDevDax || r.Kind() == pmem.KindHugetlb:
			add(p.At, p.At+p.N, a.unit)
			continue
		}
		// Whole and aligned pages of 2 MiB in the middle.
		lo := p.At + -(p.At+a.rest)&(pmdSize-1)
		hi := p.At + p.N - (p.At+p.N+a.rest)&(pmdSize-1)
		if (p.Off-p.At-a.rest)&(pmdSize-1) != 0 || lo >= hi {
			add(p.At, p.At+p.N, a.page)
			continue
		}
		add(p.At, lo, a.page)
		add(lo, hi, pmdSize)
		add(hi, p.At+p.N, a.page)
	}
	return all
}
