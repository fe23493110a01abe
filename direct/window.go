package direct

import (
	"cmp"
	"math"
	"os"
	"slices"
	"sort"
	"sync/atomic"
	"time"

	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/pmem"
)

// window is a part of a file that is mapped for copying: each extent wherever its granule lies, and
// a table that translates. All offsets are bytes.
//
// States: in a table -> dropped (by the table) -> gone, when its last user has put it.
type window struct {
	lo, hi int64 // part of the file; immutable
	cut    bool  // it ends where the file or its blocks ended, not where the reply was full
	lease  *lease
	mem    *pmem.Window
	gen    uint64
	slot   int64   // offset in mem
	places []place // in ascending order; what none covers is a hole
	maps   int     // counted in mappings
	since  time.Time
	dirty  atomic.Bool // stored to since the last COMMIT

	users atomic.Int64 // the table and each running call; goneUsers: unmapped
}

// place is an extent and where it is mapped.
type place struct{ off, n, at int64 }

// goneUsers marks a window that is unmapped: callers that add to it get no positive number.
const goneUsers = math.MinInt64 / 2

// get takes a reference. It fails if the window is gone.
func (w *window) get() bool {
	if w.users.Add(1) > 0 {
		return true
	}
	w.users.Add(-1)
	return false
}

// put ends a reference. The last one unmaps the window.
func (w *window) put() {
	if w.users.Add(-1) == 0 && w.users.CompareAndSwap(0, goneUsers) {
		w.unmap()
	}
}

func (w *window) unmap() {
	c := w.lease.conn
	if w.dirty.Load() {
		_ = w.commit() // at the end of the lease the daemon updates the times anyway
	}
	w.mem.Close()
	mappings.Add(-int64(w.maps))
	w.lease.end()
	c.put()
}

func (w *window) commit() error {
	if !w.dirty.Swap(false) {
		return nil
	}
	return w.lease.commit(uint64(w.lo), uint64(w.hi))
}

// looseGap is how far apart two extents of a window to read may be in the region and still be in
// one mapping, and the alignment of such mappings: the kernel can then use pages of this size.
const looseGap = 2 << 20

// openWindow leases and maps what one grant holds of bytes [lo, hi) of a file.
func (c *conn) openWindow(lo, hi int64, flags uint32) (*window, error) {
	l, err := c.lease(protocol.GrantRequest{Flags: flags, Offset: uint64(lo), Length: uint64(hi - lo)}, false)
	if err != nil {
		return nil, err
	}
	g := l.grants[0]
	w := &window{
		lo: lo, hi: int64(g.End), cut: int64(g.End) < hi && len(g.Extents) < protocol.MaxExtents,
		lease: l, gen: g.Generation, since: time.Now(),
	}
	write := flags&protocol.Write != 0
	unit := max(l.region.Align(), int64(os.Getpagesize()))
	if !write {
		unit = max(unit, looseGap)
	}
	parts, size, modulus := w.arrange(g, unit, l.region.Size())
	w.maps = 2*len(parts) + 1 // and the gaps between them
	if !reserve(w.maps) {
		l.end()
		return nil, ErrBudget
	}
	if w.mem, err = l.region.Window(l.desc, parts, pmem.WindowOptions{Write: write, Size: size, Modulus: modulus}); err != nil {
		mappings.Add(-int64(w.maps))
		l.end()
		return nil, err
	}
	// The mappings keep the description.
	l.desc.Close()
	l.desc = nil
	c.users.Add(1)
	w.users.Store(1)
	return w, nil
}

// arrange finds which parts of the region to map: the units that the extents lie in, adjacent ones
// together, and the unit of the slot. It sets places and slot. Each part has an address that is its
// offset in the region modulo modulus. All numbers are bytes.
func (w *window) arrange(g *protocol.Grant, unit, regionSize int64) (parts []pmem.Part, size, modulus int64) {
	modulus = max(unit, looseGap)
	add := func(lo, hi int64) {
		p := pmem.Part{Off: lo &^ (unit - 1), At: (size + modulus - 1) &^ (modulus - 1)}
		p.At += p.Off & (modulus - 1)
		p.N = min((hi+unit-1)&^(unit-1), regionSize) - p.Off
		if n := len(parts); n > 0 && p.Off <= parts[n-1].Off+parts[n-1].N {
			last := &parts[n-1]
			last.N = max(last.N, p.Off+p.N-last.Off)
			p = *last
		} else {
			parts = append(parts, p)
		}
		size = p.At + p.N
	}
	sorted := slices.Clone(g.Extents)
	slices.SortFunc(sorted, func(a, b protocol.Extent) int { return cmp.Compare(a.Region, b.Region) })
	for _, x := range sorted {
		add(int64(x.Region), int64(x.Region+x.Length))
	}
	for _, x := range g.Extents {
		i := sort.Search(len(parts), func(i int) bool { return parts[i].Off > int64(x.Region) }) - 1
		w.places = append(w.places, place{int64(x.Offset), int64(x.Length), parts[i].At + int64(x.Region) - parts[i].Off})
	}
	slot := slotPart(int64(g.Slot), (size+unit-1)&^(unit-1), unit, regionSize)
	w.slot = slot.At + int64(g.Slot) - slot.Off
	return append(parts, slot), slot.At + slot.N, modulus
}

// slotPart returns the unit that holds a slot, to be mapped at offset at of a window.
func slotPart(slot, at, unit, regionSize int64) pmem.Part {
	lo := slot &^ (unit - 1)
	return pmem.Part{Off: lo, At: at, N: min(unit, regionSize-lo), ReadOnly: true}
}

// place returns the index of the first place that ends behind off.
func (w *window) place(off int64) int {
	if len(w.places) == 1 && off < w.places[0].off+w.places[0].n {
		return 0
	}
	lo, hi := 0, len(w.places)
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if p := &w.places[mid]; p.off+p.n <= off {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// prefetch begins loading n bytes of the file from off on.
func (w *window) prefetch(off, n int64) {
	if i := w.place(off); i < len(w.places) {
		w.mem.Prefetch(w.places[i].at+off-w.places[i].off, n)
	}
}

// look returns the size of the file, and whether the window is still of its blocks.
func (w *window) look() (size int64, fresh bool, err error) {
	gen, n, err := w.mem.LoadPair(w.slot + protocol.SlotGeneration)
	return int64(n), gen == w.gen, err
}

// read copies bytes of the file from off on, which is in the window, to p, as far as the window and
// the file go. fresh is false, and n is 0, if the blocks are no longer the file's.
func (w *window) read(p []byte, off int64) (n int, fresh bool, err error) {
	i := w.place(off)
	if i < len(w.places) {
		if x := &w.places[i]; x.off <= off && int64(len(p)) <= x.off+x.n-off {
			n, fresh, err = w.mem.LoadBelow(w.slot, w.gen, off, x.at+off-x.off, p)
			if !fresh || err != nil {
				n = 0
			}
			return n, fresh, err
		}
	}
	size, fresh, err := w.look()
	if !fresh || err != nil {
		return 0, fresh, err
	}
	if end := min(size, w.hi); int64(len(p)) > end-off {
		if end <= off {
			return 0, true, nil
		}
		p = p[:end-off]
	}
	return w.readParts(p, off, i)
}

// readParts is read of all of p, from the place with index i on.
func (w *window) readParts(p []byte, off int64, i int) (n int, fresh bool, err error) {
	for n < len(p) {
		at, left := off+int64(n), int64(len(p)-n)
		if i == len(w.places) || at < w.places[i].off {
			k := left
			if i < len(w.places) {
				k = min(k, w.places[i].off-at)
			}
			clear(p[n : n+int(k)])
			n += int(k)
			continue
		}
		x := &w.places[i]
		k := min(left, x.off+x.n-at)
		if err := w.mem.Load(x.at+at-x.off, p[n:n+int(k)]); err != nil {
			return 0, true, err
		}
		n += int(k)
		i++
	}
	fresh, err = w.mem.LoadWhile(w.slot, w.gen, w.slot, nil)
	if !fresh || err != nil {
		n = 0
	}
	return n, fresh, err
}

// write stores p to the file from off on, which is in the window, as far as the window and the file
// go, and returns when that is durable. Under a writable lease no block moves, so a store that
// meets a truncation is a store before it, and the generation is not looked at again.
func (w *window) write(p []byte, off int64) (n int, fresh bool, err error) {
	size, fresh, err := w.look()
	if !fresh || err != nil {
		return 0, fresh, err
	}
	if end := min(size, w.hi); int64(len(p)) > end-off {
		if end <= off {
			return 0, true, nil
		}
		p = p[:end-off]
	}
	for i := w.place(off); n < len(p); i++ {
		x := &w.places[i]
		at := off + int64(n)
		k := min(int64(len(p)-n), x.off+x.n-at)
		if err := w.mem.NTStore(x.at+at-x.off, p[n:n+int(k)]); err != nil {
			return 0, true, err
		}
		n += int(k)
	}
	w.mem.Fence()
	if !w.dirty.Load() { // afterwards: a COMMIT meanwhile was not of these bytes
		w.dirty.Store(true)
	}
	return n, true, nil
}
